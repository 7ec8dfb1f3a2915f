"""The two offload ioctls by their raw ABI, independent of the C header."""

import errno
import fcntl
import os
import struct

SIZE = 560
READ = (3 << 30) | (SIZE << 16) | (ord("O") << 8) | 0x99
WRITE = (3 << 30) | (SIZE << 16) | (ord("O") << 8) | 0x9A
TOKEN_SYNC = 1
ZERO_TOKEN = bytes.fromhex("ffff0001000001f8") + bytes(504)

EKEYEXPIRED, EKEYREJECTED = 127, 129

SUCCESS, INVALID_PARAMETER, END_OF_FILE = 0, 0xC000000D, 0xC0000011
BUFFER_TOO_SMALL, INVALID_TOKEN = 0xC0000023, 0xC0000465
FILE_LOCK_CONFLICT, DEVICE_UNREACHABLE = 0xC0000054, 0xC0000464
READ_FILE_NOT_SUPPORTED, WRITE_FILE_NOT_SUPPORTED = 0xC000A2A3, 0xC000A2A4

ALL_ZERO_BEYOND = 1

# The bytes of a token that name its store: changed ones name another (EXDEV).
STORE_UUID = range(12, 28)


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
