"""What can be wrong with whom a plan reaches: who is in, who is told, where they find help."""

from controller.domain.plan import AudienceRule, PlanSpec
from controller.manifests.checks import Check, Context, reading
from controller.manifests.loader import Manifest
from controller.manifests.policy_checks import Problems
from controller.manifests.problem import listed
from controller.manifests.structure import Path

# fmt: off
COARSE = frozenset((
    "country", "region", "continent", "city", "language", "locale", "timezone",
    "plan", "tier", "platform", "os", "browser", "device", "devicetype",
    "gender", "version", "appversion", "environment", "role", "segment", "cohort",
))
PUBLIC_MAIL = frozenset((
    "gmail.com", "googlemail.com", "outlook.com", "hotmail.com", "live.com", "yahoo.com", "icloud.com",
    "me.com", "aol.com", "gmx.de", "gmx.net", "web.de", "proton.me", "protonmail.com",
    "mail.ru", "yandex.ru", "qq.com", "163.com",
))
# fmt: on
OFF_WORDS = frozenset(("off", "false", "disabled", "control", "old", "no"))
ON_WORDS = frozenset(("on", "true", "enabled", "treatment", "new", "yes"))


def check_links(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    links = manifest.value.metadata.links
    if "runbook" not in links:
        message = f'the plan "{manifest.name}" has no link to a runbook'
        yield manifest.problem(("metadata", "name"), "R213", message, "write links: { runbook: https://… }")
    for name, address in links.items():
        scheme, separator, _rest = address.partition(":")
        plain = name == "runbook" and not address.startswith(("https://", "http://"))
        unsafe = bool(separator) and scheme.isalpha() and scheme.lower() != "https" and _rest.startswith("//")
        if plain or unsafe or scheme.lower() in ("javascript", "data", "file"):
            message = f'the link "{name}" is no https address'
            yield manifest.problem(("metadata", "links", name), "R214", message, "write https://…")


def check_notify(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    heard = {event for one in spec.notify for event in one.events}
    lacking = [event for event in ("killed", "paused") if event not in heard]
    if not spec.notify:
        message = f'the plan "{manifest.name}" tells nobody of anything'
        yield manifest.problem(("metadata", "name"), "R215", message, "write notify: [{ to: your-channel }]")
    elif lacking:
        message = f"no channel hears of: {listed(lacking)}"
        yield manifest.problem(
            ("spec", "notify"), "R216", message, f"add {listed(lacking)} to events:", at_key=True
        )
    seen: set[str] = set()
    for index, one in enumerate(spec.notify):
        path: Path = ("spec", "notify", index)
        if one.to in seen:
            message = f'the channel "{one.to}" stands twice'
            yield manifest.problem((*path, "to"), "R218", message, "put its events together")
        seen.add(one.to)
        for position, event in enumerate(one.events):
            if event in one.events[:position]:
                message = f'"{event}" stands twice for "{one.to}"'
                yield manifest.problem((*path, "events", position), "R218", message, "remove one")


def check_approval_notice(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    if any("approval" in one.events for one in spec.notify):
        return
    for index, stage in enumerate(spec.stages):
        if stage.approval is not None:
            message = f'"{stage.name}" waits for an approval, and no channel hears of the request'
            help_text = "add approval to the events of a channel that the approvers read"
            yield manifest.problem(("spec", "stages", index, "approval"), "R217", message, help_text, at_key=True)
            return


def check_audience_rules(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    always = spec.audience.always
    for index, rule in enumerate(always):
        path: Path = ("spec", "audience", "always", index)
        same = next((other for other in always[:index] if other.match == rule.match), None)
        if same is not None:
            message = f'"{rule.name}" matches the same contexts as "{same.name}"'
            yield manifest.problem((*path, "name"), "R219", message, "keep one of them")
        yield from _check_values(manifest, path, rule)


def _check_values(manifest: Manifest, path: Path, rule: AudienceRule) -> Problems:
    for attribute, match in rule.match.items():
        values = match.in_ or []
        for position, value in enumerate(values):
            if value in values[:position]:
                message = f'"{value[:60]}" stands twice'
                yield manifest.problem((*path, "match", attribute, "in", position), "R219", message, "remove one")
        domain = (match.ends_with or "").lower().lstrip("@")
        if domain in PUBLIC_MAIL:
            message = f'"{rule.name}" lets in everybody with an address at {domain}'
            help_text = "name the people, or a domain that is yours"
            yield manifest.problem((*path, "match", attribute, "endsWith"), "R221", message, help_text)


def check_buckets(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    name = spec.audience.bucket_by
    if name.lower().replace("_", "").replace("-", "") in COARSE:
        message = f'"{name}" has few values, and everybody with the same one gets the same side'
        help_text = "write what identifies one user or account, as in user"
        yield manifest.problem(("spec", "audience", "bucketBy"), "R220", message, help_text)


def check_direction(manifest: Manifest, spec: PlanSpec, _: Context) -> Problems:
    if spec.serve.rollout.lower() in OFF_WORDS and spec.serve.fallback.lower() in ON_WORDS:
        message = f'the rollout raises "{spec.serve.rollout}", and a kill serves "{spec.serve.fallback}"'
        yield manifest.problem(
            ("spec", "serve", "rollout"), "R222", message, "swap them, unless something is removed"
        )


PEOPLE_CHECKS: tuple[Check[PlanSpec], ...] = (
    Check(check_links, reading()),
    Check(check_notify, reading("notify")),
    Check(check_approval_notice, reading("notify", "stages")),
    Check(check_audience_rules, reading("audience")),
    Check(check_buckets, reading("audience")),
    Check(check_direction, reading("serve")),
)
