#!/usr/bin/env python3
"""Wrong arguments, wrong stores, damaged ones: one clear line, a non-zero exit, no mount, no crash."""

import os
import random
import shutil

from harness import GIB, MIB, Failure, case_main, expect, is_mounted, run, say
from super_block import sum_is_right, with_version


class Refusals:
    """Runs commands that must be refused."""

    def __init__(self, mountpoint):
        self.mountpoint, self.count = mountpoint, 0

    def __call__(self, what, command, *words):
        """`command` fails at once, saying on one line all of `words`."""
        done = run(command, timeout=60, status=None)
        text = done.stderr.decode("utf-8", "replace")
        lines = text.splitlines()
        where = f"{what}: exit status {done.returncode}, stderr {text!r}"
        expect(done.returncode not in (0, 134, 139), where)
        expect(len(lines) == 1 and lines[0].strip(), f"{where}: not one line")
        for word in words:
            expect(word.lower() in text.lower(), f"{where}: does not say '{word}'")
        for word in ("terminate", "what()", "exception"):
            expect(word not in text.lower(), f"{where}: an exception came through")
        expect(not is_mounted(self.mountpoint), f"{what}: left a mount")
        self.count += 1


def mkfs_refusals(case, refused):
    place = case.place
    file = place("file")
    with open(file, "wb") as output:
        output.write(b"not a folder")
    full = place("full")
    os.mkdir(full)
    shutil.copy(file, full)
    for size in ("-1", "abc", "12Q", "1e9", "", "99999999999999999999999"):
        refused(f"mkfs --size '{size}'", [case.mkfs, "--size", size, place("new")], "size")
    refused("mkfs of a tiny store", [case.mkfs, "--size", "4096", place("new")], "MiB")
    for sector in ("0", "511", "513", "8192", "x"):
        refused(f"mkfs --sector {sector}",
                [case.mkfs, "--size", str(GIB), "--sector", sector, place("new")], "sector")
    refused("mkfs with a long label", [case.mkfs, "--size", str(GIB), "--label", "l" * 200,
                                       place("new")], "label")
    refused("mkfs over a file", [case.mkfs, "--size", str(GIB), file], file)
    refused("mkfs over a folder that is not empty", [case.mkfs, "--size", str(GIB), full], full)
    refused("mkfs below nothing", [case.mkfs, "--size", str(GIB), place("no") + "/such/place"])
    refused("mkfs of nothing", [case.mkfs])
    refused("mkfs of two", [case.mkfs, place("one"), place("two")])
    refused("mkfs with an unknown option", [case.mkfs, "--frobnicate", place("new")], "frobnicate")
    expect(sorted(os.listdir(full)) == [os.path.basename(file)], "mkfs changed a folder")
    for path in os.listdir(case.folder):
        expect(not path.endswith("-new"), f"mkfs left {path} behind")


def mount_refusals(case, refused, store):
    point, place = refused.mountpoint, case.place
    missing, empty, file = place("missing"), place("empty"), place("file")
    os.mkdir(empty)
    with open(file, "wb"):
        pass

    def mount(what, *arguments, says=()):
        refused(what, [case.daemon, *arguments], *says)

    mount("no arguments")
    mount("no mount point", store)
    mount("too many arguments", store, point, point)
    mount("a store that is not there", missing, point, says=(missing,))
    mount("an empty folder", empty, point, says=(empty,))
    mount("a file", file, point, says=(file,))
    mount("a mount point that is not there", store, missing, says=(missing,))
    mount("a mount point that is a file", store, file, says=(file,))
    mount("an unknown option", store, point, "-o", "no_such_option", says=("no_such_option",))
    mount("an unknown flag", store, point, "--no-such-flag", says=("no-such-flag",))
    mount("-o without options", store, point, "-o")
    expect(os.listdir(empty) == [], "the daemon left something in an empty folder")


def damaged_stores(case, refused, store):
    point = refused.mountpoint

    def damaged(what, change, *words):
        copy = case.place("damaged")
        run(["cp", "-a", "--sparse=always", store, copy])
        change(copy)
        refused(f"mounting {what}", [case.daemon, copy, point], *words)
        checked = run([case.odx, "check", copy], status=None, timeout=60)
        expect(checked.returncode not in (0, 134, 139), f"odx check passes {what}")
        shutil.rmtree(copy)

    def for_supers(change):
        def result(copy):
            for name in ("SUPER.0", "SUPER.1"):
                path = os.path.join(copy, name)
                if os.path.exists(path):
                    with open(path, "r+b") as file:
                        raw = bytearray(file.read())
                        change(raw)
                        file.seek(0)
                        file.write(raw)
                        file.truncate(len(raw))
        return result

    def noise(raw):
        raw[:] = random.Random(12).randbytes(len(raw))

    def magic(raw):
        raw[0] ^= 0xFF

    def empty(raw):
        del raw[:]

    damaged("a store without superblocks",
            lambda copy: [os.unlink(os.path.join(copy, name)) for name in os.listdir(copy)
                          if name.startswith("SUPER")])
    damaged("a store with noise for superblocks", for_supers(noise))
    damaged("a store with another magic", for_supers(magic))
    damaged("a store with empty superblocks", for_supers(empty))
    damaged("a store without a journal", lambda copy: os.unlink(os.path.join(copy, "journal")))
    damaged("a store without its metadata", lambda copy: shutil.rmtree(os.path.join(copy, "meta")))
    damaged("a store of a later version", for_supers(later_version), "version")


def later_version(raw):
    """Says version 0x7fff and has a right sum, as a later odxfs would write it."""
    expect(sum_is_right(bytes(raw)), "the superblock's sum is not where this test looks for it")
    raw[:] = with_version(bytes(raw), 0x7FFF)


def tools(case, refused, store):
    ordinary = case.place("ordinary")
    os.mkdir(ordinary)
    with open(ordinary + "/file", "wb") as file:
        file.write(bytes(MIB))
    token = case.place("token")
    with open(token, "wb") as file:
        file.write(b"short")
    odx = case.odx
    refused("odx with an unknown command", [odx, "frobnicate"], "frobnicate")
    refused("odx stat of what is no mount", [odx, "stat", ordinary], ordinary)
    refused("odx stat of nothing", [odx, "stat", ordinary + "/none"], ordinary + "/none")
    refused("odx unmount of what is no mount", [odx, "unmount", ordinary], ordinary)
    refused("odx check of what is no store", [odx, "check", ordinary], ordinary)
    refused("odx read elsewhere", [odx, "read", ordinary + "/file"], ordinary + "/file")
    refused("odx read of nothing", [odx, "read", ordinary + "/none"], ordinary + "/none")
    refused("odx read with a bad number", [odx, "read", "--offset", "x", ordinary + "/file"],
            "offset")
    refused("odx zero without a range", [odx, "zero", ordinary + "/file"])
    refused("odx cp of nothing", [odx, "cp", ordinary + "/none", ordinary + "/copy"],
            ordinary + "/none")
    refused("odx cp of a folder without -r", [odx, "cp", ordinary, ordinary + "2"])
    refused("odx write of a short token",
            ["sh", "-c", '"$0" write "$1" < "$2"', odx, ordinary + "/file", token])
    del store


def body(case):
    point = case.place("mnt")
    os.mkdir(point)
    refused = Refusals(point)
    store = case.store(GIB)
    mkfs_refusals(case, refused)
    say("mkfs refuses")
    mount_refusals(case, refused, store)
    say("odxfs refuses")
    damaged_stores(case, refused, store)
    say("damaged stores are refused")
    tools(case, refused, store)

    mount = case.mount(store)
    refused("a store that is in use", [case.daemon, store, point], store)
    refused("check of a store that is in use", [case.odx, "check", store], store)
    mount.alive()
    for program in (case.mkfs, case.daemon, case.odx):
        text = run([program, "--help"]).stdout.decode()
        expect(len(text) > 100, f"{program} --help says {text!r}")
    case.close(mount)

    # One damaged superblock of two is no reason to refuse.
    for name in ("SUPER.0", "SUPER.1"):
        path = os.path.join(store, name)
        if os.path.exists(path):
            with open(path, "rb") as file:
                kept = file.read()
            with open(path, "r+b") as file:
                file.write(b"\xff" * 100)
            try:
                case.mount(store).unmount()
            except Failure as failure:
                others = [other for other in ("SUPER.0", "SUPER.1")
                          if other != name and os.path.exists(os.path.join(store, other))]
                if others:
                    raise failure
            with open(path, "wb") as file:
                file.write(kept)
    case.check(store)
    say(f"{refused.count} refusals")


if __name__ == "__main__":
    case_main(body)
