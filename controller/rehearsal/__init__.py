"""`rampart test`: a rollout rehearsed on synthetic series, judged and decided by the code that runs in production.

No server, no database, no network, and time that is only a number.
"""
