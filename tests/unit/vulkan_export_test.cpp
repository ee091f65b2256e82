// SPDX-License-Identifier: MIT
// Exported images with a modifier to choose, and of several planes; vulkan_test.cpp has the rest.
#include <sluice/vulkan_image.hpp>

#include <array>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <fcntl.h>

#include <sluice/vulkan_format.hpp>

#include "support/fake_vulkan.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using test::FakeVulkan;
using Kinds = std::multiset<std::string>;
using Modifiers = std::vector<std::uint64_t>;

constexpr VkFormatFeatureFlags everything = ~VkFormatFeatureFlags{0};
constexpr std::uint64_t linear = DRM_FORMAT_MOD_LINEAR;
constexpr std::uint64_t tiled = I915_FORMAT_MOD_X_TILED;
constexpr std::uint64_t compressed = I915_FORMAT_MOD_Y_TILED_CCS;

class VulkanExportTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
        driver_.devices[0].modifiers = {
            {linear, 1, everything},
            {tiled, 1, everything},
            {compressed, 2, VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT | VK_FORMAT_FEATURE_BLIT_DST_BIT}};
        driver_.further_planes = {{.offset = 4096, .rowPitch = 64}};
        driver_.memory_size = 16384;
    }

    VulkanDevice wrap() {
        auto device = VulkanDevice::wrap(driver_.application());
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }

    static Result<VulkanImage> make(const VulkanDevice& device, const Modifiers& modifiers,
                                    VkImageUsageFlags usage = VK_IMAGE_USAGE_SAMPLED_BIT,
                                    std::uint32_t format = DRM_FORMAT_XRGB8888) {
        return device.export_image(
            {.width = 16, .height = 16, .format = format, .usage = usage, .modifiers = modifiers});
    }

    static void expect_refused(const Result<VulkanImage>& result, Errc code,
                               const std::vector<std::string>& words) {
        ASSERT_FALSE(result);
        EXPECT_EQ(to_string(result.error().code), to_string(code)) << result.error().message();
        for (const std::string& word : words)
            EXPECT_NE(result.error().message().find(word), std::string::npos)
                << word << " in " << result.error().message();
        EXPECT_FALSE(result.error().remedy.empty());
    }

    test::ScriptedLibc libc_;
    FakeVulkan driver_;
};

TEST_F(VulkanExportTest, TheFrameSaysWhatTheDriverChose) {
    const VulkanDevice device = wrap();
    for (const std::uint64_t taken : {linear, tiled, compressed}) {
        driver_.takes_modifier = taken;
        auto image = make(device, {tiled, compressed, linear});
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(driver_.images.back().modifiers, (Modifiers{tiled, compressed, linear}));
        const FrameLayout& layout = image->frame().layout();
        EXPECT_EQ(layout.modifier, taken);
        EXPECT_EQ(layout.plane_count, taken == compressed ? 2U : 1U);
        EXPECT_EQ(layout.planes[0].stride, 64U);
        EXPECT_EQ(layout.planes[1].offset, taken == compressed ? 4096U : 0U);
        EXPECT_EQ(layout.planes[1].stride, taken == compressed ? 64U : 0U);
        EXPECT_EQ(fcntl(image->frame().buffer().fd(), F_GETFD), FD_CLOEXEC);
    }
}

TEST_F(VulkanExportTest, OffersTheDriverOnlyWhatItHas) {
    const VulkanDevice device = wrap();
    constexpr VkImageUsageFlags usage = VK_IMAGE_USAGE_SAMPLED_BIT | VK_IMAGE_USAGE_STORAGE_BIT;
    auto image = make(device, {I915_FORMAT_MOD_Yf_TILED, compressed, tiled}, usage);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(driver_.images.back().modifiers, Modifiers{tiled});
    EXPECT_EQ(image->frame().layout().modifier, tiled);
    expect_refused(make(device, {I915_FORMAT_MOD_Yf_TILED, compressed}, usage), Errc::unsupported,
                   {"16x16 XR24", "INTEL 0x100000000000003: the driver does not have it",
                    "it has LINEAR, INTEL 0x100000000000001",
                    "INTEL 0x100000000000004: it lacks STORAGE"});
    expect_refused(make(device, {linear, DRM_FORMAT_MOD_INVALID}), Errc::invalid_argument,
                   {"INVALID names no layout"});
    EXPECT_EQ(driver_.images.size(), 1U);
}

TEST_F(VulkanExportTest, RefusesAModifierOfMorePlanesThanAFrameHas) {
    driver_.devices[0].modifiers.push_back({I915_FORMAT_MOD_4_TILED, 5, everything});
    expect_refused(make(wrap(), {I915_FORMAT_MOD_4_TILED}), Errc::unsupported,
                   {"it has 5 memory planes, and a frame has 4"});
    EXPECT_TRUE(driver_.images.empty());
}

TEST_F(VulkanExportTest, RefusesAModifierThatNobodyAskedFor) {
    const VulkanDevice device = wrap();
    driver_.takes_modifier = compressed;
    expect_refused(make(device, {linear, tiled}), Errc::failed,
                   {"took modifier INTEL 0x100000000000004"});
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanExportTest, APlanesNumbersMustFit32BitsAndTheBuffer) {
    const VulkanDevice device = wrap();
    const struct {
        VkSubresourceLayout plane;
        Errc code;
        const char* words;
    } cases[] = {
        {{.offset = VkDeviceSize{1} << 32, .rowPitch = 64}, Errc::unsupported, "plane 1 out at"},
        {{.offset = 0, .rowPitch = VkDeviceSize{1} << 32}, Errc::unsupported, "4294967296 bytes"},
        {{.offset = 16384, .rowPitch = 64}, Errc::out_of_bounds, "the buffer holds 16384"},
    };
    for (const auto& each : cases) {
        driver_.further_planes = {each.plane};
        expect_refused(make(device, {compressed}), each.code, {each.words});
        EXPECT_EQ(driver_.living(), Kinds{});
    }
}

TEST_F(VulkanExportTest, PlanesThatTheDriverPutsOnEachOtherAreNoFrame) {
    driver_.devices[0].modifiers = {{linear, 2, everything}};
    const VulkanDevice device = wrap();
    // lavapipe does so where it has no modifiers.
    driver_.further_planes = {{.offset = 0, .rowPitch = 64}};
    expect_refused(make(device, {}, VK_IMAGE_USAGE_SAMPLED_BIT, DRM_FORMAT_NV12), Errc::unsupported,
                   {"planes 0 and 1", "overlap"});
    EXPECT_EQ(driver_.living(), Kinds{});
    driver_.further_planes = {{.offset = 4096, .rowPitch = 0}};
    expect_refused(make(device, {}, VK_IMAGE_USAGE_SAMPLED_BIT, DRM_FORMAT_NV12),
                   Errc::invalid_argument, {"stride of 0"});
}

TEST_F(VulkanExportTest, ExportsFormatsOfSeveralPlanesWhereTheDriverHasThem) {
    driver_.devices[0].modifiers = {{linear, 2, everything}};
    const VulkanDevice device = wrap();
    auto image = make(device, {}, VK_IMAGE_USAGE_SAMPLED_BIT, DRM_FORMAT_NV12);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(image->format(), VK_FORMAT_G8_B8R8_2PLANE_420_UNORM);
    EXPECT_EQ(image->frame().layout().plane_count, 2U);
    EXPECT_EQ(image->frame().layout().planes[1].offset, 4096U);
    EXPECT_EQ(driver_.images[0].info.flags, 0U) << "not disjoint: one buffer holds both";
    EXPECT_EQ(driver_.allocations.size(), 1U);
    EXPECT_EQ(image->frame().buffers().size(), 1U);
}

TEST_F(VulkanExportTest, SwizzledFormatsAreExportedForWhatSwizzles) {
    const VulkanDevice device = wrap();
    constexpr VkImageUsageFlags copied =
        VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT;
    for (const VkImageUsageFlags usage : {copied, copied | VK_IMAGE_USAGE_SAMPLED_BIT}) {
        auto image = make(device, {}, usage, DRM_FORMAT_BGRA8888);
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(image->format(), VK_FORMAT_R8G8B8A8_UNORM);
    }
    for (const VkImageUsageFlags usage :
         {VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT, VK_IMAGE_USAGE_STORAGE_BIT,
          VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT})
        expect_refused(make(device, {}, VK_IMAGE_USAGE_SAMPLED_BIT | usage, DRM_FORMAT_BGRA8888),
                       Errc::unsupported, {"BA24", "only sampling moves them"});
}

TEST_F(VulkanExportTest, EveryFormatOfTheTableCanBeExportedFromADriverThatHasIt) {
    for (const VulkanFormatInfo& each : vulkan_formats())
        driver_.devices[0].formats.insert(each.format);
    for (const VulkanFormatInfo& each : vulkan_formats()) {
        if (each.format == VK_FORMAT_UNDEFINED)
            continue;
        const FormatInfo& format = *find_format(each.fourcc);
        SCOPED_TRACE(format.name);
        driver_.devices[0].modifiers = {{linear, format.plane_count, everything}};
        driver_.row_pitch = 768; // for 16 pixels of any of them, and a multiple of 3 bytes
        driver_.memory_size = 768 * 16 * 4;
        driver_.further_planes = {{.offset = 12288, .rowPitch = 768},
                                  {.offset = 24576, .rowPitch = 768}};
        auto image = make(wrap(), {}, VK_IMAGE_USAGE_SAMPLED_BIT, each.fourcc);
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(image->frame().layout().format, each.fourcc);
        EXPECT_EQ(image->frame().layout().plane_count, format.plane_count);
    }
}

// -- as it was negotiated -------------------------------------------------------------------------

/// A driver that lays its planes out in rows of 64 bytes by itself, each pixel 4 bytes.
class VulkanExportSpecTest : public VulkanExportTest {
protected:
    void SetUp() override {
        VulkanExportTest::SetUp();
        driver_.memory_size.reset();
    }
    static Result<VulkanImage> make(const VulkanDevice& device, FrameSpec spec) {
        spec.width = spec.height = 16;
        if (spec.format == 0)
            spec.format = DRM_FORMAT_XRGB8888;
        return device.export_image(spec, VK_IMAGE_USAGE_SAMPLED_BIT);
    }
};

TEST_F(VulkanExportSpecTest, WhatTheDriverDoesByItselfIsLeftToIt) {
    auto image = make(wrap(), {.stride_alignment = 32,
                               .offset_alignment = 4096,
                               .height_alignment = 4,
                               .min_size = 1000,
                               .name = "a frame"});
    ASSERT_TRUE(image) << image.error().message();
    ASSERT_EQ(driver_.images.size(), 1U);
    EXPECT_TRUE(driver_.images[0].planes.empty()) << "it was told nothing";
    EXPECT_EQ(image->frame().layout().planes[0].stride, 64U);
    EXPECT_EQ(driver_.allocations[0].size, 1024U);
}

TEST_F(VulkanExportSpecTest, ALinearImageIsGivenTheStrideThatIsNeeded) {
    const VulkanDevice device = wrap();
    for (const auto& [alignment, stride] :
         {std::pair(4096U, 4096U), std::pair(48U, 192U), std::pair(100U, 1600U)}) {
        auto image = make(device, {.stride_alignment = alignment});
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(image->frame().layout().modifier, linear);
        EXPECT_EQ(image->frame().layout().planes[0].stride, stride)
            << "of the driver's 64 bytes too";
        EXPECT_EQ(driver_.images.back().planes[0].rowPitch, stride);
        EXPECT_EQ(driver_.allocations.back().size, stride * 16);
        EXPECT_EQ(driver_.living(), (Kinds{"image", "memory"})) << "the first try is gone";
    }
}

TEST_F(VulkanExportSpecTest, PlanesAreMovedToWhereTheyAreNeeded) {
    driver_.devices[0].modifiers = {{linear, 2, everything}};
    driver_.further_planes = {{.offset = 1024 + 64, .rowPitch = 64}};
    driver_.memory_size = 65536;
    auto image = make(wrap(), {.format = DRM_FORMAT_NV12,
                               .stride_alignment = 256,
                               .offset_alignment = 1000,
                               .height_alignment = 32});
    ASSERT_TRUE(image) << image.error().message();
    const auto& planes = image->frame().layout().planes;
    EXPECT_EQ(planes[0], (FramePlane{.offset = 0, .stride = 256}));
    // Behind 32 rows of 256 bytes, a multiple of 1000 and of the driver's 64.
    EXPECT_EQ(planes[1], (FramePlane{.offset = 16000, .stride = 256}));
}

TEST_F(VulkanExportSpecTest, ADriverThatTakesNoOtherStrideIsRefusedInNumbers) {
    const VulkanDevice device = wrap();
    driver_.fail("vkCreateImage", VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT, 2);
    expect_refused(make(device, {.stride_alignment = 4096}), Errc::unsupported,
                   {"LINEAR: the driver's plane 0's stride of 64 bytes is no multiple of 4096",
                    "it takes no stride of 4096"});
    EXPECT_EQ(driver_.living(), Kinds{});
    driver_.fail("vkCreateImage", VK_ERROR_OUT_OF_DEVICE_MEMORY, 2);
    expect_refused(make(device, {.stride_alignment = 4096}), Errc::no_resources, {});
    // Where the stride would leave 32 bits it is not even asked.
    const std::size_t images = driver_.images.size();
    driver_.row_pitch = 0x40000040;
    expect_refused(make(device, {.stride_alignment = 0x40000000}), Errc::unsupported,
                   {"no multiple of 1073741824"});
    EXPECT_EQ(driver_.images.size(), images + 1);
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanExportSpecTest, ModifiersThatDoNotFitArePassedOver) {
    const VulkanDevice device = wrap();
    driver_.takes_modifier = tiled;
    expect_refused(make(device, {.modifiers = {tiled}, .stride_alignment = 4096}),
                   Errc::unsupported,
                   {"INTEL 0x100000000000001: the driver's plane 0's stride of 64 bytes"});
    driver_.takes_modifier.reset(); // the last
    auto image = make(device, {.modifiers = {linear, tiled}, .stride_alignment = 4096});
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(image->frame().layout().modifier, linear);
    EXPECT_EQ(image->frame().layout().planes[0].stride, 4096U);
    EXPECT_EQ(driver_.living(), (Kinds{"image", "memory"}));
}

TEST_F(VulkanExportSpecTest, PaddingIsMoreMemory) {
    const VulkanDevice device = wrap();
    driver_.prefers_dedicated = true;
    const struct {
        FrameSpec spec;
        VkDeviceSize size;
        bool dedicated;
    } cases[] = {
        {{}, 1024, true},
        {{.height_alignment = 10}, 20 * 64, false},
        {{.slack = 64}, 1024 + 64, false},
        {{.slack = 64, .size_alignment = 4096}, 4096, false},
        {{.min_size = 5000}, 5000, false},
        {{.min_size = 1000}, 1024, true},
        // Of a tiled image only its driver knows the rows.
        {{.modifiers = {tiled}, .height_alignment = 10, .slack = 64}, 1024, true},
        {{.modifiers = {tiled}, .min_size = 5000}, 5000, false},
    };
    for (const auto& each : cases) {
        auto image = make(device, each.spec);
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(driver_.allocations.back().size, each.size);
        EXPECT_EQ(driver_.allocations.back().dedicated, each.dedicated);
        EXPECT_EQ(image->frame().buffer().size(), each.size);
    }
}

TEST_F(VulkanExportSpecTest, MemoryOfItsOwnCannotBePadded) {
    const VulkanDevice device = wrap();
    driver_.requires_dedicated = true;
    expect_refused(make(device, {.slack = 64}), Errc::unsupported,
                   {"the driver gives the image 1024 bytes, and 1088 are needed"});
    EXPECT_EQ(driver_.living(), Kinds{});
    driver_.requires_dedicated = false;
    driver_.devices[0].memory_features |= VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
    expect_refused(make(wrap(), {.min_size = 1025}), Errc::unsupported,
                   {"the driver gives the image 1024 bytes, and 1025 are needed"});
    EXPECT_TRUE(make(wrap(), {.min_size = 1024}));
}

TEST_F(VulkanExportSpecTest, NonsenseIsRefusedBeforeTheDriverIsAsked) {
    const VulkanDevice device = wrap();
    expect_refused(make(device, {.stride_alignment = UINT32_MAX}), Errc::invalid_argument,
                   {"VulkanDevice::export_image(16x16 XR24", "4294967295"});
    EXPECT_TRUE(driver_.images.empty());
}

TEST_F(VulkanExportSpecTest, WithoutModifiersTheDriversLayoutIsChecked) {
    driver_.lacks = {"vkGetImageDrmFormatModifierPropertiesEXT"};
    constexpr std::array extensions{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                    VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME};
    VulkanDeviceInfo info = driver_.application();
    info.extensions = extensions;
    const auto device = VulkanDevice::wrap(info);
    ASSERT_TRUE(device) << device.error().message();
    EXPECT_TRUE(make(*device, {.stride_alignment = 64, .slack = 64}));
    expect_refused(make(*device, {.stride_alignment = 128}), Errc::unsupported,
                   {"plane 0's stride of 64 bytes is no multiple of 128"});
    EXPECT_EQ(driver_.images.size(), 2U) << "there is nothing to tell it a stride with";
}

} // namespace
} // namespace sluice
