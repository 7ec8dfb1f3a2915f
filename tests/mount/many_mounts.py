#!/usr/bin/env python3
"""One daemon, several mount points, directories of the store as roots; tokens pass between them."""

import ctypes
import mmap
import os
import random
import signal
import sys

from harness import MIB, case_main, expect, expect_equal, is_mounted, run, say, wait_for
from odx_abi import new_file, offload_read, offload_write
from posix_lib import tick

CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
_libc = ctypes.CDLL(None, use_errno=True)


class World:
    def __init__(self, case):
        self.case = case
        self.mount = case.mount(case.store())
        self.data = random.Random(1).randbytes(2 * MIB)
        for name in ("vm", "db", "db/inner"):
            os.mkdir(f"{self.mount.path}/{name}")

    def join(self, *options):
        place = self.case.place("joined")
        os.mkdir(place)
        self.case.guard.tell("mount", place)
        run([self.case.daemon, self.mount.store, place, "-o", ",".join(("join",) + options)])
        expect(is_mounted(place), f"{place} is not mounted")
        return place


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def token_of(path, length):
    descriptor = os.open(path, os.O_RDONLY)
    reply = offload_read(descriptor, 0, length)
    os.close(descriptor)
    expect_equal((reply.errno, reply.length), (0, length), "an offload read")
    return reply.token


def redeem(path, token, length):
    descriptor = new_file(path)
    os.ftruncate(descriptor, length)
    reply = offload_write(descriptor, token, 0, length)
    os.close(descriptor)
    expect_equal((reply.errno, reply.length, reply.shared), (0, length, length), "an offload write")


def one_store(world, machines, databases):
    """Names, data and tokens are the same through every mount point, at once."""
    size = len(world.data)
    write(machines + "/image", world.data)  # not flushed: it is in the one page cache
    expect(read(world.mount.path + "/vm/image") == world.data, "the whole store's view of a part")
    expect_equal(os.listdir(databases), ["inner"], "what is outside of a part")
    redeem(databases + "/table", token_of(machines + "/image", size), size)
    expect(read(databases + "/table") == world.data, "a token from one part in another")
    redeem(world.mount.path + "/whole", token_of(databases + "/table", size), size)
    with open(databases + "/table", "rb") as file, \
            mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as view:
        expect(view[:] == world.data, "a mapping through one mount point")
        other = new_file(machines + "/other", bytes(size))
        zeros = token_of(machines + "/other", MIB)
        inside = os.open(world.mount.path + "/db/table", os.O_RDWR)
        before = os.fstat(inside).st_mtime_ns
        tick()
        expect_equal(offload_write(inside, zeros, 0, MIB).length, MIB, "a write through another")
        expect(view[:] == bytes(MIB) + world.data[MIB:], "the mapping does not show the write")
        expect(os.stat(databases + "/table").st_mtime_ns > before, "the time of the write")
        os.close(inside)
        os.close(other)
    expect_equal(os.stat(machines + "/..").st_dev, os.stat(os.path.dirname(machines)).st_dev,
                 "what is above a part")


def read_only_part(world, place):
    try:
        write(place + "/new", b"x")
    except OSError as error:
        expect_equal(error.errno, 30, "EROFS")
    else:
        expect(False, "a read-only mount point was written to")
    token_of(place + "/db/table", MIB)  # reading is what it is for


def containers(world, machines, databases):
    """Two processes, each with a root and a mount namespace of its own, and a pipe between them."""
    size = len(world.data)
    write(machines + "/disk", world.data)
    read_end, write_end = os.pipe()

    def contain(root, work):
        child = os.fork()
        if child == 0:
            try:
                if _libc.unshare(CLONE_NEWNS) != 0:
                    os._exit(2)
                os.chroot(root)
                os.chdir("/")
                work()
                os._exit(0)
            except BaseException as error:  # pylint: disable=broad-except
                print("in a container:", error, file=sys.stderr, flush=True)
                os._exit(1)
        return child

    def give():
        expect(not os.path.exists("/inner"), "the container sees the other's files")
        os.write(write_end, token_of("/disk", size))

    def take():
        expect(not os.path.exists("/disk"), "the container sees the other's files")
        redeem("/received", os.read(read_end, 512), size)

    giver = contain(machines, give)
    taker = contain(databases, take)
    for child in (giver, taker):
        expect_equal(os.waitpid(child, 0)[1], 0, "a container's exit status")
    os.close(read_end)
    os.close(write_end)
    expect(read(databases + "/received") == world.data, "what came through the pipe")


def refusals(world):
    os.symlink("/", world.mount.path + "/vm/out")
    os.symlink("../db", world.mount.path + "/vm/over")
    place = world.case.place("refused")
    os.mkdir(place)
    for subdir in ("missing", "vm/out", "vm/over", "vm/../../..", "vm/image"):
        done = run([world.case.daemon, world.mount.store, place, "-o", f"join,subdir={subdir}"],
                   status=1)
        expect_equal(done.stderr.count(b"\n"), 1, f"lines about subdir={subdir}")
        expect(not is_mounted(place), f"subdir={subdir} was mounted")
    # Without `join`, a store that is in use stays what it is: in use.
    done = run([world.case.daemon, world.mount.store, place], status=1)
    expect(b"in use" in done.stderr or b"busy" in done.stderr.lower(), done.stderr)


def lifetimes(world, machines, databases, part):
    """The daemon lives as long as any of its mount points, the first one or not."""
    mount = world.mount
    token = token_of(databases + "/table", MIB)
    told = run([world.case.odx, "unmount", mount.path]).stdout
    expect(b"still mounted" in told, told)
    expect(mount.process.poll() is None, "the daemon went with its first mount point")
    redeem(machines + "/after", token, MIB)
    before = os.stat(machines + "/after").st_mtime_ns
    tick()
    descriptor = os.open(machines + "/after", os.O_RDWR)
    os.pwrite(descriptor, b"dirty", 5)
    expect_equal(offload_read(descriptor, 0, 4096).errno, 0, "a read with dirty pages")
    expect_equal(offload_write(descriptor, token, 0, 4096).errno, 0, "a write")
    expect(os.fstat(descriptor).st_mtime_ns > before, "the time of a write")
    os.close(descriptor)
    back = world.join()
    expect_equal(sorted(os.listdir(back)), ["db", "vm", "whole"], "the whole store, joined again")
    for place in (back, part):
        run(["umount", place])
    os.kill(mount.pid, signal.SIGTERM)  # ends all that are left
    expect_equal(mount.process.wait(120), 0, "the daemon's exit status")
    expect(not any(is_mounted(place) for place in (machines, databases, part)), "a mount is left")
    world.case.mounts.remove(mount)
    world.case.check(mount.store)


def only_a_part(case, store):
    """The first mount of a store may be of a part; nothing else of it is to be had there."""
    mount = case.mount(store, "subdir=/db/inner/", "noexec")
    expect_equal(os.listdir(mount.path), [], "the part")
    write(mount.path + "/file", b"inside")
    place = case.place("second")
    os.mkdir(place)
    done = run([case.daemon, store, place, "-o", "join,subdir=vm"], status=1)
    expect(b"db/inner" in done.stderr, done.stderr)
    run([case.daemon, store, place, "-o", "join,subdir=db/inner"])
    expect_equal(read(place + "/file"), b"inside", "the same part once more")
    run([case.odx, "unmount", place])
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        line = next(line.split() for line in file if line.split()[4] == mount.path)
    expect_equal((line[3], "noexec" in line[5].split(",")), ("/db/inner", True), "its mount entry")
    case.close(mount)
    # A part that is not there leaves nothing behind.
    done = run([case.daemon, store, mount.path, "-o", "subdir=nowhere"], status=1)
    expect_equal(done.stderr.count(b"\n"), 1, "lines about a part that is missing")
    wait_for(lambda: not is_mounted(mount.path), "no mount")
    case.check(store)


def body(case):
    if os.geteuid() != 0:
        print("NOT TESTED ON THIS MACHINE: bind mounts need root")
        sys.exit(77)
    world = World(case)
    machines, databases, whole = world.join("subdir=vm"), world.join("subdir=db"), world.join("ro")
    one_store(world, machines, databases)
    read_only_part(world, whole)
    containers(world, machines, databases)
    refusals(world)
    say("one store, four mount points")
    lifetimes(world, machines, databases, whole)
    only_a_part(case, world.mount.store)
    say("parts come and go")


if __name__ == "__main__":
    case_main(body)
