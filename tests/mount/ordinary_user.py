#!/usr/bin/env python3
"""An ordinary user makes, mounts, uses and unmounts a store, and root is kept out of it.

Run by root it becomes that user, in a mount namespace of its own where /dev/fuse is open to all (as
it is on an ordinary Debian; in containers it often is not).
"""

import os
import stat
import sys

from harness import (MIB, SKIP, _libc, case_main, expect, expect_equal, is_mounted, run, say,
                     start_time)

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
USER = 65534


def loud(why):
    print(f"NOT TESTED ON THIS MACHINE: {why}", flush=True)
    sys.exit(SKIP)


def become_user(user=USER):
    """Drops to an ordinary user who may open /dev/fuse; what is mounted is gone when we are."""
    if _libc.unshare(CLONE_NEWNS) != 0 or _libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        loud("no mount namespace of one's own is to be had (in a plain chroot there is none)")
    # What follows is seen by this process and its children only.
    if _libc.mount(b"none", b"/mnt", b"tmpfs", 0, b"mode=755") != 0:
        loud("nothing can be mounted")
    # The build may lie below a folder that is closed to others (a home of root's).
    os.mkdir("/mnt/build")
    if _libc.mount(os.fsencode(sys.argv[1]), b"/mnt/build", None, MS_BIND | MS_REC, None) != 0:
        loud("bind mounts are not permitted")
    sys.argv[1] = "/mnt/build"
    if stat.S_IMODE(os.stat("/dev/fuse").st_mode) & 0o006 != 0o006:
        os.mknod("/mnt/fuse", stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
        os.chmod("/mnt/fuse", 0o666)
        if _libc.mount(b"/mnt/fuse", b"/dev/fuse", None, MS_BIND, None) != 0:
            loud("/dev/fuse is closed to ordinary users")
    is_mounted("/")  # loads what this user may not be able to load
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        loud(f"an ordinary user cannot open /dev/fuse: {error.strerror}")


def body(case):
    store = case.store()
    mount = case.mount(store)
    status = os.stat(mount.path)
    expect_equal((status.st_uid, status.st_gid), (os.getuid(), os.getgid()), "the root's owner")
    data = os.urandom(8 * MIB)
    with open(mount.path + "/file", "wb") as file:
        file.write(data)
    before = mount.statistics()["device_bytes_written"]
    run(["cp", mount.path + "/file", mount.path + "/copy"])
    expect_equal(mount.statistics()["device_bytes_written"], before, "bytes after a cp")
    mount = case.remount(mount, how="fusermount3")
    with open(mount.path + "/copy", "rb") as file:
        expect(file.read() == data, "the copy")
    say("an ordinary user can do it")

    # The way most people mount: in the background, and it is up when the command returns.
    mount.unmount()
    point = case.place("background")
    os.mkdir(point)
    case.guard.tell("mount", point)
    run([case.daemon, store, point])
    expect(is_mounted(point), "odxfs returned before it was mounted")
    with open(os.path.join(store, "LOCK"), encoding="utf-8") as file:
        pid = file.read().split()[0]
    expect(start_time(pid), f"the LOCK file names pid {pid}, which is not there")
    case.guard.tell("process", pid, start_time(pid))
    with open(point + "/copy", "rb") as file:
        expect(file.read() == data, "the copy, in the background")
    run([case.odx, "unmount", point])
    expect(not is_mounted(point) and not start_time(pid), "odx unmount did not wait")
    case.check(store)


if __name__ == "__main__":
    if os.geteuid() == 0:
        become_user()
    case_main(body)
