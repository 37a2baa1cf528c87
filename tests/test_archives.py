"""Unpacking tar and zip: what leads outside, lies about its size or ends early is refused."""

import io
import os
import stat
import tarfile
import zipfile

import data_bed as bed
import pytest

from latentpapers import archives
from latentpapers.errors import Corrupt

FILES = {"top/a/1.txt": b"one", "top/b.txt": b"two" * 100}
KINDS = {"zip": bed.zipped, "tar": bed.tarred, "tar.gz": lambda f: bed.tarred(f, "w:gz")}


def save(tmp_path, content, name="x.bin"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refused(tmp_path, content, words, **options):
    """Nothing may appear in or above the folder."""
    path = save(tmp_path, content)
    (tmp_path / "in").mkdir(exist_ok=True)
    with pytest.raises(Corrupt, match=words):
        archives.extract(path, tmp_path / "in" / "out", **options)
    assert list((tmp_path / "in").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "x.bin"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_archive_is_unpacked_without_its_common_top(tmp_path, kind):
    path = save(tmp_path, KINDS[kind](FILES))
    assert archives.is_archive(path)
    out = archives.extract(path, tmp_path / "deep" / "out")
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == {name.removeprefix("top/"): content for name, content in FILES.items()}
    two = archives.extract(save(tmp_path, KINDS[kind]({**FILES, "other": b""})), tmp_path / "two")
    assert sorted(p.name for p in two.iterdir()) == ["other", "top"]
    assert oct(out.stat().st_mode)[-3:] == "755"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "a/../../evil", "C:\\evil", "..\\evil", "a/../evil", "\\evil"]
)
def test_a_name_that_leads_out_is_refused(tmp_path, kind, name):
    refused(tmp_path, KINDS[kind]({**FILES, name: b"x"}), "leads out of the folder")


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_refused(tmp_path, type_):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("top/link")
        link.type, link.linkname = type_, "../../outside"
        tar.addfile(link)
        inner = tarfile.TarInfo("top/link/file")
        inner.size = 3
        tar.addfile(inner, io.BytesIO(b"abc"))
    refused(tmp_path, buffer.getvalue(), "link or device")


def test_a_link_in_a_zip_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("top/link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    refused(tmp_path, buffer.getvalue(), "link or device")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_decompression_bomb_is_refused(tmp_path, kind):
    bomb = KINDS[kind]({"top/zeros": bytes(90 * 2**20)})  # 90 MiB in about 90 kB
    assert len(bomb) < 2**20
    refused(tmp_path, bomb, "decompression bomb")
    path = save(tmp_path, KINDS[kind]({"top/zeros": bytes(10 * 2**20)}))
    assert archives.extract(path, tmp_path / "fine").is_dir()  # the control: lists compress well
    refused_small = KINDS[kind]({"a": bytes(2000), "b": b""})
    with pytest.raises(Corrupt, match="more than 1,000 bytes"):
        archives.extract(save(tmp_path, refused_small), tmp_path / "no", limit=1000)


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path):
    content = bytearray(bed.zipped({"top/a": b"x" * 5000, "top/b": b"y"}))
    at = content.index(b"PK\x01\x02") + 24  # uncompressed size in the central directory
    content[at : at + 4] = (10).to_bytes(4, "little")
    refused(tmp_path, bytes(content), "cannot be unpacked")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_archive_is_refused(tmp_path, kind, keep):
    whole = KINDS[kind]({f"top/{i}": os.urandom(20_000) for i in range(5)})
    refused(tmp_path, whole[: int(keep * len(whole))], "cannot be unpacked")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_flipped_byte_is_found_by_the_archive_s_own_checksum(tmp_path, kind):
    whole = bytearray(KINDS[kind]({f"top/{i}": os.urandom(20_000) for i in range(3)}))
    whole[len(whole) // 2] ^= 1
    refused(tmp_path, bytes(whole), "cannot be unpacked")


def test_what_is_no_archive_or_empty_is_refused(tmp_path):
    refused(tmp_path, b"<html>", "cannot be unpacked")
    refused(tmp_path, bed.zipped({}), "holds no file")
    refused(tmp_path, bed.zipped({"__MACOSX/._a": b"x"}), "holds no file")
    refused(tmp_path, bed.zipped({"a": b"1", "a/b": b"2"}), "comes twice")


def test_names_twice_in_one_archive_are_refused(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for content in (b"one", b"two"):
            member = tarfile.TarInfo("top/same")
            member.size = 3
            tar.addfile(member, io.BytesIO(content))
    refused(tmp_path, buffer.getvalue(), "comes twice")


@pytest.mark.parametrize("kind", KINDS)
def test_single_files_are_read_without_unpacking(tmp_path, kind):
    content = FILES | {"../evil": b"x"}  # not asked for
    path = save(tmp_path, KINDS[kind](content))
    assert archives.read(path, set(FILES)) == FILES
    assert list(tmp_path.parent.rglob("evil")) == []
    with pytest.raises(Corrupt, match="are expected"):
        archives.read(path, {"top/absent"})
    with pytest.raises(Corrupt, match="leads out of the folder"):
        archives.read(path, {"../evil"})
    with pytest.raises(Corrupt, match="more than 5 bytes"):
        archives.read(path, set(FILES), limit=5)
    whole = path.read_bytes()
    truncated = save(tmp_path, whole[: min(1600, len(whole) // 2)])  # the rest of a tar is padding
    with pytest.raises(Corrupt, match="cannot be unpacked"):
        archives.read(truncated, set(FILES))


def test_a_file_that_comes_twice_is_not_read(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a"), io.BytesIO())
    with pytest.raises(Corrupt, match=r"holds \['a', 'a'\]"):
        archives.read(save(tmp_path, buffer.getvalue()), {"a"})
