// SPDX-License-Identifier: MIT
#include <sluice/kms_output.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <set>
#include <utility>

#include <drm_fourcc.h>
#include <fcntl.h>

#include "core/dma_buf_text.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/sys.hpp"
#include "frame/frame_use.hpp"
#include "kms/drm_ptr.hpp"
#include "kms/kms_state.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

Error moved_from_output(const char* operation) {
    return Error{.code = Errc::wrong_object,
                 .operation = operation,
                 .object = "no output",
                 .problem = "the object was moved from",
                 .remedy = "Use the one that it was moved to"};
}

/// The formats, or with \p of those the modifiers of that one, that the output takes for \p use.
std::string taken(const KmsOutput::State& output, Uses use, std::uint32_t of = 0) {
    std::vector<std::string> names;
    for (const FormatSupport& each : output.caps.formats)
        if (contains(each.uses, use) && (of == 0 || of == each.format))
            names.push_back(of == 0 ? format_name(each.format) : modifier_name(each.modifier));
    names.erase(std::unique(names.begin(), names.end()), names.end());
    std::string text;
    for (const std::string& each : names)
        text += (text.empty() ? "" : ", ") + each;
    return text;
}

/// One framebuffer of a commit against what the card said it takes there.
Result<void> check(const KmsOutput::State& output, const char* operation, const char* what,
                   const KmsFramebuffer& framebuffer, Uses use) {
    const FrameLayout& layout = framebuffer.frame().layout();
    const auto refuse = [&](Errc code, std::string problem, std::string remedy) {
        return tl::unexpected(Error{.code = code,
                                    .operation = operation,
                                    .object = output.name + " of " + describe(*output.device->file),
                                    .problem = std::move(problem),
                                    .remedy = std::move(remedy)});
    };
    const auto takes = [&](const FormatSupport& each) {
        return each.format == layout.format && each.modifier == layout.modifier &&
               contains(each.uses, use);
    };
    if (std::ranges::none_of(output.caps.formats, takes)) {
        const std::string modifiers = taken(output, use, layout.format);
        const std::string format = format_name(layout.format);
        return modifiers.empty()
                   ? refuse(Errc::unsupported,
                            std::string(what) + " takes " + taken(output, use) + ", the frame is " +
                                format,
                            "Allocate the frame in one of these formats")
                   : refuse(Errc::unsupported,
                            std::string(what) + " takes " + format + " as " + modifiers +
                                ", the frame is " + modifier_name(layout.modifier),
                            "Allocate the frame with one of these modifiers");
    }
    if (layout.width != output.mode.width || layout.height != output.mode.height)
        return refuse(Errc::invalid_argument,
                      std::string(what) + " is " + to_string(output.mode.width) + "x" +
                          to_string(output.mode.height) + ", the frame is " +
                          to_string(layout.width) + "x" + to_string(layout.height),
                      "Allocate the frame in the output's size");
    return {};
}

Result<void> check(const KmsOutput::State& output, const char* operation, const KmsCommit& commit) {
    if (commit.framebuffer == nullptr)
        return tl::unexpected(Error{.code = Errc::invalid_argument,
                                    .operation = operation,
                                    .object = "KmsCommit::framebuffer",
                                    .problem = "is null",
                                    .remedy = "Give the framebuffer to show"});
    if (commit.in_fence != nullptr && !commit.in_fence->valid())
        return tl::unexpected(Error{.code = Errc::wrong_object,
                                    .operation = operation,
                                    .object = "KmsCommit::in_fence",
                                    .problem = "the fence was moved from",
                                    .remedy = "Give the one that it was moved to"});
    if (auto good = check(output, operation, "the plane", *commit.framebuffer, Uses::scan_out);
        !good)
        return good;
    if (commit.writeback == nullptr)
        return {};
    if (output.writeback == 0)
        return tl::unexpected(Error{.code = Errc::unsupported,
                                    .operation = operation,
                                    .object = output.name + " of " + describe(*output.device->file),
                                    .problem = "the output has no writeback connector",
                                    .remedy = "Ask KmsDevice::find_output for one"});
    return check(output, operation, "the writeback connector", *commit.writeback, Uses::capture);
}

/// Where the kernel writes the fences' fds, 32 bits each; -1 where it gives none.
struct OutFences {
    std::int32_t flip = -1;
    std::int32_t writeback = -1;
};

/// Has the next request set routing and mode.
void forget_routing(KmsOutput::State& output) noexcept {
    output.routed = false;
    output.leftovers_known = false;
}

/// Sends the output's request. \returns 0 or an errno.
int send(KmsOutput::State& output, std::uint32_t flags) {
    const int error = output.request.commit(
        output.device->file->fd(), flags | (output.routed ? 0 : DRM_MODE_ATOMIC_ALLOW_MODESET));
    // Whoever is master meanwhile may change everything.
    if (error == EACCES)
        forget_routing(output);
    return error;
}

/// Fills the output's request. \p out is null for a test, which gives no fences.
void fill(KmsOutput::State& output, const KmsCommit& commit, OutFences* out) {
    const auto pointer = [](std::int32_t* fd) {
        return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(fd));
    };
    if (!output.routed && !output.leftovers_known)
        if (const auto now = read_resources(*output.device->file, false, "KmsOutput::commit"))
            note_leftovers(*now, output); // otherwise the commit fails too, and says why
    KmsAtomicRequest& request = output.request;
    request.clear();
    if (!output.routed) {
        request.add(output.connector, output.connector_properties.crtc_id, output.crtc);
        for (const KmsCleared& each : output.leftovers)
            request.add(each.object, each.property, 0);
    }
    if (output.writeback != 0) {
        const KmsConnectorProperties& properties = output.writeback_properties;
        if (!output.routed)
            request.add(output.writeback, properties.crtc_id, output.crtc);
        if (commit.writeback != nullptr) {
            request.add(output.writeback, properties.writeback_fb_id, commit.writeback->id());
            if (out != nullptr)
                request.add(output.writeback, properties.writeback_out_fence_ptr,
                            pointer(&out->writeback));
        }
    }
    if (!output.routed) {
        request.add(output.crtc, output.crtc_properties.mode_id, output.mode_blob);
        request.add(output.crtc, output.crtc_properties.active, 1);
    }
    if (out != nullptr)
        request.add(output.crtc, output.crtc_properties.out_fence_ptr, pointer(&out->flip));
    const KmsPlaneProperties& plane = output.plane_properties;
    request.add(output.plane, plane.fb_id, commit.framebuffer->id());
    if (commit.in_fence != nullptr && commit.in_fence->fd() >= 0)
        request.add(output.plane, plane.in_fence_fd,
                    static_cast<std::uint64_t>(commit.in_fence->fd()));
    if (!output.routed) {
        constexpr unsigned fixed_point = 16; // SRC_* are 16.16
        const std::uint64_t width = output.mode.width;
        const std::uint64_t height = output.mode.height;
        request.add(output.plane, plane.crtc_id, output.crtc);
        request.add(output.plane, plane.src_x, 0);
        request.add(output.plane, plane.src_y, 0);
        request.add(output.plane, plane.src_w, width << fixed_point);
        request.add(output.plane, plane.src_h, height << fixed_point);
        request.add(output.plane, plane.crtc_x, 0);
        request.add(output.plane, plane.crtc_y, 0);
        request.add(output.plane, plane.crtc_w, width);
        request.add(output.plane, plane.crtc_h, height);
    }
}

Error refused(const KmsOutput::State& output, const char* operation, const KmsCommit& commit,
              int error) {
    Error failure =
        sys::failed_call(error, operation, output.name + " of " + describe(*output.device->file),
                         "the card refused " + describe(commit.framebuffer->frame().layout()),
                         "See the kernel log with drm.debug=0x10 for the check that failed");
    switch (error) {
    case EACCES:
        failure.code = Errc::not_master;
        failure.problem = "this open file is not the display's master: " + sys::errno_text(error);
        failure.remedy = "Stop the compositor that holds the card, switch to its own VT, or ask it "
                         "for a DRM lease; after a VT switch, commit again once master is back "
                         "(drmSetMaster): nothing has to be made anew";
        break;
    case ENOENT:
        failure.code = Errc::device_lost;
        failure.problem = "the card has this output no more: " + sys::errno_text(error);
        failure.remedy = "A lease was revoked, or a dock unplugged: drop the output, ask for a new "
                         "lease, and find an output again";
        break;
    case EBUSY:
        failure.code = Errc::busy;
        failure.problem =
            "the last commit has not reached the screen yet: " + sys::errno_text(error);
        failure.remedy = "Wait for its out-fence, then commit again";
        break;
    case EPERM:
        if (commit.in_fence == nullptr)
            break;
        failure.code = Errc::unsupported;
        failure.problem = "the driver takes no IN_FENCE_FD: " + sys::errno_text(error);
        failure.remedy = "Wait for the fence on the CPU and commit without it";
        break;
    case EINVAL:
    case ERANGE:
    case ENOSPC:
        failure.code = Errc::failed;
        break;
    default:
        break;
    }
    return failure;
}

Result<SyncFile> take_fence(std::int32_t fd, const KmsOutput::State& output, const char* which) {
    if (fd < 0)
        return tl::unexpected(
            Error{.code = Errc::failed,
                  .operation = "KmsOutput::commit",
                  .object = output.name + " of " + describe(*output.device->file),
                  .problem = std::string("the card took the frame, but gave no ") + which,
                  .remedy = "Take the frame as shown at an unknown time"});
    return SyncFileAdopt::adopt(UniqueFd(std::move(fd)));
}

} // namespace

void KmsAtomicRequest::clear() noexcept {
    objects_.clear();
    counts_.clear();
    properties_.clear();
    values_.clear();
}

void KmsAtomicRequest::add(std::uint32_t object, std::uint32_t property, std::uint64_t value) {
    if (objects_.empty() || objects_.back() != object) {
        objects_.push_back(object);
        counts_.push_back(0);
    }
    ++counts_.back();
    properties_.push_back(property);
    values_.push_back(value);
}

int KmsAtomicRequest::commit(int fd, std::uint32_t flags) noexcept {
    const auto address = [](const auto& list) {
        return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(list.data()));
    };
    // drmModeAtomicCommit would copy and sort these on the heap for every frame.
    drm_mode_atomic request{.flags = flags,
                            .count_objs = static_cast<__u32>(objects_.size()),
                            .objs_ptr = address(objects_),
                            .count_props_ptr = address(counts_),
                            .props_ptr = address(properties_),
                            .prop_values_ptr = address(values_),
                            .reserved = 0,
                            .user_data = 0};
    return sys::ioctl(fd, DRM_IOCTL_MODE_ATOMIC, &request) == 0 ? 0 : errno;
}

KmsUse& KmsUse::operator=(KmsUse&& other) noexcept {
    if (this != &other) {
        end();
        framebuffer_ = std::move(other.framebuffer_);
        frame_ = std::exchange(other.frame_, std::nullopt);
    }
    return *this;
}

Result<KmsUse> KmsUse::begin(std::shared_ptr<const KmsFramebuffer::State> framebuffer,
                             const Frame& frame, const char* operation) {
    if (auto used = FrameUse::begin(frame, operation); !used)
        return tl::unexpected(std::move(used.error()));
    return KmsUse(std::move(framebuffer), frame);
}

void KmsUse::end() noexcept {
    if (const auto frame = std::exchange(frame_, std::nullopt))
        FrameUse::end(*frame);
}

void KmsUse::end_after(std::uint64_t user, const SyncFile& fence) noexcept {
    if (!frame_)
        return;
    auto copy = fence.duplicate();
    if (!copy)
        return;
    FrameUse::end_after(*std::exchange(frame_, std::nullopt), user, std::move(*copy));
}

void KmsUse::leave_behind(KmsDevice::State& device) noexcept {
    const auto frame = std::exchange(frame_, std::nullopt);
    if (!frame)
        return;
    framebuffer_->leave_behind(*frame);
    // Kept there it would stay on the screen, and the frame in use, for as long as the frame is
    // held.
    device.framebuffers.drop_where([this](const auto& each) { return each == framebuffer_; });
}

KmsOutput::State::State(std::shared_ptr<KmsDevice::State> of) noexcept : device(std::move(of)) {
    static constinit std::atomic<std::uint64_t> users = 0;
    screen_user = ++users;
    capture_user = ++users;
}

KmsOutput::State::~State() {
    for (KmsUse* each : {&shown, &leaving, &captured, &captured_before})
        each->leave_behind(*device);
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

const ImporterCaps& KmsOutput::caps() const noexcept {
    static const ImporterCaps nothing{}; // of one that was moved from
    return state_ ? state_->caps : nothing;
}

void KmsOutput::reroute() noexcept {
    if (state_)
        forget_routing(*state_);
}

Result<void> KmsOutput::test(const KmsCommit& commit) const noexcept {
    constexpr const char* operation = "KmsOutput::test";
    if (!state_)
        return tl::unexpected(moved_from_output(operation));
    if (auto good = check(*state_, operation, commit); !good)
        return good;
    // A test uses nothing, but what it would be told of a revoked frame is the same.
    for (const KmsFramebuffer* each : {commit.framebuffer, commit.writeback})
        if (each != nullptr && each->frame().revoked())
            return tl::unexpected(FrameUse::refusal(each->frame(), operation));
    fill(*state_, commit, nullptr);
    if (const int error = send(*state_, DRM_MODE_ATOMIC_TEST_ONLY); error != 0)
        return tl::unexpected(refused(*state_, operation, commit, error));
    return {};
}

Result<KmsFlip> KmsOutput::commit(const KmsCommit& commit) noexcept {
    constexpr const char* operation = "KmsOutput::commit";
    if (!state_)
        return tl::unexpected(moved_from_output(operation));
    State& output = *state_;
    if (auto good = check(output, operation, commit); !good)
        return tl::unexpected(std::move(good.error()));
    // Ended again on the way out where the card refuses.
    auto showing = KmsUse::begin(commit.framebuffer->state_, commit.framebuffer->frame_, operation);
    if (!showing)
        return tl::unexpected(std::move(showing.error()));
    KmsUse capturing;
    if (commit.writeback != nullptr) {
        auto began = KmsUse::begin(commit.writeback->state_, commit.writeback->frame_, operation);
        if (!began)
            return tl::unexpected(std::move(began.error()));
        capturing = std::move(*began);
    }
    OutFences out;
    fill(output, commit, &out);
    if (const int error = send(output, DRM_MODE_ATOMIC_NONBLOCK); error != 0)
        return tl::unexpected(refused(output, operation, commit, error));
    output.routed = true;
    output.leaving = std::exchange(output.shown, std::move(*showing));
    output.captured_before = std::exchange(output.captured, std::move(capturing));

    UniqueFd writeback_fd(std::move(out.writeback));
    auto flip = take_fence(out.flip, output, "out-fence");
    if (!flip)
        return tl::unexpected(std::move(flip.error()));
    output.leaving.end_after(output.screen_user, *flip);
    KmsFlip flipped{.out_fence = std::move(*flip), .writeback_fence = std::nullopt};
    if (commit.writeback != nullptr) {
        auto captured = take_fence(writeback_fd.release(), output, "writeback fence");
        if (!captured)
            return tl::unexpected(std::move(captured.error()));
        output.captured.end_after(output.capture_user, *captured);
        flipped.writeback_fence = std::move(*captured);
    }
    return flipped;
}

Result<DmaBuf> KmsOutput::on_screen() const noexcept {
    if (!state_)
        return tl::unexpected(moved_from_output("KmsOutput::on_screen"));
    const int fd = state_->device->file->fd();
    const auto refuse = [&](const char* problem) {
        return tl::unexpected(sys::failed_call(
            errno, "KmsOutput::on_screen", state_->name + " of " + describe(*state_->device->file),
            problem, "Commit a frame first, and be the display's master (or CAP_SYS_ADMIN)"));
    };
    const DrmPlane plane(drmModeGetPlane(fd, state_->plane));
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
