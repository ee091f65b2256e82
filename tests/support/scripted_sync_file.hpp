// SPDX-License-Identifier: MIT
/// \file
/// The kernel's answers about a sync_file, for fds that stand for one.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <span>

#include <linux/sync_file.h>

namespace sluice::test {

/// Answers SYNC_IOC_FILE_INFO for a sync_file with fences of the \p statuses given: 0 pending, 1
/// signalled, below 0 an errno. As the kernel does, it leaves the list out where no room is given,
/// and refuses to give a part of it. \returns what ioctl(2) would.
inline int answer_file_info(void* argument, std::span<const int> statuses) {
    auto* info = static_cast<sync_file_info*>(argument);
    const auto room = info->num_fences;
    info->num_fences = static_cast<__u32>(statuses.size());
    info->status = 1;
    for (const int status : statuses)
        info->status = info->status <= 0 ? info->status : status;
    if (room == 0)
        return 0;
    if (room < statuses.size()) {
        errno = EINVAL;
        return -1;
    }
    auto* fences = reinterpret_cast<sync_fence_info*>(std::uintptr_t{info->sync_fence_info});
    for (std::size_t i = 0; i < statuses.size(); ++i) {
        fences[i] = {};
        std::snprintf(fences[i].driver_name, sizeof fences[i].driver_name, "scripted");
        std::snprintf(fences[i].obj_name, sizeof fences[i].obj_name, "timeline-%zu", i);
        fences[i].status = statuses[i];
        fences[i].timestamp_ns = 1000 + i;
    }
    return 0;
}

} // namespace sluice::test
