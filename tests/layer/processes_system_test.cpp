// SPDX-License-Identifier: MIT
// Processes that share dma-bufs over sockets: plain Vulkan programs with the layer and without,
// and the test itself, which uses no Vulkan. On a real kernel.
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layer/peer_talk.hpp"
#include "layer/plain_program.hpp"
#include "support/requires.hpp"

namespace {

using namespace plain;

constexpr std::uint32_t before = 0x01010101, after = 0x02020202;
constexpr int long_enough = 500, for_ever = 60'000; // milliseconds

/// A plain Vulkan program in its own process.
class Peer {
public:
    explicit Peer(const Mode& mode) {
        std::array<int, 2> sockets{}, gates{};
        check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()) == 0,
              "socketpair");
        check(pipe2(gates.data(), O_CLOEXEC) == 0, "pipe2");
        socket_ = sockets[0];
        gate_ = gates[1];
        const std::string socket = std::to_string(sockets[1]), gate = std::to_string(gates[0]);
        child_ = fork();
        if (child_ == 0) {
            for (int each : {sockets[1], gates[0]})
                fcntl(each, F_SETFD, 0);
            execl(SLUICE_PLAIN_PEER, SLUICE_PLAIN_PEER, socket.c_str(), gate.c_str(),
                  mode.layer ? "layer" : "no-layer", mode.barriers ? "barriers" : "no-barriers",
                  nullptr);
            _exit(127);
        }
        close(sockets[1]);
        close(gates[0]);
    }
    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;
    ~Peer() {
        close(socket_);
        close(gate_);
        int status = -1;
        while (waitpid(child_, &status, 0) < 0 && errno == EINTR) {
        }
        EXPECT_EQ(status, 0) << "the program did not end well";
    }

    void import(int fd) const {
        EXPECT_TRUE(tell(socket_, {.say = Say::import}, fd));
        EXPECT_TRUE(says(Say::import, for_ever));
    }
    /// \returns a fd of a buffer that it has made, the caller's.
    [[nodiscard]] int export_one() const {
        EXPECT_TRUE(tell(socket_, {.say = Say::export_one}));
        const auto heard = hear(socket_, for_ever);
        EXPECT_TRUE(heard && heard->message.say == Say::export_one);
        return heard ? heard->fd : -1;
    }
    void read(bool gated = false) const {
        EXPECT_TRUE(tell(socket_, {.say = Say::read, .word = 0, .gated = gated}));
    }
    void write(std::uint32_t word, bool gated = false) const {
        EXPECT_TRUE(tell(socket_, {.say = Say::write, .word = word, .gated = gated}));
    }
    /// Lets gated work begin.
    void open_gate() const { EXPECT_EQ(::write(gate_, "", 1), 1); }

    /// Whether it says that within \p milliseconds, whatever it says before.
    [[nodiscard]] std::optional<std::uint32_t> says(Say what, int milliseconds) const {
        while (const auto heard = hear(socket_, milliseconds))
            if (heard->message.say == what)
                return heard->message.word;
        return std::nullopt;
    }

private:
    int socket_ = -1, gate_ = -1;
    pid_t child_ = -1;
};

class LayerProcessesSystemTest : public ::testing::TestWithParam<Mode> {
protected:
    void SetUp() override {
        SLUICE_REQUIRES(access("/dev/udmabuf", R_OK | W_OK) == 0, "/dev/udmabuf does not open");
        SLUICE_REQUIRES(Fence::available(), "no sw_sync in debugfs: no fences to control");
        setenv("VK_ADD_LAYER_PATH", SLUICE_LAYER_MANIFESTS, 1);
    }
    /// How long something is waited for that does not come with the layer.
    static int not_with_the_layer() { return GetParam().layer ? long_enough : for_ever; }
};

TEST_P(LayerProcessesSystemTest, AProgramReadsWhatTheFenceOfAnotherProcessIsAbout) {
    const Buffer shared;
    const Fence fence;
    const Peer reader(GetParam());
    reader.import(shared.fd());
    shared.fill(before);
    shared.leave(fence.fd());
    reader.read();
    auto word = reader.says(Say::done, not_with_the_layer());
    EXPECT_EQ(word.has_value(), !GetParam().layer);
    shared.fill(after);
    fence.signal();
    if (!word)
        word = reader.says(Say::done, for_ever);
    EXPECT_EQ(word, GetParam().layer ? after : before);
}

TEST_P(LayerProcessesSystemTest, AProcessThatTrustsPollSeesWhatAProgramWrote) {
    const Buffer shared;
    const Peer writer(GetParam());
    writer.import(shared.fd());
    shared.fill(before);
    writer.write(after, true);
    // Lavapipe makes who asks for a fence wait for the work, so with the layer this is not said.
    const bool early = writer.says(Say::submitted, not_with_the_layer()).has_value();
    EXPECT_EQ(early, !GetParam().layer);
    if (!early) {
        writer.open_gate();
        EXPECT_TRUE(writer.says(Say::submitted, for_ever));
    }
    EXPECT_TRUE(shared.idle_within(for_ever));
    EXPECT_EQ(shared.last_word(), GetParam().layer ? after : before);
    if (early)
        writer.open_gate();
    EXPECT_TRUE(writer.says(Say::done, for_ever));
    EXPECT_EQ(shared.last_word(), after);
}

TEST_P(LayerProcessesSystemTest, AProgramLeavesABufferAloneWhileAnotherProcessReadsIt) {
    const Buffer shared;
    const Fence fence;
    const Peer writer(GetParam());
    writer.import(shared.fd());
    shared.fill(before);
    shared.leave(fence.fd(), false);
    writer.write(after);
    const bool early = writer.says(Say::done, not_with_the_layer()).has_value();
    EXPECT_EQ(early, !GetParam().layer);
    EXPECT_EQ(shared.last_word(), GetParam().layer ? before : after);
    fence.signal();
    if (!early) {
        EXPECT_TRUE(writer.says(Say::done, for_ever));
    }
    EXPECT_EQ(shared.last_word(), after);
}

TEST_P(LayerProcessesSystemTest, AProgramReadsWhatAnotherWrote) {
    const Peer writer(GetParam()), reader(GetParam());
    const Buffer shared(writer.export_one(), Buffer::default_size);
    reader.import(shared.fd());
    shared.fill(before);
    writer.write(after, true);
    const bool early = writer.says(Say::submitted, not_with_the_layer()).has_value();
    EXPECT_EQ(early, !GetParam().layer);
    if (!early) {
        writer.open_gate();
        EXPECT_TRUE(writer.says(Say::submitted, for_ever));
    }
    reader.read();
    EXPECT_EQ(reader.says(Say::done, for_ever), GetParam().layer ? after : before);
    if (early)
        writer.open_gate();
    EXPECT_TRUE(writer.says(Say::done, for_ever));
}

TEST_P(LayerProcessesSystemTest, AProgramOverwritesWhatAnotherHasRead) {
    const Peer writer(GetParam()), reader(GetParam());
    const Buffer shared(writer.export_one(), Buffer::default_size);
    reader.import(shared.fd());
    shared.fill(before);
    reader.read(true);
    const bool early = reader.says(Say::submitted, not_with_the_layer()).has_value();
    EXPECT_EQ(early, !GetParam().layer);
    if (!early) {
        reader.open_gate();
        EXPECT_TRUE(reader.says(Say::submitted, for_ever));
    }
    writer.write(after);
    EXPECT_TRUE(writer.says(Say::done, for_ever));
    if (early)
        reader.open_gate();
    EXPECT_EQ(reader.says(Say::done, for_ever), GetParam().layer ? before : after);
}

INSTANTIATE_TEST_SUITE_P(All, LayerProcessesSystemTest,
                         ::testing::Values(Mode{.layer = false, .barriers = true},
                                           Mode{.layer = true, .barriers = true},
                                           Mode{.layer = false, .barriers = false},
                                           Mode{.layer = true, .barriers = false}),
                         [](const auto& each) {
                             return std::string(each.param.layer ? "with" : "without") +
                                    (each.param.barriers ? "_and_barriers" : "");
                         });

} // namespace
