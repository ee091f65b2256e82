// SPDX-License-Identifier: MIT
/// \file
/// A VkImage and the memory under it, however they came together. Not installed.
#pragma once

#include <array>
#include <memory>
#include <utility>

#include <sluice/vulkan_image.hpp>

#include "vulkan/vulkan_attachment_state.hpp"
#include "vulkan/vulkan_driver.hpp"

namespace sluice {

/// A VkImage and its memories, destroyed together, image first.
struct VulkanImageHandles {
    explicit VulkanImageHandles(std::shared_ptr<const VulkanDriver> of) noexcept
        : device(std::move(of)) {}
    VulkanImageHandles(VulkanImageHandles&& other) noexcept
        : device(std::move(other.device)), image(std::exchange(other.image, VK_NULL_HANDLE)),
          memories(std::exchange(other.memories, {})) {}
    VulkanImageHandles& operator=(VulkanImageHandles&&) = delete;
    ~VulkanImageHandles() {
        if (device == nullptr || device->abandoned)
            return;
        if (image != VK_NULL_HANDLE)
            device->vk.DestroyImage(device->info.device, image, nullptr);
        for (VkDeviceMemory memory : memories)
            if (memory != VK_NULL_HANDLE)
                device->vk.FreeMemory(device->info.device, memory, nullptr);
    }

    std::shared_ptr<const VulkanDriver> device;
    VkImage image = VK_NULL_HANDLE;
    std::array<VkDeviceMemory, max_planes> memories{}; // more than one where planes are disjoint
};

struct VulkanImage::State : VulkanAttachment::State {
    State(VulkanImageHandles&& made, VkFormat of, Frame in) noexcept
        : VulkanAttachment::State(std::move(in)), image(std::move(made)), format(of) {}

    [[nodiscard]] const VulkanDriver& driver() const noexcept override { return *image.device; }

    VulkanImageHandles image;
    VkFormat format;
};

/// The memory type to take: near the GPU if the image may lie there, else the first that may, or
/// VK_MAX_MEMORY_TYPES where the driver allows none.
[[nodiscard]] std::uint32_t memory_type(const VulkanDriver& device, std::uint32_t allowed);

} // namespace sluice
