// SPDX-License-Identifier: MIT
/// \file
/// Timeline semaphores, and how far their values are on their way.
///
/// A semaphore's fence may be exported only once all that its signal depends on has been submitted
/// (VUID-VkSemaphoreGetFdInfoKHR-handleType-03254), and timelines may be waited for before.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include <vulkan/vulkan.h>

#include "dispatch.hpp"

namespace sluice::layer {

/// A value that a submission waits for.
struct TimelineWait {
    VkSemaphore semaphore = VK_NULL_HANDLE;
    std::uint64_t value = 0;
};

/// Threads: any.
class Timelines {
public:
    Timelines(VkDevice device, const DeviceFunctions& functions) noexcept
        : device_(device), counter_value_(functions.GetSemaphoreCounterValue != nullptr
                                              ? functions.GetSemaphoreCounterValue
                                              : functions.GetSemaphoreCounterValueKHR) {}

    /// Whether the application has any. Cheap.
    [[nodiscard]] bool any() const noexcept { return any_.load(std::memory_order_relaxed); }

    void created(VkSemaphore semaphore, const VkSemaphoreCreateInfo& info);
    void destroyed(VkSemaphore semaphore);
    /// Somebody signals \p value, or has submitted work that will.
    void signalled(VkSemaphore semaphore, std::uint64_t value);
    /// Whether nothing that is still to be submitted stands before the wait. True of semaphores
    /// that are no timelines.
    [[nodiscard]] bool is_on_its_way(const TimelineWait& wait) const;

private:
    VkDevice device_;
    PFN_vkGetSemaphoreCounterValue counter_value_;
    std::atomic<bool> any_ = false;
    mutable std::mutex lock_;
    std::unordered_map<VkSemaphore, std::uint64_t> submitted_;
};

} // namespace sluice::layer
