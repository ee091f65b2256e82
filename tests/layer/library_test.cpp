// SPDX-License-Identifier: MIT
// The library on top of the layer: what it brackets itself is bracketed once.
#include <algorithm>
#include <utility>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/frame.hpp>
#include <sluice/vulkan_access.hpp>
#include <sluice/vulkan_buffer.hpp>
#include <sluice/vulkan_device.hpp>

#include "layer/layer_test.hpp"

namespace sluice::test {
namespace {

class LayerUnderTheLibraryTest : public LayerTest {
protected:
    [[nodiscard]] Result<VulkanDevice> wrap() const {
        return VulkanDevice::wrap({.get_instance_proc_addr = HandLoader::get_instance_proc_addr,
                                   .instance = app->instance,
                                   .physical_device = app->physical_device,
                                   .device = app->device,
                                   .queue = queue});
    }
};

TEST_F(LayerUnderTheLibraryTest, WhatTheLibraryBracketsIsBracketedOnce) {
    begin();
    auto gpu = wrap();
    ASSERT_TRUE(gpu) << gpu.error().message();
    auto buffer = DmaBuf::from_fd(memfd(4096));
    ASSERT_TRUE(buffer);
    const ino_t inode = buffer->inode();
    auto frame = Frame::create({.width = 32,
                                .height = 32,
                                .format = DRM_FORMAT_XRGB8888,
                                .modifier = DRM_FORMAT_MOD_LINEAR,
                                .planes = {FramePlane{.stride = 128}}},
                               std::move(*buffer));
    ASSERT_TRUE(frame) << frame.error().message();
    auto attached = gpu->attach_buffer(*frame, {.usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT});
    ASSERT_TRUE(attached) << attached.error().message();
    // The application shares another buffer, which is none of the library's business.
    const SharedBuffer plain = import();
    VkCommandBuffer commands = record(plain.buffer, 0, 0);

    const std::vector uses{VulkanUse{.attachment = &*attached, .access = Access::read}};
    auto done = gpu->submit({.command_buffers = {&commands, 1}, .uses = uses});
    ASSERT_TRUE(done) << done.error().message();
    const auto times = [&](ino_t of) {
        return std::ranges::count(buffers.asked, of, [](const auto& each) { return each.first; });
    };
    EXPECT_EQ(times(inode), 1);
    EXPECT_EQ(times(plain.inode), 1);
    EXPECT_EQ(buffers.left.size(), 2U);
    app->vk.QueueWaitIdle(queue);
}

} // namespace
} // namespace sluice::test
