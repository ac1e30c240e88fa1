"""The rulebook in words: one rule in a terminal, all of them as a page."""

from collections.abc import Iterable, Iterator

from controller.manifests.rulebook import RULES
from controller.manifests.rulebook.rule import Rule, Topic

TOPICS: dict[Topic, str] = {
    "file": "Files",
    "policy": "Policies",
    "plan": "Plans",
    "flag": "Flags",
    "test": "Tests",
}
INTRODUCTION = """\
# What `rampart lint` finds

<!-- Generated: rampart lint --rules -o markdown > docs/lint.md -->

`rampart lint FILE…` checks plans, policies, flags and tests without a server. It reports every problem at once,
each with `file:line:column`, the source line, and what to write instead:

```
bad.policy.yaml:27:31: R010 metric "eror_rate" is not defined in this policy. defined: error_rate, latency_p95
   |
 27|    - { id: errors-high,  if: eror_rate > 1,            for: 5m, then: pause }
   |                              ^^^^^^^^^
   = help: did you mean "error_rate"?
```

An **error** makes the exit code 1 and is refused by `rampart apply`. A **warning** does neither; `--strict` lets
it fail too. A **note** is for the author's desk and never fails anything. A file whose shape is wrong gets no
warnings yet, because they would be guesses. Files given together are checked together: a plan finds its policies
among them. What only a server knows (sources, providers, channels, groups, applied policies) is checked by
`rampart apply`; those codes are marked ‡.

Codes are stable: they are never reused for something else. `rampart lint --explain R022` shows one of them.

## Allowing a finding

A warning or note that is right in general and wrong here is allowed by a comment, in its line or alone in the line
before. Say why:

```yaml
every: 2s      # rampart: allow R106 the targets are scraped every second
```

Errors cannot be allowed, and a comment that allows nothing is itself a finding.

## Mending

`rampart lint --fix` mends what can only have been meant in one way (marked *fix*), and nothing else: comments,
quotes and layout stay. `--fix --diff` shows it and writes nothing. A name is mended when exactly one known name is
one slip away, and never in its digits. `rampart fmt` brings a file into its usual layout without changing what it
says.

## Output

`-o text` is for people. `concise` is one line for each finding, `json` holds everything, `github` makes
annotations in GitHub Actions, `sarif` (2.1.0) and `junit` are for whatever shows reports of checks.
"""
MARKS = """\
`off`, `no`, `on`, `22:00`, `0010` and dates are text, as they look. Only `true`, `false`, `null`, `~` and finite
numbers are anything else; quote them to make them text."""


def explained(rule: Rule) -> str:
    """For a terminal."""
    parts = [f"{rule.code} {rule.name} ({rule.severity})", "", rule.what, rule.why, "", "Bad:"]
    parts += [*_indented(rule.bad), "Good:", *_indented(rule.good)]
    if rule.server:
        parts.append("Checked by rampart apply: only a server knows.")
    if rule.fix:
        parts.append(f"--fix {rule.fix}.")
    if rule.severity != "error":
        parts.append(f"Right in general and wrong here? # rampart: allow {rule.code} and why")
    return "\n".join(parts)


def _indented(example: str) -> list[str]:
    return [*(f"  {line}" for line in example.splitlines()), ""]


def page() -> str:
    """docs/lint.md."""
    lines = [INTRODUCTION]
    for topic, title in TOPICS.items():
        rules = [rule for rule in RULES.values() if rule.topic == topic]
        lines += [f"## {title}", "", *_table(rules), ""]
        if topic == "file":
            lines += [MARKS, ""]
        for rule in rules:
            lines += _section(rule)
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(rules: Iterable[Rule]) -> Iterator[str]:
    yield from ("| code | | finds | |", "|---|---|---|---|")
    for rule in rules:
        code = f"[{rule.code}](#{rule.code.lower()}-{rule.name}){' ‡' if rule.server else ''}"
        yield f"| {code} | {rule.severity} | {rule.what} | {'*fix*' if rule.fix else ''} |"


def _section(rule: Rule) -> Iterator[str]:
    yield from (f"### {rule.code} {rule.name}", "", f"{rule.what} {rule.why}", "")
    yield from ("```yaml", "# bad", *rule.bad.splitlines(), "```", "")
    yield from ("```yaml", "# good", *rule.good.splitlines(), "```", "")
    if rule.fix:
        yield from (f"`--fix` {rule.fix}.", "")
