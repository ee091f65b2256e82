// SPDX-License-Identifier: MIT
/// \file
/// What the core's system tests stand on: real buffers, and fences that a test controls.
#pragma once

#include <array>

#include <poll.h>

#include <sluice/dma_buf.hpp>
#include <sluice/sync_file.hpp>

#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/udmabuf.hpp"

namespace sluice::test {

class RealKernelTest : public FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        SLUICE_REQUIRES(has_udmabuf(), "/dev/udmabuf does not open");
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    }
};

inline constexpr std::array accesses{Access::read, Access::write, Access::read_write};

inline FenceState state_of(const SyncFile& fence) {
    auto status = fence.status();
    EXPECT_TRUE(status) << status.error().message();
    return status->state;
}

inline FenceState state_of(const Result<SyncFile>& fence) {
    EXPECT_TRUE(fence) << fence.error().message();
    return state_of(*fence);
}

/// What poll(2) says at once of \p fd.
inline short polled(int fd, short events) {
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    EXPECT_GE(poll(&entry, 1, 0), 0);
    return entry.revents;
}

} // namespace sluice::test
