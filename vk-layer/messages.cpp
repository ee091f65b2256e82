// SPDX-License-Identifier: MIT
#include "messages.hpp"

#include <string>

#include "report.hpp"

namespace sluice::layer {

namespace {

constexpr auto error = VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
constexpr auto warning = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT;

constexpr std::array messages{
    MessageInfo{Mistake::use_without_acquire, "SLUICE-use-without-acquire", 0x534C0001, warning,
                "Record a barrier with srcQueueFamilyIndex VK_QUEUE_FAMILY_FOREIGN_EXT (or "
                "VK_QUEUE_FAMILY_EXTERNAL) before the first use of what others wrote"},
    MessageInfo{Mistake::handover_without_release, "SLUICE-handover-without-release", 0x534C0002,
                warning,
                "Record a barrier with dstQueueFamilyIndex VK_QUEUE_FAMILY_FOREIGN_EXT (or "
                "VK_QUEUE_FAMILY_EXTERNAL) after the last use, before others use it"},
    MessageInfo{
        Mistake::allocation_beyond_buffer, "SLUICE-allocation-beyond-buffer", 0x534C0003, error,
        "Import no more than the buffer has (lseek(fd, 0, SEEK_END)); where the image needs "
        "more, it does not fit: have the buffer allocated for this device"},
    MessageInfo{Mistake::plane_beyond_buffer, "SLUICE-plane-beyond-buffer", 0x534C0004, error,
                "Pass the offset and rowPitch that the exporter gave for this plane, and the "
                "buffer that they belong to"},
    MessageInfo{Mistake::plane_count, "SLUICE-plane-count", 0x534C0005, error,
                "Pass as many plane layouts as VkDrmFormatModifierPropertiesEXT has memory planes: "
                "compressed modifiers have more than the format"},
    MessageInfo{Mistake::modifier_not_listed, "SLUICE-modifier-not-listed", 0x534C0006, error,
                "Choose among the modifiers of VkDrmFormatModifierPropertiesListEXT for this "
                "format, and tell the exporter of them before it allocates"},
    MessageInfo{Mistake::modifier_invalid, "SLUICE-modifier-invalid", 0x534C0007, error,
                "Ask the exporter for the real modifier; where it has none to tell, the layout is "
                "known to its own driver alone, and DRM_FORMAT_MOD_LINEAR only if it was allocated "
                "so"},
    MessageInfo{Mistake::planes_need_disjoint, "SLUICE-planes-need-disjoint", 0x534C0008, error,
                "Create the image with VK_IMAGE_CREATE_DISJOINT_BIT and bind each plane to its "
                "own memory, with VkBindImagePlaneMemoryInfo"},
    MessageInfo{Mistake::disjoint_not_listed, "SLUICE-disjoint-not-listed", 0x534C0009, error,
                "Where all planes are one buffer (compare inodes, not fds) import it once, without "
                "VK_IMAGE_CREATE_DISJOINT_BIT; otherwise choose a modifier whose "
                "drmFormatModifierTilingFeatures have VK_FORMAT_FEATURE_DISJOINT_BIT"},
    MessageInfo{Mistake::dedicated_missing, "SLUICE-dedicated-missing", 0x534C000A, error,
                "Chain VkMemoryDedicatedAllocateInfo with this image or buffer to "
                "VkMemoryAllocateInfo, at the import too"},
    MessageInfo{
        Mistake::cpu_access_while_pending, "SLUICE-cpu-access-while-pending", 0x534C000B, warning,
        "Wait for the buffer before the CPU touches it: poll(2) its fd, POLLIN before reads "
        "and POLLOUT before writes"},
    MessageInfo{
        Mistake::fd_reused, "SLUICE-fd-reused", 0x534C000C, error,
        "A successful import takes the fd over: import a duplicate (fcntl(F_DUPFD_CLOEXEC)) "
        "where it is still needed, and forget the number otherwise"},
};

constexpr bool in_order() {
    for (std::size_t i = 0; i < messages.size(); ++i)
        if (messages[i].mistake != static_cast<Mistake>(i))
            return false;
    return true;
}
static_assert(in_order());

} // namespace

std::span<const MessageInfo> known_messages() noexcept {
    return messages;
}

void Messenger::say(Mistake mistake, Object about, std::string_view what) const {
    static_assert(messages.size() <= kinds);
    const auto which = static_cast<std::size_t>(mistake);
    const unsigned before = told_[which].fetch_add(1, std::memory_order_relaxed);
    if (before >= most_told)
        return;
    const MessageInfo& info = messages[which];
    std::string text = std::string(info.id) + ": " + std::string(what) + ". " +
                       std::string(info.fix) + ". See " + std::string(info.id) +
                       " in docs/layer-messages.md.";
    if (before + 1 == most_told)
        text += " There may be more of these, which are not told any more.";
    warn(text);
    if (submit_ == nullptr)
        return;
    const VkDebugUtilsObjectNameInfoEXT object{
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
        .pNext = nullptr,
        .objectType = about.type,
        .objectHandle = about.handle,
        .pObjectName = nullptr};
    const VkDebugUtilsMessengerCallbackDataEXT data{
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CALLBACK_DATA_EXT,
        .pNext = nullptr,
        .flags = 0,
        .pMessageIdName = info.id.data(),
        .messageIdNumber = info.number,
        .pMessage = text.c_str(),
        .queueLabelCount = 0,
        .pQueueLabels = nullptr,
        .cmdBufLabelCount = 0,
        .pCmdBufLabels = nullptr,
        .objectCount = about.handle != 0 ? 1U : 0U,
        .pObjects = &object};
    submit_(instance_, info.severity, VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT, &data);
}

} // namespace sluice::layer
