/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "check.h"

#include <stdio.h>

#include "p2p.h"
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

/* ---- what is said ---------------------------------------------------------------------------------------------- */

#define REFUSAL(what, how)                          \
        {                                           \
                .property = (what), .remedy = (how) \
        }
#define NOTICE(what, how)                                                     \
        {                                                                     \
                .property = (what), .remedy = (how), .weight = FINDING_NOTICE \
        }

/* clang-format off */
static const FindingDesc descs[FINDING_ID_MAX] = {
        [FINDING_AGENT] = REFUSAL("agent",
                "see that migmgr-helper.service runs on that host, and start it again if it hangs"),
        [FINDING_QUARANTINE] = REFUSAL("quarantine",
                "reset it on that host: migctl reset VM DEVICE; if that fails again, replace it"),
        [FINDING_FILE_FORBIDDEN] = REFUSAL("device file",
                "let migmgr-helper take a duplicate of the VMM's file: Yama, AppArmor or SELinux forbids it; "
                "what to add there is said in docs/vm-definition.md"),
        [FINDING_FILE_OF_VMM] = REFUSAL("device file",
                "see that \"vmm-device\" is the id of a vfio-pci device of this VM's QEMU"),
        [FINDING_FILE_OF_KERNEL] = REFUSAL("device file",
                "bind the device to its VFIO driver, and free it of whoever has it open"),
        [FINDING_CONNECTION] = REFUSAL("connection",
                "start the device's server, or free it of another client"),
        [FINDING_PRESENCE_HERE] = REFUSAL("presence", "migrate it from the host where it is"),
        [FINDING_PRESENCE_THERE] = REFUSAL("presence",
                "the destination says that the VM is there already"),
        [FINDING_MONITOR] = REFUSAL("monitor", "make QEMU's monitor reachable for migmgrd alone"),
        [FINDING_MONITOR_TAKEN] = REFUSAL("monitor",
                "end the VM that runs at the destination, or correct the definition"),
        [FINDING_INCOMING_ARGV] = REFUSAL("incoming.argv",
                "say in the definition how the VM's process is started at the destination"),
        [FINDING_DELEGATE] = REFUSAL("delegate",
                "start the VM's own delegate, and let migmgrd call it"),
        [FINDING_RUN_STATE_QEMU] = REFUSAL("run state",
                "the VM must run: resume it, or end what has paused it"),
        [FINDING_RUN_STATE_DELEGATE] = REFUSAL("run state",
                "the VM must run: resume it, or end what has paused it"),
        [FINDING_RUN_STATE_TAKEN] = REFUSAL("run state",
                "end the VM that the destination's delegate has"),

        [FINDING_MIGRATION_KERNEL] = REFUSAL("migration",
                "detach the device, or bind it to a driver that supports migration"),
        [FINDING_MIGRATION_SERVER] = REFUSAL("migration",
                "detach the device, or use a server that supports migration"),
        [FINDING_STATE] = REFUSAL("state", "the device does not run: reset it"),
        [FINDING_MEMORY_OF_NOBODY] = REFUSAL("memory",
                "define the VMM whose memory it is: somebody must move it"),
        [FINDING_DMA_LOGGING] = REFUSAL("DMA logging",
                "what it writes into the VM's memory would be lost: use a server with DMA logging"),
        [FINDING_DIRTY_PAGES] = REFUSAL("dirty pages",
                "what it writes into the VM's memory would be lost: use a VMM with TakesDirtyPages"),
        [FINDING_BLOCKER] = REFUSAL("migration blocker", "take away what QEMU says it can't migrate"),
        [FINDING_UNDEFINED_DEVICE] = REFUSAL("device in QEMU",
                "QEMU would leave this device's state behind, or move it past the others: detach it; "
                "or, if it is vfio-pci, define it by \"vmm-device\""),
        [FINDING_UNDEFINED_ALLOWED] = NOTICE("device in QEMU",
                "policy \"opaque\" allows it: QEMU moves it past the others, and what becomes of it nobody sees; "
                "define it by \"vmm-device\""),
        [FINDING_WRITABLE_DISK] = REFUSAL("writable disk",
                "QEMU before 10 would take the disk's lock too early: use QEMU 10 or a read-only disk"),
        [FINDING_P2P_QEMU] = REFUSAL("P2P states",
                "QEMU moves several VFIO devices only if all have the P2P states: detach it, or leave it the only "
                "one"),
        [FINDING_QEMU_UNTRIED] = NOTICE("QEMU",
                "its VFIO devices were moved with QEMU 10 and 11 only: try it with a VM that may be lost, or use one "
                "of these"),
        [FINDING_RESET_UNSEEN] = NOTICE("migration-events",
                "a reset of this device by QEMU can't be seen: start it with QEMU 9.1 or later and "
                "migration-events=on"),
        [FINDING_KERNEL_HANGS] = NOTICE("kernel",
                "its VFIO may hang where two set a device's state, so devices are quieted only when the vCPUs stand: "
                "use 6.12.107 or later of 6.12, or 7.2 or later"),
        [FINDING_THREAD_NOT_HELD] = NOTICE("migration thread",
                "devices are quieted only when the vCPUs stand: start QEMU with -name debug-threads=on, and let "
                "migmgr-helper trace it"),

        [FINDING_ROOM] = REFUSAL("room for records",
                "free 4 MiB on that host where migmgrd keeps its records: /var/lib/migmgr, or --state-dir"),

        [FINDING_P2P_REQUIRED] = REFUSAL("P2P states",
                "other devices can reach it, or it them, when they stand: use a driver with P2P states, have the VMM "
                "confirm that it is isolated and set policy \"p2p\" to isolate, or to accept-risk"),
        [FINDING_P2P_NOT_ISOLATED] = REFUSAL("P2P isolation",
                "policy \"p2p\" is isolate: have the VMM map no BAR of this device for others, and say so"),
        [FINDING_P2P_NOT_SINGLE] = REFUSAL("P2P domain",
                "policy \"p2p\" is single: leave it the VM's one device, or use a driver with P2P states"),
        [FINDING_P2P_NO_ORDER] = REFUSAL("P2P order",
                "neither has P2P states and each reaches the other, so neither may stand first: isolate one, or use "
                "a driver with P2P states"),
        [FINDING_P2P_RISK] = NOTICE("P2P risk accepted",
                "policy \"p2p\" accepts it: what other devices and this one write to each other while they are "
                "stopped may be lost, or end up half written"),
        [FINDING_VIOMMU_QEMU] = REFUSAL("vIOMMU",
                "QEMU moves no VFIO device behind a vIOMMU: take the vIOMMU away, or the device"),
        [FINDING_VIOMMU_OFF] = REFUSAL("vIOMMU",
                "a page fault of its devices may need a vCPU, and policy \"viommu-grace\" is off: set it to auto"),
        [FINDING_VIOMMU_NDMA] = REFUSAL("vIOMMU",
                "a page fault of a device may need a vCPU: each device needs the P2P states, and \"ndma\": \"full\" in "
                "its policy if it does no DMA in them"),
        [FINDING_VIOMMU_REQUIRED] = REFUSAL("viommu-grace",
                "policy requires it: each device needs the P2P states, and \"ndma\": \"full\" in its policy, and none "
                "may be driven by QEMU"),
        [FINDING_PRECOPY_REQUIRED] = REFUSAL("pre-copy",
                "policy \"precopy\" requires it: use a driver or server that has PRE_COPY, or set it to auto"),
        [FINDING_PRECOPY_NOT_OURS] = NOTICE("pre-copy",
                "policy \"precopy\" is off, but QEMU moves this device's state, and begins while it runs where it can"),
        [FINDING_STATE_SIZE] = REFUSAL("state size",
                "policy \"max-state-mib\" allows less: free what the device holds, or set it higher"),

        [FINDING_VMM] = REFUSAL("vmm", "define the same VMM on both hosts"),
        [FINDING_MACHINE] = REFUSAL("machine type",
                "start it at the destination with the machine type that it has at the source"),
        [FINDING_MACHINE_SHORT] = NOTICE("machine type",
                "which one that is depends on QEMU's version there: say the full name in incoming.argv"),
        [FINDING_NOT_DEFINED_THERE] = REFUSAL("device",
                "devices pair by their id: define it at the destination, too"),
        [FINDING_NOT_DEFINED_HERE] = REFUSAL("device",
                "devices pair by their id: define it at the source, too"),
        [FINDING_TYPE] = REFUSAL("type", "define the same type on both hosts"),
        [FINDING_DRIVEN_BY] = REFUSAL("driven by",
                "define it on both hosts by \"vmm-device\", or on both by \"sysfs\""),
        [FINDING_FLAGS] = REFUSAL("migration flags",
                "use the same version of the device's server on both hosts"),
        [FINDING_FACT_UNKNOWN] = REFUSAL("fact",
                "policy \"compat\" compares it: see that the plugin that says it runs on both hosts, or set it to "
                "ignore"),
        [FINDING_FACT_NOT_EQUAL] = REFUSAL("fact",
                "policy \"compat\" wants it equal on both hosts: bring one to the other's, or choose another host"),
        [FINDING_FACT_OLDER] = REFUSAL("fact",
                "policy \"compat\" wants the destination's not older than the source's: update it, or choose another "
                "host"),
        [FINDING_FACT_NOT_ALLOWED] = REFUSAL("fact",
                "policy \"compat\" lists what it may be: choose a device of these, or add it"),

        [FINDING_NOT_REGISTERED] = REFUSAL("definition",
                "register it at the destination: migctl register --incoming FILE"),
        [FINDING_BUSY] = REFUSAL("job", "wait for the end of that job"),
        [FINDING_PRESENCE_BOTH] = REFUSAL("presence",
                "the VM is at the destination already: unregister it where it is not"),
        [FINDING_POLICIES] = REFUSAL("policies",
                "correct the file on that host, then there: migctl policy reload"),
        [FINDING_MANIFEST] = REFUSAL("manifest", "use the same version of migmgr on both hosts"),
};
/* clang-format on */

bool finding_is_of_p2p(const char *property)
{
        static const FindingId ids[] = {FINDING_P2P_QEMU, FINDING_P2P_REQUIRED, FINDING_P2P_NOT_ISOLATED,
                                        FINDING_P2P_NOT_SINGLE, FINDING_P2P_NO_ORDER};

        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
                if (streq(descs[ids[i]].property, property))
                        return true;
        return false;
}

const FindingDesc *finding_desc(FindingId id)
{
        return (int) id >= 0 && id < FINDING_ID_MAX ? &descs[id] : NULL;
}

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

int findings_add(Findings *findings, FindingId id, const char *device, const char *source,
                 const char *destination)
{
        Finding *items = realloc(findings->items, (findings->n + 1) * sizeof *items), *finding;

        if (!items)
                return -ENOMEM;
        findings->items = items;
        finding = &items[findings->n++];
        *finding = (Finding){.id = id,
                             .weight = descs[id].weight,
                             .property = descs[id].property,
                             .remedy = descs[id].remedy};
        (void) snprintf(finding->device, sizeof finding->device, "%s", device);
        (void) snprintf(finding->source, sizeof finding->source, "%s", source);
        (void) snprintf(finding->destination, sizeof finding->destination, "%s", destination);
        return 0;
}

/* The same for something that is wrong on one side only. */
static int add_here(Findings *findings, FindingId id, Side side, const char *device, const char *value)
{
        return findings_add(findings, id, device, side == SIDE_SOURCE ? value : "",
                            side == SIDE_DESTINATION ? value : "");
}

static int check_device(const ManifestDevice *device, Side side, Findings *findings)
{
        const char *state = device_state_to_string(device->state), *text = device->text;
        bool driven = device->migration_flags & DEVICE_SUPERVISED;
        bool kernel = device->migration_flags & DEVICE_KERNEL;

        /* The VMM that opens it there does not live yet. */
        if (side == SIDE_DESTINATION && driven)
                return 0;
        if (device->status == MANIFEST_NO_AGENT)
                return add_here(findings, FINDING_AGENT, side, device->id, text);
        if (device->status == MANIFEST_QUARANTINED)
                return add_here(findings, FINDING_QUARANTINE, side, device->id, text);
        if (device->status == -EPERM || device->status == -EACCES)
                return add_here(findings, FINDING_FILE_FORBIDDEN, side, device->id, text);
        if (device->status < 0)
                return add_here(findings,
                                driven   ? FINDING_FILE_OF_VMM
                                : kernel ? FINDING_FILE_OF_KERNEL
                                         : FINDING_CONNECTION,
                                side, device->id, text);
        if (!(device->migration_flags & DEVICE_MIGRATION_STOP_COPY))
                return add_here(findings, kernel ? FINDING_MIGRATION_KERNEL : FINDING_MIGRATION_SERVER, side,
                                device->id, "not supported");
        if (side == SIDE_SOURCE && device->state != DEVICE_STATE_RUNNING)
                return add_here(findings, FINDING_STATE, side, device->id, state ? state : "unknown");
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
                return add_here(findings, FINDING_MEMORY_OF_NOBODY, SIDE_SOURCE, device->id,
                                "mapped by a VMM that is not defined");
        if (!(device->migration_flags & DEVICE_DMA_LOGGING))
                return add_here(findings, FINDING_DMA_LOGGING, SIDE_SOURCE, device->id, "not supported");
        /* No file of that memory came with the device's: we can't copy it. */
        if ((device->migration_flags & DEVICE_KERNEL) && !vmm->takes_dirty_pages)
                return add_here(findings, FINDING_DIRTY_PAGES, SIDE_SOURCE, device->id,
                                "not taken by the VMM");
        return 0;
}

/* ---- the VMM ----------------------------------------------------------------------------------------------------- */

static int check_list(Findings *findings, FindingId id, uint32_t n, const char (*list)[MANIFEST_TEXT_MAX])
{
        int r = 0;

        for (uint32_t i = 0; i < n && i < MANIFEST_REASONS_MAX && r == 0; i++)
                r = add_here(findings, id, SIDE_SOURCE, "", list[i]);
        return r;
}

/* QEMU has no migration of a vfio-user-pci: its state would be left behind whatever policy says. */
static bool is_moved_by_qemu(const char *text)
{
        return strstr(text, "(vfio-pci)") || strstr(text, "(vfio-pci-nohotplug)");
}

static int check_undefined(const ManifestVmm *vmm, uint64_t word, Findings *findings)
{
        int r = 0;

        for (uint32_t i = 0; i < vmm->n_vfio_user && i < MANIFEST_REASONS_MAX && r == 0; i++)
                r = add_here(findings,
                             word == POLICY_OPAQUE_ALLOW && is_moved_by_qemu(vmm->vfio_user[i])
                                     ? FINDING_UNDEFINED_ALLOWED
                                     : FINDING_UNDEFINED_DEVICE,
                             SIDE_SOURCE, "", vmm->vfio_user[i]);
        return r;
}

static int check_qemu(const ManifestVmm *vmm, const PolicyView *view, Findings *findings)
{
        int r = 0;

        if (!streq(vmm->run_state, "running"))
                r = add_here(findings, FINDING_RUN_STATE_QEMU, SIDE_SOURCE, "", vmm->run_state);
        if (r == 0)
                r = check_list(findings, FINDING_BLOCKER, vmm->n_blocked, vmm->blocked);
        if (r == 0)
                r = check_undefined(vmm, view->values[POLICY_OPAQUE], findings);
        if (r == 0 && vmm->major < QEMU_LATE_BLOCK_ACTIVATE)
                r = check_list(findings, FINDING_WRITABLE_DISK, vmm->n_writable, vmm->writable);
        return r;
}

/* It is there on both sides; whether it has the VM is its own word. */
static int check_delegate(const ManifestVmm *vmm, Side side, Findings *findings)
{
        if (vmm->status < 0)
                return add_here(findings, FINDING_DELEGATE, side, "", vmm->text);
        if (side == SIDE_SOURCE && !streq(vmm->run_state, "running"))
                return add_here(findings, FINDING_RUN_STATE_DELEGATE, side, "", vmm->run_state);
        if (side == SIDE_DESTINATION && !streq(vmm->run_state, "none"))
                return add_here(findings, FINDING_RUN_STATE_TAKEN, side, "", vmm->run_state);
        return 0;
}

static int check_vmm(const Manifest *manifest, Side side, const PolicyView *view, Findings *findings)
{
        const ManifestVmm *vmm = &manifest->vmm;

        if (vmm->type == VMM_TYPE_DELEGATE)
                return check_delegate(vmm, side, findings);
        if (vmm->type != VMM_TYPE_QMP)
                return 0;
        if (side == SIDE_SOURCE)
                return vmm->status < 0 ? add_here(findings, FINDING_MONITOR, side, "", vmm->text)
                                       : check_qemu(vmm, view, findings);
        if (vmm->status == 0)
                return add_here(findings, FINDING_MONITOR_TAKEN, side, "", "a QEMU answers there already");
        if (!manifest->can_start)
                return add_here(findings, FINDING_INCOMING_ARGV, side, "", "missing");
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

static bool lacks_p2p(const ManifestDevice *device)
{
        return device->status == 0 && (device->migration_flags & DEVICE_MIGRATION_STOP_COPY) &&
               !(device->migration_flags & DEVICE_MIGRATION_P2P);
}

/* QEMU's own rule, which it keeps late, or by not starting. No policy changes it. */
static int check_p2p_of_qemu(const Manifest *manifest, Findings *findings)
{
        int r = 0;

        for (uint32_t i = 0; i < manifest->n_devices && r == 0; i++)
                if ((manifest->devices[i].migration_flags & DEVICE_SUPERVISED) &&
                    lacks_p2p(&manifest->devices[i]))
                        r = add_here(findings, FINDING_P2P_QEMU, SIDE_SOURCE, manifest->devices[i].id,
                                     "not supported");
        return r;
}

/* Below, what is only told: nothing of it turns a job back by itself. */
static int notice_qemu(const ManifestVmm *vmm, Side side, Findings *findings)
{
        int r = 0;

        if (vmm->version[0] && (vmm->major < QEMU_TRIED_FIRST || vmm->major > QEMU_TRIED_LAST))
                r = add_here(findings, FINDING_QEMU_UNTRIED, side, "", vmm->version);
        for (uint32_t i = 0; i < vmm->n_silent && i < MANIFEST_REASONS_MAX && r == 0; i++)
                r = add_here(findings, FINDING_RESET_UNSEEN, side, "", vmm->silent[i]);
        return r;
}

static int notice_grace(const Manifest *manifest, Findings *findings)
{
        if (!kernel_refuses_blocked_arcs(manifest->kernel))
                return add_here(findings, FINDING_KERNEL_HANGS, SIDE_SOURCE, "",
                                manifest->kernel[0] ? manifest->kernel : "not known");
        if (!manifest->vmm.can_hold)
                return add_here(findings, FINDING_THREAD_NOT_HELD, SIDE_SOURCE, "", "can't be held");
        return 0;
}

static int check_supervised(const Manifest *manifest, Side side, Findings *findings)
{
        uint32_t n = count_supervised(manifest);
        int r = 0;

        if (n == 0)
                return 0;
        if (side == SIDE_SOURCE && n > 1)
                r = check_p2p_of_qemu(manifest, findings);
        if (r == 0)
                r = notice_qemu(&manifest->vmm, side, findings);
        if (r == 0 && side == SIDE_SOURCE && manifest->vmm.type == VMM_TYPE_QMP && manifest->vmm.status == 0)
                r = notice_grace(manifest, findings);
        return r;
}

/* ---- what policy says, at the source ----------------------------------------------------------------------------- */

static int check_p2p(const Manifest *manifest, uint32_t i, const PolicyView *view, Findings *findings)
{
        static const FindingId ids[P2P_VERDICT_MAX] = {
                [P2P_REQUIRED] = FINDING_P2P_REQUIRED,
                [P2P_NOT_ISOLATED] = FINDING_P2P_NOT_ISOLATED,
                [P2P_NOT_SINGLE] = FINDING_P2P_NOT_SINGLE,
                [P2P_NO_ORDER] = FINDING_P2P_NO_ORDER,
                [P2P_RISK] = FINDING_P2P_RISK,
        };
        const ManifestDevice *device = &manifest->devices[i];
        char text[FINDING_VALUE_MAX] = "not supported";
        uint32_t other = i;
        P2pVerdict verdict;

        /* Of several of QEMU's own QEMU has its own rule. */
        if (!lacks_p2p(device) ||
            ((device->migration_flags & DEVICE_SUPERVISED) && count_supervised(manifest) > 1))
                return 0;
        verdict = p2p_judge(manifest, i, (PolicyP2p) view->values[POLICY_P2P], &other);
        if (verdict == P2P_FINE)
                return 0;
        if (verdict == P2P_NO_ORDER)
                (void) snprintf(text, sizeof text, "reaches %s, which reaches it",
                                manifest->devices[other].id);
        else if (verdict == P2P_NOT_SINGLE)
                (void) snprintf(text, sizeof text, "one of %u devices", p2p_count_devices(manifest));
        else if (verdict == P2P_NOT_ISOLATED)
                (void) snprintf(text, sizeof text, "%s",
                                device->isolation == DEVICE_ISOLATION_NONE ? "others reach it"
                                                                           : "not confirmed by the VMM");
        return add_here(findings, ids[verdict], SIDE_SOURCE, device->id, text);
}

static int check_precopy(const ManifestDevice *device, const PolicyView *view, Findings *findings)
{
        if (view->values[POLICY_PRECOPY] == POLICY_REQUIRE &&
            !(device->migration_flags & DEVICE_MIGRATION_PRE_COPY))
                return add_here(findings, FINDING_PRECOPY_REQUIRED, SIDE_SOURCE, device->id, "not supported");
        if (view->values[POLICY_PRECOPY] == POLICY_OFF && (device->migration_flags & DEVICE_SUPERVISED) &&
            (device->migration_flags & DEVICE_MIGRATION_PRE_COPY))
                return add_here(findings, FINDING_PRECOPY_NOT_OURS, SIDE_SOURCE, device->id, "QEMU's affair");
        return 0;
}

/* As far as somebody knows it beforehand. */
static int check_size(const ManifestDevice *device, const PolicyView *view, Findings *findings)
{
        uint64_t most = view->values[POLICY_MAX_STATE_MIB] * MIB;
        char text[FINDING_VALUE_MAX];

        if (most == 0 || device->state_bytes <= most)
                return 0;
        (void) snprintf(text, sizeof text, "%llu bytes, more than %llu MiB",
                        (unsigned long long) device->state_bytes,
                        (unsigned long long) view->values[POLICY_MAX_STATE_MIB]);
        return add_here(findings, FINDING_STATE_SIZE, SIDE_SOURCE, device->id, text);
}

static int check_policies(const Manifest *manifest, const PolicyRules *rules, Findings *findings)
{
        PolicyView view;
        int r = 0;

        for (uint32_t i = 0; i < manifest->n_devices && r == 0; i++) {
                const ManifestDevice *device = &manifest->devices[i];

                if (device->status < 0 || !(device->migration_flags & DEVICE_MIGRATION_STOP_COPY))
                        continue; /* that was said already, and nothing is known of it */
                policy_of_device(rules, manifest, device, &view);
                r = check_p2p(manifest, i, &view, findings);
                if (r == 0)
                        r = check_precopy(device, &view, findings);
                if (r == 0)
                        r = check_size(device, &view, findings);
        }
        return r;
}

/* Devices beside QEMU are none of its guest's; behind a delegate all are. */
static bool has_devices_of_guest(const Manifest *manifest)
{
        return manifest->vmm.type == VMM_TYPE_QMP
                       ? count_supervised(manifest) > 0
                       : manifest->vmm.type == VMM_TYPE_DELEGATE && manifest->n_devices > 0;
}

/* A device that waits for a page whose fault a vCPU must serve can't stop once the vCPUs stand. */
static int check_viommu(const Manifest *manifest, const PolicyRules *rules, uint64_t word, Findings *findings)
{
        bool can = plan_can_quiet_all(manifest, rules),
             fault = has_devices_of_guest(manifest) && manifest->vmm.viommu;

        if (word == POLICY_REQUIRE && manifest->n_devices > 0 && !can)
                return add_here(findings, FINDING_VIOMMU_REQUIRED, SIDE_SOURCE, "", "not possible");
        if (!fault)
                return 0;
        if (manifest->vmm.type == VMM_TYPE_QMP)
                return add_here(findings, FINDING_VIOMMU_QEMU, SIDE_SOURCE, "", "present");
        if (word == POLICY_OFF)
                return add_here(findings, FINDING_VIOMMU_OFF, SIDE_SOURCE, "", "present");
        if (!can)
                return add_here(findings, FINDING_VIOMMU_NDMA, SIDE_SOURCE, "", "present");
        return 0;
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
        return add_here(findings, FINDING_ROOM, side, "", text);
}

int check_side(const Manifest *manifest, const PolicyRules *rules, Side side, Findings *findings)
{
        Presence wanted = side == SIDE_SOURCE ? PRESENCE_HERE : PRESENCE_AWAY;
        PolicyView view;
        int r = 0;

        policy_of_vm(rules, manifest, &view);
        if (manifest->presence != wanted)
                r = add_here(findings, side == SIDE_SOURCE ? FINDING_PRESENCE_HERE : FINDING_PRESENCE_THERE,
                             side, "", presence_to_string(manifest->presence));
        if (r == 0)
                r = check_vmm(manifest, side, &view, findings);
        for (uint32_t i = 0; i < manifest->n_devices && r == 0; i++) {
                r = check_device(&manifest->devices[i], side, findings);
                if (r == 0 && side == SIDE_SOURCE)
                        r = check_dma(&manifest->devices[i], &manifest->vmm, findings);
        }
        if (r == 0)
                r = check_supervised(manifest, side, findings);
        if (r == 0)
                r = check_room(manifest, side, findings);
        if (r == 0 && side == SIDE_SOURCE)
                r = check_policies(manifest, rules, findings);
        if (r == 0 && side == SIDE_SOURCE)
                r = check_viommu(manifest, rules, view.values[POLICY_VIOMMU_GRACE], findings);
        return r;
}

/* ---- the two together -------------------------------------------------------------------------------------------- */

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
                return findings_add(findings, FINDING_TYPE, source->id, device_type_to_string(source->type),
                                    device_type_to_string(destination->type));
        if ((source->migration_flags ^ destination->migration_flags) & DEVICE_SUPERVISED)
                return findings_add(findings, FINDING_DRIVEN_BY, source->id,
                                    source->migration_flags & DEVICE_SUPERVISED ? "its VMM" : "migmgrd",
                                    destination->migration_flags & DEVICE_SUPERVISED ? "its VMM" : "migmgrd");
        /* What the source can and the destination can't is needed on the way in: P2P states are a barrier there. */
        if (destination->status == 0 && (destination->migration_flags & DEVICE_MIGRATION_STOP_COPY) &&
            (source->migration_flags & ~destination->migration_flags & DEVICE_MIGRATION_P2P)) {
                flags_text(source->migration_flags, a);
                flags_text(destination->migration_flags, b);
                return findings_add(findings, FINDING_FLAGS, source->id, a, b);
        }
        return 0;
}

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The next run of digits or of letters; what is between them only divides. */
static size_t take_part(const char **text)
{
        const char *p = *text;
        size_t n = 0;

        while (*p && !is_digit(*p) && !is_letter(*p))
                p++;
        while (p[n] && (is_digit(*p) ? is_digit(p[n]) : is_letter(p[n])))
                n++;
        *text = p;
        return n;
}

static int compare_parts(const char *a, size_t n_a, const char *b, size_t n_b)
{
        if (n_a > 0 && n_b > 0 && is_digit(*a) && is_digit(*b)) {
                for (; n_a > 1 && *a == '0'; n_a--)
                        a++;
                for (; n_b > 1 && *b == '0'; n_b--)
                        b++;
                if (n_a != n_b)
                        return n_a < n_b ? -1 : 1;
        }
        for (size_t i = 0; i < n_a && i < n_b; i++)
                if (a[i] != b[i])
                        return a[i] < b[i] ? -1 : 1;
        return n_a < n_b ? -1 : n_a > n_b;
}

bool version_at_least(const char *a, const char *b)
{
        for (;;) {
                size_t n_a = take_part(&a), n_b = take_part(&b);
                int r = compare_parts(a, n_a, b, n_b);

                if (r != 0)
                        return r > 0;
                if (n_a == 0)
                        return true;
                a += n_a;
                b += n_b;
        }
}

static bool is_allowed(const PolicyCompat *compat, const char *value)
{
        for (uint32_t i = 0; i < compat->n_choices; i++)
                if (streq(compat->choices[i], value))
                        return true;
        return false;
}

/* FINDING_ID_INVALID: nothing is wrong with it. */
static FindingId judge_fact(const PolicyCompat *compat, const char *a, const char *b)
{
        if (compat->how == COMPAT_IGNORE)
                return FINDING_ID_INVALID;
        if (!a || !b)
                return FINDING_FACT_UNKNOWN;
        switch (compat->how) {
        case COMPAT_EQUAL: return streq(a, b) ? FINDING_ID_INVALID : FINDING_FACT_NOT_EQUAL;
        case COMPAT_AT_LEAST: return version_at_least(b, a) ? FINDING_ID_INVALID : FINDING_FACT_OLDER;
        case COMPAT_IN:
                return is_allowed(compat, a) && is_allowed(compat, b) ? FINDING_ID_INVALID
                                                                      : FINDING_FACT_NOT_ALLOWED;
        case COMPAT_IGNORE:
        case COMPAT_HOW_MAX:
        case COMPAT_HOW_INVALID: break;
        }
        return FINDING_ID_INVALID;
}

static void fact_text(const char *fact, const char *value, char ret[FINDING_VALUE_MAX])
{
        (void) snprintf(ret, FINDING_VALUE_MAX, "%s%s%s", fact, value ? " = " : " not known",
                        value ? value : "");
}

/* By the policy of the source's device: that is what is to be moved. */
static int check_facts(const Manifest *vm, const ManifestDevice *source, const ManifestDevice *destination,
                       const PolicyRules *rules, Findings *findings)
{
        PolicyView view;
        int r = 0;

        policy_of_device(rules, vm, source, &view);
        for (uint32_t i = 0; i < view.n_compat && r == 0; i++) {
                const char *fact = view.compat[i].fact;
                const char *a = manifest_fact(source, fact), *b = manifest_fact(destination, fact);
                FindingId id = judge_fact(&view.compat[i], a, b);
                char here[FINDING_VALUE_MAX], there[FINDING_VALUE_MAX];

                if (id == FINDING_ID_INVALID)
                        continue;
                fact_text(fact, a, here);
                fact_text(fact, b, there);
                r = findings_add(findings, id, source->id, here, there);
        }
        return r;
}

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
               !strchr(machine + n + 1, '-');
}

/* The one lives, and the other is only described. */
static int check_machine(const ManifestVmm *source, const ManifestVmm *destination, Findings *findings)
{
        bool said = destination->machine[0] != 0;

        if (source->type != VMM_TYPE_QMP || destination->type != VMM_TYPE_QMP || !source->machine[0] ||
            streq(source->machine, destination->machine))
                return 0;
        return findings_add(findings,
                            said && !is_short_for(destination->machine, source->machine)
                                    ? FINDING_MACHINE
                                    : FINDING_MACHINE_SHORT,
                            "", source->machine, said ? destination->machine : "not said");
}

int check_pair(const Manifest *source, const Manifest *destination, const PolicyRules *rules,
               Findings *findings)
{
        int r = 0;

        if (source->vmm.type != destination->vmm.type)
                r = findings_add(findings, FINDING_VMM, "", vmm_type_to_string(source->vmm.type),
                                 vmm_type_to_string(destination->vmm.type));
        if (r == 0)
                r = check_machine(&source->vmm, &destination->vmm, findings);
        for (uint32_t i = 0; i < source->n_devices && r == 0; i++) {
                const ManifestDevice *device = &source->devices[i];
                const ManifestDevice *other = manifest_find(destination, device->id);

                if (!other) {
                        r = findings_add(findings, FINDING_NOT_DEFINED_THERE, device->id, "defined",
                                         "not defined");
                        continue;
                }
                r = check_device_pair(device, other, findings);
                if (r == 0)
                        r = check_facts(source, device, other, rules, findings);
        }
        for (uint32_t i = 0; i < destination->n_devices && r == 0; i++)
                if (!manifest_find(source, destination->devices[i].id))
                        r = findings_add(findings, FINDING_NOT_DEFINED_HERE, destination->devices[i].id,
                                         "not defined", "defined");
        return r;
}

/* ---- what a destination has allowed ----------------------------------------------------------------------------- */

static uint32_t find_pass(const CheckPasses *passes, const char *host, const char *job)
{
        uint32_t i = 0;

        while (i < CHECK_PASSES && (!streq(passes->items[i].host, host) || !streq(passes->items[i].job, job)))
                i++;
        return i;
}

void check_note_answer(CheckPasses *passes, const char *host, const char *job, bool ok, uint64_t now_usec)
{
        uint32_t i = find_pass(passes, host, job);

        for (uint32_t k = 0; k < CHECK_PASSES; k++)
                if (k == i || (!ok && streq(passes->items[k].host, host)))
                        memset(&passes->items[k], 0, sizeof passes->items[k]);
        if (!ok || strlen(host) >= CHECK_ID_MAX || strlen(job) >= CHECK_ID_MAX)
                return;
        if (i == CHECK_PASSES)
                i = passes->next;
        if (i == passes->next)
                passes->next = (passes->next + 1) % CHECK_PASSES;
        memcpy(passes->items[i].host, host, strlen(host) + 1);
        memcpy(passes->items[i].job, job, strlen(job) + 1);
        passes->items[i].usec = now_usec;
}

bool check_has_passed(const CheckPasses *passes, const char *host, const char *job, uint64_t now_usec)
{
        uint32_t i = find_pass(passes, host, job);

        return job[0] && i < CHECK_PASSES && now_usec - passes->items[i].usec <= CHECK_PASS_USEC;
}
