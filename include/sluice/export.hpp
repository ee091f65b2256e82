// SPDX-License-Identifier: MIT
#pragma once

/// Marks what the shared library shows to its users; everything else is hidden.
#define SLUICE_API __attribute__((visibility("default")))
