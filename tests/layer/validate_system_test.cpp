// SPDX-License-Identifier: MIT
// The way of a message through the Khronos loader, on a real driver.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

#include "layer/plain_program.hpp"
#include "support/requires.hpp"

namespace {

constexpr std::uint32_t size = 4096;

VKAPI_ATTR VkBool32 VKAPI_CALL hear(VkDebugUtilsMessageSeverityFlagBitsEXT /*severity*/,
                                    VkDebugUtilsMessageTypeFlagsEXT /*types*/,
                                    const VkDebugUtilsMessengerCallbackDataEXT* data, void* into) {
    if (data->pMessageIdName != nullptr)
        static_cast<std::vector<std::string>*>(into)->emplace_back(data->pMessageIdName);
    return VK_FALSE;
}

/// What two messengers hear of an import of \p bytes of a buffer that has one page.
std::vector<std::string> import(VkDeviceSize bytes) {
    std::vector<std::string> heard;
    const std::array names{VK_EXT_DEBUG_UTILS_EXTENSION_NAME};
    const std::array layers{"VK_LAYER_SLUICE_dma_buf"};
    const VkApplicationInfo about{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                  .apiVersion = VK_API_VERSION_1_1};
    const VkInstanceCreateInfo info{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                    .pApplicationInfo = &about,
                                    .enabledLayerCount = layers.size(),
                                    .ppEnabledLayerNames = layers.data(),
                                    .enabledExtensionCount = names.size(),
                                    .ppEnabledExtensionNames = names.data()};
    VkInstance instance = VK_NULL_HANDLE;
    EXPECT_EQ(vkCreateInstance(&info, nullptr, &instance), VK_SUCCESS);
    const auto create = reinterpret_cast<PFN_vkCreateDebugUtilsMessengerEXT>(
        vkGetInstanceProcAddr(instance, "vkCreateDebugUtilsMessengerEXT"));
    const auto destroy = reinterpret_cast<PFN_vkDestroyDebugUtilsMessengerEXT>(
        vkGetInstanceProcAddr(instance, "vkDestroyDebugUtilsMessengerEXT"));
    const VkDebugUtilsMessengerCreateInfoEXT wants{
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = &hear,
        .pUserData = &heard};
    std::array<VkDebugUtilsMessengerEXT, 2> messengers{};
    for (VkDebugUtilsMessengerEXT& each : messengers)
        EXPECT_EQ(create(instance, &wants, nullptr, &each), VK_SUCCESS);

    VkPhysicalDevice physical = VK_NULL_HANDLE;
    std::uint32_t count = 1;
    vkEnumeratePhysicalDevices(instance, &count, &physical);
    const float priority = 1;
    const VkDeviceQueueCreateInfo queue{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                        .queueFamilyIndex = 0,
                                        .queueCount = 1,
                                        .pQueuePriorities = &priority};
    const std::array extensions{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME};
    const VkDeviceCreateInfo device_info{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                         .queueCreateInfoCount = 1,
                                         .pQueueCreateInfos = &queue,
                                         .enabledExtensionCount = extensions.size(),
                                         .ppEnabledExtensionNames = extensions.data()};
    VkDevice device = VK_NULL_HANDLE;
    EXPECT_EQ(vkCreateDevice(physical, &device_info, nullptr, &device), VK_SUCCESS);
    const VkImportMemoryFdInfoKHR from{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                       .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
                                       .fd = plain::make_dma_buf(size)};
    const VkMemoryAllocateInfo allocate{
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &from, .allocationSize = bytes};
    VkDeviceMemory memory = VK_NULL_HANDLE;
    (void)vkAllocateMemory(device, &allocate, nullptr, &memory); // refused or not
    vkFreeMemory(device, memory, nullptr);
    vkDestroyDevice(device, nullptr);
    for (VkDebugUtilsMessengerEXT each : messengers)
        destroy(instance, each, nullptr);
    vkDestroyInstance(instance, nullptr);
    return heard;
}

TEST(LayerValidateSystemTest, TheLoaderBringsAMessageToEveryMessenger) {
    SLUICE_REQUIRES(access("/dev/udmabuf", R_OK | W_OK) == 0, "/dev/udmabuf does not open");
    setenv("VK_LAYER_PATH", SLUICE_LAYER_MANIFESTS, 1);
    setenv("VK_SLUICE_DMA_BUF_VALIDATE", "1", 1);
    const std::string id = "SLUICE-allocation-beyond-buffer";
    EXPECT_EQ(import(2 * size), (std::vector<std::string>{id, id}));
    EXPECT_EQ(import(size), std::vector<std::string>());
    unsetenv("VK_SLUICE_DMA_BUF_VALIDATE");
    EXPECT_EQ(import(2 * size), std::vector<std::string>()) << "it is off";
}

} // namespace
