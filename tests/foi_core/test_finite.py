"""Numbers that are not finite: computed again in float32, or an error that says so; never a result."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from foi_core import EditSpec, ModelFailure, SubInstruction, attention
from foi_core.batching import BatchingEngine, Capacity
from foi_core.engine import Engine
from foi_core.model import Model
from foi_core.result import EditResult
from foi_core.safety import SafetyChecker
from foi_core.spec import Method
from tests.foi_core.test_safety import ALWAYS, RED, add_safety_checker, checker_of, to_picture
from tests.support import picture
from tests.tiny_model import build_tiny_model

PART = SubInstruction("make the ball black", keyword="ball")
OVERFLOWS = 6e4
Edit = Callable[[Engine, Method], EditResult]


def spec(method: Method = "foi") -> EditSpec:
    return EditSpec((PART,), method=method, num_inference_steps=2, seed=1)


def alone(engine: Engine, method: Method) -> EditResult:
    return engine.edit(picture(64, 64), spec(method))


def batched(engine: Engine, method: Method) -> EditResult:
    batching = BatchingEngine(engine, Capacity(2, 10**6))
    try:
        return batching.submit(picture(64, 64), spec(method)).result.result(60).drawn(picture(64, 64))
    finally:
        batching.close()


either_way = pytest.mark.parametrize("edit", [alone, batched])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_tiny_model(tmp_path_factory.mktemp("tiny")))


@torch.inference_mode()
def poison(module: nn.Module | nn.Parameter) -> None:
    for parameter in module.parameters() if isinstance(module, nn.Module) else [module]:
        parameter.fill_(float("nan"))


@torch.inference_mode()
def stretch(norm: nn.Module, conv: nn.Module) -> None:
    """What lies between is too large for half precision, and what comes out is not."""
    norm.weight.mul_(OVERFLOWS)  # type: ignore[operator]
    norm.bias.mul_(OVERFLOWS)  # type: ignore[operator]
    conv.weight.div_(OVERFLOWS)  # type: ignore[operator]


@torch.inference_mode()
def safety_embedding(safety: SafetyChecker, pixels: Tensor) -> Tensor:
    network = safety._network
    seen = safety._processor(images=[to_picture(pixels)], return_tensors="pt").pixel_values
    found: Tensor = network.visual_projection(network.vision_model(seen.to(network.dtype))[1])
    return found


NETWORKS: dict[str, tuple[Callable[[Model], nn.Module], str]] = {
    "decoder": (lambda model: model.vae.decoder.conv_out, "decoding"),
    "encoder": (lambda model: model.vae.encoder.conv_out, "encoding"),
    "text encoder": (lambda model: model.text_encoder, "text encoder"),
}


@either_way
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_gives_no_numbers_is_an_error_that_names_it(folder: str, name: str, edit: Edit) -> None:
    engine = Engine.load(folder, "cpu")
    network, told = NETWORKS[name]
    poison(network(engine._model))
    with pytest.raises(ModelFailure, match=f"{told}.*not finite, in float32 too"):
        edit(engine, "foi")


@either_way
@pytest.mark.parametrize("name", ["encoder", "text encoder"])
def test_looking_for_masks_fails_likewise_and_needs_no_decoder(folder: str, name: str, edit: Edit) -> None:
    engine = Engine.load(folder, "cpu")
    poison(NETWORKS["decoder"][0](engine._model))
    assert edit(engine, "masks").masks
    poison(NETWORKS[name][0](engine._model))
    with pytest.raises(ModelFailure):
        edit(engine, "masks")


@either_way
@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_a_vae_that_overflows_in_half_precision_works_in_float32(folder: str, part: str, edit: Edit) -> None:
    whole, half = Engine.load(folder, "cpu", "float16"), Engine.load(folder, "cpu", "float16")
    network = getattr(half._model.vae, part)
    stretch(network.conv_norm_out, network.conv_out)
    whole._model.vae = deepcopy(half._model.vae).float()
    expected, found = edit(whole, "ip2p"), edit(half, "ip2p")
    difference = np.abs(np.asarray(expected.image, int) - np.asarray(found.image, int))
    assert difference.mean() < 2
    assert len(set(found.image.get_flattened_data())) > 100
    assert next(half._model.vae.parameters()).dtype == torch.float16


@torch.inference_mode()
def test_a_text_encoder_that_overflows_in_half_precision_works_in_float32(folder: str) -> None:
    model = Engine.load(folder, "cpu", "float16")._model
    layer = model.text_encoder.encoder.layers[-1]
    stretch(layer.layer_norm2, layer.mlp.fc1)
    ids = tuple(model.tokenizer("make the ball red").input_ids)
    assert not torch.isfinite(model.text_encoder(torch.tensor([ids])).last_hidden_state).all()
    states = deepcopy(model.text_encoder).float()(torch.tensor([ids])).last_hidden_state
    assert torch.equal(model.encode_text(ids), model.unet.text(states.half()))


@either_way
@pytest.mark.parametrize("method", ["foi", "masks"])
def test_attention_that_is_not_finite_is_an_error_and_not_an_empty_mask(
    folder: str, method: Method, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(folder, "cpu")
    scores = attention.scores
    monkeypatch.setattr(attention, "scores", lambda queries, keys: scores(queries, keys) * float("nan"))
    with pytest.raises(ModelFailure, match="attention"):
        edit(engine, method)


@either_way
@pytest.mark.parametrize("policy", ["block", "report"])
def test_a_safety_checker_that_cannot_tell_lets_nothing_through(tmp_path: Path, policy: str, edit: Edit) -> None:
    folder = build_tiny_model(tmp_path)
    add_safety_checker(folder, 0.999, like=RED)
    engine = Engine.load(str(folder), "cpu", safety_checker=policy)  # type: ignore[arg-type]
    assert engine._model.safety is not None
    poison(engine._model.safety._network.visual_projection)
    with pytest.raises(ModelFailure, match="safety checker"):
        edit(engine, "foi")


@pytest.mark.parametrize("part", ["concept_embeds", "special_care_embeds", "concept_embeds_weights"])
def test_a_safety_checker_whose_concepts_are_damaged_lets_nothing_through(tmp_path: Path, part: str) -> None:
    safety = checker_of(add_safety_checker(build_tiny_model(tmp_path), ALWAYS))
    poison(getattr(safety._network, part))
    with pytest.raises(ModelFailure, match="safety checker"):
        safety.flags(RED)


def test_an_embedding_that_is_too_long_for_half_precision_is_compared_in_float32(tmp_path: Path) -> None:
    """Its numbers are finite, its length is not: divided by that it would be like no concept."""
    safety = checker_of(add_safety_checker(build_tiny_model(tmp_path), 0.9, like=RED), "float16")
    with torch.inference_mode():
        weight = safety._network.visual_projection.weight
        weight.mul_(OVERFLOWS / safety_embedding(safety, RED).abs().max())
    embedding = safety_embedding(safety, RED)
    assert torch.isfinite(embedding).all()
    assert not torch.isfinite(embedding.norm())
    assert safety.flags(RED)


def test_a_preview_of_latents_that_are_not_finite_is_left_out(folder: str) -> None:
    engine = Engine.load(folder, "cpu")
    state = engine.admit(Image.new("RGB", (64, 64), "red"), spec())
    engine.step([state])
    assert engine.preview(state) is not None
    assert state.clean is not None
    with torch.inference_mode():
        state.clean[0, 0, 0, 0] = float("inf")
    assert engine.preview(state) is None


def test_a_round_trip_of_a_broken_vae_is_an_error(folder: str) -> None:
    engine = Engine.load(folder, "cpu")
    poison(engine._model.vae.decoder.conv_out)
    with pytest.raises(ModelFailure):
        engine.round_trip(picture(64, 64))
