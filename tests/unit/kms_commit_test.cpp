// SPDX-License-Identifier: MIT
// What commits ask of the card, on planes that the cards at hand do not have.
#include <sluice/kms_commit.hpp>

#include <array>
#include <optional>

#include <drm_mode.h>

#include "support/open_fds.hpp"
#include "support/scripted_screen.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::AtomicRequest;
using test::ScriptedScreen;
using enum KmsPlaneProperty;

constexpr std::uint32_t primary = 31, overlay = 32, second = 33, cursor = 34;

class KmsCommitTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        screen.emplace();
        screen->add_plane(primary, KmsPlaneType::primary);
        screen->add_plane(overlay, KmsPlaneType::overlay);
        screen->add_plane(second, KmsPlaneType::overlay);
        screen->add_plane(cursor, KmsPlaneType::cursor);
    }
    void TearDown() override {
        screen->output.reset();
        screen->device.reset();
        screen->attacher.reset();
        screen.reset();
        FdTest::TearDown();
    }

    void expect_refusal(const KmsCommit& commit, Errc code, const std::string& says) {
        const std::size_t asked = screen->requests.size();
        for (const bool tests : {true, false}) {
            const auto refused = tests ? screen->output->test(commit, "KmsOutput::test")
                                       : screen->commit(commit).map([](const KmsFlip&) {});
            ASSERT_FALSE(refused) << says;
            EXPECT_EQ(refused.error().code, code) << refused.error().message();
            EXPECT_NE(refused.error().problem.find(says), std::string::npos)
                << refused.error().message();
            EXPECT_FALSE(refused.error().remedy.empty());
        }
        EXPECT_EQ(screen->requests.size(), asked) << "the card was asked";
    }

    std::optional<ScriptedScreen> screen;
};

TEST_F(KmsCommitTest, OneFrameIsOneLayerOverTheWholeScreen) {
    const KmsFramebuffer framebuffer = screen->framebuffer();
    ASSERT_TRUE(screen->commit({.framebuffer = &framebuffer}));
    EXPECT_EQ(screen->requests.size(), 1U);
    const AtomicRequest& request = screen->last();
    EXPECT_EQ(request.flags, DRM_MODE_ATOMIC_NONBLOCK | DRM_MODE_ATOMIC_ALLOW_MODESET);
    EXPECT_EQ(request.value(ScriptedScreen::connector, ScriptedScreen::crtc_id),
              ScriptedScreen::crtc);
    EXPECT_EQ(request.value(ScriptedScreen::crtc, ScriptedScreen::active), 1U);
    EXPECT_EQ(request.value(ScriptedScreen::crtc, ScriptedScreen::gamma), 0U);
    EXPECT_EQ(screen->shown_by(primary), framebuffer.id());
    EXPECT_EQ(screen->set(primary, crtc_w), 640U);
    EXPECT_EQ(screen->set(primary, src_h), 480U << 16U);
    EXPECT_FALSE(screen->shown_by(overlay));

    ASSERT_TRUE(screen->commit({.framebuffer = &framebuffer}));
    EXPECT_EQ(screen->last().flags, DRM_MODE_ATOMIC_NONBLOCK);
    EXPECT_EQ(screen->last().properties, 2U) << "the frame and the out-fence";
}

TEST_F(KmsCommitTest, LayersGoWhereTheyAsk) {
    const KmsFramebuffer below = screen->framebuffer();
    const KmsFramebuffer above = screen->framebuffer(64, 32);
    const std::array layers{
        KmsLayer{.framebuffer = &below},
        KmsLayer{.framebuffer = &above, .plane = second, .destination = {.x = -5, .y = 7}}};
    ASSERT_TRUE(screen->commit({.layers = layers}));
    EXPECT_EQ(screen->shown_by(primary), below.id());
    EXPECT_EQ(screen->shown_by(second), above.id());
    EXPECT_EQ(screen->set(second, crtc_id), ScriptedScreen::crtc);
    EXPECT_EQ(screen->set(second, crtc_x), static_cast<std::uint64_t>(-5));
    EXPECT_EQ(screen->set(second, crtc_y), 7U);
    EXPECT_EQ(screen->set(second, crtc_w), 64U);
    EXPECT_EQ(screen->set(second, src_w), 64U << 16U);
    EXPECT_EQ(screen->set(primary, crtc_w), 640U) << "its own size is the screen's";
}

TEST_F(KmsCommitTest, DefaultsFollowTheSourceAndTheTurn) {
    screen->add_plane(35, KmsPlaneType::overlay, [](KmsPlane& plane) { plane.rotations = 0x3f; });
    const KmsFramebuffer framebuffer = screen->framebuffer(64, 32);
    KmsLayer layer{.framebuffer = &framebuffer, .plane = 35, .destination = {.x = 1}};
    layer.source = {.x = 1U << 16U, .height = 10U << 16U};
    layer.rotation = DRM_MODE_ROTATE_90;
    ASSERT_TRUE(screen->commit({.layers = {&layer, 1}}));
    EXPECT_EQ(screen->set(35, src_x), 1U << 16U);
    EXPECT_EQ(screen->set(35, src_w), 63U << 16U);
    EXPECT_EQ(screen->set(35, src_h), 10U << 16U);
    EXPECT_EQ(screen->set(35, crtc_w), 10U);
    EXPECT_EQ(screen->set(35, crtc_h), 63U);
    EXPECT_EQ(screen->set(35, rotation), std::uint64_t{DRM_MODE_ROTATE_90});
    layer = {.framebuffer = &framebuffer, .plane = 35};
    ASSERT_TRUE(screen->commit({.layers = {&layer, 1}}));
    EXPECT_EQ(screen->set(35, crtc_w), 640U) << "a single layer fills the screen";
    EXPECT_EQ(screen->set(35, rotation), std::uint64_t{DRM_MODE_ROTATE_0});
}

TEST_F(KmsCommitTest, TheFirstCommitResetsWhatOthersLeft) {
    screen->output->planes.clear();
    screen->add_plane(primary, KmsPlaneType::primary, [](KmsPlane& plane) {
        plane.rotations = 3;
        plane.alpha = true;
        plane.zpos = KmsZpos{.min = 2, .max = 5, .value = 4};
        plane.blend = {.none = true, .premultiplied = true};
        plane.ycbcr = {.bt709 = true, .limited_range = true};
    });
    const KmsFramebuffer framebuffer = screen->framebuffer();
    for (int round = 0; round < 2; ++round) {
        ASSERT_TRUE(screen->commit({.framebuffer = &framebuffer}));
        EXPECT_EQ(screen->set(primary, rotation), 1U);
        EXPECT_EQ(screen->set(primary, alpha), 0xffffU);
        EXPECT_EQ(screen->set(primary, zpos), 2U);
        EXPECT_EQ(screen->set(primary, blend), 0U);
        EXPECT_EQ(screen->set(primary, encoding), 6U);
        EXPECT_EQ(screen->set(primary, range), 8U);
        ASSERT_TRUE(screen->commit({.framebuffer = &framebuffer}));
        EXPECT_FALSE(screen->set(primary, alpha));
        screen->output->forget_routing();
        screen->output->leftovers_known = true;
    }
}

TEST_F(KmsCommitTest, WhatVanishesIsTurnedOffAndComesBack) {
    const KmsFramebuffer below = screen->framebuffer();
    const KmsFramebuffer above = screen->framebuffer(64, 32);
    const std::array layers{KmsLayer{.framebuffer = &below},
                            KmsLayer{.framebuffer = &above, .plane = overlay}};
    ASSERT_TRUE(screen->commit({.layers = layers}));
    ASSERT_TRUE(screen->commit({.framebuffer = &below}));
    EXPECT_EQ(screen->shown_by(overlay), 0U);
    EXPECT_EQ(screen->set(overlay, crtc_id), 0U);
    ASSERT_TRUE(screen->commit({.framebuffer = &below}));
    EXPECT_FALSE(screen->shown_by(overlay)) << "it is off";
    ASSERT_TRUE(screen->commit({.layers = layers}));
    EXPECT_EQ(screen->shown_by(overlay), above.id());
    EXPECT_EQ(screen->set(overlay, crtc_id), ScriptedScreen::crtc);
    EXPECT_FALSE(screen->set(overlay, crtc_w)) << "as it was";
}

TEST_F(KmsCommitTest, ARefusedCommitChangesNothing) {
    const KmsFramebuffer below = screen->framebuffer();
    const KmsFramebuffer above = screen->framebuffer(64, 32);
    const std::array layers{KmsLayer{.framebuffer = &below},
                            KmsLayer{.framebuffer = &above, .plane = overlay}};
    ASSERT_TRUE(screen->commit({.framebuffer = &below}));
    screen->refuses = [](const AtomicRequest&) { return EBUSY; };
    EXPECT_EQ(screen->commit({.layers = layers}).error().code, Errc::busy);
    screen->refuses = nullptr;
    EXPECT_TRUE(above.frame().revoke(deadline_in(0s))) << "the refused commit uses it";
    ASSERT_TRUE(screen->commit({.framebuffer = &below}));
    EXPECT_FALSE(screen->shown_by(overlay));
}

TEST_F(KmsCommitTest, FramesOfAllPlanesAreInUseUntilTheyHaveLeft) {
    const KmsFramebuffer below = screen->framebuffer();
    const KmsFramebuffer above = screen->framebuffer(64, 32);
    const std::array layers{KmsLayer{.framebuffer = &below},
                            KmsLayer{.framebuffer = &above, .plane = overlay}};
    ASSERT_TRUE(screen->commit({.layers = layers}));
    ASSERT_TRUE(screen->commit({.layers = layers}));
    EXPECT_EQ(above.frame().revoke(deadline_in(0s)).error().code, Errc::timed_out);
    EXPECT_EQ(screen->commit({.layers = layers}).error().code, Errc::revoked);
    ASSERT_TRUE(screen->commit({.framebuffer = &below}));
    screen->fence_stays_pending = true;
    EXPECT_EQ(above.frame().revoke(deadline_in(0s)).error().code, Errc::timed_out)
        << "the flip is still to come";
    screen->fence_stays_pending = false;
    screen->fence_status = 1;
    EXPECT_TRUE(above.frame().revoke(deadline_in(0s)));
    EXPECT_FALSE(below.frame().revoke(deadline_in(0s)));
}

TEST_F(KmsCommitTest, WhatCannotBeIsRefusedBeforeTheCardIsAsked) {
    const KmsFramebuffer whole = screen->framebuffer();
    const KmsFramebuffer small = screen->framebuffer(64, 32);
    const KmsFramebuffer other = screen->framebuffer(64, 32, DRM_FORMAT_XBGR8888);
    const SyncFile fence = ScriptedScreen::fence();
    expect_refusal({}, Errc::invalid_argument, "framebuffer is null");
    KmsLayer layer{.framebuffer = &small};
    const std::span<const KmsLayer> layers(&layer, 1);
    expect_refusal({.framebuffer = &whole, .layers = layers}, Errc::invalid_argument, "and layers");
    expect_refusal({.in_fence = &fence, .layers = layers}, Errc::invalid_argument, "in_fence");
    expect_refusal({.framebuffer = &small}, Errc::invalid_argument,
                   "is 640x480, the frame is 64x32");
    expect_refusal({.layers = layers, .may_set_mode = false}, Errc::invalid_argument,
                   "may_set_mode");
    expect_refusal({.framebuffer = &whole, .writeback = &whole}, Errc::unsupported,
                   "no writeback connector");

    layer = {.framebuffer = nullptr};
    expect_refusal({.layers = layers}, Errc::invalid_argument, "layer 0 has no framebuffer");
    layer = {.framebuffer = &small, .plane = 99};
    expect_refusal({.layers = layers}, Errc::invalid_argument,
                   "names plane 99; those of this output are 31, 32, 33, 34");
    layer = {.framebuffer = &small, .plane = overlay, .source = {.width = 65U << 16U}};
    expect_refusal({.layers = layers}, Errc::invalid_argument,
                   "layer 0's source reaches to 65 past its frame's right edge at 64");
    layer.source = {.y = 31U << 16U, .height = (1U << 16U) + 0x8000};
    expect_refusal({.layers = layers}, Errc::invalid_argument,
                   "layer 0's source reaches to 32.500 past its frame's bottom at 32");
    layer.source = {.x = 64U << 16U};
    expect_refusal({.layers = layers}, Errc::invalid_argument, "right edge");
    layer.source = {};
    layer.destination = {.x = INT32_MAX};
    expect_refusal({.layers = layers}, Errc::invalid_argument, "destination ends beyond");
    layer = {.framebuffer = &other, .plane = overlay};
    expect_refusal({.layers = layers}, Errc::unsupported,
                   "on plane 32: the plane takes AR24 (0x34325241), XR24");
    layer = {.framebuffer = &small, .plane = overlay, .rotation = DRM_MODE_ROTATE_180};
    expect_refusal({.layers = layers}, Errc::unsupported, "the plane turns by 0");

    const std::array wrong_order{KmsLayer{.framebuffer = &small, .plane = second},
                                 KmsLayer{.framebuffer = &small, .plane = overlay}};
    expect_refusal({.layers = wrong_order}, Errc::invalid_argument,
                   "the plane lies below plane 33");
    const std::array twice{KmsLayer{.framebuffer = &small, .plane = second},
                           KmsLayer{.framebuffer = &small, .plane = second}};
    expect_refusal({.layers = twice}, Errc::invalid_argument, "layer 0 names the same plane");
}

TEST_F(KmsCommitTest, AFramebufferOfAnotherOpenFileIsNone) {
    const UniqueFd zero(open("/dev/zero", O_RDWR | O_CLOEXEC));
    const KmsDevice other = *KmsDevice::wrap(zero.get());
    const KmsFramebuffer foreign = *other.attach(ScriptedScreen::frame());
    expect_refusal({.framebuffer = &foreign}, Errc::wrong_object, "of another card");
}

TEST_F(KmsCommitTest, AWarmCommitOfLayersIsOneRequest) {
    const std::array<KmsFramebuffer, 2> below{screen->framebuffer(), screen->framebuffer()};
    const std::array<KmsFramebuffer, 2> above{screen->framebuffer(64, 32),
                                              screen->framebuffer(64, 32)};
    screen->requests.reserve(100);
    for (std::size_t i = 0; i < 20; ++i) {
        std::array layers{KmsLayer{.framebuffer = &below[i % 2]},
                          KmsLayer{.framebuffer = &above[i % 2],
                                   .destination = {.x = static_cast<std::int32_t>(i)}},
                          KmsLayer{.framebuffer = &above[i % 2], .destination = {.x = 200}}};
        const std::size_t asked = screen->requests.size();
        ASSERT_TRUE(screen->commit({.layers = layers}));
        if (i > 2) {
            EXPECT_EQ(screen->requests.size() - asked, 1U);
        }
    }
}

// ---- Planes for layers that name none ---------------------------------------------------------

TEST_F(KmsCommitTest, LayersWithoutPlanesGetThemInTheirOrder) {
    const KmsFramebuffer whole = screen->framebuffer();
    const KmsFramebuffer small = screen->framebuffer(64, 32);
    const std::array layers{KmsLayer{.framebuffer = &whole}, KmsLayer{.framebuffer = &small},
                            KmsLayer{.framebuffer = &small}};
    const auto found = screen->output->assign({.layers = layers}, "assign");
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_EQ(*found, (std::vector<std::uint32_t>{primary, second, cursor}));
    for (const AtomicRequest& each : screen->requests)
        EXPECT_TRUE(each.is_test());
}

TEST_F(KmsCommitTest, ACursorPlaneIsLeftToWhatIsSmallEnough) {
    const KmsFramebuffer whole = screen->framebuffer();
    const KmsFramebuffer large = screen->framebuffer(65, 64);
    const std::array layers{KmsLayer{.framebuffer = &whole}, KmsLayer{.framebuffer = &large}};
    EXPECT_EQ(*screen->output->assign({.layers = layers}, "assign"),
              (std::vector<std::uint32_t>{primary, second}));
}

TEST_F(KmsCommitTest, WhatThePlaneOrTheCardRefusesGoesToTheNext) {
    const KmsFramebuffer whole = screen->framebuffer();
    const KmsFramebuffer large = screen->framebuffer(200, 200, DRM_FORMAT_ARGB8888);
    screen->output->planes[2].can.formats.resize(1); // the second overlay takes no AR24
    const std::array layers{KmsLayer{.framebuffer = &whole}, KmsLayer{.framebuffer = &large}};
    EXPECT_EQ(*screen->output->assign({.layers = layers}, "assign"),
              (std::vector<std::uint32_t>{primary, overlay}));
    screen->refuses = [](const AtomicRequest& request) {
        return request.value(overlay, ScriptedScreen::fb_id).value_or(0) != 0 ? ERANGE : 0;
    };
    EXPECT_EQ(*screen->output->assign({.layers = layers}, "assign"),
              (std::vector<std::uint32_t>{primary, 0}));
}

TEST_F(KmsCommitTest, WhatGetsNoPlaneIsToldAndLiesBelowWhatDoes) {
    const KmsFramebuffer whole = screen->framebuffer();
    const KmsFramebuffer large = screen->framebuffer(200, 200);
    const KmsLayer layer{.framebuffer = &large};
    const std::array layers{KmsLayer{.framebuffer = &whole}, layer, layer, layer, layer};
    EXPECT_EQ(*screen->output->assign({.layers = layers}, "assign"),
              (std::vector<std::uint32_t>{primary, 0, 0, overlay, second}));
    const auto refused = screen->commit({.layers = layers});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported);
    EXPECT_NE(refused.error().problem.find("of 5 layers these get no plane: 1, 2"),
              std::string::npos)
        << refused.error().message();
}

TEST_F(KmsCommitTest, AMovedLayerKeepsItsPlaneUntilTheCardRefusesIt) {
    const KmsFramebuffer whole = screen->framebuffer();
    const KmsFramebuffer large = screen->framebuffer(200, 200);
    std::array layers{KmsLayer{.framebuffer = &whole}, KmsLayer{.framebuffer = &large}};
    ASSERT_TRUE(screen->commit({.layers = layers}));
    EXPECT_EQ(screen->shown_by(second), large.id());
    std::size_t asked = screen->requests.size();
    layers[1].destination.x = 10;
    ASSERT_TRUE(screen->commit({.layers = layers}));
    EXPECT_EQ(screen->requests.size(), asked + 1);
    EXPECT_EQ(screen->set(second, crtc_x), 10U);

    screen->refuses = [](const AtomicRequest& request) {
        return request.value(second, ScriptedScreen::id_of(crtc_x)) == 20 ? EINVAL : 0;
    };
    layers[1].destination.x = 20;
    const auto flip = screen->commit({.layers = layers});
    ASSERT_TRUE(flip) << flip.error().message();
    EXPECT_EQ(screen->shown_by(overlay), large.id());
    EXPECT_EQ(screen->shown_by(second), 0U);
    asked = screen->requests.size();
    ASSERT_TRUE(screen->commit({.layers = layers}));
    EXPECT_EQ(screen->requests.size(), asked + 1);
}

TEST_F(KmsCommitTest, APlaneThatAnotherOutputHasOnIsLeftAlone) {
    const auto other = screen->make_output();
    ScriptedScreen::add_plane(*other, 41, KmsPlaneType::primary);
    ScriptedScreen::add_plane(*other, second, KmsPlaneType::overlay);
    const KmsFramebuffer whole = screen->framebuffer();
    const KmsFramebuffer large = screen->framebuffer(200, 200);
    const std::array taken{KmsLayer{.framebuffer = &whole},
                           KmsLayer{.framebuffer = &large, .plane = second}};
    ASSERT_TRUE(other->commit({.layers = taken}, "commit"));
    expect_refusal({.layers = taken}, Errc::busy, "another output");
    const std::array layers{KmsLayer{.framebuffer = &whole}, KmsLayer{.framebuffer = &large}};
    EXPECT_EQ(*screen->output->assign({.layers = layers}, "assign"),
              (std::vector<std::uint32_t>{primary, overlay}));
    ASSERT_TRUE(other->commit({.framebuffer = &whole}, "commit"));
    EXPECT_TRUE(screen->commit({.layers = taken})) << "it was let go";
}

TEST_F(KmsCommitTest, ACardThatCannotBeAskedIsNotAskedFurther) {
    const KmsFramebuffer whole = screen->framebuffer();
    const std::array layers{KmsLayer{.framebuffer = &whole}, KmsLayer{.framebuffer = &whole}};
    screen->refuses = [](const AtomicRequest&) { return EACCES; };
    const auto refused = screen->output->assign({.layers = layers}, "assign");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::not_master);
    EXPECT_EQ(screen->requests.size(), 1U);
}

// ---- Fences -----------------------------------------------------------------------------------

class KmsCommitFenceTest : public KmsCommitTest {
protected:
    void SetUp() override {
        KmsCommitTest::SetUp();
        framebuffer.emplace(screen->framebuffer());
        fence.emplace(ScriptedScreen::fence());
        commit = {.framebuffer = &*framebuffer, .in_fence = &*fence};
        patient = commit;
        patient.patience = 10s;
    }
    void TearDown() override {
        framebuffer.reset();
        fence.reset();
        KmsCommitTest::TearDown();
    }
    /// Refuses IN_FENCE_FD as NVIDIA's driver does.
    void refuse_fences() {
        screen->refuses = [](const AtomicRequest& request) {
            return request.value(primary, ScriptedScreen::in_fence_fd) ? EPERM : 0;
        };
    }
    std::optional<bool> known() const {
        return screen->device->in_fences == KmsInFences::unknown
                   ? std::nullopt
                   : std::optional(screen->device->in_fences == KmsInFences::taken);
    }

    std::optional<KmsFramebuffer> framebuffer;
    std::optional<SyncFile> fence;
    KmsCommit commit, patient;
};

TEST_F(KmsCommitFenceTest, TheCardGetsTheFencesOfEachLayer) {
    const KmsFramebuffer small = screen->framebuffer(64, 32);
    const SyncFile other = ScriptedScreen::fence();
    const std::array layers{KmsLayer{.framebuffer = &*framebuffer, .in_fence = &*fence},
                            KmsLayer{.framebuffer = &small, .in_fence = &other, .plane = overlay},
                            KmsLayer{.framebuffer = &small, .plane = second}};
    EXPECT_EQ(known(), std::nullopt);
    ASSERT_TRUE(screen->commit({.layers = layers}));
    const auto given = [&](std::uint32_t plane) {
        return screen->last().value(plane, ScriptedScreen::in_fence_fd);
    };
    EXPECT_EQ(given(primary), static_cast<std::uint64_t>(fence->fd()));
    EXPECT_EQ(given(overlay), static_cast<std::uint64_t>(other.fd()));
    EXPECT_EQ(given(second), std::nullopt);
    EXPECT_EQ(known(), true);
    const SyncFile done = SyncFile::signalled();
    ASSERT_TRUE(screen->commit({.framebuffer = &*framebuffer, .in_fence = &done}));
    EXPECT_EQ(given(primary), std::nullopt);
}

TEST_F(KmsCommitFenceTest, AFailedFenceIsToldBeforeTheCommit) {
    screen->fence_status = -EIO;
    expect_refusal(commit, Errc::fence_failed, "its in_fence has failed: EIO");
    expect_refusal(patient, Errc::fence_failed, "its in_fence has failed: EIO");
}

TEST_F(KmsCommitFenceTest, ACardThatRefusesFencesIsWaitedForOnlyWhereThatIsAllowed) {
    refuse_fences();
    const auto refused = screen->commit(commit);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported) << refused.error().message();
    EXPECT_NE(refused.error().remedy.find("patience"), std::string::npos);
    EXPECT_EQ(known(), false);
    EXPECT_EQ(screen->waits, 0);
    expect_refusal(commit, Errc::unsupported, "takes no IN_FENCE_FD"); // it is known now

    screen->libc.ppoll = [this](pollfd* fds, nfds_t, const timespec*) {
        ++screen->waits;
        screen->fence_status = 1;
        fds->revents = fds->events;
        return 1;
    };
    ASSERT_TRUE(screen->output->test(patient, "test"));
    EXPECT_EQ(screen->waits, 0) << "a test waits for nothing";
    const auto flip = screen->commit(patient);
    ASSERT_TRUE(flip) << flip.error().message();
    EXPECT_EQ(screen->waits, 1);
    EXPECT_FALSE(screen->last().value(primary, ScriptedScreen::in_fence_fd));
    ASSERT_TRUE(screen->commit(commit)) << "it has signalled, so there is nothing to wait for";
}

TEST_F(KmsCommitFenceTest, ThePatienceIsFoundOutAboutAndUsedInOneCommit) {
    refuse_fences();
    screen->libc.ppoll = [this](pollfd* fds, nfds_t, const timespec*) {
        screen->fence_status = 1;
        fds->revents = fds->events;
        return 1;
    };
    const auto flip = screen->commit(patient);
    ASSERT_TRUE(flip) << flip.error().message();
    EXPECT_EQ(known(), false);
}

TEST_F(KmsCommitFenceTest, ThePatienceEnds) {
    refuse_fences();
    screen->libc.ppoll = [](pollfd*, nfds_t, const timespec*) { return 0; };
    patient.patience = 1ms;
    const auto late = screen->commit(patient);
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().code, Errc::timed_out) << late.error().message();
    EXPECT_TRUE(framebuffer->frame().revoke(deadline_in(0s)).has_value() ||
                screen->fence_status == 0);
}

TEST_F(KmsCommitFenceTest, APlaneWithoutThePropertyIsWaitedForToo) {
    screen->add_plane(35, KmsPlaneType::overlay, [](KmsPlane& plane) { plane.in_fence = false; });
    const KmsLayer layer{.framebuffer = &*framebuffer, .in_fence = &*fence, .plane = 35};
    expect_refusal({.layers = {&layer, 1}}, Errc::unsupported, "on plane 35: the card takes no");
    EXPECT_EQ(known(), std::nullopt);
    const KmsLayer blind{.framebuffer = &*framebuffer, .ignore_buffer_fences = true, .plane = 35};
    expect_refusal({.layers = {&blind, 1}}, Errc::unsupported, "waits for the fences in the");
}

TEST_F(KmsCommitFenceTest, AnEpermThatIsNotAboutTheFenceIsNot) {
    screen->refuses = [](const AtomicRequest&) { return EPERM; };
    const auto refused = screen->commit(commit);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::no_permission) << refused.error().message();
    EXPECT_EQ(known(), std::nullopt);
}

// ---- What the card refuses --------------------------------------------------------------------

/// Which errno the card answers with, where it shows the second overlay, and what that is said to
/// be.
struct Blame {
    int error;
    Errc code;
    const char* says;
};

class KmsCommitBlameTest : public KmsCommitTest, public testing::WithParamInterface<Blame> {};

TEST_P(KmsCommitBlameTest, TheLayerThatTheCardRefusesIsNamed) {
    screen->refuses = [](const AtomicRequest& request) {
        return request.value(second, ScriptedScreen::fb_id).value_or(0) != 0 ? GetParam().error : 0;
    };
    const KmsFramebuffer whole = screen->framebuffer();
    const KmsFramebuffer small = screen->framebuffer(64, 32);
    const std::array layers{KmsLayer{.framebuffer = &whole},
                            KmsLayer{.framebuffer = &small, .plane = overlay},
                            KmsLayer{.framebuffer = &small,
                                     .plane = second,
                                     .destination = {.x = 3, .y = 4, .width = 128, .height = 96}},
                            KmsLayer{.framebuffer = &small, .plane = cursor}};
    const auto refused = screen->commit({.layers = layers});
    ASSERT_FALSE(refused);
    const Error& error = refused.error();
    EXPECT_EQ(error.code, GetParam().code) << error.message();
    EXPECT_EQ(error.sys_errno, GetParam().error);
    EXPECT_EQ(error.problem.rfind("layer 2, 64x32 XR24", 0), 0U) << error.problem;
    EXPECT_NE(error.problem.find("go to 128x96 at 3,4 on plane 33"), std::string::npos)
        << error.problem;
    EXPECT_NE(error.problem.find(GetParam().says), std::string::npos) << error.problem;
    EXPECT_EQ(screen->requests.back().flags & DRM_MODE_ATOMIC_TEST_ONLY,
              std::uint32_t{DRM_MODE_ATOMIC_TEST_ONLY});
}

INSTANTIATE_TEST_SUITE_P(
    All, KmsCommitBlameTest,
    testing::Values(Blame{EINVAL, Errc::unsupported, "the card refuses it"},
                    Blame{ERANGE, Errc::unsupported, "does not scale it to 128x96"},
                    Blame{ENOSPC, Errc::invalid_argument, "reaches past the frame"}),
    [](const auto& each) {
        return std::string(each.param.error == EINVAL   ? "Einval"
                           : each.param.error == ERANGE ? "Erange"
                                                        : "Enospc");
    });

TEST_P(KmsCommitBlameTest, SoItIsWhereAllPlanesAreNamed) {
    screen->refuses = [](const AtomicRequest& request) {
        return request.value(second, ScriptedScreen::fb_id).value_or(0) != 0 ? GetParam().error : 0;
    };
    const KmsFramebuffer whole = screen->framebuffer();
    const std::array layers{KmsLayer{.framebuffer = &whole, .plane = primary},
                            KmsLayer{.framebuffer = &whole, .plane = second}};
    const auto refused = screen->output->test({.layers = layers}, "test");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, GetParam().code);
    EXPECT_EQ(refused.error().problem.rfind("layer 1, 640x480", 0), 0U) << refused.error().problem;
}

TEST_F(KmsCommitTest, ACaptureThatTheCardRefusesIsNamed) {
    screen->add_writeback();
    screen->refuses = [](const AtomicRequest& request) {
        return request.value(ScriptedScreen::writeback, ScriptedScreen::writeback_fb) ? EINVAL : 0;
    };
    const KmsFramebuffer whole = screen->framebuffer();
    const auto refused = screen->commit({.framebuffer = &whole, .writeback = &whole});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::unsupported);
    EXPECT_NE(refused.error().problem.find("refuses to capture them into 640x480"),
              std::string::npos)
        << refused.error().problem;
}

TEST_F(KmsCommitTest, ACaptureChangesNothingElse) {
    screen->add_writeback();
    screen->fence_status = 1;
    const KmsFramebuffer whole = screen->framebuffer();
    const KmsFramebuffer small = screen->framebuffer(64, 32);
    const KmsFramebuffer into = screen->framebuffer();
    EXPECT_EQ(screen->output->capture(into, "capture").error().code, Errc::invalid_argument);
    const std::array layers{KmsLayer{.framebuffer = &whole},
                            KmsLayer{.framebuffer = &small, .plane = overlay}};
    ASSERT_TRUE(screen->commit({.layers = layers}));
    const auto captured = screen->output->capture(into, "capture");
    ASSERT_TRUE(captured) << captured.error().message();
    EXPECT_EQ(screen->last().value(ScriptedScreen::writeback, ScriptedScreen::writeback_fb),
              into.id());
    EXPECT_EQ(screen->shown_by(primary), whole.id());
    EXPECT_EQ(screen->shown_by(overlay), small.id());
    EXPECT_EQ(screen->last().properties, 5U) << "two frames, the capture, and two fences";
    EXPECT_EQ(small.frame().revoke(deadline_in(0s)).error().code, Errc::timed_out);

    screen->fence_status = 0;
    EXPECT_EQ(screen->output->capture(into, "capture").error().code, Errc::busy);
    EXPECT_EQ(screen->commit({.framebuffer = &whole, .writeback = &into}).error().code, Errc::busy);
    screen->refuses = [](const AtomicRequest&) { return EINVAL; };
    screen->fence_status = 1;
    const auto refused = screen->output->capture(into, "capture");
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().problem.find("refuses to capture"), std::string::npos);
    screen->output->forget_routing();
    EXPECT_EQ(screen->output->capture(into, "capture").error().code, Errc::invalid_argument);
}

TEST_F(KmsCommitTest, WhatIsAboutTheCardIsSaidInWords) {
    const KmsFramebuffer whole = screen->framebuffer();
    for (const auto& [error, code] :
         {std::pair(EACCES, Errc::not_master), std::pair(EBUSY, Errc::busy),
          std::pair(ENOENT, Errc::device_lost), std::pair(ENODEV, Errc::device_lost),
          std::pair(ENOMEM, Errc::no_resources)}) {
        screen->refuses = [answer = error](const AtomicRequest&) { return answer; };
        const std::size_t asked = screen->requests.size();
        screen->output->leftovers_known = true;
        const auto refused = screen->commit({.framebuffer = &whole});
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, code) << refused.error().message();
        EXPECT_EQ(refused.error().sys_errno, error);
        EXPECT_EQ(screen->requests.size(), asked + 1) << "it is about no layer";
    }
}

} // namespace
} // namespace sluice
