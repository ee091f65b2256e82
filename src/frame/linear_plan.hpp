// SPDX-License-Identifier: MIT
/// \file
/// Where the planes of a LINEAR frame lie that is not there yet. Not installed.
#pragma once

#include <cstdint>

#include <sluice/error.hpp>
#include <sluice/frame.hpp>
#include <sluice/frame_spec.hpp>

namespace sluice {

/// A frame that is not there yet.
struct LinearPlan {
    FrameLayout layout;
    std::uint64_t size = 0; ///< Bytes that its buffer needs, padding and `min_size` counted.
};

/// Lays \p spec out LINEAR, plane after plane, each row padded to \p stride_alignment. Whether
/// LINEAR is among its modifiers is the caller's business.
/// \returns the plan, or `invalid_argument`: no pixels, or an alignment that leads out of 32 bits;
///   or `unsupported`: a format that sluice does not know. The caller says which operation on what.
[[nodiscard]] Result<LinearPlan> plan_linear(const FrameSpec& spec,
                                             std::uint32_t stride_alignment) noexcept;

} // namespace sluice
