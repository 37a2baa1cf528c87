"""The search of a checkpoint, and of a run within the time that its preset allows."""

import dataclasses
import time
from pathlib import Path

import torch
from torch import Tensor

from latentpapers import config, models, tensorfile
from latentpapers.latent import found, method, walk
from latentpapers.latent.descent import Plan
from latentpapers.latent.pair import Pair
from latentpapers.papers.diamond.editing import attribute_vector, edited_rows, search_edited
from latentpapers.papers.diamond.outputs import pair
from latentpapers.papers.diamond.presets import Preset
from latentpapers.seeds import generator

# 300 steps of 0.02: enough to reach either end of [0, 1] many times over
FREE = Plan(0.02, 300, 0, 0.0)


def search(
    model: models.Model, how: method.Search, n: int, seed: int, *, device: str = "cpu",
    extras: int = 20, seconds: float | None = None, part: int | None = None,
) -> found.Found:  # fmt: skip
    """Inversion, protoimage and weight of `n` starts from the stream `search` of the seed.

    Networks run in bfloat16; the codes stay in single precision. `extra` holds, for the first
    `extras` starts, what claims about the settings need: weights without bounds, pulled to 0
    (`free`) or raised (`highest`), and for WGAN-GP the protoimages of eq 6 alone
    (`without_spreads`).

    Args:
        model, how, n, seed, device: of the search.
        extras: starts of `extra`; 0 for none.
        seconds: of wall clock: a further part begins only if one as slow as the last would end in
            time, so fewer than `n` starts may come back, but at least one part.
        part: starts of a part, which changes no result; all where there is no limit.
    """
    began, done, g = time.perf_counter(), [], generator(seed, "search")
    searched = pair(model, dtype=torch.bfloat16)
    z0, candidates = (z.to(device) for z in method.starts(n, searched, how, g))
    for rows in z0.split(part or n):
        last = time.perf_counter()
        result = method.search(searched, rows, candidates, how)
        if extras and not done:
            extra = _extras(searched, result.first(extras), how)
            result = dataclasses.replace(result, extra=extra)
        done.append(result)
        float(result.sigma.sum())  # waits for the device, so that the clock is right
        now = time.perf_counter()
        if seconds is not None and 2 * now - last - began > seconds:
            break
    return found.joined(done)


def _extras(searched: Pair, few: found.Found, how: method.Search) -> dict[str, Tensor]:
    """The first starts under the other settings that claims compare."""
    extra, size = {}, {"batch": how.batch, "chunk": how.chunk}
    free = dataclasses.replace(how.sigma, start=0.5, low=0.0, high=1.0, descent=FREE)
    for name, aim in (("free", "target"), ("highest", "highest")):
        sought = dataclasses.replace(free, aim=aim)
        extra[name] = walk.weights(searched, few.z0, few.zp, sought, **size).variable
    if how.proto.cosine_spread or how.proto.score_spread:
        plain = dataclasses.replace(how.proto, score_spread=0.0, cosine_spread=0.0)
        found_plain = walk.protoimages(searched, few.z0, few.z1, plain, **size)
        extra["without_spreads"] = found_plain.variable
    return extra


# Who gets the whole of `Limit.seconds` and of the starts; of the others, which part of either.
# Drawn faces are searched twice, as they are and with their attribute changed.
HEADLINES = ("faces_pgan", "cats_pgan")
PARTS = {"drawn_pgan": (4, 2), "faces_wgan_gp": (4, 4), "cifar_pgan": (10, 10)}
FEWEST = 16  # starts: two for each group of the tables' jackknife
EXTRAS = ("faces_pgan", "faces_wgan_gp")  # whose other settings claims compare


def share_of(preset: Preset, name: str) -> tuple[int, float | None]:
    """(starts, seconds) of the search of a run; without a limit all starts for every run."""
    if preset.limit.seconds is None or name in HEADLINES:
        return preset.n_score, preset.limit.seconds
    starts, seconds = PARTS[name]
    return max(preset.n_score // starts, FEWEST), preset.limit.seconds / seconds


def run_file(checkpoint: Path, what: str) -> Path:
    """Beside a run's checkpoint: its `search`, or that of `edited` starts."""
    return checkpoint.with_name(f"{checkpoint.stem}_{what}.safetensors")


def search_run(
    preset: Preset, name: str, checkpoint: Path, seed: int, *, device: str = "cpu"
) -> found.Found:
    """Searches the latents of a network that a preset trained, and keeps what it finds beside it
    (`NAME_search.safetensors`; of edited starts `NAME_edited.safetensors`), so that the tables and
    the figures read one search. A file of this very network and these settings is not made again.

    Args:
        preset: its search settings, numbers of starts and `limit`.
        name, checkpoint, seed: the run, its file, its training seed.
        device: where networks run.
    """
    model, (n, seconds) = models.load(checkpoint, device=device), share_of(preset, name)
    how = preset.wgan_gp if model.card["config"]["method"] == "wgan_gp" else preset.search
    card = {"title": f"Search of latents, {model.card['title']}", "network": name, "n_wanted": n,
            "images": model.card["images"], "search": config.as_dict(how), "seed": seed,
            "limit": config.as_dict(preset.limit)}  # fmt: skip
    path, wanted = run_file(checkpoint, "search"), config.as_dict(card)
    if path.is_file() and {k: tensorfile.header(path).get(k) for k in wanted} == wanted:
        return found.load(path)[0]
    began = time.perf_counter()
    # a whole part must fit into a share of the time; a third of a chunk still fills a GPU
    part = None if seconds is None else how.chunk if name in HEADLINES else max(how.chunk // 3, 1)
    extras = 40 if name in EXTRAS else 0
    if model.card["config"]["minority"]:
        _edit_run(model, how, preset, checkpoint, seed, device)
    left = None if seconds is None else seconds - (time.perf_counter() - began)
    result = search(model, how, n, seed, device=device, extras=extras, seconds=left, part=part)
    found.save(path, result, card | {"n": len(result.z0), "seconds": time.perf_counter() - began})
    return found.load(path)[0]


def _edit_run(
    model: models.Model, how: method.Search, preset: Preset, checkpoint: Path, seed: int,
    device: str,
) -> None:  # fmt: skip
    file, n = run_file(checkpoint, "edited"), share_of(preset, checkpoint.stem)[0]
    direction = attribute_vector(model, seed, device=device)
    if direction is None:  # a young generator may never draw the attribute
        file.unlink(missing_ok=True)
        return
    z0 = method.starts(n, pair(model), how, generator(seed, "search"))[0].to(device)
    z0 = z0[: preset.n_latents]
    both = edited_rows(model, z0, preset.limit.edited, preset.limit.edited)
    edited = search_edited(model, how, z0, direction, *both, seed)
    card = {"title": f"Search of edited latents, {model.card['title']}", "n": len(edited.rows)}
    found.save_edited(file, edited, card)
