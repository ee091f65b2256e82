// SPDX-License-Identifier: MIT
/// \file
/// What a wrapped device keeps for the work that is submitted to it. Not installed.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include <sluice/vulkan_device.hpp>
#include <sluice/vulkan_image.hpp>

#include "frame/frame_use.hpp"
#include "vulkan/vulkan_access_pool.hpp"
#include "vulkan/vulkan_attachment_cache.hpp"
#include "vulkan/vulkan_driver.hpp"

namespace sluice {

struct VulkanDevice::State {
    explicit State(std::shared_ptr<VulkanDriver> wrapped) noexcept
        : driver(std::move(wrapped)), attachments(driver->info.idle_attachments),
          watcher(std::make_shared<Watcher>(*this)) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State();

    /// Told by the frames. It holds no share in the State: whoever revokes a frame must not be the
    /// last to let go of the device, which the application destroys once its own handles are gone.
    class Watcher final : public FrameWatcher {
    public:
        explicit Watcher(State& of) noexcept : state_(&of) {}
        void revoked(const Frame& frame) noexcept override;
        /// The State goes. Waits for what is being told.
        void forget() noexcept;

    private:
        std::mutex lock_;
        State* state_; // null once it is gone
    };

    /// What `VulkanDevice::attach` does, as one of a call's several lookups.
    [[nodiscard]] Result<std::shared_ptr<const VulkanImage::State>>
    attach(const Frame& frame, const VulkanAttachInfo& info, VulkanAttachmentCache::Lookup lookup);

    std::shared_ptr<VulkanDriver> driver;
    VulkanAttachmentCache attachments;
    VulkanAccessPool accesses;
    std::shared_ptr<Watcher> watcher;
};

} // namespace sluice
