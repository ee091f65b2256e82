// SPDX-License-Identifier: MIT
#include "vulkan/vulkan_error.hpp"

namespace sluice {

namespace {

Errc code_of(VkResult result) noexcept {
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_TOO_MANY_OBJECTS:
        return Errc::no_resources;
    case VK_ERROR_DEVICE_LOST:
        return Errc::device_lost;
    case VK_ERROR_FORMAT_NOT_SUPPORTED:
    case VK_ERROR_EXTENSION_NOT_PRESENT:
    case VK_ERROR_FEATURE_NOT_PRESENT:
    case VK_ERROR_LAYER_NOT_PRESENT:
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return Errc::unsupported;
    default:
        return Errc::failed;
    }
}

const char* name_of(VkResult result) noexcept {
    switch (result) {
    case VK_NOT_READY:
        return "VK_NOT_READY";
    case VK_TIMEOUT:
        return "VK_TIMEOUT";
    case VK_INCOMPLETE:
        return "VK_INCOMPLETE";
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return "VK_ERROR_OUT_OF_HOST_MEMORY";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
        return "VK_ERROR_OUT_OF_DEVICE_MEMORY";
    case VK_ERROR_INITIALIZATION_FAILED:
        return "VK_ERROR_INITIALIZATION_FAILED";
    case VK_ERROR_DEVICE_LOST:
        return "VK_ERROR_DEVICE_LOST";
    case VK_ERROR_LAYER_NOT_PRESENT:
        return "VK_ERROR_LAYER_NOT_PRESENT";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
        return "VK_ERROR_EXTENSION_NOT_PRESENT";
    case VK_ERROR_FEATURE_NOT_PRESENT:
        return "VK_ERROR_FEATURE_NOT_PRESENT";
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return "VK_ERROR_INCOMPATIBLE_DRIVER";
    case VK_ERROR_TOO_MANY_OBJECTS:
        return "VK_ERROR_TOO_MANY_OBJECTS";
    case VK_ERROR_FORMAT_NOT_SUPPORTED:
        return "VK_ERROR_FORMAT_NOT_SUPPORTED";
    case VK_ERROR_UNKNOWN:
        return "VK_ERROR_UNKNOWN";
    case VK_ERROR_INVALID_EXTERNAL_HANDLE:
        return "VK_ERROR_INVALID_EXTERNAL_HANDLE";
    case VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT:
        return "VK_ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT";
    default:
        return "VkResult";
    }
}

} // namespace

std::string vk_result_text(VkResult result) {
    return std::string(name_of(result)) + " (" + std::to_string(static_cast<int>(result)) + ")";
}

Error failed_vk(VkResult result, std::string_view operation, std::string object,
                std::string_view problem, std::string remedy) {
    return Error{.code = code_of(result),
                 .operation = std::string(operation),
                 .object = std::move(object),
                 .problem = std::string(problem) + ": " + vk_result_text(result),
                 .remedy = result == VK_ERROR_DEVICE_LOST
                               ? "Destroy what was made of the device and create the device anew"
                               : std::move(remedy),
                 .vk_result = static_cast<std::int32_t>(result)};
}

} // namespace sluice
