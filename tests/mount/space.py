#!/usr/bin/env python3
"""Space: full stores and full hosts, by data, clones and tokens; odx resize; space given back."""

import errno
import os
import random

import odx_abi
from enospc import fill
from harness import MIB, case_main, expect, expect_equal, expect_errno, json_of, run, say, wait_for

PIECE = random.Random(77).randbytes(256 * 1024)


def available(path):
    host = os.statvfs(path)
    return host.f_bavail * host.f_frsize


def held(store):
    """Bytes that the host holds for the store's data."""
    folder = store + "/data"
    return sum(os.stat(f"{folder}/{name}").st_blocks * 512 for name in os.listdir(folder))


def write(path, size):
    """A file of that size in pieces that differ."""
    with open(path, "wb") as file:
        for number in range(size // len(PIECE)):
            file.write(number.to_bytes(8, "little") + PIECE[8:])
        file.flush()
        os.fsync(file.fileno())


def whole(path, size):
    with open(path, "rb") as file:
        return all(file.read(len(PIECE)) == number.to_bytes(8, "little") + PIECE[8:]
                   for number in range(size // len(PIECE)))


class Host:
    """A small filesystem of its own for stores, with a store on it."""

    def __init__(self, case, kind, size):
        self.path = case.place("host")
        os.mkdir(self.path)
        self.what = kind
        if kind == "tmpfs":
            run(["mount", "-t", "tmpfs", "-o", f"size={size}", "host", self.path])
        else:
            image = case.place("image")
            with open(image, "wb") as file:
                file.truncate(size)
            run(["mkfs.ext4", "-q", "-m", "0", "-J", "size=4", image])
            run(["mount", "-o", "loop", image, self.path])
        case.guard.tell("mount", self.path)
        self.case = case
        self.store = self.path + "/store"
        run([case.mkfs, "--size", "256M", "--journal", "8M", self.store])

    def close(self):
        run(["umount", self.path])
        self.case.guard.tell("unmounted", self.path)


def full_host(case, kind):
    host = Host(case, kind, 200 * MIB)
    mount = case.mount(host.store)
    write(mount.path + "/kept", 8 * MIB)
    promised = available(mount.path)
    path = mount.path + "/fill"
    first = fill(path, PIECE)
    say(f"{kind}: promised {promised / MIB:.1f} MiB, took {first / MIB:.1f}")
    # What is promised is there; growth by less than a MiB is not worth it.
    expect(promised - 2 * MIB <= first <= promised + 2 * MIB, "statfs did not tell the truth")
    expect(available(mount.path) < 2 * MIB, "statfs promises room on a full host")
    expect(available(host.path) >= 50 * MIB, "the reserve was used for data")
    mount.sync()

    # A full host through a remount, and what must work on it.
    mount = case.remount(mount)
    path = mount.path + "/fill"
    os.rename(mount.path + "/kept", mount.path + "/renamed")
    os.setxattr(mount.path + "/renamed", "user.a", b"b" * 100)
    with expect_errno(errno.ENOSPC, "a write on a full host"):
        write(mount.path + "/more", 4 * MIB)
    os.unlink(mount.path + "/more")
    most = held(host.store)
    os.truncate(path, first // 2)
    wait_for(lambda: available(mount.path) >= first // 2 - 3 * MIB, "the space of a cut file")
    os.unlink(path)
    wait_for(lambda: available(mount.path) >= first - 3 * MIB, "the space of a deleted file")
    # All but what the store keeps at hand: two steps, each a sixteenth of its 256 MiB, at most.
    wait_for(lambda: held(host.store) < most - 20 * MIB
             and held(host.store) <= 8 * MIB + 2 * 16 * MIB + MIB, "the host to get space back")
    say(f"{kind}: the host holds {held(host.store) / MIB:.1f} MiB of {most / MIB:.1f}")

    # Somebody else takes what the host got back: an error for the writer, and nothing worse.
    with open(host.path + "/stranger", "wb") as file:
        left = available(host.path) - 66 * MIB
        if left > 0:
            os.posix_fallocate(file.fileno(), 0, left)
    promised = available(mount.path)
    again = fill(path, PIECE)
    say(f"{kind}: beside a stranger promised {promised / MIB:.1f} MiB, took {again / MIB:.1f}")
    expect(promised - 2 * MIB <= again <= promised + 2 * MIB, "statfs did not tell the truth")
    mount.alive()
    os.unlink(host.path + "/stranger")
    os.unlink(path)
    wait_for(lambda: available(mount.path) >= first - 3 * MIB, "room again")
    expect(fill(path, PIECE) >= first - 3 * MIB, "the host's space is not used again")
    expect(whole(mount.path + "/renamed", 8 * MIB), "what was kept has changed")
    mount = case.remount(mount)
    expect(whole(mount.path + "/renamed", 8 * MIB), "what was kept has changed")
    os.unlink(mount.path + "/fill")
    case.close(mount)
    host.close()


def clones_overwritten(case):
    """Clones cost nothing until they are written; then ENOSPC comes when the write is taken."""
    mount = case.mount(case.store(64 * MIB), "no_writeback")
    write(mount.path + "/source", 24 * MIB)
    for number in range(8):
        run([case.odx, "cp", mount.path + "/source", f"{mount.path}/clone{number}"])
    expect(available(mount.path) >= 39 * MIB, "clones took room")
    written, refused = 0, 0
    for number in range(8):
        file = os.open(f"{mount.path}/clone{number}", os.O_RDWR)
        try:
            for at in range(0, 24 * MIB, len(PIECE)):
                written += os.pwrite(file, PIECE, at)
        except OSError as error:
            expect_equal(error.errno, errno.ENOSPC, "a write into a clone on a full store")
            refused += 1
        os.fsync(file)
        os.close(file)
    expect(38 * MIB <= written <= 64 * MIB and refused > 0, f"{written} bytes fit into clones")
    expect(whole(mount.path + "/source", 24 * MIB), "the source has changed")
    # Nothing more goes in; everything can be taken out, and is room again.
    for number in range(8):
        os.truncate(f"{mount.path}/clone{number}", 5 * MIB)
        os.unlink(f"{mount.path}/clone{number}")
    wait_for(lambda: available(mount.path) >= 39 * MIB, "the clones' space")
    write(mount.path + "/again", 39 * MIB)
    expect(whole(mount.path + "/again", 39 * MIB), "what was written after all that is not there")
    case.close(mount)


def pinned_by_tokens(case):
    """What only a token still names is used space, until the token is dropped."""
    mount = case.mount(case.store(64 * MIB))
    tokens = []
    for number in range(4):
        path = f"{mount.path}/file{number}"
        write(path, 12 * MIB)
        file = os.open(path, os.O_RDONLY)
        reply = odx_abi.offload_read(file, 0, 12 * MIB, ttl=600_000)
        expect_equal(reply.errno, 0, "an offload read")
        tokens.append(reply.token)
        os.close(file)
        os.unlink(path)
    mount.sync()
    filled = fill(mount.path + "/fill", PIECE)
    expect(13 * MIB <= filled <= 16 * MIB, f"{filled} bytes fit beside 48 MiB in tokens")
    directory = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    target = odx_abi.new_file(mount.path + "/target")
    os.ftruncate(target, 12 * MIB)
    # A redeemed token needs no room.
    reply = odx_abi.offload_write(target, tokens[0], 0, 12 * MIB)
    expect_equal((reply.errno, reply.length), (0, 12 * MIB), "an offload write on a full store")
    os.close(target)
    expect(whole(mount.path + "/target", 12 * MIB), "a token on a full store has other bytes")
    for token in tokens:
        odx_abi.drop_token(directory, token)
    os.close(directory)
    wait_for(lambda: available(mount.path) >= 35 * MIB, "the tokens' space")
    write(mount.path + "/again", 35 * MIB)
    case.close(mount)


def resized(case):
    store = case.store(32 * MIB)
    mount = case.mount(store)

    def resize(*words, status=0):
        done = run([case.odx, "resize", *words], status=status)
        return done.stdout.decode(), done.stderr.decode()

    path = mount.path + "/fill"
    first = fill(path, PIECE)
    expect(first <= 32 * MIB, "more than the limit went in")
    text, _ = resize(mount.path, "+16M")
    expect("48.0 MiB" in text and "32.0 MiB before" in text, f"odx resize said {text!r}")
    second = fill(mount.path + "/second", PIECE)
    expect(14 * MIB <= second <= 16 * MIB, f"{second} bytes more fit after growing by 16 MiB")
    answer = json_of([case.odx, "resize", "--json", mount.path])
    expect_equal(answer["limit_bytes"], 48 * MIB, "the limit")
    expect_equal(answer["existing_bytes"], 48 * MIB, "what exists")
    _, why = resize(mount.path, "40M", status=1)
    expect("in use" in why and "least size" in why, f"odx resize said {why!r}")
    _, why = resize(mount.path, "1M", status=1)
    expect("at least 16.0 MiB" in why, f"odx resize said {why!r}")
    for wrong in ("", "x", "12Q", "--", "+"):
        resize(mount.path, wrong, status=2 if wrong != "--" else 0)
    resize("/", "1G", status=1)
    _, why = resize(store, "64M", status=1)
    expect("in use by process" in why, f"odx resize of a mounted store's folder said {why!r}")

    # The raw control: bytes that must be 0, and what it tells.
    directory = os.open(mount.path, os.O_RDONLY | os.O_DIRECTORY)
    for wrong in (odx_abi.resize_call(0, least=1), odx_abi.resize_call(0, reserved=(0, 0, 1))):
        expect_equal(odx_abi.control(directory, odx_abi.RESIZE, wrong)[0], errno.EINVAL,
                     "a field that must be 0")
    number, raw = odx_abi.control(directory, odx_abi.RESIZE, odx_abi.resize_call(40 * MIB))
    limit, before, exists, _, least = odx_abi.resize_answer(raw)
    expect_equal((number, limit, before, exists), (errno.EBUSY, 48 * MIB, 48 * MIB, 48 * MIB),
                 "a limit below what is in use")
    expect(40 * MIB < least <= 48 * MIB, f"the least limit is {least}")
    os.close(directory)

    # Once the end is free, it is cut off; the files stay.
    os.unlink(mount.path + "/second")
    text, _ = resize(mount.path, "-16M")
    expect("32.0 MiB" in text and "16.0 MiB were cut off" in text, f"odx resize said {text!r}")
    segments = [f"{store}/data/{name}" for name in os.listdir(store + "/data")]
    expect_equal(sum(map(os.path.getsize, segments)), 32 * MIB, "bytes of the segments")
    with open(path, "rb") as file:
        expect(file.read(len(PIECE)) == PIECE, "a file has changed")
    mount.unmount()
    case.check(store)

    # Without a mount.
    text, _ = resize(store, "64M")
    expect("64.0 MiB" in text, f"odx resize said {text!r}")
    case.check(store)
    mount = case.mount(store)
    third = fill(mount.path + "/third", PIECE)
    expect(30 * MIB <= third <= 32 * MIB, f"{third} bytes fit after growing by 32 MiB")
    case.close(mount)


def body(case):
    clones_overwritten(case)
    say("clones")
    pinned_by_tokens(case)
    say("tokens")
    resized(case)
    say("odx resize")
    if os.geteuid() != 0:
        say("NOT TESTED ON THIS MACHINE: small hosts, for want of the right to mount")
        return
    full_host(case, "tmpfs")
    if os.path.exists("/dev/loop-control"):
        full_host(case, "ext4")
    else:
        say("NOT TESTED ON THIS MACHINE: ext4 as the host, for want of loop devices")


if __name__ == "__main__":
    case_main(body)
