# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a check takes: of 64 devices, judged from text to text by the readers and rules that both daemons have; and whole,
as a caller of Check sees it, beside the same of a VM without devices: what is left is what the devices cost. The first in CPU
time. The last line is one JSON
object. 5 ms are allowed for what is judged here, and 5 ms over one round trip with the other daemon; by the least of many
times, for whatever else a machine does only adds to it. The median of the whole is there, too.

    check_bench.py [DEVICES]
"""

import json
import resource
import statistics
import subprocess
import sys
import time

from bus import Bus
from check_oracle import P2P, SIDES, Maker
from lab import Lab, definition, new_uuid, program

TIMES = 200
LIMIT_MS = 5


def judge_ms(n):
    """Of one pair: the program is started once for one, and once for many."""
    maker = Maker(1)
    pair = {side: maker.host("none", side) for side in SIDES}
    for i in range(n):
        device = {**maker.device(i, "none"), "facts": {f"fact-{k}": "x" * 20 for k in range(8)}}
        device["flags"] |= P2P
        for side in SIDES:
            pair[side]["devices"].append(device)
    line = json.dumps({**pair, "policies": {side: [] for side in SIDES}}) + "\n"

    def cpu():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def took(times):
        start = cpu()
        out = subprocess.run([program("check-pairs")], input=line * times, text=True, stdout=subprocess.PIPE, check=True).stdout
        assert out.splitlines() == ["[]"] * times, out[:200]
        return cpu() - start
    return min((took(TIMES + 1) - took(1)) / TIMES * 1e3 for _ in range(5))


def check_ms(bus, vm, dest):
    took = []
    for _ in range(TIMES):
        start = time.perf_counter()
        ok, report = bus.call("org.migmgr1", "/org/migmgr1", "org.migmgr1.Manager", "Check", "ssa{sv}", vm, dest, {})
        took.append((time.perf_counter() - start) * 1e3)
        assert ok, report
    return min(took), statistics.median(took), report


def main(n=64):
    figures = {"devices": n, "judge_ms": round(judge_ms(n), 2)}
    with Lab() as lab:
        a, b = (lab.host(name) for name in "ab")
        for vm, devices in (("none", []), ("many", [f"d{i}" for i in range(n)])):
            uuid = new_uuid()
            for host in (a, b):
                server = lab.server(f"{vm}-{host.name}", {d: "size=64K" for d in devices}) if devices else None
                host.register(definition(vm, uuid, server, devices), incoming=host is b)
        with Bus(a.bus_address) as bus:
            for vm in ("none", "many"):
                figures[vm + "_ms"], figures[vm + "_median_ms"], report = check_ms(bus, vm, b.dest)
    figures["report_bytes"] = len(report)
    figures["over_ms"] = round(figures["many_ms"] - figures["none_ms"], 2)
    figures = {k: round(v, 2) if isinstance(v, float) else v for k, v in figures.items()}
    figures["holds"] = figures["judge_ms"] < LIMIT_MS and figures["over_ms"] < LIMIT_MS
    print(json.dumps(figures))
    return 0 if figures["holds"] else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
