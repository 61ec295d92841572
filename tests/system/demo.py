# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two VMs move from one migmgrd to another, each with four devices; then one device refuses, and nothing moves.

Two hosts on this machine, each with its own bus, helper and daemon. The first VM is that of migmgr-test-vmm: its guest
works its four devices as hard as it can, by registers, a mapped window, DMA and interrupts, and checks all that it sees.
The second is a real QEMU whose guest counts on a serial port, with four devices beside it. Prints what an operator would
see, and as its last line one JSON object. Fails unless everything holds. tests/demo sets up what is needed and runs this.
"""

import json
import re
import subprocess
import sys

from figures import Device, Rates, floor_usec, sum_usec
from lab import Guest, Lab, definition, new_uuid, program
from moves import World

DEVICES = [
    Device("nic", 4, {"running>running-p2p": 12, "running-p2p>stop": 6, "stop>stop-copy": 4, "resuming>stop": 8,
                      "stop>running-p2p": 5, "running-p2p>running": 3}),
    Device("nvme", 16, {"running>running-p2p": 5, "running-p2p>stop": 15, "stop>stop-copy": 5, "resuming>stop": 10,
                        "stop>running-p2p": 5, "running-p2p>running": 5}, read_ms=2),
    Device("gpu", 64, {"running>running-p2p": 8, "running-p2p>stop": 8, "stop>stop-copy": 10, "resuming>stop": 20,
                       "stop>running-p2p": 10, "running-p2p>running": 10}),
    Device("crypto", 0.25, {"running>stop": 10, "stop>stop-copy": 2, "resuming>stop": 5, "stop>running": 5}, p2p=False),
]
GOAL = 1.25  # device blackout over floor

# Those that the first guest uses: state goes out before the blackout, so that what is left are their arcs.
WORKERS = {
    "nic": {"pre-copy>pre-copy-p2p": 8, "pre-copy-p2p>stop-copy": 6, "stop-copy>stop": 2, "resuming>stop": 8,
            "stop>running-p2p": 5, "running-p2p>running": 3},
    "nvme": {"pre-copy>pre-copy-p2p": 5, "pre-copy-p2p>stop-copy": 12, "resuming>stop": 6, "stop>running-p2p": 5,
             "running-p2p>running": 5},
    "gpu": {"pre-copy>pre-copy-p2p": 6, "pre-copy-p2p>stop-copy": 8, "stop-copy>stop": 5, "resuming>stop": 12,
            "stop>running-p2p": 8, "running-p2p>running": 8},
    "crypto": {"pre-copy>pre-copy-p2p": 2, "pre-copy-p2p>stop-copy": 2, "resuming>stop": 3},
}


def say(text):
    print(f"\n== {text}", flush=True)


def milliseconds(usec):
    return f"{usec / 1000:8.1f} ms"


def migctl(host, *args):
    """As a person runs it, with the output where ours goes. The exit status, and the job that was named."""
    print(f"$ migctl {' '.join(args)}", flush=True)
    p = subprocess.Popen([program("migctl"), "--bus-address=" + host.bus_address, *args], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
    job = None
    for line in p.stdout:
        print(line, end="", flush=True)
        named = re.search(r"migctl show ([0-9a-f-]{36})", line)
        job = named.group(1) if named else job
    if p.wait() != 0:
        print(f"(exit status {p.returncode})", flush=True)
    return p.returncode, job


def under_load(lab, hosts):
    """The guest that uses its devices goes there and back, at full speed all the time."""
    world = World(lab, hosts, devices={name: "size=8M,worker=on,pre-copy=on" + "".join(
        f",delay={arc}:{ms}" for arc, ms in arcs.items()) for name, arcs in WORKERS.items()}, name="worker1")
    world.wait_steps(200)
    barriers = {arc for arcs in WORKERS.values() for arc in arcs}
    floor = sum(max(arcs.get(arc, 0) for arcs in WORKERS.values()) for arc in barriers)
    total = sum(sum(arcs.values()) for arcs in WORKERS.values())
    ok, blackouts = True, []
    for _ in range(2):
        source = world.source.host
        status, job = migctl(source, "migrate", world.name, world.destination.host.dest)
        job = source.json("show", job)[1]
        ok &= status == 0 and job["result"] == "done"
        if not ok:
            break
        blackouts.append(job["device_blackout_usec"])
        world.here = 1 - world.here
        world.wait_steps(200)
    state = world.state()
    commands, interrupts, ticks = (sum(d[k] for d in state.get("devices", [])) for k in (
        "commands", "interrupts", "ticks"))
    say("What the guest of the test VMM saw")
    print(f"device blackouts       {', '.join(milliseconds(b).strip() for b in blackouts)}   floor {floor} ms, one after the other {total} ms\n"
          f"chain                  {state['broken'] or 'unbroken'} after {state['steps']} steps\n"
          f"devices                {commands} commands, {interrupts} interrupts, {ticks} pages written unasked", flush=True)
    ok &= not state["broken"]
    world.close()
    return ok, {"worker_chain": state["broken"] or "unbroken", "worker_steps": state["steps"],
                "worker_blackout_usec": max(blackouts, default=0), "worker_floor_usec": 1000 * floor,
                "worker_sum_usec": 1000 * total}


class Demo:
    def __init__(self, lab, hosts):
        self.a, self.b = hosts
        self.servers = {h.name: [lab.server(f"{h.name}-{d.name}", {d.name: d.spec(seed=i + 1 + 10 * (h is self.b))})
                                 for i, d in enumerate(DEVICES)] for h in (self.a, self.b)}
        self.guest = Guest(lab, "guest", memory_mib=128)
        self.guest.start(self.a)
        self.uuid = new_uuid()

    def server(self, host, device):
        return self.servers[host.name][[d.name for d in DEVICES].index(device)]

    def register(self):
        for host in (self.a, self.b):
            d = definition("web1", self.uuid, None, [], self.guest.vmm(host))
            d["devices"] = [{"id": x.name, "type": "vfio-user", "socket": self.server(host, x.name).socket(x.name)}
                            for x in DEVICES]
            host.register(d, incoming=host is self.b)

    def memories(self, host):
        """Of each device. The first eight bytes are a counter that goes up while the device runs: {id: (counter, rest)}"""
        dumps = {}
        for d in DEVICES:
            server = self.server(host, d.name)
            path = server.socket("dump")
            server.command("dump", device=d.name, path=path)
            with open(path, "rb") as f:
                dumps[d.name] = int.from_bytes(f.read(8), "little"), f.read()
        return dumps

    def same(self, left, right):
        """How many devices arrived as they had left: what one side saved is what the other loaded, to the last byte, and
        what is there while they run is the same but for the counter, which goes on."""
        sums = [(self.server(left, d.name).digest(d.name)["crc_saved"],
                 self.server(right, d.name).digest(d.name)["crc_loaded"]) for d in DEVICES]
        before, after = self.memories(left), self.memories(right)
        return sum(saved == loaded and before[d.name][1] == after[d.name][1] and before[d.name][0] <= after[d.name][0]
                   for d, (saved, loaded) in zip(DEVICES, sums))

    def states(self, host):
        return {d.name: self.server(host, d.name).status(d.name)["state"] for d in DEVICES}


def look_first(lab, demo):
    """Before anything is touched: what a move would be like, for a pair that is good and for one that is not."""
    a, b = demo.a, demo.b
    good, _ = migctl(a, "check", "web1", b.dest)
    uuid = new_uuid()
    for host, p2p in ((a, "on"), (b, "off")):
        server = lab.server(f"{host.name}-old", {"nic": f"size=1M,p2p={p2p}"})
        host.register(definition("old1", uuid, server, ["nic"]), incoming=host is b)
    bad, _ = migctl(a, "check", "old1", b.dest)
    findings = a.json("check", "old1", b.dest)[1]["findings"]
    ok = (good, bad) == (0, 6) and [(f["device"], f["property"]) for f in findings] == [
        ("nic", "migration flags")]
    return ok, {"check_good": good, "check_bad": bad}


def move(demo, rates):
    """The guest and its devices go from source to destination."""
    a, b, guest = demo.a, demo.b, demo.guest
    migctl(a, "list")
    status, job = migctl(a, "migrate", "web1", b.dest)
    guest.wait_counts(5)
    migctl(a, "show", job)
    job = a.json("show", job)[1]
    lost, repeated, wrong = guest.verdict()
    same = demo.same(a, b)
    rates = rates.slower(Rates(DEVICES))  # whatever else the machine does slows the loop and the move alike
    figures = {"device_blackout_usec": job["device_blackout_usec"], "floor_usec": round(floor_usec(DEVICES, rates)),
               "sum_usec": round(sum_usec(DEVICES, rates)), "vmm_usec": job["vmm_usec"]}
    slowest = max(DEVICES, key=lambda d: sum_usec([d], rates))
    say("What the move cost")
    print(f"device blackout        {milliseconds(figures['device_blackout_usec'])}\n"
          f"  floor                {milliseconds(figures['floor_usec'])}   every barrier as long as its slowest device\n"
          f"  slowest device alone {milliseconds(sum_usec([slowest], rates))}   {slowest.name}\n"
          f"  sum of all devices   {milliseconds(figures['sum_usec'])}   one after the other\n"
          f"QEMU's own part        {milliseconds(figures['vmm_usec'])}   pause, last pages, resume\n"
          f"guest                  {lost} counts lost, {repeated} repeated, {wrong} pages wrong\n"
          f"device memory          {same} of {len(DEVICES)} the same byte for byte", flush=True)
    ok = (status == 0 and job["result"] == "done" and (lost, repeated, wrong) == (0, 0, 0) and
          same == len(DEVICES) and set(demo.states(b).values()) == {"running"} and
          figures["device_blackout_usec"] <= GOAL * figures["floor_usec"])
    return ok, {"result": job["result"], **figures, "guest_counts_lost": lost, "guest_counts_repeated": repeated,
                "devices": len(DEVICES)}


def explain(demo):
    """An operator gives the GPU more time than the others, and asks who said so."""
    a, key = demo.a, "deadline-ms.drain"
    a.write_policy("site", {"set": {"deadline-ms": {"drain": 30000}}},
                   {"match": {"id": "gpu"}, "set": {"deadline-ms": {"drain": 90000}}}, description="what this site says")
    status, _ = migctl(a, "policy", "reload")
    listed, _ = migctl(a, "policy", "list")
    print("$ migctl policy explain web1 gpu | grep " + key, flush=True)
    rows = a.migctl("policy", "explain", "web1", "gpu")[1].splitlines()
    row, = [line for line in rows if line.startswith(key + " ")]
    print(row, flush=True)
    said = re.split(r"  +", row)
    return status == listed == 0 and said[1] == "90000" and said[2].endswith("/site.json:10") and said[3] == "30000 (site.json:3)"


def refuse(demo):
    """Now from the destination back, and there the GPU refuses the state it is given."""
    a, b, guest = demo.b, demo.a, demo.guest
    before = demo.memories(a)
    demo.server(b, "gpu").fault("gpu", "resuming>stop:fail:EINVAL")
    status, job = migctl(a, "migrate", "web1", b.dest)
    guest.wait_counts(5)
    migctl(a, "list")
    migctl(a, "devices", "web1")
    lost, repeated, wrong = guest.verdict()
    job = a.json("show", job)[1]
    runs = (status == 1 and job["result"] == "failed" and (lost, repeated, wrong) == (0, 0, 0) and
            set(demo.states(a).values()) == {"running"} and all(before[d][1] == now for d, (_, now) in demo.memories(a).items()) and
            a.vm("web1")["presence"] == "here" and b.vm("web1")["presence"] != "here")
    print(f"guest                  {lost} counts lost, {repeated} repeated, {wrong} pages wrong", flush=True)
    return runs, {"rollback": "source runs" if runs else f"{job['result']}, exit status {status}"}


def main():
    with Lab() as lab:
        hosts = [lab.host("source"), lab.host("destination")]
        say("The test VMM: a guest at work on its four devices, by registers, DMA and interrupts, moves there and back")
        loaded, line = under_load(lab, hosts)
        say("QEMU: a guest that counts, with four devices beside it")
        demo = Demo(lab, hosts)
        demo.register()
        rates = Rates(DEVICES)
        print(f"link: {rates.one / 1e6:.0f} MB/s one stream, {rates.all / 1e6:.0f} MB/s all four, in a plain loop")
        say("What holds for a device, and who says so")
        explained = explain(demo)
        say("Would it work? And what would not, here: a device whose counterpart can less")
        looked, more = look_first(lab, demo)
        line |= more
        say("The guest of QEMU moves with its devices")
        moved, more = move(demo, rates)
        line |= more
        say("Again, the other way; this time the GPU there refuses its state")
        rolled_back, more = refuse(demo)
        print()
        lab.failed = not (loaded and explained and looked and moved and rolled_back)
        print(json.dumps({**line, **more, "holds": not lab.failed}), flush=True)
        return 1 if lab.failed else 0


if __name__ == "__main__":
    sys.exit(main())
