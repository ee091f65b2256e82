// SPDX-License-Identifier: MIT
/// \file
/// What the loader calls, and every function that stands in the application's way.
///
/// Sources: vulkan/vk_layer.h and the loader's "Layer Interface to the Loader".
#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#include "bridge.hpp"
#include "chain.hpp"
#include "dispatch.hpp"
#include "emulate.hpp"
#include "immortal.hpp"
#include "recorder.hpp"
#include "registry.hpp"
#include "report.hpp"
#include "settings.hpp"
#include "settings_chain.hpp"
#include "timelines.hpp"
#include "trace.hpp"
#include "tracker.hpp"
#include "validate.hpp"
#include "vulkan/vulkan_layer.hpp"

namespace sluice::layer {

namespace {

struct Instance {
    VkInstance handle = VK_NULL_HANDLE;
    InstanceFunctions vk;
    std::uint32_t api_version = VK_API_VERSION_1_0; // what the application may call
    bool has_semaphore_capabilities = false;        // VK_KHR_external_semaphore_capabilities
    ValidateInstanceFunctions validate_vk;
    Settings settings;
    std::shared_ptr<Trace> trace;
};

struct Device {
    VkDevice handle = VK_NULL_HANDLE;
    bool may_share = false; // it can import and export memory at all
    DeviceFunctions vk;
    std::vector<bool> protected_memory; // by the memory's type
    Tracker tracker;
    Recorder recorder;
    std::unique_ptr<Timelines> timelines;
    DeviceTrace trace;
    Report report;
    std::unique_ptr<Bridge> bridge;
    bool validates = false;
    Registry<Queue> queues;
    std::mutex queue_list_lock;
    std::vector<Queue*> queue_list;
};

constinit Immortal<Registry<Instance>> all_instances;
constinit Immortal<Registry<Device>> all_devices;

Registry<Instance>& instances() noexcept {
    return all_instances.value;
}

Registry<Device>& devices() noexcept {
    return all_devices.value;
}

template <typename Handle> Device& device_of(Handle dispatchable) noexcept {
    return *devices().find(key_of(dispatchable));
}

/// Does \p what we keep of the application's objects. Where there is no memory for it the
/// application's call goes on all the same.
template <typename What> void keep(Device& device, What what) noexcept {
    try {
        what();
    } catch (const std::bad_alloc&) {
        device.report.once(Trouble::no_memory, "no memory for what we keep of a dma-buf: it is not "
                                               "synchronised");
    }
}

/// Whether this thread brackets what it allocates by itself.
constinit thread_local bool self_bracketing = false;

/// Our link in the chain of layers, which the loader put among what \p info points at.
template <typename Link> Link* find_link(const void* next, VkStructureType type) {
    for (const auto* each = static_cast<const VkBaseInStructure*>(next); each != nullptr;
         each = each->pNext)
        if (each->sType == type) {
            // The loader's own structure, which it asks each layer to advance.
            auto* link = const_cast<Link*>(reinterpret_cast<const Link*>(each));
            if (link->function == VK_LAYER_LINK_INFO)
                return link;
        }
    return nullptr;
}

/// What stands in the way of \p name, the checks aside; what is below where nothing does.
PFN_vkVoidFunction VKAPI_CALL unchecked_device_function(VkDevice device, const char* name);

// ---- Instances and devices ----------------------------------------------------------------------

/// A copy of the application's create info, which may ask for more extensions.
template <typename Info> class Extended {
public:
    explicit Extended(const Info& info)
        : names_(info.ppEnabledExtensionNames,
                 info.ppEnabledExtensionNames + info.enabledExtensionCount),
          info_(info) {}
    [[nodiscard]] bool has(std::string_view name) const {
        return std::ranges::find(names_, name, [](const char* each) {
                   return std::string_view(each);
               }) != names_.end();
    }
    void add(const char* name) {
        names_.push_back(name);
        info_.enabledExtensionCount = static_cast<std::uint32_t>(names_.size());
        info_.ppEnabledExtensionNames = names_.data();
        adds_ = true;
    }
    [[nodiscard]] bool adds() const noexcept { return adds_; }
    [[nodiscard]] const Info& info() const noexcept { return info_; }

private:
    std::vector<const char*> names_;
    Info info_;
    bool adds_ = false;
};

VKAPI_ATTR VkResult VKAPI_CALL CreateInstance(const VkInstanceCreateInfo* info,
                                              const VkAllocationCallbacks* allocator,
                                              VkInstance* instance) {
    auto* link = find_link<VkLayerInstanceCreateInfo>(
        info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
    if (link == nullptr)
        return VK_ERROR_INITIALIZATION_FAILED;
    auto* const ours = link->u.pLayerInfo;
    const auto next = ours->pfnNextGetInstanceProcAddr;
    const auto create =
        reinterpret_cast<PFN_vkCreateInstance>(next(VK_NULL_HANDLE, "vkCreateInstance"));
    if (create == nullptr)
        return VK_ERROR_INITIALIZATION_FAILED;
    std::uint32_t version = VK_API_VERSION_1_0;
    if (info->pApplicationInfo != nullptr && info->pApplicationInfo->apiVersion != 0)
        version = info->pApplicationInfo->apiVersion;
    bool has_semaphore_capabilities = false;
    try {
        // In core since 1.1; the devices' extension that fences need asks for it before.
        Extended wanted(*info);
        if (version < VK_API_VERSION_1_1 &&
            wanted.has(VK_KHR_EXTERNAL_MEMORY_CAPABILITIES_EXTENSION_NAME) &&
            !wanted.has(VK_KHR_EXTERNAL_SEMAPHORE_CAPABILITIES_EXTENSION_NAME))
            wanted.add(VK_KHR_EXTERNAL_SEMAPHORE_CAPABILITIES_EXTENSION_NAME);
        has_semaphore_capabilities =
            wanted.has(VK_KHR_EXTERNAL_SEMAPHORE_CAPABILITIES_EXTENSION_NAME);
        link->u.pLayerInfo = ours->pNext;
        VkResult result = create(&wanted.info(), allocator, instance);
        if (result != VK_SUCCESS && wanted.adds()) {
            has_semaphore_capabilities = false;
            link->u.pLayerInfo = ours->pNext; // which those below have moved on
            result = create(info, allocator, instance);
        }
        if (result != VK_SUCCESS)
            return result;
    } catch (const std::bad_alloc&) {
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    }
    auto find = next; // also through what emulates
    try {
        auto made = std::make_unique<Instance>();
        made->handle = *instance;
        made->vk.load(next, *instance);
        made->api_version = version;
        made->has_semaphore_capabilities = has_semaphore_capabilities;
        auto [settings, messages] = load_settings(this_process(), settings_in_chain(info->pNext));
        made->settings = std::move(settings);
        set_log(made->settings.log, made->settings.log_file);
        for (const std::string& each : messages)
            warn(each);
        made->trace = Trace::start(made->settings.trace);
        if (made->settings.emulate) {
            find = emulate(*instance, next);
            made->vk.load(find, *instance);
        }
        if (made->settings.validate)
            made->validate_vk.load(find, *instance);
        if (instances().add(key_of(*instance), std::move(made)) != nullptr)
            return VK_SUCCESS;
        warn("there are too many instances: one more cannot be created");
    } catch (const std::bad_alloc&) {
        // As below.
    }
    reinterpret_cast<PFN_vkDestroyInstance>(find(*instance, "vkDestroyInstance"))(*instance,
                                                                                  allocator);
    *instance = VK_NULL_HANDLE;
    return VK_ERROR_OUT_OF_HOST_MEMORY;
}

VKAPI_ATTR void VKAPI_CALL DestroyInstance(VkInstance instance,
                                           const VkAllocationCallbacks* allocator) {
    if (instance == VK_NULL_HANDLE)
        return;
    // Its key may be another's as soon as it is gone.
    const auto gone = instances().remove(key_of(instance));
    if (gone)
        gone->vk.DestroyInstance(instance, allocator);
}

/// Whether the device below offers \p name: the loader drops without a word what it does not.
bool offers(const InstanceFunctions& vk, VkPhysicalDevice device, std::string_view name) {
    std::uint32_t count = 0;
    if (vk.EnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr) != VK_SUCCESS)
        return false;
    std::vector<VkExtensionProperties> all(count);
    if (vk.EnumerateDeviceExtensionProperties(device, nullptr, &count, all.data()) < VK_SUCCESS)
        return false;
    return std::ranges::any_of(all, [&](const auto& each) { return name == each.extensionName; });
}

/// Puts the checks in front of everything else where they are on. \returns false where that fails.
bool add_checks(const Device& device, const Instance& instance, VkPhysicalDevice physical) {
    if (!device.validates)
        return true;
    const Validation::Place place{.instance = instance.handle,
                                  .physical_device = physical,
                                  .device = device.handle,
                                  .of_instance = instance.validate_vk,
                                  .tracker = device.tracker,
                                  .timelines = *device.timelines};
    return Validation::add(key_of(device.handle),
                           std::make_unique<Validation>(place, &unchecked_device_function));
}

/// The version of Vulkan that the application and the device speak with each other.
std::uint32_t version_of(const Instance& instance, VkPhysicalDevice device) {
    VkPhysicalDeviceProperties properties{};
    instance.vk.GetPhysicalDeviceProperties(device, &properties);
    return std::min(instance.api_version, properties.apiVersion);
}

/// Whether the device gives its semaphores away as SYNC_FD and takes others' in. Who does not say
/// is tried, and so is whom the application's version of Vulkan has no word to ask.
FenceSupport fence_support(const Instance& instance, VkPhysicalDevice device) {
    // What is below may give a function that may not be called.
    PFN_vkGetPhysicalDeviceExternalSemaphoreProperties ask = nullptr;
    if (version_of(instance, device) >= VK_API_VERSION_1_1)
        ask = instance.vk.GetPhysicalDeviceExternalSemaphoreProperties;
    else if (instance.has_semaphore_capabilities)
        ask = instance.vk.GetPhysicalDeviceExternalSemaphorePropertiesKHR;
    if (ask == nullptr)
        return {.takes = true, .gives = true};
    const VkPhysicalDeviceExternalSemaphoreInfo sync_fd{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_SEMAPHORE_INFO,
        .pNext = nullptr,
        .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    VkExternalSemaphoreProperties can{};
    can.sType = VK_STRUCTURE_TYPE_EXTERNAL_SEMAPHORE_PROPERTIES;
    ask(device, &sync_fd, &can);
    const auto features = can.externalSemaphoreFeatures;
    return {.takes = (features & VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT) != 0,
            .gives = (features & VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT) != 0};
}

struct DeviceIs {
    bool may_share, emulates;
};

/// What we keep of a device; null where there is no room for it.
Device* keep_device(const Instance& instance, VkPhysicalDevice physical, VkDevice device,
                    const DeviceIs& is, PFN_vkGetDeviceProcAddr next) {
    auto made = std::make_unique<Device>();
    made->handle = device;
    made->may_share = is.may_share;
    made->vk.load(next, device);
    VkPhysicalDeviceMemoryProperties memory{};
    instance.vk.GetPhysicalDeviceMemoryProperties(physical, &memory);
    for (std::uint32_t i = 0; i < memory.memoryTypeCount; ++i)
        made->protected_memory.push_back(
            (memory.memoryTypes[i].propertyFlags & VK_MEMORY_PROPERTY_PROTECTED_BIT) != 0);
    const FenceSupport fences = fence_support(instance, physical);
    made->timelines =
        std::make_unique<Timelines>(device, made->vk.GetSemaphoreCounterValueKHR != nullptr
                                                ? made->vk.GetSemaphoreCounterValueKHR
                                                : made->vk.GetSemaphoreCounterValue);
    made->trace = DeviceTrace(instance.trace.get());
    made->bridge =
        std::make_unique<Bridge>(device, made->vk, fences, is.emulates, made->tracker,
                                 made->recorder, *made->timelines, instance.settings, made->report);
    if (logs(Settings::Log::info)) {
        VkPhysicalDeviceProperties properties{};
        instance.vk.GetPhysicalDeviceProperties(physical, &properties);
        say(Settings::Log::info,
            std::string("device \"") + properties.deviceName + "\": takes SYNC_FD semaphores: " +
                (fences.takes ? "yes" : "no") + ", gives them: " + (fences.gives ? "yes" : "no"));
    }
    made->validates = instance.settings.validate;
    Device* const kept = devices().add(key_of(device), std::move(made));
    if (kept == nullptr || add_checks(*kept, instance, physical))
        return kept;
    devices().remove(key_of(device));
    return nullptr;
}

VKAPI_ATTR VkResult VKAPI_CALL CreateDevice(VkPhysicalDevice physical,
                                            const VkDeviceCreateInfo* info,
                                            const VkAllocationCallbacks* allocator,
                                            VkDevice* device) {
    auto* link = find_link<VkLayerDeviceCreateInfo>(info->pNext,
                                                    VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
    const Instance* instance = instances().find(key_of(physical));
    if (link == nullptr || instance == nullptr)
        return VK_ERROR_INITIALIZATION_FAILED;
    auto* const ours = link->u.pLayerInfo;
    auto next = ours->pfnNextGetDeviceProcAddr;
    const auto create = reinterpret_cast<PFN_vkCreateDevice>(
        ours->pfnNextGetInstanceProcAddr(instance->handle, "vkCreateDevice"));
    if (create == nullptr)
        return VK_ERROR_INITIALIZATION_FAILED;

    bool may_share = false;
    const auto below = next;
    try {
        // Who shares no dma-buf needs no fences for them.
        Extended wanted(*info);
        const auto want = [&](const char* name) {
            if (!wanted.has(name) && offers(instance->vk, physical, name))
                wanted.add(name);
        };
        may_share = wanted.has(VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME);
        const bool is_1_1 = version_of(*instance, physical) >= VK_API_VERSION_1_1;
        const bool may_want =
            instance->api_version >= VK_API_VERSION_1_1 || instance->has_semaphore_capabilities;
        if (may_share && may_want) {
            want(VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME);
            if (!is_1_1)
                want(VK_KHR_EXTERNAL_SEMAPHORE_EXTENSION_NAME);
        }
        const auto make = [&](const VkDeviceCreateInfo& as) {
            link->u.pLayerInfo = ours->pNext; // which those below move on
            return instance->settings.emulate
                       ? create_emulating(create, physical, as, allocator, device, next)
                       : create(physical, &as, allocator, device);
        };
        VkResult result = make(wanted.info());
        if (result != VK_SUCCESS && wanted.adds())
            result = make(*info);
        if (result != VK_SUCCESS)
            return result;
    } catch (const std::bad_alloc&) {
        return VK_ERROR_OUT_OF_HOST_MEMORY;
    }
    try {
        if (keep_device(*instance, physical, *device,
                        {.may_share = may_share, .emulates = next != below}, next) != nullptr)
            return VK_SUCCESS;
        warn("there are too many devices: one more cannot be created");
    } catch (const std::bad_alloc&) {
        // As below.
    }
    reinterpret_cast<PFN_vkDestroyDevice>(next(*device, "vkDestroyDevice"))(*device, allocator);
    *device = VK_NULL_HANDLE;
    return VK_ERROR_OUT_OF_HOST_MEMORY;
}

VKAPI_ATTR void VKAPI_CALL DestroyDevice(VkDevice device, const VkAllocationCallbacks* allocator) {
    if (device == VK_NULL_HANDLE)
        return;
    const auto gone = devices().remove(key_of(device));
    if (!gone)
        return;
    if (gone->validates)
        Validation::remove(key_of(device));
    for (Queue* each : gone->queue_list)
        gone->bridge->destroy(*each);
    gone->vk.DestroyDevice(device, allocator);
}

void add_queue(Device& device, VkQueue handle, std::uint32_t family, std::uint32_t index) {
    if (handle == VK_NULL_HANDLE || device.queues.find(handle) != nullptr)
        return;
    keep(device, [&] {
        const std::scoped_lock held(device.queue_list_lock);
        if (device.queues.find(handle) != nullptr)
            return;
        auto made = std::make_unique<Queue>();
        made->handle = handle;
        made->trace = device.trace.queue(family, index);
        device.queue_list.reserve(device.queue_list.size() + 1);
        if (Queue* queue = device.queues.add(handle, std::move(made)))
            device.queue_list.push_back(queue);
        else
            device.report.once(Trouble::too_many_objects,
                               "there are too many queues: buffers are not synchronised on some");
    });
}

VKAPI_ATTR void VKAPI_CALL GetDeviceQueue(VkDevice device, std::uint32_t family,
                                          std::uint32_t index, VkQueue* queue) {
    Device& of = device_of(device);
    of.vk.GetDeviceQueue(device, family, index, queue);
    add_queue(of, *queue, family, index);
}

VKAPI_ATTR void VKAPI_CALL GetDeviceQueue2(VkDevice device, const VkDeviceQueueInfo2* info,
                                           VkQueue* queue) {
    Device& of = device_of(device);
    of.vk.GetDeviceQueue2(device, info, queue);
    add_queue(of, *queue, info->queueFamilyIndex, info->queueIndex);
}

// ---- Memory -------------------------------------------------------------------------------------

VKAPI_ATTR VkResult VKAPI_CALL AllocateMemory(VkDevice device, const VkMemoryAllocateInfo* info,
                                              const VkAllocationCallbacks* allocator,
                                              VkDeviceMemory* memory) {
    Device& of = device_of(device);
    const bool left_alone =
        self_bracketing || (info->memoryTypeIndex < of.protected_memory.size() &&
                            of.protected_memory[info->memoryTypeIndex]);
    if (left_alone)
        return of.vk.AllocateMemory(device, info, allocator, memory);
    // The fd is the driver's as soon as it has taken it.
    auto imported = Tracker::imported_by(*info, of.report);
    const VkResult result = of.vk.AllocateMemory(device, info, allocator, memory);
    if (result == VK_SUCCESS)
        of.trace.imported(imported);
    if (result == VK_SUCCESS && (imported || Tracker::exportable(*info)))
        keep(of, [&] { of.tracker.allocated(*memory, std::move(imported)); });
    return result;
}

VKAPI_ATTR void VKAPI_CALL FreeMemory(VkDevice device, VkDeviceMemory memory,
                                      const VkAllocationCallbacks* allocator) {
    Device& of = device_of(device);
    of.tracker.freed(memory);
    of.vk.FreeMemory(device, memory, allocator);
}

VKAPI_ATTR VkResult VKAPI_CALL GetMemoryFdKHR(VkDevice device, const VkMemoryGetFdInfoKHR* info,
                                              int* fd) {
    Device& of = device_of(device);
    const VkResult result = of.vk.GetMemoryFdKHR(device, info, fd);
    if (result == VK_SUCCESS &&
        info->handleType == VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT) {
        keep(of, [&] { of.tracker.exported(info->memory, *fd, of.report); });
        of.trace.exported(*fd);
    }
    return result;
}

VKAPI_ATTR VkResult VKAPI_CALL BindImageMemory(VkDevice device, VkImage image,
                                               VkDeviceMemory memory, VkDeviceSize offset) {
    Device& of = device_of(device);
    const VkResult result = of.vk.BindImageMemory(device, image, memory, offset);
    if (result == VK_SUCCESS)
        keep(of, [&] { of.tracker.bound(image, memory); });
    return result;
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL bind_images(VkDevice device, std::uint32_t count,
                                           const VkBindImageMemoryInfo* infos) {
    Device& of = device_of(device);
    const VkResult result = (of.vk.*Function)(device, count, infos);
    if (result == VK_SUCCESS)
        keep(of, [&] {
            for (const auto& each : std::span(infos, count))
                of.tracker.bound(each.image, each.memory);
        });
    return result;
}
constexpr auto BindImageMemory2 = bind_images<&DeviceFunctions::BindImageMemory2>;
constexpr auto BindImageMemory2KHR = bind_images<&DeviceFunctions::BindImageMemory2KHR>;

VKAPI_ATTR void VKAPI_CALL DestroyImage(VkDevice device, VkImage image,
                                        const VkAllocationCallbacks* allocator) {
    Device& of = device_of(device);
    of.tracker.destroyed(image);
    of.vk.DestroyImage(device, image, allocator);
}

VKAPI_ATTR VkResult VKAPI_CALL BindBufferMemory(VkDevice device, VkBuffer buffer,
                                                VkDeviceMemory memory, VkDeviceSize offset) {
    Device& of = device_of(device);
    const VkResult result = of.vk.BindBufferMemory(device, buffer, memory, offset);
    if (result == VK_SUCCESS)
        keep(of, [&] { of.tracker.bound(buffer, memory); });
    return result;
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL bind_buffers(VkDevice device, std::uint32_t count,
                                            const VkBindBufferMemoryInfo* infos) {
    Device& of = device_of(device);
    const VkResult result = (of.vk.*Function)(device, count, infos);
    if (result == VK_SUCCESS)
        keep(of, [&] {
            for (const auto& each : std::span(infos, count))
                of.tracker.bound(each.buffer, each.memory);
        });
    return result;
}
constexpr auto BindBufferMemory2 = bind_buffers<&DeviceFunctions::BindBufferMemory2>;
constexpr auto BindBufferMemory2KHR = bind_buffers<&DeviceFunctions::BindBufferMemory2KHR>;

VKAPI_ATTR void VKAPI_CALL DestroyBuffer(VkDevice device, VkBuffer buffer,
                                         const VkAllocationCallbacks* allocator) {
    Device& of = device_of(device);
    of.tracker.destroyed(buffer);
    of.vk.DestroyBuffer(device, buffer, allocator);
}

// ---- Command buffers ----------------------------------------------------------------------------

VKAPI_ATTR VkResult VKAPI_CALL AllocateCommandBuffers(VkDevice device,
                                                      const VkCommandBufferAllocateInfo* info,
                                                      VkCommandBuffer* commands) {
    Device& of = device_of(device);
    const VkResult result = of.vk.AllocateCommandBuffers(device, info, commands);
    if (result == VK_SUCCESS)
        keep(of, [&] {
            of.recorder.allocated(info->commandPool, {commands, info->commandBufferCount});
        });
    return result;
}

VKAPI_ATTR void VKAPI_CALL FreeCommandBuffers(VkDevice device, VkCommandPool pool,
                                              std::uint32_t count,
                                              const VkCommandBuffer* commands) {
    Device& of = device_of(device);
    of.recorder.freed({commands, count});
    of.vk.FreeCommandBuffers(device, pool, count, commands);
}

VKAPI_ATTR void VKAPI_CALL DestroyCommandPool(VkDevice device, VkCommandPool pool,
                                              const VkAllocationCallbacks* allocator) {
    Device& of = device_of(device);
    of.recorder.pool_destroyed(pool);
    of.vk.DestroyCommandPool(device, pool, allocator);
}

VKAPI_ATTR VkResult VKAPI_CALL ResetCommandPool(VkDevice device, VkCommandPool pool,
                                                VkCommandPoolResetFlags flags) {
    Device& of = device_of(device);
    of.recorder.pool_reset(pool);
    return of.vk.ResetCommandPool(device, pool, flags);
}

VKAPI_ATTR VkResult VKAPI_CALL BeginCommandBuffer(VkCommandBuffer commands,
                                                  const VkCommandBufferBeginInfo* info) {
    Device& of = device_of(commands);
    of.recorder.reset(commands);
    return of.vk.BeginCommandBuffer(commands, info);
}

VKAPI_ATTR VkResult VKAPI_CALL ResetCommandBuffer(VkCommandBuffer commands,
                                                  VkCommandBufferResetFlags flags) {
    Device& of = device_of(commands);
    of.recorder.reset(commands);
    return of.vk.ResetCommandBuffer(commands, flags);
}

VKAPI_ATTR void VKAPI_CALL CmdPipelineBarrier(
    VkCommandBuffer commands, VkPipelineStageFlags from, VkPipelineStageFlags to,
    VkDependencyFlags flags, std::uint32_t memory_count, const VkMemoryBarrier* memory,
    std::uint32_t buffer_count, const VkBufferMemoryBarrier* buffers, std::uint32_t image_count,
    const VkImageMemoryBarrier* images) {
    Device& of = device_of(commands);
    if (of.tracker.active())
        keep(of, [&] {
            of.recorder.barriers(of.tracker, commands, {images, image_count},
                                 {buffers, buffer_count});
        });
    of.vk.CmdPipelineBarrier(commands, from, to, flags, memory_count, memory, buffer_count, buffers,
                             image_count, images);
}

template <auto Function>
VKAPI_ATTR void VKAPI_CALL pipeline_barrier(VkCommandBuffer commands,
                                            const VkDependencyInfo* info) {
    Device& of = device_of(commands);
    if (of.tracker.active())
        keep(of, [&] { of.recorder.barriers(of.tracker, commands, *info); });
    (of.vk.*Function)(commands, info);
}
constexpr auto CmdPipelineBarrier2 = pipeline_barrier<&DeviceFunctions::CmdPipelineBarrier2>;
constexpr auto CmdPipelineBarrier2KHR = pipeline_barrier<&DeviceFunctions::CmdPipelineBarrier2KHR>;

VKAPI_ATTR void VKAPI_CALL CmdWaitEvents(VkCommandBuffer commands, std::uint32_t event_count,
                                         const VkEvent* events, VkPipelineStageFlags from,
                                         VkPipelineStageFlags to, std::uint32_t memory_count,
                                         const VkMemoryBarrier* memory, std::uint32_t buffer_count,
                                         const VkBufferMemoryBarrier* buffers,
                                         std::uint32_t image_count,
                                         const VkImageMemoryBarrier* images) {
    Device& of = device_of(commands);
    if (of.tracker.active())
        keep(of, [&] {
            of.recorder.barriers(of.tracker, commands, {images, image_count},
                                 {buffers, buffer_count});
        });
    of.vk.CmdWaitEvents(commands, event_count, events, from, to, memory_count, memory, buffer_count,
                        buffers, image_count, images);
}

template <auto Function>
VKAPI_ATTR void VKAPI_CALL wait_events(VkCommandBuffer commands, std::uint32_t count,
                                       const VkEvent* events, const VkDependencyInfo* infos) {
    Device& of = device_of(commands);
    if (of.tracker.active())
        keep(of, [&] {
            for (const auto& each : std::span(infos, count))
                of.recorder.barriers(of.tracker, commands, each);
        });
    (of.vk.*Function)(commands, count, events, infos);
}
constexpr auto CmdWaitEvents2 = wait_events<&DeviceFunctions::CmdWaitEvents2>;
constexpr auto CmdWaitEvents2KHR = wait_events<&DeviceFunctions::CmdWaitEvents2KHR>;

VKAPI_ATTR void VKAPI_CALL CmdExecuteCommands(VkCommandBuffer commands, std::uint32_t count,
                                              const VkCommandBuffer* others) {
    Device& of = device_of(commands);
    keep(of, [&] { of.recorder.executes(commands, {others, count}); });
    of.vk.CmdExecuteCommands(commands, count, others);
}

// ---- Semaphores and submissions -----------------------------------------------------------------

/// Others may wait for what has just been submitted or signalled.
void catch_up(Device& device) noexcept {
    if (!device.bridge->is_behind())
        return;
    keep(device, [&] {
        std::vector<Queue*> queues;
        {
            const std::scoped_lock held(device.queue_list_lock);
            queues = device.queue_list;
        }
        for (bool any = true; any;) {
            any = false;
            for (Queue* each : queues)
                any |= device.bridge->catch_up(*each);
        }
    });
}

VKAPI_ATTR VkResult VKAPI_CALL CreateSemaphore(VkDevice device, const VkSemaphoreCreateInfo* info,
                                               const VkAllocationCallbacks* allocator,
                                               VkSemaphore* semaphore) {
    Device& of = device_of(device);
    const VkResult result = of.vk.CreateSemaphore(device, info, allocator, semaphore);
    if (result == VK_SUCCESS)
        keep(of, [&] { of.timelines->created(*semaphore, *info); });
    return result;
}

VKAPI_ATTR void VKAPI_CALL DestroySemaphore(VkDevice device, VkSemaphore semaphore,
                                            const VkAllocationCallbacks* allocator) {
    Device& of = device_of(device);
    of.timelines->destroyed(semaphore);
    of.vk.DestroySemaphore(device, semaphore, allocator);
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL signal_semaphore(VkDevice device,
                                                const VkSemaphoreSignalInfo* info) {
    Device& of = device_of(device);
    const VkResult result = (of.vk.*Function)(device, info);
    if (result == VK_SUCCESS) {
        of.timelines->signalled({.semaphore = info->semaphore, .value = info->value});
        catch_up(of);
    }
    return result;
}
constexpr auto SignalSemaphore = signal_semaphore<&DeviceFunctions::SignalSemaphore>;
constexpr auto SignalSemaphoreKHR = signal_semaphore<&DeviceFunctions::SignalSemaphoreKHR>;

VKAPI_ATTR VkResult VKAPI_CALL QueueSubmit(VkQueue queue, std::uint32_t count,
                                           const VkSubmitInfo* infos, VkFence fence) {
    Device& of = device_of(queue);
    Queue* known = of.queues.find(queue);
    if (known == nullptr)
        return of.vk.QueueSubmit(queue, count, infos, fence);
    const VkResult result = of.bridge->submit(*known, std::span(infos, count), fence);
    catch_up(of);
    return result;
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL submit_2(VkQueue queue, std::uint32_t count,
                                        const VkSubmitInfo2* infos, VkFence fence) {
    Device& of = device_of(queue);
    Queue* known = of.queues.find(queue);
    if (known == nullptr)
        return (of.vk.*Function)(queue, count, infos, fence);
    const VkResult result =
        of.bridge->submit(*known, std::span(infos, count), fence, of.vk.*Function);
    catch_up(of);
    return result;
}
constexpr auto QueueSubmit2 = submit_2<&DeviceFunctions::QueueSubmit2>;
constexpr auto QueueSubmit2KHR = submit_2<&DeviceFunctions::QueueSubmit2KHR>;

VKAPI_ATTR VkResult VKAPI_CALL QueueBindSparse(VkQueue queue, std::uint32_t count,
                                               const VkBindSparseInfo* infos, VkFence fence) {
    Device& of = device_of(queue);
    Queue* known = of.queues.find(queue);
    if (known == nullptr)
        return of.vk.QueueBindSparse(queue, count, infos, fence);
    const VkResult result = of.bridge->bind_sparse(*known, std::span(infos, count), fence);
    catch_up(of);
    return result;
}

// ---- Between the library and us -----------------------------------------------------------------

VKAPI_ATTR void VKAPI_CALL SetSelfBracketing(VkDevice, VkBool32 on) {
    self_bracketing = on != VK_FALSE;
}

// ---- Which of ours stand before which below -----------------------------------------------------

struct Entry {
    std::string_view name;
    PFN_vkVoidFunction function;
};

PFN_vkVoidFunction find_device_function(std::string_view name) {
#define SLUICE_LAYER_ENTRY(each) {"vk" #each, reinterpret_cast<PFN_vkVoidFunction>(+(each))},
    static const Entry entries[] = {SLUICE_LAYER_DEVICE_FUNCTIONS(SLUICE_LAYER_ENTRY)};
#undef SLUICE_LAYER_ENTRY
    for (const Entry& each : entries)
        if (each.name == name)
            return each.function;
    return nullptr;
}

PFN_vkVoidFunction VKAPI_CALL unchecked_device_function(VkDevice device, const char* name) {
    // What the device does not have, as the functions of extensions that nobody enabled, is not
    // there because of us.
    const Device& of = device_of(device);
    const auto below = of.vk.GetDeviceProcAddr(device, name);
    if (below == nullptr)
        return nullptr;
    // Who cannot share memory goes past us.
    if (!of.may_share && std::string_view(name) != "vkDestroyDevice")
        return below;
    const auto ours = find_device_function(name);
    return ours != nullptr ? ours : below;
}

/// The checks that stand before \p unchecked, which is \p name, where there are any.
PFN_vkVoidFunction with_checks(bool validates, const char* name, PFN_vkVoidFunction unchecked) {
    const auto checked = validates && unchecked != nullptr ? Validation::find(name) : nullptr;
    return checked != nullptr ? checked : unchecked;
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL GetDeviceProcAddr(VkDevice device, const char* name) {
    if (std::string_view(name) == "vkGetDeviceProcAddr")
        return reinterpret_cast<PFN_vkVoidFunction>(&GetDeviceProcAddr);
    if (std::string_view(name) == self_bracketing_name)
        return reinterpret_cast<PFN_vkVoidFunction>(&SetSelfBracketing);
    return with_checks(device_of(device).validates, name, unchecked_device_function(device, name));
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL GetInstanceProcAddr(VkInstance instance,
                                                             const char* name) {
    const Entry entries[] = {
        {"vkGetInstanceProcAddr", reinterpret_cast<PFN_vkVoidFunction>(&GetInstanceProcAddr)},
        {"vkGetDeviceProcAddr", reinterpret_cast<PFN_vkVoidFunction>(&GetDeviceProcAddr)},
        {"vkCreateInstance", reinterpret_cast<PFN_vkVoidFunction>(&CreateInstance)},
        {"vkDestroyInstance", reinterpret_cast<PFN_vkVoidFunction>(&DestroyInstance)},
        {"vkCreateDevice", reinterpret_cast<PFN_vkVoidFunction>(&CreateDevice)},
    };
    for (const Entry& each : entries)
        if (each.name == name)
            return each.function;
    if (instance == VK_NULL_HANDLE)
        return nullptr;
    const Instance* of = instances().find(key_of(instance));
    const auto below = of != nullptr ? of->vk.GetInstanceProcAddr(instance, name) : nullptr;
    if (below == nullptr)
        return nullptr;
    const auto ours = find_device_function(name);
    return with_checks(of->settings.validate, name, ours != nullptr ? ours : below);
}

} // namespace

} // namespace sluice::layer

/// The only name that the layer exports: what the loader asks first (interface version 2).
extern "C" SLUICE_API VKAPI_ATTR VkResult VKAPI_CALL
vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* version) {
    if (version == nullptr || version->sType != LAYER_NEGOTIATE_INTERFACE_STRUCT ||
        version->loaderLayerInterfaceVersion < 2)
        return VK_ERROR_INITIALIZATION_FAILED;
    version->loaderLayerInterfaceVersion = 2;
    version->pfnGetInstanceProcAddr = &sluice::layer::GetInstanceProcAddr;
    version->pfnGetDeviceProcAddr = &sluice::layer::GetDeviceProcAddr;
    version->pfnGetPhysicalDeviceProcAddr = nullptr;
    return VK_SUCCESS;
}
