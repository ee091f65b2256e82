// SPDX-License-Identifier: MIT
// Plain Vulkan programs on Debian 12's own lavapipe, which takes no dma-bufs, with the layer's
// emulation and without, on a real kernel. SLUICE_OLD_LAVAPIPE names its file for the loader, as
// tests/vm/old-lavapipe prints it.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/dma-buf.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

#include "layer/plain_program.hpp"
#include "support/requires.hpp"

namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t width = 100, height = 30, pitch = 448; // lavapipe's rows are of 64 bytes
constexpr std::uint32_t page = 4096, size = 8 * page;
constexpr std::uint64_t patience = 10'000'000'000; // nanoseconds
constexpr auto dma_buf = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;

void check(VkResult result) {
    ASSERT_EQ(result, VK_SUCCESS);
}

/// What lies at \p word of a buffer that was filled with \p seed.
std::uint32_t pattern(std::uint32_t seed, std::size_t word) {
    return static_cast<std::uint32_t>(word) * 2654435761U + seed;
}

/// A dma-buf as another program sees it.
class Peer {
public:
    explicit Peer(int fd) : fd_(fd) {
        words_ = static_cast<std::uint32_t*>(
            mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
        EXPECT_NE(words_, MAP_FAILED);
    }
    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;
    ~Peer() {
        munmap(words_, size);
        close(fd_);
    }
    [[nodiscard]] int fd() const { return fd_; }
    void write(std::uint32_t seed) const {
        bracket(DMA_BUF_SYNC_START);
        for (std::size_t i = 0; i < size / 4; ++i)
            words_[i] = pattern(seed, i);
        bracket(DMA_BUF_SYNC_END);
    }
    [[nodiscard]] std::vector<std::uint32_t> read() const {
        bracket(DMA_BUF_SYNC_START);
        std::vector<std::uint32_t> all(words_, words_ + size / 4);
        bracket(DMA_BUF_SYNC_END);
        return all;
    }
    /// The same without waiting for anybody.
    void write_at_once(std::uint32_t seed) const {
        for (std::size_t i = 0; i < size / 4; ++i)
            static_cast<volatile std::uint32_t*>(words_)[i] = pattern(seed, i);
    }

private:
    void bracket(std::uint64_t edge) const {
        dma_buf_sync sync{.flags = DMA_BUF_SYNC_RW | edge};
        EXPECT_EQ(ioctl(fd_, DMA_BUF_IOCTL_SYNC, &sync), 0);
    }
    int fd_;
    std::uint32_t* words_;
};

/// A program with the layer.
class Program {
public:
    Program() {
        const VkApplicationInfo about{.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                      .apiVersion = VK_API_VERSION_1_2};
        const char* const layer = "VK_LAYER_SLUICE_dma_buf";
        const VkInstanceCreateInfo info{.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                        .pApplicationInfo = &about,
                                        .enabledLayerCount = 1,
                                        .ppEnabledLayerNames = &layer};
        check(vkCreateInstance(&info, nullptr, &instance_));
        std::uint32_t count = 1;
        vkEnumeratePhysicalDevices(instance_, &count, &physical);
        const float priority = 1;
        const VkDeviceQueueCreateInfo queue{.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                            .queueFamilyIndex = 0,
                                            .queueCount = 1,
                                            .pQueuePriorities = &priority};
        const std::array extensions{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                    VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME,
                                    VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME};
        const VkDeviceCreateInfo create{.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                        .queueCreateInfoCount = 1,
                                        .pQueueCreateInfos = &queue,
                                        .enabledExtensionCount = extensions.size(),
                                        .ppEnabledExtensionNames = extensions.data()};
        result = vkCreateDevice(physical, &create, nullptr, &device);
        if (result == VK_SUCCESS)
            prepare();
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    ~Program() {
        if (device != VK_NULL_HANDLE) {
            vkDeviceWaitIdle(device);
            for (auto each = undo_.rbegin(); each != undo_.rend(); ++each)
                (*each)();
            vkDestroyDevice(device, nullptr);
        }
        vkDestroyInstance(instance_, nullptr);
    }

    /// Memory of \p peer, or where that is null a new dma-buf's.
    VkDeviceMemory memory(const Peer* peer) {
        const VkImportMemoryFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                             .handleType = dma_buf,
                                             .fd =
                                                 peer ? fcntl(peer->fd(), F_DUPFD_CLOEXEC, 0) : -1};
        const VkExportMemoryAllocateInfo as{.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                            .handleTypes = dma_buf};
        return allocate(peer ? static_cast<const void*>(&import) : &as);
    }
    /// A dma-buf of \p memory.
    [[nodiscard]] int fd_of(VkDeviceMemory memory) const {
        const auto get =
            reinterpret_cast<PFN_vkGetMemoryFdKHR>(vkGetDeviceProcAddr(device, "vkGetMemoryFdKHR"));
        const VkMemoryGetFdInfoKHR info{.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                        .memory = memory,
                                        .handleType = dma_buf};
        int fd = -1;
        check(get(device, &info, &fd));
        return fd;
    }
    VkBuffer buffer(VkDeviceMemory memory) {
        const VkExternalMemoryBufferCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = dma_buf};
        VkBuffer made = create_buffer(&external);
        check(vkBindBufferMemory(device, made, memory, 0));
        return made;
    }
    /// One of the program's own, which it sees at \p mapped.
    VkBuffer own_buffer(const std::uint32_t*& mapped) {
        VkBuffer made = create_buffer(nullptr);
        VkDeviceMemory memory = allocate(nullptr);
        check(vkBindBufferMemory(device, made, memory, 0));
        void* at = nullptr;
        check(vkMapMemory(device, memory, 0, size, 0, &at));
        std::memset(at, 0, size);
        mapped = static_cast<const std::uint32_t*>(at);
        return made;
    }
    /// An image laid out in memory from \p offset on; null where that cannot be, see `result`.
    VkImage image(VkDeviceMemory memory, std::uint32_t offset, std::uint32_t row_pitch = pitch) {
        const VkExternalMemoryImageCreateInfo external{
            .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO, .handleTypes = dma_buf};
        const VkSubresourceLayout layout{.offset = offset, .rowPitch = row_pitch};
        const VkImageDrmFormatModifierExplicitCreateInfoEXT modifier{
            .sType = VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT,
            .pNext = &external,
            .drmFormatModifier = 0,
            .drmFormatModifierPlaneCount = 1,
            .pPlaneLayouts = &layout};
        const VkImageCreateInfo info{.sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO,
                                     .pNext = &modifier,
                                     .imageType = VK_IMAGE_TYPE_2D,
                                     .format = VK_FORMAT_B8G8R8A8_UNORM,
                                     .extent = {width, height, 1},
                                     .mipLevels = 1,
                                     .arrayLayers = 1,
                                     .samples = VK_SAMPLE_COUNT_1_BIT,
                                     .tiling = VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT,
                                     .usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT |
                                              VK_IMAGE_USAGE_TRANSFER_DST_BIT};
        VkImage made = VK_NULL_HANDLE;
        result = vkCreateImage(device, &info, nullptr, &made);
        if (result != VK_SUCCESS)
            return VK_NULL_HANDLE;
        undo_.emplace_back([=, this] { vkDestroyImage(device, made, nullptr); });
        check(vkBindImageMemory(device, made, memory, 0));
        return made;
    }

    void run(const std::function<void(VkCommandBuffer)>& work) const {
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
        check(vkBeginCommandBuffer(commands_, &begin));
        work(commands_);
        check(vkEndCommandBuffer(commands_));
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                .commandBufferCount = 1,
                                .pCommandBuffers = &commands_};
        check(vkQueueSubmit(queue_, 1, &info, done_));
        check(vkWaitForFences(device, 1, &done_, VK_TRUE, patience));
        check(vkResetFences(device, 1, &done_));
    }
    /// Takes \p image from others, or gives it back.
    static void hand_over(VkCommandBuffer commands, VkImage image, bool back) {
        const VkImageMemoryBarrier barrier{
            .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER,
            .srcAccessMask = back ? VkFlags{VK_ACCESS_MEMORY_WRITE_BIT} : 0,
            .dstAccessMask = back ? 0 : VkFlags{VK_ACCESS_MEMORY_WRITE_BIT},
            .oldLayout = VK_IMAGE_LAYOUT_GENERAL,
            .newLayout = VK_IMAGE_LAYOUT_GENERAL,
            .srcQueueFamilyIndex = back ? 0 : VK_QUEUE_FAMILY_FOREIGN_EXT,
            .dstQueueFamilyIndex = back ? VK_QUEUE_FAMILY_FOREIGN_EXT : 0,
            .image = image,
            .subresourceRange = whole};
        vkCmdPipelineBarrier(commands, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT,
                             VK_PIPELINE_STAGE_ALL_COMMANDS_BIT, 0, 0, nullptr, 0, nullptr, 1,
                             &barrier);
    }

    static constexpr VkImageSubresourceRange whole{
        .aspectMask = VK_IMAGE_ASPECT_COLOR_BIT, .levelCount = 1, .layerCount = 1};
    VkResult result = VK_SUCCESS;
    VkPhysicalDevice physical = VK_NULL_HANDLE;
    VkDevice device = VK_NULL_HANDLE;

private:
    void prepare() {
        vkGetDeviceQueue(device, 0, 0, &queue_);
        const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                           .flags =
                                               VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT};
        VkCommandPool made = VK_NULL_HANDLE;
        check(vkCreateCommandPool(device, &pool, nullptr, &made));
        const VkCommandBufferAllocateInfo allocate{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = made,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        check(vkAllocateCommandBuffers(device, &allocate, &commands_));
        const VkFenceCreateInfo fence{.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
        check(vkCreateFence(device, &fence, nullptr, &done_));
        undo_.emplace_back([=, this] {
            vkDestroyFence(device, done_, nullptr);
            vkDestroyCommandPool(device, made, nullptr);
        });
    }
    VkDeviceMemory allocate(const void* next) {
        const VkMemoryAllocateInfo info{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                        .pNext = next,
                                        .allocationSize = size,
                                        .memoryTypeIndex = 0};
        VkDeviceMemory made = VK_NULL_HANDLE;
        check(vkAllocateMemory(device, &info, nullptr, &made));
        undo_.emplace_back([=, this] { vkFreeMemory(device, made, nullptr); });
        return made;
    }
    VkBuffer create_buffer(const void* next) {
        const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                      .pNext = next,
                                      .size = size,
                                      .usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                               VK_BUFFER_USAGE_TRANSFER_DST_BIT};
        VkBuffer made = VK_NULL_HANDLE;
        check(vkCreateBuffer(device, &info, nullptr, &made));
        undo_.emplace_back([=, this] { vkDestroyBuffer(device, made, nullptr); });
        return made;
    }

    VkInstance instance_ = VK_NULL_HANDLE;
    VkQueue queue_ = VK_NULL_HANDLE;
    VkCommandBuffer commands_ = VK_NULL_HANDLE;
    VkFence done_ = VK_NULL_HANDLE;
    std::vector<std::function<void()>> undo_;
};

class LayerEmulateSystemTest : public ::testing::Test {
protected:
    void SetUp() override {
        const char* driver = std::getenv("SLUICE_OLD_LAVAPIPE");
        if (driver != nullptr && driver == std::string_view("none"))
            GTEST_SKIP() << "there is no Mesa 22.3 for this distribution";
        SLUICE_REQUIRES(
            driver != nullptr,
            "SLUICE_OLD_LAVAPIPE is not set: SLUICE_OLD_LAVAPIPE=$(tests/vm/old-lavapipe)");
        SLUICE_REQUIRES(access(driver, R_OK) == 0, driver);
        SLUICE_REQUIRES(access("/dev/udmabuf", R_OK | W_OK) == 0, "/dev/udmabuf does not open");
        for (const char* name : {"VK_DRIVER_FILES", "VK_ICD_FILENAMES"}) // what older loaders read
            setenv(name, driver, 1);
        setenv("VK_LAYER_PATH", SLUICE_LAYER_MANIFESTS, 1);
        setenv("VK_SLUICE_DMA_BUF_EMULATE", "on", 1);
    }
    void TearDown() override {
        for (const char* name :
             {"VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_LAYER_PATH", "VK_SLUICE_DMA_BUF_EMULATE"})
            unsetenv(name);
    }
};

VkBufferCopy all_bytes() {
    return {.srcOffset = 0, .dstOffset = 0, .size = size};
}

/// Rows as they lie in the dma-buf.
VkBufferImageCopy all_pixels() {
    return {.bufferRowLength = pitch / 4,
            .imageSubresource = {.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT, .layerCount = 1},
            .imageExtent = {width, height, 1}};
}

TEST_F(LayerEmulateSystemTest, WithoutItThereAreNoDmaBufs) {
    setenv("VK_SLUICE_DMA_BUF_EMULATE", "off", 1);
    const Program program;
    EXPECT_EQ(program.result, VK_ERROR_EXTENSION_NOT_PRESENT);
    VkPhysicalDeviceProperties about{};
    vkGetPhysicalDeviceProperties(program.physical, &about);
    EXPECT_EQ(about.deviceType, VK_PHYSICAL_DEVICE_TYPE_CPU);
}

TEST_F(LayerEmulateSystemTest, ABufferIsReadAsTheCpuWroteIt) {
    Program program;
    ASSERT_EQ(program.result, VK_SUCCESS);
    const Peer peer(plain::make_dma_buf(size));
    const VkBuffer from = program.buffer(program.memory(&peer));
    const std::uint32_t* copied = nullptr;
    const VkBuffer to = program.own_buffer(copied);
    for (const std::uint32_t seed : {1U, 2U}) {
        peer.write(seed);
        program.run([&](VkCommandBuffer commands) {
            const VkBufferCopy all = all_bytes();
            vkCmdCopyBuffer(commands, from, to, 1, &all);
        });
        for (std::size_t i = 0; i < size / 4; ++i)
            ASSERT_EQ(copied[i], pattern(seed, i)) << "word " << i << ", seed " << seed;
    }
}

TEST_F(LayerEmulateSystemTest, TheCpuReadsABufferAsItWasWritten) {
    Program program;
    ASSERT_EQ(program.result, VK_SUCCESS);
    const Peer from(plain::make_dma_buf(size)), to(plain::make_dma_buf(size));
    const VkBuffer source = program.buffer(program.memory(&from)),
                   target = program.buffer(program.memory(&to));
    from.write(3);
    program.run([&](VkCommandBuffer commands) {
        const VkBufferCopy all = all_bytes();
        vkCmdCopyBuffer(commands, source, target, 1, &all);
    });
    EXPECT_EQ(to.read(), from.read());
}

TEST_F(LayerEmulateSystemTest, AnImageIsReadAsTheCpuWroteIt) {
    Program program;
    ASSERT_EQ(program.result, VK_SUCCESS);
    const Peer peer(plain::make_dma_buf(size));
    VkDeviceMemory memory = program.memory(&peer);
    for (const std::uint32_t offset : {0U, page, 2 * page + 16}) {
        const VkImage from = program.image(memory, offset);
        ASSERT_EQ(program.result, VK_SUCCESS);
        const std::uint32_t* copied = nullptr;
        const VkBuffer to = program.own_buffer(copied);
        peer.write(offset + 4);
        program.run([&](VkCommandBuffer commands) {
            Program::hand_over(commands, from, false);
            const VkBufferImageCopy all = all_pixels();
            vkCmdCopyImageToBuffer(commands, from, VK_IMAGE_LAYOUT_GENERAL, to, 1, &all);
            Program::hand_over(commands, from, true);
        });
        for (std::uint32_t y = 0; y < height; ++y)
            for (std::uint32_t x = 0; x < width; ++x)
                ASSERT_EQ(copied[y * pitch / 4 + x],
                          pattern(offset + 4, (offset + y * pitch) / 4 + x))
                    << x << ", " << y << " from offset " << offset;
    }
}

TEST_F(LayerEmulateSystemTest, TheCpuReadsAnImageAsItWasWritten) {
    Program program;
    ASSERT_EQ(program.result, VK_SUCCESS);
    const Peer peer(plain::make_dma_buf(size));
    VkDeviceMemory memory = program.memory(&peer);
    constexpr std::uint32_t offset = page;
    const VkImage to = program.image(memory, offset);
    ASSERT_EQ(program.result, VK_SUCCESS);
    peer.write(5);
    program.run([&](VkCommandBuffer commands) {
        Program::hand_over(commands, to, false);
        const VkClearColorValue blue{.float32 = {0, 0, 1, 1}};
        vkCmdClearColorImage(commands, to, VK_IMAGE_LAYOUT_GENERAL, &blue, 1, &Program::whole);
        Program::hand_over(commands, to, true);
    });
    const auto words = peer.read();
    for (std::uint32_t y = 0; y < height; ++y)
        for (std::uint32_t x = 0; x < width; ++x)
            ASSERT_EQ(words[(offset + y * pitch) / 4 + x], 0xff0000ffU) << x << ", " << y;
    for (std::size_t i = 0; i < offset / 4; ++i)
        ASSERT_EQ(words[i], pattern(5, i)) << "in front of it";
}

TEST_F(LayerEmulateSystemTest, APitchThatIsNotTheDriversIsRefused) {
    Program program;
    ASSERT_EQ(program.result, VK_SUCCESS);
    const Peer peer(plain::make_dma_buf(size));
    EXPECT_EQ(program.image(program.memory(&peer), 0, pitch + 64), VK_NULL_HANDLE);
    EXPECT_EQ(program.result, VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT);
}

TEST_F(LayerEmulateSystemTest, WhatItExportsOthersShare) {
    Program program;
    ASSERT_EQ(program.result, VK_SUCCESS);
    VkDeviceMemory memory = program.memory(nullptr);
    const VkBuffer buffer = program.buffer(memory);
    const Peer peer(program.fd_of(memory));
    program.run([&](VkCommandBuffer commands) {
        vkCmdFillBuffer(commands, buffer, 0, VK_WHOLE_SIZE, 0x12345678);
    });
    EXPECT_EQ(peer.read(), std::vector<std::uint32_t>(size / 4, 0x12345678));
    // Another device of another program takes it in.
    Program other;
    ASSERT_EQ(other.result, VK_SUCCESS);
    const VkBuffer shared = other.buffer(other.memory(&peer));
    other.run([&](VkCommandBuffer commands) {
        vkCmdFillBuffer(commands, shared, 0, VK_WHOLE_SIZE, 0x9abcdef0);
    });
    EXPECT_EQ(peer.read(), std::vector<std::uint32_t>(size / 4, 0x9abcdef0));
}

TEST_F(LayerEmulateSystemTest, WorkWaitsForTheBuffersFences) {
    SLUICE_REQUIRES(plain::Fence::available(), "no sw_sync in debugfs");
    Program program;
    ASSERT_EQ(program.result, VK_SUCCESS);
    const Peer peer(plain::make_dma_buf(size));
    const VkBuffer from = program.buffer(program.memory(&peer));
    const std::uint32_t* copied = nullptr;
    const VkBuffer to = program.own_buffer(copied);
    peer.write(6);
    const plain::Fence fence;
    dma_buf_import_sync_file import{.flags = DMA_BUF_SYNC_WRITE, .fd = fence.fd()};
    ASSERT_EQ(ioctl(peer.fd(), DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &import), 0);
    std::thread producer([&] {
        std::this_thread::sleep_for(300ms);
        peer.write_at_once(7);
        fence.signal();
    });
    program.run([&](VkCommandBuffer commands) {
        const VkBufferCopy all = all_bytes();
        vkCmdCopyBuffer(commands, from, to, 1, &all);
    });
    producer.join();
    EXPECT_EQ(copied[size / 4 - 1], pattern(7, size / 4 - 1));
}

} // namespace
