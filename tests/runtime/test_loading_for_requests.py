"""Loading for a request: what it takes is checked before anything is read, with the options that it has."""

from __future__ import annotations

import pytest
import torch
from planned_parts import session_of

from zoo.errors import DoesNotFit, InvalidInput
from zoo.io.request import Request
from zoo.runtime import memory
from zoo.runtime.model import load

#: Bytes in float32: 4000 of the model, 2000 of the tokenizer, 1200 of the decoder.
SIZES = {
    "model": {"numbers": 1000, "working": 100},
    "tokenizer": {"config": {"numbers": 500, "working": 40}},
    "decoder": {"config": {"numbers": 300, "working": 60}},
}


@pytest.fixture
def session(tmp_path, monkeypatch):
    """Weights that are converted, so that they hold memory, of which four fifths may be planned with."""
    files = dict.fromkeys(SIZES, torch.bfloat16)
    made = session_of(tmp_path, files, **{role: dict(entry) for role, entry in SIZES.items()})
    monkeypatch.setattr(memory, "available_memory", lambda device: 8000)
    return made


def opened(session, **given):
    return load("planned:one", device="cpu", dtype="float32", session=session, **given)


def decoding(name: str) -> Request:
    return Request(options={"decoder": name})


def test_the_components_that_a_request_uses_have_to_fit(session, monkeypatch):
    assert opened(session, request=decoding("pixel")).memory_need(Request()).fits
    assert opened(session, request=decoding("none")).memory_need(decoding("none")).parts[1:] == ()
    with pytest.raises(DoesNotFit, match=r"behind its model .*decoder 1\.2 KiB"):
        opened(session, request=decoding("diffusion"))
    monkeypatch.setattr(memory, "available_memory", lambda device: 6000)
    opened(session, request=decoding("none"))
    with pytest.raises(DoesNotFit, match=r"planned:one needs 5\.9 KiB"):
        opened(session, request=decoding("pixel"))


def test_without_a_request_the_weights_of_all_requests_have_to_fit_each_alone(session, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 5000)
    assert opened(session).memory_need(decoding("none")).fits
    monkeypatch.setattr(memory, "available_memory", lambda device: 4900)
    with pytest.raises(DoesNotFit, match="planned:one needs"):
        opened(session)


def test_a_model_that_is_there_refuses_a_request_that_does_not_fit_beside_it(session, monkeypatch):
    loaded = opened(session, request=decoding("none"))
    # What is free of the 8000 bytes when the model is there.
    monkeypatch.setattr(memory, "available_memory", lambda device: 4000)
    assert loaded.batch_size(decoding("none")) == 1
    with pytest.raises(DoesNotFit, match="decoder"):
        list(loaded.sample(decoding("diffusion")))


def test_a_request_brings_its_own_sampler(session):
    with pytest.raises(InvalidInput, match="has no task 'edit'"):
        opened(session, request=Request(task="edit"))
    with pytest.raises(InvalidInput, match="has no option 'decodr'"):
        opened(session, request=Request(options={"decodr": "pixel"}))
