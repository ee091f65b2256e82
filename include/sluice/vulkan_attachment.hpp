// SPDX-License-Identifier: MIT
/// \file
/// What a Vulkan device makes of a frame.
#pragma once

#include <memory>
#include <utility>

#include <sluice/export.hpp>
#include <sluice/frame.hpp>

namespace sluice {

/// A device's own view of a frame: the part that a `VulkanImage` and a `VulkanBuffer` share.
///
/// A handle; copies mean the same Vulkan objects, which go with their last copy: by then the GPU
/// must be done with them. The frame may live on, as may everyone else's hold on the memory.
///
/// Threads: any, under Vulkan's own rules for the objects.
class SLUICE_API VulkanAttachment {
public:
    /// The frame that was attached or exported.
    [[nodiscard]] const Frame& frame() const noexcept { return frame_; }

    struct State; ///< Not part of the API.

protected:
    VulkanAttachment(std::shared_ptr<const State> state, Frame frame) noexcept
        : state_(std::move(state)), frame_(std::move(frame)) {}

    std::shared_ptr<const State> state_;

private:
    friend class VulkanDevice;
    Frame frame_;
};

} // namespace sluice
