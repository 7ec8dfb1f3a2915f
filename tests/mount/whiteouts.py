#!/usr/bin/env python3
"""RENAME_WHITEOUT, and what wants it: overlayfs with its upper layer on odxfs."""

import ctypes
import errno
import os
import stat
import subprocess
import sys

from harness import _libc, case_main, expect, expect_equal, is_mounted, run, say

AT_FDCWD = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4


def renameat2(source, target, flags):
    if _libc.syscall(ctypes.c_long(316), AT_FDCWD, os.fsencode(source), AT_FDCWD,
                     os.fsencode(target), flags) != 0:
        return ctypes.get_errno()
    return 0


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


def is_whiteout(path):
    status = os.lstat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def the_call(case, store):
    mount = case.mount(store)
    at = mount.path + "/call"
    os.makedirs(at + "/other")
    write(at + "/a", "a")
    write(at + "/b", "b")
    expect_equal(renameat2(at + "/a", at + "/b", WHITEOUT | NOREPLACE), errno.EEXIST, "NOREPLACE")
    expect_equal(renameat2(at + "/a", at + "/b", WHITEOUT | EXCHANGE), errno.EINVAL, "EXCHANGE")
    expect_equal(renameat2(at + "/a", at + "/b", WHITEOUT), 0, "over a file")
    expect_equal(renameat2(at + "/b", at + "/other/c", WHITEOUT | NOREPLACE), 0, "to a new name")
    os.mkdir(at + "/dir")
    expect_equal(renameat2(at + "/dir", at + "/other/dir", WHITEOUT), 0, "a directory")

    def look(folder):
        for name in ("a", "b", "dir"):
            expect(is_whiteout(f"{folder}/{name}"), f"{name} is no whiteout")
        expect_equal(sorted(os.listdir(folder)), ["a", "b", "dir", "other"], "names")
        expect_equal(read(folder + "/other/c"), "a", "the file that moved")
        expect_equal((os.stat(folder).st_nlink, os.stat(folder + "/other").st_nlink), (3, 3), "links")

    look(at)
    mount.sync()
    mount.kill()
    mount = case.mount(store)
    look(mount.path + "/call")
    return mount


def overlay(case, mount):
    lower, merged = case.place("lower"), case.place("merged")
    upper, work = mount.path + "/upper", mount.path + "/work"
    for folder in (lower, merged, upper, work, lower + "/dir", lower + "/gone"):
        os.mkdir(folder)
    for name in ("removed", "moved", "changed", "dir/inner", "gone/inner"):
        write(f"{lower}/{name}", name)
    case.guard.tell("mount", merged)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged],
                          capture_output=True, check=False)
    if b"unknown filesystem type" in done.stderr:
        say("NOT TESTED ON THIS MACHINE: the kernel has no overlayfs")
        return
    expect_equal(done.returncode, 0, f"mounting an overlay: {done.stderr}")
    os.unlink(merged + "/removed")
    os.rename(merged + "/moved", merged + "/here")
    write(merged + "/changed", "anew")
    run(["rm", "-r", merged + "/gone"])
    os.mkdir(merged + "/gone")
    write(merged + "/new", "new")
    expect(is_whiteout(upper + "/removed"), "what was removed has no whiteout")
    expect(is_whiteout(upper + "/moved"), "what was moved has no whiteout")

    def look(folder):
        expect_equal(sorted(os.listdir(folder)), ["changed", "dir", "gone", "here", "new"], "names")
        expect_equal(os.listdir(folder + "/gone"), [], "a directory made anew")
        expect_equal([read(f"{folder}/{name}") for name in ("changed", "here", "new", "dir/inner")],
                     ["anew", "moved", "new", "dir/inner"], "what is merged")

    look(merged)
    run(["umount", merged])
    run(["mount", "-t", "overlay", "overlay", "-o", options, merged])
    look(merged)
    run(["umount", merged])
    expect(not is_mounted(merged), "the overlay is still mounted")


def body(case):
    if os.geteuid() != 0:
        print("NOT TESTED ON THIS MACHINE: whiteouts are devices, which only root may make")
        sys.exit(77)
    mount = the_call(case, case.store())
    say("renames with whiteouts")
    overlay(case, mount)
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
