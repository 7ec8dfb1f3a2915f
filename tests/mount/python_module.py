#!/usr/bin/env python3
"""lib/python/odx.py, the Python module over libodx, on a real mount."""

import errno
import os
import random
import sys

from harness import MIB, as_user, case_main, expect, expect_equal, sanitizer_runtime, say

BUILD = sys.argv[1] if len(sys.argv) > 1 else "."
os.environ["ODX_LIBRARY"] = os.path.join(os.path.abspath(BUILD), "lib/client/libodx.so.0")
if sanitizer_runtime(os.environ["ODX_LIBRARY"]):
    if "LD_PRELOAD" not in os.environ:  # begin again, with it; Python itself is no model of tidiness
        os.execve(sys.executable, [sys.executable, *sys.argv],
                  dict(os.environ, LD_PRELOAD=sanitizer_runtime(os.environ["ODX_LIBRARY"]),
                       ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"))
    del os.environ["LD_PRELOAD"]  # not for the programs that this one runs
    os.environ["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"].removesuffix(":detect_leaks=0")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../lib/python"))
import odx  # noqa: E402  pylint: disable=wrong-import-position


def raises(number, reason, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except odx.OffloadError as error:
        expect_equal((error.errno, error.reason), (number, reason), str(error))
        return error
    raise AssertionError(f"{call} did not fail")


def names():
    """The module's numbers are the library's."""
    name = odx._library.odx_reason_name  # pylint: disable=protected-access
    for reason in odx.Reason:
        expect_equal(name(reason).decode(), reason.name, f"reason {int(reason)}")
    expect_equal(name(len(odx.Reason)), b"UNKNOWN", "a reason that the module does not know")


def controls(mount, data):
    source = open(mount.path + "/source", "w+b")
    source.write(data)
    answer = odx.offload_read(source, ttl_ms=5000)  # which also flushes what Python still holds
    expect_equal((answer.length, answer.zeros_beyond), (len(data), True), "the whole file")
    source.seek(0)
    source.write(bytes(len(data)))
    with open(mount.path + "/target", "w+b") as target:
        target.truncate(len(data))
        expect_equal(odx.offload_write(target, answer.token, length=len(data)),
                     odx.Written(len(data), len(data)), "the write")
        expect(target.read() == data, "the target holds the source's moment")
        odx.zero(target, 4096, 8192)
        target.seek(0)
        expect(target.read() == data[:4096] + bytes(8192) + data[12288:], "the zeros")
        error = raises(errno.EINVAL, odx.Reason.FILE_OFFSET_ALIGNMENT, odx.offload_write, target,
                       answer.token, offset=3, length=512)
        expect_equal(error.status, 0xC000000D, "STATUS_INVALID_PARAMETER")
        changed = bytearray(answer.token)
        changed[60] ^= 1  # of the secret
        raises(129, odx.Reason.TOKEN_UNKNOWN, odx.offload_write, target, odx.Token(changed),
               length=512)
        raises(errno.ENXIO, odx.Reason.END_OF_FILE, odx.offload_read, target, offset=len(data))
    listed = {info.id: info for info in odx.tokens(mount.path)}
    expect_equal(listed[answer.token.id].length, len(data), "the listed token")
    expect_equal(odx.drop(mount.path, answer.token), True, "dropping it")
    expect_equal(odx.drop(mount.path, answer.token), False, "dropping it again")
    expect_equal(list(odx.tokens(mount.path)), [], "tokens left")
    expect_equal(odx.ZERO_TOKEN.id, None, "the id of the zero token")
    source.close()


def copies(mount, data):
    with open(mount.path + "/from", "wb") as file:
        file.write(data)
    seen = []
    report = odx.copy(mount.path + "/from", mount.path + "/to", step=MIB, progress=seen.append)
    with open(mount.path + "/to", "rb") as file:
        expect(file.read() == data, "the copy")
    expect_equal((report.bytes_offloaded, report.why, report.ranges), (len(data), None, seen),
                 "the report")
    expect_equal([(r.offset, r.length, r.way) for r in seen],
                 [(at, MIB, "token") for at in range(0, len(data), MIB)], "the steps")
    outside = mount.case.place("outside")
    report = odx.copy(mount.path + "/from", outside)
    expect_equal((report.bytes_copied, {r.way for r in report.ranges}), (len(data), {"copy"}),
                 "a copy to elsewhere")
    expect("odxfs" in report.why, report.why)
    raises(errno.ENOTTY, odx.Reason.NONE, odx.copy, mount.path + "/from", outside,
           require_offload=True)

    def stop(_range):
        raise KeyError("enough")
    try:
        odx.copy(mount.path + "/from", mount.path + "/to", progress=stop)
        raise AssertionError("the exception was lost")
    except KeyError:
        pass


def accounting(mount, data):
    facts = odx.statistics(mount.path)
    expect_equal(facts["program"].count("."), 2, "the version")
    expect_equal((facts["sector_bytes"], facts["token_ttl_max_ms"], facts["tokens_max_per_user"]),
                 (512, 600_000, 10_000), "limits")
    expect_equal(facts["pinned_bytes_max"], None, "no limit")
    expect_equal(facts["refused"], {"file_offset_alignment": 1, "token_unknown": 1,
                                    "end_of_file": 1}, "refusals by reason")
    expect_equal(facts["fallback_bytes"], {"not_odxfs": len(data)}, "fallback by reason")
    raw = mount.statistics()  # the same by the bytes of the ABI
    for name, value in raw.items():
        if isinstance(value, int) and name not in ("requests", "device_bytes_read"):
            told = facts[name]
            expect_equal(2**64 - 1 if told is None else told, value, name)
    try:
        odx.statistics("/")
        raise AssertionError("/ is no odxfs")
    except odx.OffloadError as error:
        expect_equal(error.errno, errno.ENOTTY, "elsewhere")


def other_users(mount):
    with open(mount.path + "/public", "w+b") as file:
        file.write(bytes(range(256)) * 16)
        token = odx.offload_read(file).token

    def stranger():
        expect_equal(list(odx.tokens(mount.path)), [], "root's tokens, for a stranger")
        try:
            odx.drop(mount.path, token)
            raise AssertionError("a stranger dropped root's token")
        except odx.OffloadError as error:
            expect_equal(error.errno, errno.EPERM, "a stranger's drop")
    as_user(stranger)


def body(case):
    mount = case.mount(case.store())
    data = random.Random(5).randbytes(4 * MIB)
    names()
    controls(mount, data)
    copies(mount, data)
    accounting(mount, data)
    if os.geteuid() == 0:
        other_users(mount)
    say("the module does what it says")
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
