# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM under full load, moved while one thing goes wrong, in each phase and on either side: a device, the VMM, migmgrd, or
somebody who changes their mind.

  tests/bench/load [PATTERN]               prints the table; PATTERN: a part of a row's name

The guest of migmgr-test-vmm finds at the very step whatever is lost, doubled, stale or torn. The rule: the VM runs on one
side, where the job says, its chain unbroken, and the other end has nothing left of it; what was to turn back has turned
back. The table is gone through twice, with a VMM that takes the pages that devices write and with one that does not, whose
pages the agents copy. With these pages left out on purpose the chain must break: the last row, without which all the others
would prove little."""

import json
import os
import signal
import sys
import time

from kills import EXIT, Watcher, named_agents
from lab import PACE, Lab, wait_for
from moves import SPEC, make_world

DEADLINE_MS = round(1000 * PACE)
CONFIG = {"policy": {"deadline-ms": {p: DEADLINE_MS for p in (
    "halt", "p2p-grace", "intake", "handover", "arrival-grace", "run-devices", "run", "release")}}, "doubt-msec": 3000}
ARC_MS = round(15 * PACE)  # what keeps a state open long enough for somebody to come in between
WITHOUT = "without the pages that devices wrote the chain breaks"  # the last row's name
DONE, BACK, CANCELLED, DEGRADED = {"done"}, {"failed"}, {"cancelled"}, {"degraded"}

SOURCE_ARCS = ["running>pre-copy", "pre-copy>pre-copy-p2p", "pre-copy-p2p>stop-copy", "stop-copy>stop", "read"]
DESTINATION_ARCS = ["reset", "running-p2p>stop", "stop>resuming", "write", "resuming>stop", "stop>running-p2p"]
SOURCE_METHODS = ["Prepare", "Save", "Pause", "Seal"]
DESTINATION_METHODS = ["Prepare", "Load"]
SOURCE_STATES = ["source-prepare", "source-connect", "source-log", "source-precopy", "source-halt", "source-p2p-grace",
                 "source-stop", "source-dirty", "source-drain", "source-intake"]
DESTINATION_STATES = ["destination-prepare", "destination-take-in", "destination-loaded", "destination-intake",
                      "destination-ready", "destination-arrive", "destination-run-devices", "destination-run"]
# Where it is sure that the job is not over before that is seen.
AGENT_STATES = ["source-log", "source-precopy", "source-p2p-grace", "source-stop", "source-dirty", "source-drain"]


class Row:
    """`before` is done before the move; `act` when `state` is entered. `expect`: the results that are right."""

    def __init__(self, name, expect, before=None, state=None, act=None, args=()):
        self.name, self.expect, self.before, self.state, self.act, self.args = name, expect, before, state, act, args


def device_fault(side, arc, kind, device="d1"):
    return lambda w: getattr(w, side).server.fault(device, f"{arc}:{kind}@1")


def vmm_fault(side, **fault):
    return lambda w: getattr(w, side).vmm.command("faults", **fault)


def kill_agent(world):
    """Who it is, known before the moment comes: looking through /proc takes too long then."""
    world.victim = named_agents(world.source.host, "d1")[0]


def cancel(world):
    host = world.source.host
    job = next(j["job"] for j in host.json("jobs")[1] if j["state"] != "finished")
    status, _, text = host.migctl("cancel", job)
    assert status == 0 or "too late" in text or "ended already" in text, text
    world.cancelled = status == 0


def restart(host):
    host.daemon.kill()
    host.start_daemon()


def rows(takes_pages):
    yield Row("nothing goes wrong", DONE)
    for arc in SOURCE_ARCS:
        # a device that can't pre-copy does without
        yield Row(f"source device fails {arc}", DONE if arc == "running>pre-copy" else BACK,
                  device_fault("source", arc, "fail:EIO"))
        # Its server keeps what it had; memory and interrupts are set up anew, and the VMM does not notice: it stands.
        # While it runs, nobody knows what became of an access that was under way.
        if arc not in ("running>pre-copy", "read"):
            yield Row(f"source device disconnects in {arc}", BACK, device_fault("source", arc, "disconnect"))
    for arc in DESTINATION_ARCS:
        yield Row(f"destination device fails {arc}", BACK, device_fault("destination", arc, "fail:EIO"))
    yield Row("two devices fail", BACK, lambda w: [device_fault("source", "stop-copy>stop", "fail:EIO", d)(w)
                                                   for d in ("d0", "d2")])
    for method in SOURCE_METHODS + (["TakeDirtyPages"] if takes_pages else []):
        yield Row(f"source VMM fails {method}", BACK, vmm_fault("source", fail=method))
    for method in DESTINATION_METHODS:
        yield Row(f"destination VMM fails {method}", BACK, vmm_fault("destination", fail=method))
    yield Row("source VMM does not answer Pause", BACK, vmm_fault("source", hang="Pause"))
    for state in SOURCE_STATES + ([] if takes_pages else ["source-pages"]):
        # later it may come too late, and says so
        late = state not in SOURCE_STATES[:SOURCE_STATES.index("source-halt")]
        yield Row(f"cancelled in {state}", CANCELLED | (DONE if late else set()), state=state, act=cancel)
        yield Row(f"source migmgrd restarted in {state}", BACK, state=state, act=lambda w: restart(w.source.host))
    for state in AGENT_STATES:
        yield Row(f"source agent dies in {state}", DEGRADED, kill_agent, state, lambda w: os.kill(w.victim, signal.SIGKILL))
    for state in DESTINATION_STATES + ([] if takes_pages else ["destination-pages"]):
        yield Row(f"destination migmgrd restarted in {state}", BACK | DONE, state=state,
                  act=lambda w: restart(w.destination.host))
    yield Row("a blackout that is too long", BACK, args=("--max-blackout", "1"))
    yield Row("little bandwidth", DONE, args=("--bandwidth", "100M"))


def settled(host):
    return not host.is_restoring() and all(job["State"] == "finished" for job in host.jobs())


def move_watched(world, row):
    """The move, with something done when a state is entered. migmgrd may be gone for a while: what came of the job is
    then asked of the VM."""
    side = world.source if row.state.startswith("source") else world.destination
    done = []
    watcher = Watcher(side.host, row.state, lambda: (done.append(row.act(world))))
    p = world.source.host.migctl_start("--json=short", "migrate", world.name, world.destination.host.dest, *row.args)
    try:
        p.communicate(timeout=60)
    finally:
        watcher.thread.join(20)
        watcher.stop()
    for host in world.lab.hosts:
        wait_for("an end at " + host.name, lambda h=host: settled(h), 30)
    # of these the destination knows nothing
    ends = [world.source] if row.expect & (DEGRADED | CANCELLED) else world.ends
    jobs = [job for end in ends for job in end.host.jobs()]
    newest = max(jobs, key=lambda job: job["CreatedUsec"], default=None)
    return "not reached" if not done else newest and newest["Result"]


def where(world):
    """At which end the VM runs; it must be one."""
    states = [end.vmm.status()["state"] for end in world.ends]
    return states.index("running") if sorted(states) == ["none", "running"] else None


def degraded(world):
    """The VMM has lost its connection to d1, which the job names. The guest may not have noticed, and is whole again where
    it is moved to."""
    text = world.source.host.jobs()[-1]["Error"][1]
    if "d1 (the VMM's connection broke)" not in text:
        return text
    if world.broken():
        return "" if "device d1:" in world.broken() else world.broken()
    status, job = world.move()
    return "" if job.get("result") == "done" else f"and then {job.get('result')}: {job.get('error')}"


def one(world, row):
    """What is wrong, or ""."""
    before = world.here
    for host in world.lab.hosts:
        wait_for("the last job's end at " + host.name, lambda h=host: settled(h), 20)
    if row.before:
        row.before(world)
    if row.state:
        result = move_watched(world, row)
    else:
        result = world.move(*row.args)[1].get("result")
    for end in world.ends:
        end.server.clear()
        end.vmm.command("faults")
    try:
        wait_for("one end to run the VM", lambda: where(world) is not None, 20)
    except AssertionError:
        return f"{result}: {[end.vmm.status()['state'] for end in world.ends]}"
    world.here = where(world)
    if result == "not reached":
        return result
    # after a restart a job is settled from its record: it says how it ended, and the VM says where it is
    if row.act is cancel and world.cancelled != (result == "cancelled"):
        return f"{result}, but cancel was {'' if world.cancelled else 'not '}accepted"
    if result not in row.expect:
        return f"{result} is not {' or '.join(sorted(row.expect))}"
    if (world.here != before) != (result == "done"):
        return f"{result}, and the VM runs at {'ab'[world.here]}"
    if result == "degraded":
        return degraded(world)
    world.wait_steps(40)
    return ""


def run_table(pattern, takes_pages, out):
    options = () if takes_pages else ("--no-dirty-pages",)
    mode = "VMM" if takes_pages else "agents"
    bad = n = 0
    world = lab = None
    for row in rows(takes_pages):
        name = f"pages by {mode}: {row.name}"
        if pattern not in name:
            continue
        if not world:
            lab = Lab().__enter__()
            world = make_world(lab, 3, SPEC + f",delay=*>*:{ARC_MS}", CONFIG, options)
            world.wait_steps(50)
        begun = time.monotonic()
        try:
            text = one(world, row)
        except AssertionError as e:
            text = str(e)[:300]
        n += 1
        bad += bool(text)
        print(f"{'bad' if text else 'ok ':4} {name:62} {time.monotonic() - begun:5.2f} s  {text}", file=out, flush=True)
        if text or world.broken():  # the guest of a VM that is degraded
            lab.failed |= bool(text)
            lab.close()
            world = None
    if world:
        lab.close()
    return n, bad


def chain_breaks_without_pages(out):
    """The test can fail: with the pages that devices wrote left out, a few moves break the chain."""
    with Lab() as lab:
        world = make_world(lab, 4)
        world.wait_steps(50)
        for _ in range(20):
            world.source.vmm.command("faults", **{"ignore-dirty-pages": True})
            world.move()
            if world.broken():
                print(f"ok   {WITHOUT}: {world.broken()}", file=out)
                return True
    print(f"bad  {WITHOUT}: nothing breaks", file=out)
    return False


def run_all(pattern="", out=sys.stdout):
    begun = time.monotonic()
    counts = [run_table(pattern, takes_pages, out) for takes_pages in (True, False)]
    last = pattern in WITHOUT
    breaks = not last or chain_breaks_without_pages(out)
    n, bad = sum(c[0] for c in counts) + last, sum(c[1] for c in counts) + (not breaks)
    return {"cases": n, "bad": bad, "seconds": round(time.monotonic() - begun, 1), "holds": n > 0 and bad == 0}


if __name__ == "__main__":
    summary = run_all(*sys.argv[1:2])
    print(json.dumps(summary))
    sys.exit(0 if summary["holds"] else 1)
