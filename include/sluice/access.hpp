// SPDX-License-Identifier: MIT
/// \file
/// The way in which a buffer is used.
#pragma once

#include <cstdint>
#include <string_view>

#include <sluice/export.hpp>

namespace sluice {

/// What one use does to a buffer; the kernel's DMA_BUF_SYNC_READ, _WRITE and _RW (linux/dma-buf.h).
///
/// A reader waits for the writers before it. A writer waits for everyone.
enum class Access : std::uint8_t {
    read = 1,
    write = 2,
    read_write = 3,
};

/// "read", "write" or "read_write".
[[nodiscard]] SLUICE_API std::string_view to_string(Access access) noexcept;

/// True where \p access writes.
[[nodiscard]] constexpr bool writes(Access access) noexcept {
    return (static_cast<std::uint8_t>(access) & static_cast<std::uint8_t>(Access::write)) != 0;
}

} // namespace sluice
