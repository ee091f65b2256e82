// SPDX-License-Identifier: MIT
/// \file
/// What plain Vulkan programs are made of, which know nothing of sluice and link none of it: a
/// dma-buf, a fence and an application.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/udmabuf.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

namespace plain {

constexpr std::uint64_t patience = 60'000'000'000; // nanoseconds, where all is emulated

/// Ends the program where \p fine is false: nothing that comes after would mean anything.
inline void check(bool fine, const char* what) {
    if (fine)
        return;
    (void)std::fprintf(stderr, "a plain program failed: %s\n", what);
    std::abort();
}
inline void check(VkResult result, const char* what) {
    check(result == VK_SUCCESS, what);
}

// ---- The others ---------------------------------------------------------------------------------

/// A dma-buf of pages, the caller's.
inline int make_dma_buf(std::uint32_t size) {
    const int pages = memfd_create("layer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    check(ftruncate(pages, size) == 0, "ftruncate");
    check(fcntl(pages, F_ADD_SEALS, F_SEAL_SHRINK) == 0, "F_ADD_SEALS");
    const int maker = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
    udmabuf_create create{.memfd = static_cast<std::uint32_t>(pages),
                          .flags = UDMABUF_FLAGS_CLOEXEC,
                          .offset = 0,
                          .size = size};
    const int made = ioctl(maker, UDMABUF_CREATE, &create);
    close(maker);
    close(pages);
    check(made >= 0, "UDMABUF_CREATE");
    return made;
}

/// A dma-buf that this program can look into.
class Buffer {
public:
    static constexpr std::uint32_t default_size = 4096;

    /// One of pages.
    explicit Buffer(std::uint32_t size = default_size) : Buffer(make_dma_buf(size), size) {}
    /// The one behind \p fd, which becomes this object's.
    Buffer(int fd, std::uint32_t size) : fd_(fd), size_(size) { map(); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        munmap(words_, size_);
        close(fd_);
    }

    [[nodiscard]] int fd() const { return fd_; }
    [[nodiscard]] std::uint32_t size() const { return size_; }
    void fill(std::uint32_t with) const {
        for (std::uint32_t i = 0; i < size_ / 4; ++i)
            static_cast<volatile std::uint32_t*>(words_)[i] = with;
    }
    [[nodiscard]] std::uint32_t last_word() const {
        return static_cast<const volatile std::uint32_t*>(words_)[size_ / 4 - 1];
    }
    /// Whether poll(2) says, within \p milliseconds, that everyone is done with it.
    [[nodiscard]] bool idle_within(int milliseconds) const {
        pollfd entry{.fd = fd_, .events = POLLOUT, .revents = 0};
        return poll(&entry, 1, milliseconds) == 1;
    }
    /// Leaves \p fence there, of one who \p writes or who only reads.
    void leave(int fence, bool writes = true) const {
        dma_buf_import_sync_file import{
            .flags = static_cast<std::uint32_t>(writes ? DMA_BUF_SYNC_WRITE : DMA_BUF_SYNC_READ),
            .fd = fence};
        check(ioctl(fd_, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &import) == 0, "IMPORT_SYNC_FILE");
    }

private:
    void map() {
        check(fd_ >= 0, "there is no dma-buf");
        words_ = static_cast<std::uint32_t*>(
            mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
        check(words_ != MAP_FAILED, "mmap of a dma-buf");
    }

    int fd_ = -1;
    std::uint32_t size_;
    std::uint32_t* words_ = nullptr;
};

/// A fence that signals when the test likes (sw_sync).
class Fence {
public:
    static bool available() { return access(path, R_OK | W_OK) == 0; }

    Fence() : timeline_(open(path, O_RDWR | O_CLOEXEC)) {
        Create create{.value = 1, .name = "layer", .fence = -1};
        check(ioctl(timeline_, _IOWR('W', 0, Create), &create) == 0, "a fence of sw_sync");
        fd_ = create.fence;
    }
    Fence(const Fence&) = delete;
    Fence& operator=(const Fence&) = delete;
    ~Fence() {
        close(fd_);
        close(timeline_);
    }
    [[nodiscard]] int fd() const { return fd_; }
    void signal() const {
        std::uint32_t by = 1;
        check(ioctl(timeline_, _IOW('W', 1, std::uint32_t), &by) == 0, "a timeline of sw_sync");
    }

private:
    struct Create { // drivers/dma-buf/sw_sync.c, which has no header for programs
        std::uint32_t value;
        char name[32];
        std::int32_t fence;
    };
    static constexpr const char* path = "/sys/kernel/debug/sync/sw_sync";
    int timeline_, fd_ = -1;
};

// ---- The application ----------------------------------------------------------------------------

struct Mode {
    bool layer = false;
    bool barriers = false; // from and to VK_QUEUE_FAMILY_FOREIGN_EXT
};

/// Copies from and fills VkBuffers, one of which is a dma-buf.
class Application {
public:
    explicit Application(const Mode& mode) : mode_(mode) {
        const VkApplicationInfo about{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                      .apiVersion = VK_API_VERSION_1_1};
        const char* const layer = "VK_LAYER_SLUICE_dma_buf";
        const VkInstanceCreateInfo info{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                        .pApplicationInfo = &about,
                                        .enabledLayerCount = mode.layer ? 1U : 0U,
                                        .ppEnabledLayerNames = &layer};
        check(vkCreateInstance(&info, nullptr, &instance_), "vkCreateInstance");
        std::uint32_t count = 1;
        vkEnumeratePhysicalDevices(instance_, &count, &physical_);
        make_device();
    }
    Application(const Application&) = delete;
    Application& operator=(const Application&) = delete;
    ~Application() {
        vkDeviceWaitIdle(device_);
        for (const auto& undo : undo_)
            undo();
        vkDestroyDevice(device_, nullptr);
        vkDestroyInstance(instance_, nullptr);
    }

    /// A VkBuffer of \p buffer.
    VkBuffer import(const Buffer& buffer) {
        const VkImportMemoryFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                             .handleType =
                                                 VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT,
                                             .fd = fcntl(buffer.fd(), F_DUPFD_CLOEXEC, 0)};
        return make(buffer.size(), true, &import).first;
    }
    /// A VkBuffer in memory that is given out as the dma-buf \p fd, the caller's.
    VkBuffer export_as(int& fd, std::uint32_t size = Buffer::default_size) {
        const VkExportMemoryAllocateInfo as_dma_buf{
            .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
            .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        const auto [made, memory] = make(size, true, &as_dma_buf);
        const VkMemoryGetFdInfoKHR info{.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                        .memory = memory,
                                        .handleType =
                                            VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        const auto get = reinterpret_cast<PFN_vkGetMemoryFdKHR>(
            vkGetDeviceProcAddr(device_, "vkGetMemoryFdKHR"));
        check(get(device_, &info, &fd), "vkGetMemoryFdKHR");
        return made;
    }
    /// A VkBuffer in memory of its own, which the CPU sees at \p words.
    VkBuffer make_buffer(const std::uint32_t*& words, std::uint32_t size = Buffer::default_size) {
        const auto [made, memory] = make(size, false, nullptr);
        void* mapped = nullptr;
        check(vkMapMemory(device_, memory, 0, size, 0, &mapped), "vkMapMemory");
        words = static_cast<const std::uint32_t*>(mapped);
        return made;
    }

    /// Records \p work between the barriers that take \p shared and hand it over, and submits it.
    void submit(const std::vector<VkBuffer>& shared, VkAccessFlags access,
                const std::function<void(VkCommandBuffer)>& work) {
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
        check(vkBeginCommandBuffer(commands_, &begin), "vkBeginCommandBuffer");
        if (mode_.barriers)
            for (VkBuffer each : shared)
                barrier(each, VK_QUEUE_FAMILY_FOREIGN_EXT, 0, 0, access);
        work(commands_);
        if (mode_.barriers)
            for (VkBuffer each : shared)
                barrier(each, 0, VK_QUEUE_FAMILY_FOREIGN_EXT, access, 0);
        check(vkEndCommandBuffer(commands_), "vkEndCommandBuffer");
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                .commandBufferCount = 1,
                                .pCommandBuffers = &commands_};
        check(vkQueueSubmit(queue_, 1, &info, done_), "vkQueueSubmit");
    }
    void wait() {
        check(vkWaitForFences(device_, 1, &done_, VK_TRUE, patience), "vkWaitForFences");
        check(vkResetFences(device_, 1, &done_), "vkResetFences");
    }
    VkEvent make_event() {
        const VkEventCreateInfo info{.sType = VK_STRUCTURE_TYPE_EVENT_CREATE_INFO};
        VkEvent made = VK_NULL_HANDLE;
        check(vkCreateEvent(device_, &info, nullptr, &made), "vkCreateEvent");
        undo_.emplace_back([=, this] { vkDestroyEvent(device_, made, nullptr); });
        return made;
    }
    void set(VkEvent event) const { check(vkSetEvent(device_, event), "vkSetEvent"); }

    // What work is made of.

    /// What comes next waits for \p event, which the host sets.
    static void wait_for(VkCommandBuffer commands, VkEvent event) {
        vkCmdWaitEvents(commands, 1, &event, VK_PIPELINE_STAGE_HOST_BIT,
                        VK_PIPELINE_STAGE_TRANSFER_BIT, 0, nullptr, 0, nullptr, 0, nullptr);
    }
    static void copy(VkCommandBuffer commands, VkBuffer from, VkBuffer to,
                     std::uint32_t size = Buffer::default_size) {
        const VkBufferCopy all{.srcOffset = 0, .dstOffset = 0, .size = size};
        vkCmdCopyBuffer(commands, from, to, 1, &all);
    }
    static void barrier(VkCommandBuffer commands, VkAccessFlags from, VkAccessFlags to) {
        const VkMemoryBarrier barrier{
            .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = from, .dstAccessMask = to};
        vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                             VK_PIPELINE_STAGE_TRANSFER_BIT, 0, 1, &barrier, 0, nullptr, 0,
                             nullptr);
    }

private:
    void make_device() {
        const float priority = 1;
        const VkDeviceQueueCreateInfo queue{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                            .queueFamilyIndex = 0,
                                            .queueCount = 1,
                                            .pQueuePriorities = &priority};
        const std::array extensions{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                    VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME};
        const VkDeviceCreateInfo info{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                      .queueCreateInfoCount = 1,
                                      .pQueueCreateInfos = &queue,
                                      .enabledExtensionCount = extensions.size(),
                                      .ppEnabledExtensionNames = extensions.data()};
        check(vkCreateDevice(physical_, &info, nullptr, &device_), "vkCreateDevice");
        vkGetDeviceQueue(device_, 0, 0, &queue_);
        const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                           .flags =
                                               VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT};
        VkCommandPool made = VK_NULL_HANDLE;
        check(vkCreateCommandPool(device_, &pool, nullptr, &made), "vkCreateCommandPool");
        const VkCommandBufferAllocateInfo allocate{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = made,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        check(vkAllocateCommandBuffers(device_, &allocate, &commands_), "vkAllocateCommandBuffers");
        const VkFenceCreateInfo fence{.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
        check(vkCreateFence(device_, &fence, nullptr, &done_), "vkCreateFence");
        undo_.emplace_back([=, this] {
            vkDestroyFence(device_, done_, nullptr);
            vkDestroyCommandPool(device_, made, nullptr);
        });
    }
    std::pair<VkBuffer, VkDeviceMemory> make(std::uint32_t size, bool shared,
                                             const void* memory_is) {
        const VkExternalMemoryBufferCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
            .handleTypes = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
        const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                      .pNext = shared ? &external : nullptr,
                                      .size = size,
                                      .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                               VK_BUFFER_USAGE_TRANSFER_DST_BIT};
        VkBuffer made = VK_NULL_HANDLE;
        check(vkCreateBuffer(device_, &info, nullptr, &made), "vkCreateBuffer");
        const VkMemoryAllocateInfo allocate{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                            .pNext = memory_is,
                                            .allocationSize = size,
                                            .memoryTypeIndex = 0};
        VkDeviceMemory memory = VK_NULL_HANDLE;
        check(vkAllocateMemory(device_, &allocate, nullptr, &memory), "vkAllocateMemory");
        check(vkBindBufferMemory(device_, made, memory, 0), "vkBindBufferMemory");
        undo_.emplace_back([=, this] {
            vkDestroyBuffer(device_, made, nullptr);
            vkFreeMemory(device_, memory, nullptr);
        });
        return {made, memory};
    }
    void barrier(VkBuffer buffer, std::uint32_t from, std::uint32_t to, VkAccessFlags from_access,
                 VkAccessFlags to_access) const {
        const VkBufferMemoryBarrier barrier{.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
                                            .srcAccessMask = from_access,
                                            .dstAccessMask = to_access,
                                            .srcQueueFamilyIndex = from,
                                            .dstQueueFamilyIndex = to,
                                            .buffer = buffer,
                                            .offset = 0,
                                            .size = VK_WHOLE_SIZE};
        vkCmdPipelineBarrier(commands_, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                             VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, nullptr, 1, &barrier, 0,
                             nullptr);
    }

    Mode mode_;
    VkInstance instance_ = VK_NULL_HANDLE;
    VkPhysicalDevice physical_ = VK_NULL_HANDLE;
    VkDevice device_ = VK_NULL_HANDLE;
    VkQueue queue_ = VK_NULL_HANDLE;
    VkCommandBuffer commands_ = VK_NULL_HANDLE;
    VkFence done_ = VK_NULL_HANDLE;
    std::vector<std::function<void()>> undo_;
};

} // namespace plain
