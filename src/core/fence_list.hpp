// SPDX-License-Identifier: MIT
/// \file
/// The kernel's fences inside a sync_file. Not installed.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include <linux/sync_file.h>

namespace sluice {

/// A sync_file's own state, which the kernel tells without the list, is not to be trusted: of
/// several fences it notices a failure only once somebody has begun to wait for them, and of those
/// in a dma_fence_chain (a timeline's point) never. Up to a few fences cost one call and no heap.
// NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): the kernel fills few_
class FenceList {
public:
    /// \returns 0 or an errno: EPROTO where \p fd, which anybody may have made, answers what the
    ///   kernel never does: more fences than there was room for, or a status that is none.
    [[nodiscard]] int read(int fd);

    [[nodiscard]] std::span<const sync_fence_info> fences() const noexcept {
        return {many_.empty() ? few_.data() : many_.data(), count_};
    }

    /// The errno of the first that has failed, pending ones or not; 0 where none has.
    [[nodiscard]] int failure() const noexcept;

    [[nodiscard]] bool any_pending() const noexcept;

private:
    static constexpr __u32 few = 8;

    /// Whether the answer, for which there was \p room, can be the kernel's: 0 or EPROTO.
    [[nodiscard]] int judge(__u32 room) const noexcept;

    int ask(int fd, sync_fence_info* fences, __u32 room) noexcept;

    std::array<sync_fence_info, few> few_;
    std::vector<sync_fence_info> many_;
    __u32 count_ = 0;
};

} // namespace sluice
