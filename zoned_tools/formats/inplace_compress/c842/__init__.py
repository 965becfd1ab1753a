"""842 compression: the kernel's software format and the framing of POWER's NX unit.

Public entry points, all over many streams at a time because one numpy pass over a
batch costs little more than one over a single stream:

* :func:`decode_many`: streams and capacities to outputs or reasons of rejection.
* :func:`encode_many`: byte-identical to the kernel's encoder (lib/842/842_compress.c).

Literature: "842" in the POWER NX manuals; the kernel's lib/842 documents the templates.
"""

from __future__ import annotations

from zoned_tools.formats.inplace_compress.c842.decoder import decode, decode_many
from zoned_tools.formats.inplace_compress.c842.encoder import encode, encode_many

__all__ = ["decode", "decode_many", "encode", "encode_many"]
