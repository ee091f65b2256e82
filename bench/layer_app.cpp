// SPDX-License-Identifier: MIT
#include "layer_app.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

namespace bench {

namespace {

constexpr VkDeviceSize page = 4096;

} // namespace

LayerApp::LayerApp(PFN_vkGetInstanceProcAddr get, const char* layer) {
    const VkApplicationInfo about{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                  .apiVersion = VK_API_VERSION_1_3};
    const VkInstanceCreateInfo info{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                    .pApplicationInfo = &about,
                                    .enabledLayerCount = layer != nullptr ? 1U : 0U,
                                    .ppEnabledLayerNames = &layer};
    const auto create =
        reinterpret_cast<PFN_vkCreateInstance>(get(VK_NULL_HANDLE, "vkCreateInstance"));
    if (const VkResult result = create(&info, nullptr, &instance); result != VK_SUCCESS) {
        problem_ = result == VK_ERROR_LAYER_NOT_PRESENT ? "the loader does not find the layer"
                                                        : "there is no Vulkan";
        return;
    }
    of_instance = sluice::test::InstanceFunctions(get, instance);
    std::uint32_t count = 1;
    if (of_instance.EnumeratePhysicalDevices(instance, &count, &physical_device) < 0 ||
        count == 0) {
        problem_ = "Vulkan has no device";
        return;
    }
    if (!create_device(get)) {
        problem_ = name() + " gives no device";
        return;
    }
    vk.GetDeviceQueue(device, 0, 0, &queue);
    const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    if (vk.CreateCommandPool(device, &pool, nullptr, &pool_) != VK_SUCCESS)
        problem_ = name() + " gives no command pool";
}

LayerApp::~LayerApp() {
    if (device != VK_NULL_HANDLE) {
        vk.QueueWaitIdle(queue);
        for (const Imported& each : imported)
            destroy(vk, each);
        vk.DestroyCommandPool(device, pool_, nullptr);
        vk.DestroyDevice(device, nullptr);
    }
    if (instance != VK_NULL_HANDLE)
        of_instance.DestroyInstance(instance, nullptr);
}

bool LayerApp::create_device(PFN_vkGetInstanceProcAddr get) {
    std::uint32_t available = 0;
    of_instance.EnumerateDeviceExtensionProperties(physical_device, nullptr, &available, nullptr);
    std::vector<VkExtensionProperties> all(available);
    of_instance.EnumerateDeviceExtensionProperties(physical_device, nullptr, &available,
                                                   all.data());
    std::vector<const char*> names;
    for (const char* wanted :
         {VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME, VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
          VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME, VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME})
        if (std::ranges::any_of(
                all, [=](const auto& each) { return !std::strcmp(each.extensionName, wanted); }))
            names.push_back(wanted);
    constexpr float priority = 1.0F;
    const VkDeviceQueueCreateInfo of_queue{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                           .queueCount = 1,
                                           .pQueuePriorities = &priority};
    VkPhysicalDeviceSynchronization2Features second_sync{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES,
        .synchronization2 = VK_TRUE};
    const VkDeviceCreateInfo info{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                  .pNext = &second_sync,
                                  .queueCreateInfoCount = 1,
                                  .pQueueCreateInfos = &of_queue,
                                  .enabledExtensionCount = static_cast<std::uint32_t>(names.size()),
                                  .ppEnabledExtensionNames = names.data()};
    if (of_instance.CreateDevice(physical_device, &info, nullptr, &device) != VK_SUCCESS)
        return false;
    vk = sluice::test::DeviceFunctions(
        reinterpret_cast<PFN_vkGetDeviceProcAddr>(get(instance, "vkGetDeviceProcAddr")), device);
    return true;
}

std::string LayerApp::name() const {
    VkPhysicalDeviceProperties properties{};
    of_instance.GetPhysicalDeviceProperties(physical_device, &properties);
    return properties.deviceName;
}

bool LayerApp::import(const sluice::test::DeviceFunctions& with, int fd, Imported& made) const {
    const VkImportMemoryFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                         .handleType =
                                             VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
                                         .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)}; // the driver's
    const VkMemoryAllocateInfo allocate{
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &import, .allocationSize = page};
    const VkExternalMemoryBufferCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
        .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkBufferCreateInfo create{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                    .pNext = &external,
                                    .size = page,
                                    .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    return import.fd >= 0 &&
           with.AllocateMemory(device, &allocate, nullptr, &made.memory) == VK_SUCCESS &&
           with.CreateBuffer(device, &create, nullptr, &made.buffer) == VK_SUCCESS &&
           with.BindBufferMemory(device, made.buffer, made.memory, 0) == VK_SUCCESS;
}

bool LayerApp::import(int fd) {
    return import(vk, fd, imported.emplace_back());
}

void LayerApp::destroy(const sluice::test::DeviceFunctions& with, const Imported& each) const {
    with.DestroyBuffer(device, each.buffer, nullptr);
    with.FreeMemory(device, each.memory, nullptr);
}

VkCommandBuffer LayerApp::record(std::span<const Imported> which) const {
    const VkCommandBufferAllocateInfo allocate{.sType =
                                                   VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                               .commandPool = pool_,
                                               .commandBufferCount = 1};
    const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                         .flags = VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT};
    VkCommandBuffer commands = VK_NULL_HANDLE;
    vk.AllocateCommandBuffers(device, &allocate, &commands);
    vk.BeginCommandBuffer(commands, &begin);
    for (const bool acquires : {true, false})
        for (const Imported& each : which) {
            constexpr VkAccessFlags nothing = 0;
            constexpr VkAccessFlags writes = VK_ACCESS_TRANSFER_WRITE_BIT;
            const VkBufferMemoryBarrier barrier{
                .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
                .srcAccessMask = acquires ? nothing : writes,
                .dstAccessMask = acquires ? writes : nothing,
                .srcQueueFamilyIndex = acquires ? VK_QUEUE_FAMILY_FOREIGN_EXT : 0,
                .dstQueueFamilyIndex = acquires ? 0 : VK_QUEUE_FAMILY_FOREIGN_EXT,
                .buffer = each.buffer,
                .size = VK_WHOLE_SIZE};
            vk.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                                  VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, nullptr, 1, &barrier, 0,
                                  nullptr);
        }
    vk.EndCommandBuffer(commands);
    return commands;
}

} // namespace bench
