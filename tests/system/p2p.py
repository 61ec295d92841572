# SPDX-License-Identifier: LGPL-2.1-or-later
"""Devices that write each other's memory while they are moved.

  tests/bench/p2p [MOVES [PATTERN]]        prints the table; MOVES: of each row, PATTERN: a part of a row's name

The emulated devices of a VM stand in a ring, each a process of its own, and each has the mailbox of the next one, memory of a
BAR, mapped for its DMA. It writes letter after letter there, whatever the guest does, and takes those that come to itself. Each
has arcs of its own slowness, so that without barriers one would stand while another still writes. Letters have numbers and
sums; a device that stands remembers what its mailbox held. So a letter that is lost or torn, and one that came to a device
that stood, is counted by the device that it was for.

The rule: nothing of it is ever counted, letters go on where the VM runs, and none that was taken at the source is unknown at the
destination. In the last rows a barrier is left out on purpose (migmgrd-broken), and then something must be counted: without
them all the others would prove little."""

import concurrent.futures
import json
import random
import sys
import time

from lab import PACE, Lab, new_uuid, wait_for
from moves import World

SPEC = "worker=on,mailbox=on,size=64K"
AT_ONCE = 3     # rows: they wait more than they work
SLOW_MS = 8     # the slowest arc between running and standing
BROKEN_MS = 25  # the same of the one device that is slow when a barrier is left out
# Between running and standing: (with the P2P states, with PRE_COPY too) -> arcs.
ARCS = {(True, False): ["running>running-p2p", "running-p2p>stop", "stop>running-p2p", "running-p2p>running"],
        (False, False): ["running>stop", "stop>running"],
        (True, True): ["pre-copy>pre-copy-p2p", "pre-copy-p2p>stop-copy"], (False, True): ["pre-copy>stop-copy"]}
# One that has no P2P states among others: whoever wants it moved has to say so.
RISK = {"policy": {"p2p": "accept-risk"}}
COUNTS = ["lost", "torn", "intrusions", "intrusions_here"]


class Apart:
    """A device server for each device, behind what the rest knows of one for all."""

    def __init__(self, lab, name, devices):
        self.servers = {d: lab.server(f"{name}-{d}", {d: spec}) for d, spec in devices.items()}

    def socket(self, device):
        return self.servers[device].socket(device)

    def letters(self):
        return {d: server.status(d)["mailbox"] for d, server in self.servers.items()}

    def states(self):
        return {d: server.status(d)["state"] for d, server in self.servers.items()}

    def fault(self, device, fault):
        self.servers[device].fault(device, fault)

    def clear(self):
        for server in self.servers.values():
            server.clear()

    def replace(self, device, spec):
        """Another server in its place, at the same path."""
        server = self.servers[device]
        server.stop()
        server.specs = {device: spec}
        server.start()

    def stop(self):
        for server in self.servers.values():
            server.stop()


def devices(n, seed=1, without_p2p=(), pre_copy=(), slow=SLOW_MS):
    """{id: what it is}."""
    rng, specs = random.Random(seed), {}
    for i in range(n):
        p2p, saves = i not in without_p2p, i in pre_copy
        arcs = ARCS[p2p, False] + (ARCS[p2p, True] if saves else [])
        specs[f"d{i}"] = (f"{SPEC},p2p={'on' if p2p else 'off'},pre-copy={'on' if saves else 'off'}"
                          + "".join(f",delay={arc}:{rng.uniform(0, slow):.1f}" for arc in arcs))
    return specs


def counted(world):
    """What devices at either end have found wrong, or ""."""
    return ", ".join(f"{end.host.name} {d}: {letters[count]} {count}" for end in world.ends
                     for d, letters in end.server.letters().items() for count in COUNTS if letters[count])


def wait_letters(world, more=20):
    """All devices take letters where the VM is, and stop doing that when something is wrong."""
    first = world.source.server.letters()
    wait_for(f"{more} letters to each device", lambda: counted(world) or all(
        now["taken"] >= first[d]["taken"] + more for d, now in world.source.server.letters().items()), 20)


def move(world, expect=("done",)):
    """One move. What is wrong, or ""."""
    before = world.source
    result = world.move()[1]
    if result.get("result") not in expect:
        return f"{result.get('result')} is not {' or '.join(expect)}: {result.get('error')}"
    if world.source is not before:
        left, now = before.server.letters(), world.source.server.letters()
        for d in left:
            for what in ("sent", "taken"):
                if now[d][what] < left[d][what]:
                    return f"{d} had {what} {left[d][what]} letters, then {now[d][what]}"
    wait_letters(world)
    return counted(world) or world.broken()


def make(lab, specs, broken=None, options=(), config=None):
    how = {"wrap": ["env", "MIGMGR_BREAK=" + broken], "daemon_program": "migmgrd-broken"} if broken else {}
    hosts = [lab.host(name, config=config, **how) for name in "ab"]
    world = World(lab, hosts, specs, options=options, make_server=lambda name, devices: Apart(lab, name, devices))
    wait_letters(world, 50)
    return world


def holds(moves, specs, options=(), config=None):
    """Moves to and fro; nothing is counted."""
    with Lab() as lab:
        world = make(lab, specs, options=options, config=config)
        for i in range(moves):
            text = move(world)
            if text:
                lab.failed = True
                return f"move {i + 1}: {text}"
        world.wait_steps(20)
        return ""


def turns_back(moves, specs, arcs, config=None):
    """A device fails, at the source or the destination: all go back, and nothing is counted either."""
    with Lab() as lab:
        world = make(lab, specs, config=config)
        for i in range(moves):
            side, arc = arcs[i % len(arcs)]
            getattr(world, side).server.fault("d0", arc + ":fail:EIO@1")
            text = move(world, ("failed",))
            for end in world.ends:
                end.server.clear()
            if text:
                lab.failed = True
                return f"move {i + 1}, {side} {arc}: {text}"
        return ""


def breaks(moves, specs, barrier, config=None):
    """Without that barrier something is counted, within so many moves."""
    with Lab() as lab:
        world = make(lab, specs, broken=barrier, config=config)
        for _ in range(max(moves, 4)):
            text = move(world)
            if counted(world):
                return ""
            if text:
                return text
        return "nothing was counted"


def notices():
    """A device's server is replaced by one that can less, at either end: check says so, and a job refuses before it has touched
    anything. With the server as it was the VM moves."""
    with Lab() as lab:
        a, b = (lab.host(name) for name in "ab")
        servers, vm = {}, new_uuid()
        for host in (a, b):
            servers[host] = Apart(lab, host.name, {d: "" for d in ("d0", "d1")})
            host.register({"name": "vm", "uuid": vm, "vmm": {"type": "none"}, "devices": [
                {"id": d, "type": "vfio-user", "socket": servers[host].socket(d)} for d in ("d0", "d1")]}, host is b)
        for host, can, word in ((a, "migration=off", "migration"), (b, "migration=off", "migration"), (b, "p2p=off", "p2p")):
            servers[host].replace("d1", can)
            status, report, _ = a.migctl("check", "vm", b.dest)
            _, job = a.migrate("vm", b)
            logs = [e for h in (a, b) for e in servers[h].servers["d0"].log("d0") if e["what"] != "connect"]
            if status != 6 or "d1" not in report or word not in report or job["result"] != "refused" or logs:
                return f"{host.name}, {can}: {status} {report} {job['result']} {job['error']} {logs}"
            servers[host].replace("d1", "")
        result = a.migrate("vm", b)[1]["result"]
        return "" if result == "done" else result


def behind_viommu(moves, ndma):
    """What devices ask the VMM for waits until a vCPU runs, as page faults behind a virtual IOMMU would. So they have to be quiet
    before the vCPUs stand (phase 4), and those that policy takes to be so without being it stop no more. Of the job nothing is
    left then: vCPUs run again and bring what is asked for."""
    config = {"policy": {"ndma": "full", "viommu-grace": "auto", "deadline-ms": {"drain": round(1000 * PACE)}}}
    specs = {d: f"{spec},ndma={'on' if ndma else 'off'}" for d, spec in devices(3, seed=9).items()}
    if ndma:
        return holds(moves, specs, ("--viommu",), config)
    with Lab() as lab:
        world = make(lab, specs, options=("--viommu",), config=config)
        for _ in range(max(moves, 30)):  # something has to be under way just then
            text = move(world, ("failed", "done"))
            jobs = world.source.host.jobs()
            if text or jobs[-1]["Result"] == "failed":
                return text
        return "nothing had to wait"


def refuses():
    """What no order of barriers makes safe is refused by check, which names the reason; and what policy has not said it would
    be."""
    cases = [("require", (1,), (), "d1"), ("single", (1,), (), "d1"), ("isolate", (1, 2), (), "d1"),
             ("require", (), ("--viommu",), "vIOMMU")]
    for word, without, options, named in cases:
        with Lab() as lab:
            world = make(lab, devices(3, without_p2p=without), options=options, config={"policy": {"p2p": word}})
            status, report, _ = world.source.host.migctl("check", world.name, world.destination.host.dest)
            result = world.move()[1]["result"]
            if status != 6 or named not in report or result != "refused" or counted(world) or world.broken():
                return f"{word}, {without}: {status} {report} {result} {counted(world)}"
    return ""


def one_slow(n, **kw):
    """All are quick but the last, whose arcs from and to running take long."""
    specs = devices(n, slow=0.1, **kw)
    last = f"d{n - 1}"
    specs[last] += "".join(f",delay={arc}:{BROKEN_MS * PACE:.0f}" for arc in ("running>running-p2p", "stop>running-p2p"))
    return specs


def slow_without_p2p(n):
    """One without P2P states takes long to run, when its peers are quick to write to it."""
    specs = devices(n, slow=0.1, without_p2p=(1,))
    specs["d1"] += f",delay=stop>running:{BROKEN_MS * PACE:.0f}"
    return specs


def slow_to_stop(n):
    """One without P2P states goes on writing for long when it is to stand, when its peers are quick."""
    specs = devices(n, slow=0.1, without_p2p=(1,))
    specs["d1"] += f",delay=running>stop:{BROKEN_MS * PACE:.0f}"
    return specs


BACK = [("source", "running-p2p>stop"), ("destination", "resuming>stop"), ("destination", "stop>running-p2p"),
        ("source", "stop-copy>stop")]
ROWS = [
    ("two devices", lambda n: holds(n, devices(2))),
    ("eight devices", lambda n: holds(n, devices(8, seed=2))),
    ("three devices with PRE_COPY", lambda n: holds(n, devices(3, seed=3, pre_copy=range(3)))),
    ("five, some with PRE_COPY, pages by agents", lambda n: holds(n, devices(5, seed=4, pre_copy=(1, 2)), ("--no-dirty-pages",))),
    ("four, one without P2P states", lambda n: holds(n, devices(4, seed=5, without_p2p=(1,)), config=RISK)),
    ("three, one without P2P states and slow to run", lambda n: holds(n, slow_without_p2p(3), config=RISK)),
    ("three, one without P2P states and slow to stand", lambda n: holds(n, slow_to_stop(3), config=RISK)),
    ("four, one without P2P states, with PRE_COPY", lambda n: holds(n, devices(4, seed=6, without_p2p=(2,), pre_copy=range(4)), config=RISK)),
    ("jobs that turn back", lambda n: turns_back(n, devices(4, seed=7), BACK)),
    ("jobs that turn back, one without P2P states", lambda n: turns_back(n, devices(4, seed=8, without_p2p=(2,)), BACK, config=RISK)),
    ("what no order makes safe is refused", lambda n: refuses()),
    ("a server that can less is noticed", lambda n: notices()),
    ("behind a virtual IOMMU, quiet before the vCPUs stand", lambda n: behind_viommu(n, True)),
    ("must fail: the same, and they only seem to be", lambda n: behind_viommu(n, False)),
    ("must fail: the barrier on the way out is left out", lambda n: breaks(n, one_slow(3), "p2p-grace")),
    ("must fail: the same, with PRE_COPY", lambda n: breaks(n, one_slow(3, pre_copy=range(3)), "p2p-grace")),
    ("must fail: one without P2P states stands with all others", lambda n: breaks(n, slow_to_stop(3), "stop-rest", config=RISK)),
    ("must fail: the barrier on the way in is left out", lambda n: breaks(n, one_slow(3), "arrival-grace")),
]


def run_row(name, run, moves):
    """(name, what is wrong or "", seconds)"""
    begun = time.monotonic()
    try:
        text = run(moves)
    except AssertionError as e:
        text = str(e)[:400]
    return name, text, time.monotonic() - begun


def run_all(moves=3, pattern="", out=sys.stdout):
    begun, bad = time.monotonic(), 0
    rows = [(name, run) for name, run in ROWS if pattern in name]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for name, text, seconds in pool.map(lambda row: run_row(*row, moves), rows):
            bad += bool(text)
            print(f"{'bad' if text else 'ok ':4} {name:56} {seconds:6.2f} s  {text}", file=out, flush=True)
    return {"cases": len(rows), "bad": bad, "moves": moves, "seconds": round(time.monotonic() - begun, 1),
            "holds": bool(rows) and bad == 0}


if __name__ == "__main__":
    summary = run_all(int(sys.argv[1]) if len(sys.argv) > 1 else 3, *sys.argv[2:3])
    print(json.dumps(summary))
    sys.exit(0 if summary["holds"] else 1)
