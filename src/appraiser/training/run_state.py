"""Where a run stands, besides its weights: everything the loop remembers from one step to the next."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class StepStats:
    """Numbers of one step."""

    loss: float
    grad_norm: float
    part_norms: dict[str, float]
    """Gradient norm of each trained part, before clipping."""
    learning_rate: float
    num_tokens: int
    num_pictures: int
    seconds: float
    data_wait_s: float
    """Of these seconds, how long the step waited for its examples."""
    work: float
    """Floating-point operations of its matrix products, over all ranks."""
    extra: dict[str, float] = field(default_factory=dict)


@dataclass
class RunState:
    """JSON-serialisable; kept in every checkpoint."""

    dataset_hash: str = ""
    """Of the data set's content: going on with other products would be another run."""
    step: int = 0
    trained_s: float = 0.0
    num_pictures: int = 0
    num_tokens: int = 0
    micro_batch_size: int | None = None
    """Set where memory forced a smaller one than the settings'."""
    is_validated: bool = True
    """False: the validation due at this step has not been finished."""
    is_over: bool = False
    is_hopeless: bool = False
    """Ended by run.patience."""
    best_score: float | None = None
    best_step: int = 0
    best_metrics: dict[str, Any] = field(default_factory=dict)
    without_gain: int = 0
    """Validations since the best one."""
    window: list[StepStats] = field(default_factory=list)
    """Steps since the last line of metrics.jsonl."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> RunState:
        window = [StepStats(**stats) for stats in saved["window"]]
        return cls(**{**saved, "window": window})

    def score(self, metrics: dict[str, Any], score: float) -> bool:
        """Remember a validation; whether it is the best so far."""
        self.is_validated = True
        is_best = self.best_score is None or score > self.best_score
        self.without_gain = 0 if is_best else self.without_gain + 1
        if is_best:
            self.best_score, self.best_step, self.best_metrics = score, self.step, metrics
        return is_best
