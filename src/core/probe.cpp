// SPDX-License-Identifier: MIT
#include "core/probe.hpp"

#include <atomic>

namespace sluice::probe {

namespace {

constinit std::atomic<Known> exporting = Known::not_yet;
constinit std::atomic<Known> importing = Known::not_yet;
constinit std::atomic<std::uint64_t> device = 0; // no filesystem has this number

constexpr Known known(bool present) noexcept {
    return present ? Known::present : Known::absent;
}

} // namespace

Known export_fence() noexcept {
    return exporting.load(std::memory_order_relaxed);
}

Known import_fence() noexcept {
    return importing.load(std::memory_order_relaxed);
}

void set_export_fence(bool present) noexcept {
    exporting.store(known(present), std::memory_order_relaxed);
}

void set_import_fence(bool present) noexcept {
    importing.store(known(present), std::memory_order_relaxed);
}

std::uint64_t dma_buf_device() noexcept {
    return device.load(std::memory_order_relaxed);
}

void set_dma_buf_device(std::uint64_t number) noexcept {
    device.store(number, std::memory_order_relaxed);
}

void forget() noexcept {
    exporting.store(Known::not_yet, std::memory_order_relaxed);
    importing.store(Known::not_yet, std::memory_order_relaxed);
    device.store(0, std::memory_order_relaxed);
}

} // namespace sluice::probe
