"""Checks of attributes, permissions and extended attributes; see posix_basics.py."""

import errno
import mmap
import os
import stat
import threading

from harness import NOBODY, as_user, expect, expect_equal, expect_errno
from posix_lib import ROOT, acl, check, opened, read, tick, write


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@check
def times(folder):
    path = folder + "/file"
    write(path)
    for value in (0, 1, 123456789, 10**18 + 987654321, 2**31 * 10**9 + 5, 2**33 * 10**9 + 999999999,
                  -1, -10**9 - 1):
        os.utime(path, ns=(value, value + 1))
        status = os.stat(path)
        expect_equal((status.st_atime_ns, status.st_mtime_ns), (value, value + 1), "utime")
    before = os.stat(path).st_ctime_ns
    os.utime(path)
    status = os.stat(path)
    expect(status.st_mtime_ns > 10**18 and status.st_ctime_ns >= before, "utime to now")
    os.utime(path, ns=(1, 1))
    with opened(path) as file:
        os.write(file, b"x")
        os.fsync(file)
    expect(os.stat(path).st_mtime_ns > 10**18, "a write does not change the mtime")
    os.utime(path, ns=(1, 1))
    os.truncate(path, 0)
    expect(os.stat(path).st_mtime_ns > 10**18, "a truncation does not change the mtime")
    before = os.stat(path)
    tick()
    os.chmod(path, 0o600)
    os.rename(path, path + "2")
    after = os.stat(path + "2")
    expect(after.st_ctime_ns > before.st_ctime_ns, "chmod and rename do not change the ctime")
    expect_equal(after.st_mtime_ns, before.st_mtime_ns, "mtime after chmod and rename")


@check
def modes(folder):
    path = folder + "/file"
    write(path)
    wanted = range(0, 0o10000, 73) if ROOT else range(0, 0o1000, 7)
    for mode in wanted:
        os.chmod(path, mode)
        expect_equal(mode_of(path), mode, "chmod")
    old = os.umask(0o027)
    try:
        with opened(folder + "/masked", os.O_CREAT | os.O_WRONLY, 0o666):
            pass
        os.mkdir(folder + "/dir", 0o777)
    finally:
        os.umask(old)
    expect_equal((mode_of(folder + "/masked"), mode_of(folder + "/dir")), (0o640, 0o750), "umask")
    with opened(folder + "/readonly", os.O_CREAT | os.O_WRONLY, 0o444) as file:
        os.write(file, b"by its creator")
    expect_equal(read(folder + "/readonly"), b"by its creator", "a new read-only file")


@check
def extended_attributes(folder):
    path = folder + "/file"
    write(path)
    expect_equal(os.listxattr(path), [], "xattrs of a new file")
    with expect_errno(errno.ENODATA, "a missing xattr"):
        os.getxattr(path, "user.none")
    values = {"user.empty": b"", "user.small": b"value", "user.binary": bytes(range(256)),
              "user." + "n" * 250: b"long name", "user.big": b"B" * 60_000}
    for name, value in values.items():
        os.setxattr(path, name, value)
    expect_equal({name: os.getxattr(path, name) for name in os.listxattr(path)}, values, "xattrs")
    with expect_errno(errno.EEXIST, "XATTR_CREATE of what is there"):
        os.setxattr(path, "user.small", b"x", os.XATTR_CREATE)
    with expect_errno(errno.ENODATA, "XATTR_REPLACE of what is not"):
        os.setxattr(path, "user.none", b"x", os.XATTR_REPLACE)
    with expect_errno((errno.E2BIG, errno.ENOSPC), "a value of 65537 bytes"):
        os.setxattr(path, "user.huge", bytes(65_537))
    for name in ("nonsense", "other.name", "user.", "system.unknown"):
        with expect_errno((errno.EOPNOTSUPP, errno.EINVAL), f"an xattr {name}"):
            os.setxattr(path, name, b"x")
    with expect_errno(errno.ERANGE, "a name of 256 bytes"):
        os.setxattr(path, "user." + "n" * 251, b"x")
    os.setxattr(path, "user.small", b"replaced", os.XATTR_REPLACE)
    expect_equal(os.getxattr(path, "user.small"), b"replaced", "a replaced value")
    os.removexattr(path, "user.big")
    with expect_errno(errno.ENODATA, "a removed xattr"):
        os.removexattr(path, "user.big")
    os.setxattr(folder, "user.of-a-directory", b"yes")
    for number in range(100):
        os.setxattr(folder, f"user.{number}", str(number).encode() * number)
    expect_equal(len(os.listxattr(folder)), 101, "many xattrs")
    before = os.stat(path).st_ctime_ns
    tick()
    os.setxattr(path, "user.small", b"again")
    expect(os.stat(path).st_ctime_ns > before, "setxattr does not change the ctime")
    os.symlink("file", folder + "/link")
    with expect_errno(errno.EPERM, "user xattr of a symbolic link"):
        os.setxattr(folder + "/link", "user.x", b"x", follow_symlinks=False)
    if ROOT:
        os.setxattr(path, "trusted.odx", b"root only")
        os.setxattr(folder + "/link", "trusted.link", b"l", follow_symlinks=False)
        expect_equal(os.listxattr(folder + "/link", follow_symlinks=False), ["trusted.link"],
                     "xattrs of a link")
        os.chmod(path, 0o644)

        def foreign():
            expect_equal(os.getxattr(path, "user.small"), b"again", "another user's xattr")
            with expect_errno((errno.EACCES, errno.EPERM), "writing another user's xattr"):
                os.setxattr(path, "user.small", b"x")
            with expect_errno((errno.ENODATA, errno.EPERM), "trusted by a user"):
                os.getxattr(path, "trusted.odx")

        as_user(foreign)


@check
def access_control_lists(folder):
    if not ROOT:
        return
    path, name = folder + "/file", "system.posix_acl_access"
    write(path, b"secret", 0o600)
    user_obj, user, group_obj, mask, other = 1, 2, 4, 0x10, 0x20
    nobody_reads = acl((user_obj, 6, 0xFFFFFFFF), (user, 4, NOBODY), (group_obj, 0, 0xFFFFFFFF),
                       (mask, 4, 0xFFFFFFFF), (other, 0, 0xFFFFFFFF))

    def refused():
        with expect_errno(errno.EACCES, "without the ACL entry"):
            read(path)

    as_user(refused)
    try:
        os.setxattr(path, name, nobody_reads)
    except OSError as error:
        # Without ACL support the mount must say so, and not store what it will not enforce.
        expect_equal(error.errno, errno.EOPNOTSUPP, "setting an ACL")
        return
    expect_equal(mode_of(path), 0o640, "the mode shows the mask")
    as_user(lambda: expect_equal(read(path), b"secret", "by the ACL entry"))
    as_user(refused, 12345, 12345)
    os.removexattr(path, name)
    as_user(refused)
    os.mkdir(folder + "/dir")
    os.setxattr(folder + "/dir", "system.posix_acl_default", nobody_reads)
    write(folder + "/dir/inherits", b"x", 0o666)
    expect(name in os.listxattr(folder + "/dir/inherits"), "a default ACL is not inherited")


@check
def ownership(folder):
    if not ROOT:
        return
    path = folder + "/file"
    write(path, b"#!", 0o755)
    os.chown(path, 1234, 4294967294)
    expect_equal((os.stat(path).st_uid, os.stat(path).st_gid), (1234, 4294967294), "chown")
    os.chown(path, -1, 77)
    expect_equal((os.stat(path).st_uid, os.stat(path).st_gid), (1234, 77), "chown of the group")
    os.chmod(path, 0o6755)
    os.chown(path, 0, 0)
    expect_equal(mode_of(path), 0o755, "set-id bits after chown")
    os.symlink("file", folder + "/link")
    os.chown(folder + "/link", 5, 6, follow_symlinks=False)
    expect_equal((os.lstat(folder + "/link").st_uid, os.stat(path).st_uid), (5, 0), "lchown")
    os.mkdir(folder + "/shared")
    os.chown(folder + "/shared", NOBODY, 55)
    os.chmod(folder + "/shared", 0o2777)
    os.mkdir(folder + "/shared/below")
    write(folder + "/shared/new")
    below = os.stat(folder + "/shared/below")
    expect_equal((below.st_gid, stat.S_IMODE(below.st_mode) & 0o2000), (55, 0o2000), "set-gid mkdir")
    expect_equal(os.stat(folder + "/shared/new").st_gid, 55, "a file in a set-gid directory")

    def stranger():
        for operation in (lambda: os.chown(path, NOBODY, -1), lambda: os.chmod(path, 0o777),
                          lambda: os.utime(path, ns=(1, 1))):
            with expect_errno(errno.EPERM, "changing another user's file"):
                operation()
        write(folder + "/shared/mine")
        status = os.stat(folder + "/shared/mine")
        expect_equal((status.st_uid, status.st_gid), (NOBODY, 55), "a stranger's new file")
        with expect_errno(errno.EPERM, "giving a file away"):
            os.chown(folder + "/shared/mine", 0, -1)
        os.chmod(folder + "/shared/mine", 0o2775)  # not in group 55: the bit must go
        expect_equal(mode_of(folder + "/shared/mine"), 0o775, "set-gid by a stranger")

    as_user(stranger)


@check
def set_id_bits_and_writes(folder):
    if not ROOT:
        return
    os.chmod(folder, 0o777)
    for number, change in enumerate((lambda file: os.write(file, b"x"),
                                     lambda file: os.ftruncate(file, 1),
                                     lambda file: os.pwrite(file, b"y", 100_000))):
        path = f"{folder}/program-{number}"
        write(path, b"program", 0o777)
        os.chmod(path, 0o6777)

        def modify(path=path, change=change):
            with opened(path) as file:
                change(file)
                os.fsync(file)

        as_user(modify)
        expect_equal(mode_of(path), 0o777, f"set-id bits after a stranger's change {number}")
        os.chmod(path, 0o6777)
        with opened(path) as file:
            os.write(file, b"root")
        expect_equal(mode_of(path), 0o6777, "set-id bits after root's write")


@check
def permissions(folder):
    if not ROOT:
        return
    write(folder + "/secret", b"s", 0o600)
    write(folder + "/public", b"p", 0o644)
    write(folder + "/group", b"g", 0o640)
    os.chown(folder + "/group", 0, 4242)
    os.mkdir(folder + "/closed", 0o700)
    write(folder + "/closed/file", b"c", 0o666)
    os.mkdir(folder + "/listable", 0o744)
    write(folder + "/listable/file", b"l", 0o666)
    os.mkdir(folder + "/sticky")
    os.chmod(folder + "/sticky", 0o1777)
    write(folder + "/sticky/roots", b"r", 0o666)

    def stranger():
        expect_equal(read(folder + "/public"), b"p", "a public file")
        for name in ("secret", "group", "closed/file", "listable/file"):
            with expect_errno(errno.EACCES, f"reading {name}"):
                read(f"{folder}/{name}")
        with expect_errno(errno.EACCES, "writing a public file"):
            os.open(folder + "/public", os.O_WRONLY)
        with expect_errno(errno.EACCES, "creating where one may not"):
            write(folder + "/new")
        with expect_errno(errno.EACCES, "unlinking where one may not"):
            os.unlink(folder + "/public")
        expect_equal(os.listdir(folder + "/listable"), ["file"], "a directory without x")
        with expect_errno((errno.EPERM, errno.EACCES), "unlinking in a sticky directory"):
            os.unlink(folder + "/sticky/roots")
        with expect_errno((errno.EPERM, errno.EACCES), "renaming in a sticky directory"):
            os.rename(folder + "/sticky/roots", folder + "/sticky/mine")
        write(folder + "/sticky/own", b"o")
        os.unlink(folder + "/sticky/own")
        expect(not os.access(folder + "/secret", os.R_OK), "access(2)")

    as_user(stranger)
    as_user(lambda: expect_equal(read(folder + "/group"), b"g", "by a supplementary group"),
            groups=(4242,))


@check
def times_beside_flushes(folder):
    """What stat tells of a file is what is stored, however its times and its data are written back.

    Compared after the remount, as everything is; writes to set-id files go around the cache."""
    stop = threading.Event()

    def flush():
        while not stop.is_set():
            os.sync()

    flusher = threading.Thread(target=flush)
    flusher.start()
    try:
        for number in range(300):
            path = f"{folder}/file-{number}"
            write(path, b"before", 0o755)
            os.chmod(path, 0o6755)
            with opened(path) as file:
                os.write(file, b"behind the cache")
    finally:
        stop.set()
        flusher.join()


@check
def times_of_direct_writes(folder):
    path = folder + "/file"
    write(path, bytes(8192))
    os.utime(path, ns=(10**18, 10**18))
    with opened(path, os.O_RDWR | os.O_DIRECT) as file, mmap.mmap(-1, 4096) as page:
        os.pwrite(file, page, 4096)
    expect(os.stat(path).st_mtime_ns > 10**18, "the time of a direct write")
