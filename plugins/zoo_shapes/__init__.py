"""What built-in models of the shapes world share, whatever their method."""

from zoo import hookimpl
from zoo.hookspecs import RegisterArchitecture


@hookimpl
def register_architectures(register: RegisterArchitecture) -> None:
    register(
        "shapes-words",
        "zoo.shapes.words:WordEncoder",
        config="zoo.shapes.words:WordsConfig",
        summary="captions of the shapes world word by word, without learned parts",
        offers=("text-encoder",),
    )
