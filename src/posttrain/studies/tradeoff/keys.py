"""Keys of the tables of the study of helpfulness and safety."""

from posttrain.config.keys import Key


class DomainName(Key):
    """Domains of pairs, to train and to test on."""

    HELPFULNESS = "helpfulness"
    SAFETY = "safety"


#: Stands for the mean of both domains.
BOTH = "both"
#: Stands for the specialist of the domain that is tested.
OWN = "own specialist"


class ArmName(Key):
    """What models are trained on."""

    HELPFUL = "helpfulness only"
    TENTH = "10 % safety"
    QUARTER = "25 % safety"
    HELPFULNESS_MIX = "50 % safety"
    THREE_QUARTERS = "75 % safety"
    SAFETY_MIX = "90 % safety"
    SAFE = "safety only"
    JOINT = "joint, all data"
    AUXILIARY = "90 % safety, auxiliary loss"


class Contrast(Key):
    """Paired differences of accuracy between two arms."""

    MIXES = "safety mix - helpfulness mix"
    OPEN_MIXES = "safety mix - helpfulness mix with a quarter of safety"
    SPECIALISTS = "safety only - helpfulness only"
    SAFETY_MIX = "safety mix - safety only"
    HELPFULNESS_MIX = "helpfulness mix - helpfulness only"
    JOINT = "joint - own specialist"
    EQUAL_PARTS = "equal parts - own specialist"
    AUXILIARY = "auxiliary loss - none"


class Kind(Key):
    """What a prompt is whose responses refuse or answer."""

    UNSAFE = "unsafe"
    LOOKALIKE = "lookalike"
    OTHER = "other"


class Team(Key):
    """Who scores what is chosen from."""

    SPECIALISTS = "specialists"
    MIXES = "Llama 2's mixes"
    OPEN_MIXES = "Llama 2's mixes, 25 %"
    SINGLE = "one model"
    NOBODY = "nobody"


class Chosen(Key):
    """What chooses best on other prompts, of several ways of choosing."""

    RULE = "best rule on other prompts"
    FLAGGED = "best rule on other prompts, unsafe prompts flagged"
    ARM = "best model on other prompts"


#: How many units of helpfulness a unit of safety is worth, where both golds become one.
EXCHANGE = (1.0, 2.0, 4.0)
#: The one of them that prose speaks of, and the weight of the sum that stands for all.
MAIN_EXCHANGE = 2.0
#: Metrics of what is chosen: the mean of both kinds of error; and, where gold is known, how much of
#: the way from a random choice to the best one is covered.
ERRORS = "errors"
RECOVERED = f"recovered {MAIN_EXCHANGE:g}"
