// SPDX-License-Identifier: MIT
/// \file
/// Tests that have a real driver copy, under the validation layer, and look at every byte.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>

#include <gtest/gtest.h>
#include <vulkan/vulkan.h>

#include <sluice/frame_map.hpp>
#include <sluice/vulkan_buffer.hpp>
#include <sluice/vulkan_context.hpp>
#include <sluice/vulkan_image.hpp>

#include "support/requires.hpp"
#include "support/vulkan_under_validation.hpp"

namespace sluice::test {

inline constexpr auto gpu_patience = std::chrono::seconds(10);

/// A byte that depends on its place in the frame.
inline std::byte pattern(std::size_t plane, std::size_t x, std::size_t y) {
    return static_cast<std::byte>(plane * 101 + x * 7 + y * 31 + 1);
}

/// The CPU writes the pattern into every plane's rows, and nothing into what pads them.
inline void fill(const Frame& frame) {
    auto map = FrameMap::map(frame, Access::write);
    ASSERT_TRUE(map) << map.error().message();
    auto access = FrameAccess::begin(*map, Access::write, deadline_in(gpu_patience));
    ASSERT_TRUE(access) << access.error().message();
    for (std::size_t i = 0; i < frame.layout().plane_count; ++i) {
        const FramePlaneBytes plane = access->plane(i);
        for (std::size_t y = 0; y < plane.rows; ++y)
            for (std::size_t x = 0; x < plane.row_bytes; ++x)
                plane.row(y)[x] = pattern(i, x, y);
    }
    ASSERT_TRUE(access->end());
}

/// How many bytes of the planes' rows are not the pattern's.
inline std::size_t wrong_bytes(const Frame& frame) {
    std::size_t wrong = 0;
    auto map = FrameMap::map(frame, Access::read);
    EXPECT_TRUE(map) << map.error().message();
    auto access = FrameAccess::begin(*map, Access::read, deadline_in(gpu_patience));
    EXPECT_TRUE(access) << access.error().message();
    for (std::size_t i = 0; i < frame.layout().plane_count; ++i) {
        const FramePlaneBytes plane = access->plane(i);
        for (std::size_t y = 0; y < plane.rows; ++y)
            for (std::size_t x = 0; x < plane.row_bytes; ++x)
                wrong += plane.row(y)[x] != pattern(i, x, y) ? 1U : 0U;
    }
    return wrong;
}

class GpuTest : public ::testing::Test {
protected:
    void SetUp() override {
        SLUICE_REQUIRES(Validation::available(), "VK_LAYER_KHRONOS_validation is not installed");
        auto created = validation_.create_context(features());
        SLUICE_REQUIRES(created, created.error().message());
        context_.emplace(std::move(*created));
        const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                           .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                           .queueFamilyIndex = gpu().info().queue_family};
        ASSERT_EQ(vkCreateCommandPool(device(), &pool, nullptr, &pool_), VK_SUCCESS);
        const VkCommandBufferAllocateInfo allocate{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = pool_,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        ASSERT_EQ(vkAllocateCommandBuffers(device(), &allocate, &commands_), VK_SUCCESS);
    }

    void TearDown() override {
        if (context_) {
            vkDestroyCommandPool(device(), pool_, nullptr);
            validation_.stop();
        }
        for (const std::string& each : validation_.messages())
            ADD_FAILURE() << each;
    }

    /// What the device is made with (`VulkanContextInfo::device_features`). Default: none.
    [[nodiscard]] virtual const void* features() const { return nullptr; }

    [[nodiscard]] const VulkanDevice& gpu() const { return context_->device(); }
    [[nodiscard]] VkDevice device() const { return gpu().info().device; }

    /// Has the GPU do what \p record records, and waits for it in a way that the validation layer
    /// sees too: it knows of no SYNC_FD.
    void run(const std::function<void(VkCommandBuffer)>& record) const {
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                             .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
        ASSERT_EQ(vkBeginCommandBuffer(commands_, &begin), VK_SUCCESS);
        record(commands_);
        ASSERT_EQ(vkEndCommandBuffer(commands_), VK_SUCCESS);
        auto done = gpu().submit({.command_buffers = {&commands_, 1}});
        ASSERT_TRUE(done) << done.error().message();
        auto waited = done->wait(deadline_in(gpu_patience));
        ASSERT_TRUE(waited) << waited.error().message();
        ASSERT_EQ(vkDeviceWaitIdle(device()), VK_SUCCESS);
    }

    /// What stands between two parties' use of attachments.
    struct Barriers {
        std::vector<VkImageMemoryBarrier> images = {};
        std::vector<VkBufferMemoryBarrier> buffers = {};
    };
    static void barrier(VkCommandBuffer commands, VkPipelineStageFlags from,
                        VkPipelineStageFlags to, const Barriers& barriers) {
        vkCmdPipelineBarrier(
            commands, from, to, 0, 0, nullptr, static_cast<std::uint32_t>(barriers.buffers.size()),
            barriers.buffers.data(), static_cast<std::uint32_t>(barriers.images.size()),
            barriers.images.data());
    }
    static constexpr VkPipelineStageFlags copying = VK_PIPELINE_STAGE_TRANSFER_BIT;
    static constexpr VkPipelineStageFlags end = VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT;

private:
    Validation validation_;
    std::optional<VulkanContext> context_;
    VkCommandPool pool_ = VK_NULL_HANDLE;
    VkCommandBuffer commands_ = VK_NULL_HANDLE;
};

} // namespace sluice::test
