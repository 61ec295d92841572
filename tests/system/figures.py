# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a blackout could be at best, and in a row: computed from what the devices were told to take, and from the rate
that a plain loop over the same hops reaches in the same run. docs/architecture.md, Figures, says what each one means."""

import json
import subprocess

from lab import program

# The arcs of the blackout, barrier by barrier: of a device with the P2P states, and of one without. In the drain each
# device goes on by itself: to STOP, to STOP_COPY, the copy, and back to STOP.
BARRIERS = [
    ("6.1", {True: ["running>running-p2p"], False: []}),
    ("6.2", {True: [], False: ["running>stop"]}),
    ("drain", {True: ["running-p2p>stop", "stop>stop-copy", "stop-copy>stop"], False: ["stop>stop-copy", "stop-copy>stop"]}),
    ("8", {True: ["resuming>stop"], False: ["resuming>stop"]}),
    ("10", {True: ["stop>running-p2p"], False: []}),
    ("11", {True: ["running-p2p>running"], False: ["stop>running"]}),
]
MIB = 1 << 20
# Of less, a loop's time would say how fast processes start, not how fast bytes go.
LEAST_LOOPED = 4 * MIB


class Device:
    """What one emulated device is told: its size and how long it takes. Delays in ms; per MiB for reading and writing."""

    def __init__(self, name, size_mib, arcs=None, read_ms=0, write_ms=0, p2p=True):
        self.name, self.size, self.arcs, self.p2p = name, int(size_mib * MIB), dict(arcs or {}), p2p
        self.read_ms, self.write_ms = read_ms, write_ms

    @classmethod
    def uniform(cls, name, size_mib, arc_ms, **kw):
        return cls(name, size_mib, {a: arc_ms for _, arcs in BARRIERS for p2p in (True, False) for a in arcs[p2p]}, **kw)

    def spec(self, seed):
        """For migmgr-emulated-device."""
        keys = [f"size={self.size}", f"seed={seed}", f"p2p={'on' if self.p2p else 'off'}",
                f"read-delay={self.read_ms}", f"write-delay={self.write_ms}"]
        possible = {a for _, arcs in BARRIERS for a in arcs[self.p2p]}
        return ",".join(keys + [f"delay={arc}:{ms}" for arc, ms in self.arcs.items() if arc in possible])

    def arc_usec(self, barrier):
        return 1000 * sum(self.arcs.get(a, 0) for a in dict(BARRIERS)[barrier][self.p2p])

    def copy_usec(self, rate):
        """Reading and writing overlap; the bytes themselves go at the link's rate."""
        return self.size / MIB * 1000 * max(self.read_ms, self.write_ms) + self.size / rate * 1e6

    def serial_copy_usec(self, rate):
        return self.size / MIB * 1000 * (self.read_ms + self.write_ms) + self.size / rate * 1e6


def link_rate(streams, bytes_of_each):
    """Bytes per second of a plain loop: the median of five."""
    def once():
        out = subprocess.run([program("hops"), str(streams), str(max(LEAST_LOOPED, bytes_of_each))], check=True,
                             capture_output=True, text=True).stdout
        return json.loads(out)["bytes_per_second"]
    return sorted(once() for _ in range(5))[2]


class Rates:
    """Of the link: for one device alone, and for all of them at a time."""

    def __init__(self, devices):
        largest, total = max(d.size for d in devices), sum(d.size for d in devices)
        self.one = link_rate(1, largest)
        self.all = link_rate(len(devices), total // len(devices)) if len(devices) > 1 else self.one

    def slower(self, other):
        """Of two measurements, before and after."""
        self.one, self.all = min(self.one, other.one), min(self.all, other.all)
        return self


def floor_usec(devices, rates):
    """Every barrier as long as its slowest device, and the larger of the slowest copy and of all bytes over the link."""
    barriers = sum(max(d.arc_usec(b) for d in devices) for b, _ in BARRIERS)
    return barriers + max(max(d.copy_usec(rates.one) for d in devices), sum(d.size for d in devices) / rates.all * 1e6)


def sum_usec(devices, rates):
    """The same, one device after the other."""
    return sum(sum(d.arc_usec(b) for b, _ in BARRIERS) + d.serial_copy_usec(rates.one) for d in devices)
