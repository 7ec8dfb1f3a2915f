#!/usr/bin/env python3
"""What a daemon takes of its machine: memory stays within its caches however many files, extents and
tokens there are; descriptors, threads, processes and mounts do not pile up.

Memory is anonymous memory (RssAnon): pages of the metadata's map belong to the kernel's page cache.
The default amounts are small. ODX_LONG=1 in the environment makes a million files, a file of a million
extents, 100,000 tokens and 1,000 mount cycles: that takes most of an hour."""

import os
import re
import sys

import odx_abi
from harness import MIB, case_main, expect, expect_equal, is_mounted, run, say, start_time, wait_for

LONG = os.environ.get("ODX_LONG", "") not in ("", "0")

# What the caches and buffers of lib/store and fs/daemon may hold, all full: inodes (65,536), tree
# nodes (64 MiB), changes on their way to LMDB (2 * 64 MiB, and the pages that a checkpoint changes),
# buffers of up to 32 workers (2 MiB each). More than that is not to be had by any amount of files.
BOUND = 640 * MIB
# In the small amounts, nothing is full. Sanitizers have memory of their own.
SMALL_BOUND = 256 * MIB
# The daemon must count how often the kernel has been told of an inode, until the kernel forgets it.
FOR_A_KNOWN_INODE = 128


def anonymous_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"RssAnon:\s+(\d+) kB", file.read())[1]) * 1024


class Meter:
    """Looks at a daemon now and then, and judges it at the end of a part."""

    def __init__(self, case, pid):
        self.judged = LONG or not sanitized(case)
        self.pid, self.peak = pid, 0
        self.before = self.look()

    def look(self):
        now = anonymous_bytes(self.pid)
        self.peak = max(self.peak, now)
        return now

    def judge(self, what, allowed=0):
        self.look()
        bound = (BOUND if LONG else SMALL_BOUND) + allowed
        say(f"{what}: anonymous memory {self.before / MIB:.0f} MiB before, at most "
            f"{self.peak / MIB:.0f} MiB, bound {bound / MIB:.0f} MiB")
        expect(self.peak <= bound or not self.judged, f"{what}: {self.peak} bytes of memory")


def sanitized(case):
    with open(case.daemon, "rb") as file:
        return re.search(rb"lib[at]san\.so", file.read()) is not None


def holdings(pid):
    """Descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def many_files(mount, meter, count):
    for number in range(count):
        if number % 1000 == 0:
            folder = f"{mount.path}/files/{number // 1000}"
            os.makedirs(folder)
            meter.look()
        file = os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        if number % 16 == 0:
            os.write(file, b"%d" % number)
        os.close(file)
    meter.judge(f"{count} files made", count * FOR_A_KNOWN_INODE)
    seen = 0
    for folder in os.scandir(mount.path + "/files"):
        for entry in os.scandir(folder.path):
            entry.stat(follow_symlinks=False)
            seen += 1
        meter.look()
    expect_equal(seen, count, "files listed")
    meter.judge(f"{count} files listed", count * FOR_A_KNOWN_INODE)


SOURCE_BLOCKS = 61


def many_extents(mount, meter, count):
    """A file of so many extents: each of its blocks is another block of a small file."""
    block = 4096
    source = odx_abi.new_file(mount.path + "/source", b"".join(
        bytes([number]) * block for number in range(SOURCE_BLOCKS)))
    os.fsync(source)
    target = odx_abi.new_file(mount.path + "/extents")

    def place(number):
        return number * 7 % SOURCE_BLOCKS * block

    for number in range(count):
        done = os.copy_file_range(source, target, block, place(number), number * block)
        expect_equal(done, block, "copy_file_range")
        if number % 5000 == 0:
            meter.look()
    meter.judge(f"a file of {count} extents made")
    token = odx_abi.offload_read(target, 0, count * block)
    expect_equal((token.errno, token.length), (0, count * block), "a token of it")
    copy = odx_abi.new_file(mount.path + "/copy")
    os.ftruncate(copy, count * block)
    written = odx_abi.offload_write(copy, token.token, 0, count * block)
    expect_equal((written.errno, written.length), (0, count * block), "the token redeemed")
    for number in range(0, count, 257):  # over all the tree
        expect_equal(os.pread(copy, 1, number * block), bytes([place(number) // block]), "the copy")
        os.pwrite(copy, b"x", number * block)
        if number % 4096 == 0:
            meter.look()
    meter.judge(f"{count} extents cloned, read and overwritten")
    os.close(source)
    os.close(target)
    os.close(copy)
    folder = os.open(mount.path, os.O_RDONLY)
    odx_abi.drop_token(folder, token.token)
    os.close(folder)
    os.unlink(mount.path + "/extents")
    os.unlink(mount.path + "/copy")
    wait_for(lambda: mount.statistics()["reclaim_pending"] == 0, "the extents' end", 600)
    meter.judge(f"{count} extents given up")


def many_tokens(mount, meter, count):
    source = odx_abi.new_file(mount.path + "/tokens", b"t" * 65536)
    last = None
    for number in range(count):
        last = odx_abi.offload_read(source, 0, 65536, ttl=3_600_000)
        expect_equal(last.errno, 0, f"token {number}")
        if number % 1000 == 0:
            meter.look()
    expect_equal(mount.statistics()["tokens_live"], count, "live tokens")
    meter.judge(f"{count} tokens made")
    written = odx_abi.offload_write(source, last.token, 0, 65536)
    expect_equal((written.errno, written.length), (0, 65536), "the last one redeemed")
    found = odx_abi.list_tokens(source)
    expect_equal(len(found), count, "tokens listed")
    for number in found:
        odx_abi.fcntl.ioctl(source, odx_abi.DROP, number)
    expect_equal(mount.statistics()["tokens_live"], 0, "live tokens after dropping all")
    meter.judge(f"{count} tokens dropped")
    os.close(source)


def cycles(case, store, count):
    """Mounting and unmounting, with one daemon after another, and on one that stays."""
    first = None
    for number in range(count):
        mount = case.mount(store)
        with open(mount.path + "/cycle", "wb") as file:
            file.write(b"%d" % number)
        held = holdings(mount.pid)
        first = first or held
        expect_equal(held, first, f"descriptors and threads of daemon {number}")
        mount.unmount()
        expect(start_time(mount.pid) is None, "a daemon is left")
        os.rmdir(mount.path)
        os.unlink(mount.log)
    say(f"{count} daemons: {first[0]} descriptors, {first[1]} threads each")
    if os.geteuid() != 0:
        return
    mount = case.mount(store)
    place = case.place("joined")
    os.mkdir(place)
    case.guard.tell("mount", place)
    before, memory = holdings(mount.pid), anonymous_bytes(mount.pid)
    for number in range(count):
        run([case.daemon, store, place, "-o", "join"])
        with open(place + "/cycle", "rb") as file:
            file.read()
        run(["umount", place])
    expect(not is_mounted(place), "a mount that joined is left")
    after, grown = holdings(mount.pid), anonymous_bytes(mount.pid) - memory
    say(f"{count} mounts that joined: {before} before, {after} after, {grown} bytes more")
    # Workers may have been added, each with a descriptor; never more than there can be at all.
    expect(after[0] - before[0] <= 32 and after[1] - before[1] <= 32, f"{before}, {after}")
    mount.unmount()


def body(case):
    files, extents, tokens, mounts = 20_000, 50_000, 5_000, 20
    if LONG:
        files, extents, tokens, mounts = 1_000_000, 1_000_000, 100_000, 1_000
    elif case.quick:
        files, extents, tokens, mounts = 1_000, 2_000, 500, 3
    store = case.store()
    mount = case.mount(store, "odx_tokens_max_user=200000", "odx_tokens_max=200000",
                       "odx_ttl_max=3600")
    meter = Meter(case, mount.pid)
    many_files(mount, meter, files)
    mount = case.remount(mount, "odx_tokens_max_user=200000", "odx_tokens_max=200000",
                         "odx_ttl_max=3600")
    meter = Meter(case, mount.pid)
    many_extents(mount, meter, extents)
    many_tokens(mount, meter, tokens)
    mount.unmount()
    cycles(case, store, mounts)
    case.check(store)


if __name__ == "__main__":
    sys.exit(case_main(body, seconds=4 * 3600 if LONG else 600))
