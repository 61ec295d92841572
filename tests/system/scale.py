# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host with many VMs: how long it takes to register them, to list them and to start migmgrd anew, what wakes up while
nothing happens, and what a VM costs in memory. It is started anew RESTARTS times with its connections to agents parked, and as often
with none of them: `ready` is when VMs can be listed, `found` when all agents have said how they are, from exec on; medians.

Arguments: number of VMs (1000), devices of each (4). The devices are emulated, a thousand in one process. The last line is
one JSON object; `holds`: the list takes at most LIST_MSEC, a start with its connections parked has found all agents after at most
FOUND_MSEC, nothing of ours wakes up, and one more VM is registered at the end in no more than LAST_TO_FIRST times what it took
at the beginning."""

import json
import os
import resource
import statistics
import sys
import time

from bus import Bus
from keeper import KeptHost
from lab import Lab, PACE, new_uuid, wait_for

LIST_MSEC = 200
FOUND_MSEC = 150
IDLE_SECONDS = 5
LAST_TO_FIRST = 3
DEVICES_IN_A_SERVER = 1000
SAMPLE = 50  # VMs at either end
RESTARTS = 5


def switches(pid):
    """How often its threads have gone to sleep and were woken up."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("voluntary_ctxt_switches"))
    return total


def memory_kib(pid):
    """Its share of what it maps: pages that several processes have count once."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


def milliseconds(call):
    start = time.monotonic()
    call()
    return (time.monotonic() - start) * 1000


def restart(host, n_open, parked):
    """Milliseconds until it was ready, and until all devices were found."""
    wait_for("all connections to be parked", lambda: host.daemon.store.names().count("agent") == n_open, 60)
    if not parked:
        host.daemon.store.close()
    host.daemon.kill()

    def says(text):
        wait_for(text, lambda: text in host.daemon.output(), 60)
        return (time.monotonic() - host.started) * 1000
    return says("ready, "), says(f"{n_open} of {n_open} devices found again")


def measure(n_vms, n_devices, out):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures = {"vms": n_vms, "devices": n_devices}
    with Lab() as lab:
        host = KeptHost(lab, "host", n_vms * n_devices + 1).start()  # and the index
        ids = [f"d{i}" for i in range(n_devices)]
        a_server = max(1, DEVICES_IN_A_SERVER // n_devices)
        servers = [lab.server(f"s{k}", {f"v{v}{d}": "size=4K" for v in range(k, min(k + a_server, n_vms)) for d in ids})
                   for k in range(0, n_vms, a_server)]
        empty_kib = memory_kib(host.daemon.pid)

        took = []
        with Bus(host.bus_address) as bus:
            for v in range(n_vms):
                server = servers[v // a_server]
                vm = {"name": f"vm{v:04}", "uuid": new_uuid(), "vmm": {"type": "none"}, "devices": [
                    {"id": d, "type": "vfio-user", "socket": server.socket(f"v{v}{d}")} for d in ids]}
                took.append(milliseconds(lambda: bus.call("org.migmgr1", "/org/migmgr1", "org.migmgr1.Manager", "RegisterVM",
                                                          "sa{sv}", json.dumps(vm), {}, seconds=60)))
        sample = min(SAMPLE, max(1, n_vms // 4))
        figures["register_seconds"] = round(sum(took) / 1000, 1)
        figures["register_first_msec"] = round(statistics.median(took[:sample]), 1)
        figures["register_last_msec"] = round(statistics.median(took[-sample:]), 1)
        print(f"registered: {figures['register_seconds']} s; one took {figures['register_first_msec']} ms at first and "
              f"{figures['register_last_msec']} ms at last", file=out, flush=True)

        def listed():
            status, vms = host.json("list")
            assert status == 0 and len(vms) == n_vms, (status, len(vms))
        listed()
        times = sorted(milliseconds(lambda: host.migctl("list")) for _ in range(7))
        figures["list_msec"], figures["list_most_msec"] = round(statistics.median(times), 1), round(times[-1], 1)
        print(f"migctl list: {figures['list_msec']} ms, {figures['list_most_msec']} at most", file=out, flush=True)

        agents = host.agents()
        assert len(agents) == n_vms * n_devices, len(agents)
        figures["daemon_kib_each_vm"] = round((memory_kib(host.daemon.pid) - empty_kib) / n_vms, 1)
        figures["agents_kib_each_vm"] = round(sum(memory_kib(pid) for pid in agents) / n_vms, 1)
        print(f"memory of each VM: {figures['daemon_kib_each_vm']} KiB in migmgrd, {figures['agents_kib_each_vm']} KiB in "
              f"its agents", file=out, flush=True)

        ours = {"migmgrd": [host.daemon.pid], "helper": [host.helper.pid], "agents": agents}
        before = {name: sum(map(switches, pids)) for name, pids in ours.items()}
        time.sleep(IDLE_SECONDS)  # what is measured is that nothing happens
        figures["idle_wakeups"] = {name: sum(map(switches, pids)) - before[name] for name, pids in ours.items()}
        print(f"woken up in {IDLE_SECONDS} idle seconds: {figures['idle_wakeups']}", file=out, flush=True)

        for parked, name in ((True, "parked"), (False, "by_path")):
            ready, found = zip(*[restart(host, n_vms * n_devices, parked) for _ in range(RESTARTS)])
            for what, values in (("ready", ready), ("found", found)):
                figures[f"restart_{what}_{name}_msec"] = round(statistics.median(values))
            print(f"started anew, {name}: ready after {figures[f'restart_ready_{name}_msec']} ms, all agents found after "
                  f"{figures[f'restart_found_{name}_msec']} ms, at best {min(found):.0f}", file=out, flush=True)
        listed()
        for server in servers:
            server.s.close()
    figures["holds"] = (figures["list_msec"] <= LIST_MSEC * PACE and not any(figures["idle_wakeups"].values())
                        and figures["restart_found_parked_msec"] <= FOUND_MSEC * PACE
                        and figures["register_last_msec"] <= LAST_TO_FIRST * figures["register_first_msec"])
    print(json.dumps(figures), file=out, flush=True)
    return figures["holds"]


if __name__ == "__main__":
    n = [int(a) for a in sys.argv[1:]]
    sys.exit(0 if measure(n[0] if n else 1000, n[1] if len(n) > 1 else 4, sys.stdout) else 1)
