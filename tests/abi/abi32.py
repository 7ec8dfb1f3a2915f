#!/usr/bin/env python3
"""A program of 32 bits and one of 64 make the same calls on a mount: the answers must be the same.

Run as abi32.py BUILD_DIR. The programs are golden.c's; a token that one took serves the other.
"""

import os
import random
import sys

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "mount"))

# pylint: disable-next=wrong-import-position
from harness import case_main, expect, expect_equal, run, say

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.txt")
SECTOR = 512


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)


def content(path):
    with open(path, "rb") as file:
        return file.read()


def calls(program, folder, data):
    """What the program prints, where its token is, and what became of the target."""
    os.mkdir(folder)
    source, target, token = (f"{folder}/{name}" for name in ("source", "target", "token"))
    put(source, data)
    put(target, bytes(24 * SECTOR))
    text = run([program, GOLDEN, "calls", source, target, token]).stdout.decode()
    wanted = data[4 * SECTOR:12 * SECTOR] + data[12 * SECTOR:16 * SECTOR] + bytes(12 * SECTOR)
    expect(content(target) == wanted, f"{program}: the target")
    return text, token


def body(case):
    programs = [os.path.join(case.build, "tests", "abi", name) for name in ("golden64", "golden32")]
    for program, bits in zip(programs, (b"8 bytes", b"4 bytes")):
        expect(bits in run([program, GOLDEN]).stdout, f"{program} is not what its name says")
    mount = case.mount(case.store(1 << 30))
    data = random.Random(32).randbytes(16 * SECTOR)
    texts, tokens = zip(*(calls(program, f"{mount.path}/{number}", data)
                          for number, program in enumerate(programs)))
    expect_equal(len(texts[0].splitlines()), 11, "the number of calls")
    expect_equal(texts[1].splitlines(), texts[0].splitlines(), "what 32 bits see")
    for program, token in zip(programs, reversed(tokens)):
        target = mount.path + "/redeemed"
        put(target, bytes(16 * SECTOR))
        run([program, GOLDEN, "redeem", target, token])
        expect(content(target) == data, "a token of the other program's")
    say(f"{len(texts[0].splitlines())} calls are answered alike, and tokens serve both")
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
