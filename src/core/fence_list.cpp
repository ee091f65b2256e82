// SPDX-License-Identifier: MIT
#include "core/fence_list.hpp"

#include <algorithm>
#include <cerrno>

#include "core/sys.hpp"

namespace sluice {

namespace {

constexpr __u32 most = 1U << 16; // some 5 MiB of answer; one for each queue is what there is

/// Whether \p fence can be the kernel's: 1, 0, or an errno below 0.
bool plausible(const sync_fence_info& fence) noexcept {
    constexpr int last_errno = 4095; // MAX_ERRNO, linux/err.h
    return fence.status <= 1 && fence.status >= -last_errno;
}

} // namespace

int FenceList::read(int fd) {
    if (ask(fd, few_.data(), few) == 0)
        return judge(few);
    // EINVAL: there are more than fit. Once made, a sync_file never grows.
    if (errno == EINVAL && ask(fd, nullptr, 0) == 0) {
        if (count_ > most)
            return EPROTO;
        const __u32 room = count_;
        many_.resize(room);
        if (ask(fd, many_.data(), room) == 0)
            return judge(room);
    }
    return errno;
}

int FenceList::judge(__u32 room) const noexcept {
    return count_ <= room && std::ranges::all_of(fences(), plausible) ? 0 : EPROTO;
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
