// SPDX-License-Identifier: MIT
#include "planes.hpp"

#include <algorithm>
#include <array>

namespace sluice::layer {

namespace {

struct Plane {
    std::uint8_t bytes;      // of a texel, or of a pair of them that share chroma
    std::uint8_t across = 1; // texels of the image for each of its own
    std::uint8_t down = 1;
};

struct Layout {
    std::uint32_t count = 0;
    std::array<Plane, 3> planes{};
};

constexpr Layout one(std::uint8_t bytes, std::uint8_t across = 1) {
    return {.count = 1, .planes = {{{.bytes = bytes, .across = across}}}};
}

/// Luma of \p bytes for each texel, then pairs of chroma.
constexpr Layout two(std::uint8_t bytes, std::uint8_t across, std::uint8_t down) {
    return {.count = 2,
            .planes = {
                {{.bytes = bytes},
                 {.bytes = static_cast<std::uint8_t>(2 * bytes), .across = across, .down = down}}}};
}

constexpr Layout three(std::uint8_t bytes, std::uint8_t across, std::uint8_t down) {
    const Plane chroma{.bytes = bytes, .across = across, .down = down};
    return {.count = 3, .planes = {{{.bytes = bytes}, chroma, chroma}}};
}

/// The formats that dma-bufs come in (those that drm_fourcc.h has, in the main).
Layout layout_of(VkFormat format) noexcept {
    switch (format) {
    case VK_FORMAT_R8_UNORM:
    case VK_FORMAT_R8_SRGB:
    case VK_FORMAT_R8_UINT:
        return one(1);
    case VK_FORMAT_R8G8_UNORM:
    case VK_FORMAT_R8G8_SRGB:
    case VK_FORMAT_R16_UNORM:
    case VK_FORMAT_R16_UINT:
    case VK_FORMAT_R16_SFLOAT:
    case VK_FORMAT_R5G6B5_UNORM_PACK16:
    case VK_FORMAT_B5G6R5_UNORM_PACK16:
    case VK_FORMAT_R4G4B4A4_UNORM_PACK16:
    case VK_FORMAT_B4G4R4A4_UNORM_PACK16:
    case VK_FORMAT_A4R4G4B4_UNORM_PACK16:
    case VK_FORMAT_A4B4G4R4_UNORM_PACK16:
    case VK_FORMAT_R5G5B5A1_UNORM_PACK16:
    case VK_FORMAT_B5G5R5A1_UNORM_PACK16:
    case VK_FORMAT_A1R5G5B5_UNORM_PACK16:
        return one(2);
    case VK_FORMAT_R8G8B8_UNORM:
    case VK_FORMAT_R8G8B8_SRGB:
    case VK_FORMAT_B8G8R8_UNORM:
    case VK_FORMAT_B8G8R8_SRGB:
        return one(3);
    case VK_FORMAT_R8G8B8A8_UNORM:
    case VK_FORMAT_R8G8B8A8_SRGB:
    case VK_FORMAT_B8G8R8A8_UNORM:
    case VK_FORMAT_B8G8R8A8_SRGB:
    case VK_FORMAT_A8B8G8R8_UNORM_PACK32:
    case VK_FORMAT_A8B8G8R8_SRGB_PACK32:
    case VK_FORMAT_A2R10G10B10_UNORM_PACK32:
    case VK_FORMAT_A2B10G10R10_UNORM_PACK32:
    case VK_FORMAT_R16G16_UNORM:
    case VK_FORMAT_R16G16_SFLOAT:
    case VK_FORMAT_R32_UINT:
    case VK_FORMAT_R32_SFLOAT:
        return one(4);
    case VK_FORMAT_R16G16B16A16_UNORM:
    case VK_FORMAT_R16G16B16A16_SFLOAT:
    case VK_FORMAT_R32G32_SFLOAT:
        return one(8);
    case VK_FORMAT_R32G32B32A32_SFLOAT:
        return one(16);
    case VK_FORMAT_G8B8G8R8_422_UNORM:
    case VK_FORMAT_B8G8R8G8_422_UNORM:
        return one(4, 2);
    case VK_FORMAT_G8_B8R8_2PLANE_420_UNORM:
        return two(1, 2, 2);
    case VK_FORMAT_G8_B8R8_2PLANE_422_UNORM:
        return two(1, 2, 1);
    case VK_FORMAT_G8_B8R8_2PLANE_444_UNORM:
        return two(1, 1, 1);
    case VK_FORMAT_G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16:
    case VK_FORMAT_G12X4_B12X4R12X4_2PLANE_420_UNORM_3PACK16:
    case VK_FORMAT_G16_B16R16_2PLANE_420_UNORM:
        return two(2, 2, 2);
    case VK_FORMAT_G10X6_B10X6R10X6_2PLANE_422_UNORM_3PACK16:
    case VK_FORMAT_G12X4_B12X4R12X4_2PLANE_422_UNORM_3PACK16:
    case VK_FORMAT_G16_B16R16_2PLANE_422_UNORM:
        return two(2, 2, 1);
    case VK_FORMAT_G10X6_B10X6R10X6_2PLANE_444_UNORM_3PACK16:
    case VK_FORMAT_G12X4_B12X4R12X4_2PLANE_444_UNORM_3PACK16:
    case VK_FORMAT_G16_B16R16_2PLANE_444_UNORM:
        return two(2, 1, 1);
    case VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM:
        return three(1, 2, 2);
    case VK_FORMAT_G8_B8_R8_3PLANE_422_UNORM:
        return three(1, 2, 1);
    case VK_FORMAT_G8_B8_R8_3PLANE_444_UNORM:
        return three(1, 1, 1);
    case VK_FORMAT_G10X6_B10X6_R10X6_3PLANE_420_UNORM_3PACK16:
    case VK_FORMAT_G12X4_B12X4_R12X4_3PLANE_420_UNORM_3PACK16:
    case VK_FORMAT_G16_B16_R16_3PLANE_420_UNORM:
        return three(2, 2, 2);
    case VK_FORMAT_G10X6_B10X6_R10X6_3PLANE_422_UNORM_3PACK16:
    case VK_FORMAT_G12X4_B12X4_R12X4_3PLANE_422_UNORM_3PACK16:
    case VK_FORMAT_G16_B16_R16_3PLANE_422_UNORM:
        return three(2, 2, 1);
    case VK_FORMAT_G10X6_B10X6_R10X6_3PLANE_444_UNORM_3PACK16:
    case VK_FORMAT_G12X4_B12X4_R12X4_3PLANE_444_UNORM_3PACK16:
    case VK_FORMAT_G16_B16_R16_3PLANE_444_UNORM:
        return three(2, 1, 1);
    default:
        return {};
    }
}

std::uint64_t divide_up(std::uint32_t value, std::uint8_t by) noexcept {
    return (std::uint64_t{value} + by - 1) / by;
}

} // namespace

std::uint32_t format_planes(VkFormat format) noexcept {
    return std::max(1U, layout_of(format).count);
}

std::optional<std::uint64_t> linear_plane_bytes(VkFormat format, std::uint32_t plane,
                                                VkExtent3D extent,
                                                std::uint64_t row_pitch) noexcept {
    const Layout layout = layout_of(format);
    if (plane >= layout.count || extent.width == 0 || extent.height == 0)
        return std::nullopt;
    const Plane& of = layout.planes.at(plane);
    std::uint64_t all = 0;
    if (__builtin_mul_overflow(divide_up(extent.height, of.down) - 1, row_pitch, &all) ||
        __builtin_add_overflow(all, divide_up(extent.width, of.across) * of.bytes, &all))
        return UINT64_MAX;
    return all;
}

} // namespace sluice::layer
