"""The findings of a check: severity, meaning, causes, and what repair does."""

from __future__ import annotations

from zoned_tools.findings import Severity
from zoned_tools.formats.registry import Code

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

_CUT = "A power cut, or a drive that lost writes."
_DAMAGE = "Damage on the drive, or a foreign program wrote there."
_REBUILD = "The tables are rebuilt from each other and three fresh generations are written."
_FALL_BACK = "The newest complete generation is used; the torn one is overwritten."
_RECOUNT = "Write pointers are taken from the drive and live blocks are counted again."

CODES: dict[str, Code] = {
    "ident.magic": Code(_E, "Block 0 is not an identity super block.", _DAMAGE, "It is rebuilt from geometry and key."),
    "ident.crc": Code(_E, "The identity's checksum is wrong.", _DAMAGE, "It is rebuilt, readable fields are kept."),
    "ident.geometry": Code(
        _E,
        "The identity does not fit the partition, or the mapper would corrupt such a layout.",
        "A wrong start sector, a copied or resized partition, or a geometry on which create and mapper disagree.",
    ),
    "key.none": Code(
        _E,
        "No complete generation of the metadata exists. On a fresh format this is normal, and only a note.",
        _DAMAGE,
        "Metadata are rebuilt from the tables at their home place and what the areas still hold.",
    ),
    "key.crc": Code(_W, "A block that looks like a key has a wrong checksum.", _CUT, _FALL_BACK),
    "key.sb_csum": Code(_E, "The super block in a newer key is damaged.", _DAMAGE, _FALL_BACK),
    "key.sb_version": Code(_E, "The super block in a newer key has an unknown version.", _DAMAGE, _FALL_BACK),
    "gen.torn": Code(_W, "A newer generation is incomplete; the code beside this one says why.", _CUT, _FALL_BACK),
    "gen.layout": Code(_W, "A newer key's page counts do not lead to its own place.", _CUT, _FALL_BACK),
    "gen.third_slot": Code(
        _I,
        "The newest generation lies in the third area, which the reference mapper never reads.",
        "One unclean stop in three.",
        "Three equal generations are written, so that every area holds the same state.",
    ),
    "journal.crc": Code(_W, "The journal map of a newer generation does not match its checksum.", _CUT, _FALL_BACK),
    "cache.crc": Code(_W, "A cache page of a newer generation does not match its checksum.", _CUT, _FALL_BACK),
    "cache.count": Code(_W, "A cache page of a newer generation claims more than 255 entries.", _CUT, _FALL_BACK),
    "md.crc": Code(_W, "The CRC-of-CRC blocks of a newer generation do not match.", _CUT, _FALL_BACK),
    "key.dirty": Code(_W, "The mapper was not stopped cleanly.", "A power cut.", "Closed generations are written."),
    "key.zdstart": Code(
        _E, "Key and identity disagree about where data begins.", "Probably the wrong partition or start sector."
    ),
    "key.nr_zones": Code(
        _E,
        "The key's number of data zones does not fit the partition.",
        "Probably the wrong partition or start sector.",
    ),
    "journal.range": Code(
        _E, "A journal slot names a block that is no live table or CRC page.", _DAMAGE, "The slot is dropped."
    ),
    "journal.dup": Code(
        _E, "Two journal slots name the same page.", _DAMAGE, "The one that matches the page's checksum is kept."
    ),
    "cache.range": Code(
        _E, "A map cache entry is outside the data area.", _DAMAGE, "The block becomes unmapped and is reported."
    ),
    "cache.dup": Code(_E, "A logical block has two map cache entries.", _DAMAGE, "One is kept, both are reported."),
    "cache.zero": Code(
        _W,
        "Trimmed blocks have zero cache entries, for which the reference returns old data.",
        "Small discards shortly before the last sync.",
        "The forward entries are cleared.",
    ),
    "discard.range": Code(_E, "A discard extent reaches outside the logical device.", _DAMAGE, "It is dropped or cut."),
    "discard.overlap": Code(_E, "Discard extents overlap.", "A fault of the reference's merging.", "They are merged."),
    "wp.crc": Code(_W, "A write pointer block does not match the key.", _CUT, _RECOUNT),
    "zf.crc": Code(_W, "A free estimate block does not match the key.", _CUT, _RECOUNT),
    "crcpage.crc": Code(_E, "A CRC page does not match its checksum.", _DAMAGE, "It is computed again."),
    "lut.crc.fwd": Code(_E, "Forward table pages do not match their checksums.", f"{_CUT} {_DAMAGE}", _REBUILD),
    "lut.crc.rev": Code(_E, "Reverse table pages do not match their checksums.", f"{_CUT} {_DAMAGE}", _REBUILD),
    "fwd.range": Code(
        _E,
        "A forward entry is outside the data area.",
        _DAMAGE,
        "The block named by the reverse table is used, else the mapping is dropped and reported.",
    ),
    "fwd.norev": Code(_E, "A forward entry is not confirmed by the reverse table.", f"{_CUT} {_DAMAGE}", _REBUILD),
    "rev.range": Code(_E, "A reverse entry names no logical block.", _DAMAGE, "It is cleared."),
    "rev.nofwd": Code(_E, "A reverse entry is not confirmed by the forward table.", f"{_CUT} {_DAMAGE}", _REBUILD),
    "map.double": Code(
        _E,
        "Two logical blocks live in one physical block.",
        _DAMAGE,
        "The owner that the reverse table names keeps it.",
    ),
    "fwd.beyond_wp": Code(
        _E,
        "Mapped blocks lie at or above their zone's write pointer.",
        "The drive lost data, the zone was reset, or the entry is damaged.",
        "Another copy is looked up in the reverse table, else the mapping is dropped and reported. Where the drive's "
        "write pointer fell, only with --allow fwd.beyond_wp.",
    ),
    "wp.behind": Code(_W, "The recorded write pointer is below the drive's.", "Normal after a power cut.", _RECOUNT),
    "wp.ahead": Code(
        _E,
        "The recorded write pointer is above the drive's.",
        "The zone was reset or lost data, or the record is damaged.",
        "The drive is believed, unless live data lie above its write pointer.",
    ),
    "zf.low_live": Code(_E, "A free estimate promises more than is free.", _DAMAGE, _RECOUNT),
    "zf.drift": Code(_I, "A free estimate is too pessimistic.", "The reference never corrects it.", _RECOUNT),
    "zone.cond": Code(_E, "A read-only or offline zone holds live data.", "The drive is failing."),
    "stream.range": Code(_E, "A stream writes to a zone that does not exist.", _DAMAGE, "The stream is cleared."),
    "resv.range": Code(_E, "A reserve zone does not exist.", _DAMAGE, "The reserve is set anew."),
}
