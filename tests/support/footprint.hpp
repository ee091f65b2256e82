// SPDX-License-Identifier: MIT
/// \file
/// What this process holds, to see that thousands of frames leave nothing behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>

#include "support/allocations.hpp"
#include "support/drm_cards.hpp"
#include "support/open_fds.hpp"

namespace sluice::test {

struct Footprint {
    std::size_t fds = 0;
    std::uint32_t handle = 0; ///< The lowest of the card that is free.
    std::ptrdiff_t blocks = 0;
    long pages = 0; ///< Of memory that is resident.

    static Footprint of(int card) {
        Footprint now{.fds = open_fds().size(),
                      .handle = lowest_free_handle(card),
                      .blocks = live_allocations()};
        std::ifstream status("/proc/self/statm");
        long all = 0;
        status >> all >> now.pages;
        return now;
    }
};

/// Whether there is no more of anything than \p before; of pages, which libc and the kernel take by
/// the handful, not many.
inline ::testing::AssertionResult is_as_before(const Footprint& now, const Footprint& before) {
    if (now.fds == before.fds && now.handle == before.handle && now.blocks <= before.blocks &&
        now.pages - before.pages < 100)
        return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure()
           << "fds " << before.fds << " -> " << now.fds << ", lowest free handle " << before.handle
           << " -> " << now.handle << ", heap blocks " << before.blocks << " -> " << now.blocks
           << ", pages " << before.pages << " -> " << now.pages;
}

} // namespace sluice::test
