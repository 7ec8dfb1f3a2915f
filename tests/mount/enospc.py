#!/usr/bin/env python3
"""A full store: ENOSPC is told when bytes are taken, deleting works, and it can be used again."""

import errno
import os
import random

from harness import MIB, case_main, expect, expect_errno, run, say, wait_for


def fill(path, piece):
    """Writes until there is no more room; the number of bytes that fsync confirmed."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    confirmed = 0
    try:
        while True:
            done = os.write(file, piece)
            os.fsync(file)
            confirmed += done
    except OSError as error:
        expect(error.errno == errno.ENOSPC, f"a full store answers {error}")
    finally:
        try:
            os.close(file)
        except OSError as error:
            expect(error.errno == errno.ENOSPC, f"close on a full store answers {error}")
    return confirmed


def told_at_once(case):
    """Without the kernel's write cache, the write(2) that does not fit says so itself."""
    mount = case.mount(case.store(64 * MIB), "no_writeback")
    file = os.open(mount.path + "/file", os.O_WRONLY | os.O_CREAT, 0o644)
    with expect_errno(errno.ENOSPC, "write on a full store"):
        for _ in range(65):
            os.write(file, bytes(range(256)) * 4096)
    os.fsync(file)
    os.close(file)
    case.close(mount)


def body(case):
    told_at_once(case)
    store = case.store(64 * MIB)
    mount = case.mount(store)
    piece = random.Random(13).randbytes(256 * 1024)
    with open(mount.path + "/kept", "wb") as file:
        file.write(piece * 16)
    path = mount.path + "/fill"
    first = fill(path, piece)
    say(f"{first / MIB:.1f} MiB went into a store of 64 MiB")
    # The reserve for deletes and checkpoints is at most 64 MiB, and so may be much of a small store.
    expect(8 * MIB <= first <= 64 * MIB, "an implausible amount")
    with open(path, "rb") as file:
        for _ in range(first // len(piece)):
            expect(file.read(len(piece)) == piece, "confirmed bytes differ on a full store")
    mount.alive()
    with expect_errno(errno.ENOSPC, "fallocate on a full store"):
        descriptor = os.open(mount.path + "/more", os.O_RDWR | os.O_CREAT)
        try:
            os.posix_fallocate(descriptor, 0, 16 * MIB)
        finally:
            os.close(descriptor)
    # Copies need no room for data.
    run(["cp", mount.path + "/kept", mount.path + "/copy"])
    run(["cmp", mount.path + "/kept", mount.path + "/copy"])
    os.unlink(mount.path + "/copy")
    # What does not fit is told, also where the kernel took it first.
    outside = case.place("outside")
    with open(outside, "wb") as file:
        file.write(os.urandom(8 * MIB))
    run([case.odx, "cp", outside, mount.path + "/outside"], status=1)
    os.unlink(mount.path + "/outside")

    for turn in range(4):
        os.unlink(path)
        again = 0

        def room(size=first * 9 // 10):
            return os.statvfs(mount.path).f_bavail * os.statvfs(mount.path).f_frsize >= size

        wait_for(room, "the space of a deleted file")
        again = fill(path, piece)
        expect(again >= first * 9 // 10, f"turn {turn}: {again} bytes of {first} fit again")
    say("deleting gives the space back")

    # Cut in the middle, many small files, and a full store through a remount.
    os.truncate(path, first // 2)
    wait_for(lambda: os.statvfs(mount.path).f_bavail * 4096 > 4 * MIB, "the space of a cut file")
    os.mkdir(mount.path + "/small")
    count = 0
    try:
        while count < 20_000:
            with open(f"{mount.path}/small/{count}", "wb") as file:
                file.write(piece[:10_000])
                file.flush()
                os.fsync(file.fileno())
            count += 1
    except OSError as error:
        expect(error.errno == errno.ENOSPC, f"a full store answers {error}")
    expect(100 < count < 20_000, f"{count} small files")
    mount = case.remount(mount)
    for number in range(count):
        with open(f"{mount.path}/small/{number}", "rb") as file:
            expect(file.read() == piece[:10_000], f"small file {number}")
    run(["rm", "-rf", mount.path + "/small", mount.path + "/fill"])
    wait_for(lambda: os.statvfs(mount.path).f_bavail * 4096 >= first * 9 // 10, "the space of all")
    with open(mount.path + "/last", "wb") as file:
        file.write(piece * 8)
        os.fsync(file.fileno())
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
