// SPDX-License-Identifier: MIT
/// \file
/// What all attachments of a device keep. Not installed.
#pragma once

#include <utility>

#include <sluice/vulkan_attachment.hpp>

#include "frame/frame_use.hpp"
#include "vulkan/vulkan_driver.hpp"

namespace sluice {

struct VulkanAttachment::State {
    explicit State(Frame of) noexcept : frame(std::move(of)) { FrameUse::attached(frame); }
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    virtual ~State() { FrameUse::detached(frame); }

    [[nodiscard]] static const State& of(const VulkanAttachment& attachment) noexcept {
        return *attachment.state_;
    }
    [[nodiscard]] virtual const VulkanDriver& driver() const noexcept = 0;

    VkMemoryPropertyFlags memory_flags = 0; // what the types of all its memories have in common
    Frame frame; // what was imported: while it is held its buffers' inodes name no other buffer
};

} // namespace sluice
