# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each allocation, file, fork, write to the database, fsync, send, receive, connection fails, once: of migmgrd, an agent, the
helper or migctl, in a migration and while they start.

  tests/bench/faultloop [-j N] [-s SEED] [-t SECONDS] [-r FILE] [-n CALL] [PATTERN]

A row is "WHAT, SIDE VICTIM: KIND", as in "move, source daemon: allocate", and PATTERN a part of one or more. WHAT is move (source
or destination; daemon, agent, helper, and migctl at the source), start (source daemon, source helper) or list (source migctl);
the kinds are sync, store, send, receive, connect, allocate, open, fork and poll. CALL is a number, or a place as a bad case
prints it. The programs are those of build/, or of what MIGMGR_BUILD names.

Who ends because of it is started again, as an init system does; migmgrd and migctl may end themselves when there is no
memory. The world and its rules are those of crashes.py. And nothing may hang: a program that starts is ready or has ended
with a word, migctl ends with what is true, and when all is over the next migration is done, so nobody holds anything any
more.

Which calls there are is seen before, in a few runs without a fault. Of the kinds with few calls N goes through all of them.
Memory is allocated ten thousand times in a migration, and mostly at the same places. So there a case is a *place*
(tests/fake/inject.c): the first call there fails, whichever its number is in that run. So it is with whatever else is called
more than FEW times, like the sends of agents; of these some calls by their numbers, too. A place that is seen for the first
time before the fault of a case is one of the plan from then on; what is seen behind a fault only would need two.
A place that is not reached is tried again, in a new world, too. The loop is complete when the plan is empty.

A bad case prints the line that does exactly this again. With -r a run leaves out what FILE has, and adds to it what it has
done, so that all of it can be gone through in pieces; with another build the places are others. Prints a table; the last line
is one JSON object, with `left` cases of the plan that were not run."""

import errno
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import time

from crashes import Crash, Moving, Run, arguments, restart, settled
from inject import Injection
from kills import EXIT
from lab import connects, program, wait_for

ERRORS = {"sync": [errno.EIO], "store": [errno.ENOSPC, errno.EIO], "send": [errno.ECONNRESET, errno.ENOBUFS, errno.EAGAIN, errno.EINTR],
          "receive": [errno.ECONNRESET, errno.ENOMEM, errno.EAGAIN, errno.EINTR], "connect": [errno.EMFILE, errno.ENOMEM],
          "allocate": [errno.ENOMEM], "open": [errno.EMFILE], "fork": [errno.EAGAIN], "poll": [errno.ENOMEM]}
PROGRAMS = {"daemon": "migmgrd", "agent": "migmgr-agent", "helper": "migmgr-helper", "migctl": "migctl"}
ALL = list(ERRORS)
FEW, SAMPLE = 250, 40
ROUNDS, TRIES, WORLD = 3, 4, 60  # of counting, for a place, cases in one world


class Fault:
    """In `what` ("move", "start", "list"), of `victim` at `side`: at its calls of a kind."""
    when = ""

    def __init__(self, what, side, victim, kind):
        self.what, self.side, self.victim, self.kind = what, side, victim, kind
        self.name = f"{what}, {side} {victim}: {kind}"
        self.outcomes, self.bad, self.calls, self.places = {}, 0, 0, set()

    @property
    def hits(self):
        return sum(n for outcome, n in self.outcomes.items() if outcome != "not reached")

    def goes_by_place(self):
        return self.kind == "allocate" or self.calls > FEW

    def choose(self, rng):
        calls = list(range(1, self.calls + 1))
        if not self.goes_by_place():
            return rng.sample(calls, len(calls))
        some = [] if self.kind == "allocate" else rng.sample(calls, SAMPLE)
        return rng.sample(sorted(self.places) + some, len(self.places) + len(some))

    def has(self, at):
        return self.calls > 0

    def shown(self, at):
        return f"{at:#x}" if is_place(at) else f"{at} of {self.calls}"

    def row(self):
        missed = self.outcomes.get("not reached", 0)
        places = f"{len(self.places)} places of" if self.goes_by_place() else ""
        return f"{self.name:36} {places:15} {self.calls:5} calls, {self.hits:4} failed, {missed:3} not reached, {self.bad} bad:"


def is_place(at):
    """Numbers of calls are small, places are not."""
    return at >= 1 << 32


def all_faults():
    for kind in ALL:
        for side in ("source", "destination"):
            for victim in ("daemon", "agent", "helper"):
                yield Fault("move", side, victim, kind)
        for victim in ("daemon", "helper"):
            yield Fault("start", "source", victim, kind)
        for what in ("move", "list"):
            yield Fault(what, "source", "migctl", kind)


class FaultWorld(Moving):
    def __init__(self):
        super().__init__(options=("--rest=1500",))  # a guest at full speed takes most of what the machine has
        self.client = Injection(os.path.join(self.lab.dir, "client.inject"))
        self.cases = 0


class Case(Crash):
    def __init__(self, moving, point, at, rng):
        super().__init__(moving, point, at, rng)
        self.error = rng.choice(ERRORS[point.kind])
        self.injection = moving.client if point.victim == "migctl" else moving.injection(point.side)

    def arm(self):
        self.logs = {end: [os.path.getsize(p.log_path) for p in (end.host.daemon, end.host.helper)] for end in self.w.ends}
        action = ("fail place" if is_place(self.at) else "fail") if self.at else "places"
        self.injection.arm(PROGRAMS[self.point.victim], self.point.kind, self.at, action, self.error)

    def run(self):
        self.ended, pids = [], self.pids()
        bad = {"move": self.run_move, "start": self.run_start, "list": self.run_list}[self.point.what]()
        if not bad and self.pids() != pids and self.point.what == "move":
            self.outcome += ", restarted"
        bad = bad or self.judge_death() or self.judge_ends()
        if bad:
            return self.blame(bad)
        changes = self.at and self.point.what != "list"
        bad = self.once_more() if self.whole and changes else ""
        return self.blame(bad) if bad else ""

    def blame(self, bad):
        return f"{errno.errorcode[self.error]} in {calls_of(self.injection.stack())}: {bad}"

    def dier(self):
        """The program or library in which a process has died of itself, or None."""
        return next((file for file, _ in self.injection.death()[1] if not file.startswith("libc.so")), None)

    def is_librarys(self):
        """Whether it has died in a library that does not look what its allocations return: in the very call of our code in
        which one failed. In a later one it would be we who did not look."""
        dier, calls = self.dier(), [next((frame for frame in stack if frame[0] in PROGRAMS.values()), None)
                                    for stack in (self.injection.stack(), self.injection.death()[1])]
        ours = dier is None or dier in PROGRAMS.values() or calls[0] != calls[1]
        return self.point.kind == "allocate" and not ours

    def judge_death(self):
        sig, stack = self.injection.death()
        if self.is_librarys():
            self.outcome += ", died in " + self.dier()
        elif sig == signal.SIGABRT:
            self.outcome += ", ended itself"
        elif sig:
            return f"died by signal {sig} in {calls_of(stack)}"
        return ""

    def judge_ends(self):
        """Who ended has said why."""
        for process, said in self.ended:
            code = process.p.returncode
            if code < 0 and -code != self.injection.death()[0]:
                return f"{process.name} died by signal {-code}"
            if code >= 0:
                self.outcome += f", exit {code}"
            if not said and not self.is_librarys():
                return f"{process.name} ended with {code}, and not a word of why: {calls_of(self.injection.death()[1])}"
        return ""

    def restart(self):
        for end in self.w.ends:
            for process, size in zip((end.host.daemon, end.host.helper), self.logs[end]):
                if not process.alive():
                    self.ended.append((process, said_since(process, size)))
            restart(end.host)

    def pids(self):
        return [p.pid for end in self.w.ends for p in (end.host.daemon, end.host.helper)]

    def note_hit(self):
        if self.at and not self.injection.hit():
            self.outcome = "not reached"
        self.injection.disarm()

    def migctl(self, *args):
        """With the library, when it is migctl's turn."""
        env = {**os.environ, **self.injection.env} if self.point.victim == "migctl" else None
        p = subprocess.Popen([program("migctl"), "--bus-address=" + self.source.host.bus_address, *args], env=env,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = p.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate()
            raise AssertionError(f"migctl {args[0]} hangs")
        return p.returncode, out, err

    def all_settled(self):
        """With everybody there who has ended in the meantime."""
        self.restart()
        jobs = settled(self.w)
        return jobs if all(end.host.daemon.alive() for end in self.w.ends) else None

    def run_move(self):
        self.arm()
        self.answer, out, err = self.migctl("--json=short", "migrate", self.w.name, self.destination.host.dest)
        try:
            self.told = json.loads(out) if out.strip() else {}
        except ValueError:
            return f"migctl printed {out!r}"
        wait_for("an end", self.all_settled, 30)
        self.note_hit()
        wait_for("an end", self.all_settled, 30)  # of one that was hit after the job, too
        if not (self.told or err.strip() or self.is_librarys()):
            return f"migctl ended with {self.answer} and said nothing"
        return self.judge()

    def may_degrade(self):
        return self.point.victim == "agent"

    def lost_agent(self):
        return self.point.victim == "agent" and (self.answer == EXIT["degraded"] or "device d" in self.w.broken())

    def is_right(self, here):
        if self.point.victim != "migctl" or self.answer in (EXIT["done"], EXIT["failed"]):
            return super().is_right(here)
        return True  # it has said that it does not know: its own error, and no end of the job

    def run_start(self):
        host = self.source.host
        process = host.daemon if self.point.victim == "daemon" else host.helper
        process.kill()
        self.arm()
        if self.point.victim == "daemon":
            host.start_daemon(wait=False)
            ready = lambda: "\nready, " in "\n" + host.daemon.output()
        else:
            self.start_helper(host)
            ready = lambda: connects(os.path.join(host.runtime, "helper.sock"), socket.SOCK_SEQPACKET)
        process = host.daemon if self.point.victim == "daemon" else host.helper
        wait_for("an end or a start", lambda: not process.alive() or ready(), 20)
        time.sleep(0.02)  # what it does behind that is hit, too
        self.note_hit()
        if not process.alive():
            self.say("ended")
            if process.p.returncode == 0:
                return f"ended with 0 and said {process.output()!r}"
        self.restart()
        self.say("started")
        wait_for("an end", self.all_settled, 30)
        return self.judge_here()

    def start_helper(self, host):
        try:
            host.start_helper()
        except AssertionError:
            if host.helper.alive():
                raise

    def run_list(self):
        right = self.source.host.migctl("list")[:2]
        self.arm()
        status, out, err = self.migctl("list")
        self.note_hit()
        self.say("failed" if status else "listed")
        if status == 0 and (status, out) != right:
            return f"exit 0, but it printed {out!r}"
        if status != 0 and not err.strip() and not self.is_librarys():
            return f"exit {status}, and not a word of why: {calls_of(self.injection.death()[1])}"
        return self.judge_here()

    def judge_here(self):
        self.whole = not self.w.broken() and self.w.state()["state"] == "running"
        return "" if self.whole else f"the guest: {self.w.state()}"

    def once_more(self):
        """Nobody holds anything any more: the next move, without a fault, is done."""
        try:
            wait_for("a clean move", self.moves, 8)
        except AssertionError:
            return f"and then: {self.last}"
        wait_for("an end", self.all_settled, 20)
        return self.w.broken()

    def moves(self):
        """More than once only where what has ended is still being put in order, and says so; or where somebody was ending when it
        was looked who had."""
        self.restart()
        status, job = self.w.move()
        self.last = job.get("error") or job
        return status == 0


def said_since(process, size):
    """What is in its log behind the first `size` bytes."""
    with open(process.log_path, errors="replace") as f:
        f.seek(size)
        return f.read().strip()


def calls_of(stack):
    """The innermost of our functions on a stack, with what they have called."""
    if not stack:
        return "?"
    program_of = next((file for file, _ in stack if file in PROGRAMS.values()), None)
    own = [f"{offset - 1:#x}" for file, offset in stack if file == program_of][:6]
    lines = subprocess.run(["addr2line", "-f", "-s", "-e", program(program_of), *own], capture_output=True,
                           text=True).stdout.split("\n") if own else []
    names = [f"{name} {place.split(' ')[0]}" for name, place in zip(lines[::2], lines[1::2])]
    return " < ".join(([stack[0][0]] if stack[0][0] != program_of else []) + names)


def count_calls(points):
    """In both directions, in a new world and in one that has gone on for a while."""
    moving = FaultWorld()
    try:
        for key in sorted({(p.what, p.victim, p.side) for p in points}) * ROUNDS:
            mine = [p for p in points if (p.what, p.victim, p.side) == key]
            case = Case(moving, mine[0], 0, random.Random(1))
            bad = case.run()
            assert not bad and case.whole, (key, bad)
            for p in mine:
                p.calls = max(p.calls, case.injection.counts()[p.kind])
                p.places |= case.injection.places(p.kind).keys()
    finally:
        moving.close()


class Loop(Run):
    """With places that are found on the way, and a record of what was done."""

    def __init__(self, args):
        super().__init__(args, list(all_faults()), count_calls, Case, FaultWorld)
        self.tries, self.record = {}, None
        if args.record:
            self.leave_out(args.record)
            self.record = open(args.record, "a", buffering=1)

    def leave_out(self, path):
        """What the record has is done; what it knows and has not done is to be done."""
        done, rows = set(), {p.name: p for p in self.points}
        if os.path.exists(path):
            with open(path) as f:
                for name, at, outcome, bad in map(json.loads, f):
                    if name in rows:
                        rows[name].outcomes[outcome] = rows[name].outcomes.get(outcome, 0) + 1
                        rows[name].bad += bad
                        rows[name].places |= {at} if is_place(at) else set()
                        done.add((rows[name], at))
        todo = [item for item in self.planned if item not in done]
        self.work = queue.Queue()
        for item in todo:
            self.work.put(item)
        self.planned = [*todo, *done]

    def is_used_up(self, moving, point, at):
        moving.cases += 1
        return moving.cases > WORLD or self.tries.get((point, at), 0) % 2

    def add_places(self, point, case):
        if not point.goes_by_place() or self.args.only or not is_place(case.at):
            return
        fresh = case.injection.places(point.kind).keys() - point.places
        point.places |= fresh
        for item in [(point, at) for at in fresh]:
            self.planned.append(item)
            self.work.put(item)

    def note(self, point, at, crash, bad, moving):
        with self.lock:
            if crash:
                self.add_places(point, crash)
            if crash and crash.outcome == "not reached" and not bad and is_place(at):
                self.tries[point, at] = tries = self.tries.get((point, at), 0) + 1
                if tries < TRIES:
                    self.work.put((point, at))
                    return
            if self.record:
                print(json.dumps([point.name, at, crash.outcome if crash else "-", bool(bad)]), file=self.record)
        super().note(point, at, crash, bad, moving)
        if bad:
            print(f"     again: python3 tests/system/faultloop.py -s {self.args.seed} -n {at:#x} '{point.name}'", flush=True)

    def summary(self):
        said = super().summary()
        return {**said, "places": sum(len(p.places) for p in self.points if p.goes_by_place()),
                "left": said["planned"] - said["cases"]}


def main():
    parser = arguments("each call fails once")
    parser.add_argument("-r", dest="record", help="leave out what this file has, and add to it what was done")
    return Loop(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
