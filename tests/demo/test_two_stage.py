"""The two-stage recipe: captions say what is there, pairs leak as told, and a training goes on where it stopped."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from demo import bundle, edits, grounding, instructions, latents, text_to_image, train
from demo.captions import random_caption, vocabulary
from demo.grounding import Question, figures
from demo.instructions import with_image_channels
from demo.loop import Plan
from demo.loop import train as train_loop
from demo.models import LATENT_CHANNELS, MAX_TOKENS, Shape, build_tokenizer, build_unet, build_vae
from demo.pairs import leaking_target, pair_of, pictures_of
from demo.scenes import GROUND, SKY, SMALL, WHOLE, WORLDS, World, labels, random_scene, render
from foi_core import EditSpec, SubInstruction
from foi_core.engine import Engine

TINY = Shape(widths=(32, 32), cross_attention=(True, False), text_layers=1, latent_scaling=1.0)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_a_caption_names_what_is_there_and_fits(world: World) -> None:
    tokenizer = build_tokenizer(vocabulary())
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng, world)
        caption = random_caption(rng, scene)
        tokens = tokenizer(caption.text).input_ids
        assert len(tokens) <= MAX_TOKENS
        assert all(len(tokenizer.tokenize(word)) == 1 for word in caption.text.replace(",", "").split())
        assert len(caption.nouns) >= 1
        names = {SKY: "sky", GROUND: scene.ground} | {i: thing.kind for i, thing in enumerate(scene.things)}
        for noun in caption.nouns:
            assert {names[label] for label in noun.labels} == {caption.text[noun.start : noun.end]}
            before = caption.text[: noun.start].split()
            if before[-1:] and before[-1] in world.colours and noun.labels[0] >= 0:
                assert [scene.things[label].colour for label in noun.labels] == [before[-1]]


def test_every_word_of_an_instruction_is_heard_with_the_picture_that_it_leads_to() -> None:
    heard = [text_to_image.shown(WHOLE, seed) for seed in range(2000)]
    instructions = [instruction for _, instruction in heard if instruction is not None]
    assert 0.1 < len(instructions) / len(heard) < 0.2
    of_edits = {word for phrases in edits._PHRASES.values() for phrase in phrases for word in phrase.split()}
    assert {word for word in of_edits if "{" not in word} <= {word for text in instructions for word in text.split()}
    for scene, instruction in heard:
        if instruction is not None and instruction.startswith("make the sky"):
            assert instruction == f"make the sky {scene.sky}"


def test_labels_say_what_each_pixel_shows() -> None:
    scene = random_scene(np.random.default_rng(3))
    shown = labels(scene)
    assert (shown[0] == SKY).all()
    assert (shown[-1] == GROUND).all()
    for i, thing in enumerate(scene.things):
        drawn = np.abs(render(scene).astype(int) - render(scene.without_thing(i)).astype(int)).max(axis=2) > 8
        assert ((shown == i) & drawn).sum() / ((shown == i) | drawn).sum() > 0.8, thing


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_without_leak_a_target_is_the_true_one(world: World) -> None:
    for seed in range(40):
        pair = pair_of(world, seed)
        assert (
            pictures_of(world, 0, seed) == np.stack([render(pair.scene), render(pair.edit.apply(pair.scene))])
        ).all()


def test_targets_leak_more_with_more_leak_and_edits_still_happen() -> None:
    outside = dict.fromkeys((0.3, 1.0), 0.0)
    for seed in range(40):
        pair = pair_of(WHOLE, seed)
        keeps = ~pair.edit.region(pair.scene)
        for leak in outside:
            target = leaking_target(np.random.default_rng(seed), pair, leak)
            outside[leak] += np.abs(target.astype(int) - render(pair.scene))[keeps].mean() if keeps.any() else 0
    assert 0 < 2 * outside[0.3] < outside[1.0]


def test_only_single_edits_of_the_world_are_asked_for() -> None:
    kinds = {pair_of(SMALL, seed).edit.kind for seed in range(200)}
    assert kinds == set(SMALL.edit_kinds)
    texts = " ".join(pair_of(SMALL, seed).edit.instruction for seed in range(200)).split()
    assert not {"heart", "box", "orange-sky", "snow", "pink", "hat", "sun"} & set(texts)


def test_new_image_channels_change_nothing_at_first() -> None:
    torch.manual_seed(0)
    unet = build_unet(TINY, LATENT_CHANNELS)
    wider = with_image_channels(unet, TINY)
    noisy, image, text = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16), torch.randn(2, 5, 128)
    with torch.no_grad():
        before, after = unet(noisy, 7, text).sample, wider(torch.cat([noisy, image], 1), 7, text).sample
    torch.testing.assert_close(before, after)


def test_a_training_that_was_interrupted_ends_as_one_that_was_not(tmp_path: Path) -> None:
    plan = Plan(samples=12, batch=2, warmup=4, report_every=4, save_every=0.0)

    def loss(network: torch.nn.Linear, k: int) -> torch.Tensor:
        if stop_at == k:
            raise KeyboardInterrupt  # as Ctrl-C in the middle of a batch
        x = torch.randn(2, 3, generator=torch.Generator().manual_seed(k))
        return (network(x) - x.sum(1, keepdim=True)).pow(2).mean()

    def run(folder: Path) -> torch.Tensor:
        torch.manual_seed(0)
        return train_loop(folder, torch.nn.Linear(3, 1), loss, lambda _: {}, plan).weight

    stop_at = -1
    whole = run(tmp_path / "whole")
    for batch in (1, 3, 4):
        stop_at = batch
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "legs")
    stop_at = -1
    assert torch.equal(run(tmp_path / "legs"), whole)
    assert torch.equal(run(tmp_path / "legs"), whole), "a finished training is left as it is"
    logs = [(tmp_path / folder / "log.jsonl").read_text().splitlines() for folder in ("whole", "legs")]
    whole_log, legs_log = ([{**json.loads(line), "hours": None} for line in log] for log in logs)
    assert whole_log == legs_log
    assert [line["samples"] for line in whole_log] == [4, 8, 12]


def test_latents_are_drawn_once_and_go_on_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "SHARD", 2)
    torch.manual_seed(0)
    vae = build_vae().eval()
    draw = partial(pictures_of, SMALL, 0.5)
    first = latents.cached(tmp_path, vae, draw, range(2), 1)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    both = latents.cached(tmp_path, vae, draw, range(4), 1)
    assert both.shape == (4, 2, 4, 16, 16)
    assert torch.equal(both[:2], first)
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_the_probe_knows_a_map_that_finds_its_noun_from_one_that_does_not() -> None:
    truth = torch.zeros(16, 16, dtype=torch.bool)
    truth[4:10, 4:10] = True
    attention = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    attention[0, :, :, 1] = truth.float() + 0.1 * attention[0, :, :, 1]
    questions = [Question(0, [1], truth, "object"), Question(0, [2], truth, "sky")]
    found = figures(questions, lambda _: attention)
    for t in grounding.TIMESTEPS:
        assert found[f"object t={t} auprc"] > 0.99
        assert found[f"object t={t} iou"] > 0.99
        assert found[f"object t={t} paper"] > 0.4
        assert found[f"sky t={t} auprc"] < 0.3
        assert found[f"sky t={t} paper"] < 0.3


def test_two_stages_make_a_bundle_that_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "SHAPE", TINY)
    for stage in (text_to_image, instructions):
        monkeypatch.setattr(stage, "PROBED", 8)
    command = ["two-stage", "--work", str(tmp_path / "work"), "--bundle", str(tmp_path / "model"), "--threads", "1"]
    train.main([*command, "--caption-samples", "64", "--instruction-samples", "64", "--scenes", "4", "--device", "cpu"])

    stages = sorted(path.parent.name for path in (tmp_path / "work").rglob("log.jsonl"))
    assert stages == ["instructions-64-0.6", "text-to-image"]
    for log in (tmp_path / "work").rglob("log.jsonl"):
        assert "| 64 |" in grounding.table(log, "paper")
    assert UNet2DConditionModel.load_config(tmp_path / "model" / "unet")["in_channels"] == 8
    engine = Engine.load(str(tmp_path / "model"), "cpu")
    picture = Image.fromarray(render(random_scene(np.random.default_rng(1), SMALL)))
    spec = EditSpec((SubInstruction("make the sky orange"),), num_inference_steps=2, seed=0)
    assert engine.edit(picture, spec).image.size == picture.size
    assert bundle.load_vae(tmp_path / "model").config.scaling_factor == TINY.latent_scaling


def test_an_option_of_the_other_recipe_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--leak", "1"])
    assert "--leak" in capsys.readouterr().err
