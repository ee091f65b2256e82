// SPDX-License-Identifier: MIT
#include "fault/faults.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <initializer_list>

#include "fault/requests.hpp"

namespace sluice::test {

namespace {

constexpr int storm = 5; // failures in a row, more than any loop that counts to three gets over

/// One row of the table: what ends the call for good, and after what it is to be made again.
struct Row {
    const char* name;
    unsigned long detail; // 0: all that have no row of their own before
    std::initializer_list<int> final;
    std::initializer_list<int> again;
};

// Sources: the man pages' ERRORS, drivers/dma-buf/{dma-buf,sync_file,udmabuf}.c. Not each kernel
// gives each of them; a driver behind dma-buf's begin_cpu_access may give anything.
// clang-format off
const std::initializer_list<Row> rows = {
    {"ioctl", DMA_BUF_IOCTL_SYNC,
     {EBADF, EACCES, EPERM, EINVAL, EBUSY, EIO, ENOMEM, ENODEV, ENOTTY}, {EINTR, EAGAIN}},
    {"ioctl", DMA_BUF_SET_NAME_A, {EBADF, EINVAL, EBUSY, EFAULT, ENOMEM, ENOTTY}, {EINTR, EAGAIN}},
    {"ioctl", DMA_BUF_SET_NAME_B, {EBADF, EINVAL, EBUSY, EFAULT, ENOMEM, ENOTTY}, {EINTR, EAGAIN}},
    {"ioctl", DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
     {EBADF, EINVAL, EMFILE, ENFILE, ENOMEM, ENOTTY, EIO, EPERM}, {EINTR, EAGAIN}},
    {"ioctl", DMA_BUF_IOCTL_IMPORT_SYNC_FILE,
     {EBADF, EINVAL, ENOMEM, ENOTTY, EIO, EPERM}, {EINTR, EAGAIN}},
    {"ioctl", SYNC_IOC_MERGE,
     {EBADF, EINVAL, ENOENT, EMFILE, ENFILE, ENOMEM, ENOTTY}, {EINTR, EAGAIN}},
    {"ioctl", SYNC_IOC_FILE_INFO, {EBADF, EINVAL, EFAULT, ENOMEM, ENOTTY}, {EINTR, EAGAIN}},
    {"ioctl", set_deadline_request, {EBADF, EINVAL, ENOTTY}, {EINTR, EAGAIN}},
    {"ioctl", version_request, {EBADF, EACCES, EFAULT, ENOMEM, ENOTTY}, {EINTR, EAGAIN}},
    {"ioctl", get_cap_request, {EBADF, EACCES, EFAULT, EINVAL, ENODEV, ENOTTY}, {EINTR, EAGAIN}},
    // Nothing could close a handle whose destruction is refused.
    {"ioctl", syncobj_destroy_request, {}, {EINTR, EAGAIN}},
    {"ioctl", gem_close_request, {}, {EINTR, EAGAIN}},
    {"ioctl", destroy_dumb_request, {}, {EINTR, EAGAIN}},
    {"ioctl", 0,
     {EBADF, EACCES, EPERM, EINVAL, EBUSY, EIO, EMFILE, ENFILE, ENOMEM, ENODEV, ENOTTY},
     {EINTR, EAGAIN}},
    {"fcntl", F_DUPFD_CLOEXEC, {EBADF, EINVAL, EMFILE, ENOMEM}, {}},
    // Asked where kcmp does not tell; without both nobody knows whose a fd is, and it stays open.
    {"fcntl", dupfd_query_command, {}, {}},
    {"fcntl", 0, {EBADF, EINVAL, EPERM}, {}},
    {"ftruncate", 0, {EBADF, EFBIG, EINVAL, EIO, EPERM}, {EINTR}},
    {"memfd_create", 0, {EINVAL, EMFILE, ENFILE, ENOMEM, ENOSYS}, {}},
    {"opendir", 0, {EACCES, EMFILE, ENFILE, ENOENT, ENOMEM}, {}},
    {"readdir", 0, {EBADF, EIO}, {}},
    {"fstat", 0, {EBADF, EACCES, EIO, ENOMEM}, {}},
    {"fstatfs", 0, {EBADF, EIO, ENOMEM, ENOSYS}, {}},
    {"statx", 0, {EBADF, EACCES, EIO, ENOMEM}, {}},
    {"mmap", 0, {EBADF, EACCES, EPERM, EAGAIN, EINVAL, ENFILE, ENODEV, ENOMEM, EOVERFLOW}, {}},
    {"mprotect", 0, {EACCES, EINVAL, ENOMEM}, {}},
    {"open", 0, {EACCES, EPERM, ENOENT, EMFILE, ENFILE, ENOMEM}, {}},
    {"ppoll", 0, {EFAULT, EINVAL, ENOMEM}, {EINTR, EAGAIN}},
    {"read", 0, {EBADF, EIO, ENOMEM, EPERM}, {EINTR, short_read}},
    {"readlink", 0, {EACCES, EIO, ENOENT, ENOMEM}, {}},
    {"sigaction", 0, {}, {}}, // of a valid signal and pointers it cannot fail
    {"syscall", 0, {EPERM, ENOSYS, EBADF}, {}},
    {"write", 0, {EAGAIN, EBADF, EIO, EPIPE}, {}},
};
// clang-format on

} // namespace

std::optional<std::vector<Failure>> failures_of(const LibcCall& call) {
    // What is done whatever is reported, and names for people, need not succeed.
    if (std::strcmp(call.name, "close") == 0)
        return {{{.error = EINTR, .invisible = true}, {.error = EIO, .invisible = true}}};
    if (std::strcmp(call.name, "munmap") == 0)
        return {{{.error = ENOMEM, .invisible = true}}};
    const bool for_people_only = std::strcmp(call.name, "readlink") == 0;
    const auto* row = std::ranges::find_if(rows, [&](const Row& each) {
        return std::strcmp(each.name, call.name) == 0 &&
               (each.detail == call.detail || each.detail == 0);
    });
    if (row == rows.end())
        return std::nullopt;
    std::vector<Failure> failures;
    for (const int error : row->again)
        failures.push_back({.error = error, .times = storm, .invisible = true});
    for (const int error : row->final)
        failures.push_back({.error = error, .invisible = for_people_only});
    return failures;
}

std::string to_string(const Failure& failure) {
    const char* name = failure.error == short_read ? "short" : strerrorname_np(failure.error);
    return std::string(name) + (failure.times > 1 ? " x" + std::to_string(failure.times) : "");
}

bool sensible(Errc code, int error) noexcept {
    switch (error) {
    case EBADF:
        return code == Errc::wrong_object;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        return code == Errc::no_resources;
    case EACCES:
        return code == Errc::no_permission || code == Errc::not_master;
    case EPERM:
        return code == Errc::no_permission;
    case EBUSY:
        return code == Errc::busy || code == Errc::failed;
    case ENOTTY:
        return code == Errc::unsupported || code == Errc::wrong_object;
    case ENOENT:
        return code == Errc::wrong_object || code == Errc::unsupported || code == Errc::failed;
    case ENODEV:
        return code == Errc::device_lost || code == Errc::unsupported;
    case EINVAL:
        return code != Errc::timed_out && code != Errc::fence_failed && code != Errc::no_resources;
    default:
        return code == Errc::failed || code == Errc::unsupported || code == Errc::wrong_object;
    }
}

} // namespace sluice::test
