"""Check of a btrfs: super blocks, devices, trees, and block groups against zones; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoned_tools.formats.btrfs.block_group_findings import block_group_findings, told_zones
from zoned_tools.formats.btrfs.block_groups import BlockGroups, block_groups_of
from zoned_tools.formats.btrfs.data_findings import DataSurvey, data_findings, survey_data
from zoned_tools.formats.btrfs.findings import findings_of
from zoned_tools.formats.btrfs.survey import FileSystem, survey_file_system
from zoned_tools.formats.btrfs.tree_findings import node_findings, root_findings, roots_finding
from zoned_tools.formats.btrfs.tree_survey import TreeSurvey, lost_root, survey_trees
from zoned_tools.formats.contract import CheckOptions, Evidence, Target
from zoned_tools.formats.shared.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zoned_tools.formats.btrfs.layout import SuperBlock
    from zoned_tools.formats.btrfs.survey import Where
    from zoned_tools.formats.shared.findings import FindingGroup


@dataclass(slots=True, kw_only=True)
class BtrfsEvidence(Evidence):
    """What a check of one file system found.

    Attributes:
        survey: every device's super blocks, and the reader of the trees with what it read so far.
        trees: those of the super block that the kernel would mount; None where its roots cannot be read.
        groups: its block groups; None also where it is not zoned.
        data: what was read of the data; None where that was not asked for.
    """

    survey: FileSystem
    trees: TreeSurvey | None = None
    groups: BlockGroups | None = None
    data: DataSurvey | None = None


def check(target: Target, options: CheckOptions) -> BtrfsEvidence:
    """Check all devices of one file system.

    With ``options.deep`` every tree is read to its leaves; without, what block groups are compared with. With the
    setting ``data`` file data are held against their checksums, too.

    Raises:
        DeviceError: a super block that was read before cannot be read again.
    """
    fs = survey_file_system(target)
    evidence = BtrfsEvidence(target, Findings(findings_of(fs)), survey=fs)
    with_data = options.settings.on("data")
    evidence.findings += _tree_findings(evidence, deep=options.deep or with_data)
    if with_data and evidence.trees is not None:
        evidence.data = survey_data(fs, evidence.trees)
        evidence.findings += data_findings(fs, evidence.trees, evidence.data)
    evidence.facts = _facts(evidence)
    return evidence


def _facts(evidence: BtrfsEvidence) -> dict[str, object]:
    fs, trees = evidence.survey, evidence.trees
    facts: dict[str, object] = {}
    newest = fs.newest
    if newest is not None:
        facts.update(fsid=str(newest.fsid), generation=newest.generation)
    facts["valid_super_blocks"] = sum(int(m.copies["valid"].sum()) for s in fs.surveys for m in s.mirrors)
    if trees is not None:
        facts.update(trees_checked="all" if trees.deep else "roots", nodes_read=len(trees.walk.good))
    if evidence.data is not None:
        facts["data_checked_bytes"] = evidence.data.checked_bytes
    return facts


def _tree_findings(evidence: BtrfsEvidence, *, deep: bool) -> Iterator[FindingGroup]:
    """What the trees of one super block say of themselves and of the zones."""
    fs = evidence.survey
    chosen = _mounted(fs)
    if chosen is None:
        return
    block, where = chosen
    where["generation"] = block.generation
    roots = fs.reader.roots_readable(block)
    if roots.readable is False:
        lost = lost_root(fs.reader, block, fs.zone_states(block))
        yield roots_finding(f"generation {block.generation}: {roots.reason}", where, lost)
    if not roots.readable:  # untold only where a device is missing, which is a finding
        return
    zones = fs.zone_states(block)
    trees = evidence.trees = survey_trees(fs.reader, block, zones, deep=deep)
    yield from root_findings(fs, block, where, trees)
    told = set()
    if block.is_zoned:
        found = evidence.groups = block_groups_of(trees, zones)
        told = told_zones(found)
        yield from block_group_findings(fs, trees, zones, found)
    yield from node_findings(fs, block, trees, told)


def _mounted(fs: FileSystem) -> tuple[SuperBlock, Where] | None:
    """The super block whose trees count, and its place: what the kernel would mount, which is the valid head with the
    highest generation of all devices; where no device has one, the newest valid, which a repair makes the head."""
    heads, others = [], []
    for index, survey in enumerate(fs.surveys):
        first, best = survey.mirror(0), survey.best
        if first is not None and first.valid_head is not None:
            heads.append((survey.super_block(first.valid_head), fs.where(index, first)))
        elif best is not None:
            others.append((survey.super_block(best[1]), fs.where(index, best[0])))
    return max(heads or others, key=lambda one: one[0].generation, default=None)
