"""Names for where an engine departs from its dialect, and what each makes us do."""

NO_STREAM_USAGE = "no_stream_usage"
FORCE_TOOLS_BY_SCHEMA = "force_tools_by_schema"

MEANING: dict[str, str] = {
    NO_STREAM_USAGE: (
        "refuses or needs no `stream_options`; usage is not asked for, it comes or is estimated"
    ),
    FORCE_TOOLS_BY_SCHEMA: (
        "lets a model ramble before a required tool call; a forced call is sent as a JSON schema"
    ),
}
"""Every quirk a `Backend` may carry."""
