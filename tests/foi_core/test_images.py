"""Sizes, masks on grids, and bytes that stay as they were."""

import numpy as np
import pytest
import torch
from PIL import Image

from foi_core import bands, images, sizes


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((512, 512), 512, (512, 512)),
        ((1024, 768), 512, (512, 384)),
        ((768, 1024), 512, (384, 512)),
        ((1920, 1080), 512, (512, 320)),  # f = 512/1920; ceil(288/64) 64 = 320 / 1080 -> 568.9 x 320
        ((300, 200), 512, (576, 384)),
        ((128, 128), 128, (128, 128)),
        ((4000, 500), 512, (512, 64)),
        ((2001, 667), 512, (576, 192)),  # 170.7 of the shorter side is rounded up to 192
    ],
)
def test_the_models_size_is_instruct_pix2pixs_own(
    size: tuple[int, int], resolution: int, expected: tuple[int, int]
) -> None:
    width, height = sizes.model_size(*size, resolution)
    assert width % 64 == 0
    assert height % 64 == 0
    assert min(width, height) >= 64
    assert (width, height) == expected


def test_no_size_rounds_down_to_nothing() -> None:
    for width in range(16, 400, 7):
        for height in range(16, 400, 11):
            if max(width, height) <= 8 * min(width, height):
                assert min(sizes.model_size(width, height, 128)) >= 64


def test_a_picture_survives_the_way_to_a_tensor_and_back() -> None:
    original = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8))
    tensor = images.to_tensor(original, original.size)
    assert tensor.shape == (1, 3, 64, 128)
    assert images.to_image(tensor[0]).tobytes() == original.tobytes()


def test_outside_the_mask_every_byte_is_the_inputs_and_inside_it_is_the_edits() -> None:
    rng = np.random.default_rng(1)
    original, edited = (Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)) for _ in range(2))
    mask = Image.new("L", (256, 256))
    mask.paste(255, (40, 60, 200, 180))
    result = np.asarray(images.composite(edited, original, mask))
    outside = np.asarray(mask) == 0
    assert (result[outside] == np.asarray(original)[outside]).all()
    deep = np.zeros_like(outside)
    deep[64:176, 44:196] = True  # further inside than the soft edge of 2 pixels
    assert (result[deep] == np.asarray(edited)[deep]).all()


@pytest.mark.parametrize("width", [1, 3, 7, 40])
def test_a_mask_thinner_than_the_soft_edge_is_still_edited(width: int) -> None:
    original, edited = Image.new("RGB", (1024, 1024), "black"), Image.new("RGB", (1024, 1024), "white")
    mask = Image.new("L", (1024, 1024))
    mask.paste(255, (500, 0, 500 + width, 1024))
    result = np.asarray(images.composite(edited, original, mask))[:, :, 0]
    assert result[512, 500 + width // 2] > 200
    assert result[:, :500].max() == result[:, 500 + width :].max() == 0


def test_a_full_mask_has_no_edge_at_the_pictures_border() -> None:
    original, edited = Image.new("RGB", (64, 64), "black"), Image.new("RGB", (64, 64), "white")
    assert images.composite(edited, original, Image.new("L", (64, 64), 255)).tobytes() == edited.tobytes()


def test_a_callers_mask_goes_to_a_grid_by_half_coverage_and_a_thin_one_does_not_vanish() -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 20, 64))  # two and a half cells of eight
    assert images.mask_to_grid(mask, (8, 8))[0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    line = Image.new("L", (64, 64))
    line.paste(255, (3, 0, 4, 64))
    assert images.mask_to_grid(line, (8, 8))[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert images.mask_to_grid(Image.new("L", (64, 64)), (8, 8)).sum() == 0


def test_a_mask_far_smaller_than_a_cell_does_not_vanish_and_nor_does_a_line_beside_a_blob() -> None:
    dot = Image.new("L", (4000, 3000))
    dot.paste(255, (2010, 1510, 2020, 1520))
    assert images.mask_to_grid(dot, (12, 16)).sum() == 1
    both = Image.new("L", (64, 64))
    both.paste(255, (0, 0, 16, 64))
    both.paste(255, (44, 0, 45, 64))
    assert images.mask_to_grid(both, (8, 8))[0].tolist() == [1, 1, 0, 0, 0, 1, 0, 0]


def test_a_found_mask_sent_back_as_a_callers_mask_is_the_same_mask() -> None:
    found = (torch.rand(16, 12, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    as_picture = images.mask_to_image(found, (360, 480))
    assert torch.equal(images.mask_to_grid(as_picture, (16, 12)), found)


@pytest.fixture(params=[1, 700, 5000])
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of one row and of a few."""
    for module in (bands, images):
        monkeypatch.setattr(module, "BAND_PIXELS", request.param)


def scattered(width: int, height: int) -> Image.Image:
    """A mask with blobs, lines and dots."""
    rng = np.random.default_rng(2)
    levels = np.kron(rng.random((height // 16 + 1, width // 16 + 1)) > 0.6, np.ones((16, 16)))[:height, :width]
    levels[height // 2, :], levels[:, width // 3], levels[3, 5] = 1, 1, 1
    return Image.fromarray((levels * 255).astype(np.uint8))


SIZE = (331, 257)
RANDOM = np.random.default_rng(1).integers(0, 256, (2, 257, 331, 3), dtype=np.uint8)
WHOLE = images.composite(Image.fromarray(RANDOM[0]), Image.fromarray(RANDOM[1]), scattered(*SIZE)).tobytes()
SOFT = torch.rand(24, 32, generator=torch.Generator().manual_seed(0))
WHOLE_CUT = images.cut(SOFT, 0.5, SIZE).tobytes()
WHOLE_GRID = images.mask_to_grid(scattered(*SIZE), (13, 17))
WHOLE_UNION = images.union([scattered(*SIZE), scattered(257, 331).transpose(Image.Transpose.ROTATE_90)]).tobytes()


@pytest.mark.usefixtures("narrow")
def test_what_is_made_in_bands_is_what_would_be_made_at_once() -> None:
    edited, original = Image.fromarray(RANDOM[0]), Image.fromarray(RANDOM[1])
    assert images.composite(edited, original, scattered(*SIZE)).tobytes() == WHOLE
    assert images.cut(SOFT, 0.5, SIZE).tobytes() == WHOLE_CUT
    assert torch.equal(images.mask_to_grid(scattered(*SIZE), (13, 17)), WHOLE_GRID)
    two = [scattered(*SIZE), scattered(257, 331).transpose(Image.Transpose.ROTATE_90)]
    assert images.union(two).tobytes() == WHOLE_UNION


def test_a_size_of_the_models_own_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    for resolution in (64, 128, 512, 768):
        for width, height in rng.integers(16, 4000, (500, 2)):
            if max(width, height) <= 8 * min(width, height):
                size = sizes.model_size(int(width), int(height), resolution)
                assert sizes.model_size(*size, resolution) == size
