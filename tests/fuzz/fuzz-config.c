/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* migmgrd.json: any text is either taken, within the bounds that config.h promises, or refused with a reason. */

#include "common/json.h"
#include "daemon/peer/address.h"
#include "fuzz.h"
#include "rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char path[128], error[JSON_TEXT_MAX] = "";
        const char *reason;
        Config config = config_default;
        FILE *file;
        int r;

        (void) snprintf(path, sizeof path, "%s/migmgrd.json", rig_dir());
        file = fopen(path, "we");
        MUST(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
        config.config_file = path;
        r = config_read(&config, error);
        MUST(r == (error[0] ? -EINVAL : 0));
        if (r == 0) {
                MUST(config.n_listen <= CONFIG_LISTEN_MAX && config.n_fence <= CONFIG_FENCE_MAX);
                MUST(config.n_policies_dirs <= CONFIG_POLICIES_DIRS_MAX);
                MUST(config.n_fence == 0 || config.fence[0][0] == '/');
                MUST(!config.fence[config.n_fence]);
                MUST(config.connect_usec > 0 && config.doubt_usec > 0 && config.fence_usec > 0);
        }
        for (uint32_t i = 0; r == 0 && i < config.n_listen; i++)
                MUST(address_check(config.listen[i], &reason) == 0);
        config_deinit(&config);
        return 0;
}
