"""Whole pictures for super-resolution: DIV2K, Set5, Set14, BSD100, Urban100, PIRM, `sr-photos`.

`pairs` gives high and low resolution side by side. Where a published low-resolution image exists
(made by MATLAB's bicubic `imresize`) it is read; else it is made by `imresize`, which equals
it to the byte. High-resolution images are cut at right and bottom to multiples of the factor, as
every published protocol does.

Set5, Set14, BSD100 and Urban100 are read in place from a tar (`Set5/HR/img_001.webp`,
`Set5/LR_x4/img_001.webp`) in a data folder, or from EDSR's unpacked `benchmark` folder.
"""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentpapers import storage
from latentpapers.data import downloads, imagefiles, known, packs
from latentpapers.data.downloads import Source
from latentpapers.data.entry import Entry, Info, table
from latentpapers.errors import Corrupt, Missing, UnknownName, UserError

if TYPE_CHECKING:
    from torch import Tensor

_MOST_BYTES = 2**28  # of one image file inside a tar


@dataclass(frozen=True, eq=False)
class Pair:
    """One picture: `hr` uint8 (3, H, W), `lr` uint8 (3, H / factor, W / factor).

    Attributes:
        publishable: False if it shows a person: never in a committed figure or notebook.
    """

    name: str
    hr: "Tensor"
    lr: "Tensor"
    publishable: bool = True


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pictures in high and low resolution, in the order of their names.

    Attributes:
        factor: how many times smaller the low resolution is.
        of: how many pictures the whole published set has.
        degradation: how the low-resolution images were made.
        fingerprint: SHA-256 of all names and pixels.
    """

    name: str
    factor: int
    items: tuple[Pair, ...]
    degradation: str
    licence: str
    source: str
    fingerprint: str
    of: int

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.items)

    def __getitem__(self, i: int) -> Pair:
        return self.items[i]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pictures."""
        return tuple(item.name for item in self.items)

    def describe(self) -> str:
        """One line for a notebook."""
        part = f" of {self.of}" if self.of != len(self) else ""
        n = f"{len(self)}{part} pictures, x{self.factor}"
        return " · ".join([self.name, n, self.degradation, self.licence])


Picture = tuple[str, Callable[[], np.ndarray]]
"""A name, and how to decode it."""


@dataclass(frozen=True)
class Home:
    """Where the pictures of a set may lie.

    Attributes:
        tar, tar_folder: a tar in a data folder, and the set's folder inside it.
        sources: what `fetch` brings.
        high: split -> folders of the high resolution below a data folder, tried in order.
        low: the same for the low resolution; `{f}` is the factor.
        people: numbers (from 1, by name) of pictures that show a person, or that nobody of this
            project has looked at.
    """

    tar: str = ""
    tar_folder: str = ""
    sources: tuple[Source, ...] = ()
    high: dict[str, tuple[str, ...]] | None = None
    low: dict[str, tuple[str, ...]] | None = None
    people: frozenset[int] = frozenset()


def pairs(info: Info, factor: int, split: str, home: Home) -> PairSet:
    """Reads or makes the pairs of a set; see `registry.pairs`."""
    if split not in info.counts:
        raise UnknownName(f"split of {info.name}:", split, info.splits)
    if not isinstance(factor, int) or not 2 <= factor <= 16:
        raise UserError(f"no pairs with factor {factor!r}; use a whole number from 2 to 16.")
    items, how = _items(info, factor, split, home)
    found = _fingerprint(items)
    path = downloads.find(home.tar) if home.tar and factor == 4 else None
    if path:  # a tar has no checksums of its own
        with packs.reading(path, "put a whole copy of it there"):
            known.compare(info.name, found)
    return PairSet(
        info.name, factor, tuple(items), how, info.licence, info.source, found,
        of=info.counts[split] or len(items),
    )  # fmt: skip


def _items(info: Info, factor: int, split: str, home: Home) -> tuple[list[Pair], str]:
    """All pairs of a split by name, and how the low resolution was made."""
    low = _low(home, split, factor)
    items, read = [], 0
    for i, (name, decode) in enumerate(_high(info, split, home), 1):
        hr = _cut(decode(), factor)
        found = _match(low, name, factor)
        lr = found() if found else _smaller(hr, factor)
        read += found is not None
        if lr.shape[1:] != (hr.shape[1] // factor, hr.shape[2] // factor):
            raise Corrupt(f"{name} of {info.name}: {lr.shape} is not 1/{factor} of {hr.shape}.")
        items.append(_pair(name, hr, lr, _number(name, i) not in home.people))
    return items, "MATLAB bicubic, as published" if read == len(items) else "bicubic, made here"


def pictures(info: Info, split: str, n: int | None, home: Home) -> "list[Tensor]":
    """Whole pictures of a split; see `registry.pictures`."""
    import torch

    if split not in info.counts:
        raise UnknownName(f"split of {info.name}:", split, info.splits)
    high = _high(info, split, home)
    count = len(high) if n is None else n
    if not 1 <= count <= len(high):
        raise UserError(f"cannot give {count:,} pictures of {info.name}: it has {len(high):,}.")
    return [torch.from_numpy(decode()) for _, decode in high[:count]]


def _number(name: str, position: int) -> int:
    """The picture's number in the whole set: in its name (`img_076`), else its place by name."""
    return int(name[4:]) if name.startswith("img_") and name[4:].isdigit() else position


def _pair(name: str, hr: np.ndarray, lr: np.ndarray, publishable: bool) -> Pair:
    import torch

    return Pair(name, torch.from_numpy(hr), torch.from_numpy(lr), publishable)


def _fingerprint(items: list[Pair]) -> str:
    named = ((f"{item.name}/{part}", getattr(item, part).numpy())
             for item in items for part in ("hr", "lr"))  # fmt: skip
    return known.digest(named)


def _cut(hr: np.ndarray, factor: int) -> np.ndarray:
    """Rows and columns that the factor divides."""
    height, width = (length - length % factor for length in hr.shape[1:])
    return np.ascontiguousarray(hr[:, :height, :width])


def _smaller(hr: np.ndarray, factor: int) -> np.ndarray:
    """MATLAB's bicubic reduction of bytes: it rounds and clips after each axis."""
    import torch

    from latentpapers.data.degrade import imresize

    image = torch.from_numpy(hr)[None]
    return imresize(image, (hr.shape[1] // factor, hr.shape[2] // factor))[0].numpy()


def _high(info: Info, split: str, home: Home) -> list[Picture]:
    """The high-resolution pictures of a split, by name.

    Raises:
        Missing: the set is nowhere; the sentence names the command.
        Corrupt: it holds another number of pictures than it should.
    """
    path = downloads.find(home.tar) if home.tar else None
    if path:
        return _of_tar(path, f"{home.tar_folder}/HR" if home.tar_folder else "")
    folder = _folder((home.high or {}).get(split, ()))
    if folder is None:
        raise _absent(info, home)
    found = _of_folder(folder)
    wanted = info.counts[split]
    if wanted is not None and len(found) != wanted:
        raise Corrupt(
            f"{folder} holds {len(found):,} pictures, {info.name} / {split} has {wanted:,}; remove "
            f"the folder, then `latentpapers data fetch {info.name}`."
        )
    return found


def _absent(info: Info, home: Home) -> Missing:
    if home.sources:
        return downloads.absent(info.name, home.sources)
    return Missing(
        f"data set {info.name!r} needs {home.tar} ({info.licence}); put it into a folder named by "
        f"LATENTPAPERS_DATA. How it is made: {info.recipe}."
    )


def _low(home: Home, split: str, factor: int) -> dict[str, Callable[[], np.ndarray]]:
    """The published low-resolution pictures by name, empty if there are none."""
    path = downloads.find(home.tar) if home.tar else None
    if path:
        return dict(_of_tar(path, f"{home.tar_folder}/LR_x{factor}"))
    folder = _folder(tuple(f.format(f=factor) for f in (home.low or {}).get(split, ())))
    return dict(_of_folder(folder)) if folder else {}


def _match(
    low: dict[str, Callable[[], np.ndarray]], name: str, factor: int
) -> Callable[[], np.ndarray] | None:
    """`baby` lies as `baby`, `babyx4` or `baby_x4`."""
    tried = (name, f"{name}x{factor}", f"{name}_x{factor}")
    return next((low[key] for key in tried if key in low), None)


def _folder(names: tuple[str, ...]) -> Path | None:
    found = (downloads.find(name) for name in names)
    return next((path for path in found if path), None)


def _of_folder(folder: Path) -> list[Picture]:
    files = imagefiles.of_folder(folder)
    return [(file.stem, lambda file=file: imagefiles.read(file)) for file in files]


def _of_tar(path: Path, folder: str) -> list[Picture]:
    """Images of one folder of a tar (all folders if empty), by name. Nothing is unpacked.

    Raises:
        Corrupt: the tar is damaged or truncated.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            members = [m for m in tar if m.isreg() and _wanted(m.name, folder)]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _damaged(path, error) from error
    members.sort(key=lambda m: imagefiles.natural(m.name))
    keep = Path(folder) if folder else Path()
    return [
        (Path(m.name).relative_to(keep).with_suffix("").as_posix(), lambda m=m: _member(path, m))
        for m in members
    ]


def _wanted(name: str, folder: str) -> bool:
    path = Path(name)
    inside = not folder or path.parent.as_posix() == folder
    return inside and path.suffix.lower() in imagefiles.SUFFIXES


def _member(path: Path, member: tarfile.TarInfo) -> np.ndarray:
    """One picture. The file is read at the member's offset: no second pass over the headers."""
    if member.size > _MOST_BYTES:
        raise _damaged(path, f"{member.name} claims {member.size:,} bytes")
    with path.open("rb") as file:
        file.seek(member.offset_data)
        content = file.read(member.size)
    if len(content) < member.size:
        raise _damaged(path, f"it ends inside {member.name}")
    try:
        return imagefiles.read(content)
    except UserError as error:
        raise _damaged(path, f"{member.name} is no image") from error


def _damaged(path: Path, why: object) -> Corrupt:
    return Corrupt(f"{path} is damaged ({why}); put a whole copy of it there.")


# --- the table ------------------------------------------------------------------------------

_TAR = "sr_test_set5_set14_bsd100_x4.tar"
_TAR_URBAN = "sr_test_urban100_every5th_x4.tar"
_TAR_PHOTOS = "sr_train_photos.tar"
_BENCHMARK = Source(
    file="benchmark.tar",
    urls=("https://cv.snu.ac.kr/research/EDSR/benchmark.tar",),
    size=250_000_000,
    licence="benchmark images without licence files; BSD: non-commercial research",
    page="github.com/sanghyun-son/EDSR-PyTorch",
    md5="4ace41d33c2384b97e6b320cd0afd6ba",  # torchSR's table
    folder="benchmark",
)
_UNSEEN = frozenset(range(1, 101)) - (frozenset(range(1, 101, 5)) - {76})  # 76: a fountain's face
_PEOPLE_BSD = frozenset(
    [2, 11, 19, 24, 31, 35, 42, 44, 47, 55, 56, 61, 62, 63, 65, 70, 72, 75, 81, 85, 86, 94, 99]
)


def _div2k(part: str, kind: str, size: int, md5: str, sha256: str = "") -> Source:
    name = f"DIV2K_{part}_{kind}"
    # the low-resolution archives hold `DIV2K_train_LR_bicubic/X4/...`; their top folder is dropped
    folder = f"DIV2K/{name.removesuffix('_X4')}" + ("/X4" if kind.endswith("_X4") else "")
    return Source(
        f"DIV2K/{name}.zip", (f"https://data.vision.ee.ethz.ch/cvl/DIV2K/{name}.zip",), size,
        "academic research only", "data.vision.ee.ethz.ch/cvl/DIV2K", sha256, md5, folder,
    )  # fmt: skip


# SHA-256: TensorFlow Datasets; MD5: torchSR
DIV2K = (
    _div2k("train", "HR", 3_530_603_713, "bdc2d9338d4e574fe81bf7d158758658",
           "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
    _div2k("train", "LR_bicubic_X4", 245_000_000, "76c43ec4155851901ebbe8339846d93d"),
    _div2k("valid", "HR", 448_993_893, "9fcdda83005c5e5997799b69f955ff88",
           "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
    _div2k("valid", "LR_bicubic_X4", 31_000_000, "21962de700c8d368c6ff83314480eff0"),
)  # fmt: skip


def _pirm(part: str, kind: str, size: int) -> Source:
    file = f"PIRM_{part}_{kind}.tar.gz"
    mirror = "https://huggingface.co/datasets/eugenesiow/PIRM/resolve/main/data"
    return Source(f"PIRM/{file}", (f"{mirror}/{file}",), size, "CC BY-NC-SA 4.0",
                  "www.pirm2018.org/dataset.html", folder=f"PIRM/{part}/{kind}")  # fmt: skip


PIRM = (
    _pirm("test", "HR", 53_300_000), _pirm("test", "LR_x4", 3_720_000),
    _pirm("valid", "HR", 51_800_000), _pirm("valid", "LR_x4", 3_640_000),
)  # fmt: skip


def _entry(
    name: str, what: str, counts: dict[str, int | None], licence: str, source: str, home: Home, *,
    needs: str = "", recipe: str = "", publishable: bool = True,
) -> Entry:  # fmt: skip
    info = Info(
        name=name, what=what, sizes=(), channels=3, counts=counts,
        default={split: count or 0 for split, count in counts.items()}, licence=licence,
        source=source, needs=needs or f"`latentpapers data fetch {name}`", recipe=recipe,
        publishable=publishable, download=sum(s.size for s in home.sources),
    )  # fmt: skip
    return Entry(
        info,
        parts=lambda split, n: [storage.sha256_file(Path(__file__)), *_marks(info, home)],
        fetch=(lambda dest: downloads.bring(name, home.sources, dest)) if home.sources else None,
        files=lambda: _present(home),
        pairs=lambda info, factor, split: pairs(info, factor, split, home),
        pictures=lambda info, split, n: pictures(info, split, n, home),
        digest=(lambda: _digest(info, home)) if home.tar else None,
        verify=lambda: _verify(info, home),
    )


def _present(home: Home) -> list[Path]:
    """The tar, or the folders: unpacked by us, or laid there by hand."""
    if home.tar and (path := downloads.find(home.tar)):
        return [path]
    folders = [_folder(names) for names in (home.high or {}).values()]
    return [f for f in folders if f]


def _marks(info: Info, home: Home) -> list[str]:
    found = _present(home)
    if not found:
        raise _absent(info, home)
    return [storage.sha256_file(p) if p.is_file() else downloads.mark(p) for p in found]


def _verify(info: Info, home: Home) -> list[str]:
    """Compares the pixels in the tar with the committed hash, or the folders with their record."""
    path = downloads.find(home.tar) if home.tar else None
    if path is None:
        return downloads.verify(home.sources, info.name) if home.sources else [_raise(info, home)]
    with packs.reading(path, "put a whole copy of it there"):
        return [known.compare(info.name, _digest(info, home)[0])]


def _raise(info: Info, home: Home) -> str:
    raise _absent(info, home)


def _digest(info: Info, home: Home) -> tuple[str, int]:
    """The hash of what the tar holds, as in `known`, and the number of pictures."""
    path = downloads.find(home.tar)
    if path is None:
        raise _absent(info, home)
    if home.tar_folder:
        items = _items(info, 4, "test", home)[0]
        return _fingerprint(items), len(items)
    found = _of_tar(path, "")
    return known.digest((name, decode()) for name, decode in found), len(found)


def _benchmark(
    name: str, own: str, theirs: str, count: int, people: frozenset[int], tar: str = _TAR
) -> Entry:
    home = Home(
        tar=tar,
        tar_folder=own,
        sources=(_BENCHMARK,),
        high={"test": (f"benchmark/{theirs}/HR",)},
        low={"test": (f"benchmark/{theirs}/LR_bicubic/X{{f}}",)},
        people=people,
    )
    what = f"{own}: {count} test pictures; MATLAB-bicubic x4 beside them"
    source = "SelfExSR's copy (tar) or EDSR's benchmark folder"
    if name == "urban100":
        what = "Urban100: 100 test pictures (the tar holds every fifth: 20 of 100)"
    return _entry(name, what, {"test": count}, _BENCHMARK.licence, source, home,
                  publishable=not people)  # fmt: skip


ENTRIES = table(
    _benchmark("set5", "Set5", "Set5", 5, frozenset([1, 4, 5])),
    _benchmark("set14", "Set14", "Set14", 14, frozenset([2, 5, 6, 8, 9, 10])),
    _benchmark("bsd100", "BSD100", "B100", 100, _PEOPLE_BSD),
    _benchmark("urban100", "Urban100", "Urban100", 100, _UNSEEN, _TAR_URBAN),
    _entry(
        "pirm", "PIRM 2018 perceptual super-resolution, test and validation",
        {"test": 100, "valid": 100}, PIRM[0].licence, "PIRM 2018 (Blau et al.)",
        Home(
            sources=PIRM,
            high={
                "test": ("PIRM/test/HR", "PIRM/Test/Original"),
                "valid": ("PIRM/valid/HR", "PIRM/Validation/Original"),
            },
            low={
                "test": ("PIRM/test/LR_x{f}", "PIRM/Test/{f}x_downsampled"),
                "valid": ("PIRM/valid/LR_x{f}", "PIRM/Validation/{f}x_downsampled"),
            },
        ),
        publishable=False,
    ),
    _entry(
        "div2k", "DIV2K: 800 training and 100 validation photographs of 2K pixels",
        {"train": 800, "test": 100}, DIV2K[0].licence, "NTIRE 2017 (Agustsson and Timofte)",
        Home(
            sources=DIV2K,
            high={"train": ("DIV2K/DIV2K_train_HR",), "test": ("DIV2K/DIV2K_valid_HR",)},
            low={
                "train": ("DIV2K/DIV2K_train_LR_bicubic/X{f}",),
                "test": ("DIV2K/DIV2K_valid_LR_bicubic/X{f}",),
            },
        ),
        publishable=False,
    ),
    _entry(
        "sr-photos", "343 training photographs: 300 of BSDS500 (none of BSD100), 43 of 1440 px",
        {"train": 343}, "BSDS: non-commercial research; the others CC0 or their photographers'",
        "BSDS500 train and half of test; desktop wallpapers", Home(tar=_TAR_PHOTOS),
        needs=f"put {_TAR_PHOTOS} into a folder named by LATENTPAPERS_DATA",
        recipe=(
            "train and every second test image of github.com/BIDS/BSDS500@a04b7c6, and the "
            "photographs of BuddiesOfBudgie/budgie-backgrounds, elementary/wallpapers@f28b861 and "
            "pop-os/wallpapers@03a25a1 reduced to 1440 px, WebP 92, as a tar; or "
            "`latentpapers data fetch div2k`, the paper's own training set"
        ),
        publishable=False,
    ),
)  # fmt: skip
