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
    // 32-bit factors: no 64-bit product below can wrap, and the sum of two stays below 2^64 too.
    const std::uint64_t row = std::uint64_t{layout.width} * format->bytes_per_pixel;
    const FramePlane& plane = layout.plane;
    if (plane.stride < row)
        return Refusal{Errc::invalid_argument,
                       "plane 0's stride of " + to_string(plane.stride) +
                           " bytes is below its row of " + to_string(layout.width) + " pixels x " +
                           to_string(format->bytes_per_pixel) + " bytes = " + to_string(row),
                       "Pass the stride in bytes, as the exporter tells it"};
    if (plane.stride > std::uint32_t{INT32_MAX})
        return Refusal{Errc::invalid_argument,
                       "plane 0's stride of " + to_string(plane.stride) + " bytes is above " +
                           to_string(INT32_MAX),
                       "Pass the stride in bytes, as the exporter tells it"};
    const std::uint64_t end =
        plane.offset + std::uint64_t{plane.stride} * (layout.height - 1) + row;
    if (end > size)
        return Refusal{Errc::out_of_bounds,
                       "plane 0 needs " + to_string(end) + " bytes, the buffer holds " +
                           to_string(size),
                       "Check offset, stride and height, or allocate a larger buffer"};
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
    return to_string(layout.width) + "x" + to_string(layout.height) + " " +
           (format ? std::string(format->name) : format_name(layout.format)) + " " +
           modifier_name(layout.modifier) + ", stride " + to_string(layout.plane.stride) +
           ", offset " + to_string(layout.plane.offset);
}

} // namespace sluice
