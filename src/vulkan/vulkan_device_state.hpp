// SPDX-License-Identifier: MIT
/// \file
/// What a wrapped device keeps for the work that is submitted to it. Not installed.
#pragma once

#include <memory>
#include <utility>

#include <sluice/vulkan_device.hpp>

#include "vulkan/vulkan_access_pool.hpp"
#include "vulkan/vulkan_driver.hpp"

namespace sluice {

struct VulkanDevice::State {
    explicit State(std::shared_ptr<VulkanDriver> wrapped) noexcept : driver(std::move(wrapped)) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    std::shared_ptr<VulkanDriver> driver;
    VulkanAccessPool accesses;
};

} // namespace sluice
