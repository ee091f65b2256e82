// SPDX-License-Identifier: MIT
#include "core/fdinfo.hpp"

#include <string>

#include <gtest/gtest.h>

namespace sluice {
namespace {

constexpr std::string_view head = "pos:\t0\nflags:\t02000002\nmnt_id:\t12\nino:\t1\nsize:\t4096\n";

std::optional<DmaBufInfo> parse(std::string_view tail) {
    return parse_fdinfo(std::string(head) + std::string(tail));
}

TEST(FdinfoTest, TellsExporterHoldsAndName) {
    const auto info = parse("count:\t3\nexp_name:\tudmabuf\nname:\tcam-0\n");
    ASSERT_TRUE(info);
    EXPECT_EQ(info->references, 3U);
    EXPECT_EQ(info->exporter, "udmabuf");
    EXPECT_EQ(info->name, "cam-0");
}

TEST(FdinfoTest, AnUnnamedBufferHasNoName) {
    const auto info = parse("count:\t1\nexp_name:\tsystem\n");
    ASSERT_TRUE(info);
    EXPECT_EQ(info->exporter, "system");
    EXPECT_EQ(info->name, "");
}

TEST(FdinfoTest, ANameCannotPassForAnotherLine) {
    const auto info = parse("count:\t1\nexp_name:\tsystem\nname:\ta\nexp_name:\tvgem\ncount:\t9\n");
    ASSERT_TRUE(info);
    EXPECT_EQ(info->exporter, "system");
    EXPECT_EQ(info->references, 1U);
    EXPECT_EQ(info->name, "a\nexp_name:\tvgem\ncount:\t9");
}

TEST(FdinfoTest, WhatIsNoDmaBufsIsNothing) {
    for (const std::string_view text :
         {"", "\n", "count:\t1\n", "exp_name:\tx\n", "count:\t\nexp_name:\tx\n",
          "count:\t1x\nexp_name:\tx\n", "count:\t-1\nexp_name:\tx\n",
          "count:\t99999999999999999999\nexp_name:\tx\n", "count: 1\nexp_name: x\n"})
        EXPECT_FALSE(parse_fdinfo(text)) << text;
    EXPECT_FALSE(parse(""));
}

TEST(FdinfoTest, ACutOffTextIsReadAsFarAsItGoes) {
    const std::string whole = "count:\t3\nexp_name:\tudmabuf\nname:\tcam-0\n";
    for (std::size_t length = 0; length < whole.size(); ++length) {
        const auto info = parse(whole.substr(0, length));
        EXPECT_TRUE(!info || std::string_view("udmabuf").starts_with(info->exporter)) << length;
    }
}

} // namespace
} // namespace sluice
