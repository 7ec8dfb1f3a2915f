#!/usr/bin/env python3
"""cp of a big file moves no data, and takes as long as cp of a file a hundredth of its size."""

import os
import random
import statistics
import time

from harness import GIB, MIB, case_main, expect, expect_equal, run, say


class Pattern:
    """Dense content that differs in every megabyte and can be made again."""

    def __init__(self, seed):
        self._filler = random.Random(seed).randbytes(MIB - 16)

    def block(self, index):
        return index.to_bytes(16, "little") + self._filler

    def write(self, path, blocks):
        with open(path, "wb", buffering=0) as file:
            for index in range(blocks):
                file.write(self.block(index))
            os.fsync(file.fileno())

    def expect_in(self, path, blocks, skip=()):
        with open(path, "rb", buffering=0) as file:
            for index in range(blocks):
                if index in skip:
                    file.seek(MIB, os.SEEK_CUR)
                    continue
                expect(file.read(MIB) == self.block(index), f"{path}: megabyte {index} is wrong")
            expect_equal(file.read(1), b"", f"{path}: what follows the end")


def timed_copy(source, copy):
    """One cp, and how long it took."""
    begin = time.monotonic()
    run(["cp", source, copy])
    return time.monotonic() - begin


def body(case):
    small_blocks = 4 if case.quick else 40
    big_blocks = 100 * small_blocks if case.quick else 4096
    mount = case.mount(case.store(24 * GIB))
    pattern = Pattern(7)
    small, big = (os.path.join(mount.path, name) for name in ("small", "big"))
    pattern.write(small, small_blocks)
    pattern.write(big, big_blocks)
    for path, blocks in ((small, small_blocks), (big, big_blocks)):
        expect(os.stat(path).st_blocks * 512 >= blocks * MIB, f"{path} is not dense")
    mount.sync()
    say("the files are written")

    before = mount.statistics()
    times = {small: [], big: []}
    for turn in range(9):
        for source in (small, big):
            copy = f"{source}-copy-{turn}"
            times[source].append(timed_copy(source, copy))
            if turn not in (0, 8):
                os.unlink(copy)
    mount.sync()
    after = mount.statistics()
    moved = after["device_bytes_written"] - before["device_bytes_written"]
    read = after["device_bytes_read"] - before["device_bytes_read"]
    named = after["clone_bytes_shared"] - before["clone_bytes_shared"]
    expect_equal((moved, read), (0, 0), "data bytes written and read by 18 copies")
    expect_equal(named, 9 * (small_blocks + big_blocks) * MIB, "bytes shared by 18 copies")
    grown = before["free_bytes"] - after["free_bytes"]
    expect(grown < 32 * MIB, f"the copies took {grown} bytes of space")

    short, long = (statistics.median(times[path]) for path in (small, big))
    say(f"cp of {small_blocks} MiB: {short * 1000:.2f} ms; of {big_blocks} MiB: "
        f"{long * 1000:.2f} ms (medians of 9, interleaved)")
    # Moving the bytes would make this factor 100.
    expect(long < 3 * short + 0.010, "the big copy takes longer than the small one")

    pattern.expect_in(big + "-copy-8", big_blocks)
    say("the copy is equal")
    with open(big, "r+b", buffering=0) as file:
        for index in range(0, big_blocks, 50):
            file.seek(index * MIB + 1234)
            file.write(b"changed")
        os.ftruncate(file.fileno(), (big_blocks - 1) * MIB)
    with open(big + "-copy-0", "r+b", buffering=0) as file:
        file.seek(3 * MIB)
        file.write(bytes(MIB))
    mount = case.remount(mount)
    big = os.path.join(mount.path, "big")
    pattern.expect_in(big + "-copy-8", big_blocks)
    pattern.expect_in(big + "-copy-0", big_blocks, skip={3})
    expect(os.stat(big).st_size == (big_blocks - 1) * MIB, "the shortened original's size")
    say("each copy lives its own life")
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
