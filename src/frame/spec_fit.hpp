// SPDX-License-Identifier: MIT
/// \file
/// Whether a layout is as it was asked for. Not installed.
#pragma once

#include <cstdint>
#include <string>

#include <sluice/frame.hpp>
#include <sluice/frame_spec.hpp>

namespace sluice {

/// What of a driver's \p layout is not as \p spec asks, in words, or an empty text.
[[nodiscard]] std::string misfit(const FrameLayout& layout, const FrameSpec& spec);

/// Whether \p spec asks for memory behind a LINEAR image.
[[nodiscard]] bool pads(const FrameSpec& spec) noexcept;

/// The bytes that buffer \p buffer of a LINEAR \p layout must have for all the rows and bytes that
/// \p spec asks for behind the image, these rows whole; UINT64_MAX where that leads out of 64 bits.
/// The layout's format is one that sluice knows, and the padded height has 32 bits.
[[nodiscard]] std::uint64_t padded_size(const FrameLayout& layout, const FrameSpec& spec,
                                        std::uint32_t buffer = 0) noexcept;

} // namespace sluice
