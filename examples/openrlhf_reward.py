"""A reward function for OpenRLHF that asks a vLLM server for the scores of a reward model.

OpenRLHF gives each label as it stands in the data, and texts in the chat format of the policy. The
label is to be the prompt, a text or a list of messages, so that the server can write it in the
reward model's own chat format: --data.label_key names the same field as --data.input_key.
"""

import requests
import torch

#: Where the reward model answers.
SERVER = "http://127.0.0.1:8000"
#: What ends a response of the policy: its tokenizer's eos_token.
END = "<|im_end|>"


def reward_func(queries, prompts, labels, **_):
    """Scores of responses; each query is a prompt of the policy with its response."""
    rewards = torch.tensor(
        [
            score(label, response_of(query, prompt))
            for query, prompt, label in zip(queries, prompts, labels, strict=True)
        ]
    )
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}}


def response_of(query: str, prompt: str) -> str:
    """The text between the prompt and the end token."""
    if not query.startswith(prompt):
        raise ValueError(f"the query does not begin with its prompt: {query!r}, {prompt!r}")
    return query[len(prompt) :].removesuffix(END).strip()


def score(asked: str | list[dict[str, str]], response: str) -> float:
    """What the reward model gives to a response."""
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    answer = requests.post(
        f"{SERVER}/classify",
        json={"messages": [*turns, {"role": "assistant", "content": response}]},
        timeout=180,
    )
    answer.raise_for_status()
    return answer.json()["data"][0]["probs"][0]
