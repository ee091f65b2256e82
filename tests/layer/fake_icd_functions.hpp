// SPDX-License-Identifier: MIT
/// \file
/// The functions that FakeIcd has: F(name, the function that implements it, what it needs), all
/// without Vulkan's prefix. What it needs is a version of Vulkan, or an extension.
#pragma once

#include "../../vk-layer/map_memory2.hpp"

// clang-format off

/// Found by an instance alone.
#define SLUICE_TEST_INSTANCE_FUNCTIONS(F)                                                                  \
    F(CreateDebugUtilsMessengerEXT, CreateDebugUtilsMessengerEXT, "VK_EXT_debug_utils")                    \
    F(CreateDevice, CreateDevice, "1.0")                                                                   \
    F(DestroyDebugUtilsMessengerEXT, DestroyDebugUtilsMessengerEXT, "VK_EXT_debug_utils")                  \
    F(DestroyInstance, DestroyInstance, "1.0")                                                             \
    F(EnumerateDeviceExtensionProperties, EnumerateDeviceExtensionProperties, "1.0")                       \
    F(EnumerateDeviceLayerProperties, EnumerateDeviceLayerProperties, "1.0")                               \
    F(EnumeratePhysicalDeviceGroups, EnumeratePhysicalDeviceGroups, "1.1")                                 \
    F(EnumeratePhysicalDevices, EnumeratePhysicalDevices, "1.0")                                           \
    F(GetDeviceProcAddr, GetDeviceProcAddr, "1.0")                                                         \
    F(GetPhysicalDeviceExternalBufferProperties, GetPhysicalDeviceExternalBufferProperties, "1.1")         \
    F(GetPhysicalDeviceExternalFenceProperties, GetPhysicalDeviceExternalFenceProperties, "1.1")           \
    F(GetPhysicalDeviceExternalSemaphoreProperties, GetPhysicalDeviceExternalSemaphoreProperties, "1.1")   \
    F(GetPhysicalDeviceFeatures, GetPhysicalDeviceFeatures, "1.0")                                         \
    F(GetPhysicalDeviceFeatures2, GetPhysicalDeviceFeatures2, "1.1")                                       \
    F(GetPhysicalDeviceFormatProperties, GetPhysicalDeviceFormatProperties, "1.0")                         \
    F(GetPhysicalDeviceFormatProperties2, GetPhysicalDeviceFormatProperties2, "1.1")                       \
    F(GetPhysicalDeviceImageFormatProperties, GetPhysicalDeviceImageFormatProperties, "1.0")               \
    F(GetPhysicalDeviceImageFormatProperties2, GetPhysicalDeviceImageFormatProperties2, "1.1")             \
    F(GetPhysicalDeviceMemoryProperties, GetPhysicalDeviceMemoryProperties, "1.0")                         \
    F(GetPhysicalDeviceMemoryProperties2, GetPhysicalDeviceMemoryProperties2, "1.1")                       \
    F(GetPhysicalDeviceProperties, GetPhysicalDeviceProperties, "1.0")                                     \
    F(GetPhysicalDeviceProperties2, GetPhysicalDeviceProperties2, "1.1")                                   \
    F(GetPhysicalDeviceQueueFamilyProperties, GetPhysicalDeviceQueueFamilyProperties, "1.0")               \
    F(GetPhysicalDeviceQueueFamilyProperties2, GetPhysicalDeviceQueueFamilyProperties2, "1.1")             \
    F(GetPhysicalDeviceSparseImageFormatProperties, GetPhysicalDeviceSparseImageFormatProperties, "1.0")   \
    F(GetPhysicalDeviceSparseImageFormatProperties2, GetPhysicalDeviceSparseImageFormatProperties2, "1.1") \
    F(SubmitDebugUtilsMessageEXT, SubmitDebugUtilsMessageEXT, "VK_EXT_debug_utils")

/// Found by a device too, commands aside.
#define SLUICE_TEST_DEVICE_FUNCTIONS(F)                                                                                   \
    F(AllocateCommandBuffers, AllocateCommandBuffers, "1.0")                                                              \
    F(AllocateMemory, AllocateMemory, "1.0")                                                                              \
    F(BeginCommandBuffer, BeginCommandBuffer, "1.0")                                                                      \
    F(BindBufferMemory, BindBufferMemory, "1.0")                                                                          \
    F(BindBufferMemory2, BindBufferMemory2, "1.1")                                                                        \
    F(BindBufferMemory2KHR, BindBufferMemory2, "VK_KHR_bind_memory2")                                                     \
    F(BindImageMemory, BindImageMemory, "1.0")                                                                            \
    F(BindImageMemory2, BindImageMemory2, "1.1")                                                                          \
    F(BindImageMemory2KHR, BindImageMemory2, "VK_KHR_bind_memory2")                                                       \
    F(CmdExecuteCommands, CmdExecuteCommands, "1.0")                                                                      \
    F(CreateBuffer, CreateBuffer, "1.0")                                                                                  \
    F(CreateCommandPool, CreateCommandPool, "1.0")                                                                        \
    F(CreateEvent, CreateEvent, "1.0")                                                                                    \
    F(CreateFence, CreateFence, "1.0")                                                                                    \
    F(CreateImage, CreateImage, "1.0")                                                                                    \
    F(CreateImageView, CreateImageView, "1.0")                                                                            \
    F(CreateSamplerYcbcrConversion, CreateSamplerYcbcrConversion, "1.1")                                                  \
    F(CreateSemaphore, CreateSemaphore, "1.0")                                                                            \
    F(DestroyBuffer, DestroyBuffer, "1.0")                                                                                \
    F(DestroyCommandPool, DestroyCommandPool, "1.0")                                                                      \
    F(DestroyDevice, DestroyDevice, "1.0")                                                                                \
    F(DestroyEvent, DestroyEvent, "1.0")                                                                                  \
    F(DestroyFence, DestroyFence, "1.0")                                                                                  \
    F(DestroyImage, DestroyImage, "1.0")                                                                                  \
    F(DestroyImageView, DestroyImageView, "1.0")                                                                          \
    F(DestroySamplerYcbcrConversion, DestroySamplerYcbcrConversion, "1.1")                                                \
    F(DestroySemaphore, DestroySemaphore, "1.0")                                                                          \
    F(DeviceWaitIdle, DeviceWaitIdle, "1.0")                                                                              \
    F(EndCommandBuffer, EndCommandBuffer, "1.0")                                                                          \
    F(FlushMappedMemoryRanges, FlushMappedMemoryRanges, "1.0")                                                            \
    F(FreeCommandBuffers, FreeCommandBuffers, "1.0")                                                                      \
    F(FreeMemory, FreeMemory, "1.0")                                                                                      \
    F(GetBufferMemoryRequirements, GetBufferMemoryRequirements, "1.0")                                                    \
    F(GetBufferMemoryRequirements2, GetBufferMemoryRequirements2, "1.1")                                                  \
    F(GetBufferMemoryRequirements2KHR, GetBufferMemoryRequirements2, "VK_KHR_get_memory_requirements2")                   \
    F(GetDeviceBufferMemoryRequirements, GetDeviceBufferMemoryRequirements, "1.3")                                        \
    F(GetDeviceImageMemoryRequirements, GetDeviceImageMemoryRequirements, "1.3")                                          \
    F(GetDeviceQueue, GetDeviceQueue, "1.0")                                                                              \
    F(GetDeviceQueue2, GetDeviceQueue2, "1.1")                                                                            \
    F(GetFenceStatus, GetFenceStatus, "1.0")                                                                              \
    F(GetImageDrmFormatModifierPropertiesEXT, GetImageDrmFormatModifierPropertiesEXT, "VK_EXT_image_drm_format_modifier") \
    F(GetImageMemoryRequirements, GetImageMemoryRequirements, "1.0")                                                      \
    F(GetImageMemoryRequirements2, GetImageMemoryRequirements2, "1.1")                                                    \
    F(GetImageMemoryRequirements2KHR, GetImageMemoryRequirements2, "VK_KHR_get_memory_requirements2")                     \
    F(GetImageSubresourceLayout, GetImageSubresourceLayout, "1.0")                                                        \
    F(GetMemoryFdKHR, GetMemoryFdKHR, "VK_KHR_external_memory_fd")                                                        \
    F(GetMemoryFdPropertiesKHR, GetMemoryFdPropertiesKHR, "VK_KHR_external_memory_fd")                                    \
    F(GetMemoryHostPointerPropertiesEXT, GetMemoryHostPointerPropertiesEXT, "VK_EXT_external_memory_host")                \
    F(GetSemaphoreCounterValue, GetSemaphoreCounterValue, "1.2")                                                          \
    F(GetSemaphoreCounterValueKHR, GetSemaphoreCounterValue, "VK_KHR_timeline_semaphore")                                 \
    F(GetSemaphoreFdKHR, GetSemaphoreFdKHR, "VK_KHR_external_semaphore_fd")                                               \
    F(ImportSemaphoreFdKHR, ImportSemaphoreFdKHR, "VK_KHR_external_semaphore_fd")                                         \
    F(InvalidateMappedMemoryRanges, InvalidateMappedMemoryRanges, "1.0")                                                  \
    F(MapMemory, MapMemory, "1.0")                                                                                        \
    F(MapMemory2KHR, MapMemory2KHR, "VK_KHR_map_memory2")                                                                 \
    F(QueueBindSparse, QueueBindSparse, "1.0")                                                                            \
    F(QueueSubmit, QueueSubmit, "1.0")                                                                                    \
    F(QueueSubmit2, QueueSubmit2, "1.3")                                                                                  \
    F(QueueSubmit2KHR, QueueSubmit2, "VK_KHR_synchronization2")                                                           \
    F(QueueWaitIdle, QueueWaitIdle, "1.0")                                                                                \
    F(ResetCommandBuffer, ResetCommandBuffer, "1.0")                                                                      \
    F(ResetCommandPool, ResetCommandPool, "1.0")                                                                          \
    F(ResetFences, ResetFences, "1.0")                                                                                    \
    F(SetDebugUtilsObjectNameEXT, SetDebugUtilsObjectNameEXT, "VK_EXT_debug_utils")                                       \
    F(SignalSemaphore, SignalSemaphore, "1.2")                                                                            \
    F(SignalSemaphoreKHR, SignalSemaphore, "VK_KHR_timeline_semaphore")                                                   \
    F(TrimCommandPool, TrimCommandPool, "1.1")                                                                            \
    F(UnmapMemory, UnmapMemory, "1.0")                                                                                    \
    F(UnmapMemory2KHR, UnmapMemory2KHR, "VK_KHR_map_memory2")                                                             \
    F(WaitForFences, WaitForFences, "1.0")                                                                                \
    F(WaitSemaphores, WaitSemaphores, "1.2")                                                                              \
    F(WaitSemaphoresKHR, WaitSemaphores, "VK_KHR_timeline_semaphore")

/// Commands that are noted down and do nothing else.
#define SLUICE_TEST_COMMANDS(F)                                                     \
    F(CmdBeginDebugUtilsLabelEXT, CmdBeginDebugUtilsLabelEXT, "VK_EXT_debug_utils") \
    F(CmdBeginRenderPass, CmdBeginRenderPass, "1.0")                                \
    F(CmdBindPipeline, CmdBindPipeline, "1.0")                                      \
    F(CmdBlitImage, CmdBlitImage, "1.0")                                            \
    F(CmdBlitImage2, CmdBlitImage2, "1.3")                                          \
    F(CmdClearColorImage, CmdClearColorImage, "1.0")                                \
    F(CmdCopyBuffer, CmdCopyBuffer, "1.0")                                          \
    F(CmdCopyBuffer2, CmdCopyBuffer2, "1.3")                                        \
    F(CmdCopyBufferToImage, CmdCopyBufferToImage, "1.0")                            \
    F(CmdCopyBufferToImage2, CmdCopyBufferToImage2, "1.3")                          \
    F(CmdCopyImage, CmdCopyImage, "1.0")                                            \
    F(CmdCopyImage2, CmdCopyImage2, "1.3")                                          \
    F(CmdCopyImageToBuffer, CmdCopyImageToBuffer, "1.0")                            \
    F(CmdCopyImageToBuffer2, CmdCopyImageToBuffer2, "1.3")                          \
    F(CmdDispatch, CmdDispatch, "1.0")                                              \
    F(CmdDraw, CmdDraw, "1.0")                                                      \
    F(CmdEndDebugUtilsLabelEXT, CmdEndDebugUtilsLabelEXT, "VK_EXT_debug_utils")     \
    F(CmdEndRenderPass, CmdEndRenderPass, "1.0")                                    \
    F(CmdFillBuffer, CmdFillBuffer, "1.0")                                          \
    F(CmdPipelineBarrier, CmdPipelineBarrier, "1.0")                                \
    F(CmdPipelineBarrier2, CmdPipelineBarrier2, "1.3")                              \
    F(CmdPipelineBarrier2KHR, CmdPipelineBarrier2, "VK_KHR_synchronization2")       \
    F(CmdResolveImage2, CmdResolveImage2, "1.3")                                    \
    F(CmdResetEvent, CmdResetEvent, "1.0")                                          \
    F(CmdResetEvent2, CmdResetEvent2, "1.3")                                        \
    F(CmdResetEvent2KHR, CmdResetEvent2, "VK_KHR_synchronization2")                 \
    F(CmdSetEvent, CmdSetEvent, "1.0")                                              \
    F(CmdSetEvent2, CmdSetEvent2, "1.3")                                            \
    F(CmdSetEvent2KHR, CmdSetEvent2, "VK_KHR_synchronization2")                     \
    F(CmdUpdateBuffer, CmdUpdateBuffer, "1.0")                                      \
    F(CmdWaitEvents, CmdWaitEvents, "1.0")                                          \
    F(CmdWaitEvents2, CmdWaitEvents2, "1.3")                                        \
    F(CmdWaitEvents2KHR, CmdWaitEvents2, "VK_KHR_synchronization2")

// clang-format on
