"""Runs notebooks: `plan` says which jobs there are and which are out of date, `execute` runs one,
`local` runs a plan, `collect` distils results, `bundle` packs a job for a node without network.

Notebooks use `runner.pool` alone; nothing else here is part of a job's fingerprint.
"""
