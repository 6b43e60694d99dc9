"""How every report begins: what is asked, the picture that answers it, and the verdicts."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ANSWER", "DETAILS", "opening"]

#: The picture that answers the question of a study, in its directory; the only one that is committed.
ANSWER = "answer.svg"
#: Stands before what a reader who wants the answers alone can leave out; in a README other words may come before that.
DETAILS = "<!-- details -->"


def opening(title: str, question: str, picture: str, verdicts: Sequence[str]) -> list[str]:
    """Begin a report.

    Parameters
    ----------
    title : str
        Without Markdown.
    question : str
        One sentence.
    picture : str
        What :data:`ANSWER` shows, for those who do not see it; empty where there is no such picture.
    verdicts : sequence of str
        A sentence each.

    Returns
    -------
    list of str
        Paragraphs of Markdown; tables come after them.

    Examples
    --------
    >>> print(*opening("Who wins?", "Is A better than B?", "A minus B", ["**Yes**, by 2."]), sep="\\n\\n")
    # Who wins?
    <BLANKLINE>
    Is A better than B?
    <BLANKLINE>
    ![A minus B](answer.svg)
    <BLANKLINE>
    - **Yes**, by 2.
    """
    parts = [f"# {title}", question]
    parts += [f"![{picture}]({ANSWER})"] if picture else []
    return [*parts, "\n".join(f"- {verdict}" for verdict in verdicts)] if verdicts else parts
