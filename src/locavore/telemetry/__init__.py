"""OpenTelemetry: spans and metrics of finished calls, by OTLP over HTTP, from the ledger's records.

Off until the standard variables name a collector. Nothing here runs on a call's path: what is told
was read from the ledger, by a thread of the supervisor.
"""
