"""What an experiment is: frozen dataclasses, validated as a whole, with a YAML round trip.

A recipe (`lddgan.recipes`) returns a complete `Config`; the command line and YAML files override its fields.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import torch
import yaml
from pydantic import ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError

from lddgan.config_parts import (
    STAGES,
    AutoencoderConfig,
    DiffusersConfig,
    DiffusionConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    ImagesConfig,
    Natural,
    PositiveFloat,
    SlimDecoderConfig,
    SpaceName,
    Stage,
    Stage1Config,
    Stage2Config,
    UVitConfig,
)
from lddgan.diffusion.schedule import Schedule
from lddgan.errors import UserError, first_line
from lddgan.runtime.files import atomic_write


def _generator_kind(value: Any) -> str:
    """By its fields, so that what is wrong is said of the kind that is meant."""
    names = value if isinstance(value, dict) else vars(value) if dataclasses.is_dataclass(value) else ()
    return "vit" if {"patch", "embed_dim", "depth", "num_heads"} & set(names) else "unet"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment, complete."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    recipe: str
    data: str
    """A folder, a zip, an LMDB, or `cifar10`, `stl10`, `digits`; empty: must be given by --data."""
    images: ImagesConfig
    space: SpaceName = "latent"
    """What the diffusion runs on: an autoencoder's latent (LDDGAN), pixels (DDGAN) or Haar bands (WDDGAN)."""
    autoencoder: AutoencoderConfig | DiffusersConfig | None = None
    """Of the latent space, with `stage1`; the others have neither."""
    stage1: Stage1Config | None = None
    generator: Annotated[
        Annotated[GeneratorConfig, Tag("unet")] | Annotated[UVitConfig, Tag("vit")], Discriminator(_generator_kind)
    ]
    discriminator: DiscriminatorConfig
    diffusion: DiffusionConfig
    stage2: Stage2Config
    slim_decoder: SlimDecoderConfig | None = None
    """Draws in place of the autoencoder's decoder, which is kept beside it."""
    stages: tuple[Stage, ...] = STAGES
    """What is trained; the weights of the other networks come from a trained model or a given autoencoder."""
    sample_gain: PositiveFloat = 1.0
    """What the x_0 of a finished sample is multiplied with: a generator that L1 pulls to the middle draws too faintly.
    It is no part of training."""
    seed: Natural = 0
    checkpoint_seconds: PositiveFloat = 120.0
    """Time between checkpoints; it changes nothing that is computed."""

    def __post_init__(self) -> None:
        for part, value in (("autoencoder", self.autoencoder), ("stage1", self.stage1)):
            if (value is None) == (self.space == "latent"):
                raise ValueError(
                    f"space {self.space} and {part} do not go together: a latent has one, others have none"
                )
        if self.space != "latent" and (self.slim_decoder is not None or self.stages != ("gan",)):
            raise ValueError(f"space {self.space} needs no autoencoder or decoder: set stages to gan alone")
        if self.images.resolution % self.factor:
            raise ValueError(
                f"images.resolution {self.images.resolution} must be a multiple of the factor {self.factor} between "
                f"images and {self.space}"
            )
        side = self.space_shape[1]
        smaller = "fewer generator.multipliers" if isinstance(self.generator, GeneratorConfig) else "another patch"
        for multiple, asks, mend in (
            (self.generator.multiple, "the generator asks", smaller),
            (2**self.discriminator.halvings, "discriminator.num_layers asks", "fewer layers"),
        ):
            if side % multiple:
                raise ValueError(
                    f"x_0 of side {side} (images.resolution {self.images.resolution} / factor {self.factor}) is no "
                    f"multiple of {multiple}, as {asks}: give {mend} or another resolution"
                )
        if isinstance(self.autoencoder, DiffusersConfig) and "autoencoder" in self.stages:
            raise ValueError("an autoencoder of diffusers is not trained: take the stage autoencoder out of stages")
        if list(self.stages) != [stage for stage in STAGES if stage in self.stages] or not self.stages:
            raise ValueError(f"stages {list(self.stages)} must be one or more of {', '.join(STAGES)}, in this order")
        with torch.device("cpu"):  # whatever default the caller has set
            Schedule(**dataclasses.asdict(self.diffusion))  # ValueError where the betas leave no signal

    @property
    def factor(self) -> int:
        """Side of the images over side of x_0."""
        if self.autoencoder is not None:
            return self.autoencoder.factor
        return 2 if self.space == "wavelet" else 1

    @property
    def space_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of x_0, which the diffusion runs on."""
        side = self.images.resolution // self.factor
        if self.autoencoder is not None:
            return self.autoencoder.latent_channels, side, side
        return self.images.channels * self.factor**2, side, side


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


def with_fields(config: Config, values: Mapping[str, Any], origin: str = "the config") -> Config:
    """`config` with other `values`, by dotted names ("stage2.epochs").

    Another space leaves out what a latent one has, and the gain that was measured in it.

    Raises:
        UserError: as `from_dict`; a name goes below a field that holds no others.
    """
    tree = to_dict(config)
    if values.get("space", "latent") != "latent":
        left_out = {"autoencoder": None, "stage1": None, "slim_decoder": None, "stages": ["gan"], "sample_gain": 1.0}
        values = {**left_out, **values}
    for name, value in values.items():
        branch = tree
        *groups, leaf = name.split(".")
        for group in groups:
            branch = branch.setdefault(group, {})
            if not isinstance(branch, dict):
                raise UserError(f"there is no field '{name}' here: --dry-run shows those there are")
        branch[leaf] = value
    return from_dict(tree, origin)


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
        raise UserError(f"'{path}' cannot be read as YAML ({first_line(error)}): mend the file") from None
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


def defaults(kind: type = Config, prefix: str = "") -> dict[str, str]:
    """Dotted name -> default as `identity` writes it, of every field that has one."""
    inner, found = _parts(kind), {}
    for field in dataclasses.fields(kind):
        for part in inner[field.name]:
            found |= defaults(part, f"{prefix}{field.name}.")
        if not inner[field.name] and field.default is not dataclasses.MISSING:
            value = list(field.default) if isinstance(field.default, tuple) else field.default
            found[prefix + field.name] = str(value)
    return found


def field_names(kind: type = Config, prefix: str = "") -> list[str]:
    """Every field by its dotted name; of a part that may be of several kinds, those of each."""
    names: dict[str, None] = {}
    for name, kinds in _parts(kind).items():
        for part in kinds:
            names |= dict.fromkeys(field_names(part, f"{prefix}{name}."))
        if not kinds:
            names[f"{prefix}{name}"] = None
    return list(names)


def _parts(kind: type) -> dict[str, list[type]]:
    """Every field of a dataclass, with the dataclasses it may hold."""
    return {
        name: [part for part in (annotation, *get_args(annotation)) if dataclasses.is_dataclass(part)]
        for name, annotation in get_type_hints(kind).items()
    }  # type: ignore[return-value]


def _sentence(error: ValidationError) -> str:
    # Of a number that may be whole or not, what is wrong is said once; and pydantic puts kinds into the path.
    first = next(part for part in error.errors() if part["loc"][-1:] != ("constrained-int",))
    kinds = {AutoencoderConfig.__name__, DiffusersConfig.__name__, "unet", "vit", "constrained-float"}
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
