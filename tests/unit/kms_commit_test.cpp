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

} // namespace
} // namespace sluice
