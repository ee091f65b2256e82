// SPDX-License-Identifier: MIT
/// \file
/// Real dma-bufs of the system heap (linux/dma-heap.h).
#pragma once

#include <cstdint>
#include <utility>

#include <fcntl.h>
#include <linux/dma-heap.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <sluice/dma_buf.hpp>

namespace sluice::test {

inline constexpr const char* system_heap = "/dev/dma_heap/system";

inline bool has_system_heap() {
    return access(system_heap, R_OK) == 0;
}

/// A zeroed buffer of \p size bytes, rounded up to whole pages. \param mode O_RDWR or O_RDONLY.
inline Result<DmaBuf> heap_buffer(std::uint64_t size, int mode = O_RDWR) {
    const UniqueFd heap(open(system_heap, O_RDONLY | O_CLOEXEC));
    dma_heap_allocation_data request{
        .len = size, .fd = 0, .fd_flags = static_cast<__u32>(O_CLOEXEC | mode), .heap_flags = 0};
    if (ioctl(heap.get(), DMA_HEAP_IOCTL_ALLOC, &request) != 0)
        return DmaBuf::from_fd(UniqueFd());
    int fd = static_cast<int>(request.fd);
    return DmaBuf::from_fd(UniqueFd(std::move(fd)));
}

} // namespace sluice::test
