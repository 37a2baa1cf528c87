"""`latentpapers data`: list, describe, fetch and pack data sets."""

import argparse
from pathlib import Path

from latentpapers import storage
from latentpapers.data import packs, registry


def main(arguments: list[str]) -> int:
    """Runs `latentpapers data ARGUMENTS`.

    Raises:
        UserError: what the command could not do, in one sentence.
    """
    chosen = _parser().parse_args(arguments)
    return chosen.run(chosen)


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="latentpapers data")
    actions = top.add_subparsers(required=True, metavar="names | info | fetch | pack")
    actions.add_parser("names", help="the data sets, one a line").set_defaults(run=_names)
    info = actions.add_parser("info", help="what is known about one")
    info.add_argument("name")
    info.set_defaults(run=_info)
    fetch = actions.add_parser("fetch", help="bring the files that one needs")
    fetch.add_argument("name")
    fetch.add_argument("--dest", type=Path, help="folder; the cache if absent")
    fetch.set_defaults(run=_fetch)
    pack = actions.add_parser("pack", help="pack a folder of images into one file")
    pack.add_argument("folder", type=Path)
    pack.add_argument("--size", type=int, required=True, help="height and width in pixels")
    pack.add_argument("--out", type=Path, help="file to write; FOLDER_SIZE.npz if absent")
    pack.add_argument("--licence", default="as the source")
    pack.add_argument("--source", default="")
    pack.set_defaults(run=_pack)
    return top


def _names(chosen: argparse.Namespace) -> int:
    for name in registry.names():
        # a pack is not opened for this: it may be gigabytes
        what = registry.info(name).what if name in registry.BUILT_IN else "a pack in a data folder"
        print(f"{name:<14} {what}")
    return 0


def _info(chosen: argparse.Namespace) -> int:
    known = registry.info(chosen.name)
    counts = {s: "any number" if c is None else f"{c:,}" for s, c in known.counts.items()}
    lines = {
        "what": known.what,
        "sizes": ", ".join(map(str, known.sizes)),
        "channels": known.channels,
        "images": ", ".join(f"{split} {count}" for split, count in counts.items()),
        "licence": known.licence,
        "source": known.source,
        "needs": known.needs or "nothing",
    }
    for key, value in lines.items():
        print(f"{key:<9} {value}")
    return 0


def _fetch(chosen: argparse.Namespace) -> int:
    print(registry.fetch(chosen.name, chosen.dest))
    return 0


def _pack(chosen: argparse.Namespace) -> int:
    out = chosen.out or Path(f"{chosen.folder.resolve().name}_{chosen.size}.npz")
    packs.pack_folder(chosen.folder, out, chosen.size, licence=chosen.licence, source=chosen.source)
    pack = packs.read_pack(out)
    print(f"{out}: {len(pack):,} images, sha256 {storage.sha256_file(out)}")
    return 0
