"""Settings that several studies share: how whole models and heads are tuned and tested."""

from dataclasses import dataclass

from posttrain.config.fields import one_of, setting
from posttrain.errors import UserError
from posttrain.models.features import Pooling


@dataclass(frozen=True)
class RateSettings:
    """Whole models, each arm at a learning rate of its own and at one that all arms share."""

    learning_rates: list[float] = setting([1e-3, 3e-3, 1e-2], "Peak learning rates to choose from.")
    shared_learning_rate: float = setting(3e-3, "The one at which all arms are also compared.")
    test_share: float = setting(0.3, "Share of split groups kept for testing.")
    validation_share: float = setting(0.2, "Share of training groups that judge learning rates.")

    def __post_init__(self) -> None:
        one_of(self, "shared_learning_rate", "learning_rates")


@dataclass(frozen=True)
class TopLayerSettings:
    """Defaults for human data: SmolLM2's top layers, which a CPU can train."""

    top_layers: int = setting(6, "Last layers to train; 0 trains the whole model.")
    batch_size: int = setting(16, "Groups per step.")
    learning_rates: list[float] = setting([1e-4, 3e-4], "Peak learning rates to choose from.")
    shared_learning_rate: float = setting(1e-4, "The one at which all arms are also compared.")


@dataclass(frozen=True)
class FrozenSettings:
    """Linear heads on frozen features, each arm at a penalty of its own and at a shared one."""

    folds: int = setting(8, "Outer folds, by group.")
    inner_folds: int = setting(3, "Folds inside the training groups, for tuning.")
    penalties: list[float] = setting(
        [1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0], "L2 penalties to choose from."
    )
    shared_penalty: float = setting(1e-1, "The one at which all arms are also compared.")
    layer: int = setting(24, "How many layers of the backbone to run.")
    pooling: Pooling = setting("mean", "How hidden states become one vector.")
    max_tokens: int = setting(512, "Longest prompt with a response; prompts are cut on the left.")

    def __post_init__(self) -> None:
        if not self.penalties or sorted(self.penalties) != self.penalties:
            raise UserError(f"penalties must be one or more, ascending, not {self.penalties}")
        one_of(self, "shared_penalty", "penalties")
