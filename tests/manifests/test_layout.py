"""`fmt` changes how a manifest looks and never what it says, whatever comments and blank lines are in it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.manifests import layout
from controller.manifests.layout import formatted
from controller.manifests.outline import Unformattable, comments
from controller.manifests.reader import read
from controller.manifests.rulebook import RULES
from controller.manifests.structure import plain
from tests.manifests.examples import file_of
from tests.manifests.surroundings import SHIPPED
from tests.manifests.test_broken import FOLDER

SHIPPED_TEXTS = {path.name: path.read_text() for path in sorted(SHIPPED.glob("*.yaml"))}
BROKEN_TEXTS = {path.name: path.read_bytes().decode() for path in sorted(FOLDER.glob("*.yaml"))}
EXAMPLES = {rule.code: file_of(rule, rule.good)[1].decode() for rule in RULES.values()}
ODD = """\
---
# above
kind: RolloutPlan   # what
apiVersion: rampart/v1


metadata: {
    # the name
    name: 'x',  owner: "team"   # us
    ,labels: {a: b, c: {}}
}
spec:
      stages:
      # first
      -   name: canary
          bake: 30m  # short
          exposure: 1%
          # end of canary
      - {exposure: 100%, name: everyone,bake: 1h}
      # end of stages
      serve: {rollout: 'on',
              fallback: 'off'}
      guardrails:
      - policy: |-
          a
            b

          c
        with:
          long: this goes
            on  # and ends
          text: "so does

            this"
      notify: []
# below
...
"""
TIDY = """\
# above
apiVersion: rampart/v1
kind: RolloutPlan   # what

metadata:
  # the name
  name: 'x'
  owner: "team"                 # us
  labels: { a: b, c: {} }
spec:
  # end of stages
  serve: { rollout: 'on', fallback: 'off' }
  stages:
    # first
    - name: canary
      exposure: 1%
      bake: 30m      # short
      # end of canary
    - { name: everyone, exposure: 100%, bake: 1h }
  guardrails:
    - policy: |-
        a
          b

        c
      with:
        long: this goes
          on    # and ends
        text: "so does

          this"
  notify: []
# below
"""


def said(text: str) -> list[object]:
    return [plain(node) for node in read(text, "").documents]


def told(text: str) -> Counter[str]:
    return Counter(comment.text for comment in comments(text))


def holds(text: str) -> str:
    """The text laid out, having been compared with what it was."""
    tidy = formatted(text)
    assert said(tidy) == said(text.replace("\r\n", "\n"))
    assert told(tidy) == told(text.replace("\r\n", "\n"))
    assert formatted(tidy) == tidy
    assert tidy.endswith("\n")
    assert not any(line != line.rstrip() for line in tidy.splitlines())
    assert "\n\n\n" not in tidy
    return tidy


@pytest.mark.parametrize("name", SHIPPED_TEXTS)
def test_the_shipped_files_are_in_the_usual_layout(name: str) -> None:
    assert formatted(SHIPPED_TEXTS[name]) == SHIPPED_TEXTS[name]


@pytest.mark.parametrize("name", BROKEN_TEXTS)
def test_a_broken_file_keeps_its_meaning_or_its_text(name: str) -> None:
    text = BROKEN_TEXTS[name]
    if read(text, "").problems:
        with pytest.raises(Unformattable):
            formatted(text)
    else:
        holds(text)


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_good_examples_of_all_rules_can_be_laid_out(code: str) -> None:
    holds(EXAMPLES[code])


def test_an_untidy_file_becomes_tidy_and_keeps_every_comment() -> None:
    assert holds(ODD) == TIDY


@st.composite
def untidy(draw: st.DrawFn) -> str:
    """A sound file with comments, blank lines and trailing blanks wherever they may stand."""
    corpus = [*SHIPPED_TEXTS.values(), *EXAMPLES.values(), ODD]
    lines = draw(st.sampled_from(corpus)).splitlines()
    for number in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(lines)))
        extra = draw(st.sampled_from(["", "#", "# a # b", "#: {x", "   ", "# - c: d"]))
        if draw(st.booleans()) and at < len(lines):
            lines[at] += f"{' ' * draw(st.integers(1, 5))}{extra}{number if extra.strip() else ''}"
        else:
            lines.insert(at, " " * draw(st.integers(0, 9)) + (f"{extra}{number}" if extra.strip() else ""))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines) + draw(st.sampled_from(["", "\n", "\n\n\n"]))


@given(untidy())
def test_comments_and_blanks_anywhere_survive_and_change_nothing(text: str) -> None:
    if not read(text, "").problems:
        holds(text)


SCALARS = st.sampled_from(["1%", '"a: b"', "'it''s'", "off", "30m", "3", "true", "~", '""', '"#"', "a#b", "a b"])


def flow(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    maps = st.dictionaries(st.sampled_from("abcdef"), children, max_size=4)
    return st.one_of(
        maps.map(lambda items: "{" + ",".join(f"{key}: {value}" for key, value in items.items()) + "}"),
        st.lists(children, max_size=4).map(lambda items: "[" + " ,".join(items) + " ]"),
    )


@given(st.lists(st.recursive(SCALARS, flow, max_leaves=12), min_size=1, max_size=5), st.integers(0, 4))
def test_inline_values_of_any_kind_keep_their_meaning(values: list[str], indent: int) -> None:
    listed = "".join(f"{' ' * indent}-   {value}\n" for value in values)
    mapped = "".join(f"k{number}:   {value}\n" for number, value in enumerate(values))
    for text in (f"a:\n{listed}{mapped}", listed):
        if not read(text, "").problems:
            holds(text)


@pytest.mark.parametrize(
    "text", ["%YAML 1.2\n---\na: 1\n", "a: |2\n    b\n", "a: &x 1\nb: *x\n", "a: 1\na: 2\n", "a: [1\n"]
)
def test_what_cannot_be_laid_out_safely_is_refused_and_said(text: str) -> None:
    with pytest.raises(Unformattable, match=r"\w"):
        formatted(text)


@pytest.mark.parametrize("text", ["", "# only words\n", "\n"])
def test_a_file_without_documents_has_no_layout(text: str) -> None:
    assert formatted(text) == text


@pytest.mark.parametrize(
    ("wrong", "why"), [(["a: 2 # x"], "something else"), (["a: 1"], "comment"), (["a: '1' # x"], "else")]
)
def test_a_mistake_of_the_layout_never_reaches_a_file(
    monkeypatch: pytest.MonkeyPatch, wrong: list[str], why: str
) -> None:
    monkeypatch.setattr(layout, "_lines", lambda sections: wrong)
    with pytest.raises(Unformattable, match=why):
        formatted("a:  1 # x\n")
