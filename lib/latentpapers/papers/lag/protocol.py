"""The paper's protocol as printed: FID and LPIPS on CelebA-HQ."""

import torch

from latentpapers import data, models
from latentpapers.metrics.protocol import Score
from latentpapers.papers.lag.measuring import unit
from latentpapers.papers.lag.outputs import job_of
from latentpapers.papers.lag.presets import Preset
from latentpapers.shapes import Images, PerImage

PUBLISHED = {"LPIPS": "lpips_alex", "FID": "fid_tf2015_n10000"}


def published(preset: Preset) -> tuple[dict[str, str], list[str]]:
    """Which columns of `PUBLISHED` table S1 can have here, and a sentence for each other one.

    Both are empty where the preset keeps to the stand-ins.
    """
    from latentpapers import weights
    from latentpapers.metrics import entry

    here, absent = {}, []
    for column, name in PUBLISHED.items() if preset.published else ():
        protocol = entry.find(name)
        missing = [w for w in protocol.needs if not weights.available(w)]
        if missing:
            fetch = f"python -m latentpapers weights fetch {missing[0]}"
            absent.append(f"No {column}: the weights {missing[0]} are not here; run `{fetch}`.")
        elif protocol.n not in (None, preset.n_eval):
            absent.append(
                f"No {column}: {name} is defined on {protocol.n:,} images, not {preset.n_eval:,}."
            )
        else:
            here[column] = name
    return here, absent


def lpips(images: Images, reference: Images, *, device: str = "cpu") -> PerImage:
    """LPIPS of images on [-1, 1] to their truth, 64 at a time on the device.

    Raises:
        Missing: AlexNet's weights are not here.
    """
    from latentpapers.metrics import entry

    pairs = zip(unit(images).split(64), unit(reference).split(64), strict=True)
    metric = PUBLISHED["LPIPS"]
    return torch.cat([entry.values(metric, a.to(device), b.to(device)) for a, b in pairs])


def fid(model: models.Model, images: Images, *, device: str = "cpu") -> Score:
    """FID of 10,000 outputs on [-1, 1] to equally many images that the network was trained on.

    Raises:
        Missing: Inception's weights are not here. UserError: another number of outputs.
    """
    from latentpapers.metrics import entry

    job = job_of(model)
    real = data.load(job.data, size=job.size, split="train", n=len(images)).pixels
    fake = data.to_bytes(images)
    return entry.score(PUBLISHED["FID"], fake, real, layout="NCHW", device=device)
