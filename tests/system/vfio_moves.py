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
import sys
import time

import vfio_guest
from lab import Lab, new_uuid, wait_for
from vfio_guest import KERNEL, Mdev, Side, VfioGuest, on_host

# What is slow here is the machine: a guest in a guest, without hardware for either.
DEADLINES = ("check", "prepare", "viommu-grace", "halt", "p2p-grace", "drain", "intake", "handover", "arrival-grace",
             "run-devices", "run", "release")
CONFIG = {"policy": {"deadline-ms": {p: 8000 for p in DEADLINES}}, "connect-msec": 4000, "doubt-msec": 3000}
STOCK = {"supervised-grace": "off", "supervised-push": "off"}


class World:
    """Two hosts and the VM, which runs on the first, with `devices` supervised devices on each. `config`, `policy`: of both
    daemons, beside CONFIG; `mdevs`: {name of the host: [Mdev, ...]} and `hosts`: [a, b], if they are there already."""

    def __init__(self, lab, devices=2, config=None, policy=None, door=None, properties="", mdevs=None, hosts=None, name="vm"):
        self.lab, self.uuid, self.name = lab, new_uuid(), name
        config = {**CONFIG, **(config or {})}
        config["policy"] = {**config["policy"], **(policy or {})}
        self.hosts = hosts or [lab.host(n, config=config) for n in "ab"]
        self.mdevs = mdevs or {h.name: [Mdev() for _ in range(devices)] for h in self.hosts}
        self.guest = VfioGuest(lab, self.name, self.mdevs, door=door, properties=properties)
        self.here = 0
        self.guest.start(self.source)
        # What it prints is where migmgrd looks for it, as of a QEMU that migmgr starts.
        os.link(self.guest.process.log_path, os.path.join(self.source.runtime, f"vmm-{self.uuid}.log"))
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


class Stock:
    """The same VM and as many devices with nobody between two QEMUs but an operator, who moves it as QEMU's manual says: what
    ours is compared with."""

    def __init__(self, lab, devices=2, door=None, properties=""):
        self.lab, self.sides, self.here, self.n = lab, [Side(lab, name) for name in "ab"], 0, 0
        self.mdevs = {side.name: [Mdev() for _ in range(devices)] for side in self.sides}
        self.guest = VfioGuest(lab, "stock", self.mdevs, door=door, properties=properties)
        self.guest.start(self.source)

    @property
    def source(self):
        return self.sides[self.here]

    @property
    def destination(self):
        return self.sides[1 - self.here]

    end, close, order, states = World.end, World.close, World.order, World.states

    def transfer(self):
        """Until both say that it is completed. Both are told what makes the outage short: the source waits with its last pass
        until the other one has set its devices up, and sends as fast as it can. Returns their monitors."""
        self.n += 1
        self.incoming = self.guest.start_incoming(self.destination)
        wait_for("the destination's monitor", lambda: os.path.exists(self.guest.eye(self.destination)))
        source, destination = monitors = [self.guest.look(self.source), self.guest.look(self.destination)]
        for monitor in monitors:
            say(monitor, "migrate-set-capabilities", capabilities=[
                {"capability": c, "state": True} for c in ("events", "return-path", "switchover-ack")])
        say(source, "migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        uri = f"unix:{self.lab.dir}/memory{self.n}"
        say(destination, "migrate-incoming", uri=uri)
        say(source, "migrate", uri=uri)
        wait_for_status(destination, "completed")
        return monitors

    def move(self):
        """Returns both migration statuses, and the run state at the destination."""
        source, destination = self.transfer()
        say(destination, "cont")
        self.here = 1 - self.here
        self.guest.wait_counts(5, 60)
        wait_for("the source to have migrated", lambda: source.command("query-status")["status"] == "postmigrate", 60)
        said = [m.command("query-migrate")["status"] for m in (source, destination)]
        said.append(destination.command("query-status")["status"])
        source.command("quit")
        source.close()
        destination.close()
        wait_for("its end", lambda: not self.guest.qemus(self.destination), 30)
        return said

    def judge(self):
        lost, repeated, bad = self.guest.verdict()
        assert (lost, repeated) == (0, 0) and not any(bad), (lost, repeated, bad)


def say(monitor, command, **arguments):
    answer = monitor.command(command, **arguments)
    assert answer == {}, (command, answer)


def wait_for_status(monitor, status):
    """By its events, which come at once."""
    monitor.s.settimeout(60)
    seen, events = [], iter(monitor.events)
    while status not in seen:
        event = next(events, None) or json.loads(monitor.f.readline())
        if event.get("event") == "MIGRATION":
            seen.append(event["data"]["status"])
            assert seen[-1] not in ("failed", "cancelled"), seen


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
        stock.order(stock.destination, *order, device=1)
        said = stock.move()
        bad = stock.guest.verdict()[2]
        assert said == ["completed", "completed", "running"] and bad[0] == 0 and bad[1] > 0, (said, bad)
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
        for side in stock.sides:
            stock.order(side, "delay", "*>*", arc_ms * 1000)
        said = stock.move()
        assert said == ["completed", "completed", "running"], said
        outage = stock.guest.outage()[0]
        for side in stock.sides:
            stock.order(side, "rest")
        stock.close()
        return round(outage * 1000)


def outage_of_ours(devices, arc_ms, policy=None):
    with Lab() as lab:
        world = World(lab, devices, policy=policy)
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
        world = World(lab, 1, policy=STOCK | {"supervised-push": "auto"})
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
    report, holds = {"kernel": KERNEL, "qemu": vfio_guest.qemu_version()}, True
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
