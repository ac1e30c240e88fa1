"""What the measurements of one plan are worth, before anything rests on them. Pure.

A verdict says what one reading means now; this says what would keep every reading from meaning anything: nothing
exported, an error that can never be seen, a sum that counts everything twice, a window that holds one sample.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from controller.doctor.findings import failed, risky
from controller.domain.binding import Guardrail
from controller.domain.evidence import Examination, Question, RatioQuestion, Reading, Series
from controller.domain.judge import settle
from controller.domain.plan import RolloutPlan
from controller.domain.quantities import FULL_EXPOSURE, duration_text, exposure_text
from controller.domain.status import Check
from controller.sources import selectors

MEASURABLE = "docs/measuring.md"
REPLICA_LABELS = frozenset(
    {
        "prometheus", "prometheus_replica", "prometheus_server", "replica", "__replica__", "receive_replica",
        "rule_replica", "ruler_replica", "monitor", "scraper",
    }
)  # fmt: skip
"""By these the servers of a pair are told apart; the series of both are the same series."""

OWN_NUMBERS = frozenset({"instance", "pod", "host", "hostname", "node", "container", "exported_instance"})
"""Series that differ in these are different processes, however evenly their load is balanced."""

SAME_SHARE = 0.02
"""Two servers that scrape one counter at different moments differ by less than that."""

GROUPS_TO_BELIEVE = 4
SAMPLES_WANTED = 4
COHORT = "cohort"
ALWAYS = "always"


class Ask(Struct, frozen=True, kw_only=True):
    """One metric of one variation. `exposed`: somebody gets it by the rollout now."""

    guardrail: Guardrail
    metric: str
    variation: str
    exposed: bool

    @property
    def question(self) -> Question:
        return self.guardrail.question(self.metric, self.variation)

    @property
    def label(self) -> str:
        return f'{self.guardrail.policy}/{self.metric} of "{self.variation}"'


class Twins(Struct, frozen=True):
    """Series that differ in one label alone, and should not be summed. `certain`: the label is known for it."""

    label: str
    values: tuple[str, ...]
    certain: bool


def silence(name: str, ask: Ask, reading: Reading) -> Check | None:
    """What keeps this reading from being a number that rules go by, if anything does. `name` is the plan's."""
    guardrail = ask.guardrail
    side = settle(
        reading,
        guardrail.metrics[ask.metric].shape,
        min_sample=guardrail.min_sample,
        stale_after=guardrail.stale_after_seconds,
    )
    detail = f"{ask.label}: {side.detail}"
    if side.problem is None:
        return None
    if reading.failure is not None:
        return failed(name, detail, f"correct the metric in the policy, or the source; it asks: {reading.query}")
    if reading.series > 1:
        return failed(name, detail, f"make it one number, as in sum(…) or max(…): {reading.query}")
    if side.problem == "too_few":
        return _too_few(name, ask, detail)
    if reading.age_seconds is not None and reading.age_seconds > guardrail.stale_after_seconds:
        fix = "see whether the target is still up and scraped; a longer staleAfter helps only if scrapes are rarer"
        return failed(name, detail, fix)
    fix = f"let the service export it with these labels ({MEASURABLE}), or correct the selector: {reading.query}"
    return failed(name, detail, fix)


def _too_few(name: str, ask: Ask, detail: str) -> Check:
    window = duration_text(ask.guardrail.window_seconds)
    fix = f"nothing rises on less; raise the share, or use a policy with a longer window than {window}"
    return risky(name, detail, fix)


def small_stage(name: str, ask: Ask, plan: RolloutPlan, reading: Reading) -> Check | None:
    """Before a start: whether the first stage will see enough, going by the traffic of now."""
    guardrail, first = ask.guardrail, plan.spec.stages[0]
    window = duration_text(guardrail.window_seconds)
    if not reading.total:
        detail = f"{ask.label}: not one request in {window}"
        return None if reading.total is None else risky(name, detail, "a start waits until there is traffic")
    expected = reading.total * first.share / FULL_EXPOSURE
    if expected >= guardrail.min_sample:
        return None
    needed = guardrail.min_sample / reading.total * FULL_EXPOSURE
    detail = (
        f"stage {first.name} ({exposure_text(first.share)}) would see about {expected:.0f} requests in {window}, "
        f"and {guardrail.policy} needs {guardrail.min_sample}: it would stay there with too few"
    )
    if needed > FULL_EXPOSURE:
        return risky(name, detail, "even all of it is too little: use a longer window or a smaller minSample")
    enough = exposure_text(min(FULL_EXPOSURE, math.ceil(needed / 1000) * 1000))
    return risky(name, detail, f"begin with about {enough}, or use a longer window or a smaller minSample")


def looked_at(name: str, ask: Ask, plan: RolloutPlan, examination: Examination) -> list[Check]:
    """What the series themselves show that their sum hides."""
    if examination.failure is not None:
        fix = "ask the source for these series by hand"
        return [risky(name, f"{ask.label}: its series cannot be looked at: {examination.failure}", fix)]
    found = [
        _counted_twice(name, ask, examination.series),
        _blind(name, ask, examination.series),
        _mixed(name, ask, plan, examination.series),
        _rarely_sampled(name, ask, examination.interval_seconds),
    ]
    return [check for check in found if check is not None]


# — the same series twice —


def twins(series: Sequence[Series]) -> Twins | None:
    """The label that makes two of every series. A known one is certain, another is a guess from equal values."""
    if groups := _alike_without(series, REPLICA_LABELS):
        # Each server of a pair may have several such labels, all of them different.
        name = min(label for label in REPLICA_LABELS if len(_values(groups[0], label)) > 1)
        return Twins(name, _values(groups[0], name), certain=True)
    for name in sorted({label for one in series for label in one.labels} - OWN_NUMBERS):
        groups = _alike_without(series, {name})
        if not groups:
            continue
        # One process that is scraped by two jobs shows so in a single series: its address is the same.
        believed = len(groups) >= (1 if name == "job" else GROUPS_TO_BELIEVE)
        if believed and all(map(_equal, groups)):
            return Twins(name, _values(groups[0], name), certain=False)
    return None


def _alike_without(series: Iterable[Series], labels: Collection[str]) -> list[list[Series]]:
    groups: dict[frozenset[tuple[str, str]], list[Series]] = defaultdict(list)
    for one in series:
        groups[frozenset((name, value) for name, value in one.labels.items() if name not in labels)].append(one)
    return [group for group in groups.values() if len(group) > 1]


def _values(group: Iterable[Series], label: str) -> tuple[str, ...]:
    return tuple(sorted({one.labels.get(label, "") for one in group}))


def _equal(group: Sequence[Series]) -> bool:
    low, high = min(one.value for one in group), max(one.value for one in group)
    return high > 0 and high - low <= SAME_SHARE * high


def _counted_twice(name: str, ask: Ask, series: Sequence[Series]) -> Check | None:
    found = twins(series)
    if found is None:
        return None
    values = ", ".join(found.values[:4])
    detail = f"{ask.label}: series differ in nothing but {found.label} ({values}), and their sum counts each twice"
    drop = (
        f'ask where duplicates are removed, or choose one: add {found.label}="{found.values[0]}" to the selector'
    )
    if found.certain:
        return failed(name, detail, drop)
    return risky(name, f"{detail}; their values are nearly the same", f"if they are copies, {drop}")


# — an error nobody would see —


def _blind(name: str, ask: Ask, series: Sequence[Series]) -> Check | None:
    """`bad` chooses by a label that the series of `total` do not have: it matches nothing, whatever fails."""
    if not isinstance(ask.question, RatioQuestion) or not series:
        return None
    bad, total = selectors.parse(ask.question.bad), selectors.parse(ask.question.total)
    if bad.metric != total.metric:
        return None
    chosen = {one.label for one in bad.matchers if not selectors.predicate((one,))({})}
    more = chosen - {one.label for one in total.matchers}
    missing = sorted(label for label in more if not any(one.labels.get(label) for one in series))
    if not missing:
        return None
    has = ", ".join(sorted({label for one in series for label in one.labels}))
    detail = f"{ask.label}: no series of {total.metric} has the label {missing[0]}, so no error would ever be seen"
    return failed(name, detail, f"correct the selector of bad; the series have the labels {has}")


# — the audience that is always in —


def _mixed(name: str, ask: Ask, plan: RolloutPlan, series: Sequence[Series]) -> Check | None:
    names = ", ".join(rule.name for rule in plan.spec.audience.always)
    if not names or not series:
        return None
    if not any(COHORT in one.labels for one in series):
        detail = f"{ask.label}: its series have no label {COHORT}, so {names} are judged together with the share"
        fix = f'count them apart ({MEASURABLE}), and choose {COHORT}="share" in the policy'
        return risky(name, detail, fix)
    everyone = sum(one.value for one in series)
    always = sum(one.value for one in series if one.labels.get(COHORT) == ALWAYS)
    if not always:
        return None
    part = f"{always / everyone:.0%} of what was counted so far" if everyone else "some series"
    detail = f"{ask.label}: {part} is of {names}, who are always in: office networks hide a slow release"
    return risky(name, detail, f'add {COHORT}="share" to the selector')


# — samples and windows —


def _rarely_sampled(name: str, ask: Ask, interval: float | None) -> Check | None:
    if interval is None:
        return None
    guardrail = ask.guardrail
    window, stale = guardrail.window_seconds, guardrail.stale_after_seconds
    every = f"{ask.label}: a sample comes every {duration_text(interval)}"
    if window < 2 * interval:
        detail = f"{every}, so a window of {duration_text(window)} never holds two, and nothing can be measured"
        return failed(name, detail, f"make the window {duration_text(SAMPLES_WANTED * interval)} or more")
    if stale < interval:
        detail = f"{every}, and is taken for stale after {duration_text(stale)}: in between there is no data"
        return failed(name, detail, f"write staleAfter: {duration_text(2 * interval).replace(' ', '')} or more")
    if window < SAMPLES_WANTED * interval:
        detail = (
            f"{every}: a window of {duration_text(window)} holds {window / interval:.0f}, and one missed is a gap"
        )
        return risky(name, detail, f"make the window {duration_text(SAMPLES_WANTED * interval)} or more")
    return None


def summary(answered: Mapping[str, Sequence[tuple[Ask, Reading]]]) -> list[str]:
    """By policy: which metrics answer for which variations, with the sample and the age behind them."""
    parts = []
    for policy, several in answered.items():
        metrics = ", ".join(dict.fromkeys(ask.metric for ask, _ in several))
        variations = ", ".join(dict.fromkeys(ask.variation for ask, _ in several))
        totals = [reading.total for _, reading in several if reading.total is not None]
        ages = [reading.age_seconds for _, reading in several if reading.age_seconds is not None]
        window = duration_text(several[0][0].guardrail.window_seconds)
        behind = f", {min(totals):.0f} requests or more in {window}" if totals else ""
        age = f", newest sample {max(ages):.0f} s old" if ages else ""
        parts.append(f"{policy} answers for {variations} ({metrics}{behind}{age})")
    return parts
