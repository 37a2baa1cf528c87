"""Weights by name: where they are, how they come, what they are. Loads no torch by itself.

Weights are looked for, in this order, in the folders of `LATENTPAPERS_DATA`, in the cache, where
torchvision keeps its downloads, and in installed packages: first as our own file
(`NAME.safetensors`, with a card), then in their published form, which is converted in memory.
`fetch` brings the published form, checks it, writes our own file into the cache and removes what
it no longer needs. Nothing is downloaded by anything else.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentpapers import paths, storage, transfer, wheels
from latentpapers.errors import Corrupt, Missing, UnknownName
from latentpapers.weights.entries import ENTRIES, Entry, Local, Manual, Url
from latentpapers.wheels import Wheel

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]


@dataclass(frozen=True)
class Info:
    """What is known about weights without loading them.

    Attributes:
        source: addresses, or the wheel's name and version.
        files: the names under which the published form is recognised.
        path: where they are on this machine; None if they are not.
    """

    name: str
    what: str
    megabytes: int
    licence: str
    source: tuple[str, ...]
    files: tuple[str, ...]
    path: Path | None


def names() -> tuple[str, ...]:
    """The weights that can be named."""
    return tuple(ENTRIES)


def info(name: str) -> Info:
    """What is known about weights.

    Raises:
        UnknownName: no such weights.
    """
    one, path = _entry(name), find(name)
    more = (_origin(one), one.source.names, path)
    return Info(one.name, one.what, one.megabytes, one.licence, *more)


def available(name: str) -> bool:
    """Whether weights are on this machine; their content is checked when they are loaded.

    Raises:
        UnknownName: no such weights.
    """
    return find(name) is not None


def load(name: str, path: Path | str | None = None, *, allow_pickle_stub: bool = False) -> "State":
    """A state dict under canonical keys: torchvision's for its networks, BasicSR's for RRDB.

    Args:
        name: one of `names()`.
        path: a file to read instead of the registered one: our own form, the published one, or
            the wheel. Its layout is checked; its hash is the caller's business.
        allow_pickle_stub: read a pickle that names foreign classes, with stubs for them.

    Returns:
        float32 tensors on the CPU (counters as integers).

    Raises:
        UnknownName: no such weights.
        Missing: they are not here; the sentence names size, licence, command and place.
        Corrupt: wrong hash, damaged, or of another network.
        UserError: a pickle that needs foreign classes.
    """
    one = _entry(name)
    if path is None:
        state = _read(one, _found(one), allow_pickle_stub, published=True)
    else:
        state = _read(one, Path(path), allow_pickle_stub)
    return {key: v.float() if v.is_floating_point() else v for key, v in state.items()}


def network(name: str, path: Path | str | None = None, *, layer: str | None = None) -> "nn.Module":
    """The network with its weights: evaluation mode, no parameter wants a gradient.

    A feature network takes float images (N, 3, H, W) in [0, 1] and gives its `layer`
    (`latentpapers.nets.features`); `realsr_df2k` takes and gives images.

    Args:
        layer: where a feature network is cut; its usual layer if None.

    Raises:
        UnknownName: no such weights or layer.
        Missing, Corrupt, UserError: as `load`.
    """
    return _entry(name).network(load(name, path), layer)


def fetch(name: str, dest: Path | None = None, *, progress: bool = False) -> Path:
    """Brings weights and writes them in our own form; an intact file is kept.

    Args:
        dest: folder to write to; the cache if None.
        progress: a bar on stderr while downloading.

    Returns:
        `NAME.safetensors`; the licence's text lies beside it where the source carries one.

    Raises:
        UnknownName: no such weights.
        Missing: they have no public address, or it did not give them; what came of a download is
            kept, and the same call goes on.
        UserError: the package manager failed.
        Corrupt: the source gave another file than the published one.
    """
    one = _entry(name)
    out = _place(dest) / f"{name}.safetensors"
    if out.is_file() and _is_intact(one, out):
        return out
    here = find(name)
    if here is not None and here != out:
        return _write(one, here, out, published=True)
    with tempfile.TemporaryDirectory() as folder:
        path = _bring(one, Path(folder), out.parent, progress)
        _write(one, path, out, published=True)
        path.unlink()  # ours holds the same numbers
    return out


def convert(
    name: str, path: Path | str, dest: Path | None = None, *, allow_pickle_stub: bool = False
) -> Path:
    """Writes a file of the published form, or a wheel, in our own form.

    Raises:
        UnknownName, Missing, Corrupt, UserError: as `load`.
    """
    one = _entry(name)
    out = _place(dest) / f"{name}.safetensors"
    return _write(one, Path(path), out, allow=allow_pickle_stub)


def verify(name: str) -> Path:
    """Reads weights completely, checks hashes and layout; returns where they are.

    Raises:
        UnknownName, Missing, Corrupt: as `load`.
    """
    load(name)
    return _found(_entry(name))


def find(name: str) -> Path | None:
    """Where weights are on this machine, None if they are not.

    Raises:
        UnknownName: no such weights.
    """
    one = _entry(name)
    for folder in folders():
        for file in (f"{name}.safetensors", *_firsts(one)):
            if (folder / file).is_file():
                return folder / file
    return wheels.installed(one.source) if isinstance(one.source, Wheel) else None


def folders() -> list[Path]:
    """Where weights are looked for."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    torch_home = Path(os.environ.get("TORCH_HOME") or caches / "torch").expanduser()
    return [*paths.data_dirs(), _place(None), torch_home / "hub" / "checkpoints"]


# --- sentences -------------------------------------------------------------------------------


def missing(name: str) -> Missing:
    """The one sentence about weights that are not here."""
    one = _entry(name)
    facts = f"{one.what}; {one.megabytes} MB; {one.licence}"
    files = " and ".join(one.source.names[:1] if isinstance(one.source, Url) else one.source.names)
    start = f"the weights {name!r} ({facts}) are not here"
    where = f"into {_place(None)} or a folder named by LATENTPAPERS_DATA"
    if isinstance(one.source, Local):
        return Missing(f"{start} and cannot be fetched; put {files} ({one.source.origin}) {where}.")
    if isinstance(one.source, Manual):
        file = one.source.file.rpartition("/")[2]
        bring = f"download {one.source.url} by hand (no hash of it is published)"
        command = f"`latentpapers weights convert {name} {file}`"
        return Missing(f"{start}; {bring} and {command}, or put it as {files} {where}.")
    command = f"`latentpapers weights fetch {name}`"
    return Missing(f"{start}; {command} brings them, or put {files} ({_from(one)}) {where}.")


def _from(one: Entry) -> str:
    return f"from {_origin(one)[0]}"


def _origin(one: Entry) -> tuple[str, ...]:
    if isinstance(one.source, Url):
        return one.source.urls
    if isinstance(one.source, Wheel):
        return (f"the wheel {one.source.requirement}",)
    return (one.source.url if isinstance(one.source, Manual) else one.source.origin,)


def _again(one: Entry, published: bool) -> str:
    if not published:
        return f"give the published file of {one.name!r}, or none"
    if isinstance(one.source, Local | Manual):
        return "put the published file there"
    return f"remove it, then `latentpapers weights fetch {one.name}`"


# --- finding and reading ---------------------------------------------------------------------


def _entry(name: str) -> Entry:
    if name not in ENTRIES:
        raise UnknownName("weights", name, ENTRIES)
    return ENTRIES[name]


def _firsts(one: Entry) -> tuple[str, ...]:
    """The names of the file that a converter reads; the others of a wheel lie beside it."""
    return one.source.names[:1] if isinstance(one.source, Wheel) else one.source.names


def _place(dest: Path | None) -> Path:
    return Path(dest) if dest else paths.cache() / "weights"


def _found(one: Entry) -> Path:
    path = find(one.name)
    if path is None:
        raise missing(one.name)
    return path


def _read(one: Entry, path: Path, allow: bool = False, *, published: bool = False) -> "State":
    """The checked state dict of a file in any of the three forms, in the precision of the file.

    Args:
        published: the file has to be the published one, hash and all.
    """
    if not path.is_file():
        raise Missing(f"no file {path} for the weights {one.name!r}.")
    try:
        card = _card(path)
        if card is not None:  # its layout was checked when it was written
            return _ours(one, path, card)
        if published:
            _check_hash(one, path)
        return _converted(one, path, allow)
    except Corrupt as error:
        raise Corrupt(f"{str(error).rstrip('.')}; {_again(one, published)}.") from error


def _converted(one: Entry, path: Path, allow: bool) -> "State":
    from latentpapers.weights.convert_state import check_fit

    if path.suffix == ".whl" and isinstance(one.source, Wheel):
        with tempfile.TemporaryDirectory() as folder:
            file = _unpacked(wheels.read(one.source, path), Path(folder))
            return _converted(one, file, allow)
    state = one.convert(path, allow)
    check_fit(state, one.skeleton(), str(path))
    return state


def _ours(one: Entry, path: Path, card: dict[str, Any]) -> "State":
    from latentpapers import tensorfile

    if card.get("weights") != one.name:
        raise Corrupt(f"{path} holds {card.get('weights')!r}, not {one.name!r}.")
    return tensorfile.load(path)["state"]


def _card(path: Path) -> dict[str, Any] | None:
    """The card of a file in our own form, None for any other.

    Raises:
        Corrupt: a safetensors file that cannot be read.
    """
    if path.suffix != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    from latentpapers import tensorfile

    try:
        with safe_open(str(path), framework="pt") as file:
            ours = "tree" in (file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise Corrupt(f"{path} cannot be read ({error}).") from error
    return tensorfile.header(path) if ours else None


def _check_hash(one: Entry, path: Path) -> None:
    source = one.source
    if isinstance(source, Manual):
        return  # none is published
    for name in source.names if isinstance(source, Wheel) else (path.name,):
        wanted = source.hashes[name] if isinstance(source, Wheel) else source.sha256
        file = path.with_name(name)
        if not file.is_file():
            raise Corrupt(f"{path} needs {name} beside it.")
        if not transfer.matches(file, wanted):
            raise Corrupt(f"{file} is not the published file (another SHA-256).")


def _is_intact(one: Entry, path: Path) -> bool:
    try:
        return bool(_read(one, path))
    except Corrupt:
        return False


# --- bringing and writing --------------------------------------------------------------------


def _bring(one: Entry, folder: Path, cache: Path, progress: bool) -> Path:
    """The published form from its source."""
    if isinstance(one.source, Local | Manual):
        raise missing(one.name)
    if isinstance(one.source, Url):
        path, most = cache / one.source.names[0], 2 * one.megabytes * 10**6
        wanted = (one.source.urls, path, one.source.sha256, most)
        return transfer.fetch(*wanted, progress=progress)
    files = wheels.fetch(one.source)
    if "LICENSE" in files:
        storage.write_bytes(cache / f"{one.name}.LICENSE.txt", files["LICENSE"])
    return _unpacked(files, folder)


def _unpacked(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(files))


def _write(one: Entry, path: Path, out: Path, **options: bool) -> Path:
    """Our own form of a file that `_read` takes with these options."""
    from latentpapers import tensorfile

    state = _read(one, path, **options)
    card = {
        "weights": one.name,
        "what": one.what,
        "licence": one.licence,
        "source": list(_origin(one)),
        "made_from": {"file": path.name, "sha256": storage.sha256_file(path)},
    }
    tensorfile.save(out, {"state": state}, about=card)
    return out
