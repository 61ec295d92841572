# SPDX-License-Identifier: LGPL-2.1-or-later
"""migmgr-test-vmm, alone: its guest holds with good devices and finds each wrong one, and it moves by its Delegate interface
while this test plays migmgrd. Devices are those of worker.py, and, for the load, those of migmgr-emulated-device."""

import contextlib
import hashlib
import mmap
import os
import random
import socket
import struct
import subprocess
import threading
import time
import unittest
import unittest.mock

import bus
import lab
from bus import Bus, BusError
from lab import PACE, TOP, Host, Lab, Process, TestVmm, new_uuid, program, wait_for
from test_bus import shape
from worker import PAGE, Worker

VM, PATH, MIB = "org.example.vmm", "/vm", 1 << 20
NOBODY = 65534
ERROR = "org.migmgr1.Delegate.Error."
WRONG = {  # what a worker does wrong once, and what the guest says of it
    "wrong-chain": "result of command",
    "wrong-byte": "data of command",
    "stale-result": "result of command",
    "stale-window": "window word of command",
    "lose-interrupt": "one is lost",
    "double-interrupt": r"\d+ interrupts for \d+ commands|interrupts, DONE is",
    "lose-tick": "some are lost",
    "double-tick": "tick interrupts for",
    "stale-tick": "tick page",
    "tear-scratch": "SCRATCH: byte 32 of 64",
    "lose-scratch": "SCRATCH: byte",
    "lose-doorbell": r"register DOORBELL|command \d+ is not done",
}


class Vmm(TestVmm):
    """One process, and the bus connection over which it is driven."""

    def __init__(self, lab, host, *args, **kw):
        super().__init__(lab, host, *args, **kw)
        self.bus = Bus(host.bus_address)

    def close(self):
        self.bus.close()
        super().close()

    def start(self, method, signature="", *args, files=(), using=None):
        using = using or self.bus
        return using.send(bus.CALL, {bus.PATH: PATH, bus.INTERFACE: "org.migmgr1.Delegate", bus.MEMBER: method,
                                     bus.DESTINATION: self.bus_name}, signature, args, files=files)

    def finish(self, serial):
        return self.bus.finish(serial, 20 * PACE)

    def call(self, method, signature="", *args, files=()):
        return self.finish(self.start(method, signature, *args, files=files))

    def prepare(self, job, side, **options):
        return self.call("Prepare", "ssa{sv}", job, side, {k.replace("_", "-"): ("t", v) for k, v in options.items()})

    def refused(self, error, method, *args, files=()):
        try:
            self.call(method, *args, files=files)
        except BusError as e:
            assert e.name == ERROR + error, e
            return e.text
        raise AssertionError(f"{method} was not refused")

    def state(self):
        return self.call("GetState")[0]

    def memory(self):
        """The guest's, as it is."""
        fds = f"/proc/{self.process.pid}/fd"
        name = next(f for f in os.listdir(fds) if "guest-ram" in os.readlink(f"{fds}/{f}"))
        with open(f"{fds}/{name}", "r+b") as f:
            return mmap.mmap(f.fileno(), 0)

    def steps(self):
        return self.status()["steps"]

    def wait_steps(self, n=300):
        start = self.steps()
        wait_for("the guest to go on", lambda: self.steps() >= start + n or self.status()["broken"], 20)
        self.holds()

    def holds(self):
        status = self.status()
        assert status["broken"] == "", status["broken"]
        return status

    def wait_broken(self, seconds=15):
        return wait_for("the guest to find it", lambda: self.status()["broken"], seconds)


# What the guest's own pages are: each must be of the same moment as the others.
PAGES = ("root", "mirror", "driver", "versions", "ballast", "ring", "ticks", "history", "result")


def pages_of(memory, what):
    """From where to where. The numbers of members are those of tests/vmm/guest-memory.h."""
    root = struct.unpack_from("<15Q", memory, 0)
    mirror, drivers, versions, ballast = root[7:11]
    driver = struct.unpack_from("<19Q", memory, drivers)
    ring, ticks, history, window, _, result = driver[13:19]
    return {"root": (0, PAGE), "mirror": (mirror, mirror + PAGE), "driver": (drivers, drivers + PAGE),
            "versions": (versions, versions + 4 * PAGE), "ballast": (ballast, mirror), "ring": (ring, ring + PAGE),
            "ticks": (ticks, ticks + 64 * PAGE), "history": (history, history + 8 * PAGE),
            "result": (result, result + PAGE)}[what]


def dirty_file(pages, start, size):
    words = bytearray(-(-size // PAGE // 64) * 8)
    for page in pages:
        i = (page - start) // PAGE
        words[i // 8] |= 1 << i % 8
    fd = os.memfd_create("bitmap")
    os.write(fd, words)
    return fd


class Case(unittest.TestCase):
    def setUp(self):
        self.lab = Lab()
        self.addCleanup(self.lab.close)
        self.host = Host(self.lab, "h")
        os.chmod(self.lab.dir, 0o711)
        anybody = lab.BUS_CONFIG.replace('<policy context="default">', '<policy context="default"><allow user="*"/>')
        with unittest.mock.patch.object(lab, "BUS_CONFIG", anybody):
            self.host.start_bus()
        self.uuid, self.workers, self.vmms = new_uuid(), {}, []
        self.addCleanup(self.close)

    def close(self):
        for vmm in self.vmms:
            vmm.close()
        for worker in self.workers.values():
            worker.close()

    def worker(self, name, **kw):
        self.workers[name] = Worker(os.path.join(self.lab.dir, name), **kw)
        return self.workers[name]

    def vmm(self, name, *options, **kw):
        vmm = Vmm(self.lab, self.host, name, self.uuid, {n: w.path for n, w in self.workers.items()}, *options, **kw)
        self.vmms.append(vmm)
        return vmm

    def pair(self, n_workers=1, **kw):
        """A VM, and an empty process to which it can go."""
        for i in range(n_workers):
            self.worker(f"d{i}")
        return self.vmm("a", **kw), self.vmm("b", "--incoming", **kw)

    def sockets(self):
        pair = socket.socketpair()
        for s in pair:
            s.settimeout(20)
            self.addCleanup(s.close)
        return pair

    def take_dirty(self, vmm, job):
        """What the devices have written, as migmgrd gives it to the VMM: one call for each part of the memory."""
        for worker in self.workers.values():
            pages = worker.take_dirty()
            for start, size, memory in worker.link.maps:
                if memory:
                    fd = dirty_file([p for p in pages if start <= p < start + size], start, size)
                    vmm.call("TakeDirtyPages", "sttth", job, start, PAGE, size // PAGE, 0, files=[fd])
                    os.close(fd)

    def go_over(self, a, b, options=None, look=None):
        """All of a move, up to `complete`. The devices work on after the VM stands, as they do when migmgrd stops them."""
        job, (out, into) = new_uuid(), self.sockets()
        for worker in self.workers.values():
            worker.take_dirty()
        b.prepare(job, "destination")
        self.links = {name: worker.links[-1] for name, worker in self.workers.items()}
        a.prepare(job, "source", **(options or {}))
        load = b.start("Load", "sh", job, 0, files=[into.fileno()])
        a.call("Save", "sh", job, 0, files=[out.fileno()])
        a.call("Pause", "s", job)
        time.sleep(random.uniform(0, 0.02))
        for worker in self.workers.values():
            worker.stop()
        if look:
            look()
        self.take_dirty(a, job)
        a.call("Seal", "s", job)
        b.finish(load)
        self.assertEqual((a.state(), b.state()), ("sealed", "complete"))
        out.close()
        into.close()
        return job

    def arrive(self, a, b, job):
        a.call("Discard", "s", job)
        for name, worker in self.workers.items():
            worker.go(self.links[name])
        b.call("Start", "s", job)
        self.assertEqual((a.state(), b.state()), ("none", "running"))


class Guest(Case):
    def test_it_holds_under_load_with_eight_devices(self):
        server = self.lab.server("devices", {f"d{i}": "worker=on,pre-copy=on" for i in range(8)})
        self.addCleanup(server.stop)
        vmm = Vmm(self.lab, self.host, "a", self.uuid, {d: server.socket(d) for d in server.specs}, memory=32)
        self.vmms.append(vmm)
        wait_for("each device to do commands", lambda: all(d["commands"] > 1000 for d in vmm.holds()["devices"]), 60)
        for d in vmm.holds()["devices"]:
            self.assertLessEqual(d["commands"], d["interrupts"], d)
            self.assertGreater(d["ticks"], 100, d)
            self.assertGreater(d["bytes"], MIB, d)

    def test_it_holds_with_a_window_that_cannot_be_mapped(self):
        self.worker("d0", window_is_mappable=False)
        self.vmm("a").wait_steps(1000)

    def test_it_holds_without_devices(self):
        self.vmm("a").wait_steps(200)

    def test_it_finds_whatever_a_device_does_wrong(self):
        for i in range(len(WRONG)):
            self.worker(f"d{i}")
        vmms = []
        for (name, worker), wrong in zip(self.workers.items(), WRONG):
            vmm = Vmm(self.lab, self.host, "vm-" + wrong, new_uuid(), {name: worker.path})
            self.vmms.append(vmm)
            vmms.append((vmm, worker, wrong))
        for vmm, _, _ in vmms:
            vmm.wait_steps(200)
        for _, worker, wrong in vmms:
            worker.wrong.add(wrong)
        for vmm, worker, wrong in vmms:
            with self.subTest(wrong):
                broken = vmm.wait_broken(60)
                self.assertRegex(broken, WRONG[wrong])
                self.assertRegex(broken, r"^step \d+, device d\d+: ")
                self.assertEqual(worker.wrong - {"lose-doorbell"}, set())
                self.assertEqual(vmm.steps(), vmm.steps(), "it goes on")

    def test_it_finds_a_device_that_has_gone(self):
        worker = self.worker("d0")
        vmm = self.vmm("a")
        vmm.wait_steps()
        worker.close()
        del self.workers["d0"]
        self.assertIn("Connection reset", vmm.wait_broken())

    def test_it_finds_each_page_of_its_own_that_is_of_another_moment(self):
        """As a VMM that forgets one would bring about."""
        vmms = []
        for i, what in enumerate(PAGES):
            worker = self.worker(f"d{i}")
            vmm = Vmm(self.lab, self.host, "page-" + what, new_uuid(), {f"d{i}": worker.path})
            self.vmms.append(vmm)
            vmms.append((what, vmm, vmm.memory(), worker))
        for _, vmm, _, _ in vmms:
            vmm.wait_steps()
        befores = [self.pause(vmm, lambda: memory[:]) for _, vmm, memory, _ in vmms]
        for _, vmm, _, _ in vmms:
            vmm.wait_steps(1500)
        for (what, vmm, memory, worker), before in zip(vmms, befores):
            with self.subTest(what):
                # A result that its device was about to write anew can't be missed: then it is tried again.
                for _ in range(6):
                    self.pause(vmm, lambda: self.restore(memory, before, worker, *pages_of(memory, what)))
                    if self.is_broken_soon(vmm):
                        break
                self.assertTrue(vmm.status()["broken"])

    def is_broken_soon(self, vmm):
        try:
            return vmm.wait_broken(10)
        except AssertionError:
            return ""

    def pause(self, vmm, do):
        job = new_uuid()
        vmm.prepare(job, "source")
        vmm.call("Pause", "s", job)
        result = do()
        vmm.call("Resume", "s", job)
        return result

    def restore(self, memory, before, worker, start, end):
        """The first page of these that has changed is as it was."""
        worker.stop()
        page = next(p for p in range(start, end, PAGE) if memory[p:p + PAGE] != before[p:p + PAGE])
        memory[page:page + PAGE] = before[page:page + PAGE]
        worker.go()


class Pausing(Case):
    def digest(self, memory):
        return hashlib.sha256(memory[:]).digest()

    def test_it_stands_exactly(self):
        worker = self.worker("d0")
        vmm = self.vmm("a")
        memory = vmm.memory()
        for _ in range(20):
            vmm.wait_steps(50)
            job, before = new_uuid(), time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            vmm.prepare(job, "source")
            stopped = vmm.call("Pause", "s", job)[0]
            self.assertLessEqual(before, stopped)
            self.assertLessEqual(stopped, time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
            worker.stop()
            steps, digest = vmm.steps(), self.digest(memory)
            time.sleep(0.05)
            self.assertEqual((vmm.steps(), self.digest(memory)), (steps, digest))
            self.assertEqual((vmm.state(), vmm.call("Pause", "s", job)[0]), ("paused", stopped))
            vmm.call("Resume", "s", job)
            self.assertEqual(vmm.state(), "running")
            worker.go()
        vmm.wait_steps()

    def test_an_open_access_is_waited_for(self):
        worker = self.worker("d0")
        vmm = self.vmm("a")
        vmm.wait_steps(50)
        job = new_uuid()
        vmm.prepare(job, "source")
        with worker.lock:  # it answers nothing
            steps = -1
            while steps != (steps := vmm.steps()):
                time.sleep(0.1)
            pause = vmm.start("Pause", "s", job)
            with self.assertRaises(AssertionError):
                vmm.bus.finish(pause, 0.3)
            self.assertEqual(vmm.state(), "running")
        vmm.finish(pause)
        vmm.call("Resume", "s", job)
        vmm.wait_steps()


class Moving(Case):
    def test_to_and_fro(self):
        here, there = self.pair(2)
        for _ in range(10):
            here.wait_steps(200)
            self.arrive(here, there, self.go_over(here, there))
            here, there = there, here
        here.wait_steps(1000)

    def test_the_memory_is_the_same(self):
        a, b = self.pair()
        a.wait_steps()
        self.go_over(a, b)
        self.assertEqual(a.memory()[:], b.memory()[:])
        self.assertEqual(a.status()["chain"], b.status()["chain"])

    def test_it_goes_on_here_after_the_seal(self):
        a, b = self.pair()
        a.wait_steps()
        for _ in range(3):
            job = self.go_over(a, b)
            b.call("Discard", "s", job)
            for worker in self.workers.values():
                worker.go()
            a.call("Resume", "s", job)
            a.wait_steps()
        job = self.go_over(a, b)
        self.arrive(a, b, job)
        b.wait_steps()

    def test_interrupts_that_wait_go_with_it(self):
        """Many are open when it stands: the device does all its commands before it stands, too."""
        a, b = self.pair()
        worker = self.workers["d0"]
        here, there, waited = a, b, 0
        for _ in range(12):
            here.wait_steps(100)
            done = []
            job = self.go_over(here, there, look=lambda: done.append(
                worker.registers[0x18] - here.status()["devices"][0]["interrupts"]))
            waited += done[0]
            self.arrive(here, there, job)
            here, there = there, here
        here.wait_steps()
        self.assertGreater(waited, 0, "nothing was tried")

    def test_without_the_pages_of_devices_it_breaks(self):
        a, b = self.pair()
        a.command("faults", **{"ignore-dirty-pages": True})
        a.wait_steps()
        here, there = a, b
        for _ in range(20):
            self.arrive(here, there, self.go_over(here, there))
            time.sleep(0.3)
            if there.status()["broken"]:
                return
            here, there = there, here
            here.command("faults", **{"ignore-dirty-pages": True})
            here.wait_steps(100)
        self.fail("it was not missed")

    def test_a_bandwidth_is_kept(self):
        a, b = self.pair()
        a.wait_steps()
        start = time.monotonic()
        job = self.go_over(a, b, {"bandwidth": 12 * MIB, "max_blackout_usec": 500000})
        # Half of the ballast is zero, and costs nothing.
        self.assertGreater(time.monotonic() - start, 0.4)
        self.arrive(a, b, job)
        b.wait_steps()

    def test_progress_is_told(self):
        a, b = self.pair()
        a.bus.match("type='signal',interface='org.migmgr1.Delegate'")
        job = self.go_over(a, b, {"bandwidth": 12 * MIB, "max_blackout_usec": 500000})
        sender = a.bus.bus("GetNameOwner", "s", a.bus_name)[0]
        told = [m.args for m in a.bus.signals if m.member == "Progress" and m.sender == sender]
        self.assertGreater(len(told), 1)
        self.assertTrue(all(j == job and total == 16 * MIB for j, _, total in told), told)
        self.assertEqual(sorted(done for _, done, _ in told), [done for _, done, _ in told])


class Stream(Case):
    """What goes wrong between the two."""

    def begin(self, a, b):
        job, (out, near), (into, far) = new_uuid(), self.sockets(), self.sockets()
        b.prepare(job, "destination")
        a.prepare(job, "source")
        load = b.start("Load", "sh", job, 0, files=[into.fileno()])
        save = a.start("Save", "sh", job, 0, files=[out.fileno()])
        out.close()
        return job, save, load, near, far, into

    def pump(self, near, far, change=lambda data, at: data, tail=b""):
        """What the source says, until it has closed, and the tail with the last of it."""
        at, last = 0, b""
        with contextlib.suppress(OSError):
            while True:
                data = near.recv(1 << 20)
                if far:
                    far.sendall(last if data else last + tail)
                if not data:
                    return
                last = change(data, at)
                at += len(data)

    def finish_source(self, a, job, save):
        a.finish(save)
        a.call("Pause", "s", job)
        for worker in self.workers.values():
            worker.stop()
        self.take_dirty(a, job)
        a.call("Seal", "s", job)

    def test_nothing_behind_the_end_is_read(self):
        a, b = self.pair()
        a.wait_steps(100)
        job, save, load, near, far, into = self.begin(a, b)
        pump = threading.Thread(target=self.pump, args=(near, far), kwargs={"tail": b"not yours"})
        pump.start()
        self.finish_source(a, job, save)
        near.shutdown(socket.SHUT_RD)
        pump.join(20)
        b.finish(load)
        self.assertEqual(into.recv(100), b"not yours")

    def test_damage_anywhere_is_found(self):
        a, b = self.pair()
        for where in (3, 72 + 3, 72 + 24 + 5000, 5 * MIB):
            with self.subTest(where):
                a.wait_steps(100)
                job, save, load, near, far, into = self.begin(a, b)

                def change(data, at):
                    if at <= where < at + len(data):
                        return data[:where - at] + bytes([data[where - at] ^ 1]) + data[where - at + 1:]
                    return data
                pump = threading.Thread(target=self.pump, args=(near, far, change))
                pump.start()
                with self.assertRaises(BusError) as caught:
                    b.finish(load)
                self.assertEqual(caught.exception.name, ERROR + "Failed")
                self.assertEqual(b.state(), "incoming")
                a.call("Resume", "s", job)
                near.close()
                pump.join(20)
                b.call("Discard", "s", job)
                with contextlib.suppress(BusError):
                    a.finish(save)
        a.wait_steps()

    def test_a_cut_fails_both_and_the_guest_goes_on(self):
        a, b = self.pair()
        for _ in range(3):
            a.wait_steps(100)
            job, save, load, near, far, into = self.begin(a, b)
            near.shutdown(socket.SHUT_RDWR)
            far.shutdown(socket.SHUT_RDWR)
            for vmm, serial in ((a, save), (b, load)):
                with self.assertRaises(BusError) as caught:
                    vmm.finish(serial)
                self.assertEqual(caught.exception.name, ERROR + "Failed")
            self.assertEqual((a.state(), b.state()), ("running", "incoming"))
            a.call("Resume", "s", job)
            b.call("Discard", "s", job)
        a.wait_steps()

    def test_a_failed_save_and_load_are_tried_anew(self):
        a, b = self.pair()
        a.wait_steps(100)
        job, save, load, near, far, into = self.begin(a, b)
        near.close()
        far.close()
        for vmm, serial in ((a, save), (b, load)):
            with self.assertRaises(BusError):
                vmm.finish(serial)
        out, into = self.sockets()
        load = b.start("Load", "sh", job, 0, files=[into.fileno()])
        a.call("Save", "sh", job, 0, files=[out.fileno()])
        self.links = {name: worker.links[-1] for name, worker in self.workers.items()}
        a.call("Pause", "s", job)
        self.workers["d0"].stop()
        # What it wrote before this pass is in the memory already.
        self.take_dirty(a, job)
        a.call("Seal", "s", job)
        b.finish(load)
        out.close()
        into.close()
        self.arrive(a, b, job)
        b.wait_steps()

    def test_a_seal_fails_when_the_connection_has_gone(self):
        a, b = self.pair()
        a.wait_steps(100)
        job, save, load, near, far, into = self.begin(a, b)
        pump = threading.Thread(target=self.pump, args=(near, far))
        pump.start()
        a.finish(save)
        a.call("Pause", "s", job)
        near.shutdown(socket.SHUT_RDWR)
        pump.join(20)
        a.refused("Failed", "Seal", "s", job)
        self.assertEqual(a.state(), "paused")
        a.call("Resume", "s", job)
        a.wait_steps()


class Rules(Case):
    def test_what_is_refused(self):
        a, b = self.pair()
        job, other = new_uuid(), new_uuid()
        a.refused("Job", "Pause", "s", job)
        self.assertEqual(a.call("GetState"), ["running", ""])
        self.assertEqual(b.call("GetState"), ["none", ""])
        a.refused("State", "Prepare", "ssa{sv}", job, "destination", {})
        b.refused("State", "Prepare", "ssa{sv}", job, "source", {})
        a.prepare(job, "source")
        a.refused("Busy", "Prepare", "ssa{sv}", other, "source", {})
        a.refused("Job", "Resume", "s", other)
        for method in ("Seal", "Start", "Discard"):
            a.refused("State", method, "s", job)
        a.refused("State", "TakeDirtyPages", "sttth", job, 0, PAGE, 1, 0, files=[a.s.fileno()])
        a.call("Pause", "s", job)
        for method in ("Seal", "Start", "Discard"):
            a.refused("State", method, "s", job)
        b.prepare(job, "destination")
        self.assertEqual(b.call("GetState"), ["incoming", job])
        for method in ("Start", "Pause", "Seal", "Resume"):
            b.refused("State", method, "s", job)
        a.call("Resume", "s", job)
        a.refused("State", "Seal", "s", job)
        b.call("Discard", "s", job)
        b.refused("State", "Start", "s", job)
        a.prepare(other, "source")
        self.assertEqual(a.call("GetState"), ["running", other])
        a.wait_steps()

    def test_what_is_done_is_not_done_again(self):
        a, b = self.pair()
        job = self.go_over(a, b)
        for vmm, method in ((a, "Pause"), (a, "Seal")):
            vmm.call(method, "s", job)
        a.prepare(job, "source")
        b.prepare(job, "destination")
        near, far = self.sockets()
        a.call("Save", "sh", job, 0, files=[near.fileno()])
        b.call("Load", "sh", job, 0, files=[near.fileno()])
        far.settimeout(0.1)
        with self.assertRaises(socket.timeout):
            far.recv(1)
        self.arrive(a, b, job)
        for vmm, method in ((a, "Discard"), (b, "Start")):
            vmm.call(method, "s", job)
        b.refused("State", "Discard", "s", job)
        b.wait_steps()

    def test_calls_that_come_again_share_the_end(self):
        a, b = self.pair()
        job = new_uuid()
        a.command("faults", hang="Pause")
        a.prepare(job, "source")
        with Bus(self.host.bus_address) as second:
            serials = [a.start("Pause", "s", job) for _ in range(3)]
            theirs = a.start("Pause", "s", job, using=second)
            wait_for("the VM to stand", lambda: a.state() == "paused")
            self.assertFalse(set(serials) & set(a.bus.replies))
            a.command("faults")
            answers = [a.finish(serial) for serial in serials] + [second.finish(theirs)]
        self.assertEqual(len({tuple(answer) for answer in answers}), 1)
        a.call("Resume", "s", job)
        a.wait_steps()

    def test_faults_that_it_is_told(self):
        a, b = self.pair()
        job, (out, into) = new_uuid(), self.sockets()
        a.prepare(job, "source")
        a.command("faults", **{"never-converge": True})
        b.prepare(job, "destination")
        load = b.start("Load", "sh", job, 0, files=[into.fileno()])
        save = a.start("Save", "sh", job, 0, files=[out.fileno()])
        with self.assertRaises(AssertionError):
            a.bus.finish(save, 1)
        a.command("faults", fail="Pause")
        a.finish(save)
        self.assertEqual(a.refused("Failed", "Pause", "s", job), "it was told to fail")
        a.call("Pause", "s", job)
        a.bus.match("type='signal',interface='org.migmgr1.Delegate',member='Resumed'")
        a.command("resume")
        a.bus.wait("the signal", lambda: [m for m in a.bus.signals if m.member == "Resumed"])
        self.assertEqual((a.state(), a.bus.signals[-1].args), ("running", [job]))
        with self.assertRaises(BusError):
            b.finish(load)
        b.call("Discard", "s", job)
        a.wait_steps()

    def test_a_preparation_can_be_discarded(self):
        self.worker("d0")
        b = self.vmm("b", "--incoming")
        self.workers["d0"].close()
        os.unlink(self.workers.pop("d0").path)
        job, start = new_uuid(), time.monotonic()
        prepare = b.start("Prepare", "ssa{sv}", job, "destination", {})
        self.assertEqual(b.state(), "incoming")
        b.call("Discard", "s", job)
        with self.assertRaises(BusError) as caught:
            b.finish(prepare)
        self.assertEqual(caught.exception.name, ERROR + "Failed")
        self.assertLess(time.monotonic() - start, 3 * PACE)
        self.assertEqual(b.state(), "none")

    def test_only_root_and_migmgrd(self):
        vmm = self.vmm("a")
        with Bus(self.host.bus_address, uid=NOBODY) as nobody:
            for method, *args in (("GetState",), ("Pause", "s", "x")):
                with self.assertRaises(BusError) as caught:
                    nobody.finish(vmm.start(method, *args, using=nobody))
                self.assertEqual(caught.exception.name, "org.freedesktop.DBus.Error.AccessDenied")
            nobody.bus("RequestName", "su", "org.migmgr1", 0)
            self.assertEqual(nobody.finish(vmm.start("GetState", using=nobody)), ["running", ""])

    def test_what_it_says_of_itself(self):
        vmm = self.vmm("a", "--no-dirty-pages", "--viommu", "--isolated=/run/a", "--isolated=gpu")
        said = vmm.bus.call(vmm.bus_name, PATH, "org.freedesktop.DBus.Properties", "GetAll", "s", "org.migmgr1.Delegate")[0]
        self.assertRegex(said.pop("Vmm"), "^migmgr-test-vmm [0-9.]+$")
        self.assertEqual(said, {"Version": 1, "Uuid": self.uuid, "TakesDirtyPages": False, "VIommu": True,
                                "IsolatedDevices": ["/run/a", "gpu"]})

    def test_its_interface_is_the_contract(self):
        vmm = self.vmm("a")
        text = vmm.bus.call(vmm.bus_name, PATH, "org.freedesktop.DBus.Introspectable", "Introspect")[0]
        with open(os.path.join(TOP, "docs", "dbus", "org.migmgr1.Delegate.xml")) as f:
            contract = shape(f.read())
        self.assertEqual({k: v for k, v in shape(text).items() if k in contract}, contract)

    def test_dirty_pages_must_be_there(self):
        a, _ = self.pair()
        job, (out, into) = new_uuid(), self.sockets()
        a.prepare(job, "source")
        save = a.start("Save", "sh", job, 0, files=[out.fileno()])
        threading.Thread(target=Stream.pump, args=(self, into, None), daemon=True).start()
        a.call("Pause", "s", job)
        short, low = dirty_file([], 0, PAGE), 0x40000000
        for text, address, size, pages in (("out of range", 0, PAGE, 1), ("out of range", low, 0, 1),
                                           ("out of range", low, PAGE, 0), ("out of range", low, PAGE, 1 << 62),
                                           ("out of range", low, PAGE, 2049), ("No data", low, PAGE, 2048)):
            self.assertIn(text, a.refused("Failed", "TakeDirtyPages", "sttth", job, address, size, pages, 0, files=[short]))
        os.close(short)
        a.call("Resume", "s", job)
        with contextlib.suppress(BusError):
            a.finish(save)
        a.wait_steps()

    def test_it_finds_the_bus_again(self):
        self.worker("d0")
        vmm = self.vmm("a")
        self.host.bus.kill()
        vmm.bus.close()
        os.unlink(os.path.join(self.host.dir, "bus"))
        self.host.start_bus()
        vmm.bus = Bus(self.host.bus_address)
        wait_for("its name", lambda: vmm.bus.bus("NameHasOwner", "s", vmm.bus_name)[0])
        self.assertEqual(vmm.state(), "running")
        vmm.wait_steps()


class Program(Case):
    def run_it(self, *args):
        p = subprocess.run([program("migmgr-test-vmm"), *args], capture_output=True, text=True, timeout=60)
        return p.returncode, p.stdout, p.stderr

    def test_arguments(self):
        good = {"--uuid": new_uuid(), "--bus-address": self.host.bus_address, "--bus-name": VM}
        for change, text in (({"--uuid": "x"}, "--uuid"), ({"--bus-name": "7"}, "--bus-name"), ({"--memory": "15"}, "--memory"),
                             ({"--memory": "4097"}, "--memory"), ({"--device": "x"}, "--device"),
                             ({"--device": "=/x"}, "--device"), ({"--object-path": "x"}, "--object-path"),
                             ({"--ready-fd": "x"}, "--ready-fd"), ({"--nonsense": ""}, "nonsense")):
            status, _, err = self.run_it(*[f"{k}={v}" for k, v in (good | change).items()])
            self.assertEqual(status, 2, change)
            self.assertIn(text, err)
        for missing in good:
            status, _, err = self.run_it(*[f"{k}={v}" for k, v in good.items() if k != missing])
            self.assertEqual((status, missing in err), (2, True))
        self.assertEqual(self.run_it("--help")[0], 0)

    def test_it_ends_when_told_to_whatever_it_does(self):
        a, b = self.pair()
        job = new_uuid()
        b.prepare(job, "destination")
        for vmm in (a, b):
            vmm.process.p.terminate()
            self.assertEqual(vmm.process.p.wait(10 * PACE), 0, vmm.process.output())

    def maps(self, pid):
        """Of memory and windows."""
        with open(f"/proc/{pid}/maps") as f:
            return f.read().count("memfd:")

    def test_it_ends_while_it_waits_for_a_device(self):
        p = Process(self.lab, "waits", [program("migmgr-test-vmm"), "--uuid=" + self.uuid, "--bus-name=" + VM,
                                        "--bus-address=" + self.host.bus_address, f"--device=d0={self.lab.dir}/none"])
        wait_for("it to begin", lambda: self.maps(p.pid) > 0)
        p.p.terminate()
        self.assertEqual(p.p.wait(3 * PACE), 1, p.output())

    def test_it_says_when_it_is_ready(self):
        read, write = os.pipe()
        p = Process(self.lab, "ready", [program("migmgr-test-vmm"), "--uuid=" + self.uuid, "--bus-name=" + VM, "--incoming",
                                        "--bus-address=" + self.host.bus_address, f"--ready-fd={write}"], pass_fds=[write])
        os.close(write)
        with os.fdopen(read) as f:
            self.assertEqual(f.readline(), "ready\n")
        with Bus(self.host.bus_address) as said:
            self.assertEqual(said.bus("NameHasOwner", "s", VM), [True])
        p.stop()

    def test_nothing_is_left_of_a_thousand_preparations(self):
        self.worker("d0")
        vmm = self.vmm("b", "--incoming")
        sizes = []
        for i in range(1000):
            job = new_uuid()
            vmm.prepare(job, "destination")
            vmm.call("Discard", "s", job)
            if i in (200, 999):
                with open(f"/proc/{vmm.process.pid}/statm") as f:
                    rss = int(f.read().split()[1])
                sizes.append((len(os.listdir(f"/proc/{vmm.process.pid}/fd")),
                              len(os.listdir(f"/proc/{vmm.process.pid}/task")), self.maps(vmm.process.pid), rss))
        self.assertEqual(sizes[0][:3], sizes[1][:3])
        with open(program("migmgr-test-vmm"), "rb") as f:
            sanitized = b"__asan_init" in f.read()
        if not sanitized:  # which keeps what was freed
            self.assertLess(sizes[1][3] - sizes[0][3], 64, "pages of memory")


if __name__ == "__main__":
    unittest.main()
