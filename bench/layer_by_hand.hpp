// SPDX-License-Identifier: MIT
/// \file
/// What the Vulkan layer does around a submission, as an application would write it for itself.
///
/// As in by_hand.hpp: the same promises, by a careful engineer who knows the buffers, the device
/// and the one kind of submission that there is.
#pragma once

#include <mutex>
#include <span>
#include <vector>

#include <poll.h>
#include <vulkan/vulkan_core.h>

#include "layer/hand_loader.hpp"

namespace by_hand {

/// Submissions that take part with all of some buffers: they wait for their fences and leave their
/// own.
class Bracketed {
public:
    /// \param buffers dma-bufs, borrowed. \param queue_submit, \param import, \param get are called
    /// for what they are named after.
    Bracketed(const sluice::test::DeviceFunctions& vk, VkDevice device, VkQueue queue,
              std::vector<int> buffers, PFN_vkQueueSubmit queue_submit,
              PFN_vkImportSemaphoreFdKHR import, PFN_vkGetSemaphoreFdKHR get);
    Bracketed(const Bracketed&) = delete;
    Bracketed& operator=(const Bracketed&) = delete;
    ~Bracketed();

    /// \returns 0, or what failed.
    int submit(std::span<const VkSubmitInfo> infos, VkFence fence);

private:
    /// What one submission needs until the GPU is done with it.
    struct Slot {
        VkSemaphore wait = VK_NULL_HANDLE, signal = VK_NULL_HANDLE;
        int done = -1;
    };

    Slot& take_slot();
    /// \returns the one sync_file of those that are pending, -1 where none is; below that, what
    /// failed.
    int take_fences();

    const sluice::test::DeviceFunctions& vk_;
    VkDevice device_;
    VkQueue queue_;
    PFN_vkQueueSubmit submit_;
    PFN_vkImportSemaphoreFdKHR import_;
    PFN_vkGetSemaphoreFdKHR get_;
    const std::vector<int> buffers_;

    std::mutex lock_; // other threads submit with the same buffers
    std::vector<Slot> slots_;
    std::size_t next_ = 0;
    std::vector<int> fences_;
    std::vector<pollfd> polls_;
    std::vector<VkSubmitInfo> infos_;
};

} // namespace by_hand
