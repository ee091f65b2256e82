// SPDX-License-Identifier: MIT
/// \file
/// What a wrapped device, its images and its context share. Not installed.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <sluice/vulkan_device.hpp>

namespace sluice {

// The functions that the Vulkan part calls, each looked up once.
// clang-format off
#define SLUICE_VK_INSTANCE_FUNCTIONS(F)              \
    F(GetDeviceProcAddr)                             \
    F(GetPhysicalDeviceProperties)                   \
    F(GetPhysicalDeviceMemoryProperties)             \
    F(GetPhysicalDeviceExternalSemaphoreProperties)  \
    F(GetPhysicalDeviceImageFormatProperties2)
#define SLUICE_VK_DEVICE_FUNCTIONS(F)                \
    F(AllocateMemory)                                \
    F(BindImageMemory)                               \
    F(CreateFence)                                   \
    F(CreateImage)                                   \
    F(CreateSemaphore)                               \
    F(DestroyFence)                                  \
    F(DestroyImage)                                  \
    F(DestroySemaphore)                              \
    F(FreeMemory)                                    \
    F(GetFenceStatus)                                \
    F(GetImageMemoryRequirements2)                   \
    F(GetImageSubresourceLayout)                     \
    F(GetMemoryFdKHR)                                \
    F(GetSemaphoreFdKHR)                             \
    F(ImportSemaphoreFdKHR)                          \
    F(QueueSubmit)                                   \
    F(ResetFences)                                   \
    F(WaitForFences)
// clang-format on

struct VulkanFunctions {
#define F(name) PFN_vk##name name = nullptr; // NOLINT(bugprone-macro-parentheses)
    SLUICE_VK_INSTANCE_FUNCTIONS(F)
    SLUICE_VK_DEVICE_FUNCTIONS(F)
#undef F
};

/// The name of the function looked up by \p info that is missing, or empty.
[[nodiscard]] std::string_view load_functions(const VulkanDeviceInfo& info, VulkanFunctions& vk);

/// One submission's objects. They are used again once its fence has signalled.
struct VulkanSubmission {
    VkFence done = VK_NULL_HANDLE;
    VkSemaphore signal = VK_NULL_HANDLE; // exported as SYNC_FD, which also unsignals it
    std::vector<VkSemaphore> waits;      // a SYNC_FD each, imported for one wait
    bool in_flight = false;
    bool spoiled = false; // its signal was never exported: not to be used again
};

struct VulkanDevice::State {
    State(const VulkanDeviceInfo& wrapped, const VulkanFunctions& functions, std::string called,
          std::shared_ptr<void> keep) noexcept
        : info(wrapped), vk(functions), name(std::move(called)), keep_alive(std::move(keep)) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    VulkanDeviceInfo info;
    VulkanFunctions vk;
    std::string name;
    std::shared_ptr<void> keep_alive; // a VulkanContext's instance and device, else null

    std::mutex mutex; // guards submissions
    std::vector<std::unique_ptr<VulkanSubmission>> submissions;
};

/// Wraps with \p keep_alive released only after everything that was made of the device.
[[nodiscard]] Result<std::shared_ptr<VulkanDevice::State>>
wrap_device(const VulkanDeviceInfo& info, std::shared_ptr<void> keep_alive);

/// Whether \p device can export a LINEAR image of \p format (DRM_FORMAT_*) and \p usage up to
/// \p width x \p height as a dma-buf; the problem in words where not.
[[nodiscard]] std::string
why_not_exportable(PFN_vkGetPhysicalDeviceImageFormatProperties2 get_properties,
                   VkPhysicalDevice device, std::uint32_t format, VkImageUsageFlags usage,
                   std::uint32_t width, std::uint32_t height, bool& dedicated);

} // namespace sluice
