// SPDX-License-Identifier: MIT
/// \file
/// One owner for one file descriptor.
#pragma once

#include <sluice/error.hpp>
#include <sluice/export.hpp>

namespace sluice {

/// Owns a file descriptor and closes it.
///
/// Move-only: a function that takes `UniqueFd&&` takes the descriptor over, one that takes an `int`
/// borrows it for the call. Not synchronised: one object belongs to one thread at a time.
class SLUICE_API UniqueFd {
public:
    /// Owns nothing.
    constexpr UniqueFd() noexcept = default;

    /// Adopts \p fd and sets the caller's variable to -1, so that two owners cannot be made of one
    /// number by accident. A negative number owns nothing.
    explicit constexpr UniqueFd(int&& fd) noexcept : fd_(fd < 0 ? -1 : fd) { fd = -1; }

    UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        if (this != &other)
            reset(other.release());
        return *this;
    }
    UniqueFd(const UniqueFd&) = delete;
    UniqueFd& operator=(const UniqueFd&) = delete;
    ~UniqueFd() { reset(); }

    /// The descriptor, still owned here; -1 where there is none.
    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }

    /// Hands the descriptor to the caller, who must close it.
    [[nodiscard]] int release() noexcept {
        const int fd = fd_;
        fd_ = -1;
        return fd;
    }

    /// Closes what is owned, if anything. errno is left as it was.
    void reset() noexcept { reset(-1); }

    /// A second descriptor for the same open file, close-on-exec (fcntl(2), F_DUPFD_CLOEXEC).
    /// \returns the duplicate, or
    ///   - `wrong_object`: nothing is owned here, or the number was closed behind our back;
    ///   - `no_resources`: RLIMIT_NOFILE is reached.
    [[nodiscard]] Result<UniqueFd> duplicate() const noexcept { return duplicate(fd_); }

    /// The same for a descriptor that stays the caller's.
    [[nodiscard]] static Result<UniqueFd> duplicate(int borrowed_fd) noexcept;

private:
    void reset(int fd) noexcept;

    int fd_ = -1;
};

} // namespace sluice
