/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The other half of mtty-control.h, which says what all of this does. Included at the end of the driver.
 */

static const char *const mtty_names[MTTY_STATES] = {
        [VFIO_DEVICE_STATE_ERROR] = "ERROR",       [VFIO_DEVICE_STATE_STOP] = "STOP",
        [VFIO_DEVICE_STATE_RUNNING] = "RUNNING",   [VFIO_DEVICE_STATE_STOP_COPY] = "STOP_COPY",
        [VFIO_DEVICE_STATE_RESUMING] = "RESUMING", [VFIO_DEVICE_STATE_RUNNING_P2P] = "RUNNING_P2P",
        [VFIO_DEVICE_STATE_PRE_COPY] = "PRE_COPY", [VFIO_DEVICE_STATE_PRE_COPY_P2P] = "PRE_COPY_P2P",
};

/* What every block holds behind its frame. */
static u8 *mtty_pattern;

static struct mdev_state *to_mdev_state(struct vfio_device *vdev)
{
        return container_of(vdev, struct mdev_state, vdev);
}

/* Uses one of its times up. Returns 0 or the negative errno. */
static int mtty_fails(struct mtty_failure *failure)
{
        if (failure->times == 0)
                return 0;
        if (failure->times > 0)
                failure->times--;
        return -failure->errno;
}

/* ---- data with frames: what is read ---------------------------------------------------------------------------- */

/* What has become dirty since the last look, which is only in PRE_COPY. */
static void mtty_catch_up(struct mtty_migration_file *migf, enum vfio_device_mig_state state)
{
        struct mtty_control *c = &migf->mdev_state->control;
        struct mtty_stream *s = &migf->stream;
        ktime_t now = ktime_get();
        u64 sum;

        if (state == VFIO_DEVICE_STATE_PRE_COPY) {
                /* At most an hour, so that it stays in 64 bits. */
                sum = c->dirty_rate * min_t(u64, ktime_us_delta(now, s->looked), 3600000000ULL) + s->fraction;
                s->dirty = min_t(u64, s->dirty + sum / 1000000, (u64) c->blocks * MTTY_PAYLOAD);
                s->fraction = sum % 1000000;
        }
        s->looked = now;
}

static void mtty_begin_frame(struct mtty_migration_file *migf, enum mtty_frame_type type)
{
        struct mtty_stream *s = &migf->stream;
        u32 blocks = migf->mdev_state->control.blocks;

        s->frame = (struct mtty_frame){.magic = MTTY_FRAME_MAGIC,
                                       .type = type,
                                       .blocks = blocks,
                                       .index = s->next,
                                       .number = s->number++};
        if (type == MTTY_FRAME_END) {
                s->ended = true;
                return;
        }
        if (s->image) {
                s->image--;
                s->frame.length = MTTY_PAYLOAD;
        } else {
                s->frame.length = min_t(u64, s->dirty, MTTY_PAYLOAD);
                s->dirty -= s->frame.length;
        }
        s->next = (s->next + 1) % blocks;
}

/* Where the next bytes are and how many lie there; 0: none for now, or none any more. */
static size_t mtty_next_bytes(struct mtty_migration_file *migf, loff_t pos, const u8 **from)
{
        struct mtty_stream *s = &migf->stream;
        size_t header = offsetof(struct mtty_data, ports);
        bool stopped = migf->filled_size > header; /* the registers are there */
        size_t length;

        if (pos < header) {
                *from = (u8 *) &migf->data + pos;
                return header - pos;
        }
        if (s->at == 0 && !s->ended) {
                if (s->image || s->dirty)
                        mtty_begin_frame(migf, MTTY_FRAME_BLOCK);
                else if (stopped)
                        mtty_begin_frame(migf, MTTY_FRAME_END);
                else
                        return 0;
        }
        length = sizeof(s->frame) + s->frame.length;
        if (s->at < sizeof(s->frame)) {
                *from = (u8 *) &s->frame + s->at;
                return sizeof(s->frame) - s->at;
        }
        if (s->at < length) {
                *from = mtty_pattern + s->at;
                return length - s->at;
        }
        *from = (u8 *) migf->data.ports + s->tail;
        return migf->filled_size - header - s->tail;
}

static void mtty_advance(struct mtty_stream *s, size_t n)
{
        if (s->ended && s->at == sizeof(s->frame)) {
                s->tail += n;
                return;
        }
        s->at += n;
        if (!s->ended && s->at == sizeof(s->frame) + s->frame.length)
                s->at = 0;
}

static ssize_t mtty_read_frames(struct mtty_migration_file *migf, char __user *buf, size_t len, loff_t *pos)
{
        size_t done = 0;

        mtty_catch_up(migf, migf->mdev_state->state);
        while (done < len) {
                const u8 *from;
                size_t n = mtty_next_bytes(migf, *pos, &from);

                n = min_t(size_t, n, len - done);
                if (!n)
                        break;
                if (copy_to_user(buf + done, from, n))
                        return done ? done : -EFAULT;
                if (*pos >= offsetof(struct mtty_data, ports))
                        mtty_advance(&migf->stream, n);
                *pos += n;
                done += n;
        }
        return done;
}

/* Bytes of the stream that dirty bytes are. */
static u64 mtty_framed(u64 dirty)
{
        return dirty + DIV_ROUND_UP_ULL(dirty, MTTY_PAYLOAD) * sizeof(struct mtty_frame);
}

static u64 mtty_to_read(struct mtty_stream *s)
{
        u64 rest = s->at ? sizeof(s->frame) + s->frame.length - s->at : 0;

        return rest + (u64) s->image * MTTY_BLOCK + mtty_framed(s->dirty);
}

/* ---- data with frames: what is written -------------------------------------------------------------------------- */

static bool mtty_frame_is_good(struct mtty_stream *s, const struct mtty_frame *f)
{
        if (f->magic != MTTY_FRAME_MAGIC || f->number != s->number || f->length > MTTY_PAYLOAD ||
            !f->blocks || f->blocks > MTTY_MAX_BLOCKS)
                return false;
        if (!s->seen) {
                s->next = f->blocks;
                s->seen = bitmap_zalloc(f->blocks, GFP_KERNEL);
        }
        if (!s->seen || f->blocks != s->next)
                return false;
        if (f->type == MTTY_FRAME_END)
                return f->length == 0 && bitmap_full(s->seen, f->blocks);
        if (f->type != MTTY_FRAME_BLOCK || f->index >= f->blocks)
                return false;
        if (f->length == MTTY_PAYLOAD)
                set_bit(f->index, s->seen);
        return true;
}

/* Takes what fits into the present piece. Returns how much, or a negative errno. */
static ssize_t mtty_take_piece(struct mtty_migration_file *migf, const char __user *buf, size_t len)
{
        struct mtty_stream *s = &migf->stream;
        size_t ports = migf->mdev_state->nr_ports * sizeof(struct serial_port), n;

        if (s->refused) /* the rest of what is no good; it is said at RESUMING>STOP */
                return len;
        if (s->at < sizeof(s->frame)) {
                n = min_t(size_t, len, sizeof(s->frame) - s->at);
                if (copy_from_user((u8 *) &s->frame + s->at, buf, n))
                        return -EFAULT;
                s->at += n;
                if (s->at < sizeof(s->frame))
                        return n;
                s->refused = !mtty_frame_is_good(s, &s->frame);
                s->number++;
                s->ended = s->frame.type == MTTY_FRAME_END;
                if (!s->ended && !s->frame.length)
                        s->at = 0;
                return n;
        }
        if (s->ended) {
                n = min_t(size_t, len, ports - s->tail);
                if (!n)
                        return -ENOMEM;
                if (copy_from_user((u8 *) migf->data.ports + s->tail, buf, n))
                        return -EFAULT;
                s->tail += n;
                if (s->tail == ports)
                        migf->filled_size = mtty_data_size(migf->mdev_state);
                return n;
        }
        n = min_t(size_t, len, sizeof(s->frame) + s->frame.length - s->at);
        if (copy_from_user(s->scratch, buf, n))
                return -EFAULT;
        if (migf->mdev_state->control.verify && memcmp(s->scratch, mtty_pattern + s->at, n))
                s->refused = true;
        s->at += n;
        if (s->at == sizeof(s->frame) + s->frame.length)
                s->at = 0;
        return n;
}

static ssize_t mtty_write_frames(struct mtty_migration_file *migf, const char __user *buf, size_t len,
                                 loff_t *pos)
{
        size_t done = 0;

        while (done < len) {
                ssize_t n = mtty_take_piece(migf, buf + done, len - done);

                if (n < 0)
                        return done ? done : n;
                *pos += n;
                done += n;
        }
        return done;
}

/* If a header is whole with these bytes and says that frames follow, takes what of it is new. Returns how much that is, 0 if
 * it is the driver's own format, or may be. */
static ssize_t mtty_take_header(struct mtty_migration_file *migf, const char __user *buf, size_t len,
                                loff_t *pos)
{
        size_t header = offsetof(struct mtty_data, ports);
        struct mtty_data data;
        size_t n;

        if (*pos >= header || *pos + len < header)
                return 0;
        n = header - *pos;
        memcpy(&data, &migf->data, *pos);
        if (copy_from_user((u8 *) &data + *pos, buf, n))
                return -EFAULT;
        if (data.flags != MTTY_FLAG_FRAMES)
                return 0;
        if (data.magic != MTTY_MAGIC || data.major_ver != MTTY_MAJOR_VER ||
            data.minor_ver != MTTY_MINOR_VER || data.nr_ports != migf->mdev_state->nr_ports)
                return -EFAULT;
        migf->stream.scratch = vmalloc(MTTY_BLOCK);
        if (!migf->stream.scratch)
                return -ENOMEM;
        migf->stream.frames = true;
        memcpy(&migf->data, &data, header);
        migf->filled_size = header;
        *pos += n;
        return n;
}

/* ---- data files ------------------------------------------------------------------------------------------------- */

/* Locks it, if its device is still there; and cuts `len` where an error is due, or returns that. */
static int mtty_enter(struct mtty_migration_file *migf, struct mtty_cut *(*cut_of)(struct mtty_control *),
                      loff_t pos, size_t *len)
{
        struct mtty_cut *cut;
        int r;

        mutex_lock(&migf->lock);
        if (migf->disabled) {
                mutex_unlock(&migf->lock);
                return -ENODEV;
        }
        cut = cut_of(&migf->mdev_state->control);
        if (cut->failure.times == 0 || pos > cut->byte)
                return 0;
        if (pos < cut->byte) {
                *len = min_t(u64, *len, cut->byte - pos);
                return 0;
        }
        r = mtty_fails(&cut->failure);
        if (r)
                mutex_unlock(&migf->lock);
        return r;
}

static struct mtty_cut *mtty_read_cut(struct mtty_control *c)
{
        return &c->read_cut;
}

static struct mtty_cut *mtty_write_cut(struct mtty_control *c)
{
        return &c->write_cut;
}

static ssize_t mtty_save_read(struct file *filp, char __user *buf, size_t len, loff_t *pos)
{
        struct mtty_migration_file *migf = filp->private_data;
        ssize_t r;

        if (pos)
                return -ESPIPE;
        r = mtty_enter(migf, mtty_read_cut, filp->f_pos, &len);
        if (r)
                return r;
        if (migf->data.flags & MTTY_FLAG_FRAMES) {
                r = mtty_read_frames(migf, buf, len, &filp->f_pos);
                if (r > 0)
                        migf->mdev_state->control.bytes_read += r;
                mutex_unlock(&migf->lock);
                return r;
        }
        mutex_unlock(&migf->lock);
        r = mtty_plain_save_read(filp, buf, len, pos);
        if (r > 0)
                migf->mdev_state->control.bytes_read += r;
        return r;
}

static ssize_t mtty_resume_write(struct file *filp, const char __user *buf, size_t len, loff_t *pos)
{
        struct mtty_migration_file *migf = filp->private_data;
        ssize_t r, head;

        if (pos)
                return -ESPIPE;
        r = mtty_enter(migf, mtty_write_cut, filp->f_pos, &len);
        if (r)
                return r;
        r = head = migf->stream.frames ? 0 : mtty_take_header(migf, buf, len, &filp->f_pos);
        if (r >= 0 && migf->stream.frames) {
                r = mtty_write_frames(migf, buf + head, len - head, &filp->f_pos);
                r = r < 0 && head ? head : r + head;
                if (r > 0)
                        migf->mdev_state->control.bytes_written += r;
        }
        if (r || migf->stream.frames) {
                mutex_unlock(&migf->lock);
                return r;
        }
        mutex_unlock(&migf->lock);
        r = mtty_plain_resume_write(filp, buf, len, pos);
        if (r > 0)
                migf->mdev_state->control.bytes_written += r;
        return r;
}

static long mtty_precopy_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
        struct mtty_migration_file *migf = filp->private_data;
        size_t header = offsetof(struct mtty_data, ports),
               size = offsetofend(struct vfio_precopy_info, dirty_bytes);
        enum vfio_device_mig_state state;
        struct vfio_precopy_info info;

        if (cmd != VFIO_MIG_GET_PRECOPY_INFO || !(migf->data.flags & MTTY_FLAG_FRAMES))
                return mtty_plain_precopy_ioctl(filp, cmd, arg);
        if (copy_from_user(&info, (void __user *) arg, size))
                return -EFAULT;
        if (info.argsz < size)
                return -EINVAL;
        mutex_lock(&migf->lock);
        if (migf->disabled) {
                mutex_unlock(&migf->lock);
                return -ENODEV;
        }
        state = READ_ONCE(migf->mdev_state->state);
        if (state != VFIO_DEVICE_STATE_PRE_COPY && state != VFIO_DEVICE_STATE_PRE_COPY_P2P) {
                mutex_unlock(&migf->lock);
                return -EINVAL;
        }
        mtty_catch_up(migf, state);
        info.initial_bytes = filp->f_pos < header ? header - filp->f_pos : 0;
        info.dirty_bytes = mtty_to_read(&migf->stream);
        mutex_unlock(&migf->lock);
        return copy_to_user((void __user *) arg, &info, size) ? -EFAULT : 0;
}

static int mtty_release_migf(struct inode *inode, struct file *filp)
{
        struct mtty_migration_file *migf = filp->private_data;

        bitmap_free(migf->stream.seen);
        vfree(migf->stream.scratch);
        return mtty_plain_release_migf(inode, filp);
}

static int mtty_get_data_size(struct vfio_device *vdev, unsigned long *length)
{
        struct mdev_state *m = to_mdev_state(vdev);
        struct mtty_migration_file *migf;
        int r = mtty_plain_get_data_size(vdev, length);

        if (r || !m->control.blocks)
                return r;
        mutex_lock(&m->state_mutex);
        migf = m->saving_migf;
        *length += sizeof(struct mtty_frame) +
                   (migf ? mtty_to_read(&migf->stream) : (u64) m->control.blocks * MTTY_BLOCK);
        mtty_state_mutex_unlock(m);
        return 0;
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

static int mtty_hang(struct mtty_control *c, struct mtty_arc *arc)
{
        unsigned int since = READ_ONCE(c->releases);
        int r = 0;

        if (!arc->hang_times)
                return 0;
        if (arc->hang_times > 0)
                arc->hang_times--;
        c->hanging++;
        if (arc->hang == 2)
                wait_event(c->released, READ_ONCE(c->releases) != since);
        else
                r = wait_event_killable(c->released, READ_ONCE(c->releases) != since);
        c->hanging--;
        return r ? -EINTR : 0;
}

/* The arcs of a device without P2P, which the driver's own does not know. */
static struct file *mtty_other_step(struct mdev_state *m, enum vfio_device_mig_state new)
{
        struct mtty_migration_file *migf;

        if ((m->state == VFIO_DEVICE_STATE_RUNNING && new == VFIO_DEVICE_STATE_STOP) ||
            (m->state == VFIO_DEVICE_STATE_STOP && new == VFIO_DEVICE_STATE_RUNNING))
                return NULL;
        if (m->state != VFIO_DEVICE_STATE_PRE_COPY || new != VFIO_DEVICE_STATE_STOP_COPY)
                return mtty_plain_step_state(m, new);
        migf = mtty_save_device_data(m, new);
        return IS_ERR(migf) ? ERR_CAST(migf) : NULL;
}

static struct file *mtty_step_state(struct mdev_state *m, enum vfio_device_mig_state new)
{
        struct mtty_control *c = &m->control;
        enum vfio_device_mig_state cur = m->state;
        struct mtty_arc *arc = &c->arcs[cur][new];
        bool was_saving = m->saving_migf;
        u32 blocks = 0;
        struct file *file;
        int r;

        arc->walked++;
        if (arc->delay_usec)
                fsleep(arc->delay_usec);
        r = mtty_hang(c, arc);
        if (r)
                return ERR_PTR(r);
        r = mtty_fails(&arc->refuse);
        if (r)
                return ERR_PTR(r);
        r = mtty_fails(&arc->error);
        if (r) {
                mtty_disable_files(m);
                m->state = VFIO_DEVICE_STATE_ERROR;
                return ERR_PTR(r);
        }

        if (cur == VFIO_DEVICE_STATE_RESUMING) {
                if (!m->resuming_migf)
                        return ERR_PTR(-EINVAL);
                if (m->resuming_migf->stream.frames)
                        blocks = m->resuming_migf->stream.next;
                if (m->resuming_migf->stream.refused)
                        return ERR_PTR(-EINVAL);
        }
        if (m->saving_migf) {
                mutex_lock(&m->saving_migf->lock);
                mtty_catch_up(m->saving_migf, cur);
                mutex_unlock(&m->saving_migf->lock);
        }
        file = mtty_other_step(m, new);
        if (IS_ERR(file))
                return file;
        if (cur == VFIO_DEVICE_STATE_RESUMING && blocks)
                c->blocks = blocks;
        if (m->saving_migf && !was_saving && c->blocks) {
                m->saving_migf->data.flags = MTTY_FLAG_FRAMES;
                m->saving_migf->stream.image = c->blocks;
                m->saving_migf->stream.looked = ktime_get();
        }
        return file;
}

static struct file *mtty_set_state(struct vfio_device *vdev, enum vfio_device_mig_state new_state)
{
        struct mdev_state *m = to_mdev_state(vdev);

        /* Nobody has checked it yet. */
        if (new_state < MTTY_STATES)
                m->control.sets[READ_ONCE(m->state)][new_state]++;
        return mtty_plain_set_state(vdev, new_state);
}

static int mtty_reset(struct mdev_state *m)
{
        int r = mtty_fails(&m->control.reset);

        m->control.resets++;
        if (r)
                return r;
        if (m->control.reset_clears) {
                mutex_lock(&m->ops_lock);
                memset(m->s, 0, sizeof(m->s));
                m->s[0].max_fifo_size = m->s[1].max_fifo_size = MAX_FIFO_SIZE;
                m->control.blocks = 0;
                mutex_unlock(&m->ops_lock);
        }
        return mtty_plain_reset(m);
}

/* ---- DMA logging ------------------------------------------------------------------------------------------------ */

static int mtty_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 nnodes, u64 *page_size)
{
        return mtty_fails(&to_mdev_state(vdev)->control.log[0])
                       ?: mtty_plain_log_start(vdev, ranges, nnodes, page_size);
}

static int mtty_log_stop(struct vfio_device *vdev)
{
        return mtty_fails(&to_mdev_state(vdev)->control.log[1]) ?: mtty_plain_log_stop(vdev);
}

static int mtty_log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
                                   struct iova_bitmap *dirty)
{
        return mtty_fails(&to_mdev_state(vdev)->control.log[2])
                       ?: mtty_plain_log_read_and_clear(vdev, iova, length, dirty);
}

/* ---- orders ------------------------------------------------------------------------------------------------------ */

/* Numbers of an order, behind its arc if it has one. */
struct mtty_order {
        unsigned long from, to; /* sets of states */
        s64 n[3];
};

static void mtty_set_flags(struct mdev_state *m, s64 flags)
{
        m->vdev.migration_flags = flags;
        m->vdev.mig_ops = flags ? &mtty_migration_ops : NULL;
}

static void mtty_release(struct mtty_control *c)
{
        WRITE_ONCE(c->releases, c->releases + 1);
        wake_up_all(&c->released);
}

static void mtty_rest(struct mdev_state *m)
{
        struct mtty_control *c = &m->control;

        memset(c->arcs, 0, sizeof(c->arcs));
        memset(c->sets, 0, sizeof(c->sets));
        memset(c->log, 0, sizeof(c->log));
        memset(&c->reset, 0, sizeof(c->reset));
        memset(&c->read_cut, 0, sizeof(c->read_cut));
        memset(&c->write_cut, 0, sizeof(c->write_cut));
        c->resets = c->bytes_read = c->bytes_written = c->dirty_rate = 0;
        c->blocks = 0;
        c->verify = true;
        c->reset_clears = false;
        mtty_set_flags(m, VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY);
        m->vdev.log_ops = &mtty_log_ops;
        mtty_release(c);
}

static void mtty_order_arc(struct mtty_arc *arc, char kind, const s64 *n)
{
        switch (kind) {
        case 'd': arc->delay_usec = n[0]; break;
        case 'r': arc->refuse = (struct mtty_failure){n[0], n[1]}; break;
        case 'e': arc->error = (struct mtty_failure){n[0], n[1]}; break;
        case 'h':
                arc->hang = n[0];
                arc->hang_times = n[1];
                break;
        }
}

static const struct mtty_order_kind {
        const char *name;
        char kind; /* small: of an arc */
        int numbers;
        s64 max[3];
} mtty_orders[] = {
        {"delay", 'd', 1, {600000000}},
        {"refuse", 'r', 2, {MAX_ERRNO, INT_MAX}},
        {"error", 'e', 2, {MAX_ERRNO, INT_MAX}},
        {"hang", 'h', 2, {2, INT_MAX}},
        {"release", 'G', 0},
        {"read-error", 'R', 3, {S64_MAX, MAX_ERRNO, INT_MAX}},
        {"write-error", 'W', 3, {S64_MAX, MAX_ERRNO, INT_MAX}},
        {"size", 'S', 1, {(u64) MTTY_MAX_BLOCKS * MTTY_BLOCK}},
        {"dirty", 'D', 1, {1LL << 30}},
        {"verify", 'V', 1, {1}},
        {"flags", 'F', 1, {VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY}},
        {"logging", 'L', 1, {1}},
        {"log-error", 'O', 3, {2, MAX_ERRNO, INT_MAX}},
        {"reset-error", 'X', 2, {MAX_ERRNO, INT_MAX}},
        {"reset-clears", 'C', 1, {1}},
        {"rest", '0', 0},
};

static void mtty_obey(struct mdev_state *m, char kind, const struct mtty_order *o)
{
        struct mtty_control *c = &m->control;
        const s64 *n = o->n;
        int from, to;

        switch (kind) {
        case 'G': mtty_release(c); break;
        case 'R': c->read_cut = (struct mtty_cut){n[0], {n[1], n[2]}}; break;
        case 'W': c->write_cut = (struct mtty_cut){n[0], {n[1], n[2]}}; break;
        case 'S': c->blocks = DIV_ROUND_UP_ULL(n[0], MTTY_BLOCK); break;
        case 'D': c->dirty_rate = n[0]; break;
        case 'V': c->verify = n[0]; break;
        case 'F': mtty_set_flags(m, n[0]); break;
        case 'L': m->vdev.log_ops = n[0] ? &mtty_log_ops : NULL; break;
        case 'O': c->log[n[0]] = (struct mtty_failure){n[1], n[2]}; break;
        case 'X': c->reset = (struct mtty_failure){n[0], n[1]}; break;
        case 'C': c->reset_clears = n[0]; break;
        case '0': mtty_rest(m); break;
        default:
                for_each_set_bit(from, &o->from, MTTY_STATES) for_each_set_bit(to, &o->to, MTTY_STATES)
                        mtty_order_arc(&c->arcs[from][to], kind, n);
        }
}

static int mtty_parse_side(const char *word, unsigned long *set)
{
        int i = match_string(mtty_names, MTTY_STATES, word);

        *set = strcmp(word, "*") == 0 ? BIT(MTTY_STATES) - 1 : i >= 0 ? BIT(i) : 0;
        return *set ? 0 : -EINVAL;
}

static int mtty_parse(char **words, int n_words, const struct mtty_order_kind **kindp, struct mtty_order *o)
{
        const struct mtty_order_kind *k = mtty_orders;
        char *second;
        int i;

        while (k < mtty_orders + ARRAY_SIZE(mtty_orders) && strcmp(k->name, words[0]))
                k++;
        if (k == mtty_orders + ARRAY_SIZE(mtty_orders))
                return -EINVAL;
        words++;
        n_words--;
        if (k->kind >= 'a') {
                if (n_words < 1 || !(second = strchr(words[0], '>')))
                        return -EINVAL;
                *second++ = '\0';
                if (mtty_parse_side(words[0], &o->from) || mtty_parse_side(second, &o->to))
                        return -EINVAL;
                words++;
                n_words--;
        }
        if (n_words != k->numbers)
                return -EINVAL;
        for (i = 0; i < n_words; i++) {
                /* Only the last of several is a number of times. */
                s64 min = i && i == n_words - 1 ? -1 : 0;

                if (kstrtos64(words[i], 0, &o->n[i]) || o->n[i] < min || o->n[i] > k->max[i])
                        return -EINVAL;
        }
        *kindp = k;
        return 0;
}

static ssize_t control_store(struct device *dev, struct device_attribute *attr, const char *buf, size_t count)
{
        struct mdev_state *m = dev_get_drvdata(dev);
        const struct mtty_order_kind *kind;
        struct mtty_order order = {};
        int n_words, r = -EINVAL;
        char **words = argv_split(GFP_KERNEL, buf, &n_words);

        if (!words)
                return -ENOMEM;
        if (n_words)
                r = mtty_parse(words, n_words, &kind, &order);
        if (!r) {
                mutex_lock(&m->control.lock);
                mtty_obey(m, kind->kind, &order);
                mutex_unlock(&m->control.lock);
        }
        argv_free(words);
        return r ? r : count;
}
static DEVICE_ATTR_WO(control);

static ssize_t status_show(struct device *dev, struct device_attribute *attr, char *buf)
{
        struct mdev_state *m = dev_get_drvdata(dev);
        struct mtty_control *c = &m->control;
        int from, to, n;

        n = sysfs_emit(buf, "state %s\nhanging %d\nresets %lu\nread %llu\nwritten %llu\nsize %llu\n",
                       mtty_names[READ_ONCE(m->state)], c->hanging, c->resets, c->bytes_read,
                       c->bytes_written, (u64) c->blocks * MTTY_BLOCK);
        for (from = 0; from < MTTY_STATES; from++) {
                for (to = 0; to < MTTY_STATES; to++) {
                        if (c->sets[from][to])
                                n += sysfs_emit_at(buf, n, "set %s>%s %lu\n", mtty_names[from],
                                                   mtty_names[to], c->sets[from][to]);
                        if (c->arcs[from][to].walked)
                                n += sysfs_emit_at(buf, n, "arc %s>%s %lu\n", mtty_names[from],
                                                   mtty_names[to], c->arcs[from][to].walked);
                }
        }
        return n;
}
static DEVICE_ATTR_RO(status);

static struct attribute *mtty_test_attrs[] = {&dev_attr_control.attr, &dev_attr_status.attr, NULL};

static const struct attribute_group mtty_test_group = {
        .name = "test",
        .attrs = mtty_test_attrs,
};

/* ---- begin and end ----------------------------------------------------------------------------------------------- */

static int mtty_init_dev(struct vfio_device *vdev)
{
        struct mdev_state *m = to_mdev_state(vdev);
        int r = mtty_plain_init_dev(vdev);

        if (r)
                return r;
        init_waitqueue_head(&m->control.released);
        mutex_init(&m->control.lock);
        mtty_rest(m);
        return 0;
}

static int __init mtty_dev_init(void)
{
        u32 i;
        int r;

        mtty_pattern = vmalloc(MTTY_BLOCK);
        if (!mtty_pattern)
                return -ENOMEM;
        for (i = 0; i < MTTY_BLOCK / sizeof(u32); i++)
                ((u32 *) mtty_pattern)[i] = i * 2654435761u;
        r = mtty_plain_dev_init();
        if (r)
                vfree(mtty_pattern);
        return r;
}

static void __exit mtty_dev_exit(void)
{
        mtty_plain_dev_exit();
        vfree(mtty_pattern);
}
