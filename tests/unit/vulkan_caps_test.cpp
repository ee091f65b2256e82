// SPDX-License-Identifier: MIT
#include <sluice/vulkan_caps.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <thread>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/vulkan_format.hpp>
#include <sluice/vulkan_image.hpp>
#include <sluice/vulkan_texture.hpp>

#include "frame/linear_layout.hpp"
#include "support/fake_vulkan.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using test::FakeVulkan;

constexpr VkImageUsageFlags sampled = VK_IMAGE_USAGE_SAMPLED_BIT;
constexpr VkFormatFeatureFlags everything = ~VkFormatFeatureFlags{0};
constexpr std::uint64_t tiled = I915_FORMAT_MOD_X_TILED;

class VulkanCapsTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
    }

    VulkanDevice wrap() {
        auto device = VulkanDevice::wrap(driver_.application());
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }

    static std::span<const VulkanModifierCaps>
    support(const VulkanDevice& device, std::uint32_t format = DRM_FORMAT_XRGB8888,
            VkImageUsageFlags usage = sampled, std::optional<std::uint32_t> view = std::nullopt) {
        auto caps = device.support(format, usage, view);
        EXPECT_TRUE(caps) << caps.error().message();
        EXPECT_EQ(caps->format, format);
        return caps->modifiers;
    }

    void expect_refused(const VulkanDevice& device, std::uint32_t format, VkImageUsageFlags usage,
                        std::optional<std::uint32_t> view, Errc code, const std::string& words) {
        auto caps = device.support(format, usage, view);
        ASSERT_FALSE(caps);
        EXPECT_EQ(caps.error().code, code);
        EXPECT_NE(caps.error().message().find(words), std::string::npos) << caps.error().message();
        EXPECT_EQ(caps.error().operation, "VulkanDevice::support");
        EXPECT_FALSE(caps.error().remedy.empty());
    }

    int asked() const {
        return driver_.calls("vkGetPhysicalDeviceFormatProperties2") +
               driver_.calls("vkGetPhysicalDeviceImageFormatProperties2");
    }

    test::ScriptedLibc libc_;
    FakeVulkan driver_;
};

TEST_F(VulkanCapsTest, SrgbViewsLimitTheModifiers) {
    auto& gpu = driver_.devices[0];
    gpu.modifiers.push_back({.drmFormatModifier = tiled,
                             .drmFormatModifierPlaneCount = 1,
                             .drmFormatModifierTilingFeatures = everything});
    gpu.modifiers_of[VK_FORMAT_B8G8R8A8_SRGB] = {gpu.modifiers[1]};
    const VulkanDevice device = wrap();
    for (const auto& each : support(device))
        EXPECT_TRUE(each.importable && each.exportable);
    const auto caps = device.support(DRM_FORMAT_XRGB8888, {.usage = sampled, .srgb_views = true});
    ASSERT_TRUE(caps) << caps.error().message();
    ASSERT_EQ(caps->modifiers.size(), 2U);
    EXPECT_FALSE(caps->modifiers[0].importable || caps->modifiers[0].exportable);
    EXPECT_TRUE(caps->modifiers[1].importable && caps->modifiers[1].exportable);
    const auto refused = [&](std::uint32_t format, const VulkanAttachInfo& how) {
        const auto answer = device.support(format, how);
        EXPECT_FALSE(answer);
        return answer ? Errc::failed : answer.error().code;
    };
    EXPECT_EQ(refused(DRM_FORMAT_RGB565, {.usage = sampled, .srgb_views = true}),
              Errc::unsupported);
    EXPECT_EQ(
        refused(DRM_FORMAT_XRGB8888, {.usage = VK_IMAGE_USAGE_STORAGE_BIT, .srgb_views = true}),
        Errc::invalid_argument);
    EXPECT_EQ(refused(DRM_FORMAT_XRGB8888, {.usage = sampled, .view = 0, .srgb_views = true}),
              Errc::invalid_argument);
}

TEST_F(VulkanCapsTest, APartOfAFrameIsLinear) {
    driver_.devices[0].modifiers.push_back({.drmFormatModifier = tiled,
                                            .drmFormatModifierPlaneCount = 1,
                                            .drmFormatModifierTilingFeatures = everything});
    const VulkanDevice device = wrap();
    EXPECT_EQ(support(device, DRM_FORMAT_GR88).size(), 2U);
    const auto luma = support(device, DRM_FORMAT_YUYV, sampled, 0); // in the same VkFormat
    ASSERT_EQ(luma.size(), 1U);
    EXPECT_EQ(luma[0].modifier, std::uint64_t{DRM_FORMAT_MOD_LINEAR});
    EXPECT_TRUE(luma[0].importable);
    EXPECT_EQ(support(device, DRM_FORMAT_XRGB8888, sampled, 0).size(), 2U) << "the frame itself";
}

TEST_F(VulkanCapsTest, TellsWhatTheDriverSaysOfEachModifier) {
    auto& gpu = driver_.devices[0];
    gpu.modifiers = {{.drmFormatModifier = DRM_FORMAT_MOD_LINEAR,
                      .drmFormatModifierPlaneCount = 1,
                      .drmFormatModifierTilingFeatures = everything},
                     {.drmFormatModifier = tiled,
                      .drmFormatModifierPlaneCount = 2,
                      .drmFormatModifierTilingFeatures = VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT}};
    gpu.max_extent = {4096, 2048};
    gpu.memory_features =
        VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT | VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
    const VulkanDevice device = wrap();
    const auto modifiers = support(device);
    ASSERT_EQ(modifiers.size(), 2U);
    const VulkanModifierCaps& linear = modifiers[0];
    EXPECT_EQ(linear.modifier, std::uint64_t{DRM_FORMAT_MOD_LINEAR});
    EXPECT_EQ(linear.plane_count, 1U);
    EXPECT_EQ(linear.features, VkFormatFeatureFlags2{everything});
    EXPECT_EQ(linear.max_extent.width, 4096U);
    EXPECT_EQ(linear.max_extent.height, 2048U);
    EXPECT_TRUE(linear.importable);
    EXPECT_FALSE(linear.exportable);
    EXPECT_TRUE(linear.dedicated_only);
    EXPECT_TRUE(linear.disjoint);
    EXPECT_EQ(modifiers[1].modifier, tiled);
    EXPECT_EQ(modifiers[1].plane_count, 2U);
    EXPECT_TRUE(modifiers[1].importable);
    EXPECT_FALSE(modifiers[1].disjoint);

    gpu.memory_features = VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT;
    const VulkanDevice exporter = wrap();
    EXPECT_FALSE(support(exporter)[0].importable);
    EXPECT_TRUE(support(exporter)[0].exportable);
    EXPECT_FALSE(support(exporter)[0].dedicated_only);
}

TEST_F(VulkanCapsTest, AModifierWithoutTheUsageIsListedAndCannotBeUsed) {
    auto& gpu = driver_.devices[0];
    gpu.modifiers[0].drmFormatModifierTilingFeatures = VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT;
    const VulkanDevice device = wrap();
    const auto storage = support(device, DRM_FORMAT_XRGB8888, sampled | VK_IMAGE_USAGE_STORAGE_BIT);
    ASSERT_EQ(storage.size(), 1U);
    EXPECT_FALSE(storage[0].importable || storage[0].exportable);
    EXPECT_EQ(storage[0].max_extent.width, 0U);
    EXPECT_EQ(driver_.calls("vkGetPhysicalDeviceImageFormatProperties2"), 0);
    EXPECT_TRUE(support(device)[0].importable) << "the answer is the usage's alone";
    // The features do not tell everything.
    const auto unknown = support(device, DRM_FORMAT_RGB565);
    ASSERT_EQ(unknown.size(), 1U);
    EXPECT_FALSE(unknown[0].importable || unknown[0].exportable);
}

TEST_F(VulkanCapsTest, JoinsBothListsOfModifiers) {
    auto& gpu = driver_.devices[0];
    constexpr VkFormatFeatureFlags2 further = VK_FORMAT_FEATURE_2_STORAGE_READ_WITHOUT_FORMAT_BIT;
    gpu.modifiers[0].drmFormatModifierTilingFeatures = VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT;
    gpu.modifiers_2 = {{.drmFormatModifier = DRM_FORMAT_MOD_LINEAR,
                        .drmFormatModifierPlaneCount = 1,
                        .drmFormatModifierTilingFeatures = further},
                       {.drmFormatModifier = tiled,
                        .drmFormatModifierPlaneCount = 3,
                        .drmFormatModifierTilingFeatures = further}};
    {
        const VulkanDevice device = wrap();
        const auto modifiers = support(device);
        ASSERT_EQ(modifiers.size(), 2U);
        EXPECT_EQ(modifiers[0].features, VK_FORMAT_FEATURE_2_SAMPLED_IMAGE_BIT | further);
        EXPECT_EQ(modifiers[1].modifier, tiled);
        EXPECT_EQ(modifiers[1].plane_count, 3U);
        EXPECT_EQ(modifiers[1].features, further);
    }
    // What knows no second list must not be asked for it: the driver looks.
    gpu.api_version = VK_API_VERSION_1_2;
    EXPECT_EQ(support(wrap()).size(), 1U);
    gpu.extensions.emplace_back(VK_KHR_FORMAT_FEATURE_FLAGS_2_EXTENSION_NAME);
    EXPECT_EQ(support(wrap()).size(), 2U);
}

TEST_F(VulkanCapsTest, NamesNoFormatThatTheDeviceDoesNotKnow) {
    auto& gpu = driver_.devices[0];
    gpu.api_version = VK_API_VERSION_1_1;
    {
        const VulkanDevice device = wrap();
        EXPECT_TRUE(support(device, DRM_FORMAT_ARGB4444).empty());
        EXPECT_TRUE(support(device, DRM_FORMAT_NV24).empty());
        EXPECT_TRUE(driver_.asked_formats.empty());
        EXPECT_TRUE(device.formats(sampled)); // the driver looks
        EXPECT_FALSE(driver_.asked_formats.empty());
    }
    for (const auto& [fourcc, extension] :
         {std::pair(DRM_FORMAT_ARGB4444, VK_EXT_4444_FORMATS_EXTENSION_NAME),
          std::pair(DRM_FORMAT_NV24, VK_EXT_YCBCR_2PLANE_444_FORMATS_EXTENSION_NAME)}) {
        gpu.extensions.emplace_back(extension);
        EXPECT_EQ(support(wrap(), static_cast<std::uint32_t>(fourcc)).size(), 1U) << extension;
        gpu.extensions.pop_back();
    }
    gpu.api_version = VK_API_VERSION_1_3;
    EXPECT_EQ(support(wrap(), DRM_FORMAT_NV24).size(), 1U);
}

TEST_F(VulkanCapsTest, AViewIsAFormatOfItsOwn) {
    const VulkanDevice device = wrap();
    (void)support(device, DRM_FORMAT_NV12, sampled, 1);
    EXPECT_EQ(driver_.asked_formats, std::set<VkFormat>{VK_FORMAT_R8G8_UNORM});
    EXPECT_TRUE(support(device, DRM_FORMAT_YUV410).empty()) << "it has views alone";
    EXPECT_EQ(support(device, DRM_FORMAT_YUV410, sampled, 2).size(), 1U);
}

TEST_F(VulkanCapsTest, RefusesWhatVulkanCannotMean) {
    const VulkanDevice device = wrap();
    expect_refused(device, DRM_FORMAT_C8, sampled, {}, Errc::unsupported, "no format with its");
    expect_refused(device, DRM_FORMAT_NV12, 0, {}, Errc::invalid_argument, "no usage");
    expect_refused(device, DRM_FORMAT_NV12, sampled, 2, Errc::invalid_argument,
                   "no view 2, the format has 2");
    auto formats = device.formats(0);
    ASSERT_FALSE(formats);
    EXPECT_EQ(formats.error().operation, "VulkanDevice::formats");
    EXPECT_EQ(asked(), 0);
}

TEST_F(VulkanCapsTest, ListsTheFormatsThatItTakesInTheTablesOrder) {
    const VulkanDevice device = wrap();
    auto formats = device.formats(sampled);
    ASSERT_TRUE(formats) << formats.error().message();
    std::vector<std::uint32_t> listed;
    std::vector<std::uint32_t> wanted;
    for (const VulkanFormatCaps& each : *formats)
        listed.push_back(each.format);
    for (const VulkanFormatInfo& each : vulkan_formats())
        if (driver_.devices[0].formats.contains(each.format))
            wanted.push_back(each.fourcc);
    EXPECT_EQ(listed, wanted);
    EXPECT_GT(listed.size(), 5U);
}

/// The uses that go past a view's components, one at a time and beside sampling.
constexpr std::array<VkImageUsageFlags, 4> past_a_view{
    VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, VK_IMAGE_USAGE_STORAGE_BIT,
    VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT, sampled | VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT};

TEST_F(VulkanCapsTest, WhatOnlyAViewPutsInItsPlaceIsSampledAndCopiedWhoeverIsAsked) {
    auto& gpu = driver_.devices[0];
    for (const VulkanFormatInfo& each : vulkan_formats())
        gpu.formats.insert(each.format);
    driver_.memory_size = 1;
    for (const VulkanFormatInfo& each : vulkan_formats()) {
        if (each.format == VK_FORMAT_UNDEFINED)
            continue;
        const FormatInfo& format = *find_format(each.fourcc);
        SCOPED_TRACE(format.name);
        gpu.modifiers = {{DRM_FORMAT_MOD_LINEAR, format.plane_count, everything}};
        VulkanDeviceInfo application = driver_.application();
        application.sampler_ycbcr_conversion = true;
        const VulkanDevice device = *VulkanDevice::wrap(application);
        const auto plan = lay_out_linear(
            format, {.width = 16, .height = 16, .padded_height = 16, .stride_alignment = 64});
        ASSERT_TRUE(plan);
        const auto frame =
            Frame::create(plan->layout, std::move(*DmaBuf::from_fd(test::memfd(plan->size))));
        ASSERT_TRUE(frame) << frame.error().message();
        const auto expect_alike = [&](const auto& result, VkImageUsageFlags usage, bool may) {
            EXPECT_EQ(result.has_value(), may) << usage;
            if (!result) {
                EXPECT_EQ(result.error().code, Errc::unsupported);
                EXPECT_NE(result.error().message().find("only sampling moves them"),
                          std::string::npos)
                    << result.error().message();
                EXPECT_NE(result.error().remedy.find("vulkan_format()"), std::string::npos);
            }
        };
        const auto listed = [&](VkImageUsageFlags usage) {
            const auto all = device.formats(usage);
            return all &&
                   std::ranges::find(*all, each.fourcc, &VulkanFormatCaps::format) != all->end();
        };
        for (const VkImageUsageFlags usage : past_a_view) {
            const bool may = !each.is_swizzled;
            expect_alike(device.support(each.fourcc, usage), usage, may);
            EXPECT_EQ(listed(usage), may);
            expect_alike(device.attach(*frame, {.usage = usage}), usage, may);
            if (each.view_count == 1) { // the same image by another name
                expect_alike(device.support(each.fourcc, usage, 0), usage, may);
                expect_alike(device.attach(*frame, {.usage = usage, .view = 0}), usage, may);
                expect_alike(device.texture(*frame, {.usage = usage}), usage, may);
            }
            if (!may)
                expect_alike(
                    device.export_image(
                        {.width = 16, .height = 16, .format = each.fourcc, .usage = usage}),
                    usage, may);
        }
        for (const VkImageUsageFlags usage :
             {sampled, VkImageUsageFlags{VK_IMAGE_USAGE_TRANSFER_DST_BIT}}) {
            EXPECT_TRUE(device.support(each.fourcc, usage));
            EXPECT_TRUE(listed(usage));
            EXPECT_TRUE(device.attach(*frame, {.usage = usage}));
        }
    }
}

TEST_F(VulkanCapsTest, WhatIsNegotiatedDrawsOnlyIntoChannelsInTheirPlaces) {
    for (const VulkanFormatInfo& each : vulkan_formats())
        driver_.devices[0].formats.insert(each.format);
    const VulkanDevice device = wrap();
    const auto takes = device.importer_caps();
    const auto makes = device.exporter_caps();
    ASSERT_TRUE(takes && makes);
    const std::span<const FormatSupport> all[] = {takes->formats, makes->formats};
    for (const auto& formats : all)
        for (const FormatSupport& each : formats) {
            const VulkanFormatInfo& info = *find_vulkan_format(each.format);
            // Nothing converts YCbCr here.
            EXPECT_TRUE(contains(each.uses, Uses::sample) || info.is_ycbcr);
            EXPECT_EQ(contains(each.uses, Uses::render), !info.is_swizzled && !info.is_ycbcr)
                << format_name(each.format);
            EXPECT_EQ(contains(each.uses, Uses::store), !info.is_swizzled && !info.is_ycbcr);
        }
}

TEST_F(VulkanCapsTest, AsksOnceAndAttachesAndExportsByTheAnswer) {
    const VulkanDevice device = wrap();
    const auto modifiers = support(device);
    const int once = asked();
    EXPECT_EQ(once, 3); // its lists' length, the lists, LINEAR
    EXPECT_EQ(support(device).data(), modifiers.data());
    EXPECT_EQ(support(device, DRM_FORMAT_ARGB8888).data(), modifiers.data()) << "the same VkFormat";
    auto image = device.export_image(
        {.width = 16, .height = 16, .format = DRM_FORMAT_XRGB8888, .usage = sampled});
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_TRUE(device.attach(image->frame(), {.usage = sampled}));
    EXPECT_EQ(asked(), once);
    EXPECT_FALSE(support(device, DRM_FORMAT_XRGB8888, VK_IMAGE_USAGE_TRANSFER_SRC_BIT).empty());
    EXPECT_GT(asked(), once) << "another usage is another question";
}

TEST_F(VulkanCapsTest, AsksAgainWhereTheDriverCouldNotAnswer) {
    driver_.devices[0].api_version = VK_API_VERSION_1_2;
    const VulkanDevice device = wrap();
    for (const char* function :
         {"vkEnumerateDeviceExtensionProperties", "vkGetPhysicalDeviceImageFormatProperties2"}) {
        driver_.fail(function, VK_ERROR_OUT_OF_HOST_MEMORY);
        expect_refused(device, DRM_FORMAT_XRGB8888, sampled, {}, Errc::no_resources,
                       "could not be asked");
    }
    EXPECT_TRUE(support(device)[0].importable);
    driver_.fail("vkGetPhysicalDeviceImageFormatProperties2", VK_ERROR_FORMAT_NOT_SUPPORTED);
    EXPECT_FALSE(support(device, DRM_FORMAT_R8)[0].importable);
    EXPECT_FALSE(support(device, DRM_FORMAT_R8)[0].importable) << "that is an answer";
}

TEST_F(VulkanCapsTest, AnyThreadMayAsk) {
    const VulkanDevice device = wrap();
    // The fake driver is not for several threads: what it has said is read by them.
    const auto formats = device.formats(sampled);
    ASSERT_TRUE(formats);
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&] {
            for (const VulkanFormatCaps& each : *formats)
                EXPECT_EQ(device.support(each.format, sampled)->modifiers.data(),
                          each.modifiers.data());
        });
}

} // namespace
} // namespace sluice
