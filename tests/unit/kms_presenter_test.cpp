// SPDX-License-Identifier: MIT
// The order in which commits reach the screen, and what is told of each.
#include <sluice/kms_presenter.hpp>

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <drm_mode.h>
#include <sys/epoll.h>

#include "support/open_fds.hpp"
#include "support/scripted_screen.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::ScriptedScreen;
using Kind = KmsPresentEvent::Kind;

constexpr std::uint32_t primary = 31, overlay = 32;
constexpr auto period = 20ms; // of the scripted screen

class KmsPresenterTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        screen.emplace();
        screen->add_plane(primary, KmsPlaneType::primary);
        screen->add_plane(overlay, KmsPlaneType::overlay);
        for (int i = 0; i < 8; ++i)
            frames.push_back(screen->framebuffer());
    }
    void TearDown() override {
        presenter.reset();
        frames.clear();
        screen->output.reset();
        screen->device.reset();
        screen->attacher.reset();
        screen.reset();
        FdTest::TearDown();
    }

    void start(const KmsPresenterInfo& info = {}) {
        auto made = KmsPresenter::create(KmsOutput::State::wrap(std::move(screen->output)), info);
        ASSERT_TRUE(made) << made.error().message();
        presenter.emplace(std::move(*made));
    }
    /// Hands in frame \p number, under that number, and waits for nothing.
    Result<void> present(std::size_t number, KmsCommit commit = {}) {
        commit.framebuffer = &frames[number];
        return presenter->present(commit, {.id = number}, Deadline::min());
    }
    /// The flip that is under way reaches the screen at \p time.
    void flip(std::chrono::nanoseconds time = {}) {
        ASSERT_FALSE(screen->out_fences.empty());
        screen->signal(screen->out_fences.back());
        screen->signalled_at = time;
    }
    void flip_and_dispatch(std::chrono::nanoseconds time = {}) {
        flip(time);
        const auto done = presenter->dispatch();
        EXPECT_TRUE(done) << done.error().message();
        screen->statuses.clear(); // fds come again
    }
    /// "shown 1, left 0"
    std::string events() {
        constexpr std::array names{"shown ", "left ", "dropped ", "refused "};
        std::string all;
        while (auto event = presenter->event()) {
            all += (all.empty() ? "" : ", ") +
                   std::string(names[static_cast<std::size_t>(event->kind)]) +
                   std::to_string(event->id);
            EXPECT_EQ(event->kind == Kind::left, event->fence != nullptr);
            EXPECT_EQ(event->kind == Kind::refused, event->error.has_value());
        }
        return all;
    }
    static bool readable(int fd) {
        epoll_event event{};
        return epoll_wait(fd, &event, 1, 0) == 1;
    }
    [[nodiscard]] std::size_t shown() const {
        for (std::size_t i = 0; i < frames.size(); ++i)
            if (screen->shown_by(primary) == frames[i].id())
                return i;
        return SIZE_MAX;
    }

    std::optional<ScriptedScreen> screen;
    std::vector<KmsFramebuffer> frames;
    std::optional<KmsPresenter> presenter;
};

// ---- The order --------------------------------------------------------------------------------

TEST_F(KmsPresenterTest, FifoShowsEachInTheirOrder) {
    start({.queue_length = 2});
    ASSERT_TRUE(present(0));
    EXPECT_EQ(shown(), 0U) << "at once";
    ASSERT_TRUE(present(1));
    ASSERT_TRUE(present(2));
    EXPECT_EQ(shown(), 0U) << "the first is not on the screen yet";
    EXPECT_EQ(presenter->pending(), 3U);
    EXPECT_EQ(events(), "");

    ASSERT_TRUE(presenter->dispatch());
    EXPECT_EQ(shown(), 0U) << "nothing has happened";
    flip_and_dispatch();
    EXPECT_EQ(shown(), 1U);
    EXPECT_EQ(events(), "shown 0, left 0");
    flip_and_dispatch();
    EXPECT_EQ(shown(), 2U);
    EXPECT_EQ(events(), "shown 1, left 1");
    flip_and_dispatch();
    EXPECT_EQ(events(), "shown 2");
    EXPECT_EQ(presenter->pending(), 0U);
    ASSERT_TRUE(present(3));
    EXPECT_EQ(shown(), 3U);
    EXPECT_EQ(events(), "left 2");
}

TEST_F(KmsPresenterTest, AFullQueueIsWaitedForUntilTheDeadline) {
    start();
    ASSERT_TRUE(present(0));
    ASSERT_TRUE(present(1));
    screen->fence_stays_pending = true;
    const auto late = present(2);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Errc::timed_out) << late.error().message();
    EXPECT_NE(late.error().problem.find("commit 0"), std::string::npos);
    EXPECT_EQ(presenter->pending(), 2U) << "it was taken";
    flip();
    ASSERT_TRUE(present(2)) << "there is room now";
    EXPECT_EQ(shown(), 1U);
    EXPECT_EQ(presenter->pending(), 2U);
    EXPECT_EQ(events(), "shown 0, left 0");
}

TEST_F(KmsPresenterTest, WithoutAQueueEachIsWaitedFor) {
    start({.queue_length = 0});
    ASSERT_TRUE(present(0));
    screen->fence_stays_pending = true;
    EXPECT_EQ(present(1).error().code, Errc::timed_out);
    flip();
    ASSERT_TRUE(present(1));
    EXPECT_EQ(shown(), 1U);
    EXPECT_EQ(presenter->pending(), 1U);
}

TEST_F(KmsPresenterTest, MailboxShowsTheNewest) {
    start({.mode = KmsPresentMode::mailbox});
    for (std::size_t i = 0; i < 4; ++i)
        ASSERT_TRUE(present(i));
    EXPECT_EQ(shown(), 0U);
    EXPECT_EQ(events(), "dropped 1, dropped 2");
    EXPECT_EQ(presenter->pending(), 2U);
    flip_and_dispatch();
    EXPECT_EQ(shown(), 3U);
    EXPECT_EQ(events(), "shown 0, left 0");

    ASSERT_TRUE(present(4));
    flip();
    ASSERT_TRUE(present(5)) << "the screen is free, and 4 is old";
    EXPECT_EQ(shown(), 5U);
    EXPECT_EQ(events(), "shown 3, left 3, dropped 4");
}

TEST_F(KmsPresenterTest, WaitAndFinishDriveItToo) {
    start({.queue_length = 3});
    const auto nothing = presenter->wait(Deadline::min());
    ASSERT_FALSE(nothing);
    EXPECT_EQ(nothing.error().code, Errc::invalid_argument) << nothing.error().message();
    EXPECT_TRUE(presenter->finish(Deadline::min())) << "nothing is left to be shown";
    for (std::size_t i = 0; i < 4; ++i)
        ASSERT_TRUE(present(i));
    screen->fence_stays_pending = true;
    EXPECT_EQ(presenter->wait(Deadline::min()).error().code, Errc::timed_out);
    EXPECT_EQ(presenter->finish(Deadline::min()).error().code, Errc::timed_out);
    flip();
    ASSERT_TRUE(presenter->wait(Deadline::min()));
    screen->statuses.clear(); // fds come again
    EXPECT_TRUE(presenter->wait(Deadline::min())) << "there are events";
    EXPECT_EQ(events(), "shown 0, left 0");
    screen->fence_status = 1;
    ASSERT_TRUE(presenter->finish(Deadline::min()));
    EXPECT_EQ(shown(), 3U);
    EXPECT_EQ(presenter->pending(), 0U);
    EXPECT_EQ(events(), "shown 1, left 1, shown 2, left 2, shown 3");
}

// ---- What is told -----------------------------------------------------------------------------

TEST_F(KmsPresenterTest, WhatLeavesIsTiedToTheOutFenceOfWhatComes) {
    start();
    ASSERT_TRUE(present(0));
    flip_and_dispatch(5s);
    const auto first = presenter->event();
    ASSERT_TRUE(first);
    EXPECT_EQ(first->kind, Kind::shown);
    EXPECT_EQ(first->time, Deadline(5s));
    ASSERT_TRUE(present(1));
    const auto left = presenter->event();
    ASSERT_TRUE(left);
    EXPECT_EQ(left->kind, Kind::left);
    EXPECT_EQ(left->fence->fd(), screen->out_fences.back());
    EXPECT_EQ(left->fence->status()->state, FenceState::pending);
    flip();
    EXPECT_EQ(left->fence->status()->state, FenceState::signalled);
}

TEST_F(KmsPresenterTest, WhatIsLateIsCountedInRefreshes) {
    start();
    const Deadline begin = Deadline::clock::now();
    const auto shows = [&](const KmsPresentInfo& info, Deadline at) -> std::uint32_t {
        EXPECT_TRUE(presenter->present({.framebuffer = &frames[info.id % 8]}, info, begin));
        flip_and_dispatch(at.time_since_epoch());
        while (auto event = presenter->event())
            if (event->kind == Kind::shown)
                return event->missed;
        ADD_FAILURE() << "nothing was shown";
        return 0;
    };
    Deadline now = begin + 1h; // later than this test hands anything in
    EXPECT_EQ(shows({.due = now}, now + 3ms), 0U) << "with the first refresh after it was due";
    EXPECT_EQ(shows({}, now += 3ms + period), 0U) << "a refresh later than the one before";
    EXPECT_EQ(shows({}, now += period + 500us), 0U);
    EXPECT_EQ(shows({}, now += 2 * period), 1U);
    EXPECT_EQ(shows({}, now += 4 * period), 3U);
    EXPECT_EQ(shows({.due = now + 6 * period}, now + period), 0U) << "early";
    EXPECT_EQ(shows({.due = now}, now + 3 * period), 2U);
    EXPECT_EQ(shows({.due = now - 100s}, now), 4999U);
    EXPECT_EQ(shows({.due = Deadline::max()}, now), 0U);
    EXPECT_EQ(shows({.due = Deadline::min()}, Deadline(20ms * 10 + 3ms)), 10U);
    EXPECT_EQ(shows({.due = Deadline()}, Deadline(std::chrono::hours(24 * 365 * 100))), UINT32_MAX);
}

TEST_F(KmsPresenterTest, AScreenWithoutARateMissesNothing) {
    screen->output->mode.refresh_mhz = 0;
    start();
    ASSERT_TRUE(present(0));
    flip_and_dispatch(100h);
    EXPECT_EQ(presenter->event()->missed, 0U);
}

TEST_F(KmsPresenterTest, WhereNobodyAsksTheOldestEventsGo) {
    start({.mode = KmsPresentMode::mailbox});
    for (std::size_t i = 0; i < 70; ++i)
        ASSERT_TRUE(presenter->present({.framebuffer = &frames[i % 8]}, {.id = i}, {}));
    std::size_t count = 0;
    std::uint64_t expected = 68 - 64 + 1; // 1 to 68 were dropped
    while (auto event = presenter->event()) {
        EXPECT_EQ(event->id, expected++);
        ++count;
    }
    EXPECT_EQ(count, 64U);
}

// ---- What is kept -----------------------------------------------------------------------------

TEST_F(KmsPresenterTest, WhatWaitsIsItsOwn) {
    start({.queue_length = 2});
    ASSERT_TRUE(present(0));
    {
        const KmsFramebuffer below = screen->framebuffer(), above = screen->framebuffer(64, 32);
        const SyncFile fence = ScriptedScreen::fence();
        const std::array layers{KmsLayer{.framebuffer = &below},
                                KmsLayer{.framebuffer = &above,
                                         .in_fence = &fence,
                                         .plane = overlay,
                                         .destination = {.x = 11, .y = 12}}};
        ASSERT_TRUE(presenter->present({.layers = layers}, {.id = 1}, {}));
        const SyncFile other = ScriptedScreen::fence();
        ASSERT_TRUE(presenter->present({.framebuffer = &below, .in_fence = &other}, {.id = 2}, {}));
    }
    flip_and_dispatch();
    EXPECT_TRUE(screen->shown_by(overlay));
    EXPECT_EQ(screen->set(overlay, KmsPlaneProperty::crtc_x), 11U);
    EXPECT_TRUE(screen->last().value(overlay, ScriptedScreen::in_fence_fd));
    EXPECT_FALSE(screen->last().value(primary, ScriptedScreen::in_fence_fd));
    EXPECT_EQ(
        screen->card.framebuffers.count(static_cast<std::uint32_t>(*screen->shown_by(overlay))), 1U)
        << "removed";
    flip_and_dispatch();
    EXPECT_TRUE(screen->last().value(primary, ScriptedScreen::in_fence_fd));
    EXPECT_EQ(screen->shown_by(overlay), 0U) << "switched off";
    EXPECT_EQ(events(), "shown 0, left 0, shown 1, left 1");
}

TEST_F(KmsPresenterTest, ARevokedFrameThatWaitsIsRefused) {
    start({.queue_length = 2});
    ASSERT_TRUE(present(0));
    ASSERT_TRUE(present(1));
    ASSERT_TRUE(present(2));
    ASSERT_TRUE(frames[1].frame().revoke(Deadline::min()));
    flip_and_dispatch();
    EXPECT_EQ(shown(), 2U) << "the next goes on";
    auto event = presenter->event();
    EXPECT_EQ(event->kind, Kind::shown);
    event = presenter->event();
    ASSERT_EQ(event->kind, Kind::refused);
    EXPECT_EQ(event->id, 1U);
    EXPECT_EQ(event->error->code, Errc::revoked) << event->error->message();
    EXPECT_EQ(events(), "left 0");
}

TEST_F(KmsPresenterTest, WhatTheCardRefusesIsToldAndTheNextGoesOn) {
    start({.queue_length = 2});
    for (std::size_t i = 0; i < 3; ++i)
        ASSERT_TRUE(present(i));
    screen->refuses = [&](const test::AtomicRequest& request) {
        return request.value(primary, ScriptedScreen::fb_id) == frames[1].id() ? EINVAL : 0;
    };
    flip_and_dispatch();
    EXPECT_EQ(shown(), 2U);
    EXPECT_EQ(events(), "shown 0, refused 1, left 0");
    flip_and_dispatch();
    const auto refused = present(1);
    ASSERT_FALSE(refused) << "at once, where it is not queued";
    EXPECT_EQ(refused.error().code, Errc::unsupported) << refused.error().message();
    EXPECT_EQ(events(), "shown 2");
    EXPECT_TRUE(present(3));
}

TEST_F(KmsPresenterTest, OnlyTheCardsOwnBusyIsWaitedFor) {
    start({.queue_length = 2});
    const KmsLayer layer{.framebuffer = &frames[1], .plane = overlay};
    ASSERT_TRUE(present(0));
    ASSERT_TRUE(presenter->present({.layers = {&layer, 1}}, {.id = 1}, {}));
    ASSERT_TRUE(present(2));
    ASSERT_TRUE(screen->device->claim(overlay, 99)); // by another output
    screen->refuses = [](const test::AtomicRequest&) { return EBUSY; };
    flip();
    EXPECT_EQ(presenter->dispatch().error().code, Errc::busy) << "the card's, of the next one";
    screen->refuses = nullptr;
    EXPECT_EQ(events(), "shown 0, refused 1");
    ASSERT_TRUE(presenter->dispatch());
    EXPECT_EQ(shown(), 2U);
    screen->device->disclaim(overlay, 99);
}

TEST_F(KmsPresenterTest, WhatWaitsStaysWhileTheDisplayIsAnothers) {
    start({.queue_length = 2});
    ASSERT_TRUE(present(0));
    ASSERT_TRUE(present(1));
    screen->refuses = [](const test::AtomicRequest&) { return EACCES; };
    flip();
    const auto lost = presenter->dispatch();
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, Errc::not_master) << lost.error().message();
    EXPECT_EQ(present(2).error().code, Errc::not_master);
    EXPECT_EQ(presenter->pending(), 1U) << "the first is shown, the second kept, the third not";
    screen->refuses = nullptr;
    ASSERT_TRUE(presenter->dispatch());
    EXPECT_EQ(shown(), 1U);
    EXPECT_EQ(screen->last().flags & DRM_MODE_ATOMIC_ALLOW_MODESET, DRM_MODE_ATOMIC_ALLOW_MODESET);
    EXPECT_EQ(events(), "shown 0, left 0");
}

// ---- Cards that wait for no fence, and captures -------------------------------------------------

TEST_F(KmsPresenterTest, WhereTheCardWaitsForNoFenceItWaitsHereAndNobodyBlocks) {
    screen->refuses = [](const test::AtomicRequest& request) {
        return request.value(primary, ScriptedScreen::in_fence_fd) ? EPERM : 0;
    };
    for (const KmsPresentMode mode : {KmsPresentMode::fifo, KmsPresentMode::mailbox}) {
        SCOPED_TRACE(static_cast<int>(mode));
        if (presenter)
            screen->output = screen->make_output();
        if (screen->output->planes.empty())
            ScriptedScreen::add_plane(*screen->output, primary, KmsPlaneType::primary);
        start({.mode = mode, .queue_length = 2});
        screen->fence_status = 0;
        screen->fence_stays_pending = true;
        {
            const SyncFile fence = ScriptedScreen::fence();
            ASSERT_TRUE(present(0, {.in_fence = &fence, .patience = 10s}));
        }
        EXPECT_EQ(presenter->pending(), 1U);
        ASSERT_TRUE(presenter->dispatch());
        EXPECT_EQ(events(), "");
        const auto late = presenter->wait(Deadline::min());
        ASSERT_FALSE(late);
        EXPECT_NE(late.error().problem.find("in-fence of commit 0"), std::string::npos);
        if (mode == KmsPresentMode::fifo) {
            ASSERT_TRUE(present(1)) << "in its turn";
            EXPECT_EQ(presenter->pending(), 2U);
        }
        screen->fence_status = 1;
        ASSERT_TRUE(presenter->dispatch());
        EXPECT_EQ(shown(), 0U);
        EXPECT_FALSE(screen->last().value(primary, ScriptedScreen::in_fence_fd));
        ASSERT_TRUE(presenter->finish(Deadline::min()));
        EXPECT_EQ(events(), mode == KmsPresentMode::fifo ? "shown 0, left 0, shown 1" : "shown 0");
    }
}

/// What waits has copies of its fences.
class KmsSlowMailboxTest : public KmsPresenterTest {
protected:
    void SetUp() override {
        KmsPresenterTest::SetUp();
        screen->device->in_fences = KmsInFences::refused;
        screen->fence_stays_pending = true;
        start({.mode = KmsPresentMode::mailbox});
    }
    /// Hands in frame \p number, which is still drawn.
    void draw(std::size_t number) {
        const auto before = test::open_fds();
        {
            const SyncFile fence = ScriptedScreen::fence();
            ASSERT_TRUE(present(number, {.in_fence = &fence}));
        }
        for (const auto& [fd, what] : test::open_fds())
            if (before.find(fd) == before.end())
                copies[number] = std::stoi(fd);
    }

    std::map<std::size_t, int> copies;
};

TEST_F(KmsSlowMailboxTest, WhatIsReadyOvertakesWhatIsNot) {
    draw(0);
    ASSERT_TRUE(present(1));
    EXPECT_EQ(shown(), 1U);
    EXPECT_EQ(events(), "dropped 0");
}

TEST_F(KmsSlowMailboxTest, AStreamOfFramesThatAreNotReadyKeepsNoneFromTheScreen) {
    const int fd = *presenter->fd();
    for (std::size_t i = 0; i < 5; ++i)
        draw(i);
    EXPECT_EQ(events(), "dropped 1, dropped 2, dropped 3");
    EXPECT_EQ(presenter->pending(), 2U);
    EXPECT_FALSE(readable(fd));
    screen->signal(copies[0]);
    EXPECT_TRUE(readable(fd));
    ASSERT_TRUE(presenter->dispatch());
    EXPECT_EQ(shown(), 0U);
    EXPECT_FALSE(readable(fd));
    flip();
    EXPECT_TRUE(readable(fd));
    ASSERT_TRUE(presenter->dispatch());
    EXPECT_EQ(events(), "shown 0");
    screen->statuses.clear(); // fds come again
    screen->signal(copies[4]);
    EXPECT_TRUE(readable(fd));
    draw(5);
    EXPECT_EQ(shown(), 4U) << "the one that was ready";
    EXPECT_EQ(presenter->pending(), 2U);
    EXPECT_EQ(events(), "left 0");
}

TEST_F(KmsPresenterTest, TheFenceThatSignalsWhileItIsFoundOutRefusesNothing) {
    screen->refuses = [&](const test::AtomicRequest& request) {
        if (!request.value(primary, ScriptedScreen::in_fence_fd))
            return 0;
        screen->fence_status = request.is_test() ? 0 : 1; // by the time anybody looks
        return EPERM;
    };
    start();
    screen->fence_stays_pending = true;
    const SyncFile fence = ScriptedScreen::fence();
    ASSERT_TRUE(present(0, {.in_fence = &fence}));
    EXPECT_EQ(shown(), 0U);
}

TEST_F(KmsPresenterTest, ACaptureIsWrittenBeforeTheNextCommit) {
    screen->add_writeback();
    start();
    screen->fence_status = 1; // nobody works on the frame
    ASSERT_TRUE(present(0, {.writeback = &frames[7]}));
    screen->fence_status = 0;
    screen->fence_stays_pending = true;
    ASSERT_TRUE(present(1));
    ASSERT_EQ(screen->out_fences.size(), 2U);
    const int capture = screen->out_fences[1];
    screen->statuses[screen->out_fences[0]] = 1;
    ASSERT_TRUE(presenter->dispatch());
    auto event = presenter->event();
    ASSERT_TRUE(event);
    EXPECT_EQ(event->kind, Kind::shown);
    ASSERT_TRUE(event->writeback_fence);
    EXPECT_EQ(event->writeback_fence->fd(), capture);
    EXPECT_EQ(shown(), 0U) << "the capture would be lost";
    const auto late = presenter->wait(Deadline::min());
    ASSERT_FALSE(late);
    EXPECT_NE(late.error().problem.find("capture of commit 0"), std::string::npos);
    EXPECT_EQ(presenter->pending(), 1U);
    screen->statuses[capture] = 1;
    ASSERT_TRUE(presenter->dispatch());
    EXPECT_EQ(shown(), 1U);
    EXPECT_EQ(events(), "left 0");
}

TEST_F(KmsPresenterTest, ACaptureByItselfIsWaitedForToo) {
    screen->add_writeback();
    start();
    screen->fence_status = 1;
    EXPECT_EQ(presenter->capture(frames[7]).error().code, Errc::invalid_argument)
        << "nothing is shown";
    ASSERT_TRUE(present(0));
    ASSERT_TRUE(presenter->finish(Deadline::min()));
    const auto fence = presenter->capture(frames[7]);
    ASSERT_TRUE(fence) << fence.error().message();
    screen->fence_status = 0;
    screen->fence_stays_pending = true;
    EXPECT_EQ(presenter->pending(), 0U);
    EXPECT_EQ(presenter->capture(frames[7]).error().code, Errc::busy);
    const std::size_t asked = screen->requests.size();
    ASSERT_TRUE(present(1));
    EXPECT_EQ(screen->requests.size(), asked) << "the capture would be lost";
    screen->statuses[(*fence)->fd()] = 1;
    ASSERT_TRUE(presenter->dispatch());
    EXPECT_EQ(shown(), 1U);
    EXPECT_EQ(events(), "shown 0, left 0");
}

// ---- Event loops --------------------------------------------------------------------------------

TEST_F(KmsPresenterTest, TheFdIsReadableWheneverThereIsSomethingToDo) {
    start({.mode = KmsPresentMode::mailbox});
    const KmsFramebuffer wrong = screen->framebuffer(64, 32);
    const int fd = *presenter->fd();
    EXPECT_FALSE(readable(fd));
    ASSERT_TRUE(present(0));
    ASSERT_TRUE(present(1));
    EXPECT_FALSE(readable(fd));
    flip();
    EXPECT_TRUE(readable(fd));
    EXPECT_EQ(presenter->present({.framebuffer = &wrong}, {.id = 9}, {}).error().code,
              Errc::invalid_argument);
    EXPECT_EQ(shown(), 1U) << "then it is the turn of what waits";
    EXPECT_FALSE(readable(fd));
    flip();
    EXPECT_TRUE(readable(fd));
    flip_and_dispatch();
    EXPECT_FALSE(readable(fd)) << "nothing is under way";
    EXPECT_EQ(*presenter->fd(), fd);
    EXPECT_EQ(events(), "shown 0, left 0, shown 1");
}

TEST_F(KmsPresenterTest, WhoeverTimesOutIsWokenAllTheSame) {
    screen->add_writeback();
    start({.queue_length = 0});
    const int fd = *presenter->fd();
    screen->fence_status = 1;
    ASSERT_TRUE(present(0, {.writeback = &frames[7]}));
    screen->fence_status = 0;
    screen->fence_stays_pending = true;
    const auto fences = screen->out_fences;
    ASSERT_EQ(fences.size(), 2U);
    screen->signal(fences[0]);
    EXPECT_EQ(present(1).error().code, Errc::timed_out) << "the capture is not written";
    EXPECT_EQ(events(), "shown 0");
    EXPECT_FALSE(readable(fd));
    screen->signal(fences[1]);
    EXPECT_TRUE(readable(fd));
}

// ---- Bad input ----------------------------------------------------------------------------------

TEST_F(KmsPresenterTest, BadInputIsRefusedBeforeTheCardIsAsked) {
    const auto refused_by = [&](const KmsCommit& commit) {
        const auto result = presenter->present(commit, {}, Deadline::min());
        return result ? std::nullopt : std::optional(result.error().code);
    };
    start();
    for (int round = 0; round < 2; ++round) { // with nothing under way, and with something
        const std::size_t asked = screen->requests.size();
        SyncFile gone = ScriptedScreen::fence();
        const SyncFile taken = std::move(gone);
        const KmsLayer nothing{}, fenced{.framebuffer = frames.data(), .in_fence = &gone};
        EXPECT_EQ(refused_by({}), Errc::invalid_argument);
        EXPECT_EQ(refused_by({.layers = {&nothing, 1}}), Errc::invalid_argument);
        EXPECT_EQ(refused_by({.framebuffer = frames.data(), .layers = {&fenced, 1}}),
                  Errc::invalid_argument);
        EXPECT_EQ(refused_by({.framebuffer = frames.data(), .in_fence = &gone}),
                  Errc::wrong_object);
        EXPECT_EQ(refused_by({.layers = {&fenced, 1}}), Errc::wrong_object);
        EXPECT_EQ(screen->requests.size(), asked);
        if (round == 0) {
            ASSERT_TRUE(present(0));
        }
    }
    EXPECT_EQ(presenter->pending(), 1U);
    auto other =
        KmsPresenter::create(KmsOutput::State::wrap(screen->make_output()), {.queue_length = 257});
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, Errc::invalid_argument);
}

TEST_F(KmsPresenterTest, OneThatWasMovedFromSaysSo) {
    start();
    KmsPresenter other = std::move(*presenter);
    EXPECT_EQ(present(0).error().code, Errc::wrong_object);
    EXPECT_EQ(presenter->dispatch().error().code, Errc::wrong_object);
    EXPECT_EQ(presenter->wait({}).error().code, Errc::wrong_object);
    EXPECT_EQ(presenter->finish({}).error().code, Errc::wrong_object);
    EXPECT_EQ(presenter->fd().error().code, Errc::wrong_object);
    EXPECT_FALSE(presenter->event());
    EXPECT_EQ(presenter->pending(), 0U);
    EXPECT_EQ(presenter->capture(frames[0]).error().code, Errc::wrong_object);
    EXPECT_EQ(presenter->output().width(), 0U);
    EXPECT_EQ(KmsPresenter::create(std::move(*presenter).release()).error().code,
              Errc::wrong_object);
    EXPECT_EQ(other.output().width(), 640U);
    *presenter = std::move(other);
    EXPECT_TRUE(present(0));
    ASSERT_TRUE(present(1));
    KmsOutput output = std::move(*presenter).release();
    EXPECT_EQ(present(2).error().code, Errc::wrong_object);
    EXPECT_TRUE(output.commit({.framebuffer = &frames[2]}));
    EXPECT_EQ(shown(), 2U);
}

} // namespace
} // namespace sluice
