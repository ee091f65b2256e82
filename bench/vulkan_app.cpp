// SPDX-License-Identifier: MIT
#include "vulkan_app.hpp"

#include <algorithm>
#include <cstring>

namespace bench {

VulkanApp::VulkanApp() {
    const VkApplicationInfo application{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                        .pNext = nullptr,
                                        .pApplicationName = "sluice_vulkan_bench",
                                        .applicationVersion = 0,
                                        .pEngineName = nullptr,
                                        .engineVersion = 0,
                                        .apiVersion = VK_API_VERSION_1_1};
    const VkInstanceCreateInfo create{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                      .pNext = nullptr,
                                      .flags = 0,
                                      .pApplicationInfo = &application,
                                      .enabledLayerCount = 0,
                                      .ppEnabledLayerNames = nullptr,
                                      .enabledExtensionCount = 0,
                                      .ppEnabledExtensionNames = nullptr};
    info_.get_instance_proc_addr = vkGetInstanceProcAddr;
    if (vkCreateInstance(&create, nullptr, &info_.instance) != VK_SUCCESS) {
        problem_ = "there is no Vulkan";
        return;
    }
    std::uint32_t count = 1; // the first: VK_ICD_FILENAMES chooses
    if (vkEnumeratePhysicalDevices(info_.instance, &count, &info_.physical_device) < 0 ||
        count == 0) {
        problem_ = "Vulkan has no device";
        return;
    }
    std::uint32_t available = 0;
    vkEnumerateDeviceExtensionProperties(info_.physical_device, nullptr, &available, nullptr);
    std::vector<VkExtensionProperties> all(available);
    vkEnumerateDeviceExtensionProperties(info_.physical_device, nullptr, &available, all.data());
    for (const char* wanted : sluice::VulkanDevice::required_extensions())
        if (std::ranges::any_of(all, [wanted](const VkExtensionProperties& each) {
                return std::strcmp(each.extensionName, wanted) == 0;
            }))
            extensions_.push_back(wanted);
    const float priority = 1.0F;
    const VkDeviceQueueCreateInfo queue{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                        .pNext = nullptr,
                                        .flags = 0,
                                        .queueFamilyIndex = 0,
                                        .queueCount = 1,
                                        .pQueuePriorities = &priority};
    const VkDeviceCreateInfo device{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                    .pNext = nullptr,
                                    .flags = 0,
                                    .queueCreateInfoCount = 1,
                                    .pQueueCreateInfos = &queue,
                                    .enabledLayerCount = 0,
                                    .ppEnabledLayerNames = nullptr,
                                    .enabledExtensionCount =
                                        static_cast<std::uint32_t>(extensions_.size()),
                                    .ppEnabledExtensionNames = extensions_.data(),
                                    .pEnabledFeatures = nullptr};
    if (!has(VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME)) {
        problem_ = name() + " takes no dma-bufs";
        return;
    }
    if (vkCreateDevice(info_.physical_device, &device, nullptr, &info_.device) != VK_SUCCESS) {
        problem_ = name() + " gives no device";
        return;
    }
    vkGetDeviceQueue(info_.device, 0, 0, &info_.queue);
    info_.extensions = extensions_;
    const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                       .pNext = nullptr,
                                       .flags = 0,
                                       .queueFamilyIndex = 0};
    if (vkCreateCommandPool(info_.device, &pool, nullptr, &pool_) != VK_SUCCESS)
        problem_ = name() + " gives no command pool";
}

VulkanApp::~VulkanApp() {
    if (info_.device != VK_NULL_HANDLE) {
        vkDestroyCommandPool(info_.device, pool_, nullptr);
        vkDestroyDevice(info_.device, nullptr);
    }
    if (info_.instance != VK_NULL_HANDLE)
        vkDestroyInstance(info_.instance, nullptr);
}

std::string VulkanApp::name() const {
    VkPhysicalDeviceProperties properties{};
    vkGetPhysicalDeviceProperties(info_.physical_device, &properties);
    return properties.deviceName;
}

bool VulkanApp::has(const char* extension) const noexcept {
    return std::ranges::any_of(
        extensions_, [extension](const char* each) { return std::strcmp(each, extension) == 0; });
}

VkCommandBuffer VulkanApp::commands() const {
    const VkCommandBufferAllocateInfo allocate{.sType =
                                                   VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                               .pNext = nullptr,
                                               .commandPool = pool_,
                                               .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                               .commandBufferCount = 1};
    VkCommandBuffer commands = VK_NULL_HANDLE;
    vkAllocateCommandBuffers(info_.device, &allocate, &commands);
    return commands;
}

} // namespace bench
