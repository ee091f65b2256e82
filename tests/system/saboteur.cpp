// SPDX-License-Identifier: MIT
// A library to preload (LD_PRELOAD) into the sample and the tests: it breaks one promise that the
// kernel keeps, as SLUICE_SABOTAGE says, so that one can see the break being noticed.
//
//   byte       flips one bit of a buffer just before the CPU looks at it
//   in-fence   drops IN_FENCE_FD from every commit
//   out-fence  gives a fence that never signals in place of the writeback's
//   size       tells half the size of every dma-buf
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string_view>
#include <utility>

#include <dlfcn.h>
#include <drm.h>
#include <drm_mode.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

namespace {

bool sabotages(std::string_view what) {
    const char* wanted = std::getenv("SLUICE_SABOTAGE");
    return wanted != nullptr && wanted == what;
}

int real_ioctl(int fd, unsigned long request, void* argument) {
    using Ioctl = int (*)(int, unsigned long, ...);
    static const auto next = reinterpret_cast<Ioctl>(dlsym(RTLD_NEXT, "ioctl"));
    return next(fd, request, argument);
}

bool is_dma_buf(int fd) {
    constexpr long magic = 0x444d4142;
    struct statfs filesystem {};
    return fstatfs(fd, &filesystem) == 0 && filesystem.f_type == magic;
}

void flip_a_bit(int buffer) {
    struct stat status {};
    if (fstat(buffer, &status) != 0)
        return;
    const auto size = static_cast<std::size_t>(status.st_size);
    void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, buffer, 0);
    if (at == MAP_FAILED)
        return;
    static_cast<unsigned char*>(at)[size / 2] ^= 1;
    munmap(at, size);
}

/// The ids of the properties of one name, which the program looks up before it uses them.
std::set<std::uint32_t> in_fence_ids, writeback_fence_ids;

void learn(const drm_mode_get_property& property) {
    if (std::strcmp(property.name, "IN_FENCE_FD") == 0)
        in_fence_ids.insert(property.prop_id);
    if (std::strcmp(property.name, "WRITEBACK_OUT_FENCE_PTR") == 0)
        writeback_fence_ids.insert(property.prop_id);
}

/// The value of the first property of \p commit that is one of \p ids, or null.
std::uint64_t* find(const drm_mode_atomic& commit, const std::set<std::uint32_t>& ids) {
    const auto* counts = reinterpret_cast<const std::uint32_t*>(commit.count_props_ptr);
    const auto* properties = reinterpret_cast<const std::uint32_t*>(commit.props_ptr);
    auto* values = reinterpret_cast<std::uint64_t*>(commit.prop_values_ptr);
    std::size_t all = 0;
    for (std::uint32_t i = 0; i < commit.count_objs; ++i)
        all += counts[i];
    for (std::size_t i = 0; i < all; ++i)
        if (ids.contains(properties[i]))
            return values + i;
    return nullptr;
}

/// Of a sw_sync timeline (drivers/dma-buf/sw_sync.c) that nobody advances.
int fence_that_never_signals() {
    struct {
        std::uint32_t value;
        char name[32];
        std::int32_t fence;
    } request{.value = 1, .name = "sabotage", .fence = -1};
    static const int timeline = open("/sys/kernel/debug/sync/sw_sync", O_RDWR | O_CLOEXEC);
    real_ioctl(timeline, _IOWR('W', 0, request), &request);
    return request.fence;
}

int commit(int fd, unsigned long request, drm_mode_atomic& atomic) {
    if (std::uint64_t* fence = find(atomic, in_fence_ids); fence && sabotages("in-fence"))
        *fence = ~std::uint64_t{0}; // -1: none
    const int result = real_ioctl(fd, request, &atomic);
    if (std::uint64_t* fence = find(atomic, writeback_fence_ids);
        fence && result == 0 && sabotages("out-fence")) {
        auto* written = reinterpret_cast<std::int32_t*>(*fence);
        close(*written);
        *written = fence_that_never_signals();
    }
    return result;
}

} // namespace

extern "C" __attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void* argument = va_arg(list, void*);
    va_end(list);
    if (request == DRM_IOCTL_MODE_ATOMIC)
        return commit(fd, request, *static_cast<drm_mode_atomic*>(argument));
    if (request == DMA_BUF_IOCTL_SYNC && sabotages("byte") &&
        (static_cast<dma_buf_sync*>(argument)->flags & DMA_BUF_SYNC_END) == 0) {
        static bool done = false;
        if (!std::exchange(done, true))
            flip_a_bit(fd);
    }
    const int result = real_ioctl(fd, request, argument);
    if (result == 0 && request == DRM_IOCTL_MODE_GETPROPERTY)
        learn(*static_cast<drm_mode_get_property*>(argument));
    return result;
}

extern "C" __attribute__((visibility("default"))) int
statx(int folder, const char* path, int flags, unsigned wanted, struct statx* status) noexcept {
    using Statx = int (*)(int, const char*, int, unsigned, struct statx*);
    static const auto next = reinterpret_cast<Statx>(dlsym(RTLD_NEXT, "statx"));
    const int result = next(folder, path, flags, wanted, status);
    if (result == 0 && sabotages("size") && is_dma_buf(folder))
        status->stx_size /= 2;
    return result;
}
