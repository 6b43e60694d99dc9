"""Begin every report alike: the question, the picture that answers it, and the verdicts."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ANSWER", "DETAILS", "opening"]

#: The picture that answers the question of a study, in its directory; the only one that is committed.
ANSWER = "answer.svg"
#: Separates the answers from the details. In a README other words may stand between the two.
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
        Description of :data:`ANSWER`, for readers who do not see it; empty if there is no such picture.
    verdicts : sequence of str
        One sentence each; more may follow in lines that are indented.

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
