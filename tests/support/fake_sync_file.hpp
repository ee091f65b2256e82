// SPDX-License-Identifier: MIT
/// \file
/// Memfds that stand for sync_files: for drivers that are made up.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sluice::test {

/// What they begin with; their status follows.
inline constexpr std::int32_t fake_sync_file_mark = 0x53594e43;

/// Changes the \p status (0 pending, 1 signalled, below 0 failed) of the one behind \p fd, for all
/// who hold it. \returns whether that worked.
inline bool write_fake_status(int fd, int status) {
    const std::array<std::int32_t, 2> content{fake_sync_file_mark, status};
    return pwrite(fd, content.data(), sizeof content, 0) == ssize_t{sizeof content};
}

/// The status of the one behind \p fd. Otherwise nothing, and errno.
inline std::optional<std::int32_t> read_fake_status(int fd) {
    std::array<std::int32_t, 2> content{};
    const ssize_t got = pread(fd, content.data(), sizeof content, 0);
    if (got == ssize_t{sizeof content} && content[0] == fake_sync_file_mark)
        return content[1];
    if (got != -1 || errno != EBADF)
        errno = ENOTTY;
    return std::nullopt;
}

/// The inode of what \p fd refers to; 0 where it is closed.
[[nodiscard]] inline ino_t inode_of(int fd) {
    struct stat status {};
    return fstat(fd, &status) == 0 ? status.st_ino : 0;
}

} // namespace sluice::test
