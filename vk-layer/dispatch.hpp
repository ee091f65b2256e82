// SPDX-License-Identifier: MIT
/// \file
/// The functions below us: the next layer's, or the driver's.
#pragma once

#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

namespace sluice::layer {

// clang-format off
#define SLUICE_LAYER_INSTANCE_FUNCTIONS(each) \
    each(DestroyInstance) \
    each(EnumerateDeviceExtensionProperties) \
    each(GetPhysicalDeviceMemoryProperties) \
    each(GetPhysicalDeviceExternalSemaphoreProperties) \
    each(GetPhysicalDeviceExternalSemaphorePropertiesKHR) \
    each(GetPhysicalDeviceProperties)

#define SLUICE_LAYER_DEVICE_FUNCTIONS(each) \
    each(DestroyDevice) \
    each(GetDeviceQueue) \
    each(GetDeviceQueue2) \
    each(AllocateMemory) \
    each(FreeMemory) \
    each(GetMemoryFdKHR) \
    each(DestroyImage) \
    each(BindImageMemory) \
    each(BindImageMemory2) \
    each(BindImageMemory2KHR) \
    each(DestroyBuffer) \
    each(BindBufferMemory) \
    each(BindBufferMemory2) \
    each(BindBufferMemory2KHR) \
    each(DestroyCommandPool) \
    each(ResetCommandPool) \
    each(AllocateCommandBuffers) \
    each(FreeCommandBuffers) \
    each(BeginCommandBuffer) \
    each(ResetCommandBuffer) \
    each(CmdPipelineBarrier) \
    each(CmdPipelineBarrier2) \
    each(CmdPipelineBarrier2KHR) \
    each(CmdWaitEvents) \
    each(CmdWaitEvents2) \
    each(CmdWaitEvents2KHR) \
    each(CmdExecuteCommands) \
    each(QueueSubmit) \
    each(QueueSubmit2) \
    each(QueueSubmit2KHR) \
    each(QueueBindSparse) \
    each(CreateSemaphore) \
    each(DestroySemaphore) \
    each(SignalSemaphore) \
    each(SignalSemaphoreKHR)

/// Those that we need and do not stand in the way of.
#define SLUICE_LAYER_OTHER_DEVICE_FUNCTIONS(each) \
    each(ImportSemaphoreFdKHR) \
    each(GetSemaphoreFdKHR) \
    each(GetSemaphoreCounterValue) \
    each(GetSemaphoreCounterValueKHR) \
    each(CreateFence) \
    each(DestroyFence) \
    each(ResetFences) \
    each(WaitForFences) \
    each(QueueWaitIdle)
// clang-format on

#define SLUICE_LAYER_DECLARE(name) PFN_vk##name name = nullptr;

/// One that the instance does not have is null.
struct InstanceFunctions {
    PFN_vkGetInstanceProcAddr GetInstanceProcAddr = nullptr;
    SLUICE_LAYER_INSTANCE_FUNCTIONS(SLUICE_LAYER_DECLARE)

    void load(PFN_vkGetInstanceProcAddr next, VkInstance instance) noexcept;
};

/// One that the device does not have is null.
struct DeviceFunctions {
    PFN_vkGetDeviceProcAddr GetDeviceProcAddr = nullptr;
    SLUICE_LAYER_DEVICE_FUNCTIONS(SLUICE_LAYER_DECLARE)
    SLUICE_LAYER_OTHER_DEVICE_FUNCTIONS(SLUICE_LAYER_DECLARE)

    void load(PFN_vkGetDeviceProcAddr next, VkDevice device) noexcept;
};

#undef SLUICE_LAYER_DECLARE

} // namespace sluice::layer
