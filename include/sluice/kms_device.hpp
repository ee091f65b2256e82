// SPDX-License-Identifier: MIT
/// \file
/// A DRM card, wrapped: puts frames on screens with real fences, and captures what they show.
///
/// Sources: drm/drm_mode.h and the kernel's "Kernel Mode Setting (KMS)", "Explicit Fencing
/// Properties" and "Writeback Connectors".
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/frame.hpp>
#include <sluice/kms_framebuffer.hpp>
#include <sluice/kms_resources.hpp>

namespace sluice {

class KmsOutput;

/// A card that the machine has.
struct KmsCard {
    std::string path;   ///< "/dev/dri/card0"
    std::string driver; ///< "vkms"; empty where the card could not be opened.
};

/// Every card of the machine, in the order of its numbers; empty where there is none.
[[nodiscard]] SLUICE_API std::vector<KmsCard> kms_cards() noexcept;

/// Which output to find.
struct KmsOutputInfo {
    std::uint32_t width = 0; ///< Pixels of the mode to set; 0 takes the connector's preferred mode.
    std::uint32_t height = 0; ///< Rows of the mode to set.
    bool writeback = false;   ///< Ask for a writeback connector on the same CRTC.
};

/// What a card can do, asked once when it is wrapped.
struct KmsDeviceCaps {
    /// Framebuffers are made with modifiers (DRM_CAP_ADDFB2_MODIFIERS); LINEAR frames only where
    /// this is false.
    bool modifiers = false;
    /// Writeback connectors are shown to us (DRM_CLIENT_CAP_WRITEBACK_CONNECTORS). There may be
    /// none all the same: see `KmsConnector`.
    bool writeback = false;
    /// Atomic commits may flip at once, between two refreshes (DRM_CAP_ATOMIC_ASYNC_PAGE_FLIP).
    bool async_flips = false;
    /// Times of flips are CLOCK_MONOTONIC, as a `Deadline` is (DRM_CAP_TIMESTAMP_MONOTONIC).
    bool monotonic_timestamps = false;
    /// Events of flips name the CRTC (DRM_CAP_CRTC_IN_VBLANK_EVENT).
    bool events_name_crtc = false;
    /// It has sync objects (DRM_CAP_SYNCOBJ), and timelines of them (DRM_CAP_SYNCOBJ_TIMELINE).
    bool syncobjs = false, syncobj_timelines = false;
    std::uint32_t min_width = 0;           ///< Pixels of the smallest framebuffer.
    std::uint32_t min_height = 0;          ///< Rows of it.
    std::uint32_t max_width = UINT32_MAX;  ///< Pixels of the largest framebuffer.
    std::uint32_t max_height = UINT32_MAX; ///< Rows of it.
    /// The size that a frame for a cursor plane should have (DRM_CAP_CURSOR_WIDTH and HEIGHT; 64
    /// where the driver does not say, as the kernel's own default is).
    std::uint32_t cursor_width = 64, cursor_height = 64;

    [[nodiscard]] bool operator==(const KmsDeviceCaps&) const noexcept = default;
};

/// How to wrap a card.
struct KmsDeviceInfo {
    /// How many further attaches a framebuffer, or a remembered refusal, is kept for once nobody
    /// holds its frame or itself, in case the same buffers come back in a new frame. Meanwhile they
    /// hold the memory.
    std::uint32_t idle_framebuffers = 16;
};

/// A handle on a wrapped DRM card; copies mean the same one.
///
/// A card that was wrapped from a fd shares that open file with the caller: what the caller sets up
/// there (DRM master, a lease) holds here. Losing master (drmDropMaster, a VT switch) costs
/// nothing: framebuffers, outputs and modes stay, commits are refused as `not_master`, and go on
/// once master is back; see `KmsOutput::reroute`.
///
/// Threads: any thread may attach frames. GEM handles belong to the open file, and the kernel gives
/// one for one buffer however often it is imported. sluice counts its own, across all devices that
/// are wrapped over duplicates of one fd (where a sandbox forbids kcmp(2), over the same device
/// only), and closes each once. It cannot know of handles that others have: an application that
/// imports buffers into the same open file, or allocates there (GBM does) and attaches what it
/// allocated, loses its handle. Open the card once more for that.
class SLUICE_API KmsDevice {
public:
    /// Wraps the card behind \p fd (a primary node or a DRM lease), which stays the caller's;
    /// sluice keeps a duplicate. Universal planes, atomic and writeback are switched on for the
    /// open file. Of a lease only what was leased is seen. \returns the card, or
    ///   - `wrong_object`: closed, or not a DRM card;
    ///   - `unsupported`: no atomic modesetting, or no PRIME import;
    ///   - `no_resources`: no fd left.
    [[nodiscard]] static Result<KmsDevice> wrap(int fd, const KmsDeviceInfo& info = {}) noexcept;

    /// Opens the card at \p path and wraps it.
    /// \returns also `no_permission` or `failed` where it cannot be opened.
    [[nodiscard]] static Result<KmsDevice> open(const std::string& path,
                                                const KmsDeviceInfo& info = {}) noexcept;

    /// The driver's name: "vkms".
    [[nodiscard]] const std::string& driver() const noexcept;

    /// The device behind the card, as `ImporterCaps::device` names it: "/devices/platform/vkms".
    [[nodiscard]] const std::string& device() const noexcept;

    [[nodiscard]] const KmsDeviceCaps& caps() const noexcept;

    /// Whether the card waits for in-fences by itself (IN_FENCE_FD). Planes have that property
    /// (`KmsPlane::in_fence`) also where the driver refuses every fence (EPERM), so nothing is
    /// known until a commit with one has tried.
    [[nodiscard]] std::optional<bool> takes_in_fences() const noexcept;

    /// Whether the display is ours (drmIsMaster); without it nothing can be shown.
    [[nodiscard]] bool is_master() const noexcept;

    /// Tries whether the card imports buffers like \p sample, which another device made, or none:
    /// DRM_CAP_PRIME does not tell. For `ImporterCaps::foreign`. A buffer of one page tells nothing
    /// of cards that need contiguous memory.
    /// \returns whether it does, or
    ///   - `no_resources`, `failed`: it could not be tried; see `Error::sys_errno`.
    [[nodiscard]] Result<bool> imports(const DmaBuf& sample) const noexcept;

    /// Imports \p frame and makes it a framebuffer. The pixels stay where they are.
    ///
    /// A frame of the same buffers, by identity, and the same layout gets the same framebuffer for
    /// as long as somebody holds one of such frames or the framebuffer; finding it costs neither a
    /// system call nor memory. Revoking a frame (`Frame::revoke`) drops it.
    ///
    /// What the card refuses is remembered in the same way, and the same error given again without
    /// asking it: ask at every flip if that is simplest. Refusals that may pass (`no_resources`,
    /// `busy`, no permission) are not remembered, and `forget_refusals` forgets the others.
    /// \returns the framebuffer, or
    ///   - `unsupported`: the card takes no foreign buffers, or not this format or modifier;
    ///   - `revoked`: the frame's owner has taken it back;
    ///   - `invalid_argument`: the card refuses the size or stride; see its limits in the message;
    ///   - `no_resources`: no memory or handle left;
    ///   - `failed`: the card could not map the buffer, as where its DMA does not reach the memory
    ///     (EIO): allocate it on the card.
    [[nodiscard]] Result<KmsFramebuffer> attach(const Frame& frame) const noexcept;

    /// Has the card asked again about frames that it refused: after something changed that `attach`
    /// cannot see.
    void forget_refusals() const noexcept;

    /// Drops framebuffers, and refusals, whose frame nobody holds, without waiting for
    /// `KmsDeviceInfo::idle_framebuffers`: when memory is short, or nothing is attached for a
    /// while.
    void drop_idle_framebuffers() const noexcept;

    /// What the card has, now. Connectors are probed, as DRM_IOCTL_MODE_GETCONNECTOR does, which
    /// takes some of them many milliseconds: ask when something has changed (`KmsHotplug`), not at
    /// every frame. \returns it, or
    ///   - `device_lost`: the card was unplugged;
    ///   - `unsupported`, `failed`: it has no display engine; see `Error::sys_errno`.
    [[nodiscard]] Result<KmsResources> resources() const noexcept;

    /// Finds a connected connector with a mode of the size asked for, a CRTC that drives it, that
    /// CRTC's primary plane and, if asked for, a writeback connector that the same CRTC feeds.
    /// Nothing on the screen changes until the first commit.
    /// \returns the output, or `unsupported`: the message says what is missing.
    [[nodiscard]] Result<KmsOutput> find_output(const KmsOutputInfo& info) const noexcept;

    // Copies only, so that no handle is ever empty.
    KmsDevice(const KmsDevice&) noexcept = default;
    KmsDevice& operator=(const KmsDevice&) noexcept = default;
    ~KmsDevice() = default;

    struct State; ///< Not part of the API.

private:
    explicit KmsDevice(std::shared_ptr<State> state) noexcept;

    std::shared_ptr<State> state_;
};

} // namespace sluice
