// SPDX-License-Identifier: MIT
/// \file
/// LINEAR planes, one after the other in one buffer. Not installed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <tl/expected.hpp>

#include <sluice/format.hpp>
#include <sluice/frame.hpp>

namespace sluice {

/// How to lay a frame out. An alignment of 0 asks for nothing, and need not be a power of two.
struct LinearRequest {
    std::uint32_t width = 0;            ///< Pixels.
    std::uint32_t height = 0;           ///< Rows.
    std::uint32_t padded_height = 0;    ///< Rows to have memory for; at least `height`.
    std::uint32_t stride_alignment = 0; ///< Bytes.
    std::uint32_t offset_alignment = 0; ///< Bytes.
    /// Each row is also a whole number of its plane's blocks, as vkCmdCopyBufferToImage counts
    /// them.
    bool whole_blocks = false;
};

struct LinearLayout {
    FrameLayout layout;
    std::uint64_t size = 0; ///< Bytes that its buffer needs.
};

/// \returns the layout, or in numbers why \p request leads out of 32 bits.
[[nodiscard]] tl::expected<LinearLayout, std::string>
lay_out_linear(const FormatInfo& format, const LinearRequest& request) noexcept;

/// \returns two planes of a LINEAR frame that share a byte of one buffer, the first of them, or
///   nothing: also of other modifiers, where only drivers know how the planes lie.
[[nodiscard]] std::optional<std::pair<std::uint32_t, std::uint32_t>>
overlapping_planes(const FrameLayout& layout) noexcept;

} // namespace sluice
