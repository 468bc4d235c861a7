"""The vocabulary: frozen records every other layer speaks in. Standard library and msgspec only."""
