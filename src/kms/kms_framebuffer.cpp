// SPDX-License-Identifier: MIT
#include <sluice/kms_device.hpp>

#include <array>
#include <cerrno>
#include <set>

#include <drm_fourcc.h>

#include "core/dma_buf_text.hpp"
#include "core/sys.hpp"
#include "kms/drm_ptr.hpp"
#include "kms/kms_state.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

constexpr const char* operation = "KmsDevice::attach";

std::string describe(const Frame& frame, const KmsDevice::State& device) {
    return describe(frame.layout()) + ", " + describe(frame.buffer()) + " on " + describe(device);
}

Error import_refused(int error, const Frame& frame, const KmsDevice::State& device) {
    Error failure =
        sys::failed_call(error, operation, describe(frame, device),
                         "the card does not import this buffer (DRM_IOCTL_PRIME_FD_TO_HANDLE)",
                         "Allocate the buffer on that card and let the GPU import it");
    if (error == ENODEV || error == EINVAL || error == ENOSYS || error == EOPNOTSUPP)
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

} // namespace

KmsFramebuffer::State::~State() {
    drmModeRmFB(device->fd.get(), id);
}

KmsFramebuffer::KmsFramebuffer(std::shared_ptr<const State> state) noexcept
    : state_(std::move(state)) {}

std::uint32_t KmsFramebuffer::id() const noexcept {
    return state_->id;
}

const Frame& KmsFramebuffer::frame() const noexcept {
    return state_->frame;
}

Result<KmsFramebuffer> KmsDevice::attach(const Frame& frame) const noexcept {
    const int fd = state_->fd.get();
    const FrameLayout& layout = frame.layout();

    const std::lock_guard lock(state_->handles);
    std::uint32_t handle = 0;
    if (drmPrimeFDToHandle(fd, frame.buffer().fd(), &handle) != 0)
        return tl::unexpected(import_refused(errno, frame, *state_));
    // The planes lie in one buffer and share its modifier; entries beyond them are zero
    // (drm_mode.h).
    std::array<std::uint32_t, max_planes> handles{}, pitches{}, offsets{};
    std::array<std::uint64_t, max_planes> modifiers{};
    for (std::uint32_t i = 0; i < find_format(layout.format)->plane_count; ++i) {
        handles[i] = handle;
        pitches[i] = layout.planes[i].stride;
        offsets[i] = layout.planes[i].offset;
        modifiers[i] = layout.modifier;
    }
    std::uint32_t id = 0;
    // A driver without modifiers takes what it is given for LINEAR, which is all a frame can be.
    const int refused =
        state_->takes_modifiers
            ? drmModeAddFB2WithModifiers(fd, layout.width, layout.height, layout.format,
                                         handles.data(), pitches.data(), offsets.data(),
                                         modifiers.data(), &id, DRM_MODE_FB_MODIFIERS)
            : drmModeAddFB2(fd, layout.width, layout.height, layout.format, handles.data(),
                            pitches.data(), offsets.data(), &id, 0);
    const int error = errno;
    // The framebuffer holds the memory by itself from here on.
    drmCloseBufferHandle(fd, handle);
    if (refused != 0)
        return tl::unexpected(add_refused(error, frame, *state_));
    return KmsFramebuffer(std::make_shared<const KmsFramebuffer::State>(state_, id, frame));
}

} // namespace sluice
