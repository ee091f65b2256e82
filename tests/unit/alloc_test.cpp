// SPDX-License-Identifier: MIT
// udmabuf and dma-heaps: what is asked of the kernel, and what becomes of its refusals.
#include <sluice/dma_heap.hpp>
#include <sluice/udmabuf.hpp>

#include <cerrno>
#include <thread>
#include <vector>

#include <drm_fourcc.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "alloc/alloc.hpp"
#include "support/fake_exporters.hpp"
#include "support/open_fds.hpp"
#include "support/refused.hpp"

namespace sluice {
namespace {

using test::expect_refused;
using test::ScriptedLibc;

class AllocTest : public test::FdTest {
protected:
    std::shared_ptr<const UdmabufExporter> udmabuf() {
        auto exporter = UdmabufExporter::open();
        EXPECT_TRUE(exporter) << exporter.error().message();
        return *exporter;
    }
    std::shared_ptr<const DmaHeapExporter> heap(const DmaHeapInfo& info = {}) {
        auto exporter = DmaHeapExporter::open(info);
        EXPECT_TRUE(exporter) << exporter.error().message();
        return *exporter;
    }

    test::FakeKernel kernel;
    const std::uint64_t page = alloc::page_size();
};

// -- udmabuf --------------------------------------------------------------------------------------

TEST_F(AllocTest, UdmabufSaysWhatItCanDo) {
    const auto exporter = udmabuf();
    EXPECT_EQ(exporter->caps().name, "udmabuf");
    EXPECT_EQ(exporter->caps().max_size, std::uint64_t{64} << 20);
    EXPECT_EQ(exporter->caps().max_size_source,
              "/sys/module/udmabuf/parameters/size_limit_mb is 64");
    EXPECT_EQ(exporter->caps().granularity, page);
    EXPECT_TRUE(exporter->caps().zeroed);
    EXPECT_TRUE(exporter->caps().cpu_mappable);
    EXPECT_TRUE(exporter->caps().gives_bytes);
    EXPECT_FALSE(exporter->caps().lays_out_frames);
    EXPECT_EQ(exporter->caps().formats.size(), formats().size());
}

TEST_F(AllocTest, UdmabufWithoutAReadableLimitLeavesItToTheKernel) {
    for (const char* text : {"", "many\n", "-1\n"}) {
        kernel.files["/sys/module/udmabuf/parameters/size_limit_mb"] = text;
        EXPECT_EQ(udmabuf()->caps().max_size, UINT64_MAX) << text;
    }
    kernel.refused_paths["/sys/module/udmabuf/parameters/size_limit_mb"] = ENOENT;
    EXPECT_EQ(udmabuf()->caps().max_size, UINT64_MAX);
    EXPECT_NE(udmabuf()->caps().max_size_source.find("cannot be read"), std::string::npos);
    EXPECT_TRUE(udmabuf()->allocate({.size = 1}));
    expect_refused(udmabuf()->allocate({.size = UINT64_MAX}), Errc::unsupported,
                   {"18446744073709551615 bytes"});
    expect_refused(udmabuf()->allocate({.size = std::uint64_t{1} << 63}), Errc::failed,
                   {"ftruncate", "EFBIG"});
}

TEST_F(AllocTest, UdmabufSaysWhyItDoesNotOpen) {
    const struct {
        int error;
        Errc code;
        const char* says;
    } cases[] = {{ENOENT, Errc::unsupported, "CONFIG_UDMABUF"},
                 {EACCES, Errc::no_permission, "kvm"},
                 {EMFILE, Errc::no_resources, "Close fds"}};
    for (const auto& each : cases) {
        kernel.refused_paths["/dev/udmabuf"] = each.error;
        expect_refused(UdmabufExporter::open(), each.code, {"/dev/udmabuf", each.says});
    }
}

TEST_F(AllocTest, UdmabufAsksForWholePagesOfSealedMemory) {
    int seals = 0;
    std::int64_t size = 0;
    const auto exporter = udmabuf();
    const auto answer = kernel.libc.ioctl;
    kernel.libc.ioctl = [&](int fd, unsigned long request, void* argument) {
        if (request == UDMABUF_CREATE) {
            const int memory = static_cast<int>(static_cast<udmabuf_create*>(argument)->memfd);
            seals = fcntl(memory, F_GET_SEALS);
            size = lseek(memory, 0, SEEK_END);
            EXPECT_NE(fcntl(memory, F_GETFD) & FD_CLOEXEC, 0);
        }
        return answer(fd, request, argument);
    };
    auto buffer =
        exporter->allocate({.size = page + 1, .name = "a name that is far longer than 31 bytes"});
    ASSERT_TRUE(buffer) << buffer.error().message();
    EXPECT_EQ(buffer->size(), 2 * page);
    EXPECT_EQ(size, static_cast<std::int64_t>(2 * page));
    EXPECT_NE(seals & F_SEAL_SHRINK, 0);
    EXPECT_EQ(seals & F_SEAL_WRITE, 0);
    EXPECT_EQ(kernel.last_udmabuf.size, 2 * page);
    EXPECT_EQ(kernel.last_udmabuf.offset, 0U);
    EXPECT_EQ(kernel.last_udmabuf.flags, UDMABUF_FLAGS_CLOEXEC);
    EXPECT_EQ(kernel.last_name, "a name that is far longer than ") << "31 bytes";
    EXPECT_EQ(kernel.last_name.size(), 31U);
}

TEST_F(AllocTest, UdmabufRefusesByItsLimitBeforeTheKernelIsAsked) {
    const auto exporter = udmabuf();
    EXPECT_TRUE(exporter->allocate({.size = std::uint64_t{64} << 20}));
    EXPECT_EQ(kernel.allocations, 1);
    expect_refused(exporter->allocate({.size = (std::uint64_t{64} << 20) + 1, .name = "big"}),
                   Errc::unsupported,
                   {"67108865 bytes 'big'", "67108864 bytes", "size_limit_mb is 64"});
    expect_refused(exporter->allocate({.size = UINT64_MAX}), Errc::unsupported, {"67108864"});
    expect_refused(exporter->allocate({.size = 0}), Errc::invalid_argument, {"0 bytes"});
    EXPECT_EQ(kernel.allocations, 1);
}

TEST_F(AllocTest, UdmabufTakesAMemfdThatCanBeExecutedWhereTheKernelKnowsNoOther) {
    std::vector<unsigned> asked;
    kernel.libc.memfd_create = [&](const char* name, unsigned flags) {
        if (std::string(name) != "sluice")
            return ScriptedLibc::real_memfd_create(name, flags);
        asked.push_back(flags);
        if ((flags & 8U) != 0) {
            errno = EINVAL;
            return -1;
        }
        return ScriptedLibc::real_memfd_create(name, flags);
    };
    EXPECT_TRUE(udmabuf()->allocate({.size = 1}));
    EXPECT_EQ(asked, (std::vector<unsigned>{MFD_CLOEXEC | MFD_ALLOW_SEALING | 8U,
                                            MFD_CLOEXEC | MFD_ALLOW_SEALING}));
}

TEST_F(AllocTest, EachCallThatUdmabufNeedsMayFailAndLeaksNothing) {
    const auto exporter = udmabuf();
    const BufferRequest request{.size = 4096, .name = "cam-0"};
    const auto before = test::open_fds();

    kernel.libc.memfd_create = [](const char*, unsigned) {
        errno = EMFILE;
        return -1;
    };
    expect_refused(exporter->allocate(request), Errc::no_resources,
                   {"memfd_create", "EMFILE", "4096 bytes 'cam-0'"});
    kernel.libc.memfd_create = nullptr;

    kernel.libc.ftruncate = [](int, off_t) {
        errno = ENOMEM;
        return -1;
    };
    expect_refused(exporter->allocate(request), Errc::no_resources, {"ftruncate", "ENOMEM"});
    kernel.libc.ftruncate = nullptr;

    kernel.libc.fcntl = [](int fd, int command, long argument) {
        if (command != F_ADD_SEALS)
            return ScriptedLibc::real_fcntl(fd, command, argument);
        errno = EPERM;
        return -1;
    };
    expect_refused(exporter->allocate(request), Errc::no_permission, {"F_ADD_SEALS", "EPERM"});
    kernel.libc.fcntl = nullptr;

    const std::pair<int, Errc> refusals[] = {{EMFILE, Errc::no_resources},
                                             {ENOMEM, Errc::no_resources},
                                             {EINVAL, Errc::invalid_argument},
                                             {EBADFD, Errc::wrong_object}};
    for (const auto& [error, code] : refusals) {
        kernel.refused_allocation = error;
        expect_refused(exporter->allocate(request), code, {"UDMABUF_CREATE", "4096 bytes"});
    }
    kernel.refused_allocation = 0;

    kernel.gives_dma_bufs = false;
    expect_refused(exporter->allocate(request), Errc::wrong_object, {"is not a dma-buf"});
    EXPECT_EQ(before, test::open_fds());
}

TEST_F(AllocTest, WrappingAMemfdTellsTheKernelWhichPart) {
    const UniqueFd memory = test::memfd(4 * page);
    ASSERT_EQ(fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
    auto buffer = udmabuf()->wrap_memfd(memory.get(), page, 2 * page, "pool");
    ASSERT_TRUE(buffer) << buffer.error().message();
    EXPECT_EQ(kernel.last_udmabuf.memfd, static_cast<__u32>(memory.get()));
    EXPECT_EQ(kernel.last_udmabuf.offset, page);
    EXPECT_EQ(kernel.last_udmabuf.size, 2 * page);
    EXPECT_EQ(kernel.last_name, "pool");
    EXPECT_GE(fcntl(memory.get(), F_GETFD), 0) << "it stays the caller's";
}

TEST_F(AllocTest, WrappingRefusesMemoryThatAPeerCouldTakeAway) {
    const auto sealed = [&](int seals) {
        UniqueFd memory = test::memfd(4 * page);
        EXPECT_EQ(fcntl(memory.get(), F_ADD_SEALS, seals), 0);
        return memory;
    };
    const auto exporter = udmabuf();
    const auto wrap = [&](int fd, std::uint64_t offset, std::uint64_t size) {
        return exporter->wrap_memfd(fd, offset, size);
    };
    const UniqueFd open_to_all = test::memfd(4 * page);
    const UniqueFd unsealable(memfd_create("unsealable", MFD_CLOEXEC));
    const UniqueFd read_only = sealed(F_SEAL_SHRINK | F_SEAL_WRITE);
    const UniqueFd later_read_only = sealed(F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE);
    const UniqueFd good = sealed(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    const UniqueFd event(eventfd(0, EFD_CLOEXEC));
    const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));

    expect_refused(wrap(open_to_all.get(), 0, page), Errc::invalid_argument,
                   {"F_SEAL_SHRINK", "F_ADD_SEALS", "memfd:sluice-test"});
    expect_refused(wrap(unsealable.get(), 0, page), Errc::invalid_argument,
                   {"F_SEAL_SHRINK", "MFD_ALLOW_SEALING"});
    expect_refused(wrap(read_only.get(), 0, page), Errc::invalid_argument, {"F_SEAL_WRITE"});
    expect_refused(wrap(later_read_only.get(), 0, page), Errc::invalid_argument,
                   {"F_SEAL_FUTURE_WRITE"});
    expect_refused(wrap(event.get(), 0, page), Errc::wrong_object, {"[eventfd]", "EINVAL"});
    expect_refused(wrap(null.get(), 0, page), Errc::wrong_object, {"/dev/null"});
    expect_refused(wrap(-1, 0, page), Errc::wrong_object, {"(none)", "EBADF"});
    expect_refused(wrap(good.get(), 1, page), Errc::invalid_argument, {"offset 1", "whole pages"});
    expect_refused(wrap(good.get(), 0, page - 1), Errc::invalid_argument, {"whole pages"});
    expect_refused(wrap(good.get(), 0, 0), Errc::invalid_argument, {"0 bytes"});
    expect_refused(wrap(good.get(), page, 4 * page), Errc::out_of_bounds,
                   {std::to_string(4 * page) + " bytes", "ends past"});
    expect_refused(wrap(good.get(), 8 * page, page), Errc::out_of_bounds, {"ends past"});
    expect_refused(wrap(good.get(), ~std::uint64_t{0} - page + 1, page), Errc::out_of_bounds,
                   {"ends past"});
    expect_refused(wrap(good.get(), page, ~std::uint64_t{0} - page + 1), Errc::out_of_bounds,
                   {"ends past"});
    EXPECT_EQ(kernel.allocations, 0) << "refused before the kernel is asked";
    EXPECT_TRUE(wrap(good.get(), 0, 4 * page));

    kernel.files["/sys/module/udmabuf/parameters/size_limit_mb"] = "0";
    expect_refused(udmabuf()->wrap_memfd(good.get(), 0, page), Errc::unsupported,
                   {"its limit is 0 bytes"});
}

// -- dma-heap -------------------------------------------------------------------------------------

TEST_F(AllocTest, AHeapSaysWhatItCanDo) {
    const auto system = heap();
    EXPECT_EQ(system->caps().name, "dma-heap system");
    EXPECT_TRUE(system->caps().zeroed);
    EXPECT_EQ(system->caps().memory, MemoryKind::system);
    const auto half = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) / 2 * page;
    EXPECT_EQ(system->caps().max_size, half);
    EXPECT_NE(system->caps().max_size_source.find("half"), std::string::npos);
    EXPECT_EQ(heap({.max_size = 1 << 20})->caps().max_size, 1U << 20);
    const auto vendors = heap({.name = "vendor,secure"});
    EXPECT_FALSE(vendors->caps().zeroed) << "nothing is known of it";
    EXPECT_EQ(vendors->caps().memory, MemoryKind::unknown);
}

TEST_F(AllocTest, ACmaHeapIsBoundedByItsRange) {
    kernel.files["/proc/meminfo"] =
        "MemTotal: 8000000 kB\nMemAvailable: 16 kB\nCmaTotal:          64 kB\nCmaFree: 32 kB\n";
    const auto cma = heap({.name = "reserved"});
    EXPECT_EQ(cma->caps().max_size, 65536U);
    EXPECT_EQ(cma->caps().memory, MemoryKind::contiguous);
    EXPECT_TRUE(cma->caps().zeroed);
    EXPECT_TRUE(cma->allocate({.size = 65536})) << "MemAvailable is not about this range";
    expect_refused(cma->allocate({.size = 65537}), Errc::unsupported, {"65536 bytes", "CmaTotal"});
}

TEST_F(AllocTest, AHeapIsAskedAsTheKernelWants) {
    auto buffer = heap()->allocate({.size = 1, .name = "cam-0"});
    ASSERT_TRUE(buffer) << buffer.error().message();
    EXPECT_EQ(buffer->size(), page);
    EXPECT_EQ(kernel.last_heap.len, page);
    EXPECT_EQ(kernel.last_heap.fd, 0U);
    EXPECT_EQ(kernel.last_heap.fd_flags, static_cast<__u32>(O_RDWR | O_CLOEXEC));
    EXPECT_EQ(kernel.last_heap.heap_flags, 0U);
    EXPECT_EQ(kernel.last_name, "cam-0");
}

TEST_F(AllocTest, AHeapRefusesWhatWouldBringTheOomKiller) {
    const auto system = heap({.max_size = std::uint64_t{1} << 40});
    expect_refused(system->allocate({.size = std::uint64_t{1} << 50}), Errc::unsupported,
                   {"1125899906842624 bytes", "1099511627776 bytes", "DmaHeapInfo::max_size"});
    expect_refused(system->allocate({.size = UINT64_MAX}), Errc::unsupported, {"1099511627776"});
    expect_refused(system->allocate({.size = 1000001U << 10}), Errc::no_resources,
                   {"1024001024 bytes", "1024000000 bytes are available", "MemAvailable"});
    expect_refused(system->allocate({.size = 0}), Errc::invalid_argument, {"0 bytes"});
    EXPECT_EQ(kernel.allocations, 0);
    for (const char* text :
         {"", "MemAvailable:", "MemAvailable: lots\n", "xMemAvailable: 1 kB\n"}) {
        kernel.files["/proc/meminfo"] = text;
        EXPECT_TRUE(system->allocate({.size = 8192})) << "nothing to hold it against: " << text;
    }
    kernel.files["/proc/meminfo"] = "MemAvailable: 4 kB\n";
    EXPECT_TRUE(system->allocate({.size = 4096}));
    EXPECT_FALSE(system->allocate({.size = 4097}));
}

TEST_F(AllocTest, AHeapsNameIsNoPath) {
    for (const std::string& name :
         {std::string(), std::string("."), std::string(".."), std::string("../udmabuf"),
          std::string("a/b"), std::string("/dev/udmabuf"), std::string("sys\0tem", 7)})
        expect_refused(DmaHeapExporter::open({.name = name}), Errc::invalid_argument,
                       {"is not the name of a heap", "dma_heaps()"});
}

TEST_F(AllocTest, AHeapSaysWhyItDoesNotOpen) {
    kernel.refused_paths["/dev/dma_heap/system"] = ENOENT;
    expect_refused(DmaHeapExporter::open(), Errc::unsupported, {"/dev/dma_heap/system", "ENOENT"});
    kernel.refused_paths["/dev/dma_heap/system"] = EACCES;
    expect_refused(DmaHeapExporter::open(), Errc::no_permission, {"EACCES"});
    kernel.refused_paths["/dev/dma_heap/system"] = EMFILE;
    expect_refused(DmaHeapExporter::open(), Errc::no_resources, {"EMFILE", "Close fds"});
}

TEST_F(AllocTest, EachCallThatAHeapNeedsMayFailAndLeaksNothing) {
    const auto system = heap();
    const auto before = test::open_fds();
    const std::pair<int, Errc> refusals[] = {{EMFILE, Errc::no_resources},
                                             {ENOMEM, Errc::no_resources},
                                             {ENOTTY, Errc::unsupported},
                                             {EINVAL, Errc::invalid_argument}};
    for (const auto& [error, code] : refusals) {
        kernel.refused_allocation = error;
        expect_refused(system->allocate({.size = 4096, .name = "cam-0"}), code,
                       {"DMA_HEAP_IOCTL_ALLOC", "4096 bytes 'cam-0'"});
    }
    kernel.refused_allocation = 0;
    kernel.gives_dma_bufs = false;
    expect_refused(system->allocate({.size = 4096}), Errc::wrong_object, {"is not a dma-buf"});
    EXPECT_EQ(before, test::open_fds());
}

// -- frames over plain bytes ----------------------------------------------------------------------

TEST_F(AllocTest, PlanesLieOneAfterTheOther) {
    const auto exporter = udmabuf();
    auto frame = exporter->allocate_frame({.width = 5, .height = 3, .format = DRM_FORMAT_NV12});
    ASSERT_TRUE(frame) << frame.error().message();
    EXPECT_EQ(describe(frame->layout()), "5x3 NV12 LINEAR, stride 256, offset 0; stride 256, "
                                         "offset 768");
    EXPECT_EQ(frame->buffer().size(), page);

    frame = exporter->allocate_frame({.width = 5,
                                      .height = 3,
                                      .format = DRM_FORMAT_YUV420,
                                      .modifiers = {1, DRM_FORMAT_MOD_LINEAR},
                                      .stride_alignment = 48,
                                      .offset_alignment = 100,
                                      .height_alignment = 16,
                                      .min_size = 3 * page + 1});
    ASSERT_TRUE(frame) << frame.error().message();
    // 16 rows of 48, 8 and 8 rows of 48, each plane at a multiple of 100.
    EXPECT_EQ(describe(frame->layout()), "5x3 YU12 LINEAR, stride 48, offset 0; stride 48, offset "
                                         "800; stride 48, offset 1200");
    EXPECT_EQ(frame->buffer().size(), 4 * page);
}

TEST_F(AllocTest, FramesThatCannotBeAreRefusedWithNumbers) {
    const auto exporter = udmabuf();
    const FrameSpec good{.width = 64, .height = 64, .format = DRM_FORMAT_XRGB8888};
    const auto with = [&](auto change) {
        FrameSpec spec = good;
        change(spec);
        return exporter->allocate_frame(spec);
    };
    using S = FrameSpec;
    expect_refused(with([](S& s) { s.width = 0; }), Errc::invalid_argument, {"0x64", "no pixels"});
    expect_refused(with([](S& s) { s.height = 0; }), Errc::invalid_argument, {"64x0"});
    expect_refused(with([](S& s) { s.format = DRM_FORMAT_C8; }), Errc::unsupported, {"C8"});
    expect_refused(with([](S& s) {
                       s.modifiers = {DRM_FORMAT_MOD_INVALID, 7};
                   }),
                   Errc::unsupported, {"it makes LINEAR", "INVALID, 0x7"});
    expect_refused(with([](S& s) { s.width = 0x20000000U; }), Errc::invalid_argument,
                   {"plane 0", "stride of 2147483648", "2147483647"});
    expect_refused(with([](S& s) { s.stride_alignment = UINT32_MAX; }), Errc::invalid_argument,
                   {"stride of 17179869180", "2147483647"});
    expect_refused(with([](S& s) { s.stride_alignment = 0x7fffffffU; }), Errc::invalid_argument,
                   {"stride of 8589934588"});
    expect_refused(with([](S& s) {
                       s.height_alignment = UINT32_MAX;
                       s.height = UINT32_MAX;
                       s.format = DRM_FORMAT_NV12;
                   }),
                   Errc::invalid_argument, {"plane 1", "offset 1099511627520"});
    expect_refused(with([](S& s) {
                       s.height_alignment = 0x80000001U;
                       s.height = 0x80000002U;
                   }),
                   Errc::invalid_argument, {"height alignment of 2147483649", "4294967298 rows"});
    expect_refused(with([](S& s) {
                       s.width = 16384;
                       s.height = 16384;
                   }),
                   Errc::unsupported, {"1073741824 bytes", "67108864"});
    expect_refused(with([](S& s) { s.min_size = UINT64_MAX; }), Errc::unsupported,
                   {"18446744073709551615 bytes"});
    EXPECT_EQ(kernel.allocations, 0);
}

TEST_F(AllocTest, EveryFormatHasAFrameOfOnePixelAndOfOddSizes) {
    const auto exporter = heap();
    for (const FormatInfo& format : formats())
        for (const std::uint32_t size : {1U, 3U, 255U, 257U}) {
            auto frame =
                exporter->allocate_frame({.width = size, .height = size, .format = format.fourcc});
            ASSERT_TRUE(frame) << frame.error().message();
            for (std::uint32_t i = 0; i < format.plane_count; ++i)
                EXPECT_EQ(frame->layout().planes[i].stride % 256, 0U);
        }
}

TEST_F(AllocTest, AnyStrideAlignmentLeadsToAFrame) {
    const auto exporter = udmabuf();
    for (const FormatInfo& format : formats())
        for (std::uint32_t alignment = 1; alignment <= 40; ++alignment) {
            auto frame = exporter->allocate_frame(
                {.width = 33, .height = 3, .format = format.fourcc, .stride_alignment = alignment});
            ASSERT_TRUE(frame) << alignment << ": " << frame.error().message();
            for (std::uint32_t i = 0; i < format.plane_count; ++i)
                EXPECT_EQ(frame->layout().planes[i].stride % alignment, 0U)
                    << describe(frame->layout());
        }
    const auto stride = [&](std::uint32_t format, std::uint32_t alignment) {
        auto frame = exporter->allocate_frame(
            {.width = 33, .height = 3, .format = format, .stride_alignment = alignment});
        return frame ? frame->layout().planes[0].stride : 0;
    };
    EXPECT_EQ(stride(DRM_FORMAT_XRGB8888, 5), 140U) << "of 5 bytes and of 4";
    EXPECT_EQ(stride(DRM_FORMAT_RGB888, 32), 128U) << "pixels of 3 bytes end on whole words";
}

TEST_F(AllocTest, SeveralThreadsAllocateFromOneExporter) {
    kernel.concurrent = true;
    const auto one = udmabuf();
    const auto other = heap();
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i)
            threads.emplace_back([&] {
                for (int n = 0; n < 50; ++n) {
                    EXPECT_TRUE(one->allocate({.size = 4096, .name = "thread"}));
                    EXPECT_TRUE(other->allocate_frame(
                        {.width = 16, .height = 16, .format = DRM_FORMAT_NV12, .name = "thread"}));
                }
            });
    }
    EXPECT_EQ(kernel.allocations, 400);
}

} // namespace
} // namespace sluice
