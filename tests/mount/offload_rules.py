#!/usr/bin/env python3
"""Every rule of the two controls, as a named case through the ioctls on real mounts.

The rows are in tests/rules/rows.py, the cases beside them; tests/rules/table.py shows them
together. Prints a line a case. With ODX_RULES in the environment, a regular expression on a case's
name and the numbers of its rows, only those that match are run.
"""

import os
import re
import sys
import time
import traceback

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "rules"))

from harness import Failure, case_main, say  # pylint: disable=wrong-import-position
from registry import CASES, World  # pylint: disable=wrong-import-position
import cases  # pylint: disable=wrong-import-position,unused-import


def run_case(world, case):
    """None, or why it failed."""
    world.numbers = case.numbers
    try:
        case.function(world)
        return None
    except Failure as failure:
        place = traceback.extract_tb(failure.__traceback__)
        where = [frame for frame in place if "/rules/" in frame.filename]
        lines = ", ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in where)
        return f"{failure} ({lines})"
    except Exception:  # pylint: disable=broad-except
        return traceback.format_exc()
    finally:
        world.end_of_case()


def body(case):
    world, failed = World(case), []
    chosen = re.compile(os.environ.get("ODX_RULES", ""))
    selected = [one for one in CASES if chosen.search(" ".join((one.name, *one.numbers)))]
    for one in selected:
        begin = time.monotonic()
        failure = run_case(world, one)
        print(f"{'FAILED' if failure else 'passed'} {one.name} ({' '.join(one.numbers)}; "
              f"{one.source}) {time.monotonic() - begin:.2f} s", flush=True)
        if failure:
            print(f"    {failure}", flush=True)
            failed.append(one.name)
    for mount in world.mounts.values():
        mount.alive()
    world.end()
    say(f"{len(selected) - len(failed)} of {len(selected)} cases passed")
    if failed:
        raise Failure(f"{len(failed)} cases failed: {', '.join(failed)}")


if __name__ == "__main__":
    case_main(body)
