# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections to agents in the file-descriptor store of whoever starts migmgrd (daemon/parking.h): the next daemon uses them,
and whatever is wrong with one, or with the store, costs nothing but that the agent is found by its path."""

import fcntl
import mmap
import os
import re
import socket
import struct
import unittest

from keeper import KeptHost
from lab import TOP, Lab, definition, is_alive, new_uuid, socket_inodes, wait_for

AGENT_MAGIC = 0x3147414D
AGENT_HELLO, AGENT_RESULT, AGENT_GREET = 5, 6, 14
AGENT_RESULT_SIZE = 432
RUNNING = 2


class Case(unittest.TestCase):
    room = 100

    def setUp(self):
        self.lab = Lab()
        self.lab.__enter__()
        self.addCleanup(self.lab.__exit__, None, None, None)
        self.host = KeptHost(self.lab, "a", self.room).start()
        self.server = self.lab.server("server", {"d0": "size=64K,reset-delay=500", "d1": "size=64K"})
        self.addCleanup(lambda: self.server.s and self.server.stop())
        self.host.register(definition("vm", new_uuid(), self.server, ["d0", "d1"]))
        self.agents = sorted(self.host.agents())
        self.assertEqual(len(self.agents), 2)

    @property
    def store(self):
        return self.host.daemon.store

    def parked(self, n):
        wait_for(f"{n} parked connections", lambda: self.store.names().count("agent") == n)

    def connections(self):
        """Of the agents: a connection that is accepted is a socket of its own."""
        return [socket_inodes(pid) for pid in self.agents]

    def restart(self):
        self.host.daemon.kill()
        self.host.wait_ready()
        self.found()

    def found(self):
        wait_for("the devices", lambda: all(d["Open"] for d in self.host.devices("vm").values()))
        self.assertEqual(sorted(self.host.agents()), self.agents)
        self.assertEqual({s["state"] for s in self.server.status().values()}, {"running"})

    def agent_path(self, i=0):
        directory = os.path.join(self.host.runtime, "agent")
        return os.path.join(directory, sorted(os.listdir(directory))[i])

    def stand_in(self):
        """A connection to somebody at the path of an agent, parked instead of all others; returns his end of it."""
        path = self.agent_path()
        os.rename(path, path + ".real")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen()
            near = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            near.connect(path)
            far = listener.accept()[0]
        self.addCleanup(far.close)
        far.settimeout(20)
        os.rename(path + ".real", path)
        self.store.close()
        self.store.put("agent", near.detach())
        return far

    def greeting(self, far):
        """Somebody has asked for HELLO there."""
        magic, kind = struct.unpack("II", far.recv(1024)[:8])
        self.assertEqual((magic, kind), (AGENT_MAGIC, AGENT_GREET))


class Parked(Case):
    def test_sessions_are_used_again(self):
        self.parked(2)
        before = self.connections()
        for _ in range(3):
            self.restart()
            self.assertEqual(self.connections(), before, "somebody has connected anew")
            self.parked(2)
        self.assertEqual(self.host.migctl("unregister", "vm")[0], 0)
        self.parked(0)

    def test_an_orderly_end_leaves_them_too(self):
        self.parked(2)
        before = self.connections()
        self.host.daemon.kill(15)
        self.host.wait_ready()
        self.found()
        self.assertEqual(self.connections(), before)

    def test_what_was_said_to_the_daemon_before_is_not_for_the_next(self):
        """Its packets wait on the connection. The server has gone meanwhile and come back."""
        self.parked(2)
        before = self.connections()
        os.kill(self.host.daemon.pid, 19)
        self.server.kill()
        wait_for("the agents to notice", lambda: all(a != b for a, b in zip(before, self.connections())))
        self.server.start()
        self.restart()

    def test_an_agent_that_ends_leaves_the_store(self):
        self.parked(2)
        os.kill(self.agents[0], 9)
        self.parked(1)
        self.host.daemon.kill()
        self.host.wait_ready()
        wait_for("the devices", lambda: all(d["Open"] for d in self.host.devices("vm").values()))
        self.parked(2)

    def test_one_that_nobody_wants_any_more_ends(self):
        """A check has opened the devices where the VM is to come; that daemon dies before it lets them go."""
        b = KeptHost(self.lab, "b", self.room).start()
        server = self.lab.server("there", {"d0": "size=64K", "d1": "size=64K"})
        self.addCleanup(server.stop)
        for parked in (True, False):
            b.register(definition("vm", self.host.vm("vm")["uuid"], server, ["d0", "d1"]), incoming=True)
            self.assertEqual(self.host.migctl("check", "vm", b.dest)[0], 0)
            agents = b.agents()
            self.assertEqual(len(agents), 2)
            wait_for("parked connections", lambda: b.daemon.store.names().count("agent") == 2)
            if not parked:
                b.daemon.store.close()
            b.daemon.kill()
            b.wait_ready()
            self.assertEqual(b.migctl("unregister", "vm")[0], 0)
            wait_for("their end", lambda: not any(map(is_alive, agents)))

    def test_garbage_is_closed_and_the_agent_found_by_its_path(self):
        for packet in (b"x", b"\0" * 1024, struct.pack("II", AGENT_MAGIC, 99), struct.pack("II", AGENT_MAGIC, 5)):
            far = self.stand_in()
            far.send(packet)
            self.restart()
            self.greeting(far)
            self.assertEqual(far.recv(1), b"")
            self.parked(2)

    def test_one_that_says_nothing_or_hangs_up_is_given_up(self):
        far = self.stand_in()
        self.restart()
        self.greeting(far)
        self.assertEqual(far.recv(1), b"")
        self.parked(2)
        self.stand_in().shutdown(socket.SHUT_WR)
        self.restart()
        self.parked(2)

    def test_an_old_answer_is_no_greeting(self):
        """HELLO that another daemon asked for, and a RESULT with the numbers of the new daemon's first commands."""
        far = self.stand_in()
        for seq in range(4):
            far.send(struct.pack("IIIi", AGENT_MAGIC, AGENT_RESULT, seq, -5).ljust(AGENT_RESULT_SIZE, b"\0"))
        for greeting in (0, 1, 2**64 - 1):
            far.send(struct.pack("II37s4B3xIIIi4xQQQII64x", AGENT_MAGIC, AGENT_HELLO, b"", 1, 0, 0, 0, 0, RUNNING, 0, 0, 0,
                                 greeting, 0, 0, 0))
        self.restart()
        self.greeting(far)
        self.assertEqual(far.recv(1), b"")
        self.parked(2)

    def test_what_leads_nowhere_leaves_the_store(self):
        path = os.path.join(self.lab.dir, "other.sock")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen()
        stray = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stray.connect(path)
        self.parked(2)
        before = self.connections()
        self.store.put("agent", stray.detach())
        self.store.put("agent", os.memfd_create("no connection"))
        self.store.put("other", os.memfd_create("none of ours"))
        self.restart()
        self.parked(2)
        self.assertEqual(self.connections(), before)
        self.restart()
        self.assertEqual(self.connections(), before)

    def test_a_keeper_that_has_lost_all(self):
        self.parked(2)
        self.store.close()
        self.restart()
        self.parked(2)

    def test_nobody_waits_for_a_keeper_that_does_not_listen(self):
        """Its queue is full soon."""
        self.host.daemon.listen(False)
        devices = {f"e{i}": "size=4K" for i in range(40)}
        server = self.lab.server("many", devices)
        self.addCleanup(server.stop)
        for d in devices:
            self.host.register(definition("vm-" + d, new_uuid(), server, [d]))
        self.assertEqual(len(self.host.json("list")[1]), 41)
        self.agents = sorted(self.host.agents())
        self.host.daemon.listen(True)
        self.parked(42)
        self.restart()


def times_awake(pid):
    with open(f"/proc/{pid}/status") as f:
        return sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)


class Noted(Case):
    """What the daemon before has noted of agents that do nothing (daemon/parking-index.h)."""

    def setUp(self):
        super().setUp()
        self.parked(2)

    def awake(self):
        return [times_awake(pid) for pid in self.agents]

    def asked(self):
        """Starts the next daemon, and says which agents it has asked."""
        before, devices = self.awake(), self.host.devices("vm")
        self.restart()
        self.parked(2)
        self.assertEqual(self.host.devices("vm"), devices)
        return [a != b for a, b in zip(before, self.awake())]

    def index(self):
        return next(fd for name, fd in self.store.kept if name == "index")

    def put_index(self, fd):
        self.store.remove(lambda name, _: name == "index")
        self.store.put("index", fd)

    def test_who_does_nothing_is_not_woken_up(self):
        for sig in (9, 15, 9):
            self.assertEqual(self.asked(), [False, False])
            self.host.daemon.kill(sig)
            self.host.wait_ready()
            self.found()

    def test_nor_is_any_of_many_devices(self):
        devices = [f"e{i}" for i in range(20)]
        server = self.lab.server("many", {d: "size=4K" for d in devices})
        self.addCleanup(server.stop)
        self.host.register(definition("many", new_uuid(), server, devices))
        self.parked(22)
        before = {pid: times_awake(pid) for pid in self.host.agents()}
        self.host.daemon.kill()
        self.host.wait_ready()
        wait_for("the devices", lambda: all(d["Open"] for d in self.host.devices("many").values()))
        self.assertEqual({pid: times_awake(pid) for pid in self.host.agents()}, before)

    def test_after_a_command_too(self):
        self.assertEqual(self.host.migctl("reset", "--yes", "vm", "d0")[0], 0)
        self.assertEqual(self.asked(), [False, False])

    def test_who_was_asked_for_something_and_has_not_answered_is_asked(self):
        before = {pid: times_awake(pid) for pid in self.agents}
        reset = self.host.migctl_start("reset", "--yes", "vm", "d0")
        wait_for("the reset", lambda: any(times_awake(pid) != before[pid] for pid in self.agents))
        other, = (pid for pid in self.agents if times_awake(pid) == before[pid])
        self.restart()
        self.assertEqual(times_awake(other), before[other])
        wait_for("the answer", lambda: self.asked() == [False, False])
        reset.communicate()

    def test_what_the_daemon_before_has_heard_is_not_forgotten(self):
        """The server has gone, and the daemon knows: the note of a device that runs is out of date."""
        self.server.kill()
        wait_for("the daemon to hear it", lambda: not any(d["Open"] for d in self.host.devices("vm").values()))
        self.host.daemon.kill()
        self.host.wait_ready()
        wait_for("the devices", lambda: "devices found again" in self.host.daemon.output())
        self.assertIn("0 of 2 devices found again", self.host.daemon.output())
        self.server.start()

    def test_without_an_index_all_are_asked(self):
        self.store.remove(lambda name, fd: name == "index")
        self.assertEqual(self.asked(), [True, True])
        self.assertEqual(self.asked(), [False, False])

    def test_an_index_is_believed_once(self):
        """The next daemon's own has not come as far as to the store when that daemon dies."""
        old = os.dup(self.index())
        self.assertEqual(self.asked(), [False, False])
        self.put_index(old)
        self.assertEqual(self.asked(), [True, True])

    def test_what_is_no_index_costs_nothing(self):
        size = os.fstat(self.index()).st_size
        for n, seals in ((0, 0), (100, 0xf), (size, 0), (size, 7)):
            fd = os.memfd_create("no index", os.MFD_ALLOW_SEALING)
            os.truncate(fd, n)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            self.put_index(fd)
            self.assertEqual(self.asked(), [True, True])

    def test_a_note_that_makes_no_sense_is_not_believed(self):
        for damage in (b"\xff" * 4, struct.pack("I", AGENT_RESULT)):
            with mmap.mmap(self.index(), 0) as index:
                at = 0
                for _ in self.agents:
                    at = index.find(struct.pack("II", AGENT_MAGIC, AGENT_HELLO), at + 1)
                    self.assertGreater(at, 0)
                    index[at + 4:at + 8] = damage
            self.assertEqual(self.asked(), [True, True])


class Full(Case):
    room = 2  # the index has one of them

    def test_who_has_no_room_is_found_by_his_path(self):
        self.parked(1)
        for _ in range(2):
            before = self.connections()
            self.restart()
            self.assertEqual(sum(a != b for a, b in zip(before, self.connections())), 1)
            self.parked(1)


class Unit(unittest.TestCase):
    def test_their_names_fit_the_environment(self):
        with open(os.path.join(TOP, "data", "migmgrd.service.in")) as f:
            text = f.read()
        most = int(re.search(r"^FileDescriptorStoreMax=(\d+)$", text, re.M)[1])
        self.assertGreaterEqual(most, 4000)
        self.assertLess(most * len("agent:") + len("LISTEN_FDNAMES="), 32 * 4096)  # of one string: MAX_ARG_STRLEN
        self.assertLess(most * 2, int(re.search(r"^LimitNOFILE=(\d+)$", text, re.M)[1]))
        self.assertEqual(re.search(r"^Restart=(.*)$", text, re.M)[1], "always")
        self.assertEqual(re.search(r"^StartLimitIntervalSec=(.*)$", text, re.M)[1], "0")


if __name__ == "__main__":
    unittest.main()
