/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What QEMU says, to the real adapter over a real socket. The first byte of an input says how it begins: 'r': all of it is what
 * the monitor says, byte for byte. Any other is an act ('a' + VmmAct), begun when the monitor has greeted, and the lines say what
 * QEMU does:
 *
 *     =JSON       answers the command that came first with that
 *     !TEXT       refuses it
 *     @A          another act begins
 *     anything    is said as it is: an event, or what is none
 *
 * When there are no more lines all that is left is answered with {}. An act is answered at most once. */

#include <sys/socket.h>

#include "common/json.h"
#include "common/socket.h"
#include "daemon/vmm/vmm.h"
#include "fuzz.h"
#include "rig.h"

#define GREETING "{\"QMP\":{\"version\":{},\"capabilities\":[\"oob\"]}}\n"
#define LONG     (60 * USEC_PER_SEC)
#define ANSWERS  64 /* that are made up when the input has no more */

static const char definition_text[] =
        "{\"uuid\":\"0f0e0d0c-0b0a-4908-8706-050403020100\",\"name\":\"vm\",\"devices\":["
        "{\"id\":\"nic\",\"type\":\"vfio\",\"vmm-device\":\"vf0\"}],"
        "\"vmm\":{\"type\":\"qmp\",\"monitor\":\"%s/qmp\",\"incoming\":{\"argv\":[\"/bin/qemu\",\"-device\","
        "\"vfio-pci,id=vf0,host=0000:00:01.0\"]}}}";

typedef struct Monitor {
        Rig rig;
        Vmm *vmm;
        int fd;
        char in[64 * 1024]; /* what it was asked and has not read */
        size_t n_in;
        uint32_t step;
        bool asked; /* the act of that step was not answered */
} Monitor;

static int listener = -1;

static void on_answered(void *userdata, uint32_t step, int status, const char *text)
{
        Monitor *m = userdata;

        MUST(m->asked && step == m->step && status <= 0 && text);
        m->asked = false;
}

static void on_nothing(void *userdata)
{
}

static void on_halted(void *userdata, uint64_t usec)
{
}

static void on_progress(void *userdata, uint64_t done_bytes, uint64_t total_bytes)
{
}

static void on_device_reset(void *userdata, const char *vmm_device, const char *text)
{
        MUST(streq(vmm_device, "vf0") && text);
}

static void on_found(void *userdata, int status, const char *text)
{
        MUST(status <= 0 && text);
}

static void begin_act(Monitor *m, uint8_t letter)
{
        VmmAct act = (VmmAct) (letter - 'a');

        if (letter < 'a' || act <= VMM_ACT_NONE || act >= VMM_ACT_MAX)
                return;
        m->asked = true;
        vmm_act(m->vmm, act, ++m->step, LONG);
}

static void say(Monitor *m, const char *text, size_t size)
{
        if (m->fd >= 0)
                (void) send(m->fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* The id of the command that came first, as text; false: none has come. */
static bool take_command(Monitor *m, char ret[32])
{
        int fds[SOCKET_FDS_MAX];
        size_t n_fds = 0;
        ssize_t n = m->fd < 0 ? -1
                              : socket_recv(m->fd, m->in + m->n_in, sizeof m->in - m->n_in, fds,
                                            ARRAY_SIZE(fds), &n_fds);
        char *end, *id;

        for (size_t i = 0; i < n_fds; i++)
                (void) close(fds[i]);
        if (n > 0)
                m->n_in += (size_t) n;
        end = memchr(m->in, '\n', m->n_in);
        if (!end)
                return false;
        *end = 0;
        id = strstr(m->in, "\"id\":");
        MUST(id && (strstr(m->in, "\"execute\":") || strstr(m->in, "\"exec-oob\":")));
        (void) snprintf(ret, 32, "%llu", strtoull(id + 5, NULL, 10));
        m->n_in -= (size_t) (end + 1 - m->in);
        memmove(m->in, end + 1, m->n_in);
        return true;
}

static bool answer(Monitor *m, const char *how, const char *text, size_t size, const char *end)
{
        char id[32];

        rig_turn(&m->rig);
        if (!take_command(m, id))
                return false;
        say(m, how, strlen(how));
        say(m, text, size);
        say(m, end, strlen(end));
        say(m, ",\"id\":", 6);
        say(m, id, strlen(id));
        say(m, "}\n", 2);
        return true;
}

static void perform(Monitor *m, const char *text, size_t size)
{
        const char *line;
        size_t n;

        while (rig_line(&text, &size, &line, &n)) {
                if (n > 0 && line[0] == '=')
                        (void) answer(m, "{\"return\":", line + 1, n - 1, "");
                else if (n > 0 && line[0] == '!')
                        (void) answer(m, "{\"error\":{\"desc\":\"", line + 1, n - 1, "\"}");
                else if (n == 2 && line[0] == '@')
                        begin_act(m, (uint8_t) line[1]);
                else {
                        say(m, line, n);
                        say(m, "\n", 1);
                }
                rig_turn(&m->rig);
        }
        for (int i = 0; i < ANSWERS && answer(m, "{\"return\":", "{}", 2, ""); i++)
                rig_turn(&m->rig);
}

static void monitor_begin(Monitor *m, Definition **ret_definition)
{
        static const VmmListener events = {on_answered, on_nothing,  on_halted,
                                           on_nothing,  on_progress, on_device_reset};
        char text[1024], error[JSON_TEXT_MAX];

        *m = (Monitor){.fd = -1};
        rig_begin_loop(&m->rig);
        (void) snprintf(text, sizeof text, "%s/qmp", m->rig.dir);
        if (listener < 0)
                listener = socket_listen(text, SOCK_STREAM);
        MUST(listener >= 0);
        (void) snprintf(text, sizeof text, definition_text, m->rig.dir);
        MUST(definition_parse(text, strlen(text), ret_definition, error) == 0);
        MUST(vmm_new(m->rig.host.loop, m->rig.host.helper, *ret_definition, &events, m, &m->vmm) == 0);
        vmm_set_limits(m->vmm, &(VmmLimits){.bandwidth = MIB, .grace = true, .push = true, .p2p = true});
        vmm_find(m->vmm, on_found, m);
        rig_turn(&m->rig);
        m->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        MUST(m->fd >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        const char *text = (const char *) data + 1;
        Definition *definition;
        Monitor m;
        int fd;

        if (size == 0)
                return 0;
        monitor_begin(&m, &definition);
        if (data[0] == 'r') {
                say(&m, text, size - 1);
                rig_turn(&m.rig);
        } else {
                say(&m, GREETING, strlen(GREETING));
                (void) answer(&m, "{\"return\":", "{}", 2, "");
                rig_turn(&m.rig);
                begin_act(&m, data[0]);
                perform(&m, text, size - 1);
        }
        vmm_free(m.vmm);
        definition_free(definition);
        rig_end(&m.rig);
        (void) close(m.fd);
        while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
                (void) close(fd); /* where it has connected anew */
        return 0;
}
