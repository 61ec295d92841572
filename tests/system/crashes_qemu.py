# SPDX-License-Identifier: LGPL-2.1-or-later
"""What crashes.py does, with a VM in real QEMUs: kill -9 at the N-th fsync, send, receive ... of migmgrd, an agent, the helper or
QEMU on either side. The guest counts, and qemu.py judges what became of it.

  tests/bench/crashes-qemu [-j N] [-s SEED] [-t SECONDS] [PATTERN]"""

import json
import os
import sys

from crashes import Point, Run, arguments
from inject import Injection
from lab import Lab, is_alive, wait_for
from qemu import Move

PROGRAMS = {"daemon": "migmgrd", "agent": "migmgr-agent", "helper": "migmgr-helper", "VMM": "qemu-system-x86_64"}
KINDS = {"daemon": ["sync", "store", "send", "receive", "connect"], "agent": ["send", "receive"],
         "helper": ["send", "receive", "fork"], "VMM": ["send", "receive"]}
ALLOWED = {"daemon": ["done", "failed", "refused"], "helper": ["done", "failed", "refused"],
           "agent": ["done", "failed", "refused", "degraded"],
           "VMM": ["done", "failed", "refused", "lost", "in-doubt", "degraded"]}


def all_points():
    return [Point(side, victim, kind, when) for victim, kinds in KINDS.items() for kind in kinds
            for side in ("source", "destination") for when in ("before", "after")]


class Qemus:
    """The VM, on two hosts."""

    def __init__(self):
        self.lab = Lab()
        self.injections = {name: Injection(os.path.join(self.lab.dir, name + ".inject")) for name in "ab"}
        self.move = Move(self.lab, env={name: i.env for name, i in self.injections.items()})

    def injection(self, side):
        return self.injections["a" if side == "source" else "b"]

    def close(self):
        self.move.close()
        self.lab.close()


class Crash:
    """One kill; there is no second one of the same VM."""
    whole = False

    def __init__(self, qemus, point, at, rng):
        self.move, self.point, self.at = qemus.move, point, at
        self.injection = qemus.injection(point.side)
        self.host = self.move.a if point.side == "source" else self.move.b
        self.outcome, self.answer = "-", None

    def is_over(self):
        try:
            return self.injection.hit() or self.move.settled()
        except AssertionError:  # it died while it was asked
            return self.injection.hit()

    def run(self):
        """Returns what is wrong, or ""."""
        self.injection.arm(PROGRAMS[self.point.victim], self.point.kind, self.at, self.point.action)
        self.move.start()
        wait_for("a hit, or the end", lambda: self.injection.hit() or self.move.client.poll() is not None, 30)
        if self.move.client.poll() is not None and not self.injection.hit():
            wait_for("the rest of the job", self.is_over, 30)
        hit = self.injection.hit()
        self.injection.disarm()
        if hit:
            wait_for("the death", lambda: self.injection.victim() and not is_alive(self.injection.victim()))
            self.move.killed.append(self.injection.victim())
        self.move.finish()
        self.answer = self.move.status
        vmm_dies = self.host if hit and self.point.victim == "VMM" else None
        allowed = ALLOWED[self.point.victim] if hit else ["done"]
        try:
            self.outcome = self.move.judge(*allowed, lost=list(self.move.devices), vmm_dies=vmm_dies)
        except AssertionError as e:
            return f"{e} {json.dumps(self.move.job.get('error'))}"
        self.outcome = self.outcome if hit else "not reached"
        return ""


def count_calls(points):
    """What a migration without a fault does, by side and program."""
    for program in PROGRAMS.values():
        qemus = Qemus()
        try:
            for side in ("source", "destination"):
                qemus.injection(side).arm(program)
            qemus.move.migrate()
            assert qemus.move.status == 0, qemus.move.job
            wait_for("an end", qemus.move.settled)
            for point in points:
                if PROGRAMS[point.victim] == program:
                    point.calls = qemus.injection(point.side).counts()[point.kind]
        finally:
            qemus.close()


if __name__ == "__main__":
    sys.exit(Run(arguments("kill -9 at every call").parse_args(), all_points(), count_calls, Crash, Qemus).run())
