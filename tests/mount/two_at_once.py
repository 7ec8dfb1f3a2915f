#!/usr/bin/env python3
"""git, fio, SQLite and cp of big files beside each other on one mount, verified after a remount."""

import os

from harness import case_main, say
from workloads import Copies, Fio, Git, Sqlite, beside_each_other


def body(case):
    scratch = case.place("scratch")
    os.mkdir(scratch)
    mount = case.mount(case.store())
    made = beside_each_other((Git, Fio, Sqlite, Copies), mount.path, scratch, case.quick)
    say("all done and verified")
    mount = case.remount(mount, how="umount" if os.geteuid() == 0 else "fusermount3")
    for name, workload in made.items():
        workload.verify(os.path.join(mount.path, name))
    say("verified after a remount")
    case.close(mount)


if __name__ == "__main__":
    case_main(body, seconds=900)
