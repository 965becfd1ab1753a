"""Files: reads, writes, truncates and their refusals, the error policies, explicit-open."""

from __future__ import annotations

import errno
import itertools
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.formats.zonefs.images import make_image
from zoned_tools.device.image import open_image
from zoned_tools.device.overlay import Overlay
from zoned_tools.device.plan import apply_plan
from zoned_tools.device.zones import ZoneCondition, ZoneTable
from zoned_tools.errors import UsageError
from zoned_tools.formats.contract import Target
from zoned_tools.formats.zonefs.features import FeatureSet
from zoned_tools.formats.zonefs.format import plan_volume
from zoned_tools.formats.zonefs.mapper.files import FileError
from zoned_tools.formats.zonefs.mapper.mount_options import ErrorPolicy, after_error
from zoned_tools.formats.zonefs.mapper.open import ZonefsTree, open_tree
from zoned_tools.formats.zonefs.parameters import Parameters
from zoned_tools.formats.zonefs.transfer import plan_put

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zoned_tools.device.emulated import EmulatedDrive

KIB = 1024
BLOCK = 4096
CAPACITY = 48 * KIB
FILES = [f"/seq/{n}" for n in range(4)] + ["/cnv/0", "/cnv/1"]


def small_image(path: Path, **options: object) -> Path:
    """Seven zones of 64 KiB: conventional 0 to 2, sequential 3 to 6 with a capacity of 48 KiB."""
    keywords: dict[str, object] = {"size_bytes": 7 * 64 * KIB, "zone_bytes": 64 * KIB, "conventional": 3}
    make_image(path, **(keywords | {"capacity_bytes": CAPACITY} | options))  # type: ignore[arg-type]
    with open_image(str(path), writable=True) as device:
        block = Parameters(features=FeatureSet()).super_block()
        apply_plan([device], plan_volume(device, device.zones(), block).steps)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> EmulatedDrive:
    return open_image(str(small_image(tmp_path_factory.mktemp("zonefs") / "disk.img")))


def mounted(device: EmulatedDrive, *, writable: bool = True, **options: str) -> ZonefsTree:
    named = {key.replace("_", "-"): value for key, value in options.items()}
    return open_tree(Target("zonefs", (device,)), writable=writable, options=named)


def outcome(call: Callable[[], object]) -> object:
    """What a call returned, or the name of its errno."""
    try:
        return call()
    except FileError as error:
        return errno.errorcode[error.errno]


class TreeMachine(RuleBasedStateMachine):
    """Any sequence of operations against files that are just bytes."""

    base: EmulatedDrive

    def __init__(self) -> None:
        super().__init__()
        self.device = Overlay(self.base)
        self.tree = mounted(self.device)
        self.files = {path: bytearray(64 * KIB) if path.startswith("/cnv") else bytearray() for path in FILES}

    def limit(self, path: str) -> int:
        return 64 * KIB if path.startswith("/cnv") else CAPACITY

    def expected_write(self, path: str, offset: int, length: int, *, direct: bool, at_end: bool) -> object:
        sequential, size, limit = path.startswith("/seq"), len(self.files[path]), self.limit(path)
        if length == 0:
            return 0
        if offset >= limit:
            return "EFBIG"
        if sequential and not direct:
            return "EIO"
        if at_end:
            if not sequential:
                return "EINVAL"
            offset = size
        if offset >= limit:
            return "EFBIG"
        length = min(length, limit - offset)
        if direct and (offset % BLOCK or length % BLOCK):
            return "EINVAL"
        if sequential and offset != size:
            return "EINVAL"
        return length

    @rule(
        path=st.sampled_from(FILES),
        blocks=st.integers(0, 17),
        skew=st.sampled_from((0, 0, 0, 0, 512, 100)),
        length=st.sampled_from((0, 100, 512, BLOCK, BLOCK, 2 * BLOCK, 5 * BLOCK, 40 * KIB, 80 * KIB)),
        fill=st.integers(1, 255),
        direct=st.booleans(),
        at_end=st.booleans(),
    )
    def write(self, path: str, blocks: int, skew: int, length: int, fill: int, *, direct: bool, at_end: bool) -> None:
        offset = blocks * BLOCK + skew
        data = bytes([fill]) * length
        expected = self.expected_write(path, offset, length, direct=direct, at_end=at_end)
        assert outcome(lambda: self.tree.write(path, offset, data, direct=direct, at_end=at_end)) == expected
        if isinstance(expected, int) and expected:
            if at_end:
                offset = len(self.files[path])
            self.files[path][offset : offset + expected] = data[:expected]

    @rule(path=st.sampled_from(FILES[:4]), blocks=st.integers(1, 4), fill=st.integers(1, 255))
    def append(self, path: str, blocks: int, fill: int) -> None:
        data = bytes([fill]) * (blocks * BLOCK)
        expected = self.expected_write(path, 0, len(data), direct=True, at_end=True)
        assert outcome(lambda: self.tree.append(path, data)) == expected
        if isinstance(expected, int):
            self.files[path] += data[:expected]

    @rule(path=st.sampled_from(FILES), size=st.sampled_from((0, 0, BLOCK, CAPACITY, 64 * KIB, 65 * KIB, "same")))
    def truncate(self, path: str, size: int | str) -> None:
        wanted = len(self.files[path]) if isinstance(size, str) else size
        allowed = path.startswith("/seq") and wanted in (0, CAPACITY)
        expected = None if allowed else "EFBIG" if wanted > 64 * KIB else "EPERM"
        assert outcome(lambda: self.tree.truncate(path, wanted)) == expected
        if allowed:
            self.files[path] = self.files[path][:wanted].ljust(wanted, b"\0")

    @rule(path=st.sampled_from(FILES), offset=st.integers(0, 70 * KIB), length=st.integers(0, 70 * KIB))
    def read(self, path: str, offset: int, length: int) -> None:
        assert self.tree.read(path, offset, length) == bytes(self.files[path][offset : offset + length])

    @rule(writable=st.booleans())
    def mount_again(self, *, writable: bool) -> None:
        self.tree.close()
        if not writable:
            tree = mounted(self.device, writable=False)
            assert outcome(lambda: tree.append("/seq/0", bytes(BLOCK))) == "EROFS"
        self.tree = mounted(self.device)
        conditions = set(self.device.zones()["condition"][3:].tolist())
        assert conditions <= {ZoneCondition.EMPTY, ZoneCondition.CLOSED, ZoneCondition.FULL}

    @invariant()
    def sizes_and_accounting(self) -> None:
        for path, content in self.files.items():
            assert self.tree.stat(path).size_bytes == len(content)
            assert self.tree.read(path, 0, 1 << 20) == bytes(content)
        active = sum(0 < len(self.files[path]) < CAPACITY for path in FILES[:4])
        assert self.tree.attributes()["nr_active_seq_files"] == active


def test_any_operations(base: EmulatedDrive) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    TreeMachine.base = base
    run_state_machine_as_test(TreeMachine, settings=settings(max_examples=60, stateful_step_count=25))


def test_survives_close(tmp_path: Path) -> None:
    """What was written is there for the next one who opens the image, zones closed."""
    image = small_image(tmp_path / "disk.img")
    with open_image(str(image), writable=True) as device, mounted(device) as tree:
        tree.append("/seq/1", b"a" * BLOCK)
        tree.truncate("/seq/2", CAPACITY)
    with open_image(str(image)) as device:
        assert device.zones()["condition"].tolist()[3:] == [1, 4, 14, 1]
        assert mounted(device, writable=False).read("/seq/1", 0, 9999) == b"a" * BLOCK


def test_names(base: EmulatedDrive) -> None:
    tree = mounted(base, writable=False)
    for path in ("/seq/00", "/seq/4", "/seq/-1", "/seq/+1", "/seq/1_0", "/seq/٣", "/cnv/x", "/x", "/seq/" + "9" * 5000):
        assert outcome(partial(tree.stat, path)) == "ENOENT"
    assert outcome(lambda: tree.stat("/seq/0/x")) == "ENOTDIR"
    assert outcome(lambda: tree.list_directory("/seq/0")) == "ENOTDIR"
    assert outcome(lambda: tree.read("/seq", 0, 1)) == "EISDIR"
    assert tree.stat("seq/3/").path == "/seq/3"


def test_direct_reads(base: EmulatedDrive) -> None:
    tree = mounted(Overlay(base))
    tree.append("/seq/0", b"x" * BLOCK * 2)
    assert outcome(lambda: tree.read("/seq/0", 1, BLOCK, direct=True)) == "EINVAL"
    assert outcome(lambda: tree.read("/seq/0", 0, 100, direct=True)) == "EINVAL"
    assert len(tree.read("/seq/0", BLOCK, 9 * BLOCK, direct=True)) == BLOCK
    assert tree.read("/seq/0", BLOCK * 2, BLOCK, direct=True) == b""


def test_dead_at_mount(tmp_path: Path) -> None:
    def kill(table: ZoneTable) -> None:
        table["condition"][[1, 3]] = ZoneCondition.READ_ONLY
        table["condition"][[2, 4]] = ZoneCondition.OFFLINE

    image = small_image(tmp_path / "disk.img", edit=kill)
    with open_image(str(image), writable=True) as device, mounted(device) as tree:
        for path, size in (("/cnv/0", 64 * KIB), ("/cnv/1", 0), ("/seq/0", 0), ("/seq/1", 0)):
            entry = tree.stat(path)
            assert (entry.size_bytes, entry.mode & 0o777) == (size, 0)
            for call in (
                lambda path=path: tree.read(path, 0, 1),
                lambda path=path: tree.write(path, 0, bytes(BLOCK)),
                lambda path=path: tree.truncate(path, 0),
                lambda path=path: tree.chmod(path, 0o600),
                lambda path=path: tree.chown(path, 1, 1),
                lambda path=path: tree.open(path, writing=True),
                lambda path=path: plan_put(tree, path, 0),
            ):
                assert outcome(call) == "EPERM"
        assert len(tree.read_raw("/seq/0", 0, 1 << 20)) == CAPACITY
        assert outcome(lambda: tree.read_raw("/seq/1", 0, 1)) == "EIO"


def test_attributes_in_memory(base: EmulatedDrive) -> None:
    tree = mounted(Overlay(base))
    tree.chmod("/seq/0", 0o100777)
    tree.chown("seq/0", 5, -1)
    entry = tree.stat("/seq/0")
    assert (entry.mode, entry.uid, entry.gid) == (0o100777, 5, 0)
    assert outcome(lambda: tree.chmod("/seq", 0o755)) == "EPERM"
    tree.chmod("/seq", 0o500)
    assert tree.stat("/seq").mode == 0o40500


# -- error policies

_GOOD, _RO, _OFF = ZoneCondition.CLOSED, ZoneCondition.READ_ONLY, ZoneCondition.OFFLINE
TABLE = {
    # policy: (good, read-only, offline) as (size, read, write), by the kernel's documentation
    "remount-ro": (("fixed", True, False), ("same", True, False), (0, False, False)),
    "zone-ro": (("same", True, False), ("same", True, False), (0, False, False)),
    "zone-offline": ((0, False, False), (0, False, False), (0, False, False)),
    "repair": (("fixed", True, True), ("same", True, False), (0, False, False)),
}


@pytest.mark.parametrize(
    ("policy", "column", "written"), list(itertools.product(TABLE, range(3), (0, 3 * BLOCK, 6 * BLOCK)))
)
def test_error_policy(base: EmulatedDrive, policy: str, column: int, written: int) -> None:
    """A failing write on a zone whose state changed behind the mount's back."""
    device = Overlay(base)
    tree = mounted(device, errors=policy)
    tree.append("/seq/1", b"d" * (3 * BLOCK))
    size, readable, writable = TABLE[policy][column]
    row = device.machine.table[4:5]
    if column:
        row["condition"] = (_RO, _OFF)[column - 1]
    else:
        row["wp_sector"] = row["start_sector"] + written // 512
        row["condition"] = ZoneCondition.CLOSED if written else ZoneCondition.EMPTY
        if written == 3 * BLOCK:  # the zone is as it was: nothing fails
            assert tree.append("/seq/1", bytes(BLOCK)) == BLOCK
            return
    assert outcome(lambda: tree.append("/seq/1", bytes(BLOCK))) in ("EIO", "EPERM")
    expected = {"fixed": written, "same": 3 * BLOCK, 0: 0}[size]
    if policy == "remount-ro" and size == "fixed":
        expected = min(written, 3 * BLOCK)
    entry = tree.stat("/seq/1")
    assert entry.size_bytes == expected
    assert tree.read_only == (policy == "remount-ro")
    read = outcome(lambda: tree.read("/seq/1", 0, BLOCK))
    assert (read != "EPERM") == readable
    write = outcome(lambda: tree.append("/seq/1", bytes(BLOCK)))
    assert write == (BLOCK if writable else ("EROFS" if policy == "remount-ro" else "EPERM"))
    assert outcome(lambda: tree.append("/seq/0", bytes(BLOCK))) == ("EROFS" if tree.read_only else BLOCK)
    if not writable and policy != "remount-ro":
        assert entry.mode & 0o777 == (0o440 if readable else 0)


def test_failed_read_of_a_good_zone_changes_nothing() -> None:
    for policy in ErrorPolicy:
        assert after_error(policy, _GOOD, writing=False, size_bytes=8192, written_bytes=8192) is None


def test_read_error_takes_an_offline_file_away(base: EmulatedDrive) -> None:
    device = Overlay(base)
    tree = mounted(device, errors="repair")
    tree.append("/seq/0", bytes(BLOCK))
    device.machine.table["condition"][3] = _OFF
    assert outcome(lambda: tree.read("/seq/0", 0, BLOCK)) == "EIO"
    assert outcome(lambda: tree.read("/seq/0", 0, BLOCK)) == "EPERM"
    assert tree.stat("/seq/0").mode == 0o100000
    assert tree.attributes()["nr_active_seq_files"] == 0


@pytest.mark.parametrize(
    "text", ["errors=ignore", "errors", "explicit_open", "explicit-open=no", "explicit-open=", "foo"]
)
def test_bad_mount_options(base: EmulatedDrive, text: str) -> None:
    key, _, value = text.partition("=")
    with pytest.raises(UsageError):
        open_tree(Target("zonefs", (base,)), writable=False, options={key: value})


# -- explicit-open


@pytest.fixture
def limited(tmp_path: Path) -> EmulatedDrive:
    return open_image(str(small_image(tmp_path / "disk.img", max_open=2, max_active=3, vendor="QEMU NVMe Ctrl 1.0")))


def test_explicit_open(limited: EmulatedDrive) -> None:
    """The limits and the states of the zones, as the kernel's documentation tells them."""
    device = Overlay(limited)
    tree = mounted(device, explicit_open="1")
    assert tree.attributes() == {
        "max_wro_seq_files": 2,
        "nr_wro_seq_files": 0,
        "max_active_seq_files": 3,
        "nr_active_seq_files": 0,
    }
    one, two = tree.open("/seq/0", writing=True), tree.open("/seq/1", writing=True)
    assert device.zones()["condition"][3:5].tolist() == [ZoneCondition.EXPLICIT_OPEN] * 2
    assert tree.attributes()["nr_wro_seq_files"] == 2
    assert tree.attributes()["nr_active_seq_files"] == 2
    assert outcome(lambda: tree.open("/seq/2", writing=True)) == "EBUSY"
    again = tree.open("/seq/0", writing=True)
    reader = tree.open("/seq/2")
    tree.append("/seq/0", bytes(BLOCK))
    tree.release(one)
    assert device.zones()["condition"][3] == ZoneCondition.EXPLICIT_OPEN
    tree.release(again)
    assert device.zones()["condition"][3] == ZoneCondition.CLOSED
    tree.release(two)  # nothing was written: reset, or the zone would stay active
    assert device.zones()["condition"][4] == ZoneCondition.EMPTY
    tree.release(reader)
    assert tree.attributes()["nr_wro_seq_files"] == 0
    assert tree.attributes()["nr_active_seq_files"] == 1


def test_explicit_open_and_truncate(limited: EmulatedDrive) -> None:
    device = Overlay(limited)
    tree = mounted(device, explicit_open="1")
    handle = tree.open("/seq/0", writing=True)
    tree.append("/seq/0", bytes(BLOCK))
    tree.truncate("/seq/0", 0)
    assert device.zones()["condition"][3] == ZoneCondition.EXPLICIT_OPEN
    tree.truncate("/seq/0", CAPACITY)
    assert device.zones()["condition"][3] == ZoneCondition.FULL
    assert tree.attributes()["nr_active_seq_files"] == 0
    tree.release(handle)
    assert device.zones()["condition"][3] == ZoneCondition.FULL
    handle = tree.open("/seq/0", writing=True)  # full: nothing to open
    assert device.zones()["condition"][3] == ZoneCondition.FULL
    tree.release(handle)
    truncating = tree.open("/seq/0", writing=True, truncate=True)
    assert tree.stat("/seq/0").size_bytes == 0
    tree.release(truncating)
    assert outcome(lambda: tree.open("/cnv/0", writing=True, truncate=True)) == "EPERM"
    assert tree.attributes()["nr_wro_seq_files"] == 0


def test_explicit_open_needs_limits(base: EmulatedDrive) -> None:
    device = Overlay(base)
    tree = mounted(device, explicit_open="1")
    tree.open("/seq/0", writing=True)
    assert device.zones()["condition"][3] == ZoneCondition.EMPTY


def test_drive_limit_is_reported(limited: EmulatedDrive) -> None:
    """The third active zone is the last one; the drive's own errno comes through."""
    tree = mounted(Overlay(limited), errors="repair")
    for path in FILES[:3]:
        tree.append(path, bytes(BLOCK))
    assert outcome(lambda: tree.append("/seq/3", bytes(BLOCK))) == "EOVERFLOW"
    assert tree.attributes()["nr_active_seq_files"] == 3
