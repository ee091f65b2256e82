// SPDX-License-Identifier: MIT
/// \file
/// Real dma-bufs of anonymous memory, for tests that need one and care for nothing else.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

#include <fcntl.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <sluice/udmabuf.hpp>

namespace sluice::test {

inline bool has_udmabuf() {
    return access("/dev/udmabuf", R_OK | W_OK) == 0;
}

/// The buffer, or the end of the test program.
inline DmaBuf must_have(Result<DmaBuf>&& buffer) {
    if (!buffer) {
        ADD_FAILURE() << buffer.error().message();
        std::abort();
    }
    return std::move(*buffer);
}

inline std::shared_ptr<const UdmabufExporter> udmabuf_exporter() {
    auto exporter = UdmabufExporter::open();
    if (!exporter) {
        ADD_FAILURE() << exporter.error().message();
        std::abort();
    }
    return std::move(*exporter);
}

/// A zeroed dma-buf of \p size bytes, rounded up to whole pages.
inline DmaBuf udmabuf(std::uint64_t size) {
    return must_have(udmabuf_exporter()->allocate({.size = size}));
}

/// The dma-buf of \p memory, a memfd of \p size bytes (whole pages), which stays the caller's.
inline DmaBuf udmabuf_of(const UniqueFd& memory, std::uint64_t size) {
    fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK);
    return must_have(udmabuf_exporter()->wrap_memfd(memory.get(), 0, size));
}

} // namespace sluice::test
