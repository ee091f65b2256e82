// SPDX-License-Identifier: MIT
// What the layer writes of submissions and dma-bufs, as Chrome and Perfetto read it.
#include "trace.hpp"
#include "trace_writer.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vulkan/vk_layer.h>

#include "core/sync_file_adopt.hpp"
#include "layer/application.hpp"
#include "support/allocations.hpp"
#include "support/child.hpp"
#include "support/fake_reservations.hpp"
#include "support/fake_sync_file.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

extern "C" VkResult vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* version);

namespace sluice::test {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::json;
using layer::DeviceTrace;
using layer::QueueTrace;
using layer::SubmissionTrace;
using layer::Trace;
using layer::TraceRecord;
using layer::TraceWriter;

std::string contents(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator(file), {}};
}

/// As readers of traces take it: the closing bracket may be missing. None as long as nothing is
/// there.
Json events_so_far(const std::string& path) {
    const std::string text = contents(path);
    return text.empty() ? Json::array() : Json::parse(text + "]", nullptr, false);
}

/// A slice, put together of its two events as Perfetto does it.
struct Slice {
    std::string name, track;
    double begin = 0, end = 0; // microseconds
    Json args;

    [[nodiscard]] double stall() const { return args.at("stall_us"); }
    [[nodiscard]] bool in(const Slice& other) const {
        return track == other.track && begin >= other.begin && end <= other.end;
    }
};

/// A whole trace.
class Events {
public:
    explicit Events(const std::string& path) : all_(Json::parse(contents(path))) {
        for (const Json& each : all_)
            if (each.at("ph") == "M" && each.at("name") == "thread_name")
                tracks_[each.at("tid")] = each.at("args").at("name");
        Json sorted = all_;
        std::erase_if(sorted.get_ref<Json::array_t&>(),
                      [](const Json& each) { return each.at("ph") == "M"; });
        std::ranges::stable_sort(sorted.get_ref<Json::array_t&>(), std::less(),
                                 [](const Json& each) { return each.at("ts").get<double>(); });
        std::map<int, std::vector<Slice>> open;
        for (const Json& each : sorted) {
            const int thread = each.at("tid");
            if (each.at("ph") == "B")
                open[thread].push_back({.name = each.at("name"),
                                        .track = track(each),
                                        .begin = each.at("ts"),
                                        .args = each.at("args")});
            if (each.at("ph") != "E")
                continue;
            auto& stack = open[thread];
            if (stack.empty() || stack.back().name != each.at("name")) {
                ADD_FAILURE() << "slices that overlap without nesting: " << each;
                continue;
            }
            stack.back().end = each.at("ts");
            stack.back().args.update(each.at("args"));
            slices_.push_back(std::move(stack.back()));
            stack.pop_back();
        }
        for (const auto& [thread, stack] : open)
            EXPECT_TRUE(stack.empty()) << stack.back().name << " has no end";
    }

    [[nodiscard]] std::string track(const Json& event) const {
        const auto found = tracks_.find(event.at("tid"));
        return found == tracks_.end() ? "" : found->second;
    }
    [[nodiscard]] std::vector<std::string> tracks() const {
        std::vector<std::string> names;
        for (const auto& [thread, name] : tracks_)
            names.push_back(name);
        std::ranges::sort(names);
        return names;
    }
    /// Those that are no slices.
    [[nodiscard]] std::vector<Json> named(const std::string& name, const std::string& phase) const {
        std::vector<Json> found;
        for (const Json& each : all_)
            if (each.at("name") == name && each.at("ph") == phase)
                found.push_back(each);
        return found;
    }
    /// In the order in which they ended. A track has further rows, "(2)", where slices overlap.
    [[nodiscard]] std::vector<Slice> slices(const std::string& name,
                                            const std::string& track = "") const {
        std::vector<Slice> found;
        for (const Slice& each : slices_)
            if (each.name == name &&
                (track.empty() || each.track == track || each.track.starts_with(track + " (")))
                found.push_back(each);
        return found;
    }

private:
    Json all_;
    std::map<int, std::string> tracks_;
    std::vector<Slice> slices_;
};

double us(Deadline time) {
    return std::chrono::duration<double, std::micro>(time.time_since_epoch()).count();
}

/// A file of its own, with sync_files and dma-bufs that are memfds.
class TraceTest : public FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        static int tests = 0; // a process keeps its traces by name
        folder = std::filesystem::temp_directory_path() /
                 ("sluice-trace-" + std::to_string(getpid()) + "-" + std::to_string(++tests));
        std::filesystem::create_directories(folder);
        file = folder / "trace.json";
        libc.emplace();
        libc->memfds_are_dma_bufs();
        fake_sync_files(*libc);
        libc->ioctl = [this, others = libc->ioctl](int fd, unsigned long request, void* argument) {
            const int done = others(fd, request, argument);
            if (done == 0 && request == SYNC_IOC_FILE_INFO)
                tell_time(fd, *static_cast<sync_file_info*>(argument));
            return done;
        };
    }
    void TearDown() override {
        libc.reset();
        std::filesystem::remove_all(folder);
        FdTest::TearDown();
    }

    /// The thread that writes has had its first look, and sleeps for the rest of its period.
    void until_it_sleeps() const {
        while (events_so_far(file).empty())
            std::this_thread::sleep_for(1ms);
    }
    static SyncFile pending() { return SyncFileAdopt::adopt(fake_sync_file(0)); }
    /// Now. \returns when that was.
    Deadline signal(int fence) {
        const std::lock_guard lock(mutex);
        const Deadline now = Deadline::clock::now();
        signalled_at[inode_of(fence)] = now;
        EXPECT_TRUE(write_fake_status(fence, 1));
        return now;
    }
    static DmaBuf buffer() {
        auto made = DmaBuf::from_fd(memfd(4096));
        EXPECT_TRUE(made);
        return std::move(*made);
    }
    /// One that waits for \p fence of \p from and leaves \p own in \p into. \returns when.
    static Deadline submit(QueueTrace& queue, const DmaBuf* from, SyncFile* fence,
                           const DmaBuf* into = nullptr, const SyncFile* own = nullptr) {
        const auto call = queue.call(std::span<const VkSubmitInfo2>());
        SubmissionTrace submission = queue.submission();
        const Deadline now = Deadline::clock::now();
        if (from != nullptr) {
            queue.asked(*from, Access::read, *fence);
            std::array fences{std::move(*fence)};
            queue.waits(fences, -1, UniqueFd());
            *fence = std::move(fences[0]);
        }
        if (into != nullptr) {
            submission.left_in(*into, Access::write);
            submission.done_by(*own);
        }
        return now;
    }

    std::filesystem::path folder;
    std::string file;
    std::optional<ScriptedLibc> libc;
    std::mutex mutex;
    std::map<ino_t, Deadline> signalled_at;

private:
    void tell_time(int fd, sync_file_info& info) {
        const std::lock_guard lock(mutex);
        const auto found = signalled_at.find(inode_of(fd));
        auto* fences = reinterpret_cast<sync_fence_info*>(std::uintptr_t{info.sync_fence_info});
        for (std::uint32_t i = 0; fences != nullptr && i < info.num_fences; ++i)
            fences[i].timestamp_ns =
                found == signalled_at.end()
                    ? 0
                    : static_cast<std::uint64_t>(found->second.time_since_epoch().count());
    }
};

TEST_F(TraceTest, WithoutAFileThereIsNone) {
    EXPECT_EQ(Trace::start(""), nullptr);
    DeviceTrace device(nullptr);
    QueueTrace queue = device.queue(0, 0);
    const DmaBuf from = buffer();
    SyncFile fence = pending();
    submit(queue, &from, &fence);
    EXPECT_GE(fence.fd(), 0) << "nobody has taken it";
}

TEST_F(TraceTest, TracksAreNamed) {
    auto trace = Trace::start(file);
    ASSERT_NE(trace, nullptr);
    DeviceTrace device(trace.get()), other(trace.get());
    QueueTrace queue = device.queue(0, 1), another = other.queue(2, 0);
    const DmaBuf made = buffer();
    device.imported(made.duplicate().value());
    submit(queue, nullptr, nullptr);
    submit(another, nullptr, nullptr);
    trace.reset();

    const Events events(file);
    EXPECT_EQ(events.tracks(), (std::vector<std::string>{"buffer " + std::to_string(made.inode()),
                                                         "device 2, queue 2.0", "queue 0.1"}));
    const auto process = events.named("process_name", "M");
    ASSERT_EQ(process.size(), 1U);
    EXPECT_EQ(process[0].at("args").at("name"), program_invocation_short_name);
    EXPECT_EQ(process[0].at("pid"), getpid());
}

TEST_F(TraceTest, AStallIsAsLongAsTheFenceWasPending) {
    auto trace = Trace::start(file);
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf from = buffer();
    SyncFile fence = pending();
    const SyncFile theirs = fence.duplicate().value();
    const Deadline earliest = Deadline::clock::now();
    submit(queue, &from, &fence);
    EXPECT_EQ(fence.fd(), -1) << "it is followed without a duplicate";
    const Deadline latest = Deadline::clock::now();
    std::this_thread::sleep_for(30ms);
    const Deadline done = signal(theirs.fd());
    std::this_thread::sleep_for(10ms); // which is no part of it
    trace.reset();

    const Events events(file);
    const auto on_queue = events.slices("wait", "queue 0.0");
    ASSERT_EQ(on_queue.size(), 1U);
    const auto on_buffer = events.slices("wait", "buffer " + std::to_string(from.inode()));
    ASSERT_EQ(on_buffer.size(), 1U);
    for (const Slice& wait : {on_queue[0], on_buffer[0]}) {
        EXPECT_GE(wait.stall(), 30'000);
        EXPECT_GE(wait.stall(), us(done) - us(latest) - 1);
        EXPECT_LE(wait.stall(), us(done) - us(earliest) + 1);
        EXPECT_NEAR(wait.end, us(done), 1);
    }
    EXPECT_EQ(on_queue[0].args.at("longest_for"), from.inode());
    EXPECT_EQ(on_buffer[0].args.at("queue"), "queue 0.0");
    EXPECT_EQ(on_buffer[0].args.at("access"), "read");
    EXPECT_EQ(on_buffer[0].args.at("driver"), "scripted");
    EXPECT_EQ(on_buffer[0].args.at("timeline"), "timeline-0");
    const auto submission = events.slices("submission");
    ASSERT_EQ(submission.size(), 1U);
    EXPECT_TRUE(on_queue[0].in(submission[0]));
    EXPECT_EQ(submission[0].args.at("function"), "vkQueueSubmit2");
}

TEST_F(TraceTest, TheLongestOfSeveralWaitsIsTheQueues) {
    auto trace = Trace::start(file);
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf quick = buffer(), slow = buffer();
    std::array fences{pending(), pending()};
    const SyncFile of_quick = fences[0].duplicate().value(),
                   of_slow = fences[1].duplicate().value();
    {
        const auto call = queue.call(std::span<const VkBindSparseInfo>());
        (void)queue.submission();
        queue.asked(quick, Access::read, fences[0]);
        queue.asked(slow, Access::write, fences[1]);
        queue.waits(fences, -1, UniqueFd());
    }
    signal(of_quick.fd());
    const Deadline done = signal(of_slow.fd());
    trace.reset();

    const Events events(file);
    const auto wait = events.slices("wait", "queue 0.0");
    ASSERT_EQ(wait.size(), 1U);
    EXPECT_NEAR(wait[0].end, us(done), 1);
    EXPECT_EQ(wait[0].args.at("longest_for"), slow.inode());
    EXPECT_EQ(events.slices("wait", "buffer " + std::to_string(quick.inode())).size(), 1U);
    EXPECT_EQ(events.slices("submission").at(0).args.at("function"), "vkQueueBindSparse");
}

TEST_F(TraceTest, WaitsThatOverlapAreSideBySide) {
    auto trace = Trace::start(file);
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf from = buffer();
    SyncFile first = pending(), second = pending();
    const SyncFile of_first = first.duplicate().value(), of_second = second.duplicate().value();
    submit(queue, &from, &first);
    submit(queue, &from, &second);
    signal(of_first.fd());
    signal(of_second.fd());
    SyncFile third = pending();
    const SyncFile of_third = third.duplicate().value();
    submit(queue, &from, &third);
    signal(of_third.fd());
    trace.reset();

    const std::string name = "buffer " + std::to_string(from.inode());
    const Events events(file); // which looks for overlaps
    EXPECT_EQ(events.tracks(),
              (std::vector<std::string>{name, name + " (2)", "queue 0.0", "queue 0.0 (2)"}));
    EXPECT_EQ(events.slices("wait").size(), 6U);
}

TEST_F(TraceTest, AnArrowLeadsFromAHandOverToWhoWaitsForIt) {
    auto trace = Trace::start(file);
    DeviceTrace device(trace.get());
    QueueTrace producer = device.queue(0, 0), consumer = device.queue(1, 0);
    const DmaBuf shared = buffer();
    const SyncFile drawn = pending();
    submit(producer, nullptr, nullptr, &shared, &drawn);
    SyncFile fence = drawn.duplicate().value();
    submit(consumer, &shared, &fence);
    const Deadline done = signal(drawn.fd());
    SyncFile later = pending(); // somebody else's, when ours is done
    const SyncFile of_later = later.duplicate().value();
    submit(consumer, &shared, &later);
    signal(of_later.fd());
    trace.reset();

    const Events events(file);
    const auto held = events.slices("fence pending");
    ASSERT_EQ(held.size(), 1U);
    EXPECT_EQ(held[0].track, "buffer " + std::to_string(shared.inode()));
    EXPECT_EQ(held[0].args.at("queue"), "queue 0.0");
    EXPECT_EQ(held[0].args.at("access"), "write");
    EXPECT_NEAR(held[0].end, us(done), 1);
    const auto from = events.named("hand-over", "s"), to = events.named("hand-over", "f");
    ASSERT_EQ(from.size(), 1U);
    ASSERT_EQ(to.size(), 1U);
    EXPECT_EQ(from[0].at("id"), to[0].at("id"));
    EXPECT_EQ(events.track(from[0]), held[0].track);
    EXPECT_GE(from[0].at("ts"), held[0].begin);
    EXPECT_LE(from[0].at("ts"), held[0].end);
    const Slice wait = events.slices("wait", "queue 1.0").at(0);
    EXPECT_EQ(events.track(to[0]), wait.track);
    EXPECT_EQ(to[0].at("bp"), "e");
    EXPECT_GE(to[0].at("ts"), wait.begin);
    EXPECT_LE(to[0].at("ts"), wait.end);
}

TEST_F(TraceTest, WhatIsDeferredIsHandedOverLater) {
    auto trace = Trace::start(file);
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf shared = buffer();
    SubmissionTrace submission;
    {
        const auto call = queue.call(std::span<const VkSubmitInfo>());
        submission = queue.submission();
        submission.deferred();
    }
    const SyncFile own = pending();
    const Deadline handed = Deadline::clock::now();
    submission.left_in(shared, Access::read_write);
    submission.done_by(own);
    const Deadline done = signal(own.fd());
    trace.reset();

    const Events events(file);
    EXPECT_EQ(events.named("deferred", "i").size(), 1U);
    const Slice held = events.slices("fence pending").at(0);
    EXPECT_GE(held.begin, us(handed) - 1);
    EXPECT_NEAR(held.end, us(done), 1);
    EXPECT_NEAR(events.slices("submission").at(0).end, us(done), 1);
}

TEST_F(TraceTest, ACallIsAsLongAsItTookThoughAnotherComesBeforeTheFence) {
    auto trace = Trace::start(file);
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf into = buffer();
    const SyncFile first = pending(), second = pending();
    const Deadline begin = Deadline::clock::now();
    submit(queue, nullptr, nullptr, &into, &first);
    const Deadline returned = Deadline::clock::now();
    std::this_thread::sleep_for(20ms); // which is no part of it
    submit(queue, nullptr, nullptr, &into, &second);
    signal(first.fd());
    signal(second.fd());
    trace.reset();

    const auto submissions = Events(file).slices("submission");
    ASSERT_EQ(submissions.size(), 2U);
    EXPECT_LE(submissions[0].args.at("call_us"), us(returned) - us(begin) + 1);
}

// What goes on in a buffer is looked at again when something more begins there, and that may be the
// end of the submission that it is about.
TEST_F(TraceTest, ASubmissionMayEndWhileItIsLookedAt) {
    std::atomic<int> followed = 1;
    TraceWriter writer(file, followed);
    ASSERT_EQ(writer.open(), layer::TraceFile::Opened::fresh);
    const DmaBuf shared = buffer();
    const SyncFile theirs = pending();
    const auto take = [&](TraceRecord::Kind kind, SyncFile fence = SyncFile::signalled()) {
        TraceRecord record;
        record.kind = kind;
        record.submission = record.queue = 1;
        record.buffer = shared.inode();
        record.at = Deadline::clock::now();
        record.function = "vkQueueSubmit2";
        record.fence = std::move(fence);
        writer.take(std::move(record));
    };
    take(TraceRecord::Kind::submission);
    take(TraceRecord::Kind::wait, theirs.duplicate().value());
    take(TraceRecord::Kind::returned); // that it is deferred was dropped
    signal(theirs.fd());
    take(TraceRecord::Kind::left);
    take(TraceRecord::Kind::done);
    writer.flush(1);
    writer.close();
    const Events events(file);
    EXPECT_EQ(events.slices("submission").size(), 1U);
    EXPECT_TRUE(events.slices("fence pending").empty());
}

TEST_F(TraceTest, WhatIsOverIsForgotten) {
    std::atomic<int> followed = 0;
    TraceWriter writer(file, followed);
    ASSERT_EQ(writer.open(), layer::TraceFile::Opened::fresh);
    std::uint64_t number = 0;
    const auto take = [&](TraceRecord::Kind kind) {
        TraceRecord record;
        record.kind = kind;
        record.buffer = record.submission = number;
        record.queue = 1;
        record.at = Deadline::clock::now();
        record.function = "vkQueueSubmit2";
        writer.take(std::move(record));
    };
    // Buffers come and go, and of every other submission nobody hears again.
    const auto use = [&](int count) {
        for (int i = 0; i < count; ++i) {
            ++number;
            take(TraceRecord::Kind::imported);
            take(TraceRecord::Kind::submission);
            take(TraceRecord::Kind::deferred);
            take(TraceRecord::Kind::returned);
            if (number % 2 == 0) {
                take(TraceRecord::Kind::left);
                take(TraceRecord::Kind::done);
            }
            writer.flush(0);
        }
        return live_bytes();
    };
    const std::ptrdiff_t before = use(2200);
    EXPECT_LE(use(1200), before + 65536);
    writer.close();
    const Events events(file);
    EXPECT_EQ(events.slices("submission").size(), 3400U);
}

TEST_F(TraceTest, WhatIsStillPendingAtTheEndSaysSo) {
    auto trace = Trace::start(file);
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf from = buffer(), into = buffer();
    SyncFile fence = pending();
    const SyncFile own = pending();
    submit(queue, &from, &fence, &into, &own);
    trace.reset();
    const Events events(file);
    for (const char* name : {"wait", "fence pending", "submission"})
        for (const Slice& each : events.slices(name))
            EXPECT_TRUE(each.args.contains("unfinished") || each.args.contains("longest_for"))
                << name;
    EXPECT_EQ(events.slices("submission").size(), 1U);
}

TEST_F(TraceTest, AFullRingDropsRecordsAndCountsThem) {
    auto trace = Trace::start(file, {.records = 4, .period = 1h});
    until_it_sleeps();
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0); // the first record
    for (int i = 0; i < 100; ++i)
        const auto call = queue.call(std::span<const VkSubmitInfo2>());
    const DmaBuf from = buffer();
    SyncFile fence = pending();
    submit(queue, &from, &fence);
    EXPECT_GE(fence.fd(), 0) << "nobody follows what is not told";
    trace.reset();

    const Events events(file);
    EXPECT_EQ(events.named("submission", "i").size(), 3U);
    const auto dropped = events.named("dropped records", "C");
    ASSERT_EQ(dropped.size(), 1U);
    EXPECT_EQ(dropped[0].at("args").at("records"), 97 + 1);
    EXPECT_TRUE(events.slices("submission").empty());
}

TEST_F(TraceTest, NotAllFencesAreFollowed) {
    auto trace = Trace::start(file, {.fences = 2});
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf from = buffer();
    const std::size_t before = open_fds().size();
    for (int i = 0; i < 10; ++i) {
        SyncFile fence = pending();
        submit(queue, &from, &fence);
    }
    EXPECT_LE(open_fds().size(), before + 2);
    trace.reset();
    const Events events(file);
    const auto waits = events.slices("wait", "");
    EXPECT_EQ(std::ranges::count_if(waits,
                                    [](const Slice& each) {
                                        return each.args.value("fence", "") ==
                                               "not followed: too many are pending";
                                    }),
              8);
}

TEST_F(TraceTest, WhoSubmitsAllocatesNothing) {
    auto trace = Trace::start(file, {.period = 1h});
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf from = buffer(), into = buffer();
    const SyncFile own = pending();
    const auto once = [&] {
        SyncFile fence = pending();
        const std::size_t so_far = allocations();
        submit(queue, &from, &fence, &into, &own);
        return allocations() - so_far;
    };
    until_it_sleeps();
    once();
    for (int i = 0; i < 20; ++i)
        EXPECT_EQ(once(), 0U);
    trace.reset();
    EXPECT_EQ(Events(file).slices("submission").size(), 21U);
}

TEST_F(TraceTest, SeveralThreadsWriteOneFile) {
    constexpr int threads = 4, submissions = 200;
    auto trace = Trace::start(file);
    DeviceTrace device(trace.get());
    const DmaBuf shared = buffer();
    {
        std::vector<std::jthread> all;
        for (std::uint32_t i = 0; i < threads; ++i)
            all.emplace_back([&, i] {
                const auto same = Trace::start(file);
                EXPECT_EQ(same, trace);
                QueueTrace queue = device.queue(0, i);
                for (int n = 0; n < submissions; ++n) {
                    SyncFile fence = pending();
                    const SyncFile own = pending();
                    const SyncFile theirs = fence.duplicate().value();
                    submit(queue, &shared, &fence, &shared, &own);
                    signal(theirs.fd());
                    signal(own.fd());
                }
            });
    }
    trace.reset();
    const Events events(file);
    for (int i = 0; i < threads; ++i) {
        const std::string prefix = "queue 0." + std::to_string(i);
        const auto all = events.slices("submission");
        EXPECT_EQ(std::ranges::count_if(
                      all, [&](const Slice& each) { return each.track.starts_with(prefix); }),
                  submissions);
    }
    EXPECT_EQ(events.slices("fence pending").size(), std::size_t{threads} * submissions);
}

TEST_F(TraceTest, ItIsReadableAtAnyTime) {
    auto trace = Trace::start(file, {.period = 1ms});
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf from = buffer();
    SyncFile fence = pending();
    const SyncFile theirs = fence.duplicate().value();
    submit(queue, &from, &fence);
    const auto begun = [&] {
        return std::ranges::any_of(events_so_far(file), [](const Json& each) {
            return each.at("ph") == "B" && each.at("name") == "wait";
        });
    };
    const Deadline patience = deadline_in(10s);
    while (!begun() && Deadline::clock::now() < patience) {
        EXPECT_FALSE(events_so_far(file).is_discarded());
        std::this_thread::sleep_for(1ms);
    }
    EXPECT_TRUE(begun()) << "as long as it hangs";
    EXPECT_NE(contents(file).back(), ']');
    signal(theirs.fd());
    trace.reset();
    EXPECT_EQ(Events(file).slices("wait").size(), 2U);
}

TEST_F(TraceTest, TheNextInstanceWritesOn) {
    for (int i = 0; i < 3; ++i) {
        auto trace = Trace::start(file);
        ASSERT_NE(trace, nullptr);
        QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
        const auto call = queue.call(std::span<const VkSubmitInfo>());
    }
    const Events events(file);
    EXPECT_EQ(events.named("submission", "i").size(), 3U);
    EXPECT_EQ(events.named("process_name", "M").size(), 1U);
    EXPECT_EQ(events.tracks(), (std::vector<std::string>{"device 2, queue 0.0",
                                                         "device 3, queue 0.0", "queue 0.0"}));

    std::ofstream(file) << "[]"; // somebody else's by now
    {
        auto trace = Trace::start(file);
        QueueTrace queue = DeviceTrace(trace.get()).queue(1, 0);
        const auto call = queue.call(std::span<const VkSubmitInfo>());
    }
    const Events anew(file);
    EXPECT_EQ(anew.named("submission", "i").size(), 1U);
    EXPECT_EQ(anew.named("process_name", "M").size(), 1U);
    EXPECT_EQ(anew.tracks(), std::vector<std::string>{"queue 1.0"});
}

TEST_F(TraceTest, AChildHasAFileOfItsOwn) {
#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
    GTEST_SKIP() << "the sanitizers' own locks may be held in the child of a process with threads";
#endif
    auto trace = Trace::start(file);
    ASSERT_NE(trace, nullptr);
    {
        DeviceTrace device(trace.get());
        QueueTrace queue = device.queue(0, 0);
        const auto call = queue.call(std::span<const VkSubmitInfo2>());
    }
    Child child([&] {
        trace.reset(); // the parent's goes on
        auto own = Trace::start(file);
        if (own == nullptr)
            return 1;
        {
            QueueTrace queue = DeviceTrace(own.get()).queue(3, 0);
            const auto call = queue.call(std::span<const VkSubmitInfo2>());
        }
        own.reset();
        return std::filesystem::exists(file + "." + std::to_string(getpid())) ? 0 : 2;
    });
    EXPECT_EQ(child.wait(), 0);
    trace.reset();
    EXPECT_EQ(Events(file).tracks(), std::vector<std::string>{"queue 0.0"});
    std::size_t files = 0;
    for (const auto& each : std::filesystem::directory_iterator(folder)) {
        ++files;
        EXPECT_EQ(Events(each.path()).named("submission", "i").size(), 1U) << each.path();
    }
    EXPECT_EQ(files, 2U);
}

TEST_F(TraceTest, AChildIsNotHeldUpByWhatItsParentWasAt) {
#ifdef __SANITIZE_THREAD__
    GTEST_SKIP() << "ThreadSanitizer knows no threads in the child of a process that has some";
#endif
    auto trace = Trace::start(file, {.period = 1h});
    until_it_sleeps();
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    const DmaBuf from = buffer();
    SyncFile fence = pending();
    submit(queue, &from, &fence);
    std::atomic<bool> writes = false; // which takes its time
    libc->ioctl = [&writes, others = libc->ioctl](int fd, unsigned long request, void* argument) {
        if (request == SYNC_IOC_FILE_INFO && !writes.exchange(true))
            std::this_thread::sleep_for(200ms);
        return others(fd, request, argument);
    };
    std::jthread leaves([&trace] { trace.reset(); });
    while (!writes)
        std::this_thread::yield();
    Child child([&] {
        alarm(20);
        return Trace::start(folder / "other") != nullptr ? 0 : 1;
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST_F(TraceTest, AProgramThatEndsWithoutAWordLeavesAWholeFile) {
    Child child([&] {
        static auto kept = Trace::start(file); // NOLINT: it is there until exit
        QueueTrace queue = DeviceTrace(kept.get()).queue(0, 0);
        { const auto call = queue.call(std::span<const VkSubmitInfo2>()); }
        std::exit(0);
        return 1;
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(Events(file).named("submission", "i").size(), 1U);
}

TEST_F(TraceTest, WhatAKilledProgramLeavesCanBeRead) {
    Child child([&] {
        auto trace = Trace::start(file, {.period = 1ms});
        QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
        const DmaBuf from = buffer();
        SyncFile fence = pending();
        submit(queue, &from, &fence);
        pause();
        return 1;
    });
    const Deadline patience = deadline_in(10s);
    while (contents(file).find(R"("ph":"B","name":"wait")") == std::string::npos &&
           Deadline::clock::now() < patience)
        std::this_thread::sleep_for(1ms);
    child.kill();
    const Json left = events_so_far(file);
    ASSERT_FALSE(left.is_discarded());
    EXPECT_TRUE(
        std::ranges::any_of(left, [](const Json& each) { return each.at("name") == "wait"; }));
}

TEST_F(TraceTest, WhoClosesOurFdGetsNothingIntoHisFiles) {
    testing::internal::CaptureStderr();
    auto trace = Trace::start(file, {.period = 1h});
    until_it_sleeps();
    int closed = -1;
    for (const auto& [fd, target] : open_fds())
        if (target == file)
            closed = std::stoi(fd);
    ASSERT_EQ(close(closed), 0);
    const std::string other = folder / "other";
    const UniqueFd theirs(open(other.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(theirs.get(), closed) << "the number is used again";
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    trace.reset();
    EXPECT_EQ(std::filesystem::file_size(other), 0U);
    EXPECT_NE(testing::internal::GetCapturedStderr().find("closed its fd"), std::string::npos);
}

TEST_F(TraceTest, WhatCannotBeWrittenIsToldOnce) {
    const std::string nowhere = folder / "missing" / "trace.json";
    testing::internal::CaptureStderr();
    EXPECT_EQ(Trace::start(nowhere), nullptr);
    EXPECT_EQ(Trace::start(nowhere), nullptr);
    EXPECT_EQ(Trace::start(folder), nullptr);
    const std::string told = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::ranges::count(told, '\n'), 2) << told;
    EXPECT_NE(told.find("missing/trace.json\": ENOENT"), std::string::npos) << told;
    EXPECT_NE(told.find("EISDIR"), std::string::npos) << told;
}

TEST_F(TraceTest, AFifoIsNotWaitedFor) {
    ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
    testing::internal::CaptureStderr();
    EXPECT_EQ(Trace::start(file), nullptr);
    EXPECT_NE(testing::internal::GetCapturedStderr().find("is no regular file"), std::string::npos);
}

TEST_F(TraceTest, AFullDiskEndsTheTraceAndNothingElse) {
    testing::internal::CaptureStderr();
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit small{.rlim_cur = 16384, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    auto trace = Trace::start(file, {.period = 1ms});
    QueueTrace queue = DeviceTrace(trace.get()).queue(0, 0);
    for (int i = 0; i < 1000; ++i)
        const auto call = queue.call(std::span<const VkSubmitInfo2>());
    trace.reset();
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    const std::string told = testing::internal::GetCapturedStderr();
    EXPECT_NE(told.find("EFBIG"), std::string::npos) << told;
    EXPECT_EQ(std::ranges::count(told, '\n'), 1) << told;
    EXPECT_LE(std::filesystem::file_size(file), 16384U);
    const Json left = Json::parse(contents(file), nullptr, false);
    EXPECT_FALSE(left.is_discarded()) << "whole events, and the end";
}

TEST_F(TraceTest, ADiskThatIsFullFromTheStartLeavesNoHalfArray) {
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit small{.rlim_cur = 16, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    auto trace = Trace::start(file, {.period = 1ms}); // its thread has no signals
    trace.reset();
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(contents(file), "");
}

TEST_F(TraceTest, WithoutMemoryForItThereIsNone) {
    testing::internal::CaptureStderr();
    int failures = 0;
    for (int nth = 1;; ++nth) {
        const std::string own =
            folder / ("long enough to need memory of its own " + std::to_string(nth));
        fail_allocation(nth);
        auto trace = Trace::start(own);
        if (fail_allocation(0)) {
            EXPECT_NE(trace, nullptr);
            break;
        }
        ++failures;
        trace.reset();
        // It is not for ever.
        auto again = Trace::start(own);
        EXPECT_NE(again, nullptr) << nth;
        again.reset();
        const Json left = Json::parse(contents(own), nullptr, false);
        EXPECT_FALSE(left.is_discarded()) << nth;
    }
    EXPECT_GE(failures, 5);
    const std::string told = testing::internal::GetCapturedStderr();
    EXPECT_NE(told.find("no trace is written"), std::string::npos) << told;
}

TEST_F(TraceTest, WhoWritesGivesUpWithoutMemory) {
    std::atomic<int> nth = 0; // of the thread that writes, from when it has named the process
    libc->fstat = [&nth, of = std::this_thread::get_id()](int fd, struct stat* status) {
        if (std::this_thread::get_id() != of)
            if (const int now = nth.exchange(0); now != 0)
                fail_allocation(now);
        return fstatat(fd, "", status, AT_EMPTY_PATH);
    };
    int given_up = 0;
    for (int each = 1; each <= 60; ++each) {
        const std::string own = file + std::to_string(each);
        testing::internal::CaptureStderr();
        nth = each;
        auto trace = Trace::start(own, {.period = 1ms});
        while (nth != 0)
            std::this_thread::yield();
        DeviceTrace device(trace.get());
        QueueTrace queue = device.queue(0, 0);
        const DmaBuf into = buffer();
        device.imported(into.duplicate().value());
        const SyncFile done = SyncFile::signalled();
        for (int i = 0; i < 3; ++i) {
            submit(queue, nullptr, nullptr, &into, &done);
            const auto call = queue.call(std::span<const VkSubmitInfo2>());
        }
        trace.reset();
        const std::string told = testing::internal::GetCapturedStderr();
        EXPECT_LE(std::ranges::count(told, '\n'), 1) << told;
        const Json left = Json::parse(contents(own), nullptr, false);
        EXPECT_FALSE(left.is_discarded()) << each << contents(own);
        if (told.find("no memory") == std::string::npos)
            continue;
        ++given_up;
        EXPECT_EQ(Trace::start(own), nullptr);
    }
    EXPECT_GE(given_up, 20);
}

// ---- In the layer -------------------------------------------------------------------------------

/// An application over a driver that is made up, with a trace.
class LayerTraceTest : public TraceTest {
protected:
    void SetUp() override {
        TraceTest::SetUp();
        buffers.set_up(*libc);
        libc->ioctl = [this, others = libc->ioctl](int fd, unsigned long request, void* argument) {
            const int done = others(fd, request, argument);
            if (done == 0 && request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE)
                given.emplace_back(dup(static_cast<dma_buf_export_sync_file*>(argument)->fd));
            return done;
        };
        setenv("VK_SLUICE_DMA_BUF_TRACE", file.c_str(), 1);
        icd.emplace(fail_the_test);
        loader.emplace(*icd, std::vector{&vkNegotiateLoaderLayerInterfaceVersion}, fail_the_test);
        app.emplace(HandLoader::get_instance_proc_addr);
        ASSERT_EQ(app->result, VK_SUCCESS);
    }
    void TearDown() override {
        end();
        libc.reset();
        unsetenv("VK_SLUICE_DMA_BUF_TRACE");
        TraceTest::TearDown();
    }
    /// Of the application.
    void end() {
        given.clear();
        if (app)
            for (VkDeviceMemory each : memories)
                app->vk.FreeMemory(app->device, each, nullptr);
        memories.clear();
        app.reset();
        loader.reset();
        icd.reset();
    }
    /// \returns its inode.
    ino_t import() {
        UniqueFd buffer = memfd(4096);
        const ino_t inode = inode_of(buffer.get());
        VkDeviceMemory memory = VK_NULL_HANDLE;
        EXPECT_EQ(app->import_memory(buffer.release(), 4096, memory), VK_SUCCESS);
        memories.push_back(memory);
        return inode;
    }

    FakeReservations buffers;
    std::vector<UniqueFd> given; // the fences out of the buffers
    std::optional<FakeIcd> icd;
    std::optional<HandLoader> loader;
    std::optional<Application> app;
    std::vector<VkDeviceMemory> memories;
};

TEST_F(LayerTraceTest, ShowsWhatAnApplicationDoes) {
    VkQueue queue = app->queue(1, 1);
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS); // nothing is shared yet
    const ino_t idle = import(), busy = import();
    buffers.status[busy] = 0;
    const Deadline earliest = Deadline::clock::now();
    ASSERT_EQ(app->submit(queue, {}, {}), VK_SUCCESS);
    const Deadline latest = Deadline::clock::now();
    std::this_thread::sleep_for(20ms);
    ASSERT_EQ(buffers.asked.size(), 2U);
    const std::size_t of_busy = buffers.asked[0].first == busy ? 0 : 1;
    const Deadline done = signal(given.at(of_busy).get());
    app->vk.QueueWaitIdle(queue);

    const VkExportMemoryAllocateInfo as{.sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                        .handleTypes =
                                            VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    const VkMemoryAllocateInfo info{
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = &as, .allocationSize = 8192};
    VkDeviceMemory memory = VK_NULL_HANDLE;
    ASSERT_EQ(app->vk.AllocateMemory(app->device, &info, nullptr, &memory), VK_SUCCESS);
    memories.push_back(memory);
    const VkMemoryGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                   .memory = memory,
                                   .handleType = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT};
    int fd = -1;
    ASSERT_EQ(app->vk.GetMemoryFdKHR(app->device, &get, &fd), VK_SUCCESS);
    const UniqueFd exported(std::move(fd));
    end();

    const Events events(file);
    const auto imports = events.named("import", "i"), exports = events.named("export", "i");
    ASSERT_EQ(imports.size(), 2U);
    EXPECT_EQ(imports[0].at("args").at("inode"), idle);
    EXPECT_EQ(imports[1].at("args").at("inode"), busy);
    EXPECT_EQ(imports[1].at("args").at("size"), 4096);
    ASSERT_EQ(exports.size(), 1U);
    EXPECT_EQ(exports[0].at("args").at("inode"), inode_of(exported.get()));
    EXPECT_EQ(exports[0].at("args").at("size"), 8192);
    EXPECT_EQ(events.named("submission", "i").size(), 1U) << "the one without buffers";
    const auto submission = events.slices("submission");
    ASSERT_EQ(submission.size(), 1U);
    EXPECT_EQ(submission[0].track, "queue 1.1");
    const auto wait = events.slices("wait", "queue 1.1");
    ASSERT_EQ(wait.size(), 1U);
    EXPECT_GE(wait[0].stall(), us(done) - us(latest) - 1);
    EXPECT_LE(wait[0].stall(), us(done) - us(earliest) + 1);
    EXPECT_EQ(wait[0].args.at("longest_for"), busy);
    EXPECT_EQ(events.slices("wait", "buffer " + std::to_string(busy)).size(), 1U);
    EXPECT_TRUE(events.slices("wait", "buffer " + std::to_string(idle)).empty());
    for (const ino_t each : {idle, busy})
        EXPECT_EQ(events.slices("fence pending", "buffer " + std::to_string(each)).size(), 1U);
}

TEST_F(LayerTraceTest, ADeferredHandOverIsThere) {
    VkQueue queue = app->queue();
    const ino_t inode = import();
    VkSemaphore timeline = app->timeline();
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}), VK_SUCCESS);
    const VkSemaphoreSignalInfo signal{
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = timeline, .value = 1};
    const Deadline before = Deadline::clock::now();
    ASSERT_EQ(app->vk.SignalSemaphore(app->device, &signal), VK_SUCCESS);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
    end();
    const Events events(file);
    EXPECT_EQ(events.named("deferred", "i").size(), 1U);
    const auto held = events.slices("fence pending", "buffer " + std::to_string(inode));
    ASSERT_EQ(held.size(), 1U);
    EXPECT_GE(held[0].begin, us(before) - 1);
}

TEST_F(LayerTraceTest, AHandOverThatFailsEndsItsSubmission) {
    VkQueue queue = app->queue();
    import();
    VkSemaphore timeline = app->timeline();
    ASSERT_EQ(app->submit(queue, {{timeline, 1}}, {}), VK_SUCCESS);
    icd->fail("vkGetSemaphoreFdKHR", VK_ERROR_TOO_MANY_OBJECTS);
    const VkSemaphoreSignalInfo signal{
        .sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = timeline, .value = 1};
    ASSERT_EQ(app->vk.SignalSemaphore(app->device, &signal), VK_SUCCESS);
    app->vk.QueueWaitIdle(queue);
    app->vk.DestroySemaphore(app->device, timeline, nullptr);
    end();
    const auto submission = Events(file).slices("submission");
    ASSERT_EQ(submission.size(), 1U);
    EXPECT_FALSE(submission[0].args.contains("unfinished"));
}

} // namespace
} // namespace sluice::test
