// SPDX-License-Identifier: MIT
/// \file
/// What a wrapped device keeps for the work that is submitted to it. Not installed.
#pragma once

#include <memory>
#include <utility>

#include <sluice/vulkan_device.hpp>

#include "frame/frame_use.hpp"
#include "vulkan/vulkan_access_pool.hpp"
#include "vulkan/vulkan_attachment_cache.hpp"
#include "vulkan/vulkan_driver.hpp"

namespace sluice {

struct VulkanDevice::State final : FrameWatcher, std::enable_shared_from_this<State> {
    explicit State(std::shared_ptr<VulkanDriver> wrapped) noexcept
        : driver(std::move(wrapped)), attachments(driver->info.idle_attachments) {}
    ~State() override;

    void revoked(const Frame& frame) noexcept override;

    std::shared_ptr<VulkanDriver> driver;
    VulkanAttachmentCache attachments;
    VulkanAccessPool accesses;
};

} // namespace sluice
