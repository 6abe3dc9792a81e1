# isort: off
import lddgan  # noqa: F401  (first: it tells OpenMP's threads not to spin)
import pytest
import torch

# isort: on

torch.set_num_threads(1)  # tiny networks gain nothing from a second thread, and on a busy machine lose much


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A folder of 39 grey 8x8 images to train on and 4 held out."""
    from tiny import make_sets

    return make_sets(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Prepared images go into a folder of the tests', not into the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LDDGAN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def finished_run(tiny_data, cache, tmp_path_factory):
    """A run folder of `tiny_config`, trained to its end without an interruption. Not to be written to."""
    from tiny import tiny_config

    from lddgan.run import start_run

    folder = tmp_path_factory.mktemp("runs") / "finished"
    start_run(tiny_config(tiny_data), folder, device="cpu", skip_broken=False)
    return folder
