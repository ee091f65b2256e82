// SPDX-License-Identifier: MIT
/// \file
/// What makes buffers and frames.
#pragma once

#include <cstdint>
#include <string_view>

#include <sluice/caps.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/frame.hpp>
#include <sluice/frame_spec.hpp>

namespace sluice {

/// A buffer of plain bytes.
struct BufferRequest {
    std::uint64_t size = 0; ///< Bytes; rounded up to the exporter's granularity.
    /// What to call the buffer in debugfs and fdinfo (DMA_BUF_SET_NAME), cut at 31 bytes. A kernel
    /// that does not take the name is no error.
    std::string_view name = {};
};

/// Makes buffers.
///
/// Threads: every exporter's const functions may be called from several threads at once. The
/// buffers and frames that it made outlive it.
class SLUICE_API Exporter {
public:
    virtual ~Exporter();
    Exporter(const Exporter&) = delete;
    Exporter& operator=(const Exporter&) = delete;

    [[nodiscard]] const ExporterCaps& caps() const noexcept { return caps_; }

    /// Makes a buffer of plain bytes.
    /// \returns the buffer, or
    ///   - `invalid_argument`: a size of 0;
    ///   - `unsupported`: above `ExporterCaps::max_size`, or an exporter that gives frames only;
    ///   - `no_resources`: no memory or fd left; close what is no longer used;
    ///   - `no_permission`, `failed`: the kernel refused; see `Error::sys_errno`.
    [[nodiscard]] virtual Result<DmaBuf> allocate(const BufferRequest& request) const noexcept = 0;

    /// Makes a frame. Here, for those who give plain bytes, sluice lays the planes out one after
    /// the other, LINEAR; the drivers that lay frames out themselves answer for theirs.
    /// \returns the frame, or what `allocate` gives, and
    ///   - `invalid_argument`: no pixels, or an alignment that leads out of 32 bits;
    ///   - `unsupported`: a format or modifier that it cannot make;
    ///   - `failed`: a driver that says of its buffer what cannot be, as the message tells; use
    ///     another exporter.
    [[nodiscard]] virtual Result<Frame> allocate_frame(const FrameSpec& spec) const noexcept;

protected:
    /// Keeps constructors that std::make_shared must see to the exporters' own factories.
    struct Private {
        explicit Private() = default;
    };

    explicit Exporter(ExporterCaps caps) noexcept;

private:
    ExporterCaps caps_;
};

} // namespace sluice
