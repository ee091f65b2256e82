// SPDX-License-Identifier: MIT
#include <sluice/format.hpp>

#include <algorithm>
#include <array>

#include <drm_fourcc.h>

namespace sluice {

namespace {

constexpr std::array table{
    FormatInfo{DRM_FORMAT_XRGB8888, "XR24", 4, false},
    FormatInfo{DRM_FORMAT_ARGB8888, "AR24", 4, true},
    FormatInfo{DRM_FORMAT_XBGR8888, "XB24", 4, false},
    FormatInfo{DRM_FORMAT_ABGR8888, "AB24", 4, true},
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
        letters += letter > ' ' && letter < 0x7f ? static_cast<char>(letter) : '?';
    }
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
