# SPDX-License-Identifier: LGPL-2.1-or-later
"""What migmgr-helper does for a VMM that drives its own devices: duplicates of its files, its migration thread or its vCPUs made
to stand, what it has printed. Without a VFIO device; with one: test_vfio_helper.py."""

import os
import signal
import socket
import struct
import sys
import time
import unittest

from lab import QEMU, Lab, Monitor, Process, connects, find_processes, new_uuid, program, wait_for

MAGIC, HEAD = 0x3248474d, struct.Struct("<IIIiqII")
CONNECT_DEVICE, START_AGENT, START_VMM, DUPLICATE, HOLD, VMM_LOG, HOLD_VCPUS = 1, 2, 3, 8, 9, 10, 11
STANDS, ENDED, KILL = b"\0", b"\1", b"\2"

# A process with a thread that counts, of this name; or that is in a call which nothing interrupts: a parent in vfork(). When
# there is a file of that name and ".enter" it makes the call in which a guest is, before each count.
COUNTING = """
import ctypes, os, sys, threading, time
libc = ctypes.CDLL(None)
def run():
    with open("/proc/thread-self/comm", "w") as f:
        f.write(sys.argv[2])
    if sys.argv[3] == "stuck":
        print(0, flush=True)
        libc.syscall(58) or libc.pause()
    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
    for i in range(1, 10**9):
        if os.path.exists(sys.argv[1] + ".enter"):
            libc.ioctl(-1, 0xae80)
        os.pwrite(fd, str(i).encode(), 0)  # never empty, whoever looks
        time.sleep(0.001)
threading.Thread(target=run, daemon=True).start()
time.sleep(1000)
"""


def process_id(pid):
    """The three strings that name a process."""
    with open(f"/proc/{pid}/stat") as f:
        start = f.read().rsplit(")", 1)[1].split()[19]
    with open("/proc/sys/kernel/random/boot_id") as f:
        return str(pid), start, f.read().strip()


def packet(request, *strings):
    return HEAD.pack(MAGIC, request, 1, 0, 0, len(strings), 0) + b"".join(s.encode() + b"\0" for s in strings)


class Helper:
    """A client of a helper of its own, which knows no other host."""

    def __init__(self, lab, name="run", wrap=()):
        self.dir = os.path.join(lab.dir, name)
        self.process = Process(lab, "helper-" + name, [*wrap, program("migmgr-helper"), "--runtime-dir=" + self.dir])
        self.held = []
        wait_for("the helper", lambda: connects(os.path.join(self.dir, "helper.sock"), socket.SOCK_SEQPACKET))
        self.s = self.connect()

    def connect(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.settimeout(10)
        s.connect(os.path.join(self.dir, "helper.sock"))
        return s

    def close(self):
        for s in [self.s, *self.held]:
            s.close()

    def ask(self, request, *strings):
        """(status, a file's descriptor or -1, text)"""
        self.s.send(packet(request, *strings))
        data, fds, _, _ = socket.recv_fds(self.s, 65536, 1)
        return HEAD.unpack(data[:HEAD.size])[3], fds[0] if fds else -1, data[HEAD.size:].rstrip(b"\0").decode()

    def start(self, *argv):
        """A program that waits to begin: its socket."""
        status, fd, text = self.ask(START_VMM, new_uuid(), os.path.join(self.dir, "qmp"), *argv)
        assert status == 0, (status, text)
        s = socket.socket(fileno=fd)
        s.settimeout(10)
        self.held.append(s)
        return s

    def hold(self, pid, *vcpus):
        """The socket, and what it says. `vcpus`: how, and which threads."""
        status, fd, text = self.ask(HOLD_VCPUS if vcpus else HOLD, *process_id(pid), *vcpus)
        assert status == 0, (status, text)
        s = socket.socket(fileno=fd)
        s.settimeout(10)
        self.held.append(s)
        return s, s.recv(200)


def threads(pid):
    """All but the first."""
    return sorted(tid for tid in os.listdir(f"/proc/{pid}/task") if tid != str(pid))


class Case(unittest.TestCase):
    def setUp(self):
        self.lab = Lab()
        self.addCleanup(self.lab.close)
        self.start_helper()
        self.count_path = os.path.join(self.lab.dir, "count")

    def start_helper(self):
        self.helper = Helper(self.lab)
        self.addCleanup(self.helper.close)

    def tearDown(self):
        self.assertEqual(self.helper.ask(VMM_LOG, "no uuid")[0], -22, "the helper has gone, or hangs")

    def counting(self, name="mig/src/main", kind="counting"):
        if os.path.exists(self.count_path):
            os.unlink(self.count_path)  # of an earlier one
        process = Process(self.lab, "counting", [sys.executable, "-c", COUNTING, self.count_path, name, kind])
        wait_for("it to begin", lambda: self.count() if kind == "counting" else process.output())
        return process

    def count(self):
        try:
            with open(self.count_path) as f:
                return int(f.read() or 0)
        except OSError:
            return 0

    def goes_on(self):
        first = self.count()
        wait_for("the thread to go on", lambda: self.count() > first, 5)

    def stands(self, seconds):
        first = self.count()
        time.sleep(seconds)
        return self.count() <= first + 1  # one that was just being written

    def program(self):
        """What a program does that has begun, and how to see that it has, and that one waits."""
        path = os.path.join(self.lab.dir, "begun")
        return ("/bin/sh", "-c", f"ln -s $$ {path}; exec sleep 1000"), lambda: os.path.islink(path) and int(os.readlink(path))

    def waiting(self):
        """Forked by the helper, and no program yet."""
        return find_processes(lambda argv, pid: "--runtime-dir=" + self.helper.dir in argv and pid != self.helper.process.pid)

    def test_a_program_begins_when_it_is_told_to(self):
        argv, begun = self.program()
        s = self.helper.start(*argv)
        self.assertTrue(self.waiting())
        self.assertFalse(begun())
        s.send(b"\0")
        self.assertEqual(s.recv(10), b"")
        os.kill(wait_for("the program", begun), signal.SIGKILL)
        wait_for("no keeper", lambda: not self.waiting(), 5)

    def test_a_program_that_nobody_can_tell_to_begin_ends(self):
        for helper_dies in (False, True):
            argv, begun = self.program()
            s = self.helper.start(*argv)
            if helper_dies:
                self.helper.process.kill()
            self.assertTrue(self.waiting())
            s.close()
            wait_for("its end", lambda: not self.waiting(), 5)
            self.assertFalse(begun())
        self.start_helper()

    def test_a_program_whose_pid_nobody_hears_of_does_not_begin(self):
        argv, begun = self.program()
        uuid, agent = new_uuid(), os.path.join(self.helper.dir, "agent.sock")
        for path, *request in ((os.path.join(self.helper.dir, f"vmm-{uuid}.log"), START_VMM, uuid, agent + ".qmp", *argv),
                               (agent, START_AGENT, agent, "vm d0")):
            s = self.helper.connect()
            self.helper.process.p.send_signal(signal.SIGSTOP)
            s.send(packet(*request))
            s.close()
            self.helper.process.p.send_signal(signal.SIGCONT)
            wait_for("the request to be heard", lambda: os.path.exists(path), 5)
            self.assertEqual(self.helper.ask(VMM_LOG, new_uuid())[0], -2)  # it has been answered
            wait_for("its end", lambda: not self.waiting(), 5)
            self.assertFalse(begun())
        self.assertFalse(find_processes(lambda argv, pid: argv[1:] == ["vm d0"]))

    def test_a_helper_that_dies_after_its_answer_takes_nothing_with_it(self):
        argv, begun = self.program()
        s = self.helper.start(*argv)
        self.helper.process.kill()
        s.send(b"\0")
        self.assertEqual(s.recv(10), b"")
        os.kill(wait_for("the program", begun), signal.SIGKILL)
        self.start_helper()

    def test_a_program_that_cannot_be_executed_says_why(self):
        for path, status in (("/nonexistent/qemu", -2), ("/etc/passwd", -13)):
            s = self.helper.start(path)
            s.send(b"\0")
            self.assertEqual(struct.unpack("<i", s.recv(10))[0], status)
            self.assertEqual(s.recv(10), b"")

    def test_a_thread_stands_until_it_is_let_go(self):
        process = self.counting()
        s, said = self.helper.hold(process.pid)
        self.assertEqual(said, b"\0")
        self.assertTrue(self.stands(0.3))
        s.close()
        self.goes_on()
        for _ in range(20):  # and nothing is left of it
            s, said = self.helper.hold(process.pid)
            self.assertEqual(said, b"\0")
            s.close()
            self.goes_on()
        wait_for("no child", lambda: not self.children(), 5)

    def children(self):
        with open(f"/proc/{self.helper.process.pid}/task/{self.helper.process.pid}/children") as f:
            return [int(pid) for pid in f.read().split()]

    def test_it_goes_on_after_two_seconds(self):
        process = self.counting()
        begun = time.monotonic()
        s, said = self.helper.hold(process.pid)
        self.assertEqual(said, b"\0")
        self.assertEqual(s.recv(1), b"", "it says so by its end")
        self.assertLess(1.5, time.monotonic() - begun)
        self.assertLess(time.monotonic() - begun, 4)
        s.close()
        self.goes_on()

    def test_it_goes_on_when_its_tracer_is_killed(self):
        process = self.counting()
        s, said = self.helper.hold(process.pid)
        self.assertEqual(said, b"\0")
        os.kill(self.children()[0], signal.SIGKILL)
        self.goes_on()
        s.close()

    def test_the_helper_answers_while_a_thread_stands_and_its_end_is_no_end_of_that(self):
        process = self.counting()
        s, said = self.helper.hold(process.pid)
        self.assertEqual(self.helper.ask(VMM_LOG, new_uuid())[0], -2)
        self.helper.process.kill()
        self.assertTrue(self.stands(0.2))
        s.close()
        self.goes_on()
        self.start_helper()

    def test_only_a_thread_of_that_name(self):
        process = self.counting(name="mig/src/other")
        status, fd, text = self.helper.ask(HOLD, *process_id(process.pid))
        self.assertEqual((status, fd), (-2, -1))
        self.assertIn("debug-threads", text)

    def test_a_thread_in_a_call_that_does_not_end_is_not_held(self):
        process = self.counting(kind="stuck")
        begun = time.monotonic()
        s, said = self.helper.hold(process.pid)
        self.assertIn(b"in time", said)
        self.assertLess(time.monotonic() - begun, 1.5)
        s.close()
        process.kill()

    def held_vcpu(self, how="still"):
        """The process, and the socket."""
        process = self.counting(name="CPU 0/KVM")
        s, said = self.helper.hold(process.pid, how, *threads(process.pid) * 2)  # one thread may have several vCPUs
        self.assertEqual(said, STANDS)
        return process, s

    def enter(self):
        with open(self.count_path + ".enter", "w"):
            pass

    def test_a_vcpu_stands_until_it_is_let_go_and_longer_than_a_migration(self):
        process, s = self.held_vcpu()
        self.assertTrue(self.stands(3))
        s.close()
        self.goes_on()

    def test_a_vcpu_of_kvm_goes_on_but_not_into_the_guest(self):
        process, s = self.held_vcpu("kvm")
        self.goes_on()
        self.enter()
        self.stands(0.1)  # it may have been on its way
        self.assertTrue(self.stands(0.5))
        s.close()
        self.goes_on()

    def test_a_vcpu_of_kvm_that_comes_out_does_not_get_in_again(self):
        process = self.counting(name="CPU 0/KVM")
        self.enter()
        self.goes_on()
        s, said = self.helper.hold(process.pid, "kvm", *threads(process.pid))
        self.assertEqual(said, STANDS)
        self.stands(0.1)
        self.assertTrue(self.stands(0.5))
        s.close()
        self.goes_on()

    def test_who_is_killed_while_held_is_known_to_have_been_held_to_its_end(self):
        for how in ("still", "kvm"):
            for kill in (lambda process, s: s.send(KILL), lambda process, s: os.kill(process.pid, signal.SIGKILL),
                         lambda process, s: os.kill(process.pid, signal.SIGABRT)):
                self.enter()
                process, s = self.held_vcpu(how) if how == "still" else self.held_before_the_guest()
                before = self.count()
                kill(process, s)
                self.assertEqual(s.recv(10), ENDED)
                wait_for("its end", lambda: not process.alive(), 5)
                self.assertLessEqual(self.count(), before + 1)
                s.close()
        wait_for("no child", lambda: not self.children(), 5)

    def held_before_the_guest(self):
        process, s = self.held_vcpu("kvm")
        self.stands(0.1)
        return process, s

    def test_a_hold_that_ends_by_itself_says_nothing_of_the_end(self):
        process, s = self.held_vcpu()
        os.kill(self.children()[0], signal.SIGKILL)
        self.assertEqual(s.recv(10), b"")
        self.goes_on()
        process.kill()
        process, s = self.held_vcpu()
        s.send(STANDS)  # no order
        self.assertEqual(s.recv(10), b"")
        self.goes_on()

    def test_vcpus_stand_on_when_the_helper_ends(self):
        process, s = self.held_vcpu()
        self.helper.process.kill()
        self.assertTrue(self.stands(0.3))
        s.send(KILL)
        self.assertEqual(s.recv(10), ENDED)
        self.start_helper()

    def test_only_threads_of_that_process_are_held_as_vcpus(self):
        process = self.counting()
        strings, tid = process_id(process.pid), threads(process.pid)[0]
        for status, more in ((-22, ()), (-22, ("still",)), (-22, ("", tid)), (-22, ("stil", tid)),
                             (-3, ("still", "x")), (-3, ("still", "0")), (-3, ("still", "-1")), (-3, ("kvm", "1")),
                             (-3, ("kvm", tid, str(os.getpid()))), (-3, ("kvm", tid, ""))):
            self.assertEqual(self.helper.ask(HOLD_VCPUS, *strings, *more)[:2], (status, -1), more)
        self.goes_on()

    def test_a_qemu_whose_vcpus_are_held_says_that_it_runs_and_its_guest_does_nothing(self):
        for accel, how in (("tcg", "still"), ("kvm", "kvm")):
            if accel == "kvm" and not os.path.exists("/dev/kvm"):
                continue
            with self.subTest(accel):
                self.see_qemu_held(accel, how)

    def see_qemu_held(self, accel, how):
        path, said = (os.path.join(self.lab.dir, accel + name) for name in (".monitor", ".said"))
        qemu = Process(self.lab, "qemu-" + accel, [
            QEMU, "-accel", accel, "-M", "q35", "-m", "64", "-smp", "2", "-nodefaults", "-display", "none", "-S",
            "-chardev", f"file,id=said,path={said}", "-device", "isa-debugcon,iobase=0x402,chardev=said",
            "-qmp", f"unix:{path},server=on,wait=off"])
        wait_for("its monitor", lambda: os.path.exists(path))
        with Monitor(path) as monitor:
            for kill in (False, True):
                vcpus = [str(cpu["thread-id"]) for cpu in monitor.command("query-cpus-fast")]
                s, text = self.helper.hold(qemu.pid, how, *vcpus)
                self.assertEqual(text, STANDS)
                before = os.path.getsize(said)
                self.assertEqual(monitor.command("cont"), {})
                self.assertEqual(monitor.command("query-status")["status"], "running")
                time.sleep(0.5)
                self.assertEqual(os.path.getsize(said), before, "its firmware has begun")
                if kill:
                    s.send(KILL)
                    self.assertEqual(s.recv(10), ENDED)
                    wait_for("its end", lambda: not qemu.alive(), 5)
                    self.assertEqual(os.path.getsize(said), before)
                else:
                    s.close()
                    wait_for("its firmware", lambda: os.path.getsize(said) > before, 10)
                    monitor.command("stop")

    def test_a_process_is_known_by_more_than_its_number(self):
        process = self.counting()
        pid, start, boot = process_id(process.pid)
        for strings in ((pid, str(int(start) + 1), boot), (pid, start, new_uuid())):
            for request, more in ((HOLD, ()), (DUPLICATE, ("/sys/bus/pci/devices/0000:00:00.0",))):
                self.assertEqual(self.helper.ask(request, *strings, *more)[0], -3)
        for strings in (("1", start, boot), ("x", start, boot), (pid, start, "x"), ("-1", start, boot)):
            self.assertEqual(self.helper.ask(HOLD, *strings)[0], -22)
        self.assertEqual(self.helper.ask(HOLD, pid, start)[0], -22)

    def test_only_devices_are_duplicated(self):
        strings = process_id(self.helper.process.pid)
        for path in ("", "/", "/sys/bus/pci/devices/", "/sys/bus/pci/devices/..", "/sys/bus/pci/devices/../../../etc",
                     "/sys/bus/pci/devices/a/b", "/sys/bus/mdev/devices/" + "a" * 65, "/etc/passwd", "0000:00:01.0",
                     "/sys/bus/pci/devices/0000:00:01.0 "):
            self.assertEqual(self.helper.ask(DUPLICATE, *strings, path)[0], -22, path)
        status, fd, text = self.helper.ask(DUPLICATE, *strings, "/sys/bus/mdev/devices/" + new_uuid())
        self.assertEqual((status, fd), (-19, -1))
        self.assertIn("no VFIO device", text)

    def test_what_a_vmm_has_printed_can_be_read_only(self):
        vm = new_uuid()
        status, fd, text = self.helper.ask(VMM_LOG, vm)
        self.assertEqual((status, fd, text), (-2, -1, "no VMM of that VM was started here"))
        path = os.path.join(self.helper.dir, f"vmm-{vm}.log")
        with open(path, "w") as f:
            f.write("a line\n")
        status, fd, text = self.helper.ask(VMM_LOG, vm)
        self.assertEqual((status, text, os.read(fd, 100)), (0, "", b"a line\n"))
        with self.assertRaises(OSError):
            os.write(fd, b"x")
        os.close(fd)
        os.unlink(path)
        os.symlink("/etc/passwd", path)
        self.assertNotEqual(self.helper.ask(VMM_LOG, vm)[0], 0)


if __name__ == "__main__":
    unittest.main()
