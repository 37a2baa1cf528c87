"""One file from a list of addresses, from a server on this machine with the faults of real ones."""

import errno
import hashlib
import json
from pathlib import Path

import data_bed as bed
import pytest

from latentpapers import transfer
from latentpapers.errors import Corrupt, Missing, StorageFull
from latentpapers.transfer import DRIVE

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
KNOWN = {"sha256": f"sha256:{SHA256}", "bare": SHA256, "md5": f"md5:{MD5}", "prefix": SHA256[:8]}
MOST = 2 * len(CONTENT)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(transfer, "_WAIT", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def served():
    server = bed.Served()
    yield server
    server.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "out" / "f.bin"


def left(path):
    """Every file beside `path`, by name, hidden ones included."""
    return sorted(f.name for f in path.parent.iterdir()) if path.parent.exists() else []


def part(path, content, **note):
    """What an earlier call left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("f.bin.part").write_bytes(content)
    if note:
        path.with_name("f.bin.part.json").write_text(json.dumps(note))


@pytest.mark.parametrize("known", [*KNOWN.values(), None], ids=[*KNOWN, "unknown"])
def test_a_file_arrives_whole_and_is_not_asked_for_again(served, path, known, capfd):
    url = served.put("a", CONTENT)
    assert transfer.fetch([url], path, known, MOST) == path
    assert path.read_bytes() == CONTENT
    assert left(path) == ["f.bin"]
    assert oct(path.stat().st_mode)[-3:] == "644"
    assert transfer.fetch([url], path, known, MOST) == path
    assert served.log == [("a", None)]
    assert capfd.readouterr() == ("", "")  # no bar where stderr is no terminal


def test_a_bar_on_demand(served, path, capsys):
    transfer.fetch([served.put("a", CONTENT)], path, SHA256, MOST, progress=True)
    assert "f.bin: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_another_file_in_the_place_is_replaced(served, path, known):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another")
    transfer.fetch([served.put("a", CONTENT)], path, known, MOST)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("known", [SHA256, None])
def test_a_broken_connection_is_resumed_where_it_stopped(served, path, known):
    served.cut, served.cuts = 300_001, 2
    transfer.fetch([served.put("a", CONTENT)], path, known, MOST)
    assert path.read_bytes() == CONTENT
    assert served.log == [("a", None), ("a", "bytes=300001-"), ("a", "bytes=600002-")]


@pytest.mark.parametrize(
    ("known", "tags", "resumed"),
    [(SHA256, True, True), (SHA256, False, True), (None, True, True), (None, False, False)],
)
def test_the_next_call_goes_on_if_tag_or_hash_vouch_for_it(served, path, known, tags, resumed):
    url = served.put("a", CONTENT)
    served.cut, served.cuts, served.tags = 100_000, 1000, tags
    with pytest.raises(Missing, match=r"could not fetch f\.bin \(http.*: it ended after "):
        transfer.fetch([url], path, known, MOST)
    assert left(path) == ["f.bin.part", "f.bin.part.json"]
    have = path.with_name("f.bin.part").stat().st_size
    assert have == (transfer._TRIES if resumed else 1) * 100_000
    served.cuts = 0
    served.log.clear()
    transfer.fetch([url], path, known, MOST)
    assert path.read_bytes() == CONTENT
    assert served.log == [("a", f"bytes={have}-" if resumed else None)]
    assert left(path) == ["f.bin"]


def test_the_next_mirror_goes_on_where_the_first_stopped(served, path):
    served.cut, served.cuts = 100_000, transfer._TRIES
    first, second = served.put("first", CONTENT), served.put("second", CONTENT)
    transfer.fetch([first, second], path, SHA256, MOST)
    assert path.read_bytes() == CONTENT
    assert served.log[-1] == ("second", f"bytes={transfer._TRIES * 100_000}-")


def test_a_server_without_ranges_starts_again(served, path):
    served.cut, served.cuts, served.ranges = 300_000, 1, False
    transfer.fetch([served.put("a", CONTENT)], path, SHA256, MOST)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("known", [SHA256, None])
def test_a_file_that_changed_on_the_server_starts_again(served, path, known):
    url = served.put("a", CONTENT[::-1])
    part(path, CONTENT[::-1][:5000], url=url, tag=f'"{hashlib.md5(CONTENT[::-1]).hexdigest()}"')
    served.put("a", CONTENT)
    transfer.fetch([url], path, known, MOST)
    assert path.read_bytes() == CONTENT
    assert served.log == [("a", "bytes=5000-")]


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
@pytest.mark.parametrize("old", [b"of another file", CONTENT + b"more", b"x" * MOST])
def test_a_part_of_something_else_is_thrown_away(served, path, known, old):
    part(path, old)
    transfer.fetch([served.put("a", CONTENT)], path, known, MOST)
    assert path.read_bytes() == CONTENT
    assert served.log == [("a", f"bytes={len(old)}-"), ("a", None)]
    assert left(path) == ["f.bin"]


def test_a_part_that_nothing_vouches_for_is_thrown_away(served, path):
    url = served.put("a", CONTENT)
    part(path, CONTENT + b"more", url=url, tag=f'"{MD5}"')
    transfer.fetch([url], path, None, MOST)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in served.log] == [f"bytes={len(CONTENT) + 4}-", None]  # 416 first
    path.unlink()
    for note in ({"url": "elsewhere", "tag": "x"}, {"url": url}, {}):
        part(path, b"of another file", **note)
        transfer.fetch([url], path, None, MOST)
        assert path.read_bytes() == CONTENT
        assert served.log[-1] == ("a", None)
        path.unlink()


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_complete_part_needs_no_more_bytes(served, path, known):
    part(path, CONTENT)
    transfer.fetch([served.put("a", CONTENT)], path, known, MOST)
    assert path.read_bytes() == CONTENT
    assert served.log == [("a", f"bytes={len(CONTENT)}-")]


def test_the_next_mirror_serves_when_one_is_gone_or_wrong(served, path):
    wrong, right = served.put("wrong", CONTENT[::-1]), served.put("right", CONTENT)
    transfer.fetch([served.url("gone"), wrong, right], path, SHA256, MOST)
    assert path.read_bytes() == CONTENT
    assert [name for name, _ in served.log] == ["gone", "wrong", "right"]


@pytest.mark.parametrize("kind", KNOWN)
def test_a_wrong_hash_everywhere_leaves_nothing(served, path, kind):
    wrong = served.put("wrong", CONTENT[:-1] + b"?")
    said = f"not the published file .another {'MD5' if kind == 'md5' else 'SHA-256'}"
    with pytest.raises(Corrupt, match=said):
        transfer.fetch([wrong], path, KNOWN[kind], MOST)
    assert left(path) == []
    with pytest.raises(Missing, match=said):  # one address did not answer: it may be right there
        transfer.fetch([served.url("gone"), wrong], path, KNOWN[kind], MOST)
    assert left(path) == []


def test_a_server_that_never_stops_is_stopped(served, path):
    url = served.put("a", CONTENT)
    with pytest.raises(Corrupt, match=r"more than 1,048,575 bytes, far more than the file has"):
        transfer.fetch([url], path, SHA256, len(CONTENT) - 1)
    assert left(path) == []
    assert transfer.fetch([url], path, SHA256, len(CONTENT)) == path  # the control


def test_a_page_of_the_server_is_refused_before_its_hash(served, path):
    def accept(file):
        if file.read_bytes().startswith(b"<html>"):
            raise Corrupt("a page")

    page, good = served.put("page", b"<html>" * 50), served.put("good", CONTENT)
    for known in (SHA256, None):
        with pytest.raises(Corrupt, match="a page"):
            transfer.fetch([page], path, known, MOST, accept=accept)
        assert left(path) == []
    transfer.fetch([page, good], path, None, MOST, accept=accept)
    path.unlink()
    part(path, b"<html>")  # a page that was cut, of another address
    transfer.fetch([good], path, SHA256, MOST, accept=accept)
    assert path.read_bytes() == CONTENT


def test_each_address_is_named_with_its_reason_and_the_remedy_ends_the_sentence(served, path):
    urls = [served.url("gone"), "http://127.0.0.1:9/f", "no address at all"]
    said = r"gone: 404 Not Found; http://127\.0\.0\.1:9/f: .*refused.*; no address at all: \w+"
    with pytest.raises(Missing, match=rf"^could not fetch f\.bin \(.*{said}.*\); mend it\.$"):
        transfer.fetch(urls, path, SHA256, MOST, remedy="mend it")
    with pytest.raises(Missing, match="check the network and run the same command again"):
        transfer.fetch(urls[:1], path, SHA256, MOST)
    assert left(path) == []


def test_google_drive_goes_through_gdown(path, monkeypatch):
    import gdown

    asked = []

    def download(id, output, quiet, resume):
        asked.append((id, resume))
        assert not Path(output).exists()  # gdown would take it for the whole file
        if len(asked) == 2:
            raise gdown.exceptions.FileURLRetrievalError("Cannot retrieve the public link")
        if len(asked) == 3:
            return None
        Path(output).write_bytes(CONTENT)
        return output

    monkeypatch.setattr(gdown, "download", download)
    part(path, b"of another address")
    transfer.fetch([f"{DRIVE}abc"], path, SHA256, MOST)
    assert path.read_bytes() == CONTENT
    assert asked == [("abc", True)]
    assert left(path) == ["f.bin"]
    path.unlink()
    for said in ("Cannot retrieve the public link", "refused the file .its daily quota"):
        with pytest.raises(Missing, match=f"Google Drive: .*{said}"):
            transfer.fetch([f"{DRIVE}abc"], path, SHA256, MOST)
        assert left(path) == []


def test_a_full_disk_is_said_and_leaves_nothing_whole(served, path, monkeypatch):
    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageFull, match="no space left"):
        transfer.fetch([served.put("a", CONTENT)], path, SHA256, MOST)
    monkeypatch.undo()
    assert left(path) == []


def test_a_folder_that_can_only_be_read_is_said_before_the_first_byte(served, path, monkeypatch):
    def denied(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(transfer.tempfile, "TemporaryFile", denied)
    with pytest.raises(StorageFull, match="read-only"):
        transfer.fetch([served.put("a", CONTENT)], path, SHA256, MOST)
    assert served.log == []


def test_hashes_and_their_beginnings(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(CONTENT)
    assert all(transfer.matches(file, known) for known in KNOWN.values())
    assert transfer.matches(file, f"md5:{MD5.upper()}")
    for wrong in (SHA256[1:9], f"md5:{SHA256}", f"sha256:{MD5}", SHA256 + "0"):
        assert not transfer.matches(file, wrong)
    for none in ("", "sha256:", SHA256[:7]):  # would fit every file, or one in few
        with pytest.raises(ValueError, match="is no hash"):
            transfer.matches(file, none)
