// SPDX-License-Identifier: MIT
#include <sluice/caps.hpp>

#include <set>

#include <drm_fourcc.h>
#include <gtest/gtest.h>

#include <sluice/format.hpp>

namespace sluice {
namespace {

TEST(Uses, AreASet) {
    constexpr Uses both = Uses::sample | Uses::scan_out;
    static_assert(contains(both, Uses::sample));
    static_assert(contains(both, both));
    static_assert(contains(both, Uses::none));
    static_assert(!contains(both, Uses::sample | Uses::render));
    static_assert((both & (Uses::sample | Uses::render)) == Uses::sample);
    static_assert(both - Uses::sample == Uses::scan_out);
    static_assert(both - Uses::render == both);
    static_assert(contains(all_uses, cpu_uses));
}

TEST(Uses, HaveNames) {
    EXPECT_EQ(to_string(Uses::none), "nothing");
    EXPECT_EQ(to_string(Uses::scan_out), "scan out");
    EXPECT_EQ(to_string(Uses::capture | Uses::cpu_write), "write and capture");
    EXPECT_EQ(to_string(Uses::render | Uses::sample | Uses::store), "sample, render and store");
    EXPECT_EQ(to_string(all_uses), "read, write, sample, render, store, copy from, copy to, scan "
                                   "out and capture");
}

TEST(Caps, MemoryKindsHaveNames) {
    EXPECT_EQ(to_string(MemoryKind::unknown), "unknown");
    EXPECT_EQ(to_string(MemoryKind::system), "system");
    EXPECT_EQ(to_string(MemoryKind::contiguous), "contiguous");
}

TEST(Caps, TheCpuTakesEveryFormatLinear) {
    const ImporterCaps cpu = cpu_caps();
    EXPECT_EQ(cpu.name, "cpu");
    EXPECT_TRUE(cpu.device.empty());
    EXPECT_TRUE(cpu.maps);
    EXPECT_TRUE(cpu.foreign);
    EXPECT_EQ(cpu.stride_alignment, 1U);
    std::set<std::uint32_t> seen;
    for (const FormatSupport& each : cpu.formats) {
        seen.insert(each.format);
        EXPECT_EQ(each.modifier, static_cast<std::uint64_t>(DRM_FORMAT_MOD_LINEAR));
        EXPECT_EQ(each.uses, cpu_uses);
        EXPECT_EQ(each.max_width, UINT32_MAX);
    }
    EXPECT_EQ(seen.size(), formats().size());
}

} // namespace
} // namespace sluice
