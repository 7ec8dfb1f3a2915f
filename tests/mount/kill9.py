#!/usr/bin/env python3
"""kill -9 of the daemon under load, again and again: nothing that was durable may be missing.

20 kills; ODX_KILLS=200 in the environment makes that many instead (the long mode)."""

import os
import random
import re
import signal
import subprocess
import sys

import odx_abi
from harness import (Failure, MIB, case_main, environment, expect, expect_equal, run, say, wait_for)
from kill_writers import TOKEN_BYTES, record, token_content
from workloads import sha256

KINDS = ("log", "database", "copies", "order", "churn", "tokens", "git")
TOKENS_TRIED = 100  # of each kill, the last ones


def replies_in(path):
    """What a writer was told, oldest first: words, the first of which is a number."""
    try:
        with open(path, encoding="ascii") as file:
            return [line.split() for line in file.read().split("\n")[:-1]]
    except FileNotFoundError:
        return []


def acknowledged(path):
    """The last number that a writer saw made durable, or -1."""
    replies = replies_in(path)
    return int(replies[-1][0]) if replies else -1


def check_log(folder, last):
    """All acknowledged records, then perhaps more of them, then at most a piece of one."""
    with open(folder + "/log", "rb") as file:
        data = file.read()
    at, number = 0, 0
    while at < len(data):
        wanted = record(number)
        if data[at:at + len(wanted)] != wanted:
            break
        at, number = at + len(wanted), number + 1
    expect(number > last, f"the log ends at record {number - 1}, {last} was acknowledged")
    expect(wanted.startswith(data[at:]) or at == len(data), f"garbage in the log at {at}")
    return number


def check_database(folder, last):
    answer = run(["sqlite3", folder + "/db", "PRAGMA integrity_check; SELECT count(*), max(id) "
                  "FROM t; SELECT count(*) FROM t WHERE data != replace(hex(zeroblob(20)), '00', id)"
                  ";"]).stdout.decode().split()
    expect_equal(answer[0], "ok", "the database's integrity")
    count, highest = answer[1].split("|")
    expect(int(count) % 10 == 0 and (not int(count) or int(highest) == int(count) - 1),
           f"part of a transaction: {count} rows up to {highest}")
    expect(int(count) >= last, f"{count} rows, {last} were acknowledged")
    return int(count)


def check_copies(folder, last, size, sums):
    expect_equal(sha256(folder + "/original"), sums, "the original")
    present = {int(name[5:]) for name in os.listdir(folder) if name.startswith("copy-")}
    for number in range(max(0, last - 18), last + 1):
        expect(number in present, f"copy {number} is missing, {last} was acknowledged")
        copy = f"{folder}/copy-{number}"
        expect_equal((os.stat(copy).st_size, sha256(copy)), (size, sums), f"copy {number}")
    return len(present)


def check_order(folder):
    """The directory must be as it was at one moment."""
    names = os.listdir(folder)
    steps = sorted(int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name)))
    expect_equal(steps, list(range(len(steps))), "the steps that survived")
    rest = [name for name in names if not re.fullmatch(r"step-\d+", name)]
    expect(rest in ([], [f"step-{len(steps)}-new"]), f"left beside them: {rest}")
    return len(steps)


def check_tokens(folder, replies):
    """Durable tokens redeem to the bytes of their moment; the others do, or are refused."""
    refused = {odx_abi.STATUS["INVALID_TOKEN"]}
    good = 0
    target = os.open(folder + "/redeemed", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for number, kind, token in replies[-TOKENS_TRIED:]:
            os.ftruncate(target, 0)
            os.ftruncate(target, TOKEN_BYTES)
            answer = odx_abi.offload_write(target, bytes.fromhex(token), 0, TOKEN_BYTES)
            if kind == "plain" and answer.status in refused:
                continue
            what = f"token {number}, which was {kind}"
            expect_equal((answer.errno, answer.length), (0, TOKEN_BYTES), what)
            expect(os.pread(target, TOKEN_BYTES, 0) == token_content(int(number)),
                   f"{what}: other bytes")
            good += 1
    finally:
        os.close(target)
    return good


def git_in(folder, *words):
    return run(["git", "-C", folder, *words]).stdout.decode()


def new_repository(folder):
    git_in(folder, "init", "-q", "-b", "main")
    for name, value in (("core.fsync", "all"), ("core.fsyncMethod", "fsync"), ("gc.auto", "0"),
                        ("user.name", "nobody"), ("user.email", "nobody@localhost")):
        git_in(folder, "config", name, value)


def check_git(folder, last):
    """The repository is whole, and has a first so many of the commits, with their content."""
    git_in(folder, "fsck", "--full", "--strict", "--no-dangling")
    subjects = git_in(folder, "log", "--reverse", "--format=%s").split("\n")[:-1]
    expect_equal(subjects, [f"commit {number}" for number in range(len(subjects))], "git log")
    expect(len(subjects) > last, f"{len(subjects)} commits, {last} was acknowledged")
    number = len(subjects) - 1
    expect_equal(git_in(folder, "show", f"HEAD:file-{number % 7}"), f"{number}\n" * 500, "HEAD")
    return len(subjects)


def one_round(case, store, turn, dice):
    mount = case.mount(store)
    base = os.path.join(mount.path, f"round-{turn}")
    os.mkdir(base)
    folders = {kind: os.path.join(base, kind) for kind in KINDS}
    for folder in folders.values():
        os.mkdir(folder)
    original = folders["copies"] + "/original"
    size = 3 * MIB + 1000
    with open(original, "wb") as file:
        file.write(dice.randbytes(size))
    sums = sha256(original)
    new_repository(folders["git"])
    mount.sync()

    replies = {kind: case.place(f"acknowledged-{kind}") for kind in KINDS}
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kill_writers.py")
    journal = "WAL" if turn % 2 == 0 else "DELETE"
    writers = {kind: subprocess.Popen([sys.executable, program, kind, folders[kind], replies[kind]],
                                      stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                      env=environment(ODX_JOURNAL=journal)) for kind in KINDS}
    try:
        # The moment of death: when the log has come so far (records are acknowledged at the pace of
        # the machine, so this lands anywhere in what the others do).
        target = dice.randrange(5, 100)

        def far_enough():
            for kind, writer in writers.items():
                if writer.poll() is not None:
                    raise Failure(f"the {kind} writer ended: {writer.stderr.read().decode()}")
            return (acknowledged(replies["log"]) >= target
                    and all(acknowledged(replies[kind]) >= 0
                            for kind in ("database", "copies", "tokens", "git")))

        wait_for(far_enough, f"{target} records", 240)
        mount.kill()
        for kind, writer in writers.items():
            text = writer.communicate(timeout=60)[1].decode()
            # SQLite maps its -shm file: a load from a dead mount is a bus error.
            fine = (0, -signal.SIGBUS) if kind == "database" else (0,)
            expect(writer.returncode in fine, f"the {kind} writer: {writer.returncode} {text}")
    finally:
        for writer in writers.values():
            if writer.poll() is None:
                writer.kill()
                writer.wait()

    if turn % 2:
        case.check(store)  # as the crash left it
    mount = case.mount(store)
    base = os.path.join(mount.path, f"round-{turn}")
    found = (check_log(base + "/log", acknowledged(replies["log"])),
             check_database(base + "/database", acknowledged(replies["database"])),
             check_copies(base + "/copies", acknowledged(replies["copies"]), size, sums),
             check_order(base + "/order"),
             check_tokens(base + "/tokens", replies_in(replies["tokens"])),
             check_git(base + "/git", acknowledged(replies["git"])))
    for name in os.listdir(base + "/churn"):
        with open(f"{base}/churn/{name}", "rb") as file:
            file.read()  # checksums are judged by the read itself
    say("round {}: {} records, {} rows, {} copies, {} steps, {} tokens, {} commits".format(
        turn, *found))
    run(["rm", "-rf", base])
    if turn % 3 == 2:
        mount.kill()  # a crash right after recovery and in the middle of reclaiming
    else:
        mount.unmount()
    case.check(store)


def body(case):
    seed = random.randrange(2**32)
    say(f"seed {seed}")
    dice = random.Random(seed)
    store = case.store()
    for turn in range(KILLS or (3 if case.quick else 20)):
        one_round(case, store, turn, dice)


KILLS = int(os.environ.get("ODX_KILLS", "0"))

if __name__ == "__main__":
    case_main(body, seconds=600 + 60 * KILLS)
