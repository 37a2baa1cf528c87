"""A small checkout for tests of the runner, with a made-up content for the paper `avae`.

It holds a copy of the library whose room of that paper and whose metric registry are replaced, a
ledger with one number and one claim, and notebooks that train and that read the training of all
seeds. Nothing in it loads torch.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

LIBRARY = Path(__file__).resolve().parent.parent / "lib" / "latentpapers"

ROOM = {
    "__init__": """
from latentpapers.papers.avae.presets import PRESETS, Preset
from latentpapers.papers.avae.scores import mean

EXPECT = {"gpu/2_training": (7, 111)}
ALLOWED = {"gpu/2_training": 8, "gpu/3_tables": 33}
""",
    "scores": """
def mean(values):
    return sum(values) / len(values)
""",
    "presets": """
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Loop:
    steps: int = 3
    rate: float = 0.5
    seconds: float | None = 2.0


@dataclass(frozen=True)
class Preset:
    loop: Loop = field(default_factory=Loop)
    data: str = "drawn"


PRESETS = {name: Preset() for name in ("quick", "cpu", "gpu", "paper")}
""",
}

PARAMETERS = """preset = "quick"
seed = 0
device = "cpu"
data = ""
run_id = ""
overrides: dict = {}"""

SETUP = """run = lp.begin("avae", "{name}", preset=preset, seed=seed, device=device, data=data,
               run_id=run_id, overrides=overrides)"""

TRAINING = """import os, time
from pathlib import Path
state = run.out / "checkpoints" / "progress.txt"
state.parent.mkdir(parents=True, exist_ok=True)
done = int(state.read_text()) if state.exists() else 0
for step in range(done, run.config.loop.steps):
    lp.storage.write_text(state, str(step + 1))
    if os.environ.get("TOY_HANG") == str(step + 1):
        time.sleep(600)
value = run.config.loop.rate * int(state.read_text()) + seed / 4"""

RECORD = """scale = lp.config.Scale(preset, 100, None, "drawn 8 px", run.device_name, (seed,))
run.record("table_1", "{row}", "value", "toy_value", value, interval="none: exact", n=1,
           scale=scale)"""

TABLES = """before = run.rows_of("2_training") if preset != "quick" else []
value = sum(row["value"] for row in before) + run.config.loop.rate"""

METRIC = {
    "id": "toy_value", "name": "value", "direction": "higher", "unit": "", "says": "a number",
    "implementation": None, "reason": "made up", "comparable_with_paper": True,
}  # fmt: skip
CELL = {
    "row": "ours", "column": "value", "metric": "toy_value", "direction": "higher", "value": 1.5,
    "printed": "1.5", "dataset": "drawn", "source": "own",
}  # fmt: skip
TABLE = {"id": "table_1", "caption": "A number", "status": "done", "cells": [CELL]}
CLAIM = {
    "id": "avae-c1", "text": "it is above one", "where": "Table 1", "kind": "number",
    "about": "mathematics", "status": "active",
    "rules": {p: {"type": "bound", "op": ">", "limit": 1.0,
                  "ref": {"id": "table_1", "row": "ours", "column": "value"}}
              for p in ("quick", "gpu")},
}  # fmt: skip
LEDGER = {
    "values": {"paper": "avae", "title": "Toy", "tables": [TABLE], "hyperparameters": []},
    "figures": {"paper": "avae", "figures": []},
    "equations": {"paper": "avae", "equations": []},
    "claims": {"paper": "avae", "claims": [CLAIM]},
    "errata": {"paper": "avae", "errata": []},
}


def cell(source: str, *tags: str, kind: str = "code") -> dict:
    """A notebook cell."""
    base = {"cell_type": kind, "metadata": {"tags": list(tags)} if tags else {}, "source": source}
    base["id"] = f"c{abs(hash(source)) % 10**8}"
    return base | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def notebook(
    name: str, *body: str, parameters: str = PARAMETERS, end: str = "run.finish()"
) -> dict:
    """A notebook of the house shape around `body`."""
    cells = [
        cell(f"# {name}", kind="markdown"),
        cell("import latentpapers as lp"),
        cell(parameters, "parameters"),
        cell(SETUP.format(name=name)),
        *(cell(one, *["train"] * ("checkpoints" in one)) for one in body),
        cell(end),
    ]
    for index, one in enumerate(cells):
        one["id"] = f"c{index}"
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"cells": cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 5}


class Bed:
    """The checkout, and commands that run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(LIBRARY, root / "lib" / "latentpapers", ignore=shutil.ignore_patterns(
            "__pycache__", "packs"))  # fmt: skip
        room = root / "lib" / "latentpapers" / "papers" / "avae"
        shutil.rmtree(room)
        room.mkdir()
        for name, source in ROOM.items():
            (room / f"{name}.py").write_text(source)
        metrics = json.dumps({"metrics": [METRIC], "standins": []})
        (root / "lib/latentpapers/ledger/metrics.yaml").write_text(metrics)
        ledger = root / "notebooks" / "avae" / "ledger"
        ledger.mkdir(parents=True)
        for kind, content in LEDGER.items():
            (ledger / f"{kind}.yaml").write_text(json.dumps(content))
        (root / "pyproject.toml").write_text("[project]\nname = 'bed'\n")
        (root / "requirements.lock").write_text("numpy==2\n")
        self.write("2_training", TRAINING, RECORD.format(row="ours"))
        self.write("3_tables", TABLES, RECORD.format(row="sum"))

    def write(self, name: str, *body: str, **options: str) -> Path:
        """Writes a notebook of the paper."""
        file = self.root / "notebooks" / "avae" / f"{name}.ipynb"
        file.write_text(json.dumps(notebook(name, *body, **options), indent=1))
        return file

    def room(self) -> ModuleType:
        """The paper's presets as its room, for tests that stay in this process."""
        name = "latentpapers.papers.avae"
        file = self.root / "lib/latentpapers/papers/avae/presets.py"
        spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(spec)
        saved = sys.modules.get(name)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        if saved is None:
            del sys.modules[name]
        else:
            sys.modules[name] = saved
        return module

    @property
    def env(self) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("LATENTPAPERS_")}
        return own | {
            "PYTHONPATH": str(self.root / "lib"),
            "LATENTPAPERS_ROOT": str(self.root),
            "OMP_NUM_THREADS": "1",
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "latentpapers", *words]

    def call(self, *words: str, **env: str) -> subprocess.CompletedProcess:
        """Runs `latentpapers ...` in the checkout."""
        return subprocess.run(
            self.command(*words), env=self.env | env, cwd=self.root, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip

    def folder(self, notebook: str, preset: str = "quick", seed: int = 0) -> Path:
        return self.root / "results" / preset / "avae" / "runs" / notebook / f"s{seed}"

    def rows(self, notebook: str, preset: str = "quick", seed: int = 0) -> list[dict]:
        lines = (self.folder(notebook, preset, seed) / "rows.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]
