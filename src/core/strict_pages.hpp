// SPDX-License-Identifier: MIT
/// \file
/// Memory that can be touched inside an access only. Not installed.
///
/// Source: the kernel's CONFIG_DMABUF_DEBUG, which does the same to devices; mprotect(2).
#pragma once

#include <cstddef>
#include <string_view>

namespace sluice {

/// Guards one mapping. From the first guard on the process has a SIGSEGV handler that says which
/// buffer was touched and what was missing, and then lets the handler before it have its turn.
///
/// Threads: any.
class StrictPages {
public:
    /// Makes \p size bytes at \p address inaccessible. \param what the buffer, for the message.
    StrictPages(void* address, std::size_t size, std::string_view what) noexcept;
    /// Only forgets the mapping: the pages stay as they are, for munmap(2).
    ~StrictPages();
    StrictPages(const StrictPages&) = delete;
    StrictPages& operator=(const StrictPages&) = delete;

    /// Whether the constructor could protect the pages: 0 or an errno.
    [[nodiscard]] int error() const noexcept { return error_; }

    /// One more access. \returns 0, or an errno, and then nothing has changed.
    [[nodiscard]] int open(bool writes) noexcept;
    /// One access less. \returns 0, or an errno where the pages stay accessible.
    [[nodiscard]] int close(bool writes) noexcept;

    struct Range; ///< What the handler sees.

private:
    int protect(unsigned readers, unsigned writers) noexcept;

    Range* range_;
    int error_;
};

} // namespace sluice
