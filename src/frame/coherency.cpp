// SPDX-License-Identifier: MIT
#include "frame/coherency.hpp"

#include <vector>

#include "frame/negotiate_words.hpp"

namespace sluice {

namespace {

/// "a and b look into the CPU's caches".
std::string say(const std::vector<std::string>& names, const char* does, const char* do_) {
    return list_names(names) + (names.size() == 1 ? does : do_);
}

} // namespace

bool on_cpu(const ImporterUse& importer) noexcept {
    return importer.caps->maps || (importer.uses & cpu_uses) != Uses::none;
}

CoherencyVerdict coherency_of(const ExporterCaps& exporter,
                              std::span<const ImporterUse> importers) {
    std::vector<std::string> looking, blind, silent;
    const ImporterCaps* device = nullptr;
    bool several = false;
    bool cpu = false;
    for (const ImporterUse& each : importers) {
        cpu = cpu || on_cpu(each);
        if (each.caps->maps)
            continue;
        (each.caps->snooping == Snooping::yes  ? looking
         : each.caps->snooping == Snooping::no ? blind
                                               : silent)
            .push_back(name_of(*each.caps));
        several = several || (device != nullptr &&
                              (device->device.empty() || device->device != each.caps->device));
        device = each.caps;
    }
    const std::string nobody_says =
        "nobody says whether " +
        say(silent, " looks into the CPU's caches", " look into the CPU's caches");
    if (exporter.cpu_caching == CpuCaching::bypassed)
        return {Coherency::always, "the CPU's caches are not used for " + name_of(exporter)};
    if (blind.empty() && silent.empty())
        return {Coherency::always, looking.empty() ? "the CPU alone uses it"
                                                   : say(looking, " looks into the CPU's caches",
                                                         " look into the CPU's caches")};
    if (cpu && exporter.cpu_caching == CpuCaching::unmaintained && !blind.empty())
        return {Coherency::incoherent,
                say(blind, " does not", " do not") +
                    " look into the CPU's caches, and nothing writes those back for " +
                    name_of(exporter)};
    // Among several devices it is enough that all are of one kind.
    if (several && !silent.empty())
        return {Coherency::unknown, nobody_says};
    if (several && !looking.empty())
        return {Coherency::unknown,
                say(looking, " looks into the CPU's caches", " look into the CPU's caches") +
                    ", and " + say(blind, " does not", " do not")};
    if (!cpu)
        return {Coherency::always,
                several
                    ? "no device looks into the CPU's caches, and the CPU does not use the frame"
                    : "one device alone uses it"};
    if (exporter.cpu_caching == CpuCaching::maintained)
        return {Coherency::bracketed,
                name_of(exporter) +
                    " keeps the CPU's caches right between the brackets of an access"};
    return {Coherency::unknown,
            exporter.cpu_caching == CpuCaching::unknown
                ? "nobody says how the CPU's caches are kept right for " + name_of(exporter)
                : nobody_says};
}

} // namespace sluice
