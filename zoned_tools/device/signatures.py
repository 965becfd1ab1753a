"""What people name instead of an image or a drive with a layout: archives, other image formats, other file systems.

Only magic numbers, for one line that says what it is and what to do; nothing is decided by them but that. Sources: the
documents of each format; numbers as in file(1) and libblkid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zoned_tools.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.device.base import Device


class Signature(NamedTuple):
    """Something known.

    Attributes:
        what: in a sentence (``an xz archive``).
        advice: what to do, a phrase; ``{path}`` is the device.
    """

    offset: int
    magic: bytes
    what: str
    advice: str


_OTHER = "its own tools are for it"
_CONVERT = "qemu-img convert -O raw makes a raw image of it, qemu-nbd a device"


def _compressed(offset: int, magic: bytes, what: str, program: str) -> Signature:
    command = f"{program} -dc {{path}} | cp --sparse=always /dev/stdin IMAGE"
    return Signature(offset, magic, what, f"unpack it first: {command}")


_SIGNATURES = (
    _compressed(0, b"\xfd7zXZ\x00", "xz data", "xz"),
    _compressed(0, b"\x28\xb5\x2f\xfd", "Zstandard data", "zstd"),
    _compressed(0, b"\x1f\x8b", "gzip data", "gzip"),
    _compressed(0, b"BZh", "bzip2 data", "bzip2"),
    _compressed(0, b"\x04\x22\x4d\x18", "LZ4 data", "lz4"),
    _compressed(0, b"LZIP", "lzip data", "lzip"),
    Signature(0, b"PK\x03\x04", "a zip archive", "unpack it first"),
    Signature(0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it first"),
    Signature(257, b"ustar", "a tar archive", "unpack it first: tar -xSf {path}"),
    Signature(0, b"QFI\xfb", "a qcow image", _CONVERT),
    Signature(0, b"KDMV", "a VMDK image", _CONVERT),
    Signature(0, b"vhdxfile", "a VHDX image", _CONVERT),
    Signature(0, b"conectix", "a VHD image", _CONVERT),
    Signature(64, b"\x7f\x10\xda\xbe", "a VDI image", _CONVERT),
    Signature(0, b"LUKS\xba\xbe", "a LUKS volume", "open it first: cryptsetup open, and name /dev/mapper/NAME"),
    *(
        Signature(offset, b"LABELONE", "an LVM physical volume", "name one of its logical volumes")
        for offset in (0, 512, 1024, 1536)
    ),
    *(
        Signature(offset, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID", "name the assembled /dev/md device")
        for offset in (0, 4096)
    ),
    Signature(32769, b"CD001", "an ISO 9660 image", _OTHER),
    Signature(1080, b"\x53\xef", "an ext2, ext3 or ext4 file system", _OTHER),
    Signature(0, b"XFSB", "an XFS file system", _OTHER),
    Signature(1024, b"\x10\x20\xf5\xf2", "an F2FS file system", "f2fs uses zones by itself; its own tools are for it"),
    Signature(4120, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9", "a bcachefs file system", _OTHER),
    Signature(4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "a bcache device", "name the assembled /dev/bcache device"),
    Signature(3, b"NTFS    ", "an NTFS file system", _OTHER),
    Signature(3, b"EXFAT   ", "an exFAT file system", _OTHER),
    Signature(82, b"FAT32   ", "a FAT file system", _OTHER),
    Signature(54, b"FAT1", "a FAT file system", _OTHER),
    Signature(0, b"hsqs", "a squashfs image", _OTHER),
    Signature(1024, b"\xe2\xe1\xf5\xe0", "an EROFS image", _OTHER),
    Signature(4086, b"SWAPSPACE2", "swap space", _OTHER),
    Signature(4086, b"SWAP-SPACE", "swap space", _OTHER),
    Signature(0, b"# Mapfile", "a map file of GNU ddrescue", "name the image; --mapfile names its map file"),
    Signature(512, b"EFI PART", "a GPT partition table without a layout in its partitions", "--start names a sector"),
    Signature(4096, b"EFI PART", "a GPT partition table without a layout in its partitions", "--start names a sector"),
    Signature(510, b"\x55\xaa", "a boot sector or MBR partition table", "--start names the sector of a partition"),
)
"""Tried in this order."""


def recognise(device: Device) -> Signature | None:
    """What a device holds that is no layout of ours; None when nothing is known."""
    pages: dict[int, bytes] = {}
    for one in _candidates(device):
        page = one.offset // 4096 * 4096
        if page not in pages:
            pages[page] = _read(device, page)
        if pages[page][one.offset - page :].startswith(one.magic):
            return one
    return None


def _candidates(device: Device) -> Iterator[Signature]:
    size = device.geometry.size_bytes
    return (one for one in _SIGNATURES if one.offset + len(one.magic) <= size)


def _read(device: Device, page: int) -> bytes:
    try:
        return device.read(page, min(4096, device.geometry.size_bytes - page))
    except DeviceError:
        return b""
