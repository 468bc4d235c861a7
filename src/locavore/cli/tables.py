"""How tables look in a terminal: nothing is cut, and names keep their room."""

from collections.abc import Sequence

from rich import box
from rich.table import Table


def table(
    names: Sequence[str],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> Table:
    """A table of the columns `names`; a cell without room folds, it is never cut.

    `right`: figures, aligned right. `whole`: columns whose cells keep to one line.
    """
    made = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in names:
        made.add_column(
            name,
            overflow="fold",
            justify="right" if name in right else "left",
            no_wrap=name in whole,
        )
    return made
