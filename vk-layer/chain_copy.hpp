// SPDX-License-Identifier: MIT
/// \file
/// pNext chains with some structures taken out. The application's own stay as they are.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <vulkan/vulkan.h>

namespace sluice::layer {

/// A copy of a chain as far as it has to differ from the original; the rest is shared with it.
class ChainCopy {
public:
    /// Takes all structures of the types \p without out of the chain that begins with \p next. A
    /// structure before the last of those whose size nobody here knows is left out too: see
    /// `lost()`.
    ChainCopy(const void* next, std::span<const VkStructureType> without);
    ChainCopy(const ChainCopy&) = delete;
    ChainCopy& operator=(const ChainCopy&) = delete;

    /// Where the chain begins. It lives as long as this and the original do.
    [[nodiscard]] const void* head() const noexcept { return head_; }
    /// Puts \p structure in front.
    template <typename T> void prepend(T& structure) noexcept {
        structure.pNext = head_;
        head_ = &structure;
    }
    /// The type of a structure that was left out without anybody wanting that, or
    /// VK_STRUCTURE_TYPE_MAX_ENUM.
    [[nodiscard]] VkStructureType lost() const noexcept { return lost_; }

private:
    const void* head_;
    VkStructureType lost_ = VK_STRUCTURE_TYPE_MAX_ENUM;
    std::vector<std::uint64_t> room_; // what the copies lie in
};

} // namespace sluice::layer
