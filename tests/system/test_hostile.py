# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whoever reaches a socket of ours and means no good, or is merely broken: nobody crashes, hangs or leaks, and what others
do there comes to its definite end. Waiting is always for something."""

import contextlib
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

from lab import PACE, TOP, Lab, definition, new_uuid, peer_address, peer_socket, wait_for
from moves import SPEC, World
from vfio_user import Client

NOBODY = 65534
HELPER_MAGIC = 0x3248474d
CONNECT_DEVICE = 1
LINK_MESSAGE_MAX = FRAME_MAX = 1 << 20

# A job must outlive what is done to it, and one that is left alone must end in the time of the test.
CONFIG = {"policy": {"deadline-ms": {p: round(1500 * PACE) for p in (
    "check", "prepare", "halt", "p2p-grace", "drain", "intake", "handover", "arrival-grace", "run-devices", "run",
    "release")}}, "connect-msec": round(500 * PACE), "doubt-msec": 1000}


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


MESSAGES = ["HELLO", "CHECK", "CHECKED", "PREPARE", "PREPARED", "BEGIN", "REACHED", "FAILED", "READY", "GO", "ASK", "ABORT",
            "STARTED", "NOTSTARTED", "MAYBE", "BUSY", "UNKNOWN", "END", "ENDED", "DONE", "DONEACK"]
MEMBERS = ["manifest", "report", "vm", "plan", "tokens", "memory", "phase", "cause", "who", "device", "from", "to",
           "state", "errno", "text", "noway", "lost", "timeline", "copy", "spans", "vmm_only_usec", "version", "host",
           "bandwidth", "max_blackout_usec"]
NONSENSE = [None, True, -1, 1 << 63, 0.5, "", "x" * 70000, "\x01\x7f", [], {}, [None, -1, "", {}, []] * 100, {"": {"ok": 1}},
            {"ok": True, "findings": [{}, None, 3], "devices": [1, None], "phases": {}, "uuid": 3}]


class Idle(Case):
    """A VM that waits to come: half a minute after a check its devices are left alone."""

    IDLE = 30  # seconds

    def test_a_check_that_begins_just_before_that_has_them(self):
        patient = {"policy": {"deadline-ms": {"check": 20000}}, "connect-msec": 20000}
        here, there = (self.lab.host(name, config=patient) for name in ("idle-a", "idle-b"))
        uuid = new_uuid()
        for host in (here, there):
            server = self.lab.server("idle-server" + host.name, {"d": "size=64K"})
            self.addCleanup(server.stop)
            host.register(definition("idle", uuid, server, ["d"]), incoming=host is there)
        self.assertEqual(here.json("check", "idle", there.dest)[0], 0)
        end = time.monotonic()
        server.kill()  # so that it has to be opened anew
        wait_for("its end", lambda: "the device is gone" in there.daemon.output())
        server.start()
        time.sleep(end + self.IDLE - 1.5 - time.monotonic())
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            check = here.migctl_start("check", "idle", there.dest)
            time.sleep(end + self.IDLE + 0.5 - time.monotonic())
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        out, err = check.communicate(timeout=60)
        self.assertEqual(check.returncode, 0, out + err)


class Peer:
    """One end of a control connection, in the tester's hand."""

    def __init__(self, s):
        self.s = s

    def raw(self, payload):
        self.s.sendall(struct.pack("<I", len(payload)) + payload)

    def say(self, kind, job=None, **members):
        self.raw(json.dumps({"type": kind, **({"job": job} if job else {}), **members}).encode())

    def hello(self, host=None):
        self.host = host or new_uuid()
        self.say("HELLO", version=1, host=self.host, boot=new_uuid())
        assert self.hear()["type"] == "HELLO"
        return self

    def bytes(self, n):
        data = b""
        while len(data) < n:
            piece = self.s.recv(n - len(data))
            if not piece:
                return None
            data += piece
        return data

    def hear(self, *kinds):
        """The next message of one of these kinds; None at the end."""
        while True:
            try:
                head = self.bytes(4)
                body = head and self.bytes(struct.unpack("<I", head)[0])
            except ConnectionError:
                return None
            if body is None:
                return None
            message = json.loads(body)
            if not kinds or message["type"] in kinds:
                return message

    def is_cut(self):
        """The other side ends the connection, whatever it says before."""
        while self.hear():
            pass
        return True


class Impatient(Case):
    """Somebody who wants a VM that is in other hands."""

    def test_migrate_while_a_job_is_taken_up_again(self):
        """The job would be forgotten, and its devices stand for ever."""
        ids = ["d0", "d1"]
        servers = [self.lab.server(f"impatient{s}", {d: f"size=64K,seed={i}" for i, d in enumerate(ids, 1)}) for s in "ab"]
        uuid = new_uuid()
        for host, server in zip(self.hosts, servers):
            self.addCleanup(server.stop)
            host.register(definition("impatient", uuid, server, ids), incoming=host is self.b)
        servers[0].fault("d0", "stop>stop-copy:hang@1")
        client = self.a.migctl_start("migrate", "impatient", self.b.dest)
        wait_for("the drain", lambda: servers[0].states()["d1"] == "stop" and any(
            j["Phase"] == "drain" and j["State"] == "running" for j in self.a.jobs()))
        self.a.daemon.kill()
        client.communicate()
        for pid in self.a.agents():
            os.kill(pid, signal.SIGKILL)
        os.kill(self.a.helper.pid, signal.SIGSTOP)
        self.a.start_daemon()
        _, answer = self.a.migrate("impatient", self.b)
        os.kill(self.a.helper.pid, signal.SIGCONT)
        self.assertIn("taken up again", str(answer))
        wait_for("the way back", lambda: set(servers[0].states().values()) == {"running"} and
                 all(j["State"] == "finished" for h in self.hosts for j in h.jobs()), 20)
        self.assertEqual(self.a.vm("impatient")["presence"], "here")


class Hostile(Case):
    """Somebody connects to peer.sock of b, where a VM may come."""

    def setUp(self):
        n = next(self.numbers)
        self.ids = ["d0", "d1"]
        self.servers = [self.lab.server(f"s{n}{side}", {d: f"size=64K,seed={n * 8 + i}" for i, d in enumerate(self.ids)})
                        for side in "ab"]
        self.vm, self.uuid = f"vm{n}", new_uuid()
        for host, server in zip(self.hosts, self.servers):
            host.register(definition(self.vm, self.uuid, server, self.ids), incoming=host is self.b)
            self.addCleanup(server.stop)
        self.fds_before = fds(self.b.daemon.pid)

    def connect_b(self):
        s = peer_socket(self.b.dest)
        self.addCleanup(s.close)
        s.settimeout(10 * PACE)
        wait_for(self.b.dest, lambda: s.connect_ex(peer_address(self.b.dest)) == 0)
        return s

    def dial(self):
        return Peer(self.connect_b())

    def data(self, token, index=0, kind=1, magic=b"MGH1", version=1, rest=bytes(20)):
        """The answer to a data connection's first bytes; None: it was closed without one."""
        s = self.connect_b()
        s.sendall(magic + struct.pack("<HH", version, kind) + token + struct.pack("<I", index) + rest)
        try:
            answer = s.recv(1)
        except ConnectionError:
            answer = b""
        return (answer[0] if answer else None), s

    def prepare(self, peer, job=None):
        """As a source would: its job, and the tokens."""
        job = job or new_uuid()
        peer.say("CHECK", job, manifest=self.manifest())
        self.assertTrue(peer.hear("CHECKED")["report"]["ok"])
        peer.say("PREPARE", job, vm=self.uuid, plan={"phases": [], "devices": self.ids, "retries": 0})
        answer = peer.hear("PREPARED", "FAILED")
        self.assertEqual(answer["type"], "PREPARED", answer)
        return job, [bytes.fromhex(answer["tokens"][d]) for d in self.ids]

    def end(self, peer, job):
        """Gives it up as a source does, which runs; the copy is let go of."""
        peer.say("ABORT", job)
        peer.say("END", job)
        self.assertIn(peer.hear("ENDED", "UNKNOWN")["type"], ("ENDED", "UNKNOWN"))

    def moves(self):
        """What we did has left nothing behind: the VM goes there, whole."""
        def done():
            status, job = self.a.migrate(self.vm, self.b)
            # It may still be let go of.
            self.assertTrue(status == 0 or "another job" in str(job) or "has a job" in str(job), job)
            return status == 0
        wait_for("the migration", done)
        self.assertEqual(set(self.servers[1].states().values()), {"running"})

    def test_garbage_and_lengths(self):
        for payload in (b"\0\0\0\0", b"\xff\xff\xff\xff", struct.pack("<I", LINK_MESSAGE_MAX + 1), b"GET / HTTP/1.1\r\n\r\n",
                        os.urandom(4096), struct.pack("<I", 2) + b"{}", struct.pack("<I", 4) + b"null",
                        struct.pack("<I", 100000) + b"[" * 100000, struct.pack("<I", 3) + b"\xff\xfe\0",
                        struct.pack("<I", LINK_MESSAGE_MAX) + b'{"type": "' + b"x" * (LINK_MESSAGE_MAX - 10)):
            peer = self.dial()
            try:
                peer.s.sendall(payload)
            except ConnectionError:
                pass
            peer.s.shutdown(socket.SHUT_WR) if payload[:4] == b"\xff\xff\xff\xff" else None
            self.assertTrue(peer.is_cut(), payload[:20])
        self.moves()

    def test_five_hundred_that_never_speak(self):
        silent = [self.connect_b() for _ in range(500)]
        for i, s in enumerate(silent):
            s.sendall((b"", b"M", b"MGH1" + bytes(20), b"\x10\0\0\0{")[i % 4])
        self.moves()
        for s in silent:
            s.close()
        wait_for("the connections to go", lambda: fds(self.b.daemon.pid) <= self.fds_before + len(self.ids) + 4, 20)

    def test_every_message_with_every_nonsense(self):
        """Before and in a job, of its own host and of another."""
        peer = self.dial().hello()
        job, _ = self.prepare(peer)
        for foreign in (True, False):
            other = self.dial().hello() if foreign else peer
            for kind in MESSAGES[1:]:
                # These end it, as they should, when they come from its source.
                if not foreign and kind in ("ABORT", "END", "GO", "DONE"):
                    continue
                for i in range(len(NONSENSE)):
                    members = {m: NONSENSE[(i + k) % len(NONSENSE)] for k, m in enumerate(MEMBERS)}
                    other.say(kind, job, **members)
                other.say(kind, job)
                other.say(kind, new_uuid())
            # All of it was read, and the connection stands.
            last = new_uuid()
            other.say("ASK", last)
            self.assertTrue(wait_for("the answer", lambda: (other.hear("UNKNOWN") or {"job": last})["job"] == last))
            other.say("ASK", job)
            self.assertIsNotNone(other.hear())
        for bad in ({"type": "HELLO"}, {"type": "ABORT"}, {"type": "ABORT", "job": 1}, {"type": "?", "job": job}, [], "x"):
            other = self.dial().hello()
            other.raw(json.dumps(bad).encode())
            self.assertTrue(other.is_cut(), bad)
        peer.s.close()
        self.moves()

    def test_a_check_with_more_findings_than_a_message_takes(self):
        """A thousand devices that are not defined there, with the longest ids."""
        manifest = dict(self.manifest())
        device = manifest["devices"][0]
        manifest["devices"] = [{**device, "id": f"{i:064}", "text": "x" * 199} for i in range(1000)]
        peer = self.dial().hello()
        peer.say("CHECK", new_uuid(), manifest=manifest)
        report = peer.hear("CHECKED")["report"]
        self.assertEqual((report["ok"], len(report["findings"])), (False, 100))
        self.assertGreaterEqual(report["more"], 900)
        self.moves()

    def test_prepare_without_check(self):
        """Refused, and it says why; as is a PREPARE for another set of devices."""
        peer = self.dial().hello()

        job = new_uuid()

        def refused(devices, job=job):
            peer.say("PREPARE", job, vm=self.uuid, plan={"phases": [], "devices": devices, "retries": 0})
            answer = peer.hear("PREPARED", "FAILED")
            self.assertEqual((answer["type"], answer["job"], answer["phase"]), ("FAILED", job, "prepare"))
            return answer["text"]
        without = f"VM {self.vm}: this job has not passed the destination's check, or too long ago; check once more"
        self.assertEqual(refused(self.ids), without)
        bad = self.manifest() | {"devices": self.manifest()["devices"][:1]}
        peer.say("CHECK", job, manifest=bad)
        self.assertFalse(peer.hear("CHECKED")["report"]["ok"])
        self.assertEqual(refused(self.ids), without)
        peer.say("CHECK", job, manifest=self.manifest())
        self.assertTrue(peer.hear("CHECKED")["report"]["ok"])
        self.assertEqual(refused(self.ids, new_uuid()), without)
        self.assertIn("the definition here 2", refused(self.ids[:1]))
        self.assertIn("nope", refused([self.ids[0], "nope"]))
        self.servers[1].kill()
        wait_for("the device to be gone", lambda: not self.b.devices(self.vm)["d0"]["Open"])
        self.assertRegex(refused(self.ids), "device d0: .*closed the connection")
        self.servers[1].start()
        self.moves()

    def test_check_and_prepare_at_once(self):
        """The devices are still being opened for the one when the other wants them."""
        manifest = self.manifest()
        peer = self.dial().hello()
        job = new_uuid()
        for _ in range(3):
            peer.say("CHECK", job, manifest=manifest)
        peer.say("PREPARE", job, vm=self.uuid, plan={"phases": [], "devices": self.ids, "retries": 0})
        self.assertIn(peer.hear("PREPARED", "FAILED")["type"], ("PREPARED", "FAILED"))
        self.end(peer, job)
        self.moves()

    def manifest(self):
        """What a source says of the VM, to a destination that we play."""
        if hasattr(self, "said"):
            return self.said
        path = os.path.join(self.lab.dir, f"listen{next(self.numbers)}")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        self.addCleanup(listener.close)
        client = self.a.migctl_start("check", self.vm, "unix:" + path)
        source = Peer(listener.accept()[0])
        source.s.settimeout(10 * PACE)
        source.hello()
        self.said = source.hear("CHECK")["manifest"]
        source.s.close()
        client.communicate()
        return self.said

    def test_tokens(self):
        peer = self.dial().hello()
        job, tokens = self.prepare(peer)
        peer.say("BEGIN", job, phase="drain")
        for arguments in ((bytes(32), 0), (tokens[0], 1), (tokens[0], 2), (tokens[0], 1 << 31), (tokens[0], 0, 2),
                          (os.urandom(32), 0)):
            self.assertEqual(self.data(*arguments)[0], 1, arguments)
        for more in ({"version": 2}, {"kind": 3}, {"rest": b"\1" * 20}, {"kind": 2, "index": 1}):
            self.assertIsNone(self.data(tokens[0], **more)[0], more)
        self.assertEqual(self.data(tokens[0])[0], 0)
        self.assertEqual(self.data(tokens[0])[0], 1, "a token is good once")
        self.end(peer, job)
        self.assertEqual(self.data(tokens[1], 1)[0], 1, "a token dies with its job")
        self.moves()

    FRAMES = {
        "magic": [(b"XXXX", 1, 0, 0, 4, None, b"abcd")],
        "type": [(b"MGD1", 9, 0, 0, 0, None, b"")],
        "reserved": [(b"MGD1", 1, 1, 0, 4, None, b"abcd")],
        "checksum": [(b"MGD1", 1, 0, 0, 4, 1, b"abcd")],
        "offset": [(b"MGD1", 1, 0, 8, 4, None, b"abcd")],
        "length 0": [(b"MGD1", 1, 0, 0, 0, None, b"")],
        "too long": [(b"MGD1", 1, 0, 0, FRAME_MAX + 1, None, b"")],
        "longest": [(b"MGD1", 1, 0, 0, 0xffffffff, None, b"")],
        "end before data": [(b"MGD1", 2, 0, 0, 0, None, b"")],
        "end at a wrong place": [(b"MGD1", 2, 0, 1 << 40, 0, None, b"")],
        "error": [(b"MGD1", 3, 0, 0, 0, None, b"")],
        "a slot of no memory": [(b"MGD1", 7, 0, 0, 4, 0, b"")],
        "memory twice": [(b"MGD1", 6, 0, 0, 0, 0, b"")] * 2,
        "the data is nonsense": [(b"MGD1", 1, 0, 0, 4, None, b"abcd"), (b"MGD1", 2, 0, 4, 0, None, b"")],
        "data after the end": [(b"MGD1", 2, 0, 0, 0, None, b""), (b"MGD1", 1, 0, 0, 4, None, b"abcd")],
    }

    def test_frames(self):
        """Whatever comes as a device's state: the job fails, and the destination promises not to start."""
        for name, frames in self.FRAMES.items():
            with self.subTest(name):
                peer = self.dial().hello()
                job, tokens = self.prepare(peer)
                peer.say("BEGIN", job, phase="drain")
                for index in (0, 1):
                    answer, s = self.data(tokens[index], index)
                    # The first may have ended it.
                    self.assertIn(answer, (0, 0 if index == 0 else 1))
                    for magic, kind, reserved, offset, length, crc, payload in frames:
                        crc = crc32c(payload) if crc is None else crc
                        try:
                            s.sendall(magic + struct.pack("<HHQII", kind, reserved, offset, length, crc) + payload)
                        except ConnectionError:
                            pass
                answer = peer.hear("REACHED", "FAILED")
                if answer["type"] == "REACHED":
                    peer.say("BEGIN", job, phase="intake")
                    answer = peer.hear("FAILED", "READY")
                self.assertEqual(answer["type"], "FAILED", answer)
                self.end(peer, job)
        self.moves()

    def test_a_second_mark(self):
        """A source says once that it has sent what there was; each time would cost an answer."""
        peer = self.dial().hello()
        job, tokens = self.prepare(peer)
        _, s = self.data(tokens[0])
        s.sendall((b"MGD1" + struct.pack("<HHQII", 4, 0, 0, 0, 0)) * 2)
        failed = peer.hear("FAILED", "REACHED")
        self.assertRegex(failed["text"], "second mark")
        self.end(peer, job)
        self.moves()

    def test_half_a_frame_then_nothing(self):
        peer = self.dial().hello()
        job, tokens = self.prepare(peer)
        _, s = self.data(tokens[0])
        s.sendall(b"MGD1" + struct.pack("<HHQII", 1, 0, 0, 100, 0) + b"half")
        peer.say("BEGIN", job, phase="drain")
        self.end(peer, job)
        self.moves()

    def test_somebody_else_says_he_is_the_source(self):
        """The link is displaced again and again, in the middle: a definite end, and the VM runs at one side."""
        source = Peer(self.connect_b()).hello()
        host_a = next(line for line in self.a.daemon.output().splitlines() if line.startswith("ready, host id ")).split()[-1]
        for server in self.servers:
            server.command("delay", device="d0", arcs="*>*:40") if False else None
        client = self.a.migctl_start("--json=short", "migrate", self.vm, self.b.dest)
        while client.poll() is None:
            try:
                self.dial().hello(host_a).s.close()
            except (AssertionError, TypeError):
                pass
        out, _ = client.communicate()
        result = json.loads(out)["result"]
        self.assertIn(result, ("done", "failed", "refused", "in-doubt"))
        source.s.close()

        def settled():
            here = [h for h in self.hosts if h.vm(self.vm)["presence"] == "here"]
            return here if len(here) == 1 and not any(j["State"] != "finished" for h in self.hosts for j in h.jobs()) else None
        here = wait_for("an end", settled, 20)[0]
        self.assertEqual(set(self.servers[self.hosts.index(here)].states().values()), {"running"})


class Neighbours(Case):
    """A VM at work on its devices, and beside it, on the same hosts, a VMM and a device server that send whatever the
    fuzzers have found worth keeping. The guest finds what is lost, late for ever or wrong at the very step."""

    def corpus(self, name):
        directory = os.path.join(TOP, "tests", "fuzz", "corpus-" + name)
        for file in sorted(os.listdir(directory)):
            with open(os.path.join(directory, file), "rb") as f:
                yield file, f.read()[1:]  # the first byte says what the fuzzer does around it

    def setUp(self):
        self.world = World(self.lab, self.hosts, {d: SPEC for d in ("d0", "d1", "d2")}, name=f"busy{next(self.numbers)}")
        self.addCleanup(self.world.close)
        self.world.wait_steps(50)

    def still_works(self):
        """It does, here and, moved, there."""
        self.world.wait_steps(100)
        status, job = self.world.move()
        self.assertEqual((status, job.get("result")), (0, "done"), job.get("error"))
        self.world.wait_steps(100)

    def test_a_vmm_that_says_anything(self):
        server = self.lab.server("target", {"d": "worker=on"})
        broker = server.socket("broker")
        d = definition("target", new_uuid(), server, ["d"])
        d["devices"][0]["broker"] = broker
        self.a.register(d)
        self.addCleanup(self.a.migctl, "unregister", "target")
        agents = set(self.a.agents())
        for name, data in self.corpus("broker-vmm"):
            for greeted in (False, True):
                with self.subTest(name, greeted=greeted):
                    vmm = Client(broker, negotiate=greeted)
                    try:
                        vmm.send_raw(data)
                        vmm.socket.shutdown(socket.SHUT_WR)
                        while vmm.socket.recv(1 << 16):
                            pass
                    except OSError:
                        pass  # it was thrown out, which is as good
                    vmm.close()
        self.assertEqual(set(self.a.agents()), agents)
        Client(broker).close()  # its own device serves the next one
        self.assertTrue(server.process.alive(), server.process.output())
        self.still_works()

    def test_a_server_that_says_anything(self):
        path = os.path.join(self.lab.dir, "liar")
        replies = list(self.corpus("broker-server"))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(8)
        self.addCleanup(listener.close)
        served = []

        def serve():
            while True:
                try:
                    s, _ = listener.accept()
                except OSError:
                    return
                name, data = replies[len(served) % len(replies)]
                served.append(name)
                with contextlib.suppress(OSError):
                    s.recv(1 << 16)
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(1 << 16):
                        pass
                s.close()
        threading.Thread(target=serve, daemon=True).start()
        vm = new_uuid()
        d = {"name": "liar", "uuid": vm, "vmm": {"type": "none"},
             "devices": [{"id": "d", "type": "vfio-user", "socket": path, "broker": path + ".broker"}]}
        file = os.path.join(self.lab.dir, "liar.json")
        with open(file, "w") as f:
            json.dump(d, f)
        while len(served) < len(replies):  # to register it is to connect
            n = len(served)
            status, _, error = self.a.migctl("register", file)
            self.assertGreater(len(served), n)
            if status == 0:
                self.a.migctl("unregister", "liar")
            else:
                self.assertIn("device d:", error)
            wait_for("its agent to leave the broker's place", lambda: not os.path.exists(path + ".broker"))
        self.still_works()


def crc32c(data, crc=0xffffffff):
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


if __name__ == "__main__":
    unittest.main()
