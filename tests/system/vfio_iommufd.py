# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests/run has no time for: the guest with VFIO devices on a kernel with iommufd, where devices have a file of their own
and source grace is allowed, and under a newer QEMU than Debian's. Each row is one boot of that guest (tests/system/vfio-guest)
and one script in it. Prints a line each, and what failed in full; the last line is one JSON object.

  tests/system/vfio_iommufd.py [PART OF A NAME]
"""

import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
IOMMUFD, NEWER = {"MIGMGR_GUEST_KERNEL": "iommufd"}, {"MIGMGR_GUEST_QEMU": "newer"}
ROWS = [
    ("the guest itself, iommufd", IOMMUFD, ["test_vfio_guest.py"]),
    ("devices of our own, iommufd", IOMMUFD, ["test_vfio_owned.py"]),
    ("helper, iommufd", IOMMUFD, ["test_vfio_helper.py"]),
    ("delegate, iommufd", IOMMUFD, ["test_vfio_delegate.py"]),
    ("moves with grace, 2 devices", IOMMUFD, ["vfio_moves.py", "moves", "6", "2"]),
    ("moves with grace, 8 devices", IOMMUFD, ["vfio_moves.py", "moves", "4", "8"]),
    ("demo, iommufd", IOMMUFD, ["demo_vfio.py"]),
    ("demo, newer QEMU", NEWER, ["demo_vfio.py"]),
    ("demo, iommufd, newer QEMU", IOMMUFD | NEWER, ["demo_vfio.py"]),
    ("moves, newer QEMU", NEWER, ["vfio_moves.py", "moves", "4", "2"]),
    ("moves with grace, newer QEMU", IOMMUFD | NEWER, ["vfio_moves.py", "moves", "4", "4"]),
]

TOLD = ("qemu", "moves", "hole", "faster", "result", "refused_result", "problems")


def said(output):
    """What a script's last lines say of it: of JSON some figures, of unittest the number of cases."""
    try:
        line = json.loads(output.strip().rsplit("\n", 1)[-1])
        return {k: line[k] for k in TOLD if k in line}
    except (ValueError, IndexError):
        return {"cases": int((re.search(r"^Ran (\d+) tests?", output, re.M) or [0, 0])[1])}


def main(part=""):
    figures, bad = [], 0
    for name, env, argv in ROWS:
        if part not in name:
            continue
        begun = time.monotonic()
        p = subprocess.run([sys.executable, os.path.join(HERE, argv[0]), *argv[1:]], env={**os.environ, **env},
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           errors="replace")
        row = {"name": name, "holds": p.returncode == 0, "seconds": round(time.monotonic() - begun), **said(p.stdout)}
        figures.append(row)
        bad += p.returncode != 0
        about = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("name", "holds", "seconds"))
        print(f"{'ok' if row['holds'] else 'BAD':4} {name:30} {row['seconds']:5} s   {about}", flush=True)
        if p.returncode != 0:
            print(p.stdout[-6000:], flush=True)
    print(json.dumps({"cases": len(figures), "bad": bad, "rows": figures, "holds": bad == 0}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
