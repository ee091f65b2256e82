// SPDX-License-Identifier: MIT
/// \file
/// What the library says to VK_LAYER_SLUICE_dma_buf, where a device has that below it. Not
/// installed.
#pragma once

#include <vulkan/vulkan_core.h>

namespace sluice {

/// Whether what the calling thread allocates of \p device from now on is bracketed by itself, so
/// that the layer leaves it alone. It goes by thread, since a layer in between may have given the
/// memory another handle. Found with vkGetDeviceProcAddr; null where there is no such layer.
using SelfBracketingFunction = void(VKAPI_PTR*)(VkDevice device, VkBool32 self_bracketing);
inline constexpr const char* self_bracketing_name = "vkSetSelfBracketingSLUICE";

} // namespace sluice
