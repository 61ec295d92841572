# SPDX-License-Identifier: LGPL-2.1-or-later
"""In the guest of tests/system/vfio-guest: real VFIO devices, mdevs of mtty, and a counting guest in a stock QEMU that has them.

A test of it is a unittest file that ends with `vfio_guest.main()`: on the host it is run again in the guest, there its cases
are run. By hand, in the guest:

    load(); d = Mdev(); d.order("delay", "RESUMING>STOP", 150000); d.open().set(STOP); d.status()
"""

import os
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
import unittest
import uuid

import vfio_uapi
from lab import QEMU, TOP, Guest, Process, find_processes, program, wait_for

FOLDER = os.path.join(TOP, "tests", "system", "vfio-guest")
KERNEL = os.environ.get("MIGMGR_IN_GUEST")  # debian or iommufd; not set on the host
TYPES = "/sys/class/mdev_bus/mtty/mdev_supported_types"
DEVICES = "/sys/bus/mdev/devices"
LINE_CONTROL, STEP = 0x1b, 37  # of vfio-guest/rom.S
MAX_DEVICES = 8
LINE = re.compile(rb"C ([0-9A-F]{8})((?: [0-9A-F]{4})*)")


def on_host(script, *args, memory=1024, seconds=600, options=()):
    """Runs a script of this folder in the guest; returns its exit status. Environment variable MIGMGR_GUEST_KERNEL chooses the
    kernel, and MIGMGR_GUEST_QEMU=newer a newer QEMU than Debian's for that guest. `options`: for vfio-guest/run."""
    kernel, newer = os.environ.get("MIGMGR_GUEST_KERNEL", "debian"), os.environ.get("MIGMGR_GUEST_QEMU") == "newer"
    subprocess.run([os.path.join(FOLDER, "prepare"), *(["--iommufd"] if kernel == "iommufd" else []),
                    *(["--qemu-newer"] if newer else [])], check=True)
    env = dict(os.environ)
    if newer:
        folder = os.path.join(os.environ.get("MIGMGR_GUEST_CACHE", "/var/tmp/migmgr-vfio-guest"), "qemu_newer")
        env["MIGMGR_QEMU"], options = os.path.join(folder, "qemu-system-x86_64"), [*options, "-s", folder]
    return subprocess.run([os.path.join(FOLDER, "run"), "-k", kernel, "-m", str(memory), "-t", str(seconds), *options, "--",
                           "python3", os.path.abspath(script), *args], env=env).returncode


def main(memory=1024, seconds=300, share=(), out=None):
    """For the end of a test file. `memory` in MiB and `seconds` are the guest's; see on_host()."""
    if KERNEL:
        unittest.main()
    options = [*[f"-s{d}" for d in share], *([f"-o{out}"] if out else [])]
    sys.exit(on_host(sys.argv[0], *sys.argv[1:], memory=memory, seconds=seconds, options=options))


def qemu_version():
    """Of the one that has the devices."""
    return subprocess.run([QEMU, "--version"], capture_output=True, text=True).stdout.split("\n")[0].split()[3]


def load(kind="changed"):
    """The driver: `stock`, or `changed` with what vfio-guest/mtty-control.h says. No other one is in use."""
    subprocess.run(["modprobe", "-a", "mdev", "vfio_iommu_type1", "vfio_pci"], stderr=subprocess.DEVNULL)
    if os.path.exists("/sys/module/mtty"):
        subprocess.run(["rmmod", "mtty"], check=True)
    subprocess.run(["insmod", f"/usr/lib/vfio-guest/{kind}/mtty.ko"], check=True)


class Mdev:
    """A device of mtty. `ports`: 1 or 2, of which the data has so many."""

    def __init__(self, ports=1):
        self.uuid, self.ports = str(uuid.uuid4()), ports
        self.path = f"{DEVICES}/{self.uuid}"
        with open(f"{TYPES}/mtty-{ports}/create", "w") as f:
            f.write(self.uuid)
        # udev isn't there: the kernel makes its nodes, a moment later.
        wait_for("the device's node", lambda: os.path.exists(f"/dev/vfio/{self.group}"))

    @property
    def group(self):
        return os.path.basename(os.readlink(f"{self.path}/iommu_group"))

    @property
    def cdev(self):
        """vfioN, or None where the kernel has no cdevs."""
        folder = f"{self.path}/vfio-dev"
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return names[0] if names and os.path.exists(f"/dev/vfio/devices/{names[0]}") else None

    def remove(self):
        """Waits until nobody has it open any more."""
        with open(f"{self.path}/remove", "w") as f:
            f.write("1")

    def open(self, door="group"):
        return vfio_uapi.open_by_cdev(self.cdev) if door == "cdev" else vfio_uapi.open_by_group(self.group, self.uuid)

    def order(self, *words):
        """One of vfio-guest/mtty-control.h."""
        with open(f"{self.path}/test/control", "w") as f:
            f.write(" ".join(map(str, words)))

    def status(self):
        """{"state": "RUNNING", "hanging": 0, "resets": 0, "read": 0, "written": 0, "size": 0, "set": {"RUNNING>STOP": 1},
        "arc": {"RUNNING>RUNNING_P2P": 1}}; what was never asked is not in the last two."""
        with open(f"{self.path}/test/status") as f:
            rows = [line.split() for line in f]
        said = {row[0]: row[1] if row[0] == "state" else int(row[1]) for row in rows if len(row) == 2}
        for kind in ("set", "arc"):
            said[kind] = {row[1]: int(row[2]) for row in rows if row[0] == kind}
        return said

    def debugfs_state(self):
        """What the kernel says without anybody having it open, or None where it has no such file."""
        try:
            with open(f"/sys/kernel/debug/vfio/{self.uuid}/migration/state") as f:
                return f.read().strip()
        except OSError:
            return None


def duplicate(pid, mdev):
    """The device as another process has it open, which has it by group or by cdev. A device file of a group can't be told
    from another one: there it is a new file of the same device."""
    for fd, link in vfio_uapi.links(pid).items():
        if mdev.cdev and link == f"/dev/vfio/devices/{mdev.cdev}":
            return vfio_uapi.Device(vfio_uapi.duplicate(pid, fd))
        if link == f"/dev/vfio/{mdev.group}":
            group = vfio_uapi.duplicate(pid, fd)
            try:
                return vfio_uapi.Device(vfio_uapi.device_of_group(group, mdev.uuid))
            finally:
                os.close(group)
    raise OSError(f"process {pid} has not opened {mdev.uuid}")


def states(pid, mdevs):
    """Names of the states of a process's devices, as the kernel says."""
    names = []
    for mdev in mdevs:
        with duplicate(pid, mdev) as device:
            state = device.state()
            names.append(vfio_uapi.STATES[state] if state >= 0 else vfio_uapi.code(state))
    return names


class Line:
    """What the guest printed at one tick: `found`, of each device, its scratch register and its line control register."""

    def __init__(self, time_, place, count, found):
        self.time, self.place, self.count, self.found = time_, place, count, found

    def intact(self):
        """Of each device: is it as the guest left it?"""
        return [scratch == (self.count + STEP * i & 255) and control == LINE_CONTROL
                for i, (scratch, control) in enumerate(self.found)]

    def __repr__(self):
        return f"{self.place} C {self.count:08x} " + " ".join(f"{s:02x}{c:02x}" for s, c in self.found)


class Reader:
    """Takes what QEMUs print, each place at a socket of its own, line by line with the time when it came. A guest may be stopped
    within a line, and ends it at the other place: there is one rest for all."""

    def __init__(self):
        self.lines, self.rest, self.selector = [], b"", selectors.DefaultSelector()
        self.wake, self.waker = socket.socketpair()
        self.selector.register(self.wake, selectors.EVENT_READ, None)
        threading.Thread(target=self.run, daemon=True).start()

    def listen(self, place, path):
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen(5)
        self.selector.register(s, selectors.EVENT_READ, (place, True))
        self.waker.send(b"x")

    def run(self):
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    self.wake.recv(100)
                elif key.data[1]:
                    self.selector.register(key.fileobj.accept()[0], selectors.EVENT_READ, (key.data[0], False))
                else:
                    self.take(key.fileobj, key.data[0])

    def take(self, s, place):
        try:
            data = s.recv(65536)
        except OSError:
            data = b""
        now = time.monotonic()
        if not data:
            self.selector.unregister(s)
            s.close()
            return
        # A guest that is moved in the middle of a line ends it at the other place.
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if match := LINE.fullmatch(line):
                found = [(int(w[:2], 16), int(w[2:], 16)) for w in match[2].split()]
                self.lines.append(Line(now, place, int(match[1], 16), found))


class Side:
    """Stands for a Host where there is no daemon."""
    env = None

    def __init__(self, lab, name):
        self.name, self.dir = name, os.path.join(lab.dir, name)
        os.makedirs(self.dir, exist_ok=True)


class VfioGuest(Guest):
    """The guest that counts on its devices (vfio-guest/rom.S) in stock QEMUs, by `door`: group or cdev. `devices`: {name of
    the host: [Mdev, ...]}, at most MAX_DEVICES. `properties` goes behind each -device vfio-pci."""

    def __init__(self, lab, name, devices, door=None, extra=(), properties=""):
        self.devices, self.extra, self.reader = devices, list(extra), Reader()
        self.door = door or ("cdev" if KERNEL == "iommufd" else "group")
        # Debian's kernel offers DMA logging and can't report: QEMU would refuse to migrate at all.
        self.properties = ("" if KERNEL == "iommufd" else ",x-device-dirty-page-tracking=off") + properties
        self.lab, self.name, self.process, self.listening = lab, name, None, set()
        self.argv = [QEMU, "-name", name + ",debug-threads=on", "-accel", "tcg", "-M", "pc", "-m", "16", "-smp", "1", "-nodefaults",
                     "-no-user-config", "-display", "none", "-bios", program("tests/system/vfio-guest/rom.bin")]

    def argv_at(self, host):
        path = os.path.join(host.dir, self.name + ".lines")
        if path not in self.listening:
            self.reader.listen(host.name, path)
            self.listening.add(path)
        argv = self.argv + ["-chardev", f"socket,id=lines,path={path}", "-device", "isa-debugcon,iobase=0xe9,chardev=lines",
                            "-chardev", f"socket,id=eye,path={self.eye(host)},server=on,wait=off",
                            "-mon", "chardev=eye,mode=control"]
        if self.door == "cdev":
            argv += ["-object", "iommufd,id=iommufd0"]
        for i, mdev in enumerate(self.devices[host.name]):
            argv += ["-device", f"vfio-pci,sysfsdev={mdev.path},id=v{i},addr={5 + i},enable-migration=on,migration-events=on" +
                     (",iommufd=iommufd0" if self.door == "cdev" else "") + self.properties]
        return argv + self.extra

    def start_incoming(self, host):
        """As an operator would, at the destination. Returns the Process."""
        return Process(self.lab, f"{self.name}-{host.name}-incoming", self.argv_at(host) + [
            "-qmp", f"unix:{self.monitor(host)},server=on,wait=off", "-incoming", "defer", "-S"])

    def qemus(self, host=None):
        """Pids of its VMMs, on one host or on all."""
        name = self.name + ",debug-threads=on"
        # A newer QEMU is started by a loader of its own, which stands before it.
        return find_processes(lambda argv, pid: name in argv and
                              (not host or any(a.startswith(f"socket,id=eye,path={self.eye(host)},") for a in argv)))

    def states(self, host):
        """Of its devices there, by the kernel's word."""
        return states(self.qemus(host)[0], self.devices[host.name])

    def lines(self):
        return list(self.reader.lines)

    def count(self):
        return self.reader.lines[-1].count if self.reader.lines else 0

    def verdict(self, since=0):
        """(counts lost, counts repeated, [of each device: lines in which it was not as the guest had left it]), all from that
        line on."""
        lines, lost, repeated = self.lines()[since:], 0, 0
        for a, b in zip(lines, lines[1:]):
            lost += max(0, b.count - a.count - 1)
            repeated += max(0, a.count + 1 - b.count)
        bad = [sum(not ok for ok in column) for column in zip(*(line.intact() for line in lines))]
        return lost, repeated, bad

    def outage(self):
        """Seconds between the last line at one place and the first at the next one; [] if it never moved."""
        lines = self.lines()
        return [b.time - a.time for a, b in zip(lines, lines[1:]) if a.place != b.place]
