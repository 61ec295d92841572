/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "program.h"

#include <stdio.h>

#include "common/clock.h"
#include "stream.h"

/* How long reading back after a failure may take. What is slower is read in the next barrier. */
#define READ_BACK_USEC (400 * USEC_PER_MSEC)

/* Where within an operation. */
typedef enum Step {
        STEP_LOOK,      /* before the first SET: does the device read what it should? */
        STEP_ACT,       /* the operation itself */
        STEP_READ_BACK, /* ... and what the device reads after it */
        STEP_SET_RUN,   /* a reset left it elsewhere: SET RUNNING */
        STEP_RUN_BACK,
        STEP_FAILED, /* reading back after a failure, to say where the device is */
} Step;

struct Program {
        ProgramPlace *place;
        AgentDevice *device; /* the place's */
        AgentRun run;
        uint32_t at; /* operation */
        Step step;
        bool looked, stopping, used_data;
        int data_fd;
        Stream *stream;
        Pages *pages;
        uint64_t bytes;
        struct event *deadline, *kick;
        AgentResultPacket result;
        ProgramEnd on_end;
        void *userdata;
};

static void next_operation(Program *p);

static const AgentOp *op(const Program *p)
{
        return &p->run.ops[p->at];
}

static const char *state_text(uint32_t state)
{
        const char *text = device_state_to_string((DeviceState) state);

        return text ? text : "unknown";
}

/* ---- the end ------------------------------------------------------------------------------------------------- */

static void on_kick(evutil_socket_t fd, short what, void *userdata)
{
        Program *p = userdata;

        p->on_end(p->userdata, &p->result);
}

static void end(Program *p)
{
        p->stream = stream_free(p->stream);
        p->pages = pages_free(p->pages);
        if (p->place->dirty)
                dirty_abandon(p->place->dirty);
        if (p->place->precopy)
                stream_hold(p->place->precopy, false);
        p->result.op = p->at;
        p->result.bytes = p->bytes;
        if (p->deadline)
                (void) event_del(p->deadline);
        event_active(p->kick, EV_TIMEOUT, 0); /* the agent frees us: not while we are on the stack */
}

static void on_failed_state(void *userdata, int status, DeviceState state)
{
        Program *p = userdata;

        p->result.state = (uint32_t) (status == 0 ? state : DEVICE_STATE_UNKNOWN);
        end(p);
}

static void set_text(Program *p, const char *text)
{
        (void) snprintf(p->result.text, sizeof p->result.text, "%s", text);
}

/* The operation has failed: where is the device now? */
static void fail(Program *p, int status)
{
        p->bytes = program_bytes(p);
        p->stream = stream_free(p->stream);
        p->pages = pages_free(p->pages);
        p->place->precopy = stream_free(p->place->precopy);
        p->result.status = status;
        p->result.state = DEVICE_STATE_UNKNOWN;
        if (p->at < p->run.n_ops)
                p->result.end_usec[p->at] = clock_monotonic_usec();
        p->step = STEP_FAILED;
        (void) event_add(p->deadline, &(struct timeval){.tv_usec = READ_BACK_USEC});
        if (agent_device_get(p->device, on_failed_state, p) < 0)
                end(p);
}

static const char *what_it_does(const Program *p, char *text, size_t size)
{
        if (op(p)->type == DEVICE_OP_SET || op(p)->type == DEVICE_OP_NUDGE)
                (void) snprintf(text, size, "%s -> %s", state_text(op(p)->from), state_text(op(p)->to));
        else
                (void) snprintf(text, size, "%s", device_op_to_string(op(p)->type));
        return text;
}

static void on_deadline(evutil_socket_t fd, short what, void *userdata)
{
        Program *p = userdata;
        char doing[64];

        p->bytes = program_bytes(p);
        agent_device_abandon(p->device);
        if (p->result.status == 0) {
                (void) snprintf(p->result.text, sizeof p->result.text, "no answer within %llu ms, in %s",
                                (unsigned long long) (p->run.deadline_usec / 1000),
                                what_it_does(p, doing, sizeof doing));
                p->result.status = -ETIMEDOUT;
        }
        p->result.state = DEVICE_STATE_UNKNOWN;
        end(p);
}

void program_device_gone(Program *p, int status, const char *text)
{
        if (event_pending(p->kick, EV_TIMEOUT, NULL))
                return; /* it has ended already */
        if (p->result.status == 0) {
                p->result.status = status;
                set_text(p, text);
        }
        p->bytes = program_bytes(p);
        p->result.state = DEVICE_STATE_UNKNOWN;
        agent_device_abandon(p->device);
        end(p);
}

void program_stop(Program *p)
{
        p->stopping = true;
        if (p->at >= p->run.n_ops)
                return;
        if (p->step != STEP_ACT || !device_op_transfers((DeviceOpType) op(p)->type))
                return;
        set_text(p, "stopped");
        fail(p, -ECANCELED);
}

/* ---- operations ---------------------------------------------------------------------------------------------- */

static void operation_done(Program *p)
{
        p->result.end_usec[p->at++] = clock_monotonic_usec();
        next_operation(p);
}

static void on_state(void *userdata, int status, DeviceState state);

static void on_acted(void *userdata, int status)
{
        Program *p = userdata;
        const char *more = agent_device_explain(p->device);
        DeviceState state = agent_device_read_back(p->device);
        char doing[64];

        if (status < 0) {
                (void) snprintf(p->result.text, sizeof p->result.text, "%s refused: %s%s%s",
                                what_it_does(p, doing, sizeof doing), strerror(-status), *more ? ": " : "",
                                more);
                fail(p, status);
                return;
        }
        p->step = p->step == STEP_SET_RUN ? STEP_RUN_BACK : STEP_READ_BACK;
        if (state != DEVICE_STATE_UNKNOWN) {
                on_state(p, 0, state);
                return;
        }
        status = agent_device_get(p->device, on_state, p);
        if (status < 0)
                fail(p, status);
}

static void begin_set(Program *p)
{
        int r;

        p->step = STEP_ACT;
        r = agent_device_set(p->device, op(p)->to, on_acted, p);
        if (r < 0)
                fail(p, r);
}

/* Its VMM moves it, too: what is due may have come about already. */
static void judge_shared(Program *p, DeviceState state)
{
        if (op(p)->type == DEVICE_OP_NUDGE ? device_nudge_is_done(op(p)->to, state)
                                           : state == op(p)->to || state == op(p)->from) {
                operation_done(p);
                return;
        }
        if (state == op(p)->from) {
                begin_set(p);
                return;
        }
        if (op(p)->from == op(p)->to)
                (void) snprintf(p->result.text, sizeof p->result.text, "reads %s where %s was due",
                                state_text(state), state_text(op(p)->to));
        else
                (void) snprintf(p->result.text, sizeof p->result.text, "reads %s where %s or %s was due",
                                state_text(state), state_text(op(p)->from), state_text(op(p)->to));
        fail(p, -ESTALE);
}

static void judge_look(Program *p, DeviceState state)
{
        if (op(p)->type != DEVICE_OP_SET) {
                judge_shared(p, state);
                return;
        }
        if (state == op(p)->from) {
                p->looked = true;
                begin_set(p);
                return;
        }
        (void) snprintf(p->result.text, sizeof p->result.text,
                        "reads %s where %s was left: somebody moved it", state_text(state),
                        state_text(op(p)->from));
        fail(p, -ESTALE);
}

static void judge_read_back(Program *p, DeviceState state)
{
        bool there =
                op(p)->type == DEVICE_OP_NUDGE ? device_nudge_is_done(op(p)->to, state) : state == op(p)->to;

        if ((op(p)->type == DEVICE_OP_SET || op(p)->type == DEVICE_OP_NUDGE) && !there) {
                (void) snprintf(p->result.text, sizeof p->result.text, "%s -> %s: said yes, but reads %s",
                                state_text(op(p)->from), state_text(op(p)->to), state_text(state));
                fail(p, op(p)->type == DEVICE_OP_SET ? -EIO : -ESTALE);
                return;
        }
        if (op(p)->type == DEVICE_OP_RESET) {
                p->result.was_reset = true;
                p->looked = true; /* whatever it was: what follows is planned from RUNNING */
        }
        if (op(p)->type == DEVICE_OP_RESET && state != DEVICE_STATE_RUNNING) {
                int r;

                p->step = STEP_SET_RUN;
                r = agent_device_set(p->device, DEVICE_STATE_RUNNING, on_acted, p);
                if (r < 0)
                        fail(p, r);
                return;
        }
        operation_done(p);
}

static void on_state(void *userdata, int status, DeviceState state)
{
        Program *p = userdata;

        if (status < 0) {
                (void) snprintf(p->result.text, sizeof p->result.text, "its state cannot be read: %s",
                                strerror(-status));
                p->result.status = status;
                p->result.state = DEVICE_STATE_UNKNOWN;
                end(p);
                return;
        }
        p->result.state = state;
        switch (p->step) {
        case STEP_LOOK: judge_look(p, state); break;
        case STEP_ACT: operation_done(p); break;
        case STEP_READ_BACK: judge_read_back(p, state); break;
        case STEP_RUN_BACK:
                if (state == DEVICE_STATE_RUNNING) {
                        operation_done(p);
                        break;
                }
                (void) snprintf(p->result.text, sizeof p->result.text, "reads %s after a reset, not running",
                                state_text(state));
                fail(p, -EIO);
                break;
        case STEP_SET_RUN:
        case STEP_FAILED: break;
        }
}

static void read_back(Program *p)
{
        int r;

        p->step = STEP_READ_BACK;
        r = agent_device_get(p->device, on_state, p);
        if (r < 0)
                fail(p, r);
}

static void on_transferred(void *userdata, int status, const char *text)
{
        Program *p = userdata;

        p->bytes = program_bytes(p);
        if (status < 0) {
                (void) snprintf(p->result.text, sizeof p->result.text, "%s: %s", text, strerror(-status));
                fail(p, status);
                return;
        }
        p->stream = stream_free(p->stream);
        p->pages = pages_free(p->pages);
        read_back(p); /* a stream must not have moved the device */
}

static void on_logged(void *userdata, int status)
{
        Program *p = userdata;

        if (status < 0) {
                p->place->dirty = dirty_free(p->place->dirty);
                on_acted(p, status);
                return;
        }
        if (op(p)->type == DEVICE_OP_LOG_STOP)
                p->place->dirty = dirty_free(p->place->dirty);
        read_back(p);
}

static int begin_log(Program *p)
{
        Dirty *dirty;
        int r = dirty_new(p->device, p->place->broker, &dirty);

        if (r < 0)
                return r;
        dirty_free(p->place->dirty);
        p->place->dirty = dirty;
        return agent_device_log_start(p->device, dirty->page_size, on_logged, p);
}

/* Memory that was mapped when nobody asked for a log any more would be lost in silence. While the device stands nothing
 * more is mapped: what is seen now is all. */
static bool is_logged(Program *p)
{
        if (p->place->dirty || !program_place_has_memory(p->place))
                return true;
        set_text(p, "the VMM has mapped memory for it since the migration was checked: migrate again");
        return false;
}

/* Pages are told of, and copied, by their address. */
static void on_dirty_read(void *userdata, int status)
{
        Program *p = userdata;

        if (status < 0 || dirty_is_mapped(p->place->dirty, p->place->broker)) {
                on_logged(p, status);
                return;
        }
        set_text(p, "the VMM has taken away memory that it had written in the meantime: migrate again");
        fail(p, -ESTALE);
}

static int read_log(Program *p)
{
        int r;

        if (!is_logged(p))
                return -ESTALE;
        if (!p->place->dirty) {
                read_back(p);
                return 0;
        }
        r = dirty_read(p->place->dirty, p->device, p->place->broker, &p->place->others, on_dirty_read, p);
        if (r == 1)
                on_dirty_read(p, 0);
        return MIN(r, 0);
}

static int begin_send(Program *p)
{
        if (!is_logged(p))
                return -ESTALE;
        if (!p->place->precopy) {
                int r = stream_out_new(p->place->base, p->device, p->data_fd, on_transferred, p, &p->stream);

                if (r >= 0)
                        stream_bound(p->stream, p->run.limits.state_bytes);
                return r;
        }
        p->stream = TAKE_PTR(p->place->precopy);
        stream_finish(p->stream, on_transferred, p);
        return 0;
}

static int begin_send_pages(Program *p)
{
        if (!p->place->dirty && program_place_has_memory(p->place)) {
                set_text(p, "what it has written was not read");
                return -ENODATA;
        }
        return pages_out_new(p->place->base, p->data_fd, p->place->dirty, p->place->broker, on_transferred, p,
                             &p->pages);
}

static void on_converged(void *userdata, int status, const char *text)
{
        Program *p = userdata;

        p->bytes = program_bytes(p);
        if (status == 0) {
                p->place->precopy = TAKE_PTR(p->stream); /* it goes on */
                read_back(p);
                return;
        }
        on_transferred(p, status, text);
}

static int begin_transfer(Program *p)
{
        if (p->data_fd < 0 && op(p)->type == DEVICE_OP_LOAD)
                return 0; /* program_attach() goes on */
        if (p->data_fd < 0) {
                set_text(p, "there is no data connection");
                return -ENOTCONN;
        }
        p->used_data = true;
        switch ((DeviceOpType) op(p)->type) {
        case DEVICE_OP_PRECOPY:
                return stream_precopy_new(p->place->base, p->device, p->data_fd, &p->run.limits, on_converged,
                                          p, &p->stream);
        case DEVICE_OP_SEND: return begin_send(p);
        case DEVICE_OP_SEND_PAGES: return begin_send_pages(p);
        case DEVICE_OP_LOAD_PAGES:
                return pages_in_new(p->place->base, p->data_fd, p->place->broker, on_transferred, p,
                                    &p->pages);
        default: return stream_in_new(p->place->base, p->device, p->data_fd, on_transferred, p, &p->stream);
        }
}

static int begin_operation(Program *p)
{
        p->step = STEP_ACT;
        switch ((DeviceOpType) op(p)->type) {
        case DEVICE_OP_GET: return agent_device_get(p->device, on_state, p);
        case DEVICE_OP_SET:
                if (p->looked)
                        return agent_device_set(p->device, op(p)->to, on_acted, p);
                p->step = STEP_LOOK;
                return agent_device_get(p->device, on_state, p);
        case DEVICE_OP_RESET: return agent_device_reset(p->device, on_acted, p);
        case DEVICE_OP_SEND:
        case DEVICE_OP_LOAD:
        case DEVICE_OP_PRECOPY:
        case DEVICE_OP_SEND_PAGES:
        case DEVICE_OP_LOAD_PAGES: return begin_transfer(p);
        case DEVICE_OP_LOG_START: return begin_log(p);
        case DEVICE_OP_LOG_STOP: return agent_device_log_stop(p->device, on_logged, p);
        case DEVICE_OP_DIRTY: return read_log(p);
        case DEVICE_OP_CLOSE: operation_done(p); return 0;
        case DEVICE_OP_NUDGE:
        case DEVICE_OP_EXPECT: p->step = STEP_LOOK; return agent_device_get(p->device, on_state, p);
        case DEVICE_OP_REOPEN: /* the daemon's side does that, with OPEN */
        case DEVICE_OP_MAX:
        case DEVICE_OP_INVALID: break;
        }
        return -EINVAL;
}

static void next_operation(Program *p)
{
        int r;

        if (p->at == p->run.n_ops) {
                end(p);
                return;
        }
        if (p->stopping) {
                set_text(p, "stopped");
                fail(p, -ECANCELED);
                return;
        }
        p->result.from = op(p)->from;
        p->result.to = op(p)->to;
        p->result.start_usec[p->at] = clock_monotonic_usec();
        r = begin_operation(p);
        if (r < 0)
                fail(p, r);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

void program_attach(Program *p, int data_fd)
{
        int r = 0;

        p->data_fd = data_fd;
        if (p->at < p->run.n_ops && op(p)->type == DEVICE_OP_LOAD && p->step == STEP_ACT && !p->stream &&
            p->result.status == 0)
                r = begin_transfer(p);
        if (r < 0)
                fail(p, r);
}

uint64_t program_bytes(const Program *p)
{
        if (p->pages)
                return pages_bytes(p->pages);
        return p->stream ? stream_bytes(p->stream) : p->bytes;
}

bool program_used_data(const Program *p)
{
        return p->used_data;
}

Program *program_free(Program *p)
{
        if (!p)
                return NULL;
        stream_free(p->stream);
        pages_free(p->pages);
        if (p->deadline)
                event_free(p->deadline);
        if (p->kick)
                event_free(p->kick);
        free(p);
        return NULL;
}

DEFINE_CLEANUP(Program *, program_free);

bool program_place_has_memory(const ProgramPlace *place)
{
        const BrokerMap *maps;

        return broker_maps(place->broker, &maps) > 0 ||
               (place->device && agent_device_facts(place->device)->n_memory > 0);
}

void program_place_clear(ProgramPlace *place)
{
        place->precopy = stream_free(place->precopy);
        place->dirty = dirty_free(place->dirty);
}

/* A pre-copy goes on beside what leads to the rest of its stream, and beside nothing else. */
static bool keeps_precopy(const AgentRun *run)
{
        for (uint32_t i = 0; i < run->n_ops; i++)
                switch ((DeviceOpType) run->ops[i].type) {
                case DEVICE_OP_SET:
                        if (run->ops[i].to != DEVICE_STATE_PRE_COPY_P2P &&
                            run->ops[i].to != DEVICE_STATE_STOP_COPY)
                                return false;
                        break;
                case DEVICE_OP_SEND: return true;
                case DEVICE_OP_DIRTY: break;
                default: return false;
                }
        return true;
}

int program_new(ProgramPlace *place, const AgentRun *run, int data_fd, ProgramEnd on_end, void *userdata,
                Program **ret)
{
        _cleanup_(program_freep) Program *p = calloc(1, sizeof *p);

        if (!p)
                return -ENOMEM;
        p->place = place;
        p->device = place->device;
        p->run = *run;
        p->data_fd = data_fd;
        p->on_end = on_end;
        p->userdata = userdata;
        p->result = (AgentResultPacket){.head.type = AGENT_RESULT,
                                        .seq = run->seq,
                                        .state = DEVICE_STATE_UNKNOWN,
                                        .flags = agent_device_facts(place->device)->flags};
        p->kick = event_new(place->base, -1, 0, on_kick, p);
        p->deadline = event_new(place->base, -1, 0, on_deadline, p);
        if (!p->kick || !p->deadline)
                return -ENOMEM;
        if (run->deadline_usec > 0) {
                struct timeval tv = {(time_t) (run->deadline_usec / USEC_PER_SEC),
                                     (suseconds_t) (run->deadline_usec % USEC_PER_SEC)};

                if (event_add(p->deadline, &tv) < 0)
                        return -ENOMEM;
        }
        if (!keeps_precopy(run))
                place->precopy = stream_free(place->precopy);
        if (place->precopy)
                stream_hold(place->precopy, true);
        *ret = p;
        next_operation(TAKE_PTR(p));
        return 0;
}
