#!/usr/bin/env python3
"""What processes cost: memory, and processor time over some seconds.

    footprint.py SECONDS PROGRAM ...

PROGRAM is the end of the program's path, or of the script's that an interpreter runs. Must run as the user
of these processes, since nobody else may read their share of memory. Prints a list as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path


def processes(programs):
    """The processes of these programs, each with a name for a table."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_text().split("\0")
        except OSError:
            # It has just ended.
            continue
        # A second word belongs to an interpreter's script, or tells apart what one program does.
        names = [os.path.basename(arguments[0]), *[os.path.basename(a) for a in arguments[1:2]]]
        for program in programs:
            if program in names:
                yield int(entry.name), " ".join([program] + [a for a in arguments if a in ("agent", "deadman")])


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kilobytes(file, key):
    with open(file) as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))


def main():
    seconds = float(sys.argv[1])
    found = dict(processes(sys.argv[2:]))
    before = {pid: processor_seconds(pid) for pid in found}
    time.sleep(seconds)
    print(
        json.dumps(
            [
                {
                    "process": name,
                    "rss_mb": round(kilobytes(f"/proc/{pid}/status", "VmRSS:") / 1024, 1),
                    "pss_mb": round(kilobytes(f"/proc/{pid}/smaps_rollup", "Pss:") / 1024, 1),
                    "cpu_percent": round(100 * (processor_seconds(pid) - before[pid]) / seconds, 2),
                }
                for pid, name in found.items()
            ]
        )
    )


main()
