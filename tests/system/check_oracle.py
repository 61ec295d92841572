# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether check is right: pairs of hosts, made at random, judged by what docs/check.md says and by check itself
(build/check-pairs, which reads them as the daemons do). What is found has to be the same, each finding with its device,
property, weight and values: no wrong refusal, no wrong permission.

    check_oracle.py [PAIRS [SEED]]      # 10000, 1; the last line is a JSON object with the counts

Each rule of this file restates the page, not the code. Every property that check knows has to come up, as a refusal or notice
as the page has it, and of all pairs some must be free of refusals.
"""

import collections
import fnmatch
import json
import os
import random
import re
import subprocess
import sys

from lab import TOP, program

STOP_COPY, P2P, PRE_COPY, LOGGING, DMA, SUPERVISED, KERNEL = 1, 2, 4, 1 << 8, 1 << 9, 1 << 10, 1 << 11
EPERM, ESRCH, EACCES, ENOTCONN, EOWNERDEAD = 1, 3, 13, 107, 130
STATES = ("error", "stop", "running", "stop-copy", "resuming", "running-p2p", "pre-copy", "pre-copy-p2p", "unknown")
REFUSAL, NOTICE = "refusal", "notice"
SIDES = ("source", "destination")

Finding = collections.namedtuple("Finding", "weight device property source destination")


# ---- what docs/check.md says --------------------------------------------------------------------------------------------

def judge(pair):
    """What the source reports: its own, and of the destination's what it has not found itself."""
    here, there = (Judge(pair, host).found for host in SIDES)
    return [f for f, _ in here + [f for f in there if f not in here]]


class Judge:
    """What one host finds, by its policies."""

    def __init__(self, pair, host):
        self.pair, self.found = pair, []
        self.rules = [rule for policy in pair["policies"][host] for rule in policy["rules"]]
        source = pair["source"]
        self.vm, self.views = view(self.rules, source), {d["id"]: view(self.rules, source, d) for d in source["devices"]}
        self.side(source, "source")
        if host == "destination":
            self.side(pair["destination"], "destination")
        self.policies(source)
        self.compare(source, pair["destination"])

    def say(self, device, prop, source="", destination="", weight=REFUSAL, why=""):
        self.found.append((Finding(weight, device, prop, source, destination), why))

    def here(self, side, device, prop, value, weight=REFUSAL):
        self.say(device, prop, **{side: value}, weight=weight)

    def side(self, m, side):
        if m["presence"] != ("here" if side == "source" else "away"):
            self.here(side, "", "presence", m["presence"])
        getattr(self, m["vmm"]["type"])(m, m["vmm"], side)
        driven = [d for d in m["devices"] if d["flags"] & SUPERVISED]
        for d in m["devices"]:
            first = self.device(d, side)
            if first:
                self.here(side, d["id"], *first)
            if side == "source" and d["status"] == 0 and not d["flags"] & SUPERVISED and d["flags"] & DMA:
                self.memory(d, m["vmm"])
            if (side == "source" and len(driven) > 1 and d in driven and d["status"] == 0 and d["flags"] & STOP_COPY
                    and not d["flags"] & P2P):
                self.here(side, d["id"], "P2P states", "not supported")
        if driven:
            self.notices(m, side)
        if 0 <= m["free-bytes"] < 4 << 20:
            self.here(side, "", "room for records", f"{m['free-bytes'] // 1024} KiB free")

    def none(self, m, vmm, side):
        pass

    def qmp(self, m, vmm, side):
        asked = vmm["status"] == 0
        if side == "destination":
            if asked:
                self.here(side, "", "monitor", "a QEMU answers there already")
            elif not m["can-start"]:
                self.here(side, "", "incoming.argv", "missing")
            return
        if not asked:
            self.here(side, "", "monitor", vmm["text"])
            return
        if vmm["run-state"] != "running":
            self.here(side, "", "run state", vmm["run-state"])
        for prop, names in (("migration blocker", vmm["blocked"]), ("writable disk", vmm["writable"] if vmm["major"] < 10 else [])):
            for name in names:
                self.here(side, "", prop, name)
        for name in vmm["vfio-user"]:
            moved = self.vm["opaque"] == "allow" and "vfio-pci" in name
            self.here(side, "", "device in QEMU", name, NOTICE if moved else REFUSAL)

    def delegate(self, m, vmm, side):
        if vmm["status"] < 0:
            self.here(side, "", "delegate", vmm["text"])
        elif vmm["run-state"] != ("running" if side == "source" else "none"):
            self.here(side, "", "run state", vmm["run-state"])

    def device(self, d, side):
        """The first that fits: (property, value)."""
        driven, kernel = d["flags"] & SUPERVISED, d["flags"] & KERNEL
        if side == "destination" and driven:
            return None
        if d["status"] == -ESRCH:
            return "agent", d["text"]
        if d["status"] == -EOWNERDEAD:
            return "quarantine", d["text"]
        if d["status"] in (-EPERM, -EACCES) or d["status"] < 0 and (driven or kernel):
            return "device file", d["text"]
        if d["status"] < 0:
            return "connection", d["text"]
        if not d["flags"] & STOP_COPY:
            return "migration", "not supported"
        if side == "source" and d["state"] != "running":
            return "state", d["state"]
        return None

    def memory(self, d, vmm):
        if vmm["type"] == "none":
            self.say(d["id"], "memory", "mapped by a VMM that is not defined")
        elif not d["flags"] & LOGGING:
            self.say(d["id"], "DMA logging", "not supported")
        elif d["flags"] & KERNEL and not vmm["takes-dirty-pages"]:
            self.say(d["id"], "dirty pages", "not taken by the VMM")

    def notices(self, m, side):
        vmm = m["vmm"]
        if vmm.get("version") and vmm["major"] not in (10, 11):
            self.here(side, "", "QEMU", vmm["version"], NOTICE)
        for name in vmm.get("silent", []):
            self.here(side, "", "migration-events", name, NOTICE)
        if side == "source" and vmm["type"] == "qmp" and vmm["status"] == 0:
            if not good_kernel(m["kernel"]):
                self.here(side, "", "kernel", m["kernel"] or "not known", NOTICE)
            elif not vmm["can-hold"]:
                self.here(side, "", "migration thread", "can't be held", NOTICE)

    def policies(self, m):
        driven = [d for d in m["devices"] if d["flags"] & SUPERVISED]
        for d in m["devices"]:
            v = self.views[d["id"]]
            if d["status"] or not d["flags"] & STOP_COPY:
                continue
            if not d["flags"] & P2P and not (d in driven and len(driven) > 1):
                self.p2p(m, d, v["p2p"])
            if v["precopy"] == "require" and not d["flags"] & PRE_COPY:
                self.say(d["id"], "pre-copy", "not supported")
            if v["precopy"] == "off" and d in driven and d["flags"] & PRE_COPY:
                self.say(d["id"], "pre-copy", "QEMU's affair", weight=NOTICE)
            most = v["max-state-mib"]
            if most and d["state-bytes"] > most << 20:
                self.say(d["id"], "state size", f"{d['state-bytes']} bytes, more than {most} MiB")
        quiet = not driven and all(d["flags"] & P2P and self.views[d["id"]]["ndma"] == "full" for d in m["devices"])
        own = {"none": [], "qmp": driven, "delegate": m["devices"]}[m["vmm"]["type"]]
        word = self.vm["viommu-grace"]
        if word == "require" and m["devices"] and not quiet:
            self.say("", "viommu-grace", "not possible")
        elif own and m["vmm"]["viommu"] and (driven or word == "off" or not quiet):
            self.say("", "vIOMMU", "present", why="QEMU" if driven else "off" if word == "off" else "ndma")

    def p2p(self, m, d, word):
        own = {"none": [], "qmp": [x for x in m["devices"] if x["flags"] & SUPERVISED], "delegate": m["devices"]}[m["vmm"]["type"]]

        def reaches(a, b):
            return a is not b and a in own and b in own and a["flags"] & (DMA | SUPERVISED) and b["isolation"] != "full"
        if word == "single":
            n = len(own) + len(m["vmm"].get("vfio-user", []))
            if d in own and n > 1:
                self.say(d["id"], "P2P domain", f"one of {n} devices")
            return
        if not any(reaches(d, x) or reaches(x, d) for x in m["devices"]):
            return
        both = [x["id"] for x in m["devices"] if not x["flags"] & P2P and reaches(d, x) and reaches(x, d)]
        if word == "accept-risk":
            self.say(d["id"], "P2P risk accepted", "not supported", weight=NOTICE)
        elif both:
            self.say(d["id"], "P2P order", f"reaches {both[0]}, which reaches it")
        elif word == "require":
            self.say(d["id"], "P2P states", "not supported")
        elif d["isolation"] != "full":
            self.say(d["id"], "P2P isolation", "others reach it" if d["isolation"] == "none" else "not confirmed by the VMM")

    def facts(self, a, b):
        for fact, (how, allowed) in self.views[a["id"]]["compat"].items():
            values = [d["facts"].get(fact) for d in (a, b)]
            if how == "ignore":
                continue
            if None in values:
                why = "unknown"
            elif how == "equal" and values[0] != values[1] or how == "in" and not all(v in allowed for v in values):
                why = how
            elif how == "at-least" and older(values[1], values[0]):
                why = how
            else:
                continue
            self.say(a["id"], "fact", *(fact + (" not known" if v is None else f" = {v}") for v in values), why=why)

    def compare(self, source, destination):
        if source["vmm"]["type"] != destination["vmm"]["type"]:
            self.say("", "vmm", source["vmm"]["type"], destination["vmm"]["type"])
        elif source["vmm"]["type"] == "qmp":
            self.machine(source["vmm"]["machine"], destination["vmm"]["machine"])
        there = {d["id"]: d for d in destination["devices"]}
        for d in source["devices"]:
            if d["id"] in there:
                self.facts(d, there[d["id"]])
                self.pair_up(d, there.pop(d["id"]))
            else:
                self.say(d["id"], "device", "defined", "not defined")
        for name in there:
            self.say(name, "device", "not defined", "defined")

    def machine(self, here, there):
        if not here or here == there:
            return
        kind = {"pc": "pc-i440fx", "q35": "pc-q35"}.get(there, there)
        may_be = not there or re.fullmatch(re.escape(kind) + r"-[0-9.]+", here)
        self.say("", "machine type", here, there or "not said", NOTICE if may_be else REFUSAL)

    def pair_up(self, a, b):
        if a["type"] != b["type"]:
            self.say(a["id"], "type", a["type"], b["type"])
        elif (a["flags"] ^ b["flags"]) & SUPERVISED:
            self.say(a["id"], "driven by", *("its VMM" if d["flags"] & SUPERVISED else "migmgrd" for d in (a, b)))
        elif b["status"] == 0 and b["flags"] & STOP_COPY and a["flags"] & P2P and not b["flags"] & P2P:
            self.say(a["id"], "migration flags", *("stop-copy" + ", p2p" * bool(d["flags"] & P2P) +
                                                   ", pre-copy" * bool(d["flags"] & PRE_COPY) for d in (a, b)))


DEFAULTS = {"p2p": "require", "ndma": "none", "viommu-grace": "auto", "precopy": "auto", "max-state-mib": 0, "opaque": "refuse"}
OF_DEVICES = ("kind", "driver", "device", "subsystem", "id", "plugin")


def fits(match, m, d):
    if any(not any(k == name and fnmatch.fnmatchcase(v, value) for k, v in m["labels"].items())
           for name, value in match.get("label", {}).items()):
        return False
    if d is None:
        return not set(match) & set(OF_DEVICES)
    return all({"kind": d["type"] == value, "plugin": value in d["plugins"]}[key] if key in ("kind", "plugin")
               else fnmatch.fnmatchcase(d[key], value) for key, value in match.items() if key in OF_DEVICES)


def weight(match):
    """The more it says of a device the more it counts, in the order of docs/policy.md."""
    def wild(key):
        return key in match and any(c in match[key] for c in "*?")
    return ("id" in match and not wild("id"), wild("id"), "subsystem" in match, "device" in match and not wild("device"),
            wild("device"), "plugin" in match, "driver" in match, "label" in match, "kind" in match)


def view(rules, m, d=None):
    """What holds, with the defaults: of several rules that fit the most specific one, and of these the last."""
    values, compat = dict(DEFAULTS), {}
    for rule in sorted((r for r in rules if fits(r.get("match", {}), m, d)), key=lambda r: weight(r.get("match", {}))):
        values.update({k: v for k, v in rule["set"].items() if k != "compat"})
        for fact, how in rule["set"].get("compat", {}).items():
            compat[fact] = ("in", how) if isinstance(how, list) else (how, [])
    return {**values, "compat": compat}


def older(a, b):
    a, b = (re.findall("[0-9]+|[A-Za-z]+", v) for v in (a, b))
    for x, y in zip(a, b):
        if x.isdigit() and y.isdigit():
            x, y = int(x), int(y)
        if x != y:
            return x < y
    return len(a) < len(b)


def good_kernel(release):
    m = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?:[-+.]|$)", release)
    if not m:
        return False
    version = tuple(int(n or 0) for n in m.groups())
    return version[2] >= 107 if version[:2] == (6, 12) else version >= (7, 2)


# Of some the first two are alike, or only look so.
FACTS = {"firmware": ("22.41.1000", "22.41.1001", "22.40.9999", "22.41", "22.041.1000", "22.41.1000-rc1", "23"),
         "x.model": ("A", "B", "C"), "x.state-version": ("9", "10", "1", "a")}


# ---- pairs ---------------------------------------------------------------------------------------------------------------

class Maker:
    """A pair with nothing against it, of which some things are then changed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def some(self, values):
        return self.random.choice(values)

    def few(self, word, p=0.3):
        return [f"{word} {i}" for i in range(self.random.choice((1, 1, 2, 16)))] if self.random.random() < p else []

    def device(self, i, vmm):
        kind = self.some(("vfio-user", "vfio-user", "vfio")) if vmm != "qmp" else self.some(("vfio-user", "vfio"))
        flags = STOP_COPY | self.some((0, P2P, PRE_COPY, P2P | PRE_COPY)) | self.some((0, LOGGING))
        if kind == "vfio":
            flags |= KERNEL | (SUPERVISED if vmm == "qmp" else 0)
        if vmm == "delegate" and flags & LOGGING and self.random.random() < 0.5:
            flags |= DMA
        return {"id": f"d{i}", "type": kind, "flags": flags, "state": "running", "status": 0, "text": "", "sysfs": "",
                "driver": self.some(("", "mlx5_vfio_pci", "mtty")) if kind == "vfio" else "", "isolation": "full",
                "device": self.some(("", "15b3:101e", "15b3:1018")), "subsystem": self.some(("", "15b3:0058")),
                "state-bytes": self.some((0, 1 << 20, (1 << 20) + 1, 1 << 30)), "plugins": self.some(([], ["p"], ["p", "q"])),
                "facts": {k: self.some(v) for k, v in FACTS.items() if self.random.random() < 0.8}}

    def vmm(self, kind, side):
        if kind == "none":
            return {"type": kind}
        asked = kind == "delegate" or side == "source"
        return {"type": kind, "status": 0 if asked else -2, "text": "" if asked else "no such file",
                "version": "10.0.3" if asked else "", "major": 10 if asked else 0,
                "machine": "pc-q35-10.0" if kind == "qmp" else "",
                "run-state": "running" if side == "source" else "none" if asked else "",
                "takes-dirty-pages": self.random.random() < 0.9,
                "can-hold": True, "viommu": False, "blocked": [], "vfio-user": [], "writable": [], "silent": []}

    def host(self, kind, side):
        return {"uuid": "01234567-89ab-cdef-0123-456789abcdef", "name": "vm", "presence": "here" if side == "source" else "away",
                "can-start": True, "kernel": "6.12.107", "daemon": "1", "free-bytes": 1 << 30, "labels": {},
                "vmm": self.vmm(kind, side), "devices": []}

    def pair(self):
        kind = self.some(("none", "qmp", "qmp", "delegate"))
        pair = {side: self.host(kind, side) for side in SIDES}
        pair["source"]["labels"] = self.some(({}, {"tier": "gold"}, {"tier": "silver", "rack": "7"}))
        pair["policies"] = {side: [{"rules": [self.rule() for _ in range(self.some((1, 2, 4, 6)))]}
                                   for _ in range(self.some((0, 0, 1, 1, 2)))] for side in SIDES}
        for i in range(self.some((0, 1, 1, 2, 3, 5))):
            d = self.device(i, kind)
            pair["source"]["devices"].append(d)
            pair["destination"]["devices"].append({**d, "flags": d["flags"] & ~DMA, "facts": dict(d["facts"])})
        for _ in range(self.some((0, 0, 1, 1, 1, 2, 3, 6))):
            self.change(pair)
        self.random.shuffle(pair["destination"]["devices"])
        return pair

    def rule(self):
        """Keys of VMs are set by rules that ask for nothing of a device only."""
        match, wanted = {}, self.some(((), (), ("label",), ("kind",), ("id",), ("driver", "kind"), ("device",), ("subsystem",),
                                       ("plugin", "label"), OF_DEVICES[:3]))
        for key in wanted:
            match[key] = self.some({
                "kind": ("vfio", "vfio-user"), "driver": ("mlx5*", "mtty", "*"), "device": ("15b3:101e", "15b3:*"),
                "subsystem": ("15b3:0058", "15b3:*"), "id": ("d0", "d?", "d1", "*"), "plugin": ("p", "q"),
                "label": ({"tier": "gold"}, {"tier": "*"}, {"rack": "?"})}[key])
        keys = {"p2p": ("require", "isolate", "single", "accept-risk"), "ndma": ("none", "full"), "precopy": ("off", "auto", "require"),
                "max-state-mib": (0, 1, 1024), "compat": (None,), "retry": (0, 3)}
        if not set(wanted) & set(OF_DEVICES):
            keys.update({"viommu-grace": ("off", "auto", "require"), "opaque": ("refuse", "allow")})
        said = {k: self.some(keys[k]) for k in self.random.sample(sorted(keys), self.some((1, 1, 2, 3)))}
        if "compat" in said or self.random.random() < 0.3:
            said["compat"] = {fact: self.some(("equal", "at-least", "ignore", list(values[:2])))
                              for fact, values in FACTS.items() if self.random.random() < 0.5}
        return {"match": match, "set": said} if match else {"set": said}

    def change(self, pair):
        m = pair[self.some(SIDES)]
        changes = [self.change_host, self.change_vmm]
        if m["devices"]:
            changes += [self.change_device] * 4 + [self.change_domain]
        self.some(changes)(m, pair)

    def change_host(self, m, pair):
        m.update(self.some((
            {"presence": self.some(("here", "away"))}, {"can-start": False},
            {"free-bytes": self.some((-1, 0, 1023, 1024, (4 << 20) - 1, 4 << 20))},
            {"kernel": self.some(("", "6.12.106", "6.12.107", "6.12.95+deb12-amd64", "6.12", "6.13.1", "7.1.9", "7.2-rc1", "7.2",
                                  "7.2.0", "8.0", "7.2x", "x", "6.12.107-foo", "10.1.1+2", "7", "7.", "6.12.", "07.2"))})))

    def change_vmm(self, m, pair):
        if m["vmm"]["type"] == "none" or self.random.random() < 0.1:
            side = "source" if m is pair["source"] else "destination"
            m["vmm"] = self.vmm(self.some(("none", "qmp", "delegate")), side)
            return
        vmm = m["vmm"]
        vmm.update(self.some((
            {"status": -111, "text": "nobody answers"}, {"status": 0},
            {"run-state": self.some(("paused", "running", "none", "postmigrate"))},
            {"major": self.some((7, 9, 10, 11, 12)), "version": self.some(("", "x.y"))},
            {"writable": self.few("disk", 1), "major": self.some((7, 9, 10))},
            {"blocked": self.few("blocker", 1)}, {"vfio-user": self.few("/machine/peripheral/v", 1)},
            {"silent": self.few("v0: off", 1)}, {"can-hold": False},
            {"takes-dirty-pages": False}, {"viommu": True}, {"viommu": True},
            {"vfio-user": ["/machine/peripheral/a (vfio-pci)", "/machine/peripheral/b (vfio-user-pci)"]},
            {"machine": self.some(("", "pc", "q35", "pc-q35-10.0", "pc-q35-9.2", "pc-i440fx-10.0", "microvm", "virt", "virt-9.2",
                                   "pc-q35"))})))

    def change_domain(self, m, pair):
        """Devices that reach each other, some of them without P2P states on either side."""
        for i, d in enumerate(m["devices"]):
            d = m["devices"][i] = dict(d, isolation=self.some(("unknown", "none", "none", "full")))
            if m["vmm"]["type"] == "delegate" and m is pair["source"]:
                d["flags"] |= DMA | LOGGING
            if self.random.random() < 0.5:
                for other in [x for host in SIDES for x in pair[host]["devices"] if x["id"] == d["id"]] + [d]:
                    other["flags"] &= ~P2P

    def change_identity(self, d):
        d.update(self.some((
            {"isolation": self.some(("unknown", "none"))}, {"isolation": "unknown"},
            {"facts": {**d["facts"], **{k: self.some(v) for k, v in FACTS.items() if self.random.random() < 0.3}}},
            {"facts": {k: v for k, v in d["facts"].items() if self.random.random() < 0.6}},
            {"flags": d["flags"] ^ P2P})))

    def change_device(self, m, pair):
        i = self.random.randrange(len(m["devices"]))
        d = m["devices"][i] = dict(m["devices"][i])
        what = self.random.random()
        if self.random.random() < 0.5:
            self.change_identity(d)
        elif what < 0.35:
            d["flags"] ^= self.some((STOP_COPY, P2P, P2P, PRE_COPY, LOGGING, DMA, DMA))
        elif what < 0.55:
            d["state"] = self.some(STATES)
        elif what < 0.8:
            d["status"] = -self.some((0, EPERM, ESRCH, EACCES, ENOTCONN, EOWNERDEAD, 5))
            d["text"] = "why not" if d["status"] else ""
        elif what < 0.86:
            d["type"] = "vfio" if d["type"] == "vfio-user" else "vfio-user"
        elif what < 0.92:
            d["flags"] ^= self.some((KERNEL, SUPERVISED | KERNEL)) if m["vmm"]["type"] == "qmp" else KERNEL
        elif what < 0.96:
            del m["devices"][i]
        else:
            d["id"] = "other"
            if any(o is not d and o["id"] == "other" for o in m["devices"]):
                del m["devices"][i]


# ---- both ---------------------------------------------------------------------------------------------------------------

def properties_of_page():
    """What the page says there is; what plugins find comes from elsewhere."""
    with open(os.path.join(TOP, "docs", "check.md")) as f:
        rows = [line.split("|")[1] for line in f if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)} - {"plugin NAME"}


def ask(pairs):
    lines = "".join(json.dumps(p) + "\n" for p in pairs)
    done = subprocess.run([program("check-pairs")], input=lines, text=True, stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(n=10000, seed=1):
    maker = Maker(seed)
    pairs = [maker.pair() for _ in range(n)]
    answers = ask(pairs)
    assert len(answers) == n, (len(answers), n)
    bad, fine, seen = 0, 0, collections.Counter()
    for i, (pair, answer) in enumerate(zip(pairs, answers)):
        expected = sorted(judge(pair))
        said = sorted(Finding(*(f[k] for k in Finding._fields)) for f in answer) if isinstance(answer, list) else answer
        seen.update((f.weight, f.property) for f in expected)
        fine += not any(f.weight == REFUSAL for f in expected)
        if said != expected:
            bad += 1
            if bad <= 3:
                print(f"bad  pair {i} of seed {seed}: {json.dumps(pair)}")
                if isinstance(said, dict):
                    print(f"     {said}")
                else:
                    for f in set(said) ^ set(expected) or set(said):
                        print(f"     {'by check alone' if f in said else 'by the page alone'}: {f}")
    missing = properties_of_page() ^ {p for _, p in seen}
    if missing:
        print(f"bad  not both on the page and found: {sorted(missing)}")
    holds = not bad and not missing and 0.1 < fine / n < 0.9
    print(json.dumps({"cases": n, "bad": bad + bool(missing), "without_refusal": fine, "findings": sum(seen.values()),
                      "seed": seed, "holds": holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
