// SPDX-License-Identifier: MIT
/// \file
/// An application's VkDevice, wrapped: exports images and hands fences over.
///
/// Sources: the Vulkan specification's chapters on external memory and synchronization, and the
/// extensions that `VulkanDevice::required_extensions()` lists.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <vulkan/vulkan_core.h>

#include <sluice/caps.hpp>
#include <sluice/deadline.hpp>
#include <sluice/error.hpp>
#include <sluice/export.hpp>
#include <sluice/sync_file.hpp>
#include <sluice/vulkan_caps.hpp>

namespace sluice {

class DmaBuf;
class Frame;
class VulkanAccess;
class VulkanBuffer;
class VulkanImage;
class VulkanTexture;
struct FrameSpec;
struct VulkanAttachInfo;
struct VulkanBufferAttachInfo;
struct VulkanBufferInfo;
struct VulkanImageInfo;
struct VulkanTextureInfo;
struct VulkanUse;

/// The application's own objects that `VulkanDevice::wrap` borrows.
struct VulkanDeviceInfo {
    /// Where every Vulkan function is looked up; sluice links no loader. Required.
    PFN_vkGetInstanceProcAddr get_instance_proc_addr = nullptr;
    VkInstance instance = VK_NULL_HANDLE;              ///< Required; Vulkan 1.1 or up.
    VkPhysicalDevice physical_device = VK_NULL_HANDLE; ///< Required.
    VkDevice device = VK_NULL_HANDLE;                  ///< Required; see required_extensions().
    VkQueue queue = VK_NULL_HANDLE;                    ///< Required; where `submit` submits.
    std::uint32_t queue_family = 0;                    ///< The family that `queue` is of.
    /// The device extensions that were enabled, borrowed for the call; more than sluice knows do no
    /// harm. Empty means all of `VulkanDevice::required_extensions()`. Where some of them are
    /// missing `VulkanDeviceCaps` tells what is done instead.
    std::span<const char* const> extensions = {};
    /// The feature samplerYcbcrConversion was enabled. Without it `texture` gives YCbCr in parts.
    bool sampler_ycbcr_conversion = false;
    /// How many further calls of `attach`, `texture` and `attach_buffer` an attachment is kept for
    /// once nobody holds it or its frame, in case its buffers come back in a new frame: a little
    /// more than the largest pool of buffers that a peer sends in turns. Its memory is held so
    /// long; see `VulkanDevice::drop_idle_attachments`.
    std::uint32_t idle_attachments = 64;
};

/// How a wrapped device takes part, found when it is wrapped.
struct VulkanDeviceCaps {
    /// The GPU waits for fences (VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_SYNC_FD_BIT, importable).
    /// Without it `begin_access` waits on the CPU.
    bool imports_fences = false;
    /// The GPU's fences go into buffers (SYNC_FD, exportable). Without it ending an access waits on
    /// the CPU until the GPU is done.
    bool exports_fences = false;
    /// VK_EXT_queue_family_foreign: barriers transfer ownership from and to
    /// VK_QUEUE_FAMILY_FOREIGN_EXT. Without it they name VK_QUEUE_FAMILY_EXTERNAL, which Vulkan
    /// promises something of for users of the same driver only.
    bool foreign_queue = false;
    /// VK_EXT_image_drm_format_modifier. Without it only LINEAR frames can be attached or exported,
    /// and those only in the layout that the driver has for VK_IMAGE_TILING_LINEAR.
    bool modifiers = false;
};

/// What one submission consists of. All spans are borrowed for the call.
struct VulkanSubmitInfo {
    /// Recorded command buffers, in order. Required.
    std::span<const VkCommandBuffer> command_buffers = {};
    /// The attachments that they use. The GPU waits for the fences of their buffers, and leaves its
    /// own there. Default: none.
    std::span<const VulkanUse> uses = {};
    /// Further fences that must signal before the GPU starts. They stay the caller's. Those that
    /// have signalled already cost no semaphore. Default: none.
    std::span<const SyncFile> wait_fences = {};
    /// The stages that wait for all of these. Default: all.
    VkPipelineStageFlags wait_stages = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    /// How long to wait on the CPU: while another thread holds one of the buffers for a submission
    /// of its own, and where driver or kernel leave no other way (`VulkanDeviceCaps`,
    /// `ImplicitSyncCaps`).
    std::chrono::nanoseconds patience = std::chrono::seconds(1);
};

/// A handle on a wrapped VkDevice; copies mean the same one.
///
/// The application's objects stay the application's: destroy every `VulkanDevice` and `VulkanImage`
/// before the VkDevice. Their destruction waits for the submissions made here, up to five seconds.
///
/// Threads: any, but for the queue, which Vulkan makes the caller synchronise: one thread at a time
/// in `submit`.
class SLUICE_API VulkanDevice {
public:
    /// The device extensions that an application should enable; those of external memory it must
    /// (VK_KHR_external_memory_fd and VK_EXT_external_memory_dma_buf).
    [[nodiscard]] static std::span<const char* const> required_extensions() noexcept;

    /// Wraps an application's device. Nothing is created before it is needed.
    /// \returns the device, or
    ///   - `invalid_argument`: a handle that is null, or a function that the device does not have:
    ///     an extension was not enabled.
    [[nodiscard]] static Result<VulkanDevice> wrap(const VulkanDeviceInfo& info) noexcept;

    /// What was wrapped, without `VulkanDeviceInfo::extensions`.
    [[nodiscard]] const VulkanDeviceInfo& info() const noexcept;

    [[nodiscard]] const VulkanDeviceCaps& caps() const noexcept;

    /// The driver's name for the physical device: "llvmpipe (LLVM 19.1.7, 256 bits)".
    [[nodiscard]] const std::string& name() const noexcept;

    /// What the driver does with images of a format, for one usage; see vulkan_caps.hpp.
    /// It is asked the first time only.
    /// \param format DRM_FORMAT_*, one of `vulkan_formats()`.
    /// \param usage everything that the GPU will do with one image.
    /// \param view as `VulkanAttachInfo::view`: a plane as an image of its own.
    /// \returns the modifiers, none where the driver does not have the format, or
    ///   - `unsupported`: Vulkan does not have the format, or has its channels in other places, and
    ///     the usage is more than sampling and copying (`VulkanFormatInfo::is_swizzled`);
    ///   - `invalid_argument`: no usage, or a view that the format does not have;
    ///   - `no_resources`, `failed`: as Vulkan says, in `Error::vk_result`; ask again.
    [[nodiscard]] Result<VulkanFormatCaps>
    support(std::uint32_t format, VkImageUsageFlags usage,
            std::optional<std::uint32_t> view = std::nullopt) const noexcept;

    /// The same for everything that `attach` may be asked for. With `VulkanAttachInfo::srgb_views`
    /// a modifier without such views is listed as neither importable nor exportable.
    /// \returns also
    ///   - `unsupported`: sRGB views of a format that has none;
    ///   - `invalid_argument`: sRGB views of a part, or for a usage without use for them.
    [[nodiscard]] Result<VulkanFormatCaps> support(std::uint32_t format,
                                                   const VulkanAttachInfo& how) const noexcept;

    /// All formats that can be attached or exported as one image for a usage, by at least one
    /// modifier, in the order of `vulkan_formats()`.
    /// \returns them, or what `support` does.
    [[nodiscard]] Result<std::vector<VulkanFormatCaps>>
    formats(VkImageUsageFlags usage) const noexcept;

    /// What the device takes, for `negotiate`: every format with the modifiers and uses that
    /// `support` tells of, as one image or, LINEAR, part by part (`VulkanFormatInfo::views`).
    ///
    /// Where the driver does not take all uses together, the largest sets that it does are listed,
    /// each by itself. YCbCr is sampled as one image only where `VulkanDeviceInfo` says that
    /// conversions may be made and the driver has a place for the chroma, and in whole chroma
    /// samples (`FormatSupport::width_granularity`).
    ///
    /// No query tells the alignment of strides, nor whether a GPU looks into the CPU's caches. The
    /// rows and bytes that the driver wants to be there beyond the image's are found by making a
    /// few images without memory. Asks the driver some hundred questions the first time.
    /// \returns them, or `no_resources`, `failed`: as Vulkan says, in `Error::vk_result`.
    [[nodiscard]] Result<ImporterCaps> importer_caps() const noexcept;

    /// What `export_image` makes, for `negotiate`: hand it `FrameChoice::spec`.
    ///
    /// Vulkan cannot be told that a display shows or captures an image, so all are listed for that,
    /// and the card still refuses what it cannot use when the frame is attached: try it, and go on
    /// with the next choice. Whether `CpuMap` maps the driver's memory is found by exporting and
    /// mapping a small image.
    /// \returns them, or what `importer_caps` does.
    [[nodiscard]] Result<ExporterCaps> exporter_caps() const noexcept;

    /// Makes an image in memory that is exported as a dma-buf, with one of the modifiers asked for;
    /// see vulkan_image.hpp. `VulkanImage::frame` tells which, and where the planes lie.
    /// \returns the image, or
    ///   - `unsupported`: the driver does not make such an image, as the message says of each
    ///     modifier;
    ///   - `invalid_argument`: no pixels or usage, modifier INVALID, or sRGB views for a usage
    ///     without use for them;
    ///   - `wrong_object`: the driver gave something that is no dma-buf;
    ///   - `out_of_bounds`: the driver's layout reaches past the buffer that it gave;
    ///   - `no_resources`, `device_lost`, `failed`: as Vulkan says, in `Error::vk_result`.
    [[nodiscard]] Result<VulkanImage> export_image(const VulkanImageInfo& info) const noexcept;

    /// The same for all that was negotiated (`FrameChoice::spec`): strides, offsets, padding and
    /// the buffer's name too. A stride or offset that the driver does not choose by itself is told
    /// to it where the image is LINEAR and `VulkanDeviceCaps::modifiers` are there; other modifiers
    /// that do not fit are passed over. Padding is more memory, and for LINEAR alone, but for
    /// `FrameSpec::min_size`.
    /// \param usage what the GPU will do with it, exactly.
    /// \param srgb_views as `VulkanImageInfo::srgb_views`.
    /// \returns the image, or what the other does, and
    ///   - `unsupported`: also where the driver's layout is not as asked and it takes no other, or
    ///     where it gives the image no more bytes than it needs itself, in numbers;
    ///   - `invalid_argument`: also alignments that lead out of 32 bits.
    [[nodiscard]] Result<VulkanImage> export_image(const FrameSpec& spec, VkImageUsageFlags usage,
                                                   bool srgb_views = false) const noexcept;

    /// Imports a frame of anybody's as an image; see vulkan_image.hpp. The pixels stay where they
    /// are.
    ///
    /// A frame that was attached before in the same way gives the same image, and so does another
    /// frame of the same buffers and layout, with whatever fds: nothing is imported then. The
    /// device keeps an attachment for as long as somebody holds its frame, and a little longer
    /// (`VulkanDeviceInfo::idle_attachments`); `Frame::revoke` makes it let go.
    /// \returns the image, or, with the frame as it was,
    ///   - `unsupported`: the driver does not take the format, modifier, usage or size, as the
    ///     message says; the modifiers that it does take are named. Or the usage is more than
    ///     sampling and copying, and only a view puts the format's channels in their places
    ///     (`VulkanFormatInfo::is_swizzled`);
    ///   - `invalid_argument`: no usage, a view that the format does not have, LINEAR planes that
    ///     overlap, or sRGB views of a part or for a usage without use for them;
    ///   - `no_permission`: the usage writes, and a buffer's fd is read-only (`DmaBuf::mode`). All
    ///     but sampling, copying from and input attachments counts as writing;
    ///   - `out_of_bounds`: the driver needs more bytes than a buffer holds, both in the message;
    ///   - `wrong_object`: the driver takes a buffer for no dma-buf that it can use, or its fd
    ///     was closed behind our back;
    ///   - `revoked`: the frame's owner has taken it back;
    ///   - `no_resources`, `device_lost`, `failed`: as Vulkan says, in `Error::vk_result`.
    [[nodiscard]] Result<VulkanImage> attach(const Frame& frame,
                                             const VulkanAttachInfo& info) const noexcept;

    /// Attaches a frame for a shader to sample, as the driver can; see vulkan_texture.hpp. As one
    /// image where it can, with a conversion where that holds YCbCr; otherwise part by part. Which
    /// of them it is depends on the driver, the frame's layout and the usage, not on what was
    /// attached before.
    /// \returns the texture, or what `attach` does, of the part that could not be had, with the
    ///   reason why the whole could not, and
    ///   - `no_resources`, `device_lost`, `failed`: also for a view or conversion.
    [[nodiscard]] Result<VulkanTexture> texture(const Frame& frame,
                                                const VulkanTextureInfo& info) const noexcept;

    /// Drops the attachments that the device keeps though nobody holds them or their frames: for
    /// applications that will attach nothing for a while.
    void drop_idle_attachments() const noexcept;

    /// Imports all bytes of one of a frame's buffers as a VkBuffer, in whatever layout they are.
    /// See vulkan_buffer.hpp. As with `attach`, the same bytes in the same way give the same
    /// VkBuffer.
    /// \returns the VkBuffer, or, with the frame as it was,
    ///   - `unsupported`: the driver does not import a dma-buf for the usage, or not of this size;
    ///   - `invalid_argument`: no usage, or a buffer that the frame does not have;
    ///   - `no_permission`: the usage writes, and a buffer's fd is read-only (`DmaBuf::mode`). All
    ///     but copying from, uniform, vertex, index and indirect buffers counts as writing;
    ///   - `out_of_bounds`: the driver needs more bytes than the buffer holds;
    ///   - `wrong_object`: the driver takes the buffer for no dma-buf that it can use, or its fd
    ///     was closed behind our back;
    ///   - `revoked`: the frame's owner has taken it back;
    ///   - `no_resources`, `device_lost`, `failed`: as Vulkan says, in `Error::vk_result`.
    [[nodiscard]] Result<VulkanBuffer>
    attach_buffer(const Frame& frame, const VulkanBufferAttachInfo& info) const noexcept;

    /// The same for plain bytes, \p buffer, which stays the caller's. `VulkanAttachment::frame` is
    /// a LINEAR one of DRM_FORMAT_R8 over a duplicate of it.
    /// \returns also `no_resources` where no further fd can be opened.
    [[nodiscard]] Result<VulkanBuffer> attach_buffer(const DmaBuf& buffer,
                                                     VkBufferUsageFlags usage) const noexcept;

    /// Makes a VkBuffer in memory that is exported as a dma-buf, and of it a LINEAR frame; see
    /// vulkan_buffer.hpp.
    /// \returns the VkBuffer, or
    ///   - `unsupported`: a format that sluice does not know, or the driver exports no VkBuffer for
    ///     the usage, or not of this size;
    ///   - `invalid_argument`: no pixels or usage, or planes that lead out of 32 bits;
    ///   - `wrong_object`: the driver gave something that is no dma-buf;
    ///   - `out_of_bounds`: the dma-buf that the driver gave is smaller than the VkBuffer;
    ///   - `no_resources`, `device_lost`, `failed`: as Vulkan says, in `Error::vk_result`.
    [[nodiscard]] Result<VulkanBuffer> export_buffer(const VulkanBufferInfo& info) const noexcept;

    /// Begins one submission's access to frames; see vulkan_access.hpp.
    ///
    /// After warm-up, when earlier accesses are done, it creates no Vulkan object.
    /// \param uses borrowed; an attachment may be among them twice, and so may a buffer.
    /// \param deadline for other threads' accesses to the same buffers to end, and for fences where
    ///   the driver takes none.
    /// \param wait_fences borrowed; further fences that the GPU waits for, as a screen's out-fence,
    ///   which no buffer carries. Those that have signalled already cost no semaphore.
    /// \returns the access, or, with no buffer taken,
    ///   - `revoked`: the owner of one of the frames has taken it back;
    ///   - `timed_out`: not until \p deadline;
    ///   - `busy`: this thread has an access to one of the buffers open already;
    ///   - `fence_failed`: the work before has failed, so the contents are not valid; beginning
    ///     again will succeed, without those of \p wait_fences that failed;
    ///   - `invalid_argument`: a use without attachment, or with one of another VkDevice or of
    ///     another queue family of it;
    ///   - `wrong_object`: one of \p wait_fences was moved from or closed behind our back;
    ///   - `no_resources`: out of memory or fds;
    ///   - `device_lost`, `failed`: another VkResult, in `Error::vk_result`.
    [[nodiscard]] Result<VulkanAccess>
    begin_access(std::span<const VulkanUse> uses, Deadline deadline,
                 std::span<const SyncFile> wait_fences = {}) const noexcept;

    /// Submits, and gives the fence that signals when the GPU is done. After warm-up, when earlier
    /// submissions have finished, it creates no Vulkan object.
    ///
    /// The fence is the GPU's own: that work it waited for failed only later, when the GPU had been
    /// told already, does not show in it. `VulkanAccess::wait` tells.
    /// \returns the fence, or what `begin_access` does for the uses, and
    ///   - `fence_failed`: one of the fences to wait for has failed; nothing was submitted;
    ///   - `no_resources`: out of memory or fds; nothing was submitted unless the message says so;
    ///   - `device_lost`: the GPU is gone;
    ///   - `wrong_object`: a fence to wait for was closed behind our back, or, with the work
    ///     submitted, the driver gave something that is no fence;
    ///   - `timed_out`: also, with the work submitted, where driver or kernel make it wait for the
    ///     GPU;
    ///   - `failed`: another VkResult, in `Error::vk_result`.
    [[nodiscard]] Result<SyncFile> submit(const VulkanSubmitInfo& info) const noexcept;

    // Copies only, so that no handle is ever empty.
    VulkanDevice(const VulkanDevice&) noexcept = default;
    VulkanDevice& operator=(const VulkanDevice&) noexcept = default;
    ~VulkanDevice() = default;

    struct State; ///< Not part of the API.

private:
    friend class VulkanAccess;
    friend class VulkanContext;
    explicit VulkanDevice(std::shared_ptr<State> state) noexcept;

    std::shared_ptr<State> state_;
};

} // namespace sluice
