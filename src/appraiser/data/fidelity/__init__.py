"""How like a real table a sample is, and whether anything of that table got into it.

tables ─▶ measures ─▶ compare ─▶ fidelity.json
pictures ─▶ picture_sets ┘ └─▶ page, plots ─▶ fidelity.html

Nothing that is written holds a row, a title or a picture of the real table: no figure stands on fewer than five rows.
"""
