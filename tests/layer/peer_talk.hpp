// SPDX-License-Identifier: MIT
/// \file
/// What a test and the plain Vulkan programs that it starts say to each other, over a Unix socket
/// that keeps messages apart.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

namespace plain {

enum class Say : std::uint32_t {
    import,     ///< To a program: here is a buffer. Back: it has been imported.
    export_one, ///< To a program: make a buffer. Back: here it is.
    read,       ///< To a program: submit a copy out of the buffer, and tell what its last word was.
    write,      ///< To a program: submit what fills the buffer with `word`.
    submitted,  ///< Back: vkQueueSubmit has returned.
    done,       ///< Back: the GPU has done it.
};

struct Message {
    Say say;
    std::uint32_t word = 0;
    /// The work begins only when the program's gate has been opened.
    bool gated = false;
};

struct Heard {
    Message message;
    int fd = -1; ///< The listener's.
};

/// Sends \p message, with \p fd where there is one; it stays the caller's. \returns whether it
/// went.
inline bool tell(int socket, Message message, int fd = -1) {
    iovec data{.iov_base = &message, .iov_len = sizeof message};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof fd)] = {};
    msghdr header{};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    if (fd >= 0) {
        header.msg_control = space;
        header.msg_controllen = sizeof space;
        cmsghdr* rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof fd);
        std::memcpy(CMSG_DATA(rights), &fd, sizeof fd);
    }
    return sendmsg(socket, &header, MSG_NOSIGNAL) == sizeof message;
}

/// \returns what comes within \p milliseconds; nothing where that is nothing, or the other is gone.
inline std::optional<Heard> hear(int socket, int milliseconds) {
    pollfd entry{.fd = socket, .events = POLLIN, .revents = 0};
    if (poll(&entry, 1, milliseconds) != 1)
        return std::nullopt;
    Heard heard{};
    iovec data{.iov_base = &heard.message, .iov_len = sizeof heard.message};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &data;
    header.msg_iovlen = 1;
    header.msg_control = space;
    header.msg_controllen = sizeof space;
    if (recvmsg(socket, &header, MSG_CMSG_CLOEXEC) != sizeof heard.message)
        return std::nullopt;
    if (const cmsghdr* rights = CMSG_FIRSTHDR(&header); rights != nullptr)
        std::memcpy(&heard.fd, CMSG_DATA(rights), sizeof heard.fd);
    return heard;
}

} // namespace plain
