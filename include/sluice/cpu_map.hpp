// SPDX-License-Identifier: MIT
/// \file
/// A buffer's memory in this process.
#pragma once

#include <cstdint>
#include <utility>

#include <sluice/access.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>

namespace sluice {

/// Whether a mapping finds out stray reads and writes.
enum class CpuMapMode : std::uint8_t {
    /// Strict where the environment variable SLUICE_STRICT is set to 1, otherwise quick.
    automatic,
    /// The memory can be touched at any time, as the kernel maps it.
    quick,
    /// The memory can be touched inside an access only (mprotect(2), at the price of a call at the
    /// edges of accesses). A stray read or write ends the program (SIGSEGV) with a line on stderr
    /// that names the buffer and the bracket that was missing. A handler of the program's own for
    /// SIGSEGV still gets its turn after that line, if it was there before the first such mapping.
    strict,
};

/// The mapping of one whole buffer. Its bytes are reached through a `CpuAccess` alone, since the
/// CPU may look at them only inside a bracket.
///
/// A handle: copies mean the same mapping, which goes with the last of them and the last access on
/// it. Keep one for as long as the buffer is used: mapping costs system calls and page faults, a
/// bracket does not. The mapping keeps its own fd; the `DmaBuf` may go first.
///
/// Threads: copying, destroying and beginning accesses may happen on several threads at once; one
/// object is assigned or moved from by one thread at a time.
class SLUICE_API CpuMap {
public:
    /// Maps \p buffer (mmap(2), MAP_SHARED), or gives the mapping that the process has of it
    /// already, found by the buffer's identity, where that one serves \p access and has \p mode.
    /// \param access what later accesses may do: `read` maps read-only, the others read-write.
    /// \returns the mapping, or
    ///   - `no_permission`: the fd was opened read-only and \p access writes: have the exporter
    ///     give it out read-write (DRM_RDWR for PRIME, O_RDWR for a dma-heap);
    ///   - `unsupported`: the exporter gives no CPU mapping, or the buffer does not fit the
    ///     process;
    ///   - `no_resources`: no memory, mapping or fd left;
    ///   - `wrong_object`: the buffer was moved from, or its fd was closed behind our back.
    [[nodiscard]] static Result<CpuMap> map(const DmaBuf& buffer, Access access,
                                            CpuMapMode mode = CpuMapMode::automatic) noexcept;

    /// The size of the mapping and of the buffer, in bytes; 0 once moved from.
    [[nodiscard]] std::uint64_t size() const noexcept;

    /// True where both are one mapping.
    [[nodiscard]] bool operator==(const CpuMap& other) const noexcept = default;

    CpuMap(const CpuMap& other) noexcept;
    CpuMap(CpuMap&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    CpuMap& operator=(CpuMap other) noexcept {
        std::swap(state_, other.state_);
        return *this;
    }
    ~CpuMap();

private:
    friend class CpuAccess;
    struct State;
    explicit CpuMap(State* held) noexcept : state_(held) {}

    State* state_; // counts its holders: an access is too short for more
};

} // namespace sluice
