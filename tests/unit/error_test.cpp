// SPDX-License-Identifier: MIT
#include <sluice/error.hpp>

#include <set>

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(Error, MessageIsOneLineThatSaysWhatOnWhatWhyAndWhatToDo) {
    const Error error{.code = Errc::out_of_bounds,
                      .operation = "Frame::create",
                      .object = "buffer ino 17",
                      .problem = "plane 0 needs 4259840 bytes, the buffer holds 4194304",
                      .remedy = "Allocate a larger buffer"};
    EXPECT_EQ(error.message(), "Frame::create(buffer ino 17): plane 0 needs 4259840 bytes, the "
                               "buffer holds 4194304. Allocate a larger buffer.");
}

TEST(Error, MessageLeavesOutWhatIsNotThere) {
    const Error error{.operation = "open", .problem = "no"};
    EXPECT_EQ(error.message(), "open: no.");
}

TEST(Error, EveryCodeHasItsOwnName) {
    std::set<std::string_view> names;
    constexpr auto last = static_cast<int>(Errc::failed);
    for (int code = 0; code <= last; ++code)
        names.insert(to_string(static_cast<Errc>(code)));
    EXPECT_EQ(names.size(), std::size_t{last} + 1);
    EXPECT_FALSE(names.contains("?"));
}

} // namespace
} // namespace sluice
