"""Help pages: which settings matter, in what order, and examples that run as pasted.

A test runs all examples in the order of :data:`PAGES`, in one folder, but for those that say that
they need something else (:data:`NEEDS`).
"""

import argparse

from posttrain.config.help import Page

#: Begins the remark at the end of an example that does not run without more.
NEEDS = "# needs"

#: An option that is read before all others.
CONFIG = argparse.Action(
    ["--config"],
    "config",
    metavar="FILE",
    help="A YAML file with settings, such as those in runs/; options win.",
)

#: Libraries explain these at length, or not as they are here.
TEXTS = {
    "output_dir": "Folder of what is trained and its checkpoints. By default trainer_output.",
    "max_steps": "Stop after so many steps, in place of num_train_epochs; -1: no limit.",
    "bf16": "Compute in bfloat16; the weights stay as they are.",
    "activation_checkpointing": "Compute layers again rather than keep what they computed, which "
    "saves memory.",
    "use_cpu": "Train on the CPU, also where there is a GPU.",
    "seed": "Seeds new weights and the order of data.",
    "eval_strategy": "Whether to evaluate during training: every eval_steps, or after each epoch.",
    "eval_steps": "Steps between evaluations, or, below 1, their share of all steps. By default "
    "logging_steps.",
    "save_strategy": "When to write a checkpoint, from which --resume goes on.",
    "save_steps": "Steps between checkpoints, or, below 1, their share of all steps.",
    "save_total_limit": "Most checkpoints to keep, the last ones. By default all.",
    "report_to": "Where to log: tensorboard, wandb, trackio and the like, or none.",
    "max_length": "Most tokens of a prompt with its response; see skip_too_long.",
    "per_device_train_batch_size": "Examples that a device computes at once.",
    "gradient_accumulation_steps": "Such batches of one step.",
    "num_train_epochs": "Passes over the data.",
    "lr_scheduler_type": "Schedule of the learning rate, by transformers' names.",
    "warmup_steps": "Steps of linear warm-up, or, below 1, their share of all steps.",
    "logging_steps": "Steps between logs, or, below 1, their share of all steps.",
    "beta": "How closely the policy is held to the reference; the β of DPO.",
}

_OUTPUT = (
    "output_dir resume overwrite_output_dir save_strategy save_steps save_total_limit "
    "logging_steps report_to"
)

_SCORING = {
    "data": "data columns domain min_difference skip_bad",
    "model": "model dtype attention pad_token chat_template device batch_tokens seed",
    "rows": "layout max_tokens skip_too_long pack_length",
    "calibration": "calibrated calibration",
    "a second model, of safety": "safety_model safety_calibration rule threshold safety_weight "
    "flags",
    "output": "output best top resamples",
}

_POLICY = {
    "data": "data columns max_length min_strength min_difference skip_bad skip_too_long",
    "model and LoRA": "model dtype attention chat_template reference lora_rank lora_alpha",
    "loss": "completion_only_loss beta mask_format_tokens nll_weight nll_normalization",
    "optimisation": "num_train_epochs max_steps learning_rate lr_scheduler_type warmup_steps "
    "per_device_train_batch_size gradient_accumulation_steps seed bf16 gradient_checkpointing "
    "use_cpu",
    "output": _OUTPUT,
}

_SIMULATE = (
    "posttrain data simulate mine.jsonl --groups 500",
    "posttrain data simulate held_out.jsonl --groups 200 --seed 1",
)
_TRAIN = (
    "posttrain train --model tiny --data mine.jsonl --output_dir rewards --pairs_per_step 32 "
    "--learning_rate 2e-3"
)
_EVALUATE = "posttrain evaluate --model rewards --data held_out.jsonl"

#: By command; that of no command is the first page.
PAGES: dict[str, Page] = {
    "": Page(examples=(*_SIMULATE, _TRAIN, _EVALUATE)),
    "data": Page(
        examples=(*_SIMULATE, "posttrain data check mine.jsonl held_out.jsonl"),
    ),
    "data simulate": Page(
        examples=("posttrain data simulate edited.jsonl --groups 200 --edited_share 0.5",),
    ),
    "data check": Page(
        examples=(
            "posttrain data check mine.jsonl",
            "posttrain data check mine.jsonl --model tiny",
        ),
        after=("data",),
    ),
    "data convert": Page(
        examples=(
            f"posttrain data convert seeda SEEDA seeda.jsonl.gz  {NEEDS} a clone of tmu-nlp/SEEDA",
        ),
    ),
    "train": Page(
        groups={
            "data": "data columns mix min_strength min_difference skip_bad",
            "rows": "layout max_tokens skip_too_long",
            "loss": "loss_type pairs weighting margins edit_margins center_rewards_coefficient",
            "optimisation": "num_train_epochs max_steps learning_rate warmup_steps weight_decay "
            "pairs_per_step max_tokens_per_device seed bf16 activation_checkpointing use_cpu",
            "model and LoRA": "model dtype attention chat_template top_layers lora_rank lora_alpha",
            "evaluation": "eval_data eval_fraction eval_strategy eval_steps "
            "early_stopping_patience",
            "output": _OUTPUT,
        },
        seldom="split_seed merge_prompts pack_length pad_token model_revision lora_dropout "
        "lora_target_modules disable_dropout early_stopping_threshold groups_per_step "
        "lr_scheduler_type min_learning_rate_share min_warmup_steps adam_beta2 adam_epsilon "
        "auxiliary_weight processes resamples per_device_train_batch_size "
        "per_device_eval_batch_size",
        texts=TEXTS,
        examples=(
            _TRAIN,
            "posttrain train --model tiny --data mine.jsonl --eval_data held_out.jsonl "
            "--output_dir adapted --lora_rank 8 --pairs_per_step 32 --learning_rate 2e-3",
            "posttrain train --model tiny --data simulator:1000 --output_dir ranked "
            "--loss_type plackett-luce --pairs_per_step 32 --max_steps 20",
        ),
        after=("data",),
    ),
    "evaluate": Page(
        groups=_SCORING,
        examples=(
            _EVALUATE,
            "posttrain evaluate --model rewards --data held_out.jsonl --output evaluation.json",
        ),
        after=("data", "train"),
    ),
    "calibrate": Page(
        groups=_SCORING,
        examples=(
            "posttrain calibrate --model rewards --data held_out.jsonl",
            "posttrain score --model rewards --data mine.jsonl --calibrated",
        ),
        after=("data", "train"),
    ),
    "sample": Page(
        groups={
            "prompts": "data columns prompts skip_bad skip_too_long",
            "model": "model dtype attention chat_template device",
            "samples": "samples temperature max_new_tokens sampling_seed sampling_batch",
            "scores": "reward_model combine keep share",
            "output": "output",
        },
        examples=(
            "posttrain sample --model tiny --data held_out.jsonl --prompts 20 --samples 4 "
            "--max_new_tokens 64",
            "posttrain sample --model tiny --data held_out.jsonl --prompts 20 --samples 4 "
            "--max_new_tokens 64 --reward_model rewards --output rated.jsonl",
        ),
        after=("data", "train"),
    ),
    "score": Page(
        groups=_SCORING,
        examples=(
            "posttrain score --model rewards --data held_out.jsonl",
            "posttrain score --model rewards --data samples.jsonl --best --output best.jsonl",
            "posttrain score --model rewards --data samples.jsonl --top 2 --output two.jsonl",
        ),
        after=("data", "train", "sample"),
    ),
    "sft": Page(
        groups=_POLICY,
        seldom="lora_dropout",
        texts=TEXTS,
        examples=(
            "posttrain sft --model tiny --data best.jsonl --output_dir finetuned --max_steps 10",
            "posttrain sft --model tiny --data mine.jsonl --output_dir on_chosen --max_steps 10",
        ),
        after=("data", "score"),
    ),
    "dpo": Page(
        groups=_POLICY,
        seldom="lora_dropout",
        texts=TEXTS,
        examples=(
            "posttrain dpo --model finetuned --data rated.jsonl --output_dir preferred "
            "--max_steps 10",
            "posttrain dpo --model tiny --data mine.jsonl --min_strength 3 --lora_rank 8 "
            "--output_dir strong --max_steps 10",
        ),
        after=("data", "sft"),
    ),
    "rounds": Page(
        groups={
            "rounds": "rounds output_dir first_data",
            "prompts and answers": "prompt_data pairs prompts samples temperature max_new_tokens",
            "annotation": "judge edited",
            "what is trained on what": "stages share random_choice fresh_reward_model restart "
            "all_demonstrations all_preferences",
            "models and their training": "model reward_model sft dpo seed device",
            "evaluation": "evaluation_prompts",
        },
        examples=(
            "posttrain rounds --model tiny --output_dir rounds --rounds 1 --pairs 60 --prompts 20 "
            "--samples 4 --max_new_tokens 64 --evaluation_prompts 20",
        ),
    ),
    "average": Page(
        examples=(
            "posttrain average finetuned preferred --output_dir mean",
            "posttrain average rewards adapted --output_dir mean_rewards",
        ),
        after=("data", "train", "sft", "dpo"),
    ),
    "study": Page(
        examples=(
            "posttrain study rows --groups 200",
            "posttrain study margin --sizes 50 100 --seeds 1 --groups 400 --learning_rates 3e-3",
        ),
    ),
    "claims": Page(
        examples=(
            "posttrain claims --results results",
            "posttrain claims large-margin-helps --results results",
        ),
        after=("study",),
    ),
    "gpu-study": Page(
        examples=(f"posttrain gpu-study --output measured  {NEEDS} a GPU",),
    ),
}
