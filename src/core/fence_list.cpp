// SPDX-License-Identifier: MIT
#include "core/fence_list.hpp"

#include <algorithm>
#include <cerrno>

#include "core/sys.hpp"

namespace sluice {

int FenceList::read(int fd) {
    if (ask(fd, few_.data(), few) == 0)
        return 0;
    // EINVAL: there are more than fit. Once made, a sync_file never grows.
    if (errno == EINVAL && ask(fd, nullptr, 0) == 0) {
        many_.resize(count_);
        if (ask(fd, many_.data(), count_) == 0)
            return 0;
    }
    return errno;
}

int FenceList::failure() const noexcept {
    const auto all = fences();
    const auto failed = std::ranges::find_if(all, [](const auto& each) { return each.status < 0; });
    return failed == all.end() ? 0 : -failed->status;
}

bool FenceList::any_pending() const noexcept {
    return std::ranges::any_of(fences(), [](const auto& each) { return each.status == 0; });
}

int FenceList::ask(int fd, sync_fence_info* fences, __u32 room) noexcept {
    sync_file_info info{.num_fences = room,
                        .sync_fence_info = reinterpret_cast<std::uintptr_t>(fences)};
    const int result = sys::ioctl(fd, SYNC_IOC_FILE_INFO, &info);
    count_ = info.num_fences;
    return result;
}

} // namespace sluice
