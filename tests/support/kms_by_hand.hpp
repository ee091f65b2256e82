// SPDX-License-Identifier: MIT
/// \file
/// The loop that flips, written with libdrm alone, as a careful engineer would for one screen: the
/// request is kept, out-fences tell when the flip was, and a wait has an end.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include <linux/sync_file.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

namespace sluice::test {

/// A screen whose mode is set. Threads: one.
class FlipsByHand {
public:
    FlipsByHand(int card, std::uint32_t crtc, std::uint32_t plane)
        : card_(card), crtc_(crtc), plane_(plane),
          fb_id_(property(plane, DRM_MODE_OBJECT_PLANE, "FB_ID")),
          out_fence_ptr_(property(crtc, DRM_MODE_OBJECT_CRTC, "OUT_FENCE_PTR")),
          request_(drmModeAtomicAlloc()) {}
    FlipsByHand(const FlipsByHand&) = delete;
    FlipsByHand& operator=(const FlipsByHand&) = delete;
    ~FlipsByHand() {
        if (fence_ >= 0)
            close(fence_);
        drmModeAtomicFree(request_);
    }

    /// Waits for the flip that is under way, and has the next one show \p framebuffer.
    /// \returns whether that worked; false where nothing flips for 5 s.
    bool flip(std::uint32_t framebuffer) { return (fence_ < 0 || land()) && commit(framebuffer); }

    /// Waits for the flip that is under way, and says when it was: nanoseconds of CLOCK_MONOTONIC;
    /// 0: it failed, or did not come.
    std::uint64_t land() {
        pollfd entry{.fd = fence_, .events = POLLIN, .revents = 0};
        if (poll(&entry, 1, 5000) != 1)
            return 0;
        sync_fence_info fence{};
        sync_file_info info{};
        info.num_fences = 1;
        info.sync_fence_info = reinterpret_cast<std::uintptr_t>(&fence);
        const bool told = ioctl(fence_, SYNC_IOC_FILE_INFO, &info) == 0;
        close(std::exchange(fence_, -1));
        return told && info.status == 1 ? fence.timestamp_ns : 0;
    }

private:
    bool commit(std::uint32_t framebuffer) {
        std::int32_t fence = -1;
        drmModeAtomicSetCursor(request_, 0);
        drmModeAtomicAddProperty(request_, plane_, fb_id_, framebuffer);
        drmModeAtomicAddProperty(request_, crtc_, out_fence_ptr_,
                                 reinterpret_cast<std::uintptr_t>(&fence));
        if (drmModeAtomicCommit(card_, request_, DRM_MODE_ATOMIC_NONBLOCK, nullptr) != 0)
            return false;
        fence_ = fence;
        return true;
    }
    std::uint32_t property(std::uint32_t object, std::uint32_t type, const char* name) const {
        std::uint32_t found = 0;
        drmModeObjectProperties* all = drmModeObjectGetProperties(card_, object, type);
        for (std::uint32_t i = 0; all != nullptr && i < all->count_props; ++i) {
            drmModePropertyRes* each = drmModeGetProperty(card_, all->props[i]);
            if (each != nullptr && std::strcmp(each->name, name) == 0)
                found = each->prop_id;
            drmModeFreeProperty(each);
        }
        drmModeFreeObjectProperties(all);
        return found;
    }

    int card_;
    std::uint32_t crtc_, plane_, fb_id_, out_fence_ptr_;
    drmModeAtomicReq* request_;
    int fence_ = -1;
};

} // namespace sluice::test
