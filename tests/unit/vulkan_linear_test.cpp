// SPDX-License-Identifier: MIT
// Devices without VK_EXT_image_drm_format_modifier.
#include <sluice/vulkan_image.hpp>

#include <array>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include "support/fake_vulkan.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using test::FakeVulkan;
using Kinds = std::multiset<std::string>;

class VulkanLinearTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
        driver_.lacks = {"vkGetImageDrmFormatModifierPropertiesEXT"};
    }

    VulkanDevice wrap() {
        constexpr std::array extensions{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                        VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                        VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME};
        VulkanDeviceInfo info = driver_.application();
        info.extensions = extensions;
        auto device = VulkanDevice::wrap(info);
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }
    static Frame xr24(std::uint32_t offset, std::uint32_t stride,
                      std::uint64_t modifier = DRM_FORMAT_MOD_LINEAR) {
        auto made = Frame::create({.width = 64,
                                   .height = 16,
                                   .format = DRM_FORMAT_XRGB8888,
                                   .modifier = modifier,
                                   .planes = {FramePlane{.offset = offset, .stride = stride}}},
                                  std::move(*DmaBuf::from_fd(test::memfd(16384))));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }
    static Frame nv12(std::uint32_t chroma, bool disjoint = false) {
        std::array buffers{std::move(*DmaBuf::from_fd(test::memfd(16384))),
                           std::move(*DmaBuf::from_fd(test::memfd(16384)))};
        auto made = Frame::create(
            {.width = 64,
             .height = 16,
             .format = DRM_FORMAT_NV12,
             .planes = {FramePlane{.stride = 256},
                        FramePlane{.offset = chroma, .stride = 64, .buffer = disjoint ? 1U : 0U}}},
            std::span(buffers).first(disjoint ? 2 : 1));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }
    static void expect_refused(const Result<VulkanImage>& result,
                               const std::vector<std::string>& words) {
        ASSERT_FALSE(result);
        EXPECT_EQ(to_string(result.error().code), to_string(Errc::unsupported))
            << result.error().message();
        for (const std::string& word : words)
            EXPECT_NE(result.error().message().find(word), std::string::npos)
                << word << " in " << result.error().message();
    }

    static constexpr VulkanAttachInfo sampled{.usage = VK_IMAGE_USAGE_SAMPLED_BIT};
    test::ScriptedLibc libc_;
    FakeVulkan driver_; // its rows are multiples of 64 bytes
};

TEST_F(VulkanLinearTest, AttachesAFrameThatLiesAsTheDriverWouldLayIt) {
    const VulkanDevice device = wrap();
    for (const std::uint32_t offset : {0U, 4096U}) {
        const Frame frame = xr24(offset, 256);
        auto image = device.attach(frame, sampled);
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(driver_.images.back().info.tiling, VK_IMAGE_TILING_LINEAR);
        EXPECT_TRUE(driver_.images.back().modifiers.empty());
        EXPECT_EQ(driver_.allocations.back().size, offset + 4096U);
    }
}

TEST_F(VulkanLinearTest, SaysInNumbersWhatTheDriverWants) {
    const VulkanDevice device = wrap();
    expect_refused(device.attach(xr24(0, 320), sampled),
                   {"one LINEAR layout", "stride 256 and offset 0", "Enable the extension"});
    expect_refused(device.attach(xr24(0, 256, DRM_FORMAT_MOD_VENDOR_INTEL), sampled),
                   {"it takes LINEAR"});
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanLinearTest, PlanesOfOneBufferMustLieAsTheDriverWouldLayThem) {
    const VulkanDevice device = wrap();
    driver_.further_planes = {{.offset = 4096, .rowPitch = 64}};
    auto image = device.attach(nv12(4096), sampled);
    ASSERT_TRUE(image) << image.error().message();
    expect_refused(device.attach(nv12(8192), sampled), {"offset 4096 for plane 1"});
    expect_refused(device.attach(nv12(4096, true), sampled), {"several buffers"});
}

TEST_F(VulkanLinearTest, NamesNoFormatsOfViews) {
    const auto image =
        wrap().attach(xr24(0, 256), {.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .srgb_views = true});
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(driver_.images.back().info.flags,
              VkImageCreateFlags{VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT});
    EXPECT_TRUE(driver_.images.back().view_formats.empty())
        << "VK_KHR_image_format_list is not enabled";
    EXPECT_TRUE(image->view(VulkanCurve::srgb));
}

TEST_F(VulkanLinearTest, WhatLiesFurtherInItsBufferHasNoMemoryForItselfAlone) {
    driver_.memory_size = 1024;
    const Frame frame = nv12(4096);
    const VulkanAttachInfo chroma{.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .view = 1};
    driver_.row_pitch = 64;
    driver_.prefers_dedicated = true;
    auto preferred = wrap().attach(frame, chroma);
    ASSERT_TRUE(preferred) << preferred.error().message();
    EXPECT_FALSE(driver_.allocations.back().dedicated);
    EXPECT_EQ(driver_.allocations.back().size, 4096U + 1024U);
    ASSERT_TRUE(wrap().attach(nv12(0), chroma));
    EXPECT_TRUE(driver_.allocations.back().dedicated) << "this one is at its beginning";

    driver_.requires_dedicated = true;
    expect_refused(wrap().attach(frame, chroma),
                   {"begins at byte 4096", "for it alone", "beginning of a buffer of its own"});
    driver_.requires_dedicated = false;
    driver_.devices[0].memory_features |= VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
    expect_refused(wrap().attach(frame, chroma), {"begins at byte 4096", "for it alone"});
    EXPECT_TRUE(wrap().attach(nv12(0), chroma));
}

TEST_F(VulkanLinearTest, ExportsLinearAlone) {
    const VulkanDevice device = wrap();
    const VulkanImageInfo info{.width = 64,
                               .height = 16,
                               .format = DRM_FORMAT_XRGB8888,
                               .usage = VK_IMAGE_USAGE_SAMPLED_BIT};
    auto image = device.export_image(info);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(driver_.images.back().info.tiling, VK_IMAGE_TILING_LINEAR);
    EXPECT_EQ(image->frame().layout().modifier, DRM_FORMAT_MOD_LINEAR);
    EXPECT_EQ(image->frame().layout().planes[0].stride, 256U);
    constexpr std::array<std::uint64_t, 1> tiled{DRM_FORMAT_MOD_VENDOR_INTEL};
    VulkanImageInfo other = info;
    other.modifiers = tiled;
    expect_refused(device.export_image(other), {"it has LINEAR"});
}

} // namespace
} // namespace sluice
