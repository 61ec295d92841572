# SPDX-License-Identifier: LGPL-2.1-or-later
"""For how long a guest with kernel VFIO devices stands while it is moved: by stock QEMU alone, and by ours.

Each device is a changed mtty all of whose arcs take 50 or 150 ms. Stock QEMU walks its devices one by one, so its outage is
the five arcs of the way times the number of devices. Ours is run with the gate only, with push, with push while the
destination's vCPUs are held over the last arc, with source grace where the kernel allows it, and with grace and push; all in
the same run. `outage` is from the last line that the guest prints at the source to
the first one at the destination, `own` is the same of that mode without delays. `floor`: five arcs, and stock QEMU's own;
with source grace one of these is before the outage. `in a row`: arcs that this mode can't have at the same time; without push
ours also waits until QEMU has stopped its devices one by one, a sixth arc that stock QEMU has behind the outage. `intake`:
from the first device's command to the last one's answer; it is held against that of one device alone, where this is measured.

The goals are for all that there is, which is grace and push. Debian's kernel hangs where grace comes too late, so there it
is not used and one arc of each device stays in a row: what can be had there is less, and so is what is asked.

  tests/system/vfio_speed.py [REPEATS [DEVICES...]]        a table; the last line is one JSON object
"""

import json
import os
import statistics
import sys
import time

import vfio_guest
from lab import Lab
from vfio_guest import KERNEL, on_host
from vfio_moves import DEADLINES, Stock, World

DEVICES, ARCS_MSEC, REPEATS = (1, 2, 4, 8), (50, 150), 3
# What a daemon is told, and how many arcs are in a row then with N devices. Stock QEMU: none.
MODES = {
    "stock": (None, lambda n: 5 * n),
    "gate": ({"supervised-grace": "off", "supervised-push": "off"}, lambda n: 4 * n + 2),
    "push": ({"supervised-grace": "off"}, lambda n: n + 4),
    "held": ({"supervised-grace": "off", "supervised-last-arc": "back"}, lambda n: n + 4),
    "grace": ({"supervised-push": "off"}, lambda n: 3 * n + 2),
    "both": ({}, lambda n: 4),
}
WITHOUT_GRACE = ("stock", "gate", "push", "held")
GOALS = {"both": {2: 0.55, 8: 0.25}, "push": {2: 0.85, 8: 0.5}}  # outage over that of stock QEMU
INTAKE_FACTOR, INTAKE_MSEC = 1.15, 10
# As on Debian's kernel, so that the two can be compared.
PROPERTIES = ",x-device-dirty-page-tracking=off" if KERNEL == "iommufd" else ""
# A machine that is emulated in an emulated one takes its time; what is too long for a goal must still be seen.
PATIENCE = {"policy": {"deadline-ms": {p: 30000 for p in DEADLINES}}, "connect-msec": 10000, "doubt-msec": 5000}


class Ours(World):
    def move(self):
        status, job = super().move()
        assert status == 0 and job["result"] == "done", (status, job.get("result"), job.get("error"))
        return job


def intake_msec(job):
    """Of all its devices together: from the first command to the last answer."""
    spans = [s for s in job["timeline"] if (s["half"], s["phase"], s["who"]) == ("destination", "intake", "device")]
    return (max(s["end_usec"] for s in spans) - min(s["start_usec"] for s in spans)) / 1000


def rows_of(mode, n, arcs, repeats):
    """{arc in ms: ([outage in ms, ...], [intake in ms, ...])}; 0 stands for no delays."""
    config, rows = MODES[mode][0], {}
    with Lab(transport="unix") as lab:
        world = Stock(lab, n, properties=PROPERTIES) if config is None else Ours(
            lab, n, config=PATIENCE, policy=config, properties=PROPERTIES)
        for arc in arcs:
            rows[arc] = [], []
            for side in world.mdevs.values():
                for mdev in side:
                    mdev.order("delay", "*>*", 1000 * arc)
            for _ in range(repeats):
                job = world.move()
                world.judge()
                rows[arc][0].append(1000 * world.guest.outage()[-1])
                if config is not None:
                    rows[arc][1].append(intake_msec(job))
                if os.environ.get("MIGMGR_KEEP") and config is not None:
                    print(mode, n, arc, json.dumps(job), file=sys.stderr)
        for side in world.mdevs.values():
            for mdev in side:
                mdev.order("rest")
        world.close()
    return rows


def median(values):
    return statistics.median(values) if values else 0


COLUMNS = ("arc", "devices", "mode", "outage", "from", "to", "own", "in a row", "floor", "of floor", "of stock", "goal",
           "intake")
FORMATS = ("5d", "8d", "6s", "8d", "7d", "7d", "6d", "9d", "7d", "9.2f", "9.3f", "6.2f", "7.1f")


def show(cells):
    """A line of the table; its head is of texts."""
    def cell(value, form):
        width = int(form[:-1].split(".")[0])
        return f"{'' if value is None else value:>{width}}" if value is None or isinstance(value, str) else f"{value:{form}}"
    print(" ".join(map(cell, cells, FORMATS)).rstrip(), flush=True)


class Figures:
    """What was measured, and what it comes to."""

    def __init__(self):
        self.rows, self.problems, self.met = [], [], {}
        self.alone = {}  # {arc: ms that one device's intake takes, with nobody beside it}

    def take(self, n, measured):
        """`measured`: {mode: rows_of()}."""
        best = "both" if "both" in measured else "push"
        if n == 1:
            self.alone = {arc: median(measured["gate"][arc][1]) for arc in ARCS_MSEC}
        for arc in ARCS_MSEC:
            stock, floor = median(measured["stock"][arc][0]), 5 * arc + median(measured["stock"][0][0])
            for mode in measured:
                outages, intakes = measured[mode][arc]
                self.add({"arc_msec": arc, "devices": n, "mode": mode, "outage_msec": round(median(outages)),
                          "least_msec": round(min(outages)), "most_msec": round(max(outages)),
                          "own_msec": round(median(measured[mode][0][0])), "arcs_in_a_row": MODES[mode][1](n),
                          "floor_msec": round(floor), "of_floor": round(median(outages) / floor, 2),
                          "of_stock": round(median(outages) / stock, 3), "goal": GOALS[best].get(n) if mode == best else None,
                          "intake_msec": round(median(intakes), 1) if intakes else None})

    def add(self, row):
        self.rows.append(row)
        show(row.values())
        about = f"{row['devices']} devices, {row['arc_msec']} ms, {row['mode']}"
        if row["goal"] is not None:
            self.met[about] = row["of_stock"] <= row["goal"]
            if not self.met[about]:
                self.problems.append(f"{about}: {row['of_stock']} of stock QEMU, the goal is {row['goal']}")
        most = INTAKE_FACTOR * self.alone.get(row["arc_msec"], row["arc_msec"]) + INTAKE_MSEC
        if row["intake_msec"] is not None and row["intake_msec"] > most:
            self.problems.append(f"{about}: intake {row['intake_msec']} ms, at most {most:.1f} ms")


def main(repeats=REPEATS, *devices):
    begun, figures, qemu = time.monotonic(), Figures(), vfio_guest.qemu_version()
    vfio_guest.load()
    print(f"{os.uname().release}, QEMU {qemu}; times in ms, medians of {repeats}")
    show(COLUMNS)
    for n in devices or DEVICES:
        figures.take(n, {mode: rows_of(mode, n, (0, *ARCS_MSEC), repeats)
                         for mode in (MODES if KERNEL == "iommufd" else WITHOUT_GRACE)})
    for problem in figures.problems:
        print("not met:", problem)
    print(json.dumps({"kernel": KERNEL, "qemu": qemu, "repeats": repeats, "rows": figures.rows, "goals_met": figures.met,
                      "problems": figures.problems, "seconds": round(time.monotonic() - begun), "holds": not figures.problems}))
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) if KERNEL else on_host(__file__, *sys.argv[1:], memory=3000, seconds=3000))
