// SPDX-License-Identifier: MIT
#include <sluice/vulkan_access.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <string>

#include <sluice/implicit_sync.hpp>

#include "core/dma_buf_text.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/sys.hpp"
#include "frame/frame_use.hpp"
#include "vulkan/vulkan_attachment_state.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_error.hpp"

namespace sluice {

namespace {

using Record = VulkanAccess::Record;

Result<void> create_semaphore(const VulkanDriver& driver, bool exportable, VkSemaphore& into,
                              std::string_view operation) {
    const VkExportSemaphoreCreateInfo as_sync_fd{
        .sType = VK_STRUCTURE_TYPE_EXPORT_SEMAPHORE_CREATE_INFO,
        .pNext = nullptr,
        .handleTypes = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    const VkSemaphoreCreateInfo create{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                       .pNext = exportable ? &as_sync_fd : nullptr,
                                       .flags = 0};
    // What a call that failed leaves in its handle is no handle.
    VkSemaphore created = VK_NULL_HANDLE;
    const VkResult result =
        driver.vk.CreateSemaphore(driver.info.device, &create, nullptr, &created);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, driver.name,
                                        "vkCreateSemaphore failed; nothing was submitted",
                                        "Free device objects and try again"));
    into = created;
    return sys::success();
}

Error moved_from(std::string_view operation) {
    return Error{.code = Errc::wrong_object,
                 .operation = std::string(operation),
                 .object = "a VulkanAccess",
                 .problem = "was moved from",
                 .remedy = "Use the one that it was moved to"};
}

Error refusal(std::string_view operation, std::string object, std::string problem,
              std::string remedy) {
    return Error{.code = Errc::invalid_argument,
                 .operation = std::string(operation),
                 .object = std::move(object),
                 .problem = std::move(problem),
                 .remedy = std::move(remedy)};
}

/// Stages to wait in, one for each semaphore. Few fences are pending at once: theirs fit the stack.
class Stages {
public:
    Stages(std::size_t count, VkPipelineStageFlags each) {
        if (count > few_.size())
            many_.resize(count);
        std::fill_n(many_.empty() ? few_.data() : many_.data(), count, each);
    }
    [[nodiscard]] const VkPipelineStageFlags* data() const noexcept {
        return many_.empty() ? few_.data() : many_.data();
    }

private:
    std::array<VkPipelineStageFlags, 16> few_{};
    std::vector<VkPipelineStageFlags> many_;
};

/// A submission of semaphores alone. \p wait and \p signal may be timeline semaphores, with values.
VkResult submit_hop(const VulkanDriver& driver, std::span<const VkSemaphore> waits,
                    const std::uint64_t* wait_value, VkSemaphore signal,
                    const std::uint64_t* signal_value, VkFence done) {
    const VkTimelineSemaphoreSubmitInfo values{.sType =
                                                   VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                               .pNext = nullptr,
                                               .waitSemaphoreValueCount = wait_value ? 1U : 0U,
                                               .pWaitSemaphoreValues = wait_value,
                                               .signalSemaphoreValueCount = signal_value ? 1U : 0U,
                                               .pSignalSemaphoreValues = signal_value};
    const Stages stages(waits.size(), VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
    const VkSubmitInfo submit{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                              .pNext = &values,
                              .waitSemaphoreCount = static_cast<std::uint32_t>(waits.size()),
                              .pWaitSemaphores = waits.data(),
                              .pWaitDstStageMask = stages.data(),
                              .commandBufferCount = 0,
                              .pCommandBuffers = nullptr,
                              .signalSemaphoreCount = signal != VK_NULL_HANDLE ? 1U : 0U,
                              .pSignalSemaphores = &signal};
    return driver.vk.QueueSubmit(driver.info.queue, 1, &submit, done);
}

} // namespace

// ---- one access, step by step ----

Result<void> Record::begin(const VulkanDriver& driver, const Before& before, Deadline deadline,
                           std::string_view operation) {
    const auto give_up = [this](Error error) {
        let_go();
        return tl::unexpected(std::move(error));
    };
    stage = Stage::open;
    taken = true;
    for (const VulkanUse& use : before.uses) {
        if (use.attachment == nullptr)
            return give_up(refusal(operation, driver.name, "a use has no attachment",
                                   "Fill in VulkanUse::attachment"));
        const VulkanAttachment& attachment = *use.attachment;
        const VulkanDeviceInfo& of = VulkanAttachment::State::of(attachment).driver().info;
        if (of.device != driver.info.device)
            return give_up(refusal(operation, describe(attachment.frame().layout()),
                                   "it is attached to another VkDevice",
                                   "Attach the frame to this one"));
        // Its barriers name that family.
        if (of.queue_family != driver.info.queue_family)
            return give_up(refusal(operation, describe(attachment.frame().layout()),
                                   "it is attached for queue family " +
                                       std::to_string(of.queue_family) + ", and submitted to " +
                                       std::to_string(driver.info.queue_family),
                                   "Attach the frame through the VulkanDevice that submits"));
        if (auto used = FrameUse::begin(attachment.frame(), operation); !used)
            return give_up(std::move(used.error()));
        kept.push_back(attachment);
        for (const DmaBuf& buffer : attachment.frame().buffers()) {
            const auto known = std::ranges::find_if(
                buffers, [&](const DmaBuf* each) { return same_buffer(*each, buffer); });
            if (known == buffers.end()) {
                buffers.push_back(&buffer);
                accesses.push_back(use.access);
            } else if (Access& both = accesses[static_cast<std::size_t>(known - buffers.begin())];
                       both != use.access) {
                both = Access::read_write;
            }
        }
    }
    if (!buffers.empty()) {
        auto held = BufferLock::acquire(buffers, deadline);
        if (!held)
            return give_up(std::move(held.error()));
        lock = std::move(*held);
    }
    if (driver.caps.exports_fences && signal == VK_NULL_HANDLE)
        if (auto created = create_semaphore(driver, true, signal, operation); !created)
            return give_up(std::move(created.error()));

    for (std::size_t i = 0; i < buffers.size(); ++i) {
        auto fences = fence_before(*buffers[i], accesses[i]);
        if (!fences)
            return give_up(std::move(fences.error()));
        if (fences->sync_file() == nullptr || !driver.caps.imports_fences) {
            if (auto waited = fences->wait(deadline); !waited)
                return give_up(std::move(waited.error()));
            continue;
        }
        SyncFile input = std::move(*fences).take();
        auto pending = wait_for(driver, input, operation);
        if (!pending)
            return give_up(std::move(pending.error()));
        if (*pending)
            inputs.push_back(std::move(input));
    }
    for (const SyncFile& each : before.fences) {
        if (!driver.caps.imports_fences) {
            if (auto waited = each.wait(deadline); !waited)
                return give_up(std::move(waited.error()));
        } else if (auto pending = wait_for(driver, each, operation); !pending) {
            return give_up(std::move(pending.error()));
        }
    }
    return sys::success();
}

Result<bool> Record::wait_for(const VulkanDriver& driver, const SyncFile& input,
                              std::string_view operation) {
    // Drivers take a failed fence for a signalled one, so it is told apart here.
    auto status = input.status();
    if (!status)
        return tl::unexpected(std::move(status.error()));
    if (status->state == FenceState::failed)
        return tl::unexpected(
            Error{.code = Errc::fence_failed,
                  .operation = std::string(operation),
                  .object = sys::describe_fd(input.fd()),
                  .problem = "the work to wait for failed: " + sys::errno_text(status->error) +
                             "; nothing was submitted",
                  .remedy = "Take what it should have written as lost; submit without it",
                  .sys_errno = status->error});
    if (status->state == FenceState::signalled)
        return false;
    if (wait_count == waits.size()) {
        VkSemaphore created = VK_NULL_HANDLE;
        if (auto made = create_semaphore(driver, false, created, operation); !made)
            return tl::unexpected(std::move(made.error()));
        waits.push_back(created);
    }
    // The driver takes the fd where the import succeeds, so it gets a duplicate.
    auto copy = UniqueFd::duplicate(input.fd());
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    const VkImportSemaphoreFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_SEMAPHORE_FD_INFO_KHR,
                                            .pNext = nullptr,
                                            .semaphore = waits[wait_count],
                                            .flags = VK_SEMAPHORE_IMPORT_TEMPORARY_BIT,
                                            .handleType =
                                                VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT,
                                            .fd = copy->release()};
    const VkResult result = driver.vk.ImportSemaphoreFdKHR(driver.info.device, &import);
    if (result != VK_SUCCESS) {
        sys::take_back(import.fd, input.fd());
        return tl::unexpected(failed_vk(result, operation, sys::describe_fd(input.fd()),
                                        "the driver did not take this fence; nothing was submitted",
                                        "Wait for the fence on the CPU and submit without it"));
    }
    ++wait_count;
    return true;
}

bool Record::done_pending(const VulkanDriver& driver) const noexcept {
    const auto is_pending = [&](const Done& which) {
        if (!which.pending)
            return false;
        // A device that is lost does nothing any more.
        const VkResult status = driver.vk.GetFenceStatus(driver.info.device, which.fence);
        return status != VK_SUCCESS && status != VK_ERROR_DEVICE_LOST;
    };
    return is_pending(done) || is_pending(hopped);
}

Result<void> Record::arm(const VulkanDriver& driver, Done& which, std::string_view operation) {
    if (which.used) {
        const VkResult result = driver.vk.ResetFences(driver.info.device, 1, &which.fence);
        if (result != VK_SUCCESS)
            return tl::unexpected(failed_vk(result, operation, driver.name,
                                            "vkResetFences failed; nothing was submitted",
                                            "Free device memory and submit again"));
        which.used = false;
    }
    if (which.fence != VK_NULL_HANDLE)
        return sys::success();
    const VkFenceCreateInfo create{
        .sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO, .pNext = nullptr, .flags = 0};
    VkFence created = VK_NULL_HANDLE;
    const VkResult result = driver.vk.CreateFence(driver.info.device, &create, nullptr, &created);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, driver.name,
                                        "vkCreateFence failed; nothing was submitted",
                                        "Free device objects and submit again"));
    which.fence = created;
    return sys::success();
}

Result<void> Record::fetch_fence(const VulkanDriver& driver, Deadline deadline,
                                 std::string_view operation) {
    if (fetched)
        return sys::success();
    if (!driver.caps.exports_fences) {
        // With nothing to export the GPU is waited for, here and now.
        if (!done.pending) {
            if (auto armed = arm(driver, done, operation); !armed)
                return armed;
            const VkResult result =
                driver.vk.QueueSubmit(driver.info.queue, 0, nullptr, done.fence);
            if (result != VK_SUCCESS)
                return tl::unexpected(failed_vk(result, operation, driver.name,
                                                "the GPU could not be asked for its end "
                                                "(vkQueueSubmit of a fence)",
                                                "Wait for the queue (vkQueueWaitIdle)"));
            done.pending = done.used = true;
        }
        const auto left = std::chrono::nanoseconds(deadline - Deadline::clock::now()).count();
        const VkResult result =
            driver.vk.WaitForFences(driver.info.device, 1, &done.fence, VK_TRUE,
                                    static_cast<std::uint64_t>(std::max(left, decltype(left){0})));
        if (result == VK_SUCCESS) {
            done.pending = false;
            fetched = true;
            return sys::success();
        }
        Error error =
            failed_vk(result, operation, driver.name,
                      "the work was submitted, but the GPU was not seen to be done with it",
                      "Allow more time, or wait for the queue (vkQueueWaitIdle)");
        if (result == VK_TIMEOUT)
            error.code = Errc::timed_out;
        return tl::unexpected(std::move(error));
    }
    const VkSemaphoreGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_SEMAPHORE_GET_FD_INFO_KHR,
                                      .pNext = nullptr,
                                      .semaphore = signal,
                                      .handleType = VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT};
    int fd = -1;
    const VkResult result = driver.vk.GetSemaphoreFdKHR(driver.info.device, &get, &fd);
    if (result != VK_SUCCESS) {
        spoiled = true;
        return tl::unexpected(
            failed_vk(result, operation, driver.name,
                      "the work was submitted, but vkGetSemaphoreFdKHR gave no fence for it",
                      "Wait for the queue (vkQueueWaitIdle) before anyone else uses the frame"));
    }
    spoiled = false;
    fetched = true;
    // Below 0 is the specification's way to say that it has signalled already. What the driver
    // gave instead of a fence the kernel tells where it goes into a buffer.
    if (fd >= 0)
        fence = SyncFileAdopt::adopt(UniqueFd(std::move(fd)));
    return sys::success();
}

Result<void> Record::hand_over(Deadline deadline, std::string_view operation) {
    Result<void> all = sys::success();
    if (buffers.empty()) // no kernel looks at it on the way
        if (auto status = fence.status(); !status)
            all = tl::unexpected(std::move(status.error()));
    // One that has signalled needs not be waited for by anybody.
    for (std::size_t i = 0; i < buffers.size() && fence.fd() >= 0; ++i) {
        auto left = fence_after(*buffers[i], fence, accesses[i], deadline);
        if (!left && all)
            all = std::move(left);
    }
    if (!all && all.error().code == Errc::wrong_object) {
        spoiled = true; // nothing tells when the GPU is done
        all.error().problem += "; the driver gave no fence";
        all.error().remedy = "Use another driver";
    } else if (!all && all.error().code != Errc::fence_failed) {
        // A buffer that does not carry the fence needs none once that has signalled.
        auto waited = fence.wait(deadline);
        if (waited || waited.error().code == Errc::fence_failed)
            all = std::move(waited);
    }
    if (all || all.error().code == Errc::fence_failed) {
        let_go();
        stage = Stage::ended;
    }
    if (!all) {
        all.error().operation = operation;
        all.error().problem += "; the work was submitted";
        if (stage == Stage::open)
            all.error().remedy += ". Until then wait for the queue (vkQueueWaitIdle) before anyone "
                                  "else uses the frame";
    }
    return all;
}

void Record::let_go() noexcept {
    if (!taken)
        return;
    taken = false;
    lock.reset();
    for (const VulkanAttachment& each : kept)
        FrameUse::end(each.frame());
    if (stage == Stage::open)
        stage = Stage::idle;
}

// ---- VulkanAccess ----

void VulkanAccess::Return::operator()(Record* record) const noexcept {
    device->accesses.give_back(*device->driver, record);
}

VulkanAccess& VulkanAccess::operator=(VulkanAccess&& other) noexcept = default;
VulkanAccess::~VulkanAccess() = default;

std::span<const VkSemaphore> VulkanAccess::wait_semaphores() const noexcept {
    return record_ ? std::span<const VkSemaphore>(record_->waits).first(record_->wait_count)
                   : std::span<const VkSemaphore>();
}

VkSemaphore VulkanAccess::signal_semaphore() const noexcept {
    return record_ ? record_->signal : VK_NULL_HANDLE;
}

const SyncFile& VulkanAccess::fence() const noexcept {
    static const SyncFile none = SyncFile::signalled();
    return record_ ? record_->fence : none;
}

Result<void> VulkanAccess::wait_on_timeline(VkSemaphore timeline, std::uint64_t value) noexcept {
    constexpr std::string_view operation = "VulkanAccess::wait_on_timeline";
    if (!record_)
        return tl::unexpected(moved_from(operation));
    const VulkanDriver& driver = *record_.get_deleter().device->driver;
    if (record_->hopped.pending)
        return tl::unexpected(refusal(operation, driver.name, "this access has been waited on",
                                      "Call it once for each access"));
    // The semaphores are the hop's until it is done, also where the access is given up.
    if (auto armed = Record::arm(driver, record_->hopped, operation); !armed)
        return armed;
    const VkResult result =
        submit_hop(driver, wait_semaphores(), nullptr, timeline, &value, record_->hopped.fence);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, driver.name,
                                        "vkQueueSubmit failed; nothing was submitted",
                                        "Free device memory and try again"));
    record_->hopped.pending = record_->hopped.used = true;
    record_->wait_count = 0;
    return sys::success();
}

Result<void> VulkanAccess::end(Deadline deadline) noexcept {
    constexpr std::string_view operation = "VulkanAccess::end";
    if (!record_)
        return tl::unexpected(moved_from(operation));
    if (record_->stage != Record::Stage::open)
        return sys::success();
    const VulkanDriver& driver = *record_.get_deleter().device->driver;
    if (auto fetched = record_->fetch_fence(driver, deadline, operation); !fetched)
        return fetched;
    return record_->hand_over(deadline, operation);
}

Result<void> VulkanAccess::end_after_timeline(VkSemaphore timeline, std::uint64_t value,
                                              Deadline deadline) noexcept {
    constexpr std::string_view operation = "VulkanAccess::end_after_timeline";
    if (!record_)
        return tl::unexpected(moved_from(operation));
    if (record_->stage != Record::Stage::open)
        return sys::success();
    const VulkanDriver& driver = *record_.get_deleter().device->driver;
    const std::array waits{timeline};
    if (!record_->spoiled && !record_->fetched && !record_->done.pending) { // not submitted before
        const bool exports = driver.caps.exports_fences;
        if (!exports)
            if (auto armed = Record::arm(driver, record_->done, operation); !armed)
                return armed;
        const VkResult result = submit_hop(driver, waits, &value, record_->signal, nullptr,
                                           exports ? VK_NULL_HANDLE : record_->done.fence);
        if (result != VK_SUCCESS)
            return tl::unexpected(failed_vk(result, operation, driver.name,
                                            "vkQueueSubmit failed; the fence is not to be had",
                                            "Free device memory and end it again"));
        if (!exports)
            record_->done.pending = record_->done.used = true;
    }
    return end(deadline);
}

Result<void> VulkanAccess::wait(Deadline deadline) const noexcept {
    constexpr std::string_view operation = "VulkanAccess::wait";
    if (!record_)
        return tl::unexpected(moved_from(operation));
    if (record_->stage != Record::Stage::ended)
        return tl::unexpected(refusal(operation, record_.get_deleter().device->driver->name,
                                      "the access has not ended", "Submit and end it first"));
    if (auto waited = record_->fence.wait(deadline); !waited) {
        waited.error().operation = operation;
        return waited;
    }
    for (const SyncFile& input : record_->inputs) {
        auto done = input.wait(deadline);
        if (!done) {
            done.error().operation = operation;
            return done;
        }
    }
    return sys::success();
}

// ---- VulkanDevice ----

Result<VulkanAccess>
VulkanDevice::begin_access(std::span<const VulkanUse> uses, Deadline deadline,
                           std::span<const SyncFile> wait_fences) const noexcept {
    constexpr std::string_view operation = "VulkanDevice::begin_access";
    VulkanAccess access(state_, state_->accesses.take(*state_->driver));
    if (auto begun =
            access.record_->begin(*state_->driver, {uses, wait_fences}, deadline, operation);
        !begun)
        return tl::unexpected(std::move(begun.error()));
    return access;
}

Result<SyncFile> VulkanDevice::submit(const VulkanSubmitInfo& info) const noexcept {
    constexpr std::string_view operation = "VulkanDevice::submit";
    const VulkanDriver& driver = *state_->driver;
    const Deadline deadline = deadline_in(info.patience);
    const VulkanAccess access(state_, state_->accesses.take(driver));
    Record& record = *access.record_;
    if (auto armed = Record::arm(driver, record.done, operation); !armed)
        return tl::unexpected(std::move(armed.error()));
    if (auto begun = record.begin(driver, {info.uses, info.wait_fences}, deadline, operation);
        !begun)
        return tl::unexpected(std::move(begun.error()));

    const auto waits = access.wait_semaphores();
    const Stages stages(waits.size(), info.wait_stages);
    const VkSubmitInfo submit{.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                              .pNext = nullptr,
                              .waitSemaphoreCount = static_cast<std::uint32_t>(waits.size()),
                              .pWaitSemaphores = waits.data(),
                              .pWaitDstStageMask = stages.data(),
                              .commandBufferCount =
                                  static_cast<std::uint32_t>(info.command_buffers.size()),
                              .pCommandBuffers = info.command_buffers.data(),
                              .signalSemaphoreCount = driver.caps.exports_fences ? 1U : 0U,
                              .pSignalSemaphores = &record.signal};
    const VkResult result = driver.vk.QueueSubmit(driver.info.queue, 1, &submit, record.done.fence);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, operation, driver.name,
                                        "vkQueueSubmit failed; nothing was submitted",
                                        "Free device memory and submit again"));
    record.done.pending = record.done.used = true;
    if (auto fetched = record.fetch_fence(driver, deadline, operation); !fetched)
        return tl::unexpected(std::move(fetched.error()));
    if (auto handed = record.hand_over(deadline, operation); !handed)
        return tl::unexpected(std::move(handed.error()));
    return std::move(record.fence); // `done` tells when the GPU is
}

} // namespace sluice
