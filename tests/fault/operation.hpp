// SPDX-License-Identifier: MIT
/// \file
/// The table's entries: one public operation each, with what it needs and what it has to give.
///
/// A new one is a function that makes the objects anew and returns an attempt():
///
///     {"DmaBuf::duplicate", [] {
///          auto buffer = std::make_shared<DmaBuf>(udmabuf(4096));
///          return attempt([=] { return buffer->duplicate(); },
///                         [=](auto& copy) { return copy && same_buffer(*buffer, *copy); });
///      }},
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sluice/error.hpp>

#include "fault/libc_boundary.hpp"

namespace sluice::test {

/// What one attempt came to.
struct Outcome {
    bool right = false;
    std::optional<Error> error; ///< Whatever error there was, be it the right result or not.
};

/// Makes the attempt, on the objects that it owns; again after a failure.
using Attempt = std::function<Outcome()>;

struct Operation {
    std::string name;
    std::function<Attempt()> set_up;
    bool needs_heap = false; ///< /dev/dma_heap/system
    bool in_pairs = true;    ///< Pairs of faults too; not where each case waits for a screen.
};

/// An attempt at \p run, which returns a Result and is exposed to the faults; \p right looks at the
/// Result, which it may change, and says whether it is the right one.
template <typename Run, typename Right> Attempt attempt(Run run, Right right) {
    return [run, right]() mutable {
        boundary::arm();
        auto result = run();
        boundary::disarm();
        Outcome outcome{.right = right(result)};
        if (!result)
            outcome.error = std::move(result.error());
        return outcome;
    };
}

/// Whether this case makes some call fail with \p error, now or in the attempt before: what a
/// kernel without a call answers may make something else the right result.
[[nodiscard]] bool injected(int error) noexcept;

/// The errors that went to the log (set_log) since the last call, oldest first.
[[nodiscard]] std::vector<Error> take_logged();

/// The tables. Others follow as the library grows.
[[nodiscard]] std::vector<Operation> core_operations();
[[nodiscard]] std::vector<Operation> device_operations();
[[nodiscard]] std::vector<Operation> vulkan_operations(); ///< Where Vulkan is built in.

/// Makes \p operation without faults, then once with each fault of each call that it made, and once
/// with each pair of that and a fault of a call that came after it. Fails the running test where
/// the library does not stand it.
void explore(const Operation& operation);

/// What all explorations came to, for people: the totals, and a row for each case.
[[nodiscard]] std::string summary();
[[nodiscard]] std::string table();

} // namespace sluice::test
