// SPDX-License-Identifier: MIT
// Every format that a real driver exports: the CPU's bytes through the GPU and back.
#include <sluice/vulkan_image.hpp>

#include <algorithm>
#include <array>
#include <iostream>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>

#include "support/gpu_test.hpp"

namespace sluice {
namespace {

constexpr VkImageUsageFlags usage =
    VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT;
constexpr auto source = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
constexpr auto target = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;

class VulkanExportSystemTest : public test::GpuTest {
protected:
    [[nodiscard]] Result<VulkanImage> make(std::uint32_t format, VkExtent2D size) const {
        return gpu().export_image(
            {.width = size.width, .height = size.height, .format = format, .usage = usage});
    }

    /// Has the GPU copy all planes.
    void copy(const VulkanImage& from, const VulkanImage& to) const {
        const FrameLayout& layout = from.frame().layout();
        const FormatInfo& format = *find_format(layout.format);
        constexpr std::array<VkImageAspectFlags, 3> planes{
            VK_IMAGE_ASPECT_PLANE_0_BIT, VK_IMAGE_ASPECT_PLANE_1_BIT, VK_IMAGE_ASPECT_PLANE_2_BIT};
        std::vector<VkImageCopy> copies;
        for (std::uint32_t i = 0; i < format.plane_count; ++i) {
            const VkImageSubresourceLayers part{
                format.plane_count == 1 ? VkImageAspectFlags{VK_IMAGE_ASPECT_COLOR_BIT} : planes[i],
                0, 0, 1};
            // A plane of several counts its own texels, one alone the image's.
            const bool alone = format.plane_count == 1;
            copies.push_back(
                {.srcSubresource = part,
                 .dstSubresource = part,
                 .extent = {layout.width / (alone ? 1 : format.planes[i].block_width),
                            layout.height / (alone ? 1 : format.planes[i].block_height), 1}});
        }
        run([&](VkCommandBuffer commands) {
            barrier(
                commands, copying, copying,
                {.images = {
                     from.acquire_barrier(Contents::keep, source, VK_ACCESS_TRANSFER_READ_BIT),
                     to.acquire_barrier(Contents::discard, target, VK_ACCESS_TRANSFER_WRITE_BIT)}});
            vkCmdCopyImage(commands, from.image(), source, to.image(), target,
                           static_cast<std::uint32_t>(copies.size()), copies.data());
            barrier(commands, copying, end,
                    {.images = {from.release_barrier(source, VK_ACCESS_TRANSFER_READ_BIT),
                                to.release_barrier(target, VK_ACCESS_TRANSFER_WRITE_BIT)}});
        });
    }
};

TEST_F(VulkanExportSystemTest, EveryFormatTravelsFromTheCpuThroughTheGpuByteForByte) {
    auto formats = gpu().formats(usage);
    ASSERT_TRUE(formats) << formats.error().message();
    std::string copied;
    for (const VulkanFormatCaps& each : *formats) {
        const auto linear =
            std::ranges::find(each.modifiers, DRM_FORMAT_MOD_LINEAR, &VulkanModifierCaps::modifier);
        if (linear == each.modifiers.end() || !linear->exportable)
            continue;
        const VkExtent2D chroma = find_vulkan_format(each.format)->chroma;
        for (const VkExtent2D size : {VkExtent2D{33, 7}, VkExtent2D{1, 1}}) {
            SCOPED_TRACE(format_name(each.format));
            const VkExtent2D rounded{size.width * chroma.width, size.height * chroma.height};
            auto from = make(each.format, rounded);
            auto to = make(each.format, rounded);
            ASSERT_TRUE(from) << from.error().message();
            ASSERT_TRUE(to) << to.error().message();
            test::fill(from->frame());
            EXPECT_GT(test::wrong_bytes(to->frame()), 0U);
            copy(*from, *to);
            EXPECT_EQ(test::wrong_bytes(to->frame()), 0U);
            EXPECT_EQ(test::wrong_bytes(from->frame()), 0U) << "the source is as it was";
        }
        copied += " " + std::string(find_format(each.format)->name);
    }
    std::cout << "copied" << copied << '\n';
    EXPECT_NE(copied.find(" XR24 "), std::string::npos);
    EXPECT_NE(copied.find(" R8 "), std::string::npos);
}

TEST_F(VulkanExportSystemTest, AStrideAndPaddingThatAreAskedForAreTheImages) {
    auto from = gpu().export_image(FrameSpec{.width = 33,
                                             .height = 7,
                                             .format = DRM_FORMAT_XRGB8888,
                                             .stride_alignment = 4096,
                                             .height_alignment = 16,
                                             .slack = 64,
                                             .size_alignment = 65536,
                                             .name = "padded"},
                                   usage);
    ASSERT_TRUE(from) << from.error().message();
    EXPECT_EQ(from->frame().layout().planes[0].stride, 4096U);
    EXPECT_GE(from->frame().buffer().size(), 2U * 65536) << "16 rows, and 64 bytes";
    EXPECT_EQ(from->frame().buffer().info()->name, "padded");
    auto to = make(DRM_FORMAT_XRGB8888, {33, 7});
    ASSERT_TRUE(to) << to.error().message();
    EXPECT_NE(to->frame().layout().planes[0].stride, 4096U);
    test::fill(from->frame());
    EXPECT_GT(test::wrong_bytes(to->frame()), 0U);
    copy(*from, *to);
    EXPECT_EQ(test::wrong_bytes(to->frame()), 0U);
}

TEST_F(VulkanExportSystemTest, WhatIsPublishedIsWhatIsDone) {
    for (const VulkanFormatInfo& each : vulkan_formats()) {
        SCOPED_TRACE(format_name(each.fourcc));
        auto caps = gpu().support(each.fourcc, usage);
        ASSERT_TRUE(caps) << caps.error().message();
        const auto linear = std::ranges::find(caps->modifiers, DRM_FORMAT_MOD_LINEAR,
                                              &VulkanModifierCaps::modifier);
        const bool can = linear != caps->modifiers.end() && linear->exportable;
        auto image = make(each.fourcc, {16, 16});
        EXPECT_EQ(image.has_value(), can) << (image ? "made" : image.error().message());
        if (!image) {
            EXPECT_EQ(to_string(image.error().code), to_string(Errc::unsupported));
        }
    }
}

TEST_F(VulkanExportSystemTest, TheDriverChoosesAmongTheModifiersThatItHas) {
    constexpr std::array<std::uint64_t, 2> modifiers{I915_FORMAT_MOD_X_TILED,
                                                     DRM_FORMAT_MOD_LINEAR};
    auto image = gpu().export_image({.width = 33,
                                     .height = 7,
                                     .format = DRM_FORMAT_XRGB8888,
                                     .usage = usage,
                                     .modifiers = modifiers});
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_NE(std::ranges::find(modifiers, image->frame().layout().modifier), modifiers.end());
}

} // namespace
} // namespace sluice
