"""What was measured on: the machine, and the versions of everything."""

import hashlib
import json
import os
import platform
import time
from pathlib import Path

from .docker import IMAGE, Failed, docker, run
from .pgdock import Programs

VERSIONS = {
    "PostgreSQL": ("postgres", "--version"),
    "Patroni": ("patroni", "--version"),
    "etcd": ("etcd", "--version"),
    "repmgr": ("repmgr", "--version"),
    "psycopg2": ("python3", "-c", "import psycopg2; print(psycopg2.__version__, psycopg2.__libpq_version__)"),
}
# What the program is made from.
SOURCES = ("pgdock-core", "pgdock-cli", "Cargo.toml", "Cargo.lock")


def look(programs: Programs, repository: Path) -> dict:
    """A line of results that describes the machine and the versions. Its `id` is the same if they are."""
    facts = {
        "cores": os.cpu_count(),
        "processor": processor(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": f"{system()}, Linux {platform.release()}",
        "docker": docker("version", "--format", "{{.Server.Version}}"),
        "versions": {name: in_image(*command) for name, command in VERSIONS.items()},
        "pgdock": pgdock(programs, repository),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return {"kind": "environment", "id": digest, "seen": day, **facts}


def in_image(*command: str) -> str:
    """The first line that a program in the image prints."""
    return docker("run", "--rm", IMAGE, *command).splitlines()[0]


def pgdock(programs: Programs, repository: Path) -> str:
    """The version of the program, and the last commit that changed it."""
    version = f"{run(str(programs.pgdock), '--version')} ({programs.pgdock.parent.name} build"
    try:
        commit = run("git", "-C", str(repository), "log", "-1", "--format=%h", "--", *SOURCES)
        changed = run("git", "-C", str(repository), "status", "--porcelain", "--untracked-files=no", "--", *SOURCES)
    except Failed:
        # Not a clone, but an archive.
        return version + ")"
    return f"{version}, {commit}{' and local changes' if changed else ''})"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def system() -> str:
    release = Path("/etc/os-release")
    if release.exists():
        for line in release.read_text().splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.split("=", 1)[1].strip('"')
    return platform.system()
