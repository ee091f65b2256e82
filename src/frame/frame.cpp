// SPDX-License-Identifier: MIT
#include <sluice/frame.hpp>

#include <cstdint>
#include <optional>
#include <string>

#include <drm_fourcc.h>

#include "core/dma_buf_text.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

struct Refusal {
    Errc code;
    std::string problem;
    std::string remedy;
};

/// "plane 1's stride of 64 bytes".
std::string stride_of(const FramePlane& plane, std::uint32_t index) {
    return "plane " + to_string(index) + "'s stride of " + to_string(plane.stride) + " bytes";
}

/// Why plane \p index of \p layout cannot lie in \p size bytes, or nothing.
std::optional<Refusal> refuse_plane(const FrameLayout& layout, const FormatInfo& format,
                                    std::uint32_t index, std::uint64_t size) {
    const FramePlane& plane = layout.planes[index];
    if (index >= format.plane_count) {
        if (plane.offset == 0 && plane.stride == 0)
            return std::nullopt;
        return Refusal{Errc::invalid_argument,
                       "plane " + to_string(index) + " has offset " + to_string(plane.offset) +
                           " and stride " + to_string(plane.stride) + ", and " +
                           format_name(layout.format) + " has " + to_string(format.plane_count) +
                           (format.plane_count == 1 ? " plane" : " planes"),
                       "Leave the planes that the format does not have zero"};
    }
    // Factors of 32 bits: no 64-bit product below can wrap, and the sum of them stays below 2^64.
    const FormatPlane& block = format.planes[index];
    const std::uint64_t row = block.row_bytes(layout.width);
    if (plane.stride < row)
        return Refusal{Errc::invalid_argument,
                       stride_of(plane, index) + " is below its row of " +
                           to_string(row / block.block_bytes) +
                           (block.block_width == 1 ? " pixels x " : " blocks x ") +
                           to_string(block.block_bytes) + " bytes = " + to_string(row),
                       "Pass the stride in bytes, as the exporter tells it"};
    if (plane.stride > std::uint32_t{INT32_MAX})
        return Refusal{Errc::invalid_argument,
                       stride_of(plane, index) + " is above " + to_string(INT32_MAX),
                       "Pass the stride in bytes, as the exporter tells it"};
    const std::uint64_t end =
        plane.offset + std::uint64_t{plane.stride} * (block.rows(layout.height) - 1) + row;
    if (end > size)
        return Refusal{Errc::out_of_bounds,
                       "plane " + to_string(index) + " needs " + to_string(end) +
                           " bytes, the buffer holds " + to_string(size),
                       "Check offset, stride and height, or allocate a larger buffer"};
    return std::nullopt;
}

/// Why \p layout cannot lie in \p size bytes, or nothing.
std::optional<Refusal> refuse(const FrameLayout& layout, std::uint64_t size) {
    const FormatInfo* format = find_format(layout.format);
    if (format == nullptr) {
        std::string known;
        for (const FormatInfo& each : formats())
            known += (known.empty() ? "" : ", ") + std::string(each.name);
        return Refusal{Errc::unsupported, format_name(layout.format) + " is not a format it knows",
                       "Use one of " + known};
    }
    if (layout.modifier == DRM_FORMAT_MOD_INVALID)
        return Refusal{Errc::invalid_argument,
                       "modifier INVALID leaves the layout to the driver that made it",
                       "Name the modifier; LINEAR is 0"};
    if (layout.modifier != DRM_FORMAT_MOD_LINEAR)
        return Refusal{Errc::unsupported,
                       "modifier " + modifier_name(layout.modifier) + " is not LINEAR",
                       "Allocate the buffer LINEAR"};
    if (layout.width == 0 || layout.height == 0)
        return Refusal{Errc::invalid_argument,
                       "its size is " + to_string(layout.width) + "x" + to_string(layout.height),
                       "A frame has at least one pixel"};
    for (std::uint32_t i = 0; i < max_planes; ++i)
        if (auto refusal = refuse_plane(layout, *format, i, size))
            return refusal;
    return std::nullopt;
}

} // namespace

struct Frame::State {
    FrameLayout layout;
    DmaBuf buffer;
};

Frame::Frame(std::shared_ptr<const State> state) noexcept : state_(std::move(state)) {}

Result<Frame> Frame::create(const FrameLayout& layout, DmaBuf&& buffer) noexcept {
    if (auto refusal = refuse(layout, buffer.size()))
        return tl::unexpected(Error{.code = refusal->code,
                                    .operation = "Frame::create",
                                    .object = describe(layout) + " in " + describe(buffer),
                                    .problem = std::move(refusal->problem),
                                    .remedy = std::move(refusal->remedy)});
    return Frame(std::make_shared<const State>(State{layout, std::move(buffer)}));
}

const FrameLayout& Frame::layout() const noexcept {
    return state_->layout;
}

const DmaBuf& Frame::buffer() const noexcept {
    return state_->buffer;
}

std::string describe(const FrameLayout& layout) noexcept {
    const FormatInfo* format = find_format(layout.format);
    std::string text = to_string(layout.width) + "x" + to_string(layout.height) + " " +
                       (format ? std::string(format->name) : format_name(layout.format)) + " " +
                       modifier_name(layout.modifier);
    for (std::uint32_t i = 0; i < (format ? format->plane_count : 1); ++i)
        text += (i == 0 ? ", stride " : "; stride ") + to_string(layout.planes[i].stride) +
                ", offset " + to_string(layout.planes[i].offset);
    return text;
}

} // namespace sluice
