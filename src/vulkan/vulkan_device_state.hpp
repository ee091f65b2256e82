// SPDX-License-Identifier: MIT
/// \file
/// What a wrapped device keeps for the work that is submitted to it. Not installed.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include <sluice/vulkan_device.hpp>

#include "vulkan/vulkan_driver.hpp"

namespace sluice {

/// One submission's objects. They are used again once its fence has signalled.
struct VulkanSubmission {
    VkFence done = VK_NULL_HANDLE;
    VkSemaphore signal = VK_NULL_HANDLE; // exported as SYNC_FD, which also unsignals it
    std::vector<VkSemaphore> waits;      // a SYNC_FD each, imported for one wait
    bool in_flight = false;
    bool spoiled = false; // its signal was never exported: not to be used again
};

struct VulkanDevice::State {
    explicit State(std::shared_ptr<VulkanDriver> wrapped) noexcept : driver(std::move(wrapped)) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    std::shared_ptr<VulkanDriver> driver;

    // Used by submit() alone, whose caller lets one thread at a time onto the queue.
    std::vector<std::unique_ptr<VulkanSubmission>> submissions;
};

} // namespace sluice
