// SPDX-License-Identifier: MIT
/// \file
/// Real buffers and fences to measure with.
#pragma once

#include <cstdint>
#include <optional>

#include <sluice/dma_buf.hpp>
#include <sluice/sync_file.hpp>

namespace bench {

/// A buffer of \p size bytes from /dev/udmabuf; nothing where that is missing or refuses.
std::optional<sluice::DmaBuf> udmabuf(std::uint64_t size);

/// The same from /dev/dma_heap/system.
std::optional<sluice::DmaBuf> heap_buffer(std::uint64_t size);

/// A fence that stays pending until the program ends, each on a timeline of its own (sw_sync in
/// debugfs); nothing where that is missing.
std::optional<sluice::SyncFile> pending_fence();

} // namespace bench
