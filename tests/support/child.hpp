// SPDX-License-Identifier: MIT
/// \file
/// A second process, for what buffers and fences do across processes.
#pragma once

#include <csignal>

#include <sys/wait.h>
#include <unistd.h>

namespace sluice::test {

/// A fork of this process, ended at the latest with the object. Make it while no other thread runs.
class Child {
public:
    /// \param body runs in the child; it returns the exit status, 0 for success. What it expects
    /// must be in that number: gtest in the child tells nobody.
    template <typename Body> explicit Child(Body body) : pid_(fork()) {
        if (pid_ == 0)
            _exit(body());
    }
    ~Child() { kill(); }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;

    /// Waits for its end. \returns the exit status, or -1 where a signal ended it.
    int wait() {
        int status = -1;
        if (pid_ > 0)
            waitpid(pid_, &status, 0);
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

    /// Ends it at once, and waits until it is gone.
    void kill() {
        if (pid_ <= 0)
            return;
        ::kill(pid_, SIGKILL);
        wait();
    }

private:
    pid_t pid_;
};

} // namespace sluice::test
