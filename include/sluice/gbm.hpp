// SPDX-License-Identifier: MIT
/// \file
/// Buffers from a GPU driver's own allocator, through Mesa's GBM.
///
/// Source: gbm.h.
#pragma once

#include <cstdint>
#include <memory>

#include <sluice/exporter.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

/// Makes frames that a GPU or its display likes best: stride and offsets are the driver's.
///
/// The driver chooses among `FrameSpec::modifiers`, and the frame has all memory planes of the
/// choice, in one buffer or several. Where it chooses nothing, LINEAR is tried if it is among them,
/// and a layout without a name (INVALID) only after that.
///
/// A GBM buffer counts as LINEAR where the driver says so (gbm_bo_get_modifier), or where it was
/// made with GBM_BO_USE_LINEAR ("Buffer is linear, i.e. not tiled") and the driver has no modifiers
/// to name it by. One whose modifier stays DRM_FORMAT_MOD_INVALID otherwise goes only to who has
/// INVALID among the modifiers: its layout is a secret of the driver's.
///
/// The capabilities list LINEAR and INVALID, for the formats that the driver supports for the use.
/// More cannot be known beforehand: GBM lists no modifiers, so those that the importers take are
/// offered to it in a request. Nor is INVALID certain: a driver that tells the modifier of what it
/// made in its own way is refused, since nobody asked for that.
///
/// Buffers are shared read-write, before GBM itself would share them read-only.
///
/// Not zeroed: gbm.h promises nothing. GBM has no promise on threads either, so one request at a
/// time is made of it here.
class SLUICE_API GbmExporter final : public Exporter {
public:
    /// Wraps a DRM device, on a duplicate of \p fd.
    /// \param fd borrowed: a /dev/dri/card* or renderD* node that the GPU's driver answers.
    /// \param usage GBM_BO_USE_*, for every frame: what the GPU and the display will do.
    ///   GBM_BO_USE_LINEAR goes without saying.
    /// \returns the exporter, or
    ///   - `wrong_object`: no DRM device;
    ///   - `unsupported`: Mesa has no GBM driver for it, or none of sluice's formats for that use;
    ///   - `no_resources`: no memory or fd left.
    [[nodiscard]] static Result<std::shared_ptr<const GbmExporter>>
    wrap(int fd, std::uint32_t usage = 0) noexcept;

    /// \returns `unsupported`: GBM makes frames, never plain bytes.
    [[nodiscard]] Result<DmaBuf> allocate(const BufferRequest& request) const noexcept override;

    /// \returns as `Exporter::allocate_frame`; `unsupported` also where the driver takes none of
    ///   the modifiers for this use, or lays the planes out against the alignments asked for.
    [[nodiscard]] Result<Frame> allocate_frame(const FrameSpec& spec) const noexcept override;

    struct State;
    GbmExporter(Private, std::unique_ptr<State> state, ExporterCaps caps) noexcept;
    ~GbmExporter() override;

private:
    std::unique_ptr<State> state_;
};

} // namespace sluice
