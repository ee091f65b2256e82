// SPDX-License-Identifier: MIT
/// \file
/// Fds over a Unix socket (unix(7), SCM_RIGHTS).
#pragma once

#include <array>
#include <cstring>
#include <utility>

#include <sys/socket.h>
#include <sys/uio.h>

#include <sluice/unique_fd.hpp>

namespace sluice::test {

/// Two ends that talk to each other.
inline std::array<UniqueFd, 2> socket_pair() {
    std::array<int, 2> ends{-1, -1};
    (void)socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data());
    return {UniqueFd(std::move(ends[0])), UniqueFd(std::move(ends[1]))};
}

/// Sends \p fd, which stays the caller's. \returns whether it went.
inline bool send_fd(const UniqueFd& to, int fd) {
    char byte = 0;
    iovec data{.iov_base = &byte, .iov_len = 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> space{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = space.data();
    message.msg_controllen = space.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    return sendmsg(to.get(), &message, MSG_NOSIGNAL) == 1;
}

/// Waits for one. \returns nothing where the other end is gone.
inline UniqueFd receive_fd(const UniqueFd& from) {
    char byte = 0;
    iovec data{.iov_base = &byte, .iov_len = 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> space{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = space.data();
    message.msg_controllen = space.size();
    if (recvmsg(from.get(), &message, MSG_CMSG_CLOEXEC) != 1)
        return {};
    const cmsghdr* header = CMSG_FIRSTHDR(&message);
    if (header == nullptr || header->cmsg_type != SCM_RIGHTS)
        return {};
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return UniqueFd(std::move(fd));
}

} // namespace sluice::test
