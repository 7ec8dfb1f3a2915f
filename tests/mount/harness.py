"""What every mount test shares: stores, mounts, bounded waits, and a guard that cleans up.

A case is a program `CASE.py BUILD_DIR [--quick]`. It makes its stores below one temporary directory,
mounts them with the daemon of that build, works on them, unmounts and has `odx check --data` look at
what is left. Exit status 0 is a pass and 77 a skip (only where the machine has no FUSE at all).

The guard is a process of its own that is told of every mount, daemon and directory. When the case
ends in any way, killed ones included, or runs out of time, the guard detaches the mounts, ends the
daemons that the case started (by pid and start time, so never another's) and removes the directory.
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback

SKIP = 77
MIB = 1 << 20
GIB = 1 << 30


class Failure(Exception):
    """The thing under test did not do what it should."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def expect_equal(got, wanted, what):
    if got != wanted:
        raise Failure(f"{what}: got {got!r}, wanted {wanted!r}")


@contextlib.contextmanager
def expect_errno(wanted, what):
    """The block must raise OSError with this errno (or one of several)."""
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    names = "/".join(os.strerror(number) for number in wanted)
    try:
        yield
    except OSError as error:
        if error.errno not in wanted:
            raise Failure(f"{what}: got {error}, wanted {names}") from error
    else:
        raise Failure(f"{what}: succeeded, wanted {names}")


def say(text):
    print(f"[{time.monotonic() - START:7.2f}] {text}", flush=True)


START = time.monotonic()


def wait_for(condition, what, timeout=180.0):
    """Polls until condition() is true and returns its value; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"timed out after {timeout:.0f} s waiting for {what}")
        time.sleep(0.01)


def start_time(pid):
    """The kernel's start time of a process, or None once it is gone (a zombie counts as gone)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def is_mounted(path):
    path = os.path.abspath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = line.split(" ", 5)[4]
            if point.encode("latin-1", "surrogateescape").decode("unicode_escape") == path:
                return True
    return False


_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2
_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | (1 << 18)


def own_mount_namespace():
    """What this case mounts, no other process on the machine holds: cases run side by side, and one
    that makes mount namespaces of its own would keep another's mounts, and their daemons, alive."""
    if os.geteuid() == 0 and _libc.unshare(_CLONE_NEWNS) == 0:
        _libc.mount(None, b"/", None, _MS_REC_PRIVATE, None)


def detach(path):
    """umount -l without asking the filesystem anything; a dead or hung mount goes away too."""
    if os.geteuid() == 0:
        _libc.umount2(os.fsencode(path), _MNT_DETACH)
    else:
        subprocess.run(["fusermount3", "-u", "-z", path], stderr=subprocess.DEVNULL, check=False)


class Guard:
    """The cleaning process; see the top of this file."""

    def __init__(self, seconds):
        read_end, self._pipe = os.pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.close(self._pipe)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            try:
                self._watch(read_end, parent, time.monotonic() + seconds)
            finally:
                os._exit(0)
        os.close(read_end)
        self._pid = pid

    def tell(self, *words):
        os.write(self._pipe, ("\0".join(words) + "\n").encode("utf-8", "surrogateescape"))

    def finish(self):
        os.close(self._pipe)
        os.waitpid(self._pid, 0)

    @staticmethod
    def _watch(pipe, parent, deadline):
        mounts, processes, folders, pending = set(), {}, set(), b""

        def clear():
            for path in mounts:
                if is_mounted(path):
                    detach(path)
            for pid, started in processes.items():
                if start_time(pid) == started:
                    os.kill(int(pid), signal.SIGKILL)

        late = 0
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                print(f"guard: out of time ({'mounts' if not late else 'case'} ended)", flush=True)
                clear()
                if late:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(parent, signal.SIGKILL)
                late, deadline = late + 1, time.monotonic() + 20
                continue
            data = os.read(pipe, 65536)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                words = line.decode("utf-8", "surrogateescape").split("\0")
                if words[0] == "mount":
                    mounts.add(words[1])
                elif words[0] == "unmounted":
                    mounts.discard(words[1])
                elif words[0] == "process":
                    processes[words[1]] = words[2]
                elif words[0] == "folder":
                    folders.add(words[1])
        clear()
        for folder in folders:
            if not any(path.startswith(folder + "/") and is_mounted(path) for path in mounts):
                shutil.rmtree(folder, ignore_errors=True)


_STAT_FIELDS = (
    "features file_bytes_max token_ttl_default_ms token_ttl_max_ms tokens_max tokens_max_per_user "
    "pinned_bytes_max pinned_bytes_max_per_user total_bytes free_bytes pending_bytes "
    "reclaim_pending tokens_live tokens_live_peak pinned_bytes pinned_bytes_peak tokens_created "
    "tokens_redeemed tokens_expired tokens_dropped offload_bytes offload_bytes_shared clone_calls "
    "clone_bytes_shared").split()
_STAT_WORK = (
    "requests device_bytes_read device_bytes_written journal_bytes_written journal_flushes "
    "checkpoints checksum_errors").split()
_STAT_LAYOUT = struct.Struct(f"<96x{len(_STAT_FIELDS)}Q64Q16Q{len(_STAT_WORK)}Q{32 * 8}x")
_STAT_BYTES = _STAT_LAYOUT.size
_STAT_IOCTL = (2 << 30) | (_STAT_BYTES << 16) | (ord("O") << 8) | 0x9B


class Mount:
    """One mounted store; `process` is the daemon, in the foreground, a child of the case."""

    def __init__(self, case, store, path, process, log):
        self.case, self.store, self.path, self.process, self.log = case, store, path, process, log

    @property
    def pid(self):
        return self.process.pid

    def statistics(self):
        """struct odx_stat of this mount, by its ioctl."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            raw = bytearray(_STAT_BYTES)
            fcntl.ioctl(descriptor, _STAT_IOCTL, raw, True)
        finally:
            os.close(descriptor)
        values = _STAT_LAYOUT.unpack(raw)
        fields = len(_STAT_FIELDS)
        answer = dict(zip(_STAT_FIELDS, values))
        answer.update(zip(_STAT_WORK, values[fields + 80:]))
        answer["refused"] = values[fields:fields + 64]
        answer["fallback_bytes"] = values[fields + 64:fields + 80]
        return answer

    def sync(self):
        """Everything done so far through this mount is durable on return."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unmount(self, how="odx"):
        """Unmounts as a person would, and the daemon must then end by itself with status 0."""
        command = {
            "odx": [self.case.odx, "unmount", self.path],
            "umount": ["umount", self.path],
            "fusermount3": ["fusermount3", "-u", self.path],
        }[how]
        run(command, timeout=120)
        expect(not is_mounted(self.path), f"{self.path} is still mounted after {command[0]}")
        self.case.guard.tell("unmounted", self.path)
        if how == "odx":
            expect(start_time(self.pid) is None, "odx unmount came back before the daemon was gone")
        self._ended(0)

    def unmount_failed_store(self):
        """odx unmount of a store that has failed: it and the daemon must say so by their status."""
        run([self.case.odx, "unmount", self.path], timeout=120, status=1)
        self.case.guard.tell("unmounted", self.path)
        self._ended(1)

    def kill(self):
        """kill -9 of the daemon, then umount -l: a crash."""
        expect(self.process.poll() is None, f"the daemon ended by itself: {self.tail()}")
        self.process.send_signal(signal.SIGKILL)
        self._ended(-signal.SIGKILL)
        run(["umount", "-l", self.path])
        self.case.guard.tell("unmounted", self.path)

    def alive(self):
        """The daemon must be running and answering."""
        expect(self.process.poll() is None, f"the daemon is gone: {self.tail()}")
        os.statvfs(self.path)

    def tail(self):
        with open(self.log, "rb") as file:
            return file.read()[-6000:].decode("utf-8", "replace")

    def _ended(self, status):
        try:
            code = self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            raise Failure("the daemon is still there 120 s after the unmount") from None
        text = self.tail()
        self.case.mounts.remove(self)
        expect(code == status, f"the daemon ended with {code}, wanted {status}:\n{text}")
        for word in ("Sanitizer", "runtime error:", "Assertion"):
            expect(word not in text, f"the daemon's log has '{word}':\n{text}")


class Case:
    """What a case works with. Everything made through it is taken down by the guard."""

    def __init__(self, build, quick, seconds):
        self.build = os.path.abspath(build)
        self.daemon = os.path.join(self.build, "fs/daemon/odxfs")
        self.mkfs = os.path.join(self.build, "fs/mkfs/mkfs.odxfs")
        self.odx = os.path.join(self.build, "fs/odx/odx")
        for program in (self.daemon, self.mkfs, self.odx):
            expect(os.access(program, os.X_OK), f"{program} is not built")
        self.quick = quick
        self.guard = Guard(seconds)
        self.folder = os.path.realpath(tempfile.mkdtemp(prefix="odxfs-test-"))
        os.chmod(self.folder, 0o755)
        self.guard.tell("folder", self.folder)
        self.mounts = []
        self._number = 0

    def place(self, name):
        """A new path below the temporary directory."""
        self._number += 1
        return os.path.join(self.folder, f"{self._number}-{name}")

    def store(self, size=8 * GIB, *options):
        path = self.place("store")
        run([self.mkfs, "--size", str(size), *options, path])
        return path

    def mount(self, store, *options):
        """Mounts `store` in the foreground and returns once the mount answers."""
        path = self.place("mnt")
        os.mkdir(path)
        log = self.place("daemon.log")
        words = list(options) + (["allow_other"] if os.geteuid() == 0 else [])
        command = [self.daemon, store, path, "-f"]
        if words:
            command += ["-o", ",".join(words)]
        with open(log, "wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=output, env=environment(), start_new_session=True)
        self.guard.tell("mount", path)
        self.guard.tell("process", str(process.pid), start_time(process.pid) or "")
        mount = Mount(self, store, path, process, log)

        def ready():
            if process.poll() is not None:
                raise Failure(f"the daemon ended with {process.returncode}:\n{mount.tail()}")
            return is_mounted(path)

        wait_for(ready, f"the mount of {store}", 120)
        os.statvfs(path)
        self.mounts.append(mount)
        return mount

    def remount(self, mount, *options, how="odx"):
        mount.unmount(how)
        return self.mount(mount.store, *options)

    def check(self, store):
        """odx check --data finds nothing wrong."""
        run([self.odx, "check", "--data", store], timeout=600)

    def close(self, mount, how="odx"):
        mount.unmount(how)
        self.check(mount.store)


def environment(**more):
    """The caller's, with sanitizers told to fail loudly, should the programs be built with them."""
    result = dict(os.environ, LC_ALL="C.UTF-8")
    result.setdefault("ASAN_OPTIONS", "exitcode=99:detect_stack_use_after_return=0")
    result.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1:exitcode=99")
    result.setdefault("TSAN_OPTIONS", "exitcode=99:second_deadlock_stack=1:history_size=4")
    result.update(more)
    return result


def sanitizer_runtime(library):
    """The runtime that a sanitized library wants loaded first, as LD_PRELOAD takes it, or None.

    Not for programs at large: most do not start with it."""
    with open(library, "rb") as file:
        names = re.findall(rb"lib[at]san\.so\.\d+", file.read())
    return names[0].decode() if names else None


def run(command, timeout=300, status=0, env=None, stdin=None, **more):
    """Runs a program to its end and returns its CompletedProcess; its text is shown if it fails.

    `status` is the exit status it must have, or None for any but death by a signal."""
    command = [str(word) for word in command]
    source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False,
                              env=env or environment(), **source, **more)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{' '.join(command)}: not done after {timeout} s") from error
    text = (done.stdout[-3000:] + b"\n" + done.stderr[-6000:]).decode("utf-8", "replace").strip()
    if done.returncode < 0 or done.returncode == 99:
        raise Failure(f"{' '.join(command)}: died ({done.returncode})\n{text}")
    if status is not None and done.returncode != status:
        raise Failure(f"{' '.join(command)}: exit status {done.returncode}, wanted {status}\n{text}")
    return done


NOBODY = 65534


def as_user(function, uid=NOBODY, gid=NOBODY, groups=()):
    """Runs function() in a child with these ids; a failure there is a failure here."""
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.geteuid() == 0:
                os.setgroups(list(groups))
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
            function()
            sys.stdout.flush()
            code = 0
        except BaseException:  # pylint: disable=broad-except
            os.write(write_end, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(code)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        text = pipe.read().decode()
    status = os.waitpid(pid, 0)[1]
    if status != 0:
        raise Failure(f"in a child of uid {uid if os.geteuid() == 0 else os.getuid()}: "
                      f"{text or status}")


def json_of(command, **more):
    return json.loads(run(command, **more).stdout)


def fuse_missing():
    """Why this machine can have no FUSE mount at all, or None."""
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    if os.geteuid() != 0:
        return None
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


def case_main(body, seconds=600):
    """Runs body(case) as a program."""
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip())
    parser.add_argument("build", help="the build directory")
    parser.add_argument("--quick", action="store_true",
                        default=os.environ.get("ODX_QUICK", "") not in ("", "0"),
                        help="smaller amounts, for slow (sanitizer) builds; also ODX_QUICK=1")
    arguments = parser.parse_args()
    missing = fuse_missing()
    if missing:
        print(f"SKIPPED, NOTHING WAS TESTED: {missing}", flush=True)
        sys.exit(SKIP)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)
    own_mount_namespace()
    case, code = None, 1
    try:
        case = Case(arguments.build, arguments.quick, seconds)
        body(case)
        expect(not case.mounts, "the case left a mount behind")
        say("passed")
        code = 0
    except Failure as failure:
        traceback.print_exc()
        print(f"FAILED: {failure}", flush=True)
    except Exception:  # pylint: disable=broad-except
        traceback.print_exc()
        print("FAILED", flush=True)
    finally:
        if case is not None:
            for mount in case.mounts:
                print(f"the daemon of {mount.path} said:\n{mount.tail()}", flush=True)
            os.chdir("/")
            case.guard.finish()
    sys.exit(code)
