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

import json
import random
import sys
import time

from lab import PACE, Lab, wait_for
from moves import World

SPEC = "worker=on,mailbox=on,size=64K"
SLOW_MS = 8     # the slowest arc between running and standing
BROKEN_MS = 25  # the same of the one device that is slow when a barrier is left out
# Between running and standing: (with the P2P states, with PRE_COPY too) -> arcs.
ARCS = {(True, False): ["running>running-p2p", "running-p2p>stop", "stop>running-p2p", "running-p2p>running"],
        (False, False): ["running>stop", "stop>running"],
        (True, True): ["pre-copy>pre-copy-p2p", "pre-copy-p2p>stop-copy"], (False, True): ["pre-copy>stop-copy"]}
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


def holds(moves, specs, options=()):
    """Moves to and fro; nothing is counted."""
    with Lab() as lab:
        world = make(lab, specs, options=options)
        for i in range(moves):
            text = move(world)
            if text:
                lab.failed = True
                return f"move {i + 1}: {text}"
        world.wait_steps(20)
        return ""


def turns_back(moves, specs, arcs):
    """A device fails, at the source or the destination: all go back, and nothing is counted either."""
    with Lab() as lab:
        world = make(lab, specs)
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


def breaks(moves, specs, barrier):
    """Without that barrier something is counted, within so many moves."""
    with Lab() as lab:
        world = make(lab, specs, broken=barrier)
        for _ in range(max(moves, 4)):
            text = move(world)
            if counted(world):
                print(f"     {barrier}: {counted(world)}")
                return ""
            if text:
                return text
        return "nothing was counted"


def one_slow(n, **kw):
    """All are quick but the last, whose arcs from and to running take long."""
    specs = devices(n, slow=0.1, **kw)
    last = f"d{n - 1}"
    specs[last] += "".join(f",delay={arc}:{BROKEN_MS * PACE:.0f}" for arc in ("running>running-p2p", "stop>running-p2p"))
    return specs


BACK = [("source", "running-p2p>stop"), ("destination", "resuming>stop"), ("destination", "stop>running-p2p"),
        ("source", "stop-copy>stop")]
ROWS = [
    ("two devices", lambda n: holds(n, devices(2))),
    ("eight devices", lambda n: holds(n, devices(8, seed=2))),
    ("three devices with PRE_COPY", lambda n: holds(n, devices(3, seed=3, pre_copy=range(3)))),
    ("jobs that turn back", lambda n: turns_back(n, devices(4, seed=7), BACK)),
    ("must fail: the barrier on the way out is left out", lambda n: breaks(n, one_slow(3), "p2p-grace")),
    ("must fail: the same, with PRE_COPY", lambda n: breaks(n, one_slow(3, pre_copy=range(3)), "p2p-grace")),
    ("must fail: the barrier on the way in is left out", lambda n: breaks(n, one_slow(3), "arrival-grace")),
]


def run_all(moves=4, pattern="", out=sys.stdout):
    begun, n, bad = time.monotonic(), 0, 0
    for name, run in ROWS:
        if pattern not in name:
            continue
        start = time.monotonic()
        try:
            text = run(moves)
        except AssertionError as e:
            text = str(e)[:400]
        n += 1
        bad += bool(text)
        print(f"{'bad' if text else 'ok ':4} {name:52} {time.monotonic() - start:6.2f} s  {text}", file=out, flush=True)
    return {"cases": n, "bad": bad, "moves": moves, "seconds": round(time.monotonic() - begun, 1), "holds": n > 0 and bad == 0}


if __name__ == "__main__":
    summary = run_all(int(sys.argv[1]) if len(sys.argv) > 1 else 4, *sys.argv[2:3])
    print(json.dumps(summary))
    sys.exit(0 if summary["holds"] else 1)
