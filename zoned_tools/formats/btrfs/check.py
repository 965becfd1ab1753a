"""Check of the super blocks of a btrfs: rings, mirrors, features, geometry; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass

from zoned_tools.formats.btrfs.findings import findings_of
from zoned_tools.formats.btrfs.survey import FileSystem, survey_file_system
from zoned_tools.formats.contract import CheckOptions, Evidence, Target
from zoned_tools.formats.shared.findings import Findings


@dataclass(slots=True, kw_only=True)
class BtrfsEvidence(Evidence):
    """What a check of one file system found.

    Attributes:
        survey: every device's super blocks, and the reader of the trees with what it read so far.
    """

    survey: FileSystem


def check(target: Target, options: CheckOptions) -> BtrfsEvidence:
    """Check all devices of one file system.

    With ``options.deep`` also every inode of the file system is looked at.

    Raises:
        DeviceError: a super block that was read before cannot be read again.
    """
    fs = survey_file_system(target)
    findings = Findings(findings_of(fs, deep=options.deep))
    return BtrfsEvidence(target, findings, _facts(fs), survey=fs)


def _facts(fs: FileSystem) -> dict[str, object]:
    facts: dict[str, object] = {}
    newest = fs.newest
    if newest is not None:
        facts.update(fsid=str(newest.fsid), generation=newest.generation)
    facts["valid_super_blocks"] = sum(int(m.copies["valid"].sum()) for s in fs.surveys for m in s.mirrors)
    return facts
