// SPDX-License-Identifier: MIT
/// \file
/// What a driver wants to be there behind the pixels of a LINEAR image, which no query tells. Not
/// installed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "vulkan/vulkan_driver.hpp"

namespace sluice {

/// An image of so many rows needs `stride` times the rows, these rounded up to `rows`, and `slack`
/// bytes more, all of it rounded up to `rounding`.
struct VulkanPadding {
    std::uint32_t rows = 1;
    std::uint32_t slack = 0;    // bytes
    std::uint32_t rounding = 1; // bytes

    [[nodiscard]] bool operator==(const VulkanPadding&) const noexcept = default;
};

/// What a driver said that one image needs.
struct VulkanSizeSample {
    std::uint32_t stride = 0; // bytes
    std::uint32_t rows = 0;
    std::uint64_t size = 0;      // bytes
    std::uint64_t alignment = 1; // of its memory, in bytes
};

/// The padding that explains all \p samples, of several the one with the fewest rows and then the
/// least rounding. Where none does, the most bytes that were seen behind the rows.
[[nodiscard]] VulkanPadding padding_of(std::span<const VulkanSizeSample> samples) noexcept;

/// Asks \p driver, by making images without memory. None where it cannot be told strides.
[[nodiscard]] VulkanPadding padding_of(const std::shared_ptr<const VulkanDriver>& driver);

} // namespace sluice
