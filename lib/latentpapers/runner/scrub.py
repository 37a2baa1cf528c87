"""A notebook as it is committed: outputs stay, everything that differs between equal runs goes."""

import base64
import copy
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from latentpapers import paths, storage

WIDGET = "application/vnd.jupyter.widget-view+json"
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_CELL_KEYS = ("tags", "nbsphinx", "editable", "slideshow", "jupyter")
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_CELL_FILE = re.compile(r"\S*ipykernel_\d+/\d+\.py")


def scrubbed(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy without times, widget state, machine paths and addresses; solutions folded.

    Execution counts become 1, 2, 3, ...: nbval takes a cell with outputs and no count for one that
    never ran. The cell that papermill injects stays (it says what ran), under a fixed id.
    """
    notebook = copy.deepcopy(notebook)
    own = notebook["metadata"].get("latentpapers")
    notebook["metadata"] = {"kernelspec": _KERNEL, "language_info": {"name": "python"}}
    if own:
        notebook["metadata"]["latentpapers"] = own
    notebook.update(nbformat=4, nbformat_minor=5)
    for index, cell in enumerate(notebook["cells"]):
        _scrub_cell(cell, index)
    _count(notebook["cells"])
    return notebook


def _count(cells: list[dict[str, Any]]) -> None:
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        cell["execution_count"] = number if cell["outputs"] else None
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = number


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring pieces of one stream as one: where it was split depends on timing."""
    out: list[dict[str, Any]] = []
    for output in outputs:
        if out and output.get("name") and output.get("name") == out[-1].get("name"):
            out[-1]["text"] = _lines("".join(out[-1]["text"]) + "".join(output["text"]))
        else:
            out.append(output)
    return out


def _scrub_cell(cell: dict[str, Any], index: int) -> None:
    cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k in _CELL_KEYS and v}
    tags = cell["metadata"].get("tags", [])
    if "solution" in tags and cell["cell_type"] == "code":  # folded until a reader asks for it
        cell["metadata"]["jupyter"] = {**cell["metadata"].get("jupyter", {}), "source_hidden": True}
    injected = "injected-parameters" in tags
    cell["id"] = "injected" if injected else cell.get("id") or f"cell-{index}"
    cell["source"] = _lines(cell["source"])
    if cell["cell_type"] == "code":
        kept = (_scrub_output(output) for output in cell["outputs"])
        cell["outputs"] = _joined([output for output in kept if output is not None])


def _palette(encoded: str) -> str:
    """A PNG in base64 with 256 colours where that saves a fifth or more: diagrams and curves."""
    from PIL import Image

    from latentpapers.report.figures import in_256_colours

    content = base64.b64decode(encoded)
    picture = Image.open(io.BytesIO(content))
    clear = picture.mode == "RGBA" and picture.getextrema()[3][0] < 255
    if clear or picture.mode not in ("RGB", "RGBA"):
        return encoded  # see-through, or a palette already
    found = in_256_colours(picture.convert("RGB"))
    return base64.b64encode(found).decode() if len(found) <= 0.8 * len(content) else encoded


def _scrub_output(output: dict[str, Any]) -> dict[str, Any] | None:
    """None for a widget: its state lives in the kernel; the cell's static picture stays."""
    data = output.get("data", {})
    if WIDGET in data:
        return None
    if "metadata" in output:
        output["metadata"] = {}
    for mime in [m for m in data if m.startswith("text/") or m == "image/svg+xml"]:
        data[mime] = _lines(portable("".join(data[mime])))
    if "image/png" in data:
        data["image/png"] = _palette("".join(data["image/png"]))
    if "text" in output:
        output["text"] = _lines(portable("".join(output["text"])))
    if "traceback" in output:
        output["traceback"] = [portable(line) for line in output["traceback"]]
    return output


def portable(text: str) -> str:
    """`text` without paths of this machine and without memory addresses."""
    text = _CELL_FILE.sub("<cell>", text)
    for folder, name in _folders():
        text = text.replace(f"{folder}{os.sep}", f"{name}/" if name else "").replace(folder, name)
    return _ADDRESS.sub("0x…", text)


def _folders() -> list[tuple[str, str]]:
    """(path, its replacement), the longest first; a bare root folder is never replaced."""
    found = {
        str(paths.results()): "results",
        str(paths.root()): "",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
        str(paths.cache()): "<cache>",
        str(Path.home()): "~",
        tempfile.gettempdir(): "<tmp>",
    }
    found |= {str(Path(k).resolve()): v for k, v in found.items()}
    return sorted(((k, v) for k, v in found.items() if k.count(os.sep) > 1 or v == "<tmp>"),
                  key=lambda pair: -len(pair[0]))  # fmt: skip


def _lines(text: str | list[str]) -> list[str]:
    return "".join(text).splitlines(keepends=True)


def text(notebook: dict[str, Any]) -> str:
    """The notebook as a file: the layout that Jupyter writes."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def as_committed(executed: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """The outputs of an executed notebook put into its source, code cell by code cell.

    Words may have changed since it ran: they are no part of its fingerprint.

    Raises:
        ValueError: their code differs.
    """
    result = scrubbed(source)
    own, ran = _code(result), _code(executed)
    if [c["source"] for c in own] != [_lines(c["source"]) for c in ran]:
        raise ValueError("the executed notebook has other code than its source")
    for cell, done in zip(own, ran):
        cell["outputs"] = done["outputs"]
    _count(result["cells"])
    return result


def _code(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Its code cells, without the one that papermill injects."""
    cells = (c for c in notebook["cells"] if c["cell_type"] == "code")
    return [c for c in cells if "injected-parameters" not in c["metadata"].get("tags", [])]


def scrub_file(path: Path, *, verify: bool = False) -> bool:
    """Scrubs a committed notebook in place (or only looks); True if it was not clean."""
    before = path.read_text()
    after = text(scrubbed(json.loads(before)))
    if after != before and not verify:
        storage.write_text(path, after)
    return after != before
