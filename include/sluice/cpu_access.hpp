// SPDX-License-Identifier: MIT
/// \file
/// The bracket around one use of a buffer by the CPU.
///
/// Source: linux/dma-buf.h, "struct dma_buf_sync".
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include <sluice/access.hpp>
#include <sluice/cpu_map.hpp>
#include <sluice/deadline.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>

namespace sluice {

/// One CPU access: waits for the devices before it, makes their writes visible to the CPU, and at
/// its end makes the CPU's writes visible to them (DMA_BUF_IOCTL_SYNC).
///
/// Threads: one object belongs to one thread at a time. Accesses of several threads on one mapping
/// do not order each other: that is the application's business.
class SLUICE_API CpuAccess {
public:
    /// Waits until \p deadline at most for the buffer's fences, then opens the bracket.
    ///
    /// The kernel's own START waits for those fences with no timeout; here the bounded wait comes
    /// first, and START, restarted where a signal interrupts it, finds them signalled. A fence that
    /// somebody leaves in the buffer between the two is waited for by START alone.
    /// \param map borrowed; the access keeps the mapping alive by itself.
    /// \param access what the CPU will do; it must not write where \p map was made to read.
    /// \returns the open bracket, or
    ///   - `timed_out`: a fence is still pending; the bracket is not open;
    ///   - `invalid_argument`: writing through a mapping that was made to read;
    ///   - `failed`: the kernel refused to open the bracket; see `Error::sys_errno`.
    [[nodiscard]] static Result<CpuAccess> begin(const CpuMap& map, Access access,
                                                 Deadline deadline) noexcept;

    /// The whole buffer. Empty once the access has ended. Writing through it is for accesses that
    /// write; the memory behind others may be read-only, and a write to it ends the program.
    [[nodiscard]] std::span<std::byte> bytes() const noexcept;

    /// Closes the bracket; what the CPU wrote is visible to devices once this returns success.
    /// \returns nothing, or `failed`: the kernel refused; what was written may not reach devices.
    ///   Ended already (or moved from): nothing to do, and no error.
    [[nodiscard]] Result<void> end() noexcept;

    /// Takes over the other's bracket; one that was open here is ended first.
    CpuAccess& operator=(CpuAccess&& other) noexcept;
    CpuAccess(CpuAccess&& other) noexcept;
    CpuAccess(const CpuAccess&) = delete;
    CpuAccess& operator=(const CpuAccess&) = delete;
    /// Ends the access where `end()` was not called; an error of that is lost, so call `end()`
    /// after writing.
    ~CpuAccess();

private:
    CpuAccess(std::shared_ptr<const CpuMap::State> map, Access access) noexcept;

    std::shared_ptr<const CpuMap::State> map_; // null once ended
    Access access_;
};

} // namespace sluice
