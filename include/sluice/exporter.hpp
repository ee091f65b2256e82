// SPDX-License-Identifier: MIT
/// \file
/// What makes buffers and frames, and what each maker says of itself beforehand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/frame.hpp>

namespace sluice {

/// Where an exporter's memory lies, as far as the kernel's documents tell.
enum class MemoryKind : std::uint8_t {
    unknown,    ///< The driver's own business.
    system,     ///< Pages of RAM, anywhere: devices need an IOMMU, or scatter and gather.
    contiguous, ///< One physical range of RAM (CMA), for devices that have neither.
};

/// A format and a modifier that go together.
struct FormatModifier {
    std::uint32_t format = 0;   ///< DRM_FORMAT_*
    std::uint64_t modifier = 0; ///< DRM_FORMAT_MOD_*

    [[nodiscard]] bool operator==(const FormatModifier&) const noexcept = default;
};

/// What an exporter can do, known before the first request and fixed for its life.
struct ExporterCaps {
    /// Which one it is: "udmabuf", "dma-heap system", "dumb vkms", "gbm virtio_gpu".
    std::string name;
    /// The largest buffer in bytes that it will be asked for; UINT64_MAX where no limit is known.
    std::uint64_t max_size = UINT64_MAX;
    /// Where that limit comes from, in words.
    std::string max_size_source;
    /// Buffers are rounded up to a multiple of this many bytes.
    std::uint64_t granularity = 0;
    /// New buffers are promised to be zero. Where this is false they may hold anything.
    bool zeroed = false;
    /// `CpuMap` maps its buffers.
    bool cpu_mappable = false;
    /// `allocate` gives buffers of plain bytes.
    bool gives_bytes = true;
    /// `allocate_frame` asks the driver for the layout; otherwise sluice lays frames out LINEAR.
    bool lays_out_frames = false;
    MemoryKind memory = MemoryKind::unknown;
    /// The frames it can be asked for. A driver may still refuse a size. DRM_FORMAT_MOD_INVALID is
    /// the layout that a driver keeps to itself.
    std::vector<FormatModifier> formats;
    /// Its driver may make modifiers that `formats` does not list, since nothing lets it: ask for
    /// those that the importers take, and see.
    bool unlisted_modifiers = false;
};

/// A buffer of plain bytes.
struct BufferRequest {
    std::uint64_t size = 0; ///< Bytes; rounded up to the exporter's granularity.
    /// What to call the buffer in debugfs and fdinfo (DMA_BUF_SET_NAME), cut at 31 bytes. A kernel
    /// that does not take the name is no error.
    std::string_view name = {};
};

/// The stride alignment in bytes where nobody says one: what the display engines and GPUs at hand
/// ask of buffers that are not their own.
inline constexpr std::uint32_t default_stride_alignment = 256;

/// What a frame must look like, whoever makes it. An alignment of 0 asks for nothing, and need not
/// be a power of two.
struct FrameSpec {
    std::uint32_t width = 0;  ///< Pixels.
    std::uint32_t height = 0; ///< Rows.
    std::uint32_t format = 0; ///< DRM_FORMAT_*; one of `formats()`.
    /// The modifiers to choose from; empty means LINEAR.
    std::vector<std::uint64_t> modifiers = {};
    /// Bytes. 0: `default_stride_alignment` where sluice lays out, the driver's wish elsewhere. The
    /// stride is a multiple of this and of the pixel's size, where that is a power of two. It is
    /// about the format's planes: those that a modifier adds have strides of their own.
    std::uint32_t stride_alignment = 0;
    std::uint32_t offset_alignment = 0; ///< Bytes, for each plane's offset.
    /// Rows of the image: the memory is there for a height that is rounded up to this.
    std::uint32_t height_alignment = 0;
    std::uint64_t min_size = 0; ///< Bytes that the buffer must have at least.
    std::string_view name = {}; ///< As `BufferRequest::name`.
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
