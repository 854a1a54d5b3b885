"""Routes of the expressions router: the text of a predicate and its priority."""
