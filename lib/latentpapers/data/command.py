"""`latentpapers data`: list, describe, fetch, verify, look at and pack data sets."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentpapers import storage
from latentpapers.data import known, packs, registry
from latentpapers.data.entry import Info, size_in_words

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_ACTIONS = "list | names | info | fetch | verify | show | pack"


def main(arguments: list[str]) -> int:
    """Runs `latentpapers data ARGUMENTS`.

    Raises:
        UserError: what the command could not do, in one sentence.
    """
    chosen = _parser().parse_args(arguments)
    return chosen.run(chosen)


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="latentpapers data")
    actions = top.add_subparsers(required=True, metavar=_ACTIONS)
    actions.add_parser("list", help="the data sets, and what is here").set_defaults(run=_list)
    actions.add_parser("names", help="the data sets, one a line").set_defaults(run=_names)
    info = actions.add_parser("info", help="what is known about one")
    info.add_argument("name")
    info.set_defaults(run=_info)
    fetch = actions.add_parser("fetch", help="bring the files that one needs")
    fetch.add_argument("name")
    fetch.add_argument("--dest", type=Path, help="data folder; the cache's if absent")
    fetch.set_defaults(run=_fetch)
    verify = actions.add_parser("verify", help="check the files of one, or of all that are here")
    verify.add_argument("name", nargs="?")
    verify.add_argument("--record", action="store_true", help="write the committed hashes anew")
    verify.set_defaults(run=_verify)
    _add_show(actions)
    _add_pack(actions)
    return top


def _add_show(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    show = actions.add_parser("show", help="write a contact sheet, a PNG")
    show.add_argument("name")
    show.add_argument("--size", type=int, help="pixels of an image; the set's nearest to 64")
    show.add_argument("--split", default=None)
    show.add_argument("-n", type=int, default=48, help="number of images")
    show.add_argument("--out", type=Path, help="file to write; NAME.png if absent")
    show.set_defaults(run=_show)


def _add_pack(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pack = actions.add_parser("pack", help="pack a folder of images into one file")
    pack.add_argument("folder", type=Path)
    pack.add_argument("--size", type=int, required=True, help="height and width in pixels")
    pack.add_argument(
        "--format", default="webp", help="webp (lossless without --quality), png, jpeg"
    )
    pack.add_argument("--quality", type=int, help="1 to 100, lossy")
    pack.add_argument("--out", type=Path, help="file to write; FOLDER_SIZE.npz if absent")
    pack.add_argument("--only", nargs="+", default=[], metavar="FOLDER", help="take these folders")
    pack.add_argument("--flat", action="store_true", help="names without folders, no splits")
    pack.add_argument("--distinct", action="store_true", help="equal files once")
    pack.add_argument("--licence", default="as the source")
    pack.add_argument("--source", default="")
    pack.set_defaults(run=_pack)


def _names(chosen: argparse.Namespace) -> int:
    for name in registry.names():
        print(f"{name:<14} {_what(name)}")
    return 0


def _what(name: str) -> str:
    # a pack is not opened for this: it may be gigabytes
    return registry.info(name).what if name in registry.BUILT_IN else "a pack in a data folder"


def _list(chosen: argparse.Namespace) -> int:
    for name in registry.names():
        print(f"{name:<14} {_state(name):<22} {_what(name)}")
    return 0


def _state(name: str) -> str:
    """built in, here, or how much there is to fetch."""
    if name not in registry.BUILT_IN:
        return "here"
    entry = registry.entry(name)
    if entry.built_in:
        return "built in"
    if entry.files():
        return "here"
    if entry.fetch is None or (entry.info.recipe and not entry.info.download):
        return "make or put by hand"
    return f"fetch, {size_in_words(entry.info.download)}"


def _info(chosen: argparse.Namespace) -> int:
    about = registry.info(chosen.name)
    counts = {s: "any number" if c is None else f"{c:,}" for s, c in about.counts.items()}
    lines = {
        "what": about.what,
        "sizes": ", ".join(map(str, about.sizes)) or "whole pictures",
        "channels": about.channels,
        "images": ", ".join(f"{split} {count}" for split, count in counts.items()),
        "licence": about.licence,
        "shown": "yes" if about.publishable else "never in public: it shows real people",
        "source": about.source,
        "needs": about.needs or "nothing",
        "recipe": about.recipe or "none needed",
        "here": _state(chosen.name),
    }
    for key, value in lines.items():
        print(f"{key:<9} {value}")
    return 0


def _fetch(chosen: argparse.Namespace) -> int:
    print(registry.fetch(chosen.name, chosen.dest))
    return 0


def _verify(chosen: argparse.Namespace) -> int:
    if chosen.record:
        print(known.record())
    if chosen.name:
        names = [chosen.name]
    else:
        names = [name for name in registry.names() if registry.files(name)]
    for name in names:
        print("\n".join(registry.verify(name)))
    return 0


def _show(chosen: argparse.Namespace) -> int:
    about = registry.info(chosen.name)
    out = chosen.out or Path(f"{chosen.name}.png")
    split = chosen.split or about.splits[0]
    if not about.publishable:
        print("this set shows real people: keep the sheet to yourself", file=sys.stderr)
    sheet = (
        _squares(about, split, chosen) if about.sizes else _thumbnails(chosen.name, split, chosen)
    )
    with storage.replacing(out) as draft:
        sheet.save(draft, format="PNG")
    print(f"{out}: {chosen.name} / {split}, {sheet.width} x {sheet.height} pixels")
    return 0


def _squares(about: Info, split: str, chosen: argparse.Namespace) -> "Image":
    size = chosen.size or min(about.sizes, key=lambda s: abs(s - 64))
    limit = about.counts.get(split)
    n = chosen.n if limit is None else min(chosen.n, limit)
    images = registry.load(about.name, size=size, split=split, n=n).pixels
    return _sheet([image.expand(3, -1, -1) for image in images], size)


def _thumbnails(name: str, split: str, chosen: argparse.Namespace) -> "Image":
    side = chosen.size or 128
    limit = registry.info(name).counts.get(split)
    most = None if limit and limit <= 100 else chosen.n  # part of a small set may be here
    return _sheet(registry.pictures(name, split, most)[: chosen.n], side)


def _sheet(images: "Sequence[Tensor]", side: int) -> "Image":
    """Images (3, H, W) fitted into squares of `side` pixels, two pixels apart, 12 a row."""
    from PIL import Image

    across = min(12, len(images))
    rows = -(-len(images) // across)
    step = side + 2
    sheet = Image.new("RGB", (across * step - 2, rows * step - 2), "white")
    for i, pixels in enumerate(images):
        tile = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
        tile.thumbnail((side, side))
        sheet.paste(tile, (i % across * step, i // across * step))
    return sheet


def _pack(chosen: argparse.Namespace) -> int:
    out = chosen.out or Path(f"{chosen.folder.resolve().name}_{chosen.size}.npz")
    codec = packs.codec(chosen.format, chosen.quality)
    packs.pack_folder(
        chosen.folder, out, chosen.size, licence=chosen.licence, source=chosen.source, codec=codec,
        only=tuple(chosen.only), flat=chosen.flat, distinct=chosen.distinct,
    )  # fmt: skip
    pack = packs.read_pack(out)
    print(f"{out}: {len(pack):,} images, sha256 {storage.sha256_file(out)}")
    return 0
