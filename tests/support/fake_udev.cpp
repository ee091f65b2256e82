// SPDX-License-Identifier: MIT
// The functions of libudev.h that the library calls.
#include "support/fake_udev.hpp"

#include <cassert>
#include <cerrno>

#include <libudev.h>

#include <gtest/gtest.h>

namespace {

sluice::test::FakeUdev* fake = nullptr;

} // namespace

struct udev {};
struct udev_monitor {};
struct udev_device {
    sluice::test::FakeUdev::Event event;
    std::string name, node;
};

namespace {

template <typename T> T* give(int error, T object = {}) {
    if (error != 0) {
        errno = error;
        return nullptr;
    }
    ++fake->alive;
    return new T(std::move(object));
}

template <typename T> T* take_back(T* object) {
    --fake->alive;
    delete object;
    return nullptr;
}

} // namespace

namespace sluice::test {

FakeUdev::FakeUdev() {
    assert(fake == nullptr);
    fake = this;
}

FakeUdev::~FakeUdev() {
    EXPECT_EQ(alive, 0) << "objects were left behind";
    fake = nullptr;
}

} // namespace sluice::test

extern "C" {

udev* udev_new() {
    return give<udev>(fake->new_error);
}

udev* udev_unref(udev* context) {
    return take_back(context);
}

udev_monitor* udev_monitor_new_from_netlink(udev*, const char* source) {
    fake->source = source;
    return give<udev_monitor>(fake->monitor_error);
}

udev_monitor* udev_monitor_unref(udev_monitor* monitor) {
    return take_back(monitor);
}

int udev_monitor_filter_add_match_subsystem_devtype(udev_monitor*, const char* subsystem,
                                                    const char* devtype) {
    fake->subsystem = subsystem;
    fake->devtype = devtype;
    return -fake->filter_error;
}

int udev_monitor_enable_receiving(udev_monitor*) {
    return -fake->enable_error;
}

int udev_monitor_get_fd(udev_monitor*) {
    return 99;
}

udev_device* udev_monitor_receive_device(udev_monitor*) {
    if (fake->events.empty()) {
        errno = EAGAIN;
        return nullptr;
    }
    udev_device device{.event = fake->events.front()};
    fake->events.pop_front();
    device.name = device.event.path.substr(device.event.path.rfind('/') + 1);
    device.node = "/dev/dri/" + device.name;
    const int error = device.event.error;
    return give<udev_device>(error, std::move(device));
}

udev_device* udev_device_unref(udev_device* device) {
    return take_back(device);
}

const char* udev_device_get_sysname(udev_device* device) {
    return device->name.c_str();
}

const char* udev_device_get_action(udev_device* device) {
    return device->event.action.empty() ? nullptr : device->event.action.c_str();
}

const char* udev_device_get_devpath(udev_device* device) {
    return device->event.path.c_str();
}

const char* udev_device_get_devnode(udev_device* device) {
    return device->node.c_str();
}

const char* udev_device_get_property_value(udev_device* device, const char* name) {
    const auto found = device->event.properties.find(name);
    return found != device->event.properties.end() ? found->second.c_str() : nullptr;
}
}
