// SPDX-License-Identifier: MIT
/// \file
/// A screen: frames are committed to it, with a fence before and fences after.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <sluice/caps.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/kms_device.hpp>
#include <sluice/sync_file.hpp>

namespace sluice {

/// One frame for the screen. Everything is borrowed for the call.
struct KmsCommit {
    /// What to show; as large as the output. Required.
    const KmsFramebuffer* framebuffer = nullptr;
    /// The fence that the card waits for before it shows the frame (IN_FENCE_FD). It replaces the
    /// buffer's own fences. Default: none, and a driver that knows implicit sync waits for those.
    const SyncFile* in_fence = nullptr;
    /// Where to write what the screen then shows; as large as the output. Its fences are not waited
    /// for: it must be idle. Default: no capture.
    const KmsFramebuffer* writeback = nullptr;
};

/// What a commit leaves behind.
struct KmsFlip {
    /// Signals once the frame is on the screen and the one before it has left (OUT_FENCE_PTR): the
    /// GPU may then write into that one.
    SyncFile out_fence;
    /// Signals once the capture is written; there where one was asked for
    /// (WRITEBACK_OUT_FENCE_PTR). It comes after the out-fence.
    std::optional<SyncFile> writeback_fence;
};

/// A connector, the CRTC that drives it, and that CRTC's primary plane.
///
/// The framebuffers on the screen, and those of a flip that is still to come, are kept alive here.
/// Destroying the output lets go of them, and a framebuffer that nobody else holds leaves the
/// screen then, after the flip that is still to come: the kernel waits for that flip's in-fence.
///
/// A frame on the screen, or on its way there or off it, is in use: `Frame::revoke` waits for it.
/// One that another master has taken off meanwhile counts as shown until the next commit.
///
/// Threads: one object belongs to one thread at a time. One that was moved from has no size and no
/// formats, and refuses everything with `wrong_object`.
class SLUICE_API KmsOutput {
public:
    [[nodiscard]] std::uint32_t width() const noexcept;       ///< Pixels of the mode.
    [[nodiscard]] std::uint32_t height() const noexcept;      ///< Rows of the mode.
    [[nodiscard]] std::uint32_t refresh_mhz() const noexcept; ///< Millihertz, 0 if unknown.
    /// "Virtual-1 on CRTC 38, plane 31".
    [[nodiscard]] std::string name() const noexcept;
    /// What the output takes, for `negotiate`: frames of its size to scan out, by the plane's
    /// IN_FORMATS (LINEAR where the plane says no modifiers), and to capture into, LINEAR, where
    /// there is a writeback connector. That it imports other devices' buffers is believed here;
    /// `KmsDevice::imports` tries. Lives as long as the output.
    [[nodiscard]] const ImporterCaps& caps() const noexcept;

    /// Asks the card whether it would take \p commit; nothing changes (TEST_ONLY).
    /// \returns as `commit` does.
    [[nodiscard]] Result<void> test(const KmsCommit& commit) const noexcept;

    /// Hands a frame to the card and returns at once (NONBLOCK). The first commit also sets the
    /// mode and the routing.
    /// \returns the fences, or, with nothing changed on the screen,
    ///   - `invalid_argument`: no framebuffer, or one of another size than the output;
    ///   - `unsupported`: a format that the plane or the writeback connector does not take (the
    ///     message lists what it takes), no writeback connector, or a driver that takes no fences;
    ///   - `revoked`: the owner of a frame has taken it back;
    ///   - `wrong_object`: a fence or an output that was moved from;
    ///   - `not_master`: another process holds the display. Nothing is lost by that: once master is
    ///     back (drmSetMaster), the next commit sets mode and routing again, turns off what others
    ///     left in the way, and goes on with the same framebuffers;
    ///   - `device_lost`: the card has this output no more, as where a lease was revoked;
    ///   - `busy`: the last commit is still to reach the screen: wait for its out-fence;
    ///   - `failed`: the card refused for another reason, in `Error::sys_errno`.
    [[nodiscard]] Result<KmsFlip> commit(const KmsCommit& commit) noexcept;

    /// Has the next commit set mode and routing again, as the first did: where somebody else may
    /// have changed the screen and no commit has met `not_master` meanwhile, as after a VT switch
    /// away and back, a suspend, or requests of your own. Costs nothing but that commit, which may
    /// flicker.
    void reroute() noexcept;

    /// The buffer that the kernel says is on the screen now, by its own reckoning: plane to
    /// framebuffer to memory. For checks and tools; a frame's way to the screen does not need it.
    /// \returns the buffer, or `failed`: nothing is shown, or the kernel does not tell.
    [[nodiscard]] Result<DmaBuf> on_screen() const noexcept;

    KmsOutput(KmsOutput&&) noexcept;
    KmsOutput& operator=(KmsOutput&&) noexcept;
    ~KmsOutput();

    struct State; ///< Not part of the API.

private:
    friend class KmsDevice;
    explicit KmsOutput(std::unique_ptr<State> state) noexcept;

    std::unique_ptr<State> state_;
};

} // namespace sluice
