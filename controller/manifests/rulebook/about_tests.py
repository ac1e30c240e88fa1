"""Rules about tests of policies and plans."""

from controller.manifests.rulebook.rule import Rule

_HEAD = "kind: RolloutTest\nmetadata: { name: web-service }\n"
_BODY = "policy: web-service\nwith: { service: shop }\ntests:\n"


def _case(*, name: str = "errors kill", error_rate: str = "20%", expect: str = "kill at 2m by errors-jump") -> str:
    return f"  - name: {name}\n    rollout: {{ error_rate: {error_rate} }}\n    expect: [{expect}]\n"


TEST_RULES = (
    Rule(
        code="R401",
        name="test-of-what",
        topic="test",
        what="A test that is of no policy and no plan, of both, or gives a plan what it has itself.",
        why="It would show something about a rollout that nobody runs.",
        bad=_HEAD + "tests:\n" + _case(),
        good=_HEAD + _BODY + _case(),
    ),
    Rule(
        code="R402",
        name="same-test-twice",
        topic="test",
        what="Two tests of one file have the same name.",
        why="The report names a failed test by its name.",
        bad=_HEAD + _BODY + _case() + _case(),
        good=_HEAD + _BODY + _case() + _case(name="a healthy rollout", error_rate="0.1%", expect="never kill"),
    ),
    Rule(
        code="R403",
        name="test-names-nothing",
        topic="test",
        what="A test names a policy, parameter, metric, rule or stage that is not there.",
        why="A test that waits for a rule that was renamed tests nothing.",
        bad=_HEAD + _BODY + _case(expect="kill at 2m by errors-jmp"),
        good=_HEAD + _BODY + _case(),
    ),
    Rule(
        code="R404",
        name="bad-level",
        topic="test",
        what="A level or series that cannot be read.",
        why="Levels carry their unit, as limits do.",
        bad=_HEAD + _BODY + _case(error_rate="twenty"),
        good=_HEAD + _BODY + _case(),
    ),
    Rule(
        code="R405",
        name="bad-sentence",
        topic="test",
        what="An expectation or event that is no sentence of this language.",
        why="What is not understood cannot fail.",
        bad=_HEAD + _BODY + _case(expect="explode at noon"),
        good=_HEAD + _BODY + _case(),
    ),
)
