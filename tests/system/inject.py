# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test's side of tests/fake/inject.c: which call of which program is to be hit, and how many there were."""

import mmap
import os
import shutil
import signal
import struct
import uuid

from lab import program

KINDS = ["sync", "store", "send", "receive", "connect", "allocate", "open", "fork", "poll"]
ACTIONS = ["count", "kill before", "kill after", "host before", "host after", "places", "fail", "fail place"]
DATABASE = ["migmgr.db", "migmgr.db-wal"]
# struct Control of inject.c
AT, PROGRAM, COUNTS, HITS, VICTIM, SIGNAL, STACK, DEATH, PLACES, TABLE = 16, 24, 56, 184, 192, 196, 456, 6600, 12744, 12752
STACK_SIZE, MAX_PLACES, PLACE = DEATH - STACK, 16384, struct.Struct("QII")
SIZE = TABLE + MAX_PLACES * PLACE.size


class Injection:
    """Of the processes of one host, which are to be started with `env`."""

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.truncate(SIZE)
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), SIZE)
        self.env = {"LD_PRELOAD": program("tests/fake/inject.so"), "MIGMGR_INJECT": path}

    def put(self, offset, layout, *values):
        struct.pack_into(layout, self.map, offset, *values)

    def get(self, offset, layout):
        return struct.unpack_from(layout, self.map, offset)[0]

    def arm(self, name, kind="sync", at=0, action="count", error=0):
        """The at-th call of that kind of the program of that name from now on, or the first at the place `at`; counts begin
        anew."""
        self.disarm()
        self.put(AT, "Q32s", at, name.encode())
        self.put(COUNTS, "16Q", *[0] * 16)
        self.put(HITS, "I", 0)
        self.put(VICTIM, "ii", 0, 0)
        self.map[STACK:SIZE] = bytes(SIZE - STACK)
        self.put(0, "IIII", 0, KINDS.index(kind), ACTIONS.index(action), error)
        self.put(0, "I", 1)

    def disarm(self):
        self.put(0, "I", 0)

    def hit(self):
        return self.get(HITS, "I") > 0

    def victim(self):
        """The process whose call was hit; valid a moment after hit()."""
        return self.get(VICTIM, "i")

    def stack(self, offset=STACK):
        """[(file, offset)] of the call that failed, the innermost first."""
        lines = self.get(offset, f"{STACK_SIZE}s").split(b"\0", 1)[0].decode().split("\n")
        return [(file, int(offset, 16)) for file, offset in (line.split("+") for line in lines[:-1])]

    def death(self):
        """(signal, stack) of the process that has died since, (0, []) if none; only signals that mean a bug."""
        return self.get(SIGNAL, "i"), self.stack(DEATH)

    def places(self, kind):
        """{place: calls} of that kind, those before the call that failed."""
        count, full = struct.unpack_from("II", self.map, PLACES)
        assert not full, count
        found = PLACE.iter_unpack(self.map[TABLE:SIZE]) if count else ()
        return {place: calls for place, k, calls in found if place and KINDS[k] == kind}

    def counts(self):
        return dict(zip(KINDS, struct.unpack_from("9Q", self.map, COUNTS)))

    def processes(self):
        """Those of this host that live."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if b"MIGMGR_INJECT=" + self.path.encode() + b"\0" in f.read():
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def kill_all(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass

    def power_cut(self, state, lost):
        """The host is dead. Of the files of `lost` what was not synced goes; and the host has booted since."""
        for name in lost:
            synced = self.path + "." + name
            if os.path.exists(synced):
                shutil.copyfile(synced, os.path.join(state, name))
        with open(self.path + ".boot", "w") as f:
            f.write(str(uuid.uuid4()) + "\n")
