# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every fault of the emulated device, at every place, on either side, against a set of devices without a VM.

Each case is one migration of two devices, one of which has the fault. The rule that every case must keep is restated in
judge(): the set runs whole on one side, or it is degraded and the one device that had the fault is named; never on both,
never on neither; within the deadlines and the time to undo.

  tests/bench/faults [-j N] [PATTERN]      prints the table; PATTERN: a part of a case's name
"""

import concurrent.futures
import json
import os
import re
import sys
import threading
import time

from lab import PACE, Lab, definition, new_uuid, wait_for

DEADLINE_MS = round(400 * PACE)
DRAIN_MS = round(1200 * PACE)
LATE = f"late:{5 * DEADLINE_MS}"
# Deadlines of the way there, the same again for the way back (look, two barriers, repair), and what scheduling takes.
LIMIT_SECONDS = (2 * DRAIN_MS + 6 * (DEADLINE_MS + 1500)) / 1000 + 5 * PACE

CONFIG = {"policy": {"deadline-ms": {p: DEADLINE_MS for p in (
    "check", "prepare", "halt", "p2p-grace", "intake", "handover", "arrival-grace", "run-devices", "run", "release")},
    "precopy-limit": {"msec": DRAIN_MS // 4}}, "connect-msec": DEADLINE_MS, "doubt-msec": 3000}
CONFIG["policy"]["deadline-ms"].update({"drain": DRAIN_MS, "precopy": DRAIN_MS})

KINDS = ["fail:EIO", "error:EIO", "hang", "lie", "disconnect", "exit", LATE, "short", "bad-id", "bad-command",
         "bad-type", "bad-size-big", "bad-size-small", "truncated", "garbage", "chatter", "error-zero", "error-huge"]
READ_KINDS = ["corrupt", "endless"]

SOURCE_PLACES = {
    "p2p=on": ["running>running-p2p", "running-p2p>stop", "stop>stop-copy", "stop-copy>stop", "read"],
    "p2p=off": ["running>stop", "stop>stop-copy"],
    "p2p=on,pre-copy=on": ["running>pre-copy", "pre-copy>pre-copy-p2p", "pre-copy-p2p>stop-copy", "stop-copy>stop", "read"],
    "p2p=off,pre-copy=on": ["running>pre-copy", "pre-copy>stop-copy"],
}
DESTINATION_PLACES = {
    "p2p=on": ["reset", "running>running-p2p", "running-p2p>stop", "stop>resuming", "write", "resuming>stop",
               "stop>running-p2p", "running-p2p>running"],
    "p2p=off": ["running>stop", "resuming>stop", "stop>running"],
}
# On the way back from a destination that refuses.
BACK_PLACES = {
    "p2p=on": ["stop>running-p2p", "running-p2p>running"],
    "p2p=off": ["stop>running"],
}
# On the way back because the other device at the source does not take an arc, from where that leaves this one.
TURNED_PLACES = {
    "p2p=on,pre-copy=on": {"running>running-p2p": ["pre-copy-p2p>running-p2p", "running-p2p>running"]},
    "p2p=off,pre-copy=on": {"running>running-p2p": ["pre-copy>running"],
                            "running-p2p>stop": ["stop-copy>stop", "stop>running"]},
}
BACK_KINDS = ["fail:EIO", "fail:EIO@1", "error:EIO", "hang", "lie", "disconnect", "disconnect@1", "exit"]


def cases():
    """(name, spec of the faulty device, faults at the source, faults at the destination). A fault is the faulty device's, or
    with "good " before it the other's."""
    for side, places in (("source", SOURCE_PLACES), ("destination", DESTINATION_PLACES)):
        for spec, wheres in places.items():
            for where in wheres:
                kinds = KINDS + (READ_KINDS if where == "read" else [])
                for kind in kinds:
                    if kind == "lie" and ">" not in where:
                        continue
                    fault = [f"{where}:{kind}"]
                    yield (f"{side} {spec} {where} {kind}", spec, fault if side == "source" else [],
                           fault if side == "destination" else [])
    for spec, wheres in BACK_PLACES.items():
        for where in wheres:
            for kind in BACK_KINDS:
                yield (f"back {spec} {where} {kind}", spec, [f"{where}:{kind}"], ["resuming>stop:fail:EINVAL"])
    for spec, turns in TURNED_PLACES.items():
        for turn, wheres in turns.items():
            for where in wheres:
                for kind in BACK_KINDS:
                    yield (f"turned {spec} {where} {kind}", spec, [f"{where}:{kind}", f"good {turn}:fail:EIO@1"], [])


class Case:
    def __init__(self, lab, a, b, number, name, spec, source_faults, destination_faults):
        self.lab, self.a, self.b, self.name = lab, a, b, name
        self.faults = {"a": source_faults, "b": destination_faults}
        self.vm = f"v{number}"
        self.uuid = new_uuid()
        self.servers = {}
        for side in ("a", "b"):
            for device, extra in (("bad", spec), ("good", "p2p=on")):
                seed = number * 8 + (1 if side == "a" else 5) + (device == "good")
                self.servers[side, device] = lab.server(f"{self.vm}{side}{device}", {
                    device: f"size=256K,seed={seed},{extra}"})

    def devices_of(self, side):
        return {"name": self.vm, "uuid": self.uuid, "vmm": {"type": "none"}, "devices": [
            {"id": d, "type": "vfio-user", "socket": self.servers[side, d].socket(d)} for d in ("bad", "good")]}

    def run(self):
        self.a.register(self.devices_of("a"))
        self.b.register(self.devices_of("b"), incoming=True)
        before = {d: self.memory("a", d) for d in ("bad", "good")}
        for side in ("a", "b"):
            for fault in self.faults[side]:
                device = "good" if fault.startswith("good ") else "bad"
                self.servers[side, device].fault(device, fault.removeprefix("good "))
        start = time.monotonic()
        status, job = self.a.migrate(self.vm, self.b, timeout=LIMIT_SECONDS + 20)
        self.took = time.monotonic() - start
        self.job = job
        return self.judge(before)

    def memory(self, side, device):
        """All of it but the counter of its work in the first eight bytes."""
        path = os.path.join(self.servers[side, device].dir, "dump")
        self.servers[side, device].command("dump", device=device, path=path)
        with open(path, "rb") as f:
            return f.read()[8:]

    def alive(self, side, device):
        return self.servers[side, device].process.alive()

    def state(self, side, device):
        return self.servers[side, device].status(device)["state"] if self.alive(side, device) else "gone"

    def judge(self, before):
        """None, or which rule was broken."""
        result, lost = self.job.get("result"), [d["id"] for d in self.job.get("devices", []) if d["lost"]]
        self.result, self.lost = result, lost
        if self.took > LIMIT_SECONDS:
            return f"took {self.took:.1f} s"
        if result not in ("done", "failed", "degraded", "refused"):
            return f"result {result}"

        def settled():
            """Both presences say the same; the destination lets go a moment after the source has ended."""
            here = [h.name for h in (self.a, self.b) if h.vm(self.vm)["presence"] == "here"]
            return here if len(here) == 1 else None
        try:
            here = wait_for("one presence", settled, 5)[0]
        except AssertionError:
            return "here on both, or on neither"
        owner = {"done": "b", "failed": "a", "refused": "a"}.get(result, here)
        if here != owner:
            return f"{result}, but here at {here}"
        other = "b" if owner == "a" else "a"
        if result != "degraded" and lost:
            return f"{result}, but {lost} lost"
        if result == "degraded" and lost != ["bad"]:
            return f"degraded, but lost are {lost}"
        for device in ("bad", "good"):
            if device in lost:
                continue
            if self.state(owner, device) != "running":
                return f"{device} is {self.state(owner, device)} at its owner {owner}"
            if self.memory(owner, device) != before[device]:
                return f"{device} has other memory at its owner {owner}"
            # What was left behind must not work: the source's state runs nowhere else.
            if self.alive(other, device) and self.state(other, device) in ("running", "running-p2p"):
                if self.memory(other, device) == before[device]:
                    return f"{device} runs on both sides"
        if result == "degraded" and not self.may_degrade():
            return "degraded without need"
        if result != "done" and not self.job["error"]["text"]:
            return "no error text"
        culprit = "good" if self.name.startswith("turned") else "bad"
        named = rf"device (bad|{culprit})\b|lost their state, .*: (.*, )?(bad|{culprit})\b"
        if result in ("failed", "degraded") and not re.search(named, self.job["error"]["text"]):
            return "the error does not name the device"
        arc = re.fullmatch(r"source \S+ ([a-z0-9-]+)>([a-z0-9-]+) hang", self.name)
        if arc and f"{arc[1]} -> {arc[2]}" not in self.job["error"]["text"]:
            return "the error names what came of it, and not the arc that hung"
        return None

    def may_degrade(self):
        """Only where it can't be otherwise. At the source: the device is in ERROR, is gone, answers after its deadline
        has passed twice, or does not take one of the arcs back however often it is asked. At the destination: it was
        past the first RUNNING, and the device does not take that arc; or the device is still busy with its first arc when
        it has been asked twice where it is, so that nobody can promise that it will not run."""
        def refuses(fault):
            where, kind = fault.split(":")[0], fault.split(":", 1)[1]
            return where if kind.split("@")[0] in ("fail:EIO", "error:EIO", "lie", "hang", "exit", LATE) and \
                not kind.endswith("@1") else None
        for fault in self.faults["a"]:
            if fault.startswith("good "):
                continue
            kind = fault.split(":", 1)[1]
            if kind.startswith(("error", "exit", "late")):
                return True
            if refuses(fault) in ("stop-copy>stop", "stop>running-p2p", "running-p2p>running", "stop>running",
                                  "pre-copy>running", "pre-copy-p2p>running-p2p"):
                return True
        return any(refuses(f) in ("running-p2p>running", "stop>running") or f == "stop>running-p2p:" + LATE
                   for f in self.faults["b"])

    def close(self):
        for server in self.servers.values():
            if server.process.alive():
                server.stop()


def run_all(pattern="", workers=6, out=sys.stdout):
    selected = [c for c in cases() if re.search(pattern, c[0])]
    bad = []
    lock = threading.Lock()
    start = time.monotonic()
    with Lab() as lab:
        a, b = lab.host("a", config=CONFIG), lab.host("b", config=CONFIG)

        def one(numbered):
            number, (name, spec, source, destination) = numbered
            case = Case(lab, a, b, number, name, spec, source, destination)
            try:
                verdict = case.run()
            except Exception as e:  # a test that breaks is a finding, too
                verdict = f"{type(e).__name__}: {e}"
                case.took, case.result, case.lost, case.job = 0, "-", [], {}
            finally:
                case.close()
            error = (case.job.get("error") or {}).get("text", "")
            with lock:
                print(f"{'ok  ' if verdict is None else 'BAD '} {name:52} {case.result:9} {case.took:6.2f} s"
                      f"{'  lost: ' + ','.join(case.lost) if case.lost else ''}"
                      f"{'  ' + verdict if verdict else ''}", file=out, flush=True)
                if verdict:
                    print(f"      {error}", file=out, flush=True)
                    bad.append(name)

        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, enumerate(selected)))
        daemons = [h.name for h in (a, b) if not h.daemon.alive()]
    print(json.dumps({"cases": len(selected), "bad": len(bad), "daemons_died": daemons,
                      "seconds": round(time.monotonic() - start, 1), "holds": not bad and not daemons}),
          file=out, flush=True)
    return not bad and not daemons


if __name__ == "__main__":
    args = sys.argv[1:]
    jobs = 6
    if args[:1] == ["-j"]:
        jobs, args = int(args[1]), args[2:]
    sys.exit(0 if run_all(args[0] if args else "", jobs) else 1)
