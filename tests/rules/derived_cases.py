"""The cases that follow from the rules (4.4), at their edges. S: sector, E: end of file."""

import mmap
import os

from harness import MIB, expect_equal
from odx_abi import ALL_ZERO_BEYOND, TOKEN_ID, ZERO_TOKEN, flipped, offload_read, offload_write
from registry import FILE, S, locked_by_another, over, pattern, rule, take_lock

E = FILE


# ---- READ ----

@rule("4.4R#1")
def read_size_31_33_and_0(world):
    file = world.file(pattern(E))
    for size in (31, 33, 0):
        world.refused(offload_read(file, 0, S, size=size), reason="STRUCTURE_SIZE")


@rule("4.4R#2")
def read_of_31_bytes_of_input(world):
    world.refused(offload_read(world.file(pattern(E)), 0, S, input_length=31))


@rule("4.4R#3")
def read_with_room_for_527_bytes(world):
    world.refused(offload_read(world.file(pattern(E)), 0, S, room=527))


@rule("4.4R#4")
def read_at_S_less_1(world):
    world.refused(offload_read(world.file(pattern(E)), S - 1, S), reason="FILE_OFFSET_ALIGNMENT")


@rule("4.4R#5")
def read_of_S_less_1(world):
    world.refused(offload_read(world.file(pattern(E)), 0, S - 1), reason="COPY_LENGTH_ALIGNMENT")


@rule("4.4R#6")
def read_of_S_less_1_that_ends_at_E(world):
    data = pattern(3 * S - 1)
    world.shows(world.token(world.file(data), 2 * S, S - 1), data[2 * S:])


@rule("4.4R#7")
def read_at_2_to_64_less_S(world):
    world.refused(offload_read(world.file(pattern(E)), 2**64 - S, 2 * S), reason="RANGE_WRAPS")


@rule("4.4R#8")
def read_at_2_to_63(world):
    world.refused(offload_read(world.file(pattern(E)), 2**63, S), reason="OFFSET_NEGATIVE")


@rule("4.4R#9")
def read_of_nothing_at_0(world):
    expect_equal(world.read(world.file(pattern(E)), 0, 0).token, ZERO_TOKEN, "the token")


@rule("4.4R#10")
def read_of_nothing_beyond_E(world):
    for offset in (E, E + S, 2**40):
        world.read(world.file(pattern(E)), offset, 0)


@rule("4.4R#11")
def read_of_nothing_on_a_directory(world):
    world.read(world.open(world.mount().path, os.O_RDONLY), 0, 0)


@rule("4.4R#12")
def read_of_nothing_without_access(world):
    path = world.path()
    world.file(pattern(E), path=path)
    world.refused(offload_read(world.open(path, os.O_WRONLY), 0, 0), reason="ACCESS_MODE")


@rule("4.4R#13")
def read_at_E(world):
    world.refused(offload_read(world.file(pattern(E)), E, S))


@rule("4.4R#14")
def read_at_E_plus_S(world):
    world.refused(offload_read(world.file(pattern(E)), E + S, S))


@rule("4.4R#15")
def read_of_the_sector_of_an_unaligned_E(world):
    data = pattern(2 * S + 5)
    reply = world.read(world.file(data), 2 * S, S, flags=ALL_ZERO_BEYOND)
    world.shows(reply.token, data[2 * S:] + bytes(S - 5))


@rule("4.4R#16")
def read_of_a_huge_length(world):
    file = world.file(pattern(2 * S + 5))
    for offset in (0, S, 2 * S):
        world.read(file, offset, 2**63, 3 * S - offset)


@rule("4.4R#17")
def read_of_a_hole(world):
    file = world.sparse(128 << 10, at_65536=pattern(S))
    reply = world.read(file, 0, 65536, flags=0)
    expect_equal(reply.token, ZERO_TOKEN, "the token")


@rule("4.4R#18")
def read_of_a_hole_to_E(world):
    file = world.sparse(128 << 10, at_0=pattern(S))
    reply = world.read(file, 65536, 65536, flags=ALL_ZERO_BEYOND)
    expect_equal(reply.token, ZERO_TOKEN, "the token")


@rule("4.4R#19")
def read_of_a_hole_to_an_unaligned_E(world):
    size = 65536 + 100
    file = world.sparse(size, at_0=pattern(S))
    for length in (S, 100, MIB):
        reply = world.read(file, 65536, length, min(length, S), ALL_ZERO_BEYOND)
        expect_equal(reply.token == ZERO_TOKEN, False, "a zero token")
        world.shows(reply.token, bytes(100))
    expect_equal(world.read(file, 32768, 32768, flags=ALL_ZERO_BEYOND).token, ZERO_TOKEN,
                 "before that sector")


@rule("4.4R#20")
def read_of_data_before_a_hole(world):
    file = world.sparse(MIB, at_0=pattern(65536), at_524288=pattern(S))
    world.read(file, 0, 65536, flags=0)
    world.read(file, 0, 524288, flags=0)
    # Data is told by the block.
    world.read(file, 0, 524288 + 4096, flags=ALL_ZERO_BEYOND)


@rule("4.4R#21")
def read_overlapping_a_lock_by_a_byte(world):
    path = world.path()
    file = world.file(pattern(E), path=path)
    for first, length in ((2 * S - 1, S), (0, S + 1), (S, 1)):
        with locked_by_another(path, "exclusive", first, length):
            world.refused(offload_read(file, S, S), reason="LOCKED")


@rule("4.4R#22")
def read_touching_a_lock(world):
    path = world.path()
    file = world.file(pattern(E), path=path)
    for first, length in ((2 * S, S), (0, S)):
        with locked_by_another(path, "exclusive", first, length):
            world.read(file, S, S)


@rule("4.4R#23")
def read_under_ones_own_lock(world):
    file = world.file(pattern(E))
    take_lock(file, "exclusive", 0, 0)
    world.read(file)


@rule("4.4R#24")
def read_under_a_shared_lock(world):
    path = world.path()
    file = world.file(pattern(E), path=path)
    with locked_by_another(path, "shared", 0, 0):
        world.read(file)


@rule("4.4R#26")
def read_ignores_flags_and_reserved(world):
    data = pattern(E)
    file = world.file(data)
    for flags, reserved in ((1, 0), (0, 1), (0xFFFFFFFF, 0xFFFFFFFF)):
        reply = offload_read(file, 0, E, flags=flags, reserved=reserved)
        expect_equal(reply.errno, 0, "errno")
        world.shows(reply.token, data)
    world.write(world.target(), ZERO_TOKEN, flags=0xFFFFFFFF)


# ---- WRITE ----

@rule("4.4W#1")
def write_size_543_545_and_0(world):
    file = world.target()
    for size in (543, 545, 0):
        world.refused(offload_write(file, ZERO_TOKEN, 0, S, size=size), reason="STRUCTURE_SIZE")


@rule("4.4W#2")
def write_of_543_bytes_of_input(world):
    world.refused(offload_write(world.target(), ZERO_TOKEN, 0, S, input_length=543))


@rule("4.4W#3")
def write_with_room_for_15_bytes(world):
    world.refused(offload_write(world.target(), ZERO_TOKEN, 0, S, room=15))


@rule("4.4W#4")
def write_alignments_one_by_one(world):
    file = world.target()
    for place, reason in (((1, S, 0), "FILE_OFFSET_ALIGNMENT"),
                          ((0, 1, 0), "COPY_LENGTH_ALIGNMENT"),
                          ((0, S, 1), "TRANSFER_OFFSET_ALIGNMENT")):
        world.refused(offload_write(file, ZERO_TOKEN, *place), reason=reason)


@rule("4.4W#5")
def write_alignments_together(world):
    file = world.target()
    for place, reason in (((1, 1, 1), "FILE_OFFSET_ALIGNMENT"),
                          ((1, S, 1), "FILE_OFFSET_ALIGNMENT"),
                          ((0, 1, 1), "COPY_LENGTH_ALIGNMENT")):
        world.refused(offload_write(file, ZERO_TOKEN, *place), reason=reason)


@rule("4.4W#6")
def write_of_nothing_of_garbage(world):
    world.write(world.target(), pattern(512, 9), 0, 0)


@rule("4.4W#9")
def write_that_wraps(world):
    world.refused(offload_write(world.target(), ZERO_TOKEN, 2**64 - S, 2 * S), reason="RANGE_WRAPS")


@rule("4.4W#10")
def write_beyond_the_largest_size(world):
    world.refused(offload_write(world.target(), ZERO_TOKEN, 2**63 - S, S), reason="FILE_TOO_BIG")


@rule("4.4W#11")
def write_at_E(world):
    _, _, token = world.sample()
    world.refused(offload_write(world.target(), token, E, S))


@rule("4.4W#12")
def write_at_E_plus_S(world):
    _, _, token = world.sample()
    world.refused(offload_write(world.target(), token, E + S, S))


@rule("4.4W#13")
def write_over_E(world):
    _, data, token = world.sample()
    for size, written in ((4 * S, 2 * S), (3 * S + 7, 2 * S)):
        file = world.target(size=size)
        world.write(file, token, 2 * S, E, 0, written)
        expect_equal(world.content(file), over(pattern(size, 2), 2 * S, data), "the file")


@rule("4.4W#14")
def write_with_a_flipped_bit(world):
    _, _, token = world.sample()
    file = world.target()
    for byte in (0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 511):
        for bit in range(8):
            world.refused(offload_write(file, flipped(token, byte, bit), 0, S),
                          reason="TOKEN_MALFORMED")


@rule("4.4W#15")
def write_with_a_token_of_zeros(world):
    world.refused(offload_write(world.target(), bytes(512), 0, S), reason="TOKEN_MALFORMED")


@rule("4.4W#19", "4.4W#20", "4.4W#21")
def write_around_the_tokens_end(world):
    _, data, token = world.sample()
    file = world.target()
    world.write(file, token, 0, S, E - S)
    expect_equal(world.content(file), over(pattern(E, 2), 0, data[E - S:]), "the last sector")
    for transfer in (E, E + S):
        world.refused(offload_write(file, token, 0, S, transfer), "EINVAL", "INVALID_PARAMETER",
                      "TRANSFER_OFFSET_RANGE")


@rule("4.4W#22")
def write_past_the_tokens_end(world):
    _, data, token = world.sample()
    file = world.target()
    world.write(file, token, 0, 4 * S, E - S, S)
    expect_equal(world.content(file), over(pattern(E, 2), 0, data[E - S:]), "the last sector")


def a_token_after(world, change):
    """`change` gets the source's path and descriptor between READ and WRITE."""
    path, data = world.path(), pattern(E)
    file = world.file(data, path=path)
    token = world.token(file)
    change(path, file)
    world.shows(token, data)


@rule("4.4W#26")
def write_after_a_write_to_the_source(world):
    a_token_after(world, lambda path, file: os.pwrite(file, b"x" * E, 0))


@rule("4.4W#27")
def write_after_a_truncation_of_the_source(world):
    a_token_after(world, lambda path, file: os.ftruncate(file, 100))
    a_token_after(world, lambda path, file: os.ftruncate(file, 0))


@rule("4.4W#28")
def write_after_the_sources_unlink(world):
    a_token_after(world, lambda path, file: (os.unlink(path), world.close(file)))


@rule("4.4W#29")
def write_after_a_rename_of_the_source(world):
    a_token_after(world, lambda path, file: os.rename(path, path + "-renamed"))


@rule("4.4W#30")
def write_after_a_chmod_of_the_source(world):
    a_token_after(world, lambda path, file: os.chmod(path, 0))


@rule("4.4W#38")
def write_under_ones_own_shared_lock(world):
    file = world.target()
    take_lock(file, "shared", 3 * S, 1)
    world.refused(offload_write(file, ZERO_TOKEN, 0, E), reason="LOCKED")
    world.write(file, ZERO_TOKEN, 0, 3 * S)
    take_lock(file, "exclusive", 3 * S, 1)
    world.write(file, ZERO_TOKEN, 0, E)


@rule("4.4W#42")
def write_seen_through_a_mapping(world):
    _, data, token = world.sample()
    file = world.target()
    with mmap.mmap(file, E, prot=mmap.PROT_READ) as area:
        expect_equal(area[:], pattern(E, 2), "the mapping before")
        world.write(file, token)
        expect_equal(area[:], data, "the mapping after")


@rule("4.4W#43")
def write_of_a_dirty_page(world):
    data = pattern(E)
    file = world.file(bytes(E))
    os.fsync(file)
    with mmap.mmap(file, E) as area:
        area[:] = data
        token = world.token(file)
        area[:] = b"z" * E
    world.shows(token, data)
    expect_equal(len(token[TOKEN_ID]), 16, "an id")
