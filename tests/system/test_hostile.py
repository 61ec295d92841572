# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whoever reaches a socket of ours and means no good, or is merely broken: nobody crashes, hangs or leaks, and what others
do there comes to its definite end. Waiting is always for something."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

from lab import PACE, Lab, definition, new_uuid, wait_for

NOBODY = 65534
HELPER_MAGIC = 0x3148474d
CONNECT_DEVICE = 1
LINK_MESSAGE_MAX = FRAME_MAX = 1 << 20

# A job must outlive what is done to it, and one that is left alone must end in the time of the test.
CONFIG = {"deadlines-msec": {p: round(1500 * PACE) for p in (
    "check", "prepare", "halt", "p2p-grace", "drain", "intake", "handover", "arrival-grace", "run-devices", "run",
    "release")}, "connect-msec": round(500 * PACE), "doubt-msec": 1000}


def fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.lab.__enter__()
        cls.addClassCleanup(cls.lab.__exit__, None, None, None)
        cls.a, cls.b = (cls.lab.host(name, config=CONFIG) for name in ("a", "b"))
        cls.hosts = (cls.a, cls.b)
        cls.numbers = iter(range(1, 1000))

    def tearDown(self):
        for host in self.hosts:
            for p in (host.daemon, host.helper):
                self.assertTrue(p.alive(), p.output()[-4000:])
                self.assertNotRegex(p.output(), "Sanitizer|runtime error", p.name)

    def connect(self, path, kind=socket.SOCK_STREAM):
        s = socket.socket(socket.AF_UNIX, kind)
        s.settimeout(10 * PACE)
        wait_for(path, lambda: s.connect_ex(path) == 0)
        self.addCleanup(s.close)
        return s


class Helper(Case):
    def packet(self, request, *strings, number=1, magic=HELPER_MAGIC, n=None):
        text = b"".join(s.encode() + b"\0" for s in strings)
        return struct.pack("=IIIiqII", magic, request, number, 0, 0, len(strings) if n is None else n, 0) + text

    def helper(self):
        return self.connect(os.path.join(self.a.runtime, "helper.sock"), socket.SOCK_SEQPACKET)

    def test_whoever_asks_faster_than_he_reads_gets_every_answer(self):
        s = self.helper()
        sent = 0
        # Until nothing moves any more: the helper has answers that we do not read, and we have requests it does not take.
        while sent < 3000 and select.select([], [s], [], 0.5)[1]:
            s.send(self.packet(CONNECT_DEVICE, "/nowhere", number=sent))
            sent += 1
        numbers = [struct.unpack_from("=III", s.recv(65536))[2] for _ in range(sent)]
        self.assertEqual(numbers, list(range(sent)))
        self.assertGreater(sent, 200)


if __name__ == "__main__":
    unittest.main()
