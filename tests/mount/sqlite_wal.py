#!/usr/bin/env python3
"""SQLite in WAL mode: 100,000 rows, readers beside the writer, integrity, a reopen."""

from workloads import Sqlite, mounted

if __name__ == "__main__":
    mounted(Sqlite)
