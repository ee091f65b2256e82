// SPDX-License-Identifier: MIT
/// \file
/// Real dma-bufs made by hand of anonymous memory (linux/udmabuf.h).
#pragma once

#include <cstdint>
#include <optional>

#include <fcntl.h>
#include <linux/udmabuf.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include <sluice/dma_buf.hpp>

#include "support/memfd.hpp"

namespace sluice::test {

inline bool has_udmabuf() {
    return access("/dev/udmabuf", R_OK | W_OK) == 0;
}

/// The dma-buf of \p memory, a memfd of \p size bytes (whole pages), which stays the caller's.
inline DmaBuf udmabuf_of(const UniqueFd& memory, std::uint64_t size) {
    const UniqueFd device(open("/dev/udmabuf", O_RDWR | O_CLOEXEC));
    fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK);
    udmabuf_create create{.memfd = static_cast<__u32>(memory.get()),
                          .flags = UDMABUF_FLAGS_CLOEXEC,
                          .offset = 0,
                          .size = size};
    auto buffer = DmaBuf::from_fd(UniqueFd(ioctl(device.get(), UDMABUF_CREATE, &create)));
    if (!buffer) {
        ADD_FAILURE() << buffer.error().message();
        std::abort();
    }
    return std::move(*buffer);
}

/// A zeroed dma-buf of \p size bytes, rounded up to whole pages.
inline DmaBuf udmabuf(std::uint64_t size) {
    const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    const std::uint64_t whole = (size + page - 1) / page * page;
    return udmabuf_of(memfd(whole), whole);
}

} // namespace sluice::test
