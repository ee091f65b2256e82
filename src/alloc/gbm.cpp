// SPDX-License-Identifier: MIT
#include <sluice/gbm.hpp>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <gbm.h>

#include "alloc/alloc.hpp"
#include "alloc/drm.hpp"
#include "core/sys.hpp"
#include <sluice/cpu_map.hpp>
#include <sluice/format.hpp>

namespace sluice {

struct GbmExporter::State {
    State(UniqueFd&& fd, gbm_device* of, std::uint32_t uses) noexcept
        : card(std::move(fd)), device(of), usage(uses) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() { gbm_device_destroy(device); }

    UniqueFd card; // GBM borrows it, so it goes last
    gbm_device* device;
    std::uint32_t usage;
    std::mutex mutex; // around every use of the device and of its buffers
};

namespace {

using std::to_string;

constexpr const char* operation = "GbmExporter::allocate_frame";

struct BoDestroy {
    void operator()(gbm_bo* bo) const noexcept { gbm_bo_destroy(bo); }
};
using Bo = std::unique_ptr<gbm_bo, BoDestroy>;

/// What a driver that was told \p usage (GBM_BO_USE_*) makes its buffers for.
Uses uses_of(std::uint32_t usage) {
    Uses uses = all_uses - Uses::scan_out - Uses::render - Uses::store - Uses::copy_to;
    if ((usage & GBM_BO_USE_SCANOUT) != 0)
        uses = uses | Uses::scan_out;
    if ((usage & GBM_BO_USE_RENDERING) != 0)
        uses = uses | Uses::render | Uses::store | Uses::copy_to;
    return uses;
}

/// What \p spec asks for, sorted by how GBM is asked for it.
struct Wanted {
    std::vector<std::uint64_t> named; // what the driver may choose from, LINEAR among it or not
    bool tiled = false;               // something else than LINEAR is among it
    bool linear = false;
    bool implicit = false; // INVALID: whatever the driver does without telling

    explicit Wanted(const FrameSpec& spec) : linear(spec.modifiers.empty()) {
        for (const std::uint64_t each : spec.modifiers) {
            if (each == DRM_FORMAT_MOD_INVALID) {
                implicit = true;
                continue;
            }
            named.push_back(each);
            (each == DRM_FORMAT_MOD_LINEAR ? linear : tiled) = true;
        }
    }
};

/// A buffer object that is LINEAR by the driver's own word, or made by the flag that means it; null
/// with errno set where there is none.
Bo create_linear(gbm_device* device, std::uint32_t width, std::uint32_t height,
                 std::uint32_t format, std::uint32_t usage) {
    // Drivers that know modifiers say which one they took. Others either have no such call or
    // answer INVALID, and then only the flag will do.
    const std::uint64_t linear = DRM_FORMAT_MOD_LINEAR;
    Bo bo(gbm_bo_create_with_modifiers2(device, width, height, format, &linear, 1,
                                        usage & ~std::uint32_t{GBM_BO_USE_LINEAR}));
    if (bo && gbm_bo_get_modifier(bo.get()) == DRM_FORMAT_MOD_LINEAR)
        return bo;
    bo.reset(gbm_bo_create(device, width, height, format, usage | GBM_BO_USE_LINEAR));
    return bo;
}

/// What a buffer object looks like, and the GEM handles of the frame's buffers.
struct Made {
    FrameLayout layout;
    std::vector<std::uint32_t> handles;
};

/// The layout that the driver gave \p bo, whose modifier is \p modifier for the frame, or why no
/// frame can be made of it.
Result<Made> layout_of(gbm_bo* bo, const FrameSpec& spec, const ExporterCaps& caps,
                       std::uint64_t modifier) {
    const auto planes = static_cast<std::uint32_t>(std::max(gbm_bo_get_plane_count(bo), 0));
    const FormatInfo* format = find_format(spec.format);
    const bool plain = modifier == DRM_FORMAT_MOD_LINEAR || modifier == DRM_FORMAT_MOD_INVALID;
    if (planes == 0 || planes > max_planes || (plain && planes != format->plane_count))
        return tl::unexpected(alloc::refusal(Errc::unsupported, operation, caps,
                                             alloc::describe(spec) + ": the driver made " +
                                                 to_string(planes) + " planes, the format has " +
                                                 to_string(format->plane_count),
                                             "Use another exporter"));
    Made made{.layout = {.width = spec.width,
                         .height = spec.height,
                         .format = spec.format,
                         .modifier = modifier,
                         .plane_count = planes},
              .handles = {}};
    for (std::uint32_t i = 0; i < planes; ++i) {
        const int plane = static_cast<int>(i);
        const std::uint32_t handle = gbm_bo_get_handle_for_plane(bo, plane).u32;
        auto known = std::ranges::find(made.handles, handle);
        if (known == made.handles.end())
            known = made.handles.insert(known, handle);
        made.layout.planes[i] = {.offset = gbm_bo_get_offset(bo, plane),
                                 .stride = gbm_bo_get_stride_for_plane(bo, plane),
                                 .buffer =
                                     static_cast<std::uint32_t>(known - made.handles.begin())};
    }
    return made;
}

/// What of \p layout is not as \p spec asks, in words, or an empty text.
std::string misfit(const FrameLayout& layout, std::uint32_t planes, const FrameSpec& spec) {
    for (std::uint32_t i = 0; i < planes; ++i) {
        const FramePlane& plane = layout.planes[i];
        if (plane.stride % std::max(spec.stride_alignment, 1U) != 0)
            return "plane " + to_string(i) + "'s stride of " + to_string(plane.stride) +
                   " bytes is no multiple of " + to_string(spec.stride_alignment);
        if (plane.offset % std::max(spec.offset_alignment, 1U) != 0)
            return "plane " + to_string(i) + "'s offset of " + to_string(plane.offset) +
                   " bytes is no multiple of " + to_string(spec.offset_alignment);
    }
    return {};
}

/// Shares the buffers behind \p made, and makes the frame.
Result<Frame> share(int card, const Made& made, const FrameSpec& spec, const ExporterCaps& caps) {
    std::vector<DmaBuf> buffers;
    std::uint64_t size = 0;
    for (const std::uint32_t handle : made.handles) {
        auto buffer = alloc::export_handle(card, handle, operation, caps.name);
        if (!buffer)
            return tl::unexpected(std::move(buffer.error()));
        size += buffer->size();
        if (!spec.name.empty())
            (void)buffer->set_name(spec.name); // for people; a buffer serves without
        buffers.push_back(std::move(*buffer));
    }
    if (size < spec.min_size)
        return tl::unexpected(
            alloc::refusal(Errc::unsupported, operation, caps,
                           alloc::describe(spec) + ": the driver made " + to_string(size) +
                               " bytes, and " + to_string(spec.min_size) + " are needed",
                           "Ask for a larger height alignment, or use another exporter"));
    return Frame::create(made.layout, buffers);
}

/// A frame whose layout the driver chooses, among those named or as it likes.
Result<Frame> allocate_chosen(GbmExporter::State& state, const FrameSpec& spec,
                              const ExporterCaps& caps, const Wanted& wanted,
                              std::uint32_t height) {
    Bo bo(wanted.tiled ? gbm_bo_create_with_modifiers2(
                             state.device, spec.width, height, spec.format, wanted.named.data(),
                             static_cast<unsigned>(wanted.named.size()),
                             state.usage & ~std::uint32_t{GBM_BO_USE_LINEAR})
                       : nullptr);
    // Drivers without modifiers have no such call; whoever takes INVALID takes what they make.
    if (!bo && wanted.implicit)
        bo.reset(gbm_bo_create(state.device, spec.width, height, spec.format, state.usage));
    if (!bo) {
        const int error = errno;
        std::string names;
        for (const std::uint64_t each : spec.modifiers)
            names += (names.empty() ? "" : ", ") + modifier_name(each);
        Error failure = sys::failed_call(error, operation, caps.name,
                                         alloc::describe(spec) +
                                             ": the driver makes no buffer with one of " + names,
                                         "Offer LINEAR as well, or use another exporter");
        // Drivers that do not know a modifier set errno to anything, or leave it.
        if (failure.code != Errc::no_resources && failure.code != Errc::no_permission)
            failure.code = Errc::unsupported;
        return tl::unexpected(std::move(failure));
    }
    const std::uint64_t modifier = gbm_bo_get_modifier(bo.get());
    const bool named = std::ranges::find(wanted.named, modifier) != wanted.named.end();
    if (!named && (!wanted.implicit || modifier != DRM_FORMAT_MOD_INVALID))
        return tl::unexpected(alloc::refusal(Errc::unsupported, operation, caps,
                                             alloc::describe(spec) + ": the driver took modifier " +
                                                 modifier_name(modifier) +
                                                 ", which was not asked for",
                                             "Offer LINEAR as well, or use another exporter"));
    auto made = layout_of(bo.get(), spec, caps, modifier);
    if (!made)
        return tl::unexpected(std::move(made.error()));
    if (const std::string problem = misfit(made->layout, made->layout.plane_count, spec);
        !problem.empty())
        return tl::unexpected(alloc::refusal(Errc::unsupported, operation, caps,
                                             alloc::describe(spec) + ": " + problem,
                                             "Ask for smaller alignments, or offer LINEAR"));
    return share(state.card.get(), *made, spec, caps);
}

} // namespace

GbmExporter::GbmExporter(Private, std::unique_ptr<State> state, ExporterCaps caps) noexcept
    : Exporter(std::move(caps)), state_(std::move(state)) {}

GbmExporter::~GbmExporter() = default;

Result<std::shared_ptr<const GbmExporter>> GbmExporter::wrap(int fd, std::uint32_t usage) noexcept {
    constexpr const char* wrapping = "GbmExporter::wrap";
    auto copy = UniqueFd::duplicate(fd);
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    errno = 0;
    const std::string driver = alloc::drm_driver(copy->get());
    const int error = errno;
    if (driver.empty())
        return tl::unexpected(Error{.code = sys::code_of_wrong_object(error),
                                    .operation = wrapping,
                                    .object = sys::describe_fd(fd),
                                    .problem = "is not a DRM device",
                                    .remedy = "Open a /dev/dri/card* or renderD* node",
                                    .sys_errno = error});
    ExporterCaps caps{.name = "gbm " + driver,
                      .device = sys::device_of_fd(copy->get()),
                      .max_size = UINT64_MAX,
                      .max_size_source = "none known: the driver's own",
                      .granularity = alloc::page_size(),
                      .zeroed = false,
                      .gives_bytes = false,
                      .lays_out_frames = true};
    errno = 0;
    gbm_device* device = gbm_create_device(copy->get());
    if (device == nullptr)
        return tl::unexpected(alloc::refusal(Errc::unsupported, wrapping, caps,
                                             "Mesa has no GBM driver for " + sys::describe_fd(fd) +
                                                 (errno != 0 ? ": " + sys::errno_text(errno) : ""),
                                             "Install Mesa's DRI drivers, or use dumb buffers"));
    auto state = std::make_unique<State>(std::move(*copy), device, usage);
    for (const FormatInfo& each : formats()) {
        const int planes =
            gbm_device_get_format_modifier_plane_count(device, each.fourcc, DRM_FORMAT_MOD_LINEAR);
        // A driver without modifiers has no answer (-1); its buffers are looked at one by one.
        if (gbm_device_is_format_supported(device, each.fourcc, usage | GBM_BO_USE_LINEAR) != 0 &&
            (planes < 0 || planes == static_cast<int>(each.plane_count)))
            caps.formats.push_back(
                {.format = each.fourcc, .modifier = DRM_FORMAT_MOD_LINEAR, .uses = uses_of(usage)});
    }
    if (caps.formats.empty())
        return tl::unexpected(alloc::refusal(Errc::unsupported, wrapping, caps,
                                             "makes no format LINEAR for usage " +
                                                 to_string(usage) + " (GBM_BO_USE_*)",
                                             "Ask for less usage"));
    // Mesa opens render nodes whose driver then makes nothing (software on vgem), so one is made.
    GbmExporter probe(Private(), std::move(state), caps);
    const auto frame =
        probe.allocate_frame({.width = 64, .height = 64, .format = caps.formats[0].format});
    if (!frame)
        return tl::unexpected(
            alloc::refusal(Errc::unsupported, wrapping, caps,
                           "makes no buffer of 64x64 pixels: " + frame.error().problem,
                           "Pass the card's primary node, /dev/dri/card*"));
    caps.cpu_mappable = CpuMap::map(frame->buffer(), Access::read_write).has_value();
    return std::make_shared<const GbmExporter>(Private(), std::move(probe.state_), std::move(caps));
}

Result<DmaBuf> GbmExporter::allocate(const BufferRequest& request) const noexcept {
    return tl::unexpected(alloc::refusal(Errc::unsupported, "GbmExporter::allocate", caps(),
                                         "asked for " + alloc::describe(request) +
                                             ", and GBM makes frames, no plain bytes",
                                         "Use allocate_frame, or another exporter"));
}

Result<Frame> GbmExporter::allocate_frame(const FrameSpec& spec) const noexcept {
    // Nobody's layout, but the request is checked as for everybody.
    FrameSpec linear_spec = spec;
    linear_spec.modifiers = {};
    auto plan = alloc::plan_linear(linear_spec, caps(), std::max(spec.stride_alignment, 1U));
    if (!plan)
        return tl::unexpected(std::move(plan.error()));
    const auto refuse = [&](Errc code, const std::string& problem, std::string remedy) {
        return tl::unexpected(alloc::refusal(
            code, operation, caps(), alloc::describe(spec) + ": " + problem, std::move(remedy)));
    };
    const auto height = static_cast<std::uint32_t>(*round_up(spec.height, spec.height_alignment));
    const Wanted wanted(spec);
    const std::lock_guard lock(state_->mutex);
    if (wanted.tiled || wanted.implicit) {
        auto chosen = allocate_chosen(*state_, spec, caps(), wanted, height);
        if (chosen || !wanted.linear)
            return chosen;
    }
    if (std::ranges::find(caps().formats, spec.format, &FormatSupport::format) ==
        caps().formats.end())
        return refuse(Errc::unsupported, "the driver does not make this format LINEAR for this use",
                      "Take one of ExporterCaps::formats");
    const FormatInfo* format = find_format(spec.format);
    const FormatPlane& block = format->planes[0];
    std::uint32_t width = spec.width;
    for (bool widened = false;; widened = true) {
        const Bo bo = create_linear(state_->device, width, height, spec.format, state_->usage);
        if (!bo) {
            const int error = errno;
            Error failure = sys::failed_call(
                error, operation, caps().name,
                alloc::describe(spec) + ": the driver makes no buffer of " + to_string(width) +
                    "x" + to_string(height) + " pixels (gbm_bo_create)",
                "Ask for a smaller one, or use another exporter");
            return tl::unexpected(std::move(failure));
        }
        const std::uint64_t modifier = gbm_bo_get_modifier(bo.get());
        if (modifier != DRM_FORMAT_MOD_LINEAR && modifier != DRM_FORMAT_MOD_INVALID)
            return refuse(Errc::unsupported,
                          "the driver was asked for LINEAR and took modifier " +
                              modifier_name(modifier),
                          "Use another exporter");
        auto made = layout_of(bo.get(), spec, caps(), DRM_FORMAT_MOD_LINEAR);
        if (!made)
            return tl::unexpected(std::move(made.error()));
        const std::string problem = misfit(made->layout, format->plane_count, spec);
        if (!problem.empty()) {
            // A wider buffer has a larger stride; one that fits, if the driver rounds no further.
            const auto stride =
                common_multiple(spec.stride_alignment, block.block_bytes, INT32_MAX);
            const auto wider = stride ? *round_up(made->layout.planes[0].stride, *stride) /
                                            block.block_bytes * block.block_width
                                      : 0;
            if (widened || wider <= width || wider > UINT32_MAX)
                return refuse(Errc::unsupported, problem,
                              "Ask for smaller alignments, or use another exporter");
            width = static_cast<std::uint32_t>(wider);
            continue;
        }
        return share(state_->card.get(), *made, spec, caps());
    }
}

} // namespace sluice
