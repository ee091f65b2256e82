// SPDX-License-Identifier: MIT
#include <sluice/kms_framebuffer.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>

#include <drm_fourcc.h>

#include "core/dma_buf_text.hpp"
#include "core/sys.hpp"
#include "frame/frame_use.hpp"
#include "kms/drm_ptr.hpp"
#include "kms/kms_state.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

constexpr const char* operation = "KmsDevice::attach";

std::string describe(const Frame& frame, const KmsDevice::State& device) {
    return describe(frame.layout()) + ", " + describe(frame.buffer()) + " on " +
           describe(*device.file);
}

/// Whether the card says by \p error that it does not import such a buffer.
bool does_not_import(int error) {
    return error == ENODEV || error == EINVAL || error == ENOSYS || error == EOPNOTSUPP;
}

Error import_refused(int error, const Frame& frame, const KmsDevice::State& device) {
    Error failure =
        sys::failed_call(error, operation, describe(frame, device),
                         "the card does not import this buffer (DRM_IOCTL_PRIME_FD_TO_HANDLE)",
                         "Allocate the buffer on that card and let the GPU import it");
    if (does_not_import(error))
        failure.code = Errc::unsupported;
    return failure;
}

/// The formats that some plane of the card shows.
std::set<std::uint32_t> shown_formats(int fd) {
    std::set<std::uint32_t> formats;
    const DrmPlaneResources planes(drmModeGetPlaneResources(fd));
    for (std::uint32_t i = 0; planes && i < planes->count_planes; ++i)
        if (const DrmPlane plane{drmModeGetPlane(fd, planes->planes[i])})
            formats.insert(plane->formats, plane->formats + plane->count_formats);
    return formats;
}

Error add_refused(int error, const Frame& frame, const KmsDevice::State& device) {
    Error failure =
        sys::failed_call(error, operation, describe(frame, device),
                         "the card makes no framebuffer of it (DRM_IOCTL_MODE_ADDFB2)",
                         "Keep to the card's limits, and align the stride to 256 bytes");
    const int fd = device.file->fd();
    const auto formats = shown_formats(fd);
    if (!formats.empty() && !formats.contains(frame.layout().format)) {
        std::string names;
        for (const std::uint32_t each : formats)
            names += (names.empty() ? "" : ", ") + format_name(each);
        failure.code = Errc::unsupported;
        failure.problem += "; its planes take " + names;
        failure.remedy = "Allocate the frame in one of these formats";
    } else {
        const KmsDeviceCaps& limits = device.caps;
        failure.problem += "; its limits are " + std::to_string(limits.min_width) + "x" +
                           std::to_string(limits.min_height) + " to " +
                           std::to_string(limits.max_width) + "x" +
                           std::to_string(limits.max_height) + " pixels";
    }
    return failure;
}

/// Whether the card would say the same of the same frame next time.
bool is_for_good(const Error& refusal) {
    switch (refusal.sys_errno) {
    case 0: // our own: what it does not take was asked when it was wrapped
    case ENODEV:
    case EINVAL:
    case ENOSYS:
    case EOPNOTSUPP:
    case ERANGE:
        return true;
    default:
        return false;
    }
}

/// A frame's buffers in the card, each for as long as a framebuffer is being made of it.
class Handles {
public:
    explicit Handles(KmsFile& card) noexcept : card_(card) {}
    Handles(const Handles&) = delete;
    Handles& operator=(const Handles&) = delete;
    ~Handles() {
        for (std::uint32_t i = 0; i < count_; ++i)
            card_.release(handles_[i]);
    }

    /// \returns 0 or an errno.
    [[nodiscard]] int import(int fd) {
        const int error = card_.import(fd, handles_[count_]);
        if (error == 0)
            ++count_;
        return error;
    }

    [[nodiscard]] std::uint32_t operator[](std::uint32_t buffer) const noexcept {
        return handles_[buffer];
    }

private:
    KmsFile& card_;
    std::array<std::uint32_t, max_planes> handles_{};
    std::uint32_t count_ = 0;
};

/// The access that the import is.
struct Attaching {
    explicit Attaching(const Frame& of) noexcept : frame(of) {}
    Attaching(const Attaching&) = delete;
    Attaching& operator=(const Attaching&) = delete;
    ~Attaching() { FrameUse::end(frame); }

    const Frame& frame;
};

/// \returns the kernel's number of the new framebuffer, or the refusal.
Result<std::uint32_t> add(const KmsDevice::State& device, const Frame& frame) {
    const FrameLayout& layout = frame.layout();

    // INVALID is a layout that only the driver knows which made the buffer, and a card that is told
    // no modifier takes the buffer for LINEAR.
    if (layout.modifier == DRM_FORMAT_MOD_INVALID ||
        (layout.modifier != DRM_FORMAT_MOD_LINEAR && !device.caps.modifiers))
        return tl::unexpected(
            Error{.code = Errc::unsupported,
                  .operation = operation,
                  .object = describe(frame, device),
                  .problem = layout.modifier == DRM_FORMAT_MOD_INVALID
                                 ? "modifier INVALID does not tell the card how the pixels lie"
                                 : "the card takes no modifiers, so LINEAR frames only",
                  .remedy = "Allocate the frame LINEAR"});

    Handles imported(*device.file);
    for (const DmaBuf& buffer : frame.buffers())
        if (const int error = imported.import(buffer.fd()); error != 0)
            return tl::unexpected(import_refused(error, frame, device));
    // Entries beyond the planes are zero (drm_mode.h).
    std::array<std::uint32_t, max_planes> handles{}, pitches{}, offsets{};
    std::array<std::uint64_t, max_planes> modifiers{};
    for (std::uint32_t i = 0; i < layout.plane_count; ++i) {
        handles[i] = imported[layout.planes[i].buffer];
        pitches[i] = layout.planes[i].stride;
        offsets[i] = layout.planes[i].offset;
        modifiers[i] = layout.modifier;
    }
    const int fd = device.file->fd();
    std::uint32_t id = 0;
    const int refused =
        device.caps.modifiers
            ? drmModeAddFB2WithModifiers(fd, layout.width, layout.height, layout.format,
                                         handles.data(), pitches.data(), offsets.data(),
                                         modifiers.data(), &id, DRM_MODE_FB_MODIFIERS)
            : drmModeAddFB2(fd, layout.width, layout.height, layout.format, handles.data(),
                            pitches.data(), offsets.data(), &id, 0);
    // The framebuffer holds the memory by itself from here on, and the handles go.
    if (refused != 0)
        return tl::unexpected(add_refused(errno, frame, device));
    return id;
}

} // namespace

KmsFramebuffer::State::State(std::shared_ptr<KmsFile> in, const Frame& of,
                             std::uint32_t number) noexcept
    : file(std::move(in)), frame(of), id(number) {
    FrameUse::attached(frame);
}

KmsFramebuffer::State::State(std::shared_ptr<KmsFile> in, const Frame& of, Error&& why) noexcept
    : file(std::move(in)), frame(of), refusal(std::move(why)) {
    FrameUse::attached(frame);
}

KmsFramebuffer::State::~State() {
    if (!left_behind_.empty())
        file->remove_framebuffer(id);
    else if (!refusal)
        file->close_framebuffer(id); // it has left every screen that we know of
    for (const Frame& each : left_behind_)
        FrameUse::end(each);
    FrameUse::detached(frame);
}

void KmsFramebuffer::State::leave_behind(const Frame& shown) const {
    const std::lock_guard lock(left_lock_);
    left_behind_.push_back(shown);
}

KmsFramebuffer::KmsFramebuffer(std::shared_ptr<const State> state, const Frame& frame) noexcept
    : state_(std::move(state)), frame_(frame) {}

std::uint32_t KmsFramebuffer::id() const noexcept {
    return state_->id;
}

const Frame& KmsFramebuffer::frame() const noexcept {
    return frame_;
}

Result<bool> KmsDevice::imports(const DmaBuf& sample) const noexcept {
    const int error = Handles(*state_->file).import(sample.fd());
    if (error != 0 && !does_not_import(error))
        return tl::unexpected(sys::failed_call(
            error, "KmsDevice::imports", describe(sample) + " on " + describe(*state_->file),
            "the import could not be tried (DRM_IOCTL_PRIME_FD_TO_HANDLE)",
            "Close what is no longer used, and try again"));
    return error == 0;
}

Result<KmsFramebuffer> KmsDevice::attach(const Frame& frame) const noexcept {
    const auto outcome =
        [&](std::shared_ptr<const KmsFramebuffer::State>&& found) -> Result<KmsFramebuffer> {
        if (found->refusal)
            return tl::unexpected(*found->refusal);
        return KmsFramebuffer(std::move(found), frame);
    };
    if (frame.revoked())
        return tl::unexpected(FrameUse::refusal(frame, operation));
    if (auto known = state_->framebuffers.find(frame, {})) {
        if (known->frame != frame) { // a new one of the same buffers
            // Revoked meanwhile it must not be watched too late.
            if (auto used = FrameUse::begin(frame, operation); !used)
                return tl::unexpected(std::move(used.error()));
            const Attaching attaching{frame};
            FrameUse::watch(frame, state_->weak_from_this());
        }
        return outcome(std::move(known));
    }
    if (auto used = FrameUse::begin(frame, operation); !used)
        return tl::unexpected(std::move(used.error()));
    const Attaching attaching{frame};
    auto added = add(*state_, frame);
    if (!added && !is_for_good(added.error()))
        return tl::unexpected(std::move(added.error()));
    FrameUse::watch(frame, state_->weak_from_this());
    using Made = const KmsFramebuffer::State;
    return outcome(state_->framebuffers.insert(
        {}, added ? std::make_shared<Made>(state_->file, frame, *added)
                  : std::make_shared<Made>(state_->file, frame, std::move(added.error()))));
}

void KmsDevice::forget_refusals() const noexcept {
    state_->framebuffers.drop_where([](const auto& each) { return each->refusal.has_value(); });
}

void KmsDevice::drop_idle_framebuffers() const noexcept {
    state_->framebuffers.drop_idle();
}

} // namespace sluice
