// SPDX-License-Identifier: MIT
#include <sluice/sync_file.hpp>

#include <cerrno>

#include <linux/sync_file.h>
#include <sys/eventfd.h>

#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::ScriptedLibc;

using SyncFileTest = test::FdTest;

/// Makes every fd answer as a sync_file with \p status, as the kernel writes it.
void answer(ScriptedLibc& libc, int status) {
    libc.ioctl = [status](int, unsigned long request, void* argument) {
        EXPECT_EQ(request, SYNC_IOC_FILE_INFO);
        auto* info = static_cast<sync_file_info*>(argument);
        EXPECT_EQ(info->num_fences, 0U) << "the list of fences is not asked for";
        info->status = status;
        return 0;
    };
}

/// A fence over an eventfd, which is ready where \p ready.
SyncFile fence_over_eventfd(bool ready) {
    auto fence = SyncFile::from_fd(UniqueFd(eventfd(ready ? 1 : 0, EFD_CLOEXEC)));
    EXPECT_TRUE(fence);
    return std::move(*fence);
}

TEST_F(SyncFileTest, RefusesWhatIsNoSyncFileAndLeavesItWithTheCaller) {
    for (const bool memory : {true, false}) {
        UniqueFd fd = memory ? test::memfd(4096) : UniqueFd(eventfd(0, EFD_CLOEXEC));
        auto fence = SyncFile::from_fd(std::move(fd));
        ASSERT_FALSE(fence);
        EXPECT_EQ(fence.error().code, Errc::wrong_object);
        EXPECT_NE(fence.error().message().find("is not a sync_file"), std::string::npos);
        EXPECT_TRUE(fd);
    }
    auto none = SyncFile::from_fd(UniqueFd());
    ASSERT_FALSE(none);
    EXPECT_NE(none.error().message().find("fd -1 (none)"), std::string::npos);
}

TEST_F(SyncFileTest, TellsPendingSignalledAndFailedApart) {
    ScriptedLibc libc;
    answer(libc, 0);
    SyncFile fence = fence_over_eventfd(false);
    EXPECT_EQ(fence.status()->state, FenceState::pending);
    answer(libc, 1);
    EXPECT_EQ(fence.status()->state, FenceState::signalled);
    answer(libc, -EIO);
    EXPECT_EQ(fence.status()->state, FenceState::failed);
    EXPECT_EQ(fence.status()->error, EIO);
}

TEST_F(SyncFileTest, WaitEndsAtTheDeadline) {
    ScriptedLibc libc;
    answer(libc, 0);
    auto waited = fence_over_eventfd(false).wait(deadline_in(5ms));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::timed_out);
}

TEST_F(SyncFileTest, WaitReturnsOnceItHasSignalled) {
    ScriptedLibc libc;
    answer(libc, 1);
    EXPECT_TRUE(fence_over_eventfd(true).wait(deadline_in(5s)));
}

TEST_F(SyncFileTest, AFailedFenceIsNeverSuccess) {
    ScriptedLibc libc;
    answer(libc, -ETIME);
    auto waited = fence_over_eventfd(true).wait(deadline_in(5s));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::fence_failed);
    EXPECT_EQ(waited.error().sys_errno, ETIME);
}

TEST_F(SyncFileTest, ASignalledOneNeedsNoFd) {
    const SyncFile fence = SyncFile::signalled();
    EXPECT_EQ(fence.fd(), -1);
    EXPECT_EQ(fence.status()->state, FenceState::signalled);
    EXPECT_TRUE(fence.wait(deadline_in(0s)));
    auto copy = fence.duplicate();
    ASSERT_TRUE(copy);
    EXPECT_EQ(copy->fd(), -1);
}

TEST_F(SyncFileTest, DuplicatesLiveOnTheirOwn) {
    ScriptedLibc libc;
    answer(libc, 1);
    auto fence = std::make_unique<SyncFile>(fence_over_eventfd(true));
    auto copy = fence->duplicate();
    ASSERT_TRUE(copy);
    fence.reset();
    EXPECT_TRUE(copy->wait(deadline_in(5s)));
}

} // namespace
} // namespace sluice
