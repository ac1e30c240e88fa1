"""Where measurements come from. `kinds` is the table of them: whoever needs only the arithmetic loads no plug."""
