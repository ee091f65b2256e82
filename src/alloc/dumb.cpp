// SPDX-License-Identifier: MIT
#include <sluice/dumb.hpp>

#include <algorithm>
#include <cerrno>
#include <string>

#include <drm.h>
#include <drm_mode.h>

#include "alloc/alloc.hpp"
#include "alloc/drm.hpp"
#include "core/sys.hpp"
#include "frame/multiples.hpp"
#include <sluice/cpu_map.hpp>
#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

/// A dumb buffer's GEM handle, closed once.
struct GemHandle {
    GemHandle(int card, std::uint32_t of) noexcept : fd(card), handle(of) {}
    GemHandle(const GemHandle&) = delete;
    GemHandle& operator=(const GemHandle&) = delete;
    ~GemHandle() {
        drm_mode_destroy_dumb request{.handle = handle};
        (void)sys::ioctl(fd, DRM_IOCTL_MODE_DESTROY_DUMB, &request);
    }

    int fd;
    std::uint32_t handle;
};

struct DumbBuffer {
    DmaBuf buffer;
    std::uint32_t pitch;
};

/// A dumb buffer of \p rows rows of \p stride bytes, or more: the driver chooses its pitch.
Result<DumbBuffer> create(int fd, const ExporterCaps& caps, const char* operation,
                          std::uint32_t stride, std::uint64_t rows, std::uint32_t bpp) {
    drm_mode_create_dumb request{};
    request.width = static_cast<std::uint32_t>(std::uint64_t{stride} * 8 / bpp);
    request.height = static_cast<std::uint32_t>(rows);
    request.bpp = bpp;
    const std::string object = caps.name + ", " + to_string(request.width) + "x" + to_string(rows) +
                               " pixels of " + to_string(bpp) + " bits";
    if (sys::ioctl(fd, DRM_IOCTL_MODE_CREATE_DUMB, &request) != 0) {
        const int error = errno;
        Error failure =
            sys::failed_call(error, operation, object,
                             "the driver makes no such buffer (DRM_IOCTL_MODE_CREATE_DUMB)",
                             error == EACCES ? "Pass the card's primary node, /dev/dri/card*"
                                             : "Ask for a smaller one, or use another exporter");
        if (error == EACCES)
            failure.problem += "; render nodes make no dumb buffers";
        return tl::unexpected(std::move(failure));
    }
    const GemHandle handle(fd, request.handle);
    auto buffer = alloc::export_handle(fd, request.handle, operation, object);
    if (!buffer)
        return tl::unexpected(std::move(buffer.error()));
    if (request.pitch < stride || buffer->size() / request.pitch < rows)
        return tl::unexpected(Error{.code = Errc::failed,
                                    .operation = operation,
                                    .object = object,
                                    .problem = "the driver gave " + to_string(buffer->size()) +
                                               " bytes with a pitch of " +
                                               to_string(request.pitch) + ", less than " +
                                               to_string(rows) + " rows of " + to_string(stride),
                                    .remedy = "Use another exporter: this driver is broken"});
    return DumbBuffer{std::move(*buffer), request.pitch};
}

} // namespace

DumbExporter::DumbExporter(Private, UniqueFd&& card, ExporterCaps caps) noexcept
    : Exporter(std::move(caps)), card_(std::move(card)) {}

Result<std::shared_ptr<const DumbExporter>> DumbExporter::wrap(int fd) noexcept {
    constexpr const char* operation = "DumbExporter::wrap";
    auto card = alloc::wrap_device(fd, operation, "/dev/dri/card*");
    if (!card)
        return tl::unexpected(std::move(card.error()));
    const std::uint64_t page = alloc::page_size();
    ExporterCaps caps{.name = "dumb " + card->driver,
                      .device = sys::device_of_fd(card->fd.get()),
                      .max_size = UINT32_MAX / page * page,
                      .max_size_source = "drm_mode_create_dumb counts in 32 bits",
                      .granularity = page,
                      .zeroed = false,
                      .lays_out_frames = true,
                      .formats = alloc::linear_formats()};
    // A driver without a display says nothing of DRM_CAP_DUMB_BUFFER, and may make them all the
    // same (vgem). So the capability counts only where it says no; else one is made.
    drm_get_cap dumb{.capability = DRM_CAP_DUMB_BUFFER, .value = 0};
    if (sys::ioctl(card->fd.get(), DRM_IOCTL_GET_CAP, &dumb) == 0 && dumb.value == 0)
        return tl::unexpected(alloc::refusal(Errc::unsupported, operation, caps,
                                             "makes no dumb buffers (DRM_CAP_DUMB_BUFFER is 0)",
                                             "Use GBM, or another exporter"));
    auto probe = create(card->fd.get(), caps, operation, 256, 1, 32);
    if (!probe) {
        if (probe.error().code == Errc::invalid_argument)
            probe.error().code = Errc::unsupported;
        return tl::unexpected(std::move(probe.error()));
    }
    caps.cpu_mappable = CpuMap::map(probe->buffer, Access::read_write).has_value();
    return std::make_shared<const DumbExporter>(Private(), std::move(card->fd), std::move(caps));
}

Result<DmaBuf> DumbExporter::allocate(const BufferRequest& request) const noexcept {
    constexpr const char* operation = "DumbExporter::allocate";
    auto size = alloc::checked_size(caps(), operation, request);
    if (!size)
        return tl::unexpected(std::move(size.error()));
    const auto page = static_cast<std::uint32_t>(caps().granularity);
    auto made = create(card_.get(), caps(), operation, page, *size / page, 8);
    if (!made && made.error().sys_errno == EINVAL) // virtio-gpu: 32 bits a pixel, or nothing
        made = create(card_.get(), caps(), operation, page, *size / page, 32);
    if (!made)
        return tl::unexpected(std::move(made.error()));
    if (!request.name.empty())
        (void)made->buffer.set_name(request.name);
    return std::move(made->buffer);
}

Result<Frame> DumbExporter::allocate_frame(const FrameSpec& spec) const noexcept {
    constexpr const char* operation = "DumbExporter::allocate_frame";
    const FormatInfo* format = find_format(spec.format);
    const bool packed = format != nullptr && format->plane_count == 1;
    // The planes of other formats need no more than bytes, and get the stride of plain ones.
    const std::uint32_t wanted = spec.stride_alignment != 0 ? spec.stride_alignment
                                 : packed                   ? 1
                                                            : default_stride_alignment;
    const std::uint32_t bytes = packed ? format->planes[0].block_bytes : 1;
    std::uint32_t bpp = packed ? bytes * 8 / format->planes[0].block_width : 8;
    // Whole blocks, and whole pixels of 32 bits where it comes to that.
    const std::uint32_t step = bpp == 32 ? 4 : bytes;
    std::uint64_t alignment = common_multiple(wanted, step, INT32_MAX).value_or(UINT32_MAX);
    std::uint64_t ask = alignment;
    std::uint32_t pitch = 0; // what the driver made of the stride before
    // A driver rounds the pitch up once; a second buffer has it right, and a third is 32 bits deep.
    for (int attempt = 0; attempt < 4; ++attempt) {
        auto plan = alloc::plan_linear(
            spec, caps(), static_cast<std::uint32_t>(std::min<std::uint64_t>(ask, UINT32_MAX)));
        const auto size = plan ? alloc::checked_size(caps(), operation, {plan->size, spec.name})
                               : Result<std::uint64_t>(tl::unexpected(std::move(plan.error())));
        if (!size && pitch != 0)
            return tl::unexpected(alloc::refusal(
                Errc::unsupported, operation, caps(),
                "the driver's pitch of " + to_string(pitch) +
                    " bytes leads nowhere: " + size.error().problem,
                "Ask for another width or a smaller alignment, or use another exporter"));
        if (!size)
            return tl::unexpected(size.error());
        const std::uint32_t stride = plan->layout.planes[0].stride;
        const std::uint64_t rows = (plan->size + stride - 1) / stride;
        auto made = create(card_.get(), caps(), operation, stride, rows, bpp);
        if (!made && made.error().sys_errno == EINVAL && bpp != 32) {
            bpp = 32; // virtio-gpu makes no others
            alignment = common_multiple(alignment, 4, INT32_MAX).value_or(UINT32_MAX);
            ask = common_multiple(ask, 4, INT32_MAX).value_or(UINT32_MAX);
            continue;
        }
        if (!made)
            return tl::unexpected(std::move(made.error()));
        if (made->pitch == stride) {
            if (!spec.name.empty())
                (void)made->buffer.set_name(spec.name);
            return Frame::create(plan->layout, std::move(made->buffer));
        }
        // The driver's pitch becomes the stride if it fits, and the next one that does otherwise.
        pitch = made->pitch;
        ask = *round_up(pitch, alignment);
    }
    return tl::unexpected(alloc::refusal(
        Errc::unsupported, operation, caps(),
        alloc::describe(spec) +
            ": no width that was tried leads to a stride with an alignment of " +
            to_string(alignment) + " bytes; the last one asked for was " + to_string(ask),
        "Ask for a smaller stride alignment, or use another exporter"));
}

} // namespace sluice
