// SPDX-License-Identifier: MIT
/// \file
/// Pixel formats, by the kernel's own codes (drm/drm_fourcc.h, DRM_FORMAT_*).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <sluice/export.hpp>

namespace sluice {

/// What sluice knows about one DRM format.
struct FormatInfo {
    std::uint32_t fourcc;  ///< DRM_FORMAT_*
    std::string_view name; ///< The four letters: "XR24".
    std::uint32_t bytes_per_pixel;
    bool has_alpha; ///< False where the fourth channel is there but means nothing.
};

/// All formats that a frame can have, in the order of the table.
[[nodiscard]] SLUICE_API std::span<const FormatInfo> formats() noexcept;

/// The entry for \p fourcc, or null where sluice does not know it.
[[nodiscard]] SLUICE_API const FormatInfo* find_format(std::uint32_t fourcc) noexcept;

/// \p fourcc for people: "XR24 (0x34325258)"; bytes that are not letters are shown as '?'.
[[nodiscard]] SLUICE_API std::string format_name(std::uint32_t fourcc) noexcept;

/// \p modifier for people: "LINEAR", "INVALID", or its number.
[[nodiscard]] SLUICE_API std::string modifier_name(std::uint64_t modifier) noexcept;

} // namespace sluice
