"""The two offload ioctls by their raw ABI, independent of the C header."""

import errno
import fcntl
import os
import struct

SIZE = 560
READ = (3 << 30) | (SIZE << 16) | (ord("O") << 8) | 0x99
WRITE = (3 << 30) | (SIZE << 16) | (ord("O") << 8) | 0x9A
STAT_NUMBER, LIST_NUMBER, DROP_NUMBER = 0x9B, 0x9C, 0x9D
RESIZE = (3 << 30) | (64 << 16) | (ord("O") << 8) | 0x9F
TOKEN_INFO_BYTES, LIST_TOKENS = 56, 16
LIST_BYTES = 24 + LIST_TOKENS * TOKEN_INFO_BYTES
LIST = (3 << 30) | (LIST_BYTES << 16) | (ord("O") << 8) | LIST_NUMBER
DROP = (1 << 30) | (16 << 16) | (ord("O") << 8) | DROP_NUMBER
UPKEEP_BYTES = 4096
SCRUB = (3 << 30) | (UPKEEP_BYTES << 16) | (ord("O") << 8) | 0xA0
CHECK = (3 << 30) | (UPKEEP_BYTES << 16) | (ord("O") << 8) | 0xA1
TOKEN_SYNC = 1
ZERO_TOKEN = bytes.fromhex("ffff0001000001f8") + bytes(504)

EKEYEXPIRED, EKEYREJECTED = 127, 129

# NTSTATUS by name (MS-ERREF 2.3.1).
STATUS = {
    "SUCCESS": 0, "INVALID_PARAMETER": 0xC000000D, "INVALID_DEVICE_REQUEST": 0xC0000010,
    "END_OF_FILE": 0xC0000011, "ACCESS_DENIED": 0xC0000022, "BUFFER_TOO_SMALL": 0xC0000023,
    "FILE_LOCK_CONFLICT": 0xC0000054, "DISK_FULL": 0xC000007F,
    "INSUFFICIENT_RESOURCES": 0xC000009A, "MEDIA_WRITE_PROTECTED": 0xC00000A2,
    "NOT_SUPPORTED": 0xC00000BB, "IO_DEVICE_ERROR": 0xC0000185, "VOLUME_DISMOUNTED": 0xC000026E,
    "DEVICE_UNREACHABLE": 0xC0000464, "INVALID_TOKEN": 0xC0000465,
    "OFFLOAD_READ_FLT_NOT_SUPPORTED": 0xC000A2A1, "OFFLOAD_WRITE_FLT_NOT_SUPPORTED": 0xC000A2A2,
    "OFFLOAD_READ_FILE_NOT_SUPPORTED": 0xC000A2A3, "OFFLOAD_WRITE_FILE_NOT_SUPPORTED": 0xC000A2A4,
}
SUCCESS, INVALID_PARAMETER, END_OF_FILE = 0, 0xC000000D, 0xC0000011
BUFFER_TOO_SMALL, INVALID_TOKEN = 0xC0000023, 0xC0000465
FILE_LOCK_CONFLICT, DEVICE_UNREACHABLE = 0xC0000054, 0xC0000464
READ_FILE_NOT_SUPPORTED, WRITE_FILE_NOT_SUPPORTED = 0xC000A2A3, 0xC000A2A4

# Reasons by name, in the order of their numbers.
REASON = {name: number for number, name in enumerate(
    """NONE INPUT_TOO_SMALL OUTPUT_TOO_SMALL UNKNOWN_OPTION FILE_OFFSET_ALIGNMENT
    COPY_LENGTH_ALIGNMENT TRANSFER_OFFSET_ALIGNMENT STRUCTURE_SIZE RANGE_WRAPS ZERO_LENGTH
    NOT_A_FILE OFFSET_NEGATIVE FILE_TOO_BIG LOCKED END_OF_FILE ACCESS_MODE READ_ONLY
    TOKEN_MALFORMED TOKEN_UNKNOWN TOKEN_EXPIRED TOKEN_FOREIGN TOKEN_RESERVED_TYPE
    TOKEN_OTHER_USER TRANSFER_OFFSET_RANGE TOKEN_LIMIT NO_SPACE NO_MEMORY IO_ERROR SHORT
    DISABLED""".split())}

ALL_ZERO_BEYOND = 1

# The bytes of a token that name its store: changed ones name another (EXDEV).
STORE_UUID = range(12, 28)
TOKEN_ID, TOKEN_SECRET = slice(28, 44), slice(44, 76)


class Reply:
    """What came back: the errno (0 if none), NTSTATUS, reason, bytes shared and the body."""

    def __init__(self, number, raw):
        self.errno, self.raw = number, raw
        self.body = raw[:544]
        self.status, self.reason, self.shared = struct.unpack_from("<IIQ", raw, 544)

    @property
    def length(self):
        """TransferLength or LengthWritten; both lie at offset 8."""
        return struct.unpack_from("<Q", self.body, 8)[0]

    @property
    def flags(self):
        return struct.unpack_from("<I", self.body, 4)[0]

    @property
    def token(self):
        return self.body[16:528]

    def __repr__(self):
        name = errno.errorcode.get(self.errno, self.errno)
        return f"(errno {name}, status {self.status:#x}, reason {self.reason})"


def call(descriptor, request, raw):
    """The ioctl on exactly these 560 bytes."""
    buffer = bytearray(raw)
    try:
        fcntl.ioctl(descriptor, request, buffer, True)
        return Reply(0, bytes(buffer))
    except OSError as error:
        return Reply(error.errno, bytes(buffer))


def read_input(offset=0, length=0, ttl=0, size=32, flags=0, reserved=0, input_length=0, room=0,
               options=0):
    body = struct.pack("<IIIIQQ", size, flags, ttl, reserved, offset, length)
    return body.ljust(544, b"\0") + struct.pack("<IIQ", input_length, room, options)


def write_input(token, offset=0, length=0, transfer=0, size=544, flags=0, input_length=0, room=0,
                options=0):
    body = struct.pack("<IIQQQ", size, flags, offset, length, transfer) + token
    return body + struct.pack("<IIQ", input_length, room, options)


def offload_read(descriptor, offset=0, length=0, **more):
    return call(descriptor, READ, read_input(offset, length, **more))


def offload_write(descriptor, token, offset=0, length=0, transfer=0, **more):
    return call(descriptor, WRITE, write_input(token, offset, length, transfer, **more))


def list_tokens(descriptor):
    """The live tokens that the caller may see: id -> (uid, length, data bytes, TTL in ns)."""
    found, after = {}, bytes(16)
    while True:
        raw = fcntl.ioctl(descriptor, LIST, after.ljust(LIST_BYTES, b"\0"))
        count = struct.unpack_from("<I", raw, 16)[0]
        if count == 0:
            return found
        for place in range(24, 24 + count * TOKEN_INFO_BYTES, TOKEN_INFO_BYTES):
            after, uid, _, length, data, created, expires = struct.unpack_from(
                "<16sIIQQqq", raw, place)
            found[after] = (uid, length, data, expires - created)


def drop_token(descriptor, token):
    fcntl.ioctl(descriptor, DROP, token[TOKEN_ID])


def resize_call(limit, limit_before=0, exists=0, exists_before=0, least=0, reserved=(0, 0, 0)):
    """struct odx_resize."""
    return struct.pack("<8Q", limit, limit_before, exists, exists_before, least, *reserved)


def resize_answer(raw):
    """limit, limit before, what exists, what existed before, the least limit."""
    return struct.unpack_from("<5Q", raw)


def control(descriptor, request, raw):
    """Any ioctl with a structure: the errno, 0 if none, and the structure as it came back."""
    buffer = bytearray(raw)
    try:
        fcntl.ioctl(descriptor, request, buffer, True)
        return 0, bytes(buffer)
    except OSError as error:
        return error.errno, bytes(buffer)


def flipped(token, byte, bit=0):
    changed = bytearray(token)
    changed[byte] ^= 1 << bit
    return bytes(changed)


def new_file(path, data=b""):
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, memoryview(data)[done:], done)
    return descriptor
