# SPDX-License-Identifier: LGPL-2.1-or-later
"""migctl from outside: exit statuses, what it prints, and what it says when something is wrong."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
import unittest

from bus import Bus, DESTINATION, ERROR, ERROR_NAME, REPLY_SERIAL
from kills import Watcher
from lab import Guest, Lab, TOP, definition, new_uuid, program, wait_for
from relay import Relay
from system_host import SystemHost

NOBODY = 65534
CONFIG = {"doubt-msec": 400, "connect-msec": 1000}


def table(title):
    """The rows of a table of docs/outcomes.md, which is made from the code."""
    with open(os.path.join(TOP, "docs", "outcomes.md")) as f:
        part = f.read().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    return [[c.strip(" `") for c in line.strip("|").split(" | ")] for line in part.splitlines()
            if line.startswith("| ") and not line.startswith("| --")][1:]


RESULTS = {name: int(status) for name, status, _ in table("Results of jobs")}
STATUSES = {int(status) for status, _ in table("Exit statuses of migctl")}


def verbs():
    """{verb: its arguments}, as --help lists them; one in brackets need not be given. Some verbs are two words."""
    out = subprocess.run([program("migctl"), "--help"], text=True, capture_output=True, check=True).stdout
    return {m[1]: m[2].split() for m in re.finditer(r"^  ([a-z]+(?: [a-z]+)?) +((?:[][A-Z]+ )*) ", out, re.M)}


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.lab.__enter__()
        cls.addClassCleanup(cls.lab.__exit__, None, None, None)
        cls.a, cls.b = (cls.lab.host(name, config=CONFIG) for name in ("a", "b"))
        cls.numbers = iter(range(1, 1000))

    def vm(self, here="", there="", register=True):
        """A VM that can go from a to b. `here` and `there`: more about its device at either end."""
        n = next(self.numbers)
        name, uuid, ends = f"vm{n}", new_uuid(), []
        for side, extra in (("a", here), ("b", there)):
            server = self.lab.server(f"{name}{side}", {"nic": "size=64K" + ("," + extra if extra else "")})
            self.addCleanup(server.stop)
            ends.append(definition(name, uuid, server, ["nic"]))
        if register:
            self.a.register(ends[0])
            self.b.register(ends[1], incoming=True)
        return name

    def silent_peer(self):
        path = os.path.join(self.lab.dir, f"silent{next(self.numbers)}")
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen(16)
        self.addCleanup(s.close)
        return "unix:" + path

    def file(self, text):
        path = os.path.join(self.lab.dir, f"file{next(self.numbers)}")
        with open(path, "w") as f:
            f.write(text if isinstance(text, str) else json.dumps(text))
        return path

    def ends(self, status, *args, says="", host=None):
        """It ends with that status, and says so on stderr unless it went well. Returns stdout."""
        got, out, err = (host or self.a).migctl(*args)
        self.assertEqual(got, status, (args, out, err))
        if status == 0:
            self.assertNotIn("migctl:", err)
        else:
            self.assertRegex(err, r"(?m)^(migctl|usage): .*" + says, args)
            self.assertNotIn("org.freedesktop", err.replace("The name", ""))
        return out

    def job_of(self, vm):
        return self.a.json("status", vm)[1].get("job")

    def reads_interrupts(self, pid):
        with open(f"/proc/{pid}/status") as f:
            blocked = int(re.search(r"^SigBlk:\s*([0-9a-f]+)", f.read(), re.M)[1], 16)
        return blocked >> (signal.SIGINT - 1) & 1


class ExitStatus(Case):
    """Every status of the table, made to happen."""

    made = {}

    def migrate(self, result, vm, dest=None, *args):
        """The result, its status, and what the daemon has noted agree."""
        status, job = self.a.migrate(vm, dest or self.b, *args)
        self.assertEqual((job.get("result"), status), (result, RESULTS[result]), job)
        self.made[status] = result
        return job

    def note(self, status, *args, says="", host=None):
        self.ends(status, *args, says=says, host=host)
        self.made[status] = args

    def test_0_done(self):
        vm = self.vm()
        self.migrate("done", vm)
        self.assertEqual((self.a.vm(vm)["presence"], self.b.vm(vm)["presence"]), ("away", "here"))

    def test_1_failed(self):
        vm = self.vm()
        job = self.migrate("failed", vm, "unix:/nonexistent/x")
        self.assertEqual(job["error"]["name"], "Peer")
        self.assertIn("/nonexistent/x", job["error"]["text"])
        job = self.migrate("failed", self.vm(there="fault=resuming>stop:fail:EINVAL"))
        self.assertEqual(job["error"]["name"], "Device")
        self.assertIn("nic", job["error"]["text"])

    def test_over_tcp(self):
        """There and back, and what is said where nobody listens, or where TLS would be needed."""
        with Lab(transport="tcp") as lab:
            a, b = (lab.host(name, config=CONFIG) for name in "ab")
            uuid = new_uuid()
            for host in (a, b):
                server = lab.server("server-" + host.name, {"d": "size=3M", "e": "size=64K"})
                host.register(definition("vm", uuid, server, ["d", "e"]), incoming=host is b)
            self.assertTrue(b.dest.startswith("tcp://127.0.0.1:"))
            for here, there in ((a, b), (b, a)):
                status, report = here.json("check", "vm", there.dest)
                self.assertEqual((status, report["ok"]), (0, True))
                status, job = here.migrate("vm", there)
                self.assertEqual((status, job["peer"]), (0, there.dest), job)
            b.daemon.kill()
            status, job = a.migrate("vm", b)
            self.assertEqual(status, 1)
            self.assertIn(b.dest + ": Connection refused", job["error"]["text"])
            self.ends(2, "migrate", "vm", "tcp://10.0.0.1:5", says="TLS is needed", host=a)
            self.ends(2, "migrate", "vm", "tls://host", says="TLS is not there yet", host=a)

    def test_limits_reach_both_halves(self):
        """As they were meant: in the unit that the man page names."""
        for rate, bytes_per_second in (("1", 1), ("1000", 1000), ("1K", 1024), ("1.5M", 1536 * 1024), ("100G", 100 << 30)):
            vm = self.vm()
            self.ends(0, "check", "--bandwidth=" + rate, "--max-blackout=2500", vm, self.b.dest)
            status, job = self.a.migrate(vm, self.b, "--bandwidth=" + rate, "--max-blackout=2500.5")
            self.assertEqual(status, 0, job)
            for host in (self.a, self.b):
                seen = wait_for("the end", lambda: host.json("show", job["job"])[1])
                self.assertEqual((seen["bandwidth"], seen["max_blackout_usec"]), (bytes_per_second, 2500500), host.name)
        self.assertRegex(self.ends(0, "show", job["job"]), r"Bandwidth: 100\.0 GiB/s at most\n(.*\n)* +May stand: 2500\.5 ms")
        status, job = self.b.migrate(vm, self.a)
        self.assertEqual((job["bandwidth"], job["max_blackout_usec"]), (0, 0))

    def test_12_busy_and_1_too_late(self):
        vm = self.vm()
        p = self.a.migctl_start("migrate", vm, self.silent_peer())
        wait_for("the job", lambda: self.job_of(vm))
        id = self.a.vm(vm)["job"]
        for args in (("migrate", vm, self.b.dest), ("check", vm, self.b.dest), ("unregister", vm)):
            self.note(12, *args, says="has a job")
        self.ends(0, "cancel", id)
        p.communicate(timeout=20)
        self.note(1, "cancel", id, says="ended already")

    def test_register_again(self):
        """The same again goes well; anything else is refused, and the text says why."""
        server = self.lab.server("again", {"nic": "", "x": ""})
        mine = definition("again", new_uuid(), server, ["nic"])
        for _ in range(3):
            self.ends(0, "register", self.file(mine))
        self.ends(0, "register", self.file(dict(reversed(mine.items()))))
        self.ends(12, "register", "--incoming", self.file(mine), says="is here; it leaves by a migration")
        self.ends(12, "register", self.file({**mine, "labels": {"a": "b"}}), says="another definition")
        self.ends(12, "register", self.file({**mine, "name": "other"}), says="another definition")
        self.ends(12, "register", self.file({**mine, "uuid": new_uuid()}), says="another VM is called again here.*" + mine["uuid"])
        self.assertEqual(self.a.vm("again")["presence"], "here")
        theirs = definition("again", mine["uuid"], self.lab.server("again-b", {"nic": ""}), ["nic"])
        for _ in range(2):
            self.ends(0, "register", "--incoming", self.file(theirs), host=self.b)
        self.ends(12, "register", self.file(theirs), says="is away; it comes by a migration", host=self.b)
        self.assertEqual(self.a.migrate("again", self.b)[0], 0)
        self.ends(0, "register", self.file(theirs), host=self.b)
        self.ends(0, "unregister", "again")
        self.ends(5, "unregister", "again", says="again")
        self.ends(0, "register", "--incoming", self.file(mine))

    def test_1_a_device_that_is_not_there(self):
        self.note(1, "register", self.file(definition("ghost", new_uuid(), self.lab.server("other", {"other": ""}), ["nic"])),
                  says="device nic")

    def test_2_usage(self):
        vm = self.vm()
        for args in (["nonsense"], ["LIST"], [""], ["--nonsense"], ["list", "--nonsense"], ["--json=xml", "list"],
                     ["--timeout=soon", "migrate", vm, self.b.dest], ["--timeout=0", "migrate", vm, self.b.dest],
                     ["--timeout=-1", "migrate", vm, self.b.dest], ["--timeout=nan", "migrate", vm, self.b.dest],
                     ["--timeout=1e9", "migrate", vm, self.b.dest], ["--timeout=0x5", "migrate", vm, self.b.dest],
                     ["--timeout= 5", "migrate", vm, self.b.dest],
                     *(["--bandwidth=" + rate, "migrate", vm, self.b.dest] for rate in
                       ("", "0", "-1", "M", "1MM", "1MB", "1m", "0.5", "1 M", "inf", "nan", "1e3", "0x10", "9999999999G", "1T", "1.2.3")),
                     *(["--max-blackout=" + ms, "check", vm, self.b.dest] for ms in
                       ("", "0", "-5", "5ms", "inf", "1e3", "0.0001", "9999999999999")),
                     ["--no-wait", "check", vm, self.b.dest], ["--dry-run", "cancel", "x"],
                     ["--no-wait", "--wait", "migrate", vm, self.b.dest], ["--no-wait", "--dry-run", "migrate", vm, self.b.dest],
                     ["--yes", "unregister", vm], ["reset", vm], ["reset", vm, "nic"], ["--bandwidth=1M", "list"], ["--max-blackout=5", "status", vm], ["--timeout", "migrate"], ["list", "x"],
                     ["--incoming", "list"], ["--timeout=1", "check", vm, self.b.dest], ["--request-id=1", "status", vm]):
            status, out, err = self.a.migctl(*args)
            self.assertEqual((status, out), (2, ""), args)
            self.assertTrue(err.strip(), args)
        for verb, arguments in verbs().items():
            least = len([a for a in arguments if not a.startswith("[")])
            for n in {0, least - 1, len(arguments) + 1} - {-1, *range(least, len(arguments) + 1)}:
                self.note(2, *verb.split(), *["x"] * n, says=verb)
        for args in (["policy"], ["policy", "nonsense"], ["policy", "--json"], ["policy", ""]):
            self.ends(2, *args, says='no verb "policy')
        self.note(2, "migrate", vm, "nowhere", says="nowhere")
        self.note(2, "migrate", "--request-id=" + "x" * 200, vm, self.b.dest, says="request-id")
        for text in ("", "{", {"name": "x"}, "\0", "x" * 300000):
            self.note(2, "register", self.file(text))

    def test_2_the_hint_is_good(self):
        """What the message of a wrong call says to try is something that works."""
        for args in (["nonsense"], ["--nonsense"]):
            err = self.a.migctl(*args)[2]
            self.assertIn("migctl --help", err)
        self.assertEqual(self.a.migctl("--help")[0], 0)

    def test_3_timeout(self):
        self.migrate("timeout", self.vm(here="delay=*>*:300"), None, "--timeout=0.2")

    @unittest.skipUnless(os.getuid() == 0, "only root can be somebody else")
    def test_4_denied(self):
        """migctl as another user; a copy of it, for he may not get into the build directory."""
        with Lab() as lab:
            host = SystemHost(lab, "open")
            lab.hosts.append(host)
            host.start()
            host.register(definition("vm", new_uuid(), lab.server("server", {"nic": ""}), ["nic"]))
            copy = os.path.join(lab.dir, "migctl")
            shutil.copy(program("migctl"), copy)

            def as_nobody(*args):
                return subprocess.run([copy, "--bus-address=" + host.bus_address, *args], user=NOBODY, group=NOBODY,
                                      extra_groups=[], text=True, capture_output=True, timeout=20, cwd="/")
            for args in (("migrate", "vm", self.b.dest), ("check", "vm", self.b.dest), ("unregister", "vm"),
                         ("reset", "--yes", "vm"), ("policy", "reload")):
                p = as_nobody(*args)
                self.assertEqual((p.returncode, p.stdout), (4, ""), p.stderr)
                self.assertRegex(p.stderr, r"(?m)^migctl: .*polkit: org\.migmgr1\.(migrate|manage|reset-device)$")
            self.made[4] = "denied"
            self.assertEqual(host.vm("vm")["presence"], "here")
            self.assertIn("vm", as_nobody("list").stdout)

    def test_5_not_found(self):
        for args in (("status", "nobody"), ("devices", "nobody"), ("check", "nobody", self.b.dest),
                     ("migrate", "nobody", self.b.dest), ("unregister", "nobody"), ("reset", "--yes", "nobody"),
                     ("reset", "--yes", self.vm(), "nobody"), ("policy", "show", "nobody"),
                     ("policy", "explain", "nobody"), ("policy", "explain", self.vm(), "nobody")):
            self.note(5, *args, says="nobody")
        for verb in ("show", "resolve", "cancel"):
            self.note(5, verb, new_uuid(), says="job")
            self.note(5, verb, "nothing", says="job")
        for verb in ("register",), ("policy", "check"):
            self.note(5, *verb, "/nonexistent/file", says="/nonexistent/file")

    def test_6_refused(self):
        vm = self.vm()
        job = self.migrate("refused", vm, self.a)
        self.assertTrue(job["findings"])
        status, report = self.a.json("check", vm, self.a.dest)
        self.assertEqual((status, report["ok"]), (6, False))
        self.assertTrue(report["findings"])
        for finding in report["findings"]:
            self.assertEqual(set(finding), {"weight", "device", "property", "source", "destination", "remedy"})
            self.assertTrue(finding["property"] and finding["remedy"])

    def test_6_a_helper_that_is_gone_or_hangs(self):
        """It is not the device's server that is to be started then."""
        with Lab() as lab:
            a, b = (lab.host(name, config=CONFIG) for name in "ab")
            uuid = new_uuid()
            for host in (a, b):
                host.register(definition("vm", uuid, lab.server("server-" + host.name, {"d": ""}), ["d"]), incoming=host is b)

            def refused(says):
                status, report = a.json("check", "vm", b.dest)
                self.assertEqual(status, 6, report)
                finding, = report["findings"]
                self.assertEqual((finding["device"], finding["property"]), ("d", "agent"))
                self.assertIn(says, finding["destination"])
                self.assertIn("migmgr-helper.service", finding["remedy"])
            b.helper.kill()
            refused("migmgr-helper cannot be reached")
            b.start_helper()
            b.helper.p.send_signal(signal.SIGSTOP)
            refused("migmgr-helper does not answer")
            b.helper.p.send_signal(signal.SIGCONT)
            self.ends(0, "check", "vm", b.dest, host=a)

    def test_6_with_very_many_findings(self):
        """The first hundred are shown, and how many there are beside."""
        n, devices = next(self.numbers), [f"d{i}" for i in range(130)]
        server = self.lab.server(f"many{n}", {d: "size=4K" for d in devices})
        self.addCleanup(server.stop)
        mine = definition(f"many{n}", new_uuid(), server, devices)
        self.a.register(mine)
        self.b.register({**mine, "devices": [{**d, "socket": "/nonexistent/" + d["id"]} for d in mine["devices"]]},
                        incoming=True)
        status, report = self.a.json("check", mine["name"], self.b.dest)
        self.assertEqual((status, len(report["findings"]), report["more_findings"]), (6, 100, 30))
        status, out, _ = self.a.migctl("check", mine["name"], self.b.dest)
        self.assertEqual((status, out.splitlines()[-1], len(out.splitlines())), (6, "... and 30 more", 102))
        job = self.a.migrate(mine["name"], self.b)[1]
        self.assertIn("... and 30 more", self.ends(0, "show", job["job"]))
        self.a.migctl("unregister", mine["name"])
        self.b.migctl("unregister", mine["name"])

    def test_7_cancelled(self):
        vm = self.vm(here="delay=*>*:200")
        p = self.a.migctl_start("--json=short", "migrate", vm, self.b.dest)
        wait_for("the job", lambda: self.job_of(vm))
        self.ends(0, "cancel", self.a.vm(vm)["job"])
        out, err = p.communicate(timeout=20)
        self.assertEqual((p.returncode, json.loads(out)["result"]), (7, "cancelled"), err)
        self.made[7] = "cancelled"

    def test_8_unreachable(self):
        with Lab() as lab:
            host = lab.host("alone")
            host.daemon.kill()
            calls = {"list": [], "status": ["x"], "devices": ["x"], "register": [self.file({})], "unregister": ["x"],
                     "check": ["x", self.b.dest], "migrate": ["x", self.b.dest], "cancel": [new_uuid()],
                     "show": [new_uuid()], "resolve": [new_uuid()], "jobs": [], "history": [], "reset": ["--yes", "x"], "policy list": [], "policy show": ["x"],
                     "policy check": [self.file({})], "policy explain": ["x"], "policy reload": [], "plugin list": []}
            self.assertEqual(set(calls) | {"monitor"}, set(verbs()))
            for verb, args in calls.items():
                self.note(8, *verb.split(), *args, says="is migmgrd.service running", host=host)
            host.bus.kill()
            for verb, args in (*calls.items(), ("monitor", [])):
                self.note(8, *verb.split(), *args, says="bus can't be reached", host=host)

    def test_8_that_dies_in_the_middle(self):
        with Lab() as lab:
            host = lab.host("dies")
            server = lab.server("server", {"nic": "size=64K"})
            host.register(definition("vm", new_uuid(), server, ["nic"]))
            p = host.migctl_start("migrate", "vm", self.silent_peer())
            wait_for("the job", lambda: host.json("status", "vm")[1].get("job"))
            host.daemon.kill()
            out, err = p.communicate(timeout=20)
            self.assertEqual((p.returncode, out), (8, ""), err)
            self.assertIn("migctl show", err)

    def test_9_in_doubt(self):
        """The link breaks when the destination has been told to go, and comes back."""
        vm = self.vm()
        relay = Relay(os.path.join(self.lab.dir, "relay"), self.b.dest)
        self.addCleanup(relay.close)

        def cut_at_go(direction, message):
            if "GO" in message.values() or "STARTED" in message.values():
                relay.refuse = True
                return direction == "S>D"
            return True
        relay.on_message = cut_at_go
        status, job = self.a.migrate(vm, relay.dest)
        self.assertEqual((status, job["state"], job["owner"]), (9, "in-doubt", "nobody"), job)
        self.assertTrue(job["error"]["text"])
        self.made[9] = "in doubt"
        # Where a person looks first: the doubt, and not a phase that looks like any other.
        seen = self.a.vm(vm)
        self.assertEqual((seen["job"], seen["state"], seen["phase"]), (job["job"], "in-doubt", "handover"))
        row, = [line for line in self.ends(0, "list").splitlines() if line.startswith(vm + " ")]
        self.assertEqual(re.split(r"  +", row)[4], "in-doubt", row)
        relay.on_message = None
        relay.heal()
        wait_for("it to settle", lambda: self.a.json("show", job["job"])[1]["state"] == "finished")
        self.assertEqual(self.a.json("show", job["job"])[1]["result"], "done")

    def test_10_degraded(self):
        vm = self.vm(here="fault=stop>running-p2p:error:EIO", there="fault=resuming>stop:fail:EINVAL")
        job = self.migrate("degraded", vm)
        self.assertEqual([d["id"] for d in job["devices"] if d["lost"]], ["nic"])
        self.assertIn("nic", job["error"]["text"])

    def test_11_lost(self):
        """The VM's own process dies under the job: "failed" would say that it runs."""
        guest = Guest(self.lab, "mortal")
        guest.start(self.a)
        self.a.register(definition("mortal", new_uuid(), None, [], guest.vmm(self.a)))
        p = self.a.migctl_start("migrate", "mortal", self.silent_peer())
        wait_for("the job", lambda: self.job_of("mortal"))
        guest.process.kill()
        out, err = p.communicate(timeout=20)
        self.assertEqual(p.returncode, 11, (out, err))
        self.assertIn("process has ended", err)
        self.made[11] = "lost"

    def test_130_detached(self):
        vm = self.vm()
        p = self.a.migctl_start("--json", "migrate", "--timeout=100", vm, self.silent_peer())
        wait_for("the job", lambda: self.job_of(vm))
        wait_for("Ctrl-C to be read", lambda: self.reads_interrupts(p.pid))
        id = self.a.vm(vm)["job"]
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=20)
        self.assertEqual((p.returncode, out), (130, ""), err)
        self.assertEqual(self.a.json("show", id)[1]["state"], "running")
        self.ends(0, "cancel", id)
        self.made[130] = "detached"

    def test_0_a_doubt_that_settles_is_waited_for(self):
        """The daemon is held past doubt-msec after GO: what it tells first is a doubt, and it has passed already. Exit 1
        would say that the VM runs here."""
        with Lab() as lab:
            a, b = (lab.host(name, config={"doubt-msec": 400}) for name in "ab")
            uuid = new_uuid()
            for host in (a, b):
                server = lab.server("server-" + host.name, {"d": "size=64K,delay=*>*:40"})
                host.register(definition("vm", uuid, server, ["d"]), incoming=host is b)
            watcher = Watcher(a, "source-go", lambda: os.kill(a.daemon.pid, signal.SIGSTOP))
            p = a.migctl_start("migrate", "vm", b.dest)

            def is_held():
                with open(f"/proc/{a.daemon.pid}/stat") as f:
                    return f.read().rsplit(")", 1)[1].split()[0] == "T"
            wait_for("the daemon to be held", is_held)
            time.sleep(1)  # longer than doubt-msec: its timer is overdue when it goes on
            os.kill(a.daemon.pid, signal.SIGCONT)
            out, err = p.communicate(timeout=20)
            watcher.stop()
            self.assertEqual(p.returncode, 0, (out, err))
            self.assertTrue(out.startswith("vm: done"), out)

    @classmethod
    def tearDownClass(cls):
        if len(cls.made) >= 5 and os.getuid() == 0:  # not when single tests were chosen
            assert set(cls.made) | {0} == STATUSES, f"made {sorted(cls.made)} of {sorted(STATUSES)}"


class Output(Case):
    def calls(self):
        """{verb: a call that goes well}, and a job's UUID in them."""
        vm, other = self.vm(), self.vm(here="delay=*>*:100")
        new = definition("new" + str(next(self.numbers)), new_uuid(), self.lab.server(f"n{next(self.numbers)}", {"nic": ""}),
                         ["nic"])
        status, job = self.a.migrate(vm, self.b)
        self.assertEqual(status, 0)
        self.a.write_policy("shown", {"set": {"retry": 1}})
        self.ends(0, "policy", "reload")
        return {"list": [], "status": [vm], "devices": [vm], "show": [job["job"]], "resolve": [job["job"]], "jobs": [], "history": [], "check": [other, self.b.dest],
                "reset": ["--yes", other, "nic"], "migrate": [other, self.b.dest], "register": [self.file(new)], "unregister": [new["name"]],
                "policy list": [], "policy show": ["shown"], "policy check": [self.file({"rules": []})],
                "policy explain": [other, "nic"], "policy reload": [], "plugin list": []}

    def test_json_of_every_verb(self):
        calls = self.calls()
        self.assertEqual(set(calls) | {"cancel", "monitor"}, set(verbs()))
        for verb, args in calls.items():
            for how in ("--json=short", "--json", "--json=pretty"):
                if verb in ("migrate", "register", "unregister", "reset") and how != "--json":
                    continue
                out = self.ends(0, how, *verb.split(), *args)
                value = json.loads(out)
                self.assertIsInstance(value, list if verb in ("list", "devices", "jobs", "history", "reset", "policy list", "policy reload", "plugin list") else dict, verb)
                self.assertEqual(out.count("\n") == 1, how == "--json=short", (verb, how, out))
                self.assertTrue(value or verb == "plugin list", verb)  # with plugins: test_plugin.py

    def test_json_of_cancel(self):
        vm = self.vm()
        p = self.a.migctl_start("migrate", vm, self.silent_peer())
        wait_for("the job", lambda: self.job_of(vm))
        id = self.a.vm(vm)["job"]
        value = json.loads(self.ends(0, "--json=short", "cancel", id))
        self.assertIn(id.replace("-", "_"), value["path"])
        p.communicate(timeout=20)

    def test_json_of_nothing_is_nothing(self):
        """A call that fails prints nothing on stdout that a program could take for an answer."""
        for args in (["status", "nobody"], ["show", new_uuid()], ["cancel", new_uuid()], ["check", "nobody", self.b.dest],
                     ["nonsense"]):
            status, out, err = self.a.migctl("--json", *args)
            self.assertNotEqual(status, 0)
            self.assertEqual(out, "")
            self.assertTrue(err)

    def test_json_of_an_empty_list(self):
        with Lab() as lab:
            empty = lab.host("empty")
            self.assertEqual(empty.json("list"), (0, []))
            self.assertEqual(empty.json("jobs"), (0, []))
            # In words: nothing that could be taken for a VM, and what to do.
            self.assertEqual(empty.json("policy", "list"), (0, []))
            for args, hint in (((), "migctl register FILE"), (("list",), "migctl register FILE"), (("jobs",), "migctl migrate"),
                               (("policy", "list"), "migctl policy explain"), (("plugin", "list"), "There is no plugin here")):
                status, out, err = empty.migctl(*args)
                self.assertEqual((status, out), (0, ""), args)
                self.assertIn(hint, err)
                self.assertEqual(empty.migctl("--no-legend", *args), (0, "", ""))

    def test_monitor_is_a_line_for_each_event(self):
        for how in ("--json", "--json=short", "--json=pretty"):
            p = self.a.migctl_start(how, "monitor")
            try:
                self.assertEqual(json.loads(p.stdout.readline()), {"event": "Listening"})
                vm = self.vm()
                status, job = self.a.migrate(vm, self.b)
                self.assertEqual(status, 0)
                path, events = "/org/migmgr1/job/_" + job["job"].replace("-", "_"), []
                while not any(e["path"] == path and e["event"] == "PropertiesChanged" and e["data"][1]["Result"] == "done"
                              for e in events[-1:]):
                    events.append(json.loads(p.stdout.readline()))
                self.assertTrue(all(set(e) == {"usec", "path", "event", "data"} for e in events))
                self.assertTrue({"InterfacesAdded", "PropertiesChanged", "PhaseReached", "DeviceChanged"} <=
                                {e["event"] for e in events})
                self.assertEqual(sorted(e["usec"] for e in events), [e["usec"] for e in events])
            finally:
                p.send_signal(signal.SIGINT)
                p.communicate(timeout=20)

    def test_monitor_in_words(self):
        p = self.a.migctl_start("monitor")
        try:
            time_limit = time.monotonic() + 20
            line = ""
            while "InterfacesAdded" not in line:
                self.assertLess(time.monotonic(), time_limit)
                self.vm()  # nothing says when it listens
                if select.select([p.stdout], [], [], 0.2)[0]:
                    line = p.stdout.readline()
        finally:
            p.send_signal(signal.SIGINT)
            p.communicate(timeout=20)

    def columns(self, out):
        """Where columns begin in every line: where a line has two blanks, and then something. They are the same in all, as
        every cell has something in it."""
        lines = out.splitlines()
        starts = [{0} | {m.end() for m in re.finditer(r"  +(?=\S)", line)} for line in lines]
        return lines, starts

    def lined_up(self, with_legend, without):
        lines, starts = self.columns(with_legend)
        self.assertGreater(len(lines), 1)
        for line, start in zip(lines, starts):
            self.assertEqual(start, starts[0], with_legend)
            self.assertEqual(line, line.rstrip())
        bare, bare_starts = self.columns(without)
        self.assertEqual([re.split(r"  +", line) for line in bare], [re.split(r"  +", line) for line in lines[1:]])
        self.assertTrue(all(s == bare_starts[0] for s in bare_starts), without)

    def test_columns_line_up(self):
        """Of names as short and as long as they may be."""
        server = self.lab.server("long", {"nic": "", "d" * 40: ""})
        name = "n" * 60
        self.a.register(definition(name, new_uuid(), server, ["nic", "d" * 40]))
        self.a.register(definition("s", new_uuid(), self.lab.server("short", {"x": ""}), ["x"]))
        self.a.migrate(self.vm(), self.b)
        for policy, rules in (("a", []), ("b" * 60, [{"set": {"retry": 1}}, {"match": {"id": "*"}, "set": {"retry": 2}}])):
            self.a.write_policy(policy, *rules, description=policy + " is one")
        self.ends(0, "policy", "reload")
        for args in (["list"], ["devices", name], ["jobs"], ["policy", "list"], ["policy", "explain", name],
                     ["policy", "explain", name, "nic"]):
            self.lined_up(self.ends(0, *args), self.ends(0, "--no-legend", *args))
        got = [self.a.migctl(*flags, "check", name, self.a.dest) for flags in ([], ["--no-legend"])]
        self.assertEqual([g[0] for g in got], [6, 6])
        self.lined_up(got[0][1], got[1][1])

    def test_help_of_every_verb(self):
        text = self.ends(0, "--help")
        for verb, arguments in verbs().items():
            self.assertEqual(self.ends(0, *verb.split(), "--help"), text)
            self.assertEqual(self.ends(0, "--help", *verb.split(), *arguments), text)
        self.assertEqual(len(verbs()), 20)
        self.assertTrue(all(len(line) <= 100 for line in text.splitlines()), text)

    def test_version(self):
        for name in ("migctl", "migmgrd", "migmgr-helper", "migmgr-agent"):
            out = subprocess.run([program(name), "--version"], text=True, capture_output=True, check=True).stdout
            self.assertRegex(out, rf"\A{name} [0-9.]+\n\Z")

    def test_no_verb_is_list(self):
        self.vm()
        self.assertEqual(self.ends(0), self.ends(0, "list"))

    def test_texts_name_what_they_are_about(self):
        vm = self.vm(here="delay=*>*:20")
        self.assertIn(vm, self.ends(0, "check", vm, self.b.dest))
        out = self.ends(0, "migrate", vm, self.b.dest)
        id = re.search(r"migctl show ([0-9a-f-]{36})", out)[1]
        self.assertRegex(out, rf"\A{vm}: done, blackout [0-9.]+ (us|ms) \(migctl show {id}\)\n\Z")
        shown = self.ends(0, "show", id)
        for text in (vm, id, "done", "The blackout", "nic", "drain", "####"):
            self.assertIn(text, shown)
        status = self.ends(0, "status", vm)
        self.assertRegex(status, r"(?m)^ +Presence: away$")


class Policy(Case):
    """What is in force, who says so, and that a wrong file changes nothing."""

    def setUp(self):
        for name in os.listdir(self.a.policies):
            os.unlink(os.path.join(self.a.policies, name))

    def said(self, key, *args):
        """The row of a key, split."""
        out = self.ends(0, "--no-legend", "policy", "explain", *args)
        row, = [line for line in out.splitlines() if line.split()[0] == key]
        return re.split(r"  +", row)

    def test_explain_says_who_said_so(self):
        vm = self.vm()
        self.a.write_policy("10-all", {"set": {"retry": 1, "max-blackout-ms": 500, "compat": {"x.y": "equal"}}})
        self.a.write_policy("20-nic", {"match": {"id": "nic"}, "set": {"retry": 3, "compat": {"x.y": ["a", "b"]}}})
        self.ends(0, "policy", "reload")
        file = os.path.join(self.a.policies, "20-nic.json")
        self.assertEqual(self.said("retry", vm, "nic"), ["retry", "3", file + ":3", "1 (10-all.json:3)"])
        self.assertEqual(self.said("order", vm, "nic"), ["order", "0", "default", "-"])
        self.assertEqual(self.said("compat.x.y", vm, "nic"),
                         ["compat.x.y", "in a, b", file + ":3", "equal (10-all.json:3)"])
        self.assertEqual(self.said("max-blackout-ms", vm)[:2], ["max-blackout-ms", "500"])
        self.assertNotIn("max-blackout-ms", self.ends(0, "policy", "explain", vm, "nic"))
        self.assertNotIn("retry", self.ends(0, "policy", "explain", vm))

    def test_explain_of_a_vm_that_is_not_here(self):
        """Nothing of it is open: its definition is known, and that counts."""
        vm = self.vm()
        self.b.write_policy("kind", {"match": {"kind": "vfio-user"}, "set": {"retry": 5}})
        self.ends(0, "policy", "reload", host=self.b)
        status, report = self.b.json("policy", "explain", vm, "nic")
        self.assertEqual((status, report["known"]["kind"]), (0, "vfio-user"))
        self.assertEqual([(k["value"], k["line"]) for k in report["keys"] if k["key"] == "retry"], [(5, 3)])

    def test_files_of_a_later_folder_and_what_a_signal_does(self):
        vm = self.vm()
        self.a.write_policy("p", {"set": {"retry": 1}}, description="one")
        self.a.daemon.p.send_signal(signal.SIGHUP)
        wait_for("the policies", lambda: self.said("retry", vm, "nic")[1] == "1")
        self.a.write_policy("p", {"set": {"retry": 101}})
        seen = len(self.a.daemon.output())
        self.a.daemon.p.send_signal(signal.SIGHUP)
        wait_for("the error", lambda: "stay as they were" in self.a.daemon.output()[seen:])
        self.ends(2, "policy", "reload", says=r"p\.json:5: \"retry\" is 101; allowed: a whole number from 0 to 100")
        self.assertEqual(self.said("retry", vm, "nic")[1], "1")
        shown = json.loads(self.ends(0, "policy", "show", "p"))
        self.assertEqual((shown["description"], shown["rules"]), ("one", [{"set": {"retry": 1}}]))
        self.assertEqual([(p["name"], p["rules"], p["description"]) for p in self.a.json("policy", "list")[1]], [("p", 1, "one")])

    def test_check(self):
        good, bad = self.file({"rules": []}), self.file('{"rules": [\n{"set": {"p2p": "yes"}}]}')
        self.assertEqual(self.ends(0, "policy", "check", good), good + ": good\n")
        self.assertEqual(self.a.json("policy", "check", good), (0, {"ok": True, "error": ""}))
        says = ':2: "p2p" is "yes"; allowed: require, isolate, single, accept-risk'
        self.ends(2, "policy", "check", bad, says=re.escape(bad + says))
        self.assertEqual(self.a.json("policy", "check", bad), (2, {"ok": False, "error": bad + says}))
        for text in ("\0", "x" * 300000):
            self.ends(2, "policy", "check", self.file(text))

    def test_no_move_begins_before_a_wrong_file_is_corrected(self):
        """Neither from a host that was started with one, nor to it; the daemon lives, for jobs that had not ended."""
        with Lab() as lab:
            a, b = (lab.host(name, config=CONFIG) for name in "ab")
            uuid = new_uuid()
            for host in (a, b):
                host.register(definition("vm", uuid, lab.server("server-" + host.name, {"nic": ""}), ["nic"]), incoming=host is b)
            says = r'p\.json:5: "nonsense" is no key; allowed: p2p, '
            for host in (a, b):
                host.daemon.kill()
                host.write_policy("p", {"set": {"nonsense": 1}})
                host.start_daemon()
                self.assertRegex(host.daemon.output(), says + r".*Until then no move begins")
                for args in (["policy", "list"], ["policy", "show", "p"], ["policy", "explain", "vm"], ["policy", "reload"]):
                    self.ends(2, *args, says=".*" + says, host=host)
                if host is a:
                    self.ends(2, "check", "vm", b.dest, says=".*" + says + ".*migctl policy reload", host=a)
                    self.ends(2, "migrate", "vm", b.dest, says=".*" + says, host=a)
                else:
                    status, report = a.json("check", "vm", b.dest)
                    self.assertEqual((status, [f["property"] for f in report["findings"]]), (6, ["policies"]))
                    self.assertRegex(report["findings"][0]["destination"], says)
                host.write_policy("p", {"set": {"retry": 1}})
                self.ends(0, "policy", "reload", host=host)
            self.assertEqual(a.migrate("vm", b)[0], 0)


class Terminal(Case):
    """What a person sees and does: a terminal of a width, a Ctrl-C, a question."""

    def terminal(self, columns, *args, env=(), answer=None):
        """(exit status, what it printed) on a terminal that is so wide."""
        near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        p = subprocess.Popen([program("migctl"), "--bus-address=" + self.a.bus_address, *args], stdin=far, stdout=far,
                             stderr=far, env={**os.environ, "LC_ALL": "C.UTF-8", **dict(env)}, start_new_session=True)
        os.close(far)
        out = b""
        while True:
            try:
                part = os.read(near, 65536)
            except OSError:
                break
            if not part:
                break
            out += part
            if answer is not None and b"[y/N]" in out:
                os.write(near, answer)
                answer = None
        os.close(near)
        return p.wait(20), out.decode().replace("\r\n", "\n")

    def test_tables_fit_the_terminal(self):
        name = "a-name-that-goes-on-" * 5
        server = self.lab.server("fit", {"nic": ""})
        self.a.register(definition(name, new_uuid(), server, ["nic"]))
        self.a.migrate(name, "unix:/nonexistent/" + "x" * 60)
        for args in (["list"], ["jobs"]):
            whole = self.ends(0, *args)
            widest = max(len(line) for line in whole.splitlines())
            self.assertGreater(widest, 150)
            # What is read by a program is whole, whatever COLUMNS says.
            p = subprocess.run([program("migctl"), "--bus-address=" + self.a.bus_address, *args], text=True,
                               capture_output=True, env={**os.environ, "COLUMNS": "40"}, check=True)
            self.assertIn(name, p.stdout)
            for columns in (100, 130, widest - 1, widest, 300):
                status, out = self.terminal(columns, *args)
                lines = out.splitlines()
                self.assertEqual(status, 0)
                self.assertLessEqual(max(len(line) for line in lines), columns, out)
                self.assertEqual("\u2026" in out, columns < widest, (columns, out))
                self.assertEqual(lines[0].split(), whole.splitlines()[0].split(), "headings are whole")
        # COLUMNS is taken before what the terminal says; and where there is no such character there are dots.
        out = self.terminal(300, "list", env={"COLUMNS": "100"}.items())[1]
        self.assertLessEqual(max(len(line) for line in out.splitlines()), 100)
        out = self.terminal(100, "list", env={"LC_ALL": "C"}.items())[1]
        self.assertIn("...", out)
        self.assertNotIn("\u2026", out)
        # The name goes last: the UUID is shortened first.
        line = next(line for line in self.terminal(widest - 3, "list")[1].splitlines() if line.startswith("a-name"))
        self.assertIn(name, line)
        self.a.migctl("unregister", name)

    def test_list_of_jobs_fits_80_columns(self):
        """A name of usual length is whole beside what its job is at; JSON has state and phase of that."""
        name = "a-usual-name-123"
        uuid = new_uuid()
        for host, delay in ((self.a, ",delay=*>*:600"), (self.b, "")):
            server = self.lab.server("usual-" + host.name, {"nic": "size=64K" + delay})
            self.addCleanup(server.stop)
            host.register(definition(name, uuid, server, ["nic"]), incoming=host is self.b)
        idle = self.a.vm(name)
        self.assertEqual((idle["job"], idle["state"], idle["phase"]), ("", "", ""))
        p, _ = self.start(name)
        seen = []
        while p.poll() is None:
            vm, out = self.a.vm(name), self.terminal(80, "list")[1]
            self.assertLessEqual(max(len(line) for line in out.splitlines()), 80, out)
            row, = [re.split(r"  +", line) for line in out.splitlines() if line.startswith(name + " ")]
            seen.append(row[4])
            self.assertEqual(bool(vm["job"]), bool(vm["state"]), vm)
        p.communicate()
        self.assertEqual(out.split()[4], "JOB")
        self.assertNotIn(seen[0], ("-", "running"), "there is a phase, and it says more")

    def slow(self):
        return self.vm(here="delay=*>*:600")

    def start(self, vm, *args):
        p = self.a.migctl_start("migrate", *args, vm, self.b.dest)
        wait_for("the job", lambda: self.job_of(vm))
        wait_for("Ctrl-C to be read", lambda: self.reads_interrupts(p.pid))
        return p, self.a.vm(vm)["job"]

    def test_ctrl_c_leaves_the_job_alone(self):
        p, id = self.start(self.slow())
        p.send_signal(signal.SIGINT)
        start = time.monotonic()
        out, err = p.communicate(timeout=20)
        # It has ended in these three seconds, or it was left alone.
        self.assertIn(p.returncode, (0, 130), err)
        self.assertIn(f"migctl show {id}", err)
        self.assertIn(f"migctl cancel {id}", err)
        wait_for("the end", lambda: self.a.json("show", id)[1]["state"] == "finished", 20)
        self.assertEqual(self.a.json("show", id)[1]["result"], "done")

    def test_a_second_ctrl_c_cancels(self):
        vm = self.slow()
        p, id = self.start(vm)
        p.send_signal(signal.SIGINT)
        while "Ctrl-C again" not in p.stderr.readline():
            self.assertIsNone(p.poll())
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=20)
        self.assertEqual(p.returncode, 7, (out, err))
        self.assertIn("cancelled", out)
        self.assertEqual(self.a.vm(vm)["presence"], "here")

    def test_a_shell_that_wants_it_ignored_has_its_way(self):
        """migctl & in a script: its Ctrl-C is not ours."""
        vm = self.slow()
        p = subprocess.Popen(["sh", "-c", 'trap "" INT; exec "$@"', "sh", program("migctl"),
                              "--bus-address=" + self.a.bus_address, "migrate", vm, self.b.dest],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for("the job", lambda: self.job_of(vm))
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=20)
        self.assertEqual(p.returncode, 0, err)
        self.assertNotIn("Ctrl-C", err)

    def test_progress_fits_the_terminal(self):
        """A line that is too long would be drawn over wrongly."""
        vm = self.vm(here="delay=*>*:30")
        status, out = self.terminal(30, "migrate", vm, self.b.dest, env={"TERM": "xterm"}.items())
        self.assertEqual(status, 0, out)
        drawn = [line for line in re.sub(r"\x1b\[[0-9]*[A-Z]", "\n", out).splitlines() if "[" in line or "devices" in line]
        self.assertGreater(len(drawn), 3)
        self.assertLess(max(len(line) for line in drawn), 30, drawn)

    def test_a_reset_is_asked_for(self):
        vm = self.vm()
        for answer, status in ((b"n\n", 1), (b"\n", 1), (b"\x04", 1), (b"y\n", 0), (b"yes\n", 0)):
            got, out = self.terminal(80, "reset", vm, answer=answer)
            self.assertEqual(got, status, out)
            self.assertIn(vm, out)
            self.assertEqual("nic: reset by DEVICE_RESET, running" in out, status == 0, out)
            self.assertEqual("nothing was reset" in out, status == 1, out)


class Moves(Case):
    def test_no_wait(self):
        vm = self.vm(here="delay=*>*:50")
        id = self.ends(0, "migrate", "--no-wait", vm, self.b.dest).strip()
        self.assertRegex(id, r"\A[0-9a-f-]{36}\Z")
        self.assertIn(id, self.ends(0, "jobs"))
        wait_for("the end", lambda: self.a.json("show", id)[1]["state"] == "finished", 20)
        vm = self.vm()
        value = json.loads(self.ends(0, "--json=short", "migrate", "--no-wait", vm, self.a.dest))
        self.assertEqual(set(value), {"job"})
        wait_for("the end", lambda: self.a.json("show", value["job"])[1]["result"] == "refused", 20)
        self.ends(5, "migrate", "--no-wait", "nobody", self.a.dest, says="nobody")
        self.ends(0, "migrate", "--wait", vm, self.b.dest)

    def test_a_dry_run_is_the_plan_of_the_run(self):
        n = next(self.numbers)
        uuid, devices = new_uuid(), {"a": "size=64K,p2p=on", "b": "size=64K,p2p=off", "c": "size=64K,p2p=on"}
        for host in (self.a, self.b):
            server = self.lab.server(f"dry{n}{host.name}", devices)
            self.addCleanup(server.stop)
            host.register(definition(f"dry{n}", uuid, server, list(devices)), incoming=host is self.b)
        before = self.a.json("jobs")
        status, report = self.a.json("migrate", "--dry-run", f"dry{n}", self.b.dest)
        self.assertEqual((status, report["ok"], report["findings"]), (0, True, []))
        self.assertEqual(self.a.json("jobs"), before, "no job was made")
        self.assertEqual(self.a.vm(f"dry{n}")["presence"], "here")
        out = self.ends(0, "migrate", "--dry-run", f"dry{n}", self.b.dest)
        for text in ("drain", "60 s", "all 3", "a, c", "nothing was touched"):
            self.assertIn(text, out)
        status, job = self.a.migrate(f"dry{n}", self.b)
        self.assertEqual(status, 0)
        phases = [{k: v for k, v in p.items() if k != "devices"} for p in report["plan"]["phases"]]
        self.assertEqual((phases, report["plan"]["devices"]), (job["plan"]["phases"], job["plan"]["devices"]))
        # Each device takes part in a phase where the plan says so, as far as the timeline has its work.
        part = {p["phase"]: set(p["devices"]) for p in report["plan"]["phases"]}
        self.assertEqual((part["arrival-grace"], part["p2p-grace"], part["handover"]), ({"a", "c"}, {"a", "b", "c"}, set()))
        for span in job["timeline"]:
            if span["who"] == "device":
                self.assertIn(span["device"], part[span["phase"]], span)
        # It goes back in as long as this time, or so.
        status, report = self.b.json("migrate", "--dry-run", f"dry{n}", self.a.dest)
        self.assertEqual(report["plan"]["predicted_blackout_usec"], 0)

    def test_what_a_check_foretells(self):
        """Nothing is known before the first move; then it is, also to a daemon that was started anew."""
        vm = self.vm(here="delay=*>*:20")
        report = self.a.json("check", vm, self.b.dest)[1]
        self.assertEqual(report["blackout"], {"usec": 0, "basis": "unknown", "bytes": 0, "devices": [
            {"id": "nic", "usec": 0, "basis": "unknown", "bytes": 0}]})
        self.assertIn("Nobody knows yet", self.ends(0, "check", vm, self.b.dest))
        gaps = {g["guarantee"] for g in report["guarantees"] if not g["holds"]}
        self.assertEqual(gaps, {"blackout-limit"} | ({"peer-known"} if self.b.dest.startswith("tcp") else set()) |
                         (gaps & {"compatible"}))
        self.assertTrue(all(g["promise"] and bool(g["gap"]) != g["holds"] for g in report["guarantees"]))
        limited = self.a.json("--max-blackout=1000", "check", vm, self.b.dest)[1]
        self.assertTrue({g["guarantee"]: g["holds"] for g in limited["guarantees"]}["blackout-limit"])
        for host in report["hosts"].values():
            self.assertRegex(host["migmgrd"], r"^[0-9.]+$")
            self.assertEqual(host["kernel"], os.uname().release)
            self.assertGreater(host["free_bytes"], 0)
        job = self.a.migrate(vm, self.b)[1]
        self.assertEqual(self.b.migrate(vm, self.a)[0], 0)
        self.a.daemon.kill()
        self.a.start_daemon()
        wait_for("the VM", lambda: self.a.vm(vm)["presence"] == "here")
        blackout = self.a.json("check", vm, self.b.dest)[1]["blackout"]
        self.assertEqual((blackout["basis"], blackout["usec"]), ("measured", job["blackout_usec"]))
        device, = blackout["devices"]
        self.assertEqual((device["basis"], device["bytes"]), ("measured", job["devices"][0]["bytes"]))
        self.assertTrue(60000 <= device["usec"] <= blackout["usec"], blackout)
        self.assertIn("as last time", self.ends(0, "check", vm, self.b.dest))

    def test_either_hosts_policies_count(self):
        """Of what only the other host knows, too."""
        vm = self.vm()
        for host in (self.a, self.b):
            host.write_policy("facts", {"set": {"compat": {"board": "equal"}}})
            self.ends(0, "policy", "reload", host=host)
            try:
                status, report = self.a.json("check", vm, self.b.dest)
                job = self.a.migrate(vm, self.b)[1]
            finally:
                os.unlink(os.path.join(host.policies, "facts.json"))
                self.ends(0, "policy", "reload", host=host)
            finding, = report["findings"]
            self.assertEqual((status, finding["device"], finding["property"], finding["source"], finding["destination"]),
                             (6, "nic", "fact", "board not known", "board not known"))
            self.assertEqual(job["result"], "refused")
        self.assertEqual(self.a.json("check", vm, self.b.dest)[0], 0)

    def test_a_dry_run_that_is_refused(self):
        vm = self.vm()
        status, out, _ = self.a.migctl("migrate", "--dry-run", vm, self.a.dest)
        self.assertEqual(status, 6)
        for text in ("drain", "can't go", "another job", "wait for the end"):
            self.assertIn(text, out)

    def test_jobs(self):
        vm = self.vm()
        self.assertEqual(self.a.migrate(vm, self.b)[0], 0)
        for host, way in ((self.a, "to " + self.b.dest), (self.b, "from ")):
            line = self.ends(0, "jobs", host=host).splitlines()[1]
            self.assertRegex(line, rf"  {vm} +{way}")
            self.assertRegex(line, r"  finished  release  done  +\d+ s\Z")

    def test_reset(self):
        vm = self.vm()
        self.assertEqual(self.ends(0, "reset", "--yes", vm), "nic: reset by DEVICE_RESET, running\n")
        self.assertEqual(json.loads(self.ends(0, "--json=short", "reset", "--yes", vm, "nic")),
                         [{"device": "nic", "state": "running", "method": "DEVICE_RESET"}])


class Daemons(Case):
    """Whatever stands in for the daemon: the message is one for people, and the status is right."""

    def stand_in(self, name, text):
        """A daemon that answers everything with this error."""
        bus = Bus(self.lonely.bus_address)
        self.addCleanup(bus.close)
        bus.handler = lambda m: bus.send(ERROR, {REPLY_SERIAL: m.serial, DESTINATION: m.sender, ERROR_NAME: name}, "s", [text])
        self.assertEqual(bus.bus("RequestName", "su", "org.migmgr1", 0), [1])
        return bus

    def answer(self, bus, *args):
        p = self.lonely.migctl_start(*args)
        wait_for(f"migctl {args} to end", lambda: bus.process(0.01) and False or p.poll() is not None)
        out, err = p.communicate()
        return p.returncode, out, err

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lonely = cls.lab.host("lonely")
        cls.lonely.daemon.kill()

    def test_every_error_of_the_table(self):
        for name, status, _ in table("Errors"):
            bus = self.stand_in("org.migmgr1.Error." + name, "what happened")
            for args in (["list"], ["jobs"], ["migrate", "x", self.b.dest], ["check", "x", self.b.dest], ["show", new_uuid()],
                         ["cancel", new_uuid()], ["unregister", "x"], ["register", self.file({})],
                         ["policy", "list"], ["policy", "show", "x"], ["policy", "check", self.file({})],
                         ["policy", "explain", "x"], ["policy", "reload"], ["plugin", "list"]):
                self.assertEqual(self.answer(bus, *args), (int(status), "", "migctl: what happened\n"), (name, args))
            bus.close()

    def test_a_daemon_that_cannot_be_started(self):
        """What the bus answers when activation fails, on systems with and without systemd."""
        for name in ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.Spawn.ChildExited",
                     "org.freedesktop.DBus.Error.Spawn.ServiceNotValid", "org.freedesktop.DBus.Error.NoReply",
                     "org.freedesktop.DBus.Error.TimedOut"):
            bus = self.stand_in(name, "why")
            status, out, err = self.answer(bus, "list")
            self.assertEqual((status, out), (8, ""), name)
            self.assertIn("why", err)
            self.assertIn("migmgrd.service", err)
            bus.close()

    def test_a_bus_that_forbids_it(self):
        bus = self.stand_in("org.freedesktop.DBus.Error.AccessDenied", "the bus forbids it")
        self.assertEqual(self.answer(bus, "list"), (4, "", "migctl: the bus forbids it\n"))


if __name__ == "__main__":
    unittest.main()
