# SPDX-License-Identifier: LGPL-2.1-or-later
"""The D-Bus API from outside: that it is what docs/dbus/ says, who may do what, what comes of nonsense, and that whoever
follows the signals knows as much as whoever asks.

The hosts' buses have the rules of a system bus and the policy file that is installed, and nothing else.
"""

import glob
import json
import os
import re
import shutil
import signal
import socket
import time
import unittest
import xml.dom.minidom
import xml.etree.ElementTree

from bus import Bus, BusError, INTERACTIVE, Polkit
from lab import Lab, TOP, definition, new_uuid, wait_for
from system_host import SystemHost

NAME, ROOT = "org.migmgr1", "/org/migmgr1"
MANAGER = (NAME, ROOT, NAME + ".Manager")
ERRORS = NAME + ".Error."
NOBODY = 65534
READING = {"GetJob", "ListHistory", "ListJobs", "ListPolicies", "ShowPolicy", "ExplainPolicy", "ListPlugins"}  # what everybody may call
CALLED = {NAME + ".Delegate"}  # what others offer and migmgrd calls; tests/fake/delegate.py holds it against the document


def contract():
    """{interface: its node in docs/dbus}"""
    found = {}
    for path in glob.glob(os.path.join(TOP, "docs", "dbus", "*.xml")):
        for node in xml.dom.minidom.parse(path).getElementsByTagName("interface"):
            found[node.getAttribute("name")] = node
    return found


def offered():
    """Those of them that the daemon has."""
    return {name: node for name, node in contract().items() if name not in CALLED}


def members(interface):
    return [n for n in interface.childNodes if n.nodeType == n.ELEMENT_NODE]


def doc(node):
    """The comment in front of it."""
    before = node.previousSibling
    while before is not None and before.nodeType == before.TEXT_NODE:
        before = before.previousSibling
    return before.data if before is not None and before.nodeType == before.COMMENT_NODE else ""


def polkit_actions():
    """{method: the action that its documentation names}"""
    return {m.getAttribute("name"): action for i in offered().values() for m in members(i) if m.tagName == "method"
            for action in re.findall(r"polkit:\s+(org\.migmgr1\.[a-z-]+)\.", doc(m))}


def shape(text):
    """{interface: what it consists of}, in a form that two texts of the same interface share."""
    shapes = {}
    for interface in xml.etree.ElementTree.fromstring(text).iter("interface"):
        consists = []
        for m in interface:
            default = "in" if m.tag == "method" else "out"
            consists.append((m.tag, m.get("name"), m.get("type"), m.get("access"),
                             [(a.get("name"), a.get("type"), a.get("direction", default)) for a in m.findall("arg")],
                             sorted((a.get("name"), a.get("value")) for a in m.findall("annotation"))))
        shapes[interface.get("name")] = sorted(consists, key=str)
    return shapes


class Mirror:
    """What a client knows that has asked once and then follows the signals."""

    def __init__(self, address):
        self.bus = Bus(address)
        self.bus.match(f"type='signal',sender='{NAME}'")
        self.objects = self.ask()
        self.taken, self.seen = len(self.bus.signals), []

    def ask(self):
        return self.bus.call(NAME, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")[0]

    def follow(self):
        for m in self.bus.signals[self.taken:]:
            self.seen.append(m)
            if m.member == "InterfacesAdded":
                assert m.path == ROOT, m.path
                self.objects.setdefault(m.args[0], {}).update(m.args[1])
            elif m.member == "InterfacesRemoved":
                for interface in m.args[1]:
                    del self.objects[m.args[0]][interface]
                if not self.objects[m.args[0]]:
                    del self.objects[m.args[0]]
            elif m.member == "PropertiesChanged":
                interface, changed, invalidated = m.args
                assert not invalidated and interface in self.objects[m.path], (m.path, m.args)
                self.objects[m.path][interface].update(changed)
        self.taken = len(self.bus.signals)

    def differences(self):
        """[(path, interface, property, what it thinks, what is)]. Signals that were sent before the answer are before it."""
        there = self.ask()
        self.follow()
        return [(path, i, p, self.objects.get(path, {}).get(i, {}).get(p), there.get(path, {}).get(i, {}).get(p))
                for path in sorted(set(there) | set(self.objects))
                for i in set(there.get(path, {})) | set(self.objects.get(path, {}))
                for p in set(there.get(path, {}).get(i, {})) | set(self.objects.get(path, {}).get(i, {})) | {None}
                if self.objects.get(path, {}).get(i, {}).get(p) != there.get(path, {}).get(i, {}).get(p)
                or (i in there.get(path, {})) != (i in self.objects.get(path, {}))]

    def close(self):
        self.bus.close()


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.getuid() != 0:
            raise unittest.SkipTest("only root can be somebody else")
        cls.lab = Lab()
        cls.lab.__enter__()
        cls.addClassCleanup(cls.lab.__exit__, None, None, None)
        cls.hosts, cls.servers = [], {}
        for name in ("a", "b"):
            host = SystemHost(cls.lab, name)
            cls.lab.hosts.append(host)
            cls.hosts.append(host.start())
        cls.a, cls.b = cls.hosts
        cls.numbers = iter(range(1, 1000))

    def setUp(self):
        self.bus = Bus(self.a.bus_address)
        self.addCleanup(self.bus.close)

    def tearDown(self):
        for host in self.hosts:
            self.assertTrue(host.daemon.alive(), host.daemon.output()[-2000:])

    def other(self, uid=NOBODY, host=None):
        bus = Bus((host or self.a).bus_address, uid)
        self.addCleanup(bus.close)
        return bus

    def polkit(self, *allowed):
        polkit = Polkit(self.a.bus_address, allowed)
        self.addCleanup(polkit.close)
        return polkit

    def objects(self, bus=None):
        return (bus or self.bus).call(NAME, ROOT, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects")[0]

    def of(self, interface):
        return {p: o[NAME + "." + interface] for p, o in self.objects().items() if NAME + "." + interface in o}

    def job(self, path):
        return self.of("Job").get(path)

    def manager(self, method, signature, *args, bus=None, **kw):
        return (bus or self.bus).call(*MANAGER, method, signature, *args, **kw)

    def new_vm(self, here=(), there=()):
        """Defined at both ends, registered at neither. `here` and `there`: keys of the device server's devices."""
        n = next(self.numbers)
        name, uuid = f"vm{n}", new_uuid()
        ends = []
        for side, extra in (("a", here), ("b", there)):
            server = self.lab.server(f"{name}{side}", {"nic0": ",".join(["size=64K", *extra]), "9-x": "size=64K"})
            self.addCleanup(server.stop)
            self.servers[server.name] = server
            ends.append(definition(name, uuid, server, ["nic0", "9-x"]))
        return ends

    def registered(self, here=(), there=()):
        """A VM that can go from a to b; its name."""
        mine, theirs = self.new_vm(here, there)
        self.a.register(mine)
        self.b.register(theirs, incoming=True)
        self.addCleanup(self.forget, mine["uuid"])
        return mine["name"]

    def forget(self, uuid):
        for host in self.hosts:
            with Bus(host.bus_address) as bus:
                try:
                    bus.call(*MANAGER, "UnregisterVM", "s", uuid)
                except BusError as e:
                    self.assertEqual(e.name, ERRORS + "NoSuchVM")

    def silent_peer(self):
        """A destination that takes connections and never says a word: a job that goes there stays in its check."""
        path = os.path.join(self.lab.dir, f"silent{next(self.numbers)}")
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen(16)
        self.addCleanup(s.close)
        return "unix:" + path

    def finished(self, path):
        return wait_for(f"the end of {path}", lambda: (self.job(path)["State"] == "finished" and self.job(path)))

    def fails(self, name, bus, *call, **kw):
        """The call fails with this error of ours, and says so in one line."""
        with self.assertRaises(BusError) as caught:
            bus.call(*call, **kw)
        self.assertEqual(caught.exception.name, ERRORS + name, caught.exception.text)
        self.assertRegex(caught.exception.text, r"\A[ -~]{8,600}\Z")
        return caught.exception.text


class Contract(Case):
    def every_object(self):
        vm = self.registered()
        path = self.manager("Migrate", "ssa{sv}", vm, self.b.dest, {})[0]
        self.finished(path)
        return [ROOT, *self.objects()]

    def test_every_object_is_what_the_documents_say(self):
        expected = {}
        for path in glob.glob(os.path.join(TOP, "docs", "dbus", "*.xml")):
            with open(path) as f:
                found = shape(f.read())
            self.assertEqual([os.path.basename(path)[:-4]], list(found))
            expected.update(found)
        seen = set()
        for path in self.every_object():
            text = self.bus.call(NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect")[0]
            for interface, consists in shape(text).items():
                if interface.startswith("org.freedesktop.DBus."):
                    continue
                seen.add(interface)
                self.assertEqual(expected[interface], consists, f"{interface} at {path}")
        self.assertEqual(seen, set(expected) - CALLED)

    def test_every_object_is_found_by_introspection(self):
        """Somebody who walks down the tree finds the same objects as the ObjectManager has."""
        def walk(path):
            text = self.bus.call(NAME, path, "org.freedesktop.DBus.Introspectable", "Introspect")[0]
            found = {path} if any(i.startswith(NAME + ".") for i in shape(text)) else set()
            for node in xml.etree.ElementTree.fromstring(text).findall("node"):
                found |= walk(path.rstrip("/") + "/" + node.get("name"))
            return found
        everything = self.every_object()
        self.assertEqual(walk("/"), set(everything))

    def test_every_member_is_documented(self):
        for name, interface in contract().items():
            self.assertTrue(doc(interface).strip().startswith(name + ":"), name)
            for m in members(interface):
                text = doc(m).strip()
                self.assertTrue(text.startswith(m.getAttribute("name") + ":"), f"{name}.{m.getAttribute('name')}")
                self.assertEqual([a.getAttribute("name") for a in m.getElementsByTagName("arg")],
                                 re.findall(r"^\s*@([a-z]+):", text, re.M), m.getAttribute("name"))

    def test_properties_cannot_be_set(self):
        for path, interfaces in self.objects().items():
            for interface, properties in interfaces.items():
                for p, value in properties.items():
                    with self.assertRaises(BusError, msg=p) as caught:
                        self.bus.call(NAME, path, "org.freedesktop.DBus.Properties", "Set", "ssv", interface, p, ("s", "x"))
                    self.assertIn("ReadOnly", caught.exception.name)

    def test_paths_are_made_of_uuid_and_id(self):
        vm = self.registered()
        uuid = next(v["UUID"] for v in self.of("VM").values() if v["Name"] == vm)
        label = "_" + uuid.replace("-", "_")
        self.assertEqual(self.of("VM")[f"{ROOT}/vm/{label}"]["Name"], vm)
        ids = {p: d["Id"] for p, d in self.of("Device").items() if label in p}
        self.assertEqual(ids, {f"{ROOT}/device/{label}/nic0": "nic0", f"{ROOT}/device/{label}/_39_2dx": "9-x"})


class Nonsense(Case):
    """Wrong arguments: a clear error, and nothing has changed."""

    LONG = "x" * 100000
    FOREIGN = "x" + "é" * 300

    def setUp(self):
        super().setUp()
        self.mirror = Mirror(self.a.bus_address)
        self.addCleanup(self.mirror.close)

    def refused(self, error, method, signature, *args):
        before = self.objects()
        text = self.fails(error, self.bus, *MANAGER, method, signature, *args)
        self.assertEqual(self.objects(), before, f"{method} {str(args)[:200]}")
        self.mirror.follow()
        return text

    def test_arguments_of_other_types_are_refused_by_the_bus(self):
        for method, signature, args in (("Migrate", "s", ("x",)), ("Migrate", "ssa{ss}", ("x", "y", {})),
                                        ("UnregisterVM", "", ()), ("UnregisterVM", "t", (1,)),
                                        ("RegisterVM", "sa{sv}s", ("", {}, "")), ("GetJob", "o", ("/",))):
            with self.assertRaises(BusError) as caught:
                self.manager(method, signature, *args)
            self.assertEqual(caught.exception.name, "org.freedesktop.DBus.Error.InvalidArgs")

    def test_objects_that_are_not_there(self):
        for path in (ROOT + "/job/_00000000_0000_0000_0000_000000000000", ROOT + "/job", ROOT + "/job/x", ROOT + "/vm/x/y",
                     ROOT + "/nothing", "/"):
            with self.assertRaises(BusError) as caught:
                self.bus.call(NAME, path, NAME + ".Job", "Cancel")
            self.assertRegex(caught.exception.name, r"org\.freedesktop\.DBus\.Error\.Unknown(Object|Method|Interface)")

    def test_vms_that_are_not_there(self):
        for name in ("", "nobody", new_uuid(), self.LONG, self.FOREIGN, "\n\t\x01"):
            self.refused("NoSuchVM", "UnregisterVM", "s", name)
            self.refused("NoSuchVM", "Migrate", "ssa{sv}", name, self.b.dest, {})
            self.refused("NoSuchVM", "Check", "ssa{sv}", name, self.b.dest, {})

    def test_devices_that_are_not_there(self):
        vm = self.registered()
        self.assertIn("migctl devices", self.refused("NoSuchDevice", "ResetDevice", "ss", vm, "nic1"))
        for name in ("", self.LONG, self.FOREIGN):
            self.refused("NoSuchDevice", "ResetDevice", "ss", vm, name)
            self.refused("NoSuchVM", "ResetDevice", "ss", name, "nic0")

    def test_policies_that_are_not_there(self):
        vm = self.registered()
        for name in ("", "nobody", "some.json", self.LONG, self.FOREIGN):
            self.refused("NoSuchPolicy", "ShowPolicy", "s", name)
            self.refused("NoSuchVM", "ExplainPolicy", "ss", name, "nic0")
            if name:
                self.refused("NoSuchDevice", "ExplainPolicy", "ss", vm, name)

    def test_policies_that_are_none(self):
        """A wrong text is an answer, a wrong file in the folder an error, and what was in force stays."""
        for text in ("", "[]", self.LONG, self.FOREIGN, json.dumps({"rules": [{"set": {"retry": -1}}]}), "[" * 100, "x" * 300000):
            ok, error = self.manager("CheckPolicy", "ss", self.FOREIGN, text)
            self.assertFalse(ok)
            self.assertRegex(error, r"\A[ -~]{8,600}\Z")
        self.assertEqual(self.manager("CheckPolicy", "ss", "f", '{"rules": []}'), [True, ""])
        before = self.manager("ListPolicies", "")
        for name, rule in (("bad", {"set": {"retry": -1}}), ("é", {"set": {}})):
            self.a.write_policy(name, rule)
            path = os.path.join(self.a.policies, name + ".json")
            try:
                self.refused("BadPolicy", "ReloadPolicies", "")
                self.assertEqual(self.manager("ListPolicies", ""), before)
            finally:
                os.unlink(path)
        self.manager("ReloadPolicies", "")

    def test_jobs_that_are_not_there(self):
        for name in ("", "nobody", new_uuid(), self.LONG, self.FOREIGN):
            self.refused("NoSuchJob", "GetJob", "s", name)

    def test_options_that_are_none(self):
        vm = self.registered()
        for options in ({"timeout": ("t", 1)}, {self.LONG: ("s", "")}, {self.FOREIGN: ("s", "")}, {"": ("s", "")},
                        {"incoming": ("b", True)}, {"timeout-usec": ("s", "1")}, {"timeout-usec": ("i", 1)},
                        {"timeout-usec": ("v", ("t", 1))}, {"bandwidth": ("s", "1M")}, {"bandwidth": ("u", 1)},
                        {"bandwidth": ("t", 1 << 63)}, {"max-blackout-usec": ("t", 1 << 63)}, {"max-blackout-usec": ("d", 1.0)},
                        {"max-blackout": ("t", 1)}, {"request-id": ("t", 1)}, {"request-id": ("s", "x" * 128)},
                        {"request-id": ("s", "x"), "unknown": ("s", "")}, {"request-id": ("s", self.LONG)}):
            for method in ("Migrate", "Check"):
                self.refused("InvalidArgument", method, "ssa{sv}", vm, self.b.dest, options)
        mine, _ = self.new_vm()
        for options in ({"incoming": ("s", "yes")}, {"incoming": ("t", 1)}, {"timeout-usec": ("t", 1)}, {"x": ("b", True)}):
            self.refused("InvalidArgument", "RegisterVM", "sa{sv}", json.dumps(mine), options)

    def test_destinations_that_are_none(self):
        vm = self.registered()
        for destination in ("", "unix:", "unix:relative", "unix:/" + "x" * 107, "tcp:1.2.3.4:5", "/run/x", self.LONG,
                            "tcp://1.2.3.4:5", "tcp://localhost:5", "tcp://127.0.0.1:0", "tcp://127.0.0.1:" + self.LONG,
                            self.FOREIGN, "unix:/" + self.FOREIGN):
            for method in ("Migrate", "Check"):
                self.refused("BadDestination", method, "ssa{sv}", vm, destination, {})

    def test_definitions_that_are_none(self):
        good, _ = self.new_vm()

        def but(**changes):
            return json.dumps({k: v for k, v in {**good, **changes}.items() if v is not None})

        def device(**changes):
            d = {k: v for k, v in {**good["devices"][0], **changes}.items() if v is not None}
            return but(devices=[d, good["devices"][1]])
        for text in ("", "{", "[]", "null", "{} {}", "\"x\"", self.LONG, self.FOREIGN, "[" * 1000, but(name=None),
                     but(uuid=None), but(vmm=None), but(devices=None), but(name=""), but(name=1), but(name="a/b"),
                     but(name="é"), but(name="x" * 300), but(name=self.LONG), but(uuid="x"), but(uuid=good["uuid"].upper()),
                     but(uuid=good["uuid"] + "0"), but(vmm={}), but(vmm={"type": "vmware"}),
                     but(vmm={"type": self.FOREIGN}), but(vmm={"type": "none", "monitor": "/x"}), but(vmm={"type": "qmp"}),
                     but(vmm={"type": "qmp", "monitor": "/" + "x" * 107}), but(devices={}), but(devices=[1]),
                     but(devices=[{}]), but(other=1), but(**{self.FOREIGN: 1}), but(labels=[]), but(labels={"a": 1}),
                     device(id=""), device(id="é"), device(id="x" * 65), device(id="9-x"), device(id=None),
                     device(type="vfio"), device(type=self.FOREIGN), device(socket="x"), device(socket=None),
                     device(socket="/" + "x" * 107), device(socket=good["devices"][1]["socket"]), device(bus="x"),
                     but(labels={"a": "x" * (256 << 10)})):
            self.refused("BadDefinition", "RegisterVM", "sa{sv}", text, {})
            self.refused("BadDefinition", "RegisterVM", "sa{sv}", text, {"incoming": ("b", True)})

    def test_devices_and_monitors_that_are_not_there(self):
        good, _ = self.new_vm()
        for where in ("/nonexistent/x", "/" + "é" * 53):
            nowhere = {**good, "devices": [{**good["devices"][0], "socket": where}]}
            self.assertIn("nic0", self.refused("Device", "RegisterVM", "sa{sv}", json.dumps(nowhere), {}))
            silent = {**good, "vmm": {"type": "qmp", "monitor": where}}
            self.refused("Vmm", "RegisterVM", "sa{sv}", json.dumps(silent), {})

    def test_names_that_are_taken(self):
        vm = self.registered()
        uuid = next(v["UUID"] for v in self.of("VM").values() if v["Name"] == vm)
        mine, _ = self.new_vm()
        for taken in ({"name": vm}, {"uuid": uuid}):
            for incoming in (False, True):
                self.refused("Busy", "RegisterVM", "sa{sv}", json.dumps({**mine, **taken}), {"incoming": ("b", incoming)})

    def test_what_is_shown_of_foreign_text_is_shown(self):
        """A path that is no ASCII ends up in an error of a device; every object can be read all the same."""
        where = os.path.join(self.lab.dir, "é" * 20)
        mine, _ = self.new_vm()
        mine["devices"][0]["socket"] = where
        path = self.manager("RegisterVM", "sa{sv}", json.dumps(mine), {"incoming": ("b", True)})[0]
        self.addCleanup(self.forget, mine["uuid"])
        self.assertIn(path, self.of("VM"))
        vm = self.registered()
        self.refused("BadDestination", "Migrate", "ssa{sv}", vm, "unix:" + where, {})


class Callers(Case):
    """Who may do what."""

    def calls(self):
        """{method: a call of it that does something}; every method of the contract must be here."""
        vm, idle = self.registered(), self.registered()
        mine, _ = self.new_vm()
        self.path = self.manager("Migrate", "ssa{sv}", vm, self.silent_peer(), {})[0]
        self.a.write_policy("some", {"set": {}})
        self.manager("ReloadPolicies", "")
        return {"RegisterVM": (*MANAGER, "RegisterVM", "sa{sv}", json.dumps(mine), {}),
                "UnregisterVM": (*MANAGER, "UnregisterVM", "s", idle),
                "Check": (*MANAGER, "Check", "ssa{sv}", idle, self.b.dest, {}),
                "Migrate": (*MANAGER, "Migrate", "ssa{sv}", idle, self.b.dest, {}),
                "ResetDevice": (*MANAGER, "ResetDevice", "ss", idle, "nic0"),
                "ListHistory": (*MANAGER, "ListHistory", "a{sv}", {}),
                "ListJobs": (*MANAGER, "ListJobs", ""),
                "ListPlugins": (*MANAGER, "ListPlugins", ""),
                "ListPolicies": (*MANAGER, "ListPolicies", ""),
                "ShowPolicy": (*MANAGER, "ShowPolicy", "s", "some"),
                "CheckPolicy": (*MANAGER, "CheckPolicy", "ss", "f", "{}"),
                "ExplainPolicy": (*MANAGER, "ExplainPolicy", "ss", idle, "nic0"),
                "ReloadPolicies": (*MANAGER, "ReloadPolicies", ""),
                "GetJob": (*MANAGER, "GetJob", "s", self.path.rsplit("/_", 1)[1].replace("_", "-")),
                "Resolve": (NAME, self.path, NAME + ".Job", "Resolve", "s", "run-here"),
                "Cancel": (NAME, self.path, NAME + ".Job", "Cancel")}

    def methods(self):
        return {m.getAttribute("name") for i in offered().values() for m in members(i) if m.tagName == "method"}

    def constant(self):
        """What nobody may have changed."""
        return {p: {i: {k: v for k, v in props.items() if k not in ("Progress",)} for i, props in o.items()}
                for p, o in self.objects().items()}

    def test_another_user_changes_nothing(self):
        calls = self.calls()
        self.assertEqual(set(calls), self.methods())
        nobody = self.other()
        before = self.constant()
        for method, call in calls.items():
            if method in READING:
                nobody.call(*call)
                continue
            with self.subTest(method):
                text = self.fails("Denied", nobody, *call)
                self.assertIn(polkit_actions()[method], text)
                self.assertEqual(self.constant(), before)
        self.bus.call(*calls["Cancel"])
        self.assertEqual(self.finished(self.path)["Result"], "cancelled")

    def test_another_user_may_look(self):
        nobody = self.other()
        self.registered()
        self.assertEqual(self.objects(nobody), self.objects())
        self.assertEqual(nobody.call(NAME, ROOT, "org.freedesktop.DBus.Properties", "GetAll", "s", NAME + ".Manager"),
                         self.bus.call(NAME, ROOT, "org.freedesktop.DBus.Properties", "GetAll", "s", NAME + ".Manager"))

    def test_another_user_cannot_take_the_name(self):
        with self.assertRaises(BusError) as caught:
            self.other().bus("RequestName", "su", NAME, 0)
        self.assertEqual(caught.exception.name, "org.freedesktop.DBus.Error.AccessDenied")

    def test_polkit_is_asked_for_the_action_that_is_documented(self):
        calls, polkit, nobody = self.calls(), self.polkit(), self.other()
        for method, call in calls.items():
            polkit.asked.clear()
            for flags in (0, INTERACTIVE):
                if method in READING:
                    nobody.call(*call, flags=flags)
                else:
                    self.fails("Denied", nobody, *call, flags=flags)
            expected = [] if method in READING else [
                (polkit_actions()[method], "system-bus-name", nobody.name, interactive) for interactive in (0, 1)]
            self.assertEqual(polkit.asked, expected, method)

    def test_root_needs_no_polkit(self):
        polkit = self.polkit()
        self.registered()
        self.assertEqual(polkit.asked, [])

    def test_who_is_allowed_one_thing_may_do_that_only(self):
        calls = self.calls()
        for action in set(polkit_actions().values()):
            polkit, nobody = self.polkit(action), self.other()
            for method, call in calls.items():
                if polkit_actions().get(method, action) == action:
                    continue
                self.fails("Denied", nobody, *call)
            polkit.close()
        polkit, nobody = self.polkit("org.migmgr1.cancel", "org.migmgr1.manage", "org.migmgr1.migrate"), self.other()
        for method in ("GetJob", "Cancel", "Check", "RegisterVM"):
            nobody.call(*calls[method])
        self.fails("Denied", nobody, *calls["ResetDevice"])
        self.assertEqual(self.finished(self.path)["Result"], "cancelled")
        path, = nobody.call(*calls["Migrate"])
        self.assertEqual(self.finished(path)["Result"], "done")
        nobody.call(*calls["UnregisterVM"])
        nobody.call(*MANAGER, "UnregisterVM", "s", json.loads(calls["RegisterVM"][4 + 1])["name"])

    def test_a_polkit_that_dies_has_said_no(self):
        polkit, nobody, (mine, _) = self.polkit(), self.other(), self.new_vm()
        polkit.bus.handler = lambda m: polkit.bus.s.shutdown(socket.SHUT_RDWR)
        self.fails("Denied", nobody, *MANAGER, "RegisterVM", "sa{sv}", json.dumps(mine), {})

    def test_a_polkit_that_answers_nonsense_has_said_no(self):
        from bus import DESTINATION, REPLY_SERIAL, RETURN
        polkit, (mine, _) = self.polkit(), self.new_vm()
        for signature, args in (("", ()), ("s", ("yes",)), ("b", (1,)), ("(bb)", [(1, 1)]), ("(ssa{ss})", [("1", "1", {})])):
            polkit.bus.handler = lambda m: polkit.bus.send(RETURN, {REPLY_SERIAL: m.serial, DESTINATION: m.sender},
                                                           signature, args)
            self.fails("Denied", self.other(), *MANAGER, "RegisterVM", "sa{sv}", json.dumps(mine), {})

    def test_a_caller_that_leaves_is_no_harm(self):
        polkit, (mine, _) = self.polkit(), self.new_vm()
        came = []
        polkit.bus.handler = came.append
        nobody = self.other()
        nobody.start(*MANAGER, "RegisterVM", "sa{sv}", json.dumps(mine), {})
        wait_for("polkit to be asked", lambda: came)
        nobody.close()
        polkit.on_call(came[0])
        self.assertEqual(self.of("VM").get(f"{ROOT}/vm/_{mine['uuid'].replace('-', '_')}"), None)


class Requests(Case):
    """An id makes Migrate the same call, however often it is made."""

    def test_the_same_id_is_the_same_job(self):
        vm, options = self.registered(), {"request-id": ("s", "ticket 7")}
        first = self.manager("Migrate", "ssa{sv}", vm, self.b.dest, options)
        for _ in range(3):
            self.assertEqual(self.manager("Migrate", "ssa{sv}", vm, self.b.dest, options), first)
        self.assertEqual(self.finished(first[0])["Result"], "done")
        self.assertEqual(self.manager("Migrate", "ssa{sv}", vm, self.b.dest, options), first)
        self.assertEqual([p for p, j in self.of("Job").items() if j["VM"] == self.job(first[0])["VM"]], first)

    def test_another_id_is_another_job(self):
        vm = self.registered()
        first = self.manager("Migrate", "ssa{sv}", vm, "unix:/nonexistent/x", {"request-id": ("s", "ticket 8")})[0]
        self.finished(first)
        second = self.manager("Migrate", "ssa{sv}", vm, "unix:/nonexistent/x", {"request-id": ("s", "ticket 9")})[0]
        self.finished(second)
        self.assertNotEqual(first, second)

    def test_no_id_is_never_the_same(self):
        vm, paths = self.registered(), set()
        for options in ({}, {}, {"request-id": ("s", "")}, {"request-id": ("s", "")}):
            paths.add(self.manager("Migrate", "ssa{sv}", vm, "unix:/nonexistent/x", options)[0])
            for path in paths:
                self.finished(path)
        self.assertEqual(len(paths), 4)

    def test_an_id_is_not_good_for_something_else(self):
        """Whoever gets the job of another VM would take its end for that of his own."""
        vm, other, options = self.registered(), self.registered(), {"request-id": ("s", "ticket 10")}
        path = self.manager("Migrate", "ssa{sv}", vm, "unix:/nonexistent/x", options)[0]
        self.finished(path)
        for call in ((other, "unix:/nonexistent/x"), (vm, self.b.dest)):
            self.assertIn("ticket 10", self.fails("InvalidArgument", self.bus, *MANAGER, "Migrate", "ssa{sv}", *call, options))
        self.assertEqual(self.manager("Migrate", "ssa{sv}", vm, "unix:/nonexistent/x", options), [path])

    def test_a_vm_has_one_job(self):
        vm = self.registered()
        path = self.manager("Migrate", "ssa{sv}", vm, self.silent_peer(), {})[0]
        for method in ("Migrate", "Check"):
            self.fails("Busy", self.bus, *MANAGER, method, "ssa{sv}", vm, self.b.dest, {})
        self.fails("Busy", self.bus, *MANAGER, "UnregisterVM", "s", vm)
        self.bus.call(NAME, path, NAME + ".Job", "Cancel")
        self.finished(path)
        self.fails("TooLate", self.bus, NAME, path, NAME + ".Job", "Cancel")


class Reset(Case):
    """ResetDevice: the device has lost what it held, and runs; or the call says where it is."""

    def setUp(self):
        super().setUp()
        self.mine, theirs = self.new_vm()
        self.name = self.mine["name"]
        self.a.register(self.mine)
        self.b.register(theirs, incoming=True)
        self.addCleanup(self.forget, self.mine["uuid"])
        self.server = self.servers[self.name + "a"]

    def reset(self, **kw):
        return self.manager("ResetDevice", "ss", self.name, "nic0", **kw)

    def device(self):
        return next(d for p, d in self.of("Device").items() if p.endswith("/nic0") and
                    self.mine["uuid"].replace("-", "_") in p)

    def test_one_that_runs(self):
        before = self.server.digest("nic0")
        self.assertEqual(self.reset(), ["running", "DEVICE_RESET"])
        self.assertNotEqual(self.server.digest("nic0"), before)
        self.assertEqual(self.device()["State"], "running")
        # ... and the other one is as it was; the VM can go, as before.
        path = self.manager("Migrate", "ssa{sv}", self.name, self.b.dest, {})[0]
        self.assertEqual(self.finished(path)["Result"], "done")

    def test_one_whose_server_was_started_anew(self):
        self.server.kill()
        wait_for("the device to be gone", lambda: not self.device()["Open"])
        text = self.fails("Device", self.bus, *MANAGER, "ResetDevice", "ss", self.name, "nic0")
        self.assertIn("nic0", text)
        self.assertIn("unknown", text)
        self.server.start()
        self.assertEqual(self.reset(), ["running", "DEVICE_RESET"])
        self.assertTrue(self.device()["Open"])

    def test_one_that_refuses(self):
        self.server.fault("nic0", "reset:fail:EIO")
        text = self.fails("Device", self.bus, *MANAGER, "ResetDevice", "ss", self.name, "nic0")
        self.assertRegex(text, "nic0.*reset refused.*its state is running")
        self.server.clear()
        self.assertEqual(self.reset(), ["running", "DEVICE_RESET"])

    def test_one_that_dies_under_it(self):
        self.server.fault("nic0", "reset:exit")
        text = self.fails("Device", self.bus, *MANAGER, "ResetDevice", "ss", self.name, "nic0")
        self.assertIn("its state is unknown", text)

    def test_one_that_hangs(self):
        """The VM is in hand until then, and free after it."""
        self.server.fault("nic0", "reset:hang")
        serial = self.bus.start(*MANAGER, "ResetDevice", "ss", self.name, "nic0")
        other = self.other(0)
        for call in (("ResetDevice", "ss", self.name, "9-x"), ("Migrate", "ssa{sv}", self.name, self.b.dest, {}),
                     ("UnregisterVM", "s", self.name)):
            self.assertIn("is being reset", self.fails("Busy", other, *MANAGER, *call))
        with self.assertRaises(BusError) as caught:
            self.bus.finish(serial)
        self.assertEqual(caught.exception.name, ERRORS + "Device")
        self.assertIn("no answer within", caught.exception.text)
        self.bus.call(*MANAGER, "UnregisterVM", "s", self.name)

    def test_not_while_a_job_runs_nor_where_the_vm_is_not(self):
        path = self.manager("Migrate", "ssa{sv}", self.name, self.silent_peer(), {})[0]
        self.assertIn("has a job", self.fails("Busy", self.bus, *MANAGER, "ResetDevice", "ss", self.name, "nic0"))
        self.bus.call(NAME, path, NAME + ".Job", "Cancel")
        self.finished(path)
        with Bus(self.b.bus_address) as there:
            self.assertIn("away", self.fails("InvalidArgument", there, *MANAGER, "ResetDevice", "ss", self.name, "nic0"))
        self.assertEqual(self.reset(), ["running", "DEVICE_RESET"])


class Jobs(Case):
    """ListJobs: what GetJob knows, newest first."""

    def listed(self):
        return json.loads(self.manager("ListJobs", "")[0])

    def test_those_that_run_have_ended_and_were_before(self):
        vm = self.registered()
        ids = []
        for destination in ("unix:/nonexistent/x", "unix:/nonexistent/y", self.silent_peer()):
            path = self.manager("Migrate", "ssa{sv}", vm, destination, {})[0]
            ids.insert(0, path.rsplit("/_", 1)[1].replace("_", "-"))
            if "nonexistent" in destination:
                self.finished(path)
        jobs = self.listed()
        self.assertEqual([j["job"] for j in jobs[:3]], ids)
        for job in jobs:
            whole = json.loads(self.manager("GetJob", "s", job["job"])[0])
            same = set(job) - {"blackout_usec"}
            self.assertEqual({k: job[k] for k in same}, {k: whole[k] for k in same})
        self.assertEqual([j["state"] for j in jobs[:3]], ["running", "finished", "finished"])
        self.bus.call(NAME, path, NAME + ".Job", "Cancel")
        self.finished(path)
        before = self.listed()
        self.a.daemon.stop()
        self.a.start_daemon()
        self.assertEqual(self.listed(), before)

    def test_those_whose_object_is_gone(self):
        """More than have an object: GetJob and ListJobs know them all the same."""
        vm, ids = self.registered(), []
        for _ in range(70):
            path = self.manager("Migrate", "ssa{sv}", vm, "unix:/nonexistent/x", {})[0]
            ids.insert(0, path.rsplit("/_", 1)[1].replace("_", "-"))
            self.finished(path)
        self.assertLess(len(self.of("Job")), 70)
        self.assertEqual([j["job"] for j in self.listed()[:70]], ids)
        for id in (ids[0], ids[-1]):
            self.assertEqual(json.loads(self.manager("GetJob", "s", id)[0])["job"], id)


# What SIGTERM ends, too.
SLOW_DISK = ["strace", "-I1", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e",
             "inject=fdatasync,fsync:delay_enter=150000"]


@unittest.skipUnless(shutil.which("strace"), "strace makes disks slow")
class StraightBack(unittest.TestCase):
    """A VM is sent on at the very moment in which one of the two hosts says that it has arrived, while the records of that
    are still being written at a host whose disk is slow. Nobody need know of them."""

    def moves(self, slow, told_by):
        """To and fro, each time as soon as `told_by` ("source", "destination") has said that it has ended, checked before and
        not."""
        with Lab() as lab:
            hosts = [lab.host(name, wrap=SLOW_DISK if name in slow else ()) for name in "ab"]
            uuid, path = new_uuid(), None
            for host in hosts:
                server = lab.server("server-" + host.name, {"d": "size=64K"})
                host.register(definition("vm", uuid, server, ["d"]), incoming=host is hosts[1])
            buses = [Bus(host.bus_address) for host in hosts]
            for bus in buses:
                self.addCleanup(bus.close)
                bus.match(f"type='signal',sender='{NAME}'")
            for i in range(4):
                here, there = i % 2, (i + 1) % 2
                for call in (("Migrate",), ("Check", "Migrate"))[i // 2 % 2]:
                    answer = buses[here].call(*MANAGER, call, "ssa{sv}", "vm", hosts[there].dest, {})
                    if call == "Check":
                        self.assertTrue(answer[0], answer)
                path = answer[0]
                who = buses[there if told_by == "destination" else here]
                ends = lambda: [m.args[1]["Result"] for m in who.signals if m.member == "PropertiesChanged" and
                                m.path == path and m.args[1].get("State") == "finished"]
                who.wait(f"the end of move {i}", ends)
                self.assertEqual(ends()[0], "done", buses[here].call(*MANAGER, "GetJob", "s",
                                                                     path.rsplit("/_", 1)[1].replace("_", "-")))

    def test_the_source_says_so_and_the_destination_still_writes(self):
        self.moves("b", "source")

    def test_the_destination_says_so_and_the_source_still_writes(self):
        self.moves("a", "destination")


class JustStarted(unittest.TestCase):
    """A daemon that has been started again is still opening the devices when somebody wants to move the VM."""

    def setUp(self):
        lab = self.enterContext(Lab())
        self.a, self.b = hosts = [lab.host(name) for name in "ab"]
        uuid = new_uuid()
        self.servers = [lab.server("server-" + host.name, {"d": "size=64K"}) for host in hosts]
        for host, server in zip(hosts, self.servers):
            host.register(definition("vm", uuid, server, ["d"]), incoming=host is self.b)

    def move_begins(self):
        client = self.a.migctl_start("migrate", "vm", self.b.dest)
        self.addCleanup(client.kill)
        wait_for("the job", self.a.jobs)
        return client

    def ends_well(self, client):
        out, err = client.communicate(timeout=30)
        self.assertEqual(client.returncode, 0, out + err)

    def test_its_server_is_slow(self):
        """What it says to the daemon that opens the device is an answer to the job."""
        self.a.daemon.kill()
        for pid in self.a.agents():
            os.kill(pid, signal.SIGKILL)
        wait_for("the agent's end", lambda: not self.a.agents())
        os.kill(self.servers[0].process.pid, signal.SIGSTOP)
        self.a.start_daemon()
        wait_for("the agent", self.a.agents)
        client = self.move_begins()
        os.kill(self.servers[0].process.pid, signal.SIGCONT)
        self.ends_well(client)

    def test_its_agent_is_slow(self):
        """The time in which it has to greet begins with the job, not with the daemon."""
        agent, = self.a.agents()
        self.a.daemon.kill()
        os.kill(agent, signal.SIGSTOP)
        self.a.start_daemon()
        start = time.monotonic()
        time.sleep(3)  # of the five seconds that it would have had
        client = self.move_begins()
        time.sleep(max(0, start + 6 - time.monotonic()))
        self.assertIsNone(client.poll())
        os.kill(agent, signal.SIGCONT)
        self.ends_well(client)


class Signals(Case):
    """Whoever follows the signals knows what whoever asks is told."""

    def setUp(self):
        super().setUp()
        self.mirrors = [Mirror(h.bus_address) for h in self.hosts]
        for mirror in self.mirrors:
            self.addCleanup(mirror.close)

    def agree(self):
        for mirror in self.mirrors:
            differences = [1]

            def settled():
                differences[:] = mirror.differences()
                return not differences
            try:
                wait_for("signals", settled, 5)
            except AssertionError:
                self.fail(f"(path, interface, property, as told, as it is): {differences}")

    def test_register_and_unregister(self):
        vm = self.registered()
        self.agree()
        self.manager("UnregisterVM", "s", vm)
        self.agree()
        for mirror, expected in zip(self.mirrors, (3, 3)):
            added = [m.args[0] for m in mirror.seen if m.member == "InterfacesAdded"]
            self.assertEqual(len(set(added)), expected)
        removed = {m.args[0] for m in self.mirrors[0].seen if m.member == "InterfacesRemoved"}
        self.assertEqual(removed, {m.args[0] for m in self.mirrors[0].seen if m.member == "InterfacesAdded"})

    def test_a_migration(self):
        vm = self.registered(here=["delay=*>*:30"], there=["delay=*>*:30"])
        path = self.manager("Migrate", "ssa{sv}", vm, self.b.dest, {})[0]
        for mirror in self.mirrors:
            mirror.bus.wait("the job to be told of", lambda: any(
                m.member == "InterfacesAdded" and m.args[0] == path for m in mirror.bus.signals))
        self.agree()
        self.assertEqual(self.finished(path)["Result"], "done")
        self.agree()
        a, b = self.mirrors
        vm_path = self.job(path)["VM"]
        presences = [[m.args[1]["Presence"] for m in mirror.seen if m.member == "PropertiesChanged" and m.path == vm_path and
                      "Presence" in m.args[1]][-1] for mirror in self.mirrors]
        self.assertEqual(presences, ["away", "here"])
        for mirror in self.mirrors:
            of_job = [m for m in mirror.seen if m.path == path]
            phases = [m.args[0] for m in of_job if m.member == "PhaseReached"]
            self.assertEqual(phases, sorted(phases, key=PHASES.index))
            self.assertIn("handover", phases)
            self.assertTrue([m for m in of_job if m.member == "DeviceChanged" and m.args[0] == "nic0"])
            changes = [m.args[1] for m in of_job if m.member == "PropertiesChanged"]
            self.assertEqual(changes[-1]["Result"], "done")
            self.assertGreater(changes[-1]["BlackoutUsec"] if mirror is a else 1, 0)

    def test_a_job_is_seen_at_its_vm(self):
        vm = self.registered()
        path = self.manager("Migrate", "ssa{sv}", vm, self.silent_peer(), {})[0]
        self.agree()
        vm_path = self.job(path)["VM"]
        self.assertEqual(self.mirrors[0].objects[vm_path][NAME + ".VM"]["Job"], path)
        self.bus.call(NAME, path, NAME + ".Job", "Cancel")
        self.finished(path)
        self.agree()
        self.assertEqual(self.mirrors[0].objects[vm_path][NAME + ".VM"]["Job"], "/")

    def test_jobs_outlive_their_vm(self):
        vm = self.registered()
        path = self.manager("Migrate", "ssa{sv}", vm, self.b.dest, {})[0]
        before = self.finished(path)
        self.agree()
        wait_for("both ends to have let go", lambda: not self.of("VM")[before["VM"]]["Job"].strip("/"))
        self.manager("UnregisterVM", "s", vm)
        self.agree()
        self.assertEqual(self.job(path), before)

    def test_a_device_that_dies_is_told_of(self):
        mine, _ = self.new_vm()
        self.a.register(mine)
        self.addCleanup(self.forget, mine["uuid"])
        label = "_" + mine["uuid"].replace("-", "_")
        self.assertTrue(self.of("Device")[f"{ROOT}/device/{label}/nic0"]["Open"])
        server = next(p for p in self.lab.processes if p.name == mine["name"] + "a")
        server.kill()
        self.mirrors[0].bus.wait("the device to be told of", lambda: any(
            m.path == f"{ROOT}/device/{label}/nic0" for m in self.mirrors[0].bus.signals))
        self.agree()

    def test_a_cancelled_and_a_refused_one(self):
        vm = self.registered()
        for destination, result in ((self.silent_peer(), "cancelled"), (self.a.dest, "refused"),
                                    ("unix:/nonexistent/x", "failed")):
            path = self.manager("Migrate", "ssa{sv}", vm, destination, {})[0]
            self.agree()
            if result == "cancelled":
                self.bus.call(NAME, path, NAME + ".Job", "Cancel")
            self.assertEqual(self.finished(path)["Result"], result)
            self.agree()

    def test_no_more_objects_of_jobs_than_are_kept(self):
        vm = self.registered()
        for _ in range(70):
            path = self.manager("Migrate", "ssa{sv}", vm, "unix:/nonexistent/x", {})[0]
            self.mirrors[0].bus.wait("its end", lambda: any(
                m.path == path and m.member == "PropertiesChanged" and m.args[1].get("State") == "finished"
                for m in self.mirrors[0].bus.signals[-20:]))
        self.agree()
        self.assertLessEqual(len(self.of("Job")), 65)

    def test_an_end_is_told_whole(self):
        """Whoever sees that a job has finished knows with the same signal how, when and why."""
        vm = self.registered()
        path = self.manager("Migrate", "ssa{sv}", vm, "unix:/nonexistent/x", {})[0]
        self.finished(path)
        self.agree()
        ends = [m.args[1] for m in self.mirrors[0].seen if m.path == path and m.member == "PropertiesChanged" and
                m.args[1].get("State") == "finished"]
        for end in ends:
            self.assertEqual((end["Result"], end["Error"][0]), ("failed", ERRORS + "Peer"))
            self.assertGreater(end["EndedUsec"], 0)
        self.assertTrue(ends)


PHASES = ["check", "prepare", "precopy", "viommu-grace", "halt", "p2p-grace", "drain", "intake", "handover",
          "arrival-grace", "run-devices", "run", "release"]


if __name__ == "__main__":
    unittest.main()
