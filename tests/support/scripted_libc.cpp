// SPDX-License-Identifier: MIT
#include "support/scripted_libc.hpp"

#include <cassert>
#include <cstdarg>

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>

#include "core/probe.hpp"

namespace {

sluice::test::ScriptedLibc* script = nullptr;

constexpr long dma_buf_magic = 0x444d4142;

} // namespace

// The names are the linker's: --wrap=X calls __wrap_X, and __real_X is X.
// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {
int __real_open(const char* path, int flags, ...);
int __real_memfd_create(const char* name, unsigned flags);
int __real_ftruncate(int fd, off_t size);
int __real_ioctl(int fd, unsigned long request, void* argument);
int __real_fcntl(int fd, int command, long argument);
int __real_fstat(int fd, struct stat* status);
int __real_fstatfs(int fd, struct statfs* filesystem);
int __real_statx(int folder, const char* path, int flags, unsigned wanted, struct statx* status);
int __real_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask);
void* __real_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset);
ssize_t __real_readlink(const char* path, char* text, size_t size);
int __real_munmap(void* at, size_t size);
int __real_mprotect(void* at, size_t size, int protection);

int __wrap_open(const char* path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, mode_t) : 0;
    va_end(list);
    return script && script->open ? script->open(path, flags) : __real_open(path, flags, mode);
}

int __wrap_memfd_create(const char* name, unsigned flags) {
    return script && script->memfd_create ? script->memfd_create(name, flags)
                                          : __real_memfd_create(name, flags);
}

int __wrap_ftruncate(int fd, off_t size) {
    return script && script->ftruncate ? script->ftruncate(fd, size) : __real_ftruncate(fd, size);
}

int __wrap_ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void* argument = va_arg(list, void*);
    va_end(list);
    return script && script->ioctl ? script->ioctl(fd, request, argument)
                                   : __real_ioctl(fd, request, argument);
}

int __wrap_fcntl(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    const long argument = va_arg(list, long);
    va_end(list);
    return script && script->fcntl ? script->fcntl(fd, command, argument)
                                   : __real_fcntl(fd, command, argument);
}

int __wrap_fstat(int fd, struct stat* status) {
    return script && script->fstat ? script->fstat(fd, status) : __real_fstat(fd, status);
}

int __wrap_fstatfs(int fd, struct statfs* filesystem) {
    return script && script->fstatfs ? script->fstatfs(fd, filesystem)
                                     : __real_fstatfs(fd, filesystem);
}

int __wrap_statx(int folder, const char* path, int flags, unsigned wanted, struct statx* status) {
    return script && script->statx ? script->statx(folder, status)
                                   : __real_statx(folder, path, flags, wanted, status);
}

int __wrap_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
    return script && script->ppoll ? script->ppoll(fds, count, timeout)
                                   : __real_ppoll(fds, count, timeout, mask);
}

ssize_t __wrap_readlink(const char* path, char* text, size_t size) {
    return script && script->readlink ? script->readlink(path, text, size)
                                      : __real_readlink(path, text, size);
}

void* __wrap_mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) {
    return script && script->mmap ? script->mmap(at, size, protection, flags, fd, offset)
                                  : __real_mmap(at, size, protection, flags, fd, offset);
}

int __wrap_munmap(void* at, size_t size) {
    return script && script->munmap ? script->munmap(at, size) : __real_munmap(at, size);
}

int __wrap_mprotect(void* at, size_t size, int protection) {
    return script && script->mprotect ? script->mprotect(at, size, protection)
                                      : __real_mprotect(at, size, protection);
}
}
// NOLINTEND(bugprone-reserved-identifier)

namespace sluice::test {

ScriptedLibc::ScriptedLibc() {
    assert(script == nullptr);
    script = this;
}

ScriptedLibc::~ScriptedLibc() {
    script = nullptr;
    probe::forget(); // what a script has pretended
}

void ScriptedLibc::memfds_are_dma_bufs() {
    statx = [](int fd, struct statx* status) {
        struct statfs filesystem {};
        const int result = real_statx(fd, status);
        if (result == 0 && real_fstatfs(fd, &filesystem) == 0 && filesystem.f_type == TMPFS_MAGIC)
            status->stx_mode = 0600; // as a dma-buf's, without a type
        return result;
    };
    fstatfs = [](int fd, struct statfs* filesystem) {
        const int result = real_fstatfs(fd, filesystem);
        if (result == 0 && filesystem->f_type == TMPFS_MAGIC)
            filesystem->f_type = dma_buf_magic;
        return result;
    };
}

int ScriptedLibc::real_ioctl(int fd, unsigned long request, void* argument) {
    return __real_ioctl(fd, request, argument);
}

int ScriptedLibc::real_open(const char* path, int flags) {
    return __real_open(path, flags);
}

int ScriptedLibc::real_memfd_create(const char* name, unsigned flags) {
    return __real_memfd_create(name, flags);
}

int ScriptedLibc::real_fcntl(int fd, int command, long argument) {
    return __real_fcntl(fd, command, argument);
}

int ScriptedLibc::real_statx(int fd, struct statx* status) {
    constexpr unsigned all = STATX_BASIC_STATS;
    return __real_statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, all, status);
}

int ScriptedLibc::real_fstatfs(int fd, struct statfs* filesystem) {
    return __real_fstatfs(fd, filesystem);
}

} // namespace sluice::test
