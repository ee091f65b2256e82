// SPDX-License-Identifier: MIT
#include <sluice/buffer_lock.hpp>

#include <array>
#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "support/asleep.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

using namespace std::chrono_literals;

class BufferLockTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc.memfds_are_dma_bufs();
    }

    static DmaBuf buffer() { return std::move(*DmaBuf::from_fd(test::memfd(4096))); }

    /// Whether another thread could take \p buffer at once.
    static bool free(const DmaBuf& buffer) {
        bool got = false;
        std::jthread([&] {
            got = BufferLock::acquire(buffer, deadline_in(0s)).has_value();
        }).join();
        return got;
    }

    test::ScriptedLibc libc;
};

TEST_F(BufferLockTest, HoldsABufferByItsIdentityUntilItGoes) {
    const DmaBuf a = buffer();
    const DmaBuf same = std::move(*a.duplicate());
    const DmaBuf other = buffer();
    {
        auto lock = BufferLock::acquire(a, deadline_in(1s));
        ASSERT_TRUE(lock);
        EXPECT_FALSE(free(a));
        EXPECT_FALSE(free(same));
        EXPECT_TRUE(free(other));
    }
    EXPECT_TRUE(free(a));
}

TEST_F(BufferLockTest, SaysWhoWasWaitedFor) {
    const DmaBuf a = buffer();
    auto lock = BufferLock::acquire(a, deadline_in(1s));
    std::jthread([&] {
        const auto start = Deadline::clock::now();
        auto refused = BufferLock::acquire(a, deadline_in(20ms));
        EXPECT_GE(Deadline::clock::now() - start, 20ms);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::timed_out);
        EXPECT_NE(refused.error().object.find("ino " + std::to_string(a.inode())),
                  std::string::npos);
    }).join();
}

TEST_F(BufferLockTest, AThreadThatHoldsABufferIsNotLeftWaitingForItself) {
    const DmaBuf a = buffer();
    auto lock = BufferLock::acquire(a, deadline_in(1s));
    auto again = BufferLock::acquire(a, deadline_in(10s));
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().code, Errc::busy);
    lock->release();
    EXPECT_TRUE(BufferLock::acquire(a, deadline_in(0s)));
}

TEST_F(BufferLockTest, AThreadIsNotTakenForAnEarlierOneOfTheSameId) {
    const DmaBuf a = buffer();
    std::optional<BufferLock> kept;
    std::thread::id first;
    std::jthread([&] {
        first = std::this_thread::get_id();
        kept = std::move(*BufferLock::acquire(a, deadline_in(1s)));
    }).join();
    bool reused = false; // glibc gives the next thread the stack of the last one, and so its id
    for (int i = 0; i < 100 && !reused; ++i)
        std::jthread([&] {
            reused = std::this_thread::get_id() == first;
            EXPECT_EQ(BufferLock::acquire(a, deadline_in(0s)).error().code, Errc::timed_out);
        }).join();
    EXPECT_TRUE(reused);
    kept.reset();
    EXPECT_TRUE(free(a)) << "whoever has it may release it";
}

TEST_F(BufferLockTest, WhoeverWaitsIsNotPassedByThoseWhoCameLater) {
    const DmaBuf a = buffer();
    const DmaBuf b = buffer();
    const DmaBuf c = buffer();
    auto lock = BufferLock::acquire(a, deadline_in(1s));
    std::atomic<pid_t> waiter = 0;
    std::atomic<bool> got = false;
    std::jthread both([&] {
        waiter = test::this_thread();
        const std::array pair{&a, &b};
        auto taken = BufferLock::acquire(pair, deadline_in(30s));
        EXPECT_TRUE(taken) << taken.error().message();
        got = true;
    });
    while (waiter == 0)
        std::this_thread::yield();
    test::until_it_sleeps_in(SYS_futex, waiter);
    EXPECT_FALSE(free(b)) << "it is the waiter's next";
    EXPECT_TRUE(free(c));
    EXPECT_TRUE(BufferLock::acquire(b, deadline_in(0s))) << "the waiter waits for this thread";
    EXPECT_FALSE(got);
    lock->release();
    both.join();
    EXPECT_TRUE(free(b));
}

TEST_F(BufferLockTest, WhoeverGivesUpLetsThoseBehindGoOn) {
    const DmaBuf a = buffer();
    const DmaBuf b = buffer();
    auto lock = BufferLock::acquire(a, deadline_in(1s));
    std::atomic<pid_t> waiter = 0;
    std::jthread both([&] {
        waiter = test::this_thread();
        const std::array pair{&a, &b};
        EXPECT_FALSE(BufferLock::acquire(pair, deadline_in(200ms)));
    });
    while (waiter == 0)
        std::this_thread::yield();
    test::until_it_sleeps_in(SYS_futex, waiter);
    std::jthread([&] { EXPECT_TRUE(BufferLock::acquire(b, deadline_in(10s))); }).join();
}

TEST_F(BufferLockTest, TakesAFramesBuffersAsTheyLie) {
    const std::array buffers{buffer(), buffer()};
    auto lock = BufferLock::acquire(buffers, deadline_in(1s));
    ASSERT_TRUE(lock);
    EXPECT_FALSE(free(buffers[0]));
    EXPECT_FALSE(free(buffers[1]));
}

TEST_F(BufferLockTest, TakesAllOrNone) {
    const DmaBuf a = buffer();
    const DmaBuf b = buffer();
    const DmaBuf same = std::move(*b.duplicate());
    const std::array both{&a, &b, &same};
    {
        auto lock = BufferLock::acquire(both, deadline_in(1s));
        ASSERT_TRUE(lock);
        EXPECT_FALSE(free(a));
        EXPECT_FALSE(free(b));
    }
    auto holds_b = BufferLock::acquire(b, deadline_in(1s));
    std::jthread([&] { EXPECT_FALSE(BufferLock::acquire(both, deadline_in(1ms))); }).join();
    EXPECT_TRUE(free(a)) << "what was not taken as a whole is not held";
}

TEST_F(BufferLockTest, MovingKeepsOrReplacesWhatIsHeld) {
    const DmaBuf a = buffer();
    const DmaBuf b = buffer();
    auto first = BufferLock::acquire(a, deadline_in(1s));
    auto second = BufferLock::acquire(b, deadline_in(1s));
    ASSERT_TRUE(first && second);
    *first = std::move(*second);
    EXPECT_TRUE(free(a));
    EXPECT_FALSE(free(b));
    std::optional<BufferLock> third(std::move(*first));
    EXPECT_FALSE(free(b));
    third.reset();
    EXPECT_TRUE(free(b));
}

TEST_F(BufferLockTest, AWaiterGetsItAsSoonAsItIsFree) {
    const DmaBuf a = buffer();
    auto lock = BufferLock::acquire(a, deadline_in(1s));
    std::atomic<bool> waiting = false;
    std::jthread waiter([&] {
        waiting = true;
        EXPECT_TRUE(BufferLock::acquire(a, Deadline::max()));
    });
    while (!waiting)
        std::this_thread::yield();
    std::this_thread::sleep_for(5ms);
    lock->release();
}

TEST_F(BufferLockTest, ThreadsThatWantTheSameBuffersInAnyOrderTakeTurns) {
    const std::array buffers{buffer(), buffer(), buffer()};
    std::array<int, 3> uses{}; // a data race here is what the lock is against
    std::vector<std::jthread> threads;
    constexpr int rounds = 500;
    for (std::size_t thread = 0; thread < 4; ++thread)
        threads.emplace_back([&, thread] {
            for (std::size_t round = 0; round < rounds; ++round) {
                const std::size_t i = (thread + round) % 3;
                const std::size_t j = (i + 1 + thread % 2) % 3;
                const std::array pair{&buffers[i], &buffers[j]};
                auto lock = BufferLock::acquire(pair, deadline_in(60s));
                ASSERT_TRUE(lock) << lock.error().message();
                ++uses[i];
                ++uses[j];
            }
        });
    threads.clear();
    EXPECT_EQ(uses[0] + uses[1] + uses[2], 2 * 4 * rounds);
}

} // namespace
} // namespace sluice
