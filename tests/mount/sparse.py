#!/usr/bin/env python3
"""Holes: SEEK_DATA and SEEK_HOLE, st_blocks, punching, and copies that keep them."""

import errno
import os

from harness import MIB, case_main, expect, expect_equal, expect_errno, run, say, wait_for
from posix_lib import fallocate

PUNCH_HOLE_KEEP_SIZE = 3
ZERO_RANGE = 0x10


def layout(descriptor):
    """[(start, end)] of the data, as SEEK_DATA and SEEK_HOLE tell it."""
    end, at, result = os.fstat(descriptor).st_size, 0, []
    while at < end:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            expect_equal(error.errno, errno.ENXIO, "SEEK_DATA past the last data")
            break
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        expect(at > start, f"SEEK_HOLE({start}) = {at}")
        result.append((start, at))
    return result


def covers(found, wanted):
    """Every byte that was written must be told as data; a hole may be told as data, not for much."""
    return all(any(a <= start and end <= b for a, b in found) for start, end in wanted)


def body(case):
    mount = case.mount(case.store())
    path = os.path.join(mount.path, "sparse")
    pieces = [(MIB, b"a" * MIB), (7 * MIB, b"b" * 4096), (100 * MIB - 5, b"tail!")]
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    for offset, data in pieces:
        os.pwrite(file, data, offset)

    # The pages are still dirty in the kernel: data must not be told as a hole.
    wanted = [(offset, offset + len(data)) for offset, data in pieces]
    expect(covers(layout(file), wanted), f"dirty data told as holes: {layout(file)}")
    os.fsync(file)
    exact = [(MIB, 2 * MIB), (7 * MIB, 7 * MIB + 4096), (100 * MIB - 4096, 100 * MIB)]
    os.close(file)
    file = os.open(path, os.O_RDWR)
    expect_equal(layout(file), exact, "the layout")
    say("seek is right")

    expect(MIB < os.fstat(file).st_blocks * 512 < 2 * MIB, f"st_blocks {os.fstat(file).st_blocks}")
    expect_equal(os.lseek(file, 0, os.SEEK_HOLE), 0, "a leading hole")
    expect_equal(os.lseek(file, MIB + 17, os.SEEK_DATA), MIB + 17, "SEEK_DATA within data")
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        with expect_errno(errno.ENXIO, "seeking at the end"):
            os.lseek(file, 100 * MIB, whence)

    # A page that another process has written and not flushed must be in a copy.
    other = os.open(path, os.O_RDWR)
    os.pwrite(other, b"dirty", 50 * MIB)
    run(["cp", path, path + ".copy"])
    run(["cmp", path, path + ".copy"])
    run(["cp", "--sparse=always", path, path + ".sparse"])
    run(["cmp", path, path + ".sparse"])
    os.close(other)
    expect(os.stat(path + ".sparse").st_blocks * 512 < 2 * MIB, "cp --sparse=always filled holes")
    say("copies beside a writer are whole")

    # copy_file_range keeps holes and shares the rest.
    before = mount.statistics()["device_bytes_written"]
    copy = os.open(path + ".range", os.O_RDWR | os.O_CREAT)
    done = 0
    while done < 100 * MIB:
        count = os.copy_file_range(file, copy, 100 * MIB - done, done, done)
        expect(count > 0, "copy_file_range stopped")
        done += count
    expect_equal(mount.statistics()["device_bytes_written"] - before, 0, "bytes moved")
    os.close(copy)
    copy = os.open(path + ".range", os.O_RDWR)
    expect(os.fstat(copy).st_blocks * 512 < 2 * MIB, "copy_file_range filled holes")
    expect_equal(layout(copy), layout(file), "the copy's layout")
    run(["cmp", path, path + ".range"])
    say("copy_file_range keeps holes")

    # Punching gives the space back and leaves zeros, unaligned edges too.
    free = mount.statistics()["free_bytes"]
    dense = os.open(path + ".dense", os.O_RDWR | os.O_CREAT)
    for index in range(32):
        os.pwrite(dense, bytes([index + 1]) * MIB, index * MIB)
    os.fsync(dense)
    fallocate(dense, PUNCH_HOLE_KEEP_SIZE, 4 * MIB + 100, 20 * MIB)
    expect_equal(os.fstat(dense).st_size, 32 * MIB, "the size after a punch")
    expect_equal(os.pread(dense, 200, 4 * MIB), b"\5" * 100 + bytes(100), "the left edge")
    expect_equal(os.pread(dense, 200, 24 * MIB), bytes(100) + b"\x19" * 100, "the right edge")
    expect_equal(os.pread(dense, MIB, 10 * MIB), bytes(MIB), "the middle")
    os.close(dense)
    dense = os.open(path + ".dense", os.O_RDWR)
    expect(os.fstat(dense).st_blocks * 512 <= 13 * MIB, "a punch freed nothing")
    fallocate(dense, ZERO_RANGE, 25 * MIB, 2 * MIB)
    expect_equal(os.pread(dense, 2 * MIB, 25 * MIB), bytes(2 * MIB), "a zeroed range")
    os.truncate(path + ".dense", 0)
    os.truncate(path + ".dense", MIB)
    expect_equal(os.pread(dense, MIB, 0), bytes(MIB), "after truncation to 0 and back")
    os.close(dense)
    os.unlink(path + ".dense")
    mount.sync()

    def given_back():
        now = mount.statistics()
        return free - now["free_bytes"] - now["pending_bytes"] < 8 * MIB

    wait_for(given_back, "the space of what was deleted")

    layout_before, sums = layout(file), run(["sha256sum", path]).stdout.split()[0]
    os.close(file)
    os.close(copy)
    mount = case.remount(mount)
    path = os.path.join(mount.path, "sparse")
    file = os.open(path, os.O_RDONLY)
    expect_equal(layout(file), layout_before, "the layout after a remount")
    expect_equal(run(["sha256sum", path]).stdout.split()[0], sums, "the content after a remount")
    os.close(file)
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
