// SPDX-License-Identifier: MIT
// The bracket around the GPU's use of a frame, with fences that the kernel really keeps.
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include <drm.h>
#include <drm_fourcc.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <sluice/dumb.hpp>
#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>
#include <sluice/kms_presenter.hpp>
#include <sluice/vulkan_access.hpp>
#include <sluice/vulkan_context.hpp>
#include <sluice/vulkan_image.hpp>

#include "support/allocations.hpp"
#include "support/counting_vulkan.hpp"
#include "support/drm_cards.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/udmabuf.hpp"
#include "support/vkms.hpp"
#include "support/vulkan_under_validation.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::SwSync;

constexpr auto patience = 10s;
constexpr VkImageUsageFlags usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT;

/// An application with a queue and command buffers of its own, and one frame that it clears.
class VulkanAccessSystemTest : public ::testing::Test {
protected:
    void SetUp() override {
        SLUICE_REQUIRES(test::Validation::available(),
                        "VK_LAYER_KHRONOS_validation is not installed");
        VkPhysicalDeviceVulkan12Features features{};
        features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES;
        features.timelineSemaphore = VK_TRUE;
        set_up(validation_.create_context(&features));
    }

    void set_up(Result<VulkanContext> created) {
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
        SLUICE_REQUIRES(created, created.error().message());
        context_.emplace(std::move(*created));
        const VkCommandPoolCreateInfo pool{.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                           .queueFamilyIndex = gpu().info().queue_family};
        ASSERT_EQ(vkCreateCommandPool(device(), &pool, nullptr, &pool_), VK_SUCCESS);
        const VkCommandBufferAllocateInfo allocate{
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = pool_,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1};
        ASSERT_EQ(vkAllocateCommandBuffers(device(), &allocate, &commands_), VK_SUCCESS);
        auto frame = Frame::create({.width = 16,
                                    .height = 16,
                                    .format = DRM_FORMAT_XRGB8888,
                                    .planes = {FramePlane{.stride = 64}}},
                                   test::udmabuf(4096));
        ASSERT_TRUE(frame) << frame.error().message();
        auto image = gpu().attach(*frame, {.usage = usage});
        ASSERT_TRUE(image) << image.error().message();
        image_.emplace(*image);
        record();
    }

    void TearDown() override {
        if (context_) {
            vkDeviceWaitIdle(device());
            vkDestroyCommandPool(device(), pool_, nullptr);
            validation_.stop();
        }
        for (const std::string& each : validation_.messages())
            ADD_FAILURE() << each;
    }

    [[nodiscard]] const VulkanDevice& gpu() const { return context_->device(); }
    [[nodiscard]] VkDevice device() const { return gpu().info().device; }
    [[nodiscard]] const Frame& frame() const { return image_->frame(); }
    [[nodiscard]] const DmaBuf& buffer() const { return frame().buffer(); }

    /// Commands, to be submitted as often as one likes, that make the frame white.
    void record() const {
        const VkCommandBufferBeginInfo begin{.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
        ASSERT_EQ(vkBeginCommandBuffer(commands_, &begin), VK_SUCCESS);
        constexpr auto layout = VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL;
        constexpr auto access = VK_ACCESS_TRANSFER_WRITE_BIT;
        constexpr auto stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
        const auto acquire = image_->acquire_barrier(Contents::discard, layout, access);
        vkCmdPipelineBarrier(commands_, stage, stage, 0, 0, nullptr, 0, nullptr, 1, &acquire);
        const VkImageSubresourceRange all{VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
        const VkClearColorValue white{.float32 = {1.0F, 1.0F, 1.0F, 1.0F}};
        vkCmdClearColorImage(commands_, image_->image(), layout, &white, 1, &all);
        const auto release = image_->release_barrier(layout, access);
        vkCmdPipelineBarrier(commands_, stage, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, 0, 0, nullptr,
                             0, nullptr, 1, &release);
        ASSERT_EQ(vkEndCommandBuffer(commands_), VK_SUCCESS);
    }

    /// How many bytes of the first pixels the GPU has made white. It looks past the fences: a
    /// bracket would wait for the very ones that are tested.
    static std::size_t white_bytes(const DmaBuf& buffer) {
        void* memory = mmap(nullptr, 1024, PROT_READ, MAP_SHARED, buffer.fd(), 0);
        EXPECT_NE(memory, MAP_FAILED);
        std::size_t white = 0;
        for (std::size_t i = 0; i < 1024; ++i)
            white += static_cast<const volatile unsigned char*>(memory)[i] == 0xff ? 1U : 0U;
        munmap(memory, 1024);
        return white;
    }
    [[nodiscard]] std::size_t white_bytes() const { return white_bytes(buffer()); }
    static constexpr std::size_t all_white = 1024;

    [[nodiscard]] VulkanAccess begin(Access access = Access::write) const {
        const std::array uses{VulkanUse{.attachment = &*image_, .access = access}};
        auto begun = gpu().begin_access(uses, deadline_in(patience));
        EXPECT_TRUE(begun) << begun.error().message();
        return std::move(*begun);
    }

    /// The application's own submission.
    void submit(std::span<const VkSemaphore> waits, VkSemaphore signal) const {
        const std::vector<VkPipelineStageFlags> stages(waits.size(),
                                                       VK_PIPELINE_STAGE_TRANSFER_BIT);
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                .waitSemaphoreCount = static_cast<std::uint32_t>(waits.size()),
                                .pWaitSemaphores = waits.data(),
                                .pWaitDstStageMask = stages.data(),
                                .commandBufferCount = 1,
                                .pCommandBuffers = &commands_,
                                .signalSemaphoreCount = signal != VK_NULL_HANDLE ? 1U : 0U,
                                .pSignalSemaphores = &signal};
        ASSERT_EQ(vkQueueSubmit(gpu().info().queue, 1, &info, VK_NULL_HANDLE), VK_SUCCESS);
    }
    void submit(const VulkanAccess& access) const {
        submit(access.wait_semaphores(), access.signal_semaphore());
    }
    static void end(VulkanAccess& access) {
        const auto ended = access.end(deadline_in(patience));
        ASSERT_TRUE(ended) << ended.error().message();
        const auto waited = access.wait(deadline_in(patience));
        ASSERT_TRUE(waited) << waited.error().message();
    }
    void leave(const SyncFile& fence, Access access) const {
        const auto left = buffer().import_fence(fence, access);
        ASSERT_TRUE(left) << left.error().message();
    }

    test::Validation validation_;
    std::optional<VulkanContext> context_;
    VkCommandPool pool_ = VK_NULL_HANDLE;
    VkCommandBuffer commands_ = VK_NULL_HANDLE;
    std::optional<VulkanImage> image_;
};

TEST_F(VulkanAccessSystemTest, APendingFenceHoldsTheGpuAndNotTheThreadThatSubmits) {
    for (const Access left : {Access::read, Access::write}) {
        SwSync timeline;
        const SyncFile before = timeline.fence(1);
        leave(before, left);
        VulkanAccess access = begin();
        ASSERT_EQ(access.wait_semaphores().size(), 1U);
        submit(access);
        EXPECT_EQ(before.status()->state, FenceState::pending) << "nobody waited";
        timeline.advance(1);
        end(access);
        vkDeviceWaitIdle(device());
    }
    EXPECT_EQ(white_bytes(), all_white);
}

TEST_F(VulkanAccessSystemTest, TheGpuTouchesNothingBeforeTheFenceSignals) {
    SwSync timeline;
    leave(timeline.fence(1), Access::read);
    VulkanAccess access = begin();
    submit(access);
    std::this_thread::sleep_for(300ms);
    EXPECT_EQ(white_bytes(), 0U);
    timeline.advance(1);
    end(access);
    EXPECT_EQ(white_bytes(), all_white);
}

/// A fence that vgem, a driver without a device, leaves in a buffer of its own.
class VgemFence {
public:
    // drm/vgem_drm.h, which distributions do not install.
    struct Attach {
        std::uint32_t handle, flags, fence, pad;
    };
    struct Signal {
        std::uint32_t fence, flags;
    };
    static constexpr std::uint32_t write = 1;

    VgemFence(int card, const DmaBuf& buffer) : card_(card) {
        drm_prime_handle import{.handle = 0, .flags = 0, .fd = buffer.fd()};
        EXPECT_EQ(ioctl(card, DRM_IOCTL_PRIME_FD_TO_HANDLE, &import), 0);
        handle_ = import.handle;
        Attach attach{.handle = handle_, .flags = write, .fence = 0, .pad = 0};
        EXPECT_EQ(ioctl(card, DRM_IOWR(DRM_COMMAND_BASE + 1, Attach), &attach), 0);
        fence_ = attach.fence;
    }
    VgemFence(const VgemFence&) = delete;
    VgemFence& operator=(const VgemFence&) = delete;
    ~VgemFence() {
        drm_gem_close close{.handle = handle_, .pad = 0};
        ioctl(card_, DRM_IOCTL_GEM_CLOSE, &close);
    }

    void signal() const {
        Signal signal{.fence = fence_, .flags = 0};
        EXPECT_EQ(ioctl(card_, DRM_IOW(DRM_COMMAND_BASE + 2, Signal), &signal), 0);
    }

private:
    int card_;
    std::uint32_t handle_ = 0, fence_ = 0;
};

TEST_F(VulkanAccessSystemTest, AFenceOfAnotherDriverHoldsTheGpuToo) {
    const UniqueFd card = test::open_drm("vgem");
    SLUICE_REQUIRES(card, "no vgem card");
    const auto exporter = DumbExporter::wrap(card.get());
    ASSERT_TRUE(exporter) << exporter.error().message();
    const auto made =
        (*exporter)->allocate_frame({.width = 16, .height = 16, .format = DRM_FORMAT_XRGB8888});
    ASSERT_TRUE(made) << made.error().message();
    ASSERT_EQ(made->layout().planes[0].stride, 64U);
    auto image = gpu().attach(*made, {.usage = usage});
    ASSERT_TRUE(image) << image.error().message();
    image_.emplace(*image);
    ASSERT_EQ(vkResetCommandPool(device(), pool_, 0), VK_SUCCESS);
    record();

    const VgemFence before(card.get(), buffer());
    VulkanAccess access = begin();
    ASSERT_EQ(access.wait_semaphores().size(), 1U);
    submit(access);
    std::this_thread::sleep_for(100ms);
    EXPECT_LT(white_bytes(), all_white);
    before.signal();
    end(access);
    EXPECT_EQ(white_bytes(), all_white);
}

TEST_F(VulkanAccessSystemTest, AFrameOnAScreenIsDrawnIntoOnceItHasLeft) {
    const UniqueFd file = test::open_drm("vkms");
    SLUICE_REQUIRES(file, "no vkms card");
    const KmsDevice card = *KmsDevice::wrap(file.get());
    auto screen = KmsPresenter::create(*card.find_output({.width = 640, .height = 480}));
    ASSERT_TRUE(screen) << screen.error().message();
    const KmsFramebuffer below = *card.attach(test::make_frame(640, 480));
    const KmsFramebuffer small = *card.attach(frame());
    const std::array both{KmsLayer{.framebuffer = &below}, KmsLayer{.framebuffer = &small}};
    for (const bool by_its_buffer : {true, false}) {
        test::paint(frame(), 0);
        const std::size_t before = white_bytes();
        ASSERT_LT(before, all_white);
        ASSERT_TRUE(screen->present({.layers = both}, {.id = 1}, deadline_in(patience)));
        ASSERT_TRUE(screen->finish(deadline_in(patience)));
        SwSync timeline; // the flip that takes it off is slow
        const SyncFile slow = timeline.fence(1);
        ASSERT_TRUE(screen->present(
            {.framebuffer = &below, .in_fence = &slow, .fence_leaving = by_its_buffer}, {},
            deadline_in(patience)));
        std::shared_ptr<const SyncFile> left;
        while (auto event = screen->event())
            if (event->kind == KmsPresentEvent::Kind::left && event->id == 1)
                left = event->fence;
        ASSERT_TRUE(left);

        const std::array uses{VulkanUse{.attachment = &*image_, .access = Access::write}};
        auto access = by_its_buffer
                          ? gpu().begin_access(uses, deadline_in(patience))
                          : gpu().begin_access(uses, deadline_in(patience), {left.get(), 1});
        ASSERT_TRUE(access) << access.error().message();
        EXPECT_EQ(access->wait_semaphores().size(), 1U);
        submit(*access);
        std::this_thread::sleep_for(200ms);
        EXPECT_EQ(white_bytes(), before) << "it was drawn into while it was shown";
        timeline.advance(1);
        end(*access);
        EXPECT_EQ(white_bytes(), all_white);
        EXPECT_EQ(left->status()->state, FenceState::signalled);
        ASSERT_TRUE(screen->finish(deadline_in(patience)));
        vkDeviceWaitIdle(device());
    }
}

TEST_F(VulkanAccessSystemTest, ReadersWaitForWritersAndWritersForAll) {
    for (const auto& [left, begun, waits] :
         {std::tuple(Access::read, Access::read, 0U), std::tuple(Access::read, Access::write, 1U),
          std::tuple(Access::write, Access::read, 1U), std::tuple(Access::write, Access::write, 1U),
          std::tuple(Access::read, Access::read_write, 1U)}) {
        SwSync timeline;
        leave(timeline.fence(1), left);
        const VulkanAccess access = begin(begun);
        EXPECT_EQ(access.wait_semaphores().size(), waits);
        timeline.advance(1);
    }
}

TEST_F(VulkanAccessSystemTest, AFailureOfWhatItWaitedForReachesTheCaller) {
    SwSync timeline;
    leave(timeline.fence(1), Access::write);
    VulkanAccess access = begin();
    submit(access);
    timeline.close(); // its fences fail
    const auto ended = access.end(deadline_in(patience));
    ASSERT_TRUE(ended) << ended.error().message();
    const auto waited = access.wait(deadline_in(patience));
    ASSERT_FALSE(waited);
    EXPECT_EQ(waited.error().code, Errc::fence_failed) << waited.error().message();
    vkDeviceWaitIdle(device());
}

TEST_F(VulkanAccessSystemTest, ATimelineIsReachedAndLeftByAHop) {
    const VkSemaphoreTypeCreateInfo type{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                         .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    const VkSemaphoreCreateInfo create{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                       .pNext = &type};
    VkSemaphore timeline = VK_NULL_HANDLE;
    ASSERT_EQ(vkCreateSemaphore(device(), &create, nullptr, &timeline), VK_SUCCESS);
    SwSync before;
    for (const std::uint64_t round : {0U, 1U, 2U}) {
        leave(before.fence(static_cast<std::uint32_t>(round + 1)), Access::write);
        VulkanAccess access = begin();
        ASSERT_EQ(access.wait_semaphores().size(), 1U);
        const auto hopped = access.wait_on_timeline(timeline, 2 * round + 1);
        ASSERT_TRUE(hopped) << hopped.error().message();
        const std::uint64_t waits = 2 * round + 1;
        const std::uint64_t signals = 2 * round + 2;
        const VkTimelineSemaphoreSubmitInfo values{
            .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
            .waitSemaphoreValueCount = 1,
            .pWaitSemaphoreValues = &waits,
            .signalSemaphoreValueCount = 1,
            .pSignalSemaphoreValues = &signals};
        const VkPipelineStageFlags stage = VK_PIPELINE_STAGE_TRANSFER_BIT;
        const VkSubmitInfo info{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                .pNext = &values,
                                .waitSemaphoreCount = 1,
                                .pWaitSemaphores = &timeline,
                                .pWaitDstStageMask = &stage,
                                .commandBufferCount = 1,
                                .pCommandBuffers = &commands_,
                                .signalSemaphoreCount = 1,
                                .pSignalSemaphores = &timeline};
        ASSERT_EQ(vkQueueSubmit(gpu().info().queue, 1, &info, VK_NULL_HANDLE), VK_SUCCESS);
        std::uint64_t value = 0;
        vkGetSemaphoreCounterValue(device(), timeline, &value);
        EXPECT_EQ(value, 2 * round) << "the fence holds the timeline";
        before.advance(1);
        const auto ended = access.end_after_timeline(timeline, signals, deadline_in(patience));
        ASSERT_TRUE(ended) << ended.error().message();
        ASSERT_TRUE(access.wait(deadline_in(patience)));
        vkDeviceWaitIdle(device());
    }
    EXPECT_EQ(white_bytes(), all_white);
    vkDestroySemaphore(device(), timeline, nullptr);
}

TEST_F(VulkanAccessSystemTest, WithoutSyncFdTheCpuWaits) {
    constexpr std::array extensions{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                    VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME,
                                    VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME};
    VulkanDeviceInfo info = gpu().info();
    info.extensions = extensions;
    auto without = VulkanDevice::wrap(info);
    ASSERT_TRUE(without) << without.error().message();
    SwSync timeline;
    leave(timeline.fence(1), Access::read);
    const std::array uses{VulkanUse{.attachment = &*image_, .access = Access::write}};
    const auto refused = without->begin_access(uses, deadline_in(10ms));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::timed_out) << refused.error().message();
    timeline.advance(1);
    auto access = without->begin_access(uses, deadline_in(patience));
    ASSERT_TRUE(access) << access.error().message();
    submit(*access);
    end(*access);
    EXPECT_EQ(white_bytes(), all_white) << "the GPU is done";
}

TEST_F(VulkanAccessSystemTest, WithoutModifiersALinearFrameIsTakenWhereItLiesAsTheDriverWants) {
    constexpr std::array extensions{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                    VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                    VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME};
    VulkanDeviceInfo info = gpu().info();
    info.extensions = extensions;
    auto without = VulkanDevice::wrap(info);
    ASSERT_TRUE(without) << without.error().message();
    auto image = without->attach(frame(), {.usage = usage});
    ASSERT_TRUE(image) << image.error().message();
    image_.emplace(*image);
    ASSERT_EQ(vkResetCommandPool(device(), pool_, 0), VK_SUCCESS);
    record(); // with barriers from and to VK_QUEUE_FAMILY_EXTERNAL
    const std::array uses{VulkanUse{.attachment = &*image_, .access = Access::write}};
    auto done = without->submit({.command_buffers = {&commands_, 1}, .uses = uses});
    ASSERT_TRUE(done) << done.error().message();
    ASSERT_TRUE(done->wait(deadline_in(patience)));
    vkDeviceWaitIdle(device());
    EXPECT_EQ(white_bytes(), all_white);

    auto wide = Frame::create({.width = 16,
                               .height = 16,
                               .format = DRM_FORMAT_XRGB8888,
                               .planes = {FramePlane{.stride = 192}}},
                              test::udmabuf(4096));
    ASSERT_TRUE(wide);
    const auto refused = without->attach(*wide, {.usage = usage});
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("stride 64"), std::string::npos)
        << refused.error().message();
}

TEST_F(VulkanAccessSystemTest, AFrameIsRevokedOnceTheGpuIsDoneWithIt) {
    SwSync timeline;
    leave(timeline.fence(1), Access::write);
    VulkanAccess access = begin();
    submit(access);
    const Frame revoked = frame();
    EXPECT_EQ(revoked.revoke(deadline_in(10ms)).error().code, Errc::timed_out);
    timeline.advance(1);
    end(access);
    vkDeviceWaitIdle(device());
    const auto done = revoked.revoke(deadline_in(patience));
    ASSERT_TRUE(done) << done.error().message();
    EXPECT_EQ(white_bytes(), all_white) << "what was accepted was drawn";
    const std::array uses{VulkanUse{.attachment = &*image_}};
    EXPECT_EQ(gpu().begin_access(uses, deadline_in(0s)).error().code, Errc::revoked);
}

/// Frames that replace each other under a pipeline of a producer, the GPU, that never stops.
TEST_F(VulkanAccessSystemTest, AResizeUnderARunningPipelineLosesNoFrame) {
    constexpr int rounds = 60;
    constexpr int between = 7; // accesses from one resize to the next
    int drawn = 0;
    int resized = 0;
    std::vector<Frame> old;
    std::uint32_t side = 16;
    const auto make = [&] {
        auto made = Frame::create({.width = side,
                                   .height = side,
                                   .format = DRM_FORMAT_XRGB8888,
                                   .planes = {FramePlane{.stride = 256}}},
                                  test::udmabuf(65536));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    };
    Frame current = make();
    for (int round = 0; round < rounds; ++round) {
        if (round % between == between - 1) {
            // The owner takes the old size away while the GPU may be at work on it.
            const Frame previous = std::exchange(current, (side = 16 + side % 40, make()));
            const auto done = previous.revoke(deadline_in(patience));
            ASSERT_TRUE(done) << done.error().message();
            EXPECT_EQ(gpu().attach(previous, {.usage = usage}).error().code, Errc::revoked);
            ++resized;
        }
        auto image = gpu().attach(current, {.usage = usage});
        ASSERT_TRUE(image) << image.error().message();
        vkDeviceWaitIdle(device()); // one command buffer for all
        ASSERT_EQ(vkResetCommandPool(device(), pool_, 0), VK_SUCCESS);
        image_.emplace(*image);
        record();
        const std::array uses{VulkanUse{.attachment = &*image_, .access = Access::write}};
        auto done = gpu().submit({.command_buffers = {&commands_, 1}, .uses = uses});
        ASSERT_TRUE(done) << done.error().message();
        ASSERT_TRUE(done->wait(deadline_in(patience)));
        drawn += white_bytes(current.buffer()) > 0 ? 1 : 0;
    }
    EXPECT_EQ(drawn, rounds) << "every frame that was accepted was drawn";
    EXPECT_EQ(resized, rounds / between);
    vkDeviceWaitIdle(device());
}

/// Without the validation layer, whose own allocations would be counted.
class VulkanAccessCycleSystemTest : public VulkanAccessSystemTest {
protected:
    void SetUp() override {
        set_up(VulkanContext::create({.get_instance_proc_addr = vkGetInstanceProcAddr}));
    }
};

TEST_F(VulkanAccessCycleSystemTest, AWarmCycleAllocatesNothingAndLeavesNothingOpen) {
    std::size_t allocated = 0;
    std::size_t open = 0;
    constexpr int warm_up = 5;
    for (int round = 0; round < 50; ++round) {
        const std::size_t before = test::allocations();
        auto image = gpu().attach(frame(), {.usage = usage});
        const std::array uses{VulkanUse{.attachment = &*image, .access = Access::write}};
        auto access = gpu().begin_access(uses, deadline_in(patience));
        ASSERT_TRUE(access) << access.error().message();
        const std::size_t begun = test::allocations() - before;
        submit(*access); // the application's
        const std::size_t submitted = test::allocations();
        const auto ended = access->end(deadline_in(patience));
        ASSERT_TRUE(ended) << ended.error().message();
        ASSERT_TRUE(access->wait(deadline_in(patience)));
        if (round >= warm_up)
            allocated += begun + test::allocations() - submitted;
        if (round == warm_up)
            open = test::open_fds().size();
        vkDeviceWaitIdle(device());
    }
    EXPECT_EQ(allocated, 0U);
    EXPECT_LE(test::open_fds().size(), open);
}

/// With the calls between sluice and the driver counted.
class VulkanAccessCountSystemTest : public VulkanAccessSystemTest {
protected:
    void SetUp() override {
        set_up(VulkanContext::create(
            {.get_instance_proc_addr = test::CountingVulkan::get_instance_proc_addr}));
    }
};

TEST_F(VulkanAccessCountSystemTest, AfterTheFirstRoundAPoolIsNeitherImportedNorAnythingCreated) {
    struct Member {
        std::optional<Frame> frame;
        VkCommandBuffer commands = VK_NULL_HANDLE;
        std::optional<VulkanAccess> last; // the submission that used it
    };
    std::array<Member, 3> pool;
    const SwSync before; // who used the frame before, still at it
    std::uint32_t steps = 0;
    std::map<std::string, int> first_round;
    constexpr int frames = 300;
    for (int i = 0; i < frames; ++i) {
        Member& member = pool[static_cast<std::size_t>(i) % pool.size()];
        if (member.last) {
            ASSERT_TRUE(member.last->wait(deadline_in(patience)));
            member.last.reset();
        }
        if (!member.frame)
            member.frame = *Frame::create(frame().layout(), test::udmabuf(4096));
        const auto image = gpu().attach(*member.frame, {.usage = usage});
        ASSERT_TRUE(image) << image.error().message();
        image_.emplace(*image);
        if (member.commands == VK_NULL_HANDLE) {
            const VkCommandBufferAllocateInfo allocate{
                .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                .commandPool = pool_,
                .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                .commandBufferCount = 1};
            ASSERT_EQ(vkAllocateCommandBuffers(device(), &allocate, &commands_), VK_SUCCESS);
            record();
            member.commands = commands_;
        }
        commands_ = member.commands;
        leave(before.fence(++steps), Access::write);
        member.last = begin();
        EXPECT_EQ(member.last->wait_semaphores().size(), 1U);
        submit(*member.last);
        before.advance(1); // lavapipe gives a fence once the work is done, and waits for that
        const auto ended = member.last->end(deadline_in(patience));
        ASSERT_TRUE(ended) << ended.error().message();
        if (i + 1 == static_cast<int>(pool.size()))
            first_round = test::CountingVulkan::calls();
    }
    for (Member& each : pool)
        ASSERT_TRUE(each.last->wait(deadline_in(patience)));
    EXPECT_GE(first_round["vkCreateImage"], 3);
    EXPECT_GE(first_round["vkAllocateMemory"], 3);
    EXPECT_GE(first_round["vkCreateSemaphore"], 6) << "one to wait for and one to signal each";
    for (const auto& [name, calls] : test::CountingVulkan::calls()) {
        // A semaphore's payload is taken over by each wait, and by each fd that it gives.
        const bool each_frame = name == "vkImportSemaphoreFdKHR" || name == "vkGetSemaphoreFdKHR";
        const int rest = frames - static_cast<int>(pool.size());
        EXPECT_EQ(calls, first_round[name] + (each_frame ? rest : 0)) << name;
        if (each_frame) {
            EXPECT_EQ(first_round[name], static_cast<int>(pool.size())) << name;
        }
    }
    for (const Member& each : pool)
        EXPECT_EQ(white_bytes(each.frame->buffer()), all_white);
    vkDeviceWaitIdle(device());
}

} // namespace
} // namespace sluice
