/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What devices have written by their mappings, as migmgr tells it: bitmaps in files. */

#include "ram.h"

/* Notes the pages of a bitmap: bit i, of little-endian 64-bit words from the beginning of `file`, is the page at
 * `address` + i * page_size. -ERANGE: that is not in one area of the memory. -ENODATA: the file is too short. What
 * pread() says. */
int dirty_pages_mark(Ram *ram, uint64_t address, uint64_t page_size, uint64_t pages, int file) _must_check_;
