// SPDX-License-Identifier: MIT
/// \file
/// A Vulkan loader by hand, for layers that are linked into a test. It does what the Khronos loader
/// does between an application, layers and one driver, and complains where that one would crash.
#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <vulkan/vk_layer.h>
#include <vulkan/vulkan_core.h>

#include "layer/fake_icd.hpp"
#include "layer/fake_icd_functions.hpp"

namespace sluice::test {

/// The loader. One at a time, and it outlives what is made with it.
///
/// It complains where a layer
///   - does not negotiate version 2 of the interface, or leaves one of its entry points out;
///   - does not advance the chain that it is created with, or loses it;
///   - creates a device elsewhere than where it was asked to (the Khronos loader has something
///   there);
///   - looks for more than vkCreateDevice in a device's chain (there, the Khronos loader finds the
///     functions of the topmost layer) or for that without an instance;
///   - finds functions that nothing below it has, or does not find what is below it;
///   - and, through the driver, brings a queue or a command buffer whose dispatch word nobody set.
class HandLoader {
public:
    using Negotiate = PFN_vkNegotiateLoaderLayerInterfaceVersion;

    /// With \p layers on top of \p icd, the one next to the application first; at most four.
    HandLoader(FakeIcd& icd, const std::vector<Negotiate>& layers, FakeIcd::Complain complain);
    ~HandLoader();
    HandLoader(const HandLoader&) = delete;
    HandLoader& operator=(const HandLoader&) = delete;

    /// Functions that layers may have of their own: "vkGetPhysicalDeviceToolProperties".
    std::set<std::string, std::less<>> layers_may_add;

    /// Where an application finds everything, but for the functions of devices, which it finds with
    /// `get_device_proc_addr` alone.
    static PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance instance,
                                                                const char* name);
    static PFN_vkVoidFunction VKAPI_CALL get_device_proc_addr(VkDevice device, const char* name);

    /// The word at the start of a dispatchable \p handle: the same for all objects of one device,
    /// and for an instance and its physical devices.
    template <typename Handle> [[nodiscard]] static void* word(Handle handle) {
        return *reinterpret_cast<void**>(handle);
    }

private:
    struct Calls;

    /// What the dispatch words point at.
    struct Table {
        VkInstance instance = VK_NULL_HANDLE;
        PFN_vkGetDeviceQueue get_queue = nullptr;
        PFN_vkGetDeviceQueue2 get_queue_2 = nullptr;
        PFN_vkAllocateCommandBuffers allocate_commands = nullptr;
    };
    Table& new_table(VkInstance instance);
    void check_functions(VkInstance instance) const;
    void check_functions(VkDevice device) const;
    void check(std::size_t layer, const std::string& name, bool finds, bool below) const;

    const FakeIcd::Complain complain_;
    std::vector<VkNegotiateLayerInterface> layers_;
    std::mutex mutex_; // tables_
    std::deque<Table> tables_;
};

/// What a test calls of an instance, found with \p get. A function that is not there is null.
struct InstanceFunctions {
    InstanceFunctions() = default;
    InstanceFunctions(PFN_vkGetInstanceProcAddr get, VkInstance instance) {
#define SLUICE_TEST_FIND(name, of, needs)                                                          \
    name = reinterpret_cast<PFN_vk##name>(get(instance, "vk" #name));
        SLUICE_TEST_INSTANCE_FUNCTIONS(SLUICE_TEST_FIND)
#undef SLUICE_TEST_FIND
    }
#define SLUICE_TEST_DECLARE(name, of, needs) PFN_vk##name name = nullptr;
    SLUICE_TEST_INSTANCE_FUNCTIONS(SLUICE_TEST_DECLARE)
#undef SLUICE_TEST_DECLARE
};

/// The same of a device, commands included.
struct DeviceFunctions {
    DeviceFunctions() = default;
    DeviceFunctions(PFN_vkGetDeviceProcAddr get, VkDevice device) {
#define SLUICE_TEST_FIND(name, of, needs)                                                          \
    name = reinterpret_cast<PFN_vk##name>(get(device, "vk" #name));
        SLUICE_TEST_DEVICE_FUNCTIONS(SLUICE_TEST_FIND)
        SLUICE_TEST_COMMANDS(SLUICE_TEST_FIND)
#undef SLUICE_TEST_FIND
    }
#define SLUICE_TEST_DECLARE(name, of, needs) PFN_vk##name name = nullptr;
    SLUICE_TEST_DEVICE_FUNCTIONS(SLUICE_TEST_DECLARE)
    SLUICE_TEST_COMMANDS(SLUICE_TEST_DECLARE)
#undef SLUICE_TEST_DECLARE
};

} // namespace sluice::test
