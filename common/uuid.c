/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "uuid.h"

#include <stdio.h>
#include <sys/random.h>

static bool is_dash(size_t i)
{
        return i == 8 || i == 13 || i == 18 || i == 23;
}

bool uuid_is_valid(const char *text)
{
        for (size_t i = 0; i < UUID_TEXT_MAX; i++) {
                char c = text[i];

                if (is_dash(i) ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
                        return false;
        }
        return text[UUID_TEXT_MAX] == 0;
}

int uuid_generate(char ret[UUID_TEXT_MAX + 1])
{
        uint8_t b[16];
        size_t n = 0;

        if (getrandom(b, sizeof b, 0) != sizeof b)
                return -errno;
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        for (size_t i = 0; i < sizeof b; i++) {
                if (is_dash(n))
                        ret[n++] = '-';
                (void) snprintf(ret + n, 3, "%02x", b[i]);
                n += 2;
        }
        return 0;
}
