// SPDX-License-Identifier: MIT
#include <sluice/kms_device.hpp>

#include <fcntl.h>
#include <sys/eventfd.h>

#include "support/memfd.hpp"
#include "support/open_fds.hpp"

namespace sluice {
namespace {

using KmsTest = test::FdTest;

TEST_F(KmsTest, RefusesWhatIsNoCard) {
    const UniqueFd memory = test::memfd(4096);
    const UniqueFd event(eventfd(0, EFD_CLOEXEC));
    const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    for (const auto& [fd, says] :
         {std::pair(-1, "fd -1 (none)"), std::pair(1 << 20, "(closed)"),
          std::pair(memory.get(), "memfd:sluice-test"), std::pair(event.get(), "[eventfd]"),
          std::pair(null.get(), "/dev/null")}) {
        auto card = KmsDevice::wrap(fd);
        ASSERT_FALSE(card) << says;
        EXPECT_EQ(card.error().code, Errc::wrong_object);
        EXPECT_NE(card.error().message().find(says), std::string::npos) << card.error().message();
        EXPECT_FALSE(card.error().remedy.empty());
    }
}

TEST_F(KmsTest, SaysWhyACardDoesNotOpen) {
    auto missing = KmsDevice::open("/dev/dri/card-that-is-not-there");
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.error().sys_errno, ENOENT);
    EXPECT_NE(missing.error().message().find("card-that-is-not-there"), std::string::npos);
}

TEST_F(KmsTest, ListingTheCardsLeavesNothingOpen) {
    for (const KmsCard& card : kms_cards())
        EXPECT_TRUE(card.path.starts_with("/dev/dri/card"));
}

} // namespace
} // namespace sluice
