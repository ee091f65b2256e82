// SPDX-License-Identifier: MIT
#include "by_hand.hpp"

#include <atomic>
#include <cerrno>
#include <ctime>
#include <vector>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace by_hand {

namespace {

constexpr long dma_buf_magic = 0x444d4142;
constexpr Nanoseconds second = 1'000'000'000;

// What this kernel has turned out to lack.
std::atomic<bool> no_export = false;
std::atomic<bool> no_import = false;

Nanoseconds now() noexcept {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<Nanoseconds>(time.tv_sec) * second + time.tv_nsec;
}

bool again() noexcept {
    return errno == EINTR || errno == EAGAIN;
}

int restarted_ioctl(int fd, unsigned long request, void* argument) noexcept {
    int result = 0;
    do {
        result = ioctl(fd, request, argument);
    } while (result == -1 && again());
    return result == -1 ? -errno : 0;
}

/// \returns 1 for ready, 0 for not, or a negative errno.
int poll_once(int fd, short events, Nanoseconds timeout) noexcept {
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    const timespec left{.tv_sec = static_cast<time_t>(timeout / second),
                        .tv_nsec = static_cast<long>(timeout % second)};
    const int ready = ppoll(&entry, 1, &left, nullptr);
    if (ready < 0)
        return -errno;
    return (entry.revents & POLLNVAL) != 0 ? -EBADF : ready;
}

int poll_now(int fd, short events) noexcept {
    int ready = 0;
    do {
        ready = poll_once(fd, events, 0);
    } while (ready == -EINTR || ready == -EAGAIN);
    return ready;
}

int poll_until(int fd, short events, Nanoseconds deadline) noexcept {
    for (;;) {
        const Nanoseconds left = deadline - now();
        const int ready = poll_once(fd, events, left > 0 ? left : 0);
        if (ready == 0 ? now() >= deadline : ready != -EINTR && ready != -EAGAIN)
            return ready;
    }
}

int status_of(const sync_fence_info* fences, unsigned count) noexcept {
    int all = 1;
    for (unsigned i = 0; i < count; ++i) {
        if (fences[i].status == 0)
            return 0;
        if (fences[i].status < 0 && all > 0)
            all = fences[i].status;
    }
    return all;
}

short events_for(Access access) noexcept {
    return (access & DMA_BUF_SYNC_WRITE) != 0 ? POLLOUT : POLLIN;
}

} // namespace

int export_fence(int buffer, Access access) noexcept {
    dma_buf_export_sync_file request{.flags = access, .fd = -1};
    const int error = restarted_ioctl(buffer, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &request);
    return error != 0 ? error : request.fd;
}

int import_fence(int buffer, int fence, Access access) noexcept {
    dma_buf_import_sync_file request{.flags = access, .fd = fence};
    return restarted_ioctl(buffer, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &request);
}

int wait(int buffer, Access access, Nanoseconds deadline) noexcept {
    const short events = events_for(access);
    if (no_export.load(std::memory_order_relaxed)) {
        const int ready = poll_until(buffer, events, deadline);
        return ready == 0 ? -ETIME : ready < 0 ? ready : 0;
    }
    const int ready = poll_now(buffer, events);
    if (ready != 0)
        return ready < 0 ? ready : 0;
    const int fence = export_fence(buffer, access);
    if (fence == -ENOTTY) {
        no_export.store(true, std::memory_order_relaxed);
        return wait(buffer, access, deadline);
    }
    if (fence < 0)
        return fence;
    const int result = fence_wait(fence, deadline);
    close(fence);
    return result;
}

int fence_before(int buffer, Access access) noexcept {
    if (!no_export.load(std::memory_order_relaxed)) {
        const int fence = export_fence(buffer, access);
        if (fence != -ENOTTY)
            return fence;
        no_export.store(true, std::memory_order_relaxed);
    }
    return duplicate(buffer);
}

int fence_after(int buffer, int fence, Access access, Nanoseconds deadline) noexcept {
    if (!no_import.load(std::memory_order_relaxed)) {
        const int error = import_fence(buffer, fence, access);
        if (error != -ENOTTY)
            return error;
        no_import.store(true, std::memory_order_relaxed);
    }
    return fence_wait(fence, deadline);
}

int fence_status(int fence) noexcept {
    constexpr unsigned few = 8;
    sync_fence_info fences[few];
    sync_file_info info{};
    info.num_fences = few;
    info.sync_fence_info = reinterpret_cast<std::uintptr_t>(fences);
    int error = restarted_ioctl(fence, SYNC_IOC_FILE_INFO, &info);
    if (error == 0)
        return status_of(fences, info.num_fences);
    if (error != -EINVAL)
        return error;
    info = {};
    if ((error = restarted_ioctl(fence, SYNC_IOC_FILE_INFO, &info)) != 0)
        return error;
    std::vector<sync_fence_info> many(info.num_fences);
    info.sync_fence_info = reinterpret_cast<std::uintptr_t>(many.data());
    error = restarted_ioctl(fence, SYNC_IOC_FILE_INFO, &info);
    return error != 0 ? error : status_of(many.data(), info.num_fences);
}

int fence_wait(int fence, Nanoseconds deadline) noexcept {
    const int ready = poll_until(fence, POLLIN, deadline);
    if (ready <= 0)
        return ready == 0 ? -ETIME : ready;
    const int status = fence_status(fence);
    return status < 0 ? status : 0;
}

int merge(int a, int b) noexcept {
    sync_merge_data request{};
    request.name[0] = 'x';
    request.fd2 = b;
    if (const int error = restarted_ioctl(a, SYNC_IOC_MERGE, &request); error != 0)
        return error;
    // What failed before the merge is not in it any more.
    for (const int fence : {a, b}) {
        if (const int status = fence_status(fence); status < 0) {
            close(request.fence);
            return status;
        }
    }
    return request.fence;
}

int begin_access(int buffer, Access access, Nanoseconds deadline) noexcept {
    for (;;) {
        if (const int error = wait(buffer, access, deadline); error != 0)
            return error;
        dma_buf_sync request{.flags = access | DMA_BUF_SYNC_START};
        if (ioctl(buffer, DMA_BUF_IOCTL_SYNC, &request) == 0)
            return 0;
        if (!again())
            return -errno;
        if (now() >= deadline)
            return -ETIME;
    }
}

int end_access(int buffer, Access access) noexcept {
    dma_buf_sync request{.flags = access | DMA_BUF_SYNC_END};
    return restarted_ioctl(buffer, DMA_BUF_IOCTL_SYNC, &request);
}

int adopt(int fd, Identity& identity) noexcept {
    const int copy = duplicate(fd);
    if (copy < 0)
        return copy;
    static std::atomic<std::uint64_t> dma_buf_device = 0; // the kernel has one
    struct statfs filesystem {};
    struct statx status {};
    int error = 0;
    int flags = 0;
    if (statx(copy, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO | STATX_SIZE, &status) != 0)
        error = -errno;
    const std::uint64_t device = std::uint64_t{status.stx_dev_major} << 32U | status.stx_dev_minor;
    if (error == 0 && device != dma_buf_device.load(std::memory_order_relaxed)) {
        if (fstatfs(copy, &filesystem) != 0)
            error = -errno;
        else if (filesystem.f_type != dma_buf_magic)
            error = -EINVAL;
        else
            dma_buf_device = device;
    }
    if (error == 0 && (flags = fcntl(copy, F_GETFL)) < 0)
        error = -errno;
    else if ((flags & O_PATH) != 0)
        error = -EINVAL;
    if (error != 0) {
        close(copy);
        return error;
    }
    identity = {.inode = status.stx_ino, .size = status.stx_size};
    return copy;
}

int duplicate(int fd) noexcept {
    const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? -errno : copy;
}

int map(int buffer, std::size_t size, Mapping& mapping) noexcept {
    Identity identity{}; // nobody may have put another object onto the number
    const int copy = adopt(buffer, identity);
    if (copy < 0)
        return copy;
    void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, copy, 0);
    if (address == MAP_FAILED) {
        const int error = -errno;
        close(copy);
        return error;
    }
    mapping = {.fd = copy, .address = address, .size = size};
    return 0;
}

void unmap(const Mapping& mapping) noexcept {
    munmap(mapping.address, mapping.size);
    close(mapping.fd);
}

} // namespace by_hand
