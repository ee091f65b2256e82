// SPDX-License-Identifier: MIT
#include "validate.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include <poll.h>

#include "chain.hpp"
#include "core/sys.hpp"
#include "planes.hpp"
#include "recorder.hpp"
#include "report.hpp"

namespace sluice::layer {

namespace {

constexpr auto dma_buf = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;
/// DRM_FORMAT_MOD_LINEAR and DRM_FORMAT_MOD_INVALID, of drm_fourcc.h.
constexpr std::uint64_t linear = 0, invalid = 0x00FF'FFFF'FFFF'FFFF;

/// The usages that write by transfers alone, or not at all.
constexpr VkImageUsageFlags plain_image_usage =
    VK_IMAGE_USAGE_TRANSFER_SRC_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT | VK_IMAGE_USAGE_SAMPLED_BIT |
    VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT;
constexpr VkBufferUsageFlags plain_buffer_usage =
    VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |
    VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT | VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT |
    VK_BUFFER_USAGE_INDEX_BUFFER_BIT | VK_BUFFER_USAGE_VERTEX_BUFFER_BIT;

std::string hex(std::uint64_t value) {
    std::array<char, 24> text{};
    (void)std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
    return text.data();
}

std::string words(const DmaBuf& buffer) {
    return "the dma-buf with inode " + std::to_string(buffer.inode()) + " (" +
           std::to_string(buffer.size()) + " bytes)";
}

std::string words(const SharedMemoryPtr& memory) {
    const DmaBuf* buffer = memory->buffer();
    return buffer != nullptr ? words(*buffer) : "memory that may be exported as a dma-buf";
}

Object object(VkDeviceMemory memory) {
    return {.type = VK_OBJECT_TYPE_DEVICE_MEMORY, .handle = number_of(memory)};
}

std::string words(Object of) {
    return (of.type == VK_OBJECT_TYPE_IMAGE ? "VkImage " : "VkBuffer ") + hex(of.handle);
}

const VkImportMemoryFdInfoKHR* imported(const VkMemoryAllocateInfo& info) {
    const auto* import =
        find_in<VkImportMemoryFdInfoKHR>(info.pNext, VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR);
    return import != nullptr && import->handleType == dma_buf ? import : nullptr;
}

const VkImageDrmFormatModifierExplicitCreateInfoEXT* explicit_layout(const VkImageCreateInfo& of) {
    if (of.tiling != VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT)
        return nullptr;
    return find_in<VkImageDrmFormatModifierExplicitCreateInfoEXT>(
        of.pNext, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_EXPLICIT_CREATE_INFO_EXT);
}

/// The modifiers that \p info names, one or several.
std::span<const std::uint64_t> modifiers_of(const VkImageCreateInfo& info) {
    if (info.tiling != VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT)
        return {};
    if (const auto* one = explicit_layout(info))
        return {&one->drmFormatModifier, 1};
    const auto* list = find_in<VkImageDrmFormatModifierListCreateInfoEXT>(
        info.pNext, VK_STRUCTURE_TYPE_IMAGE_DRM_FORMAT_MODIFIER_LIST_CREATE_INFO_EXT);
    return list != nullptr ? std::span(list->pDrmFormatModifiers, list->drmFormatModifierCount)
                           : std::span<const std::uint64_t>();
}

/// Whether \p external, one of Vulkan's structures about external memory, says that it is a
/// dma-buf.
template <typename External> bool is_shared(const void* next, VkStructureType type) {
    const auto* external = find_in<External>(next, type);
    return external != nullptr && (external->handleTypes & dma_buf) != 0;
}

/// Whether nothing can be done in \p layout but to read.
bool is_read_only(VkImageLayout layout) noexcept {
    return layout == VK_IMAGE_LAYOUT_SHADER_READ_ONLY_OPTIMAL ||
           layout == VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL ||
           layout == VK_IMAGE_LAYOUT_READ_ONLY_OPTIMAL;
}

std::optional<std::uint32_t> plane_of(const void* next) {
    const auto* plane =
        find_in<VkBindImagePlaneMemoryInfo>(next, VK_STRUCTURE_TYPE_BIND_IMAGE_PLANE_MEMORY_INFO);
    if (plane == nullptr)
        return std::nullopt;
    switch (plane->planeAspect) {
    case VK_IMAGE_ASPECT_PLANE_1_BIT:
    case VK_IMAGE_ASPECT_MEMORY_PLANE_1_BIT_EXT:
        return 1;
    case VK_IMAGE_ASPECT_PLANE_2_BIT:
    case VK_IMAGE_ASPECT_MEMORY_PLANE_2_BIT_EXT:
        return 2;
    case VK_IMAGE_ASPECT_MEMORY_PLANE_3_BIT_EXT:
        return 3;
    default:
        return 0;
    }
}

/// Whether both are one dma-buf, or one memory that is none yet.
bool same(const SharedMemoryPtr& one, const SharedMemoryPtr& other) {
    if (one == other)
        return true;
    const DmaBuf *a = one->buffer(), *b = other->buffer();
    return a == nullptr || b == nullptr || same_buffer(*a, *b);
}

} // namespace

void ValidateInstanceFunctions::load(PFN_vkGetInstanceProcAddr next, VkInstance instance) noexcept {
#define SLUICE_VALIDATE_LOAD(name)                                                                 \
    name = reinterpret_cast<PFN_vk##name>(next(instance, "vk" #name));
    SLUICE_VALIDATE_INSTANCE_FUNCTIONS(SLUICE_VALIDATE_LOAD)
#undef SLUICE_VALIDATE_LOAD
}

Validation::Validation(const Place& place, PFN_vkGetDeviceProcAddr rest)
    : physical_device_(place.physical_device), device_(place.device), instance_(place.of_instance),
      tracker_(place.tracker), timelines_(place.timelines),
      messenger_(place.instance, place.of_instance.SubmitDebugUtilsMessageEXT) {
#define SLUICE_VALIDATE_LOAD(name)                                                                 \
    down.name = reinterpret_cast<PFN_vk##name>(rest(device_, "vk" #name));
    SLUICE_VALIDATE_FUNCTIONS(SLUICE_VALIDATE_LOAD)
    SLUICE_VALIDATE_OTHER_FUNCTIONS(SLUICE_VALIDATE_LOAD)
#undef SLUICE_VALIDATE_LOAD
}

std::optional<Validation::Made> Validation::find(Object resource) const {
    const std::scoped_lock held(lock_);
    const auto found = made_.find(resource);
    return found != made_.end() ? std::optional(found->second) : std::nullopt;
}

SharedMemoryPtr Validation::memory_of(VkDeviceMemory memory) const {
    const std::scoped_lock held(lock_);
    const auto found = allocations_.find(memory);
    return found != allocations_.end() ? found->second.memory : nullptr;
}

void Validation::lose() noexcept {
    if (lost_.exchange(true))
        return;
    warn("no memory for what is known of a device: nothing of it is checked any more");
    ownership.forget();
    const std::scoped_lock held(lock_);
    made_.clear();
    allocations_.clear();
    buffers_.clear();
    taken_.clear();
    late_.clear();
}

// ---- Imports ------------------------------------------------------------------------------------

Validation::Import Validation::allocate(const VkMemoryAllocateInfo& info) {
    Import found;
    // A duplicate: the fd is the driver's as soon as it has taken it.
    if (const auto* import = imported(info)) {
        auto buffer = DmaBuf::from_borrowed_fd(import->fd);
        check_fd(import->fd, buffer, "vkAllocateMemory");
        if (buffer) {
            check_size(info, *buffer);
            found.buffer = std::move(*buffer);
        }
    }
    found.before = OwnWork::submissions();
    return found;
}

void Validation::allocated(const VkMemoryAllocateInfo& info, VkDeviceMemory memory,
                           Import&& found) {
    const auto* import = imported(info);
    if (found.buffer) {
        Taken taken{.by = memory, .kept = nullptr};
        if (sys::same_open_file(import->fd, found.buffer->fd()))
            taken.kept = std::make_shared<const DmaBuf>(std::move(*found.buffer));
        else
            driver_keeps_fds_ = false;
        const std::scoped_lock held(lock_);
        taken_.insert_or_assign(import->fd, std::move(taken));
    }
    const SharedMemoryPtr shared = tracker_.memory_of(memory);
    if (!shared)
        return;
    ownership.allocated(shared, import != nullptr);
    const auto* dedicated = find_in<VkMemoryDedicatedAllocateInfo>(
        info.pNext, VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO);
    const std::scoped_lock held(lock_);
    std::erase_if(buffers_, [](const auto& each) { return each.second.of.expired(); });
    buffers_.try_emplace(shared.get(), Buffer{.of = shared, .imported_at = found.before});
    allocations_.insert_or_assign(
        memory,
        Allocation{.memory = shared,
                   .is_dedicated = dedicated != nullptr && (dedicated->image != VK_NULL_HANDLE ||
                                                            dedicated->buffer != VK_NULL_HANDLE)});
}

void Validation::freed(VkDeviceMemory memory) noexcept {
    const std::scoped_lock held(lock_);
    allocations_.erase(memory);
    for (auto& [fd, taken] : taken_)
        if (taken.by == memory)
            taken.kept = nullptr;
}

void Validation::check_size(const VkMemoryAllocateInfo& info, const DmaBuf& buffer) const {
    if (info.allocationSize <= buffer.size())
        return;
    messenger_.say(Mistake::allocation_beyond_buffer, {},
                   "vkAllocateMemory imports " + std::to_string(info.allocationSize) +
                       " bytes of " + words(buffer));
}

void Validation::check_fd(int fd, const Result<DmaBuf>& buffer, const char* function) {
    VkDeviceMemory by = VK_NULL_HANDLE;
    std::shared_ptr<const DmaBuf> kept;
    {
        const std::scoped_lock held(lock_);
        const auto found = taken_.find(fd);
        if (found == taken_.end())
            return;
        by = found->second.by;
        kept = found->second.kept;
    }
    const std::string start = std::string(function) + " is given fd " + std::to_string(fd) +
                              ", which an earlier import took over";
    if (!buffer && buffer.error().code == Errc::wrong_object)
        messenger_.say(Mistake::fd_reused, object(by), start + ": it is no open dma-buf any more");
    // Otherwise the number may be a new fd's, unless the driver keeps what it takes. One that ever
    // did not is not taken for one that does.
    else if (buffer && kept && driver_keeps_fds_ && sys::same_open_file(fd, kept->fd()))
        messenger_.say(Mistake::fd_reused, object(by), start + ": it is the driver's, twice then");
}

void Validation::ask_for_properties(VkExternalMemoryHandleTypeFlagBits type, int fd) {
    if (type != dma_buf)
        return;
    // Whoever asks may not know what it is, but must have it.
    if (const auto buffer = DmaBuf::from_borrowed_fd(fd);
        !buffer && buffer.error().sys_errno == EBADF)
        check_fd(fd, buffer, "vkGetMemoryFdPropertiesKHR");
}

// ---- The CPU ------------------------------------------------------------------------------------

std::optional<SyncFile> Validation::fence_of_others(const SharedMemoryPtr& memory, Access access) {
    const DmaBuf* buffer = memory->buffer();
    if (buffer == nullptr)
        return std::nullopt;
    OwnWork::Since own;
    {
        const std::scoped_lock held(lock_);
        const auto found = buffers_.find(memory.get());
        if (found == buffers_.end())
            return std::nullopt;
        own = own_work.since(found->second.idle_at, found->second.imported_at);
    }
    auto fence = buffer->export_fence(access);
    if (!fence)
        return std::nullopt;
    const bool pending = fence->fd() >= 0 && sys::poll_now(fence->fd(), POLLIN) == 0;
    const std::scoped_lock held(lock_);
    const auto found = buffers_.find(memory.get());
    if (found == buffers_.end())
        return std::nullopt;
    Buffer& of = found->second;
    if (!pending) {
        if (access == Access::write) // nobody's is
            of.idle_at = std::max(of.idle_at, own.submissions);
        return std::nullopt;
    }
    // Where the application has work under way, since before or since just now, the fence may be
    // its own, whatever that work does: some drivers leave fences in all buffers.
    if (!own.none || OwnWork::submissions() != own.submissions || of.resources.size() > 1)
        return std::nullopt;
    return std::move(*fence);
}

void Validation::mapped(VkDeviceMemory memory) {
    const SharedMemoryPtr shared = memory_of(memory);
    if (!shared)
        return;
    ownership.written_unseen(shared);
    auto pending = fence_of_others(shared, Access::read);
    const std::scoped_lock held(lock_);
    if (const auto found = allocations_.find(memory); found != allocations_.end())
        found->second.pending = std::move(pending);
}

void Validation::unmap(VkDeviceMemory memory) {
    std::optional<SyncFile> pending;
    SharedMemoryPtr shared;
    {
        const std::scoped_lock held(lock_);
        const auto found = allocations_.find(memory);
        if (found == allocations_.end())
            return;
        pending = std::exchange(found->second.pending, std::nullopt);
        shared = found->second.memory;
    }
    // To map is not to touch. But what was pending all the while was so at every touch.
    if (pending && sys::poll_now(pending->fd(), POLLIN) == 0)
        messenger_.say(Mistake::cpu_access_while_pending, object(memory),
                       "VkDeviceMemory " + hex(number_of(memory)) +
                           " was mapped and is unmapped while others still write to " +
                           words(shared));
}

void Validation::touch(std::span<const VkMappedMemoryRange> ranges, Access access) {
    for (const VkMappedMemoryRange& each : ranges) {
        const SharedMemoryPtr shared = memory_of(each.memory);
        if (shared && fence_of_others(shared, access))
            messenger_.say(Mistake::cpu_access_while_pending, object(each.memory),
                           access == Access::read
                               ? "vkInvalidateMappedMemoryRanges makes visible to the CPU what "
                                 "others still write to " +
                                     words(shared)
                               : "vkFlushMappedMemoryRanges hands over what the CPU wrote while "
                                 "others still use " +
                                     words(shared));
    }
}

// ---- Images and buffers -------------------------------------------------------------------------

std::vector<VkDrmFormatModifierPropertiesEXT> Validation::listed(VkFormat format) const {
    const auto ask = instance_.GetPhysicalDeviceFormatProperties2 != nullptr
                         ? instance_.GetPhysicalDeviceFormatProperties2
                         : instance_.GetPhysicalDeviceFormatProperties2KHR;
    if (ask == nullptr)
        return {};
    VkDrmFormatModifierPropertiesListEXT list{
        .sType = VK_STRUCTURE_TYPE_DRM_FORMAT_MODIFIER_PROPERTIES_LIST_EXT,
        .pNext = nullptr,
        .drmFormatModifierCount = 0,
        .pDrmFormatModifierProperties = nullptr};
    VkFormatProperties2 properties{
        .sType = VK_STRUCTURE_TYPE_FORMAT_PROPERTIES_2, .pNext = &list, .formatProperties = {}};
    ask(physical_device_, format, &properties);
    std::vector<VkDrmFormatModifierPropertiesEXT> all(list.drmFormatModifierCount);
    list.pDrmFormatModifierProperties = all.data();
    ask(physical_device_, format, &properties);
    all.resize(list.drmFormatModifierCount);
    return all;
}

void Validation::create(const VkImageCreateInfo& info) const {
    const auto named = modifiers_of(info);
    if (named.empty() || (instance_.GetPhysicalDeviceFormatProperties2 == nullptr &&
                          instance_.GetPhysicalDeviceFormatProperties2KHR == nullptr))
        return;
    const std::string start = "vkCreateImage, VkFormat " + std::to_string(info.format) + ": ";
    const auto all = listed(info.format);
    bool may_be_disjoint = true;
    for (const std::uint64_t modifier : named) {
        if (modifier == invalid) {
            messenger_.say(Mistake::modifier_invalid, {},
                           start + "DRM_FORMAT_MOD_INVALID stands for a layout that nobody told, "
                                   "and is none");
            continue;
        }
        const auto found =
            std::ranges::find(all, modifier, &VkDrmFormatModifierPropertiesEXT::drmFormatModifier);
        if (found == all.end()) {
            messenger_.say(Mistake::modifier_not_listed, {},
                           start + "the driver does not list the modifier " + hex(modifier) +
                               " among its " + std::to_string(all.size()));
            continue;
        }
        if (const auto* layout = explicit_layout(info);
            layout != nullptr &&
            layout->drmFormatModifierPlaneCount != found->drmFormatModifierPlaneCount)
            messenger_.say(Mistake::plane_count, {},
                           start + "there are layouts for " +
                               std::to_string(layout->drmFormatModifierPlaneCount) +
                               " planes, and with the modifier " + hex(modifier) + " there are " +
                               std::to_string(found->drmFormatModifierPlaneCount));
        may_be_disjoint = may_be_disjoint && (found->drmFormatModifierTilingFeatures &
                                              VK_FORMAT_FEATURE_DISJOINT_BIT) != 0;
    }
    const bool may_alias = (info.flags & VK_IMAGE_CREATE_ALIAS_BIT) != 0;
    if ((info.flags & VK_IMAGE_CREATE_DISJOINT_BIT) != 0 && !may_be_disjoint &&
        (format_planes(info.format) > 1 || !may_alias))
        messenger_.say(Mistake::disjoint_not_listed, {},
                       start + "it is to be disjoint, and the driver does not list "
                               "VK_FORMAT_FEATURE_DISJOINT_BIT for its modifier");
}

bool Validation::is_dedicated_only(const VkImageCreateInfo& info) const {
    const auto ask = instance_.GetPhysicalDeviceImageFormatProperties2 != nullptr
                         ? instance_.GetPhysicalDeviceImageFormatProperties2
                         : instance_.GetPhysicalDeviceImageFormatProperties2KHR;
    const auto named = modifiers_of(info);
    if (ask == nullptr || named.size() > 1 || // the driver has chosen
        !is_shared<VkExternalMemoryImageCreateInfo>(
            info.pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_IMAGE_CREATE_INFO))
        return false;
    const VkPhysicalDeviceImageDrmFormatModifierInfoEXT modifier{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_DRM_FORMAT_MODIFIER_INFO_EXT,
        .pNext = nullptr,
        .drmFormatModifier = named.empty() ? linear : named[0],
        .sharingMode = info.sharingMode,
        .queueFamilyIndexCount = info.queueFamilyIndexCount,
        .pQueueFamilyIndices = info.pQueueFamilyIndices};
    const VkPhysicalDeviceExternalImageFormatInfo as_dma_buf{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_IMAGE_FORMAT_INFO,
        .pNext = named.empty() ? nullptr : &modifier,
        .handleType = dma_buf};
    const VkPhysicalDeviceImageFormatInfo2 asked{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_IMAGE_FORMAT_INFO_2,
        .pNext = &as_dma_buf,
        .format = info.format,
        .type = info.imageType,
        .tiling = info.tiling,
        .usage = info.usage,
        .flags = info.flags};
    VkExternalImageFormatProperties external{.sType =
                                                 VK_STRUCTURE_TYPE_EXTERNAL_IMAGE_FORMAT_PROPERTIES,
                                             .pNext = nullptr,
                                             .externalMemoryProperties = {}};
    VkImageFormatProperties2 properties{.sType = VK_STRUCTURE_TYPE_IMAGE_FORMAT_PROPERTIES_2,
                                        .pNext = &external,
                                        .imageFormatProperties = {}};
    return ask(physical_device_, &asked, &properties) == VK_SUCCESS &&
           (external.externalMemoryProperties.externalMemoryFeatures &
            VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT) != 0;
}

bool Validation::is_dedicated_only(const VkBufferCreateInfo& info) const {
    const auto ask = instance_.GetPhysicalDeviceExternalBufferProperties != nullptr
                         ? instance_.GetPhysicalDeviceExternalBufferProperties
                         : instance_.GetPhysicalDeviceExternalBufferPropertiesKHR;
    if (ask == nullptr || !is_shared<VkExternalMemoryBufferCreateInfo>(
                              info.pNext, VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO))
        return false;
    const VkPhysicalDeviceExternalBufferInfo asked{
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_EXTERNAL_BUFFER_INFO,
        .pNext = nullptr,
        .flags = info.flags,
        .usage = info.usage,
        .handleType = dma_buf};
    VkExternalBufferProperties properties{.sType = VK_STRUCTURE_TYPE_EXTERNAL_BUFFER_PROPERTIES,
                                          .pNext = nullptr,
                                          .externalMemoryProperties = {}};
    ask(physical_device_, &asked, &properties);
    return (properties.externalMemoryProperties.externalMemoryFeatures &
            VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT) != 0;
}

void Validation::created(VkImage image, const VkImageCreateInfo& info) {
    Made made{.disjoint = (info.flags & VK_IMAGE_CREATE_DISJOINT_BIT) != 0,
              .dedicated_only = is_dedicated_only(info),
              .writes_unseen = (info.usage & ~plain_image_usage) != 0,
              .levels = info.mipLevels,
              .layers = info.arrayLayers,
              .format_planes = format_planes(info.format)};
    if (const auto* layout = explicit_layout(info)) {
        const bool flat = info.arrayLayers == 1 && info.mipLevels == 1 && info.extent.depth == 1;
        for (std::uint32_t i = 0; i < layout->drmFormatModifierPlaneCount; ++i) {
            const VkSubresourceLayout& plane = layout->pPlaneLayouts[i];
            // Of other modifiers no more is known than where a plane begins.
            std::uint64_t bytes = 1;
            if (layout->drmFormatModifier == linear && flat)
                bytes = linear_plane_bytes(info.format, i, info.extent, plane.rowPitch).value_or(1);
            std::uint64_t end = 0;
            if (__builtin_add_overflow(plane.offset, bytes, &end))
                end = UINT64_MAX;
            made.needs.push_back({.offset = plane.offset, .end = end});
        }
    }
    const std::scoped_lock held(lock_);
    made_.insert_or_assign(object(image), std::move(made));
}

void Validation::created(VkBuffer buffer, const VkBufferCreateInfo& info) {
    // Other structures may give it more usages.
    bool plain = (info.usage & ~plain_buffer_usage) == 0;
    for (const auto* each = static_cast<const VkBaseInStructure*>(info.pNext); each != nullptr;
         each = each->pNext)
        plain = plain && each->sType == VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO;
    Made made{
        .dedicated_only = is_dedicated_only(info), .writes_unseen = !plain, .size = info.size};
    const std::scoped_lock held(lock_);
    made_.insert_or_assign(object(buffer), std::move(made));
}

void Validation::destroyed(Object resource) noexcept {
    ownership.destroyed(resource);
    const std::scoped_lock held(lock_);
    made_.erase(resource);
    for (auto& [memory, buffer] : buffers_)
        std::erase(buffer.resources, resource);
}

void Validation::check_planes(VkImage image, const Made& made, const DmaBuf& buffer,
                              VkDeviceSize offset, std::optional<std::uint32_t> plane) const {
    for (std::uint32_t i = 0; i < made.needs.size(); ++i) {
        if (plane && i != *plane)
            continue;
        std::uint64_t end = 0;
        if (__builtin_add_overflow(made.needs[i].end, offset, &end))
            end = UINT64_MAX;
        if (end > buffer.size())
            messenger_.say(Mistake::plane_beyond_buffer, object(image),
                           words(object(image)) + ": plane " + std::to_string(i) +
                               " begins at byte " + std::to_string(made.needs[i].offset) +
                               " and needs " + std::to_string(end) + " bytes of " + words(buffer) +
                               ", where it is bound at byte " + std::to_string(offset));
    }
}

void Validation::check_dedicated(Object resource, const Made& made, VkDeviceMemory memory) const {
    {
        const std::scoped_lock held(lock_);
        const auto found = allocations_.find(memory);
        if (found == allocations_.end() || found->second.is_dedicated)
            return;
    }
    VkMemoryDedicatedRequirements dedicated{.sType =
                                                VK_STRUCTURE_TYPE_MEMORY_DEDICATED_REQUIREMENTS,
                                            .pNext = nullptr,
                                            .prefersDedicatedAllocation = VK_FALSE,
                                            .requiresDedicatedAllocation = VK_FALSE};
    VkMemoryRequirements2 requirements{.sType = VK_STRUCTURE_TYPE_MEMORY_REQUIREMENTS_2,
                                       .pNext = &dedicated,
                                       .memoryRequirements = {}};
    if (resource.type == VK_OBJECT_TYPE_IMAGE) {
        const auto ask = down.GetImageMemoryRequirements2 != nullptr
                             ? down.GetImageMemoryRequirements2
                             : down.GetImageMemoryRequirements2KHR;
        const VkImageMemoryRequirementsInfo2 info{
            .sType = VK_STRUCTURE_TYPE_IMAGE_MEMORY_REQUIREMENTS_INFO_2,
            .pNext = nullptr,
            .image = handle_of<VkImage>(resource.handle)};
        if (ask != nullptr)
            ask(device_, &info, &requirements);
    } else {
        const auto ask = down.GetBufferMemoryRequirements2 != nullptr
                             ? down.GetBufferMemoryRequirements2
                             : down.GetBufferMemoryRequirements2KHR;
        const VkBufferMemoryRequirementsInfo2 info{
            .sType = VK_STRUCTURE_TYPE_BUFFER_MEMORY_REQUIREMENTS_INFO_2,
            .pNext = nullptr,
            .buffer = handle_of<VkBuffer>(resource.handle)};
        if (ask != nullptr)
            ask(device_, &info, &requirements);
    }
    if (dedicated.requiresDedicatedAllocation == VK_TRUE || made.dedicated_only)
        messenger_.say(Mistake::dedicated_missing, resource,
                       words(resource) + " needs a dedicated allocation (" +
                           (made.dedicated_only ? "VK_EXTERNAL_MEMORY_FEATURE_DEDICATED_ONLY_BIT"
                                                : "requiresDedicatedAllocation") +
                           "), and is bound to VkDeviceMemory " + hex(number_of(memory)) +
                           ", which is none");
}

void Validation::bind(VkImage image, VkDeviceMemory memory, VkDeviceSize offset, const void* next) {
    const SharedMemoryPtr shared = memory_of(memory);
    const auto made = find(object(image));
    if (!shared || !made)
        return;
    const auto plane = plane_of(next);
    if (const DmaBuf* buffer = shared->buffer())
        check_planes(image, *made, *buffer, offset, plane);
    if (made->disjoint)
        return;
    if (made->memory && !same(made->memory, shared))
        messenger_.say(Mistake::planes_need_disjoint, object(image),
                       words(object(image)) + " is bound to " + words(shared) + " beside " +
                           words(made->memory) + ", and is not disjoint");
    check_dedicated(object(image), *made, memory);
}

void Validation::bind(VkBuffer buffer, VkDeviceMemory memory) {
    const auto made = find(object(buffer));
    if (made && memory_of(memory))
        check_dedicated(object(buffer), *made, memory);
}

void Validation::bound(Object resource, VkDeviceMemory memory) {
    const SharedMemoryPtr shared = memory_of(memory);
    if (!shared)
        return;
    bool writes_unseen = true;
    {
        const std::scoped_lock held(lock_);
        if (const auto found = made_.find(resource); found != made_.end()) {
            writes_unseen = found->second.writes_unseen;
            if (!found->second.memory)
                found->second.memory = shared;
        }
        if (const auto found = buffers_.find(shared.get());
            found != buffers_.end() &&
            std::ranges::find(found->second.resources, resource) == found->second.resources.end())
            found->second.resources.push_back(resource);
    }
    if (writes_unseen)
        ownership.written_unseen(shared);
}

void Validation::bound_sparsely(VkDeviceMemory memory) {
    if (const SharedMemoryPtr shared = memory_of(memory))
        ownership.written_unseen(shared);
}

// ---- Commands -----------------------------------------------------------------------------------

bool Validation::is_whole(const VkImageSubresourceRange& range, Object image) const {
    const std::scoped_lock held(lock_);
    const auto found = made_.find(image);
    if (found == made_.end())
        return false;
    const Made& made = found->second;
    VkImageAspectFlags planes = 0;
    for (std::uint32_t i = 0; i < made.format_planes; ++i)
        planes |= VkImageAspectFlags{VK_IMAGE_ASPECT_PLANE_0_BIT} << i;
    return range.baseMipLevel == 0 && range.levelCount >= made.levels &&
           range.baseArrayLayer == 0 && range.layerCount >= made.layers &&
           ((range.aspectMask & VK_IMAGE_ASPECT_COLOR_BIT) != 0 ||
            (made.format_planes > 1 && (range.aspectMask & planes) == planes));
}

bool Validation::is_whole(VkDeviceSize offset, VkDeviceSize size, Object buffer) const {
    const std::scoped_lock held(lock_);
    const auto found = made_.find(buffer);
    return found != made_.end() && offset == 0 &&
           (size == VK_WHOLE_SIZE || size >= found->second.size);
}

template <typename Handle>
void Validation::uses(VkCommandBuffer commands, Handle what, Event::Kind kind) {
    if (!tracker_.active())
        return;
    Behind behind = tracker_.behind(what);
    if (behind.memories[0])
        ownership.record(commands, {.kind = kind, .on = object(what), .behind = std::move(behind)});
}
template void Validation::uses(VkCommandBuffer, VkImage, Event::Kind);
template void Validation::uses(VkCommandBuffer, VkBuffer, Event::Kind);

template <typename Barrier>
void Validation::image_barrier(VkCommandBuffer commands, const Barrier& barrier) {
    Event event{.on = object(barrier.image)};
    const bool from = is_outside(barrier.srcQueueFamilyIndex);
    const bool to = is_outside(barrier.dstQueueFamilyIndex);
    if (from != to)
        event.kind = from ? Event::Kind::acquire : Event::Kind::release;
    else if (from || barrier.oldLayout == barrier.newLayout)
        return;
    else if (barrier.oldLayout != VK_IMAGE_LAYOUT_UNDEFINED)
        event.kind = Event::Kind::read;
    else {
        event.kind = Event::Kind::discard;
        event.to_be_read = is_read_only(barrier.newLayout);
    }
    event.behind = tracker_.behind(barrier.image);
    if (!event.behind.memories[0])
        return;
    event.whole = is_whole(barrier.subresourceRange, event.on);
    ownership.record(commands, std::move(event));
}

template <typename Barrier>
void Validation::buffer_barrier(VkCommandBuffer commands, const Barrier& barrier) {
    const bool from = is_outside(barrier.srcQueueFamilyIndex);
    if (from == is_outside(barrier.dstQueueFamilyIndex))
        return;
    Event event{.kind = from ? Event::Kind::acquire : Event::Kind::release,
                .on = object(barrier.buffer),
                .behind = tracker_.behind(barrier.buffer)};
    if (!event.behind.memories[0])
        return;
    event.whole = is_whole(barrier.offset, barrier.size, event.on);
    ownership.record(commands, std::move(event));
}

void Validation::barriers(VkCommandBuffer commands, std::span<const VkImageMemoryBarrier> images,
                          std::span<const VkBufferMemoryBarrier> buffers) {
    if (!tracker_.active())
        return;
    for (const auto& each : images)
        image_barrier(commands, each);
    for (const auto& each : buffers)
        buffer_barrier(commands, each);
}

void Validation::barriers(VkCommandBuffer commands, const VkDependencyInfo& info) {
    if (!tracker_.active())
        return;
    for (const auto& each : std::span(info.pImageMemoryBarriers, info.imageMemoryBarrierCount))
        image_barrier(commands, each);
    for (const auto& each : std::span(info.pBufferMemoryBarriers, info.bufferMemoryBarrierCount))
        buffer_barrier(commands, each);
}

// ---- Submissions --------------------------------------------------------------------------------

void Validation::Submission::executes(VkCommandBuffer commands) {
    if (of_.tracker_.active())
        of_.ownership.collect(commands, recorded_);
}

void Validation::Submission::waits_for(const SemaphoreAt& at) {
    if (!of_.timelines_.any())
        return;
    // What a batch before this one signals is no later than the waits before that.
    if (std::ranges::any_of(signals_, [&](const SemaphoreAt& each) {
            return each.semaphore == at.semaphore && each.value >= at.value;
        }))
        return;
    const OpenWait wait = of_.timelines_.wait_of(at);
    if (!of_.timelines_.is_on_its_way(wait))
        waits_.push_back(wait);
}

void Validation::Submission::signals(const SemaphoreAt& at) {
    if (of_.timelines_.any())
        signals_.push_back(at);
}

void Validation::Submission::before() {
    bool in_order = waits_.empty();
    if (of_.timelines_.any()) {
        // What a queue gets waits for all that the queue waits for. Only this thread is in it.
        std::vector<OpenWait> late;
        {
            const std::scoped_lock held(of_.lock_);
            late = std::move(of_.late_[queue_]);
        }
        std::erase_if(late, [&](const auto& each) { return of_.timelines_.is_on_its_way(each); });
        in_order = in_order && late.empty();
        late.insert(late.end(), waits_.begin(), waits_.end());
        const std::scoped_lock held(of_.lock_);
        of_.late_[queue_] = std::move(late);
    }
    if (!in_order) {
        of_.own_work.submits_late();
        of_.ownership.ignore(recorded_);
    }
    for (const Finding& each : of_.ownership.submit(recorded_))
        of_.messenger_.say(each.mistake, each.on,
                           each.mistake == Mistake::handover_without_release
                               ? words(each.on) + " takes " + words(each.memory) +
                                     " from others again, and never handed it over in between"
                               : words(each.on) + " is read, and nothing has taken " +
                                     words(each.memory) + " from those who write it");
}

void Validation::Submission::after(VkResult result) {
    if (result != VK_SUCCESS)
        of_.ownership.ignore(recorded_);
}

} // namespace sluice::layer
