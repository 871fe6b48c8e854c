"""The tokenizer of Qwen2.5 (arXiv 2412.15115): byte pairs of UTF-8, run by the package `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from zoo.errors import InvalidInput, PluginError, WeightsError, did_you_mean
from zoo.registry import missing_package

#: Roles of the files: all in one, or the table of tokens and the list of pairs to join.
WHOLE, VOCABULARY, MERGES = "text_tokenizer", "text_vocabulary", "text_merges"

#: Control tokens of Qwen2.5 that stand in conversations.
CONTROLS = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}

#: How Qwen2's tokenizer cuts texts before it joins bytes: contractions, words, single digits, runs of marks,
#: line ends, spaces.
_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, kw_only=True)
class QwenTextConfig:
    """controls: names and ids of control tokens; those in a file `tokenizer.json` are added to them."""

    controls: Mapping[str, int] = field(default_factory=lambda: dict(CONTROLS))


class QwenText(nn.Module):
    """A `zoo.runtime.capabilities.TextTokenizer` from files: `tokenizer.json` under the role
    "text_tokenizer", or `vocab.json` and `merges.txt` under "text_vocabulary" and "text_merges".

    Added tokens of a file are control tokens. Texts are encoded as if there were none of them, so that what
    a user writes stays plain text.
    """

    def __init__(self, config: QwenTextConfig) -> None:
        super().__init__()
        self._controls = dict(config.controls)
        self._tokenizer: Any = None

    def read_files(self, files: Mapping[str, Path]) -> None:
        """See `zoo.runtime.capabilities.ReadsFiles`.

        Raises `PluginError` where the package `tokenizers` is missing.
        """
        try:
            import tokenizers  # noqa: F401 (only whether it is there)
        except ModuleNotFoundError as error:
            raise PluginError(*missing_package("illume", error)) from error
        if WHOLE in files:
            self._tokenizer, added = _whole(files[WHOLE])
            self._controls |= added
        elif VOCABULARY in files and MERGES in files:
            self._tokenizer = _from_lists(files[VOCABULARY], files[MERGES])
        else:
            raise WeightsError(
                f"the tokenizer of texts was given files for {', '.join(files) or 'no role'}, "
                f"expected {WHOLE}, or {VOCABULARY} and {MERGES}"
            )

    def encode(self, text: str) -> list[int]:
        """See `TextTokenizer`: any text can be written."""
        ids: list[int] = self._read.encode(text, add_special_tokens=False).ids
        return ids

    def control(self, name: str) -> int:
        """See `TextTokenizer`."""
        if name not in self._controls:
            raise InvalidInput(
                f"the tokenizer has no control token {name}", did_you_mean(name, self._controls)
            )
        return self._controls[name]

    def decode(self, ids: Sequence[int]) -> str:
        """See `TextTokenizer`; what the tokenizer of texts does not know, such as codes, is left out too."""
        controls = set(self._controls.values())
        text: str = self._read.decode([index for index in ids if index not in controls])
        return text

    @property
    def _read(self) -> Any:
        if self._tokenizer is None:
            raise WeightsError("the tokenizer of texts has read no file", f"Its card lacks a file {WHOLE}.")
        return self._tokenizer


def _whole(path: Path) -> tuple[Any, dict[str, int]]:
    """The tokenizer of a `tokenizer.json` without its added tokens, and these."""
    from tokenizers import Tokenizer

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        added = {str(entry["content"]): int(entry["id"]) for entry in document["added_tokens"] or ()}
        # Left there, they would be found in texts.
        document |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        return Tokenizer.from_str(json.dumps(document)), added
    # `tokenizers` raises plain exceptions of type Exception for what it cannot read.
    except Exception as error:
        raise WeightsError(f"{path}: is not a tokenizer.json: {_said(error)}") from error


def _from_lists(vocabulary: Path, merges: Path) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    try:
        tokenizer = Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
    # As above.
    except Exception as error:
        raise WeightsError(f"{vocabulary} and {merges} are no table of tokens: {_said(error)}") from error
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CUT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _said(error: Exception) -> str:
    """What went wrong, in one line; the KeyError of a missing entry says no more than its name."""
    text = f"it has no entry {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())[:200]
