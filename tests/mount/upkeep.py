"""What the tests of scrub and check share."""

import errno
import fcntl
import os
import random
import subprocess
import sys

import odx_abi
from harness import MIB, environment, expect

BLOCK = 4096


def control(path, number, operation, tail=b""):
    """One of the two controls by its raw ABI: `tail` follows the operation. The 4096 bytes."""
    raw = bytearray(odx_abi.UPKEEP_BYTES)
    raw[0:4] = operation.to_bytes(4, "little")
    raw[4:4 + len(tail)] = tail
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, number, raw, True)
    finally:
        os.close(descriptor)
    return bytes(raw)


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def clone(source, target, offset=0, length=None):
    """A new file made of a part of `source`."""
    length = os.stat(source).st_size - offset if length is None else length
    from_file, to_file = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        done = 0
        while done < length:
            done += os.copy_file_range(from_file, to_file, length - done, offset + done, done)
    finally:
        os.close(from_file)
        os.close(to_file)


def find_on_device(store, wanted):
    """(segment file, offset) of some bytes that are in the store's data once."""
    for name in sorted(os.listdir(store + "/data")):
        path = f"{store}/data/{name}"
        with open(path, "rb") as file:
            at, end = 0, os.fstat(file.fileno()).st_size
            while at < end:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break  # nothing but a hole
                found = os.pread(file.fileno(), MIB + len(wanted), at).find(wanted)
                if found >= 0:
                    return path, at + found
                at += MIB
    raise AssertionError("the bytes are not in the store")


def flip(place):
    """Changes one byte of a segment behind the daemon's back; twice, and it is as it was."""
    path, offset = place
    descriptor = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(descriptor, 1, offset)
        os.pwrite(descriptor, bytes([byte[0] ^ 0x10]), offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget(path):
    """The kernel's cached pages of a file go."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


class Churn:
    """Processes that make, clone, change and remove files of a mount until told to stop."""

    def __init__(self, folder, workers):
        self._workers = []
        for number in range(workers):
            place = f"{folder}/churn-{number}"
            os.mkdir(place)
            self._workers.append(subprocess.Popen(
                [sys.executable, "-B", os.path.abspath(__file__), place], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, env=environment()))
        for worker in self._workers:
            expect(worker.stdout.read(1) == b"x", "a worker did not begin")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        turns = []
        for worker in self._workers:
            worker.stdin.close()
            turns.append(int(worker.stdout.read() or b"0"))
            expect(worker.wait(300) == 0, "a worker failed")
        expect(all(turns), f"a worker did nothing: {turns}")


def _work(place):
    seed = random.randrange(2**32)
    print(f"churn: seed {seed}", file=sys.stderr)
    dice = random.Random(seed)
    os.set_blocking(0, False)
    turns = 0
    os.write(1, b"x")
    while True:
        try:
            if not os.read(0, 1):
                break
        except BlockingIOError:
            pass
        name = f"{place}/{dice.randrange(30)}"
        what = dice.randrange(8)
        try:
            if what < 3:
                with open(name, "r+b" if os.path.exists(name) else "wb") as file:
                    file.seek(dice.randrange(300000))
                    file.write(dice.randbytes(dice.randrange(1, 60000)))
            elif what == 3:
                clone(name, f"{place}/{dice.randrange(30)}")
            elif what == 4:
                os.rename(name, f"{place}/{dice.randrange(30)}")
            elif what == 5:
                os.unlink(name)
            elif what == 6:
                os.truncate(name, dice.randrange(200000))
            else:
                os.mkdir(name + "-d")
                os.setxattr(name + "-d", "user.a", b"b")
                os.rmdir(name + "-d")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):  # of one file onto itself
                raise
        if turns % 50 == 0:
            descriptor = os.open(place, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        turns += 1
    os.write(1, str(turns).encode())


if __name__ == "__main__":
    _work(sys.argv[1])
