"""The user's settings: `config.toml` in the configuration folder, one flat table of texts."""

from __future__ import annotations

import json
import os
import re
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


#: What `device`, `dtype` and `format` may be; here, so that a setting is checked without importing torch.
DEVICES = ("cuda", "mps", "cpu")
DTYPES = ("float32", "bfloat16", "float16")
FORMATS = ("png", "webp", "jpeg")


def checked_value(key: str, value: str) -> str:
    """`value` as it is stored, if `key` may have it; raises `InvalidInput` or, for a model, `NotFound`."""
    checked_key(key)
    if not value.strip():
        raise InvalidInput(
            f"{key}: expected a value, got an empty text", f"To remove it: zoo config unset {key}"
        )
    if key == "model":
        # Only here: the catalogue itself reads the configuration folder.
        from zoo.session import Session

        Session().resolve(value)
        return value.strip().lower()
    if key == "device":
        known = re.fullmatch(rf"{'|'.join(DEVICES)}|cuda:\d+", value) is not None
        return _among(key, value, (*DEVICES, "cuda:N"), known)
    if key == "dtype":
        return _among(key, value, DTYPES, value in DTYPES)
    if key == "format":
        return _among(key, value, FORMATS, value in FORMATS)
    if os.path.isfile(value):
        raise InvalidInput(f"{key}: {value} is a file, expected a folder")
    return value


def _among(key: str, value: str, names: tuple[str, ...], known: bool) -> str:
    if not known:
        raise InvalidInput(
            f"{key}: expected one of {', '.join(names)}, got '{value}'", did_you_mean(value, names)
        )
    return value


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
            raise ZooError(
                f"{path}: {key}: {problem}", did_you_mean(key, KEYS) or f"Settings: {', '.join(KEYS)}"
            )
    return Settings(values, path)


def _quoted(value: str) -> str:
    """A TOML basic string: that of JSON, which leaves one control character as it is that TOML forbids."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def save_setting(key: str, value: str | None) -> Settings:
    """Set a key, or remove it with None; returns the settings as they are then."""
    checked_key(key)
    settings = load_settings()
    values = {k: v for k, v in settings.values.items() if k != key}
    if value is not None:
        values[key] = value
    text = "".join(f"{k} = {_quoted(v)}\n" for k, v in sorted(values.items()))
    part = settings.path.with_name(settings.path.name + ".part")
    try:
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, settings.path)
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{key}: {value!r} is not valid text") from error
    except OSError as error:
        raise OutputNotWritable(f"{settings.path}: cannot be written: {error.strerror}") from error
    return Settings(values, settings.path)
