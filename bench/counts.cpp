// SPDX-License-Identifier: MIT
#include "counts.hpp"

#include <algorithm>
#include <csignal>
#include <vector>

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bench {

namespace {

/// The clock in the vDSO is read again where it was set meanwhile, and that is every few
/// milliseconds. Stepped through it takes longer, so it may go on for long, and such a count is not
/// believed.
constexpr long patience = 10'000;
constexpr std::size_t attempts = 5;

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
    for (long count = 0; count < patience;) {
        if (ptrace(how, child, nullptr, nullptr) != 0 || waitpid(child, &status, 0) != child ||
            !WIFSTOPPED(status))
            return -1;
        if (WSTOPSIG(status) == SIGSTOP)
            return count;
        if (WSTOPSIG(status) != trap)
            return -1;
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

Counts count(Operation operation, void* self) {
    const auto edges = agreed(PTRACE_SYSCALL, SIGTRAP | 0x80, operation, self);
    return {.instructions = agreed(PTRACE_SINGLESTEP, SIGTRAP, operation, self),
            .system_calls = edges ? std::optional(*edges / 2) : std::nullopt};
}

} // namespace bench
