// SPDX-License-Identifier: MIT
/// \file
/// What /proc/PID/fdinfo says of a dma-buf. Not installed.
#pragma once

#include <optional>
#include <string_view>

#include <sluice/dma_buf.hpp>

namespace sluice {

/// Reads \p text as the kernel's dma_buf_show_fdinfo() writes it. The name comes last, and whoever
/// holds the buffer may have put anything into it, line breaks included.
/// \returns nothing where it is no dma-buf's.
[[nodiscard]] std::optional<DmaBufInfo> parse_fdinfo(std::string_view text);

} // namespace sluice
