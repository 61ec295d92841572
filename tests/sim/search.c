/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "search.h"

#include <stddef.h>
#include <stdlib.h>
#include <time.h>

/* What was used up of the bounds so far (World.crashes, cuts, faults, resolves) is no part of a state: it decides only what bad
 * may still happen. Of two ways to the same state the one that used up no more of anything can be followed by all that can
 * follow the other, in as many steps: a state is expanded again only with something less used up than ever before.
 *
 * A state is known by 128 bits of hash; the state itself is kept, packed, only until it has been expanded, and made again by
 * repeating the moves when somebody wants to see how it came about. */
typedef struct Node {
        uint64_t hash[2];
        uint64_t seen; /* with so much used up, or less, it was met: a bit of each combination (used_up()) */
} Node;

/* One way to a state: `parent` is a way, too. In the order of their length. */
typedef struct Way {
        uint32_t parent, node;
        Move move;
        uint8_t bad;
} Way;

typedef struct Edge {
        uint32_t from, to;
} Edge;

/* In a hash table. Most of those that are not looked for are told apart without a look at their node. */
typedef struct Slot {
        uint32_t node, tag;
} Slot;

/* A successor, on its way into the table. */
typedef struct Next {
        World world;
        uint64_t hash[2];
        uint32_t used;
} Next;

#define BY_ITSELF (UINT32_C(1) << 31) /* in Edge.from: nothing from outside, and nobody waited */
#define EMPTY     UINT32_MAX
#define AN_END    1  /* in marks: an end, or one can be reached from it */
#define NOTED     2  /* ... its edges are there */
#define USED_MAX  64 /* combinations of what can be used up */

static Node *nodes;
static Way *ways;
static Slot *slots;
static Edge *edges;
static uint8_t *marks; /* of each node */
static uint32_t n_nodes, max_nodes, n_ways, max_ways, n_slots;
static size_t n_edges, max_edges, n_steps;
static uint64_t covered[USED_MAX]; /* what is no better than this */

static void *grow(void *p, size_t n, size_t size)
{
        p = realloc(p, n * size);
        if (!p) {
                fprintf(stderr, "out of memory\n");
                exit(2);
        }
        return p;
}

/* ---- what was used up ---------------------------------------------------------------------------------------------- */

static uint32_t used_up(const World *w)
{
        uint32_t used = w->crashes;

        used = used * ((uint32_t) max_cuts + 1) + w->cuts;
        used = used * ((uint32_t) max_faults + 1) + w->faults;
        return used * ((uint32_t) MAX(max_resolves, 0) + 1) + w->resolves;
}

static bool is_covered_by(const World *more, const World *less)
{
        return less->crashes <= more->crashes && less->cuts <= more->cuts && less->faults <= more->faults &&
               less->resolves <= more->resolves;
}

/* All combinations: those of one, and which of them it covers. */
static void list_used(void)
{
        World all[USED_MAX] = {};
        uint32_t n = 0;

        if ((max_crashes + 1) * (max_cuts + 1) * (max_faults + 1) * (MAX(max_resolves, 0) + 1) > USED_MAX) {
                fprintf(stderr, "more deaths, cuts and faults than can be told apart\n");
                exit(2);
        }
        for (int c = 0; c <= max_crashes; c++)
                for (int u = 0; u <= max_cuts; u++)
                        for (int f = 0; f <= max_faults; f++)
                                for (int r = 0; r <= MAX(max_resolves, 0); r++)
                                        all[n++] = (World){.crashes = (uint8_t) c,
                                                           .cuts = (uint8_t) u,
                                                           .faults = (uint8_t) f,
                                                           .resolves = (uint8_t) r};
        for (uint32_t i = 0; i < n; i++) {
                covered[i] = 0;
                for (uint32_t k = 0; k < n; k++)
                        if (is_covered_by(&all[k], &all[i]))
                                covered[i] |= UINT64_C(1) << k;
        }
}

/* ---- states that wait to be expanded ------------------------------------------------------------------------------ */

/* One after the other: for each run of bytes the number of zeros before it, its length, itself; 0, 0 at the end. */
typedef struct Chunk {
        struct Chunk *next;
        size_t n;
        uint8_t bytes[1 << 20];
} Chunk;

static Chunk *first_chunk, *last_chunk;
static size_t read_at;

static void pack(const World *w)
{
        const uint8_t *p = (const uint8_t *) w, *end = p + sizeof *w;
        uint8_t *out;

        if (!last_chunk || last_chunk->n + 2 * sizeof *w > sizeof last_chunk->bytes) {
                Chunk *chunk = grow(NULL, 1, sizeof *chunk);

                chunk->next = NULL;
                chunk->n = 0;
                if (last_chunk)
                        last_chunk->next = chunk;
                else
                        first_chunk = chunk;
                last_chunk = chunk;
        }
        out = last_chunk->bytes + last_chunk->n;
        while (p < end) {
                const uint8_t *run = p;
                size_t zeros, n;

                while (p < end && *p == 0 && p - run < UINT8_MAX)
                        p++;
                zeros = (size_t) (p - run);
                run = p;
                while (p < end && *p != 0 && p - run < UINT8_MAX)
                        p++;
                n = (size_t) (p - run);
                *out++ = (uint8_t) zeros;
                *out++ = (uint8_t) n;
                memcpy(out, run, n);
                out += n;
        }
        last_chunk->n = (size_t) (out - last_chunk->bytes);
}

static void unpack(World *w)
{
        uint8_t *out = (uint8_t *) w, *end = out + sizeof *w;
        const uint8_t *p;

        if (read_at == first_chunk->n) {
                Chunk *done = first_chunk;

                first_chunk = done->next;
                free(done);
                read_at = 0;
        }
        p = first_chunk->bytes + read_at;
        memset(w, 0, sizeof *w);
        while (out < end) {
                uint8_t zeros = *p++, n = *p++;

                out += zeros;
                memcpy(out, p, n);
                out += n;
                p += n;
        }
        read_at = (size_t) (p - first_chunk->bytes);
}

static void drop_waiting(void)
{
        while (first_chunk) {
                Chunk *next = first_chunk->next;

                free(first_chunk);
                first_chunk = next;
        }
        last_chunk = NULL;
        read_at = 0;
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t a, uint64_t b)
{
        __extension__ unsigned __int128 product = (unsigned __int128) a * b;

        return (uint64_t) product ^ (uint64_t) (product >> 64);
}

/* Of all but what was used up. */
static void hash(const World *w, uint64_t *h)
{
        const uint8_t *p = (const uint8_t *) w;
        uint64_t v[2] = {};

        h[0] = 0x9e3779b97f4a7c15u;
        h[1] = 0xc2b2ae3d27d4eb4fu;
        for (size_t i = 0; i < offsetof(World, crashes); i += sizeof v) {
                memcpy(v, p + i, MIN(sizeof v, offsetof(World, crashes) - i));
                h[0] = mix(v[0] ^ h[0], v[1] ^ 0x8bb84b93962eacc9u);
                h[1] = mix(v[0] ^ 0x2d358dccaa6c78a5u, v[1] ^ h[1]);
        }
        h[0] = mix(h[0] ^ 0x4b33a62ed433d4a3u, 0x4d5a2da51de1aa47u);
        h[1] = mix(h[1] ^ 0xa0761d6478bd642fu, 0xe7037ed1a0b428dbu);
}

static uint32_t first_slot(uint64_t h)
{
        return (uint32_t) h & (n_slots - 1);
}

static uint32_t slot_of(const uint64_t *h)
{
        uint32_t i = first_slot(h[0]), tag = (uint32_t) (h[0] >> 32);

        while (slots[i].node != EMPTY && (slots[i].tag != tag || nodes[slots[i].node].hash[0] != h[0]))
                i = (i + 1) & (n_slots - 1);
        return i;
}

static void empty_slots(void)
{
        memset(slots, 0xff, n_slots * sizeof *slots);
}

static void grow_slots(void)
{
        n_slots = n_slots ? n_slots * 2 : 1 << 16;
        slots = grow(slots, n_slots, sizeof *slots);
        empty_slots();
        for (uint32_t k = 0; k < n_nodes; k++)
                slots[slot_of(nodes[k].hash)] = (Slot){k, (uint32_t) (nodes[k].hash[0] >> 32)};
}

static uint32_t add_node(const Search *how, const Next *next, uint32_t slot)
{
        if (n_nodes == max_nodes) {
                max_nodes = max_nodes ? max_nodes * 2 : 1 << 14;
                nodes = grow(nodes, max_nodes, sizeof *nodes);
                marks = grow(marks, max_nodes, sizeof *marks);
        }
        slots[slot] = (Slot){n_nodes, (uint32_t) (next->hash[0] >> 32)};
        nodes[n_nodes] = (Node){{next->hash[0], next->hash[1]}, 0};
        marks[n_nodes] = how->is_end(&next->world) ? AN_END : 0;
        return n_nodes++;
}

static void add_way(const Next *next, uint32_t parent, uint32_t node, Move move)
{
        if (n_ways == max_ways) {
                max_ways = max_ways ? max_ways * 2 : 1 << 14;
                ways = grow(ways, max_ways, sizeof *ways);
        }
        ways[n_ways++] = (Way){parent, node, move, next->world.bad};
        pack(&next->world);
}

/* Returns its node. */
static uint32_t meet(const Search *how, const Next *next, uint32_t parent, Move move)
{
        uint32_t i, node;

        if (n_nodes * UINT64_C(2) >= n_slots)
                grow_slots();
        i = slot_of(next->hash);
        node = slots[i].node != EMPTY ? slots[i].node : add_node(how, next, i);
        assert(nodes[node].hash[1] == next->hash[1]);
        if (!(nodes[node].seen & UINT64_C(1) << next->used)) {
                nodes[node].seen |= covered[next->used];
                add_way(next, parent, node, move);
        }
        return node;
}

static bool is_by_itself(int what)
{
        switch (what) {
        case M_DELIVER:
        case M_ACT:
        case M_ANSWER:
        case M_LATE:
        case M_VMM_STEPS:
        case M_SEE_DEATH:
        case M_SEE_RESUME: return true;
        default: return false;
        }
}

static bool is_of_person(int what)
{
        return what == M_CANCEL || what == M_RUN_HERE || what == M_DISCARD_HERE;
}

static void add_edge(uint32_t from, uint32_t to, Move move)
{
        if (from == to)
                return; /* it must wait */
        if (n_edges == max_edges) {
                max_edges = max_edges ? max_edges * 2 : 1 << 16;
                edges = grow(edges, max_edges, sizeof *edges);
        }
        edges[n_edges++] = (Edge){from | (is_by_itself(move.what) ? BY_ITSELF : 0), to};
}

/* The edges by one of their ends: returns the first of each node in `list`, n_nodes + 1 of them. */
static uint32_t *sort_edges(bool back, uint32_t mask, uint32_t **list)
{
        uint32_t *first = grow(NULL, n_nodes + 2, sizeof *first);

        *list = grow(NULL, n_edges + 1, sizeof **list);
        memset(first, 0, (n_nodes + 2) * sizeof *first);
        for (size_t i = 0; i < n_edges; i++)
                if ((edges[i].from & mask) == mask)
                        first[(back ? edges[i].to : edges[i].from & ~BY_ITSELF) + 2]++;
        for (uint32_t i = 1; i < n_nodes + 2; i++)
                first[i] += first[i - 1];
        for (size_t i = 0; i < n_edges; i++) {
                uint32_t from = edges[i].from & ~BY_ITSELF;

                if ((edges[i].from & mask) == mask)
                        (*list)[first[(back ? edges[i].to : from) + 1]++] = back ? from : edges[i].to;
        }
        return first;
}

/* A state from which no end can be reached, or UINT32_MAX: the search goes back from the ends. */
static uint32_t find_stuck(void)
{
        uint32_t *back, *first = sort_edges(true, 0, &back), stuck = UINT32_MAX;
        uint32_t *open = grow(NULL, n_nodes + 1, sizeof *open), n_open = 0;

        for (uint32_t i = 0; i < n_nodes; i++)
                if (marks[i] & AN_END)
                        open[n_open++] = i;
        while (n_open > 0) {
                uint32_t i = open[--n_open];

                for (uint32_t k = first[i]; k < first[i + 1]; k++)
                        if (!(marks[back[k]] & AN_END)) {
                                marks[back[k]] |= AN_END;
                                open[n_open++] = back[k];
                        }
        }
        for (uint32_t i = 0; i < n_nodes && stuck == UINT32_MAX; i++)
                if (!(marks[i] & AN_END))
                        stuck = i;
        free(first);
        free(back);
        free(open);
        return stuck;
}

/* The first state on a circle of steps that need nothing from outside, or UINT32_MAX: what is left when those to which no
 * such step leads are taken away, one after the other. */
static uint32_t find_circle(void)
{
        uint32_t *out, *first = sort_edges(false, BY_ITSELF, &out), circle = UINT32_MAX;
        uint32_t *open = grow(NULL, n_nodes + 1, sizeof *open), n_open = 0;
        uint32_t *n_in = grow(NULL, n_nodes + 1, sizeof *n_in);

        memset(n_in, 0, n_nodes * sizeof *n_in);
        for (size_t i = 0; i < n_edges; i++)
                n_in[edges[i].to] += (edges[i].from & BY_ITSELF) != 0;
        for (uint32_t i = 0; i < n_nodes; i++)
                if (n_in[i] == 0)
                        open[n_open++] = i;
        while (n_open > 0) {
                uint32_t i = open[--n_open];

                for (uint32_t k = first[i]; k < first[i + 1]; k++)
                        if (--n_in[out[k]] == 0)
                                open[n_open++] = out[k];
        }
        for (uint32_t i = 0; i < n_nodes && circle == UINT32_MAX; i++)
                if (n_in[i] > 0)
                        circle = i;
        free(first);
        free(out);
        free(open);
        free(n_in);
        return circle;
}

static void print_trace(uint32_t way)
{
        uint32_t path[4096], n = 0;
        World w;

        for (uint32_t i = way; i != 0 && n < ARRAY_SIZE(path); i = ways[i].parent)
                path[n++] = i;
        world_init(&w);
        for (uint32_t k = n; k-- > 0;) {
                Move m = ways[path[k]].move;

                move_on(&w, m);
                print_move(&w, n - k, m);
        }
}

/* The first way to it. */
static uint32_t way_to(uint32_t node)
{
        uint32_t way = 0;

        while (ways[way].node != node)
                way++;
        return way;
}

static void prepare(Next *next, const World *here, Move move)
{
        next->world = *here;
        move_on(&next->world, move);
        next->used = used_up(&next->world);
        hash(&next->world, next->hash);
        if (n_slots > 0)
                __builtin_prefetch(&slots[first_slot(next->hash[0])]);
}

/* What costs nothing is the same however often a state is expanded: noted the first time. From each state an end must be in
 * reach without anything bad and without any person. */
static void expand(const Search *how, uint32_t at)
{
        static Next next[MOVES_MAX];
        Move moves[MOVES_MAX];
        uint32_t from = ways[at].node, used;
        bool first = !(marks[from] & NOTED);
        World here;
        int n;

        unpack(&here);
        used = used_up(&here);
        n = how->list(&here, moves);
        for (int i = 0; i < n; i++)
                prepare(&next[i], &here, moves[i]);
        for (int i = 0; i < n; i++) {
                uint32_t to = meet(how, &next[i], at, moves[i]);

                if (first && next[i].used == used && !is_of_person(moves[i].what))
                        add_edge(from, to, moves[i]);
        }
        n_steps += (size_t) n;
        marks[from] |= NOTED;
}

static void begin(const Search *how)
{
        Next first = {};

        n_nodes = n_ways = 0;
        n_edges = n_steps = 0;
        drop_waiting();
        list_used();
        if (slots)
                empty_slots();
        world_init(&first.world);
        hash(&first.world, first.hash);
        (void) meet(how, &first, 0, (Move){});
}

static void say(const char *about, int bad, clock_t began)
{
        printf("%s%u states, %zu steps, %.1f s, %d deaths, %d cuts, %d faults, %s operators: %s\n", about,
               n_nodes, n_steps, (double) (clock() - began) / CLOCKS_PER_SEC, max_crashes, max_cuts,
               max_faults,
               max_resolves == 0  ? "no"
               : max_resolves > 0 ? "few"
                                  : "any",
               bad == FINE ? "no violation" : "violation");
}

int search(const Search *how, const char *about)
{
        clock_t began = clock();
        int bad = FINE;
        uint32_t at, node;

        begin(how);
        for (at = 0; at < n_ways && ways[at].bad == FINE; at++)
                expand(how, at);
        if (at < n_ways) {
                bad = ways[at].bad;
        } else if ((node = find_stuck()) != UINT32_MAX) {
                bad = NO_END;
                at = way_to(node);
        } else if ((node = find_circle()) != UINT32_MAX) {
                bad = ROUND;
                at = way_to(node);
        }
        if (about && bad != FINE) {
                printf("violation: %s\n", bad_names[bad]);
                print_trace(at);
        }
        if (about)
                say(about, bad, began);
        return bad;
}

uint32_t search_states(void)
{
        return n_nodes;
}
