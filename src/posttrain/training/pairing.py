"""Pairs from a ranking: which comparisons of a group enter the loss, with what margin and weight.

Llama 3 (section 4.1.2) ranks edited > chosen > rejected and does not say which comparisons that
makes. Three are possible, and every subset of them is an objective; :data:`PAIRINGS` names those
that the field uses or that a study needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from posttrain.data.preferences import RESPONSES, PairKind, RankedGroup
from posttrain.errors import UserError
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.training.collator import TrainingGroup, TrainingPair
from posttrain.training.losses import MARGINS, margins_by_strength

Weighting = Literal["pair", "prompt"]
EditMargins = Literal["transitive", "none"]

#: Comparisons of a group with an edited response, by name. Groups without one have chosen >
#: rejected in each of them.
PAIRINGS: dict[str, tuple[PairKind, ...]] = {
    # As if there were no edit.
    "rated": (PairKind.RATED,),
    "rated and edited over chosen": (PairKind.RATED, PairKind.EDITED_CHOSEN),
    "rated and edited over rejected": (PairKind.RATED, PairKind.EDITED_REJECTED),
    "best": (PairKind.EDITED_CHOSEN, PairKind.EDITED_REJECTED),
    "all": (PairKind.RATED, PairKind.EDITED_CHOSEN, PairKind.EDITED_REJECTED),
    # One comparison a group, with and without an edit.
    "edited over chosen": (PairKind.EDITED_CHOSEN,),
    "edited over rejected": (PairKind.EDITED_REJECTED,),
}
# For three responses, each against the next is the same as adding edited > chosen.
PAIRINGS["adjacent"] = PAIRINGS["rated and edited over chosen"]


@dataclass(frozen=True)
class Pairing:
    """How a ranked group becomes comparisons to train on.

    >>> from posttrain.data.preferences import Message
    >>> group = RankedGroup("a", (Message("user", "Why?"),), ("best", "good", "bad"))
    >>> tokens = TokenizedGroup(prompt=(1, 2), responses=((3,), (4,), (5,)))
    >>> for pair in Pairing("best", weighting="prompt").apply(group, tokens).pairs:
    ...     print(pair)
    TrainingPair(winner=0, loser=1, margin=0.0, weight=0.5, strength=0)
    TrainingPair(winner=0, loser=2, margin=0.0, weight=0.5, strength=0)

    Attributes:
        pairs: A key of :data:`PAIRINGS`.
        weighting: ``pair``: every pair weighs 1, so a group with three of them weighs three times
            as much as one with a single pair. ``prompt``: a pair weighs one over the number of its
            group's pairs (InstructGPT's 1/C(K,2)), so all groups weigh the same. The trainer's loss
            is the mean over a step's pairs, so both hold within a step, and between steps as far as
            these hold the same share of edits.
        margins: Margin of chosen > rejected. ``record``: the record's own, as in TRL, or 0 where it
            has none. A key of :data:`.losses.MARGINS`, or a mapping: that of its strength; records'
            own have then no say (see :meth:`leaves_margin`).
        edit_margins: Margins of pairs with an edit, which annotators did not rate. ``transitive``:
            edited beats rejected by at least as much as chosen does, so that pair takes the margin
            of chosen > rejected; how far edited is above chosen nobody said, so that pair has none.
            ``none``: 0 for both.
        min_strength: Least strength at which chosen > rejected is trained on; Llama 3 takes 3. It
            says nothing about pairs with an edit, which stay.
    """

    pairs: str = "all"
    weighting: Weighting = "pair"
    margins: str | Mapping[int, float] = "record"
    edit_margins: EditMargins = "transitive"
    min_strength: int = 1

    def __post_init__(self) -> None:
        for name, known in (
            ("pairs", tuple(PAIRINGS)),
            ("weighting", get_args(Weighting)),
            ("margins", ("record", *MARGINS)),
            ("edit_margins", get_args(EditMargins)),
            ("min_strength", (1, 2, 3, 4)),
        ):
            given = getattr(self, name)
            if given not in known and not isinstance(given, Mapping):
                raise UserError(f"unknown {name} {given!r}; known: {', '.join(map(str, known))}")

    def apply(self, group: RankedGroup, tokens: TokenizedGroup) -> TrainingGroup:
        """The comparisons of one group, of which there may be none.

        Of ``tokens``, responses that became equal to others may be missing, and with them their
        pairs.

        Raises:
            UserError: If a margin or a filter needs a strength that the group does not have.
        """
        roles = RESPONSES[-len(group.responses) :]
        wanted = PAIRINGS[self.pairs] if group.has_edit else (PairKind.RATED,)
        index_of = {place: index for index, place in enumerate(tokens.places)}
        comparisons = []
        for pair in group.pairs():
            kind = f"{roles[pair.winner]} > {roles[pair.loser]}"
            has_both = pair.winner in index_of and pair.loser in index_of
            if has_both and kind in wanted and (kind != PairKind.RATED or self.is_strong(group)):
                ends = index_of[pair.winner], index_of[pair.loser]
                comparisons.append((*ends, self._margin(group, kind), pair.strength or 0))
        if not comparisons:
            return TrainingGroup(tokens, ())
        weight = 1 / len(comparisons) if self.weighting == "prompt" else 1.0
        # Other responses would be computed for nothing.
        used = sorted({place for winner, loser, *_ in comparisons for place in (winner, loser)})
        pairs = (
            TrainingPair(used.index(winner), used.index(loser), margin, weight, strength)
            for winner, loser, margin, strength in comparisons
        )
        return TrainingGroup(tokens.in_order(used), tuple(pairs))

    def leaves_margin(self, group: RankedGroup, applied: TrainingGroup) -> bool:
        """Whether the record's own margin has no say in the comparisons of :meth:`apply`.

        Margins go by strength or are none, or no pair that would take it is trained on.

        >>> from posttrain.data.preferences import Message
        >>> group = RankedGroup("a", (Message("user", "Why?"),), ("good", "bad"), margin=0.5)
        >>> tokens = TokenizedGroup(prompt=(1, 2), responses=((3,), (4,)))
        >>> for pairs in Pairing(), Pairing(margins="none"):
        ...     print(pairs.leaves_margin(group, pairs.apply(group, tokens)))
        False
        True
        """
        taken = any(pair.margin == group.margin for pair in applied.pairs)
        return bool(group.margin) and not (self.margins == "record" and taken)

    def is_strong(self, group: RankedGroup) -> bool:
        """Whether chosen > rejected of a group is trained on; a UserError if nobody rated it."""
        if self.min_strength == 1:
            return True
        if group.strength is None:
            raise UserError(
                f"group {group.id!r} has no strength, so min_strength={self.min_strength} cannot "
                "judge it; use min_strength 1 or data whose pairs are all rated"
            )
        return group.strength >= self.min_strength

    def _margin(self, group: RankedGroup, kind: str) -> float:
        if kind == PairKind.EDITED_CHOSEN or (
            kind != PairKind.RATED and self.edit_margins == "none"
        ):
            return 0.0
        if self.margins == "record":
            margin = group.margin or 0.0
            if abs(margin) > torch.finfo(torch.float32).max:
                raise UserError(
                    f"group {group.id!r}: its margin {margin:g} is beyond float32, in which losses "
                    "are computed; mend the record, or leave all margins aside (--margins none)"
                )
            return margin
        try:
            return margins_by_strength([group.strength], self.margins).item()
        except ValueError as error:
            raise UserError(f"group {group.id!r}: {error}") from None
