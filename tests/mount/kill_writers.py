#!/usr/bin/env python3
"""Writers for kill9.py: kill_writers.py KIND FOLDER ACKNOWLEDGED

Each works on FOLDER until the filesystem dies under it, and appends a line to ACKNOWLEDGED (which
lies on another filesystem) each time that something has become durable. Exit status 0: it stopped
because the mount died; 1: anything else.
"""

import errno
import hashlib
import os
import sqlite3
import subprocess
import sys
import zlib

import odx_abi


def record(number):
    """One record of the log: its number, its length and content that follows from both, its sum."""
    body = hashlib.sha256(str(number).encode()).digest() * (1 + number % 200)
    head = number.to_bytes(8, "little") + len(body).to_bytes(8, "little")
    return head + body + zlib.crc32(head + body).to_bytes(4, "little")


def log(folder, acknowledge):
    """Appends records and has each made durable by fsync or O_DSYNC."""
    path = folder + "/log"
    plain = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    synchronous = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_DSYNC)
    os.fsync(os.open(folder, os.O_RDONLY))
    number = 0
    while True:
        if number % 5 == 4:
            os.write(synchronous, record(number))
        else:
            os.write(plain, record(number))
            os.fsync(plain)
        acknowledge(number)
        number += 1


def database(folder, acknowledge):
    """Transactions of ten rows, each durable when its COMMIT returns.

    With a rollback journal a commit is its unlink(2), which only synchronous=EXTRA makes durable, by
    an fsync of the directory. If the filesystem dies between the two, SQLite cannot open the directory
    any more and reports success all the same; hence a sign of life before it is believed."""
    connection = sqlite3.connect(folder + "/db", isolation_level=None, timeout=60)
    connection.execute(f"PRAGMA journal_mode={os.environ.get('ODX_JOURNAL', 'WAL')}")
    connection.execute("PRAGMA synchronous=EXTRA")
    connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, data TEXT)")
    number = 0
    while True:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t VALUES (?, ?)",
                               ((row, str(row) * 20) for row in range(number, number + 10)))
        connection.execute("COMMIT")
        os.statvfs(folder)
        number += 10
        acknowledge(number)


def copies(folder, acknowledge):
    """Copies of one file by copy_file_range, each made durable; older ones are unlinked."""
    number, directory = 0, os.open(folder, os.O_RDONLY)
    source = os.open(folder + "/original", os.O_RDONLY)
    size = os.fstat(source).st_size
    while True:
        target = os.open(f"{folder}/copy-{number}", os.O_RDWR | os.O_CREAT, 0o644)
        done = 0
        while done < size:
            done += os.copy_file_range(source, target, size - done, done, done)
        os.fsync(target)
        os.close(target)
        os.fsync(directory)
        acknowledge(number)
        if number >= 20:
            os.unlink(f"{folder}/copy-{number - 20}")
        number += 1


def order(folder, acknowledge):
    """Names only, in order and never synced: those that survive must be the first so many."""
    number = 0
    while True:
        os.mkdir(f"{folder}/step-{number}-new")
        os.rename(f"{folder}/step-{number}-new", f"{folder}/step-{number}")
        if number % 1000 == 999:
            acknowledge(number)
        number += 1


def churn(folder, acknowledge):
    """Everything at once with no promise at all: writes, overwrites, truncations, unlinks."""
    number = 0
    while True:
        path = f"{folder}/churn-{number % 50}"
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.pwrite(file, os.urandom(30_000), (number * 7919) % 500_000)
        if number % 3 == 0:
            os.ftruncate(file, (number * 104729) % 400_000)
        os.close(file)
        if number % 7 == 0:
            os.unlink(path)
        if number % 100 == 0:
            acknowledge(number)
        number += 1


def token_content(number):
    """What the source of a token holds when the token is made."""
    return hashlib.shake_256(b"token %d" % number).digest(TOKEN_BYTES)


TOKEN_BYTES = 64 << 10
TOKEN_TTL_MS = 600_000


def tokens(folder, acknowledge):
    """Tokens of a source that is overwritten again at once; every second one is made durable.

    What is acknowledged is the token itself. No other process syncs in between for certain, so one
    that was not made durable may be gone after a crash, or be good; it is never good for other bytes."""
    source = os.open(folder + "/source", os.O_RDWR | os.O_CREAT, 0o644)
    number = 0
    while True:
        os.pwrite(source, token_content(number), 0)
        durable = number % 2 == 0
        reply = odx_abi.offload_read(source, 0, TOKEN_BYTES, ttl=TOKEN_TTL_MS,
                                     options=odx_abi.TOKEN_SYNC if durable else 0)
        if reply.errno:
            raise OSError(reply.errno, f"token {number}: {reply}")
        acknowledge(number, "durable" if durable else "plain", reply.token.hex())
        number += 1


def git(folder, acknowledge):
    """Commits. git has all that it writes synced (core.fsync=all), but the name of a new ref is a
    rename, which a sync of its directory makes durable."""
    directory = os.open(folder + "/.git/refs/heads", os.O_RDONLY)
    number = 0
    while True:
        with open(f"{folder}/file-{number % 7}", "w", encoding="ascii") as file:
            file.write(f"{number}\n" * 500)
        for words in (["add", "-A"], ["commit", "-q", "-m", f"commit {number}"]):
            done = subprocess.run(["git", "-C", folder, *words], capture_output=True, check=False,
                                  stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise OSError(errno.EIO, f"git {words[0]}: {done.returncode} {done.stderr!r}")
        os.fsync(directory)
        acknowledge(number)
        number += 1


def is_gone(folder):
    try:
        os.statvfs(folder)  # unlike stat, never answered from a cache of the kernel's
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT)
    return False


def main():
    kinds = {"log": log, "database": database, "copies": copies, "order": order, "churn": churn,
             "tokens": tokens, "git": git}
    kind, folder, path = sys.argv[1:4]
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        kinds[kind](folder, lambda *words: os.write(target, " ".join(map(str, words)).encode() + b"\n"))
    except (OSError, sqlite3.Error):
        # SQLite has many words for it; what matters is that the mount is dead, or detached already.
        if not is_gone(folder):
            raise


if __name__ == "__main__":
    main()
