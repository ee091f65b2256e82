// SPDX-License-Identifier: MIT
/// \file
/// A real driver between which and sluice somebody counts what is created, allocated, imported and
/// handed over.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <vulkan/vulkan.h>

namespace sluice::test {

/// Its `get_instance_proc_addr` takes the place of the loader's, and so does the
/// vkGetDeviceProcAddr that it finds. One device at a time.
class CountingVulkan {
public:
    static PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance instance,
                                                                const char* name) {
        const PFN_vkVoidFunction found = vkGetInstanceProcAddr(instance, name);
        if (found != nullptr && name == std::string_view("vkGetDeviceProcAddr")) {
            real_get() = reinterpret_cast<PFN_vkGetDeviceProcAddr>(found);
            return reinterpret_cast<PFN_vkVoidFunction>(&get_device_proc_addr);
        }
        return found;
    }

    /// What has been called so far, and how often: "vkCreateImage" and the like.
    static std::map<std::string, int> calls() {
        std::map<std::string, int> all;
        for (const Entry& each : entries())
            all[each.name] = *each.count;
        return all;
    }

private:
    // What a device makes, allocates, imports and gives a fd for.
    // clang-format off
#define SLUICE_TEST_COUNTED(F)       \
    F(AllocateMemory)                \
    F(BindBufferMemory)              \
    F(BindImageMemory2)              \
    F(CreateBuffer)                  \
    F(CreateFence)                   \
    F(CreateImage)                   \
    F(CreateImageView)               \
    F(CreateSamplerYcbcrConversion)  \
    F(CreateSemaphore)               \
    F(GetMemoryFdKHR)                \
    F(GetMemoryFdPropertiesKHR)      \
    F(GetSemaphoreFdKHR)             \
    F(ImportSemaphoreFdKHR)
    // clang-format on

    struct Entry {
        std::string name;
        PFN_vkVoidFunction counting;
        PFN_vkVoidFunction* real;
        std::atomic<int>* count;
    };

    /// Counts, and calls the driver's. \p Tag tells functions of one signature apart.
    template <typename Tag, typename Function> struct Thunk;
    template <typename Tag, typename R, typename... A> struct Thunk<Tag, R(VKAPI_PTR*)(A...)> {
        static inline PFN_vkVoidFunction real = nullptr;
        static inline std::atomic<int> count = 0;
        static R VKAPI_CALL call(A... arguments) {
            ++count;
            return reinterpret_cast<R(VKAPI_PTR*)(A...)>(real)(arguments...);
        }
    };

    static const std::vector<Entry>& entries() {
#define SLUICE_TEST_ENTRY(name)                                                                    \
    Entry{"vk" #name,                                                                              \
          reinterpret_cast<PFN_vkVoidFunction>(&Thunk<struct Tag##name, PFN_vk##name>::call),      \
          &Thunk<struct Tag##name, PFN_vk##name>::real,                                            \
          &Thunk<struct Tag##name, PFN_vk##name>::count},
        static const std::vector<Entry> all{SLUICE_TEST_COUNTED(SLUICE_TEST_ENTRY)};
#undef SLUICE_TEST_ENTRY
        return all;
    }

    static PFN_vkVoidFunction VKAPI_CALL get_device_proc_addr(VkDevice device, const char* name) {
        const PFN_vkVoidFunction found = real_get()(device, name);
        for (const Entry& each : entries())
            if (found != nullptr && each.name == name) {
                *each.real = found;
                *each.count = 0;
                return each.counting;
            }
        // What is not counted would pass for what is not done.
        for (const char* prefix : {"vkCreate", "vkAllocate", "vkBind", "vkImport"})
            EXPECT_FALSE(std::string_view(name).starts_with(prefix)) << name << " is not counted";
        return found;
    }

    static PFN_vkGetDeviceProcAddr& real_get() {
        static PFN_vkGetDeviceProcAddr real = nullptr;
        return real;
    }
#undef SLUICE_TEST_COUNTED
};

} // namespace sluice::test
