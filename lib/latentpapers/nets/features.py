"""Feature networks: images in [0, 1] in, the maps or vectors of a named layer out.

Each network is torchvision's own (or torch-fidelity's, for the Inception of 2015), cut after the
layer that is asked for. Images are resized and normalised inside, as `SPECS` says for each:

| network | normalisation | size for vectors | layers |
|---|---|---|---|
| vgg16, vgg19 | ImageNet | 224, bicubic | conv1_1, relu1_1, ..., pool5, flat, fc1, fc1_relu, fc2, |
|  |  |  | fc2_relu, logits |
| vgg16hed | HED's mean | | conv1_1 ... pool5 |
| alexnet | ImageNet | 224, bicubic | conv1, relu1, ..., pool5, flat, fc1, ..., logits |
| squeezenet1_1 | ImageNet | 224, bicubic | conv1, relu1, pool1, fire2, ..., fire9, conv10, logits |
| inception_torchvision | ImageNet | 299, bilinear | Conv2d_1a_3x3, ..., Mixed_7c, pool3, logits |
| inception_tf2015 | (x - 128) / 128 | 299, TensorFlow 1's bilinear | 64, 192, 768, pool3, logits |
| efficientnetlite0 | ImageNet | 224, bicubic | stem, block0, ..., block15, head, pooled, logits |

`convB_I` is before its ReLU and `reluB_I` after it, numbered as in the VGG paper; `flat` and what
follows are vectors, for which images are resized. Layers before it work at the image's own size.
Bicubic and bilinear are antialiased. No network draws a random number or keeps a gradient of its
own parameters; gradients with respect to the image flow, except through `inception_tf2015`, which
takes bytes.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from latentpapers.errors import UnknownName

Colour = tuple[float, float, float]
Stages = Iterator[tuple[str, nn.Module]]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
HED_MEAN: Colour = (122.67892 / 255, 116.66877 / 255, 104.00699 / 255)


@dataclass(frozen=True)
class Spec:
    """How a network is built and fed.

    Attributes:
        backbone: makes the network whose state dict has the canonical keys; called where
            parameters are not stored (`torch.device("meta")`).
        stages: its layers in order, by name.
        default: the layer that is asked for most.
        size: side to which images are resized for vectors.
        mode: how they are resized.
    """

    backbone: Callable[[], nn.Module]
    stages: Callable[[nn.Module], Stages]
    default: str
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    size: int = 224
    mode: str = "bicubic"


class Features(nn.Module):
    """A network cut after one layer.

    Attributes:
        layer: what `forward` returns.
        size: side to which images are resized first; None if they are used as they are.
    """

    def __init__(self, stages: dict[str, nn.Module], spec: Spec) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.layer = next(reversed(stages))
        self.size = spec.size if "flat" in stages else None
        self.mode = spec.mode
        self.register_buffer("mean", torch.tensor(spec.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1))

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Tensor:
        return self.maps(x, [self.layer])[self.layer]

    def maps(self, x: Float[Tensor, "N 3 H W"], layers: Iterable[str]) -> dict[str, Tensor]:
        """Several layers in one pass.

        Args:
            x: RGB in [0, 1].
            layers: names of `self.stages`, in any order.

        Raises:
            UnknownName: a layer that this network has not, or that lies behind `self.layer`.
            ValueError: not a float batch of RGB images.
        """
        wanted = known(layers, self.stages)
        x = self.prepare(x)
        found: dict[str, Tensor] = {}
        for name, stage in self.stages.items():
            if len(found) == len(wanted):
                break
            x = stage(x)
            if name in wanted:
                found[name] = x
        return found

    def prepare(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 S S"]:
        """Images as the first layer wants them: resized where `size` says so, normalised.

        Raises:
            ValueError: not a float batch of RGB images.
        """
        checked(x)
        if self.size and x.shape[-2:] != (self.size, self.size):
            shape = (self.size, self.size)
            x = interpolate(x, shape, mode=self.mode, antialias=True, align_corners=False)
        return (x - self.mean.to(x)) / self.std.to(x)


class InceptionTF2015(nn.Module):
    """The Inception of 2015 behind FID and the Inception score, as torch-fidelity defines it.

    Images are rounded to bytes first (the published protocols measure stored images), so no
    gradient flows. Layers: 64, 192, 768 (pooled maps), pool3 (2048), logits (1008) and
    logits_unbiased (1008, without the bias: what the Inception score uses).
    """

    LAYERS = ("64", "192", "768", "pool3", "logits_unbiased", "logits")

    def __init__(self, backbone: nn.Module, layer: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.layer = layer

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Tensor:
        return self.maps(x, [self.layer])[self.layer]

    @torch.no_grad()
    def maps(self, x: Float[Tensor, "N 3 H W"], layers: Iterable[str]) -> dict[str, Tensor]:
        """Several layers in one pass; see `Features.maps`."""
        wanted = sorted(known(layers, self.LAYERS), key=self.LAYERS.index)
        x = (checked(x) * 255).round().clamp(0, 255).to(torch.uint8)
        self.backbone.features_list = ["2048" if name == "pool3" else name for name in wanted]
        return dict(zip(wanted, self.backbone(x), strict=True))


def build(name: str, state: dict[str, Tensor], layer: str | None = None) -> nn.Module:
    """A feature network with its weights, in evaluation mode, parameters without gradients.

    Args:
        name: one of `SPECS`.
        state: its state dict under canonical keys (`SPECS[name].backbone`); the tensors are used
            in place, not copied.
        layer: where to cut; `SPECS[name].default` if None. What lies behind is freed.

    Raises:
        UnknownName: no such network or layer.
        RuntimeError: the state dict is of another network.
    """
    spec = spec_of(name)
    net = skeleton(name)
    nn.Module.load_state_dict(net, state, strict=True, assign=True)
    net.eval().requires_grad_(False)
    layer = layer or spec.default
    if name == "inception_tf2015":
        known([layer], InceptionTF2015.LAYERS)
        return InceptionTF2015(net, layer).eval()
    for module in net.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.inplace = False  # or the map before it would be overwritten
    return Features(cut(spec.stages(net), layer), spec).eval()


def folded(net: nn.Module) -> nn.Module:
    """The same network for measuring many images on a CPU: every batch normalisation put into the
    convolution before it, maps in channels-last order. Equal up to rounding, in about half the
    time; the network given is left as it is.

    Args:
        net: in evaluation mode; pairs are looked for in its `nn.Sequential`s.

    Raises:
        RuntimeError: a network in training mode.
    """
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    net = copy.deepcopy(net)
    for chain in [m for m in net.modules() if isinstance(m, nn.Sequential)]:
        for i, (first, second) in enumerate(pairwise(chain)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                if second.training:
                    raise RuntimeError("batch normalisation folds in evaluation mode alone.")
                chain[i], chain[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return net.requires_grad_(False).to(memory_format=torch.channels_last)


def spec_of(name: str) -> Spec:
    """How a network is built.

    Raises:
        UnknownName: no such network.
    """
    if name not in SPECS:
        raise UnknownName("feature network", name, SPECS)
    return SPECS[name]


def skeleton(name: str) -> nn.Module:
    """The whole network without storage: shapes and canonical keys, no values."""
    with torch.device("meta"):
        return spec_of(name).backbone()


def layers(name: str) -> tuple[str, ...]:
    """The layers of a network, first to last.

    Raises:
        UnknownName: no such network.
    """
    if name == "inception_tf2015":
        return InceptionTF2015.LAYERS
    return tuple(stage for stage, _ in spec_of(name).stages(skeleton(name)))


def cut(stages: Stages, layer: str) -> dict[str, nn.Module]:
    """The stages up to and with `layer`.

    Raises:
        UnknownName: no such layer.
    """
    every = dict(stages)
    known([layer], every)
    names = list(every)
    return {name: every[name] for name in names[: names.index(layer) + 1]}


def known(layers: Iterable[str], of: Iterable[str]) -> set[str]:
    """`layers` as a set, each of which is in `of`.

    Raises:
        UnknownName: one is not.
    """
    wanted, names = set(layers), list(of)
    for name in sorted(wanted - set(names)):
        raise UnknownName("layer", name, names)
    return wanted


def checked(x: Tensor) -> Tensor:
    """`x`, if it is a float batch of RGB images.

    Raises:
        ValueError: it is not.
    """
    if x.dim() != 4 or x.shape[1] != 3 or not x.is_floating_point():
        shape = f"{x.dtype} {tuple(x.shape)}"
        raise ValueError(f"a feature network takes float (N, 3, H, W) in [0, 1], not {shape}")
    return x


# --- the networks: torchvision is imported when one is built ------------------------------------


def _torchvision(name: str, **options: object) -> nn.Module:
    import torchvision

    return getattr(torchvision.models, name)(weights=None, **options)


class _Vgg16Convolutions(nn.Module):
    """The convolutions of VGG16 under torchvision's keys; written out, because importing
    torchvision takes seconds, which the small notebooks that use this network do not have."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential()


def _inception_torchvision() -> nn.Module:
    """Without torchvision's own change of normalisation: StarGAN v2's FID leaves it out."""
    return _torchvision("inception_v3", init_weights=False, transform_input=False)


def _inception_tf2015() -> nn.Module:
    import io

    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Bare(FeatureExtractorInceptionV3):
        """Its constructor would download and unpickle weights; ours come later, checked."""

        def load_state_dict(self, *args: object, **options: object) -> None:
            return None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    return Bare("inception-v3-compat", ["2048"], feature_extractor_weights_path=empty)


def _efficientnet_lite0() -> nn.Module:
    from latentpapers.nets.efficientnet_lite import EfficientNetLite0

    return EfficientNetLite0()


def _conv_stages(net: nn.Module, blocks: bool) -> Stages:
    """conv, relu and pool of a chain of convolutions, numbered `block_index` or simply `index`."""
    block, index = 1, 0
    for module in net.features:
        kind = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool"}[type(module)]
        index += kind == "conv"
        if kind == "pool":
            yield f"pool{block if blocks else index}", module
            block, index = block + 1, 0 if blocks else index
        else:
            yield f"{kind}{block}_{index}" if blocks else f"{kind}{index}", module


def _dense_stages(net: nn.Module) -> Stages:
    linear = [m for m in net.classifier if isinstance(m, nn.Linear)]
    yield "flat", nn.Sequential(net.avgpool, nn.Flatten())
    for name, module in zip(("fc1", "fc2", "logits"), linear):
        yield name, module
        if name != "logits":
            yield f"{name}_relu", nn.ReLU()


def _vgg_stages(net: nn.Module) -> Stages:
    yield from _conv_stages(net, blocks=True)
    if len(net.classifier):
        yield from _dense_stages(net)


def _alexnet_stages(net: nn.Module) -> Stages:
    yield from _conv_stages(net, blocks=False)
    yield from _dense_stages(net)


def _squeezenet_stages(net: nn.Module) -> Stages:
    pools, fires = iter(("pool1", "pool3", "pool5")), iter(range(2, 10))
    names = {nn.Conv2d: lambda: "conv1", nn.ReLU: lambda: "relu1", nn.MaxPool2d: pools.__next__}
    for module in net.features:
        yield names.get(type(module), lambda: f"fire{next(fires)}")(), module
    conv, relu, pool = list(net.classifier)[1:]
    yield "conv10", conv
    yield "flat", nn.Sequential(relu, pool, nn.Flatten())
    yield "logits", nn.Identity()


def _inception_stages(net: nn.Module) -> Stages:
    skip = ("AuxLogits", "avgpool", "dropout", "fc")
    yield from ((name, module) for name, module in net.named_children() if name not in skip)
    yield "flat", nn.Sequential(net.avgpool, nn.Flatten())
    yield "pool3", nn.Identity()
    yield "logits", net.fc


def _efficientnet_stages(net: nn.Module) -> Stages:
    yield "stem", net.stem
    yield from ((f"block{i}", block) for i, block in enumerate(net.blocks))
    yield "head", net.head
    yield "flat", net.pool
    yield "pooled", nn.Identity()
    yield "logits", net.fc


def _no_stages(net: nn.Module) -> Stages:
    yield from ()


SPECS: dict[str, Spec] = {
    "vgg16": Spec(lambda: _torchvision("vgg16"), _vgg_stages, "fc2_relu"),
    "vgg19": Spec(lambda: _torchvision("vgg19"), _vgg_stages, "conv5_4"),
    "vgg16hed": Spec(_Vgg16Convolutions, _vgg_stages, "conv5_3", mean=HED_MEAN),
    "alexnet": Spec(lambda: _torchvision("alexnet"), _alexnet_stages, "relu5"),
    "squeezenet1_1": Spec(lambda: _torchvision("squeezenet1_1"), _squeezenet_stages, "fire9"),
    "squeeze_deepscale": Spec(lambda: _torchvision("squeezenet1_1"), _squeezenet_stages, "fire9"),
    "inception_torchvision": Spec(
        _inception_torchvision, _inception_stages, "pool3", size=299, mode="bilinear"
    ),
    "inception_tf2015": Spec(_inception_tf2015, _no_stages, "pool3"),
    "efficientnetlite0": Spec(_efficientnet_lite0, _efficientnet_stages, "pooled"),
}
"""The feature networks by the names of `latentpapers.weights`."""
