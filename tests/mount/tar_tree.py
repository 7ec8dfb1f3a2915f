#!/usr/bin/env python3
"""tar x of more than 10,000 files; diff -r and tar --compare, again after a remount."""

from workloads import Tar, mounted

if __name__ == "__main__":
    mounted(Tar)
