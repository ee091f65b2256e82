// SPDX-License-Identifier: MIT
/// \file
/// What `validate` can say, and how it is said.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include <vulkan/vulkan.h>

namespace sluice::layer {

/// The mistakes that are found. Each has its place in `known_messages()`.
enum class Mistake : std::uint8_t {
    use_without_acquire,
    handover_without_release,
    allocation_beyond_buffer,
    plane_beyond_buffer,
    plane_count,
    modifier_not_listed,
    modifier_invalid,
    planes_need_disjoint,
    disjoint_not_listed,
    dedicated_missing,
    cpu_access_while_pending,
    fd_reused,
};

/// A message as its readers know it.
struct MessageInfo {
    Mistake mistake;
    /// VkDebugUtilsMessengerCallbackDataEXT::pMessageIdName, null-terminated, and the heading in
    /// docs/layer-messages.md. Never changed, for it stands in people's filters.
    std::string_view id;
    /// messageIdNumber. Never changed either.
    std::int32_t number;
    VkDebugUtilsMessageSeverityFlagBitsEXT severity;
    /// What to do about it.
    std::string_view fix;
};

/// The one table that messages and documentation follow, in the order of `Mistake`.
[[nodiscard]] std::span<const MessageInfo> known_messages() noexcept;

/// A Vulkan object that a message is about.
struct Object {
    VkObjectType type = VK_OBJECT_TYPE_UNKNOWN;
    std::uint64_t handle = 0;

    bool operator==(const Object&) const = default;
};

/// \p handle as a number: a pointer or, on 32-bit machines, a number already.
template <typename Handle> [[nodiscard]] std::uint64_t number_of(Handle handle) noexcept {
    if constexpr (std::is_pointer_v<Handle>)
        return reinterpret_cast<std::uintptr_t>(handle);
    else
        return handle;
}

[[nodiscard]] inline Object object(VkImage image) noexcept {
    return {.type = VK_OBJECT_TYPE_IMAGE, .handle = number_of(image)};
}
[[nodiscard]] inline Object object(VkBuffer buffer) noexcept {
    return {.type = VK_OBJECT_TYPE_BUFFER, .handle = number_of(buffer)};
}

/// The opposite of `number_of`.
template <typename Handle> [[nodiscard]] Handle handle_of(std::uint64_t number) noexcept {
    if constexpr (std::is_pointer_v<Handle>)
        return reinterpret_cast<Handle>(
            static_cast<std::uintptr_t>(number)); // NOLINT(*-int-to-ptr)
    else
        return number;
}

/// Says what is wrong: to the application's messengers (VK_EXT_debug_utils) and to the log.
///
/// The messages go down the chain with vkSubmitDebugUtilsMessageEXT. The loader stands at its end
/// and brings them to every messenger of the instance, which it does under the lock that
/// vkCreateInstance, vkCreateDevice and their opposites hold: nothing may be said from inside of
/// those.
///
/// Threads: any, with no lock of ours held, as what is called is the application's.
class Messenger {
public:
    /// \param submit null where the instance has none: then there is the log alone.
    Messenger(VkInstance instance, PFN_vkSubmitDebugUtilsMessageEXT submit) noexcept
        : instance_(instance), submit_(submit) {}

    /// \param what for people, a sentence with numbers and without a full stop. The fix follows it.
    void say(Mistake mistake, Object about, std::string_view what) const;

private:
    /// How often each is told: what happens in every frame is not told without end.
    static constexpr unsigned most_told = 10;
    static constexpr std::size_t kinds = 16;

    VkInstance instance_;
    PFN_vkSubmitDebugUtilsMessageEXT submit_;
    mutable std::array<std::atomic<unsigned>, kinds> told_{};
};

} // namespace sluice::layer
