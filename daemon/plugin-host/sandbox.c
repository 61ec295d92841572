/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sandbox.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "daemon/plugin/plugin-protocol.h"

#define NOBODY 65534

/* A system call that is allowed, always or where the bits `mask` of argument `arg` are `value`. */
typedef struct Rule {
        int call;
        unsigned int arg;
        scmp_datum_t mask, value;
} Rule;

/* What a pure function needs of the kernel; all else fails with EPERM, so that a plugin that tries can say so. */
static const Rule always[] = {
        {SCMP_SYS(brk)},
        {SCMP_SYS(clock_gettime)},
        {SCMP_SYS(clock_nanosleep)},
        {SCMP_SYS(exit)},
        {SCMP_SYS(exit_group)},
        {SCMP_SYS(futex)},
        {SCMP_SYS(getpid)},
        {SCMP_SYS(getrandom)},
        {SCMP_SYS(gettid)},
        {SCMP_SYS(madvise)},
        {SCMP_SYS(mremap)},
        {SCMP_SYS(munmap)},
        {SCMP_SYS(nanosleep)},
        {SCMP_SYS(rt_sigreturn)},
        {SCMP_SYS(sched_yield)},
        {SCMP_SYS(write), 0, UINT32_MAX, PLUGIN_SOCKET_FD},
};

/* ... what loading it needs, and sandbox_close(): a plugin that never returns from its constructor keeps all of that, */
static const Rule loading[] = {
        {SCMP_SYS(close)},
        {SCMP_SYS(fstat)},
        {SCMP_SYS(getcwd)},
        {SCMP_SYS(getrlimit)},
        {SCMP_SYS(mmap)},
        {SCMP_SYS(mprotect)},
        {SCMP_SYS(newfstatat)},
        {SCMP_SYS(openat), 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY},
        {SCMP_SYS(pread64)},
        {SCMP_SYS(prctl), 0, UINT32_MAX, PR_SET_DUMPABLE},
        {SCMP_SYS(prlimit64), 0, UINT32_MAX, 0}, /* its own, by no number */
        {SCMP_SYS(read)},
        {SCMP_SYS(readlink)},
        {SCMP_SYS(seccomp)},
        {SCMP_SYS(setrlimit)},
};

/* ... and after that: no code that was not loaded. */
static const Rule loaded[] = {
        {SCMP_SYS(mmap), 2, PROT_EXEC, 0},
        {SCMP_SYS(mprotect), 2, PROT_EXEC, 0},
        {SCMP_SYS(read), 0, UINT32_MAX, PLUGIN_SOCKET_FD},
};

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static int add_rules(scmp_filter_ctx filter, const Rule *rules, size_t n)
{
        int r = 0;

        for (size_t i = 0; i < n && r == 0; i++)
                r = rules[i].mask ? seccomp_rule_add(filter, SCMP_ACT_ALLOW, rules[i].call, 1,
                                                     SCMP_CMP(rules[i].arg, SCMP_CMP_MASKED_EQ, rules[i].mask,
                                                              rules[i].value))
                                  : seccomp_rule_add(filter, SCMP_ACT_ALLOW, rules[i].call, 0);
        return r;
}

static int set_filter(const Rule *more, size_t n_more)
{
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
        int r = filter ? 0 : -ENOMEM;

        if (r == 0)
                r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0); /* it is set already */
        if (r == 0)
                r = add_rules(filter, always, ARRAY_SIZE(always));
        if (r == 0)
                r = add_rules(filter, more, n_more);
        if (r == 0)
                r = seccomp_load(filter);
        seccomp_release(filter);
        return r;
}

/* Root in a namespace may not have every capability; what counts is that none is left. */
static int drop_privileges(void)
{
        struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct none[2] = {};

        for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
                (void) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
        if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
                               setresuid(NOBODY, NOBODY, NOBODY) < 0))
                return -errno;
        if (syscall(SYS_capset, &head, none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        return 0;
}

static int set_limit(__rlimit_resource_t resource, rlim_t most)
{
        struct rlimit limit = {most, most};

        return setrlimit(resource, &limit) < 0 ? -errno : 0;
}

static int set_limits(void)
{
        int r = set_limit(RLIMIT_CORE, 0);

        if (r == 0)
                r = set_limit(RLIMIT_FSIZE, 0);
        if (r == 0)
                r = set_limit(RLIMIT_NPROC, 0);
        if (r == 0)
                r = set_limit(RLIMIT_NOFILE, 16);
        /* A sanitizer reserves terabytes. */
        if (r == 0 && !SANITIZED)
                r = set_limit(RLIMIT_AS, MIGMGR_MEMORY_MAX);
        return r;
}

int sandbox_enter(const char **ret_text)
{
        int r;

        *ret_text = "its privileges can't be dropped";
        r = drop_privileges();
        if (r < 0)
                return r;
        /* A plugin that hangs must not outlive the daemon. And the change of user has made our own /proc root's, through
         * which it is loaded. */
        *ret_text = "its process can't be bound to the daemon's life";
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
                return -errno;
        *ret_text = "its memory, files and processes can't be limited";
        r = set_limits();
        if (r < 0)
                return r;
        *ret_text = "its system calls can't be filtered";
        return set_filter(loading, ARRAY_SIZE(loading));
}

int sandbox_close(const char **ret_text)
{
        int r;

        *ret_text = "its files can't be limited";
        if (prctl(PR_SET_DUMPABLE, 0) < 0)
                return -errno;
        r = set_limit(RLIMIT_NOFILE, 0);
        if (r < 0)
                return r;
        *ret_text = "its system calls can't be filtered";
        return set_filter(loaded, ARRAY_SIZE(loaded));
}
