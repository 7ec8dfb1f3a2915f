"""Table 2.1: FSCTL_OFFLOAD_READ, row by row."""

import errno
import fcntl
import mmap
import os
import struct
import tempfile

from harness import MIB, Failure, expect, expect_equal, expect_errno
from odx_abi import (ALL_ZERO_BEYOND, READ, TOKEN_SYNC, ZERO_TOKEN, call, list_tokens, offload_read,
                     offload_write, read_input)
from registry import FILE, S, as_nobody, locked_by_another, over, pattern, rule, take_lock


@rule("2.1#0a")
def read_on_another_filesystem(world):
    with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
        file.write(bytes(FILE))
        file.flush()
        world.refused_by_kernel(file.fileno())
    with open("/dev/null", "rb") as file:
        world.refused_by_kernel(file.fileno())


@rule("2.1#0b")
def read_on_a_closed_descriptor(world):
    closed = world.file(pattern(FILE))
    world.close(closed)
    world.refused_by_kernel(closed)


@rule("2.1#0c")
def read_without_read_access(world):
    path = world.path()
    world.file(pattern(FILE), path=path)
    world.refused(offload_read(world.open(path, os.O_WRONLY), 0, S), reason="ACCESS_MODE")
    world.refused(offload_read(world.open(path, os.O_WRONLY), 1, 1, size=0), reason="ACCESS_MODE")
    world.read(world.open(path, os.O_RDONLY), 0, S)


@rule("2.1#0d")
def read_with_offload_switched_off(world):
    file = world.file(pattern(FILE), "no_offload")
    world.refused(offload_read(file, 0, FILE), reason="DISABLED")
    world.refused(offload_read(file, 0, 0), reason="DISABLED")
    world.refused(offload_read(file, 1, 1, size=0), reason="DISABLED")


@rule("2.1#1", source="odxfs: what a read-only volume answers instead")
def read_on_a_read_only_mount(world):
    file = world.open(world.read_only_mount().path + "/data", os.O_RDONLY)
    world.refused(offload_read(file, 0, FILE), "EROFS", "MEDIA_WRITE_PROTECTED", "READ_ONLY")
    world.refused(offload_read(file, 1, S), "EINVAL", "INVALID_PARAMETER")
    world.refused(offload_read(file, MIB, S), "ENXIO", "END_OF_FILE")
    # What needs no record can be had.
    expect_equal(world.read(file, 64 << 10, FILE).token, ZERO_TOKEN, "a hole's token")
    expect_equal(world.read(file, 0, 0).token, ZERO_TOKEN, "nothing's token")


@rule("2.1#2")
def read_input_too_short(world):
    file = world.file(pattern(FILE))
    for length in (1, 16, 31):
        world.refused(offload_read(file, 1, 1, input_length=length), reason="INPUT_TOO_SMALL")
    for length in (0, 32, 33, 2**32 - 1):
        world.read(file, 0, S, input_length=length)


@rule("2.1#3")
def read_room_too_small(world):
    file = world.file(pattern(FILE))
    for room in (1, 16, 527):
        world.refused(offload_read(file, 1, 1, room=room), reason="OUTPUT_TOO_SMALL")
    for room in (0, 528, 529, 2**32 - 1):
        world.read(file, 0, S, room=room)
    world.refused(offload_read(file, 0, S, input_length=31, room=527), reason="INPUT_TOO_SMALL")


@rule("2.1#3a")
def read_with_unknown_options(world):
    file = world.file(pattern(FILE))
    for options in (2, 3, 2**63, 2**64 - 1):
        world.refused(offload_read(file, 1, 1, options=options), reason="UNKNOWN_OPTION")
    world.read(file, 0, S, options=TOKEN_SYNC)


@rule("2.1#4")
def read_offset_alignment(world):
    file = world.file(pattern(FILE))
    for offset in (1, S - 1, S + 1, FILE + 1, 2**63 + 1, 2**64 - 1):
        world.refused(offload_read(file, offset, S + 1, size=0), reason="FILE_OFFSET_ALIGNMENT")
    large = world.file(pattern(8192), "sectors")
    world.refused(offload_read(large, S, 4096), reason="FILE_OFFSET_ALIGNMENT")
    world.read(large, 4096, 4096)


@rule("2.1#5")
def read_length_alignment(world):
    file = world.file(pattern(FILE))
    for length in (1, S - 1, S + 1, FILE - 1, FILE + 1, 2**64 - 1):
        world.refused(offload_read(file, 0, length, size=0), reason="COPY_LENGTH_ALIGNMENT")
    large = world.file(pattern(8192), "sectors")
    world.refused(offload_read(large, 0, S), reason="COPY_LENGTH_ALIGNMENT")


@rule("2.1#6")
def read_structure_size(world):
    file = world.file(pattern(FILE))
    for size in (0, 31, 33, 528, 560, 2**32 - 1):
        world.refused(offload_read(file, 0, 0, size=size), reason="STRUCTURE_SIZE")
        world.refused(offload_read(file, 2**64 - S, 2 * S, size=size), reason="STRUCTURE_SIZE")


@rule("2.1#7")
def read_range_that_wraps(world):
    file = world.file(pattern(FILE))
    for offset, length in ((2**64 - S, S), (2**64 - S, 2 * S), (S, 2**64 - S)):
        world.refused(offload_read(file, offset, length), reason="RANGE_WRAPS")
    directory = world.open(world.mount().path, os.O_RDONLY)
    world.refused(offload_read(directory, 2**64 - S, S), reason="RANGE_WRAPS")


@rule("2.1#8")
def read_of_nothing(world):
    path = world.path()
    file = world.file(pattern(FILE), path=path)
    directory = world.open(world.mount().path, os.O_RDONLY)
    live = len(list_tokens(file))
    with locked_by_another(path, "exclusive", 0, FILE):
        for descriptor, offset in ((file, 0), (file, FILE + S), (file, 2**63), (directory, 0)):
            reply = world.read(descriptor, offset, 0, flags=0)
            expect_equal(reply.token, ZERO_TOKEN, "the token")
    expect_equal(len(list_tokens(file)), live, "tokens made for nothing")


@rule("2.1#9")
def read_on_a_directory(world):
    directory = world.open(world.mount().path, os.O_RDONLY)
    world.refused(offload_read(directory, 0, S), "EISDIR", reason="NOT_A_FILE")
    world.refused(offload_read(directory, 2**63, S), "EISDIR", reason="NOT_A_FILE")
    # The kernel keeps the descriptors of everything else to itself.
    os.mkfifo(path := world.path())
    world.refused_by_kernel(world.open(path, os.O_RDWR | os.O_NONBLOCK), "ENOTTY")
    os.symlink("nowhere", path := world.path())
    world.refused_by_kernel(world.open(path, os.O_PATH | os.O_NOFOLLOW), "EBADF")


@rule("2.1#10", "2.3#G")
def read_of_a_sparse_file(world):
    data = pattern(4096)
    file = world.sparse(256 << 10, at_65536=data)
    token = world.token(file, 0, 256 << 10)
    copy = world.file(pattern(256 << 10))
    world.write(copy, token, 0, 256 << 10)
    expect_equal(world.content(copy), over(bytes(256 << 10), 65536, data), "the copy")
    expect_equal(os.lseek(copy, 0, os.SEEK_DATA), 65536, "the copy's first hole")
    expect_equal(os.lseek(copy, 65536, os.SEEK_HOLE), 65536 + 4096, "its data")


@rule("2.1#11", "2.1#12", source="odxfs: the attributes cannot be had")
def read_where_encryption_and_compression_are_refused(world):
    file, data, _ = world.sample()
    directory = world.open(world.mount().path, os.O_RDONLY)
    set_flags, set_policy = 0x40086602, 0x800C6613
    for descriptor in (file, directory):
        for request, argument in ((set_flags, struct.pack("l", 4)),  # FS_COMPR_FL
                                  (set_policy, bytes((0, 1, 4, 0)) + b"k" * 8)):
            try:
                fcntl.ioctl(descriptor, request, argument)
            except OSError as error:
                expect(error.errno in (errno.ENOTTY, errno.EOPNOTSUPP), f"{error}")
            else:
                raise Failure(f"ioctl {request:#x} was accepted")
    world.shows(world.token(file), data)


@rule("2.1#12b")
def read_of_resident_and_shared_data(world):
    small = pattern(1000)  # lies in the inode
    world.shows(world.token(world.file(small), 0, 1024), small)
    first, data, _ = world.sample()
    shared = world.file()
    expect_equal(os.copy_file_range(first, shared, FILE, 0, 0), FILE, "the clone")
    world.shows(world.token(shared), data)


@rule("2.1#12c", "2.3#B")
def read_of_tiny_files(world):
    for size in (1, 511, 512, 4095):
        data = pattern(size)
        file = world.file(data)
        rounded = (size + S - 1) // S * S
        world.shows(world.token(file, 0, rounded), data)
        world.shows(world.token(file, 0, size), data)


@rule("2.1#13")
def read_of_a_deleted_file(world):
    path, data = world.path(), pattern(FILE)
    file = world.file(data, path=path)
    os.unlink(path)
    token = world.token(file)
    world.close(file)
    world.shows(token, data)


@rule("2.1#14")
def read_at_a_negative_offset(world):
    path = world.path()
    file = world.file(pattern(FILE), path=path)
    with locked_by_another(path, "exclusive", 0, 0):
        for offset in (2**63, 2**63 + S, 2**64 - 2 * S):
            world.refused(offload_read(file, offset, S), reason="OFFSET_NEGATIVE")


@rule("2.1#15", "2.3#K")
def read_of_a_locked_range(world):
    path = world.path()
    file = world.file(pattern(FILE), path=path)
    for open_file in (False, True):
        with locked_by_another(path, "exclusive", 4 * S, 2 * S, open_file):
            world.refused(offload_read(file, 4 * S, S), reason="LOCKED")
            world.refused(offload_read(file, 0, FILE), reason="LOCKED")
            world.read(file, 0, 4 * S)
            world.read(file, 6 * S, S)
            fd = world.open(path)
            world.refused(offload_read(fd, 5 * S, S), reason="LOCKED")
    # Beyond EOF too: what was asked for counts, not what could be moved. And before #16.
    with locked_by_another(path, "exclusive", FILE + S, 1):
        world.refused(offload_read(file, 0, FILE + 2 * S), reason="LOCKED")
        world.refused(offload_read(file, FILE + S, S), reason="LOCKED")
        world.read(file, 0, FILE)
    # An open file description's own lock is another's to everybody; flock(2) is none.
    take_lock(file, "exclusive", 0, S, open_file=True)
    world.refused(offload_read(file, 0, S), reason="LOCKED")
    fcntl.flock(world.open(path), fcntl.LOCK_EX)
    world.read(file, S, S)


@rule("2.1#16")
def read_at_the_end_of_the_file(world):
    for size, offsets in ((FILE, (FILE, FILE + S, 2**40, 2**63 - S)), (1000, (1024, 1536)),
                          (0, (0, S))):
        file = world.file(pattern(size))
        for offset in offsets:
            world.refused(offload_read(file, offset, S), reason="END_OF_FILE")


@rule("2.1#17", "2.3#C")
def read_in_the_trailing_hole(world):
    file = world.sparse(MIB, at_0=pattern(65536))
    for offset, length, transferred in ((65536, S, S), (65536, MIB, MIB - 65536),
                                        (MIB - S, 2**40, S)):
        reply = world.read(file, offset, length, transferred, ALL_ZERO_BEYOND)
        expect_equal(reply.token, ZERO_TOKEN, "the token")


@rule("2.1#18")
def read_past_the_end_of_the_file(world):
    aligned, odd = world.file(pattern(FILE)), world.file(pattern(1000))
    for length in (FILE + S, 2**40, 2**63, 2**64 - S):
        world.read(aligned, 0, length, FILE, ALL_ZERO_BEYOND)
        world.read(odd, 0, length, 1024, ALL_ZERO_BEYOND)
    world.read(aligned, FILE - S, 4 * S, S, ALL_ZERO_BEYOND)
    world.read(odd, S, S, S, ALL_ZERO_BEYOND)
    large = world.file(pattern(5000), "sectors")
    world.read(large, 0, MIB, 8192, ALL_ZERO_BEYOND)


@rule("2.1#19")
def read_of_many_extents(world):
    extents = 300 if world.case.quick else 2000
    block = 4096
    file = world.file()
    os.ftruncate(file, 2 * extents * block)
    data = pattern(block)
    for number in range(extents):
        os.pwrite(file, data, 2 * number * block)
    token = world.token(file, 0, 2 * extents * block)
    world.shows(token, (data + bytes(block)) * extents)


@rule("2.1#20")
def read_of_dirty_pages(world):
    file = world.file(bytes(MIB))
    os.fsync(file)
    data = bytearray(MIB)
    with mmap.mmap(file, MIB) as area:
        for place in range(100, MIB, 65536):
            area[place:place + 3] = data[place:place + 3] = b"new"
        token = world.token(file, 0, MIB)
        area[:] = b"z" * MIB
    os.pwrite(file, b"later", 0)
    world.shows(token, bytes(data))


@rule("2.1#20", source="IFS: what cannot be flushed cannot be in a token")
def read_of_dirty_pages_that_find_no_room(world):
    """write(2) has taken the bytes; if the store cannot, a token of the old ones is a lie."""
    size = 256 << 10
    file = world.file(pattern(size, 1), "full")
    os.fsync(file)
    with world.no_room():
        os.pwrite(file, pattern(size, 2), 0)
        reply = offload_read(file, 0, size)
        expect(reply.errno in (errno.ENOSPC, errno.EIO), f"{reply}")
        with expect_errno((errno.ENOSPC, errno.EIO), "fsync"):
            os.fsync(file)


@rule("2.1#21", "2.3#F", "1#3", "1#6")
def read_that_makes_a_token(world):
    data = pattern(FILE)
    file = world.file(data)
    os.ftruncate(file, 4 * FILE)
    os.pwrite(file, data, 2 * FILE)  # data, hole, data, hole
    whole = world.read(file, 0, 4 * FILE)
    expect_equal(whole.token[:12].hex(), "4f445846000001f800000001", "the token's header")
    expect_equal(whole.token[76:], bytes(436), "the token's rest")
    for length, flags in ((FILE, 0), (2 * FILE, 0), (3 * FILE - S, 0), (3 * FILE, ALL_ZERO_BEYOND),
                          (3 * FILE + S, ALL_ZERO_BEYOND), (4 * FILE, ALL_ZERO_BEYOND)):
        world.read(file, 0, length, flags=flags)
    os.pwrite(file, bytes(S), 4 * FILE - S)  # written zeros are data
    world.read(file, 0, 3 * FILE, flags=0)


@rule("2.1#22", source="odxfs: every kind of regular file can be read")
def read_is_always_possible(world):
    for kind in ("plain", "extend", "scoped", "sectors"):
        world.read(world.file(pattern(8192), kind), 0, 8192)


@rule("2.1#23")
def read_beyond_the_limit_of_tokens(world):
    """10,000 live tokens for a user are promised, and one more is refused by itself alone."""
    path = world.path("lost")
    world.file(pattern(FILE), "lost", path)
    os.chmod(path, 0o666)
    world.close(world.open(path))

    def many():
        file = os.open(path, os.O_RDWR)
        raw = read_input(0, S, ttl=600_000)
        for turn in range(10_000):
            reply = call(file, READ, raw)
            expect(reply.errno == 0, f"token {turn}: {reply}")
        reply = call(file, READ, raw)
        world.refused(reply, "ENOBUFS", reason="TOKEN_LIMIT")
        # What needs no token still works.
        world.read(file, 0, 0)
        world.write(file, ZERO_TOKEN, 0, S)

    as_nobody(many)
    file = world.open(path)
    world.read(file, S, S)  # another user's tokens do not count for root
    expect_equal(offload_write(file, ZERO_TOKEN, 0, S).errno, 0, "a WRITE meanwhile")


@rule("2.1#24", "2.2#30")
def calls_after_the_volume_has_gone(world):
    mount = world.mount("lost")
    source, _, token = world.sample("lost")
    target = world.target("lost")
    del world.mounts["lost"]
    mount.kill()
    for read, descriptor in ((True, source), (False, target)):
        world.refused_by_kernel(descriptor, read=read)
    expect_equal(offload_write(target, token, 0, S).errno, errno.ENOTCONN, "WRITE")
    world.case.check(mount.store)
