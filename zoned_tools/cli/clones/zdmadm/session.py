"""One run of ``zdmadm`` on an open device: what its verbs share."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoned_tools.cli.changes import execute
from zoned_tools.device.partition import partition_starts
from zoned_tools.device.plan import Plan
from zoned_tools.errors import MetadataError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.format import Place, place_of
from zoned_tools.formats.zdm.probe import probe
from zoned_tools.formats.zdm.superblock import Form, SuperBlock, as_json
from zoned_tools.formats.zdm.table import mapping_name
from zoned_tools.report.documents.clones import ZdmadmDocument, ZdmadmFacts, zdmadm_document
from zoned_tools.report.zdmadm import probe_lines

if TYPE_CHECKING:
    from typing import Unpack

    from zoned_tools.cli.clones.zdmadm.arguments import Arguments
    from zoned_tools.device.base import Device

NO_IDENTITY = 255
"""Exit status of probe, restore, set and unload without a valid identity."""


def _own_start(path: str) -> int | None:
    """First sector of a partition's node on its drive; None for everything else."""
    try:
        status = os.stat(path)
        if not stat.S_ISBLK(status.st_mode):
            return None
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        return int(Path("/sys/dev/block", number, "start").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


class Session:
    """One verb on one open device.

    Attributes:
        quiet: nothing but the JSON document is printed.
        document: that document; None when the verb has printed another one.
        place: where on the device the ZDM is.
    """

    def __init__(self, arguments: Arguments, device: Device) -> None:
        self.arguments = arguments
        self.device = device
        self.quiet = arguments.has("json")
        self.dry_run = arguments.has("dry-run")
        self.document: ZdmadmDocument | None = zdmadm_document(arguments.verb, device.path)
        own = None if arguments.has("start") else _own_start(arguments.path)
        start = self._start_sector() if own is None else own
        self.place: Place = place_of(device, start, own_node=own is not None)

    def _start_sector(self) -> int:
        """``--start``, or the one partition with a ZDM (for create: the only partition), or 0."""
        given = self.arguments.values.get("start")
        if given is not None:
            return int(given)
        starts = partition_starts(self.device)
        if self.arguments.verb == "create":
            return starts[0] // 512 if len(starts) == 1 else 0
        return next((s // 512 for s in (0, *starts) if probe(self.device, s) is not None), 0)

    # -- what is told

    def say(self, *lines: str) -> None:
        if not self.quiet:
            print("\n".join(lines), flush=True)

    def note(self, text: str) -> None:
        print(f"zdmadm: {self.device.path}: {text}", file=sys.stderr)

    def tell(self, **facts: Unpack[ZdmadmFacts]) -> None:
        """Put facts into the document."""
        if self.document is not None:
            self.document = {**self.document, **facts}

    def show(self, identity: SuperBlock) -> None:
        """An identity, as text and in the document."""
        self.say(*probe_lines(identity, self.arguments.path))
        self.tell(identity=as_json(identity))

    def finish(self) -> None:
        """Print the document, where one is wanted."""
        if self.quiet and self.document is not None:
            from zoned_tools.cli.output import print_json

            print_json(self.document)

    # -- what is there

    @property
    def on_block_device(self) -> bool:
        return _is_block_device(self.arguments.path)

    @property
    def target(self) -> Target:
        return Target("zdm", (self.device,), self.place.offset_bytes)

    def identity(self) -> SuperBlock:
        """The identity on the device.

        Raises:
            MetadataError: there is none (exit status 255).
        """
        volume = self.place.volume
        if not volume.has(0, layout.ZEROED_BLOCKS):
            raise MetadataError("too small for a ZDM", device=self.device.path, clone_status=NO_IDENTITY)
        identity = SuperBlock.parse(volume.read(0))
        if not identity.usable:
            what = "the identity is damaged" if identity.magic_ok else "no ZDM found"
            hint = "zdmadm --check tells more" if identity.magic_ok else "name its first sector with --start"
            raise MetadataError(what, device=self.device.path, hint=hint, clone_status=NO_IDENTITY)
        return identity

    def name_of(self, identity: SuperBlock) -> str:
        """What the mapping is called."""
        label = self.arguments.values.get("label", "")
        return mapping_name(replace(identity, label=label) if label else identity, self.arguments.path)

    # -- changes

    def execute(self, plan: Plan, identity: str) -> None:
        """Carry a plan out, or show it."""
        self.tell(plan=list(plan.describe([self.device.path])))
        if self.dry_run and self.quiet:
            return
        changed = execute(
            plan,
            [self.device],
            dry_run=self.dry_run,
            undo=self.arguments.values.get("undo"),
            no_undo=self.arguments.has("no-undo"),
            undo_if_it_fits=True,
            identity_after=identity,
        )
        self.tell(changed=bool(changed))

    def rewrite(self, identity: SuperBlock) -> None:
        """Write the identity with its new values; those of older tools are left as they are."""
        if identity.form is not Form.CRC32_512:
            self.note("the identity is of an older tool and is not rewritten")
            return
        new = identity.pack()
        if new == self.place.volume.read(0):
            return
        plan = Plan(f"rewrite the identity of ZDM {identity.uuid}")
        plan.write(0, self.place.offset_bytes, new, "identity super block")
        plan.flush(0)
        self.execute(plan, str(identity.uuid))

    def send(self, name: str, messages: list[str]) -> None:
        """Send messages to the mapping; the first failure ends it."""
        from zoned_tools.engine import device_mapper

        if self.dry_run or not self.on_block_device:
            return
        for text in messages:
            device_mapper.message(name, text)
