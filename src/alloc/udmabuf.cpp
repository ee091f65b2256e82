// SPDX-License-Identifier: MIT
#include <sluice/udmabuf.hpp>

#include <cerrno>
#include <charconv>
#include <string>

#include <fcntl.h>
#include <linux/udmabuf.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alloc/alloc.hpp"
#include "core/sys.hpp"

namespace sluice {

namespace {

using std::to_string;

constexpr const char* device_path = "/dev/udmabuf";
constexpr const char* limit_path = "/sys/module/udmabuf/parameters/size_limit_mb";

#ifndef MFD_NOEXEC_SEAL
constexpr unsigned MFD_NOEXEC_SEAL = 8U; // linux/memfd.h, since 6.3
#endif

/// Anonymous memory that can be sealed. Where vm.memfd_noexec says so, only one that can never be
/// executed is allowed; older kernels do not know that flag.
UniqueFd sealable_memfd() {
    UniqueFd memory(memfd_create("sluice", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL));
    if (!memory && errno == EINVAL)
        memory = UniqueFd(memfd_create("sluice", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    return memory;
}

ExporterCaps udmabuf_caps() {
    ExporterCaps caps{.name = "udmabuf",
                      .max_size = UINT64_MAX,
                      .max_size_source =
                          std::string("none known: ") + limit_path + " cannot be read",
                      .granularity = alloc::page_size(),
                      .zeroed = true,
                      .cpu_mappable = true,
                      // begin_cpu_udmabuf() and end_cpu_udmabuf() in drivers/dma-buf/udmabuf.c
                      .cpu_caching = CpuCaching::maintained,
                      .memory = MemoryKind::system,
                      .formats = alloc::linear_formats()};
    const auto text = alloc::read_text(limit_path);
    std::uint32_t mib = 0;
    if (text && std::from_chars(text->data(), text->data() + text->size(), mib).ec == std::errc()) {
        caps.max_size = std::uint64_t{mib} << 20;
        caps.max_size_source = std::string(limit_path) + " is " + to_string(mib);
    }
    return caps;
}

} // namespace

UdmabufExporter::UdmabufExporter(Private, UniqueFd&& device, ExporterCaps caps) noexcept
    : Exporter(std::move(caps)), device_(std::move(device)) {}

Result<std::shared_ptr<const UdmabufExporter>> UdmabufExporter::open() noexcept {
    UniqueFd device(::open(device_path, O_RDWR | O_CLOEXEC));
    if (!device) {
        const int error = errno;
        Error failure = sys::failed_call(
            error, "UdmabufExporter::open", device_path, "does not open",
            error == EACCES ? "Give this user access to it; its group is often 'kvm'"
            : error == EMFILE || error == ENFILE
                ? "Close fds that are no longer used"
                : "Load the kernel's udmabuf module (CONFIG_UDMABUF)");
        if (error == ENOENT || error == ENODEV || error == ENXIO)
            failure.code = Errc::unsupported;
        return tl::unexpected(std::move(failure));
    }
    return std::make_shared<const UdmabufExporter>(Private(), std::move(device), udmabuf_caps());
}

Result<DmaBuf> UdmabufExporter::create(int memfd, std::uint64_t offset, std::uint64_t size,
                                       const char* operation,
                                       std::string_view name) const noexcept {
    udmabuf_create request{.memfd = static_cast<__u32>(memfd),
                           .flags = UDMABUF_FLAGS_CLOEXEC,
                           .offset = offset,
                           .size = size};
    // The result is the fd; the request is read only.
    UniqueFd fd(sys::ioctl(device_.get(), UDMABUF_CREATE, &request));
    if (!fd) {
        const int error = errno;
        Error failure = sys::failed_call(
            error, operation, caps().name,
            "the kernel makes no buffer of " + to_string(size) + " bytes of " +
                sys::describe_fd(memfd) + " (UDMABUF_CREATE)",
            error == EINVAL ? "The limit is " + to_string(caps().max_size) + " bytes (" +
                                  caps().max_size_source + "); ask for less"
            : error == EBADFD ? "Pass a memfd"
                              : "Close fds and free memory that are no longer used");
        if (error == EBADFD)
            failure.code = Errc::wrong_object;
        return tl::unexpected(std::move(failure));
    }
    auto buffer = DmaBuf::from_fd(std::move(fd));
    if (buffer && !name.empty())
        (void)buffer->set_name(name);
    return buffer;
}

Result<DmaBuf> UdmabufExporter::allocate(const BufferRequest& request) const noexcept {
    constexpr const char* operation = "UdmabufExporter::allocate";
    auto size = alloc::checked_size(caps(), operation, request);
    if (!size)
        return tl::unexpected(std::move(size.error()));
    const auto refuse = [&](int error, const char* call, std::string remedy) {
        return tl::unexpected(sys::failed_call(error, operation, caps().name,
                                               "cannot prepare memory for " +
                                                   alloc::describe(request) + " (" + call + ")",
                                               std::move(remedy)));
    };
    const UniqueFd memory = sealable_memfd();
    if (!memory)
        return refuse(errno, "memfd_create", "Close fds that are no longer used");
    if (*size > INT64_MAX)
        return refuse(EFBIG, "ftruncate", "Ask for less");
    int sized = 0;
    do {
        sized = ftruncate(memory.get(), static_cast<off_t>(*size));
    } while (sized != 0 && errno == EINTR);
    if (sized != 0)
        return refuse(errno, "ftruncate", "Ask for less");
    // What the kernel wants. Nobody else ever sees this memfd, so no other seal is needed.
    if (fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0)
        return refuse(errno, "F_ADD_SEALS", "Report this kernel: a new memfd takes seals");
    return create(memory.get(), 0, *size, operation, request.name);
}

Result<DmaBuf> UdmabufExporter::wrap_memfd(int memfd, std::uint64_t offset, std::uint64_t size,
                                           std::string_view name) const noexcept {
    constexpr const char* operation = "UdmabufExporter::wrap_memfd";
    const auto refuse = [&](Errc code, std::string problem, std::string remedy, int error = 0) {
        return tl::unexpected(Error{.code = code,
                                    .operation = operation,
                                    .object = sys::describe_fd(memfd),
                                    .problem = std::move(problem),
                                    .remedy = std::move(remedy),
                                    .sys_errno = error});
    };
    const int seals = fcntl(memfd, F_GET_SEALS);
    if (seals < 0) {
        const int error = errno;
        return refuse(sys::code_of_wrong_object(error), "has no seals: " + sys::errno_text(error),
                      "Pass an open memfd, made with MFD_ALLOW_SEALING", error);
    }
    if ((seals & F_SEAL_SHRINK) == 0)
        return refuse(Errc::invalid_argument,
                      "is not sealed with F_SEAL_SHRINK: whoever holds it could take the memory "
                      "away under this process",
                      (seals & F_SEAL_SEAL) != 0
                          ? "It takes no seals any more: make it with MFD_ALLOW_SEALING"
                          : "Seal it: fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)");
    if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0)
        return refuse(Errc::invalid_argument,
                      std::string("is sealed with ") +
                          ((seals & F_SEAL_WRITE) != 0 ? "F_SEAL_WRITE" : "F_SEAL_FUTURE_WRITE") +
                          ": a dma-buf of it could be written to all the same",
                      "Pass a memfd that may be written to, or copy from it");
    const std::uint64_t page = alloc::page_size();
    if (size == 0 || size % page != 0 || offset % page != 0)
        return refuse(Errc::invalid_argument,
                      "the part of " + to_string(size) + " bytes at offset " + to_string(offset) +
                          " is not made of whole pages of " + to_string(page) + " bytes",
                      "Round the offset down and the end up to whole pages");
    struct stat status {};
    if (fstat(memfd, &status) != 0) {
        const int error = errno;
        return refuse(sys::code_of(error),
                      "cannot be asked for its size: " + sys::errno_text(error), "Keep it open",
                      error);
    }
    const auto holds = static_cast<std::uint64_t>(status.st_size);
    if (offset > holds || size > holds - offset)
        return refuse(Errc::out_of_bounds,
                      "the part of " + to_string(size) + " bytes at offset " + to_string(offset) +
                          " ends past its " + to_string(holds) + " bytes",
                      "Pass a part of what it holds, or have it grown first");
    auto allowed = alloc::checked_size(caps(), operation, {.size = size, .name = name});
    if (!allowed)
        return tl::unexpected(std::move(allowed.error()));
    return create(memfd, offset, size, operation, name);
}

} // namespace sluice
