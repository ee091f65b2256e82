// SPDX-License-Identifier: MIT
#include <sluice/vulkan_context.hpp>
#include <sluice/vulkan_device.hpp>
#include <sluice/vulkan_image.hpp>

#include <cerrno>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/fake_vulkan.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"
#include "vulkan/vulkan_driver.hpp"
#include "vulkan/vulkan_layer.hpp"

namespace sluice {
namespace {

using test::FakeVulkan;
using Kinds = std::multiset<std::string>;
using Words = std::vector<std::string>;

/// A driver whose memfds pass for dma-bufs and for sync_files. It is gone before fds are counted.
class VulkanTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
        test::fake_sync_files(libc_);
    }

    test::ScriptedLibc libc_;
    FakeVulkan driver_;
};

/// An Error that says what failed on what, with \p words in it, and what to do about it.
void expect_error(const Error& error, Errc code, VkResult result, const Words& words) {
    EXPECT_EQ(to_string(error.code), to_string(code)) << error.message();
    EXPECT_EQ(error.vk_result, result) << error.message();
    EXPECT_FALSE(error.operation.empty()) << error.message();
    EXPECT_FALSE(error.object.empty()) << error.message();
    EXPECT_FALSE(error.remedy.empty()) << error.message();
    for (const std::string& each : words)
        EXPECT_NE(error.message().find(each), std::string::npos)
            << "no '" << each << "' in: " << error.message();
}

template <typename T>
void expect_refused(const Result<T>& result, Errc code, const Words& words,
                    VkResult vk_result = VK_SUCCESS) {
    ASSERT_FALSE(result) << "not refused: " << ::testing::PrintToString(words);
    expect_error(result.error(), code, vk_result, words);
}

/// What a driver may say to any call, and what that is for the caller.
struct Failure {
    VkResult result;
    Errc code;
    const char* name;
};
constexpr Failure failures[] = {
    {VK_ERROR_OUT_OF_HOST_MEMORY, Errc::no_resources, "VK_ERROR_OUT_OF_HOST_MEMORY (-1)"},
    {VK_ERROR_OUT_OF_DEVICE_MEMORY, Errc::no_resources, "VK_ERROR_OUT_OF_DEVICE_MEMORY (-2)"},
    {VK_ERROR_TOO_MANY_OBJECTS, Errc::no_resources, "VK_ERROR_TOO_MANY_OBJECTS (-10)"},
    {VK_ERROR_DEVICE_LOST, Errc::device_lost, "VK_ERROR_DEVICE_LOST (-4)"},
    {VK_ERROR_UNKNOWN, Errc::failed, "VK_ERROR_UNKNOWN (-13)"},
    {VK_ERROR_INVALID_EXTERNAL_HANDLE, Errc::failed, "VK_ERROR_INVALID_EXTERNAL_HANDLE"},
    {VK_ERROR_FRAGMENTED_POOL, Errc::failed, "VkResult (-12)"}, // one without words of its own
};

// ---- wrap ----

class VulkanDeviceTest : public VulkanTest {
protected:
    VulkanDevice wrap() {
        auto device = VulkanDevice::wrap(driver_.application());
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }
};

TEST_F(VulkanDeviceTest, WrapCreatesNothing) {
    const VulkanDeviceInfo info = driver_.application();
    {
        auto device = VulkanDevice::wrap(info);
        ASSERT_TRUE(device) << device.error().message();
        EXPECT_EQ(device->name(), "Fake GPU");
        EXPECT_EQ(device->info().device, info.device);
        EXPECT_EQ(device->info().queue, info.queue);
        EXPECT_EQ(device->info().queue_family, info.queue_family);
        EXPECT_EQ(driver_.living(), Kinds{});
    }
    EXPECT_TRUE(driver_.destroyed.empty()) << "the application's objects stay the application's";
}

TEST_F(VulkanDeviceTest, WrapRefusesEachFieldThatIsNullByItsName) {
    const std::pair<const char*, std::function<void(VulkanDeviceInfo&)>> fields[] = {
        {"get_instance_proc_addr", [](auto& info) { info.get_instance_proc_addr = nullptr; }},
        {"instance", [](auto& info) { info.instance = VK_NULL_HANDLE; }},
        {"physical_device", [](auto& info) { info.physical_device = VK_NULL_HANDLE; }},
        {"device", [](auto& info) { info.device = VK_NULL_HANDLE; }},
        {"queue", [](auto& info) { info.queue = VK_NULL_HANDLE; }},
    };
    for (const auto& [field, forget] : fields) {
        VulkanDeviceInfo info = driver_.application();
        forget(info);
        expect_refused(VulkanDevice::wrap(info), Errc::invalid_argument,
                       {"VulkanDevice::wrap(VulkanDeviceInfo::" + std::string(field) + ")"});
    }
    EXPECT_TRUE(driver_.looked_up.empty());
}

TEST_F(VulkanDeviceTest, WrapRefusesEachFunctionThatIsMissingByItsName) {
    const VulkanDeviceInfo info = driver_.application();
#define F(name) "vk" #name,
    for (const char* function : {SLUICE_VK_INSTANCE_FUNCTIONS(F) SLUICE_VK_DEVICE_FUNCTIONS(
             F) SLUICE_VK_MODIFIER_FUNCTIONS(F) SLUICE_VK_SEMAPHORE_FD_FUNCTIONS(F)}) {
#undef F
        driver_.lacks = {function};
        expect_refused(VulkanDevice::wrap(info), Errc::invalid_argument,
                       {"VulkanDevice::wrap(" + std::string(function) + ")",
                        "VulkanDevice::required_extensions()"});
    }
}

TEST_F(VulkanDeviceTest, FindsHowFencesAreExchanged) {
    constexpr auto no_feature = VkExternalSemaphoreFeatureFlagBits{};
    for (const bool imports : {false, true})
        for (const bool exports : {false, true}) {
            driver_.devices[0].semaphore_features =
                (imports ? VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT : no_feature) |
                (exports ? VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT : no_feature);
            const VulkanDeviceCaps caps = wrap().caps();
            EXPECT_EQ(caps.imports_fences, imports);
            EXPECT_EQ(caps.exports_fences, exports);
        }
}

TEST_F(VulkanDeviceTest, TakesPartWithoutTheExtensionsThatItHasAWayAround) {
    driver_.lacks = {"vkGetSemaphoreFdKHR", "vkImportSemaphoreFdKHR"};
    const char* const least[] = {VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                 VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME};
    VulkanDeviceInfo info = driver_.application();
    info.extensions = least;
    auto device = VulkanDevice::wrap(info);
    ASSERT_TRUE(device) << device.error().message();
    EXPECT_FALSE(device->caps().imports_fences || device->caps().exports_fences ||
                 device->caps().foreign_queue || device->caps().modifiers);
    EXPECT_TRUE(device->info().extensions.empty()) << "they were borrowed";

    driver_.lacks = {};
    const char* const all[] = {
        VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME, VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME,
        VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME, "VK_EXT_something_else"};
    info.extensions = all;
    device = VulkanDevice::wrap(info);
    ASSERT_TRUE(device) << device.error().message();
    EXPECT_TRUE(device->caps().imports_fences && device->caps().exports_fences &&
                device->caps().foreign_queue && device->caps().modifiers);
}

// ---- submit ----

class VulkanSubmitTest : public VulkanDeviceTest {
protected:
    static SyncFile fence(int status) {
        auto made = SyncFile::from_fd(test::fake_sync_file(status));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }

    static std::vector<SyncFile> fences(std::size_t count, int status) {
        std::vector<SyncFile> made;
        while (made.size() < count)
            made.push_back(fence(status));
        return made;
    }

    /// One submission that must succeed.
    SyncFile submit(const VulkanDevice& device, std::span<const SyncFile> waits = {}) {
        auto done = device.submit({.command_buffers = {commands_}, .wait_fences = waits});
        EXPECT_TRUE(done) << done.error().message();
        return done ? std::move(*done) : SyncFile::signalled();
    }

    static std::vector<ino_t> inodes(std::span<const SyncFile> fences) {
        std::vector<ino_t> all;
        for (const SyncFile& each : fences)
            all.push_back(test::inode_of(each.fd()));
        return all;
    }

    /// Has the \p nth call of \p function by a first submission fail in every way there is.
    void fail_in_turn(const std::string& function, int nth) {
        const bool submitted = function == "vkGetSemaphoreFdKHR"; // called after vkQueueSubmit
        for (const Failure& failure : failures) {
            SCOPED_TRACE(function + " number " + std::to_string(nth) + " says " + failure.name);
            const VulkanDevice device = wrap();
            const auto waits = fences(2, 0);
            const auto open = test::open_fds();
            const std::size_t before = driver_.submissions.size();
            driver_.fail(function, failure.result, nth);
            expect_refused(device.submit({.command_buffers = {commands_}, .wait_fences = waits}),
                           failure.code,
                           {"VulkanDevice::submit", failure.name,
                            submitted ? "the work was submitted" : "nothing was submitted"},
                           failure.result);
            EXPECT_EQ(driver_.submissions.size(), before + (submitted ? 1 : 0));
            EXPECT_EQ(test::open_fds(), open);

            for (int again = 0; again < 2; ++again)
                (void)submit(device, waits);
            EXPECT_EQ(driver_.submissions.back().waits_for, inodes(waits));
        }
    }

    [[nodiscard]] int creations() const {
        return driver_.calls("vkCreateFence") + driver_.calls("vkCreateSemaphore");
    }

    // A handle that nobody looks behind.
    VkCommandBuffer commands_[1] = {reinterpret_cast<VkCommandBuffer>(&driver_)};
};

TEST_F(VulkanSubmitTest, GivesTheFenceOfTheWork) {
    const VulkanDevice device = wrap();
    for (const FenceState state : {FenceState::pending, FenceState::signalled}) {
        driver_.exported_fence_status = state == FenceState::signalled ? 1 : 0;
        const SyncFile done = submit(device);
        ASSERT_GE(done.fd(), 0);
        EXPECT_EQ(done.status()->state, state);
    }
    ASSERT_EQ(driver_.submissions.size(), 2U);
    EXPECT_EQ(driver_.submissions[0].command_buffers, std::vector{commands_[0]});
    EXPECT_TRUE(driver_.submissions[0].waits_for.empty());
    EXPECT_EQ(driver_.living(), (Kinds{"fence", "semaphore"})) << "no semaphore to wait for";
}

TEST_F(VulkanSubmitTest, TakesADriversMinusOneForSignalled) {
    driver_.semaphore_fd = FakeVulkan::Gives::no_fd;
    const SyncFile done = submit(wrap());
    EXPECT_EQ(done.fd(), -1);
    EXPECT_EQ(done.status()->state, FenceState::signalled);
}

TEST_F(VulkanSubmitTest, WaitsForPendingFencesInTheStagesAskedFor) {
    const VulkanDevice device = wrap();
    const auto pending = fences(2, 0);
    ASSERT_TRUE(device.submit({.command_buffers = {commands_},
                               .wait_fences = pending,
                               .wait_stages = VK_PIPELINE_STAGE_TRANSFER_BIT}));
    ASSERT_TRUE(device.submit({.command_buffers = {commands_}, .wait_fences = pending}));
    for (const auto& submission : driver_.submissions)
        EXPECT_EQ(submission.waits_for, inodes(pending));
    const std::vector<VkPipelineStageFlags> transfer(2, VK_PIPELINE_STAGE_TRANSFER_BIT);
    const std::vector<VkPipelineStageFlags> all(2, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    EXPECT_EQ(driver_.submissions[0].wait_stages, transfer);
    EXPECT_EQ(driver_.submissions[1].wait_stages, all);
    for (const SyncFile& each : pending)
        EXPECT_EQ(each.status()->state, FenceState::pending) << "the fences stay the caller's";
}

TEST_F(VulkanSubmitTest, SpendsNoSemaphoreOnFencesThatHaveSignalled) {
    const VulkanDevice device = wrap();
    std::vector<SyncFile> mixed;
    mixed.push_back(fence(1));
    mixed.push_back(fence(0));
    mixed.push_back(SyncFile::signalled());
    (void)submit(device, mixed);
    EXPECT_EQ(driver_.submissions[0].waits_for, inodes(std::span(mixed).subspan(1, 1)));
    EXPECT_EQ(driver_.calls("vkImportSemaphoreFdKHR"), 1);
    EXPECT_EQ(driver_.living(), (Kinds{"fence", "semaphore", "semaphore"}));
}

TEST_F(VulkanSubmitTest, WaitsForMoreFencesThanFitTheStack) {
    const VulkanDevice device = wrap();
    for (const std::size_t count : {15U, 16U, 17U, 40U, 3U, 0U}) {
        const auto pending = fences(count, 0);
        (void)submit(device, pending);
        const auto& submission = driver_.submissions.back();
        EXPECT_EQ(submission.waits_for, inodes(pending));
        const std::vector<VkPipelineStageFlags> all(count, VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
        EXPECT_EQ(submission.wait_stages, all);
    }
}

TEST_F(VulkanSubmitTest, RefusesAFenceThatFailedAndSubmitsNothing) {
    const VulkanDevice device = wrap();
    std::vector<SyncFile> waits;
    waits.push_back(fence(0)); // imported before the other is looked at
    waits.push_back(fence(-ETIMEDOUT));
    const auto done = device.submit({.command_buffers = {commands_}, .wait_fences = waits});
    expect_refused(
        done, Errc::fence_failed,
        {"VulkanDevice::submit", "'/memfd:sync_file", "ETIMEDOUT", "nothing was submitted"});
    EXPECT_EQ(done.error().sys_errno, ETIMEDOUT);
    EXPECT_TRUE(driver_.submissions.empty());

    waits.pop_back();
    (void)submit(device, waits);
    EXPECT_EQ(driver_.submissions[0].waits_for, inodes(waits));
}

TEST_F(VulkanSubmitTest, RefusesAFenceThatWasClosedBehindItsBack) {
    const VulkanDevice device = wrap();
    const SyncFile waits[] = {fence(0)};
    libc_.ioctl = [](int, unsigned long, void*) {
        errno = EBADF;
        return -1;
    };
    expect_refused(device.submit({.command_buffers = {commands_}, .wait_fences = waits}),
                   Errc::wrong_object, {"EBADF"});
    EXPECT_TRUE(driver_.submissions.empty());
}

TEST_F(VulkanSubmitTest, SaysSoWhereNoFdIsLeftForTheDriversDuplicate) {
    const VulkanDevice device = wrap();
    const SyncFile waits[] = {fence(0)};
    libc_.fcntl = [](int, int command, long) {
        EXPECT_EQ(command, F_DUPFD_CLOEXEC);
        errno = EMFILE;
        return -1;
    };
    expect_refused(device.submit({.command_buffers = {commands_}, .wait_fences = waits}),
                   Errc::no_resources, {"EMFILE"});
    EXPECT_TRUE(driver_.submissions.empty());
    libc_.fcntl = {};
    (void)submit(device, waits);
}

TEST_F(VulkanSubmitTest, LeaksNothingWhereACallFailsAndSubmitsAgainAfterwards) {
    fail_in_turn("vkCreateFence", 1);
    for (const int nth : {1, 2, 3}) // the one to signal, and two to wait for
        fail_in_turn("vkCreateSemaphore", nth);
    fail_in_turn("vkQueueSubmit", 1);
    fail_in_turn("vkGetSemaphoreFdKHR", 1);
}

TEST_F(VulkanSubmitTest, TakesBackTheFdOfAnImportThatFailed) {
    // What the library has to tell with; containers may forbid it.
    if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, STDERR_FILENO, STDERR_FILENO) < 0)
        GTEST_SKIP() << "kcmp(2) is not to be had here";
    for (const int nth : {1, 2})
        fail_in_turn("vkImportSemaphoreFdKHR", nth);
}

TEST_F(VulkanSubmitTest, LeavesTheFdOfAnImportThatFailedWhereTheDriverClosedIt) {
    driver_.failed_import_closes = true;
    for (const int nth : {1, 2})
        fail_in_turn("vkImportSemaphoreFdKHR", nth);
}

TEST_F(VulkanSubmitTest, LeavesAFdAloneThatGotTheNumberOfOneTheDriverClosed) {
    const VulkanDevice device = wrap();
    const SyncFile waits[] = {fence(0)};
    const UniqueFd others = test::fake_sync_file(0);
    UniqueFd opened;
    driver_.failed_import_closes = true;
    driver_.after_failed_import_closed = [&](int number) {
        opened = UniqueFd(dup2(others.get(), number));
    };
    driver_.fail("vkImportSemaphoreFdKHR", VK_ERROR_INVALID_EXTERNAL_HANDLE);
    EXPECT_FALSE(device.submit({.command_buffers = {commands_}, .wait_fences = waits}));
    ASSERT_TRUE(opened);
    EXPECT_EQ(test::inode_of(opened.get()), test::inode_of(others.get()));
}

TEST_F(VulkanSubmitTest, SubmitsAgainWhereAFenceCouldNotBeReset) {
    for (const Failure& failure : failures) {
        const VulkanDevice device = wrap();
        (void)submit(device);
        driver_.fail("vkResetFences", failure.result);
        expect_refused(device.submit({.command_buffers = {commands_}}), failure.code,
                       {"vkResetFences", "nothing was submitted", failure.name}, failure.result);
        (void)submit(device);
        EXPECT_EQ(driver_.living(), (Kinds{"fence", "semaphore"})) << "the same one again";
    }
}

TEST_F(VulkanSubmitTest, NeverReusesASubmissionWhoseFenceWasNotExported) {
    const VulkanDevice device = wrap();
    driver_.fail("vkGetSemaphoreFdKHR", VK_ERROR_TOO_MANY_OBJECTS);
    EXPECT_FALSE(device.submit({.command_buffers = {commands_}}));
    (void)submit(device);
    ASSERT_EQ(driver_.submissions.size(), 2U);
    EXPECT_NE(driver_.submissions[0].done, driver_.submissions[1].done)
        << "its semaphore is still signalled";
}

TEST_F(VulkanSubmitTest, RefusesWhatIsNoSyncFileFromTheDriver) {
    const VulkanDevice device = wrap();
    driver_.semaphore_fd = FakeVulkan::Gives::a_pipe;
    expect_refused(device.submit({.command_buffers = {commands_}}), Errc::wrong_object,
                   {"pipe", "is not a sync_file"});
    driver_.semaphore_fd = FakeVulkan::Gives::what_was_asked_for;
    (void)submit(device);
}

TEST_F(VulkanSubmitTest, CreatesNoObjectAfterWarmUp) {
    // The GPU is so many submissions behind.
    for (const std::size_t behind : {0U, 1U, 2U}) {
        const VulkanDevice device = wrap();
        const auto waits = fences(3, 0);
        driver_.finishes_at_once = behind == 0;
        int warm = 0;
        for (std::size_t frame = 0; frame < 100; ++frame) {
            if (frame == 10)
                warm = creations();
            (void)submit(device, waits);
            if (frame >= behind)
                driver_.finish(1);
        }
        EXPECT_EQ(creations(), warm) << behind;
        EXPECT_EQ(driver_.living().count("fence"), behind + 1);
        driver_.finish();
    }
}

TEST_F(VulkanSubmitTest, DoesNotReuseASubmissionInFlight) {
    driver_.finishes_at_once = false;
    const VulkanDevice device = wrap();
    (void)submit(device);
    (void)submit(device);
    driver_.finish(1);
    (void)submit(device);
    const auto& made = driver_.submissions;
    ASSERT_EQ(made.size(), 3U);
    EXPECT_NE(made[0].done, made[1].done);
    EXPECT_EQ(made[0].done, made[2].done) << "the first is free again";
    driver_.finish();
}

TEST_F(VulkanSubmitTest, ALostDeviceDoesNotPileUpObjects) {
    const VulkanDevice device = wrap();
    driver_.finishes_at_once = false;
    (void)submit(device);
    for (int each = 0; each < 10; ++each) {
        driver_.fail("vkGetFenceStatus", VK_ERROR_DEVICE_LOST);
        driver_.fail("vkQueueSubmit", VK_ERROR_DEVICE_LOST);
        expect_refused(device.submit({.command_buffers = {commands_}}), Errc::device_lost, {},
                       VK_ERROR_DEVICE_LOST);
    }
    EXPECT_LE(driver_.living().count("fence"), 2U);
}

TEST_F(VulkanSubmitTest, FencesThatWereNotExportedDoNotPileUpObjects) {
    const VulkanDevice device = wrap();
    for (int each = 0; each < 10; ++each) {
        driver_.fail("vkGetSemaphoreFdKHR", VK_ERROR_TOO_MANY_OBJECTS);
        EXPECT_FALSE(device.submit({.command_buffers = {commands_}}));
    }
    EXPECT_LE(driver_.living().count("fence"), 1U);
}

TEST_F(VulkanSubmitTest, ItsDestructionWaitsForTheGpuWithinALimit) {
    driver_.finishes_at_once = false;
    {
        const VulkanDevice device = wrap();
        (void)submit(device, fences(1, 0));
        (void)submit(device);
        std::optional<VulkanDevice> copy = device;
        copy.reset(); // only the last to go waits
        EXPECT_TRUE(driver_.wait_timeouts.empty());
    }
    EXPECT_FALSE(driver_.wait_timeouts.empty());
    std::uint64_t left = 5'000'000'000U; // for all of them together
    for (const std::uint64_t timeout : driver_.wait_timeouts) {
        EXPECT_GT(timeout, 0U);
        EXPECT_LE(timeout, left);
        left = timeout;
    }
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanSubmitTest, ItsDestructionDoesNotWaitForWhatNeverCameToBeSubmitted) {
    {
        const VulkanDevice device = wrap();
        for (int each = 0; each < 2; ++each) { // with new objects, then with used ones
            driver_.fail("vkQueueSubmit", VK_ERROR_OUT_OF_HOST_MEMORY);
            EXPECT_FALSE(device.submit({.command_buffers = {commands_}}));
            if (each == 0)
                (void)submit(device);
        }
        EXPECT_EQ(driver_.living(), (Kinds{"fence", "semaphore"}));
    }
    EXPECT_TRUE(driver_.wait_timeouts.empty()) << "nothing would ever signal the fence";
}

TEST_F(VulkanSubmitTest, ItsDestructionLeavesWhatAHangingGpuStillUses) {
    driver_.finishes_at_once = false;
    {
        const VulkanDevice device = wrap();
        (void)submit(device, fences(2, 0)); // the one that hangs
        (void)submit(device);
        driver_.fail("vkWaitForFences", VK_TIMEOUT);
    }
    EXPECT_EQ(driver_.living(), (Kinds{"fence", "semaphore", "semaphore", "semaphore"}))
        << "all of the first submission, nothing of the second";
    driver_.forgive_what_is_left();
}

TEST_F(VulkanSubmitTest, ItsDestructionLeavesWhatItCouldNotWaitFor) {
    driver_.finishes_at_once = false;
    {
        const VulkanDevice device = wrap();
        (void)submit(device);
        // It says nothing of the GPU, which may be at work still.
        driver_.fail("vkWaitForFences", VK_ERROR_OUT_OF_HOST_MEMORY);
    }
    EXPECT_EQ(driver_.living(), (Kinds{"fence", "semaphore"}));
    driver_.forgive_what_is_left();
}

TEST_F(VulkanSubmitTest, ItsDestructionDestroysAllOfALostDevice) {
    driver_.finishes_at_once = false;
    {
        const VulkanDevice device = wrap();
        (void)submit(device);
        driver_.fail("vkWaitForFences", VK_ERROR_DEVICE_LOST);
    }
    EXPECT_EQ(driver_.living(), Kinds{});
}

// ---- export_image ----

class VulkanImageTest : public VulkanDeviceTest {
protected:
    static constexpr VulkanImageInfo small{.width = 100,
                                           .height = 50,
                                           .format = DRM_FORMAT_XRGB8888,
                                           .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT |
                                                    VK_IMAGE_USAGE_TRANSFER_SRC_BIT};

    static VulkanImage export_from(const VulkanDevice& device,
                                   const VulkanImageInfo& info = small) {
        auto image = device.export_image(info);
        EXPECT_TRUE(image) << image.error().message();
        return std::move(*image);
    }
};

TEST_F(VulkanImageTest, IsAFrameAsTheDriverLaidItOut) {
    const VulkanDevice device = wrap();
    for (const VkDeviceSize offset : {0U, 4096U}) {
        driver_.offset = offset;
        driver_.row_pitch = 512;
        const VulkanImage image = export_from(device);
        const FrameLayout& layout = image.frame().layout();
        EXPECT_EQ(layout.width, 100U);
        EXPECT_EQ(layout.height, 50U);
        EXPECT_EQ(layout.format, std::uint32_t{DRM_FORMAT_XRGB8888});
        EXPECT_EQ(layout.modifier, std::uint64_t{DRM_FORMAT_MOD_LINEAR});
        EXPECT_EQ(layout.planes[0].offset, offset);
        EXPECT_EQ(layout.planes[0].stride, 512U);
        EXPECT_EQ(image.format(), VK_FORMAT_B8G8R8A8_UNORM);
        EXPECT_NE(image.image(), VkImage{VK_NULL_HANDLE});
        EXPECT_EQ(image.frame().buffer().size(), offset + VkDeviceSize{512} * 50);
    }
}

TEST_F(VulkanImageTest, ItsFdIsClosedOnExec) {
    const VulkanImage image = export_from(wrap());
    EXPECT_EQ(fcntl(image.frame().buffer().fd(), F_GETFD), FD_CLOEXEC);
}

TEST_F(VulkanImageTest, AsksTheDriverForOneLinearDmaBufAndNothingElse) {
    const VulkanImage image = export_from(wrap());
    constexpr auto dma_buf = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
    ASSERT_EQ(driver_.images.size(), 1U);
    const auto& request = driver_.images[0];
    EXPECT_EQ(request.handle_types, VkExternalMemoryHandleTypeFlags{dma_buf})
        << "with another beside it lavapipe gives an opaque fd";
    EXPECT_EQ(request.modifiers, std::vector<std::uint64_t>{DRM_FORMAT_MOD_LINEAR});
    EXPECT_EQ(request.info.tiling, VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT);
    EXPECT_EQ(request.info.imageType, VK_IMAGE_TYPE_2D);
    EXPECT_EQ(request.info.format, VK_FORMAT_B8G8R8A8_UNORM);
    EXPECT_EQ(request.info.usage, small.usage);
    EXPECT_EQ(request.info.extent.width, 100U);
    EXPECT_EQ(request.info.extent.height, 50U);
    EXPECT_EQ(request.info.extent.depth, 1U);
    EXPECT_EQ(request.info.mipLevels, 1U);
    EXPECT_EQ(request.info.arrayLayers, 1U);
    EXPECT_EQ(request.info.samples, VK_SAMPLE_COUNT_1_BIT);
    EXPECT_EQ(request.info.sharingMode, VK_SHARING_MODE_EXCLUSIVE);
    EXPECT_EQ(request.info.initialLayout, VK_IMAGE_LAYOUT_UNDEFINED);
    ASSERT_EQ(driver_.allocations.size(), 1U);
    EXPECT_EQ(driver_.allocations[0].handle_types, VkExternalMemoryHandleTypeFlags{dma_buf});
}

TEST_F(VulkanImageTest, GetsMemoryOfItsOwnWhereTheDriverWantsThat) {
    const std::pair<bool, std::function<void()>> cases[] = {
        {false, [] {}},
        {true, [this] { driver_.requires_dedicated = true; }},
        {true, [this] { driver_.prefers_dedicated = true; }},
        {true,
         [this] {
             driver_.devices[0].memory_features |= VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT;
         }},
    };
    for (const auto& [dedicated, arrange] : cases) {
        driver_.requires_dedicated = driver_.prefers_dedicated = false;
        arrange();
        const VulkanImage image = export_from(wrap());
        EXPECT_EQ(driver_.allocations.back().dedicated, dedicated)
            << "case " << driver_.allocations.size();
    }
}

TEST_F(VulkanImageTest, LiesNearTheGpuWhereItMay) {
    constexpr VkMemoryPropertyFlags host = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
    constexpr VkMemoryPropertyFlags near = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
    const struct {
        std::vector<VkMemoryPropertyFlags> types;
        std::uint32_t allowed;
        std::uint32_t taken;
    } cases[] = {{{host, near}, 0b11, 1},
                 {{near, host}, 0b11, 0},
                 {{host, near}, 0b01, 0},
                 {{host, host, near}, 0b011, 0},
                 {{host, host, host}, 0b110, 1},
                 {{near, host, host | near}, 0b110, 2},
                 {{near, near, near, near}, 0b100, 2}};
    for (const auto& each : cases) {
        driver_.devices[0].memory_types = each.types;
        driver_.memory_type_bits = each.allowed;
        const VulkanImage image = export_from(wrap());
        EXPECT_EQ(driver_.allocations.back().memory_type, each.taken)
            << "case " << driver_.allocations.size();
    }
}

TEST_F(VulkanImageTest, KnowsTheVulkanFormatWithTheSameBytes) {
    const std::pair<std::uint32_t, VkFormat> formats[] = {
        {DRM_FORMAT_XRGB8888, VK_FORMAT_B8G8R8A8_UNORM},
        {DRM_FORMAT_ARGB8888, VK_FORMAT_B8G8R8A8_UNORM},
        {DRM_FORMAT_XBGR8888, VK_FORMAT_R8G8B8A8_UNORM},
        {DRM_FORMAT_ABGR8888, VK_FORMAT_R8G8B8A8_UNORM},
    };
    const VulkanDevice device = wrap();
    for (const auto& [fourcc, format] : formats) {
        EXPECT_EQ(vulkan_format(fourcc), format);
        VulkanImageInfo info = small;
        info.format = fourcc;
        const VulkanImage image = export_from(device, info);
        EXPECT_EQ(image.format(), format);
        EXPECT_EQ(image.frame().layout().format, fourcc);
    }
    EXPECT_EQ(vulkan_format(DRM_FORMAT_NV12), VK_FORMAT_UNDEFINED);
    EXPECT_EQ(vulkan_format(0), VK_FORMAT_UNDEFINED);
}

TEST_F(VulkanImageTest, RefusesWhatTheCallerOrTheDriverCannotMean) {
    auto& features = driver_.devices[0].memory_features;
    driver_.devices[0].max_extent = {200, 60};
    const struct {
        std::function<void(VulkanImageInfo&)> change;
        Errc code;
        Words words;
    } cases[] = {
        {[](auto& info) { info.format = DRM_FORMAT_C8; }, Errc::unsupported, {"C8", "XR24"}},
        {[](auto& info) { info.format = DRM_FORMAT_YUV410; },
         Errc::unsupported,
         {"YUV9", "no format for all of its planes"}},
        {[](auto& info) {
             info.format = DRM_FORMAT_NV12;
             info.width = 99;
         },
         Errc::unsupported,
         {"99x50 NV12", "no multiple of 2x2"}},
        {[](auto& info) {
             info.format = DRM_FORMAT_NV12;
             info.height = 49;
         },
         Errc::unsupported,
         {"100x49 NV12", "no multiple of 2x2"}},
        {[](auto& info) { info.format = DRM_FORMAT_RGBA8888; },
         Errc::unsupported,
         {"RA24", "only sampling moves them"}},
        {[](auto& info) { info.width = 0; }, Errc::invalid_argument, {"0x50", "no pixels"}},
        {[](auto& info) { info.height = 0; }, Errc::invalid_argument, {"100x0", "no pixels"}},
        {[](auto& info) { info.usage = 0; }, Errc::invalid_argument, {"no usage"}},
        {[](auto& info) { info.width = 201; }, Errc::unsupported, {"201x50", "200x60"}},
        {[](auto& info) { info.height = 61; }, Errc::unsupported, {"100x61", "200x60"}},
        {[&](auto&) { features = VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT; },
         Errc::unsupported,
         {"does not export it as a dma-buf", "/dev/udmabuf"}},
    };
    for (const auto& each : cases) {
        const VulkanDevice device = wrap();
        VulkanImageInfo info = small;
        each.change(info);
        Words words = each.words;
        words.insert(words.end(), {"VulkanDevice::export_image", "LINEAR on Fake GPU"});
        expect_refused(device.export_image(info), each.code, words);
    }
    EXPECT_TRUE(driver_.images.empty()) << "refused before anything is created";
}

TEST_F(VulkanImageTest, TakesAnImageAtTheDriversLimit) {
    driver_.devices[0].max_extent = {small.width, small.height};
    const VulkanImage image = export_from(wrap());
}

TEST_F(VulkanImageTest, LeaksNothingWhereACallFails) {
    const VulkanDevice device = wrap();
    for (const char* function : {"vkCreateImage", "vkGetImageDrmFormatModifierPropertiesEXT",
                                 "vkAllocateMemory", "vkBindImageMemory2", "vkGetMemoryFdKHR"})
        for (const Failure& failure : failures) {
            SCOPED_TRACE(std::string(function) + " says " + failure.name);
            driver_.fail(function, failure.result);
            expect_refused(
                device.export_image(small), failure.code,
                {"VulkanDevice::export_image(100x50 XR24", "LINEAR on Fake GPU)", failure.name},
                failure.result);
            EXPECT_EQ(driver_.living(), Kinds{});
            const VulkanImage again = export_from(device);
        }
}

TEST_F(VulkanImageTest, PassesOnWhyTheDriverCouldNotBeAsked) {
    const VulkanDevice device = wrap();
    const std::pair<VkResult, Errc> results[] = {
        {VK_ERROR_OUT_OF_HOST_MEMORY, Errc::no_resources},
        {VK_ERROR_OUT_OF_DEVICE_MEMORY, Errc::no_resources},
        {VK_ERROR_UNKNOWN, Errc::failed},
    };
    for (const auto& [result, code] : results) {
        driver_.fail("vkGetPhysicalDeviceImageFormatProperties2", result);
        expect_refused(device.export_image(small), code, {"VulkanDevice::export_image(100x50"},
                       result);
    }
    const VulkanImage image = export_from(device); // it was asked again
}

// "Return Codes": where a command fails, what it would have written is undefined.
TEST_F(VulkanImageTest, DestroysNoHandleThatAFailedCallLeftBehind) {
    driver_.failures_leave_nonsense = true;
    const VulkanDevice device = wrap();
    for (const char* function : {"vkCreateImage", "vkAllocateMemory"}) {
        driver_.fail(function, VK_ERROR_OUT_OF_DEVICE_MEMORY);
        EXPECT_FALSE(device.export_image(small)) << function;
    }
}

TEST_F(VulkanImageTest, RefusesADriverWhoseFdIsNoDmaBuf) {
    const VulkanDevice device = wrap();
    driver_.memory_fd = FakeVulkan::Gives::no_fd;
    expect_refused(device.export_image(small), Errc::wrong_object, {"there is no fd"});
    driver_.memory_fd = FakeVulkan::Gives::a_pipe;
    expect_refused(device.export_image(small), Errc::wrong_object, {"pipe", "is not a dma-buf"});
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanImageTest, RefusesALayoutThatDoesNotFitItsBufferOrItsNumbers) {
    constexpr VkDeviceSize max32 = UINT32_MAX;
    const struct {
        VkDeviceSize offset, row_pitch, memory_size;
        Errc code;
        Words words;
    } cases[] = {
        {0, 400, 19999, Errc::out_of_bounds, {"20000", "19999"}},
        {1, 400, 20000, Errc::out_of_bounds, {"20001", "20000"}},
        {0, 399, 20000, Errc::invalid_argument, {"399"}},
        {max32 + 1, 400, 4096, Errc::unsupported, {"4294967296", "above 32 bits"}},
        {0, max32 + 401, 4096, Errc::unsupported, {"4294967696", "above 32 bits"}},
        {0, max32, 4096, Errc::invalid_argument, {"4294967295"}},
    };
    const VulkanDevice device = wrap();
    for (const auto& each : cases) {
        driver_.offset = each.offset;
        driver_.row_pitch = each.row_pitch;
        driver_.memory_size = each.memory_size;
        expect_refused(device.export_image(small), each.code, each.words);
        EXPECT_EQ(driver_.living(), Kinds{});
    }
}

TEST_F(VulkanImageTest, GoesWithItsLastCopyAndItsFrameLivesOn) {
    const VulkanDevice device = wrap();
    std::optional<VulkanImage> image = export_from(device);
    std::optional<VulkanImage> copy = image;
    const Frame frame = image->frame();
    image.reset();
    EXPECT_EQ(driver_.living(), (Kinds{"image", "memory"}));
    copy.reset();
    EXPECT_EQ(driver_.living(), Kinds{});
    EXPECT_NE(test::inode_of(frame.buffer().fd()), 0U);
}

TEST_F(VulkanImageTest, MayOutliveTheHandleOnItsDevice) {
    std::optional<VulkanDevice> device = wrap();
    (void)device->submit({});
    const VulkanImage image = export_from(*device);
    device.reset();
    EXPECT_EQ(driver_.living(), (Kinds{"image", "memory"}));
}

/// What all barriers have in common.
void expect_whole_image(const VkImageMemoryBarrier& barrier, const VulkanImage& image) {
    EXPECT_EQ(barrier.sType, VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER);
    EXPECT_EQ(barrier.pNext, nullptr);
    EXPECT_EQ(barrier.image, image.image());
    EXPECT_EQ(barrier.subresourceRange.aspectMask, VkImageAspectFlags{VK_IMAGE_ASPECT_COLOR_BIT});
    EXPECT_EQ(barrier.subresourceRange.baseMipLevel, 0U);
    EXPECT_EQ(barrier.subresourceRange.levelCount, 1U);
    EXPECT_EQ(barrier.subresourceRange.baseArrayLayer, 0U);
    EXPECT_EQ(barrier.subresourceRange.layerCount, 1U);
}

TEST_F(VulkanImageTest, AcquiringToKeepTakesOwnershipFromAForeignQueueInGeneral) {
    const VulkanImage image = export_from(wrap());
    const auto barrier = image.acquire_barrier(Contents::keep, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL,
                                               VK_ACCESS_TRANSFER_READ_BIT);
    expect_whole_image(barrier, image);
    EXPECT_EQ(barrier.srcQueueFamilyIndex, VK_QUEUE_FAMILY_FOREIGN_EXT);
    EXPECT_EQ(barrier.dstQueueFamilyIndex, 1U);
    EXPECT_EQ(barrier.oldLayout, VK_IMAGE_LAYOUT_GENERAL) << "nothing else keeps foreign contents";
    EXPECT_EQ(barrier.newLayout, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
    EXPECT_EQ(barrier.srcAccessMask, 0U);
    EXPECT_EQ(barrier.dstAccessMask, VkAccessFlags{VK_ACCESS_TRANSFER_READ_BIT});
}

TEST_F(VulkanImageTest, AcquiringToDiscardTransfersNothing) {
    const VulkanImage image = export_from(wrap());
    const auto barrier =
        image.acquire_barrier(Contents::discard, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL,
                              VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT);
    expect_whole_image(barrier, image);
    EXPECT_EQ(barrier.srcQueueFamilyIndex, barrier.dstQueueFamilyIndex);
    EXPECT_EQ(barrier.srcQueueFamilyIndex, VK_QUEUE_FAMILY_IGNORED);
    EXPECT_EQ(barrier.oldLayout, VK_IMAGE_LAYOUT_UNDEFINED);
    EXPECT_EQ(barrier.newLayout, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL);
    EXPECT_EQ(barrier.srcAccessMask, 0U);
    EXPECT_EQ(barrier.dstAccessMask, VkAccessFlags{VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT});
}

TEST_F(VulkanImageTest, ReleasingGivesOwnershipToAForeignQueueInGeneral) {
    const VulkanImage image = export_from(wrap());
    const auto barrier = image.release_barrier(VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL,
                                               VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT);
    expect_whole_image(barrier, image);
    EXPECT_EQ(barrier.srcQueueFamilyIndex, 1U);
    EXPECT_EQ(barrier.dstQueueFamilyIndex, VK_QUEUE_FAMILY_FOREIGN_EXT);
    EXPECT_EQ(barrier.oldLayout, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL);
    EXPECT_EQ(barrier.newLayout, VK_IMAGE_LAYOUT_GENERAL);
    EXPECT_EQ(barrier.srcAccessMask, VkAccessFlags{VK_ACCESS_COLOR_ATTACHMENT_WRITE_BIT});
    EXPECT_EQ(barrier.dstAccessMask, 0U);
}

TEST_F(VulkanImageTest, BarriersOfSynchronization2SayTheSameWithStages) {
    const VulkanImage image = export_from(wrap());
    constexpr auto layout = VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL;
    constexpr VkPipelineStageFlags2 stages = VK_PIPELINE_STAGE_2_COPY_BIT; // beyond 32 bits
    constexpr VkAccessFlags2 access = VK_ACCESS_2_SHADER_SAMPLED_READ_BIT;
    for (const Contents contents : {Contents::keep, Contents::discard}) {
        const auto legacy = image.acquire_barrier(contents, layout, 0);
        const auto barrier = image.acquire_barrier2(contents, layout, stages, access);
        EXPECT_EQ(barrier.sType, VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER_2);
        EXPECT_EQ(barrier.srcStageMask, stages) << "where the semaphores hold it back";
        EXPECT_EQ(barrier.srcAccessMask, VK_ACCESS_2_NONE);
        EXPECT_EQ(barrier.dstStageMask, stages);
        EXPECT_EQ(barrier.dstAccessMask, access);
        EXPECT_EQ(barrier.oldLayout, legacy.oldLayout);
        EXPECT_EQ(barrier.newLayout, layout);
        EXPECT_EQ(barrier.srcQueueFamilyIndex, legacy.srcQueueFamilyIndex);
        EXPECT_EQ(barrier.dstQueueFamilyIndex, legacy.dstQueueFamilyIndex);
        EXPECT_EQ(barrier.image, image.image());
        EXPECT_EQ(barrier.subresourceRange.aspectMask, legacy.subresourceRange.aspectMask);
    }
    const auto release = image.release_barrier2(layout, stages, access);
    EXPECT_EQ(release.srcStageMask, stages);
    EXPECT_EQ(release.srcAccessMask, access);
    EXPECT_EQ(release.dstStageMask, VK_PIPELINE_STAGE_2_NONE);
    EXPECT_EQ(release.dstAccessMask, VK_ACCESS_2_NONE);
    EXPECT_EQ(release.oldLayout, layout);
    EXPECT_EQ(release.newLayout, VK_IMAGE_LAYOUT_GENERAL);
    EXPECT_EQ(release.dstQueueFamilyIndex, VK_QUEUE_FAMILY_FOREIGN_EXT);
}

TEST_F(VulkanImageTest, WithoutForeignQueuesOthersAreExternal) {
    const char* const least[] = {VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,
                                 VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
                                 VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME};
    VulkanDeviceInfo info = driver_.application();
    info.extensions = least;
    const VulkanImage image = export_from(*VulkanDevice::wrap(info));
    EXPECT_EQ(image.acquire_barrier(Contents::keep, VK_IMAGE_LAYOUT_GENERAL, 0).srcQueueFamilyIndex,
              VK_QUEUE_FAMILY_EXTERNAL);
    EXPECT_EQ(image.release_barrier(VK_IMAGE_LAYOUT_GENERAL, 0).dstQueueFamilyIndex,
              VK_QUEUE_FAMILY_EXTERNAL);
}

TEST_F(VulkanImageTest, AttachmentsAndStorageHaveAViewWithoutComponents) {
    const VulkanDevice device = wrap();
    const VulkanImage image = export_from(device); // XR24
    const auto sampled = image.view();
    const auto drawn = image.unswizzled_view();
    ASSERT_TRUE(sampled && drawn);
    EXPECT_NE(*sampled, *drawn);
    EXPECT_EQ(*image.unswizzled_view(), *drawn);
    EXPECT_EQ(driver_.views.size(), 2U);
    const VkComponentMapping& components = driver_.views.back().info.components;
    for (const VkComponentSwizzle each : {components.r, components.g, components.b, components.a})
        EXPECT_EQ(each, VK_COMPONENT_SWIZZLE_IDENTITY);
    EXPECT_EQ(driver_.views.back().info.format, image.format());

    VulkanImageInfo with_alpha = small;
    with_alpha.format = DRM_FORMAT_ARGB8888;
    const auto other = device.export_image(with_alpha);
    ASSERT_TRUE(other);
    EXPECT_EQ(*other->view(), *other->unswizzled_view()) << "there is nothing to move";

    driver_.fail("vkCreateImageView", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    expect_refused(export_from(device).unswizzled_view(), Errc::no_resources,
                   {"VulkanImage::unswizzled_view", "Fake GPU"}, VK_ERROR_OUT_OF_DEVICE_MEMORY);
}

TEST_F(VulkanImageTest, HasSrgbViewsWhereTheyWereAskedFor) {
    const VulkanDevice device = wrap();
    VulkanImageInfo info = small;
    info.usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_SAMPLED_BIT |
                 VK_IMAGE_USAGE_STORAGE_BIT;
    info.srgb_views = true;
    const auto image = device.export_image(info);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(image->format(), VK_FORMAT_B8G8R8A8_UNORM);
    EXPECT_EQ(driver_.images.back().info.flags,
              VkImageCreateFlags{VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT});
    EXPECT_EQ(driver_.images.back().view_formats,
              (std::vector{VK_FORMAT_B8G8R8A8_UNORM, VK_FORMAT_B8G8R8A8_SRGB}));

    const auto sampled = image->view(VulkanCurve::srgb);
    ASSERT_TRUE(sampled) << sampled.error().message();
    EXPECT_EQ(driver_.views.back().info.format, VK_FORMAT_B8G8R8A8_SRGB);
    EXPECT_EQ(driver_.views.back().info.components.a, VK_COMPONENT_SWIZZLE_ONE);
    EXPECT_EQ(driver_.views.back().usage,
              VkImageUsageFlags{VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_SAMPLED_BIT})
        << "few drivers store through the curve";
    const auto drawn = image->unswizzled_view(VulkanCurve::srgb);
    ASSERT_TRUE(drawn) << drawn.error().message();
    EXPECT_EQ(driver_.views.back().info.format, VK_FORMAT_B8G8R8A8_SRGB);
    EXPECT_EQ(driver_.views.back().info.components.a, VK_COMPONENT_SWIZZLE_IDENTITY);
    EXPECT_EQ(*image->view(VulkanCurve::none), *image->view());
    EXPECT_EQ(driver_.views.back().info.format, VK_FORMAT_B8G8R8A8_UNORM);
    EXPECT_EQ(driver_.views.back().usage, 0U) << "the image's";
    EXPECT_EQ(driver_.views.size(), 3U);
    EXPECT_EQ(*image->view(VulkanCurve::srgb), *sampled);
    EXPECT_EQ(driver_.views.size(), 3U);

    const VulkanImage plain = export_from(device);
    EXPECT_EQ(driver_.images.back().info.flags, 0U);
    EXPECT_TRUE(driver_.images.back().view_formats.empty());
    expect_refused(plain.view(VulkanCurve::srgb), Errc::invalid_argument,
                   {"VulkanImage::view", "no sRGB views", "VulkanImageInfo::srgb_views"});
    expect_refused(plain.unswizzled_view(VulkanCurve::srgb), Errc::invalid_argument,
                   {"VulkanImage::unswizzled_view", "no sRGB views"});
}

TEST_F(VulkanImageTest, RefusesSrgbViewsThatCannotBe) {
    driver_.devices[0].formats.insert(VK_FORMAT_R5G6B5_UNORM_PACK16);
    VulkanImageInfo info = small;
    info.srgb_views = true;
    info.usage = VK_IMAGE_USAGE_STORAGE_BIT;
    expect_refused(wrap().export_image(info), Errc::invalid_argument,
                   {"VulkanDevice::export_image", "no use for an sRGB view", "SAMPLED"});
    info.usage = VK_IMAGE_USAGE_SAMPLED_BIT;
    info.format = DRM_FORMAT_RGB565;
    expect_refused(wrap().export_image(info), Errc::unsupported, {"no sRGB format"});
    info.format = DRM_FORMAT_XRGB8888;
    auto& srgb = driver_.devices[0].modifiers_of[VK_FORMAT_B8G8R8A8_SRGB];
    expect_refused(wrap().export_image(info), Errc::unsupported,
                   {"LINEAR: the driver has no such image with sRGB views for this usage"});
    srgb = driver_.devices[0].modifiers;
    srgb[0].drmFormatModifierTilingFeatures = VK_FORMAT_FEATURE_COLOR_ATTACHMENT_BIT;
    expect_refused(wrap().export_image(info), Errc::unsupported, {"with sRGB views"});
    info.usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT;
    EXPECT_TRUE(wrap().export_image(info)) << "what views are not for is the image's alone";
}

TEST_F(VulkanImageTest, ItsViewIsMadeOnceAndGoesWithIt) {
    const VulkanDevice device = wrap();
    {
        const VulkanImage image = export_from(device);
        driver_.fail("vkCreateImageView", VK_ERROR_OUT_OF_DEVICE_MEMORY);
        expect_refused(image.view(), Errc::no_resources, {"VulkanImage::view", "Fake GPU"},
                       VK_ERROR_OUT_OF_DEVICE_MEMORY);
        const auto view = image.view();
        ASSERT_TRUE(view) << view.error().message();
        const VulkanImage copy = image; // NOLINT(performance-unnecessary-copy-initialization)
        EXPECT_EQ(*copy.view(), *view);
        EXPECT_EQ(driver_.living(), (Kinds{"image", "memory", "view"}));
        const auto& made = driver_.views.back().info;
        EXPECT_EQ(made.image, image.image());
        EXPECT_EQ(made.format, image.format());
        EXPECT_EQ(made.viewType, VK_IMAGE_VIEW_TYPE_2D);
        EXPECT_EQ(made.components.a, VK_COMPONENT_SWIZZLE_ONE) << "XR24 has no alpha";
        EXPECT_EQ(driver_.views.back().conversion, VkSamplerYcbcrConversion(VK_NULL_HANDLE));
    }
    EXPECT_EQ(driver_.living(), Kinds{});
}

// ---- VulkanContext ----

class VulkanContextTest : public VulkanTest {
protected:
    static constexpr VulkanContextInfo plain{.get_instance_proc_addr =
                                                 FakeVulkan::get_instance_proc_addr};

    /// A context that must come to be.
    static VulkanContext create(const VulkanContextInfo& info = plain) {
        auto context = VulkanContext::create(info);
        EXPECT_TRUE(context) << context.error().message();
        return std::move(*context);
    }

    /// Adds a device to the driver's list.
    test::FakePhysicalDevice& add(const std::string& name, VkPhysicalDeviceType type) {
        auto& device = driver_.devices.emplace_back();
        device.name = name;
        device.type = type;
        return device;
    }

    static void take_away(test::FakePhysicalDevice& device, const char* extension) {
        std::erase(device.extensions, extension);
    }

    // Where the last of them goes, so do these, in this order.
    const std::vector<std::string> end_{"device", "instance"};
};

constexpr VulkanImageInfo one_pixel{.width = 1,
                                    .height = 1,
                                    .format = DRM_FORMAT_XRGB8888,
                                    .usage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT};

TEST_F(VulkanContextTest, MakesADeviceThatExportsAndSubmits) {
    {
        const VulkanContext context = create();
        EXPECT_EQ(context.why(), "Fake GPU: exports LINEAR dma-bufs and fences, taken");
        EXPECT_EQ(context.device().name(), "Fake GPU");
        EXPECT_EQ(context.device().info().queue_family, 1U) << "the first with graphics";
        EXPECT_TRUE(context.device().export_image(one_pixel));
        EXPECT_TRUE(context.device().submit({}));
        ASSERT_EQ(driver_.created_devices.size(), 1U);
        const auto required = VulkanDevice::required_extensions();
        EXPECT_EQ(driver_.created_devices[0].extensions, Words(required.begin(), required.end()));
        EXPECT_EQ(driver_.created_devices[0].features, nullptr);
        ASSERT_EQ(driver_.instances.size(), 1U);
        EXPECT_EQ(driver_.instances[0].api_version, VK_API_VERSION_1_1);
        EXPECT_TRUE(driver_.instances[0].layers.empty());
        EXPECT_TRUE(driver_.instances[0].extensions.empty());
    }
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanContextTest, EnablesWhatItIsAskedTo) {
    driver_.devices[0].extensions.emplace_back("VK_EXT_extra");
    const char* const layers[] = {"VK_LAYER_one", "VK_LAYER_two"};
    const char* const instance_extensions[] = {"VK_EXT_debug_utils"};
    const char* const device_extensions[] = {"VK_EXT_extra"};
    const VkPhysicalDeviceFeatures2 features{.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
    const VulkanContext context =
        create({.get_instance_proc_addr = FakeVulkan::get_instance_proc_addr,
                .application_name = "the test",
                .api_version = VK_API_VERSION_1_3,
                .instance_layers = layers,
                .instance_extensions = instance_extensions,
                .device_extensions = device_extensions,
                .device_features = &features,
                .sampler_ycbcr_conversion = true,
                .idle_attachments = 3});
    EXPECT_EQ(driver_.instances[0].application, "the test");
    EXPECT_EQ(driver_.instances[0].api_version, VK_API_VERSION_1_3);
    EXPECT_EQ(driver_.instances[0].layers, (Words{"VK_LAYER_one", "VK_LAYER_two"}));
    EXPECT_EQ(driver_.instances[0].extensions, Words{"VK_EXT_debug_utils"});
    EXPECT_EQ(driver_.created_devices[0].features, &features);
    EXPECT_TRUE(context.device().info().sampler_ycbcr_conversion);
    EXPECT_EQ(context.device().info().idle_attachments, 3U);
    const Words& enabled = driver_.created_devices[0].extensions;
    EXPECT_EQ(enabled.size(), VulkanDevice::required_extensions().size() + 1);
    EXPECT_EQ(enabled.back(), "VK_EXT_extra");
}

TEST_F(VulkanContextTest, TakesAGpuBeforeACpu) {
    driver_.devices.clear();
    add("slow", VK_PHYSICAL_DEVICE_TYPE_CPU);
    add("fast", VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU);
    add("other", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU);
    const VulkanContext context = create();
    EXPECT_EQ(context.device().name(), "fast") << "the first of the GPUs, in the loader's order";
    EXPECT_EQ(driver_.created_devices[0].physical_device, "fast");
    EXPECT_EQ(context.why(), "fast: exports LINEAR dma-bufs and fences, taken; "
                             "other: would do too; slow: would do too");
}

TEST_F(VulkanContextTest, TakesTheTypeAskedFor) {
    driver_.devices.clear();
    add("fast", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU);
    add("slow", VK_PHYSICAL_DEVICE_TYPE_CPU);
    VulkanContextInfo info = plain;
    info.type = VK_PHYSICAL_DEVICE_TYPE_CPU;
    const VulkanContext context = create(info);
    EXPECT_EQ(context.device().name(), "slow");
    EXPECT_EQ(context.why(), "fast: not of the type asked for; "
                             "slow: exports LINEAR dma-bufs and fences, taken");
    info.type = VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU;
    expect_refused(VulkanContext::create(info), Errc::unsupported,
                   {"fast: not of the type asked for; slow: not of the type asked for"});
}

TEST_F(VulkanContextTest, SaysOfEachDeviceWhyItWillNotDo) {
    std::vector<std::pair<std::function<void(test::FakePhysicalDevice&)>, std::string>> cases{
        {[](auto& device) { device.api_version = VK_API_VERSION_1_0; }, "has Vulkan 1.0 only"},
        {[](auto& device) { device.queue_families = {VK_QUEUE_COMPUTE_BIT}; },
         "has no graphics queue"},
        {[](auto& device) { device.queue_families.clear(); }, "has no graphics queue"},
        {[](auto& device) { device.memory_features = VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT; },
         "does not export it as a dma-buf"},
    };
    for (const char* extension : VulkanDevice::required_extensions())
        cases.emplace_back([extension](auto& device) { take_away(device, extension); },
                           std::string("lacks ") + extension);
    for (const auto& [spoil, reason] : cases) {
        driver_.devices.assign(1, {});
        driver_.devices[0].name = "spoilt";
        spoil(driver_.devices[0]);
        expect_refused(VulkanContext::create(plain), Errc::unsupported,
                       {"VulkanContext::create", "spoilt: ", reason});
        EXPECT_EQ(driver_.living(), Kinds{});

        add("slow", VK_PHYSICAL_DEVICE_TYPE_CPU);
        const VulkanContext context = create();
        EXPECT_EQ(context.device().name(), "slow") << "the first is no good: " << reason;
        EXPECT_NE(context.why().find("spoilt: "), std::string::npos);
        EXPECT_NE(context.why().find(reason + "; slow: exports"), std::string::npos)
            << context.why();
    }
}

TEST_F(VulkanContextTest, SaysWhichExtensionAskedForIsMissing) {
    const char* const extensions[] = {"VK_EXT_that_nobody_has"};
    VulkanContextInfo info = plain;
    info.device_extensions = extensions;
    expect_refused(VulkanContext::create(info), Errc::unsupported,
                   {"Fake GPU: lacks VK_EXT_that_nobody_has"});
}

TEST_F(VulkanContextTest, TakesTheNextDeviceWhereADriverCannotAnswer) {
    driver_.devices[0].name = "dumb";
    add("other", VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU);
    const std::pair<const char*, const char*> cases[] = {
        {"vkEnumerateDeviceExtensionProperties", "does not list its extensions"},
        {"vkGetPhysicalDeviceImageFormatProperties2", "no such LINEAR image"},
    };
    for (const auto& [function, reason] : cases) {
        driver_.fail(function, VK_ERROR_OUT_OF_HOST_MEMORY);
        const VulkanContext context = create();
        EXPECT_EQ(context.device().name(), "other");
        EXPECT_NE(context.why().find(reason), std::string::npos) << context.why();
        EXPECT_NE(context.why().find("VK_ERROR_OUT_OF_HOST_MEMORY"), std::string::npos)
            << context.why();
    }
}

TEST_F(VulkanContextTest, TakesTheNextDeviceWhereOneDoesNotExchangeSyncFds) {
    driver_.devices[0].name = "fenceless";
    driver_.devices[0].semaphore_features = 0;
    expect_refused(VulkanContext::create(plain), Errc::unsupported, {"fenceless", "SYNC_FD"});
    EXPECT_EQ(driver_.living(), Kinds{});

    add("other", VK_PHYSICAL_DEVICE_TYPE_CPU);
    const auto context = VulkanContext::create(plain);
    ASSERT_TRUE(context) << context.error().message();
    EXPECT_EQ(context->device().name(), "other");
}

TEST_F(VulkanContextTest, ReadsListsAgainThatGrewMeanwhile) {
    driver_.fail("vkEnumeratePhysicalDevices", VK_INCOMPLETE, 2);
    driver_.fail("vkEnumerateDeviceExtensionProperties", VK_INCOMPLETE, 2);
    const VulkanContext context = create();
    EXPECT_EQ(driver_.calls("vkEnumeratePhysicalDevices"), 4);
    EXPECT_EQ(driver_.calls("vkEnumerateDeviceExtensionProperties"), 4);
}

TEST_F(VulkanContextTest, SaysSoWhereThereIsNoDevice) {
    driver_.devices.clear();
    expect_refused(VulkanContext::create(plain), Errc::unsupported,
                   {"this machine's Vulkan devices", "there are none"});
}

TEST_F(VulkanContextTest, RefusesToLookUpWithoutALoader) {
    expect_refused(VulkanContext::create({}), Errc::invalid_argument,
                   {"VulkanContextInfo::get_instance_proc_addr"});
}

TEST_F(VulkanContextTest, DestroysEverythingWhereACallFails) {
    for (const char* function :
         {"vkCreateInstance", "vkEnumeratePhysicalDevices", "vkCreateDevice"})
        for (const Failure& failure : failures) {
            driver_.fail(function, failure.result);
            expect_refused(VulkanContext::create(plain), failure.code,
                           {"VulkanContext::create", function, failure.name}, failure.result);
            EXPECT_EQ(driver_.living(), Kinds{}) << function;
        }
    for (const VkResult result : {VK_ERROR_INCOMPATIBLE_DRIVER, VK_ERROR_LAYER_NOT_PRESENT,
                                  VK_ERROR_EXTENSION_NOT_PRESENT}) {
        driver_.fail("vkCreateInstance", result);
        expect_refused(VulkanContext::create(plain), Errc::unsupported, {}, result);
    }
    for (const VkResult result : {VK_ERROR_FEATURE_NOT_PRESENT, VK_ERROR_EXTENSION_NOT_PRESENT}) {
        driver_.fail("vkCreateDevice", result);
        expect_refused(VulkanContext::create(plain), Errc::unsupported, {"Fake GPU"}, result);
    }
}

// "Return Codes": where a command fails, what it would have written is undefined.
TEST_F(VulkanContextTest, DestroysNoHandleThatAFailedCallLeftBehind) {
    driver_.failures_leave_nonsense = true;
    // What is needed to destroy the nonsense is looked up only after the instance was created.
    driver_.fail("vkCreateInstance", VK_ERROR_OUT_OF_HOST_MEMORY);
    EXPECT_FALSE(VulkanContext::create(plain));
    driver_.fail("vkCreateDevice", VK_ERROR_OUT_OF_HOST_MEMORY);
    EXPECT_FALSE(VulkanContext::create(plain));
    EXPECT_EQ(driver_.living(), Kinds{});
}

TEST_F(VulkanContextTest, RefusesAFunctionThatIsMissingAndDestroysEverything) {
    (void)create();
    const auto needed = driver_.looked_up;
    // Without these no driver is one: they are as old as Vulkan and no extension's.
    const std::set<std::string> always{"vkDestroyDevice", "vkDestroyInstance", "vkGetDeviceQueue"};
    for (const std::string& function : needed) {
        if (always.contains(function) || function == self_bracketing_name) // a layer's own
            continue;
        driver_.lacks = {function};
        const auto before = driver_.living();
        const auto context = VulkanContext::create(plain);
        ASSERT_FALSE(context) << function;
        EXPECT_NE(context.error().message().find(function), std::string::npos)
            << context.error().message();
        EXPECT_EQ(driver_.living(), before) << function;
    }
}

TEST_F(VulkanContextTest, WhatWasMadeOfItKeepsItAlive) {
    std::optional<VulkanContext> context = create();
    std::optional<VulkanDevice> device = context->device();
    std::optional<VulkanImage> image = *device->export_image(one_pixel);
    ASSERT_TRUE(device->submit({}));
    context.reset();
    device.reset();
    EXPECT_EQ(driver_.living().count("device"), 1U) << "the image is still there";
    image.reset();
    const std::vector<std::string> order{"semaphore", "fence",  "image",
                                         "memory",    "device", "instance"};
    EXPECT_EQ(driver_.destroyed, order);
}

TEST_F(VulkanContextTest, DestroysTheDeviceBeforeTheInstanceAndOnceOnly) {
    {
        const VulkanContext context = create();
        const VulkanContext copy = context; // NOLINT(performance-unnecessary-copy-initialization)
    }
    EXPECT_EQ(driver_.destroyed, end_);
}

TEST_F(VulkanContextTest, KeepsTheDeviceOfAGpuThatHangs) {
    driver_.finishes_at_once = false;
    {
        const VulkanContext context = create();
        ASSERT_TRUE(context.device().submit({}));
        driver_.fail("vkWaitForFences", VK_TIMEOUT);
    }
    EXPECT_EQ(driver_.living(), (Kinds{"device", "fence", "instance", "semaphore"}))
        << "a device is destroyed after its objects, and those the GPU still uses";
    driver_.forgive_what_is_left();
}

} // namespace
} // namespace sluice
