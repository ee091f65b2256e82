// SPDX-License-Identifier: MIT
// The layer between an application and a driver: which fences go where.
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <linux/dma-buf.h>
#include <vulkan/vk_layer.h>

#include "layer/application.hpp"
#include "support/fake_reservations.hpp"
#include "support/fake_sync_file.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

extern "C" VkResult vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* version);

namespace sluice::test {
namespace {

constexpr std::uint32_t reading = DMA_BUF_SYNC_READ, writing = DMA_BUF_SYNC_WRITE;

class LayerBridgeTest : public FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc.emplace();
        libc->memfds_are_dma_bufs();
        fake_sync_files(*libc);
        buffers.set_up(*libc);
        libc->ioctl = [this, others = libc->ioctl](int fd, unsigned long request, void* argument) {
            const int done = others(fd, request, argument);
            if (done == 0 && request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE)
                given.emplace_back(dup(static_cast<dma_buf_export_sync_file*>(argument)->fd));
            return done;
        };
        icd.emplace(fail_the_test);
        loader.emplace(*icd, std::vector{&vkNegotiateLoaderLayerInterfaceVersion}, fail_the_test);
        app.emplace(HandLoader::get_instance_proc_addr);
        ASSERT_EQ(app->result, VK_SUCCESS);
        queue = app->queue();
    }
    void TearDown() override {
        given.clear();
        app->vk.QueueWaitIdle(queue);
        for (VkBuffer each : made)
            app->vk.DestroyBuffer(app->device, each, nullptr);
        for (VkDeviceMemory each : memories)
            app->vk.FreeMemory(app->device, each, nullptr);
        if (pool != VK_NULL_HANDLE)
            app->vk.DestroyCommandPool(app->device, pool, nullptr);
        app.reset();
        loader.reset();
        icd.reset();
        libc.reset();
        FdTest::TearDown();
    }

    /// A dma-buf, imported, with a VkBuffer in it. \returns its inode.
    ino_t import() {
        UniqueFd buffer = memfd(4096);
        const ino_t inode = inode_of(buffer.get());
        VkDeviceMemory memory = VK_NULL_HANDLE;
        EXPECT_EQ(app->import_memory(buffer.release(), 4096, memory), VK_SUCCESS);
        memories.push_back(memory);
        const VkExternalMemoryBufferCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
            .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                      .pNext = &external,
                                      .size = 4096,
                                      .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
        VkBuffer buffer_of = VK_NULL_HANDLE;
        EXPECT_EQ(app->vk.CreateBuffer(app->device, &info, nullptr, &buffer_of), VK_SUCCESS);
        made.push_back(buffer_of);
        EXPECT_EQ(app->vk.BindBufferMemory(app->device, buffer_of, memory, 0), VK_SUCCESS);
        return inode;
    }
    /// Commands that take \p buffer from others, hand it over, or neither.
    VkCommandBuffer record(VkBuffer buffer, VkAccessFlags acquires, VkAccessFlags releases) {
        if (pool == VK_NULL_HANDLE)
            pool = app->command_pool();
        VkCommandBuffer commands = app->begin(pool);
        const auto barrier = [&](bool from, VkAccessFlags access) {
            const VkBufferMemoryBarrier info{
                .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
                .srcAccessMask = from ? 0 : access,
                .dstAccessMask = from ? access : 0,
                .srcQueueFamilyIndex = from ? VK_QUEUE_FAMILY_FOREIGN_EXT : 0,
                .dstQueueFamilyIndex = from ? 0 : VK_QUEUE_FAMILY_FOREIGN_EXT,
                .buffer = buffer,
                .size = VK_WHOLE_SIZE};
            app->vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                                       VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, nullptr, 1, &info,
                                       0, nullptr);
        };
        if (acquires != 0)
            barrier(true, acquires);
        if (releases != 0)
            barrier(false, releases);
        EXPECT_EQ(app->vk.EndCommandBuffer(commands), VK_SUCCESS);
        return commands;
    }

    /// Those who used the buffers before are done.
    void signal_all() const {
        for (const UniqueFd& each : given)
            EXPECT_TRUE(write_fake_status(each.get(), 1));
    }

    FakeReservations buffers;
    std::vector<UniqueFd> given; // the fences out of the buffers
    std::optional<ScriptedLibc> libc;
    std::optional<FakeIcd> icd;
    std::optional<HandLoader> loader;
    std::optional<Application> app;
    VkQueue queue = VK_NULL_HANDLE;
    VkCommandPool pool = VK_NULL_HANDLE;
    std::vector<VkDeviceMemory> memories;
    std::vector<VkBuffer> made;
};

TEST_F(LayerBridgeTest, WhoSharesNothingIsLeftAlone) {
    VkFence done = app->fence();
    ASSERT_EQ(app->submit(queue, {}, {}, {}, done), VK_SUCCESS);
    EXPECT_EQ(icd->submissions(queue).at(0).batches.size(), 1U);
    EXPECT_EQ(icd->submissions(queue).at(0).fence, done);
    EXPECT_TRUE(buffers.asked.empty());
    app->vk.DestroyFence(app->device, done, nullptr);
}

TEST_F(LayerBridgeTest, WithoutBarriersEverySubmissionTakesTheFencesAndLeavesItsOwn) {
    const ino_t busy = import(), idle = import();
    buffers.status[busy] = 0;
    VkFence done = app->fence();
    ASSERT_EQ(app->submit(queue, {}, {}, {}, done), VK_SUCCESS);
    ASSERT_EQ(buffers.asked.size(), 2U);
    const auto submission = icd->submissions(queue).at(0);
    ASSERT_EQ(submission.batches.size(), 3U) << "a wait before, a signal after";
    EXPECT_EQ(submission.fence, done) << "it covers all of them";
    const auto& asked = buffers.asked;
    const std::size_t of_busy = asked[0].first == busy ? 0 : 1;
    ASSERT_EQ(submission.batches[0].waits.size(), 1U);
    EXPECT_EQ(submission.batches[0].waits[0].sync_file, buffers.given.at(of_busy));
    ASSERT_EQ(submission.batches[2].signals.size(), 1U);
    ASSERT_EQ(buffers.left.size(), 2U);
    for (const auto& each : buffers.left) {
        EXPECT_TRUE(each.buffer == busy || each.buffer == idle);
        EXPECT_EQ(each.flags, reading | writing);
        EXPECT_EQ(each.fence, submission.batches[2].signals[0].sync_file);
    }
    EXPECT_FALSE(submission.finished);
    signal_all();
    app->vk.QueueWaitIdle(queue);
    EXPECT_TRUE(icd->submissions(queue).at(0).finished);
    app->vk.DestroyFence(app->device, done, nullptr);
}

TEST_F(LayerBridgeTest, WhoRecordsBarriersIsTakenAtHisWord) {
    const ino_t inode = import();
    VkCommandBuffer reads = record(made[0], VK_ACCESS_TRANSFER_READ_BIT, 0);
    VkCommandBuffer writes = record(made[0], 0, VK_ACCESS_TRANSFER_WRITE_BIT);
    VkCommandBuffer neither = record(made[0], 0, 0);

    ASSERT_EQ(app->submit(queue, {}, {}, {neither}), VK_SUCCESS);
    EXPECT_TRUE(buffers.asked.empty());
    EXPECT_TRUE(buffers.left.empty());
    EXPECT_EQ(icd->submissions(queue).at(0).batches.size(), 1U);

    ASSERT_EQ(app->submit(queue, {}, {}, {reads}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked, (std::vector{std::pair(inode, reading)}));
    EXPECT_TRUE(buffers.left.empty());

    ASSERT_EQ(app->submit(queue, {}, {}, {writes}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked.size(), 1U);
    ASSERT_EQ(buffers.left.size(), 1U);
    EXPECT_EQ(buffers.left[0].buffer, inode);
    EXPECT_EQ(buffers.left[0].flags, writing);
}

TEST_F(LayerBridgeTest, WhatWaitsForAValueToComeHandsItsFenceOverThen) {
    import();
    VkSemaphore timeline = app->timeline();
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS) << "which comes after it";
    EXPECT_TRUE(buffers.left.empty()) << "nobody may ask for the fence yet";
    const VkSemaphoreSignalInfo signal{
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = timeline, .value = 1};
    ASSERT_EQ(app->vk.SignalSemaphore(app->device, &signal), VK_SUCCESS);
    EXPECT_EQ(buffers.left.size(), 2U);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerBridgeTest, WhereWeFailTheSubmissionGoesOn) {
    import();
    icd->fail("vkCreateSemaphore", VK_ERROR_OUT_OF_DEVICE_MEMORY, 1);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_EQ(icd->submissions(queue).size(), 1U);
    buffers.export_error = ENOTTY;
    buffers.import_error = ENOTTY;
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_EQ(icd->submissions(queue).size(), 2U);
}

} // namespace
} // namespace sluice::test
