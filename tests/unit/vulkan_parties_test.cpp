// SPDX-License-Identifier: MIT
#include <sluice/negotiate.hpp>
#include <sluice/vulkan_device.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>

#include <drm_fourcc.h>
#include <sys/mman.h>

#include <sluice/vulkan_format.hpp>
#include <sluice/vulkan_image.hpp>

#include "frame/linear_plan.hpp"
#include "vulkan/vulkan_padding.hpp"

#include "support/fake_vulkan.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using test::FakeVulkan;

constexpr std::uint64_t tiled = I915_FORMAT_MOD_X_TILED;
constexpr Uses every_image_use =
    Uses::sample | Uses::render | Uses::store | Uses::copy_from | Uses::copy_to;

class VulkanPartiesTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
    }

    VulkanDevice wrap(bool converts = false) {
        VulkanDeviceInfo info = driver_.application();
        info.sampler_ycbcr_conversion = converts;
        auto device = VulkanDevice::wrap(info);
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

    /// A frame as sluice lays it out, in a buffer of just the bytes that it needs.
    static Frame laid_out(const FrameSpec& spec) {
        const auto plan = plan_linear(spec, std::max(spec.stride_alignment, 1U));
        EXPECT_TRUE(plan) << plan.error().message();
        auto frame =
            Frame::create(plan->layout, std::move(*DmaBuf::from_fd(test::memfd(plan->size))));
        EXPECT_TRUE(frame) << frame.error().message();
        return std::move(*frame);
    }
    /// All sets of uses, each with how it is taken, of one format and modifier.
    template <typename Caps>
    static std::set<Uses> uses_of(const Caps& caps, std::uint32_t format, std::uint64_t modifier) {
        std::set<Uses> uses;
        for (const FormatSupport& each : of(caps, format))
            if (each.modifier == modifier) {
                EXPECT_TRUE(uses.insert(each.uses).second) << "twice: " << to_string(each.uses);
            }
        return uses;
    }

    test::ScriptedLibc libc_;
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

TEST_F(VulkanPartiesTest, WhatTheDriverWantsBeyondTheImageIsFound) {
    const struct {
        VkDeviceSize rows, slack, rounding;
    } cases[] = {{1, 0, 1},      {4, 0, 1},    {2, 0, 1},     {1, 64, 1},
                 {3, 64, 1},     {4, 64, 1},   {1, 0, 65536}, {8, 256, 4096},
                 {16, 0, 65536}, {64, 100, 1}, {1, 1, 1},     {2, 100, 65536}};
    for (const auto& each : cases) {
        SCOPED_TRACE(std::to_string(each.rows) + " rows, " + std::to_string(each.slack) +
                     " bytes, up to " + std::to_string(each.rounding));
        driver_.rows_round_to = each.rows;
        driver_.bytes_behind = each.slack;
        driver_.size_rounds_to = each.rounding;
        const VulkanDevice device = wrap();
        const auto caps = device.importer_caps();
        ASSERT_TRUE(caps) << caps.error().message();
        if (each.rounding == 1) {
            EXPECT_EQ(caps->height_alignment, each.rows == 1 ? 0 : each.rows);
            EXPECT_EQ(caps->slack, each.slack);
            EXPECT_EQ(caps->size_alignment, 0U);
        } else {
            EXPECT_GE(caps->slack, each.slack) << "rounding hides some of it";
            EXPECT_EQ(caps->size_alignment, each.rounding);
        }
        EXPECT_TRUE(driver_.living().empty());
        // What is laid out by that is taken, whatever the size.
        ExporterCaps plain{.name = "plain",
                           .granularity = 1,
                           .cpu_mappable = true,
                           .formats = {{DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR}}};
        const std::array<const ExporterCaps*, 1> makers{&plain};
        const std::array takers{ImporterUse{&*caps, Uses::sample}};
        for (const auto& [width, height] :
             {std::pair(1920U, 1080U), std::pair(64U, 1U), std::pair(1000U, 77U)}) {
            const auto choices =
                negotiate(makers, takers,
                          {.width = width, .height = height, .formats = {DRM_FORMAT_XRGB8888}});
            ASSERT_TRUE(choices) << choices.error().error.message();
            const Frame frame = laid_out(choices->front().spec);
            const auto image = device.attach(frame, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT});
            EXPECT_TRUE(image) << image.error().message();
        }
    }
}

TEST_F(VulkanPartiesTest, PaddingWithoutRuleIsTheMostThatWasSeen) {
    using Samples = std::vector<VulkanSizeSample>;
    EXPECT_EQ(padding_of(Samples{}), VulkanPadding{});
    EXPECT_EQ(padding_of(Samples{{.stride = 100, .rows = 1, .size = 100},
                                 {.stride = 100, .rows = 2, .size = 777},
                                 {.stride = 100, .rows = 3, .size = 301}}),
              VulkanPadding{.slack = 577});
    EXPECT_EQ(padding_of(Samples{{.stride = 100, .rows = 1, .size = 50}}), VulkanPadding{})
        << "less than its rows";
    // Memory that is aligned like the sizes is rounded up like them.
    EXPECT_EQ(padding_of(Samples{{.stride = 256, .rows = 1, .size = 256, .alignment = 64},
                                 {.stride = 256, .rows = 2, .size = 512, .alignment = 64}}),
              VulkanPadding{.rounding = 64});
    EXPECT_EQ(padding_of(Samples{{.stride = 256, .rows = 1, .size = 256, .alignment = 64},
                                 {.stride = 256, .rows = 2, .size = 522, .alignment = 64}}),
              VulkanPadding{.slack = 10});
}

TEST_F(VulkanPartiesTest, WithoutModifiersPaddingIsNotAskedFor) {
    driver_.bytes_behind = 64;
    constexpr std::array extensions{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                    VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME};
    VulkanDeviceInfo info = driver_.application();
    info.extensions = extensions;
    const auto device = VulkanDevice::wrap(info);
    ASSERT_TRUE(device) << device.error().message();
    const auto caps = device->importer_caps();
    ASSERT_TRUE(caps) << caps.error().message();
    EXPECT_EQ(caps->slack, 0U);
    EXPECT_TRUE(driver_.images.empty());
}

TEST_F(VulkanPartiesTest, AScreenAndTheCpuCanHaveWhatItMakes) {
    const VulkanDevice device = wrap();
    const auto makes = device.exporter_caps();
    ASSERT_TRUE(makes) << makes.error().message();
    EXPECT_TRUE(makes->cpu_mappable);
    EXPECT_EQ(driver_.allocations.size(), 1U) << "one small image to see";
    EXPECT_TRUE(driver_.living().empty());
    const ImporterCaps cpu = cpu_caps();
    const ImporterCaps screen{
        .name = "screen",
        .formats = {{DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR, Uses::scan_out},
                    {DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR, Uses::capture}}};
    const std::array exporters{&*makes};
    for (const Uses each : {Uses::scan_out, Uses::capture}) {
        const std::array importers{ImporterUse{&cpu, Uses::cpu_read}, ImporterUse{&screen, each}};
        const auto choices = negotiate(
            exporters, importers,
            {.width = 64, .height = 16, .formats = {DRM_FORMAT_XRGB8888}, .zeroed = true});
        ASSERT_TRUE(choices) << choices.error().error.message();
        EXPECT_TRUE(choices->front().clear);
        const auto image =
            device.export_image(choices->front().spec, VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT);
        EXPECT_TRUE(image) << image.error().message();
    }
}

TEST_F(VulkanPartiesTest, MemoryThatTheCpuCannotMapIsToldApart) {
    libc_.mmap = [](void*, size_t, int, int, int, off_t) {
        errno = EINVAL;
        return MAP_FAILED;
    };
    const auto unmapped = wrap().exporter_caps();
    ASSERT_TRUE(unmapped) << unmapped.error().message();
    EXPECT_FALSE(unmapped->cpu_mappable);
    libc_.mmap = {};
    driver_.memory_fd = FakeVulkan::Gives::no_fd;
    driver_.devices[0].type = VK_PHYSICAL_DEVICE_TYPE_CPU;
    const auto not_exported = wrap().exporter_caps();
    ASSERT_TRUE(not_exported) << not_exported.error().message();
    EXPECT_FALSE(not_exported->cpu_mappable) << "software or not";
    EXPECT_TRUE(driver_.living().empty());
}

TEST_F(VulkanPartiesTest, TheLargestSetsOfUsesAreListed) {
    auto& gpu = driver_.devices[0];
    gpu.formats = {VK_FORMAT_B8G8R8A8_UNORM};
    constexpr Uses drawn = Uses::sample | Uses::render | Uses::copy_from | Uses::copy_to;
    gpu.takes_usage = [](VkImageUsageFlags usage) {
        return (usage & VK_IMAGE_USAGE_STORAGE_BIT) == 0;
    };
    auto caps = wrap().importer_caps();
    ASSERT_TRUE(caps) << caps.error().message();
    EXPECT_EQ(uses_of(*caps, DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR), std::set{drawn});

    // Storing goes together with copies only.
    std::multiset<VkImageUsageFlags> asked;
    gpu.takes_usage = [&](VkImageUsageFlags usage) {
        asked.insert(usage);
        constexpr VkImageUsageFlags not_with_storage =
            VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT;
        return (usage & VK_IMAGE_USAGE_STORAGE_BIT) == 0 || (usage & not_with_storage) == 0;
    };
    const VulkanDevice device = wrap();
    caps = device.importer_caps();
    ASSERT_TRUE(caps) << caps.error().message();
    EXPECT_EQ(uses_of(*caps, DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR),
              (std::set{drawn, Uses::store | Uses::copy_from | Uses::copy_to}));
    EXPECT_EQ(asked.size(), std::set(asked.begin(), asked.end()).size()) << "each asked once";
    EXPECT_LE(asked.size(), 20U);
    const std::size_t before = asked.size();
    EXPECT_TRUE(device.importer_caps());
    EXPECT_EQ(asked.size(), before) << "nor when it is asked again";
    const std::array importers{ImporterUse{&*caps, Uses::sample | Uses::render}};
    const auto made = device.exporter_caps();
    ASSERT_TRUE(made) << made.error().message();
    const std::array exporters{&*made};
    EXPECT_TRUE(negotiate(exporters, importers,
                          {.width = 64, .height = 16, .formats = {DRM_FORMAT_XRGB8888}}));
    EXPECT_EQ(
        uses_of(*made, DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR),
        (std::set{drawn | Uses::scan_out | Uses::capture,
                  Uses::store | Uses::copy_from | Uses::copy_to | Uses::scan_out | Uses::capture}));

    gpu.takes_usage = [](VkImageUsageFlags) { return false; };
    caps = wrap().importer_caps();
    ASSERT_TRUE(caps) << caps.error().message();
    EXPECT_TRUE(of(*caps, DRM_FORMAT_XRGB8888).empty());
}

TEST_F(VulkanPartiesTest, YcbcrIsSampledWholeOnlyWhereItIsConverted) {
    constexpr VkFormatFeatureFlags chroma = VK_FORMAT_FEATURE_MIDPOINT_CHROMA_SAMPLES_BIT |
                                            VK_FORMAT_FEATURE_COSITED_CHROMA_SAMPLES_BIT;
    auto& modifiers = driver_.devices[0].modifiers;
    modifiers[0].drmFormatModifierPlaneCount = 2;
    modifiers.push_back({.drmFormatModifier = tiled,
                         .drmFormatModifierPlaneCount = 2,
                         .drmFormatModifierTilingFeatures = ~VkFormatFeatureFlags{0}});
    constexpr Uses copied = Uses::copy_from | Uses::copy_to;
    for (const bool converts : {false, true})
        for (const VkFormatFeatureFlags places :
             {VkFormatFeatureFlags{0},
              VkFormatFeatureFlags{VK_FORMAT_FEATURE_MIDPOINT_CHROMA_SAMPLES_BIT},
              VkFormatFeatureFlags{VK_FORMAT_FEATURE_COSITED_CHROMA_SAMPLES_BIT}}) {
            SCOPED_TRACE(std::to_string(converts) + " " + std::to_string(places));
            for (auto& each : modifiers)
                each.drmFormatModifierTilingFeatures = ~chroma | places;
            const auto caps = wrap(converts).importer_caps();
            ASSERT_TRUE(caps) << caps.error().message();
            const bool whole = converts && places != 0;
            for (const FormatSupport& each : of(*caps, DRM_FORMAT_NV12)) {
                const bool in_parts = each.width_granularity == 1;
                EXPECT_EQ(each.height_granularity, each.width_granularity);
                EXPECT_TRUE(in_parts || each.width_granularity == 2);
                EXPECT_EQ(each.uses, in_parts || whole ? copied | Uses::sample : copied);
                EXPECT_TRUE(!in_parts || each.modifier == DRM_FORMAT_MOD_LINEAR);
            }
            EXPECT_EQ(of(*caps, DRM_FORMAT_NV12).size(), 3U) << "whole twice, and LINEAR in parts";
            // Colours need no conversion.
            for (const FormatSupport& each : of(*caps, DRM_FORMAT_XRGB8888)) {
                EXPECT_TRUE(contains(each.uses, Uses::sample));
                EXPECT_EQ(each.width_granularity, 1U);
            }
        }
}

TEST_F(VulkanPartiesTest, OddSizesOfSharedChromaAreTakenInPartsOnly) {
    auto& modifiers = driver_.devices[0].modifiers;
    modifiers[0].drmFormatModifierPlaneCount = 2;
    driver_.further_planes = {{.offset = 64, .rowPitch = 64}};
    const VulkanDevice device = wrap(true);
    const auto takes = device.importer_caps();
    const auto makes = device.exporter_caps();
    ASSERT_TRUE(takes && makes);
    ExporterCaps plain{
        .name = "plain", .granularity = 1, .formats = {{DRM_FORMAT_NV12, DRM_FORMAT_MOD_LINEAR}}};
    const std::array exporters{&*makes, static_cast<const ExporterCaps*>(&plain)};
    const std::array importers{ImporterUse{&*takes, Uses::sample}};
    const auto makers = [&](std::uint32_t width, std::uint32_t height) {
        std::set<std::size_t> who;
        const auto choices = negotiate(
            exporters, importers, {.width = width, .height = height, .formats = {DRM_FORMAT_NV12}});
        EXPECT_TRUE(choices) << choices.error().error.message();
        for (const FrameChoice& each : *choices)
            who.insert(each.exporter);
        return who;
    };
    EXPECT_EQ(makers(64, 16), (std::set<std::size_t>{0, 1}));
    EXPECT_EQ(makers(63, 17), std::set<std::size_t>{1});
    const std::array alone{&*makes};
    const auto refused =
        negotiate(alone, importers, {.width = 63, .height = 17, .formats = {DRM_FORMAT_NV12}});
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().error.message().find("only sizes in multiples of 2x2 pixels"),
              std::string::npos)
        << refused.error().error.message();
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
