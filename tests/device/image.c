/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "image.h"

#include <assert.h>

#include "checksum.h"

#define IMAGE_MAGIC    UINT64_C(0x6563697665644d45) /* "EMdevice" */
#define IMAGE_VERSION  UINT32_C(1)
#define IMAGE_PRE_COPY UINT32_C(1) /* flag: pages can come more than once */
#define IMAGE_APPENDED UINT32_C(2) /* flag: there is an appendix */
#define IMAGE_APPENDIX (UINT64_C(1) << 63)
#define IMAGE_END      UINT64_MAX

typedef struct ImageHeader {
        uint64_t magic;
        uint32_t version;
        uint32_t flags;
        uint64_t size;
} ImageHeader;
static_assert(sizeof(ImageHeader) == 24, "image header");

typedef struct ImageRecord {
        uint64_t offset;
        uint32_t length;
        uint32_t sum;
} ImageRecord;
static_assert(sizeof(ImageRecord) == 16, "image record");

/* A piece is what is made or judged at once: the header, or a record and its data. */
typedef union ImagePiece {
        ImageHeader header;
        struct {
                ImageRecord record;
                uint8_t data[MEMORY_PAGE];
        };
        uint8_t bytes[sizeof(ImageRecord) + MEMORY_PAGE];
} ImagePiece;

/* The pages of the appendix come behind those of the memory. */
typedef struct Appendix {
        uint8_t *data;
        uint64_t size;
} Appendix;

static int appendix_init(Appendix *a, uint64_t size)
{
        a->size = size;
        a->data = calloc(size + 1, 1);
        return a->data ? 0 : -ENOMEM;
}

static uint64_t appendix_pages(const Appendix *a)
{
        return (a->size + MEMORY_PAGE - 1) / MEMORY_PAGE;
}

static uint64_t appendix_page_size(const Appendix *a, uint64_t page)
{
        return MIN(MEMORY_PAGE, a->size - page * MEMORY_PAGE);
}

void page_sums_done(PageSums *p)
{
        free(TAKE_PTR(p->sums));
}

void page_sums_move(PageSums *p, PageSums *from)
{
        page_sums_done(p);
        p->size = from->size;
        p->sums = TAKE_PTR(from->sums);
}

uint32_t page_sums_total(const PageSums *p)
{
        uint32_t total = 0;

        for (uint64_t at = 0; at < p->size; at += MEMORY_PAGE)
                total = checksum_join(total, p->sums[at / MEMORY_PAGE], MIN(MEMORY_PAGE, p->size - at));
        return total;
}

static int page_sums_init(PageSums *p, const Memory *memory)
{
        p->size = memory->size;
        p->sums = calloc(memory_pages(memory) + 1, sizeof *p->sums);
        return p->sums ? 0 : -ENOMEM;
}

/* ---- saving -------------------------------------------------------------------------------------------------- */

typedef enum SaverPass {
        SAVER_HEADER,
        SAVER_ALL,     /* every page once */
        SAVER_CHANGED, /* what has changed since it was read */
        SAVER_APPENDIX,
        SAVER_END, /* the end is being read */
        SAVER_OVER,
} SaverPass;

struct Saver {
        Memory *memory;
        Appendix appendix;
        PageSums sums;
        SaverPass pass;
        bool pre_copy, finishing, completed;
        uint64_t page;        /* the next one of this pass */
        uint32_t headers_sum; /* of all headers so far */
        size_t piece_at, piece_size;
        ImagePiece piece;
};

Saver *saver_new(Memory *memory, uint64_t appendix_size, bool pre_copy)
{
        _cleanup_(saver_freep) Saver *s = calloc(1, sizeof *s);

        if (!s)
                return NULL;
        s->memory = memory;
        if (page_sums_init(&s->sums, memory) < 0 || appendix_init(&s->appendix, appendix_size) < 0)
                return NULL;
        if (pre_copy && memory_watch(memory) < 0)
                return NULL;
        s->pre_copy = pre_copy;
        return TAKE_PTR(s);
}

Saver *saver_free(Saver *s)
{
        if (!s)
                return NULL;
        if (s->pre_copy)
                memory_unwatch(s->memory);
        page_sums_done(&s->sums);
        free(s->appendix.data);
        free(s);
        return NULL;
}

uint8_t *saver_finish(Saver *s)
{
        s->finishing = true;
        return s->appendix.data;
}

void saver_cut(Saver *s)
{
        s->pass = SAVER_OVER;
        s->piece_at = s->piece_size;
}

bool saver_completed(Saver *s, PageSums *ret_sums)
{
        if (!s->completed)
                return false;
        s->completed = false;
        page_sums_move(ret_sums, &s->sums);
        return true;
}

/* The functions below make a piece at `to`, where it may stand at any address, and return its size. */

static size_t put_header(Saver *s, uint8_t *to)
{
        ImageHeader header = {.magic = IMAGE_MAGIC,
                              .version = IMAGE_VERSION,
                              .flags = (s->pre_copy ? IMAGE_PRE_COPY : 0) |
                                       (s->appendix.size > 0 ? IMAGE_APPENDED : 0),
                              .size = s->memory->size};

        memcpy(to, &header, sizeof header);
        s->headers_sum = checksum_add(s->headers_sum, to, sizeof header);
        return sizeof header;
}

static size_t put_record(Saver *s, const ImageRecord *record, uint8_t *to)
{
        memcpy(to, record, sizeof *record);
        s->headers_sum = checksum_add(s->headers_sum, to, sizeof *record);
        return sizeof *record;
}

/* The page is copied here in one go: later changes find it clean and make it dirty. */
static size_t put_page(Saver *s, uint64_t page, uint8_t *to)
{
        ImageRecord record = {.offset = page * MEMORY_PAGE,
                              .length = (uint32_t) memory_page_size(s->memory, page)};

        memcpy(to + sizeof record, s->memory->data + record.offset, record.length);
        if (s->pre_copy)
                memory_clean(s->memory, page);
        record.sum = s->sums.sums[page] = checksum_add(0, to + sizeof record, record.length);
        return put_record(s, &record, to) + record.length;
}

static size_t put_appendix(Saver *s, uint64_t page, uint8_t *to)
{
        ImageRecord record = {.offset = IMAGE_APPENDIX + page * MEMORY_PAGE,
                              .length = (uint32_t) appendix_page_size(&s->appendix, page)};

        memcpy(to + sizeof record, s->appendix.data + page * MEMORY_PAGE, record.length);
        record.sum = checksum_add(0, to + sizeof record, record.length);
        return put_record(s, &record, to) + record.length;
}

static size_t put_end(Saver *s, uint8_t *to)
{
        return put_record(s, &(ImageRecord){.offset = IMAGE_END, .sum = s->headers_sum}, to);
}

/* Round and round: what changes fastest must not keep the rest from its turn. */
static uint64_t next_changed(const Saver *s)
{
        uint64_t page = memory_next_dirty(s->memory, s->page);

        return page < memory_pages(s->memory) ? page : memory_next_dirty(s->memory, 0);
}

/* Makes the next piece at `to`; 0: there is none now. */
static size_t next_piece(Saver *s, uint8_t *to)
{
        switch (s->pass) {
        case SAVER_HEADER: s->pass = SAVER_ALL; return put_header(s, to);
        case SAVER_ALL:
                if (s->page < memory_pages(s->memory))
                        return put_page(s, s->page++, to);
                s->pass = SAVER_CHANGED;
                s->page = 0;
                return next_piece(s, to);
        case SAVER_CHANGED:
                s->page = s->pre_copy ? next_changed(s) : memory_pages(s->memory);
                if (s->page < memory_pages(s->memory))
                        return put_page(s, s->page++, to);
                if (!s->finishing)
                        return 0;
                s->pass = SAVER_APPENDIX;
                s->page = 0;
                return next_piece(s, to);
        case SAVER_APPENDIX:
                if (s->page < appendix_pages(&s->appendix))
                        return put_appendix(s, s->page++, to);
                s->pass = SAVER_END;
                return put_end(s, to);
        case SAVER_END:
        case SAVER_OVER: return 0;
        }
        return 0;
}

uint64_t saver_read(Saver *s, uint8_t *buffer, uint64_t n)
{
        uint64_t done = 0;

        while (done < n) {
                uint64_t take = MIN(n - done, s->piece_size - s->piece_at);
                bool fits = n - done >= sizeof(ImagePiece);

                memcpy(buffer + done, s->piece.bytes + s->piece_at, take);
                s->piece_at += take;
                done += take;
                if (take > 0)
                        continue;
                /* What fits is made where it goes: one copy less of everything. */
                s->piece_at = s->piece_size = next_piece(s, fits ? buffer + done : s->piece.bytes);
                if (s->piece_size == 0)
                        break;
                if (fits)
                        done += s->piece_size;
                else
                        s->piece_at = 0;
        }
        if (s->pass == SAVER_END && s->piece_at == s->piece_size) {
                s->completed = true;
                s->pass = SAVER_OVER;
        }
        return done;
}

/* ---- loading ------------------------------------------------------------------------------------------------- */

typedef enum LoaderStep {
        LOADER_HEADER,
        LOADER_RECORD,
        LOADER_DATA,
        LOADER_END,
        LOADER_BROKEN, /* there is no way back to a good stream */
} LoaderStep;

struct Loader {
        Memory *memory;
        Appendix appendix;
        PageSums sums;
        uint8_t *seen;         /* one byte a page */
        uint64_t n_seen, page; /* of the record whose data comes */
        LoaderStep step;
        bool fresh;
        uint32_t headers_sum;
        size_t piece_have, piece_want;
        ImagePiece piece;
};

static void loader_expect(Loader *l, LoaderStep step, size_t size)
{
        l->step = step;
        l->piece_have = 0;
        l->piece_want = size;
}

Loader *loader_new(Memory *memory, uint64_t appendix_size)
{
        _cleanup_(loader_freep) Loader *l = calloc(1, sizeof *l);

        if (!l || page_sums_init(&l->sums, memory) < 0 || appendix_init(&l->appendix, appendix_size) < 0)
                return NULL;
        l->seen = calloc(memory_pages(memory) + appendix_pages(&l->appendix) + 1, 1);
        if (!l->seen)
                return NULL;
        l->memory = memory;
        l->fresh = true;
        loader_expect(l, LOADER_HEADER, sizeof(ImageHeader));
        return TAKE_PTR(l);
}

Loader *loader_free(Loader *l)
{
        if (!l)
                return NULL;
        page_sums_done(&l->sums);
        free(l->appendix.data);
        free(l->seen);
        free(l);
        return NULL;
}

bool loader_is_fresh(const Loader *l)
{
        return l->fresh;
}

static void take_header(Loader *l)
{
        const ImageHeader *h = &l->piece.header;

        if (h->magic != IMAGE_MAGIC || h->version != IMAGE_VERSION || h->size != l->memory->size ||
            (h->flags & ~IMAGE_PRE_COPY) != (l->appendix.size > 0 ? IMAGE_APPENDED : 0)) {
                l->step = LOADER_BROKEN;
                return;
        }
        l->headers_sum = checksum_add(0, h, sizeof *h);
        loader_expect(l, LOADER_RECORD, sizeof(ImageRecord));
}

/* Which page the record is of: of the memory, or behind it of the appendix. */
static bool find_page(const Loader *l, const ImageRecord *r, uint64_t *ret_page)
{
        bool appended = r->offset >= IMAGE_APPENDIX;
        uint64_t page = (r->offset & ~IMAGE_APPENDIX) / MEMORY_PAGE;
        uint64_t pages = appended ? appendix_pages(&l->appendix) : memory_pages(l->memory);

        if (r->offset % MEMORY_PAGE != 0 || page >= pages ||
            r->length !=
                    (appended ? appendix_page_size(&l->appendix, page) : memory_page_size(l->memory, page)))
                return false;
        *ret_page = page + (appended ? memory_pages(l->memory) : 0);
        return true;
}

static void take_record(Loader *l)
{
        const ImageRecord *r = &l->piece.record;

        if (r->offset == IMAGE_END && r->length == 0 && r->sum == l->headers_sum &&
            l->n_seen == memory_pages(l->memory) + appendix_pages(&l->appendix)) {
                loader_expect(l, LOADER_END, 0);
                return;
        }
        if (!find_page(l, r, &l->page)) {
                l->step = LOADER_BROKEN;
                return;
        }
        l->headers_sum = checksum_add(l->headers_sum, r, sizeof *r);
        l->step = LOADER_DATA; /* its data comes behind it, into the same piece */
        l->piece_want += r->length;
}

static void take_data(Loader *l, const uint8_t *data)
{
        const ImageRecord *r = &l->piece.record;

        if (checksum_add(0, data, r->length) != r->sum) {
                l->step = LOADER_BROKEN;
                return;
        }
        if (l->page < memory_pages(l->memory)) {
                memory_write(l->memory, r->offset, data, r->length);
                l->sums.sums[l->page] = r->sum;
        } else {
                memcpy(l->appendix.data + (r->offset - IMAGE_APPENDIX), data, r->length);
        }
        l->n_seen += l->seen[l->page] == 0;
        l->seen[l->page] = 1;
        loader_expect(l, LOADER_RECORD, sizeof(ImageRecord));
}

static void take_piece(Loader *l)
{
        switch (l->step) {
        case LOADER_HEADER: take_header(l); break;
        case LOADER_RECORD: take_record(l); break;
        case LOADER_DATA: take_data(l, l->piece.data); break;
        case LOADER_END:
        case LOADER_BROKEN: break;
        }
}

void loader_write(Loader *l, const uint8_t *data, uint64_t n)
{
        if (n > 0)
                l->fresh = false;
        while (n > 0 && l->step != LOADER_BROKEN) {
                uint64_t take = MIN(n, l->piece_want - l->piece_have);

                if (l->step == LOADER_END) {
                        l->step = LOADER_BROKEN;
                        break;
                }
                if (l->step == LOADER_DATA && take == l->piece.record.length) {
                        take_data(l, data); /* all of it is here: no need to put it together */
                        data += take;
                        n -= take;
                        continue;
                }
                memcpy(l->piece.bytes + l->piece_have, data, take);
                l->piece_have += take;
                data += take;
                n -= take;
                if (l->piece_have == l->piece_want)
                        take_piece(l);
        }
}

int loader_check(const Loader *l, const uint8_t **ret_appendix)
{
        if (l->step != LOADER_END)
                return -EINVAL;
        *ret_appendix = l->appendix.data;
        return 0;
}

void loader_finish(Loader *l, PageSums *ret_sums)
{
        page_sums_move(ret_sums, &l->sums);
}
