"""An exported folder to the hub. The one place of Darkroom that sends anything anywhere, and only when asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from darkroom.errors import OutputError


def push(folder: Path, repository: str, private: bool = True, endpoint: str | None = None) -> str:
    """Make the repository and upload the folder, with the token of `hf auth login`; returns its address.

    An existing repository is not written over. Raises OutputError in words.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    check_name(repository)
    disable_progress_bars()
    api: Any = HfApi(endpoint=endpoint)
    try:
        address = api.create_repo(repository, private=private, repo_type="model", exist_ok=False)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload an adapter exported by Darkroom")
    except Exception as error:
        raise OutputError(f"{_why(error, repository)} The folder {folder} is whole; push it later with `hf upload {repository} {folder}`.") from error
    return str(address)


def check_name(repository: str) -> None:
    """Raises OutputError for what is no OWNER/NAME."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise OutputError(f"--push {repository}: write it as OWNER/NAME, for example alice/tok-cat. OWNER is your name on the hub.")


def _why(error: Exception, repository: str) -> str:
    """The hub's error in words: what was wrong, and the way out. What is none of the hub's is raised again."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", 0)
    match error:
        case errors.LocalTokenNotFoundError():
            return "You are not logged in to the hub: run `hf auth login`, or set HF_TOKEN."
        case errors.OfflineModeIsEnabled():
            return "The hub cannot be reached: HF_HUB_OFFLINE is set. Unset it to push."
        case errors.HFValidationError():
            return f"--push {repository}: the hub takes letters, digits, - _ . in OWNER/NAME, up to 96 of them."
        case errors.HfHubHTTPError() if status == 401:
            return "The hub does not know your token: log in with `hf auth login`, or set HF_TOKEN to a valid one."
        case errors.HfHubHTTPError() if status == 403:
            return f"Your token may not write to {repository} (403): make one with write permission on hf.co/settings/tokens, or choose an OWNER that is yours."
        case errors.HfHubHTTPError() if status == 409:
            return f"{repository} is there already, and is not written over: choose another NAME."
        case errors.HfHubHTTPError() if status:
            return f"The hub answered {status} for {repository}: {_first(error)}."
        case _ if _is_network(error):
            return f"The hub cannot be reached ({type(error).__name__}): check the network."
        case _:
            raise error


def _first(error: Exception) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _is_network(error: Exception) -> bool:
    ours = (ConnectionError, TimeoutError)
    names = {each.__name__ for cause in (error, error.__cause__) for each in type(cause).__mro__}  # httpx comes with the hub's library, and is not ours
    return isinstance(error, ours) or isinstance(error.__cause__, ours) or "TransportError" in names
