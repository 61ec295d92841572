# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two stock QEMUs with real VFIO devices and nobody between them but an operator, who moves the guest as QEMU's manual says:
what ours is compared with. In the guest of tests/system/vfio-guest.

    stock = Stock(lab, 2); stock.move(); stock.guest.outage()
"""

import json
import os

from lab import wait_for
from vfio_guest import Mdev, Side, VfioGuest
from vfio_moves import World


class Stock:
    """The guest runs on side `a` first, with `devices` devices on each."""

    def __init__(self, lab, devices=2, properties=""):
        self.lab, self.sides, self.here, self.n = lab, [Side(lab, name) for name in "ab"], 0, 0
        self.mdevs = {side.name: [Mdev() for _ in range(devices)] for side in self.sides}
        self.guest = VfioGuest(lab, "stock", self.mdevs, properties=properties)
        self.guest.start(self.source)

    @property
    def source(self):
        return self.sides[self.here]

    @property
    def destination(self):
        return self.sides[1 - self.here]

    close, order, states = World.close, World.order, World.states

    def transfer(self):
        """Until both say that it is completed. Both are told what makes the outage short: the source waits with its last pass
        until the other one has set its devices up, and sends as fast as it can. Returns their monitors."""
        self.n += 1
        self.incoming = self.guest.start_incoming(self.destination)
        wait_for("the destination's monitor", lambda: os.path.exists(self.guest.eye(self.destination)))
        source, destination = monitors = [self.guest.look(self.source), self.guest.look(self.destination)]
        for monitor in monitors:
            say(monitor, "migrate-set-capabilities", capabilities=[
                {"capability": c, "state": True} for c in ("events", "return-path", "switchover-ack")])
        say(source, "migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        uri = f"unix:{self.lab.dir}/memory{self.n}"
        say(destination, "migrate-incoming", uri=uri)
        say(source, "migrate", uri=uri)
        wait_for_status(destination, "completed")
        return monitors

    def move(self):
        source, destination = self.transfer()
        say(destination, "cont")
        self.here = 1 - self.here
        self.guest.wait_counts(5, 60)
        wait_for("the source to have migrated", lambda: source.command("query-status")["status"] == "postmigrate", 60)
        source.command("quit")
        source.close()
        destination.close()
        wait_for("its end", lambda: not self.guest.qemus(self.destination), 30)

    def judge(self):
        lost, repeated, bad = self.guest.verdict()
        assert (lost, repeated) == (0, 0) and not any(bad), (lost, repeated, bad)


def say(monitor, command, **arguments):
    answer = monitor.command(command, **arguments)
    assert answer == {}, (command, answer)


def wait_for_status(monitor, status):
    """By its events, which come at once."""
    monitor.s.settimeout(60)
    seen, events = [], iter(monitor.events)
    while status not in seen:
        event = next(events, None) or json.loads(monitor.f.readline())
        if event.get("event") == "MIGRATION":
            seen.append(event["data"]["status"])
            assert seen[-1] not in ("failed", "cancelled"), seen
