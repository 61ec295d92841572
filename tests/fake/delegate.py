#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A VMM that implements org.migmgr1.Delegate, with a guest that counts in a small memory. For what a real one does not show on
demand: it fails, hangs, lies, is late or talks nonsense where it is told.

  --bus=ADDRESS --name=NAME --path=PATH --uuid=UUID --state=running|paused|none
  --serial=FILE          where the guest counts: "C count wrong-pages"
  --state-file=FILE      where its state is, for a test
  --vmm-uuid=UUID        says that its VM is that one
  --no-dirty             takes no dirty pages
  --fail=METHOD          answers Error.Failed and does nothing
  --busy=METHOD          answers Error.Busy and does nothing
  --hang=METHOD          does nothing and does not answer
  --mute=METHOD          does it and does not answer
  --lie=METHOD           answers well and does nothing
  --late=METHOD          does it, and answers LATE_SECONDS later
  --nonsense=METHOD      does it, and answers what has other types
  --die=METHOD           ends at once
  --leave=METHOD         leaves the bus; the process stays
  --memory=DeviceFile    tells of more ranges of memory than may be; with --lie of one that can't be
  --device-file=FILE     what it gives as a device's file; /dev/null if not told
where METHOD may be "GetAll", and METHOD@N only the N-th time.

Signals: SIGUSR1: the guest goes on by itself, with Resumed; SIGUSR2: leaves the bus, and comes back after LATE_SECONDS.
"""

import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import xml.etree.ElementTree

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tests", "system"))
from bus import (DESTINATION, ERROR, ERROR_NAME, INTERFACE, MEMBER, PATH, REPLY_SERIAL, RETURN, SIGNAL,  # noqa: E402
                 SIGNATURE, Bus)

DELEGATE = "org.migmgr1.Delegate"
TICK_SECONDS = 0.01
LATE_SECONDS = 1.0
PAGE, PAGES = 512, 64


def contract():
    """{method: (types in, types out)} of the document; of a property its type."""
    tree = xml.etree.ElementTree.parse(os.path.join(TOP, "docs", "dbus", DELEGATE + ".xml"))
    methods = {m.get("name"): tuple("".join(a.get("type") for a in m.findall("arg") if a.get("direction") == d)
                                    for d in ("in", "out")) for m in tree.iter("method")}
    return methods, {p.get("name"): p.get("type") for p in tree.iter("property")}


class Refusal(Exception):
    def __init__(self, name, text):
        super().__init__(text)
        self.name, self.text = name, text


def read_all(s, n):
    data = b""
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise OSError("the memory's connection is cut")
        data += part
    return data


class Delegate:
    def __init__(self, options, faults):
        self.options, self.faults, self.seen = options, faults, {}
        self.methods, self.properties = contract()
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.state, self.job = None, ""
        self.count, self.memory, self.dirty = 0, [bytes(PAGE)] * PAGES, set()
        self.serial = open(options["serial"], "a", buffering=1)
        self.ended = {}  # (job, method): what was answered
        self.connection, self.converged, self.failure, self.taken = None, False, None, 0
        with self.lock:
            self.set_state(options["state"])
        self.join()

    def join(self):
        self.bus = Bus(self.options["bus"])
        while self.bus.bus("RequestName", "su", self.options["name"], 4) != [1]:
            time.sleep(TICK_SECONDS)

    # The guest.

    def run_guest(self):
        while True:
            time.sleep(TICK_SECONDS)
            with self.lock:
                if self.state == "running":
                    self.tick()

    def tick(self):
        self.count += 1
        page = self.count % PAGES
        self.memory[page] = struct.pack("<Q", self.count) * (PAGE // 8)
        self.dirty.add(page)
        wrong = sum(self.memory[p] != struct.pack("<Q", self.last(p)) * (PAGE // 8) for p in range(PAGES))
        self.serial.write(f"C {self.count} {wrong}\n")

    def last(self, page):
        """The last count that was written to the page."""
        last = self.count - (self.count - page) % PAGES
        return max(last, 0)

    # The memory.

    def send_pages(self, connection, pages):
        for p in sorted(pages):
            with self.lock:
                data = self.memory[p]
            connection.sendall(b"P" + struct.pack("<I", p) + data)

    def fail(self, connection, error):
        """What becomes of an older connection is of no interest."""
        with self.lock:
            if self.connection is connection:
                self.failure = str(error)
                self.changed.notify_all()

    def save(self, connection):
        """Everything once, then what is written, until Pause; the rest when it is told to seal."""
        try:
            self.send_pages(connection, range(PAGES))
            with self.lock:
                self.converged = True
                self.changed.notify_all()
            while True:
                with self.lock:
                    self.changed.wait(TICK_SECONDS)
                    if self.state != "running" or self.connection is not connection:
                        self.refreshing = False
                        self.changed.notify_all()
                        return  # Seal sends the rest
                    pages, self.dirty = self.dirty, set()
                self.send_pages(connection, pages)
                self.signal("Progress", "stt", self.job, PAGES * PAGE, PAGES * PAGE)
        except OSError as e:
            self.refreshing = False
            self.fail(connection, e)

    def load(self, connection):
        try:
            while True:
                kind = read_all(connection, 1)
                if kind == b"P":
                    page, = struct.unpack("<I", read_all(connection, 4))
                    data = read_all(connection, PAGE)
                    with self.lock:
                        self.memory[page] = data
                    continue
                count, = struct.unpack("<Q", read_all(connection, 8))
                connection.sendall(b"!")
                with self.lock:
                    self.count = count
                    self.set_state("complete")
                return
        except OSError as e:
            self.fail(connection, e)

    def set_state(self, state):
        self.state = state
        self.changed.notify_all()
        path = self.options["state-file"]
        with open(path + ".new", "w") as f:
            f.write(state)
        os.rename(path + ".new", path)

    def wait_until(self, condition):
        while not condition():
            if self.failure:
                raise Refusal("Failed", self.failure)
            self.changed.wait(1)

    def take_connection(self, m):
        self.connection = socket.socket(fileno=m.files[m.args[1]])
        self.connection.setblocking(True)
        self.failure, self.converged, self.refreshing = None, False, True

    def drop_connection(self):
        if self.connection:
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.connection.close()
        self.connection = self.failure = None

    # The methods. Each is called with the lock held.

    def need(self, method, *states):
        if self.state not in states:
            raise Refusal("State", f"{method} is not possible in state {self.state}")

    def device_file(self, kind):
        """Of `--device-file`, whatever that is. kind: memory: more ranges than may be; lie: ranges that can't be."""
        fd = os.open(self.options.get("device-file", "/dev/null"), os.O_RDWR)
        memory = {"memory": [(i << 12, 4096) for i in range(33)], "lie": [(0xfffffffffffff000, 8192)]}
        return "ha(tt)", [fd, memory.get(kind, [])]

    def do_Prepare(self, m):
        job, side, options = m.args
        print("Prepare", side, json.dumps(options), flush=True)
        if self.job != job and self.state in ("paused", "sealed", "incoming", "complete"):
            raise Refusal("Busy", f"job {self.job} has not ended")
        self.need("Prepare", "running" if side == "source" else "none")
        self.job = job
        self.dirty = set(range(PAGES))
        if side == "destination":
            self.set_state("incoming")

    def do_Save(self, m):
        self.need("Save", "running")
        self.take_connection(m)
        threading.Thread(target=self.save, args=(self.connection,), daemon=True).start()
        self.wait_until(lambda: self.converged)

    def do_Load(self, m):
        self.need("Load", "incoming")
        self.take_connection(m)
        threading.Thread(target=self.load, args=(self.connection,), daemon=True).start()
        self.wait_until(lambda: self.state == "complete")

    def do_Pause(self, m):
        self.need("Pause", "running")
        self.set_state("paused")
        return "t", [time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000]

    def do_TakeDirtyPages(self, m):
        self.need("TakeDirtyPages", "paused")
        self.taken += m.args[3]

    def do_Seal(self, m):
        self.need("Seal", "paused")
        if not self.connection:
            raise Refusal("State", "nothing was saved")
        self.wait_until(lambda: not self.refreshing)
        pages, self.dirty, count, connection = self.dirty, set(), self.count, self.connection
        self.lock.release()  # it may be told to resume meanwhile
        try:
            self.send_pages(connection, pages)
            connection.sendall(b"E" + struct.pack("<Q", count))
            read_all(connection, 1)
        except OSError as e:
            raise Refusal("Failed", str(e))
        finally:
            self.lock.acquire()
        if self.state == "paused":
            self.set_state("sealed")

    def do_Resume(self, m):
        self.need("Resume", "running", "paused", "sealed")
        self.drop_connection()
        self.set_state("running")

    def do_Start(self, m):
        self.need("Start", "complete")
        self.drop_connection()
        self.set_state("running")

    def do_Discard(self, m):
        self.drop_connection()
        self.count, self.memory = 0, [bytes(PAGE)] * PAGES
        self.set_state("none")

    # The bus.

    def on_call(self, m):
        threading.Thread(target=self.answer, args=(m,), daemon=True).start()

    def fault(self, method):
        with self.lock:
            n = self.seen[method] = self.seen.get(method, 0) + 1
        return next((kind for kind, what, number in self.faults if what == method and number in (0, n)), None)

    def reply(self, m, signature="", args=()):
        files = []
        if signature.startswith("h"):  # an index
            files, args = [args[0]], [0, *args[1:]]
        with self.lock:
            self.bus.send(RETURN, {REPLY_SERIAL: m.serial, DESTINATION: m.sender}, signature, args, files=files)
        for fd in files:
            os.close(fd)

    def refuse(self, m, name, text):
        with self.lock:
            self.bus.send(ERROR, {REPLY_SERIAL: m.serial, DESTINATION: m.sender,
                                  ERROR_NAME: name if "." in name else f"{DELEGATE}.Error.{name}"}, "s", [text])

    def ask(self, m):
        if m.member == "GetState":
            with self.lock:
                return "ss", [self.state, self.job]
        properties = {"Version": ("u", 1),
                      "Uuid": ("s", self.options.get("vmm-uuid", self.options["uuid"])),
                      "Vmm": ("s", "fake 1.0"), "TakesDirtyPages": ("b", "no-dirty" not in self.options),
                      "VIommu": ("b", False), "IsolatedDevices": ("as", [])}
        assert {k: v[0] for k, v in properties.items()} == self.properties, self.properties
        return "a{sv}", [{"Later": ("as", ["of", "no", "interest"]), **properties}]

    def act(self, m):
        """Idempotent by job and method; another call of the same waits for the same end."""
        with self.lock:
            key = (m.args[0], m.member)
            if m.member not in ("Prepare", "Discard", "Resume") and m.args[0] != self.job:
                raise Refusal("Job", f"job {m.args[0]} is not prepared")
            if m.member in ("Discard", "Resume") and self.job != m.args[0]:
                raise Refusal("Job", f"job {m.args[0]} is not prepared")
            while self.ended.get(key) == "runs":
                self.changed.wait(1)
            if m.member == "TakeDirtyPages" or key not in self.ended:
                self.ended[key] = "runs"
                try:
                    if m.member == "Resume":
                        self.ended = {key: "runs"}  # it may be asked for the same again
                    self.ended[key] = getattr(self, "do_" + m.member)(m) or ("", [])
                except Refusal:
                    del self.ended[key]
                    raise
                finally:
                    self.changed.notify_all()
            return self.ended[key]

    def answer(self, m):
        if m.path != self.options["path"]:
            self.refuse(m, "org.freedesktop.DBus.Error.UnknownObject", "there is no such object")
            return
        if m.member != "GetAll" and m.fields.get(SIGNATURE, "") != self.methods[m.member][0]:
            self.refuse(m, "org.freedesktop.DBus.Error.InvalidArgs", f"{m.member} has not these arguments")
            return
        kind = self.fault(m.member)
        try:
            if kind in ("fail", "busy"):
                raise Refusal(kind.capitalize() if kind == "busy" else "Failed", f"the fake refuses {m.member}\n\x1b[1m")
            if kind == "hang":
                return
            if kind == "die":
                os._exit(1)
            if kind == "leave":
                self.bus.s.shutdown(socket.SHUT_RDWR)
                return
            answer = ("t", [time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000]) if m.member == "Pause" else ("", [])
            if m.member in ("GetState", "GetAll"):
                answer = self.ask(m)
            elif m.member == "DeviceFile":
                answer = self.device_file(kind)
            elif kind != "lie":
                answer = self.act(m)
            assert m.member == "GetAll" or answer[0] == self.methods[m.member][1], m.member
            if kind == "lie" and m.member == "GetState":
                answer = "ss", ["flying", self.job]
            if kind == "lie" and m.member == "GetAll":
                answer[1][0]["Version"] = ("u", 2)
            if kind == "late":
                time.sleep(LATE_SECONDS)
            if kind == "nonsense":
                answer = "ax(ys)", [[-1, 2], (3, "x" * 100000)]
            if kind != "mute":
                self.reply(m, *answer)
        except Refusal as e:
            self.refuse(m, e.name, e.text)
        except OSError:
            pass

    def signal(self, member, signature, *args):
        with self.lock:
            self.bus.send(SIGNAL, {PATH: self.options["path"], INTERFACE: DELEGATE, MEMBER: member}, signature, args)

    def on_usr1(self, *_):
        def go_on():
            with self.lock:
                if self.state in ("paused", "sealed"):
                    self.set_state("running")
            self.signal("Resumed", "s", self.job)
        threading.Thread(target=go_on).start()

    def on_usr2(self, *_):
        self.bus.s.shutdown(socket.SHUT_RDWR)

    def run(self):
        while True:
            self.bus.handler = self.on_call
            try:
                while True:
                    self.bus.process(1)
            except (OSError, EOFError):
                if not os.path.exists(self.options["bus"][len("unix:path="):]):
                    return
                time.sleep(LATE_SECONDS)
                self.join()


def main():
    options, faults = {}, []
    for arg in sys.argv[1:]:
        key, _, value = arg[2:].partition("=")
        if key in ("fail", "busy", "hang", "mute", "lie", "late", "nonsense", "die", "leave", "memory"):
            method, _, number = value.partition("@")
            faults.append((key, method, int(number or 0)))
        else:
            options[key] = value
    delegate = Delegate(options, faults)
    signal.signal(signal.SIGUSR1, delegate.on_usr1)
    signal.signal(signal.SIGUSR2, delegate.on_usr2)
    threading.Thread(target=delegate.run_guest, daemon=True).start()
    print("ready", flush=True)
    delegate.run()


if __name__ == "__main__":
    main()
