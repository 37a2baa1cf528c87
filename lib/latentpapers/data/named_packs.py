"""Packs that results use, under short names: `cats`, `churches`, `faces-utk`.

Each is one file in a data folder, found as `NAME.npz` or under the name it was first made with. Its
`recipe` makes it anew from public sources; `packs/pixels.json` has the hash of its decoded pixels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentpapers import storage
from latentpapers.data import downloads, known, packs
from latentpapers.data.downloads import Source
from latentpapers.data.entry import Entry, Info, table
from latentpapers.errors import Missing, UserError

if TYPE_CHECKING:
    from latentpapers.data.imageset import ImageSet

AHE = Source(
    file="ahe.zip",
    urls=(
        "https://github.com/shuxinqiao/Architectural-Heritage-Elements-Classification"
        "/archive/34f82a3.zip",
    ),
    size=130_000_000,
    licence="images mostly Wikimedia and Flickr, CC; data set by Llamas et al. 2017",
    page="github.com/shuxinqiao/Architectural-Heritage-Elements-Classification",
    folder="ahe",
)
_CHURCH_PARTS = ("bell_tower", "dome(outer)", "apse", "flying_buttress")


@dataclass(frozen=True)
class _Recipe:
    """What `fetch` does: bring a set, pack one of its folders.

    Attributes:
        bring: the registry's name that `latentpapers data fetch` takes, empty if by hand.
        folder: below the data folder.
    """

    bring: str
    folder: str
    size: int
    quality: int
    only: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """The commands."""
        first = f"latentpapers data fetch {self.bring} && " if self.bring else ""
        only = f" --flat --distinct --only {' '.join(map(repr, self.only))}" if self.only else ""
        return (
            f"{first}latentpapers data pack DATA_FOLDER/{self.folder} --size {self.size} "
            f"--format webp --quality {self.quality}{only} --out {name}.npz"
        )


def _find(name: str, file: str) -> Path | None:
    return downloads.find(f"{name}.npz") or downloads.find(file)


def _entry(info: Info, file: str, recipe: _Recipe, bring: Source | None = None) -> Entry:
    name = info.name

    def path() -> Path:
        found = _find(name, file)
        if found is None:
            raise Missing(
                f"data set {name!r} needs the pack {name}.npz ({info.licence}); make it with "
                f"`{info.recipe}`, or put {file} into a folder named by LATENTPAPERS_DATA."
            )
        return found

    def load(info: Info, size: int, split: str, n: int) -> "ImageSet":
        return packs.load(packs.read_pack(path()), info, size, split, n)

    def verify() -> list[str]:
        pack = packs.read_pack(path())
        with packs.reading(pack.path, "make it again: " + info.recipe):
            return [known.compare(name, pack_digest(pack))]

    def fetch(dest: Path | None) -> Path:
        return _make(name, recipe, bring, dest)

    return Entry(
        info,
        parts=lambda split, n: [
            storage.sha256_file(Path(packs.__file__)),
            packs.read_pack(path()).sha256,
        ],
        load=load,
        fetch=fetch,
        files=lambda: [p for p in [_find(name, file)] if p],
        digest=lambda: (pack_digest(packs.read_pack(path())), len(packs.read_pack(path()))),
        verify=verify,
    )


def pack_digest(pack: packs.Pack) -> str:
    """The hash of a pack's decoded pixels, as `packs/pixels.json` holds it."""
    short = [str(name).rpartition("/")[2] for name in pack.names]
    blocks = np.array_split(np.arange(len(pack)), max(1, len(pack) // 500))
    pixels = (image for block in blocks for image in pack.decode(block))
    return known.digest(zip(short, pixels))


def _make(name: str, recipe: _Recipe, bring: Source | None, dest: Path | None) -> Path:
    """Runs a recipe."""
    out = (Path(dest) if dest else downloads.default_folder()) / f"{name}.npz"
    found = _find(name, out.name)
    if found:
        return found
    if bring is None:
        raise UserError(f"{name} has to be made by hand: `{recipe.text(name)}`.")
    home = downloads.bring(recipe.bring, (bring,), dest)
    return packs.pack_folder(
        home / recipe.folder, out, recipe.size, licence=bring.licence, source=bring.page,
        codec=packs.codec("webp", recipe.quality), only=recipe.only, flat=bool(recipe.only),
        distinct=bool(recipe.only),
    )  # fmt: skip


def _info(
    name: str, what: str, size: int, counts: tuple[int, int], licence: str, source: str,
    recipe: _Recipe, publishable: bool = True,
) -> Info:  # fmt: skip
    split = dict(zip(("train", "test"), counts))
    return Info(
        name=name, what=what, sizes=tuple(size >> k for k in range(8) if size >> k >= 8)[::-1],
        channels=3, counts=split, default=split, licence=licence, source=source,
        needs=f"`latentpapers data fetch {name}`" if recipe.bring else recipe.text(name),
        recipe=recipe.text(name), publishable=publishable,
    )  # fmt: skip


def _cats() -> Entry:
    from latentpapers.data.afhq import V1

    recipe = _Recipe("afhq-cat", "afhq/train/cat", 128, 90)
    what = "AFHQ v1 train/cat at 128 px (Lanczos, WebP), a tenth held out as test"
    info = _info("cats", what, 128, (4618, 535), V1.licence, "StarGAN v2's AFHQ", recipe)
    return _entry(info, "cats_afhq5153_128.npz", recipe, V1)


def _churches() -> Entry:
    recipe = _Recipe("ahe", "ahe/dataset", 64, 92, _CHURCH_PARTS)
    what = "towers, domes, apses and buttresses at 64 px: a stand-in for LSUN church"
    source = "Architectural Heritage Elements (Llamas et al. 2017)"
    info = _info("churches", what, 64, (3227, 346), AHE.licence, source, recipe)
    return _entry(info, "churches_ahe_64.npz", recipe, AHE)


def _faces() -> Entry:
    recipe = _Recipe("", "UTKFace", 128, 92)
    what = "UTKFace, 12,000 of 23,708 at 128 px; real people, never published"
    licence = "non-commercial research only; copyright with the owners"
    info = _info("faces-utk", what, 128, (10_784, 1216), licence, "susanqq.github.io/UTKFace",
                 recipe, publishable=False)  # fmt: skip
    return _entry(info, "faces_utk12k_128.npz", recipe)


def _ahe() -> Entry:
    """Only to be fetched and packed: its images have many sizes."""
    info = Info(
        name="ahe", what="Architectural Heritage Elements, as downloaded (pack it: churches)",
        sizes=(), channels=3, counts={"train": None}, default={"train": 100}, licence=AHE.licence,
        source=AHE.page, needs="`latentpapers data fetch ahe`", download=AHE.size,
    )  # fmt: skip
    return Entry(
        info,
        parts=lambda split, n: [AHE.urls[0]],
        fetch=lambda dest: downloads.bring("ahe", (AHE,), dest),
        files=lambda: [p for p in [downloads.present(AHE)] if p],
        verify=lambda: downloads.verify((AHE,), "ahe"),
    )


ENTRIES = table(_cats(), _churches(), _faces(), _ahe())
FILES = frozenset(["cats_afhq5153_128", "churches_ahe_64", "faces_utk12k_128"])
"""Stems of these packs' first names, which are no names of their own."""
