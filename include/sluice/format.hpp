// SPDX-License-Identifier: MIT
/// \file
/// Pixel formats, by the kernel's own codes (drm/drm_fourcc.h, DRM_FORMAT_*).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <sluice/export.hpp>

namespace sluice {

/// The most planes a format can have, as DRM_IOCTL_MODE_ADDFB2 knows it.
inline constexpr std::uint32_t max_planes = 4;

/// What one plane of a format stores: blocks of bytes, each for a rectangle of the image's pixels.
///
/// One pixel of XR24 is a block of 4 bytes for 1x1 pixels; the chroma of NV12, subsampled by 2x2, a
/// block of 2 bytes for 2x2; YUYV one of 4 bytes for 2x1.
struct FormatPlane {
    std::uint32_t block_bytes = 0;
    std::uint32_t block_width = 1;  ///< Pixels of the image that a block spans.
    std::uint32_t block_height = 1; ///< Rows of the image that a block spans.

    /// Bytes in one row of an image of \p width pixels. A block that the edge cuts counts whole.
    [[nodiscard]] constexpr std::uint64_t row_bytes(std::uint32_t width) const noexcept {
        return (std::uint64_t{width} + block_width - 1) / block_width * block_bytes;
    }

    /// Rows of blocks in an image of \p height rows. Again the cut ones count.
    [[nodiscard]] constexpr std::uint64_t rows(std::uint64_t height) const noexcept {
        return (height + block_height - 1) / block_height;
    }
};

/// What sluice knows about one DRM format.
struct FormatInfo {
    std::uint32_t fourcc;  ///< DRM_FORMAT_*
    std::string_view name; ///< The code's letters: "XR24", "R8".
    bool has_alpha;        ///< False where the fourth channel is there but means nothing.
    bool is_yuv;           ///< The channels are Y, Cb and Cr; otherwise red, green and blue.
    bool is_float;         ///< The channels are IEEE 754 numbers of their width; otherwise 0 to 1.
    /// How many bits tell red, green, blue and alpha, or Y, Cb, Cr and alpha; padding is not
    /// counted. 0 for a channel that is not there.
    std::array<std::uint8_t, 4> bits;
    /// The format whose bytes lie the same and whose alpha means nothing where this one's does, or
    /// the other way round (XR24 for AR24, AR24 for XR24); 0 where the kernel has none.
    std::uint32_t alpha_twin;
    std::uint32_t plane_count;                  ///< 1 to `max_planes`.
    std::array<FormatPlane, max_planes> planes; ///< The first `plane_count` of them.
};

/// All formats that a frame can have, in the order of the table: those of drm_fourcc.h with a
/// linear layout of their own, but for palettes and "darkness", pixels below a byte, RGB with its
/// alpha in a second plane, and the 2x2 tiles of Y0L0 and its kin.
[[nodiscard]] SLUICE_API std::span<const FormatInfo> formats() noexcept;

/// The entry for \p fourcc, or null where sluice does not know it. A binary search that allocates
/// nothing: fit for each frame.
[[nodiscard]] SLUICE_API const FormatInfo* find_format(std::uint32_t fourcc) noexcept;

/// \p fourcc for people: "XR24 (0x34325258)"; bytes that are not letters are shown as '?', and the
/// spaces that pad a short name are left out.
[[nodiscard]] SLUICE_API std::string format_name(std::uint32_t fourcc) noexcept;

/// \p modifier for people: "LINEAR", "INVALID", or its number with the vendor whose it is:
/// "INTEL 0x100000000000001".
[[nodiscard]] SLUICE_API std::string modifier_name(std::uint64_t modifier) noexcept;

} // namespace sluice
