// SPDX-License-Identifier: MIT
/// \file
/// A Vulkan application that has got as far as its queues: what every test of a layer begins with.
#pragma once

#include <array>
#include <mutex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "layer/hand_loader.hpp"

namespace sluice::test {

/// What FakeIcd and HandLoader are given where nothing is to be complained about.
inline void fail_the_test(const std::string& what) {
    ADD_FAILURE() << what;
}

/// Collects complaints, for the tests where there are to be some: `FakeIcd
/// icd(complaints.taker())`.
class Complaints {
public:
    [[nodiscard]] FakeIcd::Complain taker() {
        return [this](const std::string& what) {
            const std::lock_guard lock(mutex_);
            all_.push_back(what);
        };
    }
    /// What has come since it was asked last, a line each.
    [[nodiscard]] std::string take() {
        const std::lock_guard lock(mutex_);
        std::string lines;
        for (const std::string& each : all_)
            lines += each + "\n";
        all_.clear();
        return lines;
    }

private:
    std::mutex mutex_;
    std::vector<std::string> all_;
};

/// Its instance, a device with all extensions that there are and the features of synchronisation,
/// and both queues of each family.
class Application {
public:
    /// With the functions found by \p get: HandLoader's, or FakeIcd's without a loader.
    explicit Application(PFN_vkGetInstanceProcAddr get,
                         std::uint32_t api_version = VK_API_VERSION_1_3)
        : get_(get) {
        const auto create =
            reinterpret_cast<PFN_vkCreateInstance>(get(VK_NULL_HANDLE, "vkCreateInstance"));
        const VkApplicationInfo about{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                      .apiVersion = api_version};
        const std::array wants{VK_EXT_DEBUG_UTILS_EXTENSION_NAME};
        const VkInstanceCreateInfo info{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                        .pApplicationInfo = &about,
                                        .enabledExtensionCount = 1,
                                        .ppEnabledExtensionNames = wants.data()};
        result = create(&info, nullptr, &instance);
        if (result != VK_SUCCESS)
            return;
        of_instance = InstanceFunctions(get, instance);
        std::uint32_t count = 1;
        result = of_instance.EnumeratePhysicalDevices(instance, &count, &physical_device);
        if (result >= VK_SUCCESS)
            create_device();
    }
    ~Application() {
        if (device != VK_NULL_HANDLE)
            vk.DestroyDevice(device, nullptr);
        if (instance != VK_NULL_HANDLE)
            of_instance.DestroyInstance(instance, nullptr);
    }
    Application(const Application&) = delete;
    Application& operator=(const Application&) = delete;

    /// Queue \p index (0 or 1) of \p family.
    [[nodiscard]] VkQueue queue(std::uint32_t family = 0, std::uint32_t index = 0) const {
        VkQueue found = VK_NULL_HANDLE;
        vk.GetDeviceQueue(device, family, index, &found);
        return found;
    }

    // What applications do all the time. What is made is the caller's to destroy.

    [[nodiscard]] VkSemaphore semaphore(VkExternalSemaphoreHandleTypeFlags exportable_as = 0,
                                        const void* next = nullptr) const {
        const VkExportSemaphoreCreateInfo types{.sType =
                                                    VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO,
                                                .pNext = next,
                                                .handleTypes = exportable_as};
        const VkSemaphoreCreateInfo info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                         .pNext = exportable_as != 0 ? &types : next};
        VkSemaphore made = VK_NULL_HANDLE;
        EXPECT_EQ(vk.CreateSemaphore(device, &info, nullptr, &made), VK_SUCCESS);
        return made;
    }
    [[nodiscard]] VkSemaphore timeline() const {
        const VkSemaphoreTypeCreateInfo type{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                             .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
        return semaphore(0, &type);
    }
    [[nodiscard]] VkFence fence() const {
        const VkFenceCreateInfo info{.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
        VkFence made = VK_NULL_HANDLE;
        EXPECT_EQ(vk.CreateFence(device, &info, nullptr, &made), VK_SUCCESS);
        return made;
    }
    /// Both take binary semaphores with the value 0, timeline semaphores with theirs.
    struct At {
        VkSemaphore semaphore;
        std::uint64_t value = 0;
    };
    [[nodiscard]] VkResult submit(VkQueue queue, const std::vector<At>& waits,
                                  const std::vector<At>& signals,
                                  const std::vector<VkCommandBuffer>& commands = {},
                                  VkFence done = VK_NULL_HANDLE) const {
        std::vector<VkSemaphoreSubmitInfo> all;
        for (const auto& list : {waits, signals})
            for (const At& each : list)
                all.push_back({.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SUBMIT_INFO,
                               .semaphore = each.semaphore,
                               .value = each.value,
                               .stageMask = VK_PIPELINE_STAGE_2_ALL_COMMANDS_BIT});
        std::vector<VkCommandBufferSubmitInfo> buffers;
        for (VkCommandBuffer each : commands)
            buffers.push_back(
                {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_SUBMIT_INFO, .commandBuffer = each});
        const VkSubmitInfo2 info{
            .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO_2,
            .waitSemaphoreInfoCount = static_cast<std::uint32_t>(waits.size()),
            .pWaitSemaphoreInfos = all.data(),
            .commandBufferInfoCount = static_cast<std::uint32_t>(buffers.size()),
            .pCommandBufferInfos = buffers.data(),
            .signalSemaphoreInfoCount = static_cast<std::uint32_t>(signals.size()),
            .pSignalSemaphoreInfos = all.data() + waits.size()};
        return vk.QueueSubmit2(queue, 1, &info, done);
    }
    /// The sync_file of \p semaphore; -1 where it gives none.
    [[nodiscard]] VkResult export_fence(VkSemaphore semaphore, int& fd) const {
        const VkSemaphoreGetFdInfoKHR info{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
                                           .semaphore = semaphore,
                                           .handleType =
                                               VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
        fd = -1;
        return vk.GetSemaphoreFdKHR(device, &info, &fd);
    }
    /// The driver takes \p fd over where this succeeds.
    [[nodiscard]] VkResult import_fence(VkSemaphore semaphore, int fd) const {
        const VkImportSemaphoreFdInfoKHR info{
            .sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR,
            .semaphore = semaphore,
            .flags = VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
            .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
            .fd = fd};
        return vk.ImportSemaphoreFdKHR(device, &info);
    }
    /// The same, with a dma-buf.
    [[nodiscard]] VkResult import_memory(int fd, VkDeviceSize size, VkDeviceMemory& memory) const {
        const VkImportMemoryFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                             .handleType =
                                                 VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
                                             .fd = fd};
        const VkMemoryAllocateInfo info{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                        .pNext = &import,
                                        .allocationSize = size};
        return vk.AllocateMemory(device, &info, nullptr, &memory);
    }
    [[nodiscard]] VkCommandPool command_pool() const {
        const VkCommandPoolCreateInfo info{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
        VkCommandPool made = VK_NULL_HANDLE;
        EXPECT_EQ(vk.CreateCommandPool(device, &info, nullptr, &made), VK_SUCCESS);
        return made;
    }
    /// A command buffer that is being recorded.
    [[nodiscard]] VkCommandBuffer begin(VkCommandPool pool) const {
        const VkCommandBufferAllocateInfo info{.sType =
                                                   VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                               .commandPool = pool,
                                               .commandBufferCount = 1};
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
        VkCommandBuffer made = VK_NULL_HANDLE;
        EXPECT_EQ(vk.AllocateCommandBuffers(device, &info, &made), VK_SUCCESS);
        EXPECT_EQ(vk.BeginCommandBuffer(made, &begin), VK_SUCCESS);
        return made;
    }

    VkResult result = VK_SUCCESS; ///< Of what came last in the constructor.
    InstanceFunctions of_instance;
    DeviceFunctions vk; ///< The device's.
    VkInstance instance = VK_NULL_HANDLE;
    VkPhysicalDevice physical_device = VK_NULL_HANDLE;
    VkDevice device = VK_NULL_HANDLE;

private:
    void create_device() {
        std::uint32_t count = 0;
        of_instance.GetPhysicalDeviceQueueFamilyProperties(physical_device, &count, nullptr);
        constexpr std::array priorities{1.0F, 1.0F};
        std::vector<VkDeviceQueueCreateInfo> queues;
        for (std::uint32_t family = 0; family < count; ++family)
            queues.push_back({.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                              .queueFamilyIndex = family,
                              .queueCount = 2,
                              .pQueuePriorities = priorities.data()});
        (void)of_instance.EnumerateDeviceExtensionProperties(physical_device, nullptr, &count,
                                                             nullptr);
        std::vector<VkExtensionProperties> extensions(count);
        (void)of_instance.EnumerateDeviceExtensionProperties(physical_device, nullptr, &count,
                                                             extensions.data());
        std::vector<const char*> names;
        for (const auto& each : extensions)
            names.push_back(each.extensionName);
        VkPhysicalDeviceTimelineSemaphoreFeatures timelines{
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
            .timelineSemaphore = VK_TRUE};
        VkPhysicalDeviceSynchronization2Features second_sync{
            .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES,
            .pNext = &timelines,
            .synchronization2 = VK_TRUE};
        const VkDeviceCreateInfo info{
            .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
            .pNext = &second_sync,
            .queueCreateInfoCount = static_cast<std::uint32_t>(queues.size()),
            .pQueueCreateInfos = queues.data(),
            .enabledExtensionCount = static_cast<std::uint32_t>(names.size()),
            .ppEnabledExtensionNames = names.data()};
        result = of_instance.CreateDevice(physical_device, &info, nullptr, &device);
        if (result == VK_SUCCESS)
            vk = DeviceFunctions(
                reinterpret_cast<PFN_vkGetDeviceProcAddr>(get_(instance, "vkGetDeviceProcAddr")),
                device);
    }

    PFN_vkGetInstanceProcAddr get_;
};

} // namespace sluice::test
