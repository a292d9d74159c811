"""Selects the files of a repository that a reference names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from modeld.sources.globs import wanted
from modeld.sources.huggingface.reference import HubReference
from modeld.store import parts
from modeld.store.digest import Digest
from modelwire.errors import InvalidRequest, SourceNotFound

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_TAG = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d(?:_[A-Za-z0-9]+)*|TQ\d_\d|MXFP4(?:_[A-Z]+)?|NVFP4|BF16|F16|FP16|F32|FP8|FP4))"
    r"(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_BESIDE_WEIGHTS: Final = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""Projectors, statistics, and the drafts of models that guess ahead."""

DEFAULT_QUANTIZATION: Final = "Q4_K_M"
"""What llama.cpp takes of a repository, too."""

_PROJECTORS: Final = ("f16", "bf16", "q8_0", "f32")
"""In order of preference: projectors are made in half precision, and the others are conversions of it."""

MOST_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file in the tree of a commit: with the SHA-256 of its content if it is in LFS, else with its git SHA-1."""

    path: str
    size: int
    digest: Digest | None
    git_blob: str | None
    xet_hash: str | None = None
    """The key of its bytes in xet storage, if they are there."""


def select(files: Sequence[HubFile], reference: HubReference) -> tuple[list[HubFile], str | None]:
    """The files, ordered by path, and what was decided for the user. Raises SourceNotFound, which lists the files that
    exist, when none matches."""
    note = None
    if reference.quantization is not None:
        chosen = _quantised(files, reference)
    elif reference.path is None and not reference.include and (sets := _quantisations(files, reference)):
        chosen, note = _by_default(files, reference, sets)
    elif reference.path is None or reference.folder is not None:
        folder = reference.folder or ""
        chosen = [file for file in files if file.path.startswith(folder)]
        if folder and not chosen:
            raise _no_entry(reference, folder, files)
    else:
        chosen = _with_its_shards(files, reference, reference.path)
    chosen = [file for file in chosen if wanted(file.path, reference.include, reference.exclude)]
    if not chosen:
        raise SourceNotFound(
            f"the include and exclude globs leave no file of {reference.text}",
            hint=_listed(file.path for file in files),
        )
    return sorted(chosen, key=lambda file: file.path), note


def _with_its_shards(files: Sequence[HubFile], reference: HubReference, path: str) -> list[HubFile]:
    by_path = {file.path: file for file in files}
    if path not in by_path:
        raise _no_entry(reference, path, files)
    directory, slash, filename = path.rpartition("/")
    names = parts.gguf_shards(filename) or [filename]
    chosen = []
    for name in names:
        found = by_path.get(directory + slash + name)
        if found is None:
            raise SourceNotFound(
                f"{reference.text} is one part of a set, and the repository lacks the part {name}",
                hint="Ask the repository's owner for the missing part.",
            )
        chosen.append(found)
    return chosen


# -- quantisations


def _quantised(files: Sequence[HubFile], reference: HubReference) -> list[HubFile]:
    assert reference.quantization is not None
    asked = reference.quantization.lower()
    weights = [file for file in files if _is_weights(file.path)]
    fitting = _fitting(weights, asked)
    if not fitting:
        there = sorted({tag for file in weights for tag in tags_of(file.path)})
        raise SourceNotFound(
            f"{reference.repo} has no GGUF file of the quantisation {reference.quantization}",
            hint=f"It has {', '.join(there[:40])}." if there else "It has no GGUF files of a known quantisation.",
            details={"available": there[:40]},
        )
    sets = _sets(fitting)
    if len(sets) > 1:
        # With `UD-Q4_K_XL` beside `Q4_K_XL`, `Q4_K_XL` means the plain one.
        plain = {stem: found for stem, found in sets.items() if f"ud-{asked}" not in stem.lower()}
        sets = plain if len(plain) == 1 else sets
    if len(sets) > 1:
        raise InvalidRequest(
            f"{reference.repo} has {len(sets)} models of the quantisation {reference.quantization}",
            hint="Name the file: " + ", ".join(f"hf:{reference.repo}/{found[0].path}" for found in sets.values()),
        )
    return _with_projector(files, reference, *next(iter(sets.items())))


def _quantisations(files: Sequence[HubFile], reference: HubReference) -> dict[str, list[HubFile]]:
    """The models of a repository that has several quantisations and no other weights, by the stem of their path; none
    for any other repository."""
    files = [file for file in files if wanted(file.path, (), reference.exclude)]
    if any(parts.role_of(file.path) == "weights" and not file.path.lower().endswith(".gguf") for file in files):
        return {}
    sets = _sets(sorted((file for file in files if _is_weights(file.path)), key=lambda file: file.path))
    return sets if len({tuple(tags_of(found[0].path)) for found in sets.values()}) > 1 else {}


def _by_default(
    files: Sequence[HubFile], reference: HubReference, sets: dict[str, list[HubFile]]
) -> tuple[list[HubFile], str]:
    asked = DEFAULT_QUANTIZATION.lower()
    fitting = _sets(_fitting([file for found in sets.values() for file in found], asked)) or sets
    stem = min(fitting, key=lambda stem: f"ud-{asked}" in stem.lower())  # the first of equals
    chosen = fitting[stem]
    taken = DEFAULT_QUANTIZATION if fitting is not sets else chosen[0].path
    note = f"{reference.repo} has {len(sets)} quantisations, and {taken} was taken"
    return _with_projector(files, reference, stem, chosen), note


def _sets(files: Iterable[HubFile]) -> dict[str, list[HubFile]]:
    """The files by the stem of their path, which all shards of one set share."""
    sets: dict[str, list[HubFile]] = {}
    for file in files:
        sets.setdefault(_SHARD.sub("", file.path[: -len(".gguf")]), []).append(file)
    return sets


def _with_projector(
    files: Sequence[HubFile], reference: HubReference, stem: str, chosen: Sequence[HubFile]
) -> list[HubFile]:
    missing = parts.missing_shard(file.path for file in chosen)
    if missing is not None:
        raise SourceNotFound(f"{reference.repo} lacks {missing[0]}, one part of the set of {missing[1]}")
    projector = _projector(files, stem.rpartition("/")[0])
    return [*chosen, *([projector] if projector is not None else [])]


def tags_of(path: str) -> list[str]:
    """The quantisations that a path names, in upper case."""
    return [found.upper() for found in _TAG.findall(path.rpartition(".")[0])]


def _fitting(weights: Sequence[HubFile], asked: str) -> list[HubFile]:
    """The files with the quantisation in their name; if there is none, those with it in their directory."""
    pattern = re.compile(rf"(?<![a-z0-9]){re.escape(asked)}(?![a-z0-9_])")
    by_name = [file for file in weights if pattern.search(_stem(file.path.rpartition("/")[2]))]
    return by_name or [file for file in weights if pattern.search(file.path.rpartition("/")[0].lower())]


def _stem(filename: str) -> str:
    return _SHARD.sub("", filename[: -len(".gguf")]).lower()


def _is_weights(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return name.endswith(".gguf") and not any(other in name for other in _BESIDE_WEIGHTS)


def _projector(files: Sequence[HubFile], directory: str) -> HubFile | None:
    """The projector of a model with vision: beside the weights, else at the top of the repository."""
    there = [
        file for file in files if "mmproj" in (name := file.path.rpartition("/")[2].lower()) and name.endswith(".gguf")
    ]
    for place in dict.fromkeys([directory, ""]):
        near = sorted((file for file in there if file.path.rpartition("/")[0] == place), key=lambda file: file.path)
        if near:
            return min(near, key=_preference)
    return None


def _preference(file: HubFile) -> int:
    named = {tag.lower() for tag in tags_of(file.path)}
    return next((place for place, kind in enumerate(_PROJECTORS) if kind in named), len(_PROJECTORS))


def _no_entry(reference: HubReference, path: str, files: Sequence[HubFile]) -> SourceNotFound:
    last = path.rstrip("/").rpartition("/")[2].lower()
    near = [file.path for file in files if last in file.path.lower() or file.path.rpartition("/")[2].lower() in last]
    revision = f" at {reference.revision}" if reference.revision is not None else ""
    return SourceNotFound(
        f"the repository {reference.repo} has no {path}{revision}",
        hint=_listed(near or [file.path for file in files]),
        details={"repo": reference.repo, "path": path},
    )


def _listed(paths: Iterable[str]) -> str:
    listed = list(paths)
    if not listed:
        return "The repository has no files."
    more = f" and {len(listed) - MOST_SHOWN} more" if len(listed) > MOST_SHOWN else ""
    return f"It has {', '.join(listed[:MOST_SHOWN])}{more}."
