# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stock QEMU with real VFIO devices, moved by real daemons; in the guest of tests/system/vfio-guest. Two hosts in one guest,
each with devices of its own and a migmgrd; what the VM's guest prints tells whether it and its devices are as they were.

    world = make_world(lab, 2); world.move()[1]["result"]; world.judge()

  tests/system/vfio_moves.py [MOVES [DEVICES]]        there and back; the last line is one JSON object
"""

import json
import os
import signal
import sys
import time

import vfio_guest
from lab import Lab, new_uuid, wait_for
from vfio_guest import KERNEL, Mdev, VfioGuest, on_host

# What is slow here is the machine: a guest in a guest, without hardware for either.
DEADLINES = ("check", "prepare", "viommu-grace", "halt", "p2p-grace", "drain", "intake", "handover", "arrival-grace",
             "run-devices", "run", "release")
CONFIG = {"deadlines-msec": {p: 8000 for p in DEADLINES}, "connect-msec": 4000, "doubt-msec": 3000}
STOCK = {"supervised-grace": "off", "supervised-push": "off"}


class World:
    """Two hosts and the VM, which runs on the first, with `devices` supervised devices on each. `config`: of both daemons,
    beside CONFIG; `mdevs`: {name of the host: [Mdev, ...]}, if they are there already."""

    def __init__(self, lab, devices=2, config=None, door=None, properties="", mdevs=None):
        self.lab, self.uuid, self.name = lab, new_uuid(), "vm"
        self.hosts = [lab.host(name, config={**CONFIG, **(config or {})}) for name in "ab"]
        self.mdevs = mdevs or {h.name: [Mdev() for _ in range(devices)] for h in self.hosts}
        self.guest = VfioGuest(lab, self.name, self.mdevs, door=door, properties=properties)
        self.here = 0
        self.guest.start(self.source)
        self.source.register(self.definition(self.source))
        self.destination.register(self.definition(self.destination), incoming=True)

    def close(self):
        """Ends the VM and takes its devices away."""
        for pid in self.guest.qemus():
            os.kill(pid, signal.SIGKILL)
        wait_for("the end of the VM", lambda: not self.guest.qemus(), 10)
        for mdev in sum(self.mdevs.values(), []):
            mdev.remove()

    def definition(self, host):
        return {"name": self.name, "uuid": self.uuid, "vmm": self.guest.vmm(host), "devices": [
            {"id": f"d{i}", "type": "vfio", "vmm-device": f"v{i}"} for i in range(len(self.mdevs[host.name]))]}

    @property
    def source(self):
        return self.hosts[self.here]

    @property
    def destination(self):
        return self.hosts[1 - self.here]

    def order(self, host, *words, device=None):
        """Of vfio-guest/mtty-control.h, to one of a host's devices or to all."""
        for i, mdev in enumerate(self.mdevs[host.name]):
            if device in (None, i):
                mdev.order(*words)

    def states(self, host):
        """Of its devices, by the driver's word."""
        return [mdev.status()["state"] for mdev in self.mdevs[host.name]]

    def move(self, *args):
        """Returns (exit status, the job) and follows the VM."""
        status, job = self.source.migrate(self.name, self.destination, *args)
        if job.get("result") in ("done", "degraded") and job.get("half") == "source" and \
                self.destination.vm(self.name)["presence"] == "here":
            self.here = 1 - self.here
        return status, job

    def judge(self, lost=()):
        """The VM goes on here and nowhere else, no count lost or repeated, each device as its guest has left it; nothing
        holds a device that nobody uses. `lost`: indexes of devices that may have been reset."""
        self.guest.wait_counts(5)
        lines = self.guest.lines()
        assert lines[-1].place == self.source.name, lines[-3:]
        counts_lost, repeated, bad = self.guest.verdict()
        assert (counts_lost, repeated) == (0, 0), f"counts lost and repeated: {counts_lost, repeated}"
        assert not any(n for i, n in enumerate(bad) if i not in lost), f"lines in which a device is not as it was: {bad}"
        wait_for("one QEMU", lambda: len(self.guest.qemus()) == 1 and self.guest.qemus(self.source), 10)
        n = len(self.mdevs[self.source.name])
        wait_for("its devices to run", lambda: self.states(self.source) == ["RUNNING"] * n, 5)
        wait_for("the agents to end", lambda: not any(h.agents() for h in self.hosts), 10)


def make_world(lab, devices=2, **kw):
    vfio_guest.load()
    return World(lab, devices, **kw)


def main(moves=4, devices=2):
    begun, problems, done = time.monotonic(), [], []
    with Lab() as lab:
        world = make_world(lab, devices)
        for i in range(moves):
            status, job = world.move()
            if status != 0 or job.get("result") != "done":
                problems.append(f"move {i + 1}: {status} {job.get('result')} {job.get('error')}")
                lab.failed = True
                break
            world.judge()
            done.append(job["blackout_usec"])
        outages = [round(s * 1000) for s in world.guest.outage()]
    print(json.dumps({"kernel": KERNEL, "qemu": vfio_guest.qemu_version(), "moves": len(done), "devices": devices, "problems": problems,
                      "blackout_msec": [round(u / 1000) for u in done], "outage_msec": outages,
                      "seconds": round(time.monotonic() - begun, 1), "holds": not problems}))
    return 0 if not problems else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) if KERNEL else on_host(__file__, *sys.argv[1:]))
