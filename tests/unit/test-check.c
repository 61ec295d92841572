/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A pair of manifests with nothing against them; each case spoils one thing and says what must then be found, and where:
 * a refusal names the device, the property, the value on the side where it is wrong, and a remedy. */

#include <stdio.h>

#include "daemon/core/check.h"
#include "test.h"

#define N 3

typedef struct Pair {
        Manifest side[SIDE_MAX];
        PolicyRule rule; /* of all devices and VMs; none until it is counted below */
        PolicyRules rules;
        Findings findings;
} Pair;

static bool reached[FINDING_ID_MAX]; /* by any of the tests */

static void pair_init(Pair *pair, VmmType vmm)
{
        *pair = (Pair){};
        for (Side s = 0; s < SIDE_MAX; s++) {
                Manifest *m = &pair->side[s];

                assert_int_equal(manifest_init(m, N), 0);
                m->presence = s == SIDE_SOURCE ? PRESENCE_HERE : PRESENCE_AWAY;
                m->can_start = true;
                m->vmm.type = vmm;
                if (s == SIDE_DESTINATION && vmm != VMM_TYPE_DELEGATE)
                        m->vmm.status = -ENOENT; /* nobody there yet */
                m->vmm.major = 7;
                (void) snprintf(m->vmm.run_state, sizeof m->vmm.run_state, "%s",
                                s == SIDE_DESTINATION && vmm == VMM_TYPE_DELEGATE ? "none" : "running");
                for (uint32_t i = 0; i < N; i++) {
                        (void) snprintf(m->devices[i].id, sizeof m->devices[i].id, "dev%u", i);
                        m->devices[i].migration_flags = DEVICE_MIGRATION_STOP_COPY;
                        m->devices[i].state = DEVICE_STATE_RUNNING;
                }
        }
}

static void pair_deinit(Pair *pair)
{
        for (Side s = 0; s < SIDE_MAX; s++)
                manifest_deinit(&pair->side[s]);
        findings_deinit(&pair->findings);
        assert_null(pair->findings.items);
}

/* What the three judgements together find. */
static uint32_t pair_check(Pair *pair)
{
        findings_deinit(&pair->findings);
        for (Side s = 0; s < SIDE_MAX; s++)
                assert_int_equal(check_side(&pair->side[s], &pair->rules, s, &pair->findings), 0);
        assert_int_equal(check_pair(&pair->side[0], &pair->side[1], &pair->rules, &pair->findings), 0);
        for (uint32_t i = 0; i < pair->findings.n; i++) {
                const Finding *f = &pair->findings.items[i];

                assert_true(f->property[0] && f->remedy[0]);
                assert_true(f->source[0] || f->destination[0]);
                assert_ptr_equal(f->remedy, finding_desc(f->id)->remedy);
                reached[f->id] = true;
        }
        return pair->findings.n;
}

static void assert_finding(const Finding *f, const char *device, const char *property, const char *source,
                           const char *destination)
{
        assert_string_equal(f->device, device);
        assert_string_equal(f->property, property);
        assert_string_equal(f->source, source);
        assert_string_equal(f->destination, destination);
}

static void test_nothing_is_found_where_nothing_is_wrong(void **state)
{
        for (VmmType vmm = 0; vmm < VMM_TYPE_MAX; vmm++) {
                Pair pair;

                pair_init(&pair, vmm);
                assert_int_equal(pair_check(&pair), 0);
                pair_deinit(&pair);
        }
}

static void test_a_device_in_quarantine_is_refused_and_the_way_out_named(void **state)
{
        for (Side s = 0; s < SIDE_MAX; s++) {
                Pair pair;

                pair_init(&pair, VMM_TYPE_NONE);
                pair.side[s].devices[0].status = MANIFEST_QUARANTINED;
                (void) snprintf(pair.side[s].devices[0].text, MANIFEST_TEXT_MAX, "no reset");
                assert_int_equal(pair_check(&pair), 1);
                assert_finding(&pair.findings.items[0], "dev0", "quarantine", s == 0 ? "no reset" : "",
                               s == 0 ? "" : "no reset");
                assert_non_null(strstr(pair.findings.items[0].remedy, "migctl reset"));
                pair_deinit(&pair);
        }
}

/* ---- one thing spoiled ---------------------------------------------------------------------------------------- */

static void spoil_here(Pair *p)
{
        p->side[0].presence = PRESENCE_AWAY;
}

static void spoil_there(Pair *p)
{
        p->side[1].presence = PRESENCE_HERE;
}

static void spoil_monitor(Pair *p)
{
        p->side[0].vmm.status = -ECONNREFUSED;
        (void) snprintf(p->side[0].vmm.text, MANIFEST_TEXT_MAX, "nobody answers");
        p->side[0].vmm.n_blocked = 1; /* of somebody who could not be asked: not judged */
        p->side[0].vmm.run_state[0] = 0;
}

static void spoil_paused(Pair *p)
{
        (void) snprintf(p->side[0].vmm.run_state, sizeof p->side[0].vmm.run_state, "paused");
}

static void spoil_blocked(Pair *p)
{
        p->side[0].vmm.n_blocked = 1;
        (void) snprintf(p->side[0].vmm.blocked[0], MANIFEST_TEXT_MAX, "VFIO migration is not supported");
}

static void spoil_vfio_user(Pair *p)
{
        p->side[0].vmm.n_vfio_user = 1;
        (void) snprintf(p->side[0].vmm.vfio_user[0], MANIFEST_TEXT_MAX, "/machine/peripheral/vfu0");
}

static void spoil_disk(Pair *p)
{
        p->side[0].vmm.n_writable = 1;
        (void) snprintf(p->side[0].vmm.writable[0], MANIFEST_TEXT_MAX, "drive0");
}

static void spoil_taken(Pair *p)
{
        p->side[1].vmm.status = 0;
}

static void spoil_absent(Pair *p)
{
        for (Side s = 0; s < SIDE_MAX; s++) {
                p->side[s].vmm.status = -ENOENT;
                (void) snprintf(p->side[s].vmm.text, MANIFEST_TEXT_MAX, "nobody at %s", side_to_string(s));
        }
}

static void spoil_busy(Pair *p)
{
        (void) snprintf(p->side[1].vmm.run_state, sizeof p->side[1].vmm.run_state, "incoming");
}

static void spoil_argv(Pair *p)
{
        p->side[1].can_start = false;
}

static void spoil_vmm(Pair *p)
{
        p->side[1].vmm.type = VMM_TYPE_NONE;
}

static void spoil_type(Pair *p)
{
        p->side[1].devices[1].type = DEVICE_TYPE_VFIO;
}

static void spoil_agent(Pair *p)
{
        p->side[1].devices[1].status = MANIFEST_NO_AGENT;
        strcpy(p->side[1].devices[1].text, "no agent");
}

static void spoil_server(Pair *p)
{
        p->side[1].devices[1].status = -ENOENT;
        p->side[0].devices[1].migration_flags = 3;
        p->side[1].devices[1].migration_flags = 1; /* from an earlier day: not judged */
        p->side[1].devices[1].state = DEVICE_STATE_UNKNOWN;
        (void) snprintf(p->side[1].devices[1].text, MANIFEST_TEXT_MAX, "no server");
}

static void spoil_migration(Pair *p)
{
        p->side[0].devices[2].migration_flags = 0;
        p->side[1].devices[0].migration_flags = DEVICE_MIGRATION_P2P; /* of no use alone */
}

static void spoil_state(Pair *p)
{
        p->side[0].devices[0].state = DEVICE_STATE_ERROR;
}

static void spoil_pairing(Pair *p)
{
        memcpy(p->side[1].devices[2].id, "gpu", 4);
}

#define QMP      (1u << VMM_TYPE_QMP)
#define DELEGATE (1u << VMM_TYPE_DELEGATE)

static const struct {
        const char *what;
        void (*spoil)(Pair *pair);
        uint32_t n;
        struct {
                const char *device, *property, *source, *destination;
        } expect[2];
        uint32_t
                vmms; /* set of VMM types that have it; 0: all. A set of devices without a VM has nothing of the kind */
} cases[] = {
        {"source", spoil_here, 1, {{"", "presence", "away", ""}}},
        {"destination", spoil_there, 1, {{"", "presence", "", "here"}}},
        {"monitor", spoil_monitor, 1, {{"", "monitor", "nobody answers", ""}}, QMP},
        {"paused", spoil_paused, 1, {{"", "run state", "paused", ""}}, QMP | DELEGATE},
        {"blocked",
         spoil_blocked,
         1,
         {{"", "migration blocker", "VFIO migration is not supported", ""}},
         QMP},
        {"vfio-user", spoil_vfio_user, 1, {{"", "device in QEMU", "/machine/peripheral/vfu0", ""}}, QMP},
        {"disk", spoil_disk, 1, {{"", "writable disk", "drive0", ""}}, QMP},
        {"taken", spoil_taken, 1, {{"", "monitor", "", "a QEMU answers there already"}}, QMP},
        {"argv", spoil_argv, 1, {{"", "incoming.argv", "", "missing"}}, QMP},
        {"vmm", spoil_vmm, 1, {{"", "vmm", "qmp", "none"}}, QMP},
        {"absent",
         spoil_absent,
         2,
         {{"", "delegate", "nobody at source", ""}, {"", "delegate", "", "nobody at destination"}},
         DELEGATE},
        {"busy", spoil_busy, 1, {{"", "run state", "", "incoming"}}, DELEGATE},
        {"type", spoil_type, 1, {{"dev1", "type", "vfio-user", "vfio"}}},
        {"agent", spoil_agent, 1, {{"dev1", "agent", "", "no agent"}}},
        {"server", spoil_server, 1, {{"dev1", "connection", "", "no server"}}},
        {"migration",
         spoil_migration,
         2,
         {{"dev2", "migration", "not supported", ""}, {"dev0", "migration", "", "not supported"}}},
        {"state", spoil_state, 1, {{"dev0", "state", "error", ""}}},
        {"pairing",
         spoil_pairing,
         2,
         {{"dev2", "device", "defined", "not defined"}, {"gpu", "device", "not defined", "defined"}}},
};

static void test_what_is_wrong_is_named_with_its_value_and_side(void **state)
{
        for (VmmType vmm = 0; vmm < VMM_TYPE_MAX; vmm++)
                for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                        bool has = cases[i].vmms == 0 || cases[i].vmms & 1u << vmm;
                        uint32_t n = has ? cases[i].n : 0;
                        Pair pair;

                        if (!has && vmm != VMM_TYPE_NONE)
                                continue;
                        pair_init(&pair, vmm);
                        cases[i].spoil(&pair);
                        if (pair_check(&pair) != n)
                                print_error("%s: %u findings\n", cases[i].what, pair.findings.n);
                        assert_int_equal(pair.findings.n, n);
                        for (uint32_t k = 0; k < n; k++)
                                assert_finding(&pair.findings.items[k], cases[i].expect[k].device,
                                               cases[i].expect[k].property, cases[i].expect[k].source,
                                               cases[i].expect[k].destination);
                        pair_deinit(&pair);
                }
}

/* A person who mends one thing wants to know of the others first. */
static void test_everything_that_is_wrong_is_said_at_once(void **state)
{
        Pair pair;

        pair_init(&pair, VMM_TYPE_QMP);
        spoil_here(&pair);
        spoil_there(&pair);
        spoil_paused(&pair);
        spoil_blocked(&pair);
        spoil_vfio_user(&pair);
        spoil_disk(&pair);
        spoil_argv(&pair);
        spoil_server(&pair);
        spoil_state(&pair);
        assert_int_equal(pair_check(&pair), 9);
        pair_deinit(&pair);
}

/* ---- rules over whole ranges --------------------------------------------------------------------------------- */

static void test_a_writable_disk_needs_qemu_10(void **state)
{
        for (uint32_t major = 0; major < 20; major++) {
                Pair pair;

                pair_init(&pair, VMM_TYPE_QMP);
                spoil_disk(&pair);
                pair.side[0].vmm.major = major;
                assert_int_equal(pair_check(&pair), major < 10 ? 1 : 0);
                pair_deinit(&pair);
        }
}

/* The destination's device is reset before anything is loaded into it: where it is now does not matter. */
static void test_only_the_source_device_has_to_run(void **state)
{
        for (DeviceState s = 0; s < DEVICE_STATE_MAX; s++) {
                Pair pair;

                pair_init(&pair, VMM_TYPE_NONE);
                pair.side[1].devices[0].state = s;
                assert_int_equal(pair_check(&pair), 0);
                pair.side[0].devices[0].state = s;
                assert_int_equal(pair_check(&pair), s == DEVICE_STATE_RUNNING ? 0 : 1);
                pair_deinit(&pair);
        }
}

/* Each side must have STOP_COPY; P2P states that the source's device has are a barrier on the way in, too. */
static void test_flags_pair_when_the_destination_knows_what_the_source_uses(void **state)
{
        for (uint32_t a = 0; a < 8; a++)
                for (uint32_t b = 0; b < 8; b++) {
                        uint32_t expect = !(a & 1) + !(b & 1);
                        Pair pair;

                        if ((b & 1) && (a & 2) && !(b & 2))
                                expect++;
                        pair_init(&pair, VMM_TYPE_NONE);
                        pair.side[0].devices[1].migration_flags = a;
                        pair.side[1].devices[1].migration_flags = b;
                        assert_int_equal(pair_check(&pair), expect);
                        pair_deinit(&pair);
                }
}

static void test_both_sets_of_flags_are_shown(void **state)
{
        Pair pair;

        pair_init(&pair, VMM_TYPE_NONE);
        pair.side[0].devices[2].migration_flags = 7;
        pair.side[1].devices[2].migration_flags = 5;
        assert_int_equal(pair_check(&pair), 1);
        assert_finding(&pair.findings.items[0], "dev2", "migration flags", "stop-copy, p2p, pre-copy",
                       "stop-copy, pre-copy");
        pair_deinit(&pair);
}

static void test_devices_pair_by_id_whatever_their_order(void **state)
{
        Pair pair;
        ManifestDevice first;

        pair_init(&pair, VMM_TYPE_NONE);
        first = pair.side[1].devices[0];
        memmove(pair.side[1].devices, pair.side[1].devices + 1, (N - 1) * sizeof first);
        pair.side[1].devices[N - 1] = first;
        assert_int_equal(pair_check(&pair), 0);
        pair.side[1].n_devices = 0;
        assert_int_equal(pair_check(&pair), N);
        pair_deinit(&pair);
}

static void test_all_reasons_are_listed_and_long_ones_cut(void **state)
{
        Pair pair;

        pair_init(&pair, VMM_TYPE_QMP);
        pair.side[0].vmm.n_blocked = UINT32_MAX; /* a claim; the list has sixteen places */
        for (uint32_t i = 0; i < MANIFEST_REASONS_MAX; i++) {
                memset(pair.side[0].vmm.blocked[i], 'a' + (int) i, MANIFEST_TEXT_MAX - 1);
                pair.side[0].vmm.blocked[i][MANIFEST_TEXT_MAX - 1] = 0;
        }
        assert_int_equal(pair_check(&pair), MANIFEST_REASONS_MAX);
        for (uint32_t i = 0; i < MANIFEST_REASONS_MAX; i++) {
                assert_int_equal(strlen(pair.findings.items[i].source), FINDING_VALUE_MAX - 1);
                assert_int_equal(pair.findings.items[i].source[0], 'a' + (int) i);
        }
        pair_deinit(&pair);
}

/* ---- devices that the VMM drives itself -------------------------------------------------------------------------- */

#define DRIVEN (DEVICE_SUPERVISED | DEVICE_KERNEL)

/* Two of them, beside one of ours. Those of the destination nobody could look at yet. */
static void pair_init_driven(Pair *pair)
{
        pair_init(pair, VMM_TYPE_QMP);
        for (Side s = 0; s < SIDE_MAX; s++) {
                Manifest *m = &pair->side[s];

                (void) snprintf(m->kernel, sizeof m->kernel, "6.12.107");
                for (uint32_t i = 0; i < 2; i++) {
                        ManifestDevice *device = &m->devices[i];

                        *device = (ManifestDevice){.migration_flags = DRIVEN, .state = DEVICE_STATE_UNKNOWN};
                        (void) snprintf(device->id, sizeof device->id, "dev%u", i);
                        device->status = s == SIDE_DESTINATION ? -ENOTCONN : 0;
                        if (s == SIDE_SOURCE) {
                                device->migration_flags |= 7 | DEVICE_HAS_DMA;
                                device->state = DEVICE_STATE_RUNNING;
                        }
                }
        }
        pair->side[0].vmm.can_hold = true;
        pair->side[0].vmm.major = 10;
        (void) snprintf(pair->side[0].vmm.version, sizeof pair->side[0].vmm.version, "10.0.13");
}

static void spoil_p2p(Pair *p)
{
        p->side[0].devices[1].migration_flags &= ~(uint32_t) DEVICE_MIGRATION_P2P;
}

static void spoil_duplicate(Pair *p)
{
        p->side[0].devices[0].status = -EPERM;
        (void) snprintf(p->side[0].devices[0].text, MANIFEST_TEXT_MAX, "pidfd_getfd: forbidden by AppArmor");
}

static void spoil_access(Pair *p)
{
        spoil_duplicate(p);
        p->side[0].devices[0].status = -EACCES;
}

static void spoil_name(Pair *p)
{
        p->side[0].devices[0].status = -ENODEV;
        (void) snprintf(p->side[0].devices[0].text, MANIFEST_TEXT_MAX, "QEMU has no v0");
}

static void spoil_unopened(Pair *p)
{
        for (Side s = 0; s < SIDE_MAX; s++)
                p->side[s].devices[2].migration_flags |= DEVICE_KERNEL;
        p->side[0].devices[2].status = -ENOTCONN;
        (void) snprintf(p->side[0].devices[2].text, MANIFEST_TEXT_MAX, "it is busy");
}

static void spoil_driver(Pair *p)
{
        p->side[0].devices[0].migration_flags = DRIVEN;
}

static void spoil_undefined(Pair *p)
{
        p->side[0].vmm.n_vfio_user = 1;
        (void) snprintf(p->side[0].vmm.vfio_user[0], MANIFEST_TEXT_MAX, "/machine/peripheral/v7 (vfio-pci)");
}

static void spoil_owner(Pair *p)
{
        p->side[1].devices[0].migration_flags = 7 | DEVICE_KERNEL;
        p->side[1].devices[0].status = 0;
}

static void spoil_kernel(Pair *p)
{
        (void) snprintf(p->side[0].kernel, sizeof p->side[0].kernel, "6.12.95+deb12-amd64");
}

static void spoil_kernel_there(Pair *p)
{
        (void) snprintf(p->side[1].kernel, sizeof p->side[1].kernel, "6.12.95+deb12-amd64");
}

static void spoil_hold(Pair *p)
{
        p->side[0].vmm.can_hold = false;
}

static void spoil_events(Pair *p)
{
        p->side[0].vmm.n_silent = 1;
        (void) snprintf(p->side[0].vmm.silent[0], MANIFEST_TEXT_MAX, "v1: migration-events is off");
}

static void spoil_qemu(Pair *p)
{
        p->side[0].vmm.major = 9;
        (void) snprintf(p->side[0].vmm.version, sizeof p->side[0].vmm.version, "9.2.0");
}

static void spoil_qemu_there(Pair *p)
{
        p->side[1].vmm.major = 12;
        (void) snprintf(p->side[1].vmm.version, sizeof p->side[1].vmm.version, "12.0.1");
}

static const struct {
        void (*spoil)(Pair *pair);
        FindingWeight weight;
        const char *device, *property, *source, *destination, *remedy;
} driven[] = {
        {spoil_p2p, FINDING_REFUSAL, "dev1", "P2P states", "not supported", "", "all have the P2P states"},
        {spoil_duplicate, FINDING_REFUSAL, "dev0", "device file", "pidfd_getfd: forbidden by AppArmor", "",
         "AppArmor"},
        {spoil_access, FINDING_REFUSAL, "dev0", "device file", "pidfd_getfd: forbidden by AppArmor", "",
         "Yama"},
        {spoil_name, FINDING_REFUSAL, "dev0", "device file", "QEMU has no v0", "", "vmm-device"},
        {spoil_unopened, FINDING_REFUSAL, "dev2", "device file", "it is busy", "", "bind"},
        {spoil_driver, FINDING_REFUSAL, "dev0", "migration", "not supported", "", "driver"},
        {spoil_undefined, FINDING_REFUSAL, "", "device in QEMU", "/machine/peripheral/v7 (vfio-pci)", "",
         "vmm-device"},
        {spoil_owner, FINDING_REFUSAL, "dev0", "driven by", "its VMM", "migmgrd", "sysfs"},
        {spoil_kernel, FINDING_NOTICE, "", "kernel", "6.12.95+deb12-amd64", "", "6.12.107"},
        {spoil_hold, FINDING_NOTICE, "", "migration thread", "can't be held", "", "debug-threads"},
        {spoil_events, FINDING_NOTICE, "", "migration-events", "v1: migration-events is off", "", "9.1"},
        {spoil_qemu, FINDING_NOTICE, "", "QEMU", "9.2.0", "", "10 and 11"},
        {spoil_qemu_there, FINDING_NOTICE, "", "QEMU", "", "12.0.1", "10 and 11"},
};

static void test_what_speaks_against_the_vmms_devices_refuses_or_is_told(void **state)
{
        Pair pair;

        pair_init_driven(&pair);
        assert_int_equal(pair_check(&pair), 0);
        spoil_kernel_there(&pair); /* two set a state while vCPUs run at the source alone */
        assert_int_equal(pair_check(&pair), 0);
        pair_deinit(&pair);
        for (size_t i = 0; i < ARRAY_SIZE(driven); i++) {
                pair_init_driven(&pair);
                driven[i].spoil(&pair);
                if (pair_check(&pair) != 1)
                        print_error("%s: %u findings\n", driven[i].property, pair.findings.n);
                assert_int_equal(pair.findings.n, 1);
                assert_finding(&pair.findings.items[0], driven[i].device, driven[i].property,
                               driven[i].source, driven[i].destination);
                assert_int_equal(pair.findings.items[0].weight, driven[i].weight);
                assert_int_equal(findings_refuse(&pair.findings), driven[i].weight == FINDING_REFUSAL);
                assert_non_null(strstr(pair.findings.items[0].remedy, driven[i].remedy));
                pair_deinit(&pair);
        }
}

/* QEMU's rule is about several, and of ours it knows nothing. */
static void test_a_single_device_of_the_vmm_needs_no_p2p(void **state)
{
        Pair pair;

        pair_init_driven(&pair);
        spoil_p2p(&pair);
        for (Side s = 0; s < SIDE_MAX; s++) {
                pair.side[s].devices[0].migration_flags = 1;
                pair.side[s].devices[0].status = 0;
        }
        assert_int_equal(pair_check(&pair), 0);
        pair_deinit(&pair);
}

/* What nobody asked QEMU to move is none of its devices: of kernel, thread and version nothing is said. */
static void test_without_such_devices_nothing_is_told(void **state)
{
        Pair pair;

        pair_init(&pair, VMM_TYPE_QMP);
        spoil_kernel(&pair);
        spoil_qemu(&pair);
        assert_int_equal(pair_check(&pair), 0);
        pair_deinit(&pair);
}

/* Somebody moves the memory, and the device says where it wrote; at the destination neither matters. */
static void test_memory_that_a_device_writes_must_be_moved_and_its_writes_known(void **state)
{
        static const struct {
                VmmType vmm;
                uint32_t flags;
                const char *property;
        } rules[] = {
                {VMM_TYPE_QMP, 0, NULL},
                {VMM_TYPE_NONE, DEVICE_DMA_LOGGING, NULL},
                {VMM_TYPE_QMP, DEVICE_HAS_DMA | DEVICE_DMA_LOGGING, NULL},
                {VMM_TYPE_QMP, DEVICE_HAS_DMA, "DMA logging"},
                {VMM_TYPE_DELEGATE, DEVICE_HAS_DMA | DEVICE_DMA_LOGGING | DEVICE_KERNEL, "dirty pages"},
                {VMM_TYPE_DELEGATE, DEVICE_DMA_LOGGING | DEVICE_KERNEL, NULL},
                {VMM_TYPE_NONE, DEVICE_HAS_DMA | DEVICE_DMA_LOGGING, "memory"},
                {VMM_TYPE_NONE, DEVICE_HAS_DMA, "memory"},
        };

        for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
                for (int side = 0; side < 2; side++) {
                        uint32_t expect = side == 0 && rules[i].property ? 1 : 0;
                        Pair pair;

                        pair_init(&pair, rules[i].vmm);
                        pair.side[side].devices[1].migration_flags |= rules[i].flags;
                        for (uint32_t k = 0; k < N; k++)
                                pair.side[side].devices[k].isolation = DEVICE_ISOLATION_FULL;
                        /* Who drives it is the same on both sides. */
                        pair.side[!side].devices[1].migration_flags |=
                                rules[i].flags & (DEVICE_SUPERVISED | DEVICE_KERNEL);
                        /* Of what QEMU drives more is said that does not refuse. */
                        if (!(rules[i].flags & DEVICE_SUPERVISED))
                                assert_int_equal(pair_check(&pair), expect);
                        else if (pair_check(&pair) > 0)
                                assert_false(findings_refuse(&pair.findings));
                        if (expect > 0) {
                                assert_string_equal(pair.findings.items[0].property, rules[i].property);
                                assert_string_equal(pair.findings.items[0].device,
                                                    pair.side[0].devices[1].id);
                        }
                        pair_deinit(&pair);
                }
}

/* ---- room and machine ---------------------------------------------------------------------------------------------- */

static void test_records_need_room(void **state)
{
        static const struct {
                int64_t bytes;
                const char *value;
        } rooms[] = {{-1, NULL},
                     {0, "0 KiB free"},
                     {4194303, "4095 KiB free"},
                     {4194304, NULL},
                     {INT64_MAX, NULL}};

        for (Side side = 0; side < SIDE_MAX; side++)
                for (size_t i = 0; i < ARRAY_SIZE(rooms); i++) {
                        Pair pair;

                        pair_init(&pair, VMM_TYPE_NONE);
                        pair.side[side].free_bytes = rooms[i].bytes;
                        assert_int_equal(pair_check(&pair), rooms[i].value ? 1 : 0);
                        if (rooms[i].value)
                                assert_finding(&pair.findings.items[0], "", "room for records",
                                               side == SIDE_SOURCE ? rooms[i].value : "",
                                               side == SIDE_SOURCE ? "" : rooms[i].value);
                        pair_deinit(&pair);
                }
}

/* Nothing: they are the same. */
static const struct {
        const char *source, *destination;
        FindingWeight weight; /* MAX: nothing is found */
} machines[] = {
        {"pc-q35-10.0", "pc-q35-10.0", FINDING_MAX},
        {"microvm", "microvm", FINDING_MAX},
        {"", "pc", FINDING_MAX}, /* it can't be asked, and that is found */
        {"pc-q35-10.0", "q35", FINDING_NOTICE},
        {"pc-i440fx-7.2", "pc", FINDING_NOTICE},
        {"virt-9.2", "virt", FINDING_NOTICE},
        {"s390-ccw-virtio-9.2", "s390-ccw-virtio", FINDING_NOTICE},
        {"pc-q35-10.0", "", FINDING_NOTICE},
        {"microvm", "", FINDING_NOTICE},
        {"pc-q35-10.0", "pc-q35-9.2", FINDING_REFUSAL},
        {"pc-q35-10.0", "pc", FINDING_REFUSAL},
        {"pc-i440fx-7.2", "q35", FINDING_REFUSAL},
        {"pc-q35-10.0", "pc-q35", FINDING_NOTICE},
        {"s390-ccw-virtio-9.2", "s390-ccw", FINDING_REFUSAL},
        {"pc-i440fx-7.2", "p", FINDING_REFUSAL},
        {"microvm", "pc", FINDING_REFUSAL},
        {"virt", "virt-9.2", FINDING_REFUSAL},
};

static void test_the_machine_is_the_same(void **state)
{
        for (VmmType vmm = 0; vmm < VMM_TYPE_MAX; vmm++)
                for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
                        uint32_t n = vmm == VMM_TYPE_QMP && machines[i].weight != FINDING_MAX;
                        Pair pair;

                        pair_init(&pair, vmm);
                        (void) snprintf(pair.side[0].vmm.machine, 64, "%s", machines[i].source);
                        (void) snprintf(pair.side[1].vmm.machine, 64, "%s", machines[i].destination);
                        assert_int_equal(pair_check(&pair), n);
                        if (n > 0) {
                                assert_finding(
                                        &pair.findings.items[0], "", "machine type", machines[i].source,
                                        machines[i].destination[0] ? machines[i].destination : "not said");
                                assert_int_equal(pair.findings.items[0].weight, machines[i].weight);
                        }
                        pair_deinit(&pair);
                }
}

/* ---- what policy says -------------------------------------------------------------------------------------------- */

static void set_key(Pair *p, PolicyKey key, uint64_t value)
{
        p->rule.sets[key] = true;
        p->rule.values[key] = value;
        p->rules = (PolicyRules){1, &p->rule};
}

#define DMA (DEVICE_HAS_DMA | DEVICE_DMA_LOGGING)

/* A VM whose three devices all do DMA; the first has P2P states. */
static void pair_init_dma(Pair *pair)
{
        pair_init(pair, VMM_TYPE_DELEGATE);
        for (Side s = 0; s < SIDE_MAX; s++)
                for (uint32_t i = 0; i < N; i++)
                        pair->side[s].devices[i].migration_flags |= DMA | (i == 0 ? DEVICE_MIGRATION_P2P : 0);
}

/* A device without P2P states that others reach, or that reaches them, is moved on its policy's word only. dev1 has none, dev2
 * has them, but in the last rows. */
static void test_a_device_without_p2p_states_needs_its_policys_word(void **state)
{
        static const struct {
                PolicyP2p word;
                DeviceIsolation isolation[N];
                bool others_p2p;
                int expect; /* FindingId about dev1, or -1 */
        } rows[] = {
                {POLICY_P2P_REQUIRE, {0, 0, 0}, true, FINDING_P2P_REQUIRED},
                {POLICY_P2P_ISOLATE, {0, 0, 0}, true, FINDING_P2P_NOT_ISOLATED},
                {POLICY_P2P_SINGLE, {0, 0, 0}, true, FINDING_P2P_NOT_SINGLE},
                {POLICY_P2P_ACCEPT_RISK, {0, 0, 0}, true, FINDING_P2P_RISK},
                /* nobody reaches it, but it may reach others */
                {POLICY_P2P_REQUIRE, {0, DEVICE_ISOLATION_FULL, 0}, true, FINDING_P2P_REQUIRED},
                {POLICY_P2P_ISOLATE, {0, DEVICE_ISOLATION_FULL, 0}, true, -1},
                {POLICY_P2P_ISOLATE, {0, DEVICE_ISOLATION_NONE, 0}, true, FINDING_P2P_NOT_ISOLATED},
                {POLICY_P2P_SINGLE, {0, DEVICE_ISOLATION_FULL, 0}, true, FINDING_P2P_NOT_SINGLE},
                /* nobody reaches anybody: there is no domain */
                {POLICY_P2P_REQUIRE,
                 {DEVICE_ISOLATION_FULL, DEVICE_ISOLATION_FULL, DEVICE_ISOLATION_FULL},
                 true,
                 -1},
                {POLICY_P2P_SINGLE,
                 {DEVICE_ISOLATION_FULL, DEVICE_ISOLATION_FULL, DEVICE_ISOLATION_FULL},
                 true,
                 FINDING_P2P_NOT_SINGLE},
                /* two without, that reach each other */
                {POLICY_P2P_REQUIRE, {0, 0, 0}, false, FINDING_P2P_NO_ORDER},
                {POLICY_P2P_ISOLATE, {0, 0, 0}, false, FINDING_P2P_NO_ORDER},
                {POLICY_P2P_SINGLE, {0, 0, 0}, false, FINDING_P2P_NOT_SINGLE},
                {POLICY_P2P_ACCEPT_RISK, {0, 0, 0}, false, FINDING_P2P_RISK},
                {POLICY_P2P_ISOLATE, {0, DEVICE_ISOLATION_FULL, 0}, false, -1},
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int found = -1;
                Pair pair;

                pair_init_dma(&pair);
                set_key(&pair, POLICY_P2P, rows[i].word);
                for (uint32_t k = 0; k < N; k++)
                        pair.side[0].devices[k].isolation = rows[i].isolation[k];
                for (Side s = 0; s < SIDE_MAX && rows[i].others_p2p; s++)
                        pair.side[s].devices[2].migration_flags |= DEVICE_MIGRATION_P2P;
                (void) pair_check(&pair);
                for (uint32_t k = 0; k < pair.findings.n; k++)
                        if (streq(pair.findings.items[k].device, "dev1"))
                                found = (int) pair.findings.items[k].id;
                if (found != rows[i].expect)
                        print_error("row %zu: %d\n", i, found);
                assert_int_equal(found, rows[i].expect);
                if (rows[i].others_p2p)
                        assert_int_equal(findings_refuse(&pair.findings),
                                         found >= 0 && found != FINDING_P2P_RISK);
                pair_deinit(&pair);
        }
}

/* All devices of the VM count, whether anybody reaches them or not, and those that only its VMM knows. */
static void test_single_is_the_one_device_of_the_vm(void **state)
{
        static const struct {
                VmmType vmm;
                uint32_t n, n_undefined;
                const char *expect;
        } rows[] = {
                {VMM_TYPE_DELEGATE, 1, 0, NULL}, {VMM_TYPE_DELEGATE, 2, 0, "one of 2 devices"},
                {VMM_TYPE_QMP, 1, 0, NULL},      {VMM_TYPE_QMP, 1, 1, "one of 2 devices"},
                {VMM_TYPE_NONE, 2, 0, NULL}, /* no guest's */
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                const Finding *found = NULL;
                Pair pair;

                if (rows[i].vmm == VMM_TYPE_QMP)
                        pair_init_driven(&pair);
                else
                        pair_init(&pair, rows[i].vmm);
                set_key(&pair, POLICY_P2P, POLICY_P2P_SINGLE);
                for (Side s = 0; s < SIDE_MAX; s++) {
                        pair.side[s].n_devices = rows[i].n;
                        for (uint32_t k = 0; k < rows[i].n; k++) {
                                pair.side[s].devices[k].migration_flags &= ~(uint32_t) DEVICE_MIGRATION_P2P;
                                pair.side[s].devices[k].isolation = DEVICE_ISOLATION_FULL;
                        }
                }
                pair.side[0].vmm.n_vfio_user = rows[i].n_undefined;
                (void) snprintf(pair.side[0].vmm.vfio_user[0], MANIFEST_TEXT_MAX, "/machine/x (vfio-pci)");
                (void) pair_check(&pair);
                for (uint32_t k = 0; k < pair.findings.n; k++)
                        if (!found && pair.findings.items[k].id == FINDING_P2P_NOT_SINGLE)
                                found = &pair.findings.items[k];
                assert_true(!found == !rows[i].expect);
                if (found)
                        assert_finding(found, pair.side[0].devices[0].id, "P2P domain", rows[i].expect, "");
                for (Side s = 0; s < SIDE_MAX; s++)
                        pair.side[s].n_devices = N;
                pair_deinit(&pair);
        }
}

/* Beside a QEMU, in a set without a VM, or where none does DMA: nobody reaches anybody. */
static void test_without_a_domain_no_word_is_needed(void **state)
{
        for (VmmType vmm = 0; vmm < VMM_TYPE_MAX; vmm++) {
                Pair pair;

                pair_init(&pair, vmm);
                assert_int_equal(pair_check(&pair), 0);
                pair_deinit(&pair);
        }
}

/* QEMU's own rule stays, whatever policy says. */
static void test_no_policy_changes_qemus_rule(void **state)
{
        for (uint64_t word = 0; word <= POLICY_P2P_ACCEPT_RISK; word++) {
                Pair pair;

                pair_init_driven(&pair);
                set_key(&pair, POLICY_P2P, word);
                spoil_p2p(&pair);
                assert_int_equal(pair_check(&pair), 1);
                assert_int_equal(pair.findings.items[0].id, FINDING_P2P_QEMU);
                pair_deinit(&pair);
        }
}

/* off refuses a VM with a vIOMMU; auto one whose devices can't all be quiet; require any VM of the kind, vIOMMU or not. */
static void test_a_viommu_needs_devices_that_can_be_quiet_under_vcpus(void **state)
{
        for (uint64_t word = 0; word <= POLICY_REQUIRE; word++)
                for (unsigned int has = 0; has < 8; has++) {
                        bool viommu = has & 1, p2p = has & 2, ndma = has & 4, can = p2p && ndma;
                        int expect = word == POLICY_REQUIRE && !can ? FINDING_VIOMMU_REQUIRED
                                     : !viommu                      ? -1
                                     : word == POLICY_OFF           ? FINDING_VIOMMU_OFF
                                     : !can                         ? FINDING_VIOMMU_NDMA
                                                                    : -1;
                        Pair pair;

                        pair_init(&pair, VMM_TYPE_DELEGATE);
                        set_key(&pair, POLICY_VIOMMU_GRACE, word);
                        set_key(&pair, POLICY_NDMA, ndma ? POLICY_NDMA_FULL : POLICY_NDMA_NONE);
                        pair.side[0].vmm.viommu = viommu;
                        for (uint32_t i = 0; p2p && i < N; i++) {
                                pair.side[0].devices[i].migration_flags |= DEVICE_MIGRATION_P2P;
                                pair.side[1].devices[i].migration_flags |= DEVICE_MIGRATION_P2P;
                        }
                        (void) pair_check(&pair);
                        if (expect < 0 || word != POLICY_REQUIRE)
                                assert_int_equal(pair.findings.n, expect < 0 ? 0 : 1);
                        if (expect >= 0)
                                assert_int_equal(pair.findings.items[0].id, expect);
                        pair_deinit(&pair);
                }
}

static void test_qemu_moves_no_device_behind_a_viommu(void **state)
{
        Pair pair;

        pair_init_driven(&pair);
        pair.side[0].vmm.viommu = true;
        assert_int_equal(pair_check(&pair), 1);
        assert_int_equal(pair.findings.items[0].id, FINDING_VIOMMU_QEMU);
        pair_deinit(&pair);
        pair_init(&pair, VMM_TYPE_QMP); /* those beside it are none of its guest's */
        pair.side[0].vmm.viommu = true;
        assert_int_equal(pair_check(&pair), 0);
        pair_deinit(&pair);
}

static void test_a_required_pre_copy_is_required(void **state)
{
        for (uint64_t word = 0; word <= POLICY_REQUIRE; word++)
                for (int has = 0; has < 2; has++) {
                        Pair pair;

                        pair_init(&pair, VMM_TYPE_DELEGATE);
                        set_key(&pair, POLICY_PRECOPY, word);
                        for (uint32_t i = 0; i < N; i++)
                                if (has || i != 1)
                                        pair.side[0].devices[i].migration_flags |= DEVICE_MIGRATION_PRE_COPY;
                        assert_int_equal(pair_check(&pair), word == POLICY_REQUIRE && !has ? 1 : 0);
                        if (pair.findings.n > 0)
                                assert_finding(&pair.findings.items[0], "dev1", "pre-copy", "not supported",
                                               "");
                        pair_deinit(&pair);
                }
}

/* What QEMU moves it moves as it likes. */
static void test_that_qemu_pre_copies_all_the_same_is_told(void **state)
{
        Pair pair;

        pair_init_driven(&pair);
        set_key(&pair, POLICY_PRECOPY, POLICY_OFF);
        assert_int_equal(pair_check(&pair), 2);
        assert_int_equal(pair.findings.items[0].id, FINDING_PRECOPY_NOT_OURS);
        assert_false(findings_refuse(&pair.findings));
        pair_deinit(&pair);
}

static void test_a_device_that_holds_more_than_is_allowed_is_refused(void **state)
{
        static const struct {
                uint64_t mib, bytes;
                bool refused;
        } rows[] = {{0, UINT64_MAX, false},   {1, 0, false},       {1, 1 << 20, false},
                    {1, (1 << 20) + 1, true}, {5, 5 << 20, false}, {5, 6 << 20, true}};

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Pair pair;

                pair_init(&pair, VMM_TYPE_NONE);
                set_key(&pair, POLICY_MAX_STATE_MIB, rows[i].mib);
                pair.side[0].devices[2].state_bytes = rows[i].bytes;
                assert_int_equal(pair_check(&pair), rows[i].refused);
                if (rows[i].refused) {
                        assert_string_equal(pair.findings.items[0].property, "state size");
                        assert_string_equal(pair.findings.items[0].device, "dev2");
                }
                pair_deinit(&pair);
        }
}

/* With `allow`, of what QEMU moves by itself; a vfio-user-pci it would leave behind. */
static void test_an_undefined_device_is_allowed_by_policy_where_qemu_moves_it(void **state)
{
        for (uint64_t word = 0; word <= POLICY_OPAQUE_ALLOW; word++)
                for (int moved = 0; moved < 2; moved++) {
                        Pair pair;

                        pair_init_driven(&pair);
                        set_key(&pair, POLICY_OPAQUE, word);
                        pair.side[0].vmm.n_vfio_user = 1;
                        (void) snprintf(pair.side[0].vmm.vfio_user[0], MANIFEST_TEXT_MAX,
                                        "/machine/peripheral/v7 (%s)", moved ? "vfio-pci" : "vfio-user-pci");
                        assert_int_equal(pair_check(&pair), 1);
                        assert_int_equal(findings_refuse(&pair.findings),
                                         !(word == POLICY_OPAQUE_ALLOW && moved));
                        pair_deinit(&pair);
                }
}

/* ---- compat ------------------------------------------------------------------------------------------------------- */

static void test_versions_are_compared_part_by_part(void **state)
{
        static const struct {
                const char *a, *b;
                bool at_least;
        } rows[] = {
                {"1", "1", true},
                {"2", "1", true},
                {"1", "2", false},
                {"10", "9", true},
                {"9", "10", false},
                {"22.41.1000", "22.41.1000", true},
                {"22.41.1000", "22.9.9999", true},
                {"22.9.9999", "22.41.1000", false},
                {"1.2", "1.2.0", false},
                {"1.2.0", "1.2", true},
                {"1.02", "1.2", true},
                {"1.2", "1.02", true},
                {"v2", "v1", true},
                {"v1", "v2", false},
                {"1.0a", "1.0", true},
                {"1-2", "1.2", true},
                {"", "", true},
                {"", "1", false},
                {"1", "", true},
                {"4294967297", "4294967296", true},
                {"99999999999999999999999999", "100000000000000000000000000", false},
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                if (version_at_least(rows[i].a, rows[i].b) != rows[i].at_least)
                        print_error("%s >= %s\n", rows[i].a, rows[i].b);
                assert_int_equal(version_at_least(rows[i].a, rows[i].b), rows[i].at_least);
        }
}

static void test_facts_are_compared_as_policy_says(void **state)
{
        static char choices[2][FACT_VALUE_MAX + 1] = {"A", "B"};
        static const struct {
                CompatHow how;
                const char *source, *destination;
                int expect;
        } rows[] = {
                {COMPAT_EQUAL, "1.0", "1.0", -1},
                {COMPAT_EQUAL, "1.0", "1.1", FINDING_FACT_NOT_EQUAL},
                {COMPAT_EQUAL, "1.0", "1.00", FINDING_FACT_NOT_EQUAL},
                {COMPAT_EQUAL, NULL, "1.0", FINDING_FACT_UNKNOWN},
                {COMPAT_EQUAL, "1.0", NULL, FINDING_FACT_UNKNOWN},
                {COMPAT_EQUAL, NULL, NULL, FINDING_FACT_UNKNOWN},
                {COMPAT_AT_LEAST, "1.9", "1.10", -1},
                {COMPAT_AT_LEAST, "1.10", "1.9", FINDING_FACT_OLDER},
                {COMPAT_AT_LEAST, "1", NULL, FINDING_FACT_UNKNOWN},
                {COMPAT_IN, "A", "B", -1},
                {COMPAT_IN, "A", "C", FINDING_FACT_NOT_ALLOWED},
                {COMPAT_IN, "C", "A", FINDING_FACT_NOT_ALLOWED},
                {COMPAT_IN, "A", NULL, FINDING_FACT_UNKNOWN},
                {COMPAT_IGNORE, "A", NULL, -1},
                {COMPAT_IGNORE, "A", "B", -1},
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Pair pair;

                pair_init(&pair, VMM_TYPE_NONE);
                (void) snprintf(pair.rule.match.id, sizeof pair.rule.match.id, "dev1");
                pair.rule.n_compat = 1;
                pair.rule.compat[0] =
                        (PolicyCompat){.fact = "x.y", .how = rows[i].how, .n_choices = 2, .choices = choices};
                pair.rules = (PolicyRules){1, &pair.rule};
                if (rows[i].source)
                        assert_int_equal(manifest_add_fact(&pair.side[0].devices[1], "x.y", rows[i].source),
                                         0);
                if (rows[i].destination)
                        assert_int_equal(
                                manifest_add_fact(&pair.side[1].devices[1], "x.y", rows[i].destination), 0);
                assert_int_equal(pair_check(&pair), rows[i].expect < 0 ? 0 : 1);
                if (rows[i].expect >= 0) {
                        const Finding *f = &pair.findings.items[0];

                        assert_int_equal(f->id, rows[i].expect);
                        assert_string_equal(f->device, "dev1");
                        assert_non_null(strstr(f->source, "x.y"));
                        assert_non_null(strstr(f->source, rows[i].source ? rows[i].source : "not known"));
                        assert_non_null(strstr(f->destination,
                                               rows[i].destination ? rows[i].destination : "not known"));
                }
                pair_deinit(&pair);
        }
}

/* ---- the table of all that can be said ----------------------------------------------------------------------------- */

static void test_each_finding_has_its_text_and_was_reached(void **state)
{
        assert_null(finding_desc(FINDING_ID_MAX));
        assert_null(finding_desc(FINDING_ID_INVALID));
        for (FindingId id = 0; id < FINDING_ID_MAX; id++) {
                const FindingDesc *desc = finding_desc(id);
                bool of_daemon = id == FINDING_NOT_REGISTERED || id == FINDING_POLICIES ||
                                 id == FINDING_BUSY || id == FINDING_PRESENCE_BOTH || id == FINDING_MANIFEST;

                assert_true(desc->property && desc->property[0] && desc->remedy && desc->remedy[0]);
                /* Those the daemon says by itself: tests/system has them. */
                if (!reached[id] && !of_daemon)
                        print_error("nothing reaches \"%s\": %s\n", desc->property, desc->remedy);
                assert_int_equal(reached[id], !of_daemon);
        }
}

/* No peer is trusted: what is not allowed, or not any more, is not prepared. */
static void test_only_a_check_that_was_passed_is_held_to_be_one(void **state)
{
        static const uint64_t NOW = 1000 * USEC_PER_SEC;
        CheckPasses passes = {};
        char job[8];

        assert_false(check_has_passed(&passes, "", "", NOW));
        assert_false(check_has_passed(&passes, "host", "job", NOW));
        check_note_answer(&passes, "host", "job", false, NOW);
        assert_false(check_has_passed(&passes, "host", "job", NOW));
        check_note_answer(&passes, "host", "job", true, NOW);
        assert_true(check_has_passed(&passes, "host", "job", NOW));
        assert_false(check_has_passed(&passes, "other", "job", NOW));
        assert_false(check_has_passed(&passes, "host", "other", NOW));
        for (int i = 1; i < CHECK_PASSES; i++) {
                (void) snprintf(job, sizeof job, "%d", i);
                check_note_answer(&passes, "other", job, true, NOW);
                check_note_answer(&passes, "other", job, true, NOW); /* again */
                assert_true(check_has_passed(&passes, "host", "job", NOW));
        }
        check_note_answer(&passes, "host", "job", false, NOW);
        assert_false(check_has_passed(&passes, "host", "job", NOW));
        for (int i = 1; i < CHECK_PASSES; i++) {
                (void) snprintf(job, sizeof job, "%d", i);
                assert_true(check_has_passed(&passes, "other", job, NOW));
        }
        /* for a minute */
        check_note_answer(&passes, "host", "job", true, NOW);
        assert_true(check_has_passed(&passes, "host", "job", NOW + 60 * USEC_PER_SEC));
        assert_false(check_has_passed(&passes, "host", "job", NOW + 60 * USEC_PER_SEC + 1));
        /* a refusal is of all that this host asks, and of nobody else's */
        check_note_answer(&passes, "host", "job 2", false, NOW);
        assert_false(check_has_passed(&passes, "host", "job", NOW));
        assert_true(check_has_passed(&passes, "other", "7", NOW));
        check_note_answer(&passes, "host", "0123456789012345678901234567890123456789", true, NOW);
        assert_false(check_has_passed(&passes, "host", "0123456789012345678901234567890123456789", NOW));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nothing_is_found_where_nothing_is_wrong),
                cmocka_unit_test(test_a_device_in_quarantine_is_refused_and_the_way_out_named),
                cmocka_unit_test(test_what_is_wrong_is_named_with_its_value_and_side),
                cmocka_unit_test(test_everything_that_is_wrong_is_said_at_once),
                cmocka_unit_test(test_a_writable_disk_needs_qemu_10),
                cmocka_unit_test(test_only_the_source_device_has_to_run),
                cmocka_unit_test(test_flags_pair_when_the_destination_knows_what_the_source_uses),
                cmocka_unit_test(test_both_sets_of_flags_are_shown),
                cmocka_unit_test(test_devices_pair_by_id_whatever_their_order),
                cmocka_unit_test(test_what_speaks_against_the_vmms_devices_refuses_or_is_told),
                cmocka_unit_test(test_a_single_device_of_the_vmm_needs_no_p2p),
                cmocka_unit_test(test_without_such_devices_nothing_is_told),
                cmocka_unit_test(test_memory_that_a_device_writes_must_be_moved_and_its_writes_known),
                cmocka_unit_test(test_all_reasons_are_listed_and_long_ones_cut),
                cmocka_unit_test(test_a_device_without_p2p_states_needs_its_policys_word),
                cmocka_unit_test(test_single_is_the_one_device_of_the_vm),
                cmocka_unit_test(test_without_a_domain_no_word_is_needed),
                cmocka_unit_test(test_no_policy_changes_qemus_rule),
                cmocka_unit_test(test_a_viommu_needs_devices_that_can_be_quiet_under_vcpus),
                cmocka_unit_test(test_qemu_moves_no_device_behind_a_viommu),
                cmocka_unit_test(test_a_required_pre_copy_is_required),
                cmocka_unit_test(test_that_qemu_pre_copies_all_the_same_is_told),
                cmocka_unit_test(test_a_device_that_holds_more_than_is_allowed_is_refused),
                cmocka_unit_test(test_an_undefined_device_is_allowed_by_policy_where_qemu_moves_it),
                cmocka_unit_test(test_versions_are_compared_part_by_part),
                cmocka_unit_test(test_facts_are_compared_as_policy_says),
                cmocka_unit_test(test_records_need_room),
                cmocka_unit_test(test_the_machine_is_the_same),
                cmocka_unit_test(test_each_finding_has_its_text_and_was_reached),
                cmocka_unit_test(test_only_a_check_that_was_passed_is_held_to_be_one),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
