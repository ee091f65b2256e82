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
    /// And those of other formats one.
    void nv12_has_planes(std::uint32_t count) {
        auto& gpu = driver_.devices[0];
        gpu.modifiers_of[VK_FORMAT_G8_B8R8_2PLANE_420_UNORM] = gpu.modifiers;
        gpu.modifiers_of[VK_FORMAT_G8_B8R8_2PLANE_420_UNORM][0].drmFormatModifierPlaneCount = count;
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

TEST_F(VulkanTextureTest, ComesInPartsWhereTheDriverPutsChromaNowhere) {
    // As lavapipe has it: the format is one of red, green and blue, which nothing converts.
    auto& features = driver_.devices[0].modifiers[0].drmFormatModifierTilingFeatures;
    features &= ~VkFormatFeatureFlags{VK_FORMAT_FEATURE_MIDPOINT_CHROMA_SAMPLES_BIT |
                                      VK_FORMAT_FEATURE_COSITED_CHROMA_SAMPLES_BIT};
    const VulkanDevice device = wrap(true);
    const VulkanTexture raw = texture(device, frame(DRM_FORMAT_AYUV));
    EXPECT_EQ(raw.parts(), 1U);
    EXPECT_EQ(raw.conversion(), VkSamplerYcbcrConversion(VK_NULL_HANDLE));
    EXPECT_EQ(raw.image().format(), VK_FORMAT_R8G8B8A8_UNORM);
    EXPECT_EQ(driver_.views.back().info.components.g, VK_COMPONENT_SWIZZLE_B)
        << "Cr, Y and Cb are in their places";
    EXPECT_TRUE(driver_.conversions.empty());

    features |= VK_FORMAT_FEATURE_MIDPOINT_CHROMA_SAMPLES_BIT;
    const VulkanTexture colours = texture(wrap(true), frame(DRM_FORMAT_AYUV));
    EXPECT_NE(colours.conversion(), VkSamplerYcbcrConversion(VK_NULL_HANDLE));
    EXPECT_EQ(driver_.conversions.back().components.g, VK_COMPONENT_SWIZZLE_B);
}

TEST_F(VulkanTextureTest, IsTheSameWhateverWasAttachedBefore) {
    nv12_has_planes(2);
    const VulkanDevice device = wrap(true);
    const Frame of = frame(DRM_FORMAT_NV12);
    const auto luma = device.attach(of, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .view = 0});
    ASSERT_TRUE(luma) << luma.error().message();
    EXPECT_EQ(texture(device, of).parts(), 1U);
    EXPECT_NE(texture(device, of).conversion(), VkSamplerYcbcrConversion(VK_NULL_HANDLE));

    const Frame odd = frame(DRM_FORMAT_NV12, 63); // which nothing converts
    EXPECT_EQ(texture(device, odd).parts(), 2U);
    EXPECT_EQ(texture(device, odd).parts(), 2U);
}

TEST_F(VulkanTextureTest, TellsWhatASamplerMustKeepTo) {
    has_planes(2);
    auto& features = driver_.devices[0].modifiers[0].drmFormatModifierTilingFeatures;
    const VkFormatFeatureFlags everything = features;
    constexpr VkFormatFeatureFlags separate =
        VK_FORMAT_FEATURE_SAMPLED_IMAGE_YCBCR_CONVERSION_SEPARATE_RECONSTRUCTION_FILTER_BIT;
    constexpr VkFormatFeatureFlags chroma =
        VK_FORMAT_FEATURE_SAMPLED_IMAGE_YCBCR_CONVERSION_LINEAR_FILTER_BIT;
    constexpr VkFormatFeatureFlags image = VK_FORMAT_FEATURE_SAMPLED_IMAGE_FILTER_LINEAR_BIT;
    constexpr auto nearest = VK_FILTER_NEAREST;
    constexpr auto linear = VK_FILTER_LINEAR;
    const struct {
        VkFormatFeatureFlags lacks;
        VkFilter chroma_filter;
        VkFilter for_nearest, for_linear; // what magFilter and minFilter are then
    } cases[] = {
        {0, linear, nearest, linear},
        {separate, linear, linear, linear},
        {chroma, nearest, nearest, linear},
        {separate | chroma, nearest, nearest, nearest},
        {image, linear, nearest, nearest},
        // A linear chroma filter would ask for a linear filter that the image does not have.
        {separate | image, nearest, nearest, nearest},
    };
    for (const auto& [lacks, chroma_filter, for_nearest, for_linear] : cases) {
        SCOPED_TRACE(lacks);
        features = everything & ~lacks;
        const VulkanDevice device = wrap(true);
        const VulkanSampling sampling = texture(device, frame(DRM_FORMAT_NV12)).sampling();
        EXPECT_EQ(sampling.x_chroma, VK_CHROMA_LOCATION_COSITED_EVEN);
        EXPECT_EQ(sampling.y_chroma, VK_CHROMA_LOCATION_MIDPOINT);
        EXPECT_EQ(sampling.chroma_filter, chroma_filter);
        EXPECT_EQ(driver_.conversions.back().chromaFilter, chroma_filter);
        EXPECT_EQ(sampling.filter(nearest), for_nearest);
        EXPECT_EQ(sampling.filter(linear), for_linear);
    }
    features = everything & ~VkFormatFeatureFlags{VK_FORMAT_FEATURE_COSITED_CHROMA_SAMPLES_BIT};
    EXPECT_EQ(texture(wrap(true), frame(DRM_FORMAT_NV12)).sampling().x_chroma,
              VK_CHROMA_LOCATION_MIDPOINT);
}

TEST_F(VulkanTextureTest, WithoutAConversionTheImagesAloneLimitTheSampler) {
    auto& of_rg8 = driver_.devices[0].modifiers_of[VK_FORMAT_R8G8_UNORM];
    of_rg8 = driver_.devices[0].modifiers;
    const VulkanDevice device = wrap(false);
    EXPECT_EQ(texture(device, frame(DRM_FORMAT_NV12)).sampling().filter(VK_FILTER_LINEAR),
              VK_FILTER_LINEAR);
    of_rg8[0].drmFormatModifierTilingFeatures &=
        ~VkFormatFeatureFlags{VK_FORMAT_FEATURE_SAMPLED_IMAGE_FILTER_LINEAR_BIT};
    const VulkanDevice other = wrap(false);
    EXPECT_EQ(texture(other, frame(DRM_FORMAT_NV12)).sampling().filter(VK_FILTER_LINEAR),
              VK_FILTER_NEAREST)
        << "one of the parts has no linear filter";
    EXPECT_EQ(texture(other, frame(DRM_FORMAT_XRGB8888)).sampling().filter(VK_FILTER_LINEAR),
              VK_FILTER_LINEAR);
}

TEST_F(VulkanTextureTest, SaysWhyNeitherTheWholeNorThePartsWillDo) {
    const auto tiled = [] {
        auto made = Frame::create(
            {.width = 64,
             .height = 16,
             .format = DRM_FORMAT_NV12,
             .modifier = I915_FORMAT_MOD_Y_TILED,
             .planes = {FramePlane{.stride = 256}, FramePlane{.offset = 4096, .stride = 256}}},
            std::move(*DmaBuf::from_fd(test::memfd(8192))));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    };
    const auto message = [&](bool converts, const Frame& of) {
        const auto refused = wrap(converts).texture(of, {});
        EXPECT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::unsupported);
        EXPECT_EQ(refused.error().operation, "VulkanDevice::texture");
        EXPECT_EQ(refused.error().message().find("Attach the frame"), std::string::npos)
            << refused.error().message();
        return refused.error().message();
    };
    const auto has = [](const std::string& text, const std::string& words) {
        EXPECT_NE(text.find(words), std::string::npos) << words << " in " << text;
    };
    const std::string unknown = message(true, tiled());
    has(unknown, "which a view changes; as a whole: the driver does not take modifier INTEL");
    has(unknown, "LINEAR");
    has(message(false, tiled()), "as a whole: the feature samplerYcbcrConversion is not enabled");
    has(message(false, tiled()), "Enable the feature");

    driver_.devices[0].modifiers.push_back(
        {.drmFormatModifier = I915_FORMAT_MOD_Y_TILED,
         .drmFormatModifierPlaneCount = 2,
         .drmFormatModifierTilingFeatures = VK_FORMAT_FEATURE_SAMPLED_IMAGE_BIT});
    has(message(true, tiled()), "as a whole: the driver converts none of this format");

    // Colours have no parts: the reason is the driver's alone.
    driver_.devices[0].formats.clear();
    const std::string colours = message(true, frame(DRM_FORMAT_XRGB8888));
    has(colours, "no such image");
    EXPECT_EQ(colours.find("as a whole"), std::string::npos) << colours;
}

TEST_F(VulkanTextureTest, EachCallCountsOnceForWhatIsIdle) {
    nv12_has_planes(2);
    for (const bool converts : {false, true}) { // both look several attachments up
        SCOPED_TRACE(converts);
        VulkanDeviceInfo info = driver_.application();
        info.sampler_ycbcr_conversion = converts;
        info.idle_attachments = 40;
        const VulkanDevice device = std::move(*VulkanDevice::wrap(info));
        const Frame held = frame(DRM_FORMAT_NV12);
        (void)texture(device, held);
        const std::size_t images = driver_.living().count("image");
        (void)texture(device, frame(DRM_FORMAT_XRGB8888)); // never to be seen again
        for (int each = 0; each < 40; ++each)
            (void)texture(device, held);
        EXPECT_EQ(driver_.living().count("image"), images + 1);
        for (int each = 0; each < 40; ++each)
            (void)texture(device, held);
        EXPECT_EQ(driver_.living().count("image"), images);
    }
}

TEST_F(VulkanTextureTest, AskingAgainCreatesAndAllocatesNothing) {
    struct Case {
        bool converts;
        std::uint32_t width;
    };
    for (const auto& [converts, width] : {Case{false, 64}, Case{true, 64}, Case{true, 63}}) {
        SCOPED_TRACE(width);
        has_planes(converts && width == 64 ? 2 : 1);
        const VulkanDevice device = wrap(converts);
        const Frame of = frame(DRM_FORMAT_NV12, width);
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
