// SPDX-License-Identifier: MIT
#include "side_by_side.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>

#include <sched.h>
#include <sys/utsname.h>

namespace bench {

namespace {

struct Quartiles {
    double low, median, high;
};

Quartiles quartiles(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const auto at = [&](std::size_t quarter) { return values[(values.size() - 1) * quarter / 4]; };
    return {.low = at(1), .median = at(2), .high = at(3)};
}

/// "2 / 1", and the same for the JSON.
std::string pair_of(benchmark::UserCounters& counters, const std::string& what,
                    std::optional<long> ours, std::optional<long> theirs) {
    const auto add = [&](const std::string& side, std::optional<long> number) {
        if (!number)
            return std::string("?");
        counters[side + "_" + what] = static_cast<double>(*number);
        return std::to_string(*number);
    };
    const std::string left = add("sluice", ours);
    return left + " / " + add("beside", theirs);
}

void usage(const char* program) {
    std::printf(
        "usage: %s [--quick] [--check] [--filter REGEX] [--json FILE]\n"
        "  --quick          a few rounds only: shows that it runs, its times say little\n"
        "  --check          exit status 1 where a goal is missed\n"
        "  --filter REGEX   only the rows whose name matches\n"
        "  --json FILE      the numbers in Google Benchmark's format\n"
        "Exit status: 0, 1 (see --check; or an operation failed), 2 for wrong arguments.\n"
        "Where the machine has nothing to measure with it says so and exits with 0, or with\n"
        "1 where SLUICE_NO_SKIP is set.\n",
        program);
}

/// Prints nothing: the rows have been printed by then.
class Quiet : public benchmark::BenchmarkReporter {
public:
    bool ReportContext(const Context& /*context*/) override { return true; }
    void ReportRuns(const std::vector<Run>& /*runs*/) override {}
};

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

constexpr int name_width = 46;

} // namespace

int parse(int argc, char** argv, const char* program, Options& options) {
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
            usage(program);
            return 0;
        } else {
            usage(program);
            return 2;
        }
    }
    return -1;
}

void stay_on_this_cpu() {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(static_cast<unsigned>(sched_getcpu()), &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
}

bool left_out(const char* what, const char* reason) {
    std::printf("left out: %s: %s\n", what, reason);
    return std::getenv("SLUICE_NO_SKIP") == nullptr;
}

void print_header() {
    std::printf("%-*s %12s %12s  %6s %-15s %-16s %-9s %-13s %s\n", name_width, "", "sluice",
                "by hand", "ratio", "(quartiles)", "goal", "calls", "instructions", "new");
}

void report(benchmark::State& state, const Row& row, const Side& ours, const Side& theirs,
            std::size_t allocations, Outcome& outcome) {
    std::vector<double> ratios;
    std::vector<double> differences;
    for (std::size_t i = 0; i < ours.times.size(); ++i) {
        ratios.push_back(ours.times[i] / theirs.times[i]);
        differences.push_back(ours.times[i] - theirs.times[i]);
    }
    const Quartiles ratio = quartiles(std::move(ratios));
    const Quartiles added = quartiles(std::move(differences));
    const double our_time = quartiles(ours.times).median;
    const double their_time = quartiles(theirs.times).median;

    auto& counters = state.counters;
    counters["sluice_ns"] = our_time;
    counters["beside_ns"] = their_time;
    counters["ratio"] = ratio.median;
    counters["ratio_quartile_1"] = ratio.low;
    counters["ratio_quartile_3"] = ratio.high;
    counters["sluice_allocations"] = static_cast<double>(allocations);
    std::array<char, 32> verdict{};
    if (row.goal > no_goal) {
        const bool met = ratio.median <= row.goal;
        outcome.missed_goal = outcome.missed_goal || !met;
        counters["goal"] = row.goal;
        std::snprintf(verdict.data(), verdict.size(), "<= %.2f %s", row.goal,
                      met ? "met" : "MISSED");
    }
    if (row.added > no_goal) {
        const bool met = added.median <= row.added;
        outcome.missed_goal = outcome.missed_goal || !met;
        counters["added_ns"] = added.median;
        counters["added_ns_quartile_1"] = added.low;
        counters["added_ns_quartile_3"] = added.high;
        counters["added_ns_goal"] = row.added;
        std::snprintf(verdict.data(), verdict.size(), "+%.1f <= %.0f %s", added.median, row.added,
                      met ? "met" : "MISSED");
    }
    const std::string calls =
        pair_of(counters, "system_calls", ours.counts.system_calls, theirs.counts.system_calls);
    const std::string instructions =
        pair_of(counters, "instructions", ours.counts.instructions, theirs.counts.instructions);
    std::array<char, 32> spread{};
    std::snprintf(spread.data(), spread.size(), "(%.3f-%.3f)", ratio.low, ratio.high);
    std::printf("%-*s %9.0f ns %9.0f ns  %6.3f %-15s %-16s %-9s %-13s %zu\n", name_width,
                row.name.c_str(), our_time, their_time, ratio.median, spread.data(), verdict.data(),
                calls.c_str(), instructions.c_str(), allocations);
    std::fflush(stdout);
}

void SideBySide::failed(const Row& row) {
    std::printf("%-*s an operation failed\n", name_width, row.name.c_str());
    outcome_.broken = true;
}

int SideBySide::run(const char* program, bool complete) {
    initialize(program, options_);
    print_header();
    Quiet quiet;
    if (benchmark::RunSpecifiedBenchmarks(&quiet) == 0)
        std::puts("no row matches"); // of this program: another may have some
    benchmark::Shutdown();
    if (outcome_.missed_goal)
        std::puts("a goal is missed; with few rounds or on a busy machine that may be noise");
    return !complete || outcome_.broken || (options_.check && outcome_.missed_goal) ? 1 : 0;
}

} // namespace bench
