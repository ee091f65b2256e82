// SPDX-License-Identifier: MIT
/// \file
/// A signal that interrupts this thread's system calls over and over.
#pragma once

#include <chrono>
#include <csignal>
#include <ctime>

#include <sys/syscall.h>
#include <unistd.h>

namespace sluice::test {

/// While it lives the thread that made it gets a signal (SIGURG, which is ignored otherwise) at
/// every interval, without SA_RESTART. One at a time in a process.
class SignalStorm {
public:
    explicit SignalStorm(std::chrono::microseconds interval) {
        delivered_ = 0;
        struct sigaction action {};
        action.sa_handler = [](int) { delivered_ = delivered_ + 1; };
        sigaction(SIGURG, &action, &before_);
        sigevent event{};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGURG;
        event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid)); // glibc gives it no name
        timer_create(CLOCK_MONOTONIC, &event, &timer_);
        const timespec every{.tv_sec = 0, .tv_nsec = std::chrono::nanoseconds(interval).count()};
        const itimerspec times{.it_interval = every, .it_value = every};
        timer_settime(timer_, 0, &times, nullptr);
    }
    ~SignalStorm() {
        timer_delete(timer_);
        sigaction(SIGURG, &before_, nullptr);
    }
    SignalStorm(const SignalStorm&) = delete;
    SignalStorm& operator=(const SignalStorm&) = delete;

    /// How many signals the thread has got.
    [[nodiscard]] static int delivered() { return delivered_; }

private:
    inline static volatile std::sig_atomic_t delivered_ = 0;
    struct sigaction before_ {};
    timer_t timer_{};
};

} // namespace sluice::test
