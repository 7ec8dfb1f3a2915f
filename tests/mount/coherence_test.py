#!/usr/bin/env python3
"""The daemon and the kernel's caches, on a real mount.

usage: coherence_test.py BUILD_DIR [TEST...]

Needs root or fusermount3, and /dev/fuse (exit 77 without). Makes its own stores in a temporary
directory, always unmounts, and has `odx check` look at each store at the end.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SKIPPED = 77
PAGE = 4096
MIB = 1 << 20
GIB = 1 << 30

# odx/offload.h
CALL_BYTES = 560
BODY_BYTES = 544


def _ioc(direction, number, size):
    return direction << 30 | size << 16 | ord("O") << 8 | number


IOC_READ = _ioc(3, 0x99, CALL_BYTES)
IOC_WRITE = _ioc(3, 0x9A, CALL_BYTES)
STAT_BYTES = 1240
IOC_STAT = _ioc(2, 0x9B, STAT_BYTES)
IOC_LIST = _ioc(3, 0x9C, 24 + 16 * 56)
IOC_DROP = _ioc(1, 0x9D, 16)
REASON_ACCESS_MODE, REASON_LOCKED, REASON_DISABLED = 15, 13, 29
STATUS_READ_FLT_NOT_SUPPORTED = 0xC000A2A1
STATUS_ACCESS_DENIED = 0xC0000022

libc = ctypes.CDLL(None, use_errno=True)


class Refused(OSError):
    """An offload control that failed, with the structure that came back all the same."""

    def __init__(self, number, body, status, reason):
        super().__init__(number, os.strerror(number))
        self.body, self.status, self.reason = body, status, reason


def control(fd, command, body):
    buffer = ctypes.create_string_buffer(body.ljust(CALL_BYTES, b"\0"), CALL_BYTES)
    result = libc.ioctl(fd, ctypes.c_ulong(command), buffer)
    number = ctypes.get_errno()
    status, reason, shared = struct.unpack_from("<IIQ", buffer.raw, BODY_BYTES)
    if result != 0:
        raise Refused(number, buffer.raw[:BODY_BYTES], status, reason)
    assert status == 0, hex(status)
    return buffer.raw[:BODY_BYTES], reason, shared


def offload_read(fd, offset, length, ttl=0):
    body, _, _ = control(fd, IOC_READ, struct.pack("<IIIIQQ", 32, 0, ttl, 0, offset, length))
    size, _, transfer = struct.unpack_from("<IIQ", body)
    assert size == 528, size
    return transfer, body[16:528]


def offload_write(fd, offset, length, transfer_offset, token):
    head = struct.pack("<IIQQQ", 544, 0, offset, length, transfer_offset)
    body, _, shared = control(fd, IOC_WRITE, head + token)
    size, _, written = struct.unpack_from("<IIQ", body)
    assert size == 16, size
    return written, shared


def refused(call, *arguments):
    try:
        call(*arguments)
    except Refused as failure:
        return failure
    raise AssertionError("the call should have failed")


def run_child(function, *arguments):
    """Runs `function` in another process, which therefore has no state of ours but the files."""
    queue = multiprocessing.SimpleQueue()

    def child():
        queue.put(function(*arguments))

    process = multiprocessing.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == 0, f"child ended with {process.exitcode}"
    return queue.get()


class Mounts:
    """A temporary directory with stores and mounts; leaves nothing behind."""

    def __init__(self, build):
        self.programs = {}
        for name in ("odxfs", "mkfs.odxfs", "odx"):
            found = [p for p in build.glob(f"fs/*/{name}") if p.is_file()]
            self.programs[name] = found[0] if found else None
        self.base = Path(tempfile.mkdtemp(prefix="odxfs-coherence-"))
        self.mounted = {}

    def make_store(self, name, size=12 * GIB):
        store = self.base / name
        subprocess.run([self.programs["mkfs.odxfs"], "--size", str(size), store], check=True,
                       stdout=subprocess.DEVNULL)
        return store

    def mount(self, store, options=""):
        place = self.base / (store.name + ".mnt")
        place.mkdir(exist_ok=True)
        command = [self.programs["odxfs"], store, place, "-f"] + (["-o", options] if options else [])
        daemon = subprocess.Popen(command)
        self.mounted[place] = daemon
        deadline = time.monotonic() + 180
        while not os.path.ismount(place):
            assert daemon.poll() is None, f"{command} ended with {daemon.returncode}"
            assert time.monotonic() < deadline, "mounting takes too long"
            time.sleep(0.02)
        return place

    def unmount(self, place):
        daemon = self.mounted[place]
        subprocess.run(["umount", place] if os.geteuid() == 0 else ["fusermount3", "-u", place],
                       check=True)
        del self.mounted[place]
        status = daemon.wait(60)
        assert status == 0, f"the daemon ended with {status}"

    def check(self, store):
        if self.programs["odx"] is not None:
            subprocess.run([self.programs["odx"], "check", "--data", store], check=True,
                           stdout=subprocess.DEVNULL)

    @contextlib.contextmanager
    def fresh(self, name, options=""):
        store = self.make_store(name)
        place = self.mount(store, options)
        yield place
        self.unmount(place)
        self.check(store)

    def clean_up(self):
        for place, daemon in self.mounted.items():
            subprocess.run(["umount", "-l", place], stderr=subprocess.DEVNULL)
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
        shutil.rmtree(self.base, ignore_errors=True)


def pattern(size, seed):
    return random.Random(seed).randbytes(size)


def seek(path, offset, whence):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(fd, offset, whence)
    finally:
        os.close(fd)


def test_seek_sees_dirty_pages(mounts):
    """A page that only the kernel knows of is data to SEEK_DATA, whoever asks."""
    with mounts.fresh("seek") as place:
        path = place / "file"
        with open(path, "w+b") as file:
            file.truncate(MIB)
            assert refused_errno(lambda: run_child_raises(seek, path, 0)) == errno.ENXIO
            with mmap.mmap(file.fileno(), MIB) as view:
                view[MIB // 2] = 1
                assert run_child(seek, path, 0, os.SEEK_DATA) == MIB // 2
                assert run_child(seek, path, MIB // 2, os.SEEK_HOLE) == MIB // 2 + PAGE
                view[MIB // 4] = 1  # the page was dropped meanwhile, and must get dirty again
                assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == MIB // 4
            os.pwrite(file.fileno(), b"x" * PAGE, MIB - PAGE)
            assert run_child(seek, path, MIB * 3 // 4, os.SEEK_DATA) == MIB - PAGE
            os.pwrite(file.fileno(), b"x", 2 * MIB)  # the size is the kernel's, too
            assert run_child(seek, path, 2 * MIB, os.SEEK_DATA) == 2 * MIB
            assert os.lseek(file.fileno(), MIB, os.SEEK_DATA) == 2 * MIB


def run_child_raises(function, *arguments):
    def attempt():
        try:
            return function(*arguments, os.SEEK_DATA)
        except OSError as failure:
            return -failure.errno

    return run_child(attempt)


def refused_errno(call):
    return -call()


def test_sparse_copy(mounts):
    """cp of a sparse file loses no page that another process has just written."""
    with mounts.fresh("sparse") as place:
        source, copy = place / "source", place / "copy"
        with open(source, "w+b") as file:
            file.truncate(8 * MIB)
            for round_number in range(20):
                at = round_number * 400 * 1024
                os.pwrite(file.fileno(), bytes([round_number + 1]) * 5000, at)
                subprocess.run(["cp", source, copy], check=True)
                assert subprocess.run(["cmp", source, copy]).returncode == 0, round_number
                copy.unlink()


def test_offload_reads_dirty_source(mounts):
    """A token holds what was written before it, whether the daemon has heard of it or not."""
    with mounts.fresh("dirty") as place:
        content = bytearray(pattern(3 * MIB, 1))
        source = os.open(place / "source", os.O_RDWR | os.O_CREAT)
        target = os.open(place / "target", os.O_RDWR | os.O_CREAT)
        os.write(source, content)
        os.ftruncate(target, len(content))
        with mmap.mmap(source, len(content)) as view:
            view[MIB:MIB + 10] = b"0123456789"
            content[MIB:MIB + 10] = b"0123456789"
            transfer, token = offload_read(source, 0, len(content))
            assert transfer == len(content)
            view[0:4] = b"late"  # not in the token
        written, shared = offload_write(target, 0, len(content), 0, token)
        assert (written, shared) == (len(content), len(content))
        assert os.pread(target, len(content) + 1, 0) == content
        os.close(source)
        os.close(target)


def mapped_reader(path, length, start, go, answers):
    """Has the file's pages mapped before the change, and looks again after."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), length, prot=mmap.PROT_READ) as view:
        answers.put(hashlib.sha256(view[:]).hexdigest())
        start.set()
        go.wait(60)
        answers.put(hashlib.sha256(view[:]).hexdigest())


def test_offload_write_shows_everywhere(mounts):
    """After an offload write nobody sees the old bytes, size or time; bytes outside stay."""
    with mounts.fresh("show") as place:
        length = 2 * MIB
        new = pattern(length, 2)
        old = bytearray(pattern(length, 3))
        (place / "source").write_bytes(new)
        source = os.open(place / "source", os.O_RDONLY)
        target = os.open(place / "target", os.O_RDWR | os.O_CREAT)
        os.write(target, old)  # dirty, all of it
        start, go = multiprocessing.Event(), multiprocessing.Event()
        answers = multiprocessing.SimpleQueue()
        reader = multiprocessing.Process(target=mapped_reader,
                                         args=(place / "target", length, start, go, answers))
        reader.start()
        assert start.wait(60)
        assert answers.get() == hashlib.sha256(old).hexdigest()
        os.utime(target, ns=(0, 0))
        _, token = offload_read(source, 0, length)
        with mmap.mmap(target, length) as view:
            view[0:3] = b"out"  # outside of the range: stays
            view[MIB:MIB + 2] = b"in"  # inside, but before: replaced
            at, size = 512, length - 1024
            assert offload_write(target, at, size, at, token)[0] == size
            old[0:3] = b"out"
            old[at:at + size] = new[at:at + size]
            assert view[:] == old
        go.set()
        assert answers.get() == hashlib.sha256(old).hexdigest()
        reader.join(60)
        assert os.pread(target, length, 0) == old
        assert os.fstat(target).st_size == length
        if os.geteuid() == 0:
            assert abs(os.fstat(target).st_mtime - time.time()) < 60
        os.close(source)
        os.close(target)


def test_offload_write_extends(mounts):
    """odx_extend: the new size is there for everybody at once."""
    with mounts.fresh("extend", "odx_extend") as place:
        content = pattern(MIB + 700, 4)
        (place / "source").write_bytes(content)
        source = os.open(place / "source", os.O_RDONLY)
        for options in (os.O_RDWR, os.O_WRONLY):
            path = place / f"target{options}"
            target = os.open(path, options | os.O_CREAT)
            reader = os.open(path, os.O_RDONLY)
            assert os.pread(reader, 10, 0) == b""
            transfer, token = offload_read(source, 0, 2 * MIB)
            offload_write(target, 0, transfer, 0, token)
            assert os.fstat(reader).st_size == len(content), os.fstat(reader).st_size
            assert os.pread(reader, 2 * MIB, 0) == content
            os.pwrite(target, b"tail", len(content))  # the kernel goes on from there
            assert os.pread(reader, 2 * MIB, 0) == content + b"tail"
            os.close(target)
            os.close(reader)
        os.close(source)


def test_large_sparse_copy(mounts):
    """copy_file_range over more than 4 GiB, in few calls, holes staying holes."""
    with mounts.fresh("large") as place:
        marks = {0: b"a" * 5000, 4 * GIB - 3: b"straddles", 5 * GIB + 17: b"odd", 6 * GIB - 4: b"tail"}
        with open(place / "source", "w+b") as source, open(place / "target", "w+b") as target:
            source.truncate(6 * GIB)
            for at, data in marks.items():
                os.pwrite(source.fileno(), data, at)  # left dirty
            done = calls = 0
            while done < 6 * GIB:
                n = os.copy_file_range(source.fileno(), target.fileno(), 6 * GIB - done, done, done)
                assert n > 0
                done += n
                calls += 1
            assert calls <= 4, calls
            for at, data in marks.items():
                assert os.pread(target.fileno(), len(data), at) == data, at
            assert os.fstat(target.fileno()).st_size == 6 * GIB
            assert os.lseek(target.fileno(), 2 * PAGE, os.SEEK_DATA) == 4 * GIB - PAGE
        assert (place / "target").stat().st_blocks * 512 < MIB


def test_refusals_carry_the_reply(mounts):
    """errno and structure both arrive; nothing that a caller sends hurts the daemon."""
    with mounts.fresh("refuse") as place:
        path = place / "file"
        path.write_bytes(pattern(64 * 1024, 5))
        reading, writing = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
        token = offload_read(reading, 0, PAGE)[1]
        for failure in (refused(offload_write, reading, 0, PAGE, 0, token),
                        refused(offload_read, writing, 0, PAGE)):
            assert failure.errno == errno.EBADF
            assert (failure.status, failure.reason) == (STATUS_ACCESS_DENIED, REASON_ACCESS_MODE)
            assert failure.body == bytes(BODY_BYTES)

        directory = os.open(place, os.O_RDONLY)
        assert refused(offload_read, directory, 0, PAGE).errno == errno.EISDIR
        assert offload_read(directory, 0, 0)[0] == 0
        both = os.open(path, os.O_RDWR)
        source = random.Random(6)
        for _ in range(3000):
            command = source.choice((IOC_READ, IOC_WRITE, IOC_STAT, IOC_LIST, IOC_DROP,
                                     source.getrandbits(32) | 0xC0000000))
            size = command >> 16 & 0x3FFF
            data = bytearray(source.randbytes(size))
            if command in (IOC_READ, IOC_WRITE) and source.random() < 0.9:
                struct.pack_into("<I", data, 0, source.choice((32, 544, 528)))
                struct.pack_into("<QQ", data, 8 if command == IOC_WRITE else 16,
                                 source.choice((0, PAGE, 512, 1 << 63, 2**64 - 512)),
                                 source.choice((0, 512, PAGE, 1 << 62, 2**64 - 512)))
                struct.pack_into("<IIQ", data, BODY_BYTES, 0, 0, source.choice((0, 0, 1, 2)))
            try:
                fcntl.ioctl(source.choice((reading, writing, both, directory)), command, data)
            except OSError as failure:
                assert failure.errno not in (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED), failure
        stat = bytearray(STAT_BYTES)
        fcntl.ioctl(directory, IOC_STAT, stat, True)
        assert struct.unpack_from("<II", stat)[1] == 1
        for fd in (reading, writing, both, directory):
            os.close(fd)


def hold_lock(path, kind, ready, done):
    with open(path, "r+b") as file:
        fcntl.lockf(file, kind, 100, 8000)
        ready.set()
        done.wait(60)


def test_byte_range_locks(mounts):
    """Another process's lock refuses the control, its own does not."""
    with mounts.fresh("locks") as place:
        path = place / "file"
        path.write_bytes(pattern(64 * 1024, 7))
        fd = os.open(path, os.O_RDWR)
        token = offload_read(fd, 0, PAGE)[1]
        fcntl.lockf(fd, fcntl.LOCK_EX, 100, 0)
        offload_read(fd, 0, PAGE)
        fcntl.lockf(fd, fcntl.LOCK_UN)
        for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):
            ready, done = multiprocessing.Event(), multiprocessing.Event()
            holder = multiprocessing.Process(target=hold_lock, args=(path, kind, ready, done))
            holder.start()
            assert ready.wait(60)
            offload_read(fd, 0, PAGE)  # does not reach byte 8000
            if kind == fcntl.LOCK_EX:
                failure = refused(offload_read, fd, PAGE, PAGE)
                assert (failure.errno, failure.reason) == (errno.EAGAIN, REASON_LOCKED)
            else:
                offload_read(fd, PAGE, PAGE)
            failure = refused(offload_write, fd, PAGE, PAGE, 0, token)
            assert (failure.errno, failure.reason) == (errno.EAGAIN, REASON_LOCKED)
            done.set()
            holder.join(60)
            offload_write(fd, PAGE, PAGE, 0, token)
        os.close(fd)


def test_switched_off(mounts):
    with mounts.fresh("off", "no_offload") as place:
        path = place / "file"
        path.write_bytes(b"x" * PAGE)
        with open(path, "r+b") as file:
            failure = refused(offload_read, file.fileno(), 0, PAGE)
            assert failure.errno == errno.EPERM
            assert failure.status == STATUS_READ_FLT_NOT_SUPPORTED
            assert failure.reason == REASON_DISABLED


def test_nameless_files(mounts):
    """O_TMPFILE, links from it, and files that are open without a name."""
    with mounts.fresh("nameless") as place:
        fd = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o640)
        os.write(fd, b"from nowhere")
        at_fdcwd, follow = -100, 0x400
        named = os.fsencode(place / "named")
        assert libc.linkat(at_fdcwd, f"/proc/self/fd/{fd}".encode(), at_fdcwd, named, follow) == 0
        os.close(fd)
        assert (place / "named").read_bytes() == b"from nowhere"
        free = os.statvfs(place).f_bfree
        fd = os.open(place / "gone", os.O_RDWR | os.O_CREAT)
        os.write(fd, pattern(4 * MIB, 8))
        os.fsync(fd)
        os.unlink(place / "gone")
        transfer, token = offload_read(fd, 0, MIB)
        offload_write(fd, MIB, transfer, 0, token)
        assert os.pread(fd, MIB, MIB) == pattern(4 * MIB, 8)[:MIB]
        os.close(fd)
        os.mkdir(place / "directory")
        inside = os.open(place / "directory", os.O_RDONLY)
        os.rmdir(place / "directory")
        assert os.listdir(inside) == []
        os.close(inside)
        list_buffer = bytearray(24 + 16 * 56)
        directory = os.open(place, os.O_RDONLY)
        fcntl.ioctl(directory, IOC_LIST, list_buffer)
        count = struct.unpack_from("<I", list_buffer, 16)[0]
        assert count == 1, count
        fcntl.ioctl(directory, IOC_DROP, bytes(list_buffer[24:40]))
        deadline = time.monotonic() + 180
        while os.statvfs(place).f_bfree + MIB // PAGE < free:  # freed in the background
            assert time.monotonic() < deadline, "the space of a nameless file does not come back"
            os.fsync(directory)
            time.sleep(0.05)
        os.close(directory)


def busy_worker(place, number, seconds, failures):
    """One file of its own, changed in every way there is and compared with a model."""
    try:
        source = random.Random(number)
        size = 512 * 1024
        model = bytearray(size)
        fd = os.open(place / f"busy{number}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.ftruncate(fd, size)
        view = mmap.mmap(fd, size)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            at = source.randrange(size // 512) * 512
            length = min(source.randrange(1, 64) * 512, size - at)
            action = source.randrange(8)
            if action == 0:
                data = source.randbytes(length)
                os.pwrite(fd, data, at)
                model[at:at + length] = data
            elif action == 1:
                data = source.randbytes(min(length, 700))
                view[at:at + len(data)] = data
                model[at:at + len(data)] = data
            elif action in (2, 3):
                to = source.randrange(size // 512) * 512
                length = min(length, size - to)
                transfer, token = offload_read(fd, at, length)
                assert transfer == length
                assert offload_write(fd, to, length, 0, token)[0] == length
                model[to:to + length] = model[at:at + length]
            elif action == 4:
                half = size // 2
                at %= half
                length = min(length, half - at)
                assert os.copy_file_range(fd, fd, length, at, at + half) == length
                model[at + half:at + half + length] = model[at:at + length]
            elif action == 5:
                found = os.lseek(fd, at, os.SEEK_HOLE)
                tail = model[at:found]
                assert found >= at
                assert os.pread(fd, found - at, at) == tail
            elif action == 6:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                os.fsync(fd)
            assert os.pread(fd, length, at) == model[at:at + length], f"action {action}"
            probe = source.randrange(size - 4096)
            assert view[probe:probe + 4096] == model[probe:probe + 4096], f"map, action {action}"
        view.close()
        os.close(fd)
        failures.put((number, None, hashlib.sha256(model).hexdigest()))
    except BaseException as failure:  # everything has to be told to the parent
        failures.put((number, f"{type(failure).__name__}: {failure}", None))


def test_parallel(mounts):
    """Everything at once, in more processes than there are executors, and again after a remount."""
    store = mounts.make_store("parallel")
    for options in ("", "no_writeback"):
        place = mounts.mount(store, options)
        answers = multiprocessing.SimpleQueue()
        workers = [multiprocessing.Process(target=busy_worker, args=(place, n, 6, answers))
                   for n in range(12)]
        for worker in workers:
            worker.start()
        digests = {}
        for _ in workers:
            number, failure, digests[number] = answers.get()
            assert failure is None, f"worker {number}{options}: {failure}"
        for worker in workers:
            worker.join(60)
        mounts.unmount(place)
        place = mounts.mount(store, "ro")
        for number, digest in digests.items():
            stored = hashlib.sha256((place / f"busy{number}").read_bytes()).hexdigest()
            assert stored == digest, f"busy{number} differs after a remount"
        mounts.unmount(place)
        mounts.check(store)


def test_busy_shutdown(mounts):
    """SIGTERM while files are open: what was written is kept, and the daemon ends."""
    store = mounts.make_store("shutdown")
    place = mounts.mount(store)
    fd = os.open(place / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"y" * MIB)
    daemon = mounts.mounted.pop(place)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0
    try:
        os.pread(fd, 1, 2 * MIB)
        os.fstat(fd)
    except OSError as failure:
        assert failure.errno in (errno.ENOTCONN, errno.ECONNABORTED), failure
    with contextlib.suppress(OSError):
        os.close(fd)
    place = mounts.mount(store)
    assert (place / "file").read_bytes() == b"y" * MIB
    mounts.unmount(place)
    mounts.check(store)


def main():
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    tests = {name[5:]: function for name, function in globals().items() if name.startswith("test_")}
    wanted = sys.argv[2:] or list(tests)
    multiprocessing.set_start_method("fork")
    mounts = Mounts(Path(sys.argv[1]))
    try:
        if (not os.path.exists("/dev/fuse") or mounts.programs["odxfs"] is None
                or mounts.programs["mkfs.odxfs"] is None):
            print("skipped: needs /dev/fuse, odxfs and mkfs.odxfs")
            return SKIPPED
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        for name in wanted:
            started = time.monotonic()
            tests[name](mounts)
            print(f"ok {name} ({time.monotonic() - started:.1f} s)", flush=True)
    finally:
        mounts.clean_up()
    print(f"{len(wanted)} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
