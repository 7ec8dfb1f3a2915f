#!/usr/bin/env python3
"""A sync of the store that fails is told to everybody who wrote, and nothing is taken for durable
afterwards, also if the disk says that all is well again."""

import errno
import os
import sys

import harness
from harness import Failure, case_main, expect, expect_equal, run, say


def told(fd):
    """What fsync of a descriptor says: None or an errno."""
    try:
        os.fsync(fd)
    except OSError as error:
        return error.errno
    return None


def one_round(case, store, where):
    control = store + ".fail"
    mount = case.mount(store)
    durable = os.urandom(300_000)
    path = os.path.join(mount.path, "file")
    quiet = os.path.join(mount.path, "quiet")
    for name in (path, quiet):
        with open(name, "wb") as file:
            file.write(durable)
            file.flush()
            os.fsync(file.fileno())

    writers = [os.open(path, os.O_RDWR) for _ in range(3)]
    other = os.path.join(mount.path, "other")
    writers.append(os.open(other, os.O_RDWR | os.O_CREAT, 0o644))
    for number, fd in enumerate(writers):
        os.pwrite(fd, b"lost %d" % number, 400_000 + number * 8192)

    with open(control, "w", encoding="utf-8") as file:
        file.write(where)
    for number, fd in enumerate(writers):
        expect_equal(told(fd), errno.EIO, f"fsync of descriptor {number} while {where} fails")
    os.unlink(control)

    # The kernel below has forgotten what it could not write: success now would be a lie.
    os.pwrite(writers[0], b"later", 0)
    for number, fd in enumerate(writers):
        got = told(fd)
        expect(got is not None, f"descriptor {number}: an fsync after the failed one says it is well")
    try:
        with open(os.path.join(mount.path, "too late"), "wb"):
            raise Failure("a store that has failed takes new files")
    except OSError as error:
        expect(error.errno in (errno.EIO, errno.EROFS), f"creating a file: {error}")
    with open(quiet, "rb") as file:  # from the store, not from the cache
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        expect(file.read() == durable, "what is there can still be read")
    for fd in writers:
        try:
            os.close(fd)
        except OSError:
            pass  # close may tell it once more
    mount.unmount_failed_store()

    mount = case.mount(store)
    for name in (path, quiet):
        # What failed may be there or not; what was confirmed before it is.
        name = os.path.join(mount.path, os.path.basename(name))
        with open(name, "rb") as file:
            expect(file.read(len(durable))[5:] == durable[5:],
                   f"{name}: what an fsync had confirmed is there")
    with open(os.path.join(mount.path, "works"), "wb") as file:
        file.write(b"again")
        file.flush()
        os.fsync(file.fileno())
    case.close(mount)
    say(f"{where}: told to {len(writers)} descriptors, nothing confirmed was lost")


def body(case):
    library = os.path.join(case.build, "tests/mount/libodx-fail-io.so")
    expect(os.path.exists(library), f"{library} is not built")
    runtime = harness.sanitizer_runtime(case.daemon)
    plain = harness.environment

    def preloaded(**more):
        return plain(LD_PRELOAD=":".join(filter(None, [runtime, library])), **more)

    for where in ("/data/", "/journal"):
        store = case.store()
        harness.environment = preloaded
        try:
            one_round(case, store, where)
        finally:
            harness.environment = plain
            if os.path.exists(store + ".fail"):
                os.unlink(store + ".fail")
        run([case.odx, "check", "--data", store])


if __name__ == "__main__":
    sys.exit(case_main(body))
