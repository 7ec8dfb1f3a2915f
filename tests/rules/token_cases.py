"""What holds for tokens (2.5), and for whole calls (2.3)."""

import errno
import os
import stat
import struct
import time

from harness import NOBODY, expect, expect_equal, expect_errno
from odx_abi import (TOKEN_ID, TOKEN_SYNC, ZERO_TOKEN, drop_token, list_tokens, new_file,
                     offload_read, offload_write)
from registry import FILE, S, as_nobody, over, pattern, rule


@rule("2.3#I", "4.4W#40")
def write_moves_the_times(world):
    _, _, token = world.sample()
    source = world.file(pattern(FILE))
    file = world.target()
    os.utime(file, ns=(10**18, 10**18))
    os.utime(source, ns=(10**18, 10**18))
    before = os.fstat(file)
    world.refused(offload_write(file, bytes(512), 0, S), "EKEYREJECTED", "INVALID_TOKEN")
    world.write(file, token, 0, 0)
    same = os.fstat(file)
    expect_equal((same.st_mtime_ns, same.st_ctime_ns), (10**18, before.st_ctime_ns),
                 "times after calls that did nothing")
    time.sleep(0.01)
    world.write(file, world.token(source), 0, S)
    after = os.fstat(file)
    expect(after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns,
           "mtime and ctime did not move")
    expect_equal((after.st_atime_ns, os.fstat(source).st_atime_ns), (10**18, 10**18), "atime")


@rule("4.4W#41", "2.3#I", source="odxfs: as write(2)")
def write_ends_set_id_bits(world):
    _, _, token = world.sample()
    path = world.path()
    file = world.file(pattern(FILE, 2), path=path)
    os.chown(path, NOBODY, NOBODY)
    for mode, left in ((0o6755, 0o755), (0o6745, 0o2745)):
        os.chmod(path, mode)

        def by_its_owner():
            descriptor = os.open(path, os.O_RDWR)
            expect_equal(offload_write(descriptor, bytes(512), 0, S).errno, errno.EKEYREJECTED,
                         "a refused call")
            expect_equal(stat.S_IMODE(os.stat(path).st_mode), mode, "the mode after it")
            world.write(descriptor, token, 0, S)

        as_nobody(by_its_owner)
        expect_equal(stat.S_IMODE(os.fstat(file).st_mode), left, "the mode")
    os.chmod(path, 0o6755)
    world.write(file, token, 0, S)
    expect_equal(stat.S_IMODE(os.fstat(file).st_mode), 0o6755, "the mode when root writes")


@rule("2.3#J", "4.4W#37")
def ranges_of_one_file_overlap(world):
    data = pattern(64 * S)
    file = world.file(data)
    for source, target in ((0, 17), (17, 0), (8, 8), (0, 1), (1, 0)):
        token = world.token(file, source * S, 32 * S)
        world.write(file, token, target * S, 32 * S)
        data = over(data, target * S, data[source * S:(source + 32) * S])
        expect_equal(world.content(file), data, f"from {source} to {target}")


@rule("2.5#2", "4.4R#25")
def two_reads_give_two_tokens(world):
    source, data, first = world.sample()
    second = world.token(source)
    expect(first != second, "the same token twice")
    expect(first[28:44] != second[28:44] and first[44:76] != second[44:76], "an id or secret twice")
    world.shows(first, data)
    world.shows(second, data)


@rule("2.5#3", "4.4W#23")
def a_token_is_used_often(world):
    _, data, token = world.sample()
    for _ in range(3):
        file = world.target()
        world.write(file, token)
        world.write(file, token, 0, S, S)
        expect_equal(world.content(file), over(data, 0, data[S:2 * S]), "the copy")


@rule("4.4W#24")
def two_writers_of_one_token(world):
    _, data, token = world.sample()
    paths = [world.path(), world.path()]
    for path in paths:
        world.file(pattern(FILE, 2), path=path)
    children = []
    for path in paths:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                descriptor = os.open(path, os.O_RDWR)
                for turn in range(200):
                    at = turn % 16 * S
                    world.write(descriptor, token, at, S, at)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    expect_equal([os.waitpid(child, 0)[1] for child in children], [0, 0], "the writers")
    for path in paths:
        expect_equal(world.content(world.open(path)), data, "a copy")


@rule("2.5#4", "4.4R#27", "4.2#13")
def lifetimes_are_given_as_asked(world):
    source, data, _ = world.sample()
    for ttl, milliseconds in ((0, 60_000), (1, 1), (1500, 1500), (600_000, 600_000),
                              (600_001, 600_000), (0xFFFFFFFF, 600_000)):
        token = world.token(source, ttl=ttl)
        if ttl == 1:
            continue  # may have gone before it can be looked at
        uid, length, held, lives = list_tokens(source)[token[TOKEN_ID]]
        expect_equal((uid, length, held, lives), (os.getuid(), FILE, FILE, milliseconds * 10**6),
                     f"TTL {ttl}")
        world.shows(token, data)


@rule("2.5#6", "4.4W#34")
def tokens_of_other_users(world):
    """A bearer's by default; with odx_token_scope=user the maker's alone."""
    for kind in ("plain", "scoped"):
        _, data, token = world.sample(kind)
        path = world.path(kind)
        world.file(pattern(FILE, 2), path=path)
        os.chmod(path, 0o666)

        def another():
            file = os.open(path, os.O_RDWR)
            if kind == "plain":
                world.write(file, token)
                expect_equal(world.content(file), data, "another user's copy")
            else:
                world.refused(offload_write(file, token, 0, S), reason="TOKEN_OTHER_USER")
                world.refused(offload_write(file, token, 0, S, 2**40), reason="TOKEN_OTHER_USER")
                world.write(file, ZERO_TOKEN, 0, S)
            with expect_errno(errno.EPERM, "dropping another's token"):
                drop_token(file, token)
            expect(token[TOKEN_ID] not in list_tokens(file), "another's token is listed")

        as_nobody(another)
        world.write(world.open(path), token)


@rule("2.5#9", "4.4W#35", "4.4W#32", "4.3#6")
def tokens_outlive_mounts_and_crashes(world):
    """Through a bind mount, after an unmount, and, if ODX_TOKEN_SYNC says so, after a crash."""
    case = world.case
    mount = case.mount(case.store(1 << 30))
    data = pattern(FILE)
    source = new_file(mount.path + "/source", data)
    token = offload_read(source, 0, FILE, ttl=600_000).token
    os.close(source)

    def redeemed(folder, given):
        file = new_file(folder + "/copy", pattern(FILE, 2))
        try:
            world.write(file, given)
            expect_equal(world.content(file), data, "the copy")
        finally:
            os.close(file)

    redeemed(mount.path, token)
    mount = case.remount(mount)  # at another place
    redeemed(mount.path, token)
    source = os.open(mount.path + "/source", os.O_RDONLY)
    durable = world.token(source, options=TOKEN_SYNC, ttl=600_000)
    os.close(source)
    mount.kill()
    mount = case.mount(mount.store)
    redeemed(mount.path, durable)
    redeemed(mount.path, token)
    case.close(mount)


@rule("2.5#10", "1#7")
def refused_calls_tell_why_and_change_nothing(world):
    """No refusal refreshes a token's timer, or leaves anything of the input in the reply."""
    source, data, token = world.sample()
    file = world.target()
    os.fsync(file)
    before = os.fstat(file)
    tokens = list_tokens(file)
    for reply in (offload_write(file, token, 0, S, 2**40), offload_write(file, token, FILE, S),
                  offload_write(file, token, 1, S), offload_read(source, 1, S),
                  offload_read(source, FILE, S)):
        expect(reply.errno != 0 and reply.status >= 0xC0000000 and reply.reason != 0, f"{reply}")
        expect_equal(reply.raw[:544], bytes(544), "the body")
        expect_equal(struct.unpack_from("<Q", reply.raw, 552), (0,), "bytes shared")
    after = os.fstat(file)
    expect_equal((after.st_mtime_ns, after.st_ctime_ns),
                 (before.st_mtime_ns, before.st_ctime_ns), "the file's times")
    expect_equal(list_tokens(file), tokens, "tokens")
    world.still(file, pattern(FILE, 2))
    world.shows(token, data)
