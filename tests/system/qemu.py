# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM in real QEMUs, moved with its devices: what succeeds, what is rolled back, cancelled, killed, and QEMU's traps.

Each case has two hosts with real daemons, helpers and agents, the counting guest (tests/guest) and a device server for
each device on each side. The rule that every case must keep is restated in Move.judge(): the guest counts on at exactly
one side with no count lost, repeated or wrong page; every device runs there with the memory it had; one QEMU is left;
result, exit status and presence say the same. Or the job says in-doubt and nothing runs; or it names what is gone.

  tests/bench/qemu [-j N] [PATTERN]      prints the table; PATTERN: a regular expression for the cases' names
"""

import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

from kills import Watcher, named_agents
from lab import TOP, Guest, Lab, Process, find_processes, is_alive, new_uuid, program, wait_for
from relay import Relay

CONFIG = {"policy": {"deadline-ms": {p: 3000 for p in (
    "check", "prepare", "halt", "p2p-grace", "intake", "handover", "arrival-grace", "run-devices", "run", "release")}},
    "connect-msec": 500, "doubt-msec": 1500}
CONFIG["policy"]["deadline-ms"].update({"precopy": 4000, "drain": 2500})
ARC_MS = 40
# Deadlines of the phase that failed and of the way back, and what scheduling takes.
LIMIT_SECONDS = 20

EXIT = {"done": 0, "failed": 1, "refused": 6, "cancelled": 7, "timeout": 3, "degraded": 10, "in-doubt": 9, "lost": 11}
DEVICES = {"d0": "p2p=on", "d1": "p2p=off"}

CASES = []


def case(name, *args):
    """Registers a function as a case: called with a Lab and `args`, returns the outcome for the table."""
    def add(function):
        CASES.append((name, lambda lab: function(lab, *args)))
        return function
    return add


# ---- a VM, two hosts ------------------------------------------------------------------------------------------------

class Move:
    """The VM "vm" runs on host a with two devices, and is known on host b."""

    def __init__(self, lab, arc_ms=0, relay=False, extra=(), incoming=None, guest=None, devices=None, env=None):
        """`extra`: of QEMU's argv; `incoming`: makes the argv of the destination from that of the source. `env`: of each host, by
        name."""
        self.lab = lab
        self.a, self.b = (lab.host(name, config=CONFIG, env=env and env[name]) for name in "ab")
        self.guest = guest or Guest(lab, "vm", extra=extra)
        self.guest.start(self.a)
        self.uuid, self.devices = new_uuid(), DEVICES if devices is None else devices
        self.servers = {(h.name, d): lab.server(h.name + d, {
            d: f"size=256K,seed={(h is self.b) * 4 + (d == 'd1') + 1},delay=*>*:{arc_ms},{spec}"})
            for h in (self.a, self.b) for d, spec in self.devices.items()}
        self.relay = Relay(os.path.join(lab.dir, "relay.sock"), self.b.dest) if relay else None
        self.dest = self.relay.dest if relay else self.b.dest
        self.a.register(self.definition(self.a))
        argv = incoming(self.guest.argv_at(self.b)) if incoming else None
        self.b.register(self.definition(self.b, argv), incoming=True)
        self.before = {d: self.memory(self.a, d) for d in self.devices}
        self.watchers, self.killed, self.struck, self.client = [], [], threading.Event(), None

    def definition(self, host, argv=None):
        return {"name": "vm", "uuid": self.uuid, "vmm": self.guest.vmm(host, argv), "devices": [
            {"id": d, "type": "vfio-user", "socket": self.servers[host.name, d].socket(d)} for d in self.devices]}

    def memory(self, host, device):
        """All of it but the counter of its work in the first eight bytes."""
        server = self.servers[host.name, device]
        path = os.path.join(server.dir, "dump")
        server.command("dump", device=device, path=path)
        with open(path, "rb") as f:
            return f.read()[8:]

    def state(self, host, device):
        server = self.servers[host.name, device]
        return server.status(device)["state"] if server.process.alive() else "gone"

    # What happens.

    def at(self, state, strike):
        """Calls `strike` with the job's id when the state is announced. Everything it needs must be known before."""
        host = self.a if state.startswith("source") else self.b
        path = "/org/migmgr1/job/_"

        def hit(event):
            strike(event["path"][len(path):].replace("_", "-"))
            self.struck.set()
        self.watchers.append(EventWatcher(host, state, hit))

    def kill(self, *pids):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.killed += pids

    def kill_at(self, state, *pids):
        self.at(state, lambda job: self.kill(*pids))

    def kill_vmm_at(self, state, host):
        """A destination's VMM is only known when it is there."""
        known = self.guest.qemus(host)
        self.at(state, lambda job: self.kill(*(known or wait_for("a QEMU", lambda: self.guest.qemus(host)))))

    def on_message(self, direction, message, act, phase=None):
        """Calls `act` before the first such message goes on."""
        def look(passing, body):
            if not self.struck.is_set() and passing == direction and body.get("type") == message and \
                    body.get("phase", phase) == phase:
                act()
                self.struck.set()
        self.relay.on_message = look

    def start(self, *args):
        self.began = time.monotonic()
        self.client = self.a.migctl_start("--json=short", "migrate", *args, "vm", self.dest)

    def finish(self):
        """Waits for the client, starts again what was killed. Sets `status` and `job`, what the client was told."""
        try:
            out, self.err = self.client.communicate(timeout=LIMIT_SECONDS + 10)
        except subprocess.TimeoutExpired:
            self.client.kill()
            self.client.communicate()
            raise AssertionError("the client has no answer: " + self.jobs_text())
        self.took = time.monotonic() - self.began
        self.status, self.job = self.client.returncode, json.loads(out) if out.strip() else {}
        if self.watchers or self.relay and self.relay.on_message:
            assert self.struck.wait(10), f"the state was not reached: {self.status} {self.job.get('error')}"
        for watcher in self.watchers:
            watcher.stop()
        self.watchers = []
        self.revive()
        assert self.took < LIMIT_SECONDS, f"took {self.took:.1f} s"

    def revive(self):
        wait_for("the end of what was killed", lambda: not any(is_alive(pid) for pid in self.killed))
        for h in (self.a, self.b):
            if not h.helper.alive():
                h.start_helper()
            if not h.daemon.alive():
                h.start_daemon()
        if self.relay:
            self.relay.on_message = None
            self.relay.heal()
            self.relay.flow.set()

    def migrate(self, *args):
        self.start(*args)
        self.finish()
        return self

    # What came of it.

    def jobs_text(self):
        return json.dumps([[j["State"], j["Result"], j["Phase"], j["Error"]] for h in (self.a, self.b) for j in h.jobs()])

    def settled(self):
        """(result, hosts where the VM is) when nothing moves any more. A destination that has a whole copy keeps it while
        its source is in doubt."""
        if self.a.is_restoring() or self.b.is_restoring():
            return None
        jobs = [h.jobs()[-1:] for h in (self.a, self.b)]
        here = [h for h in (self.a, self.b) if h.vm("vm")["presence"] == "here"]
        if any(j["State"] == "in-doubt" for side in jobs for j in side):
            return "in-doubt", here
        if any(j["State"] != "finished" for side in jobs for j in side):
            return None
        if len(here) != 1:
            return None
        jobs = [j for side in jobs for j in side]  # the source's says it; it is gone when a restart found it closed
        return jobs[0]["Result"] if jobs else "done" if here[0] is self.b else "failed", here

    def wait_end(self, allowed):
        """A doubt may settle by itself, when the peer is back or a deadline over."""
        def certain():
            end = self.settled()
            return end if end and (end[0] != "in-doubt" or "in-doubt" in allowed) else None
        try:
            end = wait_for("an end", certain, 15)
            if end[0] == "in-doubt":
                time.sleep(CONFIG["doubt-msec"] / 1000 + 0.5)  # it must stay so
                end = wait_for("an end", certain, 15)
        except AssertionError:
            raise AssertionError("no end: " + self.jobs_text())
        return end

    def judge(self, *allowed, lost=(), vmm_dies=None, repeated=0):
        """Asserts the rule; returns the result. `lost`: devices that may be degraded. `vmm_dies`: the host whose QEMU was
        killed. `repeated`: counts that may be, at most."""
        result, here = self.wait_end(allowed)
        assert result in allowed, f"{result}: {self.jobs_text()} {self.err}"
        if self.status not in (8, 9):
            assert self.status == EXIT[result], f"exit {self.status}, but {result}"
        if result == "in-doubt":
            return self.judge_doubt()
        owner = here[0]
        other = self.b if owner is self.a else self.a
        if self.job.get("half") == "source" and result in ("done", "failed", "lost"):
            assert owner is (self.b if result == "done" else self.a), f"{result}, but here at {owner.name}"
        if vmm_dies is owner:
            assert not self.guest.qemus(), "a QEMU is left"
            self.judge_stands()
        else:
            self.guest.wait_counts(3)
            self.judge_qemus(owner)
        if "is lost" not in self.jobs_text():  # a device without its VM stays where it was
            self.judge_devices(owner, other, lost if result == "degraded" else ())
        verdict = self.guest.verdict()
        assert verdict[1] <= repeated and verdict[0::2] == (0, 0), f"counts lost, repeated, wrong pages: {verdict}"
        if self.status in (0, 1, 6, 7, 10, 11):
            error = self.job["error"]
            assert bool(error["text"]) == bool(error["name"]) == (result != "done"), error
        return result

    def judge_stands(self):
        assert self.guest.stands(), "the guest runs"

    def judge_doubt(self):
        """Nothing runs, and nothing is destroyed that somebody could need: who decides is told."""
        self.judge_stands()
        errors = [j["Error"][1] for h in (self.a, self.b) for j in h.jobs()[-1:] if j["State"] == "in-doubt"]
        assert all(errors), "in doubt without a reason"
        for d in self.devices:
            if self.state(self.a, d) == "running":
                self.judge_not_doubled(self.b, d)
        verdict = self.guest.verdict()
        assert verdict == (0, 0, 0), f"counts lost, repeated, wrong pages: {verdict}"
        return "in-doubt"

    def judge_qemus(self, owner):
        wait_for("one QEMU", lambda: len(self.guest.qemus()) == 1, 5)
        assert self.guest.qemus(owner), f"the QEMU that is left is not at the owner {owner.name}"

    def judge_devices(self, owner, other, lost):
        for d in self.devices:
            if d in lost:
                continue
            wait_for(f"{d} runs at its owner {owner.name}", lambda: self.state(owner, d) == "running", 5)
            assert self.memory(owner, d) == self.before[d], f"{d} has other memory at its owner {owner.name}"
            self.judge_not_doubled(other, d)

    def judge_not_doubled(self, other, device):
        """A device there may run, but not with this state."""
        if self.state(other, device) in ("running", "running-p2p"):
            assert self.memory(other, device) != self.before[device], f"{device} runs on both sides"

    def close(self):
        for watcher in self.watchers:
            watcher.stop()
        if self.client and self.client.poll() is None:
            self.client.kill()
        if self.relay:
            self.relay.close()


class EventWatcher(Watcher):
    """Tells the event, too."""

    def run(self):
        for line in self.p.stdout:
            event = json.loads(line)
            if event["event"] == "PhaseReached" and event["data"][1] == self.state:
                self.callback(event)
                return


def moving(lab, **kw):
    """The Lab closes what the Move has open."""
    lab.move = Move(lab, **kw)
    return lab.move


# ---- success --------------------------------------------------------------------------------------------------------

@case("success: to and fro, twice")
def success(lab):
    move = moving(lab)
    for source, destination in ((move.a, move.b), (move.b, move.a)) * 2:
        start = time.monotonic()
        status, job = source.migrate("vm", destination)
        move.status, move.job, move.err, move.took = status, job, "", time.monotonic() - start
        assert status == 0 and job["result"] == "done", job["error"]
        assert 0 < job["vmm_usec"] <= job["blackout_usec"], (job["vmm_usec"], job["blackout_usec"])
        assert job["vmm_usec"] + job["device_blackout_usec"] == job["blackout_usec"]
        spans = {(s["who"], s["what"]) for s in job["timeline"]}
        for what in ("migrate", "halt", "seal", "take-in", "verify", "run"):
            assert ("vmm", what) in spans, f"{what} is not in the timeline: {sorted(spans)}"
        wait_for("one presence", lambda: source.vm("vm")["presence"] == "away", 5)
        wait_for("the guest there", lambda: move.guest.qemus(destination) and not move.guest.qemus(source), 5)
        move.guest.wait_counts(3)
        assert move.guest.verdict() == (0, 0, 0), move.guest.verdict()
        move.judge_devices(destination, source, ())
    return "done"


# ---- rolled back ----------------------------------------------------------------------------------------------------

for where, fault in (("b", "resuming>stop:fail:EINVAL"), ("a", "running-p2p>stop:fail:EIO"),
                     ("a", "stop>stop-copy:fail:EIO"), ("a", "read:fail:EIO")):
    @case(f"rollback: {'source' if where == 'a' else 'destination'} device {fault}", where, fault)
    def rollback_device(lab, side, what):
        move = moving(lab)
        move.servers[side, "d0"].fault("d0", what)
        move.migrate()
        assert "d0" in move.job["error"]["text"], move.job["error"]
        return move.judge("failed")


def other(option, value):
    """Makes an argv with another value of that option."""
    def change(argv):
        argv = list(argv)
        argv[argv.index(option) + 1] = value
        return argv
    return change


PAUSE = ["/usr/bin/python3", "-c", "import signal; signal.pause()"]

for name, change, text in (
        # The data connections end with it; whichever of the two the source hears of first, this is what is told.
        ("memory size", other("-m", "32"), "the destination: .* the VMM: its incoming migration failed"),
        ("argv ends at once", lambda argv: argv + ["-no-such-option"], "ended"),
        ("argv is no program", lambda argv: ["/nonexistent/qemu"], "/nonexistent/qemu"),
        ("monitor never opens", lambda argv: PAUSE, "monitor")):
    @case(f"rollback: destination's {name}", change, text)
    def rollback_vmm(lab, change, text):
        move = moving(lab, incoming=change).migrate()
        assert re.search(text, move.job["error"]["text"]), move.job["error"]
        return move.judge("failed")


# ---- cancelled ------------------------------------------------------------------------------------------------------

def cancel_at(lab, state, hold):
    """Where the source still owns the VM a cancel turns it back; later it is refused as too late, and the VM moves. In a
    state that is over before the cancel comes either may be, as long as the answer is true."""
    move = moving(lab, arc_ms=CANCEL_ARC_MS, relay=True)
    answers = []
    if hold:
        move.relay.flow.clear()

    def cancel(job):
        answers.append(move.a.migctl("cancel", job))
        move.relay.flow.set()
    move.at(state, cancel)
    move.migrate()
    status, _, text = answers[0]
    assert status in (0, 1) and (status == 0 or "too late" in text or "ended already" in text), (status, text)
    result = move.judge("cancelled" if status == 0 else "done")
    if state in CANCEL_HOLDS:
        assert status == 0, text
    if state in CANCEL_LATE:
        assert status == 1, "a cancel was accepted after GO"
    return result


CANCEL_ARC_MS = 120  # longer than it takes to start migctl
CANCEL_HOLDS = ("source-prepare", "source-precopy", "source-p2p-grace", "source-stop-rest", "source-drain",
                "source-intake")
CANCEL_LATE = ("source-go", "source-done", "source-release")

for state in ("source-check-there", "source-record", "source-prepare", "source-connect", "source-precopy", "source-halt",
              "source-p2p-grace", "source-stop-rest", "source-drain", "source-intake", "source-nobody", "source-go",
              "source-done", "source-release"):
    case(f"cancel: in {state}", state, state == "source-precopy")(cancel_at)


# ---- killed ---------------------------------------------------------------------------------------------------------

def kill_vmm(lab, side, state, allowed, text, hold):
    move = moving(lab, arc_ms=ARC_MS, relay=hold)
    host = move.a if side == "source" else move.b
    if hold:
        move.relay.flow.clear()
    move.kill_vmm_at(state, host)
    move.migrate()
    result = move.judge(*allowed, vmm_dies=host)
    assert result == "done" or text in move.job["error"]["text"], move.job["error"]
    return result


ENDED = "the VMM's process has ended"
for side, state, allowed, text in (
        ("destination", "destination-prepare", ["failed"], "ended"),
        ("destination", "source-precopy", ["failed"], ""),
        ("destination", "source-drain", ["failed"], ""),
        ("destination", "destination-intake", ["failed"], ENDED),
        ("destination", "destination-arrive", ["failed"], ENDED),
        ("destination", "destination-run-devices", ["in-doubt"], ENDED),
        ("source", "source-precopy", ["lost"], ENDED),
        ("source", "source-p2p-grace", ["lost"], ENDED),
        ("source", "source-drain", ["lost", "in-doubt", "done"], ENDED),
        ("source", "source-intake", ["done"], ""),
        ("source", "source-go", ["done"], "")):
    case(f"kill: {side} QEMU in {state}", side, state, allowed, text, state == "source-precopy")(kill_vmm)


@case("kill: destination QEMU when it is READY")
def kill_ready(lab):
    """Nothing is on the wire yet: the source hears of the promise before it could go on."""
    move = moving(lab, relay=True)

    def strike():
        move.kill(*move.guest.qemus(move.b))
        wait_for("its end", lambda: not any(is_alive(pid) for pid in move.killed))
    move.on_message("D>S", "READY", strike)
    move.migrate()
    return move.judge("failed")


def kill_process(lab, victim, state, allowed):
    """A daemon, agent, device server, or the link."""
    move = moving(lab, arc_ms=ARC_MS, relay=True)
    side, _, kind = victim.partition(" ")
    host = move.a if side == "source" else move.b
    if state.endswith("precopy"):
        move.relay.flow.clear()
    if kind == "daemon":
        move.kill_at(state, host.daemon.pid)
    elif kind == "device":
        move.kill_at(state, move.servers[host.name, "d0"].process.pid)
    elif kind == "agent" and side == "source":
        move.kill_at(state, *named_agents(host, "d0"))
    elif kind == "agent":
        move.at(state, lambda job: move.kill(*named_agents(host, "d0")))
    else:
        move.at(state, lambda job: move.relay.cut())
    move.migrate()
    result = move.judge(*allowed, lost=["d0"])
    if result == "degraded":
        assert "d0" in (move.job.get("error") or {}).get("text", ""), move.job.get("error")
    return result


for victim, state, allowed in (
        ("source device", "source-precopy", ["degraded"]),
        ("destination device", "source-drain", ["failed"]),
        ("destination device", "destination-run-devices", ["degraded"]),
        ("source agent", "source-p2p-grace", ["failed"]),
        ("source agent", "source-drain", ["failed"]),
        ("destination agent", "source-precopy", ["failed"]),
        ("destination agent", "destination-arrive", ["failed", "done"]),
        ("source daemon", "source-precopy", ["failed"]),
        ("source daemon", "source-drain", ["failed"]),
        ("source daemon", "source-intake", ["failed"]),
        ("source daemon", "source-go", ["done"]),
        ("destination daemon", "source-precopy", ["failed"]),
        ("destination daemon", "source-drain", ["failed"]),
        ("destination daemon", "destination-intake", ["failed"]),
        ("destination daemon", "destination-arrive", ["done"]),
        ("destination daemon", "destination-run-devices", ["done"]),
        ("the link", "source-precopy", ["failed"]),
        ("the link", "source-drain", ["failed"]),
        ("the link", "source-intake", ["failed"]),
        ("the link", "source-go", ["done", "failed"])):
    case(f"kill: {victim} in {state}", victim, state, allowed)(kill_process)


# ---- QEMU's traps ---------------------------------------------------------------------------------------------------

@case("trap: -S holds until GO")
def trap_held(lab):
    """`cont` before `completed` would silently undo -S: a destination that is READY stands, however long GO takes."""
    move = moving(lab, relay=True)

    def look():
        with move.guest.look(move.b) as monitor:
            assert monitor.command("query-status")["status"] == "paused"
            assert monitor.command("query-migrate")["status"] == "completed"
        move.judge_stands()
    move.on_message("D>S", "READY", look)
    move.migrate()
    return move.judge("done")


@case("trap: somebody sends cont to the destination too early")
def trap_early_cont(lab):
    """Then QEMU runs the copy as soon as it is complete, and nobody is asked. It is stopped before the source hears of it,
    which goes on: what the copy has printed meanwhile is printed again, but never do both run."""
    move = moving(lab, relay=True)
    monitors = []

    def cont():
        monitors.append(move.guest.look(move.b))
        assert monitors[0].command("cont") == {}
    move.on_message("S>D", "BEGIN", cont, phase="precopy")
    move.migrate()
    events = monitors[0].remaining_events()
    monitors[0].close()
    assert "RESUME" in events and "STOP" in events and events.index("STOP") < events.index("SHUTDOWN"), events
    assert "somebody" in move.job["error"]["text"], move.job["error"]
    return move.judge("failed", repeated=20)


@case("trap: somebody cancels QEMU's migration in the hold")
def trap_foreign_cancel(lab):
    move = moving(lab, arc_ms=ARC_MS)

    def cancel(job):
        with move.guest.look(move.a) as monitor:
            monitor.command("migrate_cancel")
    move.at("source-p2p-grace", cancel)
    move.migrate()
    return move.judge("failed")


@case("trap: the destination's QEMU is stopped in the last pass")
def trap_stopped(lab):
    """QEMU's source stands in a write and answers nobody: the connection is cut, and it goes on."""
    move = moving(lab, arc_ms=ARC_MS)
    move.at("source-halt", lambda job: [os.kill(pid, signal.SIGSTOP) for pid in move.guest.qemus(move.b)])
    move.migrate()
    return move.judge("failed")


@case("trap: the destination's QEMU is stopped while memory goes out")
def trap_stopped_early(lab):
    move = moving(lab, relay=True)
    move.relay.flow.clear()

    def stop(job):
        for pid in move.guest.qemus(move.b):
            os.kill(pid, signal.SIGSTOP)
        move.relay.flow.set()
    move.at("source-precopy", stop)
    move.migrate()
    return move.judge("failed")


@case("trap: migration settings are as before after an abort")
def trap_settings(lab):
    """And during the job what whoever asked for it allows."""
    move, during = moving(lab, arc_ms=ARC_MS), []
    move.servers["b", "d0"].fault("d0", "resuming>stop:fail:EINVAL")

    def settings():
        with move.guest.look(move.a) as monitor:
            return [monitor.command(c) for c in ("query-migrate-capabilities", "query-migrate-parameters")]
    before = settings()
    move.at("source-p2p-grace", lambda job: during.append(settings()[1]))
    move.migrate("--bandwidth=1G", "--max-blackout=2500")
    assert during[0]["downtime-limit"] == 2500 and 0 < during[0]["max-bandwidth"] <= 1 << 30, during
    assert settings() == before, "the migration settings are not what they were"
    return move.judge("failed")


@case("refused: destination's machine type")
def refused_machine(lab):
    """Its QEMU does not live yet: what it is started with says so. By a short name it may be another one."""
    move = moving(lab, incoming=other("-M", "q35"))
    status, report = move.a.json("check", "vm", move.dest)
    finding = report["findings"][0]
    assert (status, finding["property"], finding["destination"]) == (6, "machine type", "q35"), report
    assert finding["source"].startswith("pc-i440fx-") and report["hosts"]["source"]["machine"] == finding["source"], report
    move.migrate()
    return move.judge("refused")


def refused(lab, property, value, guest=None, extra=(), prepare=lambda move: None):
    move = moving(lab, guest=guest, extra=extra)
    prepare(move)
    status, report = move.a.json("check", "vm", move.dest)
    assert status == 6 and [f for f in report["findings"] if f["property"] == property and value in f["source"]], report
    assert report["findings"][0]["remedy"]
    return move


def refused_migration(move):
    move.migrate()
    return move.judge("refused")


@case("trap: a device that QEMU can't migrate is refused")
def trap_blocked(lab):
    return refused_migration(refused(lab, "migration blocker", "ivshmem", extra=[
        "-object", "memory-backend-memfd,id=shared,size=1M,share=on", "-device",
        "ivshmem-plain,memdev=shared,master=off"]))


@case("trap: a paused VM is refused")
def trap_paused(lab):
    def pause(move):
        with move.guest.look(move.a) as monitor:
            monitor.command("stop")
    move = refused(lab, "run state", "paused", prepare=pause)
    move.migrate()
    assert move.status == 6, move.status
    move.judge_stands()
    with move.guest.look(move.a) as monitor:
        monitor.command("cont")
    return move.judge("refused")


@case("trap: a writable disk is refused before QEMU 10")
def trap_disk(lab):
    path = os.path.join(lab.dir, "disk")
    with open(path, "wb") as f:
        f.truncate(1 << 20)
    version = subprocess.run([Guest(lab, "x").argv[0], "--version"], capture_output=True, text=True).stdout
    if int(re.search(r"version (\d+)", version).group(1)) >= 10:
        return "skipped"
    return refused_migration(refused(lab, "writable disk", "disk", extra=[
        "-blockdev", f"file,node-name=f,filename={path}", "-device", "virtio-blk-pci,drive=f,id=disk"]))


# ---- with a fake QEMU -----------------------------------------------------------------------------------------------

class FakeGuest(Guest):
    """tests/fake/qmp.py in the place of QEMU. `here` and `there`: its options at the source and at the destination."""

    def __init__(self, lab, here=(), there=()):
        super().__init__(lab, "vm")
        self.options = {"a": list(here), "b": list(there)}

    def argv_at(self, host):
        return [os.path.join(TOP, "tests/fake/qmp.py"), "--serial=" + self.serial, *self.options[host.name]]


@case("trap: vfio-pci that nobody has defined is refused")
def trap_vfio(lab):
    return refused_migration(refused(lab, "device in QEMU", "v0 (vfio-pci)", guest=FakeGuest(lab, ["--vfio=v0"])))


@case("trap: a vfio-pci device that cannot be duplicated is refused, and its QEMU is told so")
def trap_no_duplicate(lab):
    """QEMU says a place in sysfs where no device is."""
    return refused_migration(kernel_device(lab))


@case("trap: a vIOMMU and a device that QEMU drives is refused")
def trap_viommu(lab):
    move = kernel_device(lab, "--viommu")
    findings = {f["property"]: f for f in move.a.json("check", "vm", move.dest)[1]["findings"]}
    assert findings["vIOMMU"]["source"] == "present", findings
    return refused_migration(move)


@case("fake: a vIOMMU is no matter of devices beside it")
def fake_viommu(lab):
    return fake_move(lab, ["--viommu"], [], ["done"], None, "")


def kernel_device(lab, *options):
    move = moving(lab, guest=FakeGuest(lab, ["--vfio=v0", *options], ["--vfio=v0"]), devices={})
    for host, incoming in ((move.a, False), (move.b, True)):
        assert host.migctl("unregister", "vm")[0] == 0
        definition = move.definition(host)
        definition["devices"] = [{"id": "gpu", "type": "vfio", "vmm-device": "v0"}]
        host.register(definition, incoming=incoming)
    status, report = move.a.json("check", "vm", move.dest)
    assert "findings" in report, (status, report)
    refusals = [f for f in report["findings"] if f["device"] == "gpu" and f["weight"] == "refusal"]
    assert status == 6 and "no VFIO device" in refusals[0]["source"], report
    return move


for what in ("flood", "nonsense", "v9=running,v9=running-p2p"):
    @case(f"fake: events of devices that are none of ours: {what.split(',')[0]}", what)
    def fake_events(lab, what):
        says = [f"--say={when}:{what}" for when in ("stop", "stopped", "cont")]
        return fake_move(lab, says, says, ["done"], None, "")


@case("trap: vfio-user-pci is refused")
def trap_vfio_user(lab):
    return refused_migration(refused(lab, "device in QEMU", "nic0 (vfio-user-pci)", guest=FakeGuest(lab, ["--vfio-user"])))


def fake_move(lab, here, there, allowed, fault, text):
    move = moving(lab, guest=FakeGuest(lab, here, there))
    if fault:
        move.servers["b", "d0"].fault("d0", fault)
    move.migrate()
    result = move.judge(*allowed)
    assert text in move.job["error"]["text"], move.job["error"]
    # An answer that is lost must not cost a whole deadline, after which a person would be asked.
    blackout = move.a.jobs()[-1]["BlackoutUsec"]
    assert blackout < CONFIG["policy"]["deadline-ms"]["run"] * 900, f"blackout {blackout} us"
    return result


for name, here, there, allowed, fault, text in (
        ("finish-migrate after completed", ["--finish-ms=150"], [], ["done"], None, ""),
        ("finish-migrate after completed, rolled back", ["--finish-ms=150"], [], ["failed"],
         "resuming>stop:fail:EINVAL", "d0"),
        ("the answer to cont is lost", [], ["--close=cont"], ["done"], None, ""),
        ("no answer to cont", [], ["--mute=cont@1"], ["done"], None, ""),
        ("cont is refused once", [], ["--refuse=cont@1"], ["done"], None, ""),
        ("no answer to migrate-continue", ["--mute=migrate-continue"], [], ["done"], None, ""),
        ("migrate is refused", ["--refuse=migrate"], [], ["failed"], None, "migrate: the fake refuses"),
        ("no file is taken", ["--refuse=getfd"], [], ["failed"], None, "getfd: the fake refuses"),
        ("migrate-incoming is refused", [], ["--refuse=migrate-incoming"], ["failed"], None, "migrate-incoming"),
        ("no answer to check", ["--mute=query-block"], [], ["refused"], None, "query-block"),
        ("garbage at check", ["--garbage=query-block"], [], ["refused"], None, "no JSON"),
        ("an endless line at check", ["--endless=query-block"], [], ["refused"], None, "too much"),
        ("closed at check", ["--close=query-block"], [], ["refused"], None, "closed"),
        ("garbage at prepare", ["--garbage=migrate-set-capabilities@1"], [], ["failed"], None, "no JSON"),
        ("closed at the seal", ["--close=migrate-continue"], [], ["failed", "done"], None, ""),
        ("garbage from the destination", [], ["--garbage=migrate-set-capabilities"], ["failed"], None, "no JSON")):
    case(f"fake: {name}", here, there, allowed, fault, text)(fake_move)


@case("fake: the source's QEMU dies before the seal, the destination has everything")
def fake_unsealed(lab):
    """It may have gone on by itself in its last moment: a person decides, and finds the copy ready."""
    move = moving(lab, guest=FakeGuest(lab, ["--finish-ms=3000"]), relay=True)
    source = move.guest.qemus(move.a)
    move.on_message("D>S", "REACHED", lambda: move.kill(*source), phase="drain")
    move.migrate()
    result = move.judge("in-doubt")
    job = move.b.jobs()[-1]
    assert (job["State"], job["Phase"]) == ("running", "handover"), job
    assert len(move.guest.qemus(move.b)) == 1
    return result


@case("fake: the monitor closes while a restarted daemon looks at it")
def fake_look(lab):
    """It closes when it is asked for the second time: the check asked first. A daemon that waits for the answer for ever
    would not listen for its peers."""
    move = moving(lab, guest=FakeGuest(lab, ["--close=query-migrate@2"]))
    move.kill_at("source-connect", move.a.daemon.pid)
    move.migrate()
    return move.judge("failed")


@case("trap: the source's QEMU hangs while its daemon restarts")
def trap_hangs(lab):
    """Nothing can be said of it until it answers: in doubt, and then it goes on."""
    move = moving(lab, arc_ms=ARC_MS)
    qemu, daemon = move.guest.qemus(move.a)[0], move.a.daemon.pid

    def strike(job):
        os.kill(qemu, signal.SIGSTOP)
        move.kill(daemon)
    move.at("source-drain", strike)
    move.migrate()
    wait_for("a doubt", lambda: [j for j in move.a.jobs() if j["State"] == "in-doubt"], 15)
    assert "It last said" in move.a.jobs()[-1]["Error"][1], move.jobs_text()
    move.judge_doubt()
    os.kill(qemu, signal.SIGCONT)
    return move.judge("failed")


@case("trap: the destination's QEMU hangs while its daemon restarts")
def trap_destination_hangs(lab):
    """Its record was written before there was a process: it is known by its monitor, and ended though it says nothing."""
    move = moving(lab, arc_ms=ARC_MS)
    daemon = move.b.daemon.pid

    def strike(job):
        for pid in move.guest.qemus(move.b):
            os.kill(pid, signal.SIGSTOP)
        move.kill(daemon)
    move.at("source-drain", strike)
    move.migrate()
    return move.judge("failed")


@case("kill: source QEMU and its daemon in source-precopy")
def kill_both(lab):
    """Who restarts finds a record and no VM, and asks; the destination has nothing whole."""
    move = moving(lab, relay=True)
    move.relay.flow.clear()
    move.kill_at("source-precopy", move.a.daemon.pid, *move.guest.qemus(move.a))
    move.migrate()
    result = move.judge("lost", vmm_dies=move.a)
    assert "is lost" in move.a.jobs()[-1]["Error"][1], move.jobs_text()
    return result


def bad_monitor(lab, kind, text):
    """At registration: a clear answer, in time, whatever speaks there."""
    host = lab.host("a", config=CONFIG)
    guest = FakeGuest(lab, [f"--{kind}=greeting"])
    Process(lab, "fake", guest.argv_at(host) + ["-qmp", f"unix:{guest.monitor(host)},server=on,wait=off"])
    wait_for("the fake", lambda: os.path.exists(guest.monitor(host)))
    path = os.path.join(lab.dir, "vm.json")
    with open(path, "w") as f:
        json.dump({"name": "vm", "uuid": new_uuid(), "vmm": guest.vmm(host), "devices": []}, f)
    start = time.monotonic()
    status, _, err = host.migctl("register", path, timeout=15)
    took = time.monotonic() - start
    assert status == 1 and text in err and guest.monitor(host) in err, (status, err)
    assert took < 5, f"took {took:.1f} s"
    return "refused"


for kind, text in (("garbage", "no JSON"), ("mute", "does not greet"), ("endless", "too much"), ("close", "closed")):
    case(f"fake: at registration the monitor {kind}", kind, text)(bad_monitor)


# ---- all of ours ----------------------------------------------------------------------------------------------------

def kill_ours(move):
    """kill -9 of daemons, helpers, keepers and agents: everything but VMMs and device servers. Daemons first: it takes a
    moment to find the others."""
    hosts = (move.a, move.b)
    move.kill(*[h.daemon.pid for h in hosts])
    keepers = find_processes(lambda argv, pid: argv and argv[0] == program("migmgr-helper") and
                             any(move.lab.dir in arg for arg in argv))
    move.kill(*keepers, *[pid for h in hosts for pid in h.agents()])
    wait_for("their end", lambda: not any(is_alive(pid) for pid in move.killed))


@case("survive: all of ours die, before and after a move")
def survive(lab):
    move = moving(lab)
    for source, destination in ((move.a, move.b), (move.b, move.a)):
        kill_ours(move)
        move.guest.wait_counts(5)
        assert len(move.guest.qemus()) == 1
        move.revive()
        assert source.vm("vm")["presence"] == "here" and destination.vm("vm")["presence"] == "away"
        status, job = source.migrate("vm", destination)
        assert status == 0, job["error"]
        wait_for("the guest there", lambda: move.guest.qemus(destination) and not move.guest.qemus(source), 5)
    move.status, move.job, move.err = 8, {}, ""
    kill_ours(move)
    move.guest.wait_counts(5)
    move.revive()
    wait_for("devices", lambda: all(d["State"] == "running" for d in move.a.devices("vm").values()))
    move.judge_qemus(move.a)
    move.judge_devices(move.a, move.b, ())
    assert move.guest.verdict() == (0, 0, 0), move.guest.verdict()
    return "done"


for state, allowed in (("source-drain", ["failed"]), ("source-go", ["done", "failed"])):
    @case(f"survive: all of ours die in {state}", state, allowed)
    def survive_in(lab, state, allowed):
        move = moving(lab, arc_ms=ARC_MS)
        move.at(state, lambda job: kill_ours(move))
        move.migrate()
        return move.judge(*allowed)


# ---- device faults --------------------------------------------------------------------------------------------------

for side, device, fault, allowed in (
        ("source", "d0", "running>running-p2p:hang", ["failed"]),
        ("source", "d1", "running>stop:disconnect", ["failed"]),
        ("source", "d0", "stop>stop-copy:error:EIO", ["degraded"]),
        ("source", "d0", "read:corrupt", ["failed", "done"]),
        ("destination", "d0", "stop>resuming:hang", ["failed"]),
        ("destination", "d1", "write:fail:EIO", ["failed"]),
        ("destination", "d0", "resuming>stop:lie", ["failed"]),
        ("destination", "d0", "stop>running-p2p:hang", ["failed"]),
        ("destination", "d0", "running-p2p>running:fail:EIO@1", ["done", "failed"]),
        ("destination", "d1", "stop>running:exit", ["degraded"])):
    @case(f"fault: {side} {device} {fault}", side, device, fault, allowed)
    def device_fault(lab, side, device, fault, allowed):
        move = moving(lab)
        move.servers["a" if side == "source" else "b", device].fault(device, fault)
        move.migrate()
        result = move.judge(*allowed, lost=[device])
        text = move.a.jobs()[-1]["Error"][1]
        assert result == "done" or re.search(rf"\b{device}\b", text), text
        return result


# ---- all ------------------------------------------------------------------------------------------------------------

def run_one(function):
    """(outcome, verdict): the verdict is None when the rule was kept."""
    with Lab() as lab:
        lab.move = None
        try:
            return function(lab), None
        except Exception as e:
            if lab.move and os.environ.get("MIGMGR_LOGS"):
                for h in (lab.move.a, lab.move.b):
                    print(h.daemon.output()[-6000:], flush=True)
            return "-", f"{type(e).__name__}: {e}"
        finally:
            if lab.move:
                lab.move.close()


def run_all(pattern="", workers=4, out=sys.stdout, cases=CASES):
    selected = [c for c in cases if re.search(pattern, c[0])]
    bad, outcomes, lock, start = [], {}, threading.Lock(), time.monotonic()

    def one(selected_case):
        name, function = selected_case
        begin = time.monotonic()
        outcome, verdict = run_one(function)
        with lock:
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            print(f"{'BAD ' if verdict else 'ok  '} {name:62} {outcome:10} {time.monotonic() - begin:6.2f} s"
                  f"{'  ' + verdict if verdict else ''}", file=out, flush=True)
            if verdict:
                bad.append(name)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, selected))
    print(json.dumps({"cases": len(selected), "bad": len(bad), "outcomes": outcomes,
                      "seconds": round(time.monotonic() - start, 1), "holds": not bad}), file=out, flush=True)
    return not bad


if __name__ == "__main__":
    args = sys.argv[1:]
    jobs = 4
    if args[:1] == ["-j"]:
        jobs, args = int(args[1]), args[2:]
    sys.exit(0 if run_all(args[0] if args else "", jobs) else 1)
