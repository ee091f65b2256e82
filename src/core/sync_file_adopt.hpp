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
};

} // namespace sluice
