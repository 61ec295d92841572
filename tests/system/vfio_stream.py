# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast one kernel device's state goes from device to device, through both agents, beside a plain loop on the same devices.

  tests/bench/vfio-stream [REPEATS]        5 repeats if not told

In the guest with real VFIO devices: one mtty of 1 GiB is moved to and fro; in turn with each move a loop of read() and write(),
of 1 MiB each, takes as much from one data file to the other, in one process and with nothing between.

Prints the table; the last line is one JSON object. It holds if the median of migmgr is at least 0.8 times that of the loop.
"""

import json
import os
import statistics
import sys
import time

import vfio_guest
from lab import Lab, new_uuid, wait_for
from vfio_guest import KERNEL, Mdev
from vfio_uapi import RESUMING, RUNNING, STOP, STOP_COPY

GOAL = 0.8
SIZE = 1 << 30
PIECE = 1 << 20


def moved(job):
    """Bytes a second, all of them sent while the device stands."""
    ends = {s["what"]: s for s in job["timeline"] if s["what"] in ("send", "load")}
    return ends["send"]["bytes"] / (ends["load"]["end_usec"] - ends["send"]["start_usec"]) * 1e6


def looped(source, destination):
    door = "cdev" if source.cdev else "group"
    with source.open(door) as a, destination.open(door) as b:
        from_fd, to_fd = a.go(STOP, STOP_COPY), b.go(STOP, RESUMING)
        buffer, done, start = memoryview(bytearray(PIECE)), 0, time.monotonic()
        while n := os.readv(from_fd, [buffer]):
            written = 0
            while written < n:
                written += os.write(to_fd, buffer[written:n])
            done += n
        rate = done / (time.monotonic() - start)
        os.close(from_fd)
        os.close(to_fd)
        a.go(STOP, RUNNING)
        b.go(STOP, RUNNING)
    return rate


def main(repeats=5):
    vfio_guest.load()
    mdevs = [Mdev(), Mdev()]
    for mdev in mdevs:
        mdev.order("size", SIZE)
    rates, vm = {"migmgr": [], "loop": []}, new_uuid()
    with Lab() as lab:
        hosts = [lab.host(name, config={"policy": {"precopy": "off"}}) for name in "ab"]
        for n in range(repeats):
            for i, (host, mdev) in enumerate(zip(hosts, mdevs)):
                host.register({"name": "one", "uuid": vm, "vmm": {"type": "none"},
                               "devices": [{"id": "d", "type": "vfio", "sysfs": mdev.path}]}, incoming=i > 0)
            status, job = hosts[0].migrate("one", hosts[1])
            assert status == 0 and job["result"] == "done", job
            for host in hosts:
                host.migctl("unregister", "one")
            for mdev in mdevs:
                wait_for("the device to be let go", lambda m=mdev: can_open(m), 15)
            hosts.reverse()
            mdevs.reverse()
            rates["migmgr"].append(moved(job))
            rates["loop"].append(looped(*mdevs))
    return judge(rates, repeats)


def can_open(mdev):
    try:
        mdev.open("cdev" if mdev.cdev else "group").close()
        return True
    except OSError:
        return False


def judge(rates, repeats):
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:8} {medians[name] / 1e9:6.3f} GB/s   {min(values) / 1e9:.3f} to {max(values) / 1e9:.3f}")
    ratio = medians["migmgr"] / medians["loop"]
    print(f"migmgr / loop {ratio:.3f}, goal {GOAL}", flush=True)
    holds = ratio >= GOAL
    print(json.dumps({"kernel": KERNEL, "repeats": repeats, "bytes": SIZE,
                      **{f"{n}_gbs": round(m / 1e9, 3) for n, m in medians.items()},
                      "over_loop": round(ratio, 3), "goal": GOAL, "holds": holds}), flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    if KERNEL:
        sys.exit(main(*(int(a) for a in sys.argv[1:2])))
    vfio_guest.main(memory=1536, seconds=600)
