// SPDX-License-Identifier: MIT
/// \file
/// A VkImage and the memory under it, however they came together. Not installed.
#pragma once

#include <array>
#include <memory>
#include <utility>

#include <sluice/vulkan_image.hpp>

#include "vulkan/vulkan_device_state.hpp"

namespace sluice {

/// A VkImage and its memories, destroyed together, image first.
struct VulkanImageHandles {
    explicit VulkanImageHandles(std::shared_ptr<VulkanDevice::State> of) noexcept
        : device(std::move(of)) {}
    VulkanImageHandles(VulkanImageHandles&& other) noexcept
        : device(std::move(other.device)), image(std::exchange(other.image, VK_NULL_HANDLE)),
          memories(std::exchange(other.memories, {})) {}
    VulkanImageHandles& operator=(VulkanImageHandles&&) = delete;
    ~VulkanImageHandles() {
        if (image != VK_NULL_HANDLE)
            device->vk.DestroyImage(device->info.device, image, nullptr);
        for (VkDeviceMemory memory : memories)
            if (memory != VK_NULL_HANDLE)
                device->vk.FreeMemory(device->info.device, memory, nullptr);
    }

    std::shared_ptr<VulkanDevice::State> device;
    VkImage image = VK_NULL_HANDLE;
    std::array<VkDeviceMemory, max_planes> memories{}; // more than one where planes are disjoint
};

struct VulkanImage::State {
    VulkanImageHandles image;
    VkFormat format;
    Frame frame;
};

/// The memory type to take: near the GPU if the image may lie there, else the first that may, or
/// VK_MAX_MEMORY_TYPES where the driver allows none.
[[nodiscard]] std::uint32_t memory_type(const VulkanDevice::State& device, std::uint32_t allowed);

} // namespace sluice
