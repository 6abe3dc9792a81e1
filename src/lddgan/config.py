"""What an experiment is: frozen dataclasses, validated as a whole, with a YAML round trip.

A recipe (`lddgan.recipes`) returns a complete `Config`; the command line and YAML files override its fields.
"""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import torch
import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from lddgan.diffusion.schedule import Schedule
from lddgan.errors import UserError
from lddgan.runtime.files import atomic_write

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Widths = Annotated[tuple[Count, ...], Field(min_length=1)]
# Of the networks in training; auto: bfloat16 where the chip is fast at it. Losses are always float32.
Precision = Literal["auto", "float32", "bfloat16"]
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
    dropout: Fraction = 0.0


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
    epochs: Count
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
    cosine_decay: bool = False
    """Decay both learning rates to 1e-5 over the epochs, as DDGAN does."""
    report_every: Count = 1000
    """Steps between sample grids and evaluations."""
    precision: Precision = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment, complete."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    recipe: str
    data: str
    """A folder, a zip, an LMDB, or `cifar10`, `stl10`, `digits`; empty: must be given by --data."""
    images: ImagesConfig
    autoencoder: AutoencoderConfig | DiffusersConfig
    stage1: Stage1Config
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    diffusion: DiffusionConfig
    stage2: Stage2Config
    slim_decoder: SlimDecoderConfig | None = None
    """Draws in place of the autoencoder's decoder, which is kept beside it."""
    stages: tuple[Stage, ...] = STAGES
    """What is trained; the weights of the other networks come from a trained model or a given autoencoder."""
    seed: Natural = 0
    checkpoint_seconds: PositiveFloat = 120.0
    """Time between checkpoints; it changes nothing that is computed."""

    def __post_init__(self) -> None:
        resolution, factor = self.images.resolution, self.autoencoder.factor
        if resolution % factor:
            raise ValueError(f"images.resolution {resolution} must be a multiple of the autoencoder's factor {factor}")
        latent = self.latent_shape[1]
        for halvings, asks, mend in (
            (len(self.generator.multipliers) - 1, "generator.multipliers asks", "fewer multipliers"),
            (self.discriminator.halvings, "discriminator.num_layers asks", "fewer layers"),
        ):
            if latent % 2**halvings:
                raise ValueError(
                    f"the latent of side {latent} (images.resolution {resolution} / factor {factor}) cannot be halved "
                    f"{halvings} times, as {asks}: give {mend} or another resolution"
                )
        if isinstance(self.autoencoder, DiffusersConfig) and "autoencoder" in self.stages:
            raise ValueError("an autoencoder of diffusers is not trained: take the stage autoencoder out of stages")
        if list(self.stages) != [stage for stage in STAGES if stage in self.stages] or not self.stages:
            raise ValueError(f"stages {list(self.stages)} must be one or more of {', '.join(STAGES)}, in this order")
        with torch.device("cpu"):  # whatever default the caller has set
            Schedule(**dataclasses.asdict(self.diffusion))  # ValueError where the betas leave no signal

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the space that the diffusion runs in."""
        side = self.images.resolution // self.autoencoder.factor
        return self.autoencoder.latent_channels, side, side


_ADAPTER: TypeAdapter[Config] = TypeAdapter(Config)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain dicts, lists and scalars, ready for YAML or JSON."""
    return _ADAPTER.dump_python(config, mode="json")


def from_dict(values: Any, origin: str) -> Config:
    """The validated config.

    Raises:
        UserError: a field is missing, unknown (with a suggestion), or out of range; `origin` names the input.
    """
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        raise UserError(f"{origin}: {_sentence(error)}") from None


def validated(config: Config, origin: str) -> Config:
    """The same config after all checks (the command line builds it without them)."""
    return from_dict(to_dict(config), origin)


def load_yaml(path: str | Path) -> Config:
    """Read a `config.yaml`.

    Raises:
        UserError: missing, no YAML, or not a valid config.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"there is no config file '{path}': check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"'{path}' cannot be read as YAML ({str(error).splitlines()[0]}): mend the file") from None
    if not isinstance(values, dict):
        raise UserError(f"'{path}' is not a config (a YAML mapping): take one from a run folder or --dry-run")
    return from_dict(values, f"'{path}'")


def save_yaml(config: Config, path: str | Path) -> None:
    """Write `config` so that `load_yaml` gives it back."""
    with atomic_write(path) as temporary:
        temporary.write_text(dump_yaml(config))


def dump_yaml(config: Config) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False, default_flow_style=None, width=120)


def identity(config: Config) -> dict[str, str]:
    """Every field that bears on what is computed, by dotted name, as text; the data's content has a hash of its own."""
    free = {"checkpoint_seconds", "data", "stage1.perceptual_weights"}
    return {name: str(value) for name, value in _flat(to_dict(config)).items() if name not in free}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def field_names(kind: type = Config, prefix: str = "") -> list[str]:
    """Every field by its dotted name; of a part that may be of several kinds those of the first."""
    names = []
    for name, part in parts(kind).items():
        names += [f"{prefix}{name}"] if part is None else field_names(part, f"{prefix}{name}.")
    return names


def parts(kind: type) -> dict[str, type | None]:
    """Every field of a dataclass, with the dataclass it holds (of several kinds the first), or None."""
    return {
        name: next((part for part in (annotation, *get_args(annotation)) if dataclasses.is_dataclass(part)), None)
        for name, annotation in get_type_hints(kind).items()
    }  # type: ignore[return-value]


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    kinds = {AutoencoderConfig.__name__, DiffusersConfig.__name__}  # which pydantic puts into the path
    name = ".".join(str(part) for part in first["loc"] if part not in kinds)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "unexpected_keyword_argument":
        close = difflib.get_close_matches(name, field_names(), n=1)
        return f"there is no field '{name}'" + (f", did you mean '{close[0]}'?" if close else ": remove it")
    if first["type"] in {"missing", "missing_argument"}:
        return f"the field '{name}' is missing: add it"
    if not name:
        return message
    return f"{name} = {first['input']!r} is not allowed ({message[0].lower() + message[1:]}): change it"
