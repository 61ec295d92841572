# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 of every process of ours, and cuts of the link, in every state of a migration of devices without a VM.

The arcs of the devices are slow, so that a state that commands them lasts; the moment of the kill is the signal that
announces the state. Whoever was killed and is not a device server is started again. Then both sides must come to an end:
the set runs whole on one side; or degraded, the device that died with its server named; or in doubt, with nothing running
and the reason, where docs/ownership.md says so; never on both, never on neither. What migctl has said must be so, then and
in the end. "For long": who is missing comes back only when everybody who waits for it has fallen into doubt.

  tests/bench/kills [-j N] [PATTERN]      prints the table; PATTERN: a part of a case's name
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

from lab import PACE, Lab, is_alive, new_uuid, program, wait_for
from relay import Relay

CONFIG = {"policy": {"deadline-ms": {p: round(1500 * PACE) for p in (
    "check", "prepare", "halt", "p2p-grace", "intake", "handover", "arrival-grace", "run-devices", "run", "release")}},
    "connect-msec": round(500 * PACE), "doubt-msec": 1000}
CONFIG["policy"]["deadline-ms"].update({p: round(3000 * PACE) for p in ("drain", "precopy")})
ARC_MS = 40

VICTIMS = ["source-daemon", "destination-daemon", "source-agent", "destination-agent", "source-device",
           "destination-device", "source-helper", "destination-helper", "link"]

FORWARD = ["source-check-here", "source-check-there", "source-record", "source-prepare", "source-connect", "source-halt",
           "source-p2p-grace", "source-stop-rest", "source-drain", "source-intake", "source-nobody", "source-go",
           "source-done", "source-release", "source-close", "destination-record", "destination-prepare",
           "destination-take-in", "destination-loaded", "destination-intake", "destination-ready",
           "destination-owner", "destination-arrive", "destination-run-devices", "destination-run",
           "destination-done", "destination-started"]
# GO is out, or about to be: whoever does not hear of the destination must wait, however long.
TRANSIT = ["source-nobody", "source-go", "destination-ready", "destination-owner", "destination-arrive",
           "destination-run-devices", "destination-done"]
BACK = ["source-abort", "source-look", "source-back-p2p", "source-back-run", "source-resume", "source-end",
        "destination-discard", "destination-discarded", "destination-gone"]
# With devices that pre-copy, and take their time: there the kill waits until state goes out.
PRECOPY = ["source-precopy", "source-p2p-grace", "source-stop-rest", "source-drain", "destination-take-in", "source-back-p2p"]
PROMISE = ["destination-look", "destination-unarrive", "destination-promise", "destination-promised", "source-abort",
           "source-back-run"]


def cases():
    """(name, victim, state, fault at the destination)"""
    for victim in VICTIMS:
        for state in FORWARD:
            yield f"{victim} in {state}", victim, state, None
        for state in BACK:
            yield f"{victim} in {state} (refused)", victim, state, "resuming>stop:fail:EINVAL"
        for state in PROMISE:
            yield f"{victim} in {state} (promised)", victim, state, "stop>running-p2p:fail:EIO@1"
        for state in PRECOPY:
            fault = "resuming>stop:fail:EINVAL" if state in BACK else None
            yield f"{victim} in {state} (pre-copy)", victim, state, fault
    for victim in ("link", "destination-daemon", "source-daemon"):
        for state in TRANSIT:
            yield f"{victim} in {state}, for long", victim, state, None


# What migctl migrate says of an end (common/outcome.c).
EXIT = {"done": 0, "failed": 1, "timeout": 3, "refused": 6, "cancelled": 7, "in-doubt": 9, "degraded": 10}
UNREACHABLE = 8


class Watcher:
    """Calls back when a state is announced on a host's bus."""

    def __init__(self, host, state, callback):
        self.p = subprocess.Popen([program("migctl"), "--bus-address=" + host.bus_address, "--json=short", "monitor"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert "Listening" in self.p.stdout.readline()
        self.state, self.callback = state, callback
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        for line in self.p.stdout:
            event = json.loads(line)
            if event["event"] == "PhaseReached" and event["data"][1] == self.state:
                self.callback()
                return

    def stop(self):
        self.p.kill()
        self.p.wait()


class Case:
    def __init__(self, lab, name, victim, state, fault):
        self.name, self.victim, self.state, self.lab = name, victim, state, lab
        self.precopy = "(pre-copy)" in name
        extra = ",pre-copy=on,read-delay=400" if self.precopy else ""
        self.hit, self.killed = threading.Event(), []
        self.a, self.b = self.make_host("a"), self.make_host("b")
        self.relay = Relay(os.path.join(lab.dir, "relay.sock"), self.b.dest)
        self.servers = {}
        for side in ("a", "b"):
            for device, spec in (("d0", "p2p=on"), ("d1", "p2p=off")):
                seed = (side == "b") * 4 + (device == "d1") + 1
                self.servers[side, device] = lab.server(f"{side}{device}", {
                    device: f"size=512K,seed={seed},delay=*>*:{ARC_MS},{spec}{extra}"})
        self.uuid = new_uuid()
        self.a.register(self.definition("a"))
        self.b.register(self.definition("b"), incoming=True)
        if fault:
            self.servers["b", "d0"].fault("d0", fault)
        self.error = None

    def make_host(self, name):
        return self.lab.host(name, config=CONFIG)

    def definition(self, side):
        return {"name": "set", "uuid": self.uuid, "vmm": {"type": "none"}, "devices": [
            {"id": d, "type": "vfio-user", "socket": self.servers[side, d].socket(d)} for d in ("d0", "d1")]}

    def strike(self):
        """From the watcher's thread: only the killing, which must be quick. But the devices must be in pre-copy, when that is
        what is to be disturbed."""
        kind = self.victim
        side = "a" if kind.startswith("source") else "b"
        host = self.a if side == "a" else self.b
        try:
            if self.precopy and self.state in ("source-precopy", "destination-take-in"):
                wait_for("pre-copy", lambda: all(self.servers["a", d].status(d)["saved_bytes"] > 0 for d in ("d0", "d1")))
            if kind == "link":
                self.relay.cut()
            elif kind.endswith("daemon"):
                self.kill(host.daemon.pid)
            elif kind.endswith("helper"):
                self.kill(host.helper.pid)
            elif kind.endswith("device"):
                self.kill(self.servers[side, "d0"].process.pid)
            elif kind.endswith("agent"):
                self.kill(*self.agent_pids(host)[:1])
        finally:
            self.hit.set()

    def kill(self, *pids):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)

    def agent_pids(self, host):
        """Of d0, known before the moment comes: looking through /proc takes too long then."""
        return [pid for pid in self.known.get(host.name, []) if os.path.exists(f"/proc/{pid}")]

    def find_agents(self):
        self.known = {"a": named_agents(self.a, "d0"), "b": named_agents(self.b, "d0")}

    def run(self):
        before = {d: self.memory("a", d) for d in ("d0", "d1")}
        self.find_agents()
        host = self.a if self.state.startswith("source") else self.b
        watcher = Watcher(host, self.state, self.strike)
        start = time.monotonic()
        client = self.a.migctl_start("--json=short", "migrate", "set", self.relay.dest)
        if self.victim == "destination-agent":
            threading.Thread(target=self.watch_agents, daemon=True).start()
        out, _ = client.communicate(timeout=60)
        self.answer, self.told = client.returncode, json.loads(out) if out.strip() else {}
        self.claim = self.judge_claim()
        # The state may come after the client has its answer, or not at all (a check needs no release).
        self.hit.wait(1.0 * PACE)
        watcher.stop()
        if not self.hit.is_set():
            self.took = time.monotonic() - start
            self.outcome = "not reached"
            return self.judge(before)
        wait_for("the end of what was killed", lambda: not any(is_alive(pid) for pid in self.killed))
        doubled = self.watch_doubles() if "for long" in self.name else None
        for h in (self.a, self.b):
            if not h.helper.alive():
                h.start_helper()
            if not h.daemon.alive():
                h.start_daemon()
        self.relay.heal()
        verdict = self.judge(before)
        self.took = time.monotonic() - start
        return doubled or verdict or self.claim or self.judge_answer()

    def watch_doubles(self):
        """Nobody comes back for several times as long as it takes to fall into doubt."""
        end = time.monotonic() + 3.5 * CONFIG["doubt-msec"] / 1000
        while time.monotonic() < end:
            for d in ("d0", "d1"):
                if self.device_state("a", d) == "running" and self.device_state("b", d) == "running":
                    return f"{d} runs on both sides while nobody can know"
            time.sleep(0.02)
        return None

    def judge_claim(self):
        """What the client was told must be true when it is told, not only in the end."""
        side = {EXIT["done"]: "b", EXIT["failed"]: "a", EXIT["refused"]: "a"}.get(self.answer)
        for d in ("d0", "d1") if side else ():
            state = self.device_state(side, d)
            if state not in ("running", "gone"):
                return f"exit {self.answer}, but {d} is {state} at {side} then"
        return None

    def judge_answer(self):
        """The exit status against the end. A client that saw a doubt was told so, and one that lost its daemon too."""
        if self.answer == UNREACHABLE:
            return None if self.victim == "source-daemon" else "exit 8, but the daemon lives"
        if EXIT.get(self.told.get("result")) != self.answer:
            return f"exit {self.answer}, but told {self.told.get('result')}"
        if self.answer == EXIT["in-doubt"]:
            return None if self.waited_in_go() else "exit 9, but GO was not unanswered for so long"
        if self.answer != EXIT.get(self.outcome, self.answer):
            return f"exit {self.answer}, but in the end {self.outcome}"
        return None

    def waited_in_go(self):
        """The only doubt that there is without a VMM: GO was sent, and no answer came in time."""
        spans = [s for s in self.told["timeline"] if s["what"] == "source-go" and s["half"] == "source"]
        return any(s["end_usec"] - s["start_usec"] >= CONFIG["doubt-msec"] * 990 for s in spans)

    def device_state(self, side, device):
        try:
            return self.servers[side, device].status(device)["state"]
        except (OSError, ValueError):
            return "gone"

    def watch_agents(self):
        """The destination's agents are started in the middle."""
        while not self.hit.is_set() and not self.known["b"]:
            self.known["b"] = named_agents(self.b, "d0")
            time.sleep(0.005)

    def memory(self, side, device):
        path = os.path.join(self.servers[side, device].dir, "dump")
        self.servers[side, device].command("dump", device=device, path=path)
        with open(path, "rb") as f:
            return f.read()[8:]

    def server_alive(self, side, device):
        return self.servers[side, device].process.alive()

    def settled(self):
        """(state, result) of the source's and of the destination's job, when nothing moves any more."""
        ends = []
        if self.a.is_restoring() or self.b.is_restoring():
            return None
        for host in (self.a, self.b):
            jobs = host.jobs()
            job = jobs[-1] if jobs else None
            if job and job["State"] not in ("finished", "in-doubt"):
                return None
            ends.append(job)
        here = [h.name for h in (self.a, self.b) if h.vm("set")["presence"] == "here"]
        doubt = any(j and j["State"] == "in-doubt" for j in ends)
        if len(here) != 1 and not doubt:
            return None
        return ends, here, doubt

    def judge(self, before):
        try:
            ends, here, doubt = wait_for("an end", self.settled, 25)
            # In doubt may be a moment: it settles by itself when the peer is back.
            if doubt:
                time.sleep(2.5)
                ends, here, doubt = wait_for("an end", self.settled, 25)
        except AssertionError as e:
            self.outcome = "no end"
            return f"{e}: " + json.dumps([[j["State"], j["Phase"], j["Error"]] for h in (self.a, self.b)
                                            for j in h.jobs()])
        source = ends[0]
        self.outcome = source["Result"] if source else f"here at {here}"
        self.error = source["Error"][1] if source else ""
        if doubt:
            running = [(s, d) for s in ("a", "b") for d in ("d0", "d1") if self.server_alive(s, d) and
                       self.servers[s, d].status(d)["state"] in ("running", "running-p2p")]
            self.outcome = "in-doubt"
            return f"in doubt, but {running} run" if running else None
        owner = here[0]
        dead = [d for d in ("d0", "d1") if not self.server_alive(owner, d)]
        states = {}
        for d in ("d0", "d1"):
            if d in dead:
                continue
            try:
                wait_for("state", lambda: self.servers[owner, d].status(d)["state"] == "running", 5)
            except AssertionError:
                return f"{d} is {self.servers[owner, d].status(d)['state']} at its owner {owner}"
            if self.memory(owner, d) != before[d]:
                return f"{d} has other memory at its owner {owner}"
        other = "b" if owner == "a" else "a"
        for d in ("d0", "d1"):
            if self.server_alive(other, d) and self.servers[other, d].status(d)["state"] in ("running", "running-p2p"):
                if self.memory(other, d) == before[d]:
                    return f"{d} runs on both sides"
        if dead and source and source["Result"] not in ("degraded", "done", "failed", "refused"):
            return f"{dead} gone, but {source['Result']}"
        return None

    def close(self):
        self.relay.close()


def named_agents(host, device):
    """Pids of the agents of that device on that host."""
    found = []
    for pid in host.agents():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if f.read().split(b"\0")[1].decode() == device:
                    found.append(pid)
        except (OSError, IndexError):
            pass
    return found


def run_all(pattern="", workers=4, out=sys.stdout, chosen=None):
    selected = [c for c in (chosen or cases()) if re.search(pattern, c[0])]
    bad, lock, outcomes = [], threading.Lock(), {}
    start = time.monotonic()

    def one(case_args):
        with Lab() as lab:
            case = None
            try:
                case = Case(lab, *case_args)
                verdict = case.run()
            except Exception as e:
                verdict = f"{type(e).__name__}: {e}"
            name, outcome = case_args[0], getattr(case, "outcome", "-")
            took = getattr(case, "took", 0.0)
            answer = getattr(case, "answer", "-")
            with lock:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                print(f"{'ok  ' if verdict is None else 'BAD '} {name:56} {outcome:10} {took:6.2f} s  exit {answer}"
                      f"{'  ' + verdict if verdict else ''}", file=out, flush=True)
                if verdict:
                    bad.append(name)
                    if case and os.environ.get("MIGMGR_LOGS"):
                        for h in (case.a, case.b):
                            print(h.daemon.output()[-4000:], file=out, flush=True)
            if case:
                case.close()

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
