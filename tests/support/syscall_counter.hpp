// SPDX-License-Identifier: MIT
/// \file
/// System calls as the kernel itself counts them, those of libc and the loader included.
///
/// Source: perf_event_open(2), and the tracepoint raw_syscalls:sys_enter.
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <sluice/unique_fd.hpp>

namespace sluice::test {

/// Counts the system calls of the thread that makes it.
class SyscallCounter {
public:
    SyscallCounter() {
        std::uint64_t id = 0;
        for (const char* tracing : {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"})
            if (std::ifstream(std::string(tracing) + "/events/raw_syscalls/sys_enter/id") >> id)
                break;
        perf_event_attr attributes{};
        attributes.type = PERF_TYPE_TRACEPOINT;
        attributes.size = sizeof attributes;
        attributes.config = id;
        if (id != 0)
            fd_ = UniqueFd(static_cast<int>(
                syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC)));
    }

    /// Whether this machine counts: it takes root and tracefs.
    [[nodiscard]] bool available() const noexcept { return static_cast<bool>(fd_); }

    /// How many calls \p work makes; -1 where that cannot be told.
    template <typename Work> [[nodiscard]] std::int64_t count(Work work) const {
        const std::int64_t before = value();
        work();
        const std::int64_t after = value();
        return before < 0 || after < 0 ? -1 : after - before - 1; // the second look is one itself
    }

    /// The least of three goes, of work that takes memory from the heap: libc asks the kernel for
    /// more of it now and then, and a sanitizer's heap more often.
    template <typename Work> [[nodiscard]] std::int64_t least(Work work) const {
        std::int64_t least = count(work);
        for (int again = 0; again < 2; ++again)
            least = std::min(least, count(work));
        return least;
    }

private:
    [[nodiscard]] std::int64_t value() const noexcept {
        std::int64_t calls = 0;
        return read(fd_.get(), &calls, sizeof calls) == sizeof calls ? calls : -1;
    }

    UniqueFd fd_;
};

} // namespace sluice::test
