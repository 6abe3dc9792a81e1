"""The parts of a `Config`: frozen dataclasses, one per network, set and training."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
# Whole numbers stay whole: 3.0 is 3.
Epochs = Annotated[Count | PositiveFloat, AfterValidator(lambda value: int(value) if value == int(value) else value)]
Widths = Annotated[tuple[Count, ...], Field(min_length=1)]
# Of the networks in training; auto: bfloat16 where the chip is fast at it. Losses are always float32.
Precision = Literal["auto", "float32", "bfloat16"]
SpaceName = Literal["latent", "pixels", "wavelet"]
Stage = Literal["autoencoder", "decoder", "gan"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In their order; the decoder is the slim one."""
Perceptual = Literal[
    "none", "lpips-vgg16", "lpips-alexnet", "lpips-squeezenet", "vgg16", "squeezenet1_0", "squeezenet1_0-caffe"
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImagesConfig:
    """The images as the networks see them."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    resolution: Annotated[int, Field(ge=8)]
    """Side in pixels; images are cropped to their centre square and resized."""
    channels: Literal[1, 3, 4]
    """1 grey, 3 RGB, 4 RGBA."""
    flips: bool
    """Train on mirror images too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The autoencoder; its factor f is 2^(len(multipliers) - 1)."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    latent_channels: Count
    width: Annotated[int, Field(ge=4)]
    multipliers: Widths
    num_blocks: Count
    attention_resolutions: tuple[Count, ...] = ()
    dropout: Fraction = 0.0
    tanh: bool = False
    linear_shortcut: bool = False
    kind: Literal["free", "quantised", "kl"] = "free"
    """What holds the latent: nothing (the paper's), a codebook inside the decoder, or a KL penalty (Table 7)."""
    codebook_size: Count = 8192
    """Codes of a quantised latent."""
    norm_groups: Count | None = None
    """Of every group norm, as released checkpoints have them; None: 32, or fewer at narrow widths."""

    @property
    def factor(self) -> int:
        return 2 ** (len(self.multipliers) - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusersConfig:
    """An autoencoder of the diffusers library in place of our own; it is not trained."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    latent_channels: Count
    factor: Count
    diffusers: dict[str, Any]
    """Its class and configuration, from which the empty network is built."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage1Config:
    """Training of the autoencoder."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    epochs: Count
    batch: Count
    learning_rate: PositiveFloat
    cosine_decay: bool = False
    """Decay the learning rate to a hundredth of itself over the epochs."""
    ema_decay: Fraction = 0.999
    """Of the averaged weights, which are the ones that are measured and kept."""
    perceptual: Perceptual = "none"
    """The perceptual distance beside L1 (`lddgan.autoencoder.perceptual`)."""
    perceptual_weight: Weight = 1.0
    perceptual_weights: str = ""
    """File of the backbone's weights; empty: downloaded."""
    kl_weight: Weight = 1e-6
    """Of the KL divergence, against L1 summed over the pixels as LDM has it."""
    discriminator_width: Count = 64
    discriminator_start: Natural = 50001
    """The first step at which the patch discriminator trains and is heard."""
    discriminator_ramp: Natural = 0
    """Steps over which its weight then grows from nothing."""
    discriminator_weight: Weight = 0.5
    """Times the adaptive weight (ratio of gradient norms)."""
    report_every: Count = 1000
    """Steps between reconstruction grids and held-out measures."""
    precision: Precision = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlimDecoderConfig:
    """A small decoder for the same latent, trained after the autoencoder with the same objective."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    width: Annotated[int, Field(ge=4)]
    """Channels at half the images' resolution; twice and four times as many below."""
    num_blocks: Count
    """Residual blocks a level."""
    epochs: Count
    learning_rate: PositiveFloat
    noise: Weight = 0.3
    """Up to so much noise, in deviations of a channel, is laid on the latents it learns from: a generator's latents
    are not quite the encoder's."""
    discriminator_start: Natural = 50001
    """As in stage 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """NCSN++ with adaptive group norm (Table 8)."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    width: Annotated[int, Field(ge=4, multiple_of=2)]
    multipliers: Widths
    num_blocks: Count
    attention_resolutions: tuple[Count, ...] = ()
    latent_dim: Count
    """Dimensions of z."""
    mapping_width: Count = 256
    mapping_depth: Natural = 4
    resampling: Literal["fir", "haar"] = "fir"
    """Between its levels: a filter, or Haar bands (WDDGAN's wavelet generator)."""
    dropout: Fraction = 0.0
    tanh: bool = False
    """Squash x_0 into [-1, 1], where pixels lie."""

    @property
    def multiple(self) -> int:
        """What the sides of x_0 must be a multiple of."""
        return 2 ** (len(self.multipliers) - (self.resampling == "fir"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class UVitConfig:
    """The ViT U-Net with adaptive group norm (paper, Appendix C)."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    patch: Count
    """Side of the square that becomes one token."""
    embed_dim: Count
    """Width of a token; a multiple of `num_heads`, and at least 4."""
    depth: Count
    """Transformer blocks: half of them on the way in, one in the middle, half on the way out; an odd number."""
    num_heads: Count
    latent_dim: Count
    """Dimensions of z."""
    mapping_width: Count = 256
    mapping_depth: Natural = 4
    tanh: bool = False
    """Squash x_0 into [-1, 1], where pixels lie."""

    def __post_init__(self) -> None:
        if self.depth % 2 == 0:
            raise ValueError(f"generator.depth {self.depth} must be odd: as many blocks in as out, and one between")
        if self.embed_dim < 4 or self.embed_dim % 2 or self.embed_dim % self.num_heads:
            raise ValueError(
                f"generator.embed_dim {self.embed_dim} must be even, at least 4 and a multiple of generator.num_heads "
                f"{self.num_heads}"
            )

    @property
    def multiple(self) -> int:
        """What the sides of x_0 must be a multiple of."""
        return self.patch


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The time-dependent discriminator (Table 9)."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    kind: Literal["small", "large"]
    num_layers: Annotated[int, Field(ge=3, le=6)]
    width: Count = 64
    time_dim: Annotated[int, Field(ge=4, multiple_of=2)] = 256

    @property
    def halvings(self) -> int:
        """How often it halves its input."""
        return self.num_layers - 1 if self.kind == "small" else self.num_layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The schedule: T steps, variance-preserving."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    num_steps: Count = 4
    beta_min: PositiveFloat = 0.1
    beta_max: PositiveFloat = 20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage2Config:
    """Training of the diffusion GAN (Table 10)."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    epochs: Epochs
    """A whole number, at whose epochs the rates and lambda fall, as published; or a fraction (1.25), over which they
    fall at every step."""
    batch: Count
    learning_rate_generator: PositiveFloat
    learning_rate_discriminator: PositiveFloat
    ema_decay: Fraction
    r1_gamma: Weight
    r1_every: Count
    objective: Literal["adversarial", "reconstruction", "weighted"] = "weighted"
    """The three rows of Table 6: Eq. 6; plus Eq. 7; plus Weighted Learning (Eq. 9)."""
    delta: PositiveFloat = 6.0
    """Steepness of Weighted Learning."""
    spread: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How much of the reconstruction loss's pull to the median is taken off; 1 leaves a proper score of a distribution
    (`lddgan.gan.objective.spread_loss`)."""
    reuse: bool = False
    """The generator's phase takes the samples of the discriminator's, and compares with the prediction that this has
    seen: a third of a step with a `spread` is saved. For a discriminator that sees little; a strong one knows them."""
    augment: bool = False
    """Show the discriminator all samples shifted and with a hole (`lddgan.gan.augment`): it would know a set of a few
    thousand images by heart."""
    accumulate: Count = 1
    """Parts that a process works its share of a batch through in, one after another: less memory, the same step."""
    cosine_decay: bool = False
    """Decay both learning rates to 1e-5 over the epochs, as DDGAN does."""
    report_every: Count = 1000
    """Steps between sample grids and evaluations."""
    precision: Precision = "auto"
