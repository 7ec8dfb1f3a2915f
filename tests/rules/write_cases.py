"""Table 2.2: FSCTL_OFFLOAD_WRITE, row by row."""

import ctypes
import errno
import fcntl
import os
import select
import tempfile
import time

from harness import MIB, Failure, expect, expect_equal, expect_errno
from odx_abi import (STORE_UUID, TOKEN_SYNC, ZERO_TOKEN, drop_token, flipped, offload_read,
                     offload_write)
from registry import FILE, S, locked_by_another, over, pattern, rule, take_lock


@rule("2.2#0a")
def write_on_another_filesystem(world):
    with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
        file.write(bytes(FILE))
        file.flush()
        world.refused_by_kernel(file.fileno(), read=False)
        expect_equal(os.pread(file.fileno(), 2 * FILE, 0), bytes(FILE), "the other file")
    with open("/dev/null", "r+b", buffering=0) as file:
        world.refused_by_kernel(file.fileno(), read=False)


@rule("2.2#0b")
def write_on_a_closed_descriptor(world):
    closed = world.target()
    world.close(closed)
    world.refused_by_kernel(closed, read=False)


@rule("2.2#0c")
def write_without_write_access(world):
    _, _, token = world.sample()
    path = world.path()
    data = pattern(FILE, 2)
    file = world.file(data, path=path)
    read_only = world.open(path, os.O_RDONLY)
    world.refused(offload_write(read_only, token, 0, S), reason="ACCESS_MODE")
    world.refused(offload_write(read_only, token, 1, 1, size=0), reason="ACCESS_MODE")
    world.still(file, data)
    world.write(world.open(path, os.O_WRONLY), token, 0, S)


@rule("2.2#0d")
def write_with_offload_switched_off(world):
    file = world.target("no_offload")
    world.refused(offload_write(file, ZERO_TOKEN, 0, S), reason="DISABLED")
    world.refused(offload_write(file, ZERO_TOKEN, 0, 0), reason="DISABLED")
    world.refused(offload_write(file, bytes(512), 1, 1, size=0), reason="DISABLED")
    world.still(file, pattern(FILE, 2))


@rule("2.2#1", "4.4W#7", "4.2#12")
def write_on_a_read_only_volume(world):
    path = world.read_only_mount(writable=True).path + "/data"
    file = world.open(path)
    for length, more in ((S, {}), (0, {}), (1, {"size": 0, "input_length": 1, "options": 1})):
        world.refused(offload_write(file, ZERO_TOKEN, 0, length, **more), reason="READ_ONLY")
    world.close(file)
    world.read_only_mount()
    with expect_errno(errno.EROFS, "opening a file of a read-only mount"):
        world.open(path)
    expect_equal(os.pread(world.open(path, os.O_RDONLY), FILE, 0), pattern(FILE, 1), "the file")


@rule("2.2#2", source="odxfs: every kind of mount can be written")
def write_is_always_possible(world):
    for kind in ("plain", "extend", "scoped", "sectors"):
        token = world.token(world.file(pattern(8192), kind), 0, 8192)
        target = world.target(kind, 8192)
        world.write(target, token, 0, 8192)
        expect_equal(world.content(target), pattern(8192), kind)


@rule("2.2#3")
def write_input_too_short(world):
    file = world.target()
    for length in (1, 32, 543):
        world.refused(offload_write(file, ZERO_TOKEN, 1, 1, input_length=length),
                      reason="INPUT_TOO_SMALL")
    for length in (0, 544, 545, 2**32 - 1):
        world.write(file, ZERO_TOKEN, 0, S, input_length=length)


@rule("2.2#4")
def write_room_too_small(world):
    file = world.target()
    for room in (1, 15):
        world.refused(offload_write(file, ZERO_TOKEN, 1, 1, room=room), reason="OUTPUT_TOO_SMALL")
    world.refused(offload_write(file, ZERO_TOKEN, 0, S, input_length=1, room=1),
                  reason="INPUT_TOO_SMALL")
    for room in (0, 16, 17, 528, 2**32 - 1):
        world.write(file, ZERO_TOKEN, 0, S, room=room)


@rule("2.2#4a")
def write_with_any_option(world):
    file = world.target()
    for options in (TOKEN_SYNC, 2, 2**63, 2**64 - 1):
        world.refused(offload_write(file, ZERO_TOKEN, 1, 1, options=options),
                      reason="UNKNOWN_OPTION")


@rule("2.2#5")
def write_offset_alignment(world):
    file = world.target()
    for offset in (1, S - 1, S + 1, FILE + 1, 2**64 - 1):
        world.refused(offload_write(file, ZERO_TOKEN, offset, S + 1, 1, size=0),
                      reason="FILE_OFFSET_ALIGNMENT")
    large = world.target("sectors", 8192)
    world.refused(offload_write(large, ZERO_TOKEN, S, 4096), reason="FILE_OFFSET_ALIGNMENT")


@rule("2.2#6")
def write_length_alignment(world):
    file = world.target()
    for length in (1, S - 1, S + 1, FILE - 1, FILE + 1, 2**64 - 1):
        world.refused(offload_write(file, ZERO_TOKEN, 0, length, 1, size=0),
                      reason="COPY_LENGTH_ALIGNMENT")
    # Ending at the source's EOF is no excuse: the destination's counts.
    token = world.token(world.file(pattern(1000)), 0, 1000)
    world.refused(offload_write(file, token, 0, 1000), reason="COPY_LENGTH_ALIGNMENT")


@rule("2.2#7")
def write_transfer_alignment(world):
    file, (_, _, token) = world.target(), world.sample()
    for transfer in (1, S - 1, S + 1, 2**64 - 1):
        for given in (token, ZERO_TOKEN, bytes(512)):
            world.refused(offload_write(file, given, 0, S, transfer, size=0),
                          reason="TRANSFER_OFFSET_ALIGNMENT")


@rule("2.2#8")
def write_structure_size(world):
    file = world.target()
    for size in (0, 32, 543, 545, 560, 2**32 - 1):
        for offset, length in ((0, 0), (0, S), (2**64 - S, 2 * S)):
            world.refused(offload_write(file, ZERO_TOKEN, offset, length, size=size),
                          reason="STRUCTURE_SIZE")


@rule("2.2#9")
def write_range_that_wraps(world):
    file = world.target()
    for offset, length in ((2**64 - S, S), (2**64 - S, 3 * S), (S, 2**64 - S)):
        world.refused(offload_write(file, ZERO_TOKEN, offset, length), reason="RANGE_WRAPS")


@rule("2.2#10")
def write_of_nothing(world):
    path = world.path()
    file = world.file(path=path)
    before = os.fstat(file)
    with locked_by_another(path, "exclusive", 0, FILE):
        for token in (bytes(512), b"\xa5" * 512, ZERO_TOKEN):
            for offset in (0, FILE, 2**63):
                world.write(file, token, offset, 0, 2**64 - S)
    after = os.fstat(file)
    expect_equal((after.st_size, after.st_mtime_ns, after.st_ctime_ns),
                 (0, before.st_mtime_ns, before.st_ctime_ns), "the file")


@rule("2.2#11", "4.4W#8", source="MS-FSA 2.1.5.10.21; no directory can be opened for writing")
def write_on_a_directory(world):
    directory = world.open(world.mount().path, os.O_RDONLY)
    for length in (0, S):
        world.refused(offload_write(directory, ZERO_TOKEN, 0, length), "EBADF", "ACCESS_DENIED",
                      "ACCESS_MODE")
    with expect_errno(errno.EISDIR, "opening a directory for writing"):
        world.open(world.mount().path, os.O_WRONLY)
    os.mkfifo(path := world.path())
    world.refused_by_kernel(world.open(path, os.O_RDWR | os.O_NONBLOCK), "ENOTTY", read=False)
    world.refused_by_kernel(world.open(path, os.O_PATH), "EBADF", read=False)


@rule("2.2#11b", "2.3#G")
def write_into_a_sparse_file(world):
    _, data, token = world.sample()
    file = world.sparse(MIB)
    world.write(file, token, 65536, FILE)
    expect_equal(world.content(file), over(bytes(MIB), 65536, data), "the file")
    expect_equal((os.lseek(file, 0, os.SEEK_DATA), os.lseek(file, 65536, os.SEEK_HOLE)),
                 (65536, 65536 + FILE), "its data")


@rule("2.2#12")
def write_into_a_deleted_file(world):
    _, data, token = world.sample()
    path = world.path()
    file = world.file(pattern(FILE, 2), path=path)
    os.unlink(path)
    world.write(file, token)
    expect_equal(world.content(file), data, "the deleted file")


@rule("2.2#13")
def write_at_a_negative_offset(world):
    file = world.target()
    for offset, length in ((2**63, S), (2**64 - 2 * S, S)):
        world.refused(offload_write(file, bytes(512), offset, length), reason="OFFSET_NEGATIVE")


@rule("2.2#14")
def write_beyond_the_largest_file(world):
    path = world.path()
    file = world.file(pattern(FILE, 2), path=path)
    with locked_by_another(path, "exclusive", 0, 0):
        for offset, length in ((2**63 - S, S), (2**63 - S, 2 * S), (0, 2**63), (0, 2**64 - S)):
            world.refused(offload_write(file, bytes(512), offset, length), reason="FILE_TOO_BIG")
        world.refused(offload_write(file, bytes(512), 0, 2**63 - S), "EAGAIN",
                      "FILE_LOCK_CONFLICT")
    world.write(file, ZERO_TOKEN, 0, 2**63 - S, written=FILE)


@rule("2.2#15")
def write_to_a_locked_range(world):
    _, _, token = world.sample()
    path = world.path()
    file = world.file(pattern(FILE, 2), path=path)
    for how in ("exclusive", "shared"):
        for open_file in (False, True):
            with locked_by_another(path, how, 4 * S, 2 * S, open_file):
                for offset, length in ((4 * S, S), (0, FILE), (5 * S, 2**40)):
                    world.refused(offload_write(file, token, offset, length), reason="LOCKED")
                world.write(file, token, 0, 4 * S)
                world.write(file, token, 6 * S, S)
    # Before #17 and #19.
    with locked_by_another(path, "shared", 0, 0):
        world.refused(offload_write(file, bytes(512), FILE, S), reason="LOCKED")
    take_lock(file, "exclusive", 0, S)  # one's own
    world.write(file, token, 0, S)
    take_lock(file, "shared", 0, S)
    world.refused(offload_write(file, token, 0, S), reason="LOCKED")
    world.write(file, token, S, S)


@rule("2.2#16", source="odxfs: times instead of a journal's record")
def write_seen_by_a_watcher(world):
    """mtime moves; the kernel tells inotify of no ioctl, but of the close of a writer."""
    _, _, token = world.sample()
    path = world.path()
    file = world.file(pattern(FILE, 2), path=path)
    os.fsync(file)
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    expect(watch >= 0, "inotify")
    try:
        modify, close_write = 2, 8
        expect(libc.inotify_add_watch(watch, os.fsencode(path), modify | close_write) >= 0, "watch")
        before = os.fstat(file).st_mtime_ns
        time.sleep(0.01)
        world.write(file, token)
        expect(os.fstat(file).st_mtime_ns > before, "mtime did not move")
        world.close(file)
        expect(select.select([watch], [], [], 10)[0] != [], "no event of the writer's close")
    finally:
        os.close(watch)


@rule("2.2#17", "2.3#D")
def write_at_the_end_of_the_file(world):
    _, _, token = world.sample()
    for size, offsets in ((FILE, (FILE, FILE + S, 2**40, 2**63 - 2 * S)), (1000, (1024, 1536)),
                          (0, (0, S))):
        file = world.target(size=size)
        for offset in offsets:
            # Before #19.
            for given in (token, bytes(512), ZERO_TOKEN):
                world.refused(offload_write(file, given, offset, S), reason="END_OF_FILE")
        world.still(file, pattern(size, 2))


@rule("2.2#18", source="odxfs: what holds instead")
def write_beyond_everything_written(world):
    _, data, token = world.sample()
    file = world.sparse(MIB, at_0=b"begin")
    world.write(file, token, MIB - FILE)
    expect_equal(world.content(file), over(b"begin".ljust(MIB, b"\0"), MIB - FILE, data),
                 "the file")


@rule("2.2#19", "2.5#7")
def write_with_a_changed_token(world):
    _, _, token = world.sample()
    file = world.target()
    for byte in range(512):
        changed = flipped(token, byte, byte * 3 % 8)
        reply = offload_write(file, changed, 0, S)
        if byte in STORE_UUID:
            world.refused(reply, "EXDEV", "DEVICE_UNREACHABLE", "TOKEN_FOREIGN")
        else:
            known = 28 <= byte < 76  # looks like a token, but of an id or secret never given
            world.refused(reply, reason="TOKEN_UNKNOWN" if known else "TOKEN_MALFORMED")
    for strange in (bytes(512), b"\xa5" * 512, token[:8] + bytes(504), token[::-1]):
        world.refused(offload_write(file, strange, 0, S), reason="TOKEN_MALFORMED")
    # Before #24.
    world.refused(offload_write(file, bytes(512), 0, S, 2**40), reason="TOKEN_MALFORMED")
    world.still(file, pattern(FILE, 2))


@rule("2.2#19", "2.5#5", source="odxfs: ODX_IOC_TOKEN_DROP")
def write_with_a_dropped_token(world):
    _, _, token = world.sample()
    file = world.target()
    world.write(file, token, 0, S)
    drop_token(file, token)
    world.refused(offload_write(file, token, 0, S), reason="TOKEN_UNKNOWN")
    with expect_errno(errno.ENOENT, "dropping it again"):
        drop_token(file, token)


def wait_until_expired(world, file, token, most=60.0):
    """Redeeming would keep it alive, so it is asked for a transfer offset that is out of range."""
    deadline = time.monotonic() + most
    while time.monotonic() < deadline:
        reply = offload_write(file, token, 0, S, 2**40)
        if reply.errno != errno.EINVAL:
            return reply
        time.sleep(0.05)
    raise Failure("the token does not expire")


@rule("2.2#20", "4.4W#25", "2.5#4")
def write_with_an_expired_token(world):
    source, _, _ = world.sample()
    file = world.target()
    begin = time.monotonic()
    token = world.token(source, ttl=1000)
    world.refused(wait_until_expired(world, file, token), reason="TOKEN_EXPIRED")
    took = time.monotonic() - begin
    expect(took >= 0.9, f"a token of 1 s lasted {took:.2f} s")
    world.refused(offload_write(file, token, 0, S), reason="TOKEN_EXPIRED")
    # Expiry is looked at before #24, and after the secret.
    world.refused(offload_write(file, token, 0, S, 2**40), reason="TOKEN_EXPIRED")
    world.refused(offload_write(file, flipped(token, 50), 0, S), "EKEYREJECTED",
                  reason="TOKEN_UNKNOWN")
    world.still(file, pattern(FILE, 2))


@rule("2.2#21", "2.5#1", source="IFS: the provider may keep the old data")
def write_after_the_source_has_changed(world):
    path, data = world.path(), pattern(FILE)
    source = world.file(data, path=path)
    token = world.token(source)
    os.pwrite(source, b"changed", 100)
    world.shows(token, data, "after a write")
    os.ftruncate(source, 0)
    world.shows(token, data, "after a truncation")
    os.unlink(path)
    world.close(source)
    world.shows(token, data, "after the end of the file")


@rule("2.2#22", "4.4W#33")
def write_with_another_stores_token(world):
    for here, there in (("plain", "other"), ("other", "plain")):
        _, _, token = world.sample(there)
        file = world.target(here)
        world.refused(offload_write(file, token, 0, S), reason="TOKEN_FOREIGN")
        world.refused(offload_write(file, flipped(token, 60), 0, S, 2**40), reason="TOKEN_FOREIGN")
        world.still(file, pattern(FILE, 2))


@rule("2.2#23", "4.4W#16", "4.4W#17", "4.2#8")
def write_with_a_reserved_type(world):
    _, _, token = world.sample()
    file = world.target()
    for kind in ("ffff0002", "ffff0003", "fffffffe", "ffffffff"):
        world.refused(offload_write(file, bytes.fromhex(kind) + token[4:], 0, S),
                      reason="TOKEN_RESERVED_TYPE")
    world.refused(offload_write(file, b"\xff" * 512, 0, S), reason="TOKEN_RESERVED_TYPE")
    world.refused(offload_write(file, bytes.fromhex("ffff0000") + token[4:], 0, S),
                  reason="TOKEN_MALFORMED")


@rule("2.2#24", "2.5#8")
def write_from_outside_the_token(world):
    source = world.file(pattern(FILE))
    token = world.token(source, 4 * S, 4 * S)
    file = world.target()
    for transfer in (4 * S, 5 * S, FILE, 2**63, 2**64 - S):
        world.refused(offload_write(file, token, 0, S, transfer), reason="TRANSFER_OFFSET_RANGE")
    for transfer, written in ((0, 4 * S), (S, 3 * S), (3 * S, S)):
        world.write(file, token, 0, FILE, transfer, written)
    wanted = over(pattern(FILE, 2), 0, pattern(FILE)[4 * S:8 * S])
    for transfer in (S, 3 * S):
        wanted = over(wanted, 0, pattern(FILE)[4 * S + transfer:8 * S])
    expect_equal(world.content(file), wanted, "the file: only bytes of the token")
    world.refused(offload_write(file, ZERO_TOKEN, 0, 2 * S, 2**64 - S),
                  reason="TRANSFER_OFFSET_RANGE")


@rule("2.2#25", "4.4W#18")
def write_zeros(world):
    data = pattern(FILE, 2)
    for token in (ZERO_TOKEN, ZERO_TOKEN[:6] + bytes(506), ZERO_TOKEN[:4] + b"\xee" * 508):
        file = world.file(data)
        reply = world.write(file, token, 4 * S, 8 * S, 2**50)
        expect_equal(reply.shared, 0, "bytes shared")
        expect_equal(world.content(file), over(data, 4 * S, bytes(8 * S)), "the file")
    file = world.sparse(MIB, at_0=pattern(MIB))
    world.write(file, ZERO_TOKEN, 65536, 65536)
    expect_equal((os.lseek(file, 0, os.SEEK_HOLE), os.lseek(file, 65536, os.SEEK_DATA)),
                 (65536, 131072), "the hole")


@rule("2.2#26", "2.3#F", "1#5")
def write_that_moves_everything(world):
    _, data, token = world.sample()
    for offset, length, transfer in ((0, FILE, 0), (4 * S, 4 * S, 2 * S), (15 * S, S, 15 * S)):
        file = world.target()
        reply = world.write(file, token, offset, length, transfer)
        expect(0 <= reply.shared <= length, "bytes shared")
        expect_equal(world.content(file),
                     over(pattern(FILE, 2), offset, data[transfer:transfer + length]), "the file")


@rule("2.2#27", "2.3#D")
def write_does_not_move_the_end(world):
    _, data, token = world.sample()
    for size, offset, written in ((4 * S, 0, 4 * S), (4 * S, 3 * S, S), (1000, 0, 1024),
                                  (1000, S, S)):
        file = world.target(size=size)
        world.write(file, token, offset, FILE, 0, written)
        expect_equal(world.content(file), over(pattern(size, 2), offset, data), "the file")
        file = world.target(size=size)
        world.write(file, ZERO_TOKEN, offset, FILE, 0, written)
        expect_equal(world.content(file), over(pattern(size, 2), offset, bytes(FILE)), "the file")


@rule("2.2#28", "4.4W#39", source="odxfs: a WRITE needs no room for data")
def write_in_a_full_store(world):
    source, data, token = world.sample("full")
    target = world.target("full")
    for descriptor in (source, target):
        os.fsync(descriptor)
    with world.no_room():
        # Not a byte can be added, but a token can be made and redeemed, at any sector.
        expect(world.token(source) != token, "the same token")
        world.write(target, token)
        expect_equal(world.content(target), data, "the copy")
        world.write(target, token, S, 4 * S, 7 * S)
        expect_equal(world.content(target), over(data, S, data[7 * S:11 * S]), "the parts")
        world.write(target, ZERO_TOKEN, 3 * S, S)


@rule("2.2#29", source="odxfs: tokens of every kind of content can be written")
def write_of_every_kind_of_content(world):
    small = world.file(pattern(700))
    holes = world.sparse(FILE, at_4096=pattern(S))
    for source, length in ((small, 1024), (holes, FILE)):
        target = world.target()
        world.write(target, world.token(source, 0, length), 0, length)
        wanted = world.content(source).ljust(length, b"\0")
        expect_equal(world.content(target)[:length], wanted, "the copy")


@rule("2.3#A")
def unaligned_lengths_that_end_at_the_end(world):
    data = pattern(1000)
    source, target = world.file(data), world.target(size=1000)
    token = world.token(source, 0, 1000)
    world.write(target, token, 0, 1000)
    expect_equal(world.content(target), data, "the copy")
    world.token(source, S, 488)
    world.write(target, token, S, 488, S)
    for offset, length in ((0, 999), (0, 1001), (S, 487), (S, 1000)):
        world.refused(offload_read(source, offset, length), "EINVAL", "INVALID_PARAMETER")
        world.refused(offload_write(target, token, offset, length), "EINVAL", "INVALID_PARAMETER")


@rule("2.3#D", source="WPTS; illumos")
def odx_extend_lets_the_end_move(world):
    data = pattern(5000)
    token = world.token(world.file(data, "extend"), 0, 5120)
    empty = world.file(kind="extend")
    world.write(empty, token, 0, 5120)
    expect_equal(world.content(empty), data, "the source's size, not the rounded one")
    part = world.target("extend", S)
    world.write(part, token, 0, 4096)
    world.write(part, token, 4096, 1024, 4096)
    expect_equal(world.content(part), data, "piece by piece")
    world.refused(offload_write(part, token, 8192, S), "ENXIO", "END_OF_FILE")
    whole = world.target("extend", S)
    world.write(whole, ZERO_TOKEN, S, 4 * S)
    expect_equal(world.content(whole), pattern(S, 2) + bytes(4 * S), "zeros appended")


@rule("2.3#E")
def tail_of_a_source_within_a_sector(world):
    data = pattern(1000)
    source = world.file(data)
    token = world.token(source, 0, 1024)
    old = pattern(FILE, 2)
    file = world.file(old)
    world.write(file, token, S, 4 * S, 0, 1024)
    expect_equal(world.content(file), over(old, S, data + bytes(24)), "zeros to the sector's end")
    file = world.file(old[:1010])
    world.write(file, token, 0, 1024)
    expect_equal(world.content(file), data + bytes(10), "zeros to the destination's end")
    world.write(file, token, 0, S, S)
    world.refused(offload_write(file, token, 0, S, 1024), "EINVAL", "INVALID_PARAMETER")


@rule("2.3#H", source="odxfs: what write(2) does")
def leases_are_broken_by_the_open(world):
    """Nobody can hold a lease on a file that somebody has open for writing."""
    path = world.path()
    world.file(pattern(FILE), path=path)
    reader = world.open(path, os.O_RDONLY)
    with expect_errno((errno.EAGAIN, errno.EINVAL, errno.EOPNOTSUPP), "a read lease"):
        fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_RDLCK)
