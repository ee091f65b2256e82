// SPDX-License-Identifier: MIT
#include <sluice/error.hpp>

namespace sluice {

std::string_view to_string(Errc code) noexcept {
    switch (code) {
    case Errc::invalid_argument:
        return "invalid_argument";
    case Errc::wrong_object:
        return "wrong_object";
    case Errc::out_of_bounds:
        return "out_of_bounds";
    case Errc::unsupported:
        return "unsupported";
    case Errc::timed_out:
        return "timed_out";
    case Errc::fence_failed:
        return "fence_failed";
    case Errc::revoked:
        return "revoked";
    case Errc::busy:
        return "busy";
    case Errc::no_permission:
        return "no_permission";
    case Errc::not_master:
        return "not_master";
    case Errc::no_resources:
        return "no_resources";
    case Errc::device_lost:
        return "device_lost";
    case Errc::failed:
        return "failed";
    }
    return "?";
}

std::string Error::message() const {
    std::string text = operation;
    if (!object.empty())
        text += "(" + object + ")";
    text += ": " + problem + ".";
    if (!remedy.empty())
        text += " " + remedy + ".";
    return text;
}

} // namespace sluice
