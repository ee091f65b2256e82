// SPDX-License-Identifier: MIT
/// \file
/// Real fences that a test signals when it likes: the kernel's sw_sync timelines (debugfs).
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <sluice/sync_file.hpp>

namespace sluice::test {

/// One timeline. Closing it with fences pending makes them fail (ENOENT).
class SwSync {
public:
    /// \param name of the timeline, up to 15 bytes, as FenceInfo tells it; null for the thread's.
    explicit SwSync(const char* name = nullptr) {
        std::array<char, 16> own{}; // the kernel names a timeline after the thread that opens it
        prctl(PR_GET_NAME, own.data());
        if (name != nullptr)
            prctl(PR_SET_NAME, name);
        fd_ = UniqueFd(open(path, O_RDWR | O_CLOEXEC));
        prctl(PR_SET_NAME, own.data());
    }

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

    /// The deadline that \p fence, one of this timeline's and of no other, was last told.
    [[nodiscard]] std::optional<Deadline> deadline_of(const SyncFile& fence) const {
        GetDeadline request{.deadline_ns = 0, .pad = 0, .fence = fence.fd()};
        if (ioctl(fd_.get(), get_deadline, &request) != 0)
            return std::nullopt;
        return Deadline(std::chrono::nanoseconds(request.deadline_ns));
    }

    [[nodiscard]] int fd() const { return fd_.get(); }

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
    struct GetDeadline {
        std::uint64_t deadline_ns;
        std::uint32_t pad;
        std::int32_t fence;
    };
    static constexpr unsigned long create_fence = _IOWR('W', 0, CreateFence);
    static constexpr unsigned long increment = _IOW('W', 1, std::uint32_t);
    static constexpr unsigned long get_deadline = _IOWR('W', 2, GetDeadline);

    UniqueFd fd_;
};

} // namespace sluice::test
