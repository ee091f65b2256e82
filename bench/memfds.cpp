// SPDX-License-Identifier: MIT
#include "memfds.hpp"

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace {

constexpr long dma_buf_magic = 0x444d4142;
bool passing = false;

} // namespace

// In place of libc's, for the library too.
extern "C" __attribute__((visibility("default"))) int
statx(int fd, const char* path, int flags, unsigned mask, struct statx* status) noexcept {
    const auto result = static_cast<int>(syscall(SYS_statx, fd, path, flags, mask, status));
    if (passing && result == 0 && path[0] == '\0')
        status->stx_mode = 0600; // as a dma-buf's, without a type
    return result;
}

extern "C" __attribute__((visibility("default"))) int fstatfs(int fd,
                                                              struct statfs* filesystem) noexcept {
    const auto result = static_cast<int>(syscall(SYS_fstatfs, fd, filesystem));
    if (passing && result == 0 && filesystem->f_type == TMPFS_MAGIC)
        filesystem->f_type = dma_buf_magic;
    return result;
}

namespace bench {

void let_memfds_pass() noexcept {
    passing = true;
}

std::optional<sluice::DmaBuf> memfd(std::uint64_t size) {
    sluice::UniqueFd memory(memfd_create("sluice-bench", MFD_CLOEXEC));
    if (!memory || ftruncate(memory.get(), static_cast<off_t>(size)) != 0)
        return std::nullopt;
    auto buffer = sluice::DmaBuf::from_fd(std::move(memory));
    return buffer ? std::optional(std::move(*buffer)) : std::nullopt;
}

} // namespace bench
