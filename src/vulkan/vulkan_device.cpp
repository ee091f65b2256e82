// SPDX-License-Identifier: MIT
#include <sluice/vulkan_device.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <utility>

#include "core/sys.hpp"
#include "vulkan/vulkan_device_state.hpp"

namespace sluice {

namespace {

constexpr std::array wanted_extensions{
    VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,        VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
    VK_KHR_IMAGE_FORMAT_LIST_EXTENSION_NAME, // in core since 1.2; the next one asks for it
    VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME, VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME,
    VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME,
};

constexpr auto destruction_patience = std::chrono::seconds(5);

/// Whether the application says that it enabled \p extension.
bool enabled(const VulkanDeviceInfo& info, const char* extension) {
    return info.extensions.empty() ||
           std::ranges::any_of(info.extensions, [extension](const char* each) {
               return std::strcmp(each, extension) == 0;
           });
}

/// The name of the first field that must be filled in and is not, or null.
const char* null_field(const VulkanDeviceInfo& info) {
    if (info.get_instance_proc_addr == nullptr)
        return "get_instance_proc_addr";
    if (info.instance == VK_NULL_HANDLE)
        return "instance";
    if (info.physical_device == VK_NULL_HANDLE)
        return "physical_device";
    if (info.device == VK_NULL_HANDLE)
        return "device";
    if (info.queue == VK_NULL_HANDLE)
        return "queue";
    return nullptr;
}

/// Looks the functions up. \returns the name of the first that is missing, or null.
const char* load_functions(const VulkanDeviceInfo& info, VulkanFunctions& vk) {
#define F(name)                                                                                    \
    vk.name =                                                                                      \
        reinterpret_cast<PFN_vk##name>(info.get_instance_proc_addr(info.instance, "vk" #name));    \
    if (vk.name == nullptr)                                                                        \
        return "vk" #name;
    SLUICE_VK_INSTANCE_FUNCTIONS(F)
#undef F
#define F(name)                                                                                    \
    vk.name = reinterpret_cast<PFN_vk##name>(vk.GetDeviceProcAddr(info.device, "vk" #name));       \
    if (vk.name == nullptr)                                                                        \
        return "vk" #name;
    SLUICE_VK_DEVICE_FUNCTIONS(F)
    if (enabled(info, VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME)) {
        SLUICE_VK_MODIFIER_FUNCTIONS(F)
    }
    if (enabled(info, VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME)) {
        SLUICE_VK_SEMAPHORE_FD_FUNCTIONS(F)
    }
#undef F
    return nullptr;
}

} // namespace

VulkanDevice::State::~State() {
    watcher->forget();
    accesses.clear(*driver, deadline_in(destruction_patience));
}

void VulkanDevice::State::Watcher::revoked(const Frame& frame) noexcept {
    const std::scoped_lock held(lock_);
    if (state_ == nullptr)
        return;
    state_->attachments.drop(frame);
    state_->accesses.collect(*state_->driver); // what finished may hold one still
}

void VulkanDevice::State::Watcher::forget() noexcept {
    const std::scoped_lock held(lock_);
    state_ = nullptr;
}

std::span<const char* const> VulkanDevice::required_extensions() noexcept {
    return wanted_extensions;
}

VkExternalSemaphoreFeatureFlags
sync_fd_features(PFN_vkGetPhysicalDeviceExternalSemaphoreProperties get_properties,
                 VkPhysicalDevice device) {
    const VkPhysicalDeviceExternalSemaphoreInfo sync_fd{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_SEMAPHORE_INFO,
        .pNext = nullptr,
        .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    VkExternalSemaphoreProperties can{};
    can.sType = VK_STRUCTURE_TYPE_EXTERNAL_SEMAPHORE_PROPERTIES;
    get_properties(device, &sync_fd, &can);
    return can.externalSemaphoreFeatures;
}

Result<std::shared_ptr<VulkanDriver>> wrap_device(const VulkanDeviceInfo& info,
                                                  std::shared_ptr<VulkanOwner> owner) {
    constexpr const char* operation = "VulkanDevice::wrap";
    if (const char* field = null_field(info))
        return tl::unexpected(Error{.code = Errc::invalid_argument,
                                    .operation = operation,
                                    .object = std::string("VulkanDeviceInfo::") + field,
                                    .problem = "is null",
                                    .remedy = "Fill in every field of VulkanDeviceInfo"});
    auto driver = std::make_shared<VulkanDriver>();
    const auto& vk = driver->vk;
    if (const char* missing = load_functions(info, driver->vk))
        return tl::unexpected(Error{
            .code = Errc::invalid_argument,
            .operation = operation,
            .object = missing,
            .problem = "this device does not have the function",
            .remedy =
                "Create the instance for Vulkan 1.1 or up, and the device with the extensions "
                "of VulkanDevice::required_extensions()"});
    driver->set_self_bracketing = reinterpret_cast<SelfBracketingFunction>(
        vk.GetDeviceProcAddr(info.device, self_bracketing_name));
    VkPhysicalDeviceProperties properties{};
    vk.GetPhysicalDeviceProperties(info.physical_device, &properties);
    driver->name = properties.deviceName;
    vk.GetPhysicalDeviceMemoryProperties(info.physical_device, &driver->memory);
    driver->info = info;
    driver->info.extensions = {};
    driver->owner = std::move(owner);
    driver->strict = sys::strict_by_environment();

    VkExternalSemaphoreFeatureFlags fences = 0;
    if (enabled(info, VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME))
        fences =
            sync_fd_features(vk.GetPhysicalDeviceExternalSemaphoreProperties, info.physical_device);
    driver->caps = {.imports_fences = (fences & VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT) != 0,
                    .exports_fences = (fences & VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT) != 0,
                    .foreign_queue = enabled(info, VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME),
                    .modifiers = enabled(info, VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME)};
    return driver;
}

VulkanDevice::VulkanDevice(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}

Result<VulkanDevice> VulkanDevice::wrap(const VulkanDeviceInfo& info) noexcept {
    auto driver = wrap_device(info, nullptr);
    if (!driver)
        return tl::unexpected(std::move(driver.error()));
    return VulkanDevice(std::make_shared<State>(std::move(*driver)));
}

const VulkanDeviceInfo& VulkanDevice::info() const noexcept {
    return state_->driver->info;
}

const VulkanDeviceCaps& VulkanDevice::caps() const noexcept {
    return state_->driver->caps;
}

void VulkanDevice::drop_idle_attachments() const noexcept {
    state_->accesses.collect(*state_->driver);
    state_->attachments.drop_idle();
}

const std::string& VulkanDevice::name() const noexcept {
    return state_->driver->name;
}

} // namespace sluice
