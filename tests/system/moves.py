# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VM that works its devices as hard as it can, moved to and fro by real daemons: migmgr-test-vmm, whose guest finds
whatever is lost, doubled, stale or torn at the very step, behind brokers in front of worker devices.

  tests/bench/moves [MOVES [DEVICES]]             1,000 moves of 8 devices if not told, over UNIX sockets and over TCP

Prints a line for each hundred moves; the last line is one JSON object. It holds if every move was done, the guest's chain
never broke, and in the second half of them no process came to have more open files or grew by more than 512 KiB: the
first half fills what is kept on purpose, the jobs of which `migctl jobs` tells and the pages of the database."""

import json
import os
import sys
import time

from lab import Lab, TestVmm, new_uuid, wait_for

SPEC = "worker=on,pre-copy=on,size=1M"
GROWTH_KIB = 512


class End:
    """All that one host has of the VM."""

    def __init__(self, world, host, incoming):
        self.host = host
        self.server = world.make_server(f"{host.name}-{world.name}", world.devices)
        self.brokers = {d: os.path.join(host.dir, d + ".broker") for d in world.devices}
        host.register(world.definition(self), incoming=incoming)
        self.vmm = TestVmm(world.lab, host, host.name, world.uuid, self.brokers, *(["--incoming"] if incoming else []),
                           *world.options, memory=world.memory)

    def processes(self):
        """{name: pid} of what must not grow."""
        agents = {f"agent {i}": pid for i, pid in enumerate(self.host.agents())}
        return {"migmgrd": self.host.daemon.pid, "helper": self.host.helper.pid, "VMM": self.vmm.process.pid,
                "devices": self.server.process.pid, **agents}


class World:
    """Two hosts and the VM, which runs on the first. `devices`: {id: "key=value,..."}."""

    def __init__(self, lab, hosts, devices, memory=16, options=(), name="worker", make_server=None):
        self.make_server = make_server or lab.server
        self.lab, self.devices, self.memory, self.options = lab, devices, memory, options
        self.uuid, self.name = new_uuid(), name
        self.ends = [End(self, host, incoming=host is hosts[1]) for host in hosts]
        self.here = 0

    def close(self):
        for end in self.ends:
            end.vmm.close()
            end.host.migctl("unregister", self.name)
            end.server.stop()

    def definition(self, end):
        return {"name": self.name, "uuid": self.uuid,
                "vmm": {"type": "delegate", "bus-name": f"org.example.vmm.{end.host.name}", "object-path": "/vm"},
                "devices": [{"id": d, "type": "vfio-user", "socket": end.server.socket(d), "broker": end.brokers[d]}
                            for d in self.devices]}

    @property
    def source(self):
        return self.ends[self.here]

    @property
    def destination(self):
        return self.ends[1 - self.here]

    def move(self, *args):
        """Returns (exit status, the job) and follows the VM."""
        status, job = self.source.host.migrate(self.name, self.destination.host, *args)
        if job.get("result") in ("done", "degraded"):
            self.here = 1 - self.here
        return status, job

    def state(self):
        return self.source.vmm.status()

    def broken(self):
        return self.state()["broken"]

    def wait_steps(self, more, seconds=20):
        """The guest must go on where it should be, unbroken, and nothing runs at the other end."""
        first = self.state()["steps"]
        wait_for(f"{more} steps of the guest", lambda: self.broken() or self.state()["steps"] >= first + more, seconds)
        assert not self.broken(), self.broken()
        assert self.destination.vmm.status()["state"] == "none", self.destination.vmm.status()


def make_world(lab, devices, spec=SPEC, config=None, options=()):
    return World(lab, [lab.host(name, config=config) for name in "ab"], {f"d{i}": spec for i in range(devices)},
                 options=options)


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def own_kib(pid):
    """What is in memory of a process but the guest's memory: device servers and VMMs have that mapped, and whichever pages of it
    they have touched, by chance and from move to move other ones, is nothing that grows."""
    kib, counts = 0, True
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            key = line.split(None, 1)[0]
            if not key.endswith(":"):
                counts = "/memfd:guest-ram" not in line
            elif key == "Rss:" and counts:
                kib += int(line.split()[1])
    return kib


def measure(world):
    """(files, KiB) by host and process. Agents of the host where the VM is not are gone."""
    return {f"{end.host.name} {name}": (open_files(pid), own_kib(pid))
            for end in world.ends for name, pid in end.processes().items()}


def grown(first, last):
    bad = []
    for name in first.keys() & last.keys():
        (files, kib), (files_now, kib_now) = first[name], last[name]
        if files_now > files:
            bad.append(f"{name}: {files} open files, then {files_now}")
        if kib_now > kib + GROWTH_KIB:
            bad.append(f"{name}: {kib} KiB, then {kib_now}")
    return bad


def run(transport, moves, devices):
    with Lab(transport=transport) as lab:
        world = make_world(lab, devices)
        world.wait_steps(100)
        begun, first, blackouts, problems = time.monotonic(), None, [], []
        for i in range(1, moves + 1):
            status, job = world.move()
            if status != 0 or job.get("result") != "done" or world.broken():
                problems.append(f"move {i}: {job.get('result')} {job.get('error')} {world.broken()}")
                break
            blackouts.append(job["device_blackout_usec"])
            if i % 100 == 0 or i == moves:
                last = measure(world)
                if i <= max(moves // 2, 100):
                    first = last
                print(f"{transport} {i:5} moves  {time.monotonic() - begun:6.1f} s  {world.state()['steps']} steps  "
                      f"migmgrd {last['a migmgrd'][1]} and {last['b migmgrd'][1]} KiB", flush=True)
        if not problems:
            world.wait_steps(100)
            problems += grown(first, last)
        state = world.ends[world.here].vmm.status()
        lab.failed |= bool(problems)
        blackouts.sort()
        return {"transport": transport, "moves": len(blackouts), "devices": devices, "steps": state["steps"],
                "seconds": round(time.monotonic() - begun, 1), "broken": state["broken"], "problems": problems,
                "blackout_usec": {"median": blackouts[len(blackouts) // 2], "max": blackouts[-1]} if blackouts else {}}


def main():
    moves = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    devices = int(sys.argv[2]) if len(sys.argv) > 2 else 8
    results = [run(transport, moves, devices) for transport in ("unix", "tcp")]
    holds = all(r["moves"] == moves and not r["problems"] for r in results)
    print(json.dumps({"runs": results, "holds": holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
