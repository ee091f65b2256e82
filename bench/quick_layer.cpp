// SPDX-License-Identifier: MIT
#include "quick_layer.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace bench::quick {

namespace {

int given = -1;

/// A fence each for the newest submissions, used again when nobody can have one any more.
std::array<int, 64> lagging{};
std::size_t lag = 0;
std::size_t submissions = 0;

PFN_vkGetInstanceProcAddr next_instance = nullptr; // one loader, so the same for all
PFN_vkGetDeviceProcAddr next_device = nullptr;
VkInstance newest = VK_NULL_HANDLE; // each is followed by its device

template <typename Function> PFN_vkVoidFunction untyped(Function function) {
    return reinterpret_cast<PFN_vkVoidFunction>(function);
}

/// Our link in the loader's chain, moved on to the next.
template <typename Link> auto* advance(const void* next, VkStructureType type) {
    auto* each = static_cast<const VkBaseInStructure*>(next);
    while (each->sType != type ||
           reinterpret_cast<const Link*>(each)->function != VK_LAYER_LINK_INFO)
        each = each->pNext;
    // The loader's own structure, which it asks each layer to advance.
    auto* link = const_cast<Link*>(reinterpret_cast<const Link*>(each));
    const auto* ours = link->u.pLayerInfo;
    link->u.pLayerInfo = ours->pNext;
    return ours;
}

VkResult VKAPI_CALL CreateInstance(const VkInstanceCreateInfo* info,
                                   const VkAllocationCallbacks* allocator, VkInstance* instance) {
    next_instance = advance<VkLayerInstanceCreateInfo>(
                        info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO)
                        ->pfnNextGetInstanceProcAddr;
    const auto create =
        reinterpret_cast<PFN_vkCreateInstance>(next_instance(VK_NULL_HANDLE, "vkCreateInstance"));
    const VkResult result = create(info, allocator, instance);
    newest = *instance;
    return result;
}

VkResult VKAPI_CALL CreateDevice(VkPhysicalDevice physical, const VkDeviceCreateInfo* info,
                                 const VkAllocationCallbacks* allocator, VkDevice* device) {
    const auto* link =
        advance<VkLayerDeviceCreateInfo>(info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
    next_device = link->pfnNextGetDeviceProcAddr;
    const auto create = reinterpret_cast<PFN_vkCreateDevice>(
        link->pfnNextGetInstanceProcAddr(newest, "vkCreateDevice"));
    return create(physical, info, allocator, device);
}

/// What stands in the driver's place.
PFN_vkVoidFunction own(std::string_view name) {
    if (name == "vkQueueSubmit")
        return untyped(QueueSubmit);
    if (name == "vkQueueSubmit2" || name == "vkQueueSubmit2KHR")
        return untyped(QueueSubmit2);
    if (name == "vkImportSemaphoreFdKHR")
        return untyped(ImportSemaphoreFdKHR);
    if (name == "vkGetSemaphoreFdKHR")
        return untyped(GetSemaphoreFdKHR);
    return nullptr;
}

PFN_vkVoidFunction VKAPI_CALL GetDeviceProcAddr(VkDevice device, const char* name) {
    if (std::string_view(name) == "vkGetDeviceProcAddr")
        return untyped(GetDeviceProcAddr);
    const auto below = next_device(device, name);
    const auto ours = own(name);
    return below != nullptr && ours != nullptr ? ours : below;
}

PFN_vkVoidFunction VKAPI_CALL GetInstanceProcAddr(VkInstance instance, const char* name) {
    if (std::string_view(name) == "vkGetInstanceProcAddr")
        return untyped(GetInstanceProcAddr);
    if (std::string_view(name) == "vkGetDeviceProcAddr")
        return untyped(GetDeviceProcAddr);
    if (std::string_view(name) == "vkCreateInstance")
        return untyped(CreateInstance);
    if (std::string_view(name) == "vkCreateDevice")
        return untyped(CreateDevice);
    const auto below = next_instance(instance, name);
    const auto ours = own(name);
    return below != nullptr && ours != nullptr ? ours : below;
}

} // namespace

VkResult VKAPI_CALL negotiate(VkNegotiateLayerInterface* version) {
    version->loaderLayerInterfaceVersion = 2;
    version->pfnGetInstanceProcAddr = GetInstanceProcAddr;
    version->pfnGetDeviceProcAddr = GetDeviceProcAddr;
    version->pfnGetPhysicalDeviceProcAddr = nullptr;
    return VK_SUCCESS;
}

void give(int fence) noexcept {
    given = fence;
}

bool lag_behind(int by) noexcept {
    lag = static_cast<std::size_t>(by);
    if (lagging[0] > 0 || lag == 0)
        return true;
    for (int& each : lagging)
        each = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    return std::ranges::all_of(lagging, [](int each) { return each >= 0; });
}

VkResult VKAPI_CALL QueueSubmit(VkQueue /*queue*/, std::uint32_t /*count*/,
                                const VkSubmitInfo* /*infos*/, VkFence /*fence*/) {
    return VK_SUCCESS;
}

VkResult VKAPI_CALL QueueSubmit2(VkQueue /*queue*/, std::uint32_t /*count*/,
                                 const VkSubmitInfo2* /*infos*/, VkFence /*fence*/) {
    return VK_SUCCESS;
}

VkResult VKAPI_CALL ImportSemaphoreFdKHR(VkDevice /*device*/,
                                         const VkImportSemaphoreFdInfoKHR* info) {
    close(info->fd);
    return VK_SUCCESS;
}

VkResult VKAPI_CALL GetSemaphoreFdKHR(VkDevice /*device*/, const VkSemaphoreGetFdInfoKHR* /*info*/,
                                      int* fd) {
    int fence = given;
    if (lag > 0) {
        fence = lagging[submissions % lagging.size()];
        eventfd_t before = 0;
        (void)eventfd_read(fence, &before);
        (void)eventfd_write(lagging[(submissions + lagging.size() - lag) % lagging.size()], 1);
        ++submissions;
    }
    *fd = fcntl(fence, F_DUPFD_CLOEXEC, 0);
    return *fd < 0 ? VK_ERROR_TOO_MANY_OBJECTS : VK_SUCCESS;
}

} // namespace bench::quick
