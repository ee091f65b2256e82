// SPDX-License-Identifier: MIT
#include "frame/spec_fit.hpp"

#include <algorithm>

#include "frame/multiples.hpp"
#include <sluice/format.hpp>

namespace sluice {

using std::to_string;

std::string misfit(const FrameLayout& layout, const FrameSpec& spec) {
    const std::uint32_t pixels = find_format(spec.format)->plane_count;
    for (std::uint32_t i = 0; i < layout.plane_count; ++i) {
        const FramePlane& plane = layout.planes[i];
        // Rows of what a modifier adds, for compression, are no rows of pixels.
        if (i < pixels && plane.stride % std::max(spec.stride_alignment, 1U) != 0)
            return "plane " + to_string(i) + "'s stride of " + to_string(plane.stride) +
                   " bytes is no multiple of " + to_string(spec.stride_alignment);
        if (plane.offset % std::max(spec.offset_alignment, 1U) != 0)
            return "plane " + to_string(i) + "'s offset of " + to_string(plane.offset) +
                   " bytes is no multiple of " + to_string(spec.offset_alignment);
    }
    return {};
}

bool pads(const FrameSpec& spec) noexcept {
    return spec.height_alignment > 1 || spec.slack != 0 || spec.size_alignment > 1;
}

std::uint64_t padded_size(const FrameLayout& layout, const FrameSpec& spec,
                          std::uint32_t buffer) noexcept {
    const FormatInfo& format = *find_format(layout.format);
    const auto padded = static_cast<std::uint32_t>(*round_up(layout.height, spec.height_alignment));
    std::uint64_t end = 0;
    for (std::uint32_t i = 0; i < format.plane_count; ++i) {
        const FramePlane& plane = layout.planes[i];
        const FormatPlane& block = format.planes[i];
        if (plane.buffer != buffer)
            continue;
        // Who looks at a plane by itself, as a GPU does where it lacks the format, pads its rows.
        const std::uint64_t rows = std::max(
            block.rows(padded), *round_up(block.rows(layout.height), spec.height_alignment));
        // Factors and sums of 32 bits: this stays below 2^64.
        end = std::max(end, plane.offset + plane.stride * rows + spec.slack);
    }
    return round_up(end, spec.size_alignment).value_or(UINT64_MAX);
}

} // namespace sluice
