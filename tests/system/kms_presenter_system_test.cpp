// SPDX-License-Identifier: MIT
// Frames at a real display's pace, and what that costs.
#include <sluice/kms_presenter.hpp>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/epoll.h>
#include <xf86drm.h>

#include <sluice/dumb.hpp>
#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>

#include "support/allocations.hpp"
#include "support/drm_cards.hpp"
#include "support/footprint.hpp"
#include "support/kms_by_hand.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/syscall_counter.hpp"
#include "support/vkms.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::make_frame;
using test::SwSync;
using Kind = KmsPresentEvent::Kind;

constexpr std::uint32_t width = 640;
constexpr std::uint32_t height = 480;
constexpr auto patience = 10s;

class KmsPresenterSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        file = test::open_drm("vkms");
        SLUICE_REQUIRES(file, "no vkms card");
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
        card.emplace(*KmsDevice::wrap(file.get()));
        for (int i = 0; i < 3; ++i)
            frames.push_back(make_frame(width, height));
    }
    void TearDown() override {
        presenter.reset();
        frames.clear();
        card.reset();
        file.reset();
        FdTest::TearDown();
    }
    void start(const KmsPresenterInfo& info = {}) {
        auto output = card->find_output({.width = width, .height = height, .writeback = true});
        ASSERT_TRUE(output) << output.error().message();
        auto made = KmsPresenter::create(std::move(*output), info);
        ASSERT_TRUE(made) << made.error().message();
        presenter.emplace(std::move(*made));
        period = std::chrono::nanoseconds(1'000'000'000'000 / presenter->output().refresh_mhz());
    }
    Result<void> present(std::uint64_t id, KmsCommit commit = {}) {
        const KmsFramebuffer framebuffer = *card->attach(frames[id % frames.size()]);
        commit.framebuffer = &framebuffer;
        return presenter->present(commit, {.id = id}, deadline_in(patience));
    }
    std::vector<KmsPresentEvent> events() {
        std::vector<KmsPresentEvent> all;
        while (auto event = presenter->event())
            all.push_back(std::move(*event));
        return all;
    }

    UniqueFd file;
    std::optional<KmsDevice> card;
    std::vector<Frame> frames;
    std::optional<KmsPresenter> presenter;
    std::chrono::nanoseconds period{};
};

TEST_F(KmsPresenterSystemTest, EachIsShownForARefreshOfItsOwn) {
    constexpr std::uint64_t count = 60;
    start();
    const Deadline begin = Deadline::clock::now();
    std::vector<KmsPresentEvent> all;
    for (std::uint64_t i = 0; i < count; ++i) {
        ASSERT_TRUE(present(i));
        std::ranges::move(events(), std::back_inserter(all));
    }
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));
    const Deadline end = Deadline::clock::now();
    std::ranges::move(events(), std::back_inserter(all));
    ASSERT_EQ(all.size(), 2 * count - 1);
    Deadline before = begin;
    unsigned missed = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        const KmsPresentEvent& shown = all[2 * i];
        ASSERT_EQ(shown.kind, Kind::shown);
        ASSERT_EQ(shown.id, i);
        EXPECT_LE(shown.time, end);
        if (i > 0) {
            EXPECT_GE(shown.time - before, period * 9 / 10) << "two within one refresh";
            EXPECT_GE(shown.time - before, period * shown.missed);
        }
        before = shown.time;
        missed += shown.missed;
        if (i + 1 < count) {
            const KmsPresentEvent& left = all[2 * i + 1];
            ASSERT_EQ(left.kind, Kind::left);
            ASSERT_EQ(left.id, i);
            EXPECT_EQ(left.fence->status()->state, FenceState::signalled);
        }
    }
    std::printf("%d frames in %.2f refreshes of %.2f ms; %u missed\n", static_cast<int>(count),
                std::chrono::duration<double>(before - begin) /
                    std::chrono::duration<double>(period),
                std::chrono::duration<double, std::milli>(period).count(), missed);
}

TEST_F(KmsPresenterSystemTest, OneFdServesAnEventLoopForAllFlips) {
    start();
    const UniqueFd loop(epoll_create1(EPOLL_CLOEXEC));
    const auto fd = presenter->fd();
    ASSERT_TRUE(fd) << fd.error().message();
    epoll_event event{.events = EPOLLIN, .data = {}};
    ASSERT_EQ(epoll_ctl(loop.get(), EPOLL_CTL_ADD, *fd, &event), 0);
    const auto ready = [&](int milliseconds) {
        return epoll_wait(loop.get(), &event, 1, milliseconds);
    };
    EXPECT_EQ(ready(0), 0) << "nothing is under way";
    std::uint64_t next = 0;
    ASSERT_TRUE(present(next++));
    unsigned shown = 0, idle_wakeups = 0;
    while (shown < 20) {
        ASSERT_EQ(ready(10'000), 1) << shown;
        ASSERT_TRUE(presenter->dispatch());
        const auto news = events();
        idle_wakeups += news.empty();
        for (const auto& each : news)
            if (each.kind == Kind::shown && ++shown < 20) {
                ASSERT_TRUE(present(next++));
            }
        ASSERT_EQ(*presenter->fd(), *fd);
    }
    EXPECT_EQ(idle_wakeups, 0U);
    EXPECT_EQ(ready(0), 0) << "nothing is under way any more";

    SwSync timeline; // moved on by the loop alone, though the flip comes late
    const SyncFile fence = timeline.fence(1);
    ASSERT_TRUE(present(next, {.in_fence = &fence}));
    EXPECT_EQ(ready(100), 0);
    timeline.advance(1);
    EXPECT_EQ(ready(10'000), 1);
    EXPECT_EQ(ready(0), 1) << "until it is dispatched";
    ASSERT_TRUE(presenter->dispatch());
    EXPECT_EQ(ready(0), 0);
}

TEST_F(KmsPresenterSystemTest, AFrameThatIsDrawnLateIsCountedAndBlocksNobody) {
    start({.queue_length = 2});
    ASSERT_TRUE(present(0));
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));
    events();
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    ASSERT_TRUE(present(1, {.in_fence = &fence}));
    ASSERT_TRUE(present(2));
    const Deadline begin = Deadline::clock::now();
    const auto late = presenter->finish(begin + 500ms);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Errc::timed_out) << late.error().message();
    timeline.advance(1);
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));
    const auto all = events();
    ASSERT_EQ(all.size(), 4U) << "0 has left, 1 was shown and has left, 2 was shown";
    EXPECT_EQ(all[1].kind, Kind::shown);
    EXPECT_EQ(all[1].id, 1U);
    EXPECT_GE(all[1].missed, 500ms / period - 2);
    EXPECT_GE(all[1].time, begin + 500ms);
    EXPECT_EQ(all[3].id, 2U);
}

TEST_F(KmsPresenterSystemTest, AMailboxNeverBlocksAndShowsTheLast) {
    constexpr std::uint64_t count = 200;
    start({.mode = KmsPresentMode::mailbox});
    std::map<Kind, std::vector<std::uint64_t>> seen;
    const auto note = [&] {
        for (const auto& each : events())
            seen[each.kind].push_back(each.id);
    };
    SwSync timeline; // the display stands still for the first hundred
    const SyncFile fence = timeline.fence(1);
    for (std::uint64_t i = 0; i < count; ++i) {
        const KmsFramebuffer framebuffer = *card->attach(frames[i % 3]);
        const KmsCommit commit{.framebuffer = &framebuffer, .in_fence = i == 0 ? &fence : nullptr};
        ASSERT_TRUE(presenter->present(commit, {.id = i}, Deadline::min()));
        note();
        if (i == count / 2) {
            EXPECT_EQ(seen[Kind::dropped].size(), count / 2 - 1);
            timeline.advance(1);
        }
    }
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));
    note();
    EXPECT_EQ(seen[Kind::shown].size() + seen[Kind::dropped].size(), count);
    EXPECT_EQ(seen[Kind::shown].front(), 0U);
    EXPECT_EQ(seen[Kind::shown].back(), count - 1);
    EXPECT_TRUE(std::ranges::is_sorted(seen[Kind::shown]));
    EXPECT_EQ(seen[Kind::left].size() + 1, seen[Kind::shown].size());
    std::printf("of %d frames %zu were shown and %zu dropped\n", static_cast<int>(count),
                seen[Kind::shown].size(), seen[Kind::dropped].size());
}

TEST_F(KmsPresenterSystemTest, WhoeverDrawsNextIsHeldUntilTheFrameHasLeft) {
    start();
    ASSERT_TRUE(present(0));
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    ASSERT_TRUE(present(1, {.in_fence = &fence, .fence_leaving = true}));
    const DmaBuf& buffer = frames[0].buffer();
    EXPECT_FALSE(*buffer.idle(Access::write)) << "it is shown still";
    EXPECT_TRUE(*buffer.idle(Access::read)) << "reading tears nothing";
    EXPECT_EQ(buffer.wait(Access::write, deadline_in(100ms)).error().code, Errc::timed_out);
    const auto left = events();
    ASSERT_EQ(left.back().kind, Kind::left);
    EXPECT_EQ(left.back().fence->status()->state, FenceState::pending);
    timeline.advance(1);
    EXPECT_TRUE(buffer.wait(Access::write, deadline_in(patience)));
    EXPECT_EQ(left.back().fence->status()->state, FenceState::signalled);

    ASSERT_TRUE(present(2));
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));
    const SyncFile again = timeline.fence(2);
    ASSERT_TRUE(present(0, {.in_fence = &again}));
    EXPECT_TRUE(*frames[2].buffer().idle(Access::write)) << "it was not asked for";
    timeline.advance(1);
}

TEST_F(KmsPresenterSystemTest, AFrameThatNobodyElseHasIsKeptUntilItHasLeft) {
    start();
    ino_t inode = 0;
    {
        const Frame frame = make_frame(width, height);
        inode = frame.buffer().inode();
        const KmsFramebuffer framebuffer = *card->attach(frame);
        ASSERT_TRUE(present(0));
        ASSERT_TRUE(
            presenter->present({.framebuffer = &framebuffer}, {.id = 1}, deadline_in(patience)));
    }
    card->drop_idle_framebuffers();
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));
    const auto shown = presenter->output().on_screen();
    ASSERT_TRUE(shown) << shown.error().message();
    EXPECT_EQ(shown->inode(), inode);
}

TEST_F(KmsPresenterSystemTest, CapturesFollowTheFramesThatAskForThem) {
    start();
    const Frame captured = make_frame(width, height);
    const KmsFramebuffer into = *card->attach(captured);
    for (std::uint64_t i = 0; i < 6; ++i) {
        test::paint(frames[i % 3], static_cast<std::uint32_t>(i));
        ASSERT_TRUE(present(i, {.writeback = i % 2 == 0 ? &into : nullptr}));
        ASSERT_TRUE(presenter->finish(deadline_in(patience)));
        for (const auto& each : events()) {
            if (each.kind != Kind::shown)
                continue;
            ASSERT_EQ(each.writeback_fence != nullptr, i % 2 == 0);
            if (each.writeback_fence) {
                ASSERT_TRUE(each.writeback_fence->wait(deadline_in(patience)));
                EXPECT_EQ(test::differing_pixels(frames[i % 3], captured), 0U);
            }
        }
    }
}

TEST_F(KmsPresenterSystemTest, ALostMasterIsToldAndNothingIsMadeAnew) {
    start();
    for (std::uint64_t i = 0; i < 3; ++i)
        ASSERT_TRUE(present(i));
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));
    const std::uint32_t id = card->attach(frames[0])->id();
    events();
    ASSERT_EQ(drmDropMaster(file.get()), 0) << strerror(errno);
    const auto lost = present(3);
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, Errc::not_master) << lost.error().message();
    ASSERT_EQ(drmSetMaster(file.get()), 0) << strerror(errno);

    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    ASSERT_TRUE(present(3, {.in_fence = &fence}));
    ASSERT_TRUE(present(4)) << "waits";
    ASSERT_EQ(drmDropMaster(file.get()), 0) << strerror(errno);
    timeline.advance(1);
    const auto waits = presenter->finish(deadline_in(patience));
    ASSERT_FALSE(waits);
    EXPECT_EQ(waits.error().code, Errc::not_master) << waits.error().message();
    EXPECT_EQ(presenter->pending(), 1U);
    ASSERT_EQ(drmSetMaster(file.get()), 0) << strerror(errno);
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));
    EXPECT_EQ(presenter->pending(), 0U);
    EXPECT_TRUE(same_buffer(*presenter->output().on_screen(), frames[1].buffer()));
    EXPECT_EQ(card->attach(frames[0])->id(), id) << "it was made anew";
}

/// Cards with frames of their own, whatever they think of those of others.
class KmsPresenterCardsSystemTest : public test::FdTest,
                                    public testing::WithParamInterface<const char*> {};

TEST_P(KmsPresenterCardsSystemTest, FramesFollowOneAnother) {
    const UniqueFd file = test::open_drm(GetParam()), maker = test::open_drm(GetParam());
    if (!file && std::string_view(GetParam()) == "cirrus")
        GTEST_SKIP() << "no cirrus card (tests/vm/run --device cirrus-vga, and modprobe cirrus)";
    SLUICE_REQUIRES(file, "no such card");
    SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    const KmsDevice card = *KmsDevice::wrap(file.get());
    auto output = card.find_output({});
    ASSERT_TRUE(output) << output.error().message();
    const auto exporter = DumbExporter::wrap(maker.get());
    ASSERT_TRUE(exporter) << exporter.error().message();
    std::vector<KmsFramebuffer> framebuffers;
    for (int i = 0; i < 3; ++i) {
        auto frame = (*exporter)->allocate_frame(
            {.width = output->width(), .height = output->height(), .format = DRM_FORMAT_XRGB8888});
        ASSERT_TRUE(frame) << frame.error().message();
        auto framebuffer = card.attach(*frame);
        ASSERT_TRUE(framebuffer) << framebuffer.error().message();
        framebuffers.push_back(*framebuffer);
    }
    auto screen = KmsPresenter::create(std::move(*output), {.queue_length = 2});
    ASSERT_TRUE(screen) << screen.error().message();
    constexpr std::uint64_t count = 12;
    SwSync timeline;
    for (std::uint64_t i = 0; i < count; ++i) {
        const SyncFile fence = timeline.fence(static_cast<std::uint32_t>(i + 1));
        if (i % 2 == 0)
            timeline.advance(i == 0 ? 1 : 2);
        const auto taken = screen->present(
            {.framebuffer = &framebuffers[i % 3], .in_fence = i % 2 == 0 ? &fence : nullptr},
            {.id = i}, deadline_in(patience));
        ASSERT_TRUE(taken) << taken.error().message();
    }
    ASSERT_TRUE(screen->finish(deadline_in(patience)));
    std::uint64_t shown = 0;
    Deadline before{};
    while (auto event = screen->event()) {
        if (event->kind != Kind::shown)
            continue;
        EXPECT_EQ(event->id, shown++);
        EXPECT_GT(event->time, before);
        before = event->time;
    }
    EXPECT_EQ(shown, count);
    EXPECT_LE(before, Deadline::clock::now());
    EXPECT_GT(before, Deadline::clock::now() - patience) << "it is of another clock";
    auto on_screen = screen->output().on_screen();
    ASSERT_TRUE(on_screen) << on_screen.error().message();
    EXPECT_TRUE(same_buffer(*on_screen, framebuffers[(count - 1) % 3].frame().buffer()));
    std::printf("%s: takes in-fences: %s\n", GetParam(),
                !card.takes_in_fences()   ? "not tried"
                : *card.takes_in_fences() ? "yes"
                                          : "no");
}

INSTANTIATE_TEST_SUITE_P(All, KmsPresenterCardsSystemTest,
                         testing::Values("vkms", "virtio_gpu", "cirrus"),
                         [](const auto& each) { return std::string(each.param); });

// ---- What it costs ----------------------------------------------------------------------------

TEST_F(KmsPresenterSystemTest, AFlipMakesTheCallsOfALoopByHandAndTakesNoMemory) {
    const test::SyscallCounter counter;
    SLUICE_REQUIRES(counter.available(), "the kernel counts no system calls for us (perf)");
    start();
    std::vector<KmsFramebuffer> framebuffers;
    for (const Frame& frame : frames)
        framebuffers.push_back(*card->attach(frame));
    constexpr std::uint64_t rounds = 12, warm = 8;
    std::int64_t ours = 0;
    std::size_t allocated = 0;
    bool working = true;
    std::uint64_t next = 0;
    const auto one = [&](const KmsCommit& with) {
        KmsCommit commit = with;
        commit.framebuffer = &framebuffers[next % 3];
        working = presenter->present(commit, {.id = next++}, deadline_in(patience)) && working;
        while (presenter->event()) {
        }
    };
    for (; next < warm;)
        one({});
    ours = counter.least([&] {
        allocated = test::allocations();
        for (std::uint64_t i = 0; i < rounds; ++i)
            one({});
        allocated = test::allocations() - allocated;
    });
    ASSERT_TRUE(working);
    ASSERT_TRUE(presenter->finish(deadline_in(patience)));

    std::int64_t by_hand = 0;
    {
        std::uint32_t plane = 0;
        for (const KmsPlane& each : presenter->output().planes())
            plane = each.type == KmsPlaneType::primary ? each.id : plane;
        test::FlipsByHand loop(file.get(), presenter->output().crtc(), plane);
        ASSERT_TRUE(loop.flip(framebuffers[0].id()));
        by_hand = counter.least([&] {
            for (std::uint64_t i = 0; i < rounds; ++i)
                working = loop.flip(framebuffers[i % 3].id()) && working;
        });
        ASSERT_TRUE(working);
        ASSERT_NE(loop.land(), 0U);
    }
    std::printf("%d flips: %d system calls, by hand %d; %zu allocations\n",
                static_cast<int>(rounds), static_cast<int>(ours), static_cast<int>(by_hand),
                allocated);
    EXPECT_EQ(ours, 4 * static_cast<std::int64_t>(rounds));
    EXPECT_LE(ours, by_hand) << "libdrm's own malloc may make it more";
    EXPECT_EQ(allocated, 0U);
}

TEST_F(KmsPresenterSystemTest, ManyFlipsLeaveNothingBehind) {
    const char* wanted = std::getenv("SLUICE_FLIPS");
    const unsigned long flips = wanted != nullptr ? std::strtoul(wanted, nullptr, 10) : 200;
    start({.queue_length = 2});
    SwSync timeline;
    std::uint32_t point = 0;
    test::Footprint warm;
    const Deadline begin = Deadline::clock::now();
    for (unsigned long i = 0; i < flips; ++i) {
        const SyncFile fence = timeline.fence(++point);
        timeline.advance(1);
        ASSERT_TRUE(present(i, {.in_fence = i % 4 == 0 ? &fence : nullptr}));
        events();
        if (i % 60 != 0)
            continue;
        ASSERT_TRUE(presenter->finish(deadline_in(patience)));
        events();
        if (i == 60)
            warm = test::Footprint::of(file.get());
        if (i > 60) {
            ASSERT_TRUE(is_as_before(test::Footprint::of(file.get()), warm)) << i;
        }
    }
    const auto took = Deadline::clock::now() - begin;
    std::printf(
        "%lu flips in %.1f s (%.1f refreshes): %zu fds, lowest free handle %u, %+ld pages\n", flips,
        std::chrono::duration<double>(took).count(), took / std::chrono::duration<double>(period),
        warm.fds, warm.handle, test::Footprint::of(file.get()).pages - warm.pages);
}

} // namespace
} // namespace sluice
