"""A registry of POSIX checks: each is a function of one argument, an empty directory to work in."""

import contextlib
import ctypes
import os
import struct
import sys
import time
import traceback

from harness import Failure, _libc, say, wait_for

CHECKS = []
ROOT = os.geteuid() == 0


def check(function):
    CHECKS.append(function)
    return function


def run_all(folder):
    """Runs every registered check in a subfolder of its own; fails once all have run."""
    wrong = []
    for function in CHECKS:
        place = os.path.join(folder, function.__name__)
        os.mkdir(place)
        os.chmod(place, 0o755)
        try:
            function(place)
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc()
            sys.stderr.flush()
            wrong.append(function.__name__)
    say(f"{len(CHECKS)} checks, {len(wrong)} failed {' '.join(wrong)}")
    if wrong:
        raise Failure(f"{len(wrong)} checks failed: {' '.join(wrong)}")


@contextlib.contextmanager
def opened(path, flags=os.O_RDWR, mode=0o644):
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write(path, data=b"", mode=0o644):
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode) as file:
        done = 0
        while done < len(data):
            done += os.write(file, memoryview(data)[done:])


def read(path):
    with open(path, "rb") as file:
        return file.read()


def tick():
    """Waits until the kernel's clock for file times has moved on (some milliseconds)."""
    clock = 5  # CLOCK_REALTIME_COARSE, which Python does not name
    before = time.clock_gettime_ns(clock)
    wait_for(lambda: time.clock_gettime_ns(clock) > before, "the clock")


def checked(result):
    """Raises OSError if a libc call came back negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


AT_FDCWD = -100
AT_SYMLINK_FOLLOW = 0x400


def renameat2(source, target, flags):
    checked(_libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags))


def link_descriptor(descriptor, target):
    """Gives an open file a name (os.link does not follow /proc's links, whatever it is told)."""
    source = f"/proc/self/fd/{descriptor}".encode()
    checked(_libc.linkat(AT_FDCWD, source, AT_FDCWD, os.fsencode(target), AT_SYMLINK_FOLLOW))


def fallocate(descriptor, mode, offset, length):
    checked(_libc.fallocate64(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def acl(*entries):
    """A system.posix_acl_* value of (tag, permissions, id) entries."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def snapshot(folder):
    """Everything that must survive a remount: {path: attributes, content, xattrs}."""
    result = {}
    for path, folders, files in os.walk(folder):
        for name in [".", *folders, *files]:
            full = os.path.normpath(os.path.join(path, name))
            status = os.lstat(full)
            # A directory's st_nlink and times are included; atimes may change by being looked at.
            value = [status.st_ino, status.st_mode, status.st_nlink, status.st_uid, status.st_gid,
                     status.st_rdev, status.st_mtime_ns, status.st_ctime_ns,
                     sorted((key, os.getxattr(full, key, follow_symlinks=False))
                            for key in os.listxattr(full, follow_symlinks=False))]
            if os.path.islink(full):
                value.append(os.readlink(full))
            elif os.path.isfile(full):
                value += [status.st_size, hash_of(full, status.st_size)]
            result[os.path.relpath(full, folder)] = value
    return result


def hash_of(path, size):
    if size > 1 << 30:  # a huge hole with little in it
        return None
    return hash(read(path))
