#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernel VFIO devices that migmgr opens itself and moves: two migmgrd in one guest, mdevs of mtty on both sides, no VMM.

What a driver does wrong is told to it (vfio-guest/mtty-control.h): in every phase each has one definite end, and the devices can
be opened afterwards.
"""

import errno
import os
import signal
import socket
import struct
import tempfile
import threading
import time
import unittest
import uuid

import vfio_guest
import vfio_uapi
from lab import Lab, TestVmm, is_alive, wait_for
from test_broker import OP_GET, OP_RESET, OP_SET, OPEN, RESULT, Agent
from vfio_guest import Mdev
from vfio_uapi import PRE_COPY, PRE_COPY_P2P, RESUMING, RUNNING, RUNNING_P2P, STOP, STOP_COPY

OP_CLOSE, OP_NUDGE, OP_EXPECT = 6, 13, 14  # DeviceOpType
SUPERVISED_FLAG, KERNEL_FLAG = 1 << 10, 1 << 11
AGENT_TEXT = 256

BAR0, SCRATCH = 0, 7  # the UART's scratch register
DEADLINES = {"check": 1000, "prepare": 1000, "p2p-grace": 1000, "drain": 2000, "precopy": 2000, "intake": 1000,
             "arrival-grace": 1000, "run-devices": 1000, "release": 1000, "handover": 1000}


def scratch(mdev, value=None):
    """Reads or writes the register that goes with the state. Nobody has the device open."""
    with mdev.open("cdev" if mdev.cdev else "group") as device:
        if value is not None:
            device.write(BAR0, SCRATCH, bytes([value]))
        return device.read(BAR0, SCRATCH, 1)[0]


def opens(mdev):
    """Somebody else can have it."""
    try:
        mdev.open("cdev" if mdev.cdev else "group").close()
        return True
    except OSError:
        return False


class World:
    """Two hosts and a set of `n` devices, which is on the first; there they may have another number of ports."""

    def __init__(self, n=2, ports=1, ports_there=None, plugins=(), **config):
        self.lab = Lab()
        self.a, self.b = (self.lab.host(name, config={"policy": {"deadline-ms": DEADLINES}, **config}, plugins=plugins)
                          for name in "ab")
        self.mdevs = {"a": [Mdev(ports) for _ in range(n)], "b": [Mdev(ports_there or ports) for _ in range(n)]}
        self.uuid = str(uuid.uuid4())
        for i, (there, here) in enumerate(zip(self.mdevs["a"], self.mdevs["b"])):
            scratch(there, 0x40 + i)
            scratch(here, 0)
        self.register()

    def definition(self, host):
        return {"name": "set", "uuid": self.uuid, "vmm": {"type": "none"},
                "devices": [{"id": f"d{i}", "type": "vfio", "sysfs": m.path} for i, m in enumerate(self.mdevs[host.name])]}

    def register(self):
        self.a.register(self.definition(self.a))
        self.b.register(self.definition(self.b), incoming=True)

    def move(self, source, destination, *args):
        return source.migrate("set", destination, *args)

    def states(self, host):
        return [m.status()["state"] for m in self.mdevs[host.name]]

    def rest(self):
        for m in sum(self.mdevs.values(), []):
            m.order("rest")

    def release(self):
        """Unregisters everywhere; then every device can be had by others."""
        for host in (self.a, self.b):
            host.migctl("unregister", "set")
        for m in sum(self.mdevs.values(), []):
            wait_for(f"{m.uuid} to be let go", lambda m=m: opens(m), 15)

    def close(self):
        self.rest()
        self.lab.close()
        for m in sum(self.mdevs.values(), []):
            wait_for(f"{m.uuid} to be let go", lambda m=m: opens(m), 15)
            m.remove()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if exc[0]:
            for host in (self.a, self.b):
                print(f"---- {host.name}\n" + "\n".join(host.daemon.output().splitlines()[-40:]))
        self.close()


class KernelAgent(Agent):
    """An agent with a kernel device in its hand, and its commander in the tester's."""

    def __init__(self, mdev, supervised=False):
        self.folder = tempfile.TemporaryDirectory()
        super().__init__(self.folder.name, None)
        self.device = mdev
        self.mdev = mdev.open("cdev" if mdev.cdev else "group")
        self.seq += 1
        socket.send_fds(self.s, [struct.pack("=IIIBBHQII512x", 0x3147414d, OPEN, self.seq, 1, supervised, 0, 2000000, 0, 0)],
                        [self.mdev.fd])
        self.opened = self.result()

    def text(self, *ops, deadline=0):
        """(status, state, text) of a program."""
        self.start_run(*ops, deadline=deadline)
        packet = self.hear(RESULT)
        return (struct.unpack_from("=Ii", packet)[1], (*vfio_uapi.STATES, "unknown")[struct.unpack_from("=IiIIIII", packet)[6]],
                packet[-AGENT_TEXT:].split(b"\0")[0].decode())

    def close(self):
        self.device.order("release")  # nobody ends before his call
        super().close()
        self.mdev.close()
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class ByHand(unittest.TestCase):
    """What the agent refuses before the kernel sees it, and how it looks before it sets."""

    def setUp(self):
        vfio_guest.load()
        self.mdev = Mdev()
        self.addCleanup(self.forget)

    def forget(self):
        self.mdev.order("rest")
        wait_for("the device to be let go", lambda: opens(self.mdev), 15)
        self.mdev.remove()

    def sets(self):
        return sum(self.mdev.status()["set"].values())

    def test_what_is_read_of_it(self):
        with KernelAgent(self.mdev) as agent:
            status, flags, state = agent.opened
            self.assertEqual((status, flags & 0x7, flags & KERNEL_FLAG, flags & SUPERVISED_FLAG, state),
                             (0, 7, KERNEL_FLAG, 0, vfio_uapi.RUNNING))
        with KernelAgent(self.mdev, supervised=True) as agent:
            self.assertTrue(agent.opened[1] & SUPERVISED_FLAG)

    def test_arcs_that_are_not_ours_are_never_asked_for(self):
        """The kernel's own counts say so."""
        with KernelAgent(self.mdev) as agent:
            agent.set(RUNNING, RUNNING_P2P, STOP, STOP_COPY)
            before = self.sets()
            for to in (PRE_COPY, PRE_COPY_P2P):
                status, state, text = agent.text((OP_SET, STOP_COPY, to))
                self.assertEqual((status, state), (-errno.EINVAL, "STOP_COPY"))
                self.assertIn("not asked for", text)
            self.assertEqual(self.sets(), before)
            agent.run((OP_RESET, 0, 0))
        with KernelAgent(self.mdev, supervised=True) as agent:
            before = self.sets()
            for to in (PRE_COPY, STOP_COPY, RESUMING, STOP):
                status, state, text = agent.text((OP_SET, RUNNING, to))
                self.assertEqual((status, state), (-errno.EPERM, "RUNNING"), text)
            self.assertEqual(self.sets(), before)
            agent.set(RUNNING, RUNNING_P2P, STOP, RUNNING_P2P, RUNNING)

    def test_a_nudge_looks_first(self):
        with KernelAgent(self.mdev, supervised=True) as agent:
            self.assertEqual(agent.text((OP_NUDGE, RUNNING, RUNNING_P2P))[:2], (0, "RUNNING_P2P"))
            before = self.sets()
            self.assertEqual(agent.text((OP_NUDGE, RUNNING, RUNNING_P2P))[:2], (0, "RUNNING_P2P"))
            self.assertEqual(agent.text((OP_EXPECT, RUNNING_P2P, STOP))[:2], (0, "RUNNING_P2P"))
            self.assertEqual(agent.text((OP_EXPECT, RUNNING, RUNNING_P2P))[:2], (0, "RUNNING_P2P"))
            for op, a, b in ((OP_NUDGE, RESUMING, STOP), (OP_EXPECT, RESUMING, STOP), (OP_EXPECT, STOP, STOP)):
                status, state, text = agent.text((op, a, b))
                self.assertEqual((status, state), (-errno.ESTALE, "RUNNING_P2P"))
                self.assertRegex(text, "reads running-p2p where (resuming or )?stop was due")
            self.assertEqual(self.sets(), before)

    def test_a_call_that_hangs_costs_its_deadline_and_no_more(self):
        with KernelAgent(self.mdev) as agent:
            self.mdev.order("hang", "RUNNING>RUNNING_P2P", 2, 1)
            status, _, text = agent.text((OP_SET, RUNNING, RUNNING_P2P), deadline=300000)
            self.assertEqual(status, -errno.ETIMEDOUT, text)
            status, _, text = agent.text((OP_GET, 0, 0), deadline=300000)
            self.assertEqual(status, -errno.ETIMEDOUT, text)
            self.mdev.order("release")
            wait_for("the late call's state", lambda: agent.text((OP_GET, 0, 0), deadline=300000)[:2] == (0, "RUNNING_P2P"))
            agent.set(RUNNING_P2P, RUNNING)

    def test_who_lets_go_does_not_wait_for_it(self):
        with KernelAgent(self.mdev) as agent:
            self.mdev.order("hang", "RUNNING>RUNNING_P2P", 2, 1)
            agent.start_run((OP_SET, RUNNING, RUNNING_P2P))
            wait_for("the call to hang", lambda: self.mdev.status()["hanging"])
            self.assertEqual(agent.text((OP_CLOSE, 0, 0))[0], 0)
            self.assertEqual(agent.s.recv(10), b"")
            self.mdev.order("release")
            agent.process.wait(10)

    def test_a_late_call_that_brings_a_data_file_leaves_none_open(self):
        with KernelAgent(self.mdev) as agent:
            agent.set(RUNNING, RUNNING_P2P, STOP)
            self.mdev.order("delay", "STOP>STOP_COPY", 600000)
            self.assertEqual(agent.text((OP_SET, STOP, STOP_COPY), deadline=200000)[0], -errno.ETIMEDOUT)
            wait_for("the late call", lambda: agent.text((OP_GET, 0, 0), deadline=300000)[:2] == (0, "STOP_COPY"))
            agent.set(STOP_COPY, STOP)
            self.assertEqual([v for v in vfio_uapi.links(agent.process.pid).values() if "mtty" in v], [])


class Moves(unittest.TestCase):
    def setUp(self):
        vfio_guest.load()

    def test_there_and_back(self):
        with World(3) as w:
            for here, there in ((w.a, w.b), (w.b, w.a), (w.a, w.b)):
                status, job = w.move(here, there)
                self.assertEqual((status, job["result"]), (0, "done"), job)
                self.assertEqual(w.states(there), ["RUNNING"] * 3)
            w.release()
            self.assertEqual([scratch(m) for m in w.mdevs["b"]], [0x40, 0x41, 0x42])

    def test_what_is_shown_of_them(self):
        with World(1) as w:
            d = w.a.devices("set")["d0"]
            self.assertEqual((d["Type"], d["State"], d["Open"]), ("vfio", "running", True))
            report = w.a.json("check", "set", w.b.dest)[1]
            self.assertTrue(report["ok"], report)
            d, = report["devices"]
            self.assertRegex(d["driver"], "mtty")
            # Its own config space tells what it is, and the kernel what type it was made of.
            self.assertEqual((d["device"], d["isolation"]), ("4348:3253", "full"))
            self.assertRegex(d["facts"]["mdev-type"], "^mtty-")
            self.assertRegex(d["facts"]["class"], "^[0-9a-f]{6}$")
            self.assertEqual([(x["basis"], x["bytes"]) for x in report["blackout"]["devices"]], [("size", 60)])
            self.assertEqual((report["blackout"]["basis"], report["blackout"]["usec"]), ("size", 1))


    def test_plugins_know_them(self):
        plugins = ["plugins/mtty.so", "plugins/pci-identity.so", "plugins/vfio-user-identity.so"]
        with World(1, plugins=plugins) as w:
            report = w.a.json("check", "set", w.b.dest)[1]
            self.assertTrue(report["ok"], report)
            d, = report["devices"]
            self.assertEqual((d["plugins"], d["facts"]["mtty.type"], d["facts"]["mtty.judges"]), (["mtty"], "mtty-1", "yes"))
            status, job = w.move(w.a, w.b)
            self.assertEqual((status, job["result"]), (0, "done"), job)
        with World(1, ports_there=2, plugins=plugins) as w:
            status, report = w.a.json("check", "set", w.b.dest)
            self.assertEqual(status, 6, report)
            self.assertIn(("d0", "plugin mtty", "mtty.type is mtty-1 at the source, mtty-2 here"),
                          [(f["device"], f["property"], f["destination"]) for f in report["findings"]])


class Delegated(unittest.TestCase):
    """The VMM has the device open, and gives its file away."""

    def setUp(self):
        vfio_guest.load()

    def test_there_and_back(self):
        with Lab() as lab:
            hosts = [lab.host("a"), lab.host("b")]
            mdevs, vms, vm = [Mdev(), Mdev()], [], str(uuid.uuid4())
            scratch(mdevs[0], 0x5a)
            scratch(mdevs[1], 0)
            for i, (host, mdev) in enumerate(zip(hosts, mdevs)):
                vms.append(TestVmm(lab, host, host.name, vm, {}, f"--vfio=uart={mdev.path}", *["--incoming"] * i))
                host.register({"name": "vm", "uuid": vm, "devices": [{"id": "d", "type": "vfio", "vmm-device": "uart"}],
                               "vmm": {"type": "delegate", "bus-name": vms[i].bus_name, "object-path": "/vm"}}, incoming=i > 0)
            for n in range(3):
                status, job = hosts[n % 2].migrate("vm", hosts[1 - n % 2])
                self.assertEqual((status, job["result"]), (0, "done"), job)
                self.assertEqual(mdevs[1 - n % 2].status()["state"], "RUNNING")
            self.assertEqual(hosts[1].devices("vm")["d"]["Mode"], "owned")
            for host, v in zip(hosts, vms):
                host.migctl("unregister", "vm")
                v.close()
            for mdev in mdevs:
                wait_for("the device to be let go", lambda m=mdev: opens(m), 15)
            self.assertEqual(scratch(mdevs[1]), 0x5a)
            for mdev in mdevs:
                mdev.remove()


class Resets(unittest.TestCase):
    def setUp(self):
        vfio_guest.load()

    def reset(self, host, *args):
        return host.json("reset", "--yes", "set", *args)

    def test_by_its_file(self):
        with World(1) as w:
            self.assertEqual(self.reset(w.a), (0, [{"device": "d0", "state": "running", "method": "VFIO_DEVICE_RESET"}]))
            self.assertEqual(w.mdevs["a"][0].status()["resets"], 1)

    def test_one_that_cant_be_reset_is_in_quarantine_until_it_can(self):
        with World(1) as w:
            w.mdevs["a"][0].order("reset-error", errno.EIO, -1)
            status, said = self.reset(w.a)
            self.assertNotEqual(status, 0)
            self.assertRegex(said["stderr"], "VFIO_DEVICE_RESET: .*reset of its function: .*no reset.*quarantine")
            self.assertIn("VFIO_DEVICE_RESET", w.a.devices("set")["d0"]["Quarantine"])
            status, job = w.move(w.a, w.b)
            self.assertEqual(job["result"], "refused", job)
            self.assertIn("quarantine", str(job["findings"]))
            w.mdevs["a"][0].order("rest")
            self.assertEqual(self.reset(w.a)[0], 0)
            self.assertEqual(w.a.devices("set")["d0"]["Quarantine"], "")
            self.assertEqual(w.move(w.a, w.b)[1]["result"], "done")


class Kills(unittest.TestCase):
    """Processes that die, and calls that hang, in the middle of a job. The job ends, and everybody lets go."""

    def setUp(self):
        vfio_guest.load()

    def slow(self, w, arc="PRE_COPY_P2P>STOP_COPY"):
        """A job that stays at that place for a moment. Returns its migctl."""
        w.mdevs["a"][0].order("delay", arc, 700000)
        job = w.a.migctl_start("--json=short", "migrate", "set", w.b.dest)
        wait_for("the place", lambda: w.mdevs["a"][0].status()["set"].get(arc), 10)
        return job

    def runs_somewhere(self, w):
        """On one side, all of them."""
        return wait_for("the set to run on one side", lambda: next(
            (h for h in (w.a, w.b) if w.states(h) == ["RUNNING"] * 2 and (h.vm("set") or {}).get("presence") == "here"), None), 30)

    def test_an_agent(self):
        for side in "ab":
            with self.subTest(side), World(2) as w:
                job = self.slow(w)
                os.kill((w.a if side == "a" else w.b).agents()[0], signal.SIGKILL)
                job.communicate(timeout=60)
                self.assertNotEqual(job.returncode, 0)
                self.runs_somewhere(w)
                w.release()

    def test_a_daemon(self):
        for side in "ab":
            with self.subTest(side), World(2) as w:
                host = w.a if side == "a" else w.b
                job = self.slow(w)
                host.daemon.kill()
                host.start_daemon()
                job.communicate(timeout=60)
                self.runs_somewhere(w)
                wait_for("both halves to end", lambda: all(j["State"] == "finished" for h in (w.a, w.b) for j in h.jobs()), 30)
                w.release()

    def test_a_helper(self):
        with World(2) as w:
            job = self.slow(w)
            w.a.helper.kill()
            out = job.communicate(timeout=60)[0]
            self.assertEqual(job.returncode, 0, out)
            w.a.start_helper()
            w.release()

    def test_an_agent_whose_call_hangs_is_left_alone(self):
        """kill -9 does not end it; the daemon is not held up, and has the device again when the kernel lets it go."""
        with World(1) as w:
            mdev = w.mdevs["a"][0]
            mdev.order("hang", "RUNNING>PRE_COPY", 2, 1)
            agent = w.a.agents()[0]
            job = w.a.migctl_start("--json=short", "migrate", "set", w.b.dest)
            wait_for("the call to hang", lambda: mdev.status()["hanging"])
            os.kill(agent, signal.SIGKILL)
            job.communicate(timeout=60)
            self.assertTrue(is_alive(agent))
            self.assertEqual(w.a.migctl("list")[0], 0)
            mdev.order("release")
            wait_for("the agent to end", lambda: not is_alive(agent))
            status, done = w.a.json("reset", "--yes", "set")
            self.assertEqual(status, 0, done)
            mdev.order("rest")
            self.assertEqual(w.move(w.a, w.b)[1]["result"], "done")
            w.release()

    def test_unregistering_does_not_wait_for_a_hung_call(self):
        with World(1) as w:
            mdev = w.mdevs["a"][0]
            mdev.order("hang", "RUNNING>PRE_COPY", 2, 1)
            w.move(w.a, w.b)
            began = time.monotonic()
            self.assertEqual(w.a.migctl("unregister", "set")[0], 0)
            self.assertLess(time.monotonic() - began, 2)
            self.assertFalse(opens(mdev))
            mdev.order("release")
            w.release()

    def test_removing_a_device_in_use_waits_and_blocks_nothing(self):
        with World(1) as w:
            mdev = w.mdevs["a"][0]
            remover = threading.Thread(target=mdev.remove)
            remover.start()
            wait_for("the removal to wait", lambda: not opens(mdev))
            self.assertEqual(w.move(w.a, w.b)[1]["result"], "done")
            remover.join(0.2)
            self.assertTrue(remover.is_alive() or not os.path.exists(mdev.path))
            w.a.migctl("unregister", "set")
            remover.join(20)
            self.assertFalse(remover.is_alive())
            w.mdevs["a"].clear()
            w.release()


# What the driver does at one place, on one side, and how the job must end.
SOURCE_ARCS = {"RUNNING>PRE_COPY": "precopy", "PRE_COPY>PRE_COPY_P2P": "p2p-grace", "PRE_COPY_P2P>STOP_COPY": "drain",
               "STOP_COPY>STOP": "drain"}
DESTINATION_ARCS = {"RUNNING>RUNNING_P2P": "prepare", "RUNNING_P2P>STOP": "prepare", "STOP>RESUMING": "prepare",
                    "RESUMING>STOP": "intake", "STOP>RUNNING_P2P": "arrival-grace"}
LAST_ARC = "RUNNING_P2P>RUNNING"


def faults():
    """(name, side, order, the device reads ERROR after it)"""
    for side, arcs in (("source", SOURCE_ARCS), ("destination", DESTINATION_ARCS)):
        for arc in arcs:
            yield f"{side} {arc} refuse", side, ("refuse", arc, errno.EIO, -1), False
            yield f"{side} {arc} error", side, ("error", arc, errno.EIO, 1), True
            yield f"{side} {arc} late", side, ("delay", arc, 4000000), False
            yield f"{side} {arc} hang", side, ("hang", arc, 2, 1), False
    for byte in (0, 10, 40):
        yield f"source read-error at {byte}", "source", ("read-error", byte, errno.EIO, 1), False
        yield f"destination write-error at {byte}", "destination", ("write-error", byte, errno.EIO, 1), False


class Faults(unittest.TestCase):
    """One fault of the driver each: the set goes on at the source, whole, or it is said what it has lost."""

    def setUp(self):
        vfio_guest.load()

    def one(self, name, side, order, is_error):
        with World(2) as w:
            bad = w.mdevs["a" if side == "source" else "b"][0]
            bad.order(*order)
            began = time.monotonic()
            status, job = w.move(w.a, w.b)
            took = time.monotonic() - began
            result = job.get("result")
            print(f"{name:50} {result:10} {took:5.1f} s  {job.get('error', {}).get('text', '')[:110]}")
            lost = side == "source" and (is_error or order[0] == "hang")
            if order[:2] == ("refuse", "RUNNING>PRE_COPY"):
                self.assertEqual(result, "done")  # it goes without pre-copy
            elif order[:2] == ("hang", "STOP>RUNNING_P2P"):
                self.assertEqual(result, "degraded")  # it may yet run: there is no way back, and it is named
            elif order[:2] == ("refuse", "STOP_COPY>STOP"):
                self.assertEqual(result, "degraded")  # it has to be reset
            elif order[0] != "delay":
                self.assertIn(result, ("degraded",) if lost else ("failed", "degraded") if side == "source" else ("failed",), job)
            if result in ("failed", "degraded") and order[0] not in ("hang", "delay"):
                wait_for("the source's devices to run", lambda: w.states(w.a) == ["RUNNING"] * 2)
            if result == "done":
                self.assertEqual(w.states(w.b), ["RUNNING"] * 2)
            w.rest()
            w.release()
            if result == "failed":
                self.assertEqual([scratch(m) for m in w.mdevs["a"]], [0x40, 0x41])
            if result == "done":
                self.assertEqual([scratch(m) for m in w.mdevs["b"]], [0x40, 0x41])

    def test_every_fault_has_one_end(self):
        pattern = os.environ.get("MIGMGR_ROWS", "")
        for row in faults():
            if pattern in row[0]:
                with self.subTest(row[0]):
                    self.one(*row)


if __name__ == "__main__":
    vfio_guest.main(seconds=600)
