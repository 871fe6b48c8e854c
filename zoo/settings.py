"""The user's settings: `config.toml` in the configuration folder, one flat table of texts."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import InvalidInput, OutputNotWritable, ZooError, did_you_mean

#: What can be set, and what it means.
KEYS = {
    "model": "reference that `zoo sample` uses when none is given",
    "device": "device to run on: cuda, mps, cpu",
    "dtype": "number format to run in: float32, bfloat16, float16",
    "format": "image format: png, webp, jpeg",
    "out": "folder that samples are written to",
}


def config_folder() -> Path:
    """`$XDG_CONFIG_HOME/zoo`, else the platform's place for configuration."""
    base = os.environ.get("XDG_CONFIG_HOME")
    if base:
        return Path(base) / "zoo"
    import platformdirs

    return Path(platformdirs.user_config_dir("zoo", appauthor=False))


@dataclass(frozen=True)
class Settings:
    """Values by key; keys that are not set are absent."""

    values: dict[str, str]
    path: Path

    def get(self, key: str) -> str | None:
        """The value, or None where it is not set."""
        return self.values.get(checked_key(key))


def checked_key(key: str) -> str:
    """`key` if it can be set; raises `InvalidInput`."""
    if key not in KEYS:
        hint = did_you_mean(key, KEYS) or f"Settings: {', '.join(KEYS)}"
        raise InvalidInput(f"there is no setting '{key}'", hint)
    return key


def load_settings() -> Settings:
    """Read the user's settings; a missing file means that nothing is set."""
    path = config_folder() / "config.toml"
    if not path.exists():
        return Settings({}, path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ZooError(f"{path}: cannot be read: {error}", "Correct the file or delete it.") from error
    for key, value in values.items():
        if key not in KEYS or not isinstance(value, str):
            problem = "is not a setting" if key not in KEYS else f"expected a text, got {value!r}"
            raise ZooError(f"{path}: {key}: {problem}", did_you_mean(key, KEYS) or f"Settings: {', '.join(KEYS)}")
    return Settings(values, path)


def save_setting(key: str, value: str | None) -> Settings:
    """Set a key, or remove it with None; returns the settings as they are then."""
    settings = load_settings()
    values = {k: v for k, v in settings.values.items() if k != checked_key(key)}
    if value is not None:
        values[key] = value
    text = "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in sorted(values.items()))
    part = settings.path.with_name(settings.path.name + ".part")
    try:
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, settings.path)
    except OSError as error:
        raise OutputNotWritable(f"{settings.path}: cannot be written: {error.strerror}") from error
    return Settings(values, settings.path)
