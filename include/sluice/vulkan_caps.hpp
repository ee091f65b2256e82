// SPDX-License-Identifier: MIT
/// \file
/// What a Vulkan device can do with frames, known before the first of them.
///
/// Asked of the driver once for each format and usage, and kept: `VulkanDevice::support` and
/// `VulkanDevice::formats` tell it, `VulkanDevice::attach` and `VulkanDevice::export_image` go by
/// it.
///
/// Sources: VK_EXT_image_drm_format_modifier and "Additional Image Capabilities" in the Vulkan
/// specification.
#pragma once

#include <cstdint>
#include <span>

#include <vulkan/vulkan_core.h>

namespace sluice {

/// What a driver can do with images of one format and one modifier, for one usage.
struct VulkanModifierCaps {
    std::uint64_t modifier = 0; ///< DRM_FORMAT_MOD_*
    /// Planes in memory that a frame with the modifier has, the format's and the modifier's own.
    std::uint32_t plane_count = 0;
    /// What the driver does with such images, whatever the usage.
    VkFormatFeatureFlags2 features = 0;
    /// The largest image in pixels and rows; 0x0 where the driver has none for this usage.
    VkExtent2D max_extent = {};
    /// `VulkanDevice::attach` takes such frames.
    bool importable = false;
    /// `VulkanDevice::export_image` makes such frames.
    bool exportable = false;
    /// The image must have its memory for itself. sluice sees to that.
    bool dedicated_only = false;
    /// The planes may lie in several buffers.
    bool disjoint = false;
};

/// What a driver can do with one format, for one usage.
struct VulkanFormatCaps {
    std::uint32_t format = 0; ///< DRM_FORMAT_*
    /// The modifiers that the driver lists, in its order. The span lasts as long as the device and
    /// everything made of it.
    std::span<const VulkanModifierCaps> modifiers = {};
};

} // namespace sluice
