/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Manifests and findings as JSON: between daemons, and for people (docs/wire.md). */

#include "common/json.h"
#include "core/check.h"

/* Of a message between daemons no more is a manifest. */
#define MANIFEST_JSON_MAX (900 * 1024)

/* Of a VM whose manifest would be longer than that, what is known of its devices and what went wrong with them is left out, and of
 * their plugins, if need be, all but the first one's name: what a policy compares is not known then, and refused; and so is a plugin
 * of which nothing is said. */
json_object *manifest_to_json(const Manifest *manifest);

/* Of that, what a device is, as policies match it and compare it. */
json_object *manifest_identity_to_json(const ManifestDevice *device);

/* Reads what another host sent; bounded and strict. Fails the reader, or -ENOMEM. */
int manifest_from_json(JsonReader *reader, json_object *object, Manifest *ret) _must_check_;

/* Appends the findings to an array: what refuses comes first, however many are left off behind. */
void findings_to_json(const Findings *findings, json_object *array);

/* The first in an array that is more than a notice, which stays the array's; or NULL. */
json_object *findings_json_first_refusal(json_object *array);

/* Whether all that is more than a notice, and there is some, is about devices that may write to each other. */
bool findings_json_refuse_for_p2p(json_object *array);

/* At most `most` of an array, in a new one that shares them: what refuses comes first. */
json_object *findings_json_first(json_object *array, size_t most);

/* Appends another host's findings, as far as they have the right form, at most 4096, what refuses first; their text made printable.
 * What is in the array already is not said twice: both hosts judge the same manifests. */
void findings_take(json_object *from, json_object *array);

/* Appends findings of this host's plugins about one device, as they are; NULL: there are none. */
void findings_join(json_object *from, json_object *array);
