// SPDX-License-Identifier: MIT
#include <sluice/format.hpp>

#include <algorithm>
#include <array>

#include <drm_fourcc.h>

namespace sluice {

namespace {

/// One plane of whole pixels.
constexpr FormatInfo packed(std::uint32_t fourcc, std::string_view name, std::uint32_t bytes) {
    return {fourcc, name, name[0] == 'A', 1, {FormatPlane{bytes, 1, 1}}};
}

/// Luma for two pixels and the chroma that they share, in one plane.
constexpr FormatInfo packed_yuv422(std::uint32_t fourcc, std::string_view name) {
    return {fourcc, name, false, 1, {FormatPlane{4, 2, 1}}};
}

/// A plane of luma, \p bytes a sample, and one of both chromas, subsampled by \p x and \p y.
constexpr FormatInfo semi_planar(std::uint32_t fourcc, std::string_view name, std::uint32_t bytes,
                                 std::uint32_t x, std::uint32_t y) {
    return {fourcc, name, false, 2, {FormatPlane{bytes, 1, 1}, FormatPlane{2 * bytes, x, y}}};
}

/// A plane of luma and one for each chroma, subsampled by \p x and \p y.
constexpr FormatInfo planar(std::uint32_t fourcc, std::string_view name, std::uint32_t x,
                            std::uint32_t y) {
    return {
        fourcc, name, false, 3, {FormatPlane{1, 1, 1}, FormatPlane{1, x, y}, FormatPlane{1, x, y}}};
}

constexpr std::array table{
    packed(DRM_FORMAT_XRGB8888, "XR24", 4),
    packed(DRM_FORMAT_ARGB8888, "AR24", 4),
    packed(DRM_FORMAT_XBGR8888, "XB24", 4),
    packed(DRM_FORMAT_ABGR8888, "AB24", 4),
    packed(DRM_FORMAT_R8, "R8", 1),
    packed(DRM_FORMAT_RG88, "RG88", 2),
    packed(DRM_FORMAT_GR88, "GR88", 2),
    packed(DRM_FORMAT_RGB565, "RG16", 2),
    packed(DRM_FORMAT_BGR565, "BG16", 2),
    packed(DRM_FORMAT_XRGB2101010, "XR30", 4),
    packed(DRM_FORMAT_ARGB2101010, "AR30", 4),
    packed(DRM_FORMAT_XBGR2101010, "XB30", 4),
    packed(DRM_FORMAT_ABGR2101010, "AB30", 4),
    packed(DRM_FORMAT_XRGB16161616, "XR48", 8),
    packed(DRM_FORMAT_ARGB16161616, "AR48", 8),
    packed(DRM_FORMAT_XBGR16161616, "XB48", 8),
    packed(DRM_FORMAT_ABGR16161616, "AB48", 8),
    packed(DRM_FORMAT_XRGB16161616F, "XR4H", 8),
    packed(DRM_FORMAT_ARGB16161616F, "AR4H", 8),
    packed(DRM_FORMAT_XBGR16161616F, "XB4H", 8),
    packed(DRM_FORMAT_ABGR16161616F, "AB4H", 8),
    packed_yuv422(DRM_FORMAT_YUYV, "YUYV"),
    packed_yuv422(DRM_FORMAT_UYVY, "UYVY"),
    semi_planar(DRM_FORMAT_NV12, "NV12", 1, 2, 2),
    semi_planar(DRM_FORMAT_NV21, "NV21", 1, 2, 2),
    semi_planar(DRM_FORMAT_NV16, "NV16", 1, 2, 1),
    semi_planar(DRM_FORMAT_NV24, "NV24", 1, 1, 1),
    semi_planar(DRM_FORMAT_P010, "P010", 2, 2, 2),
    planar(DRM_FORMAT_YUV420, "YU12", 2, 2),
    planar(DRM_FORMAT_YUV422, "YU16", 2, 1),
    planar(DRM_FORMAT_YUV444, "YU24", 1, 1),
};

std::string hex(std::uint64_t value) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    do {
        text.insert(text.begin(), digits[value & 0xf]);
        value >>= 4;
    } while (value != 0);
    return "0x" + text;
}

} // namespace

std::span<const FormatInfo> formats() noexcept {
    return table;
}

const FormatInfo* find_format(std::uint32_t fourcc) noexcept {
    const auto* found = std::ranges::find(table, fourcc, &FormatInfo::fourcc);
    return found == table.end() ? nullptr : found;
}

std::string format_name(std::uint32_t fourcc) noexcept {
    std::string letters;
    for (unsigned shift = 0; shift < 32; shift += 8) {
        const auto letter = static_cast<unsigned char>(fourcc >> shift);
        letters += letter >= ' ' && letter < 0x7f ? static_cast<char>(letter) : '?';
    }
    letters.erase(letters.find_last_not_of(' ') + 1);
    return letters + " (" + hex(fourcc) + ")";
}

std::string modifier_name(std::uint64_t modifier) noexcept {
    if (modifier == DRM_FORMAT_MOD_LINEAR)
        return "LINEAR";
    if (modifier == DRM_FORMAT_MOD_INVALID)
        return "INVALID";
    return hex(modifier);
}

} // namespace sluice
