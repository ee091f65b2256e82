// SPDX-License-Identifier: MIT
/// \file
/// A Vulkan driver made of function pointers, for what stands between an application and a driver:
/// its handles are what a loader expects of them, it is called by many threads at once, and it
/// writes down what reaches it. It needs neither gtest nor sluice, so that a loader can load it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <sys/types.h>
#include <vulkan/vulkan_core.h>

namespace sluice::test {

/// The driver. One at a time; it goes when all of its functions have returned. What is left of its
/// objects then, and every use of it that Vulkan forbids, is told to \p complain.
///
/// Its memory is memfds, its sync_files are those of support/fake_sync_file.hpp. Work is done by
/// nobody: a batch ends when what it waits for has been signalled and the script lets it.
class FakeIcd {
public:
    using Complain = std::function<void(const std::string& what)>;
    explicit FakeIcd(Complain complain);
    ~FakeIcd();
    FakeIcd(const FakeIcd&) = delete;
    FakeIcd& operator=(const FakeIcd&) = delete;

    /// Where everything is found; the functions without an instance before there is one.
    static PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance instance,
                                                                const char* name);

    // The script. The plain variables are set before the first call that they matter for.

    /// What it says of one of its devices. The default will do for everything.
    struct PhysicalDevice {
        std::string name = "Fake GPU";
        VkPhysicalDeviceType type = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
        std::uint32_t api_version = VK_API_VERSION_1_3;
        std::vector<std::string> extensions = all_extensions();
        /// Each family has two queues.
        std::vector<VkQueueFlags> queue_families{
            VK_QUEUE_GRAPHICS_BIT | VK_QUEUE_COMPUTE_BIT | VK_QUEUE_TRANSFER_BIT |
                VK_QUEUE_SPARSE_BINDING_BIT | VK_QUEUE_PROTECTED_BIT,
            VK_QUEUE_TRANSFER_BIT};
        std::vector<VkMemoryPropertyFlags> memory_types{
            VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
            VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
            VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | VK_MEMORY_PROPERTY_PROTECTED_BIT};
        /// What it can do with SYNC_FD.
        VkExternalSemaphoreFeatureFlags semaphore_features =
            VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT |
            VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT;
        /// What it can do with dma-bufs.
        VkExternalMemoryFeatureFlags memory_features =
            VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT | VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT;
        /// The modifiers of every format, by default LINEAR for everything.
        std::vector<VkDrmFormatModifierPropertiesEXT> modifiers{
            {.drmFormatModifier = 0,
             .drmFormatModifierPlaneCount = 1,
             .drmFormatModifierTilingFeatures = ~VkFormatFeatureFlags{0}}};
        bool requires_dedicated = false;
    };
    std::vector<PhysicalDevice> physical_devices{1};

    /// Functions and extensions that it does not have: "vkQueueSubmit2", "VK_KHR_...".
    std::set<std::string, std::less<>> lacks;
    /// What becomes of a fd whose import fails: Vulkan leaves it, lavapipe closes it.
    bool failed_import_closes = false;
    /// Whether it keeps a duplicate of a fd that it imports and closes the fd, as Mesa's drivers
    /// do.
    bool import_closes = false;
    /// Whether a semaphore that has been signalled is exported as -1, as Vulkan allows.
    bool signalled_exports_minus_one = false;
    /// Whether each object that comes must have got its dispatch word from a loader.
    bool wants_dispatch_words = false;
    /// Whether `submissions` keeps them. A program without end needs them forgotten.
    bool keeps_submissions = true;
    /// Run as each function begins and ends, in its thread and without a lock of the driver's. A
    /// function of a queue is in it all the while: whoever comes to that queue then is a mistake.
    std::function<void(std::string_view function)> on_call, on_return;

    /// Makes one call of \p function ("vkCreateFence"), the \p nth from now on, return \p result
    /// and do nothing.
    void fail(const std::string& function, VkResult result, int nth = 1);

    /// Whether each submission ends as soon as what it waits for is there. Otherwise see `finish`.
    /// Who waits for the end of work with a timeout above 0 lets it end in any case.
    std::atomic<bool> finishes_at_once = true;
    /// Lets the oldest \p count unfinished submissions end, those that wait for something else
    /// aside. \returns how many did.
    std::size_t finish(std::size_t count = SIZE_MAX);

    // What happened.

    struct Wait {
        VkSemaphore semaphore;
        VkPipelineStageFlags2 stages;
        std::uint64_t value; ///< Of a timeline semaphore, otherwise as given.
        ino_t sync_file;     ///< The one inside, 0 for none.
    };
    struct Signal {
        VkSemaphore semaphore;
        VkPipelineStageFlags2 stages;
        std::uint64_t value;
        ino_t sync_file; ///< The one that has been exported of it, 0 for none.
    };
    struct Batch {
        std::vector<Wait> waits;
        std::vector<VkCommandBuffer> command_buffers;
        std::vector<Signal> signals;
        std::vector<VkStructureType> chain; ///< What hangs at its pNext, in order.
        VkSubmitFlags flags;
    };
    /// One call of vkQueueSubmit, vkQueueSubmit2 or vkQueueBindSparse.
    struct Submission {
        std::string function;
        VkQueue queue;
        std::vector<Batch> batches;
        VkFence fence;
        bool finished;
    };
    /// All that have reached a queue, or \p queue alone, in their order.
    [[nodiscard]] std::vector<Submission> submissions(VkQueue queue = VK_NULL_HANDLE) const;

    struct DeviceRequest {
        std::string physical_device;
        std::vector<std::string> extensions;
        std::vector<VkStructureType> chain;
    };
    [[nodiscard]] std::vector<DeviceRequest> created_devices() const;

    struct Allocation {
        VkDeviceSize size;
        std::uint32_t memory_type;
        VkExternalMemoryHandleTypeFlags exportable_as;
        VkImage dedicated_image;
        VkBuffer dedicated_buffer;
        ino_t imported; ///< The dma-buf, 0 for none.
        void* host;     ///< The host's memory, null for none.
    };
    [[nodiscard]] std::vector<Allocation> allocations() const;

    /// A buffer or an image that was created.
    struct Creation {
        VkExternalMemoryHandleTypeFlags types; ///< To be shared by.
        VkImageTiling tiling;                  ///< OPTIMAL for buffers.
        std::vector<VkStructureType> chain;
    };
    [[nodiscard]] std::vector<Creation> creations() const;
    /// Where in its memory \p image was bound last.
    [[nodiscard]] VkDeviceSize bound_at(VkImage image) const;

    /// How often \p function ("vkCreateFence") was called. One of an extension that has become
    /// Vulkan's own counts as Vulkan's.
    [[nodiscard]] int calls(std::string_view function) const;
    /// What is recorded in \p commands: "vkCmdCopyImage" and so on.
    [[nodiscard]] std::vector<std::string> commands(VkCommandBuffer commands) const;
    /// The objects that there are: "fence", "semaphore"...
    [[nodiscard]] std::multiset<std::string> living() const;

    /// The name of each function that there may be, by the kind of handle that finds it.
    [[nodiscard]] static std::vector<std::string> instance_functions(), device_functions();
    [[nodiscard]] static std::vector<std::string> all_extensions();

private:
    struct Functions;
    class Call;

    /// What one signal operation, or one sync_file that was imported, comes to.
    struct SyncPoint;
    using SyncPointRef = std::shared_ptr<SyncPoint>;
    struct TimelinePoint {
        std::uint64_t semaphore, value;
    };
    /// What of a batch the queue needs.
    struct Work {
        std::vector<SyncPointRef> waits, signals;
        std::vector<TimelinePoint> waits_for_values, signals_values;
        std::vector<std::uint64_t> uses;
    };
    struct Pending {
        std::uint64_t order; // among those of all queues
        std::shared_ptr<Submission> record;
        std::vector<Work> work;
        std::size_t next = 0; // the first batch that has not ended
    };
    /// Whatever a handle stands for; a kind uses the fields that it needs.
    struct Object {
        std::string_view kind;
        std::uint64_t parent = 0;
        bool allocator = false; // the application gave one
        int uses = 0;           // batches that have not ended

        std::uint32_t api_version = 0;                // instances and devices
        std::set<std::string, std::less<>> on = {};   // their extensions
        std::size_t index = 0;                        // physical devices and queues
        std::uint32_t family = 0;                     // queues
        VkDeviceQueueCreateFlags queue_flags = 0;     // queues
        bool busy = false;                            // queues: somebody is in a function of it
        std::deque<Pending> pending = {};             // queues
        VkDeviceSize size = 0;                        // memories, images and buffers
        int fd = -1;                                  // memories
        void* host = nullptr;                         // memories: the pointer that was imported
        void* mapped = nullptr;                       // memories
        VkExternalMemoryHandleTypeFlags types = 0;    // memories and semaphores: to be exported as
        std::vector<VkSubresourceLayout> planes = {}; // images
        std::uint64_t modifier = 0;                   // images
        bool disjoint = false;                        // images
        VkDeviceSize offset = 0;                      // images: in their memory
        bool requires_dedicated = false;              // images and buffers
        bool timeline = false;                        // semaphores
        std::uint64_t value = 0;                      // semaphores
        SyncPointRef payload = {}, temporary = {};    // semaphores
        bool signalled = false;                       // fences
        enum class State : std::uint8_t { initial, recording, executable } state = {}; // commands
        bool secondary = false;                                                        // commands
        std::vector<std::string> commands = {};                                        // commands
        VkDebugUtilsMessengerCreateInfoEXT messenger = {};                             // messengers
    };

    // All of these want the lock.
    void complain(const std::string& what) const { complain_(what); }
    std::uint64_t add(Object object, bool dispatchable = false);
    /// The living \p kind behind \p number; a complaint where there is none.
    Object& use(std::string_view kind, std::uint64_t number, const char* function);
    void destroy(std::string_view kind, std::uint64_t number,
                 const VkAllocationCallbacks* allocator, const char* function);
    void erase(std::uint64_t number);
    [[nodiscard]] const PhysicalDevice& physical(const Object& of) const {
        return physical_devices.at(of.index);
    }
    [[nodiscard]] std::vector<std::string> extensions(const PhysicalDevice& of) const;
    [[nodiscard]] bool lists(const PhysicalDevice& of, std::string_view extension) const;
    /// Whether \p owner, an instance or a device, has what a function \p needs.
    [[nodiscard]] bool has(const Object& owner, std::string_view needs) const;
    PFN_vkVoidFunction find(std::string_view name, std::uint64_t instance, std::uint64_t device);
    VkResult submit(const char* function, VkQueue queue, std::vector<Batch> batches, VkFence fence);
    /// Whether the work that signals \p point needs nothing more to be submitted.
    [[nodiscard]] bool is_on_its_way(const SyncPoint& point) const;
    [[nodiscard]] bool may_run(const Work& work) const;
    void end(Work& work);
    std::size_t run(std::size_t count);
    void abandon();
    /// Waits until \p done says so. \returns whether it does before \p timeout.
    bool wait(std::unique_lock<std::mutex>& lock, std::uint64_t timeout,
              const std::function<bool()>& done, const char* function);
    int memory_fd(Object& memory);

    const Complain complain_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::unordered_map<std::uint64_t, Object> objects_;
    /// What the dispatchable handles point at: the loader's word. They stay, so that no handle
    /// comes twice and a dead one may be looked at.
    std::deque<std::uintptr_t> words_;
    std::uint64_t last_ = 1; // the others are odd numbers
    std::vector<std::uint64_t> queues_;
    std::uint64_t order_ = 0;
    std::unordered_map<std::string_view, int> calls_;
    std::map<std::string, std::map<int, VkResult>, std::less<>> failures_; // by number of the call
    std::vector<std::shared_ptr<Submission>> submissions_;
    std::vector<DeviceRequest> created_devices_;
    std::vector<Allocation> allocations_;
    std::vector<Creation> creations_;
    Object nothing_;
};

} // namespace sluice::test
