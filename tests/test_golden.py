"""Numeric truth: every golden case through the registered code, every manifest at full size.

`--golden DIR` runs the cases below another folder in the same format instead of tests/golden.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_adapters import ADAPTERS, MANIFEST_CONVERTERS, MANIFEST_MODELS, NAMES, GoldenCase, golden_case

from zoo.cards import Card, Variant
from zoo.registry import resolve
from zoo.runtime.loading import build_meta, check_tensors, parameter_count
from zoo.session import Session

HERE = Path(__file__).parent / "golden"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    root = Path(metafunc.config.getoption("--golden") or HERE)
    folders = sorted(path.parent for path in root.rglob("case.json"))
    if not folders:
        raise pytest.UsageError(f"--golden {root}: no case.json anywhere in this folder")
    if "layout" in metafunc.fixturenames:
        pairs = [(folder, layout) for folder in folders for layout in layouts_of(folder)]
        names = [f"{_identity(folder, root)}-{layout}" for folder, layout in pairs]
        metafunc.parametrize(("case_folder", "layout"), pairs, ids=names)
    elif "case_folder" in metafunc.fixturenames:
        metafunc.parametrize("case_folder", folders, ids=[_identity(folder, root) for folder in folders])
    if "manifest_path" in metafunc.fixturenames:
        paths = sorted(path for path in root.rglob("manifests/*.json"))
        metafunc.parametrize("manifest_path", paths, ids=[_identity(path, root) for path in paths])


def _identity(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path != root else path.name


def layouts_of(folder: Path) -> Sequence[str]:
    """The layouts of the weights among which the sampler of a case's method can choose."""
    return getattr(ADAPTERS.get(GoldenCase(folder).facts["method"]), "layouts", ())


@pytest.fixture(scope="module")
def session() -> Session:
    return Session()


def check_case(case: GoldenCase, session: Session, **options: Any) -> list[str]:
    """Every output that the case expects, compared; a list of what differs or was not computed."""
    method = case.facts["method"]
    if method not in ADAPTERS:
        pytest.skip(f"method {method} is not supported yet")
    computed = dict(ADAPTERS[method](case, session, **options)())
    problems = []
    for name in case.outputs:
        if name.startswith("quirk_"):
            continue
        if name not in computed:
            problems.append(f"{name}: not computed")
            continue
        expected, atol, rtol = case.expected(name)
        actual = computed[name].to(expected.dtype)
        if actual.shape != expected.shape:
            problems.append(f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
        elif not torch.allclose(actual, expected, atol=atol, rtol=rtol):
            problems.append(f"{name}: differs by {(actual - expected).abs().max():.3g}, allowed {atol:.3g}")
    return problems


def test_case_agrees_with_the_authors_code(case_folder: Path, session: Session) -> None:
    problems = check_case(golden_case(case_folder), session)
    assert not problems, "\n".join(problems)


def test_case_agrees_in_every_layout_of_the_weights(case_folder: Path, session: Session, layout: str) -> None:
    problems = check_case(golden_case(case_folder), session, layout=layout)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "folder",
    sorted(path.parent for path in HERE.rglob("case.json")),
    ids=lambda folder: f"{folder.parent.name}-{folder.name}",
)
def test_a_corrupted_value_is_noticed(folder: Path, session: Session) -> None:
    case = golden_case(folder)
    name = next(iter(case.outputs))
    tensor, atol, _ = case.expected(name)
    value = tensor.view(-1)[-1].clone()
    more = 4 * atol + 1e-4 * value.abs() if tensor.is_floating_point() else 1
    tensor.view(-1)[-1] = value + more
    problems = check_case(case, session)
    assert len(problems) == 1 and problems[0].startswith(name), problems


def test_checkpoint_fits_the_architecture(manifest_path: Path, session: Session) -> None:
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    method = method_of(manifest_path, manifest)
    if method not in MANIFEST_MODELS or "tensors" not in manifest:
        pytest.skip(f"{manifest_path.name}: method {method} is not supported yet, or no tensors are listed")
    card = session.catalogue.cards[method]
    session.use(card)
    architecture, authors_config = MANIFEST_MODELS[method](manifest)
    converter = session.converter(MANIFEST_CONVERTERS[architecture], manifest_path.name)
    tensors = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, (shape, dtype) in manifest["tensors"].items()
    }
    for config in [v.config for v in variants_like(session, card, manifest)] or [authors_config]:
        module = build_meta(session.registry.architectures.find(architecture), config)
        ours = resolve(converter.convert, converter.owner)(tensors, config)
        check_tensors(module, ours, manifest_path.name)
        assert parameter_count(module) == manifest["total_params"]
        theirs = resolve(converter.export, converter.owner)(ours, config)
        shapes = {name: list(tensor.shape) for name, tensor in theirs.items()}
        assert shapes == {name: shape for name, (shape, _) in manifest["tensors"].items()}


def variants_like(session: Session, card: Card, manifest: dict[str, Any]) -> list[Variant]:
    """Variants of a card with the configuration of a manifest."""
    architecture, config = MANIFEST_MODELS[card.method](manifest)
    entry = session.registry.architectures.find(architecture)
    kind = resolve(entry.config, entry.owner)
    wanted = kind(**config)
    candidates = [variant for variant in card.variants.values() if variant.architecture == architecture]
    return [variant for variant in candidates if kind(**variant.config) == wanted]


def method_of(path: Path, manifest: dict[str, Any]) -> str:
    """The method of a manifest, which else is the name of the folder that holds it."""
    method = manifest.get("method", path.parent.parent.name)
    return NAMES.get(method, method)


@pytest.mark.parametrize("path", sorted(HERE.rglob("manifests/*.json")), ids=lambda path: path.stem)
def test_every_manifest_has_a_card(path: Path, session: Session) -> None:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    card = session.catalogue.cards[method_of(path, manifest)]
    session.use(card)
    variants = variants_like(session, card, manifest)
    assert variants
    assert {variant.params for variant in variants} == {manifest["total_params"]}


def test_parameter_counts_of_all_cards(session: Session) -> None:
    counted = 0
    for card in session.catalogue.cards.values():
        for variant in card.variants.values():
            if variant.params is not None:
                module = build_meta(session.architecture(card, variant), variant.config)
                assert parameter_count(module) == variant.params, f"{card.method}:{variant.name}"
                counted += 1
    assert counted


def test_published_files_have_a_manifest(session: Session) -> None:
    """A card may promise a checkpoint's parameter count only where the authors' own key list proves it."""
    known: dict[str, list[int]] = {}
    for path in HERE.rglob("manifests/*.json"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known.setdefault(method_of(path, manifest), []).append(manifest["total_params"])
    for card in session.catalogue.cards.values():
        if card.code is None:
            continue  # Nobody published an implementation: there is no list of the authors'.
        for variant in card.variants.values():
            if variant.params is not None and variant.recipe is None:
                assert variant.params in known.get(card.method, []), f"{card.method}:{variant.name}"
