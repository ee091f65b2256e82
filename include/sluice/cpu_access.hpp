// SPDX-License-Identifier: MIT
/// \file
/// The bracket around one use of buffers by the CPU.
///
/// Source: linux/dma-buf.h, "struct dma_buf_sync".
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <utility>

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
    /// How many mappings one access takes: a frame has up to four planes.
    static constexpr std::size_t max_maps = 4;

    /// Waits until \p deadline at most for the buffer's fences, then opens the bracket.
    ///
    /// The kernel's own START waits for those fences with no timeout; here the bounded wait comes
    /// first, and START finds them signalled. A fence that somebody leaves in the buffer between
    /// the two is waited for by START alone. Where signals interrupt START both are done again with
    /// the time that is left.
    /// \param map borrowed; the access keeps the mapping alive by itself.
    /// \param access what the CPU will do; it must not write where \p map was made to read.
    /// \returns the open bracket, or, with no bracket open,
    ///   - `timed_out`: a fence is still pending, or signals kept coming until the deadline;
    ///   - `fence_failed`: the work before it failed, so the contents are not valid. Begin
    ///     again to write them anew: that waits for what others have left since;
    ///   - `invalid_argument`: writing through a mapping that was made to read;
    ///   - `wrong_object`: a mapping that was moved from;
    ///   - `no_resources`: no fd left for a fence to wait for;
    ///   - `failed`: the kernel refused to open the bracket; see `Error::sys_errno`.
    [[nodiscard]] static Result<CpuAccess> begin(const CpuMap& map, Access access,
                                                 Deadline deadline) noexcept;

    /// The same over up to `max_maps` mappings: a frame's planes. Mappings of one buffer are
    /// bracketed once. All are open, or none is. \param maps borrowed.
    /// \returns also `invalid_argument`: none, or more than `max_maps`.
    [[nodiscard]] static Result<CpuAccess> begin(std::span<const CpuMap> maps, Access access,
                                                 Deadline deadline) noexcept;

    /// The whole buffer behind the mapping of that \p index among those given to `begin`. Empty
    /// once the access has ended, and where there is no such mapping. Writing through it is for
    /// accesses that write; the memory behind others may be read-only, and a write to it ends the
    /// program.
    [[nodiscard]] std::span<std::byte> bytes(std::size_t index = 0) const noexcept;

    /// Closes the bracket; what the CPU wrote is visible to devices once this returns success.
    /// \returns nothing, or `failed`: the kernel refused; what was written may not reach devices.
    ///   All brackets are closed as far as the kernel closes them; where several were refused the
    ///   first is returned, and the others go to the log (`set_log`).
    ///   Ended already (or moved from): nothing to do, and no error.
    [[nodiscard]] Result<void> end() noexcept;

    /// Takes over the other's bracket; one that was open here is ended first, as by the destructor.
    CpuAccess& operator=(CpuAccess&& other) noexcept;
    CpuAccess(CpuAccess&& other) noexcept
        : maps_(other.maps_), count_(std::exchange(other.count_, 0)), access_(other.access_) {}
    CpuAccess(const CpuAccess&) = delete;
    CpuAccess& operator=(const CpuAccess&) = delete;
    /// Ends the access where `end()` was not called; an error of that goes to the log (`set_log`),
    /// so call `end()` after writing.
    ~CpuAccess() {
        if (count_ != 0)
            end_and_log();
    }

private:
    explicit CpuAccess(Access access) noexcept : access_(access) {}
    [[nodiscard]] bool brackets(const CpuMap::State& map) const noexcept;
    Result<void> add(const CpuMap& map, Deadline deadline) noexcept;
    Result<void> end_all() noexcept;
    Result<void> end_refused(int error) noexcept;
    void end_and_log() noexcept;

    std::array<CpuMap::State*, max_maps> maps_{}; // the first `count_` are held, as given
    std::size_t count_ = 0;
    Access access_;
};

} // namespace sluice
