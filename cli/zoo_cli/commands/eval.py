"""`zoo eval`: score a model of the shapes world."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from zoo.errors import InvalidInput
from zoo_cli.arguments import reference_argument
from zoo_cli.output import Output, output_options
from zoo_cli.running import Count, Seed, batch_option, device_options, sampler_options, whole_numbers

#: The exam by what a model's sampler makes, and that of models which do more than draw. Each has `run` and
#: `DEFAULTS`, its own options.
_TASKS = "tasks"
_EXAMS = {"image": "zoo_cli.eval_pictures", "layers": "zoo_cli.eval_layers", _TASKS: "zoo_cli.eval_tasks"}
_WHOSE = {
    "image": "whose samplers make image",
    "layers": "whose samplers make layers",
    _TASKS: "that do more than draw",
}


class LayerCounts(click.ParamType):  # type: ignore[type-arg]
    """Three whole numbers with commas between them, or one for all three."""

    name = "counts"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        counts = whole_numbers(value)
        if counts is None or len(counts) not in (1, 3):
            self.fail(f"'{value}' is not one whole number or three, such as 160,160,80.", param, ctx)
        return (counts * 3)[:3]


@click.command("eval")
@reference_argument()
@click.option("--per-class", type=Count(), help="Samples of each combination (default 10).")
@click.option(
    "--pairs",
    type=click.IntRange(min=0),
    help="Prompts of two objects, for models that read captions (default 320); 0 leaves them out.",
)
@click.option(
    "--samples",
    metavar="N,N,N",
    type=LayerCounts(),
    help="Pictures of two, three and four layers, for models that draw in layers (default 160,160,80).",
)
@click.option(
    "--questions",
    type=Count(),
    help="Questions of each kind, for models that edit, read or answer (default 40).",
)
@click.option("--task", metavar="NAME", help="One task alone, of a model that has several.")
@click.option("--seed", type=Seed(), default=0, help="Seed of the first sample (default 0), or 'random'.")
@sampler_options
@batch_option
@click.option(
    "--renders",
    type=click.IntRange(min=0),
    help="Ground-truth pictures for bits per dimension (default 256).",
)
@click.option(
    "--ablations/--no-ablations",
    default=None,
    help="Whether models that draw in layers are also measured without parts of the method (by default).",
)
@click.option(
    "--ablation-samples", type=Count(), help="Pictures of each number of layers for that (default 40)."
)
@click.option(
    "--grid", "sheet", metavar="FILE", help="Write a contact sheet: a row for each combination, then pairs."
)
@click.option("--failures", is_flag=True, help="List every sample that disagrees with its prompt.")
@click.option("--overwrite", is_flag=True, help="Replace an existing contact sheet.")
@device_options
@output_options
def command(reference: str, out: Output, **given: Any) -> None:
    """Score a model of the shapes world.

    Samples every combination of colour and shape and lets a judge without learned parts decide whether each
    picture shows what its prompt says. Models that read captions are also asked for two objects with a
    relation, three quarters of them with combinations that training showed and one with held-out ones. Models
    with a likelihood also get bits per dimension.

    Models that draw in layers are asked for one to three objects on a background: each layer is judged by
    itself, its mask by what the layer shows, and the composite by the whole prompt. Beside that stands what
    parts of the method are worth, measured without them. Their contact sheet has some samples in rows.

    Models that do more than draw have an exam for each task: pictures to edit, where exactly what was asked
    may change, to describe and to be asked about, texts to answer, and pictures to give back. What such a
    model drew, it also has to describe. Options of samplers go with --task.

    \b
    zoo eval tarflow:shapes
    zoo eval tarflow:shapes --per-class 2 --guidance 2 --grid sheet.png
    zoo eval mdm:shapes --sampler ddim --steps 100 --failures
    zoo eval layerdiff:shapes --samples 40 --no-ablations --grid sheet.png
    zoo eval illume:shapes --task edit --questions 20 --failures
    """
    from zoo.io.request import Request
    from zoo.session import Session

    session = Session()
    how = Request(
        steps=given["steps"],
        guidance=given["guidance"],
        sampler=given["sampler"],
        options=dict(given["options"]),
        batch_size=given["batch_size"],
    )
    session.resolve(reference)

    from zoo.shapes.task_evaluation import planned_exams

    planned = planned_exams(session, reference, given["sampler"], given["task"])
    if len(planned) > 1 or planned[0].exam is not None:
        exam = _exam(reference, _TASKS, given)
        exam.run(session, reference, planned, _filled(exam, given), how, out)
        return
    kind = planned[0].sampler.makes
    if kind not in _EXAMS:
        judged = ", ".join(made for made in _EXAMS if made != _TASKS)
        raise InvalidInput(
            f"{reference} makes {kind}, which nobody here can judge", f"eval judges: {judged}."
        )
    exam = _exam(reference, kind, given)
    exam.run(session, reference, _filled(exam, given), how, out)


def _exam(reference: str, kind: str, given: dict[str, Any]) -> Any:
    """The exam of a kind; raises for an option of another one, which would be ignored silently."""
    exams = {made: import_module(module) for made, module in _EXAMS.items()}
    for made, exam in exams.items():
        for name in exam.DEFAULTS:
            if made != kind and given[name] is not None and name not in exams[kind].DEFAULTS:
                raise InvalidInput(
                    f"--{name.replace('_', '-')} is for models {_WHOSE[made]}, and {reference} is not one",
                    "Leave it out.",
                )
    return exams[kind]


def _filled(exam: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {**given, **{name: value for name, value in exam.DEFAULTS.items() if given[name] is None}}
