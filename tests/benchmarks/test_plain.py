from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tiny import tiny_config

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import where  # noqa: E402
from parity import relative_error  # noqa: E402
from plain import compare, filtered, liven, plain_drawer  # noqa: E402

from lddgan.models import build_generator, build_space  # noqa: E402
from lddgan.networks.resample import downsample2, smooth, upsample2  # noqa: E402
from lddgan.pipeline import Pipeline  # noqa: E402


def test_filters_by_zero_insertion_are_ours():
    x = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(filtered(x, 2, 1, (2, 1), 4.0), upsample2(x))
    torch.testing.assert_close(filtered(x, 1, 2, (1, 1), 1.0), downsample2(x))
    torch.testing.assert_close(filtered(x, 1, 1, (2, 2), 1.0), smooth(x))


def test_the_baseline_draws_the_same_images_and_patches_nothing_for_good():
    config = tiny_config()
    space, generator = liven(build_space(config)), liven(build_generator(config), 1)
    pipe = Pipeline(config, space, generator, "cpu")  # pyright: ignore[reportArgumentType]
    pipe.decoder = "full"
    theirs = plain_drawer(pipe, range(3))().astype(int)
    assert abs(pipe.draw(range(3)) - theirs).max() <= 1
    assert theirs.std() > 10  # weights as fresh ones would draw one grey
    from lddgan.networks import scaling

    assert scaling.upsample2 is upsample2


def test_lively_weights_make_an_output_of_their_own_size():
    generator = build_generator(tiny_config())
    config = tiny_config()
    x, t, z = torch.randn(2, *config.space_shape), torch.zeros(1, dtype=torch.long), torch.randn(2, 4)
    assert z.shape[1] == config.generator.latent_dim
    with torch.no_grad():
        assert generator(x, t, z).std() < 1e-3 < liven(generator)(x, t, z).std()


def test_programs_are_timed_in_turns_and_the_first_round_does_not_count():
    calls = []
    comparison = compare(lambda: calls.append("a"), lambda: calls.append("b"), 3, torch.device("cpu"))
    assert calls == ["a", "b"] * 4
    assert comparison.quartiles[0] <= comparison.ratio <= comparison.quartiles[1]


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])) == 1 / 18**0.5


def test_shares_of_the_time_add_up_and_both_ways_draw_the_same(tmp_path, capsys):
    config = tiny_config()
    pipe = Pipeline(config, liven(build_space(config)), liven(build_generator(config), 1), "cpu")  # pyright: ignore[reportArgumentType]
    pipe.save_pretrained(tmp_path / "model")
    picture = tmp_path / "same.png"
    assert where.run([str(tmp_path / "model"), "--batch", "4", "--picture", str(picture), "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["levels_max"] <= 1 and picture.exists()
    for profile in result["profile"].values():
        assert abs(sum(profile.values()) - 1) < 0.01 and profile["convolution"] > 0.05
