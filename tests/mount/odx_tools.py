#!/usr/bin/env python3
"""The odx command by hand: cp, read, write, zero, token and stat on a mount."""

import os
import random
import shutil

from harness import MIB, case_main, expect, expect_equal, json_of, run, say
from posix_lib import acl

SIZE = 20 * MIB + 300  # the end of the file lies within a sector


def contents(path):
    with open(path, "rb") as file:
        return file.read()


def copying(case, mount, data):
    source = mount.path + "/source"
    with open(source, "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    before = mount.statistics()
    run([case.odx, "cp", source, mount.path + "/copy"])
    after = mount.statistics()
    expect_equal(contents(mount.path + "/copy"), data, "odx cp")
    expect(after["device_bytes_written"] - before["device_bytes_written"] <= 2 * 4096,
           "odx cp moved data")
    expect(after["offload_bytes_shared"] - before["offload_bytes_shared"] >= SIZE - 2 * 4096,
           "odx cp shared little")
    text = run([case.odx, "cp", "-v", "--require-offload", source, mount.path + "/copy2"])
    expect(b"offload" in text.stdout + text.stderr, "odx cp -v does not name the path taken")
    run([case.odx, "cp", "--no-offload", source, mount.path + "/copy3"])
    for name in ("copy2", "copy3"):
        expect_equal(contents(f"{mount.path}/{name}"), data, f"odx cp to {name}")

    # To and from another filesystem there is no offload, but there is a copy.
    outside = case.place("outside")
    run([case.odx, "cp", source, outside])
    run([case.odx, "cp", outside, mount.path + "/back"])
    expect_equal(contents(outside), data, "odx cp to another filesystem")
    expect_equal(contents(mount.path + "/back"), data, "odx cp from another filesystem")
    refused = run([case.odx, "cp", "--require-offload", source, case.place("no")], status=None)
    expect(refused.returncode != 0, "odx cp --require-offload to another filesystem")


def other_stores(case, mount, data):
    """Between two stores bytes move; the report says why, and --require-offload refuses."""
    other = case.mount(case.store())
    told = json_of([case.odx, "cp", "--json", mount.path + "/source", other.path + "/target"])
    # The kernel moves the bytes by itself where it can (copy_file_range between two mounts).
    expect_equal((told["bytes_total"], told["bytes_offloaded"], told["bytes_shared"],
                  told["bytes_cloned"] + told["bytes_copied"]), (len(data), 0, 0, len(data)),
                 "a copy to another store")
    expect("different stores" in told["why"], told)
    expect(all(one["way"] in ("clone", "copy") for one in told["ranges"]), told)
    expect(contents(other.path + "/target") == data, "the copy")
    refused = run([case.odx, "cp", "--require-offload", mount.path + "/source",
                   other.path + "/none"], status=1)
    expect(b"different stores" in refused.stderr, refused.stderr)
    expect(not os.path.exists(other.path + "/none"), "a refused copy is there")
    expect_equal(other.statistics()["fallback_bytes"][4], len(data), "bytes that fell back")
    expect_equal(other.statistics()["tokens_created"] + other.statistics()["tokens_live"], 0,
                 "tokens")
    case.close(other)


def attributes(path):
    return os.stat(path).st_mode, {name: os.getxattr(path, name) for name in os.listxattr(path)}


def trees(case, mount, data):
    tree = mount.path + "/tree"
    os.makedirs(tree + "/a/b/empty")
    for number in range(200):
        with open(f"{tree}/a/file-{number}", "wb") as file:
            file.write(data[number:number * 3000])
        os.chmod(f"{tree}/a/file-{number}", 0o600 + number % 64)
    shutil.copy(mount.path + "/source", tree + "/a/b/big")
    os.symlink("../a/file-1", tree + "/a/link")
    with open(tree + "/sparse", "wb") as file:
        file.truncate(50 * MIB)
        file.seek(25 * MIB)
        file.write(b"in the middle")
    os.setxattr(tree + "/a", "user.of-a-directory", b"kept")
    os.setxattr(tree + "/a/b/big", "user.big", b"v" * 5000)
    listed = acl((1, 6, 2**32 - 1), (2, 4, 1234), (4, 4, 2**32 - 1), (16, 6, 2**32 - 1),
                 (32, 0, 2**32 - 1))
    os.setxattr(tree + "/a/file-7", "system.posix_acl_access", listed)
    os.setxattr(tree + "/a", "system.posix_acl_default", listed)
    run([case.odx, "cp", "-r", tree, mount.path + "/tree2"])
    for name in ("/a", "/a/b/big", "/a/file-7", "/a/file-8"):
        expect_equal(attributes(mount.path + "/tree2" + name), attributes(tree + name), name)
    run(["diff", "-r", "--no-dereference", tree, mount.path + "/tree2"])
    expect_equal(os.readlink(mount.path + "/tree2/a/link"), "../a/file-1", "a copied link")
    expect(os.stat(mount.path + "/tree2/sparse").st_blocks * 512 < MIB, "odx cp -r filled a hole")


def tokens(case, mount, data):
    source, token = mount.path + "/source", case.place("token")
    taken = run([case.odx, "read", source]).stdout
    expect_equal(len(taken), 512, "a token's length")
    with open(token, "wb") as file:
        file.write(taken)
    target = mount.path + "/target"
    with open(target, "wb") as file:
        file.truncate(SIZE)
    with open(source, "r+b") as file:
        file.write(b"changed" * 10_000)
    run(["sh", "-c", '"$0" write "$1" < "$2"', case.odx, target, token])
    expect_equal(contents(target), data, "odx write")
    part = run([case.odx, "read", "--offset", "512", "--length", "4096", target]).stdout
    run([case.odx, "write", "--offset", "1M", "--length", "1024", "--transfer-offset", "2048",
         target], stdin=part)
    wanted = bytearray(data)
    wanted[MIB:MIB + 1024] = data[512 + 2048:512 + 2048 + 1024]
    run([case.odx, "zero", "--offset", "2M", "--length", "4M", target])
    wanted[2 * MIB:6 * MIB] = bytes(4 * MIB)
    expect(contents(target) == bytes(wanted), "parts and zeros")

    listed = json_of([case.odx, "token", "list", "--json", "--mount", mount.path])
    expect_equal(len(listed), mount.statistics()["tokens_live"], "tokens listed")
    shown = json_of([case.odx, "token", "show", "--json", "--mount", mount.path, token])
    expect(shown in listed or shown, "a token shown")
    run([case.odx, "token", "show", "--mount", mount.path, token])
    run([case.odx, "token", "drop", "--mount", mount.path, token])
    expect_equal(mount.statistics()["tokens_live"], len(listed) - 1, "tokens after a drop")
    refused = run(["sh", "-c", '"$0" write "$1" < "$2"', case.odx, target, token], status=None)
    expect(refused.returncode != 0 and refused.stderr, "a dropped token was taken")
    expect(contents(target) == bytes(wanted), "a dropped token changed the file")


def body(case):
    store = case.store(8 << 30, "--label", "tools")
    mount = case.mount(store)
    data = random.Random(14).randbytes(SIZE)
    copying(case, mount, data)
    say("odx cp")
    other_stores(case, mount, data)
    trees(case, mount, data)
    say("odx cp -r")
    tokens(case, mount, data)
    say("tokens")
    told = json_of([case.odx, "stat", "--json", mount.path])
    counted = mount.statistics()
    expect_equal(told["label"], "tools", "the label")
    steady = ("total_bytes", "tokens_live", "offload_bytes_shared", "device_bytes_written",
              "clone_calls", "checksum_errors", "tokens_created")
    expect_equal([told[name] for name in steady], [counted[name] for name in steady], "odx stat")
    expect(len(run([case.odx, "stat", mount.path]).stdout.splitlines()) > 10, "odx stat as text")
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
