// SPDX-License-Identifier: MIT
#include <sluice/unique_fd.hpp>

#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "core/sys.hpp"

namespace sluice {

Result<UniqueFd> UniqueFd::duplicate(int borrowed_fd) noexcept {
    int copy = fcntl(borrowed_fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) {
        const int error = errno;
        return tl::unexpected(sys::failed_call(
            error, "UniqueFd::duplicate", sys::describe_fd(borrowed_fd), "cannot be duplicated",
            error == EBADF ? "Pass a fd that is open"
                           : "Close fds that are no longer used, or raise RLIMIT_NOFILE"));
    }
    return UniqueFd(std::move(copy));
}

void UniqueFd::reset(int fd) noexcept {
    const int old = fd_;
    fd_ = fd;
    if (old < 0)
        return;
    // Linux frees the number even where close(2) reports an error, so there is nothing to retry.
    const int saved = errno;
    close(old);
    errno = saved;
}

} // namespace sluice
