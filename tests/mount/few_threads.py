#!/usr/bin/env python3
"""A daemon that cannot have all the threads it wants, be it the first or the last: it ends at once, says
why in a line, and leaves neither a mount nor a locked store behind. The limit is RLIMIT_NPROC, which
counts the threads of a user; hence a user of its own."""

import os
import pwd
import re
import resource
import subprocess
import sys

from harness import Failure, case_main, environment, expect, expect_equal, is_mounted, run, say, wait_for
from ordinary_user import become_user, loud

MY_USER = pwd.getpwnam("uucp").pw_uid  # of base-passwd: fusermount3 wants a name; used by nobody


def tasks_of_mine():
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == os.getuid():
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                pass  # it has just ended
    return count


def answers(point):
    """A mount may also come and go; what counts is whether it is served."""
    try:
        os.statvfs(point)
        return os.stat(point).st_dev != os.stat(os.path.dirname(point)).st_dev
    except OSError:
        return False


def body(case):
    with open(case.daemon, "rb") as file:
        if re.search(rb"lib[at]san\.so", file.read()):
            loud("a sanitizer's runtime does not bear the lack of a thread")
    store, failures = case.store(), 0
    start = tasks_of_mine()
    for limit in range(start, start + 60):
        point, log = case.place("mnt"), case.place("log")
        os.mkdir(point)
        case.guard.tell("mount", point)
        with open(log, "wb") as output:
            daemon = subprocess.Popen(  # pylint: disable=subprocess-popen-preexec-fn
                [case.daemon, store, point, "-f"], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, env=environment(),
                preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_NPROC,
                                                                  (limit, limit)))
        wait_for(lambda: daemon.poll() is not None or is_mounted(point), "an end or a mount", 120)
        if answers(point):
            try:
                with open(point + "/file", "wb") as file:
                    file.write(b"served")
            except OSError as error:
                with open(log, "rb") as file:
                    raise Failure(f"limit {limit}: {error}: {file.read()!r}, "
                                  f"{daemon.wait(timeout=120)}") from error
            run([case.odx, "unmount", point])
            expect_equal(daemon.wait(timeout=120), 0, "the daemon's exit status")
            break
        daemon.wait(timeout=120)
        with open(log, "rb") as file:
            text = file.read().decode()
        expect_equal(daemon.returncode, 1, f"limit {limit}: exit status; {text}")
        expect("Resource temporarily unavailable" in text.splitlines()[-1], f"{limit}: {text!r}")
        expect(len(text.splitlines()) == 1, f"{limit}: not one line: {text!r}")
        expect(not is_mounted(point), f"limit {limit}: a mount is left")
        failures += 1
    say(f"{failures} daemons lacked a thread, each another one")
    expect(failures >= 8, "the limit does not work")
    case.check(store)


if __name__ == "__main__":
    if os.geteuid() != 0:
        loud("a user of one's own is root's to give")
    become_user(MY_USER)
    case_main(body)
    sys.exit(0)
