// SPDX-License-Identifier: MIT
/// \file
/// An output over planes of any kind, whose kernel answers commits as a test says: the cards at
/// hand refuse little, and their planes can do little.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <drm.h>
#include <drm_fourcc.h>
#include <drm_mode.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sync_file.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <sluice/kms_device.hpp>

#include "core/sync_file_adopt.hpp"
#include "kms/kms_state.hpp"
#include "support/fake_kms.hpp"
#include "support/memfd.hpp"
#include "support/scripted_libc.hpp"
#include "support/scripted_sync_file.hpp"

namespace sluice::test {

/// One DRM_IOCTL_MODE_ATOMIC, as the kernel reads it.
struct AtomicRequest {
    std::uint32_t flags = 0;
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> values;
    std::size_t properties = 0; ///< With those that are given twice.

    [[nodiscard]] bool is_test() const { return (flags & DRM_MODE_ATOMIC_TEST_ONLY) != 0; }
    [[nodiscard]] std::optional<std::uint64_t> value(std::uint32_t object,
                                                     std::uint32_t property) const {
        const auto found = values.find({object, property});
        return found != values.end() ? std::optional(found->second) : std::nullopt;
    }
};

/// A screen of 640x480 with the planes that a test adds. The property ids are the same on each.
class ScriptedScreen {
public:
    static constexpr std::uint32_t connector = 7, crtc = 3, writeback = 8;
    static constexpr std::uint32_t fb_id = 101, in_fence_fd = 102, first_property = 110;
    static constexpr std::uint32_t crtc_id = 200, active = 201, mode_id = 202, out_fence = 203,
                                   gamma = 204, writeback_fb = 205, writeback_fence = 206;

    static constexpr std::uint32_t id_of(KmsPlaneProperty property) {
        return first_property + static_cast<std::uint32_t>(property);
    }

    ScriptedScreen() {
        libc.memfds_are_dma_bufs();
        libc.ppoll = [this](pollfd* fds, nfds_t, const timespec*) {
            ++waits;
            fds->revents = fds->events;
            return status_of(fds->fd) == 0 && fence_stays_pending ? 0 : 1;
        };
        libc.ioctl = [this](int fd, unsigned long request, void* argument) {
            return answer(fd, request, argument);
        };
        auto opened = KmsDevice::wrap(null.get());
        EXPECT_TRUE(opened) << opened.error().message();
        attacher.emplace(std::move(*opened));
        auto first = frame();
        const KmsFramebuffer probe = *attacher->attach(first);
        device = std::make_shared<KmsDevice::State>(KmsOutput::State::behind(probe)->file,
                                                    KmsDeviceCaps{}, KmsDeviceInfo{});
        output = make_output();
    }

    /// An output of the same card.
    [[nodiscard]] std::unique_ptr<KmsOutput::State> make_output() const {
        auto made = std::make_unique<KmsOutput::State>(device);
        made->name = "DP-1 on CRTC 3";
        made->connector = connector;
        made->crtc = crtc;
        made->connector_properties.crtc_id = crtc_id;
        made->crtc_properties = {
            .active = active, .mode_id = mode_id, .out_fence_ptr = out_fence, .reset = {gamma}};
        made->mode.width = 640;
        made->mode.height = 480;
        made->mode.refresh_mhz = 50'000;
        made->leftovers_known = true;
        return made;
    }

    /// Gives \p to one more plane, above those that it has, which takes XR24 and AR24, LINEAR.
    /// \p change what it can do.
    static KmsOutputPlane& add_plane(
        KmsOutput::State& to, std::uint32_t id, KmsPlaneType type,
        const std::function<void(KmsPlane&)>& change = [](KmsPlane&) {}) {
        KmsOutputPlane plane;
        plane.can = {.id = id,
                     .type = type,
                     .crtcs = {crtc},
                     .formats = {{DRM_FORMAT_XRGB8888, DRM_FORMAT_MOD_LINEAR},
                                 {DRM_FORMAT_ARGB8888, DRM_FORMAT_MOD_LINEAR}},
                     .in_fence = true};
        change(plane.can);
        plane.controls.fb_id = fb_id;
        plane.controls.in_fence_fd = plane.can.in_fence ? in_fence_fd : 0;
        plane.controls.blends = {2, 0, 1};
        plane.controls.encodings = {5, 6, 7};
        plane.controls.ranges = {8, 9};
        plane.controls.own_encoding = 6;
        plane.controls.own_range = 8;
        for (std::size_t i = 0; i < kms_plane_properties; ++i) {
            const auto property = static_cast<KmsPlaneProperty>(i);
            const KmsPlane& can = plane.can;
            const bool has = i < kms_plane_properties_required ||
                             (property == KmsPlaneProperty::rotation && can.rotations != 1) ||
                             (property == KmsPlaneProperty::alpha && can.alpha) ||
                             (property == KmsPlaneProperty::zpos && can.zpos && !can.zpos->fixed) ||
                             (property == KmsPlaneProperty::blend && can.blend.premultiplied) ||
                             (property == KmsPlaneProperty::encoding && can.ycbcr.bt709) ||
                             (property == KmsPlaneProperty::range && can.ycbcr.limited_range);
            plane.controls.ids[i] = has ? id_of(property) : 0;
        }
        to.planes.push_back(std::move(plane));
        to.plane_list.clear();
        for (const KmsOutputPlane& each : to.planes)
            to.plane_list.push_back(&each.can);
        return to.planes.back();
    }
    KmsOutputPlane& add_plane(
        std::uint32_t id, KmsPlaneType type,
        const std::function<void(KmsPlane&)>& change = [](KmsPlane&) {}) {
        return add_plane(*output, id, type, change);
    }
    void add_writeback() const {
        output->writeback = writeback;
        output->writeback_properties = {.crtc_id = crtc_id,
                                        .writeback_fb_id = writeback_fb,
                                        .writeback_out_fence_ptr = writeback_fence};
        output->caps.formats.push_back({.format = DRM_FORMAT_XRGB8888,
                                        .modifier = DRM_FORMAT_MOD_LINEAR,
                                        .uses = Uses::capture});
    }

    static Frame frame(std::uint32_t width = 640, std::uint32_t height = 480,
                       std::uint32_t format = DRM_FORMAT_XRGB8888) {
        auto made =
            Frame::create({.width = width,
                           .height = height,
                           .format = format,
                           .planes = {FramePlane{.stride = width * 4}}},
                          std::move(*DmaBuf::from_fd(memfd(std::uint64_t{width} * height * 4))));
        EXPECT_TRUE(made) << made.error().message();
        return std::move(*made);
    }
    [[nodiscard]] KmsFramebuffer attach(const Frame& frame) const {
        return *attacher->attach(frame);
    }
    [[nodiscard]] KmsFramebuffer framebuffer(std::uint32_t width = 640, std::uint32_t height = 480,
                                             std::uint32_t format = DRM_FORMAT_XRGB8888) const {
        return attach(frame(width, height, format));
    }
    /// The fd of one can be polled, by epoll too; `signal` makes it ready.
    static UniqueFd fence_fd() { return UniqueFd(eventfd(0, EFD_CLOEXEC)); }
    static SyncFile fence() { return SyncFileAdopt::adopt(fence_fd()); }
    void signal(int fd) {
        statuses[fd] = 1;
        EXPECT_EQ(eventfd_write(fd, 1), 0);
    }

    Result<KmsFlip> commit(const KmsCommit& what) const {
        return output->commit(what, "KmsOutput::commit");
    }

    /// The last request that was no test.
    [[nodiscard]] const AtomicRequest& last() const {
        for (auto each = requests.rbegin(); each != requests.rend(); ++each)
            if (!each->is_test())
                return *each;
        static const AtomicRequest none;
        return none;
    }
    /// What it has \p plane show; nothing where it says nothing of it.
    [[nodiscard]] std::optional<std::uint64_t> shown_by(std::uint32_t plane) const {
        return last().value(plane, fb_id);
    }
    [[nodiscard]] std::optional<std::uint64_t> set(std::uint32_t plane,
                                                   KmsPlaneProperty property) const {
        return last().value(plane, id_of(property));
    }

    FakeKms card;
    ScriptedLibc libc;
    UniqueFd null{open("/dev/null", O_RDWR | O_CLOEXEC)};
    std::optional<KmsDevice> attacher;
    std::shared_ptr<KmsDevice::State> device;
    std::unique_ptr<KmsOutput::State> output;

    /// The errno that the kernel answers a commit with; nothing: it takes all.
    std::function<int(const AtomicRequest&)> refuses;
    std::vector<AtomicRequest> requests;
    int fence_status = 0;        ///< As the kernel tells it of every fence.
    std::map<int, int> statuses; ///< Of single ones, by their fds.
    std::chrono::nanoseconds signalled_at{};
    bool fence_stays_pending = false;
    int waits = 0;
    std::vector<int> out_fences; ///< The fds that it has given.

private:
    [[nodiscard]] int status_of(int fd) const {
        const auto found = statuses.find(fd);
        return found != statuses.end() ? found->second : fence_status;
    }
    int answer(int fd, unsigned long request, void* argument) {
        if (request == SYNC_IOC_FILE_INFO) {
            const int status = status_of(fd);
            const int done = answer_file_info(argument, {&status, 1});
            const auto* info = static_cast<const sync_file_info*>(argument);
            if (done == 0 && info->sync_fence_info != 0)
                reinterpret_cast<sync_fence_info*>(std::uintptr_t{info->sync_fence_info})
                    ->timestamp_ns = static_cast<std::uint64_t>(signalled_at.count());
            return done;
        }
        if (request == DRM_IOCTL_MODE_CLOSEFB) {
            card.framebuffers.erase(static_cast<drm_mode_closefb*>(argument)->fb_id);
            return 0;
        }
        EXPECT_EQ(request, DRM_IOCTL_MODE_ATOMIC);
        const auto& atomic = *static_cast<drm_mode_atomic*>(argument);
        AtomicRequest made{.flags = atomic.flags};
        const auto* objects = reinterpret_cast<const std::uint32_t*>(atomic.objs_ptr);
        const auto* counts = reinterpret_cast<const std::uint32_t*>(atomic.count_props_ptr);
        const auto* properties = reinterpret_cast<const std::uint32_t*>(atomic.props_ptr);
        const auto* values = reinterpret_cast<const std::uint64_t*>(atomic.prop_values_ptr);
        for (std::uint32_t i = 0; i < atomic.count_objs; ++i)
            for (std::uint32_t j = 0; j < counts[i]; ++j, ++properties, ++values) {
                made.values[{objects[i], *properties}] = *values;
                ++made.properties;
            }
        requests.push_back(made);
        if (const int error = refuses ? refuses(made) : 0; error != 0) {
            errno = error;
            return -1;
        }
        if (!made.is_test())
            for (const auto& [object, property] :
                 {std::pair(crtc, out_fence), std::pair(writeback, writeback_fence)})
                if (const auto pointer = made.value(object, property)) {
                    out_fences.push_back(fence_fd().release());
                    *reinterpret_cast<std::int32_t*>(*pointer) = out_fences.back();
                }
        return 0;
    }
};

} // namespace sluice::test
