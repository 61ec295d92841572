# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything that must pass before a change lands: what tests/run runs, in this order, once it has built both trees.

Each step prints its own output to a file and one line here; what failed is printed in full. The last line says how many
claims passed and failed in all: test cases of the C and Python tests, rows of the tables, one for each other step.
tests/run takes no arguments; this one takes a part of a step's name.
"""

import glob
import json
import os
import re
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLAIN, SANITIZED = os.path.join(TOP, "build"), os.path.join(TOP, "build-sanitized")
LIMIT = 600  # seconds that a step may take
SANITIZED_ENVIRONMENT = {"ASAN_OPTIONS": "detect_stack_use_after_return=1", "UBSAN_OPTIONS": "print_stacktrace=1",
                     "EXPLORER_SHORT": "1", "MIGMGR_PACE": "2"}


class Step:
    """`count` gets (output, exit status) and returns (passed, failed)."""

    def __init__(self, name, argv, count, build=PLAIN, cwd=TOP, env=None):
        self.name, self.argv, self.count, self.build, self.cwd, self.env = name, argv, count, build, cwd, env or {}


def count_one(output, status):
    return (1, 0) if status == 0 else (0, 1)


def count_make_check(output, status):
    """Cases of the cmocka programs and the scripts, from their logs. Of what `make distcheck` ran, the tree is gone: there
    the programs are counted."""
    passed = sum(int(n) for n in re.findall(r"^# PASS: +(\d+)", output, re.M))
    failed = sum(int(n) for n in re.findall(r"^# (?:FAIL|ERROR|XPASS): +(\d+)", output, re.M))
    return passed, failed or (0 if status == 0 else 1)


def count_cases(output, status):
    """The logs of `make check` in the sanitized tree."""
    passed = failed = 0
    for log in glob.glob(os.path.join(SANITIZED, "*.log")) + glob.glob(os.path.join(SANITIZED, "tests", "*.log")):
        with open(log, errors="replace") as f:
            text = f.read()
        passed += len(re.findall(r"^\[ +OK +\]", text, re.M))
        failed += len(re.findall(r"^\[ +FAILED +\] \w+$", text, re.M))
    return passed, failed or (0 if status == 0 else 1)


def count_unittest(output, status):
    ran = re.search(r"^Ran (\d+) tests?", output, re.M)
    bad = sum(int(n) for n in re.findall(r"(?:failures|errors)=(\d+)", output))
    ran = int(ran.group(1)) if ran else 0
    return ran - bad, bad or (0 if status == 0 else 1)


def count_table(output, status):
    """The last line is one JSON object with `cases` and `bad`, or only `holds`."""
    try:
        line = json.loads(output.strip().rsplit("\n", 1)[-1])
        cases, bad = line.get("cases", 1), line.get("bad", 0 if line["holds"] else 1)
        return cases - bad, bad or (0 if status == 0 else 1)
    except (ValueError, KeyError):
        return 0, 1


def python(name, *args):
    return [sys.executable, os.path.join(TOP, "tests", "system", name), *args]


def sources():
    out = subprocess.run(["git", "ls-files", "*.c", "*.h"], cwd=TOP, capture_output=True, text=True).stdout.split()
    return out or [os.path.relpath(p, TOP) for d in ("client", "common", "daemon", "plugins", "tests")
                   for p in glob.glob(os.path.join(TOP, d, "**", "*.[ch]"), recursive=True)]


# With sanitizers, where memory is worked on most: all kinds, in the two places that move state.
FAULTS = "p2p=on(,pre-copy=on)? (read|write) "
# A spread over victims, phases and both ways of going back; all of them are in tests/bench/kills.
KILLS = ("^(source-daemon in source-(precopy|drain|go)|destination-daemon in destination-(owner|run)|source-agent in "
         "source-(precopy|drain)|destination-agent in destination-intake|source-device in source-p2p-grace|"
         "destination-device in destination-(take-in|run-devices)|link in source-(precopy|intake|go)|source-helper in "
         "source-drain|source-daemon in source-back-run|link in destination-promise|destination-daemon in "
         r"destination-promised)( \(.*\))?$")
# Where the daemon that comes back has most to do, on either way; all states of the blackout are in tests/bench/restarts.
RESTARTS = ("^(source-daemon in source-(halt|drain|go|back-run)|destination-daemon in destination-(take-in|ready|run-devices)"
            r"|destination-daemon in (destination-promised|source-go))( \(.*\)|, for long)?$")
# Under load with sanitizers: what breaks a connection, and agents that copy pages.
LOAD = "pages by agents: source device"
# What may be another thing over TCP: connections that are made, that break, and what is under way on them.
TCP = {"MIGMGR_TRANSPORT": "tcp"}
TCP_FAULTS = r"^(source|destination) p2p=on (read|write|resuming>stop) "
TCP_KILLS = (r"^(link in source-(prepare|connect|drain|intake|go)|(source|destination)-daemon in source-(drain|go)"
             r"|source-agent in source-drain|destination-agent in destination-take-in)( \(.*\))?$")
TCP_QEMU = "^success|^kill: (source|destination) daemon in source-drain|^kill: the link|read:corrupt"

# A spread over what a driver can do, and the places where it bites; all of them are in tests/bench/vfio.
VFIO_FAULTS = (r"^source p2p,pre-copy PRE_COPY_P2P>STOP_COPY refuse once$|^destination p2p,pre-copy "
               r"(RESUMING>STOP (refuse once|hang)|RUNNING_P2P>RUNNING refuse (once|always))$"
               r"|^back p2p,pre-copy STOP>RUNNING_P2P refuse always$|^held p2p,pre-copy RUNNING_P2P>RUNNING refuse always$"
               r"|^destination write-error at 40|STOP_COPY$")
VFIO_KILLS = (r"^kill (source's (QEMU in source-drain|agent in source-go|daemon in source-go)"
              r"|destination's (QEMU in destination-intake|daemon in destination-intake))$|source's helper may not"
              r"|destination's holder in destination-push \(held\)$")

# What git knows and `make dist` forgets.
TARBALL = r"""
have=$(tar tf build/migmgr-*.tar.xz | sed 's|^[^/]*/||' | sort)
git ls-files | grep -v -e '^[.]gitignore$' -e '^[.]ci/' | sort | while read -r f; do
	printf '%s\n' "$have" | grep -qxF "$f" || echo "not in the tarball: $f"
done | tee /dev/stderr | wc -l | grep -qx 0
"""

STEPS = [
    Step("format", ["clang-format", "--dry-run", "-Werror", *sources()], count_one),
    Step("distcheck", ["make", "-s", "-j2", "distcheck"], count_make_check, cwd=PLAIN),
    Step("tarball", ["bash", "-c", TARBALL], count_one),
    Step("unit, sanitized", ["make", "-s", "-j2", "check"], count_cases, SANITIZED, cwd=SANITIZED),
    Step("emulated device, sanitized", python("test_emulated_device.py"), count_unittest, SANITIZED),
    Step("worker device, sanitized", python("test_worker_device.py"), count_unittest, SANITIZED),
    Step("test VMM, sanitized", python("test_vmm.py"), count_unittest, SANITIZED),
    Step("check oracle", python("check_oracle.py"), count_table),
    Step("moves", python("moves.py", "60", "8"), count_table),
    Step("moves, sanitized", python("moves.py", "10", "3"), count_table, SANITIZED),
    Step("p2p", python("p2p.py"), count_table),
    Step("load", python("load.py"), count_table),
    Step("load, sanitized", python("load.py", LOAD), count_table, SANITIZED),
    Step("faults", python("faults.py", "-j", "6"), count_table),
    Step("faults, sanitized", python("faults.py", "-j", "6", FAULTS), count_table, SANITIZED),
    Step("kills, sanitized", python("kills.py", "-j", "4", KILLS), count_table, SANITIZED),
    Step("crashes", python("crashes.py", "-t", "25"), count_table),
    Step("crashes, QEMU", python("crashes_qemu.py", "-t", "12"), count_table),
    Step("fault loop", python("faultloop.py", "-t", "25"), count_table),
    Step("restarts", python("restarts.py", RESTARTS), count_table),
    Step("faults, TCP", python("faults.py", "-j", "6", TCP_FAULTS), count_table, env=TCP),
    Step("kills, TCP", python("kills.py", "-j", "4", TCP_KILLS), count_table, env=TCP),
    Step("QEMU, TCP", python("qemu.py", "-j", "4", TCP_QEMU), count_table, env=TCP),
    Step("bus, sanitized", python("test_bus.py"), count_unittest, SANITIZED),
    Step("precopy, sanitized", python("test_precopy.py"), count_unittest, SANITIZED),
    Step("migctl, sanitized", python("test_migctl.py"), count_unittest, SANITIZED),
    Step("policy, sanitized", python("test_policy.py"), count_unittest, SANITIZED),
    Step("policy files, sanitized", python("test_policy_files.py"), count_unittest, SANITIZED),
    Step("helper, sanitized", python("test_helper.py"), count_unittest, SANITIZED),
    Step("plugins", python("test_plugin.py"), count_unittest),
    Step("plugins, sanitized", python("test_plugin.py", "Good", "Process"), count_unittest, SANITIZED),
    Step("hostile, sanitized", python("test_hostile.py"), count_unittest, SANITIZED),
    Step("broker, sanitized", python("test_broker.py"), count_unittest, SANITIZED),
    Step("journal", python("test_journal.py"), count_unittest),
    Step("resolve", python("test_resolve.py"), count_unittest),
    Step("parking, sanitized", python("test_parking.py"), count_unittest, SANITIZED),
    Step("service, sanitized", python("test_service.py"), count_unittest, SANITIZED),
    Step("VFIO guest", python("test_vfio_guest.py"), count_unittest),
    Step("VFIO owned", python("test_vfio_owned.py", "ByHand", "Moves", "Delegated", "Resets", "Kills"), count_unittest),
    Step("VFIO delegate", python("test_vfio_delegate.py"), count_unittest),
    Step("VFIO faults", python("vfio_faults.py", "-j", "2", VFIO_FAULTS), count_table),
    Step("VFIO kills", python("vfio_kills.py", VFIO_KILLS), count_table),
    Step("QEMU", python("qemu.py", "-j", "4"), count_table),
    Step("delegate", python("delegate.py", "-j", "6"), count_table),
    Step("demo", python("demo.py"), count_table),
    Step("demo, VFIO", python("demo_vfio.py"), count_table),
]


def relevant(output):
    """The lines that say what failed, with a little around them, and the end; all of it is in the log."""
    lines = output.split("\n")
    shown = set(range(len(lines) - 40, len(lines)))
    for i, line in enumerate(lines):
        if re.search(r"^(BAD|FAIL|ERROR|not in)|ERROR:|FAILED|SUMMARY|Error\b", line):
            shown |= set(range(i - 2, i + 12))
    return "\n".join(lines[i] for i in sorted(shown) if 0 <= i < len(lines))


def run(step, log_dir):
    env = {**os.environ, "MIGMGR_BUILD": step.build, **step.env}
    if step.build == SANITIZED:
        env |= SANITIZED_ENVIRONMENT
    path = os.path.join(log_dir, re.sub(r"\W+", "-", step.name) + ".log")
    start = time.monotonic()
    with open(path, "w") as log:
        try:
            status = subprocess.run(step.argv, cwd=step.cwd, env=env, stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=subprocess.STDOUT, timeout=LIMIT).returncode
        except subprocess.TimeoutExpired:
            status = -1
    with open(path, errors="replace") as f:
        output = f.read()
    passed, failed = step.count(output, status)
    print(f"{'FAILED' if failed else 'ok':7} {step.name:28} {passed:5} passed {failed:4} failed "
          f"{time.monotonic() - start:7.1f} s", flush=True)
    if failed:
        print(relevant(output), flush=True)
    return passed, failed


def main(pattern=""):
    log_dir = os.path.join(PLAIN, "test-logs")
    os.makedirs(log_dir, exist_ok=True)
    start = time.monotonic()
    results = [run(step, log_dir) for step in STEPS if pattern in step.name]
    passed, failed = (sum(column) for column in zip(*results))
    print(f"in {time.monotonic() - start:.0f} s, logs in {os.path.relpath(log_dir, TOP)}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
