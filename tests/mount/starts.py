#!/usr/bin/env python3
"""How a daemon starts and ends where not everything is as it should be: without standard streams,
beside mounts that only look like its own, on a store with planted links, after a predecessor's sudden
death, told to end while its mount is out of its sight."""

import ctypes
import fcntl
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys

import odx_abi
from harness import (MIB, NOBODY, case_main, environment, expect, expect_equal, expect_errno,
                     is_mounted, run, say, start_time, wait_for)

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def content_of(path):
    with open(path, "rb") as file:
        return file.read()


class Daemon:
    """A daemon in the background, started as a person does it; the guard knows of it."""

    def __init__(self, case, store, *options, point=None, shell=None):
        self.case, self.store = case, store
        self.path = point or case.place("mnt")
        os.makedirs(self.path, exist_ok=True)
        case.guard.tell("mount", self.path)
        words = [case.daemon, store, self.path] + (["-o", ",".join(options)] if options else [])
        if shell:
            words = ["sh", "-c", 'exec "$@" ' + shell, "sh", *words]
        self.answer = subprocess.run(words, capture_output=True, check=False, env=environment(),
                                     stdin=subprocess.DEVNULL, timeout=120)
        self.pid = None
        if self.answer.returncode == 0:
            self.pid = int(content_of(store + "/LOCK"))
            case.guard.tell("process", str(self.pid), start_time(self.pid) or "")

    def started(self):
        expect_equal(self.answer.returncode, 0, f"the daemon: {self.answer.stderr}")
        expect(is_mounted(self.path), f"{self.path} is not mounted")
        return self

    def refused(self, *words):
        expect(self.answer.returncode == 1 and not is_mounted(self.path),
               f"the daemon was to fail: {self.answer}")
        text = self.answer.stderr.decode()
        expect(len(text.splitlines()) == 1, f"not one line: {text!r}")
        for word in words:
            expect(word in text, f"{text!r} does not say {word}")

    def gone(self, what):
        wait_for(lambda: start_time(self.pid) is None, what, 240)

    def kill(self):
        """The mount stays behind, dead."""
        os.kill(self.pid, signal.SIGKILL)
        self.gone("the end of a killed daemon")

    def unmount(self):
        run([self.case.odx, "unmount", self.path], timeout=240)
        expect(not is_mounted(self.path), f"{self.path} is still mounted")
        self.gone("the daemon after an unmount")


def without_streams(case):
    """The daemon keeps its lock, whichever of its standard streams are missing."""
    for shell in ("<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"):
        store = case.store()
        daemon = Daemon(case, store, shell=shell).started()
        streams = [os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in range(3)]
        expect(all(name.startswith(("/memfd:odxfs-watchdog", "/dev/null")) for name in streams),
               f"{shell}: the daemon's streams are {streams}")
        Daemon(case, store).refused("in use", str(daemon.pid))
        with open(store + "/LOCK", "rb") as lock, expect_errno(11, f"{shell}: the lock"):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(daemon.path + "/file", "wb") as file:
            file.write(b"something")
        daemon.unmount()
        case.check(store)
    for program, words in ((case.mkfs, ["--size", str(64 * MIB), case.place("store")]),
                           (case.odx, ["check", store])):
        run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", program, *words])
    case.check(words[-1])


def told_to_end_out_of_sight(case):
    """SIGTERM: what was written through a mount that the daemon does not see is on disk."""
    store, data = case.store(), random.Random(2).randbytes(5 * MIB + 77)

    daemon = Daemon(case, store).started()
    file = os.open(daemon.path + "/detached", os.O_RDWR | os.O_CREAT, 0o644)
    run(["umount", "-l", daemon.path])
    os.pwrite(file, data, 0)
    os.kill(daemon.pid, signal.SIGTERM)
    daemon.gone("the daemon of a detached mount")
    with expect_errno(107, "closing a file of a mount that is gone"):
        os.close(file)
    case.check(store)

    daemon = Daemon(case, store).started()
    expect(content_of(daemon.path + "/detached") == data, "what was written to a detached mount")
    orders, ready = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # keeps the mount in a namespace of its own
        try:
            os.close(orders[1])
            if _libc.unshare(CLONE_NEWNS) or _libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
                os._exit(2)
            os.write(ready[1], b"1")
            os.read(orders[0], 1)
            inside = os.open(daemon.path + "/elsewhere", os.O_RDWR | os.O_CREAT, 0o644)
            os.pwrite(inside, data, 0)
            os.write(ready[1], b"2")
            os.read(orders[0], 1)
            os._exit(0)
        finally:
            os._exit(1)
    expect_equal(os.read(ready[0], 1), b"1", "a mount namespace")
    # This waits for nobody in another namespace, and says so.
    told = run([case.odx, "unmount", daemon.path], timeout=240).stdout.decode()
    expect("still mounted" in told and str(child) in told, f"odx unmount said {told!r}")
    os.write(orders[1], b"1")
    expect_equal(os.read(ready[0], 1), b"2", "writing in a mount namespace")
    os.kill(daemon.pid, signal.SIGTERM)
    daemon.gone("the daemon of a mount in another namespace")
    os.write(orders[1], b"2")
    expect_equal(os.waitpid(child, 0)[1], 0, "the process in the namespace")
    case.check(store)
    daemon = Daemon(case, store).started()
    expect(content_of(daemon.path + "/elsewhere") == data, "what another namespace wrote")
    daemon.unmount()
    for end in orders + ready:
        os.close(end)


def impostor(case, store):
    """Mounts what fusermount3 mounts for an ordinary user who calls it an odxfs of `store`; nobody
    ever answers there. Returns the mount point and the descriptor that keeps it alive."""
    point = case.place("impostor")
    os.mkdir(point)
    case.guard.tell("mount", point)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id={NOBODY},group_id={NOBODY},allow_other"
    expect_equal(_libc.mount(store.encode(), point.encode(), b"fuse.odxfs", 0, options.encode()), 0,
                 "mounting an impostor")
    return point, device


def joins(case):
    """-o join takes the mount of this store's living daemon, and no other."""
    store = case.store()
    point, device = impostor(case, store)
    daemon = Daemon(case, store, "join").started()
    with open(daemon.path + "/file", "wb") as file:
        file.write(b"in the store")
    more = Daemon(case, store, "join").started()
    expect_equal(os.stat(more.path).st_dev, os.stat(daemon.path).st_dev, "a mount that joined")
    expect_equal(content_of(more.path + "/file"), b"in the store", "through it")
    run(["umount", more.path])
    os.close(device)
    run(["umount", point])

    daemon.kill()
    survivor = Daemon(case, store, "join").started()
    expect(survivor.pid != daemon.pid, "a dead daemon's mount was joined")
    os.listdir(survivor.path)
    # And the dead mount is in nobody's way where the store is mounted again.
    survivor.kill()
    again = Daemon(case, store, point=daemon.path).started()
    os.listdir(daemon.path)
    again.unmount()
    expect(not is_mounted(daemon.path), "the dead mount is still there below")
    run(["umount", "-l", survivor.path])
    case.check(store)


def planted_links(case):
    """What lies behind a link in a store's directory is neither used nor changed."""
    store = case.store()
    Daemon(case, store).started().unmount()
    for name in ("LOCK", "SUPER.0", "SUPER.1", "journal", "data", "meta", "meta/data.mdb",
                 "meta/lock.mdb"):
        path, aside = f"{store}/{name}", case.place("aside")
        os.rename(path, aside)
        before = None if os.path.isdir(aside) else hashlib.sha256(content_of(aside)).digest()
        os.symlink(aside, path)
        Daemon(case, store).refused(store)
        Daemon(case, store, "ro").refused(store)
        if before:
            expect_equal(hashlib.sha256(content_of(aside)).digest(), before, f"behind {name}")
        os.unlink(path)
        os.rename(aside, path)
    segment = sorted(os.listdir(store + "/data"))[0] if os.listdir(store + "/data") else None
    if segment:
        os.rename(f"{store}/data/{segment}", store + "-segment")
        os.symlink(store + "-segment", f"{store}/data/{segment}")
        Daemon(case, store).refused(segment)
        os.rename(store + "-segment", f"{store}/data/{segment}")

    lock, victim = store + "/LOCK", case.place("victim")
    with open(victim, "wb") as file:
        file.write(b"precious")
    for plant in (lambda: os.symlink(victim, lock), lambda: os.link(victim, lock),
                  lambda: os.mkfifo(lock), lambda: shutil.copy(case.daemon, lock)):
        os.unlink(lock)
        plant()
        Daemon(case, store).refused("LOCK")
        expect_equal(content_of(victim), b"precious", "the file behind LOCK")
    os.unlink(lock)
    Daemon(case, store).started().unmount()
    case.check(store)


def open_without_access(case):
    """open(2) with access mode 3, which a read-only mount lets through, gives no right at all."""
    store = case.store()
    daemon = Daemon(case, store).started()
    source = odx_abi.new_file(daemon.path + "/file", b"a" * 65536)
    token = odx_abi.offload_read(source, 0, 65536).token
    os.pwrite(source, b"b" * 65536, 0)
    os.fsync(source)
    joined = case.place("ro")
    os.mkdir(joined)
    case.guard.tell("mount", joined)
    run([case.daemon, store, joined, "-o", "join,ro"])
    bare = os.open(joined + "/file", 3)
    for reply in (odx_abi.offload_write(bare, token, 0, 65536), odx_abi.offload_read(bare, 0, 65536)):
        expect_equal((reply.errno, reply.reason), (9, odx_abi.REASON["ACCESS_MODE"]),
                     "a control through a descriptor without access")
    os.close(bare)
    expect_equal(os.pread(source, 65536, 0), b"b" * 65536, "the file")
    os.close(source)
    run(["umount", joined])
    daemon.unmount()
    case.check(store)


def read_only(case):
    """odx unmount waits for the daemon of a read-only mount, but not for that of another one."""
    store = case.store()
    Daemon(case, store).started().unmount()
    for _ in range(2 if case.quick else 5):
        case.mount(store, "ro").unmount()  # which looks whether the daemon is gone
    one, other = case.mount(store, "ro"), case.mount(store, "ro")
    told = run([case.odx, "unmount", one.path]).stdout.decode()
    expect("still mounted on " + other.path in told, f"odx unmount said {told!r}")
    expect_equal(one.process.wait(timeout=120), 0, "the daemon's exit status")
    case.mounts.remove(one)
    other.unmount()
    case.check(store)


LEASE_BREAK_TIME = "/proc/sys/fs/lease-break-time"


def leased(case):
    """A lease on a file does not keep the controls waiting until it is broken by force."""
    store = case.store()
    daemon = Daemon(case, store).started()
    usual = content_of(LEASE_BREAK_TIME)
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    file = odx_abi.new_file(daemon.path + "/file", b"c" * 65536)
    try:
        with open(LEASE_BREAK_TIME, "wb") as setting:
            setting.write(b"3600")
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        signal.alarm(300)  # ends the case: the call itself could only wait
        reply = odx_abi.offload_read(file, 0, 65536)
        signal.alarm(0)
        expect_equal((reply.errno, reply.length), (0, 65536), "an offload read of a leased file")
        written = odx_abi.offload_write(file, reply.token, 0, 65536)
        expect_equal((written.errno, written.length), (0, 65536), "an offload write to it")
    finally:
        with open(LEASE_BREAK_TIME, "wb") as setting:
            setting.write(usual)
    os.close(file)
    daemon.unmount()
    case.check(store)


def body(case):
    if os.geteuid() != 0:
        print("NOT TESTED ON THIS MACHINE: mounting for others, and in namespaces, needs root")
        sys.exit(77)
    for part in (without_streams, told_to_end_out_of_sight, joins, planted_links,
                 open_without_access, leased, read_only):
        part(case)
        say(part.__name__)


if __name__ == "__main__":
    sys.exit(case_main(body))
