# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test bed for kernel VFIO: what the kernel and Linux's mtty answer, that the changed mtty does what it is told, and what
two stock QEMUs do when a device refuses its state. Run on the host, it runs itself in the guest (vfio_guest.main)."""

import contextlib
import errno
import os
import signal
import struct
import threading
import time
import unittest

import vfio_guest
import vfio_uapi as uapi
from lab import Lab, wait_for
from vfio_guest import KERNEL, MAX_DEVICES, Mdev, Side, VfioGuest
from vfio_uapi import (ERROR, PRE_COPY, PRE_COPY_P2P, RESUMING, RUNNING, RUNNING_P2P, STATES, STOP, STOP_COPY, code,
                       precopy_info)

HEADER, PORT = 24, 36  # bytes of mtty's data
SCRATCH, LINE_CONTROL = 7, 3
# Rows are the state that is left, columns the one that is asked for: `+` moved, `fd` moved and a data file came with it; the
# last column is no state. What hangs Debian's kernels is not tried there: ?.
ARCS = """
             ERROR  STOP   RUNNING STOP_COPY RESUMING RUNNING_P2P PRE_COPY PRE_COPY_P2P 8
STOP         EINVAL +      +       fd        fd       +           fd       fd           EINVAL
RUNNING      EINVAL +      +       fd        fd       +           fd       fd           EINVAL
STOP_COPY    EINVAL +      +       +         fd       +           ?        ?            EINVAL
RESUMING     EINVAL EINVAL EINVAL  EINVAL    +        EINVAL      EINVAL   EINVAL       EINVAL
RUNNING_P2P  EINVAL +      +       fd        fd       +           fd       fd           EINVAL
PRE_COPY     EINVAL +      +       +         fd       +           +        +            EINVAL
PRE_COPY_P2P EINVAL +      +       +         fd       +           +        +            EINVAL
"""
MAY_HANG = KERNEL != "iommufd"
DOOR = "cdev" if KERNEL == "iommufd" else "group"


def fails(number, call):
    """Whether a call of `os` fails with this errno."""
    try:
        call()
    except OSError as e:
        return e.errno == number
    return False


class Case(unittest.TestCase):
    kind = "changed"

    @classmethod
    def setUpClass(cls):
        vfio_guest.load(cls.kind)

    def mdev(self, ports=1):
        mdev = Mdev(ports)
        self.addCleanup(mdev.remove)
        return mdev

    def opened(self, mdev):
        device = mdev.open(DOOR)
        self.addCleanup(device.__exit__)
        return device

    def device(self, ports=1):
        return self.opened(self.mdev(ports))

    def go(self, device, *states):
        """Returns the data file's descriptor, closed with the test."""
        fd = device.go(*states)
        if fd >= 0:
            self.addCleanup(os.close, fd)
        return fd

    def saved(self, device):
        """Its whole state; it is in STOP then."""
        fd, data = self.go(device, STOP_COPY), b""
        while piece := os.read(fd, 1 << 20):
            data += piece
        self.go(device, STOP)
        return data

    def load_into(self, device, data, piece=1 << 20):
        """(the first error of a write or 0, where it was, what RESUMING>STOP said, the state then)"""
        fd, at, error = self.go(device, RESUMING), 0, 0
        while at < len(data) and not error:
            try:
                at += os.write(fd, data[at:at + piece])
            except OSError as e:
                error = -e.errno
        r = device.set(STOP)[0]
        return code(error), at, code(r), STATES[device.state()]


class Answers:
    """Of the kernel and mtty; the changed one answers the same as long as it was told nothing."""

    def test_every_arc(self):
        device = self.device()
        columns, *rows = (line.split() for line in ARCS.strip().split("\n"))
        tried = 0
        for row in rows:
            start = STATES.index(row[0])
            for to, expected in enumerate(row[1:]):
                if expected == "?":
                    if MAY_HANG:
                        continue
                    expected = "EINVAL"
                self.assertEqual(device.reset(), 0)
                with contextlib.closing(Files()) as files:
                    files.add(device.go(start))
                    r, fd = device.set(to)
                    files.add(fd)
                    said = code(r) if r else "fd" if fd >= 0 else "+"
                    self.assertEqual(said, expected, f"{row[0]} > {columns[to]}")
                    self.assertEqual(STATES[device.state()], row[0] if r else STATES[to])
                tried += 1
        self.assertEqual(tried, 61 if MAY_HANG else 63)

    def test_features(self):
        device = self.device()
        for feature in range(15):
            there = feature in (1, 2, 6, 7, 8, 9)
            self.assertEqual(code(device.probe(feature)), 0 if there else "ENOTTY", feature)
        for feature, get, put in ((1, 0, "EINVAL"), (2, 0, 0), (6, "EINVAL", 0), (7, "EINVAL", 0), (8, 0, "EINVAL"), (9, 0, "EINVAL")):
            self.assertEqual(code(device.probe(feature, uapi.FEATURE_GET)), get)
            self.assertEqual(code(device.probe(feature, uapi.FEATURE_SET)), put)
        self.assertEqual(device.migration(), (0, uapi.HAS_STOP_COPY | uapi.HAS_P2P | uapi.HAS_PRE_COPY))
        self.assertEqual(device.state(), RUNNING)
        for flags, payload, argsz in ((uapi.FEATURE_GET | uapi.MIGRATION, bytes(8), 12), (uapi.FEATURE_SET | uapi.MIGRATION, bytes(8), None),
                                      (uapi.FEATURE_GET | uapi.FEATURE_SET | uapi.MIG_DEVICE_STATE, bytes(8), None),
                                      (uapi.MIG_DEVICE_STATE, bytes(8), None), (1 << 19 | uapi.MIG_DEVICE_STATE, bytes(8), None)):
            self.assertEqual(code(device.feature(flags, payload, argsz)[0]), "EINVAL", hex(flags))

    def test_data_size(self):
        for ports in (1, 2):
            device = self.device(ports)
            self.assertEqual(device.data_size(), (0, HEADER + PORT * ports))
            self.assertEqual(len(self.saved(device)), HEADER + PORT * ports)

    def test_a_whole_migration(self):
        source, destination = self.device(), self.device()
        self.assertEqual(source.write(0, SCRATCH, b"\x5a"), 1)
        source.write(0, LINE_CONTROL, b"\x03")
        saving = self.go(source, PRE_COPY)
        self.assertEqual(precopy_info(saving), (0, HEADER, 0))
        self.assertEqual(code(precopy_info(saving, 8)[0]), "EINVAL")
        data = os.read(saving, 10)
        self.assertEqual(precopy_info(saving), (0, HEADER - 10, 0))
        data += os.read(saving, 100)
        self.assertEqual((len(data), os.read(saving, 100)), (HEADER, b""))
        self.assertTrue(fails(errno.ESPIPE, lambda: os.pread(saving, 1, 0)) and fails(errno.EBADF, lambda: os.write(saving, b"x")))
        self.assertEqual(self.go(source, PRE_COPY_P2P), -1)
        self.assertEqual(precopy_info(saving), (0, 0, 0))
        self.assertEqual(self.go(source, STOP_COPY), -1)
        self.assertEqual(code(precopy_info(saving)[0]), "EINVAL")
        data += os.read(saving, 100)
        self.assertEqual(len(data), HEADER + PORT)
        self.go(source, STOP)
        self.assertTrue(fails(errno.ENODEV, lambda: os.read(saving, 1)))

        resuming = self.go(destination, RESUMING)
        self.assertEqual(code(precopy_info(resuming)[0]), "ENOTTY")
        self.assertTrue(fails(errno.EBADF, lambda: os.read(resuming, 1)))
        for i in range(len(data)):
            os.write(resuming, data[i:i + 1])
        self.assertTrue(fails(errno.ENOMEM, lambda: os.write(resuming, b"x")))
        self.go(destination, STOP, RUNNING_P2P, RUNNING)
        self.assertTrue(fails(errno.ENODEV, lambda: os.write(resuming, b"x")))
        self.assertEqual((destination.read(0, SCRATCH, 1), destination.read(0, LINE_CONTROL, 1)), (b"\x5a", b"\x03"))
        self.go(source, RUNNING)

    def test_data_that_are_not_right(self):
        device = self.device()
        good = self.saved(device)
        minor = bytearray(good)
        minor[12] ^= 1
        short = "EINVAL", "RESUMING"
        for what, data, piece, expected in (
                ("good", good, 100, (0, 60, 0, "STOP")), ("in parts", good, 16, (0, 60, 0, "STOP")),
                ("nothing", b"", 1, (0, 0, *short)), ("half the header", good[:12], 100, (0, 12, *short)),
                ("the header", good[:24], 100, (0, 24, *short)), ("one short", good[:-1], 100, (0, 59, *short)),
                ("one more", good + b"x", 100, ("ENOMEM", 0, *short)),
                # A write that is refused is loaded all the same: who writes has to end it.
                ("magic", b"\0" + good[1:], 100, ("EFAULT", 0, 0, "STOP")), ("minor", bytes(minor), 100, ("EFAULT", 0, 0, "STOP")),
                ("two ports", self.saved(self.device(2)), 100, ("ENOMEM", 0, *short)),
                ("two ports' header", self.saved(self.device(2))[:24], 100, ("EFAULT", 0, *short))):
            device.reset()
            self.assertEqual(self.load_into(device, data, piece), expected, what)
        self.assertEqual(code(device.set(RUNNING)[0]), "EINVAL")
        self.assertEqual((device.reset(), device.state()), (0, RUNNING))

    def test_reset_and_close(self):
        mdev = self.mdev()
        device = self.opened(mdev)
        device.write(0, SCRATCH, b"\x3c")
        for state in (STOP, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P):
            fd = self.go(device, state)
            self.assertEqual((device.reset(), device.state()), (0, RUNNING))
            if fd >= 0:
                self.assertTrue(fails(errno.ENODEV, lambda: os.write(fd, b"x") if state == RESUMING else os.read(fd, 1)))
        self.assertEqual(device.read(0, SCRATCH, 1), b"\x3c", "it does not clear registers")
        fd = self.go(device, STOP_COPY)
        device.close()
        self.assertTrue(fails(errno.ENODEV, lambda: os.read(fd, 1)))
        device = self.opened(mdev)
        self.assertEqual((STATES[device.state()], device.read(0, SCRATCH, 1)), ("STOP_COPY", b"\x3c"))

    def test_dma_logging(self):
        device = self.device()
        self.assertEqual(device.log_stop(), 0)
        self.assertEqual(code(device.log_start([])), "EINVAL")
        self.assertEqual(device.log_start([(0, 1 << 20)]), 0)
        self.assertEqual(code(device.log_report(0, 1 << 20)[0]), "EOPNOTSUPP" if KERNEL == "debian" else 0)
        self.assertEqual(device.log_stop(), 0)

    def test_groups(self):
        mdev = self.mdev()
        group = os.open(f"/dev/vfio/{mdev.group}", os.O_RDWR)
        self.addCleanup(os.close, group)
        self.assertTrue(fails(errno.EINVAL, lambda: uapi.device_of_group(group, mdev.uuid)), "without a container")
        self.assertTrue(fails(errno.EBUSY, lambda: os.open(f"/dev/vfio/{mdev.group}", os.O_RDWR)))
        other = self.mdev()
        device = uapi.open_by_group(other.group, other.uuid)
        with device:
            self.assertTrue(fails(errno.ENODEV, lambda: uapi.device_of_group(device.others[0], mdev.uuid)))
            with uapi.Device(uapi.device_of_group(device.others[0], other.uuid)) as again:
                self.go(device, STOP)
                self.assertEqual(again.state(), STOP, "another file of the same device")

    def test_cdevs(self):
        mdev = self.mdev()
        if KERNEL == "debian":
            self.assertIsNone(mdev.cdev)
            return
        fd = os.open(f"/dev/vfio/devices/{mdev.cdev}", os.O_RDWR)
        self.addCleanup(os.close, fd)
        self.assertEqual(code(uapi.Device(fd).state()), "EINVAL", "not bound yet")
        for iommufd, expected in ((-1, "EINVAL"), (fd, "EBADFD")):
            bind = bytearray(struct.pack("IIiI", 16, 0, iommufd, 0))
            self.assertEqual(code(uapi.ioctl(fd, uapi.DEVICE_BIND_IOMMUFD, bind)), expected)
        self.assertEqual(self.opened(self.mdev()).state(), RUNNING)


class Files:
    def __init__(self):
        self.fds = []

    def add(self, fd):
        if fd >= 0:
            self.fds.append(fd)

    def close(self):
        for fd in self.fds:
            os.close(fd)


class Stock(Answers, Case):
    kind = "stock"


class ChangedAtRest(Answers, Case):
    pass


class Changed(Case):
    def pair(self):
        mdev = self.mdev()
        return mdev, self.opened(mdev)

    def test_delay(self):
        mdev, device = self.pair()
        mdev.order("delay", "RUNNING>RUNNING_P2P", 100000)
        start = time.monotonic()
        self.go(device, STOP)
        self.assertGreater(time.monotonic() - start, 0.095)  # its ticks and its clock are not one
        start = time.monotonic()
        self.go(device, RUNNING)
        self.assertLess(time.monotonic() - start, 0.1)
        mdev.order("delay", "*>*", 30000)
        start = time.monotonic()
        self.go(device, STOP)
        self.assertGreater(time.monotonic() - start, 0.055)

    def test_refuse(self):
        mdev, device = self.pair()
        mdev.order("refuse", "RUNNING_P2P>STOP", errno.EIO, 2)
        for _ in range(2):
            self.assertEqual((code(device.set(STOP)[0]), STATES[device.state()]), ("EIO", "RUNNING_P2P"))
        self.go(device, STOP)
        mdev.order("refuse", "STOP>*", errno.EBUSY, -1)
        for _ in range(5):
            self.assertEqual((code(device.set(RUNNING)[0]), STATES[device.state()]), ("EBUSY", "STOP"))
        mdev.order("rest")
        self.go(device, RUNNING)

    def test_error(self):
        mdev, device = self.pair()
        fd = self.go(device, PRE_COPY)
        mdev.order("error", "PRE_COPY_P2P>STOP_COPY", errno.EIO, 1)
        self.assertEqual((code(device.set(STOP_COPY)[0]), device.state()), ("EIO", ERROR))
        self.assertEqual(mdev.status()["state"], "ERROR")
        self.assertTrue(fails(errno.ENODEV, lambda: os.read(fd, 1)))
        for state in range(8):
            self.assertEqual((device.set(state)[0] == 0, device.state()), (state == ERROR, ERROR), STATES[state])
        self.assertEqual((device.reset(), device.state()), (0, RUNNING))

    def hang(self, kind):
        """A process that hangs in RUNNING>STOP."""
        mdev, device = self.pair()
        mdev.order("hang", "RUNNING_P2P>STOP", kind, 1)
        pid = os.fork()
        if pid == 0:
            os._exit(3 if device.set(STOP)[0] else 0)
        wait_for("it to hang", lambda: mdev.status()["hanging"] == 1)
        self.assertEqual(os.waitpid(pid, os.WNOHANG), (0, 0))
        return mdev, device, pid

    def test_hang_and_release(self):
        for kind in (1, 2):
            mdev, device, pid = self.hang(kind)
            mdev.order("release")
            self.assertEqual(os.waitpid(pid, 0), (pid, 0))
            self.assertEqual((mdev.status()["hanging"], device.state()), (0, STOP))

    def test_hang_and_kill(self):
        mdev, device, pid = self.hang(1)
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(os.waitpid(pid, 0), (pid, signal.SIGKILL))
        self.assertEqual(device.state(), RUNNING_P2P)

    def test_hang_that_nothing_kills(self):
        mdev, device, pid = self.hang(2)
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
        self.assertEqual((os.waitpid(pid, os.WNOHANG), mdev.status()["hanging"]), ((0, 0), 1))
        answers = []
        t = threading.Thread(target=lambda: answers.append(device.state()))
        t.start()
        t.join(0.2)
        self.assertEqual(answers, [], "its state is locked")
        mdev.order("release")
        t.join(10)
        self.assertEqual((answers, os.waitpid(pid, 0)), ([STOP], (pid, signal.SIGKILL)))

    def test_data_errors(self):
        mdev, device = self.pair()
        mdev.order("read-error", 30, errno.EIO, 1)
        fd = self.go(device, STOP_COPY)
        first = os.read(fd, 100)
        self.assertEqual(len(first), 30)
        self.assertTrue(fails(errno.EIO, lambda: os.read(fd, 100)))
        data = first + os.read(fd, 100)
        self.assertEqual(len(data), 60)
        self.go(device, STOP)
        mdev.order("write-error", 40, errno.ENOSPC, -1)
        self.assertEqual(self.load_into(device, data), ("ENOSPC", 40, "EINVAL", "RESUMING"))
        self.assertEqual((mdev.status()["read"], mdev.status()["written"]), (60, 40))

    def test_flags(self):
        mdev, device = self.pair()
        mdev.order("flags", uapi.HAS_STOP_COPY)
        self.assertEqual(device.migration(), (0, uapi.HAS_STOP_COPY))
        for state in (RUNNING_P2P, PRE_COPY, PRE_COPY_P2P):
            self.assertEqual(code(device.set(state)[0]), "EINVAL")
        data = self.saved(device)
        self.assertEqual(self.load_into(device, data)[2], 0)
        self.go(device, RUNNING)
        self.assertNotIn("RUNNING>RUNNING_P2P", mdev.status()["arc"])
        mdev.order("flags", uapi.HAS_STOP_COPY | uapi.HAS_PRE_COPY)
        fd = self.go(device, PRE_COPY)
        self.go(device, STOP_COPY)
        self.assertEqual(len(os.read(fd, 100)), 60)
        device.reset()
        mdev.order("flags", 0)
        self.assertEqual((code(device.migration()[0]), code(device.state())), ("ENOTTY", "ENOTTY"))

    def test_logging(self):
        mdev, device = self.pair()
        mdev.order("log-error", 0, errno.EIO, 1)
        self.assertEqual(code(device.log_start([(0, 1 << 20)])), "EIO")
        self.assertEqual(device.log_start([(0, 1 << 20)]), 0)
        mdev.order("log-error", 2, errno.EIO, 1)
        self.assertEqual(code(device.log_report(0, 1 << 20)[0]), "EOPNOTSUPP" if KERNEL == "debian" else "EIO")
        mdev.order("log-error", 1, errno.EIO, 1)
        self.assertEqual([code(device.log_stop()), device.log_stop()], ["EIO", 0])
        mdev.order("logging", 0)
        self.assertEqual(code(device.probe(uapi.DMA_LOGGING_START)), "ENOTTY")

    def test_reset(self):
        mdev, device = self.pair()
        device.write(0, SCRATCH, b"\x3c")
        mdev.order("reset-error", errno.EIO, 2)
        self.go(device, STOP)
        self.assertEqual([code(device.reset()), code(device.reset()), device.state()], ["EIO", "EIO", STOP])
        self.assertEqual((device.reset(), device.state()), (0, RUNNING))
        self.assertEqual((device.read(0, SCRATCH, 1), mdev.status()["resets"]), (b"\x3c", 3))
        mdev.order("reset-clears", 1)
        self.assertEqual((device.reset(), device.read(0, SCRATCH, 1)), (0, b"\0"))

    def test_counters(self):
        mdev, device = self.pair()
        self.assertEqual((mdev.status()["set"], mdev.status()["arc"], mdev.status()["state"]), ({}, {}, "RUNNING"))
        self.go(device, STOP, RUNNING, STOP)
        self.assertEqual(mdev.status()["set"], {"RUNNING>STOP": 2, "STOP>RUNNING": 1})
        self.assertEqual(mdev.status()["arc"], {"RUNNING>RUNNING_P2P": 2, "RUNNING_P2P>STOP": 2, "STOP>RUNNING_P2P": 1,
                                                "RUNNING_P2P>RUNNING": 1})
        mdev.order("rest")
        self.assertEqual((mdev.status()["set"], mdev.status()["arc"]), ({}, {}))

    def test_orders_that_are_none(self):
        mdev = self.mdev()
        for words in ("nonsense", "delay STOP 1", "delay STOP>NOWHERE 1", "delay STOP>*", "delay STOP>* x", "delay STOP>* -1",
                      "refuse *>* 5", "refuse *>* 5 -2", "hang *>* 3 1", "size 1073741825", "flags 8", "release 1", "reset-clears 2"):
            self.assertTrue(fails(errno.EINVAL, lambda: mdev.order(words)), words)
        self.assertEqual(mdev.status()["set"], {})

    def test_a_device_left_in_resuming(self):
        """Whose data file has gone; the driver's own would bring the kernel down."""
        mdev, device = self.pair()
        self.go(device, RESUMING)
        device.close()
        device = self.opened(mdev)
        self.assertEqual((code(device.set(STOP)[0]), device.state()), ("EINVAL", RESUMING))
        self.assertEqual((device.reset(), device.state()), (0, RUNNING))


class LargeState(Case):
    SIZE = 4 << 20

    def source(self, size=SIZE):
        mdev = self.mdev()
        mdev.order("size", size)
        device = self.opened(mdev)
        device.write(0, SCRATCH, b"\x77")
        return mdev, device

    def test_it_goes_over(self):
        _, source = self.source()
        data = self.saved(source)
        self.assertEqual(len(data), source.data_size()[1])
        self.assertGreater(len(data), self.SIZE)
        for piece in (1 << 20, 70001, 4096):
            mdev = self.mdev()
            device = self.opened(mdev)
            self.assertEqual(self.load_into(device, data, piece), (0, len(data), 0, "STOP"))
            self.assertEqual((mdev.status()["size"], device.read(0, SCRATCH, 1)), (self.SIZE, b"\x77"))
        self.assertEqual(len(self.saved(device)), len(data), "and on from there")

    def test_what_is_not_right_is_refused(self):
        _, source = self.source()
        data, block = self.saved(source), 65536
        destination = self.device()

        def changed(at):
            other = bytearray(data)
            other[at] ^= 1
            return bytes(other)
        frame = HEADER + 3 * block
        for what, other in (("cut", data[:-1]), ("cut at a block", data[:frame]), ("without the end", data[:-PORT - 32]),
                            ("a byte", changed(frame + 1000)), ("a frame", changed(frame)), ("an index", changed(frame + 16)),
                            ("a number", changed(frame + 24)), ("a length", changed(frame + 14)), ("the last byte", changed(frame - 1)),
                            ("a block less", data[:frame] + data[frame + block:]),
                            ("a block twice", data[:frame + block] + data[frame:])):
            destination.reset()
            _, _, r, state = self.load_into(destination, other)
            self.assertEqual((r, state), ("EINVAL", "RESUMING"), what)
        destination.reset()
        self.assertEqual(self.load_into(destination, data + b"x")[0], "ENOMEM")
        self.assertEqual(self.load_into(self.device(2), data)[0], "EFAULT")

    def test_dirty_data_before_the_stop(self):
        mdev, source = self.source()
        mdev.order("dirty", 1 << 20)
        fd, data = self.go(source, PRE_COPY), b""
        _, initial, dirty = precopy_info(fd)
        self.assertEqual(initial, HEADER)
        self.assertGreaterEqual(dirty, self.SIZE)
        while len(data) < HEADER + self.SIZE:
            data += os.read(fd, 1 << 20)
        piece = bytes(65536)
        while len(piece) >= 65536:  # it never ends while it becomes dirty
            data += (piece := os.read(fd, 1 << 20))
        time.sleep(0.2)
        _, initial, dirty = precopy_info(fd)
        self.assertEqual(initial, 0)
        self.assertGreaterEqual(dirty, 200 << 10)
        self.go(source, PRE_COPY_P2P)
        _, _, dirty = precopy_info(fd)
        time.sleep(0.1)
        self.assertEqual(precopy_info(fd)[2], dirty, "nothing becomes dirty in the P2P state")
        data += os.read(fd, 100 << 10)
        self.assertEqual(precopy_info(fd)[2], dirty - (100 << 10))
        self.go(source, STOP_COPY)
        size = source.data_size()[1]
        rest = b""
        while piece := os.read(fd, 1 << 20):
            rest += piece
        self.assertEqual(len(rest), dirty - (100 << 10) + 32 + PORT)
        self.assertLessEqual(abs(size - HEADER - len(rest)), PORT + HEADER)
        self.assertEqual(self.load_into(self.device(), data + rest)[2:], (0, "STOP"))

    def test_a_gigabyte(self):
        _, source = self.source(1 << 30)
        mdev = self.mdev()
        mdev.order("verify", 0)
        destination = self.opened(mdev)
        out, into, start = self.go(source, STOP_COPY), self.go(destination, RESUMING), time.monotonic()
        total, buffer = 0, memoryview(bytearray(1 << 20))
        with open(out, "rb", buffering=0, closefd=False) as f:
            while n := f.readinto(buffer):
                self.assertEqual(os.write(into, buffer[:n]), n)
                total += n
        took = time.monotonic() - start
        self.go(destination, STOP)
        self.assertEqual(mdev.status()["size"], 1 << 30)
        print(f"{total / took / 1e9:.2f} GB/s by a plain loop")


class Qemu(Case):
    def pair(self, n, **kw):
        lab = Lab()
        self.addCleanup(lab.close)
        mdevs = {side: [self.mdev() for _ in range(n)] for side in "ab"}
        guest = VfioGuest(lab, "vm", mdevs, **kw)
        self.addCleanup(lab.close)  # before the devices are removed, which waits for who has them
        self.a, self.b = Side(lab, "a"), Side(lab, "b")
        guest.start(self.a)
        self.destination = guest.start_incoming(self.b)
        return lab, guest, mdevs

    def move(self, lab, guest):
        """Up to both sides' completed; the destination still stands."""
        uri = f"unix:{lab.dir}/migration"
        with guest.look(self.b) as there, guest.look(self.a) as here:
            self.assertEqual(there.command("migrate-incoming", uri=uri), {})
            self.assertEqual(here.command("migrate", uri=uri), {})
            wait_for("both to be through", lambda: here.command("query-migrate").get("status") in ("completed", "failed") and
                     there.command("query-migrate").get("status") in ("completed", "failed"), 30)
            return [m.command("query-migrate")["status"] for m in (here, there)]

    def start_there(self, guest):
        with guest.look(self.b) as there:
            self.assertEqual(there.command("cont"), {})
            wait_for("a line from there", lambda: guest.lines()[-1].place == "b" and len(guest.lines()) > 30, 20)
            return there.command("query-status")["status"]

    def test_a_guest_moves(self):
        lab, guest, mdevs = self.pair(2)
        self.assertEqual(self.move(lab, guest), ["completed"] * 2)
        self.assertEqual((guest.states(self.a), guest.states(self.b)), (["STOP"] * 2, ["RESUMING"] * 2))
        self.assertEqual(self.start_there(guest), "running")
        guest.wait_counts(5)
        self.assertEqual((guest.states(self.b), guest.verdict()), (["RUNNING"] * 2, (0, 0, [0, 0])))
        self.assertEqual(len(guest.outage()), 1)
        print(f"outage {guest.outage()[0]:.3f} s")

    def test_the_hole(self):
        """A destination's driver refuses the state. Stock QEMU says it is completed, resets the device behind everybody's back,
        and runs the guest on it."""
        lab, guest, mdevs = self.pair(2)
        mdevs["b"][1].order("refuse", "RESUMING>STOP", errno.EIO, -1)
        self.assertEqual(self.move(lab, guest), ["completed"] * 2)
        self.assertEqual(self.start_there(guest), "running")
        guest.wait_counts(5)
        lines = [line for line in guest.lines() if line.place == "b"]
        self.assertEqual([line.intact()[0] for line in lines], [True] * len(lines))
        self.assertEqual({line.found[1][1] for line in lines}, {0}, "the register that the guest had set")
        self.assertEqual((guest.states(self.b), mdevs["b"][1].status()["resets"]), (["RUNNING"] * 2, 1))
        self.assertEqual(guest.verdict()[:2], (0, 0))
        self.assertIn("Resetting device", self.destination.output())

    def test_as_many_devices_as_there_may_be(self):
        lab = Lab()
        mdevs = {"a": [self.mdev() for _ in range(MAX_DEVICES)]}
        self.addCleanup(lab.close)
        guest = VfioGuest(lab, "vm", mdevs)
        a = Side(lab, "a")
        guest.start(a)
        guest.wait_counts(20)
        self.assertEqual((guest.verdict(), guest.states(a)), ((0, 0, [0] * MAX_DEVICES), ["RUNNING"] * MAX_DEVICES))

    def test_whose_file_it_is(self):
        lab, guest, mdevs = self.pair(1)
        pid = guest.qemus(self.a)[0]
        number = next(fd for fd, link in uapi.links(pid).items()
                      if "vfio-device" in link or link.startswith("/dev/vfio/devices/"))
        own = uapi.duplicate(pid, number)
        self.addCleanup(os.close, own)
        self.assertTrue(uapi.same_file(pid, number, own))
        with vfio_guest.duplicate(pid, mdevs["a"][0]) as device:
            self.assertEqual(uapi.same_file(pid, number, device.fd), KERNEL == "iommufd")
            device.set(RUNNING_P2P)
            self.assertEqual(uapi.Device(own).state(), RUNNING_P2P)


if __name__ == "__main__":
    vfio_guest.main(seconds=120)
