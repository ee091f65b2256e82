// SPDX-License-Identifier: MIT
#include <sluice/format.hpp>

#include <algorithm>
#include <array>
#include <numeric>

#include <drm_fourcc.h>

// Younger than the oldest libdrm that sluice is built with.
#ifndef DRM_FORMAT_AVUY8888
#define DRM_FORMAT_AVUY8888 fourcc_code('A', 'V', 'U', 'Y')
#endif
#ifndef DRM_FORMAT_XVUY8888
#define DRM_FORMAT_XVUY8888 fourcc_code('X', 'V', 'U', 'Y')
#endif
#ifndef DRM_FORMAT_NV20
#define DRM_FORMAT_NV20 fourcc_code('N', 'V', '2', '0')
#endif
#ifndef DRM_FORMAT_NV30
#define DRM_FORMAT_NV30 fourcc_code('N', 'V', '3', '0')
#endif

namespace sluice {

namespace {

using Bits = std::array<std::uint8_t, 4>;

/// One plane of whole pixels.
constexpr FormatInfo rgb(std::uint32_t fourcc, std::string_view name, std::uint32_t bytes,
                         Bits bits, std::uint32_t alpha_twin = 0) {
    return {.fourcc = fourcc,
            .name = name,
            .has_alpha = bits[3] != 0,
            .is_yuv = false,
            .is_float = false,
            .bits = bits,
            .alpha_twin = alpha_twin,
            .plane_count = 1,
            .planes = {FormatPlane{bytes, 1, 1}}};
}

/// One plane of whole pixels, their channels half-precision floats.
constexpr FormatInfo rgb_float(std::uint32_t fourcc, std::string_view name, Bits bits,
                               std::uint32_t alpha_twin) {
    FormatInfo info = rgb(fourcc, name, 8, bits, alpha_twin);
    info.is_float = true;
    return info;
}

/// One plane of whole pixels, none of which shares its chroma.
constexpr FormatInfo yuv444(std::uint32_t fourcc, std::string_view name, std::uint32_t bytes,
                            Bits bits, std::uint32_t alpha_twin = 0) {
    FormatInfo info = rgb(fourcc, name, bytes, bits, alpha_twin);
    info.is_yuv = true;
    return info;
}

/// Luma for two pixels and the chroma that they share, in one plane.
constexpr FormatInfo yuv422(std::uint32_t fourcc, std::string_view name, std::uint32_t bytes,
                            std::uint8_t bits) {
    FormatInfo info = yuv444(fourcc, name, bytes, {bits, bits, bits, 0});
    info.planes[0].block_width = 2;
    return info;
}

/// A plane of luma, \p bytes a sample, and one of both chromas, subsampled by \p x and \p y.
constexpr FormatInfo semi_planar(std::uint32_t fourcc, std::string_view name, std::uint32_t bytes,
                                 std::uint8_t bits, std::uint32_t x, std::uint32_t y) {
    FormatInfo info = yuv444(fourcc, name, bytes, {bits, bits, bits, 0});
    info.plane_count = 2;
    info.planes[1] = {2 * bytes, x, y};
    return info;
}

/// The same with samples of 10 bits that lie close together, several in a block.
constexpr FormatInfo semi_planar_10(std::uint32_t fourcc, std::string_view name, FormatPlane luma,
                                    FormatPlane chroma) {
    FormatInfo info = yuv444(fourcc, name, 0, {10, 10, 10, 0});
    info.plane_count = 2;
    info.planes = {luma, chroma};
    return info;
}

/// A plane of luma, \p bytes a sample, and one for each chroma, subsampled by \p x and \p y.
constexpr FormatInfo planar(std::uint32_t fourcc, std::string_view name, std::uint32_t bytes,
                            std::uint8_t bits, std::uint32_t x, std::uint32_t y) {
    FormatInfo info = yuv444(fourcc, name, bytes, {bits, bits, bits, 0});
    info.plane_count = 3;
    info.planes[1] = {bytes, x, y};
    info.planes[2] = {bytes, x, y};
    return info;
}

// tests/unit/format_test.cpp holds each entry against the words of drm_fourcc.h.
constexpr std::array table{
    rgb(DRM_FORMAT_XRGB8888, "XR24", 4, {8, 8, 8, 0}, DRM_FORMAT_ARGB8888),
    rgb(DRM_FORMAT_ARGB8888, "AR24", 4, {8, 8, 8, 8}, DRM_FORMAT_XRGB8888),
    rgb(DRM_FORMAT_XBGR8888, "XB24", 4, {8, 8, 8, 0}, DRM_FORMAT_ABGR8888),
    rgb(DRM_FORMAT_ABGR8888, "AB24", 4, {8, 8, 8, 8}, DRM_FORMAT_XBGR8888),
    rgb(DRM_FORMAT_RGBX8888, "RX24", 4, {8, 8, 8, 0}, DRM_FORMAT_RGBA8888),
    rgb(DRM_FORMAT_RGBA8888, "RA24", 4, {8, 8, 8, 8}, DRM_FORMAT_RGBX8888),
    rgb(DRM_FORMAT_BGRX8888, "BX24", 4, {8, 8, 8, 0}, DRM_FORMAT_BGRA8888),
    rgb(DRM_FORMAT_BGRA8888, "BA24", 4, {8, 8, 8, 8}, DRM_FORMAT_BGRX8888),
    rgb(DRM_FORMAT_RGB888, "RG24", 3, {8, 8, 8, 0}),
    rgb(DRM_FORMAT_BGR888, "BG24", 3, {8, 8, 8, 0}),
    rgb(DRM_FORMAT_RGB332, "RGB8", 1, {3, 3, 2, 0}),
    rgb(DRM_FORMAT_BGR233, "BGR8", 1, {3, 3, 2, 0}),
    rgb(DRM_FORMAT_RGB565, "RG16", 2, {5, 6, 5, 0}),
    rgb(DRM_FORMAT_BGR565, "BG16", 2, {5, 6, 5, 0}),
    rgb(DRM_FORMAT_XRGB4444, "XR12", 2, {4, 4, 4, 0}, DRM_FORMAT_ARGB4444),
    rgb(DRM_FORMAT_ARGB4444, "AR12", 2, {4, 4, 4, 4}, DRM_FORMAT_XRGB4444),
    rgb(DRM_FORMAT_XBGR4444, "XB12", 2, {4, 4, 4, 0}, DRM_FORMAT_ABGR4444),
    rgb(DRM_FORMAT_ABGR4444, "AB12", 2, {4, 4, 4, 4}, DRM_FORMAT_XBGR4444),
    rgb(DRM_FORMAT_RGBX4444, "RX12", 2, {4, 4, 4, 0}, DRM_FORMAT_RGBA4444),
    rgb(DRM_FORMAT_RGBA4444, "RA12", 2, {4, 4, 4, 4}, DRM_FORMAT_RGBX4444),
    rgb(DRM_FORMAT_BGRX4444, "BX12", 2, {4, 4, 4, 0}, DRM_FORMAT_BGRA4444),
    rgb(DRM_FORMAT_BGRA4444, "BA12", 2, {4, 4, 4, 4}, DRM_FORMAT_BGRX4444),
    rgb(DRM_FORMAT_XRGB1555, "XR15", 2, {5, 5, 5, 0}, DRM_FORMAT_ARGB1555),
    rgb(DRM_FORMAT_ARGB1555, "AR15", 2, {5, 5, 5, 1}, DRM_FORMAT_XRGB1555),
    rgb(DRM_FORMAT_XBGR1555, "XB15", 2, {5, 5, 5, 0}, DRM_FORMAT_ABGR1555),
    rgb(DRM_FORMAT_ABGR1555, "AB15", 2, {5, 5, 5, 1}, DRM_FORMAT_XBGR1555),
    rgb(DRM_FORMAT_RGBX5551, "RX15", 2, {5, 5, 5, 0}, DRM_FORMAT_RGBA5551),
    rgb(DRM_FORMAT_RGBA5551, "RA15", 2, {5, 5, 5, 1}, DRM_FORMAT_RGBX5551),
    rgb(DRM_FORMAT_BGRX5551, "BX15", 2, {5, 5, 5, 0}, DRM_FORMAT_BGRA5551),
    rgb(DRM_FORMAT_BGRA5551, "BA15", 2, {5, 5, 5, 1}, DRM_FORMAT_BGRX5551),
    rgb(DRM_FORMAT_XRGB2101010, "XR30", 4, {10, 10, 10, 0}, DRM_FORMAT_ARGB2101010),
    rgb(DRM_FORMAT_ARGB2101010, "AR30", 4, {10, 10, 10, 2}, DRM_FORMAT_XRGB2101010),
    rgb(DRM_FORMAT_XBGR2101010, "XB30", 4, {10, 10, 10, 0}, DRM_FORMAT_ABGR2101010),
    rgb(DRM_FORMAT_ABGR2101010, "AB30", 4, {10, 10, 10, 2}, DRM_FORMAT_XBGR2101010),
    rgb(DRM_FORMAT_RGBX1010102, "RX30", 4, {10, 10, 10, 0}, DRM_FORMAT_RGBA1010102),
    rgb(DRM_FORMAT_RGBA1010102, "RA30", 4, {10, 10, 10, 2}, DRM_FORMAT_RGBX1010102),
    rgb(DRM_FORMAT_BGRX1010102, "BX30", 4, {10, 10, 10, 0}, DRM_FORMAT_BGRA1010102),
    rgb(DRM_FORMAT_BGRA1010102, "BA30", 4, {10, 10, 10, 2}, DRM_FORMAT_BGRX1010102),
    rgb(DRM_FORMAT_XRGB16161616, "XR48", 8, {16, 16, 16, 0}, DRM_FORMAT_ARGB16161616),
    rgb(DRM_FORMAT_ARGB16161616, "AR48", 8, {16, 16, 16, 16}, DRM_FORMAT_XRGB16161616),
    rgb(DRM_FORMAT_XBGR16161616, "XB48", 8, {16, 16, 16, 0}, DRM_FORMAT_ABGR16161616),
    rgb(DRM_FORMAT_ABGR16161616, "AB48", 8, {16, 16, 16, 16}, DRM_FORMAT_XBGR16161616),
    rgb_float(DRM_FORMAT_XRGB16161616F, "XR4H", {16, 16, 16, 0}, DRM_FORMAT_ARGB16161616F),
    rgb_float(DRM_FORMAT_ARGB16161616F, "AR4H", {16, 16, 16, 16}, DRM_FORMAT_XRGB16161616F),
    rgb_float(DRM_FORMAT_XBGR16161616F, "XB4H", {16, 16, 16, 0}, DRM_FORMAT_ABGR16161616F),
    rgb_float(DRM_FORMAT_ABGR16161616F, "AB4H", {16, 16, 16, 16}, DRM_FORMAT_XBGR16161616F),
    rgb(DRM_FORMAT_AXBXGXRX106106106106, "AB10", 8, {10, 10, 10, 10}),
    rgb(DRM_FORMAT_R8, "R8", 1, {8, 0, 0, 0}),
    rgb(DRM_FORMAT_R10, "R10", 2, {10, 0, 0, 0}),
    rgb(DRM_FORMAT_R12, "R12", 2, {12, 0, 0, 0}),
    rgb(DRM_FORMAT_R16, "R16", 2, {16, 0, 0, 0}),
    rgb(DRM_FORMAT_RG88, "RG88", 2, {8, 8, 0, 0}),
    rgb(DRM_FORMAT_GR88, "GR88", 2, {8, 8, 0, 0}),
    rgb(DRM_FORMAT_RG1616, "RG32", 4, {16, 16, 0, 0}),
    rgb(DRM_FORMAT_GR1616, "GR32", 4, {16, 16, 0, 0}),
    yuv422(DRM_FORMAT_YUYV, "YUYV", 4, 8),
    yuv422(DRM_FORMAT_YVYU, "YVYU", 4, 8),
    yuv422(DRM_FORMAT_UYVY, "UYVY", 4, 8),
    yuv422(DRM_FORMAT_VYUY, "VYUY", 4, 8),
    yuv422(DRM_FORMAT_Y210, "Y210", 8, 10),
    yuv422(DRM_FORMAT_Y212, "Y212", 8, 12),
    yuv422(DRM_FORMAT_Y216, "Y216", 8, 16),
    yuv444(DRM_FORMAT_XYUV8888, "XYUV", 4, {8, 8, 8, 0}, DRM_FORMAT_AYUV),
    yuv444(DRM_FORMAT_AYUV, "AYUV", 4, {8, 8, 8, 8}, DRM_FORMAT_XYUV8888),
    yuv444(DRM_FORMAT_XVUY8888, "XVUY", 4, {8, 8, 8, 0}, DRM_FORMAT_AVUY8888),
    yuv444(DRM_FORMAT_AVUY8888, "AVUY", 4, {8, 8, 8, 8}, DRM_FORMAT_XVUY8888),
    yuv444(DRM_FORMAT_VUY888, "VU24", 3, {8, 8, 8, 0}),
    yuv444(DRM_FORMAT_XVYU2101010, "XV30", 4, {10, 10, 10, 0}, DRM_FORMAT_Y410),
    yuv444(DRM_FORMAT_Y410, "Y410", 4, {10, 10, 10, 2}, DRM_FORMAT_XVYU2101010),
    yuv444(DRM_FORMAT_XVYU12_16161616, "XV36", 8, {12, 12, 12, 0}, DRM_FORMAT_Y412),
    yuv444(DRM_FORMAT_Y412, "Y412", 8, {12, 12, 12, 12}, DRM_FORMAT_XVYU12_16161616),
    yuv444(DRM_FORMAT_XVYU16161616, "XV48", 8, {16, 16, 16, 0}, DRM_FORMAT_Y416),
    yuv444(DRM_FORMAT_Y416, "Y416", 8, {16, 16, 16, 16}, DRM_FORMAT_XVYU16161616),
    semi_planar(DRM_FORMAT_NV12, "NV12", 1, 8, 2, 2),
    semi_planar(DRM_FORMAT_NV21, "NV21", 1, 8, 2, 2),
    semi_planar(DRM_FORMAT_NV16, "NV16", 1, 8, 2, 1),
    semi_planar(DRM_FORMAT_NV61, "NV61", 1, 8, 2, 1),
    semi_planar(DRM_FORMAT_NV24, "NV24", 1, 8, 1, 1),
    semi_planar(DRM_FORMAT_NV42, "NV42", 1, 8, 1, 1),
    semi_planar(DRM_FORMAT_P010, "P010", 2, 10, 2, 2),
    semi_planar(DRM_FORMAT_P012, "P012", 2, 12, 2, 2),
    semi_planar(DRM_FORMAT_P016, "P016", 2, 16, 2, 2),
    semi_planar(DRM_FORMAT_P210, "P210", 2, 10, 2, 1),
    semi_planar_10(DRM_FORMAT_NV15, "NV15", {5, 4, 1}, {5, 4, 2}),
    semi_planar_10(DRM_FORMAT_NV20, "NV20", {5, 4, 1}, {5, 4, 1}),
    semi_planar_10(DRM_FORMAT_NV30, "NV30", {5, 4, 1}, {5, 2, 1}),
    semi_planar_10(DRM_FORMAT_P030, "P030", {4, 3, 1}, {8, 6, 2}),
    planar(DRM_FORMAT_YUV410, "YUV9", 1, 8, 4, 4),
    planar(DRM_FORMAT_YVU410, "YVU9", 1, 8, 4, 4),
    planar(DRM_FORMAT_YUV411, "YU11", 1, 8, 4, 1),
    planar(DRM_FORMAT_YVU411, "YV11", 1, 8, 4, 1),
    planar(DRM_FORMAT_YUV420, "YU12", 1, 8, 2, 2),
    planar(DRM_FORMAT_YVU420, "YV12", 1, 8, 2, 2),
    planar(DRM_FORMAT_YUV422, "YU16", 1, 8, 2, 1),
    planar(DRM_FORMAT_YVU422, "YV16", 1, 8, 2, 1),
    planar(DRM_FORMAT_YUV444, "YU24", 1, 8, 1, 1),
    planar(DRM_FORMAT_YVU444, "YV24", 1, 8, 1, 1),
    planar(DRM_FORMAT_Q410, "Q410", 2, 10, 1, 1),
    planar(DRM_FORMAT_Q401, "Q401", 2, 10, 1, 1),
};

constexpr std::uint32_t code(std::uint8_t index) {
    return table[index].fourcc;
}

/// The table's indices, smallest code first, so that the table itself keeps an order to read.
constexpr auto by_fourcc = [] {
    std::array<std::uint8_t, table.size()> order{};
    std::iota(order.begin(), order.end(), std::uint8_t{0});
    std::ranges::sort(order, {}, code);
    return order;
}();
static_assert(table.size() <= UINT8_MAX);
static_assert(std::ranges::adjacent_find(by_fourcc, {}, code) == by_fourcc.end(),
              "a format is there twice");

std::string_view vendor_name(std::uint64_t modifier) {
    switch (fourcc_mod_get_vendor(modifier)) {
    case DRM_FORMAT_MOD_VENDOR_INTEL:
        return "INTEL ";
    case DRM_FORMAT_MOD_VENDOR_AMD:
        return "AMD ";
    case DRM_FORMAT_MOD_VENDOR_NVIDIA:
        return "NVIDIA ";
    case DRM_FORMAT_MOD_VENDOR_SAMSUNG:
        return "SAMSUNG ";
    case DRM_FORMAT_MOD_VENDOR_QCOM:
        return "QCOM ";
    case DRM_FORMAT_MOD_VENDOR_VIVANTE:
        return "VIVANTE ";
    case DRM_FORMAT_MOD_VENDOR_BROADCOM:
        return "BROADCOM ";
    case DRM_FORMAT_MOD_VENDOR_ARM:
        return "ARM ";
    case DRM_FORMAT_MOD_VENDOR_ALLWINNER:
        return "ALLWINNER ";
    case DRM_FORMAT_MOD_VENDOR_AMLOGIC:
        return "AMLOGIC ";
    default:
        return "";
    }
}

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
    const auto* found = std::ranges::lower_bound(by_fourcc, fourcc, {}, code);
    return found == by_fourcc.end() || code(*found) != fourcc ? nullptr : &table[*found];
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
    return std::string(vendor_name(modifier)) + hex(modifier);
}

} // namespace sluice
