// SPDX-License-Identifier: MIT
/// \file
/// Every wait on the CPU has an end, and says so in its arguments.
#pragma once

#include <chrono>

namespace sluice {

/// A point on CLOCK_MONOTONIC (libstdc++'s steady_clock), the clock of the kernel's fences.
using Deadline = std::chrono::steady_clock::time_point;

/// The deadline \p duration from now; one too far away to be told becomes the farthest there is,
/// one in the past becomes now.
template <typename Rep, typename Period>
[[nodiscard]] Deadline deadline_in(std::chrono::duration<Rep, Period> duration) noexcept {
    using Seconds = std::chrono::duration<double>;
    const Deadline now = Deadline::clock::now();
    if (duration <= duration.zero())
        return now;
    // Compared in floating point, where no duration overflows, with a second to spare for rounding.
    if (Seconds(duration) >= Seconds(Deadline::max() - now) - Seconds(1))
        return Deadline::max();
    return now + std::chrono::duration_cast<Deadline::duration>(duration);
}

} // namespace sluice
