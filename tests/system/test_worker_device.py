# SPDX-License-Identifier: LGPL-2.1-or-later
"""The worker of the emulated device server, from outside: what a VMM sets up, the commands and ticks that it does in a
guest's memory, and what of them moves to another host. The sums are those of worker.py, made from their description.

The program comes from the build directory (environment variable MIGMGR_BUILD). Nothing here waits without a limit.
"""

import errno
import fcntl
import mmap
import os
import random
import select
import signal
import struct
import termios
import time
import unittest

from test_emulated_device import Case, crc32c
from vfio_user import (DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, IRQ_INFO, SET_IRQS, REGION_READ, REGION_WRITE, DMA_READ,
                       DMA_WRITE, RESET, FEATURE, DATA_READ, DATA_WRITE, GET, SET, PROBE, STATE, STOP, RUNNING, STOP_COPY,
                       RESUMING, P2P, PRE_COPY, PRE_COPY_P2P, NO_REPLY, LIMIT, ERROR_BIT, MIB, Wire, Client)
from worker import (SCRATCH, MAGIC, RING, DOORBELL, DONE, CHAIN, TICK_RING, TICK_PAGES, TICK_USEC, TICKS, ONES as BAD, PAGE,
                    fnv)

LOG_START, LOG_STOP, LOG_REPORT = 6, 7, 8
READABLE, WRITEABLE = 1, 2
BY_MESSAGE = 1

# Where the guest of these tests has what, in its file; the file is at BASE in its memory. What is above is by message.
BASE, SIZE = 1 << 32, 2 * MIB
RING_AT, TICKS_AT, SOURCE_AT, DESTINATION_AT = 0, 0x10000, 0x80000, 0x100000
FAR = 1 << 40


def u64(*numbers):
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def numbers(data):
    return struct.unpack(f"<{len(data) // 8}Q", data)


class Guest(Client):
    """A client that is a VMM with a guest: memory in a file, memory that it has to be asked for, and both eventfds."""

    def __init__(self, path, twin=True, setup=True, **more):
        said = {"max_msg_fds": 8, **more}
        super().__init__(path, {**said, "twin_socket": {"supported": True}} if twin else said)
        self.fd = os.memfd_create("guest")
        os.ftruncate(self.fd, SIZE)
        self.memory = mmap.mmap(self.fd, SIZE)
        self.far = bytearray(SIZE)
        self.irqs = [os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)]
        self.asked = []  # (is a write, address, count) of all messages
        self.posted = 0
        self.chain = 0
        self.scratch = bytes(64)
        if setup:
            self.setup()

    def setup(self):
        self.map(BASE, SIZE, self.fd)
        self.set_irqs(self.irqs)
        self.register(RING, BASE + RING_AT)

    def close(self):
        if self.memory:
            self.memory.close()
            self.memory = None
            for fd in (self.fd, *self.irqs):
                os.close(fd)
        super().close()

    # ---- setting up

    def map(self, address, size, fd=None, offset=0, flags=READABLE | WRITEABLE, argsz=32):
        reply = self.call(DMA_MAP, struct.pack("=IIQQQ", argsz, flags, offset, address, size),
                          fds=() if fd is None else (fd,))
        assert reply.payload == b""

    def unmap(self, address, size, flags=0, argsz=24):
        request = struct.pack("=IIQQ", argsz, flags, address, size)
        assert self.call(DMA_UNMAP, request).payload == struct.pack("=IIQQ", 24, flags, address, size)

    def region(self, index, argsz=32):
        """(argsz, flags, index, cap_offset, size, offset), what comes behind, files"""
        reply = self.call(REGION_INFO, struct.pack("=IIIIQQ", argsz, 0, index, 0, 0, 0))
        return struct.unpack_from("=IIIIQQ", reply.payload), reply.payload[32:], reply.fds

    def irq(self, index, argsz=16):
        return struct.unpack("=IIII", self.call(IRQ_INFO, struct.pack("=IIII", argsz, 0, index, 0)).payload)

    def set_irqs(self, fds, flags=4 | 32, index=2, start=0, count=None, data=b"", argsz=20):
        count = len(fds) if count is None else count
        request = struct.pack("=IIIII", argsz, flags, index, start, count) + data
        assert self.call(SET_IRQS, request, fds=fds).payload == b""

    def raised(self, vector):
        """How often, since it was last asked."""
        try:
            return os.eventfd_read(self.irqs[vector])
        except BlockingIOError:
            return 0

    def register(self, offset, value=None):
        if value is None:
            return struct.unpack("<Q", self.peek(offset, 8, 1))[0]
        self.poke(offset, u64(value), 1)

    # ---- the memory that is asked for

    def answer(self, wire=None, error=None, make=None):
        """The next question; `make` may replace the answer."""
        wire = wire or self.twin or self
        m = wire.receive()
        assert m.command in (DMA_READ, DMA_WRITE) and m.flags == 0, vars(m)
        address, count = struct.unpack_from("=QQ", m.payload)
        assert len(m.payload) == 16 + (count if m.command == DMA_WRITE else 0)
        self.asked.append((m.command == DMA_WRITE, address, count))
        payload = m.payload[:16]
        memory, at = (self.far, address - FAR) if address >= FAR else (self.memory, address - BASE)
        if m.command == DMA_WRITE and error is None:
            memory[at:at + count] = m.payload[16:]
        elif m.command == DMA_READ:
            payload += bytes(memory[at:at + count])
        if error is not None:
            data = struct.pack("=HHIII", m.id, m.command, 16, 1 | ERROR_BIT, error)
        else:
            data = Wire.message(m.command, payload, m.id, 1)
        wire.socket.sendall(make(m, payload) if make else data)

    def serve(self, n):
        for _ in range(n):
            self.answer()

    # ---- commands

    def slot(self, seq, data):
        at = RING_AT + (seq - 1) % 64 * 64
        self.memory[at:at + 64] = data

    def command(self, length=100, source=BASE + SOURCE_AT, destination=BASE + DESTINATION_AT, window=(0, 0), delay=0,
                flags=0, seq=None, reserved=(0, 0)):
        """Posts one without ringing."""
        self.posted += 1
        seq = self.posted if seq is None else seq
        self.slot(self.posted, struct.pack("<QIIQQIIQQQ", seq, flags, length, source, destination, *window, delay,
                                           *reserved))

    def ring(self):
        self.register(DOORBELL, self.posted)

    def expect(self, source, window=b""):
        """The chain after the next command, from what it reads."""
        self.chain = fnv(u64(self.chain, self.expected + 1) + source + window + self.scratch)
        self.expected += 1
        return self.chain

    expected = 0

    def result(self, at=DESTINATION_AT, length=100, memory=None):
        data = bytes((memory or self.memory)[at:at + 64 + length])
        return numbers(data[:64]), data[64:]

    def changed(self, source):
        """What stands behind a result with the last chain."""
        return bytes(b ^ (self.chain >> 8 * (i % 8) & 0xff) for i, b in enumerate(source))

    # ---- logging

    def log(self, page=PAGE, ranges=0):
        return self.feature(LOG_START, SET, struct.pack("=QII", page, ranges, 0) + bytes(16 * ranges), argsz=4096)

    def report(self, address=BASE, length=SIZE, page=PAGE, argsz=1 << 20):
        (argsz, _), data = self.feature(LOG_REPORT, GET, struct.pack("=QQQ", address, length, page), argsz)
        assert argsz == 8 + len(data) and struct.unpack_from("=QQQ", data) == (address, length, page)
        bits = data[24:]
        assert len(bits) == ((length + page - 1) // page + 63) // 64 * 8
        return pages(bits)


def pages(bits):
    return [i for i in range(8 * len(bits)) if bits[i // 8] >> i % 8 & 1]


class WorkerCase(Case):
    def guest(self, name="a", **more):
        guest = Guest(self.path(name), **more)
        self.addCleanup(guest.close)
        return guest

    def worker(self, name="a"):
        return self.control.status(name)["worker"]

    def done(self, guest, n):
        """Waits, without asking the device by message."""
        total = 0
        limit = time.monotonic() + LIMIT
        while total < n:
            left = max(0, limit - time.monotonic())
            self.assertTrue(select.select([guest.irqs[0]], [], [], left)[0], f"{total} of {n}")
            total += guest.raised(0)
        self.assertEqual(total, n)

    def data(self, guest, n, at=SOURCE_AT, seed=1):
        data = random.Random(seed).randbytes(n)
        guest.memory[at:at + n] = data
        return data

    def begin(self, keys="", options=(), **more):
        self.start(f"worker=on,{keys}".rstrip(","), options=options)
        return self.guest(**more)

    def files(self):
        self.control.do("status")  # what it closes behind an answer is closed then
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class SettingUp(WorkerCase):
    def test_regions_are_those_of_a_pci_device(self):
        guest = self.begin("size=1M")
        self.assertEqual(guest.info(), (16, 3, 9, 5))
        for index, size in enumerate((MIB, 4096, 65536, 0, 0, 0, 0, 256, 0)):
            flags = {0: 0, 65536: 7}.get(size, 3)
            self.assertEqual(guest.region(index), ((64 if index == 2 else 32, flags, index, 0, size, 0), b"", []))
            if size and index != 2:
                self.assertEqual(guest.region(index, 4096), ((32, flags, index, 0, size, 0), b"", []))
        for index, argsz in ((9, 64), (2 ** 32 - 1, 64), (0, 31), (2, 0)):
            self.refused(errno.EINVAL, guest.region, index, argsz)

    def test_the_window_is_a_file_for_who_has_room(self):
        guest = self.begin()
        self.assertEqual(guest.region(2, 63)[0][:4], (64, 7, 2, 0))
        before = self.files()
        info, capability, fds = guest.region(2, 64)
        self.assertEqual(info, (64, 15, 2, 32, 65536, 0))
        self.assertEqual(struct.unpack("=HHIIIQQ", capability), (1, 1, 0, 1, 0, 0, 65536))
        self.assertEqual((len(fds), self.files()), (1, before))
        with mmap.mmap(fds[0], 65536) as window:
            window[100:105] = b"hello"
            self.assertEqual(guest.peek(99, 7, 2), b"\0hello\0")
            guest.poke(65530, b"world", 2)
            self.assertEqual(window[65529:], b"\0world\0")
        with self.assertRaises(PermissionError):
            os.ftruncate(fds[0], 4096)
        os.close(fds[0])
        self.refused(errno.EINVAL, guest.peek, 65535, 2, 2)

    def test_configuration_space(self):
        guest = self.begin()
        start = bytearray(256)
        start[0:4] = bytes.fromhex("941d0100")
        start[9:12] = bytes.fromhex("008008")
        self.assertEqual(guest.peek(0, 256, 7), start)
        guest.poke(0, b"\xff" * 256, 7)
        written = bytearray(b"\xff" * 256)
        written[0:4], written[9:12], written[4:6] = start[0:4], start[9:12], b"\x06\0"
        self.assertEqual(guest.peek(0, 256, 7), written)
        self.refused(errno.EINVAL, guest.peek, 255, 2, 7)

    def test_registers(self):
        guest = self.begin()
        guest.register(RING, 0)
        self.assertEqual(guest.peek(0, 8, 1), b"mgworker")
        for offset in (MAGIC, DONE, CHAIN, TICKS):
            before = guest.register(offset)
            guest.register(offset, 7)
            self.assertEqual(guest.register(offset), before)
        for offset in (RING, TICK_RING, TICK_USEC):
            self.assertEqual(guest.register(offset), 0)
            guest.register(offset, 0x0123456789abcdef)
            guest.poke(offset + 3, b"\x11\x22", 1)
            self.assertEqual(guest.register(offset), 0x0123452211abcdef)
            self.assertEqual(guest.peek(offset + 7, 1, 1), b"\x01")
        guest.register(TICK_USEC, 0)
        for value in (0, 1, 2, 64, 4096):
            guest.register(TICK_PAGES, value)
            self.assertEqual(guest.register(TICK_PAGES), value)
        for value in (3, 4095, 8192, 2 ** 63):
            self.refused(errno.EINVAL, guest.register, TICK_PAGES, value)
        self.assertEqual(guest.register(TICK_PAGES), 4096)

    def test_accesses_stay_within_one_register(self):
        guest = self.begin()
        guest.poke(SCRATCH, bytes(range(64)), 1)
        self.assertEqual(guest.peek(SCRATCH + 10, 30, 1), bytes(range(10, 40)))
        guest.poke(SCRATCH + 63, b"!", 1)
        self.assertEqual(guest.peek(SCRATCH, 64, 1), bytes(range(63)) + b"!")
        for offset, count in ((0x48, 0x38), (0xc0, 4096 - 0xc0), (4095, 1), (4096, 0), (0x10, 0), (0xc0, 1)):
            self.assertEqual(guest.peek(offset, count, 1), bytes(count))
            guest.poke(offset, b"\xff" * count, 1)
            self.assertEqual(guest.peek(offset, count, 1), bytes(count))
        for offset, count in ((0, 9), (7, 2), (0x40, 16), (0x47, 2), (0x40, 0x80), (0x7f, 2), (0x48, 0x39), (0x80, 65),
                              (0xbf, 2), (0, 4096), (4095, 2), (4097, 0), (2 ** 64 - 1, 2), (2 ** 64 - 8, 8)):
            self.refused(errno.EINVAL, guest.peek, offset, count, 1)
            self.refused(errno.EINVAL, guest.poke, offset, bytes(count), 1)

    def test_the_doorbell_only_grows_and_not_beyond_the_ring(self):
        guest = self.begin()
        guest.set(STOP)
        guest.register(DOORBELL, 10)
        self.refused(errno.EINVAL, guest.register, DOORBELL, 9)
        self.refused(errno.EINVAL, guest.register, DOORBELL, 65)
        self.refused(errno.EINVAL, guest.register, DOORBELL, BAD)
        guest.register(DOORBELL, 64)
        self.assertEqual((guest.register(DOORBELL), guest.register(DONE)), (64, 0))

    def test_interrupts_are_given_taken_and_tried(self):
        guest = self.begin(setup=False)
        for index, count in enumerate((0, 0, 2, 1, 1)):
            self.assertEqual(guest.irq(index), (16, 1, index, count))
        self.refused(errno.EINVAL, guest.irq, 5)
        self.refused(errno.EINVAL, guest.irq, 2, argsz=15)
        before = self.files()
        guest.set_irqs(guest.irqs)
        self.assertEqual(self.files(), before + 2)
        guest.set_irqs((), 1 | 32, count=2)
        self.assertEqual((guest.raised(0), guest.raised(1)), (1, 1))
        guest.set_irqs((), 2 | 32, count=2, data=b"\0\1")
        self.assertEqual((guest.raised(0), guest.raised(1)), (0, 1))
        guest.set_irqs((guest.irqs[0],), start=1)
        guest.set_irqs((), 1 | 32, count=2)
        self.assertEqual((guest.raised(0), guest.raised(1)), (2, 0))
        guest.set_irqs((), start=0, count=1)
        self.assertEqual(self.files(), before + 1)
        guest.set_irqs((), 1 | 32, count=2)
        self.assertEqual(guest.raised(0), 1)
        guest.set_irqs((), 1 | 32)
        self.assertEqual(self.files(), before)
        guest.set_irqs((guest.irqs[0],), index=3)
        guest.set_irqs((), 1 | 32, index=3, count=1)
        self.assertEqual(guest.raised(0), 1)

    def test_interrupts_that_cannot_be(self):
        guest = self.begin()
        before = self.files()
        one, pipe = guest.irqs[:1], os.pipe()
        for fds, more in ((one, {"index": 0}), (one, {"index": 5}), (one, {"start": 2}), (one, {"start": 2 ** 32 - 1}),
                          (one, {"count": 2}), (guest.irqs, {"count": 1}),
                          (guest.irqs, {"start": 1}), (one, {"count": 2 ** 32 - 1}),
                          (pipe[1:], {}), ((guest.fd,), {}), ((guest.irqs[0], pipe[1]), {}), (one, {"argsz": 19}),
                          (one, {"flags": 4}), (one, {"flags": 32}), (one, {"flags": 4 | 8}), (one, {"flags": 4 | 16}),
                          (one, {"flags": 5 | 32}), (one, {"flags": 4 | 8 | 32}), (one, {"flags": 4 | 32 | 64}),
                          ((), {"flags": 2 | 32, "count": 2, "data": b"\1"}), ((), {"flags": 1 | 32, "start": 1})):
            with self.subTest(more=more):
                self.refused(errno.EINVAL, guest.set_irqs, fds, **more)
        self.assertEqual(self.files(), before)
        for fd in pipe:
            os.close(fd)

    def test_a_full_eventfd_holds_nobody_up(self):
        guest = self.begin()
        full = os.eventfd(0)
        os.eventfd_write(full, 2 ** 64 - 2)
        guest.set_irqs((full,))
        os.close(full)
        guest.command()
        guest.ring()
        self.until(lambda: guest.register(DONE) == 1)

    def test_maps_overlap_nowhere_and_go_as_they_came(self):
        guest = self.begin(setup=False)
        before = self.files()
        guest.map(BASE, SIZE, guest.fd)
        guest.map(BASE, SIZE, guest.fd)
        guest.map(FAR, PAGE)
        guest.map(FAR, PAGE)
        self.assertEqual((self.worker()["maps"], self.files()), (2, before))
        other = os.memfd_create("other")
        os.ftruncate(other, SIZE)
        for address, size, fd, more in ((BASE, SIZE, other, {}), (BASE, SIZE, None, {}), (FAR, PAGE, guest.fd, {}),
                                        (BASE, SIZE, guest.fd, {"flags": READABLE}), (BASE, PAGE, guest.fd, {}),
                                        (BASE - PAGE, 2 * PAGE, None, {}), (BASE + SIZE - 1, 1, None, {}),
                                        (BASE - 1, SIZE + 2, None, {}), (FAR - 1, 2, None, {})):
            self.refused(errno.EINVAL, guest.map, address, size, fd, **more)
        guest.map(BASE - PAGE, PAGE)
        guest.map(BASE + SIZE, PAGE)
        for address, size in ((BASE, PAGE), (BASE + PAGE, SIZE - PAGE), (BASE, SIZE + PAGE), (0, PAGE), (FAR + 1, 1),
                              (BASE, 0)):
            self.refused(errno.ENOENT, guest.unmap, address, size)
        guest.unmap(BASE, SIZE)
        self.refused(errno.ENOENT, guest.unmap, BASE, SIZE)
        self.refused(errno.EINVAL, guest.unmap, BASE, 0, flags=2)
        self.refused(errno.EINVAL, guest.unmap, 0, 0, flags=3)
        self.refused(errno.EINVAL, guest.unmap, 0, 0, flags=4)
        self.refused(errno.EINVAL, guest.unmap, FAR, PAGE, argsz=23)
        self.assertEqual(self.worker()["maps"], 3)
        guest.unmap(0, 0, flags=2)
        self.assertEqual(self.worker()["maps"], 0)
        os.close(other)

    def test_maps_that_cannot_be(self):
        guest = self.begin(setup=False)
        before = self.files()
        pipe = os.pipe()
        for address, size, fd, more in ((0, 0, None, {}), (0, 0, guest.fd, {}), (BAD, 2, None, {}),
                                        (PAGE, BAD, None, {}), (0, SIZE + 1, guest.fd, {}),
                                        (0, SIZE, guest.fd, {"offset": 1}), (0, 1, guest.fd, {"offset": SIZE}),
                                        (0, 2, guest.fd, {"offset": BAD}),
                                        (0, PAGE, pipe[0], {}), (0, PAGE, None, {"flags": 4}),
                                        (0, PAGE, None, {"flags": 1 << 31}), (0, PAGE, None, {"argsz": 31})):
            self.refused(errno.EINVAL, guest.map, address, size, fd, **more)
        request = struct.pack("=IIQQQ", 32, 3, 0, 0, PAGE)
        self.refused(errno.EINVAL, guest.call, DMA_MAP, request, fds=(guest.fd, guest.fd))
        self.refused(errno.EINVAL, guest.call, DMA_MAP, request[:31])
        self.assertEqual((self.worker()["maps"], self.files()), (0, before))
        for fd in pipe:
            os.close(fd)

    def test_no_more_maps_than_the_protocol_has(self):
        guest = self.begin(setup=False)
        n = 65535
        for first in range(0, n, 512):
            heap = [Wire.message(DMA_MAP, struct.pack("=IIQQQ", 32, 3, 0, i * PAGE, PAGE), flags=NO_REPLY)
                    for i in range(first, min(first + 512, n))]
            guest.socket.sendall(b"".join(heap))
        self.refused(errno.ENOSPC, guest.map, n * PAGE, PAGE)
        guest.map(0, PAGE)
        self.assertEqual(self.worker()["maps"], n)
        guest.unmap(7 * PAGE, PAGE)
        guest.map(n * PAGE, PAGE)

    def test_other_devices_have_none_of_this(self):
        self.start("")
        guest = self.guest(setup=False)
        for command in (DMA_MAP, DMA_UNMAP, REGION_INFO, IRQ_INFO, SET_IRQS):
            self.refused(errno.EINVAL, guest.call, command, struct.pack("=I", 64) + bytes(60))
        self.refused(errno.EINVAL, guest.peek, 0, 8, 1)


class Commands(WorkerCase):
    def test_a_command_does_what_it_is_described_to_do(self):
        guest = self.begin()
        source = self.data(guest, 1000)
        guest.scratch = bytes(range(100, 164))
        guest.poke(SCRATCH, guest.scratch, 1)
        guest.poke(5000, b"window", 2)
        guest.command(1000, window=(5000, 6))
        guest.ring()
        self.done(guest, 1)
        chain = guest.expect(source, b"window")
        self.assertEqual(guest.result(length=1000), ((1, chain, 0, 1000, 0, 0, 0, 0), guest.changed(source)))
        self.assertEqual((guest.register(DONE), guest.register(CHAIN)), (1, chain))
        self.assertEqual(guest.peek(0x8000, 32, 2), u64(0, chain, 0, 0))
        self.assertEqual(self.worker() | {"maps": 1, "logging": False},
                         {"doorbell": 1, "done": 1, "chain": f"{chain:016x}", "ticks": 0, "maps": 1, "logging": False})

    def test_every_command_hangs_on_those_before_it(self):
        guest = self.begin()
        lengths = (0, 1, 7, 8, 9, 63, 64, 4096, 65536, 5, 0)
        for i, length in enumerate(lengths):
            source = self.data(guest, length, seed=i)
            piece = random.Random(i).randbytes(i * 409)
            guest.poke(32768 - len(piece), piece, 2)
            guest.command(length, window=(32768 - len(piece), len(piece)))
            guest.ring()
            self.done(guest, 1)
            guest.expect(source, piece)
            self.assertEqual(guest.result(length=length), ((i + 1, guest.chain, 0, length, 0, 0, 0, 0),
                                                           guest.changed(source)))

    def test_a_full_ring_is_done_in_order_again_and_again(self):
        guest = self.begin()
        source = self.data(guest, 16)
        for _ in range(70):
            for _ in range(64):
                guest.command(16, destination=BASE + DESTINATION_AT + guest.posted % 64 * 128)
            guest.ring()
            self.done(guest, 64)
            for _ in range(64):
                guest.expect(source)
        self.assertEqual((guest.register(DONE), guest.register(CHAIN)), (4480, guest.chain))
        self.assertEqual(guest.result(DESTINATION_AT + 63 * 128, 16)[0][:2], (4480, guest.chain))
        words = numbers(guest.peek(0x8000, 0x8000, 2))
        self.assertEqual(words[4480 % 4096], guest.chain)
        self.assertTrue(all(words))

    def test_bad_slots_break_the_chain_and_write_nothing(self):
        guest = self.begin()
        source = self.data(guest, 100)
        guest.memory[DESTINATION_AT:DESTINATION_AT + 200] = b"x" * 200
        bad = ({"seq": 2}, {"seq": 0}, {"length": 65537}, {"length": 2 ** 32 - 1}, {"flags": 2}, {"window": (0, 4097)},
               {"window": (32768, 1)}, {"window": (32767, 2)}, {"window": (2 ** 32 - 1, 2)}, {"reserved": (1, 0)},
               {"reserved": (0, 1)})
        for i, more in enumerate(bad):
            guest.command(**{"seq": i + 1, **({"seq": i + 2} if "seq" in more else more)})
            guest.ring()
            self.done(guest, 1)
            self.assertEqual((guest.register(CHAIN), guest.register(DONE)), (BAD, i + 1))
            self.assertEqual(guest.peek(0x8000 + 8 * (i + 1), 8, 2), b"\xff" * 8)
        self.assertEqual(guest.memory[DESTINATION_AT:DESTINATION_AT + 200], b"x" * 200)
        guest.expected, guest.chain = len(bad), BAD
        guest.command(window=(32768 - 4096, 4096))
        guest.ring()
        self.done(guest, 1)
        self.assertEqual(guest.register(CHAIN), guest.expect(source, bytes(4096)))

    def test_memory_that_is_not_there(self):
        guest = self.begin()
        guest.map(0, PAGE, guest.fd, flags=READABLE)
        guest.map(PAGE, PAGE, guest.fd, flags=WRITEABLE)
        guest.map(2 * PAGE, PAGE, guest.fd, flags=0)
        gone = os.memfd_create("gone")
        os.ftruncate(gone, PAGE)
        guest.map(FAR, PAGE, gone)
        os.ftruncate(gone, 0)
        cases = ({"source": BASE - 1}, {"source": BASE + SIZE - 99}, {"source": BAD - 10},
                 {"destination": BASE + SIZE - 163},
                 {"source": PAGE}, {"destination": 0}, {"source": 2 * PAGE}, {"destination": 2 * PAGE},
                 {"destination": PAGE - 64}, {"source": FAR}, {"destination": FAR})
        before = bytes(guest.memory[0:PAGE])
        guest.memory[SIZE - 200:] = b"x" * 200
        for more in cases:
            with self.subTest(more=more):
                guest.command(**more)
                guest.ring()
                self.done(guest, 1)
                self.assertEqual(guest.register(CHAIN), BAD)
        self.assertEqual(guest.memory[64 * len(cases):PAGE], before[64 * len(cases):])
        self.assertEqual(guest.memory[SIZE - 200:], b"x" * 200, "nothing by halves")
        guest.register(RING, 1 << 50)
        guest.command()
        guest.ring()
        self.done(guest, 1)
        self.assertEqual(guest.register(CHAIN), BAD)
        guest.unmap(BASE, SIZE)
        guest.command()
        guest.ring()
        self.done(guest, 1)
        self.assertEqual(guest.register(DONE), len(cases) + 2)
        os.close(gone)

    def test_data_may_lie_across_maps(self):
        guest = self.begin(setup=False)
        half = SIZE // 2
        guest.map(BASE, half, guest.fd)
        guest.map(BASE + half, half, guest.fd, offset=half)
        guest.map(BASE + SIZE, PAGE, guest.fd, offset=PAGE * 3 + 5)
        guest.set_irqs(guest.irqs)
        guest.register(RING, BASE)
        source = self.data(guest, 8192, half - 4096)
        guest.command(8192, BASE + half - 4096, BASE + SIZE - 4000)
        guest.ring()
        self.done(guest, 1)
        self.assertEqual(guest.register(CHAIN), BAD)  # a page behind it is not enough
        guest.unmap(BASE + SIZE, PAGE)
        guest.map(BASE + SIZE, 2 * PAGE, guest.fd, offset=PAGE * 3 + 5)
        guest.expected, guest.chain = 1, BAD
        guest.command(8192, BASE + half - 4096, BASE + SIZE - 4000)
        guest.ring()
        self.done(guest, 1)
        guest.expect(source)
        written = guest.memory[SIZE - 4000:] + guest.memory[PAGE * 3 + 5:PAGE * 3 + 5 + 64 + 8192 - 4000]
        self.assertEqual(written[64:], guest.changed(source))

    def test_a_delay_is_kept_and_the_data_is_that_of_before(self):
        guest = self.begin()
        source = self.data(guest, 100)
        guest.poke(0, b"before", 2)
        guest.command(window=(0, 6), delay=200000)
        guest.command(0, destination=BASE + DESTINATION_AT + PAGE)
        start = time.monotonic()
        guest.ring()
        guest.register(DONE)  # one turn of its loop: the command is taken up between this and the next
        self.assertEqual(guest.register(DONE), 0)
        self.data(guest, 100, seed=2)
        guest.poke(0, b"behind", 2)
        self.done(guest, 2)
        self.assertGreaterEqual(time.monotonic() - start, 0.2)
        guest.expect(source, b"before")
        self.assertEqual(guest.result()[1], guest.changed(source))
        self.assertEqual(guest.register(CHAIN), guest.expect(b""))

    def test_a_delay_for_ever_hinders_nobody(self):
        guest = self.begin()
        guest.command(delay=BAD)
        guest.ring()
        self.assertEqual((guest.register(DONE), guest.state), (0, RUNNING))
        guest.set(STOP, RUNNING)
        guest.reset()
        self.assertEqual(guest.register(DOORBELL), 0)

    def test_a_command_needs_a_state_that_runs(self):
        guest = self.begin("pre-copy=on")
        data = guest.save()
        states = ((RUNNING, True), (P2P, True), (STOP, False), (PRE_COPY, True), (PRE_COPY_P2P, True),
                  (RESUMING, False))
        for state, works in states:
            guest.set(STOP)
            guest.set(*({PRE_COPY_P2P: (PRE_COPY, state)}.get(state, (state,))))
            guest.command(0)
            guest.ring()
            if works:
                self.done(guest, 1)
            else:
                self.assertEqual(guest.register(DONE), guest.posted - 1)
                self.assertEqual(guest.register(DONE), guest.posted - 1)
                if state == STOP:
                    guest.set(RUNNING)
                    self.done(guest, 1)
        guest.write_all(data)
        guest.set(STOP, RUNNING)
        self.assertEqual(guest.register(DOORBELL), 0)

    def test_thousands_a_second_with_eight_devices_in_one_process(self):
        self.start(*["worker=on"] * 8)
        guests = [self.guest(chr(ord("a") + i)) for i in range(8)]
        start = time.monotonic()
        total = 0
        while time.monotonic() - start < 1:
            for guest in guests:
                for _ in range(64):
                    guest.command(64)
                guest.ring()
            for guest in guests:
                self.done(guest, 64)
                total += 64
        print(f"{total / (time.monotonic() - start):.0f} commands a second", flush=True)
        self.assertGreater(total, 1000)


class Messages(WorkerCase):
    def far(self, twin=True, **more):
        guest = self.begin(twin=twin, **more)
        guest.map(FAR, SIZE)
        return guest

    def far_command(self, guest, length=100, **more):
        source = random.Random(length).randbytes(length)
        guest.far[0:length] = source
        guest.command(length, source=FAR, destination=FAR + 0x20000, **more)
        return source

    def check(self, guest, source):
        guest.expect(source)
        self.assertEqual(guest.register(CHAIN), guest.chain)
        result, data = guest.result(0x20000, len(source), guest.far)
        self.assertEqual((result[0], result[1], data), (guest.expected, guest.chain, guest.changed(source)))

    def test_what_has_no_file_goes_by_message(self):
        for twin in (True, False):
            guest = self.far(twin)
            source = self.far_command(guest)
            guest.ring()
            guest.serve(2)
            self.done(guest, 1)
            self.assertEqual(guest.asked, [(False, FAR, 100), (True, FAR + 0x20000, 164)])
            self.check(guest, source)
            guest.close()
            self.stop()

    def test_the_ring_too(self):
        guest = self.far()
        guest.register(RING, FAR)
        guest.far[0:64] = struct.pack("<QIIQQIIQQQ", 1, 0, 8, BASE, BASE + PAGE, 0, 0, 0, 0, 0)
        guest.register(DOORBELL, 1)
        guest.serve(1)
        self.done(guest, 1)
        self.assertEqual(guest.result(PAGE, 8)[0][1], guest.expect(bytes(8)))

    def test_messages_are_no_longer_than_the_client_takes(self):
        guest = self.far(max_data_xfer_size=1000)
        source = self.far_command(guest, 2500)
        guest.ring()
        guest.serve(6)
        self.done(guest, 1)
        self.assertEqual([count for _, _, count in guest.asked], [1000, 1000, 500, 1000, 1000, 564])
        self.check(guest, source)
        guest.close()
        self.stop()
        guest = self.far(max_data_xfer_size=0)
        self.far_command(guest)
        guest.ring()
        self.done(guest, 1)
        self.assertEqual(guest.register(CHAIN), BAD)

    def test_a_command_can_ask_for_messages(self):
        guest = self.begin()
        source = self.data(guest, 65536)
        guest.log()
        guest.command(65536, flags=BY_MESSAGE)
        guest.ring()
        guest.serve(2)
        self.done(guest, 1)
        self.assertEqual(guest.asked, [(False, BASE + SOURCE_AT, 65536), (True, BASE + DESTINATION_AT, 65600)])
        guest.expect(source)
        self.assertEqual(guest.result(length=65536)[1], guest.changed(source))
        self.assertEqual(guest.report(), [], "only what goes through the map is logged")
        guest.unmap(BASE, SIZE)
        guest.map(BASE, PAGE)
        guest.map(BASE + SOURCE_AT, PAGE)

    def test_who_writes_may_hear_one_of_three_answers(self):
        guest = self.far()
        for size in (0, 12, 16):
            source = self.far_command(guest)
            guest.ring()
            guest.serve(1)
            guest.answer(make=lambda m, payload, n=size: Wire.message(m.command, payload[:n], m.id, 1))
            self.done(guest, 1)
            self.check(guest, source)

    def test_a_refusal_breaks_the_chain(self):
        guest = self.far()
        for served in range(2):
            self.far_command(guest)
            guest.ring()
            guest.serve(served)
            guest.answer(error=errno.EFAULT)
            self.done(guest, 1)
            self.assertEqual(guest.register(CHAIN), BAD)

    def test_a_wrong_answer_ends_the_connection(self):
        def other_id(m, payload):
            return Wire.message(m.command, payload, m.id ^ 1, 1)

        def other_command(m, payload):
            return Wire.message(m.command ^ 7, payload, m.id, 1)

        def command(m, payload):
            return Wire.message(m.command, payload, m.id, 0)

        def short(m, payload):
            return Wire.message(m.command, payload[:-1], m.id, 1)

        def long(m, payload):
            return Wire.message(m.command, payload + b"x", m.id, 1)

        def other_place(m, payload):
            return Wire.message(m.command, b"\xff" + payload[1:], m.id, 1)

        def huge(m, payload):
            return Wire.message(m.command, b"", m.id, 1, size=1 << 30)

        for n, wrong in enumerate((other_id, other_command, command, short, long, other_place, huge)):
            for twin in (True, False):
                if not twin and wrong is command:
                    continue  # there it is a command
                with self.subTest(wrong=wrong.__name__, twin=twin):
                    guest = self.far(twin)
                    self.far_command(guest)
                    guest.ring()
                    guest.answer(make=wrong)
                    if wrong is huge and not twin:
                        self.assertEqual(guest.receive().error, errno.EINVAL)
                    self.assertTrue(guest.is_closed())
                    self.until(lambda: not self.control.status("a")["connected"])
                    self.assertEqual(self.control.status("a")["protocol_errors"], 1)
                    guest.close()
                    self.stop()

    def test_commands_of_the_client_come_between(self):
        for twin in (True, False):
            guest = self.far(twin)
            source = self.far_command(guest)
            guest.ring()
            if twin:
                self.assertTrue(select.select([guest.twin.socket], [], [], LIMIT)[0])
                self.assertEqual(guest.register(DONE), 0)
                guest.serve(1)
                self.assertEqual(guest.state, RUNNING)
                guest.serve(1)
            else:
                question = guest.receive()
                self.assertEqual(question.command, DMA_READ)
                for _ in range(3):
                    self.assertEqual(guest.register(DONE), 0)
                guest.socket.sendall(Wire.message(DMA_READ, question.payload + source, question.id, 1))
                guest.serve(1)
            self.done(guest, 1)
            self.check(guest, source)
            guest.close()
            self.stop()

    def test_a_long_reply_and_a_question_share_the_main_socket(self):
        self.start("worker=on,size=2M,max-data=2M")
        guest = self.guest(twin=False)
        guest.map(FAR, SIZE)
        source = self.far_command(guest)
        guest.send(REGION_READ, struct.pack("=QII", 0, 0, MIB))
        guest.send(REGION_WRITE, struct.pack("=QII", DOORBELL, 1, 8) + u64(1))
        guest.send(REGION_READ, struct.pack("=QII", 0, 0, MIB))
        replies, asked = [], 0
        while len(replies) < 3 or asked < 2:
            m = guest.receive()
            if m.flags & 0xf:
                replies.append((m.command, len(m.payload)))
                continue
            asked += 1
            payload = m.payload[:16] + (source if m.command == DMA_READ else b"")
            if m.command == DMA_WRITE:
                guest.far[0x20000:0x20000 + 164] = m.payload[16:]
            guest.socket.sendall(Wire.message(m.command, payload, m.id, 1))
        self.assertEqual(replies, [(REGION_READ, MIB + 16), (REGION_WRITE, 16), (REGION_READ, MIB + 16)])
        self.done(guest, 1)
        self.check(guest, source)

    def test_a_question_that_does_not_go_out_holds_no_reply_up(self):
        def replies(guest):
            """How many come before the socket is full: the last one that was taken has filled it."""
            n, size, queued = 0, 8000 + 32, 0
            while queued == n * size:
                n += 1
                guest.send(REGION_READ, struct.pack("=QII", 0, 0, 8000))
                limit = time.monotonic() + 0.3
                while queued < n * size and time.monotonic() < limit:
                    queued = struct.unpack("=i", fcntl.ioctl(guest.socket, termios.FIONREAD, bytes(4)))[0]
            return n - 1

        self.start("worker=on")
        guest = self.guest(twin=False)
        n = replies(guest)
        guest.close()
        guest = self.guest(twin=False)
        source = self.data(guest, 65536)
        guest.command(65536, flags=BY_MESSAGE)
        guest.ring()
        question = guest.receive()
        for _ in range(n):
            guest.send(REGION_READ, struct.pack("=QII", 0, 0, 8000))
        guest.socket.sendall(Wire.message(DMA_READ, question.payload + source, question.id, 1))
        guest.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        for _ in range(n):
            self.assertEqual(guest.receive().command, REGION_READ)
        reply, m = sorted((guest.receive(), guest.receive()), key=lambda m: m.command)  # either may be first
        self.assertEqual((reply.command, m.command, len(m.payload)), (GET_INFO, DMA_WRITE, 16 + 65600))
        guest.memory[DESTINATION_AT:DESTINATION_AT + 65600] = m.payload[16:]
        guest.socket.sendall(Wire.message(DMA_WRITE, m.payload[:16], m.id, 1))
        self.done(guest, 1)
        self.assertEqual(guest.register(CHAIN), guest.expect(source))

    def test_chatter_waits_for_the_question_that_is_out(self):
        for twin in (True, False):
            guest = self.far(twin)
            source = self.far_command(guest)
            guest.ring()
            self.assertTrue(select.select([(guest.twin or guest).socket], [], [], LIMIT)[0])
            self.fault("info:chatter@1")
            guest.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
            guest.serve(1)
            for _ in range(3):
                m = (guest.twin or guest).receive()
                self.assertEqual((m.command, len(m.payload)), (DMA_READ, 16))
                (guest.twin or guest).socket.sendall(Wire.message(DMA_READ, m.payload + bytes(64), m.id, 1))
            self.assertEqual(guest.receive().command, GET_INFO)
            guest.serve(1)
            self.done(guest, 1)
            self.check(guest, source)
            guest.close()
            self.stop()


class Ticks(WorkerCase):
    def wind(self, guest, usec, pages=4, ring=BASE + TICKS_AT):
        guest.register(TICK_RING, ring)
        guest.register(TICK_PAGES, pages)
        guest.register(TICK_USEC, usec)

    def test_ticks_are_written_page_by_page(self):
        guest = self.begin()
        guest.memory[TICKS_AT:TICKS_AT + 5 * PAGE] = b"x" * 5 * PAGE
        self.wind(guest, 1000)
        self.until(lambda: guest.register(TICKS) >= 6)
        guest.register(TICK_USEC, 0)
        ticks = guest.register(TICKS)
        self.assertEqual(guest.raised(1), ticks)
        for k in range(ticks - 3, ticks + 1):
            at = TICKS_AT + (k - 1) % 4 * PAGE
            page = guest.memory[at:at + PAGE]
            self.assertEqual(numbers(page[:16]), (k, fnv(u64(k, BASE + at))))
            self.assertEqual((page[16:4088], numbers(page[4088:])), (b"x" * 4072, (k,)))
        self.assertEqual(guest.memory[TICKS_AT + 4 * PAGE:TICKS_AT + 5 * PAGE], b"x" * PAGE)
        guest.command(0)
        guest.ring()
        self.done(guest, 1)
        self.assertEqual(guest.result(length=0)[0][2], ticks)

    def test_periods_are_kept_and_what_is_missed_stays_missed(self):
        guest = self.begin()
        self.wind(guest, 20000)
        start = time.monotonic()
        self.until(lambda: guest.register(TICKS) >= 10)
        self.assertGreaterEqual(time.monotonic() - start, 0.19)
        guest.set(STOP)
        ticks, stopped = guest.register(TICKS), time.monotonic()
        self.until(lambda: time.monotonic() - stopped > 0.15)
        self.assertEqual(guest.register(TICKS), ticks)
        guest.set(RUNNING)
        self.assertLess(guest.register(TICKS), ticks + 4)  # not the seven of the time between
        self.until(lambda: guest.register(TICKS) > ticks)

    def test_who_could_not_tick_for_a_while_does_not_make_up_for_it(self):
        guest = self.begin()
        self.wind(guest, 1000)
        self.until(lambda: guest.register(TICKS) > 2)
        start = time.monotonic()
        self.process.send_signal(signal.SIGSTOP)
        self.until(lambda: time.monotonic() - start > 0.3)
        guest.raised(1)
        continued = time.monotonic()
        self.process.send_signal(signal.SIGCONT)
        self.until(lambda: time.monotonic() - continued > 0.05)
        guest.register(TICK_USEC, 0)
        self.assertLess(guest.raised(1), 10 + (time.monotonic() - continued) * 1000)  # 300 more were missed

    def test_between_ticks_it_sleeps(self):
        guest = self.begin()
        self.wind(guest, 100000)
        guest.command(delay=10 ** 7)
        guest.ring()
        self.until(lambda: guest.register(TICKS) == 1)

        def sleeps():
            with open(f"/proc/{self.process.pid}/stat") as f:
                return f.read().rsplit(") ", 1)[1][0] == "S"

        start, seen = time.monotonic(), []
        while time.monotonic() - start < 0.4:
            seen.append(sleeps())
            time.sleep(0.002)
        self.assertGreater(seen.count(True), seen.count(False))
        self.assertGreaterEqual(guest.register(TICKS), 3)

    def test_ticks_that_find_no_memory_are_none(self):
        guest = self.begin()
        self.wind(guest, 1, ring=FAR)
        self.wind(guest, 1, pages=0, ring=FAR)
        self.assertEqual(guest.state, RUNNING)
        self.wind(guest, 1, ring=FAR)
        for _ in range(100):
            self.assertEqual(guest.register(TICKS), 0)
        guest.map(FAR, PAGE, guest.fd)
        self.until(lambda: guest.register(TICKS) == 1)

    def test_one_tick_is_out_at_a_time_and_a_command_beside_it(self):
        guest = self.begin()
        guest.map(FAR, SIZE)
        self.wind(guest, 1000, ring=FAR)
        self.assertTrue(select.select([guest.twin.socket], [], [], LIMIT)[0])
        guest.command(8, flags=BY_MESSAGE)
        guest.ring()
        start = time.monotonic()
        self.until(lambda: time.monotonic() - start > 0.02)  # many a period
        self.assertEqual((guest.register(TICKS), guest.register(DONE)), (0, 0))
        guest.serve(4)
        self.done(guest, 1)
        self.assertEqual(guest.asked[0], (True, FAR, 16))
        self.assertEqual(sorted(guest.asked[1:4]), [(False, BASE + SOURCE_AT, 8), (True, BASE + DESTINATION_AT, 72),
                                                    (True, FAR + 4088, 8)])
        self.until(lambda: guest.register(TICKS) == 1)
        self.assertEqual(guest.far[:16], u64(1, fnv(u64(1, FAR))))
        self.assertEqual(guest.far[4088:4096], u64(1))


class Stopping(WorkerCase):
    def far(self, keys="", twin=True, **more):
        guest = self.begin(keys, twin=twin, **more)
        guest.map(FAR, SIZE)
        return guest

    def stop_sent(self, guest):
        guest.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, STOP, -1))

    def stopped(self, guest):
        reply = guest.receive()
        self.assertEqual((reply.command, reply.error), (FEATURE, 0))

    def test_stop_waits_for_the_message_that_is_out(self):
        """In each stage of a command: it is done again from where it can be, or it is finished; and it is done once."""
        for twin in (True, False):
            for served, finished in ((0, False), (1, False), (2, False), (3, False), (4, False), (5, True)):
                with self.subTest(twin=twin, served=served):
                    guest = self.far(twin=twin, max_data_xfer_size=100)
                    source = random.Random(5).randbytes(200)
                    guest.far[0:200] = source
                    guest.register(RING, FAR + 4096)
                    slot = struct.pack("<QIIQQIIQQQ", 1, 0, 200, FAR, FAR, 0, 0, 0, 0, 0)  # in place
                    guest.far[4096:4160] = slot
                    guest.register(DOORBELL, 1)
                    guest.serve(served)  # slot, 100, 100 | 100, 100, 64
                    self.assertFalse((guest.twin or guest).is_silent(LIMIT))
                    self.stop_sent(guest)
                    if twin:
                        self.assertTrue(guest.is_silent())
                    guest.serve(1)
                    self.stopped(guest)
                    self.assertEqual(guest.state, STOP)
                    self.assertTrue((guest.twin or guest).is_silent(0.02))
                    self.assertEqual(guest.register(DONE), int(finished))
                    guest.set(RUNNING)
                    if not finished:
                        guest.serve(6 if served < 3 else 3)
                    self.done(guest, 1)
                    chain = guest.expect(source)
                    self.assertEqual(guest.register(CHAIN), chain)
                    self.assertEqual(guest.result(0, 200, guest.far), ((1, chain, 0, 200, 0, 0, 0, 0),
                                                                       guest.changed(source)))
                    guest.close()
                    self.stop()

    def test_a_tick_is_finished_or_done_again(self):
        guest = self.far()
        guest.register(TICK_RING, FAR)
        guest.register(TICK_PAGES, 1)
        for served, finished in ((0, 0), (1, 1)):
            guest.register(TICK_USEC, 1000)
            guest.serve(served)
            self.assertFalse(guest.twin.is_silent(LIMIT))
            self.stop_sent(guest)
            self.assertTrue(guest.is_silent())
            guest.serve(1)
            self.stopped(guest)
            self.assertEqual(guest.register(TICKS), finished)
            self.assertTrue(guest.twin.is_silent(0.02))
            guest.register(TICK_USEC, 0)
            guest.set(RUNNING)
        self.assertEqual(numbers(guest.far[4088:4096]), (1,))

    def test_what_has_not_been_asked_is_not_asked_any_more(self):
        guest = self.far()
        guest.register(TICK_RING, FAR)
        guest.register(TICK_PAGES, 1)
        guest.register(TICK_USEC, 1000)
        self.assertFalse(guest.twin.is_silent(LIMIT))
        guest.command(8, flags=BY_MESSAGE)
        guest.ring()
        self.assertEqual(guest.register(DONE), 0)
        self.stop_sent(guest)
        self.assertTrue(guest.is_silent())
        guest.serve(1)
        self.stopped(guest)
        self.assertTrue(guest.twin.is_silent(0.02))
        guest.register(TICK_USEC, 0)
        guest.set(RUNNING)
        guest.serve(2)
        self.done(guest, 1)
        self.assertEqual(guest.register(CHAIN), guest.expect(bytes(8)))

    def test_quiesce_takes_its_time(self):
        guest = self.begin("quiesce=300,pre-copy=on,delay=running-p2p>stop:100")
        for states, least in (((STOP,), 0.4), ((PRE_COPY, STOP_COPY), 0.3)):
            start = time.monotonic()
            guest.set(*states)
            self.assertGreaterEqual(time.monotonic() - start, least)
            guest.set(STOP)
            start = time.monotonic()
            guest.set(RUNNING, P2P, RUNNING)
            self.assertLess(time.monotonic() - start, 0.3)

    def test_nothing_begins_while_it_quiesces(self):
        guest = self.begin("quiesce=200")
        self.stop_sent(guest)
        guest.command(0)
        guest.send(REGION_WRITE, struct.pack("=QII", DOORBELL, 1, 8) + u64(1))
        self.stopped(guest)
        self.assertEqual(guest.receive().error, 0)
        self.assertEqual(guest.register(DONE), 0)
        guest.set(RUNNING)
        self.done(guest, 1)

    def test_an_arc_that_fails_lets_the_worker_go_on(self):
        guest = self.far()
        for fault in ("fail:EIO", "lie", "late:50"):
            self.fault(f"running-p2p>stop:{fault}@1")
            guest.command(8, flags=BY_MESSAGE)
            guest.ring()
            self.assertFalse(guest.twin.is_silent(LIMIT))
            self.stop_sent(guest)
            guest.serve(1)
            reply = guest.receive()
            self.assertEqual(reply.error, errno.EIO if fault == "fail:EIO" else 0)
            self.assertEqual(guest.state, STOP if fault == "late:50" else P2P)
            if fault == "late:50":
                guest.set(RUNNING)
            guest.serve(2)
            self.done(guest, 1)
            guest.set(RUNNING)
            self.assertEqual(guest.register(CHAIN), guest.expect(bytes(8)))

    def test_a_broken_device_does_nothing(self):
        guest = self.begin()
        guest.command(0, delay=50000)
        guest.command(0)
        guest.ring()
        self.assertEqual(guest.register(DONE), 0)
        self.fault("info:error:EIO@1")
        self.refused(errno.EIO, guest.info)
        start = time.monotonic()
        self.until(lambda: time.monotonic() - start > 0.15)
        self.assertEqual(guest.register(DONE), 0)

    def test_a_command_that_keeps_the_answer_back_ends_the_connection(self):
        guest = self.far(twin=False)
        guest.command(8, flags=BY_MESSAGE)
        guest.ring()
        self.assertFalse(guest.is_silent(LIMIT))
        self.stop_sent(guest)
        guest.send(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        self.assertEqual(guest.receive().command, DMA_READ)
        self.assertTrue(guest.is_closed())
        self.until(lambda: not self.control.status("a")["connected"])
        status = self.control.status("a")
        self.assertEqual((status["state"], status["protocol_errors"]), ("stop", 1))

    def test_a_client_that_leaves_does_not_end_the_arc(self):
        for twin in (True, False):
            guest = self.far("delay=running-p2p>stop:50", twin)
            source = self.data(guest, 8)
            guest.command(8, flags=BY_MESSAGE)
            guest.ring()
            self.assertFalse((guest.twin or guest).is_silent(LIMIT))
            self.stop_sent(guest)
            guest.close()
            self.until(lambda: not self.control.status("a")["connected"])
            self.assertEqual(self.control.status("a")["state"], "stop")
            self.assertEqual((self.worker()["done"], self.worker()["maps"]), (0, 0))
            other = self.guest()
            other.memory[SOURCE_AT:SOURCE_AT + 8] = source
            other.command(8)
            other.set(RUNNING)
            self.done(other, 1)
            self.assertEqual(other.register(CHAIN), other.expect(source))
            other.close()
            self.stop()


class Leaving(WorkerCase):
    def test_what_was_set_up_goes_and_the_state_stays(self):
        guest = self.begin("pre-copy=on")
        guest.command(0)
        guest.ring()
        self.done(guest, 1)
        guest.log()
        guest.poke(SCRATCH, b"s" * 64, 1)
        guest.poke(40000, b"window", 2)
        chain = guest.register(CHAIN)
        used = self.files()
        guest.close()
        self.until(lambda: not self.control.status("a")["connected"])
        self.assertEqual(self.worker(), {"doorbell": 1, "done": 1, "chain": f"{chain:016x}", "ticks": 0, "maps": 0,
                                         "logging": False})
        again = self.guest(setup=False, twin=False)
        self.assertEqual(self.files(), used - 3)  # two eventfds and a twin socket
        self.assertEqual((again.peek(SCRATCH, 64, 1), again.peek(40000, 6, 2)), (b"s" * 64, b"window"))
        self.refused(errno.EINVAL, again.report)
        self.assertEqual(again.register(RING), BASE)

    def test_commands_do_not_fail_because_nobody_is_there(self):
        guest = self.begin()
        source = self.data(guest, 100)
        guest.command(delay=50000)
        guest.command(destination=BASE + DESTINATION_AT + PAGE)
        guest.ring()
        self.assertEqual(guest.register(DONE), 0)
        guest.close()
        self.until(lambda: not self.control.status("a")["connected"])
        again = self.guest(setup=False)
        again.posted = 1
        again.memory[SOURCE_AT:SOURCE_AT + 100] = source
        again.command(destination=BASE + DESTINATION_AT + PAGE)
        again.map(BASE, SIZE, again.fd)
        start = time.monotonic()
        self.until(lambda: time.monotonic() - start > 0.1)
        self.assertEqual(self.worker()["done"], 0)
        again.set_irqs(again.irqs)
        self.done(again, 2)
        again.expect(source)
        self.assertEqual(again.register(CHAIN), again.expect(source))

    def test_who_lets_it_run_has_set_it_up(self):
        guest = self.begin()
        guest.set(STOP)
        guest.command()
        guest.ring()
        guest.close()
        self.until(lambda: not self.control.status("a")["connected"])
        again = self.guest(setup=False)
        again.command()
        again.map(BASE, SIZE, again.fd)
        again.set(RUNNING)
        self.until(lambda: again.register(DONE) == 1)
        self.assertEqual(again.register(CHAIN), again.expect(bytes(100)))

    def test_nor_because_it_is_forced_to_run(self):
        guest = self.begin(options=("--on-disconnect=running",))
        guest.set(STOP)
        guest.command()
        guest.ring()
        guest.close()
        self.until(lambda: not self.control.status("a")["connected"])
        again = self.guest(setup=False)
        self.assertEqual((again.state, self.worker()["done"]), (RUNNING, 0))
        again.posted = 0
        again.command()
        again.map(BASE, SIZE, again.fd)
        again.set_irqs(again.irqs)
        self.done(again, 1)
        self.assertEqual(again.register(CHAIN), again.expect(bytes(100)))

    def test_a_reset_leaves_it_as_it_was_at_first(self):
        guest = self.begin()
        config = guest.peek(0, 256, 7)
        before = self.files()
        guest.command(0)
        guest.command(0, delay=10 ** 9)
        guest.ring()
        self.done(guest, 1)
        guest.poke(SCRATCH, b"s" * 64, 1)
        guest.poke(0, b"w" * 65536, 2)
        guest.poke(0, b"c" * 256, 7)
        guest.register(TICK_RING, BASE)
        guest.register(TICK_PAGES, 1)
        guest.register(TICK_USEC, 10 ** 9)
        guest.log()
        guest.reset()
        self.assertEqual([guest.register(r) for r in range(RING, 0x48, 8)], [0] * 8)
        self.assertEqual((guest.peek(SCRATCH, 64, 1), guest.peek(0, 256, 7)), (bytes(64), config))
        self.assertFalse(any(guest.peek(0, 65536, 2)))
        self.assertEqual((self.worker()["maps"], self.worker()["logging"], self.files()), (1, True, before))
        guest.register(RING, BASE)
        guest.posted = 0
        guest.command(0)
        guest.ring()
        self.done(guest, 1)
        self.assertEqual(guest.register(CHAIN), guest.expect(b""))

    def test_a_reset_while_a_question_is_out(self):
        guest = self.begin()
        guest.command(8, flags=BY_MESSAGE)
        guest.ring()
        self.assertFalse(guest.twin.is_silent(LIMIT))
        guest.reset()
        guest.register(RING, BASE)
        guest.posted = 0
        guest.command(8, flags=BY_MESSAGE)
        guest.ring()
        self.assertEqual(guest.register(DONE), 0)
        guest.serve(3)
        self.done(guest, 1)
        self.assertEqual(guest.register(CHAIN), guest.expect(bytes(8)))


class Moving(WorkerCase):
    """From a to b, each with a VMM of its own; b's guest memory is a copy of a's."""

    def begin_both(self, keys=""):
        self.start(f"worker=on,{keys}".rstrip(","), f"worker=on,seed=2,{keys}".rstrip(","))
        return self.guest("a"), self.guest("b")

    def copy(self, a, b):
        b.memory[:] = a.memory[:]
        b.posted, b.chain, b.expected, b.scratch = a.posted, a.chain, a.expected, a.scratch

    def test_a_command_in_its_delay_is_done_there_once(self):
        a, b = self.begin_both()
        source = self.data(a, 1000)
        a.poke(7, b"window", 2)
        a.command(1000, window=(7, 6), delay=300000)
        a.command(0, destination=BASE + DESTINATION_AT + PAGE)
        start = time.monotonic()
        a.ring()
        self.assertEqual((a.register(DONE), a.register(DONE)), (0, 0))
        data = a.save()
        self.data(a, 1000, seed=9)  # what has been read, has been read
        self.copy(a, b)
        a.poke(7, bytes(6), 2)
        time_left = 0.3 - (time.monotonic() - start)
        b.load(data)
        start = time.monotonic()
        self.assertEqual((b.register(DONE), b.register(DOORBELL)), (0, 2))
        b.set(RUNNING)
        self.done(b, 2)
        self.assertGreaterEqual(time.monotonic() - start, time_left)
        self.assertLess(time.monotonic() - start, 0.3 + LIMIT / 10)
        first = b.expect(source, b"window")
        self.assertEqual(b.result(length=1000), ((1, first, 0, 1000, 0, 0, 0, 0), b.changed(source)))
        self.assertEqual((b.register(CHAIN), b.register(DONE)), (b.expect(b""), 2))
        self.assertEqual(b.peek(0x8000, 24, 2), u64(0, first, b.chain))
        self.assertEqual((a.register(DONE), a.raised(0), b.raised(0)), (0, 0, 0))
        a.set(RUNNING)  # and where it came from it can go on as well
        self.done(a, 2)
        self.assertEqual(a.register(DONE), 2)

    def test_a_chain_goes_on_over_many_moves(self):
        a, b = self.begin_both("pre-copy=on")
        source = self.data(a, 100)
        a.scratch = b"s" * 64
        a.poke(SCRATCH, a.scratch, 1)
        for move in range(6):
            for _ in range(40):
                a.command()
                a.expect(source)
            a.ring()
            if move % 2:
                a.set(PRE_COPY)
                a.read_all()
            a.set(STOP)
            done = a.register(DONE)
            data = a.save()
            self.copy(a, b)
            b.load(data)
            b.set_irqs(b.irqs)
            self.assertEqual(b.register(DONE), done)
            b.set(RUNNING)
            self.until(lambda: b.register(DONE) == b.posted)
            self.assertEqual(b.register(CHAIN), b.chain)
            b.raised(0)
            a, b = b, a
            self.assertEqual(b.register(DONE), done, "it stands")
            b.set(RESUMING)

    def test_everything_that_can_be_seen_moves(self):
        a, b = self.begin_both()
        a.command(0)
        a.ring()
        self.done(a, 1)
        a.register(TICK_RING, BASE + TICKS_AT)
        a.register(TICK_PAGES, 8)
        a.register(TICK_USEC, 100000)
        self.until(lambda: a.register(TICKS) == 2)
        a.poke(SCRATCH, random.Random(1).randbytes(64), 1)
        a.poke(0, random.Random(2).randbytes(65536), 2)
        a.poke(0, random.Random(3).randbytes(256), 7)
        fds = b.region(2, 64)[2]
        data = a.save()
        seen = [a.peek(0, 0x48, 1) if n == 0 else a.peek(*n) for n in ((SCRATCH, 64, 1), (0, 65536, 2), (0, 256, 7),
                                                                      *((r, 8, 1) for r in range(0, 0x48, 8)))]
        b.load(data)
        self.assertEqual([b.peek(*n) for n in ((SCRATCH, 64, 1), (0, 65536, 2), (0, 256, 7),
                                               *((r, 8, 1) for r in range(0, 0x48, 8)))], seen)
        with mmap.mmap(fds[0], 65536) as window:
            self.assertEqual(window[:], seen[1], "who has it mapped sees it too")
        os.close(fds[0])
        self.assertEqual(self.worker("b")["maps"], 1)
        b.set(RUNNING)
        self.until(lambda: b.register(TICKS) == 4)
        self.assertEqual(numbers(b.memory[TICKS_AT + 3 * PAGE:TICKS_AT + 3 * PAGE + 8]), (4,))

    def test_every_part_is_checked(self):
        a, b = self.begin_both("size=4K")
        a.command(100, delay=10 ** 9)
        a.ring()
        self.assertEqual((a.register(DONE), a.register(DONE)), (0, 0))
        data = a.save()
        before = b.peek(0, 65536, 2), b.peek(0, 256, 7)
        spots = random.Random(4).sample(range(len(data)), 200)
        for at in spots:
            b.set(RESUMING)
            b.write_all(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:])
            self.refused(errno.EINVAL, b.set, STOP)
            b.reset()
        for wrong in (data[:-1], data[:-16], data + b"x"):
            b.set(RESUMING)
            b.write_all(wrong)
            self.refused(errno.EINVAL, b.set, STOP)
            b.reset()
        self.assertEqual((b.peek(0, 65536, 2), b.peek(0, 256, 7), b.register(DOORBELL)), (*before, 0))
        b.load(data)
        self.assertEqual(b.register(DOORBELL), 1)

    def test_states_that_no_worker_is_in_are_refused(self):
        a, b = self.begin_both("size=4K")
        a.command(100, delay=10 ** 9)
        a.ring()
        self.assertEqual((a.register(DONE), a.register(DONE)), (0, 0))
        data = a.save()
        state = 24 + 16 + 4096 + 16  # header, the page of the memory, the record of the first page of the state

        def forge(at, value):
            out = bytearray(data)
            out[state + at:state + at + len(value)] = value
            struct.pack_into("=I", out, state - 4, crc32c(out[state:state + 4096]))
            headers = bytes(out[:24])
            position = 24
            while position < len(out) - 16:
                headers += out[position:position + 16]
                position += 16 + struct.unpack_from("=I", out, position + 8)[0]
            struct.pack_into("=I", out, len(out) - 4, crc32c(headers))
            return bytes(out)

        doorbell, done, pages_at, config, waits, has, slot = 8, 16, 40, 128, 392, 400, 408
        self.assertEqual(data[state + slot:state + slot + 8], u64(1), "the layout is as here")
        b.load(forge(0, u64(BASE)))
        for at, value in ((doorbell, u64(65)), (done, u64(1)), (done, u64(2)),
                          (doorbell, u64(0)), (pages_at, u64(3)),
                          (pages_at, u64(8192)), (config, b"\0"), (config + 4, b"\1"), (waits, u64(10 ** 9 + 1)),
                          (has, u64(2)), (slot, u64(2)), (slot + 12, u64(65537)),
                          (slot + 32, struct.pack("<II", 32768, 1)), (slot + 48, u64(1))):
            with self.subTest(at=at):
                b.set(RESUMING)
                b.write_all(forge(at, value))
                self.refused(errno.EINVAL, b.set, STOP)
                b.reset()  # a load that failed is not begun again by itself
        b.load(forge(has, u64(0)))

    def test_only_workers_take_workers(self):
        self.start("worker=on", "", "worker=on")
        a, b = self.guest("a"), self.client("b")
        with_worker, without = a.save(), b.save()
        for client, data in ((a, without), (b, with_worker)):
            client.set(RESUMING)
            client.write_all(data)
            self.refused(errno.EINVAL, client.set, STOP)
            client.reset()
        a.load(with_worker)
        b.load(without)

    def test_a_big_device_is_moved_while_it_is_being_changed(self):
        self.start("worker=on,size=256M,pre-copy=on,dirty-rate=65536", "worker=on,size=256M,pre-copy=on,seed=2")
        a, b = self.client("a"), self.client("b")
        a.set(PRE_COPY)
        b.set(RESUMING)
        first = 0
        while part := a.read(MIB):
            b.write(part)
            first += len(part)
        a.set(STOP_COPY)
        second = 0
        while part := a.read(MIB):
            b.write(part)
            second += len(part)
        a.set(STOP)
        b.set(STOP)
        self.assertGreaterEqual(first, 256 * MIB)
        self.assertGreater(second, 2 * PAGE)
        digests = [self.control.do("digest", name) for name in "ab"]
        self.assertEqual(digests[0]["sha256"], digests[1]["sha256"])
        self.assertEqual(digests[0]["crc_saved"], digests[1]["crc_loaded"])

    def test_dirty_rate_is_what_was_asked_for(self):
        self.start("size=64M,pre-copy=on,dirty-rate=2000", "size=64M,pre-copy=on",
                   "size=4K,pre-copy=on,dirty-rate=1000000")
        clients = [self.client(name) for name in "abc"]
        start = time.monotonic()
        for client in clients:
            client.set(PRE_COPY)
            client.read_all()
        self.until(lambda: time.monotonic() - start > 0.5)
        clients[0].set(STOP_COPY)
        took = time.monotonic() - start
        changed = len(clients[0].read_all()) // (PAGE + 16)
        self.assertTrue(500 < changed < 2000 * (took + 0.2), changed)
        clients[1].set(STOP_COPY)
        self.assertLessEqual(len(clients[1].read_all()), PAGE + 32)  # the counter, which is watched
        clients[2].set(STOP_COPY)
        self.assertLessEqual(len(clients[2].read_all()), PAGE + 32)


class Logging(WorkerCase):
    def test_pages_are_reported_once(self):
        guest = self.begin()
        guest.log()
        self.assertEqual(guest.report(), [])
        guest.command(65536, destination=BASE + DESTINATION_AT + 4000)
        guest.ring()
        self.done(guest, 1)
        first = (DESTINATION_AT + 4000) // PAGE
        self.assertEqual(guest.report(), list(range(first, first + 17)))
        self.assertEqual(guest.report(), [])
        guest.register(TICK_RING, BASE + TICKS_AT)
        guest.register(TICK_PAGES, 2)
        guest.register(TICK_USEC, 1000)
        self.until(lambda: guest.register(TICKS) >= 2)
        guest.register(TICK_USEC, 0)
        self.assertEqual(guest.report(), [16, 17])
        guest.poke(0, b"x", 2)
        guest.memory[0:1] = b"x"
        self.assertEqual(guest.report(), [])

    def test_page_sizes_and_beginnings(self):
        guest = self.begin(setup=False)
        guest.map(BASE, SIZE - 5000, guest.fd)
        guest.map(FAR, PAGE, guest.fd)
        guest.set_irqs(guest.irqs)
        guest.register(RING, BASE)
        for page in (0, 1, 2048, 4095, 12288, 2 ** 64 - 1):
            self.refused(errno.EINVAL, guest.log, page)
        self.refused(errno.EINVAL, guest.report)
        guest.log(16384, ranges=3)
        guest.log(16384)
        self.refused(errno.EINVAL, guest.log, PAGE)
        guest.command(0, destination=BASE + DESTINATION_AT)
        guest.command(0, destination=FAR + 64 * 4)
        guest.ring()
        self.done(guest, 2)
        length = SIZE - 5000
        for address, n, page in ((BASE, length, PAGE), (BASE, length, 32768), (BASE, length, 0), (BASE, 1, 16384),
                                 (BASE, 16385, 16384), (BASE, length + 1, 16384), (BASE + 16384, 16384, 16384),
                                 (BASE, 0, 16384), (BASE, BAD, 16384)):
            self.refused(errno.EINVAL, guest.report, address, n, page)
        self.refused(errno.ENOENT, guest.report, BASE - 16384, 16384, 16384)
        self.refused(errno.ENOENT, guest.report, BASE + length, 16384, 16384)
        self.refused(errno.EINVAL, guest.report, BASE, length, 16384, 8 + 24 + 15)
        self.assertEqual(guest.report(BASE, DESTINATION_AT, 16384), [])
        self.assertEqual(guest.report(BASE, DESTINATION_AT + 16384, 16384, 8 + 24 + 16), [DESTINATION_AT // 16384])
        self.assertEqual(guest.report(BASE, length, 16384), [])
        self.assertEqual(guest.report(FAR, PAGE, 16384), [0])

    def test_a_beginning_takes_only_its_own_bits(self):
        guest = self.begin()
        guest.log()
        for page in (0, 1, 2, 3, 8):
            guest.command(0, destination=BASE + DESTINATION_AT + page * PAGE)
        guest.ring()
        self.done(guest, 5)
        first = DESTINATION_AT // PAGE
        self.assertEqual(guest.report(BASE, DESTINATION_AT + 2 * PAGE), [first, first + 1])
        self.assertEqual(guest.report(), [first + 2, first + 3, first + 8])

    def test_maps_come_and_go_while_it_is_logged(self):
        guest = self.begin()
        guest.map(FAR, PAGE)
        guest.log()
        self.refused(errno.EINVAL, guest.report, FAR, PAGE)
        guest.map(FAR + PAGE, 2 * PAGE, guest.fd, offset=DESTINATION_AT)
        guest.command(0, destination=FAR + 2 * PAGE)
        guest.ring()
        self.done(guest, 1)
        request = struct.pack("=IIQQQQ", 24 + 16 + 8, 1, FAR + PAGE, 2 * PAGE, PAGE, 8)
        for wrong in (struct.pack("=IIQQQQ", 24 + 16 + 7, 1, FAR + PAGE, 2 * PAGE, PAGE, 8), request[:24],
                      struct.pack("=IIQQQQ", 24 + 16 + 8, 1, FAR + PAGE, 2 * PAGE, PAGE, 7),
                      struct.pack("=IIQQQQ", 24 + 16 + 8, 1, FAR + PAGE, 2 * PAGE, 8192, 8),
                      struct.pack("=IIQQQQ", 24 + 16 + 8, 1, FAR, PAGE, PAGE, 8)):
            self.refused(errno.EINVAL, guest.call, DMA_UNMAP, wrong)
        self.refused(errno.ENOENT, guest.call, DMA_UNMAP,
                     struct.pack("=IIQQQQ", 24 + 16 + 8, 1, FAR + PAGE, PAGE, PAGE, 8))
        self.assertEqual(guest.call(DMA_UNMAP, request).payload, request + u64(2))
        self.refused(errno.ENOENT, guest.report, FAR + PAGE, 2 * PAGE)
        self.assertEqual(guest.report(), [])

    def test_it_ends(self):
        guest = self.begin()
        guest.log()
        guest.command(0)
        guest.ring()
        self.done(guest, 1)
        guest.feature(LOG_STOP, SET)
        guest.feature(LOG_STOP, SET)
        self.refused(errno.EINVAL, guest.report)
        guest.command(0)
        guest.ring()
        self.done(guest, 1)
        guest.log(8192)
        self.assertEqual(guest.report(page=8192), [])
        for state in (STOP, STOP_COPY, RESUMING):
            guest.set(state)
            guest.feature(LOG_STOP, SET)
            guest.log()
            self.assertEqual(guest.report(), [])

    def test_operations_follow_the_table(self):
        guest = self.begin()
        able = {LOG_START: SET | PROBE, LOG_STOP: SET | PROBE, LOG_REPORT: GET | PROBE}
        for number, operations in able.items():
            for operation in (0, GET, SET, PROBE, GET | SET, PROBE | GET, PROBE | SET, PROBE | GET | SET):
                if operation & ~operations or operation in (0, GET | SET):
                    self.refused(errno.EINVAL, guest.feature, number, operation, bytes(24), 4096)
                elif operation & PROBE:
                    self.assertEqual(guest.feature(number, operation, b"data", 20)[1], b"data")
        for size in (0, 15):
            self.refused(errno.EINVAL, guest.feature, LOG_START, SET, struct.pack("=QII", PAGE, 0, 0)[:size], 100)
        for n, ranges in ((1, 0), (2, 1), (2 ** 32 - 1, 1)):
            self.refused(errno.EINVAL, guest.feature, LOG_START, SET,
                         struct.pack("=QII", PAGE, n, 0) + bytes(16 * ranges), 100)
        guest.log()
        self.refused(errno.EINVAL, guest.feature, LOG_REPORT, GET, bytes(23), 4096)
        self.assertTrue(self.worker()["logging"])


class Strictness(WorkerCase):
    SETTING_UP = ("info", "map", "unmap", "region", "irq", "irqs")

    def attempts(self, guest):
        return {"info": guest.info, "map": lambda: guest.map(FAR, PAGE), "unmap": lambda: guest.unmap(FAR, PAGE),
                "region": lambda: guest.region(1), "irq": lambda: guest.irq(2),
                "irqs": lambda: guest.set_irqs(guest.irqs), "peek": lambda: guest.peek(0, 8, 1),
                "poke": lambda: guest.poke(0, bytes(8), 7), "report": guest.report, "reset": guest.reset}

    def walk(self, options, refused):
        guest = self.begin("pre-copy=on", options)
        guest.log()
        for state, way in ((RUNNING, ()), (P2P, (P2P,)), (STOP, (STOP,)), (STOP_COPY, (STOP, STOP_COPY)),
                           (RESUMING, (STOP, RESUMING)), (PRE_COPY, (PRE_COPY,)),
                           (PRE_COPY_P2P, (PRE_COPY, PRE_COPY_P2P))):
            for name, attempt in self.attempts(guest).items():
                with self.subTest(state=state, name=name):
                    guest.set(*way)
                    if name in refused.get(state, ()):
                        self.refused(errno.EINVAL, attempt)
                        self.assertEqual(guest.state, state)
                    else:
                        attempt()
                        self.assertEqual(guest.state, RUNNING if name == "reset" else state)
                    if state == RESUMING:
                        guest.reset()
                    else:
                        guest.set(RUNNING)

    def test_as_a_kernel(self):
        self.walk((), {STOP_COPY: ("peek", "poke")})

    def test_as_libvfio_user(self):
        self.walk(("--strict=libvfio-user",), {STOP: (*self.SETTING_UP, "reset"),
                                               STOP_COPY: (*self.SETTING_UP, "reset", "peek", "poke")})


class Garbage(WorkerCase):
    def test_nonsense_costs_nobody_anything(self):
        self.start("worker=on,size=64K,pre-copy=on", "worker=on")
        healthy = self.guest("b")
        before = self.files()
        rng = random.Random(6)
        spare = [os.memfd_create("spare"), os.eventfd(0, os.EFD_NONBLOCK), *os.pipe()]
        os.ftruncate(spare[0], MIB)
        commands = (DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, 6, IRQ_INFO, SET_IRQS, REGION_READ, REGION_WRITE,
                    DMA_READ, DMA_WRITE, RESET, 14, 15, FEATURE, DATA_READ, DATA_WRITE, 99)

        def number(bits):
            edges = (0, 1, 2, 3, 4, 8, 32, 33, 36, 63, 64, 4095, 4096, 65536, BASE, FAR, (1 << bits) - 1, 1 << bits - 1)
            return (rng.choice(edges) if rng.random() < 0.8 else rng.getrandbits(bits)) & (1 << bits) - 1

        for client in range(20):
            guest = self.guest(setup=False, twin=client % 2 == 0)
            try:
                for _ in range(150):
                    payload = b"".join(struct.pack("=I", number(32)) if rng.random() < 0.5 else u64(number(64))
                                       for _ in range(rng.randrange(12)))
                    if rng.random() < 0.5:
                        payload = struct.pack("=I", 1 << 16) + payload[4:]
                    fds = [rng.choice(spare) for _ in range(rng.choice((0, 0, 1, 1, 2, 20)))]
                    guest.send(rng.choice(commands), payload, rng.choice((0, 0, 0, NO_REPLY)), fds)
                    while not guest.is_silent(0):
                        for fd in guest.receive().fds:
                            os.close(fd)
            except (EOFError, ConnectionError, AssertionError):
                pass
            guest.close()
            healthy.command()
            healthy.ring()
            self.done(healthy, 1)
            healthy.expect(bytes(100))
        self.assertEqual(healthy.register(CHAIN), healthy.chain)
        self.until(lambda: not self.control.status("a")["connected"])
        self.assertEqual(self.files(), before)
        self.assertEqual(self.worker()["maps"], 0)
        for fd in spare:
            os.close(fd)


class Letters(WorkerCase):
    """Its mailbox is region 3; the peer's is a file of the test."""
    PEER, AT, SLOTS = 0x100, 1 << 33, 63

    def begin(self, keys="", options=(), **more):
        guest = super().begin(f"mailbox=on,pre-copy=on,{keys}".rstrip(","), options, **more)
        self.peer_fd = os.memfd_create("peer")
        os.ftruncate(self.peer_fd, PAGE)
        self.peer = mmap.mmap(self.peer_fd, PAGE)
        guest.map(self.AT, PAGE, self.peer_fd)
        fd = guest.region(3, 64)[2][0]
        self.mailbox = mmap.mmap(fd, PAGE)
        os.close(fd)
        self.addCleanup(os.close, self.peer_fd)
        self.addCleanup(self.peer.close)
        self.addCleanup(self.mailbox.close)
        return guest

    def count(self, name="a"):
        return self.control.status(name)["mailbox"]

    def wait(self, what, least):
        self.until(lambda: self.count()[what] >= least)

    def until(self, condition):
        limit = time.monotonic() + LIMIT
        while not condition():
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.001)

    def letter(self, seq, data=(1, 2, 3, 4, 5, 6), wrong=0):
        """Puts one into the device's mailbox, its number last."""
        at = 64 * (1 + (seq - 1) % self.SLOTS)
        self.mailbox[at + 8:at + 64] = u64(fnv(u64(seq, *data)) ^ wrong, *data)
        self.mailbox[at:at + 8] = u64(seq)

    def test_only_who_has_a_mailbox_has_its_region_and_register(self):
        guest = self.begin()
        self.assertEqual(guest.region(3)[0], (64, 7, 3, 0, PAGE, 0))
        guest.register(self.PEER, self.AT)
        self.assertEqual(guest.register(self.PEER), self.AT)
        guest.reset()
        self.assertEqual(guest.register(self.PEER), 0)
        guest.close()
        self.stop()
        self.start("worker=on")
        guest = self.guest()
        self.assertEqual(guest.region(3)[0], (32, 0, 3, 0, 0, 0))
        guest.register(self.PEER, self.AT)
        self.assertEqual(guest.register(self.PEER), 0)

    def test_it_writes_letters_as_far_as_they_are_taken(self):
        guest = self.begin()
        guest.register(self.PEER, self.AT)
        self.wait("sent", self.SLOTS)
        time.sleep(0.01)
        self.assertEqual(self.count()["sent"], self.SLOTS)
        for seq in range(1, self.SLOTS + 1):
            letter = numbers(self.peer[64 * seq:64 * seq + 64])
            self.assertEqual((letter[0], letter[1]), (seq, fnv(u64(letter[0], *letter[2:]))))
        self.peer[0:8] = u64(5)
        self.wait("sent", self.SLOTS + 5)
        self.assertEqual(numbers(self.peer[5 * 64:5 * 64 + 8]), (self.SLOTS + 5,))

    def test_it_writes_none_in_a_p2p_state_and_none_when_it_stands(self):
        guest = self.begin("delay=running>running-p2p:20")
        guest.register(self.PEER, self.AT)
        for states, sends in (((RUNNING,), True), ((P2P,), False), ((STOP,), False), ((P2P,), False), ((RUNNING,), True),
                              ((PRE_COPY,), True), ((PRE_COPY_P2P,), False), ((STOP_COPY,), False), ((STOP, RUNNING), True)):
            guest.set(*states)
            before = self.count()["sent"]
            self.peer[0:8] = u64(before)
            if sends:
                self.wait("sent", before + 3)
            else:
                time.sleep(0.01)
                self.assertEqual(self.count()["sent"], before, states)

    def test_it_writes_until_the_end_of_the_arc(self):
        guest = self.begin("delay=running>running-p2p:100")
        guest.register(self.PEER, self.AT)
        self.wait("sent", self.SLOTS)
        guest.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, P2P, -1))
        self.peer[0:8] = u64(self.SLOTS)
        self.wait("sent", self.SLOTS + 3)
        self.assertEqual(guest.receive().error, 0)

    def test_it_takes_letters_while_it_does_not_stand(self):
        guest = self.begin()
        guest.register(self.PEER, self.AT)
        for seq, state in enumerate((RUNNING, P2P, STOP, P2P, RUNNING, PRE_COPY, PRE_COPY_P2P), 1):
            guest.set(state)
            if state != STOP:
                self.letter(seq)
            else:
                self.letter(seq)
                time.sleep(0.01)
                self.assertEqual(self.count()["taken"], seq - 1)
                continue
            self.wait("taken", seq)
        self.assertEqual(numbers(self.mailbox[0:8]), (7,))
        self.assertEqual({k: self.count()[k] for k in ("lost", "torn")}, {"lost": 0, "torn": 0})

    def test_a_letter_that_came_while_it_stood_is_an_intrusion(self):
        guest = self.begin()
        guest.register(self.PEER, self.AT)
        guest.set(STOP)
        self.assertEqual(self.count()["intrusions"], 0)
        self.letter(1)
        self.assertEqual(self.count()["intrusions"], 1)
        self.assertEqual(self.count()["intrusions"], 1)  # once is once
        self.letter(2)
        guest.set(RESUMING)
        self.letter(3)
        guest.reset()
        self.assertEqual({k: self.count()[k] for k in ("intrusions", "intrusions_here")},
                         {"intrusions": 0, "intrusions_here": 3})

    def test_what_is_lost_and_torn_is_counted(self):
        guest = self.begin()
        guest.register(self.PEER, self.AT)
        guest.set(STOP)
        self.letter(1)
        self.letter(4)
        self.letter(5, wrong=1)
        guest.set(RUNNING)
        self.wait("taken", 5)
        self.assertEqual({k: self.count()[k] for k in ("lost", "torn")}, {"lost": 2, "torn": 1})

    def test_it_moves_with_its_letters(self):
        guest = self.begin()
        guest.register(self.PEER, self.AT)
        self.letter(1)
        self.letter(3)
        self.wait("taken", 3)
        guest.set(STOP)
        self.letter(4)
        image, before = guest.save(), self.count()
        guest.close()
        self.stop()
        other = self.begin()
        other.set(STOP, RESUMING)
        other.load(image)
        self.assertEqual(self.count(), {**before, "intrusions_here": 0})
        self.assertEqual(other.register(self.PEER), self.AT)
        other.set(RUNNING)
        self.wait("taken", 4)

    def test_with_ndma_it_does_nothing_in_a_p2p_state(self):
        for ndma in (False, True):
            guest = self.begin("ndma=on" if ndma else "")
            data = self.data(guest, 100)
            guest.set(P2P)
            guest.command(100)
            guest.ring()
            if ndma:
                time.sleep(0.02)
                self.assertEqual(guest.raised(0), 0)
                guest.set(RUNNING)
            self.done(guest, 1)
            self.assertEqual(guest.register(CHAIN), guest.expect(data))
            guest.close()
            self.stop()


class Invocation(WorkerCase):
    def test_bad_arguments_are_named(self):
        for keys in ("worker=yes", "quiesce=x", "dirty-rate=-1", "dirty-rate=4294967296"):
            process = self.launch(f"socket=x,{keys}")
            process.expected = 2
            self.assertEqual(process.wait(LIMIT), 2)
            self.assertIn(keys.encode(), process.stderr.read())
        process = self.launch("socket=x,mailbox=on")
        process.expected = 2
        self.assertEqual(process.wait(LIMIT), 2)
        self.assertIn(b"needs worker=on", process.stderr.read())
        process = self.launch("--strict=qemu", "socket=x")
        process.expected = 2
        self.assertEqual(process.wait(LIMIT), 2)
        self.assertIn(b"qemu", process.stderr.read())


if __name__ == "__main__":
    unittest.main()
