// SPDX-License-Identifier: MIT
/// \file
/// What the Vulkan part of sluice does, written with the Vulkan and system calls alone.
///
/// As in by_hand.hpp: as a careful engineer would write it for one project whose device, format and
/// sizes are known. Nothing is looked up that could be known before.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <vulkan/vulkan_core.h>

namespace by_hand {

/// The functions of a device, and what was found out about it once.
struct Vulkan {
    Vulkan(PFN_vkGetInstanceProcAddr get, VkInstance instance, VkDevice of, VkQueue submits_to,
           bool has_modifiers) noexcept;

    VkDevice device;
    VkQueue queue;
    bool modifiers; // VK_EXT_image_drm_format_modifier; LINEAR tiling without it

    PFN_vkCreateImage CreateImage;
    PFN_vkDestroyImage DestroyImage;
    PFN_vkGetImageMemoryRequirements2 GetImageMemoryRequirements2;
    PFN_vkGetMemoryFdPropertiesKHR GetMemoryFdPropertiesKHR;
    PFN_vkAllocateMemory AllocateMemory;
    PFN_vkFreeMemory FreeMemory;
    PFN_vkBindImageMemory BindImageMemory;
    PFN_vkCreateSemaphore CreateSemaphore;
    PFN_vkDestroySemaphore DestroySemaphore;
    PFN_vkImportSemaphoreFdKHR ImportSemaphoreFdKHR;
    PFN_vkGetSemaphoreFdKHR GetSemaphoreFdKHR;
    PFN_vkQueueSubmit QueueSubmit;
};

/// A LINEAR image of 32 bits a pixel, in one plane.
struct ImageLayout {
    VkFormat format;
    VkImageUsageFlags usage;
    std::uint32_t width, height; // pixels
    std::uint32_t stride;        // bytes
    std::uint64_t size;          // of the buffer, in bytes
};

struct Image {
    VkImage image;
    VkDeviceMemory memory;
};

/// Imports a dma-buf as an image. \p fd stays the caller's. \returns 0, or what failed.
int import_image(const Vulkan& vulkan, int fd, const ImageLayout& layout, Image& made) noexcept;
void destroy(const Vulkan& vulkan, const Image& image) noexcept;

/// Submissions that write into one buffer: they wait for its fences and leave theirs.
class Submitter {
public:
    explicit Submitter(const Vulkan& vulkan) noexcept;
    Submitter(const Submitter&) = delete;
    Submitter& operator=(const Submitter&) = delete;
    ~Submitter();

    /// \returns 0, or what failed.
    int submit(int buffer, VkCommandBuffer commands) noexcept;

private:
    /// What one submission needs until the GPU is done with it.
    struct Slot {
        VkSemaphore wait = VK_NULL_HANDLE, signal = VK_NULL_HANDLE;
        int fence = -1;
    };

    const Vulkan& vulkan_;
    std::array<Slot, 4> slots_;
    std::size_t next_ = 0;
};

} // namespace by_hand
