/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "search.h"

#include <stdlib.h>

/* A state is known by 128 bits of hash; the state itself is kept only until it has been expanded, and made again by
 * repeating the moves when somebody wants to see how it came about. */
typedef struct Node {
        uint64_t hash[2];
        uint32_t parent;
        Move move;
        uint8_t end, bad;
} Node;

typedef struct Edge {
        uint32_t from, to;
} Edge;

#define BY_ITSELF (UINT32_C(1) << 31) /* in Edge.from: nothing from outside, and nobody waited */

static Node *nodes;
static World *todo;
static uint32_t n_nodes, max_nodes, *slots, n_slots, n_todo, max_todo, todo_first;
static Edge *edges;
static size_t n_edges, max_edges;

static void *grow(void *p, size_t n, size_t size)
{
        p = realloc(p, n * size);
        if (!p) {
                fprintf(stderr, "out of memory\n");
                exit(2);
        }
        return p;
}

static uint64_t hash(const World *w, uint64_t h)
{
        const uint8_t *p = (const uint8_t *) w;

        for (size_t i = 0; i < sizeof *w; i += 8) {
                uint64_t v = 0;

                memcpy(&v, p + i, MIN(sizeof v, sizeof *w - i));
                h = (h ^ v) * 0xff51afd7ed558ccdu;
                h ^= h >> 32;
        }
        return h ^ h >> 29;
}

static uint32_t slot_of(uint64_t h)
{
        uint32_t i = (uint32_t) h & (n_slots - 1);

        while (slots[i] != UINT32_MAX && nodes[slots[i]].hash[0] != h)
                i = (i + 1) & (n_slots - 1);
        return i;
}

static void grow_slots(void)
{
        n_slots = n_slots ? n_slots * 2 : 1 << 16;
        slots = grow(slots, n_slots, sizeof *slots);
        memset(slots, 0xff, n_slots * sizeof *slots);
        for (uint32_t k = 0; k < n_nodes; k++)
                slots[slot_of(nodes[k].hash[0])] = k;
}

static void push_todo(const World *w)
{
        if (n_todo == max_todo) {
                /* What was expanded is forgotten. */
                if (n_todo > 0)
                        memmove(todo, todo + todo_first, (n_todo - todo_first) * sizeof *todo);
                n_todo -= todo_first;
                todo_first = 0;
                if (n_todo * 2 >= max_todo) {
                        max_todo = max_todo ? max_todo * 2 : 1 << 12;
                        todo = grow(todo, max_todo, sizeof *todo);
                }
        }
        todo[n_todo++] = *w;
}

static uint32_t find_or_add(const Search *how, const World *w, uint32_t parent, Move move)
{
        uint64_t h0 = hash(w, 0x9e3779b97f4a7c15u), h1 = hash(w, 0xc2b2ae3d27d4eb4fu);
        uint32_t i;

        if (n_nodes * 2 >= n_slots)
                grow_slots();
        i = slot_of(h0);
        if (slots[i] != UINT32_MAX) {
                assert(nodes[slots[i]].hash[1] == h1);
                return slots[i];
        }
        if (n_nodes == max_nodes) {
                max_nodes = max_nodes ? max_nodes * 2 : 1 << 14;
                nodes = grow(nodes, max_nodes, sizeof *nodes);
        }
        slots[i] = n_nodes;
        nodes[n_nodes] = (Node){{h0, h1}, parent, move, how->is_end(w), w->bad};
        push_todo(w);
        return n_nodes++;
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
                if (nodes[i].end)
                        open[n_open++] = i;
        while (n_open > 0) {
                uint32_t i = open[--n_open];

                for (uint32_t k = first[i]; k < first[i + 1]; k++)
                        if (!nodes[back[k]].end) {
                                nodes[back[k]].end = 1;
                                open[n_open++] = back[k];
                        }
        }
        for (uint32_t i = 0; i < n_nodes && stuck == UINT32_MAX; i++)
                if (!nodes[i].end)
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

static void print_trace(uint32_t node)
{
        uint32_t path[4096], n = 0;
        World w;

        for (uint32_t i = node; i != 0 && n < ARRAY_SIZE(path); i = nodes[i].parent)
                path[n++] = i;
        world_init(&w);
        for (uint32_t k = n; k-- > 0;) {
                Move m = nodes[path[k]].move;

                move_on(&w, m);
                print_move(&w, n - k, m);
        }
}

static void expand(const Search *how, uint32_t at)
{
        World here = todo[todo_first++];
        Move moves[MOVES_MAX];
        int n = how->list(&here, moves);

        for (int i = 0; i < n; i++) {
                World w = here;

                move_on(&w, moves[i]);
                add_edge(at, find_or_add(how, &w, at, moves[i]), moves[i]);
        }
}

int search(const Search *how, const char *about)
{
        World first;
        int bad = FINE;
        uint32_t at;

        n_nodes = n_todo = todo_first = 0;
        n_edges = 0;
        if (slots)
                memset(slots, 0xff, n_slots * sizeof *slots);
        world_init(&first);
        find_or_add(how, &first, 0, (Move){});
        for (at = 0; at < n_nodes && nodes[at].bad == FINE; at++)
                expand(how, at);
        if (at < n_nodes) {
                bad = nodes[at].bad;
        } else if ((at = find_stuck()) != UINT32_MAX) {
                bad = NO_END;
        } else if ((at = find_circle()) != UINT32_MAX) {
                bad = ROUND;
        }
        if (about && bad != FINE) {
                printf("violation: %s\n", bad_names[bad]);
                print_trace(at);
        }
        if (about)
                printf("%s%u states, %zu steps, %d deaths, %d cuts, %d faults, %d operators: %s\n", about,
                       n_nodes, n_edges, max_crashes, max_cuts, max_faults, max_resolves,
                       bad == FINE ? "no violation" : "violation");
        return bad;
}
