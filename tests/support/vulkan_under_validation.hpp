// SPDX-License-Identifier: MIT
/// \file
/// A Vulkan context with the validation layer on, whose messages fail the test.
#pragma once

#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <vulkan/vulkan.h>

#include <sluice/vulkan_context.hpp>

namespace sluice::test {

/// A message that is wrong, with the reason. It does not fail a test; any other one does.
struct FalsePositive {
    std::string_view id;       ///< The message's id, as the layer names it.
    std::string_view contains; ///< What its text must contain as well.
    std::string_view reason;
};

inline constexpr std::string_view unfilled_list =
    "The layer asks for the modifier's features through VkDrmFormatModifierPropertiesList2EXT, "
    "which lavapipe leaves unfilled, and takes them for 0x0; VkDrmFormatModifierPropertiesListEXT "
    "has TRANSFER_SRC and TRANSFER_DST for LINEAR.";

inline constexpr std::array false_positives{
    FalsePositive{"VUID-vkCmdClearColorImage-image-01993",
                  "VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT", unfilled_list},
    FalsePositive{"VUID-vkCmdCopyImage-srcImage-01995", "VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT",
                  unfilled_list},
    FalsePositive{"VUID-vkCmdCopyImage-dstImage-01996", "VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT",
                  unfilled_list},
    FalsePositive{"VUID-vkCmdCopyImageToBuffer-srcImage-01998",
                  "VK_IMAGE_TILING_DRM_FORMAT_MODIFIER_EXT", unfilled_list},
};

/// Makes contexts with VK_LAYER_KHRONOS_validation and collects what it says until the end.
class Validation {
public:
    /// Whether the layer is installed.
    static bool available() {
        std::uint32_t count = 0;
        vkEnumerateInstanceLayerProperties(&count, nullptr);
        std::vector<VkLayerProperties> layers(count);
        vkEnumerateInstanceLayerProperties(&count, layers.data());
        for (const VkLayerProperties& each : layers)
            if (std::string_view(each.layerName) == layer)
                return true;
        return false;
    }

    /// The layer that SLUICE_TEST_LAYER names, if any, lies below the validation layer.
    Result<VulkanContext> create_context(const void* device_features = nullptr) {
        std::vector<const char*> layers{layer};
        if (const char* below = std::getenv("SLUICE_TEST_LAYER"))
            layers.push_back(below);
        auto context = VulkanContext::create({.get_instance_proc_addr = vkGetInstanceProcAddr,
                                              .application_name = "sluice tests",
                                              .api_version = VK_API_VERSION_1_3,
                                              .instance_layers = layers,
                                              .instance_extensions = {&debug_utils, 1},
                                              .device_features = device_features});
        if (context)
            listen(context->device().info().instance);
        return context;
    }

    /// To be called while the instance lives; what comes after goes to the layer's own log.
    void stop() {
        if (messenger_ == VK_NULL_HANDLE)
            return;
        const auto destroy = reinterpret_cast<PFN_vkDestroyDebugUtilsMessengerEXT>(
            vkGetInstanceProcAddr(instance_, "vkDestroyDebugUtilsMessengerEXT"));
        destroy(instance_, messenger_, nullptr);
        messenger_ = VK_NULL_HANDLE;
    }

    [[nodiscard]] const std::vector<std::string>& messages() const { return messages_; }
    void forget() { messages_.clear(); }

private:
    static constexpr const char* layer = "VK_LAYER_KHRONOS_validation";
    static constexpr const char* debug_utils = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;

    void listen(VkInstance instance) {
        instance_ = instance;
        const auto create = reinterpret_cast<PFN_vkCreateDebugUtilsMessengerEXT>(
            vkGetInstanceProcAddr(instance, "vkCreateDebugUtilsMessengerEXT"));
        const VkDebugUtilsMessengerCreateInfoEXT info{
            .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
            .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                               VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
            .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT,
            .pfnUserCallback = &Validation::heard,
            .pUserData = this};
        ASSERT_EQ(create(instance, &info, nullptr, &messenger_), VK_SUCCESS);
    }

    static VKAPI_ATTR VkBool32 VKAPI_CALL heard(VkDebugUtilsMessageSeverityFlagBitsEXT,
                                                VkDebugUtilsMessageTypeFlagsEXT,
                                                const VkDebugUtilsMessengerCallbackDataEXT* data,
                                                void* self) {
        const std::string_view id = data->pMessageIdName ? data->pMessageIdName : "";
        const std::string_view text = data->pMessage ? data->pMessage : "";
        for (const FalsePositive& each : false_positives)
            if (id == each.id && text.find(each.contains) != text.npos)
                return VK_FALSE;
        static_cast<Validation*>(self)->messages_.push_back(std::string(id) + ": " +
                                                            std::string(text));
        return VK_FALSE;
    }

    VkInstance instance_ = VK_NULL_HANDLE;
    VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
    std::vector<std::string> messages_;
};

} // namespace sluice::test
