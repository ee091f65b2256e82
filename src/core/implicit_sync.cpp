// SPDX-License-Identifier: MIT
#include <sluice/implicit_sync.hpp>

#include <cerrno>

#include <linux/dma-buf.h>
#include <poll.h>

#include "core/dma_buf_text.hpp"
#include "core/probe.hpp"
#include "core/sys.hpp"

namespace sluice {

Result<ImplicitSyncCaps> implicit_sync_caps(const DmaBuf& buffer) noexcept {
    using probe::Known;
    // Both ask for what no kernel does, so that nothing happens: EINVAL comes from one that has the
    // ioctl, ENOTTY from one that has not.
    const auto answered = [&](unsigned long request, void* argument) -> Result<bool> {
        if (sys::ioctl(buffer.fd(), request, argument) == 0 || errno == EINVAL)
            return true;
        if (errno == ENOTTY) {
            // Another object that took the fd's number over says the same.
            if (auto still = DmaBuf::from_borrowed_fd(buffer.fd()); !still)
                return tl::unexpected(std::move(still.error()));
            return false;
        }
        return tl::unexpected(sys::failed_call(errno, "implicit_sync_caps", describe(buffer),
                                               "cannot be probed", "Keep the fd open"));
    };
    if (probe::export_fence() == Known::not_yet) {
        dma_buf_export_sync_file request{.flags = 0, .fd = -1};
        auto present = answered(DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &request);
        if (!present)
            return tl::unexpected(std::move(present.error()));
        probe::set_export_fence(*present);
    }
    if (probe::import_fence() == Known::not_yet) {
        dma_buf_import_sync_file request{.flags = 0, .fd = -1};
        auto present = answered(DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &request);
        if (!present)
            return tl::unexpected(std::move(present.error()));
        probe::set_import_fence(*present);
    }
    return ImplicitSyncCaps{.export_fence = probe::export_fence() == Known::present,
                            .import_fence = probe::import_fence() == Known::present};
}

short ImplicitFence::poll_events() const noexcept {
    return fence_ ? short{POLLIN} : DmaBuf::poll_events(access_);
}

Result<void> ImplicitFence::wait(Deadline deadline) const noexcept {
    return fence_ ? fence_->wait(deadline) : buffer_->wait(access_, deadline);
}

Result<ImplicitFence> fence_before(const DmaBuf& buffer, Access access) noexcept {
    if (probe::export_fence() != probe::Known::absent) {
        auto fence = buffer.export_fence(access);
        if (fence)
            return ImplicitFence(std::move(*fence));
        if (fence.error().code != Errc::unsupported)
            return tl::unexpected(std::move(fence.error()));
        probe::set_export_fence(false);
    }
    auto copy = buffer.duplicate();
    if (!copy)
        return tl::unexpected(std::move(copy.error()));
    return ImplicitFence(std::move(*copy), access);
}

Result<void> fence_after(const DmaBuf& buffer, const SyncFile& fence, Access access,
                         Deadline deadline) noexcept {
    if (probe::import_fence() != probe::Known::absent) {
        auto imported = buffer.import_fence(fence, access);
        if (imported || imported.error().code != Errc::unsupported)
            return imported;
        probe::set_import_fence(false);
    }
    return fence.wait(deadline);
}

} // namespace sluice
