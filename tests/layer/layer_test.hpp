// SPDX-License-Identifier: MIT
/// \file
/// An application on top of the layer, on top of a driver that is made up, with dma-bufs that are
/// memfds: what the tests of the layer's modules begin with.
#pragma once

#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <vulkan/vk_layer.h>

#include "core/probe.hpp"
#include "layer/application.hpp"
#include "support/fake_reservations.hpp"
#include "support/fake_sync_file.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

extern "C" VkResult vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* version);

namespace sluice::test {

inline constexpr std::uint32_t reading = DMA_BUF_SYNC_READ, writing = DMA_BUF_SYNC_WRITE;

/// A VkBuffer in a dma-buf.
struct SharedBuffer {
    ino_t inode = 0;
    VkDeviceMemory memory = VK_NULL_HANDLE;
    VkBuffer buffer = VK_NULL_HANDLE;
};

class LayerTest : public FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        probe::forget();
        libc.emplace();
        libc->memfds_are_dma_bufs();
        fake_sync_files(*libc);
        buffers.set_up(*libc);
        libc->ioctl = [this, others = libc->ioctl](int fd, unsigned long request, void* argument) {
            if (request == SYNC_IOC_MERGE) {
                if (merge_error != 0) {
                    errno = merge_error;
                    return -1;
                }
                auto& merge = *static_cast<sync_merge_data*>(argument);
                merge.fence = fake_sync_file(0).release();
                const std::scoped_lock held(given_lock);
                given.emplace_back(dup(merge.fence));
                merged.push_back(inode_of(merge.fence));
                return 0;
            }
            const int done = others(fd, request, argument);
            if (done == 0 && request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE) {
                const std::scoped_lock held(given_lock);
                given.emplace_back(dup(static_cast<dma_buf_export_sync_file*>(argument)->fd));
            }
            return done;
        };
        icd.emplace(fail_the_test);
        loader.emplace(*icd, std::vector{&vkNegotiateLoaderLayerInterfaceVersion}, fail_the_test);
        loader->layers_may_add = {"vkSetSelfBracketingSLUICE"};
    }
    void TearDown() override {
        given.clear();
        end();
        loader.reset();
        icd.reset();
        for (const auto& [name, value] : settings)
            unsetenv(name.c_str());
        libc.reset();
        probe::forget();
        FdTest::TearDown();
    }

    /// For the instance to come: set("SYNC", "ownership").
    void set(const std::string& key, const std::string& value) {
        const std::string name = "VK_SLUICE_DMA_BUF_" + key;
        settings[name] = value;
        setenv(name.c_str(), value.c_str(), 1);
    }
    /// Instance, device and queue.
    void begin() {
        app.emplace(HandLoader::get_instance_proc_addr);
        ASSERT_EQ(app->result, VK_SUCCESS);
        queue = app->queue();
    }
    void end() {
        if (!app || app->device == VK_NULL_HANDLE)
            return;
        for (VkQueue each : {app->queue(0, 0), app->queue(0, 1), app->queue(1, 0)})
            app->vk.QueueWaitIdle(each);
        for (const SharedBuffer& each : shared) {
            app->vk.DestroyBuffer(app->device, each.buffer, nullptr);
            app->vk.FreeMemory(app->device, each.memory, nullptr);
        }
        shared.clear();
        if (pool != VK_NULL_HANDLE)
            app->vk.DestroyCommandPool(app->device, std::exchange(pool, VK_NULL_HANDLE), nullptr);
        app.reset();
    }

    [[nodiscard]] VkBuffer make_buffer() const {
        const VkExternalMemoryBufferCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
            .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                      .pNext = &external,
                                      .size = 4096,
                                      .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
        VkBuffer made = VK_NULL_HANDLE;
        EXPECT_EQ(app->vk.CreateBuffer(app->device, &info, nullptr, &made), VK_SUCCESS);
        return made;
    }
    /// Imports \p fd, which is the driver's from then on.
    SharedBuffer import(int fd) {
        SharedBuffer made{.inode = inode_of(fd)};
        EXPECT_EQ(app->import_memory(fd, 4096, made.memory), VK_SUCCESS);
        made.buffer = make_buffer();
        EXPECT_EQ(app->vk.BindBufferMemory(app->device, made.buffer, made.memory, 0), VK_SUCCESS);
        return shared.emplace_back(made);
    }
    SharedBuffer import() { return import(memfd(4096).release()); }

    [[nodiscard]] static VkBufferMemoryBarrier barrier(VkBuffer buffer, bool from_others,
                                                       VkAccessFlags access) {
        return {.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
                .srcAccessMask = from_others ? 0 : access,
                .dstAccessMask = from_others ? access : 0,
                .srcQueueFamilyIndex = from_others ? VK_QUEUE_FAMILY_FOREIGN_EXT : 0,
                .dstQueueFamilyIndex = from_others ? 0 : VK_QUEUE_FAMILY_FOREIGN_EXT,
                .buffer = buffer,
                .size = VK_WHOLE_SIZE};
    }
    void record_barrier(VkCommandBuffer commands, VkBuffer buffer, bool from_others,
                        VkAccessFlags access) const {
        const auto info = barrier(buffer, from_others, access);
        app->vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                                   VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, nullptr, 1, &info, 0,
                                   nullptr);
    }
    /// A command buffer that is being recorded.
    VkCommandBuffer begin_commands(VkCommandBufferLevel level = VK_COMMAND_BUFFER_LEVEL_PRIMARY) {
        if (pool == VK_NULL_HANDLE)
            pool = app->command_pool();
        if (level == VK_COMMAND_BUFFER_LEVEL_PRIMARY)
            return app->begin(pool);
        const VkCommandBufferAllocateInfo info{.sType =
                                                   VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                               .commandPool = pool,
                                               .level = level,
                                               .commandBufferCount = 1};
        const VkCommandBufferInheritanceInfo inherits{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_INHERITANCE_INFO};
        const VkCommandBufferBeginInfo how{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                           .pInheritanceInfo = &inherits};
        VkCommandBuffer made = VK_NULL_HANDLE;
        EXPECT_EQ(app->vk.AllocateCommandBuffers(app->device, &info, &made), VK_SUCCESS);
        EXPECT_EQ(app->vk.BeginCommandBuffer(made, &how), VK_SUCCESS);
        return made;
    }
    /// Commands that take \p buffer from others, hand it over, or neither.
    VkCommandBuffer record(VkBuffer buffer, VkAccessFlags acquires, VkAccessFlags releases) {
        VkCommandBuffer commands = begin_commands();
        if (acquires != 0)
            record_barrier(commands, buffer, true, acquires);
        if (releases != 0)
            record_barrier(commands, buffer, false, releases);
        EXPECT_EQ(app->vk.EndCommandBuffer(commands), VK_SUCCESS);
        return commands;
    }

    /// Those who used the buffers before are done.
    void signal_all() {
        const std::scoped_lock held(given_lock);
        for (const UniqueFd& each : given)
            EXPECT_TRUE(write_fake_status(each.get(), 1));
    }

    FakeReservations buffers;
    std::mutex given_lock;
    std::vector<UniqueFd> given; // the fences out of the buffers, and what they were merged into
    std::vector<ino_t> merged;   // the latter alone
    int merge_error = 0;
    std::map<std::string, std::string> settings;
    std::optional<ScriptedLibc> libc;
    std::optional<FakeIcd> icd;
    std::optional<HandLoader> loader;
    std::optional<Application> app;
    VkQueue queue = VK_NULL_HANDLE;
    VkCommandPool pool = VK_NULL_HANDLE;
    std::vector<SharedBuffer> shared;
};

} // namespace sluice::test
