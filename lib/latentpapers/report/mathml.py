r"""A Sphinx extension that sets formulas as MathML: no script, no font, no network.

`\tag{n}` becomes the equation's number at the right edge. TeX that cannot be converted is shown as
source, with a warning, never dropped.
"""

import html
import re
from typing import Any

_TAG = re.compile(r"\\tag\*?\{([^{}]*)\}")
_LABEL = re.compile(r"\\(?:label\{[^{}]*\}|nonumber|notag)\b")
_ENVIRONMENT = re.compile(r"\\(begin|end)\{(align|gather|equation|multline)(?:\*|ed)?\}")
_LEFT_OVER = re.compile(r">\s*\\[^<\s]|>&<")
_SIZED = re.compile(r"\\[bB]igg?[lrm]?(?=\s*\\)")  # the converter resizes bare signs only
# Commands that the converter does not know, in words that it does.
_SAME = {r"\lVert": r"\|", r"\rVert": r"\|", r"\lvert": "|", r"\rvert": "|", r"\bm": r"\boldsymbol"}
# Operators whose limits stand below in a displayed formula, and functions that keep a thin space.
_ARG = re.compile(r"\\arg\s*\\(min|max)(?![A-Za-z])")
_LIMITS = re.compile(r"\\(max|min|sup|inf|lim)(?=\s*_)")
_FUNCTION = re.compile(r"(<mi>(?:log|ln|exp|sin|cos|tan|max|min|arg|det|sign)</mi>)(?=<mi)")


class Unconvertible(ValueError):
    """TeX that the converter refuses or understands in part only."""


def split_tags(tex: str) -> tuple[str, list[str]]:
    r"""TeX without `\tag{…}`, and the tags in order."""
    return _TAG.sub("", tex), _TAG.findall(tex)


def to_mathml(tex: str, display: bool = False) -> str:
    r"""A `<math>` element.

    Args:
        tex: LaTeX without delimiters and without `\tag`.
        display: as a block instead of inside a line.

    Raises:
        Unconvertible: unknown commands.
    """
    from latex2mathml.converter import convert

    tex = _ENVIRONMENT.sub(_as_known, _SIZED.sub("", _LABEL.sub("", tex))).strip()
    for name, known in _SAME.items():
        tex = re.sub(re.escape(name) + r"(?![A-Za-z])", lambda _m, k=known: k, tex)
    tex = _ARG.sub(r"\\mathop{\\mathrm{arg\\,\1}}" + r"\\limits" * display, tex)
    if display:
        tex = _LIMITS.sub(r"\\\1\\limits", tex)
    try:
        out = convert(tex, display="block" if display else "inline")
    except Exception as error:  # the converter raises many kinds; all mean the same to a reader
        raise Unconvertible(f"{type(error).__name__} in {tex!r}") from error
    if _LEFT_OVER.search(out):
        raise Unconvertible(f"unknown command in {tex!r}")
    return _FUNCTION.sub(r'\1<mspace width="0.17em"/>', out)


def _as_known(match: re.Match[str]) -> str:
    known = {"align": "split", "gather": "matrix"}.get(match[2])
    return rf"\{match[1]}{{{known}}}" if known else ""


def inline(tex: str) -> str:
    """HTML of a formula in a line; the TeX source where it cannot be converted."""
    try:
        return to_mathml(tex)
    except Unconvertible:
        return f'<code class="tex">{html.escape(tex)}</code>'


def block(tex: str, number: str = "") -> str:
    """HTML of a displayed formula with its equation number."""
    body, tags = split_tags(tex)
    tags = tags or ([number] if number else [])
    try:
        shown = to_mathml(body, display=True)
    except Unconvertible:
        shown = f'<pre class="tex">{html.escape(body.strip())}</pre>'
    label = f'<span class="eqno">({html.escape("), (".join(tags))})</span>' if tags else ""
    return f'<div class="equation"><div class="formula">{shown}</div>{label}</div>\n'


def _warn(translator: Any, node: Any, tex: str) -> None:
    from sphinx.util import logging

    try:
        to_mathml(split_tags(tex)[0])
    except Unconvertible as error:
        logging.getLogger(__name__).warning("formula shown as source: %s", error, location=node)


def _visit_inline(translator: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    _warn(translator, node, node.astext())
    translator.body.append(inline(node.astext()))
    raise SkipNode


def _visit_block(translator: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    _warn(translator, node, node.astext())
    for name in node.get("ids", ()):
        translator.body.append(f'<span id="{html.escape(name)}"></span>')
    number = str(node["number"]) if node.get("number") else ""
    translator.body.append(block(node.astext(), number))
    raise SkipNode


def setup(app: Any) -> dict[str, Any]:
    """Registers the renderer `mathml`; chosen by `html_math_renderer` in conf.py."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
