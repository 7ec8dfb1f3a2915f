#!/usr/bin/env python3
"""The POSIX surface, call by call, and all of it again after a remount.

By hand, to try the checks themselves on any filesystem: posix_basics.py --on FOLDER
"""

import os
import sys

import posix_attributes  # noqa: F401  (registers its checks)
import posix_data  # noqa: F401
import posix_lib
import posix_names  # noqa: F401
from harness import case_main, expect, expect_equal, say


def body(case):
    mount = case.mount(case.store())
    folder = os.path.join(mount.path, "checks")
    os.mkdir(folder)
    posix_lib.run_all(folder)
    mount.alive()
    before = posix_lib.snapshot(folder)
    mount = case.remount(mount)
    after = posix_lib.snapshot(os.path.join(mount.path, "checks"))
    expect_equal(sorted(after), sorted(before), "the names after a remount")
    for name, value in before.items():
        expect(after[name] == value, f"{name}: was {value}, is {after[name]} after a remount")
    say(f"{len(before)} names are as they were after a remount")
    case.close(mount)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--on":
        posix_lib.run_all(sys.argv[2])
    else:
        case_main(body)
