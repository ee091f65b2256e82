// SPDX-License-Identifier: MIT
/// \file
/// Flips beside the same written with libdrm alone (support/kms_by_hand.hpp), on a card that has a
/// screen and takes foreign buffers: vkms.
///
/// A flip lasts as long as the display's refresh, whoever asks for it: the ratio tells whether any
/// is missed. What sluice adds to it is in the numbers that can be counted.
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <drm_fourcc.h>
#include <fcntl.h>

#include <sluice/frame.hpp>
#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>
#include <sluice/kms_presenter.hpp>

#include "kernel_objects.hpp"
#include "side_by_side.hpp"
#include "support/kms_by_hand.hpp"

namespace {

using bench::left_out;
using bench::SideBySide;
using sluice::deadline_in;
using sluice::Frame;
using sluice::KmsDevice;
using sluice::KmsFramebuffer;
using sluice::KmsPresenter;

constexpr auto patience = std::chrono::seconds(10);
constexpr double throughput_goal = 1 / 0.98;
constexpr int flips = 12;    // of one operation, which begins and ends with no flip under way
constexpr int slowness = 25; // it lasts for as many refreshes
constexpr int frames_in_turn = 3;

/// One mode of the card's screen, with frames to flip between.
struct Screen {
    KmsDevice card;
    KmsPresenter presenter;
    std::vector<KmsFramebuffer> frames;
    std::uint64_t next = 0;

    [[nodiscard]] const KmsFramebuffer& turn() { return frames[next++ % frames.size()]; }
    [[nodiscard]] bool flip(int times) {
        sluice::Result<void> done;
        for (int i = 0; i < times && done; ++i)
            done = presenter.present({.framebuffer = &turn()}, {}, deadline_in(patience));
        if (done)
            done = presenter.finish(deadline_in(patience));
        if (!done)
            std::puts(done.error().message().c_str());
        while (presenter.event()) {
        }
        return bool(done);
    }
    /// Has the mode be this one's.
    [[nodiscard]] bool take_over() {
        presenter.reroute();
        return flip(1);
    }
    [[nodiscard]] std::uint32_t plane() {
        for (const sluice::KmsPlane& each : presenter.output().planes())
            if (each.type == sluice::KmsPlaneType::primary)
                return each.id;
        return 0;
    }
};

std::optional<Frame> make_frame(std::uint32_t width, std::uint32_t height) {
    auto buffer = bench::udmabuf(std::uint64_t{width} * height * 4);
    if (!buffer)
        return std::nullopt;
    auto frame = Frame::create({.width = width,
                                .height = height,
                                .format = DRM_FORMAT_XRGB8888,
                                .modifier = DRM_FORMAT_MOD_LINEAR,
                                .planes = {sluice::FramePlane{.stride = width * 4}}},
                               std::move(*buffer));
    return frame ? std::optional(std::move(*frame)) : std::nullopt;
}

/// \param fd the card's open file, which each has a wrapper of its own for.
std::unique_ptr<Screen> make_screen(int fd, std::uint32_t width, std::uint32_t height) {
    auto card = KmsDevice::wrap(fd);
    if (!card)
        return nullptr;
    auto output = card->find_output({.width = width, .height = height});
    if (!output)
        return nullptr;
    auto presenter = KmsPresenter::create(std::move(*output));
    if (!presenter)
        return nullptr;
    auto screen = std::make_unique<Screen>(
        Screen{.card = *card, .presenter = std::move(*presenter), .frames = {}});
    for (int i = 0; i < frames_in_turn; ++i) {
        const auto frame = make_frame(width, height);
        auto framebuffer = frame ? card->attach(*frame)
                                 : sluice::Result<KmsFramebuffer>(tl::unexpected(sluice::Error{}));
        if (!framebuffer)
            return nullptr;
        screen->frames.push_back(*framebuffer);
    }
    return screen;
}

/// Flips through the presenter.
struct Ours {
    Screen* screen;

    bool operator()() const { return screen->flip(flips); }
};

/// The same by hand, on the same screen.
struct ByHand {
    Screen* screen;
    sluice::test::FlipsByHand* by_hand;

    bool operator()() const {
        for (int i = 0; i < flips; ++i)
            if (!by_hand->flip(screen->turn().id()))
                return false;
        return by_hand->land() != 0;
    }
};

/// Flips through the presenter, where another mode may be set.
struct InItsMode {
    Screen* screen;

    void prepare() const { static_cast<void>(screen->take_over()); }
    bool operator()() const { return screen->flip(flips); }
};

} // namespace

int main(int argc, char** argv) {
    bench::Options options;
    options.batch = std::chrono::milliseconds(200);
    if (const int status = bench::parse(argc, argv, "sluice_kms_bench", options); status >= 0)
        return status;
    bench::stay_on_this_cpu();

    sluice::UniqueFd file;
    std::unique_ptr<Screen> small;
    for (const sluice::KmsCard& each : sluice::kms_cards()) {
        sluice::UniqueFd opened(open(each.path.c_str(), O_RDWR | O_CLOEXEC));
        if (auto screen = opened ? make_screen(opened.get(), 640, 480) : nullptr) {
            file = std::move(opened);
            small = std::move(screen);
            break;
        }
    }
    if (!small || !small->take_over())
        return left_out("everything", "no card shows frames of udmabuf to us at 640x480") ? 0 : 1;
    std::printf("%s, %.2f Hz\n", small->card.driver().c_str(),
                small->presenter.output().refresh_mhz() / 1000.0);

    SideBySide rows(options);
    bool complete = true;
    sluice::test::FlipsByHand by_hand(file.get(), small->presenter.output().crtc(), small->plane());
    rows.add({.name = "(by hand beside itself)", .slowness = slowness, .stepped = false},
             ByHand{.screen = small.get(), .by_hand = &by_hand},
             ByHand{.screen = small.get(), .by_hand = &by_hand});
    rows.add({.name = "12 flips through KmsPresenter, 640x480",
              .goal = throughput_goal,
              .slowness = slowness,
              .stepped = false},
             Ours{.screen = small.get()}, ByHand{.screen = small.get(), .by_hand = &by_hand});
    const auto large = make_screen(file.get(), 4096, 2160);
    if (large)
        rows.add({.name = "12 flips, 4096x2160; 640x480",
                  .goal = throughput_goal,
                  .slowness = slowness,
                  .stepped = false},
                 InItsMode{.screen = large.get()}, InItsMode{.screen = small.get()});
    else
        complete = left_out("a large screen", "the card has no mode of 4096x2160, or no memory");
    return rows.run(argv[0], complete);
}
