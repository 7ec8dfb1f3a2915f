"""The cases of other projects' suites, replayed through the ioctls (4.1, 4.2, 4.3)."""

import os

from harness import expect_equal
from odx_abi import ZERO_TOKEN, flipped, list_tokens, offload_read, offload_write
from registry import FILE, S, locked_by_another, over, pattern, rule

HALF = 16384
WHOLE = 32768  # the suites' write buffer


# ---- 4.1, Windows Protocol Test Suites ----

@rule("4.1#1")
def wpts_offload_read_is_supported(world):
    file = world.file(pattern(1024))
    reply = world.read(file, 0, 0, room=528)
    expect_equal(reply.token, ZERO_TOKEN, "the token")


@rule("4.1#2")
def wpts_offload_write_is_supported(world):
    world.write(world.file(), bytes(512), 0, 0, room=16)


@rule("4.1#3")
def wpts_copy_offload(world):
    data = pattern(WHOLE)
    source, target = world.file(data), world.target(size=WHOLE)
    for descriptor in (source, target):
        os.fsync(descriptor)
    reply = world.read(source, 0, WHOLE)
    world.write(target, reply.token, 0, reply.length)
    expect_equal(world.content(target), data, "the copy")


@rule("4.1#4", "4.4W#36")
def wpts_copy_offload_within_the_same_file(world):
    data = pattern(WHOLE)
    file = world.file(data)
    reply = world.read(file, 0, HALF)
    world.write(file, reply.token, HALF, reply.length)
    expect_equal(world.content(file), data[:HALF] * 2, "the second half")


@rule("4.1#5")
def wpts_offload_to_a_new_file(world):
    data = pattern(WHOLE)
    reply = world.read(world.file(data, "extend"), 0, WHOLE)
    target = world.file(kind="extend")
    world.write(target, reply.token, 0, reply.length)
    expect_equal(world.content(target), data, "the copy")


# ---- 4.2, ksmbd ----

@rule("4.2#1")
def ksmbd_offload_read_normal(world):
    world.read(world.file(pattern(4096)), 0, 4096, room=528)


@rule("4.2#2")
def ksmbd_offload_read_buffer_too_small(world):
    world.refused(offload_read(world.file(pattern(4096)), 0, 4096, room=1))


@rule("4.2#3")
def ksmbd_offload_read_input_too_small(world):
    world.refused(offload_read(world.file(pattern(4096)), 0, 4096, input_length=31))


@rule("4.2#4")
def ksmbd_offload_read_invalid_handle(world):
    world.refused_by_kernel(1 << 20)


@rule("4.2#5")
def ksmbd_offload_read_access_denied(world):
    path = world.path()
    world.file(pattern(4096), path=path)
    world.refused(offload_read(world.open(path, os.O_WRONLY), 0, 4096))


@rule("4.2#6")
def ksmbd_offload_read_beyond_eof(world):
    world.refused(offload_read(world.file(pattern(4096)), 8192, 4096))


@rule("4.2#7")
def ksmbd_offload_write_normal(world):
    token = world.token(world.file(pattern(4096)), 0, 4096)
    target = world.target(size=4096)
    world.write(target, token, 0, 4096, room=16)
    expect_equal(world.content(target), pattern(4096), "the copy")


@rule("4.2#9")
def ksmbd_offload_write_buffer_too_small(world):
    world.refused(offload_write(world.target(), ZERO_TOKEN, 0, S, room=1))


@rule("4.2#10")
def ksmbd_offload_write_input_too_small(world):
    world.refused(offload_write(world.target(), ZERO_TOKEN, 0, S, input_length=543))


@rule("4.2#11")
def ksmbd_offload_write_access_denied(world):
    path = world.path()
    world.file(pattern(4096), path=path)
    world.refused(offload_write(world.open(path, os.O_RDONLY), ZERO_TOKEN, 0, S))


# ---- 4.3, smbtorture ----

@rule("4.3#1")
def copy_chunk_src_lock(world):
    path = world.path()
    source = world.file(pattern(FILE), path=path)
    with locked_by_another(path, "exclusive", 0, FILE):
        world.refused(offload_read(source, 0, FILE), reason="LOCKED")
    world.read(source)


@rule("4.3#2")
def copy_chunk_dest_lock(world):
    _, data, token = world.sample()
    path = world.path()
    target = world.file(pattern(FILE, 2), path=path)
    with locked_by_another(path, "exclusive", 0, FILE):
        world.refused(offload_write(target, token, 0, FILE), reason="LOCKED")
        world.still(target, pattern(FILE, 2))
    world.write(target, token)
    expect_equal(world.content(target), data, "the copy")


@rule("4.3#3")
def dup_extents_lock(world):
    """A clone takes no notice of locks, the controls do."""
    path = world.path()
    source, target = world.file(pattern(FILE), path=path), world.target()
    with locked_by_another(path, "exclusive", 0, FILE):
        world.refused(offload_read(source, 0, FILE))
        expect_equal(os.copy_file_range(source, target, FILE, 0, 0), FILE, "copy_file_range")


@rule("4.3#4")
def copy_chunk_bad_key(world):
    _, _, token = world.sample()
    for byte in (28, 44, 75, 100):
        world.refused(offload_write(world.target(), flipped(token, byte), 0, S))


@rule("4.3#5", "4.4W#31")
def copy_chunk_across_shares_after_close(world):
    source, data, token = world.sample()
    world.close(source)
    world.shows(token, data)


@rule("4.3#7")
def copy_chunk_bad_access(world):
    source, target = world.path(), world.path()
    for path in (source, target):
        world.file(pattern(FILE), path=path)
    token = world.token(world.open(source))
    for mode, readable, writable in ((os.O_RDONLY, True, False), (os.O_WRONLY, False, True),
                                     (os.O_RDWR, True, True)):
        for allowed, reply in ((readable, offload_read(world.open(source, mode), 0, S)),
                               (writable, offload_write(world.open(target, mode), token, 0, S))):
            if allowed:
                expect_equal(reply.errno, 0, f"mode {mode}")
            else:
                world.refused(reply, reason="ACCESS_MODE")
    os.chmod(target, 0)  # what counts is how it was opened
    world.write(world.open(target), token, 0, S)


@rule("4.3#8")
def copy_chunk_src_exceed(world):
    source = world.file(pattern(1000))
    world.read(source, 0, 2 * FILE, 1024)
    world.read(source, S, FILE, S)


@rule("4.3#9")
def copy_chunk_append(world):
    for kind in ("plain", "extend"):
        _, data, token = world.sample(kind)
        target = world.target(kind)
        if kind == "plain":
            world.refused(offload_write(target, token, FILE, FILE), "ENXIO", "END_OF_FILE")
        else:
            world.write(target, token, FILE)
            expect_equal(world.content(target), pattern(FILE, 2) + data, "the longer file")


@rule("4.3#10")
def copy_chunk_zero_length(world):
    source, _, token = world.sample()
    world.read(source, 0, 0)
    world.write(world.target(), token, 0, 0)


@rule("4.3#11")
def copy_chunk_max_output_sz(world):
    source, _, token = world.sample()
    world.refused(offload_read(source, 0, FILE, room=527))
    world.refused(offload_write(world.target(), token, 0, FILE, room=15))


@rule("4.3#12")
def copy_chunk_limits(world):
    size = 64 << 20  # more than any chunk of SMB; all of it at once
    source = world.sparse(size, at_0=pattern(4096), **{f"at_{size - 4096}": pattern(4096)})
    token = world.token(source, 0, size)
    target = world.sparse(2 * size)
    world.write(target, token, 0, 2 * size, 0, size)
    expect_equal(os.pread(target, 4096, size - 4096), pattern(4096), "the end of it")


@rule("4.3#13")
def copy_chunk_src_is_dest(world):
    file, data, _ = world.sample()
    world.write(file, world.token(file, 0, 8 * S), 8 * S, 8 * S)
    world.write(file, world.token(file, 0, 8 * S), 4 * S, 8 * S)
    expect_equal(world.content(file), data[:4 * S] + data[:8 * S] + data[4 * S:8 * S], "the file")


@rule("4.3#14")
def copy_chunk_sparse(world):
    source = world.sparse(256 << 10, at_131072=pattern(4096))
    token = world.token(source, 0, 256 << 10)
    for target in (world.sparse(256 << 10), world.target(size=256 << 10)):
        world.write(target, token, 0, 256 << 10)
        expect_equal(world.content(target), over(bytes(256 << 10), 131072, pattern(4096)), "data")
        expect_equal((os.lseek(target, 0, os.SEEK_DATA), os.lseek(target, 131072, os.SEEK_HOLE)),
                     (131072, 131072 + 4096), "holes")


@rule("4.3#15")
def dup_extents_len_beyond_dest(world):
    _, data, token = world.sample()
    target = world.target(size=4 * S)
    world.write(target, token, 0, FILE, 0, 4 * S)
    expect_equal(world.content(target), data[:4 * S], "the file, as long as before")


@rule("4.3#16")
def dup_extents_len_beyond_src(world):
    data = pattern(4 * S)
    source, target = world.file(data), world.target()
    reply = world.read(source, 0, FILE, 4 * S)
    world.write(target, reply.token, 0, FILE, 0, 4 * S)
    expect_equal(world.content(target), over(pattern(FILE, 2), 0, data), "the target")
    expect_equal(world.content(source), data, "the source")


@rule("4.3#17")
def dup_extents_bad_handle(world):
    closed = world.file(pattern(FILE))
    world.close(closed)
    for read in (True, False):
        world.refused_by_kernel(closed, read=read)
        world.refused_by_kernel(2**31 - 1, read=read)


@rule("4.3#18")
def sparse_lock(world):
    path = world.path()
    file = world.file(pattern(FILE), path=path)
    for how in ("exclusive", "shared"):
        with locked_by_another(path, how, 0, S):
            world.refused(offload_write(file, ZERO_TOKEN, 0, FILE), reason="LOCKED")
    world.still(file, pattern(FILE))
    tokens = len(list_tokens(file))
    world.write(file, ZERO_TOKEN)
    expect_equal(len(list_tokens(file)), tokens, "tokens")
