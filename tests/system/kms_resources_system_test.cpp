// SPDX-License-Identifier: MIT
// What real cards say they have.
#include <sluice/kms_resources.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include <drm_fourcc.h>
#include <drm_mode.h>

#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>

#include "support/drm_cards.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/vkms.hpp"

namespace sluice {
namespace {

class KmsResourcesSystemTest : public test::FdTest {
protected:
    static KmsDevice card(const char* driver) {
        auto wrapped = KmsDevice::wrap(test::open_drm(driver).get());
        EXPECT_TRUE(wrapped) << wrapped.error().message();
        return *wrapped;
    }
    static KmsResources resources_of(const KmsDevice& device) {
        auto resources = device.resources();
        EXPECT_TRUE(resources) << resources.error().message();
        return std::move(*resources);
    }
};

TEST_F(KmsResourcesSystemTest, VkmsHasAScreenThatIsCaptured) {
    SLUICE_REQUIRES(test::open_drm("vkms"), "no vkms card");
    const KmsDevice device = card("vkms");
    const KmsResources all = resources_of(device);

    const auto screen = std::ranges::find_if_not(all.connectors, &KmsConnector::is_writeback);
    ASSERT_NE(screen, all.connectors.end());
    const std::string card = std::filesystem::path(test::card_of("vkms")).filename();
    EXPECT_TRUE(std::filesystem::exists("/sys/class/drm/" + card + "-" + screen->name));
    EXPECT_EQ(screen->type, static_cast<std::uint32_t>(DRM_MODE_CONNECTOR_VIRTUAL));
    EXPECT_EQ(screen->connection, KmsConnection::connected);
    EXPECT_TRUE(screen->writeback_formats.empty());
    const auto small = std::ranges::find_if(
        screen->modes, [](const KmsMode& mode) { return mode.width == 640 && mode.height == 480; });
    ASSERT_NE(small, screen->modes.end());
    EXPECT_NEAR(small->refresh_mhz, 60000, 1000);
    EXPECT_GT(small->htotal, small->hsync_end);
    ASSERT_EQ(screen->crtcs.size(), 1U);

    const KmsCrtc* crtc = all.crtc(screen->crtcs[0]);
    ASSERT_NE(crtc, nullptr);
    EXPECT_TRUE(crtc->out_fence);
    const auto writeback = std::ranges::find_if(all.connectors, &KmsConnector::is_writeback);
    ASSERT_NE(writeback, all.connectors.end());
    EXPECT_EQ(writeback->crtcs, screen->crtcs);
    EXPECT_EQ(std::ranges::count(writeback->writeback_formats, DRM_FORMAT_XRGB8888), 1);

    const auto primaries = all.planes_of(crtc->id, KmsPlaneType::primary);
    ASSERT_EQ(primaries.size(), 1U);
    EXPECT_TRUE(primaries[0]->in_fence);
    EXPECT_TRUE(primaries[0]->takes(DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR));
    EXPECT_FALSE(primaries[0]->takes(DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_INVALID));
    EXPECT_FALSE(all.planes_of(crtc->id, KmsPlaneType::overlay).empty());
    EXPECT_FALSE(all.planes_of(crtc->id, KmsPlaneType::cursor).empty());
}

TEST_F(KmsResourcesSystemTest, APlaneOfACardWithoutModifiersTellsNone) {
    SLUICE_REQUIRES(test::open_drm("virtio_gpu"), "no virtio_gpu card");
    const KmsDevice device = card("virtio_gpu");
    EXPECT_FALSE(device.caps().modifiers);
    const KmsResources all = resources_of(device);
    ASSERT_FALSE(all.planes.empty());
    for (const KmsPlane& each : all.planes) {
        EXPECT_FALSE(each.tells_modifiers());
        for (const KmsFormat& format : each.formats) {
            EXPECT_EQ(format.modifier, DRM_FORMAT_MOD_INVALID);
            EXPECT_TRUE(each.takes(format.format, DRM_FORMAT_MOD_LINEAR));
        }
    }
}

TEST_F(KmsResourcesSystemTest, TheyAreTheSameUntilSomethingChanges) {
    SLUICE_REQUIRES(test::open_drm("vkms"), "no vkms card");
    const KmsDevice device = card("vkms");
    EXPECT_EQ(resources_of(device), resources_of(device));
}

TEST_F(KmsResourcesSystemTest, TheDeviceSaysWhatItCan) {
    SLUICE_REQUIRES(test::open_drm("vkms"), "no vkms card");
    const KmsDevice device = card("vkms");
    const KmsDeviceCaps& caps = device.caps();
    EXPECT_TRUE(caps.modifiers);
    EXPECT_TRUE(caps.writeback);
    EXPECT_TRUE(caps.monotonic_timestamps);
    EXPECT_TRUE(caps.events_name_crtc);
    EXPECT_FALSE(caps.syncobjs);
    EXPECT_GE(caps.max_width, 4096U);
    EXPECT_LE(caps.min_width, 640U);
    EXPECT_GE(caps.cursor_width, 64U);
    EXPECT_EQ(device.device(), "/devices/platform/vkms");
    // What every driver has, whatever it is.
    for (const KmsCard& each : kms_cards())
        if (const auto other = KmsDevice::open(each.path)) {
            std::printf("%s: %zu connectors, %zu CRTCs, %zu planes, async flips %d, "
                        "framebuffers %ux%u to %ux%u, cursor %ux%u\n",
                        each.driver.c_str(), resources_of(*other).connectors.size(),
                        resources_of(*other).crtcs.size(), resources_of(*other).planes.size(),
                        other->caps().async_flips, other->caps().min_width,
                        other->caps().min_height, other->caps().max_width, other->caps().max_height,
                        other->caps().cursor_width, other->caps().cursor_height);
            for (const KmsPlane& plane : resources_of(*other).planes) {
                EXPECT_FALSE(plane.crtcs.empty());
                EXPECT_FALSE(plane.formats.empty());
                EXPECT_NE(plane.rotations & DRM_MODE_ROTATE_0, 0U);
                std::printf("  plane %u, %s: zpos %d, alpha %d, rotations %#x, premultiplied %d, "
                            "bt601 %d\n",
                            plane.id, to_string(plane.type).c_str(),
                            plane.zpos ? static_cast<int>(plane.zpos->value) : -1, plane.alpha,
                            plane.rotations, plane.blend.premultiplied, plane.ycbcr.bt601);
            }
        }
}

} // namespace
} // namespace sluice
