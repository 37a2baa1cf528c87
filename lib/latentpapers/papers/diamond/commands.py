"""The room's command line: trains a run, or makes one of the files that ship."""

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latentpapers import config, data, models
from latentpapers.errors import UserError
from latentpapers.latent import found, method
from latentpapers.metrics import projected
from latentpapers.papers.diamond.editing import attribute_vector, edited_rows, search_edited
from latentpapers.papers.diamond.measuring import eyes, real, real_file
from latentpapers.papers.diamond.outputs import pair, sample
from latentpapers.papers.diamond.presets import PRESETS, SHIPPED
from latentpapers.papers.diamond.rereading import SINGLE, search_again
from latentpapers.papers.diamond.runs import RUNS
from latentpapers.papers.diamond.searching import search
from latentpapers.papers.diamond.shipped_searches import dozens, edited_file, shipped_search
from latentpapers.seeds import generator


def train_from_cli(arguments: list[str]) -> int:
    """`Runs.train_from_cli`; `--search NAME --n N [--small] --out FOLDER` searches the latents of a
    shipped network, `--readings NAME --out FOLDER` those of its first starts with one reading
    each in the other position, `--edited NAME --out FOLDER` those of its starts with the attribute
    added and subtracted, `--pack cats_pgan --out FOLDER` draws the set `cats-generated`, `--real
    NAME --n N --out FOLDER` keeps projected features of the images that a shipped run trains on."""
    named = {word.partition("=")[0] for word in arguments}
    ways = (way for option, way in _WAYS.items() if option in named)
    return next(ways, RUNS.train_from_cli)(arguments)


def _parser(option: str, *, seed: bool = True, **about: Any) -> argparse.ArgumentParser:
    """What all ways share: the option that chooses one, `--out`, and of most `--seed`."""
    parser = argparse.ArgumentParser("latentpapers train diamond", allow_abbrev=False)
    parser.add_argument(option, required=True, **about)
    parser.add_argument("--out", type=Path, required=True)
    if seed:
        parser.add_argument("--seed", type=int, default=0)
    return parser


def _card(
    of: models.Model, title: str, network: str, how: method.Search, seed: int, start: float
) -> dict[str, Any]:
    """What a file of searches says of itself: whose latents, how, and how long it took."""
    return {
        "title": f"{title}, {of.card['title']}", "network": f"{network}_s{seed}",
        "images": of.card["images"], "search": config.as_dict(how), "seed": seed,
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def _pack_from_cli(arguments: list[str]) -> int:
    from latentpapers.data import cats_generated

    parser = _parser("--pack", seed=False, choices=["cats_pgan"], help="who draws")
    args = parser.parse_args(arguments)
    model = models.load(f"diamond/{args.pack}_s0")
    drawn = {
        split: data.to_bytes(sample(model, n, cats_generated.SEEDS[split]))
        for split, n in cats_generated.SHIPPED.items()
    }
    source = f"diamond/{args.pack}_s0, {model.card['title']}, {model.card['images']:,} images seen"
    print(cats_generated.write(drawn, args.out, source).name, flush=True)
    return 0


def _real_from_cli(arguments: list[str]) -> int:
    parser = _parser("--real", seed=False, choices=[*SHIPPED], help="whose training images")
    parser.add_argument("--n", type=int, default=240)
    args = parser.parse_args(arguments)
    job = config.as_dict(SHIPPED[args.real])
    rows = real(job, args.n, eyes(), shipped=False)
    card = {"data": job["data"], "size": job["size"], "n": len(rows), "split": "train",
            "network": "efficientnetlite0 at 64 px"}  # fmt: skip
    path = args.out / real_file(job["data"], job["size"]).name
    projected.save(path, rows, card)
    print(f"{path.name}: features of {len(rows)} images", flush=True)
    return 0


def _edited_from_cli(arguments: list[str]) -> int:
    parser = _parser("--edited", metavar="NAME", help="of a shipped search")
    parser.add_argument("--n", type=int, default=40, help="first starts that get the attribute")
    parser.add_argument("--subtract", type=int, default=8, help="first starts that lose it")
    parser.add_argument("--of", type=int, default=240, help="whoever has it among so many, too")
    args = parser.parse_args(arguments)
    name, seed, preset = args.edited, args.seed, PRESETS["quick"]
    model, start = models.load(f"diamond/{name}_s{seed}"), time.perf_counter()
    z0, direction = shipped_search(name, args.of, seed).z0, attribute_vector(model, seed)
    if direction is None:
        raise UserError(f"{name} draws nothing with, or nothing without, the attribute.")
    both = edited_rows(model, z0, args.n, args.subtract)
    direction = direction.half().float()  # as it is kept
    edited = search_edited(model, preset.search, z0, direction, *both, seed)
    title = f"Search of {len(edited.rows)} edited latents"
    card = _card(model, title, name, preset.search, seed, start)
    card |= {"n": len(edited.rows), "of": len(z0), "latent": len(direction)}
    found.save_edited(args.out / edited_file(name, seed).name, edited, card)
    print(f"{card['title']}: {card['seconds']:.0f} s", flush=True)
    return 0


def _readings_from_cli(arguments: list[str]) -> int:
    parser = _parser("--readings", metavar="NAME", help="of a shipped search")
    parser.add_argument("--n", type=int, default=20, help="first starts")
    parser.add_argument("--only", nargs="+", default=list(SINGLE), choices=list(SINGLE))
    args = parser.parse_args(arguments)
    name, seed, start = args.readings, args.seed, time.perf_counter()
    model, how = models.load(f"diamond/{name}_s{seed}"), PRESETS["quick"].search
    whole, was = dozens(name, seed)
    first, others = whole.first(args.n), {}
    g = generator(was["seed"], "search")
    candidates = method.starts(was["n"], pair(model), how, g)[1]  # those of that search
    for erratum in args.only:
        others[erratum] = search_again(model, first, candidates, how, erratum)
        print(f"{erratum}: {time.perf_counter() - start:.0f} s, steps {others[erratum].steps}",
              flush=True)  # fmt: skip
    title = f"Searches of {args.n} latents, one reading each"
    card = _card(model, title, name, how, seed, start)
    card |= {"n": args.n, "latent": first.z0.shape[1]}
    found.save_readings(args.out / f"{name}_readings_s{seed}.safetensors", first, others, card)
    return 0


def _search_from_cli(arguments: list[str]) -> int:
    parser = _parser("--search", metavar="NAME", help="of a shipped network")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--extras", type=int, default=20, help="starts for the claims on settings")
    parser.add_argument("--small", action="store_true", help="write NAME_many in the small form")
    parser.add_argument("--paper", action="store_true", help="as printed: NAME_paper, small form")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    args = parser.parse_args(arguments)
    name, n, seed, out = args.search, args.n, args.seed, args.out
    model, preset = models.load(f"diamond/{name}_s{seed}"), PRESETS["quick"]
    how = preset.wgan_gp if model.card["config"]["method"] == "wgan_gp" else preset.search
    if args.paper:
        how = dataclasses.replace(method.SEARCHES["paper"], start=how.start)
    how = config.resolve(how, config.parse(args.set))
    start = time.perf_counter()
    result = search(model, how, n, seed, extras=args.extras)
    card = _card(model, f"Search of {n} latents", name, how, seed, start)
    card |= {"n": n, "latent": result.z0.shape[1]}
    write, tag = functools.partial(found.save, starts=False), ""
    if args.small or args.paper:
        write, tag = found.save_small, "paper_" if args.paper else "many_"
    write(out / f"{name}_{tag}s{seed}.safetensors", result, card)
    print(f"{card['title']}: {card['seconds']:.0f} s, steps {result.steps}", flush=True)
    return 0


# In this order, should two be named
_WAYS: dict[str, Callable[[list[str]], int]] = {
    "--edited": _edited_from_cli, "--readings": _readings_from_cli, "--pack": _pack_from_cli,
    "--real": _real_from_cli, "--search": _search_from_cli,
}  # fmt: skip
