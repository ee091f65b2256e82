// SPDX-License-Identifier: MIT
#include "kms/kms_planes.hpp"

#include <array>

#include <drm_mode.h>

#include "support/open_fds.hpp"
#include "support/scripted_screen.hpp"

namespace sluice {
namespace {

using test::ScriptedScreen;

class KmsPlanesTest : public test::FdTest {
protected:
    /// What a plane that was changed by \p can refuses of a layer that was changed by \p wants.
    template <typename Can, typename Wants>
    static std::string refusal(Can can, Wants wants, std::uint32_t format = DRM_FORMAT_XRGB8888) {
        ScriptedScreen screen;
        KmsPlane plane{.formats = {{DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR},
                                   {DRM_FORMAT_ARGB8888, DRM_FORMAT_MOD_LINEAR}}};
        can(plane);
        const KmsFramebuffer framebuffer = screen.framebuffer(64, 64, format);
        KmsLayer layer{.framebuffer = &framebuffer};
        wants(layer);
        const auto why = refusal_of(plane, layer);
        EXPECT_TRUE(!why || !why->remedy.empty());
        return why ? why->problem : std::string();
    }
    static void as_it_is(KmsPlane&) {}
    static void nothing(KmsLayer&) {}
};

TEST_F(KmsPlanesTest, APlaneRefusesWhatItCannotDoAndSaysWhatItCan) {
    EXPECT_EQ(refusal(as_it_is, nothing), "");
    EXPECT_EQ(
        refusal(as_it_is, nothing, DRM_FORMAT_XBGR8888),
        "the plane takes AR24 (0x34325241), XR24 (0x34325258), the frame is XB24 (0x34324258)");
    EXPECT_EQ(refusal([](KmsPlane& plane) { plane.formats[0].modifier = I915_FORMAT_MOD_X_TILED; },
                      nothing)
                  .substr(0, 39),
              "the plane takes XR24 (0x34325258) as IN");
    const auto turns = [](KmsLayer& layer) { layer.rotation = DRM_MODE_ROTATE_90; };
    EXPECT_EQ(refusal(as_it_is, turns), "the plane turns by 0, the layer asks for 90");
    EXPECT_EQ(
        refusal([](KmsPlane& plane) { plane.rotations = DRM_MODE_ROTATE_0 | DRM_MODE_ROTATE_90; },
                turns),
        "");
    EXPECT_EQ(refusal(as_it_is, [](KmsLayer& layer) { layer.alpha = 100; }),
              "the plane has no alpha of its own, the layer asks for 100 of 65535");
    EXPECT_EQ(refusal([](KmsPlane& plane) { plane.alpha = true; },
                      [](KmsLayer& layer) { layer.alpha = 100; }),
              "");
    EXPECT_EQ(refusal(as_it_is, [](KmsLayer& layer) { layer.blend = KmsBlend::coverage; }),
              "blend mode coverage cannot be set; the plane has pre-multiplied");
    EXPECT_EQ(refusal([](KmsPlane& plane) { plane.blend.coverage = true; },
                      [](KmsLayer& layer) { layer.blend = KmsBlend::coverage; }),
              "");
    EXPECT_EQ(refusal([](KmsPlane& plane) { plane.ycbcr.bt709 = true; },
                      [](KmsLayer& layer) { layer.encoding = KmsEncoding::bt2020; }),
              "YCbCr encoding BT.2020 cannot be set; the plane has BT.709");
    EXPECT_EQ(refusal(as_it_is, [](KmsLayer& layer) { layer.range = KmsRange::full; }),
              "YCbCr range full cannot be set; the plane has none");
}

TEST_F(KmsPlanesTest, AZposIsHeldToItsRange) {
    const auto wants = [](std::uint64_t zpos) {
        return [zpos](KmsLayer& layer) { layer.zpos = zpos; };
    };
    EXPECT_EQ(refusal(as_it_is, wants(1)), "the plane has no zpos, the layer asks for 1");
    const auto movable = [](KmsPlane& plane) { plane.zpos = {.min = 1, .max = 3, .value = 2}; };
    EXPECT_EQ(refusal(movable, wants(3)), "");
    EXPECT_EQ(refusal(movable, wants(4)),
              "the plane's zpos goes from 1 to 3, the layer asks for 4");
    EXPECT_EQ(refusal(movable, wants(0)),
              "the plane's zpos goes from 1 to 3, the layer asks for 0");
    const auto fixed = [](KmsPlane& plane) {
        plane.zpos = {.min = 0, .max = 9, .value = 2, .fixed = true};
    };
    EXPECT_EQ(refusal(fixed, wants(2)), "");
    EXPECT_EQ(refusal(fixed, wants(3)), "the plane's zpos goes from 2 to 2, the layer asks for 3");
}

class KmsStackTest : public test::FdTest {
protected:
    /// The zpos that planes \p given, of \p planes, get.
    static std::optional<std::vector<std::uint64_t>>
    stacked(const std::vector<KmsPlane>& planes, std::vector<KmsLayer> layers,
            const std::vector<std::size_t>& given) {
        std::vector<const KmsPlane*> list;
        for (const KmsPlane& each : planes)
            list.push_back(&each);
        std::vector<KmsPlacedLayer> placed(given.size());
        layers.resize(given.size());
        for (std::size_t i = 0; i < given.size(); ++i)
            placed[i] = {.layer = &layers[i], .plane = given[i]};
        if (stack(placed, list))
            return std::nullopt;
        std::vector<std::uint64_t> zpos;
        for (const KmsPlacedLayer& each : placed)
            zpos.push_back(each.zpos);
        return zpos;
    }
    static KmsPlane movable(std::uint64_t min, std::uint64_t max) {
        return {.zpos = KmsZpos{.min = min, .max = max, .value = max}};
    }
    static KmsPlane fixed(std::uint64_t value) {
        return {.zpos = KmsZpos{.min = 0, .max = 9, .value = value, .fixed = true}};
    }
    using Zpos = std::vector<std::uint64_t>;
    static constexpr std::size_t nowhere = KmsPlacedLayer::nowhere;
};

TEST_F(KmsStackTest, MovablePlanesAreMovedIntoTheLayersOrder) {
    const std::vector planes{movable(0, 2), movable(0, 2), movable(0, 2)};
    EXPECT_EQ(stacked(planes, {}, {0, 1, 2}), (Zpos{0, 1, 2}));
    EXPECT_EQ(stacked(planes, {}, {2, 1, 0}), (Zpos{0, 1, 2}));
    EXPECT_EQ(stacked(planes, {}, {2, nowhere, 0}), (Zpos{0, 0, 1}));
    EXPECT_EQ(stacked({movable(0, 1), movable(0, 1), movable(0, 1)}, {}, {0, 1, 2}), std::nullopt);
    EXPECT_EQ(stacked({movable(0, 1), movable(5, 7)}, {}, {0, 1}), (Zpos{0, 5}));
}

TEST_F(KmsStackTest, FixedPlanesHaveToLieRight) {
    const std::vector planes{fixed(0), movable(1, 3), fixed(4)};
    EXPECT_EQ(stacked(planes, {}, {0, 1, 2}), (Zpos{0, 1, 4}));
    EXPECT_EQ(stacked(planes, {}, {1, 0}), std::nullopt);
    EXPECT_EQ(stacked(planes, {}, {2, 1}), std::nullopt);
}

TEST_F(KmsStackTest, AZposByHandIsTaken) {
    const std::vector planes{movable(0, 9), movable(0, 9)};
    EXPECT_EQ(stacked(planes, {{.zpos = 5}, {}}, {0, 1}), (Zpos{5, 6}));
    EXPECT_EQ(stacked(planes, {{.zpos = 5}, {.zpos = 2}}, {0, 1}), (Zpos{5, 2}));
    EXPECT_EQ(stacked(planes, {{.zpos = 9}, {}}, {0, 1}), std::nullopt);
}

TEST_F(KmsStackTest, WithoutZposThePlanesOrderCounts) {
    const std::vector<KmsPlane> planes(3);
    EXPECT_TRUE(stacked(planes, {}, {0, 1, 2}));
    EXPECT_TRUE(stacked(planes, {}, {0, nowhere, 2}));
    EXPECT_FALSE(stacked(planes, {}, {1, 0}));
    EXPECT_FALSE(stacked(planes, {}, {1, 1}));
}

TEST(KmsPlaneOrderTest, PrimariesLieBelowOverlaysAndThoseBelowCursorsUnlessZposSaysMore) {
    const KmsPlane primary{.id = 9, .type = KmsPlaneType::primary};
    const KmsPlane overlay{.id = 5, .type = KmsPlaneType::overlay};
    const KmsPlane second{.id = 6, .type = KmsPlaneType::overlay};
    const KmsPlane cursor{.id = 1, .type = KmsPlaneType::cursor};
    EXPECT_TRUE(lies_below(primary, overlay));
    EXPECT_TRUE(lies_below(overlay, second));
    EXPECT_TRUE(lies_below(second, cursor));
    EXPECT_FALSE(lies_below(cursor, primary));
    KmsPlane underlay = overlay;
    underlay.zpos = KmsZpos{.value = 0, .fixed = true};
    KmsPlane above = primary;
    above.zpos = KmsZpos{.value = 1, .fixed = true};
    EXPECT_TRUE(lies_below(underlay, above));
}

} // namespace
} // namespace sluice
