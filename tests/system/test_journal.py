# SPDX-License-Identifier: LGPL-2.1-or-later
"""The databases of a daemon: what they cost a blackout, what becomes of jobs when they can't be written, and what is known of
jobs later. A disk that is slow, full or broken is made with strace, which holds up or fails single system calls."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
import unittest

from lab import Lab, PACE, definition, new_uuid, wait_for

SYNCS = "fsync,fdatasync"


def world(lab, wraps=((), ()), vms=1, spec="size=64K"):
    """Two hosts and VMs of one device each at the first, with names vm0, vm1, ... Their device servers, too."""
    hosts = [lab.host(name, wrap=wrap) for name, wrap in zip("ab", wraps)]
    servers = []
    for i in range(vms):
        uuid = new_uuid()
        for host in hosts:
            server = lab.server(f"server-{i}-{host.name}", {"d": spec})
            servers.append(server)
            host.register(definition(f"vm{i}", uuid, server, ["d"]), incoming=host is hosts[1])
    return hosts, servers


def steps(host, job):
    status, report = host.json("show", job)
    assert status == 0, report
    return {s["step"]: s["usec"] for s in report["steps"]}


def syncs(path):
    """(begin, end) of each, in microseconds since 1970, and the file."""
    found, begun = [], {}
    with open(path) as f:
        for line in f:
            m = re.match(r"(\d+) +(\d+)\.(\d+) (?:<\.\.\. )?f(?:data)?sync(?:\(\d+<([^>]*)>|\()?.*?(unfinished|<[0-9.]+>)", line)
            if not m:
                continue
            now = int(m[2]) * 1000000 + int(m[3])
            if m[5] == "unfinished":
                begun[m[1]] = (now, m[4])
            elif m[1] in begun and "resumed" in line:
                found.append((begun[m[1]][0], now, begun.pop(m[1])[1]))
            else:
                found.append((now, now + int(float(line.rsplit("<", 1)[1].rstrip(">\n")) * 1e6), m[4]))
    return found


def strace(log, *options):
    return ["strace", "-I1", "-f", "-qq", "-y", "-T", "-ttt", "-o", log, *options]


def is_held(pid):
    """strace holds a call of it up. What we started is strace; the daemon is its child."""
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        daemon = int(f.read().split()[0])
    for task in os.listdir(f"/proc/{daemon}/task"):
        with open(f"/proc/{daemon}/task/{task}/stat") as f:
            if f.read().rsplit(")", 1)[1].split()[0] == "t":
                return True
    return False


@unittest.skipUnless(shutil.which("strace"), "strace counts and delays")
class Blackout(unittest.TestCase):
    def test_two_syncs_and_no_third(self):
        with Lab() as lab:
            logs = [os.path.join(lab.dir, f"syncs-{name}") for name in "ab"]
            (a, b), _ = world(lab, [strace(log, "-e", "trace=" + SYNCS) for log in logs], vms=2)
            for i in range(6):
                vm, here, there = f"vm{i % 2}", (a, b)[i // 2 % 2], (b, a)[i // 2 % 2]
                status, job = here.migrate(vm, there)
                self.assertEqual((status, job["result"]), (0, "done"), job)
                # From the moment in which the VM stands until it is to run there. What comes then is written beside.
                begin, end = steps(here, job["job"])["source-halt"], steps(there, job["job"])["destination-run"]
                wait_for("both to be written", lambda: all(os.path.getsize(log) for log in logs))
                inside = [s for log in logs for s in syncs(log) if begin <= s[0] <= end]
                self.assertEqual(len(inside), 2, (i, begin, end, inside))
                self.assertTrue(all(s[2].endswith("/migmgr.db-wal") for s in inside), inside)

    def moves(self, slow, enough):
        """Blackouts of moves, of those that took place within such a sync if it is slow, until `enough` of the shortest; there
        is always something else going on in a machine, which makes some of them longer."""
        with Lab() as lab:
            wraps, logs = [], []
            for name in "ab":
                state = os.path.join(lab.dir, name, "state")
                paths = [o for end in ("", "-wal") for o in ("-P", f"{state}/history.db{end}")]
                inject = ["-e", f"inject={SYNCS}:delay_enter=2000000"] if slow else []
                logs.append(os.path.join(lab.dir, f"syncs-{name}"))
                wraps.append(strace(logs[-1], *paths, "-e", "trace=" + SYNCS, *inject))
            hosts, _ = world(lab, wraps)
            found = []
            for i in range(100):
                before = [is_held(h.daemon.pid) for h in hosts]
                status, job = hosts[i % 2].migrate("vm0", hosts[(i + 1) % 2])
                self.assertEqual((status, job["result"]), (0, "done"), job)
                after = [is_held(h.daemon.pid) for h in hosts]
                # It lasts 2 s, and a move less than that: it is the same one before and after.
                if not slow or any(x and y for x, y in zip(before, after)):
                    found.append(job["blackout_usec"])
                    if len(found) > 12 and enough(min(found)):
                        break
            self.assertGreater(len(found), 12)
            return min(found)

    def test_history_that_is_slow_to_sync_is_not_waited_for(self):
        """While the history of one move is being synced, for two seconds and more, others take place as without it."""
        without = self.moves(False, lambda least: False)
        within = self.moves(True, lambda least: least < without + 1000)
        self.assertLess(within - without, 1000)


class Disk(unittest.TestCase):
    """The database of records can't be written while migmgrd runs."""

    KINDS = {"full": "pwrite64:error=ENOSPC", "read-only": "pwrite64:error=EROFS", "broken": SYNCS + ":error=EIO"}

    def break_disk(self, host, kind):
        """Returns what ends it."""
        paths = [o for end in ("", "-wal") for o in ("-P", f"{host.state}/migmgr.db{end}")]
        what = self.KINDS[kind].split(":")[0]
        with open("/proc/%d/status" % host.daemon.pid) as f:
            self.assertIn("TracerPid:\t0", f.read())
        p = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", *paths, "-e", "trace=" + what, "-e",
                              "inject=" + self.KINDS[kind], "-p", str(host.daemon.pid)])

        def traced():
            tasks = os.listdir(f"/proc/{host.daemon.pid}/task")
            status = []
            for task in tasks:
                with open(f"/proc/{host.daemon.pid}/task/{task}/status") as f:
                    status.append(f.read())
            return all(f"TracerPid:\t{p.pid}\n" in text for text in status)
        wait_for("strace", traced)

        def end():
            if p.poll() is None:
                p.send_signal(signal.SIGINT)
                p.wait(10)
        self.addCleanup(end)
        return end

    @unittest.skipUnless(shutil.which("strace"), "strace breaks disks")
    def test_no_job_begins(self):
        for kind in self.KINDS:
            for side in "ab":
                with self.subTest(kind=kind, side=side), Lab() as lab:
                    (a, b), servers = world(lab)
                    if kind == "full": # what was held back for this is gone, too
                        os.unlink(os.path.join((a if side == "a" else b).state, "reserve"))
                    end = self.break_disk(a if side == "a" else b, kind)
                    status, job = a.migrate("vm0", b)
                    self.assertEqual((status, job["result"]), (1, "failed"), job)
                    if side == "a":
                        self.assertEqual(job["error"]["name"], "Store")
                        self.assertIn("make room in the state directory", job["error"]["text"])
                    self.assertRegex(job["error"]["text"], "full|readonly|I/O error")
                    self.assertEqual(servers[0].states(), {"d": "running"})
                    self.assertEqual(a.vm("vm0")["presence"], "here")
                    end()
                    wait_for("another move", lambda: a.migrate("vm0", b)[1].get("result") == "done", 20)

    @unittest.skipUnless(shutil.which("strace"), "strace breaks disks")
    def test_a_job_that_runs_ends_safely(self):
        """While the state goes out the disk breaks, and nothing is held back for that. What was to be written may be there or
        not, so nothing runs before it can be: then the source, which has not given it up for sure, takes the VM back, or the
        destination, which was given it, takes it."""
        for kind in self.KINDS:
            for side in "ab":
                with self.subTest(kind=kind, side=side), Lab() as lab:
                    (a, b), servers = world(lab, spec="size=64K")
                    host = a if side == "a" else b
                    os.unlink(os.path.join(host.state, "reserve"))
                    servers[0].fault("d", "read:hang")
                    p = a.migctl_start("migrate", "--json=short", "vm0", b.dest)
                    wait_for("the drain", lambda: any(j["Phase"] == "drain" for j in a.jobs()))
                    end = self.break_disk(host, kind)
                    servers[0].clear()
                    wait_for("the disk to be missed", lambda: "cannot be written" in host.daemon.output(), 20)
                    self.assertEqual([s.states()["d"] for s in servers], ["stop", "stop"])
                    end()
                    p.communicate(timeout=60)
                    self.assertEqual(p.returncode, 1 if side == "a" else 0)
                    self.assertEqual(servers["ab".index(side)].states(), {"d": "running"})


class Start(unittest.TestCase):
    """What a daemon says of a database that it can't have."""

    def setUp(self):
        self.lab = Lab()
        self.lab.__enter__()
        self.addCleanup(self.lab.__exit__, None, None, None)
        (self.a, self.b), self.servers = world(self.lab)
        self.assertEqual(self.a.migrate("vm0", self.b)[0], 0)
        self.a.daemon.stop()

    def fails(self, text):
        self.a.start_daemon(wait=False)
        self.assertEqual(self.a.daemon.p.wait(20 * PACE), 1)
        self.assertIn("migmgr.db cannot be used: ", self.a.daemon.output())
        self.assertIn(text, self.a.daemon.output())

    def test_a_damaged_one(self):
        path = os.path.join(self.a.state, "migmgr.db")
        with open(path, "rb") as f:
            good = f.read()
        with open(path, "wb") as f:
            f.write(b"\xa5" * len(good))
        self.fails("file is not a database")
        with open(path, "wb") as f:
            f.write(good)
        self.a.start_daemon()
        self.assertEqual(self.a.vm("vm0")["presence"], "away")

    def test_a_damaged_row_of_the_history_hides_no_other(self):
        with sqlite3.connect(os.path.join(self.a.state, "history.db")) as db:
            for n, summary in enumerate(('{"job": tru', "", '{"a":1}}')):
                db.execute("INSERT INTO job SELECT ?, half, vm, name, result, created_usec, ended_usec, ?, report FROM job "
                           "LIMIT 1", (new_uuid()[:-1] + str(n), summary))
        db.close()
        self.a.start_daemon()
        for verb in ("jobs", "history"):
            status, jobs = self.a.json(verb)
            self.assertEqual((status, len(jobs)), (0, 1), (verb, jobs))
        self.assertTrue(self.a.daemon.alive())

    def test_a_locked_one(self):
        db = sqlite3.connect(os.path.join(self.a.state, "migmgr.db"), isolation_level=None)
        db.execute("BEGIN EXCLUSIVE")
        self.fails("database is locked")
        db.close()
        self.a.start_daemon()
        self.assertEqual(self.a.vm("vm0")["presence"], "away")

    def test_a_damaged_history_is_put_aside(self):
        path = os.path.join(self.a.state, "history.db")
        with open(path, "r+b") as f:
            f.write(b"\xa5" * 4096)
        for end in ("-wal", "-shm"):
            if os.path.exists(path + end):
                os.unlink(path + end)
        self.a.start_daemon()
        self.assertIn("is damaged", self.a.daemon.output())
        self.assertTrue(os.path.exists(path + ".damaged"))
        self.assertEqual(self.a.json("history"), (0, []))
        status, job = self.b.migrate("vm0", self.a)
        self.assertEqual(status, 0, job)
        self.assertEqual([j["result"] for j in self.a.json("history")[1]], ["done"])


@unittest.skipUnless(os.geteuid() == 0, "only root mounts a disk that can be filled")
class FullDisk(unittest.TestCase):
    """A daemon that died, and a disk that has been filled meanwhile."""

    @staticmethod
    def fill(path):
        with open(path, "wb", buffering=0) as f:
            size = 65536
            while size:
                try:
                    f.write(b"\0" * size)
                except OSError:
                    size //= 2

    def put_on_full_disk(self, host):
        """All but the index of a log, which a host that comes up again has not. The name of what fills it."""
        kept = host.state + ".kept"
        os.rename(host.state, kept)
        os.mkdir(host.state)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", host.state], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", host.state], check=True)
        for name in os.listdir(kept):
            if not name.endswith("-shm"):
                with open(os.path.join(kept, name), "rb") as f, open(os.path.join(host.state, name), "wb") as to:
                    to.write(f.read())
        self.fill(os.path.join(host.state, "filler"))
        return os.path.join(host.state, "filler")

    def test_what_is_in_transit_is_settled_at_start(self):
        for side in "ab":
            with self.subTest(side=side), Lab() as lab:
                (a, b), servers = world(lab)
                host = a if side == "a" else b
                servers[0].fault("d", "read:hang")
                job = a.migctl_start("migrate", "--no-wait", "vm0", b.dest).communicate(timeout=20)[0].strip()
                wait_for("the drain", lambda: any(j["Phase"] == "drain" for j in a.jobs()))
                host.daemon.kill()
                filler = self.put_on_full_disk(host)
                servers[0].clear()
                host.start_daemon()
                self.assertIn("history.db cannot be used", host.daemon.output())
                wait_for("its end", lambda: a.json("show", job)[1]["state"] == "finished", 20)
                self.assertEqual(a.json("show", job)[1]["result"], "failed")
                self.assertEqual(servers[0].states(), {"d": "running"})
                self.assertEqual((a.vm("vm0")["presence"], b.vm("vm0")["presence"]), ("here", "away"))
                # What a person does who was told so.
                os.unlink(filler)
                host.daemon.stop()
                host.start_daemon()
                self.assertNotIn("history.db cannot be used", host.daemon.output())
                wait_for("another move", lambda: a.migrate("vm0", b)[1].get("result") == "done", 20)

    def test_an_older_database_is_read_at_start(self):
        """An update of migmgr and a full disk at once: the VM that was moving goes on, no other job begins, and with room all is
        as ever."""
        with Lab() as lab:
            (a, b), servers = world(lab)
            servers[0].fault("d", "read:hang")
            job = a.migctl_start("migrate", "--no-wait", "vm0", b.dest).communicate(timeout=20)[0].strip()
            wait_for("the drain", lambda: any(j["Phase"] == "drain" for j in a.jobs()))
            a.daemon.kill()
            with contextlib.closing(sqlite3.connect(os.path.join(a.state, "migmgr.db"))) as db:
                db.executescript("ALTER TABLE record DROP COLUMN seq; PRAGMA user_version = 4")
            os.unlink(os.path.join(a.state, "reserve"))
            filler = self.put_on_full_disk(a)
            servers[0].clear()
            a.start_daemon()
            self.assertIn("was written by an older migmgr", a.daemon.output())
            wait_for("its end", lambda: a.json("show", job)[1]["state"] == "finished", 20)
            self.assertEqual(servers[0].states(), {"d": "running"})
            self.assertEqual(a.vm("vm0")["presence"], "here")
            status, refused = a.migrate("vm0", b)
            self.assertEqual((status, refused["result"]), (6, "refused"), refused)
            self.assertIn("room for records", refused["error"]["text"])
            os.unlink(filler)
            wait_for("another move", lambda: a.migrate("vm0", b)[1].get("result") == "done", 20)
            a.daemon.stop()
            a.start_daemon()
            self.assertNotIn("was written by an older migmgr", a.daemon.output())
            self.assertEqual(a.vm("vm0")["presence"], "away")


class Forgotten(unittest.TestCase):
    """A VM is forgotten when nobody may ask about its jobs any more."""

    def test_not_before_the_other_host_knows_the_end(self):
        with Lab() as lab:
            (a, b), servers = world(lab)
            servers[0].fault("d", "read:hang")
            job = a.migctl_start("migrate", "--no-wait", "vm0", b.dest).communicate(timeout=20)[0].strip()
            wait_for("the drain", lambda: any(j["Phase"] == "drain" for j in a.jobs()))
            b.daemon.kill()
            servers[0].clear()
            wait_for("its end", lambda: a.json("show", job)[1]["state"] == "finished", 20)
            for restarts in range(2): # a record that is taken up again says the same
                status, _, err = a.migctl("unregister", "vm0")
                self.assertEqual(status, 12)
                self.assertRegex(err, f"job {job} has ended \\(failed\\), and the other host, {re.escape(b.dest)}, .* for [0-9]+ s")
                self.assertEqual(a.vm("vm0")["presence"], "here")
                a.daemon.kill()
                a.start_daemon()
                wait_for("its end", lambda: a.json("show", job)[1]["state"] == "finished", 20)
            b.start_daemon()
            wait_for("both to forget", lambda: all(h.migctl("unregister", "vm0")[0] == 0 for h in (a, b) if h.vm("vm0")), 30)
            for host in (a, b):
                self.assertIsNone(host.vm("vm0"))
                self.assertEqual(host.json("show", job)[1]["result"], "failed")

    def test_without_the_other_host_on_a_persons_word(self):
        """It is gone for good; only the word that agrees with the end is taken."""
        for moved in (False, True): # back to the first host, whose other is killed; and to the second
            with self.subTest(moved=moved), Lab() as lab:
                (a, b), servers = world(lab)
                host, other = (b, a) if moved else (a, b)
                servers[1].fault("d", "stop>running-p2p:hang" if moved else "resuming>stop:hang")
                job = a.migctl_start("migrate", "--no-wait", "vm0", b.dest).communicate(timeout=20)[0].strip()
                wait_for("the fault", lambda: any(j["Owner"] == "destination" for j in b.jobs()) if moved
                         else any(j["Phase"] == "intake" for j in a.jobs()))
                other.daemon.kill()
                servers[1].clear()
                wait_for("its end", lambda: host.json("show", job)[1]["state"] == "finished", 20)
                self.assertEqual(host.migctl("unregister", "vm0")[0], 12)
                self.assertEqual({c["how"]: c["allowed"] for c in host.json("show", job)[1]["choices"]},
                                 {"run-here": True, "discard-here": False})
                for word, status in (("--discard-here", 1), ("--run-here", 0), ("--run-here", 1)):
                    self.assertEqual(host.migctl("resolve", word, job)[0], status)
                self.assertEqual(host.migctl("unregister", "vm0"), (0, "", ""))
                host.daemon.kill()
                host.start_daemon()
                self.assertIsNone(host.vm("vm0"))

    def test_of_a_vm_that_has_left_on_the_other_word(self):
        with Lab() as lab:
            (a, b), _ = world(lab)
            uuid, job = a.vm("vm0")["uuid"], new_uuid()
            self.assertEqual(a.migrate("vm0", b)[0], 0)
            a.daemon.stop()
            db = sqlite3.connect(os.path.join(a.state, "migmgr.db"), isolation_level=None)
            db.execute("INSERT INTO record VALUES (?, 'source', ?, 'unix:/nowhere/peer.sock', '', 'done', 0, 0, 0, '', 1, 0, 0, '', 0)",
                       (job, uuid))
            db.close()
            a.start_daemon()
            wait_for("its end", lambda: a.json("show", job)[1]["state"] == "finished", 20)
            self.assertIn("migctl resolve " + job, a.migctl("unregister", "vm0")[2])
            for word, status in (("--run-here", 1), ("--discard-here", 0)):
                self.assertEqual(a.migctl("resolve", word, job)[0], status)
            self.assertEqual(a.migctl("unregister", "vm0"), (0, "", ""))
            self.assertEqual(b.vm("vm0")["presence"], "here")

    def test_a_moment_later_by_whoever_has_seen_it_arrive(self):
        """The source has not said yet that it knows, but is connected."""
        with Lab() as lab:
            (a, b), servers = world(lab)
            servers[1].fault("d", "stop>running-p2p:hang")
            job = a.migctl_start("migrate", "--no-wait", "vm0", b.dest).communicate(timeout=20)[0].strip()
            wait_for("the arrival", lambda: any(j["Owner"] == "destination" for j in b.jobs()))
            a.daemon.p.send_signal(signal.SIGSTOP)
            servers[1].clear()
            wait_for("its end", lambda: b.json("show", job)[1]["state"] == "finished", 20)
            p = b.migctl_start("unregister", "vm0")
            with self.assertRaises(subprocess.TimeoutExpired):
                p.wait(0.5)
            a.daemon.p.send_signal(signal.SIGCONT)
            self.assertEqual(p.communicate(timeout=20), ("", ""))
            self.assertEqual(p.returncode, 0)
            wait_for("its end", lambda: a.json("show", job)[1]["state"] == "finished", 20)
            self.assertEqual(a.migctl("unregister", "vm0"), (0, "", ""))


class Contradictions(unittest.TestCase):
    """Records of one VM's jobs of which not all can be the last."""

    def setUp(self):
        self.lab = Lab()
        self.lab.__enter__()
        self.addCleanup(self.lab.__exit__, None, None, None)

    def write(self, host, *rows):
        """(job, vm, owner, which, acknowledged): halves of a source whose other end is never there, the one with the least number
        recorded first; before all else if it is 0. A clock is not asked."""
        host.daemon.stop()
        db = sqlite3.connect(os.path.join(host.state, "migmgr.db"), isolation_level=None)
        for job, vm, owner, seq, acked in rows:
            db.execute("INSERT INTO record VALUES (?, 'source', ?, 'unix:/nowhere/peer.sock', '', ?, 0, 0, 0, '', ?, 0, ?, '', ?)",
                       (job, vm, owner, 1 << 62, acked, seq))
        db.close()
        host.start_daemon()

    def test_a_vm_that_has_moved_since_is_not_taken_in_hand(self):
        """A job that was turned back and whose other end has not heard of it; then the VM moved, and everybody knows."""
        (a, b), servers = world(self.lab)
        c = self.lab.host("c")
        server = self.lab.server("server-c", {"d": "size=64K"})
        uuid = a.vm("vm0")["uuid"]
        c.register(definition("vm0", uuid, server, ["d"]), incoming=True)
        servers[1].fault("d", "resuming>stop:hang")
        p = a.migctl_start("migrate", "vm0", b.dest)
        wait_for("the intake", lambda: any(j["Phase"] == "intake" for j in a.jobs()))
        b.daemon.kill()
        p.communicate(timeout=60)
        self.assertEqual(p.returncode, 1)
        first = a.json("jobs")[1][0]["job"]
        self.assertEqual(a.migrate("vm0", c)[1]["result"], "done")
        a.daemon.kill()
        a.start_daemon()
        wait_for("the jobs to be taken up", lambda: not a.is_restoring())
        self.assertEqual({j["job"]: (j["state"], j["owner"]) for j in a.json("jobs")[1]}[first], ("finished", "source"))
        servers[1].clear()
        b.start_daemon()
        wait_for("the other end to hear of it", lambda: all(j["state"] == "finished" for j in b.json("jobs")[1]), 20)
        self.assertEqual((server.states(), c.vm("vm0")["presence"]), ({"d": "running"}, "here"))
        self.assertNotEqual(a.json("show", first)[1]["result"], "lost")

    def test_what_a_full_disk_kept_is_not_taken_in_hand(self):
        (a, b), servers = world(self.lab)
        uuid = a.vm("vm0")["uuid"]
        self.assertEqual(a.migrate("vm0", b)[1]["result"], "done")
        self.write(a, (new_uuid(), uuid, "source", 0, 0))
        wait_for("the job to be taken up", lambda: not a.is_restoring())
        self.assertEqual({j["state"] for j in a.json("jobs")[1]}, {"finished"})
        self.assertNotIn("source-look", a.daemon.output())
        self.assertEqual(b.migrate("vm0", a)[1]["result"], "done")

    def test_two_that_cannot_both_be_leave_that_vm_alone(self):
        (a, b), servers = world(self.lab, vms=2)
        uuid, jobs = a.vm("vm0")["uuid"], [new_uuid(), new_uuid()]
        self.write(a, *[(job, uuid, "nobody", i + 1, 0) for i, job in enumerate(jobs)])
        self.assertIn("the same VM in hand", a.daemon.output())
        self.assertEqual(a.migrate("vm1", b)[1]["result"], "done")
        self.assertEqual(b.migrate("vm1", a)[1]["result"], "done")
        self.assertEqual({j["job"] for j in a.json("jobs")[1] if j["state"] == "restoring"}, set(jobs))
        self.assertIn("left alone", a.json("show", jobs[0])[1]["error"]["text"])
        self.assertIn("in hand", a.json("migrate", "vm0", b.dest)[1]["stderr"])


class History(unittest.TestCase):
    def test_what_a_dead_daemon_noted_is_told(self):
        with Lab() as lab:
            (a, b), servers = world(lab)
            servers[0].fault("d", "read:hang")
            p = a.migctl_start("migrate", "--no-wait", "vm0", b.dest)
            job = p.communicate(timeout=20)[0].strip()
            db = sqlite3.connect(os.path.join(a.state, "history.db"))
            self.addCleanup(db.close)
            wait_for("the drain to be noted", lambda: db.execute("SELECT 1 FROM step WHERE json LIKE '%source-drain%'").fetchall())
            a.daemon.kill()
            servers[0].clear()
            a.start_daemon()
            wait_for("its end", lambda: a.json("show", job)[1]["state"] == "finished", 20)
            noted = [s["step"] for s in a.json("show", job)[1]["steps"]]
            self.assertLess(noted.index("source-drain"), noted.index("source-abort"))
            self.assertEqual(sorted(noted, key=noted.index), noted)
            self.assertIn("source-drain", a.migctl("show", job)[1])

    def test_a_job_is_known_before_its_devices_are(self):
        with Lab() as lab:
            (a, b), servers = world(lab)
            servers[0].fault("d", "read:hang")
            p = a.migctl_start("migrate", "--no-wait", "vm0", b.dest)
            job = p.communicate(timeout=20)[0].strip()
            wait_for("the drain", lambda: a.json("show", job)[1]["steps"][-1]["step"] == "source-drain")
            a.daemon.kill()
            os.kill(servers[0].process.pid, signal.SIGSTOP)
            a.start_daemon()
            listed, shown = a.json("jobs")[1], a.json("show", job)[1]
            self.assertEqual([(j["job"], j["name"], j["state"], j["owner"]) for j in listed],
                             [(job, "vm0", "restoring", "source")])
            self.assertEqual((shown["job"], shown["half"], shown["state"], shown["steps"]), (job, "source", "restoring", []))
            self.assertIn("restoring", a.migctl("jobs")[1])
            self.assertIn("ask again", a.migctl("show", job)[1])
            os.kill(servers[0].process.pid, signal.SIGCONT)
            servers[0].clear()
            wait_for("its end", lambda: a.json("show", job)[1]["state"] == "finished", 20)
            self.assertEqual([j["job"] for j in a.json("jobs")[1]], [job])

    def test_it_is_found_by_vm_time_and_result(self):
        with Lab() as lab:
            (a, b), _ = world(lab, vms=2)
            before = time.time()
            jobs = [a.migrate("vm0", b)[1]["job"], a.migrate("vm1", "unix:/nowhere/peer.sock")[1]["job"],
                    b.migrate("vm0", a)[1]["job"]]
            a.daemon.stop()
            a.start_daemon()
            list_ = lambda *args: [j["job"] for j in a.json("history", *args)[1]]
            self.assertEqual(list_(), jobs[::-1])
            self.assertEqual(list_("--vm=vm0"), [jobs[2], jobs[0]])
            self.assertEqual(list_("--vm=vm0", "--result=failed"), [])
            self.assertEqual(list_("--result=failed"), [jobs[1]])
            self.assertEqual(list_("--since=1h"), jobs[::-1])
            self.assertEqual(list_("--since=" + time.strftime("%Y-%m-%d", time.localtime(before + 2 * 86400))), [])
            for args in (["--since=yesterday"], ["--since=5"], ["--result=good"]):
                self.assertEqual(a.migctl("history", *args)[0], 2, args)
            self.assertEqual(a.json("show", jobs[0])[1]["result"], "done")

    def test_only_so_many_are_kept(self):
        with Lab() as lab:
            a = lab.host("a", config={"history-jobs": 3})
            server = lab.server("server", {"d": "size=64K"})
            a.register(definition("vm", new_uuid(), server, ["d"]))
            jobs = [a.migrate("vm", f"unix:/nowhere/{i}")[1]["job"] for i in range(5)]
            self.assertEqual([j["job"] for j in a.json("history")[1]], jobs[:1:-1])


if __name__ == "__main__":
    unittest.main()
