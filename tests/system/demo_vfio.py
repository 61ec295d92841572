# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stock QEMUs with kernel VFIO devices: a guest is moved with them; then a device refuses its state, without us and with us.

In a guest of our own (tests/system/vfio-guest), with a Debian kernel: two hosts, each with a migmgrd and two devices of the
kernel's sample driver mtty, whose arcs are told to take a while. The VM's guest counts fifty times a second, keeps a number in
each device, and prints what it finds there. Prints what an operator would see, and as its last line one JSON object. Fails
unless everything holds. tests/demo-vfio sets up what is needed and runs this.
"""

import errno
import json
import os
import sys

import vfio_guest
from demo import migctl, say
from lab import Lab, wait_for
from vfio_guest import KERNEL, on_host
from vfio_moves import Stock, World

DEVICES, REFUSES = 2, 1   # so many on each host, and which one of them it is
ARC_USEC = 20000
ORDER = ("refuse", "RESUMING>STOP", errno.EINVAL, 1)


def show_lines(guest, title, lines):
    print(f"{title:24}{'   '.join(map(repr, lines))}", flush=True)


def around_move(guest):
    """The last lines at one place and the first at the next, of its last move."""
    lines = guest.lines()
    at = max(i for i, (a, b) in enumerate(zip(lines, lines[1:]), 1) if a.place != b.place)
    return lines[at - 2:at], lines[at:at + 2]


def verdict(guest):
    lost, repeated, bad = guest.verdict()
    print(f"guest                   {lost} counts lost, {repeated} repeated\n"
          f"lines in which a device is not as the guest has left it: {' and '.join(map(str, bad))}", flush=True)
    return lost, repeated, bad


def states(world):
    names = world.states(world.source)
    print(f"the driver says         {', '.join(f'd{i} {name}' for i, name in enumerate(names))}", flush=True)
    return names.count("RUNNING")


def moved(world):
    """With us, and nothing is wrong."""
    here, there = world.source, world.destination
    migctl(here, "list")
    status, job_id = migctl(here, "migrate", world.name, there.dest)
    job = here.json("show", job_id)[1]
    done = status == 0 and job["result"] == "done"
    if not done:
        return False, {"result": job["result"]}
    migctl(here, "show", job_id)
    world.here = 1 - world.here
    world.guest.wait_counts(5)
    before, after = around_move(world.guest)
    show_lines(world.guest, "the guest at the source", before)
    show_lines(world.guest, "then at the destination", after)
    outage = world.guest.outage()[-1]
    print(f"outage                  {1000 * outage:.0f} ms from line to line")
    lost, repeated, _ = verdict(world.guest)
    world.judge()
    return True, {"result": job["result"], "blackout_usec": job["blackout_usec"], "outage_msec": round(1000 * outage),
                  "counts_lost": lost, "counts_repeated": repeated, "devices_running": states(world)}


def foretold(world):
    """What is known before: of devices whose QEMU does not live yet, by what it will be started with."""
    here, there = world.source, world.destination
    here.write_policy("same", {"set": {"compat": {"mdev-type": "equal"}}}, description="a counterpart is of the same type")
    migctl(here, "policy", "reload")
    status, _ = migctl(here, "check", world.name, there.dest)
    report = here.json("check", world.name, there.dest)[1]
    kinds = {(d["device"], d["facts"].get("mdev-type"), d["isolation"]) for d in report["devices"]}
    compared = {g["guarantee"]: g["holds"] for g in report["guarantees"]}["compatible"]
    # mtty has no BAR that could be mapped.
    holds = status == 0 and compared and kinds == {("4348:3253", f"mtty-{world.mdevs[here.name][0].ports}", "full")}
    return holds, {"check": status}


def hole(stock):
    """Without us. Nobody says a word, and the guest has a device that knows nothing."""
    stock.mdevs[stock.destination.name][REFUSES].order(*ORDER)
    source, destination = stock.transfer()
    wait_for("the source to say so", lambda: source.command("query-migrate")["status"] != "device", 10)
    said = [monitor.command("query-migrate")["status"] for monitor in (source, destination)]
    print(f"$ QMP query-migrate     source: {said[0]}, destination: {said[1]}")
    answer = destination.command("cont")
    stock.here = 1 - stock.here
    stock.guest.wait_counts(5)
    state = destination.command("query-status")["status"]
    print(f"$ QMP cont              {json.dumps(answer)}; query-status: {state}")
    before, after = around_move(stock.guest)
    show_lines(stock.guest, "the guest at the source", before)
    show_lines(stock.guest, "then at the destination", after)
    printed = [line for line in stock.incoming.output().split("\n") if "Resetting device" in line]
    print(f"QEMU has printed        {printed[0] if printed else 'nothing'}")
    bad = verdict(stock.guest)[2]
    is_hole = said == ["completed"] * 2 and answer == {} and state == "running" and bad[REFUSES] > 0 and not bad[1 - REFUSES]
    source.close()
    destination.close()
    return is_hole, {"stock_says": said[1], "stock_guest": state, "stock_device_reset": bad[REFUSES] > 0}


def refused(world):
    """With us: the same refusal."""
    here, there = world.source, world.destination
    at = len(world.guest.lines())
    world.mdevs[there.name][REFUSES].order(*ORDER)
    status, job = migctl(here, "migrate", world.name, there.dest)
    job = here.json("show", job)[1]
    world.guest.wait_counts(5)
    migctl(here, "list")
    wait_for("the destination's QEMU to be gone", lambda: not world.guest.qemus(there), 10)
    lines = world.guest.lines()[at:]
    gap = max(range(1, len(lines)), key=lambda i: lines[i].time - lines[i - 1].time)
    show_lines(world.guest, "the guest, before", lines[gap - 2:gap])
    show_lines(world.guest, "and after it stood", lines[gap:gap + 2])
    elsewhere = sum(line.place != here.name for line in lines)
    print(f"at the destination      {elsewhere} lines; no QEMU is left there", flush=True)
    lost, repeated, bad = verdict(world.guest)
    world.judge()
    states(world)
    ok = (status == 1 and job["result"] == "failed" and not elsewhere and (lost, repeated) == (0, 0) and not any(bad))
    return ok, {"refused_result": job["result"], "refused_error": job["error"], "refused_counts_lost": lost,
                "stood_msec": round(1000 * (lines[gap].time - lines[gap - 1].time)),
                "refused_devices_lost": sum(n > 0 for n in bad)}


def slow(world):
    for side in world.mdevs.values():
        for mdev in side:
            mdev.order("delay", "*>*", ARC_USEC)


def main():
    vfio_guest.load()
    with Lab() as lab:
        say(f"Two hosts; a stock QEMU {vfio_guest.qemu_version()} with {DEVICES} VFIO devices. Each line of its guest says where it\n"
            "   ran, its count, and of each device what it found there: its own number, and 1b if it still is the one that the\n"
            "   guest has set up")
        world = World(lab, DEVICES)
        slow(world)
        say("The guest moves with its devices")
        results = [foretold(world), moved(world)]
        say("The same QEMUs without us; at the destination the driver refuses the state of the second device")
        stock = Stock(lab, DEVICES)
        slow(stock)
        results.append(hole(stock))
        stock.close()
        say("And with us: the driver refuses it again")
        results.append(refused(world))
        holds = all(held for held, _ in results)
        lab.failed = not holds
        world.close()
    line = {"kernel": os.uname().release, "qemu": vfio_guest.qemu_version(), "devices": DEVICES}
    for _, figures in results:
        line |= figures
    print()
    print(json.dumps({**line, "holds": holds}), flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main() if KERNEL else on_host(__file__, memory=2048))
