// SPDX-License-Identifier: MIT
#include "layer/hand_loader.hpp"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <span>
#include <string_view>
#include <utility>

namespace sluice::test {

namespace {

constexpr std::size_t most_layers = 4;

HandLoader* current = nullptr;

// The chain of the creation that is under way in this thread.
thread_local const VkLayerInstanceLink* instance_links = nullptr;
thread_local const VkLayerDeviceLink* device_links = nullptr;

template <typename Function> PFN_vkVoidFunction untyped(Function function) {
    return reinterpret_cast<PFN_vkVoidFunction>(function);
}

template <typename Handle> void set_word(Handle handle, void* word) {
    void*& at = *reinterpret_cast<void**>(handle);
    if (at != word) // others may be reading it
        at = word;
}

/// The structure of a loader's \p type and \p function in the chain that starts at \p next, or
/// null.
template <typename T>
const T* chained(const void* next, VkStructureType type, VkLayerFunction function) {
    for (auto* each = static_cast<const VkBaseInStructure*>(next); each; each = each->pNext)
        if (each->sType == type && reinterpret_cast<const T*>(each)->function == function)
            return reinterpret_cast<const T*>(each);
    return nullptr;
}

bool is_of_device(std::string_view name) {
    static const auto all = FakeIcd::device_functions();
    return std::ranges::find(all, name) != all.end();
}

} // namespace

/// The functions, named as Vulkan's without the prefix. `At` is a place in the chain: that of a
/// layer, or behind them all, where the loader ends the chain itself.
struct HandLoader::Calls {
    static HandLoader& loader() {
        if (current == nullptr)
            std::abort();
        return *current;
    }

    static std::string who(std::size_t layer) { return "layer " + std::to_string(layer) + " "; }

    template <typename Handle> static Table& table(Handle of) {
        return *static_cast<Table*>(word(of));
    }

    // What the application calls.

    static VkResult VKAPI_CALL CreateInstance(const VkInstanceCreateInfo* info,
                                              const VkAllocationCallbacks* allocator,
                                              VkInstance* instance) {
        const std::size_t count = loader().layers_.size();
        std::array<VkLayerInstanceLink, most_layers> links{};
        for (std::size_t each = 0; each < count; ++each)
            links[each] = {.pNext = each + 1 < count ? &links[each + 1] : nullptr,
                           .pfnNextGetInstanceProcAddr = places[each + 1].get_instance,
                           .pfnNextGetPhysicalDeviceProcAddr = places[each + 1].get_physical};
        VkLayerInstanceCreateInfo chain{.sType = VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO,
                                        .pNext = info->pNext,
                                        .function = VK_LAYER_LINK_INFO,
                                        .u = {.pLayerInfo = links.data()}};
        VkLayerInstanceCreateInfo callback{.sType = VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO,
                                           .pNext = &chain,
                                           .function = VK_LOADER_DATA_CALLBACK,
                                           .u = {.pfnSetInstanceLoaderData = SetInstanceData}};
        const VkLayerInstanceCreateInfo features{.sType =
                                                     VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO,
                                                 .pNext = &callback,
                                                 .function = VK_LOADER_FEATURES,
                                                 .u = {.loaderFeatures = 0}};
        VkInstanceCreateInfo whole = *info;
        if (count > 0)
            whole.pNext = &features;
        const auto* before = std::exchange(instance_links, links.data());
        const VkResult result = places[0].create_instance(&whole, allocator, instance);
        instance_links = before;
        if (result == VK_SUCCESS)
            loader().check_functions(*instance);
        return result;
    }

    static VkResult VKAPI_CALL CreateDevice(VkPhysicalDevice on, const VkDeviceCreateInfo* info,
                                            const VkAllocationCallbacks* allocator,
                                            VkDevice* device) {
        const std::size_t count = loader().layers_.size();
        std::array<VkLayerDeviceLink, most_layers> links{};
        for (std::size_t each = 0; each < count; ++each)
            links[each] = {.pNext = each + 1 < count ? &links[each + 1] : nullptr,
                           .pfnNextGetInstanceProcAddr = places[each + 1].get_to_create_device,
                           .pfnNextGetDeviceProcAddr = places[each + 1].get_device};
        VkLayerDeviceCreateInfo chain{.sType = VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO,
                                      .pNext = info->pNext,
                                      .function = VK_LAYER_LINK_INFO,
                                      .u = {.pLayerInfo = links.data()}};
        VkLayerDeviceCreateInfo callback{.sType = VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO,
                                         .pNext = &chain,
                                         .function = VK_LOADER_DATA_CALLBACK,
                                         .u = {.pfnSetDeviceLoaderData = SetDeviceData}};
        VkDeviceCreateInfo whole = *info;
        if (count > 0)
            whole.pNext = &callback;
        // The Khronos loader leaves its own device there, and takes it for granted at the end.
        *device = reinterpret_cast<VkDevice>(links.data());
        const auto* before = std::exchange(device_links, links.data());
        const VkResult result = places[0].create_device(on, &whole, allocator, device);
        device_links = before;
        if (result != VK_SUCCESS) {
            *device = VK_NULL_HANDLE;
            return result;
        }
        Table& made = table(*device);
        const auto find = [&](auto& into, const char* name) {
            into = reinterpret_cast<std::remove_reference_t<decltype(into)>>(
                places[0].get_device(*device, name));
        };
        find(made.get_queue, "vkGetDeviceQueue");
        find(made.get_queue_2, "vkGetDeviceQueue2");
        find(made.allocate_commands, "vkAllocateCommandBuffers");
        loader().check_functions(*device);
        return VK_SUCCESS;
    }

    static void VKAPI_CALL GetDeviceQueue(VkDevice device, std::uint32_t family,
                                          std::uint32_t index, VkQueue* queue) {
        table(device).get_queue(device, family, index, queue);
        if (*queue != VK_NULL_HANDLE)
            set_word(*queue, word(device));
    }

    static void VKAPI_CALL GetDeviceQueue2(VkDevice device, const VkDeviceQueueInfo2* info,
                                           VkQueue* queue) {
        table(device).get_queue_2(device, info, queue);
        if (*queue != VK_NULL_HANDLE)
            set_word(*queue, word(device));
    }

    static VkResult VKAPI_CALL AllocateCommandBuffers(VkDevice device,
                                                      const VkCommandBufferAllocateInfo* info,
                                                      VkCommandBuffer* into) {
        const VkResult result = table(device).allocate_commands(device, info, into);
        if (result == VK_SUCCESS)
            for (VkCommandBuffer each : std::span(into, info->commandBufferCount))
                set_word(each, word(device));
        return result;
    }

    // What a layer calls.

    static VkResult VKAPI_CALL SetInstanceData(VkInstance instance, void* object) {
        set_word(object, word(instance));
        return VK_SUCCESS;
    }

    static VkResult VKAPI_CALL SetDeviceData(VkDevice device, void* object) {
        set_word(object, word(device));
        return VK_SUCCESS;
    }

    /// vkGetInstanceProcAddr of what is at a place.
    template <std::size_t At>
    static PFN_vkVoidFunction VKAPI_CALL get_instance(VkInstance instance, const char* name) {
        if (name == std::string_view("vkCreateInstance"))
            return untyped(create_instance<At>);
        if (name == std::string_view("vkCreateDevice") && instance != VK_NULL_HANDLE)
            return untyped(create_device<At>);
        if (At < loader().layers_.size())
            return loader().layers_[At].pfnGetInstanceProcAddr(instance, name);
        if (name == std::string_view("vkGetInstanceProcAddr"))
            return untyped(get_instance<At>);
        if (name == std::string_view("vkEnumeratePhysicalDevices"))
            return untyped(EnumeratePhysicalDevices);
        if (name == std::string_view("vkEnumeratePhysicalDeviceGroups"))
            return FakeIcd::get_instance_proc_addr(instance, name)
                       ? untyped(EnumeratePhysicalDeviceGroups)
                       : nullptr;
        if (is_of_device(name)) // they are found by devices
            return nullptr;
        return FakeIcd::get_instance_proc_addr(instance, name);
    }

    template <std::size_t At>
    static PFN_vkVoidFunction VKAPI_CALL get_to_create_device(VkInstance instance,
                                                              const char* name) {
        if (name != std::string_view("vkCreateDevice") || instance == VK_NULL_HANDLE)
            loader().complain_(who(At - 1) + "looks for " + name +
                               (instance ? " in a device's chain" : " without an instance"));
        return name == std::string_view("vkCreateDevice") ? untyped(create_device<At>)
                                                          : get_instance<At>(instance, name);
    }

    template <std::size_t At>
    static PFN_vkVoidFunction VKAPI_CALL get_physical(VkInstance instance, const char* name) {
        if (At >= loader().layers_.size())
            return nullptr; // the driver has no functions that a loader would not know
        if constexpr (At < most_layers) {
            const auto own = loader().layers_[At].pfnGetPhysicalDeviceProcAddr;
            return own ? own(instance, name) : get_physical<At + 1>(instance, name);
        }
        return nullptr;
    }

    template <std::size_t At>
    static PFN_vkVoidFunction VKAPI_CALL get_device(VkDevice device, const char* name) {
        if (At < loader().layers_.size())
            return loader().layers_[At].pfnGetDeviceProcAddr(device, name);
        const auto driver = reinterpret_cast<PFN_vkGetDeviceProcAddr>(
            FakeIcd::get_instance_proc_addr(table(device).instance, "vkGetDeviceProcAddr"));
        return driver(device, name);
    }

    /// Creates with what is at a place, if the layer above it left the chain as it should.
    template <std::size_t At>
    static VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo* info,
                                               const VkAllocationCallbacks* allocator,
                                               VkInstance* instance) {
        const std::size_t count = loader().layers_.size();
        if (count > 0) {
            const auto* chain = chained<VkLayerInstanceCreateInfo>(
                info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO, VK_LAYER_LINK_INFO);
            const auto* expected = At < count ? instance_links + At : nullptr;
            if (!chain || chain->u.pLayerInfo != expected) {
                loader().complain_(who(At - 1) + "has not advanced the chain of the instance");
                return VK_ERROR_INITIALIZATION_FAILED;
            }
        }
        if (At < count) {
            // The Khronos loader has an object by then, which no layer knows.
            std::uintptr_t no_word = 0;
            const auto create =
                reinterpret_cast<PFN_vkCreateInstance>(loader().layers_[At].pfnGetInstanceProcAddr(
                    reinterpret_cast<VkInstance>(&no_word), "vkCreateInstance"));
            if (!create) {
                loader().complain_(who(At) + "has no vkCreateInstance");
                return VK_ERROR_INITIALIZATION_FAILED;
            }
            return create(info, allocator, instance);
        }
        const auto create = reinterpret_cast<PFN_vkCreateInstance>(
            FakeIcd::get_instance_proc_addr(VK_NULL_HANDLE, "vkCreateInstance"));
        const VkResult result = create(info, allocator, instance);
        if (result == VK_SUCCESS)
            set_word(*instance, &loader().new_table(*instance));
        return result;
    }

    template <std::size_t At>
    static VkResult VKAPI_CALL create_device(VkPhysicalDevice on, const VkDeviceCreateInfo* info,
                                             const VkAllocationCallbacks* allocator,
                                             VkDevice* device) {
        const std::size_t count = loader().layers_.size();
        if (count > 0) {
            const auto* chain = chained<VkLayerDeviceCreateInfo>(
                info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO, VK_LAYER_LINK_INFO);
            const auto* expected = At < count ? device_links + At : nullptr;
            if (!chain || chain->u.pLayerInfo != expected) {
                loader().complain_(who(At - 1) + "has not advanced the chain of the device");
                return VK_ERROR_INITIALIZATION_FAILED;
            }
        }
        if (static_cast<const void*>(*device) != device_links) {
            loader().complain_(who(At - 1) + "has lost what lies where the device's handle goes");
            return VK_ERROR_INITIALIZATION_FAILED;
        }
        VkInstance of = table(on).instance;
        const auto create = reinterpret_cast<PFN_vkCreateDevice>(
            At < count ? loader().layers_[At].pfnGetInstanceProcAddr(of, "vkCreateDevice")
                       : FakeIcd::get_instance_proc_addr(of, "vkCreateDevice"));
        if (!create) {
            loader().complain_(who(At) + "has no vkCreateDevice");
            return VK_ERROR_INITIALIZATION_FAILED;
        }
        const VkResult result = create(on, info, allocator, device);
        if (result == VK_SUCCESS && At == count)
            set_word(*device, &loader().new_table(of));
        return result;
    }

    static VkResult VKAPI_CALL EnumeratePhysicalDevices(VkInstance instance, std::uint32_t* count,
                                                        VkPhysicalDevice* into) {
        const auto enumerate = reinterpret_cast<PFN_vkEnumeratePhysicalDevices>(
            FakeIcd::get_instance_proc_addr(instance, "vkEnumeratePhysicalDevices"));
        const VkResult result = enumerate(instance, count, into);
        if (into != nullptr && result >= VK_SUCCESS)
            for (VkPhysicalDevice each : std::span(into, *count))
                set_word(each, word(instance));
        return result;
    }

    static VkResult VKAPI_CALL EnumeratePhysicalDeviceGroups(
        VkInstance instance, std::uint32_t* count, VkPhysicalDeviceGroupProperties* into) {
        const auto enumerate = reinterpret_cast<PFN_vkEnumeratePhysicalDeviceGroups>(
            FakeIcd::get_instance_proc_addr(instance, "vkEnumeratePhysicalDeviceGroups"));
        const VkResult result = enumerate(instance, count, into);
        if (into != nullptr && result >= VK_SUCCESS)
            for (const auto& each : std::span(into, *count))
                set_word(each.physicalDevices[0], word(instance)); // the driver's have one each
        return result;
    }

    struct Place {
        PFN_vkGetInstanceProcAddr get_instance, get_to_create_device;
        PFN_GetPhysicalDeviceProcAddr get_physical;
        PFN_vkGetDeviceProcAddr get_device;
        PFN_vkCreateInstance create_instance;
        PFN_vkCreateDevice create_device;
    };
    template <std::size_t... At>
    static constexpr std::array<Place, sizeof...(At)> all(std::index_sequence<At...> /*places*/) {
        return {Place{get_instance<At>, get_to_create_device<At>, get_physical<At>, get_device<At>,
                      create_instance<At>, create_device<At>}...};
    }
    static const std::array<Place, most_layers + 1> places;
};

const std::array<HandLoader::Calls::Place, most_layers + 1> HandLoader::Calls::places =
    all(std::make_index_sequence<most_layers + 1>());

HandLoader::HandLoader(FakeIcd& icd, const std::vector<Negotiate>& layers,
                       FakeIcd::Complain complain)
    : complain_(std::move(complain)) {
    assert(current == nullptr && layers.size() <= most_layers);
    current = this;
    icd.wants_dispatch_words = true;
    for (const Negotiate negotiate : layers) {
        auto& layer = layers_.emplace_back(VkNegotiateLayerInterface{
            .sType = LAYER_NEGOTIATE_INTERFACE_STRUCT, .loaderLayerInterfaceVersion = 2});
        const std::string who = Calls::who(layers_.size() - 1);
        if (negotiate(&layer) != VK_SUCCESS || layer.loaderLayerInterfaceVersion != 2)
            complain_(who + "does not negotiate version 2");
        if (!layer.pfnGetInstanceProcAddr || !layer.pfnGetDeviceProcAddr)
            complain_(who + "leaves an entry point out");
    }
}

HandLoader::~HandLoader() {
    current = nullptr;
}

PFN_vkVoidFunction HandLoader::get_instance_proc_addr(VkInstance instance, const char* name) {
    if (name == std::string_view("vkGetInstanceProcAddr"))
        return untyped(get_instance_proc_addr);
    if (name == std::string_view("vkCreateInstance"))
        return untyped(Calls::CreateInstance);
    if (instance == VK_NULL_HANDLE) // no layer below version 2 of the interface is asked for these
        return FakeIcd::get_instance_proc_addr(instance, name);
    if (name == std::string_view("vkGetDeviceProcAddr"))
        return untyped(get_device_proc_addr);
    if (name == std::string_view("vkCreateDevice"))
        return untyped(Calls::CreateDevice);
    return is_of_device(name) ? nullptr : Calls::places[0].get_instance(instance, name);
}

PFN_vkVoidFunction HandLoader::get_device_proc_addr(VkDevice device, const char* name) {
    const PFN_vkVoidFunction found = Calls::places[0].get_device(device, name);
    if (found == nullptr)
        return nullptr;
    if (name == std::string_view("vkGetDeviceQueue"))
        return untyped(Calls::GetDeviceQueue);
    if (name == std::string_view("vkGetDeviceQueue2"))
        return untyped(Calls::GetDeviceQueue2);
    if (name == std::string_view("vkAllocateCommandBuffers"))
        return untyped(Calls::AllocateCommandBuffers);
    return found;
}

HandLoader::Table& HandLoader::new_table(VkInstance instance) {
    const std::lock_guard lock(mutex_);
    return tables_.emplace_back(Table{.instance = instance});
}

void HandLoader::check_functions(VkInstance instance) const {
    auto names = FakeIcd::instance_functions();
    names.emplace_back("vkThereIsNoSuchFunction");
    for (std::size_t each = 0; each < layers_.size(); ++each)
        for (const std::string& name : names)
            check(each, name,
                  layers_[each].pfnGetInstanceProcAddr(instance, name.c_str()) != nullptr,
                  Calls::places[each + 1].get_instance(instance, name.c_str()) != nullptr);
}

void HandLoader::check_functions(VkDevice device) const {
    auto names = FakeIcd::device_functions();
    names.emplace_back("vkThereIsNoSuchFunction");
    for (std::size_t each = 0; each < layers_.size(); ++each)
        for (const std::string& name : names)
            check(each, name, layers_[each].pfnGetDeviceProcAddr(device, name.c_str()) != nullptr,
                  Calls::places[each + 1].get_device(device, name.c_str()) != nullptr);
}

void HandLoader::check(std::size_t layer, const std::string& name, bool finds, bool below) const {
    if (finds && !below && !layers_may_add.contains(name))
        complain_(Calls::who(layer) + "finds " + name + ", which nothing below it has");
    if (!finds && below)
        complain_(Calls::who(layer) + "does not find " + name + ", which is below it");
}

} // namespace sluice::test
