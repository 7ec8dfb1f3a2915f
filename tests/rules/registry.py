"""Named cases of rules, and the world that they run in.

A case is a function of a World, made known by @rule(NUMBERS...): the first number is the row of
rows.py that it is about, and what refused() expects is what that row says. So the table that
people read cannot say one thing and the tests another.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import random
import struct
import typing

import odx_abi
from harness import MIB, as_user, expect, expect_equal, expect_errno
from odx_abi import (ALL_ZERO_BEYOND, REASON, STATUS, ZERO_TOKEN, offload_read, offload_write,
                     read_input, write_input)
from rows import BY_NUMBER

MS_RDONLY, MS_REMOUNT = 1, 32
S = 512  # the sector of every mount but kind "sectors"
FILE = 16 * S


class Case(typing.NamedTuple):
    """One named case."""
    name: str
    numbers: tuple
    source: str
    function: typing.Callable


CASES = []


def rule(*numbers, source=""):
    """Makes a function known as the case of these rows. `source` cites more than the rows do."""
    for number in numbers:
        if number not in BY_NUMBER:
            raise ValueError(f"no row {number}")

    def known(function):
        name = function.__name__.replace("_", " ")
        if any(case.name == name for case in CASES):
            raise ValueError(f"two cases are called '{name}'")
        CASES.append(Case(name, numbers, source or BY_NUMBER[numbers[0]].source, function))
        return function

    return known


def pattern(size, seed=1):
    return random.Random(seed).randbytes(size)


def over(base, at, middle):
    """`base` with `middle` from `at` on, cut at the end of `base`."""
    return (base[:at] + middle + base[at + len(middle):])[:len(base)]


class World:
    """The mounts that cases share, and what one case opened, which ends with it."""

    OPTIONS = {"plain": (), "no_offload": ("no_offload",), "extend": ("odx_extend",),
               "scoped": ("odx_token_scope=user",), "other": (), "sectors": (), "lost": (),
               "full": ()}

    def __init__(self, case):
        self.case, self.mounts, self.numbers = case, {}, ()
        self._count, self._open = 0, []

    # ---- mounts and files ----

    def mount(self, kind="plain"):
        if kind not in self.mounts:
            sizes = {"full": (64 * MIB,), "sectors": (1 << 30, "--sector", "4096")}
            store = self.case.store(*sizes.get(kind, (1 << 30,)))
            self.mounts[kind] = self.case.mount(store, *self.OPTIONS[kind])
            os.chmod(self.mounts[kind].path, 0o777)
        return self.mounts[kind]

    def read_only_mount(self, writable=False):
        """A store mounted read-only, with 16 sectors of `data` and a hole to 128 KiB behind them.

        The kernel opens nothing for writing there. So that a WRITE gets to the daemon, the kernel's
        half of the mount can be made writable; only root can do that."""
        if "read_only" not in self.mounts:
            mount = self.case.mount(self.case.store(1 << 30))
            os.chmod(mount.path, 0o777)
            file = odx_abi.new_file(mount.path + "/data", pattern(FILE, 1))
            os.ftruncate(file, 128 << 10)
            os.close(file)
            self.mounts["read_only"] = self.case.remount(mount, "ro")
        mount = self.mounts["read_only"]
        if ctypes.CDLL(None, use_errno=True).mount(
                None, os.fsencode(mount.path), None, MS_REMOUNT | (0 if writable else MS_RDONLY),
                None) != 0:
            raise OSError(ctypes.get_errno(), "remount")
        return mount

    def end(self):
        """Unmounts everything and looks at every store."""
        for kind, mount in self.mounts.items():
            self.case.close(mount, "umount" if kind == "read_only" else "odx")

    def path(self, kind="plain"):
        self._count += 1
        return f"{self.mount(kind).path}/{self._count}"

    def open(self, path, flags=os.O_RDWR):
        descriptor = os.open(path, flags, 0o666)
        self._open.append(descriptor)
        return descriptor

    def file(self, data=b"", kind="plain", path=None):
        """A new file that holds `data`, open for both."""
        descriptor = odx_abi.new_file(path or self.path(kind), data)
        self._open.append(descriptor)
        return descriptor

    def sparse(self, size, **parts):
        """A file of holes, but for at_OFFSET=DATA."""
        descriptor = self.file()
        os.ftruncate(descriptor, size)
        for name, data in parts.items():
            os.pwrite(descriptor, data, int(name.removeprefix("at_")))
        return descriptor

    def close(self, descriptor):
        self._open.remove(descriptor)
        os.close(descriptor)

    def end_of_case(self):
        for descriptor in self._open:
            os.close(descriptor)
        self._open = []

    @staticmethod
    def content(descriptor):
        return os.pread(descriptor, os.fstat(descriptor).st_size + 1, 0)

    @contextlib.contextmanager
    def no_room(self):
        """The mount "full" has no room for a byte more meanwhile; what is on it must be synced."""
        filler = self.file(kind="full")
        try:
            for piece in (MIB, 4096):
                with expect_errno(errno.ENOSPC, "write(2) on a full store"):
                    for _ in range(64 * MIB // piece):
                        os.write(filler, pattern(4096) * (piece // 4096))
                        os.fsync(filler)
            yield
        finally:
            os.ftruncate(filler, 0)

    # ---- what a call must answer ----

    def refused(self, reply, number=None, status=None, reason=None):
        """The row's errno and status, a reason, and nothing else in the structure."""
        row = BY_NUMBER[self.numbers[0]]
        number, status = number or row.errno, status or row.status
        expect((reply.errno, reply.status) == (getattr(errno, number), STATUS[status]),
               f"{reply}, wanted {number}, {status}")
        expect(reply.reason != 0, "a refusal without a reason")
        if reason is not None:
            expect_equal(reply.reason, REASON[reason], "the reason")
        expect(reply.body == bytes(544) and reply.shared == 0, "a refusal that tells more")

    def refused_by_kernel(self, descriptor, number=None, read=True):
        """What is no odxfs descriptor: the daemon never sees it, and nothing is filled in."""
        raw = (read_input(0, S) if read else write_input(ZERO_TOKEN, 0, S))
        reply = odx_abi.call(descriptor, odx_abi.READ if read else odx_abi.WRITE, raw)
        number = number or BY_NUMBER[self.numbers[0]].errno
        expect_equal(reply.errno, getattr(errno, number), "errno")
        expect(reply.raw == raw, "a structure that the daemon never saw was changed")

    @staticmethod
    def read(descriptor, offset=0, length=FILE, transferred=None, flags=None, **more):
        """An offload read that succeeds."""
        reply = offload_read(descriptor, offset, length, **more)
        expect((reply.errno, reply.status) == (0, 0), f"READ: {reply}")
        expect_equal(int.from_bytes(reply.body[:4], "little"), 528, "Size")
        expect_equal(reply.length, length if transferred is None else transferred,
                     "TransferLength")
        short = "SHORT" if reply.length < length else "NONE"
        expect_equal(reply.reason, REASON[short if length else "ZERO_LENGTH"], "the reason")
        expect(reply.body[528:] == bytes(16) and reply.flags in (0, ALL_ZERO_BEYOND), "the reply")
        if flags is not None:
            expect_equal(reply.flags, flags, "Flags")
        return reply

    def token(self, descriptor, offset=0, length=FILE, **more):
        return self.read(descriptor, offset, length, **more).token

    @staticmethod
    def write(descriptor, token, offset=0, length=FILE, transfer=0, written=None, **more):
        """An offload write that succeeds."""
        reply = offload_write(descriptor, token, offset, length, transfer, **more)
        expect((reply.errno, reply.status) == (0, 0), f"WRITE: {reply}")
        expect_equal(reply.body[:8], struct.pack("<II", 16, 0), "Size and Flags")
        expect_equal(reply.length, length if written is None else written, "LengthWritten")
        short = "SHORT" if reply.length < length else "NONE"
        expect_equal(reply.reason, REASON[short if length else "ZERO_LENGTH"], "the reason")
        expect(reply.body[16:] == bytes(528), "the rest of the reply")
        return reply

    def sample(self, kind="plain"):
        """A source of 16 sectors with its bytes and a token of them all."""
        data = pattern(FILE, 1)
        source = self.file(data, kind)
        return source, data, self.token(source)

    def target(self, kind="plain", size=FILE):
        return self.file(pattern(size, 2), kind)

    def shows(self, token, data, what="the token's bytes"):
        """Redeems all of the token in a fresh file and compares."""
        copy = self.file()
        os.ftruncate(copy, len(data))
        self.write(copy, token, 0, (len(data) + S - 1) // S * S)
        expect(self.content(copy) == data, what)

    def still(self, descriptor, data):
        expect(self.content(descriptor) == data, "a refused call changed the file")


LOCKS = {"shared": fcntl.F_RDLCK, "exclusive": fcntl.F_WRLCK}


def take_lock(descriptor, how, first, length, open_file=False):
    lock = struct.pack("hhqqi4x", LOCKS[how], os.SEEK_SET, first, length, 0)
    fcntl.fcntl(descriptor, 37 if open_file else fcntl.F_SETLK, lock)  # 37: F_OFD_SETLK


@contextlib.contextmanager
def locked_by_another(path, how, first, length, open_file=False):
    """Another process holds a lock of [first, first + length) meanwhile."""
    ready, started = os.pipe()
    waits, done = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(done)
            take_lock(os.open(path, os.O_RDWR), how, first, length, open_file)
            os.write(started, b"!")
            os.read(waits, 1)
            code = 0
        finally:
            os._exit(code)
    os.close(started)
    os.close(waits)
    try:
        held = os.read(ready, 1)
        yield
    finally:
        os.close(ready)
        os.close(done)
        status = os.waitpid(child, 0)[1]
    expect(held == b"!" and status == 0, "the lock's holder")


def as_nobody(function):
    as_user(function)
