"""The methods that bring in models. `modelclient.operations` has the others, and says how all of them are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from modelclient.calls import Call
from modelclient.local_files import file_first, path_of_reference, working_directory
from modelclient.methods import answer, outcome, work
from modelwire import requests, values
from modelwire.vocabulary import OnDisconnect


class Submission(TypedDict, total=False):
    """What every write takes, with the defaults of `modelwire.requests.Write`.

    `priority` is 1 (first) to 5, `on_disconnect` what becomes of the job when its last client leaves, and the same
    `token` always gives the same job.
    """

    priority: int
    on_disconnect: OnDisconnect
    token: str | None


class NewModel(Submission, total=False):
    """What both ways to bring in a model take. Without a `name` the daemon makes one.

    `sha256` is the digest that the file must have; `replace` takes the place of a model of that name; `force_format`
    stores also a file that is certainly no model, `strict_format` only what is read and is what its name promises.
    `signature` is the content of the file with the signature of the model, where the daemon requires one.
    """

    name: str | None
    sha256: str | None
    replace: bool
    license: str | None
    force_format: bool
    strict_format: bool
    signature: str | None


class NewModels:
    @work
    def add(
        self, path: str, *, move: bool = False, link: bool = False, **options: Unpack[NewModel]
    ) -> Call[values.Added]:
        """Adds a local file, directory or set of shards to the store: see `NewModel` for the options.

        `path` must be absolute. `move` removes the source in the end, `link` shares its bytes with the store. To a
        daemon that does not open the path, as that of another user, the client hands over the open files; then it is
        the client that removes what is moved, so it must stay until the end, and nothing can be linked.
        """
        request = requests.ModelAdd(path=path, move=move, link=link, **options)
        return Call(request, values.Added, path=None if link else path)

    @work
    def pull(
        self,
        ref: str,
        *,
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        offline: bool = False,
        max_rate: int | None = None,
        directory: str | None = None,
        credentials: str | None = None,
        **options: Unpack[NewModel],
    ) -> Call[values.Pulled]:
        """Fetches what a reference names: `hf:org/repo/file`, `ollama:name`, `oci://…`, `https://…`, a path.

        A relative path starts at `directory`. `credentials` is a token of the hub, or `user:password` elsewhere, which
        the daemon keeps in memory alone. See `NewModel` for the other options. When the work is cancelled, what has
        arrived is kept for the next time.
        """
        request = requests.ModelPull(
            ref=ref,
            include=include,
            exclude=exclude,
            offline=offline,
            max_rate=max_rate,
            directory=directory,
            credentials=credentials,
            **options,
        )
        return Call(request, values.Pulled, path=path_of_reference(ref, directory))

    @outcome
    def ensure_present(
        self,
        ref: str,
        digest: str | None = None,
        strict: bool = True,
        *,
        directory: str | None = None,
        offline: bool = False,
    ) -> Call[values.Provisioned]:
        """The outcome of `provision`, when what the reference names is here."""
        return _provisioning(ref, digest, strict=strict, directory=directory, offline=offline)

    @work
    def provision(
        self,
        ref: str,
        *,
        digest: str | None = None,
        strict: bool = True,
        directory: str | None = None,
        offline: bool = False,
        max_rate: int | None = None,
        **options: Unpack[Submission],
    ) -> Call[values.Provisioned]:
        """Ensures that what a reference names is in the store, and verified. What is a file of this machine counts as
        one before it counts as a name; a relative path starts at `directory`, by default the working directory. Bytes
        of another digest are refused, or, when not `strict`, stored with a warning."""
        return _provisioning(
            ref, digest, strict=strict, directory=directory, offline=offline, max_rate=max_rate, **options
        )

    @work
    def update(
        self, command: Mapping[str, Any], *, max_rate: int | None = None, token: str | None = None
    ) -> Call[values.Updated]:
        """Carries out an update command on the daemon's machine: look at `outcome`. It goes on when the client leaves,
        and the same command again gives the same outcome. What failed without a rollback is raised."""
        return Call(requests.ModelUpdate(command=dict(command), max_rate=max_rate, token=token), values.Updated)

    @answer
    def updates(self, *, limit: int = requests.UPDATES_LISTED) -> Call[values.Updates]:
        """The update commands of the daemon's machine and their outcomes, the newest first."""
        return Call(requests.ModelUpdates(limit=limit), values.Updates)

    @answer
    def refuse_load(self, command_id: str, reason: str) -> Call[values.Done]:
        """For an engine that has seen `model.load_requested` in `watch` and cannot load the model: the update goes
        back. The other answer is a lease of the model."""
        return Call(requests.RefuseLoad(command_id=command_id, reason=reason), values.Done)

    @work
    def register_file(
        self,
        known_as: str,
        path: str,
        *,
        sha256: str | None = None,
        name: str | None = None,
        **options: Unpack[Submission],
    ) -> Call[values.Added]:
        """Takes an existing file into the store under an id, without a copy: as an add with `link`, for the daemon's
        own user alone. The id is a text, such as a reference, that means the model wherever one is named; its name is
        the id when that is a valid one, else `name`, else one made of the file's name. The same file again is success,
        and other bytes under the same id are refused."""
        request = requests.ModelAdd(path=path, known_as=known_as, sha256=sha256, name=name, link=True, **options)
        return Call(request, values.Added)

    @answer
    def register(self, manifest: Mapping[str, Any], *, name: str | None = None) -> Call[values.Registered]:
        """Makes a model known before its bytes are here, by the document that describes it. Its name is its `model_id`
        unless another is given; a pull of the name fetches it."""
        return Call(requests.ModelRegister(manifest=dict(manifest), name=name), values.Registered)


def _provisioning(
    ref: str,
    digest: str | None,
    *,
    strict: bool,
    directory: str | None,
    offline: bool,
    max_rate: int | None = None,
    **options: Unpack[Submission],
) -> Call[values.Provisioned]:
    directory = working_directory() if directory is None else directory
    ref = file_first(ref, directory)
    request = requests.ModelProvision(
        ref=ref,
        sha256=digest,
        strict=strict,
        directory=directory,
        offline=offline,
        max_rate=max_rate,
        **options,
    )
    return Call(request, values.Provisioned, path=path_of_reference(ref, directory))
