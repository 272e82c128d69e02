"""Folders on the Hugging Face Hub. The hub is contacted only when a source is written as "hf-hub:OWNER/NAME"."""

import os
from pathlib import Path

from shared.errors import UserError
from shared.text import one_line

PREFIX = "hf-hub:"


def is_hub(source: str | Path) -> bool:
    return str(source).startswith(PREFIX)


def resolve(source: str | Path, patterns: list[str]) -> Path:
    """The folder of a source. Files of a hub repository that match `patterns` are downloaded to the hub's cache unless
    they are already there. UserError if this fails."""
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"got {type(source).__name__} {source!r:.60}: give a folder, or {PREFIX}OWNER/NAME")
    if not is_hub(source):
        return Path(source)
    from huggingface_hub import snapshot_download

    repo_id = str(source).removeprefix(PREFIX)
    try:
        return Path(snapshot_download(repo_id, allow_patterns=patterns))
    except (OSError, ValueError) as error:  # all errors of the hub are one of these
        reason = one_line(error, 200)
        raise UserError(
            f"{source}: cannot be downloaded ({reason}); download it elsewhere and give the folder"
        ) from None


def upload(folder: Path, repo_id: str, private: bool, message: str) -> None:
    """Upload a folder to a model repository, and create it if necessary. UserError if this fails."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
    except (OSError, ValueError) as error:  # all errors of the hub are one of these
        reason = one_line(error, 200)
        raise UserError(f"{repo_id}: not uploaded ({reason}); check the name, and `hf auth login`") from None
