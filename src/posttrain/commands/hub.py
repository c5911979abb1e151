"""The Hugging Face hub as the place of a finished model (``push_to_hub``)."""

import logging
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled
from transformers import TrainingArguments

from posttrain.errors import UserError
from posttrain.models.refusals import shortened

logger = logging.getLogger(__name__)


def check_hub(config: TrainingArguments) -> None:
    """With ``push_to_hub``, make sure that the hub will take the model, before it is trained.

    The repository is created if it is not there, and ``hub_model_id`` becomes its full name.

    Raises:
        UserError: If there is no network or no token, or it may not write.
    """
    if not config.push_to_hub or config.process_index:
        return
    api = HfApi(token=config.hub_token)
    name = config.hub_model_id or Path(str(config.output_dir)).absolute().name
    try:
        api.whoami()
        repository = api.create_repo(name, private=config.hub_private_repo, exist_ok=True)
        if config.hub_revision:
            api.create_branch(repository.repo_id, branch=config.hub_revision, exist_ok=True)
    except LocalTokenNotFoundError:
        reason = "there is no token: run hf auth login, or set HF_TOKEN"
    except OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set: unset it"
    except Exception as error:  # the hub's client raises errors of many libraries
        reason = f"{shortened(error)}: check the network, and that the token may write"
    else:
        config.hub_model_id = repository.repo_id
        return
    raise UserError(
        f"push_to_hub: the hub would not take {name} ({reason}); or leave push_to_hub out and run "
        f"hf upload {name} {config.output_dir} --exclude 'checkpoint-*' when it is trained"
    )


def push(config: TrainingArguments, folder: Path, names: Sequence[str]) -> None:
    """With ``push_to_hub``, upload a finished model: of its folder what has these names.

    Raises:
        UserError: If the hub does not take it; it stays where it is.
    """
    if not config.push_to_hub:
        return
    name = str(config.hub_model_id)
    try:
        HfApi(token=config.hub_token).upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="A reward model",
            allow_patterns=[pattern for name in names for pattern in (name, f"{name}/*")],
            revision=config.hub_revision,
        )
    except Exception as error:  # the hub's client raises errors of many libraries
        raise UserError(
            f"{folder} holds the finished model, which could not be uploaded "
            f"({shortened(error)}); run hf upload {name} {folder} --exclude 'checkpoint-*'"
        ) from error
    logger.info("uploaded to %s", name)
