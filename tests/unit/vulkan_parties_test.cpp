// SPDX-License-Identifier: MIT
#include <sluice/negotiate.hpp>
#include <sluice/vulkan_device.hpp>

#include <algorithm>
#include <array>

#include <drm_fourcc.h>

#include "support/fake_vulkan.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using test::FakeVulkan;

constexpr std::uint64_t tiled = I915_FORMAT_MOD_X_TILED;
constexpr Uses every_image_use =
    Uses::sample | Uses::render | Uses::store | Uses::copy_from | Uses::copy_to;

class VulkanPartiesTest : public test::FdTest {
protected:
    VulkanDevice wrap() {
        auto device = VulkanDevice::wrap(driver_.application());
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }
    template <typename Caps>
    static std::vector<FormatSupport> of(const Caps& caps, std::uint32_t format) {
        std::vector<FormatSupport> found;
        std::ranges::copy_if(caps.formats, std::back_inserter(found),
                             [&](const FormatSupport& each) { return each.format == format; });
        return found;
    }

    FakeVulkan driver_;
};

TEST_F(VulkanPartiesTest, SaysWhatTheDriverSays) {
    auto& gpu = driver_.devices[0];
    gpu.max_extent = {4096, 2048};
    gpu.modifiers.push_back(
        {.drmFormatModifier = tiled,
         .drmFormatModifierPlaneCount = 2,
         .drmFormatModifierTilingFeatures = VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT});
    const auto caps = wrap().importer_caps();
    ASSERT_TRUE(caps) << caps.error().message();
    EXPECT_EQ(caps->name, "vulkan Fake GPU");
    EXPECT_FALSE(caps->maps);
    EXPECT_EQ(caps->height_alignment, 0U);
    EXPECT_EQ(of(*caps, DRM_FORMAT_XRGB8888),
              (std::vector<FormatSupport>{{.format = DRM_FORMAT_XRGB8888,
                                           .modifier = DRM_FORMAT_MOD_LINEAR,
                                           .uses = every_image_use,
                                           .plane_count = 1,
                                           .max_width = 4096,
                                           .max_height = 2048,
                                           .disjoint = true},
                                          {.format = DRM_FORMAT_XRGB8888,
                                           .modifier = tiled,
                                           .uses = Uses::sample,
                                           .plane_count = 2,
                                           .max_width = 4096,
                                           .max_height = 2048,
                                           .disjoint = false}}));
    // What is only sampled right is not drawn into.
    for (const FormatSupport& each : of(*caps, DRM_FORMAT_RGBX8888))
        EXPECT_FALSE(contains(each.uses, Uses::render)) << each.modifier;
    EXPECT_TRUE(driver_.living().empty()) << "what was made to find out";
}

TEST_F(VulkanPartiesTest, FormatsThatTheDriverHasNotAreTakenPartByPart) {
    auto& gpu = driver_.devices[0];
    gpu.formats.erase(VK_FORMAT_G8_B8R8_2PLANE_420_UNORM);
    const auto caps = wrap().importer_caps();
    ASSERT_TRUE(caps) << caps.error().message();
    const auto nv12 = of(*caps, DRM_FORMAT_NV12);
    ASSERT_EQ(nv12.size(), 1U);
    EXPECT_EQ(nv12[0].modifier, DRM_FORMAT_MOD_LINEAR);
    EXPECT_EQ(nv12[0].plane_count, 2U);
    EXPECT_TRUE(contains(nv12[0].uses, Uses::sample));
    EXPECT_FALSE(contains(nv12[0].uses, Uses::render));
    EXPECT_TRUE(nv12[0].disjoint);
    const auto made = wrap().exporter_caps();
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_TRUE(of(*made, DRM_FORMAT_NV12).empty()) << "a part is no frame";
}

TEST_F(VulkanPartiesTest, RowsThatTheDriverWantsBeyondTheImageAreFound) {
    driver_.memory_size = 4 * 4096; // of an image of one row
    const auto caps = wrap().importer_caps();
    ASSERT_TRUE(caps) << caps.error().message();
    EXPECT_EQ(caps->height_alignment, 4U);
}

TEST_F(VulkanPartiesTest, ImportsAndExportsAreToldApart) {
    driver_.devices[0].memory_features = VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
    driver_.devices[0].type = VK_PHYSICAL_DEVICE_TYPE_CPU;
    const VulkanDevice device = wrap();
    const auto takes = device.importer_caps();
    const auto makes = device.exporter_caps();
    ASSERT_TRUE(takes && makes);
    EXPECT_FALSE(takes->formats.empty());
    EXPECT_TRUE(takes->maps) << "software";
    EXPECT_TRUE(makes->formats.empty());
    EXPECT_FALSE(makes->gives_bytes);
}

TEST_F(VulkanPartiesTest, ADriverThatCannotAnswerIsAnError) {
    driver_.fail("vkGetPhysicalDeviceImageFormatProperties2", VK_ERROR_OUT_OF_HOST_MEMORY, 3);
    const VulkanDevice device = wrap();
    const auto caps = device.importer_caps();
    ASSERT_FALSE(caps);
    EXPECT_EQ(caps.error().code, Errc::no_resources) << caps.error().message();
    EXPECT_TRUE(device.importer_caps()) << "the next time";
}

TEST_F(VulkanPartiesTest, TwoDevicesAgreeOnALayout) {
    auto& gpu = driver_.devices[0];
    gpu.modifiers.push_back({.drmFormatModifier = tiled,
                             .drmFormatModifierPlaneCount = 1,
                             .drmFormatModifierTilingFeatures = ~VkFormatFeatureFlags{0}});
    const VulkanDevice device = wrap();
    const auto makes = device.exporter_caps();
    const auto takes = device.importer_caps();
    ASSERT_TRUE(makes && takes);
    const std::array exporters{&*makes};
    const std::array importers{ImporterUse{.caps = &*takes, .uses = Uses::sample | Uses::render}};
    const auto choices = negotiate(exporters, importers,
                                   {.width = 64, .height = 16, .formats = {DRM_FORMAT_XRGB8888}});
    ASSERT_TRUE(choices) << choices.error().error.message();
    EXPECT_EQ(choices->front().spec.modifiers,
              (std::vector<std::uint64_t>{tiled, DRM_FORMAT_MOD_LINEAR}));
}

} // namespace
} // namespace sluice
