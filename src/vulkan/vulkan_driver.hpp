// SPDX-License-Identifier: MIT
/// \file
/// The application's device with its functions: what everything that is made of it shares. Not
/// installed.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include <sluice/vulkan_device.hpp>

#include "vulkan/vulkan_caps_cache.hpp"
#include "vulkan/vulkan_conversions.hpp"
#include "vulkan/vulkan_layer.hpp"

namespace sluice {

// The functions that the Vulkan part calls, each looked up once.
// clang-format off
#define SLUICE_VK_INSTANCE_FUNCTIONS(F)              \
    F(EnumerateDeviceExtensionProperties)            \
    F(GetDeviceProcAddr)                             \
    F(GetPhysicalDeviceProperties)                   \
    F(GetPhysicalDeviceProperties2)                  \
    F(GetPhysicalDeviceMemoryProperties)             \
    F(GetPhysicalDeviceExternalBufferProperties)     \
    F(GetPhysicalDeviceExternalSemaphoreProperties)  \
    F(GetPhysicalDeviceFormatProperties2)            \
    F(GetPhysicalDeviceImageFormatProperties2)
#define SLUICE_VK_DEVICE_FUNCTIONS(F)                \
    F(AllocateMemory)                                \
    F(BindBufferMemory)                              \
    F(BindImageMemory2)                              \
    F(CreateBuffer)                                  \
    F(CreateFence)                                   \
    F(CreateImage)                                   \
    F(CreateImageView)                               \
    F(CreateSamplerYcbcrConversion)                  \
    F(CreateSemaphore)                               \
    F(DestroyBuffer)                                 \
    F(DestroyFence)                                  \
    F(DestroyImage)                                  \
    F(DestroyImageView)                              \
    F(DestroySamplerYcbcrConversion)                 \
    F(DestroySemaphore)                              \
    F(FreeMemory)                                    \
    F(GetBufferMemoryRequirements2)                  \
    F(GetFenceStatus)                                \
    F(GetImageMemoryRequirements2)                   \
    F(GetImageSubresourceLayout)                     \
    F(GetMemoryFdKHR)                                \
    F(GetMemoryFdPropertiesKHR)                      \
    F(QueueSubmit)                                   \
    F(ResetFences)                                   \
    F(WaitForFences)
// Only where VK_EXT_image_drm_format_modifier is enabled.
#define SLUICE_VK_MODIFIER_FUNCTIONS(F)              \
    F(GetImageDrmFormatModifierPropertiesEXT)
// Only where VK_KHR_external_semaphore_fd is enabled.
#define SLUICE_VK_SEMAPHORE_FD_FUNCTIONS(F)          \
    F(GetSemaphoreFdKHR)                             \
    F(ImportSemaphoreFdKHR)
// clang-format on

struct VulkanFunctions {
#define F(name) PFN_vk##name name = nullptr; // NOLINT(bugprone-macro-parentheses)
    SLUICE_VK_INSTANCE_FUNCTIONS(F)
    SLUICE_VK_DEVICE_FUNCTIONS(F)
    SLUICE_VK_MODIFIER_FUNCTIONS(F)
    SLUICE_VK_SEMAPHORE_FD_FUNCTIONS(F)
#undef F
};

/// What owns the instance and the device, where that is not the application: a VulkanContext's.
struct VulkanOwner {
    VulkanOwner() = default;
    VulkanOwner(const VulkanOwner&) = delete;
    VulkanOwner& operator=(const VulkanOwner&) = delete;
    virtual ~VulkanOwner() = default;

    bool abandoned = false; // the GPU hangs in work that was submitted: nothing may be destroyed
};

/// A device as its attachments know it. It outlives them, and they may outlive the last
/// `VulkanDevice`.
struct VulkanDriver {
    VulkanDriver() = default;
    VulkanDriver(const VulkanDriver&) = delete;
    VulkanDriver& operator=(const VulkanDriver&) = delete;
    ~VulkanDriver() {
        if (!abandoned)
            conversions->clear(*this);
    }

    /// The GPU hangs in work that was submitted: nothing of the device may be destroyed from now
    /// on.
    void abandon() const noexcept {
        abandoned = true;
        if (owner)
            owner->abandoned = true;
    }

    /// Which queue family others are, in barriers.
    [[nodiscard]] std::uint32_t foreign_family() const noexcept {
        return caps.foreign_queue ? VK_QUEUE_FAMILY_FOREIGN_EXT : VK_QUEUE_FAMILY_EXTERNAL;
    }

    /// How images are created that others share.
    [[nodiscard]] VkImageTiling tiling() const noexcept {
        return caps.modifiers ? VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT : VK_IMAGE_TILING_LINEAR;
    }

    VulkanDeviceInfo info; // without its span
    VulkanFunctions vk;
    SelfBracketingFunction set_self_bracketing = nullptr; // null where our layer is not below
    VkPhysicalDeviceMemoryProperties memory{};
    std::string name;
    VulkanDeviceCaps caps;
    bool strict = false;                // SLUICE_STRICT
    std::shared_ptr<VulkanOwner> owner; // null where the application owns the device
    mutable std::atomic<bool> abandoned = false;
    std::unique_ptr<VulkanCapsCache> image_caps = std::make_unique<VulkanCapsCache>();
    std::unique_ptr<VulkanConversions> conversions = std::make_unique<VulkanConversions>();
};

/// Wraps with \p owner let go only after everything that was made of the device.
[[nodiscard]] Result<std::shared_ptr<VulkanDriver>> wrap_device(const VulkanDeviceInfo& info,
                                                                std::shared_ptr<VulkanOwner> owner);

/// Whether \p device gives its semaphores away as SYNC_FD and takes others' in.
[[nodiscard]] VkExternalSemaphoreFeatureFlags
sync_fd_features(PFN_vkGetPhysicalDeviceExternalSemaphoreProperties get_properties,
                 VkPhysicalDevice device);

} // namespace sluice
