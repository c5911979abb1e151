"""What training takes: counted tensor by tensor, and bounded in processes of their own."""

import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig

from posttrain.errors import UserError
from posttrain.models import memory
from posttrain.models.memory import fitting_tokens, layer_bytes, token_bytes, widths
from posttrain.models.reward_model import forward_scores
from posttrain.rows.attention import share_prefixes
from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.rows.tokenization import TokenizedGroup

CPU = torch.device("cpu")


def make(layers=2, hidden=64, inner=160, heads=4, keys=2):
    config = LlamaConfig(
        vocab_size=50, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=keys, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    share_prefixes(model)
    return model


def kept_bytes(model, group, *, half):
    """Bytes of all that a forward keeps for its backward pass, weights aside."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = lay_out([group], LAYOUTS["exact"], pad_token_id=0)
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        scores = forward_scores(model, batch)
    assert scores.requires_grad
    return sum(size for place, size in kept.items() if place not in weights)


@pytest.mark.parametrize("responses", [1, 2, 8])
@pytest.mark.parametrize("half", [False, True])
def test_a_layer_keeps_as_much_of_a_token_as_the_formula_says(half, responses):
    def kept(layers, size):
        part = (7,) * (size // responses)
        group = TokenizedGroup((5,) * size, (part,) * responses)
        return kept_bytes(make(layers), group, half=half)

    # Between two numbers of layers and of tokens all else drops out.
    slope = (kept(4, 512) - kept(2, 512)) - (kept(4, 256) - kept(2, 256))
    # In separate rows a response reads its prompt and itself: so many keys of each token.
    copies = (responses * 512 + 512) / 1024
    if responses == 1:
        # A plain sequence, of which nothing is gathered.
        copies = 0
    config = make().config
    fewest, most = (layer_bytes(config, half=half, responses=n) for n in (0, 1))
    expected = fewest + copies * (most - fewest)
    assert slope / 2 / 512 == pytest.approx(expected, rel=0.1)


def test_widths_of_configurations_with_other_names():
    config = LlamaConfig(hidden_size=64, intermediate_size=9, num_attention_heads=4, head_dim=32)
    assert widths(config) == (64, 9, 128, 128)
    from transformers import GPT2Config, MixtralConfig

    assert widths(GPT2Config(n_embd=64, n_head=4)) == (64, 256, 64, 64)
    mixture = MixtralConfig(hidden_size=64, intermediate_size=100, num_attention_heads=4,
                            num_key_value_heads=2, num_experts_per_tok=2)  # fmt: skip
    assert widths(mixture) == (64, 200, 64, 32)


def test_only_layers_that_train_keep_anything():
    model = make(layers=6)
    whole = token_bytes(model, half=False)
    for layer in model.model.layers[:4]:
        layer.requires_grad_(False)
    part = token_bytes(model, half=False)
    one = layer_bytes(model.config, half=False, responses=memory.RESPONSES)
    assert (whole, part) == (7 * one, 3 * one)
    assert token_bytes(model, half=False, checkpointing=True) < part


def test_the_room_is_what_weights_and_optimiser_leave(monkeypatch):
    model = make()
    numbers = sum(weight.numel() for weight in model.parameters())
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1e9)
    room = fitting_tokens(model, CPU)
    assert room == int((0.6e9 - 12 * numbers) / token_bytes(model, half=False))
    assert fitting_tokens(model, CPU, processes=2) == pytest.approx(room / 2, rel=0.01)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 12 * numbers)
    with pytest.raises(UserError, match=r"do not fit: .*--top_layers, --lora_rank"):
        fitting_tokens(model, CPU)


#: Trains two steps on as many tokens as there is room for in so many bytes; prints what it took.
STEPS = """
import sys
from pathlib import Path
import torch
from test_memory import make
from posttrain.models import memory
from posttrain.models.reward_model import forward_scores
from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.rows.tokenization import TokenizedGroup

def bytes_of(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name + ":")))

allowed, *sizes = map(int, sys.argv[1:])
torch.manual_seed(0)
model = make(*sizes)
memory.free_bytes = lambda device: allowed
# Kernels and threads are set up.
part = TokenizedGroup((5,) * 8, ((6,) * 4,) * 4)
forward_scores(model, lay_out([part], LAYOUTS["exact"], pad_token_id=0)).sum().backward()
model.zero_grad(set_to_none=True)
optimizer = torch.optim.AdamW(model.parameters())
tokens = memory.fitting_tokens(model, torch.device("cpu"))
before = bytes_of("VmRSS")
group = TokenizedGroup((5,) * (tokens // 2), ((6,) * (tokens // 8),) * 4)
for _ in range(2):
    forward_scores(model, lay_out([group], LAYOUTS["exact"], pad_token_id=0)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print(tokens, bytes_of("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("sizes", "allowed"),
    [((2, 256, 1024, 4, 4), 150), ((6, 192, 512, 3, 1), 200), ((12, 128, 256, 2, 2), 250)],
)
def test_training_takes_no_more_than_what_is_free(sizes, allowed, monkeypatch, tmp_path):
    from pathlib import Path

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(allowed * 10**6), *map(str, sizes)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tokens, taken = map(int, done.stdout.split())
    assert tokens > 500
    # Within what is free, and not for being far too careful.
    assert 0.25 * allowed * 1e6 < taken < allowed * 1e6
