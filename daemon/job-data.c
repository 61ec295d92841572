/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The data connections of a job: the destination gives out tokens, the source dials with them, each end goes to its
 * agent or VMM. */

#include <stdio.h>

#include "job.h"

/* ---- tokens -------------------------------------------------------------------------------------------------- */

/* The state of a device that the VMM drives goes over the VMM's own connection. */
static bool has_connection(const Job *job, uint32_t device)
{
        return !(job->half->devices[device].flags & DEVICE_SUPERVISED);
}

int job_make_tokens(Job *job)
{
        int r = 0;

        for (uint32_t i = 0; i < job->n_devices && r >= 0; i++) {
                if (!has_connection(job, i))
                        continue;
                r = hello_token(job->devices[i].token);
                job->devices[i].has_token = r >= 0;
        }
        if (r >= 0 && job->wants_memory) {
                r = hello_token(job->memory_token);
                job->has_memory_token = r >= 0;
        }
        return r;
}

void job_add_tokens(Job *job, json_object *message)
{
        json_object *tokens = json_new_object();
        char text[2 * HELLO_TOKEN_SIZE + 1];

        for (uint32_t i = 0; i < job->n_devices; i++) {
                if (!has_connection(job, i))
                        continue;
                hello_token_text(job->devices[i].token, text);
                json_add_string(tokens, job->ids[i], text);
        }
        json_add(message, "tokens", tokens);
        if (job->has_memory_token) {
                hello_token_text(job->memory_token, text);
                json_add_string(message, "memory", text);
        }
}

static bool take_token(json_object *object, const char *key, uint8_t ret[HELLO_TOKEN_SIZE])
{
        JsonReader reader = {.where = "PREPARED"};
        const char *text = json_string(&reader, object, key, true);

        return text && hello_token_parse(text, ret) == 0;
}

bool job_take_tokens(Job *job, json_object *message)
{
        JsonReader reader = {.where = "PREPARED"};
        json_object *tokens = json_member(&reader, message, "tokens", json_type_object, true);

        for (uint32_t i = 0; i < job->n_devices; i++) {
                if (!has_connection(job, i))
                        continue;
                if (!take_token(tokens, job->ids[i], job->devices[i].token))
                        return false;
                job->devices[i].has_token = true;
        }
        job->has_memory_token = take_token(message, "memory", job->memory_token);
        return job->has_memory_token || !job->wants_memory;
}

/* ---- the source dials ---------------------------------------------------------------------------------------- */

static void dialing_failed(Job *job, int status)
{
        job->n_dialing = 0;
        (void) snprintf(job->peer_text, sizeof job->peer_text, "%s: no data connection: %s", job->peer,
                        strerror(-status));
        job_post(job, &(HalfEvent){.type = HALF_RESULT,
                                   .who = HALF_WHO_PEER,
                                   .step = job->connect_step,
                                   .status = status});
}

static void on_dialed(void *userdata, uint32_t index, HelloKind kind, int status, int fd)
{
        Job *job = userdata;

        if (job->n_dialing == 0 || job->half->step != job->connect_step) {
                if (fd >= 0)
                        (void) close(fd);
                return;
        }
        if (status < 0) {
                dialing_failed(job, status);
                return;
        }
        if (kind == HELLO_MEMORY)
                vmm_give_memory(job->vm->vmm, fd);
        else
                device_attach(job->vm->devices[job->devices[index].vm_index], job->id, fd);
        if (--job->n_dialing == 0)
                job_post(job,
                         &(HalfEvent){.type = HALF_RESULT, .who = HALF_WHO_PEER, .step = job->connect_step});
}

static int dial(Job *job, HelloKind kind, uint32_t index, const uint8_t token[HELLO_TOKEN_SIZE],
                uint64_t usec, DataDial **ret)
{
        Hello hello = {.kind = kind, .index = index};
        int r;

        memcpy(hello.token, token, HELLO_TOKEN_SIZE);
        r = data_dial_new(job->host->loop, job->peer, &hello, usec, on_dialed, job, ret);
        if (r >= 0)
                job->n_dialing++;
        return r;
}

void job_connect(Job *job, const HalfEffect *effect)
{
        int r = 0;

        job_drop_data(job);
        job->connect_step = effect->step;
        job->n_dialing = 0;
        for (uint32_t i = 0; i < job->n_devices && r >= 0; i++)
                if (has_connection(job, i))
                        r = dial(job, HELLO_DEVICE, i, job->devices[i].token, effect->deadline_usec,
                                 &job->devices[i].dial);
        if (r >= 0 && job->wants_memory)
                r = dial(job, HELLO_MEMORY, 0, job->memory_token, effect->deadline_usec, &job->memory_dial);
        if (r < 0)
                dialing_failed(job, r);
        else if (job->n_dialing == 0)
                job_post(job, &(HalfEvent){.type = HALF_RESULT, .who = HALF_WHO_PEER, .step = effect->step});
}

void job_drop_data(Job *job)
{
        for (uint32_t i = 0; job->devices && i < job->n_devices; i++)
                job->devices[i].dial = data_dial_free(job->devices[i].dial);
        job->memory_dial = data_dial_free(job->memory_dial);
}

/* ---- the destination is dialed ------------------------------------------------------------------------------- */

bool job_data(Job *job, const Hello *hello, int fd)
{
        /* A token is good once, and only while the state is taken in. */
        if (job_side(job) != SIDE_DESTINATION || job->half->state != DESTINATION_TAKE_IN)
                return false;
        if (hello->kind == HELLO_MEMORY) {
                if (!job->has_memory_token || !hello_token_equal(hello->token, job->memory_token))
                        return false;
                job->has_memory_token = false;
                vmm_give_memory(job->vm->vmm, fd);
                return true;
        }
        if (hello->index >= job->n_devices || !job->devices[hello->index].has_token ||
            !hello_token_equal(hello->token, job->devices[hello->index].token))
                return false;
        job->devices[hello->index].has_token = false;
        device_attach(job->vm->devices[job->devices[hello->index].vm_index], job->id, fd);
        return true;
}
