"""Deciding who serves a call: pure functions of values, with no socket and no database.

In the order of a decision:

* what is asked: `facts`, `asks`, `conversation`, `names`
* what is allowed: `rules`, `limits`
* the decision: `router` keeps what can be kept, `decide` is the whole of it; `survey` is its half
  for every call of a kind, `weighing` its half for one call, by `cost`, `latency` and `quality`
* promises in it: `judging` asks them, `explore` draws the calls that watch them
* the account: `reasons` names what stands behind a verdict, `explaining` says it in words

Promises themselves: `promise` makes one from labels, by `rescoring` and the tests of `bounds`;
`staying` counts how likely an answer stays; `monitor` withdraws one that no longer holds;
`estimators` read texts, and `estimators.promised` keeps promises as files. `loose_ends` finds names
in the policy that nothing answers to.
"""
