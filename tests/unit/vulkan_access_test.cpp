// SPDX-License-Identifier: MIT
#include <sluice/vulkan_access.hpp>

#include <algorithm>
#include <array>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include <drm_fourcc.h>

#include <sluice/vulkan_image.hpp>

#include "core/probe.hpp"
#include "support/fake_reservations.hpp"
#include "support/fake_vulkan.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::FakeReservations;
using test::FakeVulkan;
using Kinds = std::multiset<std::string>;
using Words = std::vector<std::string>;

class VulkanAccessTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        probe::forget();
        libc_.memfds_are_dma_bufs();
        test::fake_sync_files(libc_);
        buffers_.set_up(libc_);
        driver_.exported_fence_status = 1;
    }
    void TearDown() override {
        probe::forget();
        FdTest::TearDown();
    }

    VulkanDevice wrap(std::span<const char* const> extensions = {}) {
        application_ = driver_.application();
        application_.extensions = extensions;
        auto device = VulkanDevice::wrap(application_);
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }
    static Frame frame() {
        auto made = Frame::create({.width = 64,
                                   .height = 16,
                                   .format = DRM_FORMAT_XRGB8888,
                                   .planes = {FramePlane{.stride = 256}}},
                                  std::move(*DmaBuf::from_fd(test::memfd(8192))));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }
    static VulkanImage attach(const VulkanDevice& device, const Frame& of) {
        auto image = device.attach(of, {.usage = VK_IMAGE_USAGE_SAMPLED_BIT});
        EXPECT_TRUE(image) << image.error().message();
        return std::move(*image);
    }
    static ino_t inode(const VulkanImage& image) {
        return test::inode_of(image.frame().buffer().fd());
    }

    static VulkanAccess begin(const VulkanDevice& device, std::span<const VulkanUse> uses) {
        auto access = device.begin_access(uses, deadline_in(1s));
        EXPECT_TRUE(access) << access.error().message();
        return std::move(*access);
    }
    static VulkanAccess begin(const VulkanDevice& device, const VulkanImage& image,
                              Access access = Access::read_write) {
        const std::array uses{VulkanUse{.attachment = &image, .access = access}};
        return begin(device, uses);
    }
    /// What the application does between begin and end.
    void submit(const VulkanAccess& access, bool signals = true) {
        const auto waits = access.wait_semaphores();
        const std::vector<VkPipelineStageFlags> stages(waits.size(),
                                                       VK_PIPELINE_STAGE_TRANSFER_BIT);
        const VkSemaphore signal = access.signal_semaphore();
        VkSubmitInfo info{};
        info.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO;
        info.waitSemaphoreCount = static_cast<std::uint32_t>(waits.size());
        info.pWaitSemaphores = waits.data();
        info.pWaitDstStageMask = stages.data();
        info.signalSemaphoreCount = signals && signal != VK_NULL_HANDLE ? 1 : 0;
        info.pSignalSemaphores = &signal;
        const auto queue_submit = reinterpret_cast<PFN_vkQueueSubmit>(
            FakeVulkan::get_instance_proc_addr(application_.instance, "vkQueueSubmit"));
        EXPECT_EQ(queue_submit(application_.queue, 1, &info, VK_NULL_HANDLE), VK_SUCCESS);
    }
    static void end(VulkanAccess& access) {
        const auto ended = access.end(deadline_in(1s));
        EXPECT_TRUE(ended) << ended.error().message();
    }

    template <typename T>
    static void expect_refused(const Result<T>& result, Errc code, const Words& words = {}) {
        ASSERT_FALSE(result);
        EXPECT_EQ(to_string(result.error().code), to_string(code)) << result.error().message();
        for (const std::string& word : words)
            EXPECT_NE(result.error().message().find(word), std::string::npos)
                << word << " in " << result.error().message();
        EXPECT_FALSE(result.error().remedy.empty());
    }

    test::ScriptedLibc libc_;
    FakeReservations buffers_;
    FakeVulkan driver_;
    VulkanDeviceInfo application_;
};

TEST_F(VulkanAccessTest, WaitsForWhatTheBuffersSayAndLeavesTheGpusFenceInThem) {
    const VulkanDevice device = wrap();
    const VulkanImage source = attach(device, frame());
    const VulkanImage target = attach(device, frame());
    buffers_.status[inode(source)] = 0;
    const std::array uses{VulkanUse{.attachment = &source, .access = Access::read},
                          VulkanUse{.attachment = &target, .access = Access::write}};
    VulkanAccess access = begin(device, uses);
    EXPECT_EQ(buffers_.asked,
              (std::vector<std::pair<ino_t, std::uint32_t>>{{inode(source), DMA_BUF_SYNC_READ},
                                                            {inode(target), DMA_BUF_SYNC_WRITE}}));
    ASSERT_EQ(access.wait_semaphores().size(), 1U) << "the other fence has signalled";
    ASSERT_NE(access.signal_semaphore(), VK_NULL_HANDLE);
    EXPECT_TRUE(buffers_.left.empty());
    submit(access);
    EXPECT_EQ(driver_.submissions[0].waits_for, std::vector{buffers_.given[0]});

    end(access);
    ASSERT_GE(access.fence().fd(), 0);
    const ino_t done = test::inode_of(access.fence().fd());
    EXPECT_EQ(buffers_.left,
              (std::vector<FakeReservations::Left>{{inode(source), DMA_BUF_SYNC_READ, done},
                                                   {inode(target), DMA_BUF_SYNC_WRITE, done}}));
    EXPECT_TRUE(access.end(deadline_in(0s))) << "it has ended";
    EXPECT_EQ(buffers_.left.size(), 2U);
}

TEST_F(VulkanAccessTest, ABufferThatIsUsedTwiceIsHandedOverOnce) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    const VulkanImage again = image;
    for (const auto& [first, second, flags] :
         {std::tuple(Access::read, Access::read, DMA_BUF_SYNC_READ),
          std::tuple(Access::read, Access::write, DMA_BUF_SYNC_RW),
          std::tuple(Access::write, Access::write, DMA_BUF_SYNC_WRITE)}) {
        buffers_.asked.clear();
        buffers_.left.clear();
        const std::array uses{VulkanUse{.attachment = &image, .access = first},
                              VulkanUse{.attachment = &again, .access = second}};
        VulkanAccess access = begin(device, uses);
        submit(access);
        end(access);
        ASSERT_EQ(buffers_.asked.size(), 1U);
        EXPECT_EQ(buffers_.asked[0].second, static_cast<std::uint32_t>(flags));
        ASSERT_EQ(buffers_.left.size(), 1U);
        EXPECT_EQ(buffers_.left[0].flags, static_cast<std::uint32_t>(flags));
    }
}

TEST_F(VulkanAccessTest, AFailedFenceReachesTheCallerBeforeAndAfter) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    const std::array uses{VulkanUse{.attachment = &image}};
    buffers_.status[inode(image)] = -EIO;
    expect_refused(device.begin_access(uses, deadline_in(1s)), Errc::fence_failed,
                   {"EIO", "nothing was submitted"});

    buffers_.status[inode(image)] = 0;
    UniqueFd input; // the fence that the buffer gives out, as its producer holds it
    libc_.ioctl = [&input, others = libc_.ioctl](int fd, unsigned long request, void* argument) {
        const int result = others(fd, request, argument);
        if (request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE)
            input = std::move(
                *UniqueFd::duplicate(static_cast<dma_buf_export_sync_file*>(argument)->fd));
        return result;
    };
    VulkanAccess access = begin(device, image);
    submit(access);
    end(access);
    test::set_fake_status(input.get(), -ETIMEDOUT);
    expect_refused(access.wait(deadline_in(0s)), Errc::fence_failed, {"ETIMEDOUT"});
    test::set_fake_status(input.get(), 1);
    EXPECT_TRUE(access.wait(deadline_in(0s)));
    test::set_fake_status(access.fence().fd(), -EIO);
    expect_refused(access.wait(deadline_in(0s)), Errc::fence_failed, {"EIO"});
}

TEST_F(VulkanAccessTest, WaitingForOneThatHasNotEndedIsRefused) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    const VulkanAccess access = begin(device, image);
    expect_refused(access.wait(deadline_in(0s)), Errc::invalid_argument, {"not ended"});
}

TEST_F(VulkanAccessTest, RefusesWhatIsNoUseOfThisDevice) {
    const VulkanDevice device = wrap();
    const VulkanDevice other = wrap();
    const VulkanImage image = attach(other, frame());
    const std::array empty{VulkanUse{}};
    expect_refused(device.begin_access(empty, deadline_in(0s)), Errc::invalid_argument,
                   {"no attachment"});
    const std::array foreign{VulkanUse{.attachment = &image}};
    expect_refused(device.begin_access(foreign, deadline_in(0s)), Errc::invalid_argument,
                   {"another VkDevice"});
    EXPECT_TRUE(other.begin_access(foreign, deadline_in(0s)));
    EXPECT_TRUE(buffers_.left.empty());
}

TEST_F(VulkanAccessTest, ABufferIsHeldUntilTheAccessEnds) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    const std::array uses{VulkanUse{.attachment = &image, .access = Access::read}};
    const auto begins_elsewhere = [&] {
        return std::async(std::launch::async,
                          [&] { return bool(device.begin_access(uses, deadline_in(0s))); })
            .get();
    };
    VulkanAccess access = begin(device, image, Access::read);
    expect_refused(device.begin_access(uses, deadline_in(0s)), Errc::busy, {"this thread"});
    EXPECT_FALSE(begins_elsewhere());
    submit(access);
    end(access);
    EXPECT_TRUE(begins_elsewhere());
    {
        const VulkanAccess given_up = begin(device, image);
        EXPECT_FALSE(begins_elsewhere());
    }
    EXPECT_TRUE(begins_elsewhere());
}

TEST_F(VulkanAccessTest, ARevokedFrameIsRefusedAndAnOpenAccessHoldsRevocationUp) {
    const VulkanDevice device = wrap();
    const Frame of = frame();
    std::optional<VulkanImage> image = attach(device, of);
    VulkanAccess access = begin(device, *image);
    expect_refused(of.revoke(deadline_in(0s)), Errc::timed_out, {"1 access"});
    submit(access);
    end(access);
    const std::array uses{VulkanUse{.attachment = &*image}};
    expect_refused(device.begin_access(uses, deadline_in(0s)), Errc::revoked);
    access = begin(device, {});
    image.reset();
    EXPECT_EQ(driver_.living().count("image"), 1U) << "the device keeps it";
    EXPECT_TRUE(of.revoke(deadline_in(0s)));
    EXPECT_EQ(driver_.living().count("image"), 0U);
    EXPECT_EQ(driver_.living().count("memory"), 0U);
}

TEST_F(VulkanAccessTest, WhoeverRevokesAFrameDestroysNothingOfADeviceThatIsGone) {
    std::optional<VulkanDevice> device = wrap();
    const Frame of = frame();
    (void)attach(*device, of);
    // The application drops its handle while the frame's owner has the attachment dropped.
    std::future<void> gone;
    bool waits = false;
    driver_.on_destroy_image = [&] {
        gone = std::async(std::launch::async, [&device] { device.reset(); });
        waits = gone.wait_for(20ms) == std::future_status::timeout;
    };
    EXPECT_TRUE(of.revoke(deadline_in(0s)));
    ASSERT_TRUE(gone.valid());
    gone.get();
    EXPECT_TRUE(waits) << "the VkDevice could have been destroyed under the revoker";
}

TEST_F(VulkanAccessTest, CanBeGivenUp) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    buffers_.status[inode(image)] = 0;
    for (int each = 0; each < 3; ++each) {
        const VulkanAccess access = begin(device, image);
        EXPECT_EQ(access.wait_semaphores().size(), 1U);
    }
    EXPECT_TRUE(buffers_.left.empty());
    EXPECT_EQ(driver_.living().count("semaphore"), 2U) << "the same again";
    VulkanAccess access = begin(device, image);
    submit(access);
    EXPECT_EQ(driver_.submissions[0].waits_for, std::vector{buffers_.given.back()});
    end(access);
}

TEST_F(VulkanAccessTest, KeepsAttachmentsUntilTheGpuIsDone) {
    driver_.exported_fence_status = 0;
    const VulkanDevice device = wrap();
    driver_.finishes_at_once = false;
    UniqueFd fence;
    {
        const VulkanImage image = attach(device, frame());
        VulkanAccess access = begin(device, image);
        submit(access);
        end(access);
        fence = std::move(*UniqueFd::duplicate(access.fence().fd()));
    }
    device.drop_idle_attachments();
    EXPECT_EQ(driver_.living().count("image"), 1U);
    driver_.finish();
    test::set_fake_status(fence.get(), 1);
    device.drop_idle_attachments();
    EXPECT_EQ(driver_.living().count("image"), 0U);
}

TEST_F(VulkanAccessTest, UsesItsObjectsAgainOnceTheGpuIsDoneAndNotBefore) {
    driver_.exported_fence_status = 0;
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    buffers_.status[inode(image)] = 0;
    driver_.finishes_at_once = false;
    constexpr std::size_t behind = 2; // the GPU is so many submissions behind
    std::vector<UniqueFd> fences;
    int warm = 0;
    for (std::size_t each = 0; each < 100; ++each) {
        VulkanAccess access = begin(device, image);
        submit(access); // the driver complains where one is in use
        end(access);
        fences.push_back(std::move(*UniqueFd::duplicate(access.fence().fd())));
        if (each >= behind) {
            driver_.finish(1);
            test::set_fake_status(fences[each - behind].get(), 1);
        }
        if (each == 10)
            warm = driver_.calls("vkCreateSemaphore");
    }
    EXPECT_EQ(driver_.calls("vkCreateSemaphore"), warm);
    EXPECT_LE(driver_.living().count("semaphore"), 2 * (behind + 2));
    driver_.finish();
    for (const UniqueFd& each : fences)
        test::set_fake_status(each.get(), 1);
}

TEST_F(VulkanAccessTest, LeaksNothingWhereACallFailsAndBeginsAgainAfterwards) {
    for (const auto& [function, nth] :
         {std::pair("vkCreateSemaphore", 1), std::pair("vkCreateSemaphore", 2),
          std::pair("vkCreateSemaphore", 3), std::pair("vkImportSemaphoreFdKHR", 1),
          std::pair("vkImportSemaphoreFdKHR", 2)}) {
        SCOPED_TRACE(std::string(function) + " number " + std::to_string(nth));
        const VulkanDevice device = wrap();
        const VulkanImage a = attach(device, frame());
        const VulkanImage b = attach(device, frame());
        buffers_.status = {{inode(a), 0}, {inode(b), 0}};
        const std::array uses{VulkanUse{.attachment = &a}, VulkanUse{.attachment = &b}};
        const auto open = test::open_fds();
        driver_.fail(function, VK_ERROR_OUT_OF_HOST_MEMORY, nth);
        expect_refused(device.begin_access(uses, deadline_in(0s)), Errc::no_resources,
                       {"VulkanDevice::begin_access", "VK_ERROR_OUT_OF_HOST_MEMORY"});
        EXPECT_EQ(test::open_fds(), open);
        VulkanAccess access = begin(device, uses);
        EXPECT_EQ(access.wait_semaphores().size(), 2U);
        submit(access);
        end(access);
    }
}

TEST_F(VulkanAccessTest, EndsAgainWhereTheDriverGaveNoFence) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    VulkanAccess access = begin(device, image);
    submit(access);
    driver_.fail("vkGetSemaphoreFdKHR", VK_ERROR_TOO_MANY_OBJECTS);
    expect_refused(access.end(deadline_in(0s)), Errc::no_resources,
                   {"VulkanAccess::end", "the work was submitted"});
    EXPECT_TRUE(buffers_.left.empty());
    end(access);
    EXPECT_EQ(buffers_.left.size(), 1U);

    access = begin(device, image);
    submit(access);
    driver_.semaphore_fd = FakeVulkan::Gives::a_pipe;
    for (int again = 0; again < 2; ++again)
        expect_refused(access.end(deadline_in(0s)), Errc::wrong_object,
                       {"pipe", "the driver gave no fence", "vkQueueWaitIdle"});
    expect_refused(access.wait(deadline_in(0s)), Errc::invalid_argument, {"has not ended"});
    driver_.semaphore_fd = FakeVulkan::Gives::what_was_asked_for;
    const std::array use{VulkanUse{.attachment = &image}};
    expect_refused(device.begin_access(use, deadline_in(0s)), Errc::busy);
    {
        const VulkanAccess given_up = std::move(access); // the queue has been waited for
    }
    EXPECT_TRUE(device.begin_access(use, deadline_in(0s))) << "the buffer was let go";
}

TEST_F(VulkanAccessTest, ASemaphoreThatWasNeverExportedIsNotUsedAgain) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    for (int each = 0; each < 3; ++each) {
        VulkanAccess access = begin(device, image);
        submit(access); // the driver complains where it is signalled already
        driver_.fail("vkGetSemaphoreFdKHR", VK_ERROR_TOO_MANY_OBJECTS);
        EXPECT_FALSE(access.end(deadline_in(0s)));
    }
    EXPECT_EQ(driver_.living().count("semaphore"), 0U) << "the queue has been waited for";
}

TEST_F(VulkanAccessTest, TellsOfABufferThatDoesNotCarryTheFence) {
    driver_.exported_fence_status = 0;
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    VulkanAccess access = begin(device, image);
    submit(access);
    buffers_.import_error = ENOMEM;
    for (int again = 0; again < 2; ++again)
        expect_refused(access.end(deadline_in(0s)), Errc::no_resources,
                       {"the work was submitted", "vkQueueWaitIdle"});
    const std::array use{VulkanUse{.attachment = &image}};
    expect_refused(device.begin_access(use, deadline_in(0s)), Errc::busy);
    // The GPU is done: nobody needs the fence any more.
    test::set_fake_status(access.fence().fd(), 1);
    end(access);
    EXPECT_TRUE(access.wait(deadline_in(0s)));
    buffers_.import_error = 0;
    EXPECT_TRUE(device.begin_access(use, deadline_in(0s)));
}

TEST_F(VulkanAccessTest, OneThatWasMovedFromRefusesEverything) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    VulkanAccess from = begin(device, image);
    VulkanAccess access = std::move(from);
    // NOLINTBEGIN(bugprone-use-after-move,hicpp-invalid-access-moved)
    EXPECT_TRUE(from.wait_semaphores().empty());
    EXPECT_EQ(from.signal_semaphore(), VkSemaphore{});
    EXPECT_LT(from.fence().fd(), 0);
    expect_refused(from.end(deadline_in(0s)), Errc::wrong_object, {"moved from"});
    expect_refused(from.end_after_timeline({}, 1, deadline_in(0s)), Errc::wrong_object);
    expect_refused(from.wait_on_timeline({}, 1), Errc::wrong_object);
    expect_refused(from.wait(deadline_in(0s)), Errc::wrong_object);
    // NOLINTEND(bugprone-use-after-move,hicpp-invalid-access-moved)
    submit(access);
    end(access);
}

TEST_F(VulkanAccessTest, HandlesThatWereMovedFromAreStillTheirObjects) {
    VulkanDevice device = wrap();
    VulkanImage image = attach(device, frame());
    const VulkanImage other = std::move(image); // NOLINT(performance-move-const-arg)
    // NOLINTNEXTLINE(bugprone-use-after-move,hicpp-invalid-access-moved)
    EXPECT_EQ(image.image(), other.image());
    const VulkanDevice same = std::move(device); // NOLINT(performance-move-const-arg)
    // NOLINTNEXTLINE(bugprone-use-after-move,hicpp-invalid-access-moved)
    VulkanAccess access = begin(device, image);
    submit(access);
    end(access);
}

TEST_F(VulkanAccessTest, WaitsForFurtherFencesToo) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    const std::array use{VulkanUse{.attachment = &image}};
    const auto fence = [](int status) {
        auto made = SyncFile::from_fd(test::fake_sync_file(status));
        EXPECT_TRUE(made);
        return std::move(*made);
    };
    const std::array left{fence(0), fence(1)};
    auto access = device.begin_access(use, deadline_in(0s), left);
    ASSERT_TRUE(access) << access.error().message();
    EXPECT_EQ(access->wait_semaphores().size(), 1U) << "the other has signalled";
    submit(*access);
    end(*access);
    const std::array failed{fence(-EIO)};
    expect_refused(device.begin_access(use, deadline_in(0s), failed), Errc::fence_failed);
    EXPECT_TRUE(device.begin_access(use, deadline_in(0s))) << "the buffer was let go";
}

TEST_F(VulkanAccessTest, AnAttachmentForAnotherQueueFamilyIsRefused) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    VulkanDeviceInfo other = application_;
    ++other.queue_family;
    const auto compute = VulkanDevice::wrap(other);
    ASSERT_TRUE(compute);
    const std::array use{VulkanUse{.attachment = &image}};
    expect_refused(compute->begin_access(use, deadline_in(0s)), Errc::invalid_argument,
                   {"queue family"});
}

// ---- the ways around ----

TEST_F(VulkanAccessTest, AKernelWithoutImplicitSyncIsWaitedFor) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    buffers_.export_error = buffers_.import_error = ENOTTY;
    bool ready = false;
    libc_.ppoll = [&ready, others = libc_.ppoll](pollfd* fds, nfds_t count, const timespec* time) {
        return ready || fds->events == POLLIN ? others(fds, count, time) : 0;
    };
    const std::array uses{VulkanUse{.attachment = &image}};
    expect_refused(device.begin_access(uses, deadline_in(0s)), Errc::timed_out);
    ready = true;
    VulkanAccess access = begin(device, image);
    EXPECT_TRUE(access.wait_semaphores().empty());
    driver_.exported_fence_status = 0;
    submit(access);
    for (int again = 0; again < 2; ++again)
        expect_refused(access.end(deadline_in(0s)), Errc::timed_out, {"VulkanAccess::end"});
    expect_refused(device.begin_access(uses, deadline_in(0s)), Errc::busy);
    test::set_fake_status(access.fence().fd(), 1);
    end(access);
    EXPECT_TRUE(device.begin_access(uses, deadline_in(0s)));
}

constexpr std::array without_sync_fd{VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                     VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                     VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME};

TEST_F(VulkanAccessTest, ADriverWithoutSyncFdIsWaitedFor) {
    driver_.lacks = {"vkGetSemaphoreFdKHR", "vkImportSemaphoreFdKHR"};
    driver_.finishes_at_once = false;
    const VulkanDevice device = wrap(without_sync_fd);
    const VulkanImage image = attach(device, frame());
    const std::array uses{VulkanUse{.attachment = &image}};
    buffers_.status[inode(image)] = 0;
    expect_refused(device.begin_access(uses, deadline_in(0s)), Errc::timed_out);

    buffers_.status[inode(image)] = 1;
    VulkanAccess access = begin(device, image);
    EXPECT_TRUE(access.wait_semaphores().empty());
    EXPECT_EQ(access.signal_semaphore(), VK_NULL_HANDLE);
    submit(access);
    driver_.fail("vkWaitForFences", VK_TIMEOUT);
    expect_refused(access.end(deadline_in(0s)), Errc::timed_out, {"the work was submitted"});
    EXPECT_FALSE(device.begin_access(uses, deadline_in(0s))) << "it is still open";
    end(access);
    EXPECT_EQ(driver_.submissions.size(), 2U) << "the GPU was asked for its end once";
    EXPECT_EQ(access.fence().fd(), -1);
    EXPECT_TRUE(access.wait(deadline_in(0s)));
    EXPECT_TRUE(buffers_.left.empty()) << "nothing is left to wait for";
    EXPECT_EQ(driver_.living().count("semaphore"), 0U);

    for (int each = 0; each < 3; ++each) {
        auto done = device.submit({.uses = uses});
        ASSERT_TRUE(done) << done.error().message();
        EXPECT_EQ(done->fd(), -1);
    }
    EXPECT_LE(driver_.living().count("fence"), 2U);
}

TEST_F(VulkanAccessTest, ADriverThatOnlyImportsOrOnlyExportsFencesDoesWhatItCan) {
    {
        driver_.devices[0].semaphore_features = VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT;
        const VulkanDevice device = wrap();
        const VulkanImage image = attach(device, frame());
        buffers_.status[inode(image)] = 0;
        VulkanAccess access = begin(device, image);
        EXPECT_EQ(access.wait_semaphores().size(), 1U);
        EXPECT_EQ(access.signal_semaphore(), VK_NULL_HANDLE);
        submit(access);
        end(access);
        EXPECT_EQ(driver_.calls("vkWaitForFences"), 1);
    }
    driver_.devices[0].semaphore_features = VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT;
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    VulkanAccess access = begin(device, image);
    EXPECT_NE(access.signal_semaphore(), VK_NULL_HANDLE);
    submit(access);
    end(access);
    EXPECT_EQ(buffers_.left.size(), 1U);
    EXPECT_EQ(driver_.calls("vkWaitForFences"), 1);
}

// ---- timelines ----

TEST_F(VulkanAccessTest, HopsOntoATimelineAndOffIt) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    const VkSemaphore timeline = driver_.timeline(application_.device);
    buffers_.status[inode(image)] = 0;
    VulkanAccess access = begin(device, image);
    ASSERT_TRUE(access.wait_on_timeline(timeline, 41));
    EXPECT_TRUE(access.wait_semaphores().empty());
    EXPECT_EQ(driver_.submissions[0].waits_for, std::vector{buffers_.given[0]});
    EXPECT_EQ(driver_.submissions[0].signals_values, std::vector<std::uint64_t>{41});
    submit(access, false);
    driver_.fail("vkQueueSubmit", VK_ERROR_OUT_OF_HOST_MEMORY);
    expect_refused(access.end_after_timeline(timeline, 42, deadline_in(0s)), Errc::no_resources);
    driver_.fail("vkGetSemaphoreFdKHR", VK_ERROR_TOO_MANY_OBJECTS);
    expect_refused(access.end_after_timeline(timeline, 42, deadline_in(0s)), Errc::no_resources);
    const auto ended = access.end_after_timeline(timeline, 42, deadline_in(0s));
    ASSERT_TRUE(ended) << ended.error().message();
    ASSERT_EQ(driver_.submissions.size(), 3U) << "it hops once";
    EXPECT_EQ(driver_.submissions[2].waits_for_values, std::vector<std::uint64_t>{42});
    EXPECT_EQ(buffers_.left.size(), 1U);
}

TEST_F(VulkanAccessTest, TheSemaphoresOfAHopAreNotUsedAgainBeforeItIsDone) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    const VkSemaphore timeline = driver_.timeline(application_.device);
    buffers_.status[inode(image)] = 0;
    driver_.finishes_at_once = false;
    VkSemaphore waits = VK_NULL_HANDLE;
    {
        VulkanAccess access = begin(device, image);
        waits = access.wait_semaphores()[0];
        ASSERT_TRUE(access.wait_on_timeline(timeline, 41));
        expect_refused(access.wait_on_timeline(timeline, 42), Errc::invalid_argument);
    } // the application could not submit its own
    {
        const VulkanAccess access = begin(device, image);
        EXPECT_NE(access.wait_semaphores()[0], waits);
    }
    driver_.finish();
    // Taken out of what was in flight where nothing else is left.
    std::vector<VulkanAccess> held;
    std::vector<VkSemaphore> seen;
    for (int each = 0; each < 2; ++each) {
        const VulkanImage other = attach(device, frame());
        buffers_.status[inode(other)] = 0;
        held.push_back(begin(device, other));
        seen.push_back(held.back().wait_semaphores()[0]);
    }
    EXPECT_NE(std::ranges::find(seen, waits), seen.end());
}

TEST_F(VulkanAccessTest, HopsOffATimelineWithoutSyncFdToo) {
    const VulkanDevice device = wrap(without_sync_fd);
    const VulkanImage image = attach(device, frame());
    const VkSemaphore timeline = driver_.timeline(application_.device);
    for (const std::uint64_t value : {1U, 2U}) {
        VulkanAccess access = begin(device, image);
        submit(access, false);
        driver_.fail("vkWaitForFences", VK_TIMEOUT);
        expect_refused(access.end_after_timeline(timeline, value, deadline_in(0s)),
                       Errc::timed_out);
        const std::size_t before = driver_.submissions.size();
        EXPECT_TRUE(access.end_after_timeline(timeline, value, deadline_in(0s)));
        EXPECT_EQ(driver_.submissions.size(), before) << "it hops once";
        EXPECT_EQ(driver_.submissions.back().waits_for_values, std::vector{value});
    }
}

// ---- submit ----

TEST_F(VulkanAccessTest, SubmitDoesAllOfIt) {
    const VulkanDevice device = wrap();
    const VulkanImage image = attach(device, frame());
    buffers_.status[inode(image)] = 0;
    const std::array uses{VulkanUse{.attachment = &image, .access = Access::write}};
    for (int each = 0; each < 2; ++each) {
        auto done = device.submit({.uses = uses});
        ASSERT_TRUE(done) << done.error().message();
        EXPECT_EQ(driver_.submissions.back().waits_for, std::vector{buffers_.given.back()});
        EXPECT_EQ(buffers_.left.back(), (FakeReservations::Left{inode(image), DMA_BUF_SYNC_WRITE,
                                                                test::inode_of(done->fd())}));
    }
    EXPECT_EQ(buffers_.left.size(), 2U);
    driver_.fail("vkQueueSubmit", VK_ERROR_OUT_OF_HOST_MEMORY);
    expect_refused(device.submit({.uses = uses}), Errc::no_resources, {"nothing was submitted"});
    EXPECT_EQ(buffers_.left.size(), 2U);
    buffers_.status[inode(image)] = -EIO;
    expect_refused(device.submit({.uses = uses}), Errc::fence_failed, {"EIO"});
    EXPECT_EQ(driver_.submissions.size(), 2U);
    EXPECT_TRUE(device.begin_access(uses, deadline_in(0s)).error().code == Errc::fence_failed)
        << "and not busy";
}

} // namespace
} // namespace sluice
