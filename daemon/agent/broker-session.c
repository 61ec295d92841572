/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker-session.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "common/log.h"

#define REGION_ROOM 4096 /* bytes; one capability has 32 */

/* A file that maps share: a VMM gives the same one with each of a thousand maps, and so many descriptors are not to be
 * had. */
typedef struct File File;
struct File {
        File *next;
        int fd;
        dev_t dev;
        ino_t ino;
        int access;
        uint32_t n_users;
};

typedef struct Wish {
        bool wanted;  /* by the VMM */
        bool there;   /* at the server */
        bool refused; /* by the server, for good */
} Wish;

typedef struct Map {
        BrokerMap map;
        File *file; /* NULL: by message, or not wanted any more */
        Wish wish;
} Map;

typedef struct Vector {
        uint32_t index, action, vector;
        int fd; /* -1: not wanted any more */
        Wish wish;
} Vector;

/* The file of a region that the VMM was given. */
typedef struct Region {
        dev_t dev;
        ino_t ino;
        Wish wish; /* there: the server is known to have this one */
} Region;

struct Session {
        Map *maps; /* in order of address, then size */
        uint32_t n_maps, room_maps;
        uint32_t going, coming; /* no map before these must go, or come: there may be many */
        Vector *vectors;        /* in order of index, action, vector */
        uint32_t n_vectors, room_vectors;
        Region regions[SESSION_REGIONS_MAX];
        File *files;
        BrokerMap *shown; /* what session_maps() gave */
};

static const Wish agreed = {.wanted = true, .there = true};

/* ---- files --------------------------------------------------------------------------------------------------- */

/* Takes over `fd` when it succeeds. Only of a regular file (memfd, hugetlbfs, ...) does the inode say that two are the
 * same. */
static int share_file(Session *session, int fd, File **ret)
{
        struct stat st;
        int access = fcntl(fd, F_GETFL) & O_ACCMODE;
        File *file;

        if (fstat(fd, &st) < 0)
                return -errno;
        for (file = S_ISREG(st.st_mode) ? session->files : NULL; file; file = file->next)
                if (file->dev == st.st_dev && file->ino == st.st_ino && file->access == access) {
                        (void) close(fd);
                        file->n_users++;
                        *ret = file;
                        return 0;
                }
        file = malloc(sizeof *file);
        if (!file)
                return -ENOMEM;
        *file = (File){session->files, fd, st.st_dev, st.st_ino, access, 1};
        session->files = file;
        *ret = file;
        return 0;
}

static void drop_file(Session *session, File *file)
{
        if (!file || --file->n_users > 0)
                return;
        for (File **place = &session->files; *place; place = &(*place)->next)
                if (*place == file) {
                        *place = file->next;
                        break;
                }
        (void) close(file->fd);
        free(file);
}

/* ---- maps ---------------------------------------------------------------------------------------------------- */

static uint32_t map_place(const Session *session, uint64_t address, uint64_t size)
{
        uint32_t low = 0, high = session->n_maps;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;
                const BrokerMap *map = &session->maps[middle].map;

                if (map->address < address || (map->address == address && map->size < size))
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static Map *find_map(const Session *session, uint64_t address, uint64_t size)
{
        uint32_t i = map_place(session, address, size);
        Map *map = i < session->n_maps ? &session->maps[i] : NULL;

        return map && map->map.address == address && map->map.size == size ? map : NULL;
}

static void remove_map(Session *session, Map *map)
{
        drop_file(session, map->file);
        memmove(map, map + 1, (size_t) (session->maps + --session->n_maps - map) * sizeof *map);
}

static int make_room(void **array, uint32_t n, uint32_t *room, size_t size)
{
        uint32_t more = *room ? 2 * *room : 16;
        void *larger;

        if (n < *room)
                return 0;
        larger = realloc(*array, more * size);
        if (!larger)
                return -ENOMEM;
        *array = larger;
        *room = more;
        return 0;
}

static int add_map(Session *session, const VfioUserDmaMap *wire, Map **ret)
{
        uint32_t i = map_place(session, wire->address, wire->size);
        Map *map = find_map(session, wire->address, wire->size);
        int r;

        if (!map) {
                r = make_room((void **) &session->maps, session->n_maps, &session->room_maps,
                              sizeof *session->maps);
                if (r < 0)
                        return r;
                map = &session->maps[i];
                memmove(map + 1, map, (session->n_maps++ - i) * sizeof *map);
                *map = (Map){.map = {.address = wire->address, .size = wire->size, .fd = -1}};
        }
        *ret = map;
        return 0;
}

static int map_accepted(Session *session, VfioUserMessage *command, bool wanted)
{
        const VfioUserDmaMap *wire = (const VfioUserDmaMap *) (const void *) command->payload;
        File *file = NULL;
        Map *map;
        int r = 0;

        if (wanted && command->n_fds > 0)
                r = share_file(session, command->fds[0], &file);
        if (r < 0)
                return r;
        if (file)
                command->n_fds = 0;
        r = add_map(session, wire, &map);
        if (r < 0) {
                drop_file(session, file);
                return r;
        }
        map->wish.there = true;
        if (!wanted)
                return 0;
        drop_file(session, map->file);
        *map = (Map){.map = {wire->address, wire->size, wire->offset, wire->flags, file ? file->fd : -1},
                     .file = file,
                     .wish = agreed};
        return 0;
}

bool session_unmaps(const VfioUserMessage *command, const BrokerMap *map)
{
        const VfioUserDmaUnmap *wire = (const VfioUserDmaUnmap *) (const void *) command->payload;
        uint64_t from = map->address - wire->address;

        return wire->flags & VFIO_USER_UNMAP_ALL ||
               (map->address >= wire->address && from <= wire->size && map->size <= wire->size - from);
}

static void unmap_accepted(Session *session, const VfioUserMessage *command)
{
        for (uint32_t i = session->n_maps; i-- > 0;)
                if (session_unmaps(command, &session->maps[i].map))
                        remove_map(session, &session->maps[i]);
}

uint32_t session_maps(Session *session, const BrokerMap **ret)
{
        uint32_t n = 0;

        free(session->shown);
        session->shown = calloc(session->n_maps + 1, sizeof *session->shown);
        if (!session->shown)
                out_of_memory(); /* none at all would be a lie */
        *ret = session->shown;
        for (uint32_t i = 0; i < session->n_maps; i++)
                if (session->maps[i].wish.wanted)
                        session->shown[n++] = session->maps[i].map;
        return n;
}

/* ---- interrupts ---------------------------------------------------------------------------------------------- */

static bool vector_is_before(const Vector *v, uint32_t index, uint32_t action, uint32_t vector)
{
        if (v->index != index)
                return v->index < index;
        return v->action != action ? v->action < action : v->vector < vector;
}

static uint32_t vector_place(const Session *session, uint32_t index, uint32_t action, uint32_t vector)
{
        uint32_t low = 0, high = session->n_vectors;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;

                if (vector_is_before(&session->vectors[middle], index, action, vector))
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static void remove_vector(Session *session, uint32_t i)
{
        Vector *v = &session->vectors[i];

        if (v->fd >= 0)
                (void) close(v->fd);
        memmove(v, v + 1, (--session->n_vectors - i) * sizeof *v);
}

/* The vector of that number, made when there is none. */
static int add_vector(Session *session, uint32_t index, uint32_t action, uint32_t vector, Vector **ret)
{
        uint32_t i = vector_place(session, index, action, vector);
        Vector *v;
        int r = make_room((void **) &session->vectors, session->n_vectors, &session->room_vectors,
                          sizeof *session->vectors);

        if (r < 0)
                return r;
        v = &session->vectors[i];
        if (i == session->n_vectors || v->index != index || v->action != action || v->vector != vector) {
                memmove(v + 1, v, (session->n_vectors++ - i) * sizeof *v);
                *v = (Vector){.index = index, .action = action, .vector = vector, .fd = -1};
        }
        *ret = v;
        return 0;
}

static bool disables_index(const VfioUserSetIrqs *wire)
{
        return wire->flags == (VFIO_USER_IRQ_DATA_NONE | VFIO_USER_IRQ_ACTION_TRIGGER) && wire->count == 0;
}

static int irqs_accepted(Session *session, VfioUserMessage *command, bool wanted)
{
        const VfioUserSetIrqs *wire = (const VfioUserSetIrqs *) (const void *) command->payload;
        uint32_t action = wire->flags & VFIO_USER_IRQ_ACTIONS;

        if (disables_index(wire) || (wire->flags & VFIO_USER_IRQ_DATA_EVENTFD && command->n_fds == 0))
                for (uint32_t i = session->n_vectors; i-- > 0;) {
                        const Vector *v = &session->vectors[i];

                        if (v->index == wire->index &&
                            (disables_index(wire) || (v->action == action && v->vector >= wire->start &&
                                                      v->vector - wire->start < wire->count)))
                                remove_vector(session, i);
                }
        if (!(wire->flags & VFIO_USER_IRQ_DATA_EVENTFD))
                return 0;
        for (uint32_t i = 0; i < command->n_fds; i++) {
                Vector *v;
                int r = add_vector(session, wire->index, action, wire->start + i, &v);

                if (r < 0)
                        return r;
                v->wish.there = true;
                if (!wanted)
                        continue;
                if (v->fd >= 0)
                        (void) close(v->fd);
                v->fd = command->fds[i];
                v->wish = agreed;
                command->fds[i] = -1;
        }
        if (wanted)
                command->n_fds = 0; /* all are taken */
        return 0;
}

/* ---- regions ------------------------------------------------------------------------------------------------- */

static Region *find_region(Session *session, const VfioUserMessage *command)
{
        const VfioUserRegionInfo *wire = (const VfioUserRegionInfo *) (const void *) command->payload;

        return wire->index < SESSION_REGIONS_MAX ? &session->regions[wire->index] : NULL;
}

void session_gives_region(Session *session, const VfioUserMessage *command, const VfioUserMessage *reply)
{
        Region *region = find_region(session, command);
        struct stat st;

        /* One file stands for all of the region (libvfio-user); what has more of them is not looked at. */
        if (region && reply->n_fds == 1 && fstat(reply->fds[0], &st) == 0)
                *region = (Region){st.st_dev, st.st_ino, agreed};
}

uint32_t session_regions(const Session *session, AgentFile *ret, uint32_t max)
{
        uint32_t n = 0;

        for (uint32_t i = 0; i < SESSION_REGIONS_MAX && n < max; i++)
                if (session->regions[i].wish.wanted)
                        ret[n++] = (AgentFile){session->regions[i].dev, session->regions[i].ino};
        return n;
}

/* Whether the server still has that file; without one it is another. */
static int region_seen(Session *session, const VfioUserMessage *command, const VfioUserMessage *reply)
{
        Region *region = find_region(session, command);
        struct stat st;

        region->wish.there = true;
        return reply->n_fds == 1 && fstat(reply->fds[0], &st) == 0 && st.st_dev == region->dev &&
                               st.st_ino == region->ino
                       ? 0
                       : -ESTALE;
}

/* ---- what the VMM did ---------------------------------------------------------------------------------------- */

int session_has_room(const Session *session, const VfioUserMessage *command)
{
        const VfioUserSetIrqs *irqs = (const VfioUserSetIrqs *) (const void *) command->payload;

        if (command->header.command == VFIO_USER_DMA_MAP && session->n_maps >= SESSION_MAPS_MAX)
                return -ENOSPC;
        if (command->header.command == VFIO_USER_DEVICE_SET_IRQS &&
            (irqs->index >= SESSION_INDEXES_MAX || irqs->start > SESSION_VECTORS_MAX ||
             irqs->count > SESSION_VECTORS_MAX - irqs->start))
                return -ENOSPC;
        return 0;
}

int session_accepted(Session *session, VfioUserMessage *command, bool wanted)
{
        session->going = session->coming = 0;
        switch (command->header.command) {
        case VFIO_USER_DMA_MAP: return map_accepted(session, command, wanted);
        case VFIO_USER_DMA_UNMAP: unmap_accepted(session, command); return 0;
        case VFIO_USER_DEVICE_SET_IRQS: return irqs_accepted(session, command, wanted);
        default: return 0;
        }
}

void session_unwant(Session *session)
{
        session->going = session->coming = 0;
        memset(session->regions, 0, sizeof session->regions);
        for (uint32_t i = session->n_maps; i-- > 0;) {
                Map *map = &session->maps[i];

                if (!map->wish.there) {
                        remove_map(session, map);
                        continue;
                }
                map->wish = (Wish){.there = true};
                drop_file(session, TAKE_PTR(map->file));
                map->map.fd = -1;
        }
        for (uint32_t i = session->n_vectors; i-- > 0;) {
                Vector *v = &session->vectors[i];

                if (!v->wish.there) {
                        remove_vector(session, i);
                        continue;
                }
                v->wish = (Wish){.there = true};
                if (v->fd >= 0)
                        (void) close(TAKE_FD(v->fd));
        }
}

void session_lose(Session *session)
{
        session->going = session->coming = 0;
        for (uint32_t i = 0; i < SESSION_REGIONS_MAX; i++)
                session->regions[i].wish = (Wish){.wanted = session->regions[i].wish.wanted};
        for (uint32_t i = session->n_maps; i-- > 0;)
                if (session->maps[i].wish.wanted)
                        session->maps[i].wish = (Wish){.wanted = true};
                else
                        remove_map(session, &session->maps[i]);
        for (uint32_t i = session->n_vectors; i-- > 0;)
                if (session->vectors[i].wish.wanted)
                        session->vectors[i].wish = (Wish){.wanted = true};
                else
                        remove_vector(session, i);
}

/* ---- what the server must be told ---------------------------------------------------------------------------- */

static bool must_go(const Wish *wish)
{
        return wish->there && !wish->wanted;
}

static bool must_come(const Wish *wish)
{
        return wish->wanted && !wish->there && !wish->refused;
}

static VfioUserMessage *new_command(VfioUserCommand command, const void *payload, size_t size)
{
        VfioUserMessage *message = vfio_user_message_new(size);

        if (!message)
                return NULL;
        message->header.command = (uint16_t) command;
        memcpy(message->payload, payload, size);
        return message;
}

static int add_file(VfioUserMessage *message, int fd)
{
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

        if (copy < 0)
                return -errno;
        message->fds[message->n_fds++] = copy;
        return 0;
}

static int disable_command(const Vector *v, VfioUserMessage **ret)
{
        VfioUserSetIrqs wire = {.argsz = sizeof wire,
                                .flags = VFIO_USER_IRQ_DATA_NONE | VFIO_USER_IRQ_ACTION_TRIGGER,
                                .index = v->index};

        *ret = new_command(VFIO_USER_DEVICE_SET_IRQS, &wire, sizeof wire);
        return *ret ? 0 : -ENOMEM;
}

static int unmap_command(const Map *map, VfioUserMessage **ret)
{
        VfioUserDmaUnmap wire = {.argsz = sizeof wire, .address = map->map.address, .size = map->map.size};

        *ret = new_command(VFIO_USER_DMA_UNMAP, &wire, sizeof wire);
        return *ret ? 0 : -ENOMEM;
}

static int map_command(const Map *map, VfioUserMessage **ret)
{
        VfioUserDmaMap wire = {.argsz = sizeof wire,
                               .flags = map->map.flags,
                               .offset = map->map.offset,
                               .address = map->map.address,
                               .size = map->map.size};
        _cleanup_(vfio_user_message_freep) VfioUserMessage *message =
                new_command(VFIO_USER_DMA_MAP, &wire, sizeof wire);
        int r = message ? 0 : -ENOMEM;

        if (r == 0 && map->map.fd >= 0)
                r = add_file(message, map->map.fd);
        if (r == 0)
                *ret = TAKE_PTR(message);
        return r;
}

/* As many of the vectors that follow each other as the server takes at once. */
static int vectors_command(const Vector *first, const Vector *end, uint32_t files_max, VfioUserMessage **ret)
{
        VfioUserSetIrqs wire = {.argsz = sizeof wire,
                                .flags = VFIO_USER_IRQ_DATA_EVENTFD | first->action,
                                .index = first->index,
                                .start = first->vector};
        _cleanup_(vfio_user_message_freep) VfioUserMessage *message =
                new_command(VFIO_USER_DEVICE_SET_IRQS, &wire, sizeof wire);

        if (!message)
                return -ENOMEM;
        for (const Vector *v = first;
             v < end && must_come(&v->wish) && v->index == first->index && v->action == first->action &&
             v->vector - first->vector == wire.count && wire.count < MIN(files_max, VFIO_USER_FDS_MAX);
             v++, wire.count++) {
                int r = add_file(message, v->fd);

                if (r < 0)
                        return r;
        }
        memcpy(message->payload, &wire, sizeof wire);
        *ret = TAKE_PTR(message);
        return 0;
}

/* With room for the capabilities, or the file does not come. */
static int region_command(uint32_t index, VfioUserMessage **ret)
{
        VfioUserRegionInfo wire = {.argsz = REGION_ROOM, .index = index};

        *ret = new_command(VFIO_USER_DEVICE_GET_REGION_INFO, &wire, sizeof wire);
        return *ret ? 0 : -ENOMEM;
}

/* What must go goes first: what comes may be in its place. */
int session_next(Session *session, uint32_t files_max, VfioUserMessage **ret)
{
        *ret = NULL;
        for (uint32_t i = 0; i < SESSION_REGIONS_MAX; i++)
                if (must_come(&session->regions[i].wish))
                        return region_command(i, ret);
        for (uint32_t i = 0; i < session->n_vectors; i++)
                if (must_go(&session->vectors[i].wish))
                        return disable_command(&session->vectors[i], ret);
        for (; session->going < session->n_maps; session->going++)
                if (must_go(&session->maps[session->going].wish))
                        return unmap_command(&session->maps[session->going], ret);
        for (; session->coming < session->n_maps; session->coming++)
                if (must_come(&session->maps[session->coming].wish))
                        return map_command(&session->maps[session->coming], ret);
        for (uint32_t i = 0; i < session->n_vectors; i++)
                if (must_come(&session->vectors[i].wish))
                        return vectors_command(&session->vectors[i], session->vectors + session->n_vectors,
                                               MAX(files_max, 1u), ret);
        return 0;
}

/* The index was disabled: what is still wanted of it must come again. */
static void index_disabled(Session *session, uint32_t index, bool accepted, bool give_up)
{
        for (uint32_t i = session->n_vectors; i-- > 0 && (accepted || give_up);) {
                Vector *v = &session->vectors[i];

                if (v->index != index)
                        continue;
                if (!v->wish.wanted)
                        remove_vector(session, i);
                else if (accepted)
                        v->wish.there = false;
        }
}

static void came(Wish *wish, bool accepted, bool give_up)
{
        wish->there = accepted;
        wish->refused = !accepted && give_up;
}

int session_next_done(Session *session, const VfioUserMessage *command, const VfioUserMessage *reply,
                      bool give_up)
{
        const VfioUserDmaMap *map = (const VfioUserDmaMap *) (const void *) command->payload;
        const VfioUserDmaUnmap *unmap = (const VfioUserDmaUnmap *) (const void *) command->payload;
        const VfioUserSetIrqs *irqs = (const VfioUserSetIrqs *) (const void *) command->payload;
        bool accepted = reply != NULL;
        Map *found;

        switch (command->header.command) {
        case VFIO_USER_DEVICE_GET_REGION_INFO:
                if (accepted)
                        return region_seen(session, command, reply);
                find_region(session, command)->wish.refused = give_up;
                break;
        case VFIO_USER_DMA_MAP:
                found = find_map(session, map->address, map->size);
                if (found)
                        came(&found->wish, accepted, give_up);
                break;
        case VFIO_USER_DMA_UNMAP:
                found = find_map(session, unmap->address, unmap->size);
                if (!found || (!accepted && !give_up))
                        break;
                found->wish.there = false;
                if (!found->wish.wanted)
                        remove_map(session, found);
                break;
        case VFIO_USER_DEVICE_SET_IRQS:
                if (disables_index(irqs)) {
                        index_disabled(session, irqs->index, accepted, give_up);
                        break;
                }
                for (uint32_t i = 0; i < session->n_vectors; i++) {
                        Vector *v = &session->vectors[i];

                        if (v->index == irqs->index && v->action == (irqs->flags & VFIO_USER_IRQ_ACTIONS) &&
                            v->vector >= irqs->start && v->vector - irqs->start < irqs->count)
                                came(&v->wish, accepted, give_up);
                }
                break;
        default: break;
        }
        return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

int session_new(Session **ret)
{
        *ret = calloc(1, sizeof **ret);
        return *ret ? 0 : -ENOMEM;
}

Session *session_free(Session *session)
{
        if (!session)
                return NULL;
        while (session->n_maps > 0)
                remove_map(session, &session->maps[session->n_maps - 1]);
        while (session->n_vectors > 0)
                remove_vector(session, session->n_vectors - 1);
        free(session->maps);
        free(session->vectors);
        free(session->shown);
        free(session);
        return NULL;
}
