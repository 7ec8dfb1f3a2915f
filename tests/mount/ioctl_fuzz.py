#!/usr/bin/env python3
"""ioctl_fuzz.py FOLDER SEED SECONDS: hostile ioctls on files, folders and fifos of a mount.

Run by offload_ioctl.py as an ordinary user. Fails if an answer is none of those that the rules know,
if a refused call changed a file, or if a call that looks at nothing but its own arguments succeeds
with bytes of a token that was never made.
"""

import errno
import fcntl
import os
import random
import sys
import time

from harness import Failure
from odx_abi import (EKEYEXPIRED, EKEYREJECTED, READ, SIZE, SUCCESS, WRITE, ZERO_TOKEN, call,
                     new_file, offload_read, read_input, write_input)

ANSWERS = {0, errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.EISDIR, errno.EOPNOTSUPP, errno.ENXIO,
           errno.EFBIG, errno.EAGAIN, errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOENT,
           errno.EROFS, errno.ENOSPC, errno.ENOBUFS, EKEYEXPIRED, EKEYREJECTED}
EDGES = (0, 1, 511, 512, 513, 4095, 4096, 65536, 2**20, 2**31, 2**32, 2**40, 2**62, 2**63 - 512,
         2**63 - 1, 2**63, 2**64 - 512, 2**64 - 1)


def number(dice):
    return dice.choice(EDGES) if dice.random() < 0.8 else dice.getrandbits(64)


def structure(dice, token):
    """560 bytes, from nearly right to nothing but noise."""
    kind = dice.randrange(6)
    if kind == 0:
        return dice.choice((READ, WRITE)), dice.randbytes(SIZE)
    if kind == 1:
        return dice.choice((READ, WRITE)), dice.choice((bytes(SIZE), b"\xff" * SIZE))
    lengths = {"input_length": dice.choice((0, 0, 0, 31, 543, 2**32 - 1)),
               "room": dice.choice((0, 0, 0, 15, 527, 2**32 - 1)),
               "options": dice.choice((0, 0, 0, 1, 2, 2**63))}
    if kind <= 3:
        return READ, read_input(number(dice), number(dice), dice.getrandbits(32),
                                dice.choice((32, 32, 0, 33)), **lengths)
    other = bytearray(dice.choice((token, token, ZERO_TOKEN, dice.randbytes(512))))
    for _ in range(dice.choice((0, 0, 1, 3))):
        other[dice.randrange(512)] = dice.randrange(256)
    return WRITE, write_input(bytes(other), number(dice), number(dice), number(dice),
                              dice.choice((544, 544, 0, 545)), **lengths)


def main(folder, seed, seconds):
    dice = random.Random(seed)
    data = dice.randbytes(1 << 20)
    source, target = new_file(folder + "/source", data), new_file(folder + "/target", data)
    watched = new_file(folder + "/watched", data)
    os.mkfifo(folder + "/fifo")
    read_only = os.open(folder + "/target", os.O_RDONLY)
    write_only = os.open(folder + "/target", os.O_WRONLY)
    directory = os.open(folder, os.O_RDONLY)
    fifo = os.open(folder + "/fifo", os.O_RDWR | os.O_NONBLOCK)
    token = offload_read(source, 0, 1 << 20).token
    everything = (source, target, read_only, write_only, directory, fifo)
    deadline, calls, seen = time.monotonic() + seconds, 0, {}
    while time.monotonic() < deadline:
        calls += 1
        if dice.random() < 0.15:  # any control number, direction and size
            request = (dice.randrange(4) << 30 | dice.choice((dice.randrange(16384), 0, 16, 488, SIZE))
                       << 16 | dice.choice((0x4F, 0x4F, 0x66, 0x94)) << 8
                       | dice.choice((0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, dice.randrange(256))))
            if request >> 8 & 0xFF == 0x94 and request & 0xFF in (9, 13):
                continue  # FICLONE and its kin name descriptors: not for garbage
            buffer = bytearray(dice.randbytes(16384))
            try:
                fcntl.ioctl(dice.choice(everything), request, buffer, True)
                answer = 0
            except OSError as error:
                answer = error.errno
        else:
            request, raw = structure(dice, token)
            where = dice.choice(everything)
            reply = call(where, request, raw)
            answer = reply.errno
            if answer and reply.raw != raw and reply.body != bytes(544):
                raise Failure(f"call {calls}: {reply} with a body")
            if reply.errno == 0 and reply.status != SUCCESS:
                raise Failure(f"call {calls}: {reply}")
            if where in (directory, fifo, read_only) and request == WRITE and answer == 0:
                raise Failure(f"call {calls}: an offload write through the wrong descriptor")
        if answer not in ANSWERS:
            raise Failure(f"call {calls}: errno {errno.errorcode.get(answer, answer)}")
        seen[errno.errorcode.get(answer, answer)] = seen.get(errno.errorcode.get(answer, answer), 0) + 1
    if os.pread(watched, 2 << 20, 0) != data:
        raise Failure("a file that no call named has changed")
    for descriptor in (source, target):
        if os.fstat(descriptor).st_size != 1 << 20:
            raise Failure("an offload write moved an end of file")
    print(f"{calls} calls: {seen}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
