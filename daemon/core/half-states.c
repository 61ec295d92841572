/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The states of both halves: what is asked of whom on entry, how long it may take, what is said when the other half
 * asks. And where a restarted daemon goes on. */

#include "half-table.h"

/* clang-format off */
const HalfStateDesc half_states[HALF_STATE_MAX] = {
        [SOURCE_CHECK_HERE] = {
                "source-check-here", PHASE_CHECK, JOB_STATE_RUNNING, .device = DEVICE_ACT_LOOK, .vmm = VMM_ACT_LOOK,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .doc = "Facts are gathered at the source."},
        [SOURCE_CHECK_THERE] = {
                "source-check-there", PHASE_CHECK, JOB_STATE_RUNNING, .send = MESSAGE_CHECK, .expect = MESSAGE_CHECKED,
                .time = HALF_TIME_PHASE, .doc = "Both sides judge both manifests; what either finds refuses the job."},
        [SOURCE_RECORD] = {
                "source-record", PHASE_PREPARE, JOB_STATE_RUNNING, .record = OWNER_SOURCE,
                .doc = "The job exists: a restart finds it."},
        [SOURCE_PREPARE] = {
                "source-prepare", PHASE_PREPARE, JOB_STATE_RUNNING, .vmm = VMM_ACT_PREPARE,
                .send = MESSAGE_PREPARE, .expect = MESSAGE_PREPARED, .time = HALF_TIME_PHASE,
                .doc = "The destination makes everything ready to take in."},
        [SOURCE_CONNECT] = {
                "source-connect", PHASE_PREPARE, JOB_STATE_RUNNING, .connect = true, .time = HALF_TIME_PHASE,
                .doc = "One data connection for each device, one for the memory."},
        [SOURCE_LOG] = {
                "source-log", PHASE_PRECOPY, JOB_STATE_RUNNING, .device = DEVICE_ACT_LOG, .time = HALF_TIME_PHASE,
                .doc = "Devices that write the VM's memory note where, before anybody copies it."},
        [SOURCE_PRECOPY] = {
                "source-precopy", PHASE_PRECOPY, JOB_STATE_RUNNING, .skippable = true, .device = DEVICE_ACT_PRECOPY,
                .vmm = VMM_ACT_MIGRATE, .send = MESSAGE_BEGIN, .expect = MESSAGE_REACHED, .time = HALF_TIME_PHASE,
                .doc = "Memory and device state go out while the VM runs, until only the rest is missing."},
        [SOURCE_VIOMMU_GRACE] = {
                "source-viommu-grace", PHASE_VIOMMU_GRACE, JOB_STATE_RUNNING, .skippable = true,
                .device = DEVICE_ACT_GRACE, .time = HALF_TIME_PHASE,
                .doc = "To P2P while vCPUs still run: devices that their VMM drives, whose migration is held; or all, for a vIOMMU."},
        [SOURCE_HALT] = {
                "source-halt", PHASE_HALT, JOB_STATE_RUNNING, .vmm = VMM_ACT_HALT, .time = HALF_TIME_PHASE,
                .doc = "The vCPUs stand: the blackout begins."},
        [SOURCE_P2P_GRACE] = {
                "source-p2p-grace", PHASE_P2P_GRACE, JOB_STATE_RUNNING, .device = DEVICE_ACT_P2P,
                .time = HALF_TIME_PHASE, .doc = "First barrier: all devices that can, to RUNNING_P2P, or from PRE_COPY to PRE_COPY_P2P."},
        [SOURCE_STOP_REST] = {
                "source-stop-rest", PHASE_P2P_GRACE, JOB_STATE_RUNNING, .device = DEVICE_ACT_STOP_REST,
                .time = HALF_TIME_PHASE, .doc = "Second barrier: the others, to STOP, or from PRE_COPY to STOP_COPY."},
        [SOURCE_STOP] = {
                "source-stop", PHASE_DRAIN, JOB_STATE_RUNNING, .device = DEVICE_ACT_STOP, .time = HALF_TIME_PHASE,
                .doc = "Nothing writes the VM's memory any more."},
        [SOURCE_DIRTY] = {
                "source-dirty", PHASE_DRAIN, JOB_STATE_RUNNING, .device = DEVICE_ACT_DIRTY, .time = HALF_TIME_PHASE,
                .doc = "Each device says which pages it has written; a VMM that takes them is told."},
        [SOURCE_DRAIN] = {
                "source-drain", PHASE_DRAIN, JOB_STATE_RUNNING, .device = DEVICE_ACT_DRAIN, .vmm = VMM_ACT_SEAL,
                .send = MESSAGE_BEGIN, .expect = MESSAGE_REACHED, .time = HALF_TIME_PHASE,
                .doc = "All state goes out, then every device stands in STOP and the VMM is sealed."},
        [SOURCE_PAGES] = {
                "source-pages", PHASE_DRAIN, JOB_STATE_RUNNING, .device = DEVICE_ACT_SEND_PAGES, .expect = MESSAGE_REACHED,
                .time = HALF_TIME_PHASE, .doc = "What devices wrote goes out, now that the VMM's memory is over there."},
        [SOURCE_INTAKE] = {
                "source-intake", PHASE_INTAKE, JOB_STATE_RUNNING, .device = DEVICE_ACT_SEALED,
                .send = MESSAGE_BEGIN, .expect = MESSAGE_READY, .time = HALF_TIME_PHASE,
                .doc = "The destination's devices accept or refuse their states. Those that the VMM drives must stand here."},
        [SOURCE_NOBODY] = {
                "source-nobody", PHASE_HANDOVER, JOB_STATE_RUNNING, .record = OWNER_NOBODY,
                .doc = "The source gives the VM up, durably."},
        [SOURCE_GO] = {
                "source-go", PHASE_HANDOVER, JOB_STATE_RUNNING, .send = MESSAGE_GO, .time = HALF_TIME_DOUBT,
                .doc = "Only the destination's word decides now."},
        [SOURCE_ASK] = {
                "source-ask", PHASE_HANDOVER, JOB_STATE_SETTLING, .send = MESSAGE_ASK, .time = HALF_TIME_DOUBT,
                .doc = "After a restart in transit: how does the destination stand?"},
        [SOURCE_DONE] = {
                "source-done", PHASE_RELEASE, JOB_STATE_RUNNING, .record = OWNER_DONE,
                .doc = "The destination runs the VM."},
        [SOURCE_RELEASE] = {
                "source-release", PHASE_RELEASE, JOB_STATE_RUNNING, .device = DEVICE_ACT_CLOSE, .vmm = VMM_ACT_END,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .doc = "The source's VMM ends, its devices are let go."},
        [SOURCE_CLOSE] = {
                "source-close", PHASE_RELEASE, JOB_STATE_FINISHED, .send = MESSAGE_DONE, .time = HALF_TIME_DOUBT,
                .doc = "The destination is told, until it says that it knows."},
        [SOURCE_OVER] = {
                "source-over", PHASE_RELEASE, JOB_STATE_FINISHED, .doc = "Nothing is left to do."},

        [SOURCE_ABORT] = {
                "source-abort", PHASE_P2P_GRACE, JOB_STATE_ROLLING_BACK, .record = OWNER_ABORTED,
                .doc = "The source takes the VM back, durably."},
        [SOURCE_LOOK] = {
                "source-look", PHASE_P2P_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_LOOK,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE,
                .doc = "Each device is interrupted and says where it is, over a new connection if it has none."},
        [SOURCE_REOPEN] = {
                "source-reopen", PHASE_P2P_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_REOPEN,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE,
                .doc = "A device that said nothing is given up with its connection; a new one may find it well."},
        [SOURCE_BACK_P2P] = {
                "source-back-p2p", PHASE_P2P_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_BACK_P2P,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE,
                .doc = "First barrier: all devices that can, to RUNNING_P2P; one in ERROR is reset."},
        [SOURCE_BACK_RUN] = {
                "source-back-run", PHASE_P2P_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_RUN,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .doc = "Second barrier: all devices to RUNNING, those without P2P states first."},
        [SOURCE_FIND] = {
                "source-find", PHASE_P2P_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_REOPEN,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE,
                .doc = "A device whose connection broke on the way back is looked for over a new one."},
        [SOURCE_RUN_AGAIN] = {
                "source-run-again", PHASE_P2P_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_RUN,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .doc = "Those that do not run yet, to RUNNING."},
        [SOURCE_REPAIR] = {
                "source-repair", PHASE_P2P_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_REPAIR,
                .patience = HALF_LAST, .time = HALF_TIME_PHASE,
                .doc = "A device that does not run is reset; it runs without its state."},
        [SOURCE_RESUME] = {
                "source-resume", PHASE_RUN, JOB_STATE_ROLLING_BACK, .vmm = VMM_ACT_RESUME, .time = HALF_TIME_PHASE,
                .doc = "The vCPUs go on."},
        [SOURCE_SETTLE] = {
                "source-settle", PHASE_RUN, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_SETTLE,
                .patience = HALF_LAST, .time = HALF_TIME_PHASE,
                .doc = "Devices that the VMM drives run, too: one that it has not seen in RUNNING_P2P it leaves there."},
        [SOURCE_UNLOG] = {
                "source-unlog", PHASE_RUN, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_UNLOG,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .doc = "The VM runs; DMA need not be logged any more."},
        [SOURCE_END] = {
                "source-end", PHASE_RELEASE, JOB_STATE_FINISHED, .record = OWNER_ABORTED, .send = MESSAGE_END,
                .time = HALF_TIME_DOUBT, .doc = "The source runs; the destination is told, until it says that it knows."},

        [SOURCE_DOUBT] = {
                "source-doubt", PHASE_HANDOVER, JOB_STATE_IN_DOUBT, .time = HALF_TIME_DOUBT,
                .doc = "The destination may run the VM. It is asked again and again."},
        [SOURCE_ORPHAN] = {
                "source-orphan", PHASE_HANDOVER, JOB_STATE_IN_DOUBT, .send = MESSAGE_ASK, .time = HALF_TIME_DOUBT,
                .doc = "The source's VMM died between drain and handover. Without a seal a person decides."},
        [SOURCE_UNSEEN] = {
                "source-unseen", PHASE_HANDOVER, JOB_STATE_IN_DOUBT, .send = MESSAGE_ASK, .time = HALF_TIME_DOUBT,
                .doc = "The source's VMM died on the way back; nobody saw whether it ran. With a copy over there a person decides."},
        [SOURCE_STUCK] = {
                "source-stuck", PHASE_RUN, JOB_STATE_IN_DOUBT, .vmm = VMM_ACT_RESUME, .time = HALF_TIME_PHASE,
                .doc = "The source owns the VM, but its VMM does not resume it. Tried again and again."},
        [SOURCE_HELD] = {
                "source-held", PHASE_RUN, JOB_STATE_IN_DOUBT,
                .doc = "A device has lost its state, and policy has the VM stand until somebody lets it go on by its VMM."},
        [SOURCE_FENCE] = {
                "source-fence", PHASE_HANDOVER, JOB_STATE_SETTLING, .fence = true, .time = HALF_TIME_FENCE,
                .doc = "A person wants the VM to run here: first the destination is kept from running it, for good."},
        [SOURCE_DISCARD] = {
                "source-discard", PHASE_HANDOVER, JOB_STATE_SETTLING, .device = DEVICE_ACT_DISCARD, .vmm = VMM_ACT_END,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE,
                .doc = "The VM is the destination's, as a person says, or as it says itself: what is left here goes. A device that can't be reset is let go as it is."},
        [SOURCE_LOST] = {
                "source-lost", PHASE_RELEASE, JOB_STATE_FINISHED, .record = OWNER_ABORTED,
                .doc = "The source's VMM died and the destination has no copy: the VM is lost."},

        [DESTINATION_RECORD] = {
                "destination-record", PHASE_PREPARE, JOB_STATE_RUNNING, .record = OWNER_PREPARED,
                .answer = MESSAGE_BUSY, .doc = "The job exists: a restart finds it."},
        [DESTINATION_PREPARE] = {
                "destination-prepare", PHASE_PREPARE, JOB_STATE_RUNNING, .device = DEVICE_ACT_RECEIVE,
                .vmm = VMM_ACT_START, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "Devices are reset and RESUMING, the VMM is started, paused and listening."},
        [DESTINATION_ADOPT] = {
                "destination-adopt", PHASE_PREPARE, JOB_STATE_RUNNING, .device = DEVICE_ACT_ADOPT,
                .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "The VMM is there: the files of devices that it drives can be had."},
        [DESTINATION_CLEAN] = {
                "destination-clean", PHASE_PREPARE, JOB_STATE_RUNNING, .device = DEVICE_ACT_CLEAN,
                .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "Such a device that does not read RUNNING holds what somebody has left: it is reset."},
        [DESTINATION_TAKE_IN] = {
                "destination-take-in", PHASE_DRAIN, JOB_STATE_RUNNING, .device = DEVICE_ACT_LOAD,
                .vmm = VMM_ACT_TAKE_IN, .answer = MESSAGE_BUSY,
                .doc = "State and memory come in, from the first connection to the last end frame."},
        [DESTINATION_PAGES] = {
                "destination-pages", PHASE_DRAIN, JOB_STATE_RUNNING, .device = DEVICE_ACT_LOAD_PAGES,
                .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "Memory is complete but for what the source's devices wrote: that comes in over it."},
        [DESTINATION_LOADED] = {
                "destination-loaded", PHASE_DRAIN, JOB_STATE_RUNNING, .answer = MESSAGE_BUSY,
                .doc = "Everything is here; the source says when all its devices stand."},
        [DESTINATION_INTAKE] = {
                "destination-intake", PHASE_INTAKE, JOB_STATE_RUNNING, .device = DEVICE_ACT_INTAKE,
                .vmm = VMM_ACT_VERIFY, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "All devices RESUMING to STOP: each accepts or refuses its state."},
        [DESTINATION_READY] = {
                "destination-ready", PHASE_HANDOVER, JOB_STATE_RUNNING, .answer = MESSAGE_READY,
                .doc = "A complete copy, kept until the source says what becomes of it."},
        [DESTINATION_OWNER] = {
                "destination-owner", PHASE_HANDOVER, JOB_STATE_RUNNING, .record = OWNER_DESTINATION,
                .answer = MESSAGE_BUSY, .doc = "The destination takes the VM, durably."},
        [DESTINATION_ARRIVE] = {
                "destination-arrive", PHASE_ARRIVAL_GRACE, JOB_STATE_RUNNING, .skippable = true,
                .device = DEVICE_ACT_ARRIVE, .vmm = VMM_ACT_HOLD, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "All devices that can, to RUNNING_P2P. If planned, the vCPUs are held from here on."},
        [DESTINATION_RUN_DEVICES] = {
                "destination-run-devices", PHASE_RUN_DEVICES, JOB_STATE_RUNNING, .device = DEVICE_ACT_RUN,
                .patience = HALF_ALL, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "All devices to RUNNING, those without P2P states first; no way back from the first one."},
        [DESTINATION_FIND] = {
                "destination-find", PHASE_RUN_DEVICES, JOB_STATE_RUNNING, .device = DEVICE_ACT_REOPEN,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "A device whose connection broke is looked for over a new one: it may run."},
        [DESTINATION_ARRIVE_AGAIN] = {
                "destination-arrive-again", PHASE_ARRIVAL_GRACE, JOB_STATE_RUNNING, .device = DEVICE_ACT_ARRIVE,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "A device may yet run here: no way back, the others arrive without it."},
        [DESTINATION_RUN_AGAIN] = {
                "destination-run-again", PHASE_RUN_DEVICES, JOB_STATE_RUNNING, .device = DEVICE_ACT_RUN,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "No way back: those that do not run yet, to RUNNING."},
        [DESTINATION_REPAIR] = {
                "destination-repair", PHASE_RUN_DEVICES, JOB_STATE_RUNNING, .device = DEVICE_ACT_REPAIR,
                .patience = HALF_LAST, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "No way back: a device that does not run is reset; it runs without its state."},
        [DESTINATION_VMM_ARRIVE] = {
                "destination-vmm-arrive", PHASE_RUN_DEVICES, JOB_STATE_RUNNING, .vmm = VMM_ACT_ARRIVE,
                .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "The VMM begins to run, and has taken its devices to RUNNING_P2P."},
        [DESTINATION_PUSH] = {
                "destination-push", PHASE_RUN_DEVICES, JOB_STATE_RUNNING, .device = DEVICE_ACT_PUSH,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "These to RUNNING, all at once; the VMM's own turn is the second try."},
        [DESTINATION_GATE] = {
                "destination-gate", PHASE_RUN_DEVICES, JOB_STATE_RUNNING, .vmm = VMM_ACT_GATE,
                .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "The VMM has taken its devices to RUNNING while its vCPUs are held: did it reset one?"},
        [DESTINATION_GATED] = {
                "destination-gated", PHASE_RUN_DEVICES, JOB_STATE_RUNNING, .device = DEVICE_ACT_SETTLE,
                .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "The vCPUs are still held: each of these devices reads RUNNING."},
        [DESTINATION_RUN] = {
                "destination-run", PHASE_RUN, JOB_STATE_RUNNING, .vmm = VMM_ACT_RUN, .time = HALF_TIME_PHASE,
                .answer = MESSAGE_BUSY, .doc = "The vCPUs run: the blackout ends."},
        [DESTINATION_SETTLE] = {
                "destination-settle", PHASE_RUN, JOB_STATE_RUNNING, .device = DEVICE_ACT_SETTLE,
                .patience = HALF_LAST, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "Each device that the VMM drives has read RUNNING."},
        [DESTINATION_DONE] = {
                "destination-done", PHASE_RELEASE, JOB_STATE_RUNNING, .send = MESSAGE_STARTED, .record = OWNER_DONE,
                .answer = MESSAGE_STARTED, .doc = "The source is told at once; the record follows."},
        [DESTINATION_STARTED] = {
                "destination-started", PHASE_RELEASE, JOB_STATE_FINISHED, .answer = MESSAGE_STARTED,
                .doc = "The VM runs here; the source has still to say that it has released its own."},
        [DESTINATION_OVER] = {
                "destination-over", PHASE_RELEASE, JOB_STATE_FINISHED, .doc = "Nothing is left to do."},

        [DESTINATION_UNDO] = {
                "destination-undo", PHASE_RUN_DEVICES, JOB_STATE_ROLLING_BACK, .vmm = VMM_ACT_UNDO,
                .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "The VMM is ended while its vCPUs are held; or nobody can say that they were."},
        [DESTINATION_LOOK] = {
                "destination-look", PHASE_ARRIVAL_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_LOOK,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "Each device is interrupted and says where it is."},
        [DESTINATION_REOPEN] = {
                "destination-reopen", PHASE_ARRIVAL_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_REOPEN,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "The connection of a device that said nothing is made anew."},
        [DESTINATION_UNARRIVE] = {
                "destination-unarrive", PHASE_ARRIVAL_GRACE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_UNARRIVE,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "Nothing has run: all devices back to STOP."},
        [DESTINATION_PROMISE] = {
                "destination-promise", PHASE_HANDOVER, JOB_STATE_ROLLING_BACK, .record = OWNER_PROMISED,
                .answer = MESSAGE_BUSY, .doc = "It will not start its copy without a new word, durably."},
        [DESTINATION_PROMISED] = {
                "destination-promised", PHASE_HANDOVER, JOB_STATE_SETTLING, .answer = MESSAGE_NOTSTARTED,
                .doc = "The copy is kept until the source runs, or can't."},
        [DESTINATION_GATHER] = {
                "destination-gather", PHASE_RELEASE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_REOPEN,
                .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "What is to be discarded must be in hand: a lost connection is made anew."},
        [DESTINATION_DISCARD] = {
                "destination-discard", PHASE_RELEASE, JOB_STATE_ROLLING_BACK, .device = DEVICE_ACT_DISCARD,
                .vmm = VMM_ACT_END, .patience = HALF_TOLERANT, .time = HALF_TIME_PHASE, .answer = MESSAGE_BUSY,
                .doc = "Devices are reset and let go, the VMM ends."},
        [DESTINATION_DISCARDED] = {
                "destination-discarded", PHASE_RELEASE, JOB_STATE_ROLLING_BACK, .record = OWNER_DISCARDED,
                .answer = MESSAGE_BUSY, .doc = "There is no copy, durably."},
        [DESTINATION_GONE] = {
                "destination-gone", PHASE_RELEASE, JOB_STATE_FINISHED, .answer = MESSAGE_NOTSTARTED,
                .doc = "No copy; the source has still to say that it runs."},

        [DESTINATION_STALLED] = {
                "destination-stalled", PHASE_RUN, JOB_STATE_IN_DOUBT, .vmm = VMM_ACT_RUN, .time = HALF_TIME_PHASE,
                .answer = MESSAGE_MAYBE, .doc = "The devices run, the vCPUs do not start. Tried again and again."},
        [DESTINATION_MAYBE] = {
                "destination-maybe", PHASE_RUN, JOB_STATE_IN_DOUBT, .answer = MESSAGE_MAYBE,
                .doc = "Its VMM is gone and may have run. A person decides, or a fence."},
};

/* After a restart: what the record says, what can be seen, where it goes on. */
static const HalfRestore restores[] = {
        /*                              superseded lives runs complete device_ran */
        {SIDE_SOURCE, OWNER_DONE,                1,   -1,   -1,   -1,   -1,  SOURCE_CLOSE},
        {SIDE_SOURCE, OWNER_ABORTED,             1,   -1,   -1,   -1,   -1,  SOURCE_END},
        /* it had ended, on a full disk, or no newer job could have begun */
        {SIDE_SOURCE, OWNER_SOURCE,              1,   -1,   -1,   -1,   -1,  SOURCE_END},
        /* never goes on: it may have resumed by itself in between (rule 5) */
        {SIDE_SOURCE, OWNER_SOURCE,             -1,    1,   -1,   -1,   -1,  SOURCE_ABORT},
        {SIDE_SOURCE, OWNER_SOURCE,             -1,    0,   -1,   -1,   -1,  SOURCE_ORPHAN},
        {SIDE_SOURCE, OWNER_NOBODY,             -1,   -1,   -1,   -1,   -1,  SOURCE_ASK},
        {SIDE_SOURCE, OWNER_ABORTED,            -1,    1,   -1,   -1,   -1,  SOURCE_LOOK},
        {SIDE_SOURCE, OWNER_ABORTED,            -1,    0,   -1,   -1,   -1,  SOURCE_UNSEEN},
        {SIDE_SOURCE, OWNER_DONE,               -1,   -1,   -1,   -1,   -1,  SOURCE_RELEASE},
        {SIDE_DESTINATION, OWNER_PREPARED,      -1,    1,   -1,    1,   -1,  DESTINATION_READY},
        {SIDE_DESTINATION, OWNER_PREPARED,      -1,   -1,   -1,   -1,   -1,  DESTINATION_GATHER},
        {SIDE_DESTINATION, OWNER_DESTINATION,   -1,    0,   -1,   -1,   -1,  DESTINATION_MAYBE},
        {SIDE_DESTINATION, OWNER_DESTINATION,   -1,    1,    1,   -1,   -1,  DESTINATION_SETTLE},
        /* a device that its VMM drives may have run where it reads RUNNING_P2P: others still stand then */
        {SIDE_DESTINATION, OWNER_DESTINATION,   -1,    1,    0,   -1,    1,  DESTINATION_ARRIVE_AGAIN},
        {SIDE_DESTINATION, OWNER_DESTINATION,   -1,    1,    0,   -1,    0,  DESTINATION_ARRIVE},
        {SIDE_DESTINATION, OWNER_PROMISED,      -1,   -1,   -1,   -1,   -1,  DESTINATION_PROMISED},
        {SIDE_DESTINATION, OWNER_DONE,          -1,   -1,   -1,   -1,   -1,  DESTINATION_STARTED},
        {SIDE_DESTINATION, OWNER_DISCARDED,     -1,   -1,   -1,   -1,   -1,  DESTINATION_GONE},
};
/* clang-format on */

const HalfTable half_table = {
        .states = half_states,
        .side = {[SIDE_SOURCE] = &half_source_rows, [SIDE_DESTINATION] = &half_destination_rows},
        .restores = restores,
        .n_restores = ARRAY_SIZE(restores),
};

const char *half_state_to_string(HalfState value)
{
        return (int) value < 0 || value >= HALF_STATE_MAX ? NULL : half_states[value].name;
}

HalfState half_state_from_string(const char *name)
{
        for (HalfState i = 0; name && i < HALF_STATE_MAX; i++)
                if (streq(half_states[i].name, name))
                        return i;
        return HALF_STATE_INVALID;
}
