"""`photos`: photographs that ship inside scikit-image and scikit-learn; nothing is downloaded.

`photos()` gives them whole. `load("photos", ...)` cuts square crops: crop i comes from photograph
i mod P, at a place that depends on (split, size, i) alone, reduced by a whole factor (an exact
area average), so the pixels are the same everywhere. Train and test use different photographs.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentpapers import seeds
from latentpapers.errors import Corrupt, UnknownName

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from latentpapers.data.imageset import ImageSet
    from latentpapers.data.registry import Info


@dataclass(frozen=True)
class _Photo:
    package: str
    path: str
    split: str  # "" : whole images only (grey textures)
    licence: str


_SKIMAGE, _SKLEARN = ("skimage", "data/"), ("sklearn", "datasets/images/")
_NASA, _CC0, _CC_BY = "public domain (NASA)", "CC0 1.0", "CC BY 2.0"
_SPACEX, _MIDDLEBURY = (
    "public domain (SpaceX)",
    "Middlebury Stereo 2014, for research, with citation",
)


def _photo(home: tuple[str, str], file: str, split: str, licence: str) -> _Photo:
    return _Photo(home[0], home[1] + file, split, licence)


PHOTOS = {
    "astronaut": _photo(_SKIMAGE, "astronaut.png", "train", _NASA),
    "brick": _photo(_SKIMAGE, "brick.png", "", _CC0),
    "camera": _photo(_SKIMAGE, "camera.png", "", _CC0),
    "chelsea": _photo(_SKIMAGE, "chelsea.png", "test", _CC0),
    "china": _photo(_SKLEARN, "china.jpg", "train", _CC_BY),
    "coffee": _photo(_SKIMAGE, "coffee.png", "test", _CC0),
    "flower": _photo(_SKLEARN, "flower.jpg", "test", _CC_BY),
    "grass": _photo(_SKIMAGE, "grass.png", "", _CC0),
    "gravel": _photo(_SKIMAGE, "gravel.png", "", _CC0),
    "hubble": _photo(_SKIMAGE, "hubble_deep_field.jpg", "train", _NASA),
    "motorcycle": _photo(_SKIMAGE, "motorcycle_left.png", "train", _MIDDLEBURY),
    "rocket": _photo(_SKIMAGE, "rocket.jpg", "train", _SPACEX),
}
"""Every photograph this module knows: where it lies, its split, its licence."""


def photos() -> "dict[str, Tensor]":
    """Every photograph present, whole: name -> uint8 (3, H, W); grey ones have equal channels."""
    return {name: _tensor(name) for name in available()}


def photo(name: str) -> "Tensor":
    """One photograph, whole: uint8 (3, H, W).

    Raises:
        UnknownName: none of that name is installed.
    """
    if name not in available():
        raise UnknownName("photograph", name, available())
    return _tensor(name)


def available() -> tuple[str, ...]:
    """Names of the photographs that are installed, in a fixed order."""
    return tuple(name for name in PHOTOS if path(name) is not None)


def path(name: str) -> Path | None:
    """The file of a photograph, or None if its package lacks it."""
    spec = importlib.util.find_spec(PHOTOS[name].package)
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder) / PHOTOS[name].path
        if file.is_file():
            return file
    return None


def of_split(split: str) -> tuple[str, ...]:
    """The colour photographs that crops of a split come from."""
    return tuple(name for name in available() if PHOTOS[name].split == split)


def load(info: "Info", size: int, split: str, n: int) -> "ImageSet":
    """Crops; the label is the photograph a crop comes from."""
    import numpy as np

    from latentpapers.data.imageset import assemble

    names = of_split(split)
    whole = [_pixels(name) for name in names]
    crops = [_crop(whole[i % len(names)], size, split, i) for i in range(n)]
    labels = np.arange(n) % len(names)
    return assemble(info, size, split, np.stack(crops), labels=labels, label_names=names)


def _crop(image: "np.ndarray", size: int, split: str, i: int) -> "np.ndarray":
    """Crop i, (3, size, size): reduced by 1 to 4 where the photograph is large enough."""
    import numpy as np

    draw = seeds.numpy(0, "photos", split, size, i)
    factor = int(draw.integers(1, 1 + min(4, min(image.shape[1:]) // size)))
    side = factor * size
    top, left = (int(draw.integers(0, length - side + 1)) for length in image.shape[1:])
    cut = image[:, top : top + side, left : left + side]
    cells = cut.reshape(3, size, factor, size, factor).mean(axis=(2, 4))
    return np.rint(cells).astype(np.uint8)


def _pixels(name: str) -> "np.ndarray":
    import numpy as np
    from PIL import Image

    file = path(name)
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        remedy = "install the package again (`make setup`)"
        raise Corrupt(f"{file.name} of {PHOTOS[name].package} is damaged; {remedy}.") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _tensor(name: str) -> "Tensor":
    import torch

    return torch.from_numpy(_pixels(name))
