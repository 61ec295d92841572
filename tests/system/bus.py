# SPDX-License-Identifier: LGPL-2.1-or-later
"""A D-Bus connection, written from the specification: for tests that must see every signal, say what no tool would say, be
another user, or be a service that does what no service would. Little-endian. Nothing here waits without a limit."""

import contextlib
import os
import socket
import struct
import threading
import time

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
NO_REPLY, NO_START, INTERACTIVE = 1, 2, 4
BASIC = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d",
         "h": "I"}
ALIGN = {"y": 1, "n": 2, "q": 2, "b": 4, "i": 4, "u": 4, "s": 4, "o": 4, "a": 4, "g": 1, "v": 1, "x": 8, "t": 8, "d": 8, "h": 4,
         "(": 8, "{": 8}
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SENDER, SIGNATURE, UNIX_FDS = range(1, 10)
FIELDS = {PATH: "o", INTERFACE: "s", MEMBER: "s", ERROR_NAME: "s", REPLY_SERIAL: "u", DESTINATION: "s", SENDER: "s",
          SIGNATURE: "g", UNIX_FDS: "u"}


class BusError(Exception):
    def __init__(self, name, text=""):
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text


def split(signature):
    """Into complete types."""
    types, i = [], 0
    while i < len(signature):
        start = i
        while signature[i] == "a":
            i += 1
        depth = 0
        while True:
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(signature[i], 0)
            i += 1
            if depth == 0:
                break
        types.append(signature[start:i])
    return types


class Writer:
    def __init__(self):
        self.data = bytearray()

    def align(self, n):
        self.data += b"\0" * (-len(self.data) % n)

    def write(self, kind, value):
        self.align(ALIGN[kind[0]])
        if kind in BASIC:
            self.data += struct.pack("<" + BASIC[kind], value)
        elif kind in ("s", "o"):
            raw = value if isinstance(value, bytes) else value.encode()
            self.data += struct.pack("<I", len(raw)) + raw + b"\0"
        elif kind == "g":
            self.data += bytes([len(value)]) + value.encode() + b"\0"
        elif kind == "v":
            self.write("g", value[0])
            self.write(*value)
        elif kind[0] == "a":
            self.write_array(kind[1:], value)
        else:
            for k, v in zip(split(kind[1:-1]), value):
                self.write(k, v)

    def write_array(self, kind, values):
        at = len(self.data)
        self.data += b"\0\0\0\0"
        self.align(ALIGN[kind[0]])
        start = len(self.data)
        for value in (values.items() if kind[0] == "{" else values):
            self.write(kind, value)
        struct.pack_into("<I", self.data, at, len(self.data) - start)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        value = struct.unpack_from("<" + form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return value

    def read(self, kind):
        self.at += -self.at % ALIGN[kind[0]]
        if kind in BASIC:
            value = self.take(BASIC[kind])
            return bool(value) if kind == "b" else value
        if kind in ("s", "o", "g"):
            n = self.take("B" if kind == "g" else "I")
            self.at += n + 1
            return self.data[self.at - n - 1:self.at - 1].decode()
        if kind == "v":
            return self.read(self.read("g"))
        if kind[0] == "a":
            n = self.take("I")
            self.at += -self.at % ALIGN[kind[1]]
            end, values = self.at + n, []
            while self.at < end:
                values.append(self.read(kind[1:]))
            return dict(values) if kind[1] == "{" else values
        return tuple(self.read(k) for k in split(kind[1:-1]))


class Message:
    def __init__(self, data):
        reader = Reader(data)
        assert reader.take("B") == ord("l"), "not little-endian"
        self.type, self.flags = reader.take("B"), reader.take("B")
        reader.at, self.serial = 8, struct.unpack_from("<I", data, 8)[0]
        reader.at = 12
        self.fields = dict(reader.read("a(yv)"))
        reader.at += -reader.at % 8
        self.files = []  # descriptors; an argument of type h is the number of one
        self.args = [reader.read(k) for k in split(self.fields.get(SIGNATURE, ""))]

    path, interface, member, sender = (property(lambda self, f=f: self.fields.get(f, ""))
                                       for f in (PATH, INTERFACE, MEMBER, SENDER))


class Bus:
    """One connection. `uid`: whose. `signals` are those that came, in order."""

    def __init__(self, address, uid=None):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.serial, self.signals, self.replies, self.buffer, self.handler = 0, [], {}, b"", None
        self.files = []  # that came, and belong to messages of which not all is here
        try:
            if uid is not None:
                os.seteuid(uid)
            self.s.connect(address[len("unix:path="):])
        finally:
            if uid is not None:
                os.seteuid(os.getuid())
        self.s.sendall(b"\0AUTH EXTERNAL " + str(os.getuid() if uid is None else uid).encode().hex().encode() + b"\r\n")
        answer = self.s.recv(512)
        assert answer.startswith(b"OK "), answer
        self.s.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        answer = self.s.recv(512)
        assert answer.startswith(b"AGREE_UNIX_FD"), answer
        self.s.sendall(b"BEGIN\r\n")
        self.name = self.bus("Hello")[0]

    def close(self):
        self.s.close()

    __enter__ = lambda self: self

    def __exit__(self, *exc):
        self.close()

    def send(self, kind, fields, signature="", args=(), flags=0, files=()):
        body, head = Writer(), Writer()
        for k, v in zip(split(signature), args):
            body.write(k, v)
        if signature:
            fields = {**fields, SIGNATURE: signature}
        if files:
            fields = {**fields, UNIX_FDS: len(files)}
        self.serial += 1
        head.data += struct.pack("<cBBBII", b"l", kind, flags, 1, len(body.data), self.serial)
        head.write("a(yv)", [(f, (FIELDS[f], v)) for f, v in fields.items()])
        head.align(8)
        data = bytes(head.data + body.data)
        sent = socket.send_fds(self.s, [data], files) if files else 0
        self.s.sendall(data[sent:])
        return self.serial

    def next(self, seconds):
        """One whole message, or None."""
        end = time.monotonic() + seconds
        while True:
            if len(self.buffer) >= 16:
                n_body, n_fields = struct.unpack_from("<I", self.buffer, 4)[0], struct.unpack_from("<I", self.buffer, 12)[0]
                size = 16 + n_fields + -n_fields % 8 + n_body
                if len(self.buffer) >= size:
                    data, self.buffer = self.buffer[:size], self.buffer[size:]
                    m = Message(data)
                    n = m.fields.get(UNIX_FDS, 0)
                    m.files, self.files = self.files[:n], self.files[n:]
                    return m
            self.s.settimeout(max(0.001, end - time.monotonic()))
            try:
                part, files, _, _ = socket.recv_fds(self.s, 65536, 64)
                self.files += files
            except socket.timeout:
                if time.monotonic() >= end:
                    return None
                continue
            if not part:
                raise EOFError("the bus has gone")
            self.buffer += part

    def process(self, seconds):
        """Takes one message in. False: none came."""
        m = self.next(seconds)
        if m is None:
            return False
        if m.type == SIGNAL:
            self.signals.append(m)
        elif m.type in (RETURN, ERROR):
            self.replies[m.fields[REPLY_SERIAL]] = m
        elif m.type == CALL and self.handler:
            self.handler(m)
        return True

    def start(self, destination, path, interface, member, signature="", *args, flags=0):
        return self.send(CALL, {PATH: path, INTERFACE: interface, MEMBER: member, DESTINATION: destination}, signature, args,
                         flags)

    def signal(self, path, interface, member, signature="", *args, destination=""):
        fields = {PATH: path, INTERFACE: interface, MEMBER: member}
        self.send(SIGNAL, {**fields, DESTINATION: destination} if destination else fields, signature, args)

    def finish(self, serial, seconds=20):
        end = time.monotonic() + seconds
        while serial not in self.replies:
            if time.monotonic() > end:
                raise AssertionError(f"no reply within {seconds} s")
            self.process(max(0.01, end - time.monotonic()))
        m = self.replies.pop(serial)
        if m.type == ERROR:
            raise BusError(m.fields[ERROR_NAME], m.args[0] if m.args else "")
        return m.args

    def call(self, *args, flags=0, seconds=20):
        """The reply's arguments, as a list. An error raises BusError."""
        return self.finish(self.start(*args, flags=flags), seconds)

    def bus(self, member, signature="", *args):
        return self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member, signature, *args)

    def match(self, rule):
        self.bus("AddMatch", "s", rule)

    def wait(self, what, condition, seconds=20):
        """Takes messages in until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {seconds} s")
            self.process(0.05)


class Polkit:
    """Stands in for polkit: says yes to the actions in `allowed`, and notes what it was asked: (action, subject, flags)."""

    def __init__(self, address, allowed=()):
        self.bus, self.allowed, self.asked, self.running = Bus(address), set(allowed), [], True
        self.bus.handler = self.on_call
        assert self.bus.bus("RequestName", "su", "org.freedesktop.PolicyKit1", 0) == [1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def on_call(self, m):
        (kind, subject), action, _, flags, _ = m.args
        self.asked.append((action, kind, subject["name"], flags))
        self.bus.send(RETURN, {REPLY_SERIAL: m.serial, DESTINATION: m.sender}, "(bba{ss})",
                      [(action in self.allowed, False, {})])

    def run(self):
        with contextlib.suppress(OSError, EOFError):
            while self.running:
                self.bus.process(0.05)

    def close(self):
        self.running = False
        self.thread.join(5)
        self.bus.close()
