"""Checks of names and directories; see posix_basics.py."""

import errno
import os
import socket
import stat
import threading

from harness import as_user, expect, expect_equal, expect_errno
from posix_lib import ROOT, check, link_descriptor, opened, read, renameat2, tick, write

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
O_TMPFILE = os.O_TMPFILE


@check
def create_and_exclusive(folder):
    path = folder + "/file"
    with expect_errno(errno.ENOENT, "open of a missing name"):
        os.open(path, os.O_RDWR)
    write(path, b"data")
    with expect_errno(errno.EEXIST, "O_EXCL on a file"):
        os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.symlink("nowhere", folder + "/dangling")
    with expect_errno(errno.EEXIST, "O_EXCL on a dangling link"):
        os.open(folder + "/dangling", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    with expect_errno(errno.ELOOP, "O_NOFOLLOW on a link"):
        os.open(folder + "/dangling", os.O_RDONLY | os.O_NOFOLLOW)
    with expect_errno(errno.ENOTDIR, "a file as a directory"):
        os.open(path + "/below", os.O_RDONLY)
    with expect_errno(errno.ENOTDIR, "O_DIRECTORY on a file"):
        os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    with expect_errno(errno.EISDIR, "a directory for writing"):
        os.open(folder, os.O_WRONLY)


@check
def exclusive_creation_has_one_winner(folder):
    for turn in range(50):
        winners = []

        def attempt(name, won):
            try:
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                won.append(1)
            except FileExistsError:
                pass

        threads = [threading.Thread(target=attempt, args=(f"{folder}/{turn}", winners))
                   for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect_equal(len(winners), 1, "winners of O_EXCL")


@check
def odd_and_long_names(folder):
    inside = os.fsencode(folder)
    names = [bytes([value]) for value in range(1, 256) if value not in b"/."]
    names += [b"n" * 255, b"...", b"new\nline", b"\xff\xfe", "ünïcode".encode(),
              b"trailing.", b"-rf", b"a" * 254 + b"\xc3"]
    for name in names:
        os.close(os.open(inside + b"/" + name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    expect_equal(sorted(os.listdir(inside)), sorted(names), "the names")
    for name in names:
        os.lstat(inside + b"/" + name)
    with expect_errno(errno.ENAMETOOLONG, "a name of 256 bytes"):
        os.mkdir(inside + b"/" + b"n" * 256)
    with expect_errno(errno.ENAMETOOLONG, "stat of a name of 256 bytes"):
        os.stat(inside + b"/" + b"n" * 256)
    os.rename(inside + b"/" + b"n" * 255, inside + b"/" + b"m" * 255)
    os.symlink(b"t" * 4095, inside + b"/link")
    expect_equal(os.readlink(inside + b"/link"), b"t" * 4095, "a link of 4095 bytes")
    expect_equal(os.lstat(inside + b"/link").st_size, 4095, "its size")


@check
def directories(folder):
    os.mkdir(folder + "/a", 0o750)
    expect_equal(stat.S_IMODE(os.stat(folder + "/a").st_mode), 0o750, "mkdir's mode")
    expect_equal(os.stat(folder + "/a").st_nlink, 2, "links of an empty directory")
    before = os.stat(folder)
    tick()
    os.mkdir(folder + "/a/b")
    os.mkdir(folder + "/a/c")
    write(folder + "/a/file")
    expect_equal(os.stat(folder + "/a").st_nlink, 4, "links of a directory with two")
    for name, number in (("/a", errno.ENOTEMPTY), ("/a/file", errno.ENOTDIR),
                         ("/none", errno.ENOENT), ("/a/b/.", errno.EINVAL)):
        with expect_errno(number, f"rmdir {name}"):
            os.rmdir(folder + name)
    with expect_errno(errno.EEXIST, "mkdir of what is there"):
        os.mkdir(folder + "/a")
    with expect_errno((errno.EISDIR, errno.EPERM), "unlink of a directory"):
        os.unlink(folder + "/a/b")
    os.rmdir(folder + "/a/b")
    expect_equal(os.stat(folder + "/a").st_nlink, 3, "links after rmdir")
    expect_equal(os.stat(folder + "/a/c/..").st_ino, os.stat(folder + "/a").st_ino, "..")
    write(folder + "/new")
    after = os.stat(folder)
    expect(after.st_mtime_ns > before.st_mtime_ns, "a new entry does not change the mtime")
    expect(after.st_ctime_ns > before.st_ctime_ns, "a new entry does not change the ctime")


@check
def hard_links(folder):
    first, second = folder + "/first", folder + "/second"
    write(first, b"one")
    before = os.stat(first).st_ctime_ns
    tick()
    os.link(first, second)
    expect_equal(os.stat(first).st_ino, os.stat(second).st_ino, "inode numbers")
    expect_equal(os.stat(first).st_nlink, 2, "link count")
    expect(os.stat(first).st_ctime_ns > before, "a link does not change the ctime")
    write(second, b"two")
    expect_equal(read(first), b"two", "content by the other name")
    with expect_errno(errno.EEXIST, "link over a name"):
        os.link(first, second)
    os.mkdir(folder + "/dir")
    with expect_errno(errno.EPERM, "link of a directory"):
        os.link(folder + "/dir", folder + "/dir2")
    os.unlink(first)
    expect_equal(os.stat(second).st_nlink, 1, "link count after unlink")
    for number in range(300):
        os.link(second, f"{folder}/link-{number}")
    expect_equal(os.stat(second).st_nlink, 301, "many links")
    os.symlink("second", folder + "/symbolic")
    os.link(folder + "/symbolic", folder + "/symbolic2", follow_symlinks=False)
    expect_equal(os.lstat(folder + "/symbolic").st_nlink, 2, "links of a symbolic link")


@check
def symbolic_links(folder):
    write(folder + "/target", b"content")
    os.symlink("target", folder + "/link")
    expect_equal(read(folder + "/link"), b"content", "through a link")
    expect_equal(os.lstat(folder + "/link").st_size, 6, "a link's size")
    expect(stat.S_ISLNK(os.lstat(folder + "/link").st_mode), "a link's type")
    os.symlink("loop", folder + "/loop")
    with expect_errno(errno.ELOOP, "a loop"):
        os.stat(folder + "/loop")
    with expect_errno(errno.EINVAL, "readlink of a file"):
        os.readlink(folder + "/target")
    os.utime(folder + "/link", ns=(5, 7), follow_symlinks=False)
    expect_equal(os.lstat(folder + "/link").st_mtime_ns, 7, "a link's mtime")
    expect(os.stat(folder + "/target").st_mtime_ns > 10**18, "the target's mtime changed")


@check
def rename_files(folder):
    a, b = folder + "/a", folder + "/b"
    write(a, b"a")
    write(b, b"b")
    number = os.stat(a).st_ino
    with opened(b) as old:
        os.rename(a, b)
        expect_equal((os.pread(old, 9, 0), os.fstat(old).st_nlink), (b"b", 0), "the replaced file")
    expect_equal((read(b), os.stat(b).st_ino), (b"a", number), "the renamed file")
    expect(not os.path.lexists(a), "the old name is still there")
    os.link(b, a)
    os.rename(a, b)  # two names of one file: nothing happens
    expect(os.path.exists(a) and os.path.exists(b), "rename of links removed one")
    with expect_errno(errno.ENOENT, "rename of nothing"):
        os.rename(folder + "/none", a)
    os.mkdir(folder + "/dir")
    with expect_errno(errno.EISDIR, "a file over a directory"):
        os.rename(a, folder + "/dir")
    with expect_errno(errno.ENOTDIR, "a directory over a file"):
        os.rename(folder + "/dir", a)
    os.rename(b, b)
    os.rename(b, folder + "/dir/b")
    expect_equal(read(folder + "/dir/b"), b"a", "a file moved to another directory")


@check
def rename_directories(folder):
    for name in ("/x/in/deep", "/y"):
        os.makedirs(folder + name)
    write(folder + "/x/in/deep/file", b"deep")
    with expect_errno(errno.EINVAL, "a directory into itself"):
        os.rename(folder + "/x", folder + "/x/in/x")
    with expect_errno(errno.ENOTEMPTY, "over a directory that is not empty"):
        os.rename(folder + "/y", folder + "/x")
    os.rename(folder + "/x/in", folder + "/y/in")
    expect_equal([os.stat(folder + name).st_nlink for name in ("/x", "/y")], [2, 3], "links")
    expect_equal(os.stat(folder + "/y/in/..").st_ino, os.stat(folder + "/y").st_ino, "..")
    expect_equal(read(folder + "/y/in/deep/file"), b"deep", "below the moved directory")
    os.rename(folder + "/y", folder + "/x")  # over an empty directory
    expect_equal(os.listdir(folder), ["x"], "what is left")


@check
def rename_flags(folder):
    a, b = folder + "/a", folder + "/dir/b"
    os.mkdir(folder + "/dir")
    write(a, b"a")
    renameat2(a, b, NOREPLACE)
    write(a, b"other")
    with expect_errno(errno.EEXIST, "NOREPLACE over a name"):
        renameat2(a, b, NOREPLACE)
    numbers = os.stat(a).st_ino, os.stat(b).st_ino
    renameat2(a, b, EXCHANGE)
    expect_equal((read(a), read(b)), (b"a", b"other"), "exchanged files")
    expect_equal((os.stat(b).st_ino, os.stat(a).st_ino), numbers, "exchanged inodes")
    os.makedirs(folder + "/tree/below")
    renameat2(a, folder + "/tree", EXCHANGE)  # a file and a directory
    expect_equal((os.listdir(a), read(folder + "/tree")), (["below"], b"a"), "exchanged kinds")
    renameat2(a + "/below", b, EXCHANGE)  # across directories
    expect_equal([os.stat(folder + name).st_nlink for name in ("/a", "/dir")], [2, 3], "links")
    expect_equal(os.stat(b + "/..").st_ino, os.stat(folder + "/dir").st_ino, ".. of the moved")
    with expect_errno(errno.ENOENT, "EXCHANGE with nothing"):
        renameat2(a, folder + "/none", EXCHANGE)
    with expect_errno(errno.EINVAL, "EXCHANGE and NOREPLACE"):
        renameat2(a, b, EXCHANGE | NOREPLACE)
    with expect_errno(errno.EINVAL, "EXCHANGE of a directory with its own descendant"):
        os.makedirs(folder + "/p/q")
        renameat2(folder + "/p", folder + "/p/q", EXCHANGE)
    if ROOT:
        with expect_errno(errno.EINVAL, "WHITEOUT"):
            renameat2(a, folder + "/w", WHITEOUT | EXCHANGE)


@check
def unlinked_but_open(folder):
    path = folder + "/file"
    write(path, b"x" * 100_000)
    with opened(path) as file:
        os.unlink(path)
        expect_equal(os.fstat(file).st_nlink, 0, "links of an unlinked file")
        os.pwrite(file, b"y" * 50_000, 100_000)
        expect_equal(os.pread(file, 200_000, 0), b"x" * 100_000 + b"y" * 50_000, "its content")
        os.ftruncate(file, 10)
        os.fchmod(file, 0o600)
        os.fsync(file)
        expect_equal(os.fstat(file).st_size, 10, "its size")
        write(path, b"another")
        expect_equal(os.pread(file, 99, 0), b"x" * 10, "beside a new file of that name")
    os.mkdir(folder + "/gone")
    with opened(folder + "/gone", os.O_RDONLY | os.O_DIRECTORY) as directory:
        os.rmdir(folder + "/gone")
        with expect_errno(errno.ENOENT, "creation in a removed directory"):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
        expect_equal(os.listdir(directory), [], "a removed directory")


@check
def unnamed_temporary_files(folder):
    try:
        file = os.open(folder, O_TMPFILE | os.O_RDWR, 0o640)
    except OSError as error:
        # Kernels and transports without the opcode say so in this one way.
        expect_equal(error.errno, errno.EOPNOTSUPP, "O_TMPFILE")
        return
    os.write(file, b"hidden")
    expect_equal(os.listdir(folder), [], "an unnamed file is listed")
    link_descriptor(file, folder + "/shown")
    expect_equal((read(folder + "/shown"), os.fstat(file).st_nlink), (b"hidden", 1), "linked")
    os.close(file)


@check
def listing_while_changing(folder):
    stay = {f"stay-{number}" for number in range(4000)}
    for name in stay:
        write(f"{folder}/{name}")
    for number in range(1000):
        write(f"{folder}/go-{number}")
    seen, number = [], 0
    with os.scandir(folder) as entries:
        for entry in entries:
            seen.append(entry.name)
            if number < 1000:
                os.unlink(f"{folder}/go-{number}")
                write(f"{folder}/come-{number}")
                number += 1
    kept = [name for name in seen if name.startswith("stay-")]
    expect_equal(len(kept), len(set(kept)), "entries seen twice")
    expect_equal(set(kept), stay, "entries that were there all the time")
    with os.scandir(folder) as entries:
        for entry in entries:
            expect(entry.is_file(follow_symlinks=False), "an entry's type")
            expect_equal(entry.inode(), os.stat(entry.path).st_ino, "an entry's inode number")
            os.unlink(entry.path)
    expect_equal(os.listdir(folder), [], "what is left after unlinking while listing")


@check
def special_files(folder):
    os.mkfifo(folder + "/fifo", 0o640)
    expect(stat.S_ISFIFO(os.stat(folder + "/fifo").st_mode), "a fifo's type")
    got = []
    reader = threading.Thread(target=lambda: got.append(read(folder + "/fifo")))
    reader.start()
    write(folder + "/fifo", b"through")
    reader.join()
    expect_equal(got, [b"through"], "what came through the fifo")
    here = os.getcwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("socket")
            server.listen()
            client.connect("socket")
    finally:
        os.chdir(here)
    expect(stat.S_ISSOCK(os.stat(folder + "/socket").st_mode), "a socket's type")
    if ROOT:
        os.mknod(folder + "/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(folder + "/block", 0o600 | stat.S_IFBLK, os.makedev(300, 70000))
        expect_equal(os.stat(folder + "/null").st_rdev, os.makedev(1, 3), "a device number")
        expect_equal(os.stat(folder + "/block").st_rdev, os.makedev(300, 70000), "a big one")

        def refused():
            with expect_errno((errno.EPERM, errno.EACCES), "mknod of a device by a user"):
                os.mknod(folder + "/mine", 0o666 | stat.S_IFCHR, os.makedev(1, 3))

        os.chmod(folder, 0o777)
        as_user(refused)
