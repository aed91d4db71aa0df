"""Reading of configurations: a file of any content gives a configuration or an error of one line."""

from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers.configuration_utils import PreTrainedConfig

from vividmed.errors import VividMedError

# What transformers and torch raise while they build a model from a configuration of any content.
UNBUILDABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)

_LARGEST = {
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 19,
    "decoder_intermediate_size": 1 << 19,
    "num_hidden_layers": 256,
    "decoder_num_hidden_layers": 256,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "head_dim": 1 << 12,
    "decoder_num_attention_heads": 1024,
    "num_channels": 16,
    "num_instance_queries": 1 << 12,
    "vocab_size": 1 << 22,
}
"""Sizes above these are damage, and would take minutes and all memory to build."""

_LARGEST_EXTENT = 1 << 12


class CheckedConfig(PreTrainedConfig):
    """A configuration that is read from files of any content."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a configuration as :meth:`transformers.PreTrainedConfig.from_pretrained` does.

        Raises:
            OSError: there is no such folder or repository.
            VividMedError: config.json is missing or cannot be read, or no model can be built from it.
        """
        source = str(pretrained_model_name_or_path)
        try:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        except OSError as error:
            if "valid JSON" not in str(error):
                raise
            raise VividMedError(
                f"{source}: config.json is not valid JSON; download or save it again"
            ) from error
        except VividMedError as error:
            raise VividMedError(f"{source}: {error}") from error
        except UNBUILDABLE as error:
            raise unbuildable(error, source) from error

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read config.json as :meth:`transformers.PreTrainedConfig.get_config_dict` does.

        Raises:
            VividMedError: config.json is missing or empty; the library would take the sizes of the published model.
        """
        content, others = super().get_config_dict(*args, **kwargs)
        if content == {}:
            raise VividMedError(
                "there is no config.json, or an empty one; name a folder or Hub repository that a model was saved to"
            )
        return content, others

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build a configuration as :meth:`transformers.PreTrainedConfig.from_dict` does.

        Raises:
            VividMedError: a value is of another type or size than the model can be built with.
        """
        try:
            return super().from_dict(config_dict, **kwargs)
        except VividMedError:
            raise
        except UNBUILDABLE as error:
            raise unbuildable(error) from error

    def validate_sizes(self) -> None:
        """Raise ValueError if a size is impossible; the strict dataclass runs it on every construction."""
        for name, largest in _LARGEST.items():
            size = getattr(self, name, 1)
            # Segmenters may do without instance queries.
            smallest = 0 if name == "num_instance_queries" else 1
            if not smallest <= size <= largest:
                raise ValueError(f"{name}={size} is impossible; give {smallest} to {largest}")
        for name in ("patch_size", "position_grid"):
            sizes = getattr(self, name, (1, 1, 1))
            if len(sizes) != 3 or not all(1 <= size <= _LARGEST_EXTENT for size in sizes):
                raise ValueError(
                    f"{name} must be three sizes (z, y, x) from 1 to {_LARGEST_EXTENT}, not {sizes}"
                )


def unbuildable(error: Exception, source: str = "") -> VividMedError:
    """Build the error for a configuration that no model can be built from."""
    return VividMedError(
        f"{f'{source}: ' if source else ''}no model can be built from config.json ({one_line(error)}); correct it, or "
        "use the one that belongs to the weights"
    )


def one_line(error: Exception) -> str:
    """Text of an error in one printable line, shortened; the name of its class if it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(character for character in text if character.isprintable())[:300]
