// SPDX-License-Identifier: MIT
/// \file
/// A Vulkan driver made of function pointers: for what a real one does on no demand, and to see
/// that nothing is left behind, used when dead, or used while the GPU still has it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <sys/types.h>
#include <vulkan/vulkan_core.h>

#include <sluice/unique_fd.hpp>
#include <sluice/vulkan_device.hpp>

#include "support/fake_sync_file.hpp"
#include "support/scripted_libc.hpp"

namespace sluice::test {

/// A memfd that passes for a sync_file of \p status (0 pending, 1 signalled, below 0 failed) once
/// `fake_sync_files` is in force. Its inode tells it from others.
[[nodiscard]] UniqueFd fake_sync_file(int status);

/// Changes the status of the one behind \p fd, for all who hold it.
void set_fake_status(int fd, int status);

/// Makes SYNC_IOC_FILE_INFO answer for the fds that `fake_sync_file` makes, for others it is
/// ENOTTY; and poll(2) for those that have signalled.
void fake_sync_files(ScriptedLibc& libc);

/// What a driver says of one of its devices. The default will do for everything.
struct FakePhysicalDevice {
    std::string name = "Fake GPU";
    VkPhysicalDeviceType type = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
    std::uint32_t api_version = VK_API_VERSION_1_3;
    std::vector<std::string> extensions{VulkanDevice::required_extensions().begin(),
                                        VulkanDevice::required_extensions().end()};
    std::vector<VkQueueFlags> queue_families{VK_QUEUE_TRANSFER_BIT,
                                             VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT};
    std::vector<VkMemoryPropertyFlags> memory_types{VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
                                                    VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT};
    VkDeviceSize heap_size = VkDeviceSize{1} << 40; ///< For all types.
    VkDeviceSize max_buffer_size = VkDeviceSize{1} << 40;
    VkExternalSemaphoreFeatureFlags semaphore_features =
        VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT;
    VkExternalMemoryFeatureFlags memory_features =
        VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
    VkExternalMemoryFeatureFlags buffer_features =
        VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
    /// The modifiers of every format, by default LINEAR for everything.
    std::vector<VkDrmFormatModifierPropertiesEXT> modifiers{
        {.drmFormatModifier = 0,
         .drmFormatModifierPlaneCount = 1,
         .drmFormatModifierTilingFeatures = ~VkFormatFeatureFlags{0}}};
    /// Those of one format, where they are others.
    std::map<VkFormat, std::vector<VkDrmFormatModifierPropertiesEXT>> modifiers_of;
    /// What it adds of them in VkDrmFormatModifierPropertiesList2EXT; like lavapipe, nothing.
    std::vector<VkDrmFormatModifierProperties2EXT> modifiers_2;
    VkExtent2D max_extent{16384, 16384};
    /// Whether it has images of a usage. Default: of all.
    std::function<bool(VkImageUsageFlags usage)> takes_usage;
    /// The formats that it has images of, by any of the modifiers.
    std::set<VkFormat> formats{VK_FORMAT_B8G8R8A8_UNORM, VK_FORMAT_R8G8B8A8_UNORM,
                               VK_FORMAT_R8_UNORM, VK_FORMAT_R8G8_UNORM,
                               VK_FORMAT_G8_B8R8_2PLANE_420_UNORM};
};

/// What vkCreateInstance, vkCreateDevice, vkCreateImage and so on were asked for.
struct FakeInstanceRequest {
    std::uint32_t api_version;
    std::string application;
    std::vector<std::string> layers, extensions;
};
struct FakeDeviceRequest {
    std::string physical_device;
    std::vector<std::string> extensions;
    const void* features;
};
struct FakeImageRequest {
    VkImageCreateInfo info; // its pointers are dead
    VkExternalMemoryHandleTypeFlags handle_types;
    std::vector<std::uint64_t> modifiers;
    std::vector<VkSubresourceLayout> planes; // of the explicit create info
    std::vector<VkFormat> view_formats;
};
struct FakeView {
    VkImageViewCreateInfo info; // its pointers are dead
    VkSamplerYcbcrConversion conversion;
    VkImageUsageFlags usage; // its own, 0 for the image's
};
struct FakeBufferRequest {
    VkBufferCreateInfo info; // its pointers are dead
    VkExternalMemoryHandleTypeFlags handle_types;
};
struct FakeAllocation {
    VkDeviceSize size;
    std::uint32_t memory_type;
    VkExternalMemoryHandleTypeFlags handle_types;
    bool dedicated;
    ino_t imported; // the dma-buf, 0 for none
    VkMemoryAllocateFlags flags;
};
struct FakeSubmission {
    std::vector<VkCommandBuffer> command_buffers;
    std::vector<ino_t> waits_for; // the sync_files in the wait semaphores
    std::vector<VkPipelineStageFlags> wait_stages;
    VkFence done;
    // Those of timeline semaphores.
    std::vector<std::uint64_t> waits_for_values, signals_values;
};

/// The driver. One at a time. When it goes, whatever sluice has not destroyed fails the test.
class FakeVulkan {
public:
    FakeVulkan();
    ~FakeVulkan();
    FakeVulkan(const FakeVulkan&) = delete;
    FakeVulkan& operator=(const FakeVulkan&) = delete;

    // The script.

    std::vector<FakePhysicalDevice> devices{1};
    std::set<std::string> lacks; ///< Functions that it does not have: "vkCreateFence".

    /// Makes one call of \p function, the \p nth from now on, return \p result and do nothing.
    void fail(const std::string& function, VkResult result, int nth = 1);
    /// Whether a call that fails writes nonsense where its result belongs, as Vulkan allows it to.
    bool failures_leave_nonsense = false;

    bool requires_dedicated = false, prefers_dedicated = false;
    std::uint32_t memory_type_bits = 3;
    std::uint32_t fd_memory_type_bits = 3; ///< What vkGetMemoryFdPropertiesKHR says.
    std::map<ino_t, std::uint32_t> fd_memory_type_bits_of; ///< The same for one dma-buf.
    VkDeviceSize offset = 0;                               ///< Of the first plane.
    /// Of the planes after it.
    std::vector<VkSubresourceLayout> further_planes;
    /// Which modifier of a list it takes. Default: the last.
    std::optional<std::uint64_t> takes_modifier;
    std::optional<VkDeviceSize> row_pitch;   ///< Default: 64-byte aligned.
    std::optional<VkDeviceSize> memory_size; ///< Default: what the image or buffer takes.
    /// What that is of an image: its rows rounded up, and bytes behind them rounded up.
    VkDeviceSize rows_round_to = 1, bytes_behind = 0, size_rounds_to = 1;

    enum class Gives : std::uint8_t { what_was_asked_for, no_fd, a_pipe };
    Gives memory_fd = Gives::what_was_asked_for; ///< Like lavapipe's, it has no CLOEXEC.
    Gives semaphore_fd = Gives::what_was_asked_for;
    int exported_fence_status = 0;
    /// Where set they make what was asked for, instead of memfds: for a kernel that looks.
    std::function<UniqueFd(VkDeviceSize size)> gives_dma_buf;
    std::function<UniqueFd()> gives_sync_file;
    /// What becomes of a fd whose import fails: Vulkan leaves it, lavapipe closes it.
    bool failed_import_closes = false;
    /// Runs once it has: another thread may open something that gets the same number.
    std::function<void(int number)> after_failed_import_closed;

    /// Runs while an image is being destroyed.
    std::function<void()> on_destroy_image;

    /// Whether the GPU is done as soon as work is submitted. Otherwise see `finish`.
    bool finishes_at_once = true;
    /// Lets the oldest \p count unfinished submissions end.
    void finish(std::size_t count = SIZE_MAX);

    // What happened.

    [[nodiscard]] int calls(const std::string& function) const;
    /// What sluice has created and not destroyed: "fence", "semaphore"...
    [[nodiscard]] std::multiset<std::string> living() const;
    /// For tests where sluice has to leave objects behind.
    void forgive_what_is_left() { forgiven_ = true; }

    std::vector<std::string> destroyed; ///< In this order.
    std::set<std::string> looked_up;
    std::vector<FakeInstanceRequest> instances;
    std::vector<FakeDeviceRequest> created_devices;
    std::set<VkFormat> asked_formats; ///< Of vkGetPhysicalDeviceFormatProperties2.
    std::vector<FakeImageRequest> images;
    std::vector<FakeView> views;
    std::vector<VkSamplerYcbcrConversionCreateInfo> conversions;
    std::vector<FakeBufferRequest> buffers;
    std::vector<FakeAllocation> allocations;
    std::vector<FakeSubmission> submissions;
    std::vector<std::uint64_t> wait_timeouts;

    static PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance instance,
                                                                const char* name);

    /// An instance and a device that the application made, which sluice must leave alone.
    [[nodiscard]] VulkanDeviceInfo application();
    /// A timeline semaphore of the application's.
    [[nodiscard]] VkSemaphore timeline(VkDevice device);

private:
    struct Functions;
    /// Whatever a handle stands for; a kind uses the fields that it needs.
    struct Object {
        std::string kind;
        std::uint64_t parent = 0;
        bool of_application = false;
        bool in_use = false;                        // the GPU has not finished with it
        bool signalled = false;                     // fences and semaphores
        bool exportable = false;                    // semaphores and memories
        bool timeline = false;                      // semaphores
        ino_t imported = 0;                         // semaphores
        VkDeviceSize size = 0;                      // images, buffers and memories
        VkDeviceSize stride = 0;                    // images
        std::vector<VkSubresourceLayout> told = {}; // images: where their planes are to lie
        std::uint32_t type = 0;                     // memories
        std::uint64_t owner = 0;                    // memories: what they are dedicated to
        std::uint64_t memory = 0;                   // images and buffers
        std::uint32_t planes = 1;                   // images
        bool disjoint = false;                      // images
        std::uint64_t modifier = 0;                 // images
        bool linear = false;                        // images: VK_IMAGE_TILING_LINEAR
        std::vector<VkFormat> view_formats = {};    // images: empty for any
    };
    /// Counts the call and tells what the script makes of it.
    VkResult call(const char* function);
    std::uint64_t add(Object object);
    /// The living \p kind behind \p number; the test fails where there is none.
    Object& use(const char* kind, std::uint64_t number, const char* function);
    void destroy(const char* kind, std::uint64_t number, const char* function);
    const FakePhysicalDevice& physical(VkPhysicalDevice device) const;

    std::map<std::uint64_t, Object> objects_;
    std::uint64_t last_ = 0x1000;
    std::map<std::string, int> calls_;
    std::map<std::string, std::map<int, VkResult>> failures_; // by the number of the call
    std::uint64_t instance_ = 0;                              // the one that sluice made last
    std::vector<std::vector<std::uint64_t>> unfinished_;      // the objects of each submission
    bool forgiven_ = false;
    Object nothing_;
};

} // namespace sluice::test
