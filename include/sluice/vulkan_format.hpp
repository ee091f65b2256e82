// SPDX-License-Identifier: MIT
/// \file
/// Which VkFormat has the bytes of which DRM format, and how a shader reads them.
///
/// DRM names a little-endian word from its high bits down: XR24, "x:R:G:B", lies in memory as the
/// bytes B, G, R, x. Vulkan names bytes from the first up (VK_FORMAT_B8G8R8A8_UNORM), and only in a
/// _PACKn format a word from its high bits down. Sources: the comments in drm/drm_fourcc.h, and
/// "Format Definition" in the Vulkan specification.
///
/// Threads: any; everything here is a constant.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include <vulkan/vulkan_core.h>

#include <sluice/export.hpp>

namespace sluice {

/// One image view that reads some channels of a frame without VkSamplerYcbcrConversion: the plane
/// taken as an image of its own, in a format that drivers have where they have its size at all.
///
/// `components` moves each channel to where a conversion with
/// VK_SAMPLER_YCBCR_MODEL_CONVERSION_RGB_IDENTITY would leave it (Cr in red, Y in green, Cb in
/// blue) and makes the rest zero. So the sum of the samples from all views is the pixel, in every
/// format.
struct VulkanPlaneView {
    std::uint32_t plane = 0; ///< Which of `FormatInfo::planes`.
    VkFormat format = VK_FORMAT_UNDEFINED;
    std::uint32_t texel_width = 1; ///< Pixels of the frame that one texel spans: the view is this
                                   ///< much narrower, rounded up.
    std::uint32_t texel_height = 1;
    VkComponentMapping components = {}; ///< For VkImageViewCreateInfo::components.
};

/// What Vulkan makes of one DRM format. VkFormats are the unsigned normalised or float ones.
struct VulkanFormatInfo {
    std::uint32_t fourcc = 0; ///< DRM_FORMAT_*
    /// The format of one image with all planes, or VK_FORMAT_UNDEFINED where Vulkan has none and
    /// only `views` remain. Whether a driver has it, vkGetPhysicalDeviceFormatProperties2 tells;
    /// the name of a format beyond Vulkan 1.1's must not even be asked for where neither the
    /// version nor an extension brings it: the 4444 ones with alpha first are of 1.3 or
    /// VK_EXT_4444_formats, the _2PLANE_444 ones of 1.3 or VK_EXT_ycbcr_2plane_444_formats.
    VkFormat format = VK_FORMAT_UNDEFINED;
    /// The same bytes with red, green and blue read and written through the sRGB curve, or
    /// VK_FORMAT_UNDEFINED.
    VkFormat srgb = VK_FORMAT_UNDEFINED;
    /// What moves the channels of `format` to their places and makes alpha one where the fourth
    /// channel means nothing. For VkImageViewCreateInfo::components, and for
    /// VkSamplerYcbcrConversionCreateInfo::components where `is_ycbcr` (the view's own must then be
    /// the identity).
    VkComponentMapping components = {};
    /// Red, green or blue are in their places only through `components`. The GPU can sample such a
    /// frame, but what it renders, clears or stores would end in the wrong channel: attaching and
    /// exporting refuse to, but for clears and blits, which Vulkan calls transfers as it does
    /// copies.
    bool is_swizzled = false;
    /// `format` holds Y, Cb and Cr, and sampling it as colours needs a VkSamplerYcbcrConversion.
    bool is_ycbcr = false;
    /// Pixels that share a chroma sample, across and down. An image of `format` must have a width
    /// (and height) that is a multiple of them (VUID-VkImageCreateInfo-format-04712 and -04713);
    /// a frame need not.
    VkExtent2D chroma = {1, 1};
    std::uint32_t view_count = 0; ///< At least one.
    /// How to read the frame plane by plane; the first `view_count` of them. A channel whose 10 or
    /// 12 bits lie at the top of 16 is read as 16 bits, a little too dark: full scale comes out as
    /// 65472 / 65535 or 65520 / 65535.
    std::array<VulkanPlaneView, 3> views = {};
};

/// All entries, a format with alpha before its twin without. Every `fourcc` here is one that
/// `find_format` knows.
[[nodiscard]] SLUICE_API std::span<const VulkanFormatInfo> vulkan_formats() noexcept;

/// The entry for \p fourcc (a DRM_FORMAT_*), or null where Vulkan has nothing with such bytes.
/// Allocates nothing.
[[nodiscard]] SLUICE_API const VulkanFormatInfo* find_vulkan_format(std::uint32_t fourcc) noexcept;

/// The VkFormat in which an application can draw what \p fourcc (a DRM_FORMAT_*) means: of red,
/// green and blue, in one plane, each channel in its place. VK_FORMAT_UNDEFINED for all else; what
/// can be sampled only, `find_vulkan_format` tells.
[[nodiscard]] SLUICE_API VkFormat vulkan_format(std::uint32_t fourcc) noexcept;

/// The DRM formats whose bytes are those of \p format or, for a format with an sRGB curve, of its
/// twin without: with alpha first, then without. Empty where there are none.
///
/// A VkFormat of red, green and blue gives only such DRM formats, although those of unsubsampled
/// YCbCr (Y410 and others) can be stored in it too. The span is a constant's and lasts.
[[nodiscard]] SLUICE_API std::span<const std::uint32_t> drm_formats(VkFormat format) noexcept;

} // namespace sluice
