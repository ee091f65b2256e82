// SPDX-License-Identifier: MIT
/// \file
/// What the exporters share. Not installed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "frame/linear_plan.hpp"
#include <sluice/dma_buf.hpp>
#include <sluice/exporter.hpp>
#include <sluice/frame.hpp>

namespace sluice::alloc {

[[nodiscard]] std::uint64_t page_size() noexcept;

/// A small file's text (of /proc or /sys), or nothing.
[[nodiscard]] std::optional<std::string> read_text(const char* path) noexcept;

/// The size to ask for: \p request rounded up, or why that is refused.
[[nodiscard]] Result<std::uint64_t> checked_size(const ExporterCaps& caps, const char* operation,
                                                 const BufferRequest& request) noexcept;

/// An Error about one exporter and one request.
[[nodiscard]] Error refusal(Errc code, const char* operation, const ExporterCaps& caps,
                            std::string problem, std::string remedy);

/// "4096 bytes 'cam-0'".
[[nodiscard]] std::string describe(const BufferRequest& request);

/// "640x480 NV12 (0x3231564e)".
[[nodiscard]] std::string describe(const FrameSpec& spec);

/// Lays \p spec out LINEAR for an exporter that makes nothing else, each row padded to whole pixels
/// too.
/// \returns the plan, or `invalid_argument` or `unsupported` as `Exporter::allocate_frame`.
[[nodiscard]] Result<LinearPlan> plan_linear(const FrameSpec& spec, const ExporterCaps& caps,
                                             std::uint32_t stride_alignment) noexcept;

/// All formats that sluice knows, LINEAR.
[[nodiscard]] std::vector<FormatSupport> linear_formats();

} // namespace sluice::alloc
