# ruff: noqa: E501 - the YAML reads as people write it
"""Rules about any file: can it be read, and does it have the shape of its kind?"""

from controller.manifests.rulebook.rule import Rule

FILE_RULES = (
    Rule(
        code="R000",
        name="unreadable",
        topic="file",
        what="Not readable as YAML, or not allowed in a manifest: anchors, aliases, tags, or too much of anything.",
        why="An alias or a tag makes a value something else than what stands there. More than 32 levels, 256 KiB, "
        "5,000 values or 100 documents is no manifest.",
        bad="stages:\n  - &first { name: canary, exposure: 1%, bake: 30m }\n"
        "  - { name: everyone, exposure: 10%, bake: 1h }\n",
        good="stages:\n  - { name: canary, exposure: 10%, bake: 30m }\n"
        "  - { name: everyone, exposure: 100%, bake: 1h }\n",
    ),
    Rule(
        code="R001",
        name="duplicate-key",
        topic="file",
        what="A key appears twice in one map.",
        why="YAML would silently keep the last one, and the value you look at may not be the one that counts.",
        bad="rules:\n  - { id: errors, id: errors-high, if: error_rate > 1%, for: 2m, then: kill }\n",
        good="rules:\n  - { id: errors-high, if: error_rate > 1%, for: 2m, then: kill }\n",
    ),
    Rule(
        code="R002",
        name="unknown-key",
        topic="file",
        what="A key that this place does not have.",
        why="A misspelt key would be ignored, and its default would count instead.",
        bad="rules:\n  - { id: errors-high, if: error_rate > 1%, fro: 2m, then: kill }\n",
        good="rules:\n  - { id: errors-high, if: error_rate > 1%, for: 2m, then: kill }\n",
        fix="writes the key that differs by one slip (a letter too many, too few, wrong or swapped, or another "
        "spelling such as bucket_by), when there is exactly one",
    ),
    Rule(
        code="R003",
        name="wrong-shape",
        topic="file",
        what="A missing key, or a value of the wrong type or form.",
        why="30 could be seconds or minutes, and 10 could be 10 % or all of it. Units are written, never guessed.",
        bad="stages:\n  - { name: canary, exposure: 10, bake: 30 }\n  - { name: everyone, exposure: 100%, bake: 1h }\n",
        good="stages:\n  - { name: canary, exposure: 10%, bake: 30m }\n"
        "  - { name: everyone, exposure: 100%, bake: 1h }\n",
        fix="takes the quotes off a number, and writes the word of a closed list that differs by one slip",
    ),
    Rule(
        code="R004",
        name="unknown-kind",
        topic="file",
        what="An unknown kind or apiVersion, or a Kubernetes object.",
        why="Nothing else in the document can be understood without them.",
        bad="kind: Rollout\n",
        good="kind: RolloutPlan\n",
        fix="writes the kind that differs by one slip",
    ),
    Rule(
        code="R005",
        name="other-file-name",
        topic="file",
        severity="note",
        what="The file is called otherwise than the one document in it.",
        why="People look for a plan by its name, in the repository as in `rampart start NAME`.",
        bad="# checkout.rollout.yaml\nmetadata: { name: checkout-v2, owner: shop, links: { runbook: https://r.example/c } }\n",
        good="# checkout-v2.rollout.yaml\nmetadata: { name: checkout-v2, owner: shop, links: { runbook: https://r.example/c } }\n",
    ),
    Rule(
        code="R006",
        name="other-file-kind",
        topic="file",
        severity="warning",
        what="The end of the file's name promises another kind than the file holds.",
        why="Editors choose the schema, and reviewers the attention, by .rollout.yaml, .policy.yaml and .flag.yaml.",
        bad="# checkout-v2.policy.yaml\nkind: RolloutPlan\n",
        good="# checkout-v2.rollout.yaml\nkind: RolloutPlan\n",
    ),
    Rule(
        code="R007",
        name="needless-allow",
        topic="file",
        severity="note",
        what="A comment allows a finding that is not there.",
        why="What was allowed has gone, or the comment stands in the wrong line; it would hide the next finding.",
        bad="every: 15s                # rampart: allow R106\n",
        good="every: 2s                 # rampart: allow R106 the targets are scraped every second\n",
    ),
    Rule(
        code="R008",
        name="no-owner",
        topic="file",
        severity="note",
        what="A plan or policy without metadata.owner.",
        why="Whoever is woken by it asks whom to call.",
        bad="metadata: { name: checkout-v2, links: { runbook: https://runbooks.example/checkout-v2 } }\n",
        good="metadata: { name: checkout-v2, owner: team-checkout, links: { runbook: https://runbooks.example/c } }\n",
    ),
    Rule(
        code="R055",
        name="defined-twice",
        topic="file",
        what="Two documents of one kind have the same name (or flags the same environment and key).",
        why="Which of them counts would be chance.",
        bad="# two-of-them.rollout.yaml\nkind: RolloutPlan\n---\nkind: RolloutPlan\n",
        good="# checkout-v2.rollout.yaml\nkind: RolloutPlan\n",
    ),
)
