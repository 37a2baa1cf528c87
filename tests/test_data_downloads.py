"""Files of data sets: licence first, records, unpacking, files put there by hand, what is said."""

import hashlib
import itertools
import os
import re
import shutil

import data_bed as bed
import pytest

from latentpapers import transfer
from latentpapers.data import downloads
from latentpapers.data.downloads import Source
from latentpapers.errors import Corrupt, Missing, StorageFull

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPAPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LATENTPAPERS_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(transfer, "_WAIT", 0.0)
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def served():
    server = bed.Served()
    yield server
    server.close()


def source(*urls, content=CONTENT, **more):
    fields = {
        "file": "f.bin", "size": len(content), "licence": "CC0 for tests", "page": "example.org",
        "sha256": hashlib.sha256(content).hexdigest(),
    } | more  # fmt: skip
    return Source(urls=urls, **fields)


def left(folder):
    """Every file below a folder, by name."""
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def test_a_file_arrives_whole_and_its_licence_is_said_first(served, tmp_path, capsys):
    what = source(served.put("a", CONTENT))
    path = downloads.fetch("toy", what, tmp_path / "out")
    assert path.read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert "toy" in said.splitlines()[0]
    assert "CC0 for tests" in said.splitlines()[0]
    assert "1.05 MB" in said.splitlines()[0]
    downloads.bring("toy", (what,), tmp_path / "out")  # here already: not asked for again
    assert len(served.log) == 1


def test_what_cannot_be_had_is_one_sentence_that_says_what_to_do(served, tmp_path):
    wrong = served.put("wrong", CONTENT[::-1])
    for known in ({}, {"sha256": "", "md5": hashlib.md5(CONTENT).hexdigest()}):
        what = source(served.url("gone"), wrong, **known)
        with pytest.raises(Missing, match=r"gone: 404.*wrong: .*not the published file") as caught:
            downloads.fetch("toy", what, tmp_path / "out")
        text = str(caught.value)
        assert re.search(r"latentpapers data fetch toy.*by hand into .*example\.org", text)
        assert text.endswith("run that command.")
        assert left(tmp_path / "out") == []
    md5 = {"sha256": "", "md5": hashlib.md5(CONTENT[::-1]).hexdigest()}
    assert downloads.fetch("toy", source(wrong, **md5), tmp_path / "out").is_file()  # the control


def test_a_server_that_sends_far_more_than_the_stated_size_is_stopped(
    served, tmp_path, monkeypatch
):
    monkeypatch.setattr(downloads, "_SLACK", 1000)
    with pytest.raises(Missing, match=r"more than 1,020 bytes, far more than the file has"):
        downloads.fetch("toy", source(served.put("a", CONTENT), size=10), tmp_path / "out")


def test_without_a_published_hash_the_first_copy_is_recorded_and_another_refused(
    served, tmp_path, capsys
):
    what = source(served.put("a", CONTENT), sha256="")
    downloads.bring("toy", (what,), tmp_path / "out")
    assert "no published hash; trusting this copy" in capsys.readouterr().err
    record = (tmp_path / "out" / "f.bin.sha256").read_text()
    assert record.split()[0] == hashlib.sha256(CONTENT).hexdigest()
    assert downloads.check(what, tmp_path / "out" / "f.bin") == "first use"
    (tmp_path / "out" / "f.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(Corrupt, match=r"f\.bin\.sha256 records"):
        downloads.check(what, tmp_path / "out" / "f.bin")


def test_a_page_instead_of_an_archive_is_refused_and_leaves_nothing(served, tmp_path):
    page = b"<html>Too many users have viewed or downloaded this file recently</html>" * 50
    what = source(served.put("a", page), content=page, sha256="", file="f.zip", folder="f")
    with pytest.raises(Missing, match="no archive"):
        downloads.bring("toy", (what,), tmp_path / "out")
    assert left(tmp_path / "out") == []


def test_an_archive_is_unpacked_recorded_and_removed(served, tmp_path, monkeypatch):
    content = bed.zipped({"top/a/1.txt": b"one", "top/2.txt": b"two"})
    what = source(served.put("a", content), content=content, file="f.zip", folder="set/deep")
    home = downloads.bring("toy", (what,), tmp_path / "out")
    assert left(home) == ["set/deep/.source.json", "set/deep/2.txt", "set/deep/a/1.txt"]
    mark = downloads.mark(home / "set" / "deep")
    monkeypatch.setenv("LATENTPAPERS_DATA", str(home))
    assert downloads.verify((what,), "toy") == ["deep: 2 files as in f.zip (published)"]
    (home / "set/deep/2.txt").unlink()
    with pytest.raises(Corrupt, match="holds 1 files"):
        downloads.verify((what,), "toy")
    (home / "set/deep/.source.json").unlink()
    assert downloads.mark(home / "set" / "deep") != mark


def test_a_damaged_archive_leaves_no_folder(served, tmp_path):
    whole = bed.zipped({f"top/{i}.bin": os.urandom(5000) for i in range(4)})
    for bad in (whole[:9000], whole[:2000] + bytes(50) + whole[2050:]):
        what = source(served.put("a", bad), content=bad, file="f.zip", folder="set")
        with pytest.raises((Corrupt, Missing)):
            downloads.bring("toy", (what,), tmp_path / "out")
        assert not (tmp_path / "out" / "set").exists()
        assert not list((tmp_path / "out").glob(".*"))
        shutil.rmtree(tmp_path / "out")


def test_a_file_put_by_hand_is_checked_used_and_kept(served, folders, tmp_path):
    content = bed.zipped({"top/1.txt": b"one"})
    what = source(served.url("gone"), content=content, file="f.zip", folder="set")
    by_hand = folders / "data" / "f.zip"
    by_hand.write_bytes(content + b"x")
    with pytest.raises(Corrupt, match="not the published file"):
        downloads.bring("toy", (what,))
    by_hand.write_bytes(content)
    home = downloads.bring("toy", (what,))
    assert home == downloads.default_folder()
    assert (home / "set" / "1.txt").read_bytes() == b"one"
    assert by_hand.is_file()
    assert served.log == []
    plain = source(served.url("gone"), file="list.txt")
    (folders / "data" / "list.txt").write_bytes(CONTENT)
    downloads.bring("toy", (what, plain))  # the parts of a set stay together
    assert (home / "list.txt").read_bytes() == CONTENT


def test_a_full_disk_is_told_before_the_first_byte(served, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageFull, match=r"needs 1\.05 MB"):
        downloads.fetch("toy", source(served.put("a", CONTENT)), tmp_path)
    assert served.log == []


def test_no_data_set_lacks_licence_page_size_and_hash_or_a_reason():
    from latentpapers.data import afhq, celeba, cifar10, lsun, named_packs, superres

    every = [
        afhq.V1, afhq.V2, celeba.HQ, *celeba.SOURCES, cifar10.SOURCE, named_packs.AHE,
        *superres.DIV2K, *superres.PIRM, superres._BENCHMARK,
        *itertools.chain(*(s.values() for s in (lsun.CHURCH, lsun.BEDROOM, lsun.TRAINS))),
    ]  # fmt: skip
    for what in every:
        assert what.licence
        assert what.page
        assert what.size > 0
        assert all(url.startswith(("https://", "http://", transfer.DRIVE)) for url in what.urls)
        assert len(what.sha256) in (0, 64)
        assert len(what.md5) in (0, 32)
    # nobody publishes a hash of these: their first copy is trusted and recorded
    unknown = {what.file for what in every if what.known_hash is None}
    assert unknown == {"afhq_v2.zip", "ahe.zip", *(what.file for what in superres.PIRM)}
