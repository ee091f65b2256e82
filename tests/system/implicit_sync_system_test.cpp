// SPDX-License-Identifier: MIT
// The fences in a buffer on a real kernel: whom they hold, and how that is waited for.
#include <sluice/implicit_sync.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <sluice/cpu_access.hpp>

#include "support/asleep.hpp"
#include "support/fd_limit.hpp"
#include "support/real_kernel.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::accesses;
using test::polled;
using test::state_of;
using test::SwSync;
using test::udmabuf;
using enum FenceState;

using ImplicitSyncSystemTest = test::RealKernelTest;

/// What \p access to \p buffer is told, in each of the ways to ask, must be this.
void expect_held(const DmaBuf& buffer, Access access, bool held) {
    EXPECT_EQ(state_of(buffer.export_fence(access)), held ? pending : signalled);
    const short events = DmaBuf::poll_events(access);
    EXPECT_EQ(polled(buffer.fd(), events), held ? 0 : events);
    auto waited = buffer.wait(access, deadline_in(held ? 1ms : 5s));
    EXPECT_EQ(waited.has_value(), !held);
    if (held && !waited) {
        EXPECT_EQ(waited.error().code, Errc::timed_out);
    }
    auto before = fence_before(buffer, access);
    ASSERT_TRUE(before) << before.error().message();
    ASSERT_NE(before->sync_file(), nullptr);
    EXPECT_EQ(state_of(*before->sync_file()), held ? pending : signalled);
    EXPECT_EQ(polled(before->fd(), before->poll_events()), held ? 0 : before->poll_events());
    EXPECT_EQ(before->wait(deadline_in(held ? 1ms : 5s)).has_value(), !held);
}

TEST_F(ImplicitSyncSystemTest, EveryFenceHoldsThoseItShouldAndNobodyElse) {
    enum class Left { nothing, pending, done_before, done_after, failed_before, failed_after };
    using enum Left;
    for (const Left left :
         {nothing, Left::pending, done_before, done_after, failed_before, failed_after})
        for (const Access as : accesses) {
            SwSync timeline;
            const DmaBuf buffer = udmabuf(4096);
            const SyncFile fence = timeline.fence(1);
            if (left == done_before)
                timeline.advance(1);
            if (left == failed_before)
                timeline.close();
            if (left != nothing) {
                ASSERT_TRUE(buffer.import_fence(fence, as));
            }
            if (left == done_after)
                timeline.advance(1);
            if (left == failed_after)
                timeline.close();
            for (const Access asked : accesses) {
                SCOPED_TRACE("fence " + std::to_string(static_cast<int>(left)) + " left as " +
                             std::string(to_string(as)) + ", asked for " +
                             std::string(to_string(asked)));
                expect_held(buffer, asked, left == Left::pending && (writes(as) || writes(asked)));
            }
        }
}

TEST_F(ImplicitSyncSystemTest, PollTellsBothDirectionsAtOnceAndApart) {
    const DmaBuf buffer = udmabuf(4096);
    EXPECT_EQ(polled(buffer.fd(), POLLIN | POLLOUT), POLLIN | POLLOUT);
    SwSync reader;
    ASSERT_TRUE(buffer.import_fence(reader.fence(1), Access::read));
    EXPECT_EQ(polled(buffer.fd(), POLLIN | POLLOUT), POLLIN);
    SwSync writer;
    ASSERT_TRUE(buffer.import_fence(writer.fence(1), Access::write));
    EXPECT_EQ(polled(buffer.fd(), POLLIN | POLLOUT), 0);
    writer.advance(1);
    EXPECT_EQ(polled(buffer.fd(), POLLIN | POLLOUT), POLLIN);
    reader.advance(1);
    EXPECT_EQ(polled(buffer.fd(), POLLIN | POLLOUT), POLLIN | POLLOUT);
    EXPECT_EQ(polled(buffer.fd(), 0), 0) << "who asks for nothing is told nothing";
}

TEST_F(ImplicitSyncSystemTest, AFenceThatWasExportedBeforeSignalsWithTheWork) {
    for (const Access as : accesses) {
        SwSync timeline;
        const DmaBuf buffer = udmabuf(4096);
        ASSERT_TRUE(buffer.import_fence(timeline.fence(1), as));
        auto exported = buffer.export_fence(Access::write);
        ASSERT_TRUE(exported);
        EXPECT_EQ(state_of(*exported), pending);
        EXPECT_EQ(exported->fences()->at(0).driver, "sw_sync") << "the very fence that was left";
        timeline.advance(1);
        EXPECT_EQ(state_of(*exported), signalled);
        EXPECT_TRUE(exported->wait(deadline_in(5s)));
    }
}

TEST_F(ImplicitSyncSystemTest, AnExportedFenceIsASnapshot) {
    for (const Access later : accesses) {
        SwSync first;
        SwSync second;
        const DmaBuf buffer = udmabuf(4096);
        const SyncFile idle = std::move(*buffer.export_fence(Access::write));
        ASSERT_TRUE(buffer.import_fence(first.fence(1), Access::write));
        const SyncFile snapshot = std::move(*buffer.export_fence(Access::write));
        ASSERT_TRUE(buffer.import_fence(second.fence(1), later));
        EXPECT_EQ(state_of(idle), signalled);
        first.advance(1);
        EXPECT_TRUE(snapshot.wait(deadline_in(5s)));
        EXPECT_EQ(state_of(buffer.export_fence(Access::write)), pending);
        second.advance(1);
    }
}

TEST_F(ImplicitSyncSystemTest, AWriterWaitsForEachOfManyReaders) {
    constexpr std::size_t readers = 32;
    std::vector<SwSync> timelines(readers);
    const DmaBuf buffer = udmabuf(4096);
    for (const SwSync& timeline : timelines)
        ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::read));
    expect_held(buffer, Access::read, false);
    const SyncFile all = std::move(*buffer.export_fence(Access::write));
    EXPECT_EQ(all.fences()->size(), readers);
    std::jthread writer([&] { EXPECT_TRUE(buffer.wait(Access::write, deadline_in(20s))); });
    for (std::size_t left = readers; left > 0; --left) {
        EXPECT_EQ(state_of(all), pending);
        EXPECT_EQ(polled(buffer.fd(), POLLOUT), 0);
        EXPECT_EQ(buffer.export_fence(Access::write)->fences()->size(), left);
        timelines[left - 1].advance(1);
    }
    EXPECT_EQ(state_of(all), signalled);
    expect_held(buffer, Access::write, false);
}

TEST_F(ImplicitSyncSystemTest, AWriteFenceTakesNoReadFencesAway) {
    SwSync a;
    SwSync b;
    SwSync writer;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(a.fence(1), Access::read));
    ASSERT_TRUE(buffer.import_fence(b.fence(1), Access::read));
    ASSERT_TRUE(buffer.import_fence(writer.fence(1), Access::write));
    EXPECT_EQ(buffer.export_fence(Access::read)->fences()->size(), 1U);
    EXPECT_EQ(buffer.export_fence(Access::write)->fences()->size(), 3U);
    writer.advance(1);
    expect_held(buffer, Access::read, false);
    expect_held(buffer, Access::write, true);
    a.advance(1);
    expect_held(buffer, Access::write, true);
    b.advance(1);
    expect_held(buffer, Access::write, false);
}

TEST_F(ImplicitSyncSystemTest, ALaterFenceOfOneTimelineTakesTheEarliersPlace) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    for (std::uint32_t value = 1; value <= 16; ++value)
        ASSERT_TRUE(buffer.import_fence(timeline.fence(value), Access::write));
    EXPECT_EQ(buffer.export_fence(Access::read)->fences()->size(), 1U);
    timeline.advance(15);
    expect_held(buffer, Access::read, true);
    timeline.advance(1);
    expect_held(buffer, Access::read, false);
}

TEST_F(ImplicitSyncSystemTest, AFenceThatNeedsNoFdLeavesNothing) {
    const DmaBuf buffer = udmabuf(4096);
    for (const Access access : accesses) {
        EXPECT_TRUE(buffer.import_fence(SyncFile::signalled(), access));
        EXPECT_TRUE(fence_after(buffer, SyncFile::signalled(), access, deadline_in(0s)));
        expect_held(buffer, access, false);
    }
}

TEST_F(ImplicitSyncSystemTest, TheSameFenceTwiceHoldsOnce) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const SyncFile fence = timeline.fence(1);
    ASSERT_TRUE(buffer.import_fence(fence, Access::read));
    ASSERT_TRUE(buffer.import_fence(fence, Access::read));
    EXPECT_EQ(buffer.export_fence(Access::write)->fences()->size(), 1U);
    ASSERT_TRUE(buffer.import_fence(fence, Access::write));
    EXPECT_EQ(SyncFile::merge(*buffer.export_fence(Access::write), fence)->fences()->size(), 1U);
    expect_held(buffer, Access::read, true);
    timeline.advance(1);
    expect_held(buffer, Access::write, false);
}

TEST_F(ImplicitSyncSystemTest, OneFenceHoldsManyBuffers) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    std::vector<DmaBuf> buffers;
    for (int n = 0; n < 64; ++n) {
        buffers.push_back(udmabuf(4096));
        ASSERT_TRUE(buffers.back().import_fence(fence, Access::write));
    }
    for (const DmaBuf& buffer : buffers)
        EXPECT_EQ(polled(buffer.fd(), POLLIN), 0);
    timeline.advance(1);
    for (const DmaBuf& buffer : buffers)
        EXPECT_TRUE(buffer.wait(Access::write, deadline_in(5s)));
}

TEST_F(ImplicitSyncSystemTest, AMergedFenceGoesInAsItsParts) {
    std::array<SwSync, 3> timelines;
    const DmaBuf from = udmabuf(4096);
    const DmaBuf to = udmabuf(4096);
    for (const SwSync& timeline : timelines)
        ASSERT_TRUE(from.import_fence(timeline.fence(1), Access::read));
    ASSERT_TRUE(to.import_fence(*from.export_fence(Access::write), Access::write));
    EXPECT_EQ(to.export_fence(Access::read)->fences()->size(), 3U);
    timelines[0].advance(1);
    EXPECT_EQ(to.export_fence(Access::read)->fences()->size(), 2U);
    timelines[1].advance(1);
    timelines[2].advance(1);
    expect_held(to, Access::write, false);
}

TEST_F(ImplicitSyncSystemTest, AFenceThatWasExportedCanBeLeftInTheSameBufferAgain) {
    SwSync writer;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(writer.fence(1), Access::write));
    const SyncFile before = std::move(*buffer.export_fence(Access::read));
    ASSERT_TRUE(buffer.import_fence(before, Access::read));
    EXPECT_EQ(SyncFile::merge(before, *buffer.export_fence(Access::write))->fences()->size(), 1U);
    writer.advance(1);
    expect_held(buffer, Access::write, false);
}

TEST_F(ImplicitSyncSystemTest, AFailureIsToldToWhoeverWaitsForItAndToNobodyAfter) {
    for (const bool alone : {true, false}) {
        SwSync dead;
        SwSync alive;
        const DmaBuf buffer = udmabuf(4096);
        ASSERT_TRUE(buffer.import_fence(dead.fence(1), Access::write));
        if (!alone) {
            ASSERT_TRUE(buffer.import_fence(alive.fence(1), Access::write));
        }
        const SyncFile snapshot = std::move(*buffer.export_fence(Access::read));
        const ImplicitFence before = std::move(*fence_before(buffer, Access::write));
        std::jthread closer([&, waiter = test::this_thread()] {
            test::until_it_polls(waiter);
            dead.close();
            alive.advance(1);
        });
        auto waited = buffer.wait(Access::read, deadline_in(20s));
        ASSERT_FALSE(waited);
        EXPECT_EQ(waited.error().code, Errc::fence_failed);
        EXPECT_EQ(waited.error().sys_errno, ENOENT);
        EXPECT_EQ(waited.error().operation, "DmaBuf::wait");
        EXPECT_NE(waited.error().object.find("ino " + std::to_string(buffer.inode())),
                  std::string::npos)
            << waited.error().message();
        closer.join();
        EXPECT_EQ(snapshot.wait(deadline_in(5s)).error().code, Errc::fence_failed);
        EXPECT_EQ(before.wait(deadline_in(5s)).error().code, Errc::fence_failed);
        expect_held(buffer, Access::write, false);
    }
}

TEST_F(ImplicitSyncSystemTest, ThisKernelGivesAndTakesFences) {
    auto caps = implicit_sync_caps(udmabuf(4096));
    ASSERT_TRUE(caps) << caps.error().message();
    EXPECT_TRUE(caps->export_fence);
    EXPECT_TRUE(caps->import_fence);
}

TEST_F(ImplicitSyncSystemTest, HandingOverWaitsForNothing) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(fence_after(buffer, timeline.fence(1), Access::read, deadline_in(0s)));
    expect_held(buffer, Access::write, true);
    timeline.advance(1);
}

/// One buffer in an epoll set.
class Epoll {
public:
    Epoll(const DmaBuf& buffer, std::uint32_t events) : fd_(epoll_create1(EPOLL_CLOEXEC)) {
        change(EPOLL_CTL_ADD, buffer, events);
    }
    void rearm(const DmaBuf& buffer, std::uint32_t events) {
        change(EPOLL_CTL_MOD, buffer, events);
    }
    /// The events that come within \p timeout; 0 for none.
    [[nodiscard]] std::uint32_t wait(std::chrono::milliseconds timeout) const {
        epoll_event event{};
        const int ready = epoll_wait(fd_.get(), &event, 1, static_cast<int>(timeout.count()));
        EXPECT_GE(ready, 0);
        return ready == 1 ? event.events : 0;
    }

private:
    void change(int operation, const DmaBuf& buffer, std::uint32_t events) {
        epoll_event event{.events = events, .data = {}};
        EXPECT_EQ(epoll_ctl(fd_.get(), operation, buffer.fd(), &event), 0);
    }
    UniqueFd fd_;
};

std::uint32_t epoll_events(Access access) {
    return static_cast<std::uint32_t>(DmaBuf::poll_events(access));
}

TEST_F(ImplicitSyncSystemTest, EpollTellsTheStateAsLongAsItLasts) {
    for (const Access access : accesses) {
        SwSync timeline;
        const DmaBuf buffer = udmabuf(4096);
        const std::uint32_t events = epoll_events(access);
        const Epoll epoll(buffer, events);
        for (std::uint32_t round = 1; round <= 3; ++round) {
            EXPECT_EQ(epoll.wait(0ms), events) << "idle";
            EXPECT_EQ(epoll.wait(0ms), events) << "and still idle";
            ASSERT_TRUE(buffer.import_fence(timeline.fence(round), Access::write));
            EXPECT_EQ(epoll.wait(5ms), 0U) << "a fence that came after it was added";
            std::jthread signaller([&] {
                std::this_thread::sleep_for(10ms);
                timeline.advance(1);
            });
            EXPECT_EQ(epoll.wait(10s), events);
        }
    }
}

TEST_F(ImplicitSyncSystemTest, EpollWaitsForTheLastOfSeveralFences) {
    std::array<SwSync, 4> timelines;
    const DmaBuf buffer = udmabuf(4096);
    for (const SwSync& timeline : timelines)
        ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::read));
    const Epoll epoll(buffer, EPOLLIN | EPOLLOUT);
    EXPECT_EQ(epoll.wait(0ms), EPOLLIN) << "readers hold no reader";
    const Epoll writer(buffer, EPOLLOUT);
    for (const SwSync& timeline : timelines) {
        EXPECT_EQ(writer.wait(2ms), 0U);
        timeline.advance(1);
    }
    EXPECT_EQ(writer.wait(10s), EPOLLOUT);
    EXPECT_EQ(epoll.wait(10s), EPOLLIN | EPOLLOUT);
}

TEST_F(ImplicitSyncSystemTest, EpollOneShotTellsOncePerArming) {
    SwSync timeline;
    DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    Epoll epoll(buffer, EPOLLIN | EPOLLONESHOT);
    EXPECT_EQ(epoll.wait(2ms), 0U);
    timeline.advance(1);
    EXPECT_EQ(epoll.wait(10s), EPOLLIN);
    EXPECT_EQ(epoll.wait(2ms), 0U) << "idle, but told already";
    ASSERT_TRUE(buffer.import_fence(timeline.fence(2), Access::write));
    epoll.rearm(buffer, EPOLLIN | EPOLLONESHOT);
    EXPECT_EQ(epoll.wait(2ms), 0U);
    timeline.advance(1);
    EXPECT_EQ(epoll.wait(10s), EPOLLIN);
    epoll.rearm(buffer, EPOLLIN | EPOLLONESHOT);
    EXPECT_EQ(epoll.wait(10s), EPOLLIN) << "arming looks at the state";
}

// Whoever polls an idle buffer wakes all who poll it, himself included, so that a look at one is an
// edge for the next look.
TEST_F(ImplicitSyncSystemTest, EpollEdgesTellTheStateAsLongAsItLasts) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const Epoll epoll(buffer, EPOLLIN | EPOLLET);
    for (std::uint32_t round = 1; round <= 3; ++round) {
        EXPECT_EQ(epoll.wait(10s), EPOLLIN) << "idle";
        EXPECT_EQ(epoll.wait(10s), EPOLLIN) << "and still idle";
        ASSERT_TRUE(buffer.import_fence(timeline.fence(round), Access::write));
        EXPECT_EQ(epoll.wait(2ms), 0U);
        timeline.advance(1);
    }
}

TEST_F(ImplicitSyncSystemTest, SeveralPollersWakeTogether) {
    SwSync reader;
    SwSync writer;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(writer.fence(1), Access::write));
    ASSERT_TRUE(buffer.import_fence(reader.fence(1), Access::read));
    std::array<short, 8> told{};
    std::array<bool, 4> waited{};
    {
        std::vector<std::jthread> threads;
        for (std::size_t n = 0; n < told.size(); ++n)
            threads.emplace_back([&, n] { // half of them through a fd of their own
                auto own = buffer.duplicate();
                pollfd entry{.fd = n % 2 == 0 ? own->fd() : buffer.fd(),
                             .events = static_cast<short>(n < 4 ? POLLIN : POLLOUT),
                             .revents = 0};
                if (poll(&entry, 1, 20000) == 1)
                    told[n] = entry.revents;
            });
        for (std::size_t n = 0; n < waited.size(); ++n)
            threads.emplace_back([&, n] {
                waited[n] =
                    buffer.wait(n < 2 ? Access::read : Access::write, deadline_in(20s)).has_value();
            });
        std::this_thread::sleep_for(20ms);
        writer.advance(1);
        std::this_thread::sleep_for(20ms);
        reader.advance(1);
    }
    EXPECT_EQ(std::ranges::count(told, POLLIN), 4);
    EXPECT_EQ(std::ranges::count(told, POLLOUT), 4);
    EXPECT_EQ(std::ranges::count(waited, true), 4);
}

TEST_F(ImplicitSyncSystemTest, AWaitGoesOnForFencesThatCameMeanwhile) {
    SwSync first;
    SwSync second;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(first.fence(1), Access::write));
    std::jthread others([&, waiter = test::this_thread()] {
        test::until_it_polls(waiter);
        EXPECT_TRUE(buffer.import_fence(second.fence(1), Access::write));
        first.advance(1);
        std::this_thread::sleep_for(20ms);
        second.advance(1);
    });
    EXPECT_TRUE(buffer.wait(Access::read, deadline_in(20s)));
    others.join();
    expect_held(buffer, Access::write, false);
}

TEST_F(ImplicitSyncSystemTest, AThousandCyclesLeaveNothingBehind) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const CpuMap map = std::move(*CpuMap::map(buffer, Access::read_write));
    const auto before = test::open_fds();
    const auto cycle = [&](std::uint32_t number) {
        auto fence = fence_before(buffer, Access::write);
        ASSERT_TRUE(fence) << fence.error().message();
        ASSERT_TRUE(fence_after(buffer, timeline.fence(number), Access::write, deadline_in(0s)));
        timeline.advance(1);
        auto access = CpuAccess::begin(map, Access::read_write, deadline_in(5s));
        ASSERT_TRUE(access) << access.error().message();
        ASSERT_TRUE(access->end());
    };
    for (std::uint32_t number = 1; number <= 1000 && !HasFailure(); ++number) {
        cycle(number);
        if (number % 100 == 0) {
            EXPECT_EQ(test::open_fds(), before) << "after cycle " << number;
        }
    }
    EXPECT_EQ(buffer.info()->references, 3U) << "our fd, the mapping and its fd";
}

TEST_F(ImplicitSyncSystemTest, ANumberThatAnotherObjectTookTeachesNothingAboutTheKernel) {
    SwSync timeline;
    const DmaBuf fine = udmabuf(4096);
    {
        const DmaBuf stale = udmabuf(4096);
        const UniqueFd event(eventfd(0, EFD_CLOEXEC)); // says ENOTTY, as an old kernel would
        ASSERT_EQ(dup3(event.get(), stale.fd(), O_CLOEXEC), stale.fd());
        EXPECT_EQ(stale.wait(Access::read, deadline_in(10ms)).error().code, Errc::wrong_object);
        EXPECT_EQ(fence_before(stale, Access::read).error().code, Errc::wrong_object);
        EXPECT_EQ(
            fence_after(stale, timeline.fence(1), Access::read, deadline_in(1ms)).error().code,
            Errc::wrong_object);
    }
    EXPECT_TRUE(implicit_sync_caps(fine)->export_fence);
    EXPECT_TRUE(implicit_sync_caps(fine)->import_fence);
    EXPECT_NE(fence_before(fine, Access::write)->sync_file(), nullptr);
}

} // namespace
} // namespace sluice
