#!/usr/bin/env python3
"""File handles (name_to_handle_at) stay good as long as the file exists, through a remount too; files
made without a name (O_TMPFILE) get the group that files with one get."""

import ctypes
import errno
import os
import sys

from harness import _libc, as_user, case_main, expect, expect_equal, say

AT_FDCWD, AT_SYMLINK_FOLLOW, MAX_HANDLE = -100, 0x400, 128


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int),
                ("data", ctypes.c_ubyte * MAX_HANDLE)]


def handle_of(path):
    handle, mount_id = Handle(bytes=MAX_HANDLE), ctypes.c_int()
    expect(_libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle),
                                   ctypes.byref(mount_id), 0) == 0,
           f"name_to_handle_at {path}: {os.strerror(ctypes.get_errno())}")
    return handle


def open_handle(mount, handle, flags=os.O_RDONLY):
    """A descriptor, or the errno as a negative number."""
    root = os.open(mount.path, os.O_RDONLY)
    try:
        descriptor = _libc.open_by_handle_at(root, ctypes.byref(handle), flags)
        return descriptor if descriptor >= 0 else -ctypes.get_errno()
    finally:
        os.close(root)


def handles(case, store):
    mount = case.mount(store)
    os.makedirs(mount.path + "/d/e")
    for name in ("plain", "d/e/deep", "gone"):
        with open(f"{mount.path}/{name}", "w", encoding="ascii") as file:
            file.write(name)
    os.symlink("plain", mount.path + "/link")
    names = ["plain", "d/e/deep", "gone", "d", "d/e"]
    taken = {name: handle_of(f"{mount.path}/{name}") for name in names}

    def look():
        for name in ("plain", "d/e/deep"):
            descriptor = open_handle(mount, taken[name])
            expect(descriptor >= 0, f"the handle of {name}: {os.strerror(abs(descriptor))}")
            expect_equal(os.read(descriptor, 100).decode(), name, f"through the handle of {name}")
            os.close(descriptor)
        for name, inside in (("d", ["e"]), ("d/e", ["deep"])):
            descriptor = open_handle(mount, taken[name], os.O_RDONLY | os.O_DIRECTORY)
            expect(descriptor >= 0, f"the handle of {name}: {os.strerror(abs(descriptor))}")
            expect_equal(os.listdir(descriptor), inside, f"through the handle of {name}")
            os.close(descriptor)

    look()
    mount = case.remount(mount)
    look()  # the kernel knows nothing of them any more, nor of their parents
    os.unlink(mount.path + "/gone")
    expect_equal(open_handle(mount, taken["gone"]), -errno.ESTALE, "the handle of a file that is gone")
    mount = case.remount(mount)
    with open(mount.path + "/another", "w", encoding="ascii"):
        pass
    expect_equal(open_handle(mount, taken["gone"]), -errno.ESTALE, "and again")
    return mount


def nameless(mount):
    folder = mount.path + "/groups"
    os.mkdir(folder)
    os.chown(folder, -1, 4711)
    os.chmod(folder, 0o2777)

    def make():
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o644)
        expect_equal(os.fstat(descriptor).st_gid, 4711, "the group of a file without a name")
        expect(_libc.linkat(AT_FDCWD, b"/proc/self/fd/%d" % descriptor, AT_FDCWD,
                            os.fsencode(folder + "/named"), AT_SYMLINK_FOLLOW) == 0, "linkat")
        with open(folder + "/usual", "w", encoding="ascii") as file:
            expect_equal(os.fstat(file.fileno()).st_gid, 4711, "the group of a file with one")

    as_user(make, uid=1234, gid=1234)
    expect_equal(os.stat(folder + "/named").st_gid, 4711, "the group once it has a name")
    plain = os.open(mount.path, os.O_TMPFILE | os.O_RDWR, 0o644)
    expect_equal(os.fstat(plain).st_gid, os.getegid(), "the group elsewhere")
    os.close(plain)


def body(case):
    if os.geteuid() != 0:
        print("NOT TESTED ON THIS MACHINE: opening by handle is root's")
        sys.exit(77)
    mount = handles(case, case.store())
    say("handles")
    nameless(mount)
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
