/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vm.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "common/clock.h"

#define TICK_USEC (1 * USEC_PER_MSEC) /* how exact the guest's clock is */
#define IDLE_MSEC 5                   /* a guest that waits looks again after this */

struct Vcpu {
        Vm *vm;
        pthread_t thread;
        bool has_thread;
        int kick_fd; /* wakes a guest that waits */
        int notify_fd;
        bool wanted; /* to run. Atomic: read before each step */

        pthread_mutex_t lock;
        pthread_cond_t changed;
        bool stands, ends; /* with the lock */
        uint64_t stands_since_usec;
};

/* ---- the vCPU's thread --------------------------------------------------------------------------------------- */

/* Until some device has an interrupt, somebody kicks, or a moment has passed. */
static void wait_for_interrupts(Vcpu *c)
{
        struct pollfd fds[1 + VM_DEVICES_MAX] = {{c->kick_fd, POLLIN}};
        unsigned n = 1;
        eventfd_t kicks;

        for (unsigned i = 0; i < c->vm->n_devices; i++)
                fds[n++] = (struct pollfd){device_interrupt_fd(c->vm->devices[i], 0), POLLIN};
        (void) poll(fds, n, IDLE_MSEC);
        if (fds[0].revents)
                (void) eventfd_read(c->kick_fd, &kicks);
}

/* Stands until it is wanted again. False: it never is. */
static bool stand(Vcpu *c)
{
        bool goes_on;

        (void) pthread_mutex_lock(&c->lock);
        if (!c->stands) {
                c->stands = true;
                __atomic_store_n(&c->vm->ram->vcpus_stand, true, __ATOMIC_RELEASE);
                c->stands_since_usec = clock_monotonic_usec();
                (void) pthread_cond_broadcast(&c->changed);
                (void) eventfd_write(c->notify_fd, 1);
        }
        while (!c->ends && !__atomic_load_n(&c->wanted, __ATOMIC_ACQUIRE))
                (void) pthread_cond_wait(&c->changed, &c->lock);
        goes_on = !c->ends;
        if (goes_on) {
                c->stands = false;
                __atomic_store_n(&c->vm->ram->vcpus_stand, false, __ATOMIC_RELEASE);
        }
        (void) pthread_cond_broadcast(&c->changed);
        (void) pthread_mutex_unlock(&c->lock);
        return goes_on;
}

/* The guest's clock goes while it runs: what it waits for does not grow old while it stands. */
static void run_guest(Vcpu *c)
{
        Guest *guest = &c->vm->guest;
        uint64_t since = clock_monotonic_usec();
        unsigned idle = 0;

        while (__atomic_load_n(&c->wanted, __ATOMIC_ACQUIRE)) {
                GuestStep step = guest_step(guest);
                uint64_t now = clock_monotonic_usec();

                if (step != GUEST_BROKEN && now - since >= TICK_USEC) {
                        guest_pass(guest, now - since);
                        since = now;
                }
                idle = step == GUEST_WORKED ? 0 : idle + 1;
                /* Nobody had anything to do, in a whole turn. */
                if (step == GUEST_BROKEN || idle > c->vm->n_devices) {
                        wait_for_interrupts(c);
                        idle = 0;
                }
                if (c->vm->config->rest_usec > 0)
                        (void) usleep((useconds_t) c->vm->config->rest_usec);
        }
}

static void *vcpu_main(void *userdata)
{
        Vcpu *c = userdata;

        while (stand(c))
                run_guest(c);
        return NULL;
}

static Vcpu *vcpu_free(Vcpu *c)
{
        if (!c)
                return NULL;
        (void) pthread_mutex_lock(&c->lock);
        c->ends = true;
        __atomic_store_n(&c->wanted, false, __ATOMIC_RELEASE);
        (void) pthread_cond_broadcast(&c->changed);
        (void) pthread_mutex_unlock(&c->lock);
        if (c->has_thread) {
                (void) eventfd_write(c->kick_fd, 1);
                (void) pthread_join(c->thread, NULL);
        }
        closep(&c->kick_fd);
        (void) pthread_cond_destroy(&c->changed);
        (void) pthread_mutex_destroy(&c->lock);
        free(c);
        return NULL;
}
DEFINE_CLEANUP(Vcpu *, vcpu_free);

static int vcpu_new(Vm *vm, int notify_fd, Vcpu **ret)
{
        _cleanup_(vcpu_freep) Vcpu *c = calloc(1, sizeof *c);
        int r;

        if (!c)
                return -ENOMEM;
        c->vm = vm;
        c->notify_fd = notify_fd;
        (void) pthread_mutex_init(&c->lock, NULL);
        (void) pthread_cond_init(&c->changed, NULL);
        c->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (c->kick_fd < 0)
                return -errno;
        r = pthread_create(&c->thread, NULL, vcpu_main, c);
        if (r != 0)
                return -r;
        c->has_thread = true;
        *ret = TAKE_PTR(c);
        return 0;
}

/* ---- the VM -------------------------------------------------------------------------------------------------- */

static int connect_devices(Vm *vm, int cancel_fd, char *text, size_t size)
{
        const VmConfig *config = vm->config;
        uint64_t deadline_usec = clock_monotonic_usec() + config->connect_usec;

        for (unsigned i = 0; i < config->n_devices; i++) {
                int r = device_new(config->devices[i].id, config->devices[i].path, vm->ram, deadline_usec,
                                   cancel_fd, &vm->devices[i], text, size);

                if (r < 0)
                        return r;
                vm->n_devices++;
        }
        return 0;
}

/* Each to the next, the last to the first: a ring of devices that write each other's memory. */
static int connect_peers(Vm *vm, char *text, size_t size)
{
        for (unsigned i = 0; vm->n_devices > 1 && i < vm->n_devices; i++) {
                unsigned peer = (i + 1) % vm->n_devices;
                int r = device_map_peer(vm->devices[i], vm->devices[peer], VM_MAILBOX_ADDRESS(peer));

                if (r < 0) {
                        (void) snprintf(text, size, "device %s: DMA_MAP of the mailbox of %s: %s",
                                        device_id(vm->devices[i]), device_id(vm->devices[peer]),
                                        strerror(-r));
                        return r;
                }
        }
        return 0;
}

int vm_new(const VmConfig *config, int cancel_fd, int notify_fd, Vm **ret, char *text, size_t size)
{
        _cleanup_(vm_freep) Vm *vm = calloc(1, sizeof *vm);
        int r;

        text[0] = '\0';
        if (!vm)
                return -ENOMEM;
        vm->config = config;
        r = ram_new(config->memory_bytes, &vm->ram);
        if (r == 0)
                vm->ram->vcpus_serve = config->viommu;
        if (r == 0)
                r = connect_devices(vm, cancel_fd, text, size);
        if (r == 0)
                r = connect_peers(vm, text, size);
        if (r == 0)
                r = guest_init(&vm->guest, vm->ram, vm->devices, vm->n_devices);
        if (r == 0)
                r = vcpu_new(vm, notify_fd, &vm->vcpu);
        if (r < 0) {
                if (!text[0])
                        (void) snprintf(text, size, "making the VM: %s", strerror(-r));
                return r;
        }
        *ret = TAKE_PTR(vm);
        return 0;
}

Vm *vm_free(Vm *vm)
{
        if (!vm)
                return NULL;
        /* First: an access of the vCPU that is not answered ends with this. */
        for (unsigned i = 0; i < vm->n_devices; i++)
                device_disconnect(vm->devices[i]);
        (void) vcpu_free(vm->vcpu);
        for (unsigned i = 0; i < vm->n_devices; i++)
                (void) device_free(vm->devices[i]);
        guest_done(&vm->guest);
        (void) ram_free(vm->ram);
        free(vm);
        return NULL;
}

void vm_run(Vm *vm)
{
        Vcpu *c = vm->vcpu;

        (void) pthread_mutex_lock(&c->lock);
        __atomic_store_n(&c->wanted, true, __ATOMIC_RELEASE);
        (void) pthread_cond_broadcast(&c->changed);
        while (c->stands)
                (void) pthread_cond_wait(&c->changed, &c->lock);
        (void) pthread_mutex_unlock(&c->lock);
}

void vm_stop(Vm *vm)
{
        __atomic_store_n(&vm->vcpu->wanted, false, __ATOMIC_RELEASE);
        (void) eventfd_write(vm->vcpu->kick_fd, 1);
}

bool vm_stands(Vm *vm, uint64_t *ret_usec)
{
        Vcpu *c = vm->vcpu;
        bool stands;

        (void) pthread_mutex_lock(&c->lock);
        stands = c->stands;
        if (stands)
                *ret_usec = c->stands_since_usec;
        (void) pthread_mutex_unlock(&c->lock);
        return stands;
}
