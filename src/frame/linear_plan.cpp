// SPDX-License-Identifier: MIT
#include "frame/linear_plan.hpp"

#include <algorithm>
#include <string>

#include <sluice/format.hpp>

#include "frame/linear_layout.hpp"
#include "frame/multiples.hpp"
#include "frame/spec_fit.hpp"

namespace sluice {

using std::to_string;

Result<LinearPlan> plan_linear(const FrameSpec& spec, std::uint32_t stride_alignment) noexcept {
    const auto refuse = [](Errc code, std::string problem, std::string remedy) {
        return tl::unexpected(Error{.code = code,
                                    .operation = {},
                                    .object = {},
                                    .problem = std::move(problem),
                                    .remedy = std::move(remedy)});
    };
    const FormatInfo* format = find_format(spec.format);
    if (format == nullptr)
        return refuse(Errc::unsupported, "not a format that sluice knows", "Use one of formats()");
    if (spec.width == 0 || spec.height == 0)
        return refuse(Errc::invalid_argument, "no pixels", "A frame has at least one pixel");
    const std::uint64_t padded_height = *round_up(spec.height, spec.height_alignment);
    if (padded_height > UINT32_MAX)
        return refuse(Errc::invalid_argument,
                      "a height alignment of " + to_string(spec.height_alignment) +
                          " makes the height " + to_string(padded_height) + " rows, above " +
                          to_string(UINT32_MAX),
                      "Ask for a smaller height alignment");

    auto made = lay_out_linear(*format, {.width = spec.width,
                                         .height = spec.height,
                                         .padded_height = static_cast<std::uint32_t>(padded_height),
                                         .stride_alignment = stride_alignment,
                                         .offset_alignment = spec.offset_alignment});
    if (!made)
        return refuse(Errc::invalid_argument, made.error(),
                      "Ask for a smaller image or smaller alignments");
    return LinearPlan{.layout = made->layout,
                      .size = std::max(padded_size(made->layout, spec), spec.min_size)};
}

} // namespace sluice
