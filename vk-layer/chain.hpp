// SPDX-License-Identifier: MIT
/// \file
/// pNext chains of structures.
#pragma once

#include <vulkan/vulkan.h>

namespace sluice::layer {

/// The structure of \p type in the chain that begins with \p next; null where there is none.
template <typename T>
[[nodiscard]] const T* find_in(const void* next, VkStructureType type) noexcept {
    for (const auto* each = static_cast<const VkBaseInStructure*>(next); each != nullptr;
         each = each->pNext)
        if (each->sType == type)
            return reinterpret_cast<const T*>(each);
    return nullptr;
}

} // namespace sluice::layer
