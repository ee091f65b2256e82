// SPDX-License-Identifier: MIT
#include <utility>

#include "core/log.hpp"
#include "frame/frame_use.hpp"
#include "kms/kms_state.hpp"

namespace sluice {

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

void KmsUse::end_after(std::uint64_t user, const std::shared_ptr<const SyncFile>& fence) noexcept {
    if (const auto frame = std::exchange(frame_, std::nullopt))
        FrameUse::end_after(*frame, user, fence);
}

void KmsUse::fence_buffers(const SyncFile& fence) const noexcept {
    if (!frame_)
        return;
    for (const DmaBuf& each : frame_->buffers())
        if (auto left = each.import_fence(fence, Access::read); !left)
            log(left.error());
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

} // namespace sluice
