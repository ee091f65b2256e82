// SPDX-License-Identifier: MIT
// From what a commit asks for to one request to the card.
#include <sluice/kms_commit.hpp>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <drm_fourcc.h>

#include "core/dma_buf_text.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/sys.hpp"
#include "frame/frame_use.hpp"
#include "kms/kms_state.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

constexpr std::uint32_t test_only = DRM_MODE_ATOMIC_TEST_ONLY;

/// The layers of \p commit, in \p room where it is short for one.
std::span<const KmsLayer> layers_of(const KmsCommit& commit, KmsLayer& room) {
    if (commit.framebuffer == nullptr)
        return commit.layers;
    room.framebuffer = commit.framebuffer;
    room.in_fence = commit.in_fence;
    return {&room, 1};
}

/// Lets go of what a commit began to use and did not come to show.
struct Ending {
    explicit Ending(std::vector<KmsUse>& of) noexcept : uses(of) {}
    Ending(const Ending&) = delete;
    Ending& operator=(const Ending&) = delete;
    ~Ending() { uses.clear(); }

    std::vector<KmsUse>& uses;
};

} // namespace

Error KmsOutput::State::error(const char* operation, Errc code, std::string problem,
                              std::string remedy) const {
    return {.code = code,
            .operation = operation,
            .object = name + " of " + describe(*device->file),
            .problem = std::move(problem),
            .remedy = std::move(remedy)};
}

Error KmsOutput::State::error(const char* operation, std::size_t layer, KmsRefusal&& why) const {
    const KmsPlacedLayer& each = placed[layer];
    const KmsPlane* plane =
        each.plane != KmsPlacedLayer::nowhere ? plane_list[each.plane] : nullptr;
    Error failure = error(operation, why.code, describe(each, layer, plane) + ": " + why.problem,
                          std::move(why.remedy));
    failure.sys_errno = why.sys_errno;
    return failure;
}

Error KmsOutput::State::anothers(const char* operation, std::size_t layer) const {
    return error(operation, layer,
                 {.code = Errc::busy,
                  .problem = "another output shows something on the plane",
                  .remedy = "Name another plane, or none"});
}

Result<void> KmsOutput::State::check(const KmsCommit& commit, const char* operation) const {
    const auto refuse = [&](Errc code, std::string problem, std::string remedy) {
        return tl::unexpected(error(operation, code, std::move(problem), std::move(remedy)));
    };
    if ((commit.framebuffer == nullptr) == commit.layers.empty())
        return refuse(Errc::invalid_argument,
                      commit.layers.empty()
                          ? "KmsCommit::framebuffer is null, and there are no layers"
                          : "there are a KmsCommit::framebuffer and layers",
                      "Give the framebuffer to show, or layers");
    if (!commit.layers.empty() && commit.in_fence != nullptr)
        return refuse(Errc::invalid_argument, "KmsCommit::in_fence is given beside layers",
                      "Give each layer its own fence");
    if (!routed && !commit.may_set_mode)
        return refuse(Errc::invalid_argument,
                      "the mode and the routing are still to be set, and may_set_mode is false",
                      "Commit once with may_set_mode");
    if (commit.framebuffer != nullptr) {
        const FrameLayout& frame = commit.framebuffer->frame().layout();
        if (frame.width != mode.width || frame.height != mode.height)
            return refuse(Errc::invalid_argument,
                          "the screen is " + to_string(mode.width) + "x" + to_string(mode.height) +
                              ", the frame is " + to_string(frame.width) + "x" +
                              to_string(frame.height),
                          "Allocate the frame in the output's size, or give a layer");
    }
    return commit.writeback != nullptr ? check_capture(*commit.writeback, operation)
                                       : sys::success();
}

Result<void> KmsOutput::State::check_capture(const KmsFramebuffer& into,
                                             const char* operation) const {
    const auto refuse = [&](Errc code, std::string problem, std::string remedy) {
        return tl::unexpected(error(operation, code, std::move(problem), std::move(remedy)));
    };
    if (writeback == 0)
        return refuse(Errc::unsupported, "the output has no writeback connector",
                      "Ask KmsDevice::find_output for one");
    const FrameLayout& frame = into.frame().layout();
    const auto takes = [&](const FormatSupport& each) {
        return each.format == frame.format && each.modifier == frame.modifier &&
               contains(each.uses, Uses::capture);
    };
    if (std::ranges::none_of(caps.formats, takes)) {
        std::string taken;
        for (const FormatSupport& each : caps.formats)
            if (contains(each.uses, Uses::capture))
                taken += (taken.empty() ? "" : ", ") + format_name(each.format);
        return refuse(Errc::unsupported,
                      "the writeback connector takes " + taken + ", LINEAR; the frame is " +
                          format_name(frame.format) + " " + modifier_name(frame.modifier),
                      "Allocate the frame in one of these formats");
    }
    if (behind(into)->file != device->file)
        return refuse(Errc::wrong_object, "the framebuffer is of another card or open file",
                      "Attach the frame to this device");
    if (frame.width != mode.width || frame.height != mode.height)
        return refuse(Errc::invalid_argument,
                      "the writeback connector is " + to_string(mode.width) + "x" +
                          to_string(mode.height) + ", the frame is " + to_string(frame.width) +
                          "x" + to_string(frame.height),
                      "Allocate the frame in the output's size");
    // Some drivers lose the fence of a capture that is overtaken.
    if (capturing) {
        const auto status = capturing->status();
        if (status && status->state == FenceState::pending)
            return refuse(Errc::busy, "the last capture is still to be written",
                          "Wait for its fence, then capture again");
    }
    // The card waits for none of its fences.
    for (const DmaBuf& buffer : into.frame().buffers()) {
        const auto idle = buffer.idle(Access::write);
        if (!idle)
            return tl::unexpected(idle.error());
        if (!*idle)
            return refuse(Errc::busy,
                          "somebody still works on " + describe(buffer) + " to be captured into",
                          "Wait for it (DmaBuf::wait), or capture into another frame");
    }
    return sys::success();
}

Result<void> KmsOutput::State::place(std::span<const KmsLayer> layers, const char* operation) {
    placed.clear();
    for (std::size_t i = 0; i < layers.size(); ++i) {
        const KmsLayer& layer = layers[i];
        const auto refuse = [&](Errc code, const std::string& problem, std::string remedy) {
            return tl::unexpected(
                error(operation, code, "layer " + to_string(i) + problem, std::move(remedy)));
        };
        if (layer.framebuffer == nullptr)
            return refuse(Errc::invalid_argument, " has no framebuffer",
                          "Give what to show, or leave the layer away");
        if (behind(*layer.framebuffer)->file != device->file)
            return refuse(Errc::wrong_object, "'s framebuffer is of another card or open file",
                          "Attach the frame to this device");
        if (layer.in_fence != nullptr && !layer.in_fence->valid())
            return refuse(Errc::wrong_object, "'s in_fence was moved from",
                          "Give the one that it was moved to");
        if (layer.framebuffer->frame().revoked())
            return tl::unexpected(FrameUse::refusal(layer.framebuffer->frame(), operation));
        auto each = with_defaults(layer, i, layers.size(), mode);
        if (!each)
            return tl::unexpected(error(operation, each.error().code,
                                        std::move(each.error().problem),
                                        std::move(each.error().remedy)));
        if (layer.plane != 0) {
            const auto found = std::ranges::find(
                planes, layer.plane, [](const KmsOutputPlane& plane) { return plane.can.id; });
            if (found == planes.end()) {
                std::string all;
                for (const KmsPlane* plane : plane_list)
                    all += (all.empty() ? "" : ", ") + to_string(plane->id);
                return refuse(Errc::invalid_argument,
                              " names plane " + to_string(layer.plane) +
                                  "; those of this output are " + all,
                              "Name one of these, or none");
            }
            each->plane = static_cast<std::size_t>(found - planes.begin());
        } else if (layers.size() == 1) {
            each->plane = primary;
        }
        placed.push_back(*each);
    }
    if (auto good = check_planes(operation); !good)
        return good;
    return choose_planes(layers, operation);
}

Result<void> KmsOutput::State::choose_planes(std::span<const KmsLayer> layers,
                                             const char* operation) {
    if (std::ranges::none_of(placed, [](const KmsPlacedLayer& each) {
            return each.plane == KmsPlacedLayer::nowhere;
        }))
        return sys::success();
    shapes.clear();
    for (const KmsPlacedLayer& each : placed)
        shapes.push_back(shape_of(each));
    const auto fits = [this](std::size_t plane) {
        return plane != KmsPlacedLayer::nowhere && is_free(planes[plane]);
    };
    const bool same = shapes == chosen_for;
    const bool moved =
        same && !std::ranges::equal(placed, chosen_at, {}, &KmsPlacedLayer::destination);
    // Whoever has a plane may keep it wherever he goes, unless the card says otherwise; who has
    // none may get one elsewhere.
    if (same && (std::ranges::all_of(chosen, fits) ||
                 (!moved && std::ranges::all_of(chosen, [&](std::size_t plane) {
                     return plane == KmsPlacedLayer::nowhere || fits(plane);
                 })))) {
        for (std::size_t i = 0; i < placed.size(); ++i)
            placed[i].plane = chosen[i];
        chosen_has_moved = moved;
        return sys::success();
    }
    chosen_has_moved = false;
    chosen_for.clear();
    if (const int error = assign_planes(*this); error != 0)
        return tl::unexpected(refused(error, {.layers = layers}, operation));
    chosen_for = shapes;
    chosen.clear();
    chosen_at.clear();
    for (const KmsPlacedLayer& each : placed) {
        chosen.push_back(each.plane);
        chosen_at.push_back(each.destination);
    }
    return sys::success();
}

Result<void> KmsOutput::State::check_planes(const char* operation) const {
    for (std::size_t i = 0; i < placed.size(); ++i) {
        if (placed[i].plane == KmsPlacedLayer::nowhere)
            continue;
        const KmsOutputPlane& plane = planes[placed[i].plane];
        if (auto why = refusal_of(plane.can, *placed[i].layer))
            return tl::unexpected(error(operation, i, std::move(*why)));
        if (!is_free(plane))
            return tl::unexpected(anothers(operation, i));
        for (std::size_t j = 0; j < i; ++j)
            if (placed[j].plane == placed[i].plane)
                return tl::unexpected(
                    error(operation, i,
                          {.code = Errc::invalid_argument,
                           .problem = "layer " + to_string(j) + " names the same plane",
                           .remedy = "Name another plane, or none"}));
    }
    return sys::success();
}

Result<void> KmsOutput::State::check_all_have_planes(const char* operation) const {
    std::string without;
    for (std::size_t i = 0; i < placed.size(); ++i)
        if (placed[i].plane == KmsPlacedLayer::nowhere)
            without += (without.empty() ? "" : ", ") + to_string(i);
    if (!without.empty())
        return tl::unexpected(
            error(operation, Errc::unsupported,
                  "of " + to_string(placed.size()) + " layers these get no plane: " + without,
                  "Draw them into a layer below, and commit the others; "
                  "KmsOutput::assign tells beforehand"));
    return sys::success();
}

Result<void> KmsOutput::State::prepare(const KmsCommit& commit, std::span<const KmsLayer> layers,
                                       const char* operation) {
    if (auto good = check(commit, operation); !good)
        return good;
    if (auto good = place(layers, operation); !good)
        return good;
    if (auto good = check_all_have_planes(operation); !good)
        return good;
    if (auto wrong = stack(placed, plane_list)) {
        wrong->why.code = Errc::invalid_argument;
        return tl::unexpected(error(operation, wrong->layer, std::move(wrong->why)));
    }
    want_placed();
    return sys::success();
}

void KmsOutput::State::want_placed() {
    wanted.clear();
    for (std::size_t i = 0; i < placed.size(); ++i)
        if (const KmsPlacedLayer& each = placed[i]; each.plane != KmsPlacedLayer::nowhere)
            wanted.push_back({.layer = i,
                              .plane = each.plane,
                              .framebuffer = each.layer->framebuffer->id(),
                              .values = values_of(each, planes[each.plane].controls, crtc)});
}

int KmsOutput::State::try_placed() {
    if (stack(placed, plane_list))
        return EINVAL;
    want_placed();
    return send(nullptr, test_only, nullptr);
}

void KmsOutput::State::forget_routing() noexcept {
    routed = false;
    leftovers_known = false;
}

void KmsOutput::State::fill_routing() {
    if (routed)
        return;
    if (!leftovers_known)
        if (const auto now = read_resources(*device->file, false, "KmsOutput::commit"))
            note_leftovers(*now, *this); // otherwise the commit fails too, and says why
    request.add(connector, connector_properties.crtc_id, crtc);
    if (writeback != 0)
        request.add(writeback, writeback_properties.crtc_id, crtc);
    request.add(crtc, crtc_properties.mode_id, mode_blob);
    request.add(crtc, crtc_properties.active, 1);
    for (const std::uint32_t each : crtc_properties.reset)
        request.add(crtc, each, 0);
}

void KmsOutput::State::fill_wanted() {
    for (const KmsWanted& each : wanted) {
        const KmsOutputPlane& plane = planes[each.plane];
        const KmsPlaneControls& controls = plane.controls;
        request.add(plane.can.id, controls.fb_id, each.framebuffer);
        if (each.in_fence >= 0)
            request.add(plane.can.id, controls.in_fence_fd,
                        static_cast<std::uint64_t>(each.in_fence));
        for (std::size_t i = 0; i < kms_plane_properties; ++i)
            if (controls.ids[i] != 0 &&
                (!routed || !plane.known || plane.sent[i] != each.values[i]))
                request.add(plane.can.id, controls.ids[i], each.values[i]);
    }
}

void KmsOutput::State::fill_others() {
    request.clear();
    fill_routing();
    if (!routed)
        for (const KmsCleared& each : leftovers)
            if (std::ranges::none_of(planes, [&](const KmsOutputPlane& plane) {
                    return plane.can.id == each.object;
                }))
                request.add(each.object, each.property, 0);
    fill_wanted();
}

void KmsOutput::State::fill(const KmsFramebuffer* capture, KmsOutFences* out) {
    const auto pointer = [](std::int32_t* fd) {
        return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(fd));
    };
    const auto is_wanted = [this](std::uint32_t plane) {
        return std::ranges::any_of(
            wanted, [&](const KmsWanted& each) { return planes[each.plane].can.id == plane; });
    };
    request.clear();
    fill_routing();
    if (!routed)
        for (const KmsCleared& each : leftovers)
            if (!is_wanted(each.object))
                request.add(each.object, each.property, 0);
    if (capture != nullptr) {
        request.add(writeback, writeback_properties.writeback_fb_id, capture->id());
        if (out != nullptr)
            request.add(writeback, writeback_properties.writeback_out_fence_ptr,
                        pointer(&out->writeback));
    }
    if (out != nullptr)
        request.add(crtc, crtc_properties.out_fence_ptr, pointer(&out->flip));
    fill_wanted();
    for (const KmsOutputPlane& plane : planes)
        if (plane.on && !is_wanted(plane.can.id)) {
            request.add(plane.can.id, plane.controls.fb_id, 0);
            request.add(plane.can.id,
                        plane.controls.ids[static_cast<std::size_t>(KmsPlaneProperty::crtc_id)], 0);
        }
}

int KmsOutput::State::send(const KmsFramebuffer* capture, std::uint32_t flags, KmsOutFences* out) {
    fill(capture, out);
    const int error =
        request.commit(device->file->fd(), flags | (routed ? 0 : DRM_MODE_ATOMIC_ALLOW_MODESET));
    // Whoever is master meanwhile may change everything.
    if (error == EACCES)
        forget_routing();
    return error;
}

Error KmsOutput::State::refused(int errnum, const KmsCommit& commit, const char* operation) {
    Error failure =
        sys::failed_call(errnum, operation, name + " of " + describe(*device->file),
                         commit.framebuffer != nullptr
                             ? "the card refused " + describe(commit.framebuffer->frame().layout())
                         : commit.layers.empty() ? "the card refused the capture"
                                                 : "the card refused these " +
                                                       to_string(commit.layers.size()) + " layers",
                         "See the kernel log with drm.debug=0x10 for the check that failed");
    switch (errnum) {
    case EACCES:
        failure.code = Errc::not_master;
        failure.problem = "this open file is not the display's master: " + sys::errno_text(errnum);
        failure.remedy = "Stop the compositor that holds the card, switch to its own VT, or ask it "
                         "for a DRM lease; after a VT switch, commit again once master is back "
                         "(drmSetMaster): nothing has to be made anew";
        break;
    case ENOENT:
        failure.code = Errc::device_lost;
        failure.problem = "the card has this output no more: " + sys::errno_text(errnum);
        failure.remedy = "A lease was revoked, or a dock unplugged: drop the output, ask for a new "
                         "lease, and find an output again";
        break;
    case EBUSY:
        failure.code = Errc::busy;
        failure.problem =
            "the last commit has not reached the screen yet: " + sys::errno_text(errnum);
        failure.remedy = "Wait for its out-fence, then commit again";
        break;
    case ENODEV:
        failure.code = Errc::device_lost;
        failure.problem = "the card is gone: " + sys::errno_text(errnum);
        failure.remedy = "It was unplugged, or its driver unbound: drop the device and all of it";
        break;
    default:
        if (is_about_planes(errnum))
            blame(failure, commit);
        break;
    }
    return failure;
}

// The kernel says no more than EINVAL. Asked for the first layer, then for the first two and so on,
// it says which is too much.
void KmsOutput::State::blame(Error& failure, const KmsCommit& commit) {
    const std::vector<KmsWanted> all = wanted;
    std::size_t taken = 0;
    int errnum = 0;
    for (; taken < all.size() && !placed.empty(); ++taken) {
        wanted.assign(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(taken) + 1);
        errnum = send(nullptr, test_only, nullptr);
        if (errnum != 0)
            break;
    }
    wanted = all;
    const std::string was = ": " + sys::errno_text(failure.sys_errno);
    if (errnum == 0) {
        failure.code = commit.writeback != nullptr ? Errc::unsupported : Errc::failed;
        failure.problem = commit.writeback != nullptr
                              ? "the card takes the layers, and refuses to capture them into " +
                                    describe(commit.writeback->frame().layout()) + was
                              : "the card refused what it takes in a test" + was;
        return;
    }
    if (!is_about_planes(errnum))
        return;
    const KmsPlacedLayer& layer = placed[all[taken].layer];
    const auto size = [](std::uint32_t width, std::uint32_t height) {
        return to_string(width) + "x" + to_string(height);
    };
    failure.code = errnum == ENOSPC ? Errc::invalid_argument : Errc::unsupported;
    failure.problem =
        describe(layer, all[taken].layer, plane_list[layer.plane]) + ": the card " +
        (errnum == ENOSPC ? "says that the source reaches past the frame"
         : errnum == ERANGE
             ? "does not scale it to " + size(layer.destination.width, layer.destination.height)
             : std::string("refuses it")) +
        (taken != 0 ? ", and takes the layers before it" : "") + ": " + sys::errno_text(errnum);
    failure.remedy = errnum == ENOSPC ? "Keep the source inside the frame"
                     : errnum == ERANGE
                         ? "Show it in the size of its source, or composite it"
                         : "Name another plane or none, or composite the layer; the kernel's log "
                           "with drm.debug=0x10 tells the check that failed";
}

bool KmsOutput::State::choose_again(int errnum) {
    if (!is_about_planes(errnum) || !std::exchange(chosen_has_moved, false))
        return false;
    chosen_for.clear();
    return true;
}

Result<void> KmsOutput::State::claim_planes(const char* operation) {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        const KmsOutputPlane& plane = planes[wanted[i].plane];
        if (plane.on || device->claim(plane.can.id, screen_user))
            continue;
        disclaim_planes(i);
        return tl::unexpected(anothers(operation, i));
    }
    return sys::success();
}

void KmsOutput::State::disclaim_planes(std::size_t count) noexcept {
    for (const KmsWanted& each : std::span(wanted).first(count))
        if (!planes[each.plane].on)
            device->disclaim(planes[each.plane].can.id, screen_user);
}

Result<void> KmsOutput::State::give_fences(const KmsCommit& commit, bool waits,
                                           const char* operation) {
    std::optional<Deadline> deadline; // one for all
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        const KmsLayer& layer = *placed[i].layer;
        const bool card_waits =
            planes[wanted[i].plane].controls.in_fence_fd != 0 &&
            device->in_fences.load(std::memory_order_relaxed) != KmsInFences::refused;
        const auto refuse = [&](Errc code, std::string problem, std::string remedy,
                                int errnum = 0) {
            return tl::unexpected(
                error(operation, i, {code, std::move(problem), std::move(remedy), errnum}));
        };
        wanted[i].in_fence = -1;
        if (layer.in_fence == nullptr || layer.in_fence->fd() < 0) {
            if (!layer.ignore_buffer_fences)
                continue;
            if (!card_waits)
                return refuse(Errc::unsupported,
                              "the card takes no IN_FENCE_FD, and so waits for the fences in the "
                              "buffers if it waits for any",
                              "Leave ignore_buffer_fences away, or show a buffer without fences");
            auto signalled = device->signalled_fence(operation);
            if (!signalled)
                return tl::unexpected(std::move(signalled.error()));
            wanted[i].in_fence = *signalled;
            continue;
        }
        const auto status = layer.in_fence->status();
        if (!status)
            return refuse(status.error().code, "its in_fence is closed: " + status.error().problem,
                          "Keep the fence until the commit has been made",
                          status.error().sys_errno);
        if (status->state == FenceState::failed)
            return refuse(Errc::fence_failed,
                          "its in_fence has failed: " + sys::errno_text(status->error),
                          "Draw the frame anew, or show the one before", status->error);
        if (card_waits) {
            wanted[i].in_fence = layer.in_fence->fd();
            continue;
        }
        if (status->state == FenceState::signalled)
            continue;
        if (commit.patience <= Deadline::duration::zero())
            return refuse(Errc::unsupported,
                          "the card takes no IN_FENCE_FD, and the in_fence is pending",
                          "Give KmsCommit::patience, to have it waited for on the CPU");
        if (!waits)
            continue;
        if (!deadline)
            deadline = deadline_in(commit.patience);
        if (auto done = layer.in_fence->wait(*deadline); !done)
            return refuse(done.error().code, "its in_fence: " + done.error().problem,
                          std::move(done.error().remedy), done.error().sys_errno);
    }
    return sys::success();
}

bool KmsOutput::State::refuses_in_fences(int errnum, const KmsFramebuffer* capture) {
    const auto given = [](const KmsWanted& each) { return each.in_fence >= 0; };
    if (errnum != EPERM || std::ranges::none_of(wanted, given))
        return false;
    for (KmsWanted& each : wanted)
        each.in_fence = -1;
    // It may have been about something else.
    if (send(capture, test_only, nullptr) == EPERM)
        return false;
    device->in_fences = KmsInFences::refused;
    return true;
}

Result<void> KmsOutput::State::begin_uses(const KmsCommit& commit, const char* operation) {
    showing.clear();
    for (const KmsPlacedLayer& each : placed) {
        const KmsFramebuffer& framebuffer = *each.layer->framebuffer;
        showing.emplace_back();
        if (planes[each.plane].shown.is_of(behind(framebuffer).get(), framebuffer.frame()))
            continue; // and goes on
        auto began = KmsUse::begin(behind(framebuffer), framebuffer.frame(), operation);
        if (!began)
            return tl::unexpected(std::move(began.error()));
        showing.back() = std::move(*began);
    }
    return commit.writeback != nullptr ? begin_capture(*commit.writeback, operation)
                                       : sys::success();
}

Result<void> KmsOutput::State::begin_capture(const KmsFramebuffer& into, const char* operation) {
    auto began = KmsUse::begin(behind(into), into.frame(), operation);
    if (!began)
        return tl::unexpected(std::move(began.error()));
    showing.push_back(std::move(*began));
    return sys::success();
}

Result<void> KmsOutput::State::test(const KmsCommit& commit, const char* operation) {
    KmsLayer room;
    const std::span<const KmsLayer> layers = layers_of(commit, room);
    if (auto good = prepare(commit, layers, operation); !good)
        return good;
    if (auto good = give_fences(commit, false, operation); !good)
        return good;
    // A test uses nothing, but what it would be told of a revoked frame is the same.
    if (commit.writeback != nullptr && commit.writeback->frame().revoked())
        return tl::unexpected(FrameUse::refusal(commit.writeback->frame(), operation));
    int errnum = send(commit.writeback, test_only, nullptr);
    while (refuses_in_fences(errnum, commit.writeback) || choose_again(errnum)) {
        if (auto good = prepare(commit, layers, operation); !good)
            return good;
        if (auto good = give_fences(commit, false, operation); !good)
            return good;
        errnum = send(commit.writeback, test_only, nullptr);
    }
    if (errnum != 0)
        return tl::unexpected(refused(errnum, commit, operation));
    return sys::success();
}

Result<std::vector<std::uint32_t>> KmsOutput::State::assign(const KmsCommit& commit,
                                                            const char* operation) {
    KmsLayer room;
    const std::span<const KmsLayer> layers = layers_of(commit, room);
    if (auto good = check(commit, operation); !good)
        return tl::unexpected(std::move(good.error()));
    chosen_for.clear();
    if (auto good = place(layers, operation); !good)
        return tl::unexpected(std::move(good.error()));
    std::vector<std::uint32_t> found;
    for (const KmsPlacedLayer& each : placed)
        found.push_back(each.plane == KmsPlacedLayer::nowhere ? 0 : planes[each.plane].can.id);
    return found;
}

void KmsOutput::State::settle(const std::shared_ptr<const SyncFile>& out_fence,
                              bool fence_leaving) noexcept {
    for (std::size_t i = 0; i < planes.size(); ++i) {
        KmsOutputPlane& plane = planes[i];
        const auto found = std::ranges::find(wanted, i, &KmsWanted::plane);
        if (found != wanted.end()) {
            KmsUse& use = showing[static_cast<std::size_t>(found - wanted.begin())];
            plane.leaving = use ? std::exchange(plane.shown, std::move(use)) : KmsUse();
            plane.sent = found->values;
            plane.framebuffer = found->framebuffer;
            plane.known = plane.on = true;
        } else {
            plane.leaving = std::exchange(plane.shown, KmsUse());
            at(plane.sent, KmsPlaneProperty::crtc_id) = 0;
            if (std::exchange(plane.on, false))
                device->disclaim(plane.can.id, screen_user);
        }
        if (!out_fence)
            continue;
        if (fence_leaving)
            plane.leaving.fence_buffers(*out_fence);
        plane.leaving.end_after(screen_user, out_fence);
    }
}

Result<KmsFlip> KmsOutput::State::commit(const KmsCommit& commit, const char* operation) {
    KmsLayer room;
    const std::span<const KmsLayer> layers = layers_of(commit, room);
    const Ending ending(showing);
    KmsOutFences out;
    int errnum = 0;
    do {
        if (auto good = prepare(commit, layers, operation); !good)
            return tl::unexpected(std::move(good.error()));
        if (auto good = give_fences(commit, true, operation); !good)
            return tl::unexpected(std::move(good.error()));
        if (auto good = begin_uses(commit, operation); !good)
            return tl::unexpected(std::move(good.error()));
        if (auto good = claim_planes(operation); !good)
            return tl::unexpected(std::move(good.error()));
        errnum = send(commit.writeback, DRM_MODE_ATOMIC_NONBLOCK, &out);
        if (errnum != 0)
            disclaim_planes(wanted.size());
    } while (refuses_in_fences(errnum, commit.writeback) || choose_again(errnum));
    if (errnum != 0)
        return tl::unexpected(refused(errnum, commit, operation));
    if (std::ranges::any_of(wanted, [](const KmsWanted& each) { return each.in_fence >= 0; }))
        device->in_fences = KmsInFences::taken;
    return accepted(out, commit, operation);
}

Result<std::shared_ptr<const SyncFile>> KmsOutput::State::capture(const KmsFramebuffer& into,
                                                                  const char* operation) {
    if (!routed || std::ranges::none_of(planes, &KmsOutputPlane::on))
        return tl::unexpected(error(operation, Errc::invalid_argument,
                                    "nothing of ours is on the screen", "Commit a frame first"));
    if (auto good = check_capture(into, operation); !good)
        return tl::unexpected(std::move(good.error()));
    placed.clear();
    wanted.clear();
    const Ending ending(showing);
    showing.clear();
    for (std::size_t i = 0; i < planes.size(); ++i)
        if (const KmsOutputPlane& plane = planes[i]; plane.on) {
            wanted.push_back({.plane = i, .framebuffer = plane.framebuffer, .values = plane.sent});
            showing.emplace_back(); // it goes on
        }
    if (auto good = begin_capture(into, operation); !good)
        return tl::unexpected(std::move(good.error()));
    KmsOutFences out;
    if (const int errnum = send(&into, DRM_MODE_ATOMIC_NONBLOCK, &out); errnum != 0)
        return tl::unexpected(refused(errnum, {.writeback = &into}, operation));
    auto flip = accepted(out, {.writeback = &into}, operation);
    if (!flip)
        return tl::unexpected(std::move(flip.error()));
    return std::move(flip->writeback_fence);
}

Result<KmsFlip> KmsOutput::State::accepted(KmsOutFences& out, const KmsCommit& commit,
                                           const char* operation) {
    routed = true;
    const auto none = [&](const char* which) {
        return tl::unexpected(error(operation, Errc::failed,
                                    std::string("the card took the frames, but gave no ") + which,
                                    "Take them as shown at an unknown time"));
    };
    UniqueFd flip_fd(std::move(out.flip));
    UniqueFd writeback_fd(std::move(out.writeback));
    captured_before =
        std::exchange(captured, commit.writeback != nullptr ? std::move(showing.back()) : KmsUse());
    if (!flip_fd) {
        settle(nullptr, false);
        return none("out-fence");
    }
    KmsFlip flip{.out_fence = share(SyncFileAdopt::adopt(std::move(flip_fd)), fence_room),
                 .writeback_fence = nullptr};
    settle(flip.out_fence, commit.fence_leaving);
    if (commit.writeback != nullptr) {
        if (!writeback_fd)
            return none("writeback fence");
        flip.writeback_fence = share(SyncFileAdopt::adopt(std::move(writeback_fd)), fence_room);
        captured.end_after(capture_user, flip.writeback_fence);
        capturing = flip.writeback_fence;
    }
    return flip;
}

} // namespace sluice
