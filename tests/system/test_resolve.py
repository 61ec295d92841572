# SPDX-License-Identifier: LGPL-2.1-or-later
"""An operator decides jobs that are in doubt: on one host or the other, with a fence and without, and what he may not."""

import os
import re
import shutil
import unittest

from lab import Lab, wait_for
from moves import make_world


class Doubt(unittest.TestCase):
    def world(self, config=None):
        lab = Lab()
        lab.__enter__()
        self.addCleanup(lab.__exit__, None, None, None)
        self.w = make_world(lab, 2, config={"doubt-msec": 500, **(config or {})})
        self.a, self.b = self.w.source.host, self.w.destination.host
        self.w.wait_steps(3)

    def begin(self):
        status, out, err = self.a.migctl("migrate", "--no-wait", self.w.name, self.b.dest)
        self.assertEqual(status, 0, err)
        self.job = out.strip()

    def shown(self, host):
        status, job = host.json("show", self.job)
        return job if status == 0 else {"state": "unknown"}

    def step(self, host):
        steps = self.shown(host).get("steps") or [{"step": ""}]
        return steps[-1]["step"]

    def await_step(self, host, *steps):
        wait_for(" or ".join(steps), lambda: self.step(host) in steps, 30)

    def await_end(self, host, result):
        wait_for("the end", lambda: self.shown(host)["state"] == "finished", 30)
        self.assertEqual(self.shown(host)["result"], result, self.shown(host)["error"])

    def choices(self, host):
        return {c["how"]: c["allowed"] for c in self.shown(host)["choices"]}

    def resolve(self, host, how, status=0):
        done = host.migctl("resolve", "--" + how, self.job)
        self.assertEqual(done[0], status, done)
        return done

    def guest_runs(self, end):
        """The guest goes on, and has missed nothing that it can know of."""
        first = end.vmm.status()["steps"]
        wait_for("the guest to go on", lambda: end.vmm.status()["steps"] > first + 3, 20)
        self.assertFalse(end.vmm.status()["broken"])

    def ends(self, end):
        wait_for("the VM to end", lambda: end.vmm.status()["state"] == "none", 20)


class Source(Doubt):
    """GO was said, and what the destination made of it is not known."""

    def setUp(self):
        self.go()

    def go(self, config=None):
        self.world(config)
        self.w.destination.server.fault("d0", "stop>running-p2p:hang")
        self.begin()
        self.await_step(self.b, "destination-arrive")
        self.await_step(self.a, "source-go", "source-doubt")
        self.b.daemon.kill()
        self.await_step(self.a, "source-doubt")

    def destination_dies(self):
        self.w.destination.vmm.process.kill()
        self.w.destination.server.kill()

    def test_what_can_be_decided_is_said_and_changes_nothing(self):
        status, out, err = self.a.migctl("resolve", self.job)
        self.assertEqual(status, 0, err)
        for text in ("--run-here\n", "--discard-here\n", "GO was sent", "If that is wrong, the VM runs twice"):
            self.assertIn(text, out)
        self.assertIn(f"migctl resolve {self.job}", self.shown(self.a)["error"]["text"])
        self.assertEqual(self.step(self.a), "source-doubt")
        self.assertEqual(self.choices(self.a), {"run-here": True, "discard-here": True})
        for args in (["--run-here", "--discard-here", self.job], ["--yes", self.job]):
            self.assertEqual(self.a.migctl("resolve", *args)[0], 2)

    def test_the_source_runs_on_and_the_destination_learns_it(self):
        self.destination_dies()
        self.resolve(self.a, "run-here")
        self.await_end(self.a, "failed")
        self.assertEqual(self.shown(self.a)["resolved"], "run-here")
        self.guest_runs(self.w.source)
        self.assertEqual(self.a.vm(self.w.name)["presence"], "here")
        # Its host comes back: it can't tell what it did, hears END, and lets go what is left.
        self.b.start_daemon()
        self.await_end(self.b, "failed")
        self.await_step(self.b, "destination-over")
        self.await_step(self.a, "source-over")
        self.assertEqual(self.b.vm(self.w.name)["presence"], "away")
        self.assertIn("an operator has decided", self.a.daemon.output())

    def test_the_source_gives_up_and_the_destination_goes_on(self):
        self.resolve(self.a, "discard-here")
        self.ends(self.w.source)
        self.w.destination.server.clear()
        self.b.start_daemon()
        self.await_end(self.a, "done")
        self.await_end(self.b, "done")
        self.guest_runs(self.w.destination)
        self.assertEqual([h.vm(self.w.name)["presence"] for h in (self.a, self.b)], ["away", "here"])

    def test_it_is_given_up_for_good(self):
        self.destination_dies()
        self.resolve(self.a, "discard-here")
        self.await_step(self.a, "source-doubt")
        self.assertEqual(self.choices(self.a), {"run-here": False, "discard-here": True})
        self.assertIn("there is nothing here that could run", self.resolve(self.a, "run-here", 1)[2])
        self.resolve(self.a, "discard-here")
        self.await_end(self.a, "lost")
        self.assertIn("nobody has said that it runs at the destination", self.shown(self.a)["error"]["text"])
        self.assertEqual(self.a.vm(self.w.name)["presence"], "away")
        # No restart makes more of it.
        self.a.daemon.kill()
        self.a.start_daemon()
        self.await_end(self.a, "lost")
        self.assertIn("nobody has said that it runs at the destination", self.shown(self.a)["error"]["text"])
        # The other one has nothing either, and is discarded, too.
        self.b.start_daemon()
        self.await_step(self.b, "destination-maybe")
        if self.choices(self.b)["discard-here"]:
            self.resolve(self.b, "discard-here")
        self.await_end(self.b, "failed")
        self.assertEqual(self.b.vm(self.w.name)["presence"], "away")

    def test_a_restarted_source_is_as_sure(self):
        self.destination_dies()
        self.a.daemon.kill()
        self.a.start_daemon()
        self.await_step(self.a, "source-doubt")
        self.resolve(self.a, "run-here")
        self.await_end(self.a, "failed")
        self.guest_runs(self.w.source)


class Fence(Source):
    """With fence-command the operator's word is not enough."""

    def setUp(self):
        pass

    def fenced(self, script, msec=20000):
        self.dir = os.path.join("/tmp", f"migmgr-fence-{os.getpid()}")
        os.makedirs(self.dir, exist_ok=True)
        self.addCleanup(lambda: shutil.rmtree(self.dir))
        path = os.path.join(self.dir, "fence")
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o700)
        self.go({"fence-command": [path, "a word"], "fence-msec": msec})

    def test_what_can_be_decided_is_said_and_changes_nothing(self):
        self.fenced("exit 0")
        self.assertIn("runs fence-command", self.a.migctl("resolve", self.job)[1])

    def test_the_source_runs_on_and_the_destination_learns_it(self):
        """It is told about whom it is, and nothing runs before it has ended."""
        self.fenced('env | grep ^MIGMGR_ | sort >"$0.env"; echo "$1" >>"$0.env"\n'
                    'while [ ! -e "$0.go" ]; do sleep 0.05; done')
        self.resolve(self.a, "run-here")
        self.await_step(self.a, "source-fence")
        path = os.path.join(self.dir, "fence")
        wait_for("its environment", lambda: "a word" in (open(path + ".env").read() if os.path.exists(path + ".env") else ""))
        with open(path + ".env") as f:
            said = f.read()
        for text in (f"MIGMGR_JOB={self.job}\n", f"MIGMGR_PEER={self.b.dest}\n", f"MIGMGR_VM={self.w.name}\n", "MIGMGR_VM_UUID="):
            self.assertIn(text, said)
        self.assertEqual(set(self.w.source.server.states().values()), {"stop"})
        self.assertEqual(self.resolve(self.a, "discard-here", 1)[0], 1)
        self.destination_dies()
        open(path + ".go", "w").close()
        self.await_end(self.a, "failed")
        self.guest_runs(self.w.source)

    def doubtful(self, script, text, msec=20000):
        self.fenced(script, msec)
        self.resolve(self.a, "run-here")
        wait_for("the fence", lambda: re.search(text, self.shown(self.a)["error"]["text"]), 20)
        self.assertEqual(self.step(self.a), "source-doubt")
        self.assertEqual(set(self.w.source.server.states().values()), {"stop"})
        self.assertEqual(self.shown(self.a)["result"], "in-doubt")

    def test_the_source_gives_up_and_the_destination_goes_on(self):
        """A fence that fails leaves everything as it is."""
        self.doubtful("exit 3", "ended with status 3")

    def test_it_is_given_up_for_good(self):
        self.doubtful("kill -9 $$", "killed by signal 9")

    def test_a_restarted_source_is_as_sure(self):
        self.doubtful("sleep 100", "did not end within 700 ms", 700)


class Destination(Doubt):
    def setUp(self):
        self.world()

    def test_what_ran_here_is_over_and_the_source_goes_on(self):
        self.w.destination.server.fault("d0", "running-p2p>running:hang")
        self.begin()
        self.await_step(self.b, "destination-run-devices")
        self.w.destination.vmm.process.kill()
        self.await_step(self.b, "destination-maybe")
        self.w.destination.server.clear()
        self.assertEqual(self.choices(self.b), {"run-here": False, "discard-here": True})
        self.assertIn("gone", self.resolve(self.b, "run-here", 1)[2])
        self.resolve(self.b, "discard-here")
        self.await_end(self.a, "failed")
        self.await_end(self.b, "failed")
        self.guest_runs(self.w.source)

    def ready(self):
        """The destination has all, and the source's host is gone."""
        self.w.destination.server.fault("d0", "resuming>stop:hang")
        self.begin()
        self.await_step(self.b, "destination-intake")
        self.a.daemon.kill()
        self.w.source.vmm.process.kill()
        self.w.source.server.kill()
        self.w.destination.server.clear()
        self.await_step(self.b, "destination-ready")

    def test_a_copy_whose_source_is_gone_for_good_is_started(self):
        self.ready()
        self.assertEqual(self.choices(self.b), {"run-here": True, "discard-here": True})
        self.resolve(self.b, "run-here")
        self.await_end(self.b, "done")
        self.guest_runs(self.w.destination)
        self.assertEqual(self.b.vm(self.w.name)["presence"], "here")
        # The source's host comes back after all: it asks, and lets go what is left.
        self.a.start_daemon()
        self.await_end(self.a, "done")
        self.assertEqual(self.a.vm(self.w.name)["presence"], "away")

    def test_a_copy_that_nobody_needs_is_ended(self):
        self.ready()
        self.resolve(self.b, "discard-here")
        self.await_end(self.b, "failed")
        self.ends(self.w.destination)

    def test_while_the_source_is_connected_it_decides(self):
        self.w.destination.server.fault("d0", "resuming>stop:hang")
        self.begin()
        self.await_step(self.b, "destination-intake")
        self.assertIn("nothing to decide", self.a.migctl("resolve", self.job)[1].lower())
        for how in ("run-here", "discard-here"):
            self.assertIn("goes on by itself", self.resolve(self.b, how, 1)[2])
            self.assertIn("goes on by itself", self.resolve(self.a, how, 1)[2])
        self.w.destination.server.clear()
        self.await_end(self.a, "done")
        self.assertIn("ended", self.resolve(self.a, "run-here", 1)[2])


if __name__ == "__main__":
    unittest.main()
