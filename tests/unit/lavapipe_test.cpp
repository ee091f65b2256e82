// SPDX-License-Identifier: MIT
// A real driver on any machine: lavapipe takes a memfd for a dma-buf. What a kernel does about
// fences is not here (tests/system); where the bytes go is.
#include <sluice/vulkan_access.hpp>
#include <sluice/vulkan_buffer.hpp>
#include <sluice/vulkan_image.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <vulkan/vulkan.h>

#include <sluice/format.hpp>
#include <sluice/vulkan_format.hpp>

#include "core/probe.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;

constexpr auto patience = 10s;
constexpr std::uint32_t spare_rows = 4; // lavapipe reads up to the next multiple of four

/// A memfd's bytes, as nobody else sees them.
class Bytes {
public:
    explicit Bytes(const DmaBuf& buffer)
        : size_(buffer.size()),
          at_(static_cast<std::byte*>(
              mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, buffer.fd(), 0))) {}
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    ~Bytes() { munmap(at_, size_); }

    [[nodiscard]] std::byte* data() const { return at_; }

private:
    std::size_t size_;
    std::byte* at_;
};

/// Calls \p visit with each byte of the planes' rows and what the pattern has there.
template <typename Visit> void each_byte(const Frame& frame, Visit visit) {
    const FrameLayout& layout = frame.layout();
    const FormatInfo& format = *find_format(layout.format);
    for (std::uint32_t i = 0; i < layout.plane_count; ++i) {
        const Bytes bytes(frame.buffer(i));
        const FramePlane& plane = layout.planes[i];
        for (std::size_t y = 0; y < format.planes[i].rows(layout.height); ++y)
            for (std::size_t x = 0; x < format.planes[i].row_bytes(layout.width); ++x)
                visit(bytes.data()[plane.offset + y * plane.stride + x],
                      static_cast<std::byte>(i * 101 + x * 7 + y * 31 + 1));
    }
}

void fill(const Frame& frame) {
    each_byte(frame, [](std::byte& byte, std::byte wanted) { byte = wanted; });
}

std::size_t wrong_bytes(const Frame& frame) {
    std::size_t wrong = 0;
    each_byte(frame, [&](std::byte byte, std::byte wanted) { wrong += byte != wanted ? 1U : 0U; });
    return wrong;
}

/// An application with a device of its own, which has of the extensions what the driver has.
class LavapipeTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        probe::forget();
        libc_.memfds_are_dma_bufs();
        VkApplicationInfo application{};
        application.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
        application.apiVersion = VK_API_VERSION_1_1;
        VkInstanceCreateInfo info{};
        info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
        info.pApplicationInfo = &application;
        if (vkCreateInstance(&info, nullptr, &instance_) != VK_SUCCESS)
            GTEST_SKIP() << "there is no Vulkan here";
        std::uint32_t count = 0;
        vkEnumeratePhysicalDevices(instance_, &count, nullptr);
        std::vector<VkPhysicalDevice> devices(count);
        vkEnumeratePhysicalDevices(instance_, &count, devices.data());
        for (VkPhysicalDevice each : devices) {
            VkPhysicalDeviceProperties properties{};
            vkGetPhysicalDeviceProperties(each, &properties);
            if (std::string(properties.deviceName).starts_with("llvmpipe"))
                physical_ = each;
        }
        if (physical_ == VK_NULL_HANDLE)
            GTEST_SKIP() << "lavapipe is not installed (mesa-vulkan-drivers)";
        create_device();
    }

    void create_device() {
        std::uint32_t count = 0;
        vkEnumerateDeviceExtensionProperties(physical_, nullptr, &count, nullptr);
        std::vector<VkExtensionProperties> all(count);
        vkEnumerateDeviceExtensionProperties(physical_, nullptr, &count, all.data());
        std::vector<const char*> extensions;
        for (const char* wanted : VulkanDevice::required_extensions())
            if (std::ranges::any_of(all, [wanted](const auto& each) {
                    return std::strcmp(each.extensionName, wanted) == 0;
                }))
                extensions.push_back(wanted);
        const float priority = 1.0F;
        VkDeviceQueueCreateInfo queue{};
        queue.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO;
        queue.queueCount = 1;
        queue.pQueuePriorities = &priority;
        VkDeviceCreateInfo create{};
        create.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO;
        create.queueCreateInfoCount = 1;
        create.pQueueCreateInfos = &queue;
        create.enabledExtensionCount = static_cast<std::uint32_t>(extensions.size());
        create.ppEnabledExtensionNames = extensions.data();
        ASSERT_EQ(vkCreateDevice(physical_, &create, nullptr, &device_), VK_SUCCESS);
        VulkanDeviceInfo info{.get_instance_proc_addr = vkGetInstanceProcAddr,
                              .instance = instance_,
                              .physical_device = physical_,
                              .device = device_,
                              .extensions = extensions};
        vkGetDeviceQueue(device_, 0, 0, &info.queue);
        auto wrapped = VulkanDevice::wrap(info);
        ASSERT_TRUE(wrapped) << wrapped.error().message();
        gpu_ = std::move(*wrapped);
        VkCommandPoolCreateInfo pool{};
        pool.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO;
        pool.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
        ASSERT_EQ(vkCreateCommandPool(device_, &pool, nullptr, &pool_), VK_SUCCESS);
        VkCommandBufferAllocateInfo allocate{};
        allocate.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO;
        allocate.commandPool = pool_;
        allocate.commandBufferCount = 1;
        ASSERT_EQ(vkAllocateCommandBuffers(device_, &allocate, &commands_), VK_SUCCESS);
    }

    void TearDown() override {
        gpu_.reset();
        if (device_ != VK_NULL_HANDLE) {
            vkDestroyCommandPool(device_, pool_, nullptr);
            vkDestroyDevice(device_, nullptr);
        }
        if (instance_ != VK_NULL_HANDLE)
            vkDestroyInstance(instance_, nullptr);
        probe::forget();
        FdTest::TearDown();
    }

    /// \param scattered the planes in buffers of their own, not at their start, and, where the
    ///   driver has modifiers, with room between the rows.
    [[nodiscard]] Frame frame(std::uint32_t format, VkExtent2D size, bool scattered) const {
        const std::uint32_t room = scattered && gpu_->caps().modifiers ? 192 : 0;
        const FormatInfo& info = *find_format(format);
        FrameLayout layout{.width = size.width, .height = size.height, .format = format};
        std::vector<DmaBuf> buffers;
        std::uint64_t end = 0;
        for (std::uint32_t i = 0; i < info.plane_count; ++i) {
            const auto row = static_cast<std::uint32_t>(info.planes[i].row_bytes(size.width));
            const std::uint32_t stride = (row + 63) / 64 * 64 + room;
            const std::uint64_t bytes =
                std::uint64_t{stride} * (info.planes[i].rows(size.height) + spare_rows);
            layout.planes[i] = {.offset = scattered ? 4096 : static_cast<std::uint32_t>(end),
                                .stride = stride,
                                .buffer = scattered ? i : 0};
            end += bytes;
            if (scattered)
                buffers.push_back(std::move(*DmaBuf::from_fd(test::memfd(4096 + bytes))));
        }
        if (!scattered)
            buffers.push_back(std::move(*DmaBuf::from_fd(test::memfd(end))));
        auto made = Frame::create(layout, buffers);
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }

    template <typename Record> void run(std::span<const VulkanUse> uses, Record record) {
        VkCommandBufferBeginInfo begin{};
        begin.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO;
        ASSERT_EQ(vkBeginCommandBuffer(commands_, &begin), VK_SUCCESS);
        record(commands_);
        ASSERT_EQ(vkEndCommandBuffer(commands_), VK_SUCCESS);
        auto done = gpu_->submit({.command_buffers = {&commands_, 1}, .uses = uses});
        ASSERT_TRUE(done) << done.error().message();
        ASSERT_TRUE(done->wait(deadline_in(patience)));
        ASSERT_EQ(vkDeviceWaitIdle(device_), VK_SUCCESS);
    }

    void copy(const Frame& from, const Frame& to) {
        constexpr auto source = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
        constexpr auto target = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
        constexpr auto stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
        const VulkanFormatInfo& format = *find_vulkan_format(from.layout().format);
        for (std::uint32_t part = 0; part < format.view_count; ++part) {
            auto read =
                gpu_->attach(from, {.usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT, .view = part});
            auto written =
                gpu_->attach(to, {.usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT, .view = part});
            ASSERT_TRUE(read) << read.error().message();
            ASSERT_TRUE(written) << written.error().message();
            const std::array uses{VulkanUse{.attachment = &*read, .access = Access::read},
                                  VulkanUse{.attachment = &*written, .access = Access::write}};
            run(uses, [&](VkCommandBuffer commands) {
                const std::array acquire{
                    read->acquire_barrier(Contents::keep, source, VK_ACCESS_TRANSFER_READ_BIT),
                    written->acquire_barrier(Contents::discard, target,
                                             VK_ACCESS_TRANSFER_WRITE_BIT)};
                vkCmdPipelineBarrier(commands, stage, stage, 0, 0, nullptr, 0, nullptr, 2,
                                     acquire.data());
                const VulkanPlaneView& view = format.views[part];
                const VkImageSubresourceLayers all{VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1};
                VkImageCopy texels{};
                texels.srcSubresource = all;
                texels.dstSubresource = all;
                texels.extent = {(from.layout().width + view.texel_width - 1) / view.texel_width,
                                 (from.layout().height + view.texel_height - 1) / view.texel_height,
                                 1};
                vkCmdCopyImage(commands, read->image(), source, written->image(), target, 1,
                               &texels);
                const std::array release{
                    read->release_barrier(source, VK_ACCESS_TRANSFER_READ_BIT),
                    written->release_barrier(target, VK_ACCESS_TRANSFER_WRITE_BIT)};
                vkCmdPipelineBarrier(commands, stage, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0,
                                     nullptr, 0, nullptr, 2, release.data());
            });
        }
    }

    test::ScriptedLibc libc_;
    VkInstance instance_ = VK_NULL_HANDLE;
    VkPhysicalDevice physical_ = VK_NULL_HANDLE;
    VkDevice device_ = VK_NULL_HANDLE;
    VkCommandPool pool_ = VK_NULL_HANDLE;
    VkCommandBuffer commands_ = VK_NULL_HANDLE;
    std::optional<VulkanDevice> gpu_;
};

TEST_F(LavapipeTest, EveryFormatIsCopiedByteForByteHoweverItsPlanesLie) {
    constexpr VkImageUsageFlags copies =
        VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT;
    std::size_t formats = 0;
    for (const VulkanFormatInfo& format : vulkan_formats()) {
        bool taken = true;
        for (std::uint32_t part = 0; part < format.view_count; ++part) {
            const auto caps = gpu_->support(format.fourcc, copies, part);
            ASSERT_TRUE(caps) << caps.error().message();
            taken = taken && std::ranges::any_of(caps->modifiers, &VulkanModifierCaps::importable);
        }
        if (!taken)
            continue;
        ++formats;
        for (const VkExtent2D size : {VkExtent2D{64, 16}, VkExtent2D{33, 7}, VkExtent2D{1, 1}})
            for (const bool scattered : {false, true}) {
                const Frame from = frame(format.fourcc, size, scattered);
                const Frame to = frame(format.fourcc, size, !scattered);
                SCOPED_TRACE(describe(from.layout()));
                fill(from);
                EXPECT_GT(wrong_bytes(to), 0U);
                copy(from, to);
                EXPECT_EQ(wrong_bytes(to), 0U);
                EXPECT_EQ(wrong_bytes(from), 0U);
            }
    }
    std::cout << formats << " formats\n";
    EXPECT_GT(formats, 20U);
}

TEST_F(LavapipeTest, ABufferOfBytesIsCopiedToTheLast) {
    const Frame from = frame(DRM_FORMAT_XRGB8888, {33, 7}, false);
    const Frame to = frame(DRM_FORMAT_XRGB8888, {33, 7}, false);
    fill(from);
    auto read = gpu_->attach_buffer(from, {.usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT});
    auto written = gpu_->attach_buffer(to, {.usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT});
    ASSERT_TRUE(read) << read.error().message();
    ASSERT_TRUE(written) << written.error().message();
    const std::array uses{VulkanUse{.attachment = &*read, .access = Access::read},
                          VulkanUse{.attachment = &*written, .access = Access::write}};
    run(uses, [&](VkCommandBuffer commands) {
        const VkBufferCopy all{0, 0, read->size()};
        vkCmdCopyBuffer(commands, read->buffer(), written->buffer(), 1, &all);
    });
    EXPECT_EQ(wrong_bytes(to), 0U);
}

TEST_F(LavapipeTest, APoolIsImportedOnceAndLeavesNothingOpen) {
    std::vector<DmaBuf> pool;
    for (int i = 0; i < 4; ++i)
        pool.push_back(std::move(*DmaBuf::from_fd(test::memfd(8192))));
    const auto over = [](const DmaBuf& buffer) {
        return std::move(*Frame::create({.width = 16,
                                         .height = 4,
                                         .format = DRM_FORMAT_XRGB8888,
                                         .planes = {FramePlane{.stride = 64}}},
                                        std::move(*buffer.duplicate())));
    };
    std::vector<VkImage> images;
    std::size_t open = 0;
    for (int round = 0; round < 10; ++round)
        for (std::size_t i = 0; i < pool.size(); ++i) {
            auto image = gpu_->attach(over(pool[i]), {.usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT});
            ASSERT_TRUE(image) << image.error().message();
            if (round == 0)
                images.push_back(image->image());
            EXPECT_EQ(image->image(), images[i]);
            if (round == 0 && i + 1 == pool.size())
                open = test::open_fds().size();
        }
    EXPECT_LE(test::open_fds().size(), open);
}

} // namespace
} // namespace sluice
