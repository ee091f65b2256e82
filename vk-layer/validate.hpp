// SPDX-License-Identifier: MIT
/// \file
/// Checks how an application treats dma-bufs: the `validate` module. It stands in front of the rest
/// of the layer, and where it is off none of it is there.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <vulkan/vulkan.h>

#include <sluice/dma_buf.hpp>

#include "map_memory2.hpp"
#include "messages.hpp"
#include "own_work.hpp"
#include "ownership.hpp"
#include "timelines.hpp"
#include "tracker.hpp"

namespace sluice::layer {

// clang-format off
/// The functions that the checks stand in the way of.
#define SLUICE_VALIDATE_FUNCTIONS(each) \
    each(AllocateMemory) each(FreeMemory) each(GetMemoryFdPropertiesKHR) \
    each(MapMemory) each(MapMemory2KHR) each(MapMemory2) \
    each(UnmapMemory) each(UnmapMemory2KHR) each(UnmapMemory2) \
    each(FlushMappedMemoryRanges) each(InvalidateMappedMemoryRanges) \
    each(CreateImage) each(DestroyImage) each(CreateBuffer) each(DestroyBuffer) \
    each(BindImageMemory) each(BindImageMemory2) each(BindImageMemory2KHR) \
    each(BindBufferMemory) each(BindBufferMemory2) each(BindBufferMemory2KHR) \
    each(AllocateCommandBuffers) each(FreeCommandBuffers) \
    each(DestroyCommandPool) each(ResetCommandPool) \
    each(BeginCommandBuffer) each(ResetCommandBuffer) each(CmdExecuteCommands) \
    each(CmdPipelineBarrier) each(CmdPipelineBarrier2) each(CmdPipelineBarrier2KHR) \
    each(CmdWaitEvents) each(CmdWaitEvents2) each(CmdWaitEvents2KHR) \
    each(CmdCopyBuffer) each(CmdCopyBuffer2) each(CmdCopyBuffer2KHR) \
    each(CmdCopyImage) each(CmdCopyImage2) each(CmdCopyImage2KHR) \
    each(CmdBlitImage) each(CmdBlitImage2) each(CmdBlitImage2KHR) \
    each(CmdResolveImage) each(CmdResolveImage2) each(CmdResolveImage2KHR) \
    each(CmdCopyBufferToImage) each(CmdCopyBufferToImage2) each(CmdCopyBufferToImage2KHR) \
    each(CmdCopyImageToBuffer) each(CmdCopyImageToBuffer2) each(CmdCopyImageToBuffer2KHR) \
    each(CmdUpdateBuffer) each(CmdFillBuffer) each(CmdClearColorImage) \
    each(CmdClearDepthStencilImage) each(CmdCopyQueryPoolResults) \
    each(CmdWriteBufferMarkerAMD) each(CmdWriteBufferMarker2AMD) \
    each(QueueSubmit) each(QueueSubmit2) each(QueueSubmit2KHR) each(QueueBindSparse) \
    each(DeviceWaitIdle)

/// Those that they need besides.
#define SLUICE_VALIDATE_OTHER_FUNCTIONS(each) \
    each(GetImageMemoryRequirements2) each(GetImageMemoryRequirements2KHR) \
    each(GetBufferMemoryRequirements2) each(GetBufferMemoryRequirements2KHR)

#define SLUICE_VALIDATE_INSTANCE_FUNCTIONS(each) \
    each(SubmitDebugUtilsMessageEXT) \
    each(GetPhysicalDeviceFormatProperties2) each(GetPhysicalDeviceFormatProperties2KHR) \
    each(GetPhysicalDeviceImageFormatProperties2) each(GetPhysicalDeviceImageFormatProperties2KHR) \
    each(GetPhysicalDeviceExternalBufferProperties) each(GetPhysicalDeviceExternalBufferPropertiesKHR)
// clang-format on

#define SLUICE_VALIDATE_DECLARE(name) PFN_vk##name name = nullptr;

/// What the checks ask of the instance below. Found while it is made: later the loader may answer
/// with the top of the chain. One that is not there is null.
struct ValidateInstanceFunctions {
    SLUICE_VALIDATE_INSTANCE_FUNCTIONS(SLUICE_VALIDATE_DECLARE)

    void load(PFN_vkGetInstanceProcAddr next, VkInstance instance) noexcept;
};

/// The rest of the layer, or what is below it. One that the device does not have is null.
struct ValidateFunctions {
    SLUICE_VALIDATE_FUNCTIONS(SLUICE_VALIDATE_DECLARE)
    SLUICE_VALIDATE_OTHER_FUNCTIONS(SLUICE_VALIDATE_DECLARE)
};

#undef SLUICE_VALIDATE_DECLARE

/// What is checked of one device. It says nothing unless it is sure; docs/layer-messages.md tells
/// of each message what is found and what is not.
///
/// Threads: any, as Vulkan allows them on the objects. No lock is held while Vulkan is called.
class Validation {
public:
    struct Place {
        VkInstance instance;
        VkPhysicalDevice physical_device;
        VkDevice device;
        const ValidateInstanceFunctions& of_instance;
        const Tracker& tracker;
        const Timelines& timelines;
    };
    /// \param rest where the rest of the layer is found.
    Validation(const Place& place, PFN_vkGetDeviceProcAddr rest);

    /// Puts the checks of a device in front of the rest of the layer. \param key its dispatch key.
    /// \returns false where there are too many devices.
    static bool add(const void* key, std::unique_ptr<Validation> made);
    static void remove(const void* key);
    /// The function that does the checks of \p name; null where that has none.
    [[nodiscard]] static PFN_vkVoidFunction find(std::string_view name) noexcept;

    /// Does \p what, one or more of the checks. Where there is no memory for it the application's
    /// call goes on all the same, and as what is known may be wrong then, nothing is checked any
    /// more.
    template <typename What> void check(What what) noexcept {
        if (lost_.load(std::memory_order_relaxed))
            return;
        try {
            what();
        } catch (const std::bad_alloc&) {
            lose();
        }
    }

    // The checks, as the functions call them, by `check` unless they are noexcept.

    /// What is imported, before the driver takes the fd.
    struct Import {
        std::optional<DmaBuf> buffer;
        std::uint64_t before = 0; // submissions
    };
    [[nodiscard]] Import allocate(const VkMemoryAllocateInfo& info);
    void allocated(const VkMemoryAllocateInfo& info, VkDeviceMemory memory, Import&& import);
    void freed(VkDeviceMemory memory) noexcept;
    void ask_for_properties(VkExternalMemoryHandleTypeFlagBits type, int fd);

    void mapped(VkDeviceMemory memory);
    void unmap(VkDeviceMemory memory);
    /// The CPU is about to read what the device wrote, or has written what it is to read.
    void touch(std::span<const VkMappedMemoryRange> ranges, Access access);

    void create(const VkImageCreateInfo& info) const;
    void created(VkImage image, const VkImageCreateInfo& info);
    void created(VkBuffer buffer, const VkBufferCreateInfo& info);
    void destroyed(Object resource) noexcept;
    void bind(VkImage image, VkDeviceMemory memory, VkDeviceSize offset, const void* next);
    void bind(VkBuffer buffer, VkDeviceMemory memory);
    void bound(Object resource, VkDeviceMemory memory);
    void bound_sparsely(VkDeviceMemory memory);

    void barriers(VkCommandBuffer commands, const VkDependencyInfo& info);
    void barriers(VkCommandBuffer commands, std::span<const VkImageMemoryBarrier> images,
                  std::span<const VkBufferMemoryBarrier> buffers);
    template <typename Handle> void reads(VkCommandBuffer commands, Handle what) {
        uses(commands, what, Event::Kind::read);
    }
    template <typename Handle> void writes(VkCommandBuffer commands, Handle what) {
        uses(commands, what, Event::Kind::write);
    }

    /// A submission: what is in it, batch by batch, then `before` it goes down, and `after`.
    class Submission {
    public:
        Submission(Validation& of, VkQueue queue) noexcept : of_(of), queue_(queue) {}
        void executes(VkCommandBuffer commands);
        void waits_for(const SemaphoreAt& at);
        void signals(const SemaphoreAt& at);
        /// Whoever waits for what it signals comes after this, so it must come before the signal
        /// can be waited for.
        void before();
        void after(VkResult result);

    private:
        Validation& of_;
        VkQueue queue_;
        Ownership::Recorded recorded_;
        std::vector<SemaphoreAt> signals_; // of the batches so far
        std::vector<OpenWait> waits_;
    };

    ValidateFunctions down;
    Ownership ownership;
    OwnWork own_work;

private:
    /// What an image needs of the buffer behind one of its memory planes, from its offset on.
    struct PlaneNeed {
        std::uint64_t offset = 0, end = 0;
    };
    struct Made {
        bool disjoint = false;
        bool dedicated_only = false;
        bool writes_unseen = false; // by its usage
        std::uint64_t size = 0;     // of a buffer
        std::uint32_t levels = 1, layers = 1, format_planes = 1;
        std::vector<PlaneNeed> needs; // of an image with an explicit layout
        SharedMemoryPtr memory;       // the first that it was bound to
    };
    struct Allocation {
        SharedMemoryPtr memory;
        bool is_dedicated = false;
        std::optional<SyncFile> pending; // that of others, from vkMapMemory on
    };
    /// A fd that an import took over.
    struct Taken {
        VkDeviceMemory by = VK_NULL_HANDLE;
        std::shared_ptr<const DmaBuf> kept; // where the driver keeps the fd open
    };
    struct Buffer {
        std::weak_ptr<SharedMemory> of;
        // Submissions that have left no fence in it: those before it was imported here, of this
        // device, and those before it was seen idle, of all.
        std::uint64_t imported_at = 0, idle_at = 0;
        std::vector<Object> resources;
    };
    struct ObjectHash {
        std::size_t operator()(const Object& of) const noexcept {
            return static_cast<std::size_t>(of.handle * 0x9E3779B97F4A7C15U) ^
                   static_cast<std::size_t>(of.type);
        }
    };

    void lose() noexcept;
    [[nodiscard]] std::vector<VkDrmFormatModifierPropertiesEXT> listed(VkFormat format) const;
    [[nodiscard]] bool is_dedicated_only(const VkImageCreateInfo& info) const;
    [[nodiscard]] bool is_dedicated_only(const VkBufferCreateInfo& info) const;
    void check_size(const VkMemoryAllocateInfo& info, const DmaBuf& buffer) const;
    void check_fd(int fd, const Result<DmaBuf>& buffer, const char* function);
    void check_planes(VkImage image, const Made& made, const DmaBuf& buffer, VkDeviceSize offset,
                      std::optional<std::uint32_t> plane) const;
    void check_dedicated(Object resource, const Made& made, VkDeviceMemory memory) const;
    [[nodiscard]] std::optional<Made> find(Object resource) const;
    [[nodiscard]] SharedMemoryPtr memory_of(VkDeviceMemory memory) const;
    /// The fence of others that holds \p access to \p memory, if there is one for sure.
    [[nodiscard]] std::optional<SyncFile> fence_of_others(const SharedMemoryPtr& memory,
                                                          Access access);
    template <typename Handle> void uses(VkCommandBuffer commands, Handle what, Event::Kind kind);
    template <typename Barrier>
    void image_barrier(VkCommandBuffer commands, const Barrier& barrier);
    template <typename Barrier>
    void buffer_barrier(VkCommandBuffer commands, const Barrier& barrier);
    [[nodiscard]] bool is_whole(const VkImageSubresourceRange& range, Object image) const;
    [[nodiscard]] bool is_whole(VkDeviceSize offset, VkDeviceSize size, Object buffer) const;

    VkPhysicalDevice physical_device_;
    VkDevice device_;
    const ValidateInstanceFunctions& instance_;
    const Tracker& tracker_;
    const Timelines& timelines_;
    Messenger messenger_;

    std::atomic<bool> driver_keeps_fds_ = true;
    std::atomic<bool> lost_ = false;

    mutable std::mutex lock_;
    std::unordered_map<Object, Made, ObjectHash> made_;
    std::unordered_map<VkDeviceMemory, Allocation> allocations_;
    std::unordered_map<const SharedMemory*, Buffer> buffers_;
    std::unordered_map<int, Taken> taken_;
    std::unordered_map<VkQueue, std::vector<OpenWait>> late_; // what queues still wait for
};

} // namespace sluice::layer
