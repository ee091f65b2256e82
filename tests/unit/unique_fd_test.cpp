// SPDX-License-Identifier: MIT
#include <sluice/unique_fd.hpp>

#include <cerrno>
#include <vector>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/open_fds.hpp"

namespace sluice {
namespace {

using UniqueFdTest = test::FdTest;

bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

TEST_F(UniqueFdTest, OwnsNothingAtFirst) {
    UniqueFd fd;
    EXPECT_EQ(fd.get(), -1);
    EXPECT_FALSE(fd);
}

TEST_F(UniqueFdTest, AdoptsFromAnRvalueAndDisarmsTheCallersVariable) {
    int raw = eventfd(0, EFD_CLOEXEC);
    const int number = raw;
    {
        UniqueFd fd(std::move(raw));
        EXPECT_EQ(raw, -1);
        EXPECT_EQ(fd.get(), number);
        EXPECT_TRUE(is_open(number));
    }
    EXPECT_FALSE(is_open(number));
}

TEST_F(UniqueFdTest, TakesEveryNegativeNumberForNone) {
    UniqueFd fd(-7);
    EXPECT_EQ(fd.get(), -1);
}

TEST_F(UniqueFdTest, MovesTheDescriptorAndClosesWhatItReplaces) {
    UniqueFd a(eventfd(0, EFD_CLOEXEC));
    UniqueFd b(eventfd(0, EFD_CLOEXEC));
    const int kept = a.get();
    const int replaced = b.get();
    b = std::move(a);
    EXPECT_EQ(b.get(), kept);
    EXPECT_FALSE(is_open(replaced));
    auto& same = b;
    b = std::move(same);
    EXPECT_TRUE(is_open(kept)) << "moved onto itself";
}

TEST_F(UniqueFdTest, ReleaseHandsTheDescriptorToTheCaller) {
    UniqueFd fd(eventfd(0, EFD_CLOEXEC));
    const int raw = fd.release();
    EXPECT_FALSE(fd);
    EXPECT_TRUE(is_open(raw));
    close(raw);
}

TEST_F(UniqueFdTest, ClosingLeavesErrnoAlone) {
    UniqueFd fd(eventfd(0, EFD_CLOEXEC));
    errno = ENOSPC;
    close(fd.get()); // so that the object's own close fails with EBADF
    fd.reset();
    EXPECT_EQ(errno, ENOSPC);
}

TEST_F(UniqueFdTest, DuplicatesAreCloseOnExecAndLiveOnTheirOwn) {
    UniqueFd fd(eventfd(0, 0));
    auto copy = fd.duplicate();
    ASSERT_TRUE(copy) << copy.error().message();
    EXPECT_NE(copy->get(), fd.get());
    fd.reset();
    EXPECT_EQ(fcntl(copy->get(), F_GETFD), FD_CLOEXEC);
}

TEST_F(UniqueFdTest, RefusesToDuplicateWhatIsNotOpen) {
    for (const int fd : {-1, 1 << 20}) {
        auto copy = UniqueFd::duplicate(fd);
        ASSERT_FALSE(copy);
        EXPECT_EQ(copy.error().code, Errc::wrong_object);
        EXPECT_EQ(copy.error().sys_errno, EBADF);
        EXPECT_NE(copy.error().message().find(std::to_string(fd)), std::string::npos);
    }
}

TEST_F(UniqueFdTest, SaysWhenNoFdIsLeft) {
    UniqueFd fd(eventfd(0, EFD_CLOEXEC));
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit tight{.rlim_cur = static_cast<rlim_t>(fd.get()) + 1, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
    std::vector<UniqueFd> gaps; // numbers below the limit that are still free
    auto copy = fd.duplicate();
    for (; copy; copy = fd.duplicate())
        gaps.push_back(std::move(*copy));
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_EQ(copy.error().code, Errc::no_resources);
    EXPECT_EQ(copy.error().sys_errno, EMFILE);
    EXPECT_NE(copy.error().remedy.find("RLIMIT_NOFILE"), std::string::npos);
}

} // namespace
} // namespace sluice
