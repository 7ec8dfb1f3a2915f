"""Checks of file content; see posix_basics.py."""

import errno
import fcntl
import mmap
import os
import random
import threading

from harness import MIB, as_user, expect, expect_equal, expect_errno, say, wait_for
from posix_lib import check, fallocate, opened, read, write

CREATE = os.O_RDWR | os.O_CREAT
KEEP_SIZE, PUNCH, COLLAPSE, ZERO = 1, 2, 8, 16


@check
def truncation(folder):
    path = folder + "/file"
    write(path, b"z" * 10_000)
    os.truncate(path, 5_000)
    os.truncate(path, 20_000)
    expect_equal(read(path), b"z" * 5_000 + bytes(15_000), "cut and grown again")
    os.truncate(path, 0)
    expect_equal((read(path), os.stat(path).st_size), (b"", 0), "cut to nothing")
    os.truncate(path, 1 << 40)
    expect_equal(os.stat(path).st_size, 1 << 40, "a size of 1 TiB")
    expect_equal(os.stat(path).st_blocks, 0, "its blocks")
    with expect_errno(errno.EISDIR, "truncate of a directory"):
        os.truncate(folder, 0)
    with opened(path, os.O_RDONLY) as file, expect_errno(errno.EINVAL, "read-only ftruncate"):
        os.ftruncate(file, 5)
    with opened(path, os.O_RDWR | os.O_TRUNC):
        expect_equal(os.stat(path).st_size, 0, "O_TRUNC")


@check
def far_offsets(folder):
    with opened(folder + "/file", CREATE) as file:
        os.pwrite(file, b"far", (1 << 44) + 7)
        expect_equal(os.fstat(file).st_size, (1 << 44) + 10, "the size")
        expect_equal(os.pread(file, 9, (1 << 44) + 5), bytes(2) + b"far", "the end")
        expect_equal(os.pread(file, 4, 1 << 43), bytes(4), "the hole")
        expect_equal(os.pread(file, 4, 1 << 45), b"", "past the end")


@check
def appending(folder):
    path, writers, count = folder + "/log", 4, 500

    def work(who):
        with opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
            for number in range(count):
                os.write(file, f"{who} {number:05}\n".encode())

    threads = [threading.Thread(target=work, args=(who,)) for who in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = read(path).decode().splitlines()
    expect_equal(len(lines), writers * count, "lines")
    for who in range(writers):
        own = [line for line in lines if line.startswith(f"{who} ")]
        expect_equal(own, [f"{who} {number:05}" for number in range(count)], f"writer {who}")
    with opened(path, os.O_RDWR | os.O_APPEND) as file:
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, b"end\n")
    expect(read(path).endswith(b"end\n"), "O_APPEND ignores the offset")


@check
def synchronous_and_direct(folder):
    path = folder + "/file"
    block = mmap.mmap(-1, 65536)
    block.write(random.Random(5).randbytes(65536))
    with opened(path, CREATE | os.O_DIRECT) as direct, opened(path, os.O_RDWR) as cached:
        os.pwritev(direct, [block], 0)
        expect_equal(os.pread(cached, 65536, 0), block[:], "direct write, cached read")
        os.pwrite(cached, b"c" * 100, 1000)
        again = mmap.mmap(-1, 65536)
        expect_equal(os.preadv(direct, [again], 0), 65536, "a direct read")
        expect_equal(again[900:1200], block[900:1000] + b"c" * 100 + block[1100:1200],
                     "cached write, direct read")
    for flag in (os.O_SYNC, os.O_DSYNC):
        with opened(path, os.O_RDWR | flag) as file:
            os.pwrite(file, b"s" * 5000, 70_001)
            os.fdatasync(file)
    expect_equal(read(path)[65536:], bytes(70_001 - 65536) + b"s" * 5000, "after O_SYNC")


@check
def mapping(folder):
    path = folder + "/file"
    write(path, bytes(3 * 4096 + 100))
    with opened(path) as file:
        shared = mmap.mmap(file, 3 * 4096 + 100)
        shared[5000:5005] = b"store"
        expect_equal(os.pread(file, 5, 5000), b"store", "a store, read")
        os.pwrite(file, b"write", 9000)
        expect_equal(shared[9000:9005], b"write", "a write, loaded")
        private = mmap.mmap(file, 4096, flags=mmap.MAP_PRIVATE)
        private[0:4] = b"mine"
        expect_equal(os.pread(file, 4, 0), bytes(4), "a private store")
        shared.flush()
        shared[12300:12305] = b"later"
        shared.close()
        private.close()
    expect_equal(read(path)[12300:12305], b"later", "a store, after munmap")
    with opened(path, os.O_RDONLY) as file:
        loaded = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        expect_equal(loaded[5000:5005] + loaded[9000:9005], b"storewrite", "a new mapping")
        loaded.close()


@check
def preallocation(folder):
    with opened(folder + "/file", CREATE) as file:
        fallocate(file, 0, 0, 2 * MIB)
        expect_equal(os.fstat(file).st_size, 2 * MIB, "fallocate's size")
        expect_equal(os.pread(file, 2 * MIB, 0), bytes(2 * MIB), "fallocate's content")
        fallocate(file, KEEP_SIZE, 2 * MIB, MIB)
        expect_equal(os.fstat(file).st_size, 2 * MIB, "KEEP_SIZE's size")
        os.pwrite(file, b"d" * MIB, 0)
        fallocate(file, PUNCH | KEEP_SIZE, 1000, 10_000)
        expect_equal(os.pread(file, 12_000, 0), b"d" * 1000 + bytes(10_000) + b"d" * 1000, "punch")
        fallocate(file, ZERO, 20_000, 3 * MIB)
        expect_equal(os.fstat(file).st_size, 20_000 + 3 * MIB, "ZERO_RANGE's size")
        expect_equal(os.pread(file, 10_000, 15_000), b"d" * 5_000 + bytes(5_000), "zeroed")
        with expect_errno((errno.EINVAL, errno.EOPNOTSUPP), "PUNCH without KEEP_SIZE"):
            fallocate(file, PUNCH, 0, 4096)
        for offset, length in ((0, 0), (-1, 10)):
            with expect_errno(errno.EINVAL, f"fallocate({offset}, {length})"):
                fallocate(file, 0, offset, length)


@check
def copying_ranges(folder):
    dice = random.Random(6)
    data = dice.randbytes(300_001)
    write(folder + "/source", data)
    with opened(folder + "/source") as source, opened(folder + "/target", CREATE) as target:
        model = bytearray()
        for _ in range(60):
            start, length = dice.randrange(300_000), dice.choice((1, 511, 4096, 5000, 100_000))
            at = dice.randrange(400_000)
            length = min(length, 300_001 - start)
            done = 0
            while done < length:
                count = os.copy_file_range(source, target, length - done, start + done, at + done)
                expect(count > 0, "copy_file_range stopped before the end")
                done += count
            model.extend(bytes(max(0, at + length - len(model))))
            model[at:at + length] = data[start:start + length]
        expect_equal(os.fstat(target).st_size, len(model), "the target's size")
        expect(os.pread(target, len(model), 0) == bytes(model), "the target's content")
        expect_equal(os.copy_file_range(source, target, 100, 300_001, 0), 0, "at the end")
        expect_equal(os.copy_file_range(source, target, 0, 0, 0), 0, "nothing")
        with expect_errno(errno.EINVAL, "overlapping ranges of one file"):
            os.copy_file_range(source, source, 5000, 0, 4000)
        expect_equal(os.copy_file_range(source, source, 5000, 0, 200_000), 5000, "within a file")
        expect_equal(os.pread(source, 5000, 200_000), data[:5000], "copied within a file")
    with opened(folder + "/source", os.O_RDONLY) as source:
        with expect_errno(errno.EBADF, "onto a read-only descriptor"):
            os.copy_file_range(source, source, 10, 0, 100_000)


@check
def random_operations(folder):
    """Thousands of random operations against a model in memory, in the manner of fsx."""
    limit, dice = 700_000, random.Random(8)
    path = folder + "/file"
    model, other = bytearray(), bytearray(dice.randbytes(200_000))
    write(folder + "/other", other)
    file, second = os.open(path, CREATE), os.open(folder + "/other", os.O_RDWR)
    say("random operations with seed 8")

    def grow(size):
        model.extend(bytes(max(0, size - len(model))))

    for turn in range(3000):
        at, length = dice.randrange(limit), int(2 ** dice.uniform(0, 17))
        kind = dice.randrange(9)
        where = f"operation {turn} (kind {kind}, {at}, {length})"
        if kind <= 1:
            data = dice.randbytes(length)
            os.pwrite(file, data, at)
            grow(at + length)
            model[at:at + length] = data
        elif kind == 2:
            size = dice.randrange(limit)
            os.ftruncate(file, size)
            del model[size:]
            grow(size)
        elif kind == 3:
            fallocate(file, PUNCH | KEEP_SIZE, at, length)
            end = min(at + length, len(model))
            if end > at:
                model[at:end] = bytes(end - at)
        elif kind == 4:
            fallocate(file, ZERO, at, length)
            grow(at + length)
            model[at:at + length] = bytes(length)
        elif kind == 5:
            start = dice.randrange(len(other))
            length = min(length, len(other) - start)
            count = os.copy_file_range(second, file, length, start, at)
            expect(0 < count <= length, f"{where}: copied {count}")
            grow(at + count)
            model[at:at + count] = other[start:start + count]
        elif kind == 6 and at < len(model):
            length = min(length, len(model) - at)
            base = at & ~4095
            area = mmap.mmap(file, at + length - base, offset=base)
            area[at - base:] = data = dice.randbytes(length)
            model[at:at + length] = data
            area.close()
        elif kind == 7:
            (os.fsync if dice.randrange(2) else os.fdatasync)(file)
        else:
            expect(os.pread(file, length, at) == bytes(model[at:at + length]), f"{where}: read")
        if turn % 100 == 0:
            os.close(file)
            file = os.open(path, os.O_RDWR)
            expect_equal(os.fstat(file).st_size, len(model), f"{where}: the size")
            expect(os.pread(file, len(model) + 1, 0) == bytes(model), f"{where}: the content")
    os.close(file)
    os.close(second)
    expect(read(path) == bytes(model), "the content at the end")


@check
def locks(folder):
    path = folder + "/file"
    write(path, b"x" * 100)
    with opened(path) as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 20)

        def conflict():
            with opened(path) as own:
                with expect_errno((errno.EAGAIN, errno.EACCES), "a lock that overlaps"):
                    fcntl.lockf(own, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 25)
                fcntl.lockf(own, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 30)
                with expect_errno(errno.EAGAIN, "flock of what is locked"):
                    fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)

        fcntl.flock(file, fcntl.LOCK_SH)
        os.chmod(path, 0o666)
        as_user(conflict)
        fcntl.lockf(file, fcntl.LOCK_UN)
        fcntl.flock(file, fcntl.LOCK_UN)

        def free():
            with opened(path) as own:
                fcntl.lockf(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)

        as_user(free)


@check
def space_accounting(folder):
    seen = []

    def settled():  # the space of files that earlier checks deleted may still be coming back
        seen.append(os.statvfs(folder).f_bfree)
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    wait_for(settled, "free space to settle")
    before = os.statvfs(folder)
    expect(before.f_blocks > 0 and before.f_bfree <= before.f_blocks, "statvfs blocks")
    expect(before.f_bavail <= before.f_bfree, "statvfs available")
    expect_equal(before.f_namemax, 255, "statvfs namemax")
    with opened(folder + "/file", CREATE) as file:
        for _ in range(32):
            os.write(file, random.Random(9).randbytes(MIB))
        os.fsync(file)
        after = os.statvfs(folder)
        used = (before.f_bfree - after.f_bfree) * before.f_frsize
        expect(31 * MIB <= used <= 64 * MIB, f"32 MiB took {used} bytes of free space")
    blocks = os.stat(folder + "/file").st_blocks * 512  # fresh only once the file is closed
    expect(blocks >= 32 * MIB, f"st_blocks says {blocks}")
