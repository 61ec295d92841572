/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Started by migmgr-helper, never by hand: descriptor 3 is the socket on which commanders connect. */

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "agent.h"
#include "common/log.h"

#define LISTEN_FD 3

/* The broker keeps a file for each interrupt of a VMM, and the usual soft limit is for programs that use select(). */
static void raise_file_limit(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit);
}

static int run(void)
{
        struct event_base *base = event_base_new();
        Agent *agent = NULL;
        int r = -ENOMEM;

        if (base)
                r = agent_new(base, LISTEN_FD, &agent);
        if (r >= 0 && event_base_dispatch(base) < 0)
                r = -EIO;
        agent_free(agent);
        if (base)
                event_base_free(base);
        return r;
}

int main(int argc, char **argv)
{
        static const struct option options[] = {
                {"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {}};
        int c, r;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'h':
                        printf("migmgr-agent NAME\n\nHolds one device for migmgrd. Started by migmgr-helper, with the "
                               "socket for its commander as\ndescriptor 3. NAME, the VM and the device, is for people who "
                               "read ps.\n\n  --help     this text\n  --version  version\n");
                        return 0;
                case 'V': printf("migmgr-agent %s\n", PACKAGE_VERSION); return 0;
                default: return 2;
                }
        (void) signal(SIGPIPE, SIG_IGN);
        raise_file_limit();
        r = run();
        if (r < 0)
                log_error(NULL, "migmgr-agent %s: %s", optind < argc ? argv[optind] : "", strerror(-r));
        return r < 0 ? 1 : 0;
}
