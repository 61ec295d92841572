# SPDX-License-Identifier: LGPL-2.1-or-later
"""A daemon is killed in each state of a job's blackout and started again at once, as its service is: how long it takes, from
the new daemon's exec, until the job is settled: over at both ends, with the set of devices running on one side.

Both ends answer, so nothing is waited for but work. That is in it: what is left of the way there or back, with arcs of ARC_MS
each. A row holds when it is settled within SETTLED_MSEC (times MIGMGR_PACE), and well (kills.py judges).

  tests/bench/restarts [-j N] [PATTERN]   prints the table; the last line is one JSON object"""

import concurrent.futures
import json
import re
import sys
import threading
import time

import kills
from bus import Bus, BusError
from keeper import KeptHost
from lab import PACE, Lab, wait_for

SETTLED_MSEC = 1000

FORWARD = ["source-halt", "source-p2p-grace", "source-stop-rest", "source-drain", "source-intake", "source-nobody", "source-go",
           "destination-take-in", "destination-loaded", "destination-intake", "destination-ready", "destination-owner",
           "destination-arrive", "destination-run-devices", "destination-run"]
REFUSED = ["source-abort", "source-look", "source-back-p2p", "source-back-run", "source-resume"]
PROMISED = ["destination-look", "destination-promise", "destination-promised", "source-back-run"]
# It is away for so long that whoever is left has got used to it.
LONG = ["source-drain", "source-go", "destination-arrive"]
LONG_SEC = 4


def cases():
    """As kills.cases()."""
    for victim in ("source-daemon", "destination-daemon"):
        for state in FORWARD:
            yield f"{victim} in {state}", victim, state, None
        for state in REFUSED:
            yield f"{victim} in {state} (refused)", victim, state, "resuming>stop:fail:EINVAL"
        for state in PROMISED:
            yield f"{victim} in {state} (promised)", victim, state, "stop>running-p2p:fail:EIO@1"
        for state in LONG:
            yield f"{victim} in {state}, for long", victim, state, None


class Restart(kills.Case):
    def make_host(self, name):
        return KeptHost(self.lab, name, restart_sec=LONG_SEC if "for long" in self.name else 0.0, config=kills.CONFIG).start()

    def look(self, host):
        """(presence of the VM, whether a job has it or had not ended), or None while nobody answers."""
        try:
            with Bus(host.bus_address) as bus:
                objects = bus.call("org.migmgr1", "/org/migmgr1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")[0]
        except (OSError, BusError):
            return None
        vm = next(i["org.migmgr1.VM"] for i in objects.values() if "org.migmgr1.VM" in i)
        jobs = [i["org.migmgr1.Job"] for i in objects.values() if "org.migmgr1.Job" in i]
        return vm["Presence"], vm["Job"] != "/" or any(job["State"] != "finished" for job in jobs)

    def is_settled(self):
        seen = [self.look(host) for host in (self.a, self.b)]
        if sorted(seen, key=str) != [("away", False), ("here", False)]:
            return False
        owner = ("a", "b")[seen.index(("here", False))]
        return {self.device_state(owner, d) for d in ("d0", "d1")} == {"running"}

    def run(self):
        before = {d: self.memory("a", d) for d in ("d0", "d1")}
        self.find_agents()
        host, victim = (self.a if name.startswith("source") else self.b for name in (self.state, self.victim))
        starts = len(victim.daemon.starts)
        watcher = kills.Watcher(host, self.state, self.strike)
        client = self.a.migctl_start("--json=short", "migrate", "set", self.relay.dest)
        try:
            if not self.hit.wait(10 * PACE):
                return "not reached"
            wait_for("the next daemon", lambda: len(victim.daemon.starts) > starts)
            wait_for("the job to be settled", self.is_settled, 25)
            self.took = time.monotonic() - victim.started
        finally:
            watcher.stop()
            client.kill()
            client.communicate()
        if self.took * 1000 > SETTLED_MSEC * PACE:
            return f"not settled within {SETTLED_MSEC} ms"
        return self.judge(before)


def run_all(pattern="", workers=1, out=sys.stdout):
    selected = [c for c in cases() if re.search(pattern, c[0])]
    bad, times, lock = [], [], threading.Lock()

    def one(case_args):
        with Lab() as lab:
            case = None
            try:
                case = Restart(lab, *case_args)
                verdict = case.run()
            except Exception as e:
                verdict = f"{type(e).__name__}: {e}"
            took = getattr(case, "took", None)
            with lock:
                print(f"{'BAD ' if verdict else 'ok  '} {case_args[0]:56} {getattr(case, 'outcome', '-'):10} "
                      f"{'-' if took is None else round(took * 1000):>6} ms{'  ' + verdict if verdict else ''}", file=out, flush=True)
                times.extend([took] if took is not None else [])
                if verdict:
                    bad.append(case_args[0])
            if case:
                case.close()

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, selected))
    print(json.dumps({"cases": len(selected), "bad": len(bad), "settled_most_msec": round(max(times, default=0) * 1000),
                      "holds": not bad}), file=out, flush=True)
    return not bad


if __name__ == "__main__":
    args = sys.argv[1:]
    jobs = 1
    if args[:1] == ["-j"]:
        jobs, args = int(args[1]), args[2:]
    sys.exit(0 if run_all(args[0] if args else "", jobs) else 1)
