// SPDX-License-Identifier: MIT
#include "support/fake_kms.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <sys/stat.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

#include <gtest/gtest.h>

namespace sluice::test {

namespace {

FakeKms* card = nullptr;

int refuse(int error) {
    errno = error;
    return -1;
}

int add(std::uint32_t format, const std::uint32_t* handles, const std::uint32_t* pitches,
        const std::uint32_t* offsets, std::uint32_t* id) {
    ++card->adds;
    if (card->while_adding)
        std::exchange(card->while_adding, nullptr)();
    if (card->add_error != 0)
        return refuse(card->add_error);
    for (int i = 0; i < 4; ++i)
        if (handles[i] != 0 && !card->open_handles.contains(handles[i]))
            return refuse(ENOENT);
    card->format = format;
    std::copy_n(handles, 4, card->handles.begin());
    std::copy_n(pitches, 4, card->pitches.begin());
    std::copy_n(offsets, 4, card->offsets.begin());
    *id = ++card->last_framebuffer;
    card->framebuffers.insert(*id);
    return 0;
}

} // namespace

FakeKms::FakeKms() {
    card = this;
}

FakeKms::~FakeKms() {
    EXPECT_TRUE(open_handles.empty()) << open_handles.size() << " handles were left open";
    EXPECT_TRUE(framebuffers.empty()) << framebuffers.size() << " framebuffers were left";
    card = nullptr;
}

} // namespace sluice::test

using sluice::test::card;

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

int __wrap_drmPrimeFDToHandle(int, int fd, std::uint32_t* handle) {
    ++card->imports;
    if (card->import_error != 0)
        return sluice::test::refuse(card->import_error);
    struct stat buffer {};
    EXPECT_EQ(fstat(fd, &buffer), 0);
    // The same one for as long as it is open, and a new one after that.
    std::uint32_t& known = card->handle_of[buffer.st_ino];
    if (!card->open_handles.contains(known))
        known = ++card->last_handle;
    card->open_handles.insert(known);
    *handle = known;
    return 0;
}

int __wrap_drmCloseBufferHandle(int, std::uint32_t handle) {
    ++card->closed;
    EXPECT_EQ(card->open_handles.erase(handle), 1U) << "closed twice";
    return 0;
}

int __wrap_drmModeRmFB(int, std::uint32_t id) {
    ++card->removed;
    EXPECT_EQ(card->framebuffers.erase(id), 1U) << "removed twice";
    return 0;
}

int __wrap_drmModeAddFB2(int, std::uint32_t, std::uint32_t, std::uint32_t format,
                         const std::uint32_t* handles, const std::uint32_t* pitches,
                         const std::uint32_t* offsets, std::uint32_t* id, std::uint32_t) {
    card->asked_with_modifiers = false;
    return sluice::test::add(format, handles, pitches, offsets, id);
}

int __wrap_drmModeAddFB2WithModifiers(int, std::uint32_t, std::uint32_t, std::uint32_t format,
                                      const std::uint32_t* handles, const std::uint32_t* pitches,
                                      const std::uint32_t* offsets, const std::uint64_t* modifiers,
                                      std::uint32_t* id, std::uint32_t) {
    card->asked_with_modifiers = true;
    std::copy_n(modifiers, 4, card->modifiers.begin());
    return sluice::test::add(format, handles, pitches, offsets, id);
}
}
// NOLINTEND(bugprone-reserved-identifier)
