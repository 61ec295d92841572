# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VMM that uses a device behind the broker: what it sends arrives, with its files and in order; the device can be stopped,
moved and its server lost without the VMM noticing more than a wait; and whoever breaks the rules hurts nobody but himself.

Agents are driven without a daemon where the moment counts, and real daemons where it is about them. Waiting is always for
something."""

import errno
import json
import mmap
import os
import random
import resource
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

from lab import PACE, Lab, definition, new_uuid, program, wait_for
from vfio_user import (DATA_READ, DATA_WRITE, DMA_MAP, DMA_READ, DMA_UNMAP, DMA_WRITE, FEATURE, GET, GET_INFO, IRQ_INFO,
                       MIGRATION, NO_REPLY, PROBE, REGION_INFO, REGION_READ, REGION_WRITE, RESET, RESUMING, RUNNING, SET,
                       SET_IRQS, STATE, STOP, STOP_COPY, VERSION, Client, Refused)
from vfio_user_server import DATA_EVENTFD, TRIGGER, Hang, Server

OPEN, ATTACH, RUN, STOP_COMMAND, HELLO, RESULT, PROGRESS, GONE, BROKER, WANTED, DIRTY, IDENTITY = range(1, 13)
OP_GET, OP_SET, OP_RESET, OP_LOG_START, OP_LOG_STOP, OP_DIRTY, OP_SEND_PAGES = 0, 1, 2, 7, 8, 9, 11
PROGRAM_MAX = 8
DMA_LOGGING, HAS_DMA = 1 << 8, 1 << 9
ANSWER = 4.0  # seconds, BROKER_ANSWER_USEC
TWIN = {"max_msg_fds": 16, "twin_socket": {"supported": True}}
PAGE = 4096
JOB = b"01234567-89ab-cdef-0123-456789abcdef"


class Agent:
    """migmgr-agent, and its commander in the tester's hand."""

    def __init__(self, directory, broker):
        self.path, self.broker, self.seq = os.path.join(directory, "agent"), broker, 0
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.path)
        listener.listen(4)
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([program("migmgr-agent"), "test"], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, close_fds=False,
                                        preexec_fn=lambda: self.prepare(listener.fileno()))
        listener.close()
        self.packets = []
        self.connect()

    @staticmethod
    def prepare(listener):
        os.dup2(listener, 3)
        os.set_inheritable(3, True)  # it may have been that already
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))

    def connect(self):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.s.settimeout(10 * PACE)
        wait_for("the agent", lambda: self.s.connect_ex(self.path) == 0)
        self.hello = self.hear(HELLO)

    def listen(self):
        s = socket.socket(socket.AF_UNIX)
        s.bind(self.broker)
        s.listen(4)
        self.say(BROKER, self.broker.encode().ljust(108, b"\0"), s)
        s.close()

    def say(self, kind, body=b"", s=None):
        socket.send_fds(self.s, [struct.pack("=II", 0x3147414d, kind) + body], [s.fileno()] if s else [])

    def hear(self, *kinds):
        """The body of the next packet of these kinds. Others are kept."""
        for i, (kind, body) in enumerate(self.packets):
            if kind in kinds:
                del self.packets[i]
                return body
        while True:
            packet = self.s.recv(2048)
            assert packet, "the agent is gone: " + self.output()
            kind = struct.unpack_from("=II", packet)[1]
            if kind in kinds:
                return packet[8:]
            self.packets.append((kind, packet[8:]))

    def result(self):
        """(status, flags, state) of the command that was given last."""
        while True:
            seq, status, _, flags, _, _, state = struct.unpack_from("=IiIIIII", self.hear(RESULT))
            if seq == self.seq:
                return status, flags, state

    def start_open(self, path):
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        self.seq += 1
        # No kernel device, and no memory that one was told of: there is room for 32 ranges.
        self.say(OPEN, struct.pack("=IIQII512x", self.seq, 0, round(3e6 * PACE), 0, 0), s)
        s.close()

    def open(self, path):
        self.start_open(path)
        status, flags, state = self.result()
        assert status == 0, status
        return flags, state

    def start_run(self, *ops, deadline=0):
        """(operation, from, to) each."""
        self.seq += 1
        body = b"".join(struct.pack("=BBBB", *op, 0) for op in ops).ljust(4 * PROGRAM_MAX, b"\0")
        self.say(RUN, struct.pack("=IIQ40x37s3s", self.seq, len(ops), deadline, JOB, b"") + body)

    def run(self, *ops):
        self.start_run(*ops)
        status, flags, state = self.result()
        assert status == 0, (status, self.output())
        return flags, state

    def set(self, *states):
        """From each to the next."""
        return self.run(*[(OP_SET, a, b) for a, b in zip(states, states[1:])])

    def output(self):
        self.log.seek(0)
        return self.log.read()

    def close(self):
        self.s.close()
        self.process.kill()
        self.process.wait(10)
        self.log.close()


class Vmm(Client):
    """A VMM with memory, interrupts and an eye on server commands."""

    def map(self, address, size, fd=None, offset=0, flags=3):
        self.call(DMA_MAP, struct.pack("=IIQQQ", 32, flags, offset, address, size), fds=() if fd is None else (fd,))

    def unmap(self, address, size):
        self.call(DMA_UNMAP, struct.pack("=IIQQ", 24, 0, address, size))

    def irqs(self, index, start, fds, count=None, flags=DATA_EVENTFD | TRIGGER):
        count = len(fds) if count is None else count
        self.call(SET_IRQS, struct.pack("=IIIII", 20, flags, index, start, count), fds=fds)

    def post(self, offset, data):
        self.send(REGION_WRITE, struct.pack("=QII", offset, 0, len(data)) + data, flags=NO_REPLY)

    def start_peek(self, offset, count):
        self.send(REGION_READ, struct.pack("=QII", offset, 0, count))
        return self.last_id

    def refusal(self, *args, **kw):
        """The errno of a command that is refused; 0 when it is not."""
        try:
            self.call(*args, **kw)
            return 0
        except Refused as e:
            return e.errno


class Case(unittest.TestCase):
    SERVER = {}
    ended = False  # as the test wanted

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="migmgr-")
        self.addCleanup(self.dir.cleanup)
        self.server = self.make_server("device", **self.SERVER)
        self.broker = os.path.join(self.dir.name, "broker")
        self.agent = Agent(self.dir.name, self.broker)
        self.addCleanup(self.agent.close)
        self.agent.listen()
        self.flags, self.state = self.agent.open(self.server.path)

    def make_server(self, name, **kw):
        server = Server(os.path.join(self.dir.name, name), **kw)
        self.addCleanup(server.close)
        return server

    def tearDown(self):
        if not self.ended:
            self.assertIsNone(self.agent.process.poll(), self.agent.output())
        self.assertNotRegex(self.agent.output(), "Sanitizer|runtime error")
        self.assertEqual(self.server.violations, [])

    def vmm(self, capabilities=TWIN, negotiate=True):
        vmm = Vmm(self.broker, negotiate=False)
        self.addCleanup(vmm.close)
        vmm.socket.settimeout(10 * PACE)
        if negotiate:
            vmm.version(capabilities)
        return vmm

    def try_vmm(self):
        """None while another one is there, or its end was not seen yet."""
        try:
            return self.vmm()
        except (EOFError, OSError):
            return None

    def memory(self, size=4 * PAGE):
        fd = os.memfd_create("memory")
        os.ftruncate(fd, size)
        self.addCleanup(os.close, fd)
        return fd

    def eventfd(self):
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.addCleanup(os.close, fd)
        return fd

    def agent_fds(self):
        return len(os.listdir(f"/proc/{self.agent.process.pid}/fd"))

    def took(self, seconds, call):
        """The call takes so long, no less and hardly more; returns what it returned."""
        start = time.monotonic()
        value = call()
        took = time.monotonic() - start
        self.assertGreater(took, seconds - 0.1)
        self.assertLess(took, seconds + 0.9 * PACE)
        return value


class Passing(Case):
    """Both ways, with everything that belongs to it."""

    def test_version_is_what_the_server_said_within_what_the_vmm_takes(self):
        self.assertEqual(self.server.asked["twin_socket"], {"supported": True})
        for wants, data, twin in ((TWIN, 1 << 20, True), ({"max_msg_fds": 0, "twin_socket": {"supported": True}}, 1 << 20, False),
                                  ({"max_data_xfer_size": 65536}, 65536, False), ({"max_data_xfer_size": 1 << 40}, 1 << 20, False)):
            with self.subTest(wants):
                vmm = self.vmm(negotiate=False)
                said = vmm.version(wants)
                self.assertEqual(vmm.said, (0, 1), "the server's minor")
                self.assertEqual((said["max_msg_fds"], said["max_data_xfer_size"]), (8, data))
                self.assertEqual("twin_socket" in said, twin)
                self.assertEqual(vmm.twin is not None, twin)
                vmm.close()

    def test_a_version_without_text_is_enough(self):
        vmm = self.vmm(negotiate=False)
        vmm.version(raw=b"")
        self.assertEqual(vmm.info()[2:], (9, 5))

    def test_what_is_no_version_is_refused_and_the_connection_closed(self):
        for major, raw in ((1, b""), (0, b"{"), (0, b"{}"), (0, b"[]\0"), (0, b"\xff\0"), (0, b"{\"capabilities\":\0")):
            vmm = self.vmm(negotiate=False)
            with self.assertRaises(Refused):
                vmm.version(major=major, raw=raw)
            self.assertTrue(vmm.is_closed())
        vmm = self.vmm(negotiate=False)
        self.assertEqual(vmm.refusal(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)), errno.EINVAL)
        self.assertTrue(vmm.is_closed())

    def test_regions_are_read_and_written(self):
        vmm = self.vmm()
        for size in (0, 1, 8, 4096, 65536):
            data = random.randbytes(size)
            vmm.poke(0, data)
            self.assertEqual(vmm.peek(0, size), data)
        with self.assertRaises(Refused):
            vmm.peek(65536, 1)

    def test_answers_find_their_questions(self):
        """Many at once, with numbers that repeat as the sender likes."""
        vmm = self.vmm()
        self.server.memory[:] = bytes(i // 256 for i in range(65536))
        offsets = [random.randrange(256) * 256 for _ in range(500)]
        got = []

        def read():
            for _ in offsets:
                got.append(vmm.receive())
        reader = threading.Thread(target=read)
        reader.start()
        for i, offset in enumerate(offsets):
            vmm.send_raw(vmm.message(REGION_READ, struct.pack("=QII", offset, 0, 8), ident=i % 3))
        reader.join(20 * PACE)
        self.assertEqual([m.id for m in got], [i % 3 for i in range(len(offsets))])
        self.assertEqual([m.payload[16:] for m in got], [bytes([o // 256]) * 8 for o in offsets])

    def test_files_travel_both_ways(self):
        vmm = self.vmm()
        memory, events = self.memory(), [self.eventfd() for _ in range(8)]
        os.pwrite(memory, b"guest", 100)
        vmm.map(0x10000, PAGE, memory, offset=0)
        self.assertEqual(self.server.mapped(0x10000 + 100, 5), b"guest")
        vmm.irqs(2, 3, events)
        for i in range(8):
            self.server.interrupt(2, 3 + i)
            self.assertEqual(os.eventfd_read(events[i]), 1)
        reply = vmm.call(REGION_INFO, struct.pack("=IIIIQQ", 64, 0, 1, 0, 0, 0))
        self.assertEqual(len(reply.fds), 1)
        with mmap.mmap(reply.fds[0], 4096) as region:
            region[:4] = b"BAR1"
        os.close(reply.fds[0])
        self.assertEqual(os.pread(self.server.region_fd, 4, 0), b"BAR1")

    def test_more_files_than_the_vmm_takes_are_not_sent(self):
        vmm = self.vmm({"max_msg_fds": 0})
        self.assertEqual(vmm.refusal(REGION_INFO, struct.pack("=IIIIQQ", 64, 0, 1, 0, 0, 0)), errno.EMFILE)
        self.assertEqual(vmm.info()[2:], (9, 5))

    def test_errors_come_as_the_server_gave_them(self):
        vmm = self.vmm()

        def fail(server, message):
            raise Refused(errno.ENOTTY)
        self.server.before[GET_INFO] = fail
        self.assertEqual(vmm.refusal(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)), errno.ENOTTY)

    def test_memory_by_message(self):
        for capabilities in (TWIN, {}):
            with self.subTest(capabilities):
                vmm = self.vmm(capabilities)
                line = vmm.twin or vmm
                line.socket.settimeout(10 * PACE)
                memory = bytearray(random.randbytes(1 << 16))

                def serve(n, bare):
                    for _ in range(n):
                        m = line.receive()
                        address, count = struct.unpack_from("=QQ", m.payload)
                        if m.command == DMA_READ:
                            line.answer(m, m.payload[:16] + memory[address:address + count])
                        else:
                            memory[address:address + count] = m.payload[16:]
                            line.answer(m, b"" if bare else m.payload[:16])
                for bare in (False, True):
                    thread = threading.Thread(target=serve, args=(2, bare))
                    thread.start()
                    self.assertEqual(self.server.dma_read(100, 5000), memory[100:5100])
                    self.server.dma_write(7, b"written")
                    thread.join(10)
                    self.assertEqual(memory[7:14], b"written")
                vmm.close()

    def test_memory_by_message_without_a_vmm(self):
        with self.assertRaisesRegex(Refused, "EINVAL"):
            self.server.dma_read(0, 8)
        vmm = self.vmm(negotiate=False)
        with self.assertRaisesRegex(Refused, "EINVAL"):
            self.server.dma_read(0, 8)
        vmm.version(TWIN)

    def test_more_than_the_vmm_takes_at_once_is_refused(self):
        self.vmm({"max_data_xfer_size": 4096, **TWIN})
        with self.assertRaisesRegex(Refused, "EINVAL"):
            self.server.dma_read(0, 4097)

    def test_one_vmm_at_a_time(self):
        vmm = self.vmm()
        other = self.vmm(negotiate=False)
        self.assertTrue(other.is_closed())
        self.assertEqual(vmm.info()[2:], (9, 5))
        vmm.close()
        wait_for("the next one", self.try_vmm)

    def test_flags_say_what_the_device_can_and_has(self):
        self.assertEqual(self.flags & (DMA_LOGGING | HAS_DMA), 0)
        vmm = self.vmm()
        vmm.map(0, PAGE)
        self.assertEqual(self.agent.run((OP_GET, 0, 0))[0], 1 | HAS_DMA)
        self.agent.s.close()
        self.agent.connect()
        flags = struct.unpack_from("=I", self.agent.hello, 44)[0]
        self.assertEqual(flags, 1 | HAS_DMA)
        vmm.unmap(0, PAGE)
        self.assertEqual(self.agent.run((OP_GET, 0, 0))[0], 1)
        logging = self.make_server("logging", logging=True)
        self.assertEqual(self.agent.open(logging.path)[0], 1 | DMA_LOGGING)

    def test_our_own_commands_go_between(self):
        vmm = self.vmm()
        stop = threading.Event()

        def poll():
            while not stop.is_set():
                self.agent.run((OP_GET, 0, 0))
        thread = threading.Thread(target=poll)
        thread.start()
        try:
            for i in range(1000):
                data = struct.pack("=Q", i)
                vmm.poke(8, data)
                self.assertEqual(vmm.peek(8, 8), data)
        finally:
            stop.set()
            thread.join(10)
        self.assertGreater(len(self.server.seen(FEATURE)), 20)


class Serial(Case):
    """A server without a twin socket takes the next message for the answer to its own command."""
    SERVER = {"twin": False}

    def test_one_command_at_a_time_and_none_beside_the_servers(self):
        vmm = self.vmm()
        stop = threading.Event()
        twin = vmm.twin
        twin.socket.settimeout(0.1)

        def serve():
            while not stop.is_set():
                try:
                    m = twin.receive()
                except TimeoutError:
                    continue
                time.sleep(0.01)
                twin.answer(m, m.payload[:16] + bytes(struct.unpack_from("=QQ", m.payload)[1]))

        def hammer():
            # As libvfio-user does: within a command, for which the client waits.
            while not stop.is_set():
                self.agent.run((OP_GET, 0, 0))
        threads = [threading.Thread(target=t) for t in (serve, hammer)]
        inner = []

        def ask(server, message):
            wire = server.client
            wire.send(DMA_READ, struct.pack("=QQ", 0, 8))
            server.asking = True
            reply = wire.receive()
            server.asking = False
            if reply.flags & 0xf != 1:
                server.violations.append(f"command {reply.command} instead of an answer")
            inner.append(reply.size)
        self.server.before[REGION_WRITE] = ask
        for t in threads:
            t.start()
        try:
            for i in range(30):
                vmm.post(0, bytes(8))
                vmm.poke(0, bytes(8))
                vmm.peek(0, 8)
        finally:
            stop.set()
            for t in threads:
                t.join(10)
        self.assertEqual(inner, [16 + 16 + 8] * 60)

    def test_the_server_may_ask_without_a_command(self):
        vmm = self.vmm({})
        seen = []

        def serve():
            m = vmm.receive()
            seen.append(m.command)
            vmm.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
            time.sleep(0.05)
            vmm.answer(m, m.payload[:16] + bytes(8))
            seen.append(vmm.receive().command)
        thread = threading.Thread(target=serve)
        thread.start()
        self.assertEqual(self.server.dma_read(0, 8), bytes(8))
        thread.join(10)
        self.assertEqual(seen, [DMA_READ, GET_INFO])


class Identity(Case):
    """What the agent reads when it opens the device, and says before the answer."""

    LAYOUT = "=QII64s"  # ends what says it

    def identity(self):
        return struct.unpack(self.LAYOUT, self.agent.hear(IDENTITY))

    def test_a_window_and_no_config_space(self):
        self.assertEqual(self.identity(), (0, 0, 2, bytes(64)))

    def test_what_it_says(self):
        config = bytes(range(64))

        def access(m):
            offset, region, count = struct.unpack_from("=QII", m.payload)
            self.server.refuse(region != 7)
            return m.payload[:16] + config[offset:offset + count], ()
        self.identity()
        self.server.instead[REGION_READ] = access
        self.server.instead[REGION_INFO] = lambda m: (
            struct.pack("=IIIIQQ", 32, 3, *struct.unpack_from("=I", m.payload, 8), 0, 4096, 0), ())
        self.agent.open(self.server.path)
        self.assertEqual(self.identity(), (0, 64, 1, config))
        # Whoever connects anew is told with the greeting.
        self.agent.s.close()
        self.agent.packets.clear()
        self.agent.connect()
        self.assertEqual(struct.unpack(self.LAYOUT, self.agent.hello[-struct.calcsize(self.LAYOUT):]), (0, 64, 1, config))

    def test_a_server_that_tells_less_than_that_is_as_good(self):
        answers = ([REGION_INFO, lambda m: self.server.refuse(True)],
                   [REGION_INFO, lambda m: (struct.pack("=IIIIQQ", 1 << 20, 3, 0, 0, 4096, 0), ())],
                   [REGION_READ, lambda m: self.server.refuse(True)],
                   [REGION_READ, lambda m: (m.payload[:16] + bytes(63), ())],
                   [REGION_READ, lambda m: (bytes(16), ())])
        self.identity()
        for command, answer in answers:
            self.server.instead.clear()
            self.server.instead[command] = answer
            self.agent.open(self.server.path)
            _, n, windows, _ = self.identity()
            self.assertEqual((n, windows), (0, 0 if command == REGION_INFO else 2))


class Holding(Case):
    """While the device stands."""
    SERVER = {"strict": True}

    def test_commands_wait_until_it_runs(self):
        vmm = self.vmm()
        self.server.log.clear()  # what the agent has read when it opened the device
        self.agent.set(RUNNING, STOP)
        vmm.start_peek(0, 8)
        vmm.post(16, b"posted")
        self.assertTrue(vmm.is_silent(0.3))
        self.assertEqual(self.server.seen(REGION_READ, REGION_WRITE), [])
        self.agent.set(STOP, STOP_COPY, STOP, RUNNING)
        self.assertEqual(vmm.receive().payload[16:], bytes(8))
        self.assertEqual(vmm.peek(16, 6), b"posted")
        self.assertEqual([s.state for s in self.server.seen(REGION_READ, REGION_WRITE)], [RUNNING] * 3)

    def test_at_most_four_seconds(self):
        vmm = self.vmm()
        self.server.log.clear()  # what the agent has read when it opened the device
        self.agent.set(RUNNING, STOP)
        error = self.took(ANSWER, lambda: vmm.refusal(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)))
        self.assertEqual(error, errno.EBUSY)
        # What is posted waits on, and the clock of each command is its own.
        vmm.post(0, b"posted")
        vmm.start_peek(0, 8)
        time.sleep(1)
        vmm.start_peek(0, 8)
        self.took(ANSWER - 1, vmm.receive)
        self.took(1, vmm.receive)
        self.agent.set(STOP, RUNNING)
        self.assertEqual(vmm.peek(0, 6), b"posted")
        self.assertEqual(len(self.server.seen(REGION_READ)), 1)

    def test_what_waits_is_bounded_and_nothing_is_lost(self):
        for size, many in ((8, 1000), (65536, 60)):
            with self.subTest(size):
                vmm = self.vmm()
                self.agent.set(RUNNING, STOP)
                self.server.log.clear()

                def post():
                    for i in range(many):
                        vmm.post(0, struct.pack("=Q", i) + bytes(size - 8))
                thread = threading.Thread(target=post)
                thread.start()
                wait_for("the VMM to wait in its own write", lambda: self.is_stuck(vmm))
                self.assertTrue(thread.is_alive())
                self.agent.set(STOP, RUNNING)
                thread.join(20)
                vmm.peek(0, 8)
                self.assertEqual([struct.unpack_from("=Q", s.payload, 16)[0] for s in self.server.seen(REGION_WRITE)],
                                 list(range(many)))
                vmm.close()

    def is_stuck(self, vmm):
        return not select.select([], [vmm.socket], [], 0.2)[1]

    def test_what_was_posted_before_goes_before_the_stop(self):
        vmm = self.vmm()
        for round in range(20):
            self.server.log.clear()
            os.kill(self.agent.process.pid, signal.SIGSTOP)
            for i in range(50):
                vmm.post(0, struct.pack("=Q", i))
            self.agent.start_run((OP_SET, RUNNING, STOP))
            os.kill(self.agent.process.pid, signal.SIGCONT)
            self.assertEqual(self.agent.result()[2], STOP)
            self.assertEqual([(s.state, struct.unpack_from("=Q", s.payload, 16)[0]) for s in self.server.seen(REGION_WRITE)],
                             [(RUNNING, i) for i in range(50)], round)
            self.agent.set(STOP, RUNNING)

    def test_while_it_takes_a_state_in_everything_but_reset_goes_on(self):
        vmm = self.vmm()
        self.agent.set(RUNNING, STOP, RESUMING)
        vmm.map(0, PAGE, self.memory())
        vmm.irqs(2, 0, [self.eventfd()])
        vmm.poke(0, b"config")
        self.assertEqual(vmm.peek(0, 6), b"config")
        vmm.reset()
        self.assertEqual(self.server.state, RESUMING)
        self.assertEqual(self.server.seen(RESET), [])
        self.agent.set(RESUMING, STOP, RUNNING)
        vmm.reset()
        self.assertEqual(len(self.server.seen(RESET)), 1)

    def test_a_transition_that_fails_lets_the_vmm_go_on(self):
        vmm = self.vmm()

        def fail(server, message):
            if struct.unpack_from("=I", message.payload, 4)[0] & SET:
                raise Refused(errno.EIO)
        self.server.before[FEATURE] = fail
        self.agent.start_run((OP_SET, RUNNING, STOP))
        self.assertEqual(self.agent.result()[0], -errno.EIO)
        self.assertEqual(vmm.peek(0, 8), bytes(8))

    def test_a_device_that_stands_when_it_is_opened(self):
        self.server.state = STOP
        self.server.drop_client()
        self.agent.hear(GONE)
        self.agent.open(self.server.path)
        vmm = self.vmm()
        vmm.start_peek(0, 8)
        self.assertTrue(vmm.is_silent())
        self.agent.set(STOP, RUNNING)
        vmm.receive()

    def test_dma_that_is_under_way_ends(self):
        """A device may quiesce by waiting for it."""
        vmm = self.vmm()
        answers = []

        def quiesce(server, message):
            if struct.unpack_from("=I", message.payload, 4)[0] & SET:
                answers.append(server.dma_read(0, 8))
        self.server.before[FEATURE] = quiesce
        self.agent.start_run((OP_SET, RUNNING, STOP))
        m = vmm.twin.receive()
        vmm.twin.answer(m, m.payload + b"8 bytes.")
        self.assertEqual(self.agent.result()[2], STOP)
        self.assertEqual(answers, [b"8 bytes."])


class Patience(Case):
    """Who does not answer."""

    def test_a_server_that_does_not_answer_is_answered_for(self):
        vmm = self.vmm()
        late = []

        def hang(server, message):
            late.append(message)
            raise Hang()
        self.server.before[GET_INFO] = hang
        error = self.took(ANSWER, lambda: vmm.refusal(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)))
        self.assertEqual(error, errno.ETIMEDOUT)
        self.assertEqual(vmm.peek(0, 8), bytes(8), "others go on")
        self.server.client.answer(late[0], bytes(16))
        self.assertTrue(vmm.is_silent(), "too late")
        self.assertEqual(vmm.peek(0, 8), bytes(8))

    def test_what_was_accepted_too_late_is_taken_back(self):
        vmm = self.vmm()
        late = []

        def hang(server, message):
            if not late:
                late.append(message)
                server.map(message)
                raise Hang()
        self.server.before[DMA_MAP] = hang
        fd = self.memory()
        request = struct.pack("=IIQQQ", 32, 3, 0, 0, PAGE)
        self.assertEqual(self.took(ANSWER, lambda: vmm.refusal(DMA_MAP, request, fds=(fd,))), errno.ETIMEDOUT)
        self.server.client.answer(late[0])
        wait_for("the unmap", lambda: self.server.seen(DMA_UNMAP))
        wait_for("nothing to be mapped", lambda: not self.server.maps)
        vmm.map(0, PAGE, fd)
        self.assertEqual(list(self.server.maps), [(0, PAGE)])

    def test_many_commands_that_are_not_answered(self):
        vmm = self.vmm()

        def hang(server, message):
            raise Hang()
        self.server.before[REGION_READ] = hang
        for _ in range(200):
            vmm.start_peek(0, 8)
        start = time.monotonic()
        errors = [vmm.receive().error for _ in range(200)]
        self.assertEqual(set(errors), {errno.ETIMEDOUT})
        self.assertLess(time.monotonic() - start, 3 * ANSWER * PACE)
        # The device can still be stopped.
        self.agent.set(RUNNING, STOP)

    def test_a_vmm_that_does_not_answer_is_answered_for(self):
        vmm = self.vmm()

        def ask():
            with self.assertRaisesRegex(Refused, "ETIMEDOUT"):
                self.server.dma_read(0, 8)
        self.took(ANSWER, ask)
        m = vmm.twin.receive()
        vmm.twin.answer(m, m.payload + bytes(8))
        # Too late, and nobody's fault.
        result = []
        thread = threading.Thread(target=lambda: result.append(self.server.dma_read(0, 4)))
        thread.start()
        m = vmm.twin.receive()
        vmm.twin.answer(m, m.payload + b"four")
        thread.join(10)
        self.assertEqual(result, [b"four"])

    def test_a_vmm_that_does_not_begin(self):
        vmm = self.vmm(negotiate=False)
        self.took(ANSWER, lambda: self.assertTrue(vmm.is_closed()))


class Coming(Case):
    """Who dies, and who comes back."""

    def set_up(self, vmm):
        self.fds = [self.memory(), self.memory()]
        self.events = [self.eventfd() for _ in range(12)]
        os.pwrite(self.fds[0], b"zero", 0)
        vmm.map(0, PAGE, self.fds[0])
        vmm.map(0x100000, 2 * PAGE, self.fds[1], offset=PAGE, flags=1)
        vmm.map(0x200000, PAGE)
        vmm.map(0x300000, PAGE, self.fds[0])
        vmm.unmap(0x300000, PAGE)
        vmm.irqs(2, 0, self.events[:8])
        vmm.irqs(2, 8, self.events[8:11])
        vmm.irqs(0, 0, self.events[11:])
        vmm.irqs(2, 1, [], count=1)

    def is_set_up(self):
        maps = {k: v[:2] for k, v in self.server.maps.items()}
        return (maps == {(0, PAGE): (3, 0), (0x100000, 2 * PAGE): (1, PAGE), (0x200000, PAGE): (3, 0)} and
                set(self.server.irqs) == {(2, v) for v in range(11) if v != 1} | {(0, 0)})

    def works(self):
        self.assertTrue(self.is_set_up(), (self.server.maps, self.server.irqs))
        self.assertEqual(self.server.mapped(0, 4), b"zero")
        for (index, vector), event in [((2, 0), self.events[0]), ((2, 10), self.events[10]), ((0, 0), self.events[11])]:
            self.server.interrupt(index, vector)
            self.assertEqual(os.eventfd_read(event), 1)

    def reopened(self, **kw):
        self.agent.hear(GONE)
        return self.agent.open(self.server.path, **kw)

    def test_what_the_vmm_has_set_up_is_given_to_a_new_connection(self):
        vmm = self.vmm()
        self.set_up(vmm)
        self.assertTrue(self.is_set_up())
        for keep in (False, True):
            self.server.keep_maps = keep
            self.server.drop_client()
            flags, _ = self.reopened()
            self.assertEqual(flags, 1 | HAS_DMA)
            self.assertTrue(self.is_set_up(), "opened is when all is there: whoever makes it run now loses nothing")
            vmm.start_peek(0, 8)
            vmm.receive()  # behind what was given again
            self.works()
        vmm.unmap(0x200000, PAGE)
        self.assertNotIn((0x200000, PAGE), self.server.maps)

    def test_a_device_that_stands_gets_it_when_it_runs(self):
        for strict in (True, False):
            with self.subTest(strict=strict):
                vmm = self.vmm()
                self.set_up(vmm)
                self.server.strict = strict
                self.agent.set(RUNNING, STOP)
                self.server.drop_client()
                self.reopened()
                if strict:
                    self.agent.run((OP_GET, 0, 0))
                    self.assertEqual(self.server.maps, {})
                else:
                    self.assertTrue(self.is_set_up())
                self.agent.set(STOP, RUNNING)
                vmm.peek(0, 8)
                self.works()
                vmm.close()
                wait_for("all to be taken back", lambda: not self.server.maps and not self.server.irqs)

    def test_a_vmm_that_goes_leaves_nothing(self):
        before = self.agent_fds()
        vmm = self.vmm()
        self.set_up(vmm)
        vmm.close()
        wait_for("all to be taken back", lambda: not self.server.maps and not self.server.irqs)
        wait_for("the files to be closed", lambda: self.agent_fds() == before)
        self.assertEqual(self.agent.run((OP_GET, 0, 0))[0], 1, "no memory is mapped")
        vmm = self.vmm()
        self.set_up(vmm)
        self.works()

    def test_a_vmm_that_goes_while_the_device_stands(self):
        self.server.strict = True
        vmm = self.vmm()
        self.set_up(vmm)
        self.agent.set(RUNNING, STOP)
        vmm.close()
        again = self.vmm()
        self.agent.run((OP_GET, 0, 0))
        self.assertTrue(self.is_set_up())
        again.send(DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, 0, 8 * PAGE))  # where the other's was
        self.agent.set(STOP, RUNNING)
        self.assertEqual(again.receive().error, 0)
        self.assertEqual(list(self.server.maps), [(0, 8 * PAGE)])
        self.assertEqual(self.server.irqs, {})

    def test_a_server_that_dies_is_waited_for(self):
        vmm = self.vmm()
        self.set_up(vmm)
        self.server.die()
        self.agent.hear(GONE)
        self.agent.hear(WANTED)
        vmm.start_peek(0, 8)
        self.assertTrue(vmm.is_silent())
        self.server.restart()
        self.agent.open(self.server.path)
        self.assertEqual(vmm.receive().error, 0)
        self.works()

    def test_a_server_that_stays_away_ends_the_vmms_connection(self):
        vmm = self.vmm()
        self.set_up(vmm)
        self.server.die()
        vmm.start_peek(0, 8)
        error = []

        def end():
            while not error or error[-1]:
                try:
                    error.append(vmm.receive().error)
                except EOFError:
                    error.append(0)
        self.took(ANSWER, end)
        self.agent.hear(WANTED)
        self.server.restart()
        self.agent.open(self.server.path)
        self.vmm()
        self.assertEqual((self.server.maps, self.server.irqs), ({}, {}))

    def test_a_vmm_that_comes_before_its_server(self):
        self.server.drop_client()
        self.agent.hear(GONE)
        vmm = self.vmm(negotiate=False)
        vmm.send(VERSION, struct.pack("=HH", 0, 2))
        for _ in range(3):
            self.agent.hear(WANTED)
        self.assertTrue(vmm.is_silent())
        self.agent.open(self.server.path)
        self.assertEqual(vmm.receive().error, 0)
        self.assertEqual(vmm.info()[2:], (9, 5))

    def test_a_vmm_that_comes_and_no_server_does(self):
        self.server.drop_client()
        self.agent.hear(GONE)
        vmm = self.vmm(negotiate=False)
        self.assertEqual(self.took(ANSWER, lambda: vmm.refusal(VERSION, struct.pack("=HH", 0, 2))), errno.ETIMEDOUT)
        self.assertTrue(vmm.is_closed())

    def test_a_command_that_was_under_way_when_the_server_died(self):
        vmm = self.vmm()

        def die(server, message):
            server.client.socket.shutdown(socket.SHUT_RDWR)
            raise Hang()
        self.server.before[REGION_READ] = die
        self.assertEqual(vmm.refusal(REGION_READ, struct.pack("=QII", 0, 0, 8)), errno.EIO)
        self.server.before.clear()
        self.reopened()
        self.assertEqual(vmm.peek(0, 8), bytes(8))

    def test_many_interrupts(self):
        """More than a process may have open files when nobody cares."""
        vmm = self.vmm()
        event = self.eventfd()
        for i in range(0, 512, 8):
            vmm.irqs(2, i, [event] * 8)
        self.server.drop_client()
        self.reopened()
        vmm.peek(0, 8)
        self.assertEqual(set(self.server.irqs), {(2, i) for i in range(512)})
        self.server.interrupt(2, 511)
        self.assertEqual(os.eventfd_read(event), 1)

    def test_a_region_that_the_vmm_has_mapped_is_still_the_same(self):
        vmm = self.vmm()
        for _ in range(2):
            for fd in vmm.call(REGION_INFO, struct.pack("=IIIIQQ", 64, 0, 1, 0, 0, 0)).fds:
                os.close(fd)
        self.server.drop_client()
        self.reopened()
        vmm.peek(0, 8)
        # Another process has another file.
        self.server.drop_client()
        os.close(self.server.region_fd)
        self.server.region_fd = None
        self.reopened()
        self.assertTrue(vmm.is_closed())
        self.assertIn("other memory", self.agent.output())
        vmm = self.vmm()
        vmm.peek(0, 8)

    def test_many_maps_of_one_file(self):
        vmm = self.vmm()
        before = self.agent_fds()
        fd = self.memory(PAGE)
        for i in range(2000):
            vmm.map(i * PAGE, PAGE, fd)
        self.assertLessEqual(self.agent_fds(), before + 1)
        self.server.drop_client()
        self.reopened()
        vmm.peek(0, 8)
        self.assertEqual(len(self.server.maps), 2000)

    def test_the_path_goes_with_the_agent(self):
        self.agent.start_run((6, 0, 0))
        self.assertEqual(self.agent.process.wait(10), 0)
        self.assertFalse(os.path.exists(self.broker))
        self.ended = True


class Logging(Case):
    """Pages that the device writes while its log runs are found, whatever the VMM does with its maps meanwhile."""
    SERVER = {"logging": True}

    def pages(self):
        """Addresses of those that the agent tells of."""
        self.agent.start_run((OP_DIRTY, 0, 0))
        self.assertEqual(self.agent.result()[0], 0, self.agent.output())
        pages = []
        for kind, body in self.agent.packets:
            if kind == DIRTY:
                address, page_size, n = struct.unpack("=QQQ", body)
                pages.append(address)
        self.agent.packets = [p for p in self.agent.packets if p[0] != DIRTY]
        return pages

    def map(self, vmm, n):
        for i in range(n):
            vmm.map(i * PAGE, PAGE, self.fd)

    def mapped(self, n):
        vmm, self.fd = self.vmm(), self.memory(PAGE)
        self.map(vmm, n)
        self.agent.run((OP_LOG_START, 0, 0))
        self.server.dirty = set(range(0, n * PAGE, PAGE))
        return vmm

    def refused(self):
        """The addresses of what was written mean nothing now."""
        self.agent.start_run((OP_DIRTY, 0, 0))
        return self.agent.result()[0] == -errno.ESTALE

    def test_memory_that_is_taken_away_in_one_piece(self):
        vmm = self.mapped(3)
        vmm.unmap(0, 3 * PAGE)
        self.assertTrue(self.refused())
        self.map(vmm, 3)
        self.assertEqual(self.pages(), [0, PAGE, 2 * PAGE])

    def test_a_vmm_that_comes_again(self):
        self.mapped(2).close()
        wait_for("its maps to go", lambda: not self.server.maps)
        self.assertTrue(self.refused())
        self.map(self.vmm(), 2)
        self.assertEqual(self.pages(), [0, PAGE])

    def test_a_device_without_memory_has_no_pages_to_send(self):
        """Beside devices that have some; the other end waits for the end of it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        self.addCleanup(ours.close)
        self.agent.say(ATTACH, JOB.ljust(40, b"\0"), theirs)
        theirs.close()
        self.agent.run((OP_LOG_START, 0, 0), (OP_LOG_STOP, 0, 0), (OP_DIRTY, 0, 0), (OP_SEND_PAGES, 0, 0))
        self.assertEqual(ours.recv(100), struct.pack("<IHHQII", 0x3144474d, 2, 0, 0, 0, 0))

    def test_more_maps_than_the_commanders_socket_takes(self):
        self.mapped(1500)
        self.assertEqual(len(self.pages()), 1500)


class Hostile(Case):
    """A VMM that means no good."""
    last = None

    def setUp(self):
        super().setUp()
        self.idle_fds = self.agent_fds()

    def still_works(self):
        vmm = wait_for("the broker", self.try_vmm)
        vmm.poke(0, b"works")
        self.assertEqual(vmm.peek(0, 5), b"works")
        vmm.close()
        self.assertEqual(self.server.clients, 1, "the server's connection has not suffered")
        wait_for("nothing to leak", lambda: self.agent_fds() == self.idle_fds)

    def test_framing(self):
        head = struct.Struct("=HHIII")
        for data in (head.pack(1, 9, 15, 0, 0), head.pack(1, 9, 0, 0, 0), head.pack(1, 9, 0xffffffff, 0, 0),
                     head.pack(1, 9, (1 << 20) + 33, 0, 0), head.pack(1, 9, 32, 2, 0), head.pack(1, 9, 32, 15, 0),
                     head.pack(1, 9, 16, 1, 0), head.pack(1, DMA_READ, 16, 1, 0)):
            for negotiate in (True, False):
                vmm = self.vmm(negotiate=negotiate)
                vmm.send_raw(data)
                self.assertTrue(vmm.is_closed(), data)
        self.still_works()
        self.assertEqual(self.agent.output().count("impossible size"), 1, "said once")

    def test_what_only_half_comes(self):
        for n in (1, 15, 16, 17, 100):
            vmm = self.vmm()
            vmm.send_raw(vmm.message(REGION_WRITE, struct.pack("=QII", 0, 0, 4096) + b"x" * 4096)[:n])
            vmm.close()
            self.still_works()
        self.assertEqual(self.server.seen(REGION_WRITE)[0].payload[16:], b"works")

    def test_commands_that_are_not_for_a_vmm_to_say(self):
        vmm = self.vmm()
        for command in (0, VERSION, DMA_READ, DMA_WRITE, 14, DATA_READ, DATA_WRITE, 19, 255, 0xffff):
            for size in (0, 8, 16, 1000):
                self.assertEqual(vmm.refusal(command, bytes(size)), errno.EINVAL, command)
        for number, operations in ((STATE, (SET, SET | PROBE)), (6, (SET, GET, PROBE | SET)), (7, (SET,)), (8, (GET, PROBE | GET))):
            for operation in operations:
                request = struct.pack("=IIIi", 16, number | operation, STOP, -1)
                self.assertEqual(vmm.refusal(FEATURE, request), errno.EINVAL, number)
        self.assertEqual(self.server.seen(DATA_READ, DATA_WRITE, DMA_READ), [])
        self.assertEqual(self.server.state, RUNNING)
        self.assertEqual(vmm.state, RUNNING, "it may look")
        self.assertEqual(vmm.feature(MIGRATION, GET)[1], struct.pack("=Q", 1))
        vmm.close()
        self.still_works()

    def test_sizes_and_counts(self):
        vmm = self.vmm()
        n = len(self.server.log)
        io = struct.Struct("=QII")
        for command, payload in (
                (DMA_MAP, bytes(31)), (DMA_MAP, bytes(33)), (DMA_MAP, b""), (DMA_UNMAP, bytes(23)), (GET_INFO, b""),
                (DMA_UNMAP, struct.pack("=IIQQ", 0xffffffff, 1, 0, 0)), (GET_INFO, bytes(15)), (GET_INFO, bytes(17)),
                (REGION_INFO, bytes(31)), (IRQ_INFO, bytes(15)), (SET_IRQS, bytes(19)), (SET_IRQS, bytes(20)),
                (SET_IRQS, struct.pack("=5I", 19, 33, 0, 0, 0)), (SET_IRQS, struct.pack("=5I", 20, 34, 0, 0, 2) + b"1"),
                (SET_IRQS, struct.pack("=5I", 20, 33 | 2, 0, 0, 0)), (SET_IRQS, struct.pack("=5I", 20, 33 | 64, 0, 0, 0)),
                (SET_IRQS, struct.pack("=5I", 20, 33 | 8, 0, 0, 0)), (REGION_READ, bytes(15)), (REGION_READ, bytes(17)),
                (REGION_READ, io.pack(0, 0, (1 << 20) + 1)), (REGION_READ, io.pack(0, 0, 0xffffffff)),
                (REGION_WRITE, io.pack(0, 0, 1)), (REGION_WRITE, io.pack(0, 0, 0) + b"x"), (REGION_WRITE, io.pack(0, 0, 0xffffffff)),
                (RESET, b"x"), (15, bytes(7)), (15, struct.pack("=Q", 1)), (15, struct.pack("=Q", 1 << 61)),
                (15, struct.pack("=Q", 65) + bytes(65 * 24)), (FEATURE, bytes(7))):
            self.assertEqual(vmm.refusal(command, payload), errno.EINVAL, (command, payload[:24]))
        for index, start, count in ((16, 0, 1), (0xffffffff, 0, 1), (2, 2048, 1), (2, 0xffffffff, 1), (2, 1, 2048)):
            self.assertEqual(vmm.refusal(SET_IRQS, struct.pack("=5I", 20, 33, index, start, count)), errno.ENOSPC)
        self.assertEqual(len(self.server.log), n, "none of it has reached the server")
        vmm.close()
        self.still_works()

    def test_files(self):
        fd = self.memory()
        vmm = self.vmm()
        self.assertEqual(vmm.refusal(DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, 0, PAGE), fds=[fd] * 2), errno.EINVAL)
        self.assertEqual(vmm.refusal(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0), fds=[fd]), errno.EINVAL)
        self.assertEqual(vmm.refusal(SET_IRQS, struct.pack("=5I", 20, 36, 2, 0, 3), fds=[fd] * 2), errno.EINVAL)
        self.assertEqual(vmm.refusal(SET_IRQS, struct.pack("=5I", 20, 33, 2, 0, 1), fds=[fd]), errno.EINVAL)
        self.assertEqual(vmm.refusal(SET_IRQS, struct.pack("=5I", 20, 36, 2, 0, 9), fds=[fd] * 9), errno.EINVAL, "the server's limit")
        vmm.close()
        for n in (17, 253):
            vmm = self.next_vmm()
            vmm.send(SET_IRQS, struct.pack("=5I", 20, 36, 2, 0, n), fds=[fd] * n)
            self.assertTrue(vmm.is_closed())
        self.still_works()

    def next_vmm(self):
        """When the one before has gone."""
        if self.last:
            self.last.close()
        self.last = wait_for("the broker", self.try_vmm)
        return self.last

    def test_answers_to_what_was_not_asked(self):
        for twin in (True, False):
            vmm = self.vmm(TWIN if twin else {})
            line = vmm.twin or vmm
            line.send_raw(struct.pack("=HHIII", 1, DMA_READ, 16, 1, 0))
            self.assertTrue(vmm.is_closed())
        vmm = self.vmm()
        vmm.twin.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        self.assertTrue(vmm.is_closed())
        self.still_works()

    def test_answers_of_a_wrong_kind(self):
        vmm = self.vmm()

        def ask():
            try:
                return self.server.dma_read(0, 8)
            except Refused as e:
                return e.errno

        def tell():
            try:
                return self.server.dma_write(0, b"12345678")
            except Refused as e:
                return e.errno
        for call, bad in ((ask, (b"", bytes(16), bytes(23), bytes(25), struct.pack("=QQ", 1, 8) + bytes(8),
                                 struct.pack("=QQ", 0, 9) + bytes(8), bytes(1 << 20))), (tell, (bytes(17), bytes(1000)))):
            for payload in bad:
                result = []
                thread = threading.Thread(target=lambda: result.append(call()))
                thread.start()
                vmm.twin.answer(vmm.twin.receive(), payload)
                thread.join(10)
                self.assertEqual(result, [errno.EINVAL], len(payload))
        for error, becomes in ((0, errno.EIO), (99999, errno.EIO), (errno.EFAULT, errno.EFAULT)):
            result = []
            thread = threading.Thread(target=lambda: result.append(ask()))
            thread.start()
            m = vmm.twin.receive()
            vmm.twin.send_raw(struct.pack("=HHIII", m.id, m.command, 16, 0x21, error))
            thread.join(10)
            self.assertEqual(result, [becomes])
        vmm.close()
        self.still_works()

    def test_one_that_reads_late(self):
        """It gets all that it has asked for, and in the end is read again itself."""
        vmm = self.vmm()
        vmm.socket.setblocking(False)
        n = 0
        while select.select([], [vmm.socket], [], 0.3)[1]:
            vmm.start_peek(0, 65536)
            n += 1
        vmm.socket.settimeout(10 * PACE)
        self.assertGreater(n, 64)
        start = time.monotonic()
        for _ in range(n):
            self.assertEqual(vmm.receive().size, 32 + 65536)
        self.assertLess(time.monotonic() - start, 2 * PACE, "nothing is waited for")
        self.assertEqual(vmm.peek(0, 8), bytes(8))
        vmm.close()
        self.still_works()

    def test_one_that_does_not_read(self):
        vmm = self.vmm()
        vmm.socket.setblocking(False)
        for _ in range(20000):
            try:
                vmm.start_peek(0, 65536)
            except BlockingIOError:
                break
        self.assertEqual(self.agent.run((OP_GET, 0, 0))[1], RUNNING)
        with open(f"/proc/{self.agent.process.pid}/status") as f:
            rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
        if "sanitized" not in program(""):
            self.assertLess(rss, 64 * 1024)
        vmm.close()
        self.still_works()

    def test_garbage(self):
        rng = random.Random(7)
        for i in range(60):
            vmm = self.next_vmm()
            try:
                vmm.socket.settimeout(0.2)
                for _ in range(rng.randrange(1, 40)):
                    size = rng.choice((0, 8, 16, 20, 24, 32, 40, 100))
                    vmm.send_raw(struct.pack("=HHIII", rng.randrange(65536), rng.randrange(20), 16 + size,
                                             rng.choice((0, 0, 0, NO_REPLY)), 0) + rng.randbytes(size))
                vmm.send_raw(rng.randbytes(rng.randrange(100)))
            except OSError:
                pass
        self.next_vmm().close()
        wait_for("all to be taken back", lambda: not self.server.maps and not self.server.irqs)
        self.assertEqual(self.agent.run((OP_GET, 0, 0))[1], RUNNING)


class Daemons(unittest.TestCase):
    """With everything around it. Devices of the emulated server."""

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.lab.__enter__()
        cls.addClassCleanup(cls.lab.__exit__, None, None, None)
        cls.a, cls.b = (cls.lab.host(name) for name in "ab")
        cls.numbers = iter(range(1, 100))

    def setUp(self):
        n = next(self.numbers)
        self.name, self.uuid = f"vm{n}", new_uuid()
        self.servers = [self.lab.server(f"s{n}{side}", {"d0": f"size=256K,seed={n}"}) for side in "ab"]
        for server in self.servers:
            self.addCleanup(server.stop)

    def tearDown(self):
        for host in (self.a, self.b):
            for p in (host.daemon, host.helper):
                self.assertTrue(p.alive(), p.output()[-4000:])
                self.assertNotRegex(p.output(), "Sanitizer|runtime error", p.name)
            host.migctl("unregister", self.name)

    def path(self, host):
        return os.path.join(self.lab.dir, f"{self.name}{host.name}")

    def definition(self, host):
        d = definition(self.name, self.uuid, self.servers[host is self.b], ["d0"])
        d["devices"][0]["broker"] = self.path(host)
        return d

    def register(self):
        self.a.register(self.definition(self.a))
        self.b.register(self.definition(self.b), incoming=True)

    def vmm(self, host):
        def connect():
            try:
                vmm = Vmm(self.path(host), negotiate=False)
                self.addCleanup(vmm.close)
                vmm.socket.settimeout(10 * PACE)
                vmm.version(TWIN)
            except (OSError, EOFError):
                return None
            return vmm
        return wait_for("the broker", connect)

    def agent_of(self, host):
        """The one that holds this test's device."""
        with open("/proc/net/unix") as f:
            inode = next(line.split()[6] for line in f if line.rstrip().endswith(self.path(host)))
        return next(pid for pid in host.agents() if any(
            os.readlink(f"/proc/{pid}/fd/{fd}") == f"socket:[{inode}]" for fd in os.listdir(f"/proc/{pid}/fd")))

    def test_the_socket_is_as_the_servers(self):
        os.chmod(self.servers[0].socket("d0"), 0o624)
        os.chown(self.servers[0].socket("d0"), 1234, 567)
        self.a.register(self.definition(self.a))
        st = os.stat(self.path(self.a))
        self.assertEqual((st.st_mode & 0o777, st.st_uid, st.st_gid), (0o624, 1234, 567))
        self.vmm(self.a)
        self.a.migctl("unregister", self.name)
        wait_for("the path to go", lambda: not os.path.exists(self.path(self.a)))

    def test_one_that_is_about_to_go_is_waited_for(self):
        """An agent that was told to end has the path for a moment longer than its daemon has it."""
        path = self.path(self.a)
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen()
        s.settimeout(20)

        def go():
            s.accept()[0].close()  # looked at, and found in use
            os.unlink(path)
            s.close()
        thread = threading.Thread(target=go)
        thread.start()
        self.a.register(self.definition(self.a))
        thread.join()
        self.vmm(self.a).info()

    def test_a_path_in_use_is_not_taken_and_a_stale_one_is(self):
        for kind in ("listener", "file", "directory"):
            path, s = self.path(self.a), None
            if kind == "listener":
                s = socket.socket(socket.AF_UNIX)
                s.bind(path)
                s.listen()
            elif kind == "file":
                open(path, "w").close()
            else:
                os.mkdir(path)
            file = os.path.join(self.lab.dir, "definition.json")
            with open(file, "w") as f:
                json.dump(self.definition(self.a), f)
            status, _, err = self.a.migctl("register", file)
            self.assertNotEqual(status, 0)
            self.assertIn(path + ": somebody listens there already, or it is no socket", err)
            self.assertIsNone(self.a.vm(self.name))
            if kind == "directory":
                os.rmdir(path)
            else:
                os.unlink(path)
            if s:
                s.close()
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.close()
        self.a.register(self.definition(self.a))
        self.vmm(self.a).info()

    def test_a_daemon_that_dies_is_not_noticed(self):
        self.register()
        vmm = self.vmm(self.a)
        self.a.daemon.kill()
        vmm.peek(0, 8)
        self.a.start_daemon()
        wait_for("the device", lambda: self.a.devices(self.name)["d0"]["Open"])
        vmm.peek(0, 8)
        status, job = self.a.migrate(self.name, self.b)
        self.assertEqual(status, 0, job)

    def test_a_daemon_that_dies_with_the_server(self):
        """The agent listens for the VMM, and nobody else can."""
        self.register()
        self.servers[0].kill()
        wait_for("that to be seen", lambda: not self.a.devices(self.name)["d0"]["Open"])
        self.a.daemon.kill()
        self.servers[0].start()
        self.a.start_daemon()
        wait_for("the device", lambda: self.a.devices(self.name)["d0"]["Open"])
        self.vmm(self.a).peek(0, 8)

    def test_a_job_that_comes_while_a_new_daemon_opens_the_device(self):
        """What the daemon had begun is the job's then, and afterwards the device is looked after as before."""
        self.register()
        vmm, agent = self.vmm(self.a), self.agent_of(self.a)
        self.a.daemon.kill()
        os.kill(agent, signal.SIGSTOP)
        self.a.start_daemon()
        log = self.a.daemon.output
        client = self.a.migctl_start("check", self.name, self.b.dest)
        wait_for("the check", lambda: f"{self.name}: check: begin" in log())
        os.kill(agent, signal.SIGCONT)
        self.assertEqual((client.communicate()[1], client.returncode), ("", 0))
        self.servers[0].kill()
        wait_for("that to be seen", lambda: not self.a.devices(self.name)["d0"]["Open"])
        self.servers[0].start()
        self.assertEqual(len(vmm.peek(0, 8)), 8)

    def test_an_agent_that_dies_is_replaced(self):
        self.register()
        vmm = self.vmm(self.a)
        os.kill(self.agent_of(self.a), signal.SIGKILL)
        self.assertTrue(vmm.is_closed())
        vmm = self.vmm(self.a)
        self.assertEqual(len(vmm.peek(0, 8)), 8)

    def test_a_server_that_comes_back_soon(self):
        self.register()
        vmm = self.vmm(self.a)
        self.servers[0].kill()
        wait_for("that to be seen", lambda: not self.a.devices(self.name)["d0"]["Open"])
        vmm.start_peek(0, 8)
        self.assertTrue(vmm.is_silent(0.7))
        self.servers[0].start()
        self.assertEqual(vmm.receive().error, 0)

    def test_a_server_that_comes_back_before_the_vmm(self):
        self.register()
        self.servers[0].kill()
        wait_for("that to be seen", lambda: not self.a.devices(self.name)["d0"]["Open"])
        self.servers[0].start()
        self.assertFalse(self.a.devices(self.name)["d0"]["Open"], "nobody wants it")
        self.assertEqual(len(self.vmm(self.a).peek(0, 8)), 8)
        self.assertTrue(self.a.devices(self.name)["d0"]["Open"])

    def test_a_connection_that_breaks_is_made_again(self):
        self.register()
        time.sleep(1.1)  # what goes sooner is not opened again at once
        self.servers[0].fault("d0", "info:disconnect@1")
        vmm = self.vmm(self.a)
        self.assertEqual(vmm.refusal(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)), errno.EIO, "nobody knows what came of it")
        self.assertEqual(len(vmm.peek(0, 8)), 8)
        vmm.close()
        # Without a VMM too, and at once.
        time.sleep(1.1)
        self.servers[0].fault("d0", "info:disconnect@1")
        vmm = self.vmm(self.a)
        vmm.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        vmm.close()
        wait_for("that to be seen", lambda: "closed the connection" in self.a.daemon.output().split("\n", 3)[-1])
        wait_for("the device", lambda: self.a.devices(self.name)["d0"]["Open"])

    def hammer(self, vmm, stop, errors):
        """Reads and writes until told, or until its connection is closed."""
        n = 0
        try:
            while not stop.is_set():
                n += 1
                vmm.peek(n % 1000, 64)
                vmm.poke(200 * 1024, struct.pack("=Q", n))
        except EOFError:
            errors.append("closed")
        except Exception as e:
            errors.append(repr(e))
        return n

    def beside(self, vmm, act):
        """What comes of `act` while a VMM is busy, and what the VMM sees."""
        stop, errors = threading.Event(), []
        thread = threading.Thread(target=self.hammer, args=(vmm, stop, errors))
        thread.start()
        try:
            return act(), errors
        finally:
            stop.set()
            thread.join(20)

    def test_a_move_beside_a_busy_vmm(self):
        self.register()
        vmm = self.vmm(self.a)
        (status, job), seen = self.beside(vmm, lambda: self.a.migrate(self.name, self.b))
        self.assertEqual((status, job["result"]), (0, "done"))
        self.assertIn(seen, ([], ["closed"]), "the device has left it, and that is all")
        self.assertFalse(os.path.exists(self.path(self.a)))
        there = self.vmm(self.b)
        self.assertEqual(len(there.peek(0, 64)), 64)
        (status, job), seen = self.beside(there, lambda: self.b.migrate(self.name, self.a))
        self.assertEqual((status, job["result"], seen in ([], ["closed"])), (0, "done", True), seen)
        self.assertEqual(len(self.vmm(self.a).peek(0, 64)), 64)

    def test_a_move_that_fails_beside_a_busy_vmm(self):
        self.register()
        vmm = self.vmm(self.a)
        for fault in ("resuming>stop:error:22@1", "write:error:5@1"):
            self.servers[1].fault("d0", fault)
            (status, job), seen = self.beside(vmm, lambda: self.a.migrate(self.name, self.b))
            self.assertNotEqual(status, 0)
            self.assertEqual(seen, [])
            self.servers[1].clear()
            vmm.peek(0, 8)
            self.assertEqual(self.servers[0].states(), {"d0": "running"})
        status, job = self.a.migrate(self.name, self.b)
        self.assertEqual(status, 0, job)

    def test_memory_that_is_mapped_in_the_middle_of_a_move(self):
        """Nobody has logged what the device writes there: the job turns back and says so, instead of losing it."""
        for server in self.servers:
            server.stop()
        spec = f"size=256K,worker=on,pre-copy=on,delay=running>pre-copy:{round(300 * PACE)}"
        self.servers = [self.lab.server(f"late{self.name}{side}", {"d0": spec}) for side in "ab"]
        self.register()
        vmm = self.vmm(self.a)
        p = self.a.migctl_start("--json=short", "migrate", self.name, self.b.dest)
        wait_for("pre-copy", lambda: any(j["Phase"] == "precopy" for j in self.a.jobs()))
        memory = os.memfd_create("memory")
        os.ftruncate(memory, PAGE)
        vmm.map(0x100000, PAGE, memory)
        os.close(memory)
        job = json.loads(p.communicate(timeout=60)[0])
        self.assertEqual((p.returncode, job["result"]), (1, "failed"), job)
        self.assertRegex(job["error"]["text"], "mapped memory .* since .* checked: migrate again")
        self.assertEqual(self.servers[0].states(), {"d0": "running"})


if __name__ == "__main__":
    unittest.main()
