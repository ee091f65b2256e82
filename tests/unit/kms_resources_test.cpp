// SPDX-License-Identifier: MIT
#include <sluice/kms_resources.hpp>

#include <drm_fourcc.h>
#include <drm_mode.h>
#include <gtest/gtest.h>

#include "kms/kms_in_formats.hpp"
#include "kms/kms_state.hpp"
#include "support/in_formats_blob.hpp"

namespace sluice {
namespace {

using test::InFormatsBlob;

auto parse(const InFormatsBlob& blob) {
    return parse_in_formats(blob.bytes());
}

TEST(KmsInFormatsTest, EveryFormatHasItsModifiers) {
    const auto formats = parse({});
    ASSERT_TRUE(formats);
    EXPECT_EQ(*formats, (std::vector<KmsFormat>{{DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR},
                                                {DRM_FORMAT_XRGB8888, I915_FORMAT_MOD_X_TILED},
                                                {DRM_FORMAT_NV12, DRM_FORMAT_MOD_LINEAR}}));
}

TEST(KmsInFormatsTest, BitsCountFromTheOffset) {
    InFormatsBlob blob;
    blob.formats.assign(130, DRM_FORMAT_XRGB8888);
    blob.formats[129] = DRM_FORMAT_NV12;
    blob.header.count_formats = 130;
    blob.header.modifiers_offset = 24 + 130 * 4;
    blob.modifiers[0] = {.formats = 1ULL << 63U, .offset = 66, .modifier = 7};
    blob.modifiers[1] = {.formats = 2, .offset = 128, .modifier = 8};
    const auto formats = parse(blob);
    ASSERT_TRUE(formats);
    EXPECT_EQ(*formats, (std::vector<KmsFormat>{{DRM_FORMAT_NV12, 7}, {DRM_FORMAT_NV12, 8}}));
    blob.modifiers[0].offset = 67;
    EXPECT_FALSE(parse(blob)) << "it names format 130 of 130";
}

TEST(KmsInFormatsTest, WhatReachesPastTheEndIsRefused) {
    const auto refuses = [](auto change) {
        InFormatsBlob blob;
        change(blob);
        return !parse(blob);
    };
    EXPECT_TRUE(refuses([](InFormatsBlob& blob) { blob.header.version = 2; }));
    EXPECT_TRUE(refuses([](InFormatsBlob& blob) { blob.header.count_formats = 100; }));
    EXPECT_TRUE(refuses([](InFormatsBlob& blob) { blob.header.count_modifiers = 3; }));
    EXPECT_TRUE(refuses([](InFormatsBlob& blob) { blob.header.modifiers_offset += 1; }));
    EXPECT_TRUE(refuses([](InFormatsBlob& blob) { blob.header.formats_offset = UINT32_MAX; }));
    EXPECT_TRUE(refuses([](InFormatsBlob& blob) { blob.header.modifiers_offset = UINT32_MAX; }));
    EXPECT_TRUE(refuses([](InFormatsBlob& blob) {
        blob.header.count_modifiers = UINT32_MAX;
        blob.header.modifiers_offset = UINT32_MAX;
    }));
    EXPECT_TRUE(refuses([](InFormatsBlob& blob) { blob.modifiers[0].offset = UINT32_MAX; }));
    const auto whole = InFormatsBlob().bytes();
    for (std::size_t size = 0; size < whole.size(); ++size)
        EXPECT_FALSE(parse_in_formats(std::span(whole).first(size))) << size;
}

TEST(KmsInFormatsTest, NoFormatsAreNoError) {
    InFormatsBlob blob;
    blob.header.count_formats = blob.header.count_modifiers = 0;
    const auto formats = parse(blob);
    ASSERT_TRUE(formats);
    EXPECT_TRUE(formats->empty());
}

TEST(KmsResourcesTest, APlaneThatTellsNoModifiersTakesLinear) {
    KmsPlane plane;
    plane.formats = {{DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_INVALID}};
    EXPECT_FALSE(plane.tells_modifiers());
    EXPECT_TRUE(plane.takes(DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR));
    EXPECT_FALSE(plane.takes(DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_INVALID));
    EXPECT_FALSE(plane.takes(DRM_FORMAT_XRGB8888, I915_FORMAT_MOD_X_TILED));
    EXPECT_FALSE(plane.takes(DRM_FORMAT_NV12, DRM_FORMAT_MOD_LINEAR));
}

TEST(KmsResourcesTest, APlaneThatTellsModifiersTakesThose) {
    KmsPlane plane;
    plane.formats = {{DRM_FORMAT_XRGB8888, I915_FORMAT_MOD_X_TILED}};
    EXPECT_TRUE(plane.tells_modifiers());
    EXPECT_TRUE(plane.takes(DRM_FORMAT_XRGB8888, I915_FORMAT_MOD_X_TILED));
    EXPECT_FALSE(plane.takes(DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR));
    EXPECT_FALSE(plane.takes(DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_INVALID));
}

TEST(KmsResourcesTest, ObjectsAreFoundByNumberAndPlanesByWhatTheyAreFor) {
    KmsResources all;
    all.connectors = {{.id = 7, .name = "DP-1"}};
    all.crtcs = {{.id = 3}, {.id = 4}};
    all.planes = {{.id = 30, .type = KmsPlaneType::primary, .crtcs = {3}},
                  {.id = 31, .type = KmsPlaneType::overlay, .crtcs = {3, 4}},
                  {.id = 32, .type = KmsPlaneType::primary, .crtcs = {4}}};
    ASSERT_NE(all.connector(7), nullptr);
    EXPECT_EQ(all.connector(7)->name, "DP-1");
    EXPECT_EQ(all.connector(3), nullptr);
    EXPECT_NE(all.crtc(4), nullptr);
    EXPECT_EQ(all.plane(33), nullptr);
    const auto primaries = all.planes_of(4, KmsPlaneType::primary);
    ASSERT_EQ(primaries.size(), 1U);
    EXPECT_EQ(primaries[0]->id, 32U);
    EXPECT_EQ(all.planes_of(4, KmsPlaneType::overlay).size(), 1U);
    EXPECT_TRUE(all.planes_of(4, KmsPlaneType::cursor).empty());
}

/// Two screens, each with a CRTC and planes, and a capture of the first.
KmsResources desk() {
    KmsResources all;
    all.connectors = {{.id = 1, .type = DRM_MODE_CONNECTOR_DisplayPort},
                      {.id = 2, .type = DRM_MODE_CONNECTOR_DisplayPort},
                      {.id = 3, .type = DRM_MODE_CONNECTOR_WRITEBACK}};
    all.crtcs = {{.id = 11}, {.id = 12}};
    all.planes = {{.id = 21}, {.id = 22}, {.id = 23}, {.id = 24}};
    return all;
}

/// Of an output of connector 1 and CRTC 11.
KmsLeftovers leftovers(const KmsResources& all, std::uint32_t writeback = 0) {
    return leftovers_of(all, 1, 11, writeback);
}

TEST(KmsLeftoversTest, NothingIsInTheWayOfADarkOrAnOwnScreen) {
    KmsResources all = desk();
    EXPECT_EQ(leftovers(all), KmsLeftovers{});
    all.connectors[0].crtc = 11;
    all.connectors[1].crtc = all.planes[1].crtc = 12; // somebody's other screen
    EXPECT_EQ(leftovers(all), KmsLeftovers{});
}

TEST(KmsLeftoversTest, WhatIsOnOurCrtcGoes) {
    KmsResources all = desk();
    all.connectors[1].crtc = all.connectors[2].crtc = 11;
    all.planes[1].crtc = 11;
    all.planes[2].crtc = 12;
    EXPECT_EQ(leftovers(all), (KmsLeftovers{.connectors = {2, 3}, .planes = {22}}));
    EXPECT_EQ(leftovers(all, 3), (KmsLeftovers{.connectors = {2}, .planes = {22}}));
}

TEST(KmsLeftoversTest, ACrtcThatLosesItsOnlyConnectorToUsIsTurnedOff) {
    KmsResources all = desk();
    all.connectors[0].crtc = all.connectors[2].crtc = 12; // others had our screen on that one
    all.planes[1].crtc = 12;
    all.planes[2].crtc = 12;
    EXPECT_EQ(leftovers(all), (KmsLeftovers{.connectors = {3}, .crtcs = {12}, .planes = {22, 23}}));
    all.connectors[1].crtc = 12; // a clone: the other screen keeps it
    EXPECT_EQ(leftovers(all), KmsLeftovers{});
}

} // namespace
} // namespace sluice
