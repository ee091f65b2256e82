// SPDX-License-Identifier: MIT
/// \file
/// A VkResult as an Error. Not installed.
#pragma once

#include <string>
#include <string_view>

#include <vulkan/vulkan_core.h>

#include <sluice/error.hpp>

namespace sluice {

/// "VK_ERROR_OUT_OF_HOST_MEMORY (-1)".
[[nodiscard]] std::string vk_result_text(VkResult result);

/// The Error of a Vulkan function that returned \p result: \p problem gets the result appended.
[[nodiscard]] Error failed_vk(VkResult result, std::string_view operation, std::string object,
                              std::string_view problem, std::string remedy);

} // namespace sluice
