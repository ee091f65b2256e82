// SPDX-License-Identifier: MIT
#include <sluice/vulkan_context.hpp>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <drm_fourcc.h>

#include "vulkan/vulkan_caps_cache.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_enumerate.hpp"
#include "vulkan/vulkan_error.hpp"
#include <sluice/vulkan_format.hpp>

namespace sluice {

namespace {

constexpr const char* operation = "VulkanContext::create";

/// The functions needed before and around a device.
// clang-format off
#define SLUICE_VK_CONTEXT_FUNCTIONS(F)               \
    F(CreateDevice)                                  \
    F(EnumerateDeviceExtensionProperties)            \
    F(EnumeratePhysicalDevices)                      \
    F(GetDeviceProcAddr)                             \
    F(GetPhysicalDeviceExternalSemaphoreProperties)  \
    F(GetPhysicalDeviceImageFormatProperties2)       \
    F(GetPhysicalDeviceProperties)                   \
    F(GetPhysicalDeviceQueueFamilyProperties)
// clang-format on

/// The instance and the device, destroyed in the right order.
struct Owned : VulkanOwner {
    ~Owned() override {
        if (abandoned)
            return;
        if (device != VK_NULL_HANDLE)
            DestroyDevice(device, nullptr);
        if (instance != VK_NULL_HANDLE)
            DestroyInstance(instance, nullptr);
    }

    /// Looks the instance's functions up. \returns the name of one that is missing, or null.
    const char* load(PFN_vkGetInstanceProcAddr get) {
// NOLINTBEGIN(bugprone-macro-parentheses): a member's name
#define F(name)                                                                                    \
    name = reinterpret_cast<PFN_vk##name>(get(instance, "vk" #name));                              \
    if (name == nullptr)                                                                           \
        return "vk" #name;
        // NOLINTEND(bugprone-macro-parentheses)
        SLUICE_VK_CONTEXT_FUNCTIONS(F)
#undef F
        return nullptr;
    }

    VkInstance instance = VK_NULL_HANDLE;
    VkDevice device = VK_NULL_HANDLE;
    PFN_vkDestroyInstance DestroyInstance = nullptr; // there where the instance is
    PFN_vkDestroyDevice DestroyDevice = nullptr;     // there where the device is
#define F(name) PFN_vk##name name = nullptr;         // NOLINT(bugprone-macro-parentheses)
    SLUICE_VK_CONTEXT_FUNCTIONS(F)
#undef F
};

/// A physical device with what was found out about it.
struct Candidate {
    VkPhysicalDevice device = VK_NULL_HANDLE;
    VkPhysicalDeviceProperties properties{};
    std::uint32_t queue_family = 0;
    std::string refusal; // empty where it will do
};

std::vector<const char*> device_extensions(const VulkanContextInfo& info) {
    const auto required = VulkanDevice::required_extensions();
    std::vector<const char*> all(required.begin(), required.end());
    all.insert(all.end(), info.device_extensions.begin(), info.device_extensions.end());
    return all;
}

Candidate examine(const Owned& vk, VkPhysicalDevice device, const VulkanContextInfo& info) {
    Candidate found{.device = device, .properties = {}, .queue_family = 0, .refusal = {}};
    vk.GetPhysicalDeviceProperties(device, &found.properties);
    if (info.type && found.properties.deviceType != *info.type) {
        found.refusal = "not of the type asked for";
        return found;
    }
    if (found.properties.apiVersion < info.api_version) {
        found.refusal = "has Vulkan " +
                        std::to_string(VK_API_VERSION_MAJOR(found.properties.apiVersion)) + "." +
                        std::to_string(VK_API_VERSION_MINOR(found.properties.apiVersion)) + " only";
        return found;
    }

    std::vector<VkExtensionProperties> extensions;
    if (const VkResult result = enumerate(extensions,
                                          [&](std::uint32_t* count, VkExtensionProperties* into) {
                                              return vk.EnumerateDeviceExtensionProperties(
                                                  device, nullptr, count, into);
                                          });
        result != VK_SUCCESS) {
        found.refusal = "does not list its extensions: " + vk_result_text(result);
        return found;
    }
    for (const char* wanted : device_extensions(info)) {
        const bool has = std::ranges::any_of(extensions, [&](const VkExtensionProperties& each) {
            return std::strcmp(each.extensionName, wanted) == 0;
        });
        if (!has) {
            found.refusal = std::string("lacks ") + wanted;
            return found;
        }
    }

    std::uint32_t count = 0;
    vk.GetPhysicalDeviceQueueFamilyProperties(device, &count, nullptr);
    std::vector<VkQueueFamilyProperties> families(count);
    vk.GetPhysicalDeviceQueueFamilyProperties(device, &count, families.data());
    const auto graphics = std::ranges::find_if(families, [](const VkQueueFamilyProperties& each) {
        return (each.queueFlags & VK_QUEUE_GRAPHICS_BIT) != 0;
    });
    if (graphics == families.end()) {
        found.refusal = "has no graphics queue";
        return found;
    }
    found.queue_family = static_cast<std::uint32_t>(graphics - families.begin());

    constexpr VkExternalSemaphoreFeatureFlags both =
        VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT;
    if ((sync_fd_features(vk.GetPhysicalDeviceExternalSemaphoreProperties, device) & both) !=
        both) {
        found.refusal = "does not exchange semaphores as SYNC_FD";
        return found;
    }
    // The extension may be listed and the export refused all the same (lavapipe without udmabuf).
    const VulkanImageAnswer answer =
        ask_image(vk.GetPhysicalDeviceImageFormatProperties2, device,
                  {.format = vulkan_format(DRM_FORMAT_XRGB8888),
                   .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT},
                  VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT, DRM_FORMAT_MOD_LINEAR);
    if (answer.result != VK_SUCCESS)
        found.refusal =
            "the driver has no such LINEAR image for this usage: " + vk_result_text(answer.result);
    else if ((answer.dma_buf & VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT) == 0)
        found.refusal = "the driver does not export it as a dma-buf";
    return found;
}

VkResult create_instance(Owned& owned, const VulkanContextInfo& info) {
    const auto create = reinterpret_cast<PFN_vkCreateInstance>(
        info.get_instance_proc_addr(VK_NULL_HANDLE, "vkCreateInstance"));
    if (create == nullptr)
        return VK_ERROR_INITIALIZATION_FAILED;
    const VkApplicationInfo application{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                        .pNext = nullptr,
                                        .pApplicationName = info.application_name,
                                        .applicationVersion = 0,
                                        .pEngineName = "sluice",
                                        .engineVersion = 0,
                                        .apiVersion = info.api_version};
    const VkInstanceCreateInfo instance{
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = nullptr,
        .flags = 0,
        .pApplicationInfo = &application,
        .enabledLayerCount = static_cast<std::uint32_t>(info.instance_layers.size()),
        .ppEnabledLayerNames = info.instance_layers.data(),
        .enabledExtensionCount = static_cast<std::uint32_t>(info.instance_extensions.size()),
        .ppEnabledExtensionNames = info.instance_extensions.data()};
    VkInstance created = VK_NULL_HANDLE;
    const VkResult result = create(&instance, nullptr, &created);
    if (result == VK_SUCCESS) {
        owned.instance = created;
        owned.DestroyInstance = reinterpret_cast<PFN_vkDestroyInstance>(
            info.get_instance_proc_addr(created, "vkDestroyInstance"));
    }
    return result;
}

VkResult create_device(Owned& owned, const Candidate& chosen, const VulkanContextInfo& info) {
    const float priority = 1.0F;
    const VkDeviceQueueCreateInfo queue{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                        .pNext = nullptr,
                                        .flags = 0,
                                        .queueFamilyIndex = chosen.queue_family,
                                        .queueCount = 1,
                                        .pQueuePriorities = &priority};
    const auto extensions = device_extensions(info);
    const VkDeviceCreateInfo device{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                    .pNext = info.device_features,
                                    .flags = 0,
                                    .queueCreateInfoCount = 1,
                                    .pQueueCreateInfos = &queue,
                                    .enabledLayerCount = 0,
                                    .ppEnabledLayerNames = nullptr,
                                    .enabledExtensionCount =
                                        static_cast<std::uint32_t>(extensions.size()),
                                    .ppEnabledExtensionNames = extensions.data(),
                                    .pEnabledFeatures = nullptr};
    VkDevice created = VK_NULL_HANDLE;
    const VkResult result = owned.CreateDevice(chosen.device, &device, nullptr, &created);
    if (result == VK_SUCCESS) {
        owned.device = created;
        owned.DestroyDevice = reinterpret_cast<PFN_vkDestroyDevice>(
            owned.GetDeviceProcAddr(created, "vkDestroyDevice"));
    }
    return result;
}

/// GPUs before CPU drivers, otherwise in the loader's order.
bool comes_first(const Candidate& a, const Candidate& b) {
    const auto slow = [](const Candidate& each) {
        return each.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    };
    return slow(a) < slow(b);
}

} // namespace

VulkanContext::VulkanContext(const VulkanDevice& device, std::string why) noexcept
    : device_(device), why_(std::move(why)) {}

Result<VulkanContext> VulkanContext::create(const VulkanContextInfo& info) noexcept {
    if (info.get_instance_proc_addr == nullptr)
        return tl::unexpected(Error{.code = Errc::invalid_argument,
                                    .operation = operation,
                                    .object = "VulkanContextInfo::get_instance_proc_addr",
                                    .problem = "is null",
                                    .remedy = "Pass the loader's vkGetInstanceProcAddr"});
    auto owned = std::make_shared<Owned>();
    VkResult result = create_instance(*owned, info);
    if (result != VK_SUCCESS)
        return tl::unexpected(
            failed_vk(result, operation, "instance", "vkCreateInstance failed",
                      "Install a Vulkan driver (mesa-vulkan-drivers has lavapipe) "
                      "and the layers asked for"));
    if (const char* missing = owned->load(info.get_instance_proc_addr))
        return tl::unexpected(Error{.code = Errc::unsupported,
                                    .operation = operation,
                                    .object = missing,
                                    .problem = "the instance does not have the function",
                                    .remedy = "Ask for Vulkan 1.1 or up"});

    std::vector<VkPhysicalDevice> devices;
    result = enumerate(devices, [&](std::uint32_t* count, VkPhysicalDevice* into) {
        return owned->EnumeratePhysicalDevices(owned->instance, count, into);
    });
    if (result != VK_SUCCESS)
        return tl::unexpected(
            failed_vk(result, operation, "instance", "vkEnumeratePhysicalDevices failed",
                      "Install a Vulkan driver (mesa-vulkan-drivers has lavapipe)"));

    std::vector<Candidate> candidates;
    candidates.reserve(devices.size());
    for (VkPhysicalDevice device : devices)
        candidates.push_back(examine(*owned, device, info));
    std::ranges::stable_sort(candidates, comes_first);
    std::string why;
    const Candidate* chosen = nullptr;
    for (const Candidate& each : candidates) {
        why += (why.empty() ? "" : "; ") + std::string(each.properties.deviceName) + ": ";
        if (!each.refusal.empty())
            why += each.refusal;
        else if (chosen == nullptr)
            why += "exports LINEAR dma-bufs and fences, taken";
        else
            why += "would do too";
        if (chosen == nullptr && each.refusal.empty())
            chosen = &each;
    }
    if (chosen == nullptr)
        return tl::unexpected(Error{.code = Errc::unsupported,
                                    .operation = operation,
                                    .object = "this machine's Vulkan devices",
                                    .problem = why.empty() ? "there are none" : why,
                                    .remedy = "Use a driver that exports dma-bufs (lavapipe needs "
                                              "Mesa 24 or up and a kernel with /dev/udmabuf)"});
    result = create_device(*owned, *chosen, info);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, chosen->properties.deviceName,
                                        "vkCreateDevice failed",
                                        "Ask for fewer features or extensions"));

    const auto get_queue = reinterpret_cast<PFN_vkGetDeviceQueue>(
        owned->GetDeviceProcAddr(owned->device, "vkGetDeviceQueue"));
    VulkanDeviceInfo wrapped{.get_instance_proc_addr = info.get_instance_proc_addr,
                             .instance = owned->instance,
                             .physical_device = chosen->device,
                             .device = owned->device,
                             .queue = VK_NULL_HANDLE,
                             .queue_family = chosen->queue_family,
                             .sampler_ycbcr_conversion = info.sampler_ycbcr_conversion,
                             .idle_attachments = info.idle_attachments};
    get_queue(owned->device, chosen->queue_family, 0, &wrapped.queue);
    auto driver = wrap_device(wrapped, owned);
    if (!driver)
        return tl::unexpected(std::move(driver.error()));
    return VulkanContext(VulkanDevice(std::make_shared<VulkanDevice::State>(std::move(*driver))),
                         std::move(why));
}

} // namespace sluice
