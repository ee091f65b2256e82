// SPDX-License-Identifier: MIT
/// \file
/// What accesses and submissions are made of, used again once the GPU is done. Not installed.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <sluice/buffer_lock.hpp>
#include <sluice/vulkan_access.hpp>

#include "vulkan/vulkan_driver.hpp"

namespace sluice {

/// The objects of one access, and what is known of it.
struct VulkanAccess::Record {
    enum class Stage : std::uint8_t {
        idle,
        open,  // begun
        ended, // `fence` is the submission's, and others have it
    };

    /// Tells when the GPU is done with a submission of ours.
    struct Done {
        VkFence fence = VK_NULL_HANDLE;
        bool used = false;    // it has to be reset before it is used again
        bool pending = false; // a submission that is not known to be done signals it
    };

    /// What a submission is about, and waits for.
    struct Before {
        std::span<const VulkanUse> uses;
        std::span<const SyncFile> fences; // besides those of the buffers
    };

    /// Takes the buffers for the GPU and makes `waits` of what it has to wait for.
    /// \returns nothing, or why not, in the name of \p operation, and nothing is taken.
    Result<void> begin(const VulkanDriver& driver, const Before& before, Deadline deadline,
                       std::string_view operation);
    /// Makes the GPU wait for \p fence too, unless it has signalled. \returns whether it is
    /// pending.
    Result<bool> wait_for(const VulkanDriver& driver, const SyncFile& fence,
                          std::string_view operation);
    /// Fetches the fence of what was submitted, unless it is there. \returns nothing, or the
    /// failure, after which it can be fetched again.
    Result<void> fetch_fence(const VulkanDriver& driver, Deadline deadline,
                             std::string_view operation);
    /// Leaves `fence` in the buffers, or waits for it where one does not take it, and lets them go.
    /// \returns nothing, or the failure; the buffers are held then, unless it is `fence_failed`.
    Result<void> hand_over(Deadline deadline, std::string_view operation);
    /// Lets the buffers go as they are.
    void let_go() noexcept;
    /// Makes \p which fit to be signalled by a submission.
    static Result<void> arm(const VulkanDriver& driver, Done& which, std::string_view operation);
    /// Whether the GPU may still be at something of this record; where `fence` is to be asked too
    /// it is left to the caller.
    [[nodiscard]] bool done_pending(const VulkanDriver& driver) const noexcept;

    // Made once, used again and again.
    VkSemaphore signal = VK_NULL_HANDLE; // exported as SYNC_FD, which also unsignals it
    Done done;                           // the work, where it is we who submit it
    Done hopped;                         // what passes `waits` on to a timeline
    std::vector<VkSemaphore> waits;      // a SYNC_FD each, imported for one wait

    // Of one access; the vectors keep their memory.
    Stage stage = Stage::idle;
    std::size_t wait_count = 0;         // of `waits`, from the first
    std::vector<VulkanAttachment> kept; // each with a FrameUse while the access is open
    std::vector<const DmaBuf*> buffers; // those of `kept`, each once
    std::vector<Access> accesses;       // one for each of `buffers`
    std::vector<SyncFile> inputs;       // fences of the buffers that the GPU waits for
    std::optional<BufferLock> lock;     // on `buffers`, while the access is open
    SyncFile fence = SyncFile::signalled();
    bool taken = false;   // `kept` and `lock` are held
    bool fetched = false; // `fence` is the submission's
    bool spoiled = false; // `signal` may be signalled for ever: not to be used again
};

/// The records of one device.
///
/// Threads: any.
class VulkanAccessPool {
public:
    using Record = VulkanAccess::Record;

    VulkanAccessPool() = default;
    VulkanAccessPool(const VulkanAccessPool&) = delete;
    VulkanAccessPool& operator=(const VulkanAccessPool&) = delete;

    /// A record that the GPU is done with, or a new one.
    [[nodiscard]] Record* take(const VulkanDriver& driver);

    /// \p record comes back, in whatever stage. Whether the GPU is done with it is looked at when
    /// another is needed.
    void give_back(const VulkanDriver& driver, Record* record) noexcept;

    /// Lets go of the attachments that the GPU is done with.
    void collect(const VulkanDriver& driver) noexcept;

    /// Waits for the GPU until \p deadline at most and destroys everything that it is done with.
    /// What it still uses then is left behind (`VulkanDriver::abandon`). No access is open any
    /// more.
    void clear(const VulkanDriver& driver, Deadline deadline) noexcept;

private:
    void collect_locked(const VulkanDriver& driver) noexcept;
    void drop(const VulkanDriver& driver, const Record* record) noexcept;

    std::mutex lock_;
    std::vector<std::unique_ptr<Record>> all_;
    // Both have room for all records, so that giving one back allocates nothing.
    std::vector<Record*> idle_;
    std::vector<Record*> in_flight_; // in the order in which they came back
};

} // namespace sluice
