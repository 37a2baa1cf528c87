"""`make bundle`: all that a node without network needs to run a request, in bounded parts.

    bundle/offline_node.sh   unpacks, checks, runs
    bundle/SHA256SUMS
    bundle/part.000 ...      a tar.gz cut into pieces: code/ site/ data/ cache/ request

The node brings Python and torch. `site/` holds the other packages, already unpacked for the node's
Python and platform, so that the node needs neither pip nor a compiler. `cache/weights/` are the
network weights that were fetched on this machine, with their licences.
"""

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from latentpapers import paths, storage
from latentpapers.errors import UserError
from latentpapers.runner.plan import Plan, Request, data_packs, jobs

MIB = 2**20
PLATFORM = "x86_64-manylinux_2_28"
# What a node with a GPU has by itself, if no list of its packages is given.
PRESENT = ("torch", "torchvision", "numpy")
_OF_TORCH = ("sympy", "mpmath", "networkx", "fsspec", "setuptools")


def build(
    request: Request,
    out: Path,
    have: Path | None = None,
    python: str = "3.12",
    part_mib: int = 60,
    *,
    wheels: bool = True,
) -> int:
    """Writes the bundle of a request to `out` and prints its parts with their sizes.

    Args:
        request: what the node shall run.
        out: folder; what it held is replaced.
        have: `pip freeze` of the node; without it the node is taken to have torch, torchvision and
            numpy alone.
        python: the node's Python.
        part_mib: largest part, MiB.
        wheels: pack packages; False for a node that has them all.

    Raises:
        UserError: the request is no plan, uv is missing or finds no such packages.
    """
    plan = Plan(jobs(request))
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob("part.*"), out / "SHA256SUMS", out / "offline_node.sh"]:
        old.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch, storage.writable(out):
        site = Path(scratch) / "site"
        missing = _packages(site, have, python, Path(scratch)) if wheels else []
        whole = Path(scratch) / "bundle.tar.gz"
        _archive(whole, site, plan, request)
        parts = _split(whole, out, part_mib * MIB)
    shutil.copy(paths.root() / "ci" / "offline_node.sh", out)
    sums = [f"{storage.sha256_file(p)}  {p.name}" for p in [*parts, out / "offline_node.sh"]]
    storage.write_text(out / "SHA256SUMS", "\n".join(sums) + "\n")
    print(f"{len(plan.jobs)} jobs, {len(missing)} packages for Python {python}")
    for part in parts:
        print(f"{part.name}  {part.stat().st_size / MIB:.1f} MiB")
    return 0


# --- packages -------------------------------------------------------------------------------


def _packages(site: Path, have: Path | None, python: str, scratch: Path) -> list[str]:
    present = _names(have.read_text().splitlines()) if have else set(PRESENT)
    wanted = _compiled(python, scratch, _freeze(have) if have else [])
    missing = [line for line in wanted if not _brought(_names([line]).pop(), present)]
    listing = scratch / "missing.txt"
    listing.write_text("\n".join(missing) + "\n")
    target = ["--target", str(site), "--python-version", python, "--python-platform", PLATFORM]
    _uv("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", *target, "-r",
        str(listing))  # fmt: skip
    shutil.rmtree(site / "bin", ignore_errors=True)
    return missing


def _freeze(have: Path) -> list[str]:
    """The node's versions as constraints; local ones (`2.11.0+cu128`) are of no public index."""
    lines = (line.split(";")[0].strip() for line in have.read_text().splitlines())
    return [line.split("+")[0] for line in lines if "==" in line]


def _brought(name: str, present: set[str]) -> bool:
    """Whether the node has a package: it is listed, or comes with torch and serves torch alone."""
    return name in present or name in _OF_TORCH or name.startswith(("nvidia-", "cuda-", "triton"))


def _compiled(python: str, scratch: Path, pins: list[str]) -> list[str]:
    """All packages of the project, pinned for the node and agreeing with what it has."""
    limits = scratch / "constraints.txt"
    limits.write_text("\n".join(pins) + "\n")
    said = _uv("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version",
               python, "--python-platform", PLATFORM, "--constraints", str(limits),
               str(paths.root() / "pyproject.toml"))  # fmt: skip
    return [line for line in said.splitlines() if line and not line.startswith("#")]


def _names(lines: Iterable[str]) -> set[str]:
    """Normalised package names of requirement lines."""
    import re

    found = (re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line.strip()) for line in lines)
    return {re.sub(r"[-_.]+", "-", m[0]).lower() for m in found if m}


def _uv(*words: str) -> str:
    program = shutil.which("uv") or shutil.which(".venv-bootstrap/bin/uv")
    if program is None:
        raise UserError("a bundle is made with uv, which is missing; run `make setup` first.")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join(done.stderr.split())[-400:]
        raise UserError(f"uv found no packages for that node: {reason}")
    return done.stdout


# --- archive --------------------------------------------------------------------------------


def _archive(file: Path, site: Path, plan: Plan, request: Request) -> None:
    words = request.arguments() + (["--paper", ",".join(request.papers)] if request.papers else [])
    note = file.with_name("request")
    note.write_text("\n".join(words) + "\n")
    with tarfile.open(file, "w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(_code()):
            archive.add(paths.root() / name, f"code/{name}", recursive=False, filter=_anonymous)
        for place, pack in sorted({p for job in plan.jobs for p in data_packs(job).items()}):
            archive.add(pack, f"data/{place}", filter=_anonymous)
        for file in _weights():
            archive.add(file, f"cache/weights/{file.name}", filter=_anonymous)
        if site.is_dir():
            archive.add(site, "site", filter=_anonymous)
        archive.add(note, "request", filter=_anonymous)


def _code() -> Iterator[str]:
    """Every file of the checkout that git would keep, committed or not."""
    asked = ["git", "-C", str(paths.root()), "ls-files", "-co", "--exclude-standard", "-z"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode:
        raise UserError("a bundle is made from a git checkout, which this folder is not.")
    for name in found.stdout.split("\0"):
        if name and (paths.root() / name).is_file():
            yield name


def _weights() -> list[Path]:
    """The weights in the cache, whole files alone, and the licences beside them."""
    folder = paths.cache() / "weights"
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.LICENSE.txt")])


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without owner and without compiled files; the names of people are nobody's business."""
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _split(file: Path, out: Path, size: int) -> list[Path]:
    parts: list[Path] = []
    with file.open("rb") as stream:
        while True:
            part = out / f"part.{len(parts):03d}"
            written = _copy(stream, part, size)
            if not written:
                part.unlink()
                return parts
            parts.append(part)


def _copy(stream: object, part: Path, size: int) -> int:
    written = 0
    with part.open("wb") as target:
        while written < size:
            block = stream.read(min(MIB, size - written))  # type: ignore[attr-defined]
            if not block:
                break
            written += target.write(block)
    return written
