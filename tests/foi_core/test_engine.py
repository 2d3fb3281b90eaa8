"""What an edit promises, on a tiny random model: real networks, so everything but beauty is tested."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foi_core import (
    EditCanceled,
    EditSpec,
    InvalidParameter,
    ModelFailure,
    SubInstruction,
    UnsupportedCheckpoint,
    attention,
    guidance,
    regions,
)
from foi_core.engine import Engine
from foi_core.heartbeat import Heartbeat
from foi_core.mask_sources import KeywordAttention, Seen
from foi_core.recipe import RECIPES, Recipe
from foi_core.result import EditResult, Progress
from foi_core.spec import PRESETS
from foi_core.state import Found
from tests.tiny_model import build_tiny_model

TWO = (
    SubInstruction("make the ball black", keyword="ball"),
    SubInstruction("turn the grass into sand", keyword="grass"),
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.load(str(build_tiny_model(tmp_path_factory.mktemp("tiny"))), "cpu")


def picture(width: int = 96, height: int = 80) -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def left_half(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def edit(
    engine: Engine, image: Image.Image, instructions: tuple[SubInstruction, ...] = TWO, **settings: object
) -> EditResult:
    given = {"num_inference_steps": 4, "seed": 1, **settings}
    return engine.edit(image, EditSpec(instructions, **given))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(64, 64), (96, 80), (50, 150), (301, 97)])
def test_result_and_masks_have_the_inputs_size_whatever_it_is(engine: Engine, size: tuple[int, int]) -> None:
    result = edit(engine, picture(*size))
    assert result.image.size == size
    assert [mask.size for mask in result.masks] == [size, size]
    assert len(result.attention_maps) == len(result.keywords) == 2


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_any_mode_are_edited(engine: Engine, mode: str) -> None:
    assert edit(engine, picture().convert(mode)).image.mode == "RGB"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(engine: Engine) -> None:
    first, again, other = (edit(engine, picture(), seed=seed) for seed in (5, 5, 6))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.threshold == again.threshold
    assert first.image.tobytes() != other.image.tobytes()


def test_an_edit_without_a_seed_tells_the_one_it_drew(engine: Engine) -> None:
    drawn = edit(engine, picture(), seed=None)
    assert drawn.image.tobytes() == edit(engine, picture(), seed=drawn.seed).image.tobytes()


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_outside_the_masks_not_one_byte_changes(engine: Engine, preset: str) -> None:
    image = picture()
    result = edit(engine, image, preset=preset, threshold=0.55)
    outside = np.maximum(*(np.asarray(mask) for mask in result.masks)) == 0
    assert 0 < outside.mean() < 1
    assert (np.asarray(result.image)[outside] == np.asarray(image)[outside]).all()
    free = edit(engine, image, preset=preset, threshold=0.55, preserve_outside_mask=False)
    assert (np.asarray(free.image)[outside] != np.asarray(image)[outside]).any()


def test_a_callers_mask_is_used_as_it_is(engine: Engine) -> None:
    image, mask = picture(), left_half((96, 80))
    result = edit(engine, image, (SubInstruction("make the ball black", mask=mask),))
    assert result.masks[0].tobytes() == mask.tobytes()
    assert result.attention_maps == (None,)
    right = np.asarray(result.image)[:, 48:]
    assert (right == np.asarray(image)[:, 48:]).all()


def test_found_masks_sent_back_give_the_same_picture(engine: Engine) -> None:
    image = picture(64, 64)
    found = edit(engine, image)
    back = tuple(SubInstruction(p.text, p.keyword, mask=mask) for p, mask in zip(TWO, found.masks, strict=True))
    assert edit(engine, image, back).image.tobytes() == found.image.tobytes()


def test_a_mask_of_another_size_is_refused_by_name(engine: Engine) -> None:
    with pytest.raises(InvalidParameter) as caught:
        edit(engine, picture(), (TWO[0], SubInstruction("add a sun", mask=Image.new("L", (10, 10)))))
    assert caught.value.field == "instructions[1].mask"


def test_intensity_of_one_instruction_changes_the_picture(engine: Engine) -> None:
    given = {"num_inference_steps": 8, "guidance_scale": 50.0, "preserve_outside_mask": False}
    results = [
        edit(
            engine,
            picture(),
            (SubInstruction("make the ball black", mask=left_half((96, 80)), intensity=alpha),),
            **given,
        )
        for alpha in (1.0, 100.0)
    ]
    assert results[0].image.tobytes() != results[1].image.tobytes()


def phases(engine: Engine, steps: int, **switches: float) -> tuple[list[int], list[int], list[int]]:
    """The steps of a run that take masks, are modulated, and are disentangled."""
    spec = EditSpec(TWO, num_inference_steps=steps, seed=1, **switches)  # type: ignore[arg-type]
    state = engine.admit(picture(), spec)
    one = regions.Regions((regions.Region(torch.ones(16, 16)),), torch.tensor([0]), torch.tensor([1.0]))
    taken, modulated, disentangled = [], [], []
    for step in range(state.steps):
        state.step = step
        role = state.role
        if role.in_focus:
            modulated.append(step)
        if role.takes_masks:
            taken.append(step)
            state.found = Found(one, (), ())
        if role.disentangled:
            disentangled.append(step)
    return taken, modulated, disentangled


def test_a_run_of_the_papers_length_takes_masks_first_modulates_all_the_rest_and_disentangles_three_quarters(
    engine: Engine,
) -> None:
    assert phases(engine, 100) == ([0], list(range(1, 80)), list(range(60)))


@pytest.mark.parametrize(
    ("switch", "taken", "modulated", "disentangled"),
    [
        ({"mask_at": 0.25}, [20], range(21, 80), range(20, 60)),
        ({"mask_at": 0.99}, [79], range(0), range(0)),
        ({"mask_at": 1.0, "disentangle_end": 1.0}, [79], range(0), range(79, 80)),
        ({"modulation_end": 0.0}, [0], range(0), range(60)),
        ({"modulation_end": 0.5}, [0], range(1, 40), range(60)),
        ({"disentangle_end": 0.0}, [0], range(1, 80), range(0)),
        ({"disentangle_end": 1.0}, [0], range(1, 80), range(80)),
    ],
)
def test_every_switch_of_the_papers_tables_is_a_share_of_the_run(
    engine: Engine, switch: dict[str, float], taken: list[int], modulated: range, disentangled: range
) -> None:
    assert phases(engine, 100, **switch) == (taken, list(modulated), list(disentangled))


def test_the_threshold_is_drawn_from_its_range_by_the_seed_and_a_number_is_itself(engine: Engine) -> None:
    drawn = [engine.admit(picture(), EditSpec(TWO, threshold=(0.4, 0.7), seed=seed)).threshold for seed in range(20)]
    assert all(0.4 <= tau <= 0.7 for tau in drawn)
    assert len(set(drawn)) == 20
    assert engine.admit(picture(), EditSpec(TWO, threshold=0.3, seed=1)).threshold == 0.3


def test_the_papers_preset_is_the_faithful_reading_part_by_part() -> None:
    paper = RECIPES["paper"]
    assert paper.mask_source == KeywordAttention(gamma=3)
    assert paper.attention is attention.cross_condition_modulation
    assert paper.outside is None
    assert not paper.apart


def test_each_preset_finds_its_own_masks_and_tells_the_numbers_that_it_used(engine: Engine) -> None:
    paper, default = (edit(engine, picture(), preset=preset) for preset in ("paper", "default"))
    assert 0.4 <= paper.threshold <= 0.7
    assert (paper.spec.threshold, default.spec.threshold) == ((0.4, 0.7), PRESETS["default"].threshold)
    assert paper.spec.disentangle_end == default.spec.disentangle_end == 0.75
    assert paper.masks[0].tobytes() != default.masks[0].tobytes()


class Remembering:
    """The paper's mask source; keeps the attention that it is shown."""

    def __init__(self) -> None:
        self.shown: list[torch.Tensor] = []

    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> torch.Tensor:
        self.shown.append(seen.attention)
        return KeywordAttention().soft_map(seen, tokens)

    def region(self, soft: torch.Tensor, threshold: float, image: Image.Image) -> regions.Region:
        return KeywordAttention().region(soft, threshold, image)


@torch.inference_mode()
def test_sub_instructions_apart_are_seen_as_if_each_were_the_whole_instruction(engine: Engine) -> None:
    together, single = Remembering(), Remembering()
    state = engine.admit(picture(), EditSpec(TWO, num_inference_steps=4, seed=1), Recipe(together, apart=True))
    engine.step([state])
    engine.step([state])
    assert state.unet_rows == (3 + 2) + 3  # two more at the mask step alone
    for part in TWO:
        engine.step([engine.admit(picture(), EditSpec((part,), num_inference_steps=4, seed=1), Recipe(single))])
    for a, b in zip(together.shown, single.shown, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_led_to_the_picture_outside_the_latents_there_are_the_pictures_own(engine: Engine) -> None:
    spec = EditSpec((SubInstruction("make the ball black", mask=left_half((64, 64))),), num_inference_steps=3, seed=1)
    state = engine.admit(picture(64, 64), spec, Recipe(outside=guidance.source_outside))
    while state.step < state.steps:
        engine.step([state])
    source = state.image_latents * engine._model.vae.config.scaling_factor
    half = state.latents.shape[-1] // 2
    assert torch.allclose(state.latents[..., half:], source[..., half:], atol=1e-5)
    assert not torch.allclose(state.latents[..., :half], source[..., :half], atol=1e-2)


@torch.inference_mode()
def test_edits_at_different_steps_in_one_batch_are_the_same_as_alone(engine: Engine) -> None:
    specs = [
        EditSpec(TWO, num_inference_steps=6, seed=1),
        EditSpec((SubInstruction("add a sun"),), num_inference_steps=4, guidance_scale=3.0, seed=2),
        EditSpec(TWO[:1], method="ip2p", num_inference_steps=5, seed=3),
    ]
    alone = []
    for spec in specs:
        state = engine.admit(picture(), spec)
        while state.step < state.steps:
            engine.step([state])
        alone.append(state.latents)

    waiting, flying, done = [engine.admit(picture(), spec) for spec in specs], [], []
    while waiting or flying:
        flying += [waiting.pop(0)] if waiting else []  # one more joins at every step
        engine.step(flying)
        done += [state for state in flying if state.step == state.steps]
        flying = [state for state in flying if state.step < state.steps]
    together = {state.spec.seed: state.latents for state in done}
    for spec, latents in zip(specs, alone, strict=True):
        assert (together[spec.seed] - latents).abs().max() < 1e-5 * latents.abs().max()


def test_plain_instruct_pix2pix_has_no_regions(engine: Engine) -> None:
    result = edit(engine, picture(), method="ip2p")
    assert result.masks == result.attention_maps == result.keywords == ()


def test_one_to_eight_sub_instructions_each_get_a_region(engine: Engine) -> None:
    parts = tuple(SubInstruction(f"make the {thing} red") for thing in ("ball", "box", "star", "sky") * 2)
    for count in (1, 8):
        assert len(edit(engine, picture(), parts[:count], num_inference_steps=2).masks) == count


def test_keywords_tell_their_words_tokens_and_source(engine: Engine) -> None:
    parts = (TWO[0], SubInstruction("turn the grass into sand"), SubInstruction("make it look like winter"))
    given, ruled, attended = edit(engine, picture(), parts).keywords
    assert given is not None
    assert ruled is not None
    assert attended is not None
    assert (given.text, given.source) == ("ball", "given")
    assert (ruled.text, ruled.source) == ("grass", "rule")
    assert attended.text in parts[2].text
    assert all(k.token_indices for k in (given, ruled, attended))


def codes(result: EditResult) -> list[tuple[str, int | None]]:
    return [(w.code, w.instruction) for w in result.warnings]


def test_an_empty_mask_changes_nothing_and_says_so(engine: Engine) -> None:
    image = picture()
    result = edit(engine, image, (SubInstruction("make the ball red", mask=Image.new("L", image.size)),))
    assert result.image.tobytes() == image.tobytes()
    assert ("mask-empty", 0) in codes(result)
    assert "White" in result.warnings[0].message


def test_a_full_mask_protects_nothing_and_says_so(engine: Engine) -> None:
    image = picture()
    result = edit(engine, image, (SubInstruction("make the ball red", mask=Image.new("L", image.size, 255)),))
    assert ("mask-full", 0) in codes(result)


def test_text_past_the_token_limit_is_told_with_what_to_try(engine: Engine) -> None:
    parts = (*TWO, SubInstruction("please " * 70 + "add a sun", keyword="sun"))
    result = edit(engine, picture(), parts)
    assert ("text-cut", None) in codes(result)
    assert ("mask-empty", 2) in codes(result)
    assert {w.code: w.message for w in result.warnings}["text-cut"].endswith("Shorten it, or make two edits.")


def test_progress_counts_every_step_and_names_the_stage(engine: Engine) -> None:
    told: list[Progress] = []
    engine.edit(picture(), EditSpec(TWO, num_inference_steps=5, seed=1), told.append)
    assert [(p.step, p.stage) for p in told] == [(0, "encode"), *((i, "denoise") for i in range(1, 5)), (4, "decode")]


def test_a_caller_can_stop_an_edit_and_the_next_one_is_untouched(engine: Engine) -> None:
    before = edit(engine, picture()).image.tobytes()

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise EditCanceled("stopped")

    with pytest.raises(EditCanceled):
        engine.edit(picture(), EditSpec(TWO, num_inference_steps=4, seed=1), stop)
    assert edit(engine, picture()).image.tobytes() == before


def test_half_precision_finds_nearly_the_same_regions_and_follows_full_precision(tmp_path: Path) -> None:
    folder = str(build_tiny_model(tmp_path))
    given = {"guidance_scale": 2.0, "image_guidance_scale": 1.0, "num_inference_steps": 5}
    full, half = (edit(Engine.load(folder, "cpu", d), picture(64, 64), **given) for d in ("float32", "bfloat16"))
    for a, b in zip(full.masks, half.masks, strict=True):
        assert np.mean(np.asarray(a) != np.asarray(b)) < 0.05
    assert np.abs(np.asarray(full.image, int) - np.asarray(half.image, int)).mean() < 6


@pytest.mark.parametrize("size", [(15, 64), (900, 100)])
def test_a_picture_too_small_or_too_narrow_is_refused_by_name(engine: Engine, size: tuple[int, int]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        edit(engine, picture(*size))
    assert caught.value.field == "image"


def test_numbers_that_overflow_are_an_error_and_not_a_black_picture(tmp_path: Path) -> None:
    engine = Engine.load(str(build_tiny_model(tmp_path)), "cpu")
    with torch.inference_mode():
        engine._model.unet.source.conv_out.bias.fill_(float("nan"))
    with pytest.raises(ModelFailure, match="float32"):
        edit(engine, picture())


def test_a_checkpoints_own_defaults_are_used_and_bad_ones_are_refused_when_it_is_loaded(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path)
    (folder / "foi.json").write_text('{"num_inference_steps": 3, "threshold": [0.2, 0.3]}')
    spec = Engine.load(str(folder), "cpu").edit(picture(64, 64), EditSpec(TWO, seed=1)).spec
    assert (spec.num_inference_steps, spec.threshold, spec.guidance_scale) == (3, (0.2, 0.3), 7.5)
    for bad in ('{"steps": 3}', '{"threshold": 7}', "[]", "{"):
        (folder / "foi.json").write_text(bad)
        with pytest.raises(UnsupportedCheckpoint, match=r"foi\.json"):
            Engine.load(str(folder), "cpu")


def test_a_text_to_image_checkpoint_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="4 channels, not 8"):
        Engine.load(str(build_tiny_model(tmp_path, unet_channels=4)), "cpu")


def test_a_folder_without_a_model_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="diffusers' layout"):
        Engine.load(str(tmp_path), "cpu")


@pytest.mark.parametrize(
    ("field", "arguments"), [("device", ("tpu",)), ("device", ("cuda:99",)), ("dtype", ("cpu", "int8"))]
)
def test_a_device_or_precision_that_is_not_there_is_refused_by_name(field: str, arguments: tuple[str, ...]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        Engine.load("demo", *arguments)
    assert caught.value.field == field


def test_the_engine_works_on_no_picture_of_the_callers_size(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done at the caller's size is done before and after, where no other edit waits for it."""
    image, mask = picture(1200, 900), left_half((1200, 900))
    parts = (TWO[0], SubInstruction("turn the grass into sand", mask=mask))
    small, prepared = engine.prepare(image, EditSpec(parts, num_inference_steps=3, seed=1))
    assert (image.size, mask.size) == ((1200, 900), (1200, 900)), "the caller's own are left alone"
    seen: list[tuple[int, int]] = []
    new = Image.Image._new
    monkeypatch.setattr(Image.Image, "_new", lambda self, core: seen.extend([self.size, core.size]) or new(self, core))
    state = engine.admit(small, prepared)
    while state.step < state.steps:
        engine.step([state])
    decoded = engine.decode(state)
    assert seen
    assert max(w * h for w, h in seen) <= 256 * 192, "that of the guided filter's picture, on this model"
    result = decoded.drawn(image, [None, mask])
    assert [one.size for one in (result.image, *result.masks)] == [(1200, 900)] * 3
    assert result.masks[1].tobytes() == mask.tobytes()
    assert result.spec.instructions[1].mask is mask


def test_prepared_and_drawn_apart_an_edit_is_the_same(engine: Engine) -> None:
    image, mask = picture(301, 297), left_half((301, 297))
    parts = (TWO[0], SubInstruction("turn the grass into sand", mask=mask))
    spec = EditSpec(parts, num_inference_steps=3, seed=1)
    state = engine.admit(*engine.prepare(image, spec))
    while state.step < state.steps:
        engine.step([state])
    apart, whole = engine.decode(state).drawn(image, [None, mask]), engine.edit(image, spec)
    assert apart.image.tobytes() == whole.image.tobytes()
    assert apart.masks[0].tobytes() == whole.masks[0].tobytes()


def test_a_warm_up_tells_what_it_does_and_measures_how_long_a_layer_takes(engine: Engine) -> None:
    told: list[Progress] = []
    engine.warm_up(told.append)
    assert [(p.step, p.stage) for p in told] == [(0, "encode"), (0, "denoise"), (1, "denoise"), (2, "decode")]
    assert engine.heartbeat.longest > 0


def test_where_no_network_is_heard_a_warm_up_is_no_measure_of_silence() -> None:
    """As on a GPU, where a warm-up takes a minute: a hundred times that is no time to wait for a hung engine."""
    heartbeat = Heartbeat()
    with heartbeat.measured():
        pass
    assert heartbeat.longest == 0
