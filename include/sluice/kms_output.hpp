// SPDX-License-Identifier: MIT
/// \file
/// A screen: frames are committed to it, with a fence before and fences after.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <sluice/caps.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/kms_commit.hpp>
#include <sluice/kms_device.hpp>

namespace sluice {

/// A connector, the CRTC that drives it, and the planes that the CRTC can show.
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
    /// "Virtual-1 on CRTC 38, plane 31": the plane is the one for a single frame.
    [[nodiscard]] std::string name() const noexcept;
    [[nodiscard]] std::uint32_t connector() const noexcept; ///< The kernel's number of it.
    [[nodiscard]] std::uint32_t crtc() const noexcept;      ///< The kernel's number of it.
    /// The planes that layers can be on, from the bottom to the top, as they were when the output
    /// was found. Another output may have some of them.
    [[nodiscard]] std::vector<KmsPlane> planes() const noexcept;
    /// What the output takes, for `negotiate`: frames of its size to scan out, by the plane's
    /// IN_FORMATS (LINEAR where the plane says no modifiers), and to capture into, LINEAR, where
    /// there is a writeback connector. That it imports other devices' buffers is believed here;
    /// `KmsDevice::imports` tries. Lives as long as the output.
    [[nodiscard]] const ImporterCaps& caps() const noexcept;

    /// Asks the card whether it would take \p commit; nothing changes (TEST_ONLY). An in-fence that
    /// the card does not wait for is not waited for here.
    /// \returns as `commit` does.
    [[nodiscard]] Result<void> test(const KmsCommit& commit) const noexcept;

    /// Finds a plane for each layer of \p commit that names none, and has the card agree
    /// (TEST_ONLY). The first layer gets the lowest plane: draw the layers that get none into its
    /// frame, and commit the others. Commits do the same for layers of a new shape, and remember
    /// it, so that layers whose framebuffers, fences and places alone change cost nothing.
    /// \returns the planes' numbers, one for each layer, 0 for none; or as `commit`, where the card
    ///   cannot be asked or a layer names what cannot be.
    [[nodiscard]] Result<std::vector<std::uint32_t>> assign(const KmsCommit& commit) const noexcept;

    /// Hands frames to the card and returns at once (NONBLOCK), in one request. The first commit
    /// also sets the mode and the routing, turns off what is in the way, and resets what others
    /// may have left on the planes and the CRTC: rotation, alpha, zpos, blending, gamma, degamma,
    /// CTM and variable refresh. A commit that is warm allocates nothing.
    /// \returns the fences, or, with nothing changed on the screen,
    ///   - `invalid_argument`: nothing to show, a frame of another size than the output, a source
    ///     that reaches past its frame, planes in the wrong order, or one named twice;
    ///   - `unsupported`: what the plane or the writeback connector does not do (the message says
    ///     what it does), layers that get no plane, no writeback connector, a pending in-fence that
    ///     the card does not wait for and `KmsCommit::patience` does not allow to; or the card
    ///     refuses a layer, which is named, found with TEST_ONLY: composite it;
    ///   - `fence_failed`: an in-fence has failed, so its frame is not drawn;
    ///   - `timed_out`: an in-fence was still pending after `KmsCommit::patience`;
    ///   - `revoked`: the owner of a frame has taken it back;
    ///   - `wrong_object`: a fence or an output that was moved from, or a framebuffer of another
    ///     card;
    ///   - `not_master`: another process holds the display. Nothing is lost by that: once master is
    ///     back (drmSetMaster), the next commit sets mode and routing again, turns off what others
    ///     left in the way, and goes on with the same framebuffers;
    ///   - `device_lost`: the card has this output no more, as where a lease was revoked, or is
    ///     gone;
    ///   - `busy`: the last commit is still to reach the screen: wait for its out-fence; or the
    ///     last capture to be written; or a layer names a plane that another output has on;
    ///   - `failed`: the card refused for another reason, in `Error::sys_errno`.
    [[nodiscard]] Result<KmsFlip> commit(const KmsCommit& commit) noexcept;

    /// Captures what the screen shows, all layers of it, into a frame that the CPU or another
    /// device then reads: as `KmsCommit::writeback`, with nothing else changed. \param into as
    /// large as the output, LINEAR, in one of the formats that `caps` lists for capturing; idle.
    ///
    /// One capture is under way at a time, by this or by a commit: vkms of kernel 6.12 loses the
    /// fence of one that is overtaken by another commit within about a frame. Wait for the fence,
    /// with a deadline, before the next commit.
    /// \returns a fence, shared, that signals once the capture is written, or
    ///   - `invalid_argument`: nothing has been committed yet, or again since `reroute` or a lost
    ///     master; or a frame of another size;
    ///   - `unsupported`: no writeback connector, or a format that it does not take (the message
    ///     lists what it takes), or it refuses to capture now;
    ///   - `busy`: the last capture or commit is still under way, or somebody works on the frame;
    ///   - `revoked`, `wrong_object`, `not_master`, `device_lost`, `failed`: as `commit`.
    [[nodiscard]] Result<std::shared_ptr<const SyncFile>>
    capture(const KmsFramebuffer& into) noexcept;

    /// Has the next commit set mode and routing again, as the first did: where somebody else may
    /// have changed the screen and no commit has met `not_master` meanwhile, as after a VT switch
    /// away and back, a suspend, or requests of your own. Costs nothing but that commit, which may
    /// flicker.
    void reroute() noexcept;

    /// The buffer that the kernel says is on the screen now, by its own reckoning: plane to
    /// framebuffer to memory. For checks and tools; a frame's way to the screen does not need it.
    /// \param plane which one; 0 for the one for a single frame.
    /// \returns the buffer, or `failed`: nothing is shown, or the kernel does not tell.
    [[nodiscard]] Result<DmaBuf> on_screen(std::uint32_t plane = 0) const noexcept;

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
