"""The findings of a check: what each means, what the reference's kernel does with it, what repair does about it."""

from __future__ import annotations

from zoned_tools.formats.contract import Consent, Rule, Rules, Severity
from zoned_tools.formats.shared.derived import derived_rule
from zoned_tools.formats.shared.losses import rescue_rules
from zoned_tools.formats.zdm.constants import NAME

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO

_CUT = "A power cut, or a drive that lost writes."
_DAMAGE = "Damage on the drive, or a foreign program wrote there."
_REBUILD = "The tables are rebuilt from each other and three fresh generations are written."
_FALL_BACK = "The newest complete generation is used; the torn one is overwritten."
_RECOUNT = "Write pointers are taken from the drive and live blocks are counted again."

_FATAL = "Loading fails, and the instance comes up partial: writes fail with EIO."
_EMPTY = "Loading fails, and the instance comes up empty; its next syncs overwrite the good metadata."
_LATE = "A message when the page is read; writes that need it fail with ENOSPC."
_UNSEEN = "Nothing tests for it."
_TAKEN = "Its garbage collection may take the zone for empty."

RULES = Rules(
    NAME,
    {
        "ident.magic": Rule(
            _E,
            "Block 0 is not an identity super block.",
            _DAMAGE,
            "It is rebuilt from geometry and key.",
            "Block 0 is read by zdmadm alone.",
        ),
        "ident.crc": Rule(
            _E,
            "The identity's checksum is wrong.",
            _DAMAGE,
            "It is rebuilt, readable fields are kept.",
            "Block 0 is read by zdmadm alone.",
        ),
        "ident.geometry": Rule(
            _E,
            "The identity does not fit the partition, or the mapper would corrupt such a layout.",
            "A wrong start sector, a copied or resized partition, or a geometry on which create and mapper disagree.",
            kernel="It maps the layout and corrupts it.",
        ),
        "key.none": Rule(
            _E,
            "No complete generation of the metadata exists. On a fresh format this is normal, and only a note.",
            _DAMAGE,
            "Metadata are rebuilt from the tables at their home place and what the areas still hold.",
            asks=Consent.LOSES,
            allow="A generation of which only the key is damaged is used (of several that nothing orders, the first). "
            "Where there is none, only what the tables hold at their home place is left: the map cache, the discards "
            "and the pages in the journal are lost, and blocks that were written last become unmapped or get older "
            "content.",
        ),
        "key.crc": Rule(_W, "A block that looks like a key has a wrong checksum.", _CUT, _FALL_BACK),
        "key.sb_csum": Rule(_E, "The super block in a newer key is damaged.", _DAMAGE, _FALL_BACK, _FATAL),
        "key.sb_version": Rule(
            _E, "The super block in a newer key has an unknown version.", _DAMAGE, _FALL_BACK, _FATAL
        ),
        "gen.torn": Rule(
            _W, "A newer generation is incomplete; the code beside this one says why.", _CUT, _FALL_BACK, _FATAL
        ),
        "gen.layout": Rule(_W, "A newer key's page counts do not lead to its own place.", _CUT, _FALL_BACK, _FATAL),
        "gen.third_slot": Rule(
            _I,
            "The newest generation lies in the third area, which the reference mapper never reads.",
            "One unclean stop in three.",
            "Three equal generations are written, so that every area holds the same state.",
            "It silently loads the state of one sync earlier.",
        ),
        "journal.crc": Rule(
            _W, "The journal map of a newer generation does not match its checksum.", _CUT, _FALL_BACK, _FATAL
        ),
        "cache.crc": Rule(
            _W, "A cache page of a newer generation does not match its checksum.", _CUT, _FALL_BACK, _FATAL
        ),
        "cache.count": Rule(
            _W, "A cache page of a newer generation claims more than 255 entries.", _CUT, _FALL_BACK, _FATAL
        ),
        "md.crc": Rule(_W, "The CRC-of-CRC blocks of a newer generation do not match.", _CUT, _FALL_BACK, _FATAL),
        "key.dirty": Rule(
            _W, "The mapper was not stopped cleanly.", "A power cut.", "Closed generations are written.", _EMPTY
        ),
        "key.zdstart": Rule(
            _E, "Key and identity disagree about where data begins.", "Probably the wrong partition or start sector."
        ),
        "key.nr_zones": Rule(
            _E,
            "The key's number of data zones does not fit the partition.",
            "Probably the wrong partition or start sector.",
        ),
        "journal.range": Rule(
            _E, "A journal slot names a block that is no live table or CRC page.", _DAMAGE, "The slot is dropped."
        ),
        "journal.dup": Rule(
            _E, "Two journal slots name the same page.", _DAMAGE, "The one that matches the page's checksum is kept."
        ),
        "cache.range": Rule(
            _E, "A map cache entry is outside the data area.", _DAMAGE, "The block becomes unmapped and is reported."
        ),
        "cache.dup": Rule(_E, "A logical block has two map cache entries.", _DAMAGE, "One is kept, both are reported."),
        "cache.zero": Rule(
            _W,
            "Trimmed blocks have zero cache entries, for which the reference returns old data.",
            "Small discards shortly before the last sync.",
            "The forward entries are cleared.",
            "The old data are returned until the entry moves to the tables.",
        ),
        "discard.range": Rule(
            _E, "A discard extent reaches outside the logical device.", _DAMAGE, "It is dropped or cut."
        ),
        "discard.overlap": Rule(
            _E, "Discard extents overlap.", "A fault of the reference's merging.", "They are merged."
        ),
        "wp.crc": Rule(_W, "A write pointer block does not match the key.", _CUT, _RECOUNT, "A message."),
        "zf.crc": Rule(_W, "A free estimate block does not match the key.", _CUT, _RECOUNT, "A message."),
        "crcpage.crc": Rule(_E, "A CRC page does not match its checksum.", _DAMAGE, "It is computed again.", _LATE),
        "lut.crc.fwd": Rule(
            _E,
            "Forward table pages do not match their checksums.",
            f"{_CUT} {_DAMAGE}",
            f"{_REBUILD} Mappings that the reverse table does not confirm, and that no kernel reads any more, are "
            "dropped and named.",
            _LATE,
        ),
        "lut.crc.rev": Rule(
            _E, "Reverse table pages do not match their checksums.", f"{_CUT} {_DAMAGE}", _REBUILD, _LATE
        ),
        "fwd.range": Rule(
            _E,
            "A forward entry is outside the data area.",
            _DAMAGE,
            "The block named by the reverse table is used, else the mapping is dropped and reported.",
            _UNSEEN,
        ),
        "fwd.norev": Rule(
            _E, "A forward entry is not confirmed by the reverse table.", f"{_CUT} {_DAMAGE}", _REBUILD, _UNSEEN
        ),
        "rev.range": Rule(_E, "A reverse entry names no logical block.", _DAMAGE, "It is cleared.", _UNSEEN),
        "rev.nofwd": Rule(
            _E, "A reverse entry is not confirmed by the forward table.", f"{_CUT} {_DAMAGE}", _REBUILD, _UNSEEN
        ),
        "map.double": Rule(
            _E,
            "Two logical blocks live in one physical block.",
            _DAMAGE,
            "The owner that the reverse table names keeps it, and the mappings of the others are dropped and named.",
            _UNSEEN,
            Consent.GUESSES,
            "Where the reverse table names none of them, the lowest logical block keeps it, and the others become "
            "unmapped unless the reverse table has another place for them.",
        ),
        "fwd.beyond_wp": Rule(
            _E,
            "Mapped blocks lie at or above their zone's write pointer.",
            "The drive lost data, the zone was reset, or the entry is damaged.",
            "Another copy is looked up in the reverse table, else the mapping is dropped and reported. Where the "
            "drive's write pointer fell, only with --allow fwd.beyond_wp.",
            asks=Consent.LOSES,
            allow="Mappings of data that the drive had and lost are dropped, so that these blocks read as zeroes.",
        ),
        "wp.behind": Rule(
            _W,
            "The recorded write pointer is below the drive's.",
            "Normal after a power cut.",
            _RECOUNT,
            "The drive is believed.",
        ),
        "wp.ahead": Rule(
            _E,
            "The recorded write pointer is above the drive's.",
            "The zone was reset or lost data, or the record is damaged.",
            "The drive is believed, unless live data lie above its write pointer.",
            "Nothing is done about it.",
        ),
        "zf.low_live": Rule(_E, "A free estimate promises more than is free.", _DAMAGE, _RECOUNT, _TAKEN),
        "zf.drift": Rule(_I, "A free estimate is too pessimistic.", "The reference never corrects it.", _RECOUNT),
        "zone.cond": Rule(_E, "A read-only or offline zone holds live data.", "The drive is failing."),
        "stream.range": Rule(
            _E, "A stream writes to a zone that does not exist.", _DAMAGE, "The stream is cleared.", _UNSEEN
        ),
        "resv.range": Rule(_E, "A reserve zone does not exist.", _DAMAGE, "The reserve is set anew.", _UNSEEN),
        "zones-foreign": Rule(
            _E,
            "The zone table contradicts the tables of the mapper in several zones: it is another drive's, or the drive "
            "was reset.",
            "A new drive's report or an old table beside an image, or a drive that was reset.",
            "Nothing is written; with consent the mappings that the zone table contradicts are dropped.",
            "It reads zeroes, and writes where its records say.",
            Consent.LOSES,
            "The zone table is right and the data are gone: mappings of blocks at or above write pointers are dropped, "
            "so that these blocks read as zeroes.",
        ),
        **derived_rule(),
        **rescue_rules(
            repair=_REBUILD,
            kernel=_LATE,
            lost_repair="The identity is rebuilt from key and geometry, with the default over provision; mappings that "
            "were in a forward page and that the reverse table does not name are dropped (--allow).",
            lost_asks=Consent.LOSES,
        ),
    },
)
