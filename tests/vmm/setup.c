/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "setup.h"

#include <pthread.h>
#include <sys/eventfd.h>

struct Setup {
        const VmConfig *config;
        int notify_fd, cancel_fd;
        pthread_t thread;
        bool done; /* atomic; then the rest is there */
        int result;
        Vm *vm;
        char text[SETUP_TEXT_MAX];
};

static void *setup_main(void *userdata)
{
        Setup *s = userdata;

        s->result = vm_new(s->config, s->cancel_fd, s->notify_fd, &s->vm, s->text, sizeof s->text);
        __atomic_store_n(&s->done, true, __ATOMIC_RELEASE);
        (void) eventfd_write(s->notify_fd, 1);
        return NULL;
}

int setup_new(const VmConfig *config, int notify_fd, Setup **ret)
{
        Setup *s = calloc(1, sizeof *s);
        int r;

        if (!s)
                return -ENOMEM;
        *s = (Setup){.config = config, .notify_fd = notify_fd};
        s->cancel_fd = eventfd(0, EFD_CLOEXEC);
        r = s->cancel_fd < 0 ? errno : pthread_create(&s->thread, NULL, setup_main, s);
        if (r != 0) {
                closep(&s->cancel_fd);
                free(s);
                return -r;
        }
        *ret = s;
        return 0;
}

bool setup_is_done(const Setup *s)
{
        return __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);
}

int setup_end(Setup *s, Vm **ret, char text[SETUP_TEXT_MAX])
{
        int r;

        (void) eventfd_write(s->cancel_fd, 1);
        (void) pthread_join(s->thread, NULL);
        if (ret)
                *ret = TAKE_PTR(s->vm);
        (void) vm_free(s->vm);
        memcpy(text, s->text, SETUP_TEXT_MAX);
        r = s->result;
        (void) close(s->cancel_fd);
        free(s);
        return r;
}
