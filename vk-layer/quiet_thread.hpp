// SPDX-License-Identifier: MIT
/// \file
/// Threads of the layer's own, in a process that is the application's.
#pragma once

#include <csignal>
#include <exception>
#include <thread>
#include <utility>

#include <pthread.h>

namespace sluice::layer {

/// A thread that runs \p what, and none of the application's handlers of signals.
///
/// \returns one that is not joinable where the system has none, or no memory for it.
template <typename What> [[nodiscard]] std::thread quiet_thread(What what) noexcept {
    sigset_t all{}, before{};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread started;
    try {
        started = std::thread(std::move(what));
    } catch (const std::exception&) {
        // std::system_error or std::bad_alloc: the caller sees that there is none.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return started;
}

} // namespace sluice::layer
