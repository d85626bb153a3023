"""One client's update that a crafted model brought out of a sum: read in closed form, or else searched."""

from attacks import analytic, inverting
from attacks.registry import Case
from attacks.view import Budget, NotApplicable, Reconstruction


def read_alone(case: Case, budget: Budget) -> Reconstruction | NotApplicable:
    """The closed form's claim; where there is none, that of gradient matching if the number of examples is known."""
    (found,) = analytic.solve([case], budget)
    if isinstance(found, NotApplicable) and case.knowledge.batch_size is not None:
        (found,) = inverting.solve([case], budget)
    return found
