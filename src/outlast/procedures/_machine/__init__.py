"""The step machine: a record in, the next thing to do out. Pure.

A runner reads a claimed record (`Body.of`) and asks `next_action`, again and again. `RunStep` and `RunUndo` are carried out, and
the body is told how they went; if it has changed (`dirty`) it is recorded *before* that (`write_of`, then `written`). All other
actions, and `TryAgain` and `GiveBack`, end the claim with one write.
"""
