"""Tiny random pipelines of diffusers' stock classes, text encoders and all, made offline."""

import numpy as np
import torch
import transformers
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    LDMPipeline,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel

from mmd_ddm.config import (
    ChainConfig,
    ConditionConfig,
    FinetuneConfig,
    ObjectiveConfig,
    SelectConfig,
)
from mmd_ddm.jobs.build import load_model
from mmd_ddm.jobs.train import train

__all__ = ["TINY", "TOLD", "K", "asked", "finetune", "their_images", "tiny_pipeline"]

K = 4
TOLD = ("Latent Consistency Model", "Flux")  # their networks are told the scale of guidance

PLAIN = {"use_quant_conv": False, "use_post_quant_conv": False}  # autoencoders of flows
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tiny_pipeline(name):
    """A pipeline of that class, with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TINY[name]()


def clip_tokenizer(pad="<|endoftext|>"):
    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(c + "</w>" for c in letters)]
    vocabulary = {word: i for i, word in enumerate(words)}
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=[], pad_token=pad, model_max_length=77
    )


def t5_tokenizer(length=16):
    letters = "abcdefghijklmnopqrstuvwxyz.,'"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0) for letter in letters]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def clip_text(projection=False):
    config = transformers.CLIPTextConfig(
        vocab_size=514, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, projection_dim=32, bos_token_id=0,
        eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return kind(config).eval()


def t5_text(width=32):
    config = transformers.T5Config(
        vocab_size=64, d_model=width, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", dropout_rate=0.0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return transformers.T5EncoderModel(config).eval()


def halving(kind, latent, **config):
    return kind(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=latent, norm_num_groups=4,
        sample_size=32, **config,
    ).eval()  # fmt: skip


def vae(latent=4, **config):
    return halving(AutoencoderKL, latent, **config)


def text_unet(**config):
    return UNet2DConditionModel(**{
        "sample_size": 16, "in_channels": 4, "out_channels": 4, "layers_per_block": 1,
        "block_out_channels": (16, 32), "norm_num_groups": 8, "cross_attention_dim": 32,
        "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), **config,
    }).eval()  # fmt: skip


def ldm():
    unet = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1,
        block_out_channels=(16, 32), norm_num_groups=8, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    return LDMPipeline(halving(VQModel, 3), unet, DDIMScheduler(clip_sample=False, **BETAS))


def dit():
    network = DiTTransformer2DModel(
        sample_size=8, in_channels=4, out_channels=8, num_layers=2, num_attention_heads=2,
        attention_head_dim=8, num_embeds_ada_norm=1000,
    ).eval()  # fmt: skip
    names = {0: "tench, Tinca tinca", 1: "goldfish"}
    return DiTPipeline(network, vae(), DDIMScheduler(clip_sample=False), id2label=names)


def stable_diffusion(made=StableDiffusionPipeline, unet=None, scheduler=None):
    scheduler = scheduler or DDIMScheduler(
        clip_sample=False, steps_offset=1, set_alpha_to_one=False, **BETAS
    )
    return made(
        vae=vae(), text_encoder=clip_text(), tokenizer=clip_tokenizer(), unet=unet or text_unet(),
        scheduler=scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_v():
    return stable_diffusion(
        scheduler=DDIMScheduler(
            clip_sample=False, prediction_type="v_prediction", timestep_spacing="trailing",
            rescale_betas_zero_snr=True, **BETAS,
        )
    )  # fmt: skip


def lcm():
    unet = text_unet(time_cond_proj_dim=32)
    return stable_diffusion(LatentConsistencyModelPipeline, unet, LCMScheduler(**BETAS))


def sdxl():
    unet = text_unet(
        cross_attention_dim=64, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32, transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=vae(), text_encoder=clip_text(), text_encoder_2=clip_text(projection=True),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer("!"), unet=unet,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **BETAS),
    )  # fmt: skip


def pixart():
    network = PixArtTransformer2DModel(
        sample_size=16, in_channels=4, out_channels=8, num_layers=2, num_attention_heads=2,
        attention_head_dim=8, cross_attention_dim=16, caption_channels=32,
    ).eval()  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(solver_order=1)
    return PixArtAlphaPipeline(t5_tokenizer(), t5_text(), vae(), network, scheduler)


def sd3():
    network = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=8, out_channels=8, num_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=64,
        caption_projection_dim=16, pooled_projection_dim=64, pos_embed_max_size=24,
    ).eval()  # fmt: skip
    decoder = vae(8, shift_factor=0.0609, scaling_factor=1.5305, **PLAIN)
    return StableDiffusion3Pipeline(
        transformer=network, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=decoder,
        text_encoder=clip_text(projection=True), tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(projection=True), tokenizer_2=clip_tokenizer("!"),
        text_encoder_3=t5_text(64), tokenizer_3=t5_tokenizer(77),
    )  # fmt: skip


def flux():
    network = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        guidance_embeds=True, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    decoder = vae(4, shift_factor=0.1159, scaling_factor=0.3611, **PLAIN)
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
    )
    return FluxPipeline(
        scheduler, decoder, clip_text(), clip_tokenizer(), t5_text(), t5_tokenizer(), network
    )


def sana():
    letters = [chr(i) for i in range(32, 127)] + ["\u2581"]
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *letters]
    tokenizer = transformers.GemmaTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[]
    )
    encoder = transformers.Gemma2Model(
        transformers.Gemma2Config(
            vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        )
    ).eval()  # fmt: skip
    blocks = ("ResBlock", "EfficientViTBlock")
    decoder = AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=blocks,
        decoder_block_types=blocks, encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)), decoder_norm_types=("rms_norm", "rms_norm"),
        decoder_act_fns=("silu", "silu"), scaling_factor=0.41407,
    ).eval()  # fmt: skip
    network = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=4,
        num_cross_attention_heads=2, cross_attention_head_dim=4, cross_attention_dim=8,
        caption_channels=32, sample_size=16, patch_size=1,
    ).eval()  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(
        solver_order=1, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return SanaPipeline(tokenizer, encoder, decoder, network, scheduler)


TINY = {
    "LDM": ldm,
    "DiT": dit,
    "Stable Diffusion": stable_diffusion,
    "Stable Diffusion, v, zero terminal SNR": stable_diffusion_v,
    "Latent Consistency Model": lcm,
    "Stable Diffusion XL": sdxl,
    "PixArt": pixart,
    "Stable Diffusion 3": sd3,
    "Flux": flux,
    "Sana": sana,
}


def their_images(pipeline, n, steps, **options):
    """As documented, image i from seed i; the values before they are rounded, and the calls."""
    network, calls = getattr(pipeline, "transformer", None) or pipeline.unet, []
    network.register_forward_hook(lambda *_: calls.append(1))
    generators = [torch.Generator().manual_seed(seed) for seed in range(n)]
    images = pipeline(
        **options, num_inference_steps=steps, generator=generators, output_type="np"
    ).images
    return np.asarray(images).transpose(0, 3, 1, 2), len(calls)


def asked(name, n, prompts=None, guidance=1.0):
    if name == "LDM":
        return {"batch_size": n}
    scale = {} if name in TOLD else {"guidance_scale": guidance}
    if name == "DiT":
        return {"class_labels": list(range(n)), **scale}
    binned = {"use_resolution_binning": False} if name in ("PixArt", "Sana") else {}
    size = {} if name == "Flux" else {"height": 32, "width": 32}  # its network has no size
    return {"prompt": prompts or [""] * n, **size, **scale, **binned}


def finetune(name, tmp_path, out="run", **settings):
    """Two iterations of the base, which is there already where it has no name."""
    if name:
        tiny_pipeline(name).save_pretrained("base")
    size = load_model("base").denoiser.shape[1]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, size, size, 3), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        folder = tmp_path / "data" / f"{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(("a red cat", "two blue dogs")[i % 2])
    plain = {"condition": ConditionConfig(match="ignore"), "iterations": 2, "batch_size": 2}
    config = FinetuneConfig(
        "base", "data", chain=ChainConfig(steps=K),
        objective=ObjectiveConfig(features=("pixels",)), judges=("random",), compare_steps=(),
        select=SelectConfig(every=0, features="frequencies"),
        **{"lr": 1e-3, **plain, **settings},
    )  # fmt: skip
    train(config, tmp_path / out)
