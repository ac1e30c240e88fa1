"""The page behind a trigger's address: one button, and what came of it. No script, nothing loaded."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from html import escape

from controller.domain.catalogue import Trigger
from controller.domain.status import KillReceipt, KillStatus

STYLE = """
:root { color-scheme: light dark; }
body { font: 18px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 34rem; padding: 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
label { display: block; margin: 1rem 0 .25rem; }
input, button { box-sizing: border-box; font: inherit; width: 100%; }
input { min-height: 48px; padding: 0 .75rem; }
button { background: #b00020; border: 0; border-radius: 8px; color: #fff; font-size: 1.5rem; font-weight: 700;
  margin-top: 1rem; min-height: 72px; }
button:focus-visible, input:focus-visible { outline: 4px solid #1a73e8; outline-offset: 2px; }
a { color: inherit; }
li { overflow-wrap: anywhere; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
LOOK_AGAIN = '<meta http-equiv="refresh" content="2">'


def button_page(trigger: Trigger, kills: Sequence[KillStatus]) -> str:
    flag = trigger.flag
    body = [
        f"<h1>Kill {escape(flag.key)}</h1>",
        f"<p>Everybody in <strong>{escape(flag.environment)}</strong> gets the fallback, at once. "
        "It stays so until a person resets it.</p>",
        *_in_force(kills),
        '<form method="post"><label for="reason">Why? (may be left empty)</label>',
        '<input id="reason" name="reason" maxlength="2000" autocomplete="off">',
        "<button>KILL</button></form>",
        f"<p>Address {escape(trigger.name)} · provider {escape(flag.provider)}</p>",
    ]
    unconfirmed = any(kill.confirmed_at is None for kill in kills)
    return _page(f"Kill {flag.key}", body, LOOK_AGAIN if unconfirmed else "")


def _in_force(kills: Sequence[KillStatus]) -> list[str]:
    if not kills:
        return []
    lines = [f"<li>{_killed(kill)}</li>" for kill in kills]
    return ['<div role="status"><p><strong>It is killed already</strong></p>', "<ul>", *lines, "</ul></div>"]


def _killed(kill: KillStatus) -> str:
    by = f"since {_clock(kill.accepted_at)} by {escape(kill.actor)}: {escape(kill.reason)}"
    return f"{by} – {_confirmed(kill)}"


def _confirmed(kill: KillStatus) -> str:
    if kill.confirmed_at:
        return f"✔ read back as off at {_clock(kill.confirmed_at)}"
    return "… not read back as off yet, tried again without end"


def result_page(receipts: Sequence[KillReceipt]) -> str:
    body = []
    for receipt in receipts:
        body += [
            f'<h1>{escape(receipt.flag.key)} is killed</h1><div role="status"><ul>',
            f"<li>✔ accepted at {_clock(receipt.accepted_at)}</li>",
            _tick(receipt.provider_updated_at, "provider updated", "the provider has not taken it yet"),
            _tick(receipt.confirmed_at, "read back as off", "not read back as off yet, tried again without end"),
            f"</ul></div><p>{escape(receipt.flag.environment)} · {escape(receipt.kill_id)}</p>",
        ]
    # A GET of the same address: looking again presses nothing.
    body.append('<p><a href="">Look again</a></p>')
    unconfirmed = any(receipt.confirmed_at is None for receipt in receipts)
    return _page("Killed", body, LOOK_AGAIN if unconfirmed else "")


def _tick(at: datetime | None, done: str, pending: str) -> str:
    return f"<li>✔ {done} at {_clock(at)}</li>" if at else f"<li>… {pending}</li>"


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S} UTC"


def _page(title: str, body: Sequence[str], head: str = "") -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="robots" content="noindex"><meta name="referrer" content="no-referrer">'
        f"{head}<title>{escape(title)} · Rampart</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
