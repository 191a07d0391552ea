"""Keep any program standing: its output folded, its end answered, its leftovers cleared, no shell in between.

`supervisor`, `rotation`, `backlog` and `spin` decide; `run` carries out.
"""
