"""Every kind of network seen as eps-prediction, and every folder that is or is not a model."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler
from safetensors.torch import load_file, save_file
from torch import nn

from mmd_ddm.features.own_network import contracting_half
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.families.unet2d import UNet2D


class Converted(nn.Module):
    """An eps network that answers with x_0 or v instead, by their definitions."""

    def __init__(self, network, schedule, prediction):
        super().__init__()
        self.network, self.schedule, self.prediction = network, schedule, prediction

    def forward(self, x_t, times):
        eps = self.network(x_t, times).sample
        pairs = torch.tensor([self.schedule(t) for t in times.tolist()], dtype=x_t.dtype)
        alpha_t, sigma_t = pairs.T[:, :, None, None, None]
        x_0 = (x_t - sigma_t * eps) / alpha_t
        return x_0 if self.prediction == "sample" else alpha_t * eps - sigma_t * x_0


def noisy(n: int = 3, channels: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((n, channels, 8, 8), generator=generator, dtype=dtype)


class TestForward:
    @pytest.mark.parametrize("times", [0, 700, 250.5, [999, 250, 0], [3.25, 3.25, 700.5]])
    @pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
    def test_other_predictions_are_converted_to_eps(self, denoiser64, schedule, prediction, times):
        network = Converted(denoiser64.network, schedule, prediction)
        other = UNet2D(network, schedule, prediction, shape=(1, 8, 8))
        if isinstance(times, list):
            times = torch.tensor(times, dtype=torch.float64 if 3.25 in times else None)
        x_t = noisy()
        eps = denoiser64.eps(x_t, times)
        assert torch.allclose(other.eps(x_t, times), eps, rtol=0, atol=1e-9)
        assert eps.std() > 0.05

    def test_one_time_is_that_time_for_all(self, denoiser):
        x_t = noisy(dtype=torch.float32)
        assert torch.equal(denoiser(x_t, 500), denoiser(x_t, torch.tensor([500, 500, 500])))
        expected = denoiser.network(x_t, 500).sample
        assert torch.equal(denoiser(x_t, 500), expected)

    def test_fractional_times_are_not_truncated(self, denoiser64):
        x_t = noisy()
        low, middle, high = (denoiser64(x_t, t) for t in (3, 3.5, 4))
        assert not torch.allclose(low, middle, atol=1e-6)
        assert not torch.allclose(high, middle, atol=1e-6)
        assert torch.allclose(middle, (low + high) / 2, atol=1e-2)

    @pytest.mark.parametrize("centred", [False, True])
    def test_the_contracting_half_is_that_of_the_whole_call(self, tiny_unet, schedule, centred):
        network = tiny_unet(center_input_sample=centred).double()
        seen = []
        watched = [network.down_blocks[0].resnets[0], network.down_blocks[1].attentions[0]]
        for module in (*watched, network.mid_block):
            module.register_forward_hook(lambda module, args, output: seen.append(output))
        denoiser = UNet2D(network, schedule, shape=(1, 8, 8))
        x_t = noisy()
        denoiser(x_t, 50.0)
        levels, expected = contracting_half(denoiser, x_t, 50.0), seen[:3]
        assert [level.shape[1:] for level in levels] == [(8, 8, 8), (16, 4, 4), (16, 4, 4)]
        assert all(map(torch.equal, levels, expected))

    def test_learned_variance_is_left_out(self, tiny_unet, schedule):
        network = tiny_unet(in_channels=3, out_channels=6)
        x_t = noisy(channels=3, dtype=torch.float32)
        eps = UNet2D(network, schedule, shape=(3, 8, 8))(x_t, 100)
        assert eps.shape == x_t.shape
        assert torch.equal(eps, network(x_t, 100).sample[:, :3])

    def test_plain_tensors_are_taken_from_any_module(self, schedule):
        class Half(nn.Module):
            def __init__(self):
                super().__init__()
                self.factor = nn.Parameter(torch.tensor(0.5))

            def forward(self, x_t, times):
                return x_t * self.factor + times[:, None, None, None]

        x_t = noisy()
        denoiser = UNet2D(Half(), schedule, shape=(1, 8, 8))
        assert torch.equal(denoiser(x_t, 4), x_t / 2 + 4)

    def test_autocast_answers_in_float32_near_the_full_answer(self, denoiser):
        x_t = noisy(dtype=torch.float32)
        full = denoiser(x_t, 500)
        denoiser.autocast = torch.bfloat16
        half = denoiser(x_t, 500)
        assert half.dtype == torch.float32
        assert not torch.equal(half, full)
        assert torch.allclose(half, full, atol=0.05)

    def test_attention_stays_in_float32_on_a_cpu(self, schedule):
        seen = []

        class Attends(nn.Conv2d):
            def forward(self, x_t, times):
                rows = super().forward(x_t).flatten(2)
                attended = nn.functional.scaled_dot_product_attention(rows, rows, rows)
                seen.extend((rows.dtype, attended.dtype))
                return x_t + attended.view_as(x_t)

        denoiser = UNet2D(Attends(1, 1, 1), schedule, shape=(1, 8, 8))
        denoiser.autocast = torch.bfloat16
        assert denoiser(noisy(dtype=torch.float32), 500).dtype == torch.float32
        assert seen == [torch.bfloat16, torch.float32]

    def test_unknown_prediction_is_refused(self, denoiser, schedule):
        with pytest.raises(ValueError, match=r"'flow'.*epsilon, sample, v_prediction"):
            UNet2D(denoiser.network, schedule, "flow", shape=(1, 8, 8))


@pytest.fixture
def folder(tiny_unet, tmp_path):
    """A pipeline folder, as `DDPMPipeline` saves it."""
    DDPMPipeline(tiny_unet(), DDPMScheduler()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def rewrite(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


class TestFromPretrained:
    @pytest.mark.parametrize("pipeline", [DDPMPipeline, DDIMPipeline])
    def test_pipeline_folders_load(self, pipeline, tiny_unet, tmp_path):
        unet = tiny_unet(in_channels=3)
        scheduler = DDIMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction")
        pipeline(unet.train(), scheduler).save_pretrained(tmp_path)
        denoiser = UNet2D.from_pretrained(str(tmp_path))
        assert denoiser.shape == (3, 8, 8)
        assert denoiser.prediction == "v_prediction"
        theirs = scheduler.alphas_cumprod.double()
        assert torch.allclose(denoiser.schedule.alpha_bar, theirs, rtol=3e-6)
        assert not denoiser.network.training
        x_t = noisy(channels=3, dtype=torch.float32)
        times = torch.full((3,), 250)
        expected = unet.eval()(x_t, times).sample
        assert torch.equal(denoiser.network(x_t, times).sample, expected)

    def test_flat_folders_load(self, tiny_unet, tmp_path):
        unet = tiny_unet(sample_size=(8, 16))
        unet.save_pretrained(tmp_path)
        DDPMScheduler(num_train_timesteps=200).save_pretrained(tmp_path)
        denoiser = UNet2D.from_pretrained(tmp_path)
        assert denoiser.shape == (1, 8, 16)
        assert len(denoiser.schedule) == 200
        x_t = torch.zeros(1, 1, 8, 16)
        assert torch.equal(denoiser(x_t, 7), unet(x_t, 7).sample)

    def test_half_precision_weights_become_float32(self, tiny_unet, tmp_path):
        DDPMPipeline(tiny_unet().half(), DDPMScheduler()).save_pretrained(tmp_path)
        denoiser = UNet2D.from_pretrained(tmp_path)
        assert {p.dtype for p in denoiser.parameters()} == {torch.float32}
        assert denoiser.device == torch.device("cpu")

    @pytest.mark.parametrize("content", [{}, {"config.txt": "{}"}, {"model_index.json": "{}"}])
    def test_folders_without_a_network_are_refused(self, content, tmp_path):
        for name, text in content.items():
            (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=r"is not a diffusers model: expected unet/config"):
            UNet2D.from_pretrained(tmp_path)

    def test_other_peoples_json_is_refused(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
        with pytest.raises(ValueError, match="network of unknown class; a UNet2DModel"):
            UNet2D.from_pretrained(tmp_path)

    def test_files_are_refused(self, folder):
        with pytest.raises(ValueError, match="is not a diffusers model"):
            UNet2D.from_pretrained(folder / "model_index.json")

    def test_other_networks_are_refused_by_name(self, folder):
        rewrite(folder / "unet/config.json", _class_name="UNet2DConditionModel")
        with pytest.raises(ValueError, match="holds a UNet2DConditionModel; a UNet2DModel"):
            UNet2D.from_pretrained(folder)

    @pytest.mark.parametrize("kind", ["identity", "timestep"])
    def test_classes_that_are_no_labels_are_refused(self, kind, tiny_unet, tmp_path):
        DDPMPipeline(tiny_unet(class_embed_type=kind), DDPMScheduler()).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=f"told classes by class_embed_type {kind}"):
            UNet2D.from_pretrained(tmp_path)

    def test_a_network_with_labels_has_as_many_classes(self, tiny_unet, tmp_path):
        unet = tiny_unet(num_class_embeds=3)
        DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
        loaded = UNet2D.from_pretrained(tmp_path)
        assert (loaded.classes, loaded.null_label) == (("0", "1", "2"), None)
        x_t, t, labels = torch.randn(2, 1, 8, 8), 500.5, torch.tensor([2, 0])
        with torch.no_grad():
            expected = unet(x_t, torch.tensor(t), class_labels=labels).sample
            torch.testing.assert_close(loaded.eps(x_t, t, Condition.of_labels(labels)), expected)

    @pytest.mark.parametrize(
        ("config", "said"),
        [
            ({"sample_size": 15}, "cannot be called with an image of 1x15x15, which"),
            ({"sample_size": "8"}, "sample_size of .* is '8': a number of pixels"),
            (
                {"sample_size": [8, 8, 8]},
                r"is \[8, 8, 8\]: a number of pixels, or \[height, width",
            ),
            ({"sample_size": 0}, "is 0: a number of pixels"),
            ({"sample_size": True}, "is True: a number of pixels"),
        ],
    )
    def test_a_network_that_cannot_be_called_is_refused(self, config, said, folder):
        rewrite(folder / "unet/config.json", **config)
        with pytest.raises(ValueError, match=said):
            UNet2D.from_pretrained(folder)

    @pytest.mark.parametrize(("channels", "out"), [(3, 1), (1, 3), (3, 4)])
    def test_a_network_that_answers_with_other_channels_is_refused(
        self, channels, out, tiny_unet, tmp_path
    ):
        network = tiny_unet(in_channels=channels, out_channels=out)
        DDPMPipeline(network, DDPMScheduler()).save_pretrained(tmp_path)
        said = f"answers an image of {channels}x8x8 with one of {out}x8x8"
        with pytest.raises(ValueError, match=said):
            UNet2D.from_pretrained(tmp_path)

    def test_asking_once_computes_nothing(self, tiny_unet, tmp_path):
        """A network of huge images is loaded at once."""
        DDPMPipeline(tiny_unet(size=4096), DDPMScheduler()).save_pretrained(tmp_path)
        assert UNet2D.from_pretrained(tmp_path).shape == (1, 4096, 4096)

    def test_a_network_without_a_size_is_refused(self, folder):
        rewrite(folder / "unet/config.json", sample_size=None)
        with pytest.raises(ValueError, match="does not say its image size"):
            UNet2D.from_pretrained(folder)

    def test_a_missing_schedule_is_named(self, folder):
        shutil.rmtree(folder / "scheduler")
        with pytest.raises(ValueError, match=r"model lacks scheduler/scheduler_config.json"):
            UNet2D.from_pretrained(folder)

    def test_missing_weights_are_named(self, folder):
        (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(OSError, match=r"no file named diffusion_pytorch_model.safetensors"):
            UNet2D.from_pretrained(folder)

    @pytest.mark.parametrize("change", ["add_attention", "unknown.weight"])
    def test_weights_without_a_place_are_named(self, change, folder):
        """diffusers drops them with a line in its log."""
        if change == "add_attention":
            rewrite(folder / "unet/config.json", add_attention=False)
        else:
            weights = folder / "unet/diffusion_pytorch_model.safetensors"
            save_file({**load_file(weights), change: torch.ones(1)}, weights)
        with pytest.raises(ValueError, match="has weights that its config has no place for: "):
            UNet2D.from_pretrained(folder)

    def test_damaged_weights_are_named(self, folder):
        weights = folder / "unet/diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:100])
        with pytest.raises(OSError, match="Unable to load weights"):
            UNet2D.from_pretrained(folder)

    def test_a_folder_that_is_not_there_is_an_os_error(self, tmp_path):
        with pytest.raises(OSError, match="nowhere"):
            UNet2D.from_pretrained(tmp_path / "nowhere")
