"""Cells of a CSV file that a spreadsheet shows and never runs. Pure."""

_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def safe_cell(value: object) -> object:
    """The value as a cell: a text that a spreadsheet would take for a formula gets an apostrophe.

    Numbers stay numbers. The rule is OWASP's for CSV injection: names of users, of models and of
    programs come from outside.
    """
    if isinstance(value, str) and value.startswith(_BEGINS_FORMULA):
        return f"'{value}"
    return value
