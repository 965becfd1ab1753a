"""The super block rings of a zoned btrfs, beside mkfs.btrfs, dump-super and the kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import devices
from tests.lab.btrfs_mounts import (
    MOUNT_POINT,
    commit,
    fsync_file,
    kernel_log,
    make_file_system,
    mounted,
    mounted_generation,
    try_mount,
    unmount,
)
from tests.lab.devices import MIB, null_blk, run
from tests.lab.programs import program
from zoned_tools.device.base import ZoneOperation
from zoned_tools.device.image import create_image, open_image
from zoned_tools.device.opening import open_device

pytestmark = pytest.mark.lab(guest="file-systems", **devices.MACHINE)

SUPER_BYTES = 4096
RING_ZONES = (0, 1)


@pytest.fixture(autouse=True)
def nothing_stays_mounted() -> Iterator[None]:
    """A failed test must not be the next one's."""
    yield
    run("umount", MOUNT_POINT, check=False)


def supers(device: str, *options: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(program("zoned", "btrfs", "supers", "--json", *options, device).out)
    return result


def latest(device: str) -> dict[str, Any]:
    out = program("zoned", "btrfs", "supers", "--json", "--latest", device).out
    choice: dict[str, Any] = json.loads(out)["kernel_choice"]
    return choice


def dump_super(device: str) -> tuple[int, str] | None:
    """``(generation, checksum)`` that btrfs-progs finds; None when it finds nothing."""
    done = run("btrfs", "inspect-internal", "dump-super", device, check=False)
    if done.returncode:
        assert "bad magic" in done.stderr, done.stderr
        return None
    generation = re.search(r"^generation\s+(\d+)$", done.stdout, re.MULTILINE)
    csum = re.search(r"^csum\s+0x([0-9a-f]+) \[match\]$", done.stdout, re.MULTILINE)
    assert generation is not None, done.stdout
    assert csum is not None, done.stdout
    return int(generation.group(1)), csum.group(1)


def our_csum(device: str, offset: int) -> str:
    with open_device(device) as opened:
        return opened.read(offset, 4).hex()


def ring_fills(device: str) -> tuple[str, str]:
    first, second = (zone["fill"] for zone in supers(device)["rings"][0]["zone_states"])
    return first, second


def assert_agreement(device: str, *, progs_is_right: bool) -> int:
    """Our latest is dump-super's, the full listing agrees, and the check finds nothing; returns the generation.

    ``btrfs-progs`` 6.2 looks for the last slot of a full zone at the zone's end, which is
    wrong for a capacity below the zone size; only then it may find nothing.
    """
    choice = latest(device)
    theirs = dump_super(device)
    ring = supers(device)["rings"][0]
    assert ring["state"] == "ok"
    assert ring["kernel_choice"]["offset_bytes"] == choice["offset_bytes"]
    assert ring["newest_valid"] == ring["kernel_choice"]
    if theirs is None:
        assert not progs_is_right
        assert ring["kernel_choice"] == ring["copies"][-1] or ring["next_write_bytes"] in (0, 4 * MIB)
    else:
        assert (choice["generation"], our_csum(device, choice["offset_bytes"])) == theirs
    generation: int = choice["generation"]
    return generation


def slots_left(device: str) -> int:
    """Super blocks that fit into the ring zone in use; 0 when no zone is."""
    with open_device(device) as opened:
        table = opened.zones(0, 2)
    in_use = table[(table["condition"] != 0x1) & (table["condition"] != 0xE)]
    if not len(in_use):
        return 0
    row = in_use[0]
    return int(row["start_sector"] + row["capacity_sectors"] - row["wp_sector"]) * 512 // SUPER_BYTES


@pytest.mark.parametrize(("capacity_mib", "zones_filled"), [(1, 8), (4, 4)])
def test_rings_wrap_under_commits(capacity_mib: int, zones_filled: int) -> None:
    """The kernel commits, each zone of the ring becomes full again and again; at every stop both tools see the same."""
    slots = capacity_mib * MIB // SUPER_BYTES
    fills = []
    with null_blk(size_mib=512, zone_mib=4, zone_capacity=capacity_mib) as disk:
        fsid = make_file_system(disk.path)
        with mounted(disk.path) as directory:
            seen = [assert_agreement(disk.path, progs_is_right=capacity_mib == 4)]
            for _ in range(zones_filled):
                for count in (slots // 3, slots_left(disk.path) - slots // 3 - 1, 1, 1):
                    commit(directory, count)
                    seen.append(assert_agreement(disk.path, progs_is_right=capacity_mib == 4))
                    # the number is one higher while a transaction that nothing has committed is open
                    assert mounted_generation(fsid) - seen[-1] in (0, 1)
                    fills.append(ring_fills(disk.path))
        assert seen == sorted(seen)
        assert seen[-1] - seen[0] >= (zones_filled - 1) * slots
        assert {("in-use", "empty"), ("full", "in-use"), ("in-use", "full")} <= set(fills)
        assert {("full", "empty"), ("full", "full")} & set(fills)
        program("zoned", "check", disk.path)
        run("btrfs", "check", disk.path, check=capacity_mib == 4)


@pytest.fixture(scope="module")
def aged() -> Iterator[tuple[str, str]]:
    """``(device, fsid)`` of a file system with hundreds of commits, not mounted, the files telling the time."""
    with null_blk(size_mib=256, zone_mib=4) as disk:
        fsid = make_file_system(disk.path)
        with mounted(disk.path) as directory:
            for number in range(300):
                (directory / f"f{number % 7}").write_text(f"{number}\n" * 500)
                commit(directory)
        yield disk.path, fsid


def test_rollback_is_what_the_kernel_mounts(aged: tuple[str, str], tmp_path: Path) -> None:
    device, fsid = aged
    copies = supers(device, "--roots")["rings"][0]["copies"]
    readable = sorted({c["generation"] for c in copies if c["roots_readable"]})
    gone = sorted({c["generation"] for c in copies if c["valid"]} - set(readable))
    newest = readable[-1]
    chosen = sorted({*readable[-6:-1], *readable[: -6 : max(len(readable) // 6, 1)]})
    assert len(chosen) >= 5
    outcomes = set()
    for generation in chosen:
        undo = str(tmp_path / f"undo-{generation}")
        done = program("zoned", "btrfs", "rollback", "--to-generation", generation, "--undo", undo, device)
        predicted_failure = "will refuse" in done.err
        failure = try_mount(device, "ro")
        if not failure:
            assert mounted_generation(fsid) == generation
            unmount()
        assert bool(failure) == predicted_failure, f"generation {generation}: {failure}\n{done.err}\n{kernel_log()}"
        outcomes.add(bool(failure))
        assert latest(device)["generation"] == generation
        program("zoned", "undo", undo, device)
        assert latest(device)["generation"] == newest
    assert False in outcomes
    for generation in gone[:: max(len(gone) // 3, 1)]:
        refused = program("zoned", "btrfs", "rollback", "--to-generation", generation, device, status=8)
        assert "roots" in refused.err
    with mounted(device, "ro"):
        assert mounted_generation(fsid) == newest


def test_life_goes_on_after_a_rollback(aged: tuple[str, str]) -> None:
    device, fsid = aged
    copies = supers(device, "--roots")["rings"][0]["copies"]
    generation = sorted({c["generation"] for c in copies if c["roots_readable"]})[-3]
    program("zoned", "btrfs", "rollback", "--to-generation", generation, device)
    with mounted(device) as directory:
        assert mounted_generation(fsid) in (generation, generation + 1)
        commit(directory, 20)
        final = mounted_generation(fsid)
    assert assert_agreement_after_rollback(device) >= final
    run("btrfs", "check", device)


def assert_agreement_after_rollback(device: str) -> int:
    choice = latest(device)
    assert dump_super(device) == (choice["generation"], our_csum(device, choice["offset_bytes"]))
    generation: int = choice["generation"]
    return generation


# -- repair


def append_block(device: str, zone: int, block: bytes) -> None:
    """Write one block at a zone's write pointer, whatever the ring's rules say."""
    with open_device(device, writable=True) as opened:
        row = opened.zones(zone, 1)[0]
        opened.write(int(row["wp_sector"]) * 512, block)


def newest_block(device: str) -> bytes:
    with open_device(device) as opened:
        return opened.read(latest(device)["offset_bytes"], SUPER_BYTES)


def torn(block: bytes) -> bytes:
    return block[:1536] + bytes(SUPER_BYTES - 1536)


def fill_zone(device: str, zone: int, block: bytes, leave: int = 0) -> None:
    with open_device(device, writable=True) as opened:
        row = opened.zones(zone, 1)[0]
        at = int(row["wp_sector"]) * 512
        end = int(row["start_sector"] + row["capacity_sectors"]) * 512
        opened.write(at, block * ((end - at) // SUPER_BYTES - leave))


def manage(device: str, operation: ZoneOperation, zone: int) -> None:
    with open_device(device, writable=True) as opened:
        opened.manage(operation, zone)


def _head_torn(device: str) -> None:
    append_block(device, 0, torn(newest_block(device)))


def _last_slot_torn(device: str) -> None:
    block = newest_block(device)
    fill_zone(device, 0, block, leave=1)
    append_block(device, 0, torn(block))


def _both_full_newest_torn(device: str) -> None:
    block = newest_block(device)
    fill_zone(device, 0, block)
    fill_zone(device, 1, block, leave=1)
    append_block(
        device, 1, torn(block[:72] + (int.from_bytes(block[72:80], "little") + 1).to_bytes(8, "little") + block[80:])
    )


def _both_full_newest_zero(device: str) -> None:
    """The kernel takes the other zone's last block: it mounts, but an old generation."""
    block = newest_block(device)
    with open_device(device) as opened:
        fill = opened.read(0, SUPER_BYTES)
    fill_zone(device, 0, fill)
    fill_zone(device, 1, block, leave=1)
    append_block(device, 1, bytes(SUPER_BYTES))


def _both_full_older_claims_much(device: str) -> None:
    block = newest_block(device)
    fill_zone(device, 0, block, leave=1)
    append_block(device, 0, block[:72] + (1 << 60).to_bytes(8, "little") + block[80:])
    fill_zone(device, 1, block)


def _both_in_use(device: str) -> None:
    append_block(device, 1, newest_block(device))


def _first_empty_second_in_use(device: str) -> None:
    block = newest_block(device)
    manage(device, ZoneOperation.RESET, 0)
    append_block(device, 1, block)


DAMAGES = (
    _head_torn,
    _last_slot_torn,
    _both_full_newest_torn,
    _both_full_newest_zero,
    _both_full_older_claims_much,
    _both_in_use,
    _first_empty_second_in_use,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__.strip("_"))
def test_repaired_rings_mount(damage: Any) -> None:
    with null_blk(size_mib=128, zone_mib=4, zone_capacity=1) as disk:
        fsid = make_file_system(disk.path)
        with mounted(disk.path) as directory:
            commit(directory, 3)
        generation = latest(disk.path)["generation"]
        damage(disk.path)
        if not try_mount(disk.path, "ro"):
            assert mounted_generation(fsid) < generation, "the damage does not harm"
            unmount()
        program("zoned", "check", disk.path, status=4)
        program("zoned", "check", "--repair", disk.path, status=1)
        with mounted(disk.path) as directory:
            assert mounted_generation(fsid) == generation
            assert (directory / "f").read_bytes() == b"x"
            commit(directory, 2)
        program("zoned", "check", disk.path)
        run("btrfs", "check", disk.path)


def test_mirror_zero_is_rebuilt_from_another() -> None:
    """A drive large enough for all three mirrors loses both zones of the first."""
    with null_blk(size_mib=4300000 // 8192 * 8192, zone_mib=8192) as disk:
        fsid = make_file_system(disk.path)
        with mounted(disk.path) as directory:
            commit(directory, 5)
        document = supers(disk.path)
        assert [ring["mirror"] for ring in document["rings"]] == [0, 1, 2]
        generation = latest(disk.path)["generation"]
        assert {ring["kernel_choice"]["generation"] for ring in document["rings"]} == {generation}
        program("zoned", "check", disk.path)
        for zone in RING_ZONES:
            manage(disk.path, ZoneOperation.RESET, zone)
        assert try_mount(disk.path)
        program("zoned", "check", "--repair", disk.path, status=1)
        with mounted(disk.path) as directory:
            assert mounted_generation(fsid) == generation
            commit(directory, 2)
        program("zoned", "check", disk.path)


# -- snapshots of a file system in use


def snapshot(device: str, image: str) -> None:
    """Copy a drive to an image, super block zones last: what a power cut at that moment leaves."""
    with open_device(device) as source:
        table = source.zones()
        fresh = table.copy()
        fresh["condition"], fresh["wp_sector"] = 1, fresh["start_sector"]
        create_image(image, source.geometry, fresh, overwrite=True)
        with open_image(image, writable=True) as copy:
            _copy_zones(source, copy, table)


def _copy_zones(source: Any, target: Any, table: Any) -> None:
    for zone, row in enumerate(table):
        start = int(row["start_sector"]) * 512
        full = row["condition"] == 0xE
        length = int(row["capacity_sectors"]) * 512 if full else int(row["wp_sector"]) * 512 - start
        for at in range(0, length, MIB):
            target.write(start + at, source.read(start + at, min(MIB, length - at)))
        if full and target.zones(zone, 1)["condition"][0] != 0xE:
            target.manage(ZoneOperation.FINISH, zone)


def restore(image: str, device: str) -> None:
    with open_image(image) as source, open_device(device, writable=True) as target:
        target.manage(ZoneOperation.RESET, 0, target.geometry.nr_zones)
        _copy_zones(source, target, source.zones())


def test_unclean_snapshots(tmp_path: Path) -> None:
    """Images of a mounted file system: what was synced with fsync is in the log, and --drop-log forgets it."""
    image = str(tmp_path / "disk.img")
    with null_blk(size_mib=128, zone_mib=4) as disk:
        fsid = make_file_system(disk.path)
        with mounted(disk.path) as directory:
            commit(directory, 4)
            for number in range(9):
                fsync_file(directory / "logged", b"%d\n" % number)
            snapshot(disk.path, image)
        program("zoned", "check", image)
        choice = latest(image)
        assert choice["log_root"] != 0
        generation = choice["generation"]
        replayed = program("zoned", "btrfs", "rollback", "--to-generation", generation, "--dry-run", image)
        assert "newest already" in replayed.out

        restore(image, disk.path)
        assert latest(disk.path)["offset_bytes"] == choice["offset_bytes"]
        with mounted(disk.path) as directory:
            assert (directory / "logged").read_text().splitlines()[-1] == "8"
        program("zoned", "check", disk.path)

        restore(image, disk.path)
        done = program("zoned", "btrfs", "rollback", "--to-generation", generation, "--drop-log", disk.path)
        assert "cleared" in done.err
        with mounted(disk.path) as directory:
            assert mounted_generation(fsid) == generation
            assert not (directory / "logged").exists()
        program("zoned", "check", disk.path)
        run("btrfs", "check", disk.path)
