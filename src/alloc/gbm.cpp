// SPDX-License-Identifier: MIT
#include <sluice/gbm.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include <drm_fourcc.h>
#include <gbm.h>

#include "alloc/alloc.hpp"
#include "alloc/drm.hpp"
#include "core/sys.hpp"
#include "frame/multiples.hpp"
#include "frame/spec_fit.hpp"
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

/// A buffer object with one of \p modifiers, or without any as \p usage says; null where the driver
/// makes none. errno says why then, or is 0: GBM sets it or leaves it.
Bo create(gbm_device* device, std::uint32_t width, std::uint32_t height, std::uint32_t format,
          std::uint32_t usage, std::span<const std::uint64_t> modifiers = {}) {
    errno = 0;
    if (modifiers.empty())
        return Bo(gbm_bo_create(device, width, height, format, usage));
    return Bo(gbm_bo_create_with_modifiers2(device, width, height, format, modifiers.data(),
                                            static_cast<unsigned>(modifiers.size()),
                                            usage & ~std::uint32_t{GBM_BO_USE_LINEAR}));
}

/// The same, LINEAR by the driver's own word, or made by the flag that means it.
Bo create_linear(gbm_device* device, std::uint32_t width, std::uint32_t height,
                 std::uint32_t format, std::uint32_t usage) {
    // Drivers that know modifiers say which one they took. Others either have no such call or
    // answer INVALID, and then only the flag will do.
    constexpr std::array<std::uint64_t, 1> linear{DRM_FORMAT_MOD_LINEAR};
    if (Bo bo = create(device, width, height, format, usage, linear);
        bo && gbm_bo_get_modifier(bo.get()) == DRM_FORMAT_MOD_LINEAR)
        return bo;
    return create(device, width, height, format, usage | GBM_BO_USE_LINEAR);
}

/// The Error where no buffer object was made, and errno was \p error.
Error not_made(int error, const ExporterCaps& caps, const std::string& problem,
               std::string remedy) {
    if (error == 0)
        return alloc::refusal(Errc::unsupported, operation, caps,
                              problem + ", and does not say why", std::move(remedy));
    return sys::failed_call(error, operation, caps.name, problem, std::move(remedy));
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

/// Shares the buffers behind \p made, and makes the frame.
Result<Frame> share(int card, const Made& made, const FrameSpec& spec, const ExporterCaps& caps) {
    std::vector<DmaBuf> buffers;
    std::uint64_t size = 0;
    for (const std::uint32_t handle : made.handles) {
        auto buffer = alloc::export_handle(card, handle, operation, caps.name);
        if (!buffer)
            return tl::unexpected(std::move(buffer.error()));
        size += buffer->size();
        const std::uint64_t needed =
            pads(spec) && made.layout.modifier == DRM_FORMAT_MOD_LINEAR
                ? padded_size(made.layout, spec, static_cast<std::uint32_t>(buffers.size()))
                : 0;
        if (buffer->size() < needed)
            return tl::unexpected(alloc::refusal(
                Errc::unsupported, operation, caps,
                alloc::describe(spec) + ": the driver made " + to_string(buffer->size()) +
                    " bytes, and " + to_string(needed) + " are needed with what pads the rows",
                "Ask for a larger height alignment, or use another exporter"));
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
    auto frame = Frame::create(made.layout, buffers);
    if (!frame) // whose fault that is was settled when the request was checked
        return tl::unexpected(alloc::refusal(Errc::failed, operation, caps,
                                             "the driver says " + sluice::describe(made.layout) +
                                                 ", which cannot be: " + frame.error().problem,
                                             "Use another exporter: this driver is broken"));
    return frame;
}

/// Makes a frame of \p bo, which the driver laid out as it likes, if its modifier is among
/// \p accepted; where that is null, errno is as `create` left it.
Result<Frame> take_chosen(const GbmExporter::State& state, const FrameSpec& spec,
                          const ExporterCaps& caps, std::span<const std::uint64_t> accepted,
                          const Bo& bo) {
    if (!bo) {
        const int error = errno;
        std::string names;
        for (const std::uint64_t each : accepted)
            names += (names.empty() ? "" : ", ") + modifier_name(each);
        Error failure =
            not_made(error, caps,
                     alloc::describe(spec) + ": the driver makes no buffer with one of " + names,
                     "Offer other modifiers, or use another exporter");
        // Drivers that do not know a modifier set errno to anything.
        if (failure.code != Errc::no_resources && failure.code != Errc::no_permission)
            failure.code = Errc::unsupported;
        return tl::unexpected(std::move(failure));
    }
    const std::uint64_t modifier = gbm_bo_get_modifier(bo.get());
    if (std::ranges::find(accepted, modifier) == accepted.end())
        return tl::unexpected(alloc::refusal(Errc::unsupported, operation, caps,
                                             alloc::describe(spec) + ": the driver took modifier " +
                                                 modifier_name(modifier) +
                                                 ", which was not asked for",
                                             "Offer other modifiers, or use another exporter"));
    auto made = layout_of(bo.get(), spec, caps, modifier);
    if (!made)
        return tl::unexpected(std::move(made.error()));
    if (const std::string problem = misfit(made->layout, spec); !problem.empty())
        return tl::unexpected(alloc::refusal(Errc::unsupported, operation, caps,
                                             alloc::describe(spec) + ": " + problem,
                                             "Ask for smaller alignments, or offer LINEAR"));
    return share(state.card.get(), *made, spec, caps);
}

/// A LINEAR frame, from a buffer that is wider than the image where the stride needs it.
Result<Frame> allocate_linear(const GbmExporter::State& state, const FrameSpec& spec,
                              const ExporterCaps& caps, std::uint32_t height) {
    const auto refuse = [&](const std::string& problem, std::string remedy) {
        return tl::unexpected(alloc::refusal(Errc::unsupported, operation, caps,
                                             alloc::describe(spec) + ": " + problem,
                                             std::move(remedy)));
    };
    if (std::ranges::none_of(caps.formats, [&spec](const FormatSupport& each) {
            return each.format == spec.format && each.modifier == DRM_FORMAT_MOD_LINEAR;
        }))
        return refuse("the driver does not make this format LINEAR for this use",
                      "Take one of ExporterCaps::formats");
    const FormatPlane& block = find_format(spec.format)->planes[0];
    std::uint32_t width = spec.width;
    for (bool widened = false;; widened = true) {
        const Bo bo = create_linear(state.device, width, height, spec.format, state.usage);
        if (!bo) {
            const int error = errno;
            return tl::unexpected(
                not_made(error, caps,
                         alloc::describe(spec) + ": the driver makes no buffer of " +
                             to_string(width) + "x" + to_string(height) + " pixels (gbm_bo_create)",
                         "Ask for a smaller one, or use another exporter"));
        }
        const std::uint64_t modifier = gbm_bo_get_modifier(bo.get());
        if (modifier != DRM_FORMAT_MOD_LINEAR && modifier != DRM_FORMAT_MOD_INVALID)
            return refuse("the driver was asked for LINEAR and took modifier " +
                              modifier_name(modifier),
                          "Use another exporter");
        auto made = layout_of(bo.get(), spec, caps, DRM_FORMAT_MOD_LINEAR);
        if (!made)
            return tl::unexpected(std::move(made.error()));
        const std::string problem = misfit(made->layout, spec);
        if (!problem.empty()) {
            // A wider buffer has a larger stride; one that fits, if the driver rounds no further.
            const auto stride =
                common_multiple(spec.stride_alignment, block.block_bytes, INT32_MAX);
            const auto wider = stride ? *round_up(made->layout.planes[0].stride, *stride) /
                                            block.block_bytes * block.block_width
                                      : 0;
            if (widened || wider <= width || wider > UINT32_MAX)
                return refuse(problem, "Ask for smaller alignments, or use another exporter");
            width = static_cast<std::uint32_t>(wider);
            continue;
        }
        return share(state.card.get(), *made, spec, caps);
    }
}

} // namespace

GbmExporter::GbmExporter(Private, std::unique_ptr<State> state, ExporterCaps caps) noexcept
    : Exporter(std::move(caps)), state_(std::move(state)) {}

GbmExporter::~GbmExporter() = default;

Result<std::shared_ptr<const GbmExporter>> GbmExporter::wrap(int fd, std::uint32_t usage) noexcept {
    constexpr const char* wrapping = "GbmExporter::wrap";
    auto card = alloc::wrap_device(fd, wrapping, "/dev/dri/card* or renderD*");
    if (!card)
        return tl::unexpected(std::move(card.error()));
    ExporterCaps caps{.name = "gbm " + card->driver,
                      .device = sys::device_of_fd(card->fd.get()),
                      .max_size = UINT64_MAX,
                      .max_size_source = "none known: the driver's own",
                      .granularity = alloc::page_size(),
                      .zeroed = false,
                      .gives_bytes = false,
                      .lays_out_frames = true,
                      .unlisted_modifiers = true};
    errno = 0;
    gbm_device* device = gbm_create_device(card->fd.get());
    if (device == nullptr)
        return tl::unexpected(alloc::refusal(Errc::unsupported, wrapping, caps,
                                             "Mesa has no GBM driver for " + sys::describe_fd(fd) +
                                                 (errno != 0 ? ": " + sys::errno_text(errno) : ""),
                                             "Install Mesa's DRI drivers, or use dumb buffers"));
    auto state = std::make_unique<State>(std::move(card->fd), device, usage);
    // GBM answers for a use with the flag that means LINEAR and without, and lists no modifiers.
    const auto list = [&](const FormatInfo& format, std::uint64_t modifier, std::uint32_t flag) {
        const int planes =
            gbm_device_get_format_modifier_plane_count(device, format.fourcc, modifier);
        // A driver without modifiers has no answer (-1); its buffers are looked at one by one.
        if (gbm_device_is_format_supported(device, format.fourcc, usage | flag) != 0 &&
            (planes < 0 || planes == static_cast<int>(format.plane_count)))
            caps.formats.push_back(
                {.format = format.fourcc, .modifier = modifier, .uses = uses_of(usage)});
    };
    for (const FormatInfo& each : formats()) {
        list(each, DRM_FORMAT_MOD_LINEAR, GBM_BO_USE_LINEAR);
        list(each, DRM_FORMAT_MOD_INVALID, 0);
    }
    if (caps.formats.empty())
        return tl::unexpected(
            alloc::refusal(Errc::unsupported, wrapping, caps,
                           "makes no format for usage " + to_string(usage) + " (GBM_BO_USE_*)",
                           "Ask for less usage"));
    // Mesa opens render nodes whose driver then makes nothing (software on vgem), so one is made.
    GbmExporter probe(Private(), std::move(state), caps);
    auto tried = std::ranges::find(caps.formats, DRM_FORMAT_MOD_LINEAR, &FormatSupport::modifier);
    if (tried == caps.formats.end())
        tried = caps.formats.begin();
    const auto frame = probe.allocate_frame(
        {.width = 64, .height = 64, .format = tried->format, .modifiers = {tried->modifier}});
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
    const auto height = static_cast<std::uint32_t>(*round_up(spec.height, spec.height_alignment));
    const Wanted wanted(spec);
    const std::lock_guard lock(state_->mutex);
    Result<Frame> frame = tl::unexpected(Error());
    if (wanted.tiled)
        frame = take_chosen(
            *state_, spec, caps(), wanted.named,
            create(state_->device, spec.width, height, spec.format, state_->usage, wanted.named));
    if (!frame && wanted.linear)
        frame = allocate_linear(*state_, spec, caps(), height);
    // What the driver keeps to itself is for want of everything that has a name.
    if (!frame && wanted.implicit)
        frame = take_chosen(*state_, spec, caps(), spec.modifiers,
                            create(state_->device, spec.width, height, spec.format, state_->usage));
    return frame;
}

} // namespace sluice
