// SPDX-License-Identifier: MIT
#include "layer/fake_icd.hpp"

#include <atomic>
#include <cstdlib>
#include <optional>
#include <thread>

#include <dlfcn.h>
#include <vulkan/vk_icd.h>

#include "layer/application.hpp"
#include "support/fake_sync_file.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice::test {
namespace {

constexpr auto sync_fd = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT;

/// An application on the bare driver, whose complaints are looked at.
struct FakeIcdTest : FdTest {
    void TearDown() override {
        application.reset();
        icd.reset();
        EXPECT_EQ(complaints.take(), "");
        FdTest::TearDown();
    }
    void expect_complaint(const char* part) {
        const std::string all = complaints.take();
        EXPECT_NE(all.find(part), std::string::npos) << "'" << part << "' is not in: " << all;
    }

    Complaints complaints;
    std::optional<FakeIcd> icd{std::in_place, complaints.taker()};
    std::optional<Application> application{std::in_place, FakeIcd::get_instance_proc_addr};
    Application& app = *application;
    const DeviceFunctions& vk = app.vk;
    VkDevice device = app.device;
    VkQueue queue = app.queue();
};

TEST_F(FakeIcdTest, DispatchableHandlesHaveTheLoadersMagic) {
    EXPECT_TRUE(valid_loader_magic_value(app.instance));
    EXPECT_TRUE(valid_loader_magic_value(app.physical_device));
    EXPECT_TRUE(valid_loader_magic_value(device));
    EXPECT_TRUE(valid_loader_magic_value(queue));
    VkCommandPool pool = app.command_pool();
    VkCommandBuffer commands = app.begin(pool);
    EXPECT_TRUE(valid_loader_magic_value(commands));
    vk.DestroyCommandPool(device, pool, nullptr);
}

TEST_F(FakeIcdTest, EveryFunctionIsThereForWhoAsksForEverything) {
    const auto get = reinterpret_cast<PFN_vkGetDeviceProcAddr>(
        FakeIcd::get_instance_proc_addr(app.instance, "vkGetDeviceProcAddr"));
    for (const std::string& name : FakeIcd::instance_functions())
        EXPECT_NE(FakeIcd::get_instance_proc_addr(app.instance, name.c_str()), nullptr) << name;
    for (const std::string& name : FakeIcd::device_functions())
        EXPECT_NE(get(device, name.c_str()), nullptr) << name;
    EXPECT_EQ(get(device, "vkCreateInstance"), nullptr);
    EXPECT_EQ(get(device, "vkCreateSwapchainKHR"), nullptr);
    EXPECT_EQ(FakeIcd::get_instance_proc_addr(VK_NULL_HANDLE, "vkCreateDevice"), nullptr);
}

TEST_F(FakeIcdTest, AFunctionThatIsLackedOrOfAnotherVersionIsNotThere) {
    application.reset();
    icd->lacks = {VK_KHR_SYNCHRONIZATION_2_EXTENSION_NAME, "vkGetMemoryFdKHR"};
    application.emplace(FakeIcd::get_instance_proc_addr, VK_API_VERSION_1_2);
    EXPECT_EQ(application->vk.QueueSubmit2, nullptr);
    EXPECT_EQ(application->vk.QueueSubmit2KHR, nullptr);
    EXPECT_EQ(application->vk.GetMemoryFdKHR, nullptr);
    EXPECT_NE(application->vk.WaitSemaphores, nullptr);
    EXPECT_NE(application->vk.GetMemoryFdPropertiesKHR, nullptr);
    const auto requests = icd->created_devices();
    EXPECT_EQ(requests.back().extensions.size(), FakeIcd::all_extensions().size() - 1);
}

TEST_F(FakeIcdTest, ACallFailsWhenTheScriptSaysSo) {
    icd->fail("vkCreateFence", VK_ERROR_OUT_OF_HOST_MEMORY, 2);
    VkFence fence = app.fence();
    const VkFenceCreateInfo info{.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VkFence second = VK_NULL_HANDLE;
    EXPECT_EQ(vk.CreateFence(device, &info, nullptr, &second), VK_ERROR_OUT_OF_HOST_MEMORY);
    EXPECT_EQ(second, VkFence{VK_NULL_HANDLE});
    EXPECT_EQ(vk.CreateFence(device, &info, nullptr, &second), VK_SUCCESS);
    EXPECT_EQ(icd->calls("vkCreateFence"), 3);
    EXPECT_EQ(icd->living().count("fence"), 2U);
    vk.DestroyFence(device, fence, nullptr);
    vk.DestroyFence(device, second, nullptr);
}

TEST_F(FakeIcdTest, AnImportTakesTheFdOverAndAnExportIsTheSameBuffer) {
    UniqueFd buffer = memfd(8192);
    const ino_t inode = inode_of(buffer.get());
    VkDeviceMemory memory = VK_NULL_HANDLE;
    icd->fail("vkAllocateMemory", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    EXPECT_NE(app.import_memory(buffer.get(), 8192, memory), VK_SUCCESS);
    EXPECT_EQ(inode_of(buffer.get()), inode) << "a failed import leaves the fd";
    ASSERT_EQ(app.import_memory(buffer.release(), 8192, memory), VK_SUCCESS);
    ASSERT_EQ(icd->allocations().size(), 1U);
    EXPECT_EQ(icd->allocations()[0].imported, inode);

    void* at = nullptr;
    ASSERT_EQ(vk.MapMemory(device, memory, 4096, VK_WHOLE_SIZE, 0, &at), VK_SUCCESS);
    *static_cast<int*>(at) = 7;
    vk.UnmapMemory(device, memory);
    vk.FreeMemory(device, memory, nullptr);

    const VkExportMemoryAllocateInfo types{.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                           .handleTypes =
                                               VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkMemoryAllocateInfo info{
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &types, .allocationSize = 4096};
    ASSERT_EQ(vk.AllocateMemory(device, &info, nullptr, &memory), VK_SUCCESS);
    const VkMemoryGetFdInfoKHR which{.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                     .memory = memory,
                                     .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    int first = -1;
    int second = -1;
    ASSERT_EQ(vk.GetMemoryFdKHR(device, &which, &first), VK_SUCCESS);
    ASSERT_EQ(vk.GetMemoryFdKHR(device, &which, &second), VK_SUCCESS);
    EXPECT_NE(first, second);
    EXPECT_EQ(inode_of(first), inode_of(second));
    EXPECT_NE(inode_of(first), 0U);
    close(first);
    close(second);
    vk.FreeMemory(device, memory, nullptr);
}

TEST_F(FakeIcdTest, AnExportedFenceSignalsWhenTheWorkEnds) {
    icd->finishes_at_once = false;
    VkSemaphore semaphore = app.semaphore(sync_fd);
    VkFence fence = app.fence();
    ASSERT_EQ(app.submit(queue, {}, {{semaphore}}, {}, fence), VK_SUCCESS);
    int fd = -1;
    ASSERT_EQ(app.export_fence(semaphore, fd), VK_SUCCESS);
    EXPECT_EQ(read_fake_status(fd), 0);
    EXPECT_EQ(vk.GetFenceStatus(device, fence), VK_NOT_READY);
    EXPECT_EQ(icd->submissions(queue).at(0).batches.at(0).signals.at(0).sync_file, inode_of(fd));

    EXPECT_EQ(icd->finish(), 1U);
    EXPECT_EQ(read_fake_status(fd), 1);
    EXPECT_EQ(vk.GetFenceStatus(device, fence), VK_SUCCESS);
    EXPECT_TRUE(icd->submissions().at(0).finished);
    close(fd);

    // Signalled again, and done before it is exported.
    icd->finishes_at_once = true;
    ASSERT_EQ(app.submit(queue, {}, {{semaphore}}), VK_SUCCESS);
    ASSERT_EQ(app.export_fence(semaphore, fd), VK_SUCCESS);
    EXPECT_EQ(read_fake_status(fd), 1);
    close(fd);
    icd->signalled_exports_minus_one = true;
    ASSERT_EQ(app.submit(queue, {}, {{semaphore}}), VK_SUCCESS);
    ASSERT_EQ(app.export_fence(semaphore, fd), VK_SUCCESS);
    EXPECT_EQ(fd, -1);
    vk.DestroySemaphore(device, semaphore, nullptr);
    vk.DestroyFence(device, fence, nullptr);
}

TEST_F(FakeIcdTest, WorkWaitsForTheFenceThatWasImported) {
    VkSemaphore semaphore = app.semaphore();
    UniqueFd fence(memfd_create("fence", MFD_CLOEXEC));
    UniqueFd mine(dup(fence.get()));
    ASSERT_TRUE(write_fake_status(mine.get(), 0));
    ASSERT_EQ(app.import_fence(semaphore, fence.release()), VK_SUCCESS);
    ASSERT_EQ(app.submit(queue, {{semaphore}}, {}), VK_SUCCESS);
    EXPECT_EQ(icd->submissions().at(0).batches.at(0).waits.at(0).sync_file, inode_of(mine.get()));
    EXPECT_FALSE(icd->submissions().at(0).finished) << "what it waits for has not signalled";
    EXPECT_EQ(icd->finish(), 0U);
    ASSERT_TRUE(write_fake_status(mine.get(), 1));
    EXPECT_EQ(vk.QueueWaitIdle(queue), VK_SUCCESS);

    EXPECT_EQ(app.submit(queue, {{semaphore}}, {}), VK_SUCCESS);
    expect_complaint("nothing will ever signal");
    vk.DestroySemaphore(device, semaphore, nullptr);
}

TEST_F(FakeIcdTest, TheOldestSubmissionsEndFirst) {
    icd->finishes_at_once = false;
    VkQueue other = app.queue(1);
    for (VkQueue each : {queue, queue, other})
        ASSERT_EQ(app.submit(each, {}, {}), VK_SUCCESS);
    EXPECT_EQ(icd->finish(2), 2U);
    EXPECT_TRUE(icd->submissions(queue).at(1).finished);
    EXPECT_FALSE(icd->submissions(other).at(0).finished);
    EXPECT_EQ(vk.DeviceWaitIdle(device), VK_SUCCESS);
    EXPECT_TRUE(icd->submissions(other).at(0).finished);
}

TEST_F(FakeIcdTest, WorkWaitsForValuesThatComeLater) {
    VkSemaphore timeline = app.timeline();
    VkSemaphore binary = app.semaphore(sync_fd);
    ASSERT_EQ(app.submit(queue, {{timeline, 5}}, {{binary}}), VK_SUCCESS);
    EXPECT_FALSE(icd->submissions().at(0).finished);
    int fd = -1;
    EXPECT_EQ(app.export_fence(binary, fd), VK_SUCCESS);
    expect_complaint("VUID 03254");
    EXPECT_EQ(read_fake_status(fd), 0);

    // Once the signal has been submitted, behind other work, it may.
    icd->finishes_at_once = false;
    VkSemaphore second = app.semaphore(sync_fd);
    VkQueue other = app.queue(0, 1);
    ASSERT_EQ(app.submit(queue, {}, {{second}}), VK_SUCCESS);
    ASSERT_EQ(app.submit(other, {}, {}), VK_SUCCESS);
    ASSERT_EQ(app.submit(other, {}, {{timeline, 5}}), VK_SUCCESS);
    int later = -1;
    EXPECT_EQ(app.export_fence(second, later), VK_SUCCESS);
    EXPECT_EQ(icd->finish(), 4U);
    EXPECT_EQ(read_fake_status(fd), 1);
    EXPECT_EQ(read_fake_status(later), 1);
    std::uint64_t value = 0;
    EXPECT_EQ(vk.GetSemaphoreCounterValue(device, timeline, &value), VK_SUCCESS);
    EXPECT_EQ(value, 5U);
    close(fd);
    close(later);
    for (VkSemaphore each : {timeline, binary, second})
        vk.DestroySemaphore(device, each, nullptr);
}

TEST_F(FakeIcdTest, TheHostSignalsValuesToo) {
    VkSemaphore timeline = app.timeline();
    ASSERT_EQ(app.submit(queue, {{timeline, 2}}, {{timeline, 3}}), VK_SUCCESS);
    const std::uint64_t wanted = 3;
    const VkSemaphoreWaitInfo wait{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                   .semaphoreCount = 1,
                                   .pSemaphores = &timeline,
                                   .pValues = &wanted};
    EXPECT_EQ(vk.WaitSemaphores(device, &wait, 1000), VK_TIMEOUT);
    std::thread other([&] {
        const VkSemaphoreSignalInfo info{
            .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = timeline, .value = 2};
        EXPECT_EQ(vk.SignalSemaphore(device, &info), VK_SUCCESS);
    });
    EXPECT_EQ(vk.WaitSemaphores(device, &wait, UINT64_MAX), VK_SUCCESS);
    other.join();

    // Nobody waits for this.
    ASSERT_EQ(app.submit(queue, {{timeline, 4}}, {}), VK_SUCCESS);
    EXPECT_FALSE(icd->submissions().at(1).finished);
    const VkSemaphoreSignalInfo info{
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = timeline, .value = 4};
    EXPECT_EQ(vk.SignalSemaphore(device, &info), VK_SUCCESS);
    EXPECT_TRUE(icd->submissions().at(1).finished);
    vk.DestroySemaphore(device, timeline, nullptr);
}

TEST_F(FakeIcdTest, ItComplainsOfWhatVulkanForbids) {
    VkSemaphore semaphore = app.semaphore(sync_fd);
    int fd = -1;
    EXPECT_NE(app.export_fence(semaphore, fd), VK_SUCCESS);
    expect_complaint("nothing will ever signal the semaphore");

    icd->finishes_at_once = false;
    VkFence fence = app.fence();
    ASSERT_EQ(app.submit(queue, {}, {{semaphore}}, {}, fence), VK_SUCCESS);
    ASSERT_EQ(app.submit(queue, {}, {{semaphore}}, {}, fence), VK_SUCCESS);
    expect_complaint("the fence was not reset");
    EXPECT_EQ(vk.ResetFences(device, 1, &fence), VK_SUCCESS);
    expect_complaint("the fence is in use");
    vk.DestroySemaphore(device, semaphore, nullptr);
    expect_complaint("the semaphore is in use");
    EXPECT_EQ(vk.DeviceWaitIdle(device), VK_SUCCESS);
    vk.DestroyFence(device, fence, nullptr);
    EXPECT_EQ(complaints.take(), "");
    vk.DestroyFence(device, fence, nullptr);
    expect_complaint("there is no living fence");

    const VkAllocationCallbacks allocator{};
    VkSemaphore mine = app.semaphore();
    vk.DestroySemaphore(device, mine, &allocator);
    expect_complaint("another allocator");

    VkCommandPool pool = app.command_pool();
    VkCommandBuffer commands = app.begin(pool);
    EXPECT_EQ(app.submit(queue, {}, {}, {commands}), VK_SUCCESS);
    expect_complaint("no recorded primary one");
    EXPECT_EQ(vk.QueueWaitIdle(queue), VK_SUCCESS);
    vk.DestroyCommandPool(device, pool, nullptr);
    EXPECT_NE(app.submit(reinterpret_cast<VkQueue>(app.device), {{semaphore}}, {}), VK_SUCCESS);
    expect_complaint("there is no living queue");
    (void)app.fence();
    application.reset();
    expect_complaint("still has its fence");
    icd.reset();
    expect_complaint("was never destroyed");
}

TEST_F(FakeIcdTest, ItComplainsOfTwoThreadsInOneQueue) {
    std::atomic<int> inside = 0;
    icd->on_call = [&](std::string_view function) {
        if (function != "vkQueueSubmit2")
            return;
        ++inside;
        while (inside < 2) // both are in it
            std::this_thread::yield();
    };
    std::thread other([&] { EXPECT_EQ(app.submit(queue, {}, {}), VK_SUCCESS); });
    EXPECT_EQ(app.submit(queue, {}, {}), VK_SUCCESS);
    other.join();
    expect_complaint("while another thread is in a function of the queue");
}

TEST_F(FakeIcdTest, MessagesReachWhoListens) {
    int heard = 0;
    const VkDebugUtilsMessengerCreateInfoEXT info{
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT,
        .pfnUserCallback = [](auto, auto, const auto*, void* mine) -> VkBool32 {
            ++*static_cast<int*>(mine);
            return VK_FALSE;
        },
        .pUserData = &heard};
    VkDebugUtilsMessengerEXT messenger = VK_NULL_HANDLE;
    const InstanceFunctions& of = app.of_instance;
    ASSERT_EQ(of.CreateDebugUtilsMessengerEXT(app.instance, &info, nullptr, &messenger),
              VK_SUCCESS);
    const VkDebugUtilsMessengerCallbackDataEXT data{
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CALLBACK_DATA_EXT};
    of.SubmitDebugUtilsMessageEXT(app.instance, VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT,
                                  VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT, &data);
    of.SubmitDebugUtilsMessageEXT(app.instance, VK_DEBUG_UTILS_MESSAGE_SEVERITY_INFO_BIT_EXT,
                                  VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT, &data);
    EXPECT_EQ(heard, 1);
    of.DestroyDebugUtilsMessengerEXT(app.instance, messenger, nullptr);
}

TEST(FakeIcdModuleTest, TheVulkanLoaderTakesIt) {
    setenv("VK_DRIVER_FILES", SLUICE_FAKE_ICD, 1);
    setenv("VK_ICD_FILENAMES", SLUICE_FAKE_ICD, 1); // what older ones read
    setenv("VK_LOADER_LAYERS_DISABLE", "*", 1);
    void* loader = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    if (loader == nullptr)
        GTEST_SKIP() << "there is no Vulkan loader: " << dlerror();
    const auto get =
        reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(loader, "vkGetInstanceProcAddr"));
    ASSERT_NE(get, nullptr);
    {
        const Application app(get);
        ASSERT_EQ(app.result, VK_SUCCESS);
        VkPhysicalDeviceProperties properties{};
        app.of_instance.GetPhysicalDeviceProperties(app.physical_device, &properties);
        EXPECT_STREQ(properties.deviceName, "Fake GPU");
        VkFence fence = app.fence();
        VkQueue queue = app.queue();
        EXPECT_EQ(HandLoader::word(queue), HandLoader::word(app.device));
        EXPECT_EQ(app.submit(queue, {}, {}, {}, fence), VK_SUCCESS);
        EXPECT_EQ(app.vk.WaitForFences(app.device, 1, &fence, VK_TRUE, UINT64_MAX), VK_SUCCESS);
        app.vk.DestroyFence(app.device, fence, nullptr);
    }
}

} // namespace
} // namespace sluice::test
