"""A latent DiT and a text-to-image pipeline of Stable Diffusion's classes, small, from images.

    python recipes/latent/bases.py --out BASES --minutes 60

Both share an autoencoder from 32 x 32 pixels to 4 x 16 x 16 latents, which is trained first, and
are then trained to say eps of its scaled latents: the DiT under classes, the other under captions
made of their names, through a text encoder of letters that is trained with it. A tenth of the
images is shown under none, for guidance. BASES then holds ``dit`` and ``text``, which
``DiffusionPipeline`` and ``mmd-ddm`` load, and ``texts``, in which captions are compared. Each of
the three takes its share of --minutes.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from mmd_ddm.config import ReadConfig
from mmd_ddm.data.images import load_images
from mmd_ddm.maths.pixels import from_uint8
from mmd_ddm.models.conditions import Condition
from mmd_ddm.models.families.stock import Stock
from mmd_ddm.training.losses.denoising import denoising_loss

SHARES = {"autoencoder": 0.15, "dit": 0.35, "text": 0.5}  # of the time
SIZE = 32  # pixels; pipelines of Stable Diffusion draw multiples of 8
WITHOUT = 0.1  # share of the images shown under no caption; a DiT does so by itself
KL = 1e-6  # weight, as of Stable Diffusion's autoencoder
CAPTION = "a photo of a {}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="fashion-mnist", help="grey images with classes")
    parser.add_argument("--out", type=Path, required=True, help="folder of both")
    parser.add_argument("--minutes", type=float, default=60, help="of all training")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    torch.manual_seed(asked.seed)
    draw = torch.Generator().manual_seed(asked.seed)
    images = load_images(asked.data, (1, SIZE, SIZE), ReadConfig(resize=True), labels=True)
    pixels, labels = from_uint8(images[:]), images.labels
    assert labels is not None

    def train(what: str, module: nn.Module, loss_of: Callable[[Tensor], Tensor]) -> None:
        fit(module, loss_of, len(pixels), asked.batch_size, 60 * asked.minutes * SHARES[what])

    vae = autoencoder()
    train("autoencoder", vae, lambda rows: reconstruction(vae, pixels[rows]))
    latents = encode(vae, pixels)

    dit = dit_pipeline(vae, images.classes)
    asks = Asked(Stock(dit))
    train("dit", asks, lambda rows: asks.loss(latents[rows], draw, class_labels=labels[rows]))
    dit.save_pretrained(asked.out / "dit")

    text = text_pipeline(vae)
    captions = tokens(text, [CAPTION.format(name) for name in images.classes])
    none, asks = tokens(text, [""]), Asked(Stock(text), text.text_encoder)

    def loss_of(rows: Tensor) -> Tensor:
        shown = torch.rand(len(rows), 1, generator=draw) >= WITHOUT
        told = torch.where(shown, captions[labels[rows]], none)
        return asks.loss(latents[rows], draw, encoder_hidden_states=text.text_encoder(told)[0])

    train("text", asks, loss_of)
    text.save_pretrained(asked.out / "text")
    joint = CLIPTextModelWithProjection(text.text_encoder.config)  # at random: angles are kept
    ours, theirs = (getattr(one, "text_model", one) for one in (text.text_encoder, joint))
    theirs.load_state_dict(ours.state_dict())
    for part in (joint, text.tokenizer):
        part.save_pretrained(asked.out / "texts")


class Asked(nn.Module):
    """A denoiser as `denoising_loss` asks it, with what else is trained."""

    def __init__(self, denoiser: Stock, *more: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.more = denoiser, nn.ModuleList(more)

    def forward(self, x_t: Tensor, t: Tensor, **told: Tensor) -> Tensor:
        """What the network says."""
        return self.denoiser(x_t, t, Condition(told, torch.arange(len(x_t))))

    def loss(self, x_0: Tensor, draw: torch.Generator, **told: Tensor) -> Tensor:
        """Of latents."""
        condition = Condition(told, torch.arange(len(x_0)))
        return denoising_loss(self.denoiser, self, x_0, draw, condition)


def fit(
    module: nn.Module, loss_of: Callable[[Tensor], Tensor], n: int, size: int, seconds: float
) -> None:
    """Train for so long, one iteration at least; the rate falls to 0 with the time."""
    weights = [p for p in module.train().parameters() if p.requires_grad]
    adam, began, done, share = torch.optim.Adam(weights, lr=1e-3), time.monotonic(), 0, 0.0
    while not done or share < 1:
        for rows in torch.randperm(n).split(size):
            adam.param_groups[0]["lr"] = 1e-3 * min(1.0, (done + 1) / 100) * max(0.0, 1 - share)
            loss = loss_of(rows)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            adam.step()
            done += 1
            if done % 200 == 0:
                print(f"{type(module).__name__}, iteration {done}: {float(loss):.4f}", flush=True)
            share = (time.monotonic() - began) / max(seconds, 1e-9)
            if share >= 1:
                break
    module.eval()


def autoencoder() -> Any:
    return AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=4, sample_size=SIZE,
        block_out_channels=(24, 48), norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def reconstruction(vae: Any, x: Tensor) -> Tensor:
    """Mean absolute error, and a little of the KL divergence."""
    found = vae.encode(x).latent_dist
    return (vae.decode(found.sample()).sample - x).abs().mean() + KL * found.kl().mean()


@torch.no_grad()
def encode(vae: Any, pixels: Tensor) -> Tensor:
    """The latents of all images, scaled to deviation 1, as the config then says."""
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in pixels.split(256)])
    vae.register_to_config(scaling_factor=float(1 / latents.std()))
    return latents * vae.config.scaling_factor


def scheduler() -> Any:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


def dit_pipeline(vae: Any, classes: Sequence[str]) -> Any:
    network = DiTTransformer2DModel(
        sample_size=SIZE // 2, in_channels=4, out_channels=8, num_layers=6, num_attention_heads=4,
        attention_head_dim=32, num_embeds_ada_norm=len(classes),
    )  # fmt: skip
    return DiTPipeline(network, vae, scheduler(), id2label=dict(enumerate(classes)))


def text_pipeline(vae: Any) -> Any:
    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(c + "</w>" for c in letters)]
    tokenizer = CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=32
    )
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=32, projection_dim=64, bos_token_id=0,
            eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    network = UNet2DConditionModel(
        sample_size=SIZE // 2, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(48, 96), norm_num_groups=8, cross_attention_dim=64,
        attention_head_dim=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=tokenizer, unet=network, scheduler=scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def tokens(pipeline: Any, captions: Sequence[str]) -> Tensor:
    length = pipeline.tokenizer.model_max_length
    found = pipeline.tokenizer(
        list(captions), padding="max_length", max_length=length, truncation=True,
        return_tensors="pt",
    )  # fmt: skip
    return found.input_ids


if __name__ == "__main__":
    main()
