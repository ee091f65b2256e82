// SPDX-License-Identifier: MIT
#include "kernel_objects.hpp"

#include <fcntl.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace bench {

using sluice::DmaBuf;
using sluice::SyncFile;
using sluice::UniqueFd;

namespace {

std::optional<DmaBuf> adopt(int fd) {
    auto buffer = DmaBuf::from_fd(UniqueFd(std::move(fd)));
    return buffer ? std::optional(std::move(*buffer)) : std::nullopt;
}

} // namespace

std::optional<DmaBuf> udmabuf(std::uint64_t size) {
    const UniqueFd device(open("/dev/udmabuf", O_RDWR | O_CLOEXEC));
    const UniqueFd memory(memfd_create("sluice-bench", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!device || !memory || ftruncate(memory.get(), static_cast<off_t>(size)) != 0 ||
        fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0)
        return std::nullopt;
    udmabuf_create create{.memfd = static_cast<__u32>(memory.get()),
                          .flags = UDMABUF_FLAGS_CLOEXEC,
                          .offset = 0,
                          .size = size};
    return adopt(ioctl(device.get(), UDMABUF_CREATE, &create));
}

std::optional<DmaBuf> heap_buffer(std::uint64_t size) {
    const UniqueFd heap(open("/dev/dma_heap/system", O_RDONLY | O_CLOEXEC));
    dma_heap_allocation_data request{
        .len = size, .fd = 0, .fd_flags = O_RDWR | O_CLOEXEC, .heap_flags = 0};
    if (!heap || ioctl(heap.get(), DMA_HEAP_IOCTL_ALLOC, &request) != 0)
        return std::nullopt;
    return adopt(static_cast<int>(request.fd));
}

std::optional<SyncFile> pending_fence() {
    // The interface of drivers/dma-buf/sw_sync.c, which has no header for user space.
    struct CreateFence {
        std::uint32_t value;
        char name[32];
        std::int32_t fence;
    };
    constexpr unsigned long create_fence = _IOWR('W', 0, CreateFence);

    // Closing a timeline ends its fences, so it stays open.
    const int timeline = open("/sys/kernel/debug/sync/sw_sync", O_RDWR | O_CLOEXEC);
    CreateFence request{.value = 1, .name = "sluice-bench", .fence = -1};
    if (timeline < 0 || ioctl(timeline, create_fence, &request) != 0)
        return std::nullopt;
    auto fence = SyncFile::from_fd(UniqueFd(std::move(request.fence)));
    return fence ? std::optional(std::move(*fence)) : std::nullopt;
}

} // namespace bench
