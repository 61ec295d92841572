# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each key of a policy does to real daemons and agents: the same VM, the same fault, another policy.

What the keys do in the tables tests/unit/test-half.c and test-check.c say in full; `p2p`, `ndma` and `viommu-grace` are seen at
work in p2p.py, `precopy` and its limits in test_precopy.py, those of devices that QEMU drives in vfio_moves.py."""

import contextlib
import os
import sqlite3
import unittest

from lab import PACE, Lab, definition, new_uuid, wait_for
from moves import World
from relay import Relay

MIB = 1 << 20
CONFIG = {"policy": {"deadline-ms": {"p2p-grace": round(2000 * PACE)}}, "connect-msec": round(1000 * PACE)}
WORKER = "worker=on,size=256K"


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab().__enter__()
        cls.addClassCleanup(cls.lab.__exit__, None, None, None)
        cls.a, cls.b = (cls.lab.host(name, config=CONFIG) for name in "ab")
        cls.numbers = iter(range(1, 1000))

    def policy(self, *rules, hosts=None):
        """To the end of the test: (match, set), ..."""
        for host in hosts or (self.a, self.b):
            host.write_policy("50-test", *({"match": match, "set": what} for match, what in rules))
            self.reload(host)
            self.addCleanup(self.forget, host)

    def reload(self, host):
        self.assertEqual(host.migctl("policy", "reload")[0], 0)

    def forget(self, host):
        host.write_policy("50-test")
        self.reload(host)

    def vm(self, here=None, there=None):
        """A set of devices, {id: spec} at either end: its name, and its servers."""
        name, uuid, servers = f"p{next(self.numbers)}", new_uuid(), []
        for host, specs in ((self.a, here or {"nic": "size=64K"}), (self.b, there or here or {"nic": "size=64K"})):
            server = self.lab.server(f"{name}{host.name}", specs)
            self.addCleanup(server.stop)
            servers.append(server)
            host.register(definition(name, uuid, server, list(specs)), incoming=host is self.b)
        return name, servers

    def move(self, name):
        status, job = self.a.migrate(name, self.b)
        self.assertIsNotNone(job.get("result"), job)
        return job["result"], job

    def world(self, devices, *options):
        return contextlib.closing(World(self.lab, [self.a, self.b], devices, options=options, name=f"w{next(self.numbers)}"))


class OfDevices(Case):
    def test_a_device_that_gives_more_than_max_state_mib_fails_with_both_sizes(self):
        for spec in ("size=3M", "size=3M,pre-copy=on"):
            for most, result in ((2, "failed"), (4, "done")):
                with self.subTest(spec, most=most):
                    name, servers = self.vm({"nic": spec})
                    self.policy(({"id": "nic"}, {"max-state-mib": most}))
                    got, job = self.move(name)
                    self.assertEqual(got, result, job)
                    if result == "failed":
                        self.assertRegex(job["error"]["text"], r'device nic: .* given \d{7} bytes .*"max-state-mib" allows 2 MiB')
                        self.assertEqual(servers[0].states()["nic"], "running")

    def test_forward_devices_go_in_their_order(self):
        arcs = "size=64K,delay=*>*:20"
        for orders, in_order in (({"d0": 3, "d1": 0}, True), ({}, False)):
            with self.subTest(orders):
                name, _ = self.vm({"d0": arcs, "d1": arcs})
                self.policy(*(({"id": d}, {"order": n}) for d, n in orders.items()))
                result, job = self.move(name)
                self.assertEqual(result, "done", job)
                spans = {d: [s for s in job["timeline"] if s.get("device") == d and s["what"] != "load"] for d in ("d0", "d1")}
                for phase in ("p2p-grace", "drain", "intake", "arrival-grace", "run-devices"):
                    first, second = ([s for s in spans[d] if s["phase"] == phase] for d in ("d1", "d0"))
                    self.assertTrue(first and second, phase)
                    waits = min(s["start_usec"] for s in second) >= max(s["end_usec"] for s in first)
                    self.assertEqual(waits, in_order, (phase, first, second))

    def test_a_transition_that_moved_nothing_is_tried_again(self):
        for retry, result in ((0, "failed"), (1, "done")):
            with self.subTest(retry=retry):
                name, servers = self.vm()
                self.policy(({"id": "nic"}, {"retry": retry}))
                servers[0].fault("nic", "running>running-p2p:fail:EIO@1")
                got, job = self.move(name)
                self.assertEqual(got, result, job)

    def test_each_device_has_its_own_deadline(self):
        slow = {"slow": f"size=64K,delay=running>running-p2p:{round(600 * PACE)}", "quick": "size=64K"}
        for most, result in ((300, "failed"), (5000, "done")):
            with self.subTest(most):
                name, _ = self.vm(slow)
                self.policy(({"id": "slow"}, {"deadline-ms": {"p2p-grace": round(most * PACE)}}))
                got, job = self.move(name)
                self.assertEqual(got, result, job)
                if result == "failed":
                    self.assertIn("device slow", job["error"]["text"])

    def test_what_runs_keeps_its_plan_whatever_is_said_again(self):
        """Policies change in the middle, and the destination says once more that it has checked."""
        name, _ = self.vm({"nic": f"size=64K,delay=running>running-p2p:{round(300 * PACE)}"})
        relay = Relay(os.path.join(self.lab.dir, "relay"), self.b.dest)
        self.addCleanup(relay.close)
        checked, again = [], []

        def on_message(direction, message):
            if "CHECKED" in message.values():
                checked.append(message)
            if "PREPARED" not in message.values():
                return True
            self.policy(({"id": "nic"}, {"deadline-ms": {"p2p-grace": 1}}), hosts=[self.a])
            again.append(checked[0])
            return checked[0]
        relay.on_message = on_message
        status, job = self.a.migrate(name, relay.dest)
        self.assertTrue(again)
        self.assertEqual((status, job["result"]), (0, "done"), job)

    def test_a_device_that_failed_is_reset_left_or_put_in_quarantine(self):
        for word, state in (("reset", "running"), ("keep", "error"), ("quarantine", "error")):
            with self.subTest(word):
                name, servers = self.vm()
                self.policy(({"id": "nic"}, {"on-error": word}))
                servers[0].fault("nic", "running-p2p>stop:error:EIO@1")
                result, job = self.move(name)
                self.assertEqual(result, "degraded", job)
                self.assertEqual(servers[0].states()["nic"], state)
                for restarts in range(2):
                    status, report = self.a.json("check", name, self.b.dest)
                    found = [f["property"] for f in report["findings"] if f["weight"] == "refusal"]
                    self.assertEqual((status, found), {"reset": (0, []), "keep": (6, ["state"]),
                                                       "quarantine": (6, ["quarantine"])}[word], (restarts, report))
                    self.a.daemon.kill()
                    self.a.start_daemon()
                if word != "reset":
                    self.assertEqual(self.a.migctl("--yes", "reset", name, "nic")[0], 0)
                self.assertEqual(self.move(name)[0], "done")

    def test_at_the_destination_quarantine_ends_with_a_reset_there(self):
        name, servers = self.vm()
        self.policy(({"id": "nic"}, {"on-error": "quarantine"}), hosts=[self.b])
        servers[1].fault("nic", "resuming>stop:error:EIO@1")
        result, job = self.move(name)
        self.assertEqual(result, "failed", job)
        self.assertEqual(servers[0].states()["nic"], "running")

        def refused():
            status, report = self.a.json("check", name, self.b.dest)
            return status == 6 and [f["property"] for f in report["findings"]] == ["quarantine"]
        wait_for("quarantine at the destination", refused)
        status, out, err = self.b.migctl("--yes", "reset", name, "nic")
        self.assertEqual(status, 0, (out, err))
        self.assertEqual(self.move(name)[0], "done")


class OfTheVm(Case):
    def test_after_grace_the_vm_goes_back_or_stays_without_the_device(self):
        for word, result in (("back", "failed"), ("degraded", "degraded")):
            with self.subTest(word):
                name, servers = self.vm({"d0": "size=64K", "d1": "size=64K"})
                self.policy(({}, {"after-grace": word}))
                servers[1].fault("d1", "stop>running-p2p:error:EIO@1")
                got, job = self.move(name)
                self.assertEqual(got, result, job)
                at = servers[0] if word == "back" else servers[1]
                self.assertEqual(at.states(), {"d0": "running", "d1": "running"})
                if word == "degraded":
                    self.assertIn("d1", job["error"]["text"])

    def test_a_vm_whose_device_has_lost_its_state_goes_on_or_stands(self):
        for word in ("degraded-run", "pause"):
            with self.subTest(word), self.world({"d0": WORKER}) as world:
                self.policy(({"id": "d0"}, {"on-source-loss": word}))
                world.source.server.fault("d0", "running-p2p>stop:error:EIO@1")
                status, job = world.source.host.migrate(world.name, world.destination.host)
                if word == "degraded-run":
                    self.assertEqual((status, job["result"]), (10, "degraded"), job)
                    self.assertEqual(world.source.vmm.status()["state"], "running")
                    continue
                self.assertEqual((status, job["result"]), (9, "in-doubt"), job)
                self.assertRegex(job["error"]["text"], r'lost their state: d0.*"on-source-loss" says pause')
                self.assertEqual(world.source.vmm.status()["state"], "paused")
                self.assertEqual(world.source.host.migctl("check", world.name, world.destination.host.dest)[0], 12)
                world.source.vmm.command("resume")
                wait_for("the job's end", lambda: self.a.json("show", job["job"])[1].get("result") == "degraded")

    def test_a_restart_does_not_change_what_a_job_began_with(self):
        """The rules of then are wrong, so there are none: what holds is in the job's record."""
        with self.world({"d0": WORKER}) as world:
            self.policy(({"id": "d0"}, {"on-source-loss": "pause", "on-error": "keep"}))
            world.source.server.fault("d0", "running-p2p>stop:error:EIO@1")
            status, job = world.source.host.migrate(world.name, world.destination.host)
            self.assertEqual((status, job["result"]), (9, "in-doubt"), job)
            self.a.daemon.kill()
            self.a.write_policy("50-test", {"match": {}, "set": {"on-source-loss": "no such word"}})
            self.a.start_daemon()
            result = wait_for("the job's way back", lambda: self.a.json("show", job["job"])[1].get("result"))
            self.assertEqual((result, world.source.vmm.status()["state"]), ("in-doubt", "paused"), self.a.daemon.output())
            self.assertEqual(world.source.server.states()["d0"], "error")
            self.forget(self.a)
            world.source.vmm.command("resume")
            wait_for("the job's end", lambda: self.a.json("show", job["job"])[1].get("result") == "degraded")
            self.assertEqual(world.source.server.states()["d0"], "error")

    def test_a_damaged_record_of_the_policy_is_said_and_the_defaults_hold(self):
        for text in ("{\"rules\":", "[" * (3 << 20), "{\"rules\":[{\"set\":{\"order\":256}}]}"):
            with self.subTest(text[:40]), self.world({"d0": WORKER}) as world:
                self.policy(({"id": "d0"}, {"on-source-loss": "pause"}))
                world.source.server.fault("d0", "running-p2p>stop:error:EIO@1")
                status, job = world.source.host.migrate(world.name, world.destination.host)
                self.assertEqual((status, job["result"]), (9, "in-doubt"), job)
                self.a.daemon.kill()
                with contextlib.closing(sqlite3.connect(os.path.join(self.a.state, "migmgr.db"))) as db, db:
                    db.execute("UPDATE record SET policy = ? WHERE job = ?", (text, job["job"]))
                self.a.start_daemon()
                result = wait_for("the job's end", lambda: self.a.json("show", job["job"])[1].get("result"))
                self.assertEqual(result, "failed", self.a.daemon.output())  # its device has been reset before
                self.assertRegex(self.a.daemon.output(), f"{world.name}: the policy in the record .*job={job['job']}")
                self.assertEqual(world.source.vmm.status()["state"], "running")

    def test_the_smaller_of_policy_and_caller_bounds_the_job(self):
        name, _ = self.vm()
        self.policy(({}, {"max-blackout-ms": 5000, "bandwidth-mib": 64}))
        for args, blackout, bandwidth in (((), 5000, 64 * MIB), (("--max-blackout=3000", "--bandwidth=1G"), 3000, 64 * MIB),
                                          (("--max-blackout=9000", "--bandwidth=1M"), 5000, MIB)):
            name, _ = self.vm()
            status, job = self.a.migrate(name, self.b, *args)
            self.assertEqual(status, 0, job)
            self.assertEqual((job["max_blackout_usec"], job["bandwidth"]), (blackout * 1000, bandwidth))

    def test_a_domain_of_devices_without_p2p_states_needs_a_word(self):
        with self.world({d: WORKER + ",p2p=off" for d in ("d0", "d1")}) as world:
            status, job = world.source.host.migrate(world.name, world.destination.host)
            self.assertEqual((status, job["result"]), (6, "refused"), job)
            self.assertEqual({f["property"] for f in job["findings"]}, {"P2P order"}, job["findings"])
            self.assertEqual((job["error"]["name"], job["accepted_risks"]), ("P2P", []))
            self.policy(({"id": "d?"}, {"p2p": "accept-risk"}))
            status, job = world.move()
            back = world.source.host.migctl("migrate", world.name, world.destination.host.dest)
        self.assertEqual((status, job["result"]), (0, "done"), job)
        self.assertEqual(back[0], 0, back)
        self.assertIn(", at a risk that policy accepts: P2P of d0, d1 (", back[1])
        self.assertEqual({(f["device"], f["weight"], f["property"]) for f in job["findings"]},
                         {(d, "notice", "P2P risk accepted") for d in ("d0", "d1")})
        self.assertEqual(sorted(job["accepted_risks"]), ["d0", "d1"])
        self.assertIn("policy \"p2p\" accepts it", self.a.daemon.output())


if __name__ == "__main__":
    unittest.main()
