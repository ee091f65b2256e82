// SPDX-License-Identifier: MIT
/// \file
/// What a screen shows: frames as layers, one on top of the other.
///
/// Sources: drm/drm_mode.h and the kernel's "KMS Properties": "Plane Composition Properties",
/// "Explicit Fencing Properties" and "Writeback Connectors".
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include <sluice/deadline.hpp>
#include <sluice/kms_framebuffer.hpp>
#include <sluice/sync_file.hpp>

namespace sluice {

/// A part of a frame, in 65536ths of a pixel (16.16 fixed point, as SRC_X and so on).
struct KmsSource {
    std::uint32_t x = 0;      ///< From the frame's left edge.
    std::uint32_t y = 0;      ///< From its top.
    std::uint32_t width = 0;  ///< 0: up to the frame's right edge.
    std::uint32_t height = 0; ///< 0: down to its bottom.

    [[nodiscard]] bool operator==(const KmsSource&) const noexcept = default;
};

/// A place on the screen, in pixels of the mode. It may reach past the screen's edges.
struct KmsDestination {
    std::int32_t x = 0; ///< From the screen's left edge.
    std::int32_t y = 0; ///< From its top.
    /// 0: as wide as the source, once it is turned.
    std::uint32_t width = 0;
    std::uint32_t height = 0; ///< The same for its height.

    [[nodiscard]] bool operator==(const KmsDestination&) const noexcept = default;
};

/// What a pixel's alpha means (property "pixel blend mode").
enum class KmsBlend : std::uint8_t {
    none,          ///< Nothing: the layer is opaque.
    premultiplied, ///< The colours are multiplied by it already.
    coverage,      ///< The card multiplies.
};

/// How YCbCr becomes RGB (property COLOR_ENCODING).
enum class KmsEncoding : std::uint8_t { bt601, bt709, bt2020 };

/// Which numbers YCbCr uses (property COLOR_RANGE).
enum class KmsRange : std::uint8_t { limited, full };

/// One frame on the screen. Everything is borrowed for the call.
struct KmsLayer {
    /// What to show. Required.
    const KmsFramebuffer* framebuffer = nullptr;
    /// The fence that the card waits for before it shows the frame (IN_FENCE_FD). It replaces the
    /// fences in the frame's buffers. Default, and the same for `SyncFile::signalled()`: none, and
    /// a driver that knows implicit sync waits for the buffers' writers.
    const SyncFile* in_fence = nullptr;
    /// Show the frame whatever fences are in its buffers: for one that is drawn on purpose while it
    /// is shown. Where there is no `in_fence`, the card is given one that has signalled.
    bool ignore_buffer_fences = false;
    /// The plane to show it with, as `KmsPlane::id`. 0: sluice finds one; see `KmsOutput::assign`.
    std::uint32_t plane = 0;
    KmsSource source;           ///< The part to show. Default: all of it.
    KmsDestination destination; ///< Where to. Default: the whole screen for a single layer, else
                                ///< the source's size at the top left corner.
    /// The plane's place in the pile (property zpos). Default: above the layers before it.
    std::optional<std::uint64_t> zpos;
    /// One of DRM_MODE_ROTATE_*, which turn counter-clockwise, with any of DRM_MODE_REFLECT_*,
    /// which come first.
    std::uint32_t rotation = 1;
    std::uint16_t alpha = 0xffff;  ///< Of the whole layer: 0 shows nothing, 0xffff is opaque.
    std::optional<KmsBlend> blend; ///< Default: `premultiplied`, as the kernel has it.
    /// Of YCbCr. Default: BT.709 where the plane has it, else BT.601.
    std::optional<KmsEncoding> encoding;
    /// Of YCbCr. Default: limited where the plane has it.
    std::optional<KmsRange> range;
};

/// What a screen is to show. Everything is borrowed for the call.
struct KmsCommit {
    /// One frame for the whole screen, as large as it: short for a single layer.
    const KmsFramebuffer* framebuffer = nullptr;
    /// As `KmsLayer::in_fence`, for `framebuffer`.
    const SyncFile* in_fence = nullptr;
    /// Where to write what the screen then shows; as `KmsOutput::capture` takes it. Default: no
    /// capture.
    const KmsFramebuffer* writeback = nullptr;
    /// Instead of `framebuffer`: everything that the screen shows, from the bottom to the top. What
    /// the commit before had shown and is not here leaves the screen.
    std::span<const KmsLayer> layers = {};
    /// How long to wait on the CPU, before the commit, for an in-fence that the card does not wait
    /// for itself; see `KmsDevice::takes_in_fences`. Default: not at all, and the commit is refused
    /// as `unsupported`.
    Deadline::duration patience = {};
    /// Whether the mode and the routing may be set where that is due: by the first commit, and
    /// after `KmsOutput::reroute` or a lost master. Such a commit may flicker. Where it is false
    /// and they are due, the commit is refused as `invalid_argument`.
    bool may_set_mode = true;
    /// Whether the out-fence is left in the buffers of the frames that leave the screen, as a
    /// reader's (`DmaBuf::import_fence`), so that whoever writes into them next by the fences in
    /// them, as `VulkanDevice::begin_access` and `CpuAccess` do, waits by itself. A system call for
    /// each buffer. Where a kernel does not do it (before 6.0) the log says so, and the flip counts
    /// all the same. Default: the fence is handed to the caller alone.
    bool fence_leaving = false;
};

/// What a commit leaves behind. The fences are shared with the frames that they are about, so that
/// none costs a duplicate: `SyncFile::duplicate` one for an API that takes fds over.
struct KmsFlip {
    /// Signals once the frames are on the screen and those before them have left (OUT_FENCE_PTR):
    /// the GPU may then write into the latter.
    std::shared_ptr<const SyncFile> out_fence;
    /// Signals once the capture is written (WRITEBACK_OUT_FENCE_PTR), after the out-fence. Null
    /// where none was asked for.
    std::shared_ptr<const SyncFile> writeback_fence;
};

} // namespace sluice
