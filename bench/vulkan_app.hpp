// SPDX-License-Identifier: MIT
/// \file
/// An application with a VkDevice of its own, which sluice wraps.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <vulkan/vulkan.h>

#include <sluice/vulkan_device.hpp>

namespace bench {

/// Enables of the extensions that sluice takes what the driver has.
class VulkanApp {
public:
    VulkanApp();
    VulkanApp(const VulkanApp&) = delete;
    VulkanApp& operator=(const VulkanApp&) = delete;
    ~VulkanApp();

    /// Why there is no device; empty where there is one.
    [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
    [[nodiscard]] const sluice::VulkanDeviceInfo& info() const noexcept { return info_; }
    /// "llvmpipe (LLVM 15.0.6, 256 bits)".
    [[nodiscard]] std::string name() const;
    [[nodiscard]] bool has(const char* extension) const noexcept;

    /// \returns a command buffer to record, the app's own.
    [[nodiscard]] VkCommandBuffer commands() const;

private:
    std::string problem_;
    std::vector<const char*> extensions_;
    sluice::VulkanDeviceInfo info_;
    VkCommandPool pool_ = VK_NULL_HANDLE;
};

} // namespace bench
