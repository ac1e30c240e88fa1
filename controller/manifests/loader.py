"""Text to manifests: typed values that still know where each part of them was written."""

from typing import Any

import msgspec
from msgspec import Struct

from controller.domain.flag import Flag
from controller.domain.plan import API_VERSION, Metadata, RolloutPlan
from controller.domain.policy import GuardrailPolicy
from controller.domain.rehearsal import RolloutTest
from controller.manifests.problem import Edit, Problem, Span, did_you_mean, meant
from controller.manifests.reader import Node, Source, read
from controller.manifests.rulebook.rule import Severity
from controller.manifests.structure import Path, check

Document = RolloutPlan | GuardrailPolicy | Flag
"""What a server takes."""
Written = Document | RolloutTest
KINDS: dict[str, type[RolloutPlan] | type[GuardrailPolicy] | type[Flag] | type[RolloutTest]] = {
    "RolloutPlan": RolloutPlan,
    "GuardrailPolicy": GuardrailPolicy,
    "Flag": Flag,
    "RolloutTest": RolloutTest,
}


class Manifest(Struct, frozen=True, eq=False):
    """A document and its places. `unsound` names the parts of `spec` that could not be read: they are None."""

    value: Written
    file: str
    node: Node
    source: Source
    unsound: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        return type(self.value).__name__

    @property
    def name(self) -> str:
        return self.value.metadata.name

    def span(self, path: Path) -> tuple[int, int, int]:
        """(line, column, length) of the value at `path`, or of what comes nearest to it."""
        found = self.node_at(path).span
        return found.line, found.column, found.length

    def node_at(self, path: Path) -> Node:
        node = self.node
        for step in path:
            if isinstance(step, int) and step < len(node.items):
                node = node.items[step]
            elif isinstance(step, str) and step in node.entries:
                node = node.entries[step]
            else:
                break
        return node

    def problem(
        self,
        path: Path,
        code: str,
        message: str,
        help: str = "",  # noqa: A002
        *,
        severity: Severity | None = None,
        part: tuple[int, int] | None = None,
        at_key: bool = False,
        fix: str = "",
    ) -> Problem:
        """At the value of `path`, or at `part` (offset, length) of its text; for a map or list at its key.

        `fix` is what belongs there for certain.
        """
        node = self.node_at(path)
        span = node.owner if at_key or node.kind != "scalar" else node.part(*part) if part else node.span
        edit = node.replaced(fix, *part) if part else node.replaced(fix)
        if at_key:
            edit = Edit(span, fix) if fix and span.length == len(str(path[-1])) else None
        return self.source.problem(span, code, message, help, severity, edit)


class Loaded(Struct, frozen=True, kw_only=True):
    """`documents` are sound and may be used when no problem is an error; `partial` are for lint alone."""

    source: Source
    documents: list[Manifest]
    problems: list[Problem]
    partial: list[Manifest]


def load(text: bytes | str, file: str) -> Loaded:
    """Every document of one file. Never raises: whatever is wrong is in `problems`."""
    found = read(text, file)
    loaded = Loaded(source=found.source, documents=[], problems=found.problems, partial=[])
    for node in found.documents:
        if node.kind == "scalar" and node.value is None:
            continue
        _load_document(node, found.source, loaded)
    if not (loaded.documents or loaded.partial or loaded.problems):
        message, help_text = "the file holds no document", f"write apiVersion: {API_VERSION} and kind: RolloutPlan"
        loaded.problems.append(found.source.problem(Span(1, 1), "R000", message, help_text))
    loaded.problems.sort(key=lambda problem: problem.order)
    return loaded


def _load_document(node: Node, source: Source, loaded: Loaded) -> None:
    if node.kind != "map":
        message = f"a document must be a map of keys, not a {node.kind}"
        help_text = "begin with apiVersion:, kind:, metadata: and spec:"
        loaded.problems.append(source.problem(node.span, "R003", message, help_text))
        return
    envelope = _envelope_problem(node, source)
    if envelope is not None:
        loaded.problems.append(envelope)
        return
    wanted = KINDS[node.entries["kind"].text]
    checked = check(node, wanted, source)
    loaded.problems.extend(checked.problems)
    try:
        if not checked.unsound:
            value = msgspec.convert(checked.value, wanted)
            loaded.documents.append(Manifest(value, source.file, node, source))
            return
        partial = _partial(checked.value, wanted, checked.unsound)
    except msgspec.ValidationError as error:
        loaded.problems.append(source.problem(node.span, "R003", f"not a {wanted.__name__}: {error}"))
        return
    if partial is not None:
        value, unsound = partial
        loaded.partial.append(Manifest(value, source.file, node, source, unsound))


def _envelope_problem(node: Node, source: Source) -> Problem | None:
    kind, version = node.entries.get("kind"), node.entries.get("apiVersion")
    if version is not None and _is_foreign(version):
        what = f"{version.text[:60]} {kind.text[:60] if kind else ''}".strip()
        message = f"this is a Kubernetes object ({what}), not a Rampart document"
        return source.problem(version.span, "R004", message, f"Rampart reads apiVersion: {API_VERSION}")
    if kind is None:
        help_text = f"write kind: {' or '.join(KINDS)}"
        return source.problem(node.owner, "R004", 'the document lacks the key "kind"', help_text)
    if kind.text not in KINDS:
        message = f'unknown kind "{kind.text[:60]}"'
        fix = kind.replaced(meant(kind.text, KINDS))
        return source.problem(kind.span, "R004", message, did_you_mean(kind.text, KINDS), fix=fix)
    if version is None:
        message = 'the document lacks the key "apiVersion"'
        return source.problem(node.owner, "R004", message, f"write apiVersion: {API_VERSION}")
    if version.value != API_VERSION:
        message = f'unknown apiVersion "{version.text[:60]}"'
        return source.problem(version.span, "R004", message, f"write apiVersion: {API_VERSION}")
    return None


def _is_foreign(version: Node) -> bool:
    group, slash, _ = version.text.partition("/")
    return version.text == "v1" or (bool(slash) and ("." in group or group in ("apps", "batch", "autoscaling")))


def _partial(
    value: Any,
    wanted: type[RolloutPlan] | type[GuardrailPolicy] | type[Flag] | type[RolloutTest],
    unsound: frozenset[Path],
) -> tuple[Written, frozenset[str]] | None:
    """The document without its unsound parts, so that lint can go on with the others; None if nothing is left.

    Lint runs a check only when everything it reads is sound, so the holes are never looked at.
    """
    broken = {str(path[1]) for path in unsound if path[0] == "spec" and len(path) > 1}
    if ("spec",) in unsound or not isinstance(value.get("spec"), dict):
        return None
    spec_type = next(one.type for one in msgspec.structs.fields(wanted) if one.name == "spec")
    parts: dict[str, Any] = {}
    for field in msgspec.structs.fields(spec_type):
        if field.encode_name in broken:
            parts[field.name] = None
        elif field.encode_name in value["spec"]:
            parts[field.name] = msgspec.convert(value["spec"][field.encode_name], field.type)
    nameless = any(path[0] == "metadata" for path in unsound)
    metadata = Metadata(name="") if nameless else msgspec.convert(value["metadata"], Metadata)
    return wanted(api_version="rampart/v1", metadata=metadata, spec=spec_type(**parts)), frozenset(broken)
