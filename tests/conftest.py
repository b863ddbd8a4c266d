"""What all tests share: a fresh BASE, and a home that is not the user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no failing test.
settings.register_profile("fsjail", deadline=None)
settings.load_profile("fsjail")

_FOLDERS = {
    "HOME": "",
    "XDG_CONFIG_HOME": "config",
    "XDG_CONFIG_DIRS": "site",
    "XDG_STATE_HOME": "state",
    "XDG_DATA_HOME": "data",
    "XDG_CACHE_HOME": "cache",
}


def _isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    for variable, folder in _FOLDERS.items():
        (home / folder).mkdir(parents=True, exist_ok=True)
        patch.setenv(variable, str(home / folder))
    for variable in [name for name in os.environ if name.startswith("FSJAIL_")]:
        if variable != "FSJAIL_RESOLVER":  # set on purpose to run everything on the walk
            patch.delenv(variable)


@pytest.fixture(scope="session", autouse=True)
def _isolated_home(tmp_path_factory):
    """No test reads or writes the user's own configuration, state or trash."""
    with pytest.MonkeyPatch.context() as patch:
        _isolate(patch, tmp_path_factory.mktemp("home"))
        _let_through(tmp_path_factory.getbasetemp())
        yield


def _let_through(folder: Path) -> None:
    """Let a child that has dropped to another user reach its test's folder: pytest makes them 0700."""
    while folder.parent != folder:
        st = folder.stat()
        if st.st_uid == os.getuid() and not st.st_mode & 0o001:
            folder.chmod(st.st_mode & 0o7777 | 0o011)
        folder = folder.parent


@pytest.fixture(autouse=True)
def _reachable(request):
    """The same for the folder of one test."""
    if "tmp_path" in request.fixturenames:
        _let_through(request.getfixturevalue("tmp_path"))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home of this test's own: `config/`, `site/`, `state/`, `data/` and `cache/` are the XDG folders."""
    folder = tmp_path / "home"
    _isolate(monkeypatch, folder)
    return folder


@pytest.fixture
def base(tmp_path) -> Path:
    """A fresh BASE: `root` (the jail), `outside/secret` ("SECRET") and `outside/dir` beside it."""
    folder = tmp_path / "BASE"
    (folder / "root").mkdir(parents=True)
    (folder / "outside" / "dir").mkdir(parents=True)
    (folder / "outside" / "secret").write_bytes(b"SECRET")
    return folder
