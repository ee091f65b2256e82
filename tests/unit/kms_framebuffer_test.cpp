// SPDX-License-Identifier: MIT
// What a card is told of a frame's planes. The cards at hand show one plane only, so libdrm's calls
// are replaced here, as the libc's are elsewhere (-Wl,--wrap).
#include <sluice/kms_device.hpp>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>

#include <drm_fourcc.h>
#include <fcntl.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/scripted_libc.hpp"

namespace {

using Words = std::array<std::uint32_t, 4>;

/// A card that takes every frame, and what it was told last.
struct FakeCard {
    FakeCard();
    ~FakeCard();
    FakeCard(const FakeCard&) = delete;
    FakeCard& operator=(const FakeCard&) = delete;

    bool takes_modifiers = true;
    bool asked_with_modifiers = false;
    std::uint32_t format = 0;
    Words handles{}, pitches{}, offsets{};
    std::array<std::uint64_t, 4> modifiers{};
    int imports = 0, closed = 0, removed = 0;
};

FakeCard* card = nullptr;

FakeCard::FakeCard() {
    card = this;
}
FakeCard::~FakeCard() {
    card = nullptr;
}

constexpr std::uint32_t gem_handle = 5;

int add(std::uint32_t format, const std::uint32_t* handles, const std::uint32_t* pitches,
        const std::uint32_t* offsets, std::uint32_t* id) {
    card->format = format;
    std::copy_n(handles, 4, card->handles.begin());
    std::copy_n(pitches, 4, card->pitches.begin());
    std::copy_n(offsets, 4, card->offsets.begin());
    *id = 9;
    return 0;
}

} // namespace

// NOLINTBEGIN(bugprone-reserved-identifier)
extern "C" {
drmVersionPtr __real_drmGetVersion(int fd);

drmVersionPtr __wrap_drmGetVersion(int fd) {
    if (card == nullptr)
        return __real_drmGetVersion(fd);
    auto* version = static_cast<drmVersionPtr>(std::calloc(1, sizeof(drmVersion)));
    version->name = strdup("fake");
    version->name_len = 4;
    return version;
}

int __wrap_drmSetClientCap(int, std::uint64_t, std::uint64_t) {
    return card ? 0 : -1;
}

int __wrap_drmGetCap(int, std::uint64_t capability, std::uint64_t* value) {
    *value = capability == DRM_CAP_PRIME ? 3 : card->takes_modifiers;
    return 0;
}

int __wrap_drmPrimeFDToHandle(int, int, std::uint32_t* handle) {
    ++card->imports;
    *handle = gem_handle;
    return 0;
}

int __wrap_drmCloseBufferHandle(int, std::uint32_t handle) {
    EXPECT_EQ(handle, gem_handle);
    ++card->closed;
    return 0;
}

int __wrap_drmModeRmFB(int, std::uint32_t) {
    ++card->removed;
    return 0;
}

int __wrap_drmModeAddFB2(int, std::uint32_t, std::uint32_t, std::uint32_t format,
                         const std::uint32_t* handles, const std::uint32_t* pitches,
                         const std::uint32_t* offsets, std::uint32_t* id, std::uint32_t) {
    card->asked_with_modifiers = false;
    return add(format, handles, pitches, offsets, id);
}

int __wrap_drmModeAddFB2WithModifiers(int, std::uint32_t, std::uint32_t, std::uint32_t format,
                                      const std::uint32_t* handles, const std::uint32_t* pitches,
                                      const std::uint32_t* offsets, const std::uint64_t* modifiers,
                                      std::uint32_t* id, std::uint32_t) {
    card->asked_with_modifiers = true;
    std::copy_n(modifiers, 4, card->modifiers.begin());
    return add(format, handles, pitches, offsets, id);
}
}
// NOLINTEND(bugprone-reserved-identifier)

namespace sluice {
namespace {

using KmsFramebufferTest = test::FdTest;

TEST_F(KmsFramebufferTest, ThePlanesOfOneBufferShareItsHandle) {
    test::ScriptedLibc libc;
    libc.memfds_are_dma_bufs();
    FakeCard fake;
    const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    for (const bool modifiers : {true, false}) {
        fake.takes_modifiers = modifiers;
        auto device = KmsDevice::wrap(null.get());
        ASSERT_TRUE(device) << device.error().message();
        auto frame = Frame::create(
            {.width = 64,
             .height = 16,
             .format = DRM_FORMAT_YUV420,
             .modifier = DRM_FORMAT_MOD_LINEAR,
             .planes = {FramePlane{0, 128}, FramePlane{2048, 64}, FramePlane{2560, 96}}},
            std::move(*DmaBuf::from_fd(test::memfd(4096))));
        ASSERT_TRUE(frame) << frame.error().message();
        {
            auto framebuffer = device->attach(*frame);
            ASSERT_TRUE(framebuffer) << framebuffer.error().message();
        }
        EXPECT_EQ(fake.asked_with_modifiers, modifiers);
        EXPECT_EQ(fake.format, static_cast<std::uint32_t>(DRM_FORMAT_YUV420));
        EXPECT_EQ(fake.handles, (Words{gem_handle, gem_handle, gem_handle, 0}));
        EXPECT_EQ(fake.pitches, (Words{128, 64, 96, 0}));
        EXPECT_EQ(fake.offsets, (Words{0, 2048, 2560, 0}));
        EXPECT_EQ(fake.modifiers, (std::array<std::uint64_t, 4>{}));
    }
    EXPECT_EQ(fake.imports, 2);
    EXPECT_EQ(fake.closed, 2) << "one handle, closed once";
    EXPECT_EQ(fake.removed, 2);
}

} // namespace
} // namespace sluice
