// SPDX-License-Identifier: MIT
/// \file
/// Memfds that pass for dma-bufs, for kernels that have none: lavapipe imports them.
#pragma once

#include <cstdint>
#include <optional>

#include <sluice/dma_buf.hpp>

namespace bench {

/// From here on this program's memfds pass the library's question what they are. Fences they have
/// none.
void let_memfds_pass() noexcept;

/// A memfd of \p size bytes; nothing where that is refused.
std::optional<sluice::DmaBuf> memfd(std::uint64_t size);

} // namespace bench
