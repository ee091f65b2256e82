// SPDX-License-Identifier: MIT
#include <sluice/kms_device.hpp>

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
    return describe(frame.layout()) + ", " + describe(frame.buffer()) + " on " + describe(device);
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
    const int fd = device.fd.get();
    const auto formats = shown_formats(fd);
    if (!formats.empty() && !formats.contains(frame.layout().format)) {
        std::string names;
        for (const std::uint32_t each : formats)
            names += (names.empty() ? "" : ", ") + format_name(each);
        failure.code = Errc::unsupported;
        failure.problem += "; its planes take " + names;
        failure.remedy = "Allocate the frame in one of these formats";
    } else if (const DrmResources limits{drmModeGetResources(fd)}) {
        failure.problem += "; its limits are " + std::to_string(limits->min_width) + "x" +
                           std::to_string(limits->min_height) + " to " +
                           std::to_string(limits->max_width) + "x" +
                           std::to_string(limits->max_height) + " pixels";
    }
    return failure;
}

/// A frame's buffers in the card, each for as long as a framebuffer is being made of it. The kernel
/// gives one handle for one buffer however often it is imported, and does not count it, so each is
/// closed once.
class Handles {
public:
    explicit Handles(int card) noexcept : card_(card) {}
    Handles(const Handles&) = delete;
    Handles& operator=(const Handles&) = delete;
    ~Handles() {
        for (std::uint32_t i = 0; i < count_; ++i)
            if (std::find(handles_.begin(), handles_.begin() + i, handles_[i]) ==
                handles_.begin() + i)
                drmCloseBufferHandle(card_, handles_[i]);
    }

    /// \returns 0 or an errno.
    [[nodiscard]] int import(int fd) noexcept {
        if (drmPrimeFDToHandle(card_, fd, &handles_[count_]) != 0)
            return errno;
        ++count_;
        return 0;
    }

    [[nodiscard]] std::uint32_t operator[](std::uint32_t buffer) const noexcept {
        return handles_[buffer];
    }

private:
    int card_;
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

} // namespace

KmsFramebuffer::State::~State() {
    drmModeRmFB(device->fd.get(), id); // takes it off every screen, and waits for that
    for (unsigned i = 0; i < left_behind; ++i)
        FrameUse::end(frame);
}

KmsFramebuffer::KmsFramebuffer(std::shared_ptr<const State> state) noexcept
    : state_(std::move(state)) {}

std::uint32_t KmsFramebuffer::id() const noexcept {
    return state_->id;
}

const Frame& KmsFramebuffer::frame() const noexcept {
    return state_->frame;
}

Result<bool> KmsDevice::imports(const DmaBuf& sample) const noexcept {
    const std::lock_guard lock(state_->handles);
    const int error = Handles(state_->fd.get()).import(sample.fd());
    if (error != 0 && !does_not_import(error))
        return tl::unexpected(sys::failed_call(
            error, "KmsDevice::imports", describe(sample) + " on " + sluice::describe(*state_),
            "the import could not be tried (DRM_IOCTL_PRIME_FD_TO_HANDLE)",
            "Close what is no longer used, and try again"));
    return error == 0;
}

Result<KmsFramebuffer> KmsDevice::attach(const Frame& frame) const noexcept {
    const int fd = state_->fd.get();
    const FrameLayout& layout = frame.layout();

    // INVALID is a layout that only the driver knows which made the buffer, and a card that is told
    // no modifier takes the buffer for LINEAR.
    if (layout.modifier == DRM_FORMAT_MOD_INVALID ||
        (layout.modifier != DRM_FORMAT_MOD_LINEAR && !state_->takes_modifiers))
        return tl::unexpected(
            Error{.code = Errc::unsupported,
                  .operation = operation,
                  .object = describe(frame, *state_),
                  .problem = layout.modifier == DRM_FORMAT_MOD_INVALID
                                 ? "modifier INVALID does not tell the card how the pixels lie"
                                 : "the card takes no modifiers, so LINEAR frames only",
                  .remedy = "Allocate the frame LINEAR"});

    if (auto used = FrameUse::begin(frame, operation); !used)
        return tl::unexpected(std::move(used.error()));
    const Attaching attaching{frame};
    const std::lock_guard lock(state_->handles);
    Handles imported(fd);
    for (const DmaBuf& buffer : frame.buffers())
        if (const int error = imported.import(buffer.fd()); error != 0)
            return tl::unexpected(import_refused(error, frame, *state_));
    // Entries beyond the planes are zero (drm_mode.h).
    std::array<std::uint32_t, max_planes> handles{}, pitches{}, offsets{};
    std::array<std::uint64_t, max_planes> modifiers{};
    for (std::uint32_t i = 0; i < layout.plane_count; ++i) {
        handles[i] = imported[layout.planes[i].buffer];
        pitches[i] = layout.planes[i].stride;
        offsets[i] = layout.planes[i].offset;
        modifiers[i] = layout.modifier;
    }
    std::uint32_t id = 0;
    const int refused =
        state_->takes_modifiers
            ? drmModeAddFB2WithModifiers(fd, layout.width, layout.height, layout.format,
                                         handles.data(), pitches.data(), offsets.data(),
                                         modifiers.data(), &id, DRM_MODE_FB_MODIFIERS)
            : drmModeAddFB2(fd, layout.width, layout.height, layout.format, handles.data(),
                            pitches.data(), offsets.data(), &id, 0);
    const int error = errno;
    // The framebuffer holds the memory by itself from here on, and the handles go.
    if (refused != 0)
        return tl::unexpected(add_refused(error, frame, *state_));
    return KmsFramebuffer(std::make_shared<const KmsFramebuffer::State>(state_, id, frame));
}

} // namespace sluice
