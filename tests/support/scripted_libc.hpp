// SPDX-License-Identifier: MIT
/// \file
/// libc calls replaced for the length of a test, for refusals that a real kernel gives on no
/// demand. Linked with -Wl,--wrap, so the code under test has no seam.
#pragma once

#include <functional>

#include <poll.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>

namespace sluice::test {

/// The calls that are replaced; one that is empty goes to the kernel. A replacement returns what
/// the call would, and sets errno where it fails. One object at a time.
struct ScriptedLibc {
    ScriptedLibc();
    ~ScriptedLibc();
    ScriptedLibc(const ScriptedLibc&) = delete;
    ScriptedLibc& operator=(const ScriptedLibc&) = delete;

    std::function<int(const char* path, int flags)> open;
    std::function<int(const char* name, unsigned flags)> memfd_create;
    std::function<int(int fd, off_t size)> ftruncate;
    std::function<int(int fd, unsigned long request, void* argument)> ioctl;
    std::function<int(int fd, int command, long argument)> fcntl;
    std::function<int(int fd, struct stat* status)> fstat;
    std::function<int(int fd, struct statfs* filesystem)> fstatfs;
    std::function<int(int fd, struct statx* status)> statx;
    std::function<int(pollfd* fds, nfds_t count, const timespec* timeout)> ppoll;
    std::function<ssize_t(const char* path, char* text, size_t size)> readlink;
    std::function<void*(void* at, size_t size, int protection, int flags, int fd, off_t offset)>
        mmap;
    std::function<int(void* at, size_t size)> munmap;
    std::function<int(void* at, size_t size, int protection)> mprotect;

    /// Makes every memfd pass for a dma-buf of its own size.
    void memfds_are_dma_bufs();

    /// The kernel's own ioctl, for replacements that let some requests through.
    static int real_ioctl(int fd, unsigned long request, void* argument);
    static int real_open(const char* path, int flags);
    static int real_memfd_create(const char* name, unsigned flags);
    static int real_fcntl(int fd, int command, long argument);
    static int real_fstatfs(int fd, struct statfs* filesystem);
    static int real_statx(int fd, struct statx* status);
};

} // namespace sluice::test
