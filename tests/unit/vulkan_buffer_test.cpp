// SPDX-License-Identifier: MIT
#include <sluice/vulkan_buffer.hpp>

#include <array>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <fcntl.h>

#include <sluice/vulkan_image.hpp>

#include "support/fake_vulkan.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::FakeVulkan;
using Kinds = std::multiset<std::string>;
using Words = std::vector<std::string>;

constexpr VkBufferUsageFlags copied = VK_BUFFER_USAGE_TRANSFER_SRC_BIT;
constexpr VkMemoryPropertyFlags visible = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
constexpr VkMemoryPropertyFlags coherent = VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
constexpr VkMemoryPropertyFlags cached = VK_MEMORY_PROPERTY_HOST_CACHED_BIT;

class VulkanBufferTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
    }

    VulkanDevice wrap() {
        auto device = VulkanDevice::wrap(driver_.application());
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }

    static DmaBuf bytes(std::uint64_t size) {
        return std::move(*DmaBuf::from_fd(test::memfd(size)));
    }
    static Frame nv12(std::uint64_t second_size = 4096) {
        std::array buffers{bytes(8192), bytes(second_size)};
        auto frame = Frame::create(
            {.width = 64,
             .height = 16,
             .format = DRM_FORMAT_NV12,
             .planes = {FramePlane{.stride = 64}, FramePlane{.stride = 64, .buffer = 1}}},
            buffers);
        EXPECT_TRUE(frame) << frame.error().message();
        return std::move(*frame);
    }

    static void expect_refused(const Result<VulkanBuffer>& result, Errc code, const Words& words,
                               VkResult vk_result = VK_SUCCESS) {
        ASSERT_FALSE(result);
        EXPECT_EQ(to_string(result.error().code), to_string(code)) << result.error().message();
        EXPECT_EQ(result.error().vk_result, vk_result) << result.error().message();
        for (const std::string& word : words)
            EXPECT_NE(result.error().message().find(word), std::string::npos)
                << word << " in " << result.error().message();
        EXPECT_FALSE(result.error().remedy.empty());
    }

    static constexpr VulkanBufferInfo small{
        .width = 100, .height = 50, .format = DRM_FORMAT_XRGB8888, .usage = copied};
    test::ScriptedLibc libc_;
    FakeVulkan driver_;
};

TEST_F(VulkanBufferTest, AttachesEachOfAFramesBuffers) {
    const Frame frame = nv12();
    for (const std::uint32_t index : {0U, 1U}) {
        const VulkanDevice device = wrap();
        auto buffer = device.attach_buffer(frame, {.usage = copied, .buffer = index});
        ASSERT_TRUE(buffer) << buffer.error().message();
        EXPECT_EQ(buffer->frame(), frame);
        EXPECT_EQ(buffer->size(), frame.buffers()[index].size());
        EXPECT_NE(buffer->buffer(), VkBuffer{VK_NULL_HANDLE});
        const auto& request = driver_.buffers.back();
        EXPECT_EQ(request.handle_types,
                  VkExternalMemoryHandleTypeFlags{VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT});
        EXPECT_EQ(request.info.size, frame.buffers()[index].size());
        EXPECT_EQ(request.info.usage, copied);
        EXPECT_EQ(request.info.sharingMode, VK_SHARING_MODE_EXCLUSIVE);
        EXPECT_EQ(driver_.allocations.back().imported, test::inode_of(frame.buffers()[index].fd()));
        EXPECT_EQ(driver_.living(), (Kinds{"buffer", "memory"}));
    }
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanBufferTest, AttachesPlainBytes) {
    const VulkanDevice device = wrap();
    for (const std::uint64_t size : {4096U, 12288U, 1U, 3U, 999999U}) {
        const DmaBuf plain = bytes(size);
        auto buffer = device.attach_buffer(plain, copied);
        ASSERT_TRUE(buffer) << buffer.error().message();
        EXPECT_EQ(buffer->size(), size);
        EXPECT_TRUE(same_buffer(buffer->frame().buffer(), plain));
        const FrameLayout& layout = buffer->frame().layout();
        EXPECT_EQ(layout.format, std::uint32_t{DRM_FORMAT_R8});
        EXPECT_EQ(std::uint64_t{layout.planes[0].stride} * layout.height, size);
        EXPECT_EQ(layout.width, layout.planes[0].stride);
    }
    expect_refused(device.attach_buffer(bytes(0), copied), Errc::invalid_argument,
                   {"VulkanDevice::attach_buffer"});
    device.drop_idle_attachments();
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanBufferTest, TheSameBytesAreImportedOnce) {
    const VulkanDevice device = wrap();
    const Frame frame = nv12();
    auto first = device.attach_buffer(frame, {.usage = copied});
    ASSERT_TRUE(first);
    EXPECT_EQ(device.attach_buffer(frame, {.usage = copied})->buffer(), first->buffer());
    const VulkanBufferAttachInfo others[] = {{.usage = copied, .buffer = 1},
                                             {.usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT}};
    for (const VulkanBufferAttachInfo& each : others)
        EXPECT_NE(device.attach_buffer(frame, each)->buffer(), first->buffer());
    EXPECT_EQ(driver_.buffers.size(), 3U);

    const DmaBuf plain = bytes(4096);
    auto bytes = device.attach_buffer(plain, copied);
    ASSERT_TRUE(bytes);
    EXPECT_EQ(device.attach_buffer(*plain.duplicate(), copied)->buffer(), bytes->buffer());
    EXPECT_EQ(driver_.buffers.size(), 4U);
}

TEST_F(VulkanBufferTest, ExportsAFrameThatIsLaidOutForCopies) {
    const VulkanDevice device = wrap();
    const struct {
        std::uint32_t width, height, format;
        std::array<FramePlane, 2> planes;
        VkDeviceSize size;
    } cases[] = {
        {100, 50, DRM_FORMAT_XRGB8888, {{{0, 512}}}, 25600},
        {1, 1, DRM_FORMAT_R8, {{{0, 256}}}, 256},
        {100, 2, DRM_FORMAT_RGB888, {{{0, 768}}}, 1536}, // of 256 bytes and of 3
        {33, 7, DRM_FORMAT_NV12, {{{0, 256}, {1792, 256}}}, 1792 + 4 * 256},
    };
    for (const auto& each : cases) {
        auto buffer = device.export_buffer(
            {.width = each.width, .height = each.height, .format = each.format, .usage = copied});
        ASSERT_TRUE(buffer) << buffer.error().message();
        const FrameLayout& layout = buffer->frame().layout();
        EXPECT_EQ(layout.width, each.width);
        EXPECT_EQ(layout.height, each.height);
        EXPECT_EQ(layout.format, each.format);
        EXPECT_EQ(layout.modifier, std::uint64_t{DRM_FORMAT_MOD_LINEAR});
        for (std::size_t i = 0; i < each.planes.size(); ++i) {
            EXPECT_EQ(layout.planes[i].offset, each.planes[i].offset);
            EXPECT_EQ(layout.planes[i].stride, each.planes[i].stride);
        }
        EXPECT_EQ(buffer->size(), each.size);
        EXPECT_EQ(driver_.buffers.back().info.size, each.size);
        EXPECT_EQ(driver_.allocations.back().handle_types,
                  VkExternalMemoryHandleTypeFlags{VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT});
        EXPECT_EQ(fcntl(buffer->frame().buffer().fd(), F_GETFD), FD_CLOEXEC);
    }
    VulkanBufferInfo tight = small;
    tight.alignment = 0;
    auto buffer = device.export_buffer(tight);
    ASSERT_TRUE(buffer);
    EXPECT_EQ(buffer->frame().layout().planes[0].stride, 400U);
}

TEST_F(VulkanBufferTest, GetsMemoryOfItsOwnWhereTheDriverWantsThat) {
    auto& features = driver_.devices[0].buffer_features;
    const DmaBuf plain = bytes(4096);
    for (int which = 0; which < 4; ++which) {
        driver_.requires_dedicated = which == 1;
        driver_.prefers_dedicated = which == 2;
        if (which == 3)
            features |= VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
        const VulkanDevice device = wrap();
        EXPECT_TRUE(device.attach_buffer(plain, copied));
        EXPECT_EQ(driver_.allocations.back().dedicated, which != 0);
        EXPECT_TRUE(device.export_buffer(small));
        EXPECT_EQ(driver_.allocations.back().dedicated, which != 0);
    }
}

TEST_F(VulkanBufferTest, AnAddressIsAskedForWithTheMemory) {
    const VulkanDevice device = wrap();
    for (const bool dedicated : {false, true}) {
        driver_.requires_dedicated = dedicated;
        EXPECT_TRUE(device.attach_buffer(bytes(4096), copied));
        EXPECT_EQ(driver_.allocations.back().flags, 0U);
        EXPECT_TRUE(device.attach_buffer(bytes(4096), VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT));
        EXPECT_EQ(driver_.allocations.back().flags,
                  VkMemoryAllocateFlags{VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT});
    }
}

TEST_F(VulkanBufferTest, TakesAMemoryTypeThatIsRightForBoth) {
    const VulkanDevice device = wrap();
    driver_.fd_memory_type_bits = 0b01;
    EXPECT_TRUE(device.attach_buffer(bytes(4096), copied));
    EXPECT_EQ(driver_.allocations.back().memory_type, 0U);
    driver_.memory_type_bits = 0b10;
    expect_refused(device.attach_buffer(bytes(4096), copied), Errc::unsupported,
                   {"no memory type is right for both the VkBuffer and buffer ino"});
    EXPECT_TRUE(device.export_buffer(small)) << "it has no fd to agree with";
    driver_.memory_type_bits = 0;
    expect_refused(device.export_buffer(small), Errc::unsupported, {"has no memory type"});
}

TEST_F(VulkanBufferTest, RefusesWhatCannotBeMeantBeforeTheDriverIsAsked) {
    const VulkanDevice device = wrap();
    expect_refused(device.attach_buffer(nv12(), {}), Errc::invalid_argument, {"it has no usage"});
    expect_refused(device.attach_buffer(nv12(), {.usage = copied, .buffer = 2}),
                   Errc::invalid_argument, {"there is no buffer 2, the frame has 2"});
    const struct {
        std::uint32_t width, height, format;
        VkBufferUsageFlags usage;
        std::uint32_t alignment;
        Errc code;
        const char* words;
    } cases[] = {
        {0, 50, DRM_FORMAT_R8, copied, 256, Errc::invalid_argument, "no pixels"},
        {100, 0, DRM_FORMAT_R8, copied, 256, Errc::invalid_argument, "no pixels"},
        {100, 50, DRM_FORMAT_R8, 0, 256, Errc::invalid_argument, "no usage"},
        {100, 50, 0, copied, 256, Errc::unsupported, "not a format"},
        {1U << 31, 1, DRM_FORMAT_R8, copied, 256, Errc::invalid_argument, "stride of 2147483648"},
        {1, 1, DRM_FORMAT_R8, copied, 1U << 31, Errc::invalid_argument, "stride of 2147483648"},
        {1U << 30, 8, DRM_FORMAT_NV12, copied, 256, Errc::invalid_argument, "offset 8589934592"},
    };
    for (const auto& each : cases)
        expect_refused(device.export_buffer({.width = each.width,
                                             .height = each.height,
                                             .format = each.format,
                                             .usage = each.usage,
                                             .alignment = each.alignment}),
                       each.code, {"VulkanDevice::export_buffer", each.words});
    EXPECT_EQ(driver_.calls("vkGetPhysicalDeviceExternalBufferProperties"), 0);
}

TEST_F(VulkanBufferTest, RefusesWhatTheDriverDoesNot) {
    auto& gpu = driver_.devices[0];
    const VulkanDevice device = wrap();
    gpu.buffer_features = VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT;
    expect_refused(device.attach_buffer(nv12(), {.usage = copied}), Errc::unsupported,
                   {"64x16 NV12", "does not import", "Fake GPU"});
    gpu.buffer_features = VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
    expect_refused(device.export_buffer(small), Errc::unsupported,
                   {"100x50 XR24", "does not export", "/dev/udmabuf"});
    gpu.buffer_features |= VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT;
    gpu.max_buffer_size = 8191;
    expect_refused(device.attach_buffer(nv12(), {.usage = copied}), Errc::unsupported,
                   {"takes 8192 bytes", "limit is 8191"});
    expect_refused(device.export_buffer(small), Errc::unsupported, {"takes 25600 bytes"});
    EXPECT_TRUE(driver_.buffers.empty());
    gpu.max_buffer_size = 25600;
    gpu.heap_size = 8191;
    const VulkanDevice little = wrap();
    expect_refused(little.attach_buffer(nv12(), {.usage = copied}), Errc::no_resources,
                   {"needs 8192 bytes", "heap for it has 8191"});
    expect_refused(little.export_buffer(small), Errc::no_resources, {"needs 25600 bytes"});
    gpu.heap_size = 1 << 20;
    driver_.memory_size = 8193;
    expect_refused(device.attach_buffer(nv12(), {.usage = copied}), Errc::out_of_bounds,
                   {"needs 8193 bytes", "holds 8192"});
    EXPECT_TRUE(driver_.allocations.empty());
    gpu.api_version = VK_API_VERSION_1_2; // which has no such limit to ask for: the driver looks
    driver_.memory_size.reset();
    gpu.max_buffer_size = 1 << 20;
    EXPECT_TRUE(device.export_buffer(small));
}

TEST_F(VulkanBufferTest, LeaksNothingWhereACallFails) {
    const Frame frame = nv12();
    // Each time on another device: the last one would know the frame.
    const auto attach = [&] { return wrap().attach_buffer(frame, {.usage = copied}); };
    const auto make = [&] { return wrap().export_buffer(small); };
    const auto fail = [&](const char* function, const auto& call) {
        for (const bool closes : {false, true})
            for (const bool nonsense : {false, true})
                for (const auto& [result, code] :
                     {std::pair(VK_ERROR_OUT_OF_HOST_MEMORY, Errc::no_resources),
                      std::pair(VK_ERROR_OUT_OF_DEVICE_MEMORY, Errc::no_resources),
                      std::pair(VK_ERROR_DEVICE_LOST, Errc::device_lost),
                      std::pair(VK_ERROR_UNKNOWN, Errc::failed)}) {
                    SCOPED_TRACE(function);
                    driver_.failed_import_closes = closes;
                    driver_.failures_leave_nonsense = nonsense;
                    driver_.fail(function, result);
                    expect_refused(call(), code, {"Fake GPU"}, result);
                    EXPECT_EQ(driver_.living(), Kinds{});
                    EXPECT_TRUE(call());
                }
    };
    for (const char* function :
         {"vkCreateBuffer", "vkGetMemoryFdPropertiesKHR", "vkAllocateMemory", "vkBindBufferMemory"})
        fail(function, attach);
    for (const char* function :
         {"vkCreateBuffer", "vkAllocateMemory", "vkBindBufferMemory", "vkGetMemoryFdKHR"})
        fail(function, make);
    for (const char* function : {"vkGetMemoryFdPropertiesKHR", "vkAllocateMemory"}) {
        driver_.fail(function, VK_ERROR_INVALID_EXTERNAL_HANDLE);
        expect_refused(attach(), Errc::wrong_object, {"buffer ino"},
                       VK_ERROR_INVALID_EXTERNAL_HANDLE);
    }
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanBufferTest, RefusesAnExportThatIsNoDmaBufOrTooSmall) {
    const VulkanDevice device = wrap();
    driver_.memory_fd = FakeVulkan::Gives::no_fd;
    expect_refused(device.export_buffer(small), Errc::wrong_object, {"there is no fd"});
    driver_.memory_fd = FakeVulkan::Gives::a_pipe;
    expect_refused(device.export_buffer(small), Errc::wrong_object, {"is not a dma-buf"});
    driver_.memory_fd = FakeVulkan::Gives::what_was_asked_for;
    driver_.memory_size = 4096;
    expect_refused(device.export_buffer(small), Errc::out_of_bounds, {"holds 4096"});
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanBufferTest, WithoutAForeignQueueTheExternalOneIsNamed) {
    VulkanDeviceInfo info = driver_.application();
    std::vector<const char*> extensions;
    for (const char* each : VulkanDevice::required_extensions())
        if (std::string(each) != VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME)
            extensions.push_back(each);
    info.extensions = extensions;
    auto device = VulkanDevice::wrap(info);
    ASSERT_TRUE(device) << device.error().message();
    auto buffer = device->export_buffer(small);
    ASSERT_TRUE(buffer) << buffer.error().message();
    EXPECT_EQ(buffer->acquire_barrier(Contents::keep, 0).srcQueueFamilyIndex,
              VK_QUEUE_FAMILY_EXTERNAL);
    EXPECT_EQ(buffer->release_barrier(0).dstQueueFamilyIndex, VK_QUEUE_FAMILY_EXTERNAL);
}

class VulkanBufferRevokedTest : public VulkanBufferTest {
protected:
    void SetUp() override {
        VulkanBufferTest::SetUp();
        libc_.ppoll = [](pollfd* fds, nfds_t, const timespec*) {
            fds->revents = fds->events;
            return 1;
        };
    }
};

TEST_F(VulkanBufferRevokedTest, IsRefused) {
    const VulkanDevice device = wrap();
    const Frame frame = nv12();
    ASSERT_TRUE(frame.revoke(deadline_in(0s)));
    expect_refused(device.attach_buffer(frame, {.usage = copied}), Errc::revoked,
                   {"VulkanDevice::attach_buffer", "taken the frame back"});
    EXPECT_TRUE(driver_.buffers.empty());
}

TEST_F(VulkanBufferRevokedTest, TheDeviceLetsGoOfIt) {
    const VulkanDevice device = wrap();
    const Frame frame = nv12();
    (void)device.attach_buffer(frame, {.usage = copied});
    EXPECT_EQ(driver_.living(), (Kinds{"buffer", "memory"})) << "kept for the next time";
    ASSERT_TRUE(frame.revoke(deadline_in(0s)));
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanBufferRevokedTest, TheDeviceLetsGoOfItThroughAnotherFrameOfTheBytes) {
    const VulkanDevice device = wrap();
    const DmaBuf plain = bytes(4096);
    auto first = device.attach_buffer(plain, copied);
    ASSERT_TRUE(first);
    auto second = device.attach_buffer(plain, copied);
    ASSERT_TRUE(second);
    const Frame again = second->frame();
    EXPECT_NE(again, first->frame());
    first = second = Result<VulkanBuffer>(tl::unexpect, Error{});
    ASSERT_TRUE(again.revoke(deadline_in(0s)));
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanBufferTest, StaysWhereTheGpuHangs) {
    test::fake_sync_files(libc_);
    driver_.finishes_at_once = false;
    std::optional<VulkanBuffer> buffer;
    {
        const VulkanDevice device = wrap();
        buffer = *device.export_buffer(small);
        EXPECT_TRUE(device.submit({}));
        driver_.fail("vkWaitForFences", VK_TIMEOUT);
    }
    buffer.reset();
    EXPECT_EQ(driver_.living().count("buffer"), 1U);
    EXPECT_EQ(driver_.living().count("memory"), 1U);
    driver_.forgive_what_is_left();
}

TEST_F(VulkanBufferTest, ADisjointImageIsAsCoherentAsTheWorstOfItsMemories) {
    auto& gpu = driver_.devices[0];
    gpu.modifiers[0].drmFormatModifierPlaneCount = 2;
    gpu.memory_types = {visible | coherent | cached, visible | cached};
    driver_.memory_size = 4096;
    const Frame frame = nv12();
    for (const std::uint32_t worse : {0U, 1U}) {
        driver_.fd_memory_type_bits_of = {{test::inode_of(frame.buffers()[worse].fd()), 0b10},
                                          {test::inode_of(frame.buffers()[1 - worse].fd()), 0b01}};
        auto image = wrap().attach(frame, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT});
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(image->coherency(), Coherency::bracketed);
    }
}

TEST_F(VulkanBufferTest, GoesWithItsLastCopyAndItsFrameLivesOn) {
    std::optional<VulkanBuffer> buffer = *wrap().export_buffer(small);
    std::optional<VulkanBuffer> copy = buffer;
    const Frame frame = buffer->frame();
    buffer.reset();
    EXPECT_EQ(driver_.living(), (Kinds{"buffer", "memory"}));
    copy.reset();
    EXPECT_EQ(driver_.destroyed, (Words{"buffer", "memory"}));
    EXPECT_NE(test::inode_of(frame.buffer().fd()), 0U);
}

TEST_F(VulkanBufferTest, BarriersTransferAllOfItFromAndToAForeignQueue) {
    const VulkanDevice device = wrap();
    auto buffer = device.export_buffer(small);
    ASSERT_TRUE(buffer);
    const auto keep = buffer->acquire_barrier(Contents::keep, VK_ACCESS_TRANSFER_READ_BIT);
    const auto discard = buffer->acquire_barrier(Contents::discard, VK_ACCESS_SHADER_WRITE_BIT);
    const auto release = buffer->release_barrier(VK_ACCESS_SHADER_WRITE_BIT);
    for (const VkBufferMemoryBarrier& each : {keep, discard, release}) {
        EXPECT_EQ(each.sType, VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER);
        EXPECT_EQ(each.pNext, nullptr);
        EXPECT_EQ(each.buffer, buffer->buffer());
        EXPECT_EQ(each.offset, 0U);
        EXPECT_EQ(each.size, VK_WHOLE_SIZE);
    }
    EXPECT_EQ(keep.srcQueueFamilyIndex, VK_QUEUE_FAMILY_FOREIGN_EXT);
    EXPECT_EQ(keep.dstQueueFamilyIndex, 1U);
    EXPECT_EQ(keep.srcAccessMask, 0U);
    EXPECT_EQ(keep.dstAccessMask, VkAccessFlags{VK_ACCESS_TRANSFER_READ_BIT});
    EXPECT_EQ(discard.srcQueueFamilyIndex, VK_QUEUE_FAMILY_IGNORED);
    EXPECT_EQ(discard.dstQueueFamilyIndex, VK_QUEUE_FAMILY_IGNORED);
    EXPECT_EQ(discard.dstAccessMask, VkAccessFlags{VK_ACCESS_SHADER_WRITE_BIT});
    EXPECT_EQ(release.srcQueueFamilyIndex, 1U);
    EXPECT_EQ(release.dstQueueFamilyIndex, VK_QUEUE_FAMILY_FOREIGN_EXT);
    EXPECT_EQ(release.srcAccessMask, VkAccessFlags{VK_ACCESS_SHADER_WRITE_BIT});
    EXPECT_EQ(release.dstAccessMask, 0U);
}

TEST_F(VulkanBufferTest, BarriersOfSynchronization2AreTheSameWithTheirStages) {
    const VulkanDevice device = wrap();
    auto buffer = device.export_buffer(small);
    ASSERT_TRUE(buffer);
    constexpr VkPipelineStageFlags2 stages = VK_PIPELINE_STAGE_2_COPY_BIT; // 64 bits have it alone
    constexpr VkAccessFlags2 access = VK_ACCESS_2_SHADER_STORAGE_WRITE_BIT;
    for (const Contents contents : {Contents::keep, Contents::discard}) {
        const auto legacy = buffer->acquire_barrier(contents, VK_ACCESS_SHADER_WRITE_BIT);
        const auto acquire = buffer->acquire_barrier2(contents, stages, access);
        EXPECT_EQ(acquire.sType, VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER_2);
        EXPECT_EQ(acquire.pNext, nullptr);
        EXPECT_EQ(acquire.srcStageMask, stages) << "where the semaphores hold it back";
        EXPECT_EQ(acquire.srcAccessMask, VK_ACCESS_2_NONE);
        EXPECT_EQ(acquire.dstStageMask, stages);
        EXPECT_EQ(acquire.dstAccessMask, access);
        EXPECT_EQ(acquire.srcQueueFamilyIndex, legacy.srcQueueFamilyIndex);
        EXPECT_EQ(acquire.dstQueueFamilyIndex, legacy.dstQueueFamilyIndex);
        EXPECT_EQ(acquire.buffer, buffer->buffer());
        EXPECT_EQ(acquire.offset, 0U);
        EXPECT_EQ(acquire.size, VK_WHOLE_SIZE);
    }
    const auto release = buffer->release_barrier2(stages, access);
    EXPECT_EQ(release.sType, VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER_2);
    EXPECT_EQ(release.srcStageMask, stages);
    EXPECT_EQ(release.srcAccessMask, access);
    EXPECT_EQ(release.dstStageMask, VK_PIPELINE_STAGE_2_NONE);
    EXPECT_EQ(release.dstAccessMask, VK_ACCESS_2_NONE);
    EXPECT_EQ(release.srcQueueFamilyIndex, 1U);
    EXPECT_EQ(release.dstQueueFamilyIndex, VK_QUEUE_FAMILY_FOREIGN_EXT);
    EXPECT_EQ(release.buffer, buffer->buffer());
    EXPECT_EQ(release.size, VK_WHOLE_SIZE);
}

TEST_F(VulkanBufferTest, SaysWhetherTheCpuSeesItCoherently) {
    driver_.memory_type_bits = driver_.fd_memory_type_bits = 1;
    const std::pair<VkMemoryPropertyFlags, Coherency> cases[] = {
        {0, Coherency::unknown},
        {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, Coherency::unknown},
        {visible, Coherency::bracketed},
        {visible | cached, Coherency::bracketed},
        {visible | coherent, Coherency::bracketed},
        {visible | coherent | cached, Coherency::always},
    };
    for (const auto& [flags, coherency] : cases) {
        driver_.devices[0].memory_types = {flags, 0};
        const VulkanDevice device = wrap();
        EXPECT_EQ(device.export_buffer(small)->coherency(), coherency) << flags;
        EXPECT_EQ(device.attach_buffer(bytes(4096), copied)->coherency(), coherency) << flags;
        auto image = device.export_image({.width = 16,
                                          .height = 16,
                                          .format = DRM_FORMAT_XRGB8888,
                                          .usage = VK_IMAGE_USAGE_SAMPLED_BIT});
        ASSERT_TRUE(image) << image.error().message();
        EXPECT_EQ(image->coherency(), coherency) << flags;
        EXPECT_EQ(device.attach(image->frame(), {.usage = VK_IMAGE_USAGE_SAMPLED_BIT})->coherency(),
                  coherency)
            << flags;
    }
}

} // namespace
} // namespace sluice
