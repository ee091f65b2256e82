// SPDX-License-Identifier: MIT
// Framebuffers in real cards: found again, refused, shared between devices, and closed.
#include <sluice/kms_framebuffer.hpp>

#include <optional>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/resource.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>

#include "support/allocations.hpp"
#include "support/drm_cards.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/syscall_counter.hpp"
#include "support/vkms.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::make_frame;

constexpr std::uint32_t width = 640;
constexpr std::uint32_t height = 480;

class KmsFramebufferSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        file_ = test::open_drm("vkms");
        SLUICE_REQUIRES(file_, "no vkms card");
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
    }
    void TearDown() override {
        file_.reset();
        FdTest::TearDown();
    }

    KmsDevice card() const { return wrap(file_.get()); }
    static KmsDevice wrap(int fd) {
        auto wrapped = KmsDevice::wrap(fd);
        EXPECT_TRUE(wrapped) << wrapped.error().message();
        return *wrapped;
    }
    /// \p frame through fds of its own.
    static Frame again(const Frame& frame) {
        return *Frame::create(frame.layout(), std::move(*frame.buffer().duplicate()));
    }

    UniqueFd file_;
};

TEST_F(KmsFramebufferSystemTest, AWarmAttachMakesNoSystemCallAndTakesNoMemory) {
    const test::SyscallCounter counter;
    SLUICE_REQUIRES(counter.available(), "the kernel counts no system calls for us (perf)");
    const KmsDevice device = card();
    const Frame frame = make_frame(width, height);
    const Frame same = again(frame);
    const std::uint32_t id = device.attach(frame)->id();
    EXPECT_EQ(device.attach(same)->id(), id);

    const std::size_t allocated = test::allocations();
    const auto calls = counter.count([&] {
        for (int flip = 0; flip < 100; ++flip) {
            auto known = device.attach(flip % 2 == 0 ? frame : same);
            EXPECT_EQ(known->id(), id);
        }
    });
    EXPECT_EQ(test::allocations() - allocated, 0U);
    EXPECT_EQ(calls, 0);
    EXPECT_GT(counter.count([&] { (void)device.attach(make_frame(width, height)); }), 2)
        << "a cold one imports";
}

TEST_F(KmsFramebufferSystemTest, ARefusalIsGivenAgainWithoutAskingTheCard) {
    const test::SyscallCounter counter;
    SLUICE_REQUIRES(counter.available(), "the kernel counts no system calls for us (perf)");
    const UniqueFd virtio = test::open_drm("virtio_gpu"); // imports nothing of others
    SLUICE_REQUIRES(virtio, "no virtio_gpu card");
    const KmsDevice device = wrap(virtio.get());
    const Frame frame = make_frame(width, height);
    const auto first = device.attach(frame);
    ASSERT_FALSE(first);
    const Frame same = again(frame);
    (void)device.attach(same);
    std::string second;
    EXPECT_EQ(counter.least([&] { second = device.attach(same).error().message(); }), 0);
    EXPECT_EQ(second, first.error().message());
    device.forget_refusals();
    EXPECT_GT(counter.count([&] { EXPECT_FALSE(device.attach(frame)); }), 0);
}

TEST_F(KmsFramebufferSystemTest, WhatWasOutOfFdsIsTriedAgain) {
    const KmsDevice device = card();
    const Frame frame = make_frame(width, height);
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    // An import takes no fd, but opening the card does.
    rlimit none = before;
    none.rlim_cur = 3;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    const auto refused = KmsDevice::wrap(file_.get());
    const bool attached = device.attach(frame).has_value();
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::no_resources) << refused.error().message();
    EXPECT_TRUE(attached);
    EXPECT_TRUE(KmsDevice::wrap(file_.get()));
}

// Duplicates of a fd share its GEM handles: what one device closes, another must not be using.
TEST_F(KmsFramebufferSystemTest, DevicesOverDuplicatesLeaveEachOthersHandlesAlone) {
    const UniqueFd copy = std::move(*file_.duplicate());
    const std::vector<Frame> frames{make_frame(64, 64), make_frame(64, 64)};
    const auto work = [&frames](const KmsDevice& device) {
        for (int round = 0; round < 300; ++round) {
            for (const Frame& each : frames) {
                auto framebuffer = device.attach(again(each));
                ASSERT_TRUE(framebuffer) << framebuffer.error().message();
            }
            device.drop_idle_framebuffers();
        }
    };
    {
        std::jthread one(work, card());
        std::jthread other(work, wrap(copy.get()));
        std::jthread third(work, card());
    }
    EXPECT_EQ(test::lowest_free_handle(file_.get()), 1U) << "a handle was left open";
}

/// Shows \p framebuffer by hand on the output that \p output has lit.
void show_by_hand(int fd, const KmsFramebuffer& framebuffer, std::uint32_t plane,
                  std::uint32_t crtc) {
    ASSERT_EQ(drmModeSetPlane(fd, plane, crtc, framebuffer.id(), 0, 0, 0, width, height, 0, 0,
                              width << 16U, height << 16U),
              0)
        << strerror(errno);
}

std::uint32_t shown_by(int fd, std::uint32_t plane) {
    drmModePlane* asked = drmModeGetPlane(fd, plane);
    const std::uint32_t shown = asked != nullptr ? asked->fb_id : 0;
    drmModeFreePlane(asked);
    return shown;
}

TEST_F(KmsFramebufferSystemTest, ClosingAFramebufferChangesNoScreen) {
    const KmsDevice device = card();
    auto output = device.find_output({.width = width, .height = height});
    ASSERT_TRUE(output) << output.error().message();
    const Frame first = make_frame(width, height);
    const auto lit = device.attach(first);
    auto flip = output->commit({.framebuffer = &*lit});
    ASSERT_TRUE(flip) << flip.error().message();
    ASSERT_TRUE(flip->out_fence->wait(deadline_in(10s)));
    std::uint32_t crtc = 0, plane = 0;
    ASSERT_EQ(
        std::sscanf(output->name().c_str(), "Virtual-%*u on CRTC %u, plane %u", &crtc, &plane), 2)
        << output->name();
    std::uint32_t id = 0;
    {
        const auto framebuffer = device.attach(make_frame(width, height));
        id = framebuffer->id();
        show_by_hand(file_.get(), *framebuffer, plane, crtc);
    }
    EXPECT_EQ(shown_by(file_.get(), plane), id);
    device.drop_idle_framebuffers();
    EXPECT_EQ(shown_by(file_.get(), plane), id) << "somebody else shows it, and it was turned off";
}

} // namespace
} // namespace sluice
