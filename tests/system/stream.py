# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast one device's state goes from server to server, through both agents, beside plain loops over the same way.

  tests/bench/stream [REPEATS]        7 repeats if not told

One device of 1 GiB is moved to and fro; in turn with each move the loops of tests/bench/hops.c send as many bytes through
four processes and three UNIX sockets:

  migmgr   from the first byte that the source's agent asks for until the destination's agent has the last answer
  hops     a checksum by each of the two in the middle, as agents make them; the two at the ends have nothing to do but
           to write and to read
  devices  the same, and the two at the ends do what the emulated device does with a page: at the source it is copied and
           summed, at the destination summed and copied

Prints the table; the last line is one JSON object. It holds if the median of migmgr is at least 0.9 times that of `devices`,
which does the same work.
"""

import json
import statistics
import subprocess
import sys

from lab import Lab, definition, new_uuid, program

GOAL = 0.9
SIZE = 1 << 30


def moved(job):
    """Bytes a second."""
    ends = {s["what"]: s for s in job["timeline"] if s["what"] in ("send", "load")}
    return ends["send"]["bytes"] / (ends["load"]["end_usec"] - ends["send"]["start_usec"]) * 1e6


def looped(*options):
    out = subprocess.run([program("hops"), *options, "1", str(SIZE)], check=True, capture_output=True, text=True).stdout
    return json.loads(out)["bytes_per_second"]


def main(repeats=7):
    rates = {"migmgr": [], "hops": [], "devices": []}
    with Lab() as lab:
        hosts, vm = [lab.host("a"), lab.host("b")], new_uuid()
        for side, host in enumerate(hosts):
            server = lab.server(f"{host.name}d", {"d": f"size={SIZE},seed={side + 1}"})
            host.register(definition("one", vm, server, ["d"]), incoming=side > 0)
        for _ in range(repeats):
            status, job = hosts[0].migrate("one", hosts[1])
            assert status == 0 and job["result"] == "done", job
            hosts.reverse()
            rates["migmgr"].append(moved(job))
            rates["hops"].append(looped())
            rates["devices"].append(looped("--devices"))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:8} {medians[name] / 1e9:6.3f} GB/s   {min(values) / 1e9:.3f} to {max(values) / 1e9:.3f}")
    ratio = medians["migmgr"] / medians["devices"]
    print(f"migmgr / devices {ratio:.3f}, goal {GOAL}; migmgr / hops {medians['migmgr'] / medians['hops']:.3f}", flush=True)
    holds = ratio >= GOAL
    print(json.dumps({"repeats": repeats, "bytes": SIZE, **{f"{n}_gbs": round(m / 1e9, 3) for n, m in medians.items()},
                      "over_devices": round(ratio, 3), "over_hops": round(medians["migmgr"] / medians["hops"], 3),
                      "goal": GOAL, "holds": holds}), flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(*(int(a) for a in sys.argv[1:2])))
