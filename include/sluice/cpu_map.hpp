// SPDX-License-Identifier: MIT
/// \file
/// A buffer's memory in this process.
#pragma once

#include <cstdint>
#include <memory>

#include <sluice/access.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>

namespace sluice {

/// A mapping of one whole buffer. Its bytes are reached through a `CpuAccess` alone, since the CPU
/// may look at them only inside a bracket.
///
/// Keep one per buffer for as long as the buffer is used: mapping costs a system call and page
/// faults, a bracket does not. The mapping keeps its own fd; the `DmaBuf` may go first.
///
/// Threads: moving and destroying belong to one thread; several threads may begin accesses on it.
class SLUICE_API CpuMap {
public:
    /// Maps \p buffer (mmap(2), MAP_SHARED).
    /// \param access what later accesses may do: `read` maps read-only, the others read-write.
    /// \returns the mapping, or
    ///   - `no_permission`: the fd was opened read-only and \p access writes: have the exporter
    ///   give
    ///     it out read-write (DRM_RDWR for PRIME, O_RDWR for a dma-heap);
    ///   - `unsupported`: the exporter gives no CPU mapping, or the buffer does not fit the
    ///   process;
    ///   - `no_resources`: no memory, mapping or fd left.
    [[nodiscard]] static Result<CpuMap> map(const DmaBuf& buffer, Access access) noexcept;

    /// The size of the mapping and of the buffer, in bytes.
    [[nodiscard]] std::uint64_t size() const noexcept;

    CpuMap(CpuMap&&) noexcept = default;
    CpuMap& operator=(CpuMap&&) noexcept = default;
    CpuMap(const CpuMap&) = delete;
    CpuMap& operator=(const CpuMap&) = delete;
    ~CpuMap() = default;

private:
    friend class CpuAccess;
    struct State;
    explicit CpuMap(std::shared_ptr<const State> state) noexcept;

    std::shared_ptr<const State> state_;
};

} // namespace sluice
