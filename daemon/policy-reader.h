/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Reads the text of one policy file: JSON into rules (daemon/core/policy-rules.h). docs/policy.md has the format.
 *
 * The text is an operator's or a vendor's: everything in it is bounded, and what is wrong is told by file, line, key and
 * value, with what is allowed there. */

#include "common/json.h"
#include "daemon/core/policy-rules.h"

#define POLICY_TEXT_MAX        (256 * 1024) /* bytes of a file */
#define POLICY_DESCRIPTION_MAX 200          /* bytes */

/* Adds the rules of `text` to `rules`. `file` is its path, for people. `ret_description` has POLICY_DESCRIPTION_MAX + 1
 * bytes; empty when the file has none. -EINVAL: `ret_error` (JSON_TEXT_MAX bytes) says where and what; then `rules` may
 * have some more, and is good for nothing but policy_rules_deinit(). */
int policy_read(const char *file, const char *text, size_t size, PolicyRules *rules, char *ret_description,
                char *ret_error) _must_check_;
/* The same of a text that is no file's and may have `most` bytes. */
int policy_read_text(const char *name, const char *text, size_t size, size_t most, PolicyRules *rules,
                     char *ret_description, char *ret_error) _must_check_;
