"""Rows of the tables that ship as numbers: made on the published sets, packed, read."""

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentpapers import data, models, paths, storage, tensorfile, weights
from latentpapers.errors import Corrupt, Missing
from latentpapers.papers.lsrgan.measuring import Values, measure
from latentpapers.papers.lsrgan.outputs import bicubic, enlarge, load_generator
from latentpapers.papers.lsrgan.pictures import evaluation_pairs
from latentpapers.papers.lsrgan.presets import VALUES_OF_MU
from latentpapers.papers.lsrgan.starts import start_file
from latentpapers.papers.lsrgan.training import VARIANTS, Training

# Test sets whose pictures do not ship, so that quick and cpu read scores of the shipped networks
PUBLISHED_SETS = ("set5", "set14", "bsd100", "urban100")
SCORED = ("psnr", *VARIANTS, *VALUES_OF_MU)
# With the standard loss: no network ships, and scores of the crops alone; they decide one claim
STANDARD = ("esr_standard", "lsr_standard")
# Seeds 1 and 2 of the joint runs ship as scores alone: their networks would take 12 MB. All start
# from seed 0's first stage, so what differs is the critic's first weights and the order of crops.
# Settled before either was measured: a verdict about a training method reads the t interval over
# the seeds' values of its paired difference (`ledger.verdicts`, as for every paper), on the same
# pictures; rules and margins stay those of one seed. That interval does not cover other pictures:
# beside it, tables show one that does (`intervals.seeds_and_images`), and notes say where the two
# disagree.
UNSHIPPED_SEEDS = (1, 2)
# and these are the crops on which quick and cpu show them, by `each` of `evaluation_pairs`
CROPS = {"photos_2": 2, "photos_0": 0}


def score_file(seed: int = 0, kind: str = "published") -> Path:
    """Where the scores of a seed's networks are; `kind`: published | standard |
    first_stage | readings."""
    return paths.checkpoints() / "lsrgan" / "scores" / f"{kind}_s{seed}.safetensors"


def scored_pairs(name: str) -> list[data.Pair]:
    """Pictures behind shipped scores: of a published set, or the crops of a key of `CROPS`."""
    if name in CROPS:
        return evaluation_pairs("photos", each=CROPS[name])
    return evaluation_pairs(name)


def score(
    names: tuple[str, ...], sets: tuple[str, ...], out: Path, seed: int = 0,
    niqe: tuple[str, ...] = (), folder: Path | None = None, kind: str = "published",
) -> None:  # fmt: skip
    """Measures networks, and bicubic enlargement, on whole test sets, and writes what was measured
    of every picture with the hashes of networks and pictures.

    Args:
        niqe: those of `sets` on which NIQE is measured too: pictures of 200 px a side at least.
        folder: of networks that do not ship; their cards are then written too. None: shipped ones.
        kind: as in `score_file`.

    Raises:
        Missing, UnknownName: a network or a set that is not here.
    """
    found = {name: scored_pairs(name) for name in sets}
    tree = {"bicubic": measure(lambda pair: bicubic(pair.lr), found, niqe)}
    card: dict[str, Any] = {"sets": {}, "networks": {}, "seed": seed, "shipped": folder is None}
    for name, pairs in found.items():
        pixels = ((pair.name, pair.hr.numpy()) for pair in pairs)
        card["sets"][name] = {"pictures": len(pairs), "sha256": data.known.digest(pixels)}
    if folder is not None:
        card |= {"cards": {}, "start": "", "commands": remaking(names, seed, kind)}
    for name in names:
        file = (folder or paths.checkpoints() / "lsrgan") / f"{name}_s{seed}.safetensors"
        model = models.load(file)
        net = load_generator(model)
        tree[name] = measure(lambda pair, net=net: enlarge(net, pair.lr), found, niqe)
        card["networks"][name] = storage.sha256_file(file)
        if folder is not None:
            card["cards"][name] = {k: v for k, v in model.card.items() if k not in _LONG}
            card["start"] = storage.sha256_file(start_file(Training(**model.card["config"]), file))
        print(f"{name}: measured", flush=True)
    tensorfile.save(out / score_file(seed, kind).name, packed(tree), about=card)


def packed(tree: dict[str, Values]) -> dict[str, Any]:
    """One tensor a network, set and type in place of one a metric, whose names fill a third of a
    file; its key names the metrics."""

    def one(found: dict[str, Tensor]) -> dict[str, Tensor]:
        kinds = dict.fromkeys(v.dtype for v in found.values())
        alike = [{k: v for k, v in found.items() if v.dtype == kind} for kind in kinds]
        return {",".join(part): torch.stack(list(part.values())) for part in alike}

    return {net: {name: one(v) for name, v in sets.items()} for net, sets in tree.items()}


def unpacked(tree: dict[str, Any]) -> dict[str, Values]:
    """The inverse of `packed`."""

    def one(parts: dict[str, Tensor]) -> dict[str, Tensor]:
        pairs = (zip(key.split(","), v, strict=True) for key, v in parts.items())
        return dict(itertools.chain.from_iterable(pairs))

    return {net: {name: one(v) for name, v in sets.items()} for net, sets in tree.items()}


_LONG = ("history", "curve", "parts")  # of a card: what a score has no use for


def remaking(names: tuple[str, ...], seed: int, kind: str = "published") -> list[str]:
    """Commands that train the networks of a seed that does not ship, from the shipped first stage,
    and measure them."""
    home = "results/checkpoints/lsrgan"
    train = "latentpapers train lsrgan"
    return [
        f"cp {home}/psnr_s0.safetensors FOLDER/psnr.safetensors",
        *(f"{train} --run {name} --seed {seed} --out FOLDER" for name in names),
        f"{train} --score --what {kind} --seed {seed} --networks FOLDER --out {home}/scores",
    ]


def score_first_stage(folder: Path, out: Path) -> None:
    """Measures what the reduced first stage makes of public weights, on Set5: bicubic, the weights
    as they come, and `psnr_df2k` in `folder`, a network of 33 MB that does not ship.

    Raises:
        Missing, UnknownName: networks or pictures that are not here.
    """
    pairs = scored_pairs("set5")
    file = folder / "psnr_df2k_s0.safetensors"
    model = models.load(file)
    raw = weights.network("realsr_df2k").to(memory_format=torch.channels_last)
    nets = {"realsr_df2k": raw, "psnr_df2k": load_generator(model)}
    tree = {"bicubic": measure(lambda p: bicubic(p.lr), {"set5": pairs}, ())}
    for name, net in nets.items():
        tree[name] = measure(lambda p, net=net: enlarge(net, p.lr), {"set5": pairs}, ())
    about = {
        "pictures": [pair.name for pair in pairs],
        "sha256": data.known.digest((pair.name, pair.hr.numpy()) for pair in pairs),
        "card": {k: v for k, v in model.card.items() if k not in _LONG},
        "networks": {"psnr_df2k": storage.sha256_file(file),
                     "realsr_df2k": storage.sha256_file(weights.find("realsr_df2k"))},
        "commands": ["latentpapers train lsrgan --run psnr_df2k --out FOLDER",
                     "latentpapers train lsrgan --score --what first_stage --networks FOLDER --out "
                     "results/checkpoints/lsrgan/scores"],
    }  # fmt: skip
    tensorfile.save(out / score_file(0, "first_stage").name, tree, about=about)


def first_stage_scores() -> tuple[dict[str, dict[str, float]], models.Model]:
    """PSNR by network and picture of Set5, as `score_first_stage` wrote it, and its card.

    Raises:
        Missing, Corrupt: no such file, or an altered one.
    """
    file = score_file(0, "first_stage")
    about, tree = tensorfile.header(file), tensorfile.load(file)
    found = {
        name: dict(zip(about["pictures"], values["set5"]["PSNR"].tolist(), strict=True))
        for name, values in tree.items()
    }
    return found, models.Model({}, about["card"])


def published_scores(
    seed: int = 0, kind: str = "published"
) -> tuple[dict[str, Values], dict[str, Any]]:
    """Shipped scores by network, and their card.

    Raises:
        Missing, Corrupt: the file, or one of networks that are no longer the shipped ones or no
            longer start from the shipped first stage.
    """
    file = score_file(seed, kind)
    card, tree = tensorfile.header(file), unpacked(tensorfile.load(file))
    shipped = card.get("shipped", True)
    behind = card["networks"] if shipped else {"psnr": card["start"]}
    for name, known in behind.items():
        network = paths.checkpoints() / "lsrgan" / f"{name}_s{seed * shipped}.safetensors"
        if storage.sha256_file(network) != known:
            again = f"latentpapers train lsrgan --score --out {file.parent.name}"
            again = again if shipped else "` and `".join(card["commands"])
            raise Corrupt(
                f"{file.name} was measured with another {network.name}; measure again with "
                f"`{again}`."
            )
    return tree, card


def scores_only(
    seed: int, tests: tuple[str, ...], each: int, kind: str = "published"
) -> dict[str, tuple[Values, models.Model]]:
    """What ships of a seed whose networks do not: name -> scores of every picture, and the card.

    Args:
        tests, each: test sets and crops a photograph, as in `Preset`.
        kind: as in `score_file`.

    Raises:
        Missing, Corrupt: no such scores, with the remedy; as `published_scores`.
    """
    tree, card = published_scores(seed, kind)
    keys = {name: f"photos_{each}" if name == "photos" else name for name in tests}
    for key in keys.values():
        if key not in card["sets"]:
            raise Missing(
                f"the networks of seed {seed} do not ship, and of their scores there are none on "
                f"{key!r} (known: {', '.join(card['sets'])}); set table_seeds=[0], or train them: "
                f"{'; '.join(card['commands'][:2])} ..."
            )
    return {
        name: ({test: tree[name][key] for test, key in keys.items()}, models.Model({}, about))
        for name, about in card["cards"].items()
    }
