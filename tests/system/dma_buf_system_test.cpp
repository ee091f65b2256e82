// SPDX-License-Identifier: MIT
// What a dma-buf is: identity, size, name, mode, holds; and fds that are none.
#include <sluice/dma_buf.hpp>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <sluice/cpu_map.hpp>
#include <sluice/implicit_sync.hpp>

#include "support/dma_heap.hpp"
#include "support/fd_limit.hpp"
#include "support/memfd.hpp"
#include "support/real_kernel.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::accesses;
using test::SwSync;
using test::udmabuf;

using DmaBufSystemTest = test::RealKernelTest;

/// The buffer's /proc/self/fd link.
std::string link_of(const DmaBuf& buffer) {
    return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(buffer.fd()));
}

UniqueFd open_path(const std::string& path, int flags) {
    return UniqueFd(open(path.c_str(), flags | O_CLOEXEC));
}

TEST_F(DmaBufSystemTest, RecognisesARealOneByItsFilesystem) {
    const DmaBuf buffer = udmabuf(8192);
    EXPECT_EQ(buffer.size(), 8192U);
    EXPECT_EQ(lseek(buffer.fd(), 0, SEEK_END), 8192) << "the kernel's other way to tell the size";
    auto borrowed = DmaBuf::from_borrowed_fd(buffer.fd());
    ASSERT_TRUE(borrowed) << borrowed.error().message();
    EXPECT_TRUE(same_buffer(buffer, *borrowed));
    EXPECT_FALSE(same_buffer(buffer, udmabuf(8192)));
}

TEST_F(DmaBufSystemTest, RefusesEveryOtherKindOfFd) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    std::vector<std::pair<std::string, UniqueFd>> others;
    others.emplace_back("sync_file", std::move(*UniqueFd::duplicate(fence.fd())));
    others.emplace_back("timeline", std::move(*UniqueFd::duplicate(timeline.fd())));
    others.emplace_back("memfd", test::memfd(4096));
    others.emplace_back("eventfd", UniqueFd(eventfd(0, EFD_CLOEXEC)));
    others.emplace_back("epoll", UniqueFd(epoll_create1(EPOLL_CLOEXEC)));
    others.emplace_back("timerfd", UniqueFd(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)));
    others.emplace_back("socket", UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    others.emplace_back("folder", open_path("/", O_RDONLY | O_DIRECTORY));
    others.emplace_back("/dev/null", open_path("/dev/null", O_RDWR));
    others.emplace_back("/dev/udmabuf", open_path("/dev/udmabuf", O_RDWR));
    if (test::has_system_heap())
        others.emplace_back(test::system_heap, open_path(test::system_heap, O_RDONLY));
    std::error_code none;
    for (const auto& node : std::filesystem::directory_iterator("/dev/dri", none))
        if (node.is_character_file())
            others.emplace_back(node.path(), open_path(node.path(), O_RDWR));
    for (auto& [what, fd] : others) {
        ASSERT_TRUE(fd) << what;
        const int number = fd.get();
        auto refused = DmaBuf::from_fd(std::move(fd));
        ASSERT_FALSE(refused) << what;
        EXPECT_EQ(refused.error().code, Errc::wrong_object) << what;
        EXPECT_NE(refused.error().object.find("fd " + std::to_string(number) + " ('"),
                  std::string::npos)
            << refused.error().message();
        EXPECT_EQ(fd.get(), number) << what << " stays the caller's";
        EXPECT_EQ(DmaBuf::from_borrowed_fd(number).error().code, Errc::wrong_object) << what;
    }
}

TEST_F(DmaBufSystemTest, EveryBufferHasItsOwnIdentityWhileItLives) {
    std::vector<DmaBuf> buffers;
    std::set<std::uint64_t> identities;
    for (int n = 0; n < 64; ++n) {
        buffers.push_back(udmabuf(4096));
        identities.insert(buffers.back().inode());
        EXPECT_EQ(buffers.back().duplicate()->inode(), buffers.back().inode());
    }
    EXPECT_EQ(identities.size(), buffers.size());
}

TEST_F(DmaBufSystemTest, HasNoFileOperationsButItsOwn) {
    const DmaBuf buffer = udmabuf(8192);
    char byte = 0;
    const auto refused = [](auto result) { return result == -1 && errno == EINVAL; };
    EXPECT_TRUE(refused(read(buffer.fd(), &byte, 1)));
    EXPECT_TRUE(refused(write(buffer.fd(), &byte, 1)));
    EXPECT_TRUE(refused(ftruncate(buffer.fd(), 4096)));
    EXPECT_TRUE(refused(fsync(buffer.fd())));
    EXPECT_EQ(lseek(buffer.fd(), 0, SEEK_SET), 0);
    EXPECT_TRUE(refused(lseek(buffer.fd(), 1, SEEK_SET)));
    EXPECT_TRUE(refused(lseek(buffer.fd(), -1, SEEK_END)));
    EXPECT_TRUE(refused(lseek(buffer.fd(), 0, SEEK_CUR)));
    EXPECT_EQ(buffer.size(), 8192U);
}

TEST_F(DmaBufSystemTest, WhatSluiceOpensIsClosedOnExec) {
    const auto closed_on_exec = [](int fd) { return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; };
    SwSync timeline;
    SwSync other;
    const DmaBuf buffer = udmabuf(4096);
    EXPECT_TRUE(closed_on_exec(buffer.duplicate()->fd()));
    EXPECT_TRUE(closed_on_exec(DmaBuf::from_borrowed_fd(buffer.fd())->fd()));
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    auto fence = buffer.export_fence(Access::read);
    ASSERT_TRUE(fence);
    EXPECT_TRUE(closed_on_exec(fence->fd()));
    EXPECT_TRUE(closed_on_exec(fence->duplicate()->fd()));
    EXPECT_TRUE(closed_on_exec(SyncFile::merge(*fence, other.fence(1))->fd()));
    EXPECT_TRUE(closed_on_exec(fence_before(buffer, Access::write)->fd()));
    auto map = CpuMap::map(buffer, Access::read);
    for (const auto& [number, what] : test::open_fds())
        if (what.starts_with("/dmabuf:")) {
            EXPECT_TRUE(closed_on_exec(std::stoi(number))) << "the mapping's own fd " << number;
        }
}

TEST_F(DmaBufSystemTest, InfoTellsTheExporterAndEveryHold) {
    const DmaBuf buffer = udmabuf(4096);
    const auto references = [&] { return buffer.info()->references; };
    auto info = buffer.info();
    ASSERT_TRUE(info) << info.error().message();
    EXPECT_EQ(info->exporter, "udmabuf");
    EXPECT_EQ(info->name, "");
    EXPECT_EQ(info->references, 1U);
    {
        auto copy = buffer.duplicate();
        EXPECT_EQ(references(), 2U);
        auto map = CpuMap::map(buffer, Access::read);
        EXPECT_EQ(references(), 4U) << "a mapping and the fd that it keeps";
    }
    EXPECT_EQ(references(), 1U);
    void* mapped = mmap(nullptr, 4096, PROT_READ, MAP_SHARED, buffer.fd(), 0);
    ASSERT_NE(mapped, MAP_FAILED);
    EXPECT_EQ(references(), 2U) << "a mapping keeps a buffer alive without any fd";
    munmap(mapped, 4096);
    if (test::has_system_heap()) {
        EXPECT_EQ(test::heap_buffer(4096)->info()->exporter, "system");
    }
}

TEST_F(DmaBufSystemTest, APendingPollHoldsTheBuffer) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    EXPECT_EQ(test::polled(buffer.fd(), POLLIN | POLLOUT), 0);
    EXPECT_EQ(test::polled(buffer.fd(), POLLIN | POLLOUT), 0);
    EXPECT_EQ(buffer.info()->references, 3U) << "one for each direction, however often polled";
    timeline.advance(1);
    EXPECT_EQ(buffer.info()->references, 1U);
}

TEST_F(DmaBufSystemTest, NamesAreTheBuffersOwn) {
    const DmaBuf buffer = udmabuf(4096);
    const DmaBuf same = std::move(*DmaBuf::from_borrowed_fd(buffer.fd()));
    const auto name = [&] { return buffer.info()->name; };
    const std::string longest(31, 'n');
    ASSERT_TRUE(buffer.set_name("cam-0"));
    EXPECT_EQ(name(), "cam-0");
    EXPECT_EQ(link_of(buffer), "/dmabuf:cam-0");
    ASSERT_TRUE(same.set_name(longest));
    EXPECT_EQ(name(), longest) << "every holder may name it";
    ASSERT_TRUE(buffer.set_name(std::string(40, 'm')));
    EXPECT_EQ(name(), std::string(31, 'm')) << "cut to what the kernel takes";
    ASSERT_TRUE(buffer.set_name("two\nlines\ncount:\t9\nexp_name:\tme"));
    EXPECT_EQ(name(), "two\nlines\ncount:\t9\nexp_name:\tme");
    EXPECT_EQ(buffer.info()->exporter, "udmabuf");
    EXPECT_EQ(buffer.info()->references, 2U);
    ASSERT_TRUE(buffer.set_name(""));
    EXPECT_EQ(name(), "");
    EXPECT_EQ(link_of(buffer), "/dmabuf:");
}

TEST_F(DmaBufSystemTest, TheKernelItselfRefusesTheNamesThatSluiceCuts) {
    const DmaBuf buffer = udmabuf(4096);
    std::string name(32, 'n');
    EXPECT_EQ(ioctl(buffer.fd(), DMA_BUF_SET_NAME_B, name.data()), -1);
    EXPECT_EQ(errno, EINVAL);
    EXPECT_TRUE(buffer.set_name(name));
}

TEST_F(DmaBufSystemTest, ModeIsWhatTheExporterGaveOut) {
    EXPECT_EQ(udmabuf(4096).mode(), Access::read_write);
    SLUICE_REQUIRES(test::has_system_heap(), "/dev/dma_heap/system does not open");
    EXPECT_EQ(test::heap_buffer(4096, O_RDWR)->mode(), Access::read_write);
    auto read_only = test::heap_buffer(4096, O_RDONLY);
    ASSERT_TRUE(read_only);
    EXPECT_EQ(read_only->mode(), Access::read);
    EXPECT_EQ(read_only->duplicate()->mode(), Access::read);
    SwSync timeline;
    EXPECT_TRUE(read_only->import_fence(timeline.fence(1), Access::write))
        << "fences are no matter of the mode";
}

TEST_F(DmaBufSystemTest, HeapLengthsRoundUpToPages) {
    SLUICE_REQUIRES(test::has_system_heap(), "/dev/dma_heap/system does not open");
    EXPECT_EQ(test::heap_buffer(1)->size(), 4096U);
    EXPECT_EQ(test::heap_buffer(4097)->size(), 8192U);
    EXPECT_FALSE(test::heap_buffer(0));
}

TEST_F(DmaBufSystemTest, AFdClosedBehindItsBackIsToldByEveryCall) {
    SwSync timeline;
    DmaBuf buffer = udmabuf(4096);
    UniqueFd stand_in(open("/dev/null", O_RDONLY | O_CLOEXEC));
    const int number = buffer.fd();
    close(number);
    for (const Access access : accesses) {
        EXPECT_EQ(buffer.export_fence(access).error().code, Errc::wrong_object);
        EXPECT_EQ(buffer.import_fence(timeline.fence(1), access).error().code, Errc::wrong_object);
        EXPECT_EQ(buffer.wait(access, deadline_in(5s)).error().code, Errc::wrong_object);
        EXPECT_EQ(fence_before(buffer, access).error().code, Errc::wrong_object);
    }
    EXPECT_EQ(buffer.duplicate().error().code, Errc::wrong_object);
    EXPECT_EQ(buffer.set_name("x").error().code, Errc::wrong_object);
    EXPECT_EQ(CpuMap::map(buffer, Access::read).error().code, Errc::wrong_object);
    EXPECT_EQ(buffer.info().error().code, Errc::wrong_object);
    EXPECT_NE(buffer.info().error().message().find("closed"), std::string::npos);
    ASSERT_EQ(dup2(stand_in.get(), number), number); // for the destructor to close
}

TEST_F(DmaBufSystemTest, ANumberThatAnotherBufferTookIsNoIdentity) {
    const DmaBuf kept = udmabuf(4096);
    const DmaBuf stale = std::move(*kept.duplicate());
    const DmaBuf other = udmabuf(8192);
    ASSERT_EQ(dup3(other.fd(), stale.fd(), O_CLOEXEC), stale.fd());
    EXPECT_TRUE(same_buffer(stale, kept));
    EXPECT_FALSE(same_buffer(stale, other));
    auto adopted = DmaBuf::from_borrowed_fd(stale.fd());
    ASSERT_TRUE(adopted);
    EXPECT_TRUE(same_buffer(*adopted, other)) << "whoever asks the number anew is told the truth";
    EXPECT_EQ(adopted->size(), 8192U);
}

TEST_F(DmaBufSystemTest, ANumberThatAnotherKindOfObjectTookIsRefused) {
    SwSync timeline;
    const DmaBuf stale = udmabuf(4096);
    const UniqueFd event(eventfd(0, EFD_CLOEXEC));
    ASSERT_EQ(dup3(event.get(), stale.fd(), O_CLOEXEC), stale.fd());
    for (const Access access : accesses) {
        auto exported = stale.export_fence(access);
        ASSERT_FALSE(exported);
        EXPECT_NE(exported.error().message().find("eventfd"), std::string::npos)
            << exported.error().message();
        EXPECT_FALSE(stale.import_fence(timeline.fence(1), access));
    }
    EXPECT_EQ(DmaBuf::from_borrowed_fd(stale.fd()).error().code, Errc::wrong_object);
    EXPECT_FALSE(stale.info());
    EXPECT_FALSE(stale.set_name("x"));
    EXPECT_FALSE(CpuMap::map(stale, Access::read));
}

TEST_F(DmaBufSystemTest, ACloseThatRacesExportAndImportLeavesNothingBehind) {
    SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    const DmaBuf kept = udmabuf(4096);
    const DmaBuf raced = std::move(*kept.duplicate());
    const UniqueFd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
    std::atomic<bool> done = false;
    std::jthread closer([&] {
        while (!done) {
            dup3(null.get(), raced.fd(), O_CLOEXEC);
            std::this_thread::yield();
            dup3(kept.fd(), raced.fd(), O_CLOEXEC);
            std::this_thread::yield();
        }
    });
    int exported = 0;
    int refused = 0;
    for (int n = 0; n < 100000 && (n < 500 || exported == 0 || refused == 0); ++n) {
        auto before = raced.export_fence(Access::write);
        before ? ++exported : ++refused;
        if (before) {
            EXPECT_TRUE(before->status());
        }
        (void)raced.import_fence(fence, Access::read);
    }
    done = true;
    closer.join();
    EXPECT_GT(exported, 0);
    EXPECT_GT(refused, 0);
    timeline.advance(1);
    EXPECT_TRUE(kept.wait(Access::write, deadline_in(5s)));
}

TEST_F(DmaBufSystemTest, AFdThatNamesABufferButDoesNotOpenItIsOfNoUse) {
    const DmaBuf buffer = udmabuf(4096);
    auto path = open_path("/proc/self/fd/" + std::to_string(buffer.fd()), O_PATH);
    ASSERT_TRUE(path);
    auto adopted = DmaBuf::from_fd(std::move(path)); // a peer may send one
    ASSERT_FALSE(adopted);
    EXPECT_EQ(adopted.error().code, Errc::wrong_object);
    EXPECT_NE(adopted.error().problem.find("O_PATH"), std::string::npos);
}

TEST_F(DmaBufSystemTest, WithNoFdLeftNothingIsTakenAndNothingChanges) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    {
        const test::FdLimit none_left;
        EXPECT_EQ(buffer.duplicate().error().code, Errc::no_resources);
        EXPECT_EQ(DmaBuf::from_borrowed_fd(buffer.fd()).error().code, Errc::no_resources);
        EXPECT_EQ(buffer.export_fence(Access::read).error().code, Errc::no_resources);
        EXPECT_EQ(buffer.wait(Access::read, deadline_in(5s)).error().code, Errc::no_resources);
        EXPECT_EQ(fence_before(buffer, Access::read).error().code, Errc::no_resources);
        EXPECT_EQ(CpuMap::map(buffer, Access::read).error().code, Errc::no_resources);
    }
    auto fence = buffer.export_fence(Access::read);
    EXPECT_EQ(test::state_of(fence), FenceState::pending);
    timeline.advance(1);
    EXPECT_TRUE(fence->wait(deadline_in(5s)));
}

TEST_F(DmaBufSystemTest, AMessageIsOneLineWhateverTheName) {
    SwSync timeline;
    const DmaBuf buffer = udmabuf(4096);
    ASSERT_TRUE(buffer.set_name("x')\nsluice: all is well"));
    ASSERT_TRUE(buffer.import_fence(timeline.fence(1), Access::write));
    const std::string text = buffer.wait(Access::read, deadline_in(0s)).error().message();
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_NE(text.find("x')?sluice"), std::string::npos) << text;
}

} // namespace
} // namespace sluice
