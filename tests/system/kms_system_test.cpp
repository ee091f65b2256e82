// SPDX-License-Identifier: MIT
// A real screen that captures itself: vkms.
#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <thread>

#include <drm_fourcc.h>
#include <fcntl.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

#include <sluice/cpu_access.hpp>
#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>
#include <sluice/kms_resources.hpp>

#include "support/allocations.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/vkms.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::differing_pixels;
using test::make_frame;
using test::paint;
using test::SwSync;

constexpr std::uint32_t width = 640;
constexpr std::uint32_t height = 480;
constexpr auto patience = 10s;

class KmsSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        path = test::card_of("vkms");
        SLUICE_REQUIRES(!path.empty(), "no vkms card");
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
    }

    KmsDevice card() const {
        auto opened = KmsDevice::open(path);
        EXPECT_TRUE(opened) << opened.error().message();
        return *opened;
    }

    std::string path;
};

/// A card with a small mode and a capture, ready to show.
struct Screen {
    explicit Screen(const KmsDevice& of)
        : card(of), output(std::move(
                        *card.find_output({.width = width, .height = height, .writeback = true}))),
          capture(make_frame(width, height)), capture_framebuffer(*card.attach(capture)) {}

    /// Shows and captures; the caller waits.
    Result<KmsFlip> commit(const KmsFramebuffer& framebuffer, const SyncFile* in_fence = nullptr) {
        return output.commit(
            {.framebuffer = &framebuffer, .in_fence = in_fence, .writeback = &capture_framebuffer});
    }

    /// Shows, captures, and waits for both.
    void show(const KmsFramebuffer& framebuffer, const SyncFile* in_fence = nullptr) {
        auto flip = commit(framebuffer, in_fence);
        ASSERT_TRUE(flip) << flip.error().message();
        auto shown = flip->out_fence->wait(deadline_in(patience));
        ASSERT_TRUE(shown) << shown.error().message();
        auto captured = flip->writeback_fence->wait(deadline_in(patience));
        ASSERT_TRUE(captured) << captured.error().message();
    }

    KmsDevice card;
    KmsOutput output;
    Frame capture;
    KmsFramebuffer capture_framebuffer;
};

constexpr const char* bufinfo = "/sys/kernel/debug/dma_buf/bufinfo";

/// Whether the kernel still has the dma-buf with this inode, by its own list.
bool kernel_has_buffer(std::uint64_t inode) {
    std::ifstream list(bufinfo);
    for (std::string line; std::getline(list, line);) {
        // size flags mode count exporter inode name
        std::istringstream words(line);
        std::string word;
        for (int i = 0; i < 5; ++i)
            words >> word;
        if (std::uint64_t each = 0; words >> each && each == inode)
            return true;
    }
    return false;
}

/// Whether this process still has a fd of the dma-buf with this inode.
bool is_held_here(std::uint64_t inode) {
    for (const auto& [number, target] : test::open_fds()) {
        const auto buffer = DmaBuf::from_borrowed_fd(std::stoi(number));
        if (buffer && buffer->inode() == inode)
            return true;
    }
    return false;
}

TEST_F(KmsSystemTest, FindsAnOutputByWhatItCan) {
    const KmsDevice device = card();
    EXPECT_EQ(device.driver(), "vkms");
    auto output = device.find_output({.writeback = true});
    ASSERT_TRUE(output) << output.error().message();
    EXPECT_GT(output->width(), 0U);
    EXPECT_NE(output->name().find("Writeback"), std::string::npos) << output->name();
    const auto takes = [](const KmsOutput& of, Uses use) {
        return std::ranges::any_of(of.caps().formats, [use](const FormatSupport& each) {
            return each.format == DRM_FORMAT_XRGB8888 && contains(each.uses, use);
        });
    };
    EXPECT_TRUE(takes(*output, Uses::scan_out));
    EXPECT_TRUE(takes(*output, Uses::capture));
    auto small = device.find_output({.width = width, .height = height});
    ASSERT_TRUE(small) << small.error().message();
    EXPECT_EQ(small->width(), width);
    EXPECT_NEAR(small->refresh_mhz(), 60000, 1000);
    EXPECT_TRUE(takes(*small, Uses::scan_out));
    EXPECT_FALSE(takes(*small, Uses::capture));
}

TEST_F(KmsSystemTest, SaysWhatIsMissing) {
    auto none = card().find_output({.width = 641, .height = 479});
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Errc::unsupported);
    EXPECT_NE(none.error().message().find("has no mode of 641x479"), std::string::npos)
        << none.error().message();
    const std::string virtio = test::card_of("virtio_gpu");
    SLUICE_REQUIRES(!virtio.empty(), "no virtio_gpu card");
    auto other = KmsDevice::open(virtio);
    ASSERT_TRUE(other) << other.error().message();
    auto no_writeback = other->find_output({.writeback = true});
    ASSERT_FALSE(no_writeback);
    EXPECT_NE(no_writeback.error().message().find("writeback"), std::string::npos)
        << no_writeback.error().message();
}

TEST_F(KmsSystemTest, WhatIsShownIsCapturedByteForByte) {
    Screen screen(card());
    const Frame frame = make_frame(width, height);
    paint(frame, 1);
    auto framebuffer = screen.card.attach(frame);
    ASSERT_TRUE(framebuffer) << framebuffer.error().message();
    EXPECT_GT(differing_pixels(frame, screen.capture), 0U);
    screen.show(*framebuffer);
    EXPECT_EQ(differing_pixels(frame, screen.capture), 0U);
}

TEST_F(KmsSystemTest, OneChangedByteIsFound) {
    Screen screen(card());
    const Frame frame = make_frame(width, height);
    paint(frame, 1);
    screen.show(*screen.card.attach(frame));
    auto map = CpuMap::map(frame.buffer(), Access::read_write);
    auto access = CpuAccess::begin(*map, Access::read_write, deadline_in(patience));
    access->bytes()[frame.buffer().size() / 2] ^= std::byte{1};
    ASSERT_TRUE(access->end());
    EXPECT_EQ(differing_pixels(frame, screen.capture), 1U);
}

TEST_F(KmsSystemTest, TheMemoryOnTheScreenIsTheFramesOwn) {
    Screen screen(card());
    const Frame first = make_frame(width, height);
    const Frame second = make_frame(width, height);
    for (const Frame& frame : {first, second, first}) {
        screen.show(*screen.card.attach(frame));
        auto shown = screen.output.on_screen();
        ASSERT_TRUE(shown) << shown.error().message();
        EXPECT_TRUE(same_buffer(*shown, frame.buffer()));
    }
}

// Shows a frame whose picture is written only after the commit, just before its fence signals: what
// the screen shows tells whether the card waited. The buffer itself carries no fence.
void show_behind_a_pending_fence(Screen& screen, const Frame& frame, const SyncFile* in_fence,
                                 const SwSync& timeline, Deadline::duration hold) {
    auto framebuffer = screen.card.attach(frame);
    ASSERT_TRUE(framebuffer);
    const auto start = Deadline::clock::now();
    auto flip = screen.commit(*framebuffer, in_fence);
    ASSERT_TRUE(flip) << flip.error().message();
    EXPECT_LT(Deadline::clock::now() - start, hold) << "the commit blocked";
    std::this_thread::sleep_for(hold);
    if (in_fence != nullptr) {
        EXPECT_EQ(flip->out_fence->status()->state, FenceState::pending) << "flipped too early";
    }
    paint(frame, 2);
    timeline.advance(1);
    ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
    ASSERT_TRUE(flip->writeback_fence->wait(deadline_in(patience)));
}

TEST_F(KmsSystemTest, APendingInFenceHoldsTheFlip) {
    SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    Screen screen(card());
    screen.show(*screen.card.attach(make_frame(width, height))); // the modeset
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    const Frame frame = make_frame(width, height);
    paint(frame, 1);
    show_behind_a_pending_fence(screen, frame, &fence, timeline, 500ms);
    EXPECT_EQ(differing_pixels(frame, screen.capture), 0U)
        << "the screen shows what was there before";
}

TEST_F(KmsSystemTest, WithoutTheInFenceTheCaptureShowsIt) {
    SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    Screen screen(card());
    screen.show(*screen.card.attach(make_frame(width, height)));
    SwSync timeline;
    const Frame frame = make_frame(width, height);
    paint(frame, 1);
    show_behind_a_pending_fence(screen, frame, nullptr, timeline, 500ms);
    EXPECT_GT(differing_pixels(frame, screen.capture), 0U)
        << "the test above would pass without a fence";
}

TEST_F(KmsSystemTest, ABuffersOwnFenceHoldsTheFlipToo) {
    SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    Screen screen(card());
    SwSync timeline;
    const Frame frame = make_frame(width, height);
    ASSERT_TRUE(frame.buffer().import_fence(timeline.fence(1), Access::write));
    auto flip = screen.commit(*screen.card.attach(frame));
    ASSERT_TRUE(flip) << flip.error().message();
    EXPECT_EQ(flip->out_fence->wait(deadline_in(200ms)).error().code, Errc::timed_out);
    timeline.advance(1);
    EXPECT_TRUE(flip->out_fence->wait(deadline_in(patience)));
    EXPECT_TRUE(flip->writeback_fence->wait(deadline_in(patience)));
}

TEST_F(KmsSystemTest, ACommitBeforeTheLastOneFlippedIsBusyAndWorksLater) {
    SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    Screen screen(card());
    auto framebuffer = screen.card.attach(make_frame(width, height));
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    auto held = screen.output.commit({.framebuffer = &*framebuffer, .in_fence = &fence});
    ASSERT_TRUE(held) << held.error().message();
    auto busy = screen.output.commit({.framebuffer = &*framebuffer});
    ASSERT_FALSE(busy);
    EXPECT_EQ(busy.error().code, Errc::busy) << busy.error().message();
    EXPECT_NE(busy.error().remedy.find("out-fence"), std::string::npos);
    timeline.advance(1);
    ASSERT_TRUE(held->out_fence->wait(deadline_in(patience)));
    auto later = screen.output.commit({.framebuffer = &*framebuffer});
    ASSERT_TRUE(later) << later.error().message();
    EXPECT_TRUE(later->out_fence->wait(deadline_in(patience)));
}

TEST_F(KmsSystemTest, RefusesWhatDoesNotFitBeforeTheCardIsAsked) {
    Screen screen(card());
    auto small = screen.card.attach(make_frame(320, 240));
    ASSERT_TRUE(small) << small.error().message();
    auto refused = screen.output.commit({.framebuffer = &*small});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::invalid_argument);
    EXPECT_NE(refused.error().message().find("is 640x480, the frame is 320x240"), std::string::npos)
        << refused.error().message();
    auto nothing = screen.output.commit({});
    ASSERT_FALSE(nothing);
    EXPECT_EQ(nothing.error().code, Errc::invalid_argument);

    auto good = screen.card.attach(make_frame(width, height));
    auto no_writeback = screen.card.find_output({.width = width, .height = height});
    auto captured = no_writeback->commit({.framebuffer = &*good, .writeback = &*good});
    ASSERT_FALSE(captured);
    EXPECT_EQ(captured.error().code, Errc::unsupported) << captured.error().message();
}

TEST_F(KmsSystemTest, AFormatThatNoPlaneTakesIsRefusedWithTheOnesThatAre) {
    const KmsDevice device = card();
    auto refused = device.attach(make_frame(width, height, DRM_FORMAT_XBGR8888));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported);
    EXPECT_NE(refused.error().message().find("XR24"), std::string::npos)
        << refused.error().message();
}

TEST_F(KmsSystemTest, WithoutMasterTheScreenIsSomebodyElses) {
    const KmsDevice master = card();
    ASSERT_TRUE(master.is_master());
    Screen screen(card()); // a second open file of the same card
    EXPECT_FALSE(screen.card.is_master());
    auto framebuffer = screen.card.attach(make_frame(width, height));
    ASSERT_TRUE(framebuffer) << framebuffer.error().message();
    for (const bool test_only : {true, false}) {
        const Error error = test_only
                                ? screen.output.test({.framebuffer = &*framebuffer}).error()
                                : screen.output.commit({.framebuffer = &*framebuffer}).error();
        EXPECT_EQ(error.code, Errc::not_master) << error.message();
        EXPECT_EQ(error.sys_errno, EACCES);
        EXPECT_NE(error.remedy.find("lease"), std::string::npos);
    }
}

/// Another session that takes the screen: a mode of its own, and an overlay on top.
void take_over(int fd) {
    ASSERT_EQ(drmSetMaster(fd), 0) << strerror(errno);
    const KmsDevice device = *KmsDevice::wrap(fd);
    KmsOutput output = *device.find_output({.width = 1024, .height = 768});
    const KmsFramebuffer framebuffer = *device.attach(make_frame(1024, 768));
    auto flip = output.commit({.framebuffer = &framebuffer});
    ASSERT_TRUE(flip) << flip.error().message();
    ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
    const KmsResources all = *device.resources();
    std::uint32_t crtc = 0;
    for (const KmsConnector& each : all.connectors)
        crtc = each.crtc != 0 ? each.crtc : crtc;
    const std::uint32_t overlay = all.planes_of(crtc, KmsPlaneType::overlay)[0]->id;
    // The overlay stays on: closing a framebuffer turns nothing off.
    const KmsFramebuffer cover = *device.attach(make_frame(64, 64));
    ASSERT_EQ(drmModeSetPlane(fd, overlay, crtc, cover.id(), 0, 8, 8, 64, 64, 0, 0, 64U << 16U,
                              64U << 16U),
              0)
        << strerror(errno);
}

/// Loses the screen to another session and gets it back.
class KmsMasterSystemTest : public KmsSystemTest {
protected:
    void SetUp() override {
        KmsSystemTest::SetUp();
        if (IsSkipped())
            return;
        file = UniqueFd(open(path.c_str(), O_RDWR | O_CLOEXEC));
        other = UniqueFd(open(path.c_str(), O_RDWR | O_CLOEXEC));
        first = make_frame(width, height);
        second = make_frame(width, height);
        paint(*first, 1);
        paint(*second, 2);
        screen.emplace(*KmsDevice::wrap(file.get()));
        screen->show(*screen->card.attach(*first));
        id = screen->card.attach(*second)->id();
    }
    void TearDown() override {
        screen.reset();
        first.reset();
        second.reset();
        file.reset();
        other.reset();
        KmsSystemTest::TearDown();
    }
    void lose() const { ASSERT_EQ(drmDropMaster(file.get()), 0) << strerror(errno); }
    void lose_to_another() const {
        lose();
        take_over(other.get());
        ASSERT_EQ(drmDropMaster(other.get()), 0) << strerror(errno);
    }
    void regain() const { ASSERT_EQ(drmSetMaster(file.get()), 0) << strerror(errno); }
    void expect_that_it_is_ours() {
        const KmsFramebuffer framebuffer = *screen->card.attach(*second);
        EXPECT_EQ(framebuffer.id(), id) << "it was made anew";
        screen->show(framebuffer);
        EXPECT_EQ(differing_pixels(*second, screen->capture), 0U);
    }

    UniqueFd file, other;
    std::optional<Frame> first, second;
    std::optional<Screen> screen;
    std::uint32_t id = 0; // of the second's framebuffer
};

TEST_F(KmsMasterSystemTest, WhatWasRefusedMeanwhileWorksOnceMasterIsBack) {
    const KmsFramebuffer framebuffer = *screen->card.attach(*second);
    lose();
    EXPECT_FALSE(screen->card.is_master());
    const auto refused = screen->commit(framebuffer);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::not_master) << refused.error().message();
    EXPECT_NE(refused.error().remedy.find("drmSetMaster"), std::string::npos);
    take_over(other.get());
    EXPECT_EQ(screen->commit(framebuffer).error().code, Errc::not_master);
    ASSERT_EQ(drmDropMaster(other.get()), 0);
    regain();
    expect_that_it_is_ours();
}

TEST_F(KmsMasterSystemTest, ATestThatWasRefusedIsRememberedToo) {
    const KmsFramebuffer framebuffer = *screen->card.attach(*second);
    lose_to_another();
    EXPECT_EQ(screen->output.test({.framebuffer = &framebuffer}).error().code, Errc::not_master);
    regain();
    expect_that_it_is_ours();
}

TEST_F(KmsMasterSystemTest, WhoMetNoRefusalReroutes) {
    lose_to_another();
    regain();
    const KmsFramebuffer framebuffer = *screen->card.attach(*second);
    EXPECT_FALSE(screen->output.test({.framebuffer = &framebuffer}))
        << "the plane was turned off meanwhile: this shows nothing";
    screen->output.reroute();
    expect_that_it_is_ours();
}

/// The parts of an output that can be captured, for a lease.
std::vector<std::uint32_t> parts_of(const KmsResources& all) {
    for (const KmsConnector& each : all.connectors)
        if (each.is_writeback())
            for (const KmsConnector& screen : all.connectors)
                if (!screen.is_writeback() && screen.crtcs == each.crtcs)
                    return {screen.id, each.id, each.crtcs[0],
                            all.planes_of(each.crtcs[0], KmsPlaneType::primary)[0]->id};
    return {};
}

TEST_F(KmsSystemTest, ALeaseIsACardOfItsOwnUntilItIsRevoked) {
    const UniqueFd lessor(open(path.c_str(), O_RDWR | O_CLOEXEC));
    const KmsDevice owner = *KmsDevice::wrap(lessor.get());
    const KmsResources all = *owner.resources();
    const auto parts = parts_of(all);
    ASSERT_EQ(parts.size(), 4U);
    std::uint32_t lessee = 0;
    const UniqueFd lease(drmModeCreateLease(lessor.get(), parts.data(), 4, O_CLOEXEC, &lessee));
    ASSERT_TRUE(lease) << strerror(errno);
    auto leased = KmsDevice::wrap(lease.get());
    ASSERT_TRUE(leased) << leased.error().message();
    EXPECT_TRUE(leased->is_master());
    const auto seen = leased->resources();
    ASSERT_TRUE(seen) << seen.error().message();
    EXPECT_EQ(seen->connectors.size(), 2U);
    EXPECT_EQ(seen->planes.size(), 1U);
    EXPECT_GT(all.planes.size(), 1U);

    Screen screen(*leased);
    const Frame frame = make_frame(width, height);
    paint(frame, 1);
    const KmsFramebuffer framebuffer = *leased->attach(frame);
    screen.show(framebuffer);
    EXPECT_EQ(differing_pixels(frame, screen.capture), 0U);

    ASSERT_EQ(drmModeRevokeLease(lessor.get(), lessee), 0) << strerror(errno);
    const auto refused = screen.commit(framebuffer);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::device_lost) << refused.error().message();
    EXPECT_NE(refused.error().remedy.find("lease"), std::string::npos);
    const auto none = leased->find_output({});
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Errc::unsupported);
    EXPECT_NE(none.error().problem.find("no connectors"), std::string::npos)
        << none.error().message();
}

TEST_F(KmsSystemTest, ACardThatImportsNoForeignBuffersSaysTheWayOut) {
    const std::string virtio = test::card_of("virtio_gpu");
    SLUICE_REQUIRES(!virtio.empty(), "no virtio_gpu card");
    auto device = KmsDevice::open(virtio);
    ASSERT_TRUE(device) << device.error().message();
    auto refused = device->attach(make_frame(width, height));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported);
    EXPECT_NE(refused.error().remedy.find("Allocate the buffer on that card"), std::string::npos);
}

TEST_F(KmsSystemTest, ACardWithoutADisplayIsRefused) {
    const std::string vgem = test::card_of("vgem");
    SLUICE_REQUIRES(!vgem.empty(), "no vgem card");
    auto refused = KmsDevice::open(vgem);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported) << refused.error().message();
}

TEST_F(KmsSystemTest, WrappingLeavesTheCallersFdAlone) {
    const UniqueFd fd(open(path.c_str(), O_RDWR | O_CLOEXEC));
    { auto device = KmsDevice::wrap(fd.get()); }
    EXPECT_GE(fcntl(fd.get(), F_GETFD), 0);
}

TEST_F(KmsSystemTest, AFrameOnTheScreenLivesAsLongAsItIsShown) {
    Screen screen(card());
    std::uint64_t inode = 0;
    {
        const Frame frame = make_frame(width, height);
        inode = frame.buffer().inode();
        screen.show(*screen.card.attach(frame));
    } // nobody but the screen holds it now
    auto shown = screen.output.on_screen();
    ASSERT_TRUE(shown) << shown.error().message();
    EXPECT_EQ(shown->inode(), inode);
}

TEST_F(KmsSystemTest, AFrameThatIsBeingReplacedStaysUntilItHasLeftTheScreen) {
    SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    Screen screen(card());
    std::uint64_t inode = 0;
    {
        const Frame first = make_frame(width, height);
        inode = first.buffer().inode();
        screen.show(*screen.card.attach(first));
    }
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    const Frame second = make_frame(width, height);
    auto flip = screen.commit(*screen.card.attach(second), &fence);
    ASSERT_TRUE(flip) << flip.error().message();
    EXPECT_TRUE(is_held_here(inode)) << "it is on the screen, and only the output holds it";
    EXPECT_EQ(flip->out_fence->status()->state, FenceState::pending);
    timeline.advance(1);
    ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
    ASSERT_TRUE(flip->writeback_fence->wait(deadline_in(patience)));
    screen.card.drop_idle_framebuffers();
    EXPECT_TRUE(is_held_here(inode)) << "as far as the output knows it is on its way";
    screen.show(*screen.card.attach(second));
    screen.card.drop_idle_framebuffers();
    EXPECT_FALSE(is_held_here(inode)) << "it has left the screen";
}

TEST_F(KmsSystemTest, ARevokedFrameIsNeitherAttachedNorShown) {
    Screen screen(card());
    const Frame frame = make_frame(width, height);
    const KmsFramebuffer framebuffer = *screen.card.attach(frame);
    const KmsFramebuffer other = *screen.card.attach(make_frame(width, height));
    ASSERT_TRUE(frame.revoke(deadline_in(patience)));
    EXPECT_EQ(screen.card.attach(frame).error().code, Errc::revoked);
    EXPECT_EQ(screen.output.test({.framebuffer = &framebuffer}).error().code, Errc::revoked);
    EXPECT_EQ(screen.commit(framebuffer).error().code, Errc::revoked);
    auto captured = screen.output.commit({.framebuffer = &other, .writeback = &framebuffer});
    ASSERT_FALSE(captured);
    EXPECT_EQ(captured.error().code, Errc::revoked);
    screen.show(other);
}

TEST_F(KmsSystemTest, RevokingWaitsUntilTheFrameHasLeftTheScreen) {
    Screen screen(card());
    const Frame first = make_frame(width, height);
    const Frame second = make_frame(width, height);
    const KmsFramebuffer one = *screen.card.attach(first);
    const KmsFramebuffer two = *screen.card.attach(second);
    screen.show(one);
    auto busy = first.revoke(deadline_in(0s));
    ASSERT_FALSE(busy) << "it is on the screen";
    EXPECT_EQ(busy.error().code, Errc::timed_out);

    SwSync timeline;
    const SyncFile late = timeline.fence(1);
    auto flip = screen.commit(two, &late);
    ASSERT_TRUE(flip) << flip.error().message();
    for (const Frame* each :
         std::initializer_list<const Frame*>{&first, &second, &screen.capture}) {
        busy = each->revoke(deadline_in(50ms));
        ASSERT_FALSE(busy) << "the flip is still to come";
        EXPECT_EQ(busy.error().code, Errc::timed_out);
    }
    timeline.advance(1);
    EXPECT_TRUE(first.revoke(deadline_in(patience)));
    EXPECT_TRUE(flip->out_fence->wait(deadline_in(0s))) << "it was waited for";
    EXPECT_TRUE(screen.capture.revoke(deadline_in(patience)));
    EXPECT_FALSE(second.revoke(deadline_in(50ms)));
}

TEST_F(KmsSystemTest, AFrameLeftOnTheScreenIsInUseUntilItsFramebufferGoes) {
    const Frame frame = make_frame(width, height);
    {
        std::optional<Screen> screen(card());
        const KmsFramebuffer framebuffer = *screen->card.attach(frame);
        screen->show(framebuffer);
        screen.reset();
        EXPECT_FALSE(frame.revoke(deadline_in(50ms))) << "nothing has replaced it";
    }
    EXPECT_TRUE(frame.revoke(deadline_in(patience)));
}

TEST_F(KmsSystemTest, AnOutputThatGoesWaitsForTheFlipThatIsStillToCome) {
    SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    std::jthread signaller;
    {
        Screen screen(card());
        screen.show(*screen.card.attach(make_frame(width, height)));
        auto flip = screen.commit(*screen.card.attach(make_frame(width, height)), &fence);
        ASSERT_TRUE(flip) << flip.error().message();
        signaller = std::jthread([&] {
            std::this_thread::sleep_for(300ms);
            timeline.advance(1);
        });
    }
    EXPECT_EQ(fence.status()->state, FenceState::signalled);
}

TEST_F(KmsSystemTest, AnAttachmentThatGoesLeavesNothingInTheCard) {
    SLUICE_REQUIRES(std::ifstream(bufinfo), "debugfs does not list the dma-bufs");
    const KmsDevice device = card();
    std::uint64_t inode = 0;
    {
        const Frame frame = make_frame(width, height);
        inode = frame.buffer().inode();
        ASSERT_TRUE(device.attach(frame));
        EXPECT_TRUE(kernel_has_buffer(inode));
    }
    device.drop_idle_framebuffers();
    // The card's file is still open: a GEM handle or a framebuffer in it would hold the memory.
    EXPECT_FALSE(kernel_has_buffer(inode));
}

TEST_F(KmsSystemTest, AFlipLeavesNothingOpenAndAllocatesNothing) {
    Screen screen(card());
    std::vector<KmsFramebuffer> framebuffers;
    for (int i = 0; i < 3; ++i)
        framebuffers.push_back(*screen.card.attach(make_frame(width, height)));
    // What is open, whatever its number: a frame takes its fence before it lets the last one go.
    const auto all_open = [] {
        std::vector<std::string> all;
        for (const auto& [number, target] : test::open_fds())
            all.push_back(target);
        std::ranges::sort(all);
        return all;
    };
    std::vector<std::string> open;
    std::size_t allocated = 0;
    for (unsigned i = 0; i < 30; ++i) {
        auto flip = screen.commit(framebuffers[i % 3]);
        ASSERT_TRUE(flip) << flip.error().message();
        ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
        ASSERT_TRUE(flip->writeback_fence->wait(deadline_in(patience)));
        flip = tl::unexpected(Error{}); // closes the fences
        if (i == 3) {                   // warm
            open = all_open();
            allocated = test::allocations();
        }
    }
    EXPECT_EQ(test::allocations() - allocated, 0U);
    EXPECT_EQ(all_open(), open);
}

} // namespace
} // namespace sluice
