// SPDX-License-Identifier: MIT
// Frames as a stranger might send them, by the way that they take: DmaBuf::from_fd, Frame::create,
// and then each way to attach. What is wrong is said, and the driver does not see it.
#include <array>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <drm_fourcc.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/eventfd.h>
#include <sys/sysmacros.h>

#include <sluice/vulkan_buffer.hpp>
#include <sluice/vulkan_image.hpp>
#include <sluice/vulkan_texture.hpp>

#include "support/fake_vulkan.hpp"
#include "support/fd_limit.hpp"
#include "support/memfd.hpp"
#include "support/open_fds.hpp"
#include "support/refused.hpp"

namespace sluice {
namespace {

using test::FakeVulkan;
using Kinds = std::multiset<std::string>;
using Words = std::vector<std::string>;

/// What an application calls with a frame.
enum class Way : std::uint8_t { image, plane, texture, bytes };

constexpr VkImageUsageFlags sampled = VK_IMAGE_USAGE_SAMPLED_BIT;
constexpr VkBufferUsageFlags copied = VK_BUFFER_USAGE_TRANSFER_SRC_BIT;

FrameLayout xr24() {
    return {.width = 64,
            .height = 16,
            .format = DRM_FORMAT_XRGB8888,
            .planes = {FramePlane{.stride = 256}}};
}
FrameLayout nv12() {
    return {.width = 64,
            .height = 16,
            .format = DRM_FORMAT_NV12,
            .planes = {FramePlane{.stride = 64}, FramePlane{.offset = 1024, .stride = 64}}};
}
FrameLayout p010() {
    return {.width = 64,
            .height = 16,
            .format = DRM_FORMAT_P010,
            .planes = {FramePlane{.stride = 128}, FramePlane{.offset = 2048, .stride = 128}}};
}
FrameLayout yuv420() {
    return {.width = 64,
            .height = 16,
            .format = DRM_FORMAT_YUV420,
            .planes = {FramePlane{.stride = 64}, FramePlane{.offset = 1024, .stride = 32},
                       FramePlane{.offset = 1280, .stride = 32}}};
}
/// 4:4:4 of 10 bits.
FrameLayout q410() {
    return {.width = 64,
            .height = 16,
            .format = DRM_FORMAT_Q410,
            .planes = {FramePlane{.stride = 128}, FramePlane{.offset = 2048, .stride = 128},
                       FramePlane{.offset = 4096, .stride = 128}}};
}
/// What lies in it: a byte less is one too few.
constexpr std::uint64_t xr24_size = 4096, nv12_size = 1536, p010_size = 3072, yuv420_size = 1536,
                        q410_size = 6144;

template <typename Change> FrameLayout with(FrameLayout layout, Change change) {
    change(layout);
    return layout;
}
FrameLayout with_plane(FrameLayout layout, std::uint32_t index, FramePlane plane) {
    layout.planes[index] = plane;
    return layout;
}

class VulkanBadInputTest : public test::FdTest {
protected:
    void SetUp() override {
        FdTest::SetUp();
        libc_.memfds_are_dma_bufs();
        for (const VkFormat each :
             {VK_FORMAT_R16_UNORM, VK_FORMAT_R16G16_UNORM, VK_FORMAT_G8_B8_R8_3PLANE_420_UNORM,
              VK_FORMAT_G10X6_B10X6R10X6_2PLANE_420_UNORM_3PACK16,
              VK_FORMAT_G10X6_B10X6_R10X6_3PLANE_444_UNORM_3PACK16})
            gpu().formats.insert(each);
        driver_.memory_size = 1; // what the driver wants beyond the frame is another test's
    }

    test::FakePhysicalDevice& gpu() { return driver_.devices[0]; }
    /// As real drivers have it: LINEAR of a format has as many planes as the format.
    void has_planes(std::size_t count) {
        gpu().modifiers[0].drmFormatModifierPlaneCount = static_cast<std::uint32_t>(count);
    }
    VulkanDevice wrap() {
        VulkanDeviceInfo info = driver_.application();
        info.sampler_ycbcr_conversion = true;
        auto device = VulkanDevice::wrap(info);
        EXPECT_TRUE(device) << device.error().message();
        return std::move(*device);
    }

    static std::vector<DmaBuf> buffers(const std::vector<std::uint64_t>& sizes) {
        std::vector<DmaBuf> all;
        all.reserve(sizes.size());
        for (const std::uint64_t size : sizes)
            all.push_back(std::move(*DmaBuf::from_fd(test::memfd(size))));
        return all;
    }
    static Frame make(const FrameLayout& layout, const std::vector<std::uint64_t>& sizes) {
        auto frame = Frame::create(layout, buffers(sizes));
        EXPECT_TRUE(frame) << frame.error().message();
        return std::move(*frame);
    }
    static Result<void> attach(const VulkanDevice& device, const Frame& frame, Way way,
                               VkFlags usage) {
        const auto told = [](auto made) -> Result<void> {
            if (!made)
                return tl::unexpected(std::move(made.error()));
            return {};
        };
        switch (way) {
        case Way::image:
            return told(device.attach(frame, {.usage = usage}));
        case Way::plane:
            return told(device.attach(frame, {.usage = usage, .view = 0}));
        case Way::texture:
            return told(device.texture(frame, {.usage = usage}));
        case Way::bytes:
            return told(device.attach_buffer(frame, {.usage = usage}));
        }
        return {};
    }

    /// How often the driver was shown something: all that a bad frame could do harm with.
    [[nodiscard]] int shown() const {
        int calls = 0;
        for (const char* function :
             {"vkAllocateMemory", "vkBindBufferMemory", "vkBindImageMemory2", "vkCreateBuffer",
              "vkCreateImage", "vkCreateImageView", "vkCreateSamplerYcbcrConversion",
              "vkGetImageSubresourceLayout", "vkGetMemoryFdPropertiesKHR"})
            calls += driver_.calls(function);
        return calls;
    }

    /// \p refused was refused as it should be, before the driver was shown anything, and \p device
    /// works on.
    template <typename T>
    void expect_unseen(const VulkanDevice& device, const std::function<Result<T>()>& refused,
                       Errc code, const Words& words) {
        const int before = shown();
        const auto fds = test::open_fds();
        test::expect_refused(refused(), code, words);
        EXPECT_EQ(shown(), before) << "the driver was asked";
        EXPECT_EQ(test::open_fds(), fds) << "a fd was leaked, or closed";
        const Frame good = make(xr24(), {xr24_size});
        EXPECT_TRUE(device.attach_buffer(good, {.usage = copied}));
        EXPECT_GT(shown(), before) << "the count is of no use";
    }

    test::ScriptedLibc libc_;
    FakeVulkan driver_;
};

TEST_F(VulkanBadInputTest, WhatIsNoBufferIsToldFromOne) {
    const VulkanDevice device = wrap();
    struct Wrong {
        const char* what;
        UniqueFd fd;
        Words words;
        std::optional<struct statx> says; // what the kernel says of it, for fds that stand for it
    };
    const auto type = [](mode_t mode, unsigned rdev_major) {
        struct statx status {};
        status.stx_mode = static_cast<std::uint16_t>(mode);
        status.stx_rdev_major = rdev_major;
        return status;
    };
    std::vector<Wrong> rows;
    rows.push_back({"no fd", UniqueFd(), {"fd -1 (none)", "there is no fd"}, {}});
    rows.push_back({"a memfd", test::memfd(4096), {"memfd:sluice-test", "is not a dma-buf"}, {}});
    rows.push_back({"an eventfd",
                    UniqueFd(eventfd(0, EFD_CLOEXEC)),
                    {"anon_inode:[eventfd]", "is not a dma-buf"},
                    {}});
    rows.push_back(
        {"a file", UniqueFd(open("/", O_RDONLY | O_CLOEXEC)), {"'/'", "is not a dma-buf"}, {}});
    rows.push_back(
        {"a sync_file", test::fake_sync_file(0), {"sync_file", "is not a dma-buf"}, type(0600, 0)});
    rows.push_back({"a card's node",
                    UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)),
                    {"is not a dma-buf"},
                    type(S_IFCHR | 0660, 226)});
    for (Wrong& row : rows) {
        SCOPED_TRACE(row.what);
        const int fd = row.fd.get();
        expect_unseen<Frame>(
            device,
            [&]() -> Result<Frame> {
                // As they are, all but those that stand for another.
                libc_.statx = [&](int of, struct statx* status) {
                    const int result = test::ScriptedLibc::real_statx(of, status);
                    if (result == 0 && row.says)
                        *status = *row.says;
                    return result;
                };
                libc_.fstatfs = [&](int of, struct statfs* filesystem) {
                    const int result = test::ScriptedLibc::real_fstatfs(of, filesystem);
                    if (result == 0 && row.says)
                        filesystem->f_type = ANON_INODE_FS_MAGIC;
                    return result;
                };
                auto buffer = DmaBuf::from_fd(std::move(row.fd));
                libc_.memfds_are_dma_bufs();
                if (!buffer)
                    return tl::unexpected(std::move(buffer.error()));
                return Frame::create(xr24(), std::move(*buffer));
            },
            Errc::wrong_object, row.words);
        EXPECT_EQ(row.fd.get(), fd) << "it is still the caller's";
    }
    UniqueFd closed = test::memfd(4096);
    ASSERT_EQ(close(closed.get()), 0);
    expect_unseen<DmaBuf>(device, [&] { return DmaBuf::from_fd(std::move(closed)); },
                          Errc::wrong_object, {"(closed)", "EBADF"});
    (void)closed.release();
}

TEST_F(VulkanBadInputTest, ALayoutThatCannotLieInItsBuffersMakesNoFrame) {
    struct Row {
        const char* what;
        FrameLayout layout;
        std::vector<std::uint64_t> sizes;
        Errc code;
        Words words;
    };
    using L = FrameLayout;
    constexpr auto bad = Errc::invalid_argument;
    constexpr auto out = Errc::out_of_bounds;
    const Row rows[] = {
        {"no stride",
         with_plane(xr24(), 0, {}),
         {xr24_size},
         bad,
         {"plane 0's stride of 0", "256"}},
        {"a stride below the row",
         with_plane(xr24(), 0, {.stride = 252}),
         {xr24_size},
         bad,
         {"plane 0's stride of 252", "64 pixels x 4 bytes = 256"}},
        {"a stride between pixels",
         with_plane(xr24(), 0, {.stride = 258}),
         {8192},
         bad,
         {"plane 0's stride of 258", "4 bytes a pixel"}},
        {"a stride above INT32_MAX",
         with_plane(xr24(), 0, {.stride = 0x80000000U}),
         {xr24_size},
         bad,
         {"plane 0's stride of 2147483648", "2147483647"}},
        {"32 bits would wrap in offset + stride * height",
         with_plane(xr24(), 0, {.offset = 0xfffff000U, .stride = 256}),
         {xr24_size},
         out,
         {"plane 0 needs 4294967296", "holds 4096"}},
        {"32 bits would wrap in stride * height",
         with(xr24(), [](L& l) { l.height = 0x01000000U; }),
         {xr24_size},
         out,
         {"plane 0 needs 4294967296", "holds 4096"}},
        {"64 bits would wrap, were they not wide enough",
         with(xr24(),
              [](L& l) {
                  l.width = 0x1fffffffU;
                  l.height = 0xffffffffU;
                  l.planes[0] = {.offset = 0xffffffffU, .stride = 0x7ffffffcU};
              }),
         {xr24_size},
         out,
         {"plane 0 needs 9223372021822390275", "holds 4096"}},
        {"a byte short", xr24(), {xr24_size - 1}, out, {"plane 0 needs 4096", "holds 4095"}},
        {"NV12's chroma a byte short",
         nv12(),
         {nv12_size - 1},
         out,
         {"plane 1 needs 1536", "holds 1535"}},
        {"NV12's luma past the end",
         with_plane(nv12(), 0, {.offset = 513, .stride = 64}),
         {nv12_size},
         out,
         {"plane 0 needs 1537", "holds 1536"}},
        {"NV12's chroma of luma's last row",
         with_plane(nv12(), 1, {.offset = 1472, .stride = 64}),
         {nv12_size},
         out,
         {"plane 1 needs 1984", "holds 1536"}},
        {"NV12's chroma in a buffer of its own, too small",
         with_plane(nv12(), 1, {.stride = 64, .buffer = 1}),
         {1024, 511},
         out,
         {"plane 1 needs 512", "holds 511"}},
        {"P010's luma with NV12's stride",
         with_plane(p010(), 0, {.stride = 64}),
         {p010_size},
         bad,
         {"plane 0's stride of 64", "64 pixels x 2 bytes = 128"}},
        {"P010's chroma between words",
         with_plane(p010(), 1, {.offset = 2048, .stride = 129}),
         {8192},
         bad,
         {"plane 1's stride of 129", "2 bytes a pixel"}},
        {"P010's chroma a byte short",
         p010(),
         {p010_size - 1},
         out,
         {"plane 1 needs 3072", "holds 3071"}},
        {"YUV420's last plane a byte short",
         yuv420(),
         {yuv420_size - 1},
         out,
         {"plane 2 needs 1536", "holds 1535"}},
        {"YUV420's second plane below its row",
         with_plane(yuv420(), 1, {.offset = 1024, .stride = 31}),
         {yuv420_size},
         bad,
         {"plane 1's stride of 31", "32"}},
        {"10 bit YUV444's last plane a byte short",
         q410(),
         {q410_size - 1},
         out,
         {"plane 2 needs 6144", "holds 6143"}},
        {"10 bit YUV444's second plane at an odd stride",
         with_plane(q410(), 1, {.offset = 2048, .stride = 129}),
         {q410_size},
         bad,
         {"plane 1's stride of 129", "2 bytes a pixel"}},
        {"an offset past the end",
         with_plane(nv12(), 1, {.offset = 1536, .stride = 64}),
         {nv12_size},
         out,
         {"plane 1 needs 2048", "holds 1536"}},
        {"five planes",
         with(xr24(), [](L& l) { l.plane_count = 5; }),
         {xr24_size},
         bad,
         {"5 planes"}},
        {"a plane too few",
         with(nv12(),
              [](L& l) {
                  l.plane_count = 1;
                  l.planes[1] = {};
              }),
         {nv12_size},
         bad,
         {"1 plane", "has 2 planes"}},
        {"a gap among the planes",
         with(yuv420(), [](L& l) { l.planes[1] = {}; }),
         {yuv420_size},
         bad,
         {"plane 1's stride of 0"}},
        {"a plane beyond a gap",
         with_plane(xr24(), 2, {.stride = 256}),
         {xr24_size},
         bad,
         {"plane 2 has", "has 1 plane"}},
        {"a plane in no buffer",
         with_plane(nv12(), 1, {.offset = 1024, .stride = 64, .buffer = 1}),
         {nv12_size},
         bad,
         {"plane 1 lies in buffer 1", "there are 1"}},
        {"no buffer", xr24(), {}, bad, {"plane 0 lies in buffer 0", "there are 0"}},
        {"no format",
         with(xr24(), [](L& l) { l.format = 0; }),
         {xr24_size},
         Errc::unsupported,
         {"0x0"}},
        // One of 1x1 pixels has a whole block of chroma.
        {"1x1 NV12 without room for its chroma",
         with(nv12(),
              [](L& l) {
                  l.width = l.height = 1;
                  l.planes = {FramePlane{.stride = 1}, FramePlane{.offset = 1, .stride = 2}};
              }),
         {2},
         out,
         {"plane 1 needs 3", "holds 2"}},
    };
    const VulkanDevice device = wrap();
    for (const Row& row : rows) {
        SCOPED_TRACE(row.what);
        std::vector<DmaBuf> with_caller = buffers(row.sizes);
        expect_unseen<Frame>(
            device, [&] { return Frame::create(row.layout, std::span(with_caller)); }, row.code,
            row.words);
        for (const DmaBuf& each : with_caller)
            EXPECT_GE(each.fd(), 0) << "it is still the caller's";
    }
}

TEST_F(VulkanBadInputTest, WhatFitsToTheByteIsTakenInEveryWay) {
    const struct {
        FrameLayout layout;
        std::uint64_t size = 0;
        std::size_t planes = 0;
    } rows[] = {{xr24(), xr24_size, 1},
                {nv12(), nv12_size, 2},
                {p010(), p010_size, 2},
                {yuv420(), yuv420_size, 3},
                {q410(), q410_size, 3}};
    for (const auto& row : rows) {
        const Frame frame = make(row.layout, {row.size});
        for (const Way way : {Way::image, Way::texture, Way::plane, Way::bytes}) {
            has_planes(way == Way::plane ? 1 : row.planes);
            const auto taken = attach(wrap(), frame, way, way == Way::bytes ? copied : sampled);
            EXPECT_TRUE(taken) << taken.error().message();
        }
    }
    // Odd sizes round up, and only their planes are images of Vulkan's.
    const Frame smallest =
        make(with(nv12(),
                  [](FrameLayout& l) {
                      l.width = l.height = 1;
                      l.planes = {FramePlane{.stride = 1}, FramePlane{.offset = 1, .stride = 2}};
                  }),
             {3});
    has_planes(1);
    const VulkanDevice device = wrap();
    for (const std::uint32_t view : {0U, 1U}) {
        const auto plane = device.attach(smallest, {.usage = sampled, .view = view});
        EXPECT_TRUE(plane) << plane.error().message();
    }
    EXPECT_EQ(device.texture(smallest, {})->parts(), 2U);
}

TEST_F(VulkanBadInputTest, RowsOfPlanesThatLieBetweenEachOtherAreTaken) {
    // Both chromas share a pitch; the last rows reach past the shorter plane.
    const FrameLayout side_by_side = with(yuv420(), [](FrameLayout& l) {
        l.planes[1] = {.offset = 1024, .stride = 64};
        l.planes[2] = {.offset = 1056, .stride = 64};
    });
    // Luma leaves half of each row to chroma, of which there are half as many rows.
    const FrameLayout beside_luma = with(nv12(), [](FrameLayout& l) {
        l.planes[0] = {.stride = 128};
        l.planes[1] = {.offset = 64, .stride = 256};
    });
    // Chroma begins where the last of luma's rows ends, within its stride.
    const FrameLayout in_the_last_stride = with(nv12(), [](FrameLayout& l) {
        l.planes[0] = {.stride = 100};
        l.planes[1] = {.offset = 1564, .stride = 64};
    });
    for (const FrameLayout& each : {side_by_side, beside_luma, in_the_last_stride}) {
        has_planes(each.format == DRM_FORMAT_NV12 ? 2 : 3);
        const auto taken = wrap().attach(make(each, {4096}), {.usage = sampled});
        EXPECT_TRUE(taken) << taken.error().message();
    }
}

TEST_F(VulkanBadInputTest, WhatTheGpuCannotTakeIsRefusedUnseen) {
    struct Row {
        const char* what;
        Way way;
        FrameLayout layout;
        std::vector<std::uint64_t> sizes;
        VkFlags usage;
        std::function<void(test::FakePhysicalDevice&)> change; // what this driver lacks
        Errc code;
        Words words;
    };
    using L = FrameLayout;
    using Gpu = test::FakePhysicalDevice;
    const auto invalid = [](L layout) {
        layout.modifier = DRM_FORMAT_MOD_INVALID;
        return layout;
    };
    const auto as_it_is = [](Gpu&) {};
    constexpr auto bad = Errc::invalid_argument;
    constexpr auto not_here = Errc::unsupported;
    const FrameLayout overlapping = with_plane(nv12(), 1, {.offset = 1023, .stride = 64});
    const Row rows[] = {
        {"INVALID for LINEAR",
         Way::image,
         invalid(xr24()),
         {xr24_size},
         sampled,
         as_it_is,
         not_here,
         {"INVALID", "LINEAR is 0"}},
        {"INVALID for LINEAR, a plane",
         Way::plane,
         invalid(nv12()),
         {nv12_size},
         sampled,
         as_it_is,
         not_here,
         {"INVALID", "LINEAR is 0"}},
        {"INVALID for LINEAR, to sample",
         Way::texture,
         invalid(nv12()),
         {nv12_size},
         sampled,
         as_it_is,
         not_here,
         {"INVALID", "LINEAR is 0"}},
        {"chroma that begins in luma's last row",
         Way::image,
         overlapping,
         {nv12_size},
         sampled,
         as_it_is,
         bad,
         {"plane 1 at offset 1023 overlaps plane 0 at offset 0"}},
        {"the same, to sample",
         Way::texture,
         overlapping,
         {nv12_size},
         sampled,
         as_it_is,
         bad,
         {"plane 1 at offset 1023 overlaps plane 0 at offset 0"}},
        {"chroma before luma that reaches into it",
         Way::image,
         with(nv12(),
              [](L& l) {
                  l.planes = {FramePlane{.offset = 511, .stride = 64}, FramePlane{.stride = 64}};
              }),
         {nv12_size},
         sampled,
         as_it_is,
         bad,
         {"plane 1 at offset 0 overlaps plane 0 at offset 511"}},
        {"both planes at the start",
         Way::image,
         with_plane(nv12(), 1, {.stride = 64}),
         {nv12_size},
         sampled,
         as_it_is,
         bad,
         {"plane 1 at offset 0 overlaps plane 0 at offset 0"}},
        {"both chromas in one place",
         Way::image,
         with_plane(yuv420(), 2, {.offset = 1024, .stride = 32}),
         {yuv420_size},
         sampled,
         as_it_is,
         bad,
         {"plane 2 at offset 1024 overlaps plane 1 at offset 1024"}},
        {"chromas side by side, a byte too near",
         Way::image,
         with(yuv420(),
              [](L& l) {
                  l.planes[1].stride = 64;
                  l.planes[2] = {.offset = 1055, .stride = 64};
              }),
         {yuv420_size},
         sampled,
         as_it_is,
         bad,
         {"plane 2 at offset 1055 overlaps plane 1 at offset 1024"}},
        {"the same around the end of the pitch",
         Way::image,
         with(yuv420(),
              [](L& l) {
                  l.planes[1].stride = 64;
                  l.planes[2] = {.offset = 1057, .stride = 64};
              }),
         {2048},
         sampled,
         as_it_is,
         bad,
         {"plane 2 at offset 1057 overlaps plane 1 at offset 1024"}},
        {"rows of unlike strides through each other",
         Way::image,
         with(nv12(),
              [](L& l) {
                  l.planes[0].stride = 96;
                  l.planes[1] = {.offset = 64, .stride = 80};
              }),
         {nv12_size},
         sampled,
         as_it_is,
         bad,
         {"plane 1 at offset 64 overlaps"}},
        {"a plane too few for a modifier's",
         Way::image,
         with(xr24(), [](L& l) { l.modifier = I915_FORMAT_MOD_Y_TILED_CCS; }),
         {xr24_size},
         sampled,
         [](Gpu& gpu) {
             gpu.modifiers.push_back({I915_FORMAT_MOD_Y_TILED_CCS, 2, ~0U});
         },
         not_here,
         {"has 1 memory planes", "has 2"}},
        {"a modifier that is not listed",
         Way::image,
         with(xr24(), [](L& l) { l.modifier = I915_FORMAT_MOD_X_TILED; }),
         {xr24_size},
         sampled,
         as_it_is,
         not_here,
         {"INTEL 0x100000000000001", "it takes LINEAR"}},
        {"the same, to sample",
         Way::texture,
         with(xr24(), [](L& l) { l.modifier = I915_FORMAT_MOD_X_TILED; }),
         {xr24_size},
         sampled,
         as_it_is,
         not_here,
         {"INTEL 0x100000000000001", "it takes LINEAR"}},
        {"too wide",
         Way::image,
         xr24(),
         {xr24_size},
         sampled,
         [](Gpu& gpu) {
             gpu.max_extent = {63, 16};
         },
         not_here,
         {"64x16", "limit is 63x16"}},
        {"too high, a plane",
         Way::plane,
         nv12(),
         {nv12_size},
         sampled,
         [](Gpu& gpu) {
             gpu.max_extent = {64, 15};
         },
         not_here,
         {"64x16", "limit is 64x15"}},
        {"too high, to sample",
         Way::texture,
         xr24(),
         {xr24_size},
         sampled,
         [](Gpu& gpu) {
             gpu.max_extent = {64, 15};
         },
         not_here,
         {"64x16", "limit is 64x15"}},
        {"too large for a VkBuffer",
         Way::bytes,
         xr24(),
         {8193},
         copied,
         [](Gpu& gpu) { gpu.max_buffer_size = 8192; },
         not_here,
         {"8193 bytes", "limit is 8192"}},
        {"a format that Vulkan has not",
         Way::image,
         with(xr24(),
              [](L& l) {
                  l.format = DRM_FORMAT_NV15;
                  l.width = 4;
                  l.height = 2;
                  l.planes = {FramePlane{.stride = 5}, FramePlane{.offset = 10, .stride = 5}};
              }),
         {xr24_size},
         sampled,
         as_it_is,
         not_here,
         {"NV15", "no format with its bytes"}},
        {"a format that the driver has not",
         Way::image,
         xr24(),
         {xr24_size},
         sampled,
         [](Gpu& gpu) { gpu.formats = {VK_FORMAT_R8_UNORM}; },
         not_here,
         {"XR24", "no such image"}},
        {"a format that only copies",
         Way::image,
         xr24(),
         {xr24_size},
         sampled,
         [](Gpu& gpu) {
             gpu.modifiers[0].drmFormatModifierTilingFeatures = VK_FORMAT_FEATURE_TRANSFER_SRC_BIT;
         },
         not_here,
         {"LINEAR lacks SAMPLED"}},
        {"a VkBuffer for a usage that it has not",
         Way::bytes,
         xr24(),
         {xr24_size},
         copied,
         [](Gpu& gpu) { gpu.buffer_features = 0; },
         not_here,
         {"does not import", "this usage"}},
        {"a driver that imports nothing",
         Way::image,
         xr24(),
         {xr24_size},
         sampled,
         [](Gpu& gpu) { gpu.memory_features = 0; },
         not_here,
         {"does not import"}},
        {"no usage, an image", Way::image, xr24(), {xr24_size}, 0, as_it_is, bad, {"no usage"}},
        {"no usage, a plane", Way::plane, xr24(), {xr24_size}, 0, as_it_is, bad, {"no usage"}},
        {"no usage, to sample", Way::texture, xr24(), {xr24_size}, 0, as_it_is, bad, {"no usage"}},
        {"no usage, bytes", Way::bytes, xr24(), {xr24_size}, 0, as_it_is, bad, {"no usage"}},
        {"an odd width as one image",
         Way::image,
         with(nv12(), [](L& l) { l.width = 63; }),
         {nv12_size},
         sampled,
         as_it_is,
         not_here,
         {"63x16", "multiple of 2x2"}},
    };
    const auto usual = gpu();
    for (const Row& row : rows) {
        SCOPED_TRACE(row.what);
        gpu() = usual;
        has_planes(row.way == Way::plane                      ? 1
                   : row.layout.format == DRM_FORMAT_YUV420   ? 3
                   : row.layout.format == DRM_FORMAT_XRGB8888 ? 1
                                                              : 2);
        row.change(gpu());
        const VulkanDevice device = wrap();
        const Frame frame = make(row.layout, row.sizes);
        const int before = shown();
        const auto fds = test::open_fds();
        test::expect_refused(attach(device, frame, row.way, row.usage), row.code, row.words);
        EXPECT_EQ(shown(), before) << "the driver was asked";
        EXPECT_EQ(test::open_fds(), fds) << "a fd was leaked, or closed";
        gpu() = usual;
        has_planes(1);
        const VulkanDevice again = wrap();
        EXPECT_TRUE(again.attach(make(xr24(), {xr24_size}), {.usage = sampled}));
        EXPECT_GT(shown(), before) << "the count is of no use";
    }
}

TEST_F(VulkanBadInputTest, AReadOnlyBufferIsReadOnly) {
    const VulkanDevice device = wrap();
    const UniqueFd writable = test::memfd(xr24_size);
    const auto frame = [&](int mode) {
        const std::string path = "/proc/self/fd/" + std::to_string(writable.get());
        auto made = Frame::create(
            xr24(), std::move(*DmaBuf::from_fd(UniqueFd(open(path.c_str(), mode | O_CLOEXEC)))));
        EXPECT_TRUE(made);
        return std::move(*made);
    };
    const Words words{"read only", "usage writes", "buffer ino"};
    const VkImageUsageFlags writing[] = {VK_IMAGE_USAGE_TRANSFER_DST_BIT,
                                         VK_IMAGE_USAGE_STORAGE_BIT | sampled,
                                         VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT};
    const VkBufferUsageFlags writing_bytes[] = {VK_BUFFER_USAGE_TRANSFER_DST_BIT | copied,
                                                VK_BUFFER_USAGE_STORAGE_BUFFER_BIT,
                                                VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT};
    for (const bool known : {false, true}) { // whether the device has the bytes attached already
        SCOPED_TRACE(known);
        std::vector<VulkanImage> images;
        std::vector<VulkanBuffer> buffers;
        const Frame read_write = frame(O_RDWR);
        if (known) {
            for (const VkImageUsageFlags usage : writing)
                images.push_back(*device.attach(read_write, {.usage = usage}));
            for (const VkBufferUsageFlags usage : writing_bytes)
                buffers.push_back(*device.attach_buffer(read_write, {.usage = usage}));
        }
        const Frame read_only = frame(O_RDONLY);
        const int before = shown();
        for (const VkImageUsageFlags usage : writing)
            for (const Way way : {Way::image, Way::plane, Way::texture})
                test::expect_refused(attach(device, read_only, way, usage), Errc::no_permission,
                                     words);
        for (const VkBufferUsageFlags usage : writing_bytes)
            test::expect_refused(attach(device, read_only, Way::bytes, usage), Errc::no_permission,
                                 words);
        EXPECT_EQ(shown(), before);
        for (const Way way : {Way::image, Way::plane, Way::texture})
            EXPECT_TRUE(attach(device, read_only, way, sampled | VK_IMAGE_USAGE_TRANSFER_SRC_BIT));
        EXPECT_TRUE(attach(device, read_only, Way::bytes, copied));
    }
}

TEST_F(VulkanBadInputTest, StrictlyANumberThatIsAnotherObjectsByNowIsNotImported) {
    setenv("SLUICE_STRICT", "1", 1);
    const VulkanDevice device = wrap();
    unsetenv("SLUICE_STRICT");
    const auto put_there = [](int number, UniqueFd other) {
        EXPECT_EQ(other ? dup3(other.get(), number, O_CLOEXEC) : close(number), other ? number : 0);
    };
    const struct {
        const char* what;
        std::function<UniqueFd()> takes_its_place;
        const char* words;
    } rows[] = {{"nothing", [] { return UniqueFd(); }, "EBADF"},
                {"an eventfd", [] { return UniqueFd(eventfd(0, EFD_CLOEXEC)); },
                 "the number is another object's"},
                {"another buffer", [] { return test::memfd(xr24_size); },
                 "the number is another object's"}};
    for (const auto& row : rows)
        for (const Way way : {Way::image, Way::plane, Way::texture, Way::bytes}) {
            SCOPED_TRACE(row.what);
            const Frame frame = make(xr24(), {xr24_size});
            const int number = frame.buffer().fd();
            const UniqueFd kept(fcntl(number, F_DUPFD_CLOEXEC, 0));
            put_there(number, row.takes_its_place());
            const int before = shown();
            test::expect_refused(attach(device, frame, way, way == Way::bytes ? copied : sampled),
                                 Errc::wrong_object, {row.words, "buffer ino"});
            EXPECT_EQ(shown(), before);
            ASSERT_EQ(dup3(kept.get(), number, O_CLOEXEC), number);
            EXPECT_TRUE(attach(device, frame, way, way == Way::bytes ? copied : sampled));
        }
}

TEST_F(VulkanBadInputTest, AFdThatWasClosedIsNotShownToTheDriver) {
    const VulkanDevice device = wrap();
    for (const Way way : {Way::image, Way::plane, Way::texture, Way::bytes}) {
        const Frame frame = make(xr24(), {xr24_size});
        const int number = frame.buffer().fd();
        const UniqueFd kept(fcntl(number, F_DUPFD_CLOEXEC, 0));
        ASSERT_EQ(close(number), 0);
        const int asked = driver_.calls("vkGetMemoryFdPropertiesKHR");
        const int imported = driver_.calls("vkAllocateMemory");
        test::expect_refused(attach(device, frame, way, way == Way::bytes ? copied : sampled),
                             Errc::wrong_object, {"EBADF", "buffer ino"});
        EXPECT_EQ(driver_.calls("vkGetMemoryFdPropertiesKHR"), asked);
        EXPECT_EQ(driver_.calls("vkAllocateMemory"), imported);
        ASSERT_EQ(dup3(kept.get(), number, O_CLOEXEC), number);
        EXPECT_TRUE(attach(device, frame, way, way == Way::bytes ? copied : sampled));
    }
}

TEST_F(VulkanBadInputTest, ALimitOfFdsIsToldAndLeavesNothing) {
    has_planes(2);
    const Frame frame = make(with_plane(nv12(), 1, {.stride = 64, .buffer = 1}), {1024, 512});
    const DmaBuf plain = std::move(*DmaBuf::from_fd(test::memfd(4096)));
    // Each plane's memory takes one, and the driver keeps none.
    const auto refuse = [&](unsigned left, const auto& call) {
        SCOPED_TRACE(left);
        const VulkanDevice device = wrap();
        const auto fds = test::open_fds();
        {
            const test::FdLimit limit(left);
            const auto refused = call(device);
            ASSERT_FALSE(refused);
            EXPECT_EQ(refused.error().code, Errc::no_resources) << refused.error().message();
            EXPECT_NE(refused.error().message().find("RLIMIT_NOFILE"), std::string::npos);
            EXPECT_EQ(driver_.living(), Kinds{});
        }
        EXPECT_EQ(test::open_fds(), fds);
        EXPECT_TRUE(call(device));
    };
    refuse(0, [&](const VulkanDevice& on) { return attach(on, frame, Way::image, sampled); });
    refuse(0, [&](const VulkanDevice& on) { return attach(on, frame, Way::texture, sampled); });
    refuse(0, [&](const VulkanDevice& on) { return attach(on, frame, Way::bytes, copied); });
    refuse(0, [&](const VulkanDevice& on) { return on.attach_buffer(plain, copied); });
    refuse(1, [&](const VulkanDevice& on) { return on.attach_buffer(plain, copied); });
    // The second plane's, where somebody else took the number of the first meanwhile.
    std::vector<UniqueFd> others;
    int duplicates = 0;
    libc_.fcntl = [&](int fd, int command, long argument) {
        if (command == F_DUPFD_CLOEXEC && ++duplicates == 2) {
            errno = EMFILE;
            return -1;
        }
        return test::ScriptedLibc::real_fcntl(fd, command, argument);
    };
    refuse(8, [&](const VulkanDevice& on) { return attach(on, frame, Way::image, sampled); });
}

} // namespace
} // namespace sluice
