"""``posttrain rounds``: rounds of post-training, each a function of the last."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import torch

from posttrain.commands.common import parse
from posttrain.commands.models import find_device
from posttrain.config.fields import at_least_one, setting
from posttrain.data.preferences import fingerprint
from posttrain.data.prompts import iterate_prompts
from posttrain.data.reading import write_groups
from posttrain.data.sources import named
from posttrain.data.sources.simulator.gold import gold, task_of
from posttrain.errors import UserError
from posttrain.models import embedded, reward_model
from posttrain.models.loading import contents
from posttrain.policy import judges, prompts
from posttrain.policy.progress import measure_policy
from posttrain.policy.rounds import RoundRecipe, State, Workshop, next_round
from posttrain.storage.files import whole_file

logger = logging.getLogger(__name__)

SIMULATOR, PEOPLE = "simulator", "people"


@dataclass(frozen=True)
class RoundsSettings(RoundRecipe):
    """Settings of ``posttrain rounds``."""

    model: str = setting(None, "The pre-trained checkpoint: a folder, a name on the hub, or tiny.")
    output_dir: str = setting(None, "Folder of all results.")
    rounds: int = setting(6, "How many rounds (Llama 3: six).")
    prompt_data: list[str] = setting(
        ["simulator"],
        "Where prompts come from: simulator, or the prompts of files and other sources. A tenth "
        "of these is kept for evaluation.",
    )
    judge: str = setting(
        "simulator",
        "Who compares answers: simulator (its annotators; needs prompts of the simulator), the "
        "folder of a reward model, or people, who annotate a file between two calls.",
    )
    edited: float = setting(
        0.0, "Share of chosen answers that the simulator's editors get (judge: simulator)."
    )
    first_data: list[str] = setting([], "Preference data that came before the first round.")
    evaluation_prompts: int = setting(100, "Prompts on which policies are measured.")
    device: str | None = setting(None, "Device, such as cuda or cpu; by default a GPU if any.")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "rounds", "evaluation_prompts")
        if not 0 <= self.edited <= 1:
            raise UserError(f"edited must lie from 0 to 1, not {self.edited}")
        if self.edited and self.judge != SIMULATOR:
            raise UserError(
                "edited is for the simulator's annotators; people and their files say themselves "
                "what is edited (see posttrain data check)"
            )
        for name in ("model", "output_dir"):
            if not getattr(self, name):
                raise UserError(f"give {name}")
        if self.judge == SIMULATOR and self.prompt_data != [SIMULATOR]:
            raise UserError(
                "the simulator's annotators know the truth of its own prompts only; set "
                "prompt_data to simulator, or judge to a reward model's folder or people"
            )


def main(arguments: Sequence[str]) -> int:
    """Run ``posttrain rounds`` and return its exit code."""
    (settings,) = parse(
        "rounds",
        (RoundsSettings,),
        "Rounds of post-training as in Llama 3: annotate, train a reward model, sample and keep "
        "the best, SFT, DPO. Every step leaves a folder in --output_dir; given again, the command "
        "goes on where it stopped.",
        arguments,
    )
    datasets.disable_progress_bars()
    state = run(settings)
    print(f"the policy: {state.policy}")
    print(f"its reward model: {state.reward_models[-1]}")
    print(f"all rounds: {Path(settings.output_dir) / 'rounds.json'}")
    return 0


def run(settings: RoundsSettings) -> State:
    """All rounds; ``rounds.json`` says after each what was made and how far the policy has come.

    Raises:
        UserError: If settings do not go together, data cannot be read, or people are to annotate.
    """
    folder = Path(settings.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    workshop = _workshop(settings, folder)
    recipe = RoundRecipe(**{name: getattr(settings, name) for name in _RECIPE})
    state = State(workshop.checkpoint, annotations=_first(settings, workshop))
    done = []
    for number in range(1, settings.rounds + 1):
        before = state
        state = next_round(workshop, recipe, before, number)
        scorer = state.reward_models[-1]
        means = measure_policy(
            workshop, recipe, state.policy, scorer, number, settings.evaluation_prompts
        )
        logger.info(
            "round %d: %s",
            number,
            ", ".join(f"{name} {value:.3g}" for name, value in means.items()),
        )
        done.append(
            {
                "round": number,
                "annotations": state.annotations[-1].name,
                "reward model": scorer.name,
                "samples": state.kept[-1].name if len(state.kept) > len(before.kept) else None,
                "policy": state.policy.name,
                "means": means,
            }
        )
        with whole_file(folder / "rounds.json") as file:
            json.dump({"settings": asdict(settings), "rounds": done}, file, indent=2)
    return state


_RECIPE = tuple(RoundRecipe.__dataclass_fields__)


def _workshop(settings: RoundsSettings, folder: Path) -> Workshop:
    found = embedded.find(settings.model)
    device = find_device(settings.device)
    simulated = settings.prompt_data == [SIMULATOR]
    if simulated:
        draw, asked = prompts.simulated(settings.seed), SIMULATOR
    else:
        pool = [one.messages for source in settings.prompt_data for one in iterate_prompts(source)]
        draw, asked = prompts.listed(pool, settings.seed), _hash(pool)
    judge, judged = _judge(settings, folder, device)
    return Workshop(
        Path(found),
        draw,
        judge,
        folder,
        base=contents(found),
        judged=f"{asked}; {judged}; seed {settings.seed}",
        device=device,
        report=logger.info,
        truth=(lambda prompt, text: gold(task_of(prompt), text)) if simulated else None,
    )


def _hash(pool: Sequence[prompts.Prompt]) -> str:
    return hashlib.sha256(repr(pool).encode()).hexdigest()[:16]


def _judge(
    settings: RoundsSettings, folder: Path, device: torch.device
) -> tuple[judges.Judge, str]:
    if settings.judge == SIMULATOR:
        edited = f", edited {settings.edited}" if settings.edited else ""
        return judges.Annotators(edited=settings.edited), SIMULATOR + edited
    if settings.judge == PEOPLE:
        return judges.People(folder), PEOPLE
    model, tokenizer = reward_model.load(settings.judge)
    if reward_model.has_fresh_head(model):
        raise UserError(
            f"{settings.judge} has no score head, so it is no reward model that could judge; train "
            "one (posttrain train), or set judge to people"
        )
    model.to(device)  # type: ignore[arg-type]
    return judges.RewardJudge(model, tokenizer), contents(settings.judge)


def _first(settings: RoundsSettings, workshop: Workshop) -> tuple[Path, ...]:
    if not settings.first_data:
        return ()
    groups = [group for source in settings.first_data for group in named.iterate(source)]
    return (
        workshop.make(
            "first-annotations",
            {"content": fingerprint(groups)},
            [],
            lambda path: write_groups(path / "pairs.jsonl", groups),
        ),
    )
