#!/usr/bin/env python3
"""Watches each node, four times a second: whether it is in recovery, and who streams from it.

    watch.py OUT STOP_FILE NODE=DSN ...

Each change is a line of JSON in OUT. Times are seconds of CLOCK_MONOTONIC. Standbys are named by address,
since each system has an `application_name` of its own.
"""

import json
import os
import socket
import sys
import threading
import time

import psycopg2

PERIOD = 0.25
# How long a node may take to answer before its connection is given up.
PATIENCE = 1.5
QUERY = """
select pg_is_in_recovery(),
       coalesce((select json_agg(json_build_array(host(client_addr), state) order by client_addr)
                 from pg_stat_replication), '[]'::json)
"""


class Node(threading.Thread):
    def __init__(self, name, dsn, out):
        super().__init__(daemon=True)
        self.name_of_node = name
        self.dsn = dsn
        self.out = out
        self.connection = None
        self.lock = threading.Lock()
        self.deadline = None
        threading.Thread(target=self._guard, daemon=True).start()

    def run(self):
        last = None
        while True:
            begin = time.monotonic()
            seen = self.look()
            if seen != last:
                last = seen
                line = {"at": round(time.monotonic(), 3), "node": self.name_of_node, **seen}
                self.out.write(json.dumps(line) + "\n")
            time.sleep(max(PERIOD - (time.monotonic() - begin), 0.1))

    def look(self):
        try:
            if self.connection is None:
                self.connection = psycopg2.connect(self.dsn)
                self.connection.autocommit = True
            with self.lock:
                self.deadline = time.monotonic() + PATIENCE
            with self.connection.cursor() as cursor:
                cursor.execute(QUERY)
                in_recovery, standbys = cursor.fetchone()
            return {"up": True, "in_recovery": in_recovery, "standbys": standbys}
        except psycopg2.Error:
            if self.connection is not None:
                try:
                    self.connection.close()
                except psycopg2.Error:
                    pass
                self.connection = None
            return {"up": False}
        finally:
            with self.lock:
                self.deadline = None

    def _guard(self):
        while True:
            time.sleep(0.1)
            with self.lock:
                if self.deadline is None or time.monotonic() < self.deadline or self.connection is None:
                    continue
                self.deadline = None
                try:
                    with socket.socket(fileno=os.dup(self.connection.fileno())) as connection:
                        connection.shutdown(socket.SHUT_RDWR)
                except (OSError, psycopg2.Error):
                    pass


def main():
    out = open(sys.argv[1], "w", buffering=1)
    stop_file = sys.argv[2]
    for node in sys.argv[3:]:
        name, dsn = node.split("=", 1)
        Node(name, dsn, out).start()
    while not os.path.exists(stop_file):
        time.sleep(0.2)


main()
