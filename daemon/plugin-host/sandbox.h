/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a plugin's process may do: think, and talk over the one socket that it has. In two steps, for its code has to be
 * loaded and its constructors are foreign code already. */

#include "common/macros.h"

/* No privileges, little memory, no children, no network: from here on only files that everybody may read can be opened, to read.
 * `ret_text`: what of it can't be had. */
int sandbox_enter(const char **ret_text) _must_check_;

/* ... and from here on none. */
int sandbox_close(const char **ret_text) _must_check_;
