# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stock QEMU with real VFIO devices, moved by real daemons; in the guest of tests/system/vfio-guest. Two hosts in one guest,
each with devices of its own and a migmgrd; what the VM's guest prints tells whether it and its devices are as they were.

    world = make_world(lab, 2); world.move()[1]["result"]; world.judge()

  tests/system/vfio_moves.py [moves [MOVES DEVICES] | hole | faster [DEVICES MSEC]]    all, or one; the last line is JSON
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import vfio_guest
from lab import Lab, Process, new_uuid, wait_for
from vfio_guest import FOLDER, KERNEL, Mdev, Side, VfioGuest

# What is slow here is the machine: a guest in a guest, without hardware for either.
DEADLINES = ("check", "prepare", "viommu-grace", "halt", "p2p-grace", "drain", "intake", "handover", "arrival-grace",
             "run-devices", "run", "release")
CONFIG = {"deadlines-msec": {p: 8000 for p in DEADLINES}, "connect-msec": 4000, "doubt-msec": 3000}
STOCK = {"supervised-grace": "off", "supervised-push": "off"}


class World:
    """Two hosts and the VM, which runs on the first, with `devices` supervised devices on each. `config`: of both daemons,
    beside CONFIG; `mdevs`: {name of the host: [Mdev, ...]} and `hosts`: [a, b], if they are there already."""

    def __init__(self, lab, devices=2, config=None, door=None, properties="", mdevs=None, hosts=None, name="vm"):
        self.lab, self.uuid, self.name = lab, new_uuid(), name
        self.hosts = hosts or [lab.host(n, config={**CONFIG, **(config or {})}) for n in "ab"]
        self.mdevs = mdevs or {h.name: [Mdev() for _ in range(devices)] for h in self.hosts}
        self.guest = VfioGuest(lab, self.name, self.mdevs, door=door, properties=properties)
        self.here = 0
        self.guest.start(self.source)
        self.source.register(self.definition(self.source))
        self.destination.register(self.definition(self.destination), incoming=True)

    def end(self):
        """Ends the VM."""
        for pid in self.guest.qemus():
            os.kill(pid, signal.SIGKILL)
        wait_for("the end of the VM", lambda: not self.guest.qemus(), 10)

    def close(self):
        """Ends the VM and takes its devices away."""
        self.end()
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


def on_host(script, *args, memory=1024, seconds=600):
    """Runs a script of this folder in the guest; returns its exit status."""
    kernel = os.environ.get("MIGMGR_GUEST_KERNEL", "debian")
    subprocess.run([os.path.join(FOLDER, "prepare"), *(["--iommufd"] if kernel == "iommufd" else [])], check=True)
    return subprocess.run([os.path.join(FOLDER, "run"), "-k", kernel, "-m", str(memory), "-t", str(seconds), "--", "python3",
                           os.path.abspath(script), *args]).returncode


class Stock:
    """The same VM and as many devices, moved by QEMU alone as anybody would: nobody looks at the devices, and the destination
    starts by itself."""

    def __init__(self, lab, devices=2, door=None, properties=""):
        self.lab, self.ends, self.name = lab, [Side(lab, name) for name in "ab"], "stock"
        self.mdevs = {end.name: [Mdev() for _ in range(devices)] for end in self.ends}
        self.guest = VfioGuest(lab, self.name, self.mdevs, door=door, properties=properties)
        self.guest.start(self.ends[0])

    def order(self, end, *words, device=None):
        for i, mdev in enumerate(self.mdevs[end.name]):
            if device in (None, i):
                mdev.order(*words)

    def move(self):
        """Both migration statuses, and the run state at the destination when it has one."""
        source, destination = self.ends
        path = os.path.join(self.lab.dir, "stock-migration")
        argv = self.guest.argv_at(destination) + ["-incoming", "defer"]
        Process(self.lab, "stock-incoming", argv)
        with self.guest.look(source) as here, self.guest.look(destination) as there:
            there.command("migrate-incoming", uri="unix:" + path)
            here.command("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
            here.command("migrate", uri="unix:" + path)
            over = ("completed", "failed")
            wait_for("the end of a stock migration", lambda: here.command("query-migrate").get("status") in over, 30)
            wait_for("its other end", lambda: there.command("query-status")["status"] in ("running", "paused"), 30)
            said = [m.command("query-migrate")["status"] for m in (here, there)] + [there.command("query-status")["status"]]
            here.command("quit")
        self.ends.reverse()
        self.guest.wait_counts(5)
        return said

    close = World.close


def there_and_back(moves, devices):
    """Claim 1: done, no count lost, each device as its guest has left it."""
    with Lab() as lab:
        world, blackouts = make_world(lab, devices), []
        for i in range(moves):
            status, job = world.move()
            assert (status, job.get("result")) == (0, "done"), (i, status, job.get("error"), job)
            world.judge()
            blackouts.append(round(job["blackout_usec"] / 1000))
        outages = [round(s * 1000) for s in world.guest.outage()]
        world.close()
        return {"moves": moves, "devices": devices, "blackout_msec": blackouts, "outage_msec": outages}


def hole():
    """Claim 2: the driver refuses the state at the destination. QEMU alone says that all is well, and its guest runs on with a
    device that was reset; with us it goes on where it was."""
    order = ("refuse", "RESUMING>STOP", errno.EINVAL, -1)
    vfio_guest.load()
    with Lab() as lab:
        stock = Stock(lab)
        stock.order(stock.ends[1], *order, device=1)
        said = stock.move()
        bad = stock.guest.verdict()[2]
        assert said == ["completed", "completed", "running"] and bad[0] == 0 and bad[1] > 0, (said, bad)
        stock.order(stock.ends[0], "rest")
        stock.close()
    with Lab() as lab:
        world = World(lab)
        world.order(world.destination, *order, device=1)
        status, job = world.move()
        assert (status, job["result"]) == (1, "failed") and "d1" in job["error"]["text"], (status, job["error"])
        world.order(world.destination, "rest")
        world.judge()
        assert not world.guest.outage(), "it has run at the destination"
        assert world.move()[1]["result"] == "done"  # and nothing is left of it
        world.judge()
        world.close()
    return {"stock": said, "lines_with_a_foreign_device": bad, "with_us": job["error"]["text"]}


def outage_of_stock(devices, arc_ms):
    with Lab() as lab:
        stock = Stock(lab, devices)
        for end in stock.ends:
            stock.order(end, "delay", "*>*", arc_ms * 1000)
        said = stock.move()
        assert said == ["completed", "completed", "running"], said
        outage = stock.guest.outage()[0]
        for end in stock.ends:
            stock.order(end, "rest")
        stock.close()
        return round(outage * 1000)


def outage_of_ours(devices, arc_ms, config=None):
    with Lab() as lab:
        world = World(lab, devices, config=config)
        for host in world.hosts:
            world.order(host, "delay", "*>*", arc_ms * 1000)
        job = world.move()[1]
        assert job["result"] == "done", job["error"]
        for host in world.hosts:
            world.order(host, "rest")
        world.judge()
        outage = world.guest.outage()[0]
        world.close()
        return round(outage * 1000)


def faster(devices=2, arc_ms=150):
    """Claim 3, one row of it: outages in ms, of QEMU alone, with the gate alone, and with all that is safe on this kernel."""
    vfio_guest.load()
    took = {"stock": outage_of_stock(devices, arc_ms), "gate": outage_of_ours(devices, arc_ms, STOCK),
            "ours": outage_of_ours(devices, arc_ms)}
    assert took["ours"] < took["stock"], took
    return {"devices": devices, "arc_msec": arc_ms, "outage_msec": took}


def slow_first_arc(arc_ms=1500):
    """QEMU says that a device is in P2P when it is: the vCPUs have stood since before. The blackout has that in it."""
    vfio_guest.load()
    with Lab() as lab:
        world = World(lab, 1, config=STOCK | {"supervised-push": "auto"})
        world.order(world.source, "delay", "PRE_COPY>PRE_COPY_P2P", arc_ms * 1000)
        job = world.move()[1]
        assert job["result"] == "done" and job["blackout_usec"] >= arc_ms * 1000, (job["error"], job["blackout_usec"])
        world.order(world.destination, "rest")
        world.judge()
        world.close()
        return {"arc_msec": arc_ms, "blackout_msec": round(job["blackout_usec"] / 1000)}


PARTS = {"moves": there_and_back, "blackout": slow_first_arc, "hole": hole, "faster": faster}


def main(part="", *numbers):
    """All parts, or one of them with its numbers."""
    report, holds = {"kernel": KERNEL}, True
    for name, run in PARTS.items():
        if part in ("", name):
            args = list(map(int, numbers)) or ([4, 2] if name == "moves" else [])
            begun = time.monotonic()
            try:
                report[name] = run(*args)
            except AssertionError as e:
                report[name], holds = f"{e}", False
            print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)
    print(json.dumps({**report, "holds": holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if KERNEL else on_host(__file__, *sys.argv[1:]))
