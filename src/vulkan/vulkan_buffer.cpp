// SPDX-License-Identifier: MIT
// VK_EXT_external_memory_dma_buf for buffers.
#include <sluice/vulkan_buffer.hpp>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include <drm_fourcc.h>

#include "core/dma_buf_text.hpp"
#include "frame/frame_use.hpp"
#include "frame/linear_layout.hpp"
#include "vulkan/vulkan_attachment_state.hpp"
#include "vulkan/vulkan_device_state.hpp"
#include "vulkan/vulkan_error.hpp"
#include "vulkan/vulkan_memory.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

/// What only reads; all other uses may write, also storage that a shader reads alone.
constexpr VkBufferUsageFlags reading =
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT |
    VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT | VK_BUFFER_USAGE_INDEX_BUFFER_BIT |
    VK_BUFFER_USAGE_VERTEX_BUFFER_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT;

constexpr auto dma_buf = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;

/// A VkBuffer and its memory, destroyed together, buffer first.
struct Handles {
    explicit Handles(std::shared_ptr<const VulkanDriver> of) noexcept : device(std::move(of)) {}
    Handles(Handles&& other) noexcept
        : device(std::move(other.device)), buffer(std::exchange(other.buffer, VK_NULL_HANDLE)),
          memory(std::exchange(other.memory, {})), size(other.size) {}
    Handles& operator=(Handles&&) = delete;
    ~Handles() {
        if (device == nullptr || device->abandoned)
            return;
        if (buffer != VK_NULL_HANDLE)
            device->vk.DestroyBuffer(device->info.device, buffer, nullptr);
        if (memory.handle != VK_NULL_HANDLE)
            device->vk.FreeMemory(device->info.device, memory.handle, nullptr);
    }

    std::shared_ptr<const VulkanDriver> device;
    VkBuffer buffer = VK_NULL_HANDLE;
    VulkanMemory memory;
    VkDeviceSize size = 0;
};

/// What is to be made, in words for the Errors.
struct Order {
    const VulkanDriver& driver;
    const VulkanMemoryPurpose& purpose;
    VkBufferUsageFlags usage = 0;
    VkDeviceSize size = 0;
    VkExternalMemoryFeatureFlags direction = 0; // importable or exportable
};

tl::unexpected<Error> refuse(const VulkanMemoryPurpose& purpose, Errc code, std::string problem,
                             std::string remedy) {
    return tl::unexpected(Error{.code = code,
                                .operation = purpose.operation,
                                .object = purpose.object(),
                                .problem = std::move(problem),
                                .remedy = std::move(remedy)});
}

tl::unexpected<Error> no_usage(const VulkanMemoryPurpose& purpose) {
    return refuse(purpose, Errc::invalid_argument, "it has no usage",
                  "Say what the GPU will do with the bytes");
}

/// The largest VkBuffer that may be asked for, as far as the device tells.
VkDeviceSize max_buffer_size(const VulkanDriver& driver) {
    VkPhysicalDeviceProperties properties{};
    driver.vk.GetPhysicalDeviceProperties(driver.info.physical_device, &properties);
    if (properties.apiVersion < VK_API_VERSION_1_3)
        return UINT64_MAX;
    VkPhysicalDeviceMaintenance4Properties limits{};
    limits.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES;
    VkPhysicalDeviceProperties2 asked{};
    asked.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    asked.pNext = &limits;
    driver.vk.GetPhysicalDeviceProperties2(driver.info.physical_device, &asked);
    return limits.maxBufferSize;
}

/// Creates the VkBuffer of \p order. \returns what memory it must have.
Result<VulkanMemoryNeeds> create(const Order& order, Handles& into) {
    const auto& [driver, purpose, usage, size, direction] = order;
    const VkPhysicalDeviceExternalBufferInfo asked{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
        .pNext = nullptr,
        .flags = 0,
        .usage = usage,
        .handleType = dma_buf};
    VkExternalBufferProperties can{};
    can.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES;
    driver.vk.GetPhysicalDeviceExternalBufferProperties(driver.info.physical_device, &asked, &can);
    const VkExternalMemoryFeatureFlags features =
        can.externalMemoryProperties.externalMemoryFeatures;
    if ((features & direction) == 0)
        return direction == VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT
                   ? refuse(purpose, Errc::unsupported,
                            "the driver does not import a dma-buf as a VkBuffer for this usage",
                            "Ask for less usage, or attach the frame as an image")
                   : refuse(purpose, Errc::unsupported,
                            "the driver does not export a VkBuffer as a dma-buf for this usage",
                            "Ask for less usage, or use another device (lavapipe exports only "
                            "where /dev/udmabuf opens)");
    if (const VkDeviceSize most = max_buffer_size(driver); size > most)
        return refuse(purpose, Errc::unsupported,
                      "it takes " + std::to_string(size) + " bytes, and the driver's limit is " +
                          std::to_string(most),
                      "Use a smaller frame");

    const VkExternalMemoryBufferCreateInfo external{
        .sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
        .pNext = nullptr,
        .handleTypes = dma_buf};
    const VkBufferCreateInfo info{.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                                  .pNext = &external,
                                  .flags = 0,
                                  .size = size,
                                  .usage = usage,
                                  .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
                                  .queueFamilyIndexCount = 0,
                                  .pQueueFamilyIndices = nullptr};
    // What a call that failed leaves in its handle is no handle.
    VkBuffer created = VK_NULL_HANDLE;
    const VkResult result = driver.vk.CreateBuffer(driver.info.device, &info, nullptr, &created);
    if (result != VK_SUCCESS)
        return tl::unexpected(
            failed_vk(result, purpose.operation, purpose.object(),
                      "vkCreateBuffer failed for " + std::to_string(size) + " bytes",
                      "Free buffers that are no longer used"));
    into.buffer = created;
    into.size = size;

    const VkBufferMemoryRequirementsInfo2 of{
        .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_REQUIREMENTS_INFO_2,
        .pNext = nullptr,
        .buffer = created};
    VkMemoryDedicatedRequirements wants{};
    wants.sType = VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS;
    VkMemoryRequirements2 needs{};
    needs.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2;
    needs.pNext = &wants;
    driver.vk.GetBufferMemoryRequirements2(driver.info.device, &of, &needs);
    return VulkanMemoryNeeds{
        .requirements = needs.memoryRequirements,
        .device_address = (usage & VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT) != 0,
        .dedicated = (features & VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT) != 0 ||
                     wants.requiresDedicatedAllocation == VK_TRUE ||
                     wants.prefersDedicatedAllocation == VK_TRUE,
        .buffer = created};
}

/// Takes \p memory over for the VkBuffer.
Result<void> bind(const VulkanMemoryPurpose& purpose, const VulkanMemory& memory, Handles& into) {
    into.memory = memory;
    const auto& driver = *into.device;
    const VkResult result =
        driver.vk.BindBufferMemory(driver.info.device, into.buffer, memory.handle, 0);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, purpose.operation, purpose.object(),
                                        "the memory could not be bound",
                                        "Free device memory and try again"));
    return {};
}

Result<void> import(const Order& order, const DmaBuf& buffer, Handles& into) {
    if (order.driver.strict)
        if (auto same = check_identity(buffer, order.purpose); !same)
            return same;
    const auto needs = create(order, into);
    if (!needs)
        return tl::unexpected(needs.error());
    auto memory = import_memory(order.driver, *needs, buffer, order.purpose);
    if (!memory)
        return tl::unexpected(std::move(memory.error()));
    return bind(order.purpose, *memory, into);
}

/// \p size bytes as a frame: rows of as many as divide it evenly.
FrameLayout plain_bytes(std::uint64_t size) {
    const int power = std::min(std::countr_zero(size), 30);
    const std::uint64_t row = std::uint64_t{1} << power;
    return {.width = static_cast<std::uint32_t>(row),
            .height = static_cast<std::uint32_t>(std::min<std::uint64_t>(size / row, UINT32_MAX)),
            .format = DRM_FORMAT_R8,
            .planes = {FramePlane{.stride = static_cast<std::uint32_t>(row)}}};
}

VkBufferMemoryBarrier barrier(VkBuffer buffer) noexcept {
    return VkBufferMemoryBarrier{.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER,
                                 .pNext = nullptr,
                                 .srcAccessMask = 0,
                                 .dstAccessMask = 0,
                                 .srcQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                 .dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED,
                                 .buffer = buffer,
                                 .offset = 0,
                                 .size = VK_WHOLE_SIZE};
}

/// The same without stages and access, for the larger masks of synchronization2.
VkBufferMemoryBarrier2 in_stages(const VkBufferMemoryBarrier& from) noexcept {
    return VkBufferMemoryBarrier2{.sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_BARRIER_2,
                                  .pNext = nullptr,
                                  .srcStageMask = VK_PIPELINE_STAGE_2_NONE,
                                  .srcAccessMask = VK_ACCESS_2_NONE,
                                  .dstStageMask = VK_PIPELINE_STAGE_2_NONE,
                                  .dstAccessMask = VK_ACCESS_2_NONE,
                                  .srcQueueFamilyIndex = from.srcQueueFamilyIndex,
                                  .dstQueueFamilyIndex = from.dstQueueFamilyIndex,
                                  .buffer = from.buffer,
                                  .offset = from.offset,
                                  .size = from.size};
}

} // namespace

struct VulkanBuffer::State : VulkanAttachment::State {
    State(Handles&& made, Frame in) noexcept
        : VulkanAttachment::State(std::move(in)), handles(std::move(made)) {
        memory_flags = handles.memory.flags;
    }

    [[nodiscard]] const VulkanDriver& driver() const noexcept override { return *handles.device; }

    Handles handles;
};

VulkanBuffer::VulkanBuffer(std::shared_ptr<const State> state, Frame frame) noexcept
    : VulkanAttachment(std::move(state), std::move(frame)) {}

const VulkanBuffer::State& VulkanBuffer::state() const noexcept {
    return static_cast<const State&>(*state_);
}

VkBuffer VulkanBuffer::buffer() const noexcept {
    return state().handles.buffer;
}

VkDeviceSize VulkanBuffer::size() const noexcept {
    return state().handles.size;
}

VkBufferMemoryBarrier VulkanBuffer::acquire_barrier(Contents contents,
                                                    VkAccessFlags access) const noexcept {
    VkBufferMemoryBarrier acquire = barrier(buffer());
    acquire.dstAccessMask = access;
    // "Queue Family Ownership Transfer": one whose contents are not needed is to be left out.
    if (contents == Contents::keep) {
        acquire.srcQueueFamilyIndex = state().driver().foreign_family();
        acquire.dstQueueFamilyIndex = state().driver().info.queue_family;
    }
    return acquire;
}

VkBufferMemoryBarrier VulkanBuffer::release_barrier(VkAccessFlags access) const noexcept {
    VkBufferMemoryBarrier release = barrier(buffer());
    release.srcAccessMask = access;
    release.srcQueueFamilyIndex = state().driver().info.queue_family;
    release.dstQueueFamilyIndex = state().driver().foreign_family();
    return release;
}

VkBufferMemoryBarrier2 VulkanBuffer::acquire_barrier2(Contents contents,
                                                      VkPipelineStageFlags2 stages,
                                                      VkAccessFlags2 access) const noexcept {
    VkBufferMemoryBarrier2 acquire = in_stages(acquire_barrier(contents, 0));
    acquire.srcStageMask = stages; // what the semaphores hold back
    acquire.dstStageMask = stages;
    acquire.dstAccessMask = access;
    return acquire;
}

VkBufferMemoryBarrier2 VulkanBuffer::release_barrier2(VkPipelineStageFlags2 stages,
                                                      VkAccessFlags2 access) const noexcept {
    VkBufferMemoryBarrier2 release = in_stages(release_barrier(0));
    release.srcStageMask = stages;
    release.srcAccessMask = access;
    return release;
}

Result<VulkanBuffer>
VulkanDevice::attach_buffer(const Frame& frame, const VulkanBufferAttachInfo& info) const noexcept {
    const VulkanDriver& driver = *state_->driver;
    constexpr const char* operation = "VulkanDevice::attach_buffer";
    const VulkanAttachmentKey key{
        .kind = VulkanAttachmentKey::Kind::buffer, .part = info.buffer, .usage = info.usage};
    if (frame.revoked())
        return tl::unexpected(FrameUse::refusal(frame, operation));
    if (auto may = check_mode(driver, frame, (info.usage & ~reading) != 0, operation); !may)
        return tl::unexpected(std::move(may.error()));
    if (auto known = state_->attachments.find(frame, key)) {
        if (known->frame != frame) { // a new one of the same buffers
            // Revoked meanwhile it must not be watched too late.
            if (auto used = FrameUse::begin(frame, operation); !used)
                return tl::unexpected(std::move(used.error()));
            FrameUse::watch(frame, state_->watcher);
            FrameUse::end(frame);
        }
        return VulkanBuffer(std::static_pointer_cast<const VulkanBuffer::State>(std::move(known)),
                            frame);
    }
    const VulkanMemoryPurpose purpose{
        .operation = operation, .object = [&] {
            const bool known = info.buffer < frame.buffers().size();
            return describe(frame.layout()) +
                   (known ? " in " + describe(frame.buffers()[info.buffer]) : std::string()) +
                   " on " + driver.name;
        }};
    if (info.usage == 0)
        return no_usage(purpose);
    if (info.buffer >= frame.buffers().size())
        return refuse(purpose, Errc::invalid_argument,
                      "there is no buffer " + std::to_string(info.buffer) + ", the frame has " +
                          std::to_string(frame.buffers().size()),
                      "Count the buffers from 0");
    const DmaBuf& buffer = frame.buffers()[info.buffer];
    if (auto used = FrameUse::begin(frame, purpose.operation); !used)
        return tl::unexpected(std::move(used.error()));
    Handles handles(state_->driver);
    auto imported = import({.driver = driver,
                            .purpose = purpose,
                            .usage = info.usage,
                            .size = buffer.size(),
                            .direction = VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT},
                           buffer, handles);
    std::shared_ptr<const VulkanAttachment::State> state;
    if (imported) {
        FrameUse::watch(frame, state_->watcher);
        state = state_->attachments.insert(
            key, std::make_shared<const VulkanBuffer::State>(std::move(handles), frame));
    }
    FrameUse::end(frame);
    if (!imported)
        return tl::unexpected(std::move(imported.error()));
    return VulkanBuffer(std::static_pointer_cast<const VulkanBuffer::State>(std::move(state)),
                        frame);
}

Result<VulkanBuffer> VulkanDevice::attach_buffer(const DmaBuf& buffer,
                                                 VkBufferUsageFlags usage) const noexcept {
    constexpr const char* operation = "VulkanDevice::attach_buffer";
    auto copy = buffer.duplicate();
    if (!copy) {
        copy.error().operation = operation;
        return tl::unexpected(std::move(copy.error()));
    }
    auto frame = Frame::create(plain_bytes(buffer.size()), std::move(*copy));
    if (!frame) {
        frame.error().operation = operation;
        return tl::unexpected(std::move(frame.error()));
    }
    return attach_buffer(*frame, {.usage = usage});
}

Result<VulkanBuffer> VulkanDevice::export_buffer(const VulkanBufferInfo& info) const noexcept {
    const VulkanDriver& driver = *state_->driver;
    const VulkanMemoryPurpose purpose{.operation = "VulkanDevice::export_buffer", .object = [&] {
                                          return std::to_string(info.width) + "x" +
                                                 std::to_string(info.height) + " " +
                                                 format_name(info.format) +
                                                 " LINEAR in a VkBuffer on " + driver.name;
                                      }};
    const FormatInfo* format = find_format(info.format);
    if (format == nullptr)
        return refuse(purpose, Errc::unsupported, "it is not a format that sluice knows",
                      "Use one of formats()");
    if (info.usage == 0)
        return no_usage(purpose);
    if (info.width == 0 || info.height == 0)
        return refuse(purpose, Errc::invalid_argument, "it has no pixels",
                      "Give a width and a height");
    auto plan = lay_out_linear(*format, {.width = info.width,
                                         .height = info.height,
                                         .padded_height = info.height,
                                         .stride_alignment = info.alignment,
                                         .offset_alignment = info.alignment,
                                         .whole_blocks = true});
    if (!plan)
        return refuse(purpose, Errc::invalid_argument, std::move(plan.error()),
                      "Ask for a smaller image or a smaller alignment");

    Handles handles(state_->driver);
    const auto needs = create({.driver = driver,
                               .purpose = purpose,
                               .usage = info.usage,
                               .size = plan->size,
                               .direction = VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT},
                              handles);
    if (!needs)
        return tl::unexpected(needs.error());
    auto memory = allocate_exportable(driver, *needs, purpose);
    if (!memory)
        return tl::unexpected(std::move(memory.error()));
    if (auto bound = bind(purpose, *memory, handles); !bound)
        return tl::unexpected(std::move(bound.error()));
    auto buffer = export_memory(driver, memory->handle, purpose);
    if (!buffer)
        return tl::unexpected(std::move(buffer.error()));
    auto frame = Frame::create(plan->layout, std::move(*buffer));
    if (!frame)
        return tl::unexpected(std::move(frame.error()));
    return VulkanBuffer(std::make_shared<const VulkanBuffer::State>(std::move(handles), *frame),
                        *frame);
}

} // namespace sluice
