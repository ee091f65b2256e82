// SPDX-License-Identifier: MIT
/// \file
/// Two operations that do the same, side by side, as a ratio.
///
/// Machines are noisy, and an emulated one is more so. The two are therefore run in turns, in short
/// batches and in alternating order; each pair of batches gives a ratio, and the median of many
/// is reported with its quartiles. System calls, instructions and allocations are counted.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "counts.hpp"
#include "support/allocations.hpp"

namespace bench {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::duration<double, std::nano>;

constexpr double hot_path_goal = 1.05; // of what happens for each frame
constexpr double no_goal = 0;

struct Options {
    int rounds = 1001;
    Nanoseconds batch = std::chrono::microseconds(200);
    bool check = false;
    std::string filter = ".";
    std::string json;
};

/// Reads the command line. \param program what --help says of it.
/// \returns -1 to go on, or the exit status.
[[nodiscard]] int parse(int argc, char** argv, const char* program, Options& options);

/// Keeps the program on one processor: a move to another is noise. Counting too is faster with both
/// processes on one.
void stay_on_this_cpu();

/// Says that rows are missing. \returns whether that is all right: not in CI's own virtual machine,
/// where all can run (SLUICE_NO_SKIP).
bool left_out(const char* what, const char* reason);

struct Outcome {
    bool missed_goal = false;
    bool broken = false;
};

/// One of the two.
struct Side {
    std::vector<double> times; // nanoseconds for each operation
    Counts counts;
};

/// What one row is about.
struct Row {
    std::string name;       // "ours; theirs", where theirs is not ours written by hand
    double goal = no_goal;  // the highest ratio that is well
    double added = no_goal; // the same of a difference, in nanoseconds
    int slowness = 1;       // so many times fewer rounds
    bool counted = true;    // in child processes, which have none of its threads
    bool stepped = true;    // and its instructions too, one by one
};

void print_header();

/// Prints one row and leaves its numbers to the JSON.
void report(benchmark::State& state, const Row& row, const Side& ours, const Side& theirs,
            std::size_t allocations, Outcome& outcome);

/// Where an operation has a `prepare()`, it is called before each batch, and no part of it.
template <typename Operation> void prepare(Operation& operation) {
    if constexpr (requires { operation.prepare(); })
        operation.prepare();
}

/// \returns nanoseconds for each of \p times operations, or less than 0: one failed.
template <typename Operation> double run_batch(Operation& operation, long times) {
    prepare(operation);
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

template <typename Operation> Counts count(Operation& operation, bool steps) {
    return count([](void* self) { return bool((*static_cast<Operation*>(self))()); }, &operation,
                 steps);
}

/// Rows of one program.
class SideBySide {
public:
    explicit SideBySide(Options options) : options_(std::move(options)) {}

    /// Adds a row: \p ours and \p theirs do the same and say whether it worked.
    template <typename Ours, typename Theirs> void add(Row row, Ours ours, Theirs theirs) {
        const std::string name = row.name;
        const int rounds = std::max(options_.rounds / row.slowness, 5);
        auto body = [this, row = std::move(row), ours = std::move(ours),
                     theirs = std::move(theirs)](benchmark::State& state) mutable {
            run(state, row, ours, theirs);
        };
        // The time that Google Benchmark keeps is ours, for each operation.
        benchmark::RegisterBenchmark(name.c_str(), std::move(body))
            ->Iterations(rounds)
            ->UseManualTime()
            ->Unit(benchmark::kNanosecond);
    }

    /// Runs the rows and prints them. \param complete whether none was left out that had to be
    /// there. \returns the program's exit status.
    [[nodiscard]] int run(const char* program, bool complete);

private:
    template <typename Ours, typename Theirs>
    void run(benchmark::State& state, const Row& row, Ours& ours, Theirs& theirs) {
        sluice::test::count_allocations(false);
        const long warm = batch_size(ours, options_.batch);
        // Of one length, or of the faster's own where a batch of it would be all clock.
        const long size = batch_size(theirs, options_.batch);
        Side our_side;
        Side their_side;
        bool working = size > 0 && warm > 0;
        for (auto _ : state) {
            double our_time = -1;
            double their_time = -1;
            if (working && their_side.times.size() % 2 == 0) {
                our_time = run_batch(ours, std::max(size, warm));
                their_time = run_batch(theirs, size);
            } else if (working) {
                their_time = run_batch(theirs, size);
                our_time = run_batch(ours, std::max(size, warm));
            }
            if (our_time < 0 || their_time < 0) {
                working = false;
                state.SkipWithError("an operation failed");
                break;
            }
            our_side.times.push_back(our_time);
            their_side.times.push_back(their_time);
            state.SetIterationTime(our_time * 1e-9);
        }
        if (!working) {
            failed(row);
            return;
        }
        prepare(ours);
        sluice::test::count_allocations(true);
        const std::size_t before = sluice::test::allocations();
        benchmark::DoNotOptimize(ours());
        const std::size_t allocations = sluice::test::allocations() - before;
        if (row.counted) {
            prepare(ours);
            our_side.counts = count(ours, row.stepped);
            prepare(theirs);
            their_side.counts = count(theirs, row.stepped);
        }
        report(state, row, our_side, their_side, allocations, outcome_);
    }

    void failed(const Row& row);

    Options options_;
    Outcome outcome_;
};

} // namespace bench
