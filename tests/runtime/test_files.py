from __future__ import annotations

import pytest
from tiny import visible

from lddgan.errors import UserError
from lddgan.runtime.files import atomic_write, ensure_folder, remove_leftovers


def test_the_new_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "x.txt"
    with atomic_write(target) as temporary:
        temporary.write_text("first")
        assert temporary.parent == target.parent and temporary.suffix == ".txt" and not target.exists()
    assert target.read_text() == "first" and visible(tmp_path) == ["deep/x.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
def test_an_older_file_survives_every_failure(tmp_path, error):
    (tmp_path / "x.txt").write_text("old")
    with pytest.raises(type(error)):
        with atomic_write(tmp_path / "x.txt") as temporary:
            temporary.write_text("half of the n")
            raise error
    assert (tmp_path / "x.txt").read_text() == "old" and visible(tmp_path) == ["x.txt"]


def test_leftovers_of_killed_writers_go_and_nothing_else(tmp_path):
    kept = ["x.pt", ".hidden", ".git.txt", "deep/.x.abc.pt", ".x.12345678.pt.old"]
    for name in (*kept, "deep/.x.0123abcd.pt", ".config.deadbeef.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / ".folder.0123abcd").mkdir()
    remove_leftovers(tmp_path)
    assert visible(tmp_path) == sorted(kept) and (tmp_path / ".folder.0123abcd").is_dir()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="/file"):
            ensure_folder(path)
    with pytest.raises(UserError, match="/file"):
        with atomic_write(tmp_path / "file" / "x.txt"):
            raise AssertionError("not reached")
    assert ensure_folder(tmp_path / "a" / "b").is_dir() and ensure_folder(tmp_path / "a" / "b").is_dir()
