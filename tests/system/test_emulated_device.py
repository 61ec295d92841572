# SPDX-License-Identifier: LGPL-2.1-or-later
"""The emulated device server, from outside: a raw vfio-user client written from the protocol, and an oracle that
restates the arcs of the uAPI and the rule for combining them.

The program comes from the build directory (environment variable MIGMGR_BUILD). Nothing here waits without a limit.
"""

import errno
import hashlib
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

from lab import program
from vfio_user import (VERSION, GET_INFO, REGION_READ, REGION_WRITE, DMA_READ, RESET, FEATURE, DATA_READ, DATA_WRITE,
                       NO_REPLY, ERROR_BIT, GET, SET, PROBE, MIGRATION, STATE, ERROR, STOP, RUNNING, STOP_COPY,
                       RESUMING, P2P, PRE_COPY, PRE_COPY_P2P, NAMES, MIB, LIMIT, Refused, Message, Wire, Client)

PROGRAM = program("migmgr-emulated-device")
UNSERVED = (0, 2, 3, 5, 6, 7, 8, 11, 12, 14, 15, 19, 255, 65535)


def crc32c(data, crc=0):
    crc ^= 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


class Control:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def ask(self, cmd, **members):
        self.socket.sendall(json.dumps({"cmd": cmd, **members}).encode() + b"\n")
        return json.loads(self.file.readline())

    def do(self, cmd, device=None, **members):
        reply = self.ask(cmd, **members, **({"device": device} if device else {}))
        assert reply.pop("ok") is True, reply
        return reply

    def status(self, device):
        return self.do("status", device)["devices"][0]

    def arcs(self, device):
        """The states that the device has passed since it was last asked, and what was wrong."""
        log = self.do("log", device, clear=True)["log"]
        return [(e["from"], e["to"], e["errno"]) for e in log if e["what"] == "arc"]


class Case(unittest.TestCase):
    """One process for each test, ended by its process id and expected to end well."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="ed-")
        self.processes = []

    def tearDown(self):
        try:
            self.stop()
        finally:
            self.directory.cleanup()

    def stop(self):
        while self.processes:
            process = self.processes.pop()
            if process.poll() is None:
                process.terminate()
            process.wait(LIMIT)
            process.stdout.close()
            said = process.stderr.read().decode()
            process.stderr.close()
            self.assertEqual((process.returncode, said), (process.expected, ""))

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def launch(self, *arguments, fds=()):
        process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   cwd=self.directory.name, pass_fds=fds)
        process.expected = 0
        self.processes.append(process)
        return process

    def start(self, *devices, options=(), control=True):
        """Devices are named a, b, ...; each is given as its further keys."""
        names = [f"socket={self.path(chr(ord('a') + i))},{keys}".rstrip(",") for i, keys in enumerate(devices)]
        more = [f"--control={self.path('control')}"] if control else []
        read, write = os.pipe()
        self.process = self.launch(*more, *options, f"--ready-fd={write}", *names, fds=(write,))
        os.close(write)
        ready = select.select([read], [], [], LIMIT)[0] and os.read(read, 100)
        os.close(read)
        self.assertEqual(ready, b"ready\n", self.process.poll() and self.process.stderr.read().decode())
        self.assertEqual(self.process.stdout.readline(), b"ready\n")
        self.control = Control(self.path("control")) if control else None
        if control:
            self.addCleanup(self.control.close)

    def client(self, name="a", capabilities=None, **more):
        client = Client(self.path(name), capabilities, **more)
        self.addCleanup(client.close)
        return client

    def refused(self, number, function, *arguments, **more):
        with self.assertRaises(Refused) as caught:
            function(*arguments, **more)
        self.assertEqual(caught.exception.errno, number)

    def until(self, condition):
        limit = time.monotonic() + LIMIT
        while not condition():
            self.assertLess(time.monotonic(), limit, "it never came")
            time.sleep(0.002)

    def fault(self, text, device="a"):
        self.control.do("fault", device, fault=text)

    def ended(self, status):
        self.process.expected = status
        self.assertEqual(self.process.wait(LIMIT), status)


class Negotiation(Case):
    def test_our_capabilities_are_those_of_libvfio_user(self):
        self.start("", "migration=off,max-data=64K")
        said = self.client().version  # bound for reading; the first VERSION was without JSON
        self.refused(errno.EINVAL, said, {})
        client = self.client("b", negotiate=False)
        self.assertEqual(client.version({"max_msg_fds": 8}), {"max_msg_fds": 8, "max_data_xfer_size": 65536})
        client.close()
        self.until(lambda: not self.control.status("b")["connected"])

    def test_the_page_size_is_said_when_there_is_migration(self):
        self.start("")
        page = os.sysconf("SC_PAGESIZE")
        said = self.client(negotiate=False).version({"migration": {"pgsize": page, "max_bitmap_size": 5}})
        self.assertEqual(said, {"max_msg_fds": 8, "max_data_xfer_size": MIB, "migration": {"pgsize": page}})

    def test_the_minor_number_is_the_smaller_one(self):
        self.start("")
        for minor, said in ((0, 0), (1, 1), (2, 2), (3, 2), (65535, 2)):
            client = self.client(negotiate=False)
            client.version(minor=minor)
            self.assertEqual(client.said, (0, said))
            client.close()

    def test_bad_versions_are_refused_and_closed(self):
        def capable(text):
            return b'{"capabilities":{' + text + b"}}\0"

        bad = (b"{", b"{\0", b"\0", b"[]\0", b"7\0", b'{"capabilities":[]}\0', b'{"capabilities":{}}',
               b'{"capabilities":{}} x\0', capable(b'"max_msg_fds":-1'), capable(b'"max_msg_fds":1025'),
               capable(b'"max_msg_fds":"8"'), capable(b'"max_data_xfer_size":-1'), capable(b'"max_data_xfer_size":{}'),
               capable(b'"twin_socket":true'), capable(b'"twin_socket":{"supported":1}'),
               capable(b'"migration":{"pgsize":512}'), capable(b'"migration":7'))
        self.start("")
        for raw in bad:
            with self.subTest(raw=raw):
                client = self.client(negotiate=False)
                self.refused(errno.EINVAL, client.version, raw=raw)
                self.assertTrue(client.is_closed())
        client = self.client(negotiate=False)
        self.refused(errno.EINVAL, client.version, major=1)
        self.assertTrue(client.is_closed())
        for raw in (b"", b"{}\0", capable(b""), capable(b'"what":{"is":["this"]}'), capable(b'"max_msg_fds":1024')):
            client = self.client(negotiate=False)
            client.version(raw=raw)
            client.close()

    def test_the_first_message_is_version_without_files(self):
        self.start("")
        for command, payload, fds in ((GET_INFO, bytes(16), ()), (RESET, b"", ()), (77, bytes(16), ()),
                                      (VERSION, bytes(2), ()), (VERSION, struct.pack("=HH", 0, 2), (0,))):
            client = self.client(negotiate=False)
            self.refused(errno.EINVAL, client.call, command, payload, fds=fds)
            self.assertTrue(client.is_closed())

    def test_a_twin_socket_is_granted_when_asked_for(self):
        asked = {"max_msg_fds": 1, "twin_socket": {"supported": True}}
        self.start("", "twin-socket=off")
        client = self.client(negotiate=False)
        self.assertEqual(client.version(asked)["twin_socket"], {"supported": True, "fd_index": 0})
        self.assertTrue(client.twin.is_silent(0))
        client.close()
        for name, capabilities in (("b", asked), ("a", {**asked, "max_msg_fds": 0}),
                                   ("a", {"twin_socket": {"supported": False}}), ("a", {"twin_socket": {}}), ("a", {})):
            client = self.client(name, negotiate=False)
            self.assertNotIn("twin_socket", client.version(capabilities))
            self.assertIsNone(client.twin)
            client.close()

    def test_the_client_s_limit_holds_for_migration_data(self):
        self.start("", "max-data=64K,size=1M")
        client = self.client(capabilities={"max_data_xfer_size": 1000})
        client.set(STOP_COPY)
        self.assertEqual(len(client.read(1000)), 1000)
        self.refused(errno.EINVAL, client.read, 1001)
        client.set(RESUMING)
        client.write(bytes(1000))
        self.refused(errno.EINVAL, client.write, bytes(1001))
        nothing = self.client("b", {"max_data_xfer_size": 0})
        nothing.set(STOP_COPY)
        self.refused(errno.EINVAL, nothing.read, 1)
        self.assertEqual(nothing.read(0), b"")
        nothing.close()
        ours = self.client("b", {"max_data_xfer_size": 1 << 40})
        ours.set(STOP, STOP_COPY)
        self.assertEqual(len(ours.read(65536)), 65536)
        self.refused(errno.EINVAL, ours.read, 65537)


class Framing(Case):
    GET_STATE = struct.pack("=II", 16, STATE | GET)

    def test_messages_arrive_in_pieces_and_in_heaps(self):
        self.start("size=10K")
        client = self.client()
        one = Wire.message(FEATURE, self.GET_STATE)
        for byte in one:
            client.socket.sendall(bytes([byte]))
        self.assertEqual(client.receive().payload[8:12], struct.pack("=I", RUNNING))
        client.socket.sendall(one * 100 + one[:7])
        client.socket.sendall(one[7:])
        for _ in range(101):
            self.assertEqual(client.receive().size, 32)

    def test_equal_ids_in_flight_are_both_answered(self):
        self.start("")
        client = self.client()
        client.socket.sendall(Wire.message(FEATURE, self.GET_STATE, 7) + Wire.message(GET_INFO, bytes(16), 7))
        self.assertEqual([(m.id, m.command) for m in (client.receive(), client.receive())],
                         [(7, FEATURE), (7, GET_INFO)])

    def test_the_longest_message_is_taken_and_a_longer_one_ends_the_connection(self):
        self.start("size=2M")
        client = self.client()
        client.poke(8, bytes(MIB))
        self.assertEqual(client.peek(8, MIB), bytes(MIB))
        self.refused(errno.EINVAL, client.peek, 8, MIB + 1)
        client.socket.sendall(Wire.message(REGION_WRITE, size=MIB + 33))
        self.assertEqual(client.receive().error, errno.EINVAL)
        self.assertTrue(client.is_closed())
        self.assertEqual(self.control.status("a")["protocol_errors"], 1)

    def test_what_is_no_command_ends_the_connection(self):
        self.start("")
        for message in (Wire.message(GET_INFO, bytes(16), flags=1), Wire.message(GET_INFO, bytes(16), flags=2),
                        Wire.message(GET_INFO, size=15), Wire.message(GET_INFO, size=0)):
            client = self.client()
            client.socket.sendall(message)
            self.assertEqual(client.receive().error, errno.EINVAL)
            self.assertTrue(client.is_closed())
        client = self.client()
        client.socket.sendall(b"half a hea")
        client.close()
        self.until(lambda: self.control.status("a")["protocol_errors"] == 5)

    def test_commands_that_are_not_served_are_einval(self):
        self.start("")
        client = self.client()
        for command in UNSERVED:
            self.refused(errno.EINVAL, client.call, command, bytes(32))
        for command in (GET_INFO, REGION_READ, REGION_WRITE, FEATURE, DATA_READ, DATA_WRITE):
            self.refused(errno.EINVAL, client.call, command)
        self.assertEqual(self.control.status("a")["refused"], len(UNSERVED) + 6)
        self.assertEqual(client.state, RUNNING)

    def test_files_that_nobody_wants_are_closed(self):
        self.start("")
        client = self.client()
        held = f"/proc/{self.process.pid}/fd"
        before = len(os.listdir(held))
        for n in (1, 16, 200):
            client.call(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0), fds=[0] * n)
        self.assertEqual(len(os.listdir(held)), before)

    def test_no_reply_is_silent_and_done(self):
        self.start("")
        client = self.client()
        client.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP, -1), NO_REPLY)
        client.send(GET_INFO, bytes(16), NO_REPLY)
        self.assertEqual(client.state, STOP)

    def test_one_client_at_a_time_and_the_next_one_waits(self):
        self.start("")
        first = self.client()
        second = Wire(self.path("a"))
        self.addCleanup(second.close)
        second.send(VERSION, struct.pack("=HH", 0, 2))
        self.assertTrue(second.is_silent())
        first.close()
        self.assertEqual(second.receive().command, VERSION)

    def test_a_client_that_does_not_read_keeps_nobody_else_waiting(self):
        self.start("size=1M", "")
        slow, other = self.client(), self.client("b")
        for _ in range(5):
            slow.send(REGION_READ, struct.pack("=QII", 0, 0, MIB))
        self.assertEqual(other.state, RUNNING)
        for _ in range(5):
            self.assertEqual(len(slow.receive().payload), 16 + MIB)


class Features(Case):
    def test_operations_follow_the_table(self):
        self.start("", "migration=off")
        able = {MIGRATION: GET | PROBE, STATE: GET | SET | PROBE}
        combinations = [0, GET, SET, PROBE, GET | SET, PROBE | GET, PROBE | SET, PROBE | GET | SET]
        for name in "ab":
            client = self.client(name)
            for number in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0xffff):
                for operation in combinations:
                    good = name == "a" and operation and not operation & ~able.get(number, 0)
                    good = good and operation != GET | SET
                    data = struct.pack("=Ii", RUNNING, -1)
                    with self.subTest(device=name, number=number, operation=operation >> 16):
                        if not good:
                            self.refused(errno.EINVAL, client.feature, number, operation, data)
                            continue
                        (argsz, flags), got = client.feature(number, operation, data)
                        self.assertEqual((argsz, flags), (16, number | operation))
                        if operation != GET:
                            self.assertEqual(got, data)

    def test_the_flags_say_what_the_device_has(self):
        self.start("", "p2p=off", "pre-copy=on", "p2p=off,pre-copy=on")
        for name, flags in zip("abcd", (3, 1, 7, 5)):
            self.assertEqual(self.client(name).feature(MIGRATION, GET)[1], struct.pack("=Q", flags))

    def test_argsz_must_be_enough(self):
        self.start("")
        client = self.client()
        for argsz in (0, 8, 15):
            self.refused(errno.EINVAL, client.feature, STATE, GET, argsz=argsz)
            self.refused(errno.EINVAL, client.feature, STATE, SET, struct.pack("=Ii", STOP, 0), argsz=argsz)
            self.refused(errno.EINVAL, client.feature, STATE, PROBE | SET, bytes(8), argsz=argsz)
        self.assertEqual(client.feature(STATE, GET, argsz=4096), ((16, STATE | GET), struct.pack("=Ii", RUNNING, 0)))
        for n in range(8):
            self.refused(errno.EINVAL, client.feature, STATE, SET, bytes(n))
        self.refused(errno.EINVAL, client.feature, STATE, GET | 1 << 19)
        self.assertEqual(client.state, RUNNING)

    def test_a_device_without_migration_refuses_data_and_can_be_reset(self):
        self.start("migration=off")
        client = self.client()
        self.refused(errno.EINVAL, client.read, 100)
        self.refused(errno.EINVAL, client.write, bytes(100))
        self.assertEqual(client.info(), (16, 3, 9, 5))
        client.reset()
        self.assertEqual(self.control.status("a")["state"], "running")


class Oracle:
    """The text of the uAPI: base arcs, and which of them a device has; then every walk is tried."""

    ALWAYS = ((RESUMING, STOP), (STOP, RESUMING), (STOP, STOP_COPY), (STOP_COPY, STOP), (RUNNING, PRE_COPY),
              (PRE_COPY, RUNNING))
    WITHOUT_P2P = ((RUNNING, STOP), (STOP, RUNNING), (PRE_COPY, STOP_COPY))
    WITH_P2P = ((RUNNING, P2P), (P2P, RUNNING), (P2P, STOP), (STOP, P2P), (PRE_COPY, PRE_COPY_P2P),
                (PRE_COPY_P2P, PRE_COPY), (PRE_COPY_P2P, P2P), (P2P, PRE_COPY_P2P), (PRE_COPY_P2P, STOP_COPY))
    SAVING = {PRE_COPY, PRE_COPY_P2P, STOP_COPY}

    def __init__(self, p2p, pre_copy):
        self.states = {STOP, RUNNING, STOP_COPY, RESUMING}
        self.states |= {P2P} if p2p else set()
        self.states |= {PRE_COPY} if pre_copy else set()
        self.states |= {PRE_COPY_P2P} if p2p and pre_copy else set()
        arcs = self.ALWAYS + (self.WITH_P2P if p2p else self.WITHOUT_P2P)
        self.arcs = {(a, b) for a, b in arcs if a in self.states and b in self.states}

    def walks(self, start, end):
        """All shortest walks that are allowed, breadth first."""
        if start not in self.states or end not in self.states:
            return []
        if start == STOP_COPY and end in (PRE_COPY, PRE_COPY_P2P):
            return []  # blocked by name
        level = [(start,)]
        while level:
            found = [w for w in level if w[-1] == end and self.allowed(w)]
            if found:
                return found
            level = [w + (b,) for w in level for a, b in self.arcs if a == w[-1] and b not in w]
        return []

    def allowed(self, walk):
        """Saving states stand at the ends, or next to each other in a walk that is all saving."""
        return set(walk) <= self.SAVING or not set(walk[1:-1]) & self.SAVING


class Arcs(Case):
    def go(self, client, state, stream):
        """From RUNNING, with all that is to be loaded already written."""
        if state == RESUMING:
            client.set(RESUMING)
            client.write_all(stream)
        elif state == STOP_COPY:
            client.set(STOP, STOP_COPY)
        else:
            client.set(state)
        self.assertEqual(client.state, state)

    def compare(self, p2p, pre_copy):
        self.start(f"p2p={'on' if p2p else 'off'},pre-copy={'on' if pre_copy else 'off'},size=100")
        oracle, client = Oracle(p2p, pre_copy), self.client()
        stream = client.save()
        for start in sorted(oracle.states):
            for end in (*range(9), 255, 0xffffffff):
                client.reset()
                self.go(client, start, stream)
                self.control.arcs("a")
                walks = oracle.walks(start, end)
                with self.subTest(start=start, end=end):
                    self.assertLess(len(walks), 2)
                    if walks:
                        client.set(end)
                        expected = [(NAMES[a], NAMES[b], 0) for a, b in zip(walks[0], walks[0][1:])]
                    else:
                        self.refused(errno.EINVAL, client.feature, STATE, SET, struct.pack("=II", end, 0))
                        expected = []
                    self.assertEqual(self.control.arcs("a"), expected)
                    self.assertEqual(client.state, end if walks else start)

    def test_without_anything(self):
        self.compare(False, False)

    def test_with_p2p(self):
        self.compare(True, False)

    def test_with_pre_copy(self):
        self.compare(False, True)

    def test_with_both(self):
        self.compare(True, True)

    def test_a_failing_arc_leaves_the_last_good_state_of_every_walk(self):
        self.start("pre-copy=on,size=100")
        oracle, client = Oracle(True, True), self.client()
        stream = client.save()
        for start in sorted(oracle.states):
            for end in sorted(oracle.states - {start}):
                for walk in oracle.walks(start, end):
                    for i, (a, b) in enumerate(zip(walk, walk[1:])):
                        client.reset()
                        self.go(client, start, stream)
                        self.fault(f"{NAMES[a]}>{NAMES[b]}:fail:ENOSPC@1")
                        self.refused(errno.ENOSPC, client.set, end)
                        self.assertEqual(client.state, walk[i])


class Data(Case):
    def memory(self, client, size):
        return b"".join(client.peek(at, min(MIB, size - at)) for at in range(0, size, MIB))

    def test_memory_moves_byte_for_byte_in_chunks_of_any_size(self):
        size = 300 * 1024 + 5
        self.start(f"size={size},seed=1", f"size={size},seed=2")
        a, b = self.client("a"), self.client("b")
        for seed, chunk in enumerate((1024, 4096, 5000, 65536, 200 * 1024, MIB)):
            a.set(RUNNING)
            a.poke(12345, random.Random(seed).randbytes(9999))
            stream = a.save(chunk)
            memory = self.memory(a, size)
            self.assertNotEqual(self.memory(b, size), memory)
            b.load(stream, chunk)
            self.assertEqual(self.memory(b, size), memory)
            da, db = self.control.do("digest", "a"), self.control.do("digest", "b")
            self.assertEqual(da["sha256"], hashlib.sha256(memory).hexdigest())
            self.assertEqual(da["sha256"], db["sha256"])
            self.assertEqual({da["crc_now"], da["crc_saved"], db["crc_now"], db["crc_loaded"]}, {da["crc_now"]})
            b.set(RUNNING)
        status = self.control.status("b")
        self.assertEqual((status["loads"], status["loaded_bytes"]), (6, 6 * len(stream)))
        self.assertEqual(self.control.status("a")["saves"], 6)

    def test_the_smallest_memories(self):
        for size in (0, 1, 7, 8, 9, 4095, 4096, 4097, 8192):
            self.start(f"size={size},seed=1", f"size={size},seed=2")
            a, b = self.client("a"), self.client("b")
            b.load(a.save(3))
            self.assertEqual(a.peek(0, size), b.peek(0, size))
            self.refused(errno.EINVAL, a.peek, 0, size + 1)
            self.assertEqual(self.control.do("digest", "b")["crc_loaded"], self.control.do("digest", "a")["crc_now"])
            self.stop()

    def test_contents_depend_on_the_seed_alone(self):
        self.start("size=4K,seed=1", "size=8K,seed=1", "size=4K,seed=2")
        a, b, c = (self.client(name).peek(0, 4096) for name in "abc")
        self.assertEqual(a[8:], b[8:])
        self.assertNotEqual(a[8:], c[8:])
        self.assertEqual(len({a[i:i + 8] for i in range(8, 4096, 8)}), 511)

    def test_pre_copy_and_stop_copy_are_one_stream_and_one_load(self):
        size = 256 * 1024
        for p2p in ("on", "off"):
            self.start(f"size={size},seed=1,pre-copy=on,p2p={p2p}", f"size={size},seed=2,pre-copy=on")
            a, b = self.client("a"), self.client("b")
            b.set(RESUMING)
            a.set(PRE_COPY)
            first = a.read(100000)
            a.poke(50000, b"changed after it was read")
            a.poke(150000, b"changed before it was read")
            first += a.read_all(65536)
            self.assertGreaterEqual(len(first), size + (size // 4096 + 1) * 16 + 4096)  # one page of it twice
            b.write_all(first)
            a.poke(99999, b"changed when all was read")
            a.poke(20, b"and so was this, and the counter with it, or not")
            b.write_all(a.read(16 + 4096))  # one of them while it runs
            a.set(STOP_COPY)
            rest = a.read_all(1000)
            self.assertIn(len(rest), (16 + 4096 + 16, 2 * (16 + 4096) + 16))
            b.write_all(rest)
            a.set(STOP)
            b.set(STOP)
            self.assertEqual(self.memory(a, size), self.memory(b, size))
            da, db = self.control.do("digest", "a"), self.control.do("digest", "b")
            self.assertEqual({da["crc_now"], da["crc_saved"], db["crc_now"], db["crc_loaded"]}, {da["crc_now"]})
            self.assertEqual(self.control.status("b")["loads"], 1)
            self.stop()

    def test_pre_copy_that_is_not_read_at_all_and_pre_copy_that_is_left(self):
        self.start("size=64K,seed=1,pre-copy=on", "size=64K,seed=2")
        a, b = self.client("a"), self.client("b")
        a.set(PRE_COPY)
        a.read(1000)
        a.set(RUNNING, PRE_COPY, PRE_COPY_P2P, PRE_COPY, STOP_COPY)
        stream = a.read_all()
        a.set(STOP)
        b.load(stream)
        self.assertEqual(a.peek(0, 65536), b.peek(0, 65536))
        self.assertEqual(a.save()[24 + 16:], stream[24 + 16:-16] + a.save()[-16:])

    def test_a_stop_copy_is_left_and_entered_again_from_its_beginning(self):
        self.start("size=64K")
        a = self.client()
        a.set(STOP_COPY)
        part = a.read(10000)
        a.set(STOP)
        whole = a.save()
        self.assertEqual(whole[:10000], part)
        self.assertEqual(self.control.status("a")["saves"], 1)

    def test_sizes_of_data_requests(self):
        self.start("size=64K")
        a = self.client()
        a.set(STOP_COPY)
        self.refused(errno.EINVAL, a.read, 100, argsz=107)
        self.refused(errno.EINVAL, a.read, MIB + 1)
        self.assertEqual(a.read(0), b"")
        self.assertEqual(len(a.read(MIB, argsz=1 << 31)), 24 + 16 * (16 + 4096) + 16)
        a.set(RESUMING)
        a.write(b"")
        self.refused(errno.EINVAL, a.write, bytes(100), argsz=107)
        self.refused(errno.EINVAL, a.call, DATA_WRITE, struct.pack("=II", 108, 100) + bytes(99))
        self.assertEqual(self.control.status("a")["loaded_bytes"], 0)


class Refusals(Case):
    def refuse(self, client, stream):
        client.set(RESUMING)
        client.write_all(stream)
        self.refused(errno.EINVAL, client.set, STOP)
        self.refused(errno.EINVAL, client.set, RUNNING)
        self.assertEqual(client.state, RESUMING)
        client.reset()

    def test_every_flipped_byte_is_found(self):
        self.start("size=4200")
        client = self.client()
        stream = client.save()
        for at in [*range(60), *range(60, len(stream) - 160, 97), *range(len(stream) - 160, len(stream))]:
            self.refuse(client, stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1:])
        client.load(stream)

    def test_short_and_long_streams_are_found(self):
        self.start("size=4200")
        client = self.client()
        stream = client.save()
        for n in [*range(0, 60), *range(60, len(stream), 101), len(stream) - 17, len(stream) - 16, len(stream) - 1]:
            self.refuse(client, stream[:n])
        for more in (b"\0", b"x", stream):
            self.refuse(client, stream + more)
        client.load(stream)

    def test_swapped_and_missing_and_foreign_pieces_are_found(self):
        self.start("size=16K", "size=16K,seed=2", "size=8K")
        a, b, c = self.client("a"), self.client("b"), self.client("c")
        mine, theirs, other = a.save(), b.save(), c.save()
        record = 16 + 4096
        head, records, end = mine[:24], [mine[24 + i * record:24 + (i + 1) * record] for i in range(4)], mine[-16:]
        self.refuse(a, head + b"".join(records[:3]) + end)
        self.refuse(a, head + b"".join(records[i] for i in (0, 1, 3, 2)) + end)
        self.refuse(a, head + b"".join(records[:3]) + theirs[24 + 3 * record:24 + 4 * record] + end)
        self.refuse(a, head + b"".join(records) + theirs[-16:])
        self.refuse(a, other)
        self.refuse(c, mine)
        a.load(theirs)

    def forge(self, memory, offsets, size=None, version=1, flags=0):
        """A stream as the server makes it, of the pages at these offsets: right unless it is told to be wrong."""
        magic = struct.unpack("=Q", b"EMdevice")[0]
        headers = struct.pack("=QIIQ", magic, version, flags, len(memory) if size is None else size)
        stream = headers
        for offset in offsets:
            page = memory[offset:offset + 4096]
            record = struct.pack("=QII", offset, len(page), crc32c(page))
            headers += record
            stream += record + page
        return stream + struct.pack("=QII", 2 ** 64 - 1, 0, crc32c(headers))

    def test_forged_streams_whose_sums_are_right(self):
        self.start("size=5000")
        client, memory = self.client(), bytes(range(250)) * 20
        for offsets, more in (([0], {}), ([4096], {}), ([0, 1, 4096], {}), ([0, 4096, 8192], {}), ([], {}),
                              ([0, 4096], {"size": 4999}), ([0, 4096], {"version": 2}), ([0, 4096], {"flags": 2})):
            self.refuse(client, self.forge(memory, offsets, **more))
        for offsets in ([0, 4096], [4096, 0], [0, 0, 4096, 4096]):
            client.load(self.forge(memory, offsets))
            self.assertEqual(client.peek(0, 5000), memory)
            client.reset()

    def test_a_refused_load_is_counted_and_leaves_no_load_behind(self):
        self.start("size=4K")
        client = self.client()
        before = self.control.do("digest", "a")
        stream = client.save()
        self.refuse(client, stream[:-1])
        status, digest = self.control.status("a"), self.control.do("digest", "a")
        self.assertEqual((status["loads"], status["refused"], status["resets"]), (0, 2, 1))
        self.assertIsNone(digest["crc_loaded"])
        self.assertEqual(digest["crc_now"] == before["crc_now"], True)

    def test_states_gate_the_commands(self):
        self.start("pre-copy=on,size=100", control=False)
        client = self.client()
        stream = client.save()
        stopped, saving = {STOP, STOP_COPY}, {STOP_COPY, PRE_COPY, PRE_COPY_P2P}
        for state in Oracle(True, True).states:
            client.reset()
            client.set(state)
            for function, arguments, good in (
                    (client.info, (), state not in stopped),
                    (client.peek, (0, 10), state != STOP_COPY),
                    (client.poke, (0, b"x"), state != STOP_COPY),
                    (client.read, (10,), state in saving),
                    (client.write, (stream[:10],), state == RESUMING),
                    (client.feature, (MIGRATION, GET), True)):
                with self.subTest(state=NAMES[state], function=function.__name__):
                    if good:
                        function(*arguments)
                    else:
                        self.refused(errno.EINVAL, function, *arguments)

    def test_region_accesses_stay_inside(self):
        self.start("size=100")
        client = self.client()
        for offset, count, region in ((0, 101, 0), (100, 1, 0), (101, 0, 0), (2 ** 64 - 1, 2, 0), (0, 1, 1), (0, 1, 7)):
            self.refused(errno.EINVAL, client.peek, offset, count, region)
            self.refused(errno.EINVAL, client.poke, offset, bytes(count), region)
        self.assertEqual(client.peek(100, 0), b"")
        client.poke(90, b"0123456789")
        self.assertEqual(client.peek(89, 11)[1:], b"0123456789")
        self.refused(errno.EINVAL, client.call, REGION_WRITE, struct.pack("=QII", 0, 0, 10) + bytes(9))
        self.refused(errno.EINVAL, client.call, GET_INFO, struct.pack("=IIII", 15, 0, 0, 0))


class Reset(Case):
    def fill(self, client, state, stream):
        client.set(RUNNING)
        client.poke(8, b"written")
        client.set(state)
        if state == RESUMING:
            client.write(stream[:50])

    def test_uapi_leads_to_running_from_everywhere(self):
        self.start("size=100,pre-copy=on")
        client = self.client()
        first, stream = client.peek(8, 92), client.save()
        for state in Oracle(True, True).states:
            self.fill(client, state, stream)
            client.reset()
            self.assertEqual(client.state, RUNNING)
            self.assertEqual(client.peek(8, 92), first)
            client.load(stream)

    def test_libvfio_user_refuses_when_stopped_and_moves_nothing(self):
        self.start("size=100,pre-copy=on", options=["--reset=libvfio-user"])
        client = self.client()
        first, stream = client.peek(8, 92), client.save()
        for state in Oracle(True, True).states:
            self.fill(client, state, stream)
            if state in (STOP, STOP_COPY):
                self.refused(errno.EINVAL, client.reset)
            else:
                client.reset()
                self.assertEqual(client.peek(8, 92), first)
            self.assertEqual(client.state, state)
            client.set(RUNNING)  # from RESUMING too: what was taken in is dropped, there is nothing to refuse
        self.assertEqual(self.control.status("a")["loads"], 0)

    def test_libvfio_user_loads_anew_after_a_reset_while_resuming(self):
        self.start("size=100", options=["--reset=libvfio-user"])
        client = self.client()
        stream = client.save()
        client.set(RESUMING)
        client.write(b"rubbish")
        client.reset()
        client.write(stream)
        client.set(STOP, RESUMING)
        self.refused(errno.EINVAL, client.set, STOP)  # a new load is wanted again
        self.assertEqual(self.control.status("a")["loads"], 1)

    def test_libvfio_user_resets_a_pre_copy_that_stays_one_stream(self):
        self.start("size=20000,pre-copy=on", "size=20000,seed=2", options=["--reset=libvfio-user"])
        a, b = self.client("a"), self.client("b")
        a.poke(9000, b"written")
        a.set(PRE_COPY)
        stream = a.read_all()
        a.reset()
        a.set(STOP_COPY)
        b.load(stream + a.read_all())
        a.set(STOP)
        self.assertEqual(a.peek(0, 20000), b.peek(0, 20000))

    def test_error_is_left_by_reset_alone(self):
        for mode in ("uapi", "libvfio-user"):
            self.start("", options=[f"--reset={mode}"])
            client = self.client()
            self.fault("running-p2p>stop:error:EIO@1")
            self.refused(errno.EIO, client.set, STOP)
            self.assertEqual(client.state, ERROR)
            for state in range(9):
                self.refused(errno.EINVAL, client.set, state)
            self.refused(errno.EINVAL, client.read, 10)
            client.reset()
            self.assertEqual(client.state, RUNNING)
            client.set(STOP)
            self.stop()


class Disconnect(Case):
    def test_keep_leaves_every_state_and_goes_on_with_the_data(self):
        self.start("size=10K,pre-copy=on")
        for state in Oracle(True, True).states:
            client = self.client()
            client.set(RUNNING, state)
            first = client.read(100) if state == STOP_COPY else b""
            client.close()
            client = self.client()
            self.assertEqual(client.state, state)
            if state == STOP_COPY:
                rest = client.read_all()
                client.set(STOP)
                self.assertEqual(client.save(), first + rest)
            client.reset()
            client.close()

    def test_running_forces_it_and_drops_a_half_load(self):
        self.start("size=10K", options=["--on-disconnect=running"])
        client = self.client()
        client.poke(20, b"written")
        client.set(STOP)
        client.close()
        client = self.client()
        self.assertEqual((client.state, client.peek(20, 7)), (RUNNING, b"written"))
        stream = client.save()
        client.set(RESUMING)
        client.write(stream[:5000])
        client.close()
        client = self.client()
        self.assertEqual(client.state, RUNNING)
        self.assertNotEqual(client.peek(20, 7), b"written")
        log = self.control.do("log", "a")["log"]
        last = [e for e in log if e["what"] == "disconnect"][-1]
        self.assertEqual((last["from"], last["to"]), ("resuming", "running"))

    def test_exit_ends_the_process(self):
        self.start("", "", options=["--on-disconnect=exit"])
        self.client().close()
        self.ended(0)
        self.assertFalse(os.path.exists(self.path("a")))


class Delays(Case):
    def took(self, at_least, function, *arguments):
        start = time.monotonic()
        function(*arguments)
        self.assertGreaterEqual(time.monotonic() - start, at_least)

    def test_arcs_take_their_time(self):
        self.start("p2p=off,delay=running>stop:60,delay=*>stop-copy:40.5,delay=resuming>*:30", "delay=*>*:20")
        a, b = self.client("a"), self.client("b")
        self.took(0.060, a.set, STOP)
        self.took(0.0405, a.set, STOP_COPY)
        stream = a.read_all()
        a.set(RESUMING)
        a.write_all(stream)
        self.took(0.030, a.set, STOP)
        self.took(0.060, b.set, STOP_COPY)  # three arcs
        for e in [e for e in self.control.do("log", "b")["log"] if e["what"] == "arc"]:
            self.assertGreaterEqual(e["usec"] - e["start_usec"], 20000)

    def test_devices_wait_side_by_side(self):
        self.start(*["p2p=off,delay=running>stop:200"] * 8)
        clients = [self.client(name) for name in "abcdefgh"]
        start = time.monotonic()
        for client in clients:
            client.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP, -1))
        for client in clients:
            client.receive()
        took = time.monotonic() - start
        self.assertTrue(0.2 <= took < 8 * 0.2, took)

    def test_data_and_resets_take_their_time(self):
        self.start("size=256K,read-delay=200,write-delay=160,reset-delay=50")
        client = self.client()
        client.set(STOP_COPY)
        start = time.monotonic()
        stream = client.read_all(65536)
        self.assertGreaterEqual(time.monotonic() - start, 0.05)
        self.took(0.0, client.read, MIB)  # nothing there: no delay is owed
        client.set(RESUMING)
        self.took(0.04, client.write_all, stream, 65536)
        self.took(0.05, client.reset)

    def test_a_delay_can_be_changed_while_it_runs(self):
        self.start("p2p=off", "p2p=on")
        self.control.do("delay", "a", delay="*>stop:30")
        self.took(0.030, self.client("a").set, STOP)
        self.control.do("delay", "*", delay="running>stop:0")  # b has no such arc, and that is no error
        self.assertFalse(self.control.ask("delay", device="b", delay="running>stop:1")["ok"])
        self.assertFalse(self.control.ask("delay", device="b", delay="running:1")["ok"])

    def test_a_client_that_leaves_meanwhile_does_not_end_the_arc(self):
        self.start("p2p=off,delay=running>stop:100")
        client = self.client()
        client.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP, -1))
        client.close()
        self.assertEqual(self.client().state, STOP)


class Faults(Case):
    """Every kind, mostly at GET of the state: its right reply is known."""

    def setUp(self):
        super().setUp()
        self.start("p2p=off,size=16K,seed=3", "size=16K,seed=4")
        self.a = self.client()

    def reply(self, fault):
        self.fault(fault)
        self.a.send(FEATURE, struct.pack("=II", 16, STATE | GET))
        return Message(self.a.bytes(16), b"", [])

    def test_fail_moves_nothing_and_counts_down(self):
        self.fault("running>stop:fail:EBUSY@2")
        self.refused(errno.EBUSY, self.a.set, STOP_COPY)
        self.refused(errno.EBUSY, self.a.set, STOP)
        self.a.set(STOP)
        self.a.reset()
        for place, number, function in (("any", 5, self.a.info), ("feature", 71, self.a.set), ("reset", 28, self.a.reset)):
            self.fault(f"{place}:fail:{number}@1")
            self.refused(number, function, *((RUNNING,) if place == "feature" else ()))
            self.a.reset()
        self.a.set(STOP_COPY)
        self.fault("read:fail:EIO@1")
        self.refused(errno.EIO, self.a.read, 100)
        stream = self.a.read_all()  # nothing was lost
        self.a.set(RESUMING)
        self.fault("write:fail:ENOMEM@1")
        self.refused(errno.ENOMEM, self.a.write, stream)
        self.a.write(stream)
        self.a.set(STOP)

    def test_fail_at_version_and_info(self):
        self.fault("version:fail:EPERM@1", "b")
        client = self.client("b", negotiate=False)
        self.refused(errno.EPERM, client.version)
        self.assertTrue(client.is_closed())
        client = self.client("b")
        self.fault("info:fail:EIO", "b")
        for _ in range(3):
            self.refused(errno.EIO, client.info)

    def test_refusing_a_state_at_load(self):
        stream = self.a.save()
        self.a.set(RESUMING)
        self.a.write(stream)
        self.fault("resuming>stop:fail:EINVAL@1")
        self.refused(errno.EINVAL, self.a.set, STOP)
        self.assertEqual(self.a.state, RESUMING)
        self.a.set(STOP)

    def test_wildcards(self):
        self.fault("*>stop-copy:fail:EIO@1")
        self.fault("stop>*:fail:EBADF@1")
        self.refused(errno.EIO, self.a.set, STOP_COPY)
        self.assertEqual(self.a.state, STOP)
        self.refused(errno.EBADF, self.a.set, RUNNING)
        self.a.set(RUNNING)

    def test_error_breaks_the_device(self):
        for place, function in (("stop>stop-copy", lambda: self.a.set(STOP_COPY)), ("info", self.a.info)):
            self.fault(f"{place}:error:EIO@1")
            self.refused(errno.EIO, function)
            self.assertEqual(self.a.state, ERROR)
            self.assertEqual(self.control.arcs("a")[-1][1:], ("error", errno.EIO))
            self.a.reset()

    def test_hang_lasts_until_the_client_leaves(self):
        for place in ("running>stop", "any"):
            self.fault(f"{place}:hang@1")
            self.a.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP, -1))
            self.a.send(FEATURE, struct.pack("=II", 16, STATE | GET))
            self.assertTrue(self.a.is_silent())
            self.a.close()
            self.a = self.client()
            self.assertEqual(self.a.state, RUNNING)

    def test_what_hung_for_one_client_is_nothing_to_the_next(self):
        self.fault("running>stop:hang@1")
        self.a.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP, -1))
        self.assertTrue(self.a.is_silent())
        self.a.close()
        self.a = self.client()
        self.fault("feature:late:100@1")
        start = time.monotonic()
        self.a.send(FEATURE, struct.pack("=II", 16, STATE | GET))
        self.control.do("status")  # it has been taken up
        self.control.do("clear", "a")
        self.assertEqual(self.a.receive().payload[8:12], struct.pack("=I", RUNNING))
        self.assertGreaterEqual(time.monotonic() - start, 0.1)
        self.assertEqual(self.a.state, RUNNING)

    def test_clear_lets_what_hangs_go_on(self):
        self.control.do("delay", "a", delay="stop>stop-copy:20")
        for place in ("running>stop", "stop>stop-copy", "feature"):
            self.fault(f"{place}:hang")
            self.a.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP_COPY, -1))
            self.assertTrue(self.a.is_silent())
            self.control.do("clear", "*")
            self.assertEqual(self.a.receive().flags, 1)
            self.assertEqual(self.a.state, STOP_COPY)
            self.a.reset()

    def test_late_is_late(self):
        start = time.monotonic()
        self.assertEqual(self.reply("feature:late:50@1").flags, 1)
        self.a.bytes(16)
        self.fault("running>stop:late:50@1")
        self.a.set(STOP)
        self.assertGreaterEqual(time.monotonic() - start, 0.1)

    def test_lie_says_yes_and_does_no(self):
        self.fault("running>stop:lie@1")
        self.a.set(STOP_COPY)
        self.assertEqual(self.a.state, RUNNING)

    def test_disconnect_comes_instead_of_the_answer(self):
        self.fault("running>stop:disconnect@1")
        self.a.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP, -1))
        self.assertTrue(self.a.is_closed())
        self.assertEqual(self.client().state, STOP)

    def test_exit_ends_everything(self):
        self.fault("stop>stop-copy:exit")
        self.a.set(STOP)
        self.a.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP_COPY, -1))
        self.assertTrue(self.a.is_closed())
        self.ended(1)
        self.stop()
        self.start("")
        self.fault("info:exit")
        self.a = self.client()
        self.a.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        self.assertTrue(self.a.is_closed())
        self.ended(1)

    def test_short(self):
        reply = self.reply("feature:short@1")
        self.assertEqual(reply.size, 24)
        self.assertEqual(self.a.bytes(8), struct.pack("=II", 16, STATE | GET))
        stream = self.a.save()
        self.a.set(STOP_COPY)
        self.fault("read:short@1")
        self.assertEqual(self.a.read_all(1000), stream[:500])
        self.a.set(STOP, STOP_COPY)
        self.fault("read:short@1")
        self.assertEqual(self.a.read_all(), stream[:len(stream) // 2])
        self.a.set(RESUMING)
        self.a.write(stream[:len(stream) // 2])
        self.refused(errno.EINVAL, self.a.set, STOP)

    def test_corrupt_changes_one_byte(self):
        stream = self.a.save()
        self.a.set(STOP_COPY)
        self.fault("read:corrupt@1")
        bad = self.a.read_all(10000)
        self.assertEqual(len(bad), len(stream))
        self.assertEqual([i for i in range(len(bad)) if bad[i] != stream[i]], [5000])
        self.a.set(RESUMING)
        self.a.write(bad)
        self.refused(errno.EINVAL, self.a.set, STOP)

    def test_headers_that_lie(self):
        for kind, field, value in (("bad-type", "flags", 0), ("bad-size-big", "size", 1 << 30),
                                   ("bad-size-small", "size", 8)):
            good = self.reply("feature:late:0@1")
            self.a.bytes(16)
            bad = self.reply(f"feature:{kind}@1")
            self.a.bytes(16)
            self.assertEqual(getattr(bad, field), value)
            bad.__dict__[field] = getattr(good, field)
            self.assertEqual({**vars(bad), "id": 0}, {**vars(good), "id": 0})

    def test_foreign_id_and_command(self):
        self.assertNotEqual(self.reply("feature:bad-id@1").id, self.a.last_id)
        self.a.bytes(16)
        bad = self.reply("feature:bad-command@1")
        self.assertNotEqual(bad.command, FEATURE)
        self.assertEqual(bad.id, self.a.last_id)

    def test_truncated_sends_half_and_then_nothing(self):
        self.fault("feature:truncated@1")
        self.a.send(FEATURE, struct.pack("=II", 16, STATE | GET))
        self.a.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        self.assertEqual(struct.unpack_from("=I", self.a.bytes(16), 4)[0], 32)
        self.assertTrue(self.a.is_silent())
        self.control.do("clear", "a")
        self.assertEqual(self.a.bytes(16)[8:12], struct.pack("=I", RUNNING))
        self.assertEqual(self.a.receive().command, GET_INFO)

    def test_endless_data_never_ends(self):
        self.a.set(STOP_COPY)
        self.fault("read:endless")
        for _ in range(20):
            self.assertEqual(len(self.a.read(5000)), 5000)
        self.control.do("clear", "a")
        self.assertEqual(self.a.read(5000), b"")

    def test_garbage(self):
        self.fault("feature:garbage@1")
        self.a.send(FEATURE, struct.pack("=II", 16, STATE | GET))
        garbage = self.a.bytes(32)
        self.assertNotEqual(garbage[:8], Wire.message(FEATURE, bytes(16), self.a.last_id)[:8])
        self.assertEqual(self.a.state, RUNNING)

    def test_impossible_errors(self):
        for kind, number in (("error-zero", 0), ("error-huge", 99999)):
            reply = self.reply(f"feature:{kind}@1")
            self.assertEqual((reply.size, reply.flags, reply.error), (16, 1 | ERROR_BIT, number))
        self.fault("running>stop:error-zero@1")
        self.refused(0, self.a.set, STOP)
        self.assertEqual(self.a.state, STOP)  # it is the reply that is wrong

    def chatter(self, client, wire):
        self.fault("feature:chatter@1", "b")
        client.send(FEATURE, struct.pack("=II", 16, STATE | GET))
        for i in range(3):
            asked = wire.receive()
            address, count = struct.unpack("=QQ", asked.payload)
            self.assertEqual((asked.command, asked.flags & 0xf), (DMA_READ, 0))
            if i < 2:
                wire.socket.sendall(Wire.message(DMA_READ, asked.payload + bytes(count), asked.id, 1))
            else:
                wire.socket.sendall(struct.pack("=HHIII", asked.id, DMA_READ, 16, 1 | ERROR_BIT, errno.EFAULT))
        reply = client.receive()
        self.assertEqual((reply.id, reply.command), (client.last_id, FEATURE))

    def test_chatter_on_the_main_socket(self):
        client = self.client("b")
        self.chatter(client, client)
        self.assertEqual(client.state, RUNNING)

    def test_chatter_on_the_twin_socket(self):
        client = self.client("b", {"max_msg_fds": 1, "twin_socket": {"supported": True}})
        self.chatter(client, client.twin)
        self.fault("feature:chatter@1", "b")
        client.send(FEATURE, struct.pack("=II", 16, STATE | GET))
        client.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))  # does not cross it
        for _ in range(3):
            asked = client.twin.receive()
            client.twin.socket.sendall(Wire.message(DMA_READ, asked.payload + bytes(64), asked.id, 1))
        self.assertEqual([client.receive().command for _ in range(2)], [FEATURE, GET_INFO])

    def test_a_command_that_crosses_the_chatter_ends_the_connection(self):
        client = self.client("b")
        self.fault("feature:chatter@1", "b")
        client.send(FEATURE, struct.pack("=II", 16, STATE | GET))
        client.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        self.assertEqual(client.receive().command, DMA_READ)
        self.assertTrue(client.is_closed())
        self.assertEqual(self.control.status("b")["protocol_errors"], 1)

    def test_faults_of_arcs_that_the_device_lacks_and_other_nonsense(self):
        for text in ("running>running-p2p:fail:EIO", "pre-copy>running:hang", "stop>running", "stop>running:fail",
                     "stop>running:fail:EFROG", "stop>running:fail:0", "stop>running:hang:1", "stop>running:hang@0",
                     "stop>running:hang@", "read:lie", "write:corrupt", "info:endless", "nowhere:hang", "any:late",
                     "any:late:-1", "any:late:x", "stop>:hang", ">:hang", "", "x" * 500):
            self.assertFalse(self.control.ask("fault", device="a", fault=text)["ok"], text)
        self.fault("running>running-p2p:fail:EIO", "*")  # b has it
        self.refused(errno.EIO, self.client("b").set, STOP)


class Orders(Case):
    def test_status_tells_everything(self):
        self.start("size=100,id=first", "size=200")
        self.assertEqual([d["id"] for d in self.control.do("status")["devices"]], ["first", "b"])
        client = self.client("b")
        client.set(STOP)
        status = self.control.status("b")
        counter = status.pop("counter")
        self.assertIsInstance(counter, int)
        self.assertEqual(status, {"id": "b", "state": "stop", "connected": True, "size": 200, "resets": 0, "saves": 0,
                                  "loads": 0, "saved_bytes": 0, "loaded_bytes": 0, "refused": 0, "protocol_errors": 0})

    def test_the_log_has_everything_in_order(self):
        self.start("p2p=off")
        client = self.client()
        client.set(STOP_COPY)
        client.reset()
        client.close()
        self.until(lambda: not self.control.status("a")["connected"])
        log = self.control.do("log", "a", clear=True)["log"]
        self.assertEqual([(e["what"], e["from"], e["to"], e["errno"]) for e in log],
                         [("connect", "running", "running", 0), ("arc", "running", "stop", 0),
                          ("arc", "stop", "stop-copy", 0), ("reset", "stop-copy", "running", 0),
                          ("disconnect", "running", "running", 0)])
        times = [t for e in log for t in (e["start_usec"], e["usec"])]
        self.assertEqual(times, sorted(times))
        self.assertLess(abs(times[-1] - time.monotonic() * 1e6), LIMIT * 1e6)
        self.assertEqual(self.control.do("log", "a")["log"], [])

    def test_the_log_keeps_the_last_1024(self):
        self.start("p2p=off,size=0")
        client = self.client()
        for _ in range(600):
            client.set(STOP, RUNNING)
        log = self.control.do("log", "a")["log"]
        self.assertEqual(len(log), 1024)
        self.assertEqual(log[-1]["to"], "running")
        self.assertTrue(all(x["to"] == y["from"] for x, y in zip(log, log[1:])))

    def test_memory_is_read_written_and_dumped(self):
        self.start("size=5000")
        client = self.client()
        client.set(STOP)
        self.control.do("write", "a", offset=100, hex="00ffC0de")
        self.assertEqual(client.peek(99, 6)[1:5], b"\x00\xff\xc0\xde")
        self.assertEqual(self.control.do("read", "a", offset=100, count=4)["hex"], "00ffc0de")
        self.assertEqual(bytes.fromhex(self.control.do("read", "a", offset=904, count=4096)["hex"]), client.peek(904, 4096))
        self.control.do("dump", "a", path=self.path("dump"))
        with open(self.path("dump"), "rb") as file:
            self.assertEqual(file.read(), client.peek(0, 5000))
        for cmd, members in (("read", {"offset": 4999, "count": 2}), ("read", {"offset": 0, "count": 4097}),
                             ("read", {"offset": -1, "count": 1}), ("read", {"count": 1}),
                             ("write", {"offset": 4999, "hex": "0000"}), ("write", {"offset": 0, "hex": "0"}),
                             ("write", {"offset": 0, "hex": "0x"}), ("write", {"offset": 0, "hex": " 1"}),
                             ("dump", {}), ("dump", {"path": self.path("no/where")})):
            self.assertFalse(self.control.ask(cmd, device="a", **members)["ok"], (cmd, members))

    def test_crc_is_the_castagnoli_one(self):
        self.start("size=9")
        client = self.client()
        client.set(STOP)
        client.poke(0, b"123456789")
        self.assertEqual(self.control.do("digest", "a")["crc_now"], 0xe3069283)

    def test_kick_closes_even_while_an_arc_takes_its_time(self):
        self.start("p2p=off,delay=running>stop:100")
        client = self.client()
        self.control.do("kick", "a")
        self.assertTrue(client.is_closed())
        self.assertFalse(self.control.ask("kick", device="a")["ok"])
        client = self.client()
        client.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP, -1))
        self.control.do("status")  # it has been taken up
        self.control.do("kick", "a")
        self.assertTrue(client.is_closed())
        self.assertEqual(self.client().state, STOP)

    def test_nonsense_is_refused_with_a_reason(self):
        self.start("")
        for line in (b"", b"{", b"[]", b"7", b"{}", b'{"cmd":7}', b'{"cmd":"dance"}', b'{"cmd":"digest"}',
                     b'{"cmd":"digest","device":"x"}', b'{"cmd":"digest","device":"*"}', b'{"cmd":"log","device":3}',
                     b'{"cmd":"status","device":7}', b'{"cmd":"fault","device":"a"}', b"\xff\xfe"):
            self.control.socket.sendall(line + b"\n")
            reply = json.loads(self.control.file.readline())
            self.assertEqual((reply["ok"], type(reply["error"])), (False, str), line)
        self.control.do("status")

    def test_a_line_without_end_costs_the_connection_and_no_other(self):
        self.start("")
        other = Control(self.path("control"))
        self.addCleanup(other.close)
        try:
            other.socket.sendall(b"x" * 200000)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            self.assertEqual(other.socket.recv(1), b"")
        except ConnectionResetError:
            pass
        self.control.do("status")

    def test_who_says_all_at_once_and_stops_is_still_answered(self):
        self.start(*["size=0"] * 8)
        other = Control(self.path("control"))
        self.addCleanup(other.close)
        other.socket.sendall(b'{"cmd":"status"}\n' * 3000)
        other.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(sum(json.loads(line)["ok"] for line in other.file), 3000)

    def test_quit_answers_and_ends(self):
        self.start("", "")
        client = self.client()
        self.assertEqual(self.control.ask("quit"), {"ok": True})
        self.ended(0)
        self.assertTrue(client.is_closed())
        self.assertEqual([n for n in os.listdir(self.directory.name) if n in ("a", "b", "control")], [])


class Work(Case):
    def counter(self, client):
        return struct.unpack("=Q", client.peek(0, 8))[0]

    def test_devices_work_while_they_run_and_are_watched(self):
        self.start("", "size=7")
        client = self.client()
        self.until(lambda: self.counter(client) > 2)
        client.set(STOP)
        stopped = self.counter(client)
        time.sleep(0.05)
        self.assertEqual(self.counter(client), stopped)
        self.assertEqual(self.control.status("a")["counter"], stopped)
        self.assertEqual(self.control.status("b")["counter"], 0)
        client.set(P2P)
        self.until(lambda: self.counter(client) > stopped)

    def test_a_device_can_work_without_being_watched(self):
        self.start("work=on", "work=off", control=False)
        a, b = self.client("a"), self.client("b")
        self.until(lambda: self.counter(a) > 2)
        self.assertEqual(self.counter(b), 0)

    def wakeups(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(next(line for line in file if line.startswith("voluntary")).split()[1])

    def assert_sleeps(self):
        def slept_for_ten_ticks():
            before = self.wakeups()
            time.sleep(0.1)
            return self.wakeups() == before

        self.until(slept_for_ten_ticks)

    def test_idle_devices_sleep(self):
        self.start("p2p=off", "size=0")
        client = self.client()
        client.set(STOP)  # watched, but there is nothing to do
        self.assert_sleeps()
        client.set(RUNNING)
        self.control.close()
        self.assert_sleeps()
        client.set(STOP, RUNNING)
        self.assert_sleeps()

    def test_pre_copy_carries_what_the_work_changes(self):
        self.start("pre-copy=on,work=on", "seed=2,work=off")
        a, b = self.client("a"), self.client("b")
        a.set(PRE_COPY)
        stream = a.read_all()
        before = self.counter(a)
        self.until(lambda: self.counter(a) > before)
        a.set(STOP_COPY)
        b.load(stream + a.read_all())
        a.set(STOP)
        self.assertEqual(a.peek(0, 65536), b.peek(0, 65536))
        self.assertGreater(self.counter(b), before)


class Arguments(Case):
    def fails(self, status, *arguments):
        process = self.launch(*arguments)
        _, said = process.communicate(timeout=LIMIT)
        self.processes.remove(process)
        self.assertEqual(process.returncode, status, arguments)
        return said.decode()

    def test_bad_arguments_are_named(self):
        socket_key = f"socket={self.path('x')}"
        for wrong in ("id=", "p2p=maybe", "size=", "size=1T", "size=5G", "size=-1", "size=K", "seed=x", "nokey", "nokey=1",
                      "delay=stop:1", "delay=stop>stop-copy", "delay=stop>stop-copy:-1", "delay=running>stop:5",
                      "delay=pre-copy>running:5", "fault=read:burn", "fault=running>stop:hang", "read-delay=1s",
                      "max-data=65M", "socket=" + "x" * 108, "socket="):
            said = self.fails(2, f"{socket_key},{wrong}")
            self.assertIn(wrong.split(",")[0], said)
        self.assertIn("socket", self.fails(2, "id=x"))
        self.assertIn("--reset", self.fails(2, "--reset=no", socket_key))
        self.assertIn("--on-disconnect", self.fails(2, "--on-disconnect=cry", socket_key))
        self.assertIn("--ready-fd", self.fails(2, "--ready-fd=x", socket_key))
        self.assertIn("DEVICE", self.fails(2))
        self.assertIn("--what", self.fails(2, "--what", socket_key))
        self.assertIn("id", self.fails(2, f"socket={self.path('x')},id=1", f"socket={self.path('y')},id=1"))
        self.assertEqual(os.listdir(self.directory.name), [])

    def test_keys_stand_in_any_order(self):
        self.start("delay=running>stop:1,p2p=off,fault=pre-copy>running:hang,pre-copy=on,size=1K,size=2K")
        self.assertEqual(self.control.status("a")["size"], 2048)

    def test_help_names_every_key(self):
        help_text = subprocess.run([PROGRAM, "--help"], check=True, capture_output=True, text=True).stdout
        for word in ("--control", "--reset", "--on-disconnect", "--ready-fd", "socket=", "twin-socket=", "chatter",
                     "fault=", "work=", "max-data="):
            self.assertIn(word, help_text)

    def test_a_stale_socket_is_replaced_and_a_live_one_is_not(self):
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(self.path("a"))
        stale.close()
        self.start("")
        self.client().set(STOP)
        self.fails(1, f"socket={self.path('a')}")
        with open(self.path("file"), "w") as file:
            file.write("precious")
        self.fails(1, f"socket={self.path('file')}")
        with open(self.path("file")) as file:
            self.assertEqual(file.read(), "precious")

    def test_a_killed_process_can_be_started_again(self):
        self.start("")
        self.process.kill()
        self.ended(-signal.SIGKILL)
        self.control.close()
        self.start("")
        self.client().set(STOP)


class Many(Case):
    def test_a_thousand_devices_start_and_answer_and_move(self):
        n = 1000
        devices = [f"socket={self.path(str(i))},size=1K,seed={i}" for i in range(n)]
        read, write = os.pipe()
        self.process = self.launch(f"--ready-fd={write}", *devices, fds=(write,))
        os.close(write)
        self.assertTrue(select.select([read], [], [], LIMIT)[0])
        os.close(read)
        clients = []
        try:
            for i in range(n):
                clients.append(Client(self.path(str(i))))
            for client in clients:
                client.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP_COPY, -1))
            for client in clients:
                client.receive()
            contents = {client.read_all(4096) for client in clients}
            self.assertEqual(len(contents), n)
        finally:
            for client in clients:
                client.close()


if __name__ == "__main__":
    unittest.main()
