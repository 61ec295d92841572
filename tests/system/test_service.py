# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the units count on: readiness is said when it is true, SIGTERM ends well, agents outlive both daemons and inherit
nothing from them that is not theirs."""

import os
import re
import signal
import socket
import subprocess
import unittest

from lab import Host, Lab, PACE, TOP, connects, definition, is_alive, new_uuid, program, wait_for


class NotifiedHost(Host):
    """Plays systemd: daemons are started with a NOTIFY_SOCKET, and `ready` says who has said READY=1."""

    def start(self):
        self.path = os.path.join(self.dir, "notify")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(self.path)
        self.notify.settimeout(20 * PACE)
        os.environ["NOTIFY_SOCKET"] = self.path
        try:
            return super().start()
        finally:
            del os.environ["NOTIFY_SOCKET"]

    def start_helper(self):
        super().start_helper()
        self.said_ready("helper.sock", socket.SOCK_SEQPACKET)

    def start_daemon(self, wait=True):
        super().start_daemon(False)
        if "NOTIFY_SOCKET" in os.environ:
            self.said_ready()
        self.wait_ready()

    def said_ready(self, name=None, kind=None):
        assert self.notify.recv(100) == b"READY=1"
        assert name is None or connects(os.path.join(self.runtime, name), kind), "not ready"


def environment(pid):
    with open(f"/proc/{pid}/environ", "rb") as f:
        return dict(v.split(b"=", 1) for v in f.read().split(b"\0") if b"=" in v)


class Service(unittest.TestCase):
    def setUp(self):
        self.lab = Lab()
        self.lab.__enter__()
        self.addCleanup(self.lab.__exit__, None, None, None)
        self.host = NotifiedHost(self.lab, "a")
        self.lab.hosts.append(self.host)
        self.host.start()
        self.addCleanup(self.host.notify.close)
        server = self.lab.server("server", {"nic": "size=64K"})
        self.addCleanup(server.s.close)
        self.uuid = new_uuid()
        self.host.register(definition("vm", self.uuid, server, ["nic"]))
        self.agents = self.host.agents()

    def test_agents_inherit_nothing_of_ours(self):
        self.assertEqual(len(self.agents), 1)
        self.assertNotIn(b"NOTIFY_SOCKET", environment(self.agents[0]))

    def test_agents_outlive_the_daemon(self):
        for sig, status in ((signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)):
            self.host.daemon.kill(sig)
            self.assertEqual(self.host.daemon.p.returncode, status, self.host.daemon.output()[-3000:])
            self.assertTrue(all(is_alive(pid) for pid in self.agents))
            self.host.start_daemon()
            wait_for("the device", lambda: self.host.devices("vm")["nic"]["Open"])
            self.assertEqual(self.host.agents(), self.agents)
            self.assertEqual(self.host.vm("vm")["presence"], "here")

    def test_agents_outlive_the_helper(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            self.host.helper.kill(sig)
            self.assertTrue(all(is_alive(pid) for pid in self.agents))
            self.assertTrue(self.host.devices("vm")["nic"]["Open"])
            Host.start_helper(self.host)
            self.assertEqual(self.host.migctl("unregister", "vm")[0], 0)
            self.assertEqual(self.host.migctl("register", os.path.join(self.host.dir, "vm.json"))[0], 0)
            self.agents = self.host.agents()

    def test_a_daemon_without_its_bus_fails(self):
        """So that it shows in the journal as what it is; it is started again: Restart=always."""
        self.host.bus.kill()
        self.assertEqual(self.host.daemon.p.wait(20 * PACE), 1)
        self.assertTrue(all(is_alive(pid) for pid in self.agents))

    def test_the_journal_is_told_only_when_stderr_is_it(self):
        """What a service starts inherits the variable, and may have its output somewhere else."""
        for names_it in (False, True):
            path = os.path.join(self.lab.dir, "stderr")
            with open(path, "w") as f:
                at = os.fstat(f.fileno())
                env = {**os.environ, "JOURNAL_STREAM": f"{at.st_dev}:{at.st_ino if names_it else at.st_ino + 1}"}
                subprocess.run([program("migmgr-helper"), "--runtime-dir=/dev/null/no"], stderr=f, env=env)
            with open(path) as f:
                self.assertEqual(f.read().startswith("<3>migmgr-helper: "), names_it)

    def test_the_command_lines_of_the_units_are_understood(self):
        """Their options are options of the programs, and the directories are where the units make them."""
        for name in ("migmgrd", "migmgr-helper"):
            with open(os.path.join(TOP, "data", name + ".service.in")) as f:
                text = f.read()
            line = re.search(r"^ExecStart=\S+/(\S+) (.*)$", text, re.M)
            self.assertEqual(line[1], name)
            options = [o.replace("%t", self.lab.dir).replace("%S", self.lab.dir) for o in line[2].split()]
            p = subprocess.run([program(name), *options, "--version"], capture_output=True, text=True)
            self.assertEqual((p.returncode, p.stderr), (0, ""))
            for option, key, base in (("--runtime-dir", "RuntimeDirectory", "%t"), ("--state-dir", "StateDirectory", "%S")):
                if option in line[2]:
                    made = re.search(rf"^{key}=(\S+)$", text, re.M)[1]
                    self.assertIn(f"{option}={base}/{made}", line[2].split())


if __name__ == "__main__":
    unittest.main()
