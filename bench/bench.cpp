// SPDX-License-Identifier: MIT
/// \file
/// Each operation beside the system calls that do the same (by_hand.hpp), as a ratio.
///
/// Machines are noisy, and an emulated one is more so. The two are therefore run in turns, in short
/// batches and in alternating order; each pair of batches gives a ratio, and the median of many
/// is reported with its quartiles. The first row is one function beside itself: what it is off
/// 1 by is what this machine cannot tell. System calls, instructions and allocations are counted.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>
#include <sched.h>
#include <sys/utsname.h>

#include <sluice/buffer_lock.hpp>
#include <sluice/cpu_access.hpp>
#include <sluice/cpu_map.hpp>
#include <sluice/implicit_sync.hpp>

#include "by_hand.hpp"
#include "counts.hpp"
#include "kernel_objects.hpp"
#include "support/allocations.hpp"

namespace {

using sluice::Access;
using sluice::CpuAccess;
using sluice::CpuMap;
using sluice::Deadline;
using sluice::DmaBuf;
using sluice::SyncFile;
using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::duration<double, std::nano>;

constexpr double hot_path_goal = 1.05; // of what happens for each frame
constexpr double no_goal = 0;
constexpr std::uint64_t frame_size = std::uint64_t{1024} * 768 * 4;

struct Options {
    int rounds = 1001;
    Nanoseconds batch = std::chrono::microseconds(200);
    bool check = false;
    std::string filter = ".";
    std::string json;
};

struct Outcome {
    bool missed_goal = false;
    bool broken = false;
};

struct Quartiles {
    double low, median, high;
};

Quartiles quartiles(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const auto at = [&](std::size_t quarter) { return values[(values.size() - 1) * quarter / 4]; };
    return {.low = at(1), .median = at(2), .high = at(3)};
}

/// \returns nanoseconds for each of \p times operations, or less than 0: one failed.
template <typename Operation> double run_batch(Operation& operation, long times) {
    const auto start = Clock::now();
    for (long i = 0; i < times; ++i)
        if (!operation())
            return -1;
    return Nanoseconds(Clock::now() - start).count() / static_cast<double>(times);
}

/// How many make a batch of the length wanted; 0: one failed.
template <typename Operation> long batch_size(Operation& operation, Nanoseconds wanted) {
    long size = 1;
    for (; size < 1'000'000; size *= 2) {
        const double each = run_batch(operation, size);
        if (each < 0)
            return 0;
        if (each * static_cast<double>(size) >= wanted.count())
            break;
    }
    return size;
}

template <typename Operation> bench::Counts count(Operation& operation) {
    return bench::count([](void* self) { return bool((*static_cast<Operation*>(self))()); },
                        &operation);
}

/// The two sides of one row.
struct Side {
    std::vector<double> times;
    bench::Counts counts;
};

/// "2 / 1", and the same for the JSON.
std::string pair_of(benchmark::UserCounters& counters, const std::string& what,
                    std::optional<long> sluice, std::optional<long> by_hand) {
    const auto add = [&](const std::string& side, std::optional<long> number) {
        if (!number)
            return std::string("?");
        counters[side + "_" + what] = static_cast<double>(*number);
        return std::to_string(*number);
    };
    const std::string ours = add("sluice", sluice);
    return ours + " / " + add("by_hand", by_hand);
}

void print_header() {
    std::printf("%-34s %10s %10s  %6s %-15s %-15s %-9s %-13s %s\n", "", "sluice", "by hand",
                "ratio", "(quartiles)", "goal", "calls", "instructions", "new");
}

/// Prints one row and leaves its numbers to the JSON.
void report(benchmark::State& state, const std::string& name, const Side& sluice, const Side& hand,
            double goal, std::size_t allocations, Outcome& outcome) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < sluice.times.size(); ++i)
        ratios.push_back(sluice.times[i] / hand.times[i]);
    const Quartiles ratio = quartiles(std::move(ratios));
    const double ours = quartiles(sluice.times).median;
    const double theirs = quartiles(hand.times).median;

    auto& counters = state.counters;
    counters["sluice_ns"] = ours;
    counters["by_hand_ns"] = theirs;
    counters["ratio"] = ratio.median;
    counters["ratio_quartile_1"] = ratio.low;
    counters["ratio_quartile_3"] = ratio.high;
    counters["sluice_allocations"] = static_cast<double>(allocations);
    std::array<char, 32> verdict{};
    if (goal > no_goal) {
        const bool met = ratio.median <= goal;
        outcome.missed_goal = outcome.missed_goal || !met;
        counters["goal"] = goal;
        std::snprintf(verdict.data(), verdict.size(), "<= %.2f %s", goal, met ? "met" : "MISSED");
    }
    const std::string calls =
        pair_of(counters, "system_calls", sluice.counts.system_calls, hand.counts.system_calls);
    const std::string instructions =
        pair_of(counters, "instructions", sluice.counts.instructions, hand.counts.instructions);
    std::array<char, 32> spread{};
    std::snprintf(spread.data(), spread.size(), "(%.3f-%.3f)", ratio.low, ratio.high);
    std::printf("%-34s %7.0f ns %7.0f ns  %6.3f %-15s %-15s %-9s %-13s %zu\n", name.c_str(), ours,
                theirs, ratio.median, spread.data(), verdict.data(), calls.c_str(),
                instructions.c_str(), allocations);
    std::fflush(stdout);
}

class Bench {
public:
    explicit Bench(Options options) : options_(std::move(options)) {}

    /// A row: \p ours and \p by_hand do the same and say whether it worked.
    template <typename Ours, typename ByHand>
    void add(std::string name, double goal, Ours ours, ByHand by_hand) {
        const auto body = [this, name, goal, ours, by_hand](benchmark::State& state) mutable {
            run(state, name, goal, ours, by_hand);
        };
        // The time that Google Benchmark keeps is ours, for each operation.
        benchmark::RegisterBenchmark(name.c_str(), body)
            ->Iterations(options_.rounds)
            ->UseManualTime()
            ->Unit(benchmark::kNanosecond);
    }

    [[nodiscard]] const Outcome& outcome() const noexcept { return outcome_; }

private:
    template <typename Ours, typename ByHand>
    void run(benchmark::State& state, const std::string& name, double goal, Ours& ours,
             ByHand& by_hand) {
        const long size = batch_size(by_hand, options_.batch);
        const long warm = batch_size(ours, options_.batch);
        Side sluice;
        Side hand;
        bool working = size > 0 && warm > 0;
        for (auto _ : state) {
            double our_time = -1;
            double hand_time = -1;
            if (working && hand.times.size() % 2 == 0) {
                our_time = run_batch(ours, size);
                hand_time = run_batch(by_hand, size);
            } else if (working) {
                hand_time = run_batch(by_hand, size);
                our_time = run_batch(ours, size);
            }
            if (our_time < 0 || hand_time < 0) {
                working = false;
                state.SkipWithError("an operation failed");
                break;
            }
            sluice.times.push_back(our_time);
            hand.times.push_back(hand_time);
            state.SetIterationTime(our_time * 1e-9);
        }
        if (!working) {
            std::printf("%-34s an operation failed\n", name.c_str());
            outcome_.broken = true;
            return;
        }
        const std::size_t before = sluice::test::allocations();
        benchmark::DoNotOptimize(ours());
        const std::size_t allocations = sluice::test::allocations() - before;
        sluice.counts = count(ours);
        hand.counts = count(by_hand);
        report(state, name, sluice, hand, goal, allocations, outcome_);
    }

    Options options_;
    Outcome outcome_;
};

/// Prints nothing: the rows have been printed by then.
class Quiet : public benchmark::BenchmarkReporter {
public:
    bool ReportContext(const Context& /*context*/) override { return true; }
    void ReportRuns(const std::vector<Run>& /*runs*/) override {}
};

constexpr std::uint32_t bits(Access access) noexcept {
    return static_cast<std::uint32_t>(access);
}

/// Later than any row. Finding the deadline is the program's business, and no part of a row.
const Deadline later = Clock::now() + std::chrono::hours(24);
const by_hand::Nanoseconds later_by_hand =
    std::chrono::nanoseconds(later.time_since_epoch()).count();

/// What a row gets of by_hand: a fd that it closes again.
bool closed(int fd) noexcept {
    if (fd < 0)
        return false;
    const sluice::UniqueFd owner(std::move(fd));
    return true;
}

void add_fences(Bench& bench, const DmaBuf& buffer, const SyncFile& fence, const std::string& how) {
    const int buffer_fd = buffer.fd();
    const int fence_fd = fence.fd();
    bench.add(
        "export_fence, " + how, hot_path_goal,
        [&buffer] { return bool(buffer.export_fence(Access::read_write)); },
        [=] { return closed(by_hand::export_fence(buffer_fd, bits(Access::read_write))); });
    bench.add(
        "import_fence, " + how, hot_path_goal,
        [&buffer, &fence] { return bool(buffer.import_fence(fence, Access::write)); },
        [=] { return by_hand::import_fence(buffer_fd, fence_fd, bits(Access::write)) == 0; });
    bench.add(
        "fence_before, " + how, hot_path_goal,
        [&buffer] { return bool(fence_before(buffer, Access::read_write)); },
        [=] { return closed(by_hand::fence_before(buffer_fd, bits(Access::read_write))); });
    bench.add(
        "fence_after, " + how, hot_path_goal,
        [&buffer, &fence] { return bool(fence_after(buffer, fence, Access::write, later)); },
        [=] {
            return by_hand::fence_after(buffer_fd, fence_fd, bits(Access::write), later_by_hand) ==
                   0;
        });
}

void add_waits(Bench& bench, const DmaBuf& buffer, const SyncFile& signalled) {
    const int buffer_fd = buffer.fd();
    const int fence_fd = signalled.fd();
    bench.add(
        "DmaBuf::wait, idle", hot_path_goal,
        [&buffer] { return bool(buffer.wait(Access::read_write, later)); },
        [=] { return by_hand::wait(buffer_fd, bits(Access::read_write), later_by_hand) == 0; });
    bench.add(
        "SyncFile::wait, signalled", hot_path_goal,
        [&signalled] { return bool(signalled.wait(later)); },
        [=] { return by_hand::fence_wait(fence_fd, later_by_hand) == 0; });
    bench.add(
        "SyncFile::status, signalled", no_goal,
        [&signalled] {
            const auto status = signalled.status();
            return status && status->state == sluice::FenceState::signalled;
        },
        [=] { return by_hand::fence_status(fence_fd) == 1; });
}

void add_access(Bench& bench, const DmaBuf& buffer, const CpuMap& map, const std::string& how) {
    for (const Access access : {Access::read, Access::read_write})
        bench.add(
            "begin + end, " + std::string(to_string(access)) + ", " + how, hot_path_goal,
            [&map, access] {
                auto opened = CpuAccess::begin(map, access, later);
                return opened && opened->end();
            },
            [fd = buffer.fd(), access] {
                return by_hand::begin_access(fd, bits(access), later_by_hand) == 0 &&
                       by_hand::end_access(fd, bits(access)) == 0;
            });
}

void add_handles(Bench& bench, const DmaBuf& buffer) {
    const int fd = buffer.fd();
    bench.add(
        "from_borrowed_fd", no_goal, [fd] { return bool(DmaBuf::from_borrowed_fd(fd)); },
        [fd] {
            by_hand::Identity identity{};
            const bool adopted = closed(by_hand::adopt(fd, identity));
            benchmark::DoNotOptimize(identity);
            return adopted;
        });
    bench.add(
        "duplicate", no_goal, [&buffer] { return bool(buffer.duplicate()); },
        [fd] { return closed(by_hand::duplicate(fd)); });
}

/// \p buffer is mapped by nobody else, or sluice would only find that mapping again.
void add_mapping(Bench& bench, const DmaBuf& buffer, const std::string& how) {
    bench.add(
        "CpuMap::map + unmap, " + how, no_goal,
        [&buffer] { return bool(CpuMap::map(buffer, Access::read_write)); },
        [fd = buffer.fd(), size = static_cast<std::size_t>(buffer.size())] {
            by_hand::Mapping mapping{};
            if (by_hand::map(fd, size, mapping) != 0)
                return false;
            by_hand::unmap(mapping);
            return true;
        });
}

void add_lock(Bench& bench, const DmaBuf& buffer, std::mutex& mutex) {
    bench.add(
        "BufferLock; std::mutex", no_goal,
        [&buffer] { return bool(sluice::BufferLock::acquire(buffer, later)); },
        [&mutex] {
            const std::scoped_lock held(mutex);
            benchmark::ClobberMemory();
            return true;
        });
}

void usage() {
    std::puts(
        "usage: sluice_bench [--quick] [--check] [--filter REGEX] [--json FILE]\n"
        "  --quick          a few rounds only: shows that it runs, its times say little\n"
        "  --check          exit status 1 where a goal is missed\n"
        "  --filter REGEX   only the rows whose name matches\n"
        "  --json FILE      the numbers in Google Benchmark's format\n"
        "Exit status: 0, 1 (see --check; or an operation failed), 2 for wrong arguments.\n"
        "Where the machine has no buffers to measure with it says so and exits with 0, or with\n"
        "1 where SLUICE_NO_SKIP is set.");
}

/// \returns -1 to go on, or the exit status.
int parse(int argc, char** argv, Options& options) {
    const std::vector<std::string_view> arguments(argv + 1, argv + argc);
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        const bool has_value = i + 1 < arguments.size();
        if (arguments[i] == "--quick") {
            options.rounds = 11;
            options.batch = std::chrono::microseconds(20);
        } else if (arguments[i] == "--check") {
            options.check = true;
        } else if (arguments[i] == "--filter" && has_value) {
            options.filter = arguments[++i];
        } else if (arguments[i] == "--json" && has_value) {
            options.json = arguments[++i];
        } else if (arguments[i] == "--help" || arguments[i] == "-h") {
            usage();
            return 0;
        } else {
            usage();
            return 2;
        }
    }
    return -1;
}

void initialize(const char* program, const Options& options) {
    std::vector<std::string> arguments{program, "--benchmark_filter=" + options.filter};
    if (!options.json.empty()) {
        arguments.push_back("--benchmark_out=" + options.json);
        arguments.push_back("--benchmark_out_format=json");
    }
    std::vector<char*> pointers;
    pointers.reserve(arguments.size() + 1);
    for (std::string& argument : arguments)
        pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, pointers.data());
    utsname kernel{};
    uname(&kernel);
    benchmark::AddCustomContext("kernel", kernel.release);
}

/// A move to another one is noise. Counting too is faster with both processes on one.
void stay_on_this_cpu() {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(static_cast<unsigned>(sched_getcpu()), &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
}

/// Says that rows are missing. In CI's own virtual machine, where all can run, that is a failure.
bool left_out(const char* what, const char* reason) {
    std::printf("left out: %s: %s\n", what, reason);
    return std::getenv("SLUICE_NO_SKIP") == nullptr;
}

} // namespace

int main(int argc, char** argv) {
    Options options;
    if (const int status = parse(argc, argv, options); status >= 0)
        return status;
    stay_on_this_cpu();
    unsetenv("SLUICE_STRICT"); // the checks of strict mappings are not for every frame

    // Each row needs its buffer in a state of its own.
    const auto udmabuf = bench::udmabuf(frame_size);
    const auto heap = bench::heap_buffer(frame_size);
    const DmaBuf* idle = udmabuf ? &*udmabuf : heap ? &*heap : nullptr;
    if (idle == nullptr)
        return left_out("everything", "neither /dev/udmabuf nor /dev/dma_heap/system gives buffers")
                   ? 0
                   : 1;
    const auto fenced = udmabuf ? bench::udmabuf(frame_size) : bench::heap_buffer(frame_size);
    const auto unmapped_udmabuf = bench::udmabuf(frame_size);
    const auto unmapped_heap = bench::heap_buffer(frame_size);
    const auto signalled = idle->export_fence(Access::read_write);
    if (!fenced || !signalled)
        return left_out("everything", "the kernel exports no fences from buffers (6.0 does)") ? 0
                                                                                              : 1;
    const auto one = bench::pending_fence();
    const auto two = bench::pending_fence();
    bool complete = true;

    Bench bench(options);
    std::mutex mutex;
    const int idle_fd = idle->fd();
    const auto wait_by_hand = [idle_fd] {
        return by_hand::wait(idle_fd, bits(Access::read_write), later_by_hand) == 0;
    };
    bench.add("(by hand beside itself)", no_goal, wait_by_hand, wait_by_hand);
    add_fences(bench, *idle, *signalled, "signalled");
    if (one && two && fenced->import_fence(*one, Access::write)) {
        add_fences(bench, *fenced, *one, "pending");
        bench.add(
            "SyncFile::merge, two pending", no_goal,
            [&] { return bool(SyncFile::merge(*one, *two)); },
            [a = one->fd(), b = two->fd()] { return closed(by_hand::merge(a, b)); });
    } else {
        complete = left_out("pending fences", "there is no sw_sync in debugfs (it takes root)");
    }
    add_waits(bench, *idle, *signalled);
    std::vector<CpuMap> maps;
    maps.reserve(2); // the rows borrow them
    const auto add_exporter = [&](const auto& mapped, const auto& unmapped, const char* name) {
        auto map = mapped ? CpuMap::map(*mapped, Access::read_write)
                          : sluice::Result<CpuMap>(tl::unexpected(sluice::Error{}));
        if (!map || !unmapped) {
            complete = left_out(name, "it gives no buffers that the CPU can map") && complete;
            return;
        }
        maps.push_back(std::move(*map));
        add_access(bench, *mapped, maps.back(), name);
        add_mapping(bench, *unmapped, name);
    };
    add_exporter(udmabuf, unmapped_udmabuf, "udmabuf");
    add_exporter(heap, unmapped_heap, "dma-heap");
    add_handles(bench, *idle);
    add_lock(bench, *idle, mutex);

    initialize(argv[0], options);
    print_header();
    Quiet quiet;
    if (benchmark::RunSpecifiedBenchmarks(&quiet) == 0)
        return 2;
    benchmark::Shutdown();
    if (bench.outcome().missed_goal)
        std::puts("a goal is missed; with few rounds or on a busy machine that may be noise");
    return !complete || bench.outcome().broken || (options.check && bench.outcome().missed_goal);
}
