// SPDX-License-Identifier: MIT
/// \file
/// When another thread has come to where it waits.
#pragma once

#include <chrono>
#include <fstream>
#include <string>
#include <thread>

#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace sluice::test {

/// The calling thread, for those below.
inline pid_t this_thread() {
    return static_cast<pid_t>(syscall(SYS_gettid));
}

/// Waits, half a minute at most, until \p thread of this process sleeps in \p call (SYS_*).
inline void until_it_sleeps_in(long call, pid_t thread) {
    using namespace std::chrono_literals;
    const std::string path = "/proc/self/task/" + std::to_string(thread) + "/syscall";
    for (int n = 0; n < 30000; ++n) {
        long number = -1; // "running" is no number
        if (std::ifstream(path) >> number && number == call)
            return;
        std::this_thread::sleep_for(1ms);
    }
}

/// The same for ppoll(2).
inline void until_it_polls(pid_t thread) {
    until_it_sleeps_in(SYS_ppoll, thread);
}

} // namespace sluice::test
