// SPDX-License-Identifier: MIT
// The layer over many submissions: what each does, and that nothing is left of any.
#include <cerrno>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <vulkan/vk_layer.h>

#include "layer/application.hpp"
#include "support/allocations.hpp"
#include "support/fake_vulkan.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

extern "C" VkResult vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* version);

namespace sluice::test {
namespace {

/// Buffers whose fences are counted and not kept.
class LayerLongRunTest : public FdTest {
protected:
    static constexpr std::size_t count = 3;

    void SetUp() override {
        FdTest::SetUp();
        libc.emplace();
        libc->memfds_are_dma_bufs();
        fake_sync_files(*libc);
        libc->ioctl = [this, others = libc->ioctl](int fd, unsigned long request, void* argument) {
            switch (request) {
            case DMA_BUF_IOCTL_EXPORT_SYNC_FILE: {
                auto& asked = *static_cast<dma_buf_export_sync_file*>(argument);
                if (asked.flags == 0) // whether the kernel has it
                    return refuse();
                ++exports;
                asked.fd = busy ? dup(pending.get()) : fake_sync_file(1).release();
                return asked.fd < 0 ? -1 : 0;
            }
            case DMA_BUF_IOCTL_IMPORT_SYNC_FILE:
                if (static_cast<dma_buf_import_sync_file*>(argument)->flags == 0)
                    return refuse();
                ++imports;
                return 0;
            case SYNC_IOC_MERGE: {
                ++merges;
                auto& asked = *static_cast<sync_merge_data*>(argument);
                asked.fence = dup(asked.fd2);
                return asked.fence < 0 ? -1 : 0;
            }
            default:
                return others(fd, request, argument);
            }
        };
        icd.emplace(fail_the_test);
        icd->keeps_submissions = false;
        loader.emplace(*icd, std::vector{&vkNegotiateLoaderLayerInterfaceVersion}, fail_the_test);
        app.emplace(HandLoader::get_instance_proc_addr);
        ASSERT_EQ(app->result, VK_SUCCESS);
        queue = app->queue();
    }
    void TearDown() override {
        pending = UniqueFd();
        app->vk.QueueWaitIdle(queue);
        for (VkDeviceMemory each : memories)
            app->vk.FreeMemory(app->device, each, nullptr);
        app.reset();
        loader.reset();
        icd.reset();
        libc.reset();
        FdTest::TearDown();
    }

    static int refuse() {
        errno = EINVAL;
        return -1;
    }
    /// A dma-buf, imported. \returns its inode.
    ino_t import() {
        UniqueFd buffer = memfd(4096);
        const ino_t inode = inode_of(buffer.get());
        VkDeviceMemory memory = VK_NULL_HANDLE;
        EXPECT_EQ(app->import_memory(buffer.release(), 4096, memory), VK_SUCCESS);
        memories.push_back(memory);
        return inode;
    }
    /// An application's empty batch, while others are at work with the buffers or not. They are
    /// done right after it.
    [[nodiscard]] VkResult submit(bool others_at_work) {
        busy = others_at_work;
        if (busy)
            pending = fake_sync_file(0);
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO};
        const VkResult result = app->vk.QueueSubmit(queue, 1, &info, VK_NULL_HANDLE);
        if (busy)
            (void)write_fake_status(pending.get(), 1);
        return result;
    }

    std::size_t exports = 0, imports = 0, merges = 0;
    bool busy = false;
    UniqueFd pending;
    std::optional<ScriptedLibc> libc;
    std::optional<FakeIcd> icd;
    std::optional<HandLoader> loader;
    std::optional<Application> app;
    VkQueue queue = VK_NULL_HANDLE;
    std::vector<VkDeviceMemory> memories;
};

TEST_F(LayerLongRunTest, NothingIsLeftOfManySubmissions) {
    constexpr int warm_up = 100, all = 20'000, in_flight = 4;
    for (std::size_t i = 0; i < count; ++i)
        import();
    std::size_t fds = 0;
    std::ptrdiff_t blocks = 0, bytes = 0;
    int semaphores = 0;
    for (int i = 1; i <= all; ++i) {
        ASSERT_EQ(submit(i % 2 == 0), VK_SUCCESS) << i;
        if (i % in_flight == 0) {
            ASSERT_EQ(app->vk.QueueWaitIdle(queue), VK_SUCCESS) << i;
        }
        if (i == warm_up) {
            fds = open_fds().size();
            blocks = live_allocations();
            bytes = live_bytes();
            semaphores = icd->calls("vkCreateSemaphore");
        }
    }
    EXPECT_EQ(open_fds().size(), fds);
    EXPECT_EQ(live_allocations(), blocks);
    EXPECT_EQ(live_bytes(), bytes);
    EXPECT_EQ(icd->calls("vkCreateSemaphore"), semaphores);
    EXPECT_EQ(icd->calls("vkQueueSubmit"), all);
    EXPECT_EQ(icd->calls("vkImportSemaphoreFdKHR"), all / 2) << "only where others are at work";
    EXPECT_EQ(icd->calls("vkGetSemaphoreFdKHR"), all);
    EXPECT_EQ(exports, all * count);
    EXPECT_EQ(imports, all * count);
    EXPECT_EQ(merges, all / 2 * (count - 1));
}

// The submission is over, and may have been the queue's last.
TEST_F(LayerLongRunTest, ABufferIsLetGoWithItsMemory) {
    const ino_t inode = import();
    ASSERT_EQ(submit(false), VK_SUCCESS);
    ASSERT_EQ(app->vk.QueueWaitIdle(queue), VK_SUCCESS);
    app->vk.FreeMemory(app->device, memories.back(), nullptr);
    memories.pop_back();
    for (const auto& [fd, target] : open_fds())
        EXPECT_NE(inode_of(std::stoi(fd)), inode) << "fd " << fd << " still is the buffer's";
}

} // namespace
} // namespace sluice::test
