"""The superblock's image as FORMAT.md lays it out, as far as the tests change it."""

IMAGE_BYTES = 4096
_VERSION_AT, _SUM_AT = 8, IMAGE_BYTES - 4


def crc32c(data):
    result = 0xFFFFFFFF
    for byte in data:
        result ^= byte
        for _ in range(8):
            result = result >> 1 ^ (0x82F63B78 if result & 1 else 0)
    return result ^ 0xFFFFFFFF


def sum_is_right(image):
    return (len(image) == IMAGE_BYTES
            and int.from_bytes(image[_SUM_AT:], "little") == crc32c(image[:_SUM_AT]))


def with_version(image, version):
    """The image with another format version and a sum that fits it."""
    changed = image[:_VERSION_AT] + version.to_bytes(4, "little") + image[_VERSION_AT + 4:_SUM_AT]
    return changed + crc32c(changed).to_bytes(4, "little")
