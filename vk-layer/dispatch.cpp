// SPDX-License-Identifier: MIT
#include "dispatch.hpp"

namespace sluice::layer {

void InstanceFunctions::load(PFN_vkGetInstanceProcAddr next, VkInstance instance) noexcept {
    GetInstanceProcAddr = next;
#define SLUICE_LAYER_LOAD(name) name = reinterpret_cast<PFN_vk##name>(next(instance, "vk" #name));
    SLUICE_LAYER_INSTANCE_FUNCTIONS(SLUICE_LAYER_LOAD)
#undef SLUICE_LAYER_LOAD
}

void DeviceFunctions::load(PFN_vkGetDeviceProcAddr next, VkDevice device) noexcept {
    GetDeviceProcAddr = next;
#define SLUICE_LAYER_LOAD(name) name = reinterpret_cast<PFN_vk##name>(next(device, "vk" #name));
    SLUICE_LAYER_DEVICE_FUNCTIONS(SLUICE_LAYER_LOAD)
    SLUICE_LAYER_OTHER_DEVICE_FUNCTIONS(SLUICE_LAYER_LOAD)
#undef SLUICE_LAYER_LOAD
}

} // namespace sluice::layer
