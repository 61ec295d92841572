# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 at the calls themselves: at the N-th fsync, write to the database, send, receive, connection of a migration, before
it or after it, of migmgrd, an agent, the helper or the VMM on either side, or of all of a host at once.

  tests/bench/crashes [-j N] [-s SEED] [-t SECONDS] [-n CALL] [PATTERN]

The VM is that of moves.py, whose guest finds whatever is lost, doubled, stale or torn, and it goes to and fro for as long as
it is whole. Who was killed is started again, as an init system does, but not a VMM. A host that dies loses what was not
synced of its database, of one file or of both, its runtime directory, devices and VMM, and comes back with another boot
id. Then both sides must come to an end (docs/ownership.md): the VM runs on one side, where the job and both records say, its
guest unbroken and each device running; or it is in doubt, nothing runs, and the reason is there; it may be lost only with
its own VMM. How many calls there are is counted in a migration before; each point takes its turn, at calls in an order that
the seed makes, until the time is over or all were killed. Prints a table by kill point; the last line is one JSON object."""

import argparse
import json
import os
import queue
import random
import shutil
import sys
import threading
import time

from inject import DATABASE, Injection
from kills import EXIT
from lab import PACE, Lab, is_alive, wait_for
from moves import SPEC, World

CONFIG = {"policy": {"deadline-ms": {p: round(1500 * PACE) for p in (
    "check", "prepare", "halt", "p2p-grace", "intake", "handover", "arrival-grace", "run-devices", "run", "release")}},
    "connect-msec": round(500 * PACE), "doubt-msec": 1000}
CONFIG["policy"]["deadline-ms"].update({p: round(3000 * PACE) for p in ("drain", "precopy")})

PROGRAMS = {"daemon": "migmgrd", "agent": "migmgr-agent", "helper": "migmgr-helper", "VMM": "migmgr-test-vmm",
            "host": "migmgrd"}
KINDS = {"daemon": ["sync", "store", "send", "receive", "connect", "open"], "agent": ["send", "receive", "connect"],
         "helper": ["send", "receive", "connect", "fork"], "VMM": ["send", "receive"],
         "host": ["sync", "store", "send", "receive"]}
# An agent and a VMM work for the guest, too: which of their thousands of calls is hit is left to the seed.
MOST = {"agent": 150, "VMM": 50}
UNREACHABLE = 8


class Point:
    """Of `side` and `victim`: what happens at its calls of a kind."""

    def __init__(self, side, victim, kind, when):
        self.side, self.victim, self.kind, self.when = side, victim, kind, when
        self.name = f"{side} {victim}, {when} {kind}"
        self.action = f"{'host' if victim == 'host' else 'kill'} {when}"
        self.outcomes, self.bad, self.calls = {}, 0, 0

    @property
    def hits(self):
        return sum(n for outcome, n in self.outcomes.items() if outcome != "not reached")

    def choose(self, rng):
        """At which calls, in which order."""
        calls = range(1, self.calls + 1)
        return rng.sample(calls, min(len(calls), MOST.get(self.victim, len(calls))))

    def has(self, at):
        return at <= self.calls

    def shown(self, at):
        return f"{at} of {self.calls}"

    def row(self):
        return f"{self.name:40} {self.hits:5} hit of {self.calls:5} calls  {self.bad:3} bad"


def all_points():
    return [Point(side, victim, kind, when) for victim, kinds in KINDS.items() for kind in kinds
            for side in ("source", "destination") for when in ("before", "after")]


class Moving:
    """A VM and its two hosts, until something of it is gone for good."""

    def __init__(self, devices=2, options=()):
        self.lab = Lab()
        self.injections = {name: Injection(os.path.join(self.lab.dir, name + ".inject")) for name in "ab"}
        hosts = [self.lab.host(name, config=CONFIG, env=i.env) for name, i in self.injections.items()]
        self.world = World(self.lab, hosts, {f"d{i}": SPEC for i in range(devices)}, options=options)
        self.world.wait_steps(20)

    def close(self):
        self.lab.close()

    def end(self, side):
        return getattr(self.world, side)

    def injection(self, side):
        return self.injections[self.end(side).host.name]

    def dies(self, end):
        """Everything of that host that the library does not know."""
        injection = self.injections[end.host.name]
        for p in (end.host.bus, end.server.process):
            p.kill()
        wait_for("the death of a host", lambda: not (injection.kill_all() or injection.processes()))

    def boots(self, end, lost):
        self.injections[end.host.name].power_cut(end.host.state, lost)
        shutil.rmtree(end.host.runtime)
        os.mkdir(end.host.runtime)
        end.host.start_bus()
        end.server.start()
        end.host.start_helper()
        end.host.start_daemon()


def restart(host):
    """As an init system does."""
    if not host.helper.alive():
        host.start_helper()
    if not host.daemon.alive():
        host.start_daemon()


def settled(world):
    """(all jobs,) when none moves any more. A destination that has everything waits for the source's word,
    however long the source is in doubt."""
    if any(end.host.is_restoring() for end in world.ends):
        return None
    jobs = [job for end in world.ends for job in end.host.jobs()]
    doubt = any(job["State"] == "in-doubt" for job in jobs)
    if any(job["State"] not in ("finished", "in-doubt") and not (doubt and job["Phase"] == "handover") for job in jobs):
        return None
    return (jobs,)


def vmm_state(end):
    if not end.vmm.process.alive():
        return "gone"
    return end.vmm.status()["state"]


def presence(world, end):
    """What that host says of the VM, None when it has forgotten it."""
    return (end.host.vm(world.name) or {}).get("presence")


class Crash:
    """One kill. After run(): `outcome`, and whether the world is `whole`."""

    def __init__(self, moving, point, at, rng):
        self.m, self.w, self.point, self.at = moving, moving.world, point, at
        self.lost = rng.choice([DATABASE, DATABASE[:1], DATABASE[1:]])
        self.source, self.destination = self.w.source, self.w.destination
        self.victim = moving.end(point.side)
        self.injection = moving.injection(point.side)
        self.outcome, self.whole, self.answer = "-", False, None

    def run(self):
        """Returns what is wrong, or ""."""
        self.injection.arm(PROGRAMS[self.point.victim], self.point.kind, self.at, self.point.action)
        client = self.source.host.migctl_start("--json=short", "migrate", self.w.name, self.destination.host.dest)
        out, _ = client.communicate(timeout=60 * PACE)
        self.answer, self.told = client.returncode, json.loads(out) if out.strip() else {}
        if not self.injection.hit():
            wait_for("the rest of the job", lambda: self.injection.hit() or settled(self.w), 30)
        hit = self.injection.hit()
        self.injection.disarm()
        if not hit:
            self.outcome = "not reached"
        else:
            wait_for("the death", lambda: self.injection.victim() and not is_alive(self.injection.victim()))
        if hit and self.point.victim == "host":
            self.m.dies(self.victim)
            self.m.boots(self.victim, self.lost)
        for end in self.w.ends:
            restart(end.host)
        return self.judge()

    def judge(self):
        try:
            jobs, = wait_for("an end", lambda: settled(self.w), 25)
            if any(job["State"] == "in-doubt" for job in jobs):
                # It may settle by itself when everybody is back.
                time.sleep(2.5)
                jobs, = wait_for("an end", lambda: settled(self.w), 25)
        except AssertionError as e:
            return f"{e}: " + json.dumps([[j["State"], j["Phase"], j["Error"]] for end in self.w.ends
                                          for j in end.host.jobs() if j["State"] != "finished"])
        states = {end: vmm_state(end) for end in self.w.ends}
        running = [end for end in self.w.ends if states[end] == "running"]
        if len(running) == 2:
            return "the VM runs on both sides"
        doubts = [job for job in jobs if job["State"] == "in-doubt"]
        if doubts:
            return self.judge_doubt(running, doubts)
        if running:
            return self.judge_running(running[0])
        return self.judge_none(states)

    def say(self, outcome):
        if self.outcome == "-":
            self.outcome = outcome

    def judge_doubt(self, running, doubts):
        self.say("in doubt")
        if not all(job["Error"][1] for job in doubts):
            return "in doubt, and no reason"
        if running:
            return f"in doubt, but the VM runs at {running[0].host.name}: {doubts[0]['Error'][1]}"
        if all(end.vmm.process.alive() for end in self.w.ends):
            return f"in doubt, though both VMMs live: {doubts[0]['Error'][1]}"
        return ""

    def judge_none(self, states):
        """The VM runs nowhere, and nobody is in doubt of it: its VMM has died with it."""
        self.say("lost")
        owners = [end for end in self.w.ends if presence(self.w, end) == "here"]
        held = any(state not in ("none", "gone") for state in states.values())
        if held or any(states[end] != "gone" for end in owners) or not owners:
            return f"it runs nowhere: {self.told_of(states)}"
        if self.point.victim not in ("VMM", "host"):
            return f"exit {self.answer}, but it is lost"
        return ""

    def told_of(self, states):
        """What both hosts say, for who has to find out."""
        return {end.host.name: {"VMM": states[end], "presence": presence(self.w, end),
                                "jobs": [{k: j[k] for k in ("Half", "State", "Result", "Owner", "Error")} for j in end.host.jobs()][-2:]}
                for end in self.w.ends}

    def judge_running(self, end):
        here = end is self.destination
        self.say("done" if here else "back")
        other = self.source if here else self.destination
        try:
            wait_for("one owner", lambda: presence(self.w, end) == "here" and presence(self.w, other) == "away", 5)
        except AssertionError:
            return f"runs at {end.host.name}, but the VM is {presence(self.w, end)} there, {presence(self.w, other)} elsewhere"
        if not self.is_right(here):
            return f"exit {self.answer}, but it runs at the {'destination' if here else 'source'}"
        self.w.here = self.w.ends.index(end)
        return self.judge_guest(end, other)

    def is_right(self, here):
        """What migctl has said of the end."""
        if self.answer == UNREACHABLE:
            return self.point.side == "source" and self.point.victim in ("daemon", "host")
        said = {EXIT["done"]: [True], EXIT["failed"]: [False], EXIT["refused"]: [False]}
        return here in said.get(self.answer, [True, False]) and self.answer in EXIT.values()

    def may_degrade(self):
        return self.point.victim in ("agent", "VMM", "host")

    def lost_agent(self):
        return self.point.victim == "agent" and self.outcome != "not reached"

    def judge_guest(self, end, other):
        if self.lost_agent():
            # Its VMM's connection has ended with it; what the guest may find is that, and nothing else.
            broken = self.w.broken()
            if self.answer == EXIT["degraded"]:
                self.outcome += ", degraded"
            return "" if not broken or "device d" in broken else broken
        first = self.w.state()["steps"]
        wait_for("steps of the guest", lambda: self.w.broken() or self.w.state()["steps"] >= first + 20, 20)
        if self.w.broken():
            return self.w.broken()
        wait_for("running devices", lambda: set(end.server.states().values()) == {"running"}, 5)
        if self.answer == EXIT["degraded"] and not self.may_degrade():
            return f"degraded: {self.told.get('error')}"
        try:
            wait_for("the other VMM", lambda: vmm_state(other) in ("none", "gone"), 5)
        except AssertionError:
            return f"the other VMM is {vmm_state(other)}"
        self.whole = vmm_state(other) == "none"
        return ""


def count_calls(points):
    """What a migration without a fault does, by side and program."""
    moving = Moving()
    try:
        for program in set(PROGRAMS.values()):
            ends = {side: moving.injection(side) for side in ("source", "destination")}
            for injection in ends.values():
                injection.arm(program)
            status, job = moving.world.move()
            assert status == 0, job
            wait_for("an end", lambda: settled(moving.world))
            for point in points:
                if PROGRAMS[point.victim] == program:
                    point.calls = ends[point.side].counts()[point.kind]
            for injection in ends.values():
                injection.disarm()
    finally:
        moving.close()


def schedule(points, rng):
    """[(point, at)]: one of each point, another of each, and so on, so that a run that is cut short has seen some of all."""
    points = rng.sample(points, len(points))
    chosen = {point: point.choose(rng) for point in points}
    turns = max(map(len, chosen.values()), default=0)
    return [(p, chosen[p][i]) for i in range(turns) for p in points if i < len(chosen[p])]


class Run:
    """All points of a table, gone through with a class of cases. `count`: has it say of each point how many calls there are."""

    def __init__(self, args, points, count, case, world=Moving):
        self.case, self.world = case, world
        self.points = [p for p in points if args.pattern in p.name]
        self.args, self.rng = args, random.Random(args.seed)
        count(self.points)
        self.lock, self.work, self.begun = threading.Lock(), queue.Queue(), time.monotonic()
        self.planned = schedule(self.points, self.rng)
        if args.only:
            self.planned = [(p, args.only) for p in self.points if p.has(args.only)]
        for item in self.planned[args.first:]:
            self.work.put(item)

    def time_is_over(self):
        return self.args.seconds and time.monotonic() - self.begun > self.args.seconds

    def is_used_up(self, moving, point, at):
        """Whether that case wants a new world."""
        return False

    def worker(self):
        moving = None
        while not self.time_is_over():
            try:
                point, at = self.work.get_nowait()
            except queue.Empty:
                break
            if moving and self.is_used_up(moving, point, at):
                moving.close()
                moving = None
            crash = None
            try:
                moving = moving or self.world()
                # The same whichever cases there were before it.
                crash = self.case(moving, point, at, random.Random(f"{self.args.seed} {point.name} {at}"))
                bad = crash.run()
            except Exception as e:
                bad = f"{type(e).__name__}: {e}"
            self.note(point, at, crash, bad, moving)
            if moving and not (crash and crash.whole and not bad):
                moving.lab.failed |= bool(bad)
                moving.close()
                moving = None
        if moving:
            moving.close()

    def note(self, point, at, crash, bad, moving):
        with self.lock:
            outcome = crash.outcome if crash else "-"
            point.outcomes[outcome] = point.outcomes.get(outcome, 0) + 1
            point.bad += bool(bad)
            if bad or self.args.verbose:
                print(f"{'BAD' if bad else 'ok ':4} {point.name} {point.shown(at)}: {outcome}, exit "
                      f"{crash and crash.answer}  {bad}", flush=True)

    def run(self):
        threads = [threading.Thread(target=self.worker) for _ in range(self.args.jobs)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for p in self.points:
            if p.outcomes:
                print(p.row() + "  " + ", ".join(f"{n} {o}" for o, n in sorted(p.outcomes.items())))
        summary = self.summary()
        print(json.dumps(summary))
        return 0 if summary["holds"] else 1

    def summary(self):
        hits, bad = sum(p.hits for p in self.points), sum(p.bad for p in self.points)
        outcomes = {}
        for p in self.points:
            for o, n in p.outcomes.items():
                outcomes[o] = outcomes.get(o, 0) + n
        return {"cases": sum(outcomes.values()), "bad": bad, "hits": hits, "planned": len(self.planned), "outcomes": outcomes,
                "seed": self.args.seed, "seconds": round(time.monotonic() - self.begun, 1), "holds": not bad and hits > 0}


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-j", dest="jobs", type=int, default=3)
    parser.add_argument("-s", dest="seed", type=int, default=1)
    parser.add_argument("-t", dest="seconds", type=int, default=0, help="nothing new after that many; 0: all of the plan")
    parser.add_argument("-f", dest="first", type=int, default=0, help="leave out that many of the plan")
    parser.add_argument("-n", dest="only", type=lambda s: int(s, 0), default=0, help="only that call of each point")
    parser.add_argument("-v", dest="verbose", action="store_true", help="a line for each case")
    parser.add_argument("pattern", nargs="?", default="", help="a part of a point's name")
    return parser


if __name__ == "__main__":
    sys.exit(Run(arguments("kill -9 at every call").parse_args(), all_points(), count_calls, Crash).run())
