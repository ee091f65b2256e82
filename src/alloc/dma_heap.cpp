// SPDX-License-Identifier: MIT
#include <sluice/dma_heap.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <memory>
#include <string>
#include <string_view>

#include <dirent.h>
#include <fcntl.h>
#include <linux/dma-heap.h>
#include <unistd.h>

#include "alloc/alloc.hpp"
#include "core/sys.hpp"

namespace sluice {

namespace {

using std::to_string;

constexpr const char* folder = "/dev/dma_heap";

struct CloseFolder {
    void operator()(DIR* open) const noexcept { closedir(open); }
};

/// The names that the kernel's CMA heaps have had (drivers/dma-buf/heaps/cma_heap.c).
bool is_cma(std::string_view name) {
    constexpr std::array<std::string_view, 3> names{"reserved", "linux,cma", "default_cma_region"};
    return std::ranges::find(names, name) != names.end();
}

/// A line of /proc/meminfo in bytes ("MemAvailable:    3819992 kB"), or nothing.
std::optional<std::uint64_t> meminfo(std::string_view field) {
    const auto text = alloc::read_text("/proc/meminfo");
    if (!text)
        return std::nullopt;
    const std::string start = "\n" + std::string(field) + ":";
    const std::size_t at = ("\n" + *text).find(start); // the same place in text, less the newline
    if (at == std::string::npos)
        return std::nullopt;
    const std::size_t digits = text->find_first_not_of(' ', at + start.size() - 1);
    std::uint64_t kib = 0;
    if (digits == std::string::npos ||
        std::from_chars(text->data() + digits, text->data() + text->size(), kib).ec != std::errc())
        return std::nullopt;
    return kib << 10;
}

ExporterCaps heap_caps(const DmaHeapInfo& info) {
    const bool cma = is_cma(info.name);
    ExporterCaps caps{.name = "dma-heap " + info.name,
                      .max_size = info.max_size,
                      .max_size_source = "DmaHeapInfo::max_size",
                      .granularity = alloc::page_size(),
                      .zeroed = cma || info.name == "system",
                      .cpu_mappable = true,
                      // begin_ and end_cpu_access in drivers/dma-buf/heaps/{system,cma}_heap.c
                      .cpu_caching = cma || info.name == "system" ? CpuCaching::maintained
                                                                  : CpuCaching::unknown,
                      .memory = cma                     ? MemoryKind::contiguous
                                : info.name == "system" ? MemoryKind::system
                                                        : MemoryKind::unknown,
                      .formats = alloc::linear_formats()};
    if (caps.max_size == 0) {
        caps.max_size = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) / 2 * caps.granularity;
        caps.max_size_source = "half of the machine's RAM; see DmaHeapInfo::max_size";
    }
    if (const auto total = meminfo("CmaTotal"); cma && total && *total < caps.max_size) {
        caps.max_size = *total;
        caps.max_size_source = "CmaTotal in /proc/meminfo";
    }
    return caps;
}

Error cannot_open(int error, const std::string& path) {
    std::string known;
    for (const std::string& each : dma_heaps())
        known += (known.empty() ? "" : ", ") + each;
    Error failure = sys::failed_call(
        error, "DmaHeapExporter::open", path, "does not open",
        error == EACCES                      ? "Give this user access to it"
        : error == EMFILE || error == ENFILE ? "Close fds that are no longer used"
        : known.empty() ? "This machine has no dma-heap (CONFIG_DMABUF_HEAPS): use udmabuf"
                        : "Use one of this machine's heaps: " + known);
    if (error == ENOENT || error == ENOTDIR || error == ENODEV || error == ENXIO)
        failure.code = Errc::unsupported;
    return failure;
}

} // namespace

std::vector<std::string> dma_heaps() noexcept {
    std::vector<std::string> names;
    const std::unique_ptr<DIR, CloseFolder> heaps(opendir(folder));
    while (const dirent* heap = heaps ? readdir(heaps.get()) : nullptr)
        if (heap->d_name[0] != '.')
            names.emplace_back(heap->d_name);
    std::ranges::sort(names);
    return names;
}

DmaHeapExporter::DmaHeapExporter(Private, UniqueFd&& heap, ExporterCaps caps) noexcept
    : Exporter(std::move(caps)), heap_(std::move(heap)) {}

Result<std::shared_ptr<const DmaHeapExporter>>
DmaHeapExporter::open(const DmaHeapInfo& info) noexcept {
    if (info.name.empty() || info.name == "." || info.name == ".." ||
        info.name.find_first_of(std::string_view("/\0", 2)) != std::string::npos)
        return tl::unexpected(Error{.code = Errc::invalid_argument,
                                    .operation = "DmaHeapExporter::open",
                                    .object = "'" + info.name + "'",
                                    .problem = "is not the name of a heap",
                                    .remedy = "Pass a name as dma_heaps() gives it, no path"});
    const std::string path = std::string(folder) + "/" + info.name;
    UniqueFd heap(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!heap)
        return tl::unexpected(cannot_open(errno, path));
    return std::make_shared<const DmaHeapExporter>(Private(), std::move(heap), heap_caps(info));
}

Result<DmaBuf> DmaHeapExporter::allocate(const BufferRequest& request) const noexcept {
    constexpr const char* operation = "DmaHeapExporter::allocate";
    auto size = alloc::checked_size(caps(), operation, request);
    if (!size)
        return tl::unexpected(std::move(size.error()));
    // A CMA heap takes from its own range and fails cleanly; the system heap takes until the OOM
    // killer comes.
    const auto available = meminfo("MemAvailable");
    if (caps().memory != MemoryKind::contiguous && available && *size > *available)
        return tl::unexpected(alloc::refusal(
            Errc::no_resources, operation, caps(),
            "asked for " + alloc::describe(request) + ", and " + to_string(*available) +
                " bytes are available (MemAvailable in /proc/meminfo)",
            "Free memory or ask for less; the kernel would end a process to make room"));
    dma_heap_allocation_data allocation{
        .len = *size, .fd = 0, .fd_flags = O_RDWR | O_CLOEXEC, .heap_flags = 0};
    if (sys::ioctl(heap_.get(), DMA_HEAP_IOCTL_ALLOC, &allocation) != 0)
        return tl::unexpected(sys::failed_call(
            errno, operation, caps().name,
            "the heap gives no " + alloc::describe(request) + " (DMA_HEAP_IOCTL_ALLOC)",
            "Ask for less, or close buffers and fds that are no longer used"));
    int fd = static_cast<int>(allocation.fd);
    auto buffer = DmaBuf::from_fd(UniqueFd(std::move(fd)));
    if (buffer && !request.name.empty())
        (void)buffer->set_name(request.name);
    return buffer;
}

} // namespace sluice
