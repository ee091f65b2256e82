// SPDX-License-Identifier: MIT
#include "core/strict_pages.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

namespace sluice {

/// Ranges are used again and never freed, since the handler may look at any of them at any time.
struct StrictPages::Range {
    std::mutex lock; // of the counts and the protection; the handler only reads the counts
    std::atomic<std::byte*> begin = nullptr;
    std::atomic<std::size_t> size = 0; // 0: nothing of it is guarded
    std::atomic<unsigned> readers = 0;
    std::atomic<unsigned> writers = 0;
    std::array<char, 192> what{};
    bool taken = true; // under ranges_lock; its size comes later
    Range* next = nullptr;
};

namespace {

using Range = StrictPages::Range;

constinit std::atomic<Range*> ranges = nullptr;
constinit std::mutex ranges_lock; // of taking and giving back
struct sigaction previous {};

/// A line put together without any function that a signal handler must not call.
class Line {
public:
    Line& operator<<(std::string_view text) noexcept {
        const std::size_t fits = std::min(text.size(), text_.size() - length_);
        std::copy_n(text.data(), fits, text_.data() + length_);
        length_ += fits;
        return *this;
    }
    Line& operator<<(std::size_t number) noexcept {
        std::array<char, 20> digits{};
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
        return *this << std::string_view(digits.data(), end);
    }
    void print() const noexcept { (void)!write(STDERR_FILENO, text_.data(), length_); }

private:
    std::array<char, 512> text_{};
    std::size_t length_ = 0;
};

/// Where \p address lies in \p range, or past its size.
std::size_t offset_in(const Range& range, const void* address) noexcept {
    return reinterpret_cast<std::uintptr_t>(address) -
           reinterpret_cast<std::uintptr_t>(range.begin.load(std::memory_order_relaxed));
}

const Range* find(const void* address) noexcept {
    for (const Range* range = ranges.load(std::memory_order_acquire); range; range = range->next)
        if (offset_in(*range, address) < range->size.load(std::memory_order_acquire))
            return range;
    return nullptr;
}

void explain(const Range& range, const void* address, const void* context) noexcept {
    std::string_view touch = "read or write";
#if defined(__x86_64__)
    constexpr greg_t write_fault = 2; // of the page fault's error code
    const auto* user = static_cast<const ucontext_t*>(context);
    touch = (user->uc_mcontext.gregs[REG_ERR] & write_fault) != 0 ? "write" : "read";
#else
    (void)context;
#endif
    Line line;
    line << "sluice: stray " << touch << " at byte " << offset_in(range, address) << " of "
         << std::string_view(range.what.data()) << ": ";
    if (range.writers != 0)
        line << "the mapping was made to read";
    else if (range.readers != 0)
        line << "only accesses that read are open on it, CpuAccess::begin with Access::write is "
                "missing";
    else
        line << "no access is open on it, CpuAccess::begin with Access::"
             << (touch == "read" ? "read" : "write") << " is missing";
    line << "\n";
    line.print();
}

void on_segv(int signal, siginfo_t* info, void* context) {
    const int saved = errno;
    const bool fault = info->si_code > 0; // and not kill(2)
    if (const Range* range = fault ? find(info->si_addr) : nullptr)
        explain(*range, info->si_addr, context);
    errno = saved;
    if ((previous.sa_flags & SA_SIGINFO) != 0) {
        previous.sa_sigaction(signal, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signal);
    } else {
        // The access is made again and ends the program, as if we had never been here.
        std::signal(SIGSEGV, SIG_DFL);
        if (!fault)
            raise(SIGSEGV);
    }
}

void install_handler() {
    struct sigaction action {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, nullptr, &previous); // before ours can run
    sigaction(SIGSEGV, &action, nullptr);
}

Range* take_range() {
    const std::scoped_lock held(ranges_lock);
    static std::once_flag installed;
    std::call_once(installed, install_handler);
    for (Range* range = ranges.load(std::memory_order_relaxed); range; range = range->next)
        if (!std::exchange(range->taken, true))
            return range;
    auto* range = new Range;
    range->next = ranges.load(std::memory_order_relaxed);
    ranges.store(range, std::memory_order_release);
    return range;
}

} // namespace

StrictPages::StrictPages(void* address, std::size_t size, std::string_view what) noexcept
    : range_(take_range()), error_(mprotect(address, size, PROT_NONE) == 0 ? 0 : errno) {
    range_->what.fill('\0');
    std::copy_n(what.data(), std::min(what.size(), range_->what.size() - 1), range_->what.data());
    range_->readers = 0;
    range_->writers = 0;
    range_->begin.store(static_cast<std::byte*>(address), std::memory_order_relaxed);
    range_->size.store(size, std::memory_order_release);
}

StrictPages::~StrictPages() {
    const std::scoped_lock held(ranges_lock);
    range_->size.store(0, std::memory_order_release);
    range_->taken = false;
}

int StrictPages::open(bool writes) noexcept {
    const std::scoped_lock held(range_->lock);
    return protect(range_->readers + (writes ? 0U : 1U), range_->writers + (writes ? 1U : 0U));
}

int StrictPages::close(bool writes) noexcept {
    const std::scoped_lock held(range_->lock);
    return protect(range_->readers - (writes ? 0U : 1U), range_->writers - (writes ? 1U : 0U));
}

int StrictPages::protect(unsigned readers, unsigned writers) noexcept {
    const auto protection = [](unsigned reading, unsigned writing) {
        return writing != 0 ? PROT_READ | PROT_WRITE : reading != 0 ? PROT_READ : PROT_NONE;
    };
    const int wanted = protection(readers, writers);
    if (wanted != protection(range_->readers, range_->writers) &&
        mprotect(range_->begin, range_->size, wanted) != 0)
        return errno;
    range_->readers = readers;
    range_->writers = writers;
    return 0;
}

} // namespace sluice
