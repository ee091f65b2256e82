// SPDX-License-Identifier: MIT
#include "layer/fake_icd.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <type_traits>
#include <utility>

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vulkan/vk_icd.h>

#include "layer/fake_icd_functions.hpp"
#include "support/fake_sync_file.hpp"

namespace sluice::test {

namespace {

FakeIcd* current = nullptr;

FakeIcd& driver() {
    // A call that comes after the driver has gone cannot be told to anybody any more.
    if (current == nullptr)
        std::abort();
    return *current;
}

constexpr auto dma_buf = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
constexpr auto host_pointer = VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT;
constexpr auto sync_fd = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT;
constexpr auto with_modifier = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT;
constexpr std::uint32_t queues_of_a_family = 2;
constexpr VkDeviceSize page = 4096;

const std::array instance_extensions{VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
                                     VK_KHR_EXTERNAL_MEMORY_CAPABILITIES_EXTENSION_NAME,
                                     VK_KHR_EXTERNAL_SEMAPHORE_CAPABILITIES_EXTENSION_NAME,
                                     VK_KHR_GET_PHYSICAL_DEVICE_PROPERTIES_2_EXTENSION_NAME};

// Handles are pointers or, on 32-bit machines, some of them numbers.
template <typename Handle> std::uint64_t number(Handle handle) {
    if constexpr (std::is_pointer_v<Handle>)
        return reinterpret_cast<std::uintptr_t>(handle);
    else
        return handle;
}

template <typename Handle> Handle handle(std::uint64_t of) {
    if constexpr (std::is_pointer_v<Handle>)
        return reinterpret_cast<Handle>(static_cast<std::uintptr_t>(of)); // NOLINT(*-int-to-ptr)
    else
        return of;
}

/// The structure of \p type in the chain that starts at \p next, or null.
template <typename T> const T* chained(const void* next, VkStructureType type) {
    for (auto* each = static_cast<const VkBaseInStructure*>(next); each; each = each->pNext)
        if (each->sType == type)
            return reinterpret_cast<const T*>(each);
    return nullptr;
}

std::vector<VkStructureType> chain_types(const void* next) {
    std::vector<VkStructureType> types;
    for (auto* each = static_cast<const VkBaseInStructure*>(next); each; each = each->pNext)
        types.push_back(each->sType);
    return types;
}

/// Vulkan's way to hand out a list: its length alone, or as much of it as there is room for.
template <typename T, typename Fill>
VkResult list_out(std::size_t size, std::uint32_t* count, T* into, Fill fill) {
    const auto all = static_cast<std::uint32_t>(size);
    if (into == nullptr) {
        *count = all;
        return VK_SUCCESS;
    }
    *count = std::min(*count, all);
    for (std::uint32_t each = 0; each < *count; ++each)
        fill(into[each], each);
    return *count < all ? VK_INCOMPLETE : VK_SUCCESS;
}

template <typename Names>
VkResult extensions_out(const Names& names, std::uint32_t* count, VkExtensionProperties* into) {
    return list_out(names.size(), count, into, [&](VkExtensionProperties& one, std::size_t each) {
        one = {.specVersion = 1};
        const std::string_view name = names[each];
        name.copy(one.extensionName, sizeof one.extensionName - 1);
    });
}

VkDeviceSize round_up(VkDeviceSize value, VkDeviceSize to) {
    return (value + to - 1) / to * to;
}

// The names of the commands, as types.
#define NAME(name, of, needs)                                                                      \
    struct Name##name {                                                                            \
        static constexpr const char* text = #of;                                                   \
    };
SLUICE_TEST_COMMANDS(NAME)
#undef NAME

std::string words(std::uint64_t of) {
    std::array<char, 32> text{};
    (void)std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(of));
    return text.data();
}

} // namespace

struct FakeIcd::SyncPoint {
    SyncPoint() = default;
    ~SyncPoint() {
        if (file >= 0)
            close(file);
    }
    SyncPoint(const SyncPoint&) = delete;
    SyncPoint& operator=(const SyncPoint&) = delete;

    bool imported = false;
    bool done = false;                    // a signal operation that has been executed
    int file = -1;                        // the sync_file that was imported or exported
    std::shared_ptr<ino_t> exported = {}; // where its inode is written down

    [[nodiscard]] bool has_signalled() const {
        if (!imported || file < 0)
            return imported || done;
        if (const auto status = read_fake_status(file))
            return *status != 0;
        pollfd one{.fd = file, .events = POLLIN, .revents = 0}; // a real one
        return poll(&one, 1, 0) == 1;
    }
};

/// One call of a function: in force as long as it lives, with the driver locked.
class FakeIcd::Call {
public:
    explicit Call(const char* function, std::uint64_t queue = 0)
        : fake_(driver()), function_(function), queue_(queue), lock_(fake_.mutex_) {
        if (queue_ != 0) {
            Object& one = fake_.use("queue", queue_, function_);
            if (std::exchange(one.busy, true))
                fake_.complain("vk" + std::string(function_) +
                               " while another thread is in a function of the queue");
        }
        if (fake_.on_call || queue_ != 0) { // others come to the queue in the meantime
            lock_.unlock();
            tell(fake_.on_call);
            lock_.lock();
        }
        const int now = ++fake_.calls_[function_];
        if (fake_.failures_.empty())
            return;
        const auto planned = fake_.failures_.find("vk" + std::string(function_));
        if (planned == fake_.failures_.end())
            return;
        if (const auto found = planned->second.find(now); found != planned->second.end())
            result = found->second;
        // A lost device has no work in flight: what it had may be destroyed.
        if (result == VK_ERROR_DEVICE_LOST)
            fake_.abandon();
    }
    ~Call() {
        if (queue_ != 0)
            fake_.use("queue", queue_, function_).busy = false;
        lock_.unlock();
        tell(fake_.on_return);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    FakeIcd* operator->() const { return &fake_; }
    FakeIcd& operator*() const { return fake_; }
    template <typename Handle> Object& use(const char* kind, Handle of) const {
        return fake_.use(kind, number(of), function_);
    }
    void complain(const std::string& what) const {
        fake_.complain("vk" + std::string(function_) + ": " + what);
    }
    void expect(bool right, const char* what) const {
        if (!right)
            complain(what);
    }
    std::unique_lock<std::mutex>& lock() { return lock_; }

    VkResult result = VK_SUCCESS; ///< What the script makes of it.

private:
    /// Allocates nothing: it may be allocations that the hook counts.
    void tell(const std::function<void(std::string_view)>& hook) const {
        std::array<char, 64> name{};
        if (hook) {
            (void)std::snprintf(name.data(), name.size(), "vk%s", function_);
            hook(name.data());
        }
    }

    FakeIcd& fake_;
    const char* function_;
    std::uint64_t queue_;
    std::unique_lock<std::mutex> lock_;
};

// The functions, named as Vulkan's without the prefix.
struct FakeIcd::Functions {
    // NOLINTBEGIN(readability-non-const-parameter): the signatures are Vulkan's.
    using Allocator = const VkAllocationCallbacks*;

    /// What most of vkCreate... come to.
    template <typename Handle>
    static VkResult create(const Call& call, std::string_view kind, VkDevice device,
                           Allocator allocator, Handle* into, Object object = {}) {
        (void)call.use("device", device);
        if (call.result != VK_SUCCESS)
            return call.result;
        object.kind = kind;
        object.parent = number(device);
        object.allocator = allocator != nullptr;
        *into = handle<Handle>(call->add(std::move(object)));
        return VK_SUCCESS;
    }

    template <typename Handle>
    static void destroy(const char* function, std::string_view kind, VkDevice device, Handle what,
                        Allocator allocator) {
        const Call call(function);
        (void)call.use("device", device);
        call->destroy(kind, number(what), allocator, function);
    }

    // Instances and physical devices.

    static VkResult VKAPI_CALL EnumerateInstanceVersion(std::uint32_t* version) {
        const Call call(__func__);
        *version = VK_API_VERSION_1_3;
        return call.result;
    }

    static VkResult VKAPI_CALL EnumerateInstanceExtensionProperties(const char*,
                                                                    std::uint32_t* count,
                                                                    VkExtensionProperties* into) {
        const Call call(__func__);
        if (call.result != VK_SUCCESS)
            return call.result;
        std::vector<std::string_view> names;
        for (const char* name : instance_extensions)
            if (!call->lacks.contains(name))
                names.emplace_back(name);
        return extensions_out(names, count, into);
    }

    static VkResult VKAPI_CALL EnumerateInstanceLayerProperties(std::uint32_t* count,
                                                                VkLayerProperties*) {
        const Call call(__func__);
        *count = 0;
        return call.result;
    }

    static VkResult VKAPI_CALL CreateInstance(const VkInstanceCreateInfo* info, Allocator allocator,
                                              VkInstance* instance) {
        const Call call(__func__);
        if (call.result != VK_SUCCESS)
            return call.result;
        Object object{.kind = "instance", .allocator = allocator != nullptr};
        object.api_version = info->pApplicationInfo && info->pApplicationInfo->apiVersion
                                 ? info->pApplicationInfo->apiVersion
                                 : VK_API_VERSION_1_0;
        for (const char* name :
             std::span(info->ppEnabledExtensionNames, info->enabledExtensionCount)) {
            if (std::ranges::find(instance_extensions, std::string_view(name)) ==
                    instance_extensions.end() ||
                call->lacks.contains(name))
                return VK_ERROR_EXTENSION_NOT_PRESENT;
            object.on.emplace(name);
        }
        const std::uint64_t made = call->add(std::move(object), true);
        for (std::size_t each = 0; each < call->physical_devices.size(); ++each)
            call->add({.kind = "physical device", .parent = made, .index = each}, true);
        *instance = handle<VkInstance>(made);
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroyInstance(VkInstance instance, Allocator allocator) {
        const Call call(__func__);
        call->destroy("instance", number(instance), allocator, __func__);
    }

    static std::vector<VkPhysicalDevice> devices_of(const Call& call, VkInstance instance) {
        (void)call.use("instance", instance);
        std::vector<VkPhysicalDevice> all(call->physical_devices.size());
        for (const auto& [one, object] : call->objects_)
            if (object.kind == "physical device" && object.parent == number(instance))
                all[object.index] = handle<VkPhysicalDevice>(one);
        return all;
    }

    static VkResult VKAPI_CALL EnumeratePhysicalDevices(VkInstance instance, std::uint32_t* count,
                                                        VkPhysicalDevice* into) {
        const Call call(__func__);
        if (call.result != VK_SUCCESS)
            return call.result;
        const auto all = devices_of(call, instance);
        return list_out(all.size(), count, into,
                        [&](VkPhysicalDevice& one, std::size_t each) { one = all[each]; });
    }

    static VkResult VKAPI_CALL EnumeratePhysicalDeviceGroups(
        VkInstance instance, std::uint32_t* count, VkPhysicalDeviceGroupProperties* into) {
        const Call call(__func__);
        if (call.result != VK_SUCCESS)
            return call.result;
        const auto all = devices_of(call, instance);
        return list_out(all.size(), count, into,
                        [&](VkPhysicalDeviceGroupProperties& one, std::size_t each) {
                            one.physicalDeviceCount = 1;
                            one.physicalDevices[0] = all[each];
                            one.subsetAllocation = VK_FALSE;
                        });
    }

    static const PhysicalDevice& physical(const Call& call, VkPhysicalDevice device) {
        return call->physical(call.use("physical device", device));
    }

    static VkResult VKAPI_CALL EnumerateDeviceExtensionProperties(VkPhysicalDevice device,
                                                                  const char*, std::uint32_t* count,
                                                                  VkExtensionProperties* into) {
        const Call call(__func__);
        if (call.result != VK_SUCCESS)
            return call.result;
        return extensions_out(call->extensions(physical(call, device)), count, into);
    }

    static VkResult VKAPI_CALL EnumerateDeviceLayerProperties(VkPhysicalDevice,
                                                              std::uint32_t* count,
                                                              VkLayerProperties*) {
        const Call call(__func__);
        *count = 0;
        return call.result;
    }

    static void VKAPI_CALL GetPhysicalDeviceFeatures(VkPhysicalDevice device,
                                                     VkPhysicalDeviceFeatures* into) {
        const Call call(__func__);
        (void)physical(call, device);
        *into = {.sparseBinding = VK_TRUE};
    }

    static void VKAPI_CALL GetPhysicalDeviceFeatures2(VkPhysicalDevice device,
                                                      VkPhysicalDeviceFeatures2* into) {
        GetPhysicalDeviceFeatures(device, &into->features);
        for (auto* each = static_cast<VkBaseOutStructure*>(into->pNext); each; each = each->pNext)
            switch (each->sType) {
            case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES:
                reinterpret_cast<VkPhysicalDeviceTimelineSemaphoreFeatures*>(each)
                    ->timelineSemaphore = VK_TRUE;
                break;
            case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES:
                reinterpret_cast<VkPhysicalDeviceVulkan12Features*>(each)->timelineSemaphore =
                    VK_TRUE;
                break;
            case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SYNCHRONIZATION_2_FEATURES:
                reinterpret_cast<VkPhysicalDeviceSynchronization2Features*>(each)
                    ->synchronization2 = VK_TRUE;
                break;
            case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES:
                reinterpret_cast<VkPhysicalDeviceVulkan13Features*>(each)->synchronization2 =
                    VK_TRUE;
                break;
            case VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROTECTED_MEMORY_FEATURES:
                reinterpret_cast<VkPhysicalDeviceProtectedMemoryFeatures*>(each)->protectedMemory =
                    VK_TRUE;
                break;
            default:
                break;
            }
    }

    static void VKAPI_CALL GetPhysicalDeviceProperties(VkPhysicalDevice device,
                                                       VkPhysicalDeviceProperties* into) {
        const Call call(__func__);
        const PhysicalDevice& on = physical(call, device);
        *into = {.apiVersion = on.api_version, .deviceType = on.type};
        on.name.copy(into->deviceName, sizeof into->deviceName - 1);
    }

    static void VKAPI_CALL GetPhysicalDeviceProperties2(VkPhysicalDevice device,
                                                        VkPhysicalDeviceProperties2* into) {
        GetPhysicalDeviceProperties(device, &into->properties);
        for (auto* each = static_cast<VkBaseOutStructure*>(into->pNext); each; each = each->pNext) {
            if (each->sType ==
                VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT)
                reinterpret_cast<VkPhysicalDeviceExternalMemoryHostPropertiesEXT*>(each)
                    ->minImportedHostPointerAlignment = page;
            if (each->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES)
                reinterpret_cast<VkPhysicalDeviceMaintenance4Properties*>(each)->maxBufferSize =
                    VkDeviceSize{1} << 30U;
        }
    }

    static void VKAPI_CALL GetPhysicalDeviceFormatProperties(VkPhysicalDevice device, VkFormat,
                                                             VkFormatProperties* into) {
        const Call call(__func__);
        (void)physical(call, device);
        *into = {.linearTilingFeatures = ~VkFormatFeatureFlags{0},
                 .optimalTilingFeatures = ~VkFormatFeatureFlags{0},
                 .bufferFeatures = ~VkFormatFeatureFlags{0}};
    }

    static void VKAPI_CALL GetPhysicalDeviceFormatProperties2(VkPhysicalDevice device,
                                                              VkFormat format,
                                                              VkFormatProperties2* into) {
        GetPhysicalDeviceFormatProperties(device, format, &into->formatProperties);
        const Call call(__func__);
        const PhysicalDevice& on = physical(call, device);
        if (!call->lists(on, VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME))
            return;
        const auto& modifiers = on.modifiers;
        for (auto* each = static_cast<VkBaseOutStructure*>(into->pNext); each; each = each->pNext)
            if (each->sType == VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT) {
                auto* list = reinterpret_cast<VkDrmFormatModifierPropertiesListEXT*>(each);
                (void)list_out(modifiers.size(), &list->drmFormatModifierCount,
                               list->pDrmFormatModifierProperties,
                               [&](auto& one, std::size_t at) { one = modifiers[at]; });
            }
    }

    static VkResult VKAPI_CALL GetPhysicalDeviceImageFormatProperties(
        VkPhysicalDevice device, VkFormat, VkImageType, VkImageTiling, VkImageUsageFlags,
        VkImageCreateFlags, VkImageFormatProperties* into) {
        const Call call(__func__);
        (void)physical(call, device);
        if (call.result != VK_SUCCESS)
            return call.result;
        *into = {.maxExtent = {16384, 16384, 1},
                 .maxMipLevels = 1,
                 .maxArrayLayers = 1,
                 .sampleCounts = VK_SAMPLE_COUNT_1_BIT,
                 .maxResourceSize = VkDeviceSize{1} << 32};
        return VK_SUCCESS;
    }

    static VkExternalMemoryProperties external_memory(const Call& call, const PhysicalDevice& on,
                                                      VkExternalMemoryHandleTypeFlags type) {
        if (type == host_pointer)
            return {.externalMemoryFeatures = VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT,
                    .compatibleHandleTypes = type};
        if (type != dma_buf || !call->lists(on, VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME))
            return {};
        const VkExternalMemoryFeatureFlags alone =
            on.requires_dedicated ? VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT : 0;
        return {.externalMemoryFeatures = on.memory_features | alone,
                .exportFromImportedHandleTypes = type,
                .compatibleHandleTypes = type};
    }

    static VkResult VKAPI_CALL GetPhysicalDeviceImageFormatProperties2(
        VkPhysicalDevice device, const VkPhysicalDeviceImageFormatInfo2* info,
        VkImageFormatProperties2* into) {
        if (const VkResult result = GetPhysicalDeviceImageFormatProperties(
                device, info->format, info->type, info->tiling, info->usage, info->flags,
                &into->imageFormatProperties);
            result != VK_SUCCESS)
            return result;
        const Call call(__func__);
        const PhysicalDevice& on = physical(call, device);
        if (call.result != VK_SUCCESS)
            return call.result;
        const auto* modifier = chained<VkPhysicalDeviceImageDrmFormatModifierInfoEXT>(
            info->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT);
        if (modifier && std::ranges::find(on.modifiers, modifier->drmFormatModifier,
                                          &VkDrmFormatModifierPropertiesEXT::drmFormatModifier) ==
                            on.modifiers.end())
            return VK_ERROR_FORMAT_NOT_SUPPORTED;
        call.expect((modifier == nullptr && info->tiling != with_modifier) ||
                        call->lists(on, VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME),
                    "it knows no modifiers");
        const auto* external = chained<VkPhysicalDeviceExternalImageFormatInfo>(
            info->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO);
        for (auto* each = static_cast<VkBaseOutStructure*>(into->pNext); each; each = each->pNext)
            if (external && each->sType == VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES)
                reinterpret_cast<VkExternalImageFormatProperties*>(each)->externalMemoryProperties =
                    external_memory(call, on, external->handleType);
        return VK_SUCCESS;
    }

    static void VKAPI_CALL GetPhysicalDeviceSparseImageFormatProperties(
        VkPhysicalDevice, VkFormat, VkImageType, VkSampleCountFlagBits, VkImageUsageFlags,
        VkImageTiling, std::uint32_t* count, VkSparseImageFormatProperties*) {
        const Call call(__func__);
        *count = 0;
    }

    static void VKAPI_CALL GetPhysicalDeviceSparseImageFormatProperties2(
        VkPhysicalDevice, const VkPhysicalDeviceSparseImageFormatInfo2*, std::uint32_t* count,
        VkSparseImageFormatProperties2*) {
        const Call call(__func__);
        *count = 0;
    }

    static void family_out(const PhysicalDevice& on, std::size_t each,
                           VkQueueFamilyProperties& one) {
        one = {.queueFlags = on.queue_families[each], .queueCount = queues_of_a_family};
    }

    static void VKAPI_CALL GetPhysicalDeviceQueueFamilyProperties(VkPhysicalDevice device,
                                                                  std::uint32_t* count,
                                                                  VkQueueFamilyProperties* into) {
        const Call call(__func__);
        const PhysicalDevice& on = physical(call, device);
        (void)list_out(on.queue_families.size(), count, into,
                       [&](auto& one, std::size_t each) { family_out(on, each, one); });
    }

    static void VKAPI_CALL GetPhysicalDeviceQueueFamilyProperties2(VkPhysicalDevice device,
                                                                   std::uint32_t* count,
                                                                   VkQueueFamilyProperties2* into) {
        const Call call(__func__);
        const PhysicalDevice& on = physical(call, device);
        (void)list_out(on.queue_families.size(), count, into, [&](auto& one, std::size_t each) {
            family_out(on, each, one.queueFamilyProperties);
        });
    }

    static void VKAPI_CALL GetPhysicalDeviceMemoryProperties(
        VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties* into) {
        const Call call(__func__);
        *into = {.memoryHeapCount = 1};
        for (const VkMemoryPropertyFlags flags : physical(call, device).memory_types)
            into->memoryTypes[into->memoryTypeCount++].propertyFlags = flags;
        into->memoryHeaps[0] = {.size = VkDeviceSize{1} << 40,
                                .flags = VK_MEMORY_HEAP_DEVICE_LOCAL_BIT};
    }

    static void VKAPI_CALL GetPhysicalDeviceMemoryProperties2(
        VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties2* into) {
        GetPhysicalDeviceMemoryProperties(device, &into->memoryProperties);
    }

    static void VKAPI_CALL GetPhysicalDeviceExternalBufferProperties(
        VkPhysicalDevice device, const VkPhysicalDeviceExternalBufferInfo* info,
        VkExternalBufferProperties* into) {
        const Call call(__func__);
        into->externalMemoryProperties =
            external_memory(call, physical(call, device), info->handleType);
    }

    static void VKAPI_CALL GetPhysicalDeviceExternalFenceProperties(
        VkPhysicalDevice, const VkPhysicalDeviceExternalFenceInfo*,
        VkExternalFenceProperties* into) {
        const Call call(__func__);
        into->externalFenceFeatures = 0;
    }

    static void VKAPI_CALL GetPhysicalDeviceExternalSemaphoreProperties(
        VkPhysicalDevice device, const VkPhysicalDeviceExternalSemaphoreInfo* info,
        VkExternalSemaphoreProperties* into) {
        const Call call(__func__);
        const auto* type = chained<VkSemaphoreTypeCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO);
        const bool knows = info->handleType == sync_fd &&
                           !(type && type->semaphoreType == VK_SEMAPHORE_TYPE_TIMELINE);
        into->externalSemaphoreFeatures = knows ? physical(call, device).semaphore_features : 0;
        into->exportFromImportedHandleTypes = into->compatibleHandleTypes = knows ? sync_fd : 0;
    }

    static VkResult VKAPI_CALL CreateDebugUtilsMessengerEXT(
        VkInstance instance, const VkDebugUtilsMessengerCreateInfoEXT* info, Allocator allocator,
        VkDebugUtilsMessengerEXT* messenger) {
        const Call call(__func__);
        (void)call.use("instance", instance);
        if (call.result != VK_SUCCESS)
            return call.result;
        Object object{.kind = "messenger", .parent = number(instance)};
        object.allocator = allocator != nullptr;
        object.messenger = *info;
        *messenger = handle<VkDebugUtilsMessengerEXT>(call->add(std::move(object)));
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroyDebugUtilsMessengerEXT(VkInstance instance,
                                                         VkDebugUtilsMessengerEXT messenger,
                                                         Allocator allocator) {
        const Call call(__func__);
        (void)call.use("instance", instance);
        call->destroy("messenger", number(messenger), allocator, __func__);
    }

    static void VKAPI_CALL SubmitDebugUtilsMessageEXT(
        VkInstance instance, VkDebugUtilsMessageSeverityFlagBitsEXT severity,
        VkDebugUtilsMessageTypeFlagsEXT types, const VkDebugUtilsMessengerCallbackDataEXT* data) {
        std::vector<VkDebugUtilsMessengerCreateInfoEXT> listeners;
        {
            const Call call(__func__);
            (void)call.use("instance", instance);
            for (const auto& [one, object] : call->objects_)
                if (object.kind == "messenger" && object.parent == number(instance) &&
                    (object.messenger.messageSeverity & VkFlags{severity}) != 0 &&
                    (object.messenger.messageType & types) != 0)
                    listeners.push_back(object.messenger);
        }
        for (const auto& each : listeners)
            (void)each.pfnUserCallback(severity, types, data, each.pUserData);
    }

    // Devices and queues.

    static VkResult VKAPI_CALL CreateDevice(VkPhysicalDevice on, const VkDeviceCreateInfo* info,
                                            Allocator allocator, VkDevice* device) {
        const Call call(__func__);
        const Object& where = call.use("physical device", on);
        const PhysicalDevice& with = call->physical(where);
        if (call.result != VK_SUCCESS)
            return call.result;
        const Object& instance = call.use("instance", handle<VkInstance>(where.parent));
        Object object{.kind = "device", .parent = where.parent};
        object.allocator = allocator != nullptr;
        object.api_version = std::min(instance.api_version, with.api_version);
        object.index = where.index;
        object.on = instance.on; // their functions of devices
        const auto may = call->extensions(with);
        DeviceRequest request{with.name, {}, chain_types(info->pNext)};
        for (const char* name :
             std::span(info->ppEnabledExtensionNames, info->enabledExtensionCount)) {
            if (std::ranges::find(may, name) == may.end())
                return VK_ERROR_EXTENSION_NOT_PRESENT;
            object.on.emplace(name);
            request.extensions.emplace_back(name);
        }
        const std::uint64_t made = call->add(std::move(object), true);
        for (const auto& each : std::span(info->pQueueCreateInfos, info->queueCreateInfoCount)) {
            call.expect(each.queueFamilyIndex < with.queue_families.size() &&
                            each.queueCount <= queues_of_a_family,
                        "there are not so many queues");
            for (std::uint32_t at = 0; at < each.queueCount; ++at) {
                Object queue{.kind = "queue", .parent = made, .index = at};
                queue.family = each.queueFamilyIndex;
                queue.queue_flags = each.flags;
                call->queues_.push_back(call->add(std::move(queue), true));
            }
        }
        call->created_devices_.push_back(std::move(request));
        *device = handle<VkDevice>(made);
        return VK_SUCCESS;
    }

    static void VKAPI_CALL DestroyDevice(VkDevice device, Allocator allocator) {
        const Call call(__func__);
        call->destroy("device", number(device), allocator, __func__);
    }

    static void queue_out(const Call& call, VkDevice device, const VkDeviceQueueInfo2& info,
                          VkQueue* queue) {
        (void)call.use("device", device);
        *queue = VK_NULL_HANDLE;
        for (const std::uint64_t each : call->queues_) {
            const Object& one = call->objects_.at(each);
            if (one.parent == number(device) && one.family == info.queueFamilyIndex &&
                one.index == info.queueIndex && one.queue_flags == info.flags)
                *queue = handle<VkQueue>(each);
        }
        call.expect(*queue != VK_NULL_HANDLE, "the device was made without that queue");
    }

    static void VKAPI_CALL GetDeviceQueue(VkDevice device, std::uint32_t family,
                                          std::uint32_t index, VkQueue* queue) {
        const Call call(__func__);
        queue_out(call, device, {.queueFamilyIndex = family, .queueIndex = index}, queue);
    }

    static void VKAPI_CALL GetDeviceQueue2(VkDevice device, const VkDeviceQueueInfo2* info,
                                           VkQueue* queue) {
        const Call call(__func__);
        queue_out(call, device, *info, queue);
    }

    static VkResult VKAPI_CALL QueueSubmit(VkQueue queue, std::uint32_t count,
                                           const VkSubmitInfo* submits, VkFence fence) {
        const Call call(__func__, number(queue));
        if (call.result != VK_SUCCESS)
            return call.result;
        std::vector<Batch> batches;
        for (const VkSubmitInfo& each : std::span(submits, count)) {
            const auto* values = chained<VkTimelineSemaphoreSubmitInfo>(
                each.pNext, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
            const auto* covered =
                chained<VkProtectedSubmitInfo>(each.pNext, VK_STRUCTURE_TYPE_PROTECTED_SUBMIT_INFO);
            Batch batch{.command_buffers = {each.pCommandBuffers,
                                            each.pCommandBuffers + each.commandBufferCount},
                        .chain = chain_types(each.pNext),
                        .flags = covered && covered->protectedSubmit
                                     ? VkSubmitFlags{VK_SUBMIT_PROTECTED_BIT}
                                     : VkSubmitFlags{}};
            semaphores_of(each, values, batch);
            for (std::uint32_t at = 0; at < each.waitSemaphoreCount; ++at)
                batch.waits[at].stages = each.pWaitDstStageMask[at];
            batches.push_back(std::move(batch));
        }
        return call->submit(__func__, queue, std::move(batches), fence);
    }

    /// Those of a VkSubmitInfo or VkBindSparseInfo.
    template <typename Info>
    static void semaphores_of(const Info& info, const VkTimelineSemaphoreSubmitInfo* values,
                              Batch& batch) {
        for (std::uint32_t at = 0; at < info.waitSemaphoreCount; ++at)
            batch.waits.push_back({.semaphore = info.pWaitSemaphores[at],
                                   .value = values && at < values->waitSemaphoreValueCount
                                                ? values->pWaitSemaphoreValues[at]
                                                : 0});
        for (std::uint32_t at = 0; at < info.signalSemaphoreCount; ++at)
            batch.signals.push_back({.semaphore = info.pSignalSemaphores[at],
                                     .value = values && at < values->signalSemaphoreValueCount
                                                  ? values->pSignalSemaphoreValues[at]
                                                  : 0});
    }

    static VkResult VKAPI_CALL QueueSubmit2(VkQueue queue, std::uint32_t count,
                                            const VkSubmitInfo2* submits, VkFence fence) {
        const Call call(__func__, number(queue));
        if (call.result != VK_SUCCESS)
            return call.result;
        std::vector<Batch> batches;
        for (const VkSubmitInfo2& each : std::span(submits, count)) {
            Batch batch{.chain = chain_types(each.pNext), .flags = each.flags};
            for (const auto& one : std::span(each.pWaitSemaphoreInfos, each.waitSemaphoreInfoCount))
                batch.waits.push_back(
                    {.semaphore = one.semaphore, .stages = one.stageMask, .value = one.value});
            for (const auto& one : std::span(each.pCommandBufferInfos, each.commandBufferInfoCount))
                batch.command_buffers.push_back(one.commandBuffer);
            for (const auto& one :
                 std::span(each.pSignalSemaphoreInfos, each.signalSemaphoreInfoCount))
                batch.signals.push_back(
                    {.semaphore = one.semaphore, .stages = one.stageMask, .value = one.value});
            batches.push_back(std::move(batch));
        }
        return call->submit(__func__, queue, std::move(batches), fence);
    }

    static VkResult VKAPI_CALL QueueBindSparse(VkQueue queue, std::uint32_t count,
                                               const VkBindSparseInfo* binds, VkFence fence) {
        const Call call(__func__, number(queue));
        if (call.result != VK_SUCCESS)
            return call.result;
        std::vector<Batch> batches;
        for (const VkBindSparseInfo& each : std::span(binds, count)) {
            Batch batch{.chain = chain_types(each.pNext)};
            semaphores_of(each,
                          chained<VkTimelineSemaphoreSubmitInfo>(
                              each.pNext, VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO),
                          batch);
            batches.push_back(std::move(batch));
        }
        return call->submit(__func__, queue, std::move(batches), fence);
    }

    static VkResult VKAPI_CALL QueueWaitIdle(VkQueue queue) {
        Call call(__func__, number(queue));
        if (call.result != VK_SUCCESS)
            return call.result;
        const Object& one = call.use("queue", queue);
        (void)call->wait(
            call.lock(), UINT64_MAX, [&] { return one.pending.empty(); }, __func__);
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL DeviceWaitIdle(VkDevice device) {
        Call call(__func__);
        (void)call.use("device", device);
        if (call.result != VK_SUCCESS)
            return call.result;
        const auto idle = [&] {
            return std::ranges::all_of(call->queues_, [&](std::uint64_t each) {
                const Object& one = call->objects_.at(each);
                return one.parent != number(device) || one.pending.empty();
            });
        };
        (void)call->wait(call.lock(), UINT64_MAX, idle, __func__);
        return VK_SUCCESS;
    }

    // Memory.

    static bool enabled(const Call& call, VkDevice device, std::string_view extension) {
        return call.use("device", device).on.contains(extension);
    }

    static VkResult VKAPI_CALL AllocateMemory(VkDevice device, const VkMemoryAllocateInfo* info,
                                              Allocator allocator, VkDeviceMemory* memory) {
        const Call call(__func__);
        const auto* import = chained<VkImportMemoryFdInfoKHR>(
            info->pNext, VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR);
        const auto* host = chained<VkImportMemoryHostPointerInfoEXT>(
            info->pNext, VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT);
        const auto* exported = chained<VkExportMemoryAllocateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO);
        const auto* alone = chained<VkMemoryDedicatedAllocateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO);
        if (import && import->handleType == 0)
            import = nullptr; // as the specification has it
        const ino_t imported = import ? inode_of(import->fd) : 0;
        if (import) {
            call.expect(import->handleType == dma_buf &&
                            enabled(call, device, VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME),
                        "what is imported is no dma-buf, or dma-bufs are not enabled");
            call.expect(imported != 0, "the fd to import is closed");
        }
        if (host)
            call.expect(enabled(call, device, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME) &&
                            host->handleType == host_pointer && !import && !exported &&
                            reinterpret_cast<std::uintptr_t>(host->pHostPointer) % page == 0 &&
                            info->allocationSize % page == 0,
                        "no whole pages of the host's");
        Object object;
        object.size = info->allocationSize;
        object.types = exported ? exported->handleTypes : 0;
        object.fd = import ? import->fd : -1;
        object.host = host ? host->pHostPointer : nullptr;
        const VkResult result = create(call, "memory", device, allocator, memory, object);
        if (result == VK_SUCCESS && import && call->import_closes) {
            call.use("memory", *memory).fd = dup(import->fd);
            close(import->fd);
        }
        if (result == VK_SUCCESS)
            call->allocations_.push_back(
                {.size = info->allocationSize,
                 .memory_type = info->memoryTypeIndex,
                 .exportable_as = object.types,
                 .dedicated_image = alone ? alone->image : VK_NULL_HANDLE,
                 .dedicated_buffer = alone ? alone->buffer : VK_NULL_HANDLE,
                 .imported = imported,
                 .host = object.host});
        else if (import && call->failed_import_closes)
            close(import->fd);
        return result;
    }

    static void VKAPI_CALL FreeMemory(VkDevice device, VkDeviceMemory memory, Allocator allocator) {
        destroy(__func__, "memory", device, memory, allocator);
    }

    static VkResult VKAPI_CALL MapMemory(VkDevice device, VkDeviceMemory memory,
                                         VkDeviceSize offset, VkDeviceSize, VkMemoryMapFlags,
                                         void** at) {
        const Call call(__func__);
        (void)call.use("device", device);
        Object& one = call.use("memory", memory);
        if (call.result != VK_SUCCESS)
            return call.result;
        call.expect(one.mapped == nullptr, "it is mapped already");
        one.mapped = one.host ? one.host
                              : mmap(nullptr, one.size, PROT_READ | PROT_WRITE, MAP_SHARED,
                                     call->memory_fd(one), 0);
        if (one.mapped == MAP_FAILED) {
            one.mapped = nullptr;
            return VK_ERROR_MEMORY_MAP_FAILED;
        }
        *at = static_cast<std::byte*>(one.mapped) + offset;
        return VK_SUCCESS;
    }

    static void VKAPI_CALL UnmapMemory(VkDevice device, VkDeviceMemory memory) {
        const Call call(__func__);
        (void)call.use("device", device);
        Object& one = call.use("memory", memory);
        call.expect(one.mapped != nullptr, "it is not mapped");
        if (one.mapped != nullptr && one.host == nullptr)
            munmap(one.mapped, one.size);
        one.mapped = nullptr;
    }

    static VkResult VKAPI_CALL MapMemory2KHR(VkDevice device, const VkMemoryMapInfoKHR* info,
                                             void** at) {
        return MapMemory(device, info->memory, info->offset, info->size, info->flags, at);
    }

    static VkResult VKAPI_CALL UnmapMemory2KHR(VkDevice device, const VkMemoryUnmapInfoKHR* info) {
        UnmapMemory(device, info->memory);
        return VK_SUCCESS;
    }

    static VkResult mapped_ranges(const Call& call, std::span<const VkMappedMemoryRange> ranges) {
        for (const VkMappedMemoryRange& each : ranges)
            call.expect(call.use("memory", each.memory).mapped != nullptr, "it is not mapped");
        return call.result;
    }

    static VkResult VKAPI_CALL FlushMappedMemoryRanges(VkDevice, std::uint32_t count,
                                                       const VkMappedMemoryRange* ranges) {
        return mapped_ranges(Call(__func__), std::span(ranges, count));
    }

    static VkResult VKAPI_CALL InvalidateMappedMemoryRanges(VkDevice, std::uint32_t count,
                                                            const VkMappedMemoryRange* ranges) {
        return mapped_ranges(Call(__func__), std::span(ranges, count));
    }

    static VkResult VKAPI_CALL GetMemoryFdKHR(VkDevice device, const VkMemoryGetFdInfoKHR* info,
                                              int* fd) {
        const Call call(__func__);
        (void)call.use("device", device);
        Object& one = call.use("memory", info->memory);
        if (call.result != VK_SUCCESS)
            return call.result;
        call.expect(info->handleType == dma_buf && (one.types & dma_buf) != 0,
                    "the memory was not made to be a dma-buf");
        *fd = dup(call->memory_fd(one)); // like lavapipe's, without CLOEXEC
        return *fd < 0 ? VK_ERROR_TOO_MANY_OBJECTS : VK_SUCCESS;
    }

    static std::uint32_t all_memory_types(const Call& call) {
        return (1U << call->physical_devices[0].memory_types.size()) - 1;
    }

    static VkResult VKAPI_CALL GetMemoryFdPropertiesKHR(VkDevice device,
                                                        VkExternalMemoryHandleTypeFlagBits type,
                                                        int fd, VkMemoryFdPropertiesKHR* into) {
        const Call call(__func__);
        (void)call.use("device", device);
        if (call.result != VK_SUCCESS)
            return call.result;
        call.expect(type == dma_buf, "no dma-buf");
        call.expect(inode_of(fd) != 0, "the fd is closed");
        into->memoryTypeBits = all_memory_types(call);
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL
    GetMemoryHostPointerPropertiesEXT(VkDevice device, VkExternalMemoryHandleTypeFlagBits,
                                      const void*, VkMemoryHostPointerPropertiesEXT* into) {
        const Call call(__func__);
        (void)call.use("device", device);
        into->memoryTypeBits = all_memory_types(call);
        return call.result;
    }

    // Images and buffers.

    /// Notes down what is created, and complains where it is to be shared in no way that there is.
    template <typename External>
    static void note_creation(const Call& call, VkDevice device, const External* external,
                              VkImageTiling tiling, const void* next) {
        const VkExternalMemoryHandleTypeFlags types = external ? external->handleTypes : 0;
        call.expect(((types & dma_buf) == 0 ||
                     enabled(call, device, VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME)) &&
                        ((types & host_pointer) == 0 ||
                         enabled(call, device, VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME)),
                    "what it is to be shared by is not enabled");
        call->creations_.push_back({.types = types, .tiling = tiling, .chain = chain_types(next)});
    }

    static VkResult VKAPI_CALL CreateImage(VkDevice device, const VkImageCreateInfo* info,
                                           Allocator allocator, VkImage* image) {
        const Call call(__func__);
        const auto* list = chained<VkImageDrmFormatModifierListCreateInfoEXT>(
            info->pNext, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT);
        const auto* layout = chained<VkImageDrmFormatModifierExplicitCreateInfoEXT>(
            info->pNext, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT);
        const PhysicalDevice& on = call->physical_devices[call.use("device", device).index];
        call.expect((!list && !layout && info->tiling != with_modifier) ||
                        enabled(call, device, VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME),
                    "modifiers are not enabled");
        note_creation(call, device,
                      chained<VkExternalMemoryImageCreateInfo>(
                          info->pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO),
                      info->tiling, info->pNext);
        Object object;
        object.disjoint = (info->flags & VK_IMAGE_CREATE_DISJOINT_BIT) != 0;
        object.requires_dedicated = on.requires_dedicated;
        object.modifier = layout ? layout->drmFormatModifier
                          : list && list->drmFormatModifierCount > 0
                              ? list->pDrmFormatModifiers[list->drmFormatModifierCount - 1]
                              : 0;
        if (layout) {
            object.planes.assign(layout->pPlaneLayouts,
                                 layout->pPlaneLayouts + layout->drmFormatModifierPlaneCount);
        } else {
            const auto known =
                std::ranges::find(on.modifiers, object.modifier,
                                  &VkDrmFormatModifierPropertiesEXT::drmFormatModifier);
            const bool two_planes = info->format == VK_FORMAT_G8_B8R8_2PLANE_420_UNORM;
            object.planes.resize(std::max(
                two_planes ? 2U : 1U,
                list && known != on.modifiers.end() ? known->drmFormatModifierPlaneCount : 1U));
            for (VkDeviceSize offset = 0; auto& plane : object.planes) {
                plane.offset = object.disjoint ? 0 : offset;
                plane.rowPitch = round_up(VkDeviceSize{info->extent.width} * 4, 64);
                offset += plane.rowPitch * info->extent.height;
            }
        }
        for (auto& plane : object.planes) {
            plane.size = plane.rowPitch * info->extent.height;
            object.size = std::max(object.size, round_up(plane.offset + plane.size, page));
        }
        return create(call, "image", device, allocator, image, std::move(object));
    }

    static void VKAPI_CALL DestroyImage(VkDevice device, VkImage image, Allocator allocator) {
        destroy(__func__, "image", device, image, allocator);
    }

    static VkResult VKAPI_CALL CreateBuffer(VkDevice device, const VkBufferCreateInfo* info,
                                            Allocator allocator, VkBuffer* buffer) {
        const Call call(__func__);
        Object object;
        object.requires_dedicated =
            call->physical_devices[call.use("device", device).index].requires_dedicated;
        object.size = round_up(info->size, 256);
        note_creation(call, device,
                      chained<VkExternalMemoryBufferCreateInfo>(
                          info->pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO),
                      VK_IMAGE_TILING_OPTIMAL, info->pNext);
        return create(call, "buffer", device, allocator, buffer, std::move(object));
    }

    static void VKAPI_CALL DestroyBuffer(VkDevice device, VkBuffer buffer, Allocator allocator) {
        destroy(__func__, "buffer", device, buffer, allocator);
    }

    static void requirements_out(const Call& call, const Object& of, VkDeviceSize size,
                                 VkMemoryRequirements2& into) {
        into.memoryRequirements = {
            .size = size, .alignment = page, .memoryTypeBits = all_memory_types(call)};
        for (auto* each = static_cast<VkBaseOutStructure*>(into.pNext); each; each = each->pNext)
            if (each->sType == VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS) {
                auto* dedicated = reinterpret_cast<VkMemoryDedicatedRequirements*>(each);
                dedicated->requiresDedicatedAllocation = of.requires_dedicated;
                dedicated->prefersDedicatedAllocation = of.requires_dedicated;
            }
    }

    static std::size_t plane_of(VkImageAspectFlags aspect) {
        switch (aspect) {
        case VK_IMAGE_ASPECT_PLANE_1_BIT:
        case VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT:
            return 1;
        case VK_IMAGE_ASPECT_PLANE_2_BIT:
        case VK_IMAGE_ASPECT_MEMORY_PLANE_2_BIT_EXT:
            return 2;
        case VK_IMAGE_ASPECT_MEMORY_PLANE_3_BIT_EXT:
            return 3;
        default:
            return 0;
        }
    }

    static void VKAPI_CALL GetImageMemoryRequirements2(VkDevice device,
                                                       const VkImageMemoryRequirementsInfo2* info,
                                                       VkMemoryRequirements2* into) {
        const Call call(__func__);
        (void)call.use("device", device);
        const Object& one = call.use("image", info->image);
        const auto* of = chained<VkImagePlaneMemoryRequirementsInfo>(
            info->pNext, VK_STRUCTURE_TYPE_IMAGE_PLANE_MEMORY_REQUIREMENTS_INFO);
        const std::size_t plane = of ? plane_of(of->planeAspect) : 0;
        call.expect((of != nullptr) == one.disjoint, "VUID 01589 and 01590");
        const bool has = of && plane < one.planes.size();
        requirements_out(call, one, has ? round_up(one.planes[plane].size, page) : one.size, *into);
    }

    static void VKAPI_CALL GetImageMemoryRequirements(VkDevice device, VkImage image,
                                                      VkMemoryRequirements* into) {
        const VkImageMemoryRequirementsInfo2 info{.image = image};
        VkMemoryRequirements2 out{};
        GetImageMemoryRequirements2(device, &info, &out);
        *into = out.memoryRequirements;
    }

    static void VKAPI_CALL GetBufferMemoryRequirements2(VkDevice device,
                                                        const VkBufferMemoryRequirementsInfo2* info,
                                                        VkMemoryRequirements2* into) {
        const Call call(__func__);
        (void)call.use("device", device);
        const Object& one = call.use("buffer", info->buffer);
        requirements_out(call, one, one.size, *into);
    }

    static void VKAPI_CALL GetBufferMemoryRequirements(VkDevice device, VkBuffer buffer,
                                                       VkMemoryRequirements* into) {
        const VkBufferMemoryRequirementsInfo2 info{.buffer = buffer};
        VkMemoryRequirements2 out{};
        GetBufferMemoryRequirements2(device, &info, &out);
        *into = out.memoryRequirements;
    }

    static void VKAPI_CALL GetDeviceImageMemoryRequirements(
        VkDevice device, const VkDeviceImageMemoryRequirements* info, VkMemoryRequirements2* into) {
        VkImage image = VK_NULL_HANDLE;
        (void)CreateImage(device, info->pCreateInfo, nullptr, &image);
        const VkImageMemoryRequirementsInfo2 of{.image = image};
        GetImageMemoryRequirements2(device, &of, into);
        DestroyImage(device, image, nullptr);
    }

    static void VKAPI_CALL
    GetDeviceBufferMemoryRequirements(VkDevice device, const VkDeviceBufferMemoryRequirements* info,
                                      VkMemoryRequirements2* into) {
        VkBuffer buffer = VK_NULL_HANDLE;
        (void)CreateBuffer(device, info->pCreateInfo, nullptr, &buffer);
        const VkBufferMemoryRequirementsInfo2 of{.buffer = buffer};
        GetBufferMemoryRequirements2(device, &of, into);
        DestroyBuffer(device, buffer, nullptr);
    }

    static VkResult VKAPI_CALL BindImageMemory2(VkDevice device, std::uint32_t count,
                                                const VkBindImageMemoryInfo* infos) {
        const Call call(__func__);
        (void)call.use("device", device);
        for (const auto& each : std::span(infos, count)) {
            call.use("image", each.image).offset = each.memoryOffset;
            (void)call.use("memory", each.memory);
        }
        return call.result;
    }

    static VkResult VKAPI_CALL BindImageMemory(VkDevice device, VkImage image,
                                               VkDeviceMemory memory, VkDeviceSize offset) {
        const Call call(__func__);
        (void)call.use("device", device);
        call.use("image", image).offset = offset;
        (void)call.use("memory", memory);
        return call.result;
    }

    static VkResult VKAPI_CALL BindBufferMemory2(VkDevice device, std::uint32_t count,
                                                 const VkBindBufferMemoryInfo* infos) {
        const Call call(__func__);
        (void)call.use("device", device);
        for (const auto& each : std::span(infos, count)) {
            (void)call.use("buffer", each.buffer);
            (void)call.use("memory", each.memory);
        }
        return call.result;
    }

    static VkResult VKAPI_CALL BindBufferMemory(VkDevice device, VkBuffer buffer,
                                                VkDeviceMemory memory, VkDeviceSize) {
        const Call call(__func__);
        (void)call.use("device", device);
        (void)call.use("buffer", buffer);
        (void)call.use("memory", memory);
        return call.result;
    }

    static VkResult VKAPI_CALL GetImageDrmFormatModifierPropertiesEXT(
        VkDevice device, VkImage image, VkImageDrmFormatModifierPropertiesEXT* into) {
        const Call call(__func__);
        (void)call.use("device", device);
        into->drmFormatModifier = call.use("image", image).modifier;
        return call.result;
    }

    static void VKAPI_CALL GetImageSubresourceLayout(VkDevice device, VkImage image,
                                                     const VkImageSubresource* of,
                                                     VkSubresourceLayout* into) {
        const Call call(__func__);
        (void)call.use("device", device);
        const Object& one = call.use("image", image);
        const std::size_t plane = plane_of(of->aspectMask);
        call.expect(of->aspectMask < VK_IMAGE_ASPECT_MEMORY_PLANE_0_BIT_EXT ||
                        enabled(call, device, VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME),
                    "modifiers are not enabled");
        call.expect(plane < one.planes.size(), "it has not so many planes");
        *into = plane < one.planes.size() ? one.planes[plane] : VkSubresourceLayout{};
    }

    static VkResult VKAPI_CALL CreateImageView(VkDevice device, const VkImageViewCreateInfo* info,
                                               Allocator allocator, VkImageView* view) {
        const Call call(__func__);
        (void)call.use("image", info->image);
        return create(call, "view", device, allocator, view);
    }

    static void VKAPI_CALL DestroyImageView(VkDevice device, VkImageView view,
                                            Allocator allocator) {
        destroy(__func__, "view", device, view, allocator);
    }

    // Semaphores, fences and events.

    static VkResult VKAPI_CALL CreateSemaphore(VkDevice device, const VkSemaphoreCreateInfo* info,
                                               Allocator allocator, VkSemaphore* semaphore) {
        const Call call(__func__);
        const auto* type = chained<VkSemaphoreTypeCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO);
        const auto* exported = chained<VkExportSemaphoreCreateInfo>(
            info->pNext, VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO);
        Object object;
        object.timeline = type && type->semaphoreType == VK_SEMAPHORE_TYPE_TIMELINE;
        object.value = type ? type->initialValue : 0;
        object.types = exported ? exported->handleTypes : 0;
        call.expect(!object.timeline || (object.types & sync_fd) == 0,
                    "a timeline semaphore is never a SYNC_FD, VUID 03253");
        return create(call, "semaphore", device, allocator, semaphore, std::move(object));
    }

    static void VKAPI_CALL DestroySemaphore(VkDevice device, VkSemaphore semaphore,
                                            Allocator allocator) {
        destroy(__func__, "semaphore", device, semaphore, allocator);
    }

    static VkResult VKAPI_CALL ImportSemaphoreFdKHR(VkDevice device,
                                                    const VkImportSemaphoreFdInfoKHR* info) {
        const Call call(__func__);
        (void)call.use("device", device);
        Object& one = call.use("semaphore", info->semaphore);
        call.expect(one.uses == 0, "the semaphore is in use");
        call.expect(!one.timeline, "a timeline semaphore takes no SYNC_FD, VUID 03262");
        call.expect(info->handleType == sync_fd &&
                        (info->flags & VK_SEMAPHORE_IMPORT_TEMPORARY_BIT) != 0,
                    "SYNC_FD is imported temporarily, VUID 07307");
        call.expect(info->fd == -1 || inode_of(info->fd) != 0, "the fd is closed");
        if (call.result != VK_SUCCESS) {
            if (call->failed_import_closes && info->fd >= 0)
                close(info->fd);
            return call.result;
        }
        one.temporary = std::make_shared<SyncPoint>();
        one.temporary->imported = true;
        one.temporary->file = info->fd;
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL GetSemaphoreFdKHR(VkDevice device,
                                                 const VkSemaphoreGetFdInfoKHR* info, int* fd) {
        const Call call(__func__);
        (void)call.use("device", device);
        Object& one = call.use("semaphore", info->semaphore);
        if (call.result != VK_SUCCESS)
            return call.result;
        call.expect(info->handleType == sync_fd && (one.types & sync_fd) != 0,
                    "the semaphore was not made to be a SYNC_FD, VUID 01132");
        // "Copy transference has the same effects as a wait": the payload is gone.
        const SyncPointRef point = std::exchange(one.temporary ? one.temporary : one.payload, {});
        if (!point) {
            call.complain("nothing will ever signal the semaphore, VUID 03254");
            return VK_ERROR_UNKNOWN;
        }
        call.expect(call->is_on_its_way(*point),
                    "it waits for what has not been submitted, VUID 03254");
        *fd = -1;
        const bool signalled = point->has_signalled();
        if (signalled && call->signalled_exports_minus_one)
            return VK_SUCCESS;
        if (point->file < 0) {
            point->file = memfd_create("sync_file", MFD_CLOEXEC);
            if (!write_fake_status(point->file, signalled ? 1 : 0))
                return VK_ERROR_TOO_MANY_OBJECTS;
        }
        *fd = dup(point->file);
        if (point->exported)
            *point->exported = inode_of(point->file);
        return *fd < 0 ? VK_ERROR_TOO_MANY_OBJECTS : VK_SUCCESS;
    }

    static VkResult VKAPI_CALL GetSemaphoreCounterValue(VkDevice device, VkSemaphore semaphore,
                                                        std::uint64_t* value) {
        const Call call(__func__);
        (void)call.use("device", device);
        const Object& one = call.use("semaphore", semaphore);
        call.expect(one.timeline, "it is no timeline semaphore");
        *value = one.value;
        return call.result;
    }

    static VkResult VKAPI_CALL SignalSemaphore(VkDevice device, const VkSemaphoreSignalInfo* info) {
        const Call call(__func__);
        (void)call.use("device", device);
        Object& one = call.use("semaphore", info->semaphore);
        if (call.result != VK_SUCCESS)
            return call.result;
        call.expect(one.timeline, "it is no timeline semaphore");
        call.expect(one.value < info->value, "its value only grows, VUID 03258");
        one.value = info->value;
        if (call->finishes_at_once)
            (void)call->run(SIZE_MAX);
        call->changed_.notify_all();
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL WaitSemaphores(VkDevice device, const VkSemaphoreWaitInfo* info,
                                              std::uint64_t timeout) {
        Call call(__func__);
        (void)call.use("device", device);
        if (call.result != VK_SUCCESS)
            return call.result;
        const auto reached = [&](std::uint32_t each) {
            return call.use("semaphore", info->pSemaphores[each]).value >= info->pValues[each];
        };
        const bool any = (info->flags & VK_SEMAPHORE_WAIT_ANY_BIT) != 0;
        const auto done = [&] {
            for (std::uint32_t each = 0; each < info->semaphoreCount; ++each)
                if (reached(each) == any)
                    return any;
            return !any;
        };
        return call->wait(call.lock(), timeout, done, __func__) ? VK_SUCCESS : VK_TIMEOUT;
    }

    static VkResult VKAPI_CALL CreateFence(VkDevice device, const VkFenceCreateInfo* info,
                                           Allocator allocator, VkFence* fence) {
        const Call call(__func__);
        Object object;
        object.signalled = (info->flags & VK_FENCE_CREATE_SIGNALED_BIT) != 0;
        return create(call, "fence", device, allocator, fence, std::move(object));
    }

    static void VKAPI_CALL DestroyFence(VkDevice device, VkFence fence, Allocator allocator) {
        destroy(__func__, "fence", device, fence, allocator);
    }

    static VkResult VKAPI_CALL GetFenceStatus(VkDevice device, VkFence fence) {
        const Call call(__func__);
        (void)call.use("device", device);
        const Object& one = call.use("fence", fence);
        if (call.result != VK_SUCCESS)
            return call.result;
        return one.signalled ? VK_SUCCESS : VK_NOT_READY;
    }

    static VkResult VKAPI_CALL ResetFences(VkDevice device, std::uint32_t count,
                                           const VkFence* fences) {
        const Call call(__func__);
        (void)call.use("device", device);
        if (call.result != VK_SUCCESS)
            return call.result;
        for (VkFence each : std::span(fences, count)) {
            Object& one = call.use("fence", each);
            call.expect(one.uses == 0, "the fence is in use");
            one.signalled = false;
        }
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL WaitForFences(VkDevice device, std::uint32_t count,
                                             const VkFence* fences, VkBool32 all,
                                             std::uint64_t timeout) {
        Call call(__func__);
        (void)call.use("device", device);
        if (call.result != VK_SUCCESS)
            return call.result;
        const auto signalled = [&](VkFence each) { return call.use("fence", each).signalled; };
        const auto done = [&] {
            return all ? std::ranges::all_of(std::span(fences, count), signalled)
                       : std::ranges::any_of(std::span(fences, count), signalled);
        };
        return call->wait(call.lock(), timeout, done, __func__) ? VK_SUCCESS : VK_TIMEOUT;
    }

    static VkResult VKAPI_CALL CreateEvent(VkDevice device, const VkEventCreateInfo*,
                                           Allocator allocator, VkEvent* event) {
        return create(Call(__func__), "event", device, allocator, event);
    }

    static void VKAPI_CALL DestroyEvent(VkDevice device, VkEvent event, Allocator allocator) {
        destroy(__func__, "event", device, event, allocator);
    }

    static VkResult VKAPI_CALL
    CreateSamplerYcbcrConversion(VkDevice device, const VkSamplerYcbcrConversionCreateInfo*,
                                 Allocator allocator, VkSamplerYcbcrConversion* conversion) {
        return create(Call(__func__), "conversion", device, allocator, conversion);
    }

    static void VKAPI_CALL DestroySamplerYcbcrConversion(VkDevice device,
                                                         VkSamplerYcbcrConversion conversion,
                                                         Allocator allocator) {
        destroy(__func__, "conversion", device, conversion, allocator);
    }

    static VkResult VKAPI_CALL SetDebugUtilsObjectNameEXT(VkDevice device,
                                                          const VkDebugUtilsObjectNameInfoEXT*) {
        const Call call(__func__);
        (void)call.use("device", device);
        return call.result;
    }

    // Command buffers.

    static VkResult VKAPI_CALL CreateCommandPool(VkDevice device, const VkCommandPoolCreateInfo*,
                                                 Allocator allocator, VkCommandPool* pool) {
        return create(Call(__func__), "command pool", device, allocator, pool);
    }

    /// Calls \p function with the number and the object of each command buffer of \p pool.
    template <typename Function>
    static void each_of(const Call& call, VkCommandPool pool, Function function) {
        std::vector<std::uint64_t> all;
        for (const auto& [one, object] : call->objects_)
            if (object.kind == "command buffer" && object.parent == number(pool))
                all.push_back(one);
        for (const std::uint64_t one : all)
            function(one, call->objects_.at(one));
    }

    static void free_commands(const Call& call, std::uint64_t one) {
        call.expect(call->use("command buffer", one, "FreeCommandBuffers").uses == 0,
                    "a command buffer is in use");
        call->erase(one);
    }

    static void VKAPI_CALL DestroyCommandPool(VkDevice device, VkCommandPool pool,
                                              Allocator allocator) {
        const Call call(__func__);
        (void)call.use("device", device);
        if (pool != VK_NULL_HANDLE)
            each_of(call, pool, [&](std::uint64_t one, Object&) { free_commands(call, one); });
        call->destroy("command pool", number(pool), allocator, __func__);
    }

    static void reset(const Call& call, Object& commands) {
        call.expect(commands.uses == 0, "a command buffer is in use");
        commands.state = Object::State::initial;
        commands.commands.clear();
    }

    static VkResult VKAPI_CALL ResetCommandPool(VkDevice device, VkCommandPool pool,
                                                VkCommandPoolResetFlags) {
        const Call call(__func__);
        (void)call.use("device", device);
        (void)call.use("command pool", pool);
        if (call.result == VK_SUCCESS)
            each_of(call, pool, [&](std::uint64_t, Object& one) { reset(call, one); });
        return call.result;
    }

    static void VKAPI_CALL TrimCommandPool(VkDevice device, VkCommandPool pool,
                                           VkCommandPoolTrimFlags) {
        const Call call(__func__);
        (void)call.use("device", device);
        (void)call.use("command pool", pool);
    }

    static VkResult VKAPI_CALL AllocateCommandBuffers(VkDevice device,
                                                      const VkCommandBufferAllocateInfo* info,
                                                      VkCommandBuffer* into) {
        const Call call(__func__);
        (void)call.use("device", device);
        (void)call.use("command pool", info->commandPool);
        if (call.result != VK_SUCCESS)
            return call.result;
        for (VkCommandBuffer& each : std::span(into, info->commandBufferCount)) {
            Object object{.kind = "command buffer", .parent = number(info->commandPool)};
            object.secondary = info->level == VK_COMMAND_BUFFER_LEVEL_SECONDARY;
            each = handle<VkCommandBuffer>(call->add(std::move(object), true));
        }
        return VK_SUCCESS;
    }

    static void VKAPI_CALL FreeCommandBuffers(VkDevice device, VkCommandPool pool,
                                              std::uint32_t count, const VkCommandBuffer* buffers) {
        const Call call(__func__);
        (void)call.use("device", device);
        (void)call.use("command pool", pool);
        for (VkCommandBuffer each : std::span(buffers, count))
            if (each != VK_NULL_HANDLE)
                free_commands(call, number(each));
    }

    static VkResult VKAPI_CALL BeginCommandBuffer(VkCommandBuffer commands,
                                                  const VkCommandBufferBeginInfo*) {
        const Call call(__func__);
        Object& one = call.use("command buffer", commands);
        if (call.result != VK_SUCCESS)
            return call.result;
        call.expect(one.state != Object::State::recording, "it is being recorded");
        reset(call, one);
        one.state = Object::State::recording;
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL EndCommandBuffer(VkCommandBuffer commands) {
        const Call call(__func__);
        Object& one = call.use("command buffer", commands);
        call.expect(one.state == Object::State::recording, "it is not being recorded");
        one.state = call.result == VK_SUCCESS ? Object::State::executable : Object::State::initial;
        return call.result;
    }

    static VkResult VKAPI_CALL ResetCommandBuffer(VkCommandBuffer commands,
                                                  VkCommandBufferResetFlags) {
        const Call call(__func__);
        Object& one = call.use("command buffer", commands);
        if (call.result == VK_SUCCESS)
            reset(call, one);
        return call.result;
    }

    static Object& recording(const Call& call, VkCommandBuffer commands, const char* function) {
        Object& one = call.use("command buffer", commands);
        call.expect(one.state == Object::State::recording, "it is not being recorded");
        one.commands.push_back("vk" + std::string(function));
        return one;
    }

    static void VKAPI_CALL CmdExecuteCommands(VkCommandBuffer commands, std::uint32_t count,
                                              const VkCommandBuffer* secondaries) {
        const Call call(__func__);
        call.expect(!recording(call, commands, __func__).secondary, "it is a secondary one");
        for (VkCommandBuffer each : std::span(secondaries, count)) {
            const Object& one = call.use("command buffer", each);
            call.expect(one.secondary && one.state == Object::State::executable,
                        "what it executes is no recorded secondary one");
        }
    }

    /// The commands that do nothing. \p Name tells those of one signature apart.
    template <typename Name, typename Function> struct Command;
    template <typename Name, typename... A>
    struct Command<Name, void(VKAPI_PTR*)(VkCommandBuffer, A...)> {
        static void VKAPI_CALL call(VkCommandBuffer commands, A...) {
            const Call one(Name::text);
            (void)recording(one, commands, Name::text);
        }
    };
    // NOLINTEND(readability-non-const-parameter)

    static PFN_vkVoidFunction VKAPI_CALL GetDeviceProcAddr(VkDevice device, const char* name) {
        const Call call(__func__);
        (void)call.use("device", device);
        return call->find(name, 0, number(device));
    }

    static PFN_vkVoidFunction VKAPI_CALL GetInstanceProcAddr(VkInstance instance,
                                                             const char* name) {
        const Call call(__func__);
        if (instance != VK_NULL_HANDLE)
            (void)call.use("instance", instance);
        return call->find(name, number(instance), 0);
    }

    /// By which kind of handle a function is found.
    enum Level : std::uint8_t { of_nothing, of_instance, of_device };
    struct Entry {
        Level level;
        std::string_view needs;
        PFN_vkVoidFunction function;
    };
    static const std::map<std::string_view, Entry>& all();
};

const std::map<std::string_view, FakeIcd::Functions::Entry>& FakeIcd::Functions::all() {
// The inner cast is where the compiler compares the signature with Vulkan's.
#define ENTRY(level, name, of, needs)                                                              \
    {"vk" #name,                                                                                   \
     {level, needs, reinterpret_cast<PFN_vkVoidFunction>(static_cast<PFN_vk##name>(of))}},
#define OF_NOTHING(name) ENTRY(of_nothing, name, name, "1.0")
#define OF_INSTANCE(name, of, needs) ENTRY(of_instance, name, of, needs)
#define OF_DEVICE(name, of, needs) ENTRY(of_device, name, of, needs)
#define COMMAND(name, of, needs)                                                                   \
    ENTRY(of_device, name, (Command<Name##name, PFN_vk##name>::call), needs)
    static const std::map<std::string_view, Entry> entries{
        // clang-format off
        OF_NOTHING(CreateInstance)
        OF_NOTHING(EnumerateInstanceExtensionProperties)
        OF_NOTHING(EnumerateInstanceLayerProperties)
        OF_NOTHING(EnumerateInstanceVersion)
        OF_NOTHING(GetInstanceProcAddr)
        SLUICE_TEST_INSTANCE_FUNCTIONS(OF_INSTANCE)
        SLUICE_TEST_DEVICE_FUNCTIONS(OF_DEVICE)
        SLUICE_TEST_COMMANDS(COMMAND)
        // clang-format on
    };
#undef COMMAND
#undef OF_DEVICE
#undef OF_INSTANCE
#undef OF_NOTHING
#undef ENTRY
    return entries;
}

FakeIcd::FakeIcd(Complain complain) : complain_(std::move(complain)) {
    assert(current == nullptr);
    current = this;
}

FakeIcd::~FakeIcd() {
    for (const auto& [one, object] : objects_) {
        // Theirs is the parent's fault.
        if (object.kind != "queue" && object.kind != "physical device")
            complain("the " + std::string(object.kind) + " " + words(one) + " was never destroyed");
    }
    while (!objects_.empty())
        erase(objects_.begin()->first);
    current = nullptr;
}

PFN_vkVoidFunction FakeIcd::get_instance_proc_addr(VkInstance instance, const char* name) {
    return Functions::GetInstanceProcAddr(instance, name);
}

void FakeIcd::fail(const std::string& function, VkResult result, int nth) {
    const std::lock_guard lock(mutex_);
    const auto so_far = calls_.find(std::string_view(function).substr(2));
    failures_[function][(so_far == calls_.end() ? 0 : so_far->second) + nth] = result;
}

std::size_t FakeIcd::finish(std::size_t count) {
    const std::lock_guard lock(mutex_);
    return run(count);
}

std::vector<FakeIcd::Submission> FakeIcd::submissions(VkQueue queue) const {
    const std::lock_guard lock(mutex_);
    std::vector<Submission> all;
    for (const auto& each : submissions_)
        if (queue == VK_NULL_HANDLE || each->queue == queue)
            all.push_back(*each);
    return all;
}

std::vector<FakeIcd::DeviceRequest> FakeIcd::created_devices() const {
    const std::lock_guard lock(mutex_);
    return created_devices_;
}

std::vector<FakeIcd::Allocation> FakeIcd::allocations() const {
    const std::lock_guard lock(mutex_);
    return allocations_;
}

std::vector<FakeIcd::Creation> FakeIcd::creations() const {
    const std::lock_guard lock(mutex_);
    return creations_;
}

VkDeviceSize FakeIcd::bound_at(VkImage image) const {
    const std::lock_guard lock(mutex_);
    return objects_.at(number(image)).offset;
}

int FakeIcd::calls(std::string_view function) const {
    const std::lock_guard lock(mutex_);
    const auto found = calls_.find(function.substr(2));
    return found == calls_.end() ? 0 : found->second;
}

std::vector<std::string> FakeIcd::commands(VkCommandBuffer commands) const {
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find(number(commands));
    return found == objects_.end() ? std::vector<std::string>{} : found->second.commands;
}

std::multiset<std::string> FakeIcd::living() const {
    const std::lock_guard lock(mutex_);
    std::multiset<std::string> kinds;
    for (const auto& [one, object] : objects_)
        if (object.kind != "queue" && object.kind != "physical device")
            kinds.emplace(object.kind);
    return kinds;
}

std::vector<std::string> FakeIcd::instance_functions() {
    std::vector<std::string> names;
    for (const auto& [name, entry] : Functions::all())
        if (entry.level != Functions::of_device)
            names.emplace_back(name);
    return names;
}

std::vector<std::string> FakeIcd::device_functions() {
    std::vector<std::string> names;
    for (const auto& [name, entry] : Functions::all())
        if (entry.level == Functions::of_device)
            names.emplace_back(name);
    return names;
}

std::vector<std::string> FakeIcd::all_extensions() {
    return {VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
            VK_EXT_EXTERNAL_MEMORY_HOST_EXTENSION_NAME,
            VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME,
            VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME,
            VK_KHR_BIND_MEMORY_2_EXTENSION_NAME,
            VK_KHR_DEDICATED_ALLOCATION_EXTENSION_NAME,
            VK_KHR_EXTERNAL_MEMORY_EXTENSION_NAME,
            VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
            VK_KHR_EXTERNAL_SEMAPHORE_EXTENSION_NAME,
            VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME,
            VK_KHR_GET_MEMORY_REQUIREMENTS_2_EXTENSION_NAME,
            VK_KHR_IMAGE_FORMAT_LIST_EXTENSION_NAME,
            "VK_KHR_map_memory2",
            VK_KHR_SYNCHRONIZATION_2_EXTENSION_NAME,
            VK_KHR_TIMELINE_SEMAPHORE_EXTENSION_NAME};
}

std::uint64_t FakeIcd::add(Object object, bool dispatchable) {
    std::uint64_t made = last_ += 2; // never used again, so a dead handle is always known as one
    if (dispatchable) {
        words_.push_back(ICD_LOADER_MAGIC);
        made = reinterpret_cast<std::uintptr_t>(&words_.back());
    }
    objects_[made] = std::move(object);
    return made;
}

FakeIcd::Object& FakeIcd::use(std::string_view kind, std::uint64_t number, const char* function) {
    const auto found = objects_.find(number);
    if (found != objects_.end() && found->second.kind == kind) {
        const bool dispatchable = (number & 1) == 0;
        if (dispatchable && wants_dispatch_words &&
            *handle<const std::uintptr_t*>(number) == ICD_LOADER_MAGIC)
            complain("vk" + std::string(function) + ": nobody has set the dispatch word of the " +
                     std::string(kind));
        return found->second;
    }
    complain("vk" + std::string(function) + ": there is no living " + std::string(kind) + " " +
             words(number));
    return nothing_ = {};
}

void FakeIcd::destroy(std::string_view kind, std::uint64_t number,
                      const VkAllocationCallbacks* allocator, const char* function) {
    if (number == 0) // Vulkan ignores it
        return;
    const Object& object = use(kind, number, function);
    if (&object == &nothing_)
        return;
    const std::string what = "vk" + std::string(function) + ": the " + std::string(kind);
    if (object.uses != 0)
        complain(what + " is in use");
    if (object.allocator != (allocator != nullptr))
        complain(what + " comes with another allocator than it was made with");
    std::vector<std::uint64_t> parts;
    if (kind == "instance" || kind == "device")
        for (const auto& [child, each] : objects_) {
            if (each.parent != number)
                continue;
            if (each.kind == "queue" || each.kind == "physical device")
                parts.push_back(child);
            else
                complain(what + " still has its " + std::string(each.kind) + " " + words(child));
            if (!each.pending.empty())
                complain(what + " has work that has not ended");
        }
    for (const std::uint64_t part : parts)
        erase(part);
    erase(number);
}

void FakeIcd::erase(std::uint64_t number) {
    const auto found = objects_.find(number);
    if (found == objects_.end())
        return;
    const Object& object = found->second;
    if (object.mapped != nullptr && object.host == nullptr)
        munmap(object.mapped, object.size);
    if (object.fd >= 0)
        close(object.fd);
    std::erase(queues_, number);
    objects_.erase(found);
}

std::vector<std::string> FakeIcd::extensions(const PhysicalDevice& of) const {
    std::vector<std::string> names;
    for (const std::string& name : of.extensions)
        if (!lacks.contains(name))
            names.push_back(name);
    return names;
}

bool FakeIcd::lists(const PhysicalDevice& of, std::string_view extension) const {
    const auto all = extensions(of);
    return std::ranges::find(all, extension) != all.end();
}

bool FakeIcd::has(const Object& owner, std::string_view needs) const {
    if (!needs.starts_with("1."))
        return owner.on.contains(needs);
    const auto minor = static_cast<std::uint32_t>(needs[2] - '0');
    return owner.api_version >= VK_MAKE_API_VERSION(0, 1, minor, 0);
}

PFN_vkVoidFunction FakeIcd::find(std::string_view name, std::uint64_t instance,
                                 std::uint64_t device) {
    const auto found = Functions::all().find(name);
    if (found == Functions::all().end() || lacks.contains(name))
        return nullptr;
    const auto& [level, needs, function] = found->second;
    if (device != 0)
        return level == Functions::of_device && has(objects_[device], needs) ? function : nullptr;
    if (instance == 0 || level == Functions::of_nothing)
        return level == Functions::of_nothing ? function : nullptr;
    // An instance finds the functions of all devices that there may be.
    return level == Functions::of_device || has(objects_[instance], needs) ? function : nullptr;
}

VkResult FakeIcd::submit(const char* function, VkQueue queue, std::vector<Batch> batches,
                         VkFence fence) {
    if (const auto found = objects_.find(number(queue));
        found == objects_.end() || found->second.kind != "queue") // complained about already
        return VK_ERROR_DEVICE_LOST;
    const std::string what = "vk" + std::string(function) + ": ";
    const auto record =
        std::make_shared<Submission>(Submission{.function = "vk" + std::string(function),
                                                .queue = queue,
                                                .batches = std::move(batches),
                                                .fence = fence,
                                                .finished = false});
    if (keeps_submissions)
        submissions_.push_back(record);
    if (fence != VK_NULL_HANDLE) {
        Object& done = use("fence", number(fence), function);
        if (done.uses != 0 || done.signalled)
            complain(what + "the fence was not reset");
        ++done.uses;
    }
    Pending& pending = use("queue", number(queue), function)
                           .pending.emplace_back(Pending{.order = ++order_, .record = record});
    for (Batch& batch : record->batches) {
        Work& work = pending.work.emplace_back();
        const auto use_up = [&](Object& object, std::uint64_t of) {
            ++object.uses;
            work.uses.push_back(of);
        };
        for (Wait& wait : batch.waits) {
            const std::uint64_t of = number(wait.semaphore);
            Object& semaphore = use("semaphore", of, function);
            use_up(semaphore, of);
            if (semaphore.timeline) {
                work.waits_for_values.push_back({of, wait.value});
                continue;
            }
            const SyncPointRef point =
                std::exchange(semaphore.temporary ? semaphore.temporary : semaphore.payload, {});
            if (!point) {
                complain(what + "nothing will ever signal what it waits for");
                continue;
            }
            if (!is_on_its_way(*point))
                complain(what + "what it waits for has not all been submitted, VUID 03238");
            wait.sync_file = point->imported && point->file >= 0 ? inode_of(point->file) : 0;
            work.waits.push_back(point);
        }
        for (VkCommandBuffer each : batch.command_buffers) {
            Object& commands = use("command buffer", number(each), function);
            if (commands.state != Object::State::executable || commands.secondary)
                complain(what + "a command buffer is no recorded primary one");
            use_up(commands, number(each));
        }
        for (Signal& signal : batch.signals) {
            const std::uint64_t of = number(signal.semaphore);
            Object& semaphore = use("semaphore", of, function);
            use_up(semaphore, of);
            if (semaphore.timeline) {
                work.signals_values.push_back({of, signal.value});
                continue;
            }
            if (semaphore.payload)
                complain(what + "a semaphore to be signalled is so already, VUID 00067");
            semaphore.payload = std::make_shared<SyncPoint>();
            semaphore.payload->exported = std::shared_ptr<ino_t>(record, &signal.sync_file);
            work.signals.push_back(semaphore.payload);
        }
    }
    if (finishes_at_once)
        (void)run(SIZE_MAX);
    changed_.notify_all();
    return VK_SUCCESS;
}

bool FakeIcd::is_on_its_way(const SyncPoint& point) const {
    if (point.imported || point.done)
        return true;
    // Plays what has been submitted to its end, as if every sync_file had signalled.
    std::set<const SyncPoint*> done;
    std::map<std::uint64_t, std::uint64_t> values;
    const auto value = [&](std::uint64_t semaphore) {
        const auto found = objects_.find(semaphore);
        const std::uint64_t now = found == objects_.end() ? 0 : found->second.value;
        return std::max(now, values[semaphore]);
    };
    const auto runs = [&](const Work& work) {
        return std::ranges::all_of(work.waits,
                                   [&](const SyncPointRef& each) {
                                       return each->imported || each->done ||
                                              done.contains(each.get());
                                   }) &&
               std::ranges::all_of(work.waits_for_values, [&](const TimelinePoint& each) {
                   return value(each.semaphore) >= each.value;
               });
    };
    struct Position {
        const std::deque<Pending>* pending;
        std::size_t submission = 0, batch = 0;
    };
    std::vector<Position> positions;
    for (const std::uint64_t each : queues_)
        positions.push_back({&objects_.at(each).pending});
    for (bool moved = true; moved;) {
        moved = false;
        for (Position& at : positions)
            while (at.submission < at.pending->size()) {
                const Pending& pending = (*at.pending)[at.submission];
                at.batch = std::max(at.batch, pending.next);
                if (at.batch == pending.work.size()) {
                    ++at.submission;
                    at.batch = 0;
                    continue;
                }
                const Work& work = pending.work[at.batch];
                if (!runs(work))
                    break;
                for (const SyncPointRef& each : work.signals)
                    done.insert(each.get());
                for (const TimelinePoint& each : work.signals_values)
                    values[each.semaphore] = std::max(values[each.semaphore], each.value);
                ++at.batch;
                moved = true;
            }
    }
    return done.contains(&point);
}

bool FakeIcd::may_run(const Work& work) const {
    return std::ranges::all_of(work.waits, &SyncPoint::has_signalled) &&
           std::ranges::all_of(work.waits_for_values, [&](const TimelinePoint& each) {
               const auto found = objects_.find(each.semaphore);
               return found == objects_.end() || found->second.value >= each.value;
           });
}

void FakeIcd::end(Work& work) {
    for (const SyncPointRef& each : work.signals) {
        each->done = true;
        if (each->file >= 0)
            (void)write_fake_status(each->file, 1);
    }
    for (const TimelinePoint& each : work.signals_values)
        if (const auto found = objects_.find(each.semaphore); found != objects_.end()) {
            if (found->second.value >= each.value)
                complain("a timeline semaphore is to be signalled with " +
                         std::to_string(each.value) + " and has " +
                         std::to_string(found->second.value));
            found->second.value = std::max(found->second.value, each.value);
        }
    for (const std::uint64_t each : work.uses)
        if (const auto found = objects_.find(each); found != objects_.end())
            --found->second.uses;
    work = {};
}

std::size_t FakeIcd::run(std::size_t count) {
    std::size_t ended = 0;
    std::vector<std::uint64_t> queues = queues_;
    for (bool moved = true; moved && ended < count;) {
        moved = false;
        std::ranges::sort(queues, {}, [&](std::uint64_t each) {
            const auto& pending = objects_.at(each).pending;
            return pending.empty() ? UINT64_MAX : pending.front().order;
        });
        for (const std::uint64_t each : queues) {
            auto& queue = objects_.at(each).pending;
            if (queue.empty())
                continue;
            Pending& first = queue.front();
            for (; first.next < first.work.size() && may_run(first.work[first.next]); moved = true)
                end(first.work[first.next++]);
            if (first.next < first.work.size())
                continue;
            first.record->finished = true;
            if (const auto fence = objects_.find(number(first.record->fence));
                fence != objects_.end()) {
                --fence->second.uses;
                fence->second.signalled = true;
            }
            queue.pop_front();
            ++ended;
            moved = true;
            break; // the oldest comes first again
        }
    }
    changed_.notify_all();
    return ended;
}

void FakeIcd::abandon() {
    for (const std::uint64_t each : queues_)
        for (Pending& pending : objects_.at(each).pending)
            for (Work& work : pending.work) {
                work.waits.clear();
                work.waits_for_values.clear();
            }
    (void)run(SIZE_MAX);
}

bool FakeIcd::wait(std::unique_lock<std::mutex>& lock, std::uint64_t timeout,
                   const std::function<bool()>& done, const char* function) {
    using Clock = std::chrono::steady_clock;
    constexpr std::chrono::nanoseconds patience = std::chrono::seconds(10);
    const bool for_ever = timeout > static_cast<std::uint64_t>(patience.count());
    const auto end = Clock::now() + (for_ever ? patience : std::chrono::nanoseconds(timeout));
    while (!done()) {
        if (timeout > 0 && run(SIZE_MAX) > 0)
            continue;
        if (Clock::now() >= end) {
            if (for_ever)
                complain("vk" + std::string(function) + " waits for what never happens");
            return false;
        }
        // A sync_file signals without telling anybody here.
        changed_.wait_for(lock, std::chrono::milliseconds(1));
    }
    return true;
}

int FakeIcd::memory_fd(Object& memory) {
    if (memory.fd < 0) {
        memory.fd = memfd_create("vulkan memory", MFD_CLOEXEC);
        if (memory.fd >= 0 && ::ftruncate(memory.fd, static_cast<off_t>(memory.size)) != 0)
            close(std::exchange(memory.fd, -1));
    }
    return memory.fd;
}

} // namespace sluice::test
