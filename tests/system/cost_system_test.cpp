// SPDX-License-Identifier: MIT
// What the operations of a frame cost: system calls, counted by the kernel and held against code
// that does the same by hand, and heap allocations.
#include <array>
#include <cinttypes>
#include <cstdio>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/sync_file.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include <sluice/buffer_lock.hpp>
#include <sluice/cpu_access.hpp>
#include <sluice/dma_buf.hpp>
#include <sluice/implicit_sync.hpp>

#include "support/allocations.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/sw_sync.hpp"
#include "support/syscall_counter.hpp"
#include "support/udmabuf.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::SwSync;
using test::udmabuf;

// What the same takes by hand: plain calls, in the order in which they have to be made.
namespace by_hand {

int ready(int fd, short events, int milliseconds) {
    pollfd entry{.fd = fd, .events = events, .revents = 0};
    return poll(&entry, 1, milliseconds);
}

int export_fence(int buffer, unsigned access) {
    dma_buf_export_sync_file request{.flags = access, .fd = -1};
    EXPECT_EQ(ioctl(buffer, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &request), 0);
    return request.fd;
}

void import_fence(int buffer, int fence, unsigned access) {
    dma_buf_import_sync_file request{.flags = access, .fd = fence};
    EXPECT_EQ(ioctl(buffer, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &request), 0);
}

void sync(int buffer, unsigned long flags) {
    dma_buf_sync request{.flags = flags};
    EXPECT_EQ(ioctl(buffer, DMA_BUF_IOCTL_SYNC, &request), 0);
}

/// The status of the fence, which is the only way to know that it did not fail.
int status(int fence) {
    std::array<sync_fence_info, 8> fences{};
    sync_file_info info{.num_fences = fences.size(),
                        .sync_fence_info = reinterpret_cast<std::uintptr_t>(fences.data())};
    EXPECT_EQ(ioctl(fence, SYNC_IOC_FILE_INFO, &info), 0);
    return info.status;
}

/// What a stranger's fd takes first: a file's filesystem may be a process that never answers.
void look_at(int fd) {
    struct statx status {};
    EXPECT_EQ(statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &status), 0);
    EXPECT_EQ(status.stx_mode & S_IFMT, 0);
}

/// Sleeps, and asks whether what woke it was success.
void wait_fence(int fence) {
    EXPECT_EQ(ready(fence, POLLIN, 10000), 1);
    EXPECT_EQ(status(fence), 1);
}

/// A poll of the buffer alone does not tell that the work failed: that takes its fence. Somebody
/// may have left another one meanwhile, hence the second look.
void wait_buffer(int buffer, short events, unsigned access) {
    while (ready(buffer, events, 0) == 0) {
        const int fence = export_fence(buffer, access);
        wait_fence(fence);
        close(fence);
    }
}

} // namespace by_hand

/// Advances a timeline once this thread sleeps in ppoll(2) or poll(2), neither sooner nor on a
/// guess.
class Waker {
public:
    explicit Waker(const SwSync& timeline)
        : thread_([&timeline, sleeper = gettid()](const std::stop_token& stop) {
              // No iostream: its heap blocks would be counted.
              std::array<char, 64> path{};
              std::snprintf(path.data(), path.size(), "/proc/self/task/%d/syscall", sleeper);
              while (!stop.stop_requested() && !asleep(path.data()))
                  std::this_thread::sleep_for(1ms);
              timeline.advance(1);
          }) {}

private:
    /// The kernel says "running", or the call's number and arguments.
    static bool asleep(const char* path) {
        const UniqueFd file(open(path, O_RDONLY | O_CLOEXEC));
        std::array<char, 16> text{};
        if (read(file.get(), text.data(), text.size() - 1) <= 0)
            return false;
        const long call = std::strtol(text.data(), nullptr, 10);
        return text[0] != 'r' && (call == SYS_ppoll || call == SYS_poll);
    }

    std::jthread thread_;
};

class CostSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        SLUICE_REQUIRES(test::has_udmabuf(), "/dev/udmabuf does not open");
        SLUICE_REQUIRES(SwSync::available(), "no sw_sync in debugfs: no fences to control");
        counter_.emplace();
        SLUICE_REQUIRES(counter_->available(), "the kernel counts no system calls for us (perf)");
    }

    void TearDown() override {
        counter_.reset();
        FdTest::TearDown();
    }

    using Work = std::function<void()>;

    /// Expects of \p ours that it makes \p calls, as \p hand does, and puts nothing on the heap.
    /// Both run twice before, on what \p prepare makes each time.
    void expect_cost(const char* what, std::int64_t calls, const Work& prepare, const Work& ours,
                     const Work& hand) {
        for (int warm_up = 0; warm_up < 2; ++warm_up) {
            prepare();
            ours();
            prepare();
            hand();
        }
        prepare();
        std::size_t allocated = test::allocations();
        const auto made = counter_->count(ours);
        allocated = test::allocations() - allocated;
        prepare();
        const auto made_by_hand = counter_->count(hand);
        std::printf("%-50s %3" PRId64 " calls, %3" PRId64 " by hand\n", what, made, made_by_hand);
        EXPECT_EQ(made, made_by_hand) << what;
        EXPECT_EQ(made, calls) << what;
        EXPECT_EQ(allocated, 0U) << what;
    }

    void expect_cost(const char* what, std::int64_t calls, const Work& ours, const Work& hand) {
        expect_cost(
            what, calls, [] {}, ours, hand);
    }

    std::optional<test::SyscallCounter> counter_;
};

constexpr unsigned reading = DMA_BUF_SYNC_READ;
constexpr unsigned writing = DMA_BUF_SYNC_WRITE;

Deadline soon() {
    return deadline_in(10s);
}

TEST_F(CostSystemTest, TheCounterCounts) {
    EXPECT_EQ(counter_->count([] {}), 0);
    EXPECT_EQ(counter_->count([] {
        for (int i = 0; i < 3; ++i)
            (void)getppid();
    }),
              3);
}

TEST_F(CostSystemTest, FencesInAndOutOfABuffer) {
    const SwSync timeline;
    const SyncFile fence = timeline.fence(1);
    const DmaBuf idle = udmabuf(4096);
    const DmaBuf busy = udmabuf(4096);
    ASSERT_TRUE(busy.import_fence(fence, Access::write));

    for (const DmaBuf* buffer : {&idle, &busy}) {
        expect_cost(
            buffer == &idle ? "export_fence, idle, and its close" : "export_fence, busy", 2,
            [=] { EXPECT_TRUE(buffer->export_fence(Access::write)); },
            [=] { close(by_hand::export_fence(buffer->fd(), writing)); });
        expect_cost(
            buffer == &idle ? "fence_before, idle" : "fence_before, busy", 2,
            [=] { EXPECT_TRUE(fence_before(*buffer, Access::write)); },
            [=] { close(by_hand::export_fence(buffer->fd(), writing)); });
    }
    expect_cost(
        "import_fence", 1, [&] { EXPECT_TRUE(busy.import_fence(fence, Access::read)); },
        [&] { by_hand::import_fence(busy.fd(), fence.fd(), reading); });
    expect_cost(
        "fence_after", 1, [&] { EXPECT_TRUE(fence_after(busy, fence, Access::read, soon())); },
        [&] { by_hand::import_fence(busy.fd(), fence.fd(), reading); });
    expect_cost(
        "lock, fence_before, fence_after, unlock", 3,
        [&] {
            auto lock = BufferLock::acquire(busy, soon());
            EXPECT_TRUE(lock);
            EXPECT_TRUE(fence_before(busy, Access::read));
            EXPECT_TRUE(fence_after(busy, fence, Access::read, soon()));
        },
        [&] {
            close(by_hand::export_fence(busy.fd(), reading));
            by_hand::import_fence(busy.fd(), fence.fd(), reading);
        });
}

TEST_F(CostSystemTest, WaitsForABuffer) {
    const DmaBuf idle = udmabuf(4096);
    expect_cost(
        "DmaBuf::wait, idle", 1, [&] { EXPECT_TRUE(idle.wait(Access::write, soon())); },
        [&] { by_hand::wait_buffer(idle.fd(), POLLOUT, writing); });

    expect_cost(
        "DmaBuf::idle", 1, [&] { EXPECT_TRUE(idle.idle(Access::write).value()); },
        [&] { EXPECT_EQ(by_hand::ready(idle.fd(), POLLOUT, 0), 1); });

    std::optional<SwSync> timeline;
    std::optional<DmaBuf> busy;
    std::optional<Waker> waker;
    expect_cost(
        "DmaBuf::wait, until it is idle", 6,
        [&] {
            waker.reset();
            timeline.emplace();
            busy = udmabuf(4096);
            ASSERT_TRUE(busy->import_fence(timeline->fence(1), Access::write));
            waker.emplace(*timeline);
        },
        [&] { EXPECT_TRUE(busy->wait(Access::read, soon())); },
        [&] { by_hand::wait_buffer(busy->fd(), POLLIN, reading); });
    waker.reset();
}

TEST_F(CostSystemTest, CpuAccesses) {
    const auto access_by_hand = [](std::span<const DmaBuf> buffers) {
        for (const DmaBuf& buffer : buffers) { // START alone would wait without a bound
            by_hand::wait_buffer(buffer.fd(), POLLOUT, writing);
            by_hand::sync(buffer.fd(), DMA_BUF_SYNC_RW | DMA_BUF_SYNC_START);
        }
        for (const DmaBuf& buffer : buffers)
            by_hand::sync(buffer.fd(), DMA_BUF_SYNC_RW | DMA_BUF_SYNC_END);
    };
    const auto access = [](std::span<const CpuMap> maps) {
        auto open = CpuAccess::begin(maps, Access::read_write, soon());
        EXPECT_TRUE(open);
        EXPECT_TRUE(open->end());
    };
    std::vector<DmaBuf> buffers;
    std::vector<CpuMap> maps;
    for (std::size_t i = 0; i < CpuAccess::max_maps; ++i) {
        buffers.push_back(udmabuf(4096));
        maps.push_back(*CpuMap::map(buffers.back(), Access::read_write, CpuMapMode::quick));
    }
    const std::span one(buffers.data(), 1);
    expect_cost(
        "CpuAccess begin and end", 3, [&] { access(std::span(maps).first(1)); },
        [&] { access_by_hand(one); });
    expect_cost(
        "CpuAccess begin and end, four buffers", 12, [&] { access(maps); },
        [&] { access_by_hand(buffers); });
    const std::array planes{maps[0], maps[0]};
    expect_cost(
        "CpuAccess begin and end, two planes of one", 3, [&] { access(planes); },
        [&] { access_by_hand(one); });

    SwSync timeline;
    std::optional<Waker> waker;
    std::uint32_t frame = 0;
    expect_cost(
        "CpuAccess begin, until it is idle, and end", 8,
        [&] {
            waker.reset();
            ASSERT_TRUE(buffers[0].import_fence(timeline.fence(++frame), Access::write));
            waker.emplace(timeline);
        },
        [&] { access(std::span(maps).first(1)); }, [&] { access_by_hand(one); });
    waker.reset();
    expect_cost(
        "CpuMap::map of what is mapped", 0,
        [&] { EXPECT_TRUE(CpuMap::map(buffers[0], Access::read, CpuMapMode::quick)); }, [] {});
}

TEST_F(CostSystemTest, Fences) {
    SwSync timeline;
    const SwSync other;
    const SyncFile a = timeline.fence(1000);
    const SyncFile b = other.fence(1);
    const SwSync ended;
    const SyncFile done = ended.fence(1);
    ended.advance(1);

    expect_cost(
        "SyncFile::status", 1, [&] { EXPECT_TRUE(a.status()); },
        [&] { EXPECT_EQ(by_hand::status(a.fd()), 0); });
    expect_cost(
        "SyncFile::wait, signalled", 2, [&] { EXPECT_TRUE(done.wait(soon())); },
        [&] { by_hand::wait_fence(done.fd()); });
    expect_cost(
        "SyncFile::merge of two, and its close", 4, [&] { EXPECT_TRUE(SyncFile::merge(a, b)); },
        [&] {
            sync_merge_data request{.name = "by hand", .fd2 = b.fd(), .fence = -1};
            EXPECT_EQ(ioctl(a.fd(), SYNC_IOC_MERGE, &request), 0);
            // The kernel forgets a failure that it merges, so both have to be asked.
            EXPECT_EQ(by_hand::status(a.fd()), 0);
            EXPECT_EQ(by_hand::status(b.fd()), 0);
            close(request.fence);
        });
    expect_cost(
        "SyncFile::duplicate, and its close", 2, [&] { EXPECT_TRUE(a.duplicate()); },
        [&] { close(fcntl(a.fd(), F_DUPFD_CLOEXEC, 0)); });

    UniqueFd fd;
    const auto prepare = [&] { fd = std::move(*UniqueFd::duplicate(a.fd())); };
    expect_cost(
        "SyncFile::from_fd, and its close", 3, prepare,
        [&] { EXPECT_TRUE(SyncFile::from_fd(std::move(fd))); },
        [&] {
            by_hand::look_at(fd.get());
            EXPECT_EQ(by_hand::status(fd.get()), 0);
            close(fd.release());
        });

    std::optional<SyncFile> fence;
    std::optional<Waker> waker;
    std::uint32_t frame = 0;
    expect_cost(
        "SyncFile::wait, until it signals", 2,
        [&] {
            waker.reset();
            fence = timeline.fence(++frame);
            waker.emplace(timeline);
        },
        [&] { EXPECT_TRUE(fence->wait(soon())); }, [&] { by_hand::wait_fence(fence->fd()); });
    waker.reset();
}

TEST_F(CostSystemTest, BuffersAndLocks) {
    const DmaBuf buffer = udmabuf(4096);
    const DmaBuf second = udmabuf(4096);
    UniqueFd fd;
    expect_cost(
        "DmaBuf::from_fd, and its close", 3,
        [&] { fd = std::move(*UniqueFd::duplicate(buffer.fd())); },
        [&] { EXPECT_TRUE(DmaBuf::from_fd(std::move(fd))); },
        [&] {
            by_hand::look_at(fd.get()); // the filesystem is known by its number
            EXPECT_EQ(fcntl(fd.get(), F_GETFL) & O_PATH, 0);
            close(fd.release());
        });
    expect_cost(
        "DmaBuf::duplicate, and its close", 2, [&] { EXPECT_TRUE(buffer.duplicate()); },
        [&] { close(fcntl(buffer.fd(), F_DUPFD_CLOEXEC, 0)); });
    expect_cost(
        "BufferLock::acquire and release of two", 0,
        [&] {
            const std::array both{&buffer, &second};
            EXPECT_TRUE(BufferLock::acquire(both, soon()));
        },
        [] {});
}

} // namespace
} // namespace sluice
