// SPDX-License-Identifier: MIT
/// \file
/// The part of the kernel's drm/drm.h that sync objects need. Debian's linux-libc-dev leaves that
/// header to libdrm, which this room does without, and older ones lack the newer calls; the unit
/// tests compare it with libdrm's. Not installed.
#pragma once

#include <cstdint>

#include <sys/ioctl.h>

namespace sluice::uapi {

struct DrmGetCap {
    std::uint64_t capability;
    std::uint64_t value;
};

struct SyncobjCreate {
    std::uint32_t handle;
    std::uint32_t flags;
};

struct SyncobjDestroy {
    std::uint32_t handle;
    std::uint32_t pad;
};

struct SyncobjHandle {
    std::uint32_t handle;
    std::uint32_t flags;
    std::int32_t fd;
    std::uint32_t pad;
};

struct SyncobjTransfer {
    std::uint32_t src_handle;
    std::uint32_t dst_handle;
    std::uint64_t src_point;
    std::uint64_t dst_point;
    std::uint32_t flags;
    std::uint32_t pad;
};

// Without the deadline_nsec that 6.6 added at the end of the waits: DRM fills what a caller does
// not know with zeros.
struct SyncobjWait {
    std::uint64_t handles;
    std::int64_t timeout_nsec;
    std::uint32_t count_handles;
    std::uint32_t flags;
    std::uint32_t first_signaled;
    std::uint32_t pad;
};

struct SyncobjTimelineWait {
    std::uint64_t handles;
    std::uint64_t points;
    std::int64_t timeout_nsec;
    std::uint32_t count_handles;
    std::uint32_t flags;
    std::uint32_t first_signaled;
    std::uint32_t pad;
};

struct SyncobjEventfd {
    std::uint32_t handle;
    std::uint32_t flags;
    std::uint64_t point;
    std::int32_t fd;
    std::uint32_t pad;
};

struct SyncobjArray {
    std::uint64_t handles;
    std::uint32_t count_handles;
    std::uint32_t pad;
};

struct SyncobjTimelineArray {
    std::uint64_t handles;
    std::uint64_t points;
    std::uint32_t count_handles;
    std::uint32_t flags;
};

inline constexpr std::uint64_t cap_syncobj = 0x13;
inline constexpr std::uint64_t cap_syncobj_timeline = 0x14;

inline constexpr std::uint32_t create_signalled = 1U << 0;
inline constexpr std::uint32_t import_sync_file = 1U << 0;
inline constexpr std::uint32_t export_sync_file = 1U << 0;
inline constexpr std::uint32_t wait_for_submit = 1U << 1;
inline constexpr std::uint32_t wait_available = 1U << 2;
inline constexpr std::uint32_t query_last_submitted = 1U << 0;

inline constexpr unsigned long get_cap = _IOWR('d', 0x0c, DrmGetCap);
inline constexpr unsigned long syncobj_create = _IOWR('d', 0xbf, SyncobjCreate);
inline constexpr unsigned long syncobj_destroy = _IOWR('d', 0xc0, SyncobjDestroy);
inline constexpr unsigned long syncobj_handle_to_fd = _IOWR('d', 0xc1, SyncobjHandle);
inline constexpr unsigned long syncobj_fd_to_handle = _IOWR('d', 0xc2, SyncobjHandle);
inline constexpr unsigned long syncobj_wait = _IOWR('d', 0xc3, SyncobjWait);
inline constexpr unsigned long syncobj_reset = _IOWR('d', 0xc4, SyncobjArray);
inline constexpr unsigned long syncobj_signal = _IOWR('d', 0xc5, SyncobjArray);
inline constexpr unsigned long syncobj_timeline_wait = _IOWR('d', 0xca, SyncobjTimelineWait);
inline constexpr unsigned long syncobj_query = _IOWR('d', 0xcb, SyncobjTimelineArray);
inline constexpr unsigned long syncobj_transfer = _IOWR('d', 0xcc, SyncobjTransfer);
inline constexpr unsigned long syncobj_timeline_signal = _IOWR('d', 0xcd, SyncobjTimelineArray);
inline constexpr unsigned long syncobj_eventfd = _IOWR('d', 0xcf, SyncobjEventfd);

} // namespace sluice::uapi
