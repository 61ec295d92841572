# SPDX-License-Identifier: LGPL-2.1-or-later
"""State that goes out while its device runs: that it arrives whole, what ends it, and what becomes of the device when
something happens meanwhile."""

import json
import os
import signal
import unittest

from kills import named_agents
from lab import PACE, TRANSPORT, Lab, new_uuid, wait_for
from relay import Relay

MIB, PAGE = 1 << 20, 4096
CONFIG = {"policy": {"deadline-ms": {"precopy": round(20000 * PACE)}}, "connect-msec": 1000, "doubt-msec": 1000}
# 16 MiB at 4 MiB a second: long enough to do something meanwhile, and never waited for to its end.
SLOW = "size=16M,read-delay=250"
# Changed all over three times as fast as it can be read: it never has nothing to give.
RESTLESS = "size=1M,read-delay=50,dirty-rate=15000"


class Case(unittest.TestCase):
    config = CONFIG

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.lab.__enter__()
        cls.addClassCleanup(cls.lab.__exit__, None, None, None)
        cls.a, cls.b = (cls.lab.host(name, config=cls.config) for name in ("a", "b"))
        cls.numbers = iter(range(1, 1000))

    def with_policy(self, **keys):
        """To the end of the test, at the source."""
        def restart():
            self.a.daemon.stop()
            self.a.start_daemon()
        self.a.write_policy("10-test", {"match": {}, "set": keys})
        self.addCleanup(restart)
        self.addCleanup(os.unlink, os.path.join(self.a.policies, "10-test.json"))
        restart()

    def vm(self, spec="", faults=(), **keys):
        """Its name, and the server of its device at either end."""
        n, servers = next(self.numbers), []
        uuid = new_uuid()
        for side, host in enumerate((self.a, self.b)):
            server = self.lab.server(f"v{n}{host.name}", {"nic": f"size=256K,pre-copy=on,seed={side + 1}" +
                                                          ("," + spec if spec else "")})
            self.addCleanup(server.stop)
            servers.append(server)
            host.register({"name": f"v{n}", "uuid": uuid, "vmm": {"type": "none"}, "devices": [
                {"id": "nic", "type": "vfio-user", "socket": server.socket("nic"), **keys}]}, incoming=side > 0)
        for fault in faults:
            servers[0].fault("nic", fault)
        return f"v{n}", servers

    def arcs(self, server):
        """The device's own history: [(from, to)]."""
        return [(e["from"], e["to"]) for e in server.log("nic") if e["what"] == "arc"]

    def memory(self, server):
        """All but the counter."""
        path = os.path.join(server.dir, "dump")
        server.command("dump", device="nic", path=path)
        with open(path, "rb") as f:
            return f.read()[8:]

    def wait_presences(self, vm, *presences):
        """The destination notes the end a moment after the source."""
        wait_for("both presences", lambda: (self.a.vm(vm)["presence"], self.b.vm(vm)["presence"]) == presences)

    def assert_moved(self, vm, servers, status, job):
        """Whole: what was saved is what was loaded, and it runs there and nowhere else."""
        self.assertEqual((status, job.get("result")), (0, "done"), job)
        saved, loaded = servers[0].digest("nic")["crc_saved"], servers[1].digest("nic")["crc_loaded"]
        self.assertIsNotNone(saved)
        self.assertEqual(saved, loaded)
        self.assertEqual([s.states()["nic"] for s in servers], ["stop", "running"])
        self.wait_presences(vm, "away", "here")

    def assert_stayed(self, vm, servers):
        """It runs where it was, and the copy is let go."""
        self.wait_presences(vm, "here", "away")
        self.assertEqual(servers[0].states()["nic"], "running")
        self.assertNotEqual(self.memory(servers[0]), self.memory(servers[1]))

    def begin(self, vm, server, dest=None):
        """A migration that is in the middle of pre-copy."""
        p = self.a.migctl_start("--json=short", "migrate", vm, dest or self.b.dest)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.stderr.close)
        self.addCleanup(p.wait)
        wait_for("pre-copy", lambda: server.status("nic")["saved_bytes"] > 0)
        self.assertEqual(server.states()["nic"], "pre-copy")
        return p

    def result(self, p):
        p.wait(30 * PACE)
        return self.a.jobs()[-1]


def took(job, what):
    """usec of a state of the source, or of what a device did."""
    return sum(s["end_usec"] - s["start_usec"] for s in job["timeline"] if s["what"] == what and s["half"] == "source")


def bytes_of(job, what):
    return sum(s.get("bytes", 0) for s in job["timeline"] if s["what"] == what and s["half"] == "source")


class Arrives(Case):
    def move(self, *args, **keys):
        vm, servers = self.vm(*args, **keys)
        before = self.memory(servers[0])
        status, job = self.a.migrate(vm, self.b)
        self.assert_moved(vm, servers, status, job)
        return servers, job, before

    def test_by_way_of_both_p2p_states_and_without(self):
        for p2p, way in (("on", ["pre-copy", "pre-copy-p2p", "stop-copy", "stop"]), ("off", ["pre-copy", "stop-copy", "stop"])):
            with self.subTest(p2p=p2p):
                servers, job, before = self.move(f"p2p={p2p}")
                self.assertEqual([to for _, to in self.arcs(servers[0])], way)
                self.assertEqual(self.memory(servers[1]), before)
                self.assertGreater(bytes_of(job, "precopy"), 256 * 1024)

    def test_while_the_device_changes_all_over(self):
        servers, job, before = self.move("dirty-rate=1000,work=on")
        self.assertNotEqual(self.memory(servers[1]), before)
        self.assertGreater(bytes_of(job, "send"), bytes_of(job, "precopy"))

    def test_a_device_that_refuses_goes_on_without(self):
        servers, job, before = self.move(faults=["running>pre-copy:fail:EBUSY"])
        self.assertEqual([to for _, to in self.arcs(servers[0]) if to != "running"], ["pre-copy", "running-p2p", "stop",
                                                                                     "stop-copy", "stop"])
        self.assertEqual(self.memory(servers[1]), before)
        self.assertEqual(bytes_of(job, "precopy"), 0)

    def test_off_by_policy(self):
        self.with_policy(precopy="off")
        servers, job, before = self.move()
        self.assertEqual([to for _, to in self.arcs(servers[0])], ["running-p2p", "stop", "stop-copy", "stop"])
        self.assertEqual(self.memory(servers[1]), before)
        self.assertEqual(bytes_of(job, "precopy"), 0)

    def test_there_and_back_again(self):
        vm, servers = self.vm("dirty-rate=1000")
        for here, there, ends in ((self.a, self.b, servers), (self.b, self.a, servers[::-1])) * 2:
            status, job = here.migrate(vm, there)
            self.assertEqual((status, job["result"]), (0, "done"), job)
            self.assertEqual(ends[0].digest("nic")["crc_saved"], ends[1].digest("nic")["crc_loaded"])


class Ends(Case):
    """One of the three limits, where nothing else would."""

    def move(self, **limits):
        self.with_policy(**{"precopy-limit": limits})
        vm, servers = self.vm(RESTLESS)
        status, job = self.a.migrate(vm, self.b)
        self.assert_moved(vm, servers, status, job)
        return job

    def test_time(self):
        job = self.move(**{"msec": 700, "rate-kib": 0})
        self.assertGreaterEqual(took(job, "precopy"), 650_000)
        self.assertLess(took(job, "source-precopy"), 1_500_000 * PACE)

    def test_bytes(self):
        job = self.move(**{"mib": 8, "msec": 0, "rate-kib": 0})
        self.assertGreaterEqual(bytes_of(job, "precopy"), 8 * MIB)
        self.assertLess(bytes_of(job, "precopy"), 12 * MIB)

    def test_rate(self):
        """It is read at 20 MiB a second, which is little to who says so; but all of it once, before."""
        job = self.move(**{"rate-kib": 100 * 1024, "msec": 0})
        self.assertGreaterEqual(bytes_of(job, "precopy"), MIB)
        self.assertLess(took(job, "source-precopy"), 5_000_000 * PACE)


class Meanwhile(Case):
    def test_cancel(self):
        vm, servers = self.vm(SLOW)
        p = self.begin(vm, servers[0])
        self.assertEqual(self.a.migctl("cancel", self.a.vm(vm)["job"])[0], 0)
        job = self.result(p)
        self.assertEqual((p.returncode, job["Result"]), (7, "cancelled"), job)
        self.assert_stayed(vm, servers)

    def test_a_read_fails(self):
        vm, servers = self.vm(SLOW)
        p = self.begin(vm, servers[0])
        servers[0].fault("nic", "read:fail:EIO")
        job = self.result(p)
        self.assertEqual((p.returncode, job["Result"]), (1, "failed"), job)
        self.assertIn("nic", job["Error"][1])
        self.assert_stayed(vm, servers)

    def test_the_source_s_agent_is_killed(self):
        vm, servers = self.vm(SLOW)
        p = self.begin(vm, servers[0])
        os.kill(named_agents(self.a, "nic")[-1], signal.SIGKILL)
        job = self.result(p)
        self.assertEqual((p.returncode, job["Result"]), (1, "failed"), job)
        self.assert_stayed(vm, servers)

    def test_the_destination_s_agent_is_killed(self):
        vm, servers = self.vm(SLOW)
        p = self.begin(vm, servers[0])
        os.kill(named_agents(self.b, "nic")[-1], signal.SIGKILL)
        job = self.result(p)
        self.assertEqual((p.returncode, job["Result"]), (1, "failed"), job)
        self.assert_stayed(vm, servers)

    def test_the_destination_s_daemon_dies_and_comes_back(self):
        vm, servers = self.vm(SLOW)
        p = self.begin(vm, servers[0])
        self.b.daemon.kill()
        job = self.result(p)
        self.assertEqual((p.returncode, job["Result"]), (1, "failed"), job)
        self.assertEqual(servers[0].states()["nic"], "running")
        self.b.start_daemon()
        self.assert_stayed(vm, servers)

    def test_the_destination_s_device_dies(self):
        vm, servers = self.vm(SLOW)
        p = self.begin(vm, servers[0])
        servers[1].kill()
        job = self.result(p)
        self.assertEqual((p.returncode, job["Result"]), (1, "failed"), job)
        self.assertEqual(servers[0].states()["nic"], "running")
        servers[1].start()

    def test_the_link_is_cut(self):
        vm, servers = self.vm(SLOW)
        relay = Relay(os.path.join(self.lab.dir, "relay.sock"), self.b.dest)
        self.addCleanup(relay.close)
        p = self.begin(vm, servers[0], relay.dest)
        relay.cut()
        job = self.result(p)
        self.assertEqual((p.returncode, job["Result"]), (1, "failed"), job)
        self.assertEqual(servers[0].states()["nic"], "running")
        relay.heal()
        self.assert_stayed(vm, servers)


class Shared(Case):
    """A large state goes through memory that both agents have mapped, where they are on one host."""
    config = {**CONFIG, "policy": {"deadline-ms": {"precopy": round(20000 * PACE), "drain": round(2500 * PACE)}}}

    def shares(self, host):
        with open(f"/proc/{named_agents(host, 'nic')[-1]}/maps") as f:
            return "/memfd:slots" in f.read()

    def begin_large(self, dest=None):
        """Past what goes over the connection in any case, and what may be read before memory is taken."""
        vm, servers = self.vm("size=8M,read-delay=150")
        p = self.begin(vm, servers[0], dest)
        wait_for("more than a little", lambda: servers[0].status("nic")["saved_bytes"] > 2 * MIB)
        return vm, servers, p

    def arrives(self, vm, servers, p):
        p.wait(30 * PACE)
        self.assert_moved(vm, servers, p.returncode, json.loads(p.stdout.read()))

    def test_on_one_host(self):
        vm, servers, p = self.begin_large()
        self.assertEqual([self.shares(host) for host in (self.a, self.b)], [TRANSPORT == "unix"] * 2)
        self.arrives(vm, servers, p)

    def test_with_something_between_that_passes_no_files(self):
        relay = Relay(os.path.join(self.lab.dir, "relay.sock"), self.b.dest)
        self.addCleanup(relay.close)
        vm, servers, p = self.begin_large(relay.dest)
        self.assertFalse(self.shares(self.b))
        self.arrives(vm, servers, p)

    def test_the_daemons_are_started_again_meanwhile(self):
        """The agents go on; what they send is of no more use, and the device runs where it was."""
        vm, servers, p = self.begin_large()
        for host in (self.a, self.b):
            host.daemon.kill()
            host.start_daemon()
        wait_for("the device to run again", lambda: servers[0].states()["nic"] == "running", 30)
        self.assert_stayed(vm, servers)

    def test_a_destination_that_gives_nothing_back_is_late(self):
        vm, servers, p = self.begin_large()
        agent = named_agents(self.b, "nic")[-1]
        os.kill(agent, signal.SIGSTOP)
        try:
            job = self.result(p)
        finally:
            os.kill(agent, signal.SIGCONT)
        self.assertEqual((p.returncode, job["Result"]), (1, "failed"), job)
        self.assertEqual(servers[0].states()["nic"], "running")
        self.assert_stayed(vm, servers)


if __name__ == "__main__":
    unittest.main()
