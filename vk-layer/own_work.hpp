// SPDX-License-Identifier: MIT
/// \file
/// What this process has under way on its devices: fences that it may find in buffers are its own
/// then, whichever of its devices left them.
#pragma once

#include <cstdint>

namespace sluice::layer {

/// The work of one device. Submissions are numbered in the whole process, from 1 on.
///
/// Threads: any.
class OwnWork {
public:
    OwnWork() noexcept;
    ~OwnWork();
    OwnWork(const OwnWork&) = delete;
    OwnWork& operator=(const OwnWork&) = delete;

    /// A submission of this device is about to go down.
    void submits() noexcept;
    /// It begins when nobody knows, if ever: what is found idle now is no more known to stay so.
    void submits_late() noexcept;
    /// This device has done what it had of the first \p submissions.
    void settled(std::uint64_t submissions) noexcept;

    /// How many submissions there have been.
    [[nodiscard]] static std::uint64_t submissions() noexcept;

    struct Since {
        std::uint64_t submissions = 0; ///< As many as there have been by now.
        bool none = false;             ///< None past those asked for is under way, on any device.
    };
    /// \param idle the first so many have left nothing in what is looked at, on any device.
    /// \param own nor have the first so many of this one.
    [[nodiscard]] Since since(std::uint64_t idle, std::uint64_t own) const noexcept;

private:
    std::uint64_t last_ = 0, settled_ = 0;
    bool late_ = false;
    OwnWork *before_ = nullptr, *next_ = nullptr;
};

} // namespace sluice::layer
