// SPDX-License-Identifier: MIT
/// \file
/// The bracket around one submission's use of frames: what the GPU has to wait for before, and the
/// fence that it leaves in the buffers after.
///
/// Record between a frame's `acquire_barrier` and `release_barrier` first; then begin, submit, end:
///
///     auto access = device.begin_access(uses, deadline_in(100ms));
///     // vkQueueSubmit: waits for access->wait_semaphores(), signals access->signal_semaphore()
///     auto left = access->end(deadline_in(1s));
///
/// `VulkanDevice::submit` does all three.
///
/// Sources: linux/dma-buf.h, "Implicit synchronization"; "Importing Semaphore Payloads" and
/// "Exporting semaphore payloads" of SYNC_FD in the Vulkan specification.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <vulkan/vulkan_core.h>

#include <sluice/access.hpp>
#include <sluice/deadline.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/vulkan_attachment.hpp>
#include <sluice/vulkan_device.hpp>

namespace sluice {

/// What one submission does with one attachment.
struct VulkanUse {
    const VulkanAttachment* attachment = nullptr; ///< Borrowed for the call. Required.
    /// Who only reads waits for writers alone, and others may read meanwhile.
    Access access = Access::read_write;
};

/// One submission's access to frames, from `VulkanDevice::begin_access`.
///
/// Until it has ended nobody else in this process begins an access to one of the buffers
/// (`BufferLock`), so keep the time between short: record before. The attachments are kept until
/// the GPU is done with them, also past the access itself.
///
/// Threads: one at a time. The calls that submit use the wrapped queue, which Vulkan makes the
/// caller synchronise; each says so. One that was moved from has no semaphores and refuses the rest
/// with `wrong_object`.
class SLUICE_API VulkanAccess {
public:
    /// What the submission has to wait for: one semaphore for each fence that was pending. Binary,
    /// for one wait each, and still owned here. Empty where nothing was pending.
    [[nodiscard]] std::span<const VkSemaphore> wait_semaphores() const noexcept;

    /// What the submission has to signal, binary and still owned here; VK_NULL_HANDLE where the
    /// driver exports no fences (`VulkanDeviceCaps::exports_fences`).
    [[nodiscard]] VkSemaphore signal_semaphore() const noexcept;

    /// For applications that submit with timeline semaphores only: submits a batch that waits for
    /// `wait_semaphores()`, which is empty from then on, and signals \p timeline with \p value.
    /// Uses the queue. Once for each access. \param timeline the caller's; a timeline semaphore.
    /// \returns nothing, or, with nothing submitted,
    ///   - `invalid_argument`: it has been called for this access; `wrong_object`: moved from;
    ///   - `no_resources`, `device_lost`, `failed`: as Vulkan says, in `Error::vk_result`.
    [[nodiscard]] Result<void> wait_on_timeline(VkSemaphore timeline, std::uint64_t value) noexcept;

    /// Ends the access, after the submission: its fence goes into every buffer, for readers as one
    /// that the next writer waits for, for writers as one that everybody waits for. Buffers may be
    /// used by others from then on; they wait for the GPU by themselves.
    ///
    /// Where the driver exports no fences the queue is waited for, until \p deadline at most; this
    /// uses the queue. Where the kernel takes none (`ImplicitSyncCaps`), or a buffer does not take
    /// this one, the fence is waited for.
    /// \returns nothing, or
    ///   - `fence_failed`: where it was waited for: the work has failed. The access has ended.
    ///
    ///   And, with the access still open, so that nobody else in this process uses the buffers: end
    ///   it again, or wait for the queue (vkQueueWaitIdle) and let it go:
    ///   - `timed_out`, or what `DmaBuf::import_fence` gives: the GPU was not done by \p deadline;
    ///   - `no_resources`, `device_lost`, `failed`: the driver gave no fence;
    ///   - `wrong_object`: what the driver gave is none, and this will not change; or this access
    ///     was moved from.
    Result<void> end(Deadline deadline) noexcept;

    /// The same for an application that signals \p timeline with \p value when its work is done,
    /// instead of `signal_semaphore()`: submits a batch that waits for that and signals what `end`
    /// needs. Uses the queue. The work that signals \p value must have been submitted before
    /// (VUID-VkSemaphoreGetFdInfoKHR-handleType-03254), and on this queue or with its own waits
    /// already on their way.
    /// \returns as `end`.
    Result<void> end_after_timeline(VkSemaphore timeline, std::uint64_t value,
                                    Deadline deadline) noexcept;

    /// Once the access has ended: the fence of the submission, owned here. `SyncFile::signalled()`
    /// before, and where the GPU is done.
    [[nodiscard]] const SyncFile& fence() const noexcept;

    /// Once the access has ended: waits on the CPU until the GPU is done, until \p deadline at
    /// most. \returns nothing, or
    ///   - `timed_out`: it is still at work;
    ///   - `fence_failed`: the work failed, or work that it had waited for, which drivers take for
    ///     done: the contents are not valid;
    ///   - `invalid_argument`: the access has not ended;
    ///   - `wrong_object`: a fd was closed behind our back, or this access was moved from.
    [[nodiscard]] Result<void> wait(Deadline deadline) const noexcept;

    VulkanAccess(VulkanAccess&& other) noexcept = default;
    VulkanAccess& operator=(VulkanAccess&& other) noexcept;
    VulkanAccess(const VulkanAccess&) = delete;
    VulkanAccess& operator=(const VulkanAccess&) = delete;
    /// Gives up an access that has not ended: nothing was submitted for it, or, where `end` failed,
    /// the queue has been waited for.
    ~VulkanAccess();

    struct Record; ///< Not part of the API.

private:
    friend class VulkanDevice;
    struct Return {
        std::shared_ptr<VulkanDevice::State> device;
        void operator()(Record* record) const noexcept;
    };
    VulkanAccess(std::shared_ptr<VulkanDevice::State> device, Record* record) noexcept
        : record_(record, Return{std::move(device)}) {}

    std::unique_ptr<Record, Return> record_;
};

} // namespace sluice
