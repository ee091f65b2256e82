// SPDX-License-Identifier: MIT
#include "fault/libc_boundary.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>

#include "fault/requests.hpp"

namespace sluice::test {

namespace {

/// The CPU brackets on one buffer with one kind of access.
struct Brackets {
    ino_t buffer = 0;
    unsigned long long access = 0;
    int open = 0;
};

/// What the wrappers look at. Nothing in here grows, so that it disturbs no count of heap blocks.
struct State {
    std::array<Fault, 2> faults;
    std::size_t fault_count = 0;
    std::size_t faults_met = 0;
    int failed_in_a_row = 0; // by the fault that came up last
    std::array<LibcCall, boundary::max_calls> calls;
    std::size_t call_count = 0;
    std::function<void()> before_sleep;
    std::array<Brackets, 64> brackets;
    std::size_t bracket_count = 0;
    int closed_again = 0;
};

State state;
thread_local bool armed = false;

[[noreturn]] void give_up(const char* why) noexcept {
    std::fprintf(stderr, "fault_tests: %s\n", why);
    std::abort();
}

/// Records the call. \returns the errno with which it has to fail, or 0.
int meet(LibcCall call) noexcept {
    if (!armed)
        return 0;
    const std::size_t index = state.call_count;
    if (index == state.calls.size())
        give_up("an operation made more calls than can be recorded");
    state.calls[index] = call;
    ++state.call_count;
    if (state.faults_met < state.fault_count && state.faults[state.faults_met].index == index) {
        state.failed_in_a_row = 1;
        return state.faults[state.faults_met++].error;
    }
    if (state.failed_in_a_row > 0) {
        const Fault& fault = state.faults[state.faults_met - 1];
        if (state.failed_in_a_row < fault.times && call == state.calls[fault.index]) {
            ++state.failed_in_a_row;
            return fault.error;
        }
        state.failed_in_a_row = 0;
    }
    return 0;
}

/// The call, or its failure.
template <typename Return, typename Real>
Return pass(LibcCall call, Return failure, Real real) noexcept {
    if (const int error = meet(call); error != 0) {
        errno = error;
        return failure;
    }
    return real();
}

/// The call and then its failure: for those that do their work whatever they report.
template <typename Real> int pass_and_report(LibcCall call, Real real) noexcept {
    const int error = meet(call);
    const int result = real();
    if (error == 0)
        return result;
    errno = error;
    return -1;
}

/// Counts a START that went through, and an END that did or that was refused for good.
void count_bracket(ino_t buffer, unsigned long long flags) noexcept {
    const unsigned long long access = flags & DMA_BUF_SYNC_RW;
    auto* const end = state.brackets.data() + state.bracket_count;
    auto* each = std::find_if(state.brackets.data(), end, [&](const Brackets& brackets) {
        return brackets.buffer == buffer && brackets.access == access;
    });
    if (each == end) {
        if (state.bracket_count == state.brackets.size())
            give_up("more buffers were accessed than can be counted");
        *each = {.buffer = buffer, .access = access, .open = 0};
        ++state.bracket_count;
    }
    each->open += (flags & DMA_BUF_SYNC_END) != 0 ? -1 : 1;
}

} // namespace

bool LibcCall::operator==(const LibcCall& other) const noexcept {
    return std::strcmp(name, other.name) == 0 && detail == other.detail;
}

std::string to_string(const LibcCall& call) {
    if (std::strcmp(call.name, "ioctl") == 0)
        return "ioctl(" + request_name(call.detail) + ")";
    if (std::strcmp(call.name, "fcntl") == 0)
        return "fcntl(" + command_name(static_cast<int>(call.detail)) + ")";
    return call.name;
}

namespace boundary {

void plan(std::span<const Fault> faults) {
    if (faults.size() > state.faults.size())
        give_up("too many faults in one plan");
    std::ranges::copy(faults, state.faults.begin());
    state.fault_count = faults.size();
}

void arm() noexcept {
    state.faults_met = 0;
    state.failed_in_a_row = 0;
    state.call_count = 0;
    armed = true;
}

void disarm() noexcept {
    armed = false;
}

Aside::Aside() noexcept : armed_(std::exchange(armed, false)) {}

Aside::~Aside() {
    armed = armed_;
}

std::span<const LibcCall> calls() noexcept {
    return {state.calls.data(), state.call_count};
}

bool all_faults_met() noexcept {
    return state.faults_met == state.fault_count;
}

void before_sleep(std::function<void()> action) {
    state.before_sleep = std::move(action);
}

std::string take_misuse() {
    std::string faults;
    if (const int times = std::exchange(state.closed_again, 0); times > 0)
        faults = std::to_string(times) + " times a closed fd was closed";
    for (std::size_t i = 0; i < state.bracket_count; ++i)
        if (const Brackets& each = state.brackets[i]; each.open != 0)
            faults += (faults.empty() ? "" : "; ") + std::to_string(each.open) +
                      " more STARTs than ENDs with access " + std::to_string(each.access) +
                      " on ino " + std::to_string(each.buffer);
    state.bracket_count = 0;
    return faults;
}

} // namespace boundary
} // namespace sluice::test

using sluice::test::armed;
using sluice::test::count_bracket;
using sluice::test::meet;
using sluice::test::pass;
using sluice::test::pass_and_report;
using sluice::test::short_read;
using sluice::test::state;

// The names are the linker's: --wrap=X calls __wrap_X, and __real_X is X.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {
int __real_close(int fd);
int __real_fcntl(int fd, int command, long argument);
int __real_ftruncate(int fd, off_t size);
int __real_memfd_create(const char* name, unsigned flags);
DIR* __real_opendir(const char* path);
dirent* __real_readdir(DIR* folder);
int __real_closedir(DIR* folder);
int __real_fstat(int fd, struct stat* status);
int __real_statx(int folder, const char* path, int flags, unsigned wanted, struct statx* status);
int __real_fstatfs(int fd, struct statfs* filesystem);
int __real_ioctl(int fd, unsigned long request, void* argument);
void* __real_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset);
int __real_mprotect(void* at, size_t size, int protection);
int __real_munmap(void* at, size_t size);
int __real_open(const char* path, int flags, mode_t mode);
int __real_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask);
ssize_t __real_read(int fd, void* bytes, size_t size);
ssize_t __real_readlink(const char* path, char* text, size_t size);
int __real_sigaction(int signal, const struct sigaction* action, struct sigaction* previous);
long __real_syscall(long number, long a, long b, long c, long d, long e, long f);
ssize_t __real_write(int fd, const void* bytes, size_t size);

int __wrap_close(int fd) {
    // Linux frees the number whatever it reports.
    return pass_and_report({.name = "close"}, [&] {
        const int result = __real_close(fd);
        // By then the number may be somebody else's.
        if (result != 0 && errno == EBADF)
            ++state.closed_again;
        return result;
    });
}

int __wrap_fcntl(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    const long argument = va_arg(list, long);
    va_end(list);
    return pass({.name = "fcntl", .detail = static_cast<unsigned long>(command)}, -1,
                [&] { return __real_fcntl(fd, command, argument); });
}

int __wrap_ftruncate(int fd, off_t size) {
    return pass({.name = "ftruncate"}, -1, [&] { return __real_ftruncate(fd, size); });
}

int __wrap_memfd_create(const char* name, unsigned flags) {
    return pass({.name = "memfd_create"}, -1, [&] { return __real_memfd_create(name, flags); });
}

DIR* __wrap_opendir(const char* path) {
    return pass({.name = "opendir"}, static_cast<DIR*>(nullptr),
                [&] { return __real_opendir(path); });
}

dirent* __wrap_readdir(DIR* folder) {
    return pass({.name = "readdir"}, static_cast<dirent*>(nullptr),
                [&] { return __real_readdir(folder); });
}

int __wrap_closedir(DIR* folder) {
    return __real_closedir(folder); // of an open folder it cannot fail
}

int __wrap_fstat(int fd, struct stat* status) {
    return pass({.name = "fstat"}, -1, [&] { return __real_fstat(fd, status); });
}

int __wrap_statx(int folder, const char* path, int flags, unsigned wanted, struct statx* status) {
    return pass({.name = "statx"}, -1,
                [&] { return __real_statx(folder, path, flags, wanted, status); });
}

int __wrap_fstatfs(int fd, struct statfs* filesystem) {
    return pass({.name = "fstatfs"}, -1, [&] { return __real_fstatfs(fd, filesystem); });
}

int __wrap_ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void* argument = va_arg(list, void*);
    va_end(list);
    const int injected = meet({.name = "ioctl", .detail = request});
    const int result = injected == 0 ? __real_ioctl(fd, request, argument) : -1;
    const int error = injected == 0 ? errno : injected;
    if (request == DMA_BUF_IOCTL_SYNC) {
        const auto flags = static_cast<const dma_buf_sync*>(argument)->flags;
        const bool again = error == EINTR || error == EAGAIN;
        struct stat buffer {};
        if ((result == 0 || ((flags & DMA_BUF_SYNC_END) != 0 && !again)) &&
            __real_fstat(fd, &buffer) == 0)
            count_bracket(buffer.st_ino, flags);
    }
    errno = error;
    return result;
}

void* __wrap_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) {
    return pass({.name = "mmap"}, reinterpret_cast<void*>(-1),
                [&] { return __real_mmap(at, size, protection, flags, fd, offset); });
}

int __wrap_mprotect(void* at, size_t size, int protection) {
    return pass({.name = "mprotect"}, -1, [&] { return __real_mprotect(at, size, protection); });
}

int __wrap_munmap(void* at, size_t size) {
    // Of a whole mapping it cannot fail; so that a report has no leak to explain, it does its work.
    return pass_and_report({.name = "munmap"}, [&] { return __real_munmap(at, size); });
}

int __wrap_open(const char* path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    const auto mode = static_cast<mode_t>(va_arg(list, int));
    va_end(list);
    return pass({.name = "open"}, -1, [&] { return __real_open(path, flags, mode); });
}

int __wrap_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
    return pass({.name = "ppoll"}, -1, [&] {
        const bool sleeps = timeout == nullptr || timeout->tv_sec != 0 || timeout->tv_nsec != 0;
        if (armed && sleeps && state.before_sleep) {
            armed = false; // its own calls are none of the operation's
            std::exchange(state.before_sleep, nullptr)();
            armed = true;
        }
        return __real_ppoll(fds, count, timeout, mask);
    });
}

ssize_t __wrap_read(int fd, void* bytes, size_t size) {
    const int error = meet({.name = "read"});
    if (error == short_read)
        return __real_read(fd, bytes, std::min<size_t>(size, 1));
    if (error != 0) {
        errno = error;
        return -1;
    }
    return __real_read(fd, bytes, size);
}

ssize_t __wrap_readlink(const char* path, char* text, size_t size) {
    return pass({.name = "readlink"}, ssize_t{-1},
                [&] { return __real_readlink(path, text, size); });
}

int __wrap_sigaction(int signal, const struct sigaction* action, struct sigaction* previous) {
    return pass({.name = "sigaction"}, -1,
                [&] { return __real_sigaction(signal, action, previous); });
}

long __wrap_syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    std::array<long, 6> arguments{};
    for (long& argument : arguments)
        argument = va_arg(list, long);
    va_end(list);
    return pass({.name = "syscall", .detail = static_cast<unsigned long>(number)}, -1L, [&] {
        return __real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3],
                              arguments[4], arguments[5]);
    });
}

ssize_t __wrap_write(int fd, const void* bytes, size_t size) {
    return pass({.name = "write"}, ssize_t{-1}, [&] { return __real_write(fd, bytes, size); });
}
}
// NOLINTEND(bugprone-reserved-identifier)
