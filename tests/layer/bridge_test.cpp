// SPDX-License-Identifier: MIT
// The layer between an application and a driver: which fences go where.
#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>

#include "layer/layer_test.hpp"
#include "support/allocations.hpp"
#include "timelines.hpp"
#include "vulkan/vulkan_layer.hpp"

namespace sluice::test {
namespace {

class LayerBridgeTest : public LayerTest {
protected:
    [[nodiscard]] std::size_t batches_of_last() const {
        return icd->submissions(queue).back().batches.size();
    }
    /// With the functions of Vulkan 1.0.
    VkResult submit_1(const std::vector<VkCommandBuffer>& commands, const void* next = nullptr,
                      const std::vector<VkSemaphore>& waits = {}) const {
        const std::vector<VkPipelineStageFlags> stages(waits.size(),
                                                       VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                .pNext = next,
                                .waitSemaphoreCount = static_cast<std::uint32_t>(waits.size()),
                                .pWaitSemaphores = waits.data(),
                                .pWaitDstStageMask = stages.data(),
                                .commandBufferCount = static_cast<std::uint32_t>(commands.size()),
                                .pCommandBuffers = commands.data()};
        return app->vk.QueueSubmit(queue, 1, &info, VK_NULL_HANDLE);
    }
    /// The same, unknown to the layer.
    [[nodiscard]] VkResult icd_signal(VkSemaphore timeline, std::uint64_t value) const {
        const VkSemaphoreSignalInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
                                         .semaphore = timeline,
                                         .value = value};
        return reinterpret_cast<PFN_vkSignalSemaphore>(FakeIcd::get_instance_proc_addr(
            app->instance, "vkSignalSemaphore"))(app->device, &info);
    }
    [[nodiscard]] VkResult signal(VkSemaphore timeline, std::uint64_t value) const {
        const VkSemaphoreSignalInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO,
                                         .semaphore = timeline,
                                         .value = value};
        return app->vk.SignalSemaphore(app->device, &info);
    }
};

// ---- Which buffers take part --------------------------------------------------------------------

TEST_F(LayerBridgeTest, WhoSharesNothingIsLeftAlone) {
    begin();
    VkFence done = app->fence();
    ASSERT_EQ(app->submit(queue, {}, {}, {}, done), VK_SUCCESS);
    EXPECT_EQ(batches_of_last(), 1U);
    EXPECT_EQ(icd->submissions(queue).at(0).fence, done);
    EXPECT_TRUE(buffers.asked.empty());
    EXPECT_EQ(icd->calls("vkCreateSemaphore"), 0);
    app->vk.DestroyFence(app->device, done, nullptr);
}

TEST_F(LayerBridgeTest, WithoutBarriersEverySubmissionTakesTheFencesAndLeavesItsOwn) {
    begin();
    const ino_t busy = import().inode, idle = import().inode;
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
    EXPECT_EQ(submission.batches[0].waits[0].stages, VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT);
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

TEST_F(LayerBridgeTest, SeveralPendingFencesBecomeOneSemaphore) {
    begin();
    for (int i = 0; i < 3; ++i)
        buffers.status[import().inode] = 0;
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    const auto submission = icd->submissions(queue).at(0);
    ASSERT_EQ(submission.batches.size(), 3U);
    ASSERT_EQ(submission.batches[0].waits.size(), 1U);
    EXPECT_EQ(submission.batches[0].waits[0].sync_file, merged.back());
    EXPECT_EQ(merged.size(), 2U);
    EXPECT_EQ(icd->calls("vkImportSemaphoreFdKHR"), 1);
    EXPECT_EQ(icd->calls("vkGetSemaphoreFdKHR"), 1);
    signal_all();
}

TEST_F(LayerBridgeTest, WhoRecordsBarriersIsTakenAtHisWord) {
    begin();
    const SharedBuffer buffer = import();
    VkCommandBuffer reads = record(buffer.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    VkCommandBuffer writes = record(buffer.buffer, 0, VK_ACCESS_TRANSFER_WRITE_BIT);
    VkCommandBuffer neither = record(buffer.buffer, 0, 0);

    ASSERT_EQ(app->submit(queue, {}, {}, {neither}), VK_SUCCESS);
    EXPECT_TRUE(buffers.asked.empty());
    EXPECT_TRUE(buffers.left.empty());
    EXPECT_EQ(batches_of_last(), 1U);

    ASSERT_EQ(app->submit(queue, {}, {}, {reads}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked, (std::vector{std::pair(buffer.inode, reading)}));
    EXPECT_TRUE(buffers.left.empty());

    ASSERT_EQ(app->submit(queue, {}, {}, {writes}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked.size(), 1U);
    ASSERT_EQ(buffers.left.size(), 1U);
    EXPECT_EQ(buffers.left[0].buffer, buffer.inode);
    EXPECT_EQ(buffers.left[0].flags, writing);
}

TEST_F(LayerBridgeTest, WhatIsNotKnownToReadCountsAsAWrite) {
    begin();
    const SharedBuffer buffer = import();
    for (const auto& [access, as] : std::vector<std::pair<VkAccessFlags2, std::uint32_t>>{
             {0, writing},
             {VkAccessFlags2{1} << 36U, writing}, // VK_ACCESS_2_VIDEO_DECODE_WRITE_BIT_KHR
             {VkAccessFlags2{1} << 62U, writing}, // nobody's yet
             {VK_ACCESS_2_SHADER_SAMPLED_READ_BIT | VK_ACCESS_2_TRANSFER_READ_BIT, reading},
             {VK_ACCESS_2_MEMORY_READ_BIT | VK_ACCESS_2_MEMORY_WRITE_BIT, writing}}) {
        const VkBufferMemoryBarrier2 release{.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER_2,
                                             .srcStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                                             .srcAccessMask = access,
                                             .srcQueueFamilyIndex = 0,
                                             .dstQueueFamilyIndex = VK_QUEUE_FAMILY_FOREIGN_EXT,
                                             .buffer = buffer.buffer,
                                             .size = VK_WHOLE_SIZE};
        const VkDependencyInfo dependency{.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                          .bufferMemoryBarrierCount = 1,
                                          .pBufferMemoryBarriers = &release};
        VkCommandBuffer commands = begin_commands();
        app->vk.CmdPipelineBarrier2(commands, &dependency);
        ASSERT_EQ(app->vk.EndCommandBuffer(commands), VK_SUCCESS);
        ASSERT_EQ(app->submit(queue, {}, {}, {commands}), VK_SUCCESS);
        EXPECT_EQ(buffers.left.back().flags, as) << access;
    }
}

TEST_F(LayerBridgeTest, BothKindsOfApplicationMayBeOne) {
    begin();
    const SharedBuffer told = import(), untold = import();
    VkCommandBuffer reads = record(told.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    VkCommandBuffer neither = record(told.buffer, 0, 0);
    ASSERT_EQ(app->submit(queue, {}, {}, {neither}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked, (std::vector{std::pair(untold.inode, reading | writing)}));
    buffers.asked.clear();
    ASSERT_EQ(app->submit(queue, {}, {}, {reads}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked.size(), 2U);
    EXPECT_EQ(buffers.left.size(), 2U) << "twice of the one without barriers";
}

TEST_F(LayerBridgeTest, EveryWayToRecordABarrierCounts) {
    begin();
    const SharedBuffer buffer = import();
    const auto info = barrier(buffer.buffer, true, VK_ACCESS_TRANSFER_READ_BIT);
    const VkBufferMemoryBarrier2 info_2{.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER_2,
                                        .dstStageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT,
                                        .dstAccessMask = VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT,
                                        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_EXTERNAL,
                                        .dstQueueFamilyIndex = 0,
                                        .buffer = buffer.buffer,
                                        .size = VK_WHOLE_SIZE};
    const VkDependencyInfo dependency{.sType = VK_STRUCTURE_TYPE_DEPENDENCY_INFO,
                                      .bufferMemoryBarrierCount = 1,
                                      .pBufferMemoryBarriers = &info_2};
    const VkEventCreateInfo event_info{.sType = VK_STRUCTURE_TYPE_EVENT_CREATE_INFO};
    VkEvent event = VK_NULL_HANDLE;
    ASSERT_EQ(app->vk.CreateEvent(app->device, &event_info, nullptr, &event), VK_SUCCESS);
    constexpr VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    const auto& vk = app->vk;
    const std::vector<std::pair<std::uint32_t, std::function<void(VkCommandBuffer)>>> ways{
        {reading,
         [&](auto to) {
             vk.CmdPipelineBarrier(to, all, all, 0, 0, nullptr, 1, &info, 0, nullptr);
         }},
        {reading,
         [&](auto to) {
             vk.CmdWaitEvents(to, 1, &event, all, all, 0, nullptr, 1, &info, 0, nullptr);
         }},
        {writing, [&](auto to) { vk.CmdPipelineBarrier2(to, &dependency); }},
        {writing, [&](auto to) { vk.CmdPipelineBarrier2KHR(to, &dependency); }},
        {writing, [&](auto to) { vk.CmdWaitEvents2(to, 1, &event, &dependency); }},
        {writing, [&](auto to) { vk.CmdWaitEvents2KHR(to, 1, &event, &dependency); }},
    };
    for (const auto& [access, way] : ways) {
        SCOPED_TRACE(icd->submissions(queue).size());
        VkCommandBuffer commands = begin_commands();
        way(commands);
        ASSERT_EQ(vk.EndCommandBuffer(commands), VK_SUCCESS);
        buffers.asked.clear();
        ASSERT_EQ(submit_1({commands}), VK_SUCCESS);
        EXPECT_EQ(buffers.asked, (std::vector{std::pair(buffer.inode, access)}));
    }
    app->vk.QueueWaitIdle(queue);
    vk.DestroyEvent(app->device, event, nullptr);
}

TEST_F(LayerBridgeTest, WhatOthersExecuteIsTheirs) {
    begin();
    const SharedBuffer buffer = import();
    VkCommandBuffer part = begin_commands(VK_COMMAND_BUFFER_LEVEL_SECONDARY);
    record_barrier(part, buffer.buffer, true, VK_ACCESS_TRANSFER_WRITE_BIT);
    ASSERT_EQ(app->vk.EndCommandBuffer(part), VK_SUCCESS);
    VkCommandBuffer whole = begin_commands();
    app->vk.CmdExecuteCommands(whole, 1, &part);
    ASSERT_EQ(app->vk.EndCommandBuffer(whole), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {}, {}, {whole}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked, (std::vector{std::pair(buffer.inode, writing)}));
}

TEST_F(LayerBridgeTest, WhatIsRecordedAnewForgetsWhatWasThere) {
    begin();
    const SharedBuffer buffer = import();
    pool = app->command_pool();
    const auto again = [&](VkCommandBuffer commands) {
        const VkCommandBufferBeginInfo info{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
        EXPECT_EQ(app->vk.BeginCommandBuffer(commands, &info), VK_SUCCESS);
        EXPECT_EQ(app->vk.EndCommandBuffer(commands), VK_SUCCESS);
        buffers.asked.clear();
        EXPECT_EQ(app->submit(queue, {}, {}, {commands}), VK_SUCCESS);
        EXPECT_TRUE(buffers.asked.empty());
        app->vk.QueueWaitIdle(queue);
    };
    VkCommandBuffer begun = record(buffer.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    again(begun);
    VkCommandBuffer reset = record(buffer.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    ASSERT_EQ(app->vk.ResetCommandBuffer(reset, 0), VK_SUCCESS);
    again(reset);
    VkCommandBuffer pooled = record(buffer.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    ASSERT_EQ(app->vk.ResetCommandPool(app->device, pool, 0), VK_SUCCESS);
    again(pooled);
}

TEST_F(LayerBridgeTest, AllMeansEveryBufferAlways) {
    set("SYNC", "all");
    begin();
    const SharedBuffer buffer = import();
    VkCommandBuffer reads = record(buffer.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    ASSERT_EQ(app->submit(queue, {}, {}, {reads}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked, (std::vector{std::pair(buffer.inode, reading | writing)}));
    ASSERT_EQ(buffers.left.size(), 1U);
    EXPECT_EQ(buffers.left[0].flags, reading | writing);
}

TEST_F(LayerBridgeTest, OwnershipMeansBarriersAlone) {
    set("SYNC", "ownership");
    begin();
    const SharedBuffer buffer = import();
    import();
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_TRUE(buffers.asked.empty());
    VkCommandBuffer reads = record(buffer.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    ASSERT_EQ(app->submit(queue, {}, {}, {reads}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked, (std::vector{std::pair(buffer.inode, reading)}));
}

TEST_F(LayerBridgeTest, OffMeansOff) {
    set("SYNC", "off");
    begin();
    const SharedBuffer buffer = import();
    VkCommandBuffer reads = record(buffer.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    ASSERT_EQ(app->submit(queue, {}, {}, {reads}), VK_SUCCESS);
    EXPECT_TRUE(buffers.asked.empty());
    EXPECT_EQ(batches_of_last(), 1U);
}

TEST_F(LayerBridgeTest, ABufferIsOneHoweverOftenItIsImported) {
    begin();
    UniqueFd fd = memfd(4096);
    import(dup(fd.get()));
    import(fd.release());
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked.size(), 1U);
    EXPECT_EQ(buffers.left.size(), 1U);
}

TEST_F(LayerBridgeTest, WhatIsExportedTakesPartFromThenOn) {
    begin();
    const VkExportMemoryAllocateInfo as{.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                        .handleTypes =
                                            VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkMemoryAllocateInfo info{
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &as, .allocationSize = 4096};
    SharedBuffer made;
    ASSERT_EQ(app->vk.AllocateMemory(app->device, &info, nullptr, &made.memory), VK_SUCCESS);
    made.buffer = make_buffer();
    ASSERT_EQ(app->vk.BindBufferMemory(app->device, made.buffer, made.memory, 0), VK_SUCCESS);
    shared.push_back(made);
    // Its barriers count, though nobody has it yet.
    VkCommandBuffer reads = record(made.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    ASSERT_EQ(app->submit(queue, {}, {}, {reads}), VK_SUCCESS);
    EXPECT_TRUE(buffers.asked.empty());

    const VkMemoryGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                   .memory = made.memory,
                                   .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    int fd = -1;
    ASSERT_EQ(app->vk.GetMemoryFdKHR(app->device, &get, &fd), VK_SUCCESS);
    const UniqueFd exported(std::move(fd));
    app->vk.QueueWaitIdle(queue);
    ASSERT_EQ(app->submit(queue, {}, {}, {reads}), VK_SUCCESS);
    EXPECT_EQ(buffers.asked, (std::vector{std::pair(inode_of(exported.get()), reading)}));
}

TEST_F(LayerBridgeTest, ProtectedMemoryIsNotTouched) {
    begin();
    UniqueFd fd = memfd(4096);
    const VkImportMemoryFdInfoKHR import_info{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                              .handleType =
                                                  VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
                                              .fd = fd.release()};
    const VkMemoryAllocateInfo info{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                    .pNext = &import_info,
                                    .allocationSize = 4096,
                                    .memoryTypeIndex = 2};
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(app->vk.AllocateMemory(app->device, &info, nullptr, &memory), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_TRUE(buffers.asked.empty());
    app->vk.QueueWaitIdle(queue);
    app->vk.FreeMemory(app->device, memory, nullptr);
}

TEST_F(LayerBridgeTest, WhatIsFreedTakesPartNoMore) {
    begin();
    const SharedBuffer buffer = import();
    app->vk.DestroyBuffer(app->device, buffer.buffer, nullptr);
    app->vk.FreeMemory(app->device, buffer.memory, nullptr);
    shared.clear();
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_TRUE(buffers.asked.empty());
    EXPECT_EQ(batches_of_last(), 1U);
}

TEST_F(LayerBridgeTest, WhatAThreadBracketsItselfIsLeftAlone) {
    begin();
    const auto set_self_bracketing = reinterpret_cast<SelfBracketingFunction>(
        HandLoader::get_device_proc_addr(app->device, self_bracketing_name));
    ASSERT_NE(set_self_bracketing, nullptr);
    set_self_bracketing(app->device, VK_TRUE);
    const SharedBuffer own = import();
    SharedBuffer of_another_thread;
    std::thread([&] { of_another_thread = import(); }).join();
    set_self_bracketing(app->device, VK_FALSE);
    const SharedBuffer later = import();
    VkCommandBuffer reads = record(own.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    ASSERT_EQ(app->submit(queue, {}, {}, {reads}), VK_SUCCESS);
    ASSERT_EQ(buffers.asked.size(), 2U);
    for (const auto& [inode, flags] : buffers.asked)
        EXPECT_TRUE(inode == of_another_thread.inode || inode == later.inode);
}

// ---- How it is done -----------------------------------------------------------------------------

TEST_F(LayerBridgeTest, EveryKindOfSubmissionIsBridged) {
    begin();
    buffers.status[import().inode] = 0;
    const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO};
    const VkSubmitInfo2 info_2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2};
    const VkBindSparseInfo sparse{.sType = VK_STRUCTURE_TYPE_BIND_SPARSE_INFO};
    ASSERT_EQ(app->vk.QueueSubmit(queue, 1, &info, VK_NULL_HANDLE), VK_SUCCESS);
    ASSERT_EQ(app->vk.QueueSubmit2(queue, 1, &info_2, VK_NULL_HANDLE), VK_SUCCESS);
    ASSERT_EQ(app->vk.QueueSubmit2KHR(queue, 1, &info_2, VK_NULL_HANDLE), VK_SUCCESS);
    ASSERT_EQ(app->vk.QueueBindSparse(queue, 1, &sparse, VK_NULL_HANDLE), VK_SUCCESS);
    for (const auto& each : icd->submissions(queue)) {
        SCOPED_TRACE(each.function);
        ASSERT_EQ(each.batches.size(), 3U);
        EXPECT_EQ(each.batches[0].waits.size(), 1U);
        EXPECT_NE(each.batches[0].waits[0].sync_file, 0U);
        EXPECT_EQ(each.batches[2].signals.size(), 1U);
        EXPECT_NE(each.batches[2].signals[0].sync_file, 0U);
    }
    EXPECT_EQ(buffers.left.size(), 4U);
    signal_all();
}

TEST_F(LayerBridgeTest, WhatTheApplicationChainsComesThrough) {
    begin();
    buffers.status[import().inode] = 0;
    const VkDeviceGroupSubmitInfo group{.sType = VK_STRUCTURE_TYPE_DEVICE_GROUP_SUBMIT_INFO};
    const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .pNext = &group};
    std::array<std::byte, sizeof info> before{};
    std::memcpy(before.data(), &info, sizeof info);
    ASSERT_EQ(app->vk.QueueSubmit(queue, 1, &info, VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_EQ(std::memcmp(before.data(), &info, sizeof info), 0);
    const auto submission = icd->submissions(queue).at(0);
    ASSERT_EQ(submission.batches.size(), 3U);
    EXPECT_EQ(submission.batches[1].chain, std::vector{VK_STRUCTURE_TYPE_DEVICE_GROUP_SUBMIT_INFO});
    EXPECT_TRUE(submission.batches[0].chain.empty());
    EXPECT_TRUE(submission.batches[2].chain.empty());
    signal_all();
}

TEST_F(LayerBridgeTest, SemaphoresAreUsedAgain) {
    begin();
    buffers.status[import().inode] = 0;
    for (int i = 0; i < 50; ++i) {
        ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
        signal_all();
        app->vk.QueueWaitIdle(queue);
    }
    EXPECT_EQ(icd->calls("vkCreateSemaphore"), 2);
    EXPECT_EQ(icd->calls("vkImportSemaphoreFdKHR"), 50);
}

TEST_F(LayerBridgeTest, AsManySemaphoresAsSubmissionsAreUnderWay) {
    begin();
    buffers.status[import().inode] = 0;
    icd->finishes_at_once = false;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 5; ++i)
            ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
        signal_all();
        icd->finish();
    }
    EXPECT_EQ(icd->calls("vkCreateSemaphore"), 10);
}

TEST_F(LayerBridgeTest, AfterTheFirstUseNothingIsAllocated) {
    icd->keeps_submissions = false;
    begin();
    for (int i = 0; i < 8; ++i)
        buffers.status[import().inode] = i % 2;
    VkCommandBuffer commands =
        record(shared[0].buffer, VK_ACCESS_TRANSFER_READ_BIT, VK_ACCESS_TRANSFER_WRITE_BIT);
    std::size_t ours = 0, before = 0; // outside of the driver
    icd->on_call = [&](std::string_view) { ours += allocations() - before; };
    icd->on_return = [&](std::string_view) { before = allocations(); };
    libc->ioctl = [&, others = libc->ioctl](int fd, unsigned long request, void* argument) {
        const std::size_t at_call = allocations();
        const int result = others(fd, request, argument);
        before += allocations() - at_call;
        return result;
    };
    const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                            .commandBufferCount = 1,
                            .pCommandBuffers = &commands};
    std::size_t of_last = 0;
    for (int i = 0; i < 4; ++i) {
        ours = 0;
        before = allocations();
        ASSERT_EQ(app->vk.QueueSubmit(queue, 1, &info, VK_NULL_HANDLE), VK_SUCCESS);
        of_last = ours + allocations() - before;
        signal_all();
        app->vk.QueueWaitIdle(queue);
    }
    EXPECT_EQ(icd->calls("vkImportSemaphoreFdKHR"), 4);
    EXPECT_EQ(of_last, 0U);
    icd->on_call = icd->on_return = nullptr;
}

// ---- Timelines ----------------------------------------------------------------------------------

TEST_F(LayerBridgeTest, WhatWaitsForAValueToComeHandsItsFenceOverThen) {
    begin();
    import();
    VkSemaphore timeline = app->timeline();
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS) << "which comes after it";
    EXPECT_TRUE(buffers.left.empty()) << "nobody may ask for the fence yet";
    ASSERT_EQ(signal(timeline, 1), VK_SUCCESS);
    EXPECT_EQ(buffers.left.size(), 2U);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerBridgeTest, AnotherQueueMaySubmitTheValue) {
    begin();
    import();
    VkQueue other = app->queue(0, 1);
    VkSemaphore first = app->timeline(), second = app->timeline();
    // The old way to say the values.
    const std::uint64_t value = 3;
    const VkTimelineSemaphoreSubmitInfo values{.sType =
                                                   VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                               .waitSemaphoreValueCount = 1,
                                               .pWaitSemaphoreValues = &value};
    ASSERT_EQ(submit_1({}, &values, {second}), VK_SUCCESS);
    EXPECT_TRUE(buffers.left.empty());
    ASSERT_EQ(app->submit(other, {{first, 1}}, {{second, 3}}), VK_SUCCESS)
        << "this one waits in turn";
    ASSERT_EQ(signal(first, 1), VK_SUCCESS);
    EXPECT_EQ(buffers.left.size(), 2U);
    for (VkQueue each : {queue, other})
        app->vk.QueueWaitIdle(each);
    for (VkSemaphore each : {first, second})
        app->vk.DestroySemaphore(app->device, each, nullptr);
}

TEST_F(LayerBridgeTest, AValueThatIsOnItsWayDefersNothing) {
    begin();
    import();
    VkSemaphore timeline = app->timeline();
    ASSERT_EQ(app->submit(queue, {}, {{timeline, 2}}), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {{timeline, 2}}, {}), VK_SUCCESS);
    EXPECT_EQ(buffers.left.size(), 2U);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerBridgeTest, BatchesOfOneSubmissionMayWaitForEachOther) {
    begin();
    import();
    VkSemaphore timeline = app->timeline();
    const VkSemaphoreSubmitInfo at{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                   .semaphore = timeline,
                                   .value = 1,
                                   .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    const std::array infos{VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                         .signalSemaphoreInfoCount = 1,
                                         .pSignalSemaphoreInfos = &at},
                           VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                         .waitSemaphoreInfoCount = 1,
                                         .pWaitSemaphoreInfos = &at}};
    icd->finishes_at_once = false;
    ASSERT_EQ(app->vk.QueueSubmit2(queue, infos.size(), infos.data(), VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_EQ(buffers.left.size(), 1U);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerBridgeTest, QueuesMayWaitForBatchesOfEachOther) {
    begin();
    import();
    VkQueue other = app->queue(0, 1);
    VkSemaphore first = app->timeline(), second = app->timeline();
    const auto at = [](VkSemaphore semaphore) {
        return VkSemaphoreSubmitInfo{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                                     .semaphore = semaphore,
                                     .value = 1,
                                     .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT};
    };
    const auto of_first = at(first), of_second = at(second);
    const std::array infos{VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                         .signalSemaphoreInfoCount = 1,
                                         .pSignalSemaphoreInfos = &of_first},
                           VkSubmitInfo2{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
                                         .waitSemaphoreInfoCount = 1,
                                         .pWaitSemaphoreInfos = &of_second}};
    icd->finishes_at_once = false;
    ASSERT_EQ(app->vk.QueueSubmit2(queue, infos.size(), infos.data(), VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_TRUE(buffers.left.empty());
    ASSERT_EQ(app->submit(other, {{first, 1}}, {{second, 1}}), VK_SUCCESS);
    EXPECT_EQ(buffers.left.size(), 2U);
    for (VkQueue each : {queue, other})
        app->vk.QueueWaitIdle(each);
    for (VkSemaphore each : {first, second})
        app->vk.DestroySemaphore(app->device, each, nullptr);
}

TEST_F(LayerBridgeTest, ATimelineThatIsGoneHoldsNobody) {
    begin();
    import();
    VkSemaphore timeline = app->timeline(), last = app->timeline();
    ASSERT_EQ(app->submit(queue, {{timeline, 5}}, {}), VK_SUCCESS);
    EXPECT_TRUE(buffers.left.empty());
    // Somebody who is not known has signalled it, and so it may go.
    ASSERT_EQ(icd_signal(timeline, 5), VK_SUCCESS);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
    ASSERT_EQ(signal(last, 1), VK_SUCCESS);
    EXPECT_EQ(buffers.left.size(), 1U);
    app->vk.DestroySemaphore(app->device, last, nullptr);
}

TEST(LayerTimelinesTest, AHandleThatIsAnothersByNowIsNotTakenForIt) {
    layer::Timelines timelines(VK_NULL_HANDLE, nullptr);
    const VkSemaphoreTypeCreateInfo type{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                         .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    const VkSemaphoreCreateInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                     .pNext = &type};
    int place = 0;
    auto* const handle = reinterpret_cast<VkSemaphore>(&place);
    timelines.created(handle, info);
    const auto wait = timelines.wait_of({.semaphore = handle, .value = 5});
    EXPECT_FALSE(timelines.is_on_its_way(wait));
    timelines.destroyed(handle);
    timelines.created(handle, info);
    EXPECT_TRUE(timelines.is_on_its_way(wait));
    EXPECT_FALSE(timelines.is_on_its_way(timelines.wait_of({.semaphore = handle, .value = 1})));
}

// ---- Threads ------------------------------------------------------------------------------------

TEST_F(LayerBridgeTest, NoLockIsHeldAcrossTheDriver) {
    begin();
    const SharedBuffer buffer = import();
    VkSemaphore timeline = app->timeline(), others = app->timeline();
    VkQueue other = app->queue(0, 1);
    // While the driver is in any call, another thread does all that needs our locks, but for
    // submitting with the same buffer.
    std::uint64_t value = 0;
    std::map<std::string, int, std::less<>> met;
    std::atomic<bool> inside = false;
    icd->on_call = [&](std::string_view function) {
        if (inside.exchange(true))
            return;
        if (++met[std::string(function)] > 3) { // who signals has another look for what is ready
            inside = false;
            return;
        }
        std::thread([&] {
            VkDeviceMemory memory = VK_NULL_HANDLE;
            EXPECT_EQ(app->import_memory(memfd(4096).release(), 4096, memory), VK_SUCCESS);
            VkBuffer made = make_buffer();
            EXPECT_EQ(app->vk.BindBufferMemory(app->device, made, memory, 0), VK_SUCCESS);
            VkCommandPool own_pool = app->command_pool();
            VkCommandBuffer commands = app->begin(own_pool);
            record_barrier(commands, made, true, VK_ACCESS_TRANSFER_READ_BIT);
            EXPECT_EQ(app->vk.EndCommandBuffer(commands), VK_SUCCESS);
            EXPECT_EQ(app->queue(0, 1), other);
            EXPECT_EQ(signal(others, ++value), VK_SUCCESS);
            app->vk.DestroyCommandPool(app->device, own_pool, nullptr);
            app->vk.DestroyBuffer(app->device, made, nullptr);
            app->vk.FreeMemory(app->device, memory, nullptr);
        }).join();
        inside = false;
    };
    VkCommandBuffer commands =
        record(buffer.buffer, VK_ACCESS_TRANSFER_READ_BIT, VK_ACCESS_TRANSFER_WRITE_BIT);
    buffers.status[buffer.inode] = 0;
    ASSERT_EQ(app->submit(queue, {}, {}, {commands}), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}, {commands}), VK_SUCCESS);
    ASSERT_EQ(signal(timeline, 1), VK_SUCCESS);
    EXPECT_EQ(buffers.left.size(), 2U);
    signal_all();
    app->vk.QueueWaitIdle(queue);
    icd->on_call = nullptr;
    for (const char* each : {"vkImportSemaphoreFdKHR", "vkQueueSubmit2", "vkGetSemaphoreFdKHR",
                             "vkGetSemaphoreCounterValue", "vkSignalSemaphore", "vkCreateSemaphore",
                             "vkAllocateCommandBuffers", "vkCmdPipelineBarrier"})
        EXPECT_TRUE(met.contains(each)) << each;
    for (VkSemaphore each : {timeline, others})
        app->vk.DestroySemaphore(app->device, each, nullptr);
}

TEST_F(LayerBridgeTest, WhoSharesABufferComesBeforeOrAfter) {
    icd->keeps_submissions = false;
    begin();
    import();
    import();
    // Each submission asks all buffers, goes to the driver, and leaves its fence: nobody in
    // between.
    std::atomic<int> under_way = 0;
    std::atomic<bool> mixed = false;
    thread_local int asked = 0, left = 0;
    libc->ioctl = [&, others = libc->ioctl](int fd, unsigned long request, void* argument) {
        if (request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE && asked++ == 0 && under_way++ != 0)
            mixed = true;
        if (request == DMA_BUF_IOCTL_IMPORT_SYNC_FILE && ++left == 2) {
            asked = left = 0;
            --under_way;
        }
        return others(fd, request, argument);
    };
    const auto submit_often = [&](VkQueue to) {
        for (int i = 0; i < 200; ++i)
            EXPECT_EQ(app->submit(to, {}, {}), VK_SUCCESS);
    };
    // The caps of the kernel are asked for once.
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    asked = left = 0;
    under_way = 0;
    mixed = false;
    std::thread first([&] { submit_often(app->queue(0, 0)); });
    std::thread second([&] { submit_often(app->queue(0, 1)); });
    std::thread third([&] { submit_often(app->queue(1, 0)); });
    for (std::thread* each : {&first, &second, &third})
        each->join();
    EXPECT_FALSE(mixed);
    EXPECT_EQ(buffers.left.size(), 2U * 601);
}

TEST_F(LayerBridgeTest, ManyThreadsSubmitSignalImportAndFree) {
    icd->keeps_submissions = false;
    begin();
    import();
    VkSemaphore timeline = app->timeline();
    constexpr std::uint64_t rounds = 100;
    std::thread waits([&] {
        for (std::uint64_t i = 1; i <= rounds; ++i)
            EXPECT_EQ(app->submit(app->queue(0, 0), {{timeline, i}}, {}), VK_SUCCESS);
    });
    std::thread signals([&] {
        for (std::uint64_t i = 1; i <= rounds; ++i)
            EXPECT_EQ(signal(timeline, i), VK_SUCCESS);
    });
    std::thread comes_and_goes([&] {
        for (std::uint64_t i = 0; i < rounds; ++i) {
            VkDeviceMemory memory = VK_NULL_HANDLE;
            EXPECT_EQ(app->import_memory(memfd(4096).release(), 4096, memory), VK_SUCCESS);
            EXPECT_EQ(app->submit(app->queue(0, 1), {}, {}), VK_SUCCESS);
            app->vk.QueueWaitIdle(app->queue(0, 1));
            app->vk.FreeMemory(app->device, memory, nullptr);
        }
    });
    for (std::thread* each : {&waits, &signals, &comes_and_goes})
        each->join();
    app->vk.QueueWaitIdle(app->queue(0, 0));
    std::size_t of_the_first = 0;
    for (const auto& each : buffers.left)
        of_the_first += each.buffer == shared[0].inode ? 1U : 0U;
    EXPECT_EQ(of_the_first, 2 * rounds) << "none was forgotten";
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

// ---- Where we fail ------------------------------------------------------------------------------

TEST_F(LayerBridgeTest, WhereWeFailTheSubmissionGoesOn) {
    begin();
    buffers.status[import().inode] = 0;
    std::size_t submitted = 0;
    const auto goes_on = [&] {
        EXPECT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
        EXPECT_EQ(icd->submissions(queue).size(), ++submitted);
        signal_all();
        app->vk.QueueWaitIdle(queue);
        EXPECT_TRUE(icd->submissions(queue).back().finished);
    };
    icd->fail("vkCreateSemaphore", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    goes_on();
    EXPECT_EQ(batches_of_last(), 2U) << "without the wait";
    for (const bool closes : {false, true}) {
        icd->failed_import_closes = closes;
        icd->fail("vkImportSemaphoreFdKHR", VK_ERROR_INVALID_EXTERNAL_HANDLE);
        goes_on();
        EXPECT_EQ(batches_of_last(), 2U) << "without the wait";
    }
    icd->fail("vkGetSemaphoreFdKHR", VK_ERROR_TOO_MANY_OBJECTS);
    goes_on();
    buffers.export_error = EIO;
    goes_on();
    EXPECT_EQ(batches_of_last(), 2U);
    buffers.export_error = 0;
    buffers.import_error = EIO;
    goes_on();
    buffers.import_error = 0;
    icd->fail("vkQueueSubmit2", VK_ERROR_OUT_OF_HOST_MEMORY);
    goes_on();
    EXPECT_EQ(batches_of_last(), 1U) << "without what we have added";
    icd->fail("vkQueueSubmit2", VK_ERROR_OUT_OF_DEVICE_MEMORY, 1);
    icd->fail("vkQueueSubmit2", VK_ERROR_OUT_OF_DEVICE_MEMORY, 2);
    EXPECT_EQ(app->submit(queue, {}, {}), VK_ERROR_OUT_OF_DEVICE_MEMORY)
        << "it is the application's";
    const std::size_t left = buffers.left.size();
    goes_on();
    EXPECT_EQ(batches_of_last(), 3U);
    EXPECT_EQ(buffers.left.size(), left + 1) << "all is well again";
}

TEST_F(LayerBridgeTest, WhatCannotBeMergedIsWaitedForOnTheCpu) {
    begin();
    for (int i = 0; i < 2; ++i)
        buffers.status[import().inode] = 0;
    merge_error = ENOMEM;
    std::set<ino_t> waited_for;
    libc->ppoll = [&, others = libc->ppoll](pollfd* fds, nfds_t count, const timespec* timeout) {
        if (count == 1 && timeout != nullptr && timeout->tv_sec > 0) {
            waited_for.insert(inode_of(fds->fd));
            EXPECT_TRUE(write_fake_status(fds->fd, 1));
        }
        return others(fds, count, timeout);
    };
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_EQ(batches_of_last(), 2U) << "without a wait of the GPU's";
    EXPECT_EQ(waited_for, std::set<ino_t>(buffers.given.begin(), buffers.given.end()));
    EXPECT_EQ(buffers.left.size(), 2U);
}

TEST_F(LayerBridgeTest, WithoutASemaphoreToSignalItWaitsAllTheSame) {
    begin();
    buffers.status[import().inode] = 0;
    icd->fail("vkCreateSemaphore", VK_ERROR_OUT_OF_DEVICE_MEMORY, 2);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_EQ(batches_of_last(), 2U);
    EXPECT_EQ(icd->submissions(queue)[0].batches[0].waits.size(), 1U);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_EQ(batches_of_last(), 3U);
    signal_all();
}

TEST_F(LayerBridgeTest, ADmaBufThatCannotBeLookedAtIsTold) {
    const UniqueFd file = memfd(0);
    set("LOG_FILE", "/proc/self/fd/" + std::to_string(file.get()));
    begin();
    libc->fcntl = [](int fd, int command, long argument) {
        if (command == F_DUPFD_CLOEXEC) {
            errno = EMFILE;
            return -1;
        }
        return ScriptedLibc::real_fcntl(fd, command, argument);
    };
    import();
    libc->fcntl = nullptr;
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_TRUE(buffers.asked.empty());
    std::string text(4096, '\0');
    text.resize(static_cast<std::size_t>(pread(file.get(), text.data(), text.size(), 0)));
    EXPECT_NE(text.find("EMFILE"), std::string::npos) << text;
    end();
    set("LOG_FILE", "");
    begin(); // the file is closed
}

TEST_F(LayerBridgeTest, ADeviceGoesWhenItsWorkIsDoneNotOursYet) {
    begin();
    import();
    icd->finishes_at_once = false;
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    // The application knows that its own batch is done, and its objects go.
    app->vk.DestroyBuffer(app->device, shared[0].buffer, nullptr);
    app->vk.FreeMemory(app->device, shared[0].memory, nullptr);
    shared.clear();
    app.reset(); // the driver complains of semaphores that are in use
}

TEST_F(LayerBridgeTest, ADriverThatNeverGivesAFenceIsNotAskedForEver) {
    begin();
    import();
    for (int i = 0; i < 100; ++i) {
        icd->fail("vkGetSemaphoreFdKHR", VK_ERROR_TOO_MANY_OBJECTS);
        ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
        app->vk.QueueWaitIdle(queue);
    }
    EXPECT_LE(icd->calls("vkCreateSemaphore"), 66);
    EXPECT_EQ(icd->submissions(queue).size(), 100U);
}

TEST_F(LayerBridgeTest, WithoutMemoryTheSubmissionGoesOn) {
    const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO};
    int failures = 0;
    // Every allocation of ours, one after the other, from the device's first use on.
    for (int nth = 1;; ++nth) {
        begin();
        buffers.status[import().inode] = 0;
        import();
        VkCommandBuffer commands = begin_commands();
        icd->on_call = [](std::string_view) { exempt_allocations(true); };
        icd->on_return = [](std::string_view) { exempt_allocations(false); };
        libc->ioctl = [others = libc->ioctl](int fd, unsigned long request, void* argument) {
            exempt_allocations(true);
            const int result = others(fd, request, argument);
            exempt_allocations(false);
            return result;
        };
        fail_allocation(nth);
        record_barrier(commands, shared[1].buffer, true, VK_ACCESS_TRANSFER_READ_BIT);
        const VkResult result = app->vk.QueueSubmit(queue, 1, &info, VK_NULL_HANDLE);
        const bool failed = !fail_allocation(0);
        icd->on_call = icd->on_return = nullptr;
        EXPECT_EQ(result, VK_SUCCESS);
        EXPECT_EQ(app->vk.EndCommandBuffer(commands), VK_SUCCESS);
        signal_all();
        end();
        if (!failed)
            break;
        ++failures;
    }
    EXPECT_GE(failures, 3);
}

// ---- On the CPU ---------------------------------------------------------------------------------

class LayerCpuSyncTest : public LayerBridgeTest {
protected:
    void SetUp() override {
        LayerBridgeTest::SetUp();
        icd->physical_devices[0].semaphore_features = 0;
        libc->ppoll = [this, others = libc->ppoll](pollfd* fds, nfds_t count,
                                                   const timespec* timeout) {
            if (count == 1 && inode_of(fds->fd) == waited_for)
                happened.emplace_back("poll");
            return others(fds, count, timeout);
        };
        icd->on_call = [this](std::string_view function) {
            if (function == "vkQueueSubmit" || function == "vkQueueSubmit2" ||
                function == "vkWaitForFences")
                happened.emplace_back(function);
        };
    }
    ino_t waited_for = 0;
    std::vector<std::string> happened;
};

TEST_F(LayerCpuSyncTest, WithoutSyncFdsNothingIsDoneUnlessItIsAskedFor) {
    begin();
    waited_for = import().inode;
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_EQ(happened, std::vector<std::string>{"vkQueueSubmit2"});
    EXPECT_EQ(batches_of_last(), 1U);
}

TEST_F(LayerCpuSyncTest, BuffersAndSubmissionAreWaitedFor) {
    set("SYNC_ON_CPU", "true");
    begin();
    waited_for = import().inode;
    for (int i = 0; i < 3; ++i) {
        happened.clear();
        ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
        EXPECT_EQ(happened, (std::vector<std::string>{"poll", "vkQueueSubmit2", "vkQueueSubmit",
                                                      "vkWaitForFences"}));
        EXPECT_TRUE(icd->submissions(queue).front().finished);
    }
    EXPECT_EQ(icd->calls("vkCreateFence"), 1);
    EXPECT_TRUE(buffers.left.empty()) << "there is nothing left to wait for";
}

TEST_F(LayerCpuSyncTest, AKernelWithoutFencesInBuffersIsTheSame) {
    icd->physical_devices[0].semaphore_features =
        VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT;
    buffers.export_error = buffers.import_error = ENOTTY;
    set("SYNC_ON_CPU", "true");
    begin();
    waited_for = import().inode;
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    EXPECT_EQ(happened, (std::vector<std::string>{"poll", "vkQueueSubmit2", "vkQueueSubmit",
                                                  "vkWaitForFences"}));
}

TEST_F(LayerCpuSyncTest, WhatWaitsForAValueToComeIsNotWaitedFor) {
    set("SYNC_ON_CPU", "true");
    begin();
    waited_for = import().inode;
    VkSemaphore timeline = app->timeline();
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}), VK_SUCCESS);
    EXPECT_EQ(happened, (std::vector<std::string>{"poll", "vkQueueSubmit2"}));
    ASSERT_EQ(signal(timeline, 1), VK_SUCCESS);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
}

TEST_F(LayerCpuSyncTest, WhereWeFailTheSubmissionGoesOn) {
    set("SYNC_ON_CPU", "true");
    begin();
    waited_for = import().inode;
    icd->fail("vkCreateFence", VK_ERROR_OUT_OF_HOST_MEMORY);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    icd->fail("vkQueueSubmit", VK_ERROR_OUT_OF_HOST_MEMORY);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    icd->fail("vkWaitForFences", VK_TIMEOUT);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS) << "with another fence";
    EXPECT_EQ(icd->calls("vkCreateFence"), 3);
}

// ---- Functions ----------------------------------------------------------------------------------

/// A layer below that has a vkQueueSubmit2 for everybody, which does nothing: as the Khronos
/// validation layer does for applications of an older Vulkan, who may not call it.
struct Stubs {
    static inline int called = 0;

    static VkResult VKAPI_CALL negotiate(VkNegotiateLayerInterface* with) {
        called = 0;
        with->loaderLayerInterfaceVersion = 2;
        with->pfnGetInstanceProcAddr = get_instance;
        with->pfnGetDeviceProcAddr = get_device;
        with->pfnGetPhysicalDeviceProcAddr = nullptr;
        return VK_SUCCESS;
    }

private:
    static inline PFN_vkGetInstanceProcAddr next_instance = nullptr;
    static inline PFN_vkGetDeviceProcAddr next_device = nullptr;
    static inline VkInstance instance_ = VK_NULL_HANDLE;

    template <typename T> static T* link_of(const void* next, VkStructureType type) {
        for (auto* each = static_cast<const VkBaseInStructure*>(next); each; each = each->pNext)
            if (each->sType == type &&
                reinterpret_cast<const T*>(each)->function == VK_LAYER_LINK_INFO)
                return const_cast<T*>(reinterpret_cast<const T*>(each)); // the loader's own
        return nullptr;
    }
    static VkResult VKAPI_CALL CreateInstance(const VkInstanceCreateInfo* info,
                                              const VkAllocationCallbacks* allocator,
                                              VkInstance* instance) {
        auto* link = link_of<VkLayerInstanceCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
        next_instance = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
        link->u.pLayerInfo = link->u.pLayerInfo->pNext;
        const VkResult result = reinterpret_cast<PFN_vkCreateInstance>(
            next_instance(VK_NULL_HANDLE, "vkCreateInstance"))(info, allocator, instance);
        instance_ = *instance;
        return result;
    }
    static VkResult VKAPI_CALL CreateDevice(VkPhysicalDevice on, const VkDeviceCreateInfo* info,
                                            const VkAllocationCallbacks* allocator,
                                            VkDevice* device) {
        auto* link = link_of<VkLayerDeviceCreateInfo>(info->pNext,
                                                      VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
        next_device = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
        const auto create = reinterpret_cast<PFN_vkCreateDevice>(
            link->u.pLayerInfo->pfnNextGetInstanceProcAddr(instance_, "vkCreateDevice"));
        link->u.pLayerInfo = link->u.pLayerInfo->pNext;
        return create(on, info, allocator, device);
    }
    static VkResult VKAPI_CALL submit(VkQueue, std::uint32_t, const VkSubmitInfo2*, VkFence) {
        ++called;
        return VK_SUCCESS;
    }
    static PFN_vkVoidFunction VKAPI_CALL get_instance(VkInstance instance, const char* name) {
        const std::string_view which = name;
        if (which == "vkCreateInstance")
            return reinterpret_cast<PFN_vkVoidFunction>(CreateInstance);
        if (which == "vkCreateDevice")
            return reinterpret_cast<PFN_vkVoidFunction>(CreateDevice);
        if (which == "vkGetInstanceProcAddr")
            return reinterpret_cast<PFN_vkVoidFunction>(get_instance);
        if (which == "vkGetDeviceProcAddr")
            return reinterpret_cast<PFN_vkVoidFunction>(get_device);
        return next_instance(instance, name);
    }
    static PFN_vkVoidFunction VKAPI_CALL get_device(VkDevice device, const char* name) {
        const std::string_view which = name;
        if (which == "vkGetDeviceProcAddr")
            return reinterpret_cast<PFN_vkVoidFunction>(get_device);
        if (which == "vkQueueSubmit2")
            return reinterpret_cast<PFN_vkVoidFunction>(submit);
        return next_device(device, name);
    }
};

TEST_F(LayerBridgeTest, TheFunctionThatTheApplicationCallsIsTheOneThatIsCalled) {
    loader.reset();
    loader.emplace(*icd, std::vector{&vkNegotiateLoaderLayerInterfaceVersion, &Stubs::negotiate},
                   fail_the_test);
    loader->layers_may_add = {"vkSetSelfBracketingSLUICE", "vkQueueSubmit2"};
    begin();
    import();
    const VkSubmitInfo2 info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2};
    ASSERT_EQ(app->vk.QueueSubmit2KHR(queue, 1, &info, VK_NULL_HANDLE), VK_SUCCESS);
    EXPECT_EQ(icd->submissions(queue).size(), 1U);
    EXPECT_EQ(Stubs::called, 0);
    EXPECT_EQ(buffers.left.size(), 1U);
}

TEST_F(LayerBridgeTest, ACommandBufferKeepsNoBuffer) {
    begin();
    pool = app->command_pool();
    const auto before = open_fds();
    const SharedBuffer buffer = import();
    VkCommandBuffer commands = record(buffer.buffer, VK_ACCESS_TRANSFER_READ_BIT, 0);
    app->vk.DestroyBuffer(app->device, buffer.buffer, nullptr);
    app->vk.FreeMemory(app->device, buffer.memory, nullptr);
    shared.clear();
    EXPECT_EQ(open_fds(), before);
    app->vk.FreeCommandBuffers(app->device, pool, 1, &commands);
}

// ---- Devices ------------------------------------------------------------------------------------

class LayerDeviceTest : public LayerBridgeTest {
protected:
    /// A device with \p extensions alone, destroyed again.
    VkResult create_device(const std::vector<const char*>& extensions,
                           PFN_vkVoidFunction* submit = nullptr) {
        const float priority = 1;
        const VkDeviceQueueCreateInfo queues{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                             .queueCount = 1,
                                             .pQueuePriorities = &priority};
        const VkDeviceCreateInfo info{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                      .queueCreateInfoCount = 1,
                                      .pQueueCreateInfos = &queues,
                                      .enabledExtensionCount =
                                          static_cast<std::uint32_t>(extensions.size()),
                                      .ppEnabledExtensionNames = extensions.data()};
        VkDevice made = VK_NULL_HANDLE;
        const VkResult result =
            app->of_instance.CreateDevice(app->physical_device, &info, nullptr, &made);
        if (result == VK_SUCCESS && submit != nullptr)
            *submit = HandLoader::get_device_proc_addr(made, "vkQueueSubmit");
        if (result == VK_SUCCESS)
            reinterpret_cast<PFN_vkDestroyDevice>(
                HandLoader::get_device_proc_addr(made, "vkDestroyDevice"))(made, nullptr);
        return result;
    }
};

TEST_F(LayerDeviceTest, WhoImportsMemoryGetsTheExtensionThatFencesNeed) {
    begin();
    ASSERT_EQ(create_device({VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME}), VK_SUCCESS);
    EXPECT_EQ(icd->created_devices().back().extensions,
              (std::vector<std::string>{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                        VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME}));
    ASSERT_EQ(create_device({}), VK_SUCCESS);
    EXPECT_TRUE(icd->created_devices().back().extensions.empty());
}

TEST_F(LayerDeviceTest, ADriverThatDoesNotOfferItIsNotAskedForIt) {
    icd->lacks = {VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME};
    begin();
    ASSERT_EQ(create_device({VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME}), VK_SUCCESS);
    EXPECT_EQ(icd->created_devices().back().extensions,
              (std::vector<std::string>{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME}));
}

TEST_F(LayerDeviceTest, ADeviceThatFailsWithItIsTriedWithoutIt) {
    begin();
    icd->fail("vkCreateDevice", VK_ERROR_EXTENSION_NOT_PRESENT);
    ASSERT_EQ(create_device({VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME}), VK_SUCCESS);
    EXPECT_EQ(icd->created_devices().back().extensions,
              (std::vector<std::string>{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME}));
    icd->fail("vkCreateDevice", VK_ERROR_TOO_MANY_OBJECTS);
    EXPECT_EQ(create_device({}), VK_ERROR_TOO_MANY_OBJECTS) << "which is not ours";
}

TEST_F(LayerDeviceTest, WhoCannotShareMemoryGoesPastUs) {
    begin();
    const auto below = FakeIcd::get_instance_proc_addr(app->instance, "vkQueueSubmit");
    PFN_vkVoidFunction submit = nullptr;
    ASSERT_EQ(create_device({}, &submit), VK_SUCCESS);
    EXPECT_EQ(submit, below);
    ASSERT_EQ(create_device({VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME}, &submit), VK_SUCCESS);
    EXPECT_NE(submit, below);
}

TEST_F(LayerDeviceTest, ADeviceIsAskedOnlyWhatItsVersionHas) {
    icd->physical_devices[0].api_version = VK_API_VERSION_1_0;
    begin();
    ASSERT_EQ(create_device({VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME}), VK_SUCCESS);
    EXPECT_EQ(icd->calls("vkGetPhysicalDeviceExternalSemaphoreProperties"), 0);
    EXPECT_EQ(icd->created_devices().back().extensions,
              (std::vector<std::string>{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                        VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME,
                                        VK_KHR_EXTERNAL_SEMAPHORE_EXTENSION_NAME}))
        << "with what the one that fences need asks for there";
}

TEST_F(LayerDeviceTest, ManyDevicesComeAndGo) {
    begin();
    for (int i = 0; i < 600; ++i) // more than there is room for at a time
        ASSERT_EQ(create_device({}), VK_SUCCESS);
}

// ---- The log ------------------------------------------------------------------------------------

class LayerLogTest : public LayerBridgeTest {
protected:
    void SetUp() override {
        LayerBridgeTest::SetUp();
        icd->physical_devices[0].semaphore_features = 0; // something to tell of
    }
    static std::string read(int fd) {
        std::string text(65536, '\0');
        const ssize_t got = pread(fd, text.data(), text.size(), 0);
        text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
        return text;
    }
};

TEST_F(LayerLogTest, GoesToTheFileAsFarAsItIsAskedFor) {
    const UniqueFd file = memfd(0);
    for (const auto& [level, told, talks] : {std::tuple("off", false, false),
                                             {"error", false, false},
                                             {"warn", true, false},
                                             {"info", true, true}}) {
        SCOPED_TRACE(level);
        ASSERT_EQ(ftruncate(file.get(), 0), 0);
        set("LOG", level);
        set("LOG_FILE", "/proc/self/fd/" + std::to_string(file.get()));
        begin();
        import();
        for (int i = 0; i < 3; ++i)
            ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
        end();
        const std::string text = read(file.get());
        const std::string warning = "warning: the driver has no semaphores of SYNC_FD";
        const std::size_t at = text.find(warning);
        EXPECT_EQ(at != std::string::npos, told) << text;
        EXPECT_TRUE(!told || text.find(warning, at + 1) == std::string::npos) << "once: " << text;
        EXPECT_EQ(text.find("Fake GPU") != std::string::npos, talks) << text;
    }
    set("LOG", "warn");
    set("LOG_FILE", "");
    begin(); // the file is closed
}

} // namespace
} // namespace sluice::test
