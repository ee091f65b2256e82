// SPDX-License-Identifier: MIT
#include "frame/linear_layout.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include <drm_fourcc.h>

#include "frame/multiples.hpp"

namespace sluice {

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

} // namespace sluice
