// SPDX-License-Identifier: MIT
/// \file
/// What holds for the frames and buffers of every exporter, checked on a real kernel.
#pragma once

#include <algorithm>
#include <cstring>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <sluice/cpu_access.hpp>
#include <sluice/exporter.hpp>

#include "support/open_fds.hpp"

namespace sluice::test {

using namespace std::chrono_literals;

/// The buffers that are alive on this machine, by debugfs.
inline long live_buffers() {
    std::ifstream info("/sys/kernel/debug/dma_buf/bufinfo");
    long objects = -1;
    for (std::string line; std::getline(info, line);)
        if (line.starts_with("Total "))
            objects = std::stol(line.substr(6));
    return objects;
}

/// The name that the kernel has for \p buffer.
inline std::string name_of(const DmaBuf& buffer) {
    std::ifstream info("/proc/self/fdinfo/" + std::to_string(buffer.fd()));
    for (std::string line; std::getline(info, line);)
        if (line.starts_with("name:\t"))
            return line.substr(6);
    return {};
}

inline bool is_zero(const DmaBuf& buffer) {
    auto map = CpuMap::map(buffer, Access::read);
    if (!map)
        return ADD_FAILURE() << map.error().message(), false;
    auto access = CpuAccess::begin(*map, Access::read, deadline_in(5s));
    const std::vector<std::byte> zeros(buffer.size());
    return access && std::memcmp(access->bytes().data(), zeros.data(), zeros.size()) == 0;
}

/// Fills \p buffer through one mapping and looks at it through another.
inline void expect_writes_survive(const DmaBuf& buffer) {
    std::vector<std::uint32_t> picture(buffer.size() / sizeof(std::uint32_t));
    std::iota(picture.begin(), picture.end(), 0x12345678U);
    {
        auto map = CpuMap::map(buffer, Access::read_write);
        ASSERT_TRUE(map) << map.error().message();
        auto access = CpuAccess::begin(*map, Access::write, deadline_in(5s));
        ASSERT_TRUE(access) << access.error().message();
        std::memcpy(access->bytes().data(), picture.data(), buffer.size());
        ASSERT_TRUE(access->end());
    }
    auto map = CpuMap::map(*buffer.duplicate(), Access::read);
    ASSERT_TRUE(map) << map.error().message();
    auto access = CpuAccess::begin(*map, Access::read, deadline_in(5s));
    ASSERT_TRUE(access);
    EXPECT_EQ(std::memcmp(access->bytes().data(), picture.data(), buffer.size()), 0);
}

/// A frame of each format in the capabilities, in odd sizes. \returns how many there were.
inline int expect_frames_of_every_format(const Exporter& exporter) {
    int frames = 0;
    for (const FormatSupport& each : exporter.caps().formats)
        for (const auto& [width, height] : {std::pair(1U, 1U), std::pair(33U, 17U)}) {
            for (const std::uint32_t alignment : {0U, 256U}) {
                auto frame = exporter.allocate_frame({.width = width,
                                                      .height = height,
                                                      .format = each.format,
                                                      .stride_alignment = alignment,
                                                      .height_alignment = 4,
                                                      .min_size = 5000});
                if (!frame) {
                    ADD_FAILURE() << frame.error().message();
                    continue;
                }
                ++frames;
                const FrameLayout& layout = frame->layout();
                EXPECT_EQ(layout.width, width);
                EXPECT_EQ(layout.height, height);
                EXPECT_EQ(layout.format, each.format);
                EXPECT_EQ(layout.modifier, each.modifier);
                EXPECT_GE(frame->buffer().size(), 5000U);
                const FormatInfo& info = *find_format(each.format);
                std::uint64_t end = 0;
                for (std::uint32_t i = 0; i < info.plane_count; ++i) {
                    EXPECT_EQ(layout.planes[i].stride % std::max(alignment, 1U), 0U)
                        << describe(layout);
                    EXPECT_GE(layout.planes[i].offset, end) << describe(layout);
                    end = layout.planes[i].offset +
                          std::uint64_t{layout.planes[i].stride} * info.planes[i].rows(height);
                }
                EXPECT_LE(end, frame->buffer().size()) << describe(layout);
                EXPECT_TRUE(CpuMap::map(frame->buffer(), Access::read_write));
            }
        }
    return frames;
}

/// Leaves exactly \p count fds to open while it lives.
class FdsLeft {
public:
    explicit FdsLeft(int count) {
        getrlimit(RLIMIT_NOFILE, &before_);
        rlimit tight = before_;
        tight.rlim_cur = 0;
        for (int left = count; left >= 0; ++tight.rlim_cur)
            if (fcntl(static_cast<int>(tight.rlim_cur), F_GETFD) < 0 && left-- == 0)
                break;
        setrlimit(RLIMIT_NOFILE, &tight);
    }
    FdsLeft(const FdsLeft&) = delete;
    FdsLeft& operator=(const FdsLeft&) = delete;
    ~FdsLeft() { setrlimit(RLIMIT_NOFILE, &before_); }

private:
    rlimit before_{};
};

/// Runs \p allocate, which gives a Result, with ever more fds left. It must fail for that reason or
/// succeed, fail at least once, and leak nothing.
template <typename Allocate> void expect_no_leak_without_fds(Allocate allocate) {
    const auto before = open_fds();
    bool failed = false;
    bool succeeded = false;
    for (int left = 0; left < 6; ++left) {
        {
            const FdsLeft tight(left);
            const auto result = allocate();
            succeeded = result.has_value();
            if (!succeeded) {
                failed = true;
                EXPECT_EQ(to_string(result.error().code), "no_resources")
                    << left << ": " << result.error().message();
            }
        }
        EXPECT_EQ(before, open_fds()) << left;
    }
    EXPECT_TRUE(failed);
    EXPECT_TRUE(succeeded) << "six fds are enough";
}

} // namespace sluice::test
