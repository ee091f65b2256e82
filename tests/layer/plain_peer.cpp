// SPDX-License-Identifier: MIT
// A plain Vulkan program in a process of its own, which does with a dma-buf what a test asks for.
// Usage: plain_peer SOCKET GATE layer|no-layer barriers|no-barriers, the first two being open fds.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <thread>

#include <unistd.h>

#include "layer/peer_talk.hpp"
#include "layer/plain_program.hpp"

using namespace plain;

int main(int count, char** arguments) {
    check(count == 5, "usage");
    const int socket = std::atoi(arguments[1]), gate = std::atoi(arguments[2]);
    Application application({.layer = std::string_view(arguments[3]) == "layer",
                             .barriers = std::string_view(arguments[4]) == "barriers"});
    VkBuffer shared = VK_NULL_HANDLE;
    const std::uint32_t* copied = nullptr;
    const VkBuffer own = application.make_buffer(copied);
    const auto answer = [&](Say say, std::uint32_t word = 0, int fd = -1) {
        check(tell(socket, {.say = say, .word = word}, fd), "an answer");
    };
    while (const auto heard = hear(socket, -1)) { // until the test is gone
        const auto [say, word, gated] = heard->message;
        if (say == Say::import) {
            shared = application.import(Buffer(heard->fd, Buffer::default_size));
            answer(say);
            continue;
        }
        if (say == Say::export_one) {
            int fd = -1;
            shared = application.export_as(fd);
            answer(say, 0, fd);
            close(fd);
            continue;
        }
        const bool reads = say == Say::read;
        VkEvent event = VK_NULL_HANDLE;
        std::thread opener; // while the layer asks lavapipe for a fence, which blocks
        if (gated) {
            event = application.make_event();
            opener = std::thread([&] {
                char byte = 0;
                check(::read(gate, &byte, 1) == 1, "the gate");
                application.set(event);
            });
        }
        application.submit({shared},
                           reads ? VK_ACCESS_TRANSFER_READ_BIT : VK_ACCESS_TRANSFER_WRITE_BIT,
                           [&](VkCommandBuffer commands) {
                               if (gated)
                                   Application::wait_for(commands, event);
                               if (reads)
                                   Application::copy(commands, shared, own);
                               else
                                   vkCmdFillBuffer(commands, shared, 0, VK_WHOLE_SIZE, word);
                           });
        answer(Say::submitted);
        if (opener.joinable())
            opener.join();
        application.wait();
        answer(Say::done, reads ? copied[Buffer::default_size / 4 - 1] : word);
    }
    return 0;
}
