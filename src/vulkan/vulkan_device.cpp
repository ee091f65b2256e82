// SPDX-License-Identifier: MIT
#include <sluice/vulkan_device.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <utility>

#include "core/sys.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_error.hpp"

namespace sluice {

namespace {

constexpr std::array required_device_extensions{
    VK_KHR_EXTERNAL_MEMORY_FD_EXTENSION_NAME,        VK_EXT_EXTERNAL_MEMORY_DMA_BUF_EXTENSION_NAME,
    VK_KHR_IMAGE_FORMAT_LIST_EXTENSION_NAME, // in core since 1.2; the next one asks for it
    VK_EXT_IMAGE_DRM_FORMAT_MODIFIER_EXTENSION_NAME, VK_KHR_EXTERNAL_SEMAPHORE_FD_EXTENSION_NAME,
    VK_EXT_QUEUE_FAMILY_FOREIGN_EXTENSION_NAME,
};

constexpr auto destruction_patience = std::chrono::seconds(5);

void destroy(const VulkanDriver& device, VulkanSubmission& submission) noexcept {
    const auto& vk = device.vk;
    for (VkSemaphore wait : submission.waits)
        vk.DestroySemaphore(device.info.device, wait, nullptr);
    vk.DestroySemaphore(device.info.device, submission.signal, nullptr);
    vk.DestroyFence(device.info.device, submission.done, nullptr);
}

Result<VkSemaphore> create_semaphore(const VulkanDriver& device, bool exportable) {
    const VkExportSemaphoreCreateInfo as_sync_fd{
        .sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO,
        .pNext = nullptr,
        .handleTypes = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    const VkSemaphoreCreateInfo create{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                       .pNext = exportable ? &as_sync_fd : nullptr,
                                       .flags = 0};
    VkSemaphore semaphore = VK_NULL_HANDLE;
    const VkResult result =
        device.vk.CreateSemaphore(device.info.device, &create, nullptr, &semaphore);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, "VulkanDevice::submit", device.name,
                                        "vkCreateSemaphore failed; nothing was submitted",
                                        "Free device objects and submit again"));
    return semaphore;
}

/// An idle submission: one whose work is done, or a new one.
Result<VulkanSubmission*> idle_submission(VulkanDevice::State& state) {
    const VulkanDriver& device = *state.driver;
    const auto& vk = device.vk;
    const auto is_done = [&](const VulkanSubmission& each) {
        return vk.GetFenceStatus(device.info.device, each.done) == VK_SUCCESS;
    };
    std::erase_if(state.submissions, [&](const auto& each) {
        const bool useless = each->spoiled && is_done(*each);
        if (useless)
            destroy(device, *each);
        return useless;
    });
    for (auto& each : state.submissions) {
        if (each->spoiled || (each->in_flight && !is_done(*each)))
            continue;
        if (each->in_flight) {
            const VkResult result = vk.ResetFences(device.info.device, 1, &each->done);
            if (result != VK_SUCCESS)
                return tl::unexpected(failed_vk(result, "VulkanDevice::submit", device.name,
                                                "vkResetFences failed; nothing was submitted",
                                                "Free device memory and submit again"));
            each->in_flight = false;
        }
        return each.get();
    }
    auto fresh = std::make_unique<VulkanSubmission>();
    const VkFenceCreateInfo create{
        .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, .pNext = nullptr, .flags = 0};
    const VkResult result = vk.CreateFence(device.info.device, &create, nullptr, &fresh->done);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, "VulkanDevice::submit", device.name,
                                        "vkCreateFence failed; nothing was submitted",
                                        "Free device objects and submit again"));
    auto signal = create_semaphore(device, true);
    if (!signal) {
        vk.DestroyFence(device.info.device, fresh->done, nullptr);
        return tl::unexpected(std::move(signal.error()));
    }
    fresh->signal = *signal;
    state.submissions.push_back(std::move(fresh));
    return state.submissions.back().get();
}

/// Puts \p fence into the wait semaphore number \p index of \p submission, which is idle.
Result<void> import_wait(const VulkanDriver& device, VulkanSubmission& submission,
                         std::size_t index, const SyncFile& fence) {
    if (index == submission.waits.size()) {
        auto semaphore = create_semaphore(device, false);
        if (!semaphore)
            return tl::unexpected(std::move(semaphore.error()));
        submission.waits.push_back(*semaphore);
    }
    // The driver takes the fd where the import succeeds, so it gets a duplicate.
    auto copy = UniqueFd::duplicate(fence.fd());
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    const VkImportSemaphoreFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR,
                                            .pNext = nullptr,
                                            .semaphore = submission.waits[index],
                                            .flags = VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
                                            .handleType =
                                                VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
                                            .fd = copy->release()};
    const VkResult result = device.vk.ImportSemaphoreFdKHR(device.info.device, &import);
    if (result != VK_SUCCESS) {
        sys::take_back(import.fd, fence.fd());
        return tl::unexpected(failed_vk(result, "VulkanDevice::submit",
                                        sys::describe_fd(fence.fd()),
                                        "the driver did not take this fence; nothing was submitted",
                                        "Wait for the fence on the CPU and submit without it"));
    }
    return {};
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

} // namespace

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
#undef F
    return nullptr;
}

VulkanDevice::State::~State() {
    const Deadline deadline = deadline_in(destruction_patience);
    const auto& vk = driver->vk;
    for (auto& submission : submissions) {
        // Destroying what the GPU still uses is undefined, and so would be waiting for ever for a
        // GPU that hangs: what it does not let go of in time is left as it is.
        const auto left = std::chrono::nanoseconds(deadline - Deadline::clock::now()).count();
        const VkResult waited =
            submission->in_flight
                ? vk.WaitForFences(driver->info.device, 1, &submission->done, VK_TRUE,
                                   static_cast<std::uint64_t>(std::max(left, decltype(left){0})))
                : VK_SUCCESS;
        if (waited == VK_SUCCESS || waited == VK_ERROR_DEVICE_LOST)
            destroy(*driver, *submission);
        else if (driver->owner)
            driver->owner->abandoned = true;
    }
}

std::span<const char* const> VulkanDevice::required_extensions() noexcept {
    return required_device_extensions;
}

bool exchanges_sync_fds(PFN_vkGetPhysicalDeviceExternalSemaphoreProperties get_properties,
                        VkPhysicalDevice device) {
    const VkPhysicalDeviceExternalSemaphoreInfo sync_fd{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_SEMAPHORE_INFO,
        .pNext = nullptr,
        .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    VkExternalSemaphoreProperties can{};
    can.sType = VK_STRUCTURE_TYPE_EXTERNAL_SEMAPHORE_PROPERTIES;
    get_properties(device, &sync_fd, &can);
    constexpr VkExternalSemaphoreFeatureFlags both =
        VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT;
    return (can.externalSemaphoreFeatures & both) == both;
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
    VulkanFunctions vk;
    if (const char* missing = load_functions(info, vk))
        return tl::unexpected(Error{
            .code = Errc::invalid_argument,
            .operation = operation,
            .object = missing,
            .problem = "this device does not have the function",
            .remedy =
                "Create the instance for Vulkan 1.1 or up, and the device with the extensions "
                "of VulkanDevice::required_extensions()"});
    VkPhysicalDeviceProperties properties{};
    vk.GetPhysicalDeviceProperties(info.physical_device, &properties);

    if (!exchanges_sync_fds(vk.GetPhysicalDeviceExternalSemaphoreProperties, info.physical_device))
        return tl::unexpected(
            Error{.code = Errc::unsupported,
                  .operation = operation,
                  .object = properties.deviceName,
                  .problem = "the driver does not exchange semaphores as SYNC_FD",
                  .remedy = "Use another device or driver (lavapipe needs Mesa 24 or up and a "
                            "kernel with /dev/udmabuf)"});
    return std::make_shared<VulkanDriver>(VulkanDriver{
        .info = info, .vk = vk, .name = properties.deviceName, .owner = std::move(owner)});
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

const std::string& VulkanDevice::name() const noexcept {
    return state_->driver->name;
}

Result<SyncFile> VulkanDevice::submit(const VulkanSubmitInfo& info) const noexcept {
    constexpr const char* operation = "VulkanDevice::submit";
    const VulkanDriver& device = *state_->driver;
    auto idle = idle_submission(*state_);
    if (!idle)
        return tl::unexpected(std::move(idle.error()));
    VulkanSubmission& submission = **idle;

    std::size_t waits = 0;
    for (const SyncFile& fence : info.wait_fences) {
        // Drivers take a failed fence for a signalled one, so it is told apart here.
        auto status = fence.status();
        if (!status)
            return tl::unexpected(std::move(status.error()));
        if (status->state == FenceState::failed)
            return tl::unexpected(
                Error{.code = Errc::fence_failed,
                      .operation = operation,
                      .object = sys::describe_fd(fence.fd()),
                      .problem = "the work to wait for failed: " + sys::errno_text(status->error) +
                                 "; nothing was submitted",
                      .remedy = "Take what it should have written as lost; submit without it",
                      .sys_errno = status->error});
        if (status->state == FenceState::signalled)
            continue;
        if (auto imported = import_wait(device, submission, waits, fence); !imported)
            return tl::unexpected(std::move(imported.error()));
        ++waits;
    }

    // Few fences are pending at once: their stages fit the stack.
    std::array<VkPipelineStageFlags, 16> few_stages{};
    std::vector<VkPipelineStageFlags> many_stages;
    VkPipelineStageFlags* stages = few_stages.data();
    if (waits > few_stages.size()) {
        many_stages.resize(waits);
        stages = many_stages.data();
    }
    std::fill_n(stages, waits, info.wait_stages);

    const VkSubmitInfo submit{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                              .pNext = nullptr,
                              .waitSemaphoreCount = static_cast<std::uint32_t>(waits),
                              .pWaitSemaphores = submission.waits.data(),
                              .pWaitDstStageMask = stages,
                              .commandBufferCount =
                                  static_cast<std::uint32_t>(info.command_buffers.size()),
                              .pCommandBuffers = info.command_buffers.data(),
                              .signalSemaphoreCount = 1,
                              .pSignalSemaphores = &submission.signal};
    VkResult result = device.vk.QueueSubmit(device.info.queue, 1, &submit, submission.done);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, device.name,
                                        "vkQueueSubmit failed; nothing was submitted",
                                        "Free device memory and submit again"));
    submission.in_flight = true;

    const VkSemaphoreGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
                                      .pNext = nullptr,
                                      .semaphore = submission.signal,
                                      .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    int fd = -1;
    result = device.vk.GetSemaphoreFdKHR(device.info.device, &get, &fd);
    if (result != VK_SUCCESS) {
        submission.spoiled = true;
        return tl::unexpected(
            failed_vk(result, operation, device.name,
                      "the work was submitted, but vkGetSemaphoreFdKHR gave no fence for it",
                      "Wait for the queue (vkQueueWaitIdle) before anyone else uses the frame"));
    }
    if (fd < 0) // the specification's way to say that it has signalled already
        return SyncFile::signalled();
    auto fence = SyncFile::from_fd(UniqueFd(std::move(fd)));
    if (!fence) {
        fence.error().operation = operation;
        fence.error().problem =
            "the work was submitted, but the driver's fence for it " + fence.error().problem;
        fence.error().remedy =
            "Wait for the queue (vkQueueWaitIdle) before anyone else uses the frame";
    }
    return fence;
}

} // namespace sluice
