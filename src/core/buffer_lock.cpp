// SPDX-License-Identifier: MIT
#include <sluice/buffer_lock.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/dma_buf_text.hpp"

namespace sluice {

namespace {

struct Held {
    std::uint64_t inode;
    std::uint64_t holder;
    std::uint64_t thread;
};

/// A request that is not served yet, on its thread's stack.
struct Waiting {
    std::function<bool(std::uint64_t inode)> wants;
};

/// The buffers that are held in this process. Few at a time, so a list that is looked through.
struct Table {
    std::mutex lock;
    std::condition_variable changed;
    std::vector<Held> held;
    std::vector<const Waiting*> waiting; // in the order of their arrival
    std::uint64_t last_holder = 0;

    [[nodiscard]] const Held* find(const DmaBuf& buffer) const {
        const auto found = std::ranges::find(held, buffer.inode(), &Held::inode);
        return found == held.end() ? nullptr : &*found;
    }

    /// Whether somebody who came before \p self, which may not be among them yet, waits for it.
    [[nodiscard]] bool is_next_for_another(const DmaBuf& buffer, const Waiting& self) const {
        return std::any_of(waiting.begin(), std::ranges::find(waiting, &self),
                           [&](const Waiting* each) { return each->wants(buffer.inode()); });
    }
};

/// Never destroyed: other static objects may let their buffers go after it would have been.
Table& table() {
    static Table& only = *new Table;
    return only;
}

/// This thread's number. A std::thread::id will not do: another thread may get it again.
std::uint64_t this_thread() noexcept {
    static constinit std::atomic<std::uint64_t> threads = 0;
    thread_local const std::uint64_t number = ++threads;
    return number;
}

constexpr const char* operation = "BufferLock::acquire";

/// Takes all of \p buffers, in turn. \returns the number of the holder.
template <typename Range, typename Buffer>
Result<std::uint64_t> take(const Range& buffers, Buffer buffer_of, Deadline deadline) {
    for (const auto& each : buffers)
        if (buffer_of(each).fd() < 0)
            return tl::unexpected(moved_from(operation));
    Table& all = table();
    const std::uint64_t self = this_thread();
    const auto is_same = [&](std::uint64_t inode) {
        return std::ranges::any_of(
            buffers, [&](const auto& each) { return buffer_of(each).inode() == inode; });
    };
    const Waiting request{is_same};
    std::unique_lock guard(all.lock);
    bool queued = false;
    const auto leave = [&] {
        if (!queued)
            return;
        std::erase(all.waiting, &request);
        all.changed.notify_all(); // those behind may be next
    };
    for (;;) {
        const bool holds_others =
            std::ranges::find(all.held, self, &Held::thread) != all.held.end();
        const DmaBuf* taken = nullptr;
        for (const auto& each : buffers) {
            const DmaBuf& buffer = buffer_of(each);
            const Held* by = all.find(buffer);
            if (by != nullptr && by->thread == self) {
                leave();
                return tl::unexpected(
                    Error{.code = Errc::busy,
                          .operation = operation,
                          .object = describe(buffer),
                          .problem = "this thread holds it already",
                          .remedy = "Release that lock first, or take all buffers in one lock"});
            }
            if (by != nullptr || (!holds_others && all.is_next_for_another(buffer, request)))
                taken = &buffer;
        }
        if (taken == nullptr)
            break;
        if (Deadline::clock::now() >= deadline) {
            leave();
            return tl::unexpected(Error{
                .code = Errc::timed_out,
                .operation = operation,
                .object = describe(*taken),
                .problem = "other threads held it, or were before this one, until the deadline",
                .remedy = "Allow more time; hold locks over export, submit and import only"});
        }
        if (!std::exchange(queued, true))
            all.waiting.push_back(&request);
        all.changed.wait_until(guard, deadline);
    }
    leave();
    const std::uint64_t holder = ++all.last_holder;
    for (const auto& each : buffers)
        all.held.push_back({.inode = buffer_of(each).inode(), .holder = holder, .thread = self});
    return holder;
}

} // namespace

Result<BufferLock> BufferLock::acquire(std::span<const DmaBuf* const> buffers,
                                       Deadline deadline) noexcept {
    return take(
               buffers, [](const DmaBuf* each) -> const DmaBuf& { return *each; }, deadline)
        .map([](std::uint64_t holder) { return BufferLock(holder); });
}

Result<BufferLock> BufferLock::acquire(std::span<const DmaBuf> buffers,
                                       Deadline deadline) noexcept {
    return take(buffers, std::identity(), deadline).map([](std::uint64_t holder) {
        return BufferLock(holder);
    });
}

Result<BufferLock> BufferLock::acquire(const DmaBuf& buffer, Deadline deadline) noexcept {
    return acquire(std::span(&buffer, 1), deadline);
}

void BufferLock::release() noexcept {
    if (holder_ == 0)
        return;
    Table& all = table();
    bool wake = false;
    {
        const std::scoped_lock guard(all.lock);
        std::erase_if(all.held, [this](const Held& each) { return each.holder == holder_; });
        wake = !all.waiting.empty();
    }
    holder_ = 0;
    if (wake)
        all.changed.notify_all();
}

} // namespace sluice
