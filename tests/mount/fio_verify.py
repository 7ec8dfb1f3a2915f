#!/usr/bin/env python3
"""fio's random writes with crc32c sums: buffered, direct, mmap and io_uring."""

from workloads import Fio, mounted

if __name__ == "__main__":
    mounted(Fio)
