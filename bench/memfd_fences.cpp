// SPDX-License-Identifier: MIT
#include "memfd_fences.hpp"

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <span>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/fake_sync_file.hpp"

namespace {

int pending = -1, signalled = -1;
bool busy = false;
bool by_status = false;

int duplicate(int fd) noexcept {
    return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

int tell_status(int fd, sync_file_info& info) noexcept {
    pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
    const bool done = poll(&one, 1, 0) == 1;
    info.status = done ? 1 : 0;
    if (info.num_fences > 0) {
        auto* first = reinterpret_cast<sync_fence_info*>(std::uintptr_t{info.sync_fence_info});
        *first = {};
        first->status = info.status;
    }
    info.num_fences = 1;
    return 0;
}

} // namespace

// In place of libc's, for the library and the layer too.
extern "C" __attribute__((visibility("default"))) int ioctl(int fd, unsigned long request,
                                                            ...) noexcept {
    va_list arguments;
    va_start(arguments, request);
    void* argument = va_arg(arguments, void*);
    va_end(arguments);
    if (signalled >= 0)
        switch (request) {
        case DMA_BUF_IOCTL_EXPORT_SYNC_FILE: {
            auto& asked = *static_cast<dma_buf_export_sync_file*>(argument);
            asked.fd = duplicate(busy ? pending : signalled);
            return asked.fd < 0 ? -1 : 0;
        }
        case DMA_BUF_IOCTL_IMPORT_SYNC_FILE:
            return fcntl(static_cast<dma_buf_import_sync_file*>(argument)->fd, F_GETFD) < 0 ? -1
                                                                                            : 0;
        case SYNC_IOC_MERGE: {
            auto& asked = *static_cast<sync_merge_data*>(argument);
            asked.fence = duplicate(asked.fd2);
            return asked.fence < 0 ? -1 : 0;
        }
        case SYNC_IOC_FILE_INFO:
            return tell_status(fd, *static_cast<sync_file_info*>(argument));
        default:
            break;
        }
    return static_cast<int>(syscall(SYS_ioctl, fd, request, argument));
}

extern "C" __attribute__((visibility("default"))) int
ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* signals) {
    // The kernel writes down what is left of the time.
    timespec left = timeout != nullptr ? *timeout : timespec{};
    constexpr std::size_t bytes_of_signals = 8; // the kernel's own, not sigset_t
    auto ready = static_cast<int>(syscall(
        SYS_ppoll, fds, count, timeout != nullptr ? &left : nullptr, signals, bytes_of_signals));
    if (by_status && ready > 0)
        for (pollfd& each : std::span(fds, count))
            if (each.revents != 0 && sluice::test::read_fake_status(each.fd) == 0) {
                each.revents = 0;
                --ready;
            }
    return ready;
}

namespace bench {

bool let_memfds_have_fences() noexcept {
    pending = eventfd(0, EFD_CLOEXEC);
    signalled = eventfd(1, EFD_CLOEXEC);
    return pending >= 0 && signalled >= 0;
}

void let_memfds_be_busy(bool are) noexcept {
    busy = are;
}

bool renew_pending_fence() noexcept {
    close(pending);
    pending = eventfd(0, EFD_CLOEXEC);
    return pending >= 0;
}

void signal_pending_fence() noexcept {
    (void)eventfd_write(pending, 1);
}

int signalled_stand_in() noexcept {
    return signalled;
}

void poll_made_up_sync_files() noexcept {
    by_status = true;
}

} // namespace bench
