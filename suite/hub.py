"""The Hugging Face hub: whether it answers, and a local folder with some files of one repository."""

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from suite.errors import AssetError
from suite.masking import masked

PROBE_SECONDS = 3.0
REVISION = re.compile(
    r"(?!-)(?!.*\.\.)[^\s\\/\x00-\x1f\x7f]+(/[^\s\\/\x00-\x1f\x7f]+)*"
)  # a path below the cache's refs

Kind = Literal["model", "dataset"]


@cache
def reachable() -> bool:
    """Whether the hub answers within three seconds; asked once in the life of the process."""
    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as refusal:
        refusal.close()  # an answer all the same
    except OSError:
        return False
    return True


def why_silent(offline: bool) -> str:
    """Why the hub was not asked, or did not answer, in the words of an error."""
    silent = offline or constants.HF_HUB_OFFLINE
    return "this run is offline" if silent else f"the hub ({masked(constants.ENDPOINT)}) cannot be reached"


def snapshot(
    repo: str,
    files: Sequence[str],
    *,
    kind: Kind = "model",
    revision: str | None = None,
    offline: bool = False,
) -> Path:
    """The local folder with those files (patterns) of a repository, from the hub's cache where it must be.

    Raises AssetError; an unknown name, a closed repository and a hub out of reach are told apart.
    """
    wanted = f"{kind} {repo!r}" + (f" at {revision!r}" if revision else "")
    if revision and not REVISION.fullmatch(revision):
        raise AssetError(f"{repo!r} cannot have a revision {revision!r}; give a branch, a tag or a commit")
    local_only = offline or not reachable()
    try:
        with no_progress_bars():
            found = snapshot_download(
                repo,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(files),
                local_files_only=local_only,
            )
    except HFValidationError as error:
        raise AssetError(f"{repo!r} is no hub name; one reads organisation/name") from error
    except GatedRepoError as error:
        raise AssetError(
            f"the hub wants an accepted licence for {wanted}; accept it there and set HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise AssetError(
            f"the hub knows no {wanted}; check the spelling, or set HF_TOKEN if it is private"
        ) from error
    except (LocalEntryNotFoundError, HTTPError) as error:
        raise AssetError(
            f"{wanted} is not in {constants.HF_HUB_CACHE} and {why_silent(offline)}; connect once"
        ) from error
    except OSError as error:
        raise AssetError(
            f"cannot store {wanted} in {constants.HF_HUB_CACHE}: {error.strerror or error}"
        ) from error
    return Path(os.fspath(found))


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """No bars of the hub's on the user's terminal while it fetches."""
    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()
