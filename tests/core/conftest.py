"""The toy method and the command line, for tests that need a working plugin beside a broken one."""

from pathlib import Path

import pytest
from toy_method import toy, zoo

__all__ = ["site", "toy", "zoo"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, empty yet; the user's folders are empty and no switch is set."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    for name in ("ZOO_CARDS", "ZOO_PLUGINS", "ZOO_DEBUG", "ZOO_TRACE", "ZOO_STRICT"):
        monkeypatch.delenv(name, raising=False)
    return folder
