// SPDX-License-Identifier: MIT
/// \file
/// Which semaphores' signals are on their way: submitted, and with them everything that they depend
/// on.
///
/// A semaphore's fence may be exported only then (VUID-VkSemaphoreGetFdInfoKHR-handleType-03254).
/// Timelines may be waited for before, and what is behind such a wait is no more on its way than
/// that is: later submissions of the queue, and whoever waits for a semaphore that these signal.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include <vulkan/vulkan.h>

#include "dispatch.hpp"

namespace sluice::layer {

/// What a submission waits for, or signals.
struct SemaphoreAt {
    VkSemaphore semaphore = VK_NULL_HANDLE;
    std::uint64_t value = 0; // of a timeline
};

/// A wait for what is not on its way.
struct OpenWait {
    SemaphoreAt at;
    std::uint64_t behind = 0; // the submission that signals it, for a binary semaphore
};

/// Threads: any.
class Timelines {
public:
    Timelines(VkDevice device, const DeviceFunctions& functions) noexcept
        : device_(device), counter_value_(functions.GetSemaphoreCounterValue != nullptr
                                              ? functions.GetSemaphoreCounterValue
                                              : functions.GetSemaphoreCounterValueKHR) {}

    /// Whether the application has any: otherwise everything is on its way. Cheap.
    [[nodiscard]] bool any() const noexcept { return any_.load(std::memory_order_relaxed); }

    void created(VkSemaphore semaphore, const VkSemaphoreCreateInfo& info);
    void destroyed(VkSemaphore semaphore);
    /// Its signal is on its way, or done.
    void signalled(const SemaphoreAt& at);
    /// It is signalled by a submission that waits: \p behind it.
    void signalled_behind(const SemaphoreAt& at, std::uint64_t behind);

    /// A number for a submission that waits, until it is `resolved`.
    [[nodiscard]] std::uint64_t new_behind();
    void resolved(std::uint64_t behind);

    /// What a submission's wait \p at is, as of now.
    [[nodiscard]] OpenWait wait_of(const SemaphoreAt& at) const;
    /// Whether nothing that is still to be submitted stands before \p wait.
    [[nodiscard]] bool is_on_its_way(const OpenWait& wait) const;

private:
    VkDevice device_;
    PFN_vkGetSemaphoreCounterValue counter_value_;
    std::atomic<bool> any_ = false;
    mutable std::mutex lock_;
    std::unordered_map<VkSemaphore, std::uint64_t> submitted_; // the timelines
    std::unordered_map<VkSemaphore, std::uint64_t> behind_;    // binary ones, by who signals them
    std::unordered_set<std::uint64_t> unresolved_;
    std::uint64_t last_behind_ = 0;
};

} // namespace sluice::layer
