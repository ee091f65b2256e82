// SPDX-License-Identifier: MIT
/// \file
/// dma-bufs of anonymous memory, on any machine with /dev/udmabuf.
///
/// Sources: linux/udmabuf.h, memfd_create(2), fcntl(2) "File Sealing".
#pragma once

#include <memory>

#include <sluice/exporter.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

/// Makes buffers of memfds (UDMABUF_CREATE). The memory is RAM, zero at first as every memfd's
/// (ftruncate(2)), and the CPU maps it. It counts as the process's shared memory.
class SLUICE_API UdmabufExporter final : public Exporter {
public:
    /// Opens /dev/udmabuf and reads the module's limit (size_limit_mb, 64 MiB unless root changed
    /// it); buffers above it are refused before the kernel is asked.
    /// \returns the exporter, or
    ///   - `unsupported`: the kernel has no udmabuf (load the module of that name);
    ///   - `no_permission`: its group is often 'kvm';
    ///   - `no_resources`: no further fd can be opened.
    [[nodiscard]] static Result<std::shared_ptr<const UdmabufExporter>> open() noexcept;

    [[nodiscard]] Result<DmaBuf> allocate(const BufferRequest& request) const noexcept override;

    /// Wraps a part of somebody else's memfd, without a copy: a Wayland client's pool, a camera's
    /// buffer. The memory stays while the buffer does; the memfd may be closed.
    ///
    /// The peer may go on writing to it, and no seal can stop that; it cannot shrink it, which is
    /// what would kill this process with SIGBUS.
    /// \param memfd borrowed. \param offset, size in bytes, both multiples of the page size.
    /// \returns the buffer, or
    ///   - `wrong_object`: no memfd (nor a file of tmpfs that can be sealed);
    ///   - `invalid_argument`: not sealed with F_SEAL_SHRINK, so the peer could take the memory
    ///     away; sealed with F_SEAL_WRITE or _FUTURE_WRITE, which a dma-buf cannot honour; an
    ///     offset or size that is no multiple of the page size, or a size of 0;
    ///   - `out_of_bounds`: it reaches past the memfd's end;
    ///   - `unsupported`, `no_resources`, `failed`: as `allocate`.
    [[nodiscard]] Result<DmaBuf> wrap_memfd(int memfd, std::uint64_t offset, std::uint64_t size,
                                            std::string_view name = {}) const noexcept;

    UdmabufExporter(Private, UniqueFd&& device, ExporterCaps caps) noexcept;

private:
    [[nodiscard]] Result<DmaBuf> create(int memfd, std::uint64_t offset, std::uint64_t size,
                                        const char* operation,
                                        std::string_view name) const noexcept;

    UniqueFd device_;
};

} // namespace sluice
