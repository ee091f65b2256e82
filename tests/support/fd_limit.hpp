// SPDX-License-Identifier: MIT
/// \file
/// A process that has used up its fds.
#pragma once

#include <vector>

#include <fcntl.h>
#include <sys/resource.h>

#include <sluice/unique_fd.hpp>

namespace sluice::test {

/// While it lives, \p left more fds can be opened (RLIMIT_NOFILE), and no further one.
class FdLimit {
public:
    explicit FdLimit(unsigned left = 0) {
        getrlimit(RLIMIT_NOFILE, &before_);
        rlimit limit = before_;
        std::vector<UniqueFd> next; // the numbers that the kernel gives out next
        while (next.size() <= left)
            next.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
        limit.rlim_cur = static_cast<rlim_t>(next.back().get());
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    ~FdLimit() { setrlimit(RLIMIT_NOFILE, &before_); }
    FdLimit(const FdLimit&) = delete;
    FdLimit& operator=(const FdLimit&) = delete;

private:
    rlimit before_{};
};

} // namespace sluice::test
