// SPDX-License-Identifier: MIT
/// \file
/// Real dma-bufs of anonymous memory, for tests that need one and care for nothing else.
#pragma once

#include <cstdint>
#include <cstdlib>

#include <unistd.h>

#include <gtest/gtest.h>

#include <sluice/udmabuf.hpp>

namespace sluice::test {

inline bool has_udmabuf() {
    return access("/dev/udmabuf", R_OK | W_OK) == 0;
}

/// A zeroed dma-buf of \p size bytes, rounded up to whole pages.
inline DmaBuf udmabuf(std::uint64_t size) {
    auto exporter = UdmabufExporter::open();
    auto buffer = exporter ? (*exporter)->allocate({.size = size})
                           : tl::unexpected(std::move(exporter.error()));
    if (!buffer) {
        ADD_FAILURE() << buffer.error().message();
        std::abort();
    }
    return std::move(*buffer);
}

} // namespace sluice::test
