# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stands on the wire between two daemons: forwards every connection to the destination, can cut them all, hold what goes
over data connections, or call somebody when a message passes. It knows the framing of the control connection and nothing
else."""

import json
import os
import selectors
import socket
import struct
import threading

from lab import free_port, peer_address, peer_socket


class Relay:
    def __init__(self, path, target):
        """Listens at `path`, or over TCP when `target`, which is a DEST, is there too."""
        self.path, self.target = path, target
        self.lock = threading.Lock()
        self.pairs = set()
        self.refuse = False
        self.flow = threading.Event()  # cleared: nothing more goes over data connections, but they stay
        self.flow.set()
        # Called with (direction "S>D" or "D>S", message); returns False to cut before it, or a message to go before it.
        self.on_message = None
        if target.startswith("tcp:"):
            self.dest = f"tcp://127.0.0.1:{free_port()}"
        else:
            self.dest = "unix:" + path
        self.listener = peer_socket(self.dest)
        self.listener.bind(peer_address(self.dest))
        self.listener.listen(64)
        self.running = True
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while self.running:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = peer_socket(self.target)
            try:
                if self.refuse:
                    raise OSError("refused")
                far.connect(peer_address(self.target))
            except OSError:
                near.close()
                far.close()
                continue
            with self.lock:
                self.pairs.add((near, far))
            for a, b, direction in ((near, far, "S>D"), (far, near, "D>S")):
                threading.Thread(target=self.pump, args=(a, b, (near, far), direction), daemon=True).start()

    def pump(self, a, b, pair, direction):
        buffer, control = b"", None
        try:
            while True:
                data = a.recv(262144)
                if not data:
                    break
                if control is False and direction == "S>D":
                    self.flow.wait()
                if control is None:
                    # A length and an object; a data connection begins with its magic, and its answer is one byte.
                    control = data[4:5] == b"{" and struct.unpack("<I", data[:4])[0] <= 1 << 20
                if not control or not self.on_message:
                    b.sendall(data)
                    continue
                buffer += data
                while len(buffer) >= 4:
                    size = struct.unpack("<I", buffer[:4])[0]
                    if len(buffer) < 4 + size:
                        break
                    frame, buffer = buffer[:4 + size], buffer[4 + size:]
                    try:
                        message = json.loads(frame[4:])
                    except ValueError:
                        message = {}
                    said = self.on_message(direction, message)
                    if said is False:
                        raise OSError("cut")
                    if isinstance(said, dict):
                        text = json.dumps(said).encode()
                        b.sendall(struct.pack("<I", len(text)) + text)
                    b.sendall(frame)
        except OSError:
            pass
        self.drop(pair)

    def drop(self, pair):
        with self.lock:
            self.pairs.discard(pair)
        for s in pair:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()

    def cut(self):
        """All connections, and no new ones until heal()."""
        self.refuse = True
        self.flow.set()
        with self.lock:
            pairs = list(self.pairs)
        for pair in pairs:
            self.drop(pair)

    def heal(self):
        self.refuse = False

    def close(self):
        self.running = False
        self.cut()
        self.listener.close()
        try:
            os.unlink(self.path)
        except OSError:
            pass
