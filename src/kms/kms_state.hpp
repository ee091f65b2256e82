// SPDX-License-Identifier: MIT
/// \file
/// What a wrapped card, its framebuffers and its outputs share. Not installed.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <xf86drmMode.h>

#include "frame/attachment_cache.hpp"
#include "kms/kms_fences.hpp"
#include "kms/kms_file.hpp"
#include "kms/kms_planes.hpp"
#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>
#include <sluice/kms_resources.hpp>

namespace sluice {

/// A frame's framebuffer in an open file, or why the card makes none.
struct KmsFramebuffer::State {
    State(std::shared_ptr<KmsFile> in, const Frame& of, std::uint32_t number) noexcept;
    State(std::shared_ptr<KmsFile> in, const Frame& of, Error&& why) noexcept;
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    /// An output goes that shows \p shown by it: it stays on the screen until it is removed.
    void leave_behind(const Frame& shown) const;

    std::shared_ptr<KmsFile> file;
    Frame frame; // while it is held its buffers' inodes name no other buffer
    std::uint32_t id = 0;
    std::optional<Error> refusal;

private:
    mutable std::mutex left_lock_;
    mutable std::vector<Frame> left_behind_;
};

/// Framebuffers differ in nothing but their frames.
struct KmsFramebufferKey {
    [[nodiscard]] bool operator==(const KmsFramebufferKey&) const noexcept = default;
    [[nodiscard]] static std::uint64_t hash() noexcept { return 0; }
};

/// Whether a card takes IN_FENCE_FD.
enum class KmsInFences : std::uint8_t { unknown, taken, refused };

struct KmsDevice::State final : FrameWatcher, std::enable_shared_from_this<State> {
    State(std::shared_ptr<KmsFile> wrapped, const KmsDeviceCaps& can, const KmsDeviceInfo& info);

    void revoked(const Frame& frame) noexcept override { framebuffers.drop(frame); }

    std::shared_ptr<KmsFile> file;
    KmsDeviceCaps caps;
    /// \returns false where another output than \p user has \p plane.
    [[nodiscard]] bool claim(std::uint32_t plane, std::uint64_t user);
    [[nodiscard]] bool is_anothers(std::uint32_t plane, std::uint64_t user);
    void disclaim(std::uint32_t plane, std::uint64_t user) noexcept;

    /// A sync_file that has signalled, for as long as this lives; or why there is none.
    [[nodiscard]] Result<int> signalled_fence(const char* operation);

    std::atomic<KmsInFences> in_fences = KmsInFences::unknown; // until a commit has tried

    std::string device;
    AttachmentCache<KmsFramebuffer::State, KmsFramebufferKey> framebuffers;

private:
    std::mutex signalled_lock_;
    std::optional<SyncFile> signalled_;
    std::mutex claims_lock_;
    std::unordered_map<std::uint32_t, std::uint64_t> claims_; // planes' outputs
};

/// A framebuffer that a card reads or writes, which is an access to its frame.
class KmsUse {
public:
    KmsUse() = default;
    KmsUse(KmsUse&& other) noexcept
        : framebuffer_(std::move(other.framebuffer_)),
          frame_(std::exchange(other.frame_, std::nullopt)) {}
    KmsUse& operator=(KmsUse&& other) noexcept;
    KmsUse(const KmsUse&) = delete;
    KmsUse& operator=(const KmsUse&) = delete;
    ~KmsUse() { end(); }

    /// \returns it, or `revoked`, in the name of \p operation.
    [[nodiscard]] static Result<KmsUse>
    begin(std::shared_ptr<const KmsFramebuffer::State> framebuffer, const Frame& frame,
          const char* operation);

    explicit operator bool() const noexcept { return frame_.has_value(); }
    /// Whether it is a use, still open, of this.
    [[nodiscard]] bool is_of(const KmsFramebuffer::State* framebuffer,
                             const Frame& frame) const noexcept {
        return frame_ && framebuffer_.get() == framebuffer && *frame_ == frame;
    }
    /// The card is done with it.
    void end() noexcept;
    /// The card is done with it once \p fence has signalled. \param user as for
    /// `FrameUse::end_after`.
    void end_after(std::uint64_t user, const std::shared_ptr<const SyncFile>& fence) noexcept;
    /// Leaves \p fence in the buffers, as a reader's.
    void fence_buffers(const SyncFile& fence) const noexcept;
    /// The card is done with it once the framebuffer is removed, so \p device lets go of that.
    void leave_behind(KmsDevice::State& device) noexcept;

private:
    KmsUse(std::shared_ptr<const KmsFramebuffer::State> framebuffer, const Frame& frame) noexcept
        : framebuffer_(std::move(framebuffer)), frame_(frame) {}

    std::shared_ptr<const KmsFramebuffer::State> framebuffer_;
    std::optional<Frame> frame_; // whose use is open
};

/// The property ids that commits use.
struct KmsConnectorProperties {
    std::uint32_t crtc_id = 0;
    std::uint32_t writeback_fb_id = 0;
    std::uint32_t writeback_out_fence_ptr = 0;
};
struct KmsCrtcProperties {
    std::uint32_t active = 0, mode_id = 0, out_fence_ptr = 0;
    std::vector<std::uint32_t> reset; // to 0 with the routing, so that colours are as in the frames
};

/// A plane that the output's CRTC can show.
struct KmsOutputPlane {
    KmsPlane can; // as it was when the output was found
    KmsPlaneControls controls;
    bool known = false;            // `sent` is what the kernel has
    bool on = false;               // it shows something of ours
    std::uint32_t framebuffer = 0; // that
    KmsPlaneValues sent{};
    // A commit is accepted only once the one before it has reached the screen, so the frame before
    // that one has left it: two are held.
    KmsUse shown, leaving;
};

/// What a commit wants of one plane.
struct KmsWanted {
    std::size_t layer = 0; // of the commit's
    std::size_t plane = 0; // its place among the output's
    std::uint32_t framebuffer = 0;
    int in_fence = -1; // -1: none
    KmsPlaneValues values{};
};

/// A property of somebody else's object that has to be 0 for our output to be ours.
struct KmsCleared {
    std::uint32_t object = 0;
    std::uint32_t property = 0;
};

/// The arrays of DRM_IOCTL_MODE_ATOMIC. Cleared and filled for each commit; the memory stays.
class KmsAtomicRequest {
public:
    void clear() noexcept;
    /// Properties of one object are added one after the other.
    void add(std::uint32_t object, std::uint32_t property, std::uint64_t value);
    /// \returns 0 or the errno.
    [[nodiscard]] int commit(int fd, std::uint32_t flags) noexcept;
    /// The same for libdrm.
    void copy_to(drmModeAtomicReq& request) const;

private:
    std::vector<std::uint32_t> objects_, counts_, properties_;
    std::vector<std::uint64_t> values_;
};

/// Where the kernel writes the fences' fds, 32 bits each; -1 where it gives none.
struct KmsOutFences {
    std::int32_t flip = -1;
    std::int32_t writeback = -1;
};

struct KmsOutput::State {
    explicit State(std::shared_ptr<KmsDevice::State> of) noexcept;
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    /// The output that has \p state, and what is behind one; null where it was moved from.
    [[nodiscard]] static KmsOutput wrap(std::unique_ptr<State> state) noexcept {
        return KmsOutput(std::move(state));
    }
    [[nodiscard]] static State* of(KmsOutput& output) noexcept { return output.state_.get(); }
    /// What is behind a framebuffer.
    [[nodiscard]] static const std::shared_ptr<const KmsFramebuffer::State>&
    behind(const KmsFramebuffer& framebuffer) noexcept {
        return framebuffer.state_;
    }

    [[nodiscard]] Result<void> test(const KmsCommit& commit, const char* operation);
    [[nodiscard]] Result<KmsFlip> commit(const KmsCommit& commit, const char* operation);
    [[nodiscard]] Result<std::shared_ptr<const SyncFile>> capture(const KmsFramebuffer& into,
                                                                  const char* operation);
    [[nodiscard]] Result<std::vector<std::uint32_t>> assign(const KmsCommit& commit,
                                                            const char* operation);

    /// Has the next request set routing and mode.
    void forget_routing() noexcept;
    /// Sends `wanted` as one request. \p out is null for a test, which gives no fences.
    /// \returns 0 or an errno.
    [[nodiscard]] int send(const KmsFramebuffer* capture, std::uint32_t flags, KmsOutFences* out);
    /// Whether the card takes `placed`, those of it that have a plane. \returns 0 or an errno.
    [[nodiscard]] int try_placed();
    /// Has `wanted` be what `placed` has a plane for.
    void want_placed();
    /// Fills the request with what is due beside the planes that are to be found: the routing, and
    /// `wanted`.
    void fill_others();
    [[nodiscard]] bool is_free(const KmsOutputPlane& plane) const {
        return plane.on || !device->is_anothers(plane.can.id, screen_user);
    }

    std::shared_ptr<KmsDevice::State> device;
    std::string name;
    std::uint32_t connector = 0, crtc = 0;
    std::uint32_t writeback = 0; // 0: none
    KmsConnectorProperties connector_properties, writeback_properties;
    KmsCrtcProperties crtc_properties;
    std::vector<KmsOutputPlane> planes; // from the bottom to the top
    std::size_t primary = 0;            // which of them shows a single layer
    KmsMode mode;
    std::uint32_t mode_blob = 0;
    ImporterCaps caps;

    bool routed = false; // a commit has set routing and mode, and nobody has changed them since
    bool leftovers_known = false;
    std::vector<KmsCleared> leftovers;
    KmsAtomicRequest request;
    KmsUse captured, captured_before;
    std::shared_ptr<const SyncFile> capturing; // the fence of the last capture
    std::shared_ptr<KmsFenceRoom> fence_room = std::make_shared<KmsFenceRoom>();
    std::uint64_t screen_user, capture_user; // to the frames

    // Of the commit at hand; kept for their memory.
    std::vector<const KmsPlane*> plane_list; // of `planes`
    std::vector<KmsPlacedLayer> placed;
    std::vector<KmsWanted> wanted;
    std::vector<KmsUse> showing;
    std::vector<KmsLayerShape> shapes;

    // Which planes were found for layers of which shape, and where those were then.
    std::vector<KmsLayerShape> chosen_for;
    std::vector<KmsDestination> chosen_at;
    std::vector<std::size_t> chosen;
    bool chosen_has_moved = false;

private:
    [[nodiscard]] Error error(const char* operation, Errc code, std::string problem,
                              std::string remedy) const;
    [[nodiscard]] Error error(const char* operation, std::size_t layer, KmsRefusal&& why) const;
    [[nodiscard]] Result<void> check(const KmsCommit& commit, const char* operation) const;
    [[nodiscard]] Result<void> place(std::span<const KmsLayer> layers, const char* operation);
    [[nodiscard]] Result<void> choose_planes(std::span<const KmsLayer> layers,
                                             const char* operation);
    [[nodiscard]] Result<void> check_planes(const char* operation) const;
    [[nodiscard]] Result<void> check_all_have_planes(const char* operation) const;
    [[nodiscard]] Result<void> prepare(const KmsCommit& commit, std::span<const KmsLayer> layers,
                                       const char* operation);
    [[nodiscard]] Result<void> give_fences(const KmsCommit& commit, bool waits,
                                           const char* operation);
    [[nodiscard]] bool refuses_in_fences(int error, const KmsFramebuffer* capture);
    [[nodiscard]] Result<void> begin_uses(const KmsCommit& commit, const char* operation);
    [[nodiscard]] Result<void> check_capture(const KmsFramebuffer& into,
                                             const char* operation) const;
    [[nodiscard]] Result<void> begin_capture(const KmsFramebuffer& into, const char* operation);
    [[nodiscard]] Result<KmsFlip> accepted(KmsOutFences& out, const KmsCommit& commit,
                                           const char* operation);
    [[nodiscard]] Error refused(int error, const KmsCommit& commit, const char* operation);
    void blame(Error& failure, const KmsCommit& commit);
    [[nodiscard]] bool choose_again(int error);
    [[nodiscard]] Error anothers(const char* operation, std::size_t layer) const;
    [[nodiscard]] Result<void> claim_planes(const char* operation);
    void disclaim_planes(std::size_t count) noexcept;
    void fill_routing();
    void fill_wanted();
    void fill(const KmsFramebuffer* capture, KmsOutFences* out);
    void settle(const std::shared_ptr<const SyncFile>& out_fence, bool fence_leaving) noexcept;
};

/// Finds planes for those of `placed` that have none, the card agreeing, and leaves those that the
/// others have to be composited into without. The first is at the bottom. \returns 0, or an errno:
/// the card cannot be asked, or refuses the planes that are given.
[[nodiscard]] int assign_planes(KmsOutput::State& output);

/// The same by libliftoff, for all of them, or, as \p composites says, for some, the first being
/// what the others are composited into. \returns whether it found a way that the card takes; else
/// nothing has changed.
[[nodiscard]] bool assign_by_liftoff(KmsOutput::State& output, bool composites);

/// Whether \p error says that the card does not do what it was asked, and not that it cannot be
/// asked now.
[[nodiscard]] constexpr bool is_about_planes(int error) noexcept {
    return error == EINVAL || error == ERANGE || error == ENOSPC || error == EOPNOTSUPP;
}

/// What others (a boot splash, the console, the compositor before us) left that is in an output's
/// way, to be turned off.
struct KmsLeftovers {
    std::vector<std::uint32_t> connectors, crtcs, planes;

    [[nodiscard]] bool operator==(const KmsLeftovers&) const = default;
};

/// Who is in the way of an output of \p connector, \p crtc and \p writeback (0: none): what is on
/// its CRTC, and a CRTC that would be left without a connector, with its planes.
[[nodiscard]] KmsLeftovers leftovers_of(const KmsResources& resources, std::uint32_t connector,
                                        std::uint32_t crtc, std::uint32_t writeback);

/// Fills in `KmsOutput::State::leftovers`.
void note_leftovers(const KmsResources& resources, KmsOutput::State& output);

/// What the card has. \param probe asks the screens too, which may take long.
[[nodiscard]] Result<KmsResources> read_resources(const KmsFile& file, bool probe,
                                                  const char* operation);

} // namespace sluice
