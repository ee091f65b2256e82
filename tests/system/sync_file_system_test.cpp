// SPDX-License-Identifier: MIT
// Fences on a real kernel: one by one, merged, failed.
#include <sluice/sync_file.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/asleep.hpp"
#include "support/fd_limit.hpp"
#include "support/real_kernel.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::state_of;
using test::SwSync;
using enum FenceState;

using SyncFileSystemTest = test::RealKernelTest;

std::size_t count(const SyncFile& fence) {
    auto fences = fence.fences();
    EXPECT_TRUE(fences) << fences.error().message();
    return fences->size();
}

SyncFile merge(std::span<const SyncFile> fences) {
    auto merged = SyncFile::merge(fences);
    EXPECT_TRUE(merged) << merged.error().message();
    return std::move(*merged);
}

SyncFile merge(const SyncFile& a, const SyncFile& b) {
    auto merged = SyncFile::merge(a, b);
    EXPECT_TRUE(merged) << merged.error().message();
    return std::move(*merged);
}

/// What a fence that failed with ENOENT must say, whichever way it is asked.
void expect_failed(const SyncFile& fence) {
    auto status = fence.status();
    ASSERT_TRUE(status);
    EXPECT_EQ(status->state, failed);
    EXPECT_EQ(status->error, ENOENT);
    auto waited = fence.wait(deadline_in(5s));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::fence_failed);
    EXPECT_EQ(waited.error().sys_errno, ENOENT);
}

TEST_F(SyncFileSystemTest, SignalsOnceItsPointIsReachedAndNoSooner) {
    SwSync timeline;
    std::vector<SyncFile> points;
    for (std::uint32_t value = 1; value <= 8; ++value)
        points.push_back(timeline.fence(value));
    for (std::size_t reached = 0; reached <= points.size(); ++reached) {
        for (std::size_t n = 0; n < points.size(); ++n) {
            EXPECT_EQ(state_of(points[n]), n < reached ? signalled : pending);
            EXPECT_EQ(test::polled(points[n].fd(), POLLIN), n < reached ? POLLIN : 0);
        }
        timeline.advance(1);
    }
    EXPECT_EQ(state_of(timeline.fence(3)), signalled) << "a point that has passed";
}

TEST_F(SyncFileSystemTest, AWaitWakesWhenTheFenceSignals) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    EXPECT_EQ(fence.wait(deadline_in(10ms)).error().code, Errc::timed_out);
    const auto start = Deadline::clock::now();
    std::jthread signaller([&] {
        std::this_thread::sleep_for(50ms);
        timeline.advance(1);
    });
    EXPECT_TRUE(fence.wait(deadline_in(10s)));
    EXPECT_GE(Deadline::clock::now() - start, 50ms);
}

TEST_F(SyncFileSystemTest, AWaitEndsAtItsDeadlineAndNotBefore) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    for (const auto& [length, name] : {std::pair(0ms, "0"), {1ms, "1"}, {30ms, "30"}}) {
        const auto start = Deadline::clock::now();
        EXPECT_EQ(fence.wait(start + length).error().code, Errc::timed_out) << name;
        EXPECT_GE(Deadline::clock::now() - start, length) << name;
    }
    EXPECT_EQ(fence.wait(Deadline()).error().code, Errc::timed_out);
    timeline.advance(1);
    EXPECT_TRUE(fence.wait(Deadline())) << "what is done needs no time";
}

TEST_F(SyncFileSystemTest, ManyThreadsWaitForOneFence) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    std::array<bool, 8> woken{};
    std::vector<std::jthread> threads;
    for (bool& each : woken)
        threads.emplace_back([&] { each = fence.wait(deadline_in(20s)).has_value(); });
    std::this_thread::sleep_for(10ms);
    timeline.advance(1);
    threads.clear();
    EXPECT_EQ(std::ranges::count(woken, true), 8);
}

TEST_F(SyncFileSystemTest, OneThreadWaitsForManyTimelines) {
    std::vector<SwSync> timelines(8);
    std::vector<SyncFile> fences;
    for (const SwSync& timeline : timelines)
        fences.push_back(timeline.fence(1));
    const SyncFile all = merge(fences);
    std::vector<std::jthread> producers;
    for (const SwSync& timeline : timelines)
        producers.emplace_back([&timeline] { timeline.advance(1); });
    EXPECT_TRUE(all.wait(deadline_in(20s)));
    for (const SyncFile& fence : fences)
        EXPECT_EQ(state_of(fence), signalled);
}

TEST_F(SyncFileSystemTest, AFenceOutlivesTheFdThatItCameFrom) {
    SwSync timeline;
    SyncFile copy = [&] {
        const SyncFile fence = timeline.fence(1);
        return std::move(*fence.duplicate());
    }();
    EXPECT_EQ(state_of(copy), pending);
    timeline.advance(1);
    EXPECT_TRUE(copy.wait(deadline_in(5s)));
    timeline.close();
    EXPECT_EQ(state_of(copy), signalled);
    EXPECT_EQ(copy.fences()->at(0).driver, "sw_sync") << "its timeline is gone";
}

TEST_F(SyncFileSystemTest, AFenceWhoseTimelineDiedHasFailed) {
    SwSync timeline;
    const SyncFile done = timeline.fence(1);
    const SyncFile fence = timeline.fence(2);
    const SyncFile later = timeline.fence(3);
    timeline.advance(1);
    timeline.close();
    EXPECT_EQ(state_of(done), signalled) << "what was done stays so";
    EXPECT_EQ(test::polled(fence.fd(), POLLIN), POLLIN) << "ready, and yet no success";
    expect_failed(fence);
    expect_failed(later);
    expect_failed(*fence.duplicate());
    const auto inside = fence.fences();
    ASSERT_EQ(inside->size(), 1U);
    EXPECT_EQ(inside->at(0).status.state, failed);
    EXPECT_EQ(inside->at(0).status.error, ENOENT);
    EXPECT_LE(inside->at(0).signalled_at, Deadline::clock::now());
}

TEST_F(SyncFileSystemTest, AFailureWakesWhoeverWaits) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    std::jthread closer([&, waiter = test::this_thread()] {
        test::until_it_polls(waiter);
        timeline.close();
    });
    auto waited = fence.wait(deadline_in(20s));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::fence_failed);
    EXPECT_EQ(waited.error().sys_errno, ENOENT);
}

TEST_F(SyncFileSystemTest, FencesTellWhoSignalsThemAndWhen) {
    SwSync left("left");
    SwSync right("right");
    const SyncFile both = merge(left.fence(1), right.fence(1));
    const auto before = Deadline::clock::now();
    left.advance(1);
    const auto after = Deadline::clock::now();
    auto fences = both.fences();
    ASSERT_TRUE(fences);
    ASSERT_EQ(fences->size(), 2U);
    std::ranges::sort(*fences, {}, &FenceInfo::timeline);
    EXPECT_EQ(fences->at(0).driver, "sw_sync");
    EXPECT_EQ(fences->at(0).timeline, "left");
    EXPECT_EQ(fences->at(0).status.state, signalled);
    EXPECT_GE(fences->at(0).signalled_at, before);
    EXPECT_LE(fences->at(0).signalled_at, after);
    EXPECT_EQ(fences->at(1).timeline, "right");
    EXPECT_EQ(fences->at(1).status.state, pending);
    right.advance(1);
}

TEST_F(SyncFileSystemTest, OfOneTimelineTheLaterFenceIsLeft) {
    SwSync timeline;
    const SyncFile first = timeline.fence(1);
    const SyncFile last = timeline.fence(3);
    for (const SyncFile& merged : {merge(first, last), merge(last, first)}) {
        EXPECT_EQ(count(merged), 1U);
        EXPECT_EQ(state_of(merged), pending);
    }
    const SyncFile merged = merge(last, first);
    timeline.advance(2);
    EXPECT_EQ(state_of(merged), pending);
    timeline.advance(1);
    EXPECT_EQ(state_of(merged), signalled);
}

TEST_F(SyncFileSystemTest, TheSameFenceTwiceIsOne) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    EXPECT_EQ(count(merge(fence, fence)), 1U);
    EXPECT_EQ(count(merge(fence, *fence.duplicate())), 1U);
    EXPECT_EQ(count(merge(fence, timeline.fence(1))), 1U);
    timeline.advance(1);
}

TEST_F(SyncFileSystemTest, OfSeveralTimelinesTheLastToSignalCounts) {
    std::array<SwSync, 4> timelines;
    std::vector<SyncFile> fences;
    for (const SwSync& timeline : timelines)
        fences.push_back(timeline.fence(1));
    const SyncFile merged = merge(fences);
    EXPECT_EQ(count(merged), 4U);
    for (const SwSync& timeline : timelines) {
        EXPECT_EQ(state_of(merged), pending);
        EXPECT_EQ(merged.wait(deadline_in(0s)).error().code, Errc::timed_out);
        timeline.advance(1);
    }
    EXPECT_EQ(state_of(merged), signalled);
    EXPECT_TRUE(merged.wait(deadline_in(5s)));
}

TEST_F(SyncFileSystemTest, WhatHasSignalledIsLeftOutOfAMerge) {
    SwSync a;
    SwSync b;
    const SyncFile done = a.fence(1);
    const SyncFile open = b.fence(1);
    a.advance(1);
    const SyncFile merged = merge(done, open);
    EXPECT_EQ(count(merged), 1U);
    EXPECT_EQ(state_of(merged), pending);
    EXPECT_EQ(count(merge(SyncFile::signalled(), open)), 1U);
    b.advance(1);
    EXPECT_EQ(state_of(merged), signalled);
    EXPECT_EQ(merge(done, open).fd(), -1) << "nothing is left to wait for";
}

TEST_F(SyncFileSystemTest, MergedOfMergedIsFlat) {
    std::array<SwSync, 4> timelines;
    const auto at = [&](std::size_t n, std::uint32_t value) { return timelines[n].fence(value); };
    const SyncFile left = merge(at(0, 1), at(1, 1));
    const SyncFile right = merge(at(2, 1), at(3, 1));
    const SyncFile all = merge(left, right);
    EXPECT_EQ(count(all), 4U);
    EXPECT_EQ(count(merge(all, left)), 4U) << "nothing new in it";
    const SyncFile later = merge(all, at(0, 2));
    EXPECT_EQ(count(later), 4U) << "the later fence takes the place of the earlier";
    for (const SwSync& timeline : timelines) {
        EXPECT_EQ(state_of(all), pending);
        timeline.advance(1);
    }
    EXPECT_EQ(state_of(all), signalled);
    EXPECT_EQ(state_of(later), pending);
    timelines[0].advance(1);
    EXPECT_EQ(state_of(later), signalled);
}

TEST_F(SyncFileSystemTest, AFailureBeforeTheMergeIsRefused) {
    SwSync dead;
    SwSync alive;
    const SyncFile fails = dead.fence(1);
    const SyncFile fine = alive.fence(1);
    dead.close();
    for (const auto& [a, b] : {std::pair(&fails, &fine), {&fine, &fails}, {&fails, &fails}}) {
        auto merged = SyncFile::merge(*a, *b);
        ASSERT_FALSE(merged);
        EXPECT_EQ(merged.error().code, Errc::fence_failed);
        EXPECT_EQ(merged.error().sys_errno, ENOENT);
    }
    EXPECT_FALSE(SyncFile::merge(std::span(&fails, 1)));
    alive.advance(1);
    EXPECT_FALSE(SyncFile::merge(fails, fine)) << "also with nothing left to wait for";
}

TEST_F(SyncFileSystemTest, AFailureAfterTheMergeIsItsOwnThoughNobodyWaited) {
    SwSync dead;
    SwSync alive;
    const SyncFile merged = merge(dead.fence(1), alive.fence(1));
    dead.close();
    EXPECT_EQ(state_of(merged), pending) << "the other one is still to be done";
    EXPECT_EQ(merged.wait(deadline_in(0s)).error().code, Errc::timed_out);
    alive.advance(1);
    expect_failed(merged);
}

TEST_F(SyncFileSystemTest, AFailureIsToldHoweverTheMergedFenceWasAskedBefore) {
    for (const bool by_poll : {false, true}) {
        for (const bool dies_first : {false, true}) {
            SwSync dead;
            SwSync alive;
            const SyncFile merged = merge(alive.fence(1), dead.fence(1));
            if (by_poll) {
                EXPECT_EQ(test::polled(merged.fd(), POLLIN), 0);
            }
            if (dies_first)
                dead.close();
            alive.advance(1);
            dead.close();
            expect_failed(merged);
            expect_failed(merged);
        }
    }
}

TEST_F(SyncFileSystemTest, ASingleFenceKeepsItsFailureThroughAMerge) {
    SwSync dead;
    SwSync done;
    const SyncFile gone = done.fence(1);
    done.advance(1);
    const SyncFile merged = merge(gone, dead.fence(1));
    dead.close();
    expect_failed(merged);
}

TEST_F(SyncFileSystemTest, RandomPointsMergeToTheLatestOfEachTimeline) {
    constexpr std::size_t timeline_count = 6;
    constexpr int points = 1024;
    std::array<SwSync, timeline_count> timelines;
    std::array<std::uint32_t, timeline_count> latest{};
    std::mt19937 random(20240607); // NOLINT: the same every time
    SyncFile merged = SyncFile::signalled();
    for (int n = 0; n < points; ++n) {
        const std::size_t which = random() % timeline_count;
        const auto value = static_cast<std::uint32_t>(1 + random() % 1000);
        merged = merge(merged, timelines[which].fence(value));
        latest[which] = std::max(latest[which], value);
        ASSERT_EQ(count(merged), static_cast<std::size_t>(std::ranges::count_if(
                                     latest, [](std::uint32_t each) { return each != 0; })));
    }
    ASSERT_EQ(count(merged), timeline_count);
    // Up to the last point of each but one step, in any order; only the very last step is enough.
    for (std::size_t n = 0; n < timeline_count; ++n) {
        timelines[n].advance(latest[n] - 1);
        ASSERT_EQ(state_of(merged), pending);
    }
    for (std::size_t n = 0; n < timeline_count; ++n) {
        ASSERT_EQ(state_of(merged), pending);
        timelines[n].advance(1);
    }
    EXPECT_EQ(state_of(merged), signalled);
}

TEST_F(SyncFileSystemTest, ManyFencesInOneCallMergeAlike) {
    constexpr std::size_t timeline_count = 20; // more than are asked for without the heap
    std::vector<SwSync> timelines(timeline_count);
    std::vector<SyncFile> fences;
    for (std::uint32_t value = 1; value <= 10; ++value)
        for (const SwSync& timeline : timelines)
            fences.push_back(timeline.fence(value));
    const SyncFile merged = merge(fences);
    EXPECT_EQ(count(merged), timeline_count);
    for (const SwSync& timeline : timelines)
        timeline.advance(9);
    EXPECT_EQ(state_of(merged), pending);
    for (const SwSync& timeline : timelines) {
        EXPECT_EQ(state_of(merged), pending);
        timeline.advance(1);
    }
    EXPECT_EQ(state_of(merged), signalled);
}

TEST_F(SyncFileSystemTest, TheDeadlineHintReachesWhoeverSignals) {
    SwSync a;
    SwSync b;
    const SyncFile one = a.fence(1);
    const SyncFile other = b.fence(1);
    const Deadline late = deadline_in(10s);
    const Deadline early = late - 5s;
    EXPECT_FALSE(a.deadline_of(one));
    auto hinted = one.hint_deadline(late);
    ASSERT_TRUE(hinted) << hinted.error().message();
    EXPECT_EQ(a.deadline_of(one), late);
    ASSERT_TRUE(merge(one, other).hint_deadline(early));
    EXPECT_EQ(a.deadline_of(one), early) << "the earliest of all who asked";
    EXPECT_EQ(b.deadline_of(other), early) << "each of the merged";
    ASSERT_TRUE(one.hint_deadline(late));
    EXPECT_EQ(a.deadline_of(one), early);
    a.advance(1);
    EXPECT_TRUE(one.hint_deadline(late)) << "too late, and no error";
    EXPECT_TRUE(other.hint_deadline(Deadline::min()));
    EXPECT_TRUE(other.hint_deadline(Deadline::max()));
}

TEST_F(SyncFileSystemTest, RefusesWhatIsNoSyncFile) {
    SwSync timeline;
    const DmaBuf buffer = test::udmabuf(4096);
    for (const int fd : {buffer.fd(), timeline.fd()}) {
        auto copy = std::move(*UniqueFd::duplicate(fd));
        auto refused = SyncFile::from_fd(std::move(copy));
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::wrong_object);
        EXPECT_TRUE(copy) << "stays the caller's";
    }
}

TEST_F(SyncFileSystemTest, AClosedOrTakenNumberIsToldByEveryCall) {
    SwSync timeline;
    const SyncFile fine = timeline.fence(1);
    const SyncFile stale = timeline.fence(2);
    const DmaBuf buffer = test::udmabuf(4096);
    const auto refused = [](const auto& result) {
        return !result && result.error().code == Errc::wrong_object;
    };
    for (const bool taken : {false, true}) {
        const int number = stale.fd();
        close(number);
        if (taken) {
            ASSERT_EQ(dup3(buffer.fd(), number, O_CLOEXEC), number);
        }
        EXPECT_TRUE(refused(stale.status()));
        EXPECT_TRUE(refused(stale.fences()));
        EXPECT_TRUE(refused(SyncFile::merge(fine, stale)));
        EXPECT_FALSE(SyncFile::merge(stale, fine));
        EXPECT_FALSE(stale.wait(deadline_in(0s)));
        EXPECT_FALSE(stale.hint_deadline(deadline_in(0s)));
        EXPECT_FALSE(buffer.import_fence(stale, Access::write));
        if (!taken) {
            ASSERT_EQ(dup3(buffer.fd(), number, O_CLOEXEC), number);
        }
    }
}

TEST_F(SyncFileSystemTest, WithNoFdLeftNothingIsMerged) {
    SwSync a;
    SwSync b;
    SwSync c;
    const std::array fences{a.fence(1), b.fence(1), c.fence(1)};
    {
        const test::FdLimit none_left;
        EXPECT_EQ(SyncFile::merge(fences).error().code, Errc::no_resources);
        EXPECT_EQ(fences[0].duplicate().error().code, Errc::no_resources);
        EXPECT_EQ(SyncFile::merge(std::span(fences).first(1)).error().code, Errc::no_resources);
    }
    {
        const test::FdLimit one_left(1); // the second merge needs another before the first is gone
        EXPECT_EQ(SyncFile::merge(fences).error().code, Errc::no_resources);
    }
    for (const SyncFile& fence : fences)
        EXPECT_EQ(state_of(fence), pending);
    EXPECT_EQ(count(merge(fences)), 3U);
}

TEST_F(SyncFileSystemTest, AFailureInsideAMergedFenceThatIsPendingIsNotMergedAway) {
    SwSync dead;
    SwSync alive;
    SwSync other;
    auto merged = SyncFile::merge(dead.fence(1), alive.fence(1));
    ASSERT_TRUE(merged);
    dead.close(); // failed for good, while the whole is still pending
    EXPECT_EQ(merged->status()->state, FenceState::pending);
    EXPECT_EQ(SyncFile::merge(*merged, other.fence(1)).error().code, Errc::fence_failed);
}

TEST_F(SyncFileSystemTest, ADeadlineLongAgoIsOver) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    std::jthread rescue([&] {
        std::this_thread::sleep_for(500ms);
        timeline.advance(1);
    });
    EXPECT_EQ(fence.wait(Deadline::min()).error().code, Errc::timed_out);
}

} // namespace
} // namespace sluice
