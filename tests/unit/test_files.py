"""Private files are private, and a directory has one user at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vacancy.jobs.local.files import exclusive, write_private
from vacancy.schemas.errors import VacancyError


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    for text in ("first and longer", "second"):
        write_private(file, text)
        assert file.read_text(encoding="utf-8") == text
        assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secrets"]


def test_a_second_user_of_a_directory_is_told_of_the_first(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(VacancyError, match=f"already, as process {os.getpid()}; end it first"):
        exclusive(tmp_path).__enter__()
    with exclusive(tmp_path):
        pass
