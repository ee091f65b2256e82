// SPDX-License-Identifier: MIT
/// \file
/// Timeline semaphores, and which of their values are on their way: submitted, and with them
/// everything that they depend on.
///
/// A semaphore's fence may be exported only then (VUID-VkSemaphoreGetFdInfoKHR-handleType-03254).
/// Timelines may be waited for before, and what is behind such a wait is no more on its way than
/// that is. Binary semaphores may not be waited for before (VUID-vkQueueSubmit-pWaitSemaphores-
/// 03238), so they always are.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include <vulkan/vulkan.h>

namespace sluice::layer {

/// What a submission waits for, or signals.
struct SemaphoreAt {
    VkSemaphore semaphore = VK_NULL_HANDLE;
    std::uint64_t value = 0; // says nothing of a binary one
};

/// A wait for what is not on its way.
struct OpenWait {
    SemaphoreAt at;
    std::uint64_t timeline = 0; // which it is: a handle may be another's by now
};

/// Threads: any.
class Timelines {
public:
    /// \param counter_value the one below that the application may call; null where there is none.
    Timelines(VkDevice device, PFN_vkGetSemaphoreCounterValue counter_value) noexcept
        : device_(device), counter_value_(counter_value) {}

    /// Whether the application has any: otherwise everything is on its way. Cheap.
    [[nodiscard]] bool any() const noexcept { return any_.load(std::memory_order_relaxed); }

    void created(VkSemaphore semaphore, const VkSemaphoreCreateInfo& info);
    /// Before the driver destroys it. Waits for threads of ours that are asking it.
    void destroyed(VkSemaphore semaphore);
    /// Its signal is on its way, or done.
    void signalled(const SemaphoreAt& at);
    /// What a submission's wait \p at is, as of now.
    [[nodiscard]] OpenWait wait_of(const SemaphoreAt& at) const;
    /// Whether nothing that is still to be submitted stands before \p wait.
    [[nodiscard]] bool is_on_its_way(const OpenWait& wait) const;

private:
    VkDevice device_;
    PFN_vkGetSemaphoreCounterValue counter_value_;
    std::atomic<bool> any_ = false;
    mutable std::mutex lock_;
    struct Timeline {
        std::uint64_t number = 0;
        std::uint64_t submitted = 0; // the value that is on its way
    };
    std::unordered_map<VkSemaphore, Timeline> timelines_;
    std::uint64_t last_timeline_ = 0;
    mutable std::atomic<int> asking_ = 0; // threads that call the driver
};

} // namespace sluice::layer
