/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Bytes from a device server, on its connection and its twin socket, to a broker whose VMM has asked for this and that. */

#include "fuzz.h"
#include "stage.h"

#include "daemon/agent/vfio-user-wire.h"

enum {
        SERVER_TWIN = 1 << 0,
        VMM_TWIN = 1 << 1,
        ON_TWIN = 1 << 2,      /* the second half comes there */
        VMM_GOES = 1 << 3,     /* before the second half */
        CONNECT_ANEW = 1 << 4, /* the broker has to give again what the VMM has set up */
};

/* One of each, with numbers from 10; the server's answers come from the fuzzer. */
static void ask(Stage *stage)
{
        static const VfioUserDmaMap map = {sizeof map, 3, 0, 0x1000, 0x1000};
        static const VfioUserSetIrqs irqs = {sizeof irqs, 36, 2, 0, 0};
        static const VfioUserRegionAccess read = {0, 0, 64};
        static const uint32_t info[4] = {16, 0, 0, 0};
        static const VfioUserRegionInfo region = {.argsz = 64};
        static const VfioUserDmaUnmap unmap = {sizeof unmap, 0, 0x1000, 0x1000};

        stage_say(&stage->vmm, 10, VFIO_USER_DMA_MAP, 0, &map, sizeof map);
        stage_say(&stage->vmm, 11, VFIO_USER_REGION_READ, 0, &read, sizeof read);
        stage_say(&stage->vmm, 12, VFIO_USER_DEVICE_GET_INFO, 0, info, sizeof info);
        stage_say(&stage->vmm, 13, VFIO_USER_DEVICE_GET_REGION_INFO, 0, &region, sizeof region);
        stage_say(&stage->vmm, 14, VFIO_USER_DEVICE_SET_IRQS, 0, &irqs, sizeof irqs);
        stage_say(&stage->vmm, 15, VFIO_USER_DMA_UNMAP, 0, &unmap, sizeof unmap);
        stage_say(&stage->vmm, 16, VFIO_USER_DEVICE_RESET, VFIO_USER_NO_REPLY, NULL, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const VfioUserDmaMap map = {sizeof map, 3, 0, 0x8000, 0x1000};
        static Stage stage; /* large */
        uint8_t how = size > 0 ? data[0] : 0;
        size_t half;

        if (size < 1 || size > STAGE_WIRE_MAX)
                return 0;
        stage_begin(&stage, how & SERVER_TWIN, true, how & VMM_TWIN);
        if (how & CONNECT_ANEW) {
                stage_say(&stage.vmm, 9, VFIO_USER_DMA_MAP, 0, &map, sizeof map);
                stage_run(&stage, true);
                broker_set_device(stage.broker, NULL);
                broker_set_device(stage.broker, stage.device);
        }
        ask(&stage);
        data++;
        half = (size - 1) / ((how & (ON_TWIN | VMM_GOES)) ? 2 : 1);
        stage_run(&stage, false);
        stage_send(&stage, &stage.server, data, half);
        if (how & VMM_GOES) {
                (void) close(stage.vmm.fd);
                stage.vmm.fd = -1;
                stage_run(&stage, false);
        }
        stage_send(&stage, how & ON_TWIN ? &stage.server_twin : &stage.server, data + half, size - 1 - half);
        stage_run(&stage, false);
        stage_end(&stage);
        return 0;
}
