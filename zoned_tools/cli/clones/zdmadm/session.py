"""One run of ``zdmadm`` on an open device: what its verbs share."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from zoned_tools.cli.changes import execute
from zoned_tools.cli.clones.zdmadm.arguments import strtol
from zoned_tools.device.partition import partition_starts
from zoned_tools.device.plan import Plan
from zoned_tools.errors import ContentError, DeviceError, MetadataError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.zdm import layout
from zoned_tools.formats.zdm.constants import DEFAULT_RESERVED, MAX_RESERVED
from zoned_tools.formats.zdm.format import Place, place_of
from zoned_tools.formats.zdm.layout import CreateLayout
from zoned_tools.formats.zdm.probe import probe
from zoned_tools.formats.zdm.superblock import Form, SuperBlock, as_json
from zoned_tools.formats.zdm.table import mapping_name
from zoned_tools.report.documents.clones import ZdmadmDocument, ZdmadmFacts, zdmadm_document
from zoned_tools.report.plans import plan_lines
from zoned_tools.report.stream import write_line, write_lines
from zoned_tools.report.zdmadm import message_commands, probe_lines, scan_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from zoned_tools.cli.clones.zdmadm.arguments import Arguments
    from zoned_tools.device.base import Device
    from zoned_tools.formats.contract import Identity

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
        document: that document.
        place: where on the device the ZDM is.
        meta: where on the metadata device its metadata are; None without one.
        created: what create computes for the device.
    """

    def __init__(self, arguments: Arguments, device: Device, meta: Device | None = None) -> None:
        self.arguments = arguments
        self.device = device
        self.quiet = arguments.has("json")
        self.verbose = arguments.has("verbose")
        self.dry_run = arguments.has("dry-run")
        self.document: ZdmadmDocument = zdmadm_document(arguments.verb, device.path)
        self.place = self._place_on(device, "start", self._only_start)
        self.meta = None if meta is None else self._place_on(meta, "meta-start", lambda _: 0)
        over = strtol(arguments.values.get("over", "0"))
        reserved = over if DEFAULT_RESERVED < over <= MAX_RESERVED else DEFAULT_RESERVED
        self.created = CreateLayout.compute(self.place.start_sector, self.place.size_sectors, reserved)

    def _place_on(self, device: Device, option: str, otherwise: Callable[[Device], int]) -> Place:
        """The partition: where the option says, the device itself, or somewhere on the whole drive."""
        given = self.arguments.sector(option)
        own = _own_start(device.path) if given is None else None
        if own is not None:
            return place_of(device, own, own_node=True)
        return place_of(device, otherwise(device) if given is None else given)

    def _only_start(self, device: Device) -> int:
        """The one partition with a ZDM (for create: the only partition), or 0."""
        starts = partition_starts(device)
        if self.arguments.verb == "create":
            return starts[0] // 512 if len(starts) == 1 else 0
        return next((s // 512 for s in (0, *starts) if probe(device, s) is not None), 0)

    @property
    def home(self) -> Place:
        """Where the identity is read."""
        return self.meta or self.place

    @property
    def written(self) -> list[tuple[int, Place]]:
        """Where metadata are written, with the number of the device in plans."""
        if self.meta is None:
            return [(0, self.place)]
        return [(0, self.place), (1, self.meta)] if self.arguments.has("mirror") else [(1, self.meta)]

    # -- what is told

    def say(self, *lines: str) -> None:
        if not self.quiet and lines:
            write_lines(lines)
            sys.stdout.flush()

    def note(self, text: str) -> None:
        sys.stdout.flush()
        write_line(f"zdmadm: {self.device.path}: {text}", sys.stderr)

    def tell(self, **facts: Unpack[ZdmadmFacts]) -> None:
        """Put facts into the document."""
        self.document = {**self.document, **facts}

    def show(self, identity: SuperBlock) -> None:
        """An identity, as text and in the document."""
        self.say(*probe_lines(identity, self.device.path))
        self.tell(identity=as_json(identity))

    def scan(self) -> None:
        """What is told about every partition."""
        self.say(*scan_lines(self.device.path, self.created, verbose=self.verbose))

    def failure(self, message: str, line: str, status: int = 1) -> MetadataError:
        """There is nothing to work on: the original's line, and the error to raise."""
        self.say(*([line] if line else []))
        return MetadataError(
            message, device=self.home.device.path, hint="name its first sector with --start", clone_status=status
        )

    # -- what is there

    @property
    def target(self) -> Target:
        """What can be opened: the device of a mirror pair is a ZDM like any other."""
        place = self.place if self.arguments.has("mirror") else self.home
        return Target("zdm", (place.device,), place.offset_bytes)

    def probe(self) -> Identity | None:
        """What is where the identity should be."""
        return probe(self.home.device, self.home.offset_bytes)

    def refuse_unfit(self) -> None:
        """Refuse a whole drive, and one without zones, unless forced.

        Raises:
            ContentError: it is refused.
        """
        path, force = self.device.path, self.arguments.has("force")
        if self.place.start_sector == 0:
            if self.arguments.verb == "wipe" or not force:  # create refuses it in any case
                self.say(f"{path} is entire device, not just one partition!")
            if not force:
                self.say("Whole disk .. use -F to force")
                raise ContentError("Whole disk", device=path, hint="use -F to force")
        if not self.device.geometry.is_zoned and not force:
            self.say("Not zoned .. use -F to force")
            raise ContentError("Not zoned", device=path, hint="use -F to force")

    def identity(self, line: str) -> SuperBlock:
        """The identity.

        Args:
            line: what the original prints when there is none.

        Raises:
            MetadataError: there is none (exit status 255).
        """
        volume = self.home.volume
        if not volume.has(0, layout.ZEROED_BLOCKS):
            raise self.failure("too small for a ZDM", line, NO_IDENTITY)
        identity = SuperBlock.parse(volume.read(0))
        if not identity.usable:
            raise self.failure("the identity is damaged" if identity.magic_ok else "no ZDM found", line, NO_IDENTITY)
        return identity

    def identity_document(self, identity: SuperBlock) -> dict[str, object]:
        """An identity as it is on the device once it was packed."""
        return as_json(SuperBlock.parse(identity.pack()))

    def name_of(self, identity: SuperBlock) -> str:
        """What the mapping is called."""
        return mapping_name(identity, self.device.path)

    # -- changes

    @property
    def runs_commands(self) -> bool:
        """Whether dmsetup is run; otherwise its commands are printed."""
        return not self.dry_run and _is_block_device(self.device.path)

    def execute(self, plan: Plan, identity: str) -> None:
        """Carry a plan out, or show it."""
        devices = [self.device] if self.meta is None else [self.device, self.meta.device]
        description = list(plan.describe([device.path for device in devices]))
        self.tell(plan=description)
        if self.dry_run:
            if not self.quiet:
                write_lines(plan_lines(plan, [device.path for device in devices], None), sys.stderr)
            return
        changed = execute(
            plan,
            devices,
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
        plan = Plan(f"rewrite the identity of ZDM {identity.uuid}")
        for number, place in self.written:
            if new != place.volume.read(0):
                plan.write(number, place.offset_bytes, new, "identity super block")
                plan.flush(number)
        if plan.steps:
            self.execute(plan, str(identity.uuid))

    def send(self, name: str, messages: list[str]) -> int:
        """Send messages to the mapping, or show them; the first failure ends it, and is the exit status."""
        from zoned_tools.device import device_mapper

        for text, command in zip(messages, message_commands(name, messages), strict=True):
            if self.verbose or not self.runs_commands:
                self.say(command)
            if not self.runs_commands:
                continue
            try:
                device_mapper.message(name, text)
            except DeviceError as error:
                return self.command_failed("Modify (msg) ZDM instance failed", error)
        return 0

    def command_failed(self, line: str, error: DeviceError) -> int:
        """dmsetup failed, with exit status 1: the verb goes on, and fails in the end."""
        self.say(f"{line}: 256")
        self.note(str(error))
        return 1
