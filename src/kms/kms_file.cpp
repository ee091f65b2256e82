// SPDX-License-Identifier: MIT
#include "kms/kms_file.hpp"

#include <cerrno>
#include <vector>

#include "core/sys.hpp"
#include "kms/drm_ptr.hpp"

namespace sluice {

namespace {

/// The kernel's struct drm_mode_closefb and its ioctl (drm/drm.h, drm/drm_mode.h of 6.8), which
/// older libdrm lack.
struct CloseFramebuffer {
    std::uint32_t fb_id;
    std::uint32_t pad;
};
constexpr unsigned long close_framebuffer_request = DRM_IOWR(0xD0, CloseFramebuffer);

/// The files that this process has wrapped.
struct Files {
    std::mutex lock;
    std::vector<std::weak_ptr<KmsFile>> all;
};

Files& files() {
    static Files all;
    return all;
}

} // namespace

std::string kms_driver_of(int fd) {
    const DrmVersion version(drmGetVersion(fd));
    return version ? std::string(version->name, static_cast<std::size_t>(version->name_len))
                   : std::string();
}

std::string describe(const KmsFile& file) {
    return file.driver() + ", " + sys::describe_fd(file.fd());
}

Result<std::shared_ptr<KmsFile>> KmsFile::of(int fd, const char* operation) {
    auto copy = UniqueFd::duplicate(fd);
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    std::string driver = kms_driver_of(copy->get());
    if (driver.empty())
        return tl::unexpected(Error{.code = Errc::wrong_object,
                                    .operation = operation,
                                    .object = sys::describe_fd(fd),
                                    .problem = "is not a DRM card",
                                    .remedy = "Open a /dev/dri/card* node, or pass a DRM lease"});
    Files& known = files();
    const std::lock_guard lock(known.lock);
    std::erase_if(known.all, [](const auto& each) { return each.expired(); });
    for (const auto& each : known.all)
        if (auto file = each.lock(); file && sys::same_open_file(file->fd(), copy->get()))
            return file;
    auto file = std::make_shared<KmsFile>(std::move(*copy), std::move(driver));
    known.all.push_back(file);
    return file;
}

int KmsFile::import(int dma_buf, std::uint32_t& handle) {
    const std::lock_guard lock(handles_lock_);
    if (drmPrimeFDToHandle(fd(), dma_buf, &handle) != 0)
        return errno;
    ++handles_[handle];
    return 0;
}

void KmsFile::adopt(std::uint32_t handle) {
    const std::lock_guard lock(handles_lock_);
    ++handles_[handle];
}

void KmsFile::release(std::uint32_t handle) noexcept {
    const std::lock_guard lock(handles_lock_);
    const auto counted = handles_.find(handle);
    if (--counted->second > 0)
        return;
    handles_.erase(counted);
    drmCloseBufferHandle(fd(), handle);
}

void KmsFile::close_framebuffer(std::uint32_t id) noexcept {
    if (closes_framebuffers_.load(std::memory_order_relaxed)) {
        CloseFramebuffer request{.fb_id = id, .pad = 0};
        // DRM answers EINVAL to a number that it does not know; ours is right.
        if (sys::ioctl(fd(), close_framebuffer_request, &request) == 0 ||
            (errno != EINVAL && errno != ENOTTY))
            return;
        closes_framebuffers_.store(false, std::memory_order_relaxed);
    }
    remove_framebuffer(id);
}

void KmsFile::remove_framebuffer(std::uint32_t id) noexcept {
    drmModeRmFB(fd(), id);
}

} // namespace sluice
