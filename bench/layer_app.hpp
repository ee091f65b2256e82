// SPDX-License-Identifier: MIT
/// \file
/// An application that knows nothing of sluice: its instance, device and queue, above a layer or
/// not.
#pragma once

#include <span>
#include <string>
#include <vector>

#include <vulkan/vulkan_core.h>

#include "layer/hand_loader.hpp"

namespace bench {

class LayerApp {
public:
    /// With what \p get finds; \p layer is enabled by name, null for none.
    explicit LayerApp(PFN_vkGetInstanceProcAddr get, const char* layer = nullptr);
    LayerApp(const LayerApp&) = delete;
    LayerApp& operator=(const LayerApp&) = delete;
    ~LayerApp();

    /// What is missing; empty where nothing is.
    [[nodiscard]] const std::string& problem() const noexcept { return problem_; }
    [[nodiscard]] std::string name() const;

    /// A dma-buf, borrowed, with a VkBuffer in it. \returns whether the driver took it.
    [[nodiscard]] bool import(int fd);
    /// The same with functions of one's own, and without writing it down.
    struct Imported {
        VkDeviceMemory memory = VK_NULL_HANDLE;
        VkBuffer buffer = VK_NULL_HANDLE;
    };
    [[nodiscard]] bool import(const sluice::test::DeviceFunctions& with, int fd,
                              Imported& made) const;
    void destroy(const sluice::test::DeviceFunctions& with, const Imported& each) const;

    /// Commands that take the imported buffers \p which from others and give them back; none for an
    /// empty command buffer.
    [[nodiscard]] VkCommandBuffer record(std::span<const Imported> which) const;

    sluice::test::InstanceFunctions of_instance;
    sluice::test::DeviceFunctions vk;
    VkInstance instance = VK_NULL_HANDLE;
    VkPhysicalDevice physical_device = VK_NULL_HANDLE;
    VkDevice device = VK_NULL_HANDLE;
    VkQueue queue = VK_NULL_HANDLE;
    std::vector<Imported> imported;

private:
    bool create_device(PFN_vkGetInstanceProcAddr get);

    std::string problem_;
    VkCommandPool pool_ = VK_NULL_HANDLE;
};

} // namespace bench
