// SPDX-License-Identifier: MIT
/// \file
/// libudev's monitor, linked in its place: events of any kind, on any machine.
#pragma once

#include <deque>
#include <map>
#include <string>

namespace sluice::test {

/// What the monitor receives. One at a time.
struct FakeUdev {
    FakeUdev();
    ~FakeUdev();
    FakeUdev(const FakeUdev&) = delete;
    FakeUdev& operator=(const FakeUdev&) = delete;

    struct Event {
        int error = 0; ///< Receiving fails with it.
        std::string action = "change";
        std::string path = "/devices/platform/vkms/drm/card2";
        std::map<std::string, std::string> properties = {};
    };
    std::deque<Event> events;

    int new_error = 0, monitor_error = 0, filter_error = 0, enable_error = 0;
    std::string source, subsystem, devtype; ///< What was asked for.
    int alive = 0;                          ///< Objects that were not given back.
};

} // namespace sluice::test
