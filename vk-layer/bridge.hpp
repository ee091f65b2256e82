// SPDX-License-Identifier: MIT
/// \file
/// Fences from the buffers into submissions, and those of submissions into the buffers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include <poll.h>
#include <vulkan/vulkan.h>

#include <sluice/access.hpp>
#include <sluice/sync_file.hpp>

#include "dispatch.hpp"
#include "recorder.hpp"
#include "report.hpp"
#include "settings.hpp"
#include "timelines.hpp"
#include "trace.hpp"
#include "tracker.hpp"

namespace sluice::layer {

/// A buffer's part in one submission.
struct Part {
    SharedMemoryPtr memory;
    Access waits_as = Access::read, signals_as = Access::read;
    bool waits = false, signals = false;
};

/// The semaphores of one submission of ours, used again when it is done.
struct Bracket {
    VkSemaphore wait = VK_NULL_HANDLE, signal = VK_NULL_HANDLE;
    SyncFile done = SyncFile::signalled();
    bool in_use = false; // until `done`
    SubmissionTrace trace;

    /// What a VkSubmitInfo2 of ours points at.
    struct Infos {
        VkSemaphoreSubmitInfo wait, signal;
    };
};

/// A hand-over that cannot be made yet.
struct Deferred {
    Bracket* bracket = nullptr;
    std::vector<Part> parts;
    std::vector<TimelineWait> waits;
};

/// What a queue needs for submitting. Threads: as Vulkan asks of a queue, one at a time, but for
/// `deferred`.
struct Queue {
    VkQueue handle = VK_NULL_HANDLE;
    QueueTrace trace;
    std::deque<Bracket> brackets; // which stay where they are
    std::vector<Part> parts;
    std::vector<const DmaBuf*> buffers;
    std::vector<SyncFile> fences;
    std::vector<pollfd> polls;
    std::vector<TimelineWait> waits;
    std::vector<VkSubmitInfo> infos;
    std::vector<VkSubmitInfo2> infos2;
    std::vector<VkBindSparseInfo> binds;

    std::mutex lock;
    std::deque<Deferred> deferred; // in their order
};

/// Threads: any; see `Queue`.
class Bridge {
public:
    Bridge(VkDevice device, const DeviceFunctions& functions, const Tracker& tracker,
           const Recorder& recorder, Timelines& timelines, Settings::Sync mode, Report& report) noexcept;

    VkResult submit(Queue& queue, std::span<const VkSubmitInfo> infos, VkFence fence);
    VkResult submit(Queue& queue, std::span<const VkSubmitInfo2> infos, VkFence fence);
    VkResult bind_sparse(Queue& queue, std::span<const VkBindSparseInfo> infos, VkFence fence);

    /// Makes the hand-overs that can be made by now.
    void catch_up(Queue& queue);
    /// The device goes, and is idle.
    void destroy(Queue& queue) noexcept;

private:
    template <typename Info> VkResult run(Queue& queue, std::span<const Info> infos, VkFence fence);
    template <typename Info> void collect(Queue& queue, std::span<const Info> infos) const;
    void take_part(std::vector<Part>& parts, const Use& use) const;

    /// Fills a bracket's wait semaphore with what is pending in the buffers. \returns whether there
    /// is anything to wait for.
    bool fill_wait(Queue& queue, Bracket& bracket);
    Bracket* take_bracket(Queue& queue);
    bool make_semaphore(VkSemaphore& semaphore, bool exportable);
    void hand_over(Bracket& bracket, std::span<const Part> parts);

    VkDevice device_;
    const DeviceFunctions& vk_;
    const Tracker& tracker_;
    const Recorder& recorder_;
    Timelines& timelines_;
    Settings::Sync mode_;
    Report& report_;
    bool able_;
};

} // namespace sluice::layer
