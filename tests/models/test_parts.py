"""Models as training scripts and other people leave them."""

import logging
import pickle
import shutil

import huggingface_hub
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

from mmd_ddm.jobs.build import load_model
from mmd_ddm.models.parts import network_part, quiet


@pytest.fixture
def saved(tiny_unet, tmp_path):
    """What `DDPMPipeline` saves, and the name of its file of weights."""
    folder = tmp_path / "model"
    DDPMPipeline(tiny_unet(), DDPMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder, folder / "unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("variant", "safe", "rtol"),
    [(None, False, 0), ("fp16", True, 1e-3), ("fp16", False, 1e-3)],
    ids=["bin", "fp16", "fp16 bin"],
)
def test_other_files_of_weights_are_read(variant, safe, rtol, saved):
    folder, weights = saved
    before = load_model(str(folder)).denoiser.network.state_dict()
    network = UNet2DModel.from_pretrained(folder / "unet")
    weights.unlink()
    if variant:
        network = network.half()
    network.save_pretrained(folder / "unet", safe_serialization=safe, variant=variant)
    after = load_model(str(folder)).denoiser.network.state_dict()
    assert {value.dtype for value in after.values()} == {torch.float32}
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=rtol, atol=rtol)


def test_full_precision_is_preferred(saved, tiny_unet):
    folder, _ = saved
    tiny_unet(seed=5).half().save_pretrained(folder / "unet", variant="fp16")
    network = load_model(str(folder)).denoiser.network
    assert torch.equal(network.conv_in.weight, tiny_unet().conv_in.weight)


class Runs:
    """What a pickle can do."""

    def __reduce__(self):
        return pytest.fail, ("code was run",)


def test_code_is_not_unpickled(saved):
    folder, weights = saved
    weights.unlink()
    torch.save({"conv_in.weight": Runs()}, weights.with_suffix(".bin"), pickle_module=pickle)
    with pytest.raises(ValueError, match=r"cannot load .*Unable to load weights") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


def test_old_names_of_attention_are_still_read(saved):
    folder, weights = saved
    network = UNet2DModel.from_pretrained(folder / "unet")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, value in network.state_dict().items():
        for new, old in names.items():
            key = key.replace(f".{new}.", f".{old}.")
        state[key] = value
    weights.unlink()
    torch.save(state, weights.with_suffix(".bin"))
    read = load_model(str(folder)).denoiser.network.state_dict()
    assert all(map(torch.equal, read.values(), network.state_dict().values()))


class TestCheckpoints:
    """As diffusers' `train_unconditional.py` leaves them."""

    @pytest.fixture
    def out(self, tiny_unet, tmp_path):
        DDPMPipeline(tiny_unet(), DDPMScheduler(beta_end=0.03)).save_pretrained(tmp_path / "out")
        checkpoint = tmp_path / "out" / "checkpoint-500"
        tiny_unet(seed=1).save_pretrained(checkpoint / "unet")
        averaged = tiny_unet(seed=2)
        ema = EMAModel(averaged.parameters(), model_cls=UNet2DModel, model_config=averaged.config)
        ema.save_pretrained(checkpoint / "unet_ema")
        return tmp_path / "out"

    @pytest.mark.parametrize(
        ("place", "seed", "averaged", "scheduler"),
        [
            ("", 0, False, False),
            ("unet", 0, False, True),
            ("checkpoint-500", 2, True, True),
            ("checkpoint-500/unet", 1, False, True),
            ("checkpoint-500/unet_ema", 2, False, True),
        ],
    )
    def test_each_folder_is_a_model(self, place, seed, averaged, scheduler, out, tiny_unet):
        denoiser = load_model(str(out / place)).denoiser
        assert torch.equal(denoiser.network.conv_in.weight, tiny_unet(seed=seed).conv_in.weight)
        assert denoiser.scheduler_config["beta_end"] == 0.03
        notes = ["averaged weights, of unet_ema"] * averaged + [f"scheduler of {out}"] * scheduler
        assert denoiser.notes == notes

    def test_a_folder_of_another_name_takes_nothing_from_around(self, out):
        (out / "checkpoint-500").rename(out / "best")
        with pytest.raises(ValueError, match=r"best lacks scheduler/scheduler_config.json"):
            load_model(str(out / "best"))

    def test_without_an_average_the_network_is_taken(self, out, tiny_unet):
        shutil.rmtree(out / "checkpoint-500" / "unet_ema")
        network = load_model(str(out / "checkpoint-500")).denoiser.network
        assert torch.equal(network.conv_in.weight, tiny_unet(seed=1).conv_in.weight)

    @pytest.mark.parametrize("place", ["", "unet", "checkpoint-500", "checkpoint-500/unet_ema"])
    @pytest.mark.parametrize("beside", ["vae", "vqvae"])
    def test_what_lies_beside_tells_a_latent_model(self, place, beside, out):
        (out / "model_index.json").unlink()
        (out / beside).mkdir()
        with pytest.raises(ValueError, match=rf"latent diffusion model \({beside} beside its"):
            load_model(str(out / place))


def test_a_folder_without_a_network_has_no_part(tmp_path):
    with pytest.raises(ValueError, match="is not a diffusers model"):
        network_part(tmp_path)


def test_diffusers_is_as_loud_afterwards_as_before():
    logger = logging.getLogger("diffusers")
    before = logger.level
    with quiet():
        assert logger.level == logging.CRITICAL
    assert logger.level == before


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`")  # diffusers' own
class TestHub:
    """Repositories that were downloaded before: what is in the hub's cache is read offline."""

    @pytest.fixture
    def snapshot(self, tmp_path, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        repository = tmp_path / "hub" / "models--owner--name"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text("0" * 40)
        return repository / "snapshots" / ("0" * 40)

    @pytest.mark.parametrize("variant", [None, "fp16"])
    @pytest.mark.parametrize("safe", [True, False])
    def test_parts_in_folders(self, variant, safe, tiny_unet, snapshot):
        pipeline = DDPMPipeline(tiny_unet(), DDPMScheduler(beta_end=0.03))
        pipeline.save_pretrained(snapshot, variant=variant, safe_serialization=safe)
        denoiser = load_model("owner/name").denoiser
        assert torch.equal(denoiser.network.conv_in.weight, tiny_unet().conv_in.weight)
        assert denoiser.scheduler_config["beta_end"] == 0.03
        assert denoiser.notes == []

    def test_all_in_one_folder(self, tiny_unet, snapshot):
        tiny_unet().save_pretrained(snapshot)
        DDPMScheduler(beta_end=0.03).save_pretrained(snapshot)
        denoiser = load_model("owner/name").denoiser
        assert torch.equal(denoiser.network.conv_in.weight, tiny_unet().conv_in.weight)
        assert denoiser.scheduler_config["beta_end"] == 0.03

    def test_what_is_missing_is_told_in_one_line(self, tiny_unet, snapshot):
        DDPMPipeline(tiny_unet(), DDPMScheduler()).save_pretrained(snapshot)
        (snapshot / "unet/diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(ValueError, match=r"cannot load owner/name: .*safetensors") as caught:
            load_model("owner/name")
        assert "\n" not in str(caught.value)

    def test_a_latent_one_is_known_by_what_its_repository_holds(self, tiny_unet, snapshot):
        """Three channels and no index: its network alone would pass for one of pixels."""
        tiny_unet(3).save_pretrained(snapshot / "unet")
        DDPMScheduler().save_pretrained(snapshot / "scheduler")
        assert load_model("owner/name").denoiser.shape == (3, 8, 8)
        (snapshot / "vae").mkdir()
        (snapshot / "vae" / "config.json").write_text("{}")
        with pytest.raises(ValueError, match="owner/name is a latent diffusion model"):
            load_model("owner/name")
