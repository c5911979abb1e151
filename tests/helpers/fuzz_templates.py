"""Chat templates: those of the families, those that go wrong, and compositions of their pieces."""

from hypothesis import strategies as st

_GENERATE = "{% if add_generation_prompt %}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + _GENERATE
    + "<|im_start|>assistant\n{% endif %}"
)
#: A prompt is a prefix of the whole, in text, and every part of a record is written.
ORDINARY = {
    "ChatML": CHATML,
    "ChatML with eos": CHATML.replace("{% endfor %}", "{% endfor %}", 1)
    + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}",
    "Llama 2": (
        "{% set ns = namespace(system='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}"
        "{% set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}"
        "{% elif m.role == 'user' %}"
        "{{ bos_token }}[INST] {{ ns.system + m.content | trim }} [/INST]{% set ns.system = '' %}"
        "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
    ),
    "Llama 3": (
        "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n"
        "{{ m.content | trim }}<|eot|>{% endfor %}"
        + _GENERATE
        + "<|start|>assistant<|end|>\n\n{% endif %}"
    ),
    "Mistral": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
        " {{ m.content }}{{ eos_token }}"
        "{% else %}[INST] {{ m.content }}[/INST]{% endif %}{% endfor %}"
    ),
    "plain": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
        + _GENERATE
        + "assistant:{% endif %}"
    ),
    "with tools and a date": (
        "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"
        "{% set date = date_string | default('26 Jul 2024') %}Today: {{ date }}\n" + CHATML
    ),
}
PECULIAR = {
    "Gemma": (
        "{{ bos_token }}{% if messages[0].role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}<start>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<end>\n{% endfor %}" + _GENERATE + "<start>model\n{% endif %}"
    ),
    # Drops the reasoning of earlier turns; an answer without any begins with an empty block.
    "Qwen 3": (
        "{% set ns = namespace(last=-1) %}{% for m in messages %}"
        "{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% set parts = m.content.split('</think>') %}"
        "{% if loop.index0 > ns.last %}<think>\n"
        "{{ parts[0].split('<think>')[-1].strip('\n') if parts | length > 1 else '' }}"
        "\n</think>\n\n{% endif %}{{ parts[-1].lstrip('\n') }}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        + _GENERATE
        + "<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    "drops the system message": CHATML.replace("<|im_start|>{{ m", "{% if m.role != 'system' %}"
        "<|im_start|>{{ m").replace("<|im_end|>\n{% endfor", "<|im_end|>\n{% endif %}{% endfor"),
    "puts the system message last": (
        "{% for m in messages if m.role != 'system' %}{{ m.role }}> {{ m.content }}\n{% endfor %}"
        "{% for m in messages if m.role == 'system' %}(remember: {{ m.content }}){% endfor %}"
        + _GENERATE + "assistant> {% endif %}"
    ),
    "counts its turns": "{{ bos_token }}{{ messages | length }} turns\n" + CHATML,
    "counts its turns first": "{{ messages | length }} turns\n" + CHATML,
    "writes the last user turn otherwise": (
        "{{ bos_token }}{% for m in messages %}"
        "{% if loop.last and m.role == 'user' %}Answer this. {% endif %}"
        "{{ m.role }}\n{{ m.content }}\n{% endfor %}" + _GENERATE + "assistant\n{% endif %}"
    ),
    "ignores the response": (
        "{{ bos_token }}{% for m in messages if m.role == 'user' %}{{ m.content }}\n{% endfor %}"
    ),
    "writes the response first": (
        "{{ bos_token }}{{ messages[-1].content }}\nanswers"
        "{% for m in messages[:-1] %} {{ m.content }}{% endfor %}"
    ),
    "texts alone": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "fails": "{{ messages[0].content + 1 }}",
    "fails on an answer": (
        "{% for m in messages %}{{ m.content }}"
        "{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
    ),
    "writes nothing": "{{ '' }}",
    "is not Jinja": "{% for m in messages %}{{ m.content }",
}  # fmt: skip


@st.composite
def composed(draw) -> str:
    """A template that nobody wrote, of pieces that somebody did."""
    pick = lambda *choices: draw(st.sampled_from(choices))  # noqa: E731
    before = pick("", "<|im_start|>", "[INST] ", "### ", "\n", " ")
    after = pick("<|im_end|>\n", "<|im_end|>", "{{ eos_token }}", "\n\n", " ", "", " [/INST]")
    name = pick("{{ m.role }}\n", "{{ m.role | capitalize }}: ", "{{ m.role }}:", "")
    text = pick("{{ m.content }}", "{{ m.content | trim }}", "{{ m.content | upper }}",
                "{{ m.content.split('</think>')[-1] }}")  # fmt: skip
    turn = f"{before}{name}{text}{after}"
    turn = pick(
        turn,
        turn,
        f"{{% if m.role == 'system' %}}{{{{ m.content }}}}{after}{{% else %}}{turn}{{% endif %}}",
        f"{{% if m.role != 'system' %}}{turn}{{% endif %}}",
        f"{{% if m.role == 'user' and loop.last %}}({turn}){{% else %}}{turn}{{% endif %}}",
        f"{{% if m.role == 'assistant' and not loop.last %}}…{{% else %}}{turn}{{% endif %}}",
    )
    head = pick("", "", "{{ bos_token }}", "\n", "{{ messages | length }}", "Be kind.\n")
    tail = pick("", "", "{{ eos_token }}", "\n", "{{ pad_token }}", " ")
    opening = f"{before}{name.replace('m.role', repr('assistant'))}"
    begin = pick(opening, opening, opening.rstrip(), opening + "<think>\n", opening + " ", "", "?")
    return (
        f"{head}{{% for m in messages %}}{turn}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{begin}{{% else %}}{tail}{{% endif %}}"
    )


def templates():
    """A template of a family, a peculiar one, or a composition."""
    return (
        st.sampled_from(list(ORDINARY.values()))
        | st.sampled_from(list(PECULIAR.values()))
        | composed()
    )
