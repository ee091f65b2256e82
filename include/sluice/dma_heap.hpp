// SPDX-License-Identifier: MIT
/// \file
/// The kernel's dma-heaps, /dev/dma_heap/*.
///
/// Source: linux/dma-heap.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <sluice/exporter.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

/// Which heap, and how much it may be asked for.
struct DmaHeapInfo {
    std::string name = "system"; ///< As in /dev/dma_heap; see `dma_heaps()`.
    /// The largest buffer in bytes; 0 takes half of the machine's RAM.
    std::uint64_t max_size = 0;
};

/// The names of this machine's heaps, sorted. None where the kernel has none.
[[nodiscard]] SLUICE_API std::vector<std::string> dma_heaps() noexcept;

/// Makes buffers from one heap (DMA_HEAP_IOCTL_ALLOC).
///
/// The kernel puts no bound on a request: the system heap allocates until the OOM killer ends the
/// caller. So there is one here, `DmaHeapInfo::max_size`, and each request is held against the
/// memory that /proc/meminfo calls available. That is a snapshot: others allocate too.
///
/// Zeroed: the kernel's own heaps clear what they give ("system" by __GFP_ZERO, the CMA heaps by
/// memset; drivers/dma-buf/heaps). Of a vendor's heap nothing is promised.
class SLUICE_API DmaHeapExporter final : public Exporter {
public:
    /// Opens the heap.
    /// \returns the exporter, or
    ///   - `invalid_argument`: a name that is none (empty, "..", with a '/');
    ///   - `unsupported`: this machine has no heap of that name; the message lists those it has;
    ///   - `no_permission`: /dev/dma_heap is often root's own;
    ///   - `no_resources`: no further fd can be opened.
    [[nodiscard]] static Result<std::shared_ptr<const DmaHeapExporter>>
    open(const DmaHeapInfo& info = {}) noexcept;

    /// \returns also `no_resources`: more than is available right now.
    [[nodiscard]] Result<DmaBuf> allocate(const BufferRequest& request) const noexcept override;

    DmaHeapExporter(Private, UniqueFd&& heap, ExporterCaps caps) noexcept;

private:
    UniqueFd heap_;
};

} // namespace sluice
