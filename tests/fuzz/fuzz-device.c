/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What an agent says, to the daemon's side of it, which opens the device and gives it one command after the other. An input is a
 * list of steps of any number of packets:
 *
 *     what    one byte: AgentPacketType; 0: the connection ends; 255: the daemon gives it another command
 *     how     one byte: HOW_*
 *     n       one byte: so many bytes follow, what is behind the head of the packet; missing ones are 0
 *
 * Each command is answered at most once, and only with values that make sense. */

#include <sys/socket.h>

#include "daemon/device/device.h"
#include "fake-agent.h"
#include "fuzz.h"
#include "rig.h"

enum {
        HOW_SEQ = 1 << 0,  /* the command's own number is put in */
        HOW_FILE = 1 << 1, /* a file comes with it */
        HOW_WAIT = 1 << 2, /* all that follows from it happens before the next */
        HOW_LONG = 1 << 3, /* as if another byte belonged to it */
};

enum { STEP_HANG_UP = 0, STEP_COMMAND = 255 };

typedef struct World {
        Rig rig;
        FakeAgent agent;
        Vmm *vmm;
        Device *device;
        uint32_t step, asked; /* asked: not answered yet, or 0 */
} World;

static const char definition_text[] =
        "{\"uuid\":\"0f0e0d0c-0b0a-4908-8706-050403020100\",\"name\":\"vm\",\"vmm\":{\"type\":\"none\"},"
        "\"devices\":[{\"id\":\"nic\",\"type\":\"vfio-user\",\"socket\":\"/nic\",\"broker\":\"/broker\"}]}";

static void check_text(const char *text)
{
        MUST(text && strlen(text) < AGENT_TEXT_MAX);
}

static void on_gone(void *userdata, uint32_t index, int status, const char *text)
{
        MUST(status <= 0 && status >= -4095);
        check_text(text);
}

static void on_progress(void *userdata, uint32_t index, uint64_t bytes)
{
}

static void on_dirty(void *userdata, uint32_t index, const AgentDirty *dirty, int fd)
{
        MUST(fd >= 0 && dirty->n_pages > 0 && dirty->page_size >= 4096);
        (void) close(fd);
}

static void on_changed(void *userdata, uint32_t index)
{
        const World *w = userdata;

        MUST(!w->device || device_state_to_string(device_state(w->device)));
}

static void on_wanted(void *userdata, uint32_t index)
{
}

static void on_opened(void *userdata, uint32_t index, int status, const char *text)
{
        MUST(status <= 0 && status >= -4095);
        check_text(text);
}

static void on_answered(void *userdata, uint32_t index, uint32_t step, const AgentResultPacket *result)
{
        World *w = userdata;

        MUST(w->asked != 0 && step == w->asked);
        MUST(result->status <= 0 && result->status >= -4095 && device_state_to_string(result->state));
        MUST(result->op <= DEVICE_PROGRAM_MAX);
        check_text(result->text);
        w->asked = 0;
}

static void command(World *w, uint8_t how)
{
        const DeviceProgram program = {
                .n = 1, .ops = {{.type = (DeviceOpType) (how >> 4) % DEVICE_OP_MAX, .from = 1, .to = 2}}};

        if (how & HOW_LONG)
                device_open(w->device, on_opened, w);
        w->asked = ++w->step;
        device_run(w->device, "00000000-0000-4000-8000-000000000001", &program, &(TransferLimits){},
                   USEC_PER_SEC, how & HOW_SEQ, w->step, on_answered, w);
}

static void say(World *w, uint8_t what, uint8_t how, const uint8_t *data, size_t size)
{
        AgentPacket packet = {.head.type = what};

        memcpy(packet.bytes + sizeof packet.head, data, size);
        if (how & HOW_SEQ)
                packet.result.seq = w->agent.seq;
        if (how & HOW_LONG && w->agent.fd >= 0)
                (void) send(w->agent.fd, &packet, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        else if (agent_packet_size(what) > 0)
                fake_agent_say(&w->agent, &packet, how & HOW_FILE ? w->agent.listen_fd : -1);
}

static void perform(World *w, const uint8_t *data, size_t size)
{
        while (size >= 3) {
                uint8_t what = data[0], how = data[1];
                size_t n = MIN((size_t) data[2], size - 3);

                if (what == STEP_HANG_UP)
                        fake_agent_hang_up(&w->agent);
                else if (what == STEP_COMMAND)
                        command(w, how);
                else
                        say(w, what, how, data + 3, n);
                if (how & HOW_WAIT)
                        rig_turn(&w->rig);
                data += 3 + n;
                size -= 3 + n;
        }
        rig_turn(&w->rig);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const DeviceListener listener = {on_gone, on_progress, on_dirty, on_changed, on_wanted};
        static World w;
        Definition *definition;
        char error[512];

        w = (World){};
        rig_begin_loop(&w.rig);
        MUST(definition_parse(definition_text, strlen(definition_text), &definition, error) == 0);
        fake_agent_begin(&w.agent, w.rig.host.loop, w.rig.dir, false, DEVICE_STATE_RUNNING);
        MUST(vmm_new(w.rig.host.loop, w.rig.host.helper, definition, NULL, NULL, &w.vmm) == 0);
        MUST(device_new(&(DevicePlace){definition, w.vmm, w.rig.host.loop, w.rig.host.helper,
                                       w.rig.host.parking, w.rig.dir, USEC_PER_SEC},
                        &definition->devices[0], 0, &listener, &w, &w.device) == 0);
        device_open(w.device, on_opened, &w);
        rig_turn(&w.rig);
        perform(&w, data, size);
        device_close(w.device);
        device_free(w.device);
        vmm_free(w.vmm);
        definition_free(definition);
        fake_agent_end(&w.agent);
        rig_end(&w.rig);
        return 0;
}
