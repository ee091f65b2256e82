// SPDX-License-Identifier: MIT
// Real buffers' memory in this process, quick and strict.
#include <sluice/cpu_map.hpp>

#include <cerrno>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>

#include <sluice/cpu_access.hpp>

#include "support/child.hpp"
#include "support/dma_heap.hpp"
#include "support/memfd.hpp"
#include "support/protection.hpp"
#include "support/real_kernel.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::Child;
using test::protection_of;
using test::SwSync;
using test::udmabuf;

using CpuMapSystemTest = test::RealKernelTest;
using CpuMapSystemDeathTest = CpuMapSystemTest;

CpuMap map(const DmaBuf& buffer, Access access, CpuMapMode mode = CpuMapMode::quick) {
    auto mapped = CpuMap::map(buffer, access, mode);
    EXPECT_TRUE(mapped) << mapped.error().message();
    return std::move(*mapped);
}

CpuAccess begin(const CpuMap& mapping, Access access) {
    auto begun = CpuAccess::begin(mapping, access, deadline_in(20s));
    EXPECT_TRUE(begun) << begun.error().message();
    return std::move(*begun);
}

/// Kept out of the optimiser's hands.
void touch(std::byte* at) {
    *const_cast<volatile std::byte*>(at) = std::byte{1};
}
void look(const std::byte* at) {
    (void)*const_cast<const volatile std::byte*>(at);
}

/// Buffers of each exporter that is here.
std::vector<DmaBuf> every_kind(std::uint64_t size) {
    std::vector<DmaBuf> buffers;
    buffers.push_back(udmabuf(size));
    if (auto heap = test::heap_buffer(size))
        buffers.push_back(std::move(*heap));
    return buffers;
}

TEST_F(CpuMapSystemTest, TheWholeBufferIsMappedAndNoMore) {
    for (const DmaBuf& buffer : every_kind(3 * 4096)) {
        const CpuMap mapping = map(buffer, Access::read_write);
        EXPECT_EQ(mapping.size(), 3U * 4096);
        const CpuAccess access = begin(mapping, Access::read_write);
        EXPECT_EQ(access.bytes().size(), 3U * 4096);
        touch(&access.bytes().front());
        touch(&access.bytes().back());
        EXPECT_EQ(mmap(nullptr, 4 * 4096, PROT_READ, MAP_SHARED, buffer.fd(), 0), MAP_FAILED);
        EXPECT_EQ(errno, EINVAL) << "past the end";
    }
}

TEST_F(CpuMapSystemTest, AMappingIsSharedWithEveryOther) {
    const DmaBuf buffer = udmabuf(4096);
    void* raw = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, buffer.fd(), 0);
    ASSERT_NE(raw, MAP_FAILED);
    {
        const CpuMap mapping = map(buffer, Access::write);
        const CpuAccess access = begin(mapping, Access::write);
        access.bytes()[100] = std::byte{9};
    }
    EXPECT_EQ(static_cast<std::byte*>(raw)[100], std::byte{9});
    munmap(raw, 4096);
    EXPECT_EQ(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, buffer.fd(), 0), MAP_FAILED)
        << "udmabuf gives no private one";
}

TEST_F(CpuMapSystemTest, AReadOnlyFdIsMappedForReadingOnly) {
    SLUICE_REQUIRES(test::has_system_heap(), "/dev/dma_heap/system does not open");
    auto buffer = test::heap_buffer(4096, O_RDONLY);
    ASSERT_TRUE(buffer);
    for (const CpuMapMode mode : {CpuMapMode::quick, CpuMapMode::strict}) {
        const CpuMap mapping = map(*buffer, Access::read, mode);
        const CpuAccess access = begin(mapping, Access::read);
        EXPECT_EQ(protection_of(access.bytes().data()), "r--");
        auto refused = CpuMap::map(*buffer, Access::write, mode);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::no_permission);
        EXPECT_EQ(CpuAccess::begin(mapping, Access::write, deadline_in(1s)).error().code,
                  Errc::invalid_argument);
    }
}

TEST_F(CpuMapSystemTest, AMappingKeepsTheMemoryWithoutItsBuffer) {
    for (DmaBuf& buffer : every_kind(4096)) {
        std::optional<DmaBuf> owner(std::move(buffer));
        const CpuMap mapping = map(*owner, Access::read_write);
        touch(begin(mapping, Access::write).bytes().data());
        owner.reset();
        EXPECT_EQ(begin(mapping, Access::read).bytes()[0], std::byte{1});
    }
}

TEST_F(CpuMapSystemTest, NobodyShrinksTheMemoryBehindAMapping) {
    const UniqueFd memory = test::memfd(8192);
    const DmaBuf buffer = test::udmabuf_of(memory, 8192);
    const CpuMap mapping = map(buffer, Access::read_write);
    Child peer([&] { // whoever made the memory still has it
        if (ftruncate(memory.get(), 4096) == 0 || errno != EPERM)
            return 1;
        if (fallocate(memory.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192) != 0)
            return 2;
        return 0;
    });
    EXPECT_EQ(peer.wait(), 0);
    const CpuAccess access = begin(mapping, Access::read_write);
    touch(&access.bytes().back());
    EXPECT_EQ(access.bytes().back(), std::byte{1});
}

TEST_F(CpuMapSystemTest, StrictMemoryIsOpenInsideAnAccessOnly) {
    for (const DmaBuf& buffer : every_kind(8192)) {
        const CpuMap mapping = map(buffer, Access::read_write, CpuMapMode::strict);
        CpuAccess reader = begin(mapping, Access::read);
        std::byte* memory = reader.bytes().data();
        look(memory + 8191);
        EXPECT_EQ(protection_of(memory), "r--");
        EXPECT_TRUE(reader.end());
        EXPECT_EQ(protection_of(memory), "---");
        CpuAccess writer = begin(mapping, Access::write);
        touch(memory + 8191);
        EXPECT_EQ(protection_of(memory), "rw-");
        EXPECT_TRUE(writer.end());
        EXPECT_EQ(protection_of(memory), "---");
    }
}

TEST_F(CpuMapSystemTest, StrictMemoryStaysClosedWhileFencesArePending) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    const CpuMap mapping = map(buffer, Access::read_write, CpuMapMode::strict);
    const std::byte* memory = begin(mapping, Access::read).bytes().data();
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    EXPECT_FALSE(CpuAccess::begin(mapping, Access::read, deadline_in(5ms)));
    EXPECT_EQ(protection_of(memory), "---");
    timeline.advance(1);
}

TEST_F(CpuMapSystemTest, StrictAccessesNestOverThreads) {
    const CpuMap mapping = map(udmabuf(4096), Access::read_write, CpuMapMode::strict);
    CpuAccess reader = begin(mapping, Access::read);
    std::byte* memory = reader.bytes().data();
    std::jthread([&] {
        CpuAccess writer = begin(mapping, Access::write);
        touch(memory);
        EXPECT_EQ(protection_of(memory), "rw-");
        EXPECT_TRUE(reader.end()); // the other thread's, while ours is open
        touch(memory);
        EXPECT_TRUE(writer.end());
    }).join();
    EXPECT_EQ(protection_of(memory), "---");

    std::vector<std::jthread> threads;
    for (int n = 0; n < 4; ++n)
        threads.emplace_back([&, n] {
            for (int round = 0; round < 50; ++round) {
                CpuAccess access = begin(mapping, n % 2 == 0 ? Access::read : Access::write);
                n % 2 == 0 ? look(memory) : touch(memory);
                EXPECT_TRUE(access.end());
            }
        });
    threads.clear();
    EXPECT_EQ(protection_of(memory), "---");
}

TEST_F(CpuMapSystemTest, StrictAndQuickMappingsAreApart) {
    const DmaBuf buffer = udmabuf(4096);
    const CpuMap strict = map(buffer, Access::read_write, CpuMapMode::strict);
    const CpuMap quick = map(buffer, Access::read_write, CpuMapMode::quick);
    EXPECT_NE(strict, quick);
    EXPECT_EQ(strict, map(buffer, Access::read, CpuMapMode::strict)) << "serves readers as well";
    std::byte* memory = begin(quick, Access::write).bytes().data();
    EXPECT_EQ(protection_of(memory), "rw-");
    EXPECT_EQ(protection_of(begin(strict, Access::read).bytes().data()), "r--");
}

TEST_F(CpuMapSystemDeathTest, AStrayTouchEndsTheProgramAndSaysWhy) {
    for (const DmaBuf& buffer : every_kind(8192)) {
        ASSERT_TRUE(buffer.set_name("guarded"));
        const CpuMap mapping = map(buffer, Access::read_write, CpuMapMode::strict);
        std::byte* memory = begin(mapping, Access::write).bytes().data();
        EXPECT_DEATH(look(memory + 5), "stray read at byte 5 of buffer ino .*/dmabuf:guarded.*no "
                                       "access is open on it, CpuAccess::begin with Access::read");
        const CpuAccess reader = begin(mapping, Access::read);
        look(memory);
        EXPECT_DEATH(touch(memory + 8191), "stray write at byte 8191 of .*only accesses that read");
    }
}

TEST_F(CpuMapSystemTest, AMappingIsOfTheBufferThatItWasAskedFor) {
    const DmaBuf mine = udmabuf(4096);
    const DmaBuf other = udmabuf(4096);
    const DmaBuf stale = std::move(*mine.duplicate());
    ASSERT_EQ(dup3(other.fd(), stale.fd(), O_CLOEXEC), stale.fd());
    auto wrong = CpuMap::map(stale, Access::read);
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().code, Errc::wrong_object);
    EXPECT_NE(wrong.error().problem.find("ino " + std::to_string(other.inode())),
              std::string::npos);
    {
        auto map = CpuMap::map(other, Access::write);
        auto access = CpuAccess::begin(*map, Access::write, deadline_in(1s));
        access->bytes()[0] = std::byte{66};
    }
    auto right = CpuMap::map(mine, Access::read);
    ASSERT_TRUE(right);
    EXPECT_EQ(CpuAccess::begin(*right, Access::read, deadline_in(1s))->bytes()[0], std::byte{0});
}

} // namespace
} // namespace sluice
