"""How ILLUME+ chooses tokens: text and pictures interleaved, guidance and structure inside of pictures.

A picture is written as
SOI, SOL0, lines of semantic codes each with an end of line, EOL0, SOL1, lines of pixel codes, EOL1, EOI
where SOLk and EOLk begin and end level k (arXiv 2504.01934). What may follow is known at every
place, so that a model can only write whole pictures; outside of them it cannot write codes. Guidance runs
inside of pictures only: the unconditional branch starts with each picture and ends with it.

Every sample has a state of its own. The authors' processor looks at the first row of a batch alone; while all
rows are at the same place, which is where its results mean something, both compute the same.

With `doubled`, temperature, top-k and top-p of the text are applied a second time to all tokens. That is what
the authors' scripts do, where the same settings reach the processor and then the generation loop around it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.errors import InvalidInput
from zoo.runtime.tokens.processors import NEVER, Warp, guided
from zoo.runtime.tokens.rules import StepLogits

#: Lines and codes per line of one level.
Grid = tuple[int, int]

#: Most generated tokens that an unconditional branch starts with, behind its prompt.
MOST_APPENDED = 3


@dataclass(frozen=True)
class InterleavedTokens:
    """Ids of the tokens that have a meaning here. Level 0 is semantic, level 1 pixels."""

    start_of_image: int
    end_of_image: int
    end_of_line: int
    start_of_level: tuple[int, ...]
    end_of_level: tuple[int, ...]
    end_of_text: int
    codes: tuple[tuple[int, int], ...]  #: of each level the first id and the one behind the last

    @classmethod
    def from_authors(
        cls, special_tokens: Mapping[str, int], ranges: Sequence[Sequence[int]]
    ) -> InterleavedTokens:
        """From the names of the authors' table, and (first, end) of each level's codes."""
        levels = range(len(ranges))
        return cls(
            start_of_image=special_tokens["start_of_image"],
            end_of_image=special_tokens["end_of_image"],
            end_of_line=special_tokens["end_of_line"],
            start_of_level=tuple(special_tokens[f"start_of_level{level}"] for level in levels),
            end_of_level=tuple(special_tokens[f"end_of_level{level}"] for level in levels),
            end_of_text=special_tokens["end_of_text"],
            codes=tuple((int(first), int(end)) for first, end in ranges),
        )

    def not_in_text(self, vocabulary: int) -> Tensor:
        """Bool [vocabulary]: codes, and what orders them. Pictures may begin and end anywhere in a text."""
        mask = torch.zeros(vocabulary, dtype=torch.bool)
        for first, end in self.codes:
            mask[first:end] = True
        mask[[self.end_of_line, *self.start_of_level, *self.end_of_level]] = True
        return mask

    def in_picture(self, grids: Sequence[Grid]) -> int:
        """Tokens of a whole picture, its start and end among them."""
        return 2 + sum(lines * (columns + 1) + 2 for lines, columns in grids)


#: Probabilities as the model has them.
UNCHANGED = Warp()


@dataclass(frozen=True)
class Warps:
    """How sharply text, semantic codes and pixel codes are chosen."""

    text: Warp = UNCHANGED
    levels: tuple[Warp, ...] = (UNCHANGED, UNCHANGED)


AS_THEY_ARE = Warps()


@dataclass(frozen=True)
class UnconditionalPrompt:
    """A prompt without the description, as ids (a picture in it is one id) and as what the network reads."""

    ids: tuple[int, ...]
    embeddings: Tensor  #: [tokens, width]


def appended(prompt: Sequence[int], generated: Sequence[int]) -> list[int]:
    """The newest of the generated tokens that an unconditional branch starts with, behind its prompt.

    None where the prompt ends with the last one. One where the prompt ends with the two before it: then the
    branch was where the conditional one is. Else three, or all that there are.
    """
    if prompt and generated and prompt[-1] == generated[-1]:
        return []
    before = list(generated[-3:-1])
    if len(before) == 2 and list(prompt[-2:]) == before:
        return list(generated[-1:])
    return list(generated[-MOST_APPENDED:])


@dataclass
class _State:
    """Where one sample is."""

    grids: tuple[Grid, ...]
    newest: deque[int] = field(default_factory=lambda: deque(maxlen=MOST_APPENDED))
    in_picture: bool = False
    level: int | None = None  #: inside of a picture; None between levels
    line: int = 0  #: whole lines of the level
    column: int = 0  #: codes of the line
    only: int = 0  #: the token that has to follow between levels

    def read(self, token: int, tokens: InterleavedTokens) -> None:
        self.newest.append(token)
        if token == tokens.start_of_image:
            self.in_picture, self.level, self.only = True, None, tokens.start_of_level[0]
        elif token == tokens.end_of_image:
            self.in_picture, self.level = False, None
        elif token in tokens.start_of_level:
            self.level, self.line, self.column = tokens.start_of_level.index(token), 0, 0
        elif token in tokens.end_of_level:
            following = tokens.end_of_level.index(token) + 1
            self.level = None
            last = following == len(tokens.start_of_level)
            self.only = tokens.end_of_image if last else tokens.start_of_level[following]
        elif self.in_picture and token == tokens.end_of_line:
            self.line, self.column = self.line + 1, 0
        elif self.in_picture and self.level is not None:
            first, end = tokens.codes[self.level]
            self.column += first <= token < end

    def possible(self, tokens: InterleavedTokens) -> tuple[int, int] | None:
        """First id, and the one behind the last, of what may follow; None is the rule of texts."""
        if not self.in_picture:
            return None
        if self.level is None:
            return self.only, self.only + 1
        lines, columns = self.grids[self.level]
        if self.line >= lines:
            return tokens.end_of_level[self.level], tokens.end_of_level[self.level] + 1
        if self.column >= columns:
            return tokens.end_of_line, tokens.end_of_line + 1
        return tokens.codes[self.level]


class InterleavedRules:
    """`zoo.runtime.tokens.rules.Rules` of ILLUME+.

    vocabulary: logits per row; may be more than there are tokens.
    grids: of each sample, lines and columns of each level.
    embed: token ids [tokens] to embeddings [tokens, width].
    scale: guidance inside of pictures; at 1 there is no unconditional branch, and scores are normalised all
        the same.
    prompts: of each sample, what the unconditional branch reads; needed where the scale is not 1.
    doubled: see the module.
    """

    def __init__(
        self,
        tokens: InterleavedTokens,
        vocabulary: int,
        grids: Sequence[Sequence[Grid]],
        embed: Callable[[Tensor], Tensor],
        warps: Warps = AS_THEY_ARE,
        scale: float = 1.0,
        prompts: Sequence[UnconditionalPrompt] = (),
        doubled: bool = False,
    ) -> None:
        if scale != 1 and len(prompts) != len(grids):
            raise InvalidInput(
                f"guidance is {scale}, which needs an unconditional prompt for each of {len(grids)} samples; "
                f"there are {len(prompts)}"
            )
        self._tokens, self._embed, self._warps = tokens, embed, warps
        self._scale, self._doubled = scale, doubled
        self._prompts = tuple(prompts) if scale != 1 else ()
        self._states = [_State(tuple(levels)) for levels in grids]
        self._not_in_text = tokens.not_in_text(vocabulary)

    @property
    def longest_unconditional(self) -> int:
        """See `Rules`."""
        return max((len(prompt.embeddings) + MOST_APPENDED for prompt in self._prompts), default=0)

    def guided(self, row: int) -> bool:
        """See `Rules`: inside of pictures."""
        return bool(self._prompts) and self._states[row].in_picture

    def unconditional(self, row: int) -> Tensor:
        """See `Rules`."""
        prompt = self._prompts[row]
        behind = appended(prompt.ids, list(self._states[row].newest))
        ids = torch.tensor(behind, dtype=torch.int64, device=prompt.embeddings.device)
        return torch.cat([prompt.embeddings, self._embed(ids).to(prompt.embeddings.dtype)])

    def place(self, row: int) -> tuple[int, int, int] | None:
        """(level, whole lines, codes of the line) where a sample is inside of a level, else None."""
        state = self._states[row]
        return None if state.level is None else (state.level, state.line, state.column)

    def read(self, row: int, token: int) -> None:
        """See `Rules`."""
        self._states[row].read(token, self._tokens)

    def process(self, logits: StepLogits) -> Tensor:
        """See `Rules`: guidance, what may follow, temperature, top-k and top-p."""
        scores = self._guide(logits)
        groups: dict[tuple[tuple[int, int] | None, Warp], list[int]] = {}
        for index, row in enumerate(logits.rows):
            state = self._states[row]
            warp = self._warps.text if state.level is None else self._warps.levels[state.level]
            groups.setdefault((state.possible(self._tokens), warp), []).append(index)
        if len(groups) == 1:
            ((possible, warp),) = groups
            return self._again(self._narrow(scores, possible, warp))
        result = torch.empty_like(scores)
        for (possible, warp), members in groups.items():
            result[members] = self._narrow(scores[members], possible, warp)
        return self._again(result)

    def _guide(self, logits: StepLogits) -> Tensor:
        """Scores of samples inside of pictures are normalised, and guided where the scale is not 1."""
        inside = [index for index, row in enumerate(logits.rows) if self._states[row].in_picture]
        if not inside:
            return logits.conditional
        whole = len(inside) == len(logits.rows)
        conditional = logits.conditional if whole else logits.conditional[inside]
        other = conditional if logits.unconditional is None else logits.unconditional
        scores = guided(conditional, other, self._scale)
        if whole:
            return scores
        mixed = logits.conditional.clone()
        mixed[inside] = scores
        return mixed

    def _narrow(self, scores: Tensor, possible: tuple[int, int] | None, warp: Warp) -> Tensor:
        """Scores [n, vocab] of samples at one place; where nothing is left, the text ends."""
        if possible is None:
            self._not_in_text = self._not_in_text.to(scores.device)
            narrowed = scores.masked_fill(self._not_in_text, NEVER)
            left, result = narrowed, warp(narrowed)
        else:
            # The rest is never chosen: sorting and summing over it would only take time.
            first, end = possible
            left = scores[:, first:end]
            result = torch.full_like(scores, NEVER)
            result[:, first:end] = warp(left)
        nothing = left.amax(-1) == NEVER
        result[:, self._tokens.end_of_text].masked_fill_(nothing, 0.0)
        return result

    def _again(self, scores: Tensor) -> Tensor:
        return self._warps.text(scores) if self._doubled else scores
