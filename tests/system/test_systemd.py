# SPDX-License-Identifier: LGPL-2.1-or-later
"""migmgr as `make install` puts it there, with its own units, under a real systemd: process 1 of the guest of
tests/system/vfio-guest. What keeper.py plays elsewhere is real here: the store of descriptors, the restart, scopes, the bus.

In Restarts the VM's guest works its two devices all the time, and finds what is lost. The other host that its VMM could move to
is a migmgr beside it, as the other tests have it: its daemons run without units, and its helper does not see systemd.

  tests/bench/systemd [ARGUMENT...]     of unittest: -k and a part of a name"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import vfio_guest
from lab import BUILD, Host, Lab, Process, definition, new_uuid, socket_inodes, wait_for
from moves import SPEC, World

UNITS = ["migmgrd.service", "migmgr-helper.service"]
DROP_IN = "/run/systemd/system/migmgrd.service.d"
PLUGINS = "/usr/lib/migmgr/plugins"
DEVICES = 2
# Of its own for the helper of the other host: it would ask systemd for scopes of the same names.
WITHOUT_SYSTEMD = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /run/systemd && exec "$@"', "sh"]
VMM_POLICY = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><policy user="root"><allow own_prefix="org.example.vmm"/></policy></busconfig>
"""
# Gives the store so many files of each name, as migmgrd's ExecStartPost=.
STRAYS = """
import array, os, socket, sys
def say(text, fds):
    s.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
for name in ("agent", "other"):
    say(b"FDSTORE=1\\nFDNAME=" + name.encode(), [os.memfd_create(str(i)) for i in range(int(sys.argv[1]))])
here, there = os.pipe()
say(b"BARRIER=1", [there])
os.close(there)
os.read(here, 1)
"""


def run(*argv):
    """What it says."""
    p = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert p.returncode == 0, (argv, p.returncode, p.stdout, p.stderr)
    return p.stdout.strip()


class Unit:
    """Stands for a Process."""

    def __init__(self, name):
        self.name = name

    def show(self, *names):
        lines = run("systemctl", "show", "--property=" + ",".join(names), self.name).split("\n")
        found = dict(line.split("=", 1) for line in lines)
        return found[names[0]] if len(names) == 1 else [found[name] for name in names]

    @property
    def pid(self):
        return int(self.show("MainPID"))

    def alive(self):
        return self.show("ActiveState") in ("active", "activating", "deactivating")

    def output(self):
        return run("journalctl", "-b", "-u", self.name, "--no-pager", "-n", "100")

    def wait_again(self, pid):
        """Another one than that is there, ready or not."""
        return wait_for(f"another {self.name}", lambda: self.pid not in (0, pid) and self.pid)


class ServiceHost(Host):
    """This guest."""

    def __init__(self, lab):
        super().__init__(lab, "a")
        self.bus_address = "unix:path=/run/dbus/system_bus_socket"
        self.runtime, self.state = "/run/migmgr", "/var/lib/migmgr"
        self.dest = f"unix:{self.runtime}/peer.sock"
        self.agent_program = "/usr/libexec/migmgr/migmgr-agent"
        self.daemon, self.helper = Unit("migmgrd.service"), Unit("migmgr-helper.service")
        lab.hosts.append(self)

    def start(self):
        run("systemctl", "enable", "--now", "migmgrd")
        return self

    def parked(self):
        return int(self.daemon.show("NFileDescriptorStore"))


class OtherHost(Host):
    def __init__(self, lab):
        super().__init__(lab, "b", plugins=[os.path.join(PLUGINS, name) for name in os.listdir(PLUGINS)])
        lab.hosts.append(self)

    def start_helper(self, wrap=()):
        super().start_helper(WITHOUT_SYSTEMD)


def install():
    """Over the guest's own system, whose folders stay as they are."""
    run("sh", "-c", 'tar -C "$0" -c . | tar -C / -x --keep-directory-symlink --no-overwrite-dir', os.environ["MIGMGR_INSTALLED"])
    with open("/etc/dbus-1/system.d/test-vmm.conf", "w") as f:
        f.write(VMM_POLICY)
    run("systemctl", "daemon-reload")
    run("systemctl", "reload", "dbus")


def setUpModule():
    install()


class Case(unittest.TestCase):
    """A VM with devices on this host."""

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.addClassCleanup(cls.lab.close)
        cls.host = ServiceHost(cls.lab).start()
        cls.make_vm()

    def setUp(self):
        self.found()
        self.all_parked()
        self.agents = sorted(self.host.agents())
        self.pid = self.host.daemon.pid
        self.addCleanup(self.goes_on)

    def found(self):
        """Its daemon answers, and all devices are there."""
        def is_found():
            status, devices = self.host.json("devices", self.vm)
            return status == 0 and len(devices) == DEVICES and all(d["Open"] for d in devices)
        wait_for("the devices", is_found, 20)

    def all_parked(self):
        wait_for("parked connections", lambda: self.host.parked() == DEVICES)

    def connections(self):
        return [socket_inodes(pid) for pid in self.agents]

    @contextlib.contextmanager
    def same_agents(self, by_path=False):
        """Whatever becomes of the daemon, which must be another one then. `by_path`: agents may have been found by
        their paths."""
        before = self.connections()
        yield
        self.found()
        self.assertNotEqual(self.host.daemon.pid, self.pid)
        self.pid = self.host.daemon.pid
        self.assertEqual(sorted(self.host.agents()), self.agents)
        if not by_path:
            self.assertEqual(self.connections(), before, "somebody has connected anew")
            self.all_parked()

    def kill_daemon(self, sig=signal.SIGKILL):
        """Returns the next one's pid, which may not be ready."""
        pid = self.host.daemon.pid
        os.kill(pid, sig)
        return self.host.daemon.wait_again(pid)

    @contextlib.contextmanager
    def drop_in(self, *lines):
        """Its service with these settings."""
        os.makedirs(DROP_IN, exist_ok=True)
        path = os.path.join(DROP_IN, "test.conf")
        with open(path, "w") as f:
            f.write("\n".join(["[Service]", *lines, ""]))
        try:
            run("systemctl", "daemon-reload")
            yield
        finally:
            os.unlink(path)
            run("systemctl", "daemon-reload")


class InUse(Case):
    """The VM's guest works its devices all the time."""
    vm = "worker"

    @classmethod
    def make_vm(cls):
        cls.other = OtherHost(cls.lab).start()
        cls.world = World(cls.lab, [cls.host, cls.other], {f"d{i}": SPEC for i in range(DEVICES)})
        cls.addClassCleanup(cls.world.close)

    def goes_on(self):
        """It has found nothing wrong, and finds nothing in what it does now."""
        self.world.wait_steps(5)


class Idle(Case):
    """Nobody uses the devices."""
    vm = "idle"

    @classmethod
    def make_vm(cls):
        cls.server = cls.lab.server("server", {f"d{i}": "size=64K" for i in range(DEVICES)})
        cls.host.register(definition(cls.vm, new_uuid(), cls.server, list(cls.server.specs)))
        cls.addClassCleanup(cls.host.migctl, "unregister", cls.vm)

    def goes_on(self):
        self.found()
        self.assertEqual(set(self.server.states().values()), {"running"})


class Restarts(InUse):
    def test_killed_again_and_again(self):
        """Ten times, and while it starts, too. systemd's own limit would be five in ten seconds."""
        before = int(self.host.daemon.show("NRestarts"))
        with self.same_agents():
            pid = self.pid
            run("systemctl", "kill", "-s", "KILL", "migmgrd")
            for _ in range(9):
                pid = self.host.daemon.wait_again(pid)
                os.kill(pid, signal.SIGKILL)
            self.host.daemon.wait_again(pid)
        self.assertGreaterEqual(int(self.host.daemon.show("NRestarts")), before + 10)
        with open(f"/proc/{self.pid}/environ", "rb") as f:
            given = dict(v.split(b"=", 1) for v in f.read().split(b"\0") if b"=" in v)
        self.assertEqual((given[b"LISTEN_FDS"], given[b"LISTEN_FDNAMES"]), (b"%d" % DEVICES, b":".join([b"agent"] * DEVICES)))

    def test_ended_without_a_failure(self):
        with self.same_agents():
            self.kill_daemon(signal.SIGTERM)

    def test_restarted(self):
        with self.same_agents():
            run("systemctl", "restart", "migmgrd")

    def test_stopped_and_started_by_who_calls(self):
        """When it is stopped systemd keeps nothing; agents live on, and are found by their paths."""
        with self.same_agents(by_path=True):
            run("systemctl", "stop", "migmgrd")
            self.assertEqual(self.host.parked(), 0)
            self.world.wait_steps(5)
            self.assertEqual(self.host.migctl("list")[0], 0)
        self.assertEqual(self.host.daemon.show("ActiveState"), "active")

    def test_systemd_begins_anew(self):
        with self.same_agents():
            run("systemctl", "daemon-reexec")
            self.assertEqual(self.host.parked(), DEVICES)
            self.kill_daemon()


class Store(Idle):
    def test_room_for_one(self):
        with self.same_agents(by_path=True), self.drop_in("FileDescriptorStoreMax=1"):
            run("systemctl", "stop", "migmgrd")
            run("systemctl", "start", "migmgrd")
            self.found()
            wait_for("one parked connection", lambda: self.host.parked() == 1)
            before = self.connections()
            self.kill_daemon()
            self.found()
            self.assertEqual(sum(a != b for a, b in zip(before, self.connections())), 1)
            self.assertEqual(self.host.parked(), 1)
        with self.same_agents(by_path=True):
            self.kill_daemon()

    def test_strays_that_fill_it(self):
        path = os.path.join(self.lab.dir, "strays.py")
        with open(path, "w") as f:
            f.write(STRAYS)
        with self.same_agents(by_path=True):
            with self.drop_in("FileDescriptorStoreMax=20", "NotifyAccess=all", f"ExecStartPost=/usr/bin/python3 {path} 15"):
                run("systemctl", "restart", "migmgrd")
                self.found()
                self.assertEqual(self.host.parked(), 20)
            self.kill_daemon()

    def test_the_bus_dies(self):
        """Then the daemon ends, and is started again when the next bus is there."""
        with self.same_agents():
            os.kill(Unit("dbus.service").pid, signal.SIGKILL)
            self.host.daemon.wait_again(self.pid)


class Units(Idle):
    def test_systemd_does_not_complain(self):
        p = subprocess.run(["systemd-analyze", "verify", "--man=no", *UNITS], capture_output=True, text=True)
        self.assertEqual((p.returncode, p.stdout + p.stderr), (0, ""))

    def test_reload(self):
        run("systemctl", "reload", "migmgrd")
        path = "/etc/migmgr/policies.d/test.json"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write("no JSON")
        try:
            self.assertNotEqual(subprocess.run(["systemctl", "reload", "migmgrd"], capture_output=True).returncode, 0)
        finally:
            os.unlink(path)
        run("systemctl", "reload", "migmgrd")
        self.assertEqual(self.host.daemon.pid, self.pid)

    def test_the_helper_comes_back(self):
        for sig in (signal.SIGKILL, signal.SIGTERM):
            pid = self.host.helper.pid
            os.kill(pid, sig)
            self.host.helper.wait_again(pid)
        run("systemctl", "restart", "migmgr-helper")
        self.assertEqual(sorted(self.host.agents()), self.agents)
        self.assertEqual(self.host.daemon.pid, self.pid)
        self.assertEqual(self.host.helper.show("TasksMax"), "infinity")  # there is one for each agent

    def test_an_agent_whose_scope_does_not_end(self):
        """Something of it hangs in the kernel: here it is another process."""
        with open(f"/proc/{self.agents[0]}/cgroup") as f:
            scope = f.read().strip().split(":")[-1]
        self.assertTrue(scope.endswith(".scope"), scope)
        rest = Process(self.lab, "rest", ["sleep", "1000"])
        with open(f"/sys/fs/cgroup{scope}/cgroup.procs", "w") as f:
            f.write(str(rest.pid))
        path = os.path.join(self.host.dir, self.vm + ".json")
        for pid in self.agents:
            os.kill(pid, signal.SIGKILL)
        wait_for("their end", lambda: not self.host.agents())
        self.assertEqual(self.host.migctl("unregister", self.vm)[0], 0)
        self.assertEqual(self.host.migctl("register", path), (0, "", ""))
        rest.kill()

    def test_scopes_are_ended_like_others(self):
        """Nobody ignores it, so a host does not wait for them when it shuts down."""
        began = time.monotonic()
        run("systemctl", "stop", "migmgr-agent-*.scope")
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(self.host.agents(), [])
        self.assertEqual(self.host.migctl("unregister", self.vm)[0], 0)
        self.assertEqual(self.host.migctl("register", os.path.join(self.host.dir, self.vm + ".json"))[0], 0)

    def test_the_journal_says_of_whom_it_speaks(self):
        said = run("journalctl", "-b", "-u", "migmgrd", "-o", "cat", "--no-pager").split("\n")
        self.assertIn(f"{self.vm}: registered, here", said)


def main():
    if vfio_guest.KERNEL:
        unittest.main()
    with tempfile.TemporaryDirectory(prefix="migmgr-installed-") as dest:
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")}
        subprocess.run(["make", "-s", "-C", BUILD, "install", "DESTDIR=" + dest], stdout=subprocess.DEVNULL, check=True, env=env)
        os.environ["MIGMGR_INSTALLED"] = dest
        sys.exit(vfio_guest.on_host(sys.argv[0], *sys.argv[1:], options=["-i", "systemd", "-s", dest]))


if __name__ == "__main__":
    main()
