// SPDX-License-Identifier: MIT
/// \file
/// What is there for as long as anybody may call the layer.
#pragma once

namespace sluice::layer {

/// A global that is never destroyed: applications destroy their instances in destructors of their
/// own, which may run after those of this library.
template <typename T> union Immortal {
    constexpr Immortal() : value() {}
    Immortal(const Immortal&) = delete;
    Immortal& operator=(const Immortal&) = delete;
    ~Immortal() {}

    T value;
};

} // namespace sluice::layer
