/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "check.h"

#include <stdio.h>

#include "plan.h"

/* Before this version QEMU takes a disk's lock at the destination when its memory is in, not when it starts. */
#define QEMU_LATE_BLOCK_ACTIVATE 10

/* With these its VFIO devices were moved, with us beside it. */
#define QEMU_TRIED_FIRST 10
#define QEMU_TRIED_LAST  11

static const char *const finding_weight_names[FINDING_MAX] = {
        [FINDING_REFUSAL] = "refusal",
        [FINDING_NOTICE] = "notice",
};

DEFINE_STRING_TABLE(FindingWeight, finding_weight, finding_weight_names);

void findings_deinit(Findings *findings)
{
        free(findings->items);
        *findings = (Findings){};
}

bool findings_refuse(const Findings *findings)
{
        for (uint32_t i = 0; i < findings->n; i++)
                if (findings->items[i].weight == FINDING_REFUSAL)
                        return true;
        return false;
}

static int add(Findings *findings, const char *device, const char *property, const char *source,
               const char *destination, const char *remedy)
{
        Finding *items = realloc(findings->items, (findings->n + 1) * sizeof *items), *finding;

        if (!items)
                return -ENOMEM;
        findings->items = items;
        finding = &items[findings->n++];
        *finding = (Finding){.property = property, .remedy = remedy};
        (void) snprintf(finding->device, sizeof finding->device, "%s", device);
        (void) snprintf(finding->source, sizeof finding->source, "%s", source);
        (void) snprintf(finding->destination, sizeof finding->destination, "%s", destination);
        return 0;
}

/* The same for something that is wrong on one side only. */
static int add_here(Findings *findings, Side side, const char *device, const char *property,
                    const char *value, const char *remedy)
{
        return add(findings, device, property, side == SIDE_SOURCE ? value : "",
                   side == SIDE_DESTINATION ? value : "", remedy);
}

static int notice_here(Findings *findings, Side side, const char *device, const char *property,
                       const char *value, const char *remedy)
{
        int r = add_here(findings, side, device, property, value, remedy);

        if (r == 0)
                findings->items[findings->n - 1].weight = FINDING_NOTICE;
        return r;
}

static int check_device(const ManifestDevice *device, Side side, Findings *findings)
{
        const char *state = device_state_to_string(device->state);

        /* The VMM that opens it there does not live yet. */
        if (side == SIDE_DESTINATION && (device->migration_flags & DEVICE_SUPERVISED))
                return 0;

        if (device->status == MANIFEST_NO_AGENT)
                return add_here(
                        findings, side, device->id, "agent", device->text,
                        "see that migmgr-helper.service runs on that host, and start it again if it hangs");
        if (device->status == MANIFEST_QUARANTINED)
                return add_here(
                        findings, side, device->id, "quarantine", device->text,
                        "reset it on that host: migctl reset VM DEVICE; if that fails again, replace it");
        if (device->status == -EPERM || device->status == -EACCES)
                return add_here(
                        findings, side, device->id, "device file", device->text,
                        "let migmgr-helper take a duplicate of the VMM's file: Yama, AppArmor or SELinux forbids it; "
                        "what to add there is said in docs/vm-definition.md");
        if (device->status < 0 && (device->migration_flags & DEVICE_SUPERVISED))
                return add_here(findings, side, device->id, "device file", device->text,
                                "see that \"vmm-device\" is the id of a vfio-pci device of this VM's QEMU");
        if (device->status < 0 && (device->migration_flags & DEVICE_KERNEL))
                return add_here(findings, side, device->id, "device file", device->text,
                                "bind the device to its VFIO driver, and free it of whoever has it open");
        if (device->status < 0)
                return add_here(findings, side, device->id, "connection", device->text,
                                "start the device's server, or free it of another client");
        if (!(device->migration_flags & DEVICE_MIGRATION_STOP_COPY))
                return add_here(findings, side, device->id, "migration", "not supported",
                                device->migration_flags & DEVICE_KERNEL
                                        ? "detach the device, or bind it to a driver that supports migration"
                                        : "detach the device, or use a server that supports migration");
        if (side == SIDE_SOURCE && device->state != DEVICE_STATE_RUNNING)
                return add_here(findings, side, device->id, "state", state ? state : "unknown",
                                "the device does not run: reset it");
        return 0;
}

/* A device that writes the VM's memory: somebody must move that memory, and must be told where the device wrote. */
static int check_dma(const ManifestDevice *device, const ManifestVmm *vmm, Findings *findings)
{
        /* What its VMM drives it logs by itself, and says so among its blockers if it can't. */
        if (device->status < 0 || (device->migration_flags & DEVICE_SUPERVISED) ||
            !(device->migration_flags & DEVICE_HAS_DMA))
                return 0;
        if (vmm->type == VMM_TYPE_NONE)
                return add_here(findings, SIDE_SOURCE, device->id, "memory",
                                "mapped by a VMM that is not defined",
                                "define the VMM whose memory it is: somebody must move it");
        if (!(device->migration_flags & DEVICE_DMA_LOGGING))
                return add_here(
                        findings, SIDE_SOURCE, device->id, "DMA logging", "not supported",
                        "what it writes into the VM's memory would be lost: use a server with DMA logging");
        /* No file of that memory came with the device's: we can't copy it. */
        if ((device->migration_flags & DEVICE_KERNEL) && !vmm->takes_dirty_pages)
                return add_here(
                        findings, SIDE_SOURCE, device->id, "dirty pages", "not taken by the VMM",
                        "what it writes into the VM's memory would be lost: use a VMM with TakesDirtyPages");
        return 0;
}

static int check_list(Findings *findings, const char *property, uint32_t n,
                      const char (*list)[MANIFEST_TEXT_MAX], const char *remedy)
{
        int r = 0;

        for (uint32_t i = 0; i < n && i < MANIFEST_REASONS_MAX && r == 0; i++)
                r = add_here(findings, SIDE_SOURCE, "", property, list[i], remedy);
        return r;
}

static int check_qemu(const ManifestVmm *vmm, Findings *findings)
{
        int r = 0;

        if (!streq(vmm->run_state, "running"))
                r = add_here(findings, SIDE_SOURCE, "", "run state", vmm->run_state,
                             "the VM must run: resume it, or end what has paused it");
        if (r == 0)
                r = check_list(findings, "migration blocker", vmm->n_blocked, vmm->blocked,
                               "take away what QEMU says it can't migrate");
        if (r == 0)
                r = check_list(
                        findings, "device in QEMU", vmm->n_vfio_user, vmm->vfio_user,
                        "QEMU would leave this device's state behind, or move it past the others: detach it; "
                        "or, if it is vfio-pci, define it by \"vmm-device\"");
        if (r == 0 && vmm->major < QEMU_LATE_BLOCK_ACTIVATE)
                r = check_list(
                        findings, "writable disk", vmm->n_writable, vmm->writable,
                        "QEMU before 10 would take the disk's lock too early: use QEMU 10 or a read-only disk");
        return r;
}

/* It is there on both sides; whether it has the VM is its own word. */
static int check_delegate(const ManifestVmm *vmm, Side side, Findings *findings)
{
        if (vmm->status < 0)
                return add_here(findings, side, "", "delegate", vmm->text,
                                "start the VM's own delegate, and let migmgrd call it");
        if (side == SIDE_SOURCE && !streq(vmm->run_state, "running"))
                return add_here(findings, side, "", "run state", vmm->run_state,
                                "the VM must run: resume it, or end what has paused it");
        if (side == SIDE_DESTINATION && !streq(vmm->run_state, "none"))
                return add_here(findings, side, "", "run state", vmm->run_state,
                                "end the VM that the destination's delegate has");
        return 0;
}

static int check_vmm(const Manifest *manifest, Side side, Findings *findings)
{
        const ManifestVmm *vmm = &manifest->vmm;

        if (vmm->type == VMM_TYPE_DELEGATE)
                return check_delegate(vmm, side, findings);
        if (vmm->type != VMM_TYPE_QMP)
                return 0;
        if (side == SIDE_SOURCE)
                return vmm->status < 0 ? add_here(findings, side, "", "monitor", vmm->text,
                                                  "make QEMU's monitor reachable for migmgrd alone")
                                       : check_qemu(vmm, findings);
        if (vmm->status == 0)
                return add_here(findings, side, "", "monitor", "a QEMU answers there already",
                                "end the VM that runs at the destination, or correct the definition");
        if (!manifest->can_start)
                return add_here(findings, side, "", "incoming.argv", "missing",
                                "say in the definition how the VM's process is started at the destination");
        return 0;
}

/* ---- devices that the VMM drives itself -------------------------------------------------------------------------- */

static uint32_t count_supervised(const Manifest *manifest)
{
        uint32_t n = 0;

        for (uint32_t i = 0; i < manifest->n_devices; i++)
                n += (manifest->devices[i].migration_flags & DEVICE_SUPERVISED) != 0;
        return n;
}

/* QEMU's own rule, which it keeps late, or by not starting. */
static int check_p2p(const Manifest *manifest, Findings *findings)
{
        int r = 0;

        for (uint32_t i = 0; i < manifest->n_devices && r == 0; i++) {
                const ManifestDevice *device = &manifest->devices[i];

                if (device->status == 0 && (device->migration_flags & DEVICE_SUPERVISED) &&
                    (device->migration_flags & DEVICE_MIGRATION_STOP_COPY) &&
                    !(device->migration_flags & DEVICE_MIGRATION_P2P))
                        r = add_here(
                                findings, SIDE_SOURCE, device->id, "P2P states", "not supported",
                                "QEMU moves several VFIO devices only if all have the P2P states: detach "
                                "it, or leave it the only one");
        }
        return r;
}

/* Below, what is only told: nothing of it turns a job back by itself. */
static int notice_qemu(const ManifestVmm *vmm, Side side, Findings *findings)
{
        int r = 0;

        if (vmm->version[0] && (vmm->major < QEMU_TRIED_FIRST || vmm->major > QEMU_TRIED_LAST))
                r = notice_here(findings, side, "", "QEMU", vmm->version,
                                "its VFIO devices were moved with QEMU 10 and 11 only: try it with a VM that "
                                "may be lost, or use one of these");
        for (uint32_t i = 0; i < vmm->n_silent && i < MANIFEST_REASONS_MAX && r == 0; i++)
                r = notice_here(
                        findings, side, "", "migration-events", vmm->silent[i],
                        "a reset of this device by QEMU can't be seen: start it with QEMU 9.1 or later "
                        "and migration-events=on");
        return r;
}

static int notice_grace(const Manifest *manifest, Findings *findings)
{
        if (!kernel_refuses_blocked_arcs(manifest->kernel))
                return notice_here(
                        findings, SIDE_SOURCE, "", "kernel",
                        manifest->kernel[0] ? manifest->kernel : "not known",
                        "its VFIO may hang where two set a device's state, so devices are quieted only when the "
                        "vCPUs stand: use 6.12.107 or later of 6.12, or 7.2 or later");
        if (!manifest->vmm.can_hold)
                return notice_here(
                        findings, SIDE_SOURCE, "", "migration thread", "can't be held",
                        "devices are quieted only when the vCPUs stand: start QEMU with -name debug-threads=on, "
                        "and let migmgr-helper trace it");
        return 0;
}

static int check_supervised(const Manifest *manifest, Side side, Findings *findings)
{
        uint32_t n = count_supervised(manifest);
        int r = 0;

        if (n == 0)
                return 0;
        if (side == SIDE_SOURCE && n > 1)
                r = check_p2p(manifest, findings);
        if (r == 0)
                r = notice_qemu(&manifest->vmm, side, findings);
        if (r == 0 && side == SIDE_SOURCE && manifest->vmm.type == VMM_TYPE_QMP && manifest->vmm.status == 0)
                r = notice_grace(manifest, findings);
        return r;
}

/* ---- what a host needs ------------------------------------------------------------------------------------------- */

/* A job's records are a few pages. On a disk that is full they fail in the middle of it. */
#define ROOM_NEEDED (4 * INT64_C(1024) * 1024)

static int check_room(const Manifest *manifest, Side side, Findings *findings)
{
        char text[32];

        if (manifest->free_bytes < 0 || manifest->free_bytes >= ROOM_NEEDED)
                return 0;
        (void) snprintf(text, sizeof text, "%lld KiB free", (long long) (manifest->free_bytes / 1024));
        return add_here(
                findings, side, "", "room for records", text,
                "free 4 MiB on that host where migmgrd keeps its records: /var/lib/migmgr, or --state-dir");
}

int check_side(const Manifest *manifest, Side side, Findings *findings)
{
        Presence wanted = side == SIDE_SOURCE ? PRESENCE_HERE : PRESENCE_AWAY;
        int r = 0;

        if (manifest->presence != wanted)
                r = add_here(findings, side, "", "presence", presence_to_string(manifest->presence),
                             side == SIDE_SOURCE ? "migrate it from the host where it is"
                                                 : "the destination says that the VM is there already");
        if (r == 0)
                r = check_vmm(manifest, side, findings);
        for (uint32_t i = 0; i < manifest->n_devices && r == 0; i++) {
                r = check_device(&manifest->devices[i], side, findings);
                if (r == 0 && side == SIDE_SOURCE)
                        r = check_dma(&manifest->devices[i], &manifest->vmm, findings);
        }
        if (r == 0)
                r = check_supervised(manifest, side, findings);
        if (r == 0)
                r = check_room(manifest, side, findings);
        return r;
}

/* ---- the two together -------------------------------------------------------------------------------------------- */

/* "10.0" behind the last "-". */
static bool has_version(const char *machine)
{
        const char *end = strrchr(machine, '-');
        size_t n = end ? strspn(end + 1, "0123456789.") : 0;

        return n > 0 && end[1 + n] == 0;
}

/* QEMU has short names for the newest of a kind, which is another one in another version of QEMU: "q35" for "pc-q35-10.0". */
static bool is_short_for(const char *name, const char *machine)
{
        static const struct {
                const char *name, *kind;
        } others[] = {{"pc", "pc-i440fx"}, {"q35", "pc-q35"}};
        const char *kind = name;
        size_t n;

        for (size_t i = 0; i < ARRAY_SIZE(others); i++)
                if (streq(others[i].name, name))
                        kind = others[i].kind;
        n = strlen(kind);
        return has_version(machine) && strncmp(machine, kind, n) == 0 && machine[n] == '-' &&
               has_version(machine + n) && !strchr(machine + n + 1, '-');
}

/* The one lives, and the other is only described. */
static int check_machine(const ManifestVmm *source, const ManifestVmm *destination, Findings *findings)
{
        int r;

        if (source->type != VMM_TYPE_QMP || destination->type != VMM_TYPE_QMP || !source->machine[0] ||
            streq(source->machine, destination->machine))
                return 0;
        if (destination->machine[0] && !is_short_for(destination->machine, source->machine))
                return add(findings, "", "machine type", source->machine, destination->machine,
                           "start it at the destination with the machine type that it has at the source");
        r = add(findings, "", "machine type", source->machine,
                destination->machine[0] ? destination->machine : "not said",
                "which one that is depends on QEMU's version there: say the full name in incoming.argv");
        if (r == 0)
                findings->items[findings->n - 1].weight = FINDING_NOTICE;
        return r;
}

static void flags_text(uint32_t flags, char ret[FINDING_VALUE_MAX])
{
        (void) snprintf(ret, FINDING_VALUE_MAX, "stop-copy%s%s", flags & DEVICE_MIGRATION_P2P ? ", p2p" : "",
                        flags & DEVICE_MIGRATION_PRE_COPY ? ", pre-copy" : "");
}

static int check_device_pair(const ManifestDevice *source, const ManifestDevice *destination,
                             Findings *findings)
{
        char a[FINDING_VALUE_MAX], b[FINDING_VALUE_MAX];

        if (source->type != destination->type)
                return add(findings, source->id, "type", device_type_to_string(source->type),
                           device_type_to_string(destination->type), "define the same type on both hosts");
        if ((source->migration_flags ^ destination->migration_flags) & DEVICE_SUPERVISED)
                return add(findings, source->id, "driven by",
                           source->migration_flags & DEVICE_SUPERVISED ? "its VMM" : "migmgrd",
                           destination->migration_flags & DEVICE_SUPERVISED ? "its VMM" : "migmgrd",
                           "define it on both hosts by \"vmm-device\", or on both by \"sysfs\"");
        /* What the source can and the destination can't is needed on the way in: P2P states are a barrier there. */
        if (destination->status == 0 && (destination->migration_flags & DEVICE_MIGRATION_STOP_COPY) &&
            (source->migration_flags & ~destination->migration_flags & DEVICE_MIGRATION_P2P)) {
                flags_text(source->migration_flags, a);
                flags_text(destination->migration_flags, b);
                return add(findings, source->id, "migration flags", a, b,
                           "use the same version of the device's server on both hosts");
        }
        return 0;
}

int check_pair(const Manifest *source, const Manifest *destination, Findings *findings)
{
        int r = 0;

        if (source->vmm.type != destination->vmm.type)
                r = add(findings, "", "vmm", vmm_type_to_string(source->vmm.type),
                        vmm_type_to_string(destination->vmm.type), "define the same VMM on both hosts");
        if (r == 0)
                r = check_machine(&source->vmm, &destination->vmm, findings);
        for (uint32_t i = 0; i < source->n_devices && r == 0; i++) {
                const ManifestDevice *other = manifest_find(destination, source->devices[i].id);

                r = other ? check_device_pair(&source->devices[i], other, findings)
                          : add(findings, source->devices[i].id, "device", "defined", "not defined",
                                "devices pair by their id: define it at the destination, too");
        }
        for (uint32_t i = 0; i < destination->n_devices && r == 0; i++)
                if (!manifest_find(source, destination->devices[i].id))
                        r = add(findings, destination->devices[i].id, "device", "not defined", "defined",
                                "devices pair by their id: define it at the source, too");
        return r;
}
