// SPDX-License-Identifier: MIT
// The layer among threads: every queue has one that submits, and others make and destroy what it
// keeps books on.
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
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

constexpr int times = 100;

class LayerThreadsTest : public FdTest {
protected:
    LayerThreadsTest() {
        libc.memfds_are_dma_bufs();
        fake_sync_files(libc);
        buffers.set_up(libc);
        libc.ioctl = [this, others = libc.ioctl](int fd, unsigned long request, void* argument) {
            const bool asks = request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE;
            if (asks || request == DMA_BUF_IOCTL_IMPORT_SYNC_FILE) {
                const std::lock_guard lock(mutex);
                turns[inode_of(fd)] += asks ? 'a' : 'l';
            }
            return others(fd, request, argument);
        };
    }

    /// A dma-buf, imported. \returns its inode.
    static std::pair<ino_t, VkDeviceMemory> import(const Application& app) {
        UniqueFd buffer = memfd(4096);
        const ino_t inode = inode_of(buffer.get());
        VkDeviceMemory memory = VK_NULL_HANDLE;
        EXPECT_EQ(app.import_memory(buffer.release(), 4096, memory), VK_SUCCESS);
        return {inode, memory};
    }
    static VkBuffer make_buffer(const Application& app, VkDeviceMemory memory) {
        const VkExternalMemoryBufferCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
            .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                      .pNext = &external,
                                      .size = 4096,
                                      .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
        VkBuffer made = VK_NULL_HANDLE;
        EXPECT_EQ(app.vk.CreateBuffer(app.device, &info, nullptr, &made), VK_SUCCESS);
        EXPECT_EQ(app.vk.BindBufferMemory(app.device, made, memory, 0), VK_SUCCESS);
        return made;
    }

    std::mutex mutex;
    std::map<ino_t, std::string> turns; ///< Of each buffer: a fence asked for, a fence left.
    FakeReservations buffers;
    ScriptedLibc libc;
    FakeIcd icd{fail_the_test};
    HandLoader loader{icd, {&vkNegotiateLoaderLayerInterfaceVersion}, fail_the_test};
};

TEST_F(LayerThreadsTest, TheSubmissionsOfAllQueuesTakeTurns) {
    const Application app(HandLoader::get_instance_proc_addr);
    ASSERT_EQ(app.result, VK_SUCCESS);
    const auto [one, one_memory] = import(app);
    const auto [two, two_memory] = import(app);
    std::vector<std::thread> all;
    for (std::uint32_t i = 0; i < 4; ++i)
        all.emplace_back([&, queue = app.queue(i / 2, i % 2)] {
            for (int each = 0; each < times; ++each)
                EXPECT_EQ(app.submit(queue, {}, {}), VK_SUCCESS);
        });
    for (std::thread& each : all)
        each.join();
    std::string expected;
    for (int i = 0; i < 4 * times; ++i)
        expected += "al";
    EXPECT_EQ(turns[one], expected);
    EXPECT_EQ(turns[two], expected);
    app.vk.DeviceWaitIdle(app.device);
    for (VkDeviceMemory each : {one_memory, two_memory})
        app.vk.FreeMemory(app.device, each, nullptr);
}

TEST_F(LayerThreadsTest, WhatComesAndGoesMeanwhileHarmsNobody) {
    const Application app(HandLoader::get_instance_proc_addr);
    ASSERT_EQ(app.result, VK_SUCCESS);
    const auto [inode, memory] = import(app);
    std::atomic<bool> over = false;
    std::thread importer([&] {
        while (!over) {
            const VkDeviceMemory other = import(app).second;
            VkBuffer buffer = make_buffer(app, other);
            app.vk.DestroyBuffer(app.device, buffer, nullptr);
            app.vk.FreeMemory(app.device, other, nullptr);
        }
    });
    std::thread recorder([&, behind = memory] {
        VkBuffer buffer = make_buffer(app, behind);
        while (!over) {
            VkCommandPool pool = app.command_pool();
            VkCommandBuffer commands = app.begin(pool);
            const VkBufferMemoryBarrier barrier{.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
                                                .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT,
                                                .srcQueueFamilyIndex = VK_QUEUE_FAMILY_FOREIGN_EXT,
                                                .dstQueueFamilyIndex = 0,
                                                .buffer = buffer,
                                                .size = VK_WHOLE_SIZE};
            app.vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                                      VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, nullptr, 1,
                                      &barrier, 0, nullptr);
            EXPECT_EQ(app.vk.EndCommandBuffer(commands), VK_SUCCESS);
            EXPECT_EQ(app.submit(app.queue(1, 0), {}, {}, {commands}), VK_SUCCESS);
            EXPECT_EQ(app.vk.QueueWaitIdle(app.queue(1, 0)), VK_SUCCESS);
            app.vk.DestroyCommandPool(app.device, pool, nullptr);
        }
        app.vk.DestroyBuffer(app.device, buffer, nullptr);
    });
    std::thread timelines([&] { // which every submission looks at
        while (!over) {
            VkSemaphore timeline = app.timeline();
            const VkSemaphoreSignalInfo signal{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
                                               .semaphore = timeline,
                                               .value = 1};
            EXPECT_EQ(app.vk.SignalSemaphore(app.device, &signal), VK_SUCCESS);
            EXPECT_EQ(app.submit(app.queue(1, 1), {{timeline, 1}}, {}), VK_SUCCESS);
            EXPECT_EQ(app.vk.QueueWaitIdle(app.queue(1, 1)), VK_SUCCESS);
            app.vk.DestroySemaphore(app.device, timeline, nullptr);
        }
    });
    for (int i = 0; i < times; ++i) {
        EXPECT_EQ(app.submit(app.queue(), {}, {}), VK_SUCCESS);
        EXPECT_EQ(app.vk.QueueWaitIdle(app.queue()), VK_SUCCESS);
    }
    over = true;
    for (std::thread* each : {&importer, &recorder, &timelines})
        each->join();
    // Whoever waits asks, and whoever has written leaves a fence: here some did the one alone.
    EXPECT_NE(turns[inode].find('a'), std::string::npos);
    app.vk.FreeMemory(app.device, memory, nullptr);
}

} // namespace
} // namespace sluice::test
