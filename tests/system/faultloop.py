# SPDX-License-Identifier: LGPL-2.1-or-later
"""The N-th allocation, file, fork, write to the database, fsync, send, receive, connection fails, once: of migmgrd, an agent,
the helper or migctl, in a migration and while they start.

  tests/bench/faultloop [-j N] [-s SEED] [-t SECONDS] [PATTERN]

Who ends because of it is started again, as an init system does; migmgrd and migctl may end themselves when there is no
memory. The world and its rules are those of crashes.py. And nothing may hang: a program that starts is ready or has ended
with a word, migctl ends with what is true, and when all is over the next migration is done, so nobody holds anything any
more. How many calls there are is counted before, N goes through all of them in an order that the seed makes. Prints a
table; the last line is one JSON object."""

import errno
import json
import os
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


class Fault:
    """In `what` ("move", "start", "list"), of `victim` at `side`: at its calls of a kind."""
    when = ""

    def __init__(self, what, side, victim, kind):
        self.what, self.side, self.victim, self.kind = what, side, victim, kind
        self.name = f"{what}, {side} {victim}: {kind}"
        self.outcomes, self.bad, self.calls = {}, 0, 0

    @property
    def hits(self):
        return sum(n for outcome, n in self.outcomes.items() if outcome != "not reached")


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
        super().__init__()
        self.client = Injection(os.path.join(self.lab.dir, "client.inject"))


class Case(Crash):
    def __init__(self, moving, point, at, rng):
        super().__init__(moving, point, at, rng)
        self.error = rng.choice(ERRORS[point.kind])
        self.injection = moving.client if point.victim == "migctl" else moving.injection(point.side)

    def arm(self):
        self.injection.arm(PROGRAMS[self.point.victim], self.point.kind, self.at, "fail" if self.at else "count", self.error)

    def run(self):
        self.codes, pids = [], self.pids()
        bad = {"move": self.run_move, "start": self.run_start, "list": self.run_list}[self.point.what]()
        if not bad and self.pids() != pids and self.point.what == "move":
            self.outcome += ", restarted"
        bad = bad or self.judge_deaths()
        if bad:
            return f"{errno.errorcode[self.error]} in {self.injection.caller()}: {bad}"
        return self.once_more() if self.whole and self.at else ""

    def is_librarys(self, code):
        """Whether that end is a library's that does not look what its allocations return."""
        ours = self.injection.caller() == PROGRAMS[self.point.victim]
        return code is not None and code < 0 and code != -signal.SIGABRT and not ours and self.point.kind == "allocate"

    def judge_deaths(self):
        """How they may end: by themselves, or by a library."""
        wrong = [code for code in self.codes if code < 0 and code != -signal.SIGABRT]
        if wrong and all(map(self.is_librarys, wrong)):
            self.outcome += ", died in a library"
            return ""
        return f"died by signal {-wrong[0]}" if wrong else ""

    def restart(self):
        for end in self.w.ends:
            self.codes += [p.p.returncode for p in (end.host.daemon, end.host.helper) if not p.alive()]
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
        if not (self.told or err.strip() or self.is_librarys(self.answer)):
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
            said, code = process.output().strip(), process.p.returncode
            if code == 0 or (not said and code > 0):
                return f"ended with {code} and said {said!r}"
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
        if self.is_librarys(status):
            self.outcome += ", died in a library"
        elif (status != 0 and not err.strip()) or (status < 0 and status != -signal.SIGABRT):
            return f"exit {status}, and not a word of why"
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
        """More than once only where what has ended is still being put in order, and says so."""
        status, job = self.w.move()
        self.last = job.get("error") or job
        return status == 0


def count_calls(points):
    moving = FaultWorld()
    try:
        for key in {(p.what, p.victim, p.side) for p in points}:
            mine = [p for p in points if (p.what, p.victim, p.side) == key]
            case = Case(moving, mine[0], 0, random.Random(1))
            bad = case.run()
            assert not bad and case.whole, (key, bad)
            for p in mine:
                p.calls = case.injection.counts()[p.kind]
    finally:
        moving.close()


if __name__ == "__main__":
    sys.exit(Run(arguments("the N-th call fails"), list(all_faults()), count_calls, Case, FaultWorld).run())
