// SPDX-License-Identifier: MIT
#include <sluice/kms_device.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <string_view>

#include <fcntl.h>

#include "core/sys.hpp"
#include "kms/drm_ptr.hpp"
#include "kms/kms_state.hpp"
#include <sluice/format.hpp>

namespace sluice {

namespace {

/// What \p capability says, or \p otherwise where the driver does not know it.
std::uint64_t ask(int fd, std::uint64_t capability, std::uint64_t otherwise = 0) {
    std::uint64_t value = 0;
    return drmGetCap(fd, capability, &value) == 0 ? value : otherwise;
}

/// drm/drm.h's DRM_CAP_ATOMIC_ASYNC_PAGE_FLIP, which older libdrm lack.
constexpr std::uint64_t atomic_async_page_flip = 0x15;

KmsDeviceCaps caps_of(int fd, bool writeback) {
    KmsDeviceCaps caps{.modifiers = ask(fd, DRM_CAP_ADDFB2_MODIFIERS) != 0,
                       .writeback = writeback,
                       .async_flips = ask(fd, atomic_async_page_flip) != 0,
                       .monotonic_timestamps = ask(fd, DRM_CAP_TIMESTAMP_MONOTONIC) != 0,
                       .events_name_crtc = ask(fd, DRM_CAP_CRTC_IN_VBLANK_EVENT) != 0,
                       .syncobjs = ask(fd, DRM_CAP_SYNCOBJ) != 0,
                       .syncobj_timelines = ask(fd, DRM_CAP_SYNCOBJ_TIMELINE) != 0};
    caps.cursor_width =
        static_cast<std::uint32_t>(ask(fd, DRM_CAP_CURSOR_WIDTH, caps.cursor_width));
    caps.cursor_height =
        static_cast<std::uint32_t>(ask(fd, DRM_CAP_CURSOR_HEIGHT, caps.cursor_height));
    if (const DrmResources limits{drmModeGetResources(fd)}) {
        caps.min_width = limits->min_width;
        caps.min_height = limits->min_height;
        caps.max_width = limits->max_width;
        caps.max_height = limits->max_height;
    }
    return caps;
}

} // namespace

KmsDevice::State::State(std::shared_ptr<KmsFile> wrapped, const KmsDeviceCaps& can,
                        const KmsDeviceInfo& info)
    : file(std::move(wrapped)), caps(can), device(sys::device_of_fd(file->fd())),
      framebuffers(info.idle_framebuffers) {}

std::vector<KmsCard> kms_cards() noexcept {
    constexpr std::string_view prefix = "card";
    std::vector<std::pair<unsigned long, KmsCard>> found;
    std::error_code error;
    for (std::filesystem::directory_iterator entry("/dev/dri", error), end; !error && entry != end;
         entry.increment(error)) {
        const std::string name = entry->path().filename();
        const std::string_view number =
            std::string_view(name).substr(std::min(prefix.size(), name.size()));
        if (!name.starts_with(prefix) || number.empty() || number.size() > 4 ||
            !std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; }))
            continue;
        const UniqueFd fd(::open(entry->path().c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY));
        found.emplace_back(std::stoul(std::string(number)),
                           KmsCard{entry->path(), fd ? kms_driver_of(fd.get()) : std::string()});
    }
    std::ranges::sort(found, {}, [](const auto& each) { return each.first; });
    std::vector<KmsCard> cards;
    cards.reserve(found.size());
    for (auto& [number, card] : found)
        cards.push_back(std::move(card));
    return cards;
}

KmsDevice::KmsDevice(std::shared_ptr<State> state) noexcept : state_(std::move(state)) {}

// SyncFile::signalled() has no fd, and the kernel takes -1 for "wait for the buffer's own fences".
// An idle buffer gives a fence that has signalled, and every card with a display makes dumb
// buffers.
Result<int> KmsDevice::State::signalled_fence(const char* operation) {
    const std::lock_guard lock(signalled_lock_);
    if (signalled_)
        return signalled_->fd();
    const auto refuse = [&](const char* problem) {
        return tl::unexpected(sys::failed_call(
            errno, operation, describe(*file), problem,
            "Leave ignore_buffer_fences away, or give a fence that has signalled"));
    };
    std::uint32_t handle = 0, pitch = 0;
    std::uint64_t size = 0;
    constexpr std::uint32_t smallest = 1, bits = 32;
    if (drmModeCreateDumbBuffer(file->fd(), smallest, smallest, bits, 0, &handle, &pitch, &size) !=
        0)
        return refuse("no buffer to take a signalled fence from (DRM_IOCTL_MODE_CREATE_DUMB)");
    file->adopt(handle);
    int raw = -1;
    const int refused = drmPrimeHandleToFD(file->fd(), handle, DRM_CLOEXEC, &raw);
    const int error = errno;
    file->release(handle);
    errno = error;
    if (refused != 0)
        return refuse("no dma-buf to take a signalled fence from (PRIME_HANDLE_TO_FD)");
    auto buffer = DmaBuf::from_fd(UniqueFd(std::move(raw)));
    if (!buffer)
        return tl::unexpected(std::move(buffer.error()));
    auto fence = buffer->export_fence(Access::write);
    if (!fence)
        return tl::unexpected(std::move(fence.error()));
    signalled_ = std::move(*fence);
    return signalled_->fd();
}

bool KmsDevice::State::claim(std::uint32_t plane, std::uint64_t user) {
    const std::lock_guard lock(claims_lock_);
    return claims_.try_emplace(plane, user).first->second == user;
}

bool KmsDevice::State::is_anothers(std::uint32_t plane, std::uint64_t user) {
    const std::lock_guard lock(claims_lock_);
    const auto claimed = claims_.find(plane);
    return claimed != claims_.end() && claimed->second != user;
}

void KmsDevice::State::disclaim(std::uint32_t plane, std::uint64_t user) noexcept {
    const std::lock_guard lock(claims_lock_);
    if (const auto claimed = claims_.find(plane);
        claimed != claims_.end() && claimed->second == user)
        claims_.erase(claimed);
}

Result<KmsDevice> KmsDevice::wrap(int fd, const KmsDeviceInfo& info) noexcept {
    constexpr const char* operation = "KmsDevice::wrap";
    auto wrapped = KmsFile::of(fd, operation);
    if (!wrapped)
        return tl::unexpected(std::move(wrapped.error()));
    const int card = (*wrapped)->fd();
    const auto refuse = [&](std::string problem, std::string remedy) {
        return tl::unexpected(Error{.code = Errc::unsupported,
                                    .operation = operation,
                                    .object = (*wrapped)->driver() + ", " + sys::describe_fd(fd),
                                    .problem = std::move(problem),
                                    .remedy = std::move(remedy)});
    };
    // Atomic implies universal planes.
    if (drmSetClientCap(card, DRM_CLIENT_CAP_ATOMIC, 1) != 0)
        return refuse("has no atomic modesetting: " + sys::errno_text(errno),
                      "Use a card with a display engine and an atomic driver");
    const bool writeback = drmSetClientCap(card, DRM_CLIENT_CAP_WRITEBACK_CONNECTORS, 1) == 0;
    if ((ask(card, DRM_CAP_PRIME) & DRM_PRIME_CAP_IMPORT) == 0)
        return refuse("imports no dma-bufs (DRM_CAP_PRIME)", "Use a card whose driver does");
    return KmsDevice(std::make_shared<State>(std::move(*wrapped), caps_of(card, writeback), info));
}

Result<KmsDevice> KmsDevice::open(const std::string& path, const KmsDeviceInfo& info) noexcept {
    const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY));
    if (!fd)
        return tl::unexpected(
            sys::failed_call(errno, "KmsDevice::open", path, "cannot be opened",
                             "Pass a /dev/dri/card* node; its group is often 'video'"));
    return wrap(fd.get(), info);
}

const std::string& KmsDevice::driver() const noexcept {
    return state_->file->driver();
}

const std::string& KmsDevice::device() const noexcept {
    return state_->device;
}

const KmsDeviceCaps& KmsDevice::caps() const noexcept {
    return state_->caps;
}

std::optional<bool> KmsDevice::takes_in_fences() const noexcept {
    const KmsInFences known = state_->in_fences;
    return known == KmsInFences::unknown ? std::nullopt
                                         : std::optional(known == KmsInFences::taken);
}

bool KmsDevice::is_master() const noexcept {
    return drmIsMaster(state_->file->fd()) != 0;
}

} // namespace sluice
