/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE 1 /* strerrorname_np */
#include "number.h"

#include <ctype.h>

#define ERRNO_MAX 4095 /* as in the kernel */
#define MSEC_MAX  86400000.0

int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
        uint64_t number;
        char *end;

        if (!isdigit((unsigned char) text[0]))
                return -EINVAL;
        errno = 0;
        number = strtoull(text, &end, 10);
        if (errno || *end || number < min || number > max)
                return -EINVAL;
        *ret_number = number;
        return 0;
}

int number_parse_bytes(const char *text, uint64_t max, uint64_t *ret_bytes)
{
        static const char suffixes[] = "KMG";
        char digits[24];
        size_t n = strlen(text);
        const char *suffix = n > 0 ? strchr(suffixes, text[n - 1]) : NULL;
        unsigned shift = suffix ? 10 * (unsigned) (suffix - suffixes + 1) : 0;
        uint64_t number;

        n -= suffix != NULL;
        if (n == 0 || n >= sizeof digits)
                return -EINVAL;
        memcpy(digits, text, n);
        digits[n] = '\0';
        if (number_parse(digits, 0, max >> shift, &number) < 0)
                return -EINVAL;
        *ret_bytes = number << shift;
        return 0;
}

int number_parse_msec(const char *text, uint64_t *ret_usec)
{
        double msec;
        char *end;

        if (!isdigit((unsigned char) text[0]) && text[0] != '.')
                return -EINVAL;
        msec = strtod(text, &end);
        if (*end || msec > MSEC_MAX)
                return -EINVAL;
        *ret_usec = (uint64_t) (msec * 1000 + 0.5);
        return 0;
}

int number_parse_errno(const char *text, int *ret_errno)
{
        uint64_t number;

        for (int e = 1; e <= ERRNO_MAX; e++) {
                const char *name = strerrorname_np(e);

                if (name && streq(name, text)) {
                        *ret_errno = e;
                        return 0;
                }
        }
        if (number_parse(text, 1, ERRNO_MAX, &number) < 0)
                return -EINVAL;
        *ret_errno = (int) number;
        return 0;
}
