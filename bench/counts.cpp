// SPDX-License-Identifier: MIT
#include "counts.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <vector>

#include <sys/auxv.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

namespace {

/// What is stepped through at most: see in_vdso().
constexpr long patience = 100'000;
constexpr std::size_t attempts = 5;

constexpr int step = SIGTRAP;
constexpr int edge_of_call = SIGTRAP | 0x80; // PTRACE_O_TRACESYSGOOD

/// True where \p child is in the kernel's vDSO. The clock that is read there is read again where it
/// was set meanwhile, which in steps happens nearly always, so its instructions are no number.
bool in_vdso(pid_t child) noexcept {
#if defined(__x86_64__)
    constexpr unsigned long size = 0x2000; // of the image that kernels map, or a little more
    errno = 0;
    const long at = ptrace(PTRACE_PEEKUSER, child, offsetof(user_regs_struct, rip), nullptr);
    return errno == 0 && static_cast<unsigned long>(at) - getauxval(AT_SYSINFO_EHDR) < size;
#else
    (void)child;
    return false;
#endif
}

/// The child: between its stops the operation is done once, then twice.
[[noreturn]] void perform(Operation operation, void* self) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0)
        _exit(1);
    for (int times = 0; times <= 2; ++times) {
        for (int i = 0; i < times; ++i)
            if (!operation(self))
                _exit(1);
        raise(SIGSTOP);
    }
    _exit(0);
}

/// Lets \p child go on by \p how until it stops itself. \returns how many of its stops were for
/// \p trap, or -1; \p status is what waitpid(2) said last.
template <typename Request> long stops(Request how, int trap, pid_t child, int& status) {
    long count = 0;
    for (long all = 0; all < patience; ++all) {
        if (ptrace(how, child, nullptr, nullptr) != 0 || waitpid(child, &status, 0) != child ||
            !WIFSTOPPED(status))
            return -1;
        if (WSTOPSIG(status) == SIGSTOP)
            return count;
        if (WSTOPSIG(status) != trap)
            return -1;
        if (trap != step || !in_vdso(child))
            ++count;
    }
    return -1;
}

/// \returns how many stops one operation makes, or less than 0.
template <typename Request> long trace(Request how, int trap, Operation operation, void* self) {
    const pid_t child = fork();
    if (child == 0)
        perform(operation, self);
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    long once = -1;
    long twice = -1;
    if (WIFSTOPPED(status) &&
        ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD) == 0) {
        once = stops(how, trap, child, status);
        if (once >= 0)
            twice = stops(how, trap, child, status);
    }
    if (WIFSTOPPED(status)) {
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
    }
    // Both hold the child's own doing once, so their difference is the operation alone.
    return twice < 0 ? -1 : twice - once;
}

/// The stops of one operation, as two attempts of several tell alike; nothing where none do.
template <typename Request>
std::optional<long> agreed(Request how, int trap, Operation operation, void* self) {
    std::vector<long> told;
    while (told.size() < attempts) {
        const long count = trace(how, trap, operation, self);
        if (count >= 0 && std::ranges::find(told, count) != told.end())
            return count;
        told.push_back(count);
    }
    return std::nullopt;
}

} // namespace

Counts count(Operation operation, void* self, bool steps) {
    const auto edges = agreed(PTRACE_SYSCALL, edge_of_call, operation, self);
    return {.instructions = steps ? agreed(PTRACE_SINGLESTEP, step, operation, self) : std::nullopt,
            .system_calls = edges ? std::optional(*edges / 2) : std::nullopt};
}

} // namespace bench
