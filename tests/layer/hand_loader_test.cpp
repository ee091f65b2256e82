// SPDX-License-Identifier: MIT
#include "layer/hand_loader.hpp"

#include <atomic>
#include <optional>
#include <string_view>
#include <thread>

#include <dlfcn.h>
#include <linux/dma-buf.h>
#include <sys/ioctl.h>

#include "layer/application.hpp"
#include "support/fake_reservations.hpp"
#include "support/fake_sync_file.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice::test {
namespace {

/// What a layer can do wrong.
enum class Mistake : std::uint8_t {
    none,
    keeps_the_instance_chain,
    keeps_the_device_chain,
    finds_too_much,
    finds_too_little,
    uses_the_device_chain,
    creates_a_device_of_no_instance,
    creates_a_device_elsewhere,
    submits_to_a_bare_queue,
    negotiates_version_1,
};

/// A layer that does nothing but count submissions. \p N tells the layers of one stack apart.
template <int N> struct PassThrough {
    static inline Mistake mistake = Mistake::none;
    static inline std::atomic<int> submissions = 0;

    static VkResult VKAPI_CALL negotiate(VkNegotiateLayerInterface* with) {
        submissions = 0;
        with->loaderLayerInterfaceVersion = mistake == Mistake::negotiates_version_1 ? 1 : 2;
        with->pfnGetInstanceProcAddr = get_instance;
        with->pfnGetDeviceProcAddr = get_device;
        with->pfnGetPhysicalDeviceProcAddr = nullptr;
        return VK_SUCCESS;
    }

private:
    // Of the youngest instance and device, which will do here.
    static inline PFN_vkGetInstanceProcAddr next_instance = nullptr;
    static inline PFN_vkGetDeviceProcAddr next_device = nullptr;
    static inline PFN_vkQueueSubmit2 next_submit = nullptr;
    static inline VkInstance instance_ = VK_NULL_HANDLE;
    static inline VkQueue own_queue = VK_NULL_HANDLE;

    template <typename T>
    static T* find_chain(const void* next, VkStructureType type, VkLayerFunction function) {
        for (auto* each = static_cast<const VkBaseInStructure*>(next); each; each = each->pNext)
            if (each->sType == type && reinterpret_cast<const T*>(each)->function == function)
                return const_cast<T*>(reinterpret_cast<const T*>(each)); // the loader's own
        return nullptr;
    }

    static VkResult VKAPI_CALL CreateInstance(const VkInstanceCreateInfo* info,
                                              const VkAllocationCallbacks* allocator,
                                              VkInstance* instance) {
        auto* chain = find_chain<VkLayerInstanceCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO, VK_LAYER_LINK_INFO);
        next_instance = chain->u.pLayerInfo->pfnNextGetInstanceProcAddr;
        if (mistake != Mistake::keeps_the_instance_chain)
            chain->u.pLayerInfo = chain->u.pLayerInfo->pNext;
        const auto create = reinterpret_cast<PFN_vkCreateInstance>(
            next_instance(VK_NULL_HANDLE, "vkCreateInstance"));
        const VkResult result = create(info, allocator, instance);
        instance_ = *instance;
        return result;
    }

    static VkResult VKAPI_CALL CreateDevice(VkPhysicalDevice on, const VkDeviceCreateInfo* info,
                                            const VkAllocationCallbacks* allocator,
                                            VkDevice* device) {
        auto* chain = find_chain<VkLayerDeviceCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO, VK_LAYER_LINK_INFO);
        const auto set_data =
            find_chain<VkLayerDeviceCreateInfo>(
                info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO, VK_LOADER_DATA_CALLBACK)
                ->u.pfnSetDeviceLoaderData;
        const auto next = chain->u.pLayerInfo->pfnNextGetInstanceProcAddr;
        next_device = chain->u.pLayerInfo->pfnNextGetDeviceProcAddr;
        if (mistake != Mistake::keeps_the_device_chain)
            chain->u.pLayerInfo = chain->u.pLayerInfo->pNext;
        if (mistake == Mistake::uses_the_device_chain)
            (void)next(instance_, "vkEnumeratePhysicalDevices");
        VkInstance of =
            mistake == Mistake::creates_a_device_of_no_instance ? VK_NULL_HANDLE : instance_;
        const auto create = reinterpret_cast<PFN_vkCreateDevice>(next(of, "vkCreateDevice"));
        VkDevice elsewhere = VK_NULL_HANDLE;
        const VkResult result =
            create(on, info, allocator,
                   mistake == Mistake::creates_a_device_elsewhere ? &elsewhere : device);
        if (result != VK_SUCCESS)
            return result;
        next_submit = reinterpret_cast<PFN_vkQueueSubmit2>(next_device(*device, "vkQueueSubmit2"));
        const auto get_queue =
            reinterpret_cast<PFN_vkGetDeviceQueue>(next_device(*device, "vkGetDeviceQueue"));
        get_queue(*device, 1, 1, &own_queue);
        if (mistake != Mistake::submits_to_a_bare_queue) {
            EXPECT_EQ(set_data(*device, own_queue), VK_SUCCESS);
        }
        return next_submit ? next_submit(own_queue, 0, nullptr, VK_NULL_HANDLE) : result;
    }

    static VkResult VKAPI_CALL QueueSubmit2(VkQueue queue, std::uint32_t count,
                                            const VkSubmitInfo2* submits, VkFence fence) {
        submissions += static_cast<int>(count);
        return next_submit(queue, count, submits, fence);
    }

    static PFN_vkVoidFunction VKAPI_CALL get_device(VkDevice device, const char* name) {
        if (name == std::string_view("vkQueueSubmit2") && mistake != Mistake::finds_too_little)
            return reinterpret_cast<PFN_vkVoidFunction>(QueueSubmit2);
        if (name == std::string_view("vkQueueSubmit2KHR") && mistake == Mistake::finds_too_much)
            return reinterpret_cast<PFN_vkVoidFunction>(QueueSubmit2);
        if (name == std::string_view("vkQueueSubmit2"))
            return nullptr;
        return next_device(device, name);
    }

    static PFN_vkVoidFunction VKAPI_CALL get_instance(VkInstance instance, const char* name) {
        if (name == std::string_view("vkCreateInstance"))
            return reinterpret_cast<PFN_vkVoidFunction>(CreateInstance);
        if (name == std::string_view("vkCreateDevice"))
            return reinterpret_cast<PFN_vkVoidFunction>(CreateDevice);
        return next_instance(instance, name);
    }
};

const std::vector<HandLoader::Negotiate> two_layers{PassThrough<0>::negotiate,
                                                    PassThrough<1>::negotiate};

/// With as many layers as the parameter says.
class HandLoaderTest : public FdTest, public ::testing::WithParamInterface<int> {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc.emplace().memfds_are_dma_bufs();
        icd.emplace(fail_the_test);
        loader.emplace(*icd, std::vector(two_layers.begin(), two_layers.begin() + GetParam()),
                       fail_the_test);
    }
    void TearDown() override {
        loader.reset();
        icd.reset();
        libc.reset();
        FdTest::TearDown();
    }

    std::optional<ScriptedLibc> libc;
    std::optional<FakeIcd> icd;
    std::optional<HandLoader> loader;
};

INSTANTIATE_TEST_SUITE_P(Layers, HandLoaderTest, ::testing::Values(0, 1, 2));

TEST_P(HandLoaderTest, AnApplicationSharesABuffer) {
    const Application app(HandLoader::get_instance_proc_addr);
    ASSERT_EQ(app.result, VK_SUCCESS);
    const DeviceFunctions& vk = app.vk;
    VkQueue queue = app.queue();

    UniqueFd buffer = memfd(4096);
    const ino_t inode = inode_of(buffer.get());
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(app.import_memory(buffer.release(), 4096, memory), VK_SUCCESS);
    const VkExternalMemoryBufferCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkBufferCreateInfo what{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                  .pNext = &external,
                                  .size = 4096,
                                  .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT};
    VkBuffer view = VK_NULL_HANDLE;
    ASSERT_EQ(vk.CreateBuffer(app.device, &what, nullptr, &view), VK_SUCCESS);
    ASSERT_EQ(vk.BindBufferMemory(app.device, view, memory, 0), VK_SUCCESS);

    VkCommandPool pool = app.command_pool();
    VkCommandBuffer commands = app.begin(pool);
    const VkBufferMemoryBarrier acquire{.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
                                        .dstAccessMask = VK_ACCESS_TRANSFER_READ_BIT,
                                        .srcQueueFamilyIndex = VK_QUEUE_FAMILY_FOREIGN_EXT,
                                        .dstQueueFamilyIndex = 0,
                                        .buffer = view,
                                        .size = VK_WHOLE_SIZE};
    vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT,
                          VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 0, nullptr, 1, &acquire, 0, nullptr);
    ASSERT_EQ(vk.EndCommandBuffer(commands), VK_SUCCESS);

    VkSemaphore semaphore = app.semaphore(VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT);
    VkFence fence = app.fence();
    ASSERT_EQ(app.submit(queue, {}, {{semaphore}}, {commands}, fence), VK_SUCCESS);
    int fd = -1;
    ASSERT_EQ(app.export_fence(semaphore, fd), VK_SUCCESS);
    EXPECT_EQ(vk.WaitForFences(app.device, 1, &fence, VK_TRUE, UINT64_MAX), VK_SUCCESS);
    EXPECT_EQ(read_fake_status(fd), 1);

    EXPECT_EQ(icd->allocations().at(0).imported, inode);
    EXPECT_EQ(icd->commands(commands), std::vector<std::string>{"vkCmdPipelineBarrier"});
    const auto seen = icd->submissions(queue);
    ASSERT_EQ(seen.size(), 1U);
    EXPECT_EQ(seen[0].fence, fence);
    EXPECT_EQ(seen[0].batches.at(0).command_buffers, std::vector{commands});
    EXPECT_EQ(seen[0].batches.at(0).signals.at(0).sync_file, inode_of(fd));
    EXPECT_TRUE(GetParam() < 1 || PassThrough<0>::submissions == 1);
    EXPECT_TRUE(GetParam() < 2 || PassThrough<1>::submissions == 1);
    close(fd);
    vk.DestroyFence(app.device, fence, nullptr);
    vk.DestroySemaphore(app.device, semaphore, nullptr);
    vk.DestroyCommandPool(app.device, pool, nullptr);
    vk.DestroyBuffer(app.device, view, nullptr);
    vk.FreeMemory(app.device, memory, nullptr);
}

TEST_P(HandLoaderTest, TheObjectsOfADeviceHaveOneWord) {
    const Application app(HandLoader::get_instance_proc_addr);
    const Application other(HandLoader::get_instance_proc_addr);
    ASSERT_EQ(other.result, VK_SUCCESS);
    VkCommandPool pool = app.command_pool();
    VkCommandBuffer commands = app.begin(pool);
    const VkDeviceQueueInfo2 second{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_INFO_2,
                                    .queueFamilyIndex = 1};
    VkQueue queue = VK_NULL_HANDLE;
    app.vk.GetDeviceQueue2(app.device, &second, &queue);
    void* word = HandLoader::word(app.device);
    EXPECT_EQ(HandLoader::word(app.queue()), word);
    EXPECT_EQ(HandLoader::word(queue), word);
    EXPECT_EQ(HandLoader::word(commands), word);
    EXPECT_EQ(HandLoader::word(app.instance), HandLoader::word(app.physical_device));
    EXPECT_NE(HandLoader::word(app.instance), word);
    EXPECT_NE(HandLoader::word(other.device), word);
    EXPECT_NE(HandLoader::word(other.instance), HandLoader::word(app.instance));
    app.vk.DestroyCommandPool(app.device, pool, nullptr);
}

TEST_P(HandLoaderTest, PhysicalDevicesThatAreFoundInGroupsHaveTheirWord) {
    const auto create = reinterpret_cast<PFN_vkCreateInstance>(
        HandLoader::get_instance_proc_addr(VK_NULL_HANDLE, "vkCreateInstance"));
    const VkApplicationInfo about{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                  .apiVersion = VK_API_VERSION_1_1};
    const VkInstanceCreateInfo info{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                    .pApplicationInfo = &about};
    VkInstance instance = VK_NULL_HANDLE;
    ASSERT_EQ(create(&info, nullptr, &instance), VK_SUCCESS);
    const InstanceFunctions vk(HandLoader::get_instance_proc_addr, instance);
    std::uint32_t count = 1;
    VkPhysicalDeviceGroupProperties group{};
    ASSERT_EQ(vk.EnumeratePhysicalDeviceGroups(instance, &count, &group), VK_SUCCESS);
    EXPECT_EQ(HandLoader::word(group.physicalDevices[0]), HandLoader::word(instance));
    vk.DestroyInstance(instance, nullptr);
}

TEST_P(HandLoaderTest, ABufferTakesTheFencesOfTheDriverAndGivesItsOwn) {
    fake_sync_files(*libc);
    FakeReservations buffers;
    buffers.set_up(*libc);
    const Application app(HandLoader::get_instance_proc_addr);
    const UniqueFd buffer = memfd(4096);
    VkSemaphore semaphore = app.semaphore(VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT);
    int fd = -1;
    ASSERT_EQ(app.submit(app.queue(), {}, {{semaphore}}), VK_SUCCESS);
    ASSERT_EQ(app.export_fence(semaphore, fd), VK_SUCCESS);
    dma_buf_import_sync_file left{.flags = DMA_BUF_SYNC_WRITE, .fd = fd};
    EXPECT_EQ(ioctl(buffer.get(), DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &left), 0);
    EXPECT_EQ(buffers.left.at(0).fence, inode_of(fd));
    close(fd);

    buffers.status[inode_of(buffer.get())] = 0;
    dma_buf_export_sync_file given{.flags = DMA_BUF_SYNC_READ, .fd = -1};
    ASSERT_EQ(ioctl(buffer.get(), DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &given), 0);
    const UniqueFd pending(dup(given.fd));
    ASSERT_EQ(app.import_fence(semaphore, given.fd), VK_SUCCESS);
    ASSERT_EQ(app.submit(app.queue(), {{semaphore}}, {}), VK_SUCCESS);
    EXPECT_FALSE(icd->submissions(app.queue()).at(1).finished);
    EXPECT_EQ(icd->submissions(app.queue()).at(1).batches.at(0).waits.at(0).sync_file,
              buffers.given.at(0));
    ASSERT_TRUE(write_fake_status(pending.get(), 1));
    EXPECT_EQ(app.vk.QueueWaitIdle(app.queue()), VK_SUCCESS);
    app.vk.DestroySemaphore(app.device, semaphore, nullptr);
}

TEST_P(HandLoaderTest, ThreadsSubmitToTwoQueuesAtOnce) {
    constexpr int times = 200;
    const Application app(HandLoader::get_instance_proc_addr);
    ASSERT_EQ(app.result, VK_SUCCESS);
    const auto work = [&](VkQueue queue) {
        VkSemaphore semaphore = app.semaphore(VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT);
        for (int each = 0; each < times; ++each) {
            int fd = -1;
            EXPECT_EQ(app.submit(queue, {}, {{semaphore}}), VK_SUCCESS);
            EXPECT_EQ(app.export_fence(semaphore, fd), VK_SUCCESS);
            EXPECT_EQ(app.import_fence(semaphore, fd), VK_SUCCESS);
            EXPECT_EQ(app.submit(queue, {{semaphore}}, {}), VK_SUCCESS);
        }
        app.vk.DestroySemaphore(app.device, semaphore, nullptr);
    };
    VkQueue first = app.queue(0, 0);
    VkQueue second = app.queue(0, 1);
    std::thread other(work, second);
    work(first);
    other.join();
    EXPECT_EQ(icd->submissions(first).size(), 2U * times);
    EXPECT_EQ(icd->submissions(second).size(), 2U * times);
}

/// The upper or the lower of two layers makes the mistake.
class LayerMistakeTest : public ::testing::TestWithParam<bool> {
protected:
    /// What is complained about when an application starts.
    std::string complaints(Mistake mistake) {
        Complaints all;
        (GetParam() ? PassThrough<0>::mistake : PassThrough<1>::mistake) = mistake;
        {
            FakeIcd icd(all.taker());
            if (mistake == Mistake::finds_too_much)
                icd.lacks = {VK_KHR_SYNCHRONIZATION_2_EXTENSION_NAME};
            const HandLoader loader(icd, two_layers, all.taker());
            if (mistake != Mistake::negotiates_version_1)
                const Application app(HandLoader::get_instance_proc_addr);
        }
        PassThrough<0>::mistake = PassThrough<1>::mistake = Mistake::none;
        return all.take();
    }
    /// With the number of the layer in it.
    [[nodiscard]] std::string layer(const std::string& what) const {
        return std::string(GetParam() ? "layer 0 " : "layer 1 ") + what + "\n";
    }
};

INSTANTIATE_TEST_SUITE_P(Upper, LayerMistakeTest, ::testing::Bool());

TEST_P(LayerMistakeTest, AChainThatIsNotAdvanced) {
    EXPECT_EQ(complaints(Mistake::keeps_the_instance_chain),
              layer("has not advanced the chain of the instance"));
    EXPECT_NE(complaints(Mistake::keeps_the_device_chain)
                  .find(layer("has not advanced the chain of the device")),
              std::string::npos);
}

TEST_P(LayerMistakeTest, FunctionsThatAreNotThere) {
    EXPECT_EQ(complaints(Mistake::none), "");
    const std::string all = complaints(Mistake::finds_too_much);
    EXPECT_EQ(all, layer("finds vkQueueSubmit2KHR, which nothing below it has"));
}

TEST_P(LayerMistakeTest, FunctionsThatAreTakenAway) {
    const std::string all = complaints(Mistake::finds_too_little);
    EXPECT_NE(all.find(layer("does not find vkQueueSubmit2, which is below it")), std::string::npos)
        << all;
}

TEST_P(LayerMistakeTest, TheWrongChain) {
    EXPECT_EQ(complaints(Mistake::uses_the_device_chain),
              layer("looks for vkEnumeratePhysicalDevices in a device's chain"));
    EXPECT_EQ(complaints(Mistake::creates_a_device_of_no_instance),
              layer("looks for vkCreateDevice without an instance"));
}

TEST_P(LayerMistakeTest, AHandleElsewhere) {
    EXPECT_EQ(complaints(Mistake::creates_a_device_elsewhere),
              layer("has lost what lies where the device's handle goes"));
}

TEST_P(LayerMistakeTest, AQueueWithoutItsWord) {
    const std::string all = complaints(Mistake::submits_to_a_bare_queue);
    if (GetParam()) { // the lower layer has set it by then
        EXPECT_EQ(all, "");
    } else {
        EXPECT_NE(all.find("nobody has set the dispatch word of the queue"), std::string::npos);
    }
}

TEST_P(LayerMistakeTest, AnOldInterface) {
    EXPECT_EQ(complaints(Mistake::negotiates_version_1), layer("does not negotiate version 2"));
}

/// A layer that others wrote for the Khronos loader, and that has something to say to applications.
TEST(ForeignLayerTest, TheValidationLayerFindsNothing) {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "ThreadSanitizer does not see how others' libraries keep their threads apart";
#endif
    void* library = dlopen("libVkLayer_khronos_validation.so", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
        GTEST_SKIP() << "there is no validation layer: " << dlerror();
    const auto negotiate = reinterpret_cast<HandLoader::Negotiate>(
        dlsym(library, "vkNegotiateLoaderLayerInterfaceVersion"));
    ASSERT_NE(negotiate, nullptr);
    Complaints complaints;
    FakeIcd icd(complaints.taker());
    const HandLoader loader(icd, {negotiate, PassThrough<0>::negotiate}, fail_the_test);
    const Application app(HandLoader::get_instance_proc_addr);
    ASSERT_EQ(app.result, VK_SUCCESS);
    Complaints messages;
    auto taker = messages.taker();
    const VkDebugUtilsMessengerCreateInfoEXT info{
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = [](auto, auto, const auto* data, void* to) -> VkBool32 {
            (*static_cast<FakeIcd::Complain*>(to))(data->pMessage);
            return VK_FALSE;
        },
        .pUserData = &taker};
    VkDebugUtilsMessengerEXT messenger = VK_NULL_HANDLE;
    ASSERT_EQ(
        app.of_instance.CreateDebugUtilsMessengerEXT(app.instance, &info, nullptr, &messenger),
        VK_SUCCESS);

    VkCommandPool pool = app.command_pool();
    VkCommandBuffer commands = app.begin(pool);
    ASSERT_EQ(app.vk.EndCommandBuffer(commands), VK_SUCCESS);
    VkSemaphore semaphore = app.semaphore(VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT);
    VkFence fence = app.fence();
    int fd = -1;
    EXPECT_EQ(app.submit(app.queue(), {}, {{semaphore}}, {commands}, fence), VK_SUCCESS);
    EXPECT_EQ(app.export_fence(semaphore, fd), VK_SUCCESS);
    EXPECT_EQ(app.vk.WaitForFences(app.device, 1, &fence, VK_TRUE, UINT64_MAX), VK_SUCCESS);
    EXPECT_EQ(app.import_fence(semaphore, fd), VK_SUCCESS);
    EXPECT_EQ(app.submit(app.queue(), {{semaphore}}, {}), VK_SUCCESS);
    EXPECT_EQ(app.vk.DeviceWaitIdle(app.device), VK_SUCCESS);
    EXPECT_EQ(messages.take(), "");
    EXPECT_EQ(complaints.take(), "");
    EXPECT_EQ(PassThrough<0>::submissions, 2) << "it is below";

    // It is awake: a command buffer that is not being recorded cannot be ended.
    (void)app.vk.EndCommandBuffer(commands);
    EXPECT_NE(messages.take().find("vkEndCommandBuffer"), std::string::npos);
    EXPECT_NE(complaints.take().find("vkEndCommandBuffer"), std::string::npos);
    app.vk.DestroyFence(app.device, fence, nullptr);
    app.vk.DestroySemaphore(app.device, semaphore, nullptr);
    app.vk.DestroyCommandPool(app.device, pool, nullptr);
    app.of_instance.DestroyDebugUtilsMessengerEXT(app.instance, messenger, nullptr);
}

} // namespace
} // namespace sluice::test
