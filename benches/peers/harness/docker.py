"""Running programs, and the container engine."""

import subprocess
from pathlib import Path

# Every container and network carries it, with the name of its system.
LABEL = "pgdock-peers"
IMAGE = "pgdock-peers"
BASE = "debian:trixie-slim"


class Failed(Exception):
    """A program ended with an error, or something did not happen in time."""


def run(*command: str, check: bool = True, timeout: float | None = None) -> str:
    """Runs a program to its end. Answers with what it printed."""
    try:
        ended = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as expired:
        raise Failed(f"{' '.join(command)}: did not end within {timeout:.0f} s") from expired
    except FileNotFoundError as missing:
        raise Failed(f"there is no program `{command[0]}`: install it") from missing
    if check and ended.returncode != 0:
        raise Failed(f"{' '.join(command)}: ended with {ended.returncode}\n{ended.stdout}")
    return ended.stdout.strip()


def docker(*arguments: str, check: bool = True, timeout: float | None = None) -> str:
    """Asks the container engine."""
    return run("docker", *arguments, check=check, timeout=timeout)


def require_engine() -> None:
    """Fails with a remedy where no engine answers."""
    try:
        docker("version", "--format", "{{.Server.Version}}", timeout=30)
    except Failed as failed:
        raise Failed(f"no Docker engine answers: install docker.io and start dockerd\n{failed}") from failed


def build_image(dockerfile: Path) -> None:
    """Builds the image that all nodes run; what did not change is taken from the engine's cache."""
    if not docker("images", "-q", BASE):
        base_image()
    docker("build", "-t", IMAGE, str(dockerfile.parent), timeout=1800)


def base_image() -> None:
    """Gets Debian from a registry, or where none is reachable makes it with debootstrap."""
    try:
        docker("pull", BASE, timeout=300)
        return
    except Failed as failed:
        print(f"{BASE} cannot be pulled; making it with debootstrap ({str(failed).splitlines()[-1]})", flush=True)
    make = (
        "set -e; dir=$(mktemp -d); trap 'rm -rf -- \"$dir\"' EXIT; "
        'debootstrap --variant=minbase trixie "$dir" >&2; '
        f'tar -C "$dir" -c . | docker import - {BASE}'
    )
    run("sh", "-c", make, timeout=1800)


def remove(system: str | None = None) -> None:
    """Removes the containers and networks of a system; of all systems where none is named."""
    label = LABEL if system is None else f"{LABEL}={system}"
    containers = docker("ps", "-aq", "--filter", f"label={label}").split()
    for container in containers:
        # A paused one cannot be removed.
        docker("unpause", container, check=False)
    if containers:
        docker("rm", "-fv", *containers, check=False)
    for network in docker("network", "ls", "-q", "--filter", f"label={label}").split():
        docker("network", "rm", network, check=False)
