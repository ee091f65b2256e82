// SPDX-License-Identifier: MIT
#include <sluice/kms_hotplug.hpp>

#include <cerrno>

#include <fcntl.h>
#include <gtest/gtest.h>

#include "support/fake_udev.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace sluice {
namespace {

using Event = test::FakeUdev::Event;
using What = KmsChange::What;

class KmsHotplugTest : public test::FdTest {
protected:
    static KmsHotplug open() {
        auto hotplug = KmsHotplug::open();
        EXPECT_TRUE(hotplug) << hotplug.error().message();
        return std::move(*hotplug);
    }
    /// The only change that \p event is.
    KmsChange read(Event event) {
        KmsHotplug hotplug = open();
        udev_.events.push_back(std::move(event));
        const auto change = hotplug.read();
        EXPECT_TRUE(change && *change);
        const auto none = hotplug.read();
        EXPECT_TRUE(none && !*none);
        return change && *change ? **change : KmsChange{};
    }

    test::ScriptedLibc libc_;
    test::FakeUdev udev_;
};

TEST_F(KmsHotplugTest, NamesTheDeviceAndTheConnector) {
    EXPECT_EQ(read({.properties = {{"HOTPLUG", "1"}, {"CONNECTOR", "41"}, {"PROPERTY", "7"}}}),
              (KmsChange{.what = What::changed,
                         .device = "/devices/platform/vkms",
                         .node = "/dev/dri/card2",
                         .connector = 41,
                         .property = 7}));
    EXPECT_EQ(read({.properties = {{"HOTPLUG", "1"}}}).connector, 0U);
    EXPECT_EQ(read({.properties = {{"CONNECTOR", "many"}}}).connector, 0U);
    EXPECT_EQ(read({.properties = {{"LEASE", "1"}}}).what, What::leases);
    EXPECT_EQ(read({.action = "add"}).what, What::added);
    EXPECT_EQ(read({.action = "remove", .path = "/devices/pci0000:00/0000:00:02.0/drm/card10"}),
              (KmsChange{.what = What::removed,
                         .device = "/devices/pci0000:00/0000:00:02.0",
                         .node = "/dev/dri/card10"}));
}

TEST_F(KmsHotplugTest, WhatIsNoCardIsPassedOver) {
    KmsHotplug hotplug = open();
    EXPECT_EQ(udev_.subsystem, "drm");
    for (const char* path :
         {"/devices/platform/vkms/drm/renderD128", "/devices/platform/vkms/drm/card2/card2-DP-1",
          "/devices/platform/vkms/drm/card", "/devices/virtual/drm/ttm"})
        udev_.events.push_back({.path = path});
    udev_.events.push_back({.action = "bind"});
    udev_.events.push_back({.action = ""});
    udev_.events.push_back({.action = "add"});
    const auto change = hotplug.read();
    ASSERT_TRUE(change && *change);
    EXPECT_EQ((*change)->what, What::added) << "the last, and the others are gone";
    EXPECT_TRUE(udev_.events.empty());
}

TEST_F(KmsHotplugTest, LostEventsAreTold) {
    EXPECT_EQ(read({.error = ENOBUFS}), KmsChange{.what = What::unknown});
}

TEST_F(KmsHotplugTest, ASignalIsNoError) {
    KmsHotplug hotplug = open();
    udev_.events = {{.error = EINTR}, {}};
    const auto change = hotplug.read();
    ASSERT_TRUE(change && *change);
    EXPECT_EQ((*change)->what, What::changed);
    udev_.events = {{.error = ENOMEM}};
    const auto refused = hotplug.read();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::no_resources);
    EXPECT_EQ(refused.error().sys_errno, ENOMEM);
}

TEST_F(KmsHotplugTest, ListensToUdevdWhereItRunsAndToTheKernelElse) {
    for (const bool runs : {true, false}) {
        libc_.open = [runs](const char* path, int) {
            EXPECT_STREQ(path, "/run/udev/control");
            if (runs)
                return test::ScriptedLibc::real_open("/dev/null", O_PATH | O_CLOEXEC);
            errno = ENOENT;
            return -1;
        };
        (void)open();
        EXPECT_EQ(udev_.source, runs ? "udev" : "kernel");
    }
}

TEST_F(KmsHotplugTest, SaysWhyItCannotListen) {
    for (int* error :
         {&udev_.new_error, &udev_.monitor_error, &udev_.filter_error, &udev_.enable_error}) {
        *error = EMFILE;
        const auto refused = KmsHotplug::open();
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::no_resources) << refused.error().message();
        EXPECT_FALSE(refused.error().remedy.empty());
        *error = 0;
    }
}

TEST_F(KmsHotplugTest, OneThatWasMovedFromSaysSo) {
    KmsHotplug hotplug = open();
    const KmsHotplug other = std::move(hotplug);
    EXPECT_EQ(hotplug.fd(), -1); // NOLINT(bugprone-use-after-move): what it is about
    EXPECT_EQ(hotplug.read().error().code, Errc::wrong_object);
    EXPECT_EQ(other.fd(), 99);
}

} // namespace
} // namespace sluice
