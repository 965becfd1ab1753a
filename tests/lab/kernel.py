"""Debian kernels for the lab: fetched with apt into a cache directory, unpacked, never installed.

A kernel directory holds what the package holds (``boot/``, ``lib/modules/``) and the
initramfs that :mod:`lab.vm` boots it with: busybox, the modules for 9p and overlayfs, and
``init.sh``.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import lzma
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SUITES = {"6.12": "bookworm-backports", "6.1": "bookworm"}
"""Kernel series of the lab, and the Debian suite that has it."""

DEFAULT_MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
}
"""What the lab needs on the host, and the Debian package that has it."""

SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
"""Debian keeps some of the programs out of an ordinary user's path."""

_INIT = Path(__file__).with_name("init.sh")


class LabUnavailableError(Exception):
    """This machine cannot have the lab; the text is the reason."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that is ready to boot."""

    series: str
    image: Path
    modules: Path
    initramfs: Path


def cache_directory() -> Path:
    """Where kernels are kept: ``$ZONED_LAB_CACHE``, or below the user's cache directory."""
    chosen = os.environ.get("ZONED_LAB_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zoned-tools" / "lab"


def find_program(name: str) -> str:
    """Path of a program of the host, root's directories included.

    Raises:
        LabUnavailableError: it is not installed.
    """
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        package = PROGRAMS.get(name)
        raise LabUnavailableError(f"{name} is not installed" + (f" (Debian: {package})" if package else ""))
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; workers that share the cache wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def get_kernel(series: str) -> Kernel:
    """The kernel of a series; the first time it is fetched and prepared (about 20 s).

    Raises:
        LabUnavailableError: programs are missing, or the kernel cannot be fetched.
    """
    if platform.machine() != "x86_64":
        raise LabUnavailableError(f"the lab runs the host's programs on x86-64 kernels, this is {platform.machine()}")
    find_program("qemu-system-x86_64")
    directory = cache_directory() / series
    with locked(directory / "lock"):
        root = directory / "kernel"
        if not root.is_dir():
            _fetch(series, directory)
        release = next((root / "lib" / "modules").iterdir()).name
        modules = root / "lib" / "modules" / release
        if not (modules / "modules.dep").exists():
            _run([find_program("depmod"), "-b", str(root), release])
        busybox = Path(find_program("busybox"))
        recipe = hashlib.sha256(_INIT.read_bytes() + busybox.read_bytes() + release.encode()).hexdigest()[:16]
        initramfs = directory / f"initramfs-{recipe}.gz"
        if not initramfs.exists():
            for old in directory.glob("initramfs-*"):
                old.unlink()
            partial = directory / "initramfs-partial"
            partial.write_bytes(gzip.compress(_make_initramfs(modules, busybox), 1))
            partial.rename(initramfs)
    return Kernel(series, root / "boot" / f"vmlinuz-{release}", root / "lib" / "modules", initramfs)


def _run(command: Sequence[str], *, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise LabUnavailableError(f"{Path(command[0]).name} failed: {lines[-1]}")
    return done.stdout


def _debian_mirror() -> str:
    """The mirror that this machine's apt takes Debian's main archive from, or the public one."""
    wanted = ["indextargets", "--format", "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(SUITE)|$(RELEASE)", "Created-By: Packages"]
    for line in _run([find_program("apt-get"), *wanted]).splitlines():
        uri, origin, label, suite, release = line.split("|")
        if origin == label == "Debian" and not {suite, release} & {"", "experimental"} and "-" not in release:
            return uri
    return DEFAULT_MIRROR


def _fetch(series: str, directory: Path) -> None:
    """Download the newest kernel package of a series through apt state of our own, and unpack it."""
    apt, dpkg = find_program("apt-get"), find_program("dpkg-deb")
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        state = Path(scratch)
        (state / "lists" / "partial").mkdir(parents=True)
        (state / "cache" / "archives" / "partial").mkdir(parents=True)
        (state / "status").touch()
        (state / "debian.sources").write_text(
            f"Types: deb\nURIs: {_debian_mirror()}\nSuites: {SUITES[series]}\nComponents: main\n"
            f"Architectures: amd64\nSigned-By: {KEYRING}\n",
            encoding="ascii",
        )
        settings = {
            "Dir::Etc::sourcelist": state / "debian.sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "APT::Sandbox::User": "root",
            "APT::Architecture": "amd64",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        _run([apt, *options, "-qq", "update"])
        depends = _run([find_program("apt-cache"), *options, "depends", "linux-image-amd64"])
        package = next((line.split()[1] for line in depends.splitlines() if "Depends: linux-image-" in line), "")
        if not package.startswith(f"linux-image-{series}."):
            raise LabUnavailableError(f"{SUITES[series]} offers {package or 'no kernel'}, not a {series} kernel")
        _run([apt, *options, "-qq", "download", package], cwd=state)
        archive = next(state.glob(f"{package}_*.deb"))
        _run([dpkg, "-x", str(archive), str(state / "kernel")])
        (state / "kernel").rename(directory / "kernel")


def _module_files(modules: Path) -> list[Path]:
    """Files of the modules that the guest boots with, in the order in which they can be loaded."""
    needs: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for line in (modules / "modules.dep").read_text(encoding="ascii").splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
        names[Path(path).name.split(".")[0].replace("-", "_")] = path
    order: dict[str, None] = {}
    for name in BOOT_MODULES:
        if name in names:  # else built into the kernel
            path = names[name]
            order.update(dict.fromkeys([*reversed(needs[path]), path]))
    return [modules / path for path in order]


def _make_initramfs(modules: Path, busybox: Path) -> bytes:
    directories = ("bin", "proc", "sys", "dev", "modules", "host", "changes", "root")
    members = [_cpio_member(name, 0o040755) for name in directories]
    members.append(_cpio_member("bin/busybox", 0o100755, busybox.read_bytes()))
    members.append(_cpio_member("init", 0o100755, _INIT.read_bytes()))
    for number, path in enumerate(_module_files(modules)):
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        name = f"modules/{number:03}-{path.name.removesuffix('.xz')}"
        members.append(_cpio_member(name, 0o100644, content))
    return b"".join([*members, _cpio_member("TRAILER!!!", 0)])


def _cpio_member(name: str, mode: int, content: bytes = b"") -> bytes:
    """One member of a "newc" cpio archive (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers) + path
    return header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)
