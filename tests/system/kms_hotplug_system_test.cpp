// SPDX-License-Identifier: MIT
// The kernel's own events. No screen can be plugged into the cards at hand: writing to a
// connector's `status` in sysfs changes it, and of vkms and virtio-gpu no event follows that. So
// the changes here are those that the kernel tells of on request (`uevent` in sysfs), which come by
// the same way as a hot-plug's but name no connector, and the end of a lease, which is DRM's own
// event.
#include <sluice/kms_hotplug.hpp>

#include <fstream>
#include <vector>

#include <poll.h>
#include <xf86drmMode.h>

#include <sluice/kms_device.hpp>

#include "support/drm_cards.hpp"
#include "support/open_fds.hpp"
#include "support/requires.hpp"
#include "support/vkms.hpp"

namespace sluice {
namespace {

using What = KmsChange::What;

class KmsHotplugSystemTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        node_ = test::card_of("vkms");
        SLUICE_REQUIRES(!node_.empty(), "no vkms card");
        SLUICE_REQUIRES(std::ofstream(uevent_of(node_)), "sysfs is not ours to write");
    }

    static std::string uevent_of(const std::string& node) {
        return "/sys/class/drm/" + node.substr(node.rfind('/') + 1) + "/uevent";
    }
    static void ask_for(const std::string& file, const char* action) {
        std::ofstream(file) << action << std::flush;
    }
    static bool readable(const KmsHotplug& hotplug, int milliseconds) {
        pollfd entry{.fd = hotplug.fd(), .events = POLLIN, .revents = 0};
        return poll(&entry, 1, milliseconds) == 1;
    }
    /// The next change, which has to come.
    static KmsChange next(KmsHotplug& hotplug) {
        EXPECT_TRUE(readable(hotplug, 5000)) << "nothing came";
        auto change = hotplug.read();
        EXPECT_TRUE(change && *change);
        return change && *change ? **change : KmsChange{};
    }

    std::string node_;
};

TEST_F(KmsHotplugSystemTest, SaysWhichDeviceHasChanged) {
    auto hotplug = KmsHotplug::open();
    ASSERT_TRUE(hotplug) << hotplug.error().message();
    const auto none = hotplug->read();
    EXPECT_TRUE(none && !*none) << "nothing has happened yet";
    EXPECT_FALSE(readable(*hotplug, 0));

    ask_for(uevent_of(node_), "change");
    const KmsChange change = next(*hotplug);
    EXPECT_EQ(change, (KmsChange{.what = What::changed,
                                 .device = KmsDevice::open(node_)->device(),
                                 .node = node_}));
    EXPECT_FALSE(readable(*hotplug, 0));

    const std::string other = test::card_of("vgem");
    SLUICE_REQUIRES(!other.empty(), "no vgem card");
    ask_for(uevent_of(other), "change");
    EXPECT_EQ(next(*hotplug).node, other);
    ask_for(uevent_of(node_), "add");
    EXPECT_EQ(next(*hotplug).what, What::added);
    ask_for(uevent_of(node_), "remove");
    EXPECT_EQ(next(*hotplug).what, What::removed);
}

TEST_F(KmsHotplugSystemTest, EventsOfOthersArePassedOver) {
    auto hotplug = KmsHotplug::open();
    ASSERT_TRUE(hotplug) << hotplug.error().message();
    ask_for("/sys/class/mem/null/uevent", "change"); // another subsystem
    ask_for("/sys/class/drm/renderD128/uevent", "change");
    const KmsResources all = *KmsDevice::open(node_)->resources();
    ASSERT_FALSE(all.connectors.empty());
    for (const KmsConnector& each : all.connectors)
        ask_for(uevent_of(node_ + "-" + each.name), "change");
    for (int wait = 0; wait < 10 && readable(*hotplug, 50); ++wait) {
        const auto none = hotplug->read();
        EXPECT_TRUE(none && !*none);
    }
    ask_for(uevent_of(node_), "change");
    EXPECT_EQ(next(*hotplug).node, node_);
}

TEST_F(KmsHotplugSystemTest, TheEndOfALeaseIsTold) {
    const UniqueFd lessor = test::open_drm("vkms");
    const KmsDevice device = *KmsDevice::wrap(lessor.get());
    const KmsResources all = *device.resources();
    std::vector<std::uint32_t> objects;
    for (const KmsConnector& each : all.connectors)
        if (!each.is_writeback()) {
            objects = {each.id, each.crtcs[0],
                       all.planes_of(each.crtcs[0], KmsPlaneType::primary)[0]->id};
            break;
        }
    ASSERT_FALSE(objects.empty());
    auto hotplug = KmsHotplug::open();
    ASSERT_TRUE(hotplug) << hotplug.error().message();
    std::uint32_t lessee = 0;
    UniqueFd lease(drmModeCreateLease(lessor.get(), objects.data(),
                                      static_cast<int>(objects.size()), O_CLOEXEC, &lessee));
    ASSERT_TRUE(lease) << strerror(errno);
    lease.reset(); // its holder goes
    const KmsChange change = next(*hotplug);
    EXPECT_EQ(change.what, What::leases);
    EXPECT_EQ(change.node, node_);
}

} // namespace
} // namespace sluice
