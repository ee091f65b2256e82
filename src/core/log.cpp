// SPDX-License-Identifier: MIT
#include <sluice/log.hpp>

#include <cstdio>
#include <mutex>

#include "core/log.hpp"

namespace sluice {

namespace {

void to_stderr(const Error& error, void*) noexcept {
    std::fprintf(stderr, "sluice: %s\n", error.message().c_str());
}

// Function and user belong together, hence a lock; it is taken only where something went wrong.
constinit std::mutex lock;
constinit LogFunction current_function = to_stderr;
constinit void* current_user = nullptr;

} // namespace

void set_log(LogFunction function, void* user) noexcept {
    const std::scoped_lock held(lock);
    current_function = function;
    current_user = user;
}

void log(const Error& error) noexcept {
    LogFunction function = nullptr;
    void* user = nullptr;
    {
        const std::scoped_lock held(lock);
        function = current_function;
        user = current_user;
    }
    if (function != nullptr)
        function(error, user);
}

} // namespace sluice
