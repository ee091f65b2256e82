// SPDX-License-Identifier: MIT
// Exported images on a real driver, under the validation layer.
#include <array>
#include <atomic>
#include <iostream>
#include <thread>

#include <drm_fourcc.h>

#include <sluice/cpu_access.hpp>
#include <sluice/format.hpp>
#include <sluice/frame_map.hpp>
#include <sluice/udmabuf.hpp>
#include <sluice/vulkan_context.hpp>
#include <sluice/vulkan_image.hpp>
#include <sluice/vulkan_texture.hpp>

#include "support/allocations.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/udmabuf.hpp"
#include "support/vulkan_under_validation.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::SwSync;

constexpr auto patience = 10s;
constexpr VkImageUsageFlags usage =
    VK_IMAGE_USAGE_TRANSFER_DST_BIT | VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT;

class VulkanSystemTest : public ::testing::Test {
protected:
    void SetUp() override {
        SLUICE_REQUIRES(test::Validation::available(),
                        "VK_LAYER_KHRONOS_validation is not installed");
        set_up(validation.create_context());
    }

    void set_up(Result<VulkanContext> created) {
        SLUICE_REQUIRES(created, created.error().message());
        context.emplace(std::move(*created));
        const VkCommandPoolCreateInfo pool_info{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                                .flags =
                                                    VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                                .queueFamilyIndex = gpu().info().queue_family};
        ASSERT_EQ(vkCreateCommandPool(device(), &pool_info, nullptr, &pool), VK_SUCCESS);
        const VkCommandBufferAllocateInfo allocate{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        ASSERT_EQ(vkAllocateCommandBuffers(device(), &allocate, &commands), VK_SUCCESS);
    }

    void TearDown() override {
        if (context) {
            vkDestroyCommandPool(device(), pool, nullptr);
            validation.stop();
        }
        for (const std::string& each : validation.messages())
            ADD_FAILURE() << each;
    }

    const VulkanDevice& gpu() const { return context->device(); }
    VkDevice device() const { return gpu().info().device; }

    VulkanImage image(std::uint32_t width, std::uint32_t height,
                      std::uint32_t format = DRM_FORMAT_XRGB8888) const {
        auto made = gpu().export_image(
            {.width = width, .height = height, .format = format, .usage = usage});
        EXPECT_TRUE(made) << made.error().message();
        return *made;
    }

    /// Records: take the image over, fill it with one colour, give it away.
    void record_clear(const VulkanImage& target, VkClearColorValue colour) const {
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                             .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
        ASSERT_EQ(vkBeginCommandBuffer(commands, &begin), VK_SUCCESS);
        constexpr auto layout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
        constexpr auto access = VK_ACCESS_TRANSFER_WRITE_BIT;
        constexpr auto stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
        const auto acquire = target.acquire_barrier(Contents::discard, layout, access);
        vkCmdPipelineBarrier(commands, stage, stage, 0, 0, nullptr, 0, nullptr, 1, &acquire);
        const VkImageSubresourceRange all{VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
        vkCmdClearColorImage(commands, target.image(), layout, &colour, 1, &all);
        const auto release = target.release_barrier(layout, access);
        vkCmdPipelineBarrier(commands, stage, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0, nullptr,
                             0, nullptr, 1, &release);
        ASSERT_EQ(vkEndCommandBuffer(commands), VK_SUCCESS);
    }

    Result<SyncFile> submit(std::span<const SyncFile> wait = {}) const {
        return gpu().submit({.command_buffers = {&commands, 1}, .wait_fences = wait});
    }

    /// Submits and waits, in a way that the validation layer sees too: it knows of no SYNC_FD.
    void submit_and_finish() const {
        auto done = submit();
        ASSERT_TRUE(done) << done.error().message();
        auto waited = done->wait(deadline_in(patience));
        ASSERT_TRUE(waited) << waited.error().message();
        ASSERT_EQ(vkDeviceWaitIdle(device()), VK_SUCCESS);
    }

    test::Validation validation;
    std::optional<VulkanContext> context;
    VkCommandPool pool = VK_NULL_HANDLE;
    VkCommandBuffer commands = VK_NULL_HANDLE;
};

constexpr VkClearColorValue orange{.float32 = {1.0F, 0.5F, 0.0F, 1.0F}};
constexpr std::uint32_t orange_xr24 = 0xffff8000; // 0.5 is 127.5: either neighbour is right

/// How many pixels of the frame are not \p colour, give or take one step a channel.
std::uint64_t other_pixels(const Frame& frame, std::uint32_t colour) {
    auto map = CpuMap::map(frame.buffer(), Access::read);
    auto access = CpuAccess::begin(*map, Access::read, deadline_in(patience));
    EXPECT_TRUE(access) << access.error().message();
    std::uint64_t others = 0;
    const FrameLayout& layout = frame.layout();
    for (std::uint32_t y = 0; y < layout.height; ++y)
        for (std::uint32_t x = 0; x < layout.width; ++x) {
            const std::byte* pixel = access->bytes().data() + layout.planes[0].offset +
                                     std::size_t{y} * layout.planes[0].stride + std::size_t{x} * 4;
            for (unsigned channel = 0; channel < 4; ++channel) {
                const int want = static_cast<int>(colour >> (8 * channel) & 0xff);
                const int got = std::to_integer<int>(pixel[channel]);
                if (std::abs(want - got) > 1) {
                    ++others;
                    break;
                }
            }
        }
    return others;
}

TEST_F(VulkanSystemTest, TheCpuSeesWhatTheGpuWrote) {
    for (const auto& [width, height] :
         {std::pair(64U, 64U), std::pair(33U, 7U), std::pair(1U, 1U)}) {
        const VulkanImage target = image(width, height);
        EXPECT_GE(target.frame().layout().planes[0].stride, width * 4);
        EXPECT_EQ(other_pixels(target.frame(), orange_xr24), std::uint64_t{width} * height);
        record_clear(target, orange);
        auto done = submit();
        ASSERT_TRUE(done) << done.error().message();
        ASSERT_TRUE(target.frame().buffer().import_fence(*done, Access::write));
        EXPECT_EQ(other_pixels(target.frame(), orange_xr24), 0U);
        ASSERT_TRUE(done->wait(deadline_in(patience)));
        vkDeviceWaitIdle(device());
    }
}

TEST_F(VulkanSystemTest, EveryFormatThatItKnowsLiesAsTheTableSays) {
    for (const auto& [format, word] :
         {std::pair(DRM_FORMAT_XRGB8888, 0xffff0000U), std::pair(DRM_FORMAT_ARGB8888, 0xffff0000U),
          std::pair(DRM_FORMAT_XBGR8888, 0xff0000ffU),
          std::pair(DRM_FORMAT_ABGR8888, 0xff0000ffU)}) {
        const VulkanImage target = image(16, 16, static_cast<std::uint32_t>(format));
        record_clear(target, {.float32 = {1.0F, 0.0F, 0.0F, 1.0F}});
        submit_and_finish();
        EXPECT_EQ(other_pixels(target.frame(), word), 0U);
    }
}

TEST_F(VulkanSystemTest, ContentsAreKeptFromOneUseToTheNext) {
    const VulkanImage target = image(16, 16);
    record_clear(target, orange);
    submit_and_finish();
    const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    ASSERT_EQ(vkBeginCommandBuffer(commands, &begin), VK_SUCCESS);
    const auto acquire = target.acquire_barrier(
        Contents::keep, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, VK_ACCESS_TRANSFER_WRITE_BIT);
    const auto release =
        target.release_barrier(VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, VK_ACCESS_TRANSFER_WRITE_BIT);
    constexpr auto stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
    vkCmdPipelineBarrier(commands, stage, stage, 0, 0, nullptr, 0, nullptr, 1, &acquire);
    vkCmdPipelineBarrier(commands, stage, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0, nullptr, 0,
                         nullptr, 1, &release);
    ASSERT_EQ(vkEndCommandBuffer(commands), VK_SUCCESS);
    submit_and_finish();
    EXPECT_EQ(other_pixels(target.frame(), orange_xr24), 0U);
}

TEST_F(VulkanSystemTest, APendingFenceHoldsTheGpu) {
    SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    const VulkanImage target = image(16, 16);
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    std::atomic<bool> untouched_before = false;
    // lavapipe finishes the work before it gives its fence away, so submit() itself may wait.
    std::jthread signaller([&] {
        std::this_thread::sleep_for(300ms);
        untouched_before = other_pixels(target.frame(), orange_xr24) == 16U * 16U;
        timeline.advance(1);
    });
    record_clear(target, orange);
    auto done = submit({&fence, 1});
    ASSERT_TRUE(done) << done.error().message();
    ASSERT_TRUE(done->wait(deadline_in(patience)));
    EXPECT_EQ(fence.status()->state, FenceState::signalled) << "the GPU did not wait";
    signaller.join();
    EXPECT_TRUE(untouched_before);
    EXPECT_EQ(other_pixels(target.frame(), orange_xr24), 0U);
    vkDeviceWaitIdle(device());
}

TEST_F(VulkanSystemTest, AFailedFenceIsNotWaitedForAsIfItWereDone) {
    SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
    const VulkanImage target = image(16, 16);
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    timeline.close();
    record_clear(target, orange);
    auto refused = submit({&fence, 1});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::fence_failed);
    EXPECT_EQ(other_pixels(target.frame(), orange_xr24), 16U * 16U) << "it was submitted";
    submit_and_finish(); // the next one works
    EXPECT_EQ(other_pixels(target.frame(), orange_xr24), 0U);
}

TEST_F(VulkanSystemTest, RefusesWhatItCannotExport) {
    const auto refused = [&](VulkanImageInfo info) {
        auto made = gpu().export_image(info);
        EXPECT_FALSE(made);
        return made ? Error{} : made.error();
    };
    EXPECT_EQ(refused({.width = 16, .height = 16, .format = DRM_FORMAT_NV12, .usage = usage}).code,
              Errc::unsupported);
    EXPECT_EQ(
        refused({.width = 0, .height = 16, .format = DRM_FORMAT_XRGB8888, .usage = usage}).code,
        Errc::invalid_argument);
    const Error large =
        refused({.width = 1U << 20, .height = 16, .format = DRM_FORMAT_XRGB8888, .usage = usage});
    EXPECT_EQ(large.code, Errc::unsupported);
    EXPECT_NE(large.message().find("limit"), std::string::npos) << large.message();
}

/// A VkRenderPass and a VkFramebuffer that fill one view with a colour.
class Fill {
public:
    Fill(VkDevice device, VkImageView view, VkFormat format, VkExtent2D size)
        : device_(device), size_(size) {
        const VkAttachmentDescription filled{.format = format,
                                             .samples = VK_SAMPLE_COUNT_1_BIT,
                                             .loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR,
                                             .storeOp = VK_ATTACHMENT_STORE_OP_STORE,
                                             .stencilLoadOp = VK_ATTACHMENT_LOAD_OP_DONT_CARE,
                                             .stencilStoreOp = VK_ATTACHMENT_STORE_OP_DONT_CARE,
                                             .initialLayout = layout,
                                             .finalLayout = layout};
        const VkAttachmentReference colour{.attachment = 0, .layout = layout};
        const VkSubpassDescription subpass{.pipelineBindPoint = VK_PIPELINE_BIND_POINT_GRAPHICS,
                                           .colorAttachmentCount = 1,
                                           .pColorAttachments = &colour};
        const VkRenderPassCreateInfo pass{.sType = VK_STRUCTURE_TYPE_RENDER_PASS_CREATE_INFO,
                                          .attachmentCount = 1,
                                          .pAttachments = &filled,
                                          .subpassCount = 1,
                                          .pSubpasses = &subpass};
        EXPECT_EQ(vkCreateRenderPass(device, &pass, nullptr, &pass_), VK_SUCCESS);
        const VkFramebufferCreateInfo framebuffer{.sType =
                                                      VK_STRUCTURE_TYPE_FRAMEBUFFER_CREATE_INFO,
                                                  .renderPass = pass_,
                                                  .attachmentCount = 1,
                                                  .pAttachments = &view,
                                                  .width = size.width,
                                                  .height = size.height,
                                                  .layers = 1};
        EXPECT_EQ(vkCreateFramebuffer(device, &framebuffer, nullptr, &framebuffer_), VK_SUCCESS);
    }
    Fill(const Fill&) = delete;
    Fill& operator=(const Fill&) = delete;
    ~Fill() {
        vkDestroyFramebuffer(device_, framebuffer_, nullptr);
        vkDestroyRenderPass(device_, pass_, nullptr);
    }

    void record(VkCommandBuffer commands, VkClearColorValue colour) const {
        const VkClearValue value{.color = colour};
        const VkRenderPassBeginInfo begin{.sType = VK_STRUCTURE_TYPE_RENDER_PASS_BEGIN_INFO,
                                          .renderPass = pass_,
                                          .framebuffer = framebuffer_,
                                          .renderArea = {{0, 0}, size_},
                                          .clearValueCount = 1,
                                          .pClearValues = &value};
        vkCmdBeginRenderPass(commands, &begin, VK_SUBPASS_CONTENTS_INLINE);
        vkCmdEndRenderPass(commands);
    }

    static constexpr auto layout = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL;

private:
    VkDevice device_;
    VkExtent2D size_;
    VkRenderPass pass_ = VK_NULL_HANDLE;
    VkFramebuffer framebuffer_ = VK_NULL_HANDLE;
};

TEST_F(VulkanSystemTest, DrawsThroughAViewWithTheSrgbCurveOrWithout) {
    constexpr VkImageUsageFlags drawn =
        VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_SAMPLED_BIT;
    const auto fill = [&](const VulkanImage& target, VulkanCurve curve) {
        const auto view = target.unswizzled_view(curve);
        ASSERT_TRUE(view) << view.error().message();
        // Sampling has a view of its own.
        const auto sampled = target.view(curve);
        ASSERT_TRUE(sampled) << sampled.error().message();
        const VkFormat format =
            curve == VulkanCurve::srgb ? VK_FORMAT_B8G8R8A8_SRGB : target.format();
        const Fill grey(device(), *view, format, {16, 8});
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
        ASSERT_EQ(vkBeginCommandBuffer(commands, &begin), VK_SUCCESS);
        constexpr auto stage = VK_PIPELINE_STAGE_COLOR_ATTACHMENT_OUTPUT_BIT;
        constexpr auto access = VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT;
        const auto acquire = target.acquire_barrier(Contents::discard, Fill::layout, access);
        vkCmdPipelineBarrier(commands, stage, stage, 0, 0, nullptr, 0, nullptr, 1, &acquire);
        grey.record(commands, {.float32 = {0.5F, 0.5F, 0.5F, 1.0F}});
        const auto release = target.release_barrier(Fill::layout, access);
        vkCmdPipelineBarrier(commands, stage, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0, nullptr,
                             0, nullptr, 1, &release);
        ASSERT_EQ(vkEndCommandBuffer(commands), VK_SUCCESS);
        submit_and_finish();
    };
    for (const std::uint32_t format : {DRM_FORMAT_XRGB8888, DRM_FORMAT_ARGB8888}) {
        const auto made = gpu().export_image(
            {.width = 16, .height = 8, .format = format, .usage = drawn, .srgb_views = true});
        ASSERT_TRUE(made) << made.error().message();
        const auto attached = gpu().attach(made->frame(), {.usage = drawn, .srgb_views = true});
        ASSERT_TRUE(attached) << attached.error().message();
        for (const VulkanImage& target : {*made, *attached}) {
            fill(target, VulkanCurve::none);
            EXPECT_EQ(other_pixels(target.frame(), 0xff808080), 0U);
            fill(target, VulkanCurve::srgb);
            // 1.055 * 0.5 ^ (1 / 2.4) - 0.055 is 0.7354, of 255.
            EXPECT_EQ(other_pixels(target.frame(), 0xffbcbcbc), 0U);
        }
    }
}

TEST_F(VulkanSystemTest, TexturesComeAsTheDriverCanAndTellWhatTheirSamplersMayBe) {
    VkPhysicalDeviceVulkan11Features converts{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        .samplerYcbcrConversion = VK_TRUE};
    test::Validation other;
    const auto converting = other.create_context(&converts);
    SLUICE_REQUIRES(converting, converting.error().message());
    {
        VulkanDeviceInfo info = converting->device().info();
        info.sampler_ycbcr_conversion = true;
        const auto wrapped = VulkanDevice::wrap(info);
        ASSERT_TRUE(wrapped) << wrapped.error().message();
        const auto exporter = UdmabufExporter::open();
        SLUICE_REQUIRES(exporter, exporter.error().message());
        for (const std::uint32_t format :
             {DRM_FORMAT_NV12, DRM_FORMAT_YUYV, DRM_FORMAT_AYUV, DRM_FORMAT_XYUV8888,
              DRM_FORMAT_Y410, DRM_FORMAT_XRGB8888}) {
            SCOPED_TRACE(format_name(format));
            const auto frame = (*exporter)->allocate_frame(
                {.width = 64, .height = 16, .format = format, .height_alignment = 4});
            ASSERT_TRUE(frame) << frame.error().message();
            const auto texture = wrapped->texture(*frame, {});
            ASSERT_TRUE(texture) << texture.error().message();
            std::cout << format_name(format) << ": " << texture->parts() << " parts, "
                      << (texture->conversion() == VK_NULL_HANDLE ? "as it lies" : "converted")
                      << '\n';
            for (const VkFilter wanted : {VK_FILTER_NEAREST, VK_FILTER_LINEAR}) {
                const VkSamplerYcbcrConversionInfo with{
                    .sType = VK_STRUCTURE_TYPE_SAMPLER_YCBCR_CONVERSION_INFO,
                    .conversion = texture->conversion()};
                const VkFilter filter = texture->sampling().filter(wanted);
                const VkSamplerCreateInfo create{
                    .sType = VK_STRUCTURE_TYPE_SAMPLER_CREATE_INFO,
                    .pNext = texture->conversion() == VK_NULL_HANDLE ? nullptr : &with,
                    .magFilter = filter,
                    .minFilter = filter,
                    .addressModeU = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
                    .addressModeV = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE,
                    .addressModeW = VK_SAMPLER_ADDRESS_MODE_CLAMP_TO_EDGE};
                VkSampler sampler = VK_NULL_HANDLE;
                EXPECT_EQ(vkCreateSampler(info.device, &create, nullptr, &sampler), VK_SUCCESS);
                vkDestroySampler(info.device, sampler, nullptr);
            }
        }
    }
    other.stop();
    for (const std::string& each : other.messages())
        ADD_FAILURE() << each;
}

/// Without the validation layer, whose own allocations would be counted.
class VulkanCycleSystemTest : public VulkanSystemTest {
protected:
    void SetUp() override {
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
        set_up(VulkanContext::create({.get_instance_proc_addr = vkGetInstanceProcAddr}));
    }
};

TEST_F(VulkanCycleSystemTest, LeavesNothingOpenAndAllocatesNothing) {
    const VulkanImage target = image(16, 16);
    SwSync timeline;
    std::map<std::string, std::string> open;
    std::size_t allocated = 0;
    for (std::uint32_t i = 1; i <= 20; ++i) {
        const SyncFile before = timeline.fence(i);
        record_clear(target, orange);
        // lavapipe gives its fence away once the work is done, so somebody must let it begin.
        std::jthread signaller([&] {
            std::this_thread::sleep_for(5ms);
            timeline.advance(1);
        });
        const std::size_t so_far = test::allocations();
        auto done = submit({&before, 1});
        ASSERT_TRUE(done) << done.error().message();
        ASSERT_TRUE(target.frame().buffer().import_fence(*done, Access::write));
        ASSERT_TRUE(done->wait(deadline_in(patience)));
        if (i > 3) // warm
            allocated += test::allocations() - so_far;
        vkDeviceWaitIdle(device());
        signaller.join();
        done = SyncFile::signalled(); // closes the fence
        if (i == 3)
            open = test::open_fds();
    }
    EXPECT_EQ(test::open_fds().size() + 1, open.size()) << "the last fence to wait for is gone";
    EXPECT_EQ(allocated, 0U);
}

TEST_F(VulkanSystemTest, TheValidationLayerIsListenedTo) {
    // Not a test of sluice: that a real mistake would have been heard in the tests above.
    const VkFenceCreateInfo wrong{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO};
    VkFence fence = VK_NULL_HANDLE;
    vkCreateFence(device(), &wrong, nullptr, &fence);
    vkDestroyFence(device(), fence, nullptr);
    ASSERT_EQ(validation.messages().size(), 1U);
    EXPECT_NE(validation.messages()[0].find("VUID-VkFenceCreateInfo-sType-sType"),
              std::string::npos);
    validation.forget();
}

TEST_F(VulkanSystemTest, AFrameOutlivesItsImage) {
    std::optional<VulkanImage> target = image(16, 16);
    record_clear(*target, orange);
    submit_and_finish();
    const Frame frame = target->frame();
    target.reset();
    EXPECT_EQ(other_pixels(frame, orange_xr24), 0U);
}

class VulkanAttachSystemTest : public VulkanSystemTest {
protected:
    void SetUp() override {
        VulkanSystemTest::SetUp();
        if (!IsSkipped())
            SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
    }

    /// A frame in a buffer of somebody else's: the driver had no say in its layout.
    static Frame frame(std::uint32_t width, std::uint32_t height, std::uint32_t offset,
                       std::uint32_t stride, std::uint32_t spare_rows = 4) {
        auto made =
            Frame::create({.width = width,
                           .height = height,
                           .format = DRM_FORMAT_XRGB8888,
                           .planes = {FramePlane{.offset = offset, .stride = stride}}},
                          test::udmabuf(offset + std::uint64_t{stride} * (height + spare_rows)));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }

    VulkanImage attach(const Frame& frame, VkImageUsageFlags use) const {
        auto image = gpu().attach(frame, {.usage = use});
        EXPECT_TRUE(image) << image.error().message();
        return *image;
    }

    /// Records: take both over, copy all pixels, give them back.
    void record_copy(const VulkanImage& from, const VulkanImage& to) const {
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                             .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
        ASSERT_EQ(vkBeginCommandBuffer(commands, &begin), VK_SUCCESS);
        constexpr auto source = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL;
        constexpr auto target = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
        constexpr auto stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
        const std::array acquire{
            from.acquire_barrier(Contents::keep, source, VK_ACCESS_TRANSFER_READ_BIT),
            to.acquire_barrier(Contents::discard, target, VK_ACCESS_TRANSFER_WRITE_BIT)};
        vkCmdPipelineBarrier(commands, stage, stage, 0, 0, nullptr, 0, nullptr, 2, acquire.data());
        const VkImageSubresourceLayers all{VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1};
        const FrameLayout& size = from.frame().layout();
        const VkImageCopy copy{
            .srcSubresource = all, .dstSubresource = all, .extent = {size.width, size.height, 1}};
        vkCmdCopyImage(commands, from.image(), source, to.image(), target, 1, &copy);
        const std::array release{from.release_barrier(source, VK_ACCESS_TRANSFER_READ_BIT),
                                 to.release_barrier(target, VK_ACCESS_TRANSFER_WRITE_BIT)};
        vkCmdPipelineBarrier(commands, stage, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0, nullptr,
                             0, nullptr, 2, release.data());
        ASSERT_EQ(vkEndCommandBuffer(commands), VK_SUCCESS);
    }

    static std::byte pattern(std::size_t x, std::size_t y) {
        return static_cast<std::byte>(x * 7 + y * 31 + 1);
    }
    static void fill(const Frame& frame) {
        auto map = FrameMap::map(frame, Access::write);
        auto access = FrameAccess::begin(*map, Access::write, deadline_in(patience));
        ASSERT_TRUE(access) << access.error().message();
        const auto plane = access->plane();
        for (std::size_t y = 0; y < plane.rows; ++y)
            for (std::size_t x = 0; x < plane.row_bytes; ++x)
                plane.row(y)[x] = pattern(x, y);
        ASSERT_TRUE(access->end());
    }
    static std::size_t wrong_bytes(const Frame& frame) {
        auto map = FrameMap::map(frame, Access::read);
        auto access = FrameAccess::begin(*map, Access::read, deadline_in(patience));
        EXPECT_TRUE(access) << access.error().message();
        const auto plane = access->plane();
        std::size_t wrong = 0;
        for (std::size_t y = 0; y < plane.rows; ++y)
            for (std::size_t x = 0; x < plane.row_bytes; ++x)
                wrong += plane.row(y)[x] != pattern(x, y) ? 1U : 0U;
        return wrong;
    }
};

TEST_F(VulkanAttachSystemTest, TheGpuCopiesWhatTheCpuWroteByteForByte) {
    struct Case {
        std::uint32_t width, height, offset, stride;
    };
    for (const auto& [width, height, offset, stride] :
         {Case{64, 64, 0, 256}, Case{33, 7, 0, 192}, Case{1, 1, 0, 64}, Case{64, 16, 4096, 256},
          Case{60, 5, 128, 1024}}) {
        SCOPED_TRACE(std::to_string(width) + "x" + std::to_string(height) + " at " +
                     std::to_string(offset) + ", stride " + std::to_string(stride));
        const Frame source = frame(width, height, offset, stride);
        const Frame target = frame(width, height, 0, 4096);
        fill(source);
        EXPECT_GT(wrong_bytes(target), 0U);
        const VulkanImage from = attach(source, VK_IMAGE_USAGE_TRANSFER_SRC_BIT);
        const VulkanImage to = attach(target, VK_IMAGE_USAGE_TRANSFER_DST_BIT);
        record_copy(from, to);
        submit_and_finish();
        EXPECT_EQ(wrong_bytes(target), 0U);
        EXPECT_EQ(wrong_bytes(source), 0U) << "the source is as it was";
    }
}

TEST_F(VulkanAttachSystemTest, ABufferThatIsTooSmallForTheDriverIsRefusedInNumbers) {
    // lavapipe pads to four rows.
    const std::uint32_t offset = 4096;
    auto tight = Frame::create({.width = 1024,
                                .height = 1,
                                .format = DRM_FORMAT_XRGB8888,
                                .planes = {FramePlane{.offset = offset, .stride = 4096}}},
                               test::udmabuf(offset + 4096));
    ASSERT_TRUE(tight);
    auto image = gpu().attach(*tight, {.usage = VK_IMAGE_USAGE_TRANSFER_SRC_BIT});
    if (image) // a driver that needs no more than the pixels
        return;
    EXPECT_EQ(image.error().code, Errc::out_of_bounds) << image.error().message();
    EXPECT_NE(image.error().message().find("holds 8192"), std::string::npos);
}

TEST_F(VulkanAttachSystemTest, AttachingLeavesNoFdBehind) {
    const Frame source = frame(64, 64, 0, 256);
    { const VulkanImage first = attach(source, VK_IMAGE_USAGE_TRANSFER_SRC_BIT); }
    const auto before = test::open_fds();
    for (int i = 0; i < 20; ++i) {
        const VulkanImage again = attach(source, VK_IMAGE_USAGE_TRANSFER_SRC_BIT);
        EXPECT_FALSE(gpu().attach(source, {.usage = 0}));
    }
    EXPECT_EQ(test::open_fds(), before);
}

} // namespace
} // namespace sluice
