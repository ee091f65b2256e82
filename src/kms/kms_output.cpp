// SPDX-License-Identifier: MIT
#include <sluice/kms_output.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <set>
#include <utility>

#include <drm_fourcc.h>
#include <fcntl.h>

#include "core/dma_buf_text.hpp"
#include "core/sync_file_adopt.hpp"
#include "core/sys.hpp"
#include "frame/frame_use.hpp"
#include "kms/drm_ptr.hpp"
#include "kms/kms_state.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

using std::to_string;

std::string connector_name(const drmModeConnector& connector) {
    const char* type = drmModeGetConnectorTypeName(connector.connector_type);
    return std::string(type ? type : "Unknown") + "-" + to_string(connector.connector_type_id);
}

/// The CRTCs, as a mask of indices, that some encoder of \p connector can take its picture from.
std::uint32_t possible_crtcs(int fd, const drmModeConnector& connector) {
    std::uint32_t mask = 0;
    for (int i = 0; i < connector.count_encoders; ++i)
        if (const DrmEncoder encoder{drmModeGetEncoder(fd, connector.encoders[i])})
            mask |= encoder->possible_crtcs;
    return mask;
}

/// The mode of the size asked for, or the preferred one, or null.
const drmModeModeInfo* find_mode(const drmModeConnector& connector, const KmsOutputInfo& info) {
    const drmModeModeInfo* first = nullptr;
    for (int i = 0; i < connector.count_modes; ++i) {
        const drmModeModeInfo& mode = connector.modes[i];
        if (info.width == 0 && info.height == 0) {
            if ((mode.type & DRM_MODE_TYPE_PREFERRED) != 0)
                return &mode;
        } else if (mode.hdisplay != info.width || mode.vdisplay != info.height) {
            continue;
        }
        if (first == nullptr)
            first = &mode;
    }
    return first;
}

std::vector<std::uint32_t> words_of_blob(int fd, std::uint64_t blob) {
    const DrmBlob data(drmModeGetPropertyBlob(fd, static_cast<std::uint32_t>(blob)));
    std::vector<std::uint32_t> words(data ? data->length / sizeof(std::uint32_t) : 0);
    if (!words.empty())
        std::memcpy(words.data(), data->data, words.size() * sizeof(std::uint32_t));
    return words;
}

/// Adds what \p plane shows; its formats LINEAR where the driver does not say modifiers, or takes
/// none.
void add_shown(const KmsDevice::State& device, const drmModePlane& plane, std::uint64_t in_formats,
               std::vector<FormatSupport>& to) {
    const int fd = device.file->fd();
    const DrmBlob blob(in_formats != 0
                           ? drmModeGetPropertyBlob(fd, static_cast<std::uint32_t>(in_formats))
                           : nullptr);
    if (blob) {
        drmModeFormatModifierIterator each{};
        while (drmModeFormatModifierBlobIterNext(blob.get(), &each))
            if (each.mod == DRM_FORMAT_MOD_LINEAR || device.caps.modifiers)
                to.push_back({.format = each.fmt, .modifier = each.mod, .uses = Uses::scan_out});
        return;
    }
    for (std::uint32_t i = 0; i < plane.count_formats; ++i)
        to.push_back({.format = plane.formats[i],
                      .modifier = DRM_FORMAT_MOD_LINEAR,
                      .uses = Uses::scan_out});
}

/// Adds what the writeback connector captures into, whose formats come without modifiers.
void add_captured(std::span<const std::uint32_t> formats, std::vector<FormatSupport>& to) {
    for (const std::uint32_t each : formats)
        to.push_back({.format = each, .modifier = DRM_FORMAT_MOD_LINEAR, .uses = Uses::capture});
}

/// Whether the card sees what lies in the CPU's caches. The kernel does not tell; it is known of
/// drivers where a CPU, the host's at least, reads the pixels (vkms_composer.c, cirrus.c and
/// virtgpu_plane.c in drivers/gpu/drm).
Snooping snooping_of(std::string_view driver) {
    constexpr std::array<std::string_view, 4> by_cpu{"vkms", "virtio_gpu", "cirrus", "cirrus-qemu"};
    return std::ranges::find(by_cpu, driver) != by_cpu.end() ? Snooping::yes : Snooping::unknown;
}

/// The parts of one output, each found or not.
class Search {
public:
    Search(std::shared_ptr<KmsDevice::State> device, const KmsOutputInfo& info)
        : device_(std::move(device)), fd_(device_->file->fd()), info_(info) {}

    /// Fills \p output. \returns what is missing, or an empty text.
    std::string run(KmsOutput::State& output) {
        resources_.reset(drmModeGetResources(fd_));
        planes_.reset(drmModeGetPlaneResources(fd_));
        if (!resources_ || !planes_)
            return "it has no display engine: " + sys::errno_text(errno);
        for (int i = 0; i < resources_->count_connectors; ++i)
            if (DrmConnector connector{drmModeGetConnector(fd_, resources_->connectors[i])})
                connectors_.push_back(std::move(connector));
        for (std::uint32_t i = 0; i < planes_->count_planes; ++i)
            if (DrmPlane plane{drmModeGetPlane(fd_, planes_->planes[i])})
                all_planes_.push_back(std::move(plane));

        std::string refusals;
        for (const DrmConnector& connector : connectors_) {
            if (connector->connector_type == DRM_MODE_CONNECTOR_WRITEBACK)
                continue;
            const std::string refusal = try_connector(*connector, output);
            if (refusal.empty()) {
                note_bystanders(output);
                return {};
            }
            refusals += (refusals.empty() ? "" : "; ") + connector_name(*connector) + " " + refusal;
        }
        return refusals.empty() ? "it has no connectors" : refusals;
    }

private:
    std::string try_connector(const drmModeConnector& connector, KmsOutput::State& output) {
        if (connector.connection != DRM_MODE_CONNECTED)
            return "is not connected";
        const drmModeModeInfo* mode = find_mode(connector, info_);
        if (mode == nullptr)
            return "has no mode of " + to_string(info_.width) + "x" + to_string(info_.height);
        const std::uint32_t crtcs = possible_crtcs(fd_, connector);
        std::string refusal = "has no CRTC";
        for (int index = 0; index < resources_->count_crtcs; ++index) {
            if ((crtcs & (1U << index)) == 0)
                continue;
            refusal = try_crtc(connector, index, output);
            if (refusal.empty()) {
                output.mode = *mode;
                describe_to_others(connector, output);
                return {};
            }
        }
        return refusal;
    }

    std::string try_crtc(const drmModeConnector& connector, int index, KmsOutput::State& output) {
        const std::uint32_t crtc = resources_->crtcs[index];
        const std::uint32_t bit = 1U << index;
        const auto on_crtc = " on CRTC " + to_string(crtc);

        const drmModePlane* primary = nullptr;
        KmsProperties plane_properties;
        for (const DrmPlane& plane : all_planes_) {
            if ((plane->possible_crtcs & bit) == 0)
                continue;
            KmsProperties properties(fd_, plane->plane_id, DRM_MODE_OBJECT_PLANE);
            if (properties.find("type").value != DRM_PLANE_TYPE_PRIMARY)
                continue;
            primary = plane.get();
            plane_properties = std::move(properties);
            break;
        }
        if (primary == nullptr)
            return "has no primary plane" + on_crtc;

        const drmModeConnector* writeback = nullptr;
        if (info_.writeback) {
            for (const DrmConnector& each : connectors_)
                if (each->connector_type == DRM_MODE_CONNECTOR_WRITEBACK &&
                    (possible_crtcs(fd_, *each) & bit) != 0)
                    writeback = each.get();
            if (writeback == nullptr)
                return "has no writeback connector" + on_crtc;
        }

        output.connector = connector.connector_id;
        output.crtc = crtc;
        output.plane = primary->plane_id;
        output.caps.formats.clear();
        add_shown(*device_, *primary, plane_properties.find("IN_FORMATS").value,
                  output.caps.formats);
        output.name = connector_name(connector) + on_crtc + ", plane " + to_string(output.plane);
        std::string missing = take_properties(plane_properties, output);
        if (writeback != nullptr && missing.empty()) {
            output.writeback = writeback->connector_id;
            output.name += ", captured by " + connector_name(*writeback);
            const KmsProperties properties(fd_, output.writeback, DRM_MODE_OBJECT_CONNECTOR);
            add_captured(words_of_blob(fd_, properties.find("WRITEBACK_PIXEL_FORMATS").value),
                         output.caps.formats);
            missing =
                take(properties, {{"CRTC_ID", &output.writeback_properties.crtc_id},
                                  {"WRITEBACK_FB_ID", &output.writeback_properties.writeback_fb_id},
                                  {"WRITEBACK_OUT_FENCE_PTR",
                                   &output.writeback_properties.writeback_out_fence_ptr}});
        }
        return missing.empty() ? missing : "lacks the property " + missing + on_crtc;
    }

    void describe_to_others(const drmModeConnector& connector, KmsOutput::State& output) const {
        ImporterCaps& caps = output.caps;
        caps.name = "kms " + device_->file->driver() + " " + connector_name(connector);
        caps.device = device_->device;
        caps.snooping = snooping_of(device_->file->driver());
        caps.min_width = output.mode.hdisplay;
        caps.min_height = output.mode.vdisplay;
        for (FormatSupport& each : caps.formats) {
            each.max_width = output.mode.hdisplay;
            each.max_height = output.mode.vdisplay;
        }
    }

    using Wanted = std::initializer_list<std::pair<const char*, std::uint32_t*>>;

    /// \returns the name of the first property that is not there, or an empty text.
    static std::string take(const KmsProperties& properties, Wanted wanted) {
        for (const auto& [name, id] : wanted)
            if (*id = properties.find(name).id; *id == 0)
                return name;
        return {};
    }

    std::string take_properties(const KmsProperties& plane, KmsOutput::State& output) const {
        const KmsProperties connector(fd_, output.connector, DRM_MODE_OBJECT_CONNECTOR);
        if (auto missing = take(connector, {{"CRTC_ID", &output.connector_properties.crtc_id}});
            !missing.empty())
            return missing;
        const KmsProperties crtc(fd_, output.crtc, DRM_MODE_OBJECT_CRTC);
        auto& of_crtc = output.crtc_properties;
        if (auto missing = take(crtc, {{"ACTIVE", &of_crtc.active},
                                       {"MODE_ID", &of_crtc.mode_id},
                                       {"OUT_FENCE_PTR", &of_crtc.out_fence_ptr}});
            !missing.empty())
            return missing;
        auto& of_plane = output.plane_properties;
        return take(plane, {{"FB_ID", &of_plane.fb_id},
                            {"IN_FENCE_FD", &of_plane.in_fence_fd},
                            {"CRTC_ID", &of_plane.crtc_id},
                            {"SRC_X", &of_plane.src_x},
                            {"SRC_Y", &of_plane.src_y},
                            {"SRC_W", &of_plane.src_w},
                            {"SRC_H", &of_plane.src_h},
                            {"CRTC_X", &of_plane.crtc_x},
                            {"CRTC_Y", &of_plane.crtc_y},
                            {"CRTC_W", &of_plane.crtc_w},
                            {"CRTC_H", &of_plane.crtc_h}});
    }

    /// Connectors and planes that somebody (a boot splash, the console) left on our CRTC.
    void note_bystanders(KmsOutput::State& output) const {
        for (const DrmConnector& each : connectors_) {
            if (each->connector_id == output.connector || each->connector_id == output.writeback)
                continue;
            const auto crtc =
                KmsProperties(fd_, each->connector_id, DRM_MODE_OBJECT_CONNECTOR).find("CRTC_ID");
            if (crtc.id != 0 && crtc.value == output.crtc)
                output.bystanders.push_back({each->connector_id, crtc.id, 0});
        }
        for (const DrmPlane& each : all_planes_) {
            if (each->plane_id == output.plane || each->crtc_id != output.crtc)
                continue;
            const KmsProperties properties(fd_, each->plane_id, DRM_MODE_OBJECT_PLANE);
            output.bystanders.push_back(
                {each->plane_id, properties.find("CRTC_ID").id, properties.find("FB_ID").id});
        }
    }

    std::shared_ptr<KmsDevice::State> device_;
    int fd_;
    const KmsOutputInfo& info_;
    DrmResources resources_;
    DrmPlaneResources planes_;
    std::vector<DrmConnector> connectors_;
    std::vector<DrmPlane> all_planes_;
};

Error moved_from_output(const char* operation) {
    return Error{.code = Errc::wrong_object,
                 .operation = operation,
                 .object = "no output",
                 .problem = "the object was moved from",
                 .remedy = "Use the one that it was moved to"};
}

/// The formats, or with \p of those the modifiers of that one, that the output takes for \p use.
std::string taken(const KmsOutput::State& output, Uses use, std::uint32_t of = 0) {
    std::vector<std::string> names;
    for (const FormatSupport& each : output.caps.formats)
        if (contains(each.uses, use) && (of == 0 || of == each.format))
            names.push_back(of == 0 ? format_name(each.format) : modifier_name(each.modifier));
    names.erase(std::unique(names.begin(), names.end()), names.end());
    std::string text;
    for (const std::string& each : names)
        text += (text.empty() ? "" : ", ") + each;
    return text;
}

/// One framebuffer of a commit against what the card said it takes there.
Result<void> check(const KmsOutput::State& output, const char* operation, const char* what,
                   const KmsFramebuffer& framebuffer, Uses use) {
    const FrameLayout& layout = framebuffer.frame().layout();
    const auto refuse = [&](Errc code, std::string problem, std::string remedy) {
        return tl::unexpected(Error{.code = code,
                                    .operation = operation,
                                    .object = output.name + " of " + describe(*output.device->file),
                                    .problem = std::move(problem),
                                    .remedy = std::move(remedy)});
    };
    const auto takes = [&](const FormatSupport& each) {
        return each.format == layout.format && each.modifier == layout.modifier &&
               contains(each.uses, use);
    };
    if (std::ranges::none_of(output.caps.formats, takes)) {
        const std::string modifiers = taken(output, use, layout.format);
        const std::string format = format_name(layout.format);
        return modifiers.empty()
                   ? refuse(Errc::unsupported,
                            std::string(what) + " takes " + taken(output, use) + ", the frame is " +
                                format,
                            "Allocate the frame in one of these formats")
                   : refuse(Errc::unsupported,
                            std::string(what) + " takes " + format + " as " + modifiers +
                                ", the frame is " + modifier_name(layout.modifier),
                            "Allocate the frame with one of these modifiers");
    }
    if (layout.width != output.mode.hdisplay || layout.height != output.mode.vdisplay)
        return refuse(Errc::invalid_argument,
                      std::string(what) + " is " + to_string(output.mode.hdisplay) + "x" +
                          to_string(output.mode.vdisplay) + ", the frame is " +
                          to_string(layout.width) + "x" + to_string(layout.height),
                      "Allocate the frame in the output's size");
    return {};
}

Result<void> check(const KmsOutput::State& output, const char* operation, const KmsCommit& commit) {
    if (commit.framebuffer == nullptr)
        return tl::unexpected(Error{.code = Errc::invalid_argument,
                                    .operation = operation,
                                    .object = "KmsCommit::framebuffer",
                                    .problem = "is null",
                                    .remedy = "Give the framebuffer to show"});
    if (commit.in_fence != nullptr && !commit.in_fence->valid())
        return tl::unexpected(Error{.code = Errc::wrong_object,
                                    .operation = operation,
                                    .object = "KmsCommit::in_fence",
                                    .problem = "the fence was moved from",
                                    .remedy = "Give the one that it was moved to"});
    if (auto good = check(output, operation, "the plane", *commit.framebuffer, Uses::scan_out);
        !good)
        return good;
    if (commit.writeback == nullptr)
        return {};
    if (output.writeback == 0)
        return tl::unexpected(Error{.code = Errc::unsupported,
                                    .operation = operation,
                                    .object = output.name + " of " + describe(*output.device->file),
                                    .problem = "the output has no writeback connector",
                                    .remedy = "Ask KmsDevice::find_output for one"});
    return check(output, operation, "the writeback connector", *commit.writeback, Uses::capture);
}

/// Where the kernel writes the fences' fds, 32 bits each; -1 where it gives none.
struct OutFences {
    std::int32_t flip = -1;
    std::int32_t writeback = -1;
};

/// Fills the output's request. \p out is null for a test, which gives no fences.
void fill(KmsOutput::State& output, const KmsCommit& commit, OutFences* out) {
    const auto pointer = [](std::int32_t* fd) {
        return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(fd));
    };
    KmsAtomicRequest& request = output.request;
    request.clear();
    if (!output.routed) {
        request.add(output.connector, output.connector_properties.crtc_id, output.crtc);
        for (const KmsBystander& each : output.bystanders) {
            if (each.fb_id_property != 0)
                request.add(each.object, each.fb_id_property, 0);
            request.add(each.object, each.crtc_id_property, 0);
        }
    }
    if (output.writeback != 0) {
        const KmsConnectorProperties& properties = output.writeback_properties;
        if (!output.routed)
            request.add(output.writeback, properties.crtc_id, output.crtc);
        if (commit.writeback != nullptr) {
            request.add(output.writeback, properties.writeback_fb_id, commit.writeback->id());
            if (out != nullptr)
                request.add(output.writeback, properties.writeback_out_fence_ptr,
                            pointer(&out->writeback));
        }
    }
    if (!output.routed) {
        request.add(output.crtc, output.crtc_properties.mode_id, output.mode_blob);
        request.add(output.crtc, output.crtc_properties.active, 1);
    }
    if (out != nullptr)
        request.add(output.crtc, output.crtc_properties.out_fence_ptr, pointer(&out->flip));
    const KmsPlaneProperties& plane = output.plane_properties;
    request.add(output.plane, plane.fb_id, commit.framebuffer->id());
    if (commit.in_fence != nullptr && commit.in_fence->fd() >= 0)
        request.add(output.plane, plane.in_fence_fd,
                    static_cast<std::uint64_t>(commit.in_fence->fd()));
    if (!output.routed) {
        constexpr unsigned fixed_point = 16; // SRC_* are 16.16
        const std::uint64_t width = output.mode.hdisplay;
        const std::uint64_t height = output.mode.vdisplay;
        request.add(output.plane, plane.crtc_id, output.crtc);
        request.add(output.plane, plane.src_x, 0);
        request.add(output.plane, plane.src_y, 0);
        request.add(output.plane, plane.src_w, width << fixed_point);
        request.add(output.plane, plane.src_h, height << fixed_point);
        request.add(output.plane, plane.crtc_x, 0);
        request.add(output.plane, plane.crtc_y, 0);
        request.add(output.plane, plane.crtc_w, width);
        request.add(output.plane, plane.crtc_h, height);
    }
}

Error refused(const KmsOutput::State& output, const char* operation, const KmsCommit& commit,
              int error) {
    Error failure =
        sys::failed_call(error, operation, output.name + " of " + describe(*output.device->file),
                         "the card refused " + describe(commit.framebuffer->frame().layout()),
                         "See the kernel log with drm.debug=0x10 for the check that failed");
    switch (error) {
    case EACCES:
        failure.code = Errc::not_master;
        failure.problem = "this open file is not the display's master: " + sys::errno_text(error);
        failure.remedy = "Stop the compositor that holds the card, switch to its own VT, or ask it "
                         "for a DRM lease";
        break;
    case EBUSY:
        failure.code = Errc::busy;
        failure.problem =
            "the last commit has not reached the screen yet: " + sys::errno_text(error);
        failure.remedy = "Wait for its out-fence, then commit again";
        break;
    case EPERM:
        if (commit.in_fence == nullptr)
            break;
        failure.code = Errc::unsupported;
        failure.problem = "the driver takes no IN_FENCE_FD: " + sys::errno_text(error);
        failure.remedy = "Wait for the fence on the CPU and commit without it";
        break;
    case EINVAL:
    case ERANGE:
    case ENOSPC:
        failure.code = Errc::failed;
        break;
    default:
        break;
    }
    return failure;
}

std::uint32_t flags_of(const KmsOutput::State& output) noexcept {
    return output.routed ? 0 : DRM_MODE_ATOMIC_ALLOW_MODESET;
}

Result<SyncFile> take_fence(std::int32_t fd, const KmsOutput::State& output, const char* which) {
    if (fd < 0)
        return tl::unexpected(
            Error{.code = Errc::failed,
                  .operation = "KmsOutput::commit",
                  .object = output.name + " of " + describe(*output.device->file),
                  .problem = std::string("the card took the frame, but gave no ") + which,
                  .remedy = "Take the frame as shown at an unknown time"});
    return SyncFileAdopt::adopt(UniqueFd(std::move(fd)));
}

} // namespace

KmsProperties::KmsProperties(int fd, std::uint32_t object, std::uint32_t object_type) {
    const DrmObjectProperties all(drmModeObjectGetProperties(fd, object, object_type));
    for (std::uint32_t i = 0; all && i < all->count_props; ++i)
        if (const DrmProperty each{drmModeGetProperty(fd, all->props[i])})
            properties_.emplace_back(each->name, Property{each->prop_id, all->prop_values[i]});
}

KmsProperties::Property KmsProperties::find(std::string_view name) const noexcept {
    for (const auto& [each, property] : properties_)
        if (each == name)
            return property;
    return {};
}

void KmsAtomicRequest::clear() noexcept {
    objects_.clear();
    counts_.clear();
    properties_.clear();
    values_.clear();
}

void KmsAtomicRequest::add(std::uint32_t object, std::uint32_t property, std::uint64_t value) {
    if (objects_.empty() || objects_.back() != object) {
        objects_.push_back(object);
        counts_.push_back(0);
    }
    ++counts_.back();
    properties_.push_back(property);
    values_.push_back(value);
}

int KmsAtomicRequest::commit(int fd, std::uint32_t flags) noexcept {
    const auto address = [](const auto& list) {
        return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(list.data()));
    };
    // drmModeAtomicCommit would copy and sort these on the heap for every frame.
    drm_mode_atomic request{.flags = flags,
                            .count_objs = static_cast<__u32>(objects_.size()),
                            .objs_ptr = address(objects_),
                            .count_props_ptr = address(counts_),
                            .props_ptr = address(properties_),
                            .prop_values_ptr = address(values_),
                            .reserved = 0,
                            .user_data = 0};
    return sys::ioctl(fd, DRM_IOCTL_MODE_ATOMIC, &request) == 0 ? 0 : errno;
}

KmsUse& KmsUse::operator=(KmsUse&& other) noexcept {
    if (this != &other) {
        end();
        framebuffer_ = std::move(other.framebuffer_);
        frame_ = std::exchange(other.frame_, std::nullopt);
    }
    return *this;
}

Result<KmsUse> KmsUse::begin(std::shared_ptr<const KmsFramebuffer::State> framebuffer,
                             const Frame& frame, const char* operation) {
    if (auto used = FrameUse::begin(frame, operation); !used)
        return tl::unexpected(std::move(used.error()));
    return KmsUse(std::move(framebuffer), frame);
}

void KmsUse::end() noexcept {
    if (const auto frame = std::exchange(frame_, std::nullopt))
        FrameUse::end(*frame);
}

void KmsUse::end_after(std::uint64_t user, const SyncFile& fence) noexcept {
    if (!frame_)
        return;
    auto copy = fence.duplicate();
    if (!copy)
        return;
    FrameUse::end_after(*std::exchange(frame_, std::nullopt), user, std::move(*copy));
}

void KmsUse::leave_behind(KmsDevice::State& device) noexcept {
    const auto frame = std::exchange(frame_, std::nullopt);
    if (!frame)
        return;
    framebuffer_->leave_behind(*frame);
    // Kept there it would stay on the screen, and the frame in use, for as long as the frame is
    // held.
    device.framebuffers.drop_where([this](const auto& each) { return each == framebuffer_; });
}

KmsOutput::State::State(std::shared_ptr<KmsDevice::State> of) noexcept : device(std::move(of)) {
    static constinit std::atomic<std::uint64_t> users = 0;
    screen_user = ++users;
    capture_user = ++users;
}

KmsOutput::State::~State() {
    for (KmsUse* each : {&shown, &leaving, &captured, &captured_before})
        each->leave_behind(*device);
    if (mode_blob != 0)
        drmModeDestroyPropertyBlob(device->file->fd(), mode_blob);
}

KmsOutput::KmsOutput(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
KmsOutput::KmsOutput(KmsOutput&&) noexcept = default;
KmsOutput& KmsOutput::operator=(KmsOutput&&) noexcept = default;
KmsOutput::~KmsOutput() = default;

std::uint32_t KmsOutput::width() const noexcept {
    return state_ ? state_->mode.hdisplay : 0;
}

std::uint32_t KmsOutput::height() const noexcept {
    return state_ ? state_->mode.vdisplay : 0;
}

std::uint32_t KmsOutput::refresh_mhz() const noexcept {
    if (!state_)
        return 0;
    const drmModeModeInfo& mode = state_->mode;
    const std::uint64_t dots = std::uint64_t{mode.htotal} * mode.vtotal;
    // The pixel clock is in kHz.
    return dots == 0 ? 0 : static_cast<std::uint32_t>(mode.clock * 1000000ULL / dots);
}

std::string KmsOutput::name() const noexcept {
    return state_ ? state_->name : std::string();
}

const ImporterCaps& KmsOutput::caps() const noexcept {
    static const ImporterCaps nothing{}; // of one that was moved from
    return state_ ? state_->caps : nothing;
}

Result<void> KmsOutput::test(const KmsCommit& commit) const noexcept {
    constexpr const char* operation = "KmsOutput::test";
    if (!state_)
        return tl::unexpected(moved_from_output(operation));
    if (auto good = check(*state_, operation, commit); !good)
        return good;
    // A test uses nothing, but what it would be told of a revoked frame is the same.
    for (const KmsFramebuffer* each : {commit.framebuffer, commit.writeback})
        if (each != nullptr && each->frame().revoked())
            return tl::unexpected(FrameUse::refusal(each->frame(), operation));
    fill(*state_, commit, nullptr);
    if (const int error = state_->request.commit(state_->device->file->fd(),
                                                 DRM_MODE_ATOMIC_TEST_ONLY | flags_of(*state_));
        error != 0)
        return tl::unexpected(refused(*state_, operation, commit, error));
    return {};
}

Result<KmsFlip> KmsOutput::commit(const KmsCommit& commit) noexcept {
    constexpr const char* operation = "KmsOutput::commit";
    if (!state_)
        return tl::unexpected(moved_from_output(operation));
    State& output = *state_;
    if (auto good = check(output, operation, commit); !good)
        return tl::unexpected(std::move(good.error()));
    // Ended again on the way out where the card refuses.
    auto showing = KmsUse::begin(commit.framebuffer->state_, commit.framebuffer->frame_, operation);
    if (!showing)
        return tl::unexpected(std::move(showing.error()));
    KmsUse capturing;
    if (commit.writeback != nullptr) {
        auto began = KmsUse::begin(commit.writeback->state_, commit.writeback->frame_, operation);
        if (!began)
            return tl::unexpected(std::move(began.error()));
        capturing = std::move(*began);
    }
    OutFences out;
    fill(output, commit, &out);
    if (const int error = output.request.commit(output.device->file->fd(),
                                                DRM_MODE_ATOMIC_NONBLOCK | flags_of(output));
        error != 0)
        return tl::unexpected(refused(output, operation, commit, error));
    output.routed = true;
    output.leaving = std::exchange(output.shown, std::move(*showing));
    output.captured_before = std::exchange(output.captured, std::move(capturing));

    UniqueFd writeback_fd(std::move(out.writeback));
    auto flip = take_fence(out.flip, output, "out-fence");
    if (!flip)
        return tl::unexpected(std::move(flip.error()));
    output.leaving.end_after(output.screen_user, *flip);
    KmsFlip flipped{.out_fence = std::move(*flip), .writeback_fence = std::nullopt};
    if (commit.writeback != nullptr) {
        auto captured = take_fence(writeback_fd.release(), output, "writeback fence");
        if (!captured)
            return tl::unexpected(std::move(captured.error()));
        output.captured.end_after(output.capture_user, *captured);
        flipped.writeback_fence = std::move(*captured);
    }
    return flipped;
}

Result<DmaBuf> KmsOutput::on_screen() const noexcept {
    if (!state_)
        return tl::unexpected(moved_from_output("KmsOutput::on_screen"));
    const int fd = state_->device->file->fd();
    const auto refuse = [&](const char* problem) {
        return tl::unexpected(sys::failed_call(
            errno, "KmsOutput::on_screen", state_->name + " of " + describe(*state_->device->file),
            problem, "Commit a frame first, and be the display's master (or CAP_SYS_ADMIN)"));
    };
    const DrmPlane plane(drmModeGetPlane(fd, state_->plane));
    if (!plane)
        return refuse("the plane cannot be asked");
    const DrmFramebuffer shown(drmModeGetFB2(fd, plane->fb_id));
    if (!shown || shown->handles[0] == 0)
        return refuse("the kernel does not tell which memory the plane shows");
    // GETFB2 made them for this question, one for each buffer.
    std::set<std::uint32_t> handles(std::begin(shown->handles), std::end(shown->handles));
    handles.erase(0);
    KmsFile& file = *state_->device->file;
    for (const std::uint32_t each : handles)
        file.adopt(each);
    int raw = -1;
    const int refused = drmPrimeHandleToFD(fd, shown->handles[0], DRM_CLOEXEC, &raw);
    const int error = errno;
    for (const std::uint32_t each : handles)
        file.release(each);
    errno = error;
    if (refused != 0)
        return refuse("the kernel gives no dma-buf for the memory that the plane shows");
    return DmaBuf::from_fd(UniqueFd(std::move(raw)));
}

Result<KmsOutput> KmsDevice::find_output(const KmsOutputInfo& info) const noexcept {
    constexpr const char* operation = "KmsDevice::find_output";
    auto output = std::make_unique<KmsOutput::State>(state_);
    std::string missing = info.writeback && !state_->caps.writeback
                              ? "its driver has no writeback connectors"
                              : Search(state_, info).run(*output);
    if (!missing.empty())
        return tl::unexpected(
            Error{.code = Errc::unsupported,
                  .operation = operation,
                  .object = describe(*state_->file),
                  .problem = std::move(missing),
                  .remedy = info.writeback
                                ? "Use a card that captures its screen (vkms does), or ask for none"
                                : "Connect a screen, or ask for a size that it has"});
    if (drmModeCreatePropertyBlob(state_->file->fd(), &output->mode, sizeof output->mode,
                                  &output->mode_blob) != 0)
        return tl::unexpected(sys::failed_call(errno, operation, describe(*state_->file),
                                               "the kernel took no copy of the mode",
                                               "Free kernel memory and try again"));
    return KmsOutput(std::move(output));
}

} // namespace sluice
