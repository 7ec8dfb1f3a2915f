#!/usr/bin/env python3
"""The two offload controls by their raw ABI: tokens, every error, and garbage of every kind."""

import errno
import mmap
import os
import random
import subprocess
import sys
import time

import ioctl_fuzz
from harness import MIB, as_user, case_main, environment, expect, expect_equal, say
from odx_abi import (ALL_ZERO_BEYOND, BUFFER_TOO_SMALL, DEVICE_UNREACHABLE, EKEYEXPIRED,
                     EKEYREJECTED, END_OF_FILE, FILE_LOCK_CONFLICT, INVALID_PARAMETER,
                     INVALID_TOKEN, READ_FILE_NOT_SUPPORTED, STORE_UUID, SUCCESS, TOKEN_SYNC,
                     ZERO_TOKEN, flipped, new_file, offload_read, offload_write)

SECTOR = 512


def answers(reply, number, status, what):
    expect((reply.errno, reply.status) == (number, status),
           f"{what}: {reply}, wanted errno {errno.errorcode.get(number, number)}, {status:#x}")
    if number:
        expect(reply.reason != 0, f"{what}: an error without a reason")
        expect(reply.body == bytes(544), f"{what}: an error with a body")


def token_of(descriptor, offset, length, **more):
    reply = offload_read(descriptor, offset, length, **more)
    answers(reply, 0, SUCCESS, "an offload read")
    expect_equal(reply.length, length, "TransferLength")
    expect_equal(int.from_bytes(reply.body[0:4], "little"), 528, "the output's Size")
    return reply.token


def write_all(descriptor, token, offset, length, transfer=0):
    """As many offload writes as it takes."""
    done = 0
    while done < length:
        reply = offload_write(descriptor, token, offset + done, length - done, transfer + done)
        answers(reply, 0, SUCCESS, "an offload write")
        expect(reply.length > 0, "an offload write made no progress")
        done += reply.length


def tokens_are_snapshots(mount, data):
    """A token gives the bytes of its moment, whatever becomes of the source."""
    source = new_file(mount.path + "/source", data)
    before = mount.statistics()  # the source's pages may still be dirty: the daemon must see them
    token = token_of(source, 0, len(data))
    expect(token != token_of(source, 0, len(data)), "two reads gave the same token")
    copies = []

    def redeem(name):
        copy = new_file(f"{mount.path}/{name}")
        os.ftruncate(copy, len(data))
        write_all(copy, token, 0, len(data))
        expect(os.pread(copy, len(data) + 1, 0) == data, f"{name}: the copy differs")
        copies.append(copy)

    redeem("copy-first")
    written = mount.statistics()["device_bytes_written"] - before["device_bytes_written"]
    expect(written <= len(data), f"a token copy wrote {written} bytes")
    os.pwrite(source, b"overwritten" * 1000, 4000)
    redeem("copy-after-overwrite")
    mapped = mmap.mmap(source, len(data))
    mapped[:] = b"m" * len(data)
    redeem("copy-after-stores")
    mapped.close()
    os.ftruncate(source, 0)
    redeem("copy-after-truncation")
    os.unlink(mount.path + "/source")
    os.close(source)
    redeem("copy-after-unlink")

    # Dirty stores of a mapping are part of the moment.
    source = new_file(mount.path + "/mapped", bytes(MIB))
    area = mmap.mmap(source, MIB)
    area[0:MIB] = data[0:MIB]
    late = token_of(source, 0, MIB)
    area[0:100] = b"z" * 100
    copy = new_file(mount.path + "/of-mapped", b"\1" * MIB)
    view = mmap.mmap(copy, MIB, prot=mmap.PROT_READ)
    expect_equal(view[0:1], b"\1", "the mapped destination before")
    write_all(copy, late, 0, MIB)
    expect(view[:] == data[0:MIB], "a mapping of the destination shows old bytes")
    area.close()
    view.close()
    for descriptor in (source, copy, *copies):
        os.close(descriptor)
    return token


def parts_and_overlaps(mount, data):
    file = new_file(mount.path + "/parts", data)
    token = token_of(file, 8 * SECTOR, 64 * SECTOR)
    model = bytearray(data)
    taken = data[8 * SECTOR:72 * SECTOR]
    for offset, transfer, count in ((0, 0, 64), (40, 0, 64), (10, 7, 9), (200, 63, 1), (3, 5, 40)):
        write_all(file, token, offset * SECTOR, count * SECTOR, transfer * SECTOR)
        model[offset * SECTOR:(offset + count) * SECTOR] = \
            taken[transfer * SECTOR:(transfer + count) * SECTOR]
    expect(os.pread(file, len(data), 0) == bytes(model), "parts of a token in its own file")
    reply = offload_write(file, token, 0, 64 * SECTOR, 60 * SECTOR)
    answers(reply, 0, SUCCESS, "a write past the token's end")
    expect_equal(reply.length, 4 * SECTOR, "what is written of it")
    for transfer in (64 * SECTOR, 65 * SECTOR, 1 << 40):
        reply = offload_write(file, token, 0, SECTOR, transfer)
        answers(reply, errno.EINVAL, reply.status, f"TransferOffset {transfer}")
    os.close(file)


def zeros(mount):
    file = new_file(mount.path + "/zeros", b"n" * MIB)
    reply = offload_write(file, ZERO_TOKEN, 100 * SECTOR, 900 * SECTOR, 7 * SECTOR)
    answers(reply, 0, SUCCESS, "the zero token")
    expect_equal(reply.length, 900 * SECTOR, "LengthWritten")
    expect_equal(os.pread(file, 900 * SECTOR, 100 * SECTOR), bytes(900 * SECTOR), "zeros")
    expect_equal(os.pread(file, SECTOR, 99 * SECTOR), b"n" * SECTOR, "before them")
    expect_equal(os.pread(file, SECTOR, 1000 * SECTOR), b"n" * SECTOR, "after them")
    os.ftruncate(file, 10 * MIB)
    reply = offload_read(file, 2 * MIB, MIB)
    answers(reply, 0, SUCCESS, "a read of a hole")
    expect_equal((reply.token, reply.flags), (ZERO_TOKEN, ALL_ZERO_BEYOND), "a hole's token")
    reply = offload_read(file, 0, 4096)
    expect_equal((reply.token == ZERO_TOKEN, reply.flags), (False, 0), "a token of data")
    os.close(file)


def errors(mount, data):
    """The table of errors, each rule by itself."""
    eof = 100 * SECTOR
    file = new_file(mount.path + "/errors", data[:eof])
    token = token_of(file, 0, 10 * SECTOR)
    invalid = (errno.EINVAL, INVALID_PARAMETER)
    for what, arguments, (number, status) in (
            ("offset alignment", {"offset": 1, "length": SECTOR}, invalid),
            ("offset alignment at the end of a sector", {"offset": 511, "length": SECTOR}, invalid),
            ("length alignment", {"length": 511}, invalid),
            ("Size 31", {"length": SECTOR, "size": 31}, invalid),
            ("Size 0", {"length": SECTOR, "size": 0}, invalid),
            ("a range that wraps", {"offset": 2**64 - 512, "length": 1024}, invalid),
            ("a negative offset", {"offset": 2**63, "length": 512}, invalid),
            ("unknown options", {"length": 512, "options": 2}, invalid),
            ("input too short", {"length": 512, "input_length": 31},
             (errno.EINVAL, BUFFER_TOO_SMALL)),
            ("output too small", {"length": 512, "room": 527}, (errno.EINVAL, BUFFER_TOO_SMALL)),
            ("at the end of the file", {"offset": eof, "length": 512}, (errno.ENXIO, END_OF_FILE)),
            ("past the end", {"offset": eof + 512, "length": 512}, (errno.ENXIO, END_OF_FILE)),
            ("nothing", {"offset": 2**40}, (0, SUCCESS)),
            ("Flags and Reserved", {"length": 512, "flags": 0xFFFFFFFF, "reserved": 7},
             (0, SUCCESS)),
            ("a long TTL", {"length": 512, "ttl": 0xFFFFFFFF}, (0, SUCCESS)),
            ("lengths told", {"length": 512, "input_length": 32, "room": 528}, (0, SUCCESS)),
            ("longer than the file", {"length": 2**40}, (0, SUCCESS)),
    ):
        answers(offload_read(file, **arguments), number, status, f"READ, {what}")
    expect_equal(offload_read(file, 0, 2**40).length, eof, "a trimmed TransferLength")

    rejected = (EKEYREJECTED, INVALID_TOKEN)
    for what, arguments, (number, status) in (
            ("offset alignment", {"offset": 100, "length": 512}, invalid),
            ("length alignment", {"length": 700}, invalid),
            ("transfer alignment", {"length": 512, "transfer": 3}, invalid),
            ("Size 543", {"length": 512, "size": 543}, invalid),
            ("a range that wraps", {"offset": 2**64 - 512, "length": 512 * 3}, invalid),
            ("a negative offset", {"offset": 2**63, "length": 512}, invalid),
            ("ODX_TOKEN_SYNC", {"length": 512, "options": TOKEN_SYNC}, invalid),
            ("input too short", {"length": 512, "input_length": 543},
             (errno.EINVAL, BUFFER_TOO_SMALL)),
            ("output too small", {"length": 512, "room": 15}, (errno.EINVAL, BUFFER_TOO_SMALL)),
            ("past the largest size", {"offset": 2**63 - 512, "length": 1024},
             (errno.EFBIG, INVALID_PARAMETER)),
            ("at the end of the file", {"offset": eof, "length": 512}, (errno.ENXIO, END_OF_FILE)),
            ("nothing, with a garbage token", {"token": b"\xa5" * 512}, (0, SUCCESS)),
            ("all zeros for a token", {"length": 512, "token": bytes(512)}, rejected),
            ("all ones for a token", {"length": 512, "token": b"\xff" * 512}, rejected),
            ("a reserved type", {"length": 512, "token": b"\xff\xff\0\2" + token[4:]}, rejected),
    ):
        answers(offload_write(file, **{"token": token, **arguments}), number, status,
                f"WRITE, {what}")
    for byte in range(512):
        wanted = ((errno.EXDEV, DEVICE_UNREACHABLE) if byte in STORE_UUID else rejected)
        answers(offload_write(file, flipped(token, byte, byte % 8), 0, SECTOR), *wanted,
                f"WRITE, a token with a flipped bit in byte {byte}")
    expect(os.pread(file, eof, 0) == data[:eof], "a refused write changed the file")

    with_reader = os.open(mount.path + "/errors", os.O_RDONLY)
    with_writer = os.open(mount.path + "/errors", os.O_WRONLY)
    directory = os.open(mount.path, os.O_RDONLY)
    expect_equal(offload_write(with_reader, token, 0, 512).errno, errno.EBADF, "WRITE, read-only")
    expect_equal(offload_read(with_writer, 0, 512).errno, errno.EBADF, "READ, write-only")
    answers(offload_read(directory, 0, 512), errno.EISDIR, READ_FILE_NOT_SUPPORTED, "READ, folder")
    answers(offload_read(directory, 0, 0), 0, SUCCESS, "READ of nothing, folder")
    expect_equal(offload_write(directory, token, 0, 512).errno, errno.EBADF, "WRITE, folder")
    for descriptor in (with_reader, with_writer, directory):
        os.close(descriptor)
    os.close(file)


def unaligned_end(mount, data):
    """An end of file within a sector: the tail can be taken and given exactly."""
    size = 10 * SECTOR + 100
    source = new_file(mount.path + "/odd", data[:size])
    reply = offload_read(source, 0, 20 * SECTOR)
    answers(reply, 0, SUCCESS, "READ over an unaligned end")
    expect_equal(reply.length, 11 * SECTOR, "the rounded TransferLength")
    target = new_file(mount.path + "/odd-target", b"t" * (20 * SECTOR))
    write_all(target, reply.token, 0, 11 * SECTOR)
    wanted = data[:size] + bytes(11 * SECTOR - size) + b"t" * (9 * SECTOR)
    expect(os.pread(target, 30 * SECTOR, 0) == wanted, "the tail's sector is not padded by zeros")
    exact = offload_read(source, 0, size)
    answers(exact, 0, SUCCESS, "READ of exactly the file")
    expect_equal(exact.length, size, "the exact TransferLength")
    os.ftruncate(target, 0)
    os.ftruncate(target, size)
    reply = offload_write(target, exact.token, 0, size)
    answers(reply, 0, SUCCESS, "WRITE of exactly the file")
    expect(os.pread(target, 30 * SECTOR, 0) == data[:size], "an exact copy")
    os.close(source)
    os.close(target)


def locked_ranges(mount, data):
    """A lock that another process holds stops both controls, at its own bytes only."""
    path = mount.path + "/locked"
    file = new_file(path, data[:100 * SECTOR])
    token = token_of(file, 0, 10 * SECTOR)
    code = ("import fcntl,sys\nf=open(sys.argv[1],'r+b')\n"
            "fcntl.lockf(f,fcntl.LOCK_EX,512,5120)\nprint('held',flush=True)\nsys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, env=environment()) as holder:
        expect_equal(holder.stdout.readline(), b"held\n", "the lock's holder")
        conflict = (errno.EAGAIN, FILE_LOCK_CONFLICT)
        answers(offload_read(file, 0, 11 * SECTOR), *conflict, "READ of a locked range")
        answers(offload_write(file, token, 10 * SECTOR, SECTOR), *conflict, "WRITE to one")
        answers(offload_read(file, 0, 10 * SECTOR), 0, SUCCESS, "READ before the lock")
        answers(offload_write(file, token, 11 * SECTOR, SECTOR), 0, SUCCESS, "WRITE after it")
        holder.stdin.close()
        expect_equal(holder.wait(30), 0, "the lock's holder")
    answers(offload_read(file, 0, 11 * SECTOR), 0, SUCCESS, "READ after the unlock")
    os.close(file)


def expiry(mount, data):
    file = new_file(mount.path + "/expiry", data[:MIB])
    token = token_of(file, 0, MIB, ttl=1000)
    time.sleep(2.5)  # 1 s to live, accurate to 1 s; using it to find out would refresh it
    answers(offload_write(file, token, 0, SECTOR), EKEYEXPIRED, INVALID_TOKEN, "an expired token")
    os.close(file)


def fuzz(mount, seconds):
    """Garbage from an ordinary user, on every kind of file; the daemon must not mind, and must keep
    to itself what is root's."""
    seed = random.randrange(2**32)
    say(f"fuzzing with seed {seed}")
    folder, kept = mount.path + "/fuzz", mount.path + "/fuzz-secret"
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    data = random.Random(seed + 1).randbytes(64 << 10)
    secret = new_file(kept, data)
    os.chmod(kept, 0o600)
    tokens = [token_of(secret, turn * 4096, 8192, ttl=600_000) for turn in range(8)]
    secrets = ioctl_fuzz.Secrets(tokens, (data,))
    as_user(lambda: ioctl_fuzz.main(folder, seed, seconds, secrets, (kept,)))
    mount.alive()
    copy = new_file(mount.path + "/fuzz-copy", bytes(64 << 10))
    for turn, token in enumerate(tokens):
        write_all(copy, token, turn * 4096, 8192)
    expect(os.pread(copy, 9 * 4096, 0) == data[:9 * 4096], "root's tokens after the fuzzing")
    expect(os.pread(secret, 1 << 20, 0) == data, "root's file after the fuzzing")
    os.close(copy)
    os.close(secret)


def limits(mount, data):
    """Ten thousand live tokens of one file are nothing special."""
    file = new_file(mount.path + "/many", data[:MIB])
    made = [token_of(file, (turn % 64) * SECTOR, SECTOR) for turn in range(1000)]
    expect_equal(len(set(made)), 1000, "different tokens")
    expect(mount.statistics()["tokens_live"] >= 1000, "live tokens")
    os.close(file)


def synchronous(case, data):
    """What goes into a file that was opened with O_DSYNC is durable on return."""
    mount = case.mount(case.store(), "flush=3600000")  # nothing else makes it so
    source = new_file(mount.path + "/source", data)
    token = token_of(source, 0, len(data))
    names = ("written", "copied")
    for name in names:
        os.close(new_file(f"{mount.path}/{name}", bytes(len(data))))
    mount.sync()
    files = [os.open(f"{mount.path}/{name}", os.O_RDWR | os.O_DSYNC) for name in names]
    write_all(files[0], token, 0, len(data))
    expect_equal(os.copy_file_range(source, files[1], len(data), 0, 0), len(data), "a copy")
    mount.kill()
    for descriptor in (source, *files):
        os.close(descriptor)
    mount = case.mount(mount.store)
    for name in names:
        with open(f"{mount.path}/{name}", "rb") as file:
            expect(file.read() == data, f"what was {name} is gone after a crash")
    case.close(mount)


def body(case):
    mount = case.mount(case.store())
    data = random.Random(11).randbytes(3 * MIB)
    token = tokens_are_snapshots(mount, data)
    say("tokens are snapshots")
    parts_and_overlaps(mount, data)
    zeros(mount)
    errors(mount, data)
    unaligned_end(mount, data)
    locked_ranges(mount, data)
    expiry(mount, data)
    limits(mount, data)
    say("every rule answers as it should")
    fuzz(mount, 3 if case.quick else 8)

    mount = case.remount(mount)
    copy = new_file(mount.path + "/after-remount")
    os.ftruncate(copy, len(data))
    write_all(copy, token, 0, len(data))
    expect(os.pread(copy, len(data) + 1, 0) == data, "a token after a remount")
    durable = token_of(copy, 0, MIB, options=TOKEN_SYNC)
    os.close(copy)
    mount.kill()
    mount = case.mount(mount.store)
    copy = new_file(mount.path + "/after-crash")
    os.ftruncate(copy, MIB)
    write_all(copy, durable, 0, MIB)
    expect(os.pread(copy, MIB, 0) == data[:MIB], "a durable token after a crash")
    os.close(copy)
    say("tokens outlive remounts, durable ones crashes")

    foreign = case.mount(case.store())
    file = new_file(foreign.path + "/file", bytes(MIB))
    answers(offload_write(file, durable, 0, SECTOR), errno.EXDEV, DEVICE_UNREACHABLE,
            "a token of another store")
    os.close(file)
    case.close(foreign)
    case.close(mount)
    synchronous(case, data)


if __name__ == "__main__":
    case_main(body)
