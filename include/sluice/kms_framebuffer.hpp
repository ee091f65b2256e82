// SPDX-License-Identifier: MIT
/// \file
/// A frame as a card's framebuffer: what a plane shows, or a writeback connector fills.
///
/// Sources: drm/drm_mode.h (ADDFB2, CLOSEFB, RMFB) and the kernel's "PRIME Buffer Sharing".
#pragma once

#include <cstdint>
#include <memory>

#include <sluice/export.hpp>
#include <sluice/frame.hpp>

namespace sluice {

/// A framebuffer of a frame, made by `KmsDevice::attach`. A handle: copies mean the same one, and
/// it holds the frame, the buffers and the card's open file.
///
/// The framebuffer goes with its last holder: handles, screens that show it, and its device, which
/// keeps it for as long as somebody holds the frame. It is closed without a change on any screen
/// (CLOSEFB; kernels before 6.8 know RMFB only). Only one that an output left on its screen is
/// taken off, and that waits for a flip which is still to come.
///
/// Threads: any.
class SLUICE_API KmsFramebuffer {
public:
    /// The kernel's number of it, for requests of your own. Frames of the same buffers and layout
    /// have the same.
    [[nodiscard]] std::uint32_t id() const noexcept;
    /// The frame that was attached.
    [[nodiscard]] const Frame& frame() const noexcept;

    // Copies only, so that no handle is ever empty.
    KmsFramebuffer(const KmsFramebuffer&) noexcept = default;
    KmsFramebuffer& operator=(const KmsFramebuffer&) noexcept = default;
    ~KmsFramebuffer() = default;

    struct State; ///< Not part of the API.

private:
    friend class KmsDevice;
    friend class KmsOutput;
    KmsFramebuffer(std::shared_ptr<const State> state, const Frame& frame) noexcept;

    std::shared_ptr<const State> state_;
    Frame frame_;
};

} // namespace sluice
