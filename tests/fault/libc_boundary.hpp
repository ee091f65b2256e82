// SPDX-License-Identifier: MIT
/// \file
/// The libc functions through which the library makes its system calls, recorded and failed at will
/// in front of a real kernel. Linked with -Wl,--wrap, so the code under test has no seam.
///
/// A new function is wrapped here, gets its errors in faults.cpp and its name into `wrapped_calls`
/// of tests/CMakeLists.txt; the test fault.every_call_is_wrapped tells when one is missing.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace sluice::test {

/// One call that the library made.
struct LibcCall {
    const char* name = "";    ///< "ioctl"
    unsigned long detail = 0; ///< An ioctl's request, an fcntl's command, otherwise 0.

    bool operator==(const LibcCall& other) const noexcept;
};

/// "ioctl(DMA_BUF_IOCTL_SYNC)", "fcntl(F_GETFL)", "ppoll".
[[nodiscard]] std::string to_string(const LibcCall& call);

/// In place of an errno: read(2) gives one byte at a time.
inline constexpr int short_read = -1;

/// Makes the call of that \p index fail without reaching the kernel, and those that follow it
/// directly and are the same call, up to \p times in all.
struct Fault {
    std::size_t index = 0;
    int error = 0;
    int times = 1;
};

namespace boundary {

/// The faults of the next armed section.
void plan(std::span<const Fault> faults);

/// How many calls one operation can make.
inline constexpr std::size_t max_calls = 1024;

/// Between these the calls of this thread are recorded, and fail as planned. arm() starts over.
void arm() noexcept;
void disarm() noexcept;

/// While it lives, what this thread calls is none of the operation's: a driver's own calls.
class Aside {
public:
    Aside() noexcept;
    ~Aside();
    Aside(const Aside&) = delete;
    Aside& operator=(const Aside&) = delete;

private:
    bool armed_;
};

/// What was called in the last armed section.
[[nodiscard]] std::span<const LibcCall> calls() noexcept;

/// Whether every planned fault has come up.
[[nodiscard]] bool all_faults_met() noexcept;

/// \p action runs once, before the first ppoll of an armed section that would sleep: for a fence
/// that signals while it is waited for, with neither threads nor sleeps.
void before_sleep(std::function<void()> action);

/// What was wrong so far though no call said so: CPU brackets that are still open, ENDs without a
/// START, closed fds that were closed again. Empty where all is well. An END that was made to fail
/// for good counts as one. Starts over.
[[nodiscard]] std::string take_misuse();

} // namespace boundary
} // namespace sluice::test
