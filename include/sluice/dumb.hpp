// SPDX-License-Identifier: MIT
/// \file
/// A card's dumb buffers, shared through PRIME.
///
/// Sources: drm.h (DRM_IOCTL_MODE_CREATE_DUMB, DRM_IOCTL_PRIME_HANDLE_TO_FD), drm_mode.h.
#pragma once

#include <memory>

#include <sluice/exporter.hpp>
#include <sluice/unique_fd.hpp>

namespace sluice {

/// Makes buffers that a card can show and the CPU can draw into, with the stride that its driver
/// wants (DRM_IOCTL_MODE_CREATE_DUMB).
///
/// Each buffer's GEM handle is closed as soon as the dma-buf is out, which holds the memory by
/// itself: nothing is left in the card's file but the buffers' own users.
///
/// Not zeroed: the interface promises nothing of the contents. The drivers at hand, whose memory is
/// shmem, give zeros.
class SLUICE_API DumbExporter final : public Exporter {
public:
    /// Wraps a card, on a duplicate of \p fd. It makes one small buffer, to see that it can.
    /// \param fd borrowed: a /dev/dri/card* node, or one of a lease. DRM master is not needed.
    /// \returns the exporter, or
    ///   - `wrong_object`: no DRM device;
    ///   - `no_permission`: a render node; those make no dumb buffers;
    ///   - `unsupported`: the driver makes none, or does not share them;
    ///   - `no_resources`: no memory or fd left.
    [[nodiscard]] static Result<std::shared_ptr<const DumbExporter>> wrap(int fd) noexcept;

    /// \returns as `Exporter::allocate`; `invalid_argument` also where the driver refuses the size.
    [[nodiscard]] Result<DmaBuf> allocate(const BufferRequest& request) const noexcept override;

    /// A frame in one dumb buffer. Where the driver's stride does not fit
    /// `FrameSpec::stride_alignment`, a wider buffer is asked for; the planes of a multi-planar
    /// format lie one after the other in a buffer of bytes.
    /// \returns as `Exporter::allocate_frame`; `unsupported` also where no width leads to a stride
    ///   with the alignment.
    [[nodiscard]] Result<Frame> allocate_frame(const FrameSpec& spec) const noexcept override;

    DumbExporter(Private, UniqueFd&& card, ExporterCaps caps) noexcept;

private:
    UniqueFd card_;
};

} // namespace sluice
