/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hello.h"

#include <endian.h>
#include <stdio.h>
#include <sys/random.h>

#define HELLO_VERSION 1

static const uint8_t magic[4] = {'M', 'G', 'H', '1'};

void hello_encode(const Hello *hello, uint8_t ret[HELLO_SIZE])
{
        uint16_t version = htole16(HELLO_VERSION), kind = htole16((uint16_t) hello->kind);
        uint32_t index = htole32(hello->index);

        memset(ret, 0, HELLO_SIZE);
        memcpy(ret, magic, 4);
        memcpy(ret + 4, &version, 2);
        memcpy(ret + 6, &kind, 2);
        memcpy(ret + 8, hello->token, HELLO_TOKEN_SIZE);
        memcpy(ret + 40, &index, 4);
}

bool hello_is_magic(const uint8_t bytes[4])
{
        return memcmp(bytes, magic, 4) == 0;
}

int hello_decode(const uint8_t bytes[HELLO_SIZE], Hello *ret)
{
        static const uint8_t zero[HELLO_SIZE - 44];
        uint16_t version, kind;
        uint32_t index;

        memcpy(&version, bytes + 4, 2);
        memcpy(&kind, bytes + 6, 2);
        memcpy(&index, bytes + 40, 4);
        kind = le16toh(kind);
        if (!hello_is_magic(bytes) || le16toh(version) != HELLO_VERSION ||
            (kind != HELLO_DEVICE && kind != HELLO_MEMORY) || memcmp(bytes + 44, zero, sizeof zero) != 0)
                return -EBADMSG;
        if (kind == HELLO_MEMORY && index != 0)
                return -EBADMSG;
        *ret = (Hello){.kind = (HelloKind) kind, .index = le32toh(index)};
        memcpy(ret->token, bytes + 8, HELLO_TOKEN_SIZE);
        return 0;
}

int hello_token(uint8_t ret[HELLO_TOKEN_SIZE])
{
        return getrandom(ret, HELLO_TOKEN_SIZE, 0) == HELLO_TOKEN_SIZE ? 0 : -EIO;
}

void hello_token_text(const uint8_t token[HELLO_TOKEN_SIZE], char ret[2 * HELLO_TOKEN_SIZE + 1])
{
        for (size_t i = 0; i < HELLO_TOKEN_SIZE; i++)
                (void) snprintf(ret + 2 * i, 3, "%02x", token[i]);
}

static int digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return -1;
}

int hello_token_parse(const char *text, uint8_t ret[HELLO_TOKEN_SIZE])
{
        uint8_t token[HELLO_TOKEN_SIZE];

        if (strlen(text) != sizeof token * 2)
                return -EBADMSG;
        for (size_t i = 0; i < sizeof token; i++) {
                int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);

                if (high < 0 || low < 0)
                        return -EBADMSG;
                token[i] = (uint8_t) (high << 4 | low);
        }
        memcpy(ret, token, sizeof token);
        return 0;
}

bool hello_token_equal(const uint8_t a[HELLO_TOKEN_SIZE], const uint8_t b[HELLO_TOKEN_SIZE])
{
        uint8_t differ = 0;

        for (size_t i = 0; i < HELLO_TOKEN_SIZE; i++)
                differ |= a[i] ^ b[i];
        return differ == 0;
}
