# SPDX-License-Identifier: LGPL-2.1-or-later
"""The policy files that are shipped, and their JSON schema: what an editor finds good by the schema migmgrd finds good, too,
and what the one refuses the other refuses.

The validator here knows the words of JSON Schema that the schema uses, and stumbles over any other.
"""

import copy
import glob
import json
import os
import random
import re
import unittest

from bus import Bus
from lab import Lab, TOP, definition, new_uuid

MANAGER = ("org.migmgr1", "/org/migmgr1", "org.migmgr1.Manager")
MUTATIONS = 3000
IGNORED = {"$schema", "title", "description", "$defs"}


def is_type(value, name):
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, {"object": dict, "array": list, "string": str}[name])


class Schema:
    """`words`: each method is one of JSON Schema, and says whether a value is good by it."""

    def __init__(self, schema):
        self.root = schema
        self.words = {"type": lambda s, v: is_type(v, s["type"]), "enum": lambda s, v: v in s["enum"] and not isinstance(v, bool),
                      "$ref": lambda s, v: self.good(self.find(s["$ref"]), v),
                      "anyOf": lambda s, v: any(self.good(one, v) for one in s["anyOf"]),
                      "if": lambda s, v: not self.good(s["if"], v) or self.good(s["then"], v), "then": lambda s, v: True,
                      "minimum": lambda s, v: not is_type(v, "integer") or v >= s["minimum"],
                      "maximum": lambda s, v: not is_type(v, "integer") or v <= s["maximum"],
                      "minLength": lambda s, v: not isinstance(v, str) or len(v) >= s["minLength"],
                      "maxLength": lambda s, v: not isinstance(v, str) or len(v) <= s["maxLength"],
                      "pattern": lambda s, v: not isinstance(v, str) or bool(re.search(s["pattern"], v)),
                      "minItems": lambda s, v: not isinstance(v, list) or len(v) >= s["minItems"],
                      "maxItems": lambda s, v: not isinstance(v, list) or len(v) <= s["maxItems"],
                      "items": lambda s, v: not isinstance(v, list) or all(self.good(s["items"], one) for one in v),
                      "minProperties": lambda s, v: not isinstance(v, dict) or len(v) >= s["minProperties"],
                      "maxProperties": lambda s, v: not isinstance(v, dict) or len(v) <= s["maxProperties"],
                      "required": lambda s, v: not isinstance(v, dict) or all(key in v for key in s["required"]),
                      "propertyNames": lambda s, v: not isinstance(v, dict) or all(self.good(s["propertyNames"], k) for k in v),
                      "properties": self.properties, "additionalProperties": self.others}

    def find(self, ref):
        found = self.root
        for part in ref.removeprefix("#/").split("/"):
            found = found[part]
        return found

    def properties(self, schema, value):
        return not isinstance(value, dict) or all(self.good(schema["properties"][k], v) for k, v in value.items()
                                                  if k in schema["properties"])

    def others(self, schema, value):
        return not isinstance(value, dict) or all(self.good(schema["additionalProperties"], v) for k, v in value.items()
                                                  if k not in schema.get("properties", {}))

    def good(self, schema, value):
        if isinstance(schema, bool):
            return schema
        return all(self.words[word](schema, value) for word in schema if word not in IGNORED)


def load(name):
    with open(os.path.join(TOP, "policies", name)) as f:
        return json.load(f)


def shipped():
    return sorted(os.path.basename(p) for p in glob.glob(os.path.join(TOP, "policies", "*.json")) if "schema" not in p)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from places(child, (*path, key))


class Mutator:
    """Changes good files a little, so that they are good or just not."""

    def __init__(self, schema, files, seed):
        self.random, self.files = random.Random(seed), files
        keys = schema.root["$defs"]["set"]["properties"]
        self.names = [*keys, *schema.root["$defs"]["match"]["properties"], "match", "set", "rules", "comment", "description",
                      "drain", "msec", "x", "", "deadline-ms.drain", "A"]
        words = [w for key in keys.values() for w in key.get("enum", ())]
        self.values = [*words, "equal", "ignore", "at-least", "in", "vfio", "15b3:101e", "15b3:*", "15B3:*", "*", "", "x" * 64,
                       "x" * 65, "x" * 201, 0, 1, -1, 100, 101, 255, 256, 3600000, 3600001, 1 << 20, (1 << 20) + 1, 1 << 40,
                       1 << 70, 1.5, True, None, [], ["a"], ["a"] * 16, ["a"] * 17, [1], [""], {}, {"a": "b"}, {"a": "b", "c": "d"},
                       {"a": 1}, {"msec": 1}, {"drain": 5}, {"id": "x"}, {"kind": "vfio"}, {f"f{i}": "equal" for i in range(16)},
                       {f"f{i}": "equal" for i in range(17)}]

    def one(self):
        value = copy.deepcopy(self.random.choice(self.files))
        for _ in range(self.random.choice((1, 1, 2, 3))):
            path = self.random.choice([p for p in places(value) if p])
            self.change(value, path)
        return value

    def change(self, value, path):
        for key in path[:-1]:
            value = value[key]
        how, key = self.random.randrange(4), path[-1]
        if how == 0:
            del value[key]
        elif how == 1 and isinstance(value, dict):
            value[self.random.choice(self.names)] = copy.deepcopy(self.random.choice(self.values))
        elif how == 2 and isinstance(value, dict):
            value[self.random.choice(self.names)] = value.pop(key)
        else:
            value[key] = copy.deepcopy(self.random.choice(self.values))


class PolicyFiles(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab()
        cls.lab.__enter__()
        cls.addClassCleanup(cls.lab.__exit__, None, None, None)
        cls.host = cls.lab.host("a")
        cls.schema = Schema(load("policy.schema.json"))

    def is_good(self, bus, policy):
        return bus.call(*MANAGER, "CheckPolicy", "ss", "f", json.dumps(policy))

    def test_what_is_shipped_is_good_by_both(self):
        self.assertEqual(len(shipped()), 9)
        for name in shipped():
            self.assertTrue(self.schema.good(self.schema.root, load(name)), name)
            self.assertEqual(self.host.migctl("policy", "check", os.path.join(TOP, "policies", name))[0], 0, name)

    def test_schema_and_daemon_agree(self):
        """Only on what is a place of JSON: keys that are said twice are beyond a schema, and so is what many files have
        together."""
        bus = Bus(self.host.bus_address)
        self.addCleanup(bus.close)
        mutator = Mutator(self.schema, [load(name) for name in shipped()], 5)
        n_good = 0
        for _ in range(MUTATIONS):
            policy = mutator.one()
            by_schema = self.schema.good(self.schema.root, policy)
            ok, error = self.is_good(bus, policy)
            self.assertEqual(by_schema, ok, (error, json.dumps(policy)))
            n_good += ok
        self.assertTrue(MUTATIONS // 10 < n_good < MUTATIONS * 9 // 10, n_good)

    def test_shipped_files_together(self):
        """As they are installed, with one of an administrator's: it decides, for it comes later; strict is for whom asks for it."""
        for name in shipped():
            self.host.write_policy(name[:-5], *load(name)["rules"])
        self.assertEqual(self.host.migctl("policy", "reload")[0], 0)
        self.assertEqual([p["name"] + ".json" for p in self.host.json("policy", "list")[1]], shipped())
        server = self.lab.server("s", {"d": ""})
        for name, labels in (("plain", {}), ("careful", {"migmgr.policy": "strict"})):
            self.host.register({**definition(name, new_uuid(), server, ["d"]), "labels": labels})
            report = self.host.json("policy", "explain", name, "d")[1]
            said = {k["key"]: (k["value"], os.path.basename(k["file"])) for k in report["keys"]}
            self.assertEqual(said["on-source-loss"],
                             ("pause", "strict.json") if labels else ("degraded-run", "default.json"), name)
            self.host.migctl("unregister", name)


if __name__ == "__main__":
    unittest.main()
