# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a set of devices stands still while it is moved, beside the least that is possible and beside those who walk
their devices one by one.

  tests/bench/lockstep [REPEATS [PATTERN]]        30 repeats if not told; PATTERN: a part of a row's name

Every count up to eight is measured with every delay and size; above, where one row is much work, with two of each: delays
that are the same, and spread, with next to no state and with little. Each row is one set of devices without a VM: how many, how long their arcs take, how much state they have. It is moved to
and fro by real daemons and agents; then the same device servers are moved by three imitations, each one plain client:
`serial` takes device after device through the whole way, `two-pass` takes all through P2P one by one and then all through
STOP one by one, as QEMU does. `at once` is what can be had on this machine: it commands all devices before it awaits the
first, looks at nothing and writes nothing down; its copies, too, are one after the other, so it is a bound where there
is next to no state. The floor and the sum are those of figures.py.

Prints the table; the last line is one JSON object. It holds if the median of every row with eight devices or more whose
floor is at least 50 ms is at most 1.10 floors.
"""

import json
import statistics
import struct
import sys
import time

from figures import Device, MIB, Rates, floor_usec, sum_usec
from lab import Lab, new_uuid
from vfio_user import DATA_READ, DATA_WRITE, FEATURE, P2P, SET, STATE, RESUMING, RUNNING, STOP, STOP_COPY, Client

GOAL, JUDGED_FROM_USEC, JUDGED_FROM_DEVICES = 1.10, 50_000, 8
IMITATED = 3  # repeats of the imitations: they take long and vary little
COUNTS, MANY = [1, 4, 8], [16, 32, 64]
SIZES_MIB, SIZES_OF_MANY_MIB = [0, 4, 64], [0, 4]
DELAYS = {
    "1 ms": lambda i, n: 1,
    "10 ms": lambda i, n: 10,
    "50 ms": lambda i, n: 50,
    "1-50 ms": lambda i, n: 50 if n == 1 else round(1 + 49 * i / (n - 1)),
}
DELAYS_OF_MANY = ["10 ms", "1-50 ms"]


def rows():
    for n in COUNTS + MANY:
        for delays, delay in DELAYS.items():
            if n in MANY and delays not in DELAYS_OF_MANY:
                continue
            for size in SIZES_OF_MANY_MIB if n in MANY else SIZES_MIB:
                devices = [Device.uniform(f"d{i}", size or 1 / 256, delay(i, n)) for i in range(n)]
                yield f"{n} x {delays}, {size} MiB", devices


# ---- the imitations -------------------------------------------------------------------------------------------------

class Pair:
    """A device at its source and at its destination, each by a client of its own."""

    def __init__(self, source, destination, size):
        self.s, self.d = Client(source), Client(destination)
        self.piece = min(MIB, max(16384, size))  # a reply is as long as was asked for, however little there is
        self.buffer = bytearray(8 + self.piece)

    def close(self):
        self.s.close()
        self.d.close()

    def prepare(self):
        self.d.reset()
        self.d.set(STOP, RESUMING)

    def copy(self):
        """Piece by piece, with one buffer: as fast as one loop can."""
        view = memoryview(self.buffer)
        while True:
            self.s.send(DATA_READ, struct.pack("=II", 8 + self.piece, self.piece))
            header = self.s.bytes(16)
            self.receive(view[:struct.unpack_from("=I", header, 4)[0] - 16])
            n = struct.unpack_from("=I", view, 4)[0]
            if n == 0:
                return
            self.d.socket.sendall(Client.message(DATA_WRITE, b"", 1, 0, 16 + 8 + n))
            self.d.socket.sendall(view[:8 + n])
            self.d.receive()

    def receive(self, view):
        while view:
            view = view[self.s.socket.recv_into(view):]


def serial(pairs):
    for p in pairs:
        p.s.set(P2P, STOP, STOP_COPY)
        p.copy()
        p.s.set(STOP)
    for p in pairs:
        p.d.set(STOP, P2P, RUNNING)


def two_pass(pairs):
    for p in pairs:
        p.s.set(P2P)
    for p in pairs:
        p.s.set(STOP)
    for p in pairs:
        p.s.set(STOP_COPY)
        p.copy()
        p.s.set(STOP)
    for p in pairs:
        p.d.set(STOP)
    for p in pairs:
        p.d.set(P2P)
    for p in pairs:
        p.d.set(RUNNING)


def all_to(clients, state):
    for c in clients:
        c.send(FEATURE, struct.pack("=IIIi", 16, STATE | SET, state, -1))
    for c in clients:
        assert c.receive().error == 0


def at_once(pairs):
    for state in (P2P, STOP, STOP_COPY):
        all_to([p.s for p in pairs], state)
    for p in pairs:
        p.copy()
    all_to([p.s for p in pairs], STOP)
    for state in (STOP, P2P, RUNNING):
        all_to([p.d for p in pairs], state)


def imitate(walk, servers, devices):
    """Seconds of standing still, to and fro."""
    times = []
    for source, destination in [(0, 1), (1, 0)] * (1 if len(devices) in MANY else IMITATED):
        pairs = [Pair(servers[source][d.name].socket(d.name), servers[destination][d.name].socket(d.name), d.size)
                 for d in devices]
        for p in pairs:
            p.prepare()
        start = time.monotonic()
        walk(pairs)
        times.append((time.monotonic() - start) * 1e6)
        for p in pairs:
            p.close()
    return statistics.median(times)


# ---- migmgr ---------------------------------------------------------------------------------------------------------

class Row:
    def __init__(self, lab, number, name, devices, repeats):
        self.name, self.devices, self.repeats = name, devices, repeats
        self.a, self.b = lab.host(f"a{number}"), lab.host(f"b{number}")
        self.servers = [{d.name: lab.server(f"{side}{number}{d.name}", {d.name: d.spec(i + 1 + 100 * (side == "b"))})
                         for i, d in enumerate(devices)} for side in "ab"]
        for servers in self.servers:
            for server in servers.values():
                server.leave()

    def register(self):
        vm = new_uuid()
        for host, servers in ((self.a, self.servers[0]), (self.b, self.servers[1])):
            host.register({"name": "set", "uuid": vm, "vmm": {"type": "none"}, "devices": [
                {"id": d.name, "type": "vfio-user", "socket": servers[d.name].socket(d.name)} for d in self.devices]},
                incoming=host is self.b)

    def move(self):
        times = []
        for i in range(self.repeats):
            here, there = (self.a, self.b) if i % 2 == 0 else (self.b, self.a)
            status, job = here.migrate("set", there)
            assert status == 0 and job["result"] == "done", job
            times.append(job["device_blackout_usec"])
        return sorted(times)

    def measure(self):
        rates = Rates(self.devices)
        floor, total = floor_usec(self.devices, rates), sum_usec(self.devices, rates)
        in_a_row = imitate(serial, self.servers, self.devices)
        passes = imitate(two_pass, self.servers, self.devices)
        together = imitate(at_once, self.servers, self.devices)
        self.register()
        times = self.move()
        median, p99 = statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.99))]
        return {"row": self.name, "devices": len(self.devices), "floor_usec": round(floor), "sum_usec": round(total), "median_usec": round(median),
                "p99_usec": round(p99), "median_over_floor": round(median / floor, 3),
                "p99_over_floor": round(p99 / floor, 3), "median_over_sum": round(median / total, 3),
                "serial_usec": round(in_a_row), "two_pass_usec": round(passes),
                "at_once_usec": round(together)}

    def close(self):
        for servers in self.servers:
            for s in servers.values():
                s.stop()
        for host in (self.a, self.b):
            for p in (host.daemon, host.helper, host.bus):
                p.stop()


HEAD = f"{'ROW':22} {'FLOOR':>9} {'MEDIAN':>9} {'P99':>9} {'/FLOOR':>7} {'P99/FL':>7} {'/SUM':>6} {'SUM':>9} " \
       f"{'SERIAL':>9} {'TWO-PASS':>9} {'AT ONCE':>9}   (ms)"


def print_row(r):
    def ms(key):
        return f"{r[key] / 1000:9.1f}"
    print(f"{r['row']:22} {ms('floor_usec')} {ms('median_usec')} {ms('p99_usec')} {r['median_over_floor']:7.2f} "
          f"{r['p99_over_floor']:7.2f} {r['median_over_sum']:6.2f} {ms('sum_usec')} {ms('serial_usec')} "
          f"{ms('two_pass_usec')} {ms('at_once_usec')}", flush=True)


def main(repeats=30, pattern=""):
    print(HEAD, flush=True)
    results = []
    with Lab() as lab:
        for number, (name, devices) in enumerate(rows()):
            if pattern not in name:
                continue
            row = Row(lab, number, name, devices, repeats)
            results.append(row.measure())
            row.close()
            print_row(results[-1])
    judged = [r for r in results if r["devices"] >= JUDGED_FROM_DEVICES and r["floor_usec"] >= JUDGED_FROM_USEC]
    missed = [r for r in judged if r["median_over_floor"] > GOAL]
    for r in missed:
        over, there = (r[key] - r["floor_usec"] for key in ("median_usec", "at_once_usec"))
        print(f"missed: {r['row']}: {over / 1000:.1f} ms above the floor, and one plain client that commands all at once "
              f"{there / 1000:.1f}", flush=True)
    holds = bool(judged) and not missed
    print(json.dumps({"rows": len(results), "repeats": repeats, "judged": len(judged),
                      "missed": [r["row"] for r in missed],
                      "worst_median_over_floor": max((r["median_over_floor"] for r in judged), default=None),
                      "goal": GOAL, "holds": holds}), flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 30, sys.argv[2] if len(sys.argv) > 2 else ""))
