// SPDX-License-Identifier: MIT
// A program that dies in the middle of a flip, and who comes after it.
#include <sluice/kms_presenter.hpp>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>

#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/vkms.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::make_frame;
using test::SwSync;

constexpr std::uint32_t width = 640;
constexpr std::uint32_t height = 480;
constexpr auto patience = 20s;

std::string read_all(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream all;
    all << file.rdbuf();
    return all.str();
}

/// What the whole kernel has allocated of what a display program makes.
struct Witness {
    std::string buffers;      // "Total 3 objects, 3686400 bytes" of debugfs' dma_buf/bufinfo
    std::string framebuffers; // the card's own list

    [[nodiscard]] bool operator==(const Witness&) const = default;

    static Witness of(const std::string& card) {
        Witness now;
        std::istringstream lines(read_all("/sys/kernel/debug/dma_buf/bufinfo"));
        for (std::string line; std::getline(lines, line);)
            if (line.rfind("Total ", 0) == 0)
                now.buffers = line;
        now.framebuffers =
            read_all("/sys/kernel/debug/dri/" +
                     card.substr(card.find_last_not_of("0123456789") + 1) + "/framebuffer");
        return now;
    }
};

/// Shows frames on the card, for ever. \p fence holds the flips after the first; null: none.
/// \p ready gets a byte once the first is on the screen.
[[noreturn]] void show_until_killed(const std::string& path, const SyncFile* fence, int ready) {
    const auto check = [](bool good) {
        if (!good)
            _exit(1);
    };
    auto card = KmsDevice::open(path);
    check(card.has_value());
    auto output = card->find_output({.width = width, .height = height});
    check(output.has_value());
    auto presenter = KmsPresenter::create(std::move(*output), {.queue_length = 2});
    check(presenter.has_value());
    const std::vector<Frame> frames{make_frame(width, height), make_frame(width, height),
                                    make_frame(width, height)};
    for (std::uint64_t i = 0;; ++i) {
        const KmsFramebuffer framebuffer = *card->attach(frames[i % frames.size()]);
        const auto done =
            presenter->present({.framebuffer = &framebuffer, .in_fence = i > 0 ? fence : nullptr},
                               {.id = i}, deadline_in(patience));
        if (i == 0) {
            check(done && presenter->finish(deadline_in(patience)));
            check(write(ready, "", 1) == 1);
        } else if (!done) {
            pause(); // the fence holds all of them
        }
    }
}

class KmsKilledSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        path = test::card_of("vkms");
        SLUICE_REQUIRES(!path.empty(), "no vkms card");
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
        SLUICE_REQUIRES(!Witness::of(path).buffers.empty(), "no bufinfo in debugfs");
    }

    /// Has a program show frames, and kills it after \p life; then \p when_dying runs, in the time
    /// that the kernel takes to end it.
    void kill_one(
        const SyncFile* fence, std::chrono::microseconds life, const Witness& before,
        const std::function<void()>& when_dying = [] {}) const {
        std::array<int, 2> ends{};
        ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
        UniqueFd reads(std::move(ends[0])), writes(std::move(ends[1]));
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0)
            show_until_killed(path, fence, writes.get());
        writes.reset();
        char byte = 0;
        const bool shows = read(reads.get(), &byte, 1) == 1;
        std::this_thread::sleep_for(life);
        const Witness while_it_lived = Witness::of(path);
        EXPECT_NE(while_it_lived.buffers, before.buffers) << "the witness sees nothing";
        EXPECT_NE(while_it_lived.framebuffers, before.framebuffers);
        if (fence != nullptr) {
            EXPECT_EQ(fence->status()->state, FenceState::pending);
        }
        ASSERT_EQ(kill(child, SIGKILL), 0);
        when_dying();
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_TRUE(shows) << "it did not get as far as the screen";
        ASSERT_TRUE(WIFSIGNALED(status)) << "it died by itself: " << status;
    }
    /// A new program: the screen is its own with the first commit.
    void take_the_screen() const {
        auto card = KmsDevice::open(path);
        ASSERT_TRUE(card) << card.error().message();
        ASSERT_TRUE(card->is_master());
        auto output = card->find_output({.width = width, .height = height});
        ASSERT_TRUE(output) << output.error().message();
        const Frame frame = make_frame(width, height);
        const KmsFramebuffer framebuffer = *card->attach(frame);
        auto flip = output->commit({.framebuffer = &framebuffer});
        ASSERT_TRUE(flip) << flip.error().message();
        ASSERT_TRUE(flip->out_fence->wait(deadline_in(patience)));
        EXPECT_TRUE(same_buffer(*output->on_screen(), frame.buffer()));
    }
    /// What was allocated is as it was, once the kernel's workers are through.
    void expect_nothing_left_since(const Witness& before) const {
        Witness now = Witness::of(path);
        for (const Deadline end = deadline_in(5s); now != before && Deadline::clock::now() < end;
             now = Witness::of(path))
            std::this_thread::sleep_for(5ms);
        EXPECT_EQ(now.buffers, before.buffers);
        EXPECT_EQ(now.framebuffers, before.framebuffers);
    }
    static unsigned long times() {
        const char* wanted = std::getenv("SLUICE_KILLS");
        return wanted != nullptr ? std::strtoul(wanted, nullptr, 10) : 10;
    }

    std::string path;
};

TEST_F(KmsKilledSystemTest, ANewProgramGetsTheScreenAndNothingIsLeft) {
    const Witness before = Witness::of(path);
    std::minstd_rand random(7);
    for (unsigned long i = 0; i < times() && !HasFailure(); ++i) {
        SCOPED_TRACE(i);
        kill_one(nullptr, std::chrono::microseconds(random() % 40'000), before);
        take_the_screen();
        expect_nothing_left_since(before);
    }
    std::printf("killed %lu times; %s\n", times(), before.buffers.c_str());
}

TEST_F(KmsKilledSystemTest, AFlipThatWasHeldByAnothersFenceGoesToo) {
    const Witness before = Witness::of(path);
    for (unsigned long i = 0; i < times() && !HasFailure(); ++i) {
        SCOPED_TRACE(i);
        SwSync timeline;
        const SyncFile fence = timeline.fence(1);
        // The kernel takes the dead one's framebuffers off the screen after its last flip.
        kill_one(&fence, 20ms, before, [&] {
            std::this_thread::sleep_for(40ms);
            timeline.advance(1);
        });
        take_the_screen();
        expect_nothing_left_since(before);
    }
}

} // namespace
} // namespace sluice
