"""What the command line tells of a memory plan."""

from __future__ import annotations

import pytest
from planned_parts import machine, session_of
from safetensors.torch import save_file
from toy_method import tensors

from zoo.errors import DoesNotFit
from zoo.io.request import Request
from zoo.session import Session
from zoo_cli.memory_report import tell_plan
from zoo_cli.output import Output

GIVEN = {"device": None, "dtype": None, "weights": None}


def told(capsys, session, request, out, **given) -> list[str]:
    tell_plan(session, "planned:one", [request], out, {**GIVEN, **given})
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.fixture(autouse=True)
def no_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_plan_has_a_line_for_each_stage(tmp_path, monkeypatch, capsys):
    machine(monkeypatch, cuda0=24)
    session = session_of(tmp_path)
    assert told(capsys, session, Request(), Output()) == [
        "memory on cuda: about 12.8 GiB at most, free 24.0 GiB",
        "  while it runs 8.6 GiB: model 7.6 GiB in bfloat16, working memory 1.0 GiB",
        "  behind it 12.8 GiB: model 7.6 GiB in bfloat16, tokenizer 5.0 GiB in float32, "
        "working memory 256.0 MiB",
    ]
    machine(monkeypatch, cuda0=16)
    again = told(capsys, session, Request(num=8, options={"decoder": "none"}), Output())
    assert again == [
        "memory on cuda: about 11.6 GiB at most (weights 7.6 GiB, working memory 4.0 GiB), free 16.0 GiB; "
        "4 samples at once"
    ]


def test_what_is_made_for_each_batch_and_what_goes_is_told(tmp_path, monkeypatch, capsys):
    machine(monkeypatch, cuda0=20)
    reader = {"architecture": "reader", "config": {"numbers": 2**30}}
    session = session_of(tmp_path, model={"working": 8 * 2**30}, reader=reader)
    lines = told(capsys, session, Request(num=2), Output())
    assert lines[0].endswith("; 1 sample at once")
    assert lines[1].startswith("  before the model runs 9.6 GiB: ")
    assert "reader 2.0 GiB in bfloat16 (gone before the model runs)" in lines[1]
    assert "reader" not in lines[2]
    assert "tokenizer 5.0 GiB in float32 (made anew for each batch)" in lines[3]


def test_what_the_system_may_drop_is_told(tmp_path, monkeypatch, capsys):
    from zoo.runtime import components, memory_plan

    machine(monkeypatch, cpu=64)
    # As if the model's file were float32, like everything that is run.
    for module in (components, memory_plan):
        monkeypatch.setattr(module, "mapped_in", lambda files, device, dtype: 10**12)
    lines = told(capsys, session_of(tmp_path), Request(), Output())
    assert lines[-1].endswith("working memory 256.0 MiB; of it 15.2 GiB only as long as there is room")


def test_small_models_are_told_of_in_detail_only(toy, capsys, monkeypatch):
    # However much this process holds already.
    monkeypatch.setattr("zoo.runtime.memory.process_bytes", lambda: 2**31)
    for verbose, count in [(False, 0), (True, 1)]:
        need = tell_plan(Session(), "toy", [Request()], Output(verbose=verbose), {**GIVEN, "device": "cpu"})
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == count and need.weights == 88
    assert lines[0].startswith("memory on cpu: about ")
    assert "(weights 88 B, working memory 1.0 MiB)" in lines[0]


def test_the_configured_number_format_is_planned_with(toy, zoo):
    assert zoo("config", "set", "dtype", "bfloat16").code == 0
    for given, expected in [(None, "bfloat16"), ("float32", "float32")]:
        assert tell_plan(Session(), "toy", [Request()], Output(), {**GIVEN, "dtype": given}).dtype == expected


def test_a_file_of_ones_own_is_planned_with(toy, capsys, tmp_path):
    own = tmp_path / "own.safetensors"
    save_file({name: tensor.double() for name, tensor in tensors().items()}, own)
    need = tell_plan(Session(), "toy", [Request()], Output(), {**GIVEN, "device": "cpu", "weights": str(own)})
    assert (need.weights, need.mapped) == (88, 0)


def test_small_components_are_told_together(tmp_path, monkeypatch, capsys):
    machine(monkeypatch, cuda0=24)
    session = session_of(tmp_path, third={"architecture": "sized", "config": {"numbers": 2**20}})
    assert "other components 2.0 MiB" in told(capsys, session, Request(), Output())[1]
    assert "third 2.0 MiB in bfloat16" in told(capsys, session, Request(), Output(verbose=True))[1]


def test_a_plan_that_does_not_fit_tells_nothing_else(tmp_path, monkeypatch, capsys):
    machine(monkeypatch, cuda0=4, cpu=4)
    with pytest.raises(DoesNotFit):
        told(capsys, session_of(tmp_path), Request(), Output())
    assert capsys.readouterr().err == ""
