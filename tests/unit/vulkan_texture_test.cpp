// SPDX-License-Identifier: MIT
#include <sluice/vulkan_texture.hpp>

#include <array>
#include <set>
#include <string>

#include <drm_fourcc.h>

#include <sluice/vulkan_format.hpp>

#include "support/allocations.hpp"
#include "support/fake_vulkan.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using test::FakeVulkan;
using Kinds = std::multiset<std::string>;

class VulkanTextureTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
        driver_.memory_size = 4096;
    }

    VulkanDevice wrap(bool converts) {
        VulkanDeviceInfo info = driver_.application();
        info.sampler_ycbcr_conversion = converts;
        auto device = VulkanDevice::wrap(info);
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }
    /// As real drivers have it: LINEAR of a format has as many planes as the format.
    void has_planes(std::uint32_t count) {
        driver_.devices[0].modifiers[0].drmFormatModifierPlaneCount = count;
    }
    static Frame frame(std::uint32_t format, std::uint32_t width = 64) {
        auto made = Frame::create(
            {.width = width,
             .height = 16,
             .format = format,
             .planes = {FramePlane{.stride = 256}, format == DRM_FORMAT_NV12
                                                       ? FramePlane{.offset = 4096, .stride = 256}
                                                       : FramePlane{}}},
            std::move(*DmaBuf::from_fd(test::memfd(8192))));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }
    static VulkanTexture texture(const VulkanDevice& device, const Frame& of,
                                 const VulkanTextureInfo& info = {}) {
        auto made = device.texture(of, info);
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }

    test::ScriptedLibc libc_;
    FakeVulkan driver_;
};

TEST_F(VulkanTextureTest, ColoursAreOneImage) {
    const VulkanDevice device = wrap(true);
    const VulkanTexture colours = texture(device, frame(DRM_FORMAT_XRGB8888));
    EXPECT_EQ(colours.parts(), 1U);
    EXPECT_EQ(colours.conversion(), VkSamplerYcbcrConversion(VK_NULL_HANDLE));
    ASSERT_EQ(colours.views().size(), 1U);
    EXPECT_EQ(colours.views()[0], *colours.image().view());
    EXPECT_EQ(driver_.views[0].info.components.a, VK_COMPONENT_SWIZZLE_ONE);
}

TEST_F(VulkanTextureTest, YcbcrIsConvertedWhereTheDriverDoes) {
    has_planes(2);
    const VulkanDevice device = wrap(true);
    const VulkanTextureInfo info{.model = VK_SAMPLER_YCBCR_MODEL_CONVERSION_YCBCR_2020,
                                 .range = VK_SAMPLER_YCBCR_RANGE_ITU_FULL,
                                 .x_chroma = VK_CHROMA_LOCATION_MIDPOINT,
                                 .y_chroma = VK_CHROMA_LOCATION_COSITED_EVEN};
    const VulkanTexture video = texture(device, frame(DRM_FORMAT_NV12), info);
    EXPECT_EQ(video.parts(), 1U);
    EXPECT_EQ(video.image().format(), VK_FORMAT_G8_B8R8_2PLANE_420_UNORM);
    ASSERT_NE(video.conversion(), VkSamplerYcbcrConversion(VK_NULL_HANDLE));
    ASSERT_EQ(driver_.conversions.size(), 1U);
    const auto& made = driver_.conversions[0];
    EXPECT_EQ(made.format, VK_FORMAT_G8_B8R8_2PLANE_420_UNORM);
    EXPECT_EQ(made.ycbcrModel, info.model);
    EXPECT_EQ(made.ycbcrRange, info.range);
    EXPECT_EQ(made.xChromaOffset, info.x_chroma);
    EXPECT_EQ(made.yChromaOffset, info.y_chroma);
    EXPECT_EQ(made.chromaFilter, VK_FILTER_LINEAR);
    ASSERT_EQ(driver_.views.size(), 1U);
    EXPECT_EQ(driver_.views[0].conversion, video.conversion());
    EXPECT_EQ(driver_.views[0].info.components.r, VK_COMPONENT_SWIZZLE_IDENTITY);

    // Another frame asked for in the same way shares it; another way has its own.
    EXPECT_EQ(texture(device, frame(DRM_FORMAT_NV12), info).conversion(), video.conversion());
    EXPECT_NE(texture(device, video.image().frame()).conversion(), video.conversion());
    EXPECT_EQ(driver_.conversions.size(), 2U);
}

TEST_F(VulkanTextureTest, AConversionAsksForNoMoreThanTheDriverHas) {
    has_planes(2);
    auto& features = driver_.devices[0].modifiers[0].drmFormatModifierTilingFeatures;
    features &=
        ~VkFormatFeatureFlags{VK_FORMAT_FEATURE_COSITED_CHROMA_SAMPLES_BIT |
                              VK_FORMAT_FEATURE_SAMPLED_IMAGE_YCBCR_CONVERSION_LINEAR_FILTER_BIT};
    (void)texture(wrap(true), frame(DRM_FORMAT_NV12));
    EXPECT_EQ(driver_.conversions[0].xChromaOffset, VK_CHROMA_LOCATION_MIDPOINT);
    EXPECT_EQ(driver_.conversions[0].yChromaOffset, VK_CHROMA_LOCATION_MIDPOINT);
    EXPECT_EQ(driver_.conversions[0].chromaFilter, VK_FILTER_NEAREST);

    features |= VK_FORMAT_FEATURE_COSITED_CHROMA_SAMPLES_BIT;
    features &= ~VkFormatFeatureFlags{VK_FORMAT_FEATURE_MIDPOINT_CHROMA_SAMPLES_BIT};
    (void)texture(wrap(true), frame(DRM_FORMAT_NV12));
    EXPECT_EQ(driver_.conversions[1].xChromaOffset, VK_CHROMA_LOCATION_COSITED_EVEN);
    EXPECT_EQ(driver_.conversions[1].yChromaOffset, VK_CHROMA_LOCATION_COSITED_EVEN);
}

TEST_F(VulkanTextureTest, YcbcrComesInPartsWhereNothingConvertsIt) {
    const struct {
        const char* why;
        bool converts;
        std::uint32_t planes, width;
    } cases[] = {
        {"the feature is not enabled", false, 2, 64},
        {"the driver lists no modifier with the format's planes", true, 1, 64},
        {"the width is odd, which Vulkan does not have", true, 2, 63},
    };
    for (const auto& [why, converts, planes, width] : cases) {
        SCOPED_TRACE(why);
        has_planes(planes);
        const VulkanDevice device = wrap(converts);
        if (planes != 1)
            has_planes(1); // of R8 and RG8; the device asks when it needs to know
        const VulkanTexture video = texture(device, frame(DRM_FORMAT_NV12, width));
        EXPECT_EQ(video.parts(), 2U);
        EXPECT_EQ(video.conversion(), VkSamplerYcbcrConversion(VK_NULL_HANDLE));
        EXPECT_EQ(video.image(0).format(), VK_FORMAT_R8_UNORM);
        EXPECT_EQ(video.image(1).format(), VK_FORMAT_R8G8_UNORM);
        const VulkanFormatInfo& format = *find_vulkan_format(DRM_FORMAT_NV12);
        const auto made = std::span(driver_.views).last(2);
        for (std::size_t part = 0; part < 2; ++part) {
            EXPECT_EQ(made[part].info.components.r, format.views[part].components.r);
            EXPECT_EQ(made[part].info.components.g, format.views[part].components.g);
            EXPECT_EQ(made[part].info.components.b, format.views[part].components.b);
            EXPECT_EQ(made[part].conversion, VkSamplerYcbcrConversion(VK_NULL_HANDLE));
        }
    }
    EXPECT_TRUE(driver_.conversions.empty());
}

TEST_F(VulkanTextureTest, AskingAgainCreatesAndAllocatesNothing) {
    for (const bool converts : {false, true}) {
        has_planes(converts ? 2 : 1);
        const VulkanDevice device = wrap(converts);
        const Frame of = frame(DRM_FORMAT_NV12);
        const VulkanTexture first = texture(device, of);
        const Kinds living = driver_.living();
        const std::size_t allocated = test::allocations();
        for (int each = 0; each < 5; ++each) {
            const auto again = device.texture(of, {});
            EXPECT_TRUE(again && again->views()[0] == first.views()[0] &&
                        again->conversion() == first.conversion());
        }
        EXPECT_EQ(test::allocations(), allocated);
        EXPECT_EQ(driver_.living(), living);
    }
}

TEST_F(VulkanTextureTest, LeavesNothingWhereACallFails) {
    has_planes(2);
    for (const char* function :
         {"vkCreateSamplerYcbcrConversion", "vkCreateImageView", "vkCreateImage"}) {
        SCOPED_TRACE(function);
        const VulkanDevice device = wrap(true);
        const Frame of = frame(DRM_FORMAT_NV12);
        driver_.fail(function, VK_ERROR_OUT_OF_DEVICE_MEMORY);
        const auto refused = device.texture(of, {});
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::no_resources) << refused.error().message();
        EXPECT_EQ(texture(device, of).parts(), 1U);
    }
}

TEST_F(VulkanTextureTest, ConversionsGoWithTheLastOfTheDevice) {
    has_planes(2);
    std::optional<VulkanTexture> kept = texture(wrap(true), frame(DRM_FORMAT_NV12));
    EXPECT_EQ(driver_.living(), (Kinds{"conversion", "image", "memory", "view"}));
    kept.reset();
    EXPECT_EQ(driver_.living(), Kinds{});
}

} // namespace
} // namespace sluice
