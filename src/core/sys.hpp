// SPDX-License-Identifier: MIT
/// \file
/// What every part needs around a system call. Not installed.
#pragma once

#include <cerrno>
#include <span>
#include <string>
#include <string_view>

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <sluice/deadline.hpp>
#include <sluice/error.hpp>

namespace sluice::sys {

/// "EINVAL (Invalid argument)".
[[nodiscard]] std::string errno_text(int error);

/// "fd 7 ('anon_inode:[eventfd]')", "fd 9 (closed)", "fd -1 (none)"; "fd 7" where /proc does not
/// tell.
[[nodiscard]] std::string describe_fd(int fd);

/// The code that \p error means where the operation knows no better.
[[nodiscard]] Errc code_of(int error) noexcept;

/// The same where whatever is not about resources or permissions means that the object is not what
/// it was taken for.
[[nodiscard]] Errc code_of_wrong_object(int error) noexcept;

/// The Error of a system call that set \p error: \p problem gets the errno in words appended.
[[nodiscard]] Error failed_call(int error, std::string_view operation, std::string object,
                                std::string_view problem, std::string remedy);

/// The device behind the character device \p node, the same text for all nodes of one DRM device:
/// "/devices/platform/vkms", as in sysfs. Where sysfs does not tell: the node, "char 226:0".
[[nodiscard]] std::string device_of(dev_t node);

/// The same for the node that \p fd opened; empty where it is none.
[[nodiscard]] std::string device_of_fd(int fd);

/// ioctl(2), restarted when a signal interrupts it. EAGAIN is restarted too, as DRM's own wrapper
/// does: the calls made through here say it only where a lock was contended.
[[nodiscard]] inline int ioctl(int fd, unsigned long request, void* argument) noexcept {
    int result = 0;
    do {
        result = ::ioctl(fd, request, argument);
    } while (result == -1 && (errno == EINTR || errno == EAGAIN));
    return result;
}

/// What `return {};` would give, but that fills the room for the Error with zeros first: 150 bytes,
/// which counts beside one system call.
[[nodiscard]] inline Result<void> success() noexcept {
    Result<void> done; // not Result<void>(): that is the difference
    return done;
}

/// What the kernel itself has of \p fd: its type, inode and size (statx(2), AT_STATX_DONT_SYNC).
/// Nothing else that can be asked of a fd is safe before its type is known: for a file of a FUSE
/// mount fstatfs(2), fstat(2) and ioctl(2) go to a process that may never answer, and no signal
/// ends that wait. \returns 0, or -1 with errno set.
[[nodiscard]] int stat_at_once(int fd, struct statx& status) noexcept;

/// True of dma-bufs, sync_files and the kernel's other inodes without a file's type. No filesystem
/// that anybody mounts has any.
[[nodiscard]] bool is_anonymous(const struct statx& status) noexcept;

/// Whether SLUICE_STRICT asks for checks that find mistakes of the program, and cost time.
[[nodiscard]] bool strict_by_environment() noexcept;

/// Whether two fds are the same open file (kcmp(2)), so duplicates of one another. False also where
/// a sandbox does not let that be asked.
[[nodiscard]] bool same_open_file(int one, int other) noexcept;

/// Takes back \p number, a duplicate of \p original that a driver was given and refused. Vulkan
/// leaves such a fd with the caller, but lavapipe closes it, and the number may be somebody else's
/// by then: it is closed only while it still is the same open file (kcmp(2), which containers may
/// forbid, or F_DUPFD_QUERY, since Linux 6.10). Where neither tells it stays open: better that than
/// to close somebody else's.
void take_back(int number, int original) noexcept;

/// poll(2) for one fd until \p deadline, restarted with the time that is left.
/// \returns 1 when one of \p events (or an error condition) is there, 0 at the deadline, or -1 with
///   errno set; a closed fd is EBADF.
[[nodiscard]] int poll_until(int fd, short events, Deadline deadline) noexcept;

/// The same without waiting, and without a look at the clock.
[[nodiscard]] int poll_now(int fd, short events) noexcept;

/// The same for several, whose `revents` tell of each. \returns how many have one, or -1 with errno
/// set.
[[nodiscard]] int poll_now(std::span<pollfd> entries) noexcept;

/// Fills \p text with the start of a small file, as /proc and /sys have them.
/// \returns the bytes read, or -1 with errno set.
[[nodiscard]] ssize_t read_file(const std::string& path, std::span<char> text) noexcept;

} // namespace sluice::sys
