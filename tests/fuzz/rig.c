/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rig.h"

#include <ftw.h>
#include <signal.h>
#include <sys/stat.h>

#include "common/log.h"

#define TURNS 32

static char scratch[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        return remove(path);
}

static void remove_scratch(void)
{
        (void) nftw(scratch, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* In memory, where there is such a place: databases are made there for each input. */
const char *rig_dir(void)
{
        if (scratch[0])
                return scratch;
        (void) snprintf(scratch, sizeof scratch, "%s/migmgr-XXXXXX",
                        access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        MUST(mkdtemp(scratch));
        MUST(atexit(remove_scratch) == 0);
        return scratch;
}

static void log_nothing(LogLevel level, const LogAbout *about, const char *text)
{
}

static void on_turn(void *userdata)
{
        loop_quit(((Rig *) userdata)->host.loop);
}

void rig_begin_loop(Rig *rig)
{
        *rig = (Rig){.dir = rig_dir(), .host.config = config_default};
        log_set_sink(log_nothing);
        (void) signal(SIGPIPE, SIG_IGN);
        rig->host.config.runtime_dir = rig->dir;
        MUST(loop_new(&rig->host.loop) == 0);
        MUST(loop_timer_new(rig->host.loop, on_turn, rig, &rig->turn) == 0);
        MUST(parking_new(rig->host.loop, &rig->host.parking) == 0);
        MUST(helper_client_new(rig->host.loop, rig->dir, &rig->host.helper) == 0);
}

void rig_begin(Rig *rig, const char *state_dir)
{
        static const char *const nowhere = "/nonexistent";

        rig_begin_loop(rig);
        rig->host.config.state_dir = state_dir;
        rig->host.config.vms_dir = nowhere;
        rig->host.config.connect_usec = rig->host.config.doubt_usec = USEC_PER_SEC;
        rig->host.policies = &rig->policies;
        MUST(boot_id_read(rig->host.boot_id) == 0);
        MUST(plugins_new(rig->host.loop, nowhere, nowhere, &rig->host.plugins) == 0);
        if (store_open(rig->host.loop, state_dir, &rig->host.config.history, &rig->host.store) == 0)
                rig->host.host_id = store_host_id(rig->host.store);
}

void rig_end(Rig *rig)
{
        helper_client_free(rig->host.helper);
        plugins_free(rig->host.plugins);
        store_close(rig->host.store);
        policy_files_deinit(&rig->policies);
        parking_free(rig->host.parking);
        loop_timer_free(rig->turn);
        loop_free(rig->host.loop);
}

void rig_turn(Rig *rig)
{
        for (int i = 0; i < TURNS; i++) {
                loop_timer_soon(rig->turn);
                MUST(loop_run(rig->host.loop) == 0);
        }
}

bool rig_line(const char **text, size_t *size, const char **ret_line, size_t *ret_n)
{
        const char *end = *size > 0 ? memchr(*text, '\n', *size) : NULL;
        size_t n = end ? (size_t) (end - *text) : *size;

        if (*size == 0)
                return false;
        *ret_line = *text;
        *ret_n = n;
        n += end != NULL;
        *text += n;
        *size -= n;
        return true;
}
