// SPDX-License-Identifier: MIT
// VK_KHR_external_memory_fd and VK_EXT_external_memory_dma_buf.
#include "vulkan/vulkan_memory.hpp"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>

#include "core/dma_buf_text.hpp"
#include "core/sys.hpp"
#include "vulkan/vulkan_error.hpp"

namespace sluice {

namespace {

constexpr auto dma_buf = VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT;

tl::unexpected<Error> refuse(const VulkanMemoryPurpose& purpose, Errc code, std::string problem,
                             std::string remedy) {
    return tl::unexpected(Error{.code = code,
                                .operation = purpose.operation,
                                .object = purpose.object(),
                                .problem = std::move(problem),
                                .remedy = std::move(remedy)});
}

tl::unexpected<Error> refuse_vk(const VulkanMemoryPurpose& purpose, VkResult result,
                                std::string_view problem, std::string remedy) {
    Error error =
        failed_vk(result, purpose.operation, purpose.object(), problem, std::move(remedy));
    if (result == VK_ERROR_INVALID_EXTERNAL_HANDLE)
        error.code = Errc::wrong_object;
    return tl::unexpected(std::move(error));
}

struct Type {
    std::uint32_t index;
    VkMemoryPropertyFlags flags;
};

/// The memory type to take for \p size bytes: near the GPU if the memory may lie there, else the
/// first that may, or nothing where the driver allows none. No allocation may be larger than its
/// heap (VUID-vkAllocateMemory-pAllocateInfo-01713): \p largest tells the largest allowed one.
std::optional<Type> memory_type(const VulkanDriver& driver, std::uint32_t allowed,
                                VkDeviceSize size, VkDeviceSize& largest) {
    const VkPhysicalDeviceMemoryProperties& memory = driver.memory;
    std::optional<Type> first;
    largest = 0;
    for (std::uint32_t type = 0; type < memory.memoryTypeCount; ++type) {
        if ((allowed >> type & 1U) == 0)
            continue;
        const VkDeviceSize heap = memory.memoryHeaps[memory.memoryTypes[type].heapIndex].size;
        largest = std::max(largest, heap);
        if (size > heap)
            continue;
        const Type found{type, memory.memoryTypes[type].propertyFlags};
        if ((found.flags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT) != 0)
            return found;
        if (!first)
            first = found;
    }
    return first;
}

tl::unexpected<Error> refuse_size(const VulkanMemoryPurpose& purpose, VkDeviceSize size,
                                  VkDeviceSize largest) {
    return refuse(purpose, Errc::no_resources,
                  "the driver needs " + std::to_string(size) +
                      " bytes, and the largest heap for it has " + std::to_string(largest),
                  "Use a smaller frame");
}

/// Allocates with \p how chained.
VkResult allocate(const VulkanDriver& driver, const VulkanMemoryNeeds& needs, const Type& type,
                  const void* how, VulkanMemory& into) {
    const VkMemoryAllocateFlagsInfo addressed{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                              .pNext = how,
                                              .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT,
                                              .deviceMask = 0};
    if (needs.device_address)
        how = &addressed;
    const VkMemoryDedicatedAllocateInfo alone{.sType =
                                                  VK_STRUCTURE_TYPE_MEMORY_DEDICATED_ALLOCATE_INFO,
                                              .pNext = how,
                                              .image = needs.image,
                                              .buffer = needs.buffer};
    const VkMemoryAllocateInfo info{.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                    .pNext = needs.dedicated ? &alone : how,
                                    .allocationSize = needs.requirements.size,
                                    .memoryTypeIndex = type.index};
    // What a call that failed leaves in its handle is no handle.
    VkDeviceMemory allocated = VK_NULL_HANDLE;
    if (driver.set_self_bracketing != nullptr) // accesses to it are ours
        driver.set_self_bracketing(driver.info.device, VK_TRUE);
    const VkResult result =
        driver.vk.AllocateMemory(driver.info.device, &info, nullptr, &allocated);
    if (driver.set_self_bracketing != nullptr)
        driver.set_self_bracketing(driver.info.device, VK_FALSE);
    if (result == VK_SUCCESS)
        into = {.handle = allocated, .flags = type.flags};
    return result;
}

} // namespace

Result<void> check_mode(const VulkanDriver& driver, const Frame& frame, bool writes,
                        const char* operation) {
    const auto buffers = frame.buffers();
    const auto read_only = std::ranges::find(buffers, Access::read, &DmaBuf::mode);
    if (!writes || read_only == buffers.end())
        return {};
    return refuse({operation, [&] { return describe(frame.layout()) + " on " + driver.name; }},
                  Errc::no_permission,
                  describe(*read_only) + ", was given out to be read only, and the usage writes",
                  "Have the buffer exported read-write (O_RDWR, DRM_RDWR), or leave out what "
                  "writes");
}

Result<void> check_identity(const DmaBuf& buffer, const VulkanMemoryPurpose& purpose) {
    struct statx status {};
    if (sys::stat_at_once(buffer.fd(), status) == 0) {
        if (sys::is_anonymous(status) && status.stx_ino == buffer.inode())
            return {};
        return refuse(purpose, Errc::wrong_object,
                      "the fd of " + describe(buffer) +
                          ", was closed behind its back: the number is another object's now",
                      "Find who closes a fd that a DmaBuf owns");
    }
    const int error = errno;
    Error failure = sys::failed_call(error, purpose.operation, purpose.object(),
                                     describe(buffer) + ", cannot be asked for its identity",
                                     "Find who closes a fd that a DmaBuf owns");
    failure.code = sys::code_of_wrong_object(error);
    return tl::unexpected(std::move(failure));
}

Result<VulkanMemory> import_memory(const VulkanDriver& driver, const VulkanMemoryNeeds& needs,
                                   const DmaBuf& buffer, const VulkanMemoryPurpose& purpose) {
    const VkDeviceSize size = needs.requirements.size;
    if (size > buffer.size())
        return refuse(purpose, Errc::out_of_bounds,
                      "the driver needs " + std::to_string(size) + " bytes, " + describe(buffer) +
                          ", holds " + std::to_string(buffer.size()),
                      "Allocate " + std::to_string(size - buffer.size()) +
                          " bytes more: drivers may read past the last row");

    // The driver takes the fd where the import succeeds, so it gets a duplicate. Made first it also
    // tells of a fd that was closed before the driver would.
    auto copy = UniqueFd::duplicate(buffer.fd());
    if (!copy) {
        copy.error().operation = purpose.operation;
        copy.error().object = describe(buffer) + ", for " + purpose.object();
        return tl::unexpected(std::move(copy.error()));
    }
    VkMemoryFdPropertiesKHR may{};
    may.sType = VK_STRUCTURE_TYPE_MEMORY_FD_PROPERTIES_KHR;
    VkResult result =
        driver.vk.GetMemoryFdPropertiesKHR(driver.info.device, dma_buf, copy->get(), &may);
    if (result != VK_SUCCESS)
        return refuse_vk(purpose, result,
                         "the driver cannot use " + describe(buffer) +
                             " (vkGetMemoryFdPropertiesKHR)",
                         "Allocate the frame with another exporter");
    VkDeviceSize largest = 0;
    const auto type =
        memory_type(driver, needs.requirements.memoryTypeBits & may.memoryTypeBits, size, largest);
    if (!type && largest != 0)
        return refuse_size(purpose, size, largest);
    if (!type)
        return refuse(
            purpose, Errc::unsupported,
            "no memory type is right for both " +
                std::string(needs.image != VK_NULL_HANDLE ? "the image" : "the VkBuffer") +
                " and " + describe(buffer),
            "Allocate the frame with another exporter, or have the GPU export it");

    const VkImportMemoryFdInfoKHR import{.sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR,
                                         .pNext = nullptr,
                                         .handleType = dma_buf,
                                         .fd = copy->release()};
    VulkanMemory memory;
    result = allocate(driver, needs, *type, &import, memory);
    if (result == VK_SUCCESS)
        return memory;
    sys::take_back(import.fd, buffer.fd());
    return refuse_vk(purpose, result, "the driver did not import " + describe(buffer),
                     "Allocate the frame with another exporter, and with its fd read-write: some "
                     "drivers map it");
}

Result<VulkanMemory> allocate_exportable(const VulkanDriver& driver, const VulkanMemoryNeeds& needs,
                                         const VulkanMemoryPurpose& purpose) {
    VkDeviceSize largest = 0;
    const auto type =
        memory_type(driver, needs.requirements.memoryTypeBits, needs.requirements.size, largest);
    if (!type && largest != 0)
        return refuse_size(purpose, needs.requirements.size, largest);
    if (!type)
        return refuse(purpose, Errc::unsupported, "the driver has no memory type for it",
                      "Ask for another format, usage or size, or use another device");
    const VkExportMemoryAllocateInfo exported{.sType =
                                                  VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
                                              .pNext = nullptr,
                                              .handleTypes = dma_buf};
    VulkanMemory memory;
    const VkResult result = allocate(driver, needs, *type, &exported, memory);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(result, purpose.operation, purpose.object(),
                                        "no memory of " + std::to_string(needs.requirements.size) +
                                            " bytes was to be had for it",
                                        "Free images and buffers that are no longer used"));
    return memory;
}

Result<DmaBuf> export_memory(const VulkanDriver& driver, VkDeviceMemory memory,
                             const VulkanMemoryPurpose& purpose) {
    const VkMemoryGetFdInfoKHR get{.sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR,
                                   .pNext = nullptr,
                                   .memory = memory,
                                   .handleType = dma_buf};
    int raw = -1;
    const VkResult result = driver.vk.GetMemoryFdKHR(driver.info.device, &get, &raw);
    if (result != VK_SUCCESS)
        return tl::unexpected(failed_vk(
            result, purpose.operation, purpose.object(), "vkGetMemoryFdKHR gave no dma-buf",
            "Close fds that are no longer used, or use another device"));
    UniqueFd fd(std::move(raw));
    // Drivers do not all ask for CLOEXEC (lavapipe does not). One that gave no fd at all is left to
    // from_fd, which says so.
    if (fd)
        (void)fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
    return DmaBuf::from_fd(std::move(fd));
}

} // namespace sluice
