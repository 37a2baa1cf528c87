"""Rehearses the `gpu` preset where there is no GPU: `python tests/rehearsal.py avae lag`, or all.

Its notebooks run as on the day, on a pretended GPU (`pretend_gpu`), with every training cut to a
few steps of narrow networks, and the results are collected. What it prints and draws says nothing;
that it ends says that no tensor stays behind on the CPU, no name of a run is missing, no step of
the notebooks assumes `quick` and every field it sets is read. With `--seeds 0,1` there are two
trainings of each network, which the tables pool. It runs jobs one by one and names those that
failed; only then its files are kept. The data packs and weights that the preset reads have to be
there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ("2_training", "3_tables", "4_figures")

# what a training's field becomes, where it has that field; a run's own size stays
SHORT: dict[str, Any] = {
    "steps": 6, "seconds": None, "images": 64, "batch": 4, "log_every": 1, "width": 8,
    "latent": 8, "phase": 8, "floor": 4, "blocks": 1, "noise": 4, "cap": 16,
    "discriminator_width": 8, "style": 8, "hidden": 16, "style_cap": 8, "start_images": 4,
    "fade_images": 4, "hold_images": 4, "growth": 4, "critic_width": 8, "encoder_width": 8,
    "crop": 64,
}  # fmt: skip
BY_SIZE = ("discriminator_width", "style_cap")  # 0: as wide as the paper's
# the preset's own fields
FEW: dict[str, Any] = {
    "n_images": 32, "published": False, "n_eval": 64, "n_samples": 2, "n_sources": 4,
    "n_latents": 24, "n_labels": 60, "splits": 2,
    "tests": ("set5",), "niqe": ("set5",), "examples": 3, "bar": "",
    "n_cifar": 5000, "more": 1,
}  # fmt: skip
# a dozen networks translate a grid of n_eval squared each, seen at 224 px; 16 is the fewest allowed
LESS: dict[str, dict[str, Any]] = {"lrc_i2i": {"n_eval": 16, "n_images": 8}}


def changes(paper: str, preset: str) -> dict[str, Any]:
    """Overrides that make a preset small."""
    from latentpapers import config, notebook

    whole = config.as_dict(notebook.resolve(paper, preset))
    few = FEW | LESS.get(paper, {})
    made = {name: value for name, value in few.items() if name in whole}
    for run, job in whole.get("training", {}).items():
        made |= {f"training.{run}.{k}": v for k, v in small(job).items()}
        if job["precision"] == "fp16":  # no CPU multiplies fast in it; test_pretended_gpu has it
            made[f"training.{run}.precision"] = "fp32"
    for search in ("search", "wgan_gp"):
        if search in whole:
            made |= {"n_score": 40, f"{search}.inversion.candidates": 20, f"{search}.batch": 8}
            for part in ("inversion", "proto", "sigma"):
                made[f"{search}.{part}.descent.steps"] = 3
    return made


def small(job: dict[str, Any]) -> dict[str, Any]:
    """Overrides of one training; fields that are off or smaller stay as they are."""
    made = {}
    for name, value in SHORT.items():
        old = job.get(name)
        if name in job and (value is None or (old or 0) > value or (name in BY_SIZE and not old)):
            made[name] = value
    if "fmap_base" in job and job["method"] == "pgan":
        made |= {"fmap_base": job["size"], "fmap_max": 16}
    start = job.get("start")
    if start and isinstance(start, str):  # networks to begin from have their own widths
        made = {k: v for k, v in made.items() if k not in ("width", "blocks", "growth")}
    return made


def main() -> int:
    from latentpapers import papers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("papers", nargs="*", default=papers.BUILT, metavar="PAPER")
    parser.add_argument("--preset", default="gpu")
    parser.add_argument("--notebooks", nargs="*", default=NOTEBOOKS)
    parser.add_argument("--seeds", default="0", help="training seeds, for example 0,1")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="where its files go, and stay")
    args = parser.parse_args()
    failed = sum(rehearse(args, paper) for paper in args.papers)
    return 1 if failed else 0


def rehearse(args: argparse.Namespace, paper: str) -> int:
    """Runs a paper's notebooks and collects what they made; how many failed."""
    out = args.out or Path(tempfile.mkdtemp(prefix="rehearsal-"))
    words = [f"--set={k}={json.dumps(v)}" for k, v in changes(paper, args.preset).items()]
    request = ["--paper", paper, "--seeds", args.seeds, "--preset", args.preset,
               "--device", args.device, "--run-id", "rehearsal", *words]  # fmt: skip
    jobs = [(name, seed) for name in args.notebooks for seed in seeds_of(name, args.seeds)]
    failed = [
        f"{name} of seed {seed}" for name, seed in jobs
        if latentpapers(out, "job", "--notebook", name, "--seed", seed, *request)
    ]  # fmt: skip
    ran = f"{len(jobs) - len(failed)} of {len(jobs)} notebooks ran"
    if not failed and set(args.notebooks) == set(NOTEBOOKS):
        failed = ["collect"] * bool(latentpapers(out, "collect", *request))
    print(f"{paper}: {ran}" + (f"; failed: {', '.join(failed)}; see {out}" if failed else ""))
    if not (failed or args.out):
        shutil.rmtree(out)
    return len(failed)


def seeds_of(notebook: str, seeds: str) -> list[str]:
    """Seeds multiply the training alone; the other notebooks run once, under the first."""
    every = seeds.split(",")
    return every if notebook == NOTEBOOKS[0] else every[:1]


def latentpapers(out: Path, *words: str) -> int:
    """The exit status of a command of the project, with the pretended GPU on its path."""
    here = str(Path(__file__).resolve().parent)
    path = os.pathsep.join([f"{here}/pretended", here, os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"LATENTPAPERS_OUT": str(out), "PYTHONPATH": path.rstrip(os.pathsep)}
    command = [sys.executable, "-m", "latentpapers", *words]
    return subprocess.run(command, env=env, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
