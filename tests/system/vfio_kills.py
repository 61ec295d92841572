# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill -9 of every process, and what else can befall it, while a VM with devices of a stock QEMU moves. In the guest of
tests/system/vfio-guest; on the host it boots that and runs itself there.

The arcs of the devices are slow, so that a state lasts; the moment is the signal that announces it. Whoever was killed and is
no QEMU is started again. Then: the guest counts on one side, no count lost or repeated, its devices RUNNING and as it left
them, or `degraded`; or the VM is lost with its QEMU, said so; or in doubt, and nothing counts. In every end nobody holds a
device, an agent or a QEMU that is not needed any more, and every device can be opened again and removed. `held`: the job had
no end before what stood could go on. "(held": "supervised-last-arc" is "back"; nobody holds a thread for longer than the job.

  tests/bench/vfio [PATTERN]      prints the table; PATTERN: a part of a row's name
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import vfio_guest
from kills import EXIT, UNREACHABLE, Watcher
from lab import PACE, Host, find_processes, is_alive, wait_for
from vfio_faults import FAULTS_CONFIG, FLAGS, HELD_CONFIG, Stage, has_ended, is_of
from vfio_guest import KERNEL
from vfio_moves import on_host

ARC_USEC = 400000
STOPPED_SECONDS = 8 * PACE
FULL = FLAGS["p2p,pre-copy"]

VICTIMS = ["QEMU", "agent", "daemon", "helper"]
FORWARD = ["source-prepare", "source-precopy", "source-halt", "source-p2p-grace", "source-drain", "source-intake", "source-nobody",
           "source-go", "source-release", "destination-adopt", "destination-take-in", "destination-intake", "destination-ready",
           "destination-owner", "destination-vmm-arrive", "destination-push", "destination-run", "destination-done"]
BACK = ["source-abort", "source-resume", "source-settle", "source-end", "destination-discard", "destination-discarded"]
STOPPED = ["source-precopy", "source-p2p-grace", "source-drain", "source-go", "destination-take-in", "destination-intake",
           "destination-vmm-arrive"]
HELD = ["destination-arrive", "destination-vmm-arrive", "destination-push", "destination-gate"]
HELD_REFUSED = ["destination-push", "destination-undo"]
INTAKE, LAST_ARC = "RESUMING>STOP", "RUNNING_P2P>RUNNING"
FILLED = ["-", "source-precopy", "source-drain", "source-intake", "destination-intake"]


def rows():
    """(name, what, side of it, state, the arc that the destination refuses or None)"""
    for side in ("source", "destination"):
        for what in VICTIMS:
            for state in FORWARD:
                yield f"kill {side}'s {what} in {state}", "kill " + what, side, state, None
            for state in BACK:
                yield f"kill {side}'s {what} in {state} (refused)", "kill " + what, side, state, INTAKE
        for state in STOPPED:
            yield f"stop {side}'s QEMU in {state}", "stop", side, state, None
        for state in FILLED:
            yield f"{side}'s disk full in {state}", "fill", side, state, None
        for state in ("source-precopy", "destination-intake"):
            yield f"{side}'s mdev removed in {state}", "remove", side, state, None
        yield f"{side}'s helper may not duplicate", "forbid", side, "-", None
    for what in VICTIMS + ["holder"]:
        for state in HELD:
            yield f"kill destination's {what} in {state} (held)", "kill " + what, "destination", state, None
        for state in HELD_REFUSED:
            yield f"kill destination's {what} in {state} (held, refused)", "kill " + what, "destination", state, LAST_ARC


def holders():
    """Of threads: of a migration, or of vCPUs."""
    return find_processes(lambda argv, pid: name_of(pid) == "migmgr-holder")


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip()
    except OSError:
        return ""


class KillStage(Stage):
    """With a small disk below each daemon's state."""

    def make_host(self, name, config):
        host = Host(self.lab, name, config=config)
        self.lab.hosts.append(host)
        os.makedirs(host.state, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", host.state], check=True)
        return host.start()

    def close(self, politely=True):
        try:
            super().close(politely)
        finally:
            for host in self.hosts:
                subprocess.run(["umount", "-l", host.state])
            shutil.rmtree(self.lab.dir, ignore_errors=True)

    def fill(self, host):
        with open(os.path.join(host.state, "ballast"), "wb", buffering=0) as f:
            try:
                while f.write(bytes(4096)) == 4096:
                    pass
            except OSError:
                pass

    def empty(self, host):
        try:
            os.unlink(os.path.join(host.state, "ballast"))
        except FileNotFoundError:
            pass


class Row:
    def __init__(self, stage, name, what, side, state, refused):
        self.stage, self.name, self.what, self.side, self.state, self.refused = stage, name, what, side, state, refused
        self.hit, self.known, self.killed, self.stopped, self.remover = threading.Event(), [], [], [], None
        self.result, self.answer, self.held, self.dead = "-", "-", False, False
        self.here, self.took, self.text, self.states, self.trouble = "-", 0.0, "", {}, None

    def run(self):
        world = self.world = self.stage.ready(FULL)
        self.hosts = {"source": world.source, "destination": world.destination}
        self.host = self.hosts[self.side]
        self.mark = max(0, len(world.guest.lines()) - 1)
        world.order(world.source, "delay", "*>*", ARC_USEC)
        world.order(world.destination, "delay", "*>*", ARC_USEC)
        if self.refused:
            world.order(world.destination, "refuse", self.refused, 22, 1 if self.refused == INTAKE else -1, device=0)
        if self.what == "forbid":
            self.forbid()
        watcher = None
        if self.state == "-":
            self.strike()
        else:
            watcher = Watcher(self.hosts[self.state.split("-")[0]], self.state, self.strike)
        begun = time.monotonic()
        client = world.source.migctl_start("--json=short", "migrate", world.name, world.destination.dest)
        if self.what == "stop" or self.what.startswith("kill"):
            threading.Thread(target=self.look_for_victims, daemon=True).start()
        if self.what in ("stop", "fill"):
            threading.Thread(target=self.go_on, args=(client,), daemon=True).start()
        out, _ = client.communicate(timeout=180)
        self.answer, said = client.returncode, json.loads(out) if out.strip() else {}
        self.hit.wait(2 * PACE)
        if watcher:
            watcher.stop()
        self.took = time.monotonic() - begun
        self.repair()
        verdict = self.judge(said)
        self.states = {s: world.states(h) for s, h in self.hosts.items() if all(map(os.path.exists, (
            m.path for m in world.mdevs[h.name])))}
        return self.trouble or verdict

    def strike(self):
        """From the watcher's thread."""
        try:
            if self.what == "fill":
                self.stage.fill(self.host)
            elif self.what == "remove":
                self.remover = threading.Thread(target=self.world.mdevs[self.host.name][0].remove, daemon=True)
                self.remover.start()
            elif self.what == "stop":
                for pid in self.victims():
                    os.kill(pid, signal.SIGSTOP)
                    self.stopped.append(pid)
            elif self.what.startswith("kill"):
                for pid in self.victims():
                    os.kill(pid, signal.SIGKILL)
                    self.killed.append(pid)
        except ProcessLookupError:
            pass  # it had ended by itself
        except Exception as e:
            self.trouble = f"strike: {type(e).__name__}: {e}"
        finally:
            self.hit.set()

    def victims(self):
        return self.known or self.find_victims()

    def find_victims(self):
        what = self.what.split()[-1]
        return {"QEMU": lambda: self.world.guest.qemus(self.host), "stop": lambda: self.world.guest.qemus(self.host),
                "agent": lambda: self.host.agents()[:1], "daemon": lambda: [self.host.daemon.pid],
                "helper": lambda: [self.host.helper.pid], "holder": holders}[what]()

    def look_for_victims(self):
        """Before the moment comes: to go through /proc takes longer than a state may last."""
        while not self.hit.is_set() and not self.known:
            self.known = self.find_victims()
            time.sleep(0.02)

    def go_on(self, client):
        """A QEMU that stands goes on, and a disk has room again, when the job has its end, or never will by itself: a guest
        stands for as long as it can't be written that it is not handed over."""
        self.hit.wait(60)
        end = time.monotonic() + STOPPED_SECONDS
        while client.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        self.held = client.poll() is None
        self.stage.empty(self.host)
        for pid in self.stopped:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass

    def forbid(self):
        """What a profile or an unprivileged service would come to."""
        self.host.helper.stop()
        self.host.start_helper(wrap=["setpriv", "--bounding-set=-sys_ptrace"])

    def repair(self):
        wait_for("the end of what was killed", lambda: not any(is_alive(pid) for pid in self.killed), 20)
        for host in self.world.hosts:
            self.stage.empty(host)
            if not host.helper.alive():
                host.start_helper()
            if not host.daemon.alive():
                host.start_daemon()

    def settled(self):
        """(hosts where the VM is, is it in doubt, jobs), when nothing moves any more."""
        jobs = []
        for host in self.world.hosts:
            jobs += [j for j in host.jobs() if is_of(j, self.world)][-1:]
        here = [h for h in self.world.hosts if (h.vm(self.world.name) or {}).get("presence") == "here"]
        doubt = any(j["State"] == "in-doubt" for j in jobs)
        if not all(has_ended(j, doubt) for j in jobs):
            return None
        return (here, doubt, jobs) if len(here) == 1 or doubt else None

    def judge(self, said):
        world, guest = self.world, self.world.guest
        try:
            here, doubt, jobs = wait_for("an end", self.settled, 30)
            if doubt:
                time.sleep(4)
                here, doubt, jobs = wait_for("an end", self.settled, 30)
        except AssertionError as e:
            return f"{e}: " + str([[j["State"], j["Phase"], j["Error"][1]] for h in world.hosts for j in h.jobs()[-1:]])
        source = next((j for j in jobs if j["Half"] == "source"), None)
        self.result = "in-doubt" if doubt else source["Result"] if source else "-"
        self.text = " / ".join(j["Error"][1] for j in jobs if j["Error"][1])
        if not self.hit.is_set():
            self.result += ", not reached"
        elif self.answer == UNREACHABLE and self.what != "kill daemon":
            return "exit 8, but the daemon lives"
        if self.what == "forbid" and self.side == "source" and (self.result != "refused" or "PTRACE" not in self.text.upper()):
            return "a duplicate that is forbidden does not refuse the move"
        if doubt and self.name == "kill destination's QEMU in destination-push (held)":
            return "in doubt, but its vCPUs were held to its end"
        n = len(guest.qemus())
        if doubt or self.result == "lost":
            before = guest.count()
            time.sleep(1.5)
            self.here = "nowhere"
            if guest.count() != before:
                return f"{self.result}, but the guest counts"
            if self.result == "lost" and n:
                return f"lost, but {n} QEMUs are left"
            return self.no_agent([h for h in world.hosts if not guest.qemus(h)])
        if self.result == "done" and self.killed and self.what + self.side == "kill QEMUdestination":
            self.here, self.dead = "nowhere", True  # it died as one that had arrived
            return f"{n} QEMUs are left" if n else self.no_agent(world.hosts)
        world.here = world.hosts.index(here[0])
        self.here = next(s for s, h in self.hosts.items() if h is here[0])
        try:
            guest.wait_counts(4)
            wait_for("one QEMU", lambda: len(guest.qemus()) == 1 and guest.qemus(here[0]), 15)
            wait_for("devices that run", lambda: set(world.states(here[0])) == {"RUNNING"}, 10)
        except AssertionError as e:
            return f"{e}: QEMUs {[len(guest.qemus(h)) for h in self.hosts.values()]}, " \
                f"{[world.states(h) for h in self.hosts.values()]}"
        lost, repeated, bad = guest.verdict(self.mark)
        if lost or repeated or guest.lines()[-1].place != here[0].name:
            return f"counts lost and repeated: {lost, repeated}, at {guest.lines()[-1].place}"
        # A daemon that dies before a device is reset never hears of it (docs/ownership.md, what is left).
        unheard = self.what == "kill daemon" and self.refused == LAST_ARC and not any(bad[1:])
        if any(bad) and "degraded" not in self.result and not unheard:
            return f"lines in which a device is not as the guest left it: {bad}"
        return self.no_agent(world.hosts)

    def no_agent(self, hosts):
        """In doubt, devices of a VM that stands and may go on are kept in hand."""
        try:
            wait_for("the agents to end", lambda: not any(h.agents() for h in hosts), 15)
            wait_for("the holders to end", lambda: not holders(), 15)
        except AssertionError as e:
            return str(e)
        return None

    def is_spent(self):
        """Nothing goes on with what is left."""
        return self.dead or self.result not in ("done", "failed") or self.what in ("remove", "forbid")


def run_all(pattern="", out=sys.stdout):
    selected = [r for r in rows() if re.search(pattern, r[0])]
    bad, begun, results, stage = [], time.monotonic(), {}, None
    vfio_guest.load()
    for row in selected:
        start = time.monotonic()
        config = HELD_CONFIG if "(held" in row[0] else FAULTS_CONFIG
        if stage and stage.config != config:
            stage.close()
            stage = None
        stage = stage or KillStage(config)
        case = Row(stage, *row)
        try:
            verdict = case.run()
        except Exception as e:  # a test that breaks is a finding, too
            verdict = f"{type(e).__name__}: {e}"
        if verdict and os.environ.get("MIGMGR_LOGS"):
            for host in stage.hosts:
                print(f"---- {host.name}\n{host.daemon.output()[-6000:]}", file=out)
        if verdict or case.is_spent():
            try:
                stage.close(politely=not verdict and case.result != "in-doubt")
                if case.remover:
                    case.remover.join(5)
            except Exception as e:
                verdict = f"{verdict or 'well'}, but not let go: {type(e).__name__}: {e}"
            stage = None
        results[case.result] = results.get(case.result, 0) + 1
        show(case, verdict, time.monotonic() - start, out)
        if verdict:
            bad.append(row[0])
    if stage:
        stage.close()
    print(json.dumps({"kernel": KERNEL, "cases": len(selected), "bad": len(bad), "results": results,
                      "seconds": round(time.monotonic() - begun, 1), "holds": not bad}), file=out, flush=True)
    return not bad


def show(case, verdict, all_seconds, out):
    states = "; ".join(" ".join(dict.fromkeys(s)) for s in case.states.values())
    print(f"{'BAD ' if verdict else 'ok  '} {case.name:58} {case.result:9} exit {case.answer!s:4} {case.took:5.1f} s "
          f"({all_seconds:4.1f})  at {case.here:11}  {states}{'  held' if case.held else ''}"
          f"{'  ' + verdict if verdict else ''}", file=out, flush=True)
    if case.text and (verdict or os.environ.get("MIGMGR_TEXTS")):
        print(f"      {case.text}", file=out, flush=True)


if __name__ == "__main__":
    sys.exit((0 if run_all(*sys.argv[1:2]) else 1) if KERNEL else on_host(__file__, *sys.argv[1:], memory=2048, seconds=7200))
