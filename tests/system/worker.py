# SPDX-License-Identifier: LGPL-2.1-or-later
"""A worker device in Python, written from its description and not from the emulated device server: what the guest of
migmgr-test-vmm is judged against, and a device that can be told to do each wrong thing once.

It serves any number of VMMs and works for one of them, which can be changed while it stands: so a VM moves between two VMMs
with its device, without anything of migmgr. One thread for each device; what tests do to it is done with its lock.
"""

import array
import contextlib
import json
import mmap
import os
import select
import socket
import struct
import threading
import time

from vfio_user import (DMA_MAP, DMA_READ, DMA_WRITE, ERROR_BIT, GET_INFO, IRQ_INFO, NO_REPLY, REGION_INFO, REGION_READ,
                       REGION_WRITE, RESET, SET_IRQS, VERSION)

MAGIC, RING, DOORBELL, DONE, CHAIN, TICK_RING, TICK_PAGES, TICK_USEC, TICKS = range(0, 0x48, 8)
SCRATCH, ONES = 0x80, 0xffffffffffffffff
PAGE, WINDOW, SLOT = 4096, 65536, 64
REGIONS = {0: 65536, 1: 4096, 2: WINDOW, 7: 256}
EINVAL, EFAULT = 22, 14


def fnv(data, value=0xcbf29ce484222325):
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 & ONES
    return value


class Link:
    """One VMM's connection: what it has mapped, and where it wants its interrupts."""

    def __init__(self, s):
        self.socket, self.twin, self.maps, self.irqs, self.id = s, None, [], [None, None], 0
        s.settimeout(20)

    def close(self):
        for fd in self.irqs:
            if fd is not None:
                os.close(fd)
        for _, _, memory in self.maps:
            if memory:
                memory.close()
        for s in (self.socket, self.twin):
            if s:
                s.close()

    @staticmethod
    def receive(s):
        data, fds = b"", []
        while len(data) < 16 or len(data) < struct.unpack_from("=I", data, 4)[0]:
            want = 16 - len(data) if len(data) < 16 else struct.unpack_from("=I", data, 4)[0] - len(data)
            part, ancillary, _, _ = s.recvmsg(want, 256)
            if not part:
                raise EOFError
            for _, _, content in ancillary:
                fds += array.array("i", content[:len(content) // 4 * 4])
            data += part
        return struct.unpack_from("=HHIII", data), data[16:], fds

    def answer(self, header, payload=b"", error=0, fds=()):
        ident, command, _, flags, _ = header
        if flags & NO_REPLY:
            return
        if error:
            payload = b""
        data = struct.pack("=HHIII", ident, command, 16 + len(payload), 1 | (ERROR_BIT if error else 0), error) + payload
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([data], rights)

    def ask(self, command, address, count, data=b""):
        """DMA by message."""
        self.id = self.id + 1 & 0xffff
        request = struct.pack("=QQ", address, count)
        payload = request + data
        self.twin.sendall(struct.pack("=HHIII", self.id, command, 16 + len(payload), 0, 0) + payload)
        (ident, _, _, flags, error), reply, _ = self.receive(self.twin)
        assert ident == self.id and reply[:16] == request and not flags & ERROR_BIT, (flags, error)
        return reply[16:]

    def find(self, address, n):
        for start, size, memory in self.maps:
            if start <= address and address + n <= start + size:
                return memory, address - start
        raise OSError(EFAULT, hex(address))

    def read(self, address, n, by_message=False):
        memory, at = self.find(address, n)
        if n == 0:
            return b""
        return memory[at:at + n] if memory and not by_message else self.ask(DMA_READ, address, n)

    def write(self, address, data, by_message, dirty):
        memory, at = self.find(address, len(data))
        if memory and not by_message:
            memory[at:at + len(data)] = data
            dirty.update(range(address // PAGE, (address + len(data) - 1) // PAGE + 1))
        elif data:
            self.ask(DMA_WRITE, address, len(data), data)

    def signal(self, vector, times=1):
        if self.irqs[vector] is not None and times:
            os.eventfd_write(self.irqs[vector], times)


class Worker:
    """`wrong`: what it does wrong the next time it could; it is taken out when that has happened. Only doorbells are lost as
    long as it stands there: the next one makes up for one."""

    def __init__(self, path, window_is_mappable=True):
        self.path, self.lock, self.links, self.link = path, threading.RLock(), [], None
        self.stands, self.ends, self.wrong, self.dirty = False, False, set(), set()
        self.window_fd = os.memfd_create("window")
        os.ftruncate(self.window_fd, WINDOW)
        self.window, self.window_is_mappable = mmap.mmap(self.window_fd, WINDOW), window_is_mappable
        self.config = bytearray(struct.pack("<HH4xI", 0x1d94, 1, 0x08800000).ljust(256, b"\0"))
        self.reset()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(4)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def reset(self):
        self.registers, self.scratch = {r: 0 for r in range(0, 0x48, 8)}, bytes(64)
        self.registers[MAGIC] = 0x72656b726f77676d
        self.due = self.next_tick = None

    def close(self):
        self.ends = True
        self.thread.join(10)
        for link in self.links:
            link.close()
        self.listener.close()
        self.window.close()
        os.close(self.window_fd)

    # ---- what tests do

    def stop(self):
        """Nothing is under way when this returns."""
        with self.lock:
            self.stands = True

    def go(self, link=None):
        """Works on, for that VMM."""
        with self.lock:
            self.stands, self.next_tick = False, None
            self.link = link or self.link

    def take_dirty(self):
        """Addresses of the pages that it has written by its mappings since the last time."""
        with self.lock:
            dirty, self.dirty = self.dirty, set()
            return sorted(page * PAGE for page in dirty)

    def does(self, wrong):
        with self.lock:
            if wrong not in self.wrong:
                return False
            self.wrong.discard(wrong)
            return True

    # ---- its thread

    def run(self):
        while not self.ends:
            sockets = [self.listener] + [link.socket for link in self.links]
            ready, _, _ = select.select(sockets, [], [], self.patience())
            with self.lock:
                if self.listener in ready:
                    self.links.append(Link(self.listener.accept()[0]))
                    self.link = self.link or self.links[-1]
                for link in [link for link in self.links if link.socket in ready]:
                    try:
                        self.serve(link, *link.receive(link.socket))
                    except (EOFError, OSError):
                        self.links.remove(link)
                        link.close()
                        if self.link is link:
                            self.link = None
                if not self.stands and self.link:
                    with contextlib.suppress(EOFError, OSError):
                        self.work(time.monotonic())

    def patience(self):
        times = [t for t in (self.due, self.next_tick) if t is not None]
        busy = self.due is None and self.registers[DONE] < self.registers[DOORBELL]
        if self.stands or not self.link:
            return 0.005
        return 0 if busy else max(0.0, min(0.02, *(t - time.monotonic() for t in times))) if times else 0.005

    def work(self, now):
        if self.registers[TICK_USEC] and (self.next_tick is None or now >= self.next_tick):
            if self.next_tick is not None:
                self.tick()
            self.next_tick = now + self.registers[TICK_USEC] / 1e6
        if self.registers[DONE] == self.registers[DOORBELL]:
            return
        slot = self.link.read(self.registers[RING] + self.registers[DONE] % 64 * SLOT, SLOT)
        if self.due is None:
            self.due = now + struct.unpack_from("<Q", slot, 40)[0] / 1e6
        if now >= self.due:
            self.due = None
            self.command(slot)

    def command(self, slot):
        seq, flags, length, source, destination, offset, size = struct.unpack_from("<QIIQQII", slot)
        n = self.registers[DONE] + 1
        assert seq == n, (seq, n)
        data = self.link.read(source, length, flags & 1)
        old, piece = struct.pack("<Q", self.registers[CHAIN]), self.window[offset:offset + size]
        chain = fnv(old + slot[:8] + data + piece + self.scratch)
        if self.does("wrong-chain"):
            chain ^= 1
        result = struct.pack("<QQQQ32x", n, chain, self.registers[TICKS], length)
        key = struct.pack("<Q", chain) * (length // 8 + 1)
        changed = (int.from_bytes(data, "little") ^ int.from_bytes(key[:length], "little")).to_bytes(length, "little")
        if length > 1 and self.does("wrong-byte"):
            changed = changed[:-1] + bytes([changed[-1] ^ 0x80])
        if not self.does("stale-result"):
            self.link.write(destination, result + changed, flags & 1, self.dirty)
        if not self.does("stale-window"):
            struct.pack_into("<Q", self.window, 0x8000 + 8 * (n % 4096), chain)
        self.registers[CHAIN], self.registers[DONE] = chain, n
        times = 0 if self.does("lose-interrupt") else 2 if self.does("double-interrupt") else 1
        self.link.signal(0, times)

    def tick(self):
        k = self.registers[TICKS] + 1
        address = self.registers[TICK_RING] + (k - 1) % self.registers[TICK_PAGES] * PAGE
        if not self.does("stale-tick"):
            number = struct.pack("<Q", k)
            self.link.write(address, number + struct.pack("<Q", fnv(number + struct.pack("<Q", address))), 0, self.dirty)
            self.link.write(address + 4088, number, 0, self.dirty)
        self.registers[TICKS] = k
        self.link.signal(1, 0 if self.does("lose-tick") else 2 if self.does("double-tick") else 1)

    # ---- messages

    def serve(self, link, header, payload, fds):
        handlers = {VERSION: self.version, GET_INFO: self.info, REGION_INFO: self.region_info, IRQ_INFO: self.irq_info,
                    SET_IRQS: self.set_irqs, DMA_MAP: self.dma_map, REGION_READ: self.region_read,
                    REGION_WRITE: self.region_write, RESET: self.on_reset}
        try:
            handlers[header[1]](link, header, payload, fds)
        except (KeyError, struct.error, ValueError):
            link.answer(header, error=EINVAL)

    def version(self, link, header, payload, fds):
        asked = json.loads(payload[4:-1])["capabilities"]
        assert asked["twin_socket"]["supported"]
        link.twin, theirs = socket.socketpair()
        link.twin.settimeout(20)
        answer = {"capabilities": {"max_msg_fds": 8, "twin_socket": {"supported": True, "fd_index": 0}}}
        link.answer(header, payload[:4] + json.dumps(answer).encode() + b"\0", fds=[theirs.fileno()])
        theirs.close()

    def info(self, link, header, payload, fds):
        link.answer(header, struct.pack("=IIII", 16, 3, 9, 5))

    def region_info(self, link, header, payload, fds):
        argsz, _, index = struct.unpack_from("=III", payload)
        size, flags, caps = REGIONS.get(index, 0), 3 if index in REGIONS else 0, b""
        files = []
        if index == 2 and self.window_is_mappable:
            flags |= 4
            caps = struct.pack("=HHIIIQQ", 1, 1, 0, 1, 0, 0, WINDOW)
        if caps and argsz >= 32 + len(caps):
            flags, files = flags | 8, [self.window_fd]
        else:
            caps = b"" if argsz < 32 + len(caps) else caps
        needed = 32 + (32 if index == 2 and self.window_is_mappable else 0)
        link.answer(header, struct.pack("=IIIIQQ", needed, flags, index, 32 if files else 0, size, 0) + caps, fds=files)

    def irq_info(self, link, header, payload, fds):
        index = struct.unpack_from("=I", payload, 8)[0]
        link.answer(header, struct.pack("=IIII", 16, 1, index, 2 if index == 2 else 0))

    def set_irqs(self, link, header, payload, fds):
        _, flags, index, start, count = struct.unpack_from("=IIIII", payload)
        assert (flags, index, start, count, len(fds)) == (36, 2, 0, 2, 2)
        link.irqs = list(fds)
        link.answer(header)

    def dma_map(self, link, header, payload, fds):
        _, flags, offset, address, size = struct.unpack_from("=IIQQQ", payload)
        assert flags == 3
        link.maps.append((address, size, mmap.mmap(fds[0], size, offset=offset) if fds else None))
        for fd in fds:
            os.close(fd)
        link.answer(header)

    def region_read(self, link, header, payload, fds):
        offset, region, count = struct.unpack_from("=QII", payload)
        if region == 2:
            data = self.window[offset:offset + count]
        elif region == 7:
            data = bytes(self.config[offset:offset + count])
        elif offset == SCRATCH:
            data = self.scratch[:count]
        else:
            data = struct.pack("<Q", self.registers[offset])[:count]
        if len(data) != count:
            raise ValueError
        link.answer(header, payload[:16] + data)

    def region_write(self, link, header, payload, fds):
        offset, region, count = struct.unpack_from("=QII", payload)
        data = payload[16:16 + count]
        if region == 2:
            self.window[offset:offset + count] = data
        elif region == 7:
            self.config[offset:offset + count] = data
        elif offset == SCRATCH:
            assert count == 64
            if self.does("tear-scratch"):
                data = data[:32] + self.scratch[32:]
            if not self.does("lose-scratch"):
                self.scratch = data
        elif not (offset == DOORBELL and "lose-doorbell" in self.wrong):
            self.registers[offset] = struct.unpack("<Q", data)[0]
            if offset == TICK_USEC:
                self.next_tick = None
        link.answer(header, payload[:16])

    def on_reset(self, link, header, payload, fds):
        self.reset()
        link.answer(header)
