#!/usr/bin/env python3
"""git init, clone (also with hard links), commit, merge, gc and fsck on the mount."""

from workloads import Git, mounted

if __name__ == "__main__":
    mounted(Git)
