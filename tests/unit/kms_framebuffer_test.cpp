// SPDX-License-Identifier: MIT
#include <sluice/kms_framebuffer.hpp>

#include <array>
#include <optional>

#include <drm.h>
#include <drm_fourcc.h>
#include <drm_mode.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <sluice/kms_device.hpp>

#include "support/fake_kms.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::FakeKms;

/// One card, whose kernel knows CLOSEFB or not.
class KmsFramebufferTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
        libc_.ppoll = [](pollfd* fds, nfds_t, const timespec*) {
            fds->revents = fds->events;
            return 1;
        };
        libc_.ioctl = [this](int, unsigned long request, void* argument) {
            EXPECT_EQ(request, DRM_IOCTL_MODE_CLOSEFB);
            ++asked_to_close_;
            const auto* framebuffer = static_cast<drm_mode_closefb*>(argument);
            EXPECT_EQ(framebuffer->pad, 0U);
            if (knows_closefb_ && card_->framebuffers.erase(framebuffer->fb_id) == 1)
                return 0;
            errno = knows_closefb_ ? ENOENT : EINVAL; // drm_ioctl() of a number it does not know
            return -1;
        };
        null_ = UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC));
        card_.emplace();
    }
    void TearDown() override {
        card_.reset();
        null_.reset();
        FdTest::TearDown();
    }

    KmsDevice wrap(std::uint32_t idle_framebuffers = 16) const {
        auto device = KmsDevice::wrap(null_.get(), {.idle_framebuffers = idle_framebuffers});
        EXPECT_TRUE(device) << device.error().message();
        return *device;
    }
    static DmaBuf buffer() { return std::move(*DmaBuf::from_fd(test::memfd(8192))); }
    /// A frame over \p buffer, through a fd of its own.
    static Frame over(const DmaBuf& buffer, std::uint32_t offset = 0) {
        auto made = Frame::create({.width = 16,
                                   .height = 4,
                                   .format = DRM_FORMAT_XRGB8888,
                                   .planes = {FramePlane{.offset = offset, .stride = 64}}},
                                  std::move(*buffer.duplicate()));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }
    static KmsFramebuffer attach(const KmsDevice& device, const Frame& frame) {
        auto made = device.attach(frame);
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }

    static Error refused(const Result<KmsFramebuffer>& result) {
        EXPECT_FALSE(result);
        return result ? Error{} : result.error();
    }

    test::ScriptedLibc libc_;
    std::optional<FakeKms> card_;
    UniqueFd null_;
    bool knows_closefb_ = true;
    int asked_to_close_ = 0;
};

TEST_F(KmsFramebufferTest, ThePlanesOfOneBufferShareItsHandle) {
    for (const bool modifiers : {true, false}) {
        card_->takes_modifiers = modifiers;
        const KmsDevice device = wrap();
        auto frame = Frame::create(
            {.width = 64,
             .height = 16,
             .format = DRM_FORMAT_YUV420,
             .modifier = DRM_FORMAT_MOD_LINEAR,
             .planes = {FramePlane{0, 128}, FramePlane{2048, 64}, FramePlane{2560, 96}}},
            buffer());
        ASSERT_TRUE(frame) << frame.error().message();
        (void)attach(device, *frame);
        const std::uint32_t handle = card_->last_handle;
        EXPECT_EQ(card_->asked_with_modifiers, modifiers);
        EXPECT_EQ(card_->format, static_cast<std::uint32_t>(DRM_FORMAT_YUV420));
        EXPECT_EQ(card_->handles, (FakeKms::Words{handle, handle, handle, 0}));
        EXPECT_EQ(card_->pitches, (FakeKms::Words{128, 64, 96, 0}));
        EXPECT_EQ(card_->offsets, (FakeKms::Words{0, 2048, 2560, 0}));
        EXPECT_EQ(card_->modifiers, (std::array<std::uint64_t, 4>{}));
    }
    EXPECT_EQ(card_->imports, 2);
    EXPECT_EQ(card_->closed, 2) << "one handle, closed once";
    EXPECT_TRUE(card_->framebuffers.empty());
}

TEST_F(KmsFramebufferTest, EachOfSeveralBuffersHasItsHandle) {
    const KmsDevice device = wrap();
    std::vector<DmaBuf> buffers;
    buffers.push_back(buffer());
    buffers.push_back(buffer());
    auto frame = Frame::create({.width = 16,
                                .height = 16,
                                .format = DRM_FORMAT_NV12,
                                .modifier = I915_FORMAT_MOD_Y_TILED,
                                .planes = {FramePlane{.stride = 128},
                                           FramePlane{.offset = 64, .stride = 128, .buffer = 1}}},
                               std::move(buffers));
    ASSERT_TRUE(frame) << frame.error().message();
    (void)attach(device, *frame);
    EXPECT_EQ(card_->handles, (FakeKms::Words{5, 6, 0, 0}));
    EXPECT_EQ(card_->offsets, (FakeKms::Words{0, 64, 0, 0}));
    EXPECT_EQ(card_->modifiers, (std::array<std::uint64_t, 4>{I915_FORMAT_MOD_Y_TILED,
                                                              I915_FORMAT_MOD_Y_TILED, 0, 0}));
    EXPECT_EQ(card_->closed, 2);
}

TEST_F(KmsFramebufferTest, DevicesOverDuplicatesOfOneFdCountTheirHandlesTogether) {
    if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, null_.get(), null_.get()) < 0)
        GTEST_SKIP() << "kcmp(2) is not to be had here";
    const UniqueFd copy = std::move(*null_.duplicate());
    const KmsDevice one = wrap();
    auto other = KmsDevice::wrap(copy.get());
    ASSERT_TRUE(other);
    const DmaBuf shared = buffer();
    const Frame frame = over(shared);
    card_->while_adding = [&] {
        (void)attach(*other, over(shared));
        EXPECT_EQ(card_->closed, 0) << "the first has still to make its framebuffer of it";
    };
    (void)attach(one, frame);
    EXPECT_EQ(card_->imports, 2);
    EXPECT_EQ(card_->closed, 1);
}

TEST_F(KmsFramebufferTest, AnImportThatFailsHalfwayClosesWhatItHad) {
    const KmsDevice device = wrap();
    const Frame frame = over(buffer());
    card_->add_error = ENOMEM;
    EXPECT_EQ(refused(device.attach(frame)).code, Errc::no_resources);
    EXPECT_TRUE(card_->open_handles.empty());
}

TEST_F(KmsFramebufferTest, AFrameOfKnownBuffersIsFoundByTheirIdentity) {
    const KmsDevice device = wrap();
    std::array<DmaBuf, 4> pool{buffer(), buffer(), buffer(), buffer()};
    std::set<std::uint32_t> ids;
    for (int round = 0; round < 20; ++round)
        for (const DmaBuf& each : pool) {
            const Frame frame = over(each);
            const KmsFramebuffer framebuffer = attach(device, frame);
            EXPECT_EQ(framebuffer.frame(), frame) << "the one that was passed";
            ids.insert(framebuffer.id());
        }
    EXPECT_EQ(ids.size(), pool.size());
    EXPECT_EQ(card_->adds, 4);
}

TEST_F(KmsFramebufferTest, AnotherLayoutIsAnotherFramebuffer) {
    const KmsDevice device = wrap();
    const DmaBuf shared = buffer();
    const Frame first = over(shared);
    const Frame moved = over(shared, 4096);
    EXPECT_NE(attach(device, first).id(), attach(device, moved).id());
    EXPECT_EQ(card_->adds, 2);
}

TEST_F(KmsFramebufferTest, WhatNobodyHoldsGoes) {
    const KmsDevice device = wrap(4);
    const Frame held = over(buffer());
    const std::uint32_t id = attach(device, held).id();
    for (int each = 0; each < 100; ++each) {
        (void)attach(device, over(buffer()));
        EXPECT_LE(card_->framebuffers.size(), 12U);
    }
    EXPECT_EQ(attach(device, held).id(), id);
    device.drop_idle_framebuffers();
    EXPECT_EQ(card_->framebuffers.size(), 1U);
}

TEST_F(KmsFramebufferTest, RevokingDropsTheFramebuffer) {
    const KmsDevice device = wrap();
    const DmaBuf shared = buffer();
    const Frame frame = over(shared);
    const Frame again = over(shared);
    (void)attach(device, frame);
    (void)attach(device, again);
    EXPECT_EQ(card_->framebuffers.size(), 1U);
    ASSERT_TRUE(again.revoke(deadline_in(0s)));
    EXPECT_TRUE(card_->framebuffers.empty());
    EXPECT_EQ(refused(device.attach(again)).code, Errc::revoked);
}

TEST_F(KmsFramebufferTest, ARefusalIsRememberedWithItsReason) {
    const KmsDevice device = wrap();
    const DmaBuf shared = buffer();
    std::optional<Frame> frame(over(shared));
    for (const bool import : {true, false}) {
        (import ? card_->import_error : card_->add_error) = EINVAL;
        const int imports = card_->imports;
        const std::string first = refused(device.attach(*frame)).message();
        for (int flip = 0; flip < 20; ++flip)
            EXPECT_EQ(refused(device.attach(over(shared))).message(), first);
        EXPECT_EQ(card_->imports, imports + 1) << "the card was asked again";
        card_->import_error = card_->add_error = 0;
        EXPECT_FALSE(device.attach(*frame)) << "remembered";
        device.forget_refusals();
    }
    const std::uint32_t id = attach(device, *frame).id();
    device.forget_refusals();
    EXPECT_EQ(attach(device, *frame).id(), id) << "this was no refusal";
}

TEST_F(KmsFramebufferTest, ARefusalGoesWithItsFrame) {
    const KmsDevice device = wrap(4);
    const DmaBuf shared = buffer();
    card_->add_error = EINVAL;
    EXPECT_FALSE(device.attach(over(shared)));
    card_->add_error = 0;
    EXPECT_FALSE(device.attach(over(shared)));
    for (int each = 0; each < 20; ++each)
        (void)attach(device, over(buffer()));
    EXPECT_TRUE(device.attach(over(shared)));
}

TEST_F(KmsFramebufferTest, ARefusalThatMayPassIsNotRemembered) {
    const KmsDevice device = wrap();
    for (const int error : {ENOMEM, EMFILE, ENFILE, EINTR, EBUSY, ENOSPC, EACCES, EIO})
        for (const bool import : {true, false}) {
            const Frame frame = over(buffer());
            (import ? card_->import_error : card_->add_error) = error;
            EXPECT_EQ(refused(device.attach(frame)).sys_errno, error);
            card_->import_error = card_->add_error = 0;
            EXPECT_TRUE(device.attach(frame)) << error;
        }
}

TEST_F(KmsFramebufferTest, AFramebufferIsClosedWithoutTouchingTheScreenWhereTheKernelCan) {
    {
        const KmsDevice device = wrap(0);
        (void)attach(device, over(buffer()));
    }
    EXPECT_EQ(asked_to_close_, 1);
    EXPECT_EQ(card_->removed, 0);
}

TEST_F(KmsFramebufferTest, AnOlderKernelIsAskedOnce) {
    knows_closefb_ = false;
    {
        const KmsDevice device = wrap();
        for (int each = 0; each < 3; ++each)
            (void)attach(device, over(buffer()));
    }
    EXPECT_EQ(asked_to_close_, 1);
    EXPECT_EQ(card_->removed, 3);
}

} // namespace
} // namespace sluice
