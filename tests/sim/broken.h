/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Rules that can be broken on purpose, to see that it is caught. */

#include "world.h"

typedef struct Rule {
        const char *name, *text;
        bool caught;
        void (*apply)(void);
        int faults;   /* at least so many are needed for it to show */
        bool dma;     /* it takes a device that writes the VM's memory */
        bool its_vmm; /* ... or one that its VMM drives */
        int resolves; /* operators decide so often */
        bool fence;   /* ... and the destination is fenced */
        bool held;    /* ... while the destination's vCPUs are held */
        int crashes;  /* at least so many are needed */
        int cuts;     /* ... */
} Rule;

extern const Rule broken_rules[];
extern const size_t n_broken_rules;

/* NULL: none is called that. */
const Rule *find_rule(const char *name);

void print_rules(void);

/* Breaks it in world_table. -ENOENT. */
int break_rule(const char *name);
