#!/usr/bin/env python3
"""The programs in README.md, compiled and run as they stand there."""

import os
import random
import re
import sys

from harness import MIB, case_main, environment, expect, expect_equal, run, sanitizer_runtime, say

TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
LIBRARIES = os.path.join(os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "."), "lib/client")
RUNTIME = sanitizer_runtime(os.path.join(LIBRARIES, "libodx.so.0"))


def block(language):
    with open(os.path.join(TREE, "README.md"), encoding="utf-8") as file:
        found = re.findall(rf"^```{language}\n(.*?)^```$", file.read(), re.M | re.S)
    expect_equal(len(found), 1, f"blocks of {language} in README.md")
    return found[0]


def content(path):
    with open(path, "rb") as file:
        return file.read()


def c_tool(case, mount, data, env):
    source, tool = case.place("undo.c"), case.place("undo")
    with open(source, "w", encoding="utf-8") as file:
        file.write(block("c"))
    # A sanitized library needs a program that has the sanitizer's runtime.
    sanitizer = {None: [], "a": ["-fsanitize=address"], "t": ["-fsanitize=thread"]}[
        RUNTIME and RUNTIME[3]]
    run(["cc", "-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-pedantic",
         *sanitizer, "-I", os.path.join(TREE, "lib/include"), source, "-L", LIBRARIES, "-lodx",
         "-o", tool])
    path = mount.path + "/precious"
    with open(path, "wb") as file:
        file.write(data)
    # Zeros over its beginning, and a good part of it gone: and the command fails.
    spoil = f"dd if=/dev/zero of={path} bs=64K count=3 conv=notrunc; truncate -s 300000 {path}; exit 3"
    run([tool, path, "sh", "-c", spoil], status=1, env=env)
    expect(content(path) == data, "the file was not put back")
    run([tool, path, "sh", "-c", f"truncate -s 10 {path}"], env=env)
    expect_equal(content(path), data[:10], "a change that was meant")
    failed = run([tool, source, "true"], status=1, env=env)
    expect(b"undo: " in failed.stderr, "no word about a file that is not on odxfs")


def python_lines(case, mount, data, env):
    with open(mount.path + "/disk.img", "wb") as file:
        file.write(data)
    program = case.place("example.py")
    with open(program, "w", encoding="utf-8") as file:
        file.write(block("python").replace("/mnt", mount.path))
    told = run([sys.executable, program],
               env=dict(env, PYTHONPATH=os.path.join(TREE, "lib/python"),
                        ODX_LIBRARY=os.path.join(LIBRARIES, "libodx.so.0"))).stdout.decode()
    expect(content(mount.path + "/disk.img") == data, "the range was not put back")
    expect(content(mount.path + "/copy.img") == data, "the copy")
    expect("all of it by tokens" in told and "{}" in told, told)


def body(case):
    mount = case.mount(case.store())
    data = random.Random(3).randbytes(MIB + 123)
    env = environment(LD_LIBRARY_PATH=LIBRARIES)
    c_tool(case, mount, data, env)
    if RUNTIME:  # Python itself leaks
        env.update(LD_PRELOAD=RUNTIME, ASAN_OPTIONS=env["ASAN_OPTIONS"] + ":detect_leaks=0")
    python_lines(case, mount, data, env)
    say("README.md's programs work")
    case.close(mount)


if __name__ == "__main__":
    case_main(body)
