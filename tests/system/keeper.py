# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd is for migmgrd, where there is none: starts it again whenever it has ended, and has a store for its file
descriptors, with the same protocol (sd_notify(3): READY=1, FDSTORE=1, FDSTOREREMOVE=1, FDNAME=, BARRIER=1; sd_listen_fds(3)).

Of a KeptHost `daemon` is always the migmgrd that lives, or lived last."""

import fcntl
import os
import select
import signal
import socket
import struct
import threading
import time

from lab import Host, PACE, is_alive, wait_for

DATAGRAM = 4096
FDS_IN_ONE = 253  # the most that Linux passes at once


class Store:
    """(name, descriptor)s, at most `room`. One whose other end is gone leaves by itself, as with systemd."""

    def __init__(self, room, epoll):
        self.epoll = epoll  # says who hangs up
        self.room, self.kept, self.lock = room, [], threading.Lock()
        self.files = {}  # what a descriptor of these is: none is kept twice

    def names(self):
        with self.lock:
            return [name for name, _ in self.kept]

    def put(self, name, fd):
        with self.lock:
            file = os.fstat(fd)
            if len(self.kept) < self.room and (file.st_dev, file.st_ino) not in self.files.values():
                self.kept.append((name, fd))
                self.files[fd] = file.st_dev, file.st_ino
                try:
                    self.epoll.register(fd, 0)
                except PermissionError:
                    pass  # it can't hang up
                return
        os.close(fd)

    def remove(self, gone):
        """Those of which `gone(name, fd)` is true."""
        with self.lock:
            out = {fd for name, fd in self.kept if gone(name, fd)}
            self.kept = [(name, fd) for name, fd in self.kept if fd not in out]
            for fd in out:
                del self.files[fd]
                try:
                    self.epoll.unregister(fd)
                except OSError:
                    pass
                os.close(fd)

    def close(self):
        self.remove(lambda name, fd: True)


def is_open(fd):
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
        return True
    except OSError:
        return False


class Keeper:
    """Runs `argv`, again and again until stop(), with what it has parked. `restart_sec`: as RestartSec= of its service."""

    def __init__(self, lab, name, argv, env=None, room=4096, restart_sec=0.0):
        self.argv, self.env, self.restart_sec = argv, dict(env or os.environ), restart_sec
        self.epoll = select.epoll()
        self.store, self.messages, self.starts = Store(room, self.epoll), [], []
        self.pid = self.status = None
        self.again = True
        self.log_path = os.path.join(lab.dir, name + ".log")
        self.log = open(self.log_path, "ab")
        path = os.path.join(lab.dir, name + ".notify")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.notify.bind(path)
        self.env["NOTIFY_SOCKET"] = path
        self.wake = socket.socketpair()
        for s in (self.notify, self.wake[1]):
            self.epoll.register(s, select.EPOLLIN)
        lab.processes.append(self)
        self.start()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    # ---- the daemon

    def start(self):
        fds = [fd for _, fd in self.store.kept]
        env = dict(self.env)
        if fds:
            env.update(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=":".join(self.store.names()))
        self.log_start = self.log.tell()
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.become(fds, env, tell)
        os.close(tell)
        self.pidfd = os.pidfd_open(pid)
        self.epoll.register(self.pidfd, select.EPOLLIN)
        self.pid = pid
        self.starts.append(struct.unpack("d", os.read(told, 8))[0])
        os.close(told)

    def become(self, fds, env, tell):
        """In the child: nothing but what leads to exec."""
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for fd, to in ((null, 0), (self.log.fileno(), 1), (self.log.fileno(), 2)):
                os.dup2(fd, to)
            above = 3 + len(fds)
            tell = fcntl.fcntl(tell, fcntl.F_DUPFD_CLOEXEC, above)
            for i, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]):
                os.dup2(fd, 3 + i)
            for fd in map(int, os.listdir("/proc/self/fd")):
                if fd >= above and is_open(fd):
                    os.set_inheritable(fd, False)
            if fds:
                env["LISTEN_PID"] = str(os.getpid())
            os.write(tell, struct.pack("d", time.monotonic()))
            os.execve(self.argv[0], self.argv, env)
        finally:
            os._exit(127)

    def reap(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.status, self.pidfd = os.waitstatus_to_exitcode(status), -1
        if self.again:
            time.sleep(self.restart_sec)
            self.take_all()
            self.start()

    # ---- what it says

    def take_all(self):
        while True:
            try:
                self.take()
            except BlockingIOError:
                return

    def take(self):
        data, ancillary, _, _ = self.notify.recvmsg(DATAGRAM, socket.CMSG_SPACE(4 * FDS_IN_ONE) + socket.CMSG_SPACE(12))
        fds = []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds += struct.unpack(f"{len(content) // 4}i", content[:len(content) // 4 * 4])
        said = data.decode().split("\n")
        self.messages.append(said)
        name = next((line[len("FDNAME="):] for line in said if line.startswith("FDNAME=")), "stored")
        if "FDSTORE=1" in said:
            for fd in fds:
                self.store.put(name, fd)
            fds = []
        if "FDSTOREREMOVE=1" in said:
            self.store.remove(lambda n, fd: n == name)
        for fd in fds:
            os.close(fd)  # of BARRIER=1: that is the answer

    def listen(self, yes):
        self.epoll.modify(self.notify, select.EPOLLIN if yes else 0)

    def run(self):
        while self.again or self.pidfd >= 0:
            ready = dict(self.epoll.poll())
            if self.notify.fileno() in ready:
                self.take_all()
            hung_up = {fd for fd, what in ready.items() if what & (select.EPOLLHUP | select.EPOLLERR)}
            self.store.remove(lambda name, fd: fd in hung_up)
            if self.wake[1].fileno() in ready:
                self.wake[1].recv(100)
            if self.pidfd in ready:
                self.reap()

    # ---- as lab.Process

    @property
    def returncode(self):
        return self.status

    def alive(self):
        return is_alive(self.pid)

    def kill(self, sig=signal.SIGKILL):
        """Returns when the next one has been started."""
        n = len(self.starts)
        os.kill(self.pid, sig)
        wait_for("the next migmgrd", lambda: len(self.starts) > n)

    def stop(self):
        self.again = False
        os.kill(self.pid, signal.SIGTERM)
        self.wake[0].send(b"x")
        self.thread.join(10 * PACE)
        if self.thread.is_alive():
            os.kill(self.pid, signal.SIGKILL)
            self.thread.join()
        self.store.close()
        for s in (self.notify, *self.wake, self.epoll):
            s.close()
        self.log.close()

    def output(self):
        with open(self.log_path, errors="replace") as f:
            f.seek(self.log_start)
            return f.read()


class KeptHost(Host):
    def __init__(self, lab, name, room=4096, restart_sec=0.0, **kw):
        super().__init__(lab, name, **kw)
        self.room, self.restart_sec = room, restart_sec
        lab.hosts.append(self)

    @property
    def started(self):
        """When the daemon that lives was started: CLOCK_MONOTONIC, right before exec."""
        return self.daemon.starts[-1]

    def start_daemon(self, wait=True):
        self.daemon = Keeper(self.lab, self.name + "-migmgrd", self.daemon_argv(), self.env, self.room, self.restart_sec)
        if wait:
            self.wait_ready()
