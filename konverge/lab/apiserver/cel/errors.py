"""What goes wrong with an expression."""

from konverge.errors import FinalError


class CelError(FinalError):
    """An expression cannot be read, or evaluating it fails: no such key, wrong types, division by zero."""

    reason = "ExpressionFailed"
    hint = "reference/lab-apiserver.md#custom-resources"
