"""Inserts rows one by one and writes the number of each that was committed to stdout, until it is killed.

Run as: python -m tests.fault.disk.writing_process DATABASE FULL|NORMAL
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from edged.store.database import connect_writer

PAUSE_S = 0.001


def run(path: Path, synchronous: str) -> None:
    connection = connect_writer(path)
    connection.pragma("synchronous", synchronous)
    connection.execute("CREATE TABLE row(n INTEGER PRIMARY KEY, filling BLOB)")
    n = 0
    while True:
        n += 1
        connection.execute("INSERT INTO row VALUES (?, ?)", (n, os.urandom(500)))
        os.write(1, b"%d\n" % n)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
