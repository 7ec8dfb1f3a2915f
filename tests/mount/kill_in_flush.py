#!/usr/bin/env python3
"""kill -9 while the daemon has the kernel write pages back: nobody may be left waiting for ever.

A thread of the daemon that waits for the kernel, which waits for the daemon, cannot be interrupted;
without help it would hold the store's lock and every user of the mount."""

import os
import random
import signal
import subprocess
import sys

import odx_abi
from harness import MIB, case_main, expect, say, wait_for


def write_for_ever(path):
    with open(path, "r+b", buffering=0) as file:
        while True:
            for at in range(0, 8 * MIB, 65536):
                os.pwrite(file.fileno(), b"x" * 5000, at)
            # Into pages that are cached, the kernel goes on writing after the daemon's death.
            os.fstatvfs(file.fileno())


def seek_for_ever(path, progress):
    with open(path, "rb", buffering=0) as file:
        number = 0
        while True:
            os.lseek(file.fileno(), 0, os.SEEK_DATA)
            number += 1
            with open(progress, "w", encoding="utf-8") as out:
                out.write(str(number))


def offload_for_ever(path, progress):
    with open(path, "r+b", buffering=0) as file:
        number = 0
        while True:
            reply = odx_abi.offload_read(file.fileno(), 0, 4 * MIB)
            written = odx_abi.offload_write(file.fileno(), reply.token, 4 * MIB, reply.length)
            if reply.errno or written.errno:
                return
            number += 1
            with open(progress, "w", encoding="utf-8") as out:
                out.write(str(number))


def done(progress):
    try:
        with open(progress, encoding="utf-8") as file:
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


def one_round(case, store, dice, turn):
    mount = case.mount(store)
    path = os.path.join(mount.path, "file")
    with open(path, "wb") as file:
        file.write(dice.randbytes(8 * MIB))
    progress = {kind: case.place(f"progress-{turn}-{kind}") for kind in ("seek", "offload")}
    program = os.path.abspath(__file__)
    children = [subprocess.Popen([sys.executable, program, *words], stdin=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
                for words in (["write", path], ["write", path],
                              ["seek", path, progress["seek"]],
                              ["offload", path, progress["offload"]])]
    try:
        target = dice.randrange(1, 30)
        wait_for(lambda: all(done(p) >= target for p in progress.values()), "work to begin", 120)
        mount.kill()
        for child in children:
            child.wait(timeout=60)  # an error from the dead mount ends each of them
    finally:
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
    case.check(store)


def body(case):
    seed = random.randrange(2**32)
    say(f"seed {seed}")
    dice = random.Random(seed)
    store = case.store()
    for turn in range(3 if case.quick else 10):
        one_round(case, store, dice, turn)
    expect(len(case.mounts) == 0, "a mount is left")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        {"write": write_for_ever, "seek": seek_for_ever,
         "offload": offload_for_ever}[sys.argv[1]](*sys.argv[2:])
    else:
        case_main(body)
