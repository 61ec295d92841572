# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every fault of a kernel driver (vfio-guest/mtty-control.h) under a stock QEMU that drives its own devices, at every arc, on
either side: one definite end each. In the guest of tests/system/vfio-guest; on the host it boots that and runs itself there.

Each row is one migration of a VM whose guest counts on its devices; the next row goes on with the same VM where that is well.
The rules that every row must keep are in Row.judge(): one QEMU runs the guest, no count lost or repeated, its devices RUNNING
and as the guest left them, or `degraded` with the device named that had the fault; never `done` with a device that was reset;
the other side's QEMU ended, nobody holds its devices; and the same VM moves again. What may come of a fault beside that is in
ends().

  tests/bench/vfio [PATTERN]                    prints the table; PATTERN: a part of a row's name
  tests/system/vfio_faults.py [-j N] [PATTERN]  the same
  MIGMGR_GUEST_KERNEL=iommufd                   the other kernel, where QEMU has its devices by cdev
"""

import concurrent.futures
import errno
import itertools
import json
import os
import queue
import re
import sys
import threading
import time

import vfio_guest
import vfio_uapi
import kills
from lab import PACE, Lab, wait_for
from vfio_guest import KERNEL, Mdev
from vfio_moves import CONFIG, DEADLINES, World, on_host

DEADLINE_MS = round(2000 * PACE)
LATE_USEC = 2 * DEADLINE_MS * 1000
# How long a hung call stays if the job has not come to an end by then.
HANG_SECONDS = 4 * DEADLINE_MS / 1000
# What only comes late is no fault: to start or end a QEMU takes long where all is emulated.
PATIENT = {p: 15 * DEADLINE_MS for p in ("check", "prepare", "release")}
FAULTS_CONFIG = {**CONFIG, "policy": {"deadline-ms": {p: DEADLINE_MS for p in DEADLINES} | {"precopy": 3 * DEADLINE_MS} | PATIENT}}
# Rows "held".
HELD_CONFIG = {**FAULTS_CONFIG, "policy": {**FAULTS_CONFIG["policy"], "supervised-last-arc": "back"}}
EXIT = {**kills.EXIT, "lost": 11}
FLAGS = {"p2p,pre-copy": 7, "p2p": 3, "pre-copy": 5, "plain": 1}

# Arcs as QEMU and we walk them; without P2P there may only be one device.
SOURCE_ARCS = {
    "p2p,pre-copy": ["RUNNING>PRE_COPY", "PRE_COPY>PRE_COPY_P2P", "PRE_COPY_P2P>STOP_COPY", "STOP_COPY>STOP"],
    "p2p": ["RUNNING>RUNNING_P2P", "RUNNING_P2P>STOP", "STOP>STOP_COPY", "STOP_COPY>STOP"],
    "pre-copy": ["RUNNING>PRE_COPY", "PRE_COPY>STOP_COPY"],
    "plain": ["RUNNING>STOP", "STOP>STOP_COPY", "STOP_COPY>STOP"],
}
DESTINATION_ARCS = {
    "p2p,pre-copy": ["RUNNING>RUNNING_P2P", "RUNNING_P2P>STOP", "STOP>RESUMING", "RESUMING>STOP", "STOP>RUNNING_P2P",
                     "RUNNING_P2P>RUNNING"],
    "plain": ["RUNNING>STOP", "STOP>RESUMING", "RESUMING>STOP", "STOP>RUNNING"],
}
# At the source, when the destination has refused: from STOP, as both QEMUs had completed.
BACK_ARCS = {"p2p,pre-copy": ["STOP>RUNNING_P2P", "RUNNING_P2P>RUNNING"], "plain": ["STOP>RUNNING"]}
# At the source, when the other device can't be stopped: from where pre-copy had taken it.
TURNED_ARCS = {"p2p,pre-copy": ["STOP_COPY>STOP", "STOP>RUNNING_P2P"]}
BYTES = (0, 10, 40)


def kinds_of(arc):
    for kind, words in {"refuse once": ("refuse", arc, errno.EIO, 1), "refuse always": ("refuse", arc, errno.EIO, -1),
                        "error once": ("error", arc, errno.EIO, 1), "error always": ("error", arc, errno.EIO, -1),
                        "late": ("delay", arc, LATE_USEC), "hang": ("hang", arc, 2, 1), "hang, killable": ("hang", arc, 1, 1),
                        "refuse, no reset": ("refuse", arc, errno.EIO, -1)}.items():
        yield kind, [words] + ([("reset-error", errno.EIO, -1)] if "no reset" in kind else [])


def rows():
    """(name, flags, side of the fault, orders to the faulty device, orders to others: [(side, device, words)])"""
    for side, table in (("source", SOURCE_ARCS), ("destination", DESTINATION_ARCS)):
        for spec, arcs in table.items():
            for arc in arcs:
                for kind, orders in kinds_of(arc):
                    yield f"{side} {spec} {arc} {kind}", FLAGS[spec], side, orders, []
    for spec, arcs in BACK_ARCS.items():
        for arc in arcs:
            for kind, orders in kinds_of(arc):
                # With one device it is refused by that of the other side, too.
                yield f"back {spec} {arc} {kind}", FLAGS[spec], "source", orders, [
                    ("destination", 0, ("refuse", "RESUMING>STOP", errno.EINVAL, 1))]
    for spec, arcs in TURNED_ARCS.items():
        for arc in arcs:
            for kind, orders in kinds_of(arc):
                yield f"turned {spec} {arc} {kind}", FLAGS[spec], "source", orders, [
                    ("destination", 1, ("write-error", 40, errno.EIO, 1))]
    for byte in BYTES:
        yield f"source read-error at {byte}", 7, "source", [("read-error", byte, errno.EIO, 1)], []
        yield f"destination write-error at {byte}", 7, "destination", [("write-error", byte, errno.EIO, 1)], []
    for arc in ("STOP>RUNNING_P2P", "RUNNING_P2P>RUNNING"):
        for kind, orders in kinds_of(arc):
            yield f"held p2p,pre-copy {arc} {kind}", 7, "destination", orders, []
    for kind, orders in kinds_of("STOP>RUNNING"):
        yield f"held plain STOP>RUNNING {kind}", 1, "destination", orders, []
    # The other device keeps QEMU busy meanwhile.
    for state, arc in (("PRE_COPY", "RUNNING>PRE_COPY"), ("STOP_COPY", "PRE_COPY_P2P>STOP_COPY")):
        yield f"state a byte short in {state}", 7, "source", [("steal", state)], [("source", 1, ("delay", arc, 1000000))]


def ends(name, side):
    """Results that this fault may have."""
    if name.startswith("held"):
        # What fails to run turns the job back; a push that fails is QEMU's to try again.
        return {"done", "failed"} if re.search("late|hang|RUNNING_P2P>RUNNING refuse once", name) else {"failed"}
    last = re.search("P2P>RUNNING |STOP>RUNNING ", name)  # it may run when this begins: there is no way back
    if name.startswith("state") or "-error" in name:
        return {"failed"}
    if re.search("late|hang", name):
        return {"done", "failed"} | ({"degraded"} if side == "source" or last or "STOP>RUNNING_P2P" in name else set())
    # A QEMU that can't reset its device ends itself; at its very end the destination has all that it needs.
    died = {"lost", "in-doubt"} if "no reset" in name else set()
    if died and "STOP_COPY>STOP" in name:
        died.add("done")
    if side == "source":
        return {"failed", "degraded"} | died
    if not last:
        return {"failed"}
    return {"degraded"} | died | ({"done"} if "refuse once" in name else set())


numbers = itertools.count(1)  # of VMs


class Stage:
    """Two hosts and their devices, and the VM of the last row if the next may go on with it."""

    def __init__(self, config):
        self.lab, self.world, self.flags, self.config = Lab(), None, None, config
        self.hosts = [self.make_host(name, config) for name in "ab"]
        self.mdevs = {name: [Mdev() for _ in range(2)] for name in "ab"}

    def make_host(self, name, config):
        return self.lab.host(name, config=config)

    def all_mdevs(self):
        """That are still there."""
        return [m for m in self.mdevs["a"] + self.mdevs["b"] if os.path.exists(m.path + "/test")]

    def rest(self, flags):
        for mdev in self.all_mdevs():
            mdev.order("rest")
            mdev.order("flags", flags)
            # A reset that nobody is told of would pass unseen else.
            mdev.order("reset-clears", 1)

    def ready(self, flags):
        """A VM whose devices are `flags`, where everything is well."""
        if self.world and self.flags != flags:
            self.end()
        self.rest(flags)
        if self.world:
            # What the VM has left there would be reset when it comes again; here every reset is one too many.
            for mdev in self.mdevs[self.world.destination.name]:
                wait_for("the device to be let go", lambda: reopen(mdev), 15)
            self.rest(flags)
        if not self.world:
            n = 2 if flags & 2 else 1
            self.world = World(self.lab, hosts=self.hosts, name=f"vm{next(numbers)}",
                               mdevs={name: mdevs[:n] for name, mdevs in self.mdevs.items()})
            self.flags = flags
        return self.world

    def end(self):
        """Without the VM, everybody has let the devices go."""
        self.rest(FLAGS["p2p,pre-copy"])
        world, self.world = self.world, None
        world.end()
        for host in world.hosts:
            wait_for("the VM to be forgotten", lambda: host.migctl("unregister", world.name)[0] == 0, 20)
        for mdev in self.all_mdevs():
            wait_for("the device to be let go", lambda: reopen(mdev), 15)

    def close(self, politely=True):
        """`politely`: everybody lets the devices go of himself. Else those who hold them are ended, as with a VM in doubt."""
        try:
            if self.world and politely:
                self.end()
        finally:
            for mdev in self.all_mdevs():
                mdev.order("rest")
            self.lab.close()
        for mdev in self.all_mdevs():
            wait_for("the device to be let go", lambda: reopen(mdev), 15)
            mdev.remove()


def reopen(mdev):
    """Somebody else can have it, who makes it ready for the next VM."""
    try:
        with mdev.open("cdev" if mdev.cdev else "group") as device:
            device.reset()
            return device.state() == vfio_uapi.RUNNING
    except OSError:
        return False


def steal(pid, mdev, state, stop):
    """Reads a byte of what QEMU is to read, once the device is in that state: a stream that lacks a byte. Nothing else tells
    whose a data file is: the first that has one loses it."""
    while mdev.status()["state"] != state:
        if stop.is_set():
            return False
        time.sleep(0.002)
    for fd in sorted(fd for fd, link in vfio_uapi.links(pid).items() if "mtty_mig" in link):
        with os.fdopen(vfio_uapi.duplicate(pid, fd), "rb", buffering=0) as f:
            if f.read(1):
                return True
    return False


def is_of(job, world):
    return world.uuid.replace("-", "") in job["VM"].replace("_", "")


def has_ended(job, doubt):
    """Or waits for good: who holds a copy does so for as long as the other is in doubt."""
    return job["State"] in ("finished", "in-doubt") or (doubt and job["Phase"] == "handover")


def lost_in(text):
    """Devices that an error names as lost."""
    return re.findall(r"\b(d\d)\b", text.split("have lost their state", 1)[1]) if "have lost their state" in text else []


class Row:
    def __init__(self, stage, name, flags, side, orders, others):
        self.stage, self.name, self.flags, self.side, self.orders, self.others = stage, name, flags, side, orders, others
        self.world = self.job = self.status = self.result = None
        self.took, self.text, self.lost, self.states, self.here = 0, "", [], {}, "-"
        self.stolen, self.over, self.unseen = True, False, False

    def run(self):
        world = self.world = self.stage.ready(self.flags)
        self.hosts = {"source": world.source, "destination": world.destination}
        self.bad = world.mdevs[self.hosts[self.side].name][0]
        self.mark = max(0, len(world.guest.lines()) - 1)
        over, thieves = threading.Event(), []
        for words in self.orders:
            if words[0] == "steal":
                thieves.append(threading.Thread(target=self.steal, args=(words[1], over)))
                thieves[-1].start()
            else:
                self.bad.order(*words)
        for side, device, words in self.others:
            world.mdevs[self.hosts[side].name][device % len(world.mdevs["a"])].order(*words)
        begun = time.monotonic()
        client = world.source.migctl_start("--json=short", "migrate", world.name, world.destination.dest)
        out = self.follow(client)
        over.set()
        for thief in thieves:
            thief.join()
        self.took = time.monotonic() - begun
        self.status, self.job = client.returncode, json.loads(out) if out.strip() else {}
        self.result = self.told = self.job.get("result", "-")
        self.text = (self.job.get("error") or {}).get("text", "")
        self.resets = {s: [m.status()["resets"] for m in world.mdevs[h.name]] for s, h in self.hosts.items()}
        verdict = self.judge()
        self.states = {s: world.states(h) for s, h in self.hosts.items()}
        return verdict or self.again()

    def follow(self, client):
        """Until the job has its end. What hangs is let go when that has come, or never will by itself; while it hangs, both
        daemons answer."""
        self.held, self.answered = False, 0
        watcher = None
        if any(words[0] == "hang" for words in self.orders):
            watcher = threading.Thread(target=self.release, args=(client,), daemon=True)
            watcher.start()
        out = client.communicate(timeout=120)[0]
        if watcher:
            watcher.join(30)
        return out

    def steal(self, state, over):
        self.stolen = steal(self.world.guest.qemus(self.world.source)[0], self.bad, state, over)

    def release(self, client):
        while not self.bad.status()["hanging"] and client.poll() is None:
            time.sleep(0.02)
        end = time.monotonic() + HANG_SECONDS
        while client.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        begun = time.monotonic()
        for host in self.hosts.values():
            host.migctl("list")
        self.answered = time.monotonic() - begun
        self.held = client.poll() is None
        self.bad.order("release")

    def settled(self):
        """(where the VM is, the job's halves) when nothing moves any more."""
        halves = [[j for j in h.jobs() if is_of(j, self.world)][-1:] for h in self.world.hosts]
        here = [h for h in self.world.hosts if (h.vm(self.world.name) or {}).get("presence") == "here"]
        doubt = any(j["State"] == "in-doubt" for half in halves for j in half)
        if not all(has_ended(j, doubt) for half in halves for j in half):
            return None
        return (here, sum(halves, []), doubt) if len(here) == 1 or doubt else None

    def judge(self):
        """None, or which rule was broken."""
        world = self.world
        if EXIT.get(self.told) != self.status:
            return f"result {self.told}, exit {self.status}"
        if not self.stolen:
            return "there was nothing to steal"
        if self.answered > 4 * PACE:
            return f"the daemons were held up {self.answered:.1f} s"
        try:
            here, halves, doubt = wait_for("an end", self.settled, 20)
            if doubt:  # while something hung; it need not be so now
                time.sleep(5 * PACE)
                here, halves, doubt = wait_for("an end", self.settled, 20)
        except AssertionError:
            return "no end: " + str([(h.name, (h.vm(world.name) or {}).get("presence"), [
                (j["State"], j["Phase"]) for j in h.jobs()[-1:]]) for h in world.hosts])
        if self.told == "in-doubt" and not doubt:
            self.result, self.text = next((j["Result"], j["Error"][1]) for j in halves if j["Half"] == "source")
        if self.result in ("lost", "in-doubt"):
            return self.judge_end()
        here = here[0]
        self.lost = lost_in(self.text)
        self.here = next(s for s, h in self.hosts.items() if h is here)
        owner = {"done": "destination", "failed": "source"}.get(self.result, self.here)
        if self.here != owner:
            return f"{self.result}, but here at {self.here}"
        if self.result not in ends(self.name, self.side):
            return f"{self.result}, which needs not be"
        if world.here != world.hosts.index(here):
            world.here = world.hosts.index(here)
        if (self.result == "degraded") != bool(self.lost) or not set(self.lost) <= {"d0"}:
            return f"{self.result}, lost are {self.lost}"
        if self.result == "degraded" and "d0" not in self.text:
            return "the error does not name the device"
        if self.result == "done" and any(self.resets["destination"]):
            return f"done, but devices of the destination were reset: {self.resets['destination']}"
        return self.judge_guest()

    def judge_end(self):
        """Nothing runs."""
        guest, result = self.world.guest, self.result
        if result not in ends(self.name, self.side):
            return f"{result}, which needs not be"
        before = guest.count()
        time.sleep(1)
        if guest.count() != before:
            return f"{result}, but the guest counts"
        if result == "lost" and guest.qemus():
            return "lost, but a QEMU is left"
        self.over = True
        return None

    def judge_guest(self):
        world, guest = self.world, self.world.guest
        try:
            guest.wait_counts(4)
            wait_for("one QEMU", lambda: len(guest.qemus()) == 1 and guest.qemus(world.source), 10)
            wait_for("devices that run", lambda: set(world.states(world.source)) == {"RUNNING"}, 10)
            wait_for("the agents to end", lambda: not any(h.agents() for h in world.hosts), 10)
        except AssertionError as e:
            return f"{e}: QEMUs {[len(guest.qemus(h)) for h in self.hosts.values()]}, " \
                f"{[world.states(h) for h in self.hosts.values()]}"
        lines = guest.lines()
        if lines[-1].place != world.source.name:
            return f"here at {self.here}, but the guest counts elsewhere: {lines[-1]}"
        lost, repeated, bad = guest.verdict(self.mark)
        if lost or repeated:
            return f"counts lost and repeated: {lost, repeated}"
        # QEMU takes its devices back by itself when the other one fails, and resets what refuses without a word.
        self.unseen = self.name.startswith("turned") and self.result == "failed" and bool(bad[0]) and not bad[1]
        if any(n and f"d{i}" not in self.lost for i, n in enumerate(bad)) and not self.unseen:
            return f"lines in which a device is not as the guest left it: {bad}"
        return None

    def again(self):
        """The VM moves again, when nothing is wrong any more."""
        if self.over:
            return None
        if self.result == "degraded" or self.unseen:
            self.stage.end()
            return None
        self.stage.rest(self.flags)
        status, job = self.world.move()
        if job.get("result") != "done":
            return f"a second move: {job.get('result')}: {(job.get('error') or {}).get('text')} {job.get('findings')}"
        return self.judge_guest()


def run_all(pattern="", jobs=1, out=sys.stdout):
    selected = [r for r in rows() if re.search(pattern, r[0])]
    bad, lock, begun, results = [], threading.Lock(), time.monotonic(), {}
    vfio_guest.load()
    stages = queue.Queue()
    for _ in range(jobs):
        stages.put(None)

    def one(row):
        stage, start = stages.get(), time.monotonic()
        case = Row(stage, *row)
        try:
            config = HELD_CONFIG if row[0].startswith("held") else FAULTS_CONFIG
            if stage and stage.config != config:
                stage.close()
                stage = None
            case.stage = stage or Stage(config)
            verdict = case.run()
        except Exception as e:  # a test that breaks is a finding, too
            verdict = f"{type(e).__name__}: {e}"
        stage = case.stage
        dead = [h.name for h in stage.hosts if not h.daemon.alive()] if stage else []
        verdict = f"a daemon died: {dead}" if dead else verdict
        if stage and (verdict or case.over):
            stage = retire(stage, row[0], verdict)
        with lock:
            results[case.result] = results.get(case.result, 0) + 1
            show(case, verdict, time.monotonic() - start, out)
            if verdict:
                bad.append(row[0])
        stages.put(stage)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, selected))
    while not stages.empty():
        stage = stages.get()
        if stage:
            stage.close()
    print(json.dumps({"kernel": KERNEL, "cases": len(selected), "bad": len(bad), "results": results,
                      "seconds": round(time.monotonic() - begun, 1), "holds": not bad}), file=out, flush=True)
    return not bad


def retire(stage, name, verdict):
    """The next row begins anew."""
    if verdict and os.environ.get("MIGMGR_LOGS"):
        for host in stage.hosts:
            print(f"---- {name}, {host.name}\n{host.daemon.output()[-6000:]}", flush=True)
    try:
        stage.close(politely=False)
    except Exception as e:
        print(f"      not let go after {name}: {type(e).__name__}: {e}", flush=True)


def show(case, verdict, all_seconds, out):
    states = "; ".join(" ".join(dict.fromkeys(s)) for s in case.states.values())
    print(f"{'BAD ' if verdict else 'ok  '} {case.name:58} {case.result or '-':9} exit {case.status!s:4} {case.took:5.1f} s "
          f"({all_seconds:4.1f})  at {case.here:11}  {states}"
          f"{'  lost ' + ','.join(case.lost) if case.lost else ''}{'  held until released' if case.held else ''}"
          f"{'  reset, and nothing shows it' if case.unseen else ''}"
          f"{'  ' + verdict if verdict else ''}", file=out, flush=True)
    if case.text and (verdict or os.environ.get("MIGMGR_TEXTS")):
        print(f"      {case.text}", file=out, flush=True)


def main(args):
    jobs = 1
    if args[:1] == ["-j"]:
        jobs, args = int(args[1]), args[2:]
    return 0 if run_all(args[0] if args else "", jobs) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if KERNEL else on_host(__file__, *sys.argv[1:], memory=2048, seconds=3600))
