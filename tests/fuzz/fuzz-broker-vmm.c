/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Bytes from a VMM, on its connection and its twin socket. The first byte chooses what stands around; whatever comes, the
 * server gets whole messages of bounded size (stage.c insists), and in the end nothing is left. */

#include "fuzz.h"
#include "stage.h"

enum {
        SERVER_TWIN = 1 << 0,
        GREETED = 1 << 1,
        VMM_TWIN = 1 << 2,
        HELD = 1 << 3,     /* in the second half */
        RESUMING = 1 << 4, /* from the beginning */
        ON_TWIN = 1 << 5,  /* the second half comes there */
        LOST = 1 << 6,     /* the server goes before the second half */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static Stage stage; /* large */
        uint8_t how = size > 0 ? data[0] : 0;
        size_t half;

        if (size < 1 || size > STAGE_WIRE_MAX)
                return 0;
        stage_begin(&stage, how & SERVER_TWIN, how & GREETED, how & VMM_TWIN && how & GREETED);
        if (how & RESUMING)
                broker_see_state(stage.broker, DEVICE_STATE_RESUMING, false);
        data++;
        half = (size - 1) / ((how & (HELD | ON_TWIN | LOST)) ? 2 : 1);
        stage_send(&stage, &stage.vmm, data, half);
        if (how & HELD)
                broker_set_held(stage.broker, true);
        if (how & LOST)
                broker_set_device(stage.broker, NULL);
        stage_send(&stage, how & ON_TWIN ? &stage.vmm_twin : &stage.vmm, data + half, size - 1 - half);
        if (how & LOST)
                broker_set_device(stage.broker, stage.device);
        broker_set_held(stage.broker, false);
        stage_run(&stage, true);
        stage_end(&stage);
        return 0;
}
