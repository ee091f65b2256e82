// SPDX-License-Identifier: MIT
/// \file
/// Fences from the buffers into submissions, and those of submissions into the buffers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include <poll.h>
#include <vulkan/vulkan.h>

#include <sluice/access.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/unique_fd.hpp>

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
    bool in_use = false; // until it is done
    /// The rest has been said by whoever handed its fence over, which may be another thread.
    std::atomic<bool> handed = false;
    bool lost = false; // nobody knows when it is done
    SyncFile done = SyncFile::signalled();
    SubmissionTrace trace;

    /// What a VkSubmitInfo2 of ours points at.
    struct Infos {
        VkSemaphoreSubmitInfo wait, signal;
    };
};

/// A submission that is not on its way yet, so that its fence cannot be had.
struct Deferred {
    Bracket* bracket = nullptr; // null where it has no buffers
    std::vector<Part> parts;
    std::vector<OpenWait> waits;
    std::vector<SemaphoreAt> signals;
};

/// What becomes of a submission's semaphores, found before it is made.
struct Plan {
    std::vector<SemaphoreAt> signals; // those that are on their way with it
    std::list<Deferred> later;        // it, where it is not on its way; never more than one
};

/// What a queue needs for submitting. Threads: as Vulkan asks of a queue, one at a time, but for
/// what `lock` is over.
struct Queue {
    VkQueue handle = VK_NULL_HANDLE;
    QueueTrace trace;
    std::vector<std::unique_ptr<Bracket>> brackets; // in a ring, the oldest at `oldest`
    std::size_t oldest = 0;
    std::vector<std::unique_ptr<Bracket>> lost; // not used again
    VkFence idle = VK_NULL_HANDLE;              // where we wait on the CPU
    std::vector<VkFence> lost_fences;           // those not signalled in time
    std::vector<Part> parts;
    std::vector<const DmaBuf*> buffers;
    std::vector<SyncFile> fences;
    std::vector<pollfd> polls;
    UniqueFd given; // another fd of the fence that the driver has got last
    Plan plan;
    PFN_vkQueueSubmit2 submit_2 = nullptr; // as the application calls it; others may not be called
    std::vector<VkSubmitInfo> infos;
    std::vector<VkSubmitInfo2> infos2;
    std::vector<VkBindSparseInfo> binds;

    std::mutex lock;              // never held across a call of the driver's
    std::list<Deferred> deferred; // in their order
    bool looking = false;         // somebody sees which are on their way by now
    bool look_again = false;      // and does so once more
};

/// What the driver below can do with fences.
struct FenceSupport {
    bool takes = false, gives = false; // SYNC_FD semaphores
};

/// Threads: any; see `Queue`.
class Bridge {
public:
    /// \param emulates who emulates dma-bufs below waits for them, where there is no SYNC_FD.
    Bridge(VkDevice device, const DeviceFunctions& functions, FenceSupport fences, bool emulates,
           const Tracker& tracker, const Recorder& recorder, Timelines& timelines,
           const Settings& settings, Report& report) noexcept;

    VkResult submit(Queue& queue, std::span<const VkSubmitInfo> infos, VkFence fence);
    /// \param function the one below of the two that do this.
    VkResult submit(Queue& queue, std::span<const VkSubmitInfo2> infos, VkFence fence,
                    PFN_vkQueueSubmit2 function);
    VkResult bind_sparse(Queue& queue, std::span<const VkBindSparseInfo> infos, VkFence fence);

    /// Whether there are submissions that are not on their way; where there are none, all
    /// fences have been handed over. Cheap.
    [[nodiscard]] bool is_behind() const noexcept {
        return deferred_.load(std::memory_order_acquire) != 0;
    }
    /// Hands over the fences of those that are by now. \returns whether there was one: others may
    /// have waited for it, on other queues.
    bool catch_up(Queue& queue);
    /// The device goes, and is idle.
    void destroy(Queue& queue) noexcept;

private:
    template <typename Info> VkResult run(Queue& queue, std::span<const Info> infos, VkFence fence);
    template <typename Info>
    VkResult run_on_cpu(Queue& queue, std::span<const Info> infos, VkFence fence);
    bool kernel_is_able(const DmaBuf& any);
    template <typename Info>
    VkResult as_it_is(Queue& queue, std::span<const Info> infos, VkFence fence);
    template <typename Info> bool collect(Queue& queue, std::span<const Info> infos) const;
    template <typename Info> void plan(Queue& queue, std::span<const Info> infos, Bracket* bracket);
    bool settle(Queue& queue, VkResult result) noexcept;
    void take_part(std::vector<Part>& parts, const Use& use) const;

    /// Takes what is pending out of the buffers into the queue's `fences`. \returns the oldest
    /// bracket where it is free, which the same poll tells.
    Bracket* take_fences(Queue& queue);
    static Bracket* oldest_bracket(Queue& queue);
    /// \param free the oldest, or null for a new one.
    static Bracket& take_bracket(Queue& queue, Bracket* free);
    /// Fills a bracket's wait semaphore with the queue's `fences`. \returns whether there is
    /// anything to wait for.
    bool fill_wait(Queue& queue, Bracket& bracket);
    bool make_semaphore(VkSemaphore& semaphore, bool exportable);
    void hand_over(Bracket& bracket, std::span<const Part> parts);
    bool make_fence(VkFence& fence);
    void wait_until_idle(Queue& queue);

    VkDevice device_;
    const DeviceFunctions& vk_;
    const Tracker& tracker_;
    const Recorder& recorder_;
    Timelines& timelines_;
    Settings::Sync mode_;
    bool on_cpu_; // where the driver cannot do better
    bool emulates_;
    bool validates_; // who checks goes by the timelines too
    Report& report_;
    bool able_; // the driver
    enum class Kernel : std::uint8_t { unknown, able, unable };
    std::atomic<Kernel> kernel_ = Kernel::unknown;
    std::atomic<std::size_t> deferred_ = 0; // on all queues
};

} // namespace sluice::layer
