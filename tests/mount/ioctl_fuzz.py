#!/usr/bin/env python3
"""ioctl_fuzz.py FOLDER SEED SECONDS: hostile ioctls on files, folders and fifos of a mount.

Run by offload_ioctl.py as an ordinary user. Fails if an answer is none of those that the rules
know, if a refused call changed a file, if a byte beside the caller's structure changes, or if
bytes come back of what root keeps to himself.
"""

import ctypes
import errno
import mmap
import os
import random
import socket
import sys
import tempfile
import time

from harness import _STAT_IOCTL as STAT
from harness import Failure, expect, expect_equal, expect_errno
from odx_abi import (DROP, EKEYEXPIRED, EKEYREJECTED, LIST, LIST_BYTES, READ, REASON, SIZE, SUCCESS,
                     TOKEN_ID, TOKEN_SECRET, WRITE, ZERO_TOKEN, Reply, call, drop_token,
                     list_tokens, new_file, offload_read, offload_write, read_input, write_input)

ANSWERS = {0, errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.EISDIR, errno.EOPNOTSUPP, errno.ENXIO,
           errno.EFBIG, errno.EAGAIN, errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOENT,
           errno.EROFS, errno.ENOSPC, errno.ENOBUFS, EKEYEXPIRED, EKEYREJECTED}
EDGES = (0, 1, 511, 512, 513, 4095, 4096, 65536, 2**20, 2**31, 2**32, 2**40, 2**62, 2**63 - 512,
         2**63 - 1, 2**63, 2**64 - 512, 2**64 - 1)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                       ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
PROT_NONE, PAGE = 0, mmap.PAGESIZE


def size_of(request):
    return request >> 16 & 0x3FFF


class Arena:
    """Memory between two pages that nobody may touch, filled with what must not change."""

    BYTES = 5 * PAGE

    def __init__(self):
        self._pages = _libc.mmap(None, self.BYTES + 2 * PAGE, PROT_NONE,
                                 mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        expect(self._pages not in (None, ctypes.c_void_p(-1).value), "no memory")
        self.begin, self.end = self._pages + PAGE, self._pages + PAGE + self.BYTES
        self._canaries = random.Random(560).randbytes(self.BYTES)
        self.protect(mmap.PROT_READ | mmap.PROT_WRITE)

    def close(self):
        _libc.munmap(self._pages, self.BYTES + 2 * PAGE)

    def protect(self, how):
        expect(_libc.mprotect(self.begin, self.BYTES, how) == 0, "mprotect")

    def fill(self, raw=b"", at=0):
        ctypes.memmove(self.begin, self._canaries, self.BYTES)
        ctypes.memmove(self.begin + at, raw, len(raw))

    def call(self, descriptor, request, raw, at):
        """The ioctl on `raw` at `at`: errno, and what is there then. Nothing else may change."""
        self.fill(raw, at)
        number = self.at_address(descriptor, request, self.begin + at)
        now = ctypes.string_at(self.begin, self.BYTES)
        end = at + len(raw)
        if now[:at] != self._canaries[:at] or now[end:] != self._canaries[end:]:
            raise Failure(f"ioctl {request:#x} at {at} changed bytes beside its structure")
        return number, now[at:end]

    def call_over_edge(self, descriptor, request, size, missing):
        """EFAULT for `size` bytes of which some lie outside; an answer may have begun, in them."""
        inside = size - missing
        self.fill()
        for address, at in ((self.end - inside, self.BYTES - inside), (self.begin - missing, 0)):
            expect_equal(self.at_address(descriptor, request, address), errno.EFAULT,
                         f"ioctl {request:#x} with {missing} of {size} bytes outside")
            now = ctypes.string_at(self.begin, self.BYTES)
            expect(now[:at] == self._canaries[:at]
                   and now[at + inside:] == self._canaries[at + inside:],
                   f"ioctl {request:#x} over an edge changed bytes beside its structure")
            self.fill()

    @staticmethod
    def at_address(descriptor, request, address):
        return 0 if _libc.ioctl(descriptor, request, address) >= 0 else ctypes.get_errno()


class Secrets:
    """What an ordinary user must never get: root's tokens, and the bytes of root's files."""

    WORD = 8  # bytes; random, so that nobody comes upon one by chance

    def __init__(self, tokens=(), contents=()):
        self.tokens, self.words = tokens, set()
        for piece in (*contents, *(token[part] for token in tokens
                                   for part in (TOKEN_ID, TOKEN_SECRET))):
            self.words.update(piece[at:at + self.WORD]
                              for at in range(0, len(piece) - self.WORD + 1, self.WORD))

    def keep(self, raw, what):
        if any(raw[at:at + self.WORD] in self.words for at in range(len(raw) - self.WORD + 1)):
            raise Failure(f"{what}: the answer holds bytes that are root's")


def number_of(dice):
    return dice.choice(EDGES) if dice.random() < 0.8 else dice.getrandbits(64)


def structure(dice, token):
    """560 bytes, from nearly right to nothing but noise."""
    kind = dice.randrange(6)
    if kind == 0:
        return dice.choice((READ, WRITE)), dice.randbytes(SIZE)
    if kind == 1:
        return dice.choice((READ, WRITE)), dice.choice((bytes(SIZE), b"\xff" * SIZE))
    lengths = {"input_length": dice.choice((0,) * 12 + (31, 543, 2**32 - 1)),
               "room": dice.choice((0,) * 12 + (15, 527, 2**32 - 1)),
               "options": dice.choice((0,) * 12 + (1, 2, 2**63))}
    if kind <= 3:
        return READ, read_input(number_of(dice), number_of(dice), dice.getrandbits(32),
                                dice.choice((32,) * 8 + (0, 33)), **lengths)
    other = bytearray(dice.choice((token, token, ZERO_TOKEN, dice.randbytes(512))))
    for _ in range(dice.choice((0, 0, 1, 3))):
        other[dice.randrange(512)] = dice.randrange(256)
    return WRITE, write_input(bytes(other), number_of(dice), number_of(dice), number_of(dice),
                              dice.choice((544,) * 8 + (0, 545)), **lengths)


def any_request(dice):
    """A control number of any direction and size, or None for one that is not for garbage."""
    request = (dice.randrange(4) << 30
               | dice.choice((dice.randrange(16384), 0, 16, size_of(STAT), LIST_BYTES, SIZE)) << 16
               | dice.choice((0x4F, 0x4F, 0x66, 0x94)) << 8
               | dice.choice((0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0xA0, 0xA1, dice.randrange(256))))
    # FICLONE and its kin name descriptors; FIEMAP's structure is as long as it says itself.
    if request >> 8 & 0xFF == 0x94 and request & 0xFF in (9, 13, 54) \
            or request >> 8 & 0xFF == 0x66 and request & 0xFF == 11:
        return None
    return request


class Fuzzer:
    """An ordinary user's files on a mount, and calls on them."""

    def __init__(self, folder, dice, secrets):
        self.dice, self.secrets, self.arena = dice, secrets, Arena()
        self.data = dice.randbytes(1 << 20)
        self.source = new_file(folder + "/source", self.data)
        self.target = new_file(folder + "/target", self.data)
        self.watched = new_file(folder + "/watched", self.data)
        os.mkfifo(folder + "/fifo")
        os.symlink("/nowhere", folder + "/link")
        self.read_only = os.open(folder + "/target", os.O_RDONLY)
        self.write_only = os.open(folder + "/target", os.O_WRONLY)
        self.directory = os.open(folder, os.O_RDONLY)
        self.fifo = os.open(folder + "/fifo", os.O_RDWR | os.O_NONBLOCK)
        self.paths = [os.open(path, os.O_PATH | os.O_NOFOLLOW)
                      for path in (folder, *(f"{folder}/{name}" for name in
                                             ("source", "fifo", "link")))]
        self.everything = (self.source, self.target, self.read_only, self.write_only,
                           self.directory, self.fifo)
        self.token = offload_read(self.source, 0, 1 << 20).token
        self.calls, self.seen = 0, {}

    def count(self, answer):
        self.calls += 1
        name = errno.errorcode.get(answer, answer)
        expect(answer in ANSWERS, f"call {self.calls}: errno {name}")
        self.seen[name] = self.seen.get(name, 0) + 1

    def place(self, size):
        """Anywhere, at any alignment; often right at an end of the memory."""
        last = Arena.BYTES - size
        return self.dice.choice((0, last, self.dice.randrange(last + 1)))

    def any_ioctl(self):
        request = any_request(self.dice)
        if request is None:
            return
        raw = self.dice.randbytes(size_of(request))
        number, now = self.arena.call(self.dice.choice(self.everything), request, raw,
                                      self.place(max(len(raw), 64)))
        self.secrets.keep(now, f"ioctl {request:#x}")
        self.count(number)

    def control(self):
        request, raw = structure(self.dice, self.token)
        files = (self.target, self.source)[request == READ:]
        where = self.dice.choice(files if self.dice.random() < 0.7 else self.everything)
        number, now = self.arena.call(where, request, raw, self.place(SIZE))
        reply = Reply(number, now)
        if number and now != raw and reply.body != bytes(544):
            raise Failure(f"call {self.calls}: {reply} with a body")
        if number == 0 and reply.status != SUCCESS:
            raise Failure(f"call {self.calls}: {reply}")
        if number == 0 and request == WRITE and where in (self.directory, self.fifo,
                                                          self.read_only):
            raise Failure(f"call {self.calls}: an offload write through the wrong descriptor")
        if now != raw:
            self.secrets.keep(now, f"{reply}")
        self.count(number)

    def unharmed(self):
        expect(os.pread(self.watched, 2 << 20, 0) == self.data,
               "a file that no call named has changed")
        for descriptor in (self.source, self.target):
            expect_equal(os.fstat(descriptor).st_size, 1 << 20, "a file's size")
        expect_equal(call(self.source, READ, read_input(0, 4096)).errno, 0, "a good call")


def other_filesystems(fuzzer):
    """No descriptor of anything else knows the controls, and none of them touches the memory."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as other:
        pipe, (left, right) = os.pipe(), socket.socketpair()
        mine = [new_file(other + "/file", b"x" * 4096), os.open(other, os.O_RDONLY),
                os.open("/proc/self/status", os.O_RDONLY), os.open("/proc", os.O_RDONLY),
                os.open("/dev/null", os.O_RDWR), os.open("/dev/zero", os.O_RDWR),
                os.memfd_create("odx"), os.eventfd(0), *pipe]
        known = (READ, WRITE, LIST, DROP, STAT)
        for descriptor in (*mine, left.fileno(), right.fileno(), fuzzer.fifo):
            for turn in range(60):
                request = known[turn] if turn < len(known) else (
                    fuzzer.dice.randrange(4) << 30 | fuzzer.dice.randrange(16384) << 16 | 0x4F00
                    | fuzzer.dice.choice((0x99, 0x9A, 0x9B, 0xA0, 0xA1, fuzzer.dice.randrange(256))))
                raw = fuzzer.dice.randbytes(size_of(request))
                number, now = fuzzer.arena.call(descriptor, request, raw, fuzzer.place(len(raw)))
                expect_equal((number, now), (errno.ENOTTY, raw),
                             f"ioctl {request:#x} on {os.readlink(f'/proc/self/fd/{descriptor}')}")
        for descriptor in mine:
            os.close(descriptor)
        left.close()
        right.close()
    for descriptor in fuzzer.paths:
        for request in known:
            raw = fuzzer.dice.randbytes(size_of(request))
            answer = fuzzer.arena.call(descriptor, request, raw, 0)
            expect_equal(answer, (errno.EBADF, raw), "an O_PATH descriptor")


def hostile_addresses(fuzzer):
    """Unaligned: as good as others. At the end of a mapping, read-only, none: EFAULT."""
    arena, good = fuzzer.arena, {READ: read_input(0, 4096), WRITE: write_input(ZERO_TOKEN, 0, 512),
                                 LIST: bytes(LIST_BYTES), STAT: bytes(size_of(STAT))}
    for request, raw in good.items():
        descriptor = fuzzer.source if request == READ else fuzzer.target
        for at in (*range(9), Arena.BYTES - len(raw), PAGE - 1, PAGE - len(raw) + 1,
                   2 * PAGE - 300):
            expect_equal(arena.call(descriptor, request, raw, at)[0], 0, f"{request:#x} at {at}")
        for missing in (1, 2, 8, 16, 17, 128, len(raw) - 1, len(raw)):
            arena.call_over_edge(descriptor, request, len(raw), missing)
        for address in (0, 1, 4096, 2**47 - 1, 2**47, 2**63, 0xFFFF888000000000, 2**64 - SIZE,
                        2**64 - 1):
            expect_equal(arena.at_address(descriptor, request, address), errno.EFAULT,
                         f"address {address:#x}")
        arena.fill(raw)
        arena.protect(mmap.PROT_READ)  # where it can be read, the call is made, but not answered
        expect_equal(arena.at_address(descriptor, request, arena.begin), errno.EFAULT,
                     "memory that cannot be written")
        expect(ctypes.string_at(arena.begin, len(raw)) == raw, "memory that cannot be written")
        arena.protect(PROT_NONE)
        expect_equal(arena.at_address(descriptor, request, arena.begin), errno.EFAULT,
                     "memory that cannot be read")
        arena.protect(mmap.PROT_READ | mmap.PROT_WRITE)


def others_tokens(fuzzer):
    """Root's tokens are not listed, dropped or redeemed by their id, or told from unknown ones."""
    listed = list_tokens(fuzzer.source)
    expect(fuzzer.token[TOKEN_ID] in listed, "one's own token is not listed")
    unknown = fuzzer.token[:28] + fuzzer.dice.randbytes(48) + fuzzer.token[76:]
    wanted = offload_write(fuzzer.target, unknown, 0, 512)
    expect_equal((wanted.errno, wanted.reason), (EKEYREJECTED, REASON["TOKEN_UNKNOWN"]),
                 "an unknown token")
    for token in fuzzer.secrets.tokens:
        expect(token[TOKEN_ID] not in listed, "another's token is listed")
        forged = token[:44] + fuzzer.dice.randbytes(32) + token[76:]
        for transfer in (0, 2**40):
            expect_equal(offload_write(fuzzer.target, forged, 0, 512, transfer).raw, wanted.raw,
                         "a token with another secret")
        with expect_errno(errno.EPERM, "dropping another's token"):
            drop_token(fuzzer.target, token)


def main(folder, seed, seconds, secrets=Secrets(), unreadable=()):
    fuzzer = Fuzzer(folder, random.Random(seed), secrets)
    for path in unreadable:
        with expect_errno(errno.EACCES, f"opening {path}"):
            os.open(path, os.O_RDONLY)
        fuzzer.paths.append(os.open(path, os.O_PATH))
    other_filesystems(fuzzer)
    hostile_addresses(fuzzer)
    others_tokens(fuzzer)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if fuzzer.dice.random() < 0.15:
            fuzzer.any_ioctl()
        else:
            fuzzer.control()
    others_tokens(fuzzer)
    fuzzer.unharmed()
    fuzzer.arena.close()
    print(f"{fuzzer.calls} calls: {fuzzer.seen}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
