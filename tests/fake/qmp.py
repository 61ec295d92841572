#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a QEMU is to migmgr: a monitor, a guest that counts, a migration over a passed file. For the traps that a real one
does not show on demand.

It takes the options that the helper adds (-S, -incoming defer, -qmp unix:PATH,...), --serial=FILE for the counts, and
  --vfio-user            there is a vfio-user-pci in it
  --viommu               there is an intel-iommu
  --vfio=ID,...          vfio-pci devices of these ids, whose place in sysfs is that of no device
  --say=WHEN:WHAT        says of such devices, in events VFIO_MIGRATION, WHEN "stop" (the vCPUs are about to stand), "stopped" or
                         "cont" (before it runs): ID=STATE,...; "flood" says ten thousand of them, "nonsense" what is none
  --finish-ms=N          after a completed migration it stays in finish-migrate for so long, and refuses `cont`
  --mute=COMMAND         does what it is told, and does not answer
  --close=COMMAND        does it, and closes the connection instead of answering
  --garbage=COMMAND      answers what is no JSON
  --endless=COMMAND      answers a line that has no end
  --refuse=COMMAND       answers with an error, and does nothing
where COMMAND may be "greeting", and COMMAND@N only the N-th time.
"""

import json
import os
import socket
import sys
import threading
import time

TICK_SECONDS = 0.01


class Fault:
    def __init__(self, kind, text):
        self.kind = kind
        self.command, _, number = text.partition("@")
        self.number = int(number or 0)
        self.seen = 0

    def strikes(self, command):
        if command != self.command:
            return False
        self.seen += 1
        return self.number in (0, self.seen)


class Qemu:
    def __init__(self, argv):
        self.lock = threading.RLock()
        self.serial, self.path, self.vfio_user, self.finish_seconds, self.faults = None, None, False, 0, []
        self.vfio, self.says, self.viommu = [], {}, False
        self.read_options(argv)
        self.incoming = "-incoming" in argv
        self.status = "inmigrate" if self.incoming else "running"
        self.migration = self.file = self.client = None
        self.count, self.finished = 0, 0
        self.capabilities = {"events": False, "return-path": False, "pause-before-switchover": False, "xbzrle": True}
        self.parameters = {"max-bandwidth": 134217728, "downtime-limit": 300}
        self.go_on = threading.Event()

    def read_options(self, argv):
        for i, arg in enumerate(argv):
            key, _, value = arg.partition("=")
            if arg == "-qmp":
                self.path = argv[i + 1].partition(":")[2].partition(",")[0]
            elif key == "--serial":
                self.serial = open(value, "a", buffering=1)
            elif key == "--viommu":
                self.viommu = True
            elif key == "--vfio-user":
                self.vfio_user = True
            elif key == "--vfio":
                self.vfio = value.split(",")
            elif key == "--say":
                when, _, what = value.partition(":")
                self.says[when] = what
            elif key == "--finish-ms":
                self.finish_seconds = int(value) / 1000
            elif key in ("--mute", "--close", "--garbage", "--endless", "--refuse"):
                self.faults.append(Fault(key[2:], value))

    # The guest.

    def run_guest(self):
        while True:
            time.sleep(TICK_SECONDS)
            with self.lock:
                if self.status == "running":
                    self.count += 1
                    self.serial.write(f"C {self.count} 0\n")

    # The migration.

    def set_migration(self, status):
        self.migration = status
        self.event("MIGRATION", status=status)

    def set_status(self, status):
        was, self.status = self.status, status
        if status == "running" and was != "running":
            self.event("RESUME")
        elif was == "running":
            self.event("STOP")

    def say_devices(self, when):
        what = self.says.get(when, "")
        if what == "flood":
            for i in range(10000):
                self.event("VFIO_MIGRATION", **{"device-id": f"x{i}", "qom-path": "/x" * 50, "device-state": "running"})
        elif what == "nonsense":
            for data in ({}, {"device-id": 7}, {"device-id": "v0"}, {"device-id": "v0", "device-state": None},
                         {"device-id": "v0", "device-state": "frozen"}, {"device-id": [], "device-state": "running"}):
                self.event("VFIO_MIGRATION", **data)
        else:
            for one in filter(None, what.split(",")):
                device, _, state = one.partition("=")
                self.event("VFIO_MIGRATION", **{"device-id": device, "qom-path": "/machine/peripheral/" + device,
                                                "device-state": state})

    def outgoing(self):
        try:
            with self.lock:
                self.set_migration("setup")
                self.set_migration("active")
            time.sleep(2 * TICK_SECONDS)
            with self.lock:
                self.say_devices("stop")
                self.set_status("finish-migrate")
                self.say_devices("stopped")
                self.set_migration("pre-switchover")
            self.go_on.wait()
            with self.lock:
                if self.migration != "pre-switchover":
                    return
                self.set_migration("device")
            self.file.sendall(self.count.to_bytes(8, "little"))
            if self.file.recv(1) != b"!":
                raise OSError("the sibling says nothing")
            self.file.close()
            with self.lock:
                self.finished = time.monotonic() + self.finish_seconds
                self.set_migration("completed")
        except OSError:
            with self.lock:
                self.set_migration("failed")
                self.set_status("running")

    def read_incoming(self):
        with self.lock:
            self.set_migration("setup")
            self.set_migration("active")
        data = b""
        while len(data) < 8:
            more = self.file.recv(8 - len(data))
            if not more:
                self.event("MIGRATION", status="failed")
                os._exit(1)
            data += more
        self.file.send(b"!")
        with self.lock:
            self.count = int.from_bytes(data, "little")
            self.status = "paused"
            self.set_migration("completed")

    # The monitor.

    def event(self, name, **data):
        self.say({"timestamp": {"seconds": 0, "microseconds": 0}, "event": name, "data": data})

    def say(self, message):
        try:
            if self.client:
                self.client.sendall(json.dumps(message).encode() + b"\r\n")
        except OSError:
            pass

    def fault(self, command):
        return next((f.kind for f in self.faults if f.strikes(command)), None)

    def spoil(self, kind):
        """Says what the fault wants instead of an answer. Returns whether the connection goes on."""
        try:
            if kind == "garbage":
                self.client.sendall(b"\x00\xffno JSON at all\n")
            while kind == "endless":
                self.client.sendall(b"x" * 65536)
        except OSError:
            return False
        return kind != "close"

    def serve(self, client):
        self.client = client
        kind = self.fault("greeting")
        if kind:
            if not self.spoil(kind):
                return
        else:
            self.say({"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0}}, "capabilities": ["oob"]}})
        buffer = b""
        while True:
            try:
                data, files, _, _ = socket.recv_fds(client, 65536, 1)
            except OSError:
                return
            if not data:
                return
            if files:
                self.file = socket.socket(fileno=files[0])
                self.file.setblocking(True)
            buffer += data
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                if not self.obey(json.loads(line)):
                    return

    def obey(self, line):
        command = line.get("execute") or line.get("exec-oob")
        kind = self.fault(command)
        if kind == "refuse":
            answer = {"error": {"class": "GenericError", "desc": f"the fake refuses {command}"}}
        else:
            with self.lock:
                handler = getattr(self, "do_" + command.replace("-", "_"), None)
                answer = handler(line.get("arguments") or {}) if handler else \
                    {"error": {"class": "CommandNotFound", "desc": f"The command {command} has not been found"}}
        if kind and kind != "refuse":
            return self.spoil(kind)
        if answer is not None:
            with self.lock:
                self.say({**answer, "id": line.get("id")})
        if command == "quit":
            os._exit(0)
        return True

    @staticmethod
    def error(text):
        return {"error": {"class": "GenericError", "desc": text}}

    def current_status(self):
        if self.migration == "completed" and self.status == "finish-migrate" and time.monotonic() >= self.finished:
            self.status = "postmigrate"
        return self.status

    def do_qmp_capabilities(self, arguments):
        return {"return": {}}

    def do_query_version(self, arguments):
        return {"return": {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": "fake"}}

    def do_query_status(self, arguments):
        status = self.current_status()
        return {"return": {"status": status, "running": status == "running"}}

    def do_qom_get(self, arguments):
        device = arguments["path"].rpartition("/")[2]
        if arguments["path"] == "/machine":
            return {"return": "pc-i440fx-10.0-machine"}
        if device not in self.vfio:
            return self.error(f"Device '{device}' not found")
        return {"return": {"migration-events": True, "x-no-mmap": False, "sysfsdev": "/sys/bus/mdev/devices/00000000-0000-4000-8000-000000000000"}[
            arguments["property"]]}

    def do_query_block(self, arguments):
        return {"return": []}

    def do_qom_list(self, arguments):
        devices = [{"name": "type", "type": "string"}]
        if self.viommu and arguments["path"] == "/machine/peripheral-anon":
            devices.append({"name": "device[0]", "type": "child<intel-iommu>"})
        if self.vfio_user and arguments["path"] == "/machine/peripheral":
            devices.append({"name": "nic0", "type": "child<vfio-user-pci>"})
        if arguments["path"] == "/machine/peripheral":
            devices += [{"name": d, "type": "child<vfio-pci>"} for d in self.vfio]
        return {"return": devices}

    def do_query_migrate(self, arguments):
        return {"return": {"status": self.migration} if self.migration else {}}

    def do_query_migrate_capabilities(self, arguments):
        return {"return": [{"capability": k, "state": v} for k, v in self.capabilities.items()]}

    def do_migrate_set_capabilities(self, arguments):
        for one in arguments["capabilities"]:
            self.capabilities[one["capability"]] = one["state"]
        return {"return": {}}

    def do_query_migrate_parameters(self, arguments):
        return {"return": self.parameters}

    def do_migrate_set_parameters(self, arguments):
        self.parameters.update(arguments)
        return {"return": {}}

    def do_getfd(self, arguments):
        return {"return": {}} if self.file else self.error("No file descriptor supplied via SCM_RIGHTS")

    def do_migrate(self, arguments):
        self.go_on.clear()
        threading.Thread(target=self.outgoing, daemon=True).start()
        return {"return": {}}

    def do_migrate_incoming(self, arguments):
        threading.Thread(target=self.read_incoming, daemon=True).start()
        return {"return": {}}

    def do_migrate_continue(self, arguments):
        if self.migration != "pre-switchover":
            return self.error("Migration not in expected state: pre-switchover")
        self.go_on.set()
        return {"return": {}}

    def do_migrate_cancel(self, arguments):
        if self.migration in ("setup", "active", "pre-switchover"):
            self.set_migration("cancelling")
            self.set_migration("cancelled")
            self.set_status("running")
            self.go_on.set()
        return {"return": {}}

    def do_yank(self, arguments):
        if self.migration not in ("setup", "active", "pre-switchover", "device"):
            return self.error("Instance migration not found")
        self.file.shutdown(socket.SHUT_RDWR)
        return {"return": {}}

    def do_cont(self, arguments):
        status = self.current_status()
        if status == "finish-migrate":
            return self.error("Migration is not finalized yet")
        self.say_devices("cont")
        self.set_status("running")
        return {"return": {}}

    def do_stop(self, arguments):
        self.set_status("paused")
        return {"return": {}}

    def do_quit(self, arguments):
        return {"return": {}}


def main():
    qemu = Qemu(sys.argv[1:])
    listener = socket.socket(socket.AF_UNIX)
    if os.path.exists(qemu.path):
        os.unlink(qemu.path)
    listener.bind(qemu.path)
    listener.listen(8)
    threading.Thread(target=qemu.run_guest, daemon=True).start()
    while True:  # one client at a time, as QEMU
        client, _ = listener.accept()
        qemu.serve(client)
        qemu.client = None
        client.close()


if __name__ == "__main__":
    main()
