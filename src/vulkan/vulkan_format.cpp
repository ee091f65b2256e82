// SPDX-License-Identifier: MIT
#include <sluice/vulkan_format.hpp>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <drm_fourcc.h>

// Younger than the oldest libdrm that sluice is built with.
#ifndef DRM_FORMAT_AVUY8888
#define DRM_FORMAT_AVUY8888 fourcc_code('A', 'V', 'U', 'Y')
#endif
#ifndef DRM_FORMAT_XVUY8888
#define DRM_FORMAT_XVUY8888 fourcc_code('X', 'V', 'U', 'Y')
#endif

namespace sluice {

namespace {

/// "bgr1": red is read from the image's blue, ..., alpha is one.
using Mapping = std::string_view;

constexpr VkComponentSwizzle swizzle(char from, char at) {
    if (from == at)
        return VK_COMPONENT_SWIZZLE_IDENTITY; // what rendering and YCbCr conversions insist on
    switch (from) {
    case 'r':
        return VK_COMPONENT_SWIZZLE_R;
    case 'g':
        return VK_COMPONENT_SWIZZLE_G;
    case 'b':
        return VK_COMPONENT_SWIZZLE_B;
    case 'a':
        return VK_COMPONENT_SWIZZLE_A;
    case '0':
        return VK_COMPONENT_SWIZZLE_ZERO;
    default:
        return VK_COMPONENT_SWIZZLE_ONE;
    }
}

constexpr VkComponentMapping components(Mapping from) {
    return {swizzle(from[0], 'r'), swizzle(from[1], 'g'), swizzle(from[2], 'b'),
            swizzle(from[3], 'a')};
}

/// One plane of whole pixels, whose bytes are a format of Vulkan's.
constexpr VulkanFormatInfo pixels(std::uint32_t fourcc, VkFormat format, VkFormat srgb,
                                  Mapping from) {
    return {.fourcc = fourcc,
            .format = format,
            .srgb = srgb,
            .components = components(from),
            .is_swizzled = !from.starts_with("rgb"),
            .view_count = 1,
            .views = {VulkanPlaneView{.format = format, .components = components(from)}}};
}

constexpr VulkanFormatInfo rgb(std::uint32_t fourcc, VkFormat format, Mapping from) {
    return pixels(fourcc, format, VK_FORMAT_UNDEFINED, from);
}

/// \p format and its sRGB twin.
constexpr VulkanFormatInfo rgb_8(std::uint32_t fourcc, VkFormat format, VkFormat srgb,
                                 Mapping from) {
    return pixels(fourcc, format, srgb, from);
}

/// Pixels of Y, Cb and Cr with the bytes of a format that Vulkan names for red, green and blue.
constexpr VulkanFormatInfo yuv_444(std::uint32_t fourcc, VkFormat format, Mapping from) {
    VulkanFormatInfo info = pixels(fourcc, format, VK_FORMAT_UNDEFINED, from);
    info.is_ycbcr = true;
    return info;
}

/// Channels of 10 or 12 bits at the top of 16: few drivers have those formats, all have 16 bits.
constexpr VulkanFormatInfo read_as_16(VulkanFormatInfo info) {
    info.views[0].format = VK_FORMAT_R16G16B16A16_UNORM;
    return info;
}

/// Luma for two pixels and the chroma that they share. Without a conversion, luma is read through
/// a view of \p pair for each pixel and chroma through one of \p block for two.
constexpr VulkanFormatInfo yuv_422(std::uint32_t fourcc, VkFormat format, Mapping from,
                                   VkFormat pair, Mapping luma, VkFormat block, Mapping chroma) {
    return {.fourcc = fourcc,
            .format = format,
            .components = components(from),
            .is_swizzled = !from.starts_with("rgb"),
            .is_ycbcr = true,
            .chroma = {2, 1},
            .view_count = 2,
            .views = {VulkanPlaneView{.format = pair, .components = components(luma)},
                      VulkanPlaneView{
                          .format = block, .texel_width = 2, .components = components(chroma)}}};
}

constexpr VulkanFormatInfo yuv_422_8(std::uint32_t fourcc, VkFormat format, Mapping from,
                                     Mapping luma, Mapping chroma) {
    return yuv_422(fourcc, format, from, VK_FORMAT_R8G8_UNORM, luma, VK_FORMAT_R8G8B8A8_UNORM,
                   chroma);
}

/// "YUYV", 16 bits a sample.
constexpr VulkanFormatInfo yuyv_16(std::uint32_t fourcc, VkFormat format) {
    return yuv_422(fourcc, format, "rgba", VK_FORMAT_R16G16_UNORM, "0r01",
                   VK_FORMAT_R16G16B16A16_UNORM, "a0g0");
}

/// One or two samples of \p bytes each.
constexpr VkFormat samples(std::uint32_t bytes, std::uint32_t count) {
    if (bytes == 1)
        return count == 1 ? VK_FORMAT_R8_UNORM : VK_FORMAT_R8G8_UNORM;
    return count == 1 ? VK_FORMAT_R16_UNORM : VK_FORMAT_R16G16_UNORM;
}

enum class Order : bool {
    cb_first,
    cr_first, ///< Vulkan has none of these: the conversion swaps red and blue.
};

/// A plane of luma, \p bytes a sample.
constexpr VulkanFormatInfo luma_plane(std::uint32_t fourcc, VkFormat format, std::uint32_t bytes,
                                      VkExtent2D chroma, Order order) {
    return {
        .fourcc = fourcc,
        .format = format,
        .components = components(order == Order::cb_first ? "rgba" : "bgra"),
        .is_swizzled = order == Order::cr_first,
        .is_ycbcr = true,
        .chroma = chroma,
        .view_count = 1,
        .views = {VulkanPlaneView{.format = samples(bytes, 1), .components = components("0r01")}}};
}

/// A plane of luma and one of both chromas.
constexpr VulkanFormatInfo semi_planar(std::uint32_t fourcc, VkFormat format, std::uint32_t bytes,
                                       VkExtent2D chroma, Order order) {
    VulkanFormatInfo info = luma_plane(fourcc, format, bytes, chroma, order);
    info.view_count = 2;
    info.views[1] = {.plane = 1,
                     .format = samples(bytes, 2),
                     .texel_width = chroma.width,
                     .texel_height = chroma.height,
                     .components = components(order == Order::cb_first ? "g0r0" : "r0g0")};
    return info;
}

/// A plane of luma and one for each chroma.
constexpr VulkanFormatInfo planar(std::uint32_t fourcc, VkFormat format, std::uint32_t bytes,
                                  VkExtent2D chroma, Order order) {
    VulkanFormatInfo info = luma_plane(fourcc, format, bytes, chroma, order);
    info.view_count = 3;
    for (std::uint32_t plane = 1; plane < 3; ++plane)
        info.views[plane] = {
            .plane = plane,
            .format = samples(bytes, 1),
            .texel_width = chroma.width,
            .texel_height = chroma.height,
            .components = components((plane == 1) == (order == Order::cb_first) ? "00r0" : "r000")};
    return info;
}

constexpr VkExtent2D by_2x2 = {2, 2};
constexpr VkExtent2D by_2x1 = {2, 1};
constexpr VkExtent2D by_1x1 = {1, 1};

// tests/unit/vulkan_format_test.cpp holds each entry against the words of drm_fourcc.h and
// vulkan_core.h.
constexpr std::array table{
    rgb_8(DRM_FORMAT_ARGB8888, VK_FORMAT_B8G8R8A8_UNORM, VK_FORMAT_B8G8R8A8_SRGB, "rgba"),
    rgb_8(DRM_FORMAT_XRGB8888, VK_FORMAT_B8G8R8A8_UNORM, VK_FORMAT_B8G8R8A8_SRGB, "rgb1"),
    rgb_8(DRM_FORMAT_ABGR8888, VK_FORMAT_R8G8B8A8_UNORM, VK_FORMAT_R8G8B8A8_SRGB, "rgba"),
    rgb_8(DRM_FORMAT_XBGR8888, VK_FORMAT_R8G8B8A8_UNORM, VK_FORMAT_R8G8B8A8_SRGB, "rgb1"),
    // Alpha has no sRGB curve, and a colour lies where Vulkan has alpha.
    rgb(DRM_FORMAT_RGBA8888, VK_FORMAT_R8G8B8A8_UNORM, "abgr"),
    rgb(DRM_FORMAT_RGBX8888, VK_FORMAT_R8G8B8A8_UNORM, "abg1"),
    rgb(DRM_FORMAT_BGRA8888, VK_FORMAT_R8G8B8A8_UNORM, "gbar"),
    rgb(DRM_FORMAT_BGRX8888, VK_FORMAT_R8G8B8A8_UNORM, "gba1"),
    rgb_8(DRM_FORMAT_RGB888, VK_FORMAT_B8G8R8_UNORM, VK_FORMAT_B8G8R8_SRGB, "rgba"),
    rgb_8(DRM_FORMAT_BGR888, VK_FORMAT_R8G8B8_UNORM, VK_FORMAT_R8G8B8_SRGB, "rgba"),
    rgb(DRM_FORMAT_RGB565, VK_FORMAT_R5G6B5_UNORM_PACK16, "rgba"),
    rgb(DRM_FORMAT_BGR565, VK_FORMAT_B5G6R5_UNORM_PACK16, "rgba"),
    rgb(DRM_FORMAT_ARGB4444, VK_FORMAT_A4R4G4B4_UNORM_PACK16, "rgba"),
    rgb(DRM_FORMAT_XRGB4444, VK_FORMAT_A4R4G4B4_UNORM_PACK16, "rgb1"),
    rgb(DRM_FORMAT_ABGR4444, VK_FORMAT_A4B4G4R4_UNORM_PACK16, "rgba"),
    rgb(DRM_FORMAT_XBGR4444, VK_FORMAT_A4B4G4R4_UNORM_PACK16, "rgb1"),
    rgb(DRM_FORMAT_RGBA4444, VK_FORMAT_R4G4B4A4_UNORM_PACK16, "rgba"),
    rgb(DRM_FORMAT_RGBX4444, VK_FORMAT_R4G4B4A4_UNORM_PACK16, "rgb1"),
    rgb(DRM_FORMAT_BGRA4444, VK_FORMAT_B4G4R4A4_UNORM_PACK16, "rgba"),
    rgb(DRM_FORMAT_BGRX4444, VK_FORMAT_B4G4R4A4_UNORM_PACK16, "rgb1"),
    rgb(DRM_FORMAT_ARGB1555, VK_FORMAT_A1R5G5B5_UNORM_PACK16, "rgba"),
    rgb(DRM_FORMAT_XRGB1555, VK_FORMAT_A1R5G5B5_UNORM_PACK16, "rgb1"),
    // VK_KHR_maintenance5 has A1B5G5R5, younger than the oldest Vulkan that sluice is built with.
    rgb(DRM_FORMAT_ABGR1555, VK_FORMAT_A1R5G5B5_UNORM_PACK16, "bgra"),
    rgb(DRM_FORMAT_XBGR1555, VK_FORMAT_A1R5G5B5_UNORM_PACK16, "bgr1"),
    rgb(DRM_FORMAT_RGBA5551, VK_FORMAT_R5G5B5A1_UNORM_PACK16, "rgba"),
    rgb(DRM_FORMAT_RGBX5551, VK_FORMAT_R5G5B5A1_UNORM_PACK16, "rgb1"),
    rgb(DRM_FORMAT_BGRA5551, VK_FORMAT_B5G5R5A1_UNORM_PACK16, "rgba"),
    rgb(DRM_FORMAT_BGRX5551, VK_FORMAT_B5G5R5A1_UNORM_PACK16, "rgb1"),
    rgb(DRM_FORMAT_ARGB2101010, VK_FORMAT_A2R10G10B10_UNORM_PACK32, "rgba"),
    rgb(DRM_FORMAT_XRGB2101010, VK_FORMAT_A2R10G10B10_UNORM_PACK32, "rgb1"),
    rgb(DRM_FORMAT_ABGR2101010, VK_FORMAT_A2B10G10R10_UNORM_PACK32, "rgba"),
    rgb(DRM_FORMAT_XBGR2101010, VK_FORMAT_A2B10G10R10_UNORM_PACK32, "rgb1"),
    rgb(DRM_FORMAT_ARGB16161616, VK_FORMAT_R16G16B16A16_UNORM, "bgra"),
    rgb(DRM_FORMAT_XRGB16161616, VK_FORMAT_R16G16B16A16_UNORM, "bgr1"),
    rgb(DRM_FORMAT_ABGR16161616, VK_FORMAT_R16G16B16A16_UNORM, "rgba"),
    rgb(DRM_FORMAT_XBGR16161616, VK_FORMAT_R16G16B16A16_UNORM, "rgb1"),
    rgb(DRM_FORMAT_ARGB16161616F, VK_FORMAT_R16G16B16A16_SFLOAT, "bgra"),
    rgb(DRM_FORMAT_XRGB16161616F, VK_FORMAT_R16G16B16A16_SFLOAT, "bgr1"),
    rgb(DRM_FORMAT_ABGR16161616F, VK_FORMAT_R16G16B16A16_SFLOAT, "rgba"),
    rgb(DRM_FORMAT_XBGR16161616F, VK_FORMAT_R16G16B16A16_SFLOAT, "rgb1"),
    read_as_16(
        rgb(DRM_FORMAT_AXBXGXRX106106106106, VK_FORMAT_R10X6G10X6B10X6A10X6_UNORM_4PACK16, "rgba")),
    rgb_8(DRM_FORMAT_R8, VK_FORMAT_R8_UNORM, VK_FORMAT_R8_SRGB, "rgba"),
    rgb(DRM_FORMAT_R16, VK_FORMAT_R16_UNORM, "rgba"),
    rgb_8(DRM_FORMAT_GR88, VK_FORMAT_R8G8_UNORM, VK_FORMAT_R8G8_SRGB, "rgba"),
    rgb_8(DRM_FORMAT_RG88, VK_FORMAT_R8G8_UNORM, VK_FORMAT_R8G8_SRGB, "grba"),
    rgb(DRM_FORMAT_GR1616, VK_FORMAT_R16G16_UNORM, "rgba"),
    rgb(DRM_FORMAT_RG1616, VK_FORMAT_R16G16_UNORM, "grba"),
    yuv_422_8(DRM_FORMAT_YUYV, VK_FORMAT_G8B8G8R8_422_UNORM, "rgba", "0r01", "a0g0"),
    yuv_422_8(DRM_FORMAT_YVYU, VK_FORMAT_G8B8G8R8_422_UNORM, "bgra", "0r01", "g0a0"),
    yuv_422_8(DRM_FORMAT_UYVY, VK_FORMAT_B8G8R8G8_422_UNORM, "rgba", "0g01", "b0r0"),
    yuv_422_8(DRM_FORMAT_VYUY, VK_FORMAT_B8G8R8G8_422_UNORM, "bgra", "0g01", "r0b0"),
    yuyv_16(DRM_FORMAT_Y210, VK_FORMAT_G10X6B10X6G10X6R10X6_422_UNORM_4PACK16),
    yuyv_16(DRM_FORMAT_Y212, VK_FORMAT_G12X4B12X4G12X4R12X4_422_UNORM_4PACK16),
    yuyv_16(DRM_FORMAT_Y216, VK_FORMAT_G16B16G16R16_422_UNORM),
    yuv_444(DRM_FORMAT_AYUV, VK_FORMAT_R8G8B8A8_UNORM, "rbga"),
    yuv_444(DRM_FORMAT_XYUV8888, VK_FORMAT_R8G8B8A8_UNORM, "rbg1"),
    yuv_444(DRM_FORMAT_AVUY8888, VK_FORMAT_R8G8B8A8_UNORM, "brga"),
    yuv_444(DRM_FORMAT_XVUY8888, VK_FORMAT_R8G8B8A8_UNORM, "brg1"),
    yuv_444(DRM_FORMAT_VUY888, VK_FORMAT_R8G8B8_UNORM, "brga"),
    yuv_444(DRM_FORMAT_Y410, VK_FORMAT_A2R10G10B10_UNORM_PACK32, "rgba"),
    yuv_444(DRM_FORMAT_XVYU2101010, VK_FORMAT_A2R10G10B10_UNORM_PACK32, "rgb1"),
    read_as_16(yuv_444(DRM_FORMAT_Y412, VK_FORMAT_R12X4G12X4B12X4A12X4_UNORM_4PACK16, "bgra")),
    read_as_16(
        yuv_444(DRM_FORMAT_XVYU12_16161616, VK_FORMAT_R12X4G12X4B12X4A12X4_UNORM_4PACK16, "bgr1")),
    yuv_444(DRM_FORMAT_Y416, VK_FORMAT_R16G16B16A16_UNORM, "bgra"),
    yuv_444(DRM_FORMAT_XVYU16161616, VK_FORMAT_R16G16B16A16_UNORM, "bgr1"),
    semi_planar(DRM_FORMAT_NV12, VK_FORMAT_G8_B8R8_2PLANE_420_UNORM, 1, by_2x2, Order::cb_first),
    semi_planar(DRM_FORMAT_NV21, VK_FORMAT_G8_B8R8_2PLANE_420_UNORM, 1, by_2x2, Order::cr_first),
    semi_planar(DRM_FORMAT_NV16, VK_FORMAT_G8_B8R8_2PLANE_422_UNORM, 1, by_2x1, Order::cb_first),
    semi_planar(DRM_FORMAT_NV61, VK_FORMAT_G8_B8R8_2PLANE_422_UNORM, 1, by_2x1, Order::cr_first),
    semi_planar(DRM_FORMAT_NV24, VK_FORMAT_G8_B8R8_2PLANE_444_UNORM, 1, by_1x1, Order::cb_first),
    semi_planar(DRM_FORMAT_NV42, VK_FORMAT_G8_B8R8_2PLANE_444_UNORM, 1, by_1x1, Order::cr_first),
    semi_planar(DRM_FORMAT_P010, VK_FORMAT_G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16, 2, by_2x2,
                Order::cb_first),
    semi_planar(DRM_FORMAT_P012, VK_FORMAT_G12X4_B12X4R12X4_2PLANE_420_UNORM_3PACK16, 2, by_2x2,
                Order::cb_first),
    semi_planar(DRM_FORMAT_P016, VK_FORMAT_G16_B16R16_2PLANE_420_UNORM, 2, by_2x2, Order::cb_first),
    semi_planar(DRM_FORMAT_P210, VK_FORMAT_G10X6_B10X6R10X6_2PLANE_422_UNORM_3PACK16, 2, by_2x1,
                Order::cb_first),
    planar(DRM_FORMAT_YUV410, VK_FORMAT_UNDEFINED, 1, {4, 4}, Order::cb_first),
    planar(DRM_FORMAT_YVU410, VK_FORMAT_UNDEFINED, 1, {4, 4}, Order::cr_first),
    planar(DRM_FORMAT_YUV411, VK_FORMAT_UNDEFINED, 1, {4, 1}, Order::cb_first),
    planar(DRM_FORMAT_YVU411, VK_FORMAT_UNDEFINED, 1, {4, 1}, Order::cr_first),
    planar(DRM_FORMAT_YUV420, VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM, 1, by_2x2, Order::cb_first),
    planar(DRM_FORMAT_YVU420, VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM, 1, by_2x2, Order::cr_first),
    planar(DRM_FORMAT_YUV422, VK_FORMAT_G8_B8_R8_3PLANE_422_UNORM, 1, by_2x1, Order::cb_first),
    planar(DRM_FORMAT_YVU422, VK_FORMAT_G8_B8_R8_3PLANE_422_UNORM, 1, by_2x1, Order::cr_first),
    planar(DRM_FORMAT_YUV444, VK_FORMAT_G8_B8_R8_3PLANE_444_UNORM, 1, by_1x1, Order::cb_first),
    planar(DRM_FORMAT_YVU444, VK_FORMAT_G8_B8_R8_3PLANE_444_UNORM, 1, by_1x1, Order::cr_first),
    planar(DRM_FORMAT_Q410, VK_FORMAT_G10X6_B10X6_R10X6_3PLANE_444_UNORM_3PACK16, 2, by_1x1,
           Order::cb_first),
    planar(DRM_FORMAT_Q401, VK_FORMAT_G10X6_B10X6_R10X6_3PLANE_444_UNORM_3PACK16, 2, by_1x1,
           Order::cr_first),
};

constexpr bool in_place(const VulkanFormatInfo& info) {
    return info.format != VK_FORMAT_UNDEFINED && !info.is_swizzled;
}

/// A VkFormat that stores a DRM one.
struct Way {
    VkFormat format;
    std::uint32_t fourcc;
};

/// Whether the way back from the VkFormat leads to \p info.
constexpr bool leads_back(const VulkanFormatInfo& info) {
    // The VkFormats of one plane without subsampling are of red, green and blue.
    const bool borrowed = info.is_ycbcr && info.view_count == 1;
    return in_place(info) && !borrowed;
}

constexpr std::size_t ways_back = [] {
    std::size_t count = 0;
    for (const VulkanFormatInfo& each : table)
        if (leads_back(each))
            count += each.srgb == VK_FORMAT_UNDEFINED ? 1 : 2;
    return count;
}();

/// The ways back, by VkFormat; the table has a format with alpha before its twin without.
constexpr auto back = [] {
    std::array<Way, ways_back> ways{};
    std::size_t count = 0;
    for (const VulkanFormatInfo& each : table) {
        if (!leads_back(each))
            continue;
        ways[count++] = {each.format, each.fourcc};
        if (each.srgb != VK_FORMAT_UNDEFINED)
            ways[count++] = {each.srgb, each.fourcc};
    }
    // Insertion keeps the table's order among equals; std::stable_sort is not constexpr in C++20.
    for (std::size_t i = 1; i < ways.size(); ++i)
        for (std::size_t j = i; j > 0 && ways[j].format < ways[j - 1].format; --j)
            std::swap(ways[j], ways[j - 1]);
    return ways;
}();

/// The codes alone, so that a span can be handed out.
constexpr auto back_fourccs = [] {
    std::array<std::uint32_t, ways_back> fourccs{};
    std::ranges::transform(back, fourccs.begin(), &Way::fourcc);
    return fourccs;
}();

} // namespace

std::span<const VulkanFormatInfo> vulkan_formats() noexcept {
    return table;
}

const VulkanFormatInfo* find_vulkan_format(std::uint32_t fourcc) noexcept {
    // For importing, once a buffer: not worth an index.
    const auto* found = std::ranges::find(table, fourcc, &VulkanFormatInfo::fourcc);
    return found == table.end() ? nullptr : found;
}

VkFormat vulkan_format(std::uint32_t fourcc) noexcept {
    const VulkanFormatInfo* info = find_vulkan_format(fourcc);
    return info && in_place(*info) && !info->is_ycbcr ? info->format : VK_FORMAT_UNDEFINED;
}

std::span<const std::uint32_t> drm_formats(VkFormat format) noexcept {
    const auto* first = std::ranges::lower_bound(back, format, {}, &Way::format);
    const auto* last = std::ranges::upper_bound(back, format, {}, &Way::format);
    return {back_fourccs.data() + (first - back.begin()), static_cast<std::size_t>(last - first)};
}

} // namespace sluice
