// SPDX-License-Identifier: MIT
/// \file
/// Real fences that a test signals when it likes: the kernel's sw_sync timelines (debugfs).
#pragma once

#include <cstdint>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <sluice/sync_file.hpp>

namespace sluice::test {

/// One timeline. Closing it with fences pending makes them fail (ENOENT).
class SwSync {
public:
    SwSync() : fd_(open(path, O_RDWR | O_CLOEXEC)) {}

    static bool available() { return access(path, R_OK | W_OK) == 0; }

    /// A fence that signals once the timeline has been advanced to \p value.
    [[nodiscard]] SyncFile fence(std::uint32_t value) const {
        CreateFence request{.value = value, .name = "sluice-test", .fence = -1};
        EXPECT_EQ(ioctl(fd_.get(), create_fence, &request), 0);
        auto fence = SyncFile::from_fd(UniqueFd(std::move(request.fence)));
        EXPECT_TRUE(fence);
        return std::move(*fence);
    }

    void advance(std::uint32_t by) const { EXPECT_EQ(ioctl(fd_.get(), increment, &by), 0); }

    /// Ends the timeline.
    void close() { fd_.reset(); }

private:
    static constexpr const char* path = "/sys/kernel/debug/sync/sw_sync";
    // The interface of drivers/dma-buf/sw_sync.c, which has no header for user space.
    struct CreateFence {
        std::uint32_t value;
        char name[32];
        std::int32_t fence;
    };
    static constexpr unsigned long create_fence = _IOWR('W', 0, CreateFence);
    static constexpr unsigned long increment = _IOW('W', 1, std::uint32_t);

    UniqueFd fd_;
};

} // namespace sluice::test
