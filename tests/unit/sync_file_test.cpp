// SPDX-License-Identifier: MIT
#include <sluice/sync_file.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <vector>

#include <linux/sync_file.h>
#include <sys/eventfd.h>

#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"
#include "support/scripted_sync_file.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::ScriptedLibc;

using SyncFileTest = test::FdTest;

/// Makes every fd answer as a sync_file with fences of these statuses, as the kernel writes them.
void answer(ScriptedLibc& libc, std::vector<int> statuses) {
    libc.ioctl = [statuses = std::move(statuses)](int, unsigned long request, void* argument) {
        EXPECT_EQ(request, SYNC_IOC_FILE_INFO);
        return test::answer_file_info(argument, statuses);
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
    answer(libc, {0});
    SyncFile fence = fence_over_eventfd(false);
    EXPECT_EQ(fence.status()->state, FenceState::pending);
    answer(libc, {1});
    EXPECT_EQ(fence.status()->state, FenceState::signalled);
    answer(libc, {-EIO});
    EXPECT_EQ(fence.status()->state, FenceState::failed);
    EXPECT_EQ(fence.status()->error, EIO);
}

TEST_F(SyncFileTest, WaitEndsAtTheDeadline) {
    ScriptedLibc libc;
    answer(libc, {0});
    auto waited = fence_over_eventfd(false).wait(deadline_in(5ms));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::timed_out);
}

TEST_F(SyncFileTest, TheFarthestPastIsAsGoodAsNow) {
    ScriptedLibc libc;
    answer(libc, {0});
    EXPECT_EQ(fence_over_eventfd(false).wait(Deadline::min()).error().code, Errc::timed_out);
}

TEST_F(SyncFileTest, WaitReturnsOnceItHasSignalled) {
    ScriptedLibc libc;
    answer(libc, {1});
    EXPECT_TRUE(fence_over_eventfd(true).wait(deadline_in(5s)));
}

TEST_F(SyncFileTest, AFailedFenceIsNeverSuccess) {
    ScriptedLibc libc;
    answer(libc, {-ETIME});
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

TEST_F(SyncFileTest, OneThatWasMovedFromIsNoFenceAndNeverSignalled) {
    ScriptedLibc libc;
    libc.ioctl = [](int fd, unsigned long, void* argument) {
        if (fd < 0) {
            errno = EBADF;
            return -1;
        }
        return test::answer_file_info(argument, std::array{0});
    };
    for (const bool with_fd : {true, false}) {
        SyncFile fence = with_fd ? fence_over_eventfd(false) : SyncFile::signalled();
        SyncFile taken(std::move(fence));
        EXPECT_TRUE(taken.valid());
        EXPECT_FALSE(fence.valid());
        EXPECT_EQ(fence.fd(), -1);
        EXPECT_EQ(fence.status().error().code, Errc::wrong_object);
        EXPECT_EQ(fence.wait(Deadline::max()).error().code, Errc::wrong_object);
        EXPECT_EQ(fence.fences().error().code, Errc::wrong_object);
        EXPECT_EQ(fence.duplicate().error().code, Errc::wrong_object);
        EXPECT_EQ(fence.hint_deadline(Deadline()).error().code, Errc::wrong_object);
        EXPECT_EQ(SyncFile::merge(fence, SyncFile::signalled()).error().code, Errc::wrong_object);
        EXPECT_EQ(SyncFile::merge(std::span(&fence, 1)).error().code, Errc::wrong_object);
        fence = std::move(taken);
        EXPECT_TRUE(fence.valid());
        EXPECT_FALSE(taken.valid());
        auto& same = fence;
        fence = std::move(same);
        EXPECT_TRUE(fence.valid()) << "moved onto itself";
    }
}

TEST_F(SyncFileTest, DuplicatesLiveOnTheirOwn) {
    ScriptedLibc libc;
    answer(libc, {1});
    auto fence = std::make_unique<SyncFile>(fence_over_eventfd(true));
    auto copy = fence->duplicate();
    ASSERT_TRUE(copy);
    fence.reset();
    EXPECT_TRUE(copy->wait(deadline_in(5s)));
}

TEST_F(SyncFileTest, AMergedOneIsPendingUntilAllAreDoneAndFailedWhereOneIs) {
    ScriptedLibc libc;
    answer(libc, {0});
    const SyncFile fence = fence_over_eventfd(false);
    answer(libc, {-EIO, 0});
    EXPECT_EQ(fence.status()->state, FenceState::pending);
    answer(libc, {1, -EIO, 1});
    EXPECT_EQ(fence.status()->state, FenceState::failed);
    EXPECT_EQ(fence.status()->error, EIO);
    answer(libc, {1, 1});
    EXPECT_EQ(fence.status()->state, FenceState::signalled);
}

TEST_F(SyncFileTest, TheLastOfManyFencesCountsToo) {
    for (const std::size_t count : {8U, 9U, 1000U}) {
        ScriptedLibc libc;
        std::vector statuses(count, 1);
        statuses.back() = -ENOENT;
        answer(libc, statuses);
        const SyncFile fence = fence_over_eventfd(true);
        EXPECT_EQ(fence.status()->state, FenceState::failed) << count;
        EXPECT_EQ(fence.fences()->size(), count);
    }
}

TEST_F(SyncFileTest, FencesAreToldWithDriverAndTimelineAndTime) {
    ScriptedLibc libc;
    answer(libc, {1, -EIO, 0});
    auto fences = fence_over_eventfd(true).fences();
    ASSERT_TRUE(fences);
    ASSERT_EQ(fences->size(), 3U);
    EXPECT_EQ((*fences)[1].driver, "scripted");
    EXPECT_EQ((*fences)[1].timeline, "timeline-1");
    EXPECT_EQ((*fences)[1].signalled_at.time_since_epoch(), 1001ns);
    EXPECT_EQ((*fences)[0].status.state, FenceState::signalled);
    EXPECT_EQ((*fences)[1].status.error, EIO);
    EXPECT_EQ((*fences)[2].status.state, FenceState::pending);
    EXPECT_TRUE(SyncFile::signalled().fences()->empty());
}

TEST_F(SyncFileTest, AnAnswerThatNoKernelGivesIsNoSyncFile) {
    // A file of a FUSE mount has its ioctls answered by whoever mounted it.
    struct Lie {
        __u32 count;        // what it says that it wrote
        __u32 asked_before; // what it says without room
        int status;
        bool refuses_few;
    };
    for (const Lie& lie :
         {Lie{9, 9, 1, false}, Lie{0x00ffffff, 0, 1, false}, Lie{UINT32_MAX, 0, 1, false},
          Lie{1, 1, 2, false}, Lie{1, 1, -4096, false}, Lie{1, 1, INT32_MIN, false},
          Lie{1, 1, INT32_MAX, false}, Lie{UINT32_MAX, UINT32_MAX, 1, true},
          Lie{(1U << 16) + 1, (1U << 16) + 1, 1, true}, Lie{11, 10, 1, true}}) {
        ScriptedLibc libc;
        libc.ioctl = [&](int, unsigned long, void* argument) {
            auto* info = static_cast<sync_file_info*>(argument);
            auto* list = reinterpret_cast<sync_fence_info*>(std::uintptr_t{info->sync_fence_info});
            const __u32 room = info->num_fences;
            info->num_fences = room == 0 ? lie.asked_before : lie.count;
            if (lie.refuses_few && room == 8) {
                errno = EINVAL;
                return -1;
            }
            for (__u32 i = 0; i < std::min(room, lie.count); ++i)
                list[i].status = lie.status;
            return 0;
        };
        auto fence = SyncFile::from_fd(UniqueFd(eventfd(0, EFD_CLOEXEC)));
        ASSERT_FALSE(fence) << lie.count << " " << lie.status;
        EXPECT_EQ(fence.error().code, Errc::wrong_object);
        EXPECT_EQ(fence.error().sys_errno, EPROTO);
    }
}

TEST_F(SyncFileTest, ANameThatFillsItsBytesEndsThere) {
    ScriptedLibc libc;
    answer(libc, {1});
    const SyncFile fence = fence_over_eventfd(true);
    libc.ioctl = [](int, unsigned long, void* argument) {
        test::answer_file_info(argument, std::array{1});
        auto* info = static_cast<sync_file_info*>(argument);
        auto* first = reinterpret_cast<sync_fence_info*>(std::uintptr_t{info->sync_fence_info});
        std::fill_n(first->driver_name, sizeof first->driver_name, 'x');
        return 0;
    };
    EXPECT_EQ(fence.fences()->front().driver, std::string(32, 'x'));
}

/// Fences with a status for each fd, and merges that are written down.
class SyncFileMergeTest : public SyncFileTest {
protected:
    void SetUp() override {
        SyncFileTest::SetUp();
        libc.ioctl = [this](int fd, unsigned long request, void* argument) {
            if (request == SYNC_IOC_FILE_INFO)
                return test::answer_file_info(argument, std::array{statuses[fd]});
            EXPECT_EQ(request, SYNC_IOC_MERGE);
            auto* merge = static_cast<sync_merge_data*>(argument);
            EXPECT_EQ(merge->flags, 0U);
            EXPECT_EQ(merge->pad, 0U);
            if (refusal != 0 && merges + 1 == refused_merge) {
                errno = refusal;
                return -1;
            }
            ++merges;
            merge->fence = eventfd(0, EFD_CLOEXEC);
            return 0;
        };
    }

    SyncFile fence(int status) {
        UniqueFd fd(eventfd(0, EFD_CLOEXEC));
        statuses[fd.get()] = status;
        return std::move(*SyncFile::from_fd(std::move(fd)));
    }

    ScriptedLibc libc;
    std::map<int, int> statuses;
    int merges = 0;
    int refusal = 0;
    int refused_merge = 1;
};

TEST_F(SyncFileMergeTest, NothingAndSignalledOnesMakeOneThatNeedsNoFd) {
    EXPECT_EQ(SyncFile::merge({})->fd(), -1);
    EXPECT_EQ(SyncFile::merge(SyncFile::signalled(), SyncFile::signalled())->fd(), -1);
    EXPECT_EQ(merges, 0);
    EXPECT_EQ(SyncFile::merge(fence(1), SyncFile::signalled())->fd(), -1);
    EXPECT_EQ(merges, 0);
    EXPECT_EQ(SyncFile::merge(fence(1), fence(1))->fd(), -1);
}

TEST_F(SyncFileMergeTest, OnePendingOneIsDuplicated) {
    const SyncFile pending = fence(0);
    for (const auto& merged : {SyncFile::merge(SyncFile::signalled(), pending),
                               SyncFile::merge(pending, SyncFile::signalled()),
                               SyncFile::merge(std::span(&pending, 1))}) {
        ASSERT_TRUE(merged);
        EXPECT_GE(merged->fd(), 0);
        EXPECT_NE(merged->fd(), pending.fd());
    }
    EXPECT_EQ(merges, 0);
}

TEST_F(SyncFileMergeTest, ManyTakeOneMergeLessThanTheyAre) {
    std::vector<SyncFile> fences;
    for (int i = 0; i < 5; ++i)
        fences.push_back(fence(i == 2 ? 1 : 0));
    EXPECT_GE(SyncFile::merge(fences)->fd(), 0);
    EXPECT_EQ(merges, 4);
}

TEST_F(SyncFileMergeTest, AFailureIsNotMergedAway) {
    const SyncFile failed = fence(-EIO);
    const SyncFile pending = fence(0);
    for (const auto& merged : {SyncFile::merge(failed, pending), SyncFile::merge(pending, failed),
                               SyncFile::merge(std::span(&failed, 1))}) {
        ASSERT_FALSE(merged);
        EXPECT_EQ(merged.error().code, Errc::fence_failed);
        EXPECT_EQ(merged.error().sys_errno, EIO);
    }
}

TEST_F(SyncFileMergeTest, AFailureBesideAPendingOneInsideIsNotMergedAwayEither) {
    const SyncFile both = fence(0);
    const SyncFile pending = fence(0);
    auto answer = libc.ioctl;
    libc.ioctl = [&](int fd, unsigned long request, void* argument) {
        if (fd == both.fd() && request == SYNC_IOC_FILE_INFO)
            return test::answer_file_info(argument, std::array{0, -EIO});
        return answer(fd, request, argument);
    };
    EXPECT_EQ(both.status()->state, FenceState::pending);
    EXPECT_EQ(SyncFile::merge(pending, both).error().code, Errc::fence_failed);
}

TEST_F(SyncFileMergeTest, ARefusedMergeLeavesNothingBehind) {
    std::vector<SyncFile> fences;
    for (int i = 0; i < 4; ++i)
        fences.push_back(fence(0));
    for (const auto& [error, code] :
         {std::pair(EMFILE, Errc::no_resources), std::pair(ENOMEM, Errc::no_resources),
          std::pair(ENOENT, Errc::wrong_object), std::pair(EBADF, Errc::wrong_object)})
        for (const int nth : {1, 3}) {
            merges = 0;
            refusal = error;
            refused_merge = nth;
            auto merged = SyncFile::merge(fences);
            ASSERT_FALSE(merged);
            EXPECT_EQ(merged.error().code, code);
            EXPECT_EQ(merged.error().sys_errno, error);
        }
}

TEST_F(SyncFileTest, TheDeadlineHintIsTheKernelsClock) {
    ScriptedLibc libc;
    answer(libc, {0});
    const SyncFile fence = fence_over_eventfd(false);
    std::uint64_t told = 0;
    libc.ioctl = [&](int, unsigned long request, void* argument) {
        EXPECT_EQ(_IOC_TYPE(request), unsigned{'>'});
        EXPECT_EQ(_IOC_NR(request), 5U);
        told = *static_cast<std::uint64_t*>(argument);
        return 0;
    };
    EXPECT_TRUE(fence.hint_deadline(Deadline(123456789ns)));
    EXPECT_EQ(told, 123456789U);
    EXPECT_TRUE(fence.hint_deadline(Deadline(-5ns)));
    EXPECT_EQ(told, 0U);
    bool is_fence = true;
    libc.ioctl = [&](int, unsigned long request, void* argument) {
        if (request == SYNC_IOC_FILE_INFO && is_fence)
            return test::answer_file_info(argument, std::array{0});
        errno = ENOTTY;
        return -1;
    };
    EXPECT_EQ(fence.hint_deadline(Deadline()).error().code, Errc::unsupported);
    is_fence = false;
    EXPECT_EQ(fence.hint_deadline(Deadline()).error().code, Errc::wrong_object);
    EXPECT_TRUE(SyncFile::signalled().hint_deadline(Deadline()));
}

} // namespace
} // namespace sluice
