#!/usr/bin/env python3
"""Which test holds which rule of the two offload controls.

    table.py map BUILD_DIR [--check FILE]   writes lib/proto/RULES.md; with --check, FILE must be it
    table.py run BUILD_DIR                  runs the tests and prints the table with their results

The rows are in rows.py. A unit test belongs to a row by its tag ([2.1#4]), a case of
tests/mount/offload_rules.py by its decorator. A row that has neither test nor reason is an error,
and so is a tag that is no row. BUILD_DIR is where meson built unit_tests and the programs.
"""

import argparse
import collections
import os
import re
import subprocess
import sys
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
MOUNT = os.path.join(os.path.dirname(HERE), "mount")
RULES = os.path.join(HERE, "..", "..", "lib", "proto", "RULES.md")
sys.path[1:1] = [HERE, MOUNT]

from registry import CASES  # pylint: disable=wrong-import-position
from rows import BY_NUMBER, ROWS, TABLES  # pylint: disable=wrong-import-position
import cases  # pylint: disable=wrong-import-position,unused-import

TAG = re.compile(r"\[(\d+(?:\.\d+)?[RW]?#\w+)\]")

Test = collections.namedtuple("Test", "kind name numbers")  # kind: "unit" or "mount"

HEAD = """# The rules of the offload controls, and the tests that hold them

Written by `tests/rules/table.py map BUILD_DIR`; do not edit. `tests/rules/table.py run BUILD_DIR`
runs the tests and prints the same table with the results. The rows and what their sources are
called: `tests/rules/rows.py`. NTSTATUS is without `STATUS_`.

A name in plain letters is a case of `tests/mount/offload_rules.py`, which calls the ioctls on a
mount; one in `code` is a case of `unit_tests`, which run the rules and the store without one. The
structures' bytes are held to `tests/abi/golden.txt` by C89, C++17, C++23 and Python programs too.
"""


class Wrong(Exception):
    """What the person who called must put right."""


def output_of(command, statuses=(0,)):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    if done.returncode not in statuses:
        raise Wrong(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


def unit_tests(build):
    """The tagged cases. Catch2 lists names alone exactly, and folds them when it adds the tags."""
    program = os.path.join(build, "tests", "unit", "unit_tests")
    # 0 would be no test; Catch2 v2 exits with their number, cut to a byte.
    names = [line.removeprefix('"').removesuffix('"')
             for line in output_of([program, "--list-test-names-only"], range(256)).splitlines()
             if line.strip()]
    entries = []  # the tags of each, in the same order
    for line in output_of([program, "--list-tests"], range(256)).splitlines():
        if re.match(r"  \S", line):
            entries.append("")
        elif entries and re.match(r"      ", line):
            entries[-1] += line.strip()
    if len(entries) != len(names):
        raise Wrong(f"{program} lists {len(names)} names, but {len(entries)} cases")
    return [Test("unit", name, tuple(TAG.findall(tags)))
            for name, tags in zip(names, entries) if TAG.search(tags)]


def all_tests(build):
    tests = [Test("mount", case.name, case.numbers) for case in CASES] + unit_tests(build)
    for test in tests:
        for number in test.numbers:
            if number not in BY_NUMBER:
                raise Wrong(f"{test.kind} test '{test.name}' names row {number}, which is none")
    return tests


def tests_by_row(tests):
    found = {row.number: [] for row in ROWS}
    for test in tests:
        for number in dict.fromkeys(test.numbers):
            found[number].append(test)
    bare = [row.number for row in ROWS if not found[row.number] and not row.why]
    if bare:
        raise Wrong(f"rows with neither a test nor a reason: {', '.join(bare)}")
    return found


def cell(text):
    return text.replace("|", "\\|")


def as_markdown(found):
    lines = [HEAD]
    for table, title in TABLES.items():
        lines += [f"## {table} {title}", "",
                  "| # | condition | NTSTATUS | errno | source | tests |",
                  "|---|---|---|---|---|---|"]
        for row in ROWS:
            if row.table != table:
                continue
            names = [f"`{test.name}`" if test.kind == "unit" else test.name
                     for test in found[row.number]]
            why = [f"({row.why})"] if row.why else []
            cells = (row.number.partition("#")[2], row.condition, row.status, row.errno, row.source,
                     "; ".join(why + names))
            lines.append("| " + " | ".join(cell(text) for text in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def write_map(build, check):
    wanted = as_markdown(tests_by_row(all_tests(build)))
    if check is None:
        with open(RULES, "w", encoding="utf-8") as file:
            file.write(wanted)
        return 0
    with open(check, encoding="utf-8") as file:
        if file.read() == wanted:
            print(f"{len(ROWS)} rows, each with its tests")
            return 0
    print(f"{check} is not what the tests say: run 'tests/rules/table.py map BUILD_DIR'")
    return 1


# ---- running ----

def run_unit_tests(build, tests):
    """Name -> passed, of the tagged cases."""
    tags = sorted({number for test in tests for number in test.numbers})
    program = os.path.join(build, "tests", "unit", "unit_tests")
    text = output_of([program, "--reporter", "xml", ",".join(f"[{tag}]" for tag in tags)],
                     range(256))
    return {case.get("name"): case.find("OverallResult").get("success") == "true"
            for case in xml.etree.ElementTree.fromstring(text).iter("TestCase")}


def run_mount_cases(build):
    """Name -> passed, as the case's lines say; empty if the machine can mount nothing."""
    command = [sys.executable, os.path.join(MOUNT, "offload_rules.py"), build]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False,
                          stdin=subprocess.DEVNULL)
    results = {}
    for line in done.stdout.splitlines():
        match = re.match(r"(passed|FAILED) (.*?) \(\d", line)
        if match:
            results[match.group(2)] = match.group(1) == "passed"
        elif not line.startswith("["):
            print(line)
    return results, done.returncode


def outcome(test, results):
    passed = results[test.kind].get(test.name)
    return "NOT RUN" if passed is None else "passed" if passed else "FAILED"


def run(build):
    tests = all_tests(build)
    found = tests_by_row(tests)
    mount, status = run_mount_cases(build)
    unit = run_unit_tests(build, [test for test in tests if test.kind == "unit"])
    results = {"mount": mount, "unit": unit}
    bad = 0
    for table, title in TABLES.items():
        print(f"\n{table} {title}")
        for row in ROWS:
            if row.table != table:
                continue
            outcomes = [(outcome(test, results), test) for test in found[row.number]]
            failed = [(how, test) for how, test in outcomes if how != "passed"]
            bad += bool(failed)
            how = "FAILED" if failed else "passed" if outcomes else "-"
            answer = "/".join(filter(None, (row.errno, row.status)))
            print(f"  {how:6} {len(outcomes):2} {row.number:8} {row.condition}"
                  f"{': ' + answer if answer else ''} [{row.source}]")
            if row.why:
                print(f"{'':19} {row.why}")
            for how, test in failed:
                print(f"{'':19} {how}: {test.kind} test '{test.name}'")
    print(f"\n{len(ROWS) - bad} of {len(ROWS)} rows passed, by {len(mount)} cases on mounts and "
          f"{len(unit)} unit tests")
    if status != 0 and not bad:
        print(f"offload_rules.py ended with exit status {status}")
    return 1 if bad or status else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("map", "run"))
    parser.add_argument("build")
    parser.add_argument("--check", metavar="FILE")
    arguments = parser.parse_args()
    try:
        if arguments.mode == "map":
            return write_map(arguments.build, arguments.check)
        return run(arguments.build)
    except Wrong as wrong:
        print(f"table.py: {wrong}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
