# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's VFIO, as far as migration needs it: its numbers, and calls that return what it says.

Numbers are those of Linux, include/uapi/linux/vfio.h and iommufd.h (6.12). Where a test wants to know how a call fails, it
returns 0 or a negative errno; the others raise OSError.
"""

import ctypes
import errno
import fcntl
import os
import struct

# vfio.h: _IO(';', 100 + n)
GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU = 0x3b64, 0x3b65, 0x3b66
GROUP_GET_STATUS, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD = 0x3b67, 0x3b68, 0x3b6a
DEVICE_GET_INFO, DEVICE_GET_REGION_INFO, DEVICE_RESET = 0x3b6b, 0x3b6c, 0x3b6f
DEVICE_FEATURE, DEVICE_BIND_IOMMUFD, DEVICE_ATTACH_IOMMUFD_PT = 0x3b75, 0x3b76, 0x3b77
MIG_GET_PRECOPY_INFO = 0x3b79
# iommufd.h: _IO(';', 0x80 + n)
IOMMU_IOAS_ALLOC = 0x3b81
TYPE1V2_IOMMU = 3

# struct vfio_device_feature: argsz, flags; flags are these and the feature.
FEATURE_GET, FEATURE_SET, FEATURE_PROBE = 1 << 16, 1 << 17, 1 << 18
MIGRATION, MIG_DEVICE_STATE = 1, 2
DMA_LOGGING_START, DMA_LOGGING_STOP, DMA_LOGGING_REPORT, MIG_DATA_SIZE = 6, 7, 8, 9
# VFIO_MIGRATION_*
HAS_STOP_COPY, HAS_P2P, HAS_PRE_COPY = 1, 2, 4
# VFIO_DEVICE_STATE_*
STATES = ("ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P")
ERROR, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P = range(8)
CONFIG_REGION = 7

PIDFD_GETFD, KCMP, KCMP_FILE = 438, 312, 0  # of x86-64
libc = ctypes.CDLL(None, use_errno=True)


def code(error):
    """0 as it is, else the name of an errno; of the two for 95 the kernel's."""
    return ("EOPNOTSUPP" if error == -errno.EOPNOTSUPP else errno.errorcode[-error]) if error else 0


def ioctl(fd, request, buffer=0):
    """0, or a negative errno; `buffer` is written to."""
    try:
        fcntl.ioctl(fd, request, buffer, *([True] if isinstance(buffer, bytearray) else []))
        return 0
    except OSError as e:
        return -e.errno


def syscall(number, *args):
    r = libc.syscall(number, *args)
    if r < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return r


class Device:
    """An open VFIO device. It owns `fd`, and what else was opened for it."""

    def __init__(self, fd, *others):
        self.fd, self.others = fd, others

    def close(self):
        for fd in (self.fd, *self.others):
            os.close(fd)
        self.fd, self.others = -1, ()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.fd >= 0:
            self.close()

    def feature(self, flags, payload=b"", argsz=None):
        """(0 or -errno, payload)"""
        b = bytearray(struct.pack("II", 8 + len(payload) if argsz is None else argsz, flags) + payload)
        return ioctl(self.fd, DEVICE_FEATURE, b), bytes(b[8:])

    def probe(self, feature, flags=0):
        return self.feature(FEATURE_PROBE | flags | feature)[0]

    def migration(self):
        """(0 or -errno, VFIO_MIGRATION_*)"""
        r, b = self.feature(FEATURE_GET | MIGRATION, bytes(8))
        return r, struct.unpack("Q", b)[0]

    def state(self):
        """The state's number, or a negative errno."""
        r, b = self.feature(FEATURE_GET | MIG_DEVICE_STATE, struct.pack("Ii", 99, 99))
        return r or struct.unpack("Ii", b)[0]

    def set(self, state):
        """(0 or -errno, the data file's descriptor or -1). Whoever asked for it closes it."""
        r, b = self.feature(FEATURE_SET | MIG_DEVICE_STATE, struct.pack("Ii", state, -1))
        return r, struct.unpack("Ii", b)[1]

    def go(self, *states):
        """To each of these, one after the other. Returns the last data file, or -1."""
        kept = -1
        for state in states:
            r, fd = self.set(state)
            if r:
                raise OSError(-r, f"{STATES[state]}: {os.strerror(-r)}")
            if fd >= 0:
                if kept >= 0:
                    os.close(kept)
                kept = fd
        return kept

    def data_size(self):
        """(0 or -errno, bytes)"""
        r, b = self.feature(FEATURE_GET | MIG_DATA_SIZE, bytes(8))
        return r, struct.unpack("Q", b)[0]

    def log_start(self, ranges, page_size=4096):
        raw = b"".join(struct.pack("QQ", *r) for r in ranges)
        memory = ctypes.create_string_buffer(raw, len(raw) or 1)
        return self.feature(FEATURE_SET | DMA_LOGGING_START,
                            struct.pack("QIIQ", page_size, len(ranges), 0, ctypes.addressof(memory)))[0]

    def log_stop(self):
        return self.feature(FEATURE_SET | DMA_LOGGING_STOP)[0]

    def log_report(self, iova, length, page_size=4096):
        """(0 or -errno, bitmap)"""
        bitmap = ctypes.create_string_buffer((length // page_size + 63) // 64 * 8)
        r, _ = self.feature(FEATURE_GET | DMA_LOGGING_REPORT,
                            struct.pack("QQQQ", iova, length, page_size, ctypes.addressof(bitmap)))
        return r, bitmap.raw

    def reset(self):
        return ioctl(self.fd, DEVICE_RESET)

    def region(self, index):
        """(size, offset)"""
        b = bytearray(struct.pack("IIIIQQ", 32, 0, index, 0, 0, 0))
        r = ioctl(self.fd, DEVICE_GET_REGION_INFO, b)
        if r:
            raise OSError(-r, os.strerror(-r))
        return struct.unpack("IIIIQQ", b)[4:]

    def read(self, region, offset, length):
        return os.pread(self.fd, length, self.region(region)[1] + offset)

    def write(self, region, offset, data):
        return os.pwrite(self.fd, data, self.region(region)[1] + offset)


def precopy_info(fd, argsz=24):
    """Of a data file: (0 or -errno, initial bytes, dirty bytes)"""
    b = bytearray(struct.pack("IIQQ", argsz, 0, 0, 0))
    r = ioctl(fd, MIG_GET_PRECOPY_INFO, b)
    return (r, *struct.unpack("IIQQ", b)[2:])


def device_of_group(group_fd, name):
    """Of an open group, the device with this mdev uuid or PCI address."""
    return fcntl.ioctl(group_fd, GROUP_GET_DEVICE_FD, bytearray(name.encode() + b"\0"), True)


def open_by_group(group, name):
    """By group and container, alone in a container of its own."""
    container = os.open("/dev/vfio/vfio", os.O_RDWR | os.O_CLOEXEC)
    group_fd = os.open(f"/dev/vfio/{group}", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(group_fd, GROUP_SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, SET_IOMMU, TYPE1V2_IOMMU)
    return Device(device_of_group(group_fd, name), group_fd, container)


def open_by_cdev(cdev):
    """By the device's own node and iommufd, with an address space of its own."""
    iommufd = os.open("/dev/iommu", os.O_RDWR | os.O_CLOEXEC)
    fd = os.open(f"/dev/vfio/devices/{cdev}", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, DEVICE_BIND_IOMMUFD, bytearray(struct.pack("IIiI", 16, 0, iommufd, 0)), True)
    ioas = bytearray(struct.pack("III", 12, 0, 0))
    fcntl.ioctl(iommufd, IOMMU_IOAS_ALLOC, ioas, True)
    fcntl.ioctl(fd, DEVICE_ATTACH_IOMMUFD_PT, bytearray(struct.pack("III", 12, 0, struct.unpack("III", ioas)[2])), True)
    return Device(fd, iommufd)


def links(pid):
    """{descriptor: what it is} of another process."""
    found = {}
    for n in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(n)] = os.readlink(f"/proc/{pid}/fd/{n}")
        except OSError:
            pass
    return found


def duplicate(pid, fd):
    """A descriptor of ours for what another process has open."""
    pidfd = os.pidfd_open(pid)
    try:
        return syscall(PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)


def same_file(pid, fd, own):
    """Whether a descriptor of another process and one of ours are the same open file."""
    return syscall(KCMP, pid, os.getpid(), KCMP_FILE, fd, own) == 0
