"""Models by name: bundled with the package, in a run, in a diffusers folder, on the hub."""

from pathlib import Path
from typing import Any

from mmd_ddm.runs.files import read_json

__all__ = [
    "BUNDLED_MODELS",
    "beside_model",
    "check_upload",
    "find_model",
    "is_model",
    "read_index",
    "shorten",
    "typed",
    "upload",
]

_BUNDLED = Path(__file__).parents[1] / "bundled"
BUNDLED_MODELS = {
    "fashion-mnist": _BUNDLED / "base",
    "fashion-mnist-classes": _BUNDLED / "classes",  # its ten classes, and none of them
}


def find_model(name: str) -> Path | str:
    """The folder of that name, or a hub id that can be reached.

    Raises:
        ValueError: nothing of that name.
    """
    path = BUNDLED_MODELS.get(name, Path(name))
    if (path / "model" / "model_index.json").is_file():
        return path / "model"
    if name and (path / "run.json").is_file():
        raise ValueError(f"{name} is a run without a model: finish it by repeating its command")
    if name and path.exists():
        return path
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(
            f"no model at {name!r}: give a diffusers folder, a run, a hub id (owner/name), or "
            f"{' or '.join(BUNDLED_MODELS)}"
        )
    from huggingface_hub import snapshot_download

    try:
        # Asked first, and once: without a network diffusers would try every file for minutes.
        snapshot_download(name, allow_patterns=["*.json"])
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no folder {name}, and the hub does not give it (offline? download it elsewhere and "
            f"give its folder): {shorten(error)}"
        ) from error
    return name


def typed(source: str | Path) -> str:
    """How a person names the model of this folder: a bundled one by its name."""
    return next((k for k, path in BUNDLED_MODELS.items() if str(path) == str(source)), str(source))


def is_model(name: str) -> bool:
    """Whether a bundled model has that name, or there is a folder with a model or of its run."""
    path = BUNDLED_MODELS.get(name, Path(name))
    places = ("model/model_index", "model_index", "unet/config", "unet_ema/config", "config")
    if any((path / f"{place}.json").is_file() for place in places):
        return True
    record = path / "run.json"
    return record.is_file() and read_json(record).get("verb") in ("finetune", "pretrain")


def read_index(model: str | Path) -> dict[str, Any]:
    """``model_index.json``, which names every part; early models have none."""
    from diffusers import DiffusionPipeline

    try:
        return dict(DiffusionPipeline.load_config(str(model)))
    except OSError:
        return {}


def beside_model(source: str | Path, name: str, what: str) -> Path:
    """A file or folder in the model's folder.

    Args:
        source: of the model.
        name: of the file or folder.
        what: it is, for the error.

    Raises:
        ValueError: a model that is in no folder.
    """
    if not source or not Path(source).is_dir():
        raise ValueError(
            f"the {what} of a model is kept in its folder, which {source or 'this model'} has "
            "not: download it and give the folder"
        )
    return Path(source) / name


def shorten(error: Exception) -> str:
    """What an error says, in one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def check_upload(repo: str) -> None:
    """Make that repository, private, if there is none; asked before anything slow.

    Raises:
        ValueError: no such name, no network, no login, or not theirs.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(repo, private=True, exist_ok=True)
    except Exception as error:  # the hub's client, and its transport, raise a dozen kinds
        raise ValueError(
            f"cannot write {repo} on the hub (offline? log in with `hf auth login`): "
            f"{shorten(error)}"
        ) from error


def upload(folder: Path, repo: str) -> str:
    """Send a model's folder to a repository of the hub that exists; its address.

    Raises:
        ValueError: the hub did not take it; the folder is as it was.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().upload_folder(repo_id=repo, folder_path=folder, commit_message="Add the model")
    except Exception as error:  # the hub's client, and its transport, raise a dozen kinds
        raise ValueError(
            f"{folder} is complete, but {repo} did not take it (try `hf upload {repo} {folder}`): "
            f"{shorten(error)}"
        ) from error
    return f"https://huggingface.co/{repo}"
