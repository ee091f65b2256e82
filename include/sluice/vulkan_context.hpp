// SPDX-License-Identifier: MIT
/// \file
/// A VkInstance and a VkDevice for programs that have none of their own.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>

#include <vulkan/vulkan_core.h>

#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/vulkan_device.hpp>

namespace sluice {

/// What to create. All pointers and spans are borrowed for the call.
struct VulkanContextInfo {
    PFN_vkGetInstanceProcAddr get_instance_proc_addr = nullptr; ///< The loader's. Required.
    const char* application_name = "sluice";
    std::uint32_t api_version = VK_API_VERSION_1_1;
    std::span<const char* const> instance_layers = {};     ///< Added as they are. Default: none.
    std::span<const char* const> instance_extensions = {}; ///< Added as they are. Default: none.
    std::span<const char* const> device_extensions =
        {};                                ///< Beside the required ones. Default: none.
    const void* device_features = nullptr; ///< Chained into VkDeviceCreateInfo. Default: none.
    /// As `VulkanDeviceInfo::sampler_ycbcr_conversion`: `device_features` enable it. sluice does
    /// not look into them.
    bool sampler_ycbcr_conversion = false;
    std::uint32_t idle_attachments = 64; ///< As `VulkanDeviceInfo::idle_attachments`.
    /// Take only a device of this type. Default: any, a GPU before a CPU driver.
    std::optional<VkPhysicalDeviceType> type = {};
};

/// Owns the instance and the device; what was made of the device keeps both alive.
///
/// The first physical device is taken that has `api_version`, a graphics queue and every extension,
/// that can export a LINEAR image as a dma-buf, and that exchanges fences as SYNC_FD.
class SLUICE_API VulkanContext {
public:
    /// \returns the context, or
    ///   - `unsupported`: no device will do; the message says of each why;
    ///   - `failed`, `no_resources`: a VkResult, in `Error::vk_result`.
    [[nodiscard]] static Result<VulkanContext> create(const VulkanContextInfo& info) noexcept;

    [[nodiscard]] const VulkanDevice& device() const noexcept { return device_; }

    /// Why this device was taken and each other was not, in one line.
    [[nodiscard]] const std::string& why() const noexcept { return why_; }

private:
    VulkanContext(const VulkanDevice& device, std::string why) noexcept;

    VulkanDevice device_;
    std::string why_;
};

} // namespace sluice
