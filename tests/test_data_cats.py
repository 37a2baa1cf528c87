"""`cats-generated`: the shipped draws of this project's own PGAN."""

import numpy as np
import pytest
import torch

from latentpapers import data, models
from latentpapers.data import cats_generated as cats
from latentpapers.data import packs
from latentpapers.errors import Corrupt, UserError
from latentpapers.papers import diamond


def test_the_shipped_pack_is_small_whole_and_says_what_it_is():
    assert cats.PACK.stat().st_size <= 1_000_000
    pack = packs.read_pack(cats.PACK)
    assert len(pack) == 256
    assert pack.lossless
    model = models.load("diamond/cats_pgan_s0")
    seen = f"{model.card['images']:,} images seen"
    assert seen in pack.source
    assert seen in data.info("cats-generated").source
    assert "BY-NC" in pack.licence
    assert "BY-NC" in data.info("cats-generated").licence
    for split, count in cats.SHIPPED.items():
        shown = data.load("cats-generated", size=32, split=split)
        assert len({i.numpy().tobytes() for i in shown.pixels}) == count
        assert float(shown.pixels.float().flatten(1).std(1).min()) > 5  # no blank among them
    with pytest.raises(UserError, match="it has 192"):
        data.load("cats-generated", size=32, n=193)


def test_the_cats_are_what_the_shipped_network_draws():
    """Bytes were drawn on another processor perhaps: a grey level may round the other way."""
    model = models.load("diamond/cats_pgan_s0")
    found = data.load("cats-generated", size=32, split="test", n=8).pixels.int()
    again = data.to_bytes(diamond.sample(model, 8, cats.SEEDS["test"])).int()
    assert int((found - again).abs().max()) <= 1
    other = data.to_bytes(diamond.sample(model, 8, cats.SEEDS["train"])).int()  # the control
    assert int((found - other).abs().max()) > 1


def test_images_are_written_in_their_order_and_a_changed_file_is_refused(tmp_path, monkeypatch):
    g = torch.Generator().manual_seed(0)
    drawn = {
        split: torch.randint(0, 256, (n, 3, 32, 32), generator=g, dtype=torch.uint8)
        for split, n in cats.SHIPPED.items()
    }
    path = cats.write(drawn, tmp_path, "a test")
    monkeypatch.setattr(cats, "PACK", path)
    info = data.info("cats-generated")
    for split, pixels in drawn.items():
        assert torch.equal(cats.load(info, 32, split, 5).pixels, pixels[:5])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(Corrupt):
        cats.load(info, 32, "train", 5)


def test_the_command_draws_the_pack_again(tmp_path, capsys):
    assert diamond.train_from_cli(["--pack", "cats_pgan", "--out", str(tmp_path)]) == 0
    assert cats.PACK.name in capsys.readouterr().out
    mine, shipped = packs.read_pack(tmp_path / cats.PACK.name), packs.read_pack(cats.PACK)
    assert (mine.names == shipped.names).all()
    assert np.abs(mine.decode().astype(int) - shipped.decode().astype(int)).max() <= 1
    with pytest.raises(SystemExit):
        diamond.train_from_cli(["--pack", "faces_pgan", "--out", str(tmp_path)])
