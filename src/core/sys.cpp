// SPDX-License-Identifier: MIT
#include "core/sys.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <sluice/unique_fd.hpp>

#ifndef F_DUPFD_QUERY
constexpr int F_DUPFD_QUERY = 1024 + 3; // linux/fcntl.h, since 6.10
#endif

namespace sluice::sys {

std::string errno_text(int error) {
    const char* name = strerrorname_np(error);
    const char* words = strerrordesc_np(error);
    return std::string(name ? name : "errno " + std::to_string(error)) + " (" +
           (words ? words : "unknown error") + ")";
}

std::string describe_fd(int fd) {
    if (fd < 0)
        return "fd " + std::to_string(fd) + " (none)";
    const int saved = errno;
    std::array<char, 128> target{};
    const std::string link = "/proc/self/fd/" + std::to_string(fd);
    const ssize_t length = readlink(link.c_str(), target.data(), target.size());
    std::string text = "fd " + std::to_string(fd);
    // Without /proc there is no link of a fd that is open, either.
    const bool closed = length < 0 && fcntl(fd, F_GETFD) < 0 && errno == EBADF;
    errno = saved;
    if (closed)
        return text + " (closed)";
    if (length < 0)
        return text;
    // A buffer's name is part of it, and anybody who holds the buffer may have chosen that.
    std::string shown;
    for (const char letter : std::span(target).first(static_cast<std::size_t>(length)))
        shown += letter < ' ' || letter > '~' ? '?' : letter; // whether char is signed or not
    return text + " ('" + shown + "')";
}

std::string device_of(dev_t node) {
    const std::string numbers = std::to_string(major(node)) + ":" + std::to_string(minor(node));
    std::array<char, 512> target{};
    const int saved = errno;
    const ssize_t length =
        readlink(("/sys/dev/char/" + numbers).c_str(), target.data(), target.size());
    errno = saved;
    std::string path(target.data(), static_cast<std::size_t>(std::max<ssize_t>(length, 0)));
    const std::size_t start = path.find("/devices/"); // after "../.."
    if (start == std::string::npos || path.size() == target.size())
        return "char " + numbers;
    // "/devices/platform/vkms/drm/card0" is one of the device's nodes.
    return path.substr(start, path.rfind("/drm/") - start);
}

std::string device_of_fd(int fd) {
    struct stat status {};
    const int saved = errno;
    const bool is_node = fstat(fd, &status) == 0 && S_ISCHR(status.st_mode);
    errno = saved;
    return is_node ? device_of(status.st_rdev) : std::string();
}

Errc code_of(int error) noexcept {
    switch (error) {
    case EBADF:
        return Errc::wrong_object;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return Errc::no_resources;
    case EACCES:
    case EPERM:
        return Errc::no_permission;
    case EBUSY:
        return Errc::busy;
    case ENOTTY:
    case ENOSYS:
    case EOPNOTSUPP:
        return Errc::unsupported;
    case EINVAL:
        return Errc::invalid_argument;
    case ENODEV:
        return Errc::device_lost;
    default:
        return Errc::failed;
    }
}

Errc code_of_wrong_object(int error) noexcept {
    const Errc code = code_of(error);
    return code == Errc::no_resources || code == Errc::no_permission ? code : Errc::wrong_object;
}

Error failed_call(int error, std::string_view operation, std::string object,
                  std::string_view problem, std::string remedy) {
    return Error{.code = code_of(error),
                 .operation = std::string(operation),
                 .object = std::move(object),
                 .problem = std::string(problem) + ": " + errno_text(error),
                 .remedy = std::move(remedy),
                 .sys_errno = error};
}

int stat_at_once(int fd, struct statx& status) noexcept {
    constexpr unsigned wanted = STATX_TYPE | STATX_INO | STATX_SIZE;
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, wanted, &status);
}

bool is_anonymous(const struct statx& status) noexcept {
    return (status.stx_mode & S_IFMT) == 0;
}

bool strict_by_environment() noexcept {
    const char* value = std::getenv("SLUICE_STRICT");
    return value != nullptr && std::string_view(value) == "1";
}

bool same_open_file(int one, int other) noexcept {
    const pid_t self = getpid();
    const long order = syscall(SYS_kcmp, self, self, KCMP_FILE, one, other);
    return order == 0 || (order < 0 && fcntl(one, F_DUPFD_QUERY, other) == 1);
}

void take_back(int number, int original) noexcept {
    if (same_open_file(number, original))
        close(number);
}

namespace {

/// One ppoll(2). \returns as poll_until, and -1 with EINTR or EAGAIN too.
int poll_once(int fd, short events, const timespec& timeout) noexcept {
    if (fd < 0) { // ppoll would pass it over, and wait for nothing
        errno = EBADF;
        return -1;
    }
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    const int ready = ppoll(&entry, 1, &timeout, nullptr);
    if (ready > 0 && (entry.revents & POLLNVAL) != 0) {
        errno = EBADF;
        return -1;
    }
    return ready;
}

bool interrupted(int result) noexcept {
    return result < 0 && (errno == EINTR || errno == EAGAIN);
}

} // namespace

int poll_until(int fd, short events, Deadline deadline) noexcept {
    using namespace std::chrono;
    for (;;) {
        const Deadline now = Deadline::clock::now();
        const auto left = std::max(deadline, now) - now; // so that nothing overflows
        const auto whole = duration_cast<seconds>(left);
        const int ready =
            poll_once(fd, events,
                      {.tv_sec = static_cast<time_t>(whole.count()),
                       .tv_nsec = static_cast<long>(nanoseconds(left - whole).count())});
        if (ready == 0 ? Deadline::clock::now() >= deadline : !interrupted(ready))
            return ready;
    }
}

int poll_now(int fd, short events) noexcept {
    int ready = 0;
    do {
        ready = poll_once(fd, events, {});
    } while (interrupted(ready));
    return ready;
}

int poll_now(std::span<pollfd> entries) noexcept {
    constexpr timespec at_once{};
    int ready = 0;
    do {
        ready = ppoll(entries.data(), entries.size(), &at_once, nullptr);
    } while (interrupted(ready));
    return ready;
}

ssize_t read_file(const std::string& path, std::span<char> text) noexcept {
    const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file)
        return -1;
    std::size_t length = 0;
    while (length < text.size()) {
        const ssize_t more = read(file.get(), text.data() + length, text.size() - length);
        if (more < 0 && errno == EINTR)
            continue;
        if (more < 0)
            return -1;
        if (more == 0)
            break;
        length += static_cast<std::size_t>(more);
    }
    return static_cast<ssize_t>(length);
}

} // namespace sluice::sys
