#!/usr/bin/env python3
"""A client that writes: one INSERT each --interval, with a sequence number of its own.

Every acknowledgement and every error is a line of --out. Times are seconds of CLOCK_MONOTONIC, which all
containers share with the machine, and which never steps:

    C <begin> <end> <host>                        connected
    A <seq> <sent> <acknowledged> <host>          acknowledged
    E <begin> <end> <phase> <seq> <host> <text>   failed; phase is connect, readonly, insert or ask

An insert whose outcome is unknown is never tried again: its number stays open.
"""

import argparse
import os
import socket
import threading
import time

import psycopg2

# How often the stop file is looked for, in rounds.
LOOK_EVERY = 10


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True, help="libpq's connection string")
    parser.add_argument("--source", required=True, help="whose rows they are: the first column of the table")
    parser.add_argument("--out", required=True, help="the log")
    parser.add_argument("--stop-file", required=True, help="ends once this file is there")
    parser.add_argument("--interval", type=float, default=0.02, help="seconds from one INSERT to the next")
    parser.add_argument("--patience", type=float, default=1.0, help="seconds that one statement may take")
    parser.add_argument(
        "--stay",
        action="store_true",
        help="stay connected to a server that is read-only, asking until it is not, in place of looking for another",
    )
    return parser.parse_args()


class Guard:
    """Gives up a connection whose statement takes too long: libpq itself would wait as long as TCP does."""

    def __init__(self, patience):
        self.patience = patience
        self.lock = threading.Lock()
        self.deadline = None
        self.descriptor = -1
        threading.Thread(target=self._watch, daemon=True).start()

    def run(self, descriptor, statement):
        with self.lock:
            self.descriptor = descriptor
            self.deadline = time.monotonic() + self.patience
        try:
            return statement()
        finally:
            with self.lock:
                self.deadline = None

    def _watch(self):
        while True:
            time.sleep(0.05)
            with self.lock:
                if self.deadline is None or time.monotonic() < self.deadline:
                    continue
                self.deadline = None
                try:
                    with socket.socket(fileno=os.dup(self.descriptor)) as connection:
                        connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Writer:
    def __init__(self, args):
        self.args = args
        self.out = open(args.out, "w", buffering=1)
        self.guard = Guard(args.patience)
        self.connection = None
        self.cursor = None
        self.host = "-"
        self.sequence = 0
        # A standby is asked what it is rather than given statements that fail, each of which it would log.
        self.read_only = args.stay

    def run(self):
        rounds = 0
        due = time.monotonic()
        while rounds % LOOK_EVERY or not os.path.exists(self.args.stop_file):
            rounds += 1
            if self.connection is None and not self.connect():
                time.sleep(max(self.args.interval, 0.02))
                due = time.monotonic()
                continue
            if not self.read_only or self.ask():
                self.insert()
            due += self.args.interval
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            else:
                due = time.monotonic()

    def connect(self):
        begin = time.monotonic()
        try:
            self.connection = psycopg2.connect(self.args.dsn)
            self.connection.autocommit = True
            self.cursor = self.connection.cursor()
            self.host = self.connection.info.host
        except psycopg2.Error as error:
            self.disconnect()
            self.failed(begin, "connect", error)
            return False
        self.out.write(f"C {begin:.4f} {time.monotonic():.4f} {self.host}\n")
        return True

    def disconnect(self):
        if self.connection is not None:
            try:
                self.connection.close()
            except psycopg2.Error:
                pass
        self.connection = None

    def ask(self):
        """Whether the server takes writes by now."""
        begin = time.monotonic()
        try:
            self.guarded("SELECT pg_is_in_recovery()")
            self.read_only = self.cursor.fetchone()[0]
        except psycopg2.Error as error:
            self.failed(begin, "ask", error)
            self.disconnect()
        return not self.read_only

    def guarded(self, statement, values=None):
        self.guard.run(self.connection.fileno(), lambda: self.cursor.execute(statement, values))

    def insert(self):
        self.sequence += 1
        row = (self.args.source, self.sequence)
        begin = time.monotonic()
        try:
            self.guarded("INSERT INTO probe (source, sequence) VALUES (%s, %s)", row)
        except psycopg2.errors.ReadOnlySqlTransaction as error:
            self.failed(begin, "readonly", error)
            if self.args.stay:
                self.read_only = True
            else:
                self.disconnect()
        except psycopg2.Error as error:
            self.failed(begin, "insert", error)
            self.disconnect()
        else:
            self.out.write(f"A {self.sequence} {begin:.4f} {time.monotonic():.4f} {self.host}\n")

    def failed(self, begin, phase, error):
        text = " ".join(str(error).split())[:160]
        span = f"{begin:.4f} {time.monotonic():.4f}"
        self.out.write(f"E {span} {phase} {self.sequence} {self.host} {text}\n")


if __name__ == "__main__":
    Writer(arguments()).run()
