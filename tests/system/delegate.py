# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM behind org.migmgr1.Delegate, moved with its devices: what succeeds, what a delegate may do wrong, and when it dies.

As in qemu.py, with tests/fake/delegate.py in the place of QEMU: it counts in a memory that it moves. The rule is that of
Move.judge(): the guest counts on at exactly one side with no count lost, repeated or wrong page, every device runs there
with the memory it had, one delegate has a VM; result, exit status and presence say the same.

  tests/bench/delegate [-j N] [PATTERN]      prints the table; PATTERN: a regular expression for the cases' names
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import qemu
from bus import Bus
from lab import TOP, Guest, Process, new_uuid, wait_for
from qemu import ARC_MS, CONFIG, Move, kill_ours
from system_host import SystemHost

NAME, PATH = "org.example.vmm1", "/org/example/vmm1"
NOBODY = 65534
INTAKE_FAILS = "resuming>stop:fail:EINVAL"  # of a destination's device: rolls back when everything is in

CASES = []


def case(name, *args):
    """Registers a function as a case: called with a Lab and `args`, returns the outcome for the table."""
    def add(function):
        CASES.append((name, lambda lab: function(lab, *args)))
        return function
    return add


# ---- a VM behind a delegate ------------------------------------------------------------------------------------------

class DelegateGuest(Guest):
    """A delegate on each host; `here`, `there`: their options. What Move calls a QEMU is one that has a VM."""

    def __init__(self, lab, here=(), there=(), late=False):
        super().__init__(lab, "vm")
        self.late, self.options, self.delegates = late,  {"a": list(here), "b": list(there)}, {}

    def start(self, host):
        """When its VM's UUID is known: start_at()."""

    def start_at(self, host, vm_uuid, *options):
        defaults = {"--bus": host.bus_address, "--name": NAME, "--path": PATH, "--uuid": vm_uuid, "--serial": self.serial,
                    "--state-file": self.state_file(host), "--state": "running" if host.name == "a" else "none"}
        given = [*self.options[host.name], *options]
        argv = [f"{k}={v}" for k, v in defaults.items() if not any(o.startswith(k + "=") for o in given)] + given
        p = Process(self.lab, host.name + "-delegate", ["/usr/bin/python3", os.path.join(TOP, "tests/fake/delegate.py"),
                                                        *argv])
        wait_for("the delegate of " + host.name, lambda: "ready\n" in p.output() or not p.alive())
        assert p.alive(), p.output()
        self.delegates[host.name] = p
        return p

    def state_file(self, host):
        return os.path.join(host.dir, "delegate.state")

    def state(self, host):
        p = self.delegates.get(host.name)
        if not p or not p.alive():
            return "gone"
        with open(self.state_file(host)) as f:
            return f.read()

    def vmm(self, host, argv=None):
        return {"type": "delegate", "bus-name": NAME, "object-path": PATH}

    def qemus(self, host=None):
        return [self.delegates[h.name].pid for h in ([host] if host else self.lab.hosts)
                if self.state(h) not in ("none", "gone")]

    def delegate(self, host):
        """For its signals: its pid, when it has no VM, too."""
        return self.delegates[host.name].pid


class PoliteHost(SystemHost):
    """On its bus a VMM that is not root may have its name."""

    policy = f'<policy context="default"><allow own="{NAME}"/></policy>'


class DelegateMove(Move):
    def definition(self, host, argv=None):
        if host.name not in self.guest.delegates and not self.guest.late:
            self.guest.start_at(host, self.uuid)
        return super().definition(host, argv)


def moving(lab, here=(), there=(), **kw):
    """The Lab closes what the Move has open."""
    lab.move = DelegateMove(lab, guest=DelegateGuest(lab, here, there), **kw)
    return lab.move


# ---- success --------------------------------------------------------------------------------------------------------

def go(move, source, destination):
    """One move that must be good."""
    start = time.monotonic()
    move.status, move.job = source.migrate("vm", destination)
    move.err, move.took = "", time.monotonic() - start
    assert move.status == 0 and move.job["result"] == "done", move.job["error"]
    wait_for("one presence", lambda: source.vm("vm")["presence"] == "away", 5)
    wait_for("one VM", lambda: move.guest.state(source) == "none" and move.guest.state(destination) == "running", 5)
    move.guest.wait_counts(3)
    assert move.guest.verdict() == (0, 0, 0), move.guest.verdict()
    move.judge_devices(destination, source, ())


@case("success: to and fro, twice")
def success(lab):
    move = moving(lab)
    for source, destination in ((move.a, move.b), (move.b, move.a)) * 2:
        go(move, source, destination)
        assert 0 < move.job["vmm_usec"] <= move.job["blackout_usec"], (move.job["vmm_usec"], move.job["blackout_usec"])
        spans = {(s["who"], s["what"]) for s in move.job["timeline"]}
        for what in ("migrate", "halt", "seal", "take-in", "verify", "run"):
            assert ("vmm", what) in spans, f"{what} is not in the timeline: {sorted(spans)}"
    return "done"


@case("success: registered before its delegate is there")
def registered_first(lab):
    """Its agents must listen before the VMM connects to its devices."""
    lab.move = move = DelegateMove(lab, guest=DelegateGuest(lab, late=True))
    assert move.a.vm("vm")["presence"] == "here" and not move.guest.delegates
    for host in (move.a, move.b):
        move.guest.start_at(host, move.uuid)
    go(move, move.a, move.b)
    return "done"


@case("success: under the rules of a system bus")
def system_bus(lab):
    """By the policy that we install migmgrd may call any delegate, and nobody else; whose name it is, the VMM's own says."""
    original = lab.host
    lab.host = lambda name, **kw: (lab.hosts.append(h := PoliteHost(lab, name, **kw)), h.start())[1]
    try:
        move = moving(lab)
    finally:
        lab.host = original
    for host in (move.a, move.b):
        stranger = subprocess.run(["busctl", "--address=" + host.bus_address, "call", NAME, PATH, "org.migmgr1.Delegate",
                                   "GetState"], user=NOBODY, capture_output=True, text=True)
        assert stranger.returncode != 0 and "denied" in stranger.stderr, stranger
    go(move, move.a, move.b)
    go(move, move.b, move.a)
    return "done"


@case("success: what whoever asks for it allows reaches both")
def limits(lab):
    move = moving(lab).migrate("--bandwidth=1G", "--max-blackout=2500")
    for host, side in ((move.a, "source"), (move.b, "destination")):
        told = re.findall(r"^Prepare (\w+) (.*)$", move.guest.delegates[host.name].output(), re.M)
        assert [t[0] for t in told] == [side], told
        options = json.loads(told[0][1])
        assert options["max-blackout-usec"] == 2500000 and 0 < options["bandwidth"] <= 1 << 30, options
    return move.judge("done")


@case("success: again after a failure")
def again(lab):
    move = moving(lab, there=["--fail=Load@1"]).migrate()
    assert move.judge("failed") == "failed"
    go(move, move.a, move.b)
    go(move, move.b, move.a)
    return "done"


# ---- what a delegate may do wrong -----------------------------------------------------------------------------------

def wrong(lab, side, fault, allowed, text, device_fault):
    move = moving(lab, **{"here" if side == "source" else "there": ["--" + fault]})
    if device_fault:
        move.servers["b", "d0"].fault("d0", device_fault)
    move.migrate()
    # While it does not run where it should, a person is told; it settles when it does.
    assert move.status != 9 or re.search("leave|Resume|Start", fault) or "in-doubt" in allowed, move.job["error"]
    result = move.judge(*allowed, vmm_dies=(move.a if side == "source" else move.b) if fault.startswith("die") else None)
    assert result == "done" or re.search(text, move.job["error"]["text"]), move.job["error"]
    if result == "failed":
        assert "\x1b" not in move.job["error"]["text"] and "\n" not in move.job["error"]["text"], move.job["error"]
    return result


FAILED, DONE, LOST = ["failed"], ["done"], ["lost"]
SAYS = "org.migmgr1.Delegate.Error.Failed: the fake refuses"
SILENT = "no answer in time; see whether the VM's delegate, process"
NO_ARGS = "the answer has not the arguments"
ENDED = "the VMM's process has ended"

for side, fault, allowed, text, device_fault in (
        # A method that fails once was refused, and nothing has happened.
        ("source", "fail=Prepare", FAILED, "Prepare: " + SAYS, None),
        ("source", "fail=Save", FAILED, "Save: " + SAYS, None),
        ("source", "fail=Pause", FAILED, "Pause: " + SAYS, None),
        ("source", "fail=Seal", FAILED, "Seal: " + SAYS, None),
        ("source", "fail=Resume@1", FAILED, "d0", INTAKE_FAILS),
        ("source", "fail=Discard@1", DONE, "", None),
        ("destination", "fail=Prepare", FAILED, "Prepare: " + SAYS, None),
        ("destination", "busy=Prepare", FAILED, "Error.Busy", None),
        ("destination", "fail=Load", FAILED, "Load: " + SAYS, None),
        ("destination", "fail=Start@1", DONE, "", None),
        ("destination", "fail=Discard@1", FAILED, "d0", INTAKE_FAILS),
        # One that hangs.
        ("source", "hang=Prepare", FAILED, "Prepare: " + SILENT, None),
        ("source", "hang=Save", FAILED, "Save: " + SILENT, None),
        ("source", "hang=Pause", FAILED, "Pause: " + SILENT, None),
        ("source", "hang=Seal", FAILED, "", None),
        ("source", "hang=Resume@1", FAILED, "d0", INTAKE_FAILS),
        ("source", "hang=Discard@1", DONE, "", None),
        ("destination", "hang=Prepare", FAILED, "Prepare: " + SILENT, None),
        ("destination", "hang=Load", FAILED, "", None),
        ("destination", "hang=Start@1", DONE, "", None),
        ("destination", "hang=Discard@1", FAILED, "d0", INTAKE_FAILS),
        # The answer is lost: what decides is read from its state, or the deadline ends it.
        ("source", "mute=Prepare", FAILED, "Prepare: " + SILENT, None),
        ("source", "mute=Pause", FAILED, "Pause: " + SILENT, None),
        ("source", "mute=Seal", FAILED, "Seal: " + SILENT, None),
        ("source", "mute=Resume", FAILED, "d0", INTAKE_FAILS),
        ("source", "mute=Discard", DONE, "", None),
        ("destination", "mute=Load", FAILED, "", None),
        ("destination", "mute=Start", DONE, "", None),
        ("destination", "mute=Discard", FAILED, "d0", INTAKE_FAILS),
        # It says yes and does nothing.
        ("source", "lie=Prepare", FAILED, "for another job", None),
        ("source", "lie=Save", FAILED, "Seal: ", None),
        ("source", "lie=Pause", FAILED, "it should be paused but is running", None),
        ("source", "lie=Seal", FAILED, "it should be sealed but is paused", None),
        ("source", "lie=Resume@1", FAILED, "d0", INTAKE_FAILS),
        ("source", "lie=Discard@1", DONE, "", None),
        ("destination", "lie=Prepare", FAILED, "it should be incoming but is none", None),
        ("destination", "lie=Load", FAILED, "it should be complete but is incoming", None),
        ("destination", "lie=Start@1", DONE, "", None),
        ("destination", "lie=Discard@1", FAILED, "d0", INTAKE_FAILS),
        # It is late, within what it is given.
        *(("source", f"late={m}", DONE, "", None) for m in ("Prepare", "Save", "Pause", "Seal", "Discard", "GetState")),
        ("source", "late=Resume", FAILED, "d0", INTAKE_FAILS),
        *(("destination", f"late={m}", DONE, "", None) for m in ("Prepare", "Load", "Start")),
        ("destination", "late=Discard", FAILED, "d0", INTAKE_FAILS),
        # What it answers has other types.
        ("source", "nonsense=Prepare", FAILED, "Prepare: " + NO_ARGS, None),
        ("source", "nonsense=Save", FAILED, "Save: " + NO_ARGS, None),
        ("source", "nonsense=Pause", FAILED, "Pause: " + NO_ARGS, None),
        ("source", "nonsense=Seal", FAILED, "Seal: " + NO_ARGS, None),
        ("source", "nonsense=Resume", FAILED, "d0", INTAKE_FAILS),
        ("source", "nonsense=Discard", DONE, "", None),
        ("source", "nonsense=GetState@3", FAILED, "GetState: the answer is no", None),
        ("source", "lie=GetState@3", FAILED, 'there is no state "flying"', None),
        ("destination", "nonsense=Prepare", FAILED, "Prepare: " + NO_ARGS, None),
        ("destination", "nonsense=Load", FAILED, "Load: " + NO_ARGS, None),
        ("destination", "nonsense=Start", DONE, "", None),
        ("destination", "nonsense=Discard", FAILED, "d0", INTAKE_FAILS),
        ("destination", "nonsense=GetState@2", FAILED, "GetState: the answer is no", None),
        # It leaves the bus and comes back; its process lives.
        *(("source", f"leave={m}@1", FAILED, "has left the bus", None) for m in ("Prepare", "Save", "Pause", "Seal")),
        ("source", "leave=Resume@1", FAILED, "d0", INTAKE_FAILS),
        ("source", "leave=Discard@1", DONE, "", None),
        *(("destination", f"leave={m}@1", FAILED, "it has left the bus", None) for m in ("Prepare", "Load")),
        ("destination", "leave=Start@1", DONE, "", None),
        ("destination", "leave=Discard@1", FAILED, "d0", INTAKE_FAILS),
        # It dies in it.
        *(("source", f"die={m}", LOST, ENDED, None) for m in ("Prepare", "Save", "Pause")),
        ("source", "die=Seal", ["lost", "in-doubt"], ENDED, None),
        ("source", "die=Resume", LOST, "d0", INTAKE_FAILS),
        ("source", "die=Discard", DONE, "", None),
        ("destination", "die=Prepare", FAILED, ENDED, None),
        ("destination", "die=Load", FAILED, ENDED + "|connection is cut", None),
        ("destination", "die=Start", ["in-doubt"], ENDED, None),
        ("destination", "die=Discard", FAILED, "d0", INTAKE_FAILS)):
    case(f"wrong: {side} {fault}", side, fault, allowed, text, device_fault)(wrong)


@case("wrong: source fails Resume again and again")
def stuck(lab):
    """In doubt, with what it says; and when it can, it goes on."""
    move = moving(lab, here=[f"--fail=Resume@{n}" for n in range(1, 8)])
    move.servers["b", "d0"].fault("d0", INTAKE_FAILS)
    move.migrate()
    assert move.status == 9, move.status
    texts = [j["Error"][1] for j in move.a.jobs() if j["State"] == "in-doubt"]
    assert texts and "It last said: Resume: " + SAYS in texts[0], texts
    move.judge_doubt()
    return move.judge("failed")


@case("wrong: destination fails Start again and again")
def stalled(lab):
    move = moving(lab, there=[f"--fail=Start@{n}" for n in range(1, 8)]).migrate()
    assert move.status == 9, move.status
    move.judge_doubt()
    return move.judge("done")


@case("wrong: its vCPUs go on by themselves")
def resumed(lab):
    """The source's delegate says so, and the devices follow."""
    move = moving(lab, arc_ms=ARC_MS)
    move.at("source-p2p-grace", lambda job: os.kill(move.guest.delegate(move.a), signal.SIGUSR1))
    move.migrate()
    assert "resumed the VM by itself" in move.job["error"]["text"], move.job["error"]
    return move.judge("failed")


@case("wrong: somebody else says that they go on")
def resumed_lie(lab):
    """Only the delegate's own connection is believed."""
    move = moving(lab, arc_ms=ARC_MS)

    def lie(job):
        with Bus(move.a.bus_address) as stranger:
            for destination in ("", "org.migmgr1"):
                stranger.signal(PATH, "org.migmgr1.Delegate", "Resumed", "s", job, destination=destination)
    move.at("source-p2p-grace", lie)
    move.migrate()
    return move.judge("done")


def has_name(host):
    with Bus(host.bus_address) as bus:
        return bus.bus("NameHasOwner", "s", NAME)[0]


# ---- refused --------------------------------------------------------------------------------------------------------

def refused(lab, side, options, property, value):
    move = moving(lab, **{"here" if side == "source" else "there": options})
    status, report = move.a.json("check", "vm", move.dest)
    assert status == 6 and [f for f in report["findings"] if f["property"] == property and value in f[side]], report
    assert all(f["remedy"] for f in report["findings"])
    if options[0].endswith("@2"):
        wait_for("the delegate on the bus", lambda: has_name(move.a))
        go(move, move.a, move.b)
        return "refused"
    before = move.guest.state(move.a), move.guest.state(move.b)
    move.migrate()
    assert move.status == 6, move.status
    assert (move.guest.state(move.a), move.guest.state(move.b)) == before, "a refused job has touched a VM"
    return "refused"


OTHER_UUID = "00000000-0000-4000-8000-000000000001"

for side, options, property, value in (
        ("source", ["--state=paused"], "run state", "paused"),
        ("destination", ["--state=running"], "run state", "running"),
        ("destination", ["--vmm-uuid=" + OTHER_UUID], "delegate", "its Uuid is " + OTHER_UUID),
        # The first that is asked at the source is asked by the registration.
        *((side, [f"--{fault}@2"] if side == "source" else ["--" + fault], "delegate", value)
          for side in ("source", "destination") for fault, value in (
            ("hang=GetAll", "GetAll: no answer in time"), ("nonsense=GetAll", "not every property"),
            ("lie=GetAll", "it speaks version 2"), ("fail=GetAll", "Error.Failed"), ("leave=GetAll", "left the bus"),
            ("hang=GetState", "GetState: no answer in time"), ("nonsense=GetState", "the answer is no (ss)"),
            ("lie=GetState", 'no state "flying"')))):
    case(f"refused: {side} {' '.join(options).replace('--', '')}", side, options, property, value)(refused)


@case("refused: nobody has the source's name")
def refused_absent(lab):
    move = moving(lab)
    move.kill(move.guest.delegate(move.a))
    move.revive()
    status, report = move.a.json("check", "vm", move.dest)
    assert status == 6 and "nobody has the bus name " + NAME in report["findings"][0]["source"], report
    return "refused"


@case("refused: another process has taken the name")
def refused_impostor(lab):
    """Calls go to the VM's own process. When the name is its own again, it can be moved."""
    move = moving(lab)
    os.kill(move.guest.delegate(move.a), signal.SIGUSR2)
    wait_for("it to leave the bus", lambda: not has_name(move.a))
    path = os.path.join(lab.dir, "impostor")
    impostor = Process(lab, "impostor", [sys.executable, os.path.join(TOP, "tests/fake/delegate.py"),
                                         "--bus=" + move.a.bus_address, "--name=" + NAME, "--path=" + PATH,
                                         "--uuid=" + move.uuid, "--state=running", "--serial=" + path,
                                         "--state-file=" + path + ".state"])
    wait_for("the impostor", lambda: "ready" in impostor.output())
    status, report = move.a.json("check", "vm", move.dest)
    assert status == 6 and f"belongs to process {impostor.pid}" in report["findings"][0]["source"], report
    impostor.kill()
    wait_for("it to come back", lambda: has_name(move.a))
    go(move, move.a, move.b)
    return "refused"


def registration(lab, options, text):
    """A clear answer, in time, whatever speaks there."""
    host = lab.host("a", config=CONFIG)
    guest, vm_uuid = DelegateGuest(lab, options), new_uuid()
    guest.start_at(host, vm_uuid)
    path = os.path.join(lab.dir, "vm.json")
    with open(path, "w") as f:
        json.dump({"name": "vm", "uuid": vm_uuid, "vmm": guest.vmm(host), "devices": []}, f)
    start = time.monotonic()
    status, _, err = host.migctl("register", path, timeout=15)
    took = time.monotonic() - start
    assert status == 1 and text in err and NAME in err, (status, err)
    assert took < 5, f"took {took:.1f} s"
    return "refused"


for options, text in ((["--hang=GetState"], "no answer in time"), (["--nonsense=GetAll"], "not every property"),
                      (["--path=/elsewhere"], "Unknown"), (["--vmm-uuid=" + OTHER_UUID], OTHER_UUID)):
    case(f"refused: at registration {options[0][2:]}", options, text)(registration)


@case("refused: a second job while one is under way")
def second(lab):
    move = moving(lab, arc_ms=ARC_MS)
    answers = []
    move.at("source-p2p-grace", lambda job: answers.append(move.a.migctl("migrate", "vm", move.dest)))
    move.migrate()
    assert answers[0][0] == 12 and "has a job already" in answers[0][2], answers
    return move.judge("done")


# ---- cancelled, killed ----------------------------------------------------------------------------------------------

def cancel_at(lab, state):
    """Where the source still owns the VM a cancel turns it back; later it is refused as too late, and the VM moves."""
    move = moving(lab, arc_ms=qemu.CANCEL_ARC_MS, here=["--late=Prepare", "--late=Save", "--late=Seal"])
    answers = []
    move.at(state, lambda job: answers.append(move.a.migctl("cancel", job)))
    move.migrate()
    status, _, text = answers[0]
    assert status in (0, 1) and (status == 0 or "too late" in text or "ended already" in text), (status, text)
    result = move.judge("cancelled" if status == 0 else "done")
    if state in qemu.CANCEL_HOLDS:
        assert status == 0, text
    if state in qemu.CANCEL_LATE:
        assert status == 1, "a cancel was accepted after GO"
    return result


for state in ("source-record", "source-prepare", "source-connect", "source-precopy", "source-halt", "source-p2p-grace",
              "source-stop-rest", "source-drain", "source-intake", "source-nobody", "source-go", "source-done",
              "source-release"):
    case(f"cancel: in {state}", state)(cancel_at)


def kill_delegate(lab, side, state, allowed):
    move = moving(lab, arc_ms=ARC_MS)
    host = move.a if side == "source" else move.b
    pid = []

    def strike(job):
        pid.append(move.guest.delegate(host))
        move.kill(*pid)
    move.at(state, strike)
    move.migrate()
    result = move.judge(*allowed, vmm_dies=host)
    if result != "done" and side == "source":
        assert ENDED in move.job["error"]["text"], move.job["error"]
    return result


for side, state, allowed in (
        *(("source", s, LOST) for s in ("source-prepare", "source-precopy", "source-halt", "source-p2p-grace")),
        ("source", "source-drain", ["lost", "in-doubt", "done"]),
        ("source", "source-intake", DONE), ("source", "source-go", DONE), ("source", "source-release", DONE),
        *(("destination", s, FAILED) for s in ("destination-prepare", "destination-take-in", "source-drain",
                                               "destination-intake", "destination-arrive")),
        ("destination", "destination-run-devices", ["in-doubt"])):
    case(f"kill: {side} delegate in {state}", side, state, allowed)(kill_delegate)


def restart(lab, side, state, allowed):
    """kill -9 of a daemon. What it was doing at its delegate goes on there, and is turned back or forward from its state."""
    move = moving(lab, arc_ms=ARC_MS, here=["--late=Save", "--late=Seal"])
    move.kill_at(state, (move.a if side == "source" else move.b).daemon.pid)
    move.migrate()
    return move.judge(*allowed)


for side, state, allowed in (
        *(("source", s, FAILED) for s in ("source-prepare", "source-precopy", "source-halt", "source-p2p-grace",
                                          "source-drain", "source-intake", "source-resume")),
        ("source", "source-go", DONE), ("source", "source-done", DONE), ("source", "source-release", DONE),
        *(("destination", s, FAILED) for s in ("destination-prepare", "destination-take-in", "source-drain",
                                               "destination-intake", "destination-discard")),
        *(("destination", s, DONE) for s in ("destination-arrive", "destination-run-devices", "destination-run"))):
    case(f"restart: {side} daemon in {state}", side, state, allowed)(
        restart if not state.endswith(("resume", "discard")) else
        lambda lab, side, state, allowed: restart_back(lab, side, state, allowed))


def restart_back(lab, side, state, allowed):
    move = moving(lab)
    move.servers["b", "d0"].fault("d0", INTAKE_FAILS)
    move.kill_at(state, (move.a if side == "source" else move.b).daemon.pid)
    move.migrate()
    return move.judge(*allowed)


@case("restart: both daemons while the source's delegate is off the bus")
def restart_away(lab):
    """Its process lives, so it is not given up: in doubt until it is back, and then it goes on."""
    move = moving(lab, arc_ms=ARC_MS)

    def strike(job):
        os.kill(move.guest.delegate(move.a), signal.SIGUSR2)
        move.kill(move.a.daemon.pid)
    move.at("source-drain", strike)
    move.migrate()
    return move.judge("failed")


@case("restart: a move while the delegate and the agents are slow")
def restart_slow(lab):
    """They answer, only not at once: that is an answer to whoever has asked meanwhile, too."""
    move = moving(lab)
    agents, delegate = move.a.agents(), move.guest.delegate(move.a)
    move.kill(move.a.daemon.pid)
    for pid in (*agents, delegate):
        os.kill(pid, signal.SIGSTOP)
    move.revive()
    move.start()
    wait_for("the job", move.a.jobs)
    os.kill(delegate, signal.SIGCONT)
    time.sleep(0.3)
    for pid in agents:
        os.kill(pid, signal.SIGCONT)
    move.finish()
    return move.judge("done")


@case("restart: all of ours die, before and after a move")
def survive(lab):
    move = moving(lab)
    for source, destination in ((move.a, move.b), (move.b, move.a)):
        kill_ours(move)
        move.guest.wait_counts(5)
        move.revive()
        wait_for("devices", lambda: all(d["State"] == "running" for d in source.devices("vm").values()))
        assert source.vm("vm")["presence"] == "here" and destination.vm("vm")["presence"] == "away"
        go(move, source, destination)
    return "done"


# ---- all ------------------------------------------------------------------------------------------------------------

if __name__ == "__main__":
    args = sys.argv[1:]
    jobs = 4
    if args[:1] == ["-j"]:
        jobs, args = int(args[1]), args[2:]
    sys.exit(0 if qemu.run_all(args[0] if args else "", jobs, cases=CASES) else 1)
