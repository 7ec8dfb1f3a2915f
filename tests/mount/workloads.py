#!/usr/bin/env python3
"""Real programs at work in a directory: git, SQLite, tar, fio and cp.

Each workload is a class: __init__ does the work in `folder`, which it makes, and verify() looks at
what is there; it may be called again after a remount, with the folder's new path. Sources lie in
`scratch`, outside the filesystem under test.

By hand, on any filesystem: workloads.py NAME FOLDER
"""

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading

from harness import Failure, MIB, expect, expect_equal, run


class Git:
    """Clones a repository with a generated history, works on it, packs it and has it checked."""

    def __init__(self, folder, scratch, quick):
        os.mkdir(folder)
        self._scratch = scratch
        source = os.path.join(scratch, "source.git")
        self._git(None, "init", "--quiet", "--bare", "--initial-branch=main", source)
        self._git(source, "fast-import", "--quiet", stdin=self._history(40 if quick else 400))
        self.tree = self._git(source, "rev-parse", "main^{tree}")
        far, near = os.path.join(folder, "far"), os.path.join(folder, "near")
        self._git(None, "clone", "--quiet", "--no-local", source, far)
        self._git(None, "clone", "--quiet", far, near)  # hard links
        for clone in (far, near):
            expect_equal(self._git(clone, "rev-parse", "HEAD^{tree}"), self.tree, "the clone's tree")
        self._git(near, "checkout", "--quiet", "-b", "work", "HEAD~20")
        for number in range(5):
            with open(os.path.join(near, f"new-{number}.txt"), "w", encoding="utf-8") as file:
                file.write(f"line {number}\n" * 1000)
            self._git(near, "add", "-A")
            self._git(near, "commit", "--quiet", "-m", f"work {number}")
        self._git(near, "merge", "--quiet", "--no-edit", "main")
        self._git(near, "gc", "--quiet", "--prune=now")
        self._git(far, "repack", "--quiet", "-a", "-d", "-f")
        self.work = self._git(near, "rev-parse", "HEAD")

    def verify(self, folder):
        for name in ("far", "near"):
            clone = os.path.join(folder, name)
            self._git(clone, "fsck", "--full", "--strict")
            expect_equal(self._git(clone, "status", "--porcelain"), "", "git status")
        expect_equal(self._git(os.path.join(folder, "far"), "rev-parse", "HEAD^{tree}"), self.tree,
                     "the clone's tree")
        expect_equal(self._git(os.path.join(folder, "near"), "rev-parse", "HEAD"), self.work,
                     "the work branch")

    def _git(self, where, *words, stdin=None):
        command = ["git", "-c", "user.name=odx", "-c", "user.email=odx@localhost",
                   "-c", "safe.directory=*", "-c", "gc.autoDetach=false",
                   "-c", "protocol.file.allow=always"]
        if where:
            command += ["-C", where]
        environment = dict(os.environ, HOME=self._scratch, GIT_CONFIG_NOSYSTEM="1", LC_ALL="C")
        done = run([*command, *words], env=environment, stdin=stdin, timeout=600)
        return done.stdout.decode().strip()

    @staticmethod
    def _history(commits):
        """A fast-import stream: every commit adds some files and changes others."""
        dice, parts, sizes = random.Random(1), [], {}
        for number in range(commits):
            message = f"commit {number}"
            parts.append(f"commit refs/heads/main\ncommitter odx <odx@localhost> "
                         f"{1600000000 + number * 60} +0000\ndata {len(message)}\n{message}\n"
                         .encode())
            names = {f"dir{dice.randrange(30)}/sub{dice.randrange(5)}/file{dice.randrange(40)}"
                     for _ in range(25)}
            for name in sorted(names):
                size = sizes[name] = dice.choice((0, 17, 900, 5000, 40000))
                data = dice.randbytes(size // 2).hex().encode()
                parts.append(f"M 100644 inline {name}\ndata {len(data)}\n".encode() + data + b"\n")
        return b"".join(parts)


class Sqlite:
    """A database of 100,000 rows in WAL mode, with readers beside the writer."""

    def __init__(self, folder, scratch, quick):
        del scratch
        os.mkdir(folder)
        self.rows = 10_000 if quick else 100_000
        path = os.path.join(folder, "test.db")
        database = sqlite3.connect(path, isolation_level=None, timeout=60)
        mode = database.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        expect_equal(mode, "wal", "the journal mode")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
        database.execute("CREATE INDEX t_name ON t (name)")
        wrong, done = [], threading.Event()
        readers = [threading.Thread(target=self._read, args=(path, done, wrong)) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            dice = random.Random(2)
            for first in range(0, self.rows, 500):
                database.execute("BEGIN IMMEDIATE")
                database.executemany("INSERT INTO t VALUES (?, ?, ?)",
                                     ((row, self.name(row), dice.randbytes(row % 300))
                                      for row in range(first, first + 500)))
                database.execute("COMMIT")
            database.execute("UPDATE t SET data = zeroblob(64) WHERE id % 10 = 3")
        finally:
            done.set()
            for reader in readers:
                reader.join()
        if wrong:
            raise Failure(f"a reader saw: {wrong[0]}")
        busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        expect_equal(busy, 0, "the checkpoint's busy flag")
        database.close()

    def verify(self, folder):
        path = os.path.join(folder, "test.db")
        answer = run(["sqlite3", path, "PRAGMA integrity_check; SELECT count(*) FROM t;"
                      "SELECT count(*) FROM t WHERE length(data) = 64 AND id % 10 = 3;"])
        expect_equal(answer.stdout.decode().split(), ["ok", str(self.rows), str(self.rows // 10)],
                     "integrity and counts")
        database = sqlite3.connect(path)
        for row, name in database.execute("SELECT id, name FROM t"):
            expect_equal(name, self.name(row), "a row")
        database.close()

    @staticmethod
    def name(row):
        return hashlib.md5(str(row).encode()).hexdigest()

    def _read(self, path, done, wrong):
        """Every snapshot holds whole transactions: rows come in five hundreds."""
        try:
            database = sqlite3.connect(path, isolation_level=None, timeout=60)
            while not done.is_set():
                count, highest = database.execute("SELECT count(*), max(id) FROM t").fetchone()
                expect(count % 500 == 0 and (count == 0 or highest == count - 1),
                       f"{count} rows, the highest {highest}")
            database.close()
        except (sqlite3.Error, Failure) as error:
            wrong.append(error)


class Tar:
    """Unpacks an archive of more than 10,000 of this machine's own files, links among them."""

    def __init__(self, folder, scratch, quick):
        self._scratch = scratch
        self._original = os.path.join(scratch, "original")
        self.archive = os.path.join(scratch, "tree.tar")
        self.files = self._collect(self._original, 1_500 if quick else 11_000)
        run(["tar", "-C", self._original, "-cf", self.archive, "."])
        os.mkdir(folder)
        run(["tar", "-C", folder, "-xpf", self.archive], timeout=900)

    def verify(self, folder):
        run(["diff", "-r", "--no-dereference", self._original, folder], timeout=900)
        # Modes, owners and times too, and link counts by the archive's own links.
        run(["tar", "-C", folder, "--compare", "-f", self.archive], timeout=900)
        found = sum(len(files) for _, _, files in os.walk(folder))
        expect_equal(found, self.files, "the number of files")

    @staticmethod
    def _collect(target, wanted):
        """Copies `wanted` small files of /usr to `target`, generating what /usr lacks."""
        os.mkdir(target)
        count, size = 0, 0
        for base in ("/usr/include", "/usr/share", "/usr/lib"):
            for path, folders, names in os.walk(base):
                folders.sort()
                for name in sorted(names):
                    source = os.path.join(path, name)
                    if count >= wanted * 9 // 10 or size > 300 * MIB:
                        break
                    if os.path.islink(source) or not os.path.isfile(source):
                        continue
                    if os.path.getsize(source) > MIB or not os.access(source, os.R_OK):
                        continue
                    copy = target + source
                    os.makedirs(os.path.dirname(copy), exist_ok=True)
                    shutil.copyfile(source, copy)
                    shutil.copystat(source, copy)
                    count, size = count + 1, size + os.path.getsize(copy)
        dice = random.Random(3)
        while count < wanted:
            folder = os.path.join(target, f"generated/{count % 37}/{count % 11}")
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, f"file-{count}")
            kind = count % 5
            if kind == 0:
                os.symlink(f"../nowhere-{count}", path)
            elif kind == 1 and count > 5:
                with open(path + ".first", "wb") as file:
                    file.write(dice.randbytes(100))
                os.link(path + ".first", path)
                count += 1
            else:
                with open(path, "wb") as file:
                    file.write(dice.randbytes(dice.randrange(20000)))
                os.chmod(path, dice.choice((0o600, 0o644, 0o755, 0o400)))
                os.utime(path, ns=(count * 10**9 + 1, count * 10**9 + 123456789))
            count += 1
        return count


class Fio:
    """Random writes whose blocks carry crc32c sums, by four ways of doing I/O."""

    ENGINES = (("buffered", "psync", 0), ("direct", "libaio", 1), ("mapped", "mmap", 0),
               ("ring", "io_uring", 1))

    def __init__(self, folder, scratch, quick):
        os.mkdir(folder)
        self._scratch = scratch
        self._size = "8m" if quick else "64m"
        for name, engine, direct in self.ENGINES:
            self._fio(folder, name, engine, direct)

    def verify(self, folder):
        for name, engine, direct in self.ENGINES:
            self._fio(folder, name, engine, direct, "--verify_only=1")

    def _fio(self, folder, name, engine, direct, *more):
        run(["fio", f"--name={name}", f"--directory={folder}", f"--ioengine={engine}",
             f"--direct={direct}", "--rw=randwrite", "--bsrange=4k-64k", "--ba=4k",
             f"--size={self._size}", "--numjobs=2", "--randrepeat=1", "--verify=crc32c",
             "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", "--fallocate=none",
             "--thread", "--end_fsync=1", "--output-format=terse", *more],
            timeout=600, cwd=self._scratch)


class Copies:
    """Big files copied by cp, copies of copies too, originals overwritten."""

    def __init__(self, folder, scratch, quick):
        os.mkdir(folder)
        size = (16 if quick else 192) * MIB
        source = os.path.join(scratch, "big")
        dice = random.Random(4)
        with open(source, "wb") as file:
            for _ in range(size // MIB):
                file.write(dice.randbytes(MIB))
            file.write(b"tail")
        self.sum = sha256(source)
        first = os.path.join(folder, "copy-0")
        run(["cp", source, first])
        for number in range(1, 6):
            run(["cp", os.path.join(folder, f"copy-{number - 1}"),
                 os.path.join(folder, f"copy-{number}")])
        with open(first, "r+b") as file:
            for _ in range(size // MIB // 4):
                file.seek(dice.randrange(size))
                file.write(dice.randbytes(70_000))
        self.changed = sha256(first)
        os.unlink(os.path.join(folder, "copy-2"))

    def verify(self, folder):
        for number in (1, 3, 4, 5):
            expect_equal(sha256(os.path.join(folder, f"copy-{number}")), self.sum, f"copy {number}")
        expect_equal(sha256(os.path.join(folder, "copy-0")), self.changed, "the overwritten one")


def sha256(path):
    sums = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(4 * MIB):
            sums.update(block)
    return sums.hexdigest()


def beside_each_other(classes, folder, scratch, quick):
    """Runs the workloads at the same time, each in a subfolder; returns {name: workload}."""
    made, wrong = {}, []

    def work(kind):
        own = os.path.join(scratch, kind.__name__)
        os.mkdir(own)
        try:
            place = os.path.join(folder, kind.__name__)
            made[kind.__name__] = kind(place, own, quick)
            made[kind.__name__].verify(place)
        except Exception as error:  # pylint: disable=broad-except
            wrong.append((kind.__name__, error))

    threads = [threading.Thread(target=work, args=(kind,)) for kind in classes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise Failure(f"{wrong[0][0]}: {wrong[0][1]}") from wrong[0][1]
    return made


def mounted(kind, seconds=600):
    """The body of a case: `kind` on a fresh mount, verified, and verified again after a remount."""
    from harness import case_main, say  # pylint: disable=import-outside-toplevel

    def body(case):
        scratch = case.place("scratch")
        os.mkdir(scratch)
        mount = case.mount(case.store())
        workload = kind(os.path.join(mount.path, "work"), scratch, case.quick)
        say("the work is done")
        workload.verify(os.path.join(mount.path, "work"))
        say("verified")
        mount = case.remount(mount)
        workload.verify(os.path.join(mount.path, "work"))
        say("verified after a remount")
        case.close(mount)

    case_main(body, seconds)


def by_hand():
    kinds = {kind.__name__.lower(): kind for kind in (Git, Sqlite, Tar, Fio, Copies)}
    if len(sys.argv) != 3 or sys.argv[1] not in kinds:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(kinds)} FOLDER")
    folder = tempfile.mkdtemp(dir=sys.argv[2])
    scratch = tempfile.mkdtemp()
    try:
        work = os.path.join(folder, "work")
        kinds[sys.argv[1]](work, scratch, bool(os.environ.get("ODX_QUICK"))).verify(work)
    except (Failure, subprocess.SubprocessError) as error:
        sys.exit(f"failed: {error}")
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(scratch)
    print("passed")


if __name__ == "__main__":
    by_hand()
