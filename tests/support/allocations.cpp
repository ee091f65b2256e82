// SPDX-License-Identifier: MIT
#include "support/allocations.hpp"

#include <atomic>
#include <cstdlib>
#include <new>
#include <utility>

#include <malloc.h>

namespace {

std::atomic<std::size_t> count = 0;
std::atomic<std::size_t> freed = 0;
std::atomic<std::ptrdiff_t> bytes = 0;
std::atomic<bool> counting = true;
thread_local int until_failure = 0; // 0: none
thread_local int exempt = 0;

std::ptrdiff_t size_of(void* memory) noexcept {
    return static_cast<std::ptrdiff_t>(malloc_usable_size(memory));
}

void give_back(void* memory) noexcept {
    if (memory != nullptr && counting.load(std::memory_order_relaxed)) {
        freed.fetch_add(1, std::memory_order_relaxed);
        bytes.fetch_sub(size_of(memory), std::memory_order_relaxed);
    }
    std::free(memory);
}

} // namespace

// Replaced for the whole program; the other forms come down to these, or are pairs of their own.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    if (until_failure > 0 && exempt == 0 && --until_failure == 0)
        return nullptr;
    void* memory = std::malloc(size == 0 ? 1 : size);
    if (!counting.load(std::memory_order_relaxed))
        return memory;
    count.fetch_add(1, std::memory_order_relaxed);
    if (memory != nullptr)
        bytes.fetch_add(size_of(memory), std::memory_order_relaxed);
    return memory;
}

void* operator new(std::size_t size) {
    if (void* memory = operator new(size, std::nothrow))
        return memory;
    throw std::bad_alloc();
}

void operator delete(void* memory) noexcept {
    give_back(memory);
}

void operator delete(void* memory, std::size_t) noexcept {
    give_back(memory);
}

namespace sluice::test {

void count_allocations(bool on) noexcept {
    counting.store(on, std::memory_order_relaxed);
}

std::size_t allocations() noexcept {
    return count.load(std::memory_order_relaxed);
}

std::ptrdiff_t live_allocations() noexcept {
    return static_cast<std::ptrdiff_t>(count.load(std::memory_order_relaxed)) -
           static_cast<std::ptrdiff_t>(freed.load(std::memory_order_relaxed));
}

std::ptrdiff_t live_bytes() noexcept {
    return bytes.load(std::memory_order_relaxed);
}

bool fail_allocation(int nth) noexcept {
    return std::exchange(until_failure, nth) != 0;
}

void exempt_allocations(bool on) noexcept {
    exempt += on ? 1 : -1;
}

} // namespace sluice::test
