// SPDX-License-Identifier: MIT
/// \file
/// A VkImage and the memory under it, however they came together. Not installed.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include <sluice/vulkan_image.hpp>

#include "vulkan/vulkan_attachment_state.hpp"
#include "vulkan/vulkan_driver.hpp"
#include "vulkan/vulkan_memory.hpp"

namespace sluice {

/// A VkImage, its memories and views, destroyed together, views first.
struct VulkanImageHandles {
    struct View {
        VkSamplerYcbcrConversion conversion;
        VkFormat format;
        bool swizzled; // with components that are not the identity
        VkImageView view;
    };

    explicit VulkanImageHandles(std::shared_ptr<const VulkanDriver> of) noexcept
        : device(std::move(of)) {}
    VulkanImageHandles(VulkanImageHandles&& other) noexcept
        : device(std::move(other.device)), image(std::exchange(other.image, VK_NULL_HANDLE)),
          memories(std::exchange(other.memories, {})), views(std::move(other.views)) {}
    VulkanImageHandles& operator=(VulkanImageHandles&&) = delete;
    ~VulkanImageHandles() {
        if (device == nullptr || device->abandoned)
            return;
        for (const View& each : views)
            device->vk.DestroyImageView(device->info.device, each.view, nullptr);
        if (image != VK_NULL_HANDLE)
            device->vk.DestroyImage(device->info.device, image, nullptr);
        for (const VulkanMemory& memory : memories)
            if (memory.handle != VK_NULL_HANDLE)
                device->vk.FreeMemory(device->info.device, memory.handle, nullptr);
    }

    std::shared_ptr<const VulkanDriver> device;
    VkImage image = VK_NULL_HANDLE;
    std::array<VulkanMemory, max_planes> memories{}; // more than one where planes are disjoint
    std::vector<View> views;
};

/// What views of an image are made with.
struct VulkanImageViewing {
    VkFormat format = VK_FORMAT_UNDEFINED; // the image's own
    VkFormat srgb = VK_FORMAT_UNDEFINED;   // or none
    VkComponentMapping components = {};    // for sampling without a conversion
    VkImageUsageFlags usage = 0;
};

struct VulkanImage::State : VulkanAttachment::State {
    State(VulkanImageHandles&& made, const VulkanImageViewing& how, Frame in) noexcept
        : VulkanAttachment::State(std::move(in)), image(std::move(made)), viewing(how) {
        memory_flags = image.memories[0].flags;
        for (const VulkanMemory& memory : image.memories)
            if (memory.handle != VK_NULL_HANDLE)
                memory_flags &= memory.flags;
    }

    [[nodiscard]] const VulkanDriver& driver() const noexcept override { return *image.device; }

    mutable std::mutex lock; // over the views
    mutable VulkanImageHandles image;
    VulkanImageViewing viewing;
    /// It is the first part of a frame that `VulkanDevice::texture` could not have as a whole: no
    /// need to try again.
    mutable std::atomic<bool> instead_of_whole = false;
};

/// The image to create: two-dimensional, of one level, layer and sample.
struct VulkanImagePlan {
    VkFormat format = VK_FORMAT_UNDEFINED;
    VkExtent2D extent = {};
    VkImageUsageFlags usage = 0;
    VkImageCreateFlags flags = 0;
    VkFormat srgb = VK_FORMAT_UNDEFINED; // that views have too
    const void* layout = nullptr;        // chained in: the create info that tells its modifier
};

/// vkCreateImage; \p into is changed only where it succeeds.
[[nodiscard]] VkResult create_image(const VulkanDriver& driver, const VulkanImagePlan& plan,
                                    VkImage& into);

/// What \p image, or memory plane \p plane of it where it is disjoint, must have for memory.
[[nodiscard]] VulkanMemoryNeeds image_needs(const VulkanDriver& driver, VkImage image,
                                            std::optional<std::uint32_t> plane = std::nullopt);

/// The components for views of all of a frame of \p format (DRM_FORMAT_*): those of YCbCr are its
/// conversion's.
[[nodiscard]] VkComponentMapping whole_components(std::uint32_t format) noexcept;

/// Which bit names plane \p index of \p count in an image's memory: with modifiers a memory plane,
/// without them the format's own.
[[nodiscard]] VkImageAspectFlagBits plane_aspect(const VulkanDriver& driver, std::uint32_t index,
                                                 std::uint32_t count) noexcept;

} // namespace sluice
