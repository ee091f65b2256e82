// SPDX-License-Identifier: MIT
/// \file
/// The functions that stand in front of the rest of the layer while the checks are on.
#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "chain.hpp"
#include "immortal.hpp"
#include "registry.hpp"
#include "validate.hpp"

namespace sluice::layer {

namespace {

using Down = ValidateFunctions;
using Allocator = const VkAllocationCallbacks*;

constinit Immortal<Registry<Validation>> all_validations;

Registry<Validation>& validations() noexcept {
    return all_validations.value;
}

template <typename Handle> Validation& checks_of(Handle dispatchable) {
    return *validations().find(key_of(dispatchable));
}

// ---- Memory -------------------------------------------------------------------------------------

VKAPI_ATTR VkResult VKAPI_CALL AllocateMemory(VkDevice device, const VkMemoryAllocateInfo* info,
                                              Allocator allocator, VkDeviceMemory* memory) {
    Validation& of = checks_of(device);
    Validation::Import import;
    of.check([&] { import = of.allocate(*info); });
    const VkResult result = of.down.AllocateMemory(device, info, allocator, memory);
    if (result == VK_SUCCESS)
        of.check([&] { of.allocated(*info, *memory, std::move(import)); });
    return result;
}

VKAPI_ATTR void VKAPI_CALL FreeMemory(VkDevice device, VkDeviceMemory memory, Allocator allocator) {
    Validation& of = checks_of(device);
    of.freed(memory);
    of.down.FreeMemory(device, memory, allocator);
}

VKAPI_ATTR VkResult VKAPI_CALL GetMemoryFdPropertiesKHR(VkDevice device,
                                                        VkExternalMemoryHandleTypeFlagBits type,
                                                        int fd, VkMemoryFdPropertiesKHR* into) {
    Validation& of = checks_of(device);
    of.check([&] { of.ask_for_properties(type, fd); });
    return of.down.GetMemoryFdPropertiesKHR(device, type, fd, into);
}

VKAPI_ATTR VkResult VKAPI_CALL MapMemory(VkDevice device, VkDeviceMemory memory,
                                         VkDeviceSize offset, VkDeviceSize size,
                                         VkMemoryMapFlags flags, void** at) {
    Validation& of = checks_of(device);
    const VkResult result = of.down.MapMemory(device, memory, offset, size, flags, at);
    if (result == VK_SUCCESS)
        of.check([&] { of.mapped(memory); });
    return result;
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL map_2(VkDevice device, const VkMemoryMapInfoKHR* info, void** at) {
    Validation& of = checks_of(device);
    const VkResult result = (of.down.*Function)(device, info, at);
    if (result == VK_SUCCESS)
        of.check([&] { of.mapped(info->memory); });
    return result;
}
constexpr auto MapMemory2 = map_2<&Down::MapMemory2>;
constexpr auto MapMemory2KHR = map_2<&Down::MapMemory2KHR>;

VKAPI_ATTR void VKAPI_CALL UnmapMemory(VkDevice device, VkDeviceMemory memory) {
    Validation& of = checks_of(device);
    of.check([&] { of.unmap(memory); });
    of.down.UnmapMemory(device, memory);
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL unmap_2(VkDevice device, const VkMemoryUnmapInfoKHR* info) {
    Validation& of = checks_of(device);
    of.check([&] { of.unmap(info->memory); });
    return (of.down.*Function)(device, info);
}
constexpr auto UnmapMemory2 = unmap_2<&Down::UnmapMemory2>;
constexpr auto UnmapMemory2KHR = unmap_2<&Down::UnmapMemory2KHR>;

VKAPI_ATTR VkResult VKAPI_CALL FlushMappedMemoryRanges(VkDevice device, std::uint32_t count,
                                                       const VkMappedMemoryRange* ranges) {
    Validation& of = checks_of(device);
    of.check([&] { of.touch({ranges, count}, Access::write); });
    return of.down.FlushMappedMemoryRanges(device, count, ranges);
}

VKAPI_ATTR VkResult VKAPI_CALL InvalidateMappedMemoryRanges(VkDevice device, std::uint32_t count,
                                                            const VkMappedMemoryRange* ranges) {
    Validation& of = checks_of(device);
    of.check([&] { of.touch({ranges, count}, Access::read); });
    return of.down.InvalidateMappedMemoryRanges(device, count, ranges);
}

// ---- Images and buffers -------------------------------------------------------------------------

VKAPI_ATTR VkResult VKAPI_CALL CreateImage(VkDevice device, const VkImageCreateInfo* info,
                                           Allocator allocator, VkImage* image) {
    Validation& of = checks_of(device);
    of.check([&] { of.create(*info); });
    const VkResult result = of.down.CreateImage(device, info, allocator, image);
    if (result == VK_SUCCESS)
        of.check([&] { of.created(*image, *info); });
    return result;
}

VKAPI_ATTR void VKAPI_CALL DestroyImage(VkDevice device, VkImage image, Allocator allocator) {
    Validation& of = checks_of(device);
    of.destroyed(object(image));
    of.down.DestroyImage(device, image, allocator);
}

VKAPI_ATTR VkResult VKAPI_CALL CreateBuffer(VkDevice device, const VkBufferCreateInfo* info,
                                            Allocator allocator, VkBuffer* buffer) {
    Validation& of = checks_of(device);
    const VkResult result = of.down.CreateBuffer(device, info, allocator, buffer);
    if (result == VK_SUCCESS)
        of.check([&] { of.created(*buffer, *info); });
    return result;
}

VKAPI_ATTR void VKAPI_CALL DestroyBuffer(VkDevice device, VkBuffer buffer, Allocator allocator) {
    Validation& of = checks_of(device);
    of.destroyed(object(buffer));
    of.down.DestroyBuffer(device, buffer, allocator);
}

VKAPI_ATTR VkResult VKAPI_CALL BindImageMemory(VkDevice device, VkImage image,
                                               VkDeviceMemory memory, VkDeviceSize offset) {
    Validation& of = checks_of(device);
    of.check([&] { of.bind(image, memory, offset, nullptr); });
    const VkResult result = of.down.BindImageMemory(device, image, memory, offset);
    if (result == VK_SUCCESS)
        of.check([&] { of.bound(object(image), memory); });
    return result;
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL bind_images(VkDevice device, std::uint32_t count,
                                           const VkBindImageMemoryInfo* infos) {
    Validation& of = checks_of(device);
    for (const auto& each : std::span(infos, count))
        of.check([&] { of.bind(each.image, each.memory, each.memoryOffset, each.pNext); });
    const VkResult result = (of.down.*Function)(device, count, infos);
    if (result == VK_SUCCESS)
        for (const auto& each : std::span(infos, count))
            of.check([&] { of.bound(object(each.image), each.memory); });
    return result;
}
constexpr auto BindImageMemory2 = bind_images<&Down::BindImageMemory2>;
constexpr auto BindImageMemory2KHR = bind_images<&Down::BindImageMemory2KHR>;

VKAPI_ATTR VkResult VKAPI_CALL BindBufferMemory(VkDevice device, VkBuffer buffer,
                                                VkDeviceMemory memory, VkDeviceSize offset) {
    Validation& of = checks_of(device);
    of.check([&] { of.bind(buffer, memory); });
    const VkResult result = of.down.BindBufferMemory(device, buffer, memory, offset);
    if (result == VK_SUCCESS)
        of.check([&] { of.bound(object(buffer), memory); });
    return result;
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL bind_buffers(VkDevice device, std::uint32_t count,
                                            const VkBindBufferMemoryInfo* infos) {
    Validation& of = checks_of(device);
    for (const auto& each : std::span(infos, count))
        of.check([&] { of.bind(each.buffer, each.memory); });
    const VkResult result = (of.down.*Function)(device, count, infos);
    if (result == VK_SUCCESS)
        for (const auto& each : std::span(infos, count))
            of.check([&] { of.bound(object(each.buffer), each.memory); });
    return result;
}
constexpr auto BindBufferMemory2 = bind_buffers<&Down::BindBufferMemory2>;
constexpr auto BindBufferMemory2KHR = bind_buffers<&Down::BindBufferMemory2KHR>;

// ---- Command buffers ----------------------------------------------------------------------------

VKAPI_ATTR VkResult VKAPI_CALL AllocateCommandBuffers(VkDevice device,
                                                      const VkCommandBufferAllocateInfo* info,
                                                      VkCommandBuffer* commands) {
    Validation& of = checks_of(device);
    const VkResult result = of.down.AllocateCommandBuffers(device, info, commands);
    if (result == VK_SUCCESS)
        of.check([&] {
            of.ownership.allocated(info->commandPool, {commands, info->commandBufferCount});
        });
    return result;
}

VKAPI_ATTR void VKAPI_CALL FreeCommandBuffers(VkDevice device, VkCommandPool pool,
                                              std::uint32_t count,
                                              const VkCommandBuffer* commands) {
    Validation& of = checks_of(device);
    of.ownership.freed({commands, count});
    of.down.FreeCommandBuffers(device, pool, count, commands);
}

VKAPI_ATTR void VKAPI_CALL DestroyCommandPool(VkDevice device, VkCommandPool pool,
                                              Allocator allocator) {
    Validation& of = checks_of(device);
    of.ownership.pool_destroyed(pool);
    of.down.DestroyCommandPool(device, pool, allocator);
}

VKAPI_ATTR VkResult VKAPI_CALL ResetCommandPool(VkDevice device, VkCommandPool pool,
                                                VkCommandPoolResetFlags flags) {
    Validation& of = checks_of(device);
    of.check([&] { of.ownership.pool_reset(pool); });
    return of.down.ResetCommandPool(device, pool, flags);
}

VKAPI_ATTR VkResult VKAPI_CALL BeginCommandBuffer(VkCommandBuffer commands,
                                                  const VkCommandBufferBeginInfo* info) {
    Validation& of = checks_of(commands);
    of.check([&] { of.ownership.reset(commands); });
    return of.down.BeginCommandBuffer(commands, info);
}

VKAPI_ATTR VkResult VKAPI_CALL ResetCommandBuffer(VkCommandBuffer commands,
                                                  VkCommandBufferResetFlags flags) {
    Validation& of = checks_of(commands);
    of.check([&] { of.ownership.reset(commands); });
    return of.down.ResetCommandBuffer(commands, flags);
}

VKAPI_ATTR void VKAPI_CALL CmdExecuteCommands(VkCommandBuffer commands, std::uint32_t count,
                                              const VkCommandBuffer* others) {
    Validation& of = checks_of(commands);
    of.check([&] { of.ownership.executes(commands, {others, count}); });
    of.down.CmdExecuteCommands(commands, count, others);
}

VKAPI_ATTR void VKAPI_CALL CmdPipelineBarrier(
    VkCommandBuffer commands, VkPipelineStageFlags from, VkPipelineStageFlags to,
    VkDependencyFlags flags, std::uint32_t memory_count, const VkMemoryBarrier* memory,
    std::uint32_t buffer_count, const VkBufferMemoryBarrier* buffers, std::uint32_t image_count,
    const VkImageMemoryBarrier* images) {
    Validation& of = checks_of(commands);
    of.check([&] { of.barriers(commands, {images, image_count}, {buffers, buffer_count}); });
    of.down.CmdPipelineBarrier(commands, from, to, flags, memory_count, memory, buffer_count,
                               buffers, image_count, images);
}

template <auto Function>
VKAPI_ATTR void VKAPI_CALL pipeline_barrier(VkCommandBuffer commands,
                                            const VkDependencyInfo* info) {
    Validation& of = checks_of(commands);
    of.check([&] { of.barriers(commands, *info); });
    (of.down.*Function)(commands, info);
}
constexpr auto CmdPipelineBarrier2 = pipeline_barrier<&Down::CmdPipelineBarrier2>;
constexpr auto CmdPipelineBarrier2KHR = pipeline_barrier<&Down::CmdPipelineBarrier2KHR>;

VKAPI_ATTR void VKAPI_CALL CmdWaitEvents(VkCommandBuffer commands, std::uint32_t event_count,
                                         const VkEvent* events, VkPipelineStageFlags from,
                                         VkPipelineStageFlags to, std::uint32_t memory_count,
                                         const VkMemoryBarrier* memory, std::uint32_t buffer_count,
                                         const VkBufferMemoryBarrier* buffers,
                                         std::uint32_t image_count,
                                         const VkImageMemoryBarrier* images) {
    Validation& of = checks_of(commands);
    of.check([&] { of.barriers(commands, {images, image_count}, {buffers, buffer_count}); });
    of.down.CmdWaitEvents(commands, event_count, events, from, to, memory_count, memory,
                          buffer_count, buffers, image_count, images);
}

template <auto Function>
VKAPI_ATTR void VKAPI_CALL wait_events(VkCommandBuffer commands, std::uint32_t count,
                                       const VkEvent* events, const VkDependencyInfo* infos) {
    Validation& of = checks_of(commands);
    for (const auto& each : std::span(infos, count))
        of.check([&] { of.barriers(commands, each); });
    (of.down.*Function)(commands, count, events, infos);
}
constexpr auto CmdWaitEvents2 = wait_events<&Down::CmdWaitEvents2>;
constexpr auto CmdWaitEvents2KHR = wait_events<&Down::CmdWaitEvents2KHR>;

// ---- Transfers ----------------------------------------------------------------------------------

/// A transfer with its parameters in one structure.
template <auto Function, typename Info>
VKAPI_ATTR void VKAPI_CALL transfer_2(VkCommandBuffer commands, const Info* info) {
    Validation& of = checks_of(commands);
    if constexpr (requires { info->srcImage; })
        of.check([&] { of.reads(commands, info->srcImage); });
    else
        of.check([&] { of.reads(commands, info->srcBuffer); });
    if constexpr (requires { info->dstImage; })
        of.check([&] { of.writes(commands, info->dstImage); });
    else
        of.check([&] { of.writes(commands, info->dstBuffer); });
    (of.down.*Function)(commands, info);
}
constexpr auto CmdCopyBuffer2 = transfer_2<&Down::CmdCopyBuffer2, VkCopyBufferInfo2>;
constexpr auto CmdCopyBuffer2KHR = transfer_2<&Down::CmdCopyBuffer2KHR, VkCopyBufferInfo2>;
constexpr auto CmdCopyImage2 = transfer_2<&Down::CmdCopyImage2, VkCopyImageInfo2>;
constexpr auto CmdCopyImage2KHR = transfer_2<&Down::CmdCopyImage2KHR, VkCopyImageInfo2>;
constexpr auto CmdBlitImage2 = transfer_2<&Down::CmdBlitImage2, VkBlitImageInfo2>;
constexpr auto CmdBlitImage2KHR = transfer_2<&Down::CmdBlitImage2KHR, VkBlitImageInfo2>;
constexpr auto CmdResolveImage2 = transfer_2<&Down::CmdResolveImage2, VkResolveImageInfo2>;
constexpr auto CmdResolveImage2KHR = transfer_2<&Down::CmdResolveImage2KHR, VkResolveImageInfo2>;
constexpr auto CmdCopyBufferToImage2 =
    transfer_2<&Down::CmdCopyBufferToImage2, VkCopyBufferToImageInfo2>;
constexpr auto CmdCopyBufferToImage2KHR =
    transfer_2<&Down::CmdCopyBufferToImage2KHR, VkCopyBufferToImageInfo2>;
constexpr auto CmdCopyImageToBuffer2 =
    transfer_2<&Down::CmdCopyImageToBuffer2, VkCopyImageToBufferInfo2>;
constexpr auto CmdCopyImageToBuffer2KHR =
    transfer_2<&Down::CmdCopyImageToBuffer2KHR, VkCopyImageToBufferInfo2>;

/// Transfers with the source, its layout where it is an image, the destination and the rest.
template <auto Function, typename... Rest>
VKAPI_ATTR void VKAPI_CALL from_image(VkCommandBuffer commands, VkImage from, VkImageLayout layout,
                                      VkImage to, Rest... rest) {
    Validation& of = checks_of(commands);
    of.check([&] { of.reads(commands, from); });
    of.check([&] { of.writes(commands, to); });
    (of.down.*Function)(commands, from, layout, to, rest...);
}
constexpr auto CmdCopyImage =
    from_image<&Down::CmdCopyImage, VkImageLayout, std::uint32_t, const VkImageCopy*>;
constexpr auto CmdBlitImage =
    from_image<&Down::CmdBlitImage, VkImageLayout, std::uint32_t, const VkImageBlit*, VkFilter>;
constexpr auto CmdResolveImage =
    from_image<&Down::CmdResolveImage, VkImageLayout, std::uint32_t, const VkImageResolve*>;

VKAPI_ATTR void VKAPI_CALL CmdCopyBuffer(VkCommandBuffer commands, VkBuffer from, VkBuffer to,
                                         std::uint32_t count, const VkBufferCopy* regions) {
    Validation& of = checks_of(commands);
    of.check([&] { of.reads(commands, from); });
    of.check([&] { of.writes(commands, to); });
    of.down.CmdCopyBuffer(commands, from, to, count, regions);
}

VKAPI_ATTR void VKAPI_CALL CmdCopyBufferToImage(VkCommandBuffer commands, VkBuffer from, VkImage to,
                                                VkImageLayout layout, std::uint32_t count,
                                                const VkBufferImageCopy* regions) {
    Validation& of = checks_of(commands);
    of.check([&] { of.reads(commands, from); });
    of.check([&] { of.writes(commands, to); });
    of.down.CmdCopyBufferToImage(commands, from, to, layout, count, regions);
}

VKAPI_ATTR void VKAPI_CALL CmdCopyImageToBuffer(VkCommandBuffer commands, VkImage from,
                                                VkImageLayout layout, VkBuffer to,
                                                std::uint32_t count,
                                                const VkBufferImageCopy* regions) {
    Validation& of = checks_of(commands);
    of.check([&] { of.reads(commands, from); });
    of.check([&] { of.writes(commands, to); });
    of.down.CmdCopyImageToBuffer(commands, from, layout, to, count, regions);
}

VKAPI_ATTR void VKAPI_CALL CmdUpdateBuffer(VkCommandBuffer commands, VkBuffer to,
                                           VkDeviceSize offset, VkDeviceSize size,
                                           const void* data) {
    Validation& of = checks_of(commands);
    of.check([&] { of.writes(commands, to); });
    of.down.CmdUpdateBuffer(commands, to, offset, size, data);
}

VKAPI_ATTR void VKAPI_CALL CmdFillBuffer(VkCommandBuffer commands, VkBuffer to, VkDeviceSize offset,
                                         VkDeviceSize size, std::uint32_t data) {
    Validation& of = checks_of(commands);
    of.check([&] { of.writes(commands, to); });
    of.down.CmdFillBuffer(commands, to, offset, size, data);
}

template <auto Function, typename Value>
VKAPI_ATTR void VKAPI_CALL clear(VkCommandBuffer commands, VkImage image, VkImageLayout layout,
                                 const Value* value, std::uint32_t count,
                                 const VkImageSubresourceRange* ranges) {
    Validation& of = checks_of(commands);
    of.check([&] { of.writes(commands, image); });
    (of.down.*Function)(commands, image, layout, value, count, ranges);
}
constexpr auto CmdClearColorImage = clear<&Down::CmdClearColorImage, VkClearColorValue>;
constexpr auto CmdClearDepthStencilImage =
    clear<&Down::CmdClearDepthStencilImage, VkClearDepthStencilValue>;

VKAPI_ATTR void VKAPI_CALL CmdCopyQueryPoolResults(VkCommandBuffer commands, VkQueryPool pool,
                                                   std::uint32_t first, std::uint32_t count,
                                                   VkBuffer to, VkDeviceSize offset,
                                                   VkDeviceSize stride, VkQueryResultFlags flags) {
    Validation& of = checks_of(commands);
    of.check([&] { of.writes(commands, to); });
    of.down.CmdCopyQueryPoolResults(commands, pool, first, count, to, offset, stride, flags);
}

template <auto Function, typename Stage>
VKAPI_ATTR void VKAPI_CALL write_marker(VkCommandBuffer commands, Stage stage, VkBuffer to,
                                        VkDeviceSize offset, std::uint32_t marker) {
    Validation& of = checks_of(commands);
    of.check([&] { of.writes(commands, to); });
    (of.down.*Function)(commands, stage, to, offset, marker);
}
constexpr auto CmdWriteBufferMarkerAMD =
    write_marker<&Down::CmdWriteBufferMarkerAMD, VkPipelineStageFlagBits>;
constexpr auto CmdWriteBufferMarker2AMD =
    write_marker<&Down::CmdWriteBufferMarker2AMD, VkPipelineStageFlags2>;

// ---- Queues -------------------------------------------------------------------------------------

/// Of structures whose semaphores' values are in one of their own. Those without are binary, which
/// may be waited for only once all is on its way (VUID-vkQueueSubmit-pWaitSemaphores-03238).
template <typename Info> const VkTimelineSemaphoreSubmitInfo* values_of(const Info& info) {
    return find_in<VkTimelineSemaphoreSubmitInfo>(info.pNext,
                                                  VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO);
}
template <typename Info> void waits_of(Validation::Submission& submission, const Info& info) {
    if (const auto* values = values_of(info))
        for (std::uint32_t i = 0;
             i < std::min(info.waitSemaphoreCount, values->waitSemaphoreValueCount); ++i)
            submission.waits_for({info.pWaitSemaphores[i], values->pWaitSemaphoreValues[i]});
}
template <typename Info> void signals_of(Validation::Submission& submission, const Info& info) {
    if (const auto* values = values_of(info))
        for (std::uint32_t i = 0;
             i < std::min(info.signalSemaphoreCount, values->signalSemaphoreValueCount); ++i)
            submission.signals({info.pSignalSemaphores[i], values->pSignalSemaphoreValues[i]});
}

VKAPI_ATTR VkResult VKAPI_CALL QueueSubmit(VkQueue queue, std::uint32_t count,
                                           const VkSubmitInfo* infos, VkFence fence) {
    Validation& of = checks_of(queue);
    Validation::Submission submission(of, queue);
    of.check([&] {
        for (const auto& info : std::span(infos, count)) {
            waits_of(submission, info);
            for (VkCommandBuffer each : std::span(info.pCommandBuffers, info.commandBufferCount))
                submission.executes(each);
            signals_of(submission, info);
        }
        submission.before();
    });
    of.own_work.submits();
    const VkResult result = of.down.QueueSubmit(queue, count, infos, fence);
    of.check([&] { submission.after(result); });
    return result;
}

template <auto Function>
VKAPI_ATTR VkResult VKAPI_CALL submit_2(VkQueue queue, std::uint32_t count,
                                        const VkSubmitInfo2* infos, VkFence fence) {
    Validation& of = checks_of(queue);
    Validation::Submission submission(of, queue);
    of.check([&] {
        for (const auto& info : std::span(infos, count)) {
            for (const auto& each :
                 std::span(info.pWaitSemaphoreInfos, info.waitSemaphoreInfoCount))
                submission.waits_for({each.semaphore, each.value});
            for (const auto& each :
                 std::span(info.pCommandBufferInfos, info.commandBufferInfoCount))
                submission.executes(each.commandBuffer);
            for (const auto& each :
                 std::span(info.pSignalSemaphoreInfos, info.signalSemaphoreInfoCount))
                submission.signals({each.semaphore, each.value});
        }
        submission.before();
    });
    of.own_work.submits();
    const VkResult result = (of.down.*Function)(queue, count, infos, fence);
    of.check([&] { submission.after(result); });
    return result;
}
constexpr auto QueueSubmit2 = submit_2<&Down::QueueSubmit2>;
constexpr auto QueueSubmit2KHR = submit_2<&Down::QueueSubmit2KHR>;

VKAPI_ATTR VkResult VKAPI_CALL QueueBindSparse(VkQueue queue, std::uint32_t count,
                                               const VkBindSparseInfo* infos, VkFence fence) {
    Validation& of = checks_of(queue);
    Validation::Submission submission(of, queue);
    const auto bind = [&](const auto* binds, std::uint32_t bind_count) {
        for (const auto& each : std::span(binds, bind_count))
            for (const auto& one : std::span(each.pBinds, each.bindCount))
                of.bound_sparsely(one.memory);
    };
    of.check([&] {
        for (const auto& info : std::span(infos, count)) {
            waits_of(submission, info);
            bind(info.pBufferBinds, info.bufferBindCount);
            bind(info.pImageOpaqueBinds, info.imageOpaqueBindCount);
            bind(info.pImageBinds, info.imageBindCount);
            signals_of(submission, info);
        }
        submission.before();
    });
    of.own_work.submits();
    const VkResult result = of.down.QueueBindSparse(queue, count, infos, fence);
    of.check([&] { submission.after(result); });
    return result;
}

VKAPI_ATTR VkResult VKAPI_CALL DeviceWaitIdle(VkDevice device) {
    Validation& of = checks_of(device);
    const std::uint64_t submissions = OwnWork::submissions();
    const VkResult result = of.down.DeviceWaitIdle(device);
    if (result == VK_SUCCESS)
        of.own_work.settled(submissions);
    return result;
}

} // namespace

bool Validation::add(const void* key, std::unique_ptr<Validation> made) {
    return validations().add(key, std::move(made)) != nullptr;
}

void Validation::remove(const void* key) {
    (void)validations().remove(key);
}

PFN_vkVoidFunction Validation::find(std::string_view name) noexcept {
    struct Entry {
        std::string_view name;
        PFN_vkVoidFunction function;
    };
    // The inner cast is where the compiler compares the signature with Vulkan's.
#define SLUICE_VALIDATE_ENTRY(each)                                                                \
    {"vk" #each, reinterpret_cast<PFN_vkVoidFunction>(static_cast<PFN_vk##each>(each))},
    static const Entry entries[] = {SLUICE_VALIDATE_FUNCTIONS(SLUICE_VALIDATE_ENTRY)};
#undef SLUICE_VALIDATE_ENTRY
    const auto* found = std::ranges::find(entries, name, &Entry::name);
    return found != std::end(entries) ? found->function : nullptr;
}

} // namespace sluice::layer
