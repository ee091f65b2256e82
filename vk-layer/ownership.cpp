// SPDX-License-Identifier: MIT
#include "ownership.hpp"

#include <algorithm>
#include <utility>

namespace sluice::layer {

// ---- Command buffers ----------------------------------------------------------------------------

void Ownership::allocated(VkCommandPool pool, std::span<const VkCommandBuffer> all) {
    const std::scoped_lock held(lock_);
    for (VkCommandBuffer each : all)
        recordings_[each] = {.pool = pool};
}

void Ownership::freed(std::span<const VkCommandBuffer> all) {
    const std::scoped_lock held(lock_);
    for (VkCommandBuffer each : all)
        recordings_.erase(each);
}

void Ownership::pool_destroyed(VkCommandPool pool) {
    const std::scoped_lock held(lock_);
    std::erase_if(recordings_, [=](const auto& each) { return each.second.pool == pool; });
}

void Ownership::pool_reset(VkCommandPool pool) {
    const std::scoped_lock held(lock_);
    for (auto& [commands, recording] : recordings_)
        if (recording.pool == pool)
            recording.events = std::make_shared<Events>();
}

void Ownership::reset(VkCommandBuffer commands) {
    const std::scoped_lock held(lock_);
    if (const auto found = recordings_.find(commands);
        found != recordings_.end() && !found->second.events->empty())
        found->second.events = std::make_shared<Events>();
}

void Ownership::executes(VkCommandBuffer primary, std::span<const VkCommandBuffer> others) {
    const std::scoped_lock held(lock_);
    const auto into = recordings_.find(primary);
    for (VkCommandBuffer each : others)
        if (const auto from = recordings_.find(each);
            into != recordings_.end() && from != recordings_.end())
            into->second.events->insert(into->second.events->end(), from->second.events->begin(),
                                        from->second.events->end());
}

void Ownership::record(VkCommandBuffer commands, Event&& event) {
    const std::scoped_lock held(lock_);
    if (const auto found = recordings_.find(commands); found != recordings_.end())
        found->second.events->push_back(std::move(event));
}

// ---- Memory -------------------------------------------------------------------------------------

void Ownership::allocated(const SharedMemoryPtr& memory, bool imported) {
    const std::scoped_lock held(lock_);
    std::erase_if(states_, [](const auto& each) { return each.second.of.expired(); });
    // One buffer is one, however often it is imported.
    states_.try_emplace(memory.get(), State{.of = memory, .in_hand = !imported});
}

void Ownership::written_unseen(const SharedMemoryPtr& memory) {
    const std::scoped_lock held(lock_);
    if (const auto found = states_.find(memory.get()); found != states_.end())
        found->second.unseen = true;
}

void Ownership::destroyed(Object resource) {
    const std::scoped_lock held(lock_);
    for (auto& [memory, state] : states_)
        // What it held may serve others, whose handles are not known.
        if (std::erase_if(state.held, [=](const Held& each) { return each.by == resource; }) > 0)
            state.in_hand = true;
}

// ---- Submissions --------------------------------------------------------------------------------

void Ownership::collect(VkCommandBuffer commands, Recorded& into) const {
    const std::scoped_lock held(lock_);
    if (const auto found = recordings_.find(commands);
        found != recordings_.end() && !found->second.events->empty())
        into.push_back(found->second.events);
}

void Ownership::ignore(const Recorded& all) {
    const std::scoped_lock held(lock_);
    for (const auto& events : all)
        for (const Event& event : *events)
            for (const SharedMemoryPtr& memory : event.behind.memories)
                if (const auto found = states_.find(memory.get()); found != states_.end())
                    found->second.ignored = true;
}

void Ownership::forget() noexcept {
    const std::scoped_lock held(lock_);
    recordings_.clear();
    states_.clear();
}

std::vector<Finding> Ownership::submit(const Recorded& all) {
    std::vector<Finding> findings;
    const std::scoped_lock held(lock_);
    for (const auto& events : all)
        for (const Event& event : *events) {
            SharedMemoryPtr wrong;
            for (const SharedMemoryPtr& memory : event.behind.memories) {
                if (!memory)
                    break;
                const auto found = states_.find(memory.get());
                if (found == states_.end())
                    continue;
                State& state = found->second;
                if (state.ignored || !apply(state, event))
                    continue;
                // Whoever never records any is told once.
                if (memory->has_barriers.load(std::memory_order_relaxed) ||
                    !std::exchange(state.told, true))
                    wrong = memory;
            }
            if (!wrong)
                continue;
            findings.push_back({.mistake = event.kind == Event::Kind::acquire
                                               ? Mistake::handover_without_release
                                               : Mistake::use_without_acquire,
                                .on = event.on,
                                .memory = std::move(wrong)});
        }
    return findings;
}

Ownership::Held* Ownership::State::find(Object by) {
    const auto found = std::ranges::find(held, by, &Held::by);
    return found != held.end() ? &*found : nullptr;
}

bool Ownership::State::others(Object than) const {
    return std::ranges::any_of(held, [&](const Held& each) { return each.by != than; });
}

bool Ownership::read(const State& state, const Held* held, const Event& event) {
    if (state.in_hand || state.unseen || state.others(event.on))
        return false;
    return held == nullptr || held->undefined;
}

bool Ownership::apply(State& state, const Event& event) {
    Held* held = state.find(event.on);
    const auto hold = [&]() -> Held& {
        return held != nullptr ? *held : state.held.emplace_back(Held{.by = event.on});
    };
    switch (event.kind) {
    case Event::Kind::acquire: {
        const bool again = event.whole && held != nullptr && held->acquired;
        hold() = {.by = event.on, .acquired = event.whole};
        return again;
    }
    case Event::Kind::release:
        if (event.whole) {
            state.in_hand = false;
            std::erase_if(state.held, [&](const Held& each) { return each.by == event.on; });
        } else {
            hold() = {.by = event.on}; // some of it stays, nobody knows what
        }
        return false;
    case Event::Kind::read:
        return read(state, held, event);
    case Event::Kind::write:
        hold().undefined = false;
        return false;
    case Event::Kind::discard: {
        if (held == nullptr) {
            state.held.push_back(
                {.by = event.on, .undefined = event.whole, .to_be_read = event.to_be_read});
            return false;
        }
        // Whoever gives contents up to read what is left of them does it to all images that he
        // makes, which is no mistake yet. The second time it is.
        const bool wrong = event.to_be_read && held->to_be_read && read(state, held, event);
        held->to_be_read = event.to_be_read;
        return wrong;
    }
    }
    return false;
}

} // namespace sluice::layer
