"""The file of results: a line of JSON for each run, footprint and machine. Lines are only ever added."""

import json
import threading
from collections.abc import Callable
from pathlib import Path


class Results:
    """Results in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()

    def read(self) -> list[dict]:
        """All lines. One that was cut short is as if its run had not been."""
        if not self.path.exists():
            return []
        lines = []
        for line in self.path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines

    def add(self, line: dict) -> None:
        """Adds a line, below what another run may have left unfinished."""
        with self.lock:
            before = self.path.read_bytes() if self.path.exists() else b""
            with self.path.open("a") as file:
                file.write(("\n" if before and not before.endswith(b"\n") else "") + json.dumps(line) + "\n")

    def forget(self, which: Callable[[dict], bool]) -> int:
        """Takes lines out, so that they are measured anew. Answers with how many."""
        lines = self.read()
        kept = [line for line in lines if not which(line)]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        return len(lines) - len(kept)
