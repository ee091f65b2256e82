// SPDX-License-Identifier: MIT
#include <sluice/syncobj.hpp>
