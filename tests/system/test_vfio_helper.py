# SPDX-License-Identifier: LGPL-2.1-or-later
"""migmgr-helper and a stock QEMU that has real VFIO devices: duplicates of its device files, its migration thread held. In the
guest of tests/system/vfio-guest."""

import os
import time
import unittest

import vfio_guest
from lab import Lab, wait_for
from test_helper import DUPLICATE, Helper, process_id
from vfio_guest import Mdev, Side, VfioGuest
from vfio_uapi import PRE_COPY, PRE_COPY_P2P, RUNNING, RUNNING_P2P, Device

DEVICES = 2


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        vfio_guest.load()

    def setUp(self):
        self.lab = Lab()
        self.addCleanup(self.lab.close)
        self.helper = Helper(self.lab)
        self.addCleanup(self.helper.close)
        self.a, self.b = Side(self.lab, "a"), Side(self.lab, "b")
        self.mdevs = {side.name: [Mdev() for _ in range(DEVICES)] for side in (self.a, self.b)}
        self.lab.hosts = []
        self.guest = VfioGuest(self.lab, "vm", self.mdevs)
        self.guest.start(self.a)
        self.pid = self.guest.qemus(self.a)[0]

    def duplicate(self, path):
        status, fd, text = self.helper.ask(DUPLICATE, *process_id(self.pid), path)
        return Device(fd) if status == 0 else (status, text)

    def test_a_duplicate_is_the_device_that_was_asked_for(self):
        for mdev in self.mdevs["a"]:
            with self.duplicate(mdev.path) as device:
                self.assertEqual(device.state(), RUNNING)
                self.assertEqual(device.set(RUNNING_P2P), (0, -1))
                self.assertEqual(mdev.status()["state"], "RUNNING_P2P")
                self.assertEqual([m.status()["state"] for m in self.mdevs["a"] if m is not mdev], ["RUNNING"])
                device.set(RUNNING)
        self.assertEqual(self.duplicate(self.mdevs["b"][0].path)[0], -2)  # it has not opened that one
        self.guest.wait_counts(5)
        self.assertEqual(self.guest.verdict(), (0, 0, [0] * DEVICES))

    def test_who_may_not_trace_is_told_why(self):
        weak = Helper(self.lab, "weak", wrap=["setpriv", "--bounding-set", "-sys_ptrace"])
        self.addCleanup(weak.close)
        status, fd, text = weak.ask(DUPLICATE, *process_id(self.pid), self.mdevs["a"][0].path)
        self.assertIn(status, (-1, -13))
        self.assertEqual(fd, -1)
        self.assertIn("CAP_SYS_PTRACE", text)

    def test_the_migration_thread_stands_while_the_guest_and_the_monitor_go_on(self):
        incoming = self.guest.start_incoming(self.b)
        self.assertTrue(incoming.alive())
        path = os.path.join(self.lab.dir, "migration")
        devices = [self.duplicate(m.path) for m in self.mdevs["a"]]
        with self.guest.look(self.a) as source, self.guest.look(self.b) as destination:
            for monitor in (source, destination):
                monitor.command("migrate-set-capabilities", capabilities=[
                    {"capability": c, "state": True} for c in ("events", "return-path", "pause-before-switchover")])
            destination.command("migrate-incoming", uri="unix:" + path)
            source.command("migrate-set-parameters", **{"max-bandwidth": 1024, "downtime-limit": 1})
            source.command("migrate", uri="unix:" + path)
            wait_for("it to be active", lambda: source.command("query-migrate").get("status") == "active")
            time.sleep(0.1)  # it has only just begun, and is in a lock more often than not
            begun = time.monotonic()
            hold, said = self.helper.hold(self.pid)
            self.assertEqual(said, b"\0")
            took = time.monotonic() - begun
            source.command("migrate-set-parameters", **{"max-bandwidth": 1 << 30, "downtime-limit": 300})
            self.guest.wait_counts(10)
            self.assertEqual([d.state() for d in devices], [PRE_COPY] * DEVICES)
            self.assertEqual([d.set(PRE_COPY_P2P) for d in devices], [(0, -1)] * DEVICES)
            hold.close()
            wait_for("it to halt", lambda: source.command("query-migrate").get("status") == "pre-switchover")
            print(f"held within {took * 1000:.1f} ms")
        for d in devices:
            d.close()


if __name__ == "__main__":
    vfio_guest.main()
