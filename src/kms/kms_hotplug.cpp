// SPDX-License-Identifier: MIT
#include <sluice/kms_hotplug.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <libudev.h>

#include "core/sys.hpp"
#include <sluice/unique_fd.hpp>

namespace sluice {

namespace {

struct Unref {
    void operator()(udev* context) const noexcept { udev_unref(context); }
    void operator()(udev_monitor* monitor) const noexcept { udev_monitor_unref(monitor); }
    void operator()(udev_device* device) const noexcept { udev_device_unref(device); }
};
using Context = std::unique_ptr<udev, Unref>;
using Monitor = std::unique_ptr<udev_monitor, Unref>;
using Device = std::unique_ptr<udev_device, Unref>;

/// libudev itself takes a devtmpfs for a sign of udevd, and then waits for events that never come.
bool udevd_runs() noexcept {
    return static_cast<bool>(UniqueFd(::open("/run/udev/control", O_PATH | O_CLOEXEC)));
}

std::string_view text_of(const char* text) noexcept {
    return text != nullptr ? std::string_view(text) : std::string_view();
}

std::uint32_t number_of(udev_device& device, const char* property) noexcept {
    const std::string_view text = text_of(udev_device_get_property_value(&device, property));
    std::uint32_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
}

/// "card0", but neither "renderD128" nor "card0-HDMI-A-1", which has no node.
bool is_card(std::string_view name) noexcept {
    constexpr std::string_view prefix = "card";
    return name.size() > prefix.size() && name.starts_with(prefix) &&
           std::ranges::all_of(name.substr(prefix.size()),
                               [](char c) { return c >= '0' && c <= '9'; });
}

/// What the event says of a card, or nothing.
std::optional<KmsChange> change_of(udev_device& device) {
    if (!is_card(text_of(udev_device_get_sysname(&device))))
        return std::nullopt;
    const std::string_view action = text_of(udev_device_get_action(&device));
    KmsChange change;
    if (action == "add")
        change.what = KmsChange::What::added;
    else if (action == "remove")
        change.what = KmsChange::What::removed;
    else if (action == "change")
        change.what =
            number_of(device, "LEASE") != 0 ? KmsChange::What::leases : KmsChange::What::changed;
    else
        return std::nullopt; // "bind", "unbind": of no interest, or of none yet
    // "/devices/platform/vkms/drm/card2" is one of the device's nodes.
    const std::string_view path = text_of(udev_device_get_devpath(&device));
    change.device = path.substr(0, path.rfind("/drm/"));
    change.node = text_of(udev_device_get_devnode(&device));
    change.connector = number_of(device, "CONNECTOR");
    change.property = number_of(device, "PROPERTY");
    return change;
}

} // namespace

struct KmsHotplug::State {
    Context context;
    Monitor monitor;
};

std::string to_string(KmsChange::What what) noexcept {
    constexpr std::array names{"added", "removed", "changed", "leases", "unknown"};
    return names[static_cast<std::size_t>(what)];
}

KmsHotplug::KmsHotplug(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
KmsHotplug::KmsHotplug(KmsHotplug&&) noexcept = default;
KmsHotplug& KmsHotplug::operator=(KmsHotplug&&) noexcept = default;
KmsHotplug::~KmsHotplug() = default;

Result<KmsHotplug> KmsHotplug::open() noexcept {
    const auto refuse = [](int error) {
        return tl::unexpected(sys::failed_call(error, "KmsHotplug::open", "uevents",
                                               "the kernel's events cannot be listened to",
                                               "Let the sandbox have netlink sockets, or look at "
                                               "KmsDevice::resources from time to time"));
    };
    auto state = std::make_unique<State>();
    errno = ENOMEM; // older ones set none
    state->context.reset(udev_new());
    if (!state->context)
        return refuse(errno);
    errno = ENOMEM;
    state->monitor.reset(
        udev_monitor_new_from_netlink(state->context.get(), udevd_runs() ? "udev" : "kernel"));
    if (!state->monitor)
        return refuse(errno);
    udev_monitor* monitor = state->monitor.get();
    // "drm_minor" is cards and render nodes; connectors are devices of their own.
    if (const int result =
            udev_monitor_filter_add_match_subsystem_devtype(monitor, "drm", "drm_minor");
        result < 0)
        return refuse(-result);
    if (const int result = udev_monitor_enable_receiving(monitor); result < 0)
        return refuse(-result);
    return KmsHotplug(std::move(state));
}

int KmsHotplug::fd() const noexcept {
    return state_ ? udev_monitor_get_fd(state_->monitor.get()) : -1;
}

Result<std::optional<KmsChange>> KmsHotplug::read() noexcept {
    constexpr const char* operation = "KmsHotplug::read";
    if (!state_)
        return tl::unexpected(Error{.code = Errc::wrong_object,
                                    .operation = operation,
                                    .object = "no KmsHotplug",
                                    .problem = "the object was moved from",
                                    .remedy = "Use the one that it was moved to"});
    for (;;) {
        errno = EAGAIN;
        const Device device(udev_monitor_receive_device(state_->monitor.get()));
        if (device) {
            if (auto change = change_of(*device))
                return change;
            continue;
        }
        switch (const int error = errno; error) {
        case EINTR:
            continue;
        case EAGAIN:
            return std::nullopt;
        case ENOBUFS: // netlink(7): some were lost, the next are whole again
            return KmsChange{};
        default:
            return tl::unexpected(sys::failed_call(error, operation, sys::describe_fd(fd()),
                                                   "no event could be received",
                                                   "Read again, or open a new one"));
        }
    }
}

} // namespace sluice
