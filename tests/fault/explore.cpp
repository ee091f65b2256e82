// SPDX-License-Identifier: MIT
#include "fault/operation.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <optional>
#include <span>
#include <sstream>
#include <utility>

#include <gtest/gtest.h>

#include <sluice/cpu_map.hpp>
#include <sluice/log.hpp>

#include "core/probe.hpp"
#include "fault/faults.hpp"
#include "support/allocations.hpp"
#include "support/open_fds.hpp"
#include "support/udmabuf.hpp"

namespace sluice::test {

namespace {

struct Step {
    Fault fault;
    LibcCall call;
    Failure failure;
};

struct Totals {
    std::size_t operations = 0;
    std::size_t calls = 0;
    std::size_t cases = 0;
    std::size_t pairs = 0;
    std::size_t right = 0;
    std::size_t refused = 0;
};

Totals totals;
std::ostringstream rows;

std::vector<Step> current; // the faults of the running case
std::vector<Error> logged;

/// The mappings of buffers and memfds in this process.
std::vector<std::string> mappings() {
    std::vector<std::string> found;
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);)
        if (line.find("dmabuf") != std::string::npos || line.find("memfd") != std::string::npos)
            found.push_back(line);
    return found;
}

/// The list of mappings drops what is gone when the next one is made. After this it holds on to
/// one, whatever was before.
void settle() {
    static const DmaBuf buffer = udmabuf(4096);
    EXPECT_TRUE(CpuMap::map(buffer, Access::read, CpuMapMode::quick));
}

std::string name_of(const Operation& operation) {
    std::string name = operation.name;
    for (const Step& step : current)
        name += ", call " + std::to_string(step.fault.index) + " " + to_string(step.call) +
                " fails with " + to_string(step.failure);
    return name;
}

/// What an error has to tell, whatever it is about.
void expect_clear(const Error& error) {
    EXPECT_FALSE(error.operation.empty());
    EXPECT_FALSE(error.object.empty()) << error.message();
    EXPECT_FALSE(error.problem.empty()) << error.message();
    EXPECT_FALSE(error.remedy.empty()) << error.message();
    EXPECT_EQ(error.vk_result, 0) << error.message();
}

/// What an error has to tell of the faults.
void expect_explained(const Error& error) {
    const Step* cause = nullptr;
    for (const Step& step : current)
        if (step.failure.error == error.sys_errno && (cause == nullptr || cause->failure.invisible))
            cause = &step;
    if (cause == nullptr) {
        ADD_FAILURE() << "an error of something else, errno " << error.sys_errno << ": "
                      << error.message();
        return;
    }
    EXPECT_FALSE(cause->failure.invisible) << "need not have failed: " << error.message();
    if (!sensible(error.code, error.sys_errno))
        ADD_FAILURE() << "the code is " << to_string(error.code) << ": " << error.message();
}

/// Fails the test where \p outcome is not what the faults allow.
void judge(const Outcome& outcome) {
    const bool must_work =
        std::ranges::all_of(current, [](const Step& step) { return step.failure.invisible; });
    EXPECT_TRUE(boundary::all_faults_met()) << "the operation is not the same each time";
    if (outcome.error)
        expect_clear(*outcome.error);
    if (!outcome.right && must_work)
        ADD_FAILURE() << "not the right result: "
                      << (outcome.error ? outcome.error->message() : "no error, but wrong");
    else if (!outcome.right && !outcome.error)
        ADD_FAILURE() << "neither the right result nor an error";
    else if (!outcome.right)
        expect_explained(*outcome.error);
    for (const Error& error : logged) {
        expect_clear(error);
        expect_explained(error);
    }
}

/// Makes the operation on objects of its own, with the faults in `current`.
/// \returns the calls that it made.
std::vector<LibcCall> run_case(const Operation& operation) {
    SCOPED_TRACE(name_of(operation));
    std::vector<LibcCall> calls;
    calls.reserve(boundary::max_calls);
    std::optional<Errc> refused;
    probe::forget();
    settle();
    logged.reserve(16);
    const auto fds = open_fds();
    const auto maps = mappings();
    const std::ptrdiff_t heap = live_allocations();
    {
        const Attempt make = operation.set_up();
        std::array<Fault, 2> faults;
        std::ranges::transform(current, faults.begin(), &Step::fault);
        boundary::plan(std::span(faults).first(current.size()));
        const Outcome outcome = make();
        calls.assign(boundary::calls().begin(), boundary::calls().end());
        judge(outcome);
        if (!outcome.right)
            refused = outcome.error ? outcome.error->code : Errc::failed;

        // The caller's objects are still of use: the same works once nothing fails.
        boundary::plan({});
        const Outcome again = make();
        EXPECT_TRUE(again.right) << "does not work afterwards: "
                                 << (again.error ? again.error->message() : "no error, but wrong");
    }
    boundary::before_sleep(nullptr);
    logged.clear();
    settle();
    if (!::testing::Test::HasFailure()) { // reports of failures are on the heap as well
        EXPECT_EQ(heap, live_allocations()) << "heap blocks were leaked";
    }
    EXPECT_EQ(fds, open_fds()) << "a fd was leaked, or one too many was closed";
    EXPECT_EQ(maps, mappings()) << "a mapping was leaked, or one too many was dropped";
    EXPECT_EQ(boundary::take_misuse(), "");
    if (!current.empty()) {
        ++(current.size() == 1 ? totals.cases : totals.pairs);
        ++(refused ? totals.refused : totals.right);
        rows << name_of(operation) << ": " << (refused ? to_string(*refused) : "right") << "\n";
    }
    return calls;
}

/// Those of the second fault in a pair: one that must not be seen and one that must, not all.
std::vector<Failure> few_of(std::vector<Failure> failures) {
    std::vector<Failure> few;
    for (const bool invisible : {true, false})
        if (const auto found = std::ranges::find(failures, invisible, &Failure::invisible);
            found != failures.end())
            few.push_back(*found);
    return few;
}

std::vector<Failure> failures_or_fail(const LibcCall& call) {
    auto failures = failures_of(call);
    EXPECT_TRUE(failures) << to_string(call) << " has no row in faults.cpp";
    return failures ? std::move(*failures) : std::vector<Failure>();
}

} // namespace

bool injected(int error) noexcept {
    return std::ranges::any_of(current,
                               [&](const Step& step) { return step.failure.error == error; });
}

std::vector<Error> take_logged() {
    std::vector<Error> taken = logged; // a copy: the room stays, and is no leak
    logged.clear();
    return taken;
}

void explore(const Operation& operation) {
    set_log([](const Error& error, void*) noexcept { logged.push_back(error); }, nullptr);
    struct AtEnd {
        ~AtEnd() {
            current.clear();
            set_log(nullptr, nullptr);
        }
    } at_end;
    current.clear();
    // The first goes put on the heap what stays there.
    for (int warm_up = 0; warm_up < 2; ++warm_up) {
        settle();
        const Attempt make = operation.set_up();
        (void)make();
    }
    boundary::before_sleep(nullptr);
    (void)boundary::take_misuse();
    const std::vector<LibcCall> calls = run_case(operation);
    ++totals.operations;
    totals.calls += calls.size();
    for (std::size_t i = 0; i < calls.size(); ++i) {
        for (const Failure& first : failures_or_fail(calls[i])) {
            if (::testing::Test::HasFailure())
                return; // one case is enough to look for the reason
            const Step one{.fault = {.index = i, .error = first.error, .times = first.times},
                           .call = calls[i],
                           .failure = first};
            current = {one};
            const std::vector<LibcCall> after = run_case(operation);
            for (std::size_t j = i + 1; operation.in_pairs && j < after.size(); ++j) {
                // A storm's own calls are failing already.
                if (j < i + static_cast<std::size_t>(first.times) && after[j] == after[i])
                    continue;
                for (const Failure& second : few_of(failures_or_fail(after[j]))) {
                    current = {one,
                               {.fault = {.index = j, .error = second.error, .times = second.times},
                                .call = after[j],
                                .failure = second}};
                    run_case(operation);
                }
            }
        }
    }
}

std::string summary() {
    std::ostringstream text;
    text << totals.operations << " operations, " << totals.calls << " calls, " << totals.cases
         << " cases of one fault and " << totals.pairs << " of two: " << totals.right
         << " came out right, " << totals.refused << " with an error";
    return text.str();
}

std::string table() {
    return rows.str();
}

} // namespace sluice::test
