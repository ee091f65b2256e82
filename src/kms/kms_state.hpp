// SPDX-License-Identifier: MIT
/// \file
/// What a wrapped card, its framebuffers and its outputs share. Not installed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <xf86drmMode.h>

#include <sluice/kms_device.hpp>
#include <sluice/kms_output.hpp>

namespace sluice {

struct KmsDevice::State {
    State(UniqueFd&& card, std::string driver_name, bool modifiers, bool writeback) noexcept
        : fd(std::move(card)), driver(std::move(driver_name)), takes_modifiers(modifiers),
          has_writeback(writeback) {}

    UniqueFd fd;
    std::string driver;
    bool takes_modifiers; // DRM_CAP_ADDFB2_MODIFIERS
    bool has_writeback;   // DRM_CLIENT_CAP_WRITEBACK_CONNECTORS was granted

    // Importing the same buffer twice gives the same GEM handle, which is not counted: from the
    // import to the closing of the handle only one thread may be at it.
    mutable std::mutex handles;
};

struct KmsFramebuffer::State {
    State(std::shared_ptr<const KmsDevice::State> of, std::uint32_t fb, const Frame& shows) noexcept
        : device(std::move(of)), id(fb), frame(shows) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    std::shared_ptr<const KmsDevice::State> device;
    std::uint32_t id;
    Frame frame;
    // Outputs that went while they showed it: it stays on their screens until it is removed.
    mutable std::atomic<unsigned> left_behind = 0;
};

/// A framebuffer that a card reads or writes, which is an access to its frame.
class KmsUse {
public:
    KmsUse() = default;
    KmsUse(KmsUse&& other) noexcept
        : framebuffer_(std::move(other.framebuffer_)), open_(std::exchange(other.open_, false)) {}
    KmsUse& operator=(KmsUse&& other) noexcept;
    KmsUse(const KmsUse&) = delete;
    KmsUse& operator=(const KmsUse&) = delete;
    ~KmsUse() { end(); }

    /// \returns it, or `revoked`, in the name of \p operation.
    [[nodiscard]] static Result<KmsUse>
    begin(std::shared_ptr<const KmsFramebuffer::State> framebuffer, const char* operation);

    /// The card is done with it.
    void end() noexcept;
    /// The card is done with it once \p fence, which is borrowed, has signalled. Costs a duplicate;
    /// where there is no fd for that, it stays open. \param user as for `FrameUse::end_after`.
    void end_after(std::uint64_t user, const SyncFile& fence) noexcept;
    /// The card is done with it once the framebuffer is removed.
    void leave_behind() noexcept;

private:
    KmsUse(std::shared_ptr<const KmsFramebuffer::State> framebuffer, bool open) noexcept
        : framebuffer_(std::move(framebuffer)), open_(open) {}

    std::shared_ptr<const KmsFramebuffer::State> framebuffer_;
    bool open_ = false;
};

/// A KMS object's properties by name.
class KmsProperties {
public:
    KmsProperties() = default;
    KmsProperties(int fd, std::uint32_t object, std::uint32_t object_type);

    struct Property {
        std::uint32_t id = 0; // 0: the object has no such property
        std::uint64_t value = 0;
    };
    [[nodiscard]] Property find(std::string_view name) const noexcept;

private:
    std::vector<std::pair<std::string, Property>> properties_;
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

/// An object that drives our CRTC before we do, and is told to leave it.
struct KmsBystander {
    std::uint32_t object = 0;
    std::uint32_t crtc_id_property = 0;
    std::uint32_t fb_id_property = 0; // planes only
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
    explicit State(std::shared_ptr<const KmsDevice::State> of) noexcept;
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    std::shared_ptr<const KmsDevice::State> device;
    std::string name;
    std::uint32_t connector = 0, crtc = 0, plane = 0;
    std::uint32_t writeback = 0; // 0: none
    KmsConnectorProperties connector_properties, writeback_properties;
    KmsCrtcProperties crtc_properties;
    KmsPlaneProperties plane_properties;
    drmModeModeInfo mode{};
    std::uint32_t mode_blob = 0;
    ImporterCaps caps;
    std::vector<KmsBystander> bystanders;

    bool routed = false; // the first commit has set the mode
    KmsAtomicRequest request;
    // A commit is accepted only once the one before it has reached the screen, so the frame before
    // that one has left it: two are held.
    KmsUse shown, leaving;
    KmsUse captured, captured_before;
    std::uint64_t screen_user, capture_user; // to the frames
};

/// "vkms, fd 5 ('/dev/dri/card2')".
[[nodiscard]] std::string describe(const KmsDevice::State& device);

} // namespace sluice
