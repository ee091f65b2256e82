// SPDX-License-Identifier: MIT
#include "bridge.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <utility>

#include <sluice/buffer_lock.hpp>

#include "chain.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/sys.hpp"

namespace sluice::layer {

namespace {

using namespace std::chrono_literals;

constexpr auto lock_patience = 1s; // others hold a buffer for as long as they submit

// ---- The three kinds of submission, alike -------------------------------------------------------

/// Those whose semaphores' values are in a structure of their own.
template <typename Info> struct WithValuesApart {
    template <typename With> static void waits(const Info& info, With with) {
        if (const auto* values = values_of(info))
            for (std::uint32_t i = 0;
                 i < std::min(info.waitSemaphoreCount, values->waitSemaphoreValueCount); ++i)
                with(TimelineWait{.semaphore = info.pWaitSemaphores[i],
                                  .value = values->pWaitSemaphoreValues[i]});
    }
    template <typename With> static void signals(const Info& info, With with) {
        if (const auto* values = values_of(info))
            for (std::uint32_t i = 0;
                 i < std::min(info.signalSemaphoreCount, values->signalSemaphoreValueCount); ++i)
                with(info.pSignalSemaphores[i], values->pSignalSemaphoreValues[i]);
    }

private:
    static const VkTimelineSemaphoreSubmitInfo* values_of(const Info& info) {
        return find_in<VkTimelineSemaphoreSubmitInfo>(
            info.pNext, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
    }
};

template <typename Info> struct Kind;

template <> struct Kind<VkSubmitInfo> : WithValuesApart<VkSubmitInfo> {
    static VkResult down(const DeviceFunctions& vk, VkQueue queue,
                         std::span<const VkSubmitInfo> infos, VkFence fence) {
        return vk.QueueSubmit(queue, static_cast<std::uint32_t>(infos.size()), infos.data(), fence);
    }
    static std::vector<VkSubmitInfo>& room(Queue& queue) { return queue.infos; }
    template <typename With> static void commands(const VkSubmitInfo& info, With with) {
        for (VkCommandBuffer each : std::span(info.pCommandBuffers, info.commandBufferCount))
            with(each);
    }
    static VkSubmitInfo wait(const Bracket& bracket, Bracket::Infos&) {
        static constexpr VkPipelineStageFlags everything = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
        return {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                .waitSemaphoreCount = 1,
                .pWaitSemaphores = &bracket.wait,
                .pWaitDstStageMask = &everything};
    }
    static VkSubmitInfo signal(const Bracket& bracket, Bracket::Infos&) {
        return {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                .signalSemaphoreCount = 1,
                .pSignalSemaphores = &bracket.signal};
    }
};

template <> struct Kind<VkSubmitInfo2> {
    static VkResult down(const DeviceFunctions& vk, VkQueue queue,
                         std::span<const VkSubmitInfo2> infos, VkFence fence) {
        const auto submit = vk.QueueSubmit2 != nullptr ? vk.QueueSubmit2 : vk.QueueSubmit2KHR;
        return submit(queue, static_cast<std::uint32_t>(infos.size()), infos.data(), fence);
    }
    static std::vector<VkSubmitInfo2>& room(Queue& queue) { return queue.infos2; }
    template <typename With> static void commands(const VkSubmitInfo2& info, With with) {
        for (const auto& each : std::span(info.pCommandBufferInfos, info.commandBufferInfoCount))
            with(each.commandBuffer);
    }
    template <typename With> static void waits(const VkSubmitInfo2& info, With with) {
        for (const auto& each : std::span(info.pWaitSemaphoreInfos, info.waitSemaphoreInfoCount))
            with(TimelineWait{.semaphore = each.semaphore, .value = each.value});
    }
    template <typename With> static void signals(const VkSubmitInfo2& info, With with) {
        for (const auto& each :
             std::span(info.pSignalSemaphoreInfos, info.signalSemaphoreInfoCount))
            with(each.semaphore, each.value);
    }
    static VkSubmitInfo2 wait(const Bracket& bracket, Bracket::Infos& infos) {
        infos.wait = everything(bracket.wait);
        return {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                .waitSemaphoreInfoCount = 1,
                .pWaitSemaphoreInfos = &infos.wait};
    }
    static VkSubmitInfo2 signal(const Bracket& bracket, Bracket::Infos& infos) {
        infos.signal = everything(bracket.signal);
        return {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                .signalSemaphoreInfoCount = 1,
                .pSignalSemaphoreInfos = &infos.signal};
    }

private:
    static VkSemaphoreSubmitInfo everything(VkSemaphore semaphore) {
        return {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                .semaphore = semaphore,
                .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    }
};

template <> struct Kind<VkBindSparseInfo> : WithValuesApart<VkBindSparseInfo> {
    static VkResult down(const DeviceFunctions& vk, VkQueue queue,
                         std::span<const VkBindSparseInfo> infos, VkFence fence) {
        return vk.QueueBindSparse(queue, static_cast<std::uint32_t>(infos.size()), infos.data(),
                                  fence);
    }
    static std::vector<VkBindSparseInfo>& room(Queue& queue) { return queue.binds; }
    template <typename With> static void commands(const VkBindSparseInfo&, With) {}
    static VkBindSparseInfo wait(const Bracket& bracket, Bracket::Infos&) {
        return {.sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                .waitSemaphoreCount = 1,
                .pWaitSemaphores = &bracket.wait};
    }
    static VkBindSparseInfo signal(const Bracket& bracket, Bracket::Infos&) {
        return {.sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO,
                .signalSemaphoreCount = 1,
                .pSignalSemaphores = &bracket.signal};
    }
};

/// What both accesses together are.
Access both(Access a, Access b) noexcept {
    return static_cast<Access>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}

} // namespace

Bridge::Bridge(VkDevice device, const DeviceFunctions& functions, const Tracker& tracker,
               const Recorder& recorder, Timelines& timelines, Settings::Sync mode,
               Report& report) noexcept
    : device_(device), vk_(functions), tracker_(tracker), recorder_(recorder),
      timelines_(timelines), mode_(mode), report_(report),
      able_(functions.ImportSemaphoreFdKHR != nullptr && functions.GetSemaphoreFdKHR != nullptr) {}

// ---- Who takes part -----------------------------------------------------------------------------

void Bridge::take_part(std::vector<Part>& parts, const Use& use) const {
    const DmaBuf* buffer = use.memory->buffer();
    if (buffer == nullptr)
        return; // nobody else has it
    auto part = std::ranges::find(parts, use.memory, &Part::memory);
    if (part == parts.end())
        part = parts.insert(parts.end(), Part{.memory = use.memory});
    if (use.acquires) {
        part->waits_as = part->waits ? both(part->waits_as, use.access) : use.access;
        part->waits = true;
    }
    if (use.releases) {
        part->signals_as = part->signals ? both(part->signals_as, use.access) : use.access;
        part->signals = true;
    }
}

template <typename Info> void Bridge::collect(Queue& queue, std::span<const Info> infos) const {
    queue.parts.clear();
    if (mode_ != Settings::Sync::all)
        for (const Info& info : infos)
            Kind<Info>::commands(info, [&](VkCommandBuffer commands) {
                recorder_.for_each_use(commands,
                                       [&](const Use& use) { take_part(queue.parts, use); });
            });
    if (mode_ == Settings::Sync::ownership)
        return;
    tracker_.for_each([&](const SharedMemoryPtr& memory) {
        if (mode_ == Settings::Sync::all || !memory->has_barriers.load(std::memory_order_relaxed))
            take_part(queue.parts, {.memory = memory,
                                    .access = Access::read_write,
                                    .acquires = true,
                                    .releases = true});
    });
}

// ---- Semaphores ---------------------------------------------------------------------------------

bool Bridge::make_semaphore(VkSemaphore& semaphore, bool exportable) {
    if (semaphore != VK_NULL_HANDLE)
        return true;
    const VkExportSemaphoreCreateInfo as_sync_fd{
        .sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO,
        .pNext = nullptr,
        .handleTypes = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    const VkSemaphoreCreateInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                     .pNext = exportable ? &as_sync_fd : nullptr,
                                     .flags = 0};
    VkSemaphore made = VK_NULL_HANDLE; // what a call that fails leaves there is no handle
    if (vk_.CreateSemaphore(device_, &info, nullptr, &made) != VK_SUCCESS) {
        report_.once(Trouble::semaphore, "vkCreateSemaphore failed: a submission goes on without "
                                         "the fences of its buffers");
        return false;
    }
    semaphore = made;
    return true;
}

Bracket* Bridge::take_bracket(Queue& queue) {
    for (Bracket& each : queue.brackets) {
        if (each.in_use && each.done.fd() >= 0 && sys::poll_now(each.done.fd(), POLLIN) > 0) {
            each.done = SyncFile::signalled();
            each.in_use = false;
        }
        if (!each.in_use)
            return &each;
    }
    return &queue.brackets.emplace_back();
}

bool Bridge::fill_wait(Queue& queue, Bracket& bracket) {
    bracket.trace = queue.trace.submission();
    queue.fences.clear();
    queue.polls.clear();
    for (const Part& part : queue.parts) {
        if (!part.waits)
            continue;
        auto fence = part.memory->buffer()->export_fence(part.waits_as);
        if (!fence) {
            report_.once(Trouble::export_fence, fence.error().message());
            continue;
        }
        if (fence->fd() < 0)
            continue;
        queue.trace.asked(*part.memory->buffer(), part.waits_as, *fence);
        queue.polls.push_back({.fd = fence->fd(), .events = POLLIN, .revents = 0});
        queue.fences.push_back(std::move(*fence));
    }
    if (queue.fences.empty() || sys::poll_now(std::span(queue.polls)) < 0)
        return false;
    // What is done need not be waited for.
    std::size_t pending = 0;
    for (std::size_t i = 0; i < queue.fences.size(); ++i)
        if (queue.polls[i].revents == 0 && pending++ != i)
            queue.fences[pending - 1] = std::move(queue.fences[i]);
    queue.fences.erase(queue.fences.begin() + static_cast<std::ptrdiff_t>(pending),
                       queue.fences.end());
    if (queue.fences.empty())
        return false;
    SyncFile fence = std::move(queue.fences.front());
    if (queue.fences.size() > 1) {
        queue.fences.front() = std::move(fence);
        auto merged = SyncFile::merge(queue.fences);
        if (!merged) {
            report_.once(Trouble::merge, merged.error().message());
            return false;
        }
        fence = std::move(*merged);
        if (fence.fd() < 0)
            return false;
    }
    if (!make_semaphore(bracket.wait, false))
        return false;
    auto copy = UniqueFd::duplicate(fence.fd()); // which is the driver's once it has taken it
    if (!copy) {
        report_.once(Trouble::semaphore, copy.error().message());
        return false;
    }
    const VkImportSemaphoreFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR,
                                            .pNext = nullptr,
                                            .semaphore = bracket.wait,
                                            .flags = VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
                                            .handleType =
                                                VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
                                            .fd = copy->release()};
    if (vk_.ImportSemaphoreFdKHR(device_, &import) == VK_SUCCESS) {
        queue.trace.waits(queue.fences, fence);
        return true;
    }
    sys::take_back(import.fd, fence.fd());
    report_.once(Trouble::semaphore, "the driver takes no SYNC_FD into a semaphore: a submission "
                                     "goes on without the fences of its buffers");
    return false;
}

void Bridge::hand_over(Bracket& bracket, std::span<const Part> parts) {
    const VkSemaphoreGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
                                      .pNext = nullptr,
                                      .semaphore = bracket.signal,
                                      .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    int fd = -1;
    if (vk_.GetSemaphoreFdKHR(device_, &get, &fd) != VK_SUCCESS) {
        // Its semaphores stay in use: nobody knows until when.
        report_.once(Trouble::hand_over, "vkGetSemaphoreFdKHR failed: who uses the buffers of a "
                                         "submission next does not wait for it");
        return;
    }
    // -1 stands for one that has signalled.
    SyncFile fence = fd < 0 ? SyncFile::signalled() : SyncFileAdopt::adopt(UniqueFd(std::move(fd)));
    for (const Part& part : parts)
        if (part.signals) {
            if (auto left = part.memory->buffer()->import_fence(fence, part.signals_as); !left)
                report_.once(Trouble::import_fence, left.error().message());
            else
                bracket.trace.left_in(*part.memory->buffer(), part.signals_as);
        }
    bracket.trace.done_by(fence);
    bracket.in_use = fence.fd() >= 0;
    bracket.done = std::move(fence);
}

// ---- Submissions --------------------------------------------------------------------------------

template <typename Info>
VkResult Bridge::run(Queue& queue, std::span<const Info> infos, VkFence fence) {
    using Of = Kind<Info>;
    const auto traced = queue.trace.call(infos);
    const auto note_signals = [&] {
        if (timelines_.any())
            for (const Info& each : infos)
                Of::signals(each, [&](VkSemaphore semaphore, std::uint64_t value) {
                    timelines_.signalled(semaphore, value);
                });
    };
    const auto as_it_is = [&] {
        const VkResult result = Of::down(vk_, queue.handle, infos, fence);
        if (result == VK_SUCCESS)
            note_signals();
        return result;
    };
    if (!tracker_.active() || mode_ == Settings::Sync::off)
        return as_it_is();
    collect(queue, infos);
    if (queue.parts.empty())
        return as_it_is();
    if (!able_) {
        report_.once(Trouble::no_sync_fd, "the driver has no VK_KHR_external_semaphore_fd: buffers "
                                          "are not synchronised");
        return as_it_is();
    }

    queue.buffers.clear();
    for (const Part& each : queue.parts)
        queue.buffers.push_back(each.memory->buffer());
    // Others that submit with the same buffers come before or after, not in between.
    auto lock = BufferLock::acquire(queue.buffers, deadline_in(lock_patience));
    if (!lock)
        report_.once(Trouble::lock, lock.error().message());

    Bracket& bracket = *take_bracket(queue);
    const bool waits = fill_wait(queue, bracket);
    // Where it waits it signals too: that tells when the semaphores may be used again.
    const bool signals = (waits || std::ranges::any_of(queue.parts, &Part::signals)) &&
                         make_semaphore(bracket.signal, true);
    if (!waits && !signals)
        return as_it_is();
    Bracket::Infos own;
    std::vector<Info>& room = Of::room(queue);
    room.clear();
    if (waits)
        room.push_back(Of::wait(bracket, own));
    room.insert(room.end(), infos.begin(), infos.end());
    if (signals)
        room.push_back(Of::signal(bracket, own));
    bracket.in_use = true;
    const VkResult result = Of::down(vk_, queue.handle, std::span<const Info>(room), fence);
    // Where it failed nobody knows what is in the semaphores, so they are not used again.
    if (result != VK_SUCCESS || !signals)
        return result;
    note_signals();

    queue.waits.clear();
    if (timelines_.any())
        for (const Info& each : infos)
            Of::waits(each, [&](const TimelineWait& wait) {
                if (!timelines_.is_on_its_way(wait))
                    queue.waits.push_back(wait);
            });
    const std::scoped_lock held(queue.lock);
    if (queue.waits.empty() && queue.deferred.empty()) {
        hand_over(bracket, queue.parts);
        return result;
    }
    report_.once(Trouble::deferred,
                 "a submission waits for a timeline semaphore's value that is still to be "
                 "submitted: its fence comes into the buffers once that is");
    bracket.trace.deferred();
    queue.deferred.push_back({.bracket = &bracket, .parts = queue.parts, .waits = queue.waits});
    return result;
}

VkResult Bridge::submit(Queue& queue, std::span<const VkSubmitInfo> infos, VkFence fence) {
    return run(queue, infos, fence);
}

VkResult Bridge::submit(Queue& queue, std::span<const VkSubmitInfo2> infos, VkFence fence) {
    return run(queue, infos, fence);
}

VkResult Bridge::bind_sparse(Queue& queue, std::span<const VkBindSparseInfo> infos, VkFence fence) {
    return run(queue, infos, fence);
}

// What came later on a queue depends on what came before.
void Bridge::catch_up(Queue& queue) {
    const std::scoped_lock held(queue.lock);
    while (!queue.deferred.empty()) {
        Deferred& next = queue.deferred.front();
        std::erase_if(next.waits,
                      [&](const TimelineWait& wait) { return timelines_.is_on_its_way(wait); });
        if (!next.waits.empty())
            return;
        hand_over(*next.bracket, next.parts);
        queue.deferred.pop_front();
    }
}

void Bridge::destroy(Queue& queue) noexcept {
    for (const Bracket& each : queue.brackets)
        for (VkSemaphore semaphore : {each.wait, each.signal})
            if (semaphore != VK_NULL_HANDLE)
                vk_.DestroySemaphore(device_, semaphore, nullptr);
}

} // namespace sluice::layer
