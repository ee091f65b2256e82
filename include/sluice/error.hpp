// SPDX-License-Identifier: MIT
/// \file
/// How sluice says that something did not work.
///
/// What can fail returns a `Result` and is noexcept. Running out of heap memory is the one failure
/// that is not turned into an `Error`: it ends the program (std::terminate). Two things throw, and
/// both are the caller's to avoid: `Result::value()` where there is none
/// (tl::bad_expected_access), and strings made for people, as `Error::message()`, where there is no
/// memory for them (std::bad_alloc).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <tl/expected.hpp>

#include <sluice/export.hpp>

namespace sluice {

/// What kind of failure it was: the part of an `Error` that a program branches on.
enum class Errc : std::uint8_t {
    invalid_argument, ///< The values handed in contradict each other or the kernel's rules.
    wrong_object,     ///< A fd or handle is closed, or is not the kind of object asked for.
    out_of_bounds,    ///< A frame or an access reaches past the end of its buffer.
    unsupported,      ///< This kernel, driver or device cannot do it; another one may.
    timed_out, ///< The deadline passed first: wait again or give up. What was waited for goes on.
    fence_failed, ///< The work behind a fence ended with an error: the contents are not valid.
    revoked,      ///< The frame's owner has taken it back: drop it, and use the next one.
    busy,         ///< An earlier request, or a lock of this thread, has it still: retry after that.
    no_permission, ///< The fd's mode or the caller's rights do not allow it (EACCES, EPERM).
    not_master,    ///< Another process holds the display (DRM master).
    no_resources,  ///< Out of fds, memory or device memory.
    device_lost,   ///< The GPU or the card is gone; its objects can only be destroyed.
    failed,        ///< Anything else; see `Error::sys_errno` and `Error::vk_result`.
};

/// The name of \p code as it is spelled in the enumeration.
[[nodiscard]] SLUICE_API std::string_view to_string(Errc code) noexcept;

/// One failure, written for the person who has to fix it.
struct Error {
    /// What to branch on.
    Errc code = Errc::failed;
    /// The operation that failed, as it is called in the API: "DmaBuf::from_fd".
    std::string operation;
    /// What it was applied to, in words: "fd 7 ('anon_inode:[eventfd]')", "buffer ino 17".
    std::string object;
    /// What was wrong, with the limits that were broken, in the units of the API.
    std::string problem;
    /// What the caller can do about it.
    std::string remedy;
    /// The kernel's errno where a system call failed, otherwise 0.
    int sys_errno = 0;
    /// The VkResult where a Vulkan call failed, otherwise 0 (VK_SUCCESS).
    std::int32_t vk_result = 0;

    /// "OPERATION(OBJECT): PROBLEM. REMEDY." in one line, for logs and terminals.
    [[nodiscard]] SLUICE_API std::string message() const;
};

/// A value, or the reason why there is none.
template <typename T> using Result = tl::expected<T, Error>;

} // namespace sluice
