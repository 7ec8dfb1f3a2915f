#!/usr/bin/env python3
"""odx scrub: damage under a live mount is named with all its owners, and a position survives."""

import errno
import os
import random

import odx_abi
from harness import (MIB, as_user, case_main, expect, expect_equal, expect_errno, json_of, run, say,
                     wait_for)
from upkeep import BLOCK, Churn, clone, control, find_on_device, flip, forget, put


def scrub(case, mount, *options, status=0):
    return json_of([case.odx, "scrub", "--json", *options, mount.path], status=status)


def damage_is_named(case, mount, dice):
    """A file, two clones of it (one of a part), a link and a token share one damaged block."""
    data = dice.randbytes(40 * BLOCK)
    victim, part = mount.path + "/victim", mount.path + "/dir/part"
    os.mkdir(mount.path + "/dir")
    put(victim, data)
    clone(victim, mount.path + "/copy")
    clone(victim, part, 16 * BLOCK, 8 * BLOCK)
    os.link(victim, mount.path + "/dir/link")
    run([case.odx, "read", "--ttl", "600000", victim])
    tokens = json_of([case.odx, "token", "list", "--mount", mount.path, "--json"])
    put(mount.path + "/bystander", dice.randbytes(100000))
    mount.sync()
    place = find_on_device(mount.store, data[20 * BLOCK:20 * BLOCK + 100])

    before = scrub(case, mount, "--rate", "0")
    expect_equal((before["state"], before["damaged_blocks"], before["problems"]), ("done", 0, []),
                 "before the damage")
    expect(before["done_bytes"] <= 41 * BLOCK + 100000 + BLOCK, "shared blocks were read twice")
    flip(place)
    found = scrub(case, mount, status=4)
    expect_equal((found["state"], found["damaged_blocks"], found["damaged_owners"]),
                 ("done", 1, 4), "the damage")
    text = "\n".join(found["problems"])
    whole = f": damaged bytes {20 * BLOCK} to {21 * BLOCK - 1}"
    for path in ('"/copy"' + whole, f'"/dir/part": damaged bytes {4 * BLOCK} to {5 * BLOCK - 1}'):
        expect(path in text, f"{path} is missing in:\n{text}")
    expect('"/victim"' + whole in text or '"/dir/link"' + whole in text, f"no victim in:\n{text}")
    expect(f"token {tokens[0]['id']}{whole}" in text, f"no token in:\n{text}")
    expect("bystander" not in text, f"a bystander in:\n{text}")
    people = run([case.odx, "scrub", "--status", mount.path], status=4).stdout.decode()
    expect("1 DAMAGED BLOCKS in 4 files and tokens" in people and whole in people, people)

    for path, at in ((victim, 20), (mount.path + "/copy", 20), (part, 4)):
        forget(path)
        with open(path, "rb", buffering=0) as file:
            with expect_errno(errno.EIO, f"reading the damage in {path}"):
                os.pread(file.fileno(), BLOCK, at * BLOCK)
            expect_equal(os.pread(file.fileno(), BLOCK, 0), data[(20 - at) * BLOCK:][:BLOCK],
                         f"the rest of {path}")
    flip(place)
    after = scrub(case, mount)
    expect_equal((after["pass"], after["damaged_blocks"], after["problems"]), (3, 0, []),
                 "once it is whole again")
    forget(victim)
    with open(victim, "rb") as file:
        expect_equal(file.read(), data, "the file")


def position_survives(case, mount, dice):
    """Through a crash, an unmount and a pause; a cancellation begins anew."""
    amount = (24 if case.quick else 96) * MIB
    put(mount.path + "/large", dice.randbytes(amount))
    run([case.odx, "scrub", "--background", "--rate", "256K", mount.path])
    saved = wait_for(lambda: scrub(case, mount, "--status")["saved_position"], "a saved position")
    mount.sync()
    mount.kill()
    mount = case.mount(mount.store)
    now = scrub(case, mount, "--status")
    expect_equal(now["state"], "interrupted", "after kill -9")
    expect(now["position"] >= saved, f"at {now['position']}, {saved} was saved")
    number = now["pass"]

    again = json_of([case.odx, "scrub", "--background", "--json", mount.path])
    expect_equal((again["state"], again["pass"], again["rate"]), ("running", number, MIB // 4),
                 "started again")
    expect(again["position"] >= saved, "it began anew")
    wait_for(lambda: scrub(case, mount, "--status")["position"] > again["position"], "progress")
    mount = case.remount(mount)
    now = scrub(case, mount, "--status")
    expect_equal(now["state"], "interrupted", "after an unmount")
    expect(now["position"] > again["position"], "an unmount lost the position")

    run([case.odx, "scrub", "--background", mount.path])
    run([case.odx, "scrub", "--pause", mount.path])
    paused = scrub(case, mount, "--status")
    expect_equal(paused["state"], "paused", "a pause")
    expect(paused["position"] >= now["position"], "a pause lost the position")
    done = scrub(case, mount, "--rate", "0")
    expect_equal((done["state"], done["pass"], done["percent"]), ("done", number, 100.0), "the end")
    expect_equal(done["done_bytes"], done["total_bytes"], "bytes at the end")
    expect(done["done_bytes"] >= amount, "not all was read")

    run([case.odx, "scrub", "--background", "--rate", "1K", mount.path])
    run([case.odx, "scrub", "--cancel", mount.path])
    expect_equal(scrub(case, mount, "--status")["state"], "cancelled", "a cancellation")
    run([case.odx, "scrub", "--cancel", mount.path], status=8)
    anew = scrub(case, mount, "--rate", "0")
    expect_equal((anew["pass"], anew["state"]), (number + 2, "done"), "after a cancellation")
    return mount


def only_for_owners(case, mount):
    control(mount.path, odx_abi.SCRUB, 0)
    for what, operation, tail in (("an operation", 4, b""), ("a rate", 0, bytes(4) + b"\1"),
                                  ("reserved bytes", 0, bytes(248) + b"\1")):
        with expect_errno(errno.EINVAL, what):
            control(mount.path, odx_abi.SCRUB, operation, tail)
    if os.geteuid() != 0:
        return

    def stranger():
        for number in (odx_abi.SCRUB, odx_abi.CHECK):
            for operation in range(3):
                with expect_errno(errno.EPERM, f"a stranger's {number & 0xFF:#x}"):
                    control(mount.path, number, operation)
    as_user(stranger)
    with open("/proc/mounts", encoding="utf-8") as file:
        expect(mount.path in file.read(), "the mount is gone")


def wrong_usage(case, mount):
    for words in (["--pause", "--cancel"], ["--status", "--rate", "1"], ["--rate", "x"],
                  ["--frobnicate"], ["two"]):
        run([case.odx, "scrub", *words, mount.path], status=16)
    run([case.odx, "scrub"], status=16)
    for path in (case.folder, case.place("nothing")):
        text = run([case.odx, "scrub", path], status=8).stderr.decode()
        expect(len(text.splitlines()) == 1, text)


def beside_writers(case, mount):
    with Churn(mount.path, 2):
        for _ in range(3 if case.quick else 15):
            found = scrub(case, mount, "--rate", "0")
            expect_equal((found["state"], found["problems"]), ("done", []), "beside writers")


def body(case):
    seed = random.randrange(2**32)
    say(f"seed {seed}")
    dice = random.Random(seed)
    mount = case.mount(case.store())
    expect_equal(scrub(case, mount, "--status")["state"], "never run", "a new store")
    run([case.odx, "scrub", "--pause", mount.path], status=8)
    damage_is_named(case, mount, dice)
    only_for_owners(case, mount)
    wrong_usage(case, mount)
    beside_writers(case, mount)
    mount = position_survives(case, mount, dice)
    mount = case.remount(mount, "ro")
    expect_equal(scrub(case, mount, "--rate", "0")["state"], "done", "a read-only mount")
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
