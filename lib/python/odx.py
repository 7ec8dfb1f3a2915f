"""The offload controls of odxfs: a token names a range of a file as it is now.

    with open("/mnt/disk.img", "rb") as source, open("/mnt/copy.img", "r+b") as target:
        token = odx.offload_read(source).token
        odx.offload_write(target, token, length=odx.size(source))

    report = odx.copy("/mnt/disk.img", "/mnt/other.img")
    print(report.bytes_shared, report.why)

Files are given as open files or descriptors. Errors are OSErrors of the kind OffloadError, which also
carries the NTSTATUS and the reason. Everything goes through libodx (ODX_LIBRARY in the environment
names another one than the system's). Functions may be called from any thread.
"""

import collections
import ctypes
import enum
import errno
import os
import time

__all__ = [
    "OffloadError", "Reason", "Token", "Read", "Written", "Report", "Range", "TokenInfo", "ZERO_TOKEN",
    "offload_read", "offload_write", "zero", "copy", "copy_descriptors", "statistics", "tokens", "drop",
    "size", "Size", "store_size", "resize", "scrub_start", "scrub_pause", "scrub_cancel",
    "scrub_status", "check_start", "check_cancel", "check_status", "check",
]

TOKEN_BYTES = 512
TOKEN_SYNC = 1
_ALL_ZERO_BEYOND = 1
_REQUIRE_OFFLOAD, _NO_OFFLOAD = 1, 2
_UNIT = 4096  # a multiple of every sector
_NO_LIMIT = 2**64 - 1

_u8, _u32, _i32, _u64, _i64 = (ctypes.c_uint8, ctypes.c_uint32, ctypes.c_int32, ctypes.c_uint64,
                               ctypes.c_int64)


class Reason(enum.IntEnum):
    """Why a control answered as it did (enum odx_reason)."""
    NONE = 0
    INPUT_TOO_SMALL = 1
    OUTPUT_TOO_SMALL = 2
    UNKNOWN_OPTION = 3
    FILE_OFFSET_ALIGNMENT = 4
    COPY_LENGTH_ALIGNMENT = 5
    TRANSFER_OFFSET_ALIGNMENT = 6
    STRUCTURE_SIZE = 7
    RANGE_WRAPS = 8
    ZERO_LENGTH = 9
    NOT_A_FILE = 10
    OFFSET_NEGATIVE = 11
    FILE_TOO_BIG = 12
    LOCKED = 13
    END_OF_FILE = 14
    ACCESS_MODE = 15
    READ_ONLY = 16
    TOKEN_MALFORMED = 17
    TOKEN_UNKNOWN = 18
    TOKEN_EXPIRED = 19
    TOKEN_FOREIGN = 20
    TOKEN_RESERVED_TYPE = 21
    TOKEN_OTHER_USER = 22
    TRANSFER_OFFSET_RANGE = 23
    TOKEN_LIMIT = 24
    NO_SPACE = 25
    NO_MEMORY = 26
    IO_ERROR = 27
    SHORT = 28
    DISABLED = 29


class OffloadError(OSError):
    """A control failed: errno, and besides it `status` (NTSTATUS) and `reason`."""

    def __init__(self, number, status, reason, text):
        super().__init__(number, text)
        self.status, self.reason = status, reason


class _Result(ctypes.Structure):
    _fields_ = [("status", _u32), ("reason", _u32), ("bytes_shared", _u64)]


class _Stat(ctypes.Structure):
    _fields_ = [
        ("size", _u32), ("version", _u32), ("uuid", _u8 * 16), ("label", ctypes.c_char * 32),
        ("program", ctypes.c_char * 32), ("sector_bytes", _u32), ("block_bytes", _u32),
        ("features", _u64), ("file_bytes_max", _u64), ("token_ttl_default_ms", _u64),
        ("token_ttl_max_ms", _u64), ("tokens_max", _u64), ("tokens_max_per_user", _u64),
        ("pinned_bytes_max", _u64), ("pinned_bytes_max_per_user", _u64), ("total_bytes", _u64),
        ("free_bytes", _u64), ("pending_bytes", _u64), ("reclaim_pending", _u64),
        ("tokens_live", _u64), ("tokens_live_peak", _u64), ("pinned_bytes", _u64),
        ("pinned_bytes_peak", _u64), ("tokens_created", _u64), ("tokens_redeemed", _u64),
        ("tokens_expired", _u64), ("tokens_dropped", _u64), ("offload_bytes", _u64),
        ("offload_bytes_shared", _u64), ("clone_calls", _u64), ("clone_bytes_shared", _u64),
        ("refused", _u64 * 64), ("fallback_bytes", _u64 * 16), ("requests", _u64),
        ("device_bytes_read", _u64), ("device_bytes_written", _u64),
        ("journal_bytes_written", _u64), ("journal_flushes", _u64), ("checkpoints", _u64),
        ("checksum_errors", _u64), ("reserved", _u64 * 32)]


class _TokenInfo(ctypes.Structure):
    _fields_ = [("id", _u8 * 16), ("uid", _u32), ("reserved", _u32), ("length", _u64),
                ("data_bytes", _u64), ("created_ns", _i64), ("expires_ns", _i64)]


class _TokenList(ctypes.Structure):
    _fields_ = [("after", _u8 * 16), ("count", _u32), ("reserved", _u32), ("tokens", _TokenInfo * 16)]


_TEXT_BYTES = 3840


class _Scrub(ctypes.Structure):
    _fields_ = [
        ("operation", _u32), ("state", _u32), ("rate", _u64), ("pass", _u64), ("started_ns", _i64),
        ("changed_ns", _i64), ("active_ns", _u64), ("done_bytes", _u64), ("total_bytes", _u64),
        ("position", _u64), ("saved_position", _u64), ("damaged_blocks", _u64),
        ("damaged_owners", _u64), ("suspects", _u64), ("error", _i32), ("text_bytes", _u32),
        ("text_from", _u64), ("text_total", _u64), ("reserved", _u64 * 16),
        ("text", _u8 * _TEXT_BYTES)]


class _Check(ctypes.Structure):
    _fields_ = [
        ("operation", _u32), ("flags", _u32), ("job", _u64), ("state", _u32), ("error", _i32),
        ("phase", ctypes.c_char * 32), ("phase_done", _u64), ("phase_total", _u64),
        ("problems", _u64), ("inodes", _u64), ("directories", _u64), ("entries", _u64),
        ("xattrs", _u64), ("orphans", _u64), ("tokens", _u64), ("nodes", _u64), ("queued", _u64),
        ("extents", _u64), ("blocks", _u64), ("used_blocks", _u64), ("data_bytes", _u64),
        ("verified_blocks", _u64), ("text_bytes", _u32), ("reserved0", _u32), ("text_from", _u64),
        ("text_total", _u64), ("reserved", _u64 * 6), ("text", _u8 * _TEXT_BYTES)]


class _Resize(ctypes.Structure):
    _fields_ = [("limit", _u64), ("limit_before", _u64), ("exists", _u64), ("exists_before", _u64),
                ("least", _u64), ("reserved", _u64 * 3)]


class _Range(ctypes.Structure):
    _fields_ = [("offset", _u64), ("length", _u64), ("bytes_shared", _u64), ("way", _u32),
                ("note", _u32)]


class _Report(ctypes.Structure):
    _fields_ = [("bytes_total", _u64), ("bytes_offloaded", _u64), ("bytes_shared", _u64),
                ("bytes_cloned", _u64), ("bytes_copied", _u64), ("bytes_skipped", _u64),
                ("tokens", _u32), ("note", _u32), ("status", _u32), ("reason", _u32),
                ("error", _i32), ("reserved0", _u32), ("reserved", _u64 * 8)]


_Progress = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Report), ctypes.POINTER(_Range),
                             ctypes.c_void_p)


class _Options(ctypes.Structure):
    _fields_ = [("flags", _u32), ("ttl_ms", _u32), ("threshold", _u64), ("step", _u64),
                ("progress", _Progress), ("context", ctypes.c_void_p), ("reserved", _u64 * 8)]


def _load():
    library = ctypes.CDLL(os.environ.get("ODX_LIBRARY", "libodx.so.0"), use_errno=True)
    fd, token = ctypes.c_int, ctypes.c_char * TOKEN_BYTES
    signatures = {
        "odx_offload_read": (fd, _u64, _u64, _u32, _u64, ctypes.POINTER(token), ctypes.POINTER(_u64),
                             ctypes.POINTER(_u32), ctypes.POINTER(_Result)),
        "odx_offload_write": (fd, _u64, _u64, ctypes.POINTER(token), _u64, ctypes.POINTER(_u64),
                              ctypes.POINTER(_Result)),
        "odx_statistics": (fd, ctypes.POINTER(_Stat)),
        "odx_list_tokens": (fd, ctypes.POINTER(_TokenList)),
        "odx_drop_token": (fd, _u8 * 16),
        "odx_resize_store": (fd, ctypes.POINTER(_Resize)),
        "odx_token_id": (ctypes.POINTER(token), _u8 * 16),
        "odx_scrub_control": (fd, ctypes.POINTER(_Scrub)),
        "odx_check_control": (fd, ctypes.POINTER(_Check)),
        "odx_copy": (fd, fd, ctypes.POINTER(_Options), ctypes.POINTER(_Report)),
    }
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_int, arguments
    for name in ("odx_reason_name", "odx_reason_text", "odx_copy_note_name", "odx_copy_note_text"):
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_char_p, (_u32,)
    return library


_library = _load()


def _descriptor(file):
    if isinstance(file, int):
        return file
    file.flush()  # what the program wrote belongs to the file
    return file.fileno()


def _check(error, result=None):
    if error == 0:
        return
    number = -error
    if result is not None and result.reason:
        text = _library.odx_reason_text(result.reason).decode()
    else:
        text = os.strerror(number)
    raise OffloadError(number, result.status if result is not None else 0,
                       Reason(result.reason) if result is not None else Reason.NONE, text)


class Token(bytes):
    """The 512 bytes of a token: a secret, as good as the data that it names."""

    def __new__(cls, data):
        if len(data) != TOKEN_BYTES:
            raise ValueError(f"a token has {TOKEN_BYTES} bytes, not {len(data)}")
        return super().__new__(cls, data)

    @property
    def id(self):
        """The 16 bytes that tokens() and drop() know it by; None for the zero token."""
        found = (_u8 * 16)()
        error = _library.odx_token_id(_raw(self), found)
        return bytes(found) if error == 0 else None

    def __repr__(self):
        return f"<Token {self.id.hex() if self.id else 'of zeros'}>"


def _raw(token):
    return (ctypes.c_char * TOKEN_BYTES).from_buffer_copy(token)


ZERO_TOKEN = Token(bytes.fromhex("ffff0001000001f8") + bytes(504))

# What an offload read answers: the token, the bytes that it stands for, and whether nothing but
# zeros follows them in the file.
Read = collections.namedtuple("Read", "token length zeros_beyond")
# What an offload write answers.
Written = collections.namedtuple("Written", "length shared")
# How far a store may grow and how much of it exists, in bytes, before and after; the last is the least
# limit that would be taken now.
Size = collections.namedtuple("Size", "limit limit_before exists exists_before least")
TokenInfo = collections.namedtuple("TokenInfo", "id uid length data_bytes created_ns expires_ns")
# One step of a copy; `way` is "token", "zeros", "clone", "copy" or "hole".
Range = collections.namedtuple("Range", "offset length shared way")
# A copy; `why` is None if all of it was offloaded, else the reason why not.
Report = collections.namedtuple(
    "Report", "bytes_total bytes_offloaded bytes_shared bytes_cloned bytes_copied bytes_skipped "
    "tokens why ranges")

_WAYS = {1: "token", 2: "zeros", 3: "clone", 4: "copy", 5: "hole"}


def size(file):
    return os.fstat(_descriptor(file)).st_size


def offload_read(file, offset=0, length=None, ttl_ms=0, sync=False):
    """Takes a token for `length` bytes from `offset` on (None: the rest of the file).

    Both are multiples of the sector, or the range ends at the end of the file. The token may stand for
    less than was asked. With `sync` it survives a crash."""
    descriptor = _descriptor(file)
    if length is None:
        length = max(_UNIT, -(-(size(descriptor) - offset) // _UNIT) * _UNIT)
    token, span, flags, result = (ctypes.c_char * TOKEN_BYTES)(), _u64(), _u32(), _Result()
    _check(_library.odx_offload_read(descriptor, offset, length, ttl_ms, TOKEN_SYNC if sync else 0,
                                     token, span, flags, result), result)
    return Read(Token(token.raw), span.value, bool(flags.value & _ALL_ZERO_BEYOND))


def offload_write(file, token, offset=0, length=0, transfer_offset=0):
    """Writes `length` bytes of what `token` stands for to `offset`: one call, which may do less."""
    written, result = _u64(), _Result()
    _check(_library.odx_offload_write(_descriptor(file), offset, length, _raw(token), transfer_offset,
                                      written, result), result)
    return Written(written.value, result.bytes_shared)


def zero(file, offset, length):
    """Makes a range zeros, without writing any."""
    return offload_write(file, ZERO_TOKEN, offset, length)


def copy_descriptors(source, destination, *, require_offload=False, no_offload=False, ttl_ms=0,
                     threshold=0, step=0, progress=None):
    """Makes `destination` hold what `source` holds: by tokens as far as possible.

    `progress` is called with every Range; an exception in it ends the copy and is raised."""
    ranges, raised = [], []

    def told(_report, step_done, _context):
        one = step_done.contents
        try:
            ranges.append(Range(one.offset, one.length, one.bytes_shared, _WAYS.get(one.way, "?")))
            if progress is not None:
                progress(ranges[-1])
            return 0
        except BaseException as error:  # pylint: disable=broad-except
            raised.append(error)
            return 1

    options, report = _Options(), _Report()
    options.flags = (_REQUIRE_OFFLOAD if require_offload else 0) | (_NO_OFFLOAD if no_offload else 0)
    options.ttl_ms, options.threshold, options.step = ttl_ms, threshold, step
    options.progress = _Progress(told)
    error = _library.odx_copy(_descriptor(source), _descriptor(destination), options, report)
    if raised:
        raise raised[0]
    if error:
        why = (_library.odx_reason_text(report.reason) if report.reason
               else _library.odx_copy_note_text(report.note) if report.note else b"").decode()
        raise OffloadError(-error, report.status, Reason(report.reason), why or os.strerror(-error))
    why = None
    if report.note:
        why = _library.odx_copy_note_text(report.note).decode()
        if report.reason:
            why += ": " + _library.odx_reason_text(report.reason).decode()
    return Report(report.bytes_total, report.bytes_offloaded, report.bytes_shared,
                  report.bytes_cloned, report.bytes_copied, report.bytes_skipped, report.tokens, why,
                  ranges)


def copy(source, destination, **options):
    """copy_descriptors() for paths; the destination is made if there is none."""
    with open(source, "rb", buffering=0) as from_file:
        mode = os.fstat(from_file.fileno()).st_mode & 0o777
        to = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            return copy_descriptors(from_file.fileno(), to, **options)
        finally:
            os.close(to)


def _by_name(counts, name):
    return {name(index).decode().lower(): count for index, count in enumerate(counts) if count}


def statistics(path):
    """What the odxfs that `path` is on is, allows and has done, as a dictionary; no limit is None.

    OffloadError with ENOTTY if it is on none."""
    answer = _Stat()
    with _opened(path) as descriptor:
        _check(_library.odx_statistics(descriptor, answer))
    out = {}
    for name, _ in _Stat._fields_[2:-1]:
        value = getattr(answer, name)
        out[name] = (bytes(value) if name == "uuid" else
                     value.decode("utf-8", "replace") if isinstance(value, bytes) else
                     None if value == _NO_LIMIT else value)
    out["refused"] = _by_name(answer.refused, _library.odx_reason_name)
    out["fallback_bytes"] = _by_name(answer.fallback_bytes, _library.odx_copy_note_name)
    return out


def tokens(path):
    """The live tokens of the odxfs that `path` is on: the caller's own, or all for root."""
    page = _TokenList()
    with _opened(path) as descriptor:
        while True:
            _check(_library.odx_list_tokens(descriptor, page))
            if page.count == 0:
                return
            for info in page.tokens[:page.count]:
                yield TokenInfo(bytes(info.id), info.uid, info.length, info.data_bytes,
                                info.created_ns, info.expires_ns)
            page.after = page.tokens[page.count - 1].id


def drop(path, token):
    """Ends a token, given as such or by its id. False: there was no such live token."""
    name = token.id if isinstance(token, Token) else token
    with _opened(path) as descriptor:
        error = _library.odx_drop_token(descriptor, (_u8 * 16).from_buffer_copy(name))
    if error == -errno.ENOENT:
        return False
    _check(error)
    return True


_SCRUB_STATES = ("never", "running", "paused", "interrupted", "done", "cancelled", "failed")
_CHECK_STATES = ("never", "running", "done", "cancelled", "failed")


def _upkeep(path, kind, function, operation, **fields):
    """Does an operation, and reads all of the report: (the first answer, the report's lines)."""
    first, text = None, b""
    with _opened(path) as descriptor:
        while True:
            call = kind(operation=operation if first is None else 0, text_from=len(text),
                        **(fields if first is None else {}))
            _check(function(descriptor, call))
            text += bytes(call.text[:call.text_bytes])
            first = first or call
            if len(text) >= call.text_total or not call.text_bytes:
                return first, text.decode("utf-8", "surrogateescape").splitlines()


def _scrub(path, operation, **fields):
    answer, lines = _upkeep(path, _Scrub, _library.odx_scrub_control, operation, **fields)
    out = {name: getattr(answer, name) for name, _ in _Scrub._fields_[2:14]}
    out["state"] = _SCRUB_STATES[answer.state]
    out["rate"] = None if answer.rate == _NO_LIMIT else answer.rate
    out["error"] = answer.error
    out["report"] = lines
    return out


def scrub_start(path, rate=None):
    """Starts reading every block of the odxfs that `path` is on, or goes on with it.

    `rate` is the most bytes a second from now on; 0: no limit, None: as before. This function and the
    next three answer with the scrub's state as a dictionary, with what it has found as `report`."""
    return _scrub(path, 1, rate=0 if rate is None else rate or _NO_LIMIT)


def scrub_pause(path):
    return _scrub(path, 2)


def scrub_cancel(path):
    return _scrub(path, 3)


def scrub_status(path):
    return _scrub(path, 0)


def _check_job(path, operation, **fields):
    answer, lines = _upkeep(path, _Check, _library.odx_check_control, operation, **fields)
    out = {name: getattr(answer, name) for name, _ in _Check._fields_[6:22]}
    out["job"], out["state"] = answer.job, _CHECK_STATES[answer.state]
    out["phase"] = answer.phase.decode()
    out["data"] = bool(answer.flags & 1)
    out["error"] = answer.error
    out["report"] = lines
    return out


def check_start(path, data=False):
    """Starts a check of the odxfs that `path` is on; with `data`, of all checksums, too.

    OffloadError with EBUSY while another one runs. Answers as check_status()."""
    return _check_job(path, 1, flags=1 if data else 0)


def check_cancel(path):
    return _check_job(path, 2)


def check_status(path):
    """The check that runs, or the last one, as a dictionary; problems are lines of `report`."""
    return _check_job(path, 0)


def check(path, data=False):
    """check_start(), and waits for its end. OffloadError if it was cancelled or has failed."""
    job = check_start(path, data)["job"]
    while True:
        now = check_status(path)
        if now["job"] != job or now["state"] == "cancelled":
            raise OffloadError(errno.ECANCELED, 0, Reason.NONE, os.strerror(errno.ECANCELED))
        if now["state"] == "failed":
            raise OffloadError(now["error"], 0, Reason.NONE, "; ".join(now["report"]))
        if now["state"] == "done":
            return now
        time.sleep(0.02)


def store_size(path):
    """How far the store that `path` is on may grow: a Size. For root and the mount's owner."""
    return resize(path, 0)


def resize(path, limit):
    """Lets the store that `path` is on grow up to `limit` bytes of data; less than exists is cut off.

    EBUSY: some of that is in use. For root and the mount's owner."""
    call = _Resize()
    call.limit = limit
    with _opened(path) as descriptor:
        _check(_library.odx_resize_store(descriptor, call))
    return Size(call.limit, call.limit_before, call.exists, call.exists_before, call.least)


class _opened:  # pylint: disable=invalid-name
    """A path's descriptor for as long as it is needed."""

    def __init__(self, path):
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self):
        return self._descriptor

    def __exit__(self, *_):
        os.close(self._descriptor)
