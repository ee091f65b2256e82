// SPDX-License-Identifier: MIT
#include "frame/linear_layout.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include <drm_fourcc.h>

#include "frame/multiples.hpp"

namespace sluice {

namespace {

/// Whether two planes of one LINEAR image in one buffer share a byte. Rows of one may lie between
/// those of the other, as where both chromas share a pitch. Strides of which neither is a multiple
/// of the other count as sharing one sooner than they do.
bool overlap(const FrameLayout& layout, const FormatInfo& format, std::uint32_t one,
             std::uint32_t other) {
    const FramePlane& a = layout.planes[one];
    const FramePlane& b = layout.planes[other];
    if (a.buffer != b.buffer || a.stride == 0 || b.stride == 0) // no stride is refused elsewhere
        return false;
    const std::uint64_t row_a = format.planes[one].row_bytes(layout.width);
    const std::uint64_t row_b = format.planes[other].row_bytes(layout.width);
    const auto end = [&](const FramePlane& plane, std::uint32_t index, std::uint64_t row) {
        return plane.offset +
               std::uint64_t{plane.stride} * (format.planes[index].rows(layout.height) - 1) + row;
    };
    if (end(a, one, row_a) <= b.offset || end(b, other, row_b) <= a.offset)
        return false;
    // Both as they lie within one period of the rows.
    const std::uint64_t period = std::gcd(a.stride, b.stride);
    const std::uint64_t from_a_to_b = (b.offset % period + period - a.offset % period) % period;
    return from_a_to_b < row_a || period - from_a_to_b < row_b;
}

} // namespace

tl::expected<LinearLayout, std::string> lay_out_linear(const FormatInfo& format,
                                                       const LinearRequest& request) noexcept {
    using std::to_string;
    LinearLayout made{.layout = {.width = request.width,
                                 .height = request.height,
                                 .format = format.fourcc,
                                 .modifier = DRM_FORMAT_MOD_LINEAR}};
    std::uint64_t end = 0;
    for (std::uint32_t i = 0; i < format.plane_count; ++i) {
        const FormatPlane& block = format.planes[i];
        // No sum or product here reaches 2^64: widths and alignments have 32 bits, a stride 31,
        // rows and offsets 32.
        std::uint64_t alignment = std::max(request.stride_alignment, 1U);
        // A stride is whole pixels too, but for those of 3 or 5 bytes, whose rows end on words.
        if (request.whole_blocks || std::has_single_bit(block.block_bytes))
            alignment = std::lcm(alignment, std::uint64_t{block.block_bytes});
        const std::uint64_t offset = *round_up(end, request.offset_alignment);
        const std::uint64_t stride = *round_up(block.row_bytes(request.width), alignment);
        if (stride > INT32_MAX || offset > UINT32_MAX)
            return tl::unexpected("plane " + to_string(i) + " would lie at offset " +
                                  to_string(offset) + " with a stride of " + to_string(stride) +
                                  " bytes, and the limits are " + to_string(UINT32_MAX) + " and " +
                                  to_string(INT32_MAX));
        made.layout.planes[i] = {.offset = static_cast<std::uint32_t>(offset),
                                 .stride = static_cast<std::uint32_t>(stride)};
        end = offset + stride * block.rows(request.padded_height);
    }
    made.size = end;
    return made;
}

std::optional<std::pair<std::uint32_t, std::uint32_t>>
overlapping_planes(const FrameLayout& layout) noexcept {
    const FormatInfo* format = find_format(layout.format);
    if (layout.modifier != DRM_FORMAT_MOD_LINEAR || format == nullptr)
        return std::nullopt;
    for (std::uint32_t i = 0; i < format->plane_count; ++i)
        for (std::uint32_t before = 0; before < i; ++before)
            if (overlap(layout, *format, before, i))
                return std::pair{before, i};
    return std::nullopt;
}

} // namespace sluice
