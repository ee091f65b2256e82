// SPDX-License-Identifier: MIT
#include <sluice/kms_output.hpp>

#include <cerrno>
#include <iterator>
#include <set>
#include <utility>

#include <fcntl.h>

#include "core/sys.hpp"
#include "kms/drm_ptr.hpp"
#include "kms/kms_state.hpp"

namespace sluice {

namespace {

Error moved_from_output(const char* operation) {
    return Error{.code = Errc::wrong_object,
                 .operation = operation,
                 .object = "no output",
                 .problem = "the object was moved from",
                 .remedy = "Use the one that it was moved to"};
}

} // namespace

KmsOutput::State::State(std::shared_ptr<KmsDevice::State> of) noexcept : device(std::move(of)) {
    static constinit std::atomic<std::uint64_t> users = 0;
    screen_user = ++users;
    capture_user = ++users;
}

KmsOutput::State::~State() {
    for (KmsOutputPlane& each : planes) {
        each.shown.leave_behind(*device);
        each.leaving.leave_behind(*device);
        if (each.on)
            device->disclaim(each.can.id, screen_user);
    }
    captured.leave_behind(*device);
    captured_before.leave_behind(*device);
    if (mode_blob != 0)
        drmModeDestroyPropertyBlob(device->file->fd(), mode_blob);
}

KmsOutput::KmsOutput(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
KmsOutput::KmsOutput(KmsOutput&&) noexcept = default;
KmsOutput& KmsOutput::operator=(KmsOutput&&) noexcept = default;
KmsOutput::~KmsOutput() = default;

std::uint32_t KmsOutput::width() const noexcept {
    return state_ ? state_->mode.width : 0;
}

std::uint32_t KmsOutput::height() const noexcept {
    return state_ ? state_->mode.height : 0;
}

std::uint32_t KmsOutput::refresh_mhz() const noexcept {
    return state_ ? state_->mode.refresh_mhz : 0;
}

std::string KmsOutput::name() const noexcept {
    return state_ ? state_->name : std::string();
}

std::uint32_t KmsOutput::connector() const noexcept {
    return state_ ? state_->connector : 0;
}

std::uint32_t KmsOutput::crtc() const noexcept {
    return state_ ? state_->crtc : 0;
}

std::vector<KmsPlane> KmsOutput::planes() const noexcept {
    std::vector<KmsPlane> all;
    if (state_)
        for (const KmsOutputPlane& each : state_->planes)
            all.push_back(each.can);
    return all;
}

const ImporterCaps& KmsOutput::caps() const noexcept {
    static const ImporterCaps nothing{}; // of one that was moved from
    return state_ ? state_->caps : nothing;
}

void KmsOutput::reroute() noexcept {
    if (state_)
        state_->forget_routing();
}

Result<void> KmsOutput::test(const KmsCommit& commit) const noexcept {
    constexpr const char* operation = "KmsOutput::test";
    if (!state_)
        return tl::unexpected(moved_from_output(operation));
    return state_->test(commit, operation);
}

Result<std::vector<std::uint32_t>> KmsOutput::assign(const KmsCommit& commit) const noexcept {
    constexpr const char* operation = "KmsOutput::assign";
    if (!state_)
        return tl::unexpected(moved_from_output(operation));
    return state_->assign(commit, operation);
}

Result<KmsFlip> KmsOutput::commit(const KmsCommit& commit) noexcept {
    constexpr const char* operation = "KmsOutput::commit";
    if (!state_)
        return tl::unexpected(moved_from_output(operation));
    return state_->commit(commit, operation);
}

Result<std::shared_ptr<const SyncFile>> KmsOutput::capture(const KmsFramebuffer& into) noexcept {
    constexpr const char* operation = "KmsOutput::capture";
    if (!state_)
        return tl::unexpected(moved_from_output(operation));
    return state_->capture(into, operation);
}

Result<DmaBuf> KmsOutput::on_screen(std::uint32_t plane_id) const noexcept {
    if (!state_)
        return tl::unexpected(moved_from_output("KmsOutput::on_screen"));
    const int fd = state_->device->file->fd();
    const auto refuse = [&](const char* problem) {
        return tl::unexpected(sys::failed_call(
            errno, "KmsOutput::on_screen", state_->name + " of " + describe(*state_->device->file),
            problem, "Commit a frame first, and be the display's master (or CAP_SYS_ADMIN)"));
    };
    const DrmPlane plane(
        drmModeGetPlane(fd, plane_id != 0 ? plane_id : state_->planes[state_->primary].can.id));
    if (!plane)
        return refuse("the plane cannot be asked");
    const DrmFramebuffer shown(drmModeGetFB2(fd, plane->fb_id));
    if (!shown || shown->handles[0] == 0)
        return refuse("the kernel does not tell which memory the plane shows");
    // GETFB2 made them for this question, one for each buffer.
    std::set<std::uint32_t> handles(std::begin(shown->handles), std::end(shown->handles));
    handles.erase(0);
    KmsFile& file = *state_->device->file;
    for (const std::uint32_t each : handles)
        file.adopt(each);
    int raw = -1;
    const int refused = drmPrimeHandleToFD(fd, shown->handles[0], DRM_CLOEXEC, &raw);
    const int error = errno;
    for (const std::uint32_t each : handles)
        file.release(each);
    errno = error;
    if (refused != 0)
        return refuse("the kernel gives no dma-buf for the memory that the plane shows");
    return DmaBuf::from_fd(UniqueFd(std::move(raw)));
}

} // namespace sluice
