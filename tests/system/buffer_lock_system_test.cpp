// SPDX-License-Identifier: MIT
// What a lock over export, submit and import is for, with real fences and work that runs on.
#include <sluice/buffer_lock.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include <sluice/implicit_sync.hpp>

#include "support/real_kernel.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;
using test::SwSync;
using test::udmabuf;

using BufferLockSystemTest = test::RealKernelTest;

/// Two threads that hand one buffer to each other, each with work that writes into it. The work
/// runs after the lock is gone: it waits for what was exported, uses the buffer, and signals.
struct Contest {
    bool locked = true;
    std::uint32_t rounds = 500;
    std::function<void()> between = [] {}; ///< After the export, before the import.
    /// While the work uses the buffer: long enough for the other thread to get at its fence.
    std::function<void()> at_work = [] { std::this_thread::sleep_for(20us); };

    std::atomic<int> overlaps = 0; ///< Works that found the other one's at work.
    std::atomic<int> followed = 0; ///< Exports while the other's last fence was pending...
    std::atomic<int> missed = 0;   ///< ... which was not in them.

    void run(const DmaBuf& left, const DmaBuf& right) {
        std::jthread other([&] { take_part(1, right); });
        take_part(0, left);
    }

private:
    static constexpr std::array names{"left-work", "right-work"};
    std::array<SwSync, 2> timelines_{SwSync(names[0]), SwSync(names[1])};
    std::mutex last_lock_;
    std::array<std::optional<SyncFile>, 2> last_; // what each has imported last
    std::atomic<bool> in_use_ = false;
    std::barrier<> both_are_here_{2};

    void take_part(std::size_t self, const DmaBuf& buffer) {
        both_are_here_.arrive_and_wait();
        for (std::uint32_t round = 1; round <= rounds; ++round) {
            std::optional<BufferLock> lock;
            if (locked) {
                auto acquired = BufferLock::acquire(buffer, deadline_in(60s));
                ASSERT_TRUE(acquired) << acquired.error().message();
                lock.emplace(std::move(*acquired));
            }
            auto before = fence_before(buffer, Access::write);
            ASSERT_TRUE(before) << before.error().message();
            look_for_the_other(self, *before->sync_file());
            between();
            const SyncFile mine = timelines_[self].fence(round);
            ASSERT_TRUE(fence_after(buffer, mine, Access::write, deadline_in(0s)));
            {
                const std::scoped_lock held(last_lock_);
                last_[self] = std::move(*mine.duplicate());
            }
            lock.reset();

            ASSERT_TRUE(before->wait(deadline_in(60s)));
            overlaps += in_use_.exchange(true) ? 1 : 0;
            at_work();
            in_use_ = false;
            timelines_[self].advance(1);
        }
    }

    void look_for_the_other(std::size_t self, const SyncFile& exported) {
        const std::size_t other = 1 - self;
        const auto inside = exported.fences(); // before the other one is asked, which may signal
        ASSERT_TRUE(inside);
        const std::scoped_lock held(last_lock_);
        if (!last_[other] || test::state_of(*last_[other]) != FenceState::pending)
            return;
        ++followed;
        missed += std::ranges::any_of(*inside,
                                      [&](const FenceInfo& fence) {
                                          return fence.timeline == names[other] &&
                                                 fence.status.state == FenceState::pending;
                                      })
                      ? 0
                      : 1;
    }
};

TEST_F(BufferLockSystemTest, WorkUnderTheLockNeverOverlaps) {
    const DmaBuf buffer = udmabuf(4096);
    Contest contest;
    contest.run(buffer, buffer);
    EXPECT_EQ(contest.overlaps, 0);
    EXPECT_EQ(contest.missed, 0);
    EXPECT_GT(contest.followed, 0) << "they never met";
    EXPECT_TRUE(buffer.wait(Access::write, deadline_in(5s)));
}

TEST_F(BufferLockSystemTest, TheLockIsTheBuffersNotTheFds) {
    const DmaBuf buffer = udmabuf(4096);
    const DmaBuf same = std::move(*DmaBuf::from_borrowed_fd(buffer.fd()));
    Contest contest;
    contest.between = [] { std::this_thread::yield(); };
    contest.run(buffer, same);
    EXPECT_EQ(contest.overlaps, 0);
    EXPECT_EQ(contest.missed, 0);
    EXPECT_GT(contest.followed, 0) << "they never met";
}

TEST_F(BufferLockSystemTest, WithoutTheLockWorkDoesOverlap) {
    std::barrier<> step(2);
    Contest contest;
    contest.locked = false;
    contest.rounds = 5;
    contest.between = [&] { step.arrive_and_wait(); };
    contest.at_work = [&] { step.arrive_and_wait(); };
    const DmaBuf buffer = udmabuf(4096);
    contest.run(buffer, buffer);
    EXPECT_EQ(contest.overlaps, 5) << "the contest would not notice a lock that does nothing";
}

} // namespace
} // namespace sluice
