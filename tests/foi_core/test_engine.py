"""What an edit promises, on a tiny random model: real networks, so everything but beauty is tested."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foi_core import EditCanceled, EditSpec, InvalidParameter, SubInstruction, UnsupportedCheckpoint
from foi_core.engine import Engine
from foi_core.result import EditResult, Progress
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


def test_outside_the_masks_not_one_byte_changes(engine: Engine) -> None:
    image = picture()
    result = edit(engine, image)
    outside = np.maximum(*(np.asarray(mask) for mask in result.masks)) == 0
    assert 0 < outside.mean() < 1
    assert (np.asarray(result.image)[outside] == np.asarray(image)[outside]).all()
    free = edit(engine, image, preserve_outside_mask=False)
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


@pytest.mark.parametrize(
    "switch", [{"mask_at": 0.99}, {"modulation_end": 0.0}, {"disentangle_end": 0.0}, {"disentangle_end": 1.0}]
)
def test_every_switch_of_the_papers_tables_changes_the_result(engine: Engine, switch: dict[str, float]) -> None:
    given = {"num_inference_steps": 8, "preserve_outside_mask": False, "guidance_scale": 7.5}
    assert (
        edit(engine, picture(), **given, **switch).image.tobytes() != edit(engine, picture(), **given).image.tobytes()
    )


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


def test_a_full_mask_protects_nothing_and_says_so(engine: Engine) -> None:
    image = picture()
    result = edit(engine, image, (SubInstruction("make the ball red", mask=Image.new("L", image.size, 255)),))
    assert ("mask-full", 0) in codes(result)


def test_text_past_the_token_limit_is_told_with_what_to_try(engine: Engine) -> None:
    parts = (*TWO, SubInstruction("please " * 70 + "add a sun", keyword="sun"))
    result = edit(engine, picture(), parts)
    assert ("text-cut", None) in codes(result)
    assert ("mask-empty", 2) in codes(result)
    assert all("." in w.message for w in result.warnings)


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


def test_half_precision_follows_full_precision(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path)
    full, half = Engine.load(str(folder), "cpu"), Engine.load(str(folder), "cpu")
    for network in (half._model.unet, half._model.vae, half._model.text_encoder):
        network.to(torch.bfloat16)
    half._model.dtype = torch.bfloat16
    half = Engine(half._model)
    given = {"guidance_scale": 2.0, "image_guidance_scale": 1.0, "num_inference_steps": 5}
    mask = (SubInstruction("make the ball black", keyword="ball", mask=left_half((64, 64))),)
    first, second = (np.asarray(edit(e, picture(64, 64), mask, **given).image, int) for e in (full, half))
    assert np.abs(first - second).mean() < 6


def test_a_text_to_image_checkpoint_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="4 channels, not 8"):
        Engine.load(str(build_tiny_model(tmp_path, unet_channels=4)), "cpu")


def test_a_folder_without_a_model_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="diffusers' layout"):
        Engine.load(str(tmp_path), "cpu")


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(InvalidParameter) as caught:
        Engine.load("demo", "tpu")
    assert caught.value.field == "device"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_finds_the_same_regions_as_the_cpu(tmp_path: Path) -> None:
    folder = str(build_tiny_model(tmp_path))
    cpu, cuda = (edit(Engine.load(folder, device), picture()) for device in ("cpu", "cuda"))
    for a, b in zip(cpu.masks, cuda.masks, strict=True):
        assert np.mean(np.asarray(a) != np.asarray(b)) < 0.02
