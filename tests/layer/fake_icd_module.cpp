// SPDX-License-Identifier: MIT
// FakeIcd as a driver that the Vulkan loader loads. What it complains about goes to stderr.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>

#include <vulkan/vk_icd.h>

#include "layer/fake_icd.hpp"

namespace {

sluice::test::FakeIcd& driver() {
    static sluice::test::FakeIcd one([](const std::string& what) {
        (void)std::fprintf(stderr, "fake_icd: %s\n", what.c_str());
    });
    return one;
}

} // namespace

// The names and types are the loader's.
extern "C" {

__attribute__((visibility("default"))) VkResult VKAPI_CALL
vk_icdNegotiateLoaderICDInterfaceVersion(std::uint32_t* version) {
    (void)driver();
    *version = std::min(*version, 5U);
    return VK_SUCCESS;
}

__attribute__((visibility("default"))) PFN_vkVoidFunction VKAPI_CALL
vk_icdGetInstanceProcAddr(VkInstance instance, const char* name) {
    (void)driver();
    return sluice::test::FakeIcd::get_instance_proc_addr(instance, name);
}
}
