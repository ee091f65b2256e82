// SPDX-License-Identifier: MIT
/// \file
/// What a wrapped card, its framebuffers and its outputs share. Not installed.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "frame/attachment_cache.hpp"
#include "kms/kms_file.hpp"
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

struct KmsDevice::State final : FrameWatcher, std::enable_shared_from_this<State> {
    State(std::shared_ptr<KmsFile> wrapped, const KmsDeviceCaps& can, const KmsDeviceInfo& info);

    void revoked(const Frame& frame) noexcept override { framebuffers.drop(frame); }

    std::shared_ptr<KmsFile> file;
    KmsDeviceCaps caps;
    std::string device;
    AttachmentCache<KmsFramebuffer::State, KmsFramebufferKey> framebuffers;
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

    /// The card is done with it.
    void end() noexcept;
    /// The card is done with it once \p fence, which is borrowed, has signalled. Costs a duplicate;
    /// where there is no fd for that, it stays open. \param user as for `FrameUse::end_after`.
    void end_after(std::uint64_t user, const SyncFile& fence) noexcept;
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
};
struct KmsPlaneProperties {
    std::uint32_t fb_id = 0, in_fence_fd = 0, crtc_id = 0;
    std::uint32_t src_x = 0, src_y = 0, src_w = 0, src_h = 0;
    std::uint32_t crtc_x = 0, crtc_y = 0, crtc_w = 0, crtc_h = 0;
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

private:
    std::vector<std::uint32_t> objects_, counts_, properties_;
    std::vector<std::uint64_t> values_;
};

struct KmsOutput::State {
    explicit State(std::shared_ptr<KmsDevice::State> of) noexcept;
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    std::shared_ptr<KmsDevice::State> device;
    std::string name;
    std::uint32_t connector = 0, crtc = 0, plane = 0;
    std::uint32_t writeback = 0; // 0: none
    KmsConnectorProperties connector_properties, writeback_properties;
    KmsCrtcProperties crtc_properties;
    KmsPlaneProperties plane_properties;
    KmsMode mode;
    std::uint32_t mode_blob = 0;
    ImporterCaps caps;

    bool routed = false; // a commit has set routing and mode, and nobody has changed them since
    bool leftovers_known = false;
    std::vector<KmsCleared> leftovers;
    KmsAtomicRequest request;
    // A commit is accepted only once the one before it has reached the screen, so the frame before
    // that one has left it: two are held.
    KmsUse shown, leaving;
    KmsUse captured, captured_before;
    std::uint64_t screen_user, capture_user; // to the frames
};

/// What others (a boot splash, the console, the compositor before us) left that is in an output's
/// way, to be turned off.
struct KmsLeftovers {
    std::vector<std::uint32_t> connectors, crtcs, planes;

    [[nodiscard]] bool operator==(const KmsLeftovers&) const = default;
};

/// Who is in the way of an output of \p connector, \p crtc, \p plane and \p writeback (0: none):
/// what is on its CRTC, and a CRTC that would be left without a connector, with its planes.
[[nodiscard]] KmsLeftovers leftovers_of(const KmsResources& resources, std::uint32_t connector,
                                        std::uint32_t crtc, std::uint32_t plane,
                                        std::uint32_t writeback);

/// Fills in `KmsOutput::State::leftovers`.
void note_leftovers(const KmsResources& resources, KmsOutput::State& output);

/// What the card has. \param probe asks the screens too, which may take long.
[[nodiscard]] Result<KmsResources> read_resources(const KmsFile& file, bool probe,
                                                  const char* operation);

} // namespace sluice
