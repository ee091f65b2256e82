// SPDX-License-Identifier: MIT
/// \file
/// What all attachments of a device keep. Not installed.
#pragma once

#include <utility>

#include <sluice/vulkan_attachment.hpp>

namespace sluice {

struct VulkanAttachment::State {
    explicit State(Frame of) noexcept : frame(std::move(of)) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    virtual ~State() = default;

    Frame frame; // what was imported: while it is held its buffers' inodes name no other buffer
};

} // namespace sluice
