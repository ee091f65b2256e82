// SPDX-License-Identifier: MIT
/// \file
/// A card that takes every frame, in place of libdrm's calls (-Wl,--wrap): the cards at hand show
/// one plane only, and refuse little.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>

#include <sys/types.h>

namespace sluice::test {

/// The card, for as long as it lives; one at a time. Every fd is the same open file of it.
struct FakeKms {
    FakeKms();
    ~FakeKms();
    FakeKms(const FakeKms&) = delete;
    FakeKms& operator=(const FakeKms&) = delete;

    using Words = std::array<std::uint32_t, 4>;

    bool takes_modifiers = true;
    int import_error = 0, add_error = 0; ///< The errno that it refuses with.
    /// Runs while a framebuffer is being made.
    std::function<void()> while_adding;

    // What it was told last.
    bool asked_with_modifiers = false;
    std::uint32_t format = 0;
    Words handles{}, pitches{}, offsets{};
    std::array<std::uint64_t, 4> modifiers{};

    // What became of it.
    int imports = 0, adds = 0, closed = 0;
    std::set<std::uint32_t> open_handles;
    std::set<std::uint32_t> framebuffers;
    int removed = 0; ///< By RMFB.

    std::map<ino_t, std::uint32_t> handle_of; ///< By the buffer's inode.
    std::uint32_t last_handle = 4, last_framebuffer = 8;
};

} // namespace sluice::test
