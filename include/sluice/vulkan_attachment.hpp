// SPDX-License-Identifier: MIT
/// \file
/// What a Vulkan device makes of a frame.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include <sluice/coherency.hpp>
#include <sluice/export.hpp>
#include <sluice/frame.hpp>

namespace sluice {

/// What becomes of the contents when the GPU takes an attachment over.
enum class Contents : std::uint8_t {
    keep,    ///< What others left in the frame stays.
    discard, ///< The GPU writes all of it anew; cheaper, and right for memory never used.
};

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

    /// Whether the CPU and this device see each other's bytes, as far as the types of the memory
    /// tell (VkMemoryPropertyFlags):
    ///   - `always`: HOST_COHERENT and HOST_CACHED, the device looks into the CPU's caches;
    ///   - `bracketed`: HOST_VISIBLE otherwise; the CPU's caches may hold what the device does not
    ///     see, until `CpuAccess` has them written back and dropped;
    ///   - `unknown`: not HOST_VISIBLE, so Vulkan does not say. `CpuAccess` brackets here too.
    [[nodiscard]] Coherency coherency() const noexcept;

    // Copies only, so that no handle is ever empty.
    VulkanAttachment(const VulkanAttachment&) noexcept = default;
    VulkanAttachment& operator=(const VulkanAttachment&) noexcept = default;
    ~VulkanAttachment() = default;

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
