/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The first 64 bytes of a data or memory connection, and the one byte that answers them. docs/wire.md.
 *
 *   offset size
 *        0    4  magic "MGH1"; read as the length of a control message it is more than any may have
 *        4    2  version, 1
 *        6    2  kind: device 1, memory 2
 *        8   32  token: random, good for one connection, bound to job and device
 *       40    4  index of the device in the plan; 0 for memory
 *       44   20  reserved, 0
 *
 * Numbers little-endian. Answer: 0 taken, 1 refused.
 */

#include "common/macros.h"

#define HELLO_SIZE       64
#define HELLO_TOKEN_SIZE 32

typedef enum HelloKind {
        HELLO_DEVICE = 1,
        HELLO_MEMORY = 2,
} HelloKind;

typedef struct Hello {
        HelloKind kind;
        uint8_t token[HELLO_TOKEN_SIZE];
        uint32_t index;
} Hello;

enum { HELLO_TAKEN = 0, HELLO_REFUSED = 1 };

void hello_encode(const Hello *hello, uint8_t ret[HELLO_SIZE]);

/* -EBADMSG: wrong magic, version, kind or reserved bytes, or a memory connection with an index. */
int hello_decode(const uint8_t bytes[HELLO_SIZE], Hello *ret) _must_check_;

/* Whether a connection that begins with these four bytes is one of these, and not a control connection. */
bool hello_is_magic(const uint8_t bytes[4]);

/* A new token. */
int hello_token(uint8_t ret[HELLO_TOKEN_SIZE]) _must_check_;
/* Tokens as text: 64 hex digits. */
void hello_token_text(const uint8_t token[HELLO_TOKEN_SIZE], char ret[2 * HELLO_TOKEN_SIZE + 1]);
int hello_token_parse(const char *text, uint8_t ret[HELLO_TOKEN_SIZE]) _must_check_;
/* In a time that does not depend on where they differ. */
bool hello_token_equal(const uint8_t a[HELLO_TOKEN_SIZE], const uint8_t b[HELLO_TOKEN_SIZE]);
