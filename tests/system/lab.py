# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hosts, device servers and QEMUs on one machine, for tests, demo and benchmarks.

A Host is what one virtualization host runs: a bus of its own, migmgr-helper and migmgrd, with their own runtime and state
directories. Everything is started from the build directory (environment variable MIGMGR_BUILD) and lives below one
temporary directory, whose path is short because sockets are in it. Waiting is always for something, with a bound.
"""

import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid

# A shell has what it starts in the background ignore Ctrl-C, and that is inherited by all that is started here.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QEMU = os.environ.get("MIGMGR_QEMU", "/usr/bin/qemu-system-x86_64")
BUILD = os.environ.get("MIGMGR_BUILD", os.path.join(TOP, "build"))
# How much more time everything is given: with sanitizers, or on a slow machine.
PACE = float(os.environ.get("MIGMGR_PACE", "1"))
# How the daemons of a Lab find each other, where it is not told: "unix", or "tcp" on the loopback.
TRANSPORT = os.environ.get("MIGMGR_TRANSPORT", "unix")

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


def program(name):
    return os.path.join(BUILD, name)


def wait_for(what, condition, seconds=10.0):
    """Calls `condition` until it returns something true, and returns that."""
    end = time.monotonic() + seconds * PACE
    pause = 0.001
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def is_alive(pid):
    """A zombie does not live; a process whose first thread has ended before the others still does, and can't be waited
    for yet."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            zombie = f.read().rsplit(")", 1)[1].split()[0] in "ZX"
        return not zombie or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


class Process:
    """A program that we started, with its output in a file."""

    def __init__(self, lab, name, argv, env=None, ready_fd=None, pass_fds=()):
        self.name, self.argv = name, argv
        self.log_path = os.path.join(lab.dir, name + ".log")
        self.log = open(self.log_path, "ab")
        self.log_start = self.log.tell()  # an earlier life of the same name wrote what is before
        self.p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=env,
                                  pass_fds=pass_fds, start_new_session=True)
        lab.processes.append(self)

    @property
    def pid(self):
        return self.p.pid

    def alive(self):
        return self.p.poll() is None

    def kill(self, sig=signal.SIGKILL):
        if self.alive():
            self.p.send_signal(sig)
        self.p.wait(10)

    def stop(self):
        """Politely, then not."""
        if self.alive():
            self.p.terminate()
            try:
                self.p.wait(5)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait(5)
        self.log.close()

    def output(self):
        with open(self.log_path, errors="replace") as f:
            f.seek(self.log_start)
            return f.read()


class Host:
    """One migmgrd with its helper and its bus. `config` is what goes into migmgrd.json, but for `policy`, which holds for all VMs
    and devices. `daemon_program`: another one in its place. `plugins`: files of those that it loads. `env`: what daemon, helper,
    agents and VMM have more in their environment."""

    def __init__(self, lab, name, config=None, wrap=(), daemon_program="migmgrd", plugins=(), env=None):
        self.env = {**os.environ, **env} if env else None
        self.daemon_program = program(daemon_program)
        self.agent_program = program("migmgr-agent")
        self.lab, self.name, self.wrap = lab, name, list(wrap)
        self.dir = os.path.join(lab.dir, name)
        self.runtime = os.path.join(self.dir, "run")
        self.state = os.path.join(self.dir, "state")
        self.vms = os.path.join(self.dir, "vms.d")
        self.policies = os.path.join(self.dir, "policies.d")
        self.plugins = os.path.join(self.dir, "plugins")
        for d in (self.dir, self.runtime, self.vms, self.policies, self.plugins):
            os.makedirs(d, exist_ok=True)
        self.bus_address = "unix:path=" + os.path.join(self.dir, "bus")
        self.config = os.path.join(self.dir, "migmgrd.json")
        config = dict(config or {})
        policy = config.pop("policy", None)
        if policy:
            self.write_policy("00-lab", {"match": {}, "set": policy})
        self.dest, listen = "unix:" + os.path.join(self.runtime, "peer.sock"), {}
        if lab.transport == "tcp":
            self.dest = f"tcp://127.0.0.1:{free_port()}"
            listen = {"listen": [self.dest]}
        with open(self.config, "w") as f:
            json.dump({"vms-dir": self.vms, "policies-dirs": [self.policies], "plugins-dir": self.plugins, **listen,
                       **config}, f)
        for plugin in plugins:
            self.add_plugin(plugin)
        self.bus = self.helper = self.daemon = self.restored = None

    def start(self):
        self.start_bus()
        self.start_helper()
        self.start_daemon()
        return self

    def write_policy(self, name, *rules, **rest):
        """A policy file of that name, which holds from the daemon's start on, or from when it is told to read them again."""
        with open(os.path.join(self.policies, name + ".json"), "w") as f:
            json.dump({"rules": rules, **rest}, f, indent=1)

    def add_plugin(self, path, name=None):
        """A copy of a plugin, which is loaded from the daemon's start on. A path that is not absolute is one of the build."""
        copy = os.path.join(self.plugins, name or os.path.basename(path))
        shutil.copyfile(program(path), copy)
        os.chmod(copy, 0o644)
        return copy

    def start_bus(self):
        path = os.path.join(self.dir, "bus.conf")
        with open(path, "w") as f:
            f.write(BUS_CONFIG.format(path=os.path.join(self.dir, "bus")))
        self.bus = Process(self.lab, self.name + "-bus", ["dbus-daemon", "--config-file=" + path, "--nofork", "--nopidfile"])
        wait_for("bus of " + self.name, lambda: connects(os.path.join(self.dir, "bus")))

    def start_helper(self, wrap=()):
        self.helper = Process(self.lab, self.name + "-helper",
                              [*wrap, program("migmgr-helper"), "--runtime-dir=" + self.runtime,
                               "--agent=" + self.agent_program], env=self.env)
        wait_for("helper of " + self.name,
                 lambda: connects(os.path.join(self.runtime, "helper.sock"), socket.SOCK_SEQPACKET))

    def daemon_argv(self):
        return self.wrap + [self.daemon_program, "--runtime-dir=" + self.runtime, "--state-dir=" + self.state,
                            "--config=" + self.config, "--bus-address=" + self.bus_address,
                            "--plugin-host=" + program("migmgr-plugin-host")]

    def start_daemon(self, wait=True):
        self.daemon = Process(self.lab, self.name + "-migmgrd", self.daemon_argv(), env=self.env)
        if wait:
            self.wait_ready()

    def wait_ready(self):
        def ready():
            if not self.daemon.alive():
                raise AssertionError(f"migmgrd of {self.name} ended: {self.daemon.output()[-2000:]}")
            return "\nready, " in "\n" + self.daemon.output()
        wait_for("migmgrd of " + self.name, ready, 15)

    def migctl_start(self, *args):
        return subprocess.Popen([program("migctl"), "--bus-address=" + self.bus_address, *args],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def migctl(self, *args, timeout=120):
        """Returns (exit status, stdout, stderr)."""
        p = self.migctl_start(*args)
        try:
            out, err = p.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate()
            raise AssertionError(f"migctl {' '.join(args)}: not within {timeout} s")
        return p.returncode, out, err

    def json(self, *args, timeout=120):
        """Returns (exit status, what --json printed)."""
        status, out, err = self.migctl("--json=short", *args, timeout=timeout)
        try:
            return status, json.loads(out) if out.strip() else {"stderr": err}
        except ValueError:
            raise AssertionError(f"migctl {' '.join(args)}: {status} {out!r} {err!r}")

    def register(self, definition, incoming=False):
        path = os.path.join(self.dir, f"{definition['name']}.json")
        with open(path, "w") as f:
            json.dump(definition, f)
        status, out, err = self.migctl("register", *(["--incoming"] if incoming else []), path)
        assert status == 0, (status, out, err)

    def migrate(self, vm, dest, *args, timeout=120):
        return self.json("migrate", *args, vm, dest.dest if isinstance(dest, Host) else dest, timeout=timeout)

    def vm(self, name):
        status, vms = self.json("list")
        assert status == 0, vms
        return next((v for v in vms if v["name"] == name), None)

    def devices(self, name):
        status, devices = self.json("devices", name)
        assert status == 0, devices
        return {d["Id"]: d for d in devices}

    def jobs(self):
        """Properties of the jobs that this host shows, oldest first; none when its daemon does not answer."""
        p = subprocess.run(["busctl", "--address=" + self.bus_address, "--json=short", "call", "org.migmgr1",
                            "/org/migmgr1", "org.freedesktop.DBus.ObjectManager", "GetManagedObjects"],
                           capture_output=True, text=True, timeout=20)
        if p.returncode != 0:
            return []
        objects = [{k: v["data"] for k, v in interfaces["org.migmgr1.Job"].items()}
                   for interfaces in json.loads(p.stdout)["data"][0].values() if "org.migmgr1.Job" in interfaces]
        return sorted(objects, key=lambda job: job.get("CreatedUsec", 0))

    def is_restoring(self):
        """A job of before its restart is not taken up again yet: then it is no object, but in the list. Asked no more when
        that is over."""
        if self.restored is self.daemon:
            return False
        status, jobs = self.json("jobs")
        restoring = status == 0 and any(job["state"] == "restoring" for job in jobs)
        if status == 0 and not restoring:
            self.restored = self.daemon
        return restoring

    def agents(self):
        """Pids of the agents whose sockets are in our runtime directory."""
        sockets = unix_sockets(os.path.join(self.runtime, "agent"))
        return [pid for pid in find_processes(lambda argv, pid: argv and argv[0] == self.agent_program)
                if sockets & socket_inodes(pid)]


def unix_sockets(directory):
    """Inodes of the UNIX sockets below a directory."""
    with open("/proc/net/unix", errors="replace") as f:
        fields = (line.split() for line in f)
        return {f[6] for f in fields if len(f) > 7 and f[7].startswith(directory + "/")}


def socket_inodes(pid):
    """Inodes of the sockets that a process holds."""
    inodes = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                link = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    except OSError:
        pass
    return inodes


def find_processes(matches):
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                argv = [a.decode(errors="replace") for a in f.read().split(b"\0")[:-1]]
        except OSError:
            continue
        if matches(argv, int(pid)):
            found.append(int(pid))
    return found


def connects(path, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_UNIX, kind)
    try:
        s.connect(path)
        return True
    except OSError:
        return False
    finally:
        s.close()


def free_port():
    """One on which nobody listens, and which is not given to those who connect: who dials a port of those again and again
    finds himself at its other end one day."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def peer_socket(dest):
    """A socket for a DEST of migctl."""
    return socket.socket(socket.AF_UNIX if dest.startswith("unix:") else socket.AF_INET)


def peer_address(dest):
    if dest.startswith("unix:"):
        return dest[len("unix:"):]
    host, port = dest[len("tcp://"):].rsplit(":", 1)
    return host, int(port)


class Control:
    """One JSON object a line, answered with one that has `ok`."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(20)
        self.s.connect(path)
        self.f = self.s.makefile("rw")

    def command(self, cmd, **kw):
        self.f.write(json.dumps({"cmd": cmd, **kw}) + "\n")
        self.f.flush()
        answer = json.loads(self.f.readline())
        assert answer.get("ok"), (cmd, kw, answer)
        return answer

    def close(self):
        self.f.close()
        self.s.close()


class TestVmm(Control):
    """migmgr-test-vmm on one host. `devices`: {id: the socket of its server or broker}."""

    def __init__(self, lab, host, name, vm_uuid, devices, *options, memory=16):
        self.bus_name = "org.example.vmm." + name
        control = os.path.join(lab.dir, f"vmm-{name}.control")
        self.process = Process(lab, "vmm-" + name, [
            program("migmgr-test-vmm"), "--uuid=" + vm_uuid, "--bus-address=" + host.bus_address,
            "--bus-name=" + self.bus_name, "--control=" + control, f"--memory={memory}",
            *[f"--device={d}={path}" for d, path in devices.items()], *options], env=host.env)
        wait_for("test VMM " + name, lambda: "ready\n" in self.process.output() or not self.process.alive(), 20)
        assert self.process.alive(), self.process.output()
        super().__init__(control)

    def close(self):
        super().close()
        self.process.stop()

    def status(self):
        return self.command("status")


class DeviceServer(Control):
    """migmgr-emulated-device with its control socket. `devices`: {id: "key=value,..."}."""

    def __init__(self, lab, name, devices, *options):
        self.lab, self.name, self.options = lab, name, list(options)
        self.dir = os.path.join(lab.dir, name)
        os.makedirs(self.dir, exist_ok=True)
        self.control = os.path.join(self.dir, "control")
        self.specs = dict(devices)
        self.process = None
        self.s = None
        self.start()

    def socket(self, device):
        return os.path.join(self.dir, device)

    def start(self):
        self.process = Process(self.lab, self.name, [
            program("migmgr-emulated-device"), "--control=" + self.control, *self.options,
            *[f"socket={self.socket(d)},id={d}" + ("," + spec if spec else "") for d, spec in self.specs.items()]])
        wait_for("device server " + self.name, lambda: connects(self.control) or not self.process.alive())
        self.connect()

    def connect(self):
        super().__init__(self.control)

    def leave(self):
        """Nobody watches any more: a device that has nothing to do sleeps. With a control connection it counts, a hundred
        times a second, which is much when there are many. connect() comes back."""
        self.close()
        self.s = None

    def status(self, device=None):
        devices = {d["id"]: d for d in self.command("status")["devices"]}
        return devices[device] if device else devices

    def states(self):
        return {k: v["state"] for k, v in self.status().items()}

    def log(self, device, clear=False):
        return self.command("log", device=device, clear=clear)["log"]

    def fault(self, device, fault):
        self.command("fault", device=device, fault=fault)

    def clear(self, device="*"):
        self.command("clear", device=device)

    def digest(self, device):
        return self.command("digest", device=device)

    def kill(self):
        self.close()
        self.process.kill()

    def stop(self):
        if self.s:
            self.close()
        self.process.stop()


class Monitor:
    """A QMP client of the test's own, on a QEMU's second monitor."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(10)
        wait_for(path, lambda: self.s.connect_ex(path) == 0)
        self.f = self.s.makefile("rw")
        self.events = []  # that came between answers
        self.f.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        self.f.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.f.flush()
        while True:
            line = self.f.readline()
            if not line:
                raise OSError("the monitor has gone")
            answer = json.loads(line)
            if "event" not in answer:
                return answer.get("return", answer.get("error"))
            self.events.append(answer)

    def remaining_events(self):
        """Names of the events that came and come, to the end of the process."""
        return [event["event"] for event in map(json.loads, self.f) if "event" in event]

    def close(self):
        self.f.close()
        self.s.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Guest:
    """The counting guest (tests/guest/counter.S) in real QEMUs. Wherever it runs, it writes to one serial file, so what it
    printed before and after a move is one text. On each host its QEMU has a second monitor, for the test."""

    def __init__(self, lab, name, memory_mib=16, machine="pc", extra=()):
        self.lab, self.name = lab, name
        self.serial = os.path.join(lab.dir, name + ".serial")
        self.argv = [QEMU, "-name", name, "-accel", "tcg", "-M", machine, "-m", str(memory_mib), "-smp", "1",
                     "-nodefaults", "-no-user-config", "-display", "none", "-bios", program("tests/guest/counter.rom"),
                     "-chardev", f"file,id=serial,path={self.serial},append=on",
                     "-device", "isa-serial,chardev=serial", *extra]
        self.process = None

    def monitor(self, host):
        return os.path.join(host.dir, self.name + ".qmp")

    def eye(self, host):
        return os.path.join(host.dir, self.name + ".eye")

    def argv_at(self, host):
        return self.argv + ["-chardev", f"socket,id=eye,path={self.eye(host)},server=on,wait=off",
                            "-mon", "chardev=eye,mode=control"]

    def start(self, host):
        """As an operator would, on the host where it is first."""
        self.process = Process(self.lab, self.name + "-qemu", self.argv_at(host) + [
            "-qmp", f"unix:{self.monitor(host)},server=on,wait=off"], env=host.env)
        self.wait_counts(5)

    def vmm(self, host, argv=None):
        return {"type": "qmp", "monitor": self.monitor(host), "incoming": {"argv": argv or self.argv_at(host)}}

    def look(self, host):
        """A monitor of our own into its QEMU on that host."""
        return Monitor(self.eye(host))

    def lines(self):
        """[(count, wrong pages)], whole lines only."""
        try:
            with open(self.serial, errors="replace") as f:
                text = f.read()
        except OSError:
            return []
        return [(int(a), int(b)) for c, a, b in
                (line.split() for line in text.split("\n")[:-1] if line.count(" ") == 2) if c == "C"]

    def count(self):
        lines = self.lines()
        return lines[-1][0] if lines else 0

    def wait_counts(self, more, seconds=20):
        """The guest runs: it counts on."""
        start = self.count()
        wait_for(f"guest {self.name} to count on from {start}", lambda: self.count() >= start + more, seconds)

    def stands(self, seconds=0.3):
        """It does not count for that long."""
        before = self.count()
        time.sleep(seconds)
        return self.count() == before

    def verdict(self):
        """(counts lost, counts repeated, wrong pages)"""
        lines = self.lines()
        lost = repeated = 0
        for (a, _), (b, _) in zip(lines, lines[1:]):
            lost += max(0, b - a - 1)
            repeated += max(0, a + 1 - b)
        return lost, repeated, lines[-1][1] if lines else -1

    def qemus(self, host=None):
        """Pids of its VMMs, on one host or on all."""
        paths = [self.monitor(h) for h in ([host] if host else self.lab.hosts)]
        return find_processes(lambda argv, pid: any(path + "," in arg for path in paths for arg in argv))


open_labs = set()


@atexit.register
def close_open_labs():
    for lab in list(open_labs):
        lab.close()


class Lab:
    """Ends everything that was started in it, agents and VMMs included: with its block, or with the program. With
    MIGMGR_KEEP its directory stays when the block ended by an exception, or whoever judges has set `failed`. `transport`:
    how the daemons of its hosts find each other."""

    def __init__(self, keep=False, transport=TRANSPORT):
        self.transport = transport
        self.dir = tempfile.mkdtemp(prefix="migmgr-")
        self.processes, self.hosts, self.keep, self.failed = [], [], keep, False
        open_labs.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.failed |= bool(exc and exc[0])
        self.close()

    def close(self):
        if self not in open_labs:
            return
        open_labs.discard(self)
        for host in self.hosts:
            host.pids = host.agents()
        for p in reversed(self.processes):
            p.stop()
        strays = find_processes(lambda argv, pid: any(self.dir in a for a in argv) and pid != os.getpid())
        for pid in strays + [pid for host in self.hosts for pid in host.pids]:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if self.keep or (self.failed and os.environ.get("MIGMGR_KEEP")):
            print(f"kept: {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def host(self, name, **kw):
        host = Host(self, name, **kw)
        self.hosts.append(host)
        return host.start()

    def server(self, name, devices, *options):
        return DeviceServer(self, name, devices, *options)


def definition(name, vm_uuid, server, devices, vmm=None):
    return {"name": name, "uuid": vm_uuid, "vmm": vmm or {"type": "none"},
            "devices": [{"id": d, "type": "vfio-user", "socket": server.socket(d)} for d in devices]}


def new_uuid():
    return str(uuid.uuid4())
