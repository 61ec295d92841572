# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vfio-user device server in Python, for the tests of the broker: it keeps the protocol as libvfio-user does, says what it
has seen, and goes wrong where it is told to. One device, one client at a time, commands in order, on a thread of its own.

With `strict` it refuses in STOP and STOP_COPY what libvfio-user refuses there; with `twin` its own commands go over a socket of
their own. Without one it watches that a client keeps to one command at a time and none while it waits itself."""

import errno
import json
import mmap
import os
import queue
import select
import socket
import struct
import threading

from vfio_user import (DATA_READ, DATA_WRITE, DMA_MAP, DMA_READ, DMA_UNMAP, DMA_WRITE, ERROR_BIT, FEATURE, GET_INFO,
                       IRQ_INFO, LIMIT, MIGRATION, NO_REPLY, PROBE, REGION_INFO, REGION_READ, REGION_WRITE, RESET, RESUMING,
                       RUNNING, SET, SET_IRQS, STATE, STOP, STOP_COPY, VERSION, Refused, Wire)

LOGGING = START, STOP_LOG, REPORT = 6, 7, 8
REGION_SIZE = 65536
TRIGGER, DATA_NONE, DATA_EVENTFD = 32, 1, 4


class Hang(Exception):
    """This command gets no answer."""


class Seen:
    def __init__(self, message, state):
        self.command, self.payload, self.flags, self.n_fds = message.command, message.payload, message.flags, len(message.fds)
        self.state = state

    def __repr__(self):
        return f"<{self.command} {self.payload[:16].hex()} in {self.state}>"


class Server:
    """`state` and `memory` (region 0) live as long as the object; maps, interrupts and connection as long as a client."""

    def __init__(self, path, twin=True, strict=False, logging=False, capabilities=None, keep_maps=False):
        self.path, self.twin_wanted, self.strict, self.logging = path, twin, strict, logging
        self.capabilities = {"max_msg_fds": 8, "max_data_xfer_size": 1 << 20, **(capabilities or {})}
        self.keep_maps = keep_maps
        self.state, self.memory = RUNNING, bytearray(REGION_SIZE)
        self.maps, self.irqs, self.region_fd = {}, {}, None
        self.dirty = set()  # addresses of pages that it has written, for its log
        self.log, self.violations, self.before, self.instead = [], [], {}, {}
        self.client = self.twin = None
        self.clients = 0
        self.lock = threading.Condition()
        self.answers = queue.Queue()
        self.listen()

    # ---- life

    def listen(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.stopping = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            if self.stopping:
                s.close()
                return
            self.client = Wire(fd=s.detach())
            self.client.socket.settimeout(None)
            self.clients += 1
            try:
                self.serve()
            except (EOFError, OSError):
                pass
            self.disconnected()

    def disconnected(self):
        if not self.keep_maps:
            self.unmap_all()
        self.disable(None)
        self.client.close()
        if self.twin:
            self.twin.close()
        self.client = self.twin = None

    def die(self):
        """As a server that is killed: its socket's file stays. `restart` is another life of it."""
        self.stopping = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        client = self.client
        if client:
            try:
                client.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()

    def restart(self):
        os.unlink(self.path)
        self.listen()

    def close(self):
        self.die()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def drop_client(self):
        """The connection breaks; the server lives."""
        self.client.socket.shutdown(socket.SHUT_RDWR)

    # ---- what it has

    def unmap_all(self):
        for _, _, fd in self.maps.values():
            if fd is not None:
                os.close(fd)
        self.maps = {}

    def disable(self, index):
        for key in [k for k in self.irqs if index is None or k[0] == index]:
            os.close(self.irqs.pop(key))

    def seen(self, *commands):
        return [s for s in list(self.log) if not commands or s.command in commands]

    def interrupt(self, index, vector):
        os.write(self.irqs[index, vector], struct.pack("=Q", 1))

    # ---- commands of its own

    def ask(self, command, payload):
        """A command to the client; called by the test. Returns the payload of the reply."""
        wire = self.twin or self.client
        if wire is self.client:
            with self.lock:
                self.asking = True
        wire.send(command, payload)
        try:
            if self.twin:
                self.twin.socket.settimeout(LIMIT)
                reply = self.twin.receive()
            else:
                reply = self.answers.get(timeout=LIMIT)
        finally:
            self.asking = False
        assert (reply.id, reply.command) == (wire.last_id, command), vars(reply)
        if reply.flags & ERROR_BIT:
            assert reply.size == 16
            raise Refused(reply.error)
        return reply.payload

    def dma_read(self, address, count):
        payload = self.ask(DMA_READ, struct.pack("=QQ", address, count))
        assert payload[:16] == struct.pack("=QQ", address, count) and len(payload) == 16 + count
        return payload[16:]

    def dma_write(self, address, data):
        """libvfio-user wants all sixteen bytes."""
        assert self.ask(DMA_WRITE, struct.pack("=QQ", address, len(data)) + data) == struct.pack("=QQ", address, len(data))

    def mapped(self, address, count):
        """What is at that address, through the file that was mapped."""
        for (start, size), (_, offset, fd) in self.maps.items():
            if start <= address and address + count <= start + size:
                with mmap.mmap(fd, offset + size) as m:
                    at = offset + address - start
                    return m[at:at + count]
        raise KeyError(hex(address))

    # ---- commands of the client

    asking = False

    def serve(self):
        while True:
            message = self.client.receive()
            if message.flags & 0xf == 1:
                self.asking = False
                self.answers.put(message)
                continue
            if not self.twin and self.asking:
                self.violations.append(f"command {message.command} while we wait for an answer")
            self.log.append(Seen(message, self.state))
            payload, fds, error = b"", (), 0
            try:
                before = self.before.get(message.command)
                if before:
                    before(self, message)
                payload, fds = self.instead.get(message.command, self.obey)(message)
            except Refused as e:
                error = e.errno
            except Hang:
                continue
            if not self.twin and message.command != VERSION and select.select([self.client.socket], [], [], 0.002)[0]:
                head = self.client.socket.recv(16, socket.MSG_PEEK)
                if len(head) == 16 and head[8] & 0xf == 0:
                    self.violations.append(f"command {head[2]} before the answer to {message.command}")
            if message.flags & NO_REPLY:
                continue
            self.client.answer(message, payload, error, fds)
            for fd in fds:
                if fd != self.region_fd:
                    os.close(fd)

    def refuse(self, condition, number=errno.EINVAL):
        if condition:
            raise Refused(number)

    def obey(self, m):
        stands = self.state in (STOP, STOP_COPY)
        if m.command == VERSION:
            return self.version(m)
        if self.strict and stands and m.command in (DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, IRQ_INFO, SET_IRQS, RESET):
            raise Refused(errno.EINVAL)
        if m.command in (REGION_READ, REGION_WRITE):
            return self.access(m)
        return {DMA_MAP: self.map, DMA_UNMAP: self.unmap, GET_INFO: self.info, REGION_INFO: self.region, IRQ_INFO: self.irq,
                SET_IRQS: self.set_irqs, RESET: self.reset, FEATURE: self.feature, DATA_READ: self.data_read,
                DATA_WRITE: self.data_write}.get(m.command, self.unknown)(m)

    def unknown(self, m):
        raise Refused(errno.EINVAL)

    def version(self, m):
        major, minor = struct.unpack_from("=HH", m.payload)
        asked = json.loads(m.payload[4:-1])["capabilities"] if len(m.payload) > 4 else {}
        self.asked = asked
        answer, fds = dict(self.capabilities), ()
        if self.twin_wanted and asked.get("twin_socket", {}).get("supported"):
            ours, theirs = socket.socketpair(socket.AF_UNIX)
            self.twin = Wire(fd=ours.detach())
            answer["twin_socket"] = {"supported": True, "fd_index": 0}
            fds = (theirs.detach(),)
        return struct.pack("=HH", major, min(minor, 1)) + json.dumps({"capabilities": answer}).encode() + b"\0", fds

    def map(self, m):
        _, flags, offset, address, size = struct.unpack("=IIQQQ", m.payload)
        self.refuse(any(a < address + size and address < a + s and (a, s) != (address, size) for a, s in self.maps))
        old = self.maps.get((address, size))
        if old and old[2] is not None:
            os.close(old[2])
        self.maps[address, size] = flags, offset, m.fds[0] if m.fds else None
        return b"", ()

    def unmap(self, m):
        _, flags, address, size = struct.unpack_from("=IIQQ", m.payload)
        if flags & 2:
            self.unmap_all()
            return m.payload[:24], ()
        gone = [(a, s) for a, s in self.maps if address <= a and a + s <= address + size]  # as a kernel: all in that range
        self.refuse(not gone, errno.ENOENT)
        for key in gone:
            fd = self.maps.pop(key)[2]
            if fd is not None:
                os.close(fd)
        return m.payload[:24], ()

    def info(self, m):
        return struct.pack("=IIII", 16, 3, 9, 5), ()

    def region(self, m):
        argsz, _, index = struct.unpack_from("=III", m.payload)
        if index == 1 and argsz >= 32 + 32:
            if self.region_fd is None:
                self.region_fd = os.memfd_create("region")
                os.ftruncate(self.region_fd, 4096)
            caps = struct.pack("=HHIIIQQ", 1, 1, 0, 1, 0, 0, 4096)
            return struct.pack("=IIIIQQ", 64, 15, 1, 32, 4096, 0) + caps, (self.region_fd,)
        return struct.pack("=IIIIQQ", 64 if index == 1 else 32, 3, index, 0, REGION_SIZE if index == 0 else 4096, 0), ()

    def irq(self, m):
        index = struct.unpack_from("=III", m.payload)[2]
        return struct.pack("=IIII", 16, 1, index, 2048), ()

    def set_irqs(self, m):
        _, flags, index, start, count = struct.unpack_from("=IIIII", m.payload)
        if flags == DATA_NONE | TRIGGER and count == 0:
            self.disable(index)
        if flags & DATA_EVENTFD:
            self.refuse(len(m.fds) > self.capabilities["max_msg_fds"])
            for v in range(start, start + count):
                if (index, v) in self.irqs:
                    os.close(self.irqs.pop((index, v)))
            self.irqs.update({(index, start + i): fd for i, fd in enumerate(m.fds)})
        return b"", ()

    def access(self, m):
        offset, region, count = struct.unpack_from("=QII", m.payload)
        self.refuse(self.state == STOP_COPY or region != 0 or offset + count > REGION_SIZE)
        if m.command == REGION_READ:
            return m.payload[:16] + bytes(self.memory[offset:offset + count]), ()
        self.memory[offset:offset + count] = m.payload[16:]
        return m.payload[:16], ()

    def reset(self, m):
        self.state = RUNNING
        return b"", ()

    def feature(self, m):
        argsz, flags = struct.unpack_from("=II", m.payload)
        number = flags & 0xffff
        self.refuse(number not in (MIGRATION, STATE) and not (self.logging and number in LOGGING))
        if flags & PROBE:
            return m.payload[:8], ()
        if number == MIGRATION:
            return struct.pack("=IIQ", 16, flags, 1), ()
        if number == STATE and flags & SET:
            self.state, self.at = struct.unpack_from("=I", m.payload, 8)[0], 0
            return m.payload, ()
        if number == STATE:
            return struct.pack("=IIIi", 16, flags, self.state, 0), ()
        return (self.report(m) if number == REPORT else m.payload), ()

    def report(self, m):
        """What it has written there since it was asked last. A region that it does not have it knows nothing of."""
        address, size, page_size = struct.unpack_from("=QQQ", m.payload, 8)
        self.refuse((address, size) not in self.maps)
        pages = size // page_size
        bits = sum(1 << i for i in range(pages) if address + i * page_size in self.dirty)
        self.dirty -= set(range(address, address + size, page_size))
        return m.payload[:32] + bits.to_bytes((pages + 63) // 64 * 8, "little")

    def data_read(self, m):
        size = struct.unpack_from("=II", m.payload)[1]
        self.refuse(self.state != STOP_COPY)
        data = bytes(self.memory[self.at:self.at + size])
        self.at += len(data)
        return struct.pack("=II", 8 + len(data), len(data)) + data + bytes(size - len(data)), ()

    def data_write(self, m):
        size = struct.unpack_from("=II", m.payload)[1]
        self.refuse(self.state != RESUMING)
        self.memory[self.at:self.at + size] = m.payload[8:8 + size]
        self.at += size
        return b"", ()
