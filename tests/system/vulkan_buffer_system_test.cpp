// SPDX-License-Identifier: MIT
// VkBuffers over everybody's memory on a real driver.
#include <sluice/vulkan_buffer.hpp>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/dma_heap.hpp>
#include <sluice/dumb.hpp>
#include <sluice/udmabuf.hpp>

#include "support/drm_cards.hpp"
#include "support/gpu_test.hpp"
#include "support/open_fds.hpp"
#include "support/udmabuf.hpp"

namespace sluice {
namespace {

constexpr VkBufferUsageFlags usage =
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;

class VulkanBufferSystemTest : public test::GpuTest {
protected:
    [[nodiscard]] VulkanBuffer must_export(std::uint32_t width, std::uint32_t height,
                                           std::uint32_t format = DRM_FORMAT_XRGB8888) const {
        auto made = gpu().export_buffer(
            {.width = width, .height = height, .format = format, .usage = usage});
        EXPECT_TRUE(made) << made.error().message();
        return *made;
    }

    /// Has the GPU copy the planes' rows, or \p size bytes of everything.
    void copy(const VulkanBuffer& from, const VulkanBuffer& to) const {
        const FrameLayout& layout = from.frame().layout();
        const FormatInfo& format = *find_format(layout.format);
        std::vector<VkBufferCopy> rows;
        for (std::uint32_t i = 0; i < format.plane_count; ++i)
            for (std::uint64_t y = 0; y < format.planes[i].rows(layout.height); ++y) {
                const auto at = [&](const FramePlane& plane) {
                    return VkDeviceSize{plane.offset} + y * plane.stride;
                };
                rows.push_back({.srcOffset = at(layout.planes[i]),
                                .dstOffset = at(to.frame().layout().planes[i]),
                                .size = format.planes[i].row_bytes(layout.width)});
            }
        run([&](VkCommandBuffer commands) {
            barrier(
                commands, copying, copying,
                {.buffers = {from.acquire_barrier(Contents::keep, VK_ACCESS_TRANSFER_READ_BIT),
                             to.acquire_barrier(Contents::discard, VK_ACCESS_TRANSFER_WRITE_BIT)}});
            vkCmdCopyBuffer(commands, from.buffer(), to.buffer(),
                            static_cast<std::uint32_t>(rows.size()), rows.data());
            barrier(commands, copying, end,
                    {.buffers = {from.release_barrier(VK_ACCESS_TRANSFER_READ_BIT),
                                 to.release_barrier(VK_ACCESS_TRANSFER_WRITE_BIT)}});
        });
    }
};

/// Whose memory it is.
class VulkanBufferOfAllSystemTest : public VulkanBufferSystemTest,
                                    public ::testing::WithParamInterface<const char*> {
protected:
    Result<std::shared_ptr<const Exporter>> exporter() const {
        const std::string name = GetParam();
        if (name == "udmabuf")
            return UdmabufExporter::open();
        if (name == "heap")
            return DmaHeapExporter::open();
        return DumbExporter::wrap(test::open_drm(name).get());
    }
};

INSTANTIATE_TEST_SUITE_P(All, VulkanBufferOfAllSystemTest,
                         ::testing::Values("udmabuf", "heap", "vkms", "vgem"),
                         [](const auto& each) { return std::string(each.param); });

TEST_P(VulkanBufferOfAllSystemTest, TravelsFromTheCpuThroughTheGpuByteForByte) {
    auto maker = exporter();
    SLUICE_REQUIRES(maker, maker.error().message());
    for (const std::uint32_t format : {DRM_FORMAT_XRGB8888, DRM_FORMAT_NV12, DRM_FORMAT_RGB888})
        for (const auto& [width, height] :
             {std::pair(64U, 64U), std::pair(33U, 7U), std::pair(1U, 1U)}) {
            auto frame =
                (*maker)->allocate_frame({.width = width, .height = height, .format = format});
            if (!frame && frame.error().code == Errc::unsupported)
                continue; // not every card lays out every format
            SCOPED_TRACE(describe(FrameLayout{.width = width, .height = height, .format = format}));
            ASSERT_TRUE(frame) << frame.error().message();
            auto theirs = gpu().attach_buffer(*frame, {.usage = usage});
            ASSERT_TRUE(theirs) << theirs.error().message();
            EXPECT_EQ(theirs->size(), frame->buffer().size());
            const VulkanBuffer ours = must_export(width, height, format);
            test::fill(*frame);
            EXPECT_GT(test::wrong_bytes(ours.frame()), 0U);
            copy(*theirs, ours); // into Vulkan's memory
            EXPECT_EQ(test::wrong_bytes(ours.frame()), 0U);

            auto back =
                (*maker)->allocate_frame({.width = width, .height = height, .format = format});
            ASSERT_TRUE(back) << back.error().message();
            auto into = gpu().attach_buffer(*back, {.usage = usage});
            ASSERT_TRUE(into) << into.error().message();
            copy(ours, *into); // and out of it
            EXPECT_EQ(test::wrong_bytes(*back), 0U);
        }
}

TEST_F(VulkanBufferSystemTest, PlainBytesAreCopiedToTheLast) {
    SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
    const DmaBuf bytes = test::udmabuf(3 * 4096);
    auto buffer = gpu().attach_buffer(bytes, usage);
    ASSERT_TRUE(buffer) << buffer.error().message();
    EXPECT_EQ(buffer->size(), 3U * 4096);
    const FrameLayout& layout = buffer->frame().layout();
    const VulkanBuffer target = must_export(layout.width, layout.height, DRM_FORMAT_R8);
    test::fill(buffer->frame());
    copy(*buffer, target);
    EXPECT_EQ(test::wrong_bytes(target.frame()), 0U);
}

TEST_F(VulkanBufferSystemTest, ItsFrameIsAlsoAnImage) {
    // sluice laid the pixels out, and the driver takes them as an image all the same. A few rows
    // more than there are pixels: lavapipe pads to four.
    const VulkanBuffer bytes = must_export(33, 8);
    test::fill(bytes.frame());
    auto image = gpu().attach(bytes.frame(), {.usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT});
    ASSERT_TRUE(image) << image.error().message();
    const VulkanBuffer target = must_export(33, 8);
    const FramePlane plane = target.frame().layout().planes[0];
    const VkBufferImageCopy all{.bufferOffset = plane.offset,
                                .bufferRowLength = plane.stride / 4,
                                .imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1},
                                .imageExtent = {33, 8, 1}};
    constexpr auto layout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
    run([&](VkCommandBuffer commands) {
        barrier(
            commands, copying, copying,
            {.images = {image->acquire_barrier(Contents::keep, layout,
                                               VK_ACCESS_TRANSFER_READ_BIT)},
             .buffers = {target.acquire_barrier(Contents::discard, VK_ACCESS_TRANSFER_WRITE_BIT)}});
        vkCmdCopyImageToBuffer(commands, image->image(), layout, target.buffer(), 1, &all);
        barrier(commands, copying, end,
                {.images = {image->release_barrier(layout, VK_ACCESS_TRANSFER_READ_BIT)},
                 .buffers = {target.release_barrier(VK_ACCESS_TRANSFER_WRITE_BIT)}});
    });
    EXPECT_EQ(test::wrong_bytes(target.frame()), 0U);
}

class VulkanBufferBarrier2SystemTest : public VulkanBufferSystemTest {
protected:
    [[nodiscard]] const void* features() const override { return &synchronization_2_; }

private:
    const VkPhysicalDeviceVulkan13Features synchronization_2_ = [] {
        VkPhysicalDeviceVulkan13Features features{};
        features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES;
        features.synchronization2 = VK_TRUE;
        return features;
    }();
};

TEST_F(VulkanBufferBarrier2SystemTest, TakesAndGivesByBarriersOfSynchronization2) {
    const VulkanBuffer from = must_export(64, 16);
    const VulkanBuffer to = must_export(64, 16);
    test::fill(from.frame());
    EXPECT_GT(test::wrong_bytes(to.frame()), 0U);
    constexpr VkPipelineStageFlags2 copy = VK_PIPELINE_STAGE_2_COPY_BIT; // 64 bits have it alone
    run([&](VkCommandBuffer commands) {
        const auto barrier = [&](const std::array<VkBufferMemoryBarrier2, 2>& both) {
            const VkDependencyInfo info{.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                        .bufferMemoryBarrierCount = 2,
                                        .pBufferMemoryBarriers = both.data()};
            vkCmdPipelineBarrier2(commands, &info);
        };
        barrier({from.acquire_barrier2(Contents::keep, copy, VK_ACCESS_2_TRANSFER_READ_BIT),
                 to.acquire_barrier2(Contents::discard, copy, VK_ACCESS_2_TRANSFER_WRITE_BIT)});
        const VkBufferCopy all{.size = std::min(from.size(), to.size())};
        vkCmdCopyBuffer(commands, from.buffer(), to.buffer(), 1, &all);
        barrier({from.release_barrier2(copy, VK_ACCESS_2_TRANSFER_READ_BIT),
                 to.release_barrier2(copy, VK_ACCESS_2_TRANSFER_WRITE_BIT)});
    });
    EXPECT_EQ(test::wrong_bytes(to.frame()), 0U);
}

TEST_F(VulkanBufferSystemTest, LeavesNoFdBehind) {
    SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
    const DmaBuf bytes = test::udmabuf(4096);
    const auto before = test::open_fds();
    for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(gpu().attach_buffer(bytes, usage));
        (void)must_export(16, 16);
        EXPECT_FALSE(gpu().attach_buffer(bytes, 0));
    }
    gpu().drop_idle_attachments();
    EXPECT_EQ(test::open_fds(), before);
}

TEST_F(VulkanBufferSystemTest, WhatIsTooLargeIsRefusedInNumbers) {
    auto made = gpu().export_buffer(
        {.width = 1U << 30, .height = UINT32_MAX, .format = DRM_FORMAT_R8, .usage = usage});
    ASSERT_FALSE(made);
    EXPECT_NE(made.error().message().find("4611686017353646080"), std::string::npos)
        << made.error().message();
}

TEST_F(VulkanBufferSystemTest, LavapipeSharesTheCpusCaches) {
    if (gpu().name().find("llvmpipe") == std::string::npos)
        GTEST_SKIP() << "of lavapipe alone it is known";
    EXPECT_EQ(must_export(16, 16).coherency(), Coherency::always);
}

} // namespace
} // namespace sluice
