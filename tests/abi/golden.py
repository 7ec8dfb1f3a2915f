#!/usr/bin/env python3
"""golden.py FILE: the vectors of golden.txt by struct and ctypes, without any compiler's layout."""

import ctypes
import errno
import os
import re
import struct
import sys

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "mount"))

import odx_abi  # pylint: disable=wrong-import-position


def vectors(path):
    """NAME -> bytes; every vector must have the length that it says."""
    found, lengths, name = {}, {}, None
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("="):
                name, length = line[1:].split()
                found[name], lengths[name] = b"", int(length)
            elif name and not line.startswith("#"):
                for byte, count, plain in re.findall(r"([0-9a-f]{2})\*(\d+)|([0-9a-f]+)", line):
                    found[name] += (bytes.fromhex(byte) * int(count) if byte
                                    else bytes.fromhex(plain))
    for name, value in found.items():
        if len(value) != lengths[name]:
            raise SystemExit(f"{name}: {len(value)} bytes, said to be {lengths[name]}")
    return found


class TokenHeader(ctypes.BigEndianStructure):
    """MS-FSCC 2.1.11."""
    _pack_ = 1
    _fields_ = [("type", ctypes.c_uint32), ("reserved", ctypes.c_uint16),
                ("id_length", ctypes.c_uint16), ("id", ctypes.c_uint8 * 504)]


class ReadOutput(ctypes.LittleEndianStructure):
    """MS-FSCC 2.3.42."""
    _pack_ = 1
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32),
                ("transfer_length", ctypes.c_uint64), ("token", ctypes.c_uint8 * 512)]


class WriteOutput(ctypes.LittleEndianStructure):
    """MS-FSCC 2.3.44."""
    _pack_ = 1
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32),
                ("length_written", ctypes.c_uint64)]


def upkeep():
    """struct odx_scrub and odx_check, field by field from their tables."""
    def pairs(first, last):
        return b"".join(struct.pack("<II", low + 1, low) for low in range(first, last, 2))
    scrub = (struct.pack("<IIQ", 3, 6, 64 << 20) + pairs(1, 22) + struct.pack("<iI", errno.EIO, 3)
             + pairs(23, 26) + bytes(16 * 8) + b"abc".ljust(3840, b"\0"))
    check = (struct.pack("<II", 1, 1) + pairs(1, 2) + struct.pack("<Ii", 4, errno.ENOSPC)
             + b"data".ljust(32, b"\0") + pairs(3, 34) + struct.pack("<II", 3, 0) + pairs(35, 38)
             + bytes(6 * 8) + b"xyz".ljust(3840, b"\0"))
    return {"scrub": scrub, "check": check,
            "upkeep_numbers": struct.pack("<II", odx_abi.SCRUB, odx_abi.CHECK)}


def token_bytes():
    header = TokenHeader(0x4F445846, 0, 504)
    header.id[0:76 - 8] = (0, 0, 0, 1, *range(0x10, 0x20), *range(0x20, 0x30), *range(0x80, 0xA0))
    return bytes(header)


def expected():
    token = token_bytes()
    read_in = odx_abi.read_input(0x1122334455667700, 0x100000200, 60000, flags=0x01020304,
                                 reserved=0x05060708, input_length=32, room=528,
                                 options=odx_abi.TOKEN_SYNC)
    write_in = odx_abi.write_input(token, 0x8877665544332200, 0x2000, 0x300000200,
                                   flags=0x0A0B0C0D)
    write_out = bytes(WriteOutput(16, 0, 0x123456789A00))
    return {
        "read_input": read_in[:32], "write_input": write_in[:544], "read_call": read_in,
        "token": token, "zero_token": bytes(TokenHeader(0xFFFF0001, 0, 504)),
        "read_output": bytes(ReadOutput(528, odx_abi.ALL_ZERO_BEYOND, 0x10200,
                                        (ctypes.c_uint8 * 512)(*token))),
        "write_output": write_out,
        "failure": bytes(544) + struct.pack("<IIQ", odx_abi.STATUS["INVALID_TOKEN"],
                                            odx_abi.REASON["TOKEN_EXPIRED"], 0),
        "write_return": write_out.ljust(544, b"\0")
                        + struct.pack("<IIQ", 0, odx_abi.REASON["SHORT"], 0x123456789900),
        "resize": odx_abi.resize_call(0x1122334455667000, 0x99AABBCCDDEE1000, 0x200000001000,
                                      0x300000002000, 0x400000003000),
        "resize_number": struct.pack("<I", odx_abi.RESIZE),
        "request_numbers": struct.pack("<II", odx_abi.READ, odx_abi.WRITE),
        **upkeep(),
    }


def taken_apart(golden):
    """The vectors read back, field by field."""
    reply = odx_abi.Reply(0, golden["write_return"])
    header = TokenHeader.from_buffer_copy(golden["token"])
    output = ReadOutput.from_buffer_copy(golden["read_output"])
    read_reply = odx_abi.Reply(0, golden["read_output"].ljust(560, b"\0"))
    return (
        (reply.length, reply.shared, reply.status, reply.reason)
        == (0x123456789A00, 0x123456789900, 0, odx_abi.REASON["SHORT"])
        and (header.type, header.reserved, header.id_length) == (0x4F445846, 0, 504)
        and (output.size, output.flags, output.transfer_length) == (528, 1, 0x10200)
        and bytes(output.token) == golden["token"] == read_reply.token
        and (read_reply.flags, read_reply.length) == (1, 0x10200)
        and golden["token"][odx_abi.TOKEN_ID] == bytes(range(0x20, 0x30))
        and golden["token"][odx_abi.TOKEN_SECRET] == bytes(range(0x80, 0xA0))
        and golden["zero_token"] == odx_abi.ZERO_TOKEN)


def main(path):
    golden, wanted = vectors(path), expected()
    wrong = [name for name in {**golden, **wanted} if golden.get(name) != wanted.get(name)]
    if not taken_apart(golden):
        wrong.append("a vector's fields")
    if wrong:
        raise SystemExit(f"FAILED: {', '.join(wrong)}")
    print(f"{len(golden)} vectors are right")


if __name__ == "__main__":
    main(sys.argv[1])
