// SPDX-License-Identifier: MIT
/// \file
/// Fences straight from the kernel, which need not be asked whether they are any. Not installed.
#pragma once

#include <utility>

#include <sluice/sync_file.hpp>

namespace sluice {

struct SyncFileAdopt {
    /// The fence behind \p fd, which an ioctl has just given out as a sync_file.
    [[nodiscard]] static SyncFile adopt(UniqueFd&& fd) noexcept { return SyncFile(std::move(fd)); }
    /// The fd of \p fence, for a driver; empty where it has none.
    [[nodiscard]] static UniqueFd give_up(SyncFile&& fence) noexcept {
        return std::move(fence.fd_);
    }
};

} // namespace sluice
