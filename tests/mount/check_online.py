#!/usr/bin/env python3
"""odx check of a mount: clean beside writers, damage named, one at a time, cancelled at once."""

import errno
import os
import random
import signal
import subprocess
import sys

import odx_abi
from harness import (MIB, case_main, environment, expect, expect_equal, expect_errno, json_of, run,
                     sanitizer_runtime, say, wait_for)
from upkeep import BLOCK, Churn, clone, control, find_on_device, flip, put

STATUS, START, CANCEL = range(3)
RUNNING, DONE, CANCELLED = 1, 2, 3
DATA = (1).to_bytes(4, "little")


def check(case, path, *options, status=0):
    return json_of([case.odx, "check", "--json", *options, path], status=status)


def ask(mount, operation, flags=b""):
    """(job, state) after an operation."""
    raw = control(mount.path, odx_abi.CHECK, operation, flags)
    return int.from_bytes(raw[8:16], "little"), int.from_bytes(raw[16:20], "little")


def beside_writers(case, mount):
    with Churn(mount.path, 3):
        for turn in range(4 if case.quick else 25):
            found = check(case, mount.path, *(["--data"] if turn % 2 else []))
            expect_equal((found["clean"], found["problems"]), (True, []), "beside writers")
            expect(found["inodes"] > 0 and found["entries"] > 0, "nothing was looked at")
            if turn % 2:
                expect_equal(found["verified_blocks"], found["used_blocks"], "verified blocks")


def damage_is_found(case, mount, dice):
    data = dice.randbytes(8 * BLOCK)
    put(mount.path + "/victim", data)
    clone(mount.path + "/victim", mount.path + "/copy")
    mount.sync()
    place = find_on_device(mount.store, data[3 * BLOCK:3 * BLOCK + 100])
    flip(place)
    with Churn(mount.path + "/more", 2):
        found = check(case, mount.path + "/victim", "--data", status=4)
    text = "\n".join(found["problems"])
    expect_equal(found["problem_count"], 3, text)
    for words in ("does not match its checksum", '"/victim", has damaged data',
                  '"/copy", has damaged data'):
        expect(words in text, f"'{words}' is missing in:\n{text}")
    expect(check(case, mount.path)["clean"], "without --data nobody looks at the data")
    flip(place)
    expect(check(case, mount.path, "--data")["clean"], "the damage is undone")


def a_store_is_told_from_a_mount(case, mount):
    text = run([case.odx, "check", mount.store], status=8).stderr.decode()
    expect(f"is mounted at {mount.path}; run odx check {mount.path}" in text, text)
    text = run([case.odx, "check", mount.path]).stdout.decode()
    expect(text.startswith(f"{mount.path}: clean"), text)
    # A store that lies on the mount is one all the same.
    inner = mount.path + "/inner"
    run([case.mkfs, "--size", "64M", inner])
    expect_equal(check(case, inner)["inodes"], 1, "inodes of a store on the mount")
    run(["rm", "-r", inner])


def one_at_a_time(case, mount):
    """While there is enough to verify that a check is met while it runs."""
    def met(refused):
        job, state = ask(mount, START, DATA)
        expect_equal(state, RUNNING, "a check that was just started")
        answer = refused()
        wait_for(lambda: ask(mount, STATUS)[1] != RUNNING, "the end of the check")
        return answer and job

    def refused():
        try:
            ask(mount, START)
        except OSError as error:
            expect_equal(error.errno, errno.EBUSY, "the errno of a second one")
            return True
        return False

    def refused_to_command():
        done = subprocess.run([case.odx, "check", mount.path], capture_output=True, timeout=300,
                              check=False, env=environment())
        return done.returncode == 8 and b"another check is running" in done.stderr

    def cancelled():
        try:
            ask(mount, CANCEL)
        except OSError as error:
            expect_equal(error.errno, errno.ENOENT, "the errno of a late cancellation")
        return wait_for(lambda: ask(mount, STATUS)[1] != RUNNING, "its end") and (
            ask(mount, STATUS)[1] == CANCELLED)

    def taken_over():
        job = ask(mount, STATUS)[0]
        expect(check(case, mount.path, "--cancel")["clean"], "a check that took over")
        return ask(mount, STATUS)[0] == job + 1

    for what, attempt in (("a second check is refused", refused), ("a cancellation", cancelled),
                          ("a command is refused", refused_to_command),
                          ("--cancel takes over", taken_over)):
        wait_for(lambda attempt=attempt: met(attempt), what)
    with expect_errno(errno.ENOENT, "cancelling nothing"):
        ask(mount, CANCEL)

    def interrupted():
        job = ask(mount, STATUS)[0]
        with subprocess.Popen([case.odx, "check", "--data", mount.path], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=environment()) as command:
            wait_for(lambda: ask(mount, STATUS)[0] > job or command.poll() is not None, "its start")
            command.send_signal(signal.SIGINT)
            text = command.communicate(timeout=120)[1].decode()
        expect(command.returncode in (0, 32), f"{command.returncode}: {text}")
        return command.returncode == 32 and ask(mount, STATUS)[1] == CANCELLED
    wait_for(interrupted, "a check that ^C ends")


def nobody_waits_for_it(case, mount):
    """An unmount ends the check, cleanly."""
    ask(mount, START, DATA)
    mount = case.remount(mount)
    expect_equal(ask(mount, STATUS), (0, 0), "after a remount")
    ask(mount, START, DATA)
    mount.kill()
    return case.mount(mount.store)


def from_python(case, mount):
    library = os.path.join(case.build, "lib/client/libodx.so.0")
    runtime = sanitizer_runtime(library)
    more = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") +
            ":detect_leaks=0"} if runtime else {}
    here = os.path.dirname(os.path.abspath(__file__))
    program = f"""
import ctypes, odx, sys
path = sys.argv[1]
assert ctypes.sizeof(odx._Scrub) == ctypes.sizeof(odx._Check) == 4096
report = odx.check(path, data=True)
assert report["state"] == "done" and report["problems"] == 0 and report["report"] == [], report
assert report["data"] and report["verified_blocks"] == report["used_blocks"] > 0, report
begun = odx.scrub_start(path, rate=1024)
assert begun["state"] == "running" and begun["rate"] == 1024, begun
assert odx.scrub_pause(path)["state"] == "paused"
assert odx.scrub_start(path, rate=0)["rate"] is None
while odx.scrub_status(path)["state"] == "running":
    pass
done = odx.scrub_status(path)
assert done["state"] == "done" and done["done_bytes"] == done["total_bytes"], done
assert done["report"] == [] and done["pass"] == begun["pass"], done
try:
    odx.scrub_cancel(path)
    raise AssertionError("cancelled nothing")
except odx.OffloadError as error:
    assert error.errno == 2, error
"""
    run([sys.executable, "-B", "-c", program, mount.path],
        env=environment(ODX_LIBRARY=library, PYTHONPATH=os.path.join(here, "../../lib/python"),
                        **more))


def body(case):
    seed = random.randrange(2**32)
    say(f"seed {seed}")
    dice = random.Random(seed)
    mount = case.mount(case.store())
    expect_equal(ask(mount, STATUS), (0, 0), "a new mount")
    expect_equal(check(case, mount.path)["inodes"], 1, "inodes of an empty store")
    os.mkdir(mount.path + "/more")
    beside_writers(case, mount)
    damage_is_found(case, mount, dice)
    a_store_is_told_from_a_mount(case, mount)
    put(mount.path + "/large", dice.randbytes((32 if case.quick else 128) * MIB))
    one_at_a_time(case, mount)
    from_python(case, mount)
    mount = nobody_waits_for_it(case, mount)
    mount = case.remount(mount, "ro")
    expect(check(case, mount.path, "--data")["clean"], "a read-only mount")
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
