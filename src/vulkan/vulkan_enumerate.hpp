// SPDX-License-Identifier: MIT
/// \file
/// Vulkan's lists of unknown length. Not installed.
#pragma once

#include <cstdint>
#include <vector>

#include <vulkan/vulkan_core.h>

namespace sluice {

/// Fills \p into by \p list, Vulkan's function without its first parameters, as often as the list
/// grows meanwhile.
template <typename T, typename List>
[[nodiscard]] VkResult enumerate(std::vector<T>& into, List list) {
    VkResult result = VK_INCOMPLETE;
    while (result == VK_INCOMPLETE) {
        std::uint32_t count = 0;
        result = list(&count, nullptr);
        if (result != VK_SUCCESS)
            return result;
        into.resize(count);
        result = list(&count, into.data());
        into.resize(count);
    }
    return result;
}

} // namespace sluice
