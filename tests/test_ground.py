"""The ground floor: configurations, files, seeds, checks."""

import dataclasses
import errno
import hashlib
import json
import math
import os
from typing import Literal

import numpy as np
import pytest
import torch

from latentpapers import check, config, paths, seeds, storage
from latentpapers.errors import Missing, StorageFull, UnknownName, UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 8
    rate: float = 0.5
    kind: Literal["elu", "relu"] = "elu"
    limit: float | None = None
    mode: Literal["a", "b"] | None = None
    flag: bool = False


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str = "x"
    inner: Inner = dataclasses.field(default_factory=Inner)
    runs: dict[str, Inner] = dataclasses.field(default_factory=lambda: {"one": Inner()})
    seeds: tuple[int, ...] = (0, 1)
    pair: tuple[float, str] = (1.0, "y")
    numbers: dict[str, int] = dataclasses.field(default_factory=lambda: {"n": 3})


# --- overrides -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("name", "y", "y"), ("inner.width", 16, 16), ("inner.rate", 1, 1.0),
        ("inner.kind", "relu", "relu"), ("inner.limit", 3, 3.0), ("inner.limit", None, None),
        ("inner.mode", "b", "b"), ("inner.mode", None, None), ("inner.flag", True, True),
        ("runs.one.width", 4, 4), ("seeds", [5], (5,)), ("seeds", [], ()),
        ("pair", [2, "z"], (2.0, "z")), ("numbers.n", 9, 9),
    ],
)  # fmt: skip
def test_an_override_reaches_its_field_and_no_other(name, value, found):
    before = Outer()
    after = config.resolve(before, {name: value})
    assert before == Outer()
    node = after
    for part in name.split("."):
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    assert node == found
    assert type(node) is type(found)
    changed = [line.split(":")[0] for line in config.difference(before, after)]
    assert changed == ([name] if config.flat(before)[name] != config.flat(after)[name] else [])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nam", 1, "unknown parameter 'nam'; known: inner, name"),
        ("inner.widht", 1, "unknown parameter 'inner.widht'; known: flag"),
        ("runs.two.width", 1, "known: one"),
        ("inner", 1, "names a group"),
        ("runs", {}, "names a group"),
        ("name.deep", 1, "no fields of its own"),
        ("inner.width", 1.0, "must be int, not float"),
        ("inner.width", True, "must be int, not bool"),
        ("inner.width", "8", "must be int, not str"),
        ("inner.width", None, "must be int, not NoneType"),
        ("inner.rate", True, "must be float, not bool"),
        ("inner.limit", "much", "must be float, not str"),
        ("inner.flag", 1, "must be bool, not int"),
        ("inner.kind", "tanh", "known: elu, relu"),
        ("inner.mode", "c", "known: a, b"),
        ("seeds", 3, "must be tuple, not int"),
        ("seeds", ["zero"], "must be int, not str"),
        ("pair", [1.0], "needs 2 items, not 1"),
        ("pair", ["z", 1.0], "must be float, not str"),
    ],
)
def test_a_wrong_override_is_refused_with_what_was_expected(name, value, message):
    with pytest.raises(UserError, match=message):
        config.resolve(Outer(), {name: value})


def test_no_override_changes_nothing():
    assert config.resolve(Outer()) == config.resolve(Outer(), {}) == Outer()


def test_plain_and_flat_forms_are_json():
    plain = config.as_dict(Outer())
    assert json.loads(json.dumps(plain)) == plain
    assert plain["seeds"] == [0, 1]
    flat = config.flat(Outer())
    assert flat["runs.one.width"] == flat["inner.width"] == 8
    assert config.flat(plain) == flat


def test_difference_names_what_differs_and_what_is_absent():
    other = config.resolve(Outer(), {"inner.width": 9, "seeds": [2]})
    assert config.difference(Outer(), other) == ["inner.width: 8 -> 9", "seeds: [0, 1] -> [2]"]
    assert config.difference(Outer(), Outer()) == []
    assert config.difference({"a": 1}, {"b": None}) == ["a: 1 -> (absent)", "b: (absent) -> None"]


def test_digest_follows_the_values_alone():
    assert config.digest(Outer()) == config.digest(Outer())
    assert config.digest(Outer()) != config.digest(config.resolve(Outer(), {"inner.rate": 0.25}))
    assert config.digest({"a": 1, "b": 2}) == config.digest({"b": 2, "a": 1})


def test_assignments_are_json_or_text():
    texts = ["width=8", "lr=1e-3", "kind=elu", "flag=true", "none=null", " s =[1]", "eq=a=b"]
    assert config.parse(texts) == {
        "width": 8, "lr": 1e-3, "kind": "elu", "flag": True, "none": None, "s": [1], "eq": "a=b",
    }  # fmt: skip
    with pytest.raises(UserError, match="FIELD=VALUE"):
        config.parse(["width"])


def test_named_and_preset_tables():
    assert config.named("run", "a", {"a": 1}) == 1
    with pytest.raises(UnknownName, match="unknown run 'b'; known: a"):
        config.named("run", "b", {"a": 1})
    with pytest.raises(UnknownName, match="unknown preset 'big'; known: quick"):
        config.checked_preset({"quick": 1}, "big")


def test_of_many_names_the_nearest_are_told():
    names = [f"lag/run_{n}" for n in range(100)] + ["lag/faces_x8_s0"]
    with pytest.raises(UnknownName) as caught:
        config.named("checkpoint", "lag/faces_x8", names)
    said = str(caught.value)
    assert said.startswith("unknown checkpoint 'lag/faces_x8'; nearest: lag/faces_x8_s0, ")
    assert said.endswith("; and 96 more.")


def test_reading_is_tracked_field_by_field():
    tracked = config.Tracked(Outer())
    names = ["name", "inner.width", "inner.rate", "runs.one.width", "seeds"]
    assert tracked.unread(names) == sorted(names)
    assert tracked.inner.width == 8
    assert tracked.runs["one"].width == 8
    assert list(tracked.runs) == ["one"]
    assert tracked.unread(names) == ["inner.rate", "name", "seeds"]
    assert tracked.inner.whole() == Inner()
    assert tracked.unread(names) == ["name", "seeds"]
    assert tracked.whole() == Outer()
    assert tracked.unread(names) == []
    with pytest.raises(AttributeError, match="read-only"):
        tracked.name = "y"
    with pytest.raises(AttributeError):
        tracked.absent  # noqa: B018


def test_a_dict_of_configurations_is_read_as_a_whole():
    tracked = config.Tracked(Outer())
    assert tracked.runs.whole() == {"one": Inner()}
    assert tracked.unread(["runs.one.width", "name"]) == ["name"]


def test_the_scale_label():
    scale = config.Scale("gpu", 1_234_567, 0.0321, "faces 64 px", "H200", (0, 1), ("data faces",))
    assert scale.text() == (
        "gpu · 1,234,567 images seen (3.2 % of the paper's budget) · faces 64 px · H200 · "
        "seeds 0, 1 · stand-in: data faces"
    )
    plain = config.Scale("paper", 10, None, "cifar10", "cpu")
    assert plain.text() == "paper · 10 images seen · cifar10 · cpu · seed 0"
    shares = [dataclasses.replace(scale, budget=b).text() for b in (1.0, 0.5, 0.0004, 0.0)]
    assert [s.split("(")[1].split(" of")[0] for s in shares] == ["100 %", "50 %", "0.04 %", "0 %"]


# --- files -----------------------------------------------------------------------------------


def test_json_is_canonical_and_refuses_nan():
    assert storage.dumps({"b": 1, "a": 0.1}) == '{"a": 0.1, "b": 1}'
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON"):
            storage.dumps({"x": bad})


def test_rows_survive_whatever_their_texts_hold(tmp_path):
    texts = ["plain", "", "two\nlines", "\r", "\u2028 \u2029 \x85 \x0b \x1c", "é ü 日本", '"\\']
    rows = [{"t": t, "x": 0.1 + i} for i, t in enumerate(texts)]
    storage.write_jsonl(tmp_path / "deep" / "rows.jsonl", rows)
    assert storage.read_jsonl(tmp_path / "deep" / "rows.jsonl") == rows
    assert storage.read_jsonl(tmp_path / "absent.jsonl") == []


def test_writes_are_whole_and_leave_nothing_beside(tmp_path):
    path = tmp_path / "a" / "b.json"
    storage.write_json(path, {"x": [1, "é"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"x": [1, "é"]}
    assert path.read_bytes().endswith(b"\n")
    assert path.stat().st_mode & 0o777 == 0o644
    storage.write_text(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize("error", [ValueError("mine"), OSError(errno.EIO, "io")])
def test_a_block_that_fails_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "f"
    storage.write_text(path, "old")

    def fail():
        with storage.replacing(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_what_cannot_be_written_is_one_sentence(tmp_path, number):
    with (
        pytest.raises(StorageFull, match="LATENTPAPERS_OUT") as caught,
        storage.writable(tmp_path / "f"),
    ):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "f") in str(caught.value)
    assert os.strerror(number).lower() in str(caught.value)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), storage.writable(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "gone")


def test_hashes(tmp_path):
    content = bytes(range(256)) * 1000
    storage.write_bytes(tmp_path / "f", content)
    expected = hashlib.sha256(content).hexdigest()
    assert storage.sha256(content) == storage.sha256_file(tmp_path / "f") == expected


def test_paths_follow_the_environment(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.setenv("LATENTPAPERS_ROOT", str(tmp_path / "notebooks" / "deep"))
    monkeypatch.delenv("LATENTPAPERS_OUT", raising=False)
    assert paths.root() == tmp_path
    assert paths.results() == tmp_path / "results"
    assert paths.relative(tmp_path / "results" / "x.json") == "results/x.json"
    monkeypatch.setenv("LATENTPAPERS_OUT", str(tmp_path / "out"))
    assert paths.results() == tmp_path / "out"
    assert paths.checkpoints() == tmp_path / "results" / "checkpoints"  # never redirected
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LATENTPAPERS_DATA", os.pathsep.join(["d1", "d2"]))
    assert [p.as_posix() for p in paths.data_dirs()][:2] == ["d1", "d2"]
    assert paths.data_dirs()[2] == tmp_path / "cache" / "data"
    monkeypatch.setenv("LATENTPAPERS_ROOT", os.sep)
    with pytest.raises(Missing, match="LATENTPAPERS_ROOT"):
        paths.root()


# --- seeds -----------------------------------------------------------------------------------


def test_seeds_are_the_first_bytes_of_a_hash():
    digest = hashlib.sha256(b"7/noise/3/1").digest()
    assert seeds.derive(7, "noise", 3, 1) == int.from_bytes(digest[:8], "big") >> 1
    assert 0 <= seeds.derive(0, "x") < 2**63


def test_streams_do_not_meet():
    keys = [
        (s, *p)
        for s in range(20)
        for p in ((), ("noise",), ("noise", 0), ("noise", 1), ("order", 0))
    ]
    assert len({seeds.derive(*k) for k in keys}) == len(keys)
    draws = [torch.randn(4, generator=seeds.generator(*k)) for k in keys[:10]]
    assert len({tuple(d.tolist()) for d in draws}) == 10


def test_generators_repeat_and_touch_nothing_global():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for _ in range(2):
        a = torch.randn(3, generator=seeds.generator(1, "a"))
        b = seeds.numpy(1, "a").normal(size=3)
    assert torch.equal(a, torch.randn(3, generator=seeds.generator(1, "a")))
    assert (b == seeds.numpy(1, "a").normal(size=3)).all()
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


# --- checks ----------------------------------------------------------------------------------

WHY = "rounding"


@pytest.mark.parametrize(
    ("value", "reference", "tolerance"),
    [
        (1.0, 1.0, {"atol": 1e-12}), (1.1, 1.0, {"atol": 0.11}), (101, 100, {"rtol": 0.0101}),
        (-101, -100, {"rtol": 0.0101}), ([1, 2], np.array([1.0, 2.0]), {"atol": 1e-9}),
        (torch.ones(2, requires_grad=True), [1, 1], {"rtol": 1e-9}),
        (torch.ones(2).bfloat16(), torch.ones(2), {"rtol": 1e-9}),
    ],
)  # fmt: skip
def test_close_and_fails_are_two_sides(value, reference, tolerance):
    assert check.close(value, reference, why=WHY, **tolerance) == "pass"
    with pytest.raises(check.CheckFailed, match="cannot fail"):
        check.fails(value, reference, why=WHY, **tolerance)


@pytest.mark.parametrize(
    ("value", "reference", "tolerance", "message"),
    [
        (1.2, 1.0, {"atol": 0.1}, "differs by 0.2; allowed for rounding"),
        (0.8, 1.0, {"atol": 0.1}, "differs by 0.2"),
        (102, 100, {"rtol": 0.01}, "differs by 2"),
        ([1, 2, 3], [1, 2, 4], {"atol": 0.5}, "differs by 1"),
        (math.nan, 1.0, {"atol": 9}, "differs"),
        (math.nan, math.nan, {"atol": 9}, "differs"),
        (math.inf, math.inf, {"atol": 9}, "differs"),
        ([1, 1], 1, {"atol": 9}, "shape"),
        ([], [], {"atol": 9}, "nothing to compare"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # inf - inf
def test_close_refuses_and_fails_notices(value, reference, tolerance, message):
    with pytest.raises(check.CheckFailed, match=message):
        check.close(value, reference, why=WHY, **tolerance)
    assert check.fails(value, reference, why=WHY, **tolerance) == "pass"


@pytest.mark.parametrize("bad", [{"why": WHY}, {"atol": 0.0, "why": WHY}, {"atol": 1.0, "why": ""}])
def test_a_check_needs_a_tolerance_and_its_reason(bad):
    for function in (check.close, check.fails):
        with pytest.raises(ValueError, match="positive tolerance and its reason"):
            function(1.0, 1.0, **bad)


def test_the_table_is_aligned(capsys):
    check.table(eq_5="pass", a_longer_name="pass")
    assert capsys.readouterr().out == "eq 5           pass\na longer name  pass\n"
