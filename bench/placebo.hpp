// SPDX-License-Identifier: MIT
/// \file
/// libplacebo's import of a dma-buf, where that library is installed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <vulkan/vulkan_core.h>

namespace bench {

/// libplacebo on a VkDevice of its own; it shares none.
class Placebo {
public:
    /// \returns it, or null with \p problem.
    static std::unique_ptr<Placebo> create(PFN_vkGetInstanceProcAddr get, VkInstance instance,
                                           VkPhysicalDevice device, std::string& problem);
    Placebo(const Placebo&) = delete;
    Placebo& operator=(const Placebo&) = delete;
    ~Placebo();

    /// Imports a LINEAR image of 8-bit B, G, R and A, samples it never, and lets it go.
    /// \param stride in bytes. \returns whether that worked.
    [[nodiscard]] bool import(int fd, std::uint64_t size, std::uint32_t width, std::uint32_t height,
                              std::uint32_t stride) const noexcept;

private:
    Placebo() = default;
    struct Objects;
    std::unique_ptr<Objects> objects_;
};

} // namespace bench
