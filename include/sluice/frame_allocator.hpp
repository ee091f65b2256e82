// SPDX-License-Identifier: MIT
/// \file
/// Frames that everybody who will use them can use.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/exporter.hpp>
#include <sluice/frame.hpp>

namespace sluice {

/// What one consumer of a frame needs of its memory. A number that it leaves at 0 it does not care
/// about.
struct FrameNeeds {
    std::string_view who = {}; ///< For errors: "kms vkms", "encoder".
    /// Bytes. Who does not say one gets `default_stride_alignment`, where sluice lays out.
    std::uint32_t stride_alignment = 0;
    std::uint32_t height_alignment = 0; ///< Rows.
    std::uint32_t offset_alignment = 0; ///< Bytes, for each plane's offset.
    std::uint64_t min_size = 0;         ///< Bytes of the whole buffer.
    /// DRM_FORMAT_MOD_* that it takes; empty means LINEAR, as in `FrameSpec`. INVALID is the layout
    /// that the exporter's driver keeps to itself, so only who works through that driver names it.
    std::span<const std::uint64_t> modifiers = {};
    bool cpu_access = false; ///< It maps the buffer, and so takes nothing but LINEAR.
};

/// A frame to make.
struct FrameRequest {
    std::uint32_t width = 0;                ///< Pixels.
    std::uint32_t height = 0;               ///< Rows.
    std::uint32_t format = 0;               ///< DRM_FORMAT_*; one of `formats()`.
    std::span<const FrameNeeds> needs = {}; ///< Of everybody who will use it.
    bool zeroed = false;                    ///< It must start out zero, padding and all.
    std::string_view name = {};             ///< As `BufferRequest::name`.
};

/// A frame, and how it came about.
struct FrameAllocation {
    Frame frame;
    std::shared_ptr<const Exporter> exporter; ///< Who made it.
    bool cleared = false;    ///< It was zeroed here, since the exporter does not promise it.
    std::string passed_over; ///< Those before that could not, each with its reason; often empty.
};

/// Finds an exporter for a frame.
///
/// Threads: any number at once, like the exporters.
class SLUICE_API FrameAllocator {
public:
    /// \param exporters in the order in which they are tried: the best first.
    explicit FrameAllocator(std::vector<std::shared_ptr<const Exporter>> exporters) noexcept;

    /// Combines what everybody needs (least common multiples of the alignments, the largest size,
    /// the modifiers that all take, INVALID no less than others) and takes the first exporter that
    /// makes such a frame. Where the frame must be zero and the exporter promises nothing, it is
    /// cleared by the CPU, which waits 5 s at most for whoever still holds the new buffer.
    /// \returns the frame, or
    ///   - `invalid_argument`: needs that contradict each other, each named with who has it; no
    ///     pixels; or a request that all exporters call invalid;
    ///   - `unsupported`, `no_resources`, ...: no exporter makes it. The message has each one's
    ///     reason; the code is theirs where all agree, and `unsupported` otherwise.
    [[nodiscard]] Result<FrameAllocation> allocate(const FrameRequest& request) const noexcept;

    /// In the order in which they are tried.
    [[nodiscard]] std::span<const std::shared_ptr<const Exporter>> exporters() const noexcept {
        return exporters_;
    }

private:
    std::vector<std::shared_ptr<const Exporter>> exporters_;
};

} // namespace sluice
