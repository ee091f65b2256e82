// SPDX-License-Identifier: MIT
#include <sluice/vulkan_image.hpp>

#include <array>
#include <thread>
#include <vector>

#include <drm_fourcc.h>

#include "support/fake_vulkan.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::FakeVulkan;

/// Counts what `VulkanDevice::attach` imports.
class VulkanAttachmentCacheTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
        libc_.ppoll = [](pollfd* fds, nfds_t, const timespec*) {
            fds->revents = fds->events;
            return 1;
        };
    }

    VulkanDevice wrap(std::uint32_t idle_attachments = 64) {
        VulkanDeviceInfo info = driver_.application();
        info.idle_attachments = idle_attachments;
        auto device = VulkanDevice::wrap(info);
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }
    /// A frame over \p buffer, through a fd of its own.
    static Frame over(const DmaBuf& buffer, std::uint32_t offset = 0) {
        auto made = Frame::create({.width = 16,
                                   .height = 4,
                                   .format = DRM_FORMAT_XRGB8888,
                                   .planes = {FramePlane{.offset = offset, .stride = 64}}},
                                  std::move(*buffer.duplicate()));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }
    static DmaBuf buffer() { return std::move(*DmaBuf::from_fd(test::memfd(8192))); }
    static VulkanImage attach(const VulkanDevice& device, const Frame& frame,
                              VkImageUsageFlags usage = VK_IMAGE_USAGE_SAMPLED_BIT) {
        auto image = device.attach(frame, {.usage = usage});
        EXPECT_TRUE(image) << image.error().message();
        return std::move(*image);
    }
    [[nodiscard]] std::size_t imports() const { return driver_.allocations.size(); }
    [[nodiscard]] std::size_t images() const { return driver_.living().count("image"); }

    test::ScriptedLibc libc_;
    FakeVulkan driver_;
};

TEST_F(VulkanAttachmentCacheTest, AFrameIsImportedOnceForEachUse) {
    const VulkanDevice device = wrap();
    const Frame frame = over(buffer());
    const VkImage image = attach(device, frame).image();
    for (int each = 0; each < 100; ++each)
        EXPECT_EQ(attach(device, frame).image(), image);
    EXPECT_EQ(imports(), 1U);
    EXPECT_NE(attach(device, frame, VK_IMAGE_USAGE_TRANSFER_DST_BIT).image(), image);
    EXPECT_TRUE(device.attach(frame, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT, .view = 0}));
    EXPECT_EQ(imports(), 3U);
    EXPECT_EQ(attach(device, frame).image(), image);
}

TEST_F(VulkanAttachmentCacheTest, APoolOfBuffersThatComesWithNewFdsIsImportedOnce) {
    const VulkanDevice device = wrap();
    std::array<DmaBuf, 8> pool{buffer(), buffer(), buffer(), buffer(),
                               buffer(), buffer(), buffer(), buffer()};
    for (int round = 0; round < 20; ++round)
        for (const DmaBuf& each : pool) {
            const Frame frame = over(each);
            const VulkanImage image = attach(device, frame);
            EXPECT_EQ(image.frame(), frame) << "the one that was passed";
        }
    EXPECT_EQ(imports(), pool.size());
}

TEST_F(VulkanAttachmentCacheTest, AnotherLayoutOrBufferIsAnotherAttachment) {
    const VulkanDevice device = wrap();
    const DmaBuf shared = buffer();
    const Frame first = over(shared);
    const Frame moved = over(shared, 4096);
    const Frame other = over(buffer());
    const VulkanImage a = attach(device, first);
    const VulkanImage b = attach(device, moved);
    const VulkanImage c = attach(device, other);
    EXPECT_NE(a.image(), b.image());
    EXPECT_NE(a.image(), c.image());
    EXPECT_EQ(driver_.images[1].planes[0].offset, 4096U);
    EXPECT_EQ(imports(), 3U);
}

TEST_F(VulkanAttachmentCacheTest, WhatNobodyHoldsGoesAfterAWhile) {
    const VulkanDevice device = wrap(8);
    const Frame held = over(buffer());
    const VkImage image = attach(device, held).image();
    for (int each = 0; each < 200; ++each) {
        (void)attach(device, over(buffer())); // never to be seen again
        EXPECT_LE(images(), 20U);
    }
    EXPECT_GT(images(), 8U) << "some wait for their buffers to come back";
    const std::size_t before = imports();
    EXPECT_EQ(attach(device, held).image(), image) << "its frame is held";
    EXPECT_EQ(imports(), before);

    // Without anything new, finding the old lets go as well.
    for (int each = 0; each < 400; ++each)
        (void)attach(device, held);
    EXPECT_EQ(images(), 1U);
}

TEST_F(VulkanAttachmentCacheTest, AnImageThatSomebodyHoldsStaysWithoutItsFrame) {
    const VulkanDevice device = wrap(0);
    const DmaBuf kept = buffer();
    const VulkanImage image = attach(device, over(kept));
    for (int each = 0; each < 10; ++each)
        (void)attach(device, over(buffer()));
    EXPECT_EQ(attach(device, over(kept)).image(), image.image());
}

TEST_F(VulkanAttachmentCacheTest, IdleOnesCanBeDroppedAtOnce) {
    const VulkanDevice device = wrap();
    const Frame held = over(buffer());
    (void)attach(device, held);
    {
        const Frame gone = over(buffer());
        (void)attach(device, gone);
        (void)attach(device, gone, VK_IMAGE_USAGE_TRANSFER_SRC_BIT);
    }
    EXPECT_EQ(images(), 3U);
    device.drop_idle_attachments();
    EXPECT_EQ(images(), 1U);
}

TEST_F(VulkanAttachmentCacheTest, RevokingLetsGoOfTheBuffersWhateverTheFrame) {
    const VulkanDevice device = wrap();
    const VulkanDevice other = wrap();
    const DmaBuf shared = buffer();
    const Frame first = over(shared);
    const Frame again = over(shared);
    const Frame elsewhere = over(buffer());
    (void)attach(device, first);
    (void)attach(device, again);
    (void)attach(other, again);
    (void)attach(device, elsewhere);
    EXPECT_EQ(images(), 3U);
    ASSERT_TRUE(again.revoke(deadline_in(0s)));
    EXPECT_EQ(images(), 1U) << "and nothing of its memory";
    EXPECT_FALSE(device.attach(again, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT}));
    (void)attach(device, first); // nobody has revoked this one
    EXPECT_EQ(images(), 2U);
}

TEST_F(VulkanAttachmentCacheTest, ADeviceThatIsGoneNeedsNotBeTold) {
    const Frame frame = over(buffer());
    (void)attach(wrap(), frame);
    EXPECT_EQ(images(), 0U);
    EXPECT_TRUE(frame.revoke(deadline_in(0s)));
}

} // namespace
} // namespace sluice
