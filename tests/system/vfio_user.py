# SPDX-License-Identifier: LGPL-2.1-or-later
"""A raw vfio-user client in a few lines, written from the protocol: for the tests of the emulated device server, and for
the benchmarks' imitations of those who walk their devices one by one."""

import array
import errno
import json
import os
import select
import socket
import struct

LIMIT = 10.0  # seconds for anything to happen

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, REGION_INFO, IRQ_INFO, SET_IRQS = 1, 2, 3, 4, 5, 7, 8
REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET = 9, 10, 11, 12, 13
FEATURE, DATA_READ, DATA_WRITE = 16, 17, 18
NO_REPLY, ERROR_BIT = 1 << 4, 1 << 5
GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18
MIGRATION, STATE = 1, 2
ERROR, STOP, RUNNING, STOP_COPY, RESUMING, P2P, PRE_COPY, PRE_COPY_P2P = range(8)
NAMES = ("error", "stop", "running", "stop-copy", "resuming", "running-p2p", "pre-copy", "pre-copy-p2p")
MIB = 1 << 20


class Refused(Exception):
    """An error reply."""

    def __init__(self, number):
        super().__init__(errno.errorcode.get(number, number))
        self.errno = number


class Message:
    def __init__(self, header, payload, fds):
        self.id, self.command, self.size, self.flags, self.error = struct.unpack("=HHIII", header)
        self.payload, self.fds = payload, fds


class Wire:
    """One connection: whole messages, in both directions."""

    def __init__(self, path=None, fd=None):
        self.socket = socket.socket(socket.AF_UNIX) if path else socket.socket(fileno=fd)
        self.socket.settimeout(LIMIT)
        if path:
            self.socket.connect(path)
        self.last_id = 0
        self.fds = []

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.socket.close()

    @staticmethod
    def message(command, payload=b"", ident=1, flags=0, size=None):
        return struct.pack("=HHIII", ident, command, 16 + len(payload) if size is None else size, flags, 0) + payload

    def send(self, command, payload=b"", flags=0, fds=()):
        self.last_id = (self.last_id + 1) & 0xffff
        self.send_raw(self.message(command, payload, self.last_id, flags), fds)

    def answer(self, command, payload=b"", error=0, fds=()):
        """The reply to a message that came."""
        self.send_raw(struct.pack("=HHIII", command.id, command.command, 16 + len(payload),
                                  1 | (ERROR_BIT if error else 0), error) + payload, fds)

    def send_raw(self, data, fds=()):
        if fds:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            data = data[self.socket.sendmsg([data], rights):]
        if data:
            self.socket.sendall(data)

    def bytes(self, n):
        """Exactly n bytes; what the other end closes early is an EOFError."""
        data = bytearray()
        while len(data) < n:
            part, ancillary, _, _ = self.socket.recvmsg(n - len(data), 256)
            for _, kind, content in ancillary:
                if kind == socket.SCM_RIGHTS:
                    self.fds += array.array("i", content[:len(content) // 4 * 4])
            if not part:
                raise EOFError(f"{len(data)} of {n} bytes")
            data += part
        return bytes(data)

    def receive(self):
        header = self.bytes(16)
        size = struct.unpack_from("=I", header, 4)[0]
        payload = self.bytes(size - 16)
        fds, self.fds = self.fds, []
        return Message(header, payload, fds)

    def call(self, command, payload=b"", flags=0, fds=()):
        self.send(command, payload, flags, fds)
        reply = self.receive()
        assert (reply.id, reply.command, reply.flags & 0xf) == (self.last_id, command, 1), vars(reply)
        if reply.flags & ERROR_BIT:
            assert reply.size == 16
            raise Refused(reply.error)
        assert reply.error == 0
        return reply

    def is_silent(self, seconds=0.15):
        return not select.select([self.socket], [], [], seconds)[0]

    def is_closed(self):
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


class Client(Wire):
    """A client that has negotiated, and speaks of states and data."""

    def __init__(self, path, capabilities=None, negotiate=True):
        super().__init__(path)
        self.twin = None
        if negotiate:
            self.version(capabilities)

    def close(self):
        super().close()
        if self.twin:
            self.twin.close()

    def version(self, capabilities=None, major=0, minor=2, raw=None):
        text = b"" if capabilities is None else json.dumps({"capabilities": capabilities}).encode() + b"\0"
        reply = self.call(VERSION, struct.pack("=HH", major, minor) + (text if raw is None else raw))
        if reply.fds:
            self.twin = Wire(fd=reply.fds[0])
        self.said = struct.unpack_from("=HH", reply.payload)
        assert reply.payload[-1:] == b"\0"
        return json.loads(reply.payload[4:-1])["capabilities"]

    def feature(self, number, operation, data=b"", argsz=16):
        reply = self.call(FEATURE, struct.pack("=II", argsz, number | operation) + data).payload
        return struct.unpack_from("=II", reply), reply[8:]

    @property
    def state(self):
        return struct.unpack("=Ii", self.feature(STATE, GET)[1])[0]

    def set(self, *states):
        for state in states:
            self.feature(STATE, SET, struct.pack("=Ii", state, -1))

    def read(self, size, argsz=None):
        reply = self.call(DATA_READ, struct.pack("=II", 8 + size if argsz is None else argsz, size)).payload
        argsz, n = struct.unpack_from("=II", reply)
        assert argsz == 8 + n and len(reply) == 8 + size and not any(reply[8 + n:]), "padding"
        return reply[8:8 + n]

    def read_all(self, chunk=MIB):
        parts = []
        while part := self.read(chunk):
            parts.append(part)
        return b"".join(parts)

    def write(self, data, argsz=None):
        size = 8 + len(data) if argsz is None else argsz
        assert self.call(DATA_WRITE, struct.pack("=II", size, len(data)) + data).payload == b""

    def write_all(self, data, chunk=MIB):
        for at in range(0, len(data), chunk):
            self.write(data[at:at + chunk])

    def save(self, chunk=MIB):
        self.set(STOP_COPY)
        data = self.read_all(chunk)
        self.set(STOP)
        return data

    def load(self, data, chunk=MIB):
        self.set(RESUMING)
        self.write_all(data, chunk)
        self.set(STOP)

    def reset(self):
        assert self.call(RESET).payload == b""

    def info(self):
        return struct.unpack("=IIII", self.call(GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)).payload)

    def peek(self, offset, count, region=0):
        request = struct.pack("=QII", offset, region, count)
        reply = self.call(REGION_READ, request).payload
        assert reply[:16] == request
        return reply[16:]

    def poke(self, offset, data, region=0):
        request = struct.pack("=QII", offset, region, len(data))
        assert self.call(REGION_WRITE, request + data).payload == request
