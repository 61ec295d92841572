#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A delegate that gives away no device, or one that is none: the VM is not registered, and it is said what was wrong.

How devices move that it gives away rightly: test_vfio_owned.py.
"""

import os
import unittest
import uuid

from lab import TOP, Lab, Process, wait_for

NAME, PATH = "org.example.vmm.vm", "/org/example/vm"


class Lies(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.host = cls.lab.host("a")

    @classmethod
    def tearDownClass(cls):
        cls.lab.close()

    def refused(self, *options):
        """What `migctl register` says, with a delegate with these options."""
        vm = str(uuid.uuid4())
        fake = Process(self.lab, "fake-" + vm[:8], [
            "/usr/bin/python3", os.path.join(TOP, "tests/fake/delegate.py"), "--bus=" + self.host.bus_address,
            "--name=" + NAME, "--path=" + PATH, "--uuid=" + vm, "--state=running",
            "--serial=" + os.path.join(self.lab.dir, "serial"), "--state-file=" + os.path.join(self.lab.dir, "state"), *options])
        wait_for("the fake delegate", lambda: "ready\n" in fake.output())
        try:
            with self.assertRaises(AssertionError) as e:
                self.host.register({"name": "vm", "uuid": vm,
                                    "vmm": {"type": "delegate", "bus-name": NAME, "object-path": PATH},
                                    "devices": [{"id": "gpu", "type": "vfio", "vmm-device": "gpu0"}]})
            self.assertIsNone(self.host.vm("vm"))
            self.assertIn("device gpu", str(e.exception))
            return str(e.exception)
        finally:
            fake.kill()

    def test_it_has_none(self):
        self.assertIn('\\"gpu0\\" of its VMM: DeviceFile: ', self.refused("--fail=DeviceFile").replace('"gpu0"', '\\"gpu0\\"'))

    def test_a_file_that_is_no_vfio_device(self):
        self.assertIn("that is no file of a VFIO device", self.refused())

    def test_too_many_ranges_of_memory(self):
        self.assertIn("more than 32 ranges", self.refused("--memory=DeviceFile"))

    def test_memory_that_cant_be(self):
        self.assertIn("beyond the last address", self.refused("--lie=DeviceFile"))

    def test_another_answer(self):
        self.assertIn("is no (ha(tt))", self.refused("--nonsense=DeviceFile"))

    def test_it_leaves(self):
        self.refused("--leave=DeviceFile")

    def test_it_dies(self):
        self.refused("--die=DeviceFile")

    def test_it_does_not_answer(self):
        self.assertIn("its VMM does not say where it is", self.refused("--hang=DeviceFile"))


if __name__ == "__main__":
    unittest.main()
