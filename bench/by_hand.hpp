// SPDX-License-Identifier: MIT
/// \file
/// What sluice does, written with the system calls alone: the same promises, no classes.
///
/// Written as a careful engineer would for one project. Signals restart the calls, a wait ends at
/// its deadline, and a fence that failed is not taken for one that signalled. What is left out is
/// what costs nothing until something fails: the words of the errors.
///
/// Every function returns 0, a number of its own where that is said, or a negative errno.
#pragma once

#include <cstddef>
#include <cstdint>

namespace by_hand {

/// The DMA_BUF_SYNC_* bits.
using Access = std::uint32_t;

/// On CLOCK_MONOTONIC.
using Nanoseconds = std::int64_t;

/// \returns a sync_file's fd, the caller's.
int export_fence(int buffer, Access access) noexcept;
int import_fence(int buffer, int fence, Access access) noexcept;
int wait(int buffer, Access access, Nanoseconds deadline) noexcept;

/// With the way around for kernels before 6.0. \returns a fd to poll, the caller's.
int fence_before(int buffer, Access access) noexcept;
int fence_after(int buffer, int fence, Access access, Nanoseconds deadline) noexcept;

/// \returns 1 for signalled, 0 for pending.
int fence_status(int fence) noexcept;
int fence_wait(int fence, Nanoseconds deadline) noexcept;
/// \returns a sync_file's fd, the caller's.
int merge(int a, int b) noexcept;

int begin_access(int buffer, Access access, Nanoseconds deadline) noexcept;
int end_access(int buffer, Access access) noexcept;

struct Identity {
    std::uint64_t inode;
    std::uint64_t size;
};

/// Duplicates a fd and makes sure that it is a dma-buf. \returns the duplicate, the caller's.
int adopt(int fd, Identity& identity) noexcept;
/// \returns the duplicate, the caller's.
int duplicate(int fd) noexcept;

/// With a fd of its own, which END needs once the buffer's first owner is gone.
struct Mapping {
    int fd;
    void* address;
    std::size_t size;
};

int map(int buffer, std::size_t size, Mapping& mapping) noexcept;
void unmap(const Mapping& mapping) noexcept;

} // namespace by_hand
